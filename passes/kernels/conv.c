/* Conv and ConvTranspose described as tiled contractions (contract.h): inputs given their halo,
 * weights packed; a transposed convolution is one contraction per phase of its stride. */
#include "passes/build/nest.h"
#include "passes/kernels/contract.h"

#include <string.h>

#include "passes/choose/choice.h"

static const Expr *num(const Contract *c, int64_t v) { return ex_i64(c->p, v); }
typedef struct ConvCtx {
  ConvInfo conv;
  Axis axis[MAX_SPATIAL];
  const Value *x;
  const Place *x_place;      /* x with its halo: its own place or a copy */
  const ConstData *weights;  /* NULL: computed */
  Step *packing;             /* of computed weights */
  int depth_outer;           /* position of the depth dimension in outer, or -1 */
  int k_of[MAX_SPATIAL + 1]; /* position of each spatial tap and, last, of the channel among the k
                                loops; -1: none */
  int64_t panel_group;       /* packed elements per group */
  bool lines;                /* one line of the output at a time */
  bool joined;               /* the channel counts through the taps of a line, too */
  bool merged; /* rows are those of all images; the group is the only outer dimension */
} ConvCtx;

static const Expr *conv_group(const Contract *c, const ConvCtx *v) {
  return v->conv.group > 1 ? c->outer[v->merged ? 0 : 1] : num(c, 0);
}

/* Row (outer, h, w) → image, and row number along each spatial dimension. */
static const Expr *conv_rows(const Contract *c, const Expr *h, const Expr *w, const Expr **q) {
  const ConvCtx *v = c->info;
  const int n = v->conv.spatial;
  if (v->merged) {
    const Expr *rows[MAX_SPATIAL + 1] = {v->x->dims[0]}, *at[MAX_SPATIAL + 1];
    for (int s = 0; s < n; s++) rows[s + 1] = v->axis[s].rows;
    nest_indices(c->p, w, n + 1, rows, at);
    memcpy(q, at + 1, sizeof *q * (size_t)n);
    return at[0];
  }
  if (c->flat) {
    const Expr *rows[MAX_SPATIAL];
    for (int s = 0; s < n; s++) rows[s] = v->axis[s].rows;
    nest_indices(c->p, w, n, rows, q);
    return c->outer[0];
  }
  q[n - 1] = w;
  if (n > 1) q[n - 2] = h;
  if (n > 2) q[0] = c->outer[v->depth_outer];
  return c->outer[0];
}

static void conv_out_index(const Contract *c, const Expr *h, const Expr *w, const Expr *col,
                           const Expr **idx) {
  const ConvCtx *v = c->info;
  const Expr *q[MAX_SPATIAL];
  idx[0] = conv_rows(c, h, w, q);
  idx[1] = ex_add(c->p, ex_mul(c->p, conv_group(c, v), c->n), col);
  for (int s = 0; s < v->conv.spatial; s++)
    idx[2 + s] = ex_add(c->p, ex_mul(c->p, q[s], num(c, v->axis[s].os)), num(c, v->axis[s].ob));
}

/* An element of the input itself: beyond the border there is the value of the pads. */
static const Expr *conv_inside(Contract *c, const Expr *const *idx) {
  const ConvCtx *v = c->info;
  const Expr *inside = ex_bool(c->p, true);
  for (int s = 0; s < v->conv.spatial; s++) {
    const Expr *const at = idx[2 + s];
    inside = ex_and(c->p, inside, ex_le(c->p, num(c, 0), at));
    inside = ex_and(c->p, inside, ex_lt(c->p, at, v->x->dims[2 + s]));
  }
  int64_t always;
  const bool guarded = !expr_is_const(inside, &always) || !always;
  const Expr *const e = c->b.x.ctx.read(&c->b.x.ctx, v->x, idx, guarded ? inside : NULL);
  if (!guarded || !v->conv.pad_value) return e;
  return ex_select(c->p, inside, e, ex_const(c->p, (DType)e->dtype, (double)v->conv.pad_value));
}

