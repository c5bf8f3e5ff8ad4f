/* Strings become numbers (runtime/text/text.h): behind this pass only inputs and outputs of the
 * model hold strings, everything else holds 64-bit integers. Constant strings get theirs in the
 * order of their bytes, from 0 on, which is the empty one: what is sorted stays sorted, and what is
 * filled with zeros is filled with "". */
#include <stdlib.h>
#include <string.h>

#include "passes/graph/rewrite.h"
#include "runtime/text/text.h"

typedef struct Texts {
  Model *m;
  Arena *scratch;
  Vec(const char *) all; /* constants, sorted once they are complete */
  Value *table;
  bool found; /* any value of strings */
  bool ok;
} Texts;

static bool is_text(const Value *v) { return v && v->kind == TY_TENSOR && v->dtype == DT_STR; }

/* A list of strings that comes from or goes to the caller. */
static bool is_text_border(const Node *n) {
  return (strcmp(n->op->name, "SequenceIn") == 0 || strcmp(n->op->name, "SequenceOut") == 0) &&
         node_int(n, "elem", 0) == dtype_rows[DT_STR].onnx;
}

static bool has_text_border(const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *const n = g->nodes.data[i];
    if (is_text_border(n)) return true;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && has_text_border(n->attrs[k].graph)) return true;
  }
  return false;
}

/* ---- every value of the model, regions included ---- */
typedef void (*ValueVisit)(Texts *t, Value *v);

static void each_value(Texts *t, Graph *g, ValueVisit f) {
  for (int k = 0; k < g->inputs.n; k++) f(t, g->inputs.data[k]);
  for (int i = 0; i < g->nodes.n; i++) {
    Node *const n = g->nodes.data[i];
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k]) f(t, n->in[k]);
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) each_value(t, n->attrs[k].graph, f);
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k]) f(t, n->out[k]);
  }
  for (int k = 0; k < g->outputs.n; k++) f(t, g->outputs.data[k]);
}

/* ---- the table of constants ---- */
static void collect(Texts *t, Value *v) {
  if (!is_text(v)) return;
  t->found = true;
  const char *const *const s = v->cdata ? v->cdata->data : NULL;
  for (int64_t i = 0; s && i < v->cdata->count; i++) vec_push(t->scratch, &t->all, s[i]);
}

