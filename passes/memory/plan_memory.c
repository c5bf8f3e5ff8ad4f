/* Memory planner: gives every arena buffer its offset. Needs the final order of steps; nothing may
 * move steps or add buffers after it. Buffers of fixed size are packed together (plan_pack.c).
 * Sizes that are a constant times the same formula of the symbols can be packed like fixed ones, in
 * multiples of that formula; where there are several formulas, plan_symbolic.c mostly finds a
 * smaller plan. Either way offsets are closed formulas. Runtime symbols count as their bounds. */
#include <inttypes.h>
#include "ir/base/integer.h"
#include "passes/memory/plan.h"

/* Buffers that share one place one after the other (in-place chains). */
typedef struct Block {
  int64_t units;     /* size = units * per; a multiple of 64 bytes */
  const Expr *per;   /* 1: fixed size */
  const Expr *bytes; /* what it needs, rounded up to 64; may be less than units * per */
  int start, end;
  int class_id;
} Block;

typedef struct Class {
  const Expr *per;
  int64_t total; /* units */
} Class;

typedef struct Planner {
  PassCtx *c;
  Module *m;
  Arena *a;
  ExprPool *p;
  LiveTable live;
  int *block_of; /* by buffer id; -1 */
  int *tail_of;  /* by block: the buffer that holds it last */
  Vec(Block) blocks;
  Vec(Class) classes;
} Planner;

/* ---- sizes as units * per ---- */
/* Constant factor of one term. */
static int64_t term_factor(const Expr *e) {
  int64_t k = 0, rest = 1;
  if (expr_is_const(e, &k)) return k;
  if (e->op != EX_mul) return 1;
  for (int i = 0; i < 2; i++)
    if (!ck_mul(rest, term_factor(e->a[i]), &rest)) return 1;
  return rest;
}

static int64_t sum_factor(const Expr *e) {
  if (e->op == EX_add) return int_gcd(sum_factor(e->a[0]), sum_factor(e->a[1]));
  if (e->op == EX_sub) return int_gcd(sum_factor(e->a[0]), sum_factor(e->a[1]));
  return int_gcd(term_factor(e), 0);
}

static const Expr *strip_term(ExprPool *p, const Expr *e) {
  int64_t k = 0;
  if (expr_is_const(e, &k)) return ex_i64(p, 1);
  if (e->op != EX_mul) return e;
  return ex_mul(p, strip_term(p, e->a[0]), strip_term(p, e->a[1]));
}

static const Expr *divide(ExprPool *p, const Expr *e, int64_t g) {
  if (e->op == EX_add || e->op == EX_sub)
    return ex_op(p, e->op, divide(p, e->a[0], g), divide(p, e->a[1], g), NULL);
  return ex_mul(p, ex_i64(p, term_factor(e) / g), strip_term(p, e));
}

static bool size_error(Planner *p, const Buffer *b, ErrCode code, const char *what,
                       const char *name) {
  const Loc loc = {.file = p->m->model->file, .node = -1, .node_name = b->name};
  return diag_error(p->m->model->diag, &loc, code, "%s %s", what, name);
}

static const Expr *at_least_0(Planner *p, const Expr *e) {
  int64_t lo = INT64_MIN, hi = INT64_MAX;
  expr_range(p->p, e, &lo, &hi);
  return lo >= 0 ? e : ex_max(p->p, e, ex_i64(p->p, 0));
}

static bool block_size(Planner *p, const Buffer *b, Block *out) {
  int missing = -1;
  const Expr *count = expr_upper(p->p, b->count, &missing);
  if (!count)
    return size_error(p, b, ERR_DYNAMIC,
                      "its size cannot be bounded (--bound NAME=N gives a bound): no bound for",
                      expr_symbol(p->p, missing)->name);
  if (count != b->count) count = at_least_0(p, count); /* the rest is checked at entry */
  int64_t n = 0, units = 0;
  const int64_t bytes = dtype_bytes(b->dtype);
  out->per = ex_i64(p->p, 1);
  if (expr_is_const(count, &n)) {
    if (n < 0) n = 0;
  } else {
    n = sum_factor(count);
    if (n <= 0) n = 1;
    out->per = n == 1 ? count : divide(p->p, count, n);
  }
  if (!ck_mul(n, bytes, &units) || !ck_add(units, 63, &units))
    return size_error(p, b, ERR_OVERFLOW, "its size overflows", "");
  out->units = units / 64 * 64;
  out->bytes =
      at_least_0(p, ex_mul(p->p, ex_i64(p->p, 64),
                           ex_ceildiv(p->p, ex_mul(p->p, count, ex_i64(p->p, bytes)), 64)));
  return true;
}

