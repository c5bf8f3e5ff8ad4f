/* Ops done by runtime functions (runtime/ops/): ScatterElements, ScatterND, NonZero, Compress,
 * Unique, TopK, NonMaxSuppression. Here: their types, upper bounds of data-dependent sizes,
 * attribute words and scratch. */
#include <string.h>
#include "ir/op/tensor_util.h"
#include "runtime/ops/ops.h"

static int64_t axis_of(const Node *n, int64_t def) {
  const int64_t a = node_int(n, "axis", def);
  return a < 0 ? a + n->in[0]->rank : a;
}

/* An explicit axis, or -1. */
static int64_t axis_or_flat(const Node *n) { return node_attr(n, "axis") ? axis_of(n, 0) : -1; }

/* ---- ScatterElements, ScatterND ---- */
static const char *const reductions[] = {"none", "add", "mul", "max", "min", NULL};

static int reduction_of(const Node *n) {
  const char *s = node_string(n, "reduction", "none");
  for (int k = 0; reductions[k]; k++)
    if (strcmp(s, reductions[k]) == 0) return k;
  return 0;
}

static bool check_scatter(Model *m, Node *n) {
  int red;
  if (!op_need_class(m, n, 1, CL_INT) || !op_same_dtype(m, n, 2, 0) ||
      !op_need_rank(m, n, 0, 1, MAX_RANK))
    return false;
  if (!op_choice(m, n, "reduction", "none", reductions, &red)) return false;
  const DType t = n->in[0]->dtype;
  const bool computes =
      dtype_is_int(t) || t == DT_BOOL || t == DT_F32 || t == DT_F64 || t == DT_F16 || t == DT_BF16;
  if (red > 0 && !computes)
    return op_error(m, n, ERR_UNSUPPORTED, "reduction %s of %s", reductions[red], dtype_text(t));
  return true;
}

bool infer_scatter_elements(Model *m, Node *n) {
  const Value *a = n->in[0];
  int axis;
  const Expr *same;
  if (!check_scatter(m, n) || !op_need_rank(m, n, 1, a->rank, a->rank) ||
      !op_need_rank(m, n, 2, a->rank, a->rank))
    return false;
  if (!op_axis(m, n, "axis", 0, a->rank, &axis) || !tu_indices_inside(m, n, 1, a->dims[axis], 0, 1))
    return false;
  for (int i = 0; i < a->rank; i++) {
    if (!op_same_dim(m, n, n->in[1]->dims[i], n->in[2]->dims[i], "dimension of indices and updates",
                     &same))
      return false;
    if (i != axis &&
        !require_at_most(m, n, n->in[1]->dims[i], a->dims[i], "dimension of indices and data"))
      return false;
  }
  return op_out_like(m, n, 0, a->dtype, a);
}

static int pack_scatter_elements(const Node *n, int64_t *w, int max) {
  w[0] = axis_of(n, 0);
  w[1] = reduction_of(n);
  return 2;
}
const ExternRow ext_scatter_elements = {"rt_scatter_elements", (void *)rt_scatter_elements,
                                        pack_scatter_elements, .scratch = NULL};

bool infer_scatter_nd(Model *m, Node *n) {
  const Value *a = n->in[0], *b = n->in[1], *u = n->in[2];
  int64_t k;
  const Expr *same;
  if (!check_scatter(m, n) || !op_need_rank(m, n, 1, 1, MAX_RANK)) return false;
  if (!expr_is_const(b->dims[b->rank - 1], &k))
    return op_error(m, n, ERR_DYNAMIC, "the last dim of indices is not known");
  if (k < 0 || k > a->rank)
    return op_error(m, n, ERR_SHAPE, "index tuples of %lld for rank %d", (long long)k, a->rank);
  const int rank = b->rank - 1 + a->rank - (int)k;
  if (!op_need_rank(m, n, 2, rank, rank)) return false;
  for (int i = 0; i < rank; i++) {
    const Expr *want = i < b->rank - 1 ? b->dims[i] : a->dims[i - (b->rank - 1) + k];
    if (!op_same_dim(m, n, want, u->dims[i], "dimension of updates", &same)) return false;
  }
  return op_out_like(m, n, 0, a->dtype, a);
}

static int pack_scatter_nd(const Node *n, int64_t *w, int max) {
  w[0] = reduction_of(n);
  return 1;
}
const ExternRow ext_scatter_nd = {"rt_scatter_nd", (void *)rt_scatter_nd, pack_scatter_nd,   NULL,
                                  .phases = 2,     .members = 1 << 15,    .over_first = true};

