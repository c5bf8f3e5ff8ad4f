/* Depthwise convolution: lanes over channels, a strip of output pixels in registers, taps unrolled;
 * of floats, or of bytes into i32 (a product of two extended bytes is one of 16 bits: pmaddwd on x86).
 * The largest value of a window (MaxPool) instead of the sum: as a part of a larger kernel only.
 * Also the kernel that fills a halo. */
#include "passes/build/nest.h"
#include "passes/choose/choice.h"
#include "passes/cost/machine_model.h"
#include "passes/kernels/contract.h"
#include "passes/tiles/own_loops.h"

typedef struct Depthwise {
  Lower *l;
  ExprPool *p;
  KernelBuild *b;
  const Value *root, *anchor;
  const Place *to, *x_place;
  ConvInfo conv;
  Axis axis[MAX_SPATIAL];
  const Expr *batch, *line[2], *c; /* line: rows of the outer spatial dimensions */
  int weights;                     /* module buffer: [taps][c_out] */
  Step *packing;                   /* of computed weights */
  int width;                       /* pixels of a strip */
  bool max;                        /* no weights: the largest value */
  DType type, stored;              /* of sums; of packed weights: 8 bits as they are, else f32 */
} Depthwise;

static const Expr *num(const Depthwise *d, int64_t v) { return ex_i64(d->p, v); }

/* Weights as [taps][channels]. */
static int pack_weights(Depthwise *d) {
  const ConstData *w = d->anchor->def->in[1]->cdata;
  int64_t taps = 1;
  for (int s = 0; s < d->conv.spatial; s++) taps *= d->conv.kernel[s];
  const PackShape ps = {.type = d->stored,
                        .groups = 1,
                        .cols = d->conv.c_out,
                        .col_stride = taps,
                        .n_k = 1,
                        .k = {taps},
                        .k_stride = {1},
                        .width = d->conv.c_out,
                        .lanes = 1,
                        .scale = 1.0};
  const ConstData *data = pack_panels(d->l->m, w, &ps);
  return contract_weights(d->l, data);
}

/* The same of computed weights, by a kernel in front. */
static void pack_computed(Depthwise *d) {
  Arena *a = d->l->m->arena;
  const Value *w = d->anchor->def->in[1];
  const Expr *dims[MAX_RANK], *idx[MAX_RANK], *t = num(d, 0);
  KernelBuild b;
  kb_begin(&b, d->l, d->root, "pack");
  const Expr *c = ex_var(d->p, "c", num(d, d->conv.c_out));
  idx[0] = c;
  idx[1] = num(d, 0);
  for (int s = 0; s < d->conv.spatial; s++) {
    dims[s] = num(d, d->conv.kernel[s]);
    idx[2 + s] = ex_var(d->p, "k", dims[s]);
    t = ex_add(d->p, ex_mul(d->p, t, dims[s]), idx[2 + s]);
  }
  dims[d->conv.spatial] = num(d, d->conv.c_out);
  const Place *to = lower_temp(d->l, d->stored, d->conv.spatial + 1, dims, "weights");
  const Expr *e = ex_cast(d->p, d->stored, kernel_expr_read(&b.x, w, idx));
  const Expr *at = ex_add(d->p, ex_mul(d->p, t, num(d, d->conv.c_out)), c);
  Stmt *body = stmt_store(a, kb_param(&b, to->buffer, to->offset, PA_WRITE), at, e);
  body = stmt_for(a, FOR_VECTOR, c, body);
  for (int s = d->conv.spatial - 1; s >= 0; s--)
    if (idx[2 + s]->op == EX_VAR) body = stmt_for(a, FOR_SERIAL, idx[2 + s], body);
  d->weights = to->buffer;
  d->packing = kb_finish(&b, body);
}

static const Expr *pixel(Depthwise *d, const Expr *const *q, const Expr *const *tap) {
  const Expr *idx[MAX_RANK] = {d->batch, d->c};
  for (int s = 0; s < d->conv.spatial; s++) {
    const Axis *a = &d->axis[s];
    idx[2 + s] = ex_add(d->p, ex_mul(d->p, q[s], num(d, a->is)),
                        ex_add(d->p, num(d, a->ib), ex_mul(d->p, tap[s], num(d, a->dk))));
  }
  const Value *x = d->anchor->def->in[0];
  const int id = kb_param(d->b, d->x_place->buffer, d->x_place->offset, PA_READ);
  return ex_cast(
      d->p, d->type,
      ex_load(d->p, kb_dtype(d->b, id), id, place_index(d->p, d->x_place, x->rank, idx), NULL));
}

static const Expr *weight(Depthwise *d, const Expr *const *tap) {
  const Expr *t = num(d, 0);
  for (int s = 0; s < d->conv.spatial; s++)
    t = ex_add(d->p, ex_mul(d->p, t, num(d, d->conv.kernel[s])), tap[s]);
  const int id = kb_param(d->b, d->weights, NULL, PA_READ);
  const Expr *at = ex_add(d->p, ex_mul(d->p, t, num(d, d->conv.c_out)), d->c);
  return ex_cast(d->p, d->type, ex_load(d->p, d->stored, id, at, NULL));
}

