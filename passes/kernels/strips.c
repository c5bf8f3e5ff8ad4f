/* Chains of convolutions over strips of rows: expand → depthwise → project and the like. What lies
 * between two convolutions of a chain is not stored whole: a thread goes down the image, a few rows
 * of the last convolution at a time, and keeps of the others as many rows as these read, in rings
 * that stay in a cache. Nothing is computed twice but the first rows of each thread's part.
 * Sliding window and storage folding as in Halide (Ragan-Kelley et al., PLDI 2013); for chains of
 * convolutions: Alwani et al., Fused-layer CNN accelerators, MICRO 2016. Rings of f16 values hold them
 * as f32: rounded as they would be stored, and read as often as need be without a conversion.
 *
 * Each stage is emitted by its own template (lower_conv_lines, lower_depthwise_lines). Which chains
 * are worth it is decided by the pass choose (passes/choose/strips.c). */
#include "passes/choose/strips.h"
#include "passes/build/nest.h"
#include "passes/choose/choice.h"
#include "passes/kernels/contract.h"

typedef struct Chain {
  Lower *l;
  ExprPool *p;
  KernelBuild b;
  StripChain of;
  Place ring[MAX_STAGES]; /* what the stages write; of the last one: unused */
} Chain;

static const Expr *num(const Chain *c, int64_t v) { return ex_i64(c->p, v); }
static const Expr *rows_of(const StripStage *s) { return s->root->dims[2]; }
static Place *ring_of(Chain *c, const StripStage *s) { return &c->ring[s - c->of.stage]; }

/* The ring that stage i writes and stage i + 1 reads: [row][column][channel], columns with the halo
 * that the reader needs. */
