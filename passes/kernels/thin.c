/* Convolutions with few output channels, where columns of a tile (contract.h) would stay empty.
 * Lanes run over input channels, summed up at the end, when those are many and lie next to each
 * other; over output pixels of a line when the stride is one and channels are few, with scalar
 * weights. Remainders of a line are blocks of their own, chosen at run time where its length is
 * symbolic. */
#include <string.h>

#include "passes/build/nest.h"
#include "passes/kernels/contract.h"
#include "passes/tiles/own_loops.h"

typedef struct Thin {
  Lower *l;
  ExprPool *p;
  KernelBuild b;
  const Value *root, *anchor;
  const Place *to, *x_place;
  ConvInfo conv;
  Axis axis[MAX_SPATIAL];
  int lanes;
  PlanLoops loops;                    /* strips, or lines and vectors */
  const Expr *batch, *q[MAX_SPATIAL]; /* current position; the last two are set by the tile */
  const Expr *tap[MAX_SPATIAL];
  const Expr *width; /* pixels of a line */
  const Expr *limit; /* pixels from here on are not read; NULL: all are there */
  int weights;       /* module buffer */
  bool by_channel;
} Thin;

static const Expr *num(const Thin *d, int64_t v) { return ex_i64(d->p, v); }
static const Expr *plus(const Thin *d, const Expr *a, const Expr *b) { return ex_add(d->p, a, b); }
static const Expr *times(const Thin *d, const Expr *a, int64_t k) {
  return ex_mul(d->p, a, num(d, k));
}
static int last(const Thin *d) { return d->conv.spatial - 1; }

static int64_t tap_count(const Thin *d) {
  int64_t n = 1;
  for (int s = 0; s < d->conv.spatial; s++) n *= d->conv.kernel[s];
  return n;
}

/* Weights as f32 in the order in which they are read: [taps][out][in] by channel, else
 * [in][taps][out]. */
static int pack_weights(Thin *d) {
  const ConstData *const w = d->anchor->def->in[1]->cdata;
  const int64_t taps = tap_count(d), in = d->conv.c_in, out = d->conv.c_out;
  float *const f = ARENA_ARRAY(d->l->m->arena, float, taps *in *out);
  for (int64_t o = 0; o < out; o++)
    for (int64_t c = 0; c < in; c++)
      for (int64_t t = 0; t < taps; t++)
        f[d->by_channel ? (t * out + o) * in + c : (c * taps + t) * out + o] =
            (float)const_float(w, (o * in + c) * taps + t);
  const int64_t count = taps * in * out;
  const ConstData *const data = const_new(d->l->m, NULL, DT_F32, 1, &count, f);
  return contract_weights(d->l, data);
}

static const Expr *flat_tap(const Thin *d) {
  const Expr *t = num(d, 0);
  for (int s = 0; s < d->conv.spatial; s++) t = plus(d, times(d, t, d->conv.kernel[s]), d->tap[s]);
  return t;
}

static const Expr *weight(Thin *d, const Expr *channel, const Expr *out) {
  const int64_t taps = tap_count(d);
  const Expr *const at =
      d->by_channel
          ? plus(d, times(d, plus(d, times(d, flat_tap(d), d->conv.c_out), out), d->conv.c_in),
                 channel)
          : plus(d, times(d, plus(d, times(d, channel, taps), flat_tap(d)), d->conv.c_out), out);
  return ex_load(d->p, DT_F32, kb_param(&d->b, d->weights, NULL, PA_READ), at, NULL);
}

static const Expr *pixel(Thin *d, const Expr *channel) {
  const Expr *idx[MAX_RANK] = {d->batch, channel};
  for (int s = 0; s < d->conv.spatial; s++) {
    const Axis *const a = &d->axis[s];
    idx[2 + s] =
        plus(d, times(d, d->q[s], a->is), plus(d, num(d, a->ib), times(d, d->tap[s], a->dk)));
  }
  const int id = kb_param(&d->b, d->x_place->buffer, d->x_place->offset, PA_READ);
  const DType t = d->l->mod->buffers.data[d->x_place->buffer].dtype;
  const int rank = d->anchor->def->in[0]->rank;
  const Expr *const guard = d->limit ? ex_lt(d->p, d->q[last(d)], d->limit) : NULL;
  return ex_cast(d->p, DT_F32,
                 ex_load(d->p, t, id, place_index(d->p, d->x_place, rank, idx), guard));
}

