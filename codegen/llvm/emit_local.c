/* Locals of a kernel: register tiles (one alloca per scalar or per vector, which LLVM's SROA turns
 * into SSA values) and arrays on the stack; and accumulation into them, over lanes too. */
#include "codegen/llvm/emit.h"

static const Local *local_of(const Emit *c, int id) { return &c->kernel->locals.data[id]; }
static bool in_lanes(const Emit *c) { return c->vvar && !c->lane0; }

static Val slots_alloca(Emit *c, LocalState *s, Type t, int n) {
  s->slots = ARENA_ARRAY(c->arena, Val, n);
  s->n_slots = n;
  for (int i = 0; i < n; i++) s->slots[i] = entry_alloca(c, t, 1, 0);
  return NULL;
}

/* Vectors of two rows and two columns. */
static bool is_square(const Emit *c, const Local *l) {
  return l->memory == MEM_MATRIX && target_has(c->t, FEATURE_I8MM) && l->count % c->vl == 0;
}

void local_declare(Emit *c, int id) {
  LocalState *const s = &c->locals[id];
  const Local *const l = local_of(c, id);
  const Type reg = reg_type(c, l->dtype);
  s->hidden = NULL;
  if (c->use[id].memory) {
    s->kind = c->vvar ? LK_LANE_STACK : LK_STACK;
    if (!s->mem || s->n_slots != (int)s->kind)
      s->mem = entry_alloca(c, mem_type(c, l->dtype), l->count * (c->vvar ? c->vl : 1), 64);
    s->n_slots =
        (int)s->kind; /* what mem was made for: a loop body unrolled by us takes the same memory */
  } else if (c->vvar) {
    s->kind = LK_LANES;
    slots_alloca(c, s, vec_type(reg, c->vl), (int)l->count);
  } else if (c->use[id].across && across_fits(c)) {
    s->kind = LK_ACROSS;
    slots_alloca(c, s, vec_type(reg, c->vl), (int)l->count);
  } else if (c->use[id].sliced || is_square(c, l)) {
    s->kind = LK_CHUNKS;
    slots_alloca(c, s, vec_type(reg, c->vl), (int)((l->count + c->vl - 1) / c->vl));
  } else {
    s->kind = LK_SCALARS;
    slots_alloca(c, s, reg, (int)l->count);
  }
}

Mem emit_stack_mem(const Emit *c, int id) {
  return (Mem){c->locals[id].mem, local_of(c, id)->dtype, 64, false, 0};
}

/* Constant element index of a register local (of lane 0). */
static int64_t slot_index(Emit *c, int id, const Expr *index) {
  int64_t k;
  if (!emit_const(c, index, &k)) {
    c->error =
        arena_printf(c->arena, "index of register local %s is not constant", local_of(c, id)->name);
    return 0;
  }
  if (k < 0 || k >= local_of(c, id)->count) {
    c->error =
        arena_printf(c->arena, "index of register local %s is out of range", local_of(c, id)->name);
    return 0;
  }
  return k;
}

/* Of a slot of LK_CHUNKS; vector loops may have more. */
static int slot_lanes(const Emit *c) { return target_lanes(c->t, 32); }

/* ---- one element as a scalar ---- */
static Val element_get(Emit *c, int id, int64_t k) {
  const LocalState *const s = &c->locals[id];
  const Type reg = reg_type(c, local_of(c, id)->dtype);
  const int n = slot_lanes(c);
  if (s->kind == LK_SCALARS) return LLVMBuildLoad2(c->b, reg, s->slots[k], "");
  if (s->kind == LK_ACROSS)
    return emit_horizontal(c, RED_SUM, local_of(c, id)->dtype,
                           LLVMBuildLoad2(c->b, vec_type(reg, n), s->slots[k], ""));
  const Val v = LLVMBuildLoad2(c->b, vec_type(reg, n), s->slots[k / n], "");
  return LLVMBuildExtractElement(c->b, v, k_int(c, c->i32, k % n), "");
}

static void element_set(Emit *c, int id, int64_t k, Val value) {
  const LocalState *const s = &c->locals[id];
  if (s->kind == LK_SCALARS) {
    LLVMBuildStore(c->b, value, s->slots[k]);
    return;
  }
  if (s->kind == LK_ACROSS) {
    const Val none = LLVMConstNull(vec_type(LLVMTypeOf(value), c->vl));
    value = LLVMBuildInsertElement(c->b, none, value, k_int(c, c->i32, 0), "");
    LLVMBuildStore(c->b, value, s->slots[k]);
    return;
  }
  const Val old = LLVMBuildLoad2(c->b, vec_type(LLVMTypeOf(value), c->vl), s->slots[k / c->vl], "");
  LLVMBuildStore(c->b, LLVMBuildInsertElement(c->b, old, value, k_int(c, c->i32, k % c->vl), ""),
                 s->slots[k / c->vl]);
}

