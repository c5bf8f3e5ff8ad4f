/* If, Loop and Scan: inference over their regions, and Scan rewritten as a Loop whose body gathers
 * the slices. */
#include "ir/ops/control/control.h"
#include <string.h>
#include "ir/expr/expr_query.h"
#include "ir/op/tensor_util.h"

static Graph *need_region(Model *m, Node *n, const char *name) {
  Graph *g = node_region(n, name);
  if (!g) op_error(m, n, ERR_ATTR_MISSING, "%s is missing", name);
  return g;
}

static bool like(Model *m, Node *n, int k, const Value *v) {
  Value *o = node_out(n, k);
  if (v->kind == TY_TENSOR) return op_out_like(m, n, k, v->dtype, v);
  if (!o) return true;
  o->kind = v->kind;
  o->dtype = v->dtype;
  o->rank = v->rank;
  o->dims = v->dims;
  return true;
}

/* ---- If ---- */
enum { MAX_KNOWN = 256 }; /* elements of a result that are followed */

/* Elements that both branches know to be the same are known behind them, where they name no symbol
 * that may be a branch's own. */
static void merge_contents(Model *m, Node *n, int k, const Value *a, const Value *b) {
  int64_t dims[MAX_RANK], count = 1;
  Value *o = node_out(n, k);
  if (!o || dtype_is_float(a->dtype) || !value_known(a) || !value_known(b) ||
      !value_is_static(o, dims))
    return;
  for (int d = 0; d < o->rank; d++)
    if (!ck_mul(count, dims[d], &count) || count > MAX_KNOWN) return;
  const Expr **list = ARENA_ARRAY(m->arena, const Expr *, count);
  for (int64_t i = 0; i < count; i++) {
    list[i] = value_element(m->pool, a, i);
    if (!list[i] || list[i] != value_element(m->pool, b, i)) return;
    if (expr_uses_runtime(m->pool, list[i])) return;
  }
  o->contents = list;
}

static bool merge_results(Model *m, Node *n, int k, const Value *a, const Value *b) {
  const Expr *dims[MAX_RANK];
  if (a->kind != b->kind || a->dtype != b->dtype)
    return op_error(m, n, ERR_TYPE, "output %d is %s in one branch and %s in the other", k,
                    dtype_text(a->dtype), dtype_text(b->dtype));
  if (a->kind != TY_TENSOR) return like(m, n, k, a);
  if (a->rank != b->rank)
    return op_error(m, n, ERR_DYNAMIC, "output %d has rank %d in one branch and %d in the other", k,
                    a->rank, b->rank);
  if (!node_out(n, k)) return true;
  for (int i = 0; i < a->rank; i++)
    dims[i] = a->dims[i] == b->dims[i]
                  ? a->dims[i]
                  : op_runtime_dim(m, n, k, i, "if", ex_max(m->pool, a->dims[i], b->dims[i]));
  if (!op_out(m, n, k, a->dtype, a->rank, dims)) return false;
  merge_contents(m, n, k, a, b);
  return true;
}

static bool ranks_differ(const Node *n, const Graph *a, const Graph *b) {
  for (int k = 0; k < n->n_out; k++)
    if (a->outputs.data[k]->rank != b->outputs.data[k]->rank) return true;
  return false;
}

/* Exporters write `squeeze this dim if it is 1` as an If on sizes whose branches differ in rank.
 * Where the import could not divide what depends on it (an output of the model), no rank can be
 * given to the result, so the size is taken to be as compared, and the compiled model checks that at
 * entry. */
static bool take_condition(Model *m, Node *n, const Expr *cond) {
  if (!cond || !value_compares_sizes(n->in[0])) return false;
  if (!require_equal(m, n, cond->a[0], cond->a[1], "a size that a branch is chosen by"))
    return false;
  const Expr **truth = ARENA_ARRAY(m->arena, const Expr *, 1);
  truth[0] = ex_bool(m->pool, true);
  n->in[0]->contents = truth;
  return true;
}

