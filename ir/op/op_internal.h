/* Between op.c, op_fold.c and the constant folder; not for others. */
#pragma once
#include "ir/op/op.h"

typedef const Expr *const *Contents;

/* Sets `contents` of n's small outputs where all that their elem reads is known, again where they are still those `before` (by
 * output): sizes may be known by now, and their symbols gone. */
void op_fold_contents(Model *m, Node *n, const Contents *before);
