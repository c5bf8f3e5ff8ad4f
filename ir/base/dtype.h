/* Element types (dtypes.def). Sub-byte types are stored one element per byte inside the compiler
 * and in arenas; the frontend unpacks them and the program's edges pack them. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum DType {
  DT_NONE,
#define T(id, text, onnx, bits, class, compute) DT_##id,
#include "ir/base/dtypes.def"
#undef T
  DT_COUNT
} DType;

typedef enum DClass { DC_NONE, DC_BOOL, DC_UINT, DC_SINT, DC_FLOAT, DC_STRING, DC_COMPLEX } DClass;

typedef struct DTypeRow {
  const char *text;
  int onnx; /* TensorProto.DataType */
  int bits;
  DClass cls;
  DType compute;
} DTypeRow;

extern const DTypeRow dtype_rows[DT_COUNT];

DType dtype_from_onnx(int64_t onnx);  /* DT_NONE when unknown */
DType dtype_from_text(const char *s); /* DT_NONE when unknown */
static inline const char *dtype_text(DType t) { return dtype_rows[t].text; }
static inline bool dtype_is_float(DType t) { return dtype_rows[t].cls == DC_FLOAT; }
static inline bool dtype_is_half(DType t) { return t == DT_F16 || t == DT_BF16; }
static inline bool dtype_is_int(DType t) {
  return dtype_rows[t].cls == DC_UINT || dtype_rows[t].cls == DC_SINT;
}
static inline DType dtype_compute(DType t) { return dtype_rows[t].compute; }
/* Bytes of one element in memory of compiler and generated code (sub-byte types take one byte). */
static inline int dtype_bytes(DType t) { return (dtype_rows[t].bits + 7) / 8; }

/* One stored element as a double / int64 and back (round to nearest even, saturating for the 8-bit
 * and 4-bit floats as ONNX Cast says; integers wrap). Strings are not handled. */
double dtype_load_f(DType t, const void *p);
int64_t dtype_load_i(DType t, const void *p);
void dtype_store_f(DType t, void *p, double v);
/* Toward zero; saturating, NaN is 0: what a model gives as a float may be anything. */
int64_t double_to_i64(double v);
void dtype_store_i(DType t, void *p, int64_t v);

/* Floats below 32 bits: code of v (nearest even) and its value; saturate: of the 8-bit and 4-bit
 * formats. */
uint16_t dtype_encode(DType t, double v, bool saturate);
double dtype_decode(DType t, uint16_t code);
double dtype_round(DType t, double v, bool saturate); /* v as float type t holds it */
int64_t dtype_wrap(DType t, int64_t v); /* v as integer type t holds it, extended again */
