
/* ---- what a GPU has instructions for ---- */
#if BURIN_PTX
#define burin_c_mulf(a, b) __fmul_rn(a, b)
#define burin_c_divf(a, b) __fdiv_rn(a, b)
#define burin_c_sqrtf(a) __fsqrt_rn(a)
#define burin_c_sqrt(a) __dsqrt_rn(a)
#define burin_c_fmaf(a, b, c) __fmaf_rn(a, b, c)
#define burin_c_fma(a, b, c) __fma_rn(a, b, c)
#define burin_c_floorf(a) floorf(a)
#define burin_c_ceilf(a) ceilf(a)
#define burin_c_truncf(a) truncf(a)
#define burin_c_rintf(a) rintf(a)
#define burin_c_floor(a) floor(a)
#define burin_c_ceil(a) ceil(a)
#define burin_c_trunc(a) trunc(a)
#define burin_c_rint(a) rint(a)
#define burin_c_dot4_i8i8(a, b, c) __dp4a((int)(a), (int)(b), (int)(c))
#define burin_c_dot4_u8u8(a, b, c) ((int)__dp4a((unsigned)(a), (unsigned)(b), (unsigned)(c)))
static __forceinline__ int32_t burin_dp4a_u8i8(int32_t a, int32_t b, int32_t c) {
  int32_t d;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
#define burin_c_dot4_u8i8(a, b, c) burin_dp4a_u8i8(a, b, c)
static __forceinline__ float burin_f16_load(uint16_t h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}
static __forceinline__ uint16_t burin_f16_store(float f) {
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}
static __forceinline__ int32_t burin_to_i32(float v) { return __float2int_rz(v); } /* NaN: 0 */
#else
#define burin_c_sqrtf(a) __builtin_sqrtf(a)
#define burin_c_sqrt(a) __builtin_sqrt(a)
#define burin_c_fmaf(a, b, c) __builtin_fmaf(a, b, c)
#define burin_c_fma(a, b, c) __builtin_fma(a, b, c)
#define burin_c_floorf(a) __builtin_floorf(a)
#define burin_c_ceilf(a) __builtin_ceilf(a)
#define burin_c_truncf(a) __builtin_truncf(a)
#define burin_c_rintf(a) __builtin_rintf(a)
#define __forceinline__ inline
static inline float burin_f16_load(uint16_t h) {
  typedef short Halves __attribute__((vector_size(16)));
  typedef float Floats __attribute__((vector_size(16)));
  const Floats f = __builtin_ia32_vcvtph2ps((Halves){(short)h, 0, 0, 0, 0, 0, 0, 0});
  return f[0];
}
static inline uint16_t burin_f16_store(float f) {
  typedef float Floats __attribute__((vector_size(16)));
  return (uint16_t)__builtin_ia32_vcvtps2ph((Floats){f, 0, 0, 0}, 0)[0];
}
static inline int32_t burin_to_i32(float v) {
  return v != v ? 0 : v >= 2147483648.0f ? INT32_MAX : v <= -2147483648.0f ? INT32_MIN : (int32_t)v;
}
#endif
static __forceinline__ float burin_bf16_load(uint16_t h) {
  return burin_c_float((uint32_t)h << 16);
}
static __forceinline__ uint16_t burin_bf16_store(float f) { /* to nearest even */
  const uint32_t u = burin_c_bits32(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16 & 0x8000u) | 0x7fc0u);
  return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
static __forceinline__ float burin_f16_round(float f) { return burin_f16_load(burin_f16_store(f)); }
static __forceinline__ float burin_bf16_round(float f) {
  return burin_bf16_load(burin_bf16_store(f));
}
/* As tf32 has it: to nearest, ties away. */
static __forceinline__ uint32_t burin_tf32_round(uint32_t u) {
  return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u;
}
/* Of an f32, without a trip through f64: `lo` and `hi` lie within 32 bits. */
static __forceinline__ int32_t burin_to_int(float v, int32_t lo, int32_t hi) {
  const int32_t i = burin_to_i32(v);
  return i < lo ? lo : i > hi ? hi : i;
}

/* ---- accesses of several elements ---- */
#if BURIN_PTX
#define BURIN_ALIGNED __align__(16)
#define BURIN_CHECK_ALIGNED(p, bytes)
typedef uint32_t BurinWide4;
typedef uint2 BurinWide8;
typedef uint4 BurinWide16;
#else
#define BURIN_ALIGNED __attribute__((aligned(16)))
#define BURIN_CHECK_ALIGNED(p, bytes) \
  if ((uint64_t)(p) % (bytes)) __builtin_trap()
typedef uint32_t BurinWide4 __attribute__((may_alias));
typedef uint64_t BurinWide8 __attribute__((may_alias));
typedef uint32_t BurinWide16 __attribute__((vector_size(16), may_alias));
#endif
#define BURIN_COPY(bytes)                                                                      \
  static __forceinline__ void burin_copy##bytes(void *to, const void *from) {                  \
    BURIN_CHECK_ALIGNED(to, bytes);                                                            \
    BURIN_CHECK_ALIGNED(from, bytes);                                                          \
    *(BurinWide##bytes *)to = *(const BurinWide##bytes *)from;                                 \
  }                                                                                            \
  static __forceinline__ void burin_copy##bytes##_if(void *to, const void *from, bool there) { \
    BurinWide##bytes v = {};                                                                   \
    BURIN_CHECK_ALIGNED(to, bytes);                                                            \
    BURIN_CHECK_ALIGNED(from, bytes);                                                          \
    if (there) v = *(const BurinWide##bytes *)from;                                            \
    *(BurinWide##bytes *)to = v;                                                               \
  }
BURIN_COPY(4)
BURIN_COPY(8)
BURIN_COPY(16)

/* ---- copies into shared memory that go on while threads do (cp.async) ----
 * Groups of copies end with BURIN_LATE_END; BURIN_LATE_WAIT(n) waits for all but the last n. */
#if BURIN_PTX
#define BURIN_LATE
#define BURIN_LATE_END() asm volatile("cp.async.commit_group;" ::: "memory")
#define BURIN_LATE_WAIT(n) asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory")
/* bytes: of 16, what is read; the others are zeros. */
static __forceinline__ void burin_copy_async(void *to, const void *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes)
               : "memory");
}
#define burin_copy16_late(to, from) burin_copy_async(to, from, 16)
#define burin_copy16_late_if(to, from, there) burin_copy_async(to, from, (there) ? 16 : 0)
#else
/* They are made as late as may be: when they are waited for, or room is needed. */
enum { BURIN_LATE_MOST = 256 };
typedef struct BurinLate {
  void *to[BURIN_LATE_MOST];
  const void *from[BURIN_LATE_MOST];
  int group[BURIN_LATE_MOST];
  int first, n, groups; /* those of the ring that wait; groups that have ended */
} BurinLate;
static void burin_late_one(BurinLate *l) {
  if (l->from[l->first])
    burin_copy16(l->to[l->first], l->from[l->first]);
  else
    burin_copy16_if(l->to[l->first], 0, false);
  l->first = (l->first + 1) % BURIN_LATE_MOST;
  l->n--;
}
static void burin_late_add(BurinLate *l, void *to, const void *from) {
  if (l->n == BURIN_LATE_MOST) burin_late_one(l);
  const int at = (l->first + l->n++) % BURIN_LATE_MOST;
  l->to[at] = to;
  l->from[at] = from;
  l->group[at] = l->groups;
}
static void burin_late_wait(BurinLate *l, int n) {
  while (l->n && l->group[l->first] < l->groups - n) burin_late_one(l);
}
#define BURIN_LATE \
  BurinLate late;  \
  late.first = late.n = late.groups = 0
