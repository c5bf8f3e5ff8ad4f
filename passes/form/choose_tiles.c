/* The second half of a contraction's plan, behind layout: register tiles, blocks of them, and whether
 * threads share the work (tiles/contract_loops.h). Tiles depend on whether rows follow each other in
 * memory, so this pass goes through the graph as lowering will, and expects each value where that will
 * put it. Where it errs, other tiles would have been better; none is wrong. What a text says of tiles is
 * obeyed, or refused where the node cannot be computed so. */
#include <string.h>

#include "passes/build/kernel.h"
#include "passes/choose/conv_plan.h"
#include "passes/choose/strips.h"
#include "passes/tiles/contract_loops.h"
#include "passes/tiles/own_loops.h"

typedef struct Tiler {
  PassCtx *c;
  ExprPool *p;
  Place *place;  /* by value id: where it is expected; stride NULL: not asked yet */
  bool *asked;   /* by value id: someone reads it */
  bool *outside; /* by value id: must lie dense */
  bool plain;    /* no large matrix registers */
} Tiler;

/* ---- places ---- */

static const Place *expect(Tiler *t, const Value *v) {
  Place *pl = &t->place[v->id];
  if (pl->stride) return pl;
  pl->stride = ARENA_ARRAY(t->c->scratch, const Expr *, v->rank + 1);
  strides_of(t->c->model, v, pl->stride, NULL, NULL);
  pl->dense = layout_is_row_major(v);
  pl->fill = v->layout.fill;
  for (int d = 0; d < v->rank && v->layout.halo_lo; d++) {
    pl->halo_lo[d] = v->layout.halo_lo[d];
    pl->halo_hi[d] = v->layout.halo_hi[d];
  }
  return pl;
}

static void ask(Tiler *t, const Value *v, ValueSet *seen) {
  if (!v || v->cdata) return;
  if (!v->inlined || !v->def) {
    t->asked[v->id] = t->asked[view_source(v)->id] = true;
    return;
  }
  if (!value_set_add(seen, v)) return;
  for (int i = 0; i < v->def->n_in; i++) ask(t, v->def->in[i], seen);
}

static void ask_inputs(Tiler *t, const Node *n) {
  ValueSet seen = {.a = t->c->scratch};
  for (int k = 0; k < n->n_in; k++) ask(t, n->in[k], &seen);
}

/* A kernel of its own will compute v, which nobody has asked for. */
static bool computed_later(const Tiler *t, const Node *n, const Value *v) {
  const Node *def = v->def;
  return def && !v->inlined && !v->cdata && !t->asked[v->id] && def->graph == n->graph &&
         (def->op->body == OB_EW || def->op->body == OB_ELEM) && !t->outside[v->id];
}

/* Pieces of a Concat are computed into their slices. */
static void expect_pieces(Tiler *t, const Node *n) {
  const Value *out = n->out[0];
  const Place *whole = expect(t, out);
  int64_t axis = node_int(n, "axis", 0);
  if (axis < 0) axis += out->rank;
  bool first = true; /* of the dimensions that are not 1: then a slice is contiguous */
  for (int d = 0; d < axis; d++) first = first && expr_is_i64(out->dims[d], 1);
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    ValueSet seen = {.a = t->c->scratch};
    if (v && computed_later(t, n, v)) {
      t->place[v->id] = *whole;
      t->place[v->id].dense = whole->dense && first;
      t->place[v->id].halo_lo[axis] = t->place[v->id].halo_hi[axis] = 0;
    } else if (v && v->inlined && whole->dense && first && view_source(v) != v &&
               computed_later(t, n, view_source(v))) {
      Place *pl = &t->place[view_source(v)->id];
      Value dense = *view_source(v);
      dense.layout = (Layout){0};
      *pl = (Place){.dense = true};
      pl->stride = ARENA_ARRAY(t->c->scratch, const Expr *, dense.rank + 1);
      strides_of(t->c->model, &dense, pl->stride, NULL, NULL);
    }
    ask(t, v, &seen);
  }
}

/* ---- tiles ---- */

static bool refuse(const Tiler *t, const Node *n, const char *why) {
  return diag_error(t->c->model->diag, n->loc, ERR_VALUE, "plan %s: %s", plan_name(n->plan), why);
}

static bool choose_loops(const Tiler *t, const Node *n, const ContractShape *s, PlanLoops *l) {
  const char *const wrong = l->rows ? contract_loops_problem(t->c, s, l) : NULL;
  if (wrong) return refuse(t, n, wrong);
  if (t->plain && !l->rows) *l = contract_choose_loops(t->c, s, *l, false);
  *l = contract_choose_loops(t->c, s, *l, plan_has_blocks(n->plan));
  return true;
}

