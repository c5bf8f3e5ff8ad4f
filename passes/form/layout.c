/* Chooses how stored values lie in memory: channels last for what convolutions write and what
 * follows them, with a halo of zeros where a convolution that pads will read. Row-major everywhere
 * else, and around convolutions whose lanes run over pixels (kernels/thin.c).
 *
 * needs fuse; every consumer addresses through strides, so a layout is never wrong, only slow. */
#include "passes/build/kernel.h"

#include <string.h>

typedef struct LayoutCtx {
  PassCtx *pass;
  Model *m;
  Arena *a;
  const Uses *uses;
  bool *output; /* by value id: graph outputs, or what they are views of */
  bool *dense;  /* by value id: seen from outside, must be row-major */
  bool changed;
} LayoutCtx;

static const int8_t *channels_last(Model *m, int rank) {
  int8_t *perm = arena_alloc(m->arena, (size_t)rank);
  perm[0] = 0;
  for (int d = 2; d < rank; d++) perm[d - 1] = (int8_t)d;
  perm[rank - 1] = 1;
  return perm;
}

static bool is_spatial_contraction(const Value *anchor) {
  ConvInfo conv;
  return anchor && conv_info(anchor->def, &conv);
}

/* Bytes whose channels become pixels: those of one pixel lie next to each other in both. */
static bool shuffles_bytes(const Node *n) {
  return strcmp(n->op->name, "DepthToSpace") == 0 && value_is_byte(n->in[0]);
}

/* Does the kernel of v mainly read channels-last values of the same form? Looks through inlined
 * values, as long as dimension 1 stays the channels (a Transpose makes it another; a Concat may
 * join channels). */
static void count_sources(const Value *v, int rank, int *last, int *other, int depth) {
  const Node *n = v->def;
  if (!n || depth > 12) return;
  for (int k = 0; k < n->n_in; k++) {
    const Value *u = n->in[k];
    if (!u || u->cdata || u->rank != rank) continue;
    if (u->dims[1] != v->dims[1] && !(n->op->flags & OF_PIECES) && !shuffles_bytes(n)) {
      ++*other;
      continue;
    }
    if (u->inlined)
      count_sources(u, rank, last, other, depth + 1);
    else if (u->layout.perm)
      ++*last;
    else
      ++*other;
  }
}

/* Lanes of this convolution run over pixels, if those of its input lie next to each other. */
static bool by_pixel(const Node *n) { return n->plan && (n->plan->lanes & LANES_PIXELS); }

/* Its input too: they lie so already, or are few enough to be copied. */
static bool writes_pixels(const LayoutCtx *c, const Node *n) {
  ConvInfo conv;
  if (!conv_info(n, &conv) || !by_pixel(n)) return false;
  return conv.c_in <= 4 || (!n->in[0]->inlined && !n->in[0]->layout.perm);
}

/* The data of a convolution with enough channels: its kernel reads runs of channels. */
static bool feeds_convolution(const LayoutCtx *c, const Value *v) {
  for (int i = 0; i < c->uses->of[v->id].n; i++) {
    const Node *n = c->uses->of[v->id].data[i];
    ConvInfo conv;
    if (n->n_in && n->in[0] == v && node_is_contraction(n) && conv_info(n, &conv) &&
        conv.c_in >= 8 && !by_pixel(n))
      return true;
  }
  return false;
}

static bool wants_channels_last(const LayoutCtx *c, const Value *v) {
  if (v->rank < 3 || v->rank > 5) return false;
  if (feeds_convolution(c, v)) return true;
  const Value *anchor = kernel_anchor(v);
  if (anchor) return is_spatial_contraction(anchor) && !writes_pixels(c, anchor->def);
  int last = 0, other = 0;
  count_sources(v, v->rank, &last, &other, 0);
  return last > other;
}

static void require_dense(LayoutCtx *c, const Value *v) {
  if (!v) return;
  c->dense[v->id] = true;
  c->dense[view_source(v)->id] = true;
}

