/* Which nodes run as contractions, by templates of their own, and what an attention is made of. */
#include "passes/choose/contraction.h"

#include <string.h>

#include "passes/choose/contract_types.h"
#include "passes/choose/conv_axes.h"

bool conv_is_depthwise(const ConvInfo *conv) {
  return !conv->transposed && conv->group == conv->c_in && conv->c_out == conv->c_in &&
         conv->group > 1 && conv->spatial <= 3;
}

static bool float_operands(const Node *n) {
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    if (v && v->dtype != DT_F32 && v->dtype != DT_F16 && v->dtype != DT_BF16) return false;
  }
  return true;
}

bool conv_reads_groups(const ConvInfo *conv, const ContractTypes *t) {
  return conv->group == 1 || conv->c_in / conv->group % t->k_step == 0;
}

/* Integers: products without zero points, which exact_products makes of others. */
static bool types_fit(const Node *n) {
  const ContractTypes *t = node_contract_types(n);
  if (!t || dtype_is_float(t->acc)) return t != NULL;
  if (strcmp(n->op->name, "MatMul") == 0) return true;
  if (node_in(n, 2) || node_in(n, 3)) return false;
  return strcmp(n->op->name, "MatMulInteger") == 0 || strcmp(n->op->name, "ConvInteger") == 0;
}

bool conv_beyond_tiles(const Node *n) {
  const ContractTypes *t = node_contract_types(n);
  return n->in[1]->cdata && t && t->acc == DT_F32;
}

bool conv_has_template(const ConvInfo *conv) {
  return conv->spatial <= 3 && conv_phases(conv) > 0 &&
         (conv->group == 1 || conv->c_out / conv->group >= 2 || conv_is_depthwise(conv));
}

/* Whether a template pays with weights that are packed at run time: not for columns of which most
 * lanes of a tile would stay empty, nor for channels that are not brought together anyway. */
static bool computed_weights_fit(const Node *n, const ConvInfo *conv) {
  enum { FEW = 4 };
  if (conv_is_depthwise(conv)) return value_from_conv(n->in[0]);
  return conv->transposed || conv->c_out / conv->group >= FEW;
}

bool node_is_contraction(const Node *n) {
  ConvInfo conv;
  MatMulInfo product;
  Attention at;
  int64_t k;
  if (!(n->op->flags & OF_CONTRACTION)) return false;
  if (attention_of(n, &at)) return float_operands(n);
  if (!types_fit(n)) return false;
  if (conv_info(n, &conv))
    return conv_has_template(&conv) && (n->in[1]->cdata || computed_weights_fit(n, &conv)) &&
           (!conv_is_depthwise(&conv) || node_contract_types(n)->acc != DT_F64);
  return matmul_info(n, &product) && !product.b_vec && !(expr_is_const(product.n, &k) && k < 2);
}

/* ---- the contraction of a kernel ---- */

bool value_set_add(ValueSet *s, const Value *v) {
  if (2 * s->n >= s->cap) {
    const ValueSet old = *s;
    s->n = 0;
    s->cap = old.cap ? 2 * old.cap : 16;
    s->slot = ARENA_ARRAY(s->a, const Value *, s->cap);
    for (int i = 0; i < old.cap; i++)
      if (old.slot[i]) value_set_add(s, old.slot[i]);
  }
  uint32_t h = (uint32_t)v->id * 2654435761u & (uint32_t)(s->cap - 1);
  while (s->slot[h] && s->slot[h] != v) h = (h + 1) & (uint32_t)(s->cap - 1);
  if (s->slot[h]) return false;
  s->slot[h] = v;
  s->n++;
  return true;
}

static const Value *find_anchor(ValueSet *seen, const Value *root) {
  const Node *n = root->def;
  if (node_is_contraction(n)) return root;
  for (int i = 0; i < n->n_in; i++) {
    const Value *v = n->in[i];
    if (!v || !v->inlined || !v->def || !value_set_add(seen, v)) continue;
    const Value *a = find_anchor(seen, v);
    if (a) return a;
  }
  return NULL;
}

const Value *kernel_anchor(const Value *root) {
  if (!root->def) return NULL;
  ValueSet seen = {.a = arena_child(root->def->graph->model->arena)};
  const Value *anchor = find_anchor(&seen, root);
  arena_free(seen.a);
  return anchor;
}

/* ---- attention ---- */

static const Expr *last_dim(const Value *v, int back) { return v->dims[v->rank - back]; }

bool attention_make(const Value *x, const Value *v, const Value *scores, Attention *a) {
  const Node *n = scores->def;
  *a = (Attention){.x = x, .v = v, .scores = scores};
  if (!matmul_info(n, &a->qk) || a->qk.a_vec || a->qk.b_vec || node_in(n, 2)) return false;
  a->q = n->in[0];
  a->k = n->in[1];
  a->rows = last_dim(x, 2);
  a->keys = last_dim(x, 1);
  return a->qk.m == a->rows && a->qk.n == a->keys && expr_is_const(a->qk.k, &a->dk) && a->dk > 0 &&
         expr_is_const(last_dim(v, 1), &a->dv) && a->dv > 0;
}

bool attention_of(const Node *n, Attention *a) {
  if (strcmp(n->op->name, "SoftmaxMatMul") != 0 || !n->in[0]->inlined) return false;
  const Value *scores = kernel_anchor(n->in[0]);
  if (!scores || !attention_make(n->in[0], n->in[1], scores, a)) return false;
  a->mode = (SoftmaxMode)node_int(n, "mode", SM_PLAIN);
  if (node_ints(n, "perm", &a->perm) == 0) a->perm = NULL;
  return true;
}
