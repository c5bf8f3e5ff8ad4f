/* What fuse, layout and the lowering files share: building a kernel's scalar expression from the
 * graph, places of values in memory, and kernels under construction. Internal to passes/. */
#pragma once
#include "ir/expr/expr_query.h"
#include "ir/loop/loop.h"
#include "ir/op/op.h"

#include "passes/choose/contract_types.h"
#include "passes/choose/contraction.h"
#include "passes/pass.h"

/* Where a value lies: element [i0, i1, …] is at buffer[offset + base + Σ i*stride]. */
typedef struct Place {
  int buffer;          /* module buffer; -1: not placed; below: scratch (kb_scratch_place) */
  const Expr *offset;  /* elements: where the pointer given to kernels points */
  const Expr *base;    /* element 0 from there, behind the halo; NULL: 0 */
  const Expr **stride; /* one per dimension */
  bool dense;          /* row-major without gaps */
  bool alias;          /* of a value computed elsewhere: nothing to run */
  bool slice;          /* part of a larger value (piece of a Concat) */
  bool no_halo;        /* its layout asks for a halo that it does not have here */
  int16_t halo_lo[MAX_RANK], halo_hi[MAX_RANK]; /* cells around it that may be read */
  int16_t fill;                                 /* what they hold */
  /* > 0: keeps that many rows (dimension 2); row h lies at (h + halo_lo[2]) mod ring */
  int64_t ring;
} Place;

/* ---- expressions of kernels (kernel_expr.c) ---- */
/* Reading the graph: loads carry a small id from `place_id`, which the user gives meaning to. */
typedef struct KernelExpr {
  ElemCtx ctx;
  const Value *anchor;           /* contraction whose element is EX_HOLE 0, or NULL */
  const Expr *const *anchor_idx; /* index at which the anchor must be read; NULL: any */
  bool bad;          /* set when the anchor is read elsewhere, or a value cannot be read at all */
  const Expr *guard; /* conjunction of the guards around the current read */
  /* What was read before is kept here, so that a value with two readers is not walked twice;
   * NULL: nothing is kept */
  Arena *memory;
  struct ReadSlot **read; /* open addressing */
  int n_read, read_cap;
  int n_computed; /* values that were computed where they were read */
  /* Place of a value that is read by loads; *id is put into the load. */
  const Place *(*place)(void *user, const Value *v, int *id);
  void *user;
} KernelExpr;
void kernel_expr_init(KernelExpr *k, Model *m, const Place *(*place)(void *, const Value *, int *),
                      void *user);
/* Places of values before any lies somewhere: row by row, named by the value's id. For asking what
 * a kernel's expression would be; `values` says whose places were asked for. */
typedef struct StandIns {
  Model *m;
  Arena *a;
  int n; /* values there were when it began; a younger one gets a place at each call */
  Place *places;
  const Value **values;
} StandIns;
void stand_ins_init(StandIns *s, Model *m, Arena *scratch);
const Place *stand_in(void *stand_ins, const Value *v, int *id); /* for kernel_expr_init */
/* Element of v at idx, v itself computed (not loaded) even when it is materialised. */
const Expr *kernel_expr_of(KernelExpr *k, const Value *v, const Expr *const *idx);
/* Element of v at idx as any consumer would read it. */
const Expr *kernel_expr_read(KernelExpr *k, const Value *v, const Expr *const *idx);
/* By v->layout */
void strides_of(Model *m, const Value *v, const Expr **stride, const Expr **offset,
                const Expr **count);
bool value_is_view(const Value *v);       /* OF_VIEW: shares its source's row-major order */
const Value *view_source(const Value *v); /* through all views; v itself when none */
bool layout_is_row_major(const Value *v); /* unit dimensions do not matter */
bool node_is_scatter(const Node *n);      /* lowered by elem/scatter.c */

/* ---- attention (attention.c) ---- */
enum { ATTENTION_DEPTH = 16 }; /* nodes on the way from the scores to what the softmax reads */
bool node_is_elementwise(const Node *n);
/* Marks what is computed on the way from the scores to v as inlined. */
bool attention_mark(Value *v, const Value *scores);
/* Element idx[] of x with EX_HOLE 0 for the score; at[]: the index of that among all scores. x->bad
 * is set when scores are read at several places, or elsewhere than in their own row and column. */
const Expr *attention_score(KernelExpr *x, const Attention *a, const Expr *const *idx,
                            const Expr **at);
typedef struct Span { /* rows or keys of a block: the first, and how many */
  const Expr *first, *count;
} Span;
/* When all scores of the block are -inf; NULL: never, or not known (attention_hidden.c). */
const Expr *attention_hidden(KernelExpr *x, const Attention *a, const Expr *const *batch,
                             const Span *rows, const Span *keys);
/* Whether there is a mask that may hide a whole block of the least size that is worth asking. */
bool attention_hides(KernelExpr *x, const Attention *a);

