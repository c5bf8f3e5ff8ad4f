/* Chains of convolutions over strips of rows: expand → depthwise → project and the like. What lies
 * between two convolutions of a chain is not stored whole: a thread goes down the image, a few rows
 * of the last convolution at a time, and keeps of the others as many rows as these read, in rings
 * that stay in a cache. Nothing is computed twice but the first rows of each thread's part.
 * Sliding window and storage folding as in Halide (Ragan-Kelley et al., PLDI 2013); for chains of
 * convolutions: Alwani et al., Fused-layer CNN accelerators, MICRO 2016.
 *
 * Each stage is emitted by its own template (lower_conv_lines, lower_depthwise_lines). Which chains
 * are worth it is a comparison of cycles: memory traffic saved against work done again. */
#include "passes/build/kernel.h"
#include "passes/choose/choice.h"
#include "passes/choose/machine_model.h"
#include "passes/kernels/contract.h"

#include <string.h>

enum { MAX_STAGES = 6, MAX_STEP = 4 };

/* One convolution with its epilogue, or a MaxPool, described as a depthwise convolution. Rows [m*y
 * + lo, m*y + hi) of it are needed for row y of the last stage, as far as they exist. */
typedef struct Stage {
  const Value *root, *anchor;
  ConvInfo ci;
  bool max; /* MaxPool */
  int64_t m, lo, hi;
  double work;    /* cycles of the whole */
  double weights; /* bytes */
  Place ring;     /* what it writes; of the last stage: unused */
} Stage;

typedef struct Chain {
  Lower *l;
  ExprPool *p;
  KernelBuild b;
  Stage stage[MAX_STAGES]; /* in order of execution */
  int n;
  int step;      /* rows of the last stage at a time */
  int64_t parts; /* parallel parts of an image */
} Chain;

static const Expr *num(const Chain *c, int64_t v) { return ex_i64(c->p, v); }
static const Expr *rows_of(const Stage *s) { return s->root->dims[2]; }
static double guess(const Chain *c, const Expr *e) { return expr_extent_guess(c->p, e); }
static MachineModel machine(const Chain *c) {
  return machine_model(c->l->c->target, DT_F32, c->l->mod->max_threads);
}

/* ---- which convolutions ---- */

static double weight_bytes(const ConvInfo *ci) {
  return 4.0 * (double)ci->c_out * (double)(ci->c_in / ci->group) * (double)ci->kernel[0] *
         (double)ci->kernel[1];
}

/* Cycles of the whole convolution. Lanes that run over channels are filled up. */
static double work_of(const Chain *c, const Value *root, const ConvInfo *ci) {
  const MachineModel m = machine(c);
  const int lanes = target_lanes(c->l->c->target, 32);
  const double vectors = (double)((ci->c_out + lanes - 1) / lanes);
  const double taps = (double)(ci->kernel[0] * ci->kernel[1] * (ci->c_in / ci->group));
  const double pixels = guess(c, root->dims[0]) * guess(c, root->dims[2]) * guess(c, root->dims[3]);
  const double steps = pixels * vectors * taps;
  /* a depthwise step of a strip loads two vectors for each multiplication */
  return ci->group > 1 ? model_loads(&m, 2 * steps) : model_fmas(&m, steps);
}

