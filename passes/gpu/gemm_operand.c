/* Operands of matrix products on GPUs: from memory into shared memory, directly
 * where they are copied as they are, else through registers of each thread. Constants are packed in whole tiles, so that
 * nothing asks where they end. */
#include "ir/loop/mma.h"
#include "passes/build/nest.h"
#include "passes/gpu/gemm.h"
#include "passes/gpu/tile_load.h"

#include <string.h>

/* ---- elements ---- */

/* Sets c->k to what element kk of step `step` is. */
static const Expr *set_k(Gemm *g, const Expr *step, const Expr *kk) {
  Contract *const c = g->c;
  const int last = c->n_k - 1;
  const Expr *const flat = ex_add(g->p, gemm_scaled(g, step, g->tile.k), kk);
  if (last == 0) {
    c->k[0] = flat;
  } else if (g->nested) {
    const Expr *outer[MAX_K];
    for (int i = 0; i < last; i++) outer[i] = g->extent[i];
    outer[last] = ex_floordiv(g->p, g->extent[last], gemm_num(g, g->tile.k));
    nest_indices(g->p, step, c->n_k, outer, c->k);
    c->k[last] = ex_add(g->p, gemm_scaled(g, c->k[last], g->tile.k), kk);
  } else {
    nest_indices(g->p, flat, c->n_k, g->extent, c->k);
  }
  return flat;
}

static const Expr *element_at(Gemm *g, const Operand *o, const Expr *line) {
  return o->is_b ? g->c->b_direct(g->c, line) : g->c->a(g->c, gemm_num(g, 0), line);
}

static float rounded_constant(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7f800000) == 0x7f800000) return x;
  bits = (bits + TF32_HALF) & ~(uint32_t)(2 * TF32_HALF - 1);
  memcpy(&x, &bits, sizeof bits);
  return x;
}

/* e where `inside` holds, else 0, and no access there. */
static const Expr *guarded(Gemm *g, const Operand *o, const Expr *inside, const Expr *line) {
  KernelExpr *const x = &g->c->b.x;
  int64_t always = 0;
  if (expr_is_const(inside, &always) && always) return element_at(g, o, line);
  const Expr *const around = x->guard;
  x->guard = inside;
  const Expr *const e = element_at(g, o, line);
  x->guard = around;
  return tile_keeps_zero(e) ? e : ex_select(g->p, inside, e, ex_const(g->p, (DType)e->dtype, 0));
}

/* ---- constants in the order of tiles ---- */

typedef struct Strides {
  int64_t base, outer, k[MAX_K], column;
} Strides;

static bool stride_of(Gemm *g, const Expr **at, const Expr *var, int64_t *stride) {
  const Expr *coeff, *rest;
  if (!expr_affine(g->p, *at, var, &coeff, &rest) || !expr_is_const(coeff, stride)) return false;
  *at = rest;
  return true;
}

/* Where a weight lies; NULL: it is computed, or no plain function of the
 * indices. */
static const ConstData *constant_of(Gemm *g, StandIns *places, Strides *s) {
  Contract *const c = g->c;
  const Expr *const column = ex_var(g->p, "n", c->n);
  const Expr *var[MAX_K];
  const Expr *const outer = c->outer[0];
  const Expr *const any = c->n_outer ? ex_var(g->p, "o", c->outer_extent[0]) : outer;
  for (int i = 0; i < c->n_k; i++) c->k[i] = var[i] = ex_var(g->p, "k", g->extent[i]);
  c->outer[0] = any;
  const Expr *e = c->b_direct(c, column);
  c->outer[0] = outer;
  while (e->op == EX_cast) e = e->a[0];
  const bool known = e->op == EX_LOAD && !e->a[1] && e->id < places->n && places->values[e->id];
  if (!known || !places->values[e->id]->cdata) return NULL;
  const ConstData *const data = places->values[e->id]->cdata;
  const Expr *at = e->a[0];
  bool ok = stride_of(g, &at, column, &s->column);
  for (int i = 0; ok && i < c->n_k; i++) ok = stride_of(g, &at, var[i], &s->k[i]);
  if (ok && c->n_outer) ok = c->n_outer == 1 && stride_of(g, &at, any, &s->outer);
  return ok && expr_is_const(at, &s->base) ? data : NULL;
}