/* ---- a slice of lanes ---- */
static bool sliced_here(const Emit *c, int id, const Expr *index) {
  const LocalKind kind = c->locals[id].kind;
  return in_lanes(c) && (kind == LK_CHUNKS || kind == LK_ACROSS) &&
         expr_uses_var(index, c->vvar->id);
}

/* Lanes k .. k+n-1 of a local, n those of a slot; one slot when k is a multiple of n, which templates
 * see to. */
static Val slot_get(Emit *c, int id, int64_t k) {
  const LocalState *const s = &c->locals[id];
  const int n = slot_lanes(c);
  const Type t = vec_type(reg_type(c, local_of(c, id)->dtype), n);
  if (s->kind == LK_ACROSS && k + n <= local_of(c, id)->count) return across_slice(c, s, k);
  if (s->kind == LK_CHUNKS && k % n == 0) return LLVMBuildLoad2(c->b, t, s->slots[k / n], "");
  Val r = LLVMConstNull(t);
  for (int i = 0; i < n && k + i < local_of(c, id)->count; i++)
    r = LLVMBuildInsertElement(c->b, r, element_get(c, id, k + i), k_int(c, c->i32, i), "");
  return r;
}

static Val slots_get(Emit *c, int id, int64_t k, int lanes) {
  if (lanes <= slot_lanes(c)) return slot_get(c, id, k);
  const Val lower = slots_get(c, id, k, lanes / 2);
  return join_lanes(c, lower, slots_get(c, id, k + lanes / 2, lanes / 2));
}

static Val slice_get(Emit *c, int id, int64_t k) { return slots_get(c, id, k, c->vl); }

static void slice_set(Emit *c, int id, int64_t k, Val value) {
  const LocalState *const s = &c->locals[id];
  if (k % c->vl == 0) {
    LLVMBuildStore(c->b, value, s->slots[k / c->vl]);
    return;
  }
  for (int i = 0; i < c->vl && k + i < local_of(c, id)->count; i++)
    element_set(c, id, k + i, LLVMBuildExtractElement(c->b, value, k_int(c, c->i32, i), ""));
}

/* ---- memory with one array per lane: element i of lane l at i*vl + l ---- */
static Val lane_array_pointer(Emit *c, int id, const Expr *index) {
  const bool uniform = lane_uniform(c, index);
  Val i = uniform ? emit_index(c, index) : as_lanes(c, emit_index_lanes(c, index));
  i = LLVMBuildMul(c->b, i, k_int(c, LLVMTypeOf(i), c->vl), "");
  if (!uniform) i = LLVMBuildAdd(c->b, i, iota(c, LLVMGetElementType(LLVMTypeOf(i))), "");
  return LLVMBuildGEP2(c->b, mem_type(c, local_of(c, id)->dtype), c->locals[id].mem, &i, 1, "");
}

static Val all_lanes(Emit *c) { return c->mask ? c->mask : splat(c, k_int(c, c->i1, 1), c->vl); }

static Val lane_array_get(Emit *c, int id, const Expr *index) {
  const DType t = local_of(c, id)->dtype;
  const Type vt = vec_type(mem_type(c, t), c->vl);
  const Val p = lane_array_pointer(c, id, index);
  if (!is_vec(p)) return from_mem(c, t, LLVMBuildLoad2(c->b, vt, p, ""));
  return from_mem(c, t, emit_masked_gather(c, vt, p, (unsigned)dtype_bytes(t), all_lanes(c)));
}

static void lane_array_set(Emit *c, int id, const Expr *index, Val value) {
  const DType t = local_of(c, id)->dtype;
  value = to_mem(c, t, value);
  const Val p = lane_array_pointer(c, id, index);
  if (!is_vec(p)) {
    LLVMBuildStore(c->b, value, p);
    return;
  }
  emit_masked_scatter(c, value, p, (unsigned)dtype_bytes(t), all_lanes(c));
}

/* ---- reading and setting ---- */
static Val local_get(Emit *c, int id, const Expr *index) {
  const LocalState *const s = &c->locals[id];
  const Type reg = reg_type(c, local_of(c, id)->dtype);
  switch (s->kind) {
    case LK_STACK: {
      const Mem m = emit_stack_mem(c, id);
      return mem_load(c, &m, index, NULL);
    }
    case LK_LANE_STACK: return lane_array_get(c, id, index);
    case LK_LANES:
      return LLVMBuildLoad2(c->b, vec_type(reg, c->vl), s->slots[slot_index(c, id, index)], "");
    case LK_SCALARS:
    case LK_ACROSS:
    case LK_CHUNKS: {
      const int64_t k = slot_index(c, id, index);
      return sliced_here(c, id, index) ? slice_get(c, id, k) : element_get(c, id, k);
    }
    default: break;
  }
  c->error = arena_printf(c->arena, "local %s is used outside its block", local_of(c, id)->name);
  return LLVMConstNull(reg);
}

