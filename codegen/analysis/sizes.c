/* Sizes that every entry checks or adds up: the arena's, a thread's, inputs' and outputs'. */
#include "codegen/analysis/program.h"

const Expr *program_upper(const Program *p, const Expr *e) {
  const Expr *const u = expr_upper(p->m->model->pool, e, NULL);
  return u ? u : ex_i64(p->m->model->pool, 0);
}

const Expr *program_most(const Program *p, const Symbol *s) {
  const Expr *const u = expr_upper(p->m->model->pool, s->bound, NULL);
  return u ? u : s->bound;
}

const Expr *program_arena_bytes(const Program *p) {
  ExprPool *const pool = p->m->model->pool;
  const Expr *const e = p->m->arena_bytes ? p->m->arena_bytes : ex_i64(pool, 0);
  return ex_mul(pool, ex_ceildiv(pool, e, 64), ex_i64(pool, 64));
}

const Expr *program_thread_bytes(const Program *p) {
  return p->m->scratch_bytes ? p->m->scratch_bytes : ex_i64(p->m->model->pool, 0);
}

const Expr *program_io_bytes(const Program *p, int k) {
  const int n = p->m->inputs.n;
  const int id = k < n ? p->m->inputs.data[k] : p->m->outputs.data[k - n];
  const Buffer *const b = &p->m->buffers.data[id];
  ExprPool *const pool = p->m->model->pool;
  if (b->kind == BUF_HEAP) return ex_i64(pool, (int64_t)sizeof(void *)); /* where it lies */
  return ex_mul(pool, program_upper(p, b->count), ex_i64(pool, dtype_bytes(b->dtype)));
}

const char *program_io_name(const Program *p, int k) {
  const int n = p->m->inputs.n;
  return k < n ? arena_printf(p->arena, "input %s", program_input_name(p, k))
               : arena_printf(p->arena, "output %s", program_output_name(p, k - n));
}

bool program_checked_at_entry(const Program *p, const DimAssume *a) {
  ExprPool *const pool = p->m->model->pool;
  return assume_at_entry(p->m->model, a) && !expr_uses_runtime(pool, a->a) &&
         !expr_uses_runtime(pool, a->b);
}
