/* Graph IR → program of kernels. Walks each graph backwards, so that only what is really read gets
 * a place and a kernel: shape arithmetic that was folded away never runs.
 *
 * needs fuse, layout. Kernels come from elem/ and kernels/contract*.c; control flow from
 * lower/region.c. */
#include "passes/lower/lower.h"
#include "passes/gpu/gpu.h"
#include "passes/graph/rewrite.h"
#include "passes/kernels/contract.h"

#include <string.h>

/* ---- places ---- */

/* ---- steps ---- */

Step *lower_copy(Lower *l, const Value *v, BufRef dst, const Loc *loc) {
  const Place *pl = lower_place(l, v);
  Place to;
  place_dense(l, &to, v, dst.buffer, dst.offset ? dst.offset : ex_i64(l->p, 0));
  if (!pl || !pl->dense) return lower_read(l, v, &to);
  Step *s = step_new(l->mod, STEP_COPY, loc);
  s->copy.src = (BufRef){pl->buffer, pl->offset};
  s->copy.dst = dst;
  s->copy.count = value_count(l->p, v);
  return s;
}

Step *lower_sym(Lower *l, const Expr *sym, const Expr *value, const Loc *loc) {
  Step *s = step_new(l->mod, STEP_SYM, loc);
  s->sym.id = sym->id;
  s->sym.value = value;
  s->sym.src.buffer = -1;
  return s;
}

static Step *lower_symdefs(Lower *l, const Node *n) {
  Step *list = NULL;
  for (int i = 0; i < n->n_syms; i++) {
    const SymDef *d = &n->syms[i];
    const Symbol *sym = expr_symbol(l->p, d->sym->id);
    Step *s;
    if (!d->src) {
      s = lower_sym(l, d->sym, d->value, n->loc);
    } else {
      const Place *pl = lower_place(l, d->src);
      s = step_new(l->mod, STEP_SYM, n->loc);
      s->sym.id = d->sym->id;
      s->sym.src = (BufRef){pl->buffer, ex_add(l->p, pl->offset, ex_i64(l->p, d->elem))};
      s->sym.index = d->index;
    }
    if (sym->lo != INT64_MIN) s->sym.lo = ex_i64(l->p, sym->lo);
    s->sym.hi = sym->bound;
    step_append(&list, s);
  }
  return list;
}

/* Makes v dense in memory for someone outside of kernels; *extra gets the copy, if one is needed: of
 * what lies otherwise, or nowhere, as the number of an iteration. */
const Place *lower_dense(Lower *l, const Value *v, Step **extra) {
  const Place *pl = lower_place(l, v);
  if (pl && pl->dense) return pl;
  Place *to = lower_temp(l, v->dtype, v->rank, v->dims, "dense");
  step_append(extra, lower_read(l, v, to));
  return to;
}

static TensorRef tensor_ref(Lower *l, const Value *v, Step **extra) {
  TensorRef t = {.buf = {-1, NULL}};
  if (!v) return t;
  const Place *pl = lower_dense(l, v, extra);
  if (pl) t.buf = (BufRef){pl->buffer, pl->offset};
  t.dtype = v->dtype;
  t.rank = v->rank;
  t.dims = v->dims;
  return t;
}

static Step *lower_extern(Lower *l, const Node *n) {
  Step *s = step_new(l->mod, STEP_EXTERN, n->loc), *list = NULL;
  TensorRef *ins = ARENA_ARRAY(l->m->arena, TensorRef, n->n_in + 1);
  TensorRef *outs = ARENA_ARRAY(l->m->arena, TensorRef, n->n_out + 1);
  int64_t words[512];
  for (int k = 0; k < n->n_out; k++) outs[k] = tensor_ref(l, n->out[k], &list);
  for (int k = 0; k < n->n_in; k++) ins[k] = tensor_ref(l, n->in[k], &list);
  s->ext.row = n->op->ext;
  s->ext.ins = ins;
  s->ext.outs = outs;
  s->ext.n_ins = n->n_in;
  s->ext.n_outs = n->n_out;
  s->ext.n_words = s->ext.row->pack ? s->ext.row->pack(n, words, 512) : 0;
  if (s->ext.n_words < 0) {
    diag_error(l->m->diag, n->loc, ERR_UNSUPPORTED, "too many attribute values");
    return NULL;
  }
  s->ext.words = arena_dup(l->m->arena, words, sizeof *words * (size_t)(s->ext.n_words + 1));
  s->ext.scratch = -1;
  const Expr *bytes = s->ext.row->scratch ? s->ext.row->scratch(l->m, n) : NULL;
  if (target_has_grids(l->c->target) && s->ext.row->parts_scratch) { /* for either way */
    const Expr *const parts = s->ext.row->parts_scratch(l->m, n);
    bytes = bytes ? ex_max(l->p, bytes, parts) : parts;
  }
  if (bytes) s->ext.scratch = module_add_memory(l->mod, DT_U8, bytes, "scratch")->id;
  step_append(&list, s);
  return list;
}