/* Its input is a ring in the kernel of a chain. */
static bool reads_ring(const Node *n) {
  const Value *x = n->in[0];
  const Node *before = (n->plan->chain || n->plan->chained) && x->def ? strip_node(x) : NULL;
  return before && before->plan && before->plan->chained;
}

/* Strides of what a convolution reads, NULL: of an inlined input, by guards. */
static const Expr *const *input_strides(Tiler *t, const Node *n, const ConvInfo *conv) {
  const Place *own = n->in[0]->inlined ? NULL : expect(t, n->in[0]);
  if (conv_reads_in_place(t->c->target, n, conv, own)) return own ? own->stride : NULL;
  Value copy = *n->in[0];
  int8_t perm[MAX_RANK] = {0};
  int16_t lo[MAX_RANK] = {0}, hi[MAX_RANK] = {0};
  for (int d = 1; d < copy.rank; d++) perm[d] = (int8_t)(d == copy.rank - 1 ? 1 : d + 1);
  for (int s = 0; s < n->plan->spatial; s++) {
    lo[2 + s] = (int16_t)n->plan->halo_lo[s];
    hi[2 + s] = (int16_t)n->plan->halo_hi[s];
  }
  hi[1] = (int16_t)conv_channel_rest(t->c->target, n, conv);
  const bool keep = conv_copy_keeps_order(n, conv, own);
  copy.layout = (Layout){.perm = keep ? NULL : perm, .halo_lo = lo, .halo_hi = hi};
  const Expr **stride = ARENA_ARRAY(t->c->scratch, const Expr *, copy.rank + 1);
  strides_of(t->c->model, &copy, stride, NULL, NULL);
  return stride;
}

static bool phase_is_empty(const Axis *axes, const ConvInfo *conv) {
  for (int s = 0; s < conv->spatial; s++)
    if (expr_is_i64(axes[s].rows, 0)) return true;
  return false;
}

static bool conv_loops(Tiler *t, const Node *n, const ConvInfo *conv, const Value *root,
                       PlanLoops *loops, int count) {
  ConvInfo merged = *conv;
  const bool strips = n->plan->chain || n->plan->chained;
  const bool ring = reads_ring(n);
  const Expr *const *in = ring ? NULL : input_strides(t, n, conv);
  if (!strips) merged.group /= conv_merged_groups(t->c->target, conv, n->in[1]->cdata);
  for (int ph = 0; ph < count; ph++) {
    Axis axes[MAX_SPATIAL];
    ContractShape s;
    conv_axes(t->c->model, n, &merged, ph, axes);
    if (phase_is_empty(axes, &merged)) {
      loops[ph] = (PlanLoops){.rows = 1, .vectors = 1, .high = 1, .part = 1, .panels = 1};
      continue;
    }
    const bool flat = !strips && !(loops[ph].part && loops[ph].lines) &&
                      conv_is_flat(t->p, &merged, axes, in, expect(t, root)->stride);
    conv_shape(t->p, n, &merged, axes, flat, ring || (in && expr_is_i64(in[1], 1)), &s);
    if (!choose_loops(t, n, &s, &loops[ph])) return false;
  }
  return true;
}

/* ---- other loops ---- */

static bool strip_loops(const Tiler *t, const Node *n, const ConvInfo *conv, bool max,
                        PlanLoops *l) {
  Axis axes[MAX_SPATIAL];
  const char *const wrong = l->width ? strip_loops_problem(t->c, l) : NULL;
  conv_axes(t->c->model, n, conv, 0, axes);
  if (!l->width) *l = strip_choose_loops(t->c, n, conv, axes, max);
  return !wrong || refuse(t, n, wrong);
}

/* Whether lanes will run over channels: these lie together, or pixels are not in the plan. */
static bool thin_by_channel(Tiler *t, const Node *n, const ConvInfo *conv) {
  const Expr *const *in = input_strides(t, n, conv);
  const int lanes = n->plan->lanes;
  return !(lanes & LANES_PIXELS) || ((lanes & LANES_CHANNELS) && in && expr_is_i64(in[1], 1));
}

static bool thin_loops(Tiler *t, const Node *n, const ConvInfo *conv, PlanLoops *l) {
  Axis axes[MAX_SPATIAL];
  conv_axes(t->c->model, n, conv, 0, axes);
  const bool given = l->width || l->vectors;
  const char *const wrong = given ? thin_loops_problem(t->c, conv, axes, l) : NULL;
  if (!given) *l = thin_choose_loops(t->c, conv, axes, thin_by_channel(t, n, conv));
  return !wrong || refuse(t, n, wrong);
}

static bool sparse_loops(const Tiler *t, const Node *n, PlanLoops *l) {
  const char *const wrong = l->vectors ? sparse_loops_problem(t->c, n, l) : NULL;
  if (!l->vectors) *l = sparse_choose_loops(t->c, n);
  return !wrong || refuse(t, n, wrong);
}

