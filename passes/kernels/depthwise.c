/* Depthwise convolution: lanes over channels, a strip of output pixels in registers, taps unrolled;
 * of floats, or of bytes into i32. Where the target adds up products of groups, four bytes or two of 16
 * bits, rows of a window are put together in each lane: a column of the image is one operand for all the
 * pixels whose windows it lies in (weights are packed so; those that are computed are taken one by one).
 * The largest value of a window (MaxPool) instead of the sum: as a part of a larger kernel only.
 * Also the kernel that fills a halo. */
#include "passes/build/nest.h"
#include "passes/choose/choice.h"
#include "passes/cost/machine_model.h"
#include "passes/kernels/contract.h"
#include "passes/tiles/own_loops.h"

typedef struct TapGroup {
  int taps;       /* that a multiply-add takes; 1: one */
  int along;      /* the dimension in which they follow each other */
  int64_t groups; /* in this dimension */
  DType element;  /* of a group */
  ExprOp mac;     /* mac(x, w, sum) */
  bool mac_ba;    /* mac(w, x, sum) */
} TapGroup;

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
  TapGroup of;
} Depthwise;

static const Expr *num(const Depthwise *d, int64_t v) { return ex_i64(d->p, v); }

/* ---- groups of taps ---- */

/* Of constant weights of bytes: four where the target has an instruction for these types, else two, as
 * 16 bits. */
static TapGroup group_taps(const Depthwise *d) {
  const Node *n = d->anchor->def;
  const Target *t = d->l->c->target;
  const ContractTypes *types = d->max ? NULL : node_contract_types(n);
  const int last = d->conv.spatial - 1;
  TapGroup g = {.taps = 1, .along = last, .groups = 1, .element = d->stored, .mac = EX_fma};
  if (d->max || d->type != DT_I32 || types->k_step != 4 || !n->in[1]->cdata) return g;
  if (contract_has_dot4(t, types->a, types->b))
    g = (TapGroup){4, .element = types->b, .mac = types->mac, .mac_ba = types->mac_ba};
  else if (target_has(t, FEATURE_PAIRS))
    g = (TapGroup){2, .element = DT_I16, .mac = EX_dot2_i16};
  else
    return g;
  g.along = last > 0 && d->conv.kernel[last - 1] > 1 ? last - 1 : last;
  g.groups = (d->conv.kernel[g.along] + g.taps - 1) / g.taps;
  return g;
}

