/* The operator table and what the functions of its rows may use. A row (op_row.h) has a body:
 *   EW("max(a, 0)")  scalar text over the inputs a b c d …, broadcast as ONNX says; @alpha: attribute
 *   ELEM(fn)         value of one output element as an expression
 *   EXPAND(fn)       rewritten into other operators by the pass expand
 *   EXTERN(row)      a runtime function (runtime/ops/), called with tensors
 *   REGION(kind)     If, Loop, Scan: lowered to control flow
 * and tells how gradients pass it:
 *   CUT              not at all: results are integers, or constant but for jumps
 *   DERIVED          as the scalar expression says of which an element is made
 *   ADJOINT(text)    as this scalar text over the input a, attributes and the gradient g says
 *   GRADIENT(fn)     a function adds nodes (gradient.h)
 *   PARTS(fn)        as in another form of the node, built as by EXPAND
 *   TRAINED(fn, fn)  GRADIENT, but PARTS where attribute training_mode is set
 *   EXPANDED         as in what EXPAND makes of it
 *   MISSING          not yet: an error where somebody asks for it
 */
#pragma once
#include "ir/graph/op_row.h"
#include "ir/sizes/sizes.h"

/* ---- rules for types and shapes ---- */
bool op_error(Model *m, const Node *n, ErrCode code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- elem ---- */
struct ElemCtx {
  ExprPool *pool;
  Model *model;
  /* Element of a value at logical index idx[rank]. A lowering decides: a load, the constant, the
   * known contents, or a call of op_elem on its producer when it is inlined. */
  const Expr *(*read)(ElemCtx *c, const Value *v, const Expr *const *idx, const Expr *guard);
  void *user;
};
/* Dispatches EW and ELEM */
const Expr *op_elem(ElemCtx *c, const Node *n, int out, const Expr *const *idx);
/* Input k at idx (of the input's own rank). */
const Expr *elem_in(ElemCtx *c, const Node *n, int k, const Expr *const *idx);
/* The same, but 0 where guard is false, and no access there. */
const Expr *elem_in_guarded(ElemCtx *c, const Node *n, int k, const Expr *const *idx,
                            const Expr *guard);
/* Input k at the index idx[rank] of the output, by ONNX broadcasting (missing and 1-sized dims read
 * at 0). */
const Expr *elem_in_bcast(ElemCtx *c, const Node *n, int k, int rank, const Expr *const *idx);

/* Element of a node at idx by scalar text over the inputs a b c …, as in EW; of their own types,
 * not of those computed in, where `stored`. g: what that name means, or NULL. NULL: it does not
 * parse, *error says why. */
const Expr *op_elem_text(ElemCtx *c, const Node *n, const Expr *const *idx, const char *text,
                         bool stored, const Expr *g, const char **error);

/* ---- expand ---- */
/* Builds replacement nodes before n and returns the values that replace its outputs
 * (out[n->n_out]). Nodes made with these helpers inherit n's location and are inferred at once. */
struct Build {
  Model *m;
  Graph *g;
  Node *before;
  const Loc *loc;
  bool ok; /* false after the first inference error */
};
/* One output, default domain */
Value *build_op(Build *b, const char *op, int n_in, Value *const *in, int n_attr,
                const Attr *attrs);
Node *build_node(Build *b, const char *op, const char *domain, int n_in, Value *const *in,
                 int n_out, int n_attr, const Attr *attrs);
Value *build1(Build *b, const char *op, Value *a);
Value *build2(Build *b, const char *op, Value *a, Value *c);
/* v as t; v itself where it is that, or after an error. */
Value *build_cast(Build *b, Value *v, DType t);
Value *build_rounded(Build *b, Value *v, DType t); /* v, in f32, without what t loses */
Value *build_reshape(Build *b, Value *v, int rank, const int64_t *dims);
Value *build_transpose(Build *b, Value *v, int rank, const int64_t *perm);
Value *build_unsqueeze(Build *b, Value *v, int64_t axis);
Value *build_shape(Build *b, Value *v, int64_t from, int64_t to); /* dims [from, to) as i64s */
Value *build_shape_of(Build *b, const Value *v); /* all of them: constants where they are known */
Value *build_slice(Build *b, Value *v, int64_t axis, int64_t from, int64_t to); /* [from, to) */
Value *build_swap_last(Build *b, Value *v); /* the last two dims exchanged */
/* A vector over the channels as [1, C, 1, …] of that rank and type. */
Value *build_channels(Build *b, Value *v, DType t, int rank);
Value *build_range(Build *b,
                   Value *n); /* 0 1 … n - 1, where n is an i64 scalar; n after an error */
Value *build_scalar(Build *b, DType t, double v);
Value *build_i64s(Build *b, int n, const int64_t *v);

/* ---- extern ---- */
/* Runtime functions see tensors and one attribute block; see runtime/abi.h (RtTensor, RtOpFn).
 * `pack` writes the node's attributes as int64 words (floats as bits of a double) in the order
 * the runtime function documents. `scratch` gives bytes of scratch as a size expression (NULL:
 * none). */
/* ---- rows ---- */
extern const OpRow op_rows[];
extern const int op_row_count;
/* NULL: unknown. "" and "ai.onnx" are the same */
const OpRow *op_find(const char *domain, const char *name);
bool op_infer(Model *m, Node *n); /* arity and the row's rule */
/* Elements of n's results are elements of its first node_data_inputs(n) inputs (OF_MOVES; Resize to
 * the nearest element), so that what holds of each of these holds of the result. */
bool node_moves(const Node *n);
int node_data_inputs(const Node *n);
/* All nodes, regions included (regions are inferred by their owner's rule) */
bool graph_infer(Graph *g);

/* ---- evaluation (graph_eval.c) ---- */
/* Results of one node for given inputs (in[n->n_in], out[n->n_out], absent ones NULL). False: it
 * cannot be evaluated (nothing is reported). Results are in m->arena and not in m->consts. */
bool node_eval(Model *m, const Node *n, const ConstData *const *in, ConstData **out);
/* The main graph: inputs (NULL: its default) and outputs by position. The oracle of tests. Failures
 * are reported. */
bool graph_eval(Model *m, const ConstData *const *inputs, ConstData **outputs);
