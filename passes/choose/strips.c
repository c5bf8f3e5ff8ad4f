/* Finds and plans chains of convolutions over strips (strips.h). What such a kernel computes, and does not
 * store, is the input of one convolution only. */
#include "passes/choose/strips.h"

#include "passes/choose/contraction.h"

/* ---- stages ---- */

static double weight_bytes(const ConvInfo *conv, DType type) {
  return (double)dtype_bytes(type) * (double)conv->c_out * (double)(conv->c_in / conv->group) *
         (double)conv->kernel[0] * (double)conv->kernel[1];
}

/* A MaxPool of float32 over two dimensions. Its window's reach is known from pads or from sizes. */
static bool pool_of(const PassCtx *c, const Value *root, StripStage *s) {
  const Node *n = root->def;
  PoolInfo pi;
  int64_t channels, size;
  if (!n || root != n->out[0] || root->rank != 4 || root->dtype != DT_F32 || !pool_info(n, &pi) ||
      pi.kind != POOL_MAX || pi.spatial != 2 || (n->n_out > 1 && n->out[1]) ||
      !expr_is_const(root->dims[1], &channels) || channels < 2)
    return false;
  if (pi.ceil_mode && !(expr_is_const(root->dims[2], &size) && expr_is_const(root->dims[3], &size)))
    return false;
  *s = (StripStage){.root = root, .anchor = root, .max = true};
  s->conv = (ConvInfo){.spatial = 2, .group = channels, .c_in = channels, .c_out = channels};
  for (int d = 0; d < 2; d++) {
    s->conv.kernel[d] = pi.kernel[d];
    s->conv.stride[d] = pi.stride[d];
    s->conv.dilation[d] = pi.dilation[d];
    s->conv.pad_lo[d] = pi.pad_lo[d];
    s->conv.pad_hi[d] = pi.pad_hi[d];
  }
  s->step = 1;
  s->work = strip_work(c, s);
  return true;
}

/* Constant weights, in f32 or in bytes that sums do not gather across vectors. */
static bool types_fit(const Node *n) {
  const ContractTypes *t = node_contract_types(n);
  return conv_beyond_tiles(n) ||
         (n->in[1]->cdata && t && t->acc == DT_I32 && t->k_step > 1 && !t->across);
}

static bool stage_of(const PassCtx *c, const Value *root, StripStage *s) {
  const Value *anchor = kernel_anchor(root);
  if (!anchor) return pool_of(c, root, s);
  *s = (StripStage){.root = root, .anchor = anchor};
  if (root->rank != 4 || !conv_info(anchor->def, &s->conv)) return false;
  const ConvInfo *conv = &s->conv;
  const Plan *const plan = anchor->def->plan;
  if (!types_fit(anchor->def) || conv->transposed || conv->spatial != 2) return false;
  if (conv->group > 1 ? plan->algorithm != ALG_DEPTHWISE
                      : conv->c_out * 4 <= target_lanes(c->target, 32)) /* kernels/thin.c */
    return false;
  if (plan->algorithm == ALG_WINOGRAD || plan->algorithm == ALG_SPARSE || plan->skips) return false;
  if (plan->algorithm == ALG_THIN && (anchor->def->mark & STRIP_GIVEN)) return false;
  const bool bytes = !conv_beyond_tiles(anchor->def);
  s->step = bytes ? node_contract_types(anchor->def)->k_step : 1;
  s->work = strip_work(c, s);
  s->weights = weight_bytes(conv, bytes ? DT_I8 : DT_F32);
  return true;
}

/* ---- rows ---- */

void strip_set_rows(StripChain *c, int from, int to) {
  StripStage *s = c->stage;
  s[to].m = 1;
  s[to].lo = 0;
  s[to].hi = 1;
  for (int i = to - 1; i >= from; i--) {
    const ConvInfo *conv = &s[i + 1].conv;
    s[i].m = s[i + 1].m * conv->stride[0];
    s[i].lo = s[i + 1].lo * conv->stride[0] - conv->pad_lo[0];
    s[i].hi = (s[i + 1].hi - 1) * conv->stride[0] - conv->pad_lo[0] +
              (conv->kernel[0] - 1) * conv->dilation[0] + 1;
  }
}

int64_t strip_ring_rows(const StripStage *s, int64_t rows) {
  return s->m * (rows - 1) + s->hi - s->lo;
}