/* ---- NonZero, Compress, Unique ---- */
static int pack_none(const Node *n, int64_t *w, int max) { return 0; }

bool infer_nonzero(Model *m, Node *n) {
  if (!op_need_class(m, n, 0, CL_NUMBER | CL_BOOL)) return false;
  const int rank = n->in[0]->rank;
  const Expr *dims[2] = {ex_i64(m->pool, rank),
                         op_runtime_dim(m, n, 0, 1, "nonzero", value_count(m->pool, n->in[0]))};
  return op_out(m, n, 0, DT_I64, 2, dims);
}
enum { PIECES = 2048 }; /* of which threads of a device have one each */
static const Expr *scratch_pieces(Model *m, const Node *n) { return ex_i64(m->pool, 8 * PIECES); }

const ExternRow ext_nonzero = {"rt_nonzero",
                               (void *)rt_nonzero,
                               pack_none,
                               NULL,
                               .phases = 2,
                               .members = PIECES,
                               .parts_scratch = scratch_pieces};

bool infer_compress(Model *m, Node *n) {
  const Value *a = n->in[0];
  int axis;
  if (!op_need_dtype(m, n, 1, DT_BOOL) || !op_need_rank(m, n, 1, 1, 1) ||
      !op_axis(m, n, "axis", 0, a->rank, &axis))
    return false;
  const bool flat = !node_attr(n, "axis");
  const Expr *bound =
      ex_min(m->pool, flat ? value_count(m->pool, a) : a->dims[axis], n->in[1]->dims[0]);
  const Expr *dims[MAX_RANK];
  if (!flat) memcpy(dims, a->dims, sizeof *dims * (size_t)a->rank);
  const int at = flat ? 0 : axis;
  dims[at] = op_runtime_dim(m, n, 0, at, "compress", bound);
  return op_out(m, n, 0, a->dtype, flat ? 1 : a->rank, dims);
}

static int pack_axis_or_flat(const Node *n, int64_t *w, int max) {
  w[0] = axis_or_flat(n);
  return 1;
}
const ExternRow ext_compress = {"rt_compress",
                                (void *)rt_compress,
                                pack_axis_or_flat,
                                NULL,
                                .phases = 2,
                                .members = PIECES,
                                .parts_scratch = scratch_pieces};

static const Expr *unique_dim(Model *m, const Node *n) {
  const int64_t axis = axis_or_flat(n);
  return axis < 0 ? value_count(m->pool, n->in[0]) : n->in[0]->dims[axis];
}

bool infer_unique(Model *m, Node *n) {
  const Value *a = n->in[0];
  int axis;
  int64_t sorted;
  const Expr *dims[MAX_RANK];
  if (!op_need_class(m, n, 0, CL_NUMBER | CL_BOOL | CL_STRING) ||
      !op_int_in(m, n, "sorted", 1, 0, 1, &sorted))
    return false;
  if (node_attr(n, "axis") && !op_axis(m, n, "axis", 0, a->rank, &axis)) return false;
  const bool flat = !node_attr(n, "axis");
  const int at = flat ? 0 : axis;
  if (!flat) memcpy(dims, a->dims, sizeof *dims * (size_t)a->rank);
  const Expr *bound = unique_dim(m, n), *count = op_runtime_dim(m, n, 0, at, "unique", bound);
  dims[at] = count;
  return op_out(m, n, 0, a->dtype, flat ? 1 : a->rank, dims) &&
         op_out(m, n, 1, DT_I64, 1, &count) && op_out(m, n, 2, DT_I64, 1, &bound) &&
         op_out(m, n, 3, DT_I64, 1, &count);
}

static int pack_unique(const Node *n, int64_t *w, int max) {
  w[0] = axis_or_flat(n);
  w[1] = node_int(n, "sorted", 1);
  return 2;
}

static const Expr *scratch_unique(Model *m, const Node *n) {
  return ex_mul(m->pool, unique_dim(m, n), ex_i64(m->pool, 4 * 8));
}
const ExternRow ext_unique = {"rt_unique", (void *)rt_unique, pack_unique,
                              .scratch = scratch_unique};

