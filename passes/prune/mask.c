/* Single weights set to zero: the lowest of all products' weights together, or all but N of each M along
 * the dimension that a product adds up over. The weights keep their sizes. */
#include <math.h>
#include <string.h>
#include "passes/prune/prune.h"

/* ---- which there are ---- */
static PruneWeight *weight_of(const PruneWeights *l, const ConstData *w) {
  for (int k = 0; k < l->n; k++)
    if (l->data[k].w == w) return &l->data[k];
  return NULL;
}

/* The dimension that the product at `node` adds up over. -1: none is known. */
static int summed_dim(const PruneRelation *r, int node, int slot) {
  for (int k = 0; k < r->products.n; k++)
    if (r->products.data[k].node == node && r->products.data[k].slot == slot)
      return r->products.data[k].dim;
  return strcmp(r->nodes[node]->op->name, "Conv") == 0 ? 1 : -1; /* in groups */
}

static void add_weight(const PruneRelation *r, int node, int input, double work,
                       PruneWeights *out) {
  const Node *n = r->nodes[node];
  const ConstData *w = n->in[input] ? n->in[input]->cdata : NULL;
  const int slot = prune_slot(r, node, input);
  if (!w || w->rank < 2 || !dtype_is_float(w->dtype) || slot < 0) return;
  PruneWeight *known = weight_of(out, w);
  if (known) {
    known->work += work;
    return;
  }
  vec_push(r->a, out,
           (PruneWeight){.w = w,
                         .node = node,
                         .slot = slot,
                         .dim = summed_dim(r, node, slot),
                         .work = work,
                         .gone = ARENA_ARRAY(r->a, bool, w->count + 1)});
}

void prune_find_weights(const PruneRelation *r, const double *work, PruneWeights *out) {
  for (int i = 0; i < r->n_nodes; i++)
    for (int k = 0; (r->nodes[i]->op->flags & OF_CONTRACTION) && k < r->nodes[i]->n_in && k < 2;
         k++)
      add_weight(r, i, k, work[i], out);
}

void prune_observe_elements(PruneRelation *r, const PruneWeights *l) {
  r->products.n = 0;
  for (int k = 0; k < l->n; k++)
    vec_push(r->a, &r->products,
             (PruneProduct){.node = l->data[k].node, .slot = l->data[k].slot, .dim = -1});
}

static double importance(const PruneWeight *p, int64_t i) {
  const double v = p->observed ? p->observed[i] : fabs(const_float(p->w, i));
  return isnan(v) ? INFINITY : v;
}

/* ---- the lowest of a list ---- */
/* By halves of the bits of what is not negative, whose order is that of the numbers. */
static uint32_t bits_of(float v) {
  uint32_t u;
  memcpy(&u, &v, sizeof u);
  return u;
}

/* The bits of the kth lowest, from 1 on; *less: how many are below it. */
static uint32_t kth_lowest(Arena *a, const float *v, int64_t n, int64_t k, int64_t *less) {
  enum { HALF = 1 << 16 };
  int64_t *count = ARENA_ARRAY(a, int64_t, HALF);
  uint32_t high = 0, low = 0;
  *less = 0;
  for (int64_t i = 0; i < n; i++) count[bits_of(v[i]) >> 16]++;
  while (*less + count[high] < k) *less += count[high++];
  memset(count, 0, sizeof *count * HALF);
  for (int64_t i = 0; i < n; i++)
    if (bits_of(v[i]) >> 16 == high) count[bits_of(v[i]) & (HALF - 1)]++;
  while (*less + count[low] < k) *less += count[low++];
  return high << 16 | low;
}

/* Of equal ones the first. */
static void mark_lowest(Arena *a, const float *v, int64_t n, int64_t k, bool *gone) {
  int64_t less;
  if (k <= 0) return;
  const uint32_t edge = kth_lowest(a, v, n, k, &less);
  int64_t equal = k - less;
  for (int64_t i = 0; i < n; i++) {
    const uint32_t u = bits_of(v[i]);
    gone[i] = u < edge || (u == edge && equal-- > 0);
  }
}

