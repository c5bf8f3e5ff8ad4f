/* Winograd convolution F(m×m, 3×3), m = 2, 4 or 6, for 3×3 kernels of stride 1 (Lavin and Gray,
 * "Fast Algorithms for Convolutional Neural Networks", 2015): input tiles of (m+2)² are transformed
 * per channel, multiplied as (m+2)² matrix products, and transformed back into m×m outputs with the
 * epilogue. The multiplications shrink by 9m²/(m+2)²; the price is traffic for the transformed data
 * and (m+2)²/9 times the weights, which choose/winograd_cost.c weighs. Where that data is more than
 * the second-level cache holds, the three kernels run in turns over blocks of rows of tiles. Of three
 * dimensions the last two are transformed; taps of the first are steps of the sum, like channels,
 * which read other planes of the transformed input. In f32, of f16 values, too; 8-bit operands in 16
 * bits, their products in 32, exactly (choose/winograd_exact.c). */
#include "passes/build/winograd.h"
#include "passes/build/nest.h"
#include "passes/kernels/contract.h"

typedef struct Wino {
  Lower *l;
  ExprPool *p;
  const Value *root, *anchor;
  const Place *x_place;
  ConvInfo conv;
  WinogradForm form;
  const ContractTypes *types; /* of the products */
  int out, in, points;        /* m, m + 2, (m + 2)² */
  const Expr *h, *w;          /* output size */
  const Expr *th, *tw;        /* tiles */
  bool deep;                  /* three dimensions; always in blocks, of */
  int64_t planes;             /* planes, and of */
  int64_t lines;              /* rows of tiles in each */
  int64_t taps;               /* in depth */
  const Expr *batch;
  Place *v, *m;        /* transformed input and product: [points][batch·tiles][channels] */
  const Expr *rows;    /* tiles of a block: batch·tiles, if there is one only */
  const Expr *most;    /* of all blocks */
  const Expr *in_rows; /* of its input: of three dimensions taps - 1 planes more */
  const Expr *first;   /* of them, counted over all images */
  const Expr *blocks;  /* the variable that counts them, or NULL: one */
} Wino;

