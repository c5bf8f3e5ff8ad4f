/* Old forms of operators → the newest form: a table of rows (operator, below which opset,
 * function). The rest of the compiler knows one form of each operator. Attributes that became
 * inputs are moved; what needs more than one operator is emitted here. Operators that only exist in
 * experimental sets: upgrade_winml.c; names that com.microsoft has, too: upgrade_contrib.c;
 * normalization, pooling and resizing: upgrade_nn.c. */
#include "frontend/upgrade/upgrade.h"
#include <math.h>
#include <string.h>

/* ---- helpers ---- */
const Attr *old_attr(const OldNode *o, const char *name) {
  for (int k = 0; k < o->n_attrs; k++)
    if (strcmp(o->attrs[k].name, name) == 0) return &o->attrs[k];
  return NULL;
}

void old_drop(OldNode *o, const char *name) {
  const Attr *a = old_attr(o, name);
  if (!a) return;
  const int at = (int)(a - o->attrs);
  memmove(o->attrs + at, o->attrs + at + 1, sizeof *o->attrs * (size_t)(--o->n_attrs - at));
}

void old_set(Import *im, OldNode *o, Attr a) {
  old_drop(o, a.name);
  Attr *list = ARENA_ARRAY(im->scratch, Attr, o->n_attrs + 1);
  if (o->n_attrs) memcpy(list, o->attrs, sizeof *list * (size_t)o->n_attrs);
  list[o->n_attrs++] = a;
  o->attrs = list;
}

int64_t old_int(const OldNode *o, const char *name, int64_t def) {
  const Attr *a = old_attr(o, name);
  return a && a->kind == AT_INT ? a->ints[0] : def;
}

double old_float(const OldNode *o, const char *name, double def) {
  const Attr *a = old_attr(o, name);
  return a && a->kind == AT_FLOAT ? a->floats[0] : def;
}

Value *old_in(const OldNode *o, int k) { return k < o->n_in ? o->in[k] : NULL; }

void old_input(Import *im, OldNode *o, int k, Value *v) {
  if (k >= o->n_in) {
    Value **in = ARENA_ARRAY(im->scratch, Value *, k + 1);
    if (o->n_in) memcpy(in, o->in, sizeof *in * (size_t)o->n_in);
    o->in = in;
    o->n_in = k + 1;
  }
  o->in[k] = v;
}

int old_rank(const OldNode *o, int k) {
  const Value *v = old_in(o, k);
  return v && v->kind == TY_TENSOR ? v->rank : -1;
}

bool old_done(Import *im, OldNode *o, Value *v) {
  if (!v) return false;
  o->result = ARENA_ARRAY(im->scratch, Value *, o->n_out + 1);
  o->result[0] = v;
  return true;
}

Value *old_emit(Import *im, OldNode *o, const char *op, int n_in, Value *const *in, int n_attrs,
                const Attr *attrs) {
  const OpRow *row = op_find("", op);
  if (!row) {
    diag_error(im->d, o->loc, ERR_UNSUPPORTED_OP, "needs operator %s, which is not supported", op);
    return NULL;
  }
  for (int k = 0; k < n_in; k++)
    if (!in[k] && k < row->min_in) return NULL; /* an earlier emit failed */
  return import_value(im, o->graph, row, n_in, in, n_attrs, attrs, o->loc);
}

Value *old_emit2(Import *im, OldNode *o, const char *op, Value *a, Value *b) {
  Value *const in[] = {a, b};
  return old_emit(im, o, op, b ? 2 : 1, in, 0, NULL);
}

Value *old_cast(Import *im, OldNode *o, Value *v, DType to) {
  const Attr type = attr_int(im->arena, "to", dtype_rows[to].onnx);
  return old_emit(im, o, "Cast", 1, &v, 1, &type);
}