Val emit_local(Emit *c, const Expr *e) { return local_get(c, e->id, e->a[0]); }

static Val blend(Emit *c, Val value, Val old) {
  return c->mask ? LLVMBuildSelect(c->b, c->mask, as_lanes(c, value), as_lanes(c, old), "") : value;
}

/* Lanes behind the end of a loop may be elements of another row. */
static bool tail_is_read(const Emit *c, int id, int64_t k) {
  const int64_t count = local_of(c, id)->count;
  for (int64_t i = k + c->active; i < k + c->vl && i < count; i++)
    if (c->use[id].read[i]) return true;
  return false;
}

void emit_local_set(Emit *c, int id, const Expr *index, Val value) {
  const LocalState *const s = &c->locals[id];
  switch (s->kind) {
    case LK_STACK: {
      const Mem m = emit_stack_mem(c, id);
      mem_store(c, &m, index, value);
      return;
    }
    case LK_LANE_STACK:
      value = as_lanes(c, value);
      if (c->under_if) value = blend(c, value, lane_array_get(c, id, index));
      lane_array_set(c, id, index, value);
      return;
    case LK_LANES:
      value = as_lanes(c, value);
      if (c->under_if) value = blend(c, value, local_get(c, id, index));
      LLVMBuildStore(c->b, value, s->slots[slot_index(c, id, index)]);
      return;
    case LK_SCALARS:
    case LK_ACROSS:
    case LK_CHUNKS: {
      const int64_t k = slot_index(c, id, index);
      if (sliced_here(c, id, index)) {
        if (c->under_if || (c->mask && tail_is_read(c, id, k)))
          value = blend(c, value, slice_get(c, id, k));
        slice_set(c, id, k, as_lanes(c, value));
      } else {
        if (is_vec(value))
          value = LLVMBuildExtractElement(c->b, value, k_int(c, c->i32, c->vl - 1), "");
        element_set(c, id, k, value);
      }
      return;
    }
    default:
      c->error =
          arena_printf(c->arena, "local %s is used outside its block", local_of(c, id)->name);
  }
}

/* ---- accumulation ---- */
/* What is accumulated: a value, or a product that is contracted into the sum (one rounding) where
 * the target has fused multiply-add. */
typedef struct Addend {
  ReduceKind kind;
  DType dtype;
  Val a, b; /* b NULL: just a */
} Addend;

static Addend addend(Emit *c, ReduceKind kind, const Expr *value) {
  Addend d = {kind, (DType)value->dtype, NULL, NULL};
  const bool product = kind == RED_SUM && value->op == EX_mul && target_has(c->t, FEATURE_FMA) &&
                       (value->dtype == DT_F32 || value->dtype == DT_F64);
  d.a = emit_expr(c, product ? value->a[0] : value);
  if (product) d.b = emit_expr(c, value->a[1]);
  return d;
}

static Val accumulate(Emit *c, const Addend *d, Val old) {
  if (d->b) return emit_op(c, NULL, EX_fma, d->dtype, d->a, d->b, old);
  Val v = d->a;
  same_lanes(c, &old, &v);
  return emit_combine(c, d->kind, d->dtype, old, v);
}

/* The lane accumulators of a uniform element, set to the identity before the loop. */
static Val hidden_slot(Emit *c, int id, int64_t k, const Addend *d) {
  LocalState *const s = &c->locals[id];
  const int64_t count = local_of(c, id)->count;
  if (!s->hidden) {
    s->hidden = ARENA_ARRAY(c->arena, Val, count * MAX_SETS);
    s->hidden_kind = ARENA_ARRAY(c->arena, ReduceKind, count);
  }
  Val *const slot = &s->hidden[c->set * count + k];
  if (*slot) return *slot;
  *slot = entry_alloca(c, vec_type(reg_type(c, d->dtype), c->vl), 1, 0);
  const LLVMBasicBlockRef here = LLVMGetInsertBlock(c->b);
  LLVMPositionBuilderBefore(c->b, LLVMGetBasicBlockTerminator(c->pre));
  LLVMBuildStore(c->b, splat(c, emit_identity(c, d->kind, d->dtype), c->vl), *slot);
  LLVMPositionBuilderAtEnd(c->b, here);
  s->hidden_kind[k] = d->kind;
  return *slot;
}

