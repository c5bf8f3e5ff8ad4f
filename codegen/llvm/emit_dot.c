/* Sums of products of groups of small elements (rows dot… of scalar.def): one instruction where the
 * target has it, else the widest sequence that is exact; vpmaddubsw, whose sums saturate, is one of
 * dot2x2_u8i8 alone.
 * Operands are i32 holding their groups. */
#include "codegen/llvm/emit.h"

#include <stdio.h>

typedef struct Dot {
  ExprOp op;
  Val a, b, sum;
  bool two_fit; /* two products of signed bytes fit into 16 bits */
} Dot;

static bool a_signed(ExprOp op) { return op == EX_dot4_i8i8 || op == EX_dot2_i16; }
static bool b_signed(ExprOp op) { return op != EX_dot4_u8u8; }
static int lanes_of(Val v) { return is_vec(v) ? (int)LLVMGetVectorSize(LLVMTypeOf(v)) : 1; }

/* The same bits as elements of type t. */
static Val view_as(Emit *c, Val v, Type t) {
  const unsigned per_lane = 32 / LLVMGetIntTypeWidth(t);
  return LLVMBuildBitCast(c->b, v, LLVMVectorType(t, (unsigned)lanes_of(v) * per_lane), "");
}
static Val view_i32(Emit *c, Val v, int lanes) {
  return LLVMBuildBitCast(c->b, v, LLVMVectorType(c->i32, (unsigned)lanes), "");
}

static Val shift_by(Emit *c, Val v, int left, int right, bool is_signed) {
  const Type t = LLVMTypeOf(v);
  if (left) v = LLVMBuildShl(c->b, v, k_int(c, t, left), "");
  if (!right) return v;
  return is_signed ? LLVMBuildAShr(c->b, v, k_int(c, t, right), "")
                   : LLVMBuildLShr(c->b, v, k_int(c, t, right), "");
}

/* ---- any target ---- */
/* One of the bf16 of each lane, in f32. */
static Val bf16_element(Emit *c, Val v, bool odd) {
  v = odd ? LLVMBuildAnd(c->b, v, k_int(c, LLVMTypeOf(v), (int32_t)0xffff0000), "")
          : shift_by(c, v, 16, 0, false);
  return LLVMBuildBitCast(c->b, v, like(c->f32, v), "");
}

static Val bf16_by_element(Emit *c, const Dot *d) {
  const Type types[] = {LLVMTypeOf(d->sum)};
  Val sum = d->sum;
  for (int i = 1; i >= 0; i--)
    sum = intrinsic(c, "llvm.fma", 1, types, 3,
                    (Val[]){bf16_element(c, d->a, i), bf16_element(c, d->b, i), sum});
  return sum;
}

/* Element i of bytes or halves of each lane, extended. */
static Val group_element(Emit *c, Val v, int bits, int i, bool is_signed) {
  return shift_by(c, v, 32 - bits * (i + 1), 32 - bits, is_signed);
}

static Val clamp_i16(Emit *c, Val v) {
  const Type t = LLVMTypeOf(v), types[] = {t};
  v = intrinsic(c, "llvm.smax", 1, types, 2, (Val[]){v, k_int(c, t, INT16_MIN)});
  return intrinsic(c, "llvm.smin", 1, types, 2, (Val[]){v, k_int(c, t, INT16_MAX)});
}

static Val halves_by_element(Emit *c, const Dot *d) {
  Val half[2];
  for (int h = 0; h < 2; h++) {
    Val s = NULL;
    for (int i = 2 * h; i < 2 * h + 2; i++) {
      const Val p = LLVMBuildMul(c->b, group_element(c, d->a, 8, i, false),
                                 group_element(c, d->b, 8, i, true), "");
      s = s ? LLVMBuildAdd(c->b, s, p, "") : p;
    }
    half[h] = LLVMBuildAdd(c->b, clamp_i16(c, s), group_element(c, d->sum, 16, h, true), "");
  }
  const Val low = LLVMBuildAnd(c->b, half[0], k_int(c, LLVMTypeOf(half[0]), UINT16_MAX), "");
  return LLVMBuildOr(c->b, low, shift_by(c, half[1], 16, 0, false), "");
}

