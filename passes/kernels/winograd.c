/* Winograd convolution F(m×m, 3×3), m = 2, 4 or 6, for 3×3 kernels of stride 1 (Lavin and Gray,
 * "Fast Algorithms for Convolutional Neural Networks", 2015): input tiles of (m+2)² are transformed
 * per channel, multiplied as (m+2)² matrix products, and transformed back into m×m outputs with the
 * epilogue. The multiplications shrink by 9m²/(m+2)²; the price is traffic for the transformed data
 * and (m+2)²/9 times the weights, which choose/winograd_cost.c weighs. Where that data is more than
 * the second-level cache holds, the three kernels run in turns over blocks of rows of tiles. Of three
 * dimensions the last two are transformed; taps of the first are steps of the sum, like channels,
 * which read other planes of the transformed input. All in f32, of f16 values, too. */
#include "passes/build/nest.h"
#include "passes/kernels/contract.h"


enum { MAX_IN = 8, MAX_POINTS = MAX_IN * MAX_IN };

typedef struct Wino {
  Lower *l;
  ExprPool *p;
  const Value *root, *anchor;
  const Place *x_place;
  ConvInfo conv;
  int out, in, points; /* m, m + 2, (m + 2)² */
  int64_t h, w;        /* output size */
  int64_t th, tw;      /* tiles */
  bool deep;           /* three dimensions; always in blocks, of */
  int64_t planes;      /* planes, and of */
  int64_t lines;       /* rows of tiles in each */
  int64_t taps;        /* in depth */
  const Expr *batch;
  Place *v, *m;        /* transformed input and product: [points][batch·tiles][channels] */
  const Expr *rows;    /* tiles of a block: batch·tiles, if there is one only */
  const Expr *in_rows; /* of its input: of three dimensions taps - 1 planes more */
  const Expr *first;   /* of them, counted over all images */
  const Expr *blocks;  /* the variable that counts them, or NULL: one */
} Wino;

static const Expr *num(const Wino *t, int64_t v) { return ex_i64(t->p, v); }
static const Expr *f32(const Wino *t, double v) { return ex_float(t->p, DT_F32, v); }

/* ---- transforms as expressions ---- */

static const Expr *add(const Wino *t, const Expr *a, const Expr *b) { return ex_add(t->p, a, b); }
static const Expr *sub(const Wino *t, const Expr *a, const Expr *b) { return ex_sub(t->p, a, b); }
static const Expr *mad(const Wino *t, double k, const Expr *a, const Expr *b) { /* k*a + b */
  return ex_op(t->p, EX_fma, a, f32(t, k), b);
}

/* F(6, 3): the points 0, ±1, ±2, ±1/2, ∞. */
static void input_line_six(const Wino *t, const Expr *const *x, const Expr **y) {
  const Expr *a = mad(t, -4.25, x[4], add(t, x[2], x[6])),
             *b = mad(t, -4.25, x[3], add(t, x[1], x[5]));
  const Expr *c = mad(t, 0.25, x[2], mad(t, -1.25, x[4], x[6])),
             *d = mad(t, 0.25, x[1], mad(t, -1.25, x[3], x[5]));
  const Expr *e = mad(t, 4, x[2], mad(t, -5, x[4], x[6])),
             *f = mad(t, 4, x[1], mad(t, -5, x[3], x[5]));
  y[0] = mad(t, 5.25, sub(t, x[4], x[2]), sub(t, x[0], x[6]));
  y[1] = add(t, a, b);
  y[2] = sub(t, a, b);
  y[3] = mad(t, 2, d, c);
  y[4] = mad(t, -2, d, c);
  y[5] = mad(t, 0.5, f, e);
  y[6] = mad(t, -0.5, f, e);
  y[7] = mad(t, 5.25, sub(t, x[3], x[5]), sub(t, x[7], x[1]));
}

/* The values of a row or column through Bᵀ. */
static void input_line(const Wino *t, const Expr *const *x, const Expr **y) {
  if (t->out == 2) {
    y[0] = sub(t, x[0], x[2]);
    y[1] = add(t, x[1], x[2]);
    y[2] = sub(t, x[2], x[1]);
    y[3] = sub(t, x[1], x[3]);
    return;
  }
  if (t->out == 6) {
    input_line_six(t, x, y);
    return;
  }
  const Expr *a = mad(t, -4, x[2], x[4]), *b = mad(t, -4, x[1], x[3]);
  const Expr *c = sub(t, x[4], x[2]), *d = sub(t, x[3], x[1]);
  y[0] = mad(t, 4, x[0], mad(t, -5, x[2], x[4]));
  y[1] = add(t, a, b);
  y[2] = sub(t, a, b);
  y[3] = mad(t, 2, d, c);
  y[4] = mad(t, -2, d, c);
  y[5] = mad(t, 4, x[1], mad(t, -5, x[3], x[5]));
}