bool infer_if(Model *m, Node *n) {
  Graph *yes = need_region(m, n, "then_branch"), *no = need_region(m, n, "else_branch");
  if (!yes || !no) return false;
  const Value *cond = n->in[0];
  int64_t k = 0;
  if (cond->kind != TY_TENSOR || cond->dtype != DT_BOOL)
    return op_error(m, n, ERR_TYPE, "the condition is not a bool tensor");
  if (yes->inputs.n || no->inputs.n) return op_error(m, n, ERR_ARITY, "a branch has inputs");
  if (yes->outputs.n != n->n_out || no->outputs.n != n->n_out)
    return op_error(m, n, ERR_ARITY, "branches have %d and %d outputs, the node has %d",
                    yes->outputs.n, no->outputs.n, n->n_out);
  const Expr *known = value_element(m->pool, cond, 0);
  if (known && expr_is_const(known, &k)) { /* the other branch never runs and may be of any type */
    Graph *g = k ? yes : no;
    if (!graph_infer(g)) return false;
    for (int i = 0; i < n->n_out; i++)
      if (!like(m, n, i, g->outputs.data[i])) return false;
    return true;
  }
  if (!graph_infer(yes) || !graph_infer(no)) return false;
  if (ranks_differ(n, yes, no) && take_condition(m, n, known)) return infer_if(m, n);
  for (int i = 0; i < n->n_out; i++)
    if (!merge_results(m, n, i, yes->outputs.data[i], no->outputs.data[i])) return false;
  return true;
}

bool infer_unreachable(Model *m, Node *n) {
  const Expr *dims[MAX_RANK];
  const int64_t *shape;
  const int rank = node_ints(n, "shape", &shape);
  DType t;
  if (!op_dtype(m, n, "to", DT_F32, &t)) return false;
  for (int d = 0; d < rank && d < MAX_RANK; d++) dims[d] = ex_i64(m->pool, shape[d]);
  require_never(m, n, "a branch was taken whose result does not fit what reads it");
  return op_out(m, n, 0, t, rank, dims);
}

const Expr *elem_unreachable(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType t = n->out[0]->dtype;
  return dtype_is_float(t) ? ex_float(c->pool, t, 0) : ex_int(c->pool, t, 0);
}

/* ---- Loop ---- */
static void set_scalar_input(Model *m, Value *v, DType t, const Expr *element) {
  const Expr **e = ARENA_ARRAY(m->arena, const Expr *, 1);
  value_set_tensor(m, v, t, 0, NULL);
  e[0] = element;
  v->contents = e;
}

/* The iteration number: one runtime symbol, kept when inference runs again. */
static void set_iteration(Model *m, Value *v, const Expr *trip) {
  const Expr *sym =
      v->contents && v->contents[0]->op == EX_SYM ? v->contents[0] : ex_sym_fresh(m->pool, "iter");
  Symbol *s = expr_symbol(m->pool, sym->id);
  s->runtime = true;
  s->lo = 0;
  s->bound = trip ? ex_sub(m->pool, trip, ex_i64(m->pool, 1)) : NULL;
  set_scalar_input(m, v, DT_I64, sym);
}

/* Trip count when known (constant or symbolic), not below 0. */
static const Expr *known_trip(Model *m, const Node *n) {
  const Value *v = node_in(n, 0);
  const Expr *e = v ? value_element(m->pool, v, 0) : NULL;
  int64_t lo, hi;
  if (!e) return NULL;
  e = tu_i64(m->pool, e);
  return expr_range(m->pool, e, &lo, &hi) && lo >= 0 ? e : ex_max(m->pool, e, ex_i64(m->pool, 0));
}

static bool known_true(Model *m, const Value *v) {
  int64_t k;
  const Expr *e = v ? value_element(m->pool, v, 0) : NULL;
  return !v || (e && expr_is_const(e, &k) && k);
}

/* big - small >= least whenever iter <= top and trip >= 1 (iter NULL: no iteration number
 * occurs). */
