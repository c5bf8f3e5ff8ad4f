/* The update of plain SGD by a gradient that is scattered into zeros, as that of an embedding table is,
 * becomes a scatter into the parameter: in place only rows that were looked up are read and written.
 * Several scatters, of a table that is read several times, become one. Products of the rate and rows
 * that meet are added up one by one, not in a sum of their own. */
#include <string.h>
#include "ir/op/gradient.h"
#include "passes/graph/rewrite.h"

enum { MOST = 16 }; /* scatters of one gradient */

typedef struct Scatters {
  const Uses *uses;
  const Node *of[MOST];
  int n;
} Scatters;

static bool read_once(const Scatters *s, const Value *v) {
  return v->id < s->uses->n && s->uses->of[v->id].n == 1 && !s->uses->outputs[v->id];
}

static bool is_zero(const Value *v) {
  if (v->cdata) return const_all(v->cdata, 0);
  const Node *const n = def_is(v, "Expand");
  return n && n->in[0]->cdata && const_all(n->in[0]->cdata, 0);
}

/* The index tuples as long as those of the first one. */
static bool as_long(const Scatters *s, const Node *n) {
  const Value *at = n->in[1], *first = s->n ? s->of[0]->in[1] : at;
  return at->dims[at->rank - 1] == first->dims[first->rank - 1] && at->dtype == first->dtype;
}

/* v is a sum of scatters into zeros, and nothing else reads them. */
static bool find(Scatters *s, const Value *v) {
  const Node *const n = v->def;
  if (!n || !read_once(s, v) || s->n == MOST) return false;
  if (node_is(n, "Add")) return find(s, n->in[0]) && find(s, n->in[1]);
  if (!node_is(n, "ScatterND") || strcmp(node_string(n, "reduction", "none"), "add") != 0 ||
      !is_zero(n->in[0]) || !as_long(s, n))
    return false;
  s->of[s->n++] = n;
  return true;
}

/* Input k of a scatter with all dims but the last `kept` as one. */
static Value *rows(Build *b, Value *v, int kept) {
  const int64_t all = -1;
  Value *shape[] = {build_i64s(b, 1, &all), build_shape(b, v, v->rank - kept, v->rank)};
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  if (kept == 0 || !b->ok) return b->ok ? build_reshape(b, v, 1, &all) : v;
  return build2(b, "Reshape", v, build_op(b, "Concat", 2, shape, 1, &axis));
}

static Value *joined(Build *b, const Scatters *s, int k) {
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  Value *parts[MOST];
  if (s->n == 1) return s->of[0]->in[k];
  for (int i = 0; i < s->n && b->ok; i++) {
    const Node *const n = s->of[i];
    parts[i] = rows(b, n->in[k], k == 1 ? 1 : n->in[2]->rank - n->in[1]->rank + 1);
  }
  return b->ok ? build_op(b, "Concat", s->n, parts, 1, &axis) : NULL;
}

static bool scatter(Build *b, Node *n, Value **out, const Scatters *s) {
  Value *const at = joined(b, s, 1), *const by = b->ok ? joined(b, s, 2) : NULL;
  if (!b->ok) return false;
  Value *change = build_map(b, by->dtype, "neg(a * b)", 2, (Value *[]){by, n->in[2]});
  const Attr add = attr_string(b->m->arena, "reduction", "add");
  if (b->ok) out[0] = build_op(b, "ScatterND", 3, (Value *[]){n->in[0], at, change}, 1, &add);
  return b->ok;
}

static bool rewrite(Forward *f, Node *n, bool *keep) {
  Scatters s = {.uses = f->user};
  if (strcmp(n->op->name, "Map") != 0 || n->n_in != 3 ||
      strcmp(node_string(n, "expr", ""), PLAIN_UPDATE) != 0 ||
      n->out[0]->dtype != n->in[1]->dtype || !value_same_type(n->in[0], n->in[1]) ||
      !value_one_element(n->in[2]) || !find(&s, n->in[1]))
    return true;
  Build b = {.m = f->c->model, .g = n->graph, .loc = n->loc, .ok = true};
  Value *out = NULL;
  if (!scatter(&b, n, &out, &s)) return false;
  *keep = false;
  f->c->changed = true;
  return forward_set(f, n, n->out[0], out);
}

bool pass_scatter_updates(PassCtx *c) {
  Model *m = c->model;
  if (!m->state.n || m->scheduled) return true;
  Forward f = forward_new(c);
  f.user = graph_uses(m->main, c->scratch);
  return forward_walk(&f, m->main, rewrite);
}
