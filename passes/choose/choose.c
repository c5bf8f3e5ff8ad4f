/* Chooses how each contraction is computed, once, and keeps the plan on its node: the algorithm of a
 * convolution, the blocks of a Winograd form, the border that is read. Layout and lowering read it. A
 * plan that was read from a text is obeyed, or refused where the node cannot be computed so.
 *
 * Register tiles are chosen behind layout (form/choose_tiles.c), unless the plan
 * has one. */
#include "passes/choose/choose.h"

#include "passes/choose/contract_tile.h"
#include "passes/choose/contraction.h"
#include "passes/choose/conv_plan.h"
#include "passes/choose/strips.h"

/* ---- choosing ---- */

/* The cells around the input that the kernels of a plan read. */
static void halo_of(const PassCtx *c, const Node *n, const ConvInfo *conv, Plan *p) {
  p->spatial = conv->spatial;
  for (int s = 0; s < conv->spatial; s++) p->halo_lo[s] = p->halo_hi[s] = 0;
  if (p->algorithm == ALG_SPARSE) return; /* the border is conditions */
  for (int s = 0; s < conv->spatial; s++) {
    int64_t *lo = &p->halo_lo[s], *hi = &p->halo_hi[s];
    if (p->algorithm == ALG_WINOGRAD)
      winograd_reach(n, conv, p->winograd, s, lo, hi);
    else
      conv_reach(c->model, n, conv, s, lo, hi);
    if (p->skips) conv_seen_border(conv, s, lo, hi);
  }
}

static void choose_conv(const PassCtx *c, const Node *n, const ConvInfo *conv, Plan *p) {
  p->key = winograd_key(c, n, conv);
  p->winograd = winograd_size(c, n, conv);
  if (conv_is_depthwise(conv)) {
    p->algorithm = ALG_DEPTHWISE;
  } else if (p->winograd) {
    p->algorithm = ALG_WINOGRAD;
    const WinogradBlock block = winograd_block(c, n, conv, p->winograd);
    p->block = (int)block.lines;
    p->planes = (int)block.planes;
  } else {
    p->lanes = thin_lanes(c, n, conv);
    p->skips = conv_skips_taps(conv) && !(p->lanes & LANES_PIXELS);
    if (p->skips) p->lanes = 0;
    if (p->lanes) p->algorithm = ALG_THIN;
  }
}

/* Zeros among the weights may make something else the fastest. */
static void choose_sparse(const PassCtx *c, const Node *n, const ConvInfo *conv, Plan *p) {
  if (!sparse_asks(c, n) || !sparse_pays(c, n, plan_cycles(c, n, p), p)) return;
  *p = (Plan){.algorithm = ALG_SPARSE,
              .lanes = conv ? LANES_PIXELS : 0,
              .key = p->key,
              .sparse_key = p->sparse_key};
}

static const Plan *choose_plan(const PassCtx *c, const Node *n) {
  ConvInfo conv;
  Attention at;
  Plan p = {.algorithm = ALG_TILED, .steady = c->steady_sums};
  const bool image = conv_info(n, &conv);
  if (image)
    choose_conv(c, n, &conv, &p);
  else if (attention_of(n, &at))
    p.algorithm = ALG_ATTENTION;
  choose_sparse(c, n, image ? &conv : NULL, &p);
  if (image) halo_of(c, n, &conv, &p);
  if (image) tell_conv(c, n, &conv, &p);
  if (p.algorithm == ALG_ATTENTION) tell_attention(c, n);
  return arena_dup(c->model->arena, &p, sizeof p);
}

/* ---- plans of texts ---- */

static const char *winograd_problem(const Node *n, const ConvInfo *conv, const Plan *p) {
  int64_t h = 0, depth;
  if (!winograd_computes(n, conv, p->winograd)) return "no Winograd form computes this convolution";
  if (winograd_counts_tiles(n, conv)) return p->planes ? "planes are of three dimensions" : NULL;
  expr_is_const(n->out[0]->dims[conv->spatial], &h);
  const int64_t lines = (h + p->winograd - 1) / p->winograd;
  if (conv->spatial == 3)
    return p->block < 1 || p->planes < 1 || lines % p->block ||
                   !expr_is_const(n->out[0]->dims[2], &depth) || depth % p->planes
               ? "blocks must divide the rows of tiles and the planes"
               : NULL;
  if (p->planes) return "planes are of three dimensions";
  return p->block && (p->block >= lines || lines % p->block)
             ? "blocks must divide the rows of tiles"
             : NULL;
}

