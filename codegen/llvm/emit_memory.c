/* Loads and stores of buffers and of memory locals: addresses, guards, strides over lanes, masks.
 *
 * An address is built from the terms of its index in order of loop depth, constants last, so that
 * LLVM can hoist the outer part and fold the rest into addressing modes. A load whose guard is the
 * same for all lanes needs no branch: where the guard is false, the outer part is replaced by a
 * block of zeros and the inner terms (known to be small) are added to that. */
#include "codegen/llvm/emit.h"
#include "ir/base/integer.h"

enum { MAX_TERMS = 64, ZERO_BLOCK = 64 << 10 };

/* ---- terms of an index ---- */
typedef struct Term {
  const Expr *e;
  int depth;
  bool minus;
} Term;
typedef struct Terms {
  Term t[MAX_TERMS];
  int n;
  int64_t constant;
} Terms;

static void terms_add(Emit *c, Terms *ts, const Expr *e, bool minus) {
  int64_t k;
  if (emit_const(c, e, &k)) {
    ts->constant += minus ? -k : k;
  } else if ((e->op == EX_add || e->op == EX_sub) && ts->n < MAX_TERMS - 2) {
    terms_add(c, ts, e->a[0], minus);
    terms_add(c, ts, e->a[1], e->op == EX_sub ? !minus : minus);
  } else if (e->op == EX_neg) {
    terms_add(c, ts, e->a[0], !minus);
  } else if (ts->n < MAX_TERMS) {
    const Term t = {e, expr_depth(c, e), minus};
    int i = ts->n++;
    for (; i > 0 && ts->t[i - 1].depth > t.depth; i--) ts->t[i] = ts->t[i - 1];
    ts->t[i] = t;
  } else {
    c->error = "index has too many terms";
  }
}

static Val gep(Emit *c, const Mem *m, Val p, Val index) {
  return LLVMBuildGEP2(c->b, mem_type(c, m->dtype), p, &index, 1, "");
}
static Val gep_const(Emit *c, const Mem *m, Val p, int64_t k) {
  return k ? gep(c, m, p, k_int(c, c->idx, k)) : p;
}
static Val add_terms(Emit *c, const Mem *m, Val p, const Terms *ts, int from, int to) {
  for (int i = from; i < to;) { /* terms of one depth in one step */
    Val sum = NULL;
    const int depth = ts->t[i].depth;
    for (; i < to && ts->t[i].depth == depth; i++) {
      Val v = emit_index(c, ts->t[i].e);
      if (ts->t[i].minus) v = LLVMBuildNeg(c->b, v, "");
      sum = sum ? LLVMBuildAdd(c->b, sum, v, "") : v;
    }
    p = gep(c, m, p, sum);
  }
  return p;
}

/* A number that divides e, 0 for the constant 0. */
static int64_t multiple_of(const Emit *c, const Expr *e) {
  int64_t k;
  if (expr_is_const(e, &k)) return k == INT64_MIN ? 1 : k;
  if (e->op == EX_VAR)
    return e->id < c->v->n
               ? (c->v->state[e->id].is_const ? c->v->state[e->id].k : c->v->state[e->id].multiple)
               : 1;
  if (e->op == EX_add || e->op == EX_sub)
    return int_gcd(multiple_of(c, e->a[0]), multiple_of(c, e->a[1]));
  if (e->op == EX_mul) {
    int64_t r;
    return ck_mul(multiple_of(c, e->a[0]), multiple_of(c, e->a[1]), &r) ? r : 1;
  }
  return 1;
}

/* Alignment of the address in bytes. */
static unsigned alignment(const Emit *c, const Mem *m, const Expr *index) {
  const int64_t bytes = dtype_bytes(m->dtype);
  int64_t k = multiple_of(c, index) % 4096;
  if (k == 0) k = 4096;
  const int64_t by = int_gcd(k * bytes, 4096);
  return (unsigned)(by < m->align ? by : m->align);
}

static Val zeros_symbol(Emit *c) {
  const Val g = hidden_bytes(c, arena_printf(c->arena, "%s_zeros", c->name));
  LLVMSetGlobalConstant(g, 1);
  return g;
}

/* How many of the innermost terms can be added behind the choice between data and zeros: they must
 * not reach beyond the block of zeros, and the guard must not depend on their loops. */
