/* Interpreter, second half: runs register code. Every access to a buffer or local is checked; a
 * failed check is an internal error that names kernel, buffer and index. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include "ir/eval/interp.h"

static Scalar sym_value(void *user, int id) {
  return (Scalar){.i = user ? ((const int64_t *)user)[id] : 0};
}

int64_t interp_sym_expr(const ExprPool *p, const Expr *e, const int64_t *syms) {
  int64_t k = 0;
  if (expr_is_const(e, &k)) return k;
  EvalEnv env = {.user = (void *)syms, .sym = sym_value};
  return expr_eval(p, e, &env).i;
}

bool interp_access_error(const KernelProgram *p, const char *what, const char *name, int id,
                         int64_t i, int64_t n) {
  return diag_internal(p->m->model->diag, p->k->loc,
                       "kernel %s: %s %d (%s) at index %" PRId64 " of %" PRId64, p->k->name, what,
                       id, name ? name : "", i, n);
}

static bool buffer_error(const KernelProgram *p, const char *what, int b, int64_t i) {
  return interp_access_error(p, what, p->k->params.data[b].name, b, i, p->counts[b]);
}

static bool local_error(const KernelProgram *p, const char *what, int l, int64_t i) {
  return interp_access_error(p, what, p->k->locals.data[l].name, l, i, p->locals[l].count);
}

static Scalar load(DType t, const char *at) {
  return dtype_is_float(t) ? (Scalar){.f = dtype_load_f(t, at)}
                           : (Scalar){.i = dtype_load_i(t, at)};
}

static void store(DType t, char *at, Scalar v) {
  if (t == DT_F32) {
    const float f = (float)v.f;
    memcpy(at, &f, 4);
  } else if (dtype_is_float(t)) {
    dtype_store_f(t, at, v.f);
  } else {
    dtype_store_i(t, at, v.i);
  }
}

static Scalar reinterpret(DType to, DType from, Scalar v) {
  char raw[16] = {0};
  store(from, raw, v);
  return load(to, raw);
}

static inline bool outside(int64_t i, int64_t n) { return (uint64_t)i >= (uint64_t)n; }

static inline int64_t wrap_add(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a + (uint64_t)b);
}

/* ---- what was written ---- */
bool written_all(const Written *w, int64_t at, int64_t bytes) {
  for (int64_t i = 0; w->tags && i < bytes; i++)
    if (w->tags[at + i] != w->own) return false;
  return true;
}

void written_set(const Written *w, int64_t at, int64_t bytes) {
  for (int64_t i = 0; w->tags && i < bytes; i++) w->tags[at + i] = w->own;
}

static bool was_written(const KernelProgram *p, int b, int64_t i) {
  const int64_t bytes = dtype_bytes(p->k->params.data[b].dtype);
  if (!p->written || written_all(&p->written[b], i * bytes, bytes)) return true;
  return buffer_error(p, "read of what nobody wrote: parameter", b, i);
}

static void note_store(const KernelProgram *p, int b, int64_t i) {
  const int64_t bytes = dtype_bytes(p->k->params.data[b].dtype);
  if (p->written) written_set(&p->written[b], i * bytes, bytes);
}

static void forget_scratch(const KernelProgram *p) {
  for (int i = 0; p->written && i < p->k->params.n; i++)
    if (p->k->params.data[i].scratch && p->written[i].tags)
      memset(p->written[i].tags, 0,
             (size_t)(p->counts[i] * dtype_bytes(p->k->params.data[i].dtype)) * 2);
}

/* As scalar_op, which decides where the result may be tiny. */
static inline Scalar quick(ExprOp op, float r, Scalar a, Scalar b, Scalar c) {
  const bool plain = fabs(a.f) >= 0x1p-126 && fabs(b.f) >= 0x1p-126 && fabsf(r) > 0x1p-126f;
  return plain ? (Scalar){.f = r} : scalar_op(op, DT_F32, a, b, c);
}