DType strip_ring_type(const StripStage *s) {
  return value_is_byte(s->root) ? (DType)s->root->dtype : DT_F32;
}

int64_t strip_pixel_stride(const StripStage *s) {
  const int size = dtype_bytes(strip_ring_type(s));
  return s->conv.c_out + (s->conv.c_out * size % 2048 ? 0 : 64 / size);
}

/* ---- by plan ---- */

const Node *strip_node(const Value *root) {
  const Value *const anchor = kernel_anchor(root);
  PoolInfo pi;
  if (anchor) return anchor->def;
  const Node *const n = root->def;
  return n && pool_info(n, &pi) && pi.kind == POOL_MAX ? n : NULL;
}

bool strip_chain(const PassCtx *c, const Value *root, StripChain *chain) {
  const Node *const n = strip_node(root);
  if (!n || !n->plan || !n->plan->chain) return false;
  *chain = (StripChain){c, .n = n->plan->chain, .rows = n->plan->rows, .parts = n->plan->parts};
  for (int i = chain->n - 1; i >= 0; i--) {
    if (!stage_of(c, root, &chain->stage[i])) return false;
    root = chain->stage[i].anchor->def->in[0];
  }
  strip_set_rows(chain, 0, chain->n - 1);
  return true;
}

/* ---- choosing ---- */

typedef struct Finder {
  PassCtx *c;
  const Uses *uses;
  bool *kept; /* by value id: sizes are read from it */
} Finder;

/* A ring holds f32: x itself, or exactly what x is rounded to, where products take elements one by one;
 * or bytes, whose groups are whole. */
static bool fits_ring(const Value *x, const Node *reader) {
  const ContractTypes *t = node_contract_types(reader);
  ConvInfo conv;
  if (!value_is_byte(x))
    return x->dtype == DT_F32 || (x->dtype == DT_F16 && t && t->acc == DT_F32 && t->k_step == 1);
  return conv_info(reader, &conv) && types_fit(reader) &&
         (conv.group > 1 || conv.c_in % t->k_step == 0);
}

/* Nobody but the convolution `reader` reads x. */
static bool only_reader(const Finder *f, const Value *x, const Node *reader) {
  return !x->inlined && !x->cdata && x->def && x->def->graph == reader->graph &&
         fits_ring(x, reader) && f->uses->of[x->id].n == 1 && !f->uses->outputs[x->id] &&
         !f->kept[x->id];
}

/* The longest chain that ends in root, of convolutions whose plan is not given. */
static void find_chain(const Finder *f, const Value *root, StripChain *chain) {
  StripStage found[MAX_STAGES];
  int n = 0;
  for (const Value *v = root; n < MAX_STAGES && stage_of(f->c, v, &found[n]);) {
    const Node *reader = found[n].anchor->def;
    if (reader->mark) break;
    n++;
    v = reader->in[0];
    if (!only_reader(f, v, reader)) break;
  }
  while (n && found[n - 1].max) n--; /* it reads lowest values, no zeros, beyond the border */
  chain->n = n;
  for (int i = 0; i < n; i++) chain->stage[i] = found[n - 1 - i];
}

/* Tiles or the depthwise form, a line at a time, are what its convolutions use. */
static void plan_stage(const Finder *f, StripStage *s, const Plan *last) {
  Node *const n = s->anchor->def;
  n->mark |= STRIP_COVERED;
  Plan p = n->plan ? *n->plan : (Plan){.algorithm = ALG_MAXPOOL};
  if (p.algorithm == ALG_THIN) p.algorithm = ALG_TILED;
  p.lanes = 0;
  p.chained = !last;
  if (last) {
    p.chain = last->chain;
    p.rows = last->rows;
    p.parts = last->parts;
  }
  n->plan = arena_dup(f->c->model->arena, &p, sizeof p);
}

static void choose_chain(const Finder *f, const Value *root) {
  StripChain chain = {.c = f->c};
  if (f->c->strips == STRIPS_NONE) return;
  find_chain(f, root, &chain);
  if (chain.n < 2) return;
  const bool pays = strip_cut(&chain);
  strip_tell(&chain, pays ? chain.rows : 0);
  if (!pays) return;
  const Plan last = {.chain = chain.n, .rows = chain.rows, .parts = (int)chain.parts};
  for (int i = 0; i < chain.n; i++) plan_stage(f, &chain.stage[i], i + 1 == chain.n ? &last : NULL);
  f->c->changed = true;
}