Value *old_scalar_like(Import *im, OldNode *o, Value *like, double v) {
  if (like && like->kind == TY_TENSOR && like->dtype != DT_NONE)
    return value_const_scalar(im->m, like->dtype, v);
  return old_emit2(im, o, "CastLike", value_const_scalar(im->m, DT_F32, v), like);
}

bool old_need(Import *im, const OldNode *o, const char *attr) {
  if (old_attr(o, attr)) return true;
  return diag_error(im->d, o->loc, ERR_ATTR_MISSING, "attribute \"%s\" is missing", attr);
}

static bool need_input(Import *im, const OldNode *o) {
  if (old_in(o, 0)) return true;
  return diag_error(im->d, o->loc, ERR_ARITY, "input 0 is missing");
}

/* An INTS attribute becomes input k, a list. */
static void ints_to_input(Import *im, OldNode *o, const char *name, int k) {
  const Attr *a = old_attr(o, name);
  if (!a || a->kind != AT_INTS) return;
  old_input(im, o, k, value_const_i64s(im->m, 1, a->n, a->ints));
  old_drop(o, name);
}

/* ---- shapes and slices ---- */
static bool up_axes(Import *im, OldNode *o) {
  ints_to_input(im, o, "axes", 1);
  return true;
}

static bool up_reduce(Import *im, OldNode *o) {
  const Attr *a = old_attr(o, "axes");
  if (a && a->n == 0) old_drop(o, "axes");
  return up_axes(im, o);
}

static bool up_unsqueeze(Import *im, OldNode *o) {
  return old_need(im, o, "axes") && up_axes(im, o);
}

static bool up_slice(Import *im, OldNode *o) {
  if (!old_need(im, o, "starts") || !old_need(im, o, "ends")) return false;
  ints_to_input(im, o, "starts", 1);
  ints_to_input(im, o, "ends", 2);
  ints_to_input(im, o, "axes", 3);
  return true;
}

/* ---- lists whose length only a run knows ---- */
static bool length_known(const Value *v) {
  int64_t k;
  return !v || v->kind != TY_TENSOR || v->rank != 1 || expr_is_const(v->dims[0], &k);
}

/* A list of n elements: those of `list`, at the positions that `at` has, and `fill`. */
static Value *spread(Import *im, OldNode *o, Value *list, Value *at, int n, double fill) {
  const int64_t size = n;
  Value *const all = old_emit2(im, o, "Expand", value_const_scalar(im->m, list->dtype, fill),
                               value_const_i64s(im->m, 1, 1, &size));
  Value *const in[] = {all, at, list};
  return old_emit(im, o, "ScatterElements", 3, in, 0, NULL);
}

/* Positions from the first one on, or up to the last one: as many as the list has elements. */
static Value *positions(Import *im, OldNode *o, Value *list, bool last) {
  Value *const count = old_emit2(im, o, "Size", list, NULL);
  Value *const end = last && count ? old_emit2(im, o, "Neg", count, NULL) : count;
  Value *const none = value_const_scalar(im->m, DT_I64, 0);
  Value *const in[] = {last ? end : none, last ? none : end, value_const_scalar(im->m, DT_I64, 1)};
  return old_emit(im, o, "Range", 3, in, 0, NULL);
}

/* Then every axis gets its start, end and step. */
static bool up_slice_lists(Import *im, OldNode *o) {
  const int rank = old_rank(o, 0);
  if (rank < 2 || o->n_in < 3) return true; /* of one axis there is one */
  for (int k = 1; k < o->n_in; k++)
    if (o->in[k] && length_known(o->in[k])) return true;
  const bool wide = o->in[1]->dtype == DT_I64;
  const double fill[] = {0, 0, wide ? 0x1p46 : INT32_MAX, 0, 1};
  Value *at = old_in(o, 3);
  if (!at) at = positions(im, o, o->in[1], false);
  for (int k = 1; k < o->n_in; k++) {
    if (k == 3 || !o->in[k]) continue;
    Value *const all = at ? spread(im, o, o->in[k], at, rank, fill[k]) : NULL;
    if (!all) return false;
    old_input(im, o, k, all);
  }
  if (o->n_in > 3) o->in[3] = NULL;
  return true;
}

