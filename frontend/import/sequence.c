/* Sequences and optionals whose length is known at compile time never reach the graph: a sequence
 * is a list of values here, SequenceAt picks one, SequenceMap is unrolled, an optional is its
 * element or absent. What only the run can know (a sequence through a Loop or out of an If, a
 * position from data) is a list of the run (ir/ops/text/sequence.c), made of the values where one is
 * needed. */
#include <string.h>

#include "frontend/scope/scope.h"

enum { MAX_ITEMS = 4096 };

typedef struct Call { /* one node of this family */
  Import *im;
  Scope *s;
  const Onnx__NodeProto *p;
  const Loc *loc;
  Value **in;
  int n_in;
  const Attr *attrs;
  int n_attrs;
} Call;

/* ---- helpers ---- */
static bool define(const Call *c, Value *v) {
  if (!v) return false;
  if (c->p->n_output != 1 || !*c->p->output[0])
    return diag_error(c->im->d, c->loc, ERR_ARITY, "%zu outputs, needs 1", c->p->n_output);
  return scope_define(c->im, c->s, c->p->output[0], v, c->loc);
}

static Value *fail(const Call *c, ErrCode code, const char *what) {
  diag_error(c->im->d, c->loc, code, "%s", what);
  return NULL;
}

static Value *input(const Call *c, int k) { return k < c->n_in ? c->in[k] : NULL; }

static Seq *need_sequence(const Call *c, int k) {
  const Value *v = input(c, k);
  Seq *q = sequence_of(c->im, v);
  if (q) return q;
  if (v && v->kind == TY_SEQUENCE)
    fail(c, ERR_UNSUPPORTED, "the length of the sequence is not known at compile time");
  else
    fail(c, ERR_TYPE, "needs a sequence");
  return NULL;
}

static int64_t int_attr(const Call *c, const char *name, int64_t def) {
  for (int k = 0; k < c->n_attrs; k++)
    if (strcmp(c->attrs[k].name, name) == 0 && c->attrs[k].kind == AT_INT)
      return c->attrs[k].ints[0];
  return def;
}

static bool known_element(const Value *v, int64_t k, int64_t *out) {
  if (v->cdata && dtype_is_int(v->dtype) && k < v->cdata->count)
    return *out = const_int(v->cdata, k), true;
  return v->contents && expr_is_const(v->contents[k], out);
}

static bool known_int(const Value *v, int64_t *out) {
  int64_t dims[MAX_RANK];
  if (!v || v->kind != TY_TENSOR || v->rank > 1 || !value_is_static(v, dims)) return false;
  return (v->rank == 0 || dims[0] == 1) && known_element(v, 0, out);
}

/* Position from input k in [-n, n), or def where it is absent. -1: reported. */
static int position(const Call *c, int k, int n, int def) {
  int64_t at = def;
  const Value *v = input(c, k);
  if (v && !known_int(v, &at))
    return fail(c, ERR_UNSUPPORTED, "the position in the sequence is not known at compile time"),
           -1;
  if (v && at < 0) at += n;
  if (at >= 0 && at <= def) return (int)at;
  diag_error(c->im->d, c->loc, ERR_VALUE, "position %lld in a sequence of %d", (long long)at, n);
  return -1;
}

static Value *emit(const Call *c, const char *op, int n_in, Value *const *in, int n_attr,
                   const Attr *attrs) {
  const OpRow *row = op_find("", op);
  return row ? import_value(c->im, c->s->graph, row, n_in, in, n_attr, attrs, c->loc) : NULL;
}

/* ---- lists of the run ---- */
static bool is_list(const Call *c) { return list_kind(c->im, input(c, 0)) != LIST_NONE; }

/* Its attributes, and what the model declares for the result, for sequences of which nothing else
 * tells the rank. */
static const Attr *declared_attrs(const Call *c, int *n) {
  const Onnx__TypeProto__Tensor *t =
      c->p->n_output == 1 ? import_declared(c->im, c->s, c->p->output[0]) : NULL;
  if (!t) return c->attrs;
  Attr *const all = ARENA_ARRAY(c->im->scratch, Attr, *n + 2);
  for (int k = 0; k < *n; k++) all[k] = c->attrs[k];
  all[(*n)++] = attr_int(c->im->arena, "result_rank", (int64_t)t->shape->n_dim);
  all[(*n)++] = attr_int(c->im->arena, "result_elem", t->elem_type);
  return all;
}