static const Expr *epilogue(Depthwise *d, const Expr *const *q, const Expr *sum) {
  const Expr *idx[MAX_RANK] = {d->batch, d->c};
  for (int s = 0; s < d->conv.spatial; s++) idx[2 + s] = q[s];
  sum = kb_conv_bias(d->b, d->anchor, idx, sum);
  return kb_epilogue(d->b, d->root, d->anchor, idx, sum);
}

static const Expr *store_index(Depthwise *d, const Expr *const *q) {
  const Expr *idx[MAX_RANK] = {d->batch, d->c};
  for (int s = 0; s < d->conv.spatial; s++) idx[2 + s] = q[s];
  return place_index(d->p, d->to, d->root->rank, idx);
}

/* A strip of `width` pixels from w0: accumulate over unrolled taps, store. */
static Stmt *strip(void *user, const Expr *w0, int width) {
  Depthwise *d = user;
  Arena *a = d->l->m->arena;
  const int n = d->conv.spatial;
  const int acc =
      kernel_add_local(d->l->mod, d->b->k, (Local){.name = "t", .dtype = d->type, .count = width});
  StmtList out = {0};
  stmt_add(&out, stmt_local(a, acc));
  const Expr *first = d->max ? reduce_identity(d->p, RED_MAX, DT_F32) : ex_const(d->p, d->type, 0);
  const Expr *i0 = ex_var(d->p, "r", num(d, width)), *i = ex_var(d->p, "r", num(d, width));
  stmt_add(&out, stmt_for(a, FOR_UNROLL, i0, stmt_set(a, acc, i0, first)));
  const Expr *q[MAX_SPATIAL] = {d->line[0], d->line[1]}, *tap[MAX_SPATIAL];
  q[n - 1] = ex_add(d->p, w0, i);
  for (int s = 0; s < n; s++)
    tap[s] = d->conv.kernel[s] == 1 ? num(d, 0) : ex_var(d->p, "k", num(d, d->conv.kernel[s]));
  const Expr *old = ex_local(d->p, d->type, acc, i), *x = pixel(d, q, tap);
  const Expr *next =
      d->max ? reduce_combine(d->p, RED_MAX, old, x) : ex_op(d->p, EX_fma, x, weight(d, tap), old);
  Stmt *body = stmt_for(a, FOR_UNROLL, i, stmt_set(a, acc, i, next));
  for (int s = n - 1; s >= 0; s--)
    if (tap[s]->op == EX_VAR)
      body =
          stmt_for(a, d->conv.kernel[s] <= 5 && s >= n - 2 ? FOR_UNROLL : FOR_SERIAL, tap[s], body);
  stmt_add(&out, body);
  const Expr *i2 = ex_var(d->p, "r", num(d, width));
  q[n - 1] = ex_add(d->p, w0, i2);
  const int target = kb_param(d->b, d->to->buffer, d->to->offset, PA_WRITE);
  Stmt *st =
      stmt_store(a, target, store_index(d, q), epilogue(d, q, ex_local(d->p, d->type, acc, i2)));
  stmt_add(&out, stmt_for(a, FOR_UNROLL, i2, st));
  return out.first;
}

/* Pixels of a strip, by the plan. */
static int strip_width(Depthwise *d) {
  const Plan *const plan = d->anchor->def->plan;
  PlanLoops l = plan_loops(plan, 0);
  if (!l.width) l = strip_choose_loops(d->l->c, &d->conv, d->axis, d->max);
  if (l.key) choice_note(d->l->m->arena, &d->b->keys, l.key);
  return l.width;
}

static Stmt *line_of_strips(Depthwise *d) {
  d->width = strip_width(d);
  return nest_strips(d->b, d->axis[d->conv.spatial - 1].rows, d->width, strip, d);
}

/* Of a line of all channels. */
static double line_cycles(const Depthwise *d) {
  const double lanes = target_lanes(d->l->c->target, 32);
  const double rows = expr_extent_guess(d->p, d->axis[d->conv.spatial - 1].rows);
  return depthwise_cycles(d->l->c->target, &d->conv, rows, d->width) * (double)d->conv.c_out /
         lanes;
}

static void depthwise_init(Depthwise *d, KernelBuild *b, const Value *root, const Value *anchor,
                           const Place *to, const Place *x_place) {
  d->b = b;
  d->l = b->l;
  d->p = b->l->p;
  d->root = root;
  d->anchor = anchor;
  d->to = to;
  d->x_place = x_place;
  d->type = d->stored = DT_F32;
  if (!d->max && node_contract_types(anchor->def)->acc == DT_I32) {
    d->type = DT_I32;
    d->stored = anchor->def->in[1]->dtype;
  }
  conv_axes(d->l->m, anchor->def, &d->conv, 0, d->axis);
  if (!d->max && anchor->def->in[1]->cdata)
    d->weights = pack_weights(d);
  else if (!d->max)
    pack_computed(d);
  d->c = ex_var(d->p, "c", num(d, d->conv.c_out));
}