/* A shape of unknown length is not longer than the tensor's, unless the result is declared so: ones
 * in front. Where as many elements are there whatever a run gives, it would have no others. */
static bool up_expand(Import *im, OldNode *o) {
  const int rank = old_rank(o, 0);
  Value *const shape = old_in(o, 1);
  int64_t least, most;
  if (rank < 1 || length_known(shape) || o->declared > rank) return true;
  if (o->declared < 0 && expr_range(im->m->pool, shape->dims[0], &least, &most) && least >= rank)
    return diag_error(im->d, o->loc, ERR_DYNAMIC,
                      "how many dimensions it gives is not known: its shape has %s elements",
                      expr_text(im->m->pool, shape->dims[0]));
  Value *const at = positions(im, o, shape, true);
  Value *const all = at ? spread(im, o, shape, at, rank, 1) : NULL;
  if (all) old_input(im, o, 1, all);
  return all != NULL;
}

static bool up_split_attr(Import *im, OldNode *o) {
  ints_to_input(im, o, "split", 1);
  return true;
}

static bool up_reshape(Import *im, OldNode *o) {
  if (!old_need(im, o, "shape")) return false;
  ints_to_input(im, o, "shape", 1);
  return true;
}

static bool up_topk(Import *im, OldNode *o) {
  if (!old_need(im, o, "k")) return false;
  const int64_t k = old_int(o, "k", 0);
  old_input(im, o, 1, value_const_i64s(im->m, 1, 1, &k));
  old_drop(o, "k");
  return true;
}

static bool up_pad_name(Import *im, OldNode *o) {
  const Attr *a = old_attr(o, "paddings");
  if (!a || old_attr(o, "pads")) return true;
  Attr pads = *a;
  pads.name = "pads";
  old_set(im, o, pads);
  old_drop(o, "paddings");
  return true;
}

static bool up_pad(Import *im, OldNode *o) {
  const double v = old_float(o, "value", 0);
  if (!need_input(im, o) || !old_need(im, o, "pads")) return false;
  ints_to_input(im, o, "pads", 1);
  old_drop(o, "value");
  if (v != 0) {
    Value *s = old_scalar_like(im, o, o->in[0], v);
    if (!s) return false;
    old_input(im, o, 2, s);
  }
  return true;
}

/* Tile-1 repeated one axis: tiles and axis were inputs. */
static bool up_tile(Import *im, OldNode *o) {
  const int rank = old_rank(o, 0);
  const Value *axis = old_in(o, 2);
  if (!old_in(o, 1) || !axis || !axis->cdata || axis->cdata->count != 1 || rank < 0)
    return diag_error(im->d, o->loc, ERR_UNSUPPORTED,
                      "Tile-1 needs a constant axis and a known rank");
  const int64_t at = const_int(axis->cdata, 0);
  if (at < 0 || at >= rank)
    return diag_error(im->d, o->loc, ERR_ATTR_VALUE, "axis %lld of an input with %d dimensions",
                      (long long)at, rank);
  const int64_t flat[] = {1};
  int64_t ones[MAX_RANK];
  for (int k = 0; k < rank; k++) ones[k] = 1;
  const Attr along = attr_int(im->arena, "axis", 0);
  Value *tiles = old_cast(im, o, o->in[1], DT_I64);
  tiles = tiles ? old_emit2(im, o, "Reshape", tiles, value_const_i64s(im->m, 1, 1, flat)) : NULL;
  Value *const parts[] = {value_const_i64s(im->m, 1, (int)at, ones), tiles,
                          value_const_i64s(im->m, 1, rank - (int)at - 1, ones)};
  Value *repeats = tiles ? old_emit(im, o, "Concat", 3, parts, 1, &along) : NULL;
  o->n_in = 2;
  return repeats && (o->in[1] = repeats);
}