static int by_bytes(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void sort_constants(Texts *t) {
  int n = 0;
  vec_push(t->scratch, &t->all, "");
  qsort(t->all.data, (size_t)t->all.n, sizeof *t->all.data, by_bytes);
  for (int i = 0; i < t->all.n; i++)
    if (!n || strcmp(t->all.data[i], t->all.data[n - 1]) != 0) t->all.data[n++] = t->all.data[i];
  t->all.n = n;
}

static int64_t number_of(const Texts *t, const char *s) {
  const char **const at = bsearch(&s, t->all.data, (size_t)t->all.n, sizeof *t->all.data, by_bytes);
  return at - t->all.data;
}

static bool make_table(Texts *t) {
  const uint32_t n = (uint32_t)t->all.n;
  uint32_t slots = 4;
  int64_t bytes = 0;
  while (slots < 2 * n) slots *= 2;
  for (uint32_t k = 0; k < n; k++) bytes += (int64_t)strlen(t->all.data[k]) + 1;
  const int64_t words = TABLE_STARTS + (int64_t)n + 1 + slots, all = 4 * words + bytes;
  if (all > UINT32_MAX)
    return diag_error(t->m->diag, NULL, ERR_LIMIT, "constant strings take more than 4 GiB");
  uint32_t *const table = arena_alloc(t->m->arena, (size_t)all),
                  *const starts = table + TABLE_STARTS, *const slot = starts + n + 1;
  table[TABLE_COUNT] = n;
  table[TABLE_SLOTS] = slots;
  starts[0] = (uint32_t)(4 * words);
  for (uint32_t k = 0; k < n; k++) {
    const size_t length = strlen(t->all.data[k]);
    memcpy((char *)table + starts[k], t->all.data[k], length + 1);
    starts[k + 1] = starts[k] + (uint32_t)length + 1;
    uint32_t i = text_hash(t->all.data[k], length) & (slots - 1);
    while (slot[i]) i = (i + 1) & (slots - 1);
    slot[i] = k + 1;
  }
  t->table = value_const(t->m, const_new(t->m, NULL, DT_U8, 1, &all, table));
  return true;
}

/* ---- values ---- */
static void give_number(Texts *t, Value *v) {
  if (!is_text(v)) return;
  v->dtype = DT_I64;
  if (!v->cdata) return;
  const char *const *const s = v->cdata->data;
  int64_t *const numbers = ARENA_ARRAY(t->m->arena, int64_t, v->cdata->count + 1);
  for (int64_t i = 0; i < v->cdata->count; i++) numbers[i] = number_of(t, s[i]);
  v->cdata = const_new(t->m, v->cdata->name, DT_I64, v->rank, v->cdata->dims, numbers);
}

static Node *add_node(Texts *t, Graph *g, Node *before, const char *op, Value *in, const Loc *loc) {
  Value *const ins[2] = {in, t->table};
  Node *const n = graph_add_node(g, before, op_find("burin", op), 2, ins, loc);
  node_add_output(n, NULL);
  return n;
}

static bool convert_inputs(Texts *t, Graph *g) {
  for (int k = 0; k < g->inputs.n; k++) {
    Value *const v = g->inputs.data[k];
    if (!is_text(v)) continue;
    Value *const given = value_new(t->m, v->name);
    value_set_tensor(t->m, given, DT_STR, v->rank, (const Expr *const *)v->dims);
    g->inputs.data[k] = given;
    Node *const first = g->nodes.n ? g->nodes.data[0] : NULL;
    Node *const n = add_node(t, g, first, "StringsIn", given, first ? first->loc : NULL);
    if (!op_infer(t->m, n)) return false;
    graph_replace_value(g, v, n->out[0]);
  }
  return true;
}

/* `texts`: which outputs were strings. */
static bool convert_outputs(Texts *t, Graph *g, const bool *texts) {
  for (int k = 0; k < g->outputs.n; k++) {
    if (!texts[k]) continue;
    Value *const v = g->outputs.data[k];
    Node *const n = add_node(t, g, NULL, "StringsOut", v, v->def ? v->def->loc : NULL);
    if (!op_infer(t->m, n)) return false;
    n->out[0]->name = v->name;
    g->outputs.data[k] = n->out[0];
  }
  return true;
}

/* ---- nodes ---- */
/* Lists of sequences are in the heap, too, and know nothing of strings. */
static bool is_runtime_text(const Node *n) {
  return n->op->body == OB_EXTERN && n->op->ext->heap &&
         (strncmp(n->op->name, "Sequence", 8) != 0 || is_text_border(n));
}

static void add_table(Texts *t, Node *n) {
  Value **const in = ARENA_ARRAY(t->m->arena, Value *, n->n_in + 1);
  memcpy(in, n->in, sizeof *in * (size_t)n->n_in);
  in[n->n_in] = t->table;
  n->in = in;
  n->n_in++;
}

/* Types that runtime functions read and write as numbers. */
static bool has_text_form(DType t) {
  return t == DT_F32 || t == DT_F64 || t == DT_F16 || t == DT_BF16 || t == DT_BOOL ||
         (dtype_is_int(t) && dtype_rows[t].bits >= 8);
}

static Value *cast_before(Texts *t, Node *n, Value *v, DType to) {
  Node *const cast = graph_add_node(n->graph, n, op_find("", "Cast"), 1, &v, n->loc);
  node_set_int(cast, "to", dtype_rows[to].onnx);
  Value *const out = node_add_output(cast, NULL);
  t->ok &= op_infer(t->m, cast);
  return out;
}

/* Cast between strings and numbers; small floats and integers by way of larger ones. */
static void convert_cast(Texts *t, Node *n) {
  Value *const x = n->in[0], *const y = n->out[0];
  const bool from_text = is_text(x);
  if (from_text == is_text(y)) return;
  const DType number = from_text ? y->dtype : x->dtype;
  const DType wide = has_text_form(number) ? number : dtype_is_float(number) ? DT_F32 : DT_I32;
  if (!from_text) {
    Value *const in = wide == number ? x : cast_before(t, n, x, wide);
    Node *const made = add_node(t, n->graph, n, "NumberToString", in, n->loc);
    t->ok &= op_infer(t->m, made);
    made->out[0]->dtype = DT_STR; /* for now, like all that it replaces */
    graph_replace_value(n->graph, y, made->out[0]);
    return;
  }
  Node *const made = add_node(t, n->graph, n, "StringToNumber", x, n->loc);
  node_set_int(made, "to", dtype_rows[wide].onnx);
  t->ok &= op_infer(t->m, made);
  graph_replace_value(n->graph, y,
                      wide == number ? made->out[0] : cast_before(t, n, made->out[0], number));
}

/* Unique: strings are told apart, and ordered, by their ranks; then those at the places found. */
static void convert_unique(Texts *t, Node *n) {
  Value *const x = n->in[0];
  Build b = {.m = t->m, .g = n->graph, .before = n, .loc = n->loc, .ok = true};
  const int64_t minus = -1;
  const Attr *const axis = node_attr(n, "axis");
  const Attr along = attr_int(t->m->arena, "axis", axis ? axis->ints[0] : 0);
  Value *const ranks = add_node(t, n->graph, n, "StringRanks", x, n->loc)->out[0];
  t->ok &= op_infer(t->m, ranks->def);
  Node *const unique = build_node(&b, "Unique", "", 1, &ranks, 4, n->n_attrs, n->attrs);
  Value *const from = axis ? x : build2(&b, "Reshape", x, build_i64s(&b, 1, &minus));
  Value *const ins[2] = {from, unique->out[1]};
  Value *const found = build_op(&b, "Gather", 2, ins, 1, &along);
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k]) graph_replace_value(n->graph, n->out[k], k ? unique->out[k] : found);
  t->ok &= b.ok;
}

