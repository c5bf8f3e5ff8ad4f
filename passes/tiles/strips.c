/* Strips of pixels of depthwise convolutions and MaxPools (own_loops.h): sums of a strip stay in
 * registers, with the weights beside them where they fit. */
#include "ir/expr/expr_query.h"
#include "passes/choose/choice.h"
#include "passes/choose/conv_plan.h"
#include "passes/tiles/own_loops.h"

enum { WIDEST = 14 };

static int widest_of(const PassCtx *c) {
  return c->target->vector_regs >= 32 ? WIDEST : WIDEST / 2;
}

static const char *strip_key(const PassCtx *c, const ConvInfo *conv, const Axis *axes, bool max) {
  StrBuf key = {.arena = c->scratch};
  const int n = conv->spatial;
  sb_printf(&key, "strip %skernel=", max ? "max " : "");
  for (int s = 0; s < n; s++) sb_printf(&key, "%s%lld", s ? "x" : "", (long long)conv->kernel[s]);
  sb_printf(&key, " stride=%lld channels=%lld size=", (long long)conv->stride[n - 1],
            (long long)conv->c_out);
  for (int s = 0; s < n; s++)
    sb_printf(&key, "%s%.0f", s ? "x" : "", expr_extent_guess(c->model->pool, axes[s].rows));
  return choice_key(c, "%s", sb_str(&key));
}

/* The width that tuning wants, or the model's. */
static void take_width(const PassCtx *c, const ConvInfo *conv, const Axis *axes, bool max,
                       PlanLoops *l) {
  Candidate candidates[WIDEST];
  const double rows = expr_extent_guess(c->model->pool, axes[conv->spatial - 1].rows);
  const int widest = widest_of(c);
  for (int w = 1; w <= widest; w++)
    candidates[w - 1] = (Candidate){arena_printf(c->scratch, "%d", w),
                                    depthwise_cycles(c->target, conv, rows, w), w, 1};
  l->key = strip_key(c, conv, axes, max);
  l->width = 1 + choice_take(c, CHOICE_TILE, l->key, candidates, widest, l->width - 1);
}

/* Does ARM multiply groups of its bytes? Then sums are made of eight channels, whose bytes fill a
 * register. */
static bool takes_groups(const Target *t, const Node *n) {
  const ContractTypes *const types = node_contract_types(n);
  return types && types->acc == DT_I32 && types->k_step == 4 && n->in[1]->cdata &&
         target_has(t, FEATURE_DOTPROD) && contract_has_dot4(t, types->a, types->b);
}

/* Sums, and the weights beside them where they fit. Where loads are placed ahead of their use, these take
 * registers, too. */
static int room_for_sums(const Target *t, const Node *n, int64_t taps, bool max) {
  const bool many = t->vector_regs >= 32, ahead = t->in_order && !max && taps <= 9;
  if (!many) return ahead ? 2 : 4;
  if (ahead || (!max && takes_groups(t, n))) return 7;
  return taps <= 9 ? 14 : 8;
}

/* Without a remainder where possible. */
static int model_width(const PassCtx *c, const Node *node, const ConvInfo *conv, const Expr *pixels,
                       bool max) {
  int64_t n, taps = 1;
  const bool fixed = expr_is_const(pixels, &n);
  for (int s = 0; s < conv->spatial; s++) taps *= conv->kernel[s];
  const int room = room_for_sums(c->target, node, taps, max);
  for (int w = room; fixed && w >= room / 2; w--)
    if (n % w == 0) return w;
  return fixed && n < room ? (int)n : room;
}

PlanLoops strip_choose_loops(const PassCtx *c, const Node *n, const ConvInfo *conv,
                             const Axis *axes, bool max) {
  PlanLoops l = {.width = model_width(c, n, conv, axes[conv->spatial - 1].rows, max)};
  if (choice_matters(c)) take_width(c, conv, axes, max, &l);
  return l;
}

const char *strip_loops_problem(const PassCtx *c, const PlanLoops *l) {
  return l->width > widest_of(c) ? "there are not as many registers" : NULL;
}
