/* When a 3×3 convolution, or one of three dimensions whose last two are so, is worth a Winograd form
 * (kernels/winograd.c), and in blocks of how many rows of tiles and planes: multiplications saved
 * against traffic for the transformed data and weights. */
#include <math.h>

#include "ir/expr/expr_query.h"
#include "passes/choose/choice.h"
#include "passes/choose/contract_tile.h"
#include "passes/choose/contraction.h"
#include "passes/choose/conv_plan.h"
#include "passes/cost/machine_model.h"

/* Integers are multiplied in pairs of channels. */
static bool operands_fit(const Node *n, const ConvInfo *conv) {
  const ContractTypes *t = node_contract_types(n);
  if (!n->in[1]->cdata || !t || node_int(n, "exact", 0)) return false;
  if (t->acc == DT_I32) return dtype_bytes(t->a) == 1 && conv->c_in % 2 == 0;
  return t->acc == DT_F32;
}

bool winograd_fits(const Node *n, const ConvInfo *conv) {
  const int first = conv->spatial - 2; /* of the dimensions that are transformed */
  if (conv->transposed || first < 0 || first > 1 || conv->group != 1) return false;
  for (int s = 0; s <= first + 1; s++) {
    int64_t k;
    if (conv->stride[s] != 1 || conv->dilation[s] != 1) return false;
    const bool known = expr_is_const(n->out[0]->dims[2 + s], &k);
    if (known ? k < (s < first ? 1 : 4) : conv->spatial != 2) return false;
    if (s >= first && conv->kernel[s] != 3) return false;
  }
  return operands_fit(n, conv) && conv->c_in >= 8 && conv->c_out >= 8;
}

bool winograd_counts_tiles(const Node *n, const ConvInfo *conv) {
  int64_t h, w;
  const Expr *const *const dims = n->out[0]->dims;
  return conv->spatial == 2 && !(expr_is_const(dims[2], &h) && expr_is_const(dims[3], &w));
}

bool winograd_computes(const Node *n, const ConvInfo *conv, int m) {
  if (!winograd_fits(n, conv)) return false;
  return dtype_is_float(node_contract_types(n)->acc) || (m < 6 && winograd_exact(n, conv, m));
}

/* Cycles of a vector of one point in a transform. */
static const double INPUT_WORK = 3.6, OUTPUT_WORK = 2.8;

/* What is multiplied; bytes of a transformed element. */
typedef struct Products {
  const Target *t;
  const ContractTypes *direct, *transformed;
  bool floats;
  double element;
} Products;

static Products products_of(const Target *t, const Node *n) {
  const ContractTypes *const direct = node_contract_types(n), *const types = winograd_types(t, n);
  return (Products){t, direct, types, dtype_is_float(direct->acc), dtype_bytes(types->a)};
}

/* Of `types`, in the cheapest tiles, k elements deep. */
static double tiles_cycles(const Target *t, const ContractTypes *types, double rows_h,
                           double rows_w, double n, double k) {
  TileCost tiles[MAX_TILES];
  k = ceil(k / types->k_step);
  const int count = contract_tiles(t, types, rows_h, rows_w, rows_h == 1, n, k, tiles);
  return tiles[contract_cheapest(tiles, count)].cycles * contract_step_cost(types, t);
}

/* What is computed of one image, and the depth of the kernel; both 1 in two dimensions. */
typedef struct Image {
  Products of;
  int64_t h, w, depth, taps;
  double live; /* share of the taps in depth that see more than the border */
} Image;

static double live_share(const Node *n, const ConvInfo *conv, int64_t depth) {
  int64_t in, live = 0;
  if (!expr_is_const(n->in[0]->dims[2], &in)) return 1;
  for (int64_t d = 0; d < depth; d++)
    for (int64_t t = 0; t < conv->kernel[0]; t++) {
      const int64_t at = d + t - conv->pad_lo[0];
      live += at >= 0 && at < in;
    }
  return (double)live / (double)(depth * conv->kernel[0]);
}