static Val element_by_element(Emit *c, const Dot *d) {
  if (d->op == EX_dot2_bf16) return bf16_by_element(c, d);
  if (d->op == EX_dot2x2_u8i8) return halves_by_element(c, d);
  const int bits = d->op == EX_dot2_i16 ? 16 : 8;
  Val sum = d->sum;
  for (int at = 0; at < 32; at += bits) {
    const Val x = group_element(c, d->a, bits, at / bits, a_signed(d->op));
    const Val y = group_element(c, d->b, bits, at / bits, b_signed(d->op));
    sum = LLVMBuildAdd(c->b, sum, LLVMBuildMul(c->b, x, y, ""), "");
  }
  return sum;
}

/* Every second byte of v, from the first or the second one on, in 16 bits. */
static Val bytes_in_16(Emit *c, Val v, bool odd, bool is_signed) {
  v = view_as(c, v, c->i16);
  if (odd) return shift_by(c, v, 0, 8, is_signed);
  if (is_signed) return shift_by(c, v, 8, 8, true);
  return LLVMBuildAnd(c->b, v, k_int(c, LLVMTypeOf(v), 255), "");
}

/* ---- x86: sums of two products of 16 bits, or of four of 8 ---- */
static Val by_width(Emit *c, const char *stem, int lanes, Val sum, Val a, Val b) {
  char name[64];
  snprintf(name, sizeof name, "%s.%d", stem, lanes * 32);
  return intrinsic(c, name, 0, NULL, 3, (Val[]){sum, a, b});
}

static bool has_vnni(const Emit *c) {
  return target_has(c->t, FEATURE_VNNI) || target_has(c->t, FEATURE_AVXVNNI);
}

static Val add_pairs(Emit *c, Val sum, Val a, Val b) {
  static const char *const names[] = {"llvm.x86.sse2.pmadd.wd", "llvm.x86.avx2.pmadd.wd",
                                      "llvm.x86.avx512.pmaddw.d.512"};
  const int lanes = lanes_of(sum);
  if (has_vnni(c))
    return by_width(c, "llvm.x86.avx512.vpdpwssd", lanes, sum, view_i32(c, a, lanes),
                    view_i32(c, b, lanes));
  const Val pairs = intrinsic(c,
                              names[lanes == 4   ? 0
                                    : lanes == 8 ? 1
                                                 : 2],
                              0, NULL, 2, (Val[]){view_as(c, a, c->i16), view_as(c, b, c->i16)});
  return LLVMBuildAdd(c->b, sum, pairs, "");
}

/* Sums of two products of bytes, which saturate, to sums of 16 bits. */
static Val add_byte_pairs(Emit *c, const Dot *d) {
  static const char *const names[] = {"llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.avx2.pmadd.ub.sw",
                                      "llvm.x86.avx512.pmaddubs.w.512"};
  const int lanes = lanes_of(d->sum);
  const char *const name = names[lanes == 4 ? 0 : lanes == 8 ? 1 : 2];
  const Val of[] = {view_as(c, d->a, c->i8), view_as(c, d->b, c->i8)};
  const Val pairs = intrinsic(c, name, 0, NULL, 2, of);
  return view_i32(c, LLVMBuildAdd(c->b, view_as(c, d->sum, c->i16), pairs, ""), lanes);
}

static Val dot_of_pairs(Emit *c, const Dot *d) {
  if (d->op == EX_dot2x2_u8i8) return add_byte_pairs(c, d);
  if (d->op == EX_dot2_i16) return add_pairs(c, d->sum, d->a, d->b);
  Val sum = d->sum;
  for (int odd = 0; odd < 2; odd++)
    sum = add_pairs(c, sum, view_i32(c, bytes_in_16(c, d->a, odd, a_signed(d->op)), lanes_of(sum)),
                    view_i32(c, bytes_in_16(c, d->b, odd, b_signed(d->op)), lanes_of(sum)));
  return sum;
}