static bool always_apart(Model *m, const Node *n, const Expr *big, const Expr *small, int64_t least,
                         const Expr *iter, const Expr *top) {
  ExprPool *p = m->pool;
  const Expr *coeff, *rest;
  int64_t c, lo, hi, exact = INT64_MAX;
  big = loop_as_size(p, big, &exact);
  small = loop_as_size(p, small, &exact);
  if (!big || !small) return false;
  const Expr *d = ex_sub(p, big, small);
  if (iter) {
    const Expr *v = ex_var(p, "i", ex_add(p, top, ex_i64(p, 1)));
    if (!expr_affine(p, expr_subst(p, d, iter, v), v, &coeff, &rest) || !expr_is_const(coeff, &c))
      return false;
    d = ex_add(p, rest, c < 0 ? ex_mul(p, coeff, top) : ex_i64(p, 0));
  } else { /* before the first iteration: only trip >= 1 is known */
    d = ex_add(p, ex_sub(p, d, ex_add(p, top, ex_i64(p, 2))), ex_i64(p, 1));
  }
  d = ex_sub(p, d, ex_i64(p, least));
  if (!expr_range(p, d, &lo, &hi) || lo < 0) return false;
  if (exact == INT64_MAX) return true;
  /* rounding keeps them apart up to there; the compiled model refuses larger sizes */
  const Expr *k = ex_i64(p, exact), *most = iter ? ex_max(p, expr_subst(p, big, iter, top),
                                                          expr_subst(p, big, iter, ex_i64(p, 0)))
                                                 : big;
  if (!expr_range(p, most, &lo, &hi) || hi > exact)
    return require_at_most(m, n, most, k, "a size that the condition of a Loop rounds");
  return true;
}

/* e holds after every iteration but the last. */
static bool holds(Model *m, const Node *n, const Expr *e, const Expr *iter, const Expr *top) {
  int64_t k;
  if (expr_is_const(e, &k)) return k != 0;
  if (e->op == EX_and) return holds(m, n, e->a[0], iter, top) && holds(m, n, e->a[1], iter, top);
  if (e->op == EX_lt) return always_apart(m, n, e->a[1], e->a[0], 1, iter, top);
  return e->op == EX_le && always_apart(m, n, e->a[1], e->a[0], 0, iter, top);
}

/* The condition is looked at after iterations 0 to trip - 2 and before the first (which happens if
 * trip >= 1). */
bool loop_runs_out(Model *m, const Node *n) {
  ExprPool *p = m->pool;
  const Graph *g = node_region(n, "body");
  const Expr *trip = known_trip(m, n), *iter = g ? value_element(p, g->inputs.data[0], 0) : NULL;
  if (!trip || !iter) return false;
  const Expr *after = value_element(p, g->outputs.data[0], 0), *top = ex_sub(p, trip, ex_i64(p, 2));
  const Expr *before = node_in(n, 1) ? value_element(p, n->in[1], 0) : ex_bool(p, true);
  return after && before && holds(m, n, after, iter, top) && holds(m, n, before, NULL, top);
}

/* ---- states of a Loop that change their sizes ---- */
/* Such a size is a run-time symbol of the body's input, named after it, which keeps it when inference
 * runs again. */
static const char *grown_stem(Model *m, const Value *in) {
  return arena_printf(m->arena, "carried%d", in->id);
}

static const Expr *grown_size(Model *m, const Value *in, int rank, int d) {
  const Expr *const e = in->kind == TY_TENSOR && in->rank == rank ? in->dims[d] : NULL;
  const Symbol *const s = e && e->op == EX_SYM ? expr_symbol(m->pool, e->id) : NULL;
  if (!s || !s->runtime || strncmp(s->name, "carried", 7) != 0) return NULL;
  const char *const stem = grown_stem(m, in);
  const size_t length = strlen(stem);
  return strncmp(s->name, stem, length) == 0 && s->name[length] == '_' ? e : NULL;
}

