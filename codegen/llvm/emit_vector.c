/* Vector loops: full vectors, then a tail that is masked where the target's masks are cheap for the
 * types in the body, else scalar. Short constant loops, and those that slice register tiles, are
 * copied out; long ones become loops, several vectors an iteration when the body is small.
 * Reductions over lanes gather in vectors (several, when the loop is unrolled) that are added up in
 * a fixed order after the loop. */
#include "codegen/llvm/emit.h"

enum { SUMMED = 4 }; /* vectors of sums at a time */

typedef struct Body { /* what the loop's body is like */
  bool slices;        /* indexes a register tile with the variable: the variable must be constant */
  bool narrow;        /* touches memory of a type for which masks are expensive */
  bool reduces;       /* accumulates into something declared outside */
  bool loops;         /* has a loop inside */
  bool bits;          /* takes numbers apart: polynomials, whose long chains should overlap */
  bool wide;   /* computes, or keeps in locals, more than bytes: lanes are those of 32 bits */
  bool sets;   /* does more than store bytes */
  bool groups; /* multiplies groups of bytes that are made of vectors of them */
  bool sums;   /* goes many times around a loop inside */
  bool apart;  /* loads or stores elements that do not follow each other, or keeps some in memory */
  int kept;    /* elements of registers that it declares */
  int nodes;   /* distinct expressions */
} Body;

/* ---- looking at the body ---- */
static bool is_tile(const Emit *c, int id) { return c->locals[id].kind == LK_CHUNKS; }

static bool in_lane_registers(const Emit *c, int id) {
  return c->use[id].lanes && !c->use[id].memory;
}

/* Is e a byte, or an index that needs no lanes: affine, or a byte that finds one? */
static bool is_bytes(Emit *c, const Expr *var, const Expr *e) {
  const Expr *coeff, *rest;
  if (e->op == EX_LOCAL) return dtype_bytes(e->dtype) == 1 && in_lane_registers(c, e->id);
  if (e->dtype == DT_BOOL) return !expr_uses_var(e, var->id);
  if (e->dtype != DT_I64) return dtype_bytes(e->dtype) == 1;
  if (e->op == EX_cast) return e->a[0]->dtype == DT_U8;
  return !(e->flags & (EXF_LOAD | EXF_LOCAL)) && expr_affine(c->pool, e, var, &coeff, &rest);
}

/* Neighbouring lanes find neighbours at this index, or all of them the same. */
static bool follows(const Emit *c, const Expr *var, const Expr *index) {
  const Expr *coeff, *rest;
  if (!expr_uses_var(index, var->id)) return true;
  return !(index->flags & (EXF_LOAD | EXF_LOCAL)) &&
         expr_affine(c->pool, index, var, &coeff, &rest) && expr_is_i64(coeff, 1);
}

static void scan_expr(Emit *c, const Expr *var, const Expr *e, Body *b) {
  if (!e || emit_seen(c, e)) return;
  b->nodes++;
  b->wide |= !is_bytes(c, var, e);
  b->bits |= e->op == EX_bits;
  b->groups |= e->op == EX_or && e->dtype == DT_I32 && group_has_lanes(c, e, var);
  if (e->op == EX_LOAD && expr_uses_var(e, var->id) &&
      !masks_cheap(c, c->kernel->params.data[e->id].dtype))
    b->narrow = true;
  if (e->op == EX_LOCAL && is_tile(c, e->id) && expr_uses_var(e->a[0], var->id)) b->slices = true;
  if (e->op == EX_LOAD) b->apart |= e->a[1] || !follows(c, var, e->a[0]);
  for (int i = 0; i < e->nargs; i++)
    if (!(e->op == EX_rarely && i == 1)) scan_expr(c, var, e->a[i], b);
}

typedef struct Part {
  Emit *c;
  const Expr *var;
  Body *b;
} Part;

static void scan_part(void *user, const Expr *e) {
  const Part *const p = user;
  scan_expr(p->c, p->var, e, p->b);
}

static void scan_local(const Emit *c, int id, Body *b) {
  b->apart |= !in_lane_registers(c, id);
  b->kept += (int)c->kernel->locals.data[id].count;
}