static bool computed_here(const Lower *l, const Node *n, const Value *v) {
  const Node *def = v->def;
  return def && !v->inlined && !v->cdata && !lower_is_placed(l, v) && def->graph == n->graph &&
         (def->op->body == OB_EW || def->op->body == OB_ELEM) && !l->must_dense[v->id];
}

/* Whether e has only symbols that are known when v is computed: the caller's, and those in its own
 * sizes. */
static bool known_before(const Lower *l, const Value *v, const Expr *e) {
  if (!(e->flags & EXF_SYM)) return true;
  if (e->op == EX_SYM) {
    if (!expr_symbol(l->p, e->id)->runtime) return true;
    for (int d = 0; d < v->rank; d++)
      if (expr_contains(l->p, v->dims[d], e)) return true;
    return false;
  }
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i] && !known_before(l, v, e->a[i])) return false;
  return true;
}

/* The slice lies where it is known to lie when v is computed. */
static bool slice_known(const Lower *l, const Value *v, const Place *slice) {
  const Buffer *const b = &l->mod->buffers.data[slice->buffer];
  if (b->kind == BUF_HEAP && !known_before(l, v, b->count)) return false;
  for (int d = 0; d < v->rank; d++)
    if (!known_before(l, v, slice->stride[d])) return false;
  return known_before(l, v, slice->offset) && (!slice->base || known_before(l, v, slice->base));
}

/* A piece that is a view of something not yet computed: that goes into the slice, where the slice
 * is contiguous. */
static bool place_piece_view(Lower *l, const Node *n, const Value *v, const Place *slice) {
  const Value *src = view_source(v);
  if (!v->inlined || src == v || !slice->dense || !computed_here(l, n, src)) return false;
  if (!slice_known(l, v, slice)) return false;
  place_dense(l, &l->places[src->id], src, slice->buffer, slice->offset);
  l->places[src->id].slice = true;
  l->places[src->id].no_halo = src->layout.halo_lo != NULL;
  return true;
}

/* v lies there already: it is a cache in place. */
static bool lies_in(const Lower *l, const Value *v, const Place *slice) {
  const Place *own = &l->places[v->id];
  if (v->def || own->buffer != slice->buffer || own->offset != slice->offset) return false;
  for (int d = 0; d < v->rank; d++)
    if (own->stride[d] != slice->stride[d]) return false;
  return true;
}

/* n writes over its input 0 what changes of it. */
static bool updates_in_place(const Lower *l, const Node *n, const Place *to) {
  if (!node_is(n, "TensorScatter") || n->in[0]->def || n->in[0]->cdata) return false;
  const Buffer *const read = &l->mod->buffers.data[l->places[n->in[0]->id].buffer],
                      *const written = &l->mod->buffers.data[to->buffer];
  return read->kind == BUF_VIEW && written->kind == BUF_VIEW && read->base == written->base;
}

/* Concat: pieces that a kernel computes go straight into their slice; others are copied there. */
static Step *lower_pieces(Lower *l, const Node *n, const Place *to) {
  const Value *out = n->out[0];
  int64_t axis = node_int(n, "axis", 0);
  if (axis < 0) axis += out->rank;
  const Expr *at = ex_i64(l->p, 0);
  Step *list = NULL;
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    Place *slice = ARENA_NEW(l->m->arena, Place);
    *slice = *to;
    slice->offset = ex_add(l->p, to->offset, ex_mul(l->p, at, to->stride[axis]));
    at = ex_add(l->p, at, v->dims[axis]);
    slice->alias = false;
    slice->slice = true;
    bool first = true; /* of the dimensions that are not 1: then a slice is contiguous */
    for (int d = 0; d < axis; d++) first = first && expr_is_i64(out->dims[d], 1);
    slice->dense = to->dense && first;
    slice->halo_lo[axis] = slice->halo_hi[axis] = 0;
    if (computed_here(l, n, v) && slice_known(l, v, slice)) {
      l->places[v->id] = *slice;
      for (int d = 0; d < v->rank; d++)
        if (v->layout.halo_lo &&
            (v->layout.halo_lo[d] > slice->halo_lo[d] || v->layout.halo_hi[d] > slice->halo_hi[d]))
          l->places[v->id].no_halo = true;
      continue;
    }
    if (lies_in(l, v, slice) || place_piece_view(l, n, v, slice)) continue;
    Step *s = lower_read(l, v, slice);
    if (!s) return NULL;
    step_append(&list, s);
  }
  return list ? list : &l->nothing;
}

