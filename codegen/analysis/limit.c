/* The least that a kernel takes on a GPU: its multiply-adds at the highest rate of its arithmetic, or
 * its bytes from the device's memory (Williams, Waterman, Patterson, Roofline, 2009). */
#include "codegen/analysis/program.h"
#include "ir/expr/expr_query.h"

const Expr *kernel_bytes(const Module *m, const Kernel *k) {
  ExprPool *const p = m->model->pool;
  const Expr *sum = ex_i64(p, 0);
  for (int i = 0; i < k->params.n; i++) {
    const Param *const x = &k->params.data[i];
    if (!x->scratch) sum = ex_add(p, sum, ex_mul(p, x->count, ex_i64(p, dtype_bytes(x->dtype))));
  }
  return sum;
}

/* Multiply-adds of an SM in a cycle: those of tensor cores read shared memory of one type. */
static int fma_per_cycle(const Kernel *k, const Gpu *g) {
  if (!kernel_has_matrix(k)) return g->f32_per_cycle;
  for (int i = 0; i < k->locals.n; i++) {
    const Local *const l = &k->locals.data[i];
    if (l->memory != MEM_SHARED) continue;
    return dtype_bytes(l->dtype) == 1   ? g->i8_per_cycle
           : dtype_bytes(l->dtype) == 2 ? g->f16_per_cycle
                                        : g->f16_per_cycle / 2;
  }
  return g->f32_per_cycle;
}

double codegen_limit_us(const Module *m, const Kernel *k, const Gpu *g) {
  return expr_extent_guess(m->model->pool, kernel_limit_ps(m, k, g)) / 1e6;
}

const Expr *kernel_limit_ps(const Module *m, const Kernel *k, const Gpu *g) {
  enum { PS = 1000 }; /* of a ns */
  ExprPool *const p = m->model->pool;
  const int64_t flop_per_ns = (int64_t)2 * fma_per_cycle(k, g) * g->sms * g->clock_mhz / 1000;
  const Expr *const bytes = ex_mul(p, kernel_bytes(m, k), ex_i64(p, PS));
  const Expr *const memory = ex_floordiv(p, bytes, ex_i64(p, g->gb_per_second));
  if (!k->flops) return memory;
  const Expr *const flops = ex_mul(p, k->flops, ex_i64(p, PS));
  return ex_max(p, memory, ex_floordiv(p, flops, ex_i64(p, flop_per_ns)));
}
