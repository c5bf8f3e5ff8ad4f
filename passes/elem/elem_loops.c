/* The order of loops around elements; for CPUs: which run in vectors, which in parallel, and tiles of
 * transpositions. */
#include "passes/elem/elem.h"

enum { BLOCK = 4096, LANE_BLOCK = 64 };
enum { TILE_ACROSS = 16, TILE_ALONG = 32 }; /* a transposition's tiles: elements of a line × rows */

/* Vectors along the innermost loop, unless its loads are scattered and those of a reduction inside
 * are not. */
static bool choose_vector_root(ElemNest *t) {
  if (!t->n) return false;
  const Expr *v = t->var[t->n - 1];
  const double n = elem_guess(t, v);
  int good = 0, red_good = 0, inner_reds = 0;
  double longest = 0;
  const ElemStrides root = elem_strides(t, t->value, v);
  for (int i = 0; i < t->reds.n; i++) {
    const Expr *r = t->reds.data[i];
    if (elem_level_of(t, r) != t->n) continue;
    inner_reds++;
    const ElemStrides s = elem_strides(t, r->a[0], ex_var_of(t->p, r->id));
    red_good += s.good && !s.bad;
    if (s.good && !s.bad && elem_guess(t, ex_var_of(t->p, r->id)) > longest)
      longest = elem_guess(t, ex_var_of(t->p, r->id));
  }
  good = root.good;
  if (!inner_reds) return true;
  if (red_good && longest >= 8 && (root.bad > good || n < 8)) return false;
  return true;
}

/* Reductions of symbolic elem_extent cannot run inside lanes when the bounds vary by lane; extents use
 * no loop variables in that case. */
static bool lanes_uniform(ElemNest *t) {
  const Expr *v = t->n ? t->var[t->n - 1] : NULL;
  for (int i = 0; v && i < t->reds.n; i++)
    if (expr_uses_var(t->reds.data[i]->a[1], v->id)) return false;
  return true;
}

bool elem_vector_root(ElemNest *t) { return choose_vector_root(t) && lanes_uniform(t); }

static const Expr *subst_all(ElemNest *t, const Expr *e, const Expr *from, const Expr *to) {
  return expr_subst(t->p, e, from, to);
}

/* Replaces var[k] by an expression everywhere. */
void elem_rebind(ElemNest *t, const Expr *from, const Expr *to) {
  t->store = subst_all(t, t->store, from, to);
  t->value = subst_all(t, t->value, from, to);
  for (int d = 0; d < 2 && t->tiled; d++) t->tile_at[d] = subst_all(t, t->tile_at[d], from, to);
}

/* Flattens loops [0, q) into one parallel variable. */
void elem_flatten(ElemNest *t, int q) {
  const Expr *total = ex_i64(t->p, 1);
  for (int k = 0; k < q; k++) total = ex_mul(t->p, total, elem_extent(t, k));
  const Expr *par = ex_var(t->p, "p", total), *rest = par;
  for (int k = q - 1; k >= 0; k--) {
    const Expr *old = t->var[k];
    const Expr *part = k ? ex_floormod(t->p, rest, elem_extent(t, k)) : rest;
    rest = k ? ex_floordiv(t->p, rest, elem_extent(t, k)) : rest;
    elem_rebind(t, old, part);
  }
  t->var[0] = par;
  for (int k = q; k < t->n; k++) t->var[k - q + 1] = t->var[k];
  t->n -= q - 1;
}

/* One long loop: blocks in parallel, lanes inside. */
static void block(ElemNest *t, int64_t size) {
  const Expr *n = elem_extent(t, 0), *b = ex_i64(t->p, size);
  const Expr *par = ex_var(t->p, "p", ex_ceildiv(t->p, n, size));
  const Expr *base = ex_mul(t->p, par, b);
  int64_t whole;
  const bool even = expr_is_const(n, &whole) && whole % size == 0;
  const Expr *in = ex_var(t->p, "i", even ? b : ex_min(t->p, b, ex_sub(t->p, n, base)));
  elem_rebind(t, t->var[0], ex_add(t->p, base, in));
  t->var[0] = par;
  t->var[1] = in;
  t->n = 2;
}

static int loops_to_flatten(ElemNest *t) {
  int limit = t->tiled ? t->n : t->n - 1;
  for (int i = 0; i < t->reds.n; i++) {
    const int level = elem_level_of(t, t->reds.data[i]);
    if (level > 0 && level < limit) limit = level;
  }
  double n = 1;
  int q = 0;
  while (q < limit && n < 64) n *= elem_guess(t, t->var[q++]);
  return q;
}

