/* Computes at compile time what depends on constants only, by running the op's own elem in the
 * kernel interpreter (or the runtime function of an EXTERN row); turns values whose contents are
 * all known numbers into constants; replaces an If of known condition by its branch. Results that
 * would make the program much larger than their inputs, and work above a limit, are left to run
 * time. */
#include <string.h>
#include "ir/op/ops.h"
#include "passes/build/kernel.h"
#include "passes/graph/rewrite.h"
#include "runtime/abi.h"

enum { MAX_WORDS = 4096 };
static const int64_t max_bytes = 64 << 20, max_copy_bytes = 256 << 20, max_extern_bytes = 16 << 20;
static const int64_t max_work =
    4000000; /* evaluated elements × cost; compute_constants does more */

typedef struct Eval { /* one node being evaluated */
  PassCtx *c;
  Node *n;
  Module *mod;
  Kernel *k;
  int *param;     /* by input; -1: not read yet */
  void *data[64]; /* of params; [0] is the result */
  bool bad;
} Eval;

/* ---- questions ---- */

static bool is_plain(DType t) {
  const DClass c = dtype_rows[t].cls;
  return c == DC_BOOL || c == DC_UINT || c == DC_SINT || c == DC_FLOAT;
}

static bool inputs_are_const(const Node *n) {
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && (!n->in[k]->cdata || !is_plain(n->in[k]->dtype))) return false;
  return true;
}

static int64_t input_bytes(const Node *n) {
  int64_t sum = 0;
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && n->in[k]->cdata) sum += n->in[k]->cdata->count * dtype_bytes(n->in[k]->dtype);
  return sum;
}

static bool static_bytes(const Value *v, int64_t *dims, int64_t *count, int64_t *bytes) {
  *count = 1;
  if (v->kind != TY_TENSOR || !is_plain(v->dtype) || !value_is_static(v, dims)) return false;
  for (int d = 0; d < v->rank; d++)
    if (dims[d] < 0 || !ck_mul(*count, dims[d], count)) return false;
  return ck_mul(*count, dtype_bytes(v->dtype), bytes) && *bytes <= max_copy_bytes;
}

/* ---- evaluating elem ---- */

/* Constants may lie unaligned in the file. */
static void *aligned(Arena *a, const ConstData *c) {
  const int size = dtype_bytes(c->dtype);
  return (uintptr_t)c->data % (uintptr_t)size ? arena_dup(a, c->data, (size_t)(c->count * size))
                                              : (void *)c->data;
}

static const Expr *eval_read(ElemCtx *c, const Value *v, const Expr *const *idx,
                             const Expr *guard) {
  Eval *e = c->user;
  int k = 0;
  while (k < e->n->n_in && e->n->in[k] != v) k++;
  if (k == e->n->n_in || e->k->params.n == 64) {
    e->bad = true;
    return ex_const(c->pool, v->dtype, 0);
  }
  if (e->param[k] < 0) {
    const Param p = {.name = "in",
                     .dtype = v->dtype,
                     .count = ex_i64(c->pool, v->cdata->count),
                     .access = PA_READ,
                     .constant = true,
                     .align = dtype_bytes(v->dtype)};
    e->param[k] = kernel_add_param(e->mod, e->k, p);
    e->data[e->param[k]] = aligned(e->c->scratch, v->cdata);
  }
  return ex_load(c->pool, v->dtype, e->param[k],
                 index_flatten(c->pool, v->rank, (const Expr *const *)v->dims, idx), guard);
}

/* x is one unguarded load at an affine index: a strided copy. False when it is not. */
static bool strided_copy(Eval *e, const Expr *x, int rank, const int64_t *dims,
                         const Expr *const *idx) {
  int64_t stride[MAX_RANK], at[MAX_RANK] = {0}, base, lo, hi, count = 1;
  if (x->op != EX_LOAD || x->a[1]) return false;
  const Expr *rest = x->a[0], *coeff;
  for (int d = 0; d < rank; d++) {
    stride[d] = 0;
    if (idx[d]->op != EX_VAR || !expr_uses_var(rest, idx[d]->id)) continue;
    if (!expr_affine(e->c->model->pool, rest, idx[d], &coeff, &rest) ||
        !expr_is_const(coeff, &stride[d]))
      return false;
  }
  if (!expr_is_const(rest, &base)) return false;
  lo = hi = base;
  for (int d = 0; d < rank; d++) {
    *(stride[d] < 0 ? &lo : &hi) += stride[d] * (dims[d] - 1);
    count *= dims[d];
  }
  int64_t limit;
  if (!expr_is_const(e->k->params.data[x->id].count, &limit) || lo < 0 || hi >= limit) return false;
  const size_t size = (size_t)dtype_bytes((DType)x->dtype);
  const char *src = e->data[x->id];
  char *dst = e->data[0];
  for (int64_t i = 0; i < count; i++, dst += size) {
    memcpy(dst, src + (size_t)base * size, size);
    for (int d = rank - 1; d >= 0; d--) {
      base += stride[d];
      if (++at[d] < dims[d]) break;
      base -= stride[d] * dims[d];
      at[d] = 0;
    }
  }
  return true;
}

