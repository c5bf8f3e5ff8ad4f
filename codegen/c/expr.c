/* Expressions → C. Types: a value of a float below f64 is a float, of an integer its own type, of
 * bool an int; what C leaves open (overflow, shifts, division by zero, conversions) goes through
 * the functions of scalar.h. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "codegen/c/c.h"

enum { LONG = 90, DEEP = 24 }; /* characters and levels of an operand without a name */

/* ---- text ---- */
void c_line(CText *c, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const char *const text = arena_vprintf(c->arena, format, args);
  va_end(args);
  sb_printf(c->out, "%*s%s\n", 2 * c->indent, "", text);
}

const char *c_string(Arena *a, const char *s) {
  if (!s) return "NULL";
  StrBuf b = {.arena = a};
  sb_putc(&b, '"');
  for (; *s; s++) {
    const unsigned char ch = (unsigned char)*s;
    if (ch < 32 || ch > 126 || ch == '?' || ch == '"' || ch == '\\')
      sb_printf(&b, "\\%03o", ch);
    else
      sb_putc(&b, (char)ch);
  }
  sb_putc(&b, '"');
  return sb_str(&b);
}

#define TEXT(...) arena_printf(c->arena, __VA_ARGS__)

/* ---- types ---- */
static const char *int_type(DType t) {
  static const char *const types[2][4] = {{"uint8_t", "uint16_t", "uint32_t", "uint64_t"},
                                          {"int8_t", "int16_t", "int32_t", "int64_t"}};
  const int bytes = dtype_bytes(t), k = bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3;
  return types[dtype_rows[t].cls == DC_SINT][k];
}

const char *c_mem_type(DType t) {
  return t == DT_F32 ? "float" : t == DT_F64 ? "double" : int_type(t);
}

const char *c_reg_type(DType t) {
  if (t == DT_BOOL) return "int";
  return t == DT_F64 ? "double" : dtype_is_float(t) ? "float" : int_type(t);
}

static bool is_small(DType t) { return dtype_is_float(t) && t != DT_F32 && t != DT_F64; }
static bool is_signed(DType t) { return dtype_rows[t].cls == DC_SINT; }
static int format(DType t) { return dtype_rows[t].onnx; }

/* The name of a format that CUDA's text has functions for; NULL: none. */
static const char *half_name(const CText *c, DType t) {
  return !c->device ? NULL : t == DT_F16 ? "f16" : t == DT_BF16 ? "bf16" : NULL;
}

const char *c_stored(CText *c, DType t, const char *v) {
  if (!is_small(t)) return v;
  const char *const half = half_name(c, t);
  if (half) return TEXT("burin_%s_store(%s)", half, v);
  return TEXT("(%s)burin_c_encode(%d, %s, 0)", int_type(t), format(t), v);
}

const char *c_loaded(CText *c, DType t, const char *v) {
  if (t == DT_BOOL) return TEXT("(%s != 0)", v);
  const char *const half = half_name(c, t);
  if (half) return TEXT("burin_%s_load(%s)", half, v);
  if (is_small(t)) return TEXT("burin_c_decode(%d, %s)", format(t), v);
  return v;
}

/* An integer result (of any width, or wrapped to 32 or 64 bits) in its type. */
static const char *wrapped(CText *c, DType t, const char *v) {
  const int bits = dtype_rows[t].bits;
  if (t == DT_BOOL) return TEXT("((%s) != 0)", v);
  if (bits < 8)
    return TEXT("(%s)burin_c_wrap((int64_t)(%s), %d, %d)", int_type(t), v, bits, is_signed(t));
  return TEXT("(%s)(%s)", int_type(t), v);
}

/* ---- literals ---- */
const char *c_i64(CText *c, int64_t v) {
  if (v == INT64_MIN) return "(-INT64_C(9223372036854775807) - 1)";
  if (v > INT32_MAX || v <= INT32_MIN)
    return v < 0 ? TEXT("(-INT64_C(%" PRId64 "))", -v) : TEXT("INT64_C(%" PRId64 ")", v);
  return v < 0 ? TEXT("(%" PRId64 ")", v) : TEXT("%" PRId64, v);
}

