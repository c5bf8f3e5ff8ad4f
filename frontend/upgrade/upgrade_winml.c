/* Experimental operators that early converters (WinML, CNTK) wrote into ai.onnx and that ONNX later
 * removed, written with today's operators. */
#include <string.h>
#include "frontend/upgrade/upgrade.h"

static bool has_image(Import *im, const OldNode *o) {
  if (old_rank(o, 0) == 4) return true;
  return diag_error(im->d, o->loc, ERR_RANK, "needs an input of 4 dimensions");
}

static Value *affine(Import *im, OldNode *o, double mul, Value *add) {
  Value *s = old_scalar_like(im, o, old_in(o, 0), mul);
  Value *x = s && old_in(o, 0) ? mul == 1 ? o->in[0] : old_emit2(im, o, "Mul", o->in[0], s) : NULL;
  return x && add ? old_emit2(im, o, "Add", x, add) : NULL;
}

/* x*scale + bias[channel] */
static bool up_image_scaler(Import *im, OldNode *o) {
  const Attr *bias = old_attr(o, "bias");
  if (!has_image(im, o)) return false;
  const DType t = o->in[0]->dtype;
  const int n = bias && bias->kind == AT_FLOATS ? bias->n : 0;
  const int64_t dims[3] = {n, 1, 1};
  uint8_t *data = arena_alloc(im->arena, (size_t)dtype_bytes(t) * (size_t)n + 1);
  if (n == 0)
    return old_done(im, o,
                    affine(im, o, old_float(o, "scale", 1), value_const_scalar(im->m, t, 0)));
  for (int k = 0; k < n; k++) dtype_store_f(t, data + k * dtype_bytes(t), bias->floats[k]);
  Value *add = value_const(im->m, const_new(im->m, NULL, t, 3, dims, data));
  return old_done(im, o, affine(im, o, old_float(o, "scale", 1), add));
}

/* border = left, top, right, bottom; or scale = height, width from left, top on. */
static bool up_crop(Import *im, OldNode *o) {
  const Attr *border = old_attr(o, "border"), *scale = old_attr(o, "scale");
  int64_t height, width;
  if (!has_image(im, o)) return false;
  if (!border || border->kind != AT_INTS || border->n != 4)
    return diag_error(im->d, o->loc, ERR_ATTR_VALUE, "border needs 4 numbers");
  const int64_t *b = border->ints;
  int64_t starts[2] = {b[1], b[0]}, ends[2] = {0, 0};
  const int64_t axes[2] = {2, 3};
  const bool sized = scale && scale->kind == AT_INTS && scale->n == 2;
  for (int k = 0; k < 4; k++)
    if (b[k] < 0 || b[k] > INT32_MAX)
      return diag_error(im->d, o->loc, ERR_ATTR_VALUE, "border %lld", (long long)b[k]);
  if (sized && (!ck_add(starts[0], scale->ints[0], &ends[0]) ||
                !ck_add(starts[1], scale->ints[1], &ends[1])))
    return diag_error(im->d, o->loc, ERR_ATTR_VALUE, "scale overflows");
  if (!sized) {
    const bool known =
        expr_is_const(o->in[0]->dims[2], &height) && expr_is_const(o->in[0]->dims[3], &width);
    ends[0] = b[3] ? -b[3] : known ? height : INT64_MAX;
    ends[1] = b[2] ? -b[2] : known ? width : INT64_MAX;
  }
  Value *const in[] = {o->in[0], value_const_i64s(im->m, 1, 2, starts),
                       value_const_i64s(im->m, 1, 2, ends), value_const_i64s(im->m, 1, 2, axes)};
  return old_done(im, o, old_emit(im, o, "Slice", 4, in, 0, NULL));
}

static bool up_affine(Import *im, OldNode *o) {
  Value *beta = old_scalar_like(im, o, old_in(o, 0), old_float(o, "beta", 0));
  return old_done(im, o, affine(im, o, old_float(o, "alpha", 1), beta));
}

static bool up_scale(Import *im, OldNode *o) {
  Value *s = old_scalar_like(im, o, old_in(o, 0), old_float(o, "scale", 1));
  return old_done(im, o, s ? old_emit2(im, o, "Mul", old_in(o, 0), s) : NULL);
}

/* alpha * f(beta * x) */
static bool scaled(Import *im, OldNode *o, const char *fn) {
  Value *alpha = old_scalar_like(im, o, old_in(o, 0), old_float(o, "alpha", 1));
  Value *beta = old_scalar_like(im, o, old_in(o, 0), old_float(o, "beta", 1));
  Value *x = alpha && beta ? old_emit2(im, o, "Mul", old_in(o, 0), beta) : NULL;
  Value *y = x ? old_emit2(im, o, fn, x, NULL) : NULL;
  return old_done(im, o, y ? old_emit2(im, o, "Mul", y, alpha) : NULL);
}

static bool up_scaled_tanh(Import *im, OldNode *o) { return scaled(im, o, "Tanh"); }
static bool up_parametric_softplus(Import *im, OldNode *o) { return scaled(im, o, "Softplus"); }

static bool with_input(Import *im, OldNode *o, UpgradeFn fn) {
  if (!old_in(o, 0)) return diag_error(im->d, o->loc, ERR_ARITY, "input 0 is missing");
  return fn(im, o);
}

static bool in_affine(Import *im, OldNode *o) { return with_input(im, o, up_affine); }
static bool in_scale(Import *im, OldNode *o) { return with_input(im, o, up_scale); }
static bool in_tanh(Import *im, OldNode *o) { return with_input(im, o, up_scaled_tanh); }
static bool in_softplus(Import *im, OldNode *o) {
  return with_input(im, o, up_parametric_softplus);
}

const UpgradeRow upgrade_experimental[] = {
    {"", "Affine", ALWAYS, true, in_affine},
    {"", "Crop", ALWAYS, true, up_crop},
    {"", "ImageScaler", ALWAYS, true, up_image_scaler},
    {"", "ParametricSoftplus", ALWAYS, true, in_softplus},
    {"", "Scale", ALWAYS, true, in_scale},
    {"", "ScaledTanh", ALWAYS, true, in_tanh},
    {0},
};