static bool attention_loops(const Tiler *t, const Node *n, PlanLoops *l) {
  Attention a;
  StandIns places;
  KernelExpr x;
  if (!attention_of(n, &a)) return true;
  const char *const wrong = l->queries ? attention_loops_problem(t->c, &a, l) : NULL;
  if (wrong) return refuse(t, n, wrong);
  if (l->queries) return true;
  stand_ins_init(&places, t->c->model, t->c->scratch);
  kernel_expr_init(&x, t->c->model, stand_in, &places);
  *l = attention_choose_loops(t->c, &a, attention_hides(&x, &a));
  return true;
}

/* ---- nodes ---- */

/* How many kernels of tiles the plan of n describes. */
static int loops_of(const Node *n, const ConvInfo *conv) {
  if (n->plan->algorithm != ALG_TILED || !conv) return 1;
  return (int)conv_phases(conv);
}

static bool fill_loops(Tiler *t, const Node *n, const ConvInfo *conv, const Value *root,
                       PlanLoops *loops, int count) {
  ContractShape s;
  MatMulInfo product;
  const Algorithm how = n->plan->algorithm;
  if (how == ALG_ATTENTION) return attention_loops(t, n, loops);
  if (how == ALG_SPARSE) return sparse_loops(t, n, loops);
  if (conv && how == ALG_DEPTHWISE) return strip_loops(t, n, conv, false, loops);
  if (conv && how == ALG_THIN) return thin_loops(t, n, conv, loops);
  if (conv && how == ALG_TILED) return conv_loops(t, n, conv, root, loops, count);
  if (conv)
    winograd_shape(t->p, t->c->target, n, conv, &s);
  else if (matmul_info(n, &product))
    matmul_shape(t->p, n, &product, &s);
  else
    return true;
  return choose_loops(t, n, &s, loops);
}

static bool is_complete(const Plan *p) {
  for (int i = 0; i < p->n_loops; i++)
    if (plan_has_blocks(p) && !p->loops[i].part) return false;
  return p->n_loops > 0;
}

/* Whether lanes of a thin plan run over what lies next to each other (kernels/thin.c). */
static bool lanes_adjoin(Tiler *t, const Node *n, const ConvInfo *conv, const Value *root) {
  const Expr *const *in = input_strides(t, n, conv), *const *out = expect(t, root)->stride;
  const int last = 1 + conv->spatial, lanes = n->plan->lanes;
  if (!in || expr_is_i64(n->out[0]->dims[last], 0)) return false;
  if ((lanes & LANES_CHANNELS) && expr_is_i64(in[1], 1)) return true;
  return (lanes & LANES_PIXELS) && expr_is_i64(in[last], 1) && expr_is_i64(out[last], 1);
}

/* Else tiles compute it. The plan keeps the lanes, for which the input is laid out. */
static void settle_thin(Tiler *t, Node *n, const Value *root) {
  ConvInfo conv;
  Plan p = *n->plan;
  if (p.algorithm != ALG_THIN || !conv_info(n, &conv) || lanes_adjoin(t, n, &conv, root)) return;
  p.algorithm = ALG_TILED;
  p.n_loops = 0;
  n->plan = arena_dup(t->c->model->arena, &p, sizeof p);
  t->c->changed = true;
}

static Plan *with_loops(const Tiler *t, const Plan *p, const PlanLoops *loops, int count) {
  Plan *const out = arena_dup(t->c->model->arena, p, sizeof *p);
  out->loops = loops;
  out->n_loops = count;
  return out;
}

/* Operands may be read otherwise where a plan has matrix registers, from elsewhere, in rows that do not
 * follow each other: then loops are chosen again with that known, and without such registers where that
 * does not choose them. */
static bool settle_loops(Tiler *t, Node *n, const ConvInfo *conv, const Value *root,
                         PlanLoops *loops, int count) {
  const Plan *const before = n->plan;
  const ContractTypes *const types = node_contract_types(n);
  const size_t bytes = (size_t)count * sizeof *loops;
  PlanLoops *const given = arena_dup(t->c->scratch, loops, bytes);
  if (!fill_loops(t, n, conv, root, loops, count)) return false;
  n->plan = with_loops(t, before, loops, count);
  if (node_contract_types(n) == types) return true;
  PlanLoops *const again = arena_dup(t->c->model->arena, given, bytes);
  if (!fill_loops(t, n, conv, root, again, count)) return false;
  n->plan = with_loops(t, before, again, count);
  t->plain = !plan_has_matrix(n->plan);
  if (t->plain) n->plan = before;
  memcpy(loops, t->plain ? given : again, bytes);
  const bool ok = !t->plain || fill_loops(t, n, conv, root, loops, count);
  t->plain = false;
  return ok;
}

