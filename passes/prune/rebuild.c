/* Weights that stay take over what those that go did, as far as samples allow: a channel that goes is
 * taken for a sum of those that stay, by factors of least squares over what the product read, with a ridge;
 * its weights go to theirs by these factors. No labels are needed. (Reconstruction behind a cut: He et al.,
 * Channel Pruning, 2017; Luo et al., ThiNet, 2017. Factors between channels, not weights, are what is fitted
 * here: they are few, so that few samples tell them, and the same for all taps of a window.) */
#include <math.h>
#include <string.h>
#include "passes/prune/prune.h"

/* ---- which products ---- */
typedef struct Channel { /* all indices of one root along two dimensions */
  int32_t root;
  int64_t n[2];
} Channel;
typedef Vec(Channel) Channels;

static int channel_of(PruneRelation *r, Channels *list, int *by_root, int32_t root) {
  if (by_root[root] < 0) {
    by_root[root] = list->n;
    vec_push(r->a, list, (Channel){.root = root});
  }
  return by_root[root];
}

static void count_channels(PruneRelation *r, const int *slots, const int *dims, Channels *list,
                           int *by_root) {
  for (int side = 0; side < 2; side++)
    for (int64_t i = 0, n = prune_size(r, slots[side], dims[side]); i < n; i++) {
      const int32_t root = prune_root(r, prune_atom(r, slots[side], dims[side], i));
      const int k = channel_of(r, list, by_root, root);
      list->data[k].n[side]++;
    }
}

static bool *gone_roots(const PruneRelation *r) {
  bool *gone = ARENA_ARRAY(r->a, bool, r->n_atoms + 1);
  for (int k = 0; k < r->units.n; k++)
    if (r->units.data[k].gone) gone[r->units.data[k].root] = true;
  return gone;
}

/* Those that stay before those that go. Channels of other sizes on either side have no part in it; false:
 * one of them goes, or there is nothing to fit. */
static bool order_channels(PruneRelation *r, Channels *list, const bool *gone, PruneFit *f) {
  Channels kept = {0};
  f->each = 0;
  for (int k = 0; k < list->n; k++)
    if (gone[list->data[k].root]) f->each = list->data[k].n[0];
  for (int goes = 0; goes < 2; goes++)
    for (int k = 0; k < list->n; k++) {
      const Channel *c = &list->data[k];
      const bool fits = c->n[0] == f->each && c->n[1] == f->each;
      if (gone[c->root] != goes) continue;
      if (fits) vec_push(r->a, &kept, *c);
      if (goes && !fits) return false;
      f->n_stay += fits && !goes;
      f->n_gone += goes;
    }
  *list = kept;
  return f->each > 0 && f->n_stay > 0 && f->n_gone > 0;
}

static int64_t *places(PruneRelation *r, const Channels *list, const PruneFit *f, int slot,
                       int dim) {
  int64_t *at = ARENA_ARRAY(r->a, int64_t, (int64_t)list->n * f->each), *next;
  int *by_root = ARENA_ARRAY(r->a, int, r->n_atoms + 1);
  next = ARENA_ARRAY(r->a, int64_t, list->n);
  for (int k = 0; k < list->n; k++) by_root[list->data[k].root] = k + 1;
  for (int64_t i = 0, n = prune_size(r, slot, dim); i < n; i++) {
    const int k = by_root[prune_root(r, prune_atom(r, slot, dim, i))] - 1;
    if (k >= 0) at[k * f->each + next[k]++] = i;
  }
  return at;
}

/* What the product reads along its weights' dimension: the value whose dimension has a channel that goes.
 */
static bool find_data(PruneRelation *r, const PruneProduct *p, const bool *gone, int *slot,
                      int *dim) {
  for (int k = 0; k < r->nodes[p->node]->n_in; k++) {
    const int s = prune_slot(r, p->node, k);
    if (s < 0 || r->slots.data[s].value->cdata) continue;
    for (int d = 0; d < r->slots.data[s].value->rank; d++)
      for (int64_t i = 0, n = prune_size(r, s, d); i < n; i++) {
        const int32_t root = prune_root(r, prune_atom(r, s, d, i));
        for (int64_t j = 0; gone[root] && j < prune_size(r, p->slot, p->dim); j++)
          if (prune_root(r, prune_atom(r, p->slot, p->dim, j)) == root)
            return *slot = s, *dim = d, true;
      }
  }
  return false;
}

static bool find_fit(PruneRelation *r, int product, const bool *gone, PruneFit *f) {
  const PruneProduct *p = &r->products.data[product];
  const Value *w = r->slots.data[p->slot].value;
  Channels list = {0};
  *f = (PruneFit){.product = product};
  if (p->recurrent || !w->cdata || !dtype_is_float(w->dtype) ||
      !find_data(r, p, gone, &f->slot, &f->dim) ||
      !dtype_is_float(r->slots.data[f->slot].value->dtype))
    return false;
  int *by_root = ARENA_ARRAY(r->a, int, r->n_atoms + 1);
  for (int32_t i = 0; i < r->n_atoms; i++) by_root[i] = -1;
  count_channels(r, (int[]){f->slot, p->slot}, (int[]){f->dim, p->dim}, &list, by_root);
  if (!order_channels(r, &list, gone, f)) return false;
  f->data_at = places(r, &list, f, f->slot, f->dim);
  f->weight_at = places(r, &list, f, p->slot, p->dim);
  f->gram = ARENA_ARRAY(r->a, double, (int64_t)f->n_stay *list.n);
  f->row = ARENA_ARRAY(r->a, double, list.n);
  return true;
}