/* ---- blocks ---- */
static bool whole_buffer_view(const Planner *p, int id) {
  const Buffer *b = &p->m->buffers.data[id];
  return b->kind != BUF_VIEW || (!b->offset || expr_is_i64(b->offset, 0));
}

/* The block that buffer d may take over, or -1. */
static int block_to_reuse(const Planner *p, const Buffer *d, const Block *size) {
  if (d->inplace_of < 0 || d->inplace_of >= p->m->buffers.n || !whole_buffer_view(p, d->inplace_of))
    return -1;
  const int s = buffer_root(p->m, d->inplace_of);
  if (s < 0 || s == d->id || p->block_of[s] < 0) return -1;
  const int block = p->block_of[s];
  const Block *k = &p->blocks.data[block];
  const Live *from = &p->live.of[s], *to = &p->live.of[d->id];
  const bool meet = from->last == to->first && from->end == from->last && to->start == to->first;
  const bool fits = k->bytes == size->bytes;
  return meet && fits && from->last_is_read && to->first_is_write && p->tail_of[block] == s ? block
                                                                                            : -1;
}

static int class_of(Planner *p, const Expr *per) {
  for (int i = 0; i < p->classes.n; i++)
    if (p->classes.data[i].per == per) return i;
  vec_push(p->a, &p->classes, (Class){.per = per});
  return p->classes.n - 1;
}

static bool add_buffer(Planner *p, const Buffer *b) {
  const Live *l = &p->live.of[b->id];
  Block k = {.start = l->start, .end = l->end};
  if (!block_size(p, b, &k)) return false;
  const int shared = block_to_reuse(p, b, &k);
  if (shared >= 0) {
    p->blocks.data[shared].end = l->end;
    p->tail_of[shared] = b->id;
    p->block_of[b->id] = shared;
    return true;
  }
  k.class_id = class_of(p, k.per);
  p->block_of[b->id] = p->blocks.n;
  p->tail_of[p->blocks.n] = b->id;
  vec_push(p->a, &p->blocks, k);
  return true;
}

/* Buffers in order of their first use: sources come before what takes their place. */
static bool make_blocks(Planner *p) {
  const int n = p->m->buffers.n, times = p->live.n_times;
  int *head = ARENA_ARRAY(p->a, int, times + 1), *next = ARENA_ARRAY(p->a, int, n + 1);
  for (int t = 0; t < times; t++) head[t] = -1;
  for (int i = n - 1; i >= 0; i--) {
    p->block_of[i] = -1;
    if (p->m->buffers.data[i].kind != BUF_ARENA || !p->live.of[i].used) continue;
    next[i] = head[p->live.of[i].first];
    head[p->live.of[i].first] = i;
  }
  for (int t = 0; t < times; t++)
    for (int i = head[t]; i >= 0; i = next[i])
      if (!add_buffer(p, &p->m->buffers.data[i])) return false;
  return true;
}

/* ---- places ---- */
static bool sizes_fit(Planner *p) {
  int64_t sum = 0;
  for (int i = 0; i < p->blocks.n; i++)
    if (!ck_add(sum, p->blocks.data[i].units, &sum) || sum > INT64_MAX / 4)
      return diag_error(p->m->model->diag, &(Loc){.file = p->m->model->file, .node = -1},
                        ERR_OVERFLOW, "the sizes of all tensors together overflow");
  return true;
}

/* Packs the blocks of one class; offsets in units. Returns their lower bound. */
static int64_t pack_class(Planner *p, int class_id, int64_t *unit_offset) {
  PackItem *items = ARENA_ARRAY(p->a, PackItem, p->blocks.n + 1);
  int *which = ARENA_ARRAY(p->a, int, p->blocks.n + 1), n = 0;
  for (int i = 0; i < p->blocks.n; i++) {
    const Block *b = &p->blocks.data[i];
    if (b->class_id != class_id) continue;
    which[n] = i;
    items[n++] = (PackItem){.size = b->units, .start = b->start, .end = b->end};
  }
  p->classes.data[class_id].total = pack_items(p->a, items, n);
  for (int i = 0; i < n; i++) unit_offset[which[i]] = items[i].offset;
  return pack_lower_bound(p->a, items, n);
}

static const Expr *scaled(Planner *p, int64_t units, const Expr *per) {
  return ex_mul(p->p, ex_i64(p->p, units), per);
}