/* ---- ARM: the last operand may be a lane, which is where what all lanes share stands (of mixed signs the
 * instruction with a lane is another, which LLVM finds) ---- */
static Val dot_of_bytes(Emit *c, const char *name, Val sum, Val a, Val b) {
  const Val x = view_as(c, a, c->i8), y = view_as(c, b, c->i8);
  return intrinsic(c, name, 2, (Type[]){LLVMTypeOf(sum), LLVMTypeOf(x)}, 3, (Val[]){sum, x, y});
}

/* Without the instruction for mixed signs: u = (u ^ 128 as i8) + 128, and -128 is an i8. */
static Val dot_of_flipped(Emit *c, const Dot *d) {
  const Val flip = k_int(c, LLVMTypeOf(d->a), (int32_t)0x80808080);
  const Val sum =
      dot_of_bytes(c, "llvm.aarch64.neon.sdot", d->sum, LLVMBuildXor(c->b, d->a, flip, ""), d->b);
  const Val less =
      dot_of_bytes(c, "llvm.aarch64.neon.sdot", LLVMConstNull(LLVMTypeOf(d->sum)), flip, d->b);
  return LLVMBuildSub(c->b, sum, less, "");
}

static Val dot_instruction(Emit *c, const Dot *d) {
  if (d->op == EX_dot4_i8i8) return dot_of_bytes(c, "llvm.aarch64.neon.sdot", d->sum, d->b, d->a);
  if (d->op == EX_dot4_u8u8) return dot_of_bytes(c, "llvm.aarch64.neon.udot", d->sum, d->b, d->a);
  if (target_has(c->t, FEATURE_I8MM))
    return dot_of_bytes(c, "llvm.aarch64.neon.usdot", d->sum, d->a, d->b);
  return dot_of_flipped(c, d);
}

/* ---- ARM: products of bytes in 16 bits, pairs of which an instruction adds to sums of 32 ---- */
enum { ROW = 16 }; /* bytes that are multiplied at once */

/* Eight products in 16 bits, of the first or the second halves. */
static Val long_product(Emit *c, Val a, Val b, bool upper, bool is_signed) {
  const Val half[] = {lanes_from(c, a, upper ? ROW / 2 : 0, ROW / 2),
                      lanes_from(c, b, upper ? ROW / 2 : 0, ROW / 2)};
  const Type t = LLVMVectorType(c->i16, ROW / 2);
  return intrinsic(c, c->arch->long_product[is_signed], 1, &t, 2, half);
}

static Val add_pairs_of_16(Emit *c, Val sum, Val products, bool is_signed) {
  const Type types[] = {LLVMTypeOf(sum), LLVMTypeOf(products)};
  const Val pairs = intrinsic(c, c->arch->pair_sum[is_signed], 2, types, 1, &products);
  return LLVMBuildAdd(c->b, sum, pairs, "");
}

/* Sums of neighbours of a and b. */
static Val pair_add(Emit *c, Val a, Val b) {
  const Type t = LLVMTypeOf(a);
  const int n = lanes_of(a);
  int lanes[ROW];
  Val part[2];
  if (c->arch->pair_add) return intrinsic(c, c->arch->pair_add, 1, &t, 2, (Val[]){a, b});
  for (int odd = 0; odd < 2; odd++) {
    for (int i = 0; i < n; i++) lanes[i] = 2 * i + odd;
    part[odd] = shuffle_lanes(c, a, b, lanes, n);
  }
  return LLVMBuildAdd(c->b, part[0], part[1], "");
}

/* Products of bytes fit into 16 bits; an instruction adds pairs of them to sums of 32. */
static Val dot_of_extended(Emit *c, const Dot *d) {
  const char *const name = c->arch->pair_sum[a_signed(d->op) || b_signed(d->op)];
  Val sum = d->sum;
  for (int odd = 0; odd < 2; odd++) {
    const Val p = LLVMBuildMul(c->b, bytes_in_16(c, d->a, odd, a_signed(d->op)),
                               bytes_in_16(c, d->b, odd, b_signed(d->op)), "");
    const Type types[] = {LLVMTypeOf(sum), LLVMTypeOf(p)};
    sum = LLVMBuildAdd(c->b, sum, intrinsic(c, name, 2, types, 1, &p), "");
  }
  return sum;
}