static bool image_of(const PassCtx *c, const Node *n, const ConvInfo *conv, Image *im) {
  const int last = 1 + conv->spatial;
  const Expr *const *dims = n->out[0]->dims;
  *im = (Image){.of = products_of(c->target, n), .depth = 1, .taps = 1, .live = 1};
  if (conv->spatial == 3) {
    if (!expr_is_const(dims[2], &im->depth)) return false;
    im->taps = conv->kernel[0];
    im->live = live_share(n, conv, im->depth);
  }
  im->h = (int64_t)expr_extent_guess(c->model->pool, dims[last - 1]);
  im->w = (int64_t)expr_extent_guess(c->model->pool, dims[last]);
  return true;
}

/* The direct form may take several elements of k at once. */
static double direct_cycles(const MachineModel *m, const ConvInfo *conv, const Image *im) {
  const double work = 9.0 * (double)im->taps * (double)conv->c_in * (double)conv->c_out;
  const double pixels = (double)(im->h * im->w * im->depth) * im->live;
  const ContractTypes *const types = im->of.direct;
  const double at_once = types->split_a ? 1 : types->k_step;
  const double taps = 9.0 * (double)im->taps, n = (double)conv->c_out, h = (double)im->h;
  const double k = taps * at_once * ceil((double)conv->c_in / at_once);
  const double lines = h * (double)im->depth * im->live;
  const double compute = im->of.floats ? model_macs(m, work * pixels / at_once) * 1.1
                                       : tiles_cycles(im->of.t, types, lines, (double)im->w, n, k),
               stream = model_read_weights(m, work * dtype_bytes(types->b));
  return compute > stream ? compute : stream;
}

/* The products of blocks with `tiles` tiles each. */
static double product_cycles(const MachineModel *m, const ConvInfo *conv, const Image *im,
                             double points, double blocks, double tiles) {
  const double k = (double)(im->taps * conv->c_in), oc = (double)conv->c_out;
  /* few tiles leave the register tile half empty */
  const double fill = tiles < 8 ? tiles / 8 : 1;
  if (im->of.floats) return model_macs(m, points * k * (tiles * blocks) * oc / fill) * 1.15;
  return points * blocks * tiles_cycles(im->of.t, im->of.transformed, 1, tiles, oc, k);
}

/* Of one image, in blocks of `lines` rows of tiles in each of `planes` planes. */
static double block_cycles(const MachineModel *m, const ConvInfo *conv, const Image *im, int out,
                           WinogradBlock b) {
  const double points = (out + 2) * (out + 2), oc = (double)conv->c_out;
  const double taps = (double)im->taps, more = (double)(b.planes + im->taps - 1) / (double)b.planes;
  const double ic = (double)conv->c_in * more; /* with the planes that blocks share */
  const int64_t th = (im->h + out - 1) / out, tw = (im->w + out - 1) / out;
  const double blocks = (double)((th + b.lines - 1) / b.lines * (im->depth / b.planes));
  const double in_block = (double)(b.lines * tw * b.planes), tiles = in_block * blocks;
  const double data = 2 * points * in_block * (ic * im->of.element + oc * 4);
  const double weights = points * taps * (double)conv->c_in * oc * im->of.element;
  const double compute = product_cycles(m, conv, im, points, blocks, in_block),
               stream = blocks * model_read_weights(m, weights);
  const double transforms = tiles * points * (ic * INPUT_WORK + oc * OUTPUT_WORK) / m->lanes;
  /* blocks share the cache with the weights that come by for each of them */
  const bool near = blocks > 1 ? data / 2 + weights <= m->l2 : data <= m->l2;
  const double calls = blocks > 1 ? blocks * MODEL_WINOGRAD_BLOCK : 0;
  return (compute > stream ? compute : stream) +
         blocks * (near ? model_read_near(data) : model_read_far(data / 2)) + transforms + calls;
}

