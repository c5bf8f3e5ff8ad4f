/* The table of contract_types.h. */
#include "passes/choose/contract_types.h"

#include <string.h>

#include "passes/choose/contraction.h"

/* clang-format off */
static const ContractTypes rows[] = {
    /* name    a        b        panel   acc     k_step  mac            mac_ba  split_a  across */
    {"f32",    DT_F32,  DT_F32,  DT_F32, DT_F32, 1,      .mac = EX_fma},
    {"f16",    DT_F16,  DT_F16,  DT_F16, DT_F32, 1,      .mac = EX_fma},
    {"bf16",   DT_BF16, DT_BF16, DT_I32, DT_F32, 2,      .mac = EX_dot2_bf16},
    {"bf16",   DT_BF16, DT_BF16, DT_I32, DT_F32, 2,      .mac = EX_fma, .split_a = true},
    {"bf16x1", DT_BF16, DT_BF16, DT_BF16, DT_F32, 1,     .mac = EX_fma},
    {"f32_f16", DT_F32, DT_F16,  DT_F16, DT_F32, 1,      .mac = EX_fma},
    {"f32_bf16", DT_F32, DT_BF16, DT_BF16, DT_F32, 1,    .mac = EX_fma},
    {"f32_u2", DT_F32,  DT_U2,   DT_F32, DT_F32, 1,      .mac = EX_fma},
    {"f32_i2", DT_F32,  DT_I2,   DT_F32, DT_F32, 1,      .mac = EX_fma},
    {"f32_u4", DT_F32,  DT_U4,   DT_F32, DT_F32, 1,      .mac = EX_fma},
    {"f32_i4", DT_F32,  DT_I4,   DT_F32, DT_F32, 1,      .mac = EX_fma},
    {"f32_u8", DT_F32,  DT_U8,   DT_F32, DT_F32, 1,      .mac = EX_fma},
    {"f32_i8", DT_F32,  DT_I8,   DT_F32, DT_F32, 1,      .mac = EX_fma},
    {"f32_f8e4m3fn", DT_F32, DT_F8E4M3FN, DT_F32, DT_F32, 1, .mac = EX_fma},
    {"f32_f8e4m3fnuz", DT_F32, DT_F8E4M3FNUZ, DT_F32, DT_F32, 1, .mac = EX_fma},
    {"f32_f8e5m2", DT_F32, DT_F8E5M2, DT_F32, DT_F32, 1, .mac = EX_fma},
    {"f32_f8e5m2fnuz", DT_F32, DT_F8E5M2FNUZ, DT_F32, DT_F32, 1, .mac = EX_fma},
    {"f64",    DT_F64,  DT_F64,  DT_F64, DT_F64, 1,      .mac = EX_fma},
    {"i32",    DT_I32,  DT_I32,  DT_I32, DT_I32, 1,      .mac = EX_fma},
    {"u8_u8",  DT_U8,   DT_U8,   DT_I32, DT_I32, 4,      .mac = EX_dot4_u8u8},
    {"u8_u8",  DT_U8,   DT_U8,   DT_U8,  DT_I32, 16,     .mac = EX_mul, .across = true},
    {"u8_u8x1", DT_U8,  DT_U8,   DT_I16, DT_I32, 1,      .mac = EX_fma},
    {"u8_i8",  DT_U8,   DT_I8,   DT_I32, DT_I32, 4,      .mac = EX_dot4_u8i8},
    {"i8_u8",  DT_I8,   DT_U8,   DT_I32, DT_I32, 4,      .mac = EX_dot4_u8i8, .mac_ba = true},
    {"i8_i8",  DT_I8,   DT_I8,   DT_I32, DT_I32, 4,      .mac = EX_dot4_i8i8},
    {"i8_i8",  DT_I8,   DT_I8,   DT_I8,  DT_I32, 16,     .mac = EX_mul, .across = true},
    {"i8_i8x1", DT_I8,  DT_I8,   DT_I16, DT_I32, 1,      .mac = EX_fma},
    {.name = NULL},
};

/* Transformed bytes of Winograd forms, which no node has: for targets with an instruction for pairs, and others. */
static const ContractTypes wide_rows[] = {
    {"i16",    DT_I16,  DT_I16,  DT_I32, DT_I32, 2,      .mac = EX_dot2_i16},
    {"i16x1",  DT_I16,  DT_I16,  DT_I16, DT_I32, 1,      .mac = EX_fma},
};

/* DequantizeMatMul of bytes. */
static const ContractTypes scaled_rows[] = {
    {"i8_u2s",  DT_I8,  DT_U2,   DT_I32, DT_F32, 4,      EX_dot4_u8i8,  true,  .scaled = true},
    {"i8_u4s",  DT_I8,  DT_U4,   DT_I32, DT_F32, 4,      EX_dot4_u8i8,  true,  .scaled = true},
    {"i8_u8s",  DT_I8,  DT_U8,   DT_I32, DT_F32, 4,      EX_dot4_u8i8,  true,  .scaled = true},
};
/* clang-format on */

static const ContractTypes *scaled_types(DType b) {
  for (size_t i = 0; i < sizeof scaled_rows / sizeof *scaled_rows; i++)
    if (scaled_rows[i].b == b) return &scaled_rows[i];
  return NULL;
}

const ContractTypes *contract_types(DType a, DType b) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].a == a && rows[i].b == b) return &rows[i];
  return NULL;
}

