/* When a 3×3 convolution is worth a Winograd form (kernels/winograd.c), and in blocks of how many
 * rows of tiles: multiplications saved against traffic for the transformed data and weights. */
#include "ir/expr/expr_query.h"
#include "passes/choose/choice.h"
#include "passes/choose/contraction.h"
#include "passes/choose/conv_plan.h"
#include "passes/cost/machine_model.h"

bool winograd_fits(const Node *n, const ConvInfo *conv) {
  if (!conv_beyond_tiles(n) || conv->transposed || conv->spatial != 2 || conv->group != 1)
    return false;
  for (int s = 0; s < 2; s++) {
    int64_t k;
    if (conv->kernel[s] != 3 || conv->stride[s] != 1 || conv->dilation[s] != 1) return false;
    if (!expr_is_const(n->out[0]->dims[2 + s], &k) || k < 4) return false;
  }
  return !node_int(n, "exact", 0) && n->in[0]->dtype == DT_F32 && n->in[1]->dtype == DT_F32 &&
         conv->c_in >= 8 && conv->c_out >= 8;
}

/* Cycles of a vector of one point in a transform. */
static const double INPUT_WORK = 3.6, OUTPUT_WORK = 2.8;

static double direct_cycles(const MachineModel *m, const ConvInfo *conv, int64_t h, int64_t w) {
  const double work = 9.0 * (double)conv->c_in * (double)conv->c_out;
  const double compute = model_macs(m, work * (double)(h * w)) * 1.1,
               stream = model_read_weights(m, work * 4);
  return compute > stream ? compute : stream;
}

/* Of one image, in blocks of `lines` rows of tiles. */
static double block_cycles(const MachineModel *m, const ConvInfo *conv, int64_t h, int64_t w,
                           int out, int64_t lines) {
  const double points = (out + 2) * (out + 2), ic = (double)conv->c_in, oc = (double)conv->c_out;
  const int64_t th = (h + out - 1) / out, tw = (w + out - 1) / out;
  const double blocks = (double)((th + lines - 1) / lines), tiles = (double)(lines * tw) * blocks;
  const double data = 2 * points * (double)(lines * tw) * (ic + oc) * 4;
  const double weights = points * ic * oc * 4;
  /* few tiles leave the register tile of the products half empty */
  const double fill = tiles / blocks < 8 ? tiles / blocks / 8 : 1;
  const double compute = model_macs(m, points * tiles * ic * oc / fill) * 1.15,
               stream = blocks * model_read_weights(m, weights);
  const double transforms = tiles * points * (ic * INPUT_WORK + oc * OUTPUT_WORK) / m->lanes;
  /* blocks share the cache with the weights that come by for each of them */
  const bool near = blocks > 1 ? data / 2 + weights <= m->l2 : data <= m->l2;
  const double calls = blocks > 1 ? blocks * MODEL_WINOGRAD_BLOCK : 0;
  return (compute > stream ? compute : stream) +
         blocks * (near ? model_read_near(data) : model_read_far(data / 2)) + transforms + calls;
}

/* Rows of tiles that are a block; all of them: there is one block. An odd number of blocks keeps
 * one of two threads waiting. */
static int64_t block_lines(const MachineModel *m, const ConvInfo *conv, int64_t h, int64_t w,
                           int out) {
  const int64_t th = (h + out - 1) / out;
  int64_t best = th;
  double least = block_cycles(m, conv, h, w, out, th);
  for (int64_t lines = th / 2; lines >= 1; lines--) {
    if (th % lines) continue;
    const int64_t blocks = th / lines;
    const double even = m->threads > 1 ? (double)((blocks + 1) / 2 * 2) / (double)blocks : 1;
    const double cycles = block_cycles(m, conv, h, w, out, lines) * even;
    if (cycles >= least) continue;
    least = cycles;
    best = lines;
  }
  return best;
}

static double wino_cycles(const MachineModel *m, const ConvInfo *conv, int64_t h, int64_t w,
                          int out) {
  return block_cycles(m, conv, h, w, out, block_lines(m, conv, h, w, out));
}

double winograd_cycles(const PassCtx *c, const Node *n, const ConvInfo *conv, int out) {
  const MachineModel m = machine_model(c->target, DT_F32, c->max_threads);
  int64_t h = 0, w = 0;
  expr_is_const(n->out[0]->dims[2], &h);
  expr_is_const(n->out[0]->dims[3], &w);
  return expr_extent_guess(c->model->pool, n->out[0]->dims[0]) * wino_cycles(&m, conv, h, w, out);
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

int64_t winograd_block(const PassCtx *c, const Node *n, const ConvInfo *conv, int out) {
  int64_t h = 0, w = 0;
  expr_is_const(n->out[0]->dims[2], &h);
  expr_is_const(n->out[0]->dims[3], &w);
  const MachineModel m = machine_model(c->target, DT_F32, c->max_threads);
  const int64_t lines = block_lines(&m, conv, h, w, out);
  return lines < (h + out - 1) / out ? lines : 0;
}

/* Whether there is a choice at all. */
static bool may_be_winograd(const PassCtx *c, const Node *n, const ConvInfo *conv) {
  int64_t h, w;
  return c->opt_level >= 2 && c->winograd && winograd_fits(n, conv) &&
         expr_is_const(n->out[0]->dims[2], &h) && expr_is_const(n->out[0]->dims[3], &w);
}

const char *winograd_key(const PassCtx *c, const Node *n, const ConvInfo *conv) {
  int64_t h, w;
  if (!choice_matters(c) || !may_be_winograd(c, n, conv)) return NULL;
  if (!expr_is_const(n->out[0]->dims[2], &h) || !expr_is_const(n->out[0]->dims[3], &w)) return NULL;
  return choice_key(c, "conv3x3 in=%lld out=%lld size=%lldx%lld", (long long)conv->c_in,
                    (long long)conv->c_out, (long long)h, (long long)w);
}

/* m of the cheapest form, or 0 where the direct convolution is about as fast. */
int winograd_size(const PassCtx *c, const Node *n, const ConvInfo *conv) {
  int64_t h, w;
  if (!may_be_winograd(c, n, conv)) return 0;
  expr_is_const(n->out[0]->dims[2], &h);
  expr_is_const(n->out[0]->dims[3], &w);
  const MachineModel m = machine_model(c->target, DT_F32, c->max_threads);
  static const char *const names[] = {"direct", "winograd2", "winograd4", "winograd6"};
  const double rounding = 1 / 0.9; /* what a gain must be worth */
  Candidate candidates[4] = {{names[0], direct_cycles(&m, conv, h, w), 0, 1}};
  int sizes[4] = {0}, count = 1, best = 0;
  for (int out = 2; out <= 6; out += 2) {
    if (c->winograd_size ? out != c->winograd_size : out > 4) continue;
    sizes[count] = out;
    candidates[count] =
        (Candidate){names[out / 2], wino_cycles(&m, conv, h, w, out), out, rounding};
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
  *hi = conv->pad_hi[s] + m;
  if (expr_is_const(n->out[0]->dims[2 + s], &out) && expr_is_const(n->in[0]->dims[2 + s], &in))
    *hi = (out + m - 1) / m * m + 2 - conv->pad_lo[s] - in;
  if (*hi < 0) *hi = 0;
}
