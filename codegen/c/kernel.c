/* A kernel as a static function NAME_k(bufs, syms, begin, end, scratch): runtime/core/rt.h. Locals
 * are arrays at its top; a parallel loop runs iterations [begin, end). */
#include <inttypes.h>

#include "codegen/c/c.h"

#define TEXT(...) arena_printf(c->arena, __VA_ARGS__)

/* ---- loops ---- */
/* CUDA: bounds that are known need no name. */
static bool short_loop(CText *c, const Stmt *s) {
  const int var = s->loop.var->id;
  const Expr *const lo = expr_var_lo(c->pool, var), *const n = expr_var_extent(c->pool, var);
  int64_t from = 0, extent;
  if (!c->device || !expr_is_const(n, &extent) || (lo && !expr_is_const(lo, &from))) return false;
  const bool copied = s->loop.kind == FOR_UNROLL || s->loop.kind == FOR_VECTOR;
  if (copied) c_line(c, "#pragma unroll");
  c_line(c, "for (int i%d = %s; i%d < %s; i%d++) {", var, c_i64(c, from), var,
         c_i64(c, from + extent), var);
  c->indent++;
  c_statements(c, s->loop.body);
  c->indent--;
  c_line(c, "}");
  return true;
}

static void loop(CText *c, const Stmt *s, bool parallel) {
  if (short_loop(c, s)) return;
  const Expr *const first = expr_var_lo(c->pool, s->loop.var->id), *const n = expr_var_extent(
                                                                       c->pool, s->loop.var->id);
  const Expr *const lo = first ? first : ex_i64(c->pool, 0);
  const Expr *const end = parallel ? lo : ex_add(c->pool, lo, n);
  const int var = s->loop.var->id, k = c->loops++;
  c_line(c, "{");
  c->indent++;
  c_forget(c);
  c_count(c, lo);
  c_count(c, end);
  const char *const from = c_value(c, lo), *const to = c_value(c, end);
  const char *const type = c_is_narrow(c, s->loop.var) && c_is_narrow(c, end) ? "int" : "int64_t";
  c_line(c, "const %s e%d = %s%s;", type, k, to, parallel ? " + end" : "");
  c_line(c, "for (%s i%d = %s%s; i%d < e%d; i%d++) {", type, var, from, parallel ? " + begin" : "",
         var, k, var);
  c->indent++;
  c_statements(c, s->loop.body);
  c->indent--;
  c_line(c, "}");
  c->indent--;
  c_line(c, "}");
}

/* ---- assignments ---- */
/* The value in the form that memory has of type t: what is only moved stays as it is. */
static const char *to_memory(CText *c, DType t, const Expr *value) {
  const char *const moved = c->device ? c_moved(c, t, value) : NULL;
  return moved ? moved : c_stored(c, t, c_value(c, value));
}

static void store(CText *c, const Stmt *s) {
  const DType t = c->kernel->params.data[s->access.id].dtype;
  c_count(c, s->access.index);
  c_count(c, s->access.value);
  const char *const index = c_value(c, s->access.index), *const v =
                                                             to_memory(c, t, s->access.value);
  c->params[s->access.id] = true;
  c_line(c, "b%d[%s] = %s;", s->access.id, index, v);
}

static void c_put(CText *c, int local, const char *index, const char *v) {
  if (c->stored && c->stored[local]) v = c_stored(c, c->kernel->locals.data[local].dtype, v);
  c_line(c, "t%d[%s] = %s;", local, index, v);
}

static void set(CText *c, const Stmt *s) {
  c_count(c, s->access.index);
  c_count(c, s->access.value);
  const char *const index = c_value(c, s->access.index);
  if (c->stored && c->stored[s->access.id]) {
    const DType t = c->kernel->locals.data[s->access.id].dtype;
    c_line(c, "t%d[%s] = %s;", s->access.id, index, to_memory(c, t, s->access.value));
    return;
  }
  c_put(c, s->access.id, index, c_value(c, s->access.value));
}

/* A sum of products is one of fma's, as LLVM makes it. */
static bool contracts(const CText *c, const Stmt *s, DType t) {
  return c->device && s->access.reduce == RED_SUM && (t == DT_F32 || t == DT_F64) &&
         s->access.value->op == EX_mul && s->access.value->dtype == t;
}

