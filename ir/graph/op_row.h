/* A row of the operator table: what an operator is called, takes, and means. */
#pragma once
#include "ir/graph/graph.h"

typedef struct ElemCtx ElemCtx;   /* op.h */
typedef struct Build Build;       /* op.h */
typedef struct Gradient Gradient; /* gradient.h */

/* Checks inputs and attributes, then sets dtype, rank and dims of every output; may set `contents`.
 * Every check reports through op_error and returns false. Runs before anything else looks at the
 * node. */
typedef bool (*InferFn)(Model *m, Node *n);
/* Value of output `out` of n at idx[]. Result has the output's dtype. */
typedef const Expr *(*ElemFn)(ElemCtx *c, const Node *n, int out, const Expr *const *idx);
/* Adds nodes before n and gives the values that replace its outputs (out[n->n_out]). */
typedef bool (*ExpandFn)(Build *b, Node *n, Value **out);

/* Gives inputs of a node their gradients, for those of its results (gradient.h). */
typedef bool (*GradientFn)(Gradient *s);

/* ---- runtime functions ---- */
/* count, -1: too many */
typedef int (*ExternPack)(const Node *n, int64_t *words /* up to 64 + n*/, int max);
typedef const Expr *(*ExternScratch)(Model *m, const Node *n);
typedef struct ExternRow {
  const char *symbol; /* rt_topk */
  void *fn;           /* the same function linked into burin (RtOpFn), for the interpreter */
  ExternPack pack;
  ExternScratch scratch;
  bool heap; /* scratch is the caller's BurinHeap: memory that grows */
  /* Where a device runs it by many threads (runtime/ops/parts): launches, and threads of each (a
   * multiple of RT_BLOCK). phases 0: one thread */
  int phases, members;
  ExternScratch parts_scratch; /* of these; NULL: as scratch */
  bool over_first;   /* result 0 may lie where input 0 does: it is copied where it does not */
  const char *fails; /* what it means when it fails; NULL: an index, size or value */
  bool host_only;    /* it calls a library: no device has its source */
} ExternRow;

/* ---- rows ---- */
typedef enum OpBody { OB_NONE, OB_EW, OB_ELEM, OB_EXPAND, OB_EXTERN, OB_REGION } OpBody;
typedef enum RegionKind { RG_IF, RG_LOOP, RG_SCAN } RegionKind;
/* How gradients pass an operator. */
typedef enum GradientKind {
  GK_CUT,      /* not: results are no floats, or constant but for jumps */
  GK_MISSING,  /* there is one, which nobody wrote yet */
  GK_DERIVED,  /* from the scalar expression of an element */
  GK_TEXT,     /* of input 0, elementwise, as scalar text */
  GK_RULE,     /* a function adds the nodes */
  GK_PARTS,    /* another form of the node is differentiated: of gradient_parts, */
  GK_EXPANDED, /* of its own body */
} GradientKind;

/* clang-format off */
enum { /* OpRow.flags */
  OF_COMMUTES    = 1,   /* inputs 0 and 1 may be exchanged */
  OF_CONTRACTION = 2,   /* has a tiled template (Conv, MatMul, Gemm …): an anchor of fusion */
  OF_VIEW        = 4,   /* same elements in the same order (Reshape, Squeeze, Identity …) */
  OF_RANDOM      = 8,   /* not folded, not merged */
  OF_INDEX_ONLY  = 16,  /* moves elements, computes nothing (Transpose, Slice, Gather …) */
  OF_ANYKIND     = 32,  /* takes sequences, optionals, maps: its rule checks kinds of inputs */
  OF_PIECES      = 64,  /* assembled from its inputs along `axis` (Concat): written in place */
  OF_SCATTER     = 128, /* updates elements of input 0 at indices (1) along `axis` with input 2 */
  OF_MOVES       = 256, /* elements of the results are elements of input 0, with OF_PIECES of any input */
  OF_PERMUTES    = 512, /* … each of them once */
};
/* clang-format on */
struct OpRow {
  const char *name, *domain;
  int since;                            /* opset version of this form (the newest) */
  int min_in, max_in, min_out, max_out; /* max_in -1: variadic */
  InferFn infer;
  OpBody body;
  const char *ew;
  ElemFn elem;
  ExpandFn expand;
  const ExternRow *ext;
  RegionKind region;
  unsigned flags;
  GradientKind gradient_kind;
  const char *adjoint;     /* GK_TEXT */
  GradientFn gradient;     /* GK_RULE */
  ExpandFn gradient_parts; /* GK_PARTS */
  const char *limit;       /* what ONNX has of it and burin refuses; or NULL */
};
