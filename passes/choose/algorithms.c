/* Cycles of the algorithms for a contraction, side by side; see conv_plan.h. */
#include "passes/choose/conv_plan.h"

#include "ir/expr/expr_query.h"
#include "passes/choose/choice.h"
#include "passes/choose/contract_tile.h"
#include "passes/choose/contraction.h"
#include "passes/cost/machine_model.h"

enum { MOST = 8 };

typedef struct List {
  Candidate of[MOST];
  int n, taken;
} List;

static void add(List *l, const char *name, double cycles, bool taken) {
  if (taken) l->taken = l->n;
  l->of[l->n++] = (Candidate){.name = name, .cost = cycles};
}

static double guess(const PassCtx *c, const Expr *e) {
  return expr_extent_guess(c->model->pool, e);
}

/* Of the cheapest tile. */
static double tiled_cycles(const PassCtx *c, const ContractTypes *types, double rows_h,
                           double rows_w, double n, double k) {
  TileCost tiles[MAX_TILES];
  const int count = contract_tiles(c->target, types, rows_h, rows_w, rows_h == 1, n, k, tiles);
  return tiles[contract_cheapest(tiles, count)].cycles;
}

/* ---- convolutions ---- */

typedef struct Pixels {
  double images, lines, width, all; /* lines of an image; all pixels of all images */
} Pixels;

static Pixels pixels_of(const PassCtx *c, const Node *n, const ConvInfo *conv) {
  const Expr *const *dims = n->out[0]->dims;
  Pixels p = {guess(c, dims[0]), 1, guess(c, dims[1 + conv->spatial]), 0};
  for (int s = 0; s + 1 < conv->spatial; s++) p.lines *= guess(c, dims[2 + s]);
  p.all = p.images * p.lines * p.width;
  return p;
}

static double taps_of(const ConvInfo *conv) {
  double taps = 1;
  for (int s = 0; s < conv->spatial; s++) taps *= (double)conv->kernel[s];
  return taps;
}

/* Rows are all pixels of an image where these follow each other, else the lines one by one. */
static double conv_tiled(const PassCtx *c, const Node *n, const ConvInfo *conv, const Pixels *p) {
  const double k = taps_of(conv) * (double)(conv->c_in / conv->group);
  const double cols = (double)(conv->c_out / conv->group), strides = taps_of(conv);
  bool flat = strides == 1;
  for (int s = 0; s < conv->spatial; s++) flat = flat && conv->stride[s] == 1;
  const double cycles =
      flat ? tiled_cycles(c, node_contract_types(n), 1, p->lines * p->width, cols, k)
           : tiled_cycles(c, node_contract_types(n), p->lines, p->width, cols, k);
  return p->images * (double)conv->group * cycles;
}

double depthwise_cycles(const Target *t, const ConvInfo *conv, double pixels, int width) {
  const MachineModel m = machine_model(t, DT_F32, 1);
  const double full = (double)(int64_t)(pixels / width), rest = pixels - full * width;
  const double taps = taps_of(conv), last = model_chains(&m, taps * rest, taps) + MODEL_PIXELS;
  return full * (model_chains(&m, taps * width, taps) + MODEL_PIXELS) + (rest > 0 ? last : 0);
}

static const char *conv_key(const PassCtx *c, const Node *n, const ConvInfo *conv) {
  StrBuf b = {.arena = c->scratch};
  sb_printf(&b, "algorithm conv kernel=");
  for (int s = 0; s < conv->spatial; s++)
    sb_printf(&b, "%s%lld", s ? "x" : "", (long long)conv->kernel[s]);
  sb_printf(&b, " stride=%lld in=%lld out=%lld", (long long)conv->stride[conv->spatial - 1],
            (long long)conv->c_in, (long long)conv->c_out);
  if (conv->group > 1) sb_printf(&b, " group=%lld", (long long)conv->group);
  sb_printf(&b, " size=");
  for (int s = 0; s < conv->spatial; s++)
    sb_printf(&b, "%s%.0f", s ? "x" : "", guess(c, n->out[0]->dims[2 + s]));
  return choice_key(c, "%s", sb_str(&b));
}

