/* Weights that stay take over what those that go did, as far as samples allow. In the order of the graph
 * each product's weights are fitted by least squares to what the uncut graph computes there, from what the
 * product reads behind all cuts in front of it, so that errors do not add up (He et al., Channel Pruning,
 * 2017, section 3.3). Of few places, and of products that are no plain sums, channels are fitted instead: each
 * of the uncut graph as a sum of those that stay, by which its weights go to theirs; the same for all taps of
 * a window, these factors are fewer. No labels are needed. */
#include <string.h>
#include "ir/ops/nn/contraction.h"
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
 * one of them goes, or nothing does. */
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
  return f->each > 0 && f->n_gone > 0;
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

/* Convolutions and products with matrices, whose weights stand for one element of what is read each. */
static bool find_window(const PruneRelation *r, const PruneProduct *p, PruneFit *f) {
  const Node *n = r->nodes[p->node];
  const int last = n->in[0]->rank - 1;
  ConvInfo conv;
  MatMulInfo matrices;
  PruneWindow *w = &f->window;
  *w = (PruneWindow){.taps = 1};
  if (f->slot != prune_slot(r, p->node, 0) || p->slot != prune_slot(r, p->node, 1)) return false;
  f->result_dim = 1;
  if (conv_info(n, &conv)) {
    w->spatial = conv.spatial;
    for (int d = 0; d < conv.spatial; d++) {
      w->kernel[d] = conv.kernel[d], w->stride[d] = conv.stride[d];
      w->dilation[d] = conv.dilation[d], w->pad[d] = conv.pad_lo[d];
      w->taps *= (int)conv.kernel[d];
    }
    return !conv.transposed && conv.group == 1 && f->dim == 1 && p->dim == 1;
  }
  f->result_dim = last;
  return matmul_info(n, &matrices) && last > 0 && n->in[1]->rank == 2 && !matrices.trans_a &&
         matrices.alpha == 1 && matrices.beta == 1 && f->dim == last;
}

/* A constant that is added to each channel of the results; -1: none. */
static int find_bias(const Node *n, int64_t channels) {
  const Value *v = n->n_in > 2 ? n->in[2] : NULL;
  const bool fits = v && v->cdata && v->cdata->count == channels &&
                    (v->rank == 0 || v->cdata->dims[v->rank - 1] == channels);
  return fits ? 2 : -1;
}

static bool find_results(PruneRelation *r, const PruneProduct *p, const bool *gone, PruneFit *f) {
  const Node *n = r->nodes[p->node];
  int64_t all;
  f->result = prune_result_slot(r, p->node, 0);
  if (f->result < 0 || !expr_is_const(n->out[0]->dims[f->result_dim], &all)) return false;
  f->result_at = ARENA_ARRAY(r->a, int64_t, all + 1);
  for (int64_t i = 0; i < all; i++) {
    const int32_t atom = prune_atom(r, f->result, f->result_dim, i);
    if (atom < 0 || !gone[prune_root(r, atom)]) f->result_at[f->n_results++] = i;
  }
  f->bias = find_bias(n, all);
  const bool adds_else = n->n_in > 2 && n->in[2] && f->bias < 0;
  return f->n_results > 0 && !adds_else && dtype_is_float(n->out[0]->dtype);
}

static bool find_fit(PruneRelation *r, int product, const bool *gone, PruneFit *f, Channels *list) {
  const PruneProduct *p = &r->products.data[product];
  const Value *w = r->slots.data[p->slot].value;
  *f = (PruneFit){.product = product, .bias = -1};
  if (p->recurrent || !w->cdata || !dtype_is_float(w->dtype) ||
      !find_data(r, p, gone, &f->slot, &f->dim) ||
      !dtype_is_float(r->slots.data[f->slot].value->dtype))
    return false;
  int *by_root = ARENA_ARRAY(r->a, int, r->n_atoms + 1);
  for (int32_t i = 0; i < r->n_atoms; i++) by_root[i] = -1;
  count_channels(r, (int[]){f->slot, p->slot}, (int[]){f->dim, p->dim}, list, by_root);
  if (!order_channels(r, list, gone, f)) return false;
  f->data_at = places(r, list, f, f->slot, f->dim);
  f->weight_at = places(r, list, f, p->slot, p->dim);
  return true;
}