static void acc_over_lanes(Emit *c, int id, int64_t k, const Addend *d) {
  const Val slot = hidden_slot(c, id, k, d);
  const Val old = LLVMBuildLoad2(c->b, vec_type(reg_type(c, d->dtype), c->vl), slot, "");
  Val v = as_lanes(c, accumulate(c, d, old));
  if (c->mask) v = LLVMBuildSelect(c->b, c->mask, v, old, "");
  LLVMBuildStore(c->b, v, slot);
}

/* Adds what the lanes gathered to the locals; after the vector loop. Sets, then lanes, in a fixed
 * tree. */
void locals_finish_lanes(Emit *c) {
  for (int id = 0; id < c->kernel->locals.n; id++) {
    LocalState *const s = &c->locals[id];
    if (!s->hidden) continue;
    const Local *const l = local_of(c, id);
    const Type t = vec_type(reg_type(c, l->dtype), c->vl);
    for (int64_t k = 0; k < l->count; k++) {
      Val v = NULL;
      for (int set = 0; set < MAX_SETS; set++) {
        const Val slot = s->hidden[set * l->count + k];
        if (!slot) continue;
        const Val part = LLVMBuildLoad2(c->b, t, slot, "");
        v = v ? emit_combine(c, s->hidden_kind[k], l->dtype, v, part) : part;
      }
      if (!v) continue;
      const Val sum = emit_horizontal(c, s->hidden_kind[k], l->dtype, v);
      element_set(c, id, k,
                  emit_combine(c, s->hidden_kind[k], l->dtype, element_get(c, id, k), sum));
    }
    s->hidden = NULL;
  }
}

/* A memory local, all lanes into one element. */
static void acc_uniform_memory(Emit *c, int id, const Expr *index, const Addend *d) {
  Val v = d->b ? emit_op(c, NULL, EX_mul, d->dtype, d->a, d->b, NULL) : d->a;
  v = as_lanes(c, v);
  if (c->mask)
    v = LLVMBuildSelect(c->b, c->mask, v, splat(c, emit_identity(c, d->kind, d->dtype), c->vl), "");
  v = emit_horizontal(c, d->kind, d->dtype, v);
  const Mem m = emit_stack_mem(c, id);
  const Val old = mem_load(c, &m, index, NULL);
  mem_store(c, &m, index, emit_combine(c, d->kind, d->dtype, old, v));
}

/* A memory local, elements chosen lane by lane (a histogram): lanes may meet, so one after the
 * other. */
static void acc_scattered(Emit *c, int id, const Expr *index, const Addend *d) {
  const DType t = d->dtype;
  const Val v = as_lanes(c, d->b ? emit_op(c, NULL, EX_mul, t, d->a, d->b, NULL) : d->a);
  const Val at = as_lanes(c, emit_index_lanes(c, index));
  for (int i = 0; i < c->vl; i++) {
    const Val k = k_int(c, c->i32, i);
    const LLVMBasicBlockRef body = new_block(c, ""), next = new_block(c, "");
    LLVMBuildCondBr(c->b,
                    c->mask ? LLVMBuildExtractElement(c->b, c->mask, k, "") : k_int(c, c->i1, 1),
                    body, next);
    LLVMPositionBuilderAtEnd(c->b, body);
    Val lane = LLVMBuildExtractElement(c->b, at, k, "");
    const Val p = LLVMBuildGEP2(c->b, mem_type(c, t), c->locals[id].mem, &lane, 1, "");
    const Val old = from_mem(c, t, LLVMBuildLoad2(c->b, mem_type(c, t), p, ""));
    const Val sum = emit_combine(c, d->kind, t, old, LLVMBuildExtractElement(c->b, v, k, ""));
    LLVMBuildStore(c->b, to_mem(c, t, sum), p);
    LLVMBuildBr(c->b, next);
    LLVMPositionBuilderAtEnd(c->b, next);
  }
}

static bool neighbouring(Emit *c, const Expr *index) {
  const Expr *coeff, *rest;
  int64_t k;
  return expr_affine(c->pool, index, c->vvar, &coeff, &rest) && emit_const(c, coeff, &k) && k != 0;
}

void emit_local_acc(Emit *c, int id, const Expr *index, ReduceKind kind, const Expr *value) {
  const LocalKind lk = c->locals[id].kind;
  const Addend d = addend(c, kind, value);
  const bool own = lk == LK_LANES || lk == LK_LANE_STACK;
  if (in_lanes(c) && !own) {
    const bool uniform = lane_uniform(c, index);
    if (uniform && lk != LK_STACK) return acc_over_lanes(c, id, slot_index(c, id, index), &d);
    if (uniform) return acc_uniform_memory(c, id, index, &d);
    if (lk == LK_STACK && !neighbouring(c, index)) return acc_scattered(c, id, index, &d);
  }
  emit_local_set(c, id, index, accumulate(c, &d, local_get(c, id, index)));
}
