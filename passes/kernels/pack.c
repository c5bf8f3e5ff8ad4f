/* Panels: right-hand sides in the order in which kernels read them, padded with zeros to whole
 * vectors and to whole steps of k. Constant ones are packed here, in the type of the panels; computed
 * ones by a kernel of their own before the contraction: [outer of B][panel][k…][lane] in the arena. */
#include "passes/build/nest.h"
#include "passes/kernels/contract.h"

#include <string.h>

/* Where the panels are written: pack_panels makes them, k inside columns inside groups. */
typedef struct Packer {
  const ConstData *w;
  const PackShape *s;
  int k_step;
  bool plain; /* pack_floats does it */
  bool same;  /* elements are only moved */
  char *out;
} Packer;

static void put_float(Packer *p, int64_t from) {
  const double v = const_float(p->w, from), scale = p->s->scale;
  dtype_store_f(p->s->type, p->out, p->s->type == DT_F32 ? (float)scale * (float)v : scale * v);
}

/* Element `from` of the weights (-1: padding) goes next. */
static void put(Packer *p, int64_t from) {
  const DType t = p->s->type;
  const size_t size = (size_t)dtype_bytes(t);
  if (from < 0)
    memset(p->out, 0, size);
  else if (p->same)
    memcpy(p->out, (const char *)p->w->data + (size_t)from * size, size);
  else if (dtype_is_float(t))
    put_float(p, from);
  else
    dtype_store_i(t, p->out, const_int(p->w, from));
  p->out += size;
}

static int64_t panel_lanes(const PackShape *s, int64_t first) {
  const int64_t left = s->cols - first;
  if (left >= s->width) return s->width;
  return (left + s->lanes - 1) / s->lanes * s->lanes;
}

/* What most weights are: floats as they come, one k at a time, at any address of a mapped file. */
static void pack_floats(Packer *p, int64_t at, int64_t first, int64_t lanes) {
  enum { BYTES = sizeof(float) };
  const PackShape *s = p->s;
  const char *from = (const char *)p->w->data + BYTES * (at + first * s->col_stride);
  const int64_t n = s->cols - first < lanes ? s->cols - first : lanes, step = BYTES * s->col_stride;
  const float scale = (float)s->scale;
  for (int64_t j = 0; j < n; j++) {
    float v;
    memcpy(&v, from + j * step, BYTES);
    v *= scale;
    memcpy(p->out + j * BYTES, &v, BYTES);
  }
  memset(p->out + n * BYTES, 0, (size_t)((lanes - n) * BYTES));
  p->out += lanes * BYTES;
}

/* `lanes` columns from `first`, of each the k_step elements of the last k from `k` on. */
static void pack_step(Packer *p, int64_t at, int64_t first, int64_t lanes, int64_t k) {
  const PackShape *s = p->s;
  const int last = s->n_k - 1;
  if (p->plain) {
    pack_floats(p, at + k * s->k_stride[last], first, lanes);
    return;
  }
  for (int64_t j = first; j < first + lanes; j++)
    for (int64_t i = k; i < k + p->k_step; i++)
      put(p, j < s->cols && i < s->k[last] ? at + i * s->k_stride[last] + j * s->col_stride : -1);
}

static void pack_rows(Packer *p, int depth, int64_t at, int64_t first, int64_t lanes) {
  const PackShape *s = p->s;
  const bool last = depth == s->n_k - 1;
  for (int64_t i = 0; i < s->k[depth]; i += last ? p->k_step : 1) {
    if (last)
      pack_step(p, at, first, lanes, i);
    else
      pack_rows(p, depth + 1, at + i * s->k_stride[depth], first, lanes);
  }
}

ConstData *pack_panels(Model *m, const ConstData *w, const PackShape *s) {
  int64_t lanes = 0, count, bytes;
  Packer p = {.w = w, .s = s, .k_step = s->k_step ? s->k_step : 1};
  p.plain = p.k_step == 1 && s->type == DT_F32 && w->dtype == DT_F32;
  p.same = s->type == w->dtype && dtype_rows[s->type].bits >= 8 && s->scale == 1;
  const int64_t last = s->k[s->n_k - 1];
  int64_t k = (last + p.k_step - 1) / p.k_step * p.k_step;
  for (int i = 0; i + 1 < s->n_k; i++) k *= s->k[i];
  for (int64_t c = 0; c < s->cols; c += s->width) lanes += panel_lanes(s, c);
  if (!ck_mul(k, lanes, &count) || !ck_mul(count, s->groups, &count) ||
      !ck_mul(count, dtype_bytes(s->type), &bytes))
    return NULL;
  char *data = p.out = arena_alloc(m->arena, (size_t)bytes);
  for (int64_t g = 0; g < s->groups; g++)
    for (int64_t c = 0; c < s->cols; c += s->width)
      pack_rows(&p, 0, s->base + g * s->group_stride, c, panel_lanes(s, c));
  return const_new(m, w->name, s->type, 1, &count, data);
}

