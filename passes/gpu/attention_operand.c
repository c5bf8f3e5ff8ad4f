/* Queries, keys and values of an attention, from memory into tiles in shared memory: as copies that
 * go on while threads do where 16 bytes lie as they are wanted, else through registers. Behind the
 * last line, and behind the last element of each, stand zeros. */
#include "ir/loop/mma.h"
#include "passes/gpu/attention.h"
#include "passes/gpu/tile_load.h"

enum { BYTES = 16, MOST_HELD = 64 }; /* bytes of a read, and of what a thread holds */

static int threads_of(const GpuAttn *g) { return g->tile.warps * ATTENTION_LANES; }

/* ---- elements ---- */

static const Expr *plain_element(GpuAttn *g, const AttentionOperand *o, const Expr *line,
                                 const Expr *element) {
  Attn *const c = &g->c;
  const Expr *const row = o->trans ? element : line, *const col = o->trans ? line : element;
  /* as the product has it: keys are columns */
  return attn_operand(c, &c->b, o->v, false, o->rank, o->from, row, col);
}

/* The element as shared memory holds it; no access where `inside` does not hold. */
static const Expr *element_of(GpuAttn *g, const AttentionOperand *o, const Expr *inside,
                              const Expr *line, const Expr *element) {
  Attn *const c = &g->c;
  int64_t always = 0;
  const bool certain = expr_is_const(inside, &always) && always;
  c->b.x.guard = certain ? NULL : inside;
  const Expr *e = plain_element(g, o, line, element);
  c->b.x.guard = NULL;
  if (!certain && !tile_keeps_zero(e)) e = ex_select(c->p, inside, e, f32(c, 0));
  return tile_stored(c->p, g->type, e);
}

/* ---- what a thread reads ---- */

/* Elements v of one read. */
typedef struct Spot {
  const Expr *number; /* among the reads of all threads */
  const Expr *line;   /* of the tile */
  const Expr *first;  /* element for v = 0 */
  const Expr *element;
} Spot;

static Spot spot_of(const GpuAttn *g, const AttentionOperand *o, const AttentionThreads *t,
                    const Expr *i, const Expr *v) {
  const Attn *const c = &g->c;
  const Expr *const thread = plus(c, times(c, t->warp, ATTENTION_LANES), t->lane);
  Spot s = {.number = plus(c, times(c, i, threads_of(g)), thread)};
  const Expr *const across = num(c, o->along ? o->padded / o->width : o->extent);
  const Expr *const slow = ex_floordiv(c->p, s.number, across), *const fast = ex_floormod(
                                                                    c->p, s.number, across);
  s.line = o->along ? slow : fast;
  s.first = o->along ? times(c, fast, o->width) : slow;
  s.element = plus(c, s.first, v);
  return s;
}

static const Expr *value_at(GpuAttn *g, const AttentionOperand *o, const Spot *s, const Expr *v,
                            const Expr *tile) {
  Attn *const c = &g->c;
  const Expr *const line = plus(c, tile, s->line);
  const Expr *inside = ex_lt(c->p, line, o->lines);
  if (o->size != o->padded)
    inside = ex_and(c->p, inside, tile_below(c->p, s->first, v, o->width, num(c, o->size)));
  return element_of(g, o, inside, line, s->element);
}

/* Whether an element and the next one follow each other in memory. */
static bool lies_along(GpuAttn *g, const AttentionOperand *o) {
  Attn *const c = &g->c;
  const Expr *const line = var(c, "r", o->lines), *const element = var(c, "k", num(c, o->size));
  const Expr *e = plain_element(g, o, line, element), *coeff, *rest;
  while (e->op == EX_cast) e = e->a[0];
  int64_t n;
  const bool known = e->op == EX_LOAD && expr_affine(c->p, e->a[0], line, &coeff, &rest);
  return !(known && expr_is_const(coeff, &n) && n == 1 && o->size > 1) ||
         (expr_affine(c->p, e->a[0], element, &coeff, &rest) && expr_is_i64(coeff, 1));
}

/* tf32 is rounded on its way. */
static bool is_direct(GpuAttn *g, const AttentionOperand *o) {
  Attn *const c = &g->c;
  if (!o->along || o->width * dtype_bytes(g->type) != BYTES || g->kind == TILE_TF32) return false;
  const AttentionThreads t = {var(c, "warp", num(c, g->tile.warps)),
                              var(c, "lane", num(c, ATTENTION_LANES))};
  const Expr *const v = var(c, "v", num(c, o->width));
  const Expr *const tile =
      times(c, var(c, "step", ex_ceildiv(c->p, o->lines, o->extent)), o->extent);
  const Spot s = spot_of(g, o, &t, num(c, 0), v);
  return tile_copies(c->b.k, c->p, value_at(g, o, &s, v, tile), v, g->type);
}

