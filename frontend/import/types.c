/* Types: their text, dimensions and symbols, and the inputs of the main graph with what --dim and
 * --shape fix. */
#include <string.h>
#include "frontend/scope/import.h"

static void type_print(StrBuf *b, const Onnx__TypeProto *t, bool *ok) {
  const Onnx__TypeProto *inner = NULL;
  DType dt = DT_NONE;
  switch (t->value_case) {
    case ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE:
      dt = dtype_from_onnx(t->tensor_type->elem_type);
      break;
    case ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE:
      dt = dtype_from_onnx(t->sparse_tensor_type->elem_type);
      break;
    case ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE: inner = t->sequence_type->elem_type; break;
    case ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE: inner = t->optional_type->elem_type; break;
    default: break;
  }
  if (inner) {
    sb_printf(b, t->value_case == ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE ? "seq(" : "opt(");
    type_print(b, inner, ok); /* no deeper than the wire scan allows */
    sb_printf(b, ")");
  } else if (dt != DT_NONE) {
    sb_printf(b, "%s", dtype_text(dt));
  } else {
    *ok = false;
  }
}

const char *type_text(Arena *a, const Onnx__TypeProto *t) {
  StrBuf b = {.arena = a};
  bool ok = true;
  type_print(&b, t, &ok);
  return ok ? sb_str(&b) : NULL;
}

/* A name that is an identifier in IR texts and C, and that no other dim_param has got. */
static const char *symbol_name(Import *im, const char *name) {
  char *s = arena_printf(im->arena, "%s%s", *name >= '0' && *name <= '9' ? "d" : "", name);
  for (char *p = s; *p; p++)
    if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9')))
      *p = '_';
  const char *unique = s;
  for (int k = 2; strmap_get(&im->symbol_names, unique); k += k < 64 ? 1 : (int)im->symbol_names.n)
    unique = arena_printf(im->arena, "%s_%d", s, k);
  strmap_put(im->scratch, &im->symbol_names, unique, s);
  return unique;
}

/* The size that --dim gives to a name, or NULL. */
static const Expr *fixed_dim(Import *im, const char *name) {
  for (int k = 0; k < im->o->n_dims; k++) {
    if (strcmp(im->o->dim_names[k], name) != 0) continue;
    im->dim_used[k] = true;
    return ex_i64(im->m->pool, im->o->dim_values[k]);
  }
  return NULL;
}

const Expr *import_dim_symbol(Import *im, const char *name) {
  const char *const id = symbol_name(im, name);
  const Expr *fixed = fixed_dim(im, name);
  if (!fixed) fixed = fixed_dim(im, id);
  if (fixed) return fixed;
  return ex_sym(im->m->pool, id);
}

/* Names of nothing in particular: each use is a size of its own. */
static bool is_anonymous(const char *p) {
  return !p || !*p || strcmp(p, "?") == 0 || strcmp(p, "None") == 0 || strcmp(p, "-1") == 0;
}

static const Expr *named_dim(Import *im, const char *name) {
  const Expr *e = strmap_get(&im->dims, name);
  if (e) return e;
  e = import_dim_symbol(im, name);
  strmap_put(im->scratch, &im->dims, name, (void *)e);
  return e;
}

/* Sizes may be 0: an empty batch gives empty results. A fixed dimension of 0 means "unknown" to
 * some exporters and an empty tensor to others: both fit a symbol. A vector of 0 elements is taken
 * at its word: it is an empty list of axes or the like. */
static const Expr *import_dim(Import *im, const Value *v,
                              const Onnx__TensorShapeProto__Dimension *d, int k, bool vector) {
  const bool number = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
  if (number && (d->dim_value > 0 || (d->dim_value == 0 && vector)))
    return ex_i64(im->m->pool, d->dim_value);
  if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM &&
      !is_anonymous(d->dim_param))
    return named_dim(im, d->dim_param);
  return import_dim_symbol(im, arena_printf(im->scratch, "%s_d%d", v->name ? v->name : "x", k));
}

static bool import_shape(Import *im, Value *v, DType dt, const Onnx__TensorShapeProto *s,
                         const Loc *loc) {
  const Expr *dims[MAX_RANK];
  int64_t count = 1, n;
  if (s->n_dim > MAX_RANK)
    return diag_error(im->d, loc, ERR_LIMIT, "%zu dimensions; the limit is %d", s->n_dim, MAX_RANK);
  for (int k = 0; k < (int)s->n_dim; k++) {
    dims[k] = import_dim(im, v, s->dim[k], k, s->n_dim == 1);
    if (expr_is_const(dims[k], &n) &&
        (!ck_mul(count, n, &count) || count > (int64_t)1 << MAX_DIM_BITS))
      return diag_error(im->d, loc, ERR_OVERFLOW, "number of elements overflows");
  }
  value_set_tensor(im->m, v, dt, (int)s->n_dim, dims);
  return true;
}

