/* How much units matter: by their weights, or by what a loss loses with them to first order
 * (Molchanov et al., Importance Estimation for Neural Network Pruning, 2019). */
#include <math.h>
#include <string.h>
#include "passes/prune/prune.h"

/* by slot and dimension, by index; or NULL */
typedef struct Part {
  int slot, dim;
  const double *by_index;
} Part;
typedef Vec(Part) Parts;

static int unit_at(const PruneRelation *r, const int *unit_of, const Part *p, int64_t i) {
  const int32_t atom = prune_atom(r, p->slot, p->dim, i);
  return atom < 0 ? -1 : unit_of[prune_root(r, atom)];
}

/* Units that no loss is known of matter as much as they can. */
static void add_parts(PruneRelation *r, const Parts *parts) {
  int *unit_of = ARENA_ARRAY(r->a, int, r->n_atoms + 1);
  bool *known = ARENA_ARRAY(r->a, bool, r->units.n + 1);
  for (int32_t i = 0; i < r->n_atoms; i++) unit_of[i] = -1;
  for (int k = 0; k < r->units.n; k++) {
    unit_of[r->units.data[k].root] = k;
    r->units.data[k].score = 0;
  }
  for (int k = 0; k < parts->n; k++)
    for (int64_t i = 0, n = prune_size(r, parts->data[k].slot, parts->data[k].dim); i < n; i++) {
      const int u = unit_at(r, unit_of, &parts->data[k], i);
      if (u < 0) continue;
      r->units.data[u].score += parts->data[k].by_index[i];
      known[u] = true;
    }
  for (int k = 0; k < r->units.n; k++)
    if (!known[k]) r->units.data[k].score = INFINITY;
}

/* ---- magnitudes ---- */
static double *norms_along(PruneRelation *r, const ConstData *w, int dim, PruneNorm norm) {
  double *sum = ARENA_ARRAY(r->a, double, w->dims[dim] + 1), mean = 0;
  int64_t inner = 1;
  for (int d = dim + 1; d < w->rank; d++) inner *= w->dims[d];
  for (int64_t i = 0; i < w->count; i++) {
    const double v = const_float(w, i);
    sum[i / inner % w->dims[dim]] += norm == PRUNE_L1 ? fabs(v) : v * v;
  }
  for (int64_t i = 0; i < w->dims[dim]; i++) {
    if (norm == PRUNE_L2) sum[i] = sqrt(sum[i]);
    mean += sum[i] / (double)w->dims[dim];
  }
  for (int64_t i = 0; i < w->dims[dim] && mean > 0; i++) sum[i] /= mean;
  return sum;
}

/* Weights of products, those that make the channels and those that read them, each by its own mean. */
void prune_score_magnitude(PruneRelation *r, PruneNorm norm) {
  Parts parts = {0};
  for (int s = 0; s < r->slots.n; s++) {
    const PruneSlot *p = &r->slots.data[s];
    const ConstData *w = p->value->cdata;
    if (!w || w->rank < 2 || !dtype_is_float(w->dtype) || !prune_multiplies(r, p->node)) continue;
    for (int d = 0; d < w->rank; d++)
      if (prune_size(r, s, d)) vec_push(r->a, &parts, (Part){s, d, norms_along(r, w, d, norm)});
  }
  add_parts(r, &parts);
}

/* ---- losses ---- */
static const Loc here = {.node = -1, .node_name = "importance"};

static Value *sum_but(Build *b, Value *v, int dim) {
  int64_t axes[MAX_RANK];
  int n = 0;
  if (dim < 0) return v;
  for (int d = 0; d < v->rank; d++)
    if (d != dim) axes[n++] = d;
  if (n == 0) return v;
  Value *in[] = {v, build_i64s(b, n, axes)};
  const Attr keep = attr_int(b->m->arena, "keepdims", 0);
  return build_op(b, "ReduceSum", 2, in, 1, &keep);
}

/* Constants of several readers: each has its own gradient, but of all dimensions together. */
static Value *own_weights(PruneRelation *r, const PruneProduct *p) {
  const ConstData *w = r->slots.data[p->slot].value->cdata;
  const Node *by = r->nodes[p->node];
  for (int k = 0; k < by->n_in; k++) /* along another dimension of the same, it has one already */
    if (p->dim >= 0 && prune_slot(r, p->node, k) == p->slot && by->in[k]->cdata == w &&
        by->in[k] != r->slots.data[p->slot].value)
      return by->in[k];
  Value *own = value_const(r->m, (ConstData *)(uintptr_t)w);
  for (int i = 0; i < r->n_nodes; i++) {
    Node *n = r->nodes[i];
    for (int k = 0; k < n->n_in; k++)
      if (p->dim < 0 ? n->in[k] && n->in[k]->cdata == w
                     : i == p->node && prune_slot(r, i, k) == p->slot)
        n->in[k] = own;
  }
  return own;
}

bool prune_observe(PruneRelation *r, Value *loss, bool each) {
  Model *m = r->m;
  Build b = {.m = m, .g = m->main, .loc = &here, .ok = true};
  Value **in = ARENA_ARRAY(r->a, Value *, r->products.n + 1);
  if (r->products.n == 0) return true;
  in[0] = loss;
  for (int k = 0; k < r->products.n; k++) in[k + 1] = own_weights(r, &r->products.data[k]);
  const Node *g =
      build_node(&b, "Gradient", "burin", r->products.n + 1, in, r->products.n, 0, NULL);
  for (int k = 0; k < r->products.n && b.ok; k++) {
    Value *v = build2(&b, "Mul", g->out[k], in[k + 1]);
    if (b.ok && each) v = build1(&b, "Abs", v);
    if (b.ok) v = sum_but(&b, v, r->products.data[k].dim);
    if (b.ok) v = build_cast(&b, v, DT_F32);
    vec_push(m->arena, &m->main->outputs, v);
    vec_push(m->arena, &m->main->output_names, arena_printf(m->arena, "burin.importance.%d", k));
  }
  return b.ok;
}

void prune_score_observed(PruneRelation *r, const double *const *by_product) {
  Parts parts = {0};
  for (int k = 0; k < r->products.n; k++)
    vec_push(r->a, &parts,
             (Part){r->products.data[k].slot, r->products.data[k].dim, by_product[k]});
  add_parts(r, &parts);
}