/* root's element at the current position of output channel `out`, stored. */
static Stmt *store(Thin *d, const Expr *out, const Expr *sum) {
  const Expr *idx[MAX_RANK] = {d->batch, out};
  for (int s = 0; s < d->conv.spatial; s++) idx[2 + s] = d->q[s];
  sum = kb_conv_bias(&d->b, d->anchor, idx, sum);
  const Expr *const v = kb_epilogue(&d->b, d->root, d->anchor, idx, sum);
  const int target = kb_param(&d->b, d->to->buffer, d->to->offset, PA_WRITE);
  return stmt_store(d->l->m->arena, target, place_index(d->p, d->to, d->root->rank, idx), v);
}

static Stmt *loop(Thin *d, ForKind kind, const Expr *var, Stmt *body) {
  return stmt_for(d->l->m->arena, kind, var, body);
}

/* body inside serial loops over all taps */
static Stmt *over_taps(Thin *d, Stmt *body) {
  for (int s = last(d); s >= 0; s--)
    if (d->tap[s]->op == EX_VAR)
      body = loop(d, s == last(d) && d->conv.kernel[s] <= 4 ? FOR_UNROLL : FOR_SERIAL, d->tap[s],
                  body);
  return body;
}
static void new_taps(Thin *d) {
  for (int s = 0; s < d->conv.spatial; s++)
    d->tap[s] = d->conv.kernel[s] == 1 ? num(d, 0) : ex_var(d->p, "k", num(d, d->conv.kernel[s]));
}

static int tile_local(Thin *d, const char *name, int64_t count, bool stack) {
  return kernel_add_local(
      d->l->mod, d->b.k,
      (Local){
          .name = name, .dtype = DT_F32, .count = count, .memory = stack ? MEM_STACK : MEM_REGS});
}

/* t[i*width + j] = 0 for i < n and lanes j < width */
static Stmt *clear(Thin *d, int t, int64_t n, int64_t width) {
  const Expr *const i = ex_var(d->p, "r", num(d, n)), *const j = ex_var(d->p, "j", num(d, width));
  Stmt *const set =
      stmt_set(d->l->m->arena, t, plus(d, times(d, i, width), j), ex_float(d->p, DT_F32, 0));
  return loop(d, FOR_UNROLL, i, loop(d, FOR_VECTOR, j, set));
}

/* ---- lanes over input channels ---- */
/* t[(r*out + o)*lanes + j] += x[pixel r, channel] * w[o, channel] for `width` channels from c0. */
static Stmt *channel_step(Thin *d, int t, const Expr *w0, int rows, const Expr *c0, int64_t width) {
  const int64_t out = d->conv.c_out;
  const Expr *const r = ex_var(d->p, "r", num(d, rows)), *const o = ex_var(d->p, "o", num(d, out));
  const Expr *const j = ex_var(d->p, "j", num(d, width)), *const c = plus(d, c0, j);
  d->q[last(d)] = plus(d, w0, r);
  const Expr *const at = plus(d, times(d, plus(d, times(d, r, out), o), d->lanes), j);
  const Expr *const sum =
      ex_op(d->p, EX_fma, pixel(d, c), weight(d, c, o), ex_local(d->p, DT_F32, t, at));
  Stmt *const set = stmt_set(d->l->m->arena, t, at, sum);
  return loop(d, FOR_UNROLL, r, loop(d, FOR_UNROLL, o, loop(d, FOR_VECTOR, j, set)));
}