static bool goes_round_often(Emit *c, const Stmt *loop) {
  enum { OFTEN = 32 };
  int64_t n;
  return !emit_const(c, expr_var_extent(c->pool, loop->loop.var->id), &n) || n >= OFTEN;
}

static void scan_stmts(Emit *c, const Expr *var, const Stmt *s, Body *b) {
  for (; s; s = s->next) {
    if (s->kind == ST_STORE && !masks_cheap(c, c->kernel->params.data[s->access.id].dtype))
      b->narrow = true;
    if (s->kind == ST_STORE && dtype_bytes(c->kernel->params.data[s->access.id].dtype) > 1)
      b->wide = b->sets = true;
    b->sets |= s->kind != ST_STORE && s->kind != ST_FOR;
    b->apart |= s->kind == ST_IF || (s->kind == ST_STORE && !follows(c, var, s->access.index));
    if (s->kind == ST_LOCAL) scan_local(c, s->access.id, b);
    if (s->kind == ST_SET || s->kind == ST_ACC) {
      b->wide |= !in_lane_registers(c, s->access.id);
      b->apart |= !in_lane_registers(c, s->access.id);
      const bool uses = expr_uses_var(s->access.index, var->id);
      if (is_tile(c, s->access.id) && uses) b->slices = true;
      if (s->kind == ST_ACC && !uses) b->reduces = true;
    }
    stmt_each_expr(s, scan_part, &(Part){c, var, b});
    if (s->kind == ST_FOR) {
      b->loops = true;
      b->sums |= goes_round_often(c, s);
    }
    scan_stmts(c, var, stmt_body(s), b);
    scan_stmts(c, var, stmt_otherwise(s), b);
  }
}

/* ---- emitting vectors ---- */
typedef struct Loop {
  const Stmt *s;
  int chunks; /* vectors per iteration */
} Loop;

static void chunk_at(Emit *c, const Stmt *s, Val base) {
  bind_value(c, s->loop.var, base, c->depth);
  emit_stmts(c, s->loop.body);
}

static void loop_body(Emit *c, void *user, Val iv) {
  const Loop *const l = user;
  for (int k = 0; k < l->chunks; k++) {
    c->set = k % c->sets;
    chunk_at(c, l->s, k ? LLVMBuildNSWAdd(c->b, iv, k_int(c, c->idx, (int64_t)k * c->vl), "") : iv);
  }
  c->set = 0;
}

/* A block to which initial values of lane accumulators can be added later. */
static void open_vector(Emit *c, const Stmt *s) {
  c->pre = LLVMGetInsertBlock(c->b);
  const LLVMBasicBlockRef first = new_block(c, "vector");
  LLVMBuildBr(c->b, first);
  LLVMPositionBuilderAtEnd(c->b, first);
  c->vvar = s->loop.var;
  c->set = 0;
  emit_forget(c);
}

static void close_vector(Emit *c) {
  c->vvar = NULL;
  c->mask = NULL;
  c->set = 0;
  c->sets = 1;
  emit_forget(c);
}

/* Lanes below `left` (a scalar of the index type). */
static Val tail_mask(Emit *c, Val left) {
  const Val n = LLVMBuildIntCast2(c->b, left, c->i32, 1, "");
  return LLVMBuildICmp(c->b, LLVMIntSLT, iota(c, c->i32), splat(c, n, c->vl), "");
}

static void scalar_body(Emit *c, void *user, Val iv) {
  const Stmt *const s = user;
  bind_value(c, s->loop.var, iv, c->depth);
  emit_stmts(c, s->loop.body);
}

/* ---- constant extents ---- */
static void scalar_consts(Emit *c, const Stmt *s, int64_t from, int64_t to) {
  for (int64_t i = from; i < to && !c->error; i++) {
    bind_const(c, s->loop.var, i);
    emit_stmts(c, s->loop.body);
  }
}

/* A loop to be copied out that is all of a vector loop's body. */
static bool is_unrolled_nest(Emit *c, const Stmt *vector, const Stmt *body, int64_t *lo,
                             int64_t *n) {
  if (!body || body->next || body->kind != ST_FOR || body->loop.kind != FOR_UNROLL) return false;
  const Expr *const from = expr_var_lo(c->pool, body->loop.var->id), *const extent =
                                                                         expr_var_extent(
                                                                             c->pool,
                                                                             body->loop.var->id);
  return !expr_uses_var(from, vector->loop.var->id) &&
         !expr_uses_var(extent, vector->loop.var->id) && emit_const(c, from, lo) &&
         emit_const(c, extent, n);
}

