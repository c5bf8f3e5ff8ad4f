/* Operators of com.microsoft that are others under another name, mostly those of ai.onnx. */
#include "frontend/upgrade/upgrade.h"

/* The operator of ai.onnx of the same name, as version `opset` has it. */
static bool as_onnx(OldNode *o, int opset) {
  o->domain = "";
  o->opset = opset;
  return true;
}

static bool up_same(Import *im, OldNode *o) {
  (void)im;
  return as_onnx(o, 22);
}

/* Modes have their old names. */
static bool up_contrib_grid(Import *im, OldNode *o) {
  (void)im;
  return as_onnx(o, 16);
}

/* Pads may be one row. */
static bool up_contrib_pad(Import *im, OldNode *o) {
  const int64_t flat = -1;
  if (old_rank(o, 1) == 2) {
    Value *pads = old_emit2(im, o, "Reshape", o->in[1], value_const_i64s(im->m, 1, 1, &flat));
    if (!pads) return false;
    old_input(im, o, 1, pads);
  }
  return as_onnx(o, 22);
}

/* The step may be left out. */
static bool up_contrib_range(Import *im, OldNode *o) {
  if (old_in(o, 0) && !old_in(o, 2)) {
    Value *one = old_scalar_like(im, o, o->in[0], 1);
    if (!one) return false;
    old_input(im, o, 2, one);
  }
  return as_onnx(o, 22);
}

/* The axis is a number. */
static bool up_expand_dims(Import *im, OldNode *o) {
  const int64_t flat = -1;
  if (!old_in(o, 1)) return diag_error(im->d, o->loc, ERR_ARITY, "input 1 is missing");
  Value *axis = old_emit2(im, o, "Reshape", o->in[1], value_const_i64s(im->m, 1, 1, &flat));
  axis = old_cast(im, o, axis, DT_I64);
  if (!axis) return false;
  old_input(im, o, 1, axis);
  o->op = "Unsqueeze";
  return as_onnx(o, 22);
}

static bool up_transpose_matmul(Import *im, OldNode *o) {
  (void)im;
  o->op = "FusedMatMul";
  return true;
}

const UpgradeRow upgrade_contrib[] = {
    {"com.microsoft", "ExpandDims", ALWAYS, true, up_expand_dims},
    {"com.microsoft", "GatherND", ALWAYS, true, up_same},
    {"com.microsoft", "GridSample", ALWAYS, true, up_contrib_grid},
    {"com.microsoft", "Pad", ALWAYS, true, up_contrib_pad},
    {"com.microsoft", "Range", ALWAYS, true, up_contrib_range},
    {"com.microsoft", "TransposeMatMul", ALWAYS, true, up_transpose_matmul},
    {"com.microsoft", "Trilu", ALWAYS, true, up_same},
    {0},
};