/* An odd number of blocks keeps one of two threads waiting. */
static double even_share(const MachineModel *m, int64_t blocks) {
  return m->threads > 1 ? (double)((blocks + 1) / 2 * 2) / (double)blocks : 1;
}

/* Blocks of planes are each thread's own, and would be larger than all values together. */
static bool too_large(const ConvInfo *conv, const Image *im, int out, WinogradBlock b) {
  enum { MOST_BYTES = 8 << 20 };
  const int64_t tiles = (im->w + out - 1) / out * b.lines, planes = b.planes + im->taps - 1;
  const int64_t cells = tiles * (planes * conv->c_in + b.planes * conv->c_out);
  return conv->spatial == 3 && b.lines * b.planes > 1 &&
         4 * (out + 2) * (out + 2) * cells > MOST_BYTES;
}

/* Rows of tiles that are a block, and planes; all of them: there is one block. */
static WinogradBlock choose_block(const MachineModel *m, const ConvInfo *conv, const Image *im,
                                  int out) {
  const int64_t th = (im->h + out - 1) / out;
  WinogradBlock best = {th, im->depth};
  const bool whole = !too_large(conv, im, out, best);
  double least = whole ? block_cycles(m, conv, im, out, best) : INFINITY;
  for (int64_t planes = im->depth; planes >= 1; planes--)
    for (int64_t lines = planes == im->depth ? th / 2 : th; lines >= 1; lines--) {
      const WinogradBlock b = {lines, planes};
      if (th % lines || im->depth % planes || too_large(conv, im, out, b)) continue;
      const double cycles =
          block_cycles(m, conv, im, out, b) * even_share(m, th / lines * (im->depth / planes));
      if (cycles >= least) continue;
      least = cycles;
      best = b;
    }
  return best;
}

static double wino_cycles(const MachineModel *m, const ConvInfo *conv, const Image *im, int out) {
  return block_cycles(m, conv, im, out, choose_block(m, conv, im, out));
}

double winograd_cycles(const PassCtx *c, const Node *n, const ConvInfo *conv, int out) {
  const MachineModel m = machine_model(c->target, DT_F32, c->max_threads);
  Image im;
  if (!image_of(c, n, conv, &im)) return 0;
  return expr_extent_guess(c->model->pool, n->out[0]->dims[0]) * wino_cycles(&m, conv, &im, out);
}

/* Of an image of unknown size, so many that a tile takes least, among others. */
static int64_t block_tiles(const MachineModel *m, const ConvInfo *conv, const Image *im, int out) {
  enum { LEAST = 24, MOST = 384, BLOCKS = 4 };
  int64_t best = LEAST;
  double least = INFINITY;
  for (int64_t tiles = LEAST; tiles <= MOST; tiles *= 2) {
    Image of = *im;
    of.h = (int64_t)BLOCKS * out;
    of.w = tiles * out;
    const double cycles = block_cycles(m, conv, &of, out, (WinogradBlock){1, 1}) / (double)tiles;
    if (cycles >= least * 0.97) continue; /* fewer tiles: less scratch, more for threads */
    least = cycles;
    best = tiles;
  }
  return best;
}

static double transform_cycles(const PassCtx *c, int out, double elements, double work) {
  const MachineModel m = machine_model(c->target, DT_F32, c->max_threads);
  const double points = (out + 2) * (out + 2), bytes = 4 * points * elements;
  return points * elements * work / m.lanes + model_touch(&m, bytes);
}

double winograd_input_cycles(const PassCtx *c, const ConvInfo *conv, int out, double tiles) {
  return transform_cycles(c, out, tiles * (double)conv->c_in, INPUT_WORK);
}

double winograd_output_cycles(const PassCtx *c, const ConvInfo *conv, int out, double tiles) {
  return transform_cycles(c, out, tiles * (double)conv->c_out, OUTPUT_WORK);
}