/* Full vectors of [lo, lo + n*vl), copied out. Unrolled loops that are the whole body go outside:
 * in a register tile the scalar of a row then serves all its vectors and needs one register, not
 * one per row. */
static void copied_chunks(Emit *c, const Stmt *s, const Stmt *body, int64_t lo, int64_t n) {
  int64_t from, count;
  if (n > 1 && is_unrolled_nest(c, s, body, &from, &count)) {
    for (int64_t i = 0; i < count && !c->error; i++) {
      bind_const(c, body->loop.var, from + i);
      copied_chunks(c, s, body->loop.body, lo, n);
    }
    return;
  }
  for (int64_t k = 0; k < n && !c->error; k++) {
    c->set = (int)(k % c->sets);
    bind_const(c, s->loop.var, lo + k * c->vl);
    emit_stmts(c, body);
  }
  c->set = 0;
}

static void looped_chunks(Emit *c, const Stmt *s, Val from, Val to, int chunks, bool sure) {
  Loop l = {s, chunks};
  emit_counted(c, from, to, (int64_t)chunks * c->vl, sure, loop_body, &l);
}

static int chunks_per_iteration(const Body *b) {
  if (b->loops) return 1;
  const int many = b->bits ? 3 : 1;
  return b->nodes <= 24 * many ? 4 : b->nodes <= 80 * many ? 2 : 1;
}

static void const_vector(Emit *c, const Stmt *s, const Body *b, int64_t lo, int64_t n) {
  const int64_t full = n / c->vl, left = n % c->vl;
  const bool copy = b->slices || (full <= 4 && !(b->loops && full > 2)) || full * b->nodes <= 64;
  const bool masked = left && !b->narrow;
  const int chunks = chunks_per_iteration(b);
  open_vector(c, s);
  c->sets = b->reduces ? (full < MAX_SETS ? (full > 0 ? (int)full : 1) : MAX_SETS) : 1;
  if (copy) {
    copied_chunks(c, s, s->loop.body, lo, full);
  } else {
    c->sets = b->reduces ? chunks : 1;
    const int64_t whole = full / chunks * chunks * c->vl;
    looped_chunks(c, s, k_int(c, c->idx, lo), k_int(c, c->idx, lo + whole), chunks, true);
    copied_chunks(c, s, s->loop.body, lo + whole, full % chunks);
  }
  if (masked) {
    bind_const(c, s->loop.var, lo + full * c->vl);
    c->mask = tail_mask(c, k_int(c, c->idx, left));
    c->active = (int)left;
    emit_stmts(c, s->loop.body);
    c->mask = NULL;
    c->active = 0;
  }
  locals_finish_lanes(c);
  close_vector(c);
  if (!left || masked) return;
  if (b->slices || left * b->nodes <= 24)
    scalar_consts(c, s, lo + full * c->vl, lo + n);
  else
    emit_counted(c, k_int(c, c->idx, lo + full * c->vl), k_int(c, c->idx, lo + n), 1, true,
                 scalar_body, (void *)s);
}

/* Does it make bytes of a register tile, which several vectors together are narrowed to? */
static bool narrows_tile(const Emit *c, const Body *b) {
  return c->arch->narrows_pairs && b->slices && !b->sets && !b->reduces;
}

/* Several vectors as one while these are filled, then single ones. What deals with bytes only, or makes them, has
 * lanes of 8 bits; with sums of groups of bytes in registers, too, lanes of 16. */
static void const_wide(Emit *c, const Stmt *s, const Body *b, int64_t lo, int64_t n, int lanes) {
  const int usual = c->vl;
  for (c->vl = lanes; c->vl > usual; c->vl /= 2) {
    const int64_t full = n / c->vl * c->vl;
    if (full) const_vector(c, s, b, lo, full);
    lo += full;
    n -= full;
  }
  if (n >= usual || (!b->narrow && n > 1))
    const_vector(c, s, b, lo, n);
  else
    scalar_consts(c, s, lo, lo + n);
}

