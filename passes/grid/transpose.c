/* Elements that are read along another dimension than they are written, for GPUs: layouts changed,
 * a Transpose, one that was inlined into a chain. A load whose index jumps along the innermost loop and
 * goes from neighbour to neighbour along another one takes a sector of 32 bytes for each element. So a
 * block takes a tile of both loops:
 *
 *   for each tile
 *     all threads: lines of each such load, along the other loop, into shared memory
 *     all threads: elements along the innermost loop, which read columns
 *
 * 32 threads share a line; elements below 4 bytes are loaded and stored some at once. Lines in shared
 * memory are one element longer than a tile, so that the columns which threads beside each other read lie
 * in banks of their own (Ruetsch and Micikevicius, Optimizing Matrix Transpose in CUDA, 2009). */
#include "passes/grid/transpose.h"

#include "ir/expr/expr_query.h"
#include "passes/build/nest.h"

enum { LANES = 32, LINES = 8, WORD = 4, MOST_LOADS = 8 };

typedef struct Transpose {
  KernelBuild *b;
  ExprPool *p;
  Arena *a;
  const RowNest *s;
  int other;                                         /* the loop along which is read */
  const Expr *load[MOST_LOADS], *column[MOST_LOADS]; /* column: what elements read instead */
  int n;
  int read, write;                        /* elements of a thread at once */
  const Expr *across, *along;             /* the innermost loop and the other one */
  const Expr *first_across, *first_along; /* of the tile */
  const Expr *x, *y;                      /* the thread */
} Transpose;

static const Expr *num(const Transpose *t, int64_t n) { return ex_i64(t->p, n); }
static const Expr *add(const Transpose *t, const Expr *a, const Expr *b) {
  return ex_add(t->p, a, b);
}
static const Expr *times(const Transpose *t, const Expr *a, int64_t n) {
  return ex_mul(t->p, a, num(t, n));
}
static const Expr *extent(const Transpose *t, const Expr *var) {
  return expr_var_extent(t->p, var->id);
}
static double guess(const Transpose *t, const Expr *var) {
  return expr_extent_guess(t->p, extent(t, var));
}

/* ---- what crosses ---- */
static bool steps(const Transpose *t, const Expr *index, const Expr *var, int64_t *step) {
  const Expr *coeff, *rest;
  if (!expr_affine(t->p, index, var, &coeff, &rest)) return false;
  if (!expr_is_const(coeff, step)) *step = INT64_MAX; /* not known: some line */
  return true;
}

static void note_load(void *user, const Expr *load) {
  Transpose *const t = user;
  int64_t across, along;
  if (t->n < MOST_LOADS && steps(t, load->a[0], t->across, &across) && across != 0 && across != 1 &&
      steps(t, load->a[0], t->along, &along) && along == 1)
    t->load[t->n++] = load;
}

/* Sectors of 32 bytes that 256 threads take, an element each, to those that they need. */
static double waste(const Transpose *t, const Expr *load) {
  enum { BLOCK = 256, SECTOR = 32 };
  const double bytes = dtype_bytes((DType)load->dtype), n = guess(t, t->across);
  const double lines = n < BLOCK ? n : BLOCK;
  const bool next = t->other == t->s->n - 2; /* so many neighbours are in a block */
  const double run = next && n < BLOCK ? BLOCK / n * bytes : bytes;
  const double sectors = lines * (run > SECTOR ? run / SECTOR : 1);
  return sectors * SECTOR / (BLOCK * bytes);
}

/* Cycles that the L2 cache takes for what is not needed. */
static double saved(const Transpose *t) {
  enum { L2_BYTES = 32 }; /* a cycle of a multiprocessor */
  double elements = 1, bytes = 0;
  for (int k = 0; k < t->s->n; k++) elements *= guess(t, t->s->var[k]);
  for (int i = 0; i < t->n; i++)
    bytes += elements * dtype_bytes((DType)t->load[i]->dtype) * (waste(t, t->load[i]) - 1);
  return bytes / ((double)L2_BYTES * t->b->l->c->target->gpu->sms);
}