static void give_state(Model *m, Value *in, const Value *v) {
  const Expr *dims[MAX_RANK];
  for (int d = 0; d < v->rank; d++) {
    const Expr *const own = grown_size(m, in, v->rank, d);
    dims[d] = own ? own : v->dims[d];
  }
  value_set_tensor(m, in, v->dtype, v->rank, dims);
  in->contents = NULL;
}

/* False: both are the same, or are taken to be, as two sizes of the caller. */
static bool sizes_differ(Model *m, const Expr *before, const Expr *after) {
  int64_t k;
  if (before == after) return false;
  return expr_is_const(before, &k) || expr_is_const(after, &k) ||
         expr_is_const(ex_sub(m->pool, before, after), &k) ||
         expr_contains(m->pool, after, before) || expr_uses_runtime(m->pool, before) ||
         expr_uses_runtime(m->pool, after);
}

/* Sizes that the body changes become symbols: true, and inference must run again. */
static bool states_grow(Model *m, const Node *n, const Graph *g) {
  bool more = false;
  for (int k = 0; k < n->n_in - 2; k++) {
    Value *const in = g->inputs.data[k + 2];
    const Value *const out = g->outputs.data[k + 1];
    if (out->kind != TY_TENSOR || out->rank != in->rank) continue;
    for (int d = 0; d < in->rank; d++) {
      if (grown_size(m, in, in->rank, d) || !sizes_differ(m, in->dims[d], out->dims[d])) continue;
      const Expr *const s = ex_sym_fresh(m->pool, grown_stem(m, in));
      expr_symbol(m->pool, s->id)->runtime = true;
      expr_symbol(m->pool, s->id)->bound = model_bound(m, s);
      in->dims[d] = s;
      more = true;
    }
  }
  return more;
}

/* The most that a size can be which is `first` before `room` iterations and `next` after each:
 * where it does not depend on itself, or grows by as much each time. NULL: nobody knows, or it is
 * so much that memory better follows it. */
static const Expr *growth_bound(Model *m, const Expr *first, const Expr *next, const Expr *self,
                                const Expr *room) {
  enum { MOST = 4096 };
  ExprPool *const p = m->pool;
  const Expr *const most = expr_upper(p, next, NULL);
  const Expr *const step = expr_upper(p, ex_sub(p, next, self), NULL);
  int64_t k;
  first = expr_upper(p, first, NULL);
  room = room ? expr_upper(p, room, NULL) : NULL;
  if (!first) return NULL;
  if (!expr_contains(p, next, self) && most) return ex_max(p, first, most);
  if (!room || !step || expr_contains(p, ex_sub(p, next, self), self)) return NULL;
  if (expr_is_const(room, &k) && k > MOST) return NULL;
  return ex_add(p, first, ex_mul(p, room, ex_max(p, step, ex_i64(p, 0))));
}

static void bound_states(Model *m, const Node *n, const Graph *g, const Expr *room) {
  for (int k = 0; k < n->n_in - 2; k++) {
    const Value *const in = g->inputs.data[k + 2], *const out = g->outputs.data[k + 1];
    for (int d = 0; d < in->rank; d++) {
      const Expr *const self = grown_size(m, in, in->rank, d);
      if (!self || in->dims[d] == n->in[k + 2]->dims[d]) continue;
      Symbol *const s = expr_symbol(m->pool, self->id);
      const Expr *const given = model_bound(m, self);
      s->bound = NULL; /* it must not be what it is found from */
      s->bound = given ? given : growth_bound(m, n->in[k + 2]->dims[d], out->dims[d], self, room);
    }
  }
}

/* Inference of the body, until no further size of a state is found to change. */
static bool infer_body(Model *m, Node *n, Graph *g) {
  const int assumed = m->assumes.n;
  for (;;) {
    for (int k = 2; k < n->n_in; k++) give_state(m, g->inputs.data[k], n->in[k]);
    graph_forget_contents(g);
    loop_state_contents(m, n, g);
    if (!graph_infer(g)) return false;
    if (!states_grow(m, n, g)) return true;
    m->assumes.n = assumed; /* of sizes that are no more */
  }
}