static bool run_load(const KernelProgram *p, const InterpEnv *env, const Ins *i, Scalar *r) {
  if (i->c >= 0 && !r[i->c].i) {
    r[i->d] = dtype_is_float(i->dt) ? (Scalar){.f = 0} : (Scalar){.i = 0};
    return true;
  }
  const int64_t at = r[i->a].i;
  if (outside(at, p->counts[i->b])) return buffer_error(p, "read of parameter", i->b, at);
  if (!was_written(p, i->b, at)) return false;
  if (p->grid && !grid_touch_param(p, i->b, at, false)) return false;
  r[i->d] = load((DType)i->dt, (const char *)env->params[i->b] + at * dtype_bytes((DType)i->dt));
  return true;
}

static bool run_store(const KernelProgram *p, const InterpEnv *env, const Ins *i, const Scalar *r) {
  const int64_t at = r[i->a].i;
  if (outside(at, p->counts[i->d])) return buffer_error(p, "write to parameter", i->d, at);
  if (p->grid && !grid_touch_param(p, i->d, at, true)) return false;
  store((DType)i->dt, (char *)env->params[i->d] + at * dtype_bytes((DType)i->dt), r[i->b]);
  note_store(p, i->d, at);
  return true;
}

static int64_t local_place(const KernelProgram *p, int local, int64_t at) {
  return p->grid ? grid_place(p, local, at) : p->locals[local].base + at;
}

static void declare(const KernelProgram *p, int local, Scalar poison) {
  if (p->grid) {
    grid_declare(p, local, poison);
    return;
  }
  for (int64_t j = 0; j < p->locals[local].count; j++)
    p->local_data[p->locals[local].base + j] = poison;
}

static inline bool run_load_f32(const KernelProgram *p, const InterpEnv *env, const Ins *i,
                                Scalar *r) {
  const int64_t at = r[i->a].i;
  float f;
  if (outside(at, p->counts[i->b])) return buffer_error(p, "read of parameter", i->b, at);
  if (!was_written(p, i->b, at)) return false;
  if (p->grid && !grid_touch_param(p, i->b, at, false)) return false;
  memcpy(&f, (const char *)env->params[i->b] + 4 * at, 4);
  r[i->d].f = f;
  return true;
}

static inline bool run_local(const KernelProgram *p, const Ins *i, Scalar *r) {
  const int64_t at = r[i->a].i;
  if (outside(at, p->locals[i->b].count)) return local_error(p, "read of local", i->b, at);
  if (p->grid && !grid_touch_local(p, i->b, at, false)) return false;
  r[i->d] = p->local_data[local_place(p, i->b, at)];
  return true;
}

static inline bool run_set(const KernelProgram *p, const Ins *i, const Scalar *r) {
  const int64_t at = r[i->a].i;
  if (outside(at, p->locals[i->d].count)) return local_error(p, "write to local", i->d, at);
  if (p->grid && !grid_touch_local(p, i->d, at, true)) return false;
  p->local_data[local_place(p, i->d, at)] = r[i->b];
  return true;
}

static inline Scalar add_f32(Scalar x, Scalar y) {
  return quick(EX_add, (float)x.f + (float)y.f, x, y, y);
}

static inline Scalar sub_f32(Scalar x, Scalar y) {
  return quick(EX_sub, (float)x.f - (float)y.f, x, y, y);
}

static inline Scalar mul_f32(Scalar x, Scalar y) {
  return quick(EX_mul, (float)x.f * (float)y.f, x, y, y);
}

static inline Scalar fma_f32(Scalar x, Scalar y, Scalar z) {
  const float f = fabs(z.f) < 0x1p-126 ? 0 : fmaf((float)x.f, (float)y.f, (float)z.f);
  return quick(EX_fma, f, x, y, z);
}

static inline Scalar cast(const Ins *i, Scalar v) {
  return scalar_cast((DType)i->dt, (DType)i->dt2, v, i->op == IN_SAT);
}

/* Is the loop not run at all? */
static inline bool enter_for(const Ins *i, Scalar *r) {
  r[i->d] = r[i->a];
  r[i->c].i = wrap_add(r[i->a].i, r[i->b].i);
  return r[i->b].i <= 0;
}

#define R(k) r[i->k]
#define TRY(access) \
  if (!(access)) return false
#define JUMP_IF(cond) \
  if (cond) i = code + i->to - 1