/* Chooses the loop along which most is saved. */
static bool find_crossing(Transpose *t) {
  enum { BARRIERS = 500, SHORT = 8 }; /* cycles; elements of a line */
  const RowNest *const s = t->s;
  const Expr *coeff, *rest;
  Transpose best = {.n = 0};
  double most = BARRIERS;
  if (s->n < 2 || s->value->flags & EXF_REDUCE) return false;
  t->across = s->var[s->n - 1];
  if (!expr_affine(t->p, s->store, t->across, &coeff, &rest) || !expr_is_i64(coeff, 1))
    return false;
  for (t->other = 0; t->other + 1 < s->n; t->other++) {
    t->n = 0;
    t->along = s->var[t->other];
    if (guess(t, t->along) < SHORT || guess(t, t->across) < SHORT) continue;
    expr_each_load(t->p, s->value, note_load, t);
    if (!t->n || saved(t) <= most) continue;
    most = saved(t);
    best = *t;
  }
  if (best.n) *t = best;
  return best.n > 0;
}

/* ---- how many at once ---- */
/* Elements that follow each other from a multiple of n on, of a loop with a multiple of them. */
static bool follows(const Transpose *t, int param, const Expr *index, const Expr *var, int64_t n) {
  const Param *const q = &t->b->k->params.data[param];
  const Expr *const i = ex_var(t->p, "i", num(t, n)), *coeff, *rest;
  const Expr *const group = ex_var(t->p, "g", ex_ceildiv(t->p, extent(t, var), n));
  const Expr *const at = expr_subst(t->p, index, var, add(t, times(t, group, n), i));
  return expr_is_multiple(t->p, extent(t, var), n) && q->align >= n * dtype_bytes(q->dtype) &&
         expr_affine(t->p, at, i, &coeff, &rest) && expr_is_i64(coeff, 1) &&
         expr_is_multiple(t->p, rest, n);
}

static int at_once(const Transpose *t, int param, const Expr *index, const Expr *var) {
  int n = WORD / dtype_bytes(t->b->k->params.data[param].dtype);
  while (n > 1 && (LANES * n > 2 * guess(t, var) || !follows(t, param, index, var, n))) n /= 2;
  return n > 1 ? n : 1;
}

/* The same number for all loads: that of the shortest elements that can be loaded so. */
static void choose_widths(Transpose *t) {
  const int n = at_once(t, t->s->target, t->s->store, t->across);
  t->write = n * dtype_bytes(t->b->k->params.data[t->s->target].dtype) == WORD ? n : 1;
  t->read = 1;
  for (int i = 0; i < t->n; i++) {
    const Expr *const guard = t->load[i]->a[1];
    const int some = guard && expr_uses_var(guard, t->along->id)
                         ? 1
                         : at_once(t, t->load[i]->id, t->load[i]->a[0], t->along);
    if (some > t->read) t->read = some;
  }
}

/* ---- the kernel ---- */
static Stmt *nest(const Transpose *t, Stmt *s) {
  return stmt_for(t->a, FOR_THREAD, t->y, stmt_for(t->a, FOR_THREAD, t->x, s));
}

/* s where first + i is below the extent of var, which tiles of `size` may go beyond. */
static Stmt *if_inside(const Transpose *t, const Expr *var, const Expr *at, int64_t size, Stmt *s) {
  if (expr_is_multiple(t->p, extent(t, var), size)) return s;
  return stmt_if(t->a, ex_lt(t->p, at, extent(t, var)), s, NULL);
}

static int pitch(const Transpose *t) { return LANES * t->read + 1; }

/* The load at a place of the tile. */
static const Expr *load_at(const Transpose *t, const Expr *load, const Expr *across,
                           const Expr *along) {
  const Expr *const e = expr_subst(t->p, load, t->across, add(t, t->first_across, across));
  return expr_subst(t->p, e, t->along, add(t, t->first_along, along));
}

/* Each thread some neighbours of each LINES-th line; they pass through registers where one access
 * loads them. */
static Stmt *read_lines(Transpose *t, const Expr *load, int shared) {
  const DType type = (DType)load->dtype;
  const Local l = {.name = "next", .dtype = type, .count = t->read, .memory = MEM_STACK};
  const Expr *const i = ex_var(t->p, "i", num(t, LANES * t->write / LINES));
  const Expr *const u = ex_var(t->p, "u", num(t, t->read));
  const Expr *const line = add(t, times(t, i, LINES), t->y), *const first = times(t, t->x, t->read);
  const Expr *const at = add(t, first, u), *const place = add(t, times(t, line, pitch(t)), at);
  StmtList s = {0};
  if (t->read == 1) {
    const Expr *const one = load_at(t, load, line, t->x);
    stmt_add(&s, stmt_set(t->a, shared, expr_subst(t->p, place, u, num(t, 0)), one));
  } else {
    const int next = kernel_add_local(t->b->l->mod, t->b->k, l);
    stmt_add(&s, stmt_local(t->a, next));
    Stmt *const set = stmt_set(t->a, next, u, load_at(t, load, line, at));
    stmt_add(&s, stmt_for(t->a, FOR_VECTOR, u, set));
    stmt_add(&s, stmt_for(t->a, FOR_UNROLL, u,
                          stmt_set(t->a, shared, place, ex_local(t->p, type, next, u))));
  }
  Stmt *const inside =
      if_inside(t, t->across, add(t, t->first_across, line), LANES * t->write,
                if_inside(t, t->along, add(t, t->first_along, first), LANES * t->read, s.first));
  return stmt_for(t->a, FOR_UNROLL, i, inside);
}