/* The node of a list that stands for c, of input 0 as a list and the others. */
static Value *run_list(const Call *c, const char *op, bool list) {
  Value *in[3] = {list_sequence(c->im, c->s->graph, c->in[0], c->loc)};
  int n = 1;
  for (; n < c->n_in && n < 3 && c->in[n]; n++)
    if (list_kind(c->im, in[n] = c->in[n]) != LIST_NONE || c->in[n]->kind == TY_SEQUENCE)
      return fail(c, ERR_TYPE, "needs a tensor behind the sequence");
  int n_attrs = c->n_attrs;
  const Attr *const attrs = list ? c->attrs : declared_attrs(c, &n_attrs);
  return in[0] ? list_op(c->im, c->s->graph, op, n, in, n_attrs, attrs,
                         list ? LIST_SEQUENCE : LIST_NONE, c->loc)
               : NULL;
}

/* A position that only the run knows. */
static bool from_data(const Call *c, int k) {
  int64_t known;
  return input(c, k) && !known_int(c->in[k], &known);
}

/* False: reported. Inputs of a body have no type yet. */
static bool position_typed(const Call *c, int k) {
  const Value *v = input(c, k);
  if (!v || v->kind == TY_NONE || v->dtype == DT_I32 || v->dtype == DT_I64) return true;
  fail(c, ERR_TYPE, "the position is not i32 or i64");
  return false;
}

/* ---- operators ---- */
static Value *do_construct(const Call *c) {
  if (c->n_in < 1) return fail(c, ERR_ARITY, "needs at least one input");
  for (int k = 0; k < c->n_in; k++)
    if (!c->in[k] || c->in[k]->kind == TY_SEQUENCE || list_kind(c->im, c->in[k]) != LIST_NONE ||
        c->in[k]->dtype != c->in[0]->dtype)
      return fail(c, ERR_TYPE, "the items must be tensors of one type");
  return sequence_new(c->im, c->n_in, c->in, DT_NONE);
}

static Value *do_empty(const Call *c) {
  const DType t = dtype_from_onnx(int_attr(c, "dtype", 1));
  return t == DT_NONE ? fail(c, ERR_ATTR_VALUE, "dtype is no type")
                      : sequence_new(c->im, 0, NULL, t);
}

static Value *do_insert(const Call *c) {
  if (!input(c, 1)) return fail(c, ERR_ARITY, "no tensor to insert");
  if (!position_typed(c, 2)) return NULL;
  if (is_list(c) || (sequence_of(c->im, c->in[0]) && from_data(c, 2)))
    return run_list(c, "SequenceInsert", true);
  const Seq *q = need_sequence(c, 0);
  if (!q) return NULL;
  if (q->n >= MAX_ITEMS) return fail(c, ERR_LIMIT, "the sequence is too long");
  const int at = position(c, 2, q->n, q->n);
  Value **items = ARENA_ARRAY(c->im->scratch, Value *, q->n + 1);
  if (at < 0) return NULL;
  for (int k = 0; k <= q->n; k++) items[k] = k == at ? c->in[1] : q->items[k > at ? k - 1 : k];
  return sequence_new(c->im, q->n + 1, items, DT_NONE);
}

static Value *do_erase(const Call *c) {
  if (!position_typed(c, 1)) return NULL;
  if (is_list(c) || (sequence_of(c->im, input(c, 0)) && from_data(c, 1)))
    return run_list(c, "SequenceErase", true);
  const Seq *q = need_sequence(c, 0);
  const int at = q ? position(c, 1, q->n, q->n - 1) : -1;
  if (at < 0) return NULL;
  Value **items = ARENA_ARRAY(c->im->scratch, Value *, q->n);
  for (int k = 0; k + 1 < q->n; k++) items[k] = q->items[k >= at ? k + 1 : k];
  return sequence_new(c->im, q->n - 1, items, c->in[0]->dtype);
}

static Value *do_length(const Call *c) {
  if (is_list(c)) return run_list(c, "SequenceLength", false);
  const Seq *q = need_sequence(c, 0);
  return q ? value_const_scalar(c->im->m, DT_I64, q->n) : NULL;
}

