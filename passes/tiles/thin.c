/* Loops of convolutions with few output channels (own_loops.h): as many sums as there is room for. */
#include "passes/choose/conv_plan.h"
#include "passes/tiles/own_loops.h"

/* Lines of a block: a divisor of their number that leaves accumulators for several vectors. */
static int lines_of(const ConvInfo *conv, const Axis *axes, int64_t lanes, int budget) {
  int64_t lines, width;
  if (conv->spatial < 2 || !expr_is_const(axes[conv->spatial - 1].rows, &width) ||
      !expr_is_const(axes[conv->spatial - 2].rows, &lines))
    return 1;
  const int64_t vectors = width >= 4 * lanes ? 4 : (width + lanes - 1) / lanes;
  for (int r = 8; r > 1; r /= 2)
    if (lines % r == 0 && r * conv->c_out * vectors <= budget) return r;
  return 1;
}

PlanLoops thin_choose_loops(const PassCtx *c, const ConvInfo *conv, const Axis *axes,
                            bool by_channel) {
  enum { WIDEST = 8, MOST_VECTORS = 4 };
  const int budget = thin_budget(c->target);
  PlanLoops l = {.high = 1};
  int64_t pixels;
  if (by_channel) {
    l.width = budget / (int)conv->c_out;
    if (l.width > WIDEST) l.width = WIDEST;
    if (expr_is_const(axes[conv->spatial - 1].rows, &pixels) && l.width > pixels)
      l.width = pixels > 0 ? (int)pixels : 1;
    return l;
  }
  l.high = lines_of(conv, axes, target_lanes(c->target, 32), budget);
  l.vectors = budget / (l.high * (int)conv->c_out);
  if (l.vectors > MOST_VECTORS) l.vectors = MOST_VECTORS;
  return l;
}

const char *thin_loops_problem(const PassCtx *c, const ConvInfo *conv, const Axis *axes,
                               const PlanLoops *l) {
  const int64_t high = l->high > 1 ? l->high : 1, sums = l->width ? l->width : high * l->vectors;
  int64_t lines, pixels;
  if (sums * conv->c_out > thin_budget(c->target)) return "there are not as many registers";
  if (high == 1) return NULL;
  if (conv->spatial < 2 || !expr_is_const(axes[conv->spatial - 1].rows, &pixels) ||
      !expr_is_const(axes[conv->spatial - 2].rows, &lines) || lines % high)
    return "a block cannot have as many lines here";
  return NULL;
}
