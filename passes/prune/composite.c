/* Operators that are written as others (EXPAND rows): what these tie holds for them, too. Those that count
 * heads lose whole ones. */
#include <string.h>
#include "passes/prune/rules.h"

/* ---- beside the graph ---- */
typedef struct Face { /* a value of the node, in its own relation and in that of its expansion */
  int outside, inside;
} Face;
typedef struct Composite {
  PruneRelation *r, *in;
  int node;
  int32_t
      *outside; /* by root inside: an atom of the other relation that it stands for; -1: none yet */
  const char *why;
} Composite;

static PruneRelation *relate_expansion(PruneRelation *r, const Node *n, Value **out) {
  Model *m = r->m;
  const int consts = m->consts.n, assumes = m->assumes.n;
  Graph *g = graph_new(m, n->graph, "expanded");
  Build b = {.m = m, .g = g, .loc = n->loc, .ok = true};
  const bool ok = n->op->expand(&b, (Node *)(uintptr_t)n, out) && b.ok;
  PruneRelation *in = ok ? prune_relate_inside(m, g, r->a) : NULL;
  m->consts.n = consts;
  m->assumes.n = assumes;
  return in;
}

static void tie_face(Composite *c, Face f) {
  const Value *v = c->r->slots.data[f.outside].value;
  for (int d = 0; v->kind == TY_TENSOR && d < v->rank; d++) {
    prune_see(c->r, c->node, f.outside, d);
    for (int64_t i = prune_parts(c->r, f.outside, d) - 1; i >= 0; i--) {
      const int32_t atom = prune_part(c->r, f.outside, d, i),
                    inner = prune_part(c->in, f.inside, d, i);
      const int32_t root = inner < 0 ? -1 : prune_root(c->in, inner);
      if (root < 0 || c->in->frozen[root])
        prune_freeze_atom(c->r, atom, c->why);
      else if (c->outside[root] < 0)
        c->outside[root] = atom;
      else
        prune_tie(c->r, c->outside[root], atom);
    }
  }
}

/* Products inside are with what is made of weights of the node: along those that meet them. */
static void add_products(Composite *c, Face f) {
  const Value *v = c->r->slots.data[f.outside].value;
  if (!v->cdata || v->rank < 2) return;
  for (int k = 0; k < c->in->products.n; k++) {
    const PruneProduct *p = &c->in->products.data[k];
    if (!prune_size(c->in, p->slot, p->dim)) continue;
    const int32_t root = prune_root(c->in, prune_atom(c->in, p->slot, p->dim, 0));
    for (int d = 0; d < v->rank; d++)
      for (int64_t i = prune_size(c->in, f.inside, d) - 1; i >= 0; i--)
        if (prune_root(c->in, prune_atom(c->in, f.inside, d, i)) == root) {
          prune_add_product(c->r, c->node, f.outside, d);
          break;
        }
  }
}

static void tie_value(Composite *c, int outside, const Value *v) {
  if (outside < 0) return;
  for (int s = 0; s < c->in->slots.n; s++) {
    if (c->in->slots.data[s].value != v) continue;
    tie_face(c, (Face){outside, s});
    add_products(c, (Face){outside, s});
  }
}

void relate_composite(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  Value **out = ARENA_ARRAY(r->a, Value *, n->n_out + 1);
  PruneRelation *in = relate_expansion(r, n, out);
  if (!in) return; /* frozen */
  Composite c = {.r = r, .in = in, .node = node};
  c.outside = ARENA_ARRAY(r->a, int32_t, in->n_atoms + 1);
  c.why = prune_because(r, node, "computes with all of them");
  for (int32_t i = 0; i < in->n_atoms; i++) c.outside[i] = -1;
  for (int k = 0; k < n->n_in; k++) tie_value(&c, prune_slot(r, node, k), n->in[k]);
  for (int k = 0; k < n->n_out; k++) tie_value(&c, prune_result_slot(r, node, k), out[k]);
}

/* ---- heads ---- */
static bool cut_attr(Node *n, const char *name, int64_t left, int64_t all) {
  const int64_t heads = node_int(n, name, 0);
  if (heads <= 0) return true;
  if (heads * left % all)
    return op_error(n->graph->model, n, ERR_INTERNAL, "%s: a part of a head went", name);
  node_set_int(n, name, heads * left / all);
  return true;
}

/* Sizes of q, k and v in the columns of packed weights. */
static void cut_hidden(const PruneCut *c, Node *n, int w, int dim) {
  const Attr *a = node_attr(n, "qkv_hidden_sizes");
  int64_t at = 0, own[3];
  if (!a || a->kind != AT_INTS || a->n != 3 || w < 0) return;
  for (int k = 0; k < a->n; at += a->ints[k++])
    own[k] = prune_count(c, w, dim, at, at + a->ints[k]);
  n->attrs[a - n->attrs] = attr_ints(c->r->m->arena, "qkv_hidden_sizes", 3, own);
}

/* Where heads are counted: a dimension of which they are equal parts. */
static bool cut_along(const PruneCut *c, Node *n, int slot, int dim, const char *name) {
  const int64_t all = prune_size(c->r, slot, dim);
  return !all || cut_attr(n, name, prune_count(c, slot, dim, 0, all), all);
}

bool cut_heads(const PruneCut *c, Node *n, int node) {
  const bool packed = *n->op->domain && strcmp(n->op->name, "Attention") == 0;
  const int q = prune_slot(c->r, node, packed ? 1 : 0), k = prune_slot(c->r, node, 1),
            dim = packed ? 1 : 2;
  if (!packed && n->in[0]->rank != 3) return true;
  if (packed) cut_hidden(c, n, q, dim);
  return cut_along(c, n, q, dim, "num_heads") && cut_along(c, n, q, dim, "q_num_heads") &&
         cut_along(c, n, k >= 0 && !packed && node_attr(n, "q_num_heads") ? k : q, dim,
                   "kv_num_heads");
}

/* ---- RotaryEmbedding: of three dimensions, the last are heads ---- */
static int64_t head_size(const Node *n, int64_t all) {
  const int64_t heads = node_int(n, "num_heads", 0);
  const Value *cos = node_in(n, *n->op->domain ? 2 : 1);
  const int64_t half = cos ? rule_dim(cos, cos->rank - 1) : -1,
                turned = node_int(n, "rotary_embedding_dim", 0);
  return heads > 0 ? all / heads : turned > 0 || half < 0 ? all : 2 * half;
}

void relate_rotary(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const int rank = n->in[0]->rank, last = rank - 1;
  const int64_t all = prune_size(r, x, last), each = rank == 3 && all ? head_size(n, all) : all;
  for (int d = 0; d < last; d++) prune_tie_dims(r, node, x, d, y, d);
  if (rank != 3) return; /* the last is frozen */
  prune_tie_dims(r, node, x, last, y, last);
  for (int64_t i = 0; i < all; i++)
    prune_tie(r, prune_atom(r, x, last, i / each * each), prune_atom(r, x, last, i));
}