/* ---- lowering (lower.c) ---- */
/* Graphs whose nodes are in the body (then) and otherwise of an If or Loop step */
typedef struct RegionSteps {
  const Step *step;
  const Graph *g[2];
} RegionSteps;
typedef struct PieceHalo { /* zeros around the pieces of a Concat */
  int buffer;
  Step *zeros;
} PieceHalo;
typedef struct Lower {
  PassCtx *c;
  Model *m;
  Module *mod;
  ExprPool *p;
  Arena *a;
  Place *places; /* by value id; buffer -1: not demanded */
  int n_places;
  const Uses *uses;
  bool *must_dense;      /* by value id: read by runtime functions, regions, or outside */
  const bool *live_syms; /* by symbol id (rewrite.h) */
  Vec(RegionSteps) regions;
  Vec(PieceHalo) halos; /* not yet among the steps */
  Step nothing;         /* stands for "no step needed" where NULL means an error */
} Lower;

/* A kernel under construction: loads and stores name places, mapped to parameters when it is
 * finished. */
typedef struct KernelBuild {
  Lower *l;
  Kernel *k;
  const Loc *loc;
  KernelExpr x;
  Vec(BufRef) refs;    /* argument of parameter i; buffer -1: scratch */
  const StepKey *keys; /* the choices that its time answers (choice.h) */
  Estimate estimate;
} KernelBuild;
void kb_begin(KernelBuild *b, Lower *l, const Value *root, const char *suffix);
/* Finds or adds */
int kb_param(KernelBuild *b, int buffer, const Expr *offset, ParamAccess access);
int kb_scratch(KernelBuild *b, DType t, const Expr *count, const char *name);
static inline int kb_scratch_place(int param) { return -2 - param; } /* Place.buffer of a scratch */
DType kb_dtype(const KernelBuild *b, int param);
/* Hands a kernel under construction to the description of another of its parts. */
void kb_move(KernelBuild *to, KernelBuild *from);
/* Takes back a kernel of which nothing is kept: the last one that was begun. */
void kb_drop(KernelBuild *b);
/* Adds the nodes that went into `root` to the kernel's location. */
void kb_also(KernelBuild *b, const Value *root);
/* Element of root at idx[], the element of its contraction being `sum` (f32). */
const Expr *kb_epilogue(KernelBuild *b, const Value *root, const Value *anchor,
                        const Expr *const *idx, const Expr *sum);
/* sum plus the bias (input 2) of a convolution, if it has one, at output index idx[]. */
const Expr *kb_conv_bias(KernelBuild *b, const Value *anchor, const Expr *const *idx,
                         const Expr *sum);
/* What cost model `model` expects a call to take, in cycles of one core; the call itself is added. */
void kb_estimate(KernelBuild *b, const char *model, double cycles);
/* Of buffers that it reads, or writes. */
double kb_bytes(const KernelBuild *b, ParamAccess access);
Step *kb_finish(KernelBuild *b, Stmt *body); /* the call step */
/* Loads renumbered */
const Expr *kb_import(KernelBuild *to, const KernelBuild *from, const Expr *e);
/* From the offset */
const Expr *place_index(ExprPool *p, const Place *pl, int rank, const Expr *const *idx);
/* ---- places (places.c) ---- */
/* Place of v, made on first demand (arena buffer by its layout; constants: weights). */
const Place *lower_place(Lower *l, const Value *v);
bool lower_is_placed(const Lower *l, const Value *v);
void lower_assume_sizes(Lower *l, const Value *v); /* checks at entry that no size is negative */
void place_dense(Lower *l, Place *pl, const Value *v, int buffer, const Expr *offset);
/* Dense arena place */
Place *lower_temp(Lower *l, DType t, int rank, const Expr *const *dims, const char *name);

/* ---- inputs of convolutions (conv_source.c); own: where the input lies, NULL: it is inlined ---- */
bool conv_reads_in_place(const Target *t, const Node *n, const ConvInfo *conv, const Place *own);
/* Channels behind the last one that its steps of k reach. */
int conv_channel_rest(const Target *t, const Node *n, const ConvInfo *conv);
/* A copy for it is not brought into the order channels last. */
bool conv_copy_keeps_order(const Node *n, const ConvInfo *conv, const Place *own);

/* Kernels; each returns the steps that compute `root` into its place (NULL: error reported). */
Step *lower_elem(Lower *l, const Value *root, const Place *to); /* any EW/ELEM tree */
Step *lower_read(Lower *l, const Value *v, const Place *to); /* copies v, as a consumer reads it */
/* AppendCache to a past that lies in `to` already; NULL without error: not known what to leave */
Step *lower_append(Lower *l, const Value *v, const Place *to);
/* Updates of input 0: of a scatter, or of a TensorScatter. */
Step *lower_scatter(Lower *l, const Node *n, const Place *to);
typedef struct ScanNest {
  const Expr *scan; /* the one reduction in value */
  int n;            /* loops, in memory order of the target */
  const Expr *const *var;
  int target; /* parameter: target[store] = value */
  const Expr *store, *value;
} ScanNest;
bool scan_fits(ExprPool *p, const ScanNest *s);
Step *lower_scan(KernelBuild *b, const ScanNest *s); /* passes/elem/scan.c */
/* Conv, MatMul, Gemm */
Step *lower_contraction(Lower *l, const Value *root, const Value *anchor, const Place *to);
/* NULL without error when it does not fit */
Step *lower_depthwise(Lower *l, const Value *root, const Value *anchor, const Place *to);
/* Zeros around v; NULL when it has none */
Step *lower_halo(Lower *l, const Value *v, const Place *to);
void step_append(Step **list, Step *s);
