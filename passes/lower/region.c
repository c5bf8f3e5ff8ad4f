/* Control flow: If and Loop become steps around the steps of their regions (Scan was expanded into
 * Loop). Region outputs are computed straight into their destination where one kernel makes them,
 * else copied. */
#include "ir/ops/control/control.h"
#include "passes/lower/lower.h"

/* Can the value be computed straight into `to` by a node of region g? Marks it so. What the heap
 * holds gets its room when the region ends, where sizes are known. */
static bool place_result(Lower *l, const Graph *g, const Value *v, const Place *to) {
  if (buffer_is_heap(l->mod, to->buffer)) return false;
  const bool computed =
      v->def && v->def->graph == g && !v->cdata && !v->inlined && !lower_is_placed(l, v);
  if (!computed || v->def->op->body == OB_REGION || v->def->op->body == OB_EXTERN) return false;
  if (!layout_is_row_major(v) || v->layout.halo_lo) return false;
  /* strides by the region's own sizes: symbols of the result are assigned when the region ends */
  place_dense(l, &l->places[v->id], v, to->buffer, to->offset);
  l->places[v->id].slice = to->slice;
  return true;
}

/* Room for so many elements, where `to` is a whole buffer of the heap. */
static void make_room(Lower *l, const Place *to, const Expr *count, const Expr *keep,
                      const Loc *loc, Step **list) {
  if (l->mod->buffers.data[to->buffer].kind != BUF_HEAP) return;
  Step *const s = step_new(l->mod, STEP_ROOM, loc);
  s->room.buffer = to->buffer;
  s->room.count = count;
  s->room.keep = keep;
  step_append(list, s);
}

/* Runtime symbols in the sizes of a result take the values that this branch gives them. */
static void result_symbols(Lower *l, const Value *result, const Value *from, Step **list) {
  for (int d = 0; d < result->rank; d++)
    if (result->dims[d] != from->dims[d] && result->dims[d]->op == EX_SYM)
      step_append(list, lower_sym(l, result->dims[d], from->dims[d], result->def->loc));
}

static bool lower_branch(Lower *l, const Node *n, const char *attr, Step **out) {
  const Graph *g = node_region(n, attr);
  Step *copies = NULL, *body = NULL;
  for (int k = 0; k < n->n_out; k++) {
    const Value *o = n->out[k];
    if (!o) continue;
    const Value *v = g->outputs.data[k];
    const Place *to = &l->places[o->id];
    if (!place_result(l, g, v, to)) {
      make_room(l, to, value_count(l->p, v), NULL, n->loc, &copies);
      step_append(&copies, lower_copy(l, v, (BufRef){to->buffer, to->offset}, n->loc));
    }
    result_symbols(l, o, v, &copies);
  }
  if (!lower_graph(l, g, &body)) return false;
  step_append(&body, copies);
  *out = body;
  return true;
}

static Step *lower_if(Lower *l, const Node *n) {
  Step *s = step_new(l->mod, STEP_IF, n->loc), *list = NULL;
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k]) lower_place(l, n->out[k]);
  if (!lower_branch(l, n, "then_branch", &s->branch.then)) return NULL;
  if (!lower_branch(l, n, "else_branch", &s->branch.otherwise)) return NULL;
  const Place *c = lower_dense(l, n->in[0], &list);
  s->branch.cond = (BufRef){c->buffer, c->offset};
  const RegionSteps r = {s, {node_region(n, "then_branch"), node_region(n, "else_branch")}};
  vec_push(l->a, &l->regions, r);
  step_append(&list, s);
  return list;
}

/* ---- Loop ---- */

typedef struct LoopParts {
  const Node *n;
  const Graph *g;
  int carried, scans;
  const Expr *iter;
  int trips; /* symbol that takes the number of iterations, or -1 */
  Step *before, *copies, *body;
  Step *first, *last; /* around the copies: sizes of the next states */
} LoopParts;

static bool known_true(Lower *l, const Value *v) {
  const Expr *e = v && value_known(v) ? value_element(l->p, v, 0) : NULL;
  int64_t k;
  return e && expr_is_const(e, &k) && k;
}

