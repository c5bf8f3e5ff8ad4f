/* Merges nodes that compute the same: same operator, attributes and inputs (exchanged ones too
 * where the operator commutes), and equal small constants. Random operators, regions and nodes that
 * assign symbols stay. A region sees what its ancestors computed. */
#include <string.h>
#include "passes/graph/rewrite.h"

enum {
  SMALL_CONST = 4096
}; /* bytes; larger constants are merged only when they are the same data */

typedef struct Scope { /* nodes seen in one graph, by hash */
  struct Scope *parent;
  NodeVec *bucket;
  int n_buckets;
} Scope;

typedef struct Cse {
  Forward f;
  Value **const_bucket[1024]; /* distinct constants; lists end in NULL */
} Cse;

/* ---- hashing and comparing ---- */

static uint64_t mix(uint64_t h, uint64_t v) {
  h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
  return h * 0xff51afd7ed558ccdu;
}

static uint64_t hash_bytes(uint64_t h, const void *p, size_t n) {
  const unsigned char *c = p;
  for (size_t i = 0; i < n; i++) h = (h ^ c[i]) * 0x100000001b3u;
  return h;
}

static int in_id(const Node *n, int k) { return n->in[k] ? n->in[k]->id : -1; }

static bool swapped(const Node *n) {
  return (n->op->flags & OF_COMMUTES) && n->n_in >= 2 && in_id(n, 0) > in_id(n, 1);
}

static int key_in(const Node *n, int k) { return in_id(n, k < 2 && swapped(n) ? 1 - k : k); }

static uint64_t node_hash(const Node *n) {
  uint64_t h = hash_bytes(1, n->op->name, strlen(n->op->name));
  for (int k = 0; k < n->n_in; k++) h = mix(h, (uint64_t)key_in(n, k));
  return mix(h, (uint64_t)n->n_attrs);
}

static bool same_const(const ConstData *a, const ConstData *b) {
  if (a == b) return true;
  if (a->dtype != b->dtype || a->rank != b->rank ||
      memcmp(a->dims, b->dims, sizeof *a->dims * (size_t)a->rank) != 0)
    return false;
  const int64_t bytes = a->count * dtype_bytes(a->dtype);
  if (a->data == b->data) return true;
  return a->dtype != DT_STR && bytes <= SMALL_CONST && memcmp(a->data, b->data, (size_t)bytes) == 0;
}

static bool same_attr(const Attr *a, const Attr *b) {
  if (a->kind != b->kind || a->n != b->n || strcmp(a->name, b->name) != 0) return false;
  const size_t n = (size_t)a->n;
  switch (a->kind) {
    case AT_INT:
    case AT_INTS: return n == 0 || memcmp(a->ints, b->ints, n * sizeof *a->ints) == 0;
    case AT_FLOAT:
    case AT_FLOATS: return n == 0 || memcmp(a->floats, b->floats, n * sizeof *a->floats) == 0;
    case AT_TENSOR: return same_const(a->tensor, b->tensor);
    case AT_GRAPH: return false;
    default: break;
  }
  for (size_t i = 0; i < n; i++)
    if (strcmp(a->strs[i], b->strs[i]) != 0) return false;
  return true;
}

static bool same_attrs(const Node *a, const Node *b) {
  if (a->n_attrs != b->n_attrs) return false;
  for (int i = 0; i < a->n_attrs; i++) {
    const Attr *x = node_attr(b, a->attrs[i].name);
    if (!x || !same_attr(&a->attrs[i], x)) return false;
  }
  return true;
}

static bool same_layout(const Value *a, const Value *b) {
  if (a->layout.halo_lo || b->layout.halo_lo || a->layout.halo_hi || b->layout.halo_hi)
    return false;
  if (a->layout.pad != b->layout.pad) return false;
  if (!a->layout.perm || !b->layout.perm) return a->layout.perm == b->layout.perm;
  return memcmp(a->layout.perm, b->layout.perm, (size_t)a->rank) == 0;
}

/* Everything that b gives, a gives too. */
static bool covers(const Node *a, const Node *b) {
  if (a->op != b->op || a->n_in != b->n_in || a->n_out < b->n_out) return false;
  for (int k = 0; k < a->n_in; k++)
    if (key_in(a, k) != key_in(b, k)) return false;
  for (int k = 0; k < b->n_out; k++) {
    const Value *v = a->out[k], *w = b->out[k];
    if (w && (!v || !value_same_type(v, w) || !same_layout(v, w))) return false;
  }
  return same_attrs(a, b);
}

/* ---- constants ---- */

/* The first constant seen that equals v; v itself when it is new. */
static Value *const_twin(Cse *c, Value *v) {
  const ConstData *d = v->cdata;
  const int64_t bytes = d->count * dtype_bytes(d->dtype);
  uint64_t h = mix(mix(1, (uint64_t)d->dtype), (uint64_t)d->count);
  if (d->dtype != DT_STR) h = hash_bytes(h, d->data, (size_t)(bytes < 64 ? bytes : 64));
  Value **head = c->const_bucket[h % 1024];
  int n = 0;
  for (; head && head[n]; n++)
    if (head[n] == v || same_const(head[n]->cdata, d)) return head[n];
  Value **list = ARENA_ARRAY(c->f.c->scratch, Value *, n + 2);
  if (n) memcpy(list, head, sizeof *list * (size_t)n);
  list[n] = v;
  c->const_bucket[h % 1024] = list;
  return v;
}

static void merge_consts(Cse *c, Node *n) {
  for (int k = 0; k < n->n_in; k++) {
    if (!n->in[k] || !n->in[k]->cdata) continue;
    Value *twin = const_twin(c, n->in[k]);
    if (twin != n->in[k]) c->f.c->changed = true;
    n->in[k] = twin;
  }
}

/* ---- the pass ---- */

static bool may_merge(const Node *n) {
  if ((n->op->flags & OF_RANDOM) || n->op->body == OB_REGION || n->n_syms) return false;
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && (n->out[k]->inlined || n->out[k]->kind == TY_NONE)) return false;
  return true;
}

static Node *find_twin(const Scope *s, const Node *n, uint64_t h) {
  for (; s; s = s->parent)
    for (int i = 0; i < s->bucket[h % (uint64_t)s->n_buckets].n; i++) {
      Node *x = s->bucket[h % (uint64_t)s->n_buckets].data[i];
      if (covers(x, n)) return x;
    }
  return NULL;
}

static bool merge_graph(Cse *c, Graph *g, Scope *parent) {
  Arena *a = c->f.c->scratch;
  Scope s = {.parent = parent, .n_buckets = g->nodes.n * 2 + 1};
  int kept = 0;
  s.bucket = arena_alloc_array(a, (size_t)s.n_buckets, sizeof *s.bucket);
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    forward_node(&c->f, n);
    merge_consts(c, n);
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && !merge_graph(c, n->attrs[k].graph, &s)) return false;
    const uint64_t h = node_hash(n);
    Node *twin = may_merge(n) ? find_twin(&s, n, h) : NULL;
    for (int k = 0; twin && k < n->n_out; k++)
      if (n->out[k] && !forward_set(&c->f, n, n->out[k], twin->out[k])) return false;
    if (twin) continue;
    vec_push(a, &s.bucket[h % (uint64_t)s.n_buckets], n);
    g->nodes.data[kept++] = n;
  }
  g->nodes.n = kept;
  forward_outputs(&c->f, g);
  return true;
}

bool pass_cse(PassCtx *ctx) {
  Cse *c = ARENA_NEW(ctx->scratch, Cse);
  c->f = forward_new(ctx);
  return merge_graph(c, ctx->model->main, NULL);
}