static bool up_scatter(Import *im, OldNode *o) {
  (void)im;
  o->op = "ScatterElements";
  return true;
}

/* ---- elementwise ---- */
/* From opset 6 on an absent bound was that of f32; before, there was none. */
static bool up_clip(Import *im, OldNode *o) {
  static const char *const names[] = {"min", "max"};
  const bool bounded = o->opset >= 6;
  const double most = bounded ? 0x1.fffffep127 : INFINITY, defaults[] = {-most, most};
  if (!need_input(im, o)) return false;
  for (int k = 0; k < 2; k++) {
    Value *v = old_scalar_like(im, o, o->in[0], old_float(o, names[k], defaults[k]));
    if (!v) return false;
    old_input(im, o, 1 + k, v);
    old_drop(o, names[k]);
  }
  return true;
}

/* The defaults of opset 1 were rounded. */
static bool up_selu(Import *im, OldNode *o) {
  static const char *const names[] = {"alpha", "gamma"};
  const double defaults[] = {(float)1.6732, (float)1.0507};
  for (int k = 0; k < 2; k++) {
    const double v = old_float(o, names[k], defaults[k]);
    old_set(im, o,
            (Attr){.name = names[k],
                   .kind = AT_FLOAT,
                   .n = 1,
                   .floats = arena_dup(im->arena, &v, sizeof v)});
  }
  return true;
}

/* Inference: nothing is dropped, the ratio is for who trains. */
static bool up_dropout(Import *im, OldNode *o) {
  const double ratio = old_float(o, "ratio", 0.5);
  old_drop(o, "ratio");
  old_drop(o, "is_test");
  if (o->n_in > 1) o->n_in = 1;
  old_input(im, o, 1, value_const_scalar(im->m, DT_F32, ratio));
  return true;
}

/* With training_mode, unless it is known to be false: a row of its own, with random numbers. */
static bool up_dropout_training(Import *im, OldNode *o) {
  const Value *const mode = old_in(o, 2);
  int64_t trains = 1;
  (void)im;
  if (!mode || (mode->cdata && mode->cdata->count == 1 && mode->dtype == DT_BOOL &&
                (trains = const_int(mode->cdata, 0)) == 0))
    return true;
  o->op = "TrainingDropout";
  o->domain = "burin";
  return true;
}

/* Before opset 7 the second operand was aligned at `axis`, and only where broadcast was 1. */
static bool up_broadcast(Import *im, OldNode *o) {
  const int a = old_rank(o, 0), b = old_rank(o, 1);
  const int64_t axis = old_int(o, "axis", a - b);
  old_drop(o, "broadcast");
  old_drop(o, "axis");
  old_drop(o, "consumed_inputs");
  if (a < 0 || b < 0 || axis == a - b || axis < 0 || axis + b > a) return true;
  int64_t axes[MAX_RANK];
  const int n = (int)(a - axis - b);
  for (int k = 0; k < n; k++) axes[k] = b + k;
  o->in[1] = old_emit2(im, o, "Unsqueeze", o->in[1], value_const_i64s(im->m, 1, n, axes));
  return o->in[1] != NULL;
}

/* Before opset 7 a slope of one dimension was one per channel. */
static bool up_prelu(Import *im, OldNode *o) {
  const int rank = old_rank(o, 0);
  if (rank < 3 || old_rank(o, 1) != 1) return true;
  int64_t axes[MAX_RANK];
  for (int k = 0; k < rank - 2; k++) axes[k] = 1 + k;
  o->in[1] = old_emit2(im, o, "Unsqueeze", o->in[1], value_const_i64s(im->m, 1, rank - 2, axes));
  return o->in[1] != NULL;
}