static int outer_terms(Emit *c, const Mem *m, const Terms *ts, const Expr *guard, int64_t access) {
  const int depth = expr_depth(c, guard);
  int64_t reach = access;
  int n = ts->n;
  while (n > 0 && ts->t[n - 1].depth > depth && !ts->t[n - 1].minus) {
    int64_t lo, hi;
    if (!expr_range(c->pool, ts->t[n - 1].e, &lo, &hi) || lo < 0 || hi > ZERO_BLOCK) break;
    if (reach + hi * dtype_bytes(m->dtype) > ZERO_BLOCK) break;
    reach += hi * dtype_bytes(m->dtype);
    n--;
  }
  if (reach > c->zeros) c->zeros = reach;
  return n;
}

/* Address of lane 0, `access` bytes of which are going to be read. */
Val mem_address(Emit *c, const Mem *m, const Expr *index, const Expr *guard, int64_t access) {
  Terms ts = {.n = 0, .constant = 0};
  terms_add(c, &ts, index, false);
  if (!guard) return gep_const(c, m, add_terms(c, m, m->base, &ts, 0, ts.n), ts.constant);
  const int outer = outer_terms(c, m, &ts, guard, access);
  const Val real = gep_const(c, m, add_terms(c, m, m->base, &ts, 0, outer), ts.constant);
  const bool was = c->lane0;
  c->lane0 = true;
  const Val cond = emit_cond(c, guard);
  c->lane0 = was;
  const Val p = LLVMBuildSelect(c->b, cond, real, zeros_symbol(c), "");
  return add_terms(c, m, p, &ts, outer, ts.n);
}

/* ---- lanes ---- */
bool lane_uniform(const Emit *c, const Expr *e) {
  return !c->vvar || c->lane0 || lanes_equal(e, c->vvar, c->use);
}

bool masks_cheap(const Emit *c, DType t) {
  if (c->t->masks) return true;
  return target_has(c->t, FEATURE_AVX2) && dtype_bytes(t) >= 4;
}

/* Elements between neighbouring lanes; 0: the same for all; STRIDE_ANY: not a constant. */
enum { STRIDE_ANY = 1 << 30 };
static int64_t lane_stride(Emit *c, const Expr *index) {
  if (lane_uniform(c, index)) return 0;
  const Expr *coeff, *rest;
  int64_t k;
  if (!expr_affine(c->pool, index, c->vvar, &coeff, &rest) || reads_lane_local(rest, c->use))
    return STRIDE_ANY;
  if (!emit_const(c, coeff, &k) || k <= -STRIDE_ANY || k >= STRIDE_ANY) return STRIDE_ANY;
  return k;
}

static Val mask_and(Emit *c, Val a, Val b) {
  if (!a || !b) return a ? a : b;
  return LLVMBuildAnd(c->b, a, b, "");
}

/* ---- loads ---- */
static void set_invariant(Emit *c, const Mem *m, Val load) {
  if (!m->invariant) return;
  const unsigned kind = LLVMGetMDKindIDInContext(c->ctx, "invariant.load", 14);
  LLVMSetMetadata(load, kind, LLVMMetadataAsValue(c->ctx, LLVMMDNodeInContext2(c->ctx, NULL, 0)));
}

static Val load_at(Emit *c, const Mem *m, Type t, Val p, unsigned align) {
  const Val v = LLVMBuildLoad2(c->b, t, p, "");
  LLVMSetAlignment(v, align);
  set_invariant(c, m, v);
  return v;
}

static unsigned element_bits(Type t) {
  const Type e = LLVMGetElementType(t);
  switch (LLVMGetTypeKind(e)) {
    case LLVMIntegerTypeKind: return LLVMGetIntTypeWidth(e);
    case LLVMHalfTypeKind:
    case LLVMBFloatTypeKind: return 16;
    case LLVMFloatTypeKind: return 32;
    default: return 64; /* double, a pointer */
  }
}

/* LLVM 19 for x86 splits a vector that is wider than a register, and where it finds only then that all
 * lanes of one part are off, it accesses that part under an undefined mask, or the other's: memory is
 * read, and written, that must not be. So it is not shown what such masks are made of. */