static const char *float_literal(CText *c, DType t, double v) {
  const bool wide = t == DT_F64;
  if (isnan(v) || isinf(v) || (v == 0 && signbit(v))) {
    const uint64_t top = signbit(v) ? UINT64_C(1) << 63 : 0;
    const uint64_t u = top | (isnan(v)   ? UINT64_C(0x7ff8) << 48
                              : isinf(v) ? UINT64_C(0x7ff) << 52
                                         : 0);
    if (wide) return TEXT("burin_c_double(UINT64_C(0x%" PRIx64 "))", u);
    const uint32_t top32 = (uint32_t)(top >> 32);
    return TEXT("burin_c_float(0x%" PRIx32 "u)", top32 | (isnan(v)   ? 0x7fc00000u
                                                          : isinf(v) ? 0x7f800000u
                                                                     : 0));
  }
  const char *const digits = wide ? TEXT("%.17g", v) : TEXT("%.9g", v);
  const char *const point = strpbrk(digits, ".e") ? "" : ".0";
  return TEXT(v < 0 ? "(%s%s%s)" : "%s%s%s", digits, point, wide ? "" : "f");
}

static const char *literal(CText *c, const Expr *e) {
  const DType t = (DType)e->dtype;
  if (dtype_is_float(t)) return float_literal(c, t, e->k.f);
  if (t == DT_U64) return TEXT("UINT64_C(%" PRIu64 ")", (uint64_t)e->k.i);
  if (t == DT_U32) return TEXT("%" PRIu32 "u", (uint32_t)e->k.i);
  if (t == DT_I32 && e->k.i == INT32_MIN) return "(-2147483647 - 1)";
  return c_i64(c, e->k.i);
}

/* ---- integers ---- */
/* Is plain arithmetic of C right? Indexes and sizes of kernels stay far below 64 bits. */
static bool is_plain(const CText *c, const Expr *e) {
  return c->kernel && e && e->dtype == DT_I64 && !(e->flags & (EXF_LOAD | EXF_LOCAL | EXF_REDUCE));
}

bool c_is_narrow(const CText *c, const Expr *e) {
  int64_t lo, hi;
  return c->device && is_plain(c, e) && expr_range(c->pool, e, &lo, &hi) && lo >= INT32_MIN &&
         hi <= INT32_MAX;
}

static bool divides_plainly(CText *c, const Expr *e) {
  int64_t lo, hi, k;
  return is_plain(c, e) && expr_is_const(e->a[1], &k) && k > 0 &&
         expr_range(c->pool, e->a[0], &lo, &hi) && lo >= 0;
}

static const char *int_call(CText *c, DType t, const char *name, const char *a, const char *b) {
  const char *const u = t == DT_U64 ? "u" : "";
  return wrapped(c, t, TEXT("burin_c_%s%s(%s, %s)", u, name, a, b));
}

static const char *shift(CText *c, DType t, bool left, const char *a, const char *b) {
  const int bits = t == DT_BOOL ? 1 : dtype_rows[t].bits;
  const char *const name = left ? "shl" : is_signed(t) ? "shr" : "ushr";
  return wrapped(c, t,
                 TEXT("burin_c_%s((%s)(%s), (int64_t)(%s), %d)", name,
                      left || is_signed(t) ? "int64_t" : "uint64_t", a, b, bits));
}

static const char *arithmetic(CText *c, const Expr *e, DType t, char op, const char *a,
                              const char *b) {
  const bool widens = c->device && is_plain(c, e) && !c_is_narrow(c, e);
  if (is_plain(c, e)) return TEXT("(%s%s %c %s)", widens ? "(int64_t)" : "", a, op, b);
  const char *const u = dtype_rows[t].bits > 32 ? "uint64_t" : "uint32_t";
  return wrapped(c, t, TEXT("(%s)(%s) %c (%s)(%s)", u, a, op, u, b));
}

