/* What rules of gradients build with (gradient.h), and the rule that needs none: derivatives of
 * elementwise operators, whose scalar expression is differentiated and becomes the text of a Map. */
#include <ctype.h>
#include <string.h>
#include "ir/expr/expr_query.h"
#include "ir/op/gradient.h"
#include "ir/op/ops.h"

Value *build_map(Build *b, DType t, const char *text, int n, Value *const *in) {
  if (!b->ok) return in[0];
  const Attr attrs[2] = {attr_string(b->m->arena, "expr", text),
                         attr_int(b->m->arena, "to", dtype_rows[t].onnx)};
  return build_node(b, "Map", "burin", n, in, 1, 2, attrs)->out[0];
}

const char *build_number(const Build *b, DType t, double v) {
  return expr_text(b->m->pool, ex_float(b->m->pool, t, v));
}

static Value *reduced(Build *b, const char *op, Value *v, int n, const int64_t *axes, bool keep) {
  if (!b->ok || n == 0) return v;
  const Attr a = attr_int(b->m->arena, "keepdims", keep);
  return build_op(b, op, 2, (Value *[]){v, build_i64s(b, n, axes)}, 1, &a);
}

Value *build_sum(Build *b, Value *v, int n, const int64_t *axes, bool keep) {
  return reduced(b, "ReduceSum", v, n, axes, keep);
}

Value *build_sum_all(Build *b, Value *v) {
  int64_t axes[MAX_RANK];
  for (int d = 0; d < v->rank; d++) axes[d] = d;
  return build_sum(b, v, v->rank, axes, false);
}

Value *build_mean(Build *b, Value *v, int n, const int64_t *axes, bool keep) {
  return reduced(b, "ReduceMean", v, n, axes, keep);
}

Value *build_reshape_like(Build *b, Value *v, const Value *like) {
  if (!b->ok || value_same_shape(v, like)) return v;
  const Attr zero = attr_int(b->m->arena, "allowzero", 1);
  return build_op(b, "Reshape", 2, (Value *[]){v, build_shape_of(b, like)}, 1, &zero);
}

Value *build_full_like(Build *b, const Value *like, double v) {
  Value *one = build_scalar(b, like->dtype, v);
  return like->rank == 0 ? one : build2(b, "Expand", one, build_shape_of(b, like));
}

Value *build_sum_to(Build *b, Value *v, const Value *like) {
  if (!b->ok || value_same_shape(v, like)) return v;
  int64_t axes[MAX_RANK];
  int n = 0;
  const int more = v->rank - like->rank;
  for (int d = 0; d < v->rank; d++) {
    const bool own = d >= more;
    if (!own || (expr_is_i64(like->dims[d - more], 1) && !expr_is_i64(v->dims[d], 1)))
      axes[n++] = d;
    else if (dims_broadcast(b->m->pool, like->dims[d - more], v->dims[d]))
      return build_node(b, "SumTo", "burin", 2, (Value *[]){v, (Value *)(uintptr_t)like}, 1, 0,
                        NULL)
          ->out[0];
  }
  return build_reshape_like(b, build_sum(b, v, n, axes, false), like);
}

/* ---- derivatives of elementwise operators ---- */
typedef struct Scalars {
  ElemCtx c;
  const Gradient *s;
  const Node *n;
  const Expr *idx[MAX_RANK]; /* of the output */
  const Value *values[26];   /* distinct inputs, by number of their holes */
  int count;
  bool elementwise;
} Scalars;

static bool is_own_index(const Scalars *s, const Value *v, const Expr *const *idx) {
  const Value *out = s->n->out[0];
  for (int d = 0; d < v->rank; d++) {
    const int at = d + out->rank - v->rank;
    if (at < 0 || (idx[d] != s->idx[at] && !expr_is_i64(v->dims[d], 1) &&
                   idx[d] != bcast_index(s->c.pool, v->dims[d], out->dims[at], s->idx[at])))
      return false;
  }
  return true;
}

/* Constants of one element are part of the expression: a bound of Clip, an exponent. Sizes are not:
 * a text that depended on them would look like one of its inputs alone. */
static const Expr *read_hole(ElemCtx *c, const Value *v, const Expr *const *idx,
                             const Expr *guard) {
  Scalars *s = c->user;
  const bool fixed = value_one_element(v) && !gradient_wants(s->s, v);
  const Expr *constant = fixed ? value_element(c->pool, v, 0) : NULL;
  if (constant && !(constant->flags & EXF_SYM)) return constant;
  if (guard || !is_own_index(s, v, idx)) s->elementwise = false;
  int k = 0;
  while (k < s->count && s->values[k] != v) k++;
  if (k == 26) {
    s->elementwise = false;
    k = 0;
  } else if (k == s->count) {
    s->values[s->count++] = v;
  }
  return ex_hole(c->pool, v->dtype, k);
}