static Val opaque_mask(Emit *c, Type t, Val mask) {
  const unsigned n = LLVMGetVectorSize(t);
  if (!target_has(c->t, FEATURE_AVX2) || LLVMIsConstant(mask) || n < 8 ||
      n * element_bits(t) <= (unsigned)c->t->vector_bits)
    return mask;
  const Type bits = LLVMIntTypeInContext(c->ctx, n),
             fn = LLVMFunctionType(bits, (Type[]){bits}, 1, 0);
  const Val same = LLVMGetInlineAsm(fn, "", 0, "=r,0", 4, 0, 0, LLVMInlineAsmDialectATT, 0);
  Val v = LLVMBuildBitCast(c->b, mask, bits, "");
  v = LLVMBuildCall2(c->b, fn, same, &v, 1, "");
  return LLVMBuildBitCast(c->b, v, LLVMTypeOf(mask), "");
}

static Val masked_load(Emit *c, Type t, Val p, unsigned align, Val mask) {
  const Type types[2] = {t, c->ptr};
  return intrinsic(c, "llvm.masked.load", 2, types, 4,
                   (Val[]){p, k_int(c, c->i32, align), opaque_mask(c, t, mask), LLVMConstNull(t)});
}

/* Without cheap masks: the whole vector when all lanes are active, else lane by lane. */
static Val branching_load(Emit *c, const Mem *m, Type t, Val p, unsigned align, Val mask) {
  const Val all = intrinsic(c, "llvm.vector.reduce.and", 1, (Type[]){LLVMTypeOf(mask)}, 1, &mask);
  const LLVMBasicBlockRef whole = new_block(c, ""), some = new_block(c, ""),
                          done = new_block(c, "");
  LLVMBuildCondBr(c->b, all, whole, some);
  LLVMPositionBuilderAtEnd(c->b, whole);
  const Val a = load_at(c, m, t, p, align);
  LLVMBuildBr(c->b, done);
  LLVMPositionBuilderAtEnd(c->b, some);
  const Val b = masked_load(c, t, p, align, mask);
  LLVMBuildBr(c->b, done);
  LLVMPositionBuilderAtEnd(c->b, done);
  const Val phi = LLVMBuildPhi(c->b, t, "");
  LLVMAddIncoming(phi, (Val[]){a, b}, (LLVMBasicBlockRef[]){whole, some}, 2);
  return phi;
}

static Val contiguous_load(Emit *c, const Mem *m, Val p, unsigned align, Val mask) {
  const Type t = vec_type(mem_type(c, m->dtype), c->vl);
  if (!mask) return load_at(c, m, t, p, align);
  return masks_cheap(c, m->dtype) ? masked_load(c, t, p, align, mask)
                                  : branching_load(c, m, t, p, align, mask);
}

/* Every second element: two overlapping vectors that together end at the last lane's element. */
static Val stride2_load(Emit *c, const Mem *m, Val p) {
  const Type t = vec_type(mem_type(c, m->dtype), c->vl);
  const unsigned align = (unsigned)dtype_bytes(m->dtype);
  const Val a = load_at(c, m, t, p, align),
            b = load_at(c, m, t, gep_const(c, m, p, c->vl - 1), align);
  int lanes[128];
  for (int i = 0; i < c->vl; i++) lanes[i] = 2 * i < c->vl ? 2 * i : c->vl + 2 * i - (c->vl - 1);
  return shuffle_lanes(c, a, b, lanes, c->vl);
}

static Val reversed_load(Emit *c, const Mem *m, Val p) {
  const Type t = vec_type(mem_type(c, m->dtype), c->vl);
  const Val a = load_at(c, m, t, gep_const(c, m, p, 1 - c->vl), (unsigned)dtype_bytes(m->dtype));
  int lanes[128];
  for (int i = 0; i < c->vl; i++) lanes[i] = c->vl - 1 - i;
  return shuffle_lanes(c, a, NULL, lanes, c->vl);
}