static const char *int_op(CText *c, const Expr *e, ExprOp op, DType t, const char *const v[3]) {
  const char *const a = v[0], *const b = v[1];
  const char *const zero = t == DT_U64 ? "UINT64_C(0)" : "0";
  switch (op) {
    case EX_add: return arithmetic(c, e, t, '+', a, b);
    case EX_sub: return arithmetic(c, e, t, '-', a, b);
    case EX_mul: return arithmetic(c, e, t, '*', a, b);
    case EX_fma: return arithmetic(c, NULL, t, '+', arithmetic(c, NULL, t, '*', a, b), v[2]);
    case EX_dot4_u8i8: return TEXT("burin_c_dot4_u8i8(%s, %s, %s)", a, b, v[2]);
    case EX_dot4_i8i8: return TEXT("burin_c_dot4_i8i8(%s, %s, %s)", a, b, v[2]);
    case EX_dot4_u8u8: return TEXT("burin_c_dot4_u8u8(%s, %s, %s)", a, b, v[2]);
    case EX_dot2x2_u8i8: return TEXT("burin_c_dot2x2_u8i8(%s, %s, %s)", a, b, v[2]);
    case EX_dot2_i16: return TEXT("burin_c_dot2_i16(%s, %s, %s)", a, b, v[2]);
    case EX_neg: return arithmetic(c, e, t, '-', zero, a);
    case EX_floordiv:
      if (divides_plainly(c, e)) return TEXT("(%s / %s)", a, b);
      return int_call(c, t, t == DT_U64 ? "div" : "floordiv", a, b);
    case EX_floormod:
      if (divides_plainly(c, e)) return TEXT("(%s %% %s)", a, b);
      return int_call(c, t, t == DT_U64 ? "rem" : "floormod", a, b);
    case EX_div: return int_call(c, t, "div", a, b);
    case EX_rem: return int_call(c, t, "rem", a, b);
    case EX_min:
      if (c_is_narrow(c, e)) return TEXT("(%s < %s ? %s : %s)", b, a, b, a);
      return int_call(c, t, "min", a, b);
    case EX_max:
      if (c_is_narrow(c, e)) return TEXT("(%s < %s ? %s : %s)", a, b, b, a);
      return int_call(c, t, "max", a, b);
    case EX_abs: return is_signed(t) ? wrapped(c, t, TEXT("burin_c_abs(%s)", a)) : a;
    case EX_and: return wrapped(c, t, TEXT("%s & %s", a, b));
    case EX_or: return wrapped(c, t, TEXT("%s | %s", a, b));
    case EX_xor: return wrapped(c, t, TEXT("%s ^ %s", a, b));
    case EX_not: return t == DT_BOOL ? TEXT("(!%s)", a) : wrapped(c, t, TEXT("~%s", a));
    case EX_shl:
    case EX_shr: return shift(c, t, op == EX_shl, a, b);
    case EX_floor:
    case EX_ceil:
    case EX_trunc:
    case EX_rint: return a;
    default: c->error = "operation not defined on integers"; return a;
  }
}

/* ---- floats ---- */
/* Is e never subnormal? */
static bool is_normal(const Expr *e) {
  switch (e->op) {
    case EX_CONST:
      return e->k.f == 0 || fabs(e->k.f) >= (e->dtype == DT_F64 ? 0x1p-1022 : 0x1p-126);
    case EX_add:
    case EX_sub:
    case EX_mul:
    case EX_div:
    case EX_rem:
    case EX_sqrt:
    case EX_floor:
    case EX_ceil:
    case EX_trunc:
    case EX_rint: return !is_small((DType)e->dtype) || e->dtype == DT_F16;
    case EX_cast:
      return !dtype_is_float(e->a[0]->dtype) || (e->dtype == DT_F32 && e->a[0]->dtype == DT_F64);
    default: return e->dtype == DT_F16; /* its subnormals are normal floats */
  }
}

static const char *flushed(CText *c, DType t, const Expr *e, const char *v) {
  if (c->device || (e && is_normal(e))) return v;
  return t == DT_F64 ? TEXT("burin_c_flush(%s)", v) : TEXT("burin_c_flushf(%s)", v);
}

/* Functions of scalar.h: name for f32, name for f64. */
static const char *const float_calls[EX_COUNT][2] = {
    [EX_mul] = {"mulf", "mul"},    [EX_div] = {"divf", "fdiv"},
    [EX_sqrt] = {"sqrtf", "sqrt"}, [EX_floor] = {"floorf", "floor"},
    [EX_ceil] = {"ceilf", "ceil"}, [EX_trunc] = {"truncf", "trunc"},
    [EX_rint] = {"rintf", "rint"}, [EX_min] = {"minf", "fmin"},
    [EX_max] = {"maxf", "fmax"},   [EX_neg] = {"negf", "neg"},
    [EX_abs] = {"absf", "fabs"},
};