/* The text of e with letters for holes: ?0f32 is a. */
static const char *map_text(Model *m, const Expr *e) {
  const char *text = expr_text(m->pool, e);
  StrBuf b = {.arena = m->arena};
  while (*text) {
    if (*text != '?') {
      sb_putc(&b, *text++);
      continue;
    }
    int k = 0;
    for (text++; isdigit((unsigned char)*text); text++) k = 10 * k + (*text - '0');
    while (isalnum((unsigned char)*text) || *text == '_') text++;
    sb_putc(&b, (char)('a' + k));
  }
  return sb_str(&b);
}

static const Expr *scalar_of(Scalars *s, int out, const Expr *g, const char **error) {
  const OpRow *row = s->n->op;
  if (row->gradient_kind == GK_DERIVED) return op_elem(&s->c, s->n, out, s->idx);
  return op_elem_text(&s->c, s->n, s->idx, row->adjoint, false, g, error);
}

/* What a Map reads: the distinct inputs, the gradient, the result. */
typedef struct MapInputs {
  Value *v[28];
  int n;
} MapInputs;

/* d = the part of in[k]'s gradient that comes by an output with the gradient g: a Map of what d
 * holds. */
static bool give_map(Gradient *s, const MapInputs *all, int k, const Expr *d, Value *g) {
  ExprPool *p = s->b->m->pool;
  Value *in[28], *v = all->v[k];
  const Expr *own = ex_hole(p, g->dtype, all->n - 2);
  if (d == own) return gradient_give(s, v, build_sum_to(s->b, g, v));
  int n = 0;
  for (int i = 0; i < all->n; i++) {
    const Expr *hole = ex_hole(p, all->v[i]->dtype, i);
    if (!expr_contains(p, d, hole)) continue;
    d = expr_subst(p, d, hole, ex_hole(p, all->v[i]->dtype, n));
    in[n++] = all->v[i];
  }
  if (!n) return true; /* what gradients are multiplied by is 0 */
  const bool casts = d->op == EX_cast && d->a[0] == ex_hole(p, in[0]->dtype, 0);
  Value *map = casts ? build_cast(s->b, in[0], v->dtype)
                     : build_map(s->b, v->dtype, map_text(s->b->m, d), n, in);
  return s->b->ok && gradient_give(s, v, build_sum_to(s->b, map, v));
}

/* d by the result, whose scalar is e, where the input is then not read again: exp(a), max(a, 0). */
static const Expr *by_result(ExprPool *p, const Expr *d, const Expr *e, const Expr *input,
                             const Expr *result) {
  if (e->op == EX_HOLE || e->dtype != result->dtype) return d;
  const Expr *by = expr_replace(p, d, 1, &e, &result);
  return expr_contains(p, by, input) ? d : by;
}

static bool derive_output(Gradient *s, int out) {
  ExprPool *p = s->b->m->pool;
  const Node *n = s->n;
  Scalars q = {.s = s, .n = n, .elementwise = true};
  q.c = (ElemCtx){.pool = p, .model = s->b->m, .read = read_hole, .user = &q};
  for (int d = 0; d < n->out[out]->rank; d++) q.idx[d] = ex_var(p, "i", n->out[out]->dims[d]);
  const char *error = NULL;
  const Expr *g = ex_hole(p, n->out[out]->dtype, 100), *holes[26], *parts[26];
  const Expr *e = scalar_of(&q, out, ex_cast(p, dtype_compute((DType)g->dtype), g), &error);
  if (!e || !q.elementwise || q.count >= 24 || (e->flags & (EXF_VAR | EXF_LOAD | EXF_REDUCE)))
    return diag_internal(s->b->m->diag, n->loc, "%s is not elementwise: no gradient is derived%s%s",
                         n->op->name, error ? ": " : "", error ? error : "");
  for (int k = 0; k < q.count; k++) holes[k] = ex_hole(p, q.values[k]->dtype, k);
  const Expr *own = ex_hole(p, n->out[out]->dtype, q.count); /* g, numbered behind the inputs */
  if (n->op->gradient_kind == GK_TEXT) {
    parts[0] = ex_cast(p, n->in[0]->dtype, expr_subst(p, e, g, own));
  } else if (!expr_adjoint(p, e, own, q.count, holes, parts)) {
    return diag_internal(s->b->m->diag, n->loc, "%s cannot be differentiated", n->op->name);
  }
  const int given = n->op->gradient_kind == GK_TEXT ? 1 : q.count;
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k]) gradient_none(s, n->in[k]); /* but for what follows */
  MapInputs all = {.n = q.count + 2};
  for (int k = 0; k < q.count; k++) all.v[k] = (Value *)(uintptr_t)q.values[k];
  all.v[q.count] = s->g[out];
  all.v[q.count + 1] = n->out[out];
  const Expr *result = ex_hole(p, n->out[out]->dtype, q.count + 1);
  for (int k = 0; k < given; k++) {
    if (!parts[k] || !gradient_wants(s, q.values[k])) continue;
    if (n->op->gradient_kind == GK_DERIVED) parts[k] = by_result(p, parts[k], e, holes[k], result);
    if (!give_map(s, &all, k, parts[k], s->g[out])) return false;
  }
  return true;
}

bool gradient_derived(Gradient *s) {
  for (int out = 0; out < s->n->n_out; out++)
    if (s->g[out] && !derive_output(s, out)) return false;
  return true;
}
