/* What the op families share: prototypes of every function named in a row (declared from the rows),
 * common infer rules, and checked access to inputs and attributes. Every `bool` helper here has
 * reported its error (op_error) when it returns false, so a rule reads `return op_need_rank(m, n,
 * 0, 1, 5) && ...;`.
 *
 * op_infer has already checked, before the row's rule runs: the arity; that inputs below min_in
 * (and all of a variadic row) are present; that every input is a tensor of known rank and dtype.
 * Rows with OF_ANYKIND (sequences, optionals) and REGION rows are spared the last two checks. An
 * absent optional output is NULL: use op_out*. */
#pragma once
#include "ir/op/op.h"

/* ---- prototypes of all functions in the rows ---- */
#define EW(text)
#define ELEM(fn) const Expr *fn(ElemCtx *c, const Node *n, int out, const Expr *const *idx);
#define EXPAND(fn) bool fn(Build *b, Node *n, Value **out);
#define EXTERN(row) extern const ExternRow row;
#define REGION(kind)
#define CUT
#define MISSING
#define DERIVED
#define ADJOINT(text)
#define GRADIENT(fn) bool fn(Gradient *s);
#define PARTS(fn) bool fn(Build *b, Node *n, Value **out);
#define TRAINED(fn, parts) GRADIENT(fn) PARTS(parts)
#define EXPANDED
#define LIMIT(text)
#define OP(domain, name, since, min_in, max_in, min_out, max_out, infer, body, flags, gradient) \
  bool infer(Model *m, Node *n);                                                                \
  body gradient
#include "ir/ops/ops.def"

/* ---- common infer rules (one output) ---- */
bool infer_same(Model *m, Node *n);         /* every output like input 0: kind, any dtype */
bool infer_same_number(Model *m, Node *n);  /* the same; input 0 is int or float */
bool infer_same_float(Model *m, Node *n);   /* the same; input 0 is float */
bool infer_same_int(Model *m, Node *n);     /* the same; input 0 is int */
bool infer_same_bool(Model *m, Node *n);    /* the same; input 0 is bool */
bool infer_same_to_bool(Model *m, Node *n); /* shape of input 0 (float), bool output: IsNaN */
/* All inputs of one int or float dtype, broadcast together */
bool infer_broadcast(Model *m, Node *n);
bool infer_broadcast_float(Model *m, Node *n); /* the same, float only */
bool infer_broadcast_int(Model *m, Node *n);   /* the same, int only: bitwise */
bool infer_broadcast_bool(Model *m, Node *n);  /* the same, bool only: And, Or, Xor */
/* Inputs of one dtype (int, float or bool), broadcast, bool output */
bool infer_compare(Model *m, Node *n);
bool infer_equal(Model *m, Node *n); /* the same, strings too */

/* ---- conditions on sizes (require.c): the only way to write one ---- */
/* A condition that is known to hold costs nothing; one that cannot hold is an error of the node
 * that gives both sizes; any other becomes an assumption (DimAssume), which the compiled model
 * checks before it relies on it. `what` says which sizes: "pieces of axis". */
bool require_equal(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what);
bool require_at_most(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what);
bool require_at_least(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what);
bool require_multiple(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what);
/* A == b or a == 1 */
bool require_broadcast(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what);
bool require_size(Model *m, const Node *n, const Expr *a, int64_t k, const char *what); /* a == k */
bool require_nonzero(Model *m, const Node *n, const Expr *a, const char *what);
/* A run that comes here fails. */
void require_never(Model *m, const Node *n, const char *what);
/* Dims [from, rank) of input k are those given; absent inputs pass. */
bool require_shape(Model *m, const Node *n, int k, int from, int rank, const Expr *const *dims,
                   const char *what);

/* ---- shapes ---- */
/* The common size of two dims that must be equal (require_equal): a constant if one is, else the
 * first. */
bool op_same_dim(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what,
                 const Expr **out);
/* ONNX multidirectional broadcasting of two shapes: like op_same_dim, but a constant 1 yields to
 * the other. out has room for MAX_RANK; it may be da or db. *rank is set. */
bool op_broadcast(Model *m, const Node *n, int ra, const Expr *const *da, int rb,
                  const Expr *const *db, int *rank, const Expr **out);
/* Over all present inputs */
bool op_broadcast_all(Model *m, const Node *n, int *rank, const Expr **out);
/* input k must be broadcastable to the given shape (unidirectional). */
bool op_broadcasts_to(Model *m, const Node *n, int k, int rank, const Expr *const *dims);
/* The same where input k is read by elem_in_bcast: a size that turns out to be 1 yields, too. */
bool op_yields_to(Model *m, const Node *n, int k, int rank, const Expr *const *dims);
/* Product of two sizes; INT64_MAX, which no tensor can have, where its coefficients leave 64
 * bits. */
