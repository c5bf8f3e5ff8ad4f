/* Comparing kernels. Internal to passes/. */
#pragma once
#include "ir/expr/expr_query.h"
#include "ir/loop/loop.h"
#include "passes/pass.h"

/* What kernels of one shape may differ in. */
typedef struct KernelShape {
  Arena *a;
  int64_t *from;  /* by parameter: element that accesses are counted from */
  ExprList fixed; /* constants that belong to the shape */
} KernelShape;
KernelShape kernel_shape(Arena *a, const Kernel *k);

typedef struct KernelDigest {
  const int64_t *words;
  int n;
  uint64_t hash;
  ExprList consts; /* of a shape: those left open, in an order that equal shapes have in common */
} KernelDigest;
KernelDigest kernel_digest_full(Arena *scratch, ExprPool *p, const Kernel *k);
KernelDigest kernel_digest_shape(Arena *scratch, ExprPool *p, const Kernel *k,
                                 const KernelShape *shape);
bool kernel_digest_same(const KernelDigest *x, const KernelDigest *y);

/* Positions of kernels by address and by digest; only looked up, never walked. */
typedef struct KernelTable {
  Kernel **kernels; /* as they were */
  KernelDigest *digests;
  int *by_digest, *by_kernel;
  unsigned mask;
} KernelTable;
KernelTable kernel_table_new(Arena *a, Kernel *const *kernels, KernelDigest *digests, int n);
int kernel_table_find(const KernelTable *t, const Kernel *k); /* -1: not among them */
/* The first kernel asked for whose digest equals that of k: k itself when there was none. */
int kernel_table_equal(KernelTable *t, int k);