/* Products of two bytes; by one instruction for eight of the same sign, else of extended ones. */
static Val dot_of_products(Emit *c, const Dot *d) {
  const bool is_signed = a_signed(d->op);
  if (is_signed != b_signed(d->op)) return dot_of_extended(c, d);
  const Val a = view_as(c, d->a, c->i8), b = view_as(c, d->b, c->i8);
  const Val lower = long_product(c, a, b, false, is_signed),
            upper = long_product(c, a, b, true, is_signed);
  if (is_signed && d->two_fit)
    return add_pairs_of_16(c, d->sum, pair_add(c, lower, upper), is_signed);
  const Val none = LLVMConstNull(LLVMTypeOf(d->sum));
  const Val pairs = pair_add(c, add_pairs_of_16(c, none, lower, is_signed),
                             add_pairs_of_16(c, none, upper, is_signed));
  return LLVMBuildAdd(c->b, d->sum, pairs, "");
}

/* ---- bf16 ---- */
static Val view_bf16(Emit *c, Val v, int lanes) {
  const Type t = LLVMVectorType(LLVMBFloatTypeInContext(c->ctx), (unsigned)lanes * 2);
  return LLVMBuildBitCast(c->b, v, t, "");
}

/* vdpbf16ps rounds both sums, flushes subnormals, and begins with the odd elements; those of ARM
 * are plain fma's. */
static Val bf16_instruction(Emit *c, const Dot *d) {
  const int lanes = lanes_of(d->sum);
  const Val x = view_bf16(c, d->a, lanes), y = view_bf16(c, d->b, lanes);
  if (c->arch->bf16_pairs) return by_width(c, c->arch->bf16_pairs, lanes, d->sum, x, y);
  const Val odd = intrinsic(c, c->arch->bf16_upper, 0, NULL, 3, (Val[]){d->sum, x, y});
  return intrinsic(c, c->arch->bf16_lower, 0, NULL, 3, (Val[]){odd, x, y});
}

/* ---- products of 16 bits ---- */
static Val emit_half(Emit *c, const Expr *e) { return as_lanes(c, emit_expr(c, e->a[0])); }

static bool is_half(const Expr *e) {
  return e->op == EX_cast && e->dtype == DT_I32 && e->a[0]->dtype == DT_I16;
}

Val emit_long_product(Emit *c, const Expr *e, Val a, Val b) {
  const bool lanes = is_vec(a) || is_vec(b);
  if (!e || !lanes || !c->arch->long_product[1] || !is_half(e->a[0]) || !is_half(e->a[1]))
    return NULL;
  const Val x = emit_half(c, e->a[0]), y = emit_half(c, e->a[1]);
  const Type t = LLVMVectorType(c->i32, (unsigned)lanes_of(x));
  return lanes_of(x) == 4 ? intrinsic(c, c->arch->long_product[1], 1, &t, 2, (Val[]){x, y}) : NULL;
}

/* ---- which ---- */
static Val one_register(Emit *c, const Dot *d) {
  if (d->op == EX_dot2_bf16) return bf16_instruction(c, d);
  const bool bytes = d->op != EX_dot2_i16 && d->op != EX_dot2x2_u8i8;
  if (d->op == EX_dot4_u8i8 && has_vnni(c))
    return by_width(c, "llvm.x86.avx512.vpdpbusd", lanes_of(d->sum), d->sum, d->a, d->b);
  if (target_has(c->t, FEATURE_PAIRS)) return dot_of_pairs(c, d);
  if (bytes && target_has(c->t, FEATURE_DOTPROD)) return dot_instruction(c, d);
  if (bytes && c->arch->pair_sum[0]) return dot_of_products(c, d);
  return element_by_element(c, d);
}