/* Loads at a constant distance, or at any index: one by one. */
static Val scalar_gather(Emit *c, const Mem *m, Val p, int64_t stride, Val index) {
  const Type t = mem_type(c, m->dtype);
  const unsigned align = (unsigned)dtype_bytes(m->dtype);
  Val r = LLVMGetPoison(vec_type(t, c->vl));
  for (int i = 0; i < c->vl; i++) {
    const Val k = k_int(c, c->i32, i);
    const Val at = index ? gep(c, m, m->base, LLVMBuildExtractElement(c->b, index, k, ""))
                         : gep_const(c, m, p, i * stride);
    r = LLVMBuildInsertElement(c->b, r, load_at(c, m, t, at, align), k, "");
  }
  return r;
}

static Val lane_pointers(Emit *c, const Mem *m, Val index) {
  return LLVMBuildGEP2(c->b, mem_type(c, m->dtype), m->base, &index, 1, "");
}

Val emit_masked_gather(Emit *c, Type t, Val at, unsigned align, Val mask) {
  const Type pointers = LLVMTypeOf(at);
  return intrinsic(
      c, "llvm.masked.gather", 2, (Type[]){t, pointers}, 4,
      (Val[]){at, k_int(c, c->i32, align), opaque_mask(c, pointers, mask), LLVMConstNull(t)});
}

/* An element of a whole table of bytes, found by a byte; NULL: it is not. Lanes that are not active
 * may be read, too. */
static Val table_load(Emit *c, const Mem *m, const Expr *index) {
  const Expr *const byte = index->op == EX_cast ? index->a[0] : NULL;
  if (!byte || byte->dtype != DT_U8 || dtype_bytes(m->dtype) != 1 || !m->invariant ||
      m->count < 256)
    return NULL;
  return emit_byte_table(c, m->base, (unsigned)m->align, as_lanes(c, emit_expr(c, byte)));
}

/* Neighbours that are half a register, in a loop that is copied out: two copies share a whole one. NULL:
 * not here. */
static Val half_load(Emit *c, const Mem *m, const Expr *index) {
  const int whole = target_lanes(c->t, dtype_bytes(m->dtype) * 8);
  int64_t lo, n, at;
  if (!c->t->lane_operand || m->dtype != DT_I16 || c->vl * 2 != whole ||
      !emit_const(c, expr_var_lo(c->pool, c->vvar->id), &lo) || lo ||
      !emit_const(c, expr_var_extent(c->pool, c->vvar->id), &n) || !emit_const(c, c->vvar, &at) ||
      at - at % whole + whole > n)
    return NULL;
  const Val p = gep_const(c, m, mem_address(c, m, index, NULL, 0), -(at % whole));
  const Val v =
      load_at(c, m, vec_type(mem_type(c, m->dtype), whole), p, (unsigned)dtype_bytes(m->dtype));
  return lanes_from(c, v, (int)(at % whole), c->vl);
}

static Val lanes_load(Emit *c, const Mem *m, const Expr *index, const Expr *uniform_guard,
                      Val mask) {
  const int64_t stride = lane_stride(c, index);
  const int64_t bytes = dtype_bytes(m->dtype);
  const Val found = stride == STRIDE_ANY && !uniform_guard ? table_load(c, m, index) : NULL;
  if (found) return found;
  if (stride == 1) {
    const Val half = uniform_guard || mask ? NULL : half_load(c, m, index);
    if (half) return half;
    const Val p = mem_address(c, m, index, uniform_guard, c->vl * bytes);
    return contiguous_load(c, m, p, uniform_guard ? (unsigned)bytes : alignment(c, m, index), mask);
  }
  if (!mask && !uniform_guard && stride == 2)
    return stride2_load(c, m, mem_address(c, m, index, NULL, 0));
  if (!mask && !uniform_guard && stride == -1)
    return reversed_load(c, m, mem_address(c, m, index, NULL, 0));
  const bool gathers = c->t->masks && bytes >= 4;
  if (!mask && !uniform_guard && !gathers) {
    if (stride != STRIDE_ANY)
      return scalar_gather(c, m, mem_address(c, m, index, NULL, 0), stride, NULL);
    return scalar_gather(c, m, NULL, 0, as_lanes(c, emit_index_lanes(c, index)));
  }
  const Val at = lane_pointers(c, m, as_lanes(c, emit_index_lanes(c, index)));
  if (uniform_guard) mask = mask_and(c, mask, splat(c, emit_cond(c, uniform_guard), c->vl));
  if (!mask) mask = splat(c, k_int(c, c->i1, 1), c->vl);
  return emit_masked_gather(c, vec_type(mem_type(c, m->dtype), c->vl), at, (unsigned)bytes, mask);
}

