/* A hand-written model that does 64-bit and 32-bit arithmetic on its inputs, for which 32-bit ARM
 * needs the runtime's builtins. out: quotient, remainder, their unsigned and 32-bit kin, shifts,
 * conversions. */
#include "runtime/core/rt.h"

enum { OUTPUTS = 16 };
static const int64_t dims1[] = {-1};
static const BurinTensorInfo inputs[] = {{"a", 7, 1, dims1, "i64[n]", 0, 0},
                                         {"b", 7, 1, dims1, "i64[n]", 0, 0}};
#define I64 {"o", 7, 1, dims1, "i64[n]", 0, 0}
#define F64 {"d", 11, 1, dims1, "f64[n]", 0, 0}
#define F32 {"f", 1, 1, dims1, "f32[n]", 0, 0}
static const BurinTensorInfo outputs[] = {I64, I64, I64, I64, I64, I64, I64, I64,
                                          I64, I64, I64, F64, F64, F32, F32, I64};
static const char *const symbols[] = {"n"};

static int32_t invoke(const void *const *in, void *const *out, int64_t *dims, void *arena,
                      const BurinOptions *o) {
  (void)arena, (void)o;
  if (!in[0] || !in[1]) return BURIN_E_ARGUMENT;
  for (int64_t i = 0; i < dims[0]; i++) {
    const int64_t a = ((const int64_t *)in[0])[i], b = ((const int64_t *)in[1])[i];
    const int32_t sa = (int32_t)a, sb = (int32_t)b;
    const uint64_t ua = (uint64_t)a, ub = (uint64_t)b;
    const int shift = (int)(ub & 63);
    const int64_t v[] = {a / b,
                         a % b,
                         (int64_t)(ua / ub),
                         (int64_t)(ua % ub),
                         sb && !(sa == INT32_MIN && sb == -1) ? sa / sb : 0,
                         sb && sb != -1 ? sa % sb : 0,
                         sb ? (uint32_t)sa / (uint32_t)sb : 0,
                         sb ? (uint32_t)sa % (uint32_t)sb : 0,
                         (int64_t)(ua << shift),
                         (int64_t)(ua >> shift),
                         a >> shift};
    for (int k = 0; k < 11; k++) ((int64_t *)out[k])[i] = v[k];
    ((double *)out[11])[i] = (double)a;
    ((double *)out[12])[i] = (double)ua;
    ((float *)out[13])[i] = (float)a;
    ((float *)out[14])[i] = (float)ua;
    ((int64_t *)out[15])[i] = (int64_t)((double)a / 3) + (int64_t)((float)(int32_t)b / 7) +
                              (int64_t)(uint64_t)((double)(ua >> 2));
  }
  return BURIN_OK;
}

static uint64_t arena_size(const int64_t *dims, int32_t threads) {
  return (void)dims, (uint64_t)threads;
}
static void output_dims(int32_t k, const int64_t *dims, int64_t *out, int32_t bounds) {
  (void)k, (void)bounds, out[0] = dims[0];
}

const BurinModel burin_program_model = {BURIN_ABI_VERSION,
                                        sizeof(BurinModel),
                                        "arith",
                                        "test",
                                        "test",
                                        "",
                                        "0",
                                        2,
                                        OUTPUTS,
                                        1,
                                        1,
                                        inputs,
                                        outputs,
                                        symbols,
                                        0,
                                        0,
                                        64,
                                        1,
                                        0,
                                        0,
                                        0,
                                        NULL,
                                        0,
                                        invoke,
                                        arena_size,
                                        output_dims};
