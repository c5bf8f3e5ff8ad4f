/* burin.AppendCache where the past lies in the result's memory already (Model.in_place): its rows
 * are left alone, only what is behind them is stored. */
#include "passes/build/nest.h"

/* The elements that stay as they are, and what the others become; NULL: that is not known. */
static const Expr *kept_rows(const Expr *value, const Expr **others) {
  if (value->op != EX_select || (value->flags & EXF_REDUCE)) return NULL;
  *others = value->a[2];
  return value->a[0];
}

Step *lower_append(Lower *l, const Value *v, const Place *to) {
  Arena *a = l->m->arena;
  KernelBuild b;
  const Expr *var[4], *idx[4], *value;
  kb_begin(&b, l, v, NULL);
  for (int d = 0; d < 4; d++) {
    var[d] = expr_is_i64(v->dims[d], 1) ? NULL : ex_var(l->p, "i", v->dims[d]);
    idx[d] = var[d] ? var[d] : ex_i64(l->p, 0);
  }
  const Expr *kept = kept_rows(kernel_expr_of(&b.x, v, idx), &value);
  if (!kept || b.x.bad || (var[3] && expr_uses_var(kept, var[3]->id))) {
    kb_drop(&b);
    return NULL;
  }
  const int id = kb_param(&b, to->buffer, to->offset, PA_WRITE);
  Stmt *s = stmt_store(a, id, place_index(l->p, to, 4, idx), value);
  if (var[3]) s = stmt_for(a, FOR_VECTOR, var[3], s);
  s = stmt_if(a, ex_op(l->p, EX_not, kept, NULL, NULL), s, NULL);
  for (int d = 2; d >= 0; d--)
    if (var[d]) s = stmt_for(a, FOR_SERIAL, var[d], s);
  kb_estimate(&b, "elem", 2 * expr_extent_guess(l->p, value_count(l->p, v->def->in[0])));
  return kb_finish(&b, s);
}