/* ---- computed at run time ---- */

typedef struct PackLoops {
  const Expr *total, *all; /* the parallel loop, over outer dimensions of B and panels */
  const Expr *panel;
  int64_t width;
} PackLoops;

/* Binds the outer dimensions that B has to parts of one parallel loop. */
static PackLoops pack_loops(Contract *c, const bool *outer_of_b) {
  ExprPool *p = c->p;
  PackLoops s = {.width = (int64_t)c->tile.vectors * c->lanes};
  const Expr *panels = ex_ceildiv(p, c->n, s.width), *rest;
  s.total = panels;
  int first = -1;
  for (int i = c->n_outer - 1; i >= 0; i--) {
    if (!outer_of_b[i]) continue;
    s.total = ex_mul(p, s.total, c->outer_extent[i]);
    first = i;
  }
  s.all = ex_var(p, "p", s.total);
  s.panel = ex_floormod(p, s.all, panels);
  rest = ex_floordiv(p, s.all, panels);
  for (int i = c->n_outer - 1; i >= 0; i--) {
    if (!outer_of_b[i]) continue;
    c->outer[i] = i != first ? ex_floormod(p, rest, c->outer_extent[i]) : rest;
    rest = i != first ? ex_floordiv(p, rest, c->outer_extent[i]) : rest;
  }
  return s;
}

/* An element of B, zero behind the last column and, in groups, behind the last k. */
static const Expr *packed_element(Contract *c, const Expr *col,
                                  const Expr *(*b)(Contract *, const Expr *)) {
  ExprPool *p = c->p;
  const Expr *inside = ex_lt(p, col, c->n);
  if (c->types->k_step > 1) inside = ex_and(p, inside, ex_lt(p, c->k[c->n_k - 1], c->k_elements));
  const bool all = expr_is_i64(inside, 1);
  if (expr_is_i64(inside, 0)) return ex_int(p, DT_I32, 0); /* of the only group */
  c->b.x.guard = all ? NULL : inside;
  const Expr *e = b(c, col);
  c->b.x.guard = NULL;
  if (e->op != EX_LOAD && !all) e = ex_select(p, inside, e, ex_const(p, (DType)e->dtype, 0));
  return e;
}

/* What lane j of a panel holds at the current step of k. */
static const Expr *packed_value(Contract *c, const PackLoops *s, const Expr *j,
                                const Expr *(*b)(Contract *, const Expr *)) {
  ExprPool *p = c->p;
  const Expr *col = ex_add(p, ex_mul(p, s->panel, ex_i64(p, s->width)), j);
  const Expr *element[MAX_K_STEP], **k = &c->k[c->n_k - 1], *step = *k;
  for (int i = 0; i < c->types->k_step; i++) {
    *k = contract_element(c, ex_i64(p, i));
    element[i] = packed_element(c, col, b);
    *k = step;
  }
  return ex_cast(p, c->panel, contract_group(c, c->types->b, element));
}

/* The panels of types->across: byte i of lane j. */
static const Expr *packed_byte(Contract *c, const PackLoops *s, const Expr *j, const Expr *i,
                               const Expr *(*b)(Contract *, const Expr *)) {
  ExprPool *p = c->p;
  const Expr *col = ex_add(p, ex_mul(p, s->panel, ex_i64(p, s->width)), j);
  const Expr **k = &c->k[c->n_k - 1], *step = *k;
  *k = contract_element(c, i);
  const Expr *e = packed_element(c, col, b);
  *k = step;
  return ex_cast(p, c->panel, e);
}

