/* Uniformity: what a vector loop computes once for all lanes. */
#include "codegen/analysis/kernel.h"

static bool is_per_lane(void *user, const Expr *e) {
  return e->op == EX_LOCAL && ((const LocalUse *)user)[e->id].lanes;
}

bool reads_lane_local(const Expr *e, const LocalUse *locals) {
  return expr_any(e, EXF_LOCAL, is_per_lane, (void *)locals);
}

bool lanes_equal(const Expr *e, const Expr *vector, const LocalUse *locals) {
  return !expr_uses_var(e, vector->id) && !reads_lane_local(e, locals);
}
