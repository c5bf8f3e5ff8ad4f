/* Convolutions, poolings and matrix products with their attributes resolved, for templates and cost
 * models: defaults filled in, auto_pad turned into pads. Valid after inference of the node. */
#pragma once
#include "ir/op/op.h"

enum { MAX_SPATIAL = 6 };

/* Window of Conv, ConvTranspose and the poolings along each spatial dim. Input position of output o
 * at tap k: o*stride + k*dilation - pad_lo (ConvTranspose: the converse). With a symbolic input
 * size and auto_pad SAME the pads depend on the size: then pad_const is false, and pad[] holds the
 * expressions (otherwise constants). */
typedef struct Window {
  int spatial;
  int64_t kernel[MAX_SPATIAL], stride[MAX_SPATIAL], dilation[MAX_SPATIAL];
  int64_t pad_lo[MAX_SPATIAL], pad_hi[MAX_SPATIAL]; /* meaningful when pad_const */
  bool pad_const;
  bool no_outside[MAX_SPATIAL];                  /* no tap can leave the input along this dim */
  const Expr *lo[MAX_SPATIAL], *hi[MAX_SPATIAL]; /* the pads as expressions, always set */
} Window;

typedef struct ConvInfo {
  int spatial;
  int64_t group;
  int64_t kernel[MAX_SPATIAL], stride[MAX_SPATIAL], dilation[MAX_SPATIAL], pad_lo[MAX_SPATIAL],
      pad_hi[MAX_SPATIAL], out_pad[MAX_SPATIAL];
  bool transposed;
  int64_t c_in, c_out; /* totals over all groups */
  int64_t pad_value;   /* of ConvInteger without zero points: what the pads hold */
} ConvInfo;
/* Conv, ConvTranspose, ConvInteger, QLinearConv. False for other nodes, and where pads or channels
 * are not constants. */
bool conv_info(const Node *n, ConvInfo *info);
/* v comes from a convolution, through elementwise nodes, concatenations and resizing: it will lie
 * channels last, most likely. */
bool value_from_conv(const Value *v);

typedef enum PoolKind { POOL_MAX, POOL_AVERAGE, POOL_LP } PoolKind;
typedef struct PoolInfo {
  int spatial;
  PoolKind kind;
  int64_t kernel[MAX_SPATIAL], stride[MAX_SPATIAL], dilation[MAX_SPATIAL], pad_lo[MAX_SPATIAL],
      pad_hi[MAX_SPATIAL];
  bool count_include_pad, ceil_mode;
  int64_t p; /* LpPool */
} PoolInfo;
/* MaxPool, AveragePool, LpPool (not the global ones). False for others and for pads that are not
 * constants. */
bool pool_info(const Node *n, PoolInfo *info);

typedef struct MatMulInfo {
  int batch_rank;        /* of the output */
  const Expr *m, *n, *k; /* 1 for a vector operand */
  bool trans_a, trans_b; /* Gemm: A is [k,m], B is [n,k] */
  double alpha, beta;
  bool a_vec, b_vec; /* MatMul with a rank-1 operand */
} MatMulInfo;
/* MatMul, MatMulInteger, QLinearMatMul, Gemm, DequantizeMatMul. */
bool matmul_info(const Node *n, MatMulInfo *info);
