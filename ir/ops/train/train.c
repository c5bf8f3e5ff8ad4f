/* Optimizers of ai.onnx.preview.training 1: one step for several tensors. Inputs are rate, count,
 * then all tensors, all gradients and all states; outputs the new tensors and the new states. */
#include <string.h>
#include "ir/op/ops.h"

/* ---- what they share ---- */
enum { RATE, COUNT, FIRST };

/* Groups of inputs behind the first two, and of outputs: each has as many tensors. */
static bool infer_step(Model *m, Node *n, int in_groups, int out_groups) {
  const int all = n->n_in - FIRST, each = all / in_groups;
  if (all % in_groups || n->n_out != each * out_groups)
    return op_error(m, n, ERR_ARITY, "%d inputs and %d outputs are no %d and %d of each tensor",
                    all, n->n_out, in_groups, out_groups);
  if (!op_need_class(m, n, RATE, CL_FLOAT) || !op_need_class(m, n, COUNT, CL_INT) ||
      !op_need_rank(m, n, RATE, 0, 1) || !op_need_rank(m, n, COUNT, 0, 1))
    return false;
  for (int k = FIRST; k < n->n_in; k++) {
    const Value *const x = n->in[FIRST + (k - FIRST) % each];
    if (!op_need_class(m, n, k, CL_FLOAT) || !op_same_dtype(m, n, k, FIRST) ||
        !op_need_rank(m, n, k, x->rank, x->rank) ||
        !require_shape(m, n, k, 0, x->rank, (const Expr *const *)x->dims,
                       "size of a tensor and what belongs to it"))
      return false;
  }
  for (int k = 0; k < n->n_out; k++)
    if (!op_out_like(m, n, k, n->in[FIRST]->dtype, n->in[FIRST + k % each])) return false;
  return true;
}

static bool need_float(Model *m, const Node *n, const char *name, bool needed) {
  double v;
  const Attr *a;
  return op_float(m, n, name, 0, &v) && (!needed || op_need_attr(m, n, name, AT_FLOAT, &a));
}

static Value *number(Build *b, const Value *like, double v) {
  return build_scalar(b, like->dtype, v);
}

static Value *scale(Build *b, Value *v, double by) {
  return by == 1 ? v : build2(b, "Mul", v, number(b, v, by));
}

/* The gradient of what is lost, and of half the squares of x times norm_coefficient. */
static Value *regularized(Build *b, const Node *n, Value *x, Value *g) {
  const double norm = node_float(n, "norm_coefficient", 0);
  return norm == 0 ? g : build2(b, "Add", scale(b, x, norm), g);
}

/* A scalar of the tensors' type, whatever its own rank. */
static Value *scalar(Build *b, Value *v, DType t) {
  const int64_t none = 0;
  if (v->rank) v = build2(b, "Reshape", v, value_const_i64s(b->m, 1, 0, &none));
  return build_cast(b, v, t);
}

static Value *if_begun(Build *b, Value *count, Value *yes, Value *no) {
  Value *const begun = build2(b, "Greater", count, number(b, count, 0));
  return build_op(b, "Where", 3, (Value *[]){begun, yes, no}, 0, NULL);
}

/* ---- Momentum ---- */
static const char *const modes[] = {"nesterov", "standard", NULL};

bool infer_momentum(Model *m, Node *n) {
  const Attr *a;
  int mode;
  return need_float(m, n, "alpha", true) && need_float(m, n, "beta", true) &&
         need_float(m, n, "norm_coefficient", true) && op_need_attr(m, n, "mode", AT_STRING, &a) &&
         op_choice(m, n, "mode", "", modes, &mode) && infer_step(m, n, 3, 2);
}

