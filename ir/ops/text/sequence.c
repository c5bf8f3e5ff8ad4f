/* Sequences whose length only the run knows: a scalar i64 that names a list in the heap
 * (runtime/text/sequences.c). The type of their items is that of what is put into them, found along
 * the nodes that the list came through; sizes of items are run-time symbols without a bound. */
#include <string.h>

#include "ir/op/ops.h"
#include "runtime/text/text.h"

/* ---- the type of items ---- */
typedef struct ItemType {
  DType dtype;
  int rank;
  int64_t dims[MAX_RANK]; /* -1: only the run knows */
  int steps;              /* left of the search, which may go round */
} ItemType;

static bool trace(const Graph *g, const Value *v, ItemType *t);

static bool take(const Value *v, int less, ItemType *t) {
  if (!v || v->kind != TY_TENSOR || v->rank - less < 0) return false;
  t->dtype = v->dtype;
  t->rank = v->rank - less;
  for (int d = 0; d < t->rank; d++) t->dims[d] = -1;
  return true;
}

static bool take_rank(ItemType *t) {
  for (int d = 0; d < t->rank; d++) t->dims[d] = -1;
  return true;
}

/* Pieces of one tensor: what is not cut is as large in all of them. */
static bool take_pieces(const Node *n, ItemType *t) {
  const Value *const v = n->in[0];
  const bool drop = !node_in(n, 1) && !node_int(n, "keepdims", 1);
  int64_t axis = node_int(n, "axis", 0), k;
  if (!take(v, drop, t)) return false;
  if (axis < 0) axis += v->rank;
  for (int d = 0, i = 0; d < v->rank; d++) {
    if (d == axis && drop) continue;
    if (d == axis)
      t->dims[i] = node_int(n, "each", -1);
    else if (expr_is_const(v->dims[d], &k))
      t->dims[i] = k;
    i++;
  }
  return true;
}

/* What the caller may give; strings are numbers once the table is there. */
static bool take_declared(const Node *n, ItemType *t) {
  const int64_t *dims;
  t->dtype = dtype_from_onnx((int)node_int(n, "elem", 0));
  if (t->dtype == DT_STR && node_in(n, 1)) t->dtype = DT_I64;
  t->rank = (int)node_int(n, "rank", -1);
  if (t->rank < 0 || t->rank > MAX_RANK || node_ints(n, "dims", &dims) != t->rank) return false;
  memcpy(t->dims, dims, sizeof *dims * (size_t)t->rank);
  return true;
}

static bool trace_node(const Node *n, int out, ItemType *t) {
  const char *const op = n->op->name;
  if (strcmp(op, "SequenceMake") == 0) return n->n_in > 0 && take(n->in[0], 0, t);
  if (strcmp(op, "SequenceIn") == 0) return take_declared(n, t);
  if (strcmp(op, "SequenceSplit") == 0) return take_pieces(n, t);
  if (strcmp(op, "SequenceInsert") == 0)
    return take(n->in[1], 0, t) || (trace(n->graph, n->in[0], t) && take_rank(t));
  if (strcmp(op, "SequenceErase") == 0 || strcmp(op, "SequenceGet") == 0 ||
      strcmp(op, "Identity") == 0)
    return trace(n->graph, n->in[0], t);
  if (strcmp(op, "Loop") == 0) {
    const Graph *const g = node_region(n, "body");
    return (out + 2 < n->n_in && trace(n->graph, n->in[out + 2], t)) ||
           (g && out + 1 < g->outputs.n && trace(g, g->outputs.data[out + 1], t));
  }
  static const char *const branches[] = {"then_branch", "else_branch"};
  for (int k = 0; k < 2 && strcmp(op, "If") == 0; k++) {
    const Graph *const g = node_region(n, branches[k]);
    if (g && out < g->outputs.n && trace(g, g->outputs.data[out], t)) return true;
  }
  return false;
}

/* A list that the body of a Loop is given: the first one, or what an iteration makes of it. */
static bool trace_state(const Graph *g, const Value *v, ItemType *t) {
  for (; g && g->owner; g = g->parent)
    for (int k = 2; k < g->inputs.n; k++)
      if (g->inputs.data[k] == v && k < g->owner->n_in)
        return trace(g->owner->graph, g->owner->in[k], t) ||
               (k - 1 < g->outputs.n && trace(g, g->outputs.data[k - 1], t));
  return false;
}

static bool trace(const Graph *g, const Value *v, ItemType *t) {
  if (!v || t->steps-- <= 0) return false;
  if (!(v->def ? trace_node(v->def, v->def_index, t) : trace_state(g, v, t))) return false;
  const bool same = v->def && v->def->op->body != OB_REGION; /* other items may come in elsewhere */
  return same || take_rank(t);
}