static bool up_cast_name(Import *im, OldNode *o) {
  static const char *const names[] = {"",        "FLOAT",  "UINT8",  "INT8",   "UINT16",
                                      "INT16",   "INT32",  "INT64",  "STRING", "BOOL",
                                      "FLOAT16", "DOUBLE", "UINT32", "UINT64"};
  const Attr *a = old_attr(o, "to");
  if (!a || a->kind != AT_STRING) return true;
  for (int k = 1; k < (int)(sizeof names / sizeof *names); k++)
    if (strcmp(names[k], a->strs[0]) == 0)
      return old_set(im, o, attr_int(im->arena, "to", k)), true;
  return diag_error(im->d, o->loc, ERR_ATTR_VALUE, "\"%s\" is no type", a->strs[0]);
}

static bool up_drop_inplace(Import *im, OldNode *o) {
  (void)im;
  old_drop(o, "consumed_inputs");
  return true;
}

/* ---- Softmax, LogSoftmax, Hardmax before opset 13: over all dimensions from `axis` on ---- */
/* The one dimension from `axis` on that is not 1, if there is at most one: then it is today's
 * Softmax. */
static int single_axis(const Value *v, int axis) {
  int found = v->rank - 1, n = 0;
  for (int k = axis; k < v->rank; k++)
    if (!expr_is_i64(v->dims[k], 1)) {
      found = k;
      n++;
    }
  return n <= 1 ? found : -1;
}

static bool up_softmax(Import *im, OldNode *o) {
  if (!need_input(im, o)) return false;
  Value *x = o->in[0];
  const int rank = old_rank(o, 0);
  int64_t axis = old_int(o, "axis", 1);
  if (rank >= 0) {
    if (axis < -rank || axis > rank || (axis == rank && axis > 1))
      return diag_error(im->d, o->loc, ERR_ATTR_VALUE, "axis %lld of an input with %d dimensions",
                        (long long)axis, rank);
    if (axis < 0) axis += rank;
    const int one = rank && axis < rank ? single_axis(x, (int)axis) : -1;
    if (one >= 0) return old_set(im, o, attr_int(im->arena, "axis", one)), true;
  }
  const Attr flat = attr_int(im->arena, "axis", axis), last = attr_int(im->arena, "axis", 1);
  Value *f = old_emit(im, o, "Flatten", 1, &x, 1, &flat);
  Value *s = f ? old_emit(im, o, o->op, 1, &f, 1, &last) : NULL;
  Value *shape = s ? old_emit2(im, o, "Shape", x, NULL) : NULL;
  return shape && old_done(im, o, old_emit2(im, o, "Reshape", s, shape));
}

static bool up_dft(Import *im, OldNode *o) {
  old_input(im, o, 2, value_const_scalar(im->m, DT_I64, (double)old_int(o, "axis", 1)));
  old_drop(o, "axis");
  return true;
}

/* ---- others ---- */
static bool up_concat(Import *im, OldNode *o) {
  if (!old_attr(o, "axis")) old_set(im, o, attr_int(im->arena, "axis", 1));
  return true;
}

/* Scan-8 has a batch dimension in front of everything: a Scan over the batch around today's Scan.
 */
static bool up_scan(Import *im, OldNode *o) {
  const Attr *body = old_attr(o, "body"), *directions = old_attr(o, "directions");
  const int n = o->n_in - 1;
  const OpRow *row = op_find("", "Scan");
  if (old_in(o, 0) || n < 1 || !body || body->kind != AT_GRAPH || !row)
    return diag_error(im->d, o->loc, ERR_UNSUPPORTED,
                      "Scan-8 with sequence lengths, or without body or inputs");
  Graph *batch = graph_new(im->m, o->graph, "batch");
  Value **in = ARENA_ARRAY(im->scratch, Value *, n);
  for (int k = 0; k < n; k++) {
    if (!o->in[k + 1]) return diag_error(im->d, o->loc, ERR_ARITY, "input %d is missing", k + 1);
    in[k] = value_new(im->m, NULL);
    vec_push(im->arena, &batch->inputs, in[k]);
  }
  Node *inner = import_emit(im, batch, row, n, in, o->loc);
  if (!inner) return false;
  Attr ways = directions ? *directions : (Attr){0};
  ways.name = "scan_input_directions";
  node_set_attr(inner, *body);
  node_set_int(inner, "num_scan_inputs", old_int(o, "num_scan_inputs", 1));
  if (directions) node_set_attr(inner, ways);
  body->graph->owner = inner;
  body->graph->parent = batch;
  for (int k = 0; k < o->n_out; k++)
    vec_push(im->arena, &batch->outputs, node_add_output(inner, NULL));
  Attr *attrs = ARENA_ARRAY(im->scratch, Attr, 2);
  attrs[0] = attr_int(im->arena, "num_scan_inputs", n);
  attrs[1] = (Attr){.name = "body", .kind = AT_GRAPH, .n = 1, .graph = batch};
  o->attrs = attrs;
  o->n_attrs = 2;
  o->in++;
  o->n_in = n;
  return true;
}