static Stmt *channel_strip(void *user, const Expr *w0, int rows) {
  Thin *d = user;
  Arena *const a = d->l->m->arena;
  const int64_t out = d->conv.c_out, n = rows * out, full = d->conv.c_in / d->lanes,
                rest = d->conv.c_in % d->lanes;
  const int t = tile_local(d, "t", n * d->lanes, false), s = tile_local(d, "s", n, true);
  StmtList list = {0}, steps = {0};
  stmt_add(&list, stmt_local(a, t));
  stmt_add(&list, clear(d, t, n, d->lanes));
  new_taps(d);
  const Expr *const cc = ex_var(d->p, "c", num(d, full));
  stmt_add(&steps,
           loop(d, FOR_SERIAL, cc, channel_step(d, t, w0, rows, times(d, cc, d->lanes), d->lanes)));
  if (rest) stmt_add(&steps, channel_step(d, t, w0, rows, num(d, full * d->lanes), rest));
  stmt_add(&list, over_taps(d, steps.first));
  stmt_add(&list, stmt_local(a, s));
  const Expr *const z = ex_var(d->p, "r", num(d, n)), *const i = ex_var(d->p, "r", num(d, n));
  const Expr *const j = ex_var(d->p, "j", num(d, d->lanes)), *const r =
                                                                 ex_var(d->p, "r", num(d, rows));
  const Expr *const o = ex_var(d->p, "o", num(d, out));
  stmt_add(&list, loop(d, FOR_UNROLL, z, stmt_set(a, s, z, ex_float(d->p, DT_F32, 0))));
  const Expr *const lane = ex_local(d->p, DT_F32, t, plus(d, times(d, i, d->lanes), j));
  stmt_add(&list, loop(d, FOR_VECTOR, j, loop(d, FOR_UNROLL, i, stmt_acc(a, s, i, RED_SUM, lane))));
  d->q[last(d)] = plus(d, w0, r);
  Stmt *const st = store(d, o, ex_local(d->p, DT_F32, s, plus(d, times(d, r, out), o)));
  stmt_add(&list, loop(d, FOR_VECTOR, r, loop(d, FOR_UNROLL, o, st)));
  return list.first;
}

static Stmt *channel_line(Thin *d) {
  return nest_strips(&d->b, d->width, d->loops.width, channel_strip, d);
}

/* ---- lanes over pixels ---- */
/* Lane j of the accumulators t of output o of line r, `room` lanes apart. */
static const Expr *pixel_sum(Thin *d, int t, const Expr *r, const Expr *o, int64_t room,
                             const Expr *j) {
  return ex_local(d->p, DT_F32, t,
                  plus(d, times(d, plus(d, times(d, r, d->conv.c_out), o), room), j));
}

static int64_t room_of(const Thin *d, int64_t width) {
  return (width + d->lanes - 1) / d->lanes * d->lanes;
}

/* The sums of `rows` lines from h0 and `width` pixels from w0: a local. */
static int pixel_sums(Thin *d, StmtList *list, const Expr *h0, int rows, const Expr *w0,
                      int64_t width) {
  Arena *const a = d->l->m->arena;
  const int64_t out = d->conv.c_out, room = room_of(d, width);
  const int t = tile_local(d, "t", rows * out * room, false);
  stmt_add(list, stmt_local(a, t));
  stmt_add(list, clear(d, t, rows * out, room));
  const Expr *const r = ex_var(d->p, "r", num(d, rows)), *const o = ex_var(d->p, "o", num(d, out));
  const Expr *const j = ex_var(d->p, "j", num(d, width)), *const c = ex_var(d->p, "c",
                                                                            num(d, d->conv.c_in));
  const Expr *const old = pixel_sum(d, t, r, o, room, j);
  d->q[last(d)] = plus(d, w0, j);
  if (last(d) > 0) d->q[last(d) - 1] = plus(d, h0, r);
  new_taps(d);
  const Expr *const sum = ex_op(d->p, EX_fma, pixel(d, c), weight(d, c, o), old);
  Stmt *const set = stmt_set(a, t, old->a[0], sum);
  Stmt *const tile = loop(d, FOR_UNROLL, r, loop(d, FOR_UNROLL, o, loop(d, FOR_VECTOR, j, set)));
  stmt_add(list, loop(d, FOR_SERIAL, c, over_taps(d, tile)));
  return t;
}

