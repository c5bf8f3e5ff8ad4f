/* The operator table, made from ops.def: data that ir/op reads, and the only place that names
 * every function of an operator. */
#include "ir/op/op.h"
#include "ir/op/ops.h"

#define EW(text) .body = OB_EW, .ew = text
#define ELEM(fn) .body = OB_ELEM, .elem = fn
#define EXPAND(fn) .body = OB_EXPAND, .expand = fn
#define EXTERN(row) .body = OB_EXTERN, .ext = &row
#define REGION(kind) .body = OB_REGION, .region = kind
#define CUT .gradient_kind = GK_CUT
#define MISSING .gradient_kind = GK_MISSING
#define DERIVED .gradient_kind = GK_DERIVED
#define ADJOINT(text) .gradient_kind = GK_TEXT, .adjoint = text
#define GRADIENT(fn) .gradient_kind = GK_RULE, .gradient = fn
#define PARTS(fn) .gradient_kind = GK_PARTS, .gradient_parts = fn
#define TRAINED(fn, parts) .gradient_kind = GK_RULE, .gradient = fn, .gradient_parts = parts
#define EXPANDED .gradient_kind = GK_EXPANDED
#define LIMIT(text) , .limit = text
#define OP(dom, nm, since_, mini, maxi, mino, maxo, inf, body_, flags_, gradient_) \
  {.name = nm,                                                                     \
   .domain = dom,                                                                  \
   .since = since_,                                                                \
   .min_in = mini,                                                                 \
   .max_in = maxi,                                                                 \
   .min_out = mino,                                                                \
   .max_out = maxo,                                                                \
   .infer = inf,                                                                   \
   body_,                                                                          \
   .flags = flags_,                                                                \
   gradient_},
const OpRow op_rows[] = {
#include "ir/ops/ops.def"
    {0},
};
const int op_row_count = (int)(sizeof op_rows / sizeof *op_rows) - 1;