/* A MaxPool of float32 over two dimensions. Its window's reach is known from pads or from sizes. */
static bool pool_of(const Chain *c, const Value *root, Stage *s) {
  const Node *n = root->def;
  PoolInfo pi;
  int64_t channels, size;
  if (!n || root != n->out[0] || root->rank != 4 || root->dtype != DT_F32 || !pool_info(n, &pi) ||
      pi.kind != POOL_MAX || pi.spatial != 2 || (n->n_out > 1 && n->out[1]) ||
      !expr_is_const(root->dims[1], &channels) || channels < 2)
    return false;
  if (pi.ceil_mode && !(expr_is_const(root->dims[2], &size) && expr_is_const(root->dims[3], &size)))
    return false;
  *s = (Stage){.root = root, .anchor = root, .max = true};
  s->ci = (ConvInfo){.spatial = 2, .group = channels, .c_in = channels, .c_out = channels};
  for (int d = 0; d < 2; d++) {
    s->ci.kernel[d] = pi.kernel[d];
    s->ci.stride[d] = pi.stride[d];
    s->ci.dilation[d] = pi.dilation[d];
    s->ci.pad_lo[d] = pi.pad_lo[d];
    s->ci.pad_hi[d] = pi.pad_hi[d];
  }
  s->work = work_of(c, root, &s->ci);
  return true;
}

static bool stage_of(const Chain *c, const Value *root, Stage *s) {
  const Value *anchor = kernel_anchor(root);
  if (!anchor) return pool_of(c, root, s);
  *s = (Stage){.root = root, .anchor = anchor};
  if (root->rank != 4 || !conv_info(anchor->def, &s->ci)) return false;
  const ConvInfo *ci = &s->ci;
  const Plan *const plan = anchor->def->plan;
  if (!conv_beyond_tiles(anchor->def) || ci->transposed || ci->spatial != 2) return false;
  if (ci->group > 1 ? plan->algorithm != ALG_DEPTHWISE
                    : ci->c_out * 4 <= target_lanes(c->l->c->target, 32)) /* kernels/thin.c */
    return false;
  if (plan->algorithm == ALG_WINOGRAD || plan->skips) return false;
  s->work = work_of(c, root, ci);
  s->weights = weight_bytes(ci);
  return true;
}

/* Nobody but the convolution `reader` reads x, which no one has asked for yet. */
static bool only_reader(const Lower *l, const Value *x, const Node *reader) {
  return !x->inlined && !x->cdata && x->def && x->def->graph == reader->graph &&
         x->dtype == DT_F32 && l->uses->of[x->id].n == 1 && !l->uses->outputs[x->id] &&
         !l->must_dense[x->id] && !lower_is_placed(l, x);
}

/* The longest chain that ends in root. */
static void find_chain(Chain *c, const Value *root) {
  Stage found[MAX_STAGES];
  int n = 0;
  for (const Value *v = root; n < MAX_STAGES && stage_of(c, v, &found[n]);) {
    const Node *reader = found[n++].anchor->def;
    v = reader->in[0];
    if (!only_reader(c->l, v, reader)) break;
  }
  while (n && found[n - 1].max) n--; /* it reads lowest values, no zeros, beyond the border */
  c->n = n;
  for (int i = 0; i < n; i++) c->stage[i] = found[n - 1 - i];
}

/* ---- rows ---- */

/* Which rows stages [from, to] must have for a row of stage `to`. */
static void set_rows(Chain *c, int from, int to) {
  Stage *s = c->stage;
  s[to].m = 1;
  s[to].lo = 0;
  s[to].hi = 1;
  for (int i = to - 1; i >= from; i--) {
    const ConvInfo *ci = &s[i + 1].ci;
    s[i].m = s[i + 1].m * ci->stride[0];
    s[i].lo = s[i + 1].lo * ci->stride[0] - ci->pad_lo[0];
    s[i].hi = (s[i + 1].hi - 1) * ci->stride[0] - ci->pad_lo[0] +
              (ci->kernel[0] - 1) * ci->dilation[0] + 1;
  }
}

/* Rows of stage i that are alive while `step` rows of the last one are made. */
static int64_t ring_rows(const Stage *s, int64_t step) { return s->m * (step - 1) + s->hi - s->lo; }

static int64_t pixel_stride(const Stage *s) {
  return s->ci.c_out + (s->ci.c_out * 4 % 2048 ? 0 : 16);
}

static double ring_bytes(const Chain *c, const Stage *s, int64_t step) {
  return 4.0 * (double)ring_rows(s, step) * guess(c, s->root->dims[3]) * (double)pixel_stride(s);
}

