/* LLVM types, constants, lanes and attributes: the small change of the emitter. */
#include <stdio.h>
#include <string.h>

#include "codegen/llvm/emit.h"

void emit_init(Emit *c, const Program *p, const char *module_name, const KernelIR *into,
               Arena *scratch) {
  const Target *const t = p->t;
  memset(c, 0, sizeof *c);
  c->m = p->m;
  c->t = t;
  c->arch = arch_row(t);
  c->pool = p->m->model->pool;
  c->arena = scratch;
  c->v = ARENA_NEW(scratch, EmitVars);
  c->v->arena = scratch;
  c->name = p->name;
  c->ctx = into->ctx ? into->ctx : LLVMContextCreate();
  c->mod = into->mod ? into->mod : LLVMModuleCreateWithNameInContext(module_name, c->ctx);
  LLVMSetTarget(c->mod, t->triple);
  c->b = LLVMCreateBuilderInContext(c->ctx);
  c->i1 = LLVMInt1TypeInContext(c->ctx);
  c->i8 = LLVMInt8TypeInContext(c->ctx);
  c->i16 = LLVMInt16TypeInContext(c->ctx);
  c->i32 = LLVMInt32TypeInContext(c->ctx);
  c->i64 = LLVMInt64TypeInContext(c->ctx);
  c->f32 = LLVMFloatTypeInContext(c->ctx);
  c->f64 = LLVMDoubleTypeInContext(c->ctx);
  c->ptr = LLVMPointerTypeInContext(c->ctx, 0);
  c->idx_bits = t->pointer_bits;
  c->idx = t->pointer_bits == 32 ? c->i32 : c->i64;
  c->vl = target_lanes(t, 32);
  c->epoch = 1;
  c->sets = 1;
}

Type mem_type(const Emit *c, DType t) {
  if (t == DT_F32) return c->f32;
  if (t == DT_F64) return c->f64;
  switch (dtype_bytes(t)) {
    case 1: return c->i8;
    case 2: return c->i16;
    case 4: return c->i32;
    default: return c->i64;
  }
}

Type reg_type(const Emit *c, DType t) {
  if (t == DT_BOOL) return c->i1;
  if (dtype_is_float(t) && t != DT_F64) return c->f32;
  return mem_type(c, t);
}

Type vec_type(Type t, int n) { return n == 1 ? t : LLVMVectorType(t, (unsigned)n); }
bool is_vec(Val v) { return LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind; }

Val splat(Emit *c, Val v, int n) {
  if (LLVMIsConstant(v)) {
    Val lanes[128];
    for (int i = 0; i < n; i++) lanes[i] = v;
    return LLVMConstVector(lanes, (unsigned)n);
  }
  const Type t = LLVMVectorType(LLVMTypeOf(v), (unsigned)n);
  const Val one = LLVMBuildInsertElement(c->b, LLVMGetPoison(t), v, LLVMConstInt(c->i32, 0, 0), "");
  return LLVMBuildShuffleVector(c->b, one, LLVMGetPoison(t),
                                LLVMConstNull(LLVMVectorType(c->i32, (unsigned)n)), "");
}

enum { MOST_LANES = 128 };

Val shuffle_lanes(Emit *c, Val a, Val b, const int *lanes, int n) {
  Val k[MOST_LANES];
  for (int i = 0; i < n; i++)
    k[i] = lanes[i] < 0 ? LLVMGetPoison(c->i32) : k_int(c, c->i32, lanes[i]);
  return LLVMBuildShuffleVector(c->b, a, b ? b : LLVMGetPoison(LLVMTypeOf(a)),
                                LLVMConstVector(k, (unsigned)n), "");
}

Val lanes_from(Emit *c, Val v, int from, int n) {
  const int have = (int)LLVMGetVectorSize(LLVMTypeOf(v));
  int lanes[MOST_LANES];
  if (from == 0 && n == have) return v;
  for (int i = 0; i < n; i++) lanes[i] = from + i < have ? from + i : -1;
  return shuffle_lanes(c, v, NULL, lanes, n);
}

Val join_lanes(Emit *c, Val a, Val b) {
  const int n = 2 * (int)LLVMGetVectorSize(LLVMTypeOf(a));
  int lanes[MOST_LANES];
  for (int i = 0; i < n; i++) lanes[i] = i;
  return shuffle_lanes(c, a, b, lanes, n);
}

Val as_lanes(Emit *c, Val v) { return is_vec(v) ? v : splat(c, v, c->vl); }

void same_lanes(Emit *c, Val *a, Val *b) {
  if (is_vec(*a) == is_vec(*b)) return;
  if (is_vec(*a))
    *b = splat(c, *b, (int)LLVMGetVectorSize(LLVMTypeOf(*a)));
  else
    *a = splat(c, *a, (int)LLVMGetVectorSize(LLVMTypeOf(*b)));
}

Type like(Type t, Val v) {
  return is_vec(v) ? LLVMVectorType(t, LLVMGetVectorSize(LLVMTypeOf(v))) : t;
}

static Val k_lanes(Emit *c, Type t, Val scalar) {
  return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? splat(c, scalar, (int)LLVMGetVectorSize(t))
                                                  : scalar;
}
static Type elem_of(Type t) {
  return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t;
}
Val k_int(Emit *c, Type t, int64_t v) {
  return k_lanes(c, t, LLVMConstInt(elem_of(t), (unsigned long long)v, 1));
}
Val k_real(Emit *c, Type t, double v) { return k_lanes(c, t, LLVMConstReal(elem_of(t), v)); }

