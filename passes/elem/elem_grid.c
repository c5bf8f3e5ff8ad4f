/* Elements on GPUs: rows whose reductions a block of threads does together (build/rows.c), tiles of
 * transpositions, patches of a thread (grid/), or else a thread for each element, of one parallel loop
 * (loop/make_grids.c). Other reductions that many elements need are kernels of their own. */
#include "passes/elem/elem.h"
#include "passes/grid/patch.h"
#include "passes/grid/transpose.h"

static RowNest row_nest(ElemNest *t) {
  return (RowNest){.n = t->n, .var = t->var, .store = t->store, .value = t->value};
}

/* Whether r is to be computed once: else, for a GPU, by every thread whose element needs it. */
static bool grid_splits(ElemNest *t, const Expr *r) {
  enum { FEW = 32 }; /* cycles that may be spent again */
  double repeats = 1, results = 1;
  for (int k = 0; k < t->n; k++)
    *(expr_uses_var(r, t->var[k]->id) ? &results : &repeats) *= elem_guess(t, t->var[k]);
  return repeats >= 2.5 && expr_total_cost(t->p, 1, &r) > FEW * results;
}

bool elem_splits_on_gpu(ElemNest *t, const Expr *r) {
  const RowNest s = row_nest(t);
  if (!rows_pay(t->l->c->target, t->p, &s)) return grid_splits(t, r);
  return r != t->value && rows_repeat(t->p, &s, r);
}

static Step *finish_rows(ElemNest *t, RowNest *s) {
  s->target = kb_param(&t->b, t->to->buffer, t->to->offset, PA_WRITE);
  kb_estimate(&t->b, "rows", elem_cycles(t, expr_total_cost(t->p, 1, &t->value)));
  return kb_finish(&t->b, rows_body(&t->b, s));
}

/* The elements through tiles, or by threads that have some each; NULL: by one for each. */
static Step *finish_patches(ElemNest *t, double cycles) {
  if (!t->n || t->l->c->opt_level == 0) return NULL;
  t->value = patch_weights(&t->b, t->value, t->var[t->n - 1]);
  RowNest s = row_nest(t);
  s.target = kb_param(&t->b, t->to->buffer, t->to->offset, PA_WRITE);
  Stmt *body = transpose_body(&t->b, &s);
  kb_estimate(&t->b, body ? "transpose" : "patch", cycles);
  if (!body) body = patch_body(&t->b, &s);
  return body ? kb_finish(&t->b, body) : NULL;
}

Step *elem_finish_grid(ElemNest *t) {
  RowNest s = row_nest(t);
  if (rows_pay(t->l->c->target, t->p, &s)) return finish_rows(t, &s);
  const double cycles = elem_cycles(t, expr_total_cost(t->p, 1, &t->value));
  Step *const patches = finish_patches(t, cycles);
  if (patches) return patches;
  if (t->n) elem_flatten(t, t->n);
  elem_refresh(t);
  StmtList body = {0};
  elem_emit(t, &body, 0, t->n ? -1 : 0);
  if (t->failed) return NULL;
  if (t->n && body.first && body.first->kind == ST_FOR && !body.first->next)
    body.first->loop.kind = FOR_PARALLEL;
  kb_estimate(&t->b, "elem", cycles);
  return kb_finish(&t->b, body.first);
}
