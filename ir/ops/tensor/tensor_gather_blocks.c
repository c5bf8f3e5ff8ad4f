/* GatherBlockQuantized of com.microsoft: rows of data that stay in as many bits as they have, each
 * block of an axis with its own scale and zero point. An index outside of its axis gives zeros. */
#include "ir/op/gradient.h"
#include "ir/op/kit.h"
#include "ir/op/tensor_util.h"

#include <string.h>

enum { B_DATA, B_INDICES, B_SCALES, B_ZEROS };

typedef struct Blocks {
  int gather, quantize;       /* axes */
  int64_t size, bits, stored; /* size 0: the whole axis; stored: elements in one of the data */
} Blocks;

static bool need_types(Model *m, const Node *n) {
  const DType t = n->in[B_DATA]->dtype;
  const bool small_float = dtype_is_float(t) && dtype_rows[t].bits <= 8 && t != DT_F8E8M0;
  if (t != DT_U8 && t != DT_U4 && t != DT_I4 && !small_float)
    return op_error(m, n, ERR_TYPE, "data of type %s", dtype_text(t));
  if (small_float && node_in(n, B_ZEROS))
    return op_error(m, n, ERR_ARITY, "data of type %s have no zero points", dtype_text(t));
  return op_need_class(m, n, B_INDICES, CL_INT) && op_need_class(m, n, B_SCALES, CL_FLOAT) &&
         op_same_dtype(m, n, B_ZEROS, B_DATA);
}

static bool blocks_of(Model *m, const Node *n, Blocks *b) {
  const Value *x = n->in[B_DATA];
  if (!op_need_rank(m, n, B_DATA, 1, MAX_RANK) || !op_need_rank(m, n, B_SCALES, x->rank, x->rank) ||
      !op_need_rank(m, n, B_ZEROS, x->rank, x->rank) ||
      !op_axis(m, n, "gather_axis", 0, x->rank, &b->gather) ||
      !op_axis(m, n, "quantize_axis", 1, x->rank, &b->quantize) ||
      !op_int_in(m, n, "bits", 4, 2, 8, &b->bits) ||
      !op_int_in(m, n, "block_size", 128, 0, 1 << 30, &b->size))
    return false;
  b->stored = x->dtype == DT_U8 ? 8 / b->bits : 1;
  if (b->size ? b->size < 16 || b->size & (b->size - 1) : !dtype_is_float(x->dtype))
    return op_error(m, n, ERR_ATTR_VALUE, "block_size must be a power of two from 16 on");
  if (dtype_is_float(x->dtype)) return true;
  if (x->dtype == DT_U8 ? 8 % b->bits != 0 : b->bits != 4)
    return op_error(m, n, ERR_ATTR_VALUE, "%lld bits of data of type %s", (long long)b->bits,
                    dtype_text(x->dtype));
  if (b->stored > 1 && (b->quantize != x->rank - 1 || b->gather == b->quantize))
    return op_error(m, n, ERR_UNSUPPORTED,
                    "bytes that hold several elements must have their blocks on the last axis and "
                    "be gathered on another");
  return true;
}

/* The size of an axis in elements. */
static const Expr *elements(Model *m, const Node *n, const Blocks *b, int axis) {
  const Value *x = n->in[B_DATA];
  return axis == x->rank - 1 && b->stored > 1
             ? op_times(m, x->dims[axis], ex_i64(m->pool, b->stored))
             : x->dims[axis];
}

/* A scale for all of an axis, which only floats can have. */
static bool is_shared(const Node *n, const Blocks *b, int axis) {
  return axis != b->quantize && dtype_is_float(n->in[B_DATA]->dtype) &&
         expr_is_i64(n->in[B_SCALES]->dims[axis], 1);
}

