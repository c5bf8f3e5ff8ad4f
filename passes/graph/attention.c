/* Finds attention: MatMul(q, kᵀ), elementwise scaling and masking, Softmax over the keys, MatMul
 * with values. The softmax and the second product become one burin.SoftmaxMatMul whose scores are
 * inlined, so that the matrix of scores is never stored (kernels/attention.c); a Transpose behind
 * it comes along. Needs expanded ops, runs before fusion. Where the scores are small, or read by
 * others, or both
 * products are of bf16 and go to matrix registers, the chain stays as it is; so do products of f32 whose operands are Casts
 * of bf16, which then take these. */
#include "passes/build/kernel.h"

#include <string.h>

#include "passes/choose/contract_types.h"
#include "passes/gpu/gpu.h"
#include "passes/graph/rewrite.h"

enum { MAX_DEPTH = ATTENTION_DEPTH };

static const Expr *last_dim(const Value *v, int back) { return v->dims[v->rank - back]; }

/* ---- finding it ---- */

typedef struct Find {
  PassCtx *c;
  Model *m;
  ExprPool *p;
  const Uses *uses;
  StandIns places;
} Find;

static int readers(const Find *f, const Value *v) {
  if (v->id >= f->uses->n) return 0; /* made by this pass */
  return f->uses->of[v->id].n + f->uses->outputs[v->id];
}

/* The product that v is computed from without changing the number of elements. */
static const Value *find_scores(const Find *f, const Value *v, int depth) {
  const Node *n = v->def;
  MatMulInfo product;
  if (!n || v->cdata || depth > MAX_DEPTH) return NULL;
  if (node_is_contraction(n))
    return matmul_info(n, &product) && node_contract_types(n)->acc == DT_F32 ? v : NULL;
  if (!node_is_elementwise(n)) return NULL;
  for (int k = 0; k < n->n_in; k++) {
    if (!n->in[k] || value_count(f->p, n->in[k]) != value_count(f->p, v)) continue;
    const Value *s = find_scores(f, n->in[k], depth + 1);
    if (s) return s;
  }
  return NULL;
}

/* Every way from v leads to x. */
static bool leads_to(const Find *f, const Value *v, const Value *x, int depth) {
  if (v == x) return readers(f, v) <= 1;
  if (depth > MAX_DEPTH || v->id >= f->uses->n || f->uses->outputs[v->id]) return false;
  for (int i = 0; i < f->uses->of[v->id].n; i++) {
    const Node *n = f->uses->of[v->id].data[i];
    if (!node_is_elementwise(n) || !leads_to(f, n->out[0], x, depth + 1)) return false;
  }
  return f->uses->of[v->id].n > 0;
}

static void unmark(Value *v, const Value *scores, int depth) {
  if (!v->inlined || !v->def) return;
  v->inlined = false;
  for (int k = 0; v != scores && k < v->def->n_in && depth <= MAX_DEPTH + 1; k++)
    if (v->def->in[k]) unmark(v->def->in[k], scores, depth + 1);
}

/* The element of x is an expression of its own score, of no reduction, and of the head's batch
 * index alone otherwise. */
static bool readable(Find *f, const Attention *a) {
  const Expr *idx[MAX_RANK], *at[MAX_RANK];
  const Value *x = a->x;
  for (int d = 0; d < x->rank; d++)
    idx[d] = expr_is_i64(x->dims[d], 1) ? ex_i64(f->p, 0) : ex_var(f->p, "x", x->dims[d]);
  KernelExpr k;
  kernel_expr_init(&k, f->m, stand_in, &f->places);
  const Expr *e = attention_score(&k, a, idx, at);
  if (k.bad || e->flags & EXF_REDUCE) return false;
  for (int d = 0; d < a->scores->rank - 2; d++)
    for (int own = x->rank - 2; own < x->rank; own++)
      if (at[d] && idx[own]->op == EX_VAR && expr_uses_var(at[d], idx[own]->id)) return false;
  return true;
}

/* ---- whether it pays ---- */

/* The matrix of scores of all heads makes four trips through memory: written, read for the maximum,
 * normalised, read for the product. One that leaves the second-level cache is never stored. A
 * smaller one is as fast there as a block's scores in the first level or slower, but for a few rows
 * the plain products have better tiles: they divide the keys among the threads, and keep several
 * sums of one row. */
static bool pays(const Find *f, const Attention *a) {
  enum { FEW = 8 };
  const Target *t = f->c->target;
  if (target_has_grids(t)) return gpu_takes_attention(f->c, a);
  const double rows = expr_extent_guess(f->p, a->rows);
  const double bytes = 4 * expr_extent_guess(f->p, value_count(f->p, a->x));
  return rows >= FEW || bytes > (double)t->l2_bytes / 2;
}

