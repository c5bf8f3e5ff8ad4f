
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
/* Of an f32, without a trip through f64: `lo` and `hi` lie within 32 bits. */
static __forceinline__ int32_t burin_to_int(float v, int32_t lo, int32_t hi) {
  const int32_t i = burin_to_i32(v);
  return i < lo ? lo : i > hi ? hi : i;
}