/* Items side by side along axis; `fresh`: along a new one. */
static Value *join(const Call *c, const Seq *q, int64_t axis, bool fresh) {
  Value **parts = ARENA_ARRAY(c->im->scratch, Value *, q->n);
  const Attr at = attr_int(c->im->arena, "axis", axis);
  if (q->n == 0) return fail(c, ERR_VALUE, "the sequence is empty");
  for (int k = 0; k < q->n; k++) {
    Value *const in[] = {q->items[k], value_const_i64s(c->im->m, 1, 1, &axis)};
    parts[k] = fresh ? emit(c, "Unsqueeze", 2, in, 0, NULL) : q->items[k];
    if (!parts[k]) return NULL;
  }
  return emit(c, "Concat", q->n, parts, 1, &at);
}

static Value *do_concat(const Call *c) {
  if (is_list(c)) return run_list(c, "SequenceJoin", false);
  const Seq *q = need_sequence(c, 0);
  return q ? join(c, q, int_attr(c, "axis", 0), int_attr(c, "new_axis", 0) != 0) : NULL;
}

/* A position from data: possible where all items have one shape. */
static Value *gather_item(const Call *c, const Seq *q) {
  for (int k = 1; k < q->n; k++)
    if (!value_same_shape(q->items[0], q->items[k])) return run_list(c, "SequenceAt", false);
  Value *all = join(c, q, 0, true);
  Value *const in[] = {all, c->in[1]};
  const Attr at = attr_int(c->im->arena, "axis", 0);
  return all ? emit(c, "Gather", 2, in, 1, &at) : NULL;
}

static Value *do_at(const Call *c) {
  if (!position_typed(c, 1)) return NULL;
  const Seq *q = is_list(c) ? NULL : need_sequence(c, 0);
  int64_t known;
  if (!input(c, 1)) return fail(c, ERR_ARITY, "no position");
  if (is_list(c)) return run_list(c, "SequenceAt", false);
  if (!q) return NULL;
  if (!known_int(c->in[1], &known) && q->n) return gather_item(c, q);
  const int at = position(c, 1, q->n, q->n - 1);
  return at < 0 ? NULL : q->items[at];
}

/* Sizes of the pieces along the axis; count, -1: reported. */
static int split_sizes(const Call *c, int64_t dim, int64_t *sizes) {
  const Value *v = input(c, 1);
  int64_t each = 1, sum = 0, n = 0, count;
  if (v && v->rank == 1 && expr_is_const(v->dims[0], &count)) {
    for (n = 0; n < count && n < MAX_ITEMS; n++) {
      if (!known_element(v, n, &sizes[n]) || sizes[n] < 0)
        return fail(c, ERR_UNSUPPORTED, "split is not known at compile time"), -1;
      if (!ck_add(sum, sizes[n], &sum)) break;
    }
    if (sum != dim || n != count) return fail(c, ERR_SHAPE, "split does not add up"), -1;
    return (int)n;
  }
  if (v && (!known_int(v, &each) || each < 1))
    return fail(c, ERR_UNSUPPORTED, "split is not a known positive number"), -1;
  for (; sum < dim && n < MAX_ITEMS; sum += sizes[n++])
    sizes[n] = dim - sum < each ? dim - sum : each;
  return sum == dim ? (int)n : (fail(c, ERR_LIMIT, "too many pieces"), -1);
}

/* The size of all pieces, where `split` is filled with it; 0: it is not. */
static int64_t uniform(const Value *v) {
  const Attr *a = NULL;
  if (v && v->def && strcmp(v->def->op->name, "ConstantOfShape") == 0)
    a = node_attr(v->def, "value");
  return a && a->tensor && a->tensor->count == 1 && dtype_is_int(a->tensor->dtype)
             ? const_int(a->tensor, 0)
             : 0;
}

static Value *split_at_run(const Call *c) {
  Value *v = list_op(c->im, c->s->graph, "SequenceSplit", input(c, 1) ? 2 : 1, c->in, c->n_attrs,
                     c->attrs, LIST_SEQUENCE, c->loc);
  const int64_t each = input(c, 1) ? uniform(c->in[1]) : 1;
  if (v && v->def && each > 0) node_set_int(v->def, "each", each);
  return v;
}

static bool split_known(const Call *c) {
  const Value *v = input(c, 1);
  int64_t n, k;
  if (!v) return true;
  if (v->kind != TY_TENSOR || v->rank != 1) return known_int(v, &k);
  if (!expr_is_const(v->dims[0], &n)) return false;
  for (int64_t i = 0; i < n; i++)
    if (!known_element(v, i, &k)) return false;
  return true;
}