/* ---- bf16 on matrix registers ---- */

/* Of f32, both behind Casts of one type. */
static bool has_halves(const Node *n) {
  const Value *a = half_of(n->in[0]), *b = half_of(n->in[1]);
  return a && b && a->dtype == b->dtype;
}

/* These take a product so fast that scores may make their trips, though not through memory. */
static bool stay_near(const Find *f, const Value *scores) {
  return 4 * expr_extent_guess(f->p, value_count(f->p, scores)) <= (double)f->c->target->l2_bytes;
}

static bool on_matrix(const Find *f, const Node *n) {
  const bool halves = has_halves(n) && half_of(n->in[0])->dtype == DT_BF16;
  const ContractTypes *t = halves ? contract_types(DT_BF16, DT_BF16) : node_contract_types(n);
  MatMulInfo product;
  int64_t size;
  return matmul_info(n, &product) && expr_is_const(product.n, &size) &&
         expr_is_const(product.m, &size) && contract_matrix_takes(t, f->c->target, product.k);
}

/* As half_products has it. */
static void take_halves(Node *n) {
  if (!has_halves(n)) return;
  for (int k = 0; k < 2; k++) n->in[k] = half_of(n->in[k]);
  node_set_int(n, "wide", 1);
}

/* A GPU multiplies them faster, in one kernel or apart. */
static void take_both_halves(Node *n, Node *scores) {
  if (!has_halves(n) || !has_halves(scores)) return;
  take_halves(n);
  take_halves(scores);
}

/* ---- rewriting ---- */

typedef struct Match {
  const Node *softmax;
  SoftmaxMode mode;
  Value *x, *v;
  const Value *views[MAX_DEPTH]; /* between softmax and product, last first */
  int n_views;
} Match;

static bool float_cast(const Node *n) {
  return node_is(n, "Cast") && dtype_rows[n->in[0]->dtype].cls == DC_FLOAT &&
         dtype_rows[n->out[0]->dtype].cls == DC_FLOAT;
}

/* Where(IsNaN(s), 0, s) → s */
static Value *without_nan(const Find *f, const Node *n) {
  if (!node_is(n, "Where")) return NULL;
  const Node *test = def_is(n->in[0], "IsNaN");
  const ConstData *zero = const_input(n, 1);
  Value *s = n->in[2];
  return test && zero && const_all(zero, 0) && zero->count == 1 && test->in[0] == s &&
                 readers(f, s) == 2 && readers(f, n->in[0]) == 1 && value_same_shape(s, n->out[0])
             ? s
             : NULL;
}

/* Follows the left operand of a product up to a softmax that nobody else reads. */
static bool find_softmax(const Find *f, Value *v, Match *m) {
  int alone = 1;
  for (int depth = 0; depth < MAX_DEPTH; depth++) {
    Node *n = v->def;
    if (!n || v->cdata || readers(f, v) != alone || f->uses->outputs[v->id]) return false;
    alone = 1;
    Value *s = without_nan(f, n);
    const bool safe = !strcmp(n->op->name, "SafeSoftmax") && !strcmp(n->op->domain, "burin");
    if (safe || node_is(n, "Softmax")) {
      const int64_t axis = safe ? -1 : node_int(n, "axis", -1);
      if (axis != -1 && axis != v->rank - 1) return false;
      m->softmax = n;
      m->x = n->in[0];
      if (safe) m->mode = SM_SAFE;
      return true;
    }
    if (s && m->mode == SM_PLAIN) {
      m->mode = SM_NO_NAN;
      alone = 2;
      v = s;
    } else if (float_cast(n)) {
      v = n->in[0];
    } else if (value_is_view(v) && v->rank >= 2 && n->in[0]->rank >= 2 &&
               last_dim(v, 1) == last_dim(n->in[0], 1)) {
      m->views[m->n_views++] = v;
      v = n->in[0];
    } else {
      return false;
    }
  }
  return false;
}

static bool plain_product(const Node *n) {
  MatMulInfo product;
  return node_is_contraction(n) && matmul_info(n, &product) &&
         node_contract_types(n)->acc == DT_F32 && !product.a_vec && !product.trans_a &&
         !product.trans_b && product.alpha == 1 && !node_in(n, 2) && !n->in[1]->cdata;
}

/* Of halves, with results in f32: a kernel of a GPU has such sums. */
static bool is_wide(const Find *f, const Node *n) {
  return target_has_grids(f->c->target) && node_int(n, "wide", 0);
}

/* A product whose batch is that of its left operand. */
static bool same_batch(const Node *n) {
  const Value *a = n->in[0], *y = n->out[0];
  if (a->rank != y->rank || a->rank < 2) return false;
  for (int d = 0; d < a->rank - 2; d++)
    if (a->dims[d] != y->dims[d]) return false;
  return true;
}

