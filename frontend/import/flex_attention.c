/* FlexAttention (ai.onnx.preview 1): two products around a softmax, with graphs of the model's own
 * between them, which are put in place here. Query heads that share a key head become further rows
 * of one matrix, so that keys and values are not repeated. */
#include <math.h>
#include <string.h>

#include "frontend/scope/scope.h"

typedef struct Flex { /* one node */
  Import *im;
  Scope *s;
  const Onnx__NodeProto *p;
  const Loc *loc;
  const Value *q, *k, *v;
  int64_t q_heads, kv_heads;
  DType precision; /* of the softmax */
  double scale;
} Flex;

bool flex_attention_known(const char *domain, const char *op) {
  return strcmp(domain, "ai.onnx.preview") == 0 && strcmp(op, "FlexAttention") == 0;
}

/* ---- what the node says ---- */
static const Onnx__AttributeProto *find_attr(const Flex *f, const char *name) {
  for (size_t k = 0; k < f->p->n_attribute; k++)
    if (f->p->attribute[k]->name && strcmp(f->p->attribute[k]->name, name) == 0)
      return f->p->attribute[k];
  return NULL;
}

static bool known_heads(const Flex *f, const Value *v, int64_t *heads) {
  return expr_is_const(v->dims[1], heads) && *heads > 0;
}

static bool read_flex(Flex *f, Value *const *in) {
  Diag *const d = f->im->d;
  int64_t size, v_heads;
  if (f->p->n_input != 3 || f->p->n_output != 1 || !in[0] || !in[1] || !in[2])
    return diag_error(d, f->loc, ERR_ARITY, "FlexAttention has three inputs and one output");
  f->q = in[0];
  f->k = in[1];
  f->v = in[2];
  for (int k = 0; k < 3; k++)
    if (in[k]->kind != TY_TENSOR || in[k]->rank != 4 || !dtype_is_float(in[k]->dtype) ||
        in[k]->dtype != in[0]->dtype)
      return diag_error(d, f->loc, ERR_TYPE, "FlexAttention needs floats of one type and rank 4");
  if (!known_heads(f, f->q, &f->q_heads) || !known_heads(f, f->k, &f->kv_heads) ||
      !known_heads(f, f->v, &v_heads))
    return diag_error(d, f->loc, ERR_DYNAMIC, "the number of heads is not known");
  if (f->q_heads % f->kv_heads || v_heads != f->kv_heads)
    return diag_error(d, f->loc, ERR_SHAPE, "%lld query, %lld key and %lld value heads",
                      (long long)f->q_heads, (long long)f->kv_heads, (long long)v_heads);
  const Onnx__AttributeProto *const scale = find_attr(f, "scale"), *const type = find_attr(
                                                                       f, "softmax_precision");
  if (!scale && !expr_is_const(f->q->dims[3], &size))
    return diag_error(d, f->loc, ERR_DYNAMIC, "the head size is not known, and no scale given");
  f->scale = scale ? scale->f : 1 / sqrt((double)size);
  f->precision = type ? dtype_from_onnx(type->i) : f->q->dtype == DT_F64 ? DT_F64 : DT_F32;
  return dtype_is_float(f->precision) ||
         diag_error(d, f->loc, ERR_ATTR_VALUE, "softmax_precision is no float type");
}

/* ---- nodes ---- */
static Value *emit(Flex *f, const char *op, int n, Value *const *in, int n_attrs,
                   const Attr *attrs) {
  for (int k = 0; k < n; k++)
    if (!in[k]) return NULL; /* reported */
  return import_value(f->im, f->s->graph, op_find("", op), n, in, n_attrs, attrs, f->loc);
}

static Value *emit2(Flex *f, const char *op, Value *a, Value *b) {
  return emit(f, op, 2, (Value *[]){a, b}, 0, NULL);
}

static Value *cast(Flex *f, Value *v, DType t) {
  const Attr to = attr_int(f->im->arena, "to", dtype_rows[t].onnx);
  return !v || v->dtype == t ? v : emit(f, "Cast", 1, &v, 1, &to);
}

static Value *reshape(Flex *f, Value *v, const int64_t dims[4]) {
  return emit2(f, "Reshape", v, value_const_i64s(f->im->m, 1, 4, dims));
}

/* Heads that share a key as rows below each other, and back. */
static Value *grouped(Flex *f, Value *v) {
  if (f->q_heads == f->kv_heads || !v) return v;
  int64_t last;
  if (!expr_is_const(v->dims[3], &last))
    return diag_error(f->im->d, f->loc, ERR_DYNAMIC,
                      "grouped heads need a known length of the keys"),
           NULL;
  return reshape(f, v, (int64_t[]){0, f->kv_heads, -1, last});
}

static Value *ungrouped(Flex *f, Value *v) {
  int64_t rows;
  if (f->q_heads == f->kv_heads || !v) return v;
  if (!expr_is_const(f->q->dims[2], &rows))
    return diag_error(f->im->d, f->loc, ERR_DYNAMIC,
                      "grouped heads need a known number of queries"),
           NULL;
  return reshape(f, v, (int64_t[]){0, f->q_heads, rows, -1});
}

/* The graph's result in place of v; v where the node has no such graph. */
static Value *modified(Flex *f, const char *which, Value *v) {
  const Onnx__AttributeProto *const a = find_attr(f, which);
  Value *out = NULL;
  if (!a || !a->g || !v) return v;
  if (a->g->n_input != 1 || a->g->n_output != 1)
    return diag_error(f->im->d, f->loc, ERR_ARITY, "%s has %zu inputs and %zu outputs", which,
                      a->g->n_input, a->g->n_output),
           NULL;
  if (!import_inline(f->im, f->s, f->p, a->g, which, f->loc, &v, &out)) return NULL;
  if (out->kind != TY_TENSOR || out->dtype != v->dtype || out->rank != v->rank)
    return diag_error(f->im->d, f->loc, ERR_TYPE, "%s changes type or rank", which), NULL;
  return out;
}

bool flex_attention_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc,
                         Value *const *in) {
  Flex f = {.im = im, .s = s, .p = p, .loc = loc};
  static const int64_t swap[4] = {0, 1, 3, 2};
  if (!read_flex(&f, in)) return false;
  const Attr perm = attr_ints(im->arena, "perm", 4, swap), axis = attr_int(im->arena, "axis", -1);
  const DType t = f.q->dtype;
  Value *const root = value_const_scalar(im->m, t, sqrt(f.scale)); /* on both sides */
  Value *const q = emit2(&f, "Mul", in[0], root), *k = emit2(&f, "Mul", in[1], root);
  k = k ? emit(&f, "Transpose", 1, &k, 1, &perm) : NULL;
  Value *v = cast(&f, ungrouped(&f, emit2(&f, "MatMul", grouped(&f, q), k)), f.precision);
  v = modified(&f, "score_mod", v);
  v = v ? emit(&f, "Softmax", 1, &v, 1, &axis) : NULL;
  v = grouped(&f, modified(&f, "prob_mod", v));
  v = ungrouped(&f, emit2(&f, "MatMul", v, cast(&f, in[2], f.precision)));
  v = cast(&f, v, t);
  return v && scope_define(im, s, p->output[0], v, loc);
}
