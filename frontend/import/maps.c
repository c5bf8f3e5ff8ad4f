/* Maps (ai.onnx.ml). ZipMap gives a list of maps from labels to the scores of a row: its tensor is
 * passed through, and the labels are kept beside the output of the model that it becomes.
 * DictVectorizer and CastMap take a map, which is an input of the model and two tensors here. */
#include <string.h>

#include "frontend/scope/scope.h"

static const Attr *list_attr(const Attr *attrs, int n, const char *name, AttrKind kind) {
  for (int k = 0; k < n; k++)
    if (strcmp(attrs[k].name, name) == 0 && attrs[k].kind == kind && attrs[k].n > 0)
      return &attrs[k];
  return NULL;
}

static bool zipmap_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc,
                        Value *const *in, const Attr *attrs, int n_attrs) {
  const Attr *const ints = list_attr(attrs, n_attrs, "classlabels_int64s", AT_INTS),
                    *const texts = list_attr(attrs, n_attrs, "classlabels_strings", AT_STRINGS);
  const Value *const x = p->n_input == 1 ? in[0] : NULL;
  int64_t width;
  if (!x || p->n_output != 1 || !*p->output[0])
    return diag_error(im->d, loc, ERR_ARITY, "ZipMap has one input and one output");
  if (x->kind != TY_TENSOR || x->dtype != DT_F32 || x->rank < 1 || x->rank > 2)
    return diag_error(im->d, loc, ERR_TYPE, "ZipMap needs f32[rows,labels]");
  if (!ints == !texts)
    return diag_error(im->d, loc, ERR_ATTR_MISSING,
                      "ZipMap needs one of classlabels_int64s and classlabels_strings");
  const int64_t n = ints ? ints->n : texts->n;
  if (expr_is_const(x->dims[x->rank - 1], &width) && width != n)
    return diag_error(im->d, loc, ERR_SHAPE, "%lld labels for %lld columns", (long long)n,
                      (long long)width);
  const void *const data = ints ? (const void *)ints->ints : (const void *)texts->strs;
  const char *const name = arena_strdup(im->arena, p->output[0]);
  strmap_put(im->scratch, &im->keys, name,
             const_new(im->m, NULL, ints ? DT_I64 : DT_STR, 1, &n, data));
  return scope_define(im, s, name, in[0], loc);
}

/* ---- of a map ---- */
typedef struct MapCall {
  Import *im;
  Scope *s;
  const Loc *loc;
  Value *keys, *values;
  const Attr *attrs;
  int n_attrs;
} MapCall;

static Value *emit(const MapCall *c, const char *domain, const char *op, int n_in, Value *const *in,
                   int n_attrs, const Attr *attrs) {
  const OpRow *row = op_find(domain, op);
  for (int k = 0; k < n_in; k++)
    if (!in[k]) return NULL;
  return row ? import_value(c->im, c->s->graph, row, n_in, in, n_attrs, attrs, c->loc) : NULL;
}

static Value *i64s(const MapCall *c, int n, const int64_t *v) {
  return value_const_i64s(c->im->m, 1, n, v);
}

static Value *emit2(const MapCall *c, const char *op, Value *a, Value *b) {
  return emit(c, "", op, 2, (Value *const[]){a, b}, 0, NULL);
}

/* v as [1,n]; n -1: as many as there are. */
static Value *as_row(const MapCall *c, Value *v, int64_t n) {
  return emit2(c, "Reshape", v, i64s(c, 2, (const int64_t[]){1, n}));
}

/* The values at their places, of `room` elements the first n, zeros (or "") elsewhere. */
static Value *spread(const MapCall *c, Value *places, int64_t room, int64_t n) {
  const int64_t one = 1, from = 0, axis = 0;
  static const char *const no_text[] = {""};
  const DType t = c->values->dtype;
  const void *const zero =
      t == DT_STR ? (const void *)no_text : arena_alloc(c->im->arena, (size_t)dtype_bytes(t));
  const Attr fill = {.name = "value",
                     .kind = AT_TENSOR,
                     .n = 1,
                     .tensor = const_new(c->im->m, NULL, t, 1, &one, zero)},
             along = attr_int(c->im->arena, "axis", 0);
  Value *const size = i64s(c, 1, &room);
  Value *const none = emit(c, "", "ConstantOfShape", 1, &size, 1, &fill);
  Value *const set =
      emit(c, "", "ScatterElements", 3, (Value *const[]){none, places, c->values}, 1, &along);
  Value *const part[] = {set, i64s(c, 1, &from), i64s(c, 1, &n), i64s(c, 1, &axis)};
  return as_row(c, emit(c, "", "Slice", 4, part, 0, NULL), n);
}

/* What the vocabulary lacks goes behind it, where nobody reads. */
static Value *dict_vectorizer(const MapCall *c) {
  const Attr *const texts = list_attr(c->attrs, c->n_attrs, "string_vocabulary", AT_STRINGS),
                    *const ints = list_attr(c->attrs, c->n_attrs, "int64_vocabulary", AT_INTS);
  if (!texts == !ints || (c->keys->dtype == DT_STR) != (texts != NULL)) {
    diag_error(c->im->d, c->loc, ERR_ATTR_VALUE,
               "needs one vocabulary, of the type of the map's keys");
    return NULL;
  }
  Attr keys = texts ? *texts : *ints;
  keys.name = texts ? "keys_strings" : "keys_int64s";
  int64_t *const places = ARENA_ARRAY(c->im->arena, int64_t, keys.n);
  for (int k = 0; k < keys.n; k++) places[k] = k;
  const Attr attrs[] = {keys, attr_ints(c->im->arena, "values_int64s", keys.n, places),
                        attr_int(c->im->arena, "default_int64", keys.n)};
  return spread(c, emit(c, "ai.onnx.ml", "LabelEncoder", 1, &c->keys, 3, attrs), keys.n + 1,
                keys.n);
}