/* A size of a state that changes, which every iteration has another of. */
static bool has_grown(Model *m, const Graph *g, const Node *n, const Value *v) {
  for (int k = 2; k < n->n_in; k++)
    for (int d = 0; d < g->inputs.data[k]->rank; d++) {
      const Expr *const own = g->inputs.data[k]->dims[d];
      if (own == n->in[k]->dims[d]) continue;
      for (int i = 0; i < v->rank; i++)
        if (expr_contains(m->pool, v->dims[i], own)) return true;
    }
  return false;
}

static bool carried_kept(Model *m, Node *n, int k, const Value *in, const Value *out,
                         bool may_grow) {
  const Expr *same;
  int64_t d;
  if (out->kind != TY_TENSOR || out->dtype != in->dtype)
    return op_error(m, n, ERR_TYPE, "carried value %d starts as %s and becomes %s", k,
                    dtype_text(in->dtype), dtype_text(out->dtype));
  if (out->rank != in->rank)
    return op_error(m, n, ERR_DYNAMIC, "carried value %d changes its rank from %d to %d", k,
                    in->rank, out->rank);
  for (int i = 0; i < in->rank; i++) {
    if (in->dims[i] == out->dims[i]) continue;
    if (may_grow && grown_size(m, in, in->rank, i)) continue;
    if (expr_is_const(ex_sub(m->pool, in->dims[i], out->dims[i]), &d))
      return op_error(m, n, ERR_DYNAMIC,
                      "carried value %d changes its shape: axis %d grows by %lld in each iteration",
                      k, i, (long long)-d);
    if (!op_same_dim(m, n, in->dims[i], out->dims[i], "carried value", &same)) return false;
  }
  return true;
}

static bool loop_arity(Model *m, Node *n, const Graph *g) {
  const int carried = n->n_in - 2;
  if (g->inputs.n != n->n_in)
    return op_error(m, n, ERR_ARITY, "the body has %d inputs for %d of the node", g->inputs.n,
                    n->n_in);
  if (g->outputs.n < 1 + carried || g->outputs.n - 1 < n->n_out)
    return op_error(m, n, ERR_ARITY, "the body has %d outputs for %d of the node", g->outputs.n,
                    n->n_out);
  for (int k = 0; k < 2; k++)
    if (n->in[k] && n->in[k]->kind != TY_TENSOR)
      return op_error(m, n, ERR_TYPE, "input %d is not a tensor", k);
  if (n->in[0] && n->in[0]->dtype != DT_I64)
    return op_error(m, n, ERR_TYPE, "the trip count is not i64");
  if (n->in[1] && n->in[1]->dtype != DT_BOOL)
    return op_error(m, n, ERR_TYPE, "the condition is not bool");
  for (int k = 2; k < n->n_in; k++)
    if (!n->in[k] || n->in[k]->kind != TY_TENSOR || n->in[k]->rank < 0)
      return op_error(m, n, ERR_UNSUPPORTED, "carried value %d is not a tensor of known rank",
                      k - 2);
  return true;
}

/* Upper bound of the leading dim of scan outputs where the trip count is data: what the model
 * declares, or what an earlier inference took from there. The lowering stops at the bound. */
static const Expr *declared_trip(Model *m, const Node *n, int carried) {
  for (int k = carried; k < n->n_out; k++) {
    const Value *o = node_out(n, k);
    const Expr *d = tu_declared(n, k, 0);
    if (d) return d;
    if (o && o->kind == TY_TENSOR && o->rank > 0 && o->dims[0] && o->dims[0]->op == EX_SYM &&
        expr_symbol(m->pool, o->dims[0]->id)->runtime)
      return expr_symbol(m->pool, o->dims[0]->id)->bound;
  }
  return NULL;
}