/* ---- chains of texts ---- */

/* Why stage s, which is not the last, cannot be in the chain. */
static const char *stage_problem(const Finder *f, const StripStage *s, const Node *reader) {
  const Node *const n = s->anchor->def;
  if (!only_reader(f, s->root, reader))
    return "what lies between its convolutions is read elsewhere";
  if (n->plan && (n->mark & STRIP_GIVEN) && !n->plan->chained)
    return "a convolution before it is planned on its own";
  return NULL;
}

/* Why no stage makes root. */
static const char *no_stage(const Value *root) {
  const Node *const n = root->def ? strip_node(root) : NULL;
  const bool planned = n && n->plan && (n->mark & STRIP_GIVEN);
  return planned && n->plan->algorithm != ALG_TILED && n->plan->algorithm != ALG_DEPTHWISE
             ? "another algorithm is planned for a convolution before it"
             : "there are not as many convolutions for strips";
}

static const char *chain_problem(const Finder *f, const Value *root, const Plan *last) {
  StripStage s;
  const Node *reader = NULL;
  for (int i = last->chain; i > 0; i--) {
    if (!root->def || !stage_of(f->c, root, &s)) return no_stage(root);
    const char *const wrong = reader ? stage_problem(f, &s, reader) : NULL;
    if (wrong) return wrong;
    if (i == 1 && s.max) return "a chain begins with a convolution";
    reader = s.anchor->def;
    root = reader->in[0];
  }
  return NULL;
}

static bool refuse(const Finder *f, const Node *n, const char *why) {
  return diag_error(f->c->model->diag, n->loc, ERR_VALUE, "plan %s%s: %s", plan_name(n->plan),
                    n->plan->chain ? " chain" : " chained", why);
}

/* Takes the convolutions before `root`, whose plan has a chain, into that. */
static bool take_chain(const Finder *f, const Value *root, const Node *n) {
  const Plan last = *n->plan;
  const char *const wrong = chain_problem(f, root, &last);
  if (wrong) return refuse(f, n, wrong);
  for (int i = last.chain; i > 0; i--) {
    StripStage s;
    if (!stage_of(f->c, root, &s)) return false;
    root = s.anchor->def->in[0];
    plan_stage(f, &s, i == last.chain ? &last : NULL);
  }
  return true;
}

/* ---- the graph ---- */

static void mark_kept(const Finder *f, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_syms; k++)
      if (n->syms[k].src) f->kept[n->syms[k].src->id] = true;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) mark_kept(f, n->attrs[k].graph);
  }
}

/* Chains end in values that are stored, the last first: kernels are made in this order. */
static bool strips_of_graph(const Finder *f, const Graph *g) {
  for (int i = g->nodes.n - 1; i >= 0; i--) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && !strips_of_graph(f, n->attrs[k].graph)) return false;
    if ((n->op->body != OB_EW && n->op->body != OB_ELEM) || (n->op->flags & OF_PIECES)) continue;
    for (int k = 0; k < n->n_out; k++) {
      const Value *root = n->out[k];
      if (!root || root->inlined || root->cdata) continue;
      const Node *const last = strip_node(root);
      if (!last || (last->mark & STRIP_COVERED)) continue;
      if (!(last->mark & STRIP_GIVEN))
        choose_chain(f, root);
      else if (last->plan->chain && !take_chain(f, root, last))
        return false;
    }
  }
  return true;
}

/* No plan speaks of a chain that is not there. */
static bool all_covered(const Finder *f, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && !all_covered(f, n->attrs[k].graph)) return false;
    if (n->plan && (n->plan->chain || n->plan->chained) && !(n->mark & STRIP_COVERED))
      return refuse(f, n, n->plan->chain ? "no stored value is its last" : "no chain takes it");
  }
  return true;
}

bool choose_strips(PassCtx *c) {
  Finder f = {.c = c, .uses = graph_uses(c->model->main, c->scratch)};
  f.kept = ARENA_ARRAY(c->scratch, bool, c->model->next_value + 1);
  mark_kept(&f, c->model->main);
  return strips_of_graph(&f, c->model->main) && all_covered(&f, c->model->main);
}