/* Cycles of what `parts` parts of an image compute again at their borders. */
static double again(const Chain *c, int from, int to, double parts) {
  double sum = 0;
  for (int i = from; i < to; i++) {
    const Stage *s = &c->stage[i];
    const double rows = (double)(s->hi - s->lo - s->m) * (parts - 1);
    if (rows > 0) sum += s->work * rows / guess(c, rows_of(s));
  }
  return sum;
}

/* Parts of an image that threads share: as many as are of use to them and cost little more work. */
static int64_t parts_of(const Chain *c, int from, int to) {
  const Stage *last = &c->stage[to];
  const double threads = c->l->mod->max_threads < 8 ? c->l->mod->max_threads : 8;
  const double want = 2 * threads / guess(c, last->root->dims[0]);
  double work = 0;
  for (int i = from; i <= to; i++) work += c->stage[i].work;
  if (threads < 2 || want < 2) return 1;
  for (int64_t n = 16; n > 2; n /= 2)
    if ((double)n <= want && (double)n * 3 <= guess(c, rows_of(last)) &&
        again(c, from, to, (double)n) <= (n > 4 ? 0.02 : 0.05) * work)
      return n;
  return 2;
}

/* ---- profit ---- */

static double bytes_of(const Chain *c, const Value *v) {
  return (double)dtype_bytes(v->dtype) * expr_extent_guess(c->p, value_count(c->p, v));
}

/* Long sums hide a part of the traffic. */
static double hidden(const Stage *s) {
  return s->ci.group == 1 && s->ci.kernel[0] * s->ci.kernel[1] > 1 ? s->work / 4 : 0;
}

/* Cycles saved because what stage s makes stays in a ring. */
static double traffic(const Chain *c, const Stage *s, int64_t step) {
  const MachineModel m = machine(c);
  const double bytes = bytes_of(c, s->root);
  const double all = bytes_of(c, s->anchor->def->in[0]) + bytes + bytes_of(c, s[1].root);
  const double trip = model_trip(model_level(&m, all)),
               inside = model_trip(model_level(&m, ring_bytes(c, s, step)));
  const double cycles = bytes * (trip - inside) - hidden(&s[0]) - hidden(&s[1]);
  return cycles > 0 ? cycles : 0;
}

/* Register tiles of one line: what its remainder, too small to hide latencies, adds per row. */
static double remainder_cycles(const Chain *c, const Stage *s) {
  const Target *t = c->l->c->target;
  const MachineModel m = machine(c);
  const double w = guess(c, s->root->dims[3]);
  const double k = (double)(s->ci.kernel[0] * s->ci.kernel[1] * s->ci.c_in);
  const Tile tile = contract_choose_tile(t, 1, w, false, (double)s->ci.c_out, k);
  const int lanes = target_lanes(t, 32) * tile.vectors;
  const int64_t rest = (int64_t)w % tile.rows;
  const double busy = (double)(rest * tile.vectors);
  const double panels = (double)((s->ci.c_out + lanes - 1) / lanes);
  return rest ? panels * k * (model_chains(&m, busy, 1) - model_fmas(&m, busy)) : 0;
}

/* Cycles saved by making stages [from, to] a chain, `step` rows at a time; below 0: a loss. */
static double gain(Chain *c, int from, int to, int64_t step) {
  const MachineModel m = machine(c);
  const Stage *s = c->stage, *last = &s[to];
  double room = 0, weights = 0, work = 0, sum;
  set_rows(c, from, to);
  sum = -again(c, from, to, (double)parts_of(c, from, to));
  const double images = guess(c, last->root->dims[0]);
  const double steps = images * guess(c, rows_of(last)) / (double)step;
  for (int i = from; i <= to; i++) {
    const double rows = guess(c, rows_of(&s[i]));
    weights += s[i].weights;
    work += s[i].work;
    if (s[i].ci.group == 1) sum -= images * rows * remainder_cycles(c, &s[i]);
    /* starting the loops, and weights that come from the second-level cache each time */
    sum -= steps * (MODEL_STAGE + model_weights_again(&m, s[i].weights));
    if (i == to) break;
    sum += traffic(c, &s[i], step);
    room += ring_bytes(c, &s[i], step);
  }
  const bool fits = room + weights <= m.l2 * 0.75;
  return fits && sum > 0.03 * work ? sum : -1;
}