static bool need_list(Model *m, const Node *n) {
  const Value *const v = n->in[0];
  return (v->dtype == DT_I64 && v->rank == 0) ||
         op_error(m, n, ERR_TYPE, "input 0 is no sequence whose length only the run knows");
}

/* The rank that the model declares for the result, `fresh` axes more than an item has; the run checks
 * it. The type may be known of a sequence without a rank. */
static bool take_result(const Node *n, int fresh, ItemType *t) {
  t->rank = (int)node_int(n, "result_rank", -1) - fresh;
  if (t->dtype == DT_NONE) t->dtype = dtype_from_onnx((int)node_int(n, "result_elem", 0));
  return t->rank >= 0 && t->dtype != DT_NONE && take_rank(t);
}

static bool need_items(Model *m, const Node *n, int fresh, ItemType *t) {
  enum { STEPS = 1000 };
  *t = (ItemType){.steps = STEPS};
  return need_list(m, n) && (trace(n->graph, n->in[0], t) || take_result(n, fresh, t) ||
                             op_error(m, n, ERR_DYNAMIC,
                                      "nothing tells the rank of the items before the run; declare "
                                      "theirs or that of the result"));
}

/* A result with sizes that only the run finds; those that are known, the function checks. */
static bool give_tensor(Model *m, Node *n, const ItemType *t, int more) {
  const Expr *dims[MAX_RANK];
  const int rank = t->rank + more;
  if (rank > MAX_RANK) return op_error(m, n, ERR_LIMIT, "rank %d", rank);
  for (int d = 0; d < rank; d++)
    dims[d] = !more && t->dims[d] >= 0 ? ex_i64(m->pool, t->dims[d])
                                       : op_runtime_dim(m, n, 0, d, "item", NULL);
  return op_out(m, n, 0, t->dtype, rank, dims);
}

/* The function gives the memory of its result, too (extern_makes). */
static bool makes(const Node *n) {
  const Value *const v = n->out[0];
  for (int d = 0; d < v->rank; d++)
    if (v->dims[d]->op == EX_SYM && !expr_symbol(n->graph->model->pool, v->dims[d]->id)->bound)
      return true;
  return false;
}

/* ---- rows ---- */
static int pack_nothing(const Node *n, int64_t *w, int max) { return 0; }

bool infer_list_make(Model *m, Node *n) {
  for (int k = 1; k < n->n_in; k++)
    if (n->in[k]->dtype != n->in[0]->dtype)
      return op_error(m, n, ERR_TYPE, "the items must be tensors of one type");
  return op_out(m, n, 0, DT_I64, 0, NULL);
}
const ExternRow ext_list_make = {"rt_sequence_make", (void *)rt_sequence_make, pack_nothing, NULL,
                                 .heap = true};

bool infer_list_insert(Model *m, Node *n) {
  enum { STEPS = 1000 };
  ItemType t = {.steps = STEPS};
  const Value *const item = n->in[1];
  if (!need_list(m, n) || !op_need_class(m, n, 2, CL_INT)) return false;
  if (trace(n->graph, n->in[0], &t) && t.dtype != item->dtype)
    return op_error(m, n, ERR_TYPE, "a tensor of %s for a sequence of %s", dtype_text(item->dtype),
                    dtype_text(t.dtype));
  return op_out(m, n, 0, DT_I64, 0, NULL);
}
const ExternRow ext_list_insert = {"rt_sequence_insert", (void *)rt_sequence_insert, pack_nothing,
                                   NULL, .heap = true};

bool infer_list(Model *m, Node *n) {
  return need_list(m, n) && op_need_class(m, n, 1, CL_INT) && op_out(m, n, 0, DT_I64, 0, NULL);
}
const ExternRow ext_list_erase = {"rt_sequence_erase", (void *)rt_sequence_erase, pack_nothing,
                                  NULL, .heap = true};
const ExternRow ext_list_length = {
    "rt_sequence_length", (void *)rt_sequence_length,
    pack_nothing,         NULL,
    .heap = true,         .fails = "the sequences have different lengths"};

bool infer_list_at(Model *m, Node *n) {
  ItemType t;
  return op_need_class(m, n, 1, CL_INT) && need_items(m, n, 0, &t) && give_tensor(m, n, &t, 0);
}

static int pack_at(const Node *n, int64_t *w, int max) {
  const Value *const v = n->out[0];
  w[0] = makes(n);
  for (int d = 0; d < v->rank; d++)
    if (!expr_is_const(v->dims[d], &w[1 + d])) w[1 + d] = -1;
  return 1 + v->rank;
}
const ExternRow ext_list_at = {"rt_sequence_at", (void *)rt_sequence_at, pack_at, NULL,
                               .heap = true};

