/* Runtime functions of ops that cannot be loops over output elements (EXTERN rows), and the element
 * access they share. Freestanding C11: no libc, no allocation, no recursion, no writable globals;
 * data may be anything, so every index is checked. Also linked into burin for its interpreter. */
#pragma once
#include <stdbool.h>
#include "runtime/abi.h"

#ifndef RT_PARTS /* a device's text has its own (runtime/cuda/call.h) */
/* words, scratch and the ONNX op of each stand at the function. */
int32_t rt_scatter_elements(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                            const int64_t *w, void *scratch);
int32_t rt_scatter_nd(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                      const int64_t *w, void *scratch);
int32_t rt_nonzero(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                   void *scratch);
int32_t rt_compress(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                    const int64_t *w, void *scratch);
int32_t rt_unique(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                  void *scratch);
int32_t rt_topk(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                void *scratch);
int32_t rt_nms(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
               void *scratch);
int32_t rt_tree_ensemble(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                         const int64_t *w, void *scratch);
int32_t rt_coupling(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                    const int64_t *w, void *scratch);
int32_t rt_image_decoder(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                         const int64_t *w, void *scratch);
int32_t rt_inverse(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                   void *scratch);
int32_t rt_roi_align(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                     const int64_t *w, void *scratch);
int32_t rt_dft(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
               void *scratch);
int32_t rt_tfidf(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                 void *scratch);
#endif

/* TensorProto.DataType numbers used here. */
enum {
  RT_F32 = 1,
  RT_U8,
  RT_I8,
  RT_U16,
  RT_I16,
  RT_I32,
  RT_I64,
  RT_STR,
  RT_BOOL,
  RT_F16,
  RT_F64,
  RT_U32,
  RT_U64,
  RT_C64,
  RT_C128,
  RT_BF16,
  RT_F8E4M3FN,
  RT_F8E4M3FNUZ,
  RT_F8E5M2,
  RT_F8E5M2FNUZ,
  RT_U4,
  RT_I4,
  RT_F4E2M1,
  RT_F8E8M0,
  RT_U2,
  RT_I2
};

/* Bytes of one element in memory. */
static inline int64_t rt_elem_size(int32_t dtype) {
  static const uint8_t size[] = {0, 4,  1, 1, 2, 2, 4, 8, 8, 1, 2, 8, 4, 8,
                                 8, 16, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  return dtype > 0 && dtype < (int32_t)sizeof size ? size[dtype] : 0;
}

static inline int64_t rt_product(const int64_t *dims, int32_t from, int32_t to) {
  int64_t n = 1;
  for (int32_t i = from; i < to; i++) n *= dims[i];
  return n;
}
static inline int64_t rt_count(const RtTensor *t) { return rt_product(t->dims, 0, t->rank); }

static inline void rt_copy(void *to, const void *from, int64_t bytes) {
  unsigned char *a = (unsigned char *)to;
  const unsigned char *b = (const unsigned char *)from;
  if (a != b)
    for (int64_t i = 0; i < bytes; i++) a[i] = b[i];
}

static inline bool rt_is_float(int32_t t) {
  return t == RT_F32 || t == RT_F16 || t == RT_BF16 || t == RT_F64;
}

static inline float rt_bits_f32(uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
static inline uint32_t rt_f32_bits(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}
float rt_f16_to_f32(uint16_t h);
uint16_t rt_f32_to_f16(float f); /* nearest, ties to even */
uint16_t rt_f32_to_bf16(float f);

/* Element i as a number. Types without arithmetic here (8-bit and 4-bit floats, complex, strings)
 * read as 0. */
double rt_load_f(const RtTensor *t, int64_t i);
int64_t rt_load_i(const RtTensor *t, int64_t i);
void rt_store_f(RtTensor *t, int64_t i, double v);
void rt_store_i(RtTensor *t, int64_t i, int64_t v);
/* Order of elements i of a and j of b: -1, 0, 1; NaN is above everything and equal to itself. */
int32_t rt_compare(const RtTensor *a, int64_t i, const RtTensor *b, int64_t j);

static inline double rt_word_f(int64_t w) {
  double d;
  __builtin_memcpy(&d, &w, 8);
  return d;
}
/* Index v of an axis of size d, negative from the end: -1 when outside. */
static inline int64_t rt_wrap(int64_t v, int64_t d) {
  if (v < 0) v += d;
  return v >= 0 && v < d ? v : -1;
}
