/* Element access by element type for the runtime functions of ops; see runtime/ops/ops.h. */
#include "runtime/ops/ops.h"

float rt_f16_to_f32(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, mag = h & 0x7fffu;
  if (mag >= 0x7c00u) return rt_bits_f32(sign | 0x7f800000u | (mag & 0x3ffu) << 13);
  if (mag >= 0x400u) return rt_bits_f32(sign | ((mag << 13) + 0x38000000u));
  const float f = (float)mag * 5.9604644775390625e-8f; /* 2^-24 */
  return sign ? -f : f;
}

uint16_t rt_f32_to_f16(float f) {
  const uint32_t u = rt_f32_bits(f), mag = u & 0x7fffffffu;
  const uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
  if (mag > 0x7f800000u) return sign | 0x7e00u;
  if (mag >= 0x477ff000u) return sign | 0x7c00u;
  if (mag < 0x38800000u) { /* subnormal: let the adder round at 2^-24 */
    const float r = rt_bits_f32(mag) + 0.5f;
    return sign | (uint16_t)(rt_f32_bits(r) - 0x3f000000u);
  }
  const uint32_t round = mag + 0xfffu + (mag >> 13 & 1);
  return sign | (uint16_t)((round - 0x38000000u) >> 13);
}

uint16_t rt_f32_to_bf16(float f) {
  const uint32_t u = rt_f32_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
  return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static bool is_unsigned(int32_t t) {
  return t == RT_U8 || t == RT_U16 || t == RT_U32 || t == RT_U64 || t == RT_BOOL || t == RT_U4 ||
         t == RT_U2;
}

int64_t rt_load_i(const RtTensor *t, int64_t i) {
  const char *p = (const char *)t->data;
  if (rt_is_float(t->dtype)) {
    const double d = rt_load_f(t, i);
    return d >= 9.2e18 ? INT64_MAX : d <= -9.2e18 ? INT64_MIN : d == d ? (int64_t)d : 0;
  }
  switch (t->dtype) {
    case RT_U8:
    case RT_BOOL:
    case RT_U4:
    case RT_U2: return ((const uint8_t *)p)[i];
    case RT_I8:
    case RT_I4:
    case RT_I2: return ((const int8_t *)p)[i];
    case RT_U16: return ((const uint16_t *)p)[i];
    case RT_I16: return ((const int16_t *)p)[i];
    case RT_U32: return ((const uint32_t *)p)[i];
    case RT_I32: return ((const int32_t *)p)[i];
    case RT_U64:
    case RT_I64: return ((const int64_t *)p)[i];
    default: return 0;
  }
}

double rt_load_f(const RtTensor *t, int64_t i) {
  switch (t->dtype) {
    case RT_F32: return (double)((const float *)t->data)[i];
    case RT_F64: return ((const double *)t->data)[i];
    case RT_F16: return (double)rt_f16_to_f32(((const uint16_t *)t->data)[i]);
    case RT_BF16: return (double)rt_bits_f32((uint32_t)((const uint16_t *)t->data)[i] << 16);
    case RT_U64: return (double)((const uint64_t *)t->data)[i];
    default: return (double)rt_load_i(t, i);
  }
}

void rt_store_i(RtTensor *t, int64_t i, int64_t v) {
  switch (rt_elem_size(t->dtype)) {
    case 1: ((int8_t *)t->data)[i] = (int8_t)v; break;
    case 2: ((int16_t *)t->data)[i] = (int16_t)v; break;
    case 4: ((int32_t *)t->data)[i] = (int32_t)v; break;
    case 8: ((int64_t *)t->data)[i] = v; break;
    default: break;
  }
}

void rt_store_f(RtTensor *t, int64_t i, double v) {
  switch (t->dtype) {
    case RT_F32: ((float *)t->data)[i] = (float)v; break;
    case RT_F64: ((double *)t->data)[i] = v; break;
    case RT_F16: ((uint16_t *)t->data)[i] = rt_f32_to_f16((float)v); break;
    case RT_BF16: ((uint16_t *)t->data)[i] = rt_f32_to_bf16((float)v); break;
    default: rt_store_i(t, i, (int64_t)v); break;
  }
}

int32_t rt_compare(const RtTensor *a, int64_t i, const RtTensor *b, int64_t j) {
  if (rt_is_float(a->dtype)) {
    const double x = rt_load_f(a, i), y = rt_load_f(b, j);
    if (x != x || y != y) return (x != x) - (y != y);
    return (x > y) - (x < y);
  }
  const int64_t x = rt_load_i(a, i), y = rt_load_i(b, j);
  if (is_unsigned(a->dtype)) return ((uint64_t)x > (uint64_t)y) - ((uint64_t)x < (uint64_t)y);
  return (x > y) - (x < y);
}