static bool give_joined(Model *m, Node *n, ItemType t, int fresh) {
  take_rank(&t);
  return give_tensor(m, n, &t, fresh);
}

bool infer_list_join(Model *m, Node *n) {
  ItemType t;
  int64_t fresh;
  int axis;
  return op_int_in(m, n, "new_axis", 0, 0, 1, &fresh) && need_items(m, n, (int)fresh, &t) &&
         op_axis(m, n, "axis", 0, t.rank + (int)fresh, &axis) && give_joined(m, n, t, (int)fresh);
}

static int pack_join(const Node *n, int64_t *w, int max) {
  const int64_t axis = node_int(n, "axis", 0);
  w[0] = makes(n);
  w[1] = axis < 0 ? axis + n->out[0]->rank : axis;
  w[2] = node_int(n, "new_axis", 0);
  return 3;
}
const ExternRow ext_list_join = {"rt_sequence_join", (void *)rt_sequence_join, pack_join, NULL,
                                 .heap = true};

bool infer_list_split(Model *m, Node *n) {
  int axis;
  return op_need_rank(m, n, 0, 1, MAX_RANK) && op_need_rank(m, n, 1, 0, 1) &&
         op_need_class(m, n, 1, CL_INT) && op_axis(m, n, "axis", 0, n->in[0]->rank, &axis) &&
         op_out(m, n, 0, DT_I64, 0, NULL);
}

static int pack_split(const Node *n, int64_t *w, int max) {
  const int64_t axis = node_int(n, "axis", 0);
  w[0] = axis < 0 ? axis + n->in[0]->rank : axis;
  w[1] = node_int(n, "keepdims", 1);
  return 2;
}
const ExternRow ext_list_split = {"rt_sequence_split", (void *)rt_sequence_split, pack_split, NULL,
                                  .heap = true};

/* ---- inputs and outputs of a model ---- */
static bool need_border(Model *m, Node *n) {
  int64_t kind, elem, rank;
  const int64_t *dims;
  return op_int_in(m, n, "kind", 0, LIST_SEQUENCE, LIST_OPTIONAL_SEQUENCE, &kind) &&
         op_int_in(m, n, "elem", 0, 1, 64, &elem) &&
         op_int_in(m, n, "rank", -1, -1, MAX_RANK, &rank) &&
         (dtype_from_onnx((int)elem) != DT_NONE ||
          op_error(m, n, ERR_TYPE, "elem is no element type")) &&
         (rank < 0 || node_ints(n, "dims", &dims) == rank ||
          op_error(m, n, ERR_ATTR_VALUE, "dims and rank differ"));
}

static int pack_border(const Node *n, int64_t *w, int max) {
  const int64_t *dims;
  w[0] = node_int(n, "kind", 0);
  w[1] = node_int(n, "elem", 0);
  w[2] = node_int(n, "rank", -1);
  const int k = w[2] < 0 ? 0 : node_ints(n, "dims", &dims);
  if (k) memcpy(w + 3, dims, sizeof *dims * (size_t)k);
  return 3 + k;
}

bool infer_list_in(Model *m, Node *n) {
  const Value *const v = n->in[0];
  if (v->dtype != DT_I64 || v->rank != 1 || !expr_is_i64(v->dims[0], 2))
    return op_error(m, n, ERR_TYPE, "input 0 is no list of a caller");
  return need_border(m, n) && op_out(m, n, 0, DT_I64, 0, NULL);
}
const ExternRow ext_list_in = {
    "rt_sequence_in",
    (void *)rt_sequence_in,
    pack_border,
    NULL,
    .heap = true,
    .fails =
        "the list is none, or one of its tensors has not the type, rank or sizes of the input"};

bool infer_list_out(Model *m, Node *n) {
  enum { STEPS = 1000 };
  ItemType t = {.steps = STEPS};
  const Expr *const size = ex_i64(m->pool, 2);
  DType want = dtype_from_onnx((int)node_int(n, "elem", 0));
  if (want == DT_STR && node_in(n, 1)) want = DT_I64;
  if (!need_list(m, n) || !need_border(m, n)) return false;
  if (trace(n->graph, n->in[0], &t) && t.dtype != want)
    return op_error(m, n, ERR_DECLARED, "the output is declared with items of %s, which are %s",
                    dtype_text(want), dtype_text(t.dtype));
  return op_out(m, n, 0, DT_I64, 1, &size);
}
const ExternRow ext_list_out = {
    "rt_sequence_out", (void *)rt_sequence_out,
    pack_border,       NULL,
    .heap = true,      .fails = "the items are not of the output's type, or there is no sequence"};

const ExternRow ext_list_get = {"rt_sequence_get", (void *)rt_sequence_get,
                                pack_nothing,      NULL,
                                .heap = true,      .fails = "the optional is empty"};