/* The same, asked of places that values do not really have: the program is not to hold weights that
 * nobody reads as they are. */
static const ConstData *find_constant(Gemm *g, Strides *s) {
  Contract *const c = g->c;
  const KernelExpr own = c->b.x;
  StandIns places;
  Arena *const scratch = arena_child(c->l->m->arena);
  stand_ins_init(&places, c->l->m, scratch);
  kernel_expr_init(&c->b.x, c->l->m, stand_in, &places);
  const ConstData *const data = constant_of(g, &places, s);
  c->b.x = own;
  arena_free(scratch);
  return data;
}

static int64_t constant(const Expr *e) {
  int64_t n = 0;
  expr_is_const(e, &n);
  return n;
}

/* Element (k, column) goes to k*columns + column, or to column*ks + k. */
static void copy_matrix(const Gemm *g, const Operand *o, const ConstData *w, const Strides *s,
                        int64_t base, char *to) {
  const int64_t ks = constant(o->packed_k), columns = constant(o->packed_n);
  const int64_t total = constant(g->total), n = constant(g->c->n);
  const int size = dtype_bytes(w->dtype), to_size = dtype_bytes(o->type);
  for (int64_t k = 0; k < total; k++) {
    int64_t at = base, rest = k;
    for (int i = g->c->n_k - 1; i >= 0; i--) {
      const int64_t extent = constant(g->extent[i]);
      at += rest % extent * s->k[i];
      rest /= extent;
    }
    for (int64_t j = 0; j < n; j++) {
      const char *const from = (const char *)w->data + (at + j * s->column) * size;
      char *const dest = to + (o->lines_of_k ? k * columns + j : j * ks + k) * to_size;
      if (g->kind == TILE_TF32)
        dtype_store_f(DT_F32, dest, rounded_constant((float)dtype_load_f(w->dtype, from)));
      else if (w->dtype == o->type)
        memcpy(dest, from, (size_t)size);
      else
        dtype_store_f(o->type, dest, dtype_load_f(w->dtype, from));
    }
  }
}

/* Constants are packed in whole tiles, for each group. */
static void pack(Gemm *g, Operand *o) {
  Contract *const c = g->c;
  Strides s = {0};
  int64_t groups = 1, size, all;
  const ConstData *const w = find_constant(g, &s);
  if (!w || !constant(g->total) || !constant(c->n)) return;
  if (s.outer && !expr_is_const(c->outer_extent[0], &groups)) return;
  const int64_t ks = (constant(g->total) + g->tile.k - 1) / g->tile.k * g->tile.k;
  const int64_t columns =
      (constant(c->n) + g->tile.columns - 1) / g->tile.columns * g->tile.columns;
  if (!ck_mul(ks, columns, &size) || !ck_mul(size, groups, &all) || all > INT32_MAX) return;
  o->packed_k = gemm_num(g, ks);
  o->packed_n = gemm_num(g, columns);
  o->packed_outer = s.outer ? size : 0;
  char *const data = arena_alloc(c->l->m->arena, (size_t)(all * dtype_bytes(o->type)) + 1);
  memset(data, 0, (size_t)(all * dtype_bytes(o->type)));
  for (int64_t i = 0; i < groups; i++)
    copy_matrix(g, o, w, &s, s.base + i * s.outer, data + i * size * dtype_bytes(o->type));
  o->packed = contract_weights(c->l, const_new(c->l->m, w->name, o->type, 1, &all, data));
  o->along_k = !o->lines_of_k;
}

static const Expr *packed_element(Gemm *g, const Operand *o, const Expr *k, const Expr *column) {
  KernelBuild *const b = &g->c->b;
  const int id = kb_param(b, o->packed, NULL, PA_READ);
  const Expr *at = o->lines_of_k ? ex_add(g->p, ex_mul(g->p, k, o->packed_n), column)
                                 : ex_add(g->p, ex_mul(g->p, column, o->packed_k), k);
  if (o->packed_outer) at = ex_add(g->p, at, gemm_scaled(g, g->c->outer[0], o->packed_outer));
  return ex_load(g->p, o->type, id, at, NULL);
}

