/* Between op.c, op_fold.c and the constant folder; not for others. */
#pragma once
#include "ir/op/op.h"

/* Sets `contents` of n's small outputs where all that their elem reads is known. */
void op_fold_contents(Model *m, Node *n);