static const Expr *conv_a(Contract *c, const Expr *h, const Expr *w) {
  const ConvCtx *v = c->info;
  const Expr *q[MAX_SPATIAL], *idx[MAX_RANK];
  idx[0] = conv_rows(c, h, w, q);
  const int64_t cig = v->conv.c_in / v->conv.group;
  const int ck = v->k_of[v->conv.spatial];
  const Expr *ch = ck >= 0 ? c->k[ck] : num(c, 0);
  idx[1] = ex_add(c->p, ex_mul(c->p, conv_group(c, v), num(c, cig)), ch);
  for (int s = 0; s < v->conv.spatial; s++) {
    const Axis *a = &v->axis[s];
    const Expr *at = ex_add(c->p, ex_mul(c->p, q[s], num(c, a->is)), num(c, a->ib));
    if (v->k_of[s] >= 0) at = ex_add(c->p, at, ex_mul(c->p, c->k[v->k_of[s]], num(c, a->dk)));
    idx[2 + s] = at;
  }
  if (v->merged) return contract_operand_a(c, conv_inside(c, idx));
  if (!v->x_place) return contract_operand_a(c, kernel_expr_read(&c->b.x, v->x, idx));
  const int id = kb_param(&c->b, v->x_place->buffer, v->x_place->offset, PA_READ);
  return contract_operand_a(c, ex_load(c->p, kb_dtype(&c->b, id), id,
                                       place_index(c->p, v->x_place, v->x->rank, idx), NULL));
}

static const Expr *conv_add(Contract *c, const Expr *const *idx) {
  const Value *bias = node_in(c->anchor->def, 2);
  return bias ? contract_cast(c, kernel_expr_read(&c->b.x, bias, &idx[1])) : NULL;
}

static const Expr *conv_b_offset(const Contract *c) {
  const ConvCtx *v = c->info;
  return v->conv.group > 1 ? ex_mul(c->p, c->outer[1], num(c, v->panel_group)) : num(c, 0);
}

/* Share of (tile, tap) pairs along axis a that lie outside an input of `size`, for tiles of `rows`
 * rows. */
static double dead_share(const Axis *a, int64_t size, int64_t rows) {
  int64_t n, dead = 0, all = 0;
  if (!expr_is_const(a->rows, &n) || n > 4096) return 0;
  for (int64_t q = 0; q < n; q += rows)
    for (int64_t t = 0; t < a->taps; t++) {
      const int64_t end = q + rows < n ? q + rows : n, at = a->ib + t * a->dk;
      dead += (end - 1) * a->is + at < 0 || q * a->is + at >= size;
      all++;
    }
  return all ? (double)dead / (double)all : 0;
}

/* Whether as large a share of dead taps is asked for: small images, large dilations. */
static bool worth_asking(const Contract *c, double dead) { return c->skips || dead >= 0.04; }

/* Of all taps and tiles, those that are not left out. */
static double live_share(const Contract *c, const ConvCtx *v) {
  const int n = v->conv.spatial;
  double share = 1;
  if (v->lines || (c->flat && n > 1) || v->k_of[n] != c->n_k - 1) return 1;
  for (int s = 0; s < n; s++) {
    int64_t size;
    if (v->k_of[s] < 0 || !expr_is_const(v->x->dims[2 + s], &size)) continue;
    if (s == n - 2 && c->plan.high > 1) continue;
    const double dead = dead_share(&v->axis[s], size, s == n - 1 ? c->tile.rows : 1);
    if (worth_asking(c, dead)) share *= 1 - dead;
  }
  return share;
}

/* Taps that see only the zeros around the input are left out, where that is a good part of them. */
static const Expr *conv_live(const Contract *c, int i, const Expr *h, const Expr *w, int rows) {
  const ConvCtx *v = c->info;
  const int n = v->conv.spatial;
  const Expr *size = NULL;
  int64_t fixed;
  int s = 0;
  while (s < n && v->k_of[s] != i) s++;
  if (s == n || (c->flat && n > 1) || v->k_of[n] != c->n_k - 1 || (s == n - 2 && !h)) return NULL;
  const Axis *a = &v->axis[s];
  const Expr *first = s == n - 1 ? w : s == n - 2 ? h : c->outer[v->depth_outer], *last = first;
  if (s == n - 1)
    last = ex_add(c->p, w, num(c, rows - 1));
  else
    rows = 1;
  size = v->x->dims[2 + s];
  if (!worth_asking(c, expr_is_const(size, &fixed) ? dead_share(a, fixed, rows) : 0)) return NULL;
  const Expr *at = ex_add(c->p, num(c, a->ib), ex_mul(c->p, c->k[i], num(c, a->dk)));
  const Expr *from = ex_add(c->p, at, ex_mul(c->p, first, num(c, a->is)));
  const Expr *to = ex_add(c->p, at, ex_mul(c->p, last, num(c, a->is)));
  return ex_and(c->p, ex_lt(c->p, num(c, -1), to), ex_lt(c->p, from, size));
}

