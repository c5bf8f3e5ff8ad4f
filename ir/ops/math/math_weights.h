/* Weights of a product that stay as small as they were stored. */
#pragma once
#include "ir/op/op.h"

/* [rows, columns] elements q of `type` (one a byte); scale and zero: [blocks, columns], a block
 * being that many rows. A weight is (q - zero) * scale in f32. */
typedef struct StoredWeights {
  const char *name;
  DType type;
  DType zero_type; /* `type` or f32 */
  int64_t rows, columns, block;
  const void *q;
  const float *scale;
  const void *zero; /* NULL: none */
} StoredWeights;
/* Rows of which each block of as many elements as the weights have is bytes times a factor. */
typedef struct ByteRows {
  Value *q, *scale, *sum; /* i8 [.., rows]; f32 and (sums of the bytes) i32 [.., blocks] */
} ByteRows;
/* x times the weights. */
Value *build_dequantize_matmul(Build *b, Value *x, const StoredWeights *w);
Value *build_byte_matmul(Build *b, const ByteRows *x, const StoredWeights *w);