static const char *float_fresh(CText *c, ExprOp op, DType t, const char *a, const char *b,
                               const char *third) {
  const bool wide = t == DT_F64;
  const char *const f = wide ? "" : "f";
  if (op == EX_fma) return TEXT("burin_c_fma%s(%s, %s, %s)", f, a, b, third);
  if (c->device && (op == EX_add || op == EX_sub || op == EX_mul || op == EX_div))
    return TEXT("(%s %c %s)", a,
                op == EX_add   ? '+'
                : op == EX_sub ? '-'
                : op == EX_mul ? '*'
                               : '/',
                b);
  if (op == EX_add) return TEXT("burin_c_flush%s(%s + %s)", f, a, b);
  if (op == EX_sub) return TEXT("burin_c_flush%s(%s - %s)", f, a, b);
  if (op == EX_rem) {
    c->s->fmod = true;
    return TEXT("burin_c_flush%s(burin_rt_fmod%s(%s, %s))", f, f, a, b);
  }
  const char *const name = float_calls[op][wide];
  if (!name) return c->error = "operation not defined on floats", a;
  return b ? TEXT("burin_c_%s(%s, %s)", name, a, b) : TEXT("burin_c_%s(%s)", name, a);
}

static const char *float_op(CText *c, const Expr *e, ExprOp op, DType t, const char *const v[3]) {
  const bool moves = op == EX_min || op == EX_max || op == EX_neg || op == EX_abs;
  const bool keeps = moves || (op == EX_rem && t == DT_F64);
  const char *const a = keeps ? v[0] : flushed(c, t, e ? e->a[0] : NULL, v[0]);
  const char *const b = !v[1] || keeps ? v[1] : flushed(c, t, e ? e->a[1] : NULL, v[1]);
  if (op == EX_fma && !c->device) return c->error = "operation not defined on floats", a;
  const char *const r = float_fresh(c, op, t, a, b, v[2]), *const half = half_name(c, t);
  if (half && !moves) return TEXT("burin_%s_round(%s)", half, r);
  return is_small(t) && !moves ? TEXT("burin_c_round(%d, %s, 0)", format(t), r) : r;
}

static const char *compare(CText *c, const Expr *e, ExprOp op, DType t, const char *const v[3]) {
  static const char *const signs[EX_COUNT] = {
      [EX_lt] = "<", [EX_le] = "<=", [EX_eq] = "==", [EX_ne] = "!="};
  const bool f = dtype_is_float(t);
  return TEXT("(%s %s %s)", f ? flushed(c, t, e ? e->a[0] : NULL, v[0]) : v[0], signs[op],
              f ? flushed(c, t, e ? e->a[1] : NULL, v[1]) : v[1]);
}

/* e: for ranges, or NULL. t: type of the operands. */
const char *c_op(CText *c, const Expr *e, ExprOp op, DType t, const char *const v[3]) {
  if (op == EX_select) {
    const bool is_wide = e->dtype == DT_I64 && !c_is_narrow(c, e);
    const char *const wide = is_wide ? "(int64_t)" : ""; /* literals are ints */
    return TEXT("(%s ? %s%s : %s)", v[0], wide, v[1], v[2]);
  }
  if (op == EX_lt || op == EX_le || op == EX_eq || op == EX_ne) return compare(c, e, op, t, v);
  if (op == EX_isnan)
    return dtype_is_float(t) ? TEXT("burin_c_isnan%s(%s)", t == DT_F64 ? "" : "f", v[0]) : "0";
  return dtype_is_float(t) ? float_op(c, e, op, t, v) : int_op(c, e, op, t, v);
}

/* ---- conversions ---- */
static const char *limits(CText *c, DType t) {
  const int bits = dtype_rows[t].bits;
  if (bits == 64) return "INT64_MIN, INT64_MAX";
  if (!is_signed(t)) return TEXT("0, %s", c_i64(c, (INT64_C(1) << bits) - 1));
  return TEXT("%s, %s", c_i64(c, -(INT64_C(1) << (bits - 1))),
              c_i64(c, (INT64_C(1) << (bits - 1)) - 1));
}