bool expand_momentum(Build *b, Node *n, Value **out) {
  const int each = (n->n_in - FIRST) / 3;
  const DType t = n->in[FIRST]->dtype;
  const bool nesterov = strcmp(node_string(n, "mode", ""), "nesterov") == 0;
  const double alpha = node_float(n, "alpha", 0);
  Value *const rate = scalar(b, n->in[RATE], t), *const count = scalar(b, n->in[COUNT], DT_I64);
  Value *const beta =
      if_begun(b, count, build_scalar(b, t, node_float(n, "beta", 0)), build_scalar(b, t, 1));
  for (int k = 0; k < each; k++) {
    Value *const x = n->in[FIRST + k];
    Value *const g = regularized(b, n, x, n->in[FIRST + each + k]);
    Value *const v =
        build2(b, "Add", scale(b, n->in[FIRST + 2 * each + k], alpha), build2(b, "Mul", beta, g));
    Value *const step = nesterov ? build2(b, "Add", g, scale(b, v, alpha)) : v;
    out[k] = build2(b, "Sub", x, build2(b, "Mul", rate, step));
    out[each + k] = v;
  }
  return b->ok;
}

/* ---- Adagrad ---- */
bool infer_adagrad(Model *m, Node *n) {
  return need_float(m, n, "decay_factor", false) && need_float(m, n, "epsilon", false) &&
         need_float(m, n, "norm_coefficient", false) && infer_step(m, n, 3, 2);
}

bool expand_adagrad(Build *b, Node *n, Value **out) {
  const int each = (n->n_in - FIRST) / 3;
  const DType t = n->in[FIRST]->dtype;
  Value *const count = scalar(b, n->in[COUNT], t);
  Value *const slower =
      build2(b, "Add", build_scalar(b, t, 1), scale(b, count, node_float(n, "decay_factor", 0)));
  Value *const rate = build2(b, "Div", scalar(b, n->in[RATE], t), slower);
  for (int k = 0; k < each; k++) {
    Value *const x = n->in[FIRST + k];
    Value *const g = regularized(b, n, x, n->in[FIRST + each + k]);
    Value *const h = build2(b, "Add", n->in[FIRST + 2 * each + k], build2(b, "Mul", g, g));
    Value *const root =
        build2(b, "Add", build1(b, "Sqrt", h), build_scalar(b, t, node_float(n, "epsilon", 0)));
    out[k] = build2(b, "Sub", x, build2(b, "Div", build2(b, "Mul", rate, g), root));
    out[each + k] = h;
  }
  return b->ok;
}

/* ---- Adam ---- */
bool infer_adam(Model *m, Node *n) {
  static const char *const names[] = {"alpha", "beta", "epsilon", "norm_coefficient",
                                      "norm_coefficient_post"};
  for (int k = 0; k < 5; k++)
    if (!need_float(m, n, names[k], false)) return false;
  return infer_step(m, n, 4, 3);
}

/* 1 - base^count */
static Value *rest_of_power(Build *b, double base, Value *count) {
  Value *const power = build2(b, "Pow", number(b, count, base), count);
  return build2(b, "Sub", number(b, count, 1), power);
}

bool expand_adam(Build *b, Node *n, Value **out) {
  const int each = (n->n_in - FIRST) / 4;
  const DType t = n->in[FIRST]->dtype;
  const double alpha = node_float(n, "alpha", 0.9), beta = node_float(n, "beta", 0.999),
               post = 1 - node_float(n, "norm_coefficient_post", 0);
  Value *const rate = scalar(b, n->in[RATE], t), *const count = scalar(b, n->in[COUNT], t);
  Value *const unbiased = build2(b, "Div", build1(b, "Sqrt", rest_of_power(b, beta, count)),
                                 rest_of_power(b, alpha, count));
  Value *const adjusted = if_begun(b, count, build2(b, "Mul", rate, unbiased), rate);
  for (int k = 0; k < each; k++) {
    Value *const x = n->in[FIRST + k];
    Value *const g = regularized(b, n, x, n->in[FIRST + each + k]);
    Value *const v =
        build2(b, "Add", scale(b, n->in[FIRST + 2 * each + k], alpha), scale(b, g, 1 - alpha));
    Value *const h = build2(b, "Add", scale(b, n->in[FIRST + 3 * each + k], beta),
                            scale(b, build2(b, "Mul", g, g), 1 - beta));
    Value *const root =
        build2(b, "Add", build1(b, "Sqrt", h), build_scalar(b, t, node_float(n, "epsilon", 0)));
    Value *const step = build2(b, "Div", build2(b, "Mul", adjusted, v), root);
    out[k] = scale(b, build2(b, "Sub", x, step), post);
    out[each + k] = v;
    out[2 * each + k] = h;
  }
  return b->ok;
}
