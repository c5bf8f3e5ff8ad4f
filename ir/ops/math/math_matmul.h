/* What the rules of products of matrices share. */
#pragma once
#include "ir/op/ops.h"

/* Output 0 is the product of inputs a and b, as numpy.matmul has it, of type t. */
bool matmul_out(Model *m, Node *n, int a, int b, DType t);
