#!/usr/bin/env python3
"""Part "opsets": operators in their old forms. Every change between two versions of an operator (defaults,
attributes, inputs) that onnx's schemas know is covered by cases here, or says why it needs none; the cases run
against ONNX Runtime, or against what the schema says where that has no such version."""
import os, subprocess, sys, tempfile
from collections import defaultdict
import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

BURIN = os.environ.get("BURIN", "build/burin")
rng = np.random.default_rng(8)


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def positive(*shape):
    return np.abs(f32(*shape)) + np.float32(0.5)


CASES = []  # (op, opset, inputs (None: absent; a tuple (array,): constant), attributes, outputs, reference or None)


def case(op, opsets, inputs, attrs=None, n_out=1, ref=None):
    for v in opsets if isinstance(opsets, (list, tuple, range)) else [opsets]:
        CASES.append((op, v, inputs, attrs or {}, n_out, ref))


def const(a):
    return (np.asarray(a),)


def i64(*v):
    return np.array(v, np.int64)


# ---- elementwise ------------------------------------------------------------------------------------------------
X = f32(2, 3, 4, 5)
for op, fn in [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)]:
    for v in (1, 6):
        case(op, v, [X, positive(2, 3, 4, 5)], ref=fn)
        case(op, v, [X, positive(3, 4)], {"broadcast": 1, "axis": 1}, ref=lambda a, b, fn=fn: fn(a, b[:, :, None]))
        case(op, v, [X, positive(4, 5)], {"broadcast": 1}, ref=fn)
        case(op, v, [X, positive(1)], {"broadcast": 1}, ref=fn)
        case(op, v, [X, positive(2)], {"broadcast": 1, "axis": 0}, ref=lambda a, b, fn=fn: fn(a, b[:, None, None, None]))
    case(op, 7, [X, positive(4, 1)])