static void make_ring(Chain *c, int i) {
  const StripStage *s = &c->of.stage[i];
  Place *pl = ring_of(c, s);
  const Value *v = s->root;
  lower_assume_sizes(c->l, v);
  const int64_t pixel = strip_pixel_stride(s);
  *pl = (Place){.ring = strip_ring_rows(s, c->of.rows),
                .offset = num(c, 0),
                .fill = (int16_t)s[1].conv.pad_value};
  int64_t lo[2], hi[2];
  for (int d = 0; d < 2; d++) {
    conv_reach(c->l->m, c->of.stage[i + 1].anchor->def, &c->of.stage[i + 1].conv, d, &lo[d],
               &hi[d]);
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
  pl->buffer = kb_scratch_place(kb_scratch(&c->b, strip_ring_type(s), count, "ring"));
}

/* What reader s[1] of a ring takes for elements outside the image, in `count` elements from
 * `first`. */
static Stmt *border(Chain *c, const StripStage *s, const Expr *first, const Expr *count) {
  const Place *pl = ring_of(c, s);
  const DType type = strip_ring_type(s);
  const Expr *value = s[1].max ? reduce_identity(c->p, RED_MAX, DT_F32)
                               : ex_const(c->p, type, (double)s[1].conv.pad_value);
  const Expr *z = ex_var(c->p, "z", count);
  Stmt *st = stmt_store(c->l->m->arena, kb_param(&c->b, pl->buffer, NULL, PA_WRITE),
                        ex_add(c->p, first, z), value);
  return stmt_for(c->l->m->arena, FOR_VECTOR, z, st);
}

/* Left and right of all rows of a ring. */
static Stmt *border_sides(Chain *c, const StripStage *s) {
  const Place *pl = ring_of(c, s);
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
static Stmt *border_rows(Chain *c, const StripStage *s, const Expr *from, const Expr *to) {
  const Place *pl = ring_of(c, s);
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
                        const Expr *start, const Place *x_place, const Place *to) {
  const StripStage *s = &c->of.stage[i];
  StmtList out = {0};
  Lines lines = {batch, y0, ex_sub(c->p, y1, y0)};
  if (i + 1 < c->of.n) {
    const Expr *from = affine(c, s->m, y0, s->lo), *end = affine(c, s->m, y1, s->hi - s->m);
    if (s->hi - s->m > s->lo)
      from = ex_select(c->p, start, from, affine(c, s->m, y0, s->hi - s->m));
    stmt_add(&out, border_rows(c, s, from, end));
    lines.first = ex_max(c->p, from, num(c, 0));
    lines.count = ex_max(c->p, ex_sub(c->p, ex_min(c->p, end, rows_of(s)), lines.first), num(c, 0));
    to = ring_of(c, s);
  }
  if (i) x_place = &c->ring[i - 1];
  stmt_add(&out, (s->conv.group > 1 ? lower_depthwise_lines : lower_conv_lines)(
                     &c->b, s->root, s->anchor, to, &s->conv, x_place, &lines));
  return out.first;
}

static Stmt *part(Chain *c, const Expr *batch, const Expr *first, const Expr *rows,
                  const Place *x_place, const Place *to) {
  StmtList out = {0}, step = {0};
  for (int i = 0; i + 1 < c->of.n; i++) stmt_add(&out, border_sides(c, &c->of.stage[i]));
  const Expr *t = ex_var(c->p, "t", ex_ceildiv(c->p, rows, c->of.rows));
  const Expr *y0 = ex_add(c->p, first, ex_mul(c->p, t, num(c, c->of.rows)));
  const Expr *y1 = ex_min(c->p, ex_add(c->p, y0, num(c, c->of.rows)), ex_add(c->p, first, rows));
  if (c->of.rows == 1) y1 = ex_add(c->p, y0, num(c, 1));
  const Expr *start = ex_eq(c->p, t, num(c, 0));
  for (int i = 0; i < c->of.n; i++)
    stmt_add(&step, stage_rows(c, i, batch, y0, y1, start, x_place, to));
  stmt_add(&out, stmt_for(c->l->m->arena, FOR_SERIAL, t, step.first));
  return out.first;
}

/* Fills in the numbers of the profile; its cycles. */
static double set_profile(Chain *c) {
  double cycles = 0;
  const Expr *flops = num(c, 0);
  for (int i = 0; i < c->of.n; i++) {
    const StripStage *s = &c->of.stage[i];
    cycles += s->work;
    const ConvInfo *conv = &s->conv;
    const int64_t taps =
        s->max ? 0 : conv->c_out * (conv->c_in / conv->group) * conv->kernel[0] * conv->kernel[1];
    const Expr *pixels = ex_mul(c->p, ex_mul(c->p, s->root->dims[0], rows_of(s)), s->root->dims[3]);
    flops = ex_add(c->p, flops, ex_mul(c->p, pixels, num(c, 2 * taps)));
  }
  c->b.k->flops = flops;
  kb_estimate(&c->b, "strips", cycles);
  return cycles;
}

Step *lower_strips(Lower *l, const Value *root, const Place *to) {
  Chain c = {.l = l, .p = l->p};
  if (!strip_chain(l->c, root, &c.of)) return NULL;
  const StripStage *first = &c.of.stage[0];
  Step *steps = NULL;
  const Place *x_place = first->conv.group > 1
                             ? conv_input_stored(l, first->anchor->def, &first->conv, &steps)
                             : conv_input(l, first->anchor->def, &first->conv, &steps);
  kb_begin(&c.b, l, root, "strips");
  for (int i = c.of.n - 2; i >= 0; i--) {
    kb_also(&c.b, c.of.stage[i].root);
    make_ring(&c, i);
  }
  const Expr *rows = root->dims[2], *size = ex_ceildiv(c.p, rows, c.of.parts);
  const Expr *total = ex_mul(c.p, root->dims[0], num(&c, c.of.parts)), *p = ex_var(c.p, "p", total);
  const Expr *q = ex_floormod(c.p, p, num(&c, c.of.parts)), *begin = ex_mul(c.p, q, size);
  const Expr *count = ex_min(c.p, size, ex_sub(c.p, rows, begin));
  int64_t n;
  if (!expr_is_const(rows, &n) || n % c.of.parts)
    count = ex_max(c.p, count, num(&c, 0));
  else
    count = size;
  Stmt *body = part(&c, ex_floordiv(c.p, p, num(&c, c.of.parts)), begin, count, x_place, to);
  if (c.b.x.bad) {
    diag_internal(l->m->diag, c.b.loc,
                  "lower: an epilogue in a chain of convolutions cannot be read");
    return NULL;
  }
  for (int i = 0; i < c.of.n; i++) { /* they are direct because of a choice */
    const Plan *const plan = c.of.stage[i].anchor->def->plan; /* NULL: MaxPool */
    const char *key = plan ? plan->key : NULL;
    if (key) choice_note(l->m->arena, &c.b.keys, key);
  }
  step_append(&steps, kb_finish(&c.b, nest_parallel(&c.b, p, body, set_profile(&c))));
  return steps;
}