static Step *lower_value(Lower *l, const Value *v) {
  const Place to = l->places[v->id];
  const bool grids = target_has_grids(l->c->target), optimizes = l->c->opt_level > 0;
  const Value *anchor = optimizes ? kernel_anchor(v) : NULL;
  Step *s = NULL;
  if (node_is_append(v->def) && optimizes && lies_in(l, v->def->in[3], &to) &&
      (s = lower_append(l, v, &to)) != NULL)
    return s;
  if (!anchor && updates_in_place(l, v->def, &to)) return lower_scatter(l, v->def, &to);
  if (v->def->op->flags & OF_PIECES) return lower_pieces(l, v->def, &to);
  if (grids && anchor) {
    s = lower_gpu_contraction(l, v, anchor, &to);
    return s ? s : lower_elem(l, v, &to);
  }
  if (!grids && optimizes && (s = lower_strips(l, v, &to)) != NULL) return s;
  if (anchor) {
    s = lower_depthwise(l, v, anchor, &to);
    return s ? s : lower_contraction(l, v, anchor, &to);
  }
  return lower_elem(l, v, &to);
}

/* Its buffer was made for it, halo and all; a slice of a Concat leaves the halo to the whole. */
static bool owns_halo(const Value *v, const Place *to) {
  for (int d = 0; d < v->rank; d++)
    if (to->halo_lo[d] != v->layout.halo_lo[d] || to->halo_hi[d] != v->layout.halo_hi[d])
      return false;
  return !to->slice;
}

/* Pieces of a Concat are written, and may be read with their halo, before the node stands: the
 * zeros come before the first step that touches the buffer (place_halos). */
static void add_halo(Lower *l, const Node *n, const Value *v, const Place *to, Step **list) {
  Step *zeros = lower_halo(l, v, to);
  if (n->op->flags & OF_PIECES)
    vec_push(l->a, &l->halos, ((PieceHalo){to->buffer, zeros}));
  else
    step_append(list, zeros);
}

static Step *lower_outputs(Lower *l, const Node *n) {
  Step *list = NULL;
  for (int k = 0; k < n->n_out; k++) {
    const Value *v = n->out[k];
    if (!v || !lower_is_placed(l, v) || l->places[v->id].alias || v->cdata) continue;
    const Place to = l->places[v->id];
    Step *s = lower_value(l, v);
    if (!s) return NULL;
    if (v->layout.halo_lo && !to.no_halo && owns_halo(v, &to)) add_halo(l, n, v, &to, &list);
    if (s != &l->nothing) step_append(&list, s);
  }
  return list ? list : &l->nothing;
}

/* Something reads a result, or a size that the node finds. */
static bool wanted(const Lower *l, const Node *n) {
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && lower_is_placed(l, n->out[k]) && !l->places[n->out[k]->id].alias) return true;
  return node_finds_size(n, l->live_syms);
}

/* Symbols are needed by whoever uses a shape, even where the value itself is a view or inlined. */
static bool symbols_wanted(const Lower *l, const Node *n) {
  (void)l;
  return n->n_syms > 0;
}

static Step *lower_node(Lower *l, const Node *n) {
  Step *list = NULL, *s = &l->nothing;
  if (wanted(l, n)) {
    if (node_is_scatter(n))
      s = lower_scatter(l, n, lower_place(l, n->out[0]));
    else if (n->op->body == OB_EXTERN)
      s = lower_extern(l, n);
    else if (n->op->body == OB_REGION)
      s = lower_region(l, n);
    else
      s = lower_outputs(l, n);
  }
  if (!s) return NULL;
  if (symbols_wanted(l, n)) step_append(&list, lower_symdefs(l, n));
  if (s != &l->nothing) step_append(&list, s);
  return list ? list : &l->nothing;
}

