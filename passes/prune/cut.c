/* The graph without the units that are gone; and its counterpart of the same sizes. */
#include <string.h>
#include "passes/prune/prune.h"

bool prune_stays(const PruneCut *c, int slot, int dim, int64_t index) {
  const int32_t atom = prune_atom(c->r, slot, dim, index);
  return atom < 0 || !c->gone[prune_root(c->r, atom)];
}

int64_t prune_count(const PruneCut *c, int slot, int dim, int64_t from, int64_t to) {
  int64_t n = 0;
  for (int64_t i = from; i < to; i++) n += prune_stays(c, slot, dim, i);
  return n;
}

bool prune_changes(const PruneCut *c, int slot, int dim) {
  const int64_t n = prune_size(c->r, slot, dim);
  return n > 0 && prune_count(c, slot, dim, 0, n) < n;
}

static PruneCut cut_of(PruneRelation *r) {
  bool *gone = ARENA_ARRAY(r->a, bool, r->n_atoms + 1);
  for (int k = 0; k < r->units.n; k++)
    if (r->units.data[k].gone) gone[r->units.data[k].root] = true;
  return (PruneCut){r, gone};
}

/* ---- constants ---- */
typedef struct Shrunk { /* readers that keep the same parts share one constant */
  const ConstData *from;
  Value *to;
} Shrunk;
typedef Vec(Shrunk) ShrunkList;

/* Copies rows [at, …) along dimension d and all behind it. */
static char *copy_part(const PruneCut *c, int slot, const ConstData *w, int d, int64_t at,
                       char *to) {
  const size_t size = (size_t)dtype_bytes(w->dtype);
  if (d == w->rank) return memcpy(to, (const char *)w->data + (size_t)at * size, size), to + size;
  for (int64_t i = 0; i < w->dims[d]; i++)
    if (prune_stays(c, slot, d, i)) to = copy_part(c, slot, w, d + 1, at * w->dims[d] + i, to);
  return to;
}

static Value *shrink(const PruneCut *c, int slot, ShrunkList *done) {
  Model *m = c->r->m;
  const ConstData *w = c->r->slots.data[slot].value->cdata;
  int64_t dims[MAX_RANK], count = 1;
  const size_t size = (size_t)dtype_bytes(w->dtype);
  for (int d = 0; d < w->rank; d++) {
    dims[d] = prune_count(c, slot, d, 0, w->dims[d]);
    count *= dims[d];
  }
  char *data = arena_alloc(m->arena, (size_t)count * size + 1);
  copy_part(c, slot, w, 0, 0, data);
  for (int k = 0; k < done->n; k++) {
    const ConstData *old = done->data[k].to->cdata;
    if (done->data[k].from == w && old->count == count &&
        memcmp(old->dims, dims, sizeof *dims * (size_t)w->rank) == 0 &&
        memcmp(old->data, data, (size_t)count * size) == 0)
      return done->data[k].to;
  }
  Value *v = value_const(m, const_new(m, w->name, w->dtype, w->rank, dims, data));
  vec_push(c->r->a, done, (Shrunk){w, v});
  return v;
}

static void shrink_inputs(const PruneCut *c, Node *n, int node, ShrunkList *done) {
  for (int k = 0; k < n->n_in; k++) {
    const int s = prune_slot(c->r, node, k);
    bool changes = false;
    if (s < 0 || !n->in[k]->cdata || n->in[k]->dtype == DT_STR) continue;
    for (int d = 0; d < n->in[k]->rank; d++) changes |= prune_changes(c, s, d);
    if (changes) n->in[k] = shrink(c, s, done);
  }
}

bool prune_cut(PruneRelation *r) {
  const PruneCut c = cut_of(r);
  Graph *g = r->m->main;
  ShrunkList done = {0};
  for (int i = 0; i < r->n_nodes; i++) {
    Node *n = r->nodes[i];
    const PruneRule *rule = prune_rule(n);
    shrink_inputs(&c, n, i, &done);
    if (rule && rule->cut && !rule->cut(&c, n, i)) return false;
  }
  graph_forget_contents(g);
  r->m->assumes.n = 0;
  return graph_infer(g);
}

/* ---- the same without new sizes ---- */
static void silence_part(const PruneCut *c, int slot, int dim, const ConstData *w, char *data) {
  const size_t size = (size_t)dtype_bytes(w->dtype);
  int64_t inner = 1;
  for (int d = dim + 1; d < w->rank; d++) inner *= w->dims[d];
  for (int64_t i = 0; i < w->count; i++)
    if (!prune_stays(c, slot, dim, i / inner % w->dims[dim]))
      memset(data + (size_t)i * size, 0, size);
}

void prune_silence(PruneRelation *r) {
  const PruneCut c = cut_of(r);
  Model *m = r->m;
  for (int k = 0; k < r->products.n; k++) {
    const PruneProduct *p = &r->products.data[k];
    Node *n = m->main->nodes.data[p->node];
    const Value *old = r->slots.data[p->slot].value;
    if (!prune_changes(&c, p->slot, p->dim)) continue;
    for (int i = 0; i < n->n_in; i++) {
      if (prune_slot(r, p->node, i) != p->slot) continue;
      const ConstData *w = n->in[i]->cdata;
      char *data = arena_dup(m->arena, w->data, (size_t)w->count * (size_t)dtype_bytes(w->dtype));
      silence_part(&c, p->slot, p->dim, w, data);
      n->in[i] = value_const(m, const_new(m, old->name, w->dtype, w->rank, w->dims, data));
    }
  }
}