/* A place from which all taps can be read: the value's own, or a channels-last copy with a halo. */
const Place *conv_input(Lower *l, const Node *n, const ConvInfo *conv, Step **steps) {
  const Value *x = n->in[0];
  int64_t lo[MAX_SPATIAL], hi[MAX_SPATIAL];
  bool reach = false;
  for (int s = 0; s < conv->spatial; s++) {
    lo[s] = n->plan->halo_lo[s];
    hi[s] = n->plan->halo_hi[s];
    reach = reach || lo[s] > 0 || hi[s] > 0;
  }
  const Place *own = x->inlined ? NULL : lower_place(l, x);
  /* Groups of channels are read as they are. */
  const ContractTypes *types = node_contract_types(n);
  const DType stored = contract_a_type(types);
  if (conv_reads_in_place(l->c->target, n, conv, own)) return own;
  int16_t *hl = ARENA_ARRAY(l->m->arena, int16_t, MAX_RANK),
          *hh = ARENA_ARRAY(l->m->arena, int16_t, MAX_RANK);
  int8_t *perm = arena_alloc(l->m->arena, MAX_RANK);
  for (int d = 0; d < x->rank; d++) perm[d] = (int8_t)(d == 0 ? 0 : d == x->rank - 1 ? 1 : d + 1);
  for (int s = 0; s < conv->spatial; s++) {
    hl[2 + s] = (int16_t)lo[s];
    hh[2 + s] = (int16_t)hi[s];
  }
  hh[1] = (int16_t)conv_channel_rest(l->c->target, n, conv);
  const bool keep = conv_copy_keeps_order(n, conv, own);
  const Layout layout = {
      .perm = keep ? NULL : perm, .halo_lo = hl, .halo_hi = hh, .fill = (int16_t)conv->pad_value};
  return contract_copy(l, x, stored, &layout, steps);
}

const Place *conv_input_stored(Lower *l, const Node *n, const ConvInfo *conv, Step **steps) {
  const Place *pl = conv_input(l, n, conv, steps);
  if (pl) return pl;
  const Value *x = n->in[0];
  Place *to = lower_temp(l, x->dtype, x->rank, x->dims, "input");
  step_append(steps, lower_read(l, x, to));
  return to;
}

static int add_k(Contract *c, const char *stem, const Expr *extent) {
  if (expr_is_i64(extent, 1)) return -1;
  c->k_extent[c->n_k] = extent;
  c->k[c->n_k] = ex_var(c->p, stem, extent);
  return c->n_k++;
}

static void conv_space(Contract *c, ConvCtx *v) {
  const int n = v->conv.spatial;
  contract_outer(c, v->x->dims[0]);
  if (v->conv.group > 1) contract_outer(c, num(c, v->conv.group));
  v->depth_outer = -1;
  const PlanLoops planned = plan_loops(c->anchor->def->plan, c->phase);
  c->flat =
      !v->lines && !planned.lines &&
      conv_is_flat(c->p, &v->conv, v->axis, v->x_place ? v->x_place->stride : NULL, c->to->stride);
  c->rows_h = num(c, 1);
  c->rows_w = v->axis[n - 1].rows;
  if (c->flat) {
    for (int s = 0; s + 1 < n; s++) c->rows_w = ex_mul(c->p, c->rows_w, v->axis[s].rows);
  } else {
    if (n > 1) c->rows_h = v->axis[n - 2].rows;
    if (n > 2) {
      v->depth_outer = c->n_outer;
      contract_outer(c, v->axis[0].rows);
    }
  }
  c->n = num(c, v->conv.c_out / v->conv.group);
}

/* Contracted loops with the smallest stride innermost: channels for channels-last inputs, else the
 * last taps. */