typedef struct FirstTouch {
  Lower *l;
  Step **halo; /* by buffer: zeros that still have to be put somewhere, or NULL */
  Step *found; /* those that belong before the current step */
} FirstTouch;

static void first_touch(void *user, const BufRef *r, int access) {
  FirstTouch *t = user;
  (void)access;
  if (r->buffer < 0 || !t->halo[r->buffer]) return;
  step_append(&t->found, t->halo[r->buffer]);
  t->halo[r->buffer] = NULL;
}

/* Puts the zeros that the Concats since `mark` asked for before the first step that touches their
 * buffer: what reads a piece then finds its border. */
static void place_halos(Lower *l, int mark, Step **list) {
  if (l->halos.n == mark) return;
  FirstTouch t = {.l = l, .halo = ARENA_ARRAY(l->a, Step *, l->mod->buffers.n + 1)};
  for (int i = mark; i < l->halos.n; i++)
    step_append(&t.halo[l->halos.data[i].buffer], l->halos.data[i].zeros);
  l->halos.n = mark;
  for (Step **at = list; *at; at = &(*at)->next) {
    t.found = NULL;
    step_each_ref(*at, first_touch, &t);
    if (!t.found) continue;
    Step *const s = *at;
    *at = t.found;
    while (*at) at = &(*at)->next;
    *at = s;
  }
}

bool lower_graph(Lower *l, const Graph *g, Step **out) {
  Step *list = NULL;
  const int mark = l->halos.n;
  for (int i = g->nodes.n - 1; i >= 0; i--) {
    Step *s = lower_node(l, g->nodes.data[i]);
    if (!s) {
      if (!diag_errors(l->m->diag))
        diag_internal(l->m->diag, g->nodes.data[i]->loc, "lower: no kernel was made for this node");
      return false;
    }
    if (s == &l->nothing) continue;
    step_append(&s, list);
    list = s;
  }
  place_halos(l, mark, &list);
  *out = list;
  return true;
}

/* ---- the whole program ---- */

/* The memory of the output that x's input lies in: rows are as far apart as its room wants. */
static void place_cache(Lower *l, const InPlace *x, const Value *v) {
  const Graph *g = l->m->main;
  const Value *out = g->outputs.data[x->output];
  const Expr **dims = in_place_dims(l->m->arena, l->p, x, v), *count = ex_i64(l->p, 1);
  for (int d = 0; d < v->rank; d++) count = ex_mul(l->p, count, dims[d]);
  Buffer *b = module_add_buffer(l->mod, BUF_OUTPUT, v->dtype, count, out->name);
  b->index = x->output;
  place_dense(l, &l->places[out->id], &(Value){.rank = v->rank, .dims = dims}, b->id,
              ex_i64(l->p, 0));
  l->places[out->id].dense = false;
  l->places[v->id] = l->places[out->id];
}

/* Of an output that takes x's input's memory: the output, and two views of it, one behind the other,
 * through which the input is read and the output written, so that passes can tell them apart
 * (loop/in_place.c). */
static void place_whole(Lower *l, const InPlace *x, const Value *v) {
  const Value *const out = l->m->main->outputs.data[x->output];
  const Expr *const count = value_count(l->p, v);
  Buffer *b = module_add_buffer(l->mod, BUF_OUTPUT, v->dtype, count, out->name);
  b->index = x->output;
  const int memory = b->id;
  for (int k = 0; k < 2; k++) {
    b = module_add_buffer(l->mod, BUF_VIEW, v->dtype, count, k ? out->name : v->name);
    b->base = memory;
    b->offset = ex_i64(l->p, 0);
  }
  place_dense(l, &l->places[v->id], v, memory + 1, ex_i64(l->p, 0));
}

/* Where output k is written; *memory: the buffer of the module's interface. */
static int place_written(Lower *l, int k, int *memory) {
  const InPlace *const x = model_output_in_place(l->m, k);
  if (!in_place_is_whole(x)) return *memory;
  const int read = l->places[l->m->main->inputs.data[x->input]->id].buffer;
  *memory = read - 1;
  return read + 1;
}