/* A scalar of type t, which `per` elements make up, that a multiply-add can take as a lane: copies of a
 * loop that read neighbours share a vector. NULL: there is none. */
static Val load_lane(Emit *c, const Mem *m, const Expr *index, Type t, int per) {
  const int lanes = target_lanes(c->t, per * dtype_bytes(m->dtype) * 8);
  if (!c->t->lane_operand || !c->vvar) return NULL;
  for (int i = 0; i < c->n_copied; i++) {
    const Expr *const var = c->copied[i], *coeff, *rest;
    int64_t step, at, n;
    if (!expr_affine(c->pool, index, var, &coeff, &rest) || !emit_const(c, coeff, &step) ||
        step != per || !emit_const(c, var, &at) ||
        !emit_const(c, expr_var_extent(c->pool, var->id), &n))
      continue;
    const int64_t group = at - at % lanes, end = n - lanes;
    /* of 16 bits the last group may overlap the one before */
    const int64_t first = group <= end || m->dtype != DT_I16 ? group : end;
    if (first > end || first < 0) continue;
    const Val p = gep_const(c, m, mem_address(c, m, index, NULL, 0), (first - at) * per);
    const Val v = load_at(c, m, vec_type(t, lanes), p, (unsigned)dtype_bytes(m->dtype));
    return LLVMBuildExtractElement(c->b, v, k_int(c, c->i32, at - first), "");
  }
  return NULL;
}

static Val load_uniform(Emit *c, const Mem *m, const Expr *index, const Expr *guard) {
  const bool by_lane = !guard && (m->dtype == DT_F32 || m->dtype == DT_I16);
  const Val lane = by_lane ? load_lane(c, m, index, mem_type(c, m->dtype), 1) : NULL;
  if (lane) return lane;
  const Val p = mem_address(c, m, index, guard, dtype_bytes(m->dtype));
  return load_at(c, m, mem_type(c, m->dtype), p, (unsigned)dtype_bytes(m->dtype));
}

Val mem_load(Emit *c, const Mem *m, const Expr *index, const Expr *guard) {
  const Type t = mem_type(c, m->dtype);
  int64_t k;
  if (guard) guard = emit_specialise(c, guard);
  if (guard && (lane_uniform(c, guard) && emit_const(c, guard, &k))) {
    if (!k) return from_mem(c, m->dtype, LLVMConstNull(t));
    guard = NULL;
  }
  const bool guard_uniform = !guard || lane_uniform(c, guard);
  Val lanes = guard_uniform ? NULL : as_lanes(c, emit_cond(c, guard));
  if (lane_uniform(c, index)) {
    if (guard_uniform) return from_mem(c, m->dtype, load_uniform(c, m, index, guard));
    const Val at = splat(c, mem_address(c, m, index, NULL, 0), c->vl);
    const Type lanes_type = vec_type(t, c->vl);
    return from_mem(c, m->dtype,
                    emit_masked_gather(c, lanes_type, at, (unsigned)dtype_bytes(m->dtype),
                                       mask_and(c, c->mask, lanes)));
  }
  return from_mem(
      c, m->dtype,
      lanes_load(c, m, index, guard_uniform ? guard : NULL, mask_and(c, c->mask, lanes)));
}

/* ---- stores ---- */
static void store_at(Emit *c, Val value, Val p, unsigned align) {
  LLVMSetAlignment(LLVMBuildStore(c->b, value, p), align);
}

static void masked_store(Emit *c, Val value, Val p, unsigned align, Val mask) {
  const Type t = LLVMTypeOf(value);
  intrinsic(c, "llvm.masked.store", 2, (Type[]){t, c->ptr}, 4,
            (Val[]){value, p, k_int(c, c->i32, align), opaque_mask(c, t, mask)});
}

void emit_masked_scatter(Emit *c, Val value, Val at, unsigned align, Val mask) {
  const Type pointers = LLVMTypeOf(at);
  intrinsic(c, "llvm.masked.scatter", 2, (Type[]){LLVMTypeOf(value), pointers}, 4,
            (Val[]){value, at, k_int(c, c->i32, align), opaque_mask(c, pointers, mask)});
}