/* Regions one behind the other, the fixed one first. */
static const Expr *place_classes(Planner *p, const Expr **offset, int64_t *lower) {
  int64_t *unit_offset = ARENA_ARRAY(p->a, int64_t, p->blocks.n + 1);
  const Expr **base = ARENA_ARRAY(p->a, const Expr *, p->classes.n + 1), *end = ex_i64(p->p, 0);
  for (int i = 0; i < p->classes.n; i++) {
    *lower = pack_class(p, i, unit_offset);
    base[i] = end;
    end = ex_add(p->p, end,
                 at_least_0(p, scaled(p, p->classes.data[i].total, p->classes.data[i].per)));
  }
  for (int i = 0; i < p->blocks.n; i++)
    offset[i] = ex_add(p->p, base[p->blocks.data[i].class_id],
                       scaled(p, unit_offset[i], p->blocks.data[i].per));
  return end;
}

/* Takes the plan across all formulas where it is better than that of the classes, which has simpler
 * offsets. */
static const Expr *place_across(Planner *p, const Expr **offset, const Expr *classes) {
  enum { MOST = 5000 }; /* its work grows with the square */
  const int n = p->blocks.n;
  if (n > MOST) return classes;
  SymBlock *s = ARENA_ARRAY(p->a, SymBlock, n + 1);
  for (int i = 0; i < n; i++)
    s[i] =
        (SymBlock){p->blocks.data[i].bytes, p->blocks.data[i].start, p->blocks.data[i].end, NULL};
  const double simple = plan_score(p->p, p->a, classes, s, n);
  if (simple < 1.05) return classes;
  const Expr *bytes = pack_symbolic(p->p, p->a, s, n);
  if (simple < 1.03 * plan_score(p->p, p->a, bytes, s, n)) return classes;
  for (int i = 0; i < n; i++) offset[i] = s[i].offset;
  return bytes;
}

static void place_blocks(Planner *p) {
  Module *m = p->m;
  const Expr **offset = ARENA_ARRAY(p->a, const Expr *, p->blocks.n + 1);
  int64_t lower = 0;
  m->arena_bytes = place_classes(p, offset, &lower);
  m->arena_lower_bound = p->classes.n == 1 ? lower : -1;
  if (p->classes.n > 1) m->arena_bytes = place_across(p, offset, m->arena_bytes);
  for (int i = 0; i < m->buffers.n; i++)
    if (m->buffers.data[i].kind == BUF_ARENA)
      m->buffers.data[i].offset = p->block_of[i] < 0 ? ex_i64(p->p, 0) : offset[p->block_of[i]];
}

/* ---- scratch of kernels ---- */
static bool plan_scratch(Planner *p) {
  const Expr *most = ex_i64(p->p, 0);
  for (int i = 0; i < p->m->kernels.n; i++) {
    const Kernel *k = p->m->kernels.data[i];
    const Expr *sum = ex_i64(p->p, 0);
    for (int j = 0; j < k->params.n; j++) {
      const Param *q = &k->params.data[j];
      if (!q->scratch) continue;
      int missing = -1;
      const Expr *count = expr_upper(p->p, q->count, &missing);
      if (!count)
        return diag_error(p->m->model->diag, k->loc, ERR_DYNAMIC,
                          "scratch of %s cannot be bounded: no bound for %s", k->name,
                          expr_symbol(p->p, missing)->name);
      const Expr *bytes = ex_mul(p->p, count, ex_i64(p->p, dtype_bytes(q->dtype)));
      sum = ex_add(p->p, sum, ex_mul(p->p, ex_ceildiv(p->p, bytes, 64), ex_i64(p->p, 64)));
    }
    most = ex_max(p->p, most, sum);
  }
  p->m->scratch_bytes = most;
  return true;
}

/* A device has no heap. */
static bool all_bounded(Planner *p) {
  for (int i = 0; i < p->m->buffers.n; i++) {
    const Buffer *b = &p->m->buffers.data[i];
    int missing = -1;
    if (b->kind == BUF_HEAP && target_has_grids(p->c->target) &&
        !expr_upper(p->p, b->count, &missing))
      return size_error(p, b, ERR_DYNAMIC,
                        "its size cannot be bounded (--bound NAME=N gives a bound): no bound for",
                        expr_symbol(p->p, missing)->name);
  }
  return true;
}

bool pass_plan_memory(PassCtx *c) {
  Module *m = c->module;
  Planner p = {.c = c, .m = m, .a = c->scratch, .p = m->model->pool};
  if (!all_bounded(&p) || !plan_rooms(m, p.a)) return false;
  p.live = plan_live(p.a, m);
  p.block_of = ARENA_ARRAY(p.a, int, m->buffers.n + 1);
  p.tail_of = ARENA_ARRAY(p.a, int, m->buffers.n + 1);
  class_of(&p, ex_i64(p.p, 1));
  if (!make_blocks(&p) || !sizes_fit(&p)) return false;
  place_blocks(&p);
  c->changed = true;
  return plan_scratch(&p) && plan_check(m);
}
