/* Constants in the order in which threads read them: what is read with strides along the innermost
 * loop (weights of a depthwise convolution, whose taps follow each other) is copied while the model is
 * compiled, that loop's elements side by side. */
#include <string.h>

#include "ir/expr/expr_query.h"
#include "passes/grid/patch.h"

enum { MOST_VARS = 8, MOST_ELEMENTS = 1 << 20, MOST_TIMES = 4 };

typedef struct Weights {
  KernelBuild *b;
  ExprPool *p;
  const Expr *along;
  ExprList loads;
} Weights;

/* An index that is a sum of variables: strides in the data there is, the innermost first. */
typedef struct Order {
  const Expr *var[MOST_VARS];
  int64_t stride[MOST_VARS], extent[MOST_VARS];
  int n;
  int64_t base, count;
} Order;

static bool add_var(const Weights *w, Order *o, const ExprTerm *term) {
  const Expr *const var = term->product;
  const Expr *const lo = var->op == EX_VAR ? expr_var_lo(w->p, var->id) : NULL;
  if (var->op != EX_VAR || o->n == MOST_VARS || (lo && !expr_is_i64(lo, 0))) return false;
  int at = o->n++;
  /* the innermost loop's first, then by stride */
  while (at > 0 && o->var[at - 1] != w->along &&
         (var == w->along || o->stride[at - 1] > term->coeff)) {
    o->var[at] = o->var[at - 1];
    o->stride[at] = o->stride[at - 1];
    o->extent[at] = o->extent[at - 1];
    at--;
  }
  o->var[at] = var;
  o->stride[at] = term->coeff;
  return expr_is_const(expr_var_extent(w->p, var->id), &o->extent[at]);
}

static bool read_order(const Weights *w, const Expr *index, Order *o) {
  ExprTerm term[MOST_VARS + 1];
  const int n = expr_terms(w->p, index, term, MOST_VARS + 1);
  *o = (Order){.count = 1};
  for (int i = 0; i < n; i++) {
    if (!term[i].product)
      o->base = term[i].coeff;
    else if (!add_var(w, o, &term[i]))
      return false;
  }
  for (int i = 0; i < o->n; i++) {
    if (o->extent[i] < 1 || o->count > MOST_ELEMENTS) return false;
    o->count *= o->extent[i];
  }
  return n > 0 && o->n > 0 && o->var[0] == w->along && o->stride[0] != 1;
}

static const ConstData *data_of(const Weights *w, const Expr *load) {
  const BufRef *const r = &w->b->refs.data[load->id];
  if (r->buffer < 0 || r->offset || load->a[1]) return NULL;
  const Buffer *const buffer = &w->b->l->mod->buffers.data[r->buffer];
  return buffer->kind == BUF_WEIGHT && dtype_bytes(buffer->dtype) > 0 ? buffer->data : NULL;
}

static bool fits(const Order *o, const ConstData *d) {
  int64_t least = o->base, most = o->base;
  for (int i = 0; i < o->n; i++)
    *(o->stride[i] < 0 ? &least : &most) += o->stride[i] * (o->extent[i] - 1);
  return least >= 0 && most < d->count && o->count <= MOST_ELEMENTS &&
         o->count <= MOST_TIMES * d->count;
}

static const ConstData *reordered(const Weights *w, const Order *o, const ConstData *d) {
  const size_t bytes = (size_t)dtype_bytes(d->dtype);
  char *const to = arena_alloc(w->b->l->m->arena, (size_t)o->count * bytes);
  for (int64_t i = 0; i < o->count; i++) {
    int64_t from = o->base, rest = i;
    for (int k = 0; k < o->n; k++) {
      from += rest % o->extent[k] * o->stride[k];
      rest /= o->extent[k];
    }
    memcpy(to + (size_t)i * bytes, (const char *)d->data + (size_t)from * bytes, bytes);
  }
  return const_new(w->b->l->m, d->name, d->dtype, 1, &o->count, to);
}

static void find(void *user, const Expr *load) {
  Weights *const w = user;
  if (expr_uses_var(load, w->along->id)) vec_push(w->b->l->a, &w->loads, load);
}

/* The load from a copy; NULL: it stays as it is. */
static const Expr *from_copy(Weights *w, const Expr *load) {
  const ConstData *const d = data_of(w, load);
  Order o;
  if (!d || !read_order(w, load->a[0], &o) || !fits(&o, d)) return NULL;
  Module *const m = w->b->l->mod;
  const ConstData *const copy = reordered(w, &o, d);
  Buffer *const buffer =
      module_add_buffer(m, BUF_WEIGHT, copy->dtype, ex_i64(w->p, copy->count), NULL);
  buffer->data = copy;
  const Expr *index = ex_i64(w->p, 0);
  int64_t step = 1;
  for (int k = 0; k < o.n; k++) {
    index = ex_add(w->p, index, ex_mul(w->p, o.var[k], ex_i64(w->p, step)));
    step *= o.extent[k];
  }
  const int id = kb_param(w->b, buffer->id, NULL, PA_READ);
  return ex_load(w->p, (DType)load->dtype, id, index, NULL);
}

const Expr *patch_weights(KernelBuild *b, const Expr *value, const Expr *along) {
  Weights w = {.b = b, .p = b->l->p, .along = along};
  expr_each_load(w.p, value, find, &w);
  for (int i = 0; i < w.loads.n; i++) {
    const Expr *const from = w.loads.data[i], *const to = from_copy(&w, from);
    if (to) value = expr_replace(w.p, value, 1, &from, &to);
  }
  return value;
}