static double best_step(Chain *c, int from, int to, int *step) {
  double best = -1;
  *step = 1;
  for (int n = 1; n <= MAX_STEP; n *= 2) {
    const double g = gain(c, from, to, n);
    if (g <= best) continue;
    best = g;
    *step = n;
  }
  return best;
}

/* Cuts the chain where that saves most and keeps what the last stage is part of: by dynamic
 * programming over the ends of the pieces. false: the last stage stays alone. */
static bool choose_piece(Chain *c) {
  double best[MAX_STAGES + 1] = {0};
  int start = c->n - 1;
  for (int to = 0; to < c->n; to++) {
    best[to + 1] = best[to];
    start = to;
    for (int from = 0; from < to; from++) {
      int step;
      if (c->stage[from].max) continue;
      const double g = best[from] + best_step(c, from, to, &step);
      if (g <= best[to + 1]) continue;
      best[to + 1] = g;
      start = from;
    }
  }
  if (c->l->c->strips == STRIPS_ALL) start = 0;
  if (start == c->n - 1) return false;
  c->n -= start;
  memmove(c->stage, c->stage + start, (size_t)c->n * sizeof *c->stage);
  best_step(c, 0, c->n - 1, &c->step);
  set_rows(c, 0, c->n - 1);
  c->parts = parts_of(c, 0, c->n - 1);
  return true;
}

/* ---- the kernel ---- */

/* The ring that stage i writes and stage i + 1 reads: [row][column][channel], columns with the halo
 * that the reader needs. */
static void make_ring(Chain *c, int i) {
  Stage *s = &c->stage[i];
  Place *pl = &s->ring;
  const Value *v = s->root;
  lower_assume_sizes(c->l, v);
  const int64_t pixel = pixel_stride(s);
  *pl = (Place){.ring = ring_rows(s, c->step), .offset = num(c, 0)};
  int64_t lo[2], hi[2];
  for (int d = 0; d < 2; d++) {
    conv_reach(c->l->m, c->stage[i + 1].anchor->def, &c->stage[i + 1].ci, d, &lo[d], &hi[d]);
    pl->halo_lo[2 + d] = (int16_t)lo[d];
    pl->halo_hi[2 + d] = (int16_t)hi[d];
  }
  pl->stride = ARENA_ARRAY(c->l->m->arena, const Expr *, v->rank);
  pl->stride[0] = num(c, 0);
  pl->stride[1] = num(c, 1);
  pl->stride[2] = ex_mul(c->p, ex_add(c->p, v->dims[3], num(c, lo[1] + hi[1])), num(c, pixel));
  pl->stride[3] = num(c, pixel);
  pl->base = num(c, lo[1] * pixel);
  const Expr *count = ex_mul(c->p, pl->stride[2], num(c, pl->ring));
  pl->buffer = kb_scratch_place(kb_scratch(&c->b, DT_F32, count, "ring"));
}

/* What reader s[1] of a ring takes for elements outside the image, in `count` elements from
 * `first`. */
static Stmt *border(Chain *c, const Stage *s, const Expr *first, const Expr *count) {
  const Place *pl = &s->ring;
  const Expr *value = s[1].max ? reduce_identity(c->p, RED_MAX, DT_F32) : ex_float(c->p, DT_F32, 0);
  const Expr *z = ex_var(c->p, "z", count);
  Stmt *st = stmt_store(c->l->m->arena, kb_param(&c->b, pl->buffer, NULL, PA_WRITE),
                        ex_add(c->p, first, z), value);
  return stmt_for(c->l->m->arena, FOR_VECTOR, z, st);
}