static Place *place_state(Lower *l, const Value *region_in, const Value *out) {
  Place *to;
  if (out) {
    lower_place(l, out);
    to = &l->places[out->id];
  } else {
    to = lower_temp(l, region_in->dtype, region_in->rank, region_in->dims, "state");
  }
  Place *in = &l->places[region_in->id];
  *in = *to;
  in->alias = true;
  return to;
}

static bool is_region_input(const Graph *g, const Value *v) {
  for (int i = 0; i < g->inputs.n; i++)
    if (g->inputs.data[i] == v) return true;
  return false;
}

/* Sizes of a state that change take what `from` has: its own symbols, all at once. */
static const Expr *next_size(Lower *l, const char *stem, const Expr *size, const Loc *loc,
                             Step **list) {
  const Expr *const next = ex_sym_fresh(l->p, stem);
  expr_symbol(l->p, next->id)->runtime = true;
  step_append(list, lower_sym(l, next, size, loc));
  return next;
}

static void state_sizes(Lower *l, LoopParts *p, const Value *in, const Value *from, Step **first,
                        Step **last) {
  for (int d = 0; d < in->rank; d++) {
    const Expr *const dim = in->dims[d];
    if (dim == from->dims[d] || dim->op != EX_SYM || !expr_symbol(l->p, dim->id)->runtime) continue;
    const Expr *const next =
        next_size(l, expr_symbol(l->p, dim->id)->name, from->dims[d], p->n->loc, first);
    const Expr *const bound = expr_symbol(l->p, dim->id)->bound;
    Step *s = *first;
    while (s->next) s = s->next;
    s->sym.hi = bound ? expr_upper(l->p, bound, NULL) : NULL;
    step_append(last, lower_sym(l, dim, next, p->n->loc));
  }
}

/* New values of the carried states: results that are states themselves (swaps) go through a copy
 * first, so that all states change at once. */
static void loop_states(Lower *l, LoopParts *p) {
  for (int k = 0; k < p->carried; k++) {
    const Value *v = p->g->outputs.data[k + 1];
    const Value *in = p->g->inputs.data[k + 2];
    const Place *state = &l->places[in->id];
    if (v == in) continue;
    state_sizes(l, p, in, v, &p->first, &p->last);
    if (is_region_input(p->g, v) || is_region_input(p->g, view_source(v))) {
      Place *tmp = lower_temp(l, v->dtype, v->rank, v->dims, "next");
      Step *first = lower_copy(l, v, (BufRef){tmp->buffer, tmp->offset}, p->n->loc);
      step_append(&first, p->copies);
      p->copies = first;
      make_room(l, state, value_count(l->p, v), NULL, p->n->loc, &p->copies);
      Step *s = step_new(l->mod, STEP_COPY, p->n->loc);
      s->copy.src = (BufRef){tmp->buffer, tmp->offset};
      s->copy.dst = (BufRef){state->buffer, state->offset};
      s->copy.count = value_count(l->p, v);
      step_append(&p->copies, s);
      continue;
    }
    make_room(l, state, value_count(l->p, v), NULL, p->n->loc, &p->copies);
    step_append(&p->copies, lower_copy(l, v, (BufRef){state->buffer, state->offset}, p->n->loc));
  }
}

static void loop_scans(Lower *l, LoopParts *p) {
  for (int k = 0; k < p->scans; k++) {
    const Value *o = node_out(p->n, p->carried + k);
    const Value *v = p->g->outputs.data[1 + p->carried + k];
    if (!o) continue;
    const Place *all = lower_place(l, o);
    Place slice;
    const Expr *const before = ex_mul(l->p, p->iter, value_count(l->p, v)),
                      *at = ex_add(l->p, all->offset, before);
    make_room(l, all, ex_i64(l->p, 0), NULL, p->n->loc, &p->before);
    make_room(l, all, ex_add(l->p, before, value_count(l->p, v)), before, p->n->loc, &p->copies);
    place_dense(l, &slice, v, all->buffer, at);
    slice.slice = true;
    if (!place_result(l, p->g, v, &slice))
      step_append(&p->copies, lower_copy(l, v, (BufRef){slice.buffer, slice.offset}, p->n->loc));
  }
}