/* The bound `room` made tighter by the condition. *exact: the Loop runs just as often. */
static const Expr *condition_trip(Model *m, const Node *n, const Expr *trip, const Expr *room,
                                  bool *exact) {
  int64_t k;
  const LoopTrip t = loop_trip(m, n);
  if (!t.count) return room;
  const bool no_limit = !node_in(n, 0) || (trip && expr_is_const(trip, &k) && k >= INT32_MAX);
  *exact = t.exact && (trip || no_limit);
  return room && !no_limit ? ex_min(m->pool, room, t.count) : t.count;
}

static void bound_iteration(Model *m, const Graph *body, const Expr *room) {
  const Expr *const iter = value_element(m->pool, body->inputs.data[0], 0);
  expr_symbol(m->pool, iter->id)->bound = ex_sub(m->pool, room, ex_i64(m->pool, 1));
}

bool infer_loop(Model *m, Node *n) {
  Graph *g = need_region(m, n, "body");
  if (!g || !loop_arity(m, n, g)) return false;
  const int carried = n->n_in - 2;
  const Expr *trip = known_trip(m, n), *room = trip ? trip : declared_trip(m, n, carried),
             *dims[MAX_RANK + 1], *length = NULL;
  set_iteration(m, g->inputs.data[0], room);
  set_scalar_input(m, g->inputs.data[1], DT_BOOL,
                   ex_bool(m->pool, true)); /* else the body would not run */
  if (!infer_body(m, n, g)) return false;
  const Value *cond = g->outputs.data[0];
  if (cond->kind != TY_TENSOR || cond->dtype != DT_BOOL)
    return op_error(m, n, ERR_TYPE, "the body's condition is not bool");
  const bool always = (known_true(m, node_in(n, 1)) && known_true(m, cond)) || loop_runs_out(m, n);
  bool exact = trip && always;
  if (!always) room = condition_trip(m, n, trip, room, &exact);
  if (room) bound_iteration(m, g, room);
  bound_states(m, n, g, room);
  for (int k = 0; k < carried; k++) {
    const Value *in = g->inputs.data[k + 2];
    if (!carried_kept(m, n, k, in, g->outputs.data[1 + k], true) || !like(m, n, k, in))
      return false;
  }
  for (int k = carried; k < g->outputs.n - 1; k++) {
    const Value *v = g->outputs.data[1 + k];
    if (!node_out(n, k)) continue;
    if (v->kind != TY_TENSOR || v->rank < 0 || v->rank + 1 > MAX_RANK)
      return op_error(m, n, ERR_UNSUPPORTED, "scan output %d is not a tensor", k - carried);
    if (!length && room) length = exact ? room : op_runtime_dim(m, n, k, 0, "trips", room);
    if (has_grown(m, g, n, v))
      return op_error(m, n, ERR_DYNAMIC, "scan output %d has another shape in each iteration",
                      k - carried);
    if (!length) {
      length = op_runtime_dim(m, n, k, 0, "trips", NULL);
      const Expr *const bound = expr_symbol(m->pool, length->id)->bound;
      if (bound) bound_iteration(m, g, bound);
    }
    dims[0] = length;
    memcpy(dims + 1, v->dims, sizeof *dims * (size_t)v->rank);
    if (!op_out(m, n, k, v->dtype, v->rank + 1, dims)) return false;
  }
  return true;
}

/* ---- Scan ---- */
typedef struct ScanSpec {
  int inputs, states, outputs; /* scan inputs, state variables, scan outputs */
} ScanSpec;