static bool need_blocks(Model *m, const Node *n, const Blocks *b) {
  const Value *x = n->in[B_DATA], *s = n->in[B_SCALES], *z = node_in(n, B_ZEROS);
  for (int d = 0; d < x->rank; d++) {
    const Expr *count = elements(m, n, b, d);
    if (d == b->quantize)
      count = b->size ? ex_ceildiv(m->pool, count, b->size)
                      : ex_min(m->pool, count, ex_i64(m->pool, 1));
    if (!is_shared(n, b, d) && !require_equal(m, n, s->dims[d], count, "blocks and scales"))
      return false;
    if (d == b->quantize) count = ex_ceildiv(m->pool, count, b->stored);
    if (z && !require_equal(m, n, z->dims[d], count, "blocks and zero points")) return false;
  }
  return true;
}

bool infer_gather_blocks(Model *m, Node *n) {
  const Value *x = n->in[B_DATA], *at = n->in[B_INDICES];
  const Expr *dims[2 * MAX_RANK];
  Blocks b;
  int rank = 0;
  if (!need_types(m, n) || !blocks_of(m, n, &b) || !need_blocks(m, n, &b)) return false;
  for (int d = 0; d < x->rank; d++) {
    if (d != b.gather) dims[rank++] = elements(m, n, &b, d);
    for (int i = 0; d == b.gather && i < at->rank; i++) dims[rank++] = at->dims[i];
  }
  return op_out(m, n, 0, n->in[B_SCALES]->dtype, rank, dims);
}

/* Element `at` of the data or the zero points, the first of a byte in its lowest bits. */
static const Expr *element(ElemCtx *c, const Node *n, int k, const Blocks *b, const Expr *const *at,
                           const Expr *inside) {
  ExprPool *p = c->pool;
  const int last = n->in[k]->rank - 1;
  const Expr *own[MAX_RANK], *count = ex_i64(p, b->stored);
  const DType t = dtype_is_float(n->in[k]->dtype) ? DT_F32 : DT_I32;
  if (b->stored == 1) return ex_cast(p, t, elem_in_guarded(c, n, k, at, inside));
  memcpy(own, at, sizeof *own * (size_t)n->in[k]->rank);
  own[last] = ex_floordiv(p, at[last], count);
  const Expr *byte = ex_cast(p, t, elem_in_guarded(c, n, k, own, inside));
  const Expr *shift = ex_mul(p, ex_floormod(p, at[last], count), ex_i64(p, b->bits));
  return ex_op(p, EX_and, ex_op(p, EX_shr, byte, ex_cast(p, t, shift), NULL),
               ex_int(p, t, (1 << b->bits) - 1), NULL);
}

const Expr *elem_gather_blocks(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[B_DATA], *at = n->in[B_INDICES];
  const Expr *src[MAX_RANK], *of_block[MAX_RANK];
  Blocks b;
  if (!blocks_of(c->model, n, &b)) return NULL;
  const Expr *index = tu_i64(p, elem_in(c, n, B_INDICES, idx + b.gather));
  for (int d = 0; d < x->rank; d++)
    src[d] = d < b.gather ? idx[d] : d > b.gather ? idx[d + at->rank - 1] : NULL;
  src[b.gather] = tu_wrap(p, index, x->dims[b.gather]);
  const Expr *inside = kit_inside(p, src[b.gather], x->dims[b.gather]), *zero = NULL;
  for (int d = 0; d < x->rank; d++) of_block[d] = is_shared(n, &b, d) ? ex_i64(p, 0) : src[d];
  of_block[b.quantize] = b.size ? ex_floordiv(p, src[b.quantize], ex_i64(p, b.size)) : ex_i64(p, 0);
  const Expr *q = element(c, n, B_DATA, &b, src, inside);
  if (node_in(n, B_ZEROS))
    zero = element(c, n, B_ZEROS, &b, of_block, inside);
  else if (x->dtype == DT_U8)
    zero = ex_int(p, DT_I32, 1 << (b.bits - 1));
  if (zero) q = ex_sub(p, q, zero);
  const Expr *scale = ex_cast(p, DT_F32, elem_in_guarded(c, n, B_SCALES, of_block, inside));
  const Expr *y = ex_mul(p, ex_cast(p, DT_F32, q), scale);
  return kit_ret(c, n, out, ex_select(p, inside, y, kit_like(c, y, 0)));
}

