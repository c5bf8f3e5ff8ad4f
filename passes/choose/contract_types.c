/* The table of contract_types.h. */
#include "passes/choose/contract_types.h"

static const ContractTypes rows[] = {
    /* name    a        b        panel    acc     k_step  mac */
    {"f32", DT_F32, DT_F32, DT_F32, DT_F32, 1, EX_fma},
    {"f16", DT_F16, DT_F16, DT_F32, DT_F32, 1, EX_fma},
    {"bf16", DT_BF16, DT_BF16, DT_F32, DT_F32, 1, EX_fma},
};

const ContractTypes *contract_types(DType a, DType b) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].a == a && rows[i].b == b) return &rows[i];
  return NULL;
}

const ContractTypes *node_contract_types(const Node *n) {
  const Value *a = node_in(n, 0), *b = node_in(n, 1);
  return a && b ? contract_types(a->dtype, b->dtype) : NULL;
}
