/* Right-hand sides that are computed at run time, packed by a kernel of their own before the
 * contraction: [outer of B][panel][k…][lane] in the arena, zeros behind the last column. */
#include "passes/build/nest.h"
#include "passes/kernels/contract.h"

typedef struct PackLoops {
  const Expr *total, *all; /* the parallel loop, over outer dimensions of B and panels */
  const Expr *panel;
  int64_t width;
} PackLoops;

/* Binds the outer dimensions that B has to parts of one parallel loop. */
static PackLoops pack_loops(Contract *c, const bool *outer_of_b) {
  ExprPool *p = c->p;
  PackLoops s = {.width = (int64_t)c->tile.vectors * c->lanes};
  const Expr *panels = ex_ceildiv(p, c->n, s.width), *rest;
  s.total = panels;
  int first = -1;
  for (int i = c->n_outer - 1; i >= 0; i--) {
    if (!outer_of_b[i]) continue;
    s.total = ex_mul(p, s.total, c->outer_extent[i]);
    first = i;
  }
  s.all = ex_var(p, "p", s.total);
  s.panel = ex_floormod(p, s.all, panels);
  rest = ex_floordiv(p, s.all, panels);
  for (int i = c->n_outer - 1; i >= 0; i--) {
    if (!outer_of_b[i]) continue;
    c->outer[i] = i != first ? ex_floormod(p, rest, c->outer_extent[i]) : rest;
    rest = i != first ? ex_floordiv(p, rest, c->outer_extent[i]) : rest;
  }
  return s;
}

/* An element of B, zero behind the last column and, in groups, behind the last k. */
static const Expr *packed_element(Contract *c, const Expr *col,
                                  const Expr *(*b)(Contract *, const Expr *)) {
  ExprPool *p = c->p;
  const Expr *inside = ex_lt(p, col, c->n);
  if (c->types->k_step > 1) inside = ex_and(p, inside, ex_lt(p, c->k[c->n_k - 1], c->k_elements));
  const bool all = expr_is_i64(inside, 1);
  if (expr_is_i64(inside, 0)) return ex_int(p, DT_I32, 0); /* of the only group */
  c->b.x.guard = all ? NULL : inside;
  const Expr *e = b(c, col);
  c->b.x.guard = NULL;
  if (e->op != EX_LOAD && !all) e = ex_select(p, inside, e, ex_const(p, (DType)e->dtype, 0));
  return e;
}

/* What lane j of a panel holds at the current step of k. */
static const Expr *packed_value(Contract *c, const PackLoops *s, const Expr *j,
                                const Expr *(*b)(Contract *, const Expr *)) {
  ExprPool *p = c->p;
  const Expr *col = ex_add(p, ex_mul(p, s->panel, ex_i64(p, s->width)), j);
  const Expr *element[MAX_K_STEP], **k = &c->k[c->n_k - 1], *step = *k;
  for (int i = 0; i < c->types->k_step; i++) {
    *k = contract_element(c, i);
    element[i] = packed_element(c, col, b);
    *k = step;
  }
  return ex_cast(p, c->types->panel, contract_group(c, c->types->b, element));
}

static const Place *packed_place(Contract *c, const PackLoops *s) {
  const Expr *dims[MAX_RANK];
  int n = 0;
  dims[n++] = s->total;
  for (int i = 0; i < c->n_k; i++) dims[n++] = c->k_extent[i];
  dims[n++] = ex_i64(c->p, s->width);
  return lower_temp(c->l, c->types->panel, n, dims, "panels");
}

Step *contract_pack_computed(Contract *c, const bool *outer_of_b,
                             const Expr *(*b)(Contract *c, const Expr *col)) {
  ExprPool *p = c->p;
  Arena *a = c->l->m->arena;
  Contract k = *c; /* the kernel that packs has its own parameters */
  kb_begin(&k.b, c->l, c->root, "pack");
  k.b.keys = c->b.keys;
  const PackLoops s = pack_loops(&k, outer_of_b);
  const Place *to = packed_place(&k, &s);
  const Expr *at = s.all;
  for (int i = 0; i < k.n_k; i++) {
    k.k[i] = ex_var(p, "k", k.k_extent[i]);
    at = ex_add(p, ex_mul(p, at, k.k_extent[i]), k.k[i]);
  }
  const Expr *j = ex_var(p, "j", ex_i64(p, s.width));
  at = ex_add(p, ex_mul(p, at, ex_i64(p, s.width)), j);
  const Expr *e = packed_value(&k, &s, j, b);
  Stmt *body = stmt_for(a, FOR_VECTOR, j,
                        stmt_store(a, kb_param(&k.b, to->buffer, to->offset, PA_WRITE), at, e));
  double work = expr_extent_guess(p, s.total) * c->tile.vectors * 4;
  for (int i = k.n_k - 1; i >= 0; i--) {
    body = stmt_for(a, FOR_SERIAL, k.k[i], body);
    work *= expr_extent_guess(p, k.k_extent[i]);
  }
  kb_estimate(&k.b, "pack", work);
  c->b_buffer = to->buffer;
  c->b_whole_panels = true;
  return kb_finish(&k.b, nest_parallel(&k.b, s.all, body, work));
}