/* Elements of k that follow each other. */
static int64_t row_of_k(const Node *n) {
  ConvInfo conv;
  MatMulInfo product;
  int64_t k = 0;
  if (conv_info(n, &conv)) return conv.group == 1 && !conv.transposed ? conv.c_in : 0;
  return matmul_info(n, &product) && expr_is_const(product.k, &k) ? k : 0;
}

/* Rows of bytes are filled up to whole steps, which is not to cost more than it saves. */
static bool goes_across(const Node *n, const ContractTypes *across) {
  enum { MOST = 3, OF = 2 };
  const int64_t k = row_of_k(n), step = across->k_step;
  return across->across && expr_pool_rules(n->graph->model->pool)->byte_rows && k > 0 &&
         (k + step - 1) / step * step * OF <= k * MOST;
}

/* Few channels: with the taps of a line they are a row, though one too short for that. Its elements are
 * copied in 16 bits, of which a multiply-add takes lanes. */
static bool joins_taps(const Node *n, const ContractTypes *across) {
  enum { LEAST = 9, MOST_CHANNELS = 7 }; /* three bytes are groups of four, whose rest is wasted */
  ConvInfo conv;
  if (!across->across || !expr_pool_rules(n->graph->model->pool)->byte_rows ||
      !conv_info(n, &conv) || !n->in[1]->cdata)
    return false;
  const int last = conv.spatial - 1;
  return conv.group == 1 && !conv.transposed && conv.dilation[last] == 1 &&
         conv.c_in <= MOST_CHANNELS && conv.c_in * conv.kernel[last] >= LEAST;
}

const ContractTypes *node_contract_types(const Node *n) {
  const Value *a = node_in(n, 0), *b = node_in(n, 1);
  if (a && b && a->dtype == DT_I8 && strcmp(n->op->name, "DequantizeMatMul") == 0)
    return scaled_types(b->dtype);
  const ContractTypes *t = a && b ? contract_types(a->dtype, b->dtype) : NULL;
  ConvInfo conv;
  if (!t || t->k_step == 1) return t;
  if (!dtype_is_float(t->acc))
    return goes_across(n, t + 1) ? t + 1 : joins_taps(n, t + 1) ? t + 2 : t;
  if (conv_info(n, &conv) && !conv_reads_groups(&conv, t)) return t + 2;
  const bool pairs = n->plan && plan_has_matrix(n->plan);
  return !pairs && expr_pool_rules(n->graph->model->pool)->split_dot2 ? t + 1 : t;
}

const ContractTypes *winograd_types(const Target *t, const Node *n) {
  if (dtype_is_float(node_contract_types(n)->acc)) return contract_types(DT_F32, DT_F32);
  return &wide_rows[!target_has(t, FEATURE_PAIRS)];
}

double contract_step_cost(const ContractTypes *types, const Target *t) {
  const bool pairs = target_has(t, FEATURE_PAIRS);
  const bool fused = target_has(t, FEATURE_VNNI) || target_has(t, FEATURE_AVXVNNI);
  if (types->mac == EX_dot2_i16) return fused ? 1 : 1.5; /* and an addition */
  if (types->k_step != 4 || contract_has_dot4(t, types->a, types->b)) return 1;
  /* two of these, and bytes to be extended; or products, and sums of pairs */
  return pairs ? 3.5 : 5;
}

/* Without conversion instructions f16 takes longer to convert than to read at twice the size. */
DType contract_panel_type(const ContractTypes *types, const Target *t) {
  return types->panel == DT_F16 && !target_has(t, FEATURE_F16C) ? types->acc : types->panel;
}

DType contract_computed_panel(const ContractTypes *types) {
  return types->k_step > 1 || !dtype_is_float(types->acc) ? types->panel : types->acc;
}

bool contract_has_dot4(const Target *t, DType x, DType w) {
  if (target_has(t, FEATURE_VNNI) || target_has(t, FEATURE_AVXVNNI)) return x != w;
  return target_has(t, FEATURE_DOTPROD) && (x == w || target_has(t, FEATURE_I8MM));
}

bool contract_has_matrix(const ContractTypes *types, const Target *t) {
  if (contract_has_squares(types, t)) return true;
  if (types->k_step == 4) return types->acc == DT_I32 && target_has(t, FEATURE_AMX_INT8);
  return types->k_step == 2 && types->a == DT_BF16 && target_has(t, FEATURE_AMX_BF16);
}

/* Of mixed signs it is one for bytes of A without. */
bool contract_has_squares(const ContractTypes *types, const Target *t) {
  return types->k_step == 4 && types->acc == DT_I32 && !types->mac_ba &&
         target_has(t, FEATURE_I8MM);
}

bool contract_matrix_takes(const ContractTypes *types, const Target *t, const Expr *k) {
  enum { FEW_STEPS = 4, MOST_STEPS = 16 };
  int64_t n;
  if (!contract_has_matrix(types, t) || !expr_is_const(k, &n) || n % types->k_step != 0)
    return false;
  for (int d = FEW_STEPS; d <= MOST_STEPS; d++)
    if (n / types->k_step % d == 0) return true;
  return false;
}

int contract_panel_step(const ContractTypes *types) { return types->across ? types->k_step : 1; }

DType contract_a_type(const ContractTypes *types) {
  if (types->k_step > 1 && !types->split_a) return types->a;
  return contract_joins(types) ? types->panel : types->acc;
}

bool contract_joins(const ContractTypes *types) {
  return types->panel == DT_I16 && dtype_bytes(types->a) == 1;
}

int contract_group_rest(const ContractTypes *types, const Expr *elements) {
  int64_t n;
  if (!expr_is_const(elements, &n)) return types->k_step - 1;
  return (int)((types->k_step - n % types->k_step) % types->k_step);
}
