/* Blocks of tiled contractions, as their plan has them: which rows, steps of k and panels go together.
 * passes/tiles/contract_loops.c chose them, contract_emit.c makes the loops. */
#include "passes/kernels/contract_parts.h"

const Expr *contract_k_total(const Contract *c) {
  const Expr *t = num(c, 1);
  for (int i = 0; i < c->n_k; i++) t = ex_mul(c->p, t, c->k_extent[i]);
  return t;
}

const Expr *contract_sum_rows(const Contract *c, const Blocks *bl) {
  return c->flat ? bl->size : ex_mul(c->p, bl->size, c->rows_w);
}

/* The loops of k: the innermost one is split where the plan says so, and the outer ones stand outside
 * the tiles. */
static void block_k(Contract *c) {
  const int last = c->n_k - 1;
  const int64_t d = c->plan.steps;
  int64_t extent = 1;
  expr_is_const(c->k_extent[last], &extent);
  if (d) {
    const Expr *o = var(c, "k", extent / d), *i = var(c, "k", d);
    c->k[last] = ex_add(c->p, ex_mul(c->p, o, num(c, d)), i);
    c->loop[last] = o;
    c->loop_extent[last] = num(c, extent / d);
    c->loop[last + 1] = i;
    c->loop_extent[last + 1] = num(c, d);
    c->n_loops++;
  }
  c->hoisted = c->plan.outside;
}

void contract_plain_loops(Contract *c) {
  for (int i = 0; i < c->n_k; i++) {
    c->loop[i] = c->k[i];
    c->loop_extent[i] = c->k_extent[i];
  }
  c->n_loops = c->n_k;
  c->hoisted = 0;
  c->group = 1;
}

/* By the time a layer runs again, the others have pushed its weights out of the second-level
 * cache. */
void contract_choose_prefetch(Contract *c) {
  const double bytes = dtype_bytes(c->panel) * expr_extent_guess(c->p, c->n) *
                       expr_extent_guess(c->p, contract_k_total(c));
  c->prefetch = !c->stored && bytes > (double)c->l->c->target->l2_bytes / 16;
}

Blocks contract_blocks(Contract *c) {
  const PlanLoops *l = &c->plan;
  contract_plan_blocks(c);
  int64_t w;
  Blocks b = {.th = l->high > 1 ? l->high : 1, .tw = c->tile.rows};
  if (l->matrix && !c->squares) b.tw /= b.th;
  if (!c->flat && expr_is_const(c->rows_w, &w) && w < b.tw) b.tw = (int)w;
  b.rows = c->flat ? c->rows_w : c->rows_h;
  b.size = num(c, l->part);
  b.count = ex_ceildiv(c->p, b.rows, l->part);
  contract_plain_loops(c);
  block_k(c);
  return b;
}

/* Groups of panels, the narrower last panel being one of its own. */
const Expr *contract_count_groups(Contract *c, const Blocks *bl) {
  const int width = c->tile.vectors * c->lanes;
  int64_t n = 0;
  const bool fixed = expr_is_const(c->n, &n);
  if (fixed && c->hoisted) c->group = c->plan.panels;
  if (c->hoisted)
    c->sums = kb_scratch(&c->b, c->types->acc,
                         ex_mul(c->p, contract_sum_rows(c, bl), num(c, c->group * width)), "sums");
  if (!fixed) return ex_ceildiv(c->p, c->n, width);
  return num(c, (n / width + c->group - 1) / c->group + (n % width != 0));
}