static void conv_contracted(Contract *c, ConvCtx *v) {
  const int n = v->conv.spatial;
  const Expr *channels = num(c, v->conv.c_in / v->conv.group);
  const bool groups = c->types->k_step > 1;
  const bool last = groups || (v->x_place && expr_is_i64(v->x_place->stride[1], 1));
  v->joined = last && contract_joins(c->types) && v->x_place->stride[1 + n] == channels;
  v->k_of[n] = last ? -1 : add_k(c, "c", channels);
  for (int s = 0; s < n - v->joined; s++) v->k_of[s] = add_k(c, "k", num(c, v->axis[s].taps));
  if (v->joined) {
    v->k_of[n - 1] = -1;
    channels = num(c, v->conv.c_in * v->axis[n - 1].taps);
  }
  if (groups) {
    v->k_of[n] = c->n_k;
    contract_last_k(c, "c", channels);
  } else if (last) {
    v->k_of[n] = add_k(c, "c", channels);
  }
  if (!c->n_k) contract_last_k(c, "k", num(c, 1));
}

/* Weights whose taps of a line lie outside their channels. */
static const ConstData *joined_weights(const Contract *c, const ConvCtx *v) {
  const ConstData *w = v->weights;
  const int64_t taps = v->conv.kernel[v->conv.spatial - 1], ic = v->conv.c_in;
  const int64_t lines = w->count / (v->conv.c_out * ic * taps);
  char *data = arena_alloc(c->l->m->arena, (size_t)w->count + 1), *to = data;
  const char *const from = w->data;
  for (int64_t o = 0; o < v->conv.c_out; o++)
    for (int64_t y = 0; y < lines; y++)
      for (int64_t x = 0; x < taps; x++)
        for (int64_t i = 0; i < ic; i++) *to++ = from[((o * ic + i) * lines + y) * taps + x];
  return const_new(c->l->m, w->name, w->dtype, 1, &w->count, data);
}

/* The strides of these, in lines of taps and channels. */
static void join_taps(const ConvCtx *v, PackShape *ps) {
  const int n = v->conv.spatial;
  for (int s = 0; s + 1 < n; s++)
    if (v->k_of[s] >= 0) ps->k_stride[v->k_of[s]] *= v->conv.c_in;
  ps->k[v->k_of[n]] = v->conv.c_in * v->conv.kernel[n - 1];
  ps->k_stride[v->k_of[n]] = 1;
}

static bool conv_pack_const(Contract *c, ConvCtx *v) {
  const int n = v->conv.spatial;
  const int64_t cig = v->conv.c_in / v->conv.group, cog = v->conv.c_out / v->conv.group;
  int64_t taps = 1, stride[MAX_SPATIAL] = {0};
  for (int s = n - 1; s >= 0; s--) {
    stride[s] = taps;
    taps *= v->conv.kernel[s];
  }
  PackShape ps = {.type = contract_packed_type(c),
                  .k_step = c->types->k_step,
                  .groups = v->conv.group,
                  .cols = cog,
                  .width = (int64_t)c->tile.vectors * c->lanes,
                  .lanes = c->lanes,
                  .n_k = c->n_k,
                  .scale = 1.0};
  /* Conv: [c_out, c_in/group, taps]; ConvTranspose: [c_in, c_out/group, taps] */
  const int64_t in_stride = v->conv.transposed ? cog * taps : taps;
  ps.col_stride = v->conv.transposed ? taps : cig * taps;
  ps.group_stride = v->conv.transposed ? cig * cog * taps : cog * cig * taps;
  for (int i = 0; i < c->n_k; i++) ps.k[i] = 1;
  for (int s = 0; s < n; s++) {
    ps.base += v->axis[s].k0 * stride[s];
    if (v->k_of[s] < 0) continue;
    ps.k[v->k_of[s]] = v->axis[s].taps;
    ps.k_stride[v->k_of[s]] = v->axis[s].kstep * stride[s];
  }
  if (v->k_of[n] >= 0) {
    ps.k[v->k_of[n]] = cig;
    ps.k_stride[v->k_of[n]] = in_stride;
  }
  if (v->joined) join_taps(v, &ps);
  if (!contract_pack_const(c, v->joined ? joined_weights(c, v) : v->weights, &ps)) return false;
  v->panel_group = c->l->mod->buffers.data[c->b_buffer].data->count / v->conv.group /
                   contract_panel_step(c->types);
  return true;
}