static Stmt *write_columns(Transpose *t) {
  const Expr *const i = ex_var(t->p, "i", num(t, LANES * t->read / LINES));
  const Expr *const v = t->write > 1 ? ex_var(t->p, "v", num(t, t->write)) : num(t, 0);
  const Expr *const line = add(t, times(t, i, LINES), t->y), *const first =
                                                                 times(t, t->x, t->write);
  const Expr *const at = add(t, first, v);
  const Expr *column[MOST_LOADS];
  for (int k = 0; k < t->n; k++)
    column[k] = ex_local(t->p, (DType)t->column[k]->dtype, t->column[k]->id,
                         add(t, times(t, at, pitch(t)), line));
  const Expr *value = expr_replace(t->p, t->s->value, t->n, t->load, column);
  value = load_at(t, value, at, line);
  Stmt *s = stmt_store(t->a, t->s->target, load_at(t, t->s->store, at, line), value);
  if (t->write > 1) s = stmt_for(t->a, FOR_VECTOR, v, s);
  Stmt *const inside =
      if_inside(t, t->along, add(t, t->first_along, line), LANES * t->read,
                if_inside(t, t->across, add(t, t->first_across, first), LANES * t->write, s));
  return stmt_for(t->a, FOR_UNROLL, i, inside);
}

/* Tiles, and the other loops around them, as blocks. */
static const Expr *open_grid(Transpose *t, const Expr **index) {
  const RowNest *const s = t->s;
  const Expr *size[MAX_RANK + 2], *all = num(t, 1);
  for (int k = 0; k < s->n; k++) {
    const int64_t tile = k == t->other ? LANES * t->read : k == s->n - 1 ? LANES * t->write : 1;
    size[k] = ex_ceildiv(t->p, extent(t, s->var[k]), tile);
    all = ex_mul(t->p, all, size[k]);
  }
  const Expr *const block = ex_var(t->p, "b", all);
  nest_indices(t->p, block, s->n, size, index);
  t->first_along = times(t, index[t->other], LANES * t->read);
  t->first_across = times(t, index[s->n - 1], LANES * t->write);
  return block;
}

typedef struct Outer {
  const Transpose *t;
  const Expr *const *index;
} Outer;

/* Loops that are no tiles are numbers of the block. */
static const Expr *outer_index(void *user, const Expr *leaf) {
  const Outer *const o = user;
  for (int k = 0; k + 1 < o->t->s->n; k++)
    if (k != o->t->other && leaf == o->t->s->var[k]) return o->index[k];
  return NULL;
}

Stmt *transpose_body(KernelBuild *b, const RowNest *s) {
  Transpose t = {.b = b, .p = b->l->p, .a = b->l->m->arena, .s = s};
  const Expr *index[MAX_RANK + 2];
  StmtList body = {0}, lines = {0};
  if (!find_crossing(&t)) return NULL;
  choose_widths(&t);
  const Expr *const block = open_grid(&t, index);
  t.x = ex_var(t.p, "x", num(&t, LANES));
  t.y = ex_var(t.p, "y", num(&t, LINES));
  for (int i = 0; i < t.n; i++) {
    const DType type = (DType)t.load[i]->dtype;
    const int shared = kernel_add_local(b->l->mod, b->k,
                                        (Local){.name = "tile",
                                                .dtype = type,
                                                .count = (int64_t)LANES * t.write * pitch(&t),
                                                .memory = MEM_SHARED});
    stmt_add(&body, stmt_local(t.a, shared));
    stmt_add(&lines, read_lines(&t, t.load[i], shared));
    t.column[i] = ex_local(t.p, type, shared, num(&t, 0));
  }
  stmt_add(&body, nest(&t, lines.first));
  stmt_add(&body, nest(&t, write_columns(&t)));
  Outer o = {&t, index};
  return stmt_for(t.a, FOR_BLOCK, block, stmt_rewrite(t.a, t.p, body.first, outer_index, &o));
}