/* ---- as the gradient of the scales sees it: elements whose scale is 1, times scales ---- */
static Value *gather(Build *b, Value *v, Value *at, int axis) {
  const Attr a = attr_int(b->m->arena, "axis", axis);
  return b->ok ? build_op(b, "Gather", 2, (Value *[]){v, at}, 1, &a) : v;
}

static const char *divided(Build *b, int64_t by) {
  return arena_printf(b->m->arena, "floordiv(a, %lld)", (long long)by);
}

/* The block of each element of an axis. */
static Value *blocks_along(Build *b, Value *v, int axis, int64_t size) {
  Value *count = build_reshape(b, build_shape(b, v, axis, axis + 1), 0, NULL);
  Value *number = build_range(b, count);
  return build_map(b, DT_I64, divided(b, size), 1, &number);
}

/* Elements whose scale is 1; of floats, whose gradients pass, too, gathered where `safe` says. */
static Value *unscaled(Build *b, Node *n, const Blocks *q, Value *safe, Value *inside) {
  Value *scales = n->in[B_SCALES], *zeros = node_in(n, B_ZEROS);
  if (!dtype_is_float(n->in[B_DATA]->dtype)) {
    Value *in[] = {n->in[B_DATA], n->in[B_INDICES], build_full_like(b, scales, 1), zeros};
    return b->ok ? build_node(b, n->op->name, n->op->domain, zeros ? 4 : 3, in, 1, n->n_attrs,
                              n->attrs)
                       ->out[0]
                 : safe;
  }
  Value *v = gather(b, n->in[B_DATA], safe, q->gather);
  v = b->ok ? build_cast(b, v, scales->dtype) : v;
  for (int d = q->gather + 1; d < n->in[B_DATA]->rank && b->ok; d++)
    inside = build_unsqueeze(b, inside, inside->rank);
  Value *where[] = {inside, v, build_scalar(b, scales->dtype, 0)};
  return b->ok ? build_op(b, "Where", 3, where, 0, NULL) : v;
}

bool parts_gather_blocks(Build *b, Node *n, Value **out) {
  Blocks q;
  if (!blocks_of(b->m, n, &q)) return false;
  Value *at = build_cast(b, n->in[B_INDICES], DT_I64);
  Value *size = build_reshape(b, build_shape(b, n->in[B_DATA], q.gather, q.gather + 1), 0, NULL);
  Value *in[] = {at, size};
  Value *inside = build_map(b, DT_BOOL, "(0 - b <= a) & (a < b)", 2, in);
  Value *safe =
      build_map(b, DT_I64, "select((0 - b <= a) & (a < b), select(a < 0, a + b, a), 0)", 2, in);
  Value *x = b->ok ? unscaled(b, n, &q, safe, inside) : at, *block = safe;
  const int64_t along = q.gather == q.quantize ? q.size : is_shared(n, &q, q.gather) ? 0 : 1;
  if (along == 0) block = build_map(b, DT_I64, "a - a", 1, &safe);
  if (along > 1) block = build_map(b, DT_I64, divided(b, along), 1, &safe);
  Value *scale = gather(b, n->in[B_SCALES], block, q.gather);
  const int axis = q.quantize < q.gather ? q.quantize : q.quantize + n->in[B_INDICES]->rank - 1;
  if (q.size && q.gather != q.quantize && b->ok)
    scale = gather(b, scale, blocks_along(b, x, axis, q.size), axis);
  out[0] = b->ok ? build2(b, "Mul", x, scale) : x;
  return b->ok;
}