/* Compiled code adds in another order than the interpreter. */
static bool adds_floats(ExprPool *p, const Expr *x) {
  ExprList l = {0};
  expr_reductions(p, x, &l);
  for (int i = 0; i < l.n; i++) {
    const Expr *r = l.data[i];
    const bool adds = r->k.i == RED_SUM || r->k.i == RED_PROD;
    if (adds && dtype_is_float((DType)r->dtype) && expr_extent_guess(p, r->a[1]) >= 4) return true;
  }
  return false;
}

static bool run_kernel(Eval *e, const Expr *x, int rank, const int64_t *dims,
                       const Expr *const *idx, int64_t count) {
  Model *m = e->c->model;
  const Expr *dim[MAX_RANK];
  int64_t work;
  if (!ck_mul(count, expr_cost(x) + 1, &work) || work > max_work) return false;
  if (adds_floats(m->pool, x)) return false; /* compute_constants has the program's bits */
  if (count > 256 && expr_has_scan(m->pool, x))
    return false; /* and lowering makes one loop of it */
  for (int d = 0; d < rank; d++) dim[d] = ex_i64(m->pool, dims[d]);
  x = expr_lower_math(m->pool, x);
  Stmt *s = stmt_store(m->arena, 0, index_flatten(m->pool, rank, dim, idx), x);
  for (int d = rank - 1; d >= 0; d--)
    if (idx[d]->op == EX_VAR) s = stmt_for(m->arena, FOR_SERIAL, idx[d], s);
  e->k->body = s;
  const InterpEnv env = {.params = e->data};
  return kernel_interpret(e->mod, e->k, &env);
}

/* Data of output `out`, or NULL when it is left to run time. */
static const void *eval_elem(PassCtx *c, Node *n, int out, const int64_t *dims, int64_t count,
                             int64_t bytes) {
  ExprPool *p = c->model->pool;
  const Value *v = n->out[out];
  const Expr *idx[MAX_RANK];
  const int errors = diag_errors(c->model->diag);
  Eval e = {.c = c, .n = n, .mod = module_new(c->model)};
  e.k = kernel_new(e.mod, "fold", n->loc);
  e.param = ARENA_ARRAY(c->scratch, int, n->n_in + 1);
  for (int k = 0; k < n->n_in; k++) e.param[k] = -1;
  e.data[0] = arena_alloc(c->model->arena, (size_t)bytes + 1);
  if (count == 0) return e.data[0];
  kernel_add_param(e.mod, e.k,
                   (Param){.name = "out",
                           .dtype = v->dtype,
                           .count = ex_i64(p, count),
                           .access = PA_WRITE,
                           .align = dtype_bytes(v->dtype)});
  for (int d = 0; d < v->rank; d++)
    idx[d] = dims[d] == 1 ? ex_i64(p, 0) : ex_var(p, "i", ex_i64(p, dims[d]));
  ElemCtx ctx = {.pool = p, .model = c->model, .read = eval_read, .user = &e};
  const Expr *x = op_elem(&ctx, n, out, idx);
  if (!x || e.bad || (x->flags & (EXF_SYM | EXF_HOLE | EXF_LOCAL))) return NULL;
  if (strided_copy(&e, x, v->rank, dims, idx)) return e.data[0];
  if (bytes > max_bytes) return NULL;
  return run_kernel(&e, x, v->rank, dims, idx, count) && diag_errors(c->model->diag) == errors
             ? e.data[0]
             : NULL;
}

static bool to_const(Forward *f, Node *n, int out, int rank, const int64_t *dims,
                     const void *data) {
  Model *m = f->c->model;
  return forward_set(
      f, n, n->out[out],
      value_const(m, const_new(m, n->out[out]->name, n->out[out]->dtype, rank, dims, data)));
}