static Stmt *pixel_block(Thin *d, const Expr *h0, int rows, const Expr *w0, int64_t width) {
  StmtList list = {0};
  const int t = pixel_sums(d, &list, h0, rows, w0, width);
  const Expr *const r = ex_var(d->p, "r", num(d, rows)),
                    *const o = ex_var(d->p, "o", num(d, d->conv.c_out)),
                    *const j = ex_var(d->p, "j", num(d, width));
  d->q[last(d)] = plus(d, w0, j);
  if (last(d) > 0) d->q[last(d) - 1] = plus(d, h0, r);
  Stmt *const st = store(d, o, pixel_sum(d, t, r, o, room_of(d, width), j));
  stmt_add(&list, loop(d, FOR_UNROLL, r, loop(d, FOR_UNROLL, o, loop(d, FOR_VECTOR, j, st))));
  return list.first;
}

/* One vector of pixels from w0, of which `count` from lane `first` on are stored. */
static Stmt *pixel_tail(Thin *d, const Expr *h0, const Expr *w0, const Expr *first,
                        const Expr *count) {
  Arena *const a = d->l->m->arena;
  StmtList list = {0};
  const int t = pixel_sums(d, &list, h0, 1, w0, d->lanes),
            s = tile_local(d, "s", d->conv.c_out * d->lanes, true);
  const Expr *const zero = num(d, 0), *const j0 = ex_var(d->p, "j", num(d, d->lanes));
  const Expr *const o0 = ex_var(d->p, "o", num(d, d->conv.c_out)), *const o = ex_var(
                                                                       d->p, "o",
                                                                       num(d, d->conv.c_out));
  const Expr *const j = ex_var(d->p, "j", count), *const lane = plus(d, first, j);
  const Expr *const from = pixel_sum(d, t, zero, o0, d->lanes, j0);
  stmt_add(&list, stmt_local(a, s));
  stmt_add(&list,
           loop(d, FOR_UNROLL, o0, loop(d, FOR_VECTOR, j0, stmt_set(a, s, from->a[0], from))));
  d->q[last(d)] = plus(d, w0, lane);
  if (last(d) > 0) d->q[last(d) - 1] = h0;
  Stmt *const st = store(d, o, pixel_sum(d, s, zero, o, d->lanes, lane));
  stmt_add(&list, loop(d, FOR_UNROLL, o, loop(d, FOR_VECTOR, j, st)));
  return list.first;
}

/* then or otherwise; the one that is taken, where that is known: the other may not even be right.
 */
static Stmt *branch(Thin *d, const Expr *cond, Stmt *then, Stmt *otherwise) {
  int64_t known;
  if (expr_is_const(cond, &known)) return known ? then : otherwise;
  return stmt_if(d->l->m->arena, cond, then, otherwise);
}

/* What blocks of `vectors` leave of a line of symbolic length: fewer vectors, then some lanes. The
 * last vector overlaps its neighbour; in a line shorter than a vector it is masked. */
static Stmt *pixel_rest(Thin *d, const Expr *h0, const Expr *done, int64_t vectors) {
  const Expr *const lanes = num(d, d->lanes), *const rest = ex_sub(d->p, d->width, done);
  const Expr *const count = ex_floormod(d->p, d->width, lanes);
  Stmt *some = NULL, *whole, *part;
  for (int64_t v = 1; v < vectors; v++)
    some = branch(d, ex_le(d->p, num(d, v * d->lanes), rest),
                  pixel_block(d, h0, 1, done, v * d->lanes), some);
  if (expr_is_i64(count, 0)) return some;
  whole = pixel_tail(d, h0, ex_sub(d->p, d->width, lanes), ex_sub(d->p, lanes, count), count);
  d->limit = d->width;
  part = pixel_tail(d, h0, num(d, 0), num(d, 0), d->width);
  d->limit = NULL;
  StmtList list = {0};
  stmt_add(&list, some);
  stmt_add(&list, branch(d, ex_lt(d->p, num(d, 0), count),
                         branch(d, ex_le(d->p, lanes, d->width), whole, part), NULL));
  return list.first;
}