static void place_inputs(Lower *l) {
  const Graph *g = l->m->main;
  for (int k = 0; k < g->inputs.n; k++) {
    const Value *v = g->inputs.data[k];
    const InPlace *const cache = model_input_in_place(l->m, k);
    Buffer *b = module_add_buffer(l->mod, BUF_INPUT, v->dtype, value_count(l->p, v), v->name);
    b->index = k;
    b->data = v->init ? v->init->cdata : NULL;
    b->pinned = v->pinned;
    vec_push(l->m->arena, &l->mod->inputs, b->id);
    place_dense(l, &l->places[v->id], v, b->id, ex_i64(l->p, 0));
    if (in_place_is_whole(cache))
      place_whole(l, cache, v);
    else if (cache)
      place_cache(l, cache, v);
    l->places[v->id].alias = true;
  }
  if (!g->unset) return;
  const int b = module_add_buffer(l->mod, BUF_UNSET, DT_BOOL, ex_i64(l->p, 1), NULL)->id;
  place_dense(l, &l->places[g->unset->id], g->unset, b, ex_i64(l->p, 0));
  l->places[g->unset->id].alias = true;
}

/* May v be computed straight into an output buffer? */
static bool direct_output(const Lower *l, const Value *v) {
  return v->def && !v->cdata && !v->inlined && !lower_is_placed(l, v) && layout_is_row_major(v);
}

static Step *place_outputs(Lower *l) {
  const Graph *g = l->m->main;
  Step *list = NULL;
  for (int k = 0; k < g->outputs.n; k++) {
    const Value *v = g->outputs.data[k];
    lower_assume_sizes(l, v);
    const InPlace *const x = model_output_in_place(l->m, k);
    if (in_place_is_whole(x)) {
      int memory = -1;
      const int to = place_written(l, k, &memory);
      vec_push(l->m->arena, &l->mod->outputs, memory);
      if (direct_output(l, v)) place_dense(l, &l->places[v->id], v, to, ex_i64(l->p, 0));
      continue;
    }
    if (x) {
      vec_push(l->m->arena, &l->mod->outputs, l->places[v->id].buffer);
      continue;
    }
    Buffer *b = module_add_memory(l->mod, v->dtype, value_count(l->p, v), v->name);
    if (b->kind == BUF_ARENA) b->kind = BUF_OUTPUT;
    b->index = k;
    vec_push(l->m->arena, &l->mod->outputs, b->id);
    if (direct_output(l, v)) place_dense(l, &l->places[v->id], v, b->id, ex_i64(l->p, 0));
  }
  for (int k = 0; k < g->outputs.n; k++) {
    const Value *v = g->outputs.data[k];
    int memory = l->mod->outputs.data[k];
    const int b = place_written(l, k, &memory);
    if (l->places[v->id].buffer == b) continue;
    /* a view of something not yet placed, of all of it: compute the source in the output buffer */
    const Value *src = view_source(v);
    if (v->inlined && src != v && direct_output(l, src)) {
      place_dense(l, &l->places[src->id], src, b, ex_i64(l->p, 0));
      continue;
    }
    Step *s = lower_copy(l, v, (BufRef){b, NULL}, v->def ? v->def->loc : NULL);
    step_append(&list, s);
  }
  return list;
}

static void mark_must_dense(Lower *l, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_syms; k++)
      if (n->syms[k].src) l->must_dense[n->syms[k].src->id] = true;
    if ((n->op->body == OB_EXTERN && !node_is_scatter(n)) || n->op->body == OB_REGION)
      for (int k = 0; k < n->n_in; k++)
        if (n->in[k]) l->must_dense[n->in[k]->id] = l->must_dense[view_source(n->in[k])->id] = true;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) mark_must_dense(l, n->attrs[k].graph);
  }
  for (int i = 0; i < g->outputs.n; i++) l->must_dense[g->outputs.data[i]->id] = true;
}

bool pass_lower(PassCtx *c) {
  Model *m = c->model;
  Lower l = {.c = c, .m = m, .p = m->pool, .a = c->scratch};
  l.mod = c->module = module_new(m);
  l.mod->max_threads = c->max_threads > 0 ? c->max_threads : 1;
  l.n_places = m->next_value + 1;
  l.places = ARENA_ARRAY(l.a, Place, l.n_places);
  l.must_dense = ARENA_ARRAY(l.a, bool, l.n_places);
  for (int i = 0; i < l.n_places; i++) l.places[i].buffer = -1;
  l.uses = graph_uses(m->main, l.a);
  l.live_syms = live_symbols(c);
  mark_must_dense(&l, m->main);
  place_inputs(&l);
  Step *copies = place_outputs(&l), *steps = NULL;
  if (!lower_graph(&l, m->main, &steps)) return false;
  step_append(&steps, copies);
  lower_checks(&l, &steps);
  l.mod->steps = steps;
  c->changed = true;
  return !diag_errors(m->diag);
}