static const Expr *num(const Wino *t, int64_t v) { return ex_i64(t->p, v); }

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
  const Expr *x = ex_floormod(p, row, t->tw), *line = ex_floordiv(p, row, t->tw);
  const Expr *per = ex_floordiv(p, t->th, num(t, t->lines)),
             *block = ex_floordiv(p, t->blocks, per);
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
  const Expr *x = ex_floormod(t->p, row, t->tw);
  row = ex_floordiv(t->p, row, t->tw);
  const Expr *y = ex_floormod(t->p, row, t->th);
  return (Spot){ex_floordiv(t->p, row, t->th), NULL, ex_mul(t->p, y, num(t, t->out)),
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

static int tile_local(KernelBuild *b, StmtList *body, DType type, int b_points) {
  const int id =
      kernel_add_local(b->l->mod, b->k, (Local){.name = "t", .dtype = type, .count = b_points});
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
  const DType type = winograd_element(&t->form);
  const int in = kb_param(b, t->x_place->buffer, t->x_place->offset, PA_READ);
  const int out = kb_param(b, t->v->buffer, t->v->offset, PA_WRITE);
  const Expr *row = ex_var(t->p, "p", t->in_rows), *c = ex_var(t->p, "c", num(t, t->conv.c_in));
  const Spot spot = tile_of(t, row);
  StmtList body = {0};
  const int local = tile_local(b, &body, type, t->points);
  for (int j = 0; j < t->in; j++) {
    const Expr *d[WINOGRAD_IN], *q[WINOGRAD_IN], *idx[MAX_RANK];
    for (int i = 0; i < t->in; i++)
      d[i] = ex_cast(t->p, type,
                     ex_load(t->p, kb_dtype(b, in), in,
                             pixel_index(t, t->x_place, &spot, c, i, j, idx), NULL));
    winograd_input_line(&t->form, d, q);
    for (int i = 0; i < t->in; i++)
      stmt_add(&body, stmt_set(a, local, num(t, i * t->in + j), q[i]));
  }
  for (int i = 0; i < t->in; i++) {
    const Expr *d[WINOGRAD_IN], *q[WINOGRAD_IN];
    for (int j = 0; j < t->in; j++) d[j] = ex_local(t->p, type, local, num(t, i * t->in + j));
    winograd_input_line(&t->form, d, q);
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
static Stmt *inside(const Wino *t, Stmt *s, const Expr *at, const Expr *size, const Expr *tiles) {
  return ex_mul(t->p, tiles, num(t, t->out)) == size
             ? s
             : stmt_if(t->l->m->arena, ex_lt(t->p, at, size), s, NULL);
}

static Stmt *transform_output(Wino *t, KernelBuild *b, const Place *to) {
  Arena *a = t->l->m->arena;
  const DType type = winograd_product(&t->form);
  const int in = kb_param(b, t->m->buffer, t->m->offset, PA_READ);
  const int out = kb_param(b, to->buffer, to->offset, PA_WRITE);
  const Expr *row = ex_var(t->p, "p", t->rows), *c = ex_var(t->p, "c", num(t, t->conv.c_out));
  const Spot spot = tile_of(t, row);
  StmtList body = {0};
  const int local = tile_local(b, &body, type, t->points);
  for (int j = 0; j < t->in; j++) {
    const Expr *d[WINOGRAD_IN], *q[WINOGRAD_IN];
    for (int i = 0; i < t->in; i++)
      d[i] = ex_load(t->p, type, in, point_index(t, t->m, i * t->in + j, row, c), NULL);
    winograd_output_line(&t->form, d, q);
    for (int i = 0; i < t->out; i++)
      stmt_add(&body, stmt_set(a, local, num(t, i * t->in + j), q[i]));
  }
  for (int i = 0; i < t->out; i++) {
    const Expr *d[WINOGRAD_IN], *q[WINOGRAD_IN], *idx[MAX_RANK],
        *oy = ex_add(t->p, spot.y, num(t, i));
    StmtList line = {0};
    for (int j = 0; j < t->in; j++) d[j] = ex_local(t->p, type, local, num(t, i * t->in + j));
    winograd_output_line(&t->form, d, q);
    for (int j = 0; j < t->out; j++) {
      const Expr *at = pixel_index(t, to, &spot, c, i, j, idx);
      Stmt *s = stmt_store(a, out, at, epilogue(t, b, idx, winograd_sum(&t->form, q[j])));
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
  const Expr *plane = ex_mul(c->p, num(t, t->lines), t->tw); /* tiles of one, between taps */
  const Expr *row = c->n_k > 1 ? ex_add(c->p, w, ex_mul(c->p, c->k[0], plane)) : w;
  const Expr *idx[3] = {c->outer[0], row, c->k[c->n_k - 1]};
  const int id = kb_param(&c->b, t->v->buffer, t->v->offset, PA_READ);
  const Expr *at = place_index(c->p, t->v, 3, idx);
  return contract_operand_a(c, ex_load(c->p, winograd_element(&t->form), id, at, NULL));
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
  const int64_t steps = (t->conv.c_in + t->types->k_step - 1) / t->types->k_step;
  return ex_mul(c->p, c->outer[0], ex_i64(c->p, packed * t->taps * steps));
}

/* Weights as panels: of a point, taps in depth, then channels. */
static bool pack_weights(const Wino *t, Contract *c) {
  const int64_t ic = t->conv.c_in, oc = t->conv.c_out;
  Arena *scratch = arena_child(t->l->a);
  PackShape ps = {.type = contract_packed_type(c),
                  .k_step = t->types->k_step,
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
  const ConstData *w = t->anchor->def->in[1]->cdata;
  const bool ok =
      contract_pack_const(c, winograd_weights(&t->form, w, oc, ic, t->taps, scratch), &ps);
  arena_free(scratch);
  return ok;
}

/* Describes the products; c->b is the caller's to set. */
static bool products(Wino *t, Contract *of) {
  Contract c;
  contract_init(&c, t->l, t->root, t->anchor, t->m, t->types);
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
  if (t->taps > 1) {
    c.k_extent[0] = num(t, t->taps);
    c.k[c.n_k++] = ex_var(t->p, "k", c.k_extent[0]);
  }
  contract_last_k(&c, "c", num(t, t->conv.c_in));
  kb_move(&c.b, &of->b);
  contract_tile(&c);
  if (!pack_weights(t, &c)) return false;
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
  t->v = lower_temp(t->l, winograd_element(&t->form), 3, vd, "tiles");
  t->m = lower_temp(t->l, winograd_product(&t->form), 3, md, "products");
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

static Place *scratch_place(Wino *t, KernelBuild *b, DType type, const Expr *rows, int64_t channels,
                            const char *name) {
  Place *pl = ARENA_NEW(t->l->m->arena, Place);
  const Expr *row = num(t, stride_of(channels)), *point = ex_mul(t->p, rows, row);
  const int id = kb_scratch(b, type, ex_mul(t->p, num(t, t->points), point), name);
  pl->buffer = kb_scratch_place(id);
  pl->offset = num(t, 0);
  pl->stride = ARENA_ARRAY(t->l->m->arena, const Expr *, 3);
  pl->stride[0] = point;
  pl->stride[1] = row;
  pl->stride[2] = num(t, 1);
  return pl;
}

static const Expr *tiles_of_all(const Wino *t) {
  return t->deep ? ex_mul(t->p, expr_var_extent(t->p, t->blocks->id), t->rows)
                 : ex_mul(t->p, ex_mul(t->p, t->batch, t->th), t->tw);
}

/* Threads take blocks of rows of tiles; the transformed data of one stay in scratch memory and in
 * the cache. */
static Step *one_kernel(Wino *t, const Place *to) {
  Contract c;
  kb_begin(&c.b, t->l, t->root, "wino");
  const Expr *const in_rows = t->deep ? t->in_rows : t->most;
  t->v = scratch_place(t, &c.b, winograd_element(&t->form), in_rows, t->conv.c_in, "tiles");
  t->m = scratch_place(t, &c.b, winograd_product(&t->form), t->most, t->conv.c_out, "products");
  StmtList body = {0};
  stmt_add(&body, transform_input(t, &c.b));
  if (!products(t, &c)) return NULL;
  stmt_add(&body, contract_inner(&c));
  stmt_add(&body, transform_output(t, &c.b, to));
  const double cycles = winograd_cycles(t->l->c, t->anchor->def, &t->conv, t->out);
  kb_estimate(&c.b, "winograd", cycles);
  c.b.k->flops =
      ex_mul(t->p, tiles_of_all(t), num(t, 2 * t->points * t->taps * t->conv.c_in * t->conv.c_out));
  return kb_finish(&c.b, nest_parallel(&c.b, t->blocks, body.first, cycles));
}

static void deep_blocks(Wino *t) {
  int64_t depth = 0;
  expr_is_const(t->root->dims[2], &depth);
  const Expr *of_plane = ex_floordiv(t->p, t->th, num(t, t->lines)),
             *plane = ex_mul(t->p, num(t, t->lines), t->tw);
  const Expr *of_image = ex_mul(t->p, of_plane, num(t, depth / t->planes));
  t->blocks = ex_var(t->p, "p", ex_mul(t->p, t->batch, of_image));
  t->most = t->rows = ex_mul(t->p, num(t, t->planes), plane);
  t->in_rows = ex_mul(t->p, num(t, t->planes + t->taps - 1), plane);
}

static const Expr *quotient_up(const Wino *t, const Expr *a, const Expr *b) {
  return ex_floordiv(t->p, ex_add(t->p, a, ex_sub(t->p, b, num(t, 1))), b);
}

/* Blocks of at least `tiles` tiles, wherever their rows end, where there are as many: what is left is
 * shared out, since weights come by for each block. */
static void part_tiles(Wino *t, int64_t tiles) {
  const Expr *const all = t->rows, *one = num(t, 1);
  const Expr *count = ex_max(t->p, ex_floordiv(t->p, all, num(t, tiles)), one);
  t->most = num(t, 2 * tiles - 1);
  const Expr *size = ex_min(t->p, ex_max(t->p, quotient_up(t, all, count), one), t->most);
  t->blocks = ex_var(t->p, "p", quotient_up(t, all, size));
  t->first = ex_mul(t->p, t->blocks, size);
  t->rows = t->in_rows = ex_min(t->p, size, ex_sub(t->p, all, t->first));
}

/* Sets the rows of a block, and t->blocks where there are several. */
static void choose_blocks(Wino *t) {
  const int64_t lines = t->lines = t->anchor->def->plan->block;
  if (t->deep) {
    deep_blocks(t);
    return;
  }
  const Expr *const all = ex_mul(t->p, t->batch, t->th);
  t->first = num(t, 0);
  t->rows = t->in_rows = ex_mul(t->p, all, t->tw);
  if (!lines) return;
  if (winograd_counts_tiles(t->anchor->def, &t->conv)) {
    part_tiles(t, lines);
    return;
  }
  t->blocks = ex_var(t->p, "p", ex_floordiv(t->p, all, num(t, lines)));
  t->most = t->rows = t->in_rows = ex_mul(t->p, num(t, lines), t->tw);
  t->first = ex_mul(t->p, t->blocks, t->most);
}

Step *lower_winograd(Lower *l, const Value *root, const Value *anchor, const Place *to,
                     const ConvInfo *conv) {
  Wino t = {.l = l, .p = l->p, .root = root, .anchor = anchor, .conv = *conv};
  Step *steps = NULL;
  t.deep = conv->spatial == 3;
  t.taps = t.deep ? conv->kernel[0] : 1;
  t.planes = anchor->def->plan->planes;
  t.h = root->dims[2 + t.deep];
  t.w = root->dims[3 + t.deep];
  t.out = anchor->def->plan->winograd;
  t.types = winograd_types(l->c->target, anchor->def);
  t.form = (WinogradForm){l->p, t.out, !dtype_is_float(t.types->acc)};
  t.in = t.out + 2;
  t.points = t.in * t.in;
  t.th = ex_ceildiv(t.p, t.h, t.out);
  t.tw = ex_ceildiv(t.p, t.w, t.out);
  t.batch = root->dims[0];
  choose_blocks(&t);
  t.x_place = conv_input_stored(l, anchor->def, conv, &steps);
  Step *s = t.blocks ? one_kernel(&t, to) : three_kernels(&t, to);
  if (!s) return NULL;
  step_append(&steps, s);
  return steps;
}