/* ---- TopK ---- */
bool infer_topk(Model *m, Node *n) {
  const Value *a = n->in[0];
  int axis, count;
  int64_t flag;
  const Expr *dims[MAX_RANK];
  if (!op_need_class(m, n, 0, CL_NUMBER) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !op_need_class(m, n, 1, CL_INT) || !op_axis(m, n, "axis", -1, a->rank, &axis) ||
      !op_int_in(m, n, "largest", 1, 0, 1, &flag) || !tu_count(m, n, 1, "K", 1, &count))
    return false;
  if (count != 1) return op_error(m, n, ERR_SHAPE, "K has %d elements", count);
  const Expr *e = tu_elem(m, n, 1, 0);
  if (!require_at_least(m, n, e, ex_i64(m->pool, 0), "K") ||
      !require_at_most(m, n, e, a->dims[axis], "K and the size of the axis"))
    return false;
  memcpy(dims, a->dims, sizeof *dims * (size_t)a->rank);
  dims[axis] = tu_dim(m, n, 0, axis, e, a->dims[axis]);
  return op_out(m, n, 0, a->dtype, a->rank, dims) && op_out(m, n, 1, DT_I64, a->rank, dims);
}

static int pack_topk(const Node *n, int64_t *w, int max) {
  w[0] = axis_of(n, -1);
  w[1] = node_int(n, "largest", 1);
  return 2;
}

static const Expr *scratch_topk(Model *m, const Node *n) {
  const Value *o = node_out(n, 0) ? n->out[0] : node_out(n, 1);
  return ex_mul(m->pool, value_count(m->pool, o), ex_i64(m->pool, node_out(n, 1) ? 0 : 8));
}
const ExternRow ext_topk = {"rt_topk",    (void *)rt_topk, pack_topk,
                            scratch_topk, .phases = 1,     .members = 1 << 15};

/* ---- NonMaxSuppression ---- */
bool infer_nms(Model *m, Node *n) {
  ExprPool *p = m->pool;
  const Value *boxes = n->in[0], *scores = n->in[1];
  const Expr *same;
  int64_t k;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_class(m, n, 1, CL_FLOAT) ||
      !op_need_rank(m, n, 0, 3, 3) || !op_need_rank(m, n, 1, 3, 3) ||
      !op_need_class(m, n, 2, CL_INT) || !op_need_class(m, n, 3, CL_FLOAT) ||
      !op_need_class(m, n, 4, CL_FLOAT) || !op_int_in(m, n, "center_point_box", 0, 0, 1, &k) ||
      !op_same_dim(m, n, boxes->dims[0], scores->dims[0], "batch", &same) ||
      !op_same_dim(m, n, boxes->dims[1], scores->dims[2], "number of boxes", &same))
    return false;
  if (!require_size(m, n, boxes->dims[2], 4, "coordinates of a box")) return false;
  for (int i = 2; i < n->n_in; i++) {
    int count;
    if (node_in(n, i) && !tu_count(m, n, i, "limit", 1, &count)) return false;
    if (node_in(n, i) && count != 1)
      return op_error(m, n, ERR_SHAPE, "input %d must have one element", i);
  }
  const Expr *most = boxes->dims[1], *zero = ex_i64(p, 0);
  const Expr *limit = node_in(n, 2) ? value_element(p, n->in[2], 0) : zero;
  if (limit) most = ex_max(p, zero, ex_min(p, most, tu_i64(p, limit)));
  const Expr *bound = ex_mul(p, ex_mul(p, scores->dims[0], scores->dims[1]), most);
  const Expr *dims[2] = {op_runtime_dim(m, n, 0, 0, "nms", bound), ex_i64(p, 3)};
  return op_out(m, n, 0, DT_I64, 2, dims);
}

static int pack_nms(const Node *n, int64_t *w, int max) {
  w[0] = node_int(n, "center_point_box", 0);
  return 1;
}

static const Expr *scratch_nms(Model *m, const Node *n) {
  return ex_mul(m->pool, n->in[0]->dims[1], ex_i64(m->pool, 16 + 2 * 5 * 4));
}
/* 17 bytes for each box of each class of each batch, 8 for each class, and what aligns them. */
static const Expr *scratch_nms_parts(Model *m, const Node *n) {
  const Expr *const *const d = n->in[1]->dims;
  const Expr *const classes = ex_mul(m->pool, d[0], d[1]);
  const Expr *const boxes = ex_mul(m->pool, ex_mul(m->pool, classes, d[2]), ex_i64(m->pool, 17));
  return ex_add(m->pool, boxes,
                ex_add(m->pool, ex_mul(m->pool, classes, ex_i64(m->pool, 8)), ex_i64(m->pool, 8)));
}
const ExternRow ext_nms = {"rt_nms",
                           (void *)rt_nms,
                           pack_nms,
                           scratch_nms,
                           .phases = 3,
                           .members = 1 << 15,
                           .parts_scratch = scratch_nms_parts};