/* Results can be fitted where they are sums over these channels alone. */
static void find_whole(PruneRelation *r, const bool *gone, PruneFit *f) {
  enum { MOST = 1152 }; /* features: the equations are solved in their third power */
  const PruneProduct *p = &r->products.data[f->product];
  f->can_be_whole = (f->n_stay + f->n_gone) * f->each == prune_size(r, f->slot, f->dim) &&
                    find_window(r, p, f) && find_results(r, p, gone, f) &&
                    f->n_stay * f->each * f->window.taps < MOST;
}

/* Channels from, from + step, … of `n`. */
static void take_every(Arena *a, const PruneFit *f, int first, int n, int from, int step,
                       PruneFit *out) {
  for (int k = from; k < n; k += step) {
    const int64_t at = (int64_t)(first + k) * f->each,
                  to = (int64_t)(out->n_stay + out->n_gone) * f->each;
    memcpy(out->data_at + to, f->data_at + at, sizeof *f->data_at * (size_t)f->each);
    memcpy(out->weight_at + to, f->weight_at + at, sizeof *f->weight_at * (size_t)f->each);
    if (f->units) out->units[out->n_stay + out->n_gone] = f->units[first + k];
    *(first ? &out->n_gone : &out->n_stay) += 1;
  }
}

/* Of too many channels only some are held against each other. */
static void add_slices(Arena *a, const PruneFit *f, PruneFits *out) {
  enum { MOST = 1024 };
  const int n = f->can_be_whole ? 1 : (f->n_stay + MOST - 1) / MOST;
  const int64_t all = ((int64_t)f->n_stay + f->n_gone) * f->each;
  for (int k = 0; k < n; k++) {
    PruneFit s = *f;
    s.n_stay = s.n_gone = 0;
    s.data_at = ARENA_ARRAY(a, int64_t, all);
    s.weight_at = ARENA_ARRAY(a, int64_t, all);
    s.units = f->units ? ARENA_ARRAY(a, int, f->n_stay + f->n_gone) : NULL;
    take_every(a, f, 0, f->n_stay, k, n, &s);
    take_every(a, f, f->n_stay, f->n_gone, k, n, &s);
    vec_push(a, out, s);
  }
}

void prune_find_fits(PruneRelation *r, PruneFits *out) {
  const bool *gone = gone_roots(r);
  for (int i = 0; i < r->n_nodes; i++)
    for (int k = 0; k < r->products.n; k++) {
      PruneFit f;
      Channels list = {0};
      if (r->products.data[k].node != i || !find_fit(r, k, gone, &f, &list) || f.n_stay == 0)
        continue;
      find_whole(r, gone, &f);
      add_slices(r->a, &f, out);
    }
}

void prune_find_readings(PruneRelation *r, PruneFits *out) {
  int *unit_of = ARENA_ARRAY(r->a, int, r->n_atoms + 1);
  bool *any = ARENA_ARRAY(r->a, bool, r->n_atoms + 1),
       *none = ARENA_ARRAY(r->a, bool, r->n_atoms + 1);
  for (int32_t i = 0; i < r->n_atoms; i++) unit_of[i] = -1;
  for (int k = 0; k < r->units.n; k++) {
    if (r->units.data[k].group >= 0) unit_of[r->units.data[k].root] = k;
    any[r->units.data[k].root] = true;
  }
  for (int k = 0; k < r->products.n; k++) {
    PruneFit f;
    Channels list = {0};
    if (!find_fit(r, k, any, &f, &list)) continue;
    f.n_stay = list.n, f.n_gone = 0;
    find_whole(r, none, &f);
    f.units = ARENA_ARRAY(r->a, int, list.n);
    for (int c = 0; c < list.n; c++) f.units[c] = unit_of[list.data[c].root];
    add_slices(r->a, &f, out);
  }
}

