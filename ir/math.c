/* Math rows as expressions over basic rows. */
#include "ir/expr_impl.h"

const Expr *expr_lower_math(ExprPool *p, const Expr *e) { return e; }
