/* ScatterElements as kernels: the data is copied, then updates are combined into it one index after
 * another, in vectors along a dimension other than the scattered one. Every element is updated in
 * the order of the indices, so that sums do not depend on threads. For GPUs all other dimensions are
 * one parallel loop. TensorScatter, too, where its result takes the memory of its data: the pass
 * in_place drops the copy. */
#include "passes/build/nest.h"

#include <string.h>

enum { LANE_BLOCK = 64 };

typedef struct Scatter {
  Lower *l;
  ExprPool *p;
  KernelBuild b;
  const Node *n;
  const Place *to;
  const Place *stored[3]; /* of inputs that are not computed in this kernel; NULL: they are */
  int axis, rank, lane;   /* lane: dimension in vectors, -1: none */
  int updates;            /* number of the input that has them */
  bool slots;             /* TensorScatter: input 2 says where the updates of a batch begin */
  const Expr *idx[MAX_RANK];
} Scatter;

static const Expr *combine(Scatter *s, const Expr *old, const Expr *update) {
  static const struct {
    const char *name;
    ExprOp op;
  } kinds[] = {{"add", EX_add}, {"mul", EX_mul}, {"max", EX_max}, {"min", EX_min}};
  const char *how = node_string(s->n, "reduction", "none");
  const DType t = s->n->out[0]->dtype, c = dtype_compute(t);
  for (int i = 0; i < 4; i++)
    if (strcmp(how, kinds[i].name) == 0)
      return ex_cast(
          s->p, t, ex_op(s->p, kinds[i].op, ex_cast(s->p, c, old), ex_cast(s->p, c, update), NULL));
  return update;
}

/* Index from data: wrapped when negative, kept inside (the data may lie). */
static const Expr *position(Scatter *s, const Expr *i, const Expr *size) {
  const Expr *zero = ex_i64(s->p, 0);
  i = ex_cast(s->p, DT_I64, i);
  i = ex_select(s->p, ex_lt(s->p, i, zero), ex_add(s->p, i, size), i);
  return ex_max(s->p, zero, ex_min(s->p, i, ex_sub(s->p, size, ex_i64(s->p, 1))));
}

/* Element of an input at the current index: of its own place, where that was stored before. */
static const Expr *element(Scatter *s, int k) {
  const Place *pl = s->stored[k];
  if (!pl) return kernel_expr_read(&s->b.x, s->n->in[k], s->idx);
  const int id = kb_param(&s->b, pl->buffer, pl->offset, PA_READ);
  const Expr *at = place_index(s->p, pl, s->n->in[k]->rank, s->idx);
  return ex_load(s->p, s->n->in[k]->dtype, id, at, NULL);
}

static const Place *any_place(void *user, const Value *v, int *id) {
  *id = 0;
  return lower_place(user, v);
}

/* A sum inside of an index or an update has no loop here: such an input is stored first. */
static void store_reductions(Scatter *s, Step **steps) {
  const Expr *idx[MAX_RANK];
  KernelExpr look;
  kernel_expr_init(&look, s->l->m, any_place, s->l);
  for (int k = 1; k < s->n->n_in; k++) {
    const Value *v = s->n->in[k];
    if (!v) continue;
    for (int d = 0; d < v->rank; d++) idx[d] = ex_var(s->p, "i", v->dims[d]);
    if (!(kernel_expr_read(&look, v, idx)->flags & EXF_REDUCE)) continue;
    s->stored[k] = lower_temp(s->l, v->dtype, v->rank, v->dims, "update");
    step_append(steps, lower_read(s->l, v, s->stored[k]));
  }
}

/* Where TensorScatter puts the current update. */
static const Expr *slot(Scatter *s, const Expr *size) {
  const bool begins = s->n->n_in > 2 && s->n->in[2];
  const Expr *const first = begins ? ex_cast(s->p, DT_I64, element(s, 2)) : ex_i64(s->p, 0);
  const Expr *const at = ex_add(s->p, first, s->idx[s->axis]);
  const bool circular = strcmp(node_string(s->n, "mode", "linear"), "circular") == 0;
  return circular ? ex_floormod(s->p, at, size) : position(s, at, size);
}

static Stmt *update(Scatter *s) {
  const Value *out = s->n->out[0];
  const Expr *at[MAX_RANK], *const size = out->dims[s->axis];
  const Expr *const value = element(s, s->updates);
  for (int d = 0; d < s->rank; d++) at[d] = s->idx[d];
  at[s->axis] = s->slots ? slot(s, size) : position(s, element(s, 1), size);
  const int id = kb_param(&s->b, s->to->buffer, s->to->offset, PA_READWRITE);
  const Expr *where = place_index(s->p, s->to, s->rank, at);
  const Expr *old = ex_load(s->p, out->dtype, id, where, NULL);
  return stmt_store(s->l->m->arena, id, where, combine(s, old, value));
}