static void scatter(Emit *c, const Mem *m, const Expr *index, int64_t stride, Val value) {
  const unsigned align = (unsigned)dtype_bytes(m->dtype);
  if (c->mask || (c->t->masks && dtype_bytes(m->dtype) >= 4)) {
    const Val at = lane_pointers(c, m, as_lanes(c, emit_index_lanes(c, index)));
    const Val mask = c->mask ? c->mask : splat(c, k_int(c, c->i1, 1), c->vl);
    emit_masked_scatter(c, value, at, align, mask);
    return;
  }
  const Val p = stride == STRIDE_ANY ? NULL : mem_address(c, m, index, NULL, 0);
  const Val any = p ? NULL : as_lanes(c, emit_index_lanes(c, index));
  for (int i = 0; i < c->vl; i++) {
    const Val k = k_int(c, c->i32, i);
    const Val at = p ? gep_const(c, m, p, i * stride)
                     : gep(c, m, m->base, LLVMBuildExtractElement(c->b, any, k, ""));
    store_at(c, LLVMBuildExtractElement(c->b, value, k, ""), at, align);
  }
}

void mem_store(Emit *c, const Mem *m, const Expr *index, Val value) {
  value = to_mem(c, m->dtype, value);
  if (!c->vvar || c->lane0) {
    store_at(c, value, mem_address(c, m, index, NULL, 0), (unsigned)dtype_bytes(m->dtype));
    return;
  }
  const int64_t stride = lane_stride(c, index);
  if (stride == 0 && (!c->mask || !is_vec(value))) { /* the last lane's value stays */
    if (is_vec(value))
      value = LLVMBuildExtractElement(c->b, value, k_int(c, c->i32, c->vl - 1), "");
    store_at(c, value, mem_address(c, m, index, NULL, 0), (unsigned)dtype_bytes(m->dtype));
    return;
  }
  value = as_lanes(c, value);
  if (stride != 1) {
    scatter(c, m, index, stride, value);
    return;
  }
  const Val p = mem_address(c, m, index, NULL, 0);
  const unsigned align = alignment(c, m, index);
  if (c->mask)
    masked_store(c, value, p, align, c->mask);
  else
    store_at(c, value, p, align);
}

/* ---- buffers ---- */
Mem emit_param_mem(const Emit *c, int id) {
  const Param *const p = &c->kernel->params.data[id];
  int64_t count = 0;
  if (p->count && !expr_is_const(p->count, &count)) count = 0;
  return (Mem){c->params[id], p->dtype, c->align[id], p->constant, count};
}

Val emit_load(Emit *c, const Expr *e) {
  const Mem m = emit_param_mem(c, e->id);
  return mem_load(c, &m, e->a[0], e->nargs > 1 ? e->a[1] : NULL);
}

Val emit_load_row(Emit *c, const Expr *load, int n) {
  const Mem m = emit_param_mem(c, load->id);
  const Val p = mem_address(c, &m, load->a[0], NULL, 0);
  return load_at(c, &m, vec_type(mem_type(c, m.dtype), n), p, (unsigned)dtype_bytes(m.dtype));
}

/* ---- groups of four bytes ---- */
/* Element i of an i32 that holds a group, as templates write it; NULL: something else. */
static const Expr *group_byte(const Expr *e, int *i) {
  int64_t shift = 0, mask = 0;
  if (e->op == EX_shl && expr_is_const(e->a[1], &shift)) e = e->a[0];
  const bool masked = e->op == EX_and && expr_is_const(e->a[1], &mask) && mask == 255;
  if (masked) e = e->a[0];
  *i = (int)(shift / 8);
  const Expr *const load = e->op == EX_cast ? e->a[0] : NULL;
  if (!load || load->op != EX_LOAD || load->nargs > 1 || shift % 8 || shift < 0 || shift > 24)
    return NULL;
  return load->dtype == DT_U8 || (load->dtype == DT_I8 && (masked || shift == 24)) ? load : NULL;
}

/* The loads of e's bytes; what is not there is 0. */
static bool find_group(const Expr *e, const Expr **load) {
  int i;
  if (e->op == EX_or) return find_group(e->a[0], load) && find_group(e->a[1], load);
  const Expr *const byte = group_byte(e, &i);
  if (!byte || load[i]) return false;
  load[i] = byte;
  return true;
}