/* ai.onnx.ml 1: one list of strings, each standing for its position. */
static bool up_label_encoder(Import *im, OldNode *o) {
  const Attr *a = old_attr(o, "classes_strings");
  const Value *x = old_in(o, 0);
  if (!a || a->kind != AT_STRINGS) return old_need(im, o, "classes_strings");
  const bool from_text = x && x->dtype == DT_STR;
  int64_t *numbers = ARENA_ARRAY(im->arena, int64_t, a->n);
  for (int k = 0; k < a->n; k++) numbers[k] = k;
  Attr names = *a,
       places = attr_ints(im->arena, from_text ? "values_int64s" : "keys_int64s", a->n, numbers);
  names.name = from_text ? "keys_strings" : "values_strings";
  old_drop(o, "classes_strings");
  old_set(im, o, names);
  old_set(im, o, places);
  return true;
}

/* Input 3, which is ours, is the number of elements where floats that are data give it; integers say
 * it themselves, but their type may not be known yet. */
static bool up_range(Import *im, OldNode *o) {
  bool constant = true;
  if (o->n_in > 3) return diag_error(im->d, o->loc, ERR_ARITY, "Range has 3 inputs");
  for (int k = 0; k < 3; k++) {
    const Value *v = old_in(o, k);
    if (!v || (v->kind == TY_TENSOR && dtype_is_int(v->dtype))) return true;
    constant &= v->cdata != NULL;
  }
  if (constant) return true;
  Value *const span = old_cast(im, o, old_emit2(im, o, "Sub", o->in[1], o->in[0]), DT_F64);
  Value *const delta = span ? old_cast(im, o, o->in[2], DT_F64) : NULL;
  Value *count = delta ? old_emit2(im, o, "Div", span, delta) : NULL;
  count = old_cast(im, o, old_emit2(im, o, "Ceil", count, NULL), DT_I64);
  if (count) old_input(im, o, 3, count);
  return count != NULL;
}

/* A depth of floats that is data is cast. */
static bool up_one_hot(Import *im, OldNode *o) {
  Value *depth = old_in(o, 1);
  if (!depth || depth->cdata || depth->kind != TY_TENSOR || !dtype_is_float(depth->dtype))
    return true;
  depth = old_cast(im, o, depth, DT_I64);
  if (depth) old_input(im, o, 1, depth);
  return depth != NULL;
}

