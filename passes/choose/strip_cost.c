/* What a chain of convolutions over strips saves and costs (strips.h): memory traffic saved against work
 * done again at the borders of parts. Where a chain is cut, and how many rows it does at a time. */
#include <string.h>

#include "ir/expr/expr_query.h"
#include "passes/choose/choice.h"
#include "passes/choose/contract_tile.h"
#include "passes/choose/strips.h"
#include "passes/cost/machine_model.h"

enum { STORE = 8 }; /* instructions from a vector of sums to bytes in memory */

static const Expr *rows_of(const StripStage *s) { return s->root->dims[2]; }
static double guess(const StripChain *c, const Expr *e) {
  return expr_extent_guess(c->c->model->pool, e);
}
static int threads_of(const PassCtx *c) { return c->max_threads > 0 ? c->max_threads : 1; }
static MachineModel machine(const PassCtx *c) {
  return machine_model(c->target, DT_F32, threads_of(c));
}

/* Cycles of the whole convolution. Lanes that run over channels are filled up. */
double strip_work(const PassCtx *c, const StripStage *s) {
  const MachineModel m = machine(c);
  const Value *root = s->root;
  const ConvInfo *conv = &s->conv;
  const ContractTypes *t = s->step > 1 ? node_contract_types(s->anchor->def) : NULL;
  const bool dots = t && contract_has_dot4(c->target, t->a, t->b);
  const int lanes = target_lanes(c->target, 32);
  const double vectors = (double)((conv->c_out + lanes - 1) / lanes);
  const double taps = (double)(conv->kernel[0] * conv->kernel[1] * (conv->c_in / conv->group));
  double pixels = expr_extent_guess(c->model->pool, root->dims[0]);
  for (int d = 2; d < 4; d++) pixels *= expr_extent_guess(c->model->pool, root->dims[d]);
  double steps = pixels * vectors * taps / (dots ? s->step : 1);
  if (t) steps += pixels * vectors * STORE; /* from sums to bytes */
  /* a depthwise step of a strip loads two vectors for each multiplication */
  return conv->group > 1 ? model_loads(&m, 2 * steps) : model_fmas(&m, steps);
}

static double ring_bytes(const StripChain *c, const StripStage *s, int64_t step) {
  return dtype_bytes(strip_ring_type(s)) * (double)strip_ring_rows(s, step) *
         guess(c, s->root->dims[3]) * (double)strip_pixel_stride(s);
}

/* Cycles of what `parts` parts of an image compute again at their borders. */
static double again(const StripChain *c, int from, int to, double parts) {
  double sum = 0;
  for (int i = from; i < to; i++) {
    const StripStage *s = &c->stage[i];
    const double rows = (double)(s->hi - s->lo - s->m) * (parts - 1);
    if (rows > 0) sum += s->work * rows / guess(c, rows_of(s));
  }
  return sum;
}

/* Parts of an image that threads share: as many as are of use to them and cost little more work. */
static int64_t parts_of(const StripChain *c, int from, int to) {
  const StripStage *last = &c->stage[to];
  const int most = threads_of(c->c);
  const double threads = most < 8 ? most : 8;
  const double want = 2 * threads / guess(c, last->root->dims[0]);
  double work = 0;
  for (int i = from; i <= to; i++) work += c->stage[i].work;
  if (threads < 2 || want < 2) return 1;
  for (int64_t n = MAX_STRIP_PARTS; n > 2; n /= 2)
    if ((double)n <= want && (double)n * 3 <= guess(c, rows_of(last)) &&
        again(c, from, to, (double)n) <= (n > 4 ? 0.02 : 0.05) * work)
      return n;
  return 2;
}

/* ---- profit ---- */

/* As convolutions store it and read it: small floats from a copy in what is computed with. */
static double bytes_of(const StripChain *c, const Value *v) {
  const DType copy = dtype_compute(v->dtype);
  const int bytes = dtype_bytes(v->dtype) + (copy != v->dtype ? dtype_bytes(copy) : 0);
  return (double)bytes * guess(c, value_count(c->c->model->pool, v));
}

/* Long sums hide a part of the traffic. */
static double hidden(const StripStage *s) {
  return s->conv.group == 1 && s->conv.kernel[0] * s->conv.kernel[1] > 1 ? s->work / 4 : 0;
}

/* Cycles saved because what stage s makes stays in a ring. */
static double traffic(const StripChain *c, const StripStage *s, int64_t step) {
  const MachineModel m = machine(c->c);
  const double bytes = bytes_of(c, s->root);
  const double all = bytes_of(c, s->anchor->def->in[0]) + bytes + bytes_of(c, s[1].root);
  /* For bytes as for floats of that shape: what else lies in the cache was sized alike, and the arena is as
   * small a part of that of floats as the values are. */
  const double crowd = value_is_byte(s->root) ? 4 * all : all;
  const double trip = model_trip(model_level(&m, crowd)),
               inside = model_trip(model_level(&m, ring_bytes(c, s, step)));
  const double cycles = bytes * (trip - inside) - hidden(&s[0]) - hidden(&s[1]);
  return cycles > 0 ? cycles : 0;
}