/* Makes the outer loops parallel; returns whether there is a parallel
 * loop. */
bool elem_parallelise(ElemNest *t) {
  if (!t->n) return false;
  if (t->n == 1) {
    if (!t->vector_root) return true;
    const int64_t size = t->reds.n ? LANE_BLOCK : BLOCK;
    if (elem_guess(t, t->var[0]) < 2 * size) return false;
    block(t, size);
  } else {
    elem_flatten(t, loops_to_flatten(t));
  }
  elem_refresh(t);
  return true;
}

/* ---- transpositions ---- */

typedef struct Crossing {
  ElemNest *t;
  const Expr *along, *across;
  int n;
} Crossing;

/* Loads that go from line to line along one variable, and through a line along the other. */
static void count_crossing(void *user, const Expr *load) {
  Crossing *c = user;
  const Expr *k, *rest;
  if (!expr_affine(c->t->p, load->a[0], c->along, &k, &rest) || expr_is_i64(k, 0) ||
      expr_is_i64(k, 1))
    return;
  if (expr_affine(c->t->p, load->a[0], c->across, &k, &rest) && expr_is_i64(k, 1)) c->n++;
}

/* The loop that runs through the lines between which the innermost loop jumps; -1: none. */
static int crossing_loop(ElemNest *t) {
  int best = -1, most = 0;
  for (int k = 0; k + 1 < t->n; k++) {
    Crossing c = {t, t->var[t->n - 1], t->var[k], 0};
    expr_each_load(t->p, t->value, count_crossing, &c);
    if (c.n > most && elem_guess(t, t->var[k]) >= TILE_ACROSS / 2) {
      most = c.n;
      best = k;
    }
  }
  return best;
}

static const Expr *block_var(ElemNest *t, int d, const Expr *var, int64_t size) {
  const Expr *n = expr_var_extent(t->p, var->id), *b = ex_i64(t->p, size);
  const Expr *blocks = ex_var(t->p, "i", ex_ceildiv(t->p, n, size));
  t->tile_inside[d] = ex_var(t->p, "t", b);
  t->tile_at[d] = ex_mul(t->p, blocks, b);
  t->tile_extent[d] = n;
  elem_rebind(t, var, ex_add(t->p, t->tile_at[d], t->tile_inside[d]));
  return blocks;
}

/* A nest whose vectors would take one element of each line they touch, and come back for the next
 * one when the lines have left the cache, goes through tiles of a line's length. */
void elem_tile_transposed(ElemNest *t) {
  enum { SMALL = 4096 }; /* elements that stay in the first-level cache anyway */
  if (!t->vector_root || t->reds.n || t->n < 2 || t->n > MAX_RANK) return;
  const Expr *along = t->var[t->n - 1];
  const int k = crossing_loop(t);
  if (k < 0 || elem_guess(t, along) < TILE_ALONG ||
      elem_guess(t, along) * elem_guess(t, t->var[k]) <= SMALL)
    return;
  const Expr *across = t->var[k];
  for (int i = k; i + 2 < t->n; i++) t->var[i] = t->var[i + 1];
  /* the tiles of the shorter dimension follow each other: whole lines are read or written */
  const bool wide = elem_guess(t, across) > elem_guess(t, along);
  const Expr *const x = block_var(t, 0, across, TILE_ACROSS), *const y = block_var(t, 1, along,
                                                                                   TILE_ALONG);
  t->var[t->n - 2] = wide ? x : y;
  t->var[t->n - 1] = wide ? y : x;
  t->tiled = true;
}

/* The loops inside the tiles, when those around them are final. */
void elem_finish_tiles(ElemNest *t) {
  static const int64_t size[2] = {TILE_ACROSS, TILE_ALONG};
  for (int d = 0; d < 2 && t->tiled; d++) {
    int64_t n;
    const Expr *b = ex_i64(t->p, size[d]), *whole = t->tile_extent[d];
    const bool even = expr_is_const(whole, &n) && n % size[d] == 0;
    const Expr *left = ex_sub(t->p, whole, t->tile_at[d]);
    const Expr *in = ex_var(t->p, "i", even ? b : ex_min(t->p, b, left));
    elem_rebind(t, t->tile_inside[d], in);
    t->var[t->n++] = in;
  }
}