/* Stores what lane j holds at `at`, in lanes. */
static Stmt *store_packed(Contract *c, const PackLoops *s, int to, const Expr *at, const Expr *j,
                          const Expr *(*b)(Contract *, const Expr *)) {
  Arena *a = c->l->m->arena;
  if (!c->types->across)
    return stmt_for(a, FOR_VECTOR, j, stmt_store(a, to, at, packed_value(c, s, j, b)));
  const Expr *step = ex_i64(c->p, c->types->k_step), *i = ex_var(c->p, "i", step);
  at = ex_add(c->p, ex_mul(c->p, at, step), i);
  Stmt *row = stmt_for(a, FOR_VECTOR, i, stmt_store(a, to, at, packed_byte(c, s, j, i, b)));
  return stmt_for(a, FOR_SERIAL, j, row);
}

/* Where the group of k and lane j lies. */
static const Expr *packed_at(const Contract *c, const PackLoops *s, const Expr *j) {
  ExprPool *p = c->p;
  const Expr *at = s->all, *step, *extent;
  for (int i = 0; i < c->n_k; i++) {
    const bool pairs = c->squares && i == c->n_k - 1;
    step = pairs ? ex_floordiv(p, c->k[i], ex_i64(p, 2)) : c->k[i];
    extent = pairs ? ex_floordiv(p, c->k_extent[i], ex_i64(p, 2)) : c->k_extent[i];
    at = ex_add(p, ex_mul(p, at, extent), step);
  }
  at = ex_add(p, ex_mul(p, at, ex_i64(p, s->width)), j);
  if (!c->squares) return at;
  const Expr *odd = ex_floormod(p, c->k[c->n_k - 1], ex_i64(p, 2));
  return ex_add(p, ex_mul(p, at, ex_i64(p, 2)), odd);
}

static const Place *packed_place(Contract *c, const PackLoops *s) {
  const Expr *dims[MAX_RANK];
  int n = 0;
  dims[n++] = s->total;
  for (int i = 0; i < c->n_k; i++) dims[n++] = c->k_extent[i];
  dims[n++] = ex_i64(c->p, s->width * contract_panel_step(c->types));
  return lower_temp(c->l, c->panel, n, dims, "panels");
}

/* Distance in B between elements that follow each other along k[i]; -1: it is not known. */
static int64_t k_distance(const Contract *c, const Expr *element, int i) {
  const Expr *coeff, *rest;
  int64_t distance;
  if (element->op != EX_LOAD || !expr_affine(c->p, element->a[0], c->k[i], &coeff, &rest) ||
      !expr_is_const(coeff, &distance))
    return -1;
  return distance < 0 ? -distance : distance;
}

/* The loops over k from the outermost on, as B lies in memory: what is far apart outside. */
static void order_k(const Contract *c, const Expr *element, int *order) {
  for (int i = 0; i < c->n_k; i++) {
    int at = i;
    const int64_t distance = k_distance(c, element, i);
    for (; at > 0 && distance > k_distance(c, element, order[at - 1]) &&
           k_distance(c, element, order[at - 1]) >= 0;
         at--)
      order[at] = order[at - 1];
    order[at] = i;
  }
}

Step *contract_pack_computed(Contract *c, const bool *outer_of_b,
                             const Expr *(*b)(Contract *c, const Expr *col)) {
  ExprPool *p = c->p;
  Arena *a = c->l->m->arena;
  c->panel = contract_computed_panel(c->types);
  Contract k = *c; /* the kernel that packs has its own parameters */
  kb_begin(&k.b, c->l, c->root, "pack");
  k.b.keys = c->b.keys;
  const PackLoops s = pack_loops(&k, outer_of_b);
  const Place *to = packed_place(&k, &s);
  for (int i = 0; i < k.n_k; i++) k.k[i] = ex_var(p, "k", k.k_extent[i]);
  const Expr *j = ex_var(p, "j", ex_i64(p, s.width));
  const Expr *at = packed_at(&k, &s, j);
  const int id = kb_param(&k.b, to->buffer, to->offset, PA_WRITE);
  Stmt *body = store_packed(&k, &s, id, at, j, b);
  double work = expr_extent_guess(p, s.total) * c->tile.vectors * 4;
  int order[MAX_K] = {0};
  order_k(&k, packed_element(&k, s.panel, b), order);
  for (int i = k.n_k - 1; i >= 0; i--) {
    body = stmt_for(a, FOR_SERIAL, k.k[order[i]], body);
    work *= expr_extent_guess(p, k.k_extent[order[i]]);
  }
  kb_estimate(&k.b, "pack", work);
  c->b_buffer = to->buffer;
  c->b_whole_panels = true;
  return kb_finish(&k.b, nest_parallel(&k.b, s.all, body, work));
}