/* Left and right of all rows of a ring. */
static Stmt *border_sides(Chain *c, const Stage *s) {
  const Place *pl = &s->ring;
  StmtList out = {0};
  const Expr *row = ex_var(c->p, "h", num(c, pl->ring));
  const Expr *left = ex_mul(c->p, row, pl->stride[2]);
  const Expr *width = ex_mul(c->p, s->root->dims[3], pl->stride[3]);
  const Expr *right = ex_add(c->p, left, ex_add(c->p, pl->base, width));
  if (pl->halo_lo[3]) stmt_add(&out, border(c, s, left, pl->base));
  if (pl->halo_hi[3])
    stmt_add(&out, border(c, s, right, ex_mul(c->p, pl->stride[3], num(c, pl->halo_hi[3]))));
  return out.first ? stmt_for(c->l->m->arena, FOR_SERIAL, row, out.first) : NULL;
}

/* Rows [from, to) that lie outside the image, if the reader may look there. */
static Stmt *border_rows(Chain *c, const Stage *s, const Expr *from, const Expr *to) {
  const Place *pl = &s->ring;
  if (!pl->halo_lo[2] && !pl->halo_hi[2]) return NULL;
  Arena *a = c->l->m->arena;
  const Expr *z = ex_var(c->p, "h", ex_max(c->p, ex_sub(c->p, to, from), num(c, 0)));
  const Expr *row = ex_add(c->p, from, z), *idx[4] = {num(c, 0), num(c, 0), row, num(c, 0)};
  const Expr *first = ex_sub(c->p, place_index(c->p, pl, 4, idx), pl->base);
  Stmt *behind = stmt_if(a, ex_le(c->p, rows_of(s), row), border(c, s, first, pl->stride[2]), NULL);
  Stmt *before = stmt_if(a, ex_lt(c->p, row, num(c, 0)), border(c, s, first, pl->stride[2]), NULL);
  before->next = behind;
  return stmt_for(a, FOR_SERIAL, z, before);
}

static const Expr *affine(const Chain *c, int64_t m, const Expr *y, int64_t add) {
  return ex_add(c->p, ex_mul(c->p, y, num(c, m)), num(c, add));
}

/* What stage i adds for rows [y0, y1) of the last stage; `start`: y0 is the first row of a part, so
 * that the ring is empty. */
static Stmt *stage_rows(Chain *c, int i, const Expr *batch, const Expr *y0, const Expr *y1,
                        const Expr *start, const Place *xp, const Place *to) {
  const Stage *s = &c->stage[i];
  StmtList out = {0};
  Lines lines = {batch, y0, ex_sub(c->p, y1, y0)};
  if (i + 1 < c->n) {
    const Expr *from = affine(c, s->m, y0, s->lo), *end = affine(c, s->m, y1, s->hi - s->m);
    if (s->hi - s->m > s->lo)
      from = ex_select(c->p, start, from, affine(c, s->m, y0, s->hi - s->m));
    stmt_add(&out, border_rows(c, s, from, end));
    lines.first = ex_max(c->p, from, num(c, 0));
    lines.count = ex_max(c->p, ex_sub(c->p, ex_min(c->p, end, rows_of(s)), lines.first), num(c, 0));
    to = &s->ring;
  }
  if (i) xp = &c->stage[i - 1].ring;
  stmt_add(&out, (s->ci.group > 1 ? lower_depthwise_lines : lower_conv_lines)(
                     &c->b, s->root, s->anchor, to, &s->ci, xp, &lines));
  return out.first;
}