static void output_line_six(const Wino *t, const Expr *const *m, const Expr **y) {
  const Expr *s = add(t, m[1], m[2]), *d = sub(t, m[1], m[2]), *p = add(t, m[3], m[4]),
             *q = sub(t, m[3], m[4]), *u = add(t, m[5], m[6]), *v = sub(t, m[5], m[6]);
  y[0] = add(t, add(t, m[0], s), add(t, p, u));
  y[1] = mad(t, 2, q, mad(t, 0.5, v, d));
  y[2] = mad(t, 4, p, mad(t, 0.25, u, s));
  y[3] = mad(t, 8, q, mad(t, 0.125, v, d));
  y[4] = mad(t, 16, p, mad(t, 0.0625, u, s));
  y[5] = mad(t, 32, q, mad(t, 0.03125, v, add(t, d, m[7])));
}

/* The products of a row or column through Aᵀ to m outputs. */
static void output_line(const Wino *t, const Expr *const *m, const Expr **y) {
  if (t->out == 2) {
    y[0] = add(t, m[0], add(t, m[1], m[2]));
    y[1] = sub(t, sub(t, m[1], m[2]), m[3]);
    return;
  }
  if (t->out == 6) {
    output_line_six(t, m, y);
    return;
  }
  const Expr *s = add(t, m[1], m[2]), *d = sub(t, m[1], m[2]), *p = add(t, m[3], m[4]),
             *q = sub(t, m[3], m[4]);
  y[0] = add(t, add(t, m[0], s), p);
  y[1] = mad(t, 2, q, d);
  y[2] = mad(t, 4, p, s);
  y[3] = add(t, mad(t, 8, q, d), m[5]);
}