/* ---- how a tile is read ---- */

static bool follows(Gemm *g, const Expr *e, const Expr *var) {
  const Expr *coeff, *rest;
  while (e->op == EX_cast || e->op == EX_bits) e = e->a[0];
  return e->op == EX_LOAD && expr_affine(g->p, e->a[0], var, &coeff, &rest) &&
         expr_is_i64(coeff, 1);
}

/* Whether elements that follow each other in memory do so in k; else rows are taken: their part of the
 * index is worked out once. */
static bool reads_along_k(Gemm *g, const Operand *o) {
  Contract *const c = g->c;
  for (int i = 0; i < c->n_k; i++) c->k[i] = ex_var(g->p, "k", g->extent[i]);
  const Expr *const e =
      element_at(g, o, ex_var(g->p, o->is_b ? "n" : "m", o->is_b ? c->n : c->rows_w));
  return follows(g, e, c->k[c->n_k - 1]);
}

/* Place (line, k) of element v of read i of a thread. first: that of v = 0. */
typedef struct Spot {
  const Expr *line, *k, *first_line, *first_k;
} Spot;

static Spot spot_of(const Gemm *g, const Operand *o, const Threads *t, const Expr *i,
                    const Expr *v) {
  const Expr *const thread = ex_add(g->p, gemm_scaled(g, t->warp, WARP_LANES), t->lane);
  const Expr *const n = ex_add(g->p, gemm_scaled(g, i, (int64_t)g->warps * WARP_LANES), thread);
  const int across = (o->along_k ? g->tile.k : o->extent) / o->width;
  const Expr *const slow = ex_floordiv(g->p, n, gemm_num(g, across));
  const Expr *const fast = gemm_scaled(g, ex_floormod(g->p, n, gemm_num(g, across)), o->width);
  const Expr *const at = ex_add(g->p, fast, v);
  if (o->spread) {
    const Expr *const line =
        ex_add(g->p, ex_floormod(g->p, n, gemm_num(g, across)), gemm_scaled(g, v, across));
    return (Spot){line, slow, line, slow};
  }
  return o->along_k ? (Spot){slow, at, slow, fast} : (Spot){at, slow, fast, slow};
}

static const Expr *spot_value(Gemm *g, const Operand *o, const Spot *s, const Expr *v,
                              const Expr *step) {
  const Expr *const origin = o->is_b ? g->column : g->row;
  const Expr *const extent = o->is_b ? g->c->n : g->c->rows_w;
  const Expr *const line = ex_add(g->p, origin, s->line), *zero = gemm_num(g, 0);
  const Expr *const first = ex_add(g->p, origin, s->first_line);
  const Expr *const k = set_k(g, step, s->k);
  if (o->packed >= 0) return packed_element(g, o, k, line);
  const Expr *const first_k = ex_add(g->p, gemm_scaled(g, step, g->tile.k), s->first_k);
  const int wide = o->along_k ? o->width : 1, high = o->along_k || o->spread ? 1 : o->width;
  const Expr *inside = tile_below(g->p, first, o->along_k || o->spread ? zero : v, high, extent);
  if (!g->nested)
    inside = ex_and(g->p, inside, tile_below(g->p, first_k, o->along_k ? v : zero, wide, g->total));
  return tile_stored(g->p, o->type, guarded(g, o, inside, line));
}

/* Whether lines that follow each other do not do so in memory. */
static bool is_spread(Gemm *g, const Operand *o) {
  if (o->along_k || o->packed >= 0) return false;
  const Threads t = gemm_threads(g);
  const Expr *const v = ex_var(g->p, "v", gemm_num(g, o->width));
  const Spot s = spot_of(g, o, &t, gemm_num(g, 0), v);
  return !follows(g, spot_value(g, o, &s, v, ex_var(g->p, "step", g->steps)), v);
}

/* Whether what a thread reads together is a copy of 16 aligned bytes into neighbours of a line. */
static bool is_direct(Gemm *g, const Operand *o) {
  enum { BYTES = 16 };
  if (o->along_k == o->lines_of_k || o->width * dtype_bytes(o->type) != BYTES) return false;
  const Threads t = gemm_threads(g);
  const Expr *const v = ex_var(g->p, "v", gemm_num(g, o->width));
  const Spot s = spot_of(g, o, &t, gemm_num(g, 0), v);
  const Expr *const e = spot_value(g, o, &s, v, ex_var(g->p, "step", g->steps));
  return tile_copies(g->c->b.k, g->p, e, v, o->type);
}