static Step *copy_true(Lower *l, int buffer, const Loc *loc) {
  static const uint8_t yes = 1;
  Buffer *b = module_add_buffer(l->mod, BUF_WEIGHT, DT_BOOL, ex_i64(l->p, 1), NULL);
  b->data = const_new(l->m, NULL, DT_BOOL, 0, NULL, &yes);
  const int src = b->id;
  Step *s = step_new(l->mod, STEP_COPY, loc);
  s->copy.src = (BufRef){src, NULL};
  s->copy.dst = (BufRef){buffer, NULL};
  s->copy.count = ex_i64(l->p, 1);
  return s;
}

static void loop_condition(Lower *l, LoopParts *p, Step *s, bool counted) {
  const Value *in = p->g->inputs.data[1], *out = p->g->outputs.data[0], *first = node_in(p->n, 1);
  s->loop.cond.buffer = -1;
  Place *c = lower_temp(l, DT_BOOL, 0, NULL, "cond");
  l->places[in->id] = *c;
  l->places[in->id].alias = true;
  const bool always =
      counted || ((!first || known_true(l, first)) && (known_true(l, out) || out == in));
  if (always) return;
  if (first)
    step_append(&p->before, lower_copy(l, first, (BufRef){c->buffer, NULL}, p->n->loc));
  else
    step_append(&p->before, copy_true(l, c->buffer, p->n->loc));
  s->loop.cond = (BufRef){c->buffer, NULL};
  if (out != in &&
      !place_result(l, p->g, out,
                    c)) /* the body knows its own condition as true and never reads it */
    step_append(&p->copies, lower_copy(l, out, (BufRef){c->buffer, NULL}, p->n->loc));
}

/* The trip count that the node is given: known, or data. */
static const Expr *given_trip(Lower *l, LoopParts *p) {
  const Value *m = node_in(p->n, 0);
  if (!m) return NULL;
  if (value_known(m)) return ex_cast(l->p, DT_I64, value_element(l->p, m, 0));
  const Place *pl = lower_dense(l, m, &p->before);
  const Expr *trip = ex_sym_fresh(l->p, "trip");
  expr_symbol(l->p, trip->id)->runtime = true;
  Step *def = step_new(l->mod, STEP_SYM, p->n->loc);
  def->sym.id = trip->id;
  def->sym.src = (BufRef){pl->buffer, pl->offset};
  step_append(&p->before, def);
  return trip;
}

/* The lesser of two limits; NULL: none. */
static const Expr *lesser(Lower *l, const Expr *a, const Expr *b) {
  return !a ? b : !b ? a : ex_min(l->p, a, b);
}

/* Scan outputs have room for so many iterations. */
static const Expr *scan_room(Lower *l, const LoopParts *p) {
  const Expr *room = NULL;
  for (int k = 0; k < p->scans; k++) {
    const Value *o = node_out(p->n, p->carried + k);
    const Expr *d = o && o->rank ? o->dims[0] : NULL;
    const Symbol *s = d && d->op == EX_SYM ? expr_symbol(l->p, d->id) : NULL;
    room = lesser(l, room, s && s->runtime && d->id == p->trips ? s->bound : d);
  }
  return room;
}

/* The symbol that stands for the number of iterations, when the sizes of scan outputs do not say it
 * otherwise. */
static int trips_symbol(Lower *l, const LoopParts *p, const Expr *count) {
  const Value *m = node_in(p->n, 0);
  const Expr *given = m && value_known(m) ? ex_cast(l->p, DT_I64, value_element(l->p, m, 0)) : NULL;
  for (int k = 0; k < p->scans; k++) {
    const Value *o = node_out(p->n, p->carried + k);
    const Expr *d = o && o->rank ? o->dims[0] : NULL;
    if (d && d->op == EX_SYM && expr_symbol(l->p, d->id)->runtime && d != given && d != count)
      return d->id;
  }
  return -1;
}

/* The condition of the iteration that was not run, as a symbol; NULL: it holds. */
static const Expr *further_condition(Lower *l, const Step *loop, Step **list) {
  if (loop->loop.cond.buffer < 0) return NULL;
  const Expr *const more = ex_sym_fresh(l->p, "further");
  expr_symbol(l->p, more->id)->runtime = true;
  Step *const read = step_new(l->mod, STEP_SYM, loop->loc);
  read->sym.id = more->id;
  read->sym.src = loop->loop.cond;
  step_append(list, read);
  return more;
}