static const char *text_attr(const MapCall *c, const char *name, const char *def) {
  for (int k = 0; k < c->n_attrs; k++)
    if (strcmp(c->attrs[k].name, name) == 0 && c->attrs[k].kind == AT_STRING)
      return c->attrs[k].strs[0];
  return def;
}

/* Values in the order of their keys. */
static Value *dense(const MapCall *c) {
  const OpRow *const row = op_find("", "TopK");
  Value *const size = emit(c, "", "Shape", 1, &c->keys, 0, NULL);
  Node *const sorted =
      size ? import_emit(c->im, c->s->graph, row, 2, (Value *const[]){c->keys, size}, c->loc)
           : NULL;
  if (!sorted) return NULL;
  node_set_int(sorted, "largest", 0);
  node_add_output(sorted, NULL);
  node_add_output(sorted, NULL);
  if (!import_infer(c->im, sorted)) return NULL;
  return as_row(c, emit2(c, "Gather", c->values, sorted->out[1]), -1);
}

/* Keys beyond n are left out; a negative one is an index that there is not. */
static Value *sparse(const MapCall *c, int64_t n) {
  Value *const most = value_const_scalar(c->im->m, DT_I64, (double)n);
  Value *const zero = value_const_scalar(c->im->m, DT_I64, 0);
  Value *const bad = value_const_scalar(c->im->m, DT_I64, (double)n + 2);
  Value *const pick[] = {emit2(c, "Less", c->keys, zero), bad, emit2(c, "Min", c->keys, most)};
  return spread(c, emit(c, "", "Where", 3, pick, 0, NULL), n + 1, n);
}

static Value *cast_map(const MapCall *c) {
  enum { MOST = 1 << 24 };
  const char *const form = text_attr(c, "map_form", "DENSE"), *const to = text_attr(c, "cast_to",
                                                                                    "TO_FLOAT");
  const DType t = strcmp(to, "TO_FLOAT") == 0    ? DT_F32
                  : strcmp(to, "TO_INT64") == 0  ? DT_I64
                  : strcmp(to, "TO_STRING") == 0 ? DT_STR
                                                 : DT_NONE;
  int64_t n = 1;
  for (int k = 0; k < c->n_attrs; k++)
    if (strcmp(c->attrs[k].name, "max_map") == 0 && c->attrs[k].kind == AT_INT)
      n = c->attrs[k].ints[0];
  const bool all = strcmp(form, "DENSE") == 0;
  if (t == DT_NONE || (!all && (strcmp(form, "SPARSE") != 0 || n < 1 || n > MOST))) {
    diag_error(c->im->d, c->loc, ERR_ATTR_VALUE, "cast_to, map_form or max_map is none");
    return NULL;
  }
  if (c->keys->dtype != DT_I64 || (t == DT_STR && c->values->dtype != DT_STR)) {
    diag_error(c->im->d, c->loc, ERR_UNSUPPORTED, "a map from %s to %s, cast to %s",
               dtype_text(c->keys->dtype), dtype_text(c->values->dtype), dtype_text(t));
    return NULL;
  }
  const Attr type = attr_int(c->im->arena, "to", dtype_rows[t].onnx);
  MapCall cast = *c;
  if (t != c->values->dtype) cast.values = emit(c, "", "Cast", 1, &c->values, 1, &type);
  return !cast.values ? NULL : all ? dense(&cast) : sparse(&cast, n);
}

/* ---- the operators ---- */
static const struct {
  const char *op;
  Value *(*fn)(const MapCall *c); /* NULL: ZipMap */
  const char *limit;              /* as OpRow.limit */
} ops[] = {{"ZipMap", NULL, NULL},
           {"DictVectorizer", dict_vectorizer, NULL},
           {"CastMap", cast_map, "no numbers to strings"}};
enum { N_OPS = sizeof ops / sizeof *ops };

const char *map_operator(int i, const char **limit) {
  if (i < 0 || i >= N_OPS) return NULL;
  *limit = ops[i].limit;
  return ops[i].op;
}

bool map_known(const char *domain, const char *op) {
  for (int k = 0; k < N_OPS && strcmp(domain, "ai.onnx.ml") == 0; k++)
    if (strcmp(ops[k].op, op) == 0) return true;
  return false;
}

bool map_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc, Value *const *in,
              const Attr *attrs, int n_attrs) {
  const Seq *const map = p->n_input == 1 ? map_of(im, in[0]) : NULL;
  Value *v = NULL;
  if (strcmp(loc->op, "ZipMap") == 0) return zipmap_node(im, s, p, loc, in, attrs, n_attrs);
  if (p->n_output != 1 || !*p->output[0] || !map)
    return diag_error(im->d, loc, ERR_TYPE, "needs one map, and one output");
  const MapCall c = {im, s, loc, map->items[0], map->items[1], attrs, n_attrs};
  for (int k = 0; k < N_OPS; k++)
    if (strcmp(ops[k].op, loc->op) == 0) v = ops[k].fn(&c);
  return v && scope_define(im, s, p->output[0], v, loc);
}
