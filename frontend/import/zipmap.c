/* ZipMap (ai.onnx.ml): a list of maps from labels to the scores of a row. Its tensor is passed
 * through; the labels are kept beside the output of the model that it becomes. */
#include <string.h>

#include "frontend/scope/scope.h"

static const Attr *list_attr(const Attr *attrs, int n, const char *name, AttrKind kind) {
  for (int k = 0; k < n; k++)
    if (strcmp(attrs[k].name, name) == 0 && attrs[k].kind == kind && attrs[k].n > 0)
      return &attrs[k];
  return NULL;
}

bool zipmap_known(const char *domain, const char *op) {
  return strcmp(domain, "ai.onnx.ml") == 0 && strcmp(op, "ZipMap") == 0;
}

bool zipmap_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc, Value *const *in,
                 const Attr *attrs, int n_attrs) {
  const Attr *const ints = list_attr(attrs, n_attrs, "classlabels_int64s", AT_INTS),
                    *const texts = list_attr(attrs, n_attrs, "classlabels_strings", AT_STRINGS);
  const Value *const x = p->n_input == 1 ? in[0] : NULL;
  int64_t width;
  if (!x || p->n_output != 1 || !*p->output[0])
    return diag_error(im->d, loc, ERR_ARITY, "ZipMap has one input and one output");
  if (x->kind != TY_TENSOR || x->dtype != DT_F32 || x->rank < 1 || x->rank > 2)
    return diag_error(im->d, loc, ERR_TYPE, "ZipMap needs f32[rows,labels]");
  if (!ints == !texts)
    return diag_error(im->d, loc, ERR_ATTR_MISSING,
                      "ZipMap needs one of classlabels_int64s and classlabels_strings");
  const int64_t n = ints ? ints->n : texts->n;
  if (expr_is_const(x->dims[x->rank - 1], &width) && width != n)
    return diag_error(im->d, loc, ERR_SHAPE, "%lld labels for %lld columns", (long long)n,
                      (long long)width);
  const void *const data = ints ? (const void *)ints->ints : (const void *)texts->strs;
  const char *const name = arena_strdup(im->arena, p->output[0]);
  strmap_put(im->scratch, &im->keys, name,
             const_new(im->m, NULL, ints ? DT_I64 : DT_STR, 1, &n, data));
  return scope_define(im, s, name, in[0], loc);
}