/* Four neighbours that are the same for all lanes. */
static Val uniform_group(Emit *c, const Expr *const *load) {
  const Mem m = emit_param_mem(c, load[0] ? load[0]->id : 0);
  for (int i = 0; i < 4; i++)
    if (!load[i] || load[i]->id != load[0]->id || !lane_uniform(c, load[i]->a[0]) ||
        !expr_is_i64(ex_sub(c->pool, load[i]->a[0], load[0]->a[0]), i))
      return NULL;
  return load_lane(c, &m, load[0]->a[0], c->i32, 4);
}

static Val zipped(Emit *c, Val a, Val b) {
  int lanes[128];
  const int n = (int)LLVMGetVectorSize(LLVMTypeOf(a));
  for (int i = 0; i < 2 * n; i++) lanes[i] = i / 2 + (i % 2) * n;
  return shuffle_lanes(c, a, b, lanes, 2 * n);
}

/* In the low lanes of a register what vl bytes are: LLVM makes 16-bit lanes of fewer than eight. */
static Val row_of_bytes(Emit *c, const Expr *load) {
  const int least = target_lanes(c->t, 16);
  if (!load) return LLVMConstNull(vec_type(c->i8, c->vl > least ? c->vl : least));
  if (c->vl >= least) return emit_load_row(c, load, c->vl);
  const Mem m = emit_param_mem(c, load->id);
  const Type word = LLVMIntTypeInContext(c->ctx, 8 * (unsigned)c->vl);
  const Val p = mem_address(c, &m, load->a[0], NULL, 0), v = load_at(c, &m, word, p, 1);
  return LLVMBuildBitCast(c->b, LLVMBuildZExt(c->b, v, c->i64, ""), vec_type(c->i8, least), "");
}

/* Four vectors of bytes, byte by byte. */
static Val group_of_vectors(Emit *c, const Expr *const *load) {
  Val half[2];
  for (int i = 0; i < 2; i++) {
    const Val row = zipped(c, row_of_bytes(c, load[2 * i]), row_of_bytes(c, load[2 * i + 1]));
    half[i] = LLVMBuildBitCast(c->b, row,
                               vec_type(c->i16, (int)LLVMGetVectorSize(LLVMTypeOf(row)) / 2), "");
  }
  const Val all = zipped(c, half[0], half[1]);
  const int n = (int)LLVMGetVectorSize(LLVMTypeOf(all)) / 2;
  return lanes_from(c, LLVMBuildBitCast(c->b, all, vec_type(c->i32, n), ""), 0, c->vl);
}

bool group_has_lanes(const Emit *c, const Expr *e, const Expr *var) {
  const Expr *load[4] = {NULL}, *coeff, *rest;
  if (!target_has(c->t, FEATURE_DOTPROD) || !find_group(e, load)) return false;
  for (int i = 0; i < 4; i++)
    if (load[i] &&
        (!expr_affine(c->pool, load[i]->a[0], var, &coeff, &rest) || !expr_is_i64(coeff, 1)))
      return false;
  return true;
}

Val emit_group(Emit *c, const Expr *e) {
  const Expr *load[4] = {NULL};
  if (e->dtype != DT_I32 || !target_has(c->t, FEATURE_DOTPROD) || !c->vvar || c->lane0 || c->mask)
    return NULL;
  if (lane_uniform(c, e)) return find_group(e, load) ? uniform_group(c, load) : NULL;
  return group_has_lanes(c, e, c->vvar) && find_group(e, load) ? group_of_vectors(c, load) : NULL;
}

void emit_store(Emit *c, int buffer, const Expr *index, Val value) {
  const Mem m = emit_param_mem(c, buffer);
  mem_store(c, &m, index, value);
}

void emit_prefetch(Emit *c, int buffer, const Expr *index) {
  const Mem m = emit_param_mem(c, buffer);
  const Val p = mem_address(c, &m, index, NULL, 0);
  intrinsic(c, "llvm.prefetch", 1, (Type[]){c->ptr}, 4,
            (Val[]){p, k_int(c, c->i32, 0), k_int(c, c->i32, 2), k_int(c, c->i32, 1)});
}