static bool tile_node(Tiler *t, Node *n, const Value *root) {
  settle_thin(t, n, root);
  ConvInfo info;
  Plan p = *n->plan;
  const ConvInfo *conv = conv_info(n, &info) ? &info : NULL;
  const int count = loops_of(n, conv);
  if (p.n_loops > 1 && p.n_loops != count) return refuse(t, n, "tiles of another number of phases");
  PlanLoops *loops = ARENA_ARRAY(t->c->model->arena, PlanLoops, count + 1);
  for (int i = 0; i < count; i++) loops[i] = plan_loops(&p, i);
  if (!settle_loops(t, n, conv, root, loops, count)) return false;
  t->c->changed = t->c->changed || !is_complete(&p);
  n->plan = with_loops(t, &p, loops, count);
  return true;
}

/* The MaxPools in the chain that ends in root: no contractions, but they have strips, too. */
static bool tile_pools(Tiler *t, const Value *root) {
  StripChain chain;
  const Node *const last = strip_node(root);
  if (!last || !last->plan || !last->plan->chain || !strip_chain(t->c, root, &chain)) return true;
  for (int i = 0; i < chain.n; i++) {
    const StripStage *s = &chain.stage[i];
    Node *const n = s->anchor->def;
    if (!s->max || !n->plan) continue;
    Plan p = *n->plan;
    PlanLoops *l = ARENA_NEW(t->c->model->arena, PlanLoops);
    *l = plan_loops(&p, 0);
    if (p.n_loops > 1) return refuse(t, n, "strips of several phases");
    if (!strip_loops(t, n, &s->conv, true, l)) return false;
    t->c->changed = t->c->changed || !p.n_loops;
    p.loops = l;
    p.n_loops = 1;
    n->plan = arena_dup(t->c->model->arena, &p, sizeof p);
  }
  return true;
}

/* ---- the graph ---- */

static bool is_root(const Value *v) {
  return v && !v->inlined && !v->cdata && v->def && !(v->def->op->flags & OF_PIECES) &&
         (v->def->op->body == OB_EW || v->def->op->body == OB_ELEM);
}

/* From the last node to the first, as lowering goes. */
static bool tile_graph(Tiler *t, const Graph *g) {
  for (int i = g->nodes.n - 1; i >= 0; i--) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && !tile_graph(t, n->attrs[k].graph)) return false;
    bool stored = false;
    for (int k = 0; k < n->n_out; k++) {
      const Value *v = n->out[k];
      stored = stored || (v && !v->inlined && !v->cdata);
      const Value *const anchor = is_root(v) ? kernel_anchor(v) : NULL;
      if (anchor && anchor->def->plan && !tile_node(t, anchor->def, v)) return false;
      if (is_root(v) && !tile_pools(t, v)) return false;
    }
    if (stored && (n->op->flags & OF_PIECES))
      expect_pieces(t, n);
    else if (stored)
      ask_inputs(t, n);
  }
  return true;
}

static void mark_outside(Tiler *t, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_syms; k++)
      if (n->syms[k].src) t->outside[n->syms[k].src->id] = true;
    if ((n->op->body == OB_EXTERN && !node_is_scatter(n)) || n->op->body == OB_REGION)
      for (int k = 0; k < n->n_in; k++)
        if (n->in[k]) t->outside[n->in[k]->id] = t->outside[view_source(n->in[k])->id] = true;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) mark_outside(t, n->attrs[k].graph);
  }
  for (int i = 0; i < g->outputs.n; i++)
    t->outside[g->outputs.data[i]->id] = t->asked[g->outputs.data[i]->id] = true;
}

bool pass_choose_tiles(PassCtx *c) {
  if (target_has_grids(c->target)) return true;
  const int n = c->model->next_value + 1;
  Tiler t = {.c = c, .p = c->model->pool};
  t.place = ARENA_ARRAY(c->scratch, Place, n);
  t.asked = ARENA_ARRAY(c->scratch, bool, n);
  t.outside = ARENA_ARRAY(c->scratch, bool, n);
  mark_outside(&t, c->model->main);
  return tile_graph(&t, c->model->main);
}

static bool graph_has_tiles(const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && !graph_has_tiles(n->attrs[k].graph)) return false;
    for (int k = 0; k < n->n_out; k++) {
      const Value *const anchor = is_root(n->out[k]) ? kernel_anchor(n->out[k]) : NULL;
      if (anchor && !(anchor->def->plan && is_complete(anchor->def->plan))) return false;
    }
  }
  return true;
}

bool tiles_are_chosen(const Model *m) { return graph_has_tiles(m->main); }