/* The Transpose that alone reads v and leaves the last dimension where it is. */
static Node *only_transpose(const Find *f, const Value *v) {
  const int64_t *perm;
  if (readers(f, v) != 1 || f->uses->outputs[v->id]) return NULL;
  Node *t = f->uses->of[v->id].data[0];
  return node_is(t, "Transpose") && t->graph == v->def->graph &&
                 node_ints(t, "perm", &perm) == v->rank && perm[v->rank - 1] == v->rank - 1
             ? t
             : NULL;
}

/* On a GPU, the Cast to another float that alone reads v: it goes behind a Transpose that comes along. */
static Node *only_cast(const Find *f, const Value *v) {
  if (!target_has_grids(f->c->target) || readers(f, v) != 1 || f->uses->outputs[v->id]) return NULL;
  Node *const c = f->uses->of[v->id].data[0];
  return float_cast(c) && c->graph == v->def->graph ? c : NULL;
}

/* The views behind the softmax, in front of it. */
static Value *move_views(Build *b, const Match *m) {
  Value *x = m->x;
  for (int i = m->n_views - 1; i >= 0 && b->ok; i--) {
    const Node *n = m->views[i]->def;
    Value **in = ARENA_ARRAY(b->m->arena, Value *, n->n_in + 1);
    memcpy(in, n->in, sizeof *in * (size_t)n->n_in);
    in[0] = x;
    x = build_node(b, n->op->name, n->op->domain, n->n_in, in, 1, n->n_attrs, n->attrs)->out[0];
  }
  return x;
}

static bool rewrite_one(Forward *fw, Node *n, bool *keep) {
  Find *f = fw->user;
  Attention a;
  Match m = {.mode = SM_PLAIN};
  if (n->n_out == 1 && n->out[0] && forward_get(fw, n->out[0]) != n->out[0]) {
    *keep = false; /* a Transpose that came along */
    return true;
  }
  if (!plain_product(n) || !same_batch(n) || !find_softmax(f, n->in[0], &m)) return true;
  const Value *scores = find_scores(f, m.x, 0);
  if (!scores || scores->def->in[1]->cdata || !leads_to(f, scores, m.x, 0)) return true;
  if (target_has_grids(f->c->target)) take_both_halves(n, scores->def);
  if (on_matrix(f, n) && on_matrix(f, scores->def) && stay_near(f, scores)) {
    take_halves(n);
    take_halves(scores->def);
    return true;
  }
  Build b = {
      .m = f->m, .g = n->graph, .loc = loc_joined(f->m->arena, n->loc, m.softmax->loc), .ok = true};
  m.v = n->in[1];
  if (m.x->dtype == DT_F64 || (n->out[0]->dtype != m.v->dtype && !is_wide(f, n)) ||
      !attention_make(m.x, m.v, scores, &a) || !pays(f, &a))
    return true;
  attention_mark(m.x, scores);
  const bool fits = readable(f, &a);
  if (!fits || m.n_views) unmark(m.x, scores, 0);
  if (!fits) return true;
  Value *x = move_views(&b, &m);
  if (!b.ok || !attention_make(x, m.v, scores, &a)) return b.ok;
  attention_mark(x, scores);
  if (m.n_views && !readable(f, &a)) {
    unmark(x, scores, 0);
    return true;
  }
  Node *t = only_transpose(f, n->out[0]);
  const Node *const cast = t ? NULL : only_cast(f, n->out[0]);
  if (cast) t = only_transpose(f, cast->out[0]);
  Attr attrs[3] = {attr_int(f->m->arena, "mode", m.mode)};
  int n_attrs = 1;
  if (t) attrs[n_attrs++] = *node_attr(t, "perm");
  if (n->out[0]->dtype != m.v->dtype) attrs[n_attrs++] = attr_int(f->m->arena, "wide", 1);
  Value *y =
      build_node(&b, "SoftmaxMatMul", "burin", 2, (Value *[]){x, m.v}, 1, n_attrs, attrs)->out[0];
  if (cast && t) { /* which still reads n, while nobody reads it */
    y = build_cast(&b, y, cast->out[0]->dtype);
    return b.ok && forward_set(fw, n, t->out[0], y);
  }
  *keep = false;
  return b.ok && forward_set(fw, n, t ? t->out[0] : n->out[0], y);
}

bool pass_attention(PassCtx *c) {
  Find f = {.c = c, .m = c->model, .p = c->model->pool};
  f.uses = graph_uses(c->model->main, c->scratch);
  stand_ins_init(&f.places, c->model, c->scratch);
  Forward fw = forward_new(c);
  fw.user = &f;
  return forward_walk(&fw, c->model->main, rewrite_one);
}