/* Register tiles of one line: what its remainder, too small to hide latencies, adds per row. */
static double remainder_cycles(const StripChain *c, const StripStage *s) {
  const Target *t = c->c->target;
  const MachineModel m = machine(c->c);
  const double w = guess(c, s->root->dims[3]);
  const double k = (double)(s->conv.kernel[0] * s->conv.kernel[1] * s->conv.c_in) / s->step;
  const Tile tile = contract_choose_tile(t, 1, w, false, (double)s->conv.c_out, k);
  const int lanes = target_lanes(t, 32) * tile.vectors;
  const int64_t rest = (int64_t)w % tile.rows;
  const double busy = (double)(rest * tile.vectors);
  const double panels = (double)((s->conv.c_out + lanes - 1) / lanes);
  return rest ? panels * k * (model_chains(&m, busy, 1) - model_fmas(&m, busy)) : 0;
}

/* Cycles saved by making stages [from, to] a chain, `step` rows at a time; below 0: a loss. *fits: its
 * rings and weights stay in the second-level cache. */
static double saving(StripChain *c, int from, int to, int64_t step, bool *fits) {
  const MachineModel m = machine(c->c);
  const StripStage *s = c->stage, *last = &s[to];
  double room = 0, weights = 0, sum;
  strip_set_rows(c, from, to);
  sum = -again(c, from, to, (double)parts_of(c, from, to));
  const double images = guess(c, last->root->dims[0]);
  const double steps = images * guess(c, rows_of(last)) / (double)step;
  for (int i = from; i <= to; i++) {
    const double rows = guess(c, rows_of(&s[i]));
    weights += s[i].weights;
    if (s[i].conv.group == 1) sum -= images * rows * remainder_cycles(c, &s[i]);
    /* starting the loops, and weights that come from the second-level cache each time */
    sum -= steps * (MODEL_STAGE + model_weights_again(&m, s[i].weights));
    if (i == to) break;
    sum += traffic(c, &s[i], step);
    room += ring_bytes(c, &s[i], step);
  }
  *fits = room + weights <= m.l2 * 0.75;
  return sum;
}

/* The same; -1 where that is too little. */
static double gain(StripChain *c, int from, int to, int64_t step) {
  bool fits;
  const double sum = saving(c, from, to, step, &fits);
  double work = 0;
  for (int i = from; i <= to; i++) work += c->stage[i].work;
  return fits && sum > 0.03 * work ? sum : -1;
}

/* Cycles of storing what stages [from, to) make, and reading it back. */
static double all_traffic(const StripChain *c, int from, int to) {
  const MachineModel m = machine(c->c);
  double sum = 0;
  for (int i = from; i < to; i++) {
    const double bytes = bytes_of(c, c->stage[i].root);
    sum += bytes * model_trip(model_level(&m, 2 * bytes));
  }
  return sum;
}

void strip_tell(StripChain *c, int rows) {
  static const char *const names[] = {"apart", "rows1", "rows2", "rows4"};
  const StripStage *const last = &c->stage[c->n - 1];
  Candidate list[4];
  StrBuf key = {.arena = c->c->scratch};
  int n = 0, taken = 0;
  double apart = all_traffic(c, 0, c->n - 1);
  if (!c->c->decisions) return;
  sb_printf(&key, "algorithm chain kernels=");
  for (int i = 0; i < c->n; i++) {
    const ConvInfo *const conv = &c->stage[i].conv;
    apart += c->stage[i].work;
    sb_printf(&key, "%s%lldx%lld", i ? "," : "", (long long)conv->kernel[0],
              (long long)conv->kernel[1]);
  }
  sb_printf(&key, " in=%lld out=%lld size=%.0fx%.0f", (long long)c->stage[0].conv.c_in,
            (long long)last->conv.c_out, guess(c, rows_of(last)), guess(c, last->root->dims[3]));
  list[n++] = (Candidate){.name = names[0], .cost = apart};
  for (int i = 1; i < 4; i++) {
    bool fits;
    const double saved = saving(c, 0, c->n - 1, 1 << (i - 1), &fits);
    if (rows == 1 << (i - 1)) taken = n;
    if (fits || taken == n) list[n++] = (Candidate){.name = names[i], .cost = apart - saved};
  }
  choice_tell(c->c, choice_key(c->c, "%s", sb_str(&key)), list, n, taken);
}

static double best_step(StripChain *c, int from, int to, int *step) {
  double best = -1;
  *step = 1;
  for (int n = 1; n <= MAX_STRIP_ROWS; n *= 2) {
    const double g = gain(c, from, to, n);
    if (g <= best) continue;
    best = g;
    *step = n;
  }
  return best;
}

/* Cuts the chain where that saves most and keeps what the last stage is part of: by dynamic
 * programming over the ends of the pieces. false: the last stage stays alone. */
bool strip_cut(StripChain *c) {
  double best[MAX_STAGES + 1] = {0};
  int start = c->n - 1;
  for (int to = 0; to < c->n; to++) {
    best[to + 1] = best[to];
    start = to;
    for (int from = 0; from < to; from++) {
      int step;
      if (c->stage[from].max) continue;
      const double g = best[from] + best_step(c, from, to, &step);
      if (g <= best[to + 1]) continue;
      best[to + 1] = g;
      start = from;
    }
  }
  if (c->c->strips == STRIPS_ALL) start = 0;
  if (start == c->n - 1) return false;
  c->n -= start;
  memmove(c->stage, c->stage + start, (size_t)c->n * sizeof *c->stage);
  best_step(c, 0, c->n - 1, &c->rows);
  strip_set_rows(c, 0, c->n - 1);
  c->parts = parts_of(c, 0, c->n - 1);
  return true;
}
