/* Which opset a node needs. The table of operators has the version of the newest schema, and most
 * of these only allow more types than the one before: a file for the newest opset would be refused
 * by programs that could run it. */
#include <string.h>
#include "frontend/export/export_internal.h"
#include "ir/op/op.h"

/* Operators that are younger than EXPORT_OPSET, and attributes that came to older ones since. */
static const struct Young {
  const char *op;
  const char *attr; /* NULL: the operator itself */
  int version;
} young[] = {
    {"Attention", NULL, 23},
    {"RMSNormalization", NULL, 23},
    {"RotaryEmbedding", NULL, 23},
    {"DequantizeLinear", "output_dtype", 23},
    {"QuantizeLinear", "precision", 23},
    {"Swish", NULL, 24},
    {"TensorScatter", NULL, 24},
    {"Cast", "round_mode", 24},
    {"CastLike", "round_mode", 24},
    {"BitCast", NULL, 26},
    {"CumProd", NULL, 26},
    {"CausalConvWithState", NULL, 27},
    {"LinearAttention", NULL, 27},
    {"Range", "stash_type", 27},
    {"SpaceToDepth", "mode", 28},
    {"SwiGLU", NULL, 28},
};

/* Which version has element type t in Cast, Constant and their kind. */
static int dtype_version(DType t) {
  switch (t) {
    case DT_F4E2M1: return 23;
    case DT_F8E8M0: return 24;
    case DT_U2:
    case DT_I2: return 25;
    default: return EXPORT_OPSET;
  }
}

static int types_version(const Node *n) {
  int version = EXPORT_OPSET;
  for (int k = 0; k < n->n_in + n->n_out; k++) {
    const Value *v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
    const int needs = v ? dtype_version(v->dtype) : 0;
    if (needs > version) version = needs;
  }
  return version;
}

int export_form_version(const Node *n) {
  if (n->op->domain && *n->op->domain) return n->op->since;
  int version = types_version(n);
  for (size_t k = 0; k < sizeof young / sizeof *young; k++)
    if (strcmp(n->op->name, young[k].op) == 0 && young[k].version > version &&
        (!young[k].attr || node_attr(n, young[k].attr)))
      version = young[k].version;
  return version;
}