#define BURIN_LATE_END() (void)late.groups++
#define BURIN_LATE_WAIT(n) burin_late_wait(&late, n)
#define burin_copy16_late(to, from) burin_late_add(&late, to, from)
#define burin_copy16_late_if(to, from, there) burin_late_add(&late, to, (there) ? (from) : 0)
#endif

/* ---- fragments of matrices: 32 lanes of a warp together ---- */
#define burin_lane ((int)(thread.x & 31))
#define burin_a_row (burin_lane & 15)
#define burin_a_chunk (burin_lane >> 4)
#define burin_b_row ((burin_lane & 7) + 8 * (burin_lane >> 4))
#define burin_b_chunk (burin_lane >> 3 & 1)
#if BURIN_PTX && defined BURIN_PLAIN /* lanes tell each other where rows are */
static __forceinline__ void burin_ldmatrix_n(uint32_t *r, const void *p, int n) {
  const int lane = (int)(threadIdx.x & 31);
  for (int i = 0; i < n; i++) {
    const uint64_t row = __shfl_sync(0xffffffffu, (unsigned long long)p, 8 * i + lane / 4);
    r[i] = ((const uint32_t *)row)[lane % 4];
  }
}
static __forceinline__ void burin_ldmatrix(uint32_t *r, const void *p) {
  burin_ldmatrix_n(r, p, 4);
}
static __forceinline__ void burin_ldmatrix_half(uint32_t *r, const void *p) {
  burin_ldmatrix_n(r, p, 2);
}
static __forceinline__ void burin_ldmatrix_turned_n(uint32_t *r, const void *p, int n) {
  const int lane = (int)(threadIdx.x & 31);
  for (int i = 0; i < n; i++) {
    const int from = 8 * i + 2 * (lane % 4);
    const uint64_t even = __shfl_sync(0xffffffffu, (unsigned long long)p, from);
    const uint64_t odd = __shfl_sync(0xffffffffu, (unsigned long long)p, from + 1);
    r[i] = ((const uint16_t *)even)[lane / 4] | (uint32_t)((const uint16_t *)odd)[lane / 4] << 16;
  }
}
static __forceinline__ void burin_ldmatrix_turned(uint32_t *r, const void *p) {
  burin_ldmatrix_turned_n(r, p, 4);
}
static __forceinline__ void burin_ldmatrix_turned_half(uint32_t *r, const void *p) {
  burin_ldmatrix_turned_n(r, p, 2);
}
#elif BURIN_PTX
#define BURIN_LDMATRIX(name, form)                                                          \
  static __forceinline__ void burin_ldmatrix##name(uint32_t *r, const void *p) {            \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" form ".shared.b16 {%0, %1, %2, %3}, [%4];" \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                           \
                 : "r"((uint32_t)__cvta_generic_to_shared(p))                               \
                 : "memory");                                                               \
  }                                                                                         \
  static __forceinline__ void burin_ldmatrix##name##_half(uint32_t *r, const void *p) {     \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2" form ".shared.b16 {%0, %1}, [%2];"         \
                 : "=r"(r[0]), "=r"(r[1])                                                   \
                 : "r"((uint32_t)__cvta_generic_to_shared(p))                               \
                 : "memory");                                                               \
  }
