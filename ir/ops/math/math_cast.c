/* Cast and CastLike between all types but complex ones. From and to strings they are runtime
 * functions (passes/graph/strings.c). */
#include "ir/op/kit.h"

static bool cast_to(Model *m, Node *n, DType to) {
  static const char *const modes[] = {"up", "down", "nearest", NULL};
  int64_t saturate;
  int mode;
  if (!op_int_in(m, n, "saturate", 1, 0, 1, &saturate) ||
      !op_choice(m, n, "round_mode", "up", modes, &mode))
    return false;
  const Value *x = n->in[0];
  if (dtype_rows[x->dtype].cls == DC_COMPLEX || dtype_rows[to].cls == DC_COMPLEX)
    return op_error(m, n, ERR_TYPE, "cannot cast %s to %s", dtype_text(x->dtype), dtype_text(to));
  return op_out_like(m, n, 0, to, x);
}

bool infer_cast(Model *m, Node *n) {
  const Attr *a;
  DType to;
  return op_need_attr(m, n, "to", AT_INT, &a) && op_dtype(m, n, "to", DT_NONE, &to) &&
         cast_to(m, n, to);
}

bool infer_castlike(Model *m, Node *n) { return cast_to(m, n, n->in[1]->dtype); }

/* A positive f32 rounded to a power of two as round_mode says, which f8e8m0 then holds exactly. */
static const Expr *power_of_two(ElemCtx *c, const Node *n, const Expr *x) {
  ExprPool *p = c->pool;
  const char mode = node_string(n, "round_mode", "up")[0];
  const int64_t add = mode == 'u' ? 0x7fffff : mode == 'n' ? 0x400000 : 0;
  const Expr *bits = ex_add(p, ex_bits(p, DT_U32, ex_cast(p, DT_F32, x)), ex_int(p, DT_U32, add));
  const Expr *r = ex_bits(p, DT_F32, ex_and(p, bits, ex_int(p, DT_U32, 0x7f800000)));
  return ex_select(p, kit_op1(c, EX_isnan, x), x, r);
}

/* Float types of at most 8 bits saturate where the attribute says so; floats become integers of
 * less than 8 bits by truncation and wrapping; all others follow EX_cast. */
const Expr *elem_cast(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType to = n->out[out]->dtype, from = n->in[0]->dtype;
  const Expr *x = elem_in(c, n, 0, idx);
  if (to == DT_F8E8M0 && from != to) x = power_of_two(c, n, ex_cast(p, DT_F32, x));
  if (dtype_is_int(to) && dtype_rows[to].bits < 8 && dtype_is_float(from))
    x = ex_cast(p, DT_I32, x);
  const bool small = dtype_is_float(to) && dtype_rows[to].bits <= 8;
  if (small && node_int(n, "saturate", 1)) return ex_sat(p, to, x);
  return ex_cast(p, to, x);
}
