/* ONNX asks for nodes in topological order; files that are not are sorted here. A node depends on
 * what it reads and on what its regions read from outside. */
#include <string.h>
#include "frontend/scope/scope.h"

typedef Onnx__NodeProto NodeProto;

static void region_reads(Arena *a, const Onnx__GraphProto *g, Names *out);

void node_reads(Arena *a, const NodeProto *n, Names *out) {
  for (size_t k = 0; k < n->n_input; k++)
    if (*n->input[k]) vec_push(a, out, n->input[k]);
  for (size_t k = 0; k < n->n_attribute; k++)
    if (n->attribute[k]->g) region_reads(a, n->attribute[k]->g, out);
}

/* Names read in g (or deeper) that g does not define. */
static void region_reads(Arena *a, const Onnx__GraphProto *g, Names *out) {
  StrMap own = {0};
  Names reads = {0};
  for (size_t k = 0; k < g->n_initializer; k++)
    if (g->initializer[k]->name) strmap_put(a, &own, g->initializer[k]->name, &own);
  for (size_t k = 0; k < g->n_input; k++)
    if (g->input[k]->name) strmap_put(a, &own, g->input[k]->name, &own);
  for (size_t k = 0; k < g->n_node; k++) {
    for (size_t i = 0; i < g->node[k]->n_output; i++)
      strmap_put(a, &own, g->node[k]->output[i], &own);
    node_reads(a, g->node[k], &reads);
  }
  for (size_t k = 0; k < g->n_output; k++)
    if (g->output[k]->name) vec_push(a, &reads, g->output[k]->name);
  for (int k = 0; k < reads.n; k++)
    if (!strmap_get(&own, reads.data[k])) vec_push(a, out, reads.data[k]);
}

typedef struct Visit {
  int node, next; /* next: dependency to look at */
  Names reads;
} Visit;

typedef struct Order {
  Import *im;
  const Scope *scope; /* holds the inputs and initializers */
  Arena *a;
  NodeProto *const *nodes;
  int n;
  StrMap makers;  /* output name → node + 1 */
  uint8_t *state; /* 0 not seen, 1 on the path, 2 placed */
  Vec(Visit) path;
  int *order, placed;
} Order;

static int maker_of(const Order *o, const char *name) {
  return (int)(intptr_t)strmap_get(&o->makers, name) - 1;
}

static void enter(Order *o, int node) {
  Visit v = {.node = node};
  node_reads(o->a, o->nodes[node], &v.reads);
  o->state[node] = 1;
  vec_push(o->a, &o->path, v);
}

static bool is_sorted(Order *o) {
  for (int k = 0; k < o->n; k++) {
    Names reads = {0};
    node_reads(o->a, o->nodes[k], &reads);
    for (int i = 0; i < reads.n; i++)
      if (maker_of(o, reads.data[i]) >= k) return false;
  }
  return true;
}

static bool cycle(Order *o, const Loc *loc, int node, const char *name) {
  Loc l = *loc;
  l.node = node;
  l.node_name = o->nodes[node]->name;
  l.op = o->nodes[node]->op_type;
  l.domain = o->nodes[node]->domain;
  return diag_error(o->im->d, &l, ERR_CYCLE, "the node's result \"%s\" is needed to compute it",
                    name);
}

static bool place_from(Order *o, int root, const Loc *loc) {
  enter(o, root);
  while (o->path.n) {
    Visit *v = &o->path.data[o->path.n - 1];
    if (v->next == v->reads.n) {
      o->state[v->node] = 2;
      o->order[o->placed++] = v->node;
      o->path.n--;
      continue;
    }
    const char *name = v->reads.data[v->next++];
    const int maker = maker_of(o, name);
    if (maker < 0 || o->state[maker] == 2) continue;
    if (o->state[maker] == 1) return cycle(o, loc, maker, name);
    enter(o, maker);
  }
  return true;
}

static bool place_all(Order *o, const Loc *loc) {
  for (int k = 0; k < o->n; k++)
    for (size_t i = 0; i < o->nodes[k]->n_output; i++)
      if (*o->nodes[k]->output[i] && maker_of(o, o->nodes[k]->output[i]) < 0 &&
          !strmap_get(&o->scope->values,
                      o->nodes[k]->output[i])) /* else it is defined twice, which is found later */
        strmap_put(o->a, &o->makers, o->nodes[k]->output[i], (void *)(intptr_t)(k + 1));
  for (int k = 0; k < o->n; k++) o->order[k] = k;
  if (is_sorted(o)) return true;
  o->state = arena_alloc(o->a, (size_t)o->n);
  for (int k = 0; k < o->n; k++)
    if (o->state[k] == 0 && !place_from(o, k, loc)) return false;
  return true;
}

bool node_order(Import *im, const Scope *s, NodeProto *const *nodes, int n, const Loc *loc,
                int *order) {
  Order o = {
      .im = im, .scope = s, .a = arena_child(im->scratch), .nodes = nodes, .n = n, .order = order};
  const bool ok = place_all(&o, loc);
  arena_free(o.a);
  return ok;
}