void tell_conv(const PassCtx *c, const Node *n, const ConvInfo *conv, const Plan *p) {
  enum { STRIP = 8 }; /* pixels; their number is chosen with the loops */
  static const char *const winograd[] = {"winograd2", "winograd4", "winograd6"};
  const Pixels px = pixels_of(c, n, conv);
  const double lanes = target_lanes(c->target, 32);
  List l = {.n = 0};
  if (!c->decisions || !node_contract_types(n)) return;
  add(&l, "tiled", conv_tiled(c, n, conv, &px), p->algorithm == ALG_TILED);
  for (int m = 2; m <= 6; m += 2)
    if (winograd_computes(n, conv, m))
      add(&l, winograd[m / 2 - 1], winograd_cycles(c, n, conv, m), p->winograd == m);
  for (int by = LANES_PIXELS; by <= LANES_CHANNELS; by = by << 1)
    if (thin_fits(c, n, conv, by))
      add(&l, by == LANES_PIXELS ? "thin-pixels" : "thin-channels",
          px.all * thin_cycles(c->target, conv, by), (p->lanes & by) != 0);
  if (p->algorithm == ALG_SPARSE) {
    const PlanLoops loops = sparse_choose_loops(c, n);
    add(&l, "sparse", sparse_cycles(c, n, &loops), true);
  }
  if (conv_is_depthwise(conv))
    add(&l, "depthwise",
        px.images * px.lines * (double)conv->c_out / lanes *
            depthwise_cycles(c->target, conv, px.width, STRIP),
        p->algorithm == ALG_DEPTHWISE);
  choice_tell(c, conv_key(c, n, conv), l.of, l.n, l.taken);
}

double plan_cycles(const PassCtx *c, const Node *n, const Plan *p) {
  ConvInfo conv;
  MatMulInfo product;
  if (conv_info(n, &conv)) {
    const Pixels px = pixels_of(c, n, &conv);
    if (p->algorithm == ALG_WINOGRAD) return winograd_cycles(c, n, &conv, p->winograd);
    if (p->algorithm == ALG_THIN)
      return px.all *
             thin_cycles(c->target, &conv, p->lanes & LANES_PIXELS ? LANES_PIXELS : LANES_CHANNELS);
    return conv_tiled(c, n, &conv, &px);
  }
  if (!matmul_info(n, &product)) return 0;
  double rows = guess(c, product.m);
  for (int d = 0; d < product.batch_rank; d++) rows *= guess(c, n->out[0]->dims[d]);
  return tiled_cycles(c, node_contract_types(n), 1, rows, guess(c, product.n), guess(c, product.k));
}

/* ---- attention ---- */

enum { SOFTMAX = 16 }; /* cycles of a vector of scores */

double attention_cycles(const Target *t, double heads, double rows, double keys, double dk,
                        double dv) {
  const MachineModel m = machine_model(t, DT_F32, 1);
  const double scores = heads * rows * keys;
  return model_macs(&m, scores * (dk + dv)) + SOFTMAX * scores / m.lanes;
}

/* Two products with the softmax between them, whose scores make four trips through memory. */
static double attention_apart(const PassCtx *c, double heads, double rows, double keys, double dk,
                              double dv) {
  const MachineModel m = machine_model(c->target, DT_F32, 1);
  const ContractTypes *const f32 = contract_types(DT_F32, DT_F32);
  const double scores = heads * rows * keys;
  return heads *
             (tiled_cycles(c, f32, 1, rows, keys, dk) + tiled_cycles(c, f32, 1, rows, dv, keys)) +
         SOFTMAX * scores / m.lanes + 4 * model_touch(&m, 4 * scores);
}

void tell_attention(const PassCtx *c, const Node *n) {
  Attention a;
  List l = {.n = 0};
  if (!c->decisions || !attention_of(n, &a)) return;
  const double rows = guess(c, a.rows), keys = guess(c, a.keys), dk = (double)a.dk,
               dv = (double)a.dv;
  double heads = 1;
  for (int d = 0; d < a.x->rank - 2; d++) heads *= guess(c, a.x->dims[d]);
  add(&l, "attention", attention_cycles(c->target, heads, rows, keys, dk, dv), true);
  add(&l, "apart", attention_apart(c, heads, rows, keys, dk, dv), false);
  choice_tell(c,
              choice_key(c, "algorithm attention heads=%.0f rows=%.0f keys=%.0f sizes=%.0f,%.0f",
                         heads, rows, keys, dk, dv),
              l.of, l.n, l.taken);
}
