/* See recompute.h: what of a graph lies in memory, who reads it, and what it costs by the program
 * that was made of the graph. */
#include "passes/form/recompute.h"

#include <string.h>

typedef struct Find {
  Units *u;
  int *seen; /* by position of a node: the last unit that came here, + 1 */
  int unit;
} Find;

static bool is_here(const Units *u, const Value *v) {
  return v && !v->cdata && v->def && v->def->graph == u->g;
}

/* ---- which nodes and values ---- */
static bool is_stored(const Value *v) { return v && !v->inlined && !v->cdata; }

static void add_stored(Units *u, Value *v, int unit) {
  u->of[v->id] = u->n_stored + 1;
  u->stored[u->n_stored++] = (Stored){.v = v, .unit = unit};
}

static void add_unit(Units *u, int position) {
  Node *const n = u->g->nodes.data[position];
  bool any = n->op->body == OB_REGION || n->n_syms > 0;
  for (int k = 0; k < n->n_out; k++) any = any || is_stored(n->out[k]);
  n->mark = position;
  if (!any) return;
  Unit *const unit = &u->unit[u->n];
  *unit = (Unit){.n = n, .kills = -1};
  unit->copies = (n->op->body == OB_EW || n->op->body == OB_ELEM) && !n->n_syms;
  unit->product = node_is_contraction(n);
  for (int k = 0; k < n->n_out; k++) {
    if (!is_stored(n->out[k])) continue;
    vec_push(u->a, &unit->outs, u->n_stored);
    add_stored(u, n->out[k], u->n);
  }
  unit->copies = unit->copies && unit->outs.n == 1;
  u->unit_of[position] = ++u->n;
}

/* ---- who reads what ---- */
static void add_read(Units *u, int unit, int stored) {
  Ints *const reads = &u->unit[unit].reads;
  for (int i = 0; i < reads->n; i++)
    if (reads->data[i] == stored) return;
  vec_push(u->a, reads, stored);
  vec_push(u->a, &u->stored[stored].uses, unit);
}

static bool find_read(void *user, Value *v) {
  Find *const f = user;
  Units *const u = f->u;
  if (v->id < u->c->model->next_value && u->of[v->id]) {
    add_read(u, f->unit, u->of[v->id] - 1);
    return false;
  }
  if (!is_here(u, v) || value_known(v) || u->unit_of[v->def->mark]) return false;
  const Node *const n = v->def;
  if (f->seen[n->mark] == f->unit + 1) return false;
  f->seen[n->mark] = f->unit + 1;
  Unit *const unit = &u->unit[f->unit];
  if (node_is_contraction(n)) unit->product = true;
  unit->copies = unit->copies && (n->op->body == OB_EW || n->op->body == OB_ELEM) && !n->n_syms;
  node_any_read(n, find_read, f);
  return false;
}

static bool pin(void *user, Value *v) {
  Units *const u = user;
  if (u->of[v->id]) u->stored[u->of[v->id] - 1].pinned = true;
  if (is_here(u, v) && v->inlined && value_is_view(v)) pin(u, (Value *)(uintptr_t)view_source(v));
  return false;
}

/* What is read by its name, and not through the inputs of nodes. */
static void pin_captured(Units *u, const Node *n) {
  for (int k = 0; k < n->n_syms; k++)
    if (n->syms[k].src) pin(u, n->syms[k].src);
  for (int k = 0; k < n->n_attrs; k++)
    if (n->attrs[k].kind == AT_GRAPH) graph_any_read(n->attrs[k].graph, pin, u);
}

/* ---- memory and time ---- */
static void add_bytes(Units *u, const Buffer *b) {
  if (b->kind != BUF_ARENA || !b->value || !u->of[b->value->id]) return;
  u->stored[u->of[b->value->id] - 1].bytes =
      expr_extent_guess(u->c->model->pool, b->count) * dtype_bytes(b->dtype);
}

typedef struct Written {
  const Units *u;
  const Module *m;
  int unit; /* -1: none */
} Written;

static void find_written(void *user, const BufRef *r, int access) {
  Written *const w = user;
  if (r->buffer < 0 || !(access & PA_WRITE)) return;
  const int root = buffer_root(w->m, r->buffer);
  const Value *const v = root < 0 ? NULL : w->m->buffers.data[root].value;
  if (v && w->u->of[v->id]) w->unit = w->u->stored[w->u->of[v->id] - 1].unit;
}

/* Steps that write no value prepare the next one that does. */
static void add_cycles(Units *u, const Module *m) {
  double before = 0;
  for (const Step *s = m->steps; s; s = s->next) {
    Written w = {u, m, -1};
    step_each_ref(s, find_written, &w);
    before += s->estimate.cycles;
    u->cycles += s->estimate.cycles;
    if (w.unit < 0) continue;
    u->unit[w.unit].cycles += before;
    before = 0;
  }
}

/* Pieces lie in the whole: neither goes without the other. */
static void keep_pieces(Units *u, const Unit *unit) {
  if (!(unit->n->op->flags & OF_PIECES)) return;
  for (int i = 0; i < unit->reads.n; i++)
    if (u->stored[unit->reads.data[i]].bytes == 0)
      for (int k = 0; k < unit->outs.n; k++) u->stored[unit->outs.data[k]].pinned = true;
}

static void add_kills(Units *u) {
  const Model *const m = u->c->model;
  for (int k = 0; k < m->in_place.n; k++) {
    const Value *const in = u->g->inputs.data[m->in_place.data[k].input],
                       *const out = u->g->outputs.data[m->in_place.data[k].output];
    const int at = u->of[out->id] - 1;
    if (at >= 0 && u->stored[at].unit >= 0) u->unit[u->stored[at].unit].kills = u->of[in->id] - 1;
  }
}

static void add_in_place(Units *u) {
  const Model *const m = u->c->model;
  for (int k = 0; k < m->in_place.n; k++) {
    Value *const v = u->g->inputs.data[m->in_place.data[k].input];
    if (!u->of[v->id]) add_stored(u, v, -1);
  }
}

Units *units_new(PassCtx *c, const Module *m) {
  Units *const u = ARENA_NEW(c->scratch, Units);
  Graph *const g = c->model->main;
  *u = (Units){.c = c, .a = c->scratch, .g = g};
  const int n_values = c->model->next_value;
  u->of = ARENA_ARRAY(u->a, int, n_values + 1);
  u->unit = ARENA_ARRAY(u->a, Unit, g->nodes.n + 1);
  u->unit_of = ARENA_ARRAY(u->a, int, g->nodes.n + 1);
  u->stored = ARENA_ARRAY(u->a, Stored, n_values + 1);
  add_in_place(u);
  for (int i = 0; i < g->nodes.n; i++) add_unit(u, i);
  Find f = {.u = u, .seen = ARENA_ARRAY(u->a, int, g->nodes.n + 1)};
  for (f.unit = 0; f.unit < u->n; f.unit++) {
    node_any_read(u->unit[f.unit].n, find_read, &f);
    pin_captured(u, u->unit[f.unit].n);
  }
  for (int k = 0; k < g->outputs.n; k++) pin(u, g->outputs.data[k]);
  for (int i = 0; i < m->buffers.n; i++) add_bytes(u, &m->buffers.data[i]);
  for (int i = 0; i < u->n; i++) keep_pieces(u, &u->unit[i]);
  add_cycles(u, m);
  add_kills(u);
  return u;
}
