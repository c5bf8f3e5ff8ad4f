/* Old forms of normalization, pooling, resizing and sampling. */
#include <string.h>
#include "frontend/upgrade/upgrade.h"

/* ---- normalization ---- */
static bool up_batchnorm_spatial(Import *im, OldNode *o) {
  const bool spatial = old_int(o, "spatial", 1) != 0;
  old_drop(o, "spatial");
  old_drop(o, "is_test");
  old_drop(o, "consumed_inputs");
  if (spatial) return true;
  for (int k = 0; k < 5; k++)
    if (!old_in(o, k)) return diag_error(im->d, o->loc, ERR_ARITY, "input %d is missing", k);
  Value *eps = old_scalar_like(im, o, o->in[4], old_float(o, "epsilon", 1e-5));
  Value *dev = eps ? old_emit2(im, o, "Sqrt", old_emit2(im, o, "Add", o->in[4], eps), NULL) : NULL;
  Value *centred = dev ? old_emit2(im, o, "Sub", o->in[0], o->in[3]) : NULL;
  Value *normal = centred ? old_emit2(im, o, "Div", centred, dev) : NULL;
  Value *scaled = normal ? old_emit2(im, o, "Mul", normal, o->in[1]) : NULL;
  return scaled && old_done(im, o, old_emit2(im, o, "Add", scaled, o->in[2]));
}

static bool up_batchnorm_outputs(Import *im, OldNode *o) {
  for (int k = 1; k < o->n_out; k++)
    if (o->out_used[k])
      return diag_error(im->d, o->loc, ERR_UNSUPPORTED, "BatchNormalization in training mode");
  if (o->n_out > 1) o->n_out = 1;
  return true;
}

/* Scale and bias per group → per channel. */
static bool up_groupnorm(Import *im, OldNode *o) {
  const int64_t groups = old_int(o, "num_groups", 0);
  int64_t channels;
  if (!old_in(o, 0) || !old_in(o, 1) || !old_in(o, 2))
    return diag_error(im->d, o->loc, ERR_ARITY, "GroupNormalization needs 3 inputs");
  if (old_rank(o, 0) < 2 || !expr_is_const(o->in[0]->dims[1], &channels) || groups < 1 ||
      channels % groups)
    return diag_error(
        im->d, o->loc, ERR_UNSUPPORTED,
        "GroupNormalization-18 with channels that are not a known multiple of num_groups");
  const int64_t column[] = {groups, 1}, wide[] = {groups, channels / groups}, all[] = {channels};
  for (int k = 1; k <= 2; k++) {
    Value *v = old_emit2(im, o, "Reshape", o->in[k], value_const_i64s(im->m, 1, 2, column));
    if (v) v = old_emit2(im, o, "Expand", v, value_const_i64s(im->m, 1, 2, wide));
    if (v) v = old_emit2(im, o, "Reshape", v, value_const_i64s(im->m, 1, 1, all));
    if (!v) return false;
    o->in[k] = v;
  }
  return true;
}

/* p was a float in opset 1. */
static bool up_lp_pool(Import *im, OldNode *o) {
  const Attr *p = old_attr(o, "p");
  if (!p || p->kind != AT_FLOAT) return true;
  const double v = p->floats[0];
  if (v != (double)double_to_i64(v))
    return diag_error(im->d, o->loc, ERR_ATTR_VALUE, "p is %g, must be a whole number", v);
  return old_set(im, o, attr_int(im->arena, "p", double_to_i64(v))), true;
}

/* ---- resizing and sampling ---- */
static bool up_upsample_1(Import *im, OldNode *o) {
  const double f[4] = {1, 1, old_float(o, "height_scale", 1), old_float(o, "width_scale", 1)};
  const Attr a = {
      .name = "scales", .kind = AT_FLOATS, .n = 4, .floats = arena_dup(im->arena, f, sizeof f)};
  if (old_attr(o, "height_scale")) old_set(im, o, a);
  old_drop(o, "height_scale");
  old_drop(o, "width_scale");
  return true;
}

static bool up_upsample_scales(Import *im, OldNode *o) {
  const Attr *a = old_attr(o, "scales");
  if (!a || a->kind != AT_FLOATS) return old_need(im, o, "scales");
  float *f = ARENA_ARRAY(im->arena, float, a->n);
  for (int k = 0; k < a->n; k++) f[k] = (float)a->floats[k];
  const int64_t dims[1] = {a->n};
  old_input(im, o, 1, value_const(im->m, const_new(im->m, NULL, DT_F32, 1, dims, f)));
  old_drop(o, "scales");
  return true;
}

static bool up_upsample(Import *im, OldNode *o) {
  const Attr *mode = old_attr(o, "mode");
  if (mode && mode->kind == AT_STRING && strcmp(mode->strs[0], "bilinear") == 0)
    old_set(im, o, attr_string(im->arena, "mode", "linear"));
  o->op = "Resize";
  o->opset = 10;
  return true;
}

/* Nearest positions were rounded down along axes that grow and up along those that shrink. */
enum { GROWS = 1, SHRINKS = 2 };
static int scale_kinds(const Value *scales) {
  int kinds = 0;
  for (int64_t k = 0; scales && scales->cdata && k < scales->cdata->count; k++) {
    const double v = dtype_load_f(
        scales->dtype, (const char *)scales->cdata->data + k * dtype_bytes(scales->dtype));
    kinds |= v < 1 ? SHRINKS : v > 1 ? GROWS : 0;
  }
  return kinds;
}