/* The weight of column col at the current taps and channel. */
static const Expr *conv_b(Contract *c, const Expr *col) {
  const ConvCtx *v = c->info;
  const int n = v->conv.spatial;
  const int64_t cig = v->conv.c_in / v->conv.group, cog = v->conv.c_out / v->conv.group;
  const Expr *group = conv_group(c, v), *idx[MAX_RANK];
  const Expr *ch = v->k_of[n] >= 0 ? c->k[v->k_of[n]] : num(c, 0);
  idx[0] = v->conv.transposed ? ex_add(c->p, ex_mul(c->p, group, num(c, cig)), ch)
                              : ex_add(c->p, ex_mul(c->p, group, num(c, cog)), col);
  idx[1] = v->conv.transposed ? col : ch;
  for (int s = 0; s < n; s++) {
    const Axis *a = &v->axis[s];
    idx[2 + s] = num(c, a->k0);
    if (v->k_of[s] >= 0)
      idx[2 + s] = ex_add(c->p, idx[2 + s], ex_mul(c->p, c->k[v->k_of[s]], num(c, a->kstep)));
  }
  return contract_operand_b(c, kernel_expr_read(&c->b.x, c->anchor->def->in[1], idx));
}

static bool conv_pack_computed(Contract *c, ConvCtx *v) {
  const int64_t width = (int64_t)c->tile.vectors * c->lanes, cog = v->conv.c_out / v->conv.group;
  const bool outer_of_b[MAX_RANK] = {false, v->conv.group > 1};
  v->panel_group = (cog + width - 1) / width * width;
  for (int i = 0; i < c->n_k; i++) {
    int64_t k = 1;
    expr_is_const(c->k_extent[i], &k);
    v->panel_group *= k;
  }
  v->packing = contract_pack_computed(c, outer_of_b, conv_b);
  return v->packing != NULL;
}

static bool conv_pack(Contract *c, ConvCtx *v) {
  return v->weights ? conv_pack_const(c, v) : conv_pack_computed(c, v);
}

/* Groups of fewer channels than a vector has lanes: neighbours are computed together, as one group
 * whose weights are zero between them. That multiplies more, in lanes that would have been idle.
 * NULL: overflow, or w is NULL (computed weights stay as they are). */
static const ConstData *merge_groups(Lower *l, ConvInfo *conv, const ConstData *w) {
  const int64_t cig = conv->c_in / conv->group, cog = conv->c_out / conv->group;
  const int64_t m = conv_merged_groups(l->c->target, conv, w);
  int64_t taps = 1, count;
  if (m < 2) return w;
  for (int s = 0; s < conv->spatial; s++) taps *= conv->kernel[s];
  if (!ck_mul(conv->c_out * cig * taps, m, &count)) return NULL;
  const bool floats = dtype_is_float(w->dtype);
  const DType type = floats ? DT_F32 : w->dtype;
  const size_t size = dtype_bytes(w->dtype), row = (size_t)(cig * taps), unit = dtype_bytes(type);
  char *data = arena_alloc(l->m->arena, unit * (size_t)count + 1);
  memset(data, 0, unit * (size_t)count);
  for (int64_t co = 0; co < conv->c_out; co++) {
    char *to = data + unit * row * (size_t)(co * m + co / cog % m);
    const char *from = (const char *)w->data + (size_t)co * row * size;
    if (type == w->dtype) memcpy(to, from, row * size);
    for (size_t i = 0; type != w->dtype && i < row; i++)
      dtype_store_f(type, to + i * unit, dtype_load_f(w->dtype, from + i * size));
  }
  conv->group /= m;
  return const_new(l->m, w->name, type, 1, &count, data);
}

/* A stride longer than the output leaves some of its phases without rows. */
static bool phase_is_empty(Lower *l, const Node *n, const ConvInfo *conv, int64_t phase) {
  Axis axis[MAX_SPATIAL];
  conv_axes(l->m, n, conv, phase, axis);
  for (int s = 0; s < conv->spatial; s++)
    if (expr_is_i64(axis[s].rows, 0)) return true;
  return false;
}

static bool conv_describe(Contract *c, ConvCtx *v, int64_t phase) {
  conv_axes(c->l->m, c->anchor->def, &v->conv, phase, v->axis);
  c->info = v;
  c->out_index = conv_out_index;
  c->a = conv_a;
  c->add = conv_add;
  c->b_offset = conv_b_offset;
  c->live = v->lines || v->conv.pad_value ? NULL : conv_live;
  conv_space(c, v);
  conv_contracted(c, v);
  contract_tile(c);
  c->live_share = live_share(c, v);
  return conv_pack(c, v);
}

