/* Casts to 16 bits behind what only moves elements, in front of it: who computes the elements stores 16
 * bits, and who reads them may copy them as they are (operands of attention, which merge_products makes
 * slices of one product). Only where all readers want these 16 bits, and for GPUs, whose products store
 * any type at one price. */
#include "passes/choose/contraction.h"
#include "passes/graph/rewrite.h"

typedef struct Early {
  const Uses *uses;
} Early;

enum { MOST = 16 }; /* moves behind each other */

static bool is_cast(const Node *n, DType t) {
  return node_is(n, "Cast") && n->out[0]->dtype == t && n->in[0]->dtype == DT_F32;
}

static bool moves(const Node *n, const Value *v) {
  if (!node_moves(n) || n->n_out != 1 || n->n_syms || node_data_inputs(n) != 1) return false;
  return n->in[0] == v;
}

/* Casts of v to t, or of what moves its elements, are all that reads it. */
static bool only_cast(const Early *e, const Value *v, DType t, int depth) {
  if (depth > MOST || v->id >= e->uses->n || e->uses->outputs[v->id]) return false;
  for (int i = 0; i < e->uses->of[v->id].n; i++) {
    const Node *const n = e->uses->of[v->id].data[i];
    if (!is_cast(n, t) && !(moves(n, v) && only_cast(e, n->out[0], t, depth + 1))) return false;
  }
  return e->uses->of[v->id].n > 0;
}

/* The value whose elements v has, through moves. */
static const Value *moved_from(const Value *v) {
  for (int i = 0; i < MOST && v->def && moves(v->def, v->def->in[0]); i++) v = v->def->in[0];
  return v;
}

static Value *rebuild(Build *b, Value *v, Value *base, DType t) {
  if (v == base) return build_cast(b, base, t);
  const Node *const from = v->def;
  Value **const in = ARENA_ARRAY(b->m->arena, Value *, from->n_in + 1);
  for (int k = 1; k < from->n_in; k++) in[k] = from->in[k];
  in[0] = rebuild(b, from->in[0], base, t);
  return b->ok ? build_node(b, from->op->name, from->op->domain, from->n_in, in, 1, from->n_attrs,
                            from->attrs)
                     ->out[0]
               : NULL;
}

/* A kernel of its own computes it. */
static bool is_computed(const Value *v) {
  return v->def && !v->cdata && (v->def->op->body == OB_EW || node_is_contraction(v->def));
}

static bool rewrite_one(Forward *f, Node *n, bool *keep) {
  const Early *const e = f->user;
  if (!node_is(n, "Cast") || !dtype_is_half(n->out[0]->dtype) || n->in[0]->dtype != DT_F32)
    return true;
  const DType t = n->out[0]->dtype;
  Value *const base = (Value *)moved_from(n->in[0]);
  if (base == n->in[0] || base->def->graph != n->graph || !is_computed(base) ||
      !only_cast(e, base, t, 0))
    return true;
  Build b = {.m = f->c->model, .g = n->graph, .loc = n->loc, .ok = true};
  Value *const made = rebuild(&b, n->in[0], base, t);
  if (!b.ok) return false;
  if (!value_same_type(made, n->out[0])) return true;
  *keep = false;
  return forward_set(f, n, n->out[0], made);
}

bool pass_early_casts(PassCtx *c) {
  if (!target_has_grids(c->target)) return true;
  Early e = {.uses = graph_uses(c->model->main, c->scratch)};
  Forward f = forward_new(c);
  f.user = &e;
  return forward_walk(&f, c->model->main, rewrite_one);
}