/* ---- the table ---- */
static const UpgradeRow rows[] = {
    {"", "Add", 7, false, up_broadcast},
    {"", "And", 7, false, up_broadcast},
    {"", "Cast", 6, false, up_cast_name},
    {"", "Clip", 11, false, up_clip},
    {"", "Concat", 4, false, up_concat},
    {"", "DFT", 20, false, up_dft},
    {"", "Div", 7, false, up_broadcast},
    {"", "Dropout", 12, false, up_dropout},
    {"", "Dropout", ALWAYS, false, up_dropout_training},
    {"", "Equal", 7, false, up_broadcast},
    {"", "Expand", ALWAYS, false, up_expand},
    {"", "Gemm", 7, false, up_broadcast},
    {"", "Greater", 7, false, up_broadcast},
    {"", "Hardmax", 13, false, up_softmax},
    {"", "Less", 7, false, up_broadcast},
    {"", "LogSoftmax", 13, false, up_softmax},
    {"", "Mul", 7, false, up_broadcast},
    {"", "OneHot", ALWAYS, false, up_one_hot},
    {"", "Or", 7, false, up_broadcast},
    {"", "PRelu", 7, false, up_prelu},
    {"", "Pad", 2, false, up_pad_name},
    {"", "Pad", 11, false, up_pad},
    {"", "Pow", 7, false, up_broadcast},
    {"", "Range", ALWAYS, false, up_range},
    {"", "ReduceL1", 18, false, up_reduce},
    {"", "ReduceL2", 18, false, up_reduce},
    {"", "ReduceLogSum", 18, false, up_reduce},
    {"", "ReduceLogSumExp", 18, false, up_reduce},
    {"", "ReduceMax", 18, false, up_reduce},
    {"", "ReduceMean", 18, false, up_reduce},
    {"", "ReduceMin", 18, false, up_reduce},
    {"", "ReduceProd", 18, false, up_reduce},
    {"", "ReduceSum", 13, false, up_reduce},
    {"", "ReduceSumSquare", 18, false, up_reduce},
    {"", "Reshape", 5, false, up_reshape},
    {"", "Scan", 9, false, up_scan},
    {"", "Scatter", ALWAYS, true, up_scatter},
    {"", "Selu", 6, false, up_selu},
    {"", "Slice", 10, false, up_slice},
    {"", "Slice", ALWAYS, false, up_slice_lists},
    {"", "Softmax", 13, false, up_softmax},
    {"", "Split", 13, false, up_split_attr},
    {"", "Squeeze", 13, false, up_axes},
    {"", "Sub", 7, false, up_broadcast},
    {"", "Tile", 6, false, up_tile},
    {"", "TopK", 10, false, up_topk},
    {"", "Unsqueeze", 13, false, up_unsqueeze},
    {"", "Xor", 7, false, up_broadcast},
    {"ai.onnx.ml", "LabelEncoder", 2, false, up_label_encoder},
    {0},
};

static bool apply(Import *im, OldNode *o, const UpgradeRow *r) {
  for (; r->op; r++)
    if (!o->result && o->opset < r->below && strcmp(r->op, o->op) == 0 &&
        strcmp(r->domain, o->domain) == 0 && !r->fn(im, o))
      return false;
  return true;
}

/* In this order: a row may rename the node for those of later tables. */
static const UpgradeRow *const tables[] = {upgrade_experimental, upgrade_contrib, rows, upgrade_nn};
enum { N_TABLES = sizeof tables / sizeof *tables };

bool upgrade_node(Import *im, OldNode *o) {
  if (!*o->domain && o->opset < 7 && !up_drop_inplace(im, o)) return false;
  for (int t = 0; t < N_TABLES; t++)
    if (!apply(im, o, tables[t])) return false;
  return true;
}

static bool is_same(const UpgradeRow *a, const UpgradeRow *b) {
  return b->op && strcmp(a->op, b->op) == 0 && strcmp(a->domain, b->domain) == 0;
}

bool upgrade_gone(int i, const char **domain, const char **op) {
  for (int t = 0; t < N_TABLES; t++)
    for (const UpgradeRow *r = tables[t]; r->op; r++)
      if (r->gone && !is_same(r, r + 1) && i-- == 0) return *domain = r->domain, *op = r->op, true;
  return false;
}

bool upgrade_known(const char *domain, const char *op) {
  const char *d, *name;
  for (int i = 0; upgrade_gone(i, &d, &name); i++)
    if (strcmp(name, op) == 0 && strcmp(d, domain) == 0) return true;
  return false;
}