/* A Loop that stops since its scan outputs have no more room, and would go on, fails: they have a
 * size that the model declares, or that --bound gives. */
static void check_room(Lower *l, const LoopParts *p, Step *loop, const Expr *given,
                       const Expr *room, Step **list) {
  int64_t lo, hi;
  ExprPool *const pool = l->p;
  if (!room || given == room) return;
  if (given && expr_range(pool, ex_sub(pool, room, given), &lo, &hi) && lo >= 0) return;
  const Expr *const least = ex_add(pool, room, ex_i64(pool, 1)), *const wanted =
                                                                     given
                                                                         ? ex_max(pool, given, room)
                                                                         : least;
  const Expr *const more = further_condition(l, loop, list);
  if (loop->loop.trips < 0) {
    const Expr *const trips = ex_sym_fresh(pool, "trips");
    expr_symbol(pool, trips->id)->runtime = true;
    loop->loop.trips = trips->id;
  }
  const Expr *full = ex_eq(pool, ex_sym(pool, expr_symbol(pool, loop->loop.trips)->name), room);
  if (more) full = ex_and(pool, full, ex_lt(pool, ex_i64(pool, 0), more));
  Step *const check = step_new(l->mod, STEP_CHECK, loop->loc);
  check->check = (DimAssume){.kind = ASSUME_AT_MOST,
                             .a = ex_select(pool, full, wanted, room),
                             .b = room,
                             .what = "iterations, and what scan outputs have room for",
                             .graph = p->n->graph,
                             .loc = p->n->loc};
  step_append(list, check);
}

static Step *lower_loop(Lower *l, const Node *n) {
  LoopParts p = {.n = n, .g = node_region(n, "body")};
  p.carried = p.g->inputs.n - 2;
  p.scans = p.g->outputs.n - 1 - p.carried;
  Step *s = step_new(l->mod, STEP_LOOP, n->loc);
  p.iter = value_element(l->p, p.g->inputs.data[0], 0);
  s->loop.iter = p.iter->id;
  const LoopTrip by_condition = loop_trip(l->m, n);
  s->loop.trips = p.trips = trips_symbol(l, &p, by_condition.count);
  for (int k = 0; k < p.carried; k++) place_state(l, p.g->inputs.data[k + 2], node_out(n, k));
  loop_scans(l, &p); /* before the states change: a scan output may be a state */
  loop_states(l, &p);
  loop_condition(l, &p, s, by_condition.exact);
  if (!lower_graph(l, p.g, &p.body)) return NULL;
  step_append(&p.body, p.first);
  step_append(&p.body, p.copies);
  step_append(&p.body, p.last);
  s->loop.body = p.body;
  Step *sizes = NULL, *first = NULL;
  for (int k = 0; k < p.carried; k++)
    state_sizes(l, &p, p.g->inputs.data[k + 2], n->in[k + 2], &first, &sizes);
  step_append(&p.before, first);
  step_append(&p.before, sizes);
  for (int k = 0; k < p.carried; k++) {
    const Place *state = &l->places[p.g->inputs.data[k + 2]->id];
    make_room(l, state, value_count(l->p, n->in[k + 2]), NULL, n->loc, &p.before);
    step_append(&p.before,
                lower_copy(l, n->in[k + 2], (BufRef){state->buffer, state->offset}, n->loc));
  }
  const Expr *const given = given_trip(l, &p), *const room = scan_room(l, &p);
  s->loop.trip = lesser(l, given, room);
  if (by_condition.exact) s->loop.trip = lesser(l, s->loop.trip, by_condition.count);
  const RegionSteps r = {s, {p.g, NULL}};
  vec_push(l->a, &l->regions, r);
  step_append(&p.before, s);
  if (!by_condition.exact) check_room(l, &p, s, given, room, &p.before);
  return p.before;
}

Step *lower_region(Lower *l, const Node *n) {
  switch (n->op->region) {
    case RG_IF: return lower_if(l, n);
    case RG_LOOP: return lower_loop(l, n);
    default: diag_internal(l->m->diag, n->loc, "lower: region op was not expanded"); return NULL;
  }
}