/* One case an instruction: what is taken apart further takes two jumps, and a tenth more time. */
static bool run_code(const KernelProgram *p, const InterpEnv *env) {
  Scalar *const r = p->regs;
  const Ins *const code = p->code.data;
  bool ok = true;
  for (const Ins *i = code;; i++) {
    switch ((InsOp)i->op) {
      case IN_END: return true;
      case IN_OP: R(d) = scalar_op((ExprOp)i->sop, (DType)i->dt, R(a), R(b), R(c)); break;
      case IN_ORDERED: R(d) = scalar_ordered((ExprOp)i->sop, R(a), R(b)); break;
      case IN_CAST:
      case IN_SAT: R(d) = cast(i, R(a)); break;
      case IN_BITS: R(d) = reinterpret((DType)i->dt, (DType)i->dt2, R(a)); break;
      case IN_LOAD: TRY(run_load(p, env, i, r)); break;
      case IN_LOAD_F32: TRY(run_load_f32(p, env, i, r)); break;
      case IN_LOCAL: TRY(run_local(p, i, r)); break;
      case IN_STORE: TRY(run_store(p, env, i, r)); break;
      case IN_SET: TRY(run_set(p, i, r)); break;
      case IN_DECL: declare(p, i->d, R(a)); break;
      case IN_MOVE: R(d) = R(a); break;
      case IN_FRESH: forget_scratch(p); break;
      case IN_FOR: JUMP_IF(enter_for(i, r)); break;
      case IN_NEXT: JUMP_IF(++R(d).i < R(c).i); break;
      case IN_GRID:
        JUMP_IF(!grid_first(p, &p->nests.data[i->a], &ok));
        TRY(ok);
        break;
      case IN_GRID_NEXT: JUMP_IF(grid_next(p, &p->nests.data[i->a])); break;
      case IN_JUMP: JUMP_IF(true); break;
      case IN_JUMP_IF_NOT: JUMP_IF(!R(a).i); break;
      case IN_ADD_I64: R(d).i = wrap_add(R(a).i, R(b).i); break;
      case IN_MUL_I64: R(d).i = (int64_t)((uint64_t)R(a).i * (uint64_t)R(b).i); break;
      case IN_LT_I64: R(d).i = R(a).i < R(b).i; break;
      case IN_LE_I64: R(d).i = R(a).i <= R(b).i; break;
      case IN_ADD_F32: R(d) = add_f32(R(a), R(b)); break;
      case IN_SUB_F32: R(d) = sub_f32(R(a), R(b)); break;
      case IN_MUL_F32: R(d) = mul_f32(R(a), R(b)); break;
      case IN_FMA_F32: R(d) = fma_f32(R(a), R(b), R(c)); break;
    }
  }
}
#undef R
#undef TRY
#undef JUMP_IF

bool interp_run(KernelProgram *p, const InterpEnv *env, const int64_t *bytes,
                const Written *written) {
  const ExprPool *pool = p->m->model->pool;
  for (int i = 0; i < p->k->params.n; i++) {
    const Param *q = &p->k->params.data[i];
    p->counts[i] = interp_sym_expr(pool, q->count, env->syms);
    if (bytes && p->counts[i] * dtype_bytes(q->dtype) > bytes[i])
      return interp_access_error(p, "bytes of parameter", q->name, i,
                                 p->counts[i] * dtype_bytes(q->dtype), bytes[i]);
  }
  p->written = written;
  for (int i = 0; i < p->inits.n; i++) {
    const RegInit *n = &p->inits.data[i];
    p->regs[n->reg] = n->sym < 0 ? n->value : sym_value((void *)env->syms, n->sym);
  }
  p->grid = p->nests.n ? grid_begin(p, env) : NULL;
  const bool ok = run_code(p, env);
  if (p->grid) grid_end(p->grid);
  p->grid = NULL;
  return ok;
}

bool kernel_interpret(const Module *m, const Kernel *k, const InterpEnv *env) {
  Arena *a = arena_child(m->model->arena);
  KernelProgram *p = interp_compile(m, k, a);
  const bool ok = p && interp_run(p, env, NULL, NULL);
  arena_free(a);
  return ok;
}