static Val by_registers(Emit *c, const Dot *d) {
  const int n = lanes_of(d->sum), half = n / 2;
  if (n <= target_lanes(c->t, 32)) return one_register(c, d);
  Val part[2];
  for (int k = 0; k < 2; k++) {
    const int from = k * half;
    const Dot of = {d->op, lanes_from(c, d->a, from, half), lanes_from(c, d->b, from, half),
                    lanes_from(c, d->sum, from, half), d->two_fit};
    part[k] = by_registers(c, &of);
  }
  return join_lanes(c, part[0], part[1]);
}

Val emit_dot(Emit *c, ExprOp op, Val a, Val b, Val sum, bool two_fit) {
  const Dot d = {op, a, b, sum, two_fit};
  const int n = lanes_of(sum);
  const bool plain = op == EX_dot2_bf16 && !target_has(c->t, FEATURE_BF16);
  return plain || n < 4 || (n & (n - 1)) ? element_by_element(c, &d) : by_registers(c, &d);
}

/* ---- sums of products along rows of bytes ---- */
bool across_fits(const Emit *c) {
  return c->arch->long_product[0] && !target_has(c->t, FEATURE_DOTPROD) && c->vl == 4;
}

/* Two products of which one factor is no more than 127 fit into 16 bits: 2 * 128 * 127 < 2^15. */
static Val row_of_products(Emit *c, Val sum, Val a, Val b, bool is_signed, bool two_fit) {
  const Val lower = long_product(c, a, b, false, is_signed),
            upper = long_product(c, a, b, true, is_signed);
  if (two_fit && is_signed)
    return add_pairs_of_16(c, sum, LLVMBuildAdd(c->b, lower, upper, ""), is_signed);
  return add_pairs_of_16(c, add_pairs_of_16(c, sum, lower, is_signed), upper, is_signed);
}

/* A byte of a row of `var`, extended; NULL: something else. */
static const Expr *row_load(const Emit *c, const Expr *e, const Expr *var) {
  const Expr *const load = e->op == EX_cast ? e->a[0] : e, *coeff, *rest;
  const bool plain = load->op == EX_LOAD && load->nargs == 1 && dtype_bytes(load->dtype) == 1;
  return plain && expr_affine(c->pool, load->a[0], var, &coeff, &rest) && expr_is_i64(coeff, 1)
             ? load
             : NULL;
}

bool emit_across(Emit *c, const Stmt *s) {
  const Stmt *const acc = s->loop.body;
  const Expr *const var = s->loop.var;
  int64_t lo, n, slot;
  if (!acc || acc->next || acc->kind != ST_ACC || c->locals[acc->access.id].kind != LK_ACROSS ||
      acc->access.value->op != EX_mul || !emit_const(c, acc->access.index, &slot) ||
      !emit_const(c, expr_var_lo(c->pool, var->id), &lo) ||
      !emit_const(c, expr_var_extent(c->pool, var->id), &n) || n != ROW)
    return false;
  const Expr *const a = row_load(c, acc->access.value->a[0], var), *const b = row_load(
                                                                       c, acc->access.value->a[1],
                                                                       var);
  if (!a || !b || a->dtype != b->dtype) return false;
  const Val place = c->locals[acc->access.id].slots[slot];
  const Type t = LLVMVectorType(c->i32, (unsigned)c->vl);
  bind_const(c, var, lo);
  emit_forget(c);
  const Val x = emit_load_row(c, a, ROW), y = emit_load_row(c, b, ROW);
  const Val sum = row_of_products(c, LLVMBuildLoad2(c->b, t, place, ""), x, y, a->dtype == DT_I8,
                                  c->negates[a->id] || c->negates[b->id]);
  LLVMBuildStore(c->b, sum, place);
  return true;
}

Val across_slice(Emit *c, const LocalState *s, int64_t k) {
  const Type t = LLVMVectorType(c->i32, (unsigned)c->vl);
  Val v[4];
  for (int i = 0; i < 4; i++) v[i] = LLVMBuildLoad2(c->b, t, s->slots[k + i], "");
  return pair_add(c, pair_add(c, v[0], v[1]), pair_add(c, v[2], v[3]));
}