/* The scales that grow (or shrink), 1 for the others. */
static Value *scales_of(Import *im, const Value *scales, bool shrink) {
  const ConstData *c = scales->cdata;
  float *f = ARENA_ARRAY(im->arena, float, c->count + 1);
  for (int64_t k = 0; k < c->count; k++) {
    const double v = dtype_load_f(c->dtype, (const char *)c->data + k * dtype_bytes(c->dtype));
    f[k] = (v < 1) == shrink ? (float)v : 1;
  }
  return value_const(im->m, const_new(im->m, NULL, DT_F32, 1, c->dims, f));
}

static bool up_resize10(Import *im, OldNode *o) {
  const Attr *mode = old_attr(o, "mode");
  const bool nearest = !mode || mode->kind != AT_STRING || strcmp(mode->strs[0], "nearest") == 0;
  const Attr where = attr_string(im->arena, "coordinate_transformation_mode", "asymmetric");
  Value *scales = old_in(o, 1);
  const int kinds = nearest ? scale_kinds(scales) : 0;
  if (nearest && kinds == (GROWS | SHRINKS)) {
    const Attr attrs[] = {where, attr_string(im->arena, "nearest_mode", "floor")};
    Value *const in[] = {old_in(o, 0), NULL, scales_of(im, scales, false)};
    Value *grown = old_emit(im, o, "Resize", 3, in, 2, attrs);
    if (!grown) return false;
    o->in[0] = grown;
    scales = scales_of(im, scales, true);
  }
  old_input(im, o, 2, scales);
  o->in[1] = NULL;
  old_set(im, o, where);
  old_set(im, o, attr_string(im->arena, "nearest_mode", kinds & SHRINKS ? "ceil" : "floor"));
  return true;
}

/* floor((x + 0.5) / scale) is the nearest point of half_pixel when halves go up. */
static bool up_resize11(Import *im, OldNode *o) {
  const Attr *t = old_attr(o, "coordinate_transformation_mode"),
             *mode = old_attr(o, "nearest_mode");
  if (!t || t->kind != AT_STRING || strcmp(t->strs[0], "tf_half_pixel_for_nn") != 0) return true;
  if (!mode || mode->kind != AT_STRING || strcmp(mode->strs[0], "floor") != 0)
    return diag_error(im->d, o->loc, ERR_UNSUPPORTED,
                      "tf_half_pixel_for_nn without nearest_mode floor");
  old_set(im, o, attr_string(im->arena, "coordinate_transformation_mode", "half_pixel"));
  old_set(im, o, attr_string(im->arena, "nearest_mode", "round_prefer_ceil"));
  return true;
}

/* An empty tensor stood for an absent input. */
static bool up_resize_empty(Import *im, OldNode *o) {
  (void)im;
  for (int k = 1; k < o->n_in; k++)
    if (old_rank(o, k) == 1 && expr_is_i64(o->in[k]->dims[0], 0)) o->in[k] = NULL;
  while (o->n_in && !o->in[o->n_in - 1]) o->n_in--;
  return true;
}

/* Scales that are data: input 4, which is ours, has the sizes that follow from them. */
static bool up_resize_data(Import *im, OldNode *o) {
  const Attr *axes = old_attr(o, "axes");
  Value *scales = old_in(o, 2), *x = old_in(o, 0);
  if (o->n_in > 4) return diag_error(im->d, o->loc, ERR_ARITY, "Resize has 4 inputs");
  if (!x || !scales || scales->cdata || old_in(o, 3)) return true;
  Value *dims = old_emit2(im, o, "Shape", x, NULL);
  if (dims && axes && axes->kind == AT_INTS)
    dims = old_emit2(im, o, "Gather", dims, value_const_i64s(im->m, 1, axes->n, axes->ints));
  dims = old_cast(im, o, dims, DT_F64);
  scales = dims ? old_cast(im, o, scales, DT_F64) : NULL;
  Value *sizes = scales ? old_emit2(im, o, "Mul", dims, scales) : NULL;
  sizes = old_cast(im, o, old_emit2(im, o, "Floor", sizes, NULL), DT_I64);
  if (sizes) old_input(im, o, 4, sizes);
  return sizes != NULL;
}

static bool up_gridsample(Import *im, OldNode *o) {
  const Attr *a = old_attr(o, "mode");
  const char *mode = a && a->kind == AT_STRING ? a->strs[0] : "bilinear";
  if (strcmp(mode, "bilinear") == 0) mode = "linear";
  if (strcmp(mode, "bicubic") == 0) mode = "cubic";
  old_set(im, o, attr_string(im->arena, "mode", mode));
  return true;
}

static bool up_roialign(Import *im, OldNode *o) {
  if (!old_attr(o, "coordinate_transformation_mode"))
    old_set(im, o, attr_string(im->arena, "coordinate_transformation_mode", "output_half_pixel"));
  return true;
}

const UpgradeRow upgrade_nn[] = {
    {"", "BatchNormalization", 9, false, up_batchnorm_spatial},
    {"", "BatchNormalization", 14, false, up_batchnorm_outputs},
    {"", "GridSample", 20, false, up_gridsample},
    {"", "GroupNormalization", 21, false, up_groupnorm},
    {"", "GlobalLpPool", 2, false, up_lp_pool},
    {"", "LpPool", 2, false, up_lp_pool},
    {"", "Upsample", 7, true, up_upsample_1},
    {"", "Upsample", 9, true, up_upsample_scales},
    {"", "Upsample", ALWAYS, true, up_upsample},
    {"", "Resize", 11, false, up_resize10},
    {"", "Resize", 13, false, up_resize11},
    {"", "Resize", ALWAYS, false, up_resize_empty},
    {"", "Resize", ALWAYS, false, up_resize_data},
    {"", "RoiAlign", 16, false, up_roialign},
    {0},
};