const Expr *op_times(Model *m, const Expr *a, const Expr *b);
const Expr *op_product(Model *m, const Expr *const *dims, int from, int to); /* of dims[from..to) */
/* Flat row-major index of idx in a shape, and back (for view-like elems). */
const Expr *index_flatten(ExprPool *p, int rank, const Expr *const *dims, const Expr *const *idx);
void index_unflatten(ExprPool *p, int rank, const Expr *const *dims, const Expr *flat,
                     const Expr **idx);

/* ---- checks ---- */
enum { /* class masks for op_need_class */
       CL_BOOL = 1 << DC_BOOL,
       CL_INT = 1 << DC_UINT | 1 << DC_SINT,
       CL_FLOAT = 1 << DC_FLOAT,
       CL_NUMBER = CL_INT | CL_FLOAT,
       CL_STRING = 1 << DC_STRING,
       CL_COMPLEX = 1 << DC_COMPLEX,
};
bool op_need_class(Model *m, const Node *n, int k, unsigned classes); /* absent inputs pass */
bool op_need_dtype(Model *m, const Node *n, int k, DType t);          /* absent inputs pass */
bool op_same_dtype(Model *m, const Node *n, int k, int other);        /* absent inputs pass */
/* Operands 0 and 1 of a product, what is added to it (2) and its result have one type. With the
 * attribute `wide`, which is ours, operands may be small floats, each its own, and the rest is f32. */
bool op_product_types(Model *m, Node *n, DType *result);
bool op_need_rank(Model *m, const Node *n, int k, int lo, int hi); /* absent inputs pass */
/* All inputs present are tensors of known rank (OF_ANYKIND rows) */
bool op_need_tensors(Model *m, const Node *n);
/* v in [-rank, rank) → [0, rank). `what` names it in the error ("axis"). */
bool op_norm_axis(Model *m, const Node *n, const char *what, int64_t v, int rank, int *out);
/* From an INT attribute */
bool op_axis(Model *m, const Node *n, const char *attr, int64_t def, int rank, int *out);
/* Marks axes[0..count) in set[rank]; duplicates are an error. */
bool op_axis_set(Model *m, const Node *n, const char *what, int count, const int64_t *axes,
                 int rank, bool *set);

/* ---- attributes with their types checked; absent: the default ---- */
bool op_int(Model *m, const Node *n, const char *name, int64_t def, int64_t *v);
bool op_int_in(Model *m, const Node *n, const char *name, int64_t def, int64_t lo, int64_t hi,
               int64_t *v);
bool op_float(Model *m, const Node *n, const char *name, double def, double *v);
bool op_string(Model *m, const Node *n, const char *name, const char *def, const char **v);
/* Absent: count -1, v NULL */
bool op_ints(Model *m, const Node *n, const char *name, const int64_t **v, int *count);
/* An element type by ONNX's number; `def` where it is absent; others are refused. */
bool op_dtype(Model *m, const Node *n, const char *name, DType def, DType *t);
/* Required */
bool op_need_attr(Model *m, const Node *n, const char *name, AttrKind kind, const Attr **a);
/* A string attribute that must be one of choices[] (NULL-terminated): its position. */
bool op_choice(Model *m, const Node *n, const char *name, const char *def,
               const char *const *choices, int *v);

/* ---- values of inputs ---- */
/* Input k (rank 0 or 1, int or bool) as constants: false without an error when it is not known. */
bool op_known_ints(Model *m, const Node *n, int k, const int64_t **v, int *count);
bool op_known_floats(Model *m, const Node *n, int k, const double **v, int *count);
/* The same as expressions over symbols (converted to i64): shapes, starts, pads, repeats. */
bool op_known_exprs(Model *m, const Node *n, int k, const Expr *const **v, int *count);
/* Required: reports DYNAMIC when not known. `what` names it. */
bool op_need_ints(Model *m, const Node *n, int k, const char *what, const int64_t **v, int *count);
bool op_need_exprs(Model *m, const Node *n, int k, const char *what, const Expr *const **v,
                   int *count);

/* ---- outputs ---- */
/* True always; a rank above MAX_RANK is an error */
bool op_out(Model *m, Node *n, int k, DType t, int rank, const Expr *const *dims);
bool op_out_like(Model *m, Node *n, int k, DType t, const Value *v); /* v's shape */
/* A data-dependent size: dim `d` of output k as a runtime symbol in [0, bound]. Inference may run
 * again on the same node: the symbol that the output already has there is then kept. */
const Expr *op_runtime_dim(Model *m, const Node *n, int k, int d, const char *stem,
                           const Expr *bound);