case("Pow", 1, [positive(2, 3, 4), f32(3)], {"broadcast": 1, "axis": 1}, ref=lambda a, b: a ** b[:, None])
case("Pow", [7, 12], [positive(2, 3), f32(3)])
B1, B2 = X > 0, f32(3) > 0
for op, fn in [("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor)]:
    case(op, 1, [B1, B2], {"broadcast": 1, "axis": 1}, ref=lambda a, b, fn=fn: fn(a, b[:, None, None]))
    case(op, 7, [B1, B1[0, 0]])
for op, fn in [("Less", np.less), ("Greater", np.greater)]:
    case(op, 1, [X, f32(3)], {"broadcast": 1, "axis": 1}, ref=lambda a, b, fn=fn: fn(a, b[:, None, None]))
    case(op, [7, 9], [X, f32(4, 5)])
E1 = rng.integers(0, 3, (2, 3, 4)).astype(np.int32)
case("Equal", 1, [E1, E1[0, :, 0]], {"broadcast": 1, "axis": 1}, ref=lambda a, b: a == b[:, None])
case("Equal", [7, 11, 13], [E1, E1])
for op, fn in [("Abs", np.abs), ("Ceil", np.ceil), ("Exp", np.exp), ("Floor", np.floor), ("Neg", np.negative),
               ("Relu", lambda a: np.maximum(a, 0)), ("Tanh", np.tanh), ("Sigmoid", lambda a: 1 / (1 + np.exp(-a)))]:
    case(op, 1, [X], {"consumed_inputs": [0]}, ref=fn)
    case(op, 6, [X])
for op, fn in [("Log", np.log), ("Sqrt", np.sqrt), ("Reciprocal", lambda a: 1 / a)]:
    case(op, 1, [positive(2, 3)], {"consumed_inputs": [0]}, ref=fn)
    case(op, 6, [positive(2, 3)])
for op, attrs in [("Elu", {"alpha": 0.7}), ("LeakyRelu", {"alpha": 0.2}), ("HardSigmoid", {"alpha": 0.3, "beta": 0.4})]:
    case(op, 6, [X])
    case(op, 6, [X], attrs)
case("Elu", 1, [X], {"consumed_inputs": [0]}, ref=lambda a: np.where(a < 0, np.exp(a) - 1, a))
case("LeakyRelu", 1, [X], {"consumed_inputs": [0]}, ref=lambda a: np.where(a < 0, np.float32(0.01) * a, a))
case("HardSigmoid", 1, [X], {"consumed_inputs": [0]}, ref=lambda a: np.clip(0.2 * a + 0.5, 0, 1))
case("Selu", 1, [X], ref=lambda a: 1.0507 * np.where(a > 0, a, 1.6732 * (np.exp(a) - 1)))
case("Selu", 1, [X], {"alpha": 2.0}, ref=lambda a: 1.0507 * np.where(a > 0, a, 2.0 * (np.exp(a) - 1)))
case("Selu", 6, [X])
case("Selu", 6, [X], {"gamma": 1.5})
BIG = np.array([-np.inf, -1e38, -2, 0, 3, 1e38, np.inf], np.float32)
for attrs in ({}, {"min": -1.0}, {"max": 2.0}, {"min": -1.0, "max": 2.0}):
    case("Clip", 6, [BIG], attrs)
    case("Clip", 1, [BIG], attrs, ref=lambda a, at=attrs: np.clip(a, at.get("min", -np.inf), at.get("max", np.inf)))
case("Clip", [11, 12, 13], [BIG, np.float32(-1), None])
case("Clip", [11, 12, 13], [BIG, None, np.float32(1)])
case("Clip", [11, 12, 13], [BIG])
for op in ("Max", "Min", "Mean", "Sum"):
    fn = {"Max": np.maximum, "Min": np.minimum, "Mean": lambda a, b: (a + b) / 2, "Sum": np.add}[op]
    case(op, 1, [X, X[::-1].copy()], {"consumed_inputs": [0, 0]}, ref=fn)
    case(op, [6, 8], [X, X[::-1].copy()])
case("PRelu", 1, [X, f32(3)], ref=lambda a, s: np.where(a < 0, a * s[:, None, None], a))
case("PRelu", 6, [X, f32(3)], ref=lambda a, s: np.where(a < 0, a * s[:, None, None], a))
case("PRelu", [7, 9], [X, f32(3, 1, 1)])
for to, d in (("INT32", np.int32), ("DOUBLE", np.float64), ("BOOL", np.bool_)):
    case("Cast", 1, [X * 3], {"to": to}, ref=lambda a, d=d: a.astype(d))
case("Cast", [6, 9, 13, 19, 23], [X * 3], {"to": T.INT32})
for v in (1, 6, 7, 10):
    case("Dropout", v, [X], {} if v < 6 else {"ratio": 0.3}, ref=lambda a: a)
case("Dropout", [12, 13], [X])

# ---- shapes -----------------------------------------------------------------------------------------------------
case("Concat", 1, [X, X], ref=lambda a, b: np.concatenate([a, b], 1))
case("Concat", [4, 11], [X, X], {"axis": 2})
case("Reshape", 1, [X], {"shape": [0, -1, 10]}, ref=lambda a: a.reshape(2, -1, 10))
case("Reshape", [5, 13, 14], [X, const(i64(0, -1, 10))])
case("Flatten", [1, 9, 11], [X])
case("Flatten", [1, 9, 11], [X], {"axis": 2})
case("Slice", 1, [X], {"starts": [0, -3], "ends": [2, 100]})
case("Slice", 1, [X], {"starts": [1, 1], "ends": [-1, 4], "axes": [3, 2]})
case("Slice", [10, 11, 13], [X, const(i64(3)), const(i64(-100)), const(i64(3)), const(i64(-2))])
case("Split", 1, [X], {"axis": 3, "split": [2, 3]}, 2, ref=lambda a: (a[..., :2], a[..., 2:]))
case("Split", 1, [X, const(i64(2, 3))], {"axis": 3}, 2, ref=lambda a, s: (a[..., :2], a[..., 2:]))
case("Split", [2, 11], [X], {"axis": 2}, 2)
case("Split", [2, 11], [X], {}, 2)
case("Split", [2, 11], [X], {"axis": 3, "split": [1, 4]}, 2)
case("Split", 13, [X, const(i64(1, 4))], {"axis": 3}, 2)
case("Split", 13, [X], {"axis": 2}, 2)
Y = f32(1, 3, 1, 4)
case("Squeeze", [1, 11], [Y])
case("Squeeze", [1, 11], [Y], {"axes": [2]})
case("Squeeze", 13, [Y, const(i64(0))])
case("Unsqueeze", [1, 11], [Y], {"axes": [0, 3]})
case("Unsqueeze", 13, [Y, const(i64(-1))])
case("Tile", 1, [f32(2, 3), const(np.float32(3)), const(np.float32(1))], ref=lambda a, t, x: np.tile(a, (1, 3)))
case("Tile", 1, [f32(2, 3), const(np.float32(2)), const(np.float32(0))], ref=lambda a, t, x: np.tile(a, (2, 1)))
case("Tile", [6, 13], [f32(2, 3), const(i64(2, 2))])
case("Pad", 1, [X], {"paddings": [0, 0, 1, 2, 0, 0, 2, 1]}, ref=lambda a: np.pad(a, [(0, 0), (0, 0), (1, 2), (2, 1)]))
for mode in ("constant", "reflect", "edge"):
    case("Pad", 2, [X], {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "mode": mode})
case("Pad", 2, [X], {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "value": 1.5})
case("Pad", [11, 13, 18], [X, const(i64(0, 0, 1, 2, 0, 0, 2, 1)), const(np.float32(2))])
case("Pad", [11, 13, 18], [X, const(i64(0, 0, 1, 2, 0, 0, 2, 1))])
case("DepthToSpace", 1, [f32(1, 8, 2, 3)], {"blocksize": 2})
case("DepthToSpace", [11, 13], [f32(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"})
case("SpaceToDepth", [1, 13], [f32(1, 2, 4, 6)], {"blocksize": 2})
case("Shape", [1, 13], [X])
case("Shape", 15, [X], {"start": -2})
case("TopK", 1, [X], {"k": 2}, 2)
case("TopK", 1, [X], {"k": 2, "axis": 1}, 2)
case("TopK", [10, 11], [X, const(i64(3))], {"axis": 2}, 2)
case("TopK", 11, [X, const(i64(3))], {"largest": 0}, 2)
for op in ("ArgMax", "ArgMin"):
    ties = np.array([[1, 3, 3, 0], [0, 0, 2, 2]], np.float32)
    case(op, [1, 11, 12, 13], [ties])
    case(op, [1, 11, 12, 13], [ties], {"axis": 1, "keepdims": 0})
    case(op, [12, 13], [ties], {"axis": 1, "select_last_index": 1})
IDX = rng.integers(0, 3, (2, 3)).astype(np.int64)
case("Scatter", 9, [f32(3, 3), IDX, f32(2, 3)])
case("ScatterElements", [11, 13], [f32(3, 3), IDX, f32(2, 3)])
case("ScatterND", [11, 13], [f32(4, 3), i64(1, 3).reshape(2, 1), f32(2, 3)])
case("GatherND", [11, 12], [X, i64(0, 1, 1, 2).reshape(2, 2)])
case("Gather", [1, 11, 13], [X, IDX], {"axis": 1})
case("OneHot", [9, 11], [IDX, const(i64(4)), const(np.array([0, 1], np.float32))], {"axis": 1})

# ---- reductions, softmax ------------------------------------------------------------------------------------------
for op in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
           "ReduceProd", "ReduceSum", "ReduceSumSquare"):
    x = positive(2, 3, 4)
    for v in (1, 11) if op == "ReduceSum" else (1, 11, 13):
        case(op, v, [x])
        case(op, v, [x], {"axes": [1], "keepdims": 0})
        case(op, v, [x], {"axes": [0, 2]})
    v = 13 if op == "ReduceSum" else 18
    case(op, v, [x, const(i64(1))], {"keepdims": 0})
    case(op, v, [x])
    case(op, v, [x], {"noop_with_empty_axes": 1})
for op in ("Softmax", "LogSoftmax", "Hardmax"):
    for v in (1, 11, 13):
        case(op, v, [X])
        for axis in (0, 1, 2, 3) + ((-1, -2) if v > 1 else ()):
            case(op, v, [X], {"axis": axis})

# ---- normalization, products --------------------------------------------------------------------------------------
S, Bi, M, V = f32(3), f32(3), f32(3), positive(3)


def norm(x, s, b, m, v, eps=1e-5):
    r = (1, -1) + (1,) * (x.ndim - 2) if s.ndim == 1 else s.shape
    return (x - m.reshape(r)) / np.sqrt(v.reshape(r) + eps) * s.reshape(r) + b.reshape(r)


case("BatchNormalization", 1, [X, S, Bi, M, V], {"consumed_inputs": [0] * 5, "is_test": 1}, ref=norm)
case("BatchNormalization", 6, [X, S, Bi, M, V], {"is_test": 1, "epsilon": 0.1}, ref=lambda *a: norm(*a, eps=0.1))
case("BatchNormalization", [7, 9, 14, 15], [X, S, Bi, M, V])
case("BatchNormalization", [7, 9, 14], [X, S, Bi, M, V], {"epsilon": 0.1, "momentum": 0.5})
case("BatchNormalization", 7, [X, f32(3, 4, 5), f32(3, 4, 5), f32(3, 4, 5), positive(3, 4, 5)], {"spatial": 0}, ref=norm)
case("InstanceNormalization", 6, [X, S, Bi])
case("InstanceNormalization", 1, [X, S, Bi], {"consumed_inputs": [0, 0, 0], "epsilon": 0.01},
     ref=lambda x, s, b: (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 0.01)
     * s[:, None, None] + b[:, None, None])
case("GroupNormalization", 18, [f32(2, 4, 5), f32(2), f32(2)], {"num_groups": 2})
case("GroupNormalization", 21, [f32(2, 4, 5), f32(4), f32(4)], {"num_groups": 2})
case("LRN", [1, 13], [X], {"size": 3})
case("LRN", [1, 13], [X], {"size": 3, "alpha": 0.1, "beta": 0.5, "bias": 2.0})
case("MeanVarianceNormalization", [9, 13], [X])
case("LpNormalization", 1, [X])
case("LpNormalization", 1, [X], {"axis": 1, "p": 1})
A, C = f32(4, 3), f32(3, 5)
for v in (1, 6):
    case("Gemm", v, [A, C, f32(4, 5)], ref=lambda a, b, c: a @ b + c)
    case("Gemm", v, [A, C, f32(5)], {"broadcast": 1, "alpha": 0.5, "beta": 2.0}, ref=lambda a, b, c: 0.5 * (a @ b) + 2 * c)
case("Gemm", [7, 9, 11], [A, C, f32(4, 1)], {"alpha": 0.5})
case("Gemm", [7, 9, 11], [A, np.ascontiguousarray(C.T), f32(5)], {"transB": 1})
case("Gemm", 11, [A, C])

# ---- windows ------------------------------------------------------------------------------------------------------
P = f32(1, 2, 7, 6)
K = {"kernel_shape": [3, 2], "strides": [2, 2]}
for v in (1, 8, 10, 11, 12):
    case("MaxPool", v, [P], K)
    case("MaxPool", v, [P], {**K, "pads": [1, 0, 1, 1]})
    case("MaxPool", v, [P], {**K, "auto_pad": "SAME_UPPER"})
    case("MaxPool", v, [P], {**K, "auto_pad": "SAME_LOWER"})
case("MaxPool", [8, 10, 11], [P], {**K, "storage_order": 1}, 2)
case("MaxPool", [10, 11], [P], {**K, "ceil_mode": 1})
case("MaxPool", [10, 11], [P], {**K, "dilations": [2, 1]})
for v in (1, 7, 10, 11, 19):
    case("AveragePool", v, [P], K)
    case("AveragePool", v, [P], {**K, "pads": [1, 0, 1, 1]})
    case("AveragePool", v, [P], {**K, "auto_pad": "SAME_LOWER"})
    if v >= 7:
        case("AveragePool", v, [P], {**K, "pads": [1, 0, 1, 1], "count_include_pad": 1})
    if v >= 10:
        case("AveragePool", v, [P], {**K, "ceil_mode": 1})
        case("AveragePool", v, [P], {**K, "pads": [1, 1, 1, 1], "ceil_mode": 1, "count_include_pad": 1})
for v in (2, 11, 18):
    case("LpPool", v, [P], K)
    case("LpPool", v, [P], {**K, "p": 3, "pads": [1, 0, 1, 1]})
case("LpPool", 1, [P], {**K, "p": 1.0}, ref="LpPool-2 p=1")
case("GlobalLpPool", 2, [P], {"p": 3})
case("GlobalLpPool", 1, [P], {"p": 3.0}, ref=lambda x: (np.abs(x) ** 3).sum((2, 3), keepdims=True) ** (1 / 3))
W = f32(3, 2, 3, 3)
case("Conv", [1, 11], [P, W], {"auto_pad": "SAME_LOWER", "strides": [2, 2]})
case("Conv", [1, 11], [P, W], {"dilations": [2, 1]})
WT = f32(2, 3, 3, 3)
for attrs in ({}, {"strides": [2, 2], "output_padding": [1, 1]}, {"strides": [2, 2], "output_shape": [14, 12]},
              {"strides": [2, 2], "output_shape": [14, 13], "auto_pad": "SAME_UPPER"},
              {"strides": [2, 2], "output_shape": [14, 13], "auto_pad": "SAME_LOWER"},
              {"strides": [3, 2], "auto_pad": "SAME_UPPER"}, {"strides": [3, 2], "auto_pad": "SAME_LOWER"}):
    case("ConvTranspose", [1, 11], [P, WT], attrs)
for mode in ("nearest", "linear"):
    case("Upsample", 7, [P], {"scales": [1.0, 1.0, 2.0, 3.0], "mode": mode})
    case("Upsample", 9, [P, const(np.array([1, 1, 2, 1.5], np.float32))], {"mode": mode})
    for s in ([1, 1, 2, 3], [1, 1, 0.6, 0.6], [1, 1, 0.6, 2], [1, 1, 1.7, 0.5]):
        case("Resize", 10, [P, const(np.array(s, np.float32))], {"mode": mode})
case("Upsample", 1, [P], {"height_scale": 2.0, "width_scale": 3.0}, ref=lambda x: x.repeat(2, 2).repeat(3, 3))
ROI = const(np.zeros(0, np.float32))
for v in (11, 13, 18, 19):
    for mode in ("nearest", "linear", "cubic"):
        for co in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
            s = [1, 1, 2, 1.5] if co == "align_corners" else [1, 1, 0.6, 1.7]  # of fractions of a size ORT takes the floor
            case("Resize", v, [P, ROI, const(np.array(s, np.float32))], {"mode": mode, "coordinate_transformation_mode": co})
    case("Resize", v, [P, ROI, const(np.array([1, 1, 2, 2], np.float32))])
    case("Resize", v, [P, ROI, const(np.zeros(0, np.float32)), const(i64(1, 2, 9, 4))], {"mode": "linear"})
case("Resize", 11, [P, ROI, const(np.array([1, 1, 2, 1.5], np.float32))], {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"})
BOX, BI = np.array([[0.3, 0.2, 4.7, 5.1], [1, 1, 3.3, 6]], np.float32), i64(0, 0)
case("RoiAlign", [10, 16], [P, BOX, BI], {"output_height": 3, "output_width": 2, "sampling_ratio": 2})
case("RoiAlign", 16, [P, BOX, BI], {"output_height": 3, "output_width": 2, "coordinate_transformation_mode": "output_half_pixel"})
GRID = np.clip(f32(1, 3, 4, 2), -1, 1)
case("GridSample", [16, 20], [P, GRID])
for mode in ("bilinear", "bicubic", "nearest"):
    case("GridSample", 16, [P, GRID], {"mode": mode, "align_corners": 1})

# ---- quantization, recurrent, signal --------------------------------------------------------------------------------
SC, ZP = np.float32(0.1), np.uint8(120)
case("QuantizeLinear", [10, 13, 19, 21], [X, SC, ZP])
case("QuantizeLinear", [13, 19], [X, np.array([0.1, 0.2, 0.3], np.float32), np.array([1, 2, 3], np.uint8)])
case("DequantizeLinear", [10, 13, 19, 21], [rng.integers(0, 255, (2, 3)).astype(np.uint8), SC, ZP])
case("DequantizeLinear", 13, [rng.integers(0, 255, (2, 3)).astype(np.uint8), np.array([0.1, 0.2, 0.3], np.float32)])
SEQ = f32(4, 2, 3)
for op, g in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    w = [SEQ, f32(1, 5 * g, 3), f32(1, 5 * g, 5), f32(1, 10 * g)]
    two = [SEQ, f32(2, 5 * g, 3), f32(2, 5 * g, 5), f32(2, 10 * g)]
    n = 3 if op == "LSTM" else 2
    case(op, [7, 14], w, {"hidden_size": 5}, n)
    case(op, [7, 14], two, {"hidden_size": 5, "direction": "bidirectional"}, n)
    case(op, 1, w, {"hidden_size": 5, "output_sequence": 1, "direction": "forward"}, n, ref=f"{op}-7")
case("GRU", 3, [SEQ, f32(1, 15, 3), f32(1, 15, 5), f32(1, 30)], {"hidden_size": 5, "linear_before_reset": 1}, 2, ref="GRU-7")
case("GRU", [7, 14], [SEQ, f32(1, 15, 3), f32(1, 15, 5), f32(1, 30)], {"hidden_size": 5, "linear_before_reset": 1}, 2)
case("DFT", 17, [f32(2, 8, 1)])
case("DFT", 17, [f32(2, 8, 5, 1)], {"axis": 2})
case("DFT", 17, [f32(2, 8, 1)], {"onesided": 1})
case("Constant", [9, 11], [], {"value": nh.from_array(f32(2, 3))})
case("Constant", 12, [], {"value_floats": [1.0, 2.0]})
case("Constant", 12, [], {"value_int": 3})

# Changes that no case here covers, and why that is right: new types and attributes with a default that is the old
# meaning; operators with subgraphs (tests of control flow), or of which the older form does not exist in files.
OTHER = {
    "Attention", "CastLike", "OptionalHasElement", "Range", "Scan",
}


# ---- running --------------------------------------------------------------------------------------------------------
def build(op, opset, inputs, attrs, n_out):
    names, feeds, init = [], {}, []
    for k, a in enumerate(inputs):
        if a is None:
            names.append("")
        elif isinstance(a, tuple):
            names.append(f"c{k}")
            init.append(nh.from_array(a[0], f"c{k}"))
        else:
            names.append(f"x{k}")
            feeds[f"x{k}"] = np.asarray(a)
    node = h.make_node(op, names, [f"y{k}" for k in range(n_out)], **attrs)
    ins = [h.make_tensor_value_info(n, h.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()]
    if opset < 9:  # initializers were inputs
        ins += [h.make_tensor_value_info(t.name, t.data_type, t.dims) for t in init]
    outs = [h.make_empty_tensor_value_info(f"y{k}") for k in range(n_out)]
    graph = h.make_graph([node], "g", ins, outs, init)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=3 if opset < 9 else 8), feeds


def run_burin(model, feeds, n_out, work):
    path = os.path.join(work, "m.onnx")
    onnx.save(model, path)
    cmd = [BURIN, "run", path]
    for n, a in feeds.items():
        np.save(os.path.join(work, n + ".npy"), a)
        cmd += ["--input", f"{n}=@{work}/{n}.npy"]
    for k in range(n_out):
        cmd += ["--output", f"y{k}=@{work}/y{k}.npy"]
    r = subprocess.run(cmd, capture_output=True, text=True)
    if r.returncode:
        return None, r.stderr.strip()
    return [np.load(os.path.join(work, f"y{k}.npy")) for k in range(n_out)], None


def expected(c, model, feeds):
    """Outputs, or None where nothing can say them."""
    op, opset, inputs, attrs, n_out, ref = c
    if isinstance(ref, str):  # the same in a later form
        name, version = ref.split()[0].split("-")
        attrs = {k: (int(v) if k == "p" else v) for k, v in attrs.items() if k != "output_sequence"}
        model, feeds = build(name, int(version), inputs, attrs, n_out)
    elif ref:
        out = ref(*[a[0] if isinstance(a, tuple) else a for a in inputs])
        return list(out) if isinstance(out, tuple) else [out]
    import onnxruntime as ort

    so = ort.SessionOptions()
    so.log_severity_level = 4
    try:
        return ort.InferenceSession(model.SerializeToString(), so, providers=["CPUExecutionProvider"]).run(None, feeds)
    except Exception:
        return None


def differs(want, got):
    for w, g in zip(want, got):
        w = np.asarray(w)
        if w.shape != g.shape:
            return f"shape {g.shape}, not {w.shape}"
        if w.dtype.kind in "fc":
            with np.errstate(all="ignore"):
                ok = np.isclose(g.astype(np.float64), w.astype(np.float64), rtol=2e-5, atol=2e-6, equal_nan=True)
        else:
            ok = g.astype(w.dtype) == w
        if not ok.all():
            at = tuple(int(v[0]) for v in np.nonzero(~np.atleast_1d(ok)))
            return f"at {at}: {np.atleast_1d(g)[at]}, not {np.atleast_1d(w)[at]}"
    return None


def defaults(s):
    out = {}
    for k, a in s.attributes.items():
        d = a.default_value
        out[k] = (str(a.type), repr(h.get_attribute_value(d)) if d.type else a.required)
    return out


def changes():
    """(operator, old version) of every change that may matter to a reader of old files."""
    history = defaultdict(list)
    for s in onnx.defs.get_all_schemas_with_history():
        if s.domain == "" and not s.deprecated:
            history[s.name].append(s)
    for name, list_ in sorted(history.items()):
        list_.sort(key=lambda s: s.since_version)
        for old, new in zip(list_, list_[1:]):
            if new.since_version > 24:  # not yet in a released operator set that files have
                continue
            if defaults(old) != defaults(new) or [i.option for i in old.inputs] != [i.option for i in new.inputs]:
                yield name, old.since_version


def main():
    passed = failed = skipped = 0
    covered = defaultdict(set)
    history = defaultdict(list)
    for s in onnx.defs.get_all_schemas_with_history():
        if s.domain == "":
            history[s.name].append(s.since_version)
    with tempfile.TemporaryDirectory() as work:
        for c in CASES:
            op, opset, inputs, attrs, n_out, _ = c
            covered[op].add(max(v for v in history[op] if v <= opset))
            model, feeds = build(op, opset, inputs, attrs, n_out)
            want = expected(c, model, feeds)
            if want is None:
                skipped += 1
                print(f"skipped {op}-{opset} {attrs}: no reference")
                continue
            got, error = run_burin(model, feeds, n_out, work)
            why = error or differs(want, got)
            if why:
                failed += 1
                shown = {k: v for k, v in attrs.items() if k != "value"}
                print(f"{op}-{opset} {shown} {[None if a is None else np.shape(a[0] if isinstance(a, tuple) else a) for a in inputs]}: {why}")
            else:
                passed += 1
    for op, version in changes():
        if op in OTHER or version in covered[op]:
            passed += 1
        else:
            failed += 1
            print(f"{op}-{version} differs from the next version, and nothing here covers it")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
