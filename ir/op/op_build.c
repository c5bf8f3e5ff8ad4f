/* Helpers of EXPAND bodies: they add nodes before the one being replaced, with its location, and
 * infer them at once. After an inference error b->ok is false and later nodes are left uninferred
 * (rank -1). */
#include <string.h>
#include "ir/op/op.h"

Node *build_node(Build *b, const char *op, const char *domain, int n_in, Value *const *in,
                 int n_out, int n_attr, const Attr *attrs) {
  const OpRow *row = op_find(domain, op);
  if (!row) {
    if (b->ok) diag_internal(b->m->diag, b->loc, "expansion uses unknown operator %s", op);
    b->ok = false;
    row = &op_rows[0];
  }
  Node *n = graph_add_node(b->g, b->before, row, n_in, in, b->loc);
  for (int i = 0; i < n_attr; i++) node_set_attr(n, attrs[i]);
  for (int i = 0; i < n_out; i++) node_add_output(n, NULL);
  if (b->ok) b->ok = op_infer(b->m, n);
  return n;
}

Value *build_op(Build *b, const char *op, int n_in, Value *const *in, int n_attr,
                const Attr *attrs) {
  return build_node(b, op, "", n_in, in, 1, n_attr, attrs)->out[0];
}

Value *build1(Build *b, const char *op, Value *a) {
  return build_op(b, op, 1, (Value *[]){a}, 0, NULL);
}

Value *build2(Build *b, const char *op, Value *a, Value *c) {
  return build_op(b, op, 2, (Value *[]){a, c}, 0, NULL);
}

Value *build_cast(Build *b, Value *v, DType t) {
  if (!b->ok || v->dtype == t) return v;
  const Attr to = attr_int(b->m->arena, "to", dtype_rows[t].onnx);
  return build_op(b, "Cast", 1, &v, 1, &to);
}

Value *build_rounded(Build *b, Value *v, DType t) {
  return build_cast(b, build_cast(b, v, t), DT_F32);
}

Value *build_reshape(Build *b, Value *v, int rank, const int64_t *dims) {
  return build2(b, "Reshape", v, build_i64s(b, rank, dims));
}

Value *build_transpose(Build *b, Value *v, int rank, const int64_t *perm) {
  const Attr a = attr_ints(b->m->arena, "perm", rank, perm);
  return build_op(b, "Transpose", 1, &v, 1, &a);
}

Value *build_unsqueeze(Build *b, Value *v, int64_t axis) {
  return build2(b, "Unsqueeze", v, build_i64s(b, 1, &axis));
}

Value *build_shape(Build *b, Value *v, int64_t from, int64_t to) {
  const Attr range[2] = {attr_int(b->m->arena, "start", from), attr_int(b->m->arena, "end", to)};
  return build_op(b, "Shape", 1, &v, 2, range);
}

Value *build_shape_of(Build *b, const Value *v) {
  int64_t dims[MAX_RANK];
  return value_is_static(v, dims) ? build_i64s(b, v->rank, dims)
                                  : build_shape(b, (Value *)(uintptr_t)v, 0, v->rank);
}

Value *build_slice(Build *b, Value *v, int64_t axis, int64_t from, int64_t to) {
  Value *in[] = {v, build_i64s(b, 1, &from), build_i64s(b, 1, &to), build_i64s(b, 1, &axis)};
  return build_op(b, "Slice", 4, in, 0, NULL);
}

Value *build_swap_last(Build *b, Value *v) {
  int64_t perm[MAX_RANK];
  const int r = v->rank;
  for (int d = 0; d < r; d++) perm[d] = d < r - 2 ? d : 2 * r - 3 - d;
  return b->ok ? build_transpose(b, v, r, perm) : v;
}

Value *build_channels(Build *b, Value *v, DType t, int rank) {
  int64_t shape[MAX_RANK];
  for (int d = 0; d < rank; d++) shape[d] = d == 1 ? -1 : 1;
  v = build_cast(b, v, t);
  return b->ok && rank > 1 ? build_reshape(b, v, rank, shape) : v;
}

Value *build_range(Build *b, Value *n) {
  Value *in[] = {build_scalar(b, DT_I64, 0), n, build_scalar(b, DT_I64, 1)};
  return b->ok ? build_op(b, "Range", 3, in, 0, NULL) : n;
}

Value *build_scalar(Build *b, DType t, double v) { return value_const_scalar(b->m, t, v); }

Value *build_i64s(Build *b, int n, const int64_t *v) { return value_const_i64s(b->m, 1, n, v); }