static Value *do_split(const Call *c) {
  const Value *x = input(c, 0);
  const OpRow *row = op_find("", "Split");
  int64_t axis = int_attr(c, "axis", 0), dim;
  if (x && x->kind == TY_NONE) return split_at_run(c); /* in a body: its type comes later */
  if (!x || x->kind != TY_TENSOR || x->rank < 1) return fail(c, ERR_TYPE, "needs a tensor");
  if (axis < -x->rank || axis >= x->rank) return fail(c, ERR_ATTR_VALUE, "axis is out of range");
  if (axis < 0) axis += x->rank;
  if (!row || !expr_is_const(x->dims[axis], &dim) || !split_known(c)) return split_at_run(c);
  int64_t *sizes = ARENA_ARRAY(c->im->scratch, int64_t, MAX_ITEMS);
  const int n = split_sizes(c, dim, sizes);
  if (n < 0) return NULL;
  if (n == 0) return sequence_new(c->im, 0, NULL, x->dtype);
  Value *const in[] = {c->in[0], value_const_i64s(c->im->m, 1, n, sizes)};
  Node *node = import_emit(c->im, c->s->graph, row, 2, in, c->loc);
  if (!node) return NULL;
  node_set_int(node, "axis", axis);
  Value **items = ARENA_ARRAY(c->im->scratch, Value *, n);
  for (int k = 0; k < n; k++) items[k] = node_add_output(node, NULL);
  if (!import_infer(c->im, node)) return NULL;
  const bool squeeze = !input(c, 1) && int_attr(c, "keepdims", 1) == 0;
  for (int k = 0; squeeze && k < n; k++) {
    Value *const sq[] = {items[k], value_const_i64s(c->im->m, 1, 1, &axis)};
    if (!(items[k] = emit(c, "Squeeze", 2, sq, 0, NULL))) return NULL;
  }
  return sequence_new(c->im, n, items, DT_NONE);
}

static bool is_optional(const Call *c, const Value *v) {
  return list_kind(c->im, v) == LIST_OPTIONAL || list_kind(c->im, v) == LIST_OPTIONAL_SEQUENCE;
}

static Value *do_has_element(const Call *c) {
  Value *const v = input(c, 0);
  if (!is_optional(c, v)) return value_const_scalar(c->im->m, DT_BOOL, v != NULL);
  Value *const in[] = {v, value_const_scalar(c->im->m, DT_I64, 0)};
  Value *const none = emit(c, "Equal", 2, in, 0, NULL);
  return none ? emit(c, "Not", 1, &none, 0, NULL) : NULL;
}

static Value *do_get_element(const Call *c) {
  Value *v = input(c, 0);
  return v ? list_element(c->im, c->s->graph, v, c->loc)
           : fail(c, ERR_VALUE, "the optional is empty");
}

static Value *do_optional(const Call *c) { return input(c, 0) ? c->in[0] : (Value *)&scope_absent; }

static const struct {
  const char *op;
  Value *(*fn)(const Call *c);
} ops[] = {{"ConcatFromSequence", do_concat},
           {"Optional", do_optional},
           {"OptionalGetElement", do_get_element},
           {"OptionalHasElement", do_has_element},
           {"SequenceAt", do_at},
           {"SequenceConstruct", do_construct},
           {"SequenceEmpty", do_empty},
           {"SequenceErase", do_erase},
           {"SequenceInsert", do_insert},
           {"SequenceLength", do_length},
           {"SplitToSequence", do_split}};
enum { N_OPS = sizeof ops / sizeof *ops };

int sequence_operators(void) { return N_OPS; }
const char *sequence_operator(int i) { return i >= 0 && i < N_OPS ? ops[i].op : NULL; }

bool sequence_known(const char *domain, const char *op) {
  for (int k = 0; k < N_OPS && !*domain; k++)
    if (strcmp(ops[k].op, op) == 0) return true;
  return !*domain && strcmp(op, "SequenceMap") == 0;
}

bool sequence_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc, Value **in,
                   const Attr *attrs, int n_attrs, bool *ok) {
  const Call c = {im, s, p, loc, in, (int)p->n_input, attrs, n_attrs};
  if (*loc->domain) return false;
  for (int k = 0; k < N_OPS; k++)
    if (strcmp(ops[k].op, loc->op) == 0) return *ok = define(&c, ops[k].fn(&c)), true;
  if (strcmp(loc->op, "Identity") == 0 && c.n_in == 1 &&
      (!in[0] || sequence_of(im, in[0]) || list_kind(im, in[0]) != LIST_NONE))
    return *ok = define(&c, in[0] ? in[0] : (Value *)&scope_absent), true;
  return false;
}