/* Cells that are stored but not needed cost memory only. */
static const char *halo_problem(const PassCtx *c, const Node *n, const ConvInfo *conv,
                                const Plan *p) {
  enum { MOST = 64 };
  Plan needed = {.algorithm = p->algorithm, .winograd = p->winograd, .skips = p->skips};
  halo_of(c, n, conv, &needed);
  if (p->spatial != needed.spatial) return "the halo has another number of dimensions";
  for (int s = 0; s < p->spatial; s++) {
    const int64_t lo = p->halo_lo[s] - needed.halo_lo[s], hi = p->halo_hi[s] - needed.halo_hi[s];
    if (lo < 0 || hi < 0) return "the halo is smaller than what is read";
    if (lo > MOST || hi > MOST) return "the halo is far larger than what is read";
  }
  return NULL;
}

static const char *conv_problem(const PassCtx *c, const Node *n, const ConvInfo *conv,
                                const Plan *p) {
  const char *wrong = p->algorithm == ALG_WINOGRAD ? winograd_problem(n, conv, p) : NULL;
  if (wrong) return wrong;
  if (p->algorithm == ALG_ATTENTION) return "a convolution is no attention";
  if (p->algorithm == ALG_SPARSE) return NULL;
  if (conv_is_depthwise(conv) != (p->algorithm == ALG_DEPTHWISE))
    return "the depthwise form is for depthwise convolutions, and the only one for these";
  if (p->lanes && !thin_fits(c, n, conv, p->lanes))
    return "such lanes cannot compute this convolution";
  if (p->skips && !conv_skips_taps(conv)) return "this convolution has no taps to skip";
  return halo_problem(c, n, conv, p);
}

static const char *sparse_problem(const Node *n) {
  SparseWeights s;
  return sparse_weights(n, &s) ? NULL : "no sparse kernel computes this node";
}

static const char *plan_problem(const PassCtx *c, const Node *n) {
  ConvInfo conv;
  Attention at;
  const Plan *p = n->plan;
  if (p->algorithm == ALG_MAXPOOL)
    return strip_node(n->out[0]) == n ? NULL : "this node is no MaxPool";
  if (!node_is_contraction(n)) return "no template computes this node";
  if (p->algorithm == ALG_SPARSE && sparse_problem(n)) return sparse_problem(n);
  if (conv_info(n, &conv)) return conv_problem(c, n, &conv, p);
  if (p->algorithm == ALG_SPARSE) return NULL;
  if (p->spatial || p->algorithm != (attention_of(n, &at) ? ALG_ATTENTION : ALG_TILED))
    return "another algorithm computes this node";
  return NULL;
}

static bool check_plan(const PassCtx *c, const Node *n) {
  const char *wrong = plan_problem(c, n);
  return !wrong ||
         diag_error(c->model->diag, n->loc, ERR_VALUE, "plan %s: %s", plan_name(n->plan), wrong);
}

/* ---- the pass ---- */

static bool choose_graph(PassCtx *c, Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && !choose_graph(c, n->attrs[k].graph)) return false;
    n->mark = n->plan ? STRIP_GIVEN : 0;
    if (n->plan && !check_plan(c, n)) return false;
    if (n->plan || !node_is_contraction(n)) continue;
    n->plan = choose_plan(c, n);
    c->changed = true;
  }
  return true;
}

static bool graph_fits(const PassCtx *c, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && !graph_fits(c, n->attrs[k].graph)) return false;
    if (n->plan ? plan_problem(c, n) != NULL : node_is_contraction(n)) return false;
  }
  return true;
}

bool plans_fit(const PassCtx *c) { return graph_fits(c, c->model->main); }

bool choose_plans(PassCtx *c) { return choose_graph(c, c->model->main) && choose_strips(c); }

bool pass_choose(PassCtx *c) { return target_has_grids(c->target) || choose_plans(c); }
