/* Cast and CastLike between all numeric types and bool. Strings are refused: no scalar expression holds one. */
#include "ir/ops/kit.h"

static bool cast_to(Model *m, Node *n, DType to) {
  int64_t saturate;
  if (!op_int_in(m, n, "saturate", 1, 0, 1, &saturate)) return false;
  const Value *x = n->in[0];
  if (dtype_rows[x->dtype].cls == DC_STRING || dtype_rows[to].cls == DC_STRING)
    return op_error(m, n, ERR_UNSUPPORTED, "cast from %s to %s is not supported", dtype_text(x->dtype), dtype_text(to));
  if (dtype_rows[x->dtype].cls == DC_COMPLEX || dtype_rows[to].cls == DC_COMPLEX)
    return op_error(m, n, ERR_TYPE, "cannot cast %s to %s", dtype_text(x->dtype), dtype_text(to));
  return op_out_like(m, n, 0, to, x);
}

bool infer_cast(Model *m, Node *n) {
  const Attr *a;
  if (!op_need_attr(m, n, "to", AT_INT, &a)) return false;
  const int64_t code = a->ints[0];
  const DType to = code > 0 && code < 1000 ? dtype_from_onnx((int)code) : DT_NONE;
  if (to == DT_NONE) return op_error(m, n, ERR_ATTR_VALUE, "attribute to=%lld is not a tensor type", (long long)code);
  return cast_to(m, n, to);
}

bool infer_castlike(Model *m, Node *n) { return cast_to(m, n, n->in[1]->dtype); }

/* Float types of at most 8 bits saturate where the attribute says so; all others follow EX_cast. */
const Expr *elem_cast(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType to = n->out[out]->dtype;
  const Expr *x = elem_in(c, n, 0, idx);
  const bool small = dtype_is_float(to) && dtype_rows[to].bits <= 8;
  if (small && node_int(n, "saturate", 1)) return ex_sat(c->pool, to, x);
  return ex_cast(c->pool, to, x);
}