static Stmt *part(Chain *c, const Expr *batch, const Expr *first, const Expr *rows, const Place *xp,
                  const Place *to) {
  StmtList out = {0}, step = {0};
  for (int i = 0; i + 1 < c->n; i++) stmt_add(&out, border_sides(c, &c->stage[i]));
  const Expr *t = ex_var(c->p, "t", ex_ceildiv(c->p, rows, c->step));
  const Expr *y0 = ex_add(c->p, first, ex_mul(c->p, t, num(c, c->step)));
  const Expr *y1 = ex_min(c->p, ex_add(c->p, y0, num(c, c->step)), ex_add(c->p, first, rows));
  if (c->step == 1) y1 = ex_add(c->p, y0, num(c, 1));
  const Expr *start = ex_eq(c->p, t, num(c, 0));
  for (int i = 0; i < c->n; i++) stmt_add(&step, stage_rows(c, i, batch, y0, y1, start, xp, to));
  stmt_add(&out, stmt_for(c->l->m->arena, FOR_SERIAL, t, step.first));
  return out.first;
}

/* Fills in the numbers of the profile; is it worth being parallel? */
static bool set_profile(Chain *c, const Expr *total) {
  double cycles = 0;
  const Expr *flops = num(c, 0);
  for (int i = 0; i < c->n; i++) {
    const Stage *s = &c->stage[i];
    cycles += s->work;
    const Expr *pixels = ex_mul(c->p, ex_mul(c->p, s->root->dims[0], rows_of(s)), s->root->dims[3]);
    flops = ex_add(c->p, flops, ex_mul(c->p, pixels, num(c, 2 * (int64_t)(s->weights / 4))));
  }
  c->b.k->flops = flops;
  c->b.k->grain = cycles / guess(c, total);
  return cycles > 8000;
}

Step *lower_strips(Lower *l, const Value *root, const Place *to) {
  Chain c = {.l = l, .p = l->p};
  if (l->c->strips == STRIPS_NONE) return NULL;
  find_chain(&c, root);
  if (c.n < 2 || !choose_piece(&c)) return NULL;
  const Stage *first = &c.stage[0];
  Step *steps = NULL;
  const Place *xp = first->ci.group > 1
                        ? conv_input_stored(l, first->anchor->def, &first->ci, &steps)
                        : conv_input(l, first->anchor->def, &first->ci, &steps);
  kb_begin(&c.b, l, root, "strips");
  for (int i = c.n - 2; i >= 0; i--) {
    kb_also(&c.b, c.stage[i].root);
    make_ring(&c, i);
  }
  const Expr *rows = root->dims[2], *size = ex_ceildiv(c.p, rows, c.parts);
  const Expr *total = ex_mul(c.p, root->dims[0], num(&c, c.parts)), *p = ex_var(c.p, "p", total);
  const Expr *q = ex_floormod(c.p, p, num(&c, c.parts)), *begin = ex_mul(c.p, q, size);
  const Expr *count = ex_min(c.p, size, ex_sub(c.p, rows, begin));
  int64_t n;
  if (!expr_is_const(rows, &n) || n % c.parts)
    count = ex_max(c.p, count, num(&c, 0));
  else
    count = size;
  Stmt *body = part(&c, ex_floordiv(c.p, p, num(&c, c.parts)), begin, count, xp, to);
  if (c.b.x.bad) {
    diag_internal(l->m->diag, c.b.loc,
                  "lower: an epilogue in a chain of convolutions cannot be read");
    return NULL;
  }
  for (int i = 0; i < c.n; i++) {                          /* they are direct because of a choice */
    const Plan *const plan = c.stage[i].anchor->def->plan; /* NULL: MaxPool */
    const char *key = plan ? plan->key : NULL;
    if (key) choice_note(l->m->arena, &c.b.keys, key);
  }
  const ForKind kind = set_profile(&c, total) ? FOR_PARALLEL : FOR_SERIAL;
  step_append(&steps, kb_finish(&c.b, stmt_for(l->m->arena, kind, p, body)));
  return steps;
}