void attention_operand(GpuAttn *g, AttentionOperand *o, const char *name, int late) {
  Attn *const c = &g->c;
  o->along = lies_along(g, o);
  o->width = o->along ? BYTES / dtype_bytes(g->type) : 1;
  const int64_t all = (int64_t)o->extent * o->padded / o->width, threads = threads_of(g);
  const int reads = (int)((all + threads - 1) / threads),
            most = MOST_HELD / (o->width * dtype_bytes(g->type));
  o->groups = 1;
  o->reads = reads;
  o->direct = is_direct(g, o);
  if (!o->direct && reads > most) {
    o->groups = (reads + most - 1) / most;
    o->reads = most;
  }
  o->held = -1;
  const bool small = dtype_bytes(g->type) < 4;
  o->shared = kernel_add_local(c->l->mod, c->b.k,
                               (Local){.name = name,
                                       .dtype = g->type,
                                       .count = o->stages * o->extent * o->pitch,
                                       .memory = MEM_SHARED,
                                       .late = o->direct ? late : 0});
  if (!o->direct)
    o->held = kernel_add_local(c->l->mod, c->b.k,
                               (Local){.name = "next",
                                       .dtype = g->type,
                                       .count = (int64_t)o->reads * o->width,
                                       .memory = small ? MEM_STACK : MEM_REGS});
}

/* ---- statements ---- */

const Expr *attention_element(const GpuAttn *g, const AttentionOperand *o, const Expr *stage,
                              const Expr *line, const Expr *element) {
  const Attn *const c = &g->c;
  const Expr *const first = times(c, stage, o->extent * o->pitch);
  return plus(c, first, plus(c, times(c, line, o->pitch), element));
}

/* The reads of a group, the last of which may be none. */
static Stmt *each_read(GpuAttn *g, const AttentionOperand *o, const Spot *s, const Expr *i,
                       const Expr *v, Stmt *set) {
  Attn *const c = &g->c;
  const int64_t all = (int64_t)o->extent * o->padded / o->width;
  const bool whole = all == (int64_t)o->groups * o->reads * threads_of(g);
  Stmt *one = loop(c, FOR_VECTOR, v, set);
  if (!whole) one = stmt_if(arena(c), ex_lt(c->p, s->number, num(c, all)), one, NULL);
  return loop(c, FOR_UNROLL, i, one);
}

/* From memory, to registers unless it is direct. */
static Stmt *read_group(GpuAttn *g, const AttentionOperand *o, const AttentionThreads *t,
                        const Expr *group, const Expr *tile, const Expr *stage) {
  Attn *const c = &g->c;
  const Expr *const i = var(c, "i", num(c, o->reads)), *const v = var(c, "v", num(c, o->width));
  const Spot s = spot_of(g, o, t, plus(c, times(c, group, o->reads), i), v);
  const Expr *const value = value_at(g, o, &s, v, tile);
  const Expr *const to = o->direct ? attention_element(g, o, stage, s.line, s.element)
                                   : plus(c, times(c, i, o->width), v);
  return each_read(g, o, &s, i, v, stmt_set(arena(c), o->direct ? o->shared : o->held, to, value));
}

/* From registers. */
static Stmt *put_group(GpuAttn *g, const AttentionOperand *o, const AttentionThreads *t,
                       const Expr *group, const Expr *stage) {
  Attn *const c = &g->c;
  const Expr *const i = var(c, "i", num(c, o->reads)), *const v = var(c, "v", num(c, o->width));
  const Spot s = spot_of(g, o, t, plus(c, times(c, group, o->reads), i), v);
  const Expr *e = ex_local(c->p, g->type, o->held, plus(c, times(c, i, o->width), v));
  if (g->kind == TILE_TF32) e = mma_tf32(c->p, e);
  const Expr *const to = attention_element(g, o, stage, s.line, s.element);
  return each_read(g, o, &s, i, v, stmt_set(arena(c), o->shared, to, e));
}

Stmt *attention_bring(GpuAttn *g, const AttentionOperand *o, const AttentionThreads *t,
                      const Expr *tile, const Expr *stage) {
  Attn *const c = &g->c;
  if (o->groups == 1) return read_group(g, o, t, num(c, 0), tile, stage);
  const Expr *const group = var(c, "group", num(c, o->groups));
  StmtList l = {0};
  stmt_add(&l, read_group(g, o, t, group, tile, stage));
  stmt_add(&l, put_group(g, o, t, group, stage));
  return loop(c, FOR_SERIAL, group, l.first);
}

Stmt *attention_put(GpuAttn *g, const AttentionOperand *o, const AttentionThreads *t,
                    const Expr *stage) {
  if (o->direct || o->groups > 1) return NULL;
  return put_group(g, o, t, num(&g->c, 0), stage);
}