static void mark_dense(LayoutCtx *c, Graph *g) {
  for (int i = 0; g->parent && i < g->outputs.n; i++) require_dense(c, g->outputs.data[i]);
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_syms; k++) require_dense(c, n->syms[k].src);
    if (n->op->body == OB_EXTERN || n->op->body == OB_REGION) {
      for (int k = 0; k < n->n_in && !node_is_scatter(n); k++) require_dense(c, n->in[k]);
      for (int k = 0; k < n->n_out; k++) require_dense(c, n->out[k]);
    }
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) mark_dense(c, n->attrs[k].graph);
  }
}

/* Graph outputs of convolutions are computed channels-last and transposed at the end (lower.c does
 * that). */
static void choose(LayoutCtx *c, Value *v) {
  if (v->inlined || v->cdata || v->kind != TY_TENSOR || c->dense[v->id]) return;
  if (!wants_channels_last(c, v)) return;
  v->layout.perm = channels_last(c->m, v->rank);
  c->changed = true;
}

static void add_halo(LayoutCtx *c, const Node *n) {
  ConvInfo conv;
  if (!node_is_contraction(n) || !conv_info(n, &conv)) return;
  Value *x = n->in[0];
  if (x->inlined || !x->def || x->cdata || c->dense[x->id]) return;
  if (!x->layout.perm && !by_pixel(n)) return;
  int16_t lo[MAX_RANK] = {0}, hi[MAX_RANK] = {0};
  bool any = false;
  for (int s = 0; s < conv.spatial; s++) {
    const int64_t l = n->plan->halo_lo[s], h = n->plan->halo_hi[s];
    if (l > 64 || h > 64) return;
    lo[2 + s] = (int16_t)l;
    hi[2 + s] = (int16_t)h;
    any = any || l || h;
  }
  if (!any || (x->layout.halo_lo && x->layout.fill != conv.pad_value)) return;
  for (int d = 0; d < x->rank && x->layout.halo_lo; d++) {
    if (x->layout.halo_lo[d] > lo[d]) lo[d] = x->layout.halo_lo[d];
    if (x->layout.halo_hi[d] > hi[d]) hi[d] = x->layout.halo_hi[d];
  }
  x->layout.fill = (int16_t)conv.pad_value;
  x->layout.halo_lo = arena_dup(c->m->arena, lo, sizeof lo);
  x->layout.halo_hi = arena_dup(c->m->arena, hi, sizeof hi);
}

/* Rows of a left operand that are a multiple of 2 KiB apart share few cache sets: a cache line
 * between them helps. */
static void add_pad(LayoutCtx *c, const Node *n) {
  if (!node_is_contraction(n) || !n->in[0]) return;
  Value *x = (Value *)view_source(n->in[0]);
  if (x->inlined || !x->def || x->cdata || x->rank < 2 || c->dense[x->id] || c->output[x->id])
    return;
  if (x->def->op->body != OB_EW && x->def->op->body != OB_ELEM) return;
  const int inner = x->layout.perm ? x->layout.perm[x->rank - 1] : x->rank - 1;
  int64_t size, bytes = dtype_bytes(x->dtype);
  if (expr_is_const(x->dims[inner], &size) && size > 0 && size * bytes % 2048 == 0)
    x->layout.pad = (int16_t)(64 / bytes);
}

static void layout_graph(LayoutCtx *c, Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) layout_graph(c, n->attrs[k].graph);
    if (n->op->body != OB_EW && n->op->body != OB_ELEM) continue;
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k]) choose(c, n->out[k]);
  }
  if (target_has_grids(c->pass->target))
    return; /* borders are guards, and threads share no cache set */
  for (int i = 0; i < g->nodes.n; i++) {
    add_halo(c, g->nodes.data[i]);
    add_pad(c, g->nodes.data[i]);
  }
}

bool pass_layout(PassCtx *c) {
  LayoutCtx x = {.pass = c, .m = c->model, .a = c->scratch};
  x.dense = ARENA_ARRAY(x.a, bool, c->model->next_value + 1);
  x.output = ARENA_ARRAY(x.a, bool, c->model->next_value + 1);
  x.uses = graph_uses(c->model->main, x.a);
  mark_dense(&x, c->model->main);
  for (int i = 0; i < c->model->main->outputs.n; i++)
    x.output[view_source(c->model->main->outputs.data[i])->id] = true;
  layout_graph(&x, c->model->main);
  c->changed = x.changed;
  return true;
}