/* All channels of the current line. */
static Stmt *line_of_channels(Depthwise *d) {
  return stmt_for(d->l->m->arena, FOR_VECTOR, d->c, line_of_strips(d));
}

Stmt *lower_depthwise_lines(KernelBuild *b, const Value *root, const Value *anchor, const Place *to,
                            const ConvInfo *conv, const Place *x_place, const Lines *lines) {
  Depthwise d = {.conv = *conv, .max = !node_is_contraction(anchor->def)};
  depthwise_init(&d, b, root, anchor, to, x_place);
  const Expr *y = ex_var(d.p, "y", lines->count);
  d.batch = lines->batch;
  d.line[0] = ex_add(d.p, lines->first, y);
  return stmt_for(d.l->m->arena, FOR_SERIAL, y, line_of_channels(&d));
}

Step *lower_depthwise(Lower *l, const Value *root, const Value *anchor, const Place *to) {
  Depthwise d = {0};
  KernelBuild b;
  if (!conv_info(anchor->def, &d.conv) || anchor->def->plan->algorithm != ALG_DEPTHWISE)
    return NULL;
  Step *steps = NULL;
  const Place *x_place = conv_input_stored(l, anchor->def, &d.conv, &steps);
  kb_begin(&b, l, root, NULL);
  depthwise_init(&d, &b, root, anchor, to, x_place);
  step_append(&steps, d.packing);
  const int n = d.conv.spatial;
  const Expr *extent[MAX_SPATIAL] = {root->dims[0]}, *index[MAX_SPATIAL], *total = root->dims[0];
  for (int s = 0; s + 1 < n; s++) {
    extent[1 + s] = d.axis[s].rows;
    total = ex_mul(d.p, total, extent[1 + s]);
  }
  const Expr *par = ex_var(d.p, "p", total);
  nest_indices(d.p, par, n, extent, index);
  d.batch = index[0];
  for (int s = 0; s + 1 < n; s++) d.line[s] = index[1 + s];
  Stmt *body = line_of_channels(&d);
  b.k->flops = ex_mul(d.p, ex_mul(d.p, total, d.axis[n - 1].rows), num(&d, 2 * d.conv.c_out));
  for (int s = 0; s < n; s++) b.k->flops = ex_mul(d.p, b.k->flops, num(&d, d.conv.kernel[s]));
  const MachineModel m = machine_model(l->c->target, DT_F32, 1);
  const double cycles =
      expr_extent_guess(d.p, total) * line_cycles(&d) + model_touch(&m, kb_bytes(&b, PA_READWRITE));
  kb_estimate(&b, "depthwise", cycles);
  step_append(&steps, kb_finish(&b, nest_parallel(&b, par, body, cycles)));
  return steps;
}

/* ---- halo ---- */

/* Zeros, or the fill, in the slab before (or behind) dimension d, over the whole extent of the others, halos
 * included. */
static Stmt *slab(Lower *l, KernelBuild *b, const Value *v, const Place *to, int d, bool behind) {
  Arena *a = l->m->arena;
  const int cells = behind ? v->layout.halo_hi[d] : v->layout.halo_lo[d];
  if (!cells) return NULL;
  const Expr *idx[MAX_RANK], *vars[MAX_RANK];
  int order[MAX_RANK];
  for (int k = 0; k < v->rank; k++) order[k] = v->layout.perm ? v->layout.perm[k] : k;
  for (int k = 0; k < v->rank; k++) {
    const int e = order[k], lo = v->layout.halo_lo[e], hi = v->layout.halo_hi[e];
    const Expr *extent =
        e == d ? ex_i64(l->p, cells) : ex_add(l->p, v->dims[e], ex_i64(l->p, lo + hi));
    vars[k] = ex_var(l->p, "z", extent);
    idx[e] = e == d ? ex_add(l->p, vars[k], behind ? v->dims[e] : ex_i64(l->p, -cells))
                    : ex_sub(l->p, vars[k], ex_i64(l->p, lo));
  }
  const int id = kb_param(b, to->buffer, to->offset, PA_WRITE);
  Stmt *s = stmt_store(a, id, place_index(l->p, to, v->rank, idx),
                       ex_const(l->p, v->dtype, v->layout.fill));
  for (int k = v->rank - 1; k >= 0; k--)
    s = stmt_for(a, k == v->rank - 1 ? FOR_VECTOR : FOR_SERIAL, vars[k], s);
  return s;
}

Step *lower_halo(Lower *l, const Value *v, const Place *to) {
  KernelBuild b;
  kb_begin(&b, l, v, "halo");
  StmtList body = {0};
  for (int d = 0; d < v->rank; d++) {
    stmt_add(&body, slab(l, &b, v, to, d, false));
    stmt_add(&body, slab(l, &b, v, to, d, true));
  }
  return body.first ? kb_finish(&b, body.first) : NULL;
}