void prune_fit_reaches(const PruneRelation *r, const PruneFits *fits, int from, bool *reads) {
  bool *reached = ARENA_ARRAY(r->a, bool, r->m->next_value + 1), any = false;
  for (int i = 0, at = from; i < r->n_nodes; i++) {
    const Node *n = r->nodes[i];
    bool here = any && n->op->body == OB_REGION; /* it reads what it likes */
    for (int k = 0; k < n->n_in; k++) here |= n->in[k] && reached[n->in[k]->id];
    const int first = at;
    for (; at < fits->n && r->products.data[fits->data[at].product].node == i; at++)
      reads[at] = here;
    here |= at > first;
    any |= here;
    for (int k = 0; k < n->n_out && here; k++)
      if (n->out[k]) reached[n->out[k]->id] = true;
  }
}

/* ---- weights ---- */
typedef struct Sides { /* elements of weights around the dimension that is added up */
  int64_t outer, inner;
} Sides;

static Sides sides_of(const ConstData *w, int dim) {
  Sides s = {1, 1};
  for (int d = 0; d < w->rank; d++) *(d < dim ? &s.outer : &s.inner) *= d == dim ? 1 : w->dims[d];
  return s;
}

int64_t prune_fit_weight(const PruneFit *f, const ConstData *w, int dim, int64_t feature,
                         int64_t result) {
  const Sides s = sides_of(w, dim);
  const int64_t tap = feature % f->window.taps, at = feature / f->window.taps;
  return dim == 0 ? f->weight_at[at] * s.inner + result
                  : (result * w->dims[dim] + f->weight_at[at]) * s.inner + tap;
}

int64_t prune_fit_weights(const PruneFit *f, const ConstData *w, int dim) {
  return w->count / w->dims[dim] * f->each;
}

void prune_fit_channel(const PruneFit *f, const ConstData *w, int dim, int channel, int64_t *at) {
  const Sides s = sides_of(w, dim);
  for (int64_t o = 0; o < s.outer; o++)
    for (int64_t e = 0; e < f->each; e++)
      for (int64_t i = 0; i < s.inner; i++)
        *at++ = (o * w->dims[dim] + f->weight_at[channel * f->each + e]) * s.inner + i;
}

/* data, of w's type: the channels that stay get what was fitted. */
static void set_weights(Arena *a, const PruneFit *f, const ConstData *w, int dim, char *data) {
  const int64_t n = prune_fit_weights(f, w, dim);
  int64_t *at = ARENA_ARRAY(a, int64_t, n);
  for (int k = 0; k < f->n_stay; k++) {
    prune_fit_channel(f, w, dim, k, at);
    for (int64_t i = 0; i < n; i++)
      dtype_store_f(w->dtype, data + at[i] * dtype_bytes(w->dtype), f->weights[k * n + i]);
  }
}

static void set_bias(const PruneFit *f, const ConstData *w, char *data) {
  for (int64_t t = 0; t < f->n_targets; t++)
    dtype_store_f(w->dtype, data + f->result_at[t] * dtype_bytes(w->dtype), f->biases[t]);
}

/* A copy of the constant that the node reads there, which takes its place. */
static char *own_data(PruneRelation *r, int node, int input) {
  Node *n = r->nodes[node];
  const int slot = prune_slot(r, node, input);
  const ConstData *w = n->in[input]->cdata;
  const Value *old = n->in[input];
  char *data = arena_dup(r->m->arena, w->data, (size_t)w->count * (size_t)dtype_bytes(w->dtype));
  Value *v = value_const(r->m, const_new(r->m, w->name, w->dtype, w->rank, w->dims, data));
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] == old && prune_slot(r, node, k) == slot) n->in[k] = v;
  if (slot >= 0) r->slots.data[slot].value = v;
  return data;
}

static int input_of(const PruneRelation *r, const PruneProduct *p) {
  int k = 0;
  while (prune_slot(r, p->node, k) != p->slot) k++;
  return k;
}

void prune_rebuild(PruneRelation *r, const PruneFits *fits) {
  for (int q = 0; q < fits->n; q++) {
    const PruneFit *f = &fits->data[q];
    const PruneProduct *p = &r->products.data[f->product];
    const ConstData *w = r->slots.data[p->slot].value->cdata;
    char *data = own_data(r, p->node, input_of(r, p));
    set_weights(r->a, f, w, p->dim, data);
    if (!f->biases) continue;
    w = r->nodes[p->node]->in[f->bias]->cdata;
    set_bias(f, w, own_data(r, p->node, f->bias));
  }
}