static bool import_tensor_type(Import *im, Value *v, int elem_type, const Onnx__TensorShapeProto *s,
                               bool top, const Loc *loc) {
  const DType dt = dtype_from_onnx(elem_type);
  if (dt == DT_NONE)
    return diag_error(im->d, loc, ERR_TENSOR_TYPE, "element type %d is no ONNX type", elem_type);
  if (top) v->kind = TY_TENSOR;
  v->dtype = dt;
  if (s && top) return import_shape(im, v, dt, s, loc);
  return true;
}

bool import_type(Import *im, Value *v, const Onnx__TypeProto *t, const Loc *loc) {
  for (bool top = true; t; top = false) {
    switch (t->value_case) {
      case ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE:
        return import_tensor_type(im, v, t->tensor_type->elem_type, t->tensor_type->shape, top,
                                  loc);
      case ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE:
        return import_tensor_type(im, v, t->sparse_tensor_type->elem_type,
                                  t->sparse_tensor_type->shape, top, loc);
      case ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE:
        if (top) v->kind = TY_SEQUENCE;
        t = t->sequence_type->elem_type;
        break;
      case ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE:
        if (top) v->kind = TY_OPTIONAL;
        t = t->optional_type->elem_type;
        break;
      case ONNX__TYPE_PROTO__VALUE_MAP_TYPE:
        if (top) v->kind = TY_MAP;
        t = t->map_type->value_type;
        break;
      case ONNX__TYPE_PROTO__VALUE_OPAQUE_TYPE:
        return diag_error(im->d, loc, ERR_UNSUPPORTED, "opaque types are not supported");
      default: t = NULL;
    }
  }
  return diag_error(im->d, loc, ERR_TENSOR_TYPE, "has no type");
}

/* ---- inputs of the main graph ---- */
static int shape_option(const Import *im, const char *name) {
  for (int k = 0; k < im->o->n_shapes; k++)
    if (strcmp(im->o->shape_inputs[k], name) == 0) return k;
  return -1;
}

bool import_shape_given(const Import *im, const char *name) { return shape_option(im, name) >= 0; }

static const Onnx__TensorShapeProto *shape_of(const Onnx__ValueInfoProto *p) {
  return p->type && p->type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE
             ? p->type->tensor_type->shape
             : NULL;
}

/* A size that --shape gives to a named dimension holds for that name everywhere. */
bool import_bind_shape(Import *im, const Onnx__ValueInfoProto *p, const Loc *loc) {
  const int opt = p->name ? shape_option(im, p->name) : -1;
  const Onnx__TensorShapeProto *s = shape_of(p);
  if (opt < 0) return true;
  im->shape_used[opt] = true;
  const int rank = im->o->shape_ranks[opt];
  const int64_t *dims = im->o->shape_dims[opt];
  if (s && (int)s->n_dim != rank)
    return diag_error(im->d, loc, ERR_USAGE, "--shape gives %d dimensions, the model has %zu", rank,
                      s->n_dim);
  for (int k = 0; s && k < rank; k++) {
    const Onnx__TensorShapeProto__Dimension *d = s->dim[k];
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM &&
        !is_anonymous(d->dim_param))
      strmap_put(im->scratch, &im->dims, d->dim_param, (void *)ex_i64(im->m->pool, dims[k]));
    else if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
             d->dim_value > 0 && d->dim_value != dims[k])
      return diag_error(im->d, loc, ERR_USAGE,
                        "--shape gives %lld for dimension %d, which the model fixes at %lld",
                        (long long)dims[k], k, (long long)d->dim_value);
  }
  return true;
}

/* An input that --const gives a value is a constant. */
static Value *fixed_input(Import *im, const Value *v, const Loc *loc) {
  for (int k = 0; k < im->o->n_consts; k++) {
    const FrontendConst *c = &im->o->consts[k];
    if (strcmp(c->name, v->name) != 0) continue;
    im->const_used[k] = true;
    if (v->kind == TY_TENSOR && c->dtype == v->dtype && (v->rank < 0 || v->rank == c->rank))
      return value_const(im->m, const_new(im->m, v->name, c->dtype, c->rank, c->dims, c->data));
    diag_error(im->d, loc, ERR_USAGE, "--const gives a tensor of another type or rank");
    return NULL;
  }
  return (Value *)v;
}

Value *import_main_input(Import *im, const Onnx__ValueInfoProto *p, const Loc *loc) {
  Value *v = value_new(im->m, arena_strdup(im->arena, p->name));
  const int opt = shape_option(im, p->name);
  if (!import_type(im, v, p->type, loc)) return NULL;
  if (v->kind == TY_TENSOR && opt >= 0) {
    const Expr *dims[MAX_RANK];
    for (int k = 0; k < im->o->shape_ranks[opt]; k++)
      dims[k] = ex_i64(im->m->pool, im->o->shape_dims[opt][k]);
    value_set_tensor(im->m, v, v->dtype, im->o->shape_ranks[opt], dims);
  }
  Value *fixed = fixed_input(im, v, loc);
  if (fixed != v) return fixed;
  if (v->kind == TY_TENSOR && v->rank < 0) {
    diag_error(im->d, loc, ERR_UNSUPPORTED, "input has no shape, not even a rank");
    diag_hint(im->d, "give one with --shape %s=1x2x3", p->name);
    return NULL;
  }
  return v;
}