/* G of F(2, 3), F(4, 3) and F(6, 3). */
static const double g_two[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
static const double g_four[6][3] = {{0.25, 0, 0},
                                    {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                    {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                    {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                    {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                    {0, 0, 1}};
static const double g_six[8][3] = {{1, 0, 0},
                                   {-2.0 / 9, -2.0 / 9, -2.0 / 9},
                                   {-2.0 / 9, 2.0 / 9, -2.0 / 9},
                                   {1.0 / 90, 1.0 / 45, 2.0 / 45},
                                   {1.0 / 90, -1.0 / 45, 2.0 / 45},
                                   {32.0 / 45, 16.0 / 45, 8.0 / 45},
                                   {32.0 / 45, -16.0 / 45, 8.0 / 45},
                                   {0, 0, 1}};

/* G g Gᵀ in double precision. */
static void transform_weight(const Wino *t, const float *g, float *out, int64_t step) {
  const double(*gm)[3] = t->out == 2 ? g_two : t->out == 4 ? g_four : g_six;
  double half[MAX_IN][3];
  for (int i = 0; i < t->in; i++)
    for (int k = 0; k < 3; k++)
      half[i][k] =
          gm[i][0] * (double)g[k] + gm[i][1] * (double)g[3 + k] + gm[i][2] * (double)g[6 + k];
  for (int i = 0; i < t->in; i++)
    for (int j = 0; j < t->in; j++)
      out[(i * t->in + j) * step] =
          (float)(gm[j][0] * half[i][0] + gm[j][1] * half[i][1] + gm[j][2] * half[i][2]);
}

/* All weights as [points][taps][c_in][c_out]. */
static ConstData *transform_weights(const Wino *t, Arena *scratch) {
  const int64_t ic = t->conv.c_in, oc = t->conv.c_out, taps = t->taps;
  const int64_t step = taps * ic * oc, count = t->points * step;
  float *u = ARENA_ARRAY(scratch, float, count);
  const ConstData *w = t->anchor->def->in[1]->cdata;
  for (int64_t o = 0; o < oc; o++)
    for (int64_t i = 0; i < ic * taps; i++) {
      float g[9];
      for (int k = 0; k < 9; k++) g[k] = (float)const_float(w, (o * ic * taps + i) * 9 + k);
      transform_weight(t, g, u + (i % taps * ic + i / taps) * oc + o, step);
    }
  ConstData *d = ARENA_NEW(scratch, ConstData);
  *d = (ConstData){.dtype = DT_F32, .count = count, .data = u};
  return d;
}

/* ---- kernels ---- */

/* Of a tile: image, plane, first row and column of its output. */
typedef struct Spot {
  const Expr *n, *d, *y, *x;
} Spot;

/* The tile in a row of a block of three dimensions. */
static Spot deep_tile(const Wino *t, const Expr *row) {
  ExprPool *p = t->p;
  int64_t depth = 1;
  expr_is_const(t->root->dims[2], &depth);
  const Expr *x = ex_floormod(p, row, num(t, t->tw)), *line = ex_floordiv(p, row, num(t, t->tw));
  const Expr *per = num(t, t->th / t->lines), *block = ex_floordiv(p, t->blocks, per);
  const Expr *all = num(t, depth / t->planes);
  const Expr *y = ex_add(p, ex_mul(p, ex_floormod(p, t->blocks, per), num(t, t->lines)),
                         ex_floormod(p, line, num(t, t->lines)));
  const Expr *d = ex_add(p, ex_mul(p, ex_floormod(p, block, all), num(t, t->planes)),
                         ex_floordiv(p, line, num(t, t->lines)));
  return (Spot){ex_floordiv(p, block, all), d, ex_mul(p, y, num(t, t->out)),
                ex_mul(p, x, num(t, t->out))};
}

static Spot tile_of(const Wino *t, const Expr *row) {
  if (t->deep) return deep_tile(t, row);
  row = ex_add(t->p, t->first, row);
  const Expr *x = ex_floormod(t->p, row, num(t, t->tw));
  row = ex_floordiv(t->p, row, num(t, t->tw));
  const Expr *y = ex_floormod(t->p, row, num(t, t->th));
  return (Spot){ex_floordiv(t->p, row, num(t, t->th)), NULL, ex_mul(t->p, y, num(t, t->out)),
                ex_mul(t->p, x, num(t, t->out))};
}

/* Channel c of the pixel (i, j) of the tile at s, in input or output. */
static const Expr *pixel_index(const Wino *t, const Place *pl, const Spot *s, const Expr *c, int i,
                               int j, const Expr **idx) {
  const int64_t *pad = t->conv.pad_lo;
  const bool input = pl == t->x_place;
  int at = 0;
  idx[at++] = s->n;
  idx[at++] = c;
  if (t->deep) idx[at++] = input ? ex_add(t->p, s->d, num(t, -pad[0])) : s->d;
  idx[at++] = ex_add(t->p, s->y, num(t, i - (input ? pad[t->deep] : 0)));
  idx[at++] = ex_add(t->p, s->x, num(t, j - (input ? pad[t->deep + 1] : 0)));
  return place_index(t->p, pl, at, idx);
}

static int tile_local(KernelBuild *b, StmtList *body, int b_points) {
  const int id =
      kernel_add_local(b->l->mod, b->k, (Local){.name = "t", .dtype = DT_F32, .count = b_points});
  stmt_add(body, stmt_local(b->l->m->arena, id));
  return id;
}

static const Expr *point_index(const Wino *t, const Place *pl, int point, const Expr *row,
                               const Expr *c) {
  const Expr *idx[3] = {num(t, point), row, c};
  return place_index(t->p, pl, 3, idx);
}

/* The loop over rows of tiles around one of the transforms; `cycles`: of all. */
static Stmt *over_rows(Wino *t, KernelBuild *b, const Expr *row, Stmt *body, double cycles) {
  if (t->blocks) return stmt_for(t->l->m->arena, FOR_SERIAL, row, body);
  kb_estimate(b, "winograd", cycles);
  return nest_parallel(b, row, body, cycles);
}

static Stmt *transform_input(Wino *t, KernelBuild *b) {
  Arena *a = t->l->m->arena;
  const int in = kb_param(b, t->x_place->buffer, t->x_place->offset, PA_READ);
  const int out = kb_param(b, t->v->buffer, t->v->offset, PA_WRITE);
  const Expr *row = ex_var(t->p, "p", t->in_rows), *c = ex_var(t->p, "c", num(t, t->conv.c_in));
  const Spot spot = tile_of(t, row);
  StmtList body = {0};
  const int local = tile_local(b, &body, t->points);
  for (int j = 0; j < t->in; j++) {
    const Expr *d[MAX_IN], *q[MAX_IN], *idx[MAX_RANK];
    for (int i = 0; i < t->in; i++)
      d[i] = ex_cast(t->p, DT_F32,
                     ex_load(t->p, kb_dtype(b, in), in,
                             pixel_index(t, t->x_place, &spot, c, i, j, idx), NULL));
    input_line(t, d, q);
    for (int i = 0; i < t->in; i++)
      stmt_add(&body, stmt_set(a, local, num(t, i * t->in + j), q[i]));
  }
  for (int i = 0; i < t->in; i++) {
    const Expr *d[MAX_IN], *q[MAX_IN];
    for (int j = 0; j < t->in; j++) d[j] = ex_local(t->p, DT_F32, local, num(t, i * t->in + j));
    input_line(t, d, q);
    for (int j = 0; j < t->in; j++)
      stmt_add(&body, stmt_store(a, out, point_index(t, t->v, i * t->in + j, row, c), q[j]));
  }
  const double cycles =
      winograd_input_cycles(t->l->c, &t->conv, t->out, expr_extent_guess(t->p, t->in_rows));
  return over_rows(t, b, row, stmt_for(a, FOR_VECTOR, c, body.first), cycles);
}

static const Expr *epilogue(Wino *t, KernelBuild *b, const Expr *const *idx, const Expr *sum) {
  return kb_epilogue(b, t->root, t->anchor, idx, kb_conv_bias(b, t->anchor, idx, sum));
}

/* A store that whole tiles at the edge must not do beyond the output. */
static Stmt *inside(const Wino *t, Stmt *s, const Expr *at, int64_t size, int64_t tiles) {
  return tiles * t->out == size ? s
                                : stmt_if(t->l->m->arena, ex_lt(t->p, at, num(t, size)), s, NULL);
}

static Stmt *transform_output(Wino *t, KernelBuild *b, const Place *to) {
  Arena *a = t->l->m->arena;
  const int in = kb_param(b, t->m->buffer, t->m->offset, PA_READ);
  const int out = kb_param(b, to->buffer, to->offset, PA_WRITE);
  const Expr *row = ex_var(t->p, "p", t->rows), *c = ex_var(t->p, "c", num(t, t->conv.c_out));
  const Spot spot = tile_of(t, row);
  StmtList body = {0};
  const int local = tile_local(b, &body, t->points);
  for (int j = 0; j < t->in; j++) {
    const Expr *d[MAX_IN], *q[MAX_IN];
    for (int i = 0; i < t->in; i++)
      d[i] = ex_load(t->p, DT_F32, in, point_index(t, t->m, i * t->in + j, row, c), NULL);
    output_line(t, d, q);
    for (int i = 0; i < t->out; i++)
      stmt_add(&body, stmt_set(a, local, num(t, i * t->in + j), q[i]));
  }
  for (int i = 0; i < t->out; i++) {
    const Expr *d[MAX_IN], *q[MAX_IN], *idx[MAX_RANK], *oy = ex_add(t->p, spot.y, num(t, i));
    StmtList line = {0};
    for (int j = 0; j < t->in; j++) d[j] = ex_local(t->p, DT_F32, local, num(t, i * t->in + j));
    output_line(t, d, q);
    for (int j = 0; j < t->out; j++) {
      const Expr *at = pixel_index(t, to, &spot, c, i, j, idx);
      Stmt *s = stmt_store(a, out, at, epilogue(t, b, idx, q[j]));
      stmt_add(&line, inside(t, s, ex_add(t->p, spot.x, num(t, j)), t->w, t->tw));
    }
    stmt_add(&body, inside(t, line.first, oy, t->h, t->th));
  }
  const double cycles =
      winograd_output_cycles(t->l->c, &t->conv, t->out, expr_extent_guess(t->p, t->rows));
  return over_rows(t, b, row, stmt_for(a, FOR_VECTOR, c, body.first), cycles);
}

/* ---- the products ---- */

static const Expr *product_a(Contract *c, const Expr *h, const Expr *w) {
  const Wino *t = c->info;
  const Expr *plane = num(t, t->lines * t->tw); /* tiles of one, between taps */
  const Expr *row = c->n_k > 1 ? ex_add(c->p, w, ex_mul(c->p, c->k[0], plane)) : w;
  const Expr *idx[3] = {c->outer[0], row, c->k[c->n_k - 1]};
  const int id = kb_param(&c->b, t->v->buffer, t->v->offset, PA_READ);
  return ex_load(c->p, DT_F32, id, place_index(c->p, t->v, 3, idx), NULL);
}

static void product_index(const Contract *c, const Expr *h, const Expr *w, const Expr *col,
                          const Expr **idx) {
  idx[0] = c->outer[0];
  idx[1] = w;
  idx[2] = col;
}

static const Expr *product_b_offset(const Contract *c) {
  const Wino *t = c->info;
  const int64_t lanes = c->lanes, width = c->tile.vectors * lanes, full = t->conv.c_out / width,
                rest = t->conv.c_out % width;
  const int64_t packed = full * width + (rest + lanes - 1) / lanes * lanes;
  return ex_mul(c->p, c->outer[0], ex_i64(c->p, packed * t->taps * t->conv.c_in));
}

static void add_k(const Wino *t, Contract *c, const char *stem, int64_t n) {
  c->k_extent[c->n_k] = num(t, n);
  c->k[c->n_k] = ex_var(t->p, stem, c->k_extent[c->n_k]);
  c->n_k++;
}

/* Weights as panels: of a point, taps in depth, then channels. */
static ConstData *pack_weights(const Wino *t, const Contract *c) {
  const int64_t ic = t->conv.c_in, oc = t->conv.c_out;
  Arena *scratch = arena_child(t->l->a);
  PackShape ps = {.type = DT_F32,
                  .groups = t->points,
                  .group_stride = t->taps * ic * oc,
                  .cols = oc,
                  .col_stride = 1,
                  .n_k = c->n_k,
                  .k = {t->taps},
                  .k_stride = {ic * oc},
                  .width = (int64_t)c->tile.vectors * c->lanes,
                  .lanes = c->lanes,
                  .scale = 1.0};
  ps.k[c->n_k - 1] = ic;
  ps.k_stride[c->n_k - 1] = oc;
  ConstData *packed = pack_panels(t->l->m, transform_weights(t, scratch), &ps);
  arena_free(scratch);
  return packed;
}

/* Describes the products; c->b is the caller's to set. */
static bool products(Wino *t, Contract *of) {
  Contract c;
  contract_init(&c, t->l, t->root, t->anchor, t->m, contract_types(DT_F32, DT_F32));
  c.plain_rank = 3;
  c.info = t;
  c.a = product_a;
  c.out_index = product_index;
  c.b_offset = product_b_offset;
  c.flat = true;
  c.outer_extent[c.n_outer++] = num(t, t->points);
  c.rows_h = num(t, 1);
  c.rows_w = t->rows;
  c.n = num(t, t->conv.c_out);
  if (t->taps > 1) add_k(t, &c, "k", t->taps);
  add_k(t, &c, "c", t->conv.c_in);
  kb_move(&c.b, &of->b);
  contract_tile(&c);
  const ConstData *packed = pack_weights(t, &c);
  if (!packed) return false;
  c.b_buffer = contract_weights(t->l, packed);
  *of = c;
  of->b.x.user = &of->b;
  return true;
}

/* ---- the whole ---- */

/* rows a multiple of 2 KiB apart would share few cache sets: strides of one more line */
static int64_t stride_of(int64_t channels) { return channels + (channels % 512 ? 0 : 16); }

static Step *three_kernels(Wino *t, const Place *to) {
  Step *steps = NULL;
  const Expr *vd[3] = {num(t, t->points), t->rows, num(t, stride_of(t->conv.c_in))},
             *md[3] = {vd[0], t->rows, num(t, stride_of(t->conv.c_out))};
  t->v = lower_temp(t->l, DT_F32, 3, vd, "tiles");
  t->m = lower_temp(t->l, DT_F32, 3, md, "products");
  KernelBuild in, out;
  kb_begin(&in, t->l, t->anchor, "wino_in");
  step_append(&steps, kb_finish(&in, transform_input(t, &in)));
  Contract c;
  kb_begin(&c.b, t->l, t->root, "wino");
  if (!products(t, &c)) return NULL;
  Step *s = contract_emit(&c);
  if (!s) return NULL;
  step_append(&steps, s);
  kb_begin(&out, t->l, t->root, "wino_out");
  step_append(&steps, kb_finish(&out, transform_output(t, &out, to)));
  return steps;
}

static Place *scratch_place(Wino *t, KernelBuild *b, const Expr *rows, int64_t channels,
                            const char *name) {
  Place *pl = ARENA_NEW(t->l->m->arena, Place);
  const Expr *row = num(t, stride_of(channels)), *point = ex_mul(t->p, rows, row);
  const int id = kb_scratch(b, DT_F32, ex_mul(t->p, num(t, t->points), point), name);
  pl->buffer = kb_scratch_place(id);
  pl->offset = num(t, 0);
  pl->stride = ARENA_ARRAY(t->l->m->arena, const Expr *, 3);
  pl->stride[0] = point;
  pl->stride[1] = row;
  pl->stride[2] = num(t, 1);
  return pl;
}

/* Threads take blocks of rows of tiles; the transformed data of one stay in scratch memory and in
 * the cache. */
static Step *one_kernel(Wino *t, const Place *to) {
  Contract c;
  kb_begin(&c.b, t->l, t->root, "wino");
  t->v = scratch_place(t, &c.b, t->in_rows, t->conv.c_in, "tiles");
  t->m = scratch_place(t, &c.b, t->rows, t->conv.c_out, "products");
  StmtList body = {0};
  stmt_add(&body, transform_input(t, &c.b));
  if (!products(t, &c)) return NULL;
  stmt_add(&body, contract_inner(&c));
  stmt_add(&body, transform_output(t, &c.b, to));
  const double cycles = winograd_cycles(t->l->c, t->anchor->def, &t->conv, t->out);
  kb_estimate(&c.b, "winograd", cycles);
  c.b.k->flops = ex_mul(t->p, ex_mul(t->p, expr_var_extent(t->p, t->blocks->id), t->rows),
                        num(t, 2 * t->points * t->taps * t->conv.c_in * t->conv.c_out));
  return kb_finish(&c.b, nest_parallel(&c.b, t->blocks, body.first, cycles));
}

static void deep_blocks(Wino *t) {
  int64_t depth = 0;
  expr_is_const(t->root->dims[2], &depth);
  const int64_t of_image = t->th / t->lines * (depth / t->planes), plane = t->lines * t->tw;
  t->blocks = ex_var(t->p, "p", ex_mul(t->p, t->batch, num(t, of_image)));
  t->rows = num(t, t->planes * plane);
  t->in_rows = num(t, (t->planes + t->taps - 1) * plane);
}

/* Sets the rows of a block, and t->blocks where there are several. */
static void choose_blocks(Wino *t) {
  const int64_t lines = t->lines = t->anchor->def->plan->block;
  if (t->deep) {
    deep_blocks(t);
    return;
  }
  const Expr *const all = ex_mul(t->p, t->batch, num(t, t->th));
  t->first = num(t, 0);
  t->rows = t->in_rows = ex_mul(t->p, all, num(t, t->tw));
  if (!lines) return;
  t->blocks = ex_var(t->p, "p", ex_floordiv(t->p, all, num(t, lines)));
  t->first = ex_mul(t->p, t->blocks, num(t, lines * t->tw));
  t->rows = t->in_rows = num(t, lines * t->tw);
}

Step *lower_winograd(Lower *l, const Value *root, const Value *anchor, const Place *to,
                     const ConvInfo *conv) {
  Wino t = {.l = l, .p = l->p, .root = root, .anchor = anchor, .conv = *conv};
  Step *steps = NULL;
  t.deep = conv->spatial == 3;
  t.taps = t.deep ? conv->kernel[0] : 1;
  t.planes = anchor->def->plan->planes;
  expr_is_const(root->dims[2 + t.deep], &t.h);
  expr_is_const(root->dims[3 + t.deep], &t.w);
  t.out = anchor->def->plan->winograd;
  t.in = t.out + 2;
  t.points = t.in * t.in;
  t.th = (t.h + t.out - 1) / t.out;
  t.tw = (t.w + t.out - 1) / t.out;
  t.batch = root->dims[0];
  choose_blocks(&t);
  t.x_place = conv_input_stored(l, anchor->def, conv, &steps);
  Step *s = t.blocks ? one_kernel(&t, to) : three_kernels(&t, to);
  if (!s) return NULL;
  step_append(&steps, s);
  return steps;
}