/* ---- a part of all ---- */
/* By the mean of their own weights, so that layers compare, and by the root of what each costs. */
static void fill_scores(const PruneWeight *p, bool by_work, float *out) {
  double mean = 0, cost = by_work ? p->work / (double)p->w->count : 1;
  int64_t n = 0;
  for (int64_t i = 0; i < p->w->count; i++) {
    const double v = importance(p, i);
    if (isfinite(v)) mean += v, n++;
  }
  mean = mean > 0 ? mean / (double)n : 1;
  if (!(cost > 0)) cost = 1;
  for (int64_t i = 0; i < p->w->count; i++) out[i] = (float)(importance(p, i) / mean / sqrt(cost));
}

/* The largest of each weight stay. */
static void keep_some(Arena *a, float *v, int64_t n, double share) {
  static const double floor_part = 0.25; /* of the share that stays on the whole */
  bool *may_go = ARENA_ARRAY(a, bool, n + 1);
  const int64_t least = (int64_t)ceil(floor_part * (1 - share) * (double)n);
  mark_lowest(a, v, n, n - least, may_go);
  for (int64_t i = 0; i < n; i++)
    if (!may_go[i]) v[i] = INFINITY;
}

void prune_mark_lowest(Arena *a, PruneWeights *l, double share, bool by_work) {
  int64_t n = 0, at = 0;
  for (int k = 0; k < l->n; k++) n += l->data[k].w->count;
  float *v = ARENA_ARRAY(a, float, n + 1);
  bool *gone = ARENA_ARRAY(a, bool, n + 1);
  for (int k = 0; k < l->n; at += l->data[k++].w->count) {
    fill_scores(&l->data[k], by_work, v + at);
    keep_some(a, v + at, l->data[k].w->count, share);
  }
  mark_lowest(a, v, n, (int64_t)llround(share * (double)n), gone);
  at = 0;
  for (int k = 0; k < l->n; at += l->data[k++].w->count)
    memcpy(l->data[k].gone, gone + at, (size_t)l->data[k].w->count * sizeof *gone);
}

/* ---- N of M ---- */
/* Of `of` elements, `step` apart; of equal ones the first stay. */
static void mark_group(PruneWeight *p, int64_t first, int64_t step, int64_t keep, int64_t of) {
  for (int64_t i = 0; i < of; i++) {
    const double v = importance(p, first + i * step);
    int64_t before = 0;
    for (int64_t j = 0; j < of; j++) {
      const double u = importance(p, first + j * step);
      before += u > v || (u == v && j < i);
    }
    p->gone[first + i * step] = before >= keep;
  }
}

bool prune_takes_pattern(const PruneWeight *p, int64_t of) {
  return p->dim >= 0 && p->w->dims[p->dim] % of == 0;
}

void prune_mark_pattern(PruneWeights *l, int64_t keep, int64_t of) {
  for (int k = 0; k < l->n; k++) {
    PruneWeight *p = &l->data[k];
    int64_t inner = 1;
    if (!prune_takes_pattern(p, of)) continue;
    for (int d = p->dim + 1; d < p->w->rank; d++) inner *= p->w->dims[d];
    for (int64_t at = 0; at < p->w->count; at += of * inner)
      for (int64_t i = 0; i < inner; i++) mark_group(p, at + i, inner, keep, of);
  }
}

/* ---- the graph with them ---- */
static Value *masked(Model *m, const PruneWeight *p) {
  const ConstData *w = p->w;
  const size_t size = (size_t)dtype_bytes(w->dtype);
  char *data = arena_dup(m->arena, w->data, (size_t)w->count * size);
  for (int64_t i = 0; i < w->count; i++)
    if (p->gone[i]) memset(data + (size_t)i * size, 0, size);
  return value_const(m, const_new(m, w->name, w->dtype, w->rank, w->dims, data));
}

bool prune_mask(PruneRelation *r, const PruneWeights *l) {
  for (int k = 0; k < l->n; k++) {
    Value *v = masked(r->m, &l->data[k]);
    for (int i = 0; i < r->n_nodes; i++)
      for (int j = 0; j < r->nodes[i]->n_in; j++)
        if (r->nodes[i]->in[j] && r->nodes[i]->in[j]->cdata == l->data[k].w) r->nodes[i]->in[j] = v;
  }
  graph_forget_contents(r->m->main);
  return graph_infer(r->m->main);
}