static const char *to_int(CText *c, DType to, DType from, const char *v, bool saturate) {
  const char *const type = int_type(to);
  const int width = dtype_rows[to].bits;
  if (c->device && dtype_is_float(from) && from != DT_F64 &&
      (is_signed(to) ? width <= 32 : width < 32))
    return TEXT("(%s)burin_to_int(%s, %s)", type, v, limits(c, to));
  if (dtype_is_float(from))
    return to == DT_U64 ? TEXT("burin_c_to_u64(%s)", v)
                        : TEXT("(%s)burin_c_to_int(%s, %s)", type, v, limits(c, to));
  if (!saturate || to == from) return wrapped(c, to, v);
  if (from == DT_U64)
    return TEXT("(%s)burin_c_umin(%s, %s)", type, v,
                to == DT_I64 ? "INT64_MAX"
                             : c_i64(c, (INT64_C(1) << (dtype_rows[to].bits - is_signed(to))) - 1));
  if (to == DT_U64) return TEXT("(uint64_t)burin_c_max(%s, 0)", v);
  return TEXT("(%s)burin_c_clamp(%s, %s)", type, v, limits(c, to));
}

static const char *to_float(CText *c, DType to, DType from, const char *v, bool saturate) {
  const bool from_float = dtype_is_float(from);
  if (to == DT_F64) {
    if (from_float && from != DT_F8E8M0 && from != DT_F64 && !c->device)
      v = TEXT("burin_c_flushf(%s)", v);
    return from == DT_F64 ? TEXT("burin_c_flush(%s)", v) : TEXT("(double)%s", v);
  }
  if (from == DT_F64) v = TEXT("burin_c_narrow(%s)", v);
  if (to == DT_F32) return TEXT("(float)%s", v);
  if (from_float && from != DT_F64 && half_name(c, to))
    return TEXT("burin_%s_round(%s)", half_name(c, to), v);
  if (!from_float) v = TEXT("burin_c_from_%s64(%s)", from == DT_U64 ? "u" : "i", v);
  return TEXT("burin_c_round(%d, %s, %d)", format(to), v, saturate);
}

const char *c_cast(CText *c, DType to, DType from, const char *v, bool saturate) {
  if (to == DT_BOOL) return TEXT("(%s != 0)", dtype_is_float(from) ? flushed(c, from, NULL, v) : v);
  if (dtype_is_float(to)) return TEXT("(%s)", to_float(c, to, from, v, saturate));
  return TEXT("(%s)", to_int(c, to, from, v, saturate));
}

static const char *bits(CText *c, DType to, DType from, const char *v) {
  const char *const raw = from == DT_F32   ? TEXT("burin_c_bits32(%s)", v)
                          : from == DT_F64 ? TEXT("burin_c_bits64(%s)", v)
                                           : c_stored(c, from, v);
  if (to == DT_F32) return TEXT("burin_c_float((uint32_t)(%s))", raw);
  if (to == DT_F64) return TEXT("burin_c_double((uint64_t)(%s))", raw);
  if (is_small(to)) return c_loaded(c, to, TEXT("(%s)(%s)", int_type(to), raw));
  return TEXT("(%s)", wrapped(c, to, raw));
}

/* ---- names ---- */
static CMemo *memo(CText *c, const Expr *e) {
  CState *const s = c->s;
  if ((int)e->uid >= s->n_memo) {
    const int n = 2 * (int)e->uid + 1024;
    CMemo *const more = ARENA_ARRAY(s->p->arena, CMemo, n);
    if (s->n_memo) memcpy(more, s->memo, (size_t)s->n_memo * sizeof *more);
    s->memo = more;
    s->n_memo = n;
  }
  CMemo *const m = &s->memo[e->uid];
  if (m->epoch != s->epoch) *m = (CMemo){.epoch = s->epoch};
  return m;
}

void c_forget(CText *c) {
  c->s->epoch++;
  c->named.n = 0;
}

void c_count(CText *c, const Expr *e) {
  if (!e || memo(c, e)->uses++) return;
  for (int i = 0; i < e->nargs; i++) c_count(c, e->a[i]);
}

void c_known(CText *c, const Expr *e, const char *text) { memo(c, e)->text = text; }

static bool is_leaf(const Expr *e) {
  return e->op == EX_CONST || e->op == EX_SYM || e->op == EX_VAR;
}

static const char *named(CText *c, const Expr *e, const char *text) {
  const char *const name = TEXT("v%d", c->temps++);
  const char *const type = c_is_narrow(c, e) ? "int32_t" : c_reg_type((DType)e->dtype);
  c_line(c, "const %s %s = %s;", type, name, text);
  memo(c, e)->text = name;
  vec_push(c->arena, &c->named, e->uid);
  return name;
}

