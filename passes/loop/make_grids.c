/* Makes grids of the kernels that are none, for GPUs: the parallel loop is divided into blocks of
 * threads, one iteration each, so that threads beside each other take elements beside each other;
 * the last block may have too many. What has no parallel
 * loop runs in one thread.
 *
 * needs kernels without scratch, which templates for CPUs alone have. */
#include "ir/expr/expr_query.h"
#include "passes/pass.h"

/* A loop inside whose range goes by the divided one: its variable becomes another. */
typedef struct Renamed {
  const Expr *old, *by;
} Renamed;

typedef struct Grid {
  const Target *target;
  Arena *a;
  ExprPool *p;
  const Expr *from, *to; /* the loop's variable, and what it becomes */
  Vec(Renamed) inner;
} Grid;

/* ---- how many threads ---- */
enum { WARP = 32, BLOCK = 256 };

/* Smaller blocks where there are not enough to give every multiprocessor two. */
static int64_t threads_for(const Grid *g, const Expr *extent) {
  const double n = expr_extent_guess(g->p, extent);
  int64_t threads = BLOCK, whole;
  while (threads > WARP && n < (double)threads * 2 * g->target->gpu->sms) threads /= 2;
  if (expr_is_const(extent, &whole) && whole < threads) threads = whole > 0 ? whole : 1;
  return threads;
}

/* ---- the loops ---- */
static const Expr *by_thread(void *user, const Expr *leaf) {
  Grid *const g = user;
  if (leaf == g->from) return g->to;
  if (leaf->op != EX_VAR) return NULL;
  for (int i = 0; i < g->inner.n; i++)
    if (g->inner.data[i].old == leaf) return g->inner.data[i].by;
  const Expr *const lo = expr_var_lo(g->p, leaf->id), *const n = expr_var_extent(g->p, leaf->id),
                    *const new_lo = lo ? expr_rewrite(g->p, lo, by_thread, g) : NULL,
                    *const new_n = expr_rewrite(g->p, n, by_thread, g);
  if (new_lo == lo && new_n == n) return NULL;
  const Expr *const by = new_lo ? ex_var_range(g->p, "k", new_lo, new_n) : ex_var(g->p, "k", new_n);
  vec_push(g->a, &g->inner, ((Renamed){leaf, by}));
  return by;
}

static Stmt *grid_loops(const Grid *g, const Expr *blocks, const Expr *threads, Stmt *body) {
  return stmt_for(g->a, FOR_BLOCK, blocks, stmt_for(g->a, FOR_THREAD, threads, body));
}

/* Iteration lo + block*threads + thread, as far as there is one. */
static Stmt *divide(Grid *g, const Stmt *loop) {
  const Expr *const var = loop->loop.var, *const lo = expr_var_lo(g->p, var->id);
  const Expr *const n = expr_var_extent(g->p, var->id);
  const int64_t size = threads_for(g, n);
  const Expr *const threads = ex_i64(g->p, size);
  const Expr *const block = ex_var(g->p, "b", ex_ceildiv(g->p, n, size));
  const Expr *const thread = ex_var(g->p, "t", threads);
  const Expr *const at = ex_add(g->p, ex_mul(g->p, block, threads), thread);
  int64_t whole;
  g->from = var;
  g->to = lo ? ex_add(g->p, lo, at) : at;
  Stmt *body = stmt_rewrite(g->a, g->p, loop->loop.body, by_thread, g);
  if (!expr_is_const(n, &whole) || whole % size)
    body = stmt_if(g->a, ex_lt(g->p, at, n), body, NULL);
  return grid_loops(g, block, thread, body);
}

static Stmt *one_thread(const Grid *g, Stmt *body) {
  const Expr *const one = ex_i64(g->p, 1);
  return grid_loops(g, ex_var(g->p, "b", one), ex_var(g->p, "t", one), body);
}

static bool is_divided(const Grid *g, const Stmt *s) {
  if (!s || s->next || s->kind != ST_FOR || s->loop.kind != FOR_PARALLEL) return false;
  return !(expr_var_extent(g->p, s->loop.var->id)->flags & ~EXF_SYM);
}

/* ---- the pass ---- */
static bool has_scratch(const Kernel *k) {
  for (int i = 0; i < k->params.n; i++)
    if (k->params.data[i].scratch) return true;
  return false;
}

bool pass_make_grids(PassCtx *c) {
  const Module *const m = c->module;
  if (!target_has_grids(c->target)) return true;
  for (int i = 0; i < m->kernels.n; i++) {
    Kernel *const k = m->kernels.data[i];
    if (kernel_is_grid(k)) continue;
    if (has_scratch(k))
      return diag_error(m->model->diag, k->loc, ERR_UNSUPPORTED,
                        "kernel %s has scratch memory, which threads of a GPU do not have",
                        k->name);
    Grid g = {.target = c->target, .a = m->model->arena, .p = m->model->pool};
    k->body = is_divided(&g, k->body) ? divide(&g, k->body) : one_thread(&g, k->body);
    k->grain = 0;
    c->changed = true;
  }
  return true;
}