static bool scan_spec(Model *m, Node *n, const Graph *g, ScanSpec *s) {
  int64_t k;
  if (!node_attr(n, "num_scan_inputs"))
    return op_error(m, n, ERR_ATTR_MISSING, "num_scan_inputs is missing");
  if (!op_int_in(m, n, "num_scan_inputs", 1, 1, n->n_in, &k)) return false;
  *s = (ScanSpec){(int)k, n->n_in - (int)k, n->n_out - (n->n_in - (int)k)};
  if (g->inputs.n != n->n_in || g->outputs.n != n->n_out || s->outputs < 0)
    return op_error(m, n, ERR_ARITY,
                    "the body has %d inputs and %d outputs, the node has %d and %d", g->inputs.n,
                    g->outputs.n, n->n_in, n->n_out);
  static const struct {
    const char *name;
    bool in, axis;
  } lists[] = {{"scan_input_axes", true, true},
               {"scan_input_directions", true, false},
               {"scan_output_axes", false, true},
               {"scan_output_directions", false, false}};
  for (int i = 0; i < 4; i++) {
    const int64_t *v;
    int count;
    if (!op_ints(m, n, lists[i].name, &v, &count)) return false;
    if (count >= 0 && count != (lists[i].in ? s->inputs : s->outputs))
      return op_error(m, n, ERR_ATTR_VALUE, "%s has %d entries", lists[i].name, count);
    for (int j = 0; j < count && !lists[i].axis; j++)
      if (v[j] != 0 && v[j] != 1)
        return op_error(m, n, ERR_ATTR_VALUE, "%s holds %lld", lists[i].name, (long long)v[j]);
  }
  return true;
}

bool infer_scan(Model *m, Node *n) {
  Graph *g = need_region(m, n, "body");
  ScanSpec s;
  const Expr *dims[MAX_RANK], *length = NULL;
  if (!g || !scan_spec(m, n, g, &s)) return false;
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    Value *in = g->inputs.data[k];
    if (!v || v->kind != TY_TENSOR || v->rank < 0)
      return op_error(m, n, ERR_UNSUPPORTED, "input %d is not a tensor of known rank", k);
    in->contents = NULL;
    if (k < s.states) {
      value_set_tensor(m, in, v->dtype, v->rank, (const Expr *const *)v->dims);
      continue;
    }
    int axis, rank = 0;
    if (!op_norm_axis(m, n, "scan_input_axes", node_ints_at(n, "scan_input_axes", k - s.states, 0),
                      v->rank, &axis))
      return false;
    if (length && !op_same_dim(m, n, length, v->dims[axis], "scan length", &length)) return false;
    if (!length) length = v->dims[axis];
    for (int i = 0; i < v->rank; i++)
      if (i != axis) dims[rank++] = v->dims[i];
    value_set_tensor(m, in, v->dtype, rank, dims);
  }
  graph_forget_contents(g);
  graph_forget_contents(g);
  if (!graph_infer(g)) return false;
  for (int k = 0; k < s.states; k++)
    if (!carried_kept(m, n, k, g->inputs.data[k], g->outputs.data[k], false) ||
        !like(m, n, k, g->inputs.data[k]))
      return false;
  for (int k = s.states; k < n->n_out; k++) {
    const Value *v = g->outputs.data[k];
    int axis;
    if (v->kind != TY_TENSOR || v->rank < 0 || v->rank + 1 > MAX_RANK)
      return op_error(m, n, ERR_UNSUPPORTED, "output %d is not a tensor", k);
    if (!op_norm_axis(m, n, "scan_output_axes",
                      node_ints_at(n, "scan_output_axes", k - s.states, 0), v->rank + 1, &axis))
      return false;
    for (int i = 0, j = 0; i <= v->rank; i++) dims[i] = i == axis ? length : v->dims[j++];
    if (!op_out(m, n, k, v->dtype, v->rank + 1, dims)) return false;
  }
  return true;
}

/* Size of an axis as a scalar. */
static Value *axis_size(Build *b, Value *v, int axis) {
  const Attr range[2] = {attr_int(b->m->arena, "start", axis),
                         attr_int(b->m->arena, "end", axis + 1)};
  const int64_t zero = 0;
  return build2(b, "Squeeze", build_op(b, "Shape", 1, &v, 2, range), build_i64s(b, 1, &zero));
}

