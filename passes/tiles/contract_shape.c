/* Convolutions and matrix products described as tiled contractions (contract_loops.h): sizes alone, no
 * places in memory. */
#include <string.h>

#include "passes/choose/conv_plan.h"
#include "passes/tiles/contract_loops.h"

int64_t conv_merged_groups(const Target *t, const ConvInfo *conv, const ConstData *weights) {
  int64_t m = target_lanes(t, 32) / (conv->c_out / conv->group);
  while (m > 1 && conv->group % m) m--;
  if (!weights || dtype_rows[weights->dtype].bits > 32 || conv->group == 1 || conv->transposed ||
      m < 2)
    return 1;
  return m;
}

bool conv_is_flat(ExprPool *p, const ConvInfo *conv, const Axis *axes, const Expr *const *in,
                  const Expr *const *out) {
  if (conv->spatial == 1) return true;
  for (int s = 0; s < conv->spatial; s++)
    if (axes[s].taps != 1 || axes[s].is != 1 || axes[s].os != 1 || axes[s].ib != 0) return false;
  const Expr *const *places[2] = {in, out};
  for (int i = 0; i < 2; i++) {
    if (!places[i]) return false;
    for (int s = 1; s < conv->spatial; s++)
      if (places[i][1 + s] != ex_mul(p, places[i][2 + s], axes[s].rows)) return false;
  }
  return true;
}

static void add_outer(ContractShape *s, const Expr *extent) { s->outer[s->n_outer++] = extent; }
static void add_k(ContractShape *s, const Expr *extent) {
  if (!expr_is_i64(extent, 1)) s->k[s->n_k++] = extent;
}

void conv_shape(ExprPool *p, const Node *n, const ConvInfo *conv, const Axis *axes, bool flat,
                bool channels_last, ContractShape *s) {
  const int last = conv->spatial - 1;
  *s = (ContractShape){.types = node_contract_types(n), .flat = flat};
  add_outer(s, n->in[0]->dims[0]);
  if (conv->group > 1) add_outer(s, ex_i64(p, conv->group));
  s->rows_h = ex_i64(p, 1);
  s->rows_w = axes[last].rows;
  if (flat) {
    for (int d = 0; d < last; d++) s->rows_w = ex_mul(p, s->rows_w, axes[d].rows);
  } else {
    if (last > 0) s->rows_h = axes[last - 1].rows;
    if (last > 1) add_outer(s, axes[0].rows);
  }
  s->n = ex_i64(p, conv->c_out / conv->group);
  const int step = s->types->k_step;
  const bool joined = channels_last && contract_joins(s->types);
  const Expr *channels = ex_ceildiv(p, ex_i64(p, conv->c_in / conv->group), step);
  if (!channels_last && step == 1) add_k(s, channels);
  if (joined) channels = ex_i64(p, conv->c_in * axes[last].taps);
  for (int d = 0; d <= last - joined; d++) add_k(s, ex_i64(p, axes[d].taps));
  if (step > 1)
    s->k[s->n_k++] = channels;
  else if (channels_last)
    add_k(s, channels);
  if (!s->n_k) s->k[s->n_k++] = ex_i64(p, 1);
  s->skips = n->plan->skips;
}

static bool has_batch(const Value *b) {
  for (int d = 0; d < b->rank - 2; d++)
    if (!expr_is_i64(b->dims[d], 1)) return true;
  return false;
}

bool matmul_merges_batch(const Node *n, const MatMulInfo *product) {
  return !product->b_vec && !has_batch(n->in[1]) && !product->a_vec;
}

/* Columns of A in memory, of which a product takes sums: turned by the node or in front of it. */
static int64_t steps_apart(const Node *n, const MatMulInfo *product) {
  const Value *const a = n->in[0];
  ExprPool *const p = n->graph->model->pool;
  const Expr *apart = NULL;
  const int64_t *perm;
  int64_t size = 0;
  if (product->trans_a) {
    apart = product->m;
  } else if (a->inlined && a->def && strcmp(a->def->op->name, "Transpose") == 0 &&
             node_ints(a->def, "perm", &perm) == a->rank && a->rank > 1 &&
             perm[a->rank - 2] == a->rank - 1) {
    apart = ex_i64(p, 1);
    for (int64_t d = perm[a->rank - 1] + 1; d < a->rank; d++)
      apart = ex_mul(p, apart, a->def->in[0]->dims[d]);
  }
  return apart && expr_is_const(apart, &size) ? size : 0;
}

void matmul_shape(ExprPool *p, const Node *n, const MatMulInfo *product, ContractShape *s) {
  const bool merged = matmul_merges_batch(n, product);
  *s = (ContractShape){.types = node_contract_types(n), .flat = true};
  s->rows_h = ex_i64(p, 1);
  s->rows_w = product->m;
  for (int d = 0; d < product->batch_rank; d++) {
    const Expr *extent = n->out[0]->dims[d];
    if (merged)
      s->rows_w = ex_mul(p, s->rows_w, extent);
    else if (!expr_is_i64(extent, 1))
      add_outer(s, extent);
  }
  s->n = product->n;
  s->n_k = 1;
  s->k[0] = ex_ceildiv(p, product->k, s->types->k_step);
  if (!merged || !product->batch_rank) s->apart = steps_apart(n, product);
}

void winograd_shape(ExprPool *p, const Target *t, const Node *n, const ConvInfo *conv,
                    ContractShape *s) {
  const int64_t m = n->plan->winograd, lines = n->plan->block, planes = n->plan->planes;
  const Expr *const *const dims = n->out[0]->dims + conv->spatial;
  const Expr *const th = ex_ceildiv(p, dims[0], m), *const tw = ex_ceildiv(p, dims[1], m);
  *s = (ContractShape){.types = winograd_types(t, n), .flat = true};
  add_outer(s, ex_i64(p, (m + 2) * (m + 2)));
  s->rows_h = ex_i64(p, 1);
  if (!lines)
    s->rows_w = ex_mul(p, ex_mul(p, n->out[0]->dims[0], th), tw);
  else if (winograd_counts_tiles(n, conv))
    s->rows_w = ex_i64(p, lines);
  else
    s->rows_w = ex_mul(p, ex_i64(p, (planes ? planes : 1) * lines), tw);
  s->n = ex_i64(p, conv->c_out);
  if (conv->spatial == 3) add_k(s, ex_i64(p, conv->kernel[0]));
  s->k[s->n_k++] = ex_ceildiv(p, ex_i64(p, conv->c_in), s->types->k_step);
}