bool conv_describe_rows(Contract *c, Lower *l, const Value *root, const Value *anchor,
                        const Place *to, const ConvInfo *conv, int64_t phase) {
  if (phase_is_empty(l, anchor->def, conv, phase)) return false;
  ConvCtx *const v = ARENA_NEW(l->m->arena, ConvCtx);
  *v = (ConvCtx){.conv = *conv, .x = anchor->def->in[0], .merged = true};
  const int n = conv->spatial;
  contract_begin(c, l, root, anchor, to, contract_by_element(l, node_contract_types(anchor->def)),
                 NULL);
  conv_axes(l->m, anchor->def, conv, phase, v->axis);
  c->info = v;
  c->out_index = conv_out_index;
  c->a = conv_a;
  c->add = conv_add;
  c->b_direct = conv_b;
  if (conv->group > 1) contract_outer(c, num(c, conv->group));
  c->flat = true;
  c->rows_h = num(c, 1);
  c->rows_w = v->x->dims[0];
  for (int s = 0; s < n; s++) c->rows_w = ex_mul(c->p, c->rows_w, v->axis[s].rows);
  c->n = num(c, conv->c_out / conv->group);
  for (int s = 0; s < n; s++) v->k_of[s] = add_k(c, "k", num(c, v->axis[s].taps));
  v->k_of[n] = add_k(c, "c", num(c, conv->c_in / conv->group));
  if (!c->n_k) contract_last_k(c, "k", num(c, 1));
  return true;
}

static Step *lower_conv_phase(Lower *l, const Value *root, const Value *anchor, const Place *to,
                              const ConvInfo *conv, const Place *x_place, const ConstData *weights,
                              int64_t phase) {
  Contract c;
  ConvCtx v = {.conv = *conv, .x = anchor->def->in[0], .x_place = x_place, .weights = weights};
  contract_begin(&c, l, root, anchor, to, node_contract_types(anchor->def), NULL);
  c.skips = anchor->def->plan->skips;
  c.phase = phase;
  if (!conv_describe(&c, &v, phase)) return NULL;
  Step *s = contract_emit(&c);
  if (!s) return NULL;
  step_append(&v.packing, s);
  return v.packing;
}

Stmt *lower_conv_lines(KernelBuild *b, const Value *root, const Value *anchor, const Place *to,
                       const ConvInfo *conv, const Place *x_place, const Lines *lines) {
  Contract c;
  ConvCtx v = {.conv = *conv, .x = anchor->def->in[0], .x_place = x_place, .lines = true};
  v.weights = anchor->def->in[1]->cdata;
  contract_init(&c, b->l, root, anchor, to, node_contract_types(anchor->def));
  kb_move(&c.b, b);
  c.outer[0] = lines->batch;
  Stmt *s = conv_describe(&c, &v, 0) ? contract_lines(&c, lines->first, lines->count) : NULL;
  kb_move(b, &c.b);
  return s;
}

static Step *lower_by_algorithm(Lower *l, const Value *root, const Value *anchor, const Place *to,
                                const ConvInfo *conv) {
  const Plan *const plan = anchor->def->plan;
  if (plan->algorithm == ALG_WINOGRAD) return lower_winograd(l, root, anchor, to, conv);
  Step *steps = NULL;
  const Place *x_place = conv_input(l, anchor->def, conv, &steps);
  Step *const thin =
      plan->algorithm == ALG_THIN ? lower_thin(l, root, anchor, to, conv, x_place) : NULL;
  if (thin) {
    step_append(&steps, thin);
    return steps;
  }
  ConvInfo merged = *conv;
  const ConstData *own = anchor->def->in[1]->cdata, *weights = merge_groups(l, &merged, own);
  if (own && !weights) {
    diag_error(l->m->diag, anchor->def->loc, ERR_OVERFLOW, "weights are too large");
    return NULL;
  }
  const int64_t phases = conv_phases(conv);
  for (int64_t ph = 0; ph < phases; ph++) {
    if (phase_is_empty(l, anchor->def, conv, ph)) continue;
    Step *s = lower_conv_phase(l, root, anchor, to, &merged, x_place, weights, ph);
    if (!s) return NULL;
    step_append(&steps, s);
  }
  return steps ? steps : &l->nothing;
}

Step *lower_conv(Lower *l, const Value *root, const Value *anchor, const Place *to,
                 const ConvInfo *conv) {
  Step *steps = lower_by_algorithm(l, root, anchor, to, conv);
  choice_mark(l->m->arena, steps, anchor->def->plan->key);
  return steps;
}