static Value *scan_slice(Build *body, Node *n, Value *src, Value *iter, Value *last, int k) {
  const int64_t axis = node_ints_at(n, "scan_input_axes", k, 0);
  const Attr a = attr_int(body->m->arena, "axis", axis < 0 ? axis + src->rank : axis);
  Value *at =
      node_ints_at(n, "scan_input_directions", k, 0) ? build2(body, "Sub", last, iter) : iter;
  return build_op(body, "Gather", 2, (Value *[]){src, at}, 1, &a);
}

/* From the stacked order of the loop to the asked axis and direction. */
static Value *scan_result(Build *b, Node *n, Value *v, int k) {
  const int64_t zero = 0, minus = -1, least = INT64_MIN;
  int64_t axis = node_ints_at(n, "scan_output_axes", k, 0), perm[MAX_RANK];
  if (node_ints_at(n, "scan_output_directions", k, 0)) {
    Value *ins[5] = {v, build_i64s(b, 1, &minus), build_i64s(b, 1, &least), build_i64s(b, 1, &zero),
                     build_i64s(b, 1, &minus)};
    v = build_op(b, "Slice", 5, ins, 0, NULL);
  }
  if (axis < 0) axis += v->rank;
  if (axis == 0) return v;
  for (int i = 0, j = 1; i < v->rank; i++) perm[i] = i == axis ? 0 : j++;
  const Attr a = attr_ints(b->m->arena, "perm", v->rank, perm);
  return build_op(b, "Transpose", 1, &v, 1, &a);
}

/* The body graph itself becomes the Loop's body. */
bool expand_scan(Build *b, Node *n, Value **out) {
  Model *m = b->m;
  Graph *g = node_region(n, "body");
  ScanSpec s;
  if (!scan_spec(m, n, g, &s)) return false;
  Value *first = n->in[s.states];
  const int64_t axis = node_ints_at(n, "scan_input_axes", 0, 0);
  Value *trip = axis_size(b, first, (int)(axis < 0 ? axis + first->rank : axis));
  Value *last = build2(b, "Sub", trip, build_scalar(b, DT_I64, 1));
  Value *iter = value_new(m, NULL), *cond = value_new(m, NULL);
  set_iteration(m, iter, value_element(m->pool, trip, 0));
  set_scalar_input(m, cond, DT_BOOL, ex_bool(m->pool, true));
  Build body = {
      .m = m, .g = g, .before = g->nodes.n ? g->nodes.data[0] : NULL, .loc = b->loc, .ok = true};
  for (int k = 0; k < s.inputs; k++)
    graph_replace_value(g, g->inputs.data[s.states + k],
                        scan_slice(&body, n, n->in[s.states + k], iter, last, k));
  Vec(Value *) ins = {0}, outs = {0};
  vec_push(m->arena, &ins, iter);
  vec_push(m->arena, &ins, cond);
  for (int k = 0; k < s.states; k++) vec_push(m->arena, &ins, g->inputs.data[k]);
  vec_push(m->arena, &outs, value_const_scalar(m, DT_BOOL, 1));
  for (int k = 0; k < g->outputs.n; k++) vec_push(m->arena, &outs, g->outputs.data[k]);
  g->inputs.n = g->outputs.n = 0;
  for (int k = 0; k < ins.n; k++) vec_push(m->arena, &g->inputs, ins.data[k]);
  for (int k = 0; k < outs.n; k++) vec_push(m->arena, &g->outputs, outs.data[k]);
  Value **args = ARENA_ARRAY(m->arena, Value *, s.states + 2);
  args[0] = trip;
  for (int k = 0; k < s.states; k++) args[k + 2] = n->in[k];
  const Attr a = {.name = "body", .kind = AT_GRAPH, .n = 1, .graph = g};
  Node *loop = build_node(b, "Loop", "", s.states + 2, args, n->n_out, 1, &a);
  g->owner = loop;
  for (int k = 0; k < n->n_out && b->ok; k++)
    out[k] = k < s.states ? loop->out[k] : scan_result(b, n, loop->out[k], k - s.states);
  return b->ok && body.ok;
}
