/* --from-scratch: how parameters begin, by what reads them. Weights of products are uniform with the
 * variance 2/fan_in (He, Zhang, Ren, Sun: Delving Deep into Rectifiers, 2015), recurrent ones within
 * 1/sqrt(hidden size), embeddings within 1/sqrt(width); what is added is 0, what scales is 1. */
#include <math.h>
#include <string.h>
#include <xxhash.h>
#include "driver/train/random.h"
#include "driver/train/trainer.h"
#include "passes/train/spec.h"

typedef struct Reading { /* by input k of n, which has the sizes of v, of initializer `name` */
  const Node *n;
  int k;
  const Value *v;
  const char *name;
} Reading;

static bool is_op(const Node *n, const char *names) { return spec_has_word(names, n->op->name); }

static int64_t size(const Value *v, int d) {
  int64_t n = 1;
  return d >= 0 && d < v->rank && expr_is_const(v->dims[d], &n) ? n : 1;
}

static double he_bound(int64_t fan_in) { return sqrt(6.0 / (double)(fan_in > 0 ? fan_in : 1)); }

/* Elements of a filter, without its two sizes of channels. */
static int64_t taps(const Value *v) {
  int64_t n = 1;
  for (int d = 2; d < v->rank; d++) n *= size(v, d);
  return n;
}

/* Steps of the product that an element of the weights takes part in. */
static int64_t product_fan_in(const Reading *r) {
  const bool left = r->k == 0,
             turned = is_op(r->n, "Gemm") && node_int(r->n, left ? "transA" : "transB", 0);
  return size(r->v, left != turned ? r->v->rank - 1 : r->v->rank - 2);
}

static InitRow uniform(const Reading *r, double bound) {
  return (InitRow){.name = r->name, .bound = bound, .known = true};
}
static InitRow all(const Reading *r, double value) {
  return (InitRow){.name = r->name, .value = value, .known = true};
}

static InitRow row_of(const Reading *r) {
  const Value *v = r->v;
  const bool second = r->k == 1;
  if (is_op(r->n, "Conv") && second) return uniform(r, he_bound(size(v, 1) * taps(v)));
  if (is_op(r->n, "ConvTranspose") && second) {
    const int64_t group = node_int(r->n, "group", 1);
    return uniform(r, he_bound(size(v, 0) / (group > 0 ? group : 1) * taps(v)));
  }
  if (is_op(r->n, "MatMul Gemm") && r->k < 2) return uniform(r, he_bound(product_fan_in(r)));
  if (is_op(r->n, "Einsum")) return uniform(r, he_bound(size(v, v->rank - 2)));
  if (is_op(r->n, "LSTM GRU RNN") && (second || r->k == 2))
    return uniform(r, 1 / sqrt((double)node_int(r->n, "hidden_size", 1)));
  if (is_op(r->n, "Gather") && r->k == 0) return uniform(r, 1 / sqrt((double)size(v, v->rank - 1)));
  if (is_op(r->n,
            "BatchNormalization InstanceNormalization LayerNormalization GroupNormalization "
            "RMSNormalization SimplifiedLayerNormalization"))
    return all(r, second || r->k == 4 ? 1 : 0);
  if (is_op(r->n, "PRelu")) return all(r, 0.25);
  if (is_op(r->n, "Mul Div")) return all(r, 1);
  if (is_op(r->n, "Add Sub Sum Conv ConvTranspose Gemm LSTM GRU RNN")) return all(r, 0);
  return (InitRow){.name = r->name};
}

/* ---- who reads an initializer, through nodes that only pass it on ---- */
typedef struct Finder {
  const char **of; /* by value: name of the initializer that it is, or NULL */
  int n;
  Arena *arena;
  InitRows *out;
} Finder;

static const char *initializer(const Finder *f, const Value *v) {
  if (!v) return NULL;
  if (v->cdata) return dtype_is_float(v->cdata->dtype) ? v->cdata->name : NULL;
  return v->id < f->n ? f->of[v->id] : NULL;
}

static bool listed(const Finder *f, const char *name) {
  for (int k = 0; k < f->out->n; k++)
    if (f->out->data[k].known && strcmp(f->out->data[k].name, name) == 0) return true;
  return false;
}

static void find_in(Finder *f, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int a = 0; a < n->n_attrs; a++)
      if (n->attrs[a].kind == AT_GRAPH) find_in(f, n->attrs[a].graph);
    for (int k = 0; k < n->n_in; k++) {
      const Reading r = {n, k, n->in[k], initializer(f, n->in[k])};
      if (!r.name) continue;
      if (k == 0 && is_op(n, "Identity Cast Transpose Reshape Squeeze Unsqueeze") &&
          n->out[0]->id < f->n)
        f->of[n->out[0]->id] = r.name;
      else if (!listed(f, r.name))
        vec_push(f->arena, f->out, row_of(&r));
    }
  }
}

void initialise_find(Model *m, InitRows *out) {
  Finder f = {.n = m->next_value, .arena = m->arena, .out = out};
  f.of = ARENA_ARRAY(m->arena, const char *, m->next_value + 1);
  find_in(&f, m->main);
}

void initialise_fill(const InitRow *r, DType t, int64_t n, uint64_t seed, void *to) {
  const uint64_t stream = XXH3_64bits(r->name, strlen(r->name));
  for (int64_t k = 0; k < n; k++)
    dtype_store_f(
        t, (char *)to + k * dtype_bytes(t),
        r->bound > 0 ? r->bound * random_signed(random_at(seed, stream, (uint64_t)k)) : r->value);
}