Val hidden_bytes(Emit *c, const char *name) {
  Val g = LLVMGetNamedGlobal(c->mod, name);
  if (g) return g;
  g = LLVMAddGlobal(c->mod, LLVMArrayType2(c->i8, 0), name);
  LLVMSetVisibility(g, LLVMHiddenVisibility);
  LLVMSetAlignment(g, 64);
  return g;
}

Val iota(Emit *c, Type elem) {
  Val lanes[128];
  for (int i = 0; i < c->vl; i++) lanes[i] = LLVMConstInt(elem, (unsigned long long)i, 0);
  return LLVMConstVector(lanes, (unsigned)c->vl);
}

Val intrinsic(Emit *c, const char *name, int n_types, Type const *types, int n_args,
              Val const *args) {
  const unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  const Val fn = LLVMGetIntrinsicDeclaration(c->mod, id, (Type *)types, (size_t)n_types);
  const Type ft = LLVMIntrinsicGetType(c->ctx, id, (Type *)types, (size_t)n_types);
  return LLVMBuildCall2(c->b, ft, fn, (Val *)args, (unsigned)n_args, "");
}

Val entry_alloca(Emit *c, Type t, int64_t count, unsigned align) {
  const LLVMBasicBlockRef here = LLVMGetInsertBlock(c->b);
  const Val end = LLVMGetBasicBlockTerminator(c->entry);
  if (end)
    LLVMPositionBuilderBefore(c->b, end);
  else
    LLVMPositionBuilderAtEnd(c->b, c->entry);
  const Val a = LLVMBuildAlloca(c->b, count == 1 ? t : LLVMArrayType2(t, (uint64_t)count), "");
  if (align) LLVMSetAlignment(a, align);
  LLVMPositionBuilderAtEnd(c->b, here);
  return a;
}

LLVMBasicBlockRef new_block(Emit *c, const char *name) {
  return LLVMAppendBasicBlockInContext(c->ctx, c->fn, name);
}

bool ends(const Emit *c) { return LLVMGetBasicBlockTerminator(LLVMGetInsertBlock(c->b)) != NULL; }

static LLVMAttributeRef enum_attr(Emit *c, const char *name, uint64_t value) {
  return LLVMCreateEnumAttribute(c->ctx, LLVMGetEnumAttributeKindForName(name, strlen(name)),
                                 value);
}
void fn_attr(Emit *c, Val fn, const char *name, uint64_t value) {
  LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex, enum_attr(c, name, value));
}
void fn_attr_str(Emit *c, Val fn, const char *name, const char *value) {
  LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex,
                          LLVMCreateStringAttribute(c->ctx, name, (unsigned)strlen(name), value,
                                                    (unsigned)strlen(value)));
}
void param_attr(Emit *c, Val fn, unsigned param, const char *name, uint64_t value) {
  LLVMAddAttributeAtIndex(fn, param + 1, enum_attr(c, name, value));
}

void fn_target_attrs(Emit *c, Val fn) {
  char width[16];
  snprintf(width, sizeof width, "%d", c->t->vector_bits);
  fn_attr_str(c, fn, "target-cpu", c->t->cpu);
  fn_attr_str(c, fn, "target-features", c->t->llvm_features);
  fn_attr_str(c, fn, "prefer-vector-width", width);
  if (c->t->vector_bits >= 512) fn_attr_str(c, fn, "min-legal-vector-width", width);
  fn_attr_str(c, fn, "denormal-fp-math", "preserve-sign,preserve-sign");
  fn_attr_str(c, fn, "no-builtins", "");
  fn_attr_str(c, fn, "frame-pointer", "none");
  fn_attr(c, fn, "nounwind", 0);
}

bool fma_native(const Emit *c, Val v) {
  return target_has(c->t, FEATURE_FMA) &&
         (v == NULL || LLVMGetTypeKind(elem_of(LLVMTypeOf(v))) != LLVMHalfTypeKind);
}

/* ---- floating-point mode ---- */
/* Round to nearest, no traps, and subnormal numbers count as zero: on x86 each of them costs a
 * hundred cycles (a masked softmax is full of them), and NEON on ARMv7 knows no other mode. Only
 * around calls: LLVM does not order arithmetic with these. Returns the caller's mode. */
Val fp_mode_enter(Emit *c) {
  const ArchRow *const arch = c->arch;
  const Type t = arch->mode_bits == 64 ? c->i64 : c->i32;
  const Val ours = k_int(c, t, arch->mode);
  if (arch->mode_in_memory) {
    Val old = entry_alloca(c, t, 1, 4), address = entry_alloca(c, t, 1, 4);
    intrinsic(c, arch->mode_get, 0, NULL, 1, &old);
    LLVMBuildStore(c->b, ours, address);
    intrinsic(c, arch->mode_set, 0, NULL, 1, &address);
    return old;
  }
  const Val old = intrinsic(c, arch->mode_get, 0, NULL, 0, NULL);
  intrinsic(c, arch->mode_set, 0, NULL, 1, &ours);
  return old;
}

void fp_mode_leave(Emit *c, Val old) { intrinsic(c, c->arch->mode_set, 0, NULL, 1, &old); }