/* ---- extents known at run time ---- */
static void masked_tail(Emit *c, const Stmt *s, Val from, Val left) {
  const LLVMBasicBlockRef tail = new_block(c, "tail"), done = new_block(c, "done");
  LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntSGT, left, k_int(c, c->idx, 0), ""), tail, done);
  LLVMPositionBuilderAtEnd(c->b, tail);
  bind_value(c, s->loop.var, from, c->depth);
  c->mask = tail_mask(c, left);
  emit_stmts(c, s->loop.body);
  c->mask = NULL;
  LLVMBuildBr(c->b, done);
  LLVMPositionBuilderAtEnd(c->b, done);
  emit_forget(c);
}

static Val round_down(Emit *c, Val n, int64_t step) {
  return LLVMBuildAnd(c->b, n, k_int(c, c->idx, -step), "");
}

static void run_time_vector(Emit *c, const Stmt *s, const Body *b) {
  const Val lo = emit_index(c, expr_var_lo(c->pool, s->loop.var->id));
  Val n = emit_index(c, expr_var_extent(c->pool, s->loop.var->id));
  const Val zero = k_int(c, c->idx, 0);
  n = LLVMBuildSelect(c->b, LLVMBuildICmp(c->b, LLVMIntSGT, n, zero, ""), n, zero, "");
  const int chunks = chunks_per_iteration(b);
  open_vector(c, s);
  c->sets = b->reduces ? chunks : 1;
  const Val end = LLVMBuildAdd(c->b, lo, n, ""),
            full = LLVMBuildAdd(c->b, lo, round_down(c, n, c->vl), "");
  Val from = lo;
  if (chunks > 1) {
    const Val whole = LLVMBuildAdd(c->b, lo, round_down(c, n, (int64_t)chunks * c->vl), "");
    looped_chunks(c, s, from, whole, chunks, false);
    from = whole;
  }
  looped_chunks(c, s, from, full, 1, false);
  if (!b->narrow) masked_tail(c, s, full, LLVMBuildSub(c->b, end, full, ""));
  locals_finish_lanes(c);
  close_vector(c);
  if (b->narrow) emit_counted(c, full, end, 1, false, scalar_body, (void *)s);
}

/* Sums down columns: each row is far from the one before, and an addition waits for the last one, so that
 * several vectors go down together. */
static bool sums_columns(const Emit *c, const Body *b) {
  enum { MOST_NODES = 48 };
  return b->sums && !b->apart && !b->slices && b->kept > 0 &&
         b->kept * SUMMED <= c->t->vector_regs && b->nodes <= MOST_NODES;
}

void emit_vector(Emit *c, const Stmt *s) {
  int64_t lo, n;
  if (emit_across(c, s)) return;
  const bool fixed_lo = emit_const(c, expr_var_lo(c->pool, s->loop.var->id), &lo);
  const bool fixed = fixed_lo && emit_const(c, expr_var_extent(c->pool, s->loop.var->id), &n);
  c->vvar_multiple = fixed_lo && lo % c->vl == 0 ? c->vl : 1;
  Body b = {.nodes = 0};
  emit_forget(c);
  scan_stmts(c, s->loop.var, s->loop.body, &b);
  emit_forget(c);
  const bool apart = !b.slices && !b.reduces;
  const bool bytes = (apart && (!b.wide || b.groups)) || narrows_tile(c, &b);
  if (fixed && n >= 2 * c->vl && bytes)
    const_wide(c, s, &b, lo, n, target_lanes(c->t, b.groups ? 16 : 8));
  else if (fixed && n >= 2 * c->vl && sums_columns(c, &b))
    const_wide(c, s, &b, lo, n, SUMMED * c->vl);
  else if (fixed && n > 0 && (n >= c->vl || (!b.narrow && n > 1)))
    const_vector(c, s, &b, lo, n);
  else if (fixed && (b.slices || n * b.nodes <= 64))
    scalar_consts(c, s, lo, lo + n);
  else if (fixed)
    emit_serial(c, s, NULL, NULL);
  else
    run_time_vector(c, s, &b);
}