BURIN_LDMATRIX(, "")
BURIN_LDMATRIX(_turned, ".trans")
#endif
#if BURIN_PTX
#define BURIN_MMA(name, shape, type, c_type, constraint)                                          \
  static __forceinline__ void burin_mma_##name(c_type *c, const uint32_t *a, const uint32_t *b) { \
    asm("mma.sync.aligned." shape ".row.col." type                                                \
        " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                        \
        : "+" constraint(c[0]), "+" constraint(c[1]), "+" constraint(c[2]), "+" constraint(c[3])  \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                      \
  }
BURIN_MMA(f16, "m16n8k16", "f32.f16.f16.f32", float, "f")
BURIN_MMA(bf16, "m16n8k16", "f32.bf16.bf16.f32", float, "f")
BURIN_MMA(tf32, "m16n8k8", "f32.tf32.tf32.f32", float, "f")
BURIN_MMA(u8u8, "m16n8k32", "s32.u8.u8.s32", int32_t, "r")
BURIN_MMA(u8i8, "m16n8k32", "s32.u8.s8.s32", int32_t, "r")
BURIN_MMA(i8u8, "m16n8k32", "s32.s8.u8.s32", int32_t, "r")
BURIN_MMA(i8i8, "m16n8k32", "s32.s8.s8.s32", int32_t, "r")
#else
/* Lanes put down what they have, wait, and take what is theirs: PTX's tables of fragments. */
static uint64_t burin_table[32][32]; /* by warp and lane */
static uint32_t burin_fragments[32][32][6];
#define burin_warp (burin_gpu_thread() / 32)
#define burin_self (burin_gpu_thread() % 32)
static void burin_ldmatrix_n(uint32_t *r, const void *p, int n) {
  const int w = burin_warp, lane = burin_self;
  if ((uint64_t)p % 16) __builtin_trap();
  burin_table[w][lane] = (uint64_t)p;
  burin_gpu_warp_barrier(-1);
  for (int i = 0; i < n; i++)
    memcpy(&r[i], (const char *)burin_table[w][8 * i + lane / 4] + 4 * (lane % 4), 4);
  burin_gpu_warp_barrier(-2);
}
static void burin_ldmatrix(uint32_t *r, const void *p) { burin_ldmatrix_n(r, p, 4); }
static void burin_ldmatrix_half(uint32_t *r, const void *p) { burin_ldmatrix_n(r, p, 2); }
/* The same of matrices that are transposed: two elements of a column. */
static void burin_ldmatrix_turned_n(uint32_t *r, const void *p, int n) {
  const int w = burin_warp, lane = burin_self;
  if ((uint64_t)p % 16) __builtin_trap();
  burin_table[w][lane] = (uint64_t)p;
  burin_gpu_warp_barrier(-5);
  for (int i = 0; i < n; i++)
    for (int e = 0; e < 2; e++)
      memcpy((char *)&r[i] + 2 * e,
             (const char *)burin_table[w][8 * i + 2 * (lane % 4) + e] + 2 * (lane / 4), 2);
  burin_gpu_warp_barrier(-6);
}
static void burin_ldmatrix_turned(uint32_t *r, const void *p) { burin_ldmatrix_turned_n(r, p, 4); }
static void burin_ldmatrix_turned_half(uint32_t *r, const void *p) {
  burin_ldmatrix_turned_n(r, p, 2);
}
/* Element (row, k) of A, or (k, column) of B, of `bytes` bytes, as its register's bits. */
static uint32_t burin_element(int w, int row, int k, int bytes, int b) {
  const int per = 4 / bytes, half = k >= 4 * per, lane = row % 8 * 4 + k % (4 * per) / per;
  const int reg = b ? 4 + half : row / 8 + 2 * half;
  return burin_fragments[w][lane][reg] >> 8 * bytes * (k % per);
}
static float burin_number_f16(uint32_t u) { return burin_f16_load((uint16_t)u); }
static float burin_number_bf16(uint32_t u) { return burin_bf16_load((uint16_t)u); }
static float burin_number_tf32(uint32_t u) { return burin_c_float(u & 0xffffe000u); }
static int32_t burin_number_u8(uint32_t u) { return (uint8_t)u; }
static int32_t burin_number_i8(uint32_t u) { return (int8_t)u; }
#define BURIN_MMA(name, c_type, bytes, a_type, b_type)                                         \
  static void burin_mma_##name(c_type *c, const uint32_t *a, const uint32_t *b) {              \
    const int w = burin_warp, lane = burin_self;                                               \
    for (int i = 0; i < 6; i++) burin_fragments[w][lane][i] = i < 4 ? a[i] : b[i - 4];         \
    burin_gpu_warp_barrier(-3);                                                                \
    for (int i = 0; i < 4; i++)                                                                \
      for (int k = 0; k < 32 / bytes; k++)                                                     \
        c[i] += burin_number_##a_type(burin_element(w, lane / 4 + 8 * (i / 2), k, bytes, 0)) * \
                burin_number_##b_type(burin_element(w, lane % 4 * 2 + i % 2, k, bytes, 1));    \
    burin_gpu_warp_barrier(-4);                                                                \
  }
BURIN_MMA(f16, float, 2, f16, f16)
BURIN_MMA(bf16, float, 2, bf16, bf16)
BURIN_MMA(tf32, float, 4, tf32, tf32)
BURIN_MMA(u8u8, int32_t, 1, u8, u8)
BURIN_MMA(u8i8, int32_t, 1, u8, i8)
BURIN_MMA(i8u8, int32_t, 1, i8, u8)
BURIN_MMA(i8i8, int32_t, 1, i8, i8)
#endif