void prune_find_fits(PruneRelation *r, PruneFits *out) {
  const bool *gone = gone_roots(r);
  for (int k = 0; k < r->products.n; k++) {
    PruneFit f;
    if (find_fit(r, k, gone, &f)) vec_push(r->a, out, f);
  }
}

/* ---- samples ---- */
void prune_fit_add(PruneFit *f, const ConstData *t, int64_t most) {
  const int n = f->n_stay + f->n_gone;
  int64_t inner = 1, outer = 1;
  if (t->rank <= f->dim) return;
  for (int d = 0; d < t->rank; d++) *(d < f->dim ? &outer : &inner) *= d == f->dim ? 1 : t->dims[d];
  const int64_t all = outer * inner * f->each, step = all > most ? all / most : 1;
  for (int64_t at = 0; at < all; at += step) {
    const int64_t o = at / inner / f->each, i = at % inner, e = at / inner % f->each;
    for (int k = 0; k < n; k++)
      f->row[k] = const_float(t, (o * t->dims[f->dim] + f->data_at[k * f->each + e]) * inner + i);
    for (int j = 0; j < f->n_stay; j++)
      for (int k = j; k < n && f->row[j] != 0; k++)
        f->gram[(int64_t)j * n + k] += f->row[j] * f->row[k];
  }
}

/* ---- factors ---- */
/* The upper half of the first n columns becomes U with U'U = it + ridge; false: no number. */
static bool cholesky(double *g, int n, int64_t stride, double ridge) {
  for (int j = 0; j < n; j++) {
    double *row = g + j * stride;
    row[j] += ridge;
    for (int k = 0; k < j; k++) row[j] -= g[k * stride + j] * g[k * stride + j];
    if (!(row[j] > 0)) return false;
    row[j] = sqrt(row[j]);
    for (int i = j + 1; i < n; i++) {
      for (int k = 0; k < j; k++) row[i] -= g[k * stride + j] * g[k * stride + i];
      row[i] /= row[j];
    }
  }
  return true;
}

/* Column c of the right sides becomes the solution. */
static void substitute(double *g, int n, int64_t stride, int64_t c) {
  for (int j = 0; j < n; j++) {
    for (int k = 0; k < j; k++) g[j * stride + c] -= g[k * stride + j] * g[k * stride + c];
    g[j * stride + c] /= g[j * stride + j];
  }
  for (int j = n - 1; j >= 0; j--) {
    for (int k = j + 1; k < n; k++) g[j * stride + c] -= g[j * stride + k] * g[k * stride + c];
    g[j * stride + c] /= g[j * stride + j];
  }
}

bool prune_fit_solve(PruneFit *f) {
  static const double ridge = 1e-3;
  const int n = f->n_stay;
  const int64_t stride = n + f->n_gone;
  double trace = 0;
  for (int j = 0; j < n; j++) trace += f->gram[j * stride + j];
  if (!(trace > 0) || !isfinite(trace) || !cholesky(f->gram, n, stride, ridge * trace / n))
    return false;
  for (int k = 0; k < f->n_gone; k++) substitute(f->gram, n, stride, n + k);
  return true;
}

/* ---- weights ---- */
static void give_over(const PruneFit *f, const ConstData *w, int dim, char *data) {
  const int size = dtype_bytes(w->dtype);
  const int64_t all = f->n_stay + f->n_gone;
  int64_t inner = 1, outer = 1;
  for (int d = 0; d < w->rank; d++) *(d < dim ? &outer : &inner) *= d == dim ? 1 : w->dims[d];
  for (int64_t o = 0; o < outer; o++)
    for (int j = 0; j < f->n_stay; j++)
      for (int64_t e = 0; e < f->each; e++)
        for (int64_t i = 0; i < inner; i++) {
          const int64_t at = (o * w->dims[dim] + f->weight_at[j * f->each + e]) * inner + i;
          double v = const_float(w, at);
          for (int64_t k = f->n_stay; k < all; k++)
            v += f->gram[j * all + k] *
                 const_float(w, (o * w->dims[dim] + f->weight_at[k * f->each + e]) * inner + i);
          dtype_store_f(w->dtype, data + at * size, v);
        }
}

void prune_rebuild(PruneRelation *r, const PruneFits *fits) {
  for (int q = 0; q < fits->n; q++) {
    const PruneFit *f = &fits->data[q];
    const PruneProduct *p = &r->products.data[f->product];
    PruneSlot *slot = &r->slots.data[p->slot];
    const ConstData *w = slot->value->cdata;
    const Value *old = slot->value;
    Node *n = r->nodes[p->node];
    char *data = arena_dup(r->m->arena, w->data, (size_t)w->count * (size_t)dtype_bytes(w->dtype));
    give_over(f, w, p->dim, data);
    slot->value = value_const(r->m, const_new(r->m, w->name, w->dtype, w->rank, w->dims, data));
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] == old && prune_slot(r, p->node, k) == p->slot) n->in[k] = slot->value;
  }
}