static bool fold_elem(Forward *f, Node *n, int out, bool *done) {
  const Value *v = n->out[out];
  int64_t dims[MAX_RANK], count, bytes;
  *done = false;
  if (!static_bytes(v, dims, &count, &bytes) || bytes > 8 * input_bytes(n) + 65536) return true;
  const void *data = eval_elem(f->c, n, out, dims, count, bytes);
  *done = data != NULL;
  return !data || to_const(f, n, out, v->rank, dims, data);
}

/* ---- runtime functions ---- */

/* Sizes of output v, data-dependent ones at their bound. */
static bool bound_dims(ExprPool *p, const Value *v, int64_t *dims, int64_t *bytes) {
  *bytes = dtype_bytes(v->dtype);
  if (v->kind != TY_TENSOR || !is_plain(v->dtype)) return false;
  for (int d = 0; d < v->rank; d++) {
    const Expr *e = v->dims[d];
    if (e->op == EX_SYM) e = expr_symbol(p, e->id)->bound;
    if (!e || !expr_is_const(e, &dims[d]) || dims[d] < 0 || !ck_mul(*bytes, dims[d], bytes))
      return false;
  }
  return *bytes <= max_extern_bytes;
}

static RtTensor rt_input(PassCtx *c, const Value *v) {
  if (!v) return (RtTensor){0};
  return (RtTensor){
      .data = aligned(c->scratch, v->cdata),
      .dtype = dtype_rows[v->dtype].onnx,
      .rank = v->rank,
      .dims = arena_dup(c->scratch, v->cdata->dims, sizeof(int64_t) * (size_t)v->rank)};
}

static bool rt_output(PassCtx *c, const Value *v, RtTensor *t) {
  int64_t bytes;
  *t = (RtTensor){0};
  if (!v) return true;
  int64_t *dims = ARENA_ARRAY(c->scratch, int64_t, MAX_RANK);
  if (!bound_dims(c->model->pool, v, dims, &bytes)) return false;
  *t = (RtTensor){.data = arena_alloc(c->model->arena, (size_t)bytes + 64),
                  .dtype = dtype_rows[v->dtype].onnx,
                  .rank = v->rank,
                  .dims = dims};
  return true;
}

static bool fold_extern(Forward *f, Node *n, bool *done) {
  PassCtx *c = f->c;
  const ExternRow *ext = n->op->ext;
  int64_t *words = ARENA_ARRAY(c->scratch, int64_t, MAX_WORDS), scratch_bytes = 0;
  RtTensor *in = ARENA_ARRAY(c->scratch, RtTensor, n->n_in + 1),
           *out = ARENA_ARRAY(c->scratch, RtTensor, n->n_out + 1);
  *done = false;
  const Expr *scratch = ext->scratch ? ext->scratch(c->model, n) : NULL;
  if (!ext->fn || input_bytes(n) > max_extern_bytes ||
      (scratch && !expr_is_const(scratch, &scratch_bytes)))
    return true;
  if (scratch_bytes > 4 * max_extern_bytes || (ext->pack && ext->pack(n, words, MAX_WORDS) < 0))
    return true;
  for (int k = 0; k < n->n_in; k++) in[k] = rt_input(c, n->in[k]);
  for (int k = 0; k < n->n_out; k++)
    if (!rt_output(c, n->out[k], &out[k])) return true;
  const RtOpFn fn = (RtOpFn)ext->fn;
  if (fn(in, n->n_in, out, n->n_out, words, arena_alloc(c->scratch, (size_t)scratch_bytes + 64)) !=
      BURIN_OK)
    return true;
  *done = true;
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && !to_const(f, n, k, out[k].rank, out[k].dims, out[k].data)) return false;
  return true;
}

/* ---- known contents and conditions ---- */

static bool fold_contents(Forward *f, Node *n, int out, bool *done) {
  const Value *v = n->out[out];
  int64_t dims[MAX_RANK], count, bytes;
  *done = false;
  if (!v->contents || !static_bytes(v, dims, &count, &bytes)) return true;
  for (int64_t i = 0; i < count; i++)
    if (v->contents[i]->op != EX_CONST) return true;
  char *data = arena_alloc(f->c->model->arena, (size_t)bytes + 1);
  for (int64_t i = 0; i < count; i++) {
    const Expr *e = v->contents[i];
    if (dtype_is_float(v->dtype))
      dtype_store_f(v->dtype, data + i * dtype_bytes(v->dtype), e->k.f);
    else
      dtype_store_i(v->dtype, data + i * dtype_bytes(v->dtype), e->k.i);
  }
  *done = true;
  return to_const(f, n, out, v->rank, dims, data);
}