WinogradBlock winograd_block(const PassCtx *c, const Node *n, const ConvInfo *conv, int out) {
  const MachineModel m = machine_model(c->target, DT_F32, c->max_threads);
  Image im;
  if (!image_of(c, n, conv, &im)) return (WinogradBlock){0};
  if (winograd_counts_tiles(n, conv)) return (WinogradBlock){block_tiles(&m, conv, &im, out), 0};
  WinogradBlock b = choose_block(&m, conv, &im, out);
  if (conv->spatial == 3) return b;
  return (WinogradBlock){b.lines < (im.h + out - 1) / out ? b.lines : 0, 0};
}

/* Whether there is a choice at all. Matrix registers multiply more than a form saves. */
static bool may_be_winograd(const PassCtx *c, const Node *n, const ConvInfo *conv) {
  Image im;
  return c->opt_level >= 2 && c->winograd && winograd_fits(n, conv) && image_of(c, n, conv, &im) &&
         !contract_has_matrix(im.of.direct, c->target);
}

const char *winograd_key(const PassCtx *c, const Node *n, const ConvInfo *conv) {
  Image im;
  const long long ic = conv->c_in, oc = conv->c_out;
  if (!choice_matters(c) || !may_be_winograd(c, n, conv) || !image_of(c, n, conv, &im)) return NULL;
  const ContractTypes *const t = node_contract_types(n);
  const bool floats = dtype_is_float(t->acc);
  const char *const type = floats ? "" : arena_printf(c->model->arena, "%s ", t->name);
  if (conv->spatial == 2)
    return choice_key(c, "conv3x3 %sin=%lld out=%lld size=%lldx%lld", type, ic, oc, (long long)im.h,
                      (long long)im.w);
  return choice_key(c, "conv%lldx3x3 %sin=%lld out=%lld size=%lldx%lldx%lld", (long long)im.taps,
                    type, ic, oc, (long long)im.depth, (long long)im.h, (long long)im.w);
}

/* m of the cheapest form, or 0 where the direct convolution is about as fast. */
int winograd_size(const PassCtx *c, const Node *n, const ConvInfo *conv) {
  Image im;
  if (!may_be_winograd(c, n, conv) || !image_of(c, n, conv, &im)) return 0;
  const MachineModel m = machine_model(c->target, DT_F32, c->max_threads);
  static const char *const names[] = {"direct", "winograd2", "winograd4", "winograd6"};
  const double rounding = 1 / 0.9; /* what a gain must be worth */
  Candidate candidates[4] = {{names[0], direct_cycles(&m, conv, &im), 0, 1}};
  int sizes[4] = {0}, count = 1, best = 0;
  for (int out = 2; out <= 6; out += 2) {
    if (c->winograd_size ? out != c->winograd_size : out > 4) continue;
    if (!winograd_computes(n, conv, out)) continue;
    sizes[count] = out;
    candidates[count] = (Candidate){names[out / 2], wino_cycles(&m, conv, &im, out), out, rounding};
    if (choice_weighted(&candidates[count], candidates[count].cost) <
        choice_weighted(&candidates[best], candidates[best].cost))
      best = count;
    count++;
  }
  const char *key = winograd_key(c, n, conv);
  return sizes[key ? choice_take(c, CHOICE_ALGORITHM, key, candidates, count, best) : best];
}

/* Whole tiles read further than the convolution itself. */
void winograd_reach(const Node *n, const ConvInfo *conv, int m, int s, int64_t *lo, int64_t *hi) {
  int64_t out, in;
  *lo = conv->pad_lo[s];
  *hi = conv->pad_hi[s];
  if (s < conv->spatial - 2) return; /* not transformed */
  *hi += m;
  if (expr_is_const(n->out[0]->dims[2 + s], &out) && expr_is_const(n->in[0]->dims[2 + s], &in))
    *hi = (out + m - 1) / m * m + 2 - conv->pad_lo[s] - in;
  if (*hi < 0) *hi = 0;
}