static const char *value(CText *c, const Expr *e);

/* The rare side in a block of its own; what is named there is not known behind it. */
static const char *rarely(CText *c, const Expr *e) {
  const char *const cond = value(c, e->a[0]), *const usual = value(c, e->a[2]);
  const char *const name = TEXT("v%d", c->temps++);
  c_line(c, "%s %s = %s;", c_reg_type((DType)e->dtype), name, usual);
  c_line(c, "if (%s) {", cond);
  const int mark = c->named.n;
  c->indent++;
  const char *const rare = value(c, e->a[1]);
  c_line(c, "%s = %s;", name, rare);
  c->indent--;
  c_line(c, "}");
  for (int i = mark; i < c->named.n; i++) c->s->memo[c->named.data[i]].text = NULL;
  c->named.n = mark;
  memo(c, e)->text = name;
  vec_push(c->arena, &c->named, e->uid);
  return name;
}

const char *c_local(CText *c, int local, const char *index) {
  const char *const at = TEXT("t%d[%s]", local, index);
  if (!c->stored || !c->stored[local]) return at;
  return c_loaded(c, c->kernel->locals.data[local].dtype, at);
}

static const char *access(CText *c, const Expr *e) {
  const char *const index = value(c, e->a[0]);
  if (e->op == EX_LOCAL) return c_local(c, e->id, index);
  const DType t = c->kernel->params.data[e->id].dtype;
  c->params[e->id] = true;
  const char *const got = c_loaded(c, t, TEXT("b%d[%s]", e->id, index));
  if (e->nargs < 2 || !e->a[1]) return got;
  return TEXT("(%s ? %s : 0)", value(c, e->a[1]), got);
}

const char *c_moved(CText *c, DType t, const Expr *e) {
  const bool local = e->op == EX_LOCAL;
  if (!is_small(t) || (!local && e->op != EX_LOAD)) return NULL;
  const DType from =
      local ? c->kernel->locals.data[e->id].dtype : c->kernel->params.data[e->id].dtype;
  if (from != t || (local && !c->stored[e->id]) || memo(c, e)->text) return NULL;
  const char *const at = TEXT("%c%d[%s]", local ? 't' : 'b', e->id, value(c, e->a[0]));
  if (local) return at;
  c->params[e->id] = true;
  return e->a[1] ? TEXT("(%s ? %s : 0)", value(c, e->a[1]), at) : at;
}

static const char *symbol(CText *c, const Expr *e) {
  if (!c->kernel) return TEXT("sym[%d]", e->id);
  c->syms[e->id] = true;
  return TEXT("s%d", e->id);
}

static const char *fresh(CText *c, const Expr *e) {
  const DType t = (DType)e->dtype;
  const char *v[3] = {NULL, NULL, NULL};
  switch (e->op) {
    case EX_CONST: return literal(c, e);
    case EX_SYM: return symbol(c, e);
    case EX_VAR: return TEXT("i%d", e->id);
    case EX_LOAD:
    case EX_LOCAL: return access(c, e);
    case EX_REDUCE:
    case EX_HOLE: c->error = "reduction or hole in code to be generated"; return "0";
    case EX_rarely: return rarely(c, e);
    case EX_cast:
    case EX_sat: return c_cast(c, t, (DType)e->a[0]->dtype, value(c, e->a[0]), e->op == EX_sat);
    case EX_bits: return bits(c, t, (DType)e->a[0]->dtype, value(c, e->a[0]));
    default: break;
  }
  for (int i = 0; i < e->nargs; i++) v[i] = value(c, e->a[i]);
  return c_op(c, e, (ExprOp)e->op, (DType)e->a[0]->dtype, v);
}

static const char *value(CText *c, const Expr *e) {
  if (e->flags & EXF_MATH) c->error = "a math row that pass expand_math has not seen";
  const CMemo *const m = memo(c, e);
  if (m->text) return m->text;
  const bool twice = m->uses > 1;
  const char *const text = fresh(c, e);
  if (is_leaf(e) || memo(c, e)->text) return text; /* rarely names itself */
  const bool is_long = strlen(text) > LONG || e->depth % DEEP == 0;
  return twice || is_long ? named(c, e, text) : text;
}

const char *c_value(CText *c, const Expr *e) { return value(c, e); }