static void convert_nodes(Texts *t, Graph *g) {
  for (int i = 0; i < g->nodes.n && t->ok; i++) {
    Node *const n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) convert_nodes(t, n->attrs[k].graph);
    const bool unique = node_is(n, "Unique") && is_text(n->in[0]);
    const bool cast =
        (node_is(n, "Cast") || node_is(n, "CastLike")) && is_text(n->in[0]) != is_text(n->out[0]);
    if (is_runtime_text(n) && n->in[n->n_in - 1] != t->table) add_table(t, n);
    if (unique) convert_unique(t, n);
    if (cast) convert_cast(t, n);
    if (!unique && !cast) continue;
    while (g->nodes.data[i] != n) i++; /* behind what was put before it */
    graph_remove_node(g, n);
    i--;
  }
}

bool pass_strings(PassCtx *c) {
  Graph *const g = c->model->main;
  Texts t = {.m = c->model, .scratch = c->scratch, .ok = true};
  each_value(&t, g, collect);
  if (!t.found && !has_text_border(g)) return true;
  sort_constants(&t);
  if (!make_table(&t)) return false;
  convert_nodes(&t, g);
  if (!t.ok) return false;
  bool *const texts = ARENA_ARRAY(c->scratch, bool, g->outputs.n + 1);
  for (int k = 0; k < g->outputs.n; k++) texts[k] = is_text(g->outputs.data[k]);
  if (!convert_inputs(&t, g)) return false;
  Vec(Value *) given = {0};
  for (int k = 0; k < g->inputs.n; k++)
    if (is_text(g->inputs.data[k])) vec_push(c->scratch, &given, g->inputs.data[k]);
  each_value(&t, g, give_number);
  for (int k = 0; k < given.n; k++) given.data[k]->dtype = DT_STR;
  c->changed = true;
  return convert_outputs(&t, g, texts);
}
