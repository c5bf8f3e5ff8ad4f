/* Floats of 16 bits between and inside products of f32: Conv, ConvTranspose, MatMul and Gemm whose weights
 * are a Cast of f16 or bf16 take them as they are stored, and an activation of the same type, too. Sums,
 * what is added to them and the result stay f32 (the attribute `wide`, op_product_types). What only moves
 * elements between two Casts moves them in 16 bits. Runs before constants are folded, which would make
 * f32 of the weights. docs/quantization.md says what is computed.
 * Where the target multiplies pairs of bf16 faster than f32, two computed operands are taken as well: in a
 * training step of mixed precision weights are inputs, and gradients meet activations. */
#include "ir/ops/nn/contraction.h"
#include "passes/choose/contraction.h"
#include "passes/graph/rewrite.h"

enum { LEAST = 1024 }; /* weights that are worth it beside activations of f32 */

/* ---- products ---- */

static bool is_product(const Node *n) {
  return (node_is(n, "Conv") || node_is(n, "ConvTranspose") || node_is(n, "MatMul") ||
          node_is(n, "Gemm")) &&
         n->out[0]->dtype == DT_F32 && !node_int(n, "exact", 0) && !node_int(n, "wide", 0);
}

static bool has_template(const Node *n) {
  ConvInfo conv;
  MatMulInfo product;
  if (conv_info(n, &conv)) return conv_has_template(&conv);
  return matmul_info(n, &product) && !product.b_vec && !expr_is_i64(product.n, 1);
}

/* Pairs of so few channels would be mostly zeros and copies: f32 is faster. */
static bool too_few_pairs(const Node *n, const Value *x) {
  enum { FEW = 8 };
  ConvInfo conv;
  return x->dtype == DT_BF16 && conv_info(n, &conv) && conv.c_in / conv.group < FEW;
}

static bool make_wide(Forward *f, Build *b, Node *n, Value *x, Value *w, bool *keep) {
  Value *in[] = {x, w, node_in(n, 2)};
  Node *made = graph_add_node(n->graph, NULL, n->op, in[2] ? 3 : 2, in, n->loc);
  for (int k = 0; k < n->n_attrs; k++) node_set_attr(made, n->attrs[k]);
  node_set_int(made, "wide", 1);
  node_add_output(made, n->out[0]->name);
  if (!op_infer(b->m, made)) return false;
  *keep = false;
  return forward_set(f, n, n->out[0], made->out[0]);
}

/* Where v comes from, through what only moves elements; of bf16, whose Cast to f32 that is; or NULL. */
static const Value *pairs_of(const Value *v) {
  while (v->def && node_moves(v->def) && node_data_inputs(v->def) == 1 && v->def->n_out == 1 &&
         !v->def->n_syms)
    v = v->def->in[0];
  const Value *const half = half_of(v);
  return half && half->dtype == DT_BF16 && !half->cdata ? half : NULL;
}

/* The same elements as v in bf16. */
static Value *moved_pairs(Build *b, Value *v) {
  Value *const half = half_of(v);
  if (half || !b->ok) return half;
  const Node *const n = v->def;
  Value **in = ARENA_ARRAY(b->m->arena, Value *, n->n_in + 1);
  for (int k = 1; k < n->n_in; k++) in[k] = n->in[k];
  in[0] = moved_pairs(b, n->in[0]);
  if (!b->ok) return NULL;
  return build_node(b, n->op->name, n->op->domain, n->n_in, in, 1, n->n_attrs, n->attrs)->out[0];
}

/* Whether products of pairs are faster than those of f32, beside copies of A and panels. */
static bool pairs_pay(const Target *t, const MatMulInfo *product) {
  enum { LEAST_STEPS = 32 };
  const ContractTypes *const types = contract_types(DT_BF16, DT_BF16);
  int64_t k;
  if (!expr_is_const(product->k, &k) || k < LEAST_STEPS || target_has_grids(t)) return false;
  return contract_matrix_takes(types, t, product->k) ||
         (target_has(t, FEATURE_BF16) && !t->slow_pairs);
}

/* Two computed operands, of which all rows of A meet the same B: scores of an attention stay as they are. */
static bool take_computed(Forward *f, Build *b, Node *n, bool *keep) {
  MatMulInfo product;
  if (!matmul_info(n, &product) || product.a_vec || n->in[1]->rank != 2 || !has_template(n) ||
      !pairs_pay(f->c->target, &product) || !pairs_of(n->in[0]) || !pairs_of(n->in[1]))
    return true;
  Value *const x = moved_pairs(b, n->in[0]), *const w = moved_pairs(b, n->in[1]);
  return b->ok && make_wide(f, b, n, x, w, keep);
}

static bool take_product(Forward *f, Build *b, Node *n, bool *keep) {
  Value *w = half_of(n->in[1]), *x = half_of(n->in[0]);
  if (!w || !w->cdata) return take_computed(f, b, n, keep);
  if (!has_template(n)) return true;
  if (!x || x->dtype != w->dtype) x = n->in[0];
  if (x->cdata || !contract_types(x->dtype, w->dtype) || too_few_pairs(n, x) ||
      (x->dtype == DT_F32 && w->cdata->count < LEAST))
    return true;
  return make_wide(f, b, n, x, w, keep);
}

/* ---- what moves elements ---- */

static bool moves(const Node *n) {
  return (node_moves(n) || node_is(n, "MaxPool")) && n->n_out == 1 && !n->n_syms;
}

/* Cast to 16 bits of what only moves elements that were such. */
static bool take_moved(Forward *f, Build *b, Node *n, bool *keep) {
  const DType t = n->out[0]->dtype;
  const Node *from = n->in[0]->def;
  if (!from || from->graph != n->graph || !moves(from)) return true;
  Value **in = ARENA_ARRAY(b->m->arena, Value *, from->n_in + 1);
  const int data = node_data_inputs(from);
  for (int k = 0; k < from->n_in; k++) {
    in[k] = k < data ? half_of(from->in[k]) : from->in[k];
    if (k < data && (!in[k] || in[k]->dtype != t)) return true;
  }
  const Node *made = build_node(b, from->op->name, from->op->domain, from->n_in, in, 1,
                                from->n_attrs, from->attrs);
  if (!b->ok) return false;
  if (!value_same_type(made->out[0], n->out[0])) return true;
  *keep = false;
  return forward_set(f, n, n->out[0], made->out[0]);
}

/* Rows of a table are picked in 16 bits. */
static bool take_table(Forward *f, Build *b, Node *n, bool *keep) {
  Value *table = half_of(n->in[0]);
  if (!table || !table->cdata || table->cdata->count < LEAST) return true;
  Value *in[] = {table, n->in[1]};
  Value *rows = build_op(b, "Gather", 2, in, n->n_attrs, n->attrs);
  Value *wide = build_cast(b, rows, DT_F32);
  if (!b->ok) return false;
  *keep = false;
  return forward_set(f, n, n->out[0], wide);
}

static bool rewrite_one(Forward *f, Node *n, bool *keep) {
  Build b = {.m = f->c->model, .g = n->graph, .loc = n->loc, .ok = true};
  if (is_product(n)) return take_product(f, &b, n, keep);
  if (node_is(n, "Gather")) return n->n_syms || take_table(f, &b, n, keep);
  if (node_is(n, "Cast") && dtype_is_half(n->out[0]->dtype) && n->in[0]->dtype == DT_F32)
    return take_moved(f, &b, n, keep);
  return true;
}

bool pass_half_products(PassCtx *c) {
  Forward f = forward_new(c);
  return forward_walk(&f, c->model->main, rewrite_one);
}