void gemm_operand(Gemm *g, Operand *o) {
  const int threads = g->warps * WARP_LANES, elements = o->extent * g->tile.k;
  o->lines_of_k = g->kind == TILE_F32;
  o->pitch = (o->lines_of_k ? o->extent : g->tile.k) + gpu_tile_pad(g->kind);
  o->packed = o->held = -1;
  if (o->is_b) pack(g, o);
  if (o->packed < 0) o->along_k = reads_along_k(g, o);
  o->width = 16 / gpu_tile_bytes(g->kind);
  while (elements % (threads * o->width)) o->width /= 2;
  o->reads = elements / (threads * o->width);
  o->spread = is_spread(g, o);
  o->direct = is_direct(g, o);
}

void gemm_operand_locals(Gemm *g, Operand *o) {
  const int64_t lines = o->lines_of_k ? g->tile.k : o->extent;
  const bool late = g->op[0].direct || g->op[1].direct;
  Kernel *const k = g->c->b.k;
  Module *const m = g->c->l->mod;
  o->shared = kernel_add_local(m, k,
                               (Local){.name = o->is_b ? "b" : "a",
                                       .dtype = o->type,
                                       .count = g->stages * lines * o->pitch,
                                       .memory = MEM_SHARED,
                                       .late = late ? g->stages - 1 : 0});
  if (o->direct) return;
  o->held = kernel_add_local(m, k,
                             (Local){.name = "next",
                                     .dtype = o->type,
                                     .count = (int64_t)o->reads * o->width,
                                     .memory = o->type == DT_F32 ? MEM_REGS : MEM_STACK});
}

static const Expr *held_index(const Gemm *g, const Operand *o, const Expr *i, const Expr *v) {
  return ex_add(g->p, gemm_scaled(g, i, o->width), v);
}

Stmt *gemm_bring(Gemm *g, const Operand *o, const Threads *t, const Expr *step, const Expr *stage) {
  const Expr *const i = ex_var(g->p, "i", gemm_num(g, o->reads));
  const Expr *const v = ex_var(g->p, "v", gemm_num(g, o->width));
  const Spot s = spot_of(g, o, t, i, v);
  const Expr *const value = spot_value(g, o, &s, v, step);
  Stmt *const set =
      o->direct ? stmt_set(g->a, o->shared, gemm_shared_index(g, o, stage, s.line, s.k), value)
                : stmt_set(g->a, o->held, held_index(g, o, i, v), value);
  return stmt_for(g->a, FOR_UNROLL, i, stmt_for(g->a, FOR_VECTOR, v, set));
}

const Expr *gemm_shared_index(const Gemm *g, const Operand *o, const Expr *stage, const Expr *line,
                              const Expr *k) {
  const int64_t lines = o->lines_of_k ? g->tile.k : o->extent;
  const Expr *const at = o->lines_of_k ? ex_add(g->p, gemm_scaled(g, k, o->pitch), line)
                                       : ex_add(g->p, gemm_scaled(g, line, o->pitch), k);
  return ex_add(g->p, gemm_scaled(g, stage, lines * o->pitch), at);
}

Stmt *gemm_put(Gemm *g, const Operand *o, const Threads *t, const Expr *stage) {
  if (o->direct) return NULL;
  const Expr *const i = ex_var(g->p, "i", gemm_num(g, o->reads));
  const Expr *const v = ex_var(g->p, "v", gemm_num(g, o->width));
  const Spot s = spot_of(g, o, t, i, v);
  const Expr *e = ex_local(g->p, o->type, o->held, held_index(g, o, i, v));
  if (g->kind == TILE_TF32 && o->packed < 0) e = mma_tf32(g->p, e);
  Stmt *const set = stmt_set(g->a, o->shared, gemm_shared_index(g, o, stage, s.line, s.k), e);
  return stmt_for(g->a, FOR_UNROLL, i, stmt_for(g->a, FOR_VECTOR, v, set));
}