static Stmt *pixel_line(Thin *d, const Expr *h0, int rows) {
  const int64_t vectors = d->loops.vectors, block = vectors * d->lanes;
  int64_t width;
  const Expr *const full = ex_floordiv(d->p, d->width, num(d, block)),
                    *const w = ex_var(d->p, "w", full), *const done = times(d, full, block);
  StmtList list = {0};
  if (!expr_is_i64(full, 0))
    stmt_add(&list, loop(d, FOR_SERIAL, w, pixel_block(d, h0, rows, times(d, w, block), block)));
  if (!expr_is_const(d->width, &width))
    stmt_add(&list, pixel_rest(d, h0, done, vectors));
  else if (width % block)
    stmt_add(&list, pixel_block(d, h0, rows, done, width % block));
  return list.first;
}

/* ---- when ---- */

static bool choose_lanes(Thin *d) {
  const ConvInfo *const conv = &d->conv;
  if (conv->transposed || conv->group != 1 || conv->spatial > 3 || expr_is_i64(d->width, 0))
    return false;
  const int lanes = d->anchor->def->plan->lanes;
  const Expr *const in = d->x_place->stride[2 + last(d)], *const out = d->to->stride[2 + last(d)];
  d->by_channel = (lanes & LANES_CHANNELS) && expr_is_i64(d->x_place->stride[1], 1);
  return d->by_channel || (expr_is_i64(in, 1) && expr_is_i64(out, 1) && (lanes & LANES_PIXELS));
}

/* Those of the plan; others where the image does not lie as they were made for. */
static void choose_loops(Thin *d) {
  d->loops = plan_loops(d->anchor->def->plan, 0);
  if (d->by_channel != (d->loops.width > 0) || !d->anchor->def->plan->n_loops)
    d->loops = thin_choose_loops(d->l->c, &d->conv, d->axis, d->by_channel);
}

/* ---- the kernel ---- */
Step *lower_thin(Lower *l, const Value *root, const Value *anchor, const Place *to,
                 const ConvInfo *conv, const Place *x_place) {
  Thin d;
  memset(&d, 0, sizeof d);
  d.l = l;
  d.p = l->p;
  d.root = root;
  d.anchor = anchor;
  d.to = to;
  d.x_place = x_place;
  d.conv = *conv;
  d.lanes = target_lanes(l->c->target, 32);
  if (!x_place || conv->transposed || !conv_beyond_tiles(anchor->def)) return NULL;
  conv_axes(l->m, anchor->def, conv, 0, d.axis);
  d.width = d.axis[last(&d)].rows;
  if (!choose_lanes(&d)) return NULL;
  choose_loops(&d);
  kb_begin(&d.b, l, root, "thin");
  d.weights = pack_weights(&d);
  const int n = conv->spatial, rows = d.loops.high;
  const Expr *extent[MAX_SPATIAL] = {root->dims[0]}, *index[MAX_SPATIAL], *total = root->dims[0];
  for (int s = 0; s + 1 < n; s++) {
    extent[1 + s] = ex_floordiv(d.p, d.axis[s].rows, num(&d, s == n - 2 ? rows : 1));
    total = ex_mul(d.p, total, extent[1 + s]);
  }
  const Expr *const par = ex_var(d.p, "p", total);
  nest_indices(d.p, par, n, extent, index);
  d.batch = index[0];
  for (int s = 0; s + 1 < n; s++) d.q[s] = index[1 + s];
  const Expr *const h0 = n < 2 ? num(&d, 0) : times(&d, d.q[n - 2], rows);
  Stmt *const body = d.by_channel ? channel_line(&d) : pixel_line(&d, h0, rows);
  const double parts = expr_extent_guess(d.p, total);
  d.b.k->flops =
      times(&d, ex_mul(d.p, total, d.width), 2 * rows * tap_count(&d) * conv->c_in * conv->c_out);
  const int by = d.by_channel ? LANES_CHANNELS : LANES_PIXELS;
  const double pixels = parts * rows * expr_extent_guess(d.p, d.width);
  const double cycles = pixels * thin_cycles(l->c->target, conv, by);
  kb_estimate(&d.b, "thin", cycles);
  return kb_finish(&d.b, nest_parallel(&d.b, par, body, cycles));
}