static bool lies_in(const Graph *g, const Graph *outer) {
  while (g && g != outer) g = g->parent;
  return g != NULL;
}

/* Assumptions of the branch become those of g; those of the other one go. */
static void move_assumes(Model *m, const Graph *g, const Graph *taken, const Graph *other) {
  int kept = 0;
  for (int i = 0; i < m->assumes.n; i++) {
    DimAssume a = m->assumes.data[i];
    if (other && lies_in(a.graph, other)) continue;
    if (a.graph == taken) a.graph = g->parent ? g : NULL;
    m->assumes.data[kept++] = a;
  }
  m->assumes.n = kept;
}

/* The nodes of the branch take the place of the If. */
static bool inline_branch(Forward *f, Node *n, Graph *r) {
  Graph *g = n->graph;
  for (int i = 0; i < r->nodes.n; i++) {
    Node *x = r->nodes.data[i];
    x->graph = g;
    for (int k = 0; k < x->n_attrs; k++)
      if (x->attrs[k].kind == AT_GRAPH) x->attrs[k].graph->parent = g;
    vec_push(g->model->arena, &g->nodes, x);
  }
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && !forward_set(f, n, n->out[k], r->outputs.data[k])) return false;
  return true;
}

static bool branch_fits(const Node *n, const Graph *r) {
  if (r->outputs.n < n->n_out) return false;
  for (int k = 0; k < n->n_out; k++) {
    const Value *v = n->out[k], *w = r->outputs.data[k];
    if (v && (v->kind != w->kind || v->dtype != w->dtype || v->rank != w->rank)) return false;
  }
  return true;
}

static bool fold_if(Forward *f, Node *n, bool *done) {
  int64_t cond;
  const Expr *e = n->in[0] ? value_element(f->c->model->pool, n->in[0], 0) : NULL;
  *done = false;
  if (!e || !expr_is_const(e, &cond)) return true;
  Graph *r = node_region(n, cond ? "then_branch" : "else_branch");
  if (!r || !branch_fits(n, r)) return true;
  *done = true;
  move_assumes(f->c->model, n->graph, r, node_region(n, cond ? "else_branch" : "then_branch"));
  return inline_branch(f, n, r);
}

/* ---- the pass ---- */

/* Every output folded: the node goes. */
static bool fold_outputs(Forward *f, Node *n, bool *all) {
  const bool eval = (n->op->body == OB_EW || n->op->body == OB_ELEM) && inputs_are_const(n);
  *all = true;
  for (int k = 0; k < n->n_out; k++) {
    bool done = false;
    if (!n->out[k]) continue;
    if (!fold_contents(f, n, k, &done)) return false;
    if (!done && eval && !fold_elem(f, n, k, &done)) return false;
    *all = *all && done;
  }
  return true;
}

static bool fold_one(Forward *f, Node *n, bool *keep) {
  bool done = false;
  if (n->op->flags & OF_RANDOM) return true;
  /* What was learnt before may make sizes known here. */
  if (f->c->changed && !op_infer(f->c->model, n)) return false;
  if (n->op->body == OB_REGION) {
    if (n->op->region == RG_IF && !fold_if(f, n, &done)) return false;
  } else if (n->op->body == OB_EXTERN && inputs_are_const(n)) {
    if (!fold_extern(f, n, &done)) return false;
  } else if (!fold_outputs(f, n, &done)) {
    return false;
  }
  *keep = !done;
  return true;
}

bool pass_fold_constants(PassCtx *c) {
  Forward f = forward_new(c);
  return forward_walk(&f, c->model->main, fold_one);
}

/* A mover of constants of 8 bits at most. */
static bool fold_moved_bytes(Forward *f, Node *n, bool *keep) {
  const Value *v = n->n_in ? n->in[0] : NULL;
  if (!(n->op->flags & (OF_INDEX_ONLY | OF_VIEW)) || !v || !v->cdata || !dtype_is_int(v->dtype) ||
      dtype_rows[v->dtype].bits > 8)
    return true;
  return fold_one(f, n, keep);
}

bool pass_fold_bytes(PassCtx *c) {
  Forward f = forward_new(c);
  return forward_walk(&f, c->model->main, fold_moved_bytes);
}