/* Lanes along the dimension with the smallest stride, unless it is the scattered one. */
static int choose_lane(const Scatter *s) {
  const Value *u = s->n->in[s->updates];
  for (int d = s->rank - 1; d >= 0; d--)
    if (d != s->axis && expr_is_i64(s->to->stride[d], 1) && !expr_is_i64(u->dims[d], 1)) return d;
  return -1;
}

/* All loops but the one along the axis become one, whose iterations are threads. */
static Stmt *thread_each(Scatter *s, double cycles) {
  const Value *const u = s->n->in[s->updates];
  const Expr *extent[MAX_RANK], *total = ex_i64(s->p, 1);
  for (int d = 0; d < s->rank; d++) {
    extent[d] = d == s->axis ? ex_i64(s->p, 1) : u->dims[d];
    total = ex_mul(s->p, total, extent[d]);
  }
  const Expr *const par = ex_var(s->p, "p", total), *const along =
                                                        ex_var(s->p, "i", u->dims[s->axis]);
  nest_indices(s->p, par, s->rank, extent, s->idx);
  s->idx[s->axis] = along;
  return nest_parallel(&s->b, par, stmt_for(s->l->m->arena, FOR_SERIAL, along, update(s)), cycles);
}

static Stmt *loops(Scatter *s, double cycles) {
  Arena *a = s->l->m->arena;
  const Value *u = s->n->in[s->updates];
  const Expr *vars[MAX_RANK], *lane = NULL, *block = NULL, *par = NULL;
  for (int d = 0; d < s->rank; d++) {
    vars[d] = expr_is_i64(u->dims[d], 1) ? NULL : ex_var(s->p, "i", u->dims[d]);
    s->idx[d] = vars[d] ? vars[d] : ex_i64(s->p, 0);
  }
  if (s->lane >= 0) {
    const Expr *n = u->dims[s->lane];
    int64_t k;
    if (expr_is_const(n, &k) && k >= 2 * LANE_BLOCK && k % LANE_BLOCK == 0) {
      block = ex_var(s->p, "p", ex_i64(s->p, k / LANE_BLOCK));
      lane = ex_var(s->p, "i", ex_i64(s->p, LANE_BLOCK));
      s->idx[s->lane] = ex_add(s->p, ex_mul(s->p, block, ex_i64(s->p, LANE_BLOCK)), lane);
    } else {
      lane = vars[s->lane];
    }
  }
  par = block;
  for (int d = 0; d < s->rank && !par; d++)
    if (d != s->axis && d != s->lane && vars[d]) par = vars[d];
  Stmt *body = update(s);
  if (lane) body = stmt_for(a, FOR_VECTOR, lane, body);
  if (vars[s->axis]) body = stmt_for(a, FOR_SERIAL, vars[s->axis], body);
  for (int d = s->rank - 1; d >= 0; d--)
    if (d != s->axis && d != s->lane && vars[d] && vars[d] != par)
      body = stmt_for(a, FOR_SERIAL, vars[d], body);
  return par ? nest_parallel(&s->b, par, body, cycles) : body;
}

Step *lower_scatter(Lower *l, const Node *n, const Place *to) {
  Scatter s = {.l = l, .p = l->p, .n = n, .to = to, .rank = n->out[0]->rank};
  s.slots = !node_is_scatter(n);
  s.updates = s.slots ? 1 : 2;
  int64_t axis = node_int(n, "axis", s.slots ? -2 : 0);
  s.axis = (int)(axis < 0 ? axis + s.rank : axis);
  s.lane = choose_lane(&s);
  Step *list = NULL;
  step_append(&list, lower_read(l, n->in[0], to));
  store_reductions(&s, &list);
  kb_begin(&s.b, l, n->out[0], NULL);
  enum { UPDATE = 4 }; /* cycles, of a lane or of a vector */
  const double updates = expr_extent_guess(l->p, value_count(l->p, n->in[s.updates]));
  const double cycles = UPDATE * updates / (s.lane < 0 ? 1 : target_lanes(l->c->target, 32));
  Stmt *const body = target_has_grids(l->c->target) ? thread_each(&s, cycles) : loops(&s, cycles);
  kb_estimate(&s.b, "scatter", cycles);
  if (s.b.x.bad) {
    diag_internal(l->m->diag, n->loc, "lower: an input of a scatter cannot be read");
    return NULL;
  }
  step_append(&list, kb_finish(&s.b, body));
  return list;
}