/* Of min and max the gathered one stands behind, as in all code. */
static void accumulate(CText *c, const Stmt *s) {
  static const ExprOp ops[] = {[RED_SUM] = EX_add, [RED_PROD] = EX_mul, [RED_MIN] = EX_min,
                               [RED_MAX] = EX_max, [RED_AND] = EX_and,  [RED_OR] = EX_or};
  const DType t = c->kernel->locals.data[s->access.id].dtype;
  c_count(c, s->access.index);
  c_count(c, s->access.value);
  const char *const index = c_value(c, s->access.index);
  const char *const old = c_local(c, s->access.id, index);
  if (contracts(c, s, t)) {
    const char *const a = c_value(c, s->access.value->a[0]), *const b =
                                                                 c_value(c, s->access.value->a[1]);
    c_put(c, s->access.id, index,
          TEXT("burin_c_fma%s(%s, %s, %s)", t == DT_F32 ? "f" : "", a, b, old));
    return;
  }
  const char *const v = c_value(c, s->access.value);
  const bool behind = s->access.reduce == RED_MIN || s->access.reduce == RED_MAX;
  const char *const args[3] = {behind ? v : old, behind ? old : v, NULL};
  c_put(c, s->access.id, index, c_op(c, NULL, ops[s->access.reduce], t, args));
}

static void condition(CText *c, const Stmt *s) {
  c_count(c, s->branch.cond);
  c_line(c, "if (%s) {", c_value(c, s->branch.cond));
  c->indent++;
  c_statements(c, s->branch.then);
  c->indent--;
  if (s->branch.otherwise) {
    c_line(c, "} else {");
    c->indent++;
    c_statements(c, s->branch.otherwise);
    c->indent--;
  }
  c_line(c, "}");
}

void c_statements(CText *c, const Stmt *s) {
  for (; s && !c->error; s = s->next) {
    c_forget(c);
    switch (s->kind) {
      case ST_FOR:
        if (c->matrix && s->loop.kind == FOR_MATRIX)
          c->matrix(c, s);
        else if (!c->vector || s->loop.kind != FOR_VECTOR || !c->vector(c, s))
          loop(c, s, false);
        break;
      case ST_STORE: store(c, s); break;
      case ST_SET: set(c, s); break;
      case ST_ACC: accumulate(c, s); break;
      case ST_IF: condition(c, s); break;
      case ST_LOCAL:
      case ST_PREFETCH: break;
    }
  }
}

/* ---- the function ---- */
/* Scratch parameters lie behind each other in a thread's scratch. */
static void parameters(CText *c) {
  const Kernel *const k = c->kernel;
  const Expr *offset = ex_i64(c->pool, 0);
  for (int i = 0, buf = 0; i < k->params.n; i++) {
    const Param *const p = &k->params.data[i];
    const char *const type = c_mem_type(p->dtype), *const fixed =
                                                       p->access & PA_WRITE ? "" : "const ";
    if (!p->scratch) {
      if (c->params[i]) c_line(c, "%s%s *const b%d = bufs[%d];", fixed, type, i, buf);
      buf++;
      continue;
    }
    c_forget(c);
    c_count(c, offset);
    const char *const at = c_value(c, offset);
    c_line(c, "%s *const b%d = (%s *)(void *)((char *)scratch + %s);", type, i, type, at);
    if (!c->params[i]) c_line(c, "(void)b%d;", i);
    offset = ex_add(c->pool, offset, param_bytes64(c->p->m, p));
  }
}

static int64_t locals(CText *c) {
  const Kernel *const k = c->kernel;
  int64_t bytes = 0;
  for (int i = 0; i < k->locals.n; i++) {
    const Local *const l = &k->locals.data[i];
    c_line(c, "%s t%d[%" PRId64 "];", c_reg_type(l->dtype), i, l->count);
    c_line(c, "(void)t%d;", i);
    bytes += l->count * (dtype_bytes(l->dtype) > 4 ? 8 : 4);
  }
  return bytes;
}

const char *c_kernel(CState *s, const Kernel *k, Arena *scratch, int64_t *stack) {
  StrBuf body = {.arena = scratch}, head = {.arena = scratch};
  CText text = {.s = s,
                .p = s->p,
                .pool = s->p->m->model->pool,
                .arena = scratch,
                .out = &body,
                .indent = 1,
                .kernel = k},
        *const c = &text;
  const int n_syms = expr_symbol_count(c->pool);
  c->params = ARENA_ARRAY(scratch, bool, k->params.n + 1);
  c->syms = ARENA_ARRAY(scratch, bool, n_syms + 1);
  if (is_parallel(k))
    loop(c, k->body, true);
  else
    c_statements(c, k->body);
  c->out = &head;
  parameters(c); /* finds the symbols of sizes, too */
  const int64_t bytes = locals(c);
  StrBuf *const out = &s->kernels;
  sb_printf(out,
            "\nstatic void %s_%s(void *const *bufs, const int64_t *syms, int64_t begin, int64_t "
            "end, void *scratch) {\n",
            c->p->name, k->name);
  sb_printf(out, "  (void)bufs, (void)syms, (void)begin, (void)end, (void)scratch;\n");
  for (int i = 0; i < n_syms; i++)
    if (c->syms[i]) sb_printf(out, "  const int64_t s%d = syms[%d];\n", i, i);
  sb_printf(out, "%s%s}\n", sb_str(&head), sb_str(&body));
  *stack = bytes + 8 * (int64_t)(c->temps + 2 * c->loops + k->params.n + n_syms);
  return c->error;
}
