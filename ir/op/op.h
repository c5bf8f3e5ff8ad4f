/* The operator table (ops.def) and what its functions may use.
 *
 * A row says: name, domain, since-version, arity, result type rule, shape rule, body. The body is
 * one of EW("max(a, 0)")     scalar text over the inputs a b c d …, broadcast as ONNX says;
 * attributes as @alpha ELEM(fn)            value of one output element as an expression EXPAND(fn)
 * rewritten into other ops by the expand pass EXTERN(fn)          a runtime function
 * (runtime/ops_*.c), called with tensors REGION(kind)        If, Loop, Scan: lowered to control
 * flow */
#pragma once
#include "ir/graph/graph.h"

/* ---- rules for types and shapes ---- */
/* Checks inputs and attributes, then sets dtype, rank and dims of every output; may set `contents`.
 * Every check reports through op_error and returns false. Runs before anything else looks at the
 * node. */
typedef bool (*InferFn)(Model *m, Node *n);
bool op_error(Model *m, const Node *n, ErrCode code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- elem ---- */
typedef struct ElemCtx ElemCtx;
struct ElemCtx {
  ExprPool *pool;
  Model *model;
  /* Element of a value at logical index idx[rank]. A lowering decides: a load, the constant, the
   * known contents, or a call of op_elem on its producer when it is inlined. */
  const Expr *(*read)(ElemCtx *c, const Value *v, const Expr *const *idx, const Expr *guard);
  void *user;
};
/* Value of output `out` of n at idx[]. Result has the output's dtype. */
typedef const Expr *(*ElemFn)(ElemCtx *c, const Node *n, int out, const Expr *const *idx);
const Expr *op_elem(ElemCtx *c, const Node *n, int out,
                    const Expr *const *idx); /* dispatches EW and ELEM */
/* Input k at idx (of the input's own rank). */
const Expr *elem_in(ElemCtx *c, const Node *n, int k, const Expr *const *idx);
/* The same, but 0 where guard is false, and no access there. */
const Expr *elem_in_guarded(ElemCtx *c, const Node *n, int k, const Expr *const *idx,
                            const Expr *guard);
/* Input k at the index idx[rank] of the output, by ONNX broadcasting (missing and 1-sized dims read
 * at 0). */
const Expr *elem_in_bcast(ElemCtx *c, const Node *n, int k, int rank, const Expr *const *idx);

/* ---- broadcasting over symbolic sizes (broadcast.c) ---- */
/* The common size of two different dims of which at least one is a size of the caller that may turn
 * out to be 1; NULL: they can only be equal. */
const Expr *dim_join(ExprPool *p, const Expr *a, const Expr *b);
/* May `dim` be 1 where `out`, the result's, is something else? */
bool dims_broadcast(ExprPool *p, const Expr *dim, const Expr *out);
/* Index into an operand's dim for the result's index: 0 where the dim is 1. out may be NULL. */
const Expr *bcast_index(ExprPool *p, const Expr *dim, const Expr *out, const Expr *index);

/* ---- expand ---- */
/* Builds replacement nodes before n and returns the values that replace its outputs
 * (out[n->n_out]). Nodes made with these helpers inherit n's location and are inferred at once. */
typedef struct Build {
  Model *m;
  Graph *g;
  Node *before;
  const Loc *loc;
  bool ok; /* false after the first inference error */
} Build;
typedef bool (*ExpandFn)(Build *b, Node *n, Value **out);
Value *build_op(Build *b, const char *op, int n_in, Value *const *in, int n_attr,
                const Attr *attrs); /* one output, default domain */
Node *build_node(Build *b, const char *op, const char *domain, int n_in, Value *const *in,
                 int n_out, int n_attr, const Attr *attrs);
Value *build1(Build *b, const char *op, Value *a);
Value *build2(Build *b, const char *op, Value *a, Value *c);
Value *build_scalar(Build *b, DType t, double v);
Value *build_i64s(Build *b, int n, const int64_t *v);
Attr attr_int(Arena *a, const char *name, int64_t v);
Attr attr_ints(Arena *a, const char *name, int n, const int64_t *v);
Attr attr_float(Arena *a, const char *name, double v);
Attr attr_string(Arena *a, const char *name, const char *v);

/* ---- extern ---- */
/* Runtime functions see tensors and one attribute block; see runtime/abi.h (RtTensor, RtOpFn).
 * `pack` writes the node's attributes as int64 words (floats as bits of a double) in the order the
 * runtime function documents. `scratch` gives bytes of scratch as a size expression (NULL: none). */
typedef int (*ExternPack)(const Node *n, int64_t *words /* up to 64 + n*/,
                          int max); /* count, -1: too many */
typedef const Expr *(*ExternScratch)(Model *m, const Node *n);
typedef struct ExternRow {
  const char *symbol; /* rt_topk */
  void *fn; /* the same function linked into burin (RtOpFn), for the interpreter */
  ExternPack pack;
  ExternScratch scratch;
} ExternRow;

/* ---- rows ---- */
typedef enum OpBody { OB_NONE, OB_EW, OB_ELEM, OB_EXPAND, OB_EXTERN, OB_REGION } OpBody;
typedef enum RegionKind { RG_IF, RG_LOOP, RG_SCAN } RegionKind;
enum { /* OpRow.flags */
       OF_COMMUTES = 1, /* inputs 0 and 1 may be exchanged */
       OF_CONTRACTION =
           2, /* has a tiled template (Conv, MatMul, Gemm, ConvTranspose): an anchor of fusion */
       OF_VIEW = 4, /* same elements in the same row-major order (Reshape, Squeeze, Identity…) */
       OF_RANDOM = 8, /* not folded, not merged */
       OF_INDEX_ONLY =
           16, /* moves elements, computes nothing (Transpose, Slice, Concat, Gather…) */
       OF_PIECES = 64, /* assembled from its inputs side by side along `axis` (Concat): written in
                          place, piece by piece */
       OF_SCATTER = 128, /* updates elements of input 0 at indices (input 1) along `axis` with input
                            2: has a kernel template */
       OF_ANYKIND = 32, /* takes sequences, optionals or maps: its rule checks the kinds of its
                           inputs itself */
};
struct OpRow {
  const char *name, *domain;
  int since; /* opset version of this form (the newest) */
  int min_in, max_in, min_out, max_out; /* max_in -1: variadic */
  InferFn infer;
  OpBody body;
  const char *ew;
  ElemFn elem;
  ExpandFn expand;
  const ExternRow *ext;
  RegionKind region;
  unsigned flags;
};
extern const OpRow op_rows[];
extern const int op_row_count;
const OpRow *op_find(const char *domain,
                     const char *name); /* NULL: unknown. "" and "ai.onnx" are the same */
bool op_infer(Model *m, Node *n); /* arity and the row's rule */
bool graph_infer(
    Graph *g); /* all nodes, regions included (regions are inferred by their owner's rule) */

/* ---- evaluation (graph_eval.c) ---- */
/* Results of one node for given inputs (in[n->n_in], out[n->n_out], absent ones NULL). False: it
 * cannot be evaluated (nothing is reported). Results are in m->arena and not in m->consts. */
bool node_eval(Model *m, const Node *n, const ConstData *const *in, ConstData **out);
/* The main graph: inputs (NULL: its default) and outputs by position. The oracle of tests. Failures
 * are reported. */
bool graph_eval(Model *m, const ConstData *const *inputs, ConstData **outputs);