/* Weights as [taps][channels], groups of them in an i32. */
static int pack_weights(Depthwise *d) {
  const ConstData *w = d->anchor->def->in[1]->cdata;
  const int last = d->conv.spatial - 1;
  int64_t taps = 1, stride = 1;
  PackShape ps = {.type = d->of.element,
                  .k_step = d->of.taps,
                  .groups = 1,
                  .cols = d->conv.c_out,
                  .n_k = d->conv.spatial,
                  .width = d->conv.c_out,
                  .lanes = 1,
                  .scale = 1.0};
  for (int s = 0; s < d->conv.spatial; s++) taps *= d->conv.kernel[s];
  for (int s = last, at = last - 1; s >= 0; s--) {
    const int k = s == d->of.along ? last : at--;
    ps.k[k] = d->conv.kernel[s];
    ps.k_stride[k] = stride;
    stride *= d->conv.kernel[s];
  }
  ps.col_stride = taps;
  const ConstData *data = pack_panels(d->l->m, w, &ps);
  const int64_t groups = data->count / d->of.taps;
  if (d->of.taps > 1) data = const_new(d->l->m, data->name, DT_I32, 1, &groups, data->data);
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

/* An element of the image, in the type of the sums. */
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

/* The image at the taps of group g, whose first one is `tap`. */
static const Expr *pixels(Depthwise *d, const Expr *const *q, const Expr *const *tap, int64_t g) {
  const Expr *at[MAX_SPATIAL], *element[MAX_K_STEP];
  const int64_t left = d->conv.kernel[d->of.along] - g * d->of.taps;
  if (d->of.taps == 1) return pixel(d, q, tap);
  for (int s = 0; s < d->conv.spatial; s++) at[s] = tap[s];
  for (int i = 0; i < d->of.taps; i++) {
    at[d->of.along] = num(d, g * d->of.taps + i);
    element[i] = i < left ? pixel(d, q, at) : ex_const(d->p, DT_I32, 0);
  }
  const DType x = d->anchor->def->in[0]->dtype;
  return group_elements(d->p, d->of.taps == 2 ? d->of.element : x, d->of.taps, element);
}

static const Expr *weight(Depthwise *d, const Expr *const *tap, int64_t g) {
  const Expr *t = num(d, 0);
  for (int s = 0; s < d->conv.spatial; s++)
    if (d->of.taps == 1 || s != d->of.along)
      t = ex_add(d->p, ex_mul(d->p, t, num(d, d->conv.kernel[s])), tap[s]);
  if (d->of.taps > 1) t = ex_add(d->p, ex_mul(d->p, t, num(d, d->of.groups)), num(d, g));
  const int id = kb_param(d->b, d->weights, NULL, PA_READ);
  const Expr *at = ex_add(d->p, ex_mul(d->p, t, num(d, d->conv.c_out)), d->c);
  return ex_cast(d->p, d->type, ex_load(d->p, kb_dtype(d->b, id), id, at, NULL));
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

static const Expr *added(Depthwise *d, const Expr *const *q, const Expr *const *tap, int64_t g,
                         const Expr *sum) {
  const Expr *x = pixels(d, q, tap, g);
  if (d->max) return reduce_combine(d->p, RED_MAX, sum, x);
  const Expr *w = weight(d, tap, g);
  return d->of.mac_ba ? ex_op(d->p, d->of.mac, w, x, sum) : ex_op(d->p, d->of.mac, x, w, sum);
}

/* Adds all taps, or those of group g of its dimension, to the sums of `width` pixels from w0. */
static Stmt *add_taps(Depthwise *d, const Expr *w0, int width, int acc, int64_t g) {
  Arena *a = d->l->m->arena;
  const int n = d->conv.spatial;
  const Expr *i = ex_var(d->p, "r", num(d, width));
  const Expr *q[MAX_SPATIAL] = {d->line[0], d->line[1]}, *tap[MAX_SPATIAL];
  q[n - 1] = ex_add(d->p, w0, i);
  for (int s = 0; s < n; s++) {
    const bool grouped = d->of.taps > 1 && s == d->of.along;
    tap[s] = grouped || d->conv.kernel[s] == 1 ? num(d, 0)
                                               : ex_var(d->p, "k", num(d, d->conv.kernel[s]));
  }
  Stmt *body = stmt_set(a, acc, i, added(d, q, tap, g, ex_local(d->p, d->type, acc, i)));
  body = stmt_for(a, FOR_UNROLL, i, body);
  for (int s = n - 1; s >= 0; s--)
    if (tap[s]->op == EX_VAR)
      body =
          stmt_for(a, d->conv.kernel[s] <= 5 && s >= n - 2 ? FOR_UNROLL : FOR_SERIAL, tap[s], body);
  return body;
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
  for (int64_t g = 0; g < d->of.groups; g++) stmt_add(&out, add_taps(d, w0, width, acc, g));
  const Expr *q[MAX_SPATIAL] = {d->line[0], d->line[1]};
  q[n - 1] = ex_add(d->p, w0, i);
  const int target = kb_param(d->b, d->to->buffer, d->to->offset, PA_WRITE);
  const Expr *v = epilogue(d, q, ex_local(d->p, d->type, acc, i));
  v = ex_cast(d->p, kb_dtype(d->b, target), v); /* a ring keeps small floats as f32 */
  Stmt *st = stmt_store(a, target, store_index(d, q), v);
  stmt_add(&out, stmt_for(a, FOR_UNROLL, i, st));
  return out.first;
}

/* Pixels of a strip, by the plan. */
static int strip_width(Depthwise *d) {
  const Plan *const plan = d->anchor->def->plan;
  PlanLoops l = plan_loops(plan, 0);
  if (!l.width) l = strip_choose_loops(d->l->c, d->anchor->def, &d->conv, d->axis, d->max);
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
  d->of = group_taps(d);
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
