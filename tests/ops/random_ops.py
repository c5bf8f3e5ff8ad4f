#!/usr/bin/env python3
"""Random operators with random attributes against ONNX Runtime.

usage: random_ops.py TOOL [--count N] [--seed N] [--filter REGEX]

Makes one-node models, takes ONNX Runtime's results as expected, and lets tests/tools/elem_tool compare. Cases that
ONNX Runtime refuses are left out.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper

rng = np.random.default_rng(0)


def pick(*values):
    return values[rng.integers(len(values))]


def ints(n, lo, hi):
    return [int(v) for v in rng.integers(lo, hi + 1, n)]


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def bytes_of(dtype, *shape):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def window(spatial, dilated=True):
    kernel = ints(spatial, 1, 3)
    attrs = {"strides": ints(spatial, 1, 3)}
    if dilated:
        attrs["dilations"] = ints(spatial, 1, 2)
    mode = pick("NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    if mode == "NOTSET":
        d = attrs.get("dilations", [1] * spatial)
        extent = [(k - 1) * e for k, e in zip(kernel, d)]
        attrs["pads"] = [int(rng.integers(0, min(e, 2) + 1)) for e in extent + extent]
    else:
        attrs["auto_pad"] = mode
        attrs["strides"] = [min(a, b) for a, b in zip(attrs["strides"], kernel)]  # else ONNX Runtime has its own rules
        if mode != "VALID":
            attrs.pop("dilations", None)
    return kernel, attrs


def conv():
    s, g = pick(1, 2, 2, 3), pick(1, 1, 2, 3)
    c, m = g * pick(1, 2), g * pick(1, 3)
    kernel, attrs = window(s)
    x, w = f32(2, c, *ints(s, 6, 9)), f32(m, c // g, *kernel)
    ins = [x, w] + ([f32(m)] if pick(0, 1) else [])
    return "Conv", ins, dict(attrs, group=g), 1, {}


def conv_transpose():
    s, g = pick(1, 2, 2), pick(1, 1, 2)
    c, m = g * pick(1, 2), g * pick(1, 3)
    kernel, attrs = window(s)
    if "auto_pad" not in attrs and pick(0, 1):
        attrs["output_padding"] = [int(rng.integers(0, v)) for v in attrs["strides"]]
    ins = [f32(2, c, *ints(s, 4, 6)), f32(c, m // g, *kernel)] + ([f32(m)] if pick(0, 1) else [])
    return "ConvTranspose", ins, dict(attrs, group=g), 1, {}


def pool():
    s, op = pick(1, 2, 2, 3), pick("MaxPool", "MaxPool", "AveragePool", "LpPool")
    kernel, attrs = window(s)
    attrs["kernel_shape"] = kernel
    attrs["ceil_mode"] = pick(0, 1) if "auto_pad" not in attrs else 0
    if op == "AveragePool":
        attrs["count_include_pad"] = pick(0, 1)
    if op == "LpPool":
        attrs["p"] = pick(1, 2, 3)
    if op == "MaxPool" and s == 2:
        attrs["storage_order"] = pick(0, 1)
    return op, [f32(2, 3, *ints(s, 6, 9))], attrs, 2 if op == "MaxPool" and pick(0, 1) else 1, {}


def global_pool():
    return pick("GlobalAveragePool", "GlobalMaxPool"), [f32(2, 3, *ints(pick(1, 2, 3), 1, 5))], {}, 1, {}


def matmul():
    m, k, n = ints(3, 1, 6)
    a, b = pick(((m, k), (k, n)), ((3, m, k), (k, n)), ((2, 1, m, k), (3, k, n)), ((k,), (k, n)), ((m, k), (k,)),
                ((k,), (2, k, n)), ((2, m, k), (k,)), ((k,), (k,)))
    return "MatMul", [f32(*a), f32(*b)], {}, 1, {}


def gemm():
    m, k, n = ints(3, 1, 6)
    ta, tb = pick(0, 1), pick(0, 1)
    ins = [f32(*((k, m) if ta else (m, k))), f32(*((n, k) if tb else (k, n)))]
    if pick(0, 1, 1):
        ins.append(f32(*pick((m, n), (n,), (1, n), (m, 1), (1,), ())))
    return "Gemm", ins, {"transA": ta, "transB": tb, "alpha": pick(1.0, 0.5), "beta": pick(1.0, 2.0)}, 1, {}


def reduce():
    op = pick("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp")
    rank = pick(1, 2, 3, 4)
    axes = sorted(rng.choice(rank, rng.integers(0, rank + 1), replace=False))
    ins = [f32(*ints(rank, 1, 5))] + ([np.array(axes, np.int64)] if axes else [])
    return "Reduce" + op, ins, {"keepdims": pick(0, 1)}, 1, {"const": 1}


def softmax():
    rank = pick(1, 2, 3)
    return pick("Softmax", "LogSoftmax", "Hardmax"), [f32(*ints(rank, 1, 7))], {"axis": int(rng.integers(-rank, rank))}, 1, {}


def arg():
    rank = pick(1, 2, 3)
    x = rng.integers(0, 4, ints(rank, 1, 5)).astype(np.float32)
    return pick("ArgMax", "ArgMin"), [x], {"axis": int(rng.integers(-rank, rank)), "keepdims": pick(0, 1),
                                            "select_last_index": pick(0, 1)}, 1, {}


def norm():
    op = pick("LayerNormalization", "InstanceNormalization", "BatchNormalization", "LRN", "LpNormalization",
              "GroupNormalization", "MeanVarianceNormalization")
    c = 4
    x = f32(2, c, 3, 5)
    if op == "LayerNormalization":
        axis = pick(-1, 2, 1)
        shape = x.shape[axis:]
        return op, [x, f32(*shape)] + ([f32(*shape)] if pick(0, 1) else []), {"axis": axis, "epsilon": 1e-3}, 1, {}
    if op == "InstanceNormalization":
        return op, [x, f32(c), f32(c)], {"epsilon": 1e-3}, 1, {}
    if op == "GroupNormalization":
        return op, [x, f32(c), f32(c)], {"num_groups": pick(1, 2, 4)}, 1, {}
    if op == "BatchNormalization":
        return op, [x, f32(c), f32(c), f32(c), abs(f32(c))], {"epsilon": 1e-3}, 1, {}
    if op == "LRN":
        return op, [x], {"size": pick(1, 3, 5), "alpha": 0.1, "beta": pick(0.75, 0.5, 0.6), "bias": 2.0}, 1, {}
    if op == "LpNormalization":
        return op, [x], {"axis": pick(0, 1, -1), "p": pick(1, 2)}, 1, {}
    return op, [x], {}, 1, {}


def quantize():
    d = pick(np.uint8, np.int8)
    axis, mode = pick(0, 1, 2), pick("tensor", "axis")
    x = f32(3, 4, 5) * 3
    shape = () if mode == "tensor" else (x.shape[axis],)
    scale, zp = abs(f32(*shape)).astype(np.float32) * 0.1 + np.float32(0.01), bytes_of(d, *shape)
    if pick(0, 1):
        return "QuantizeLinear", [x, scale, zp], {"axis": axis}, 1, {}
    return "DequantizeLinear", [bytes_of(d, 3, 4, 5), scale, zp], {"axis": axis}, 1, {}


def scales(n=()):
    return (abs(f32(*n)) * 0.05 + 0.01).astype(np.float32)


def qlinear_conv():
    op, ins, attrs, _, _ = conv()
    dx, dw = pick((np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8))
    x, w = bytes_of(dx, *ins[0].shape), bytes_of(dw, *ins[1].shape)
    m = w.shape[0]
    lane = () if pick(0, 1) else (m,)
    wz = np.zeros(lane, dw) if dw == np.int8 else np.full(lane, bytes_of(dw), dw)
    ins = [x, scales(), bytes_of(dx), w, scales(lane), wz, np.float32(scales() * 20), bytes_of(dx)]
    if pick(0, 1):
        ins.append(rng.integers(-1000, 1000, m).astype(np.int32))
    return "QLinearConv", ins, attrs, 1, {"const": 2, "off": 1}


def qlinear_matmul():
    m, k, n = ints(3, 1, 9)
    d = pick(np.uint8, np.int8)
    return "QLinearMatMul", [bytes_of(d, m, k), scales(), bytes_of(d), bytes_of(d, k, n), scales(), bytes_of(d),
                             np.float32(scales() * 20), bytes_of(d)], {}, 1, {"off": 1}


def matmul_integer():
    m, k, n = ints(3, 1, 9)
    a, b = pick(np.uint8, np.int8), pick(np.uint8, np.int8)
    return "MatMulInteger", [bytes_of(a, 2, m, k), bytes_of(b, k, n), bytes_of(a), bytes_of(b)], {}, 1, {}


def conv_integer():
    _, ins, attrs, _, _ = conv()
    return "ConvInteger", [bytes_of(np.uint8, *ins[0].shape), bytes_of(np.uint8, *ins[1].shape), bytes_of(np.uint8),
                           bytes_of(np.uint8)], attrs, 1, {}


def qlinear_binary():
    d = pick(np.uint8, np.int8)
    return pick("QLinearAdd", "QLinearMul"), [bytes_of(d, 3, 4), scales(), bytes_of(d), bytes_of(d, *pick((3, 4), (4,), (3, 1))),
                                              scales(), bytes_of(d), scales(), bytes_of(d)], {}, 1, {"ms": 1, "off": 1}


def qlinear_unary():
    op = pick("QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSoftmax")
    d = pick(np.uint8, np.int8)
    attrs = {}
    if op == "QLinearAveragePool":
        kernel, attrs = window(2, dilated=False)
        attrs["kernel_shape"] = kernel
        attrs["count_include_pad"] = pick(0, 1)
    if op == "QLinearSoftmax":
        attrs = {"axis": -1, "opset": 13}
    y_scale = np.float32(1 / 256) if op == "QLinearSoftmax" else scales()
    y_zp = np.array(0 if d == np.uint8 else -128, d) if op == "QLinearSoftmax" else bytes_of(d)
    return op, [bytes_of(d, 2, 3, 6, 7), scales(), bytes_of(d), y_scale, y_zp], attrs, 1, {"ms": 1, "off": 1, "const": 1}


def einsum():
    eq, shapes = pick(("ij,jk->ik", ((3, 4), (4, 5))), ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))), ("ii->i", ((4, 4),)),
                      ("ii", ((4, 4),)), ("...ij,...jk->...ik", ((2, 3, 4), (4, 5))), ("bhid,bhjd->bhij", ((2, 2, 3, 4), (2, 2, 5, 4))),
                      ("abc->cb", ((2, 3, 4),)), ("i,j->ij", ((3,), (4,))), ("ij,ij->", ((3, 4), (3, 4))),
                      ("bqhd,bkhd->bhqk", ((2, 3, 2, 4), (2, 5, 2, 4))), ("abcd,cde->abe", ((2, 3, 4, 5), (4, 5, 6))),
                      ("abc,cde->abde", ((2, 3, 4), (4, 5, 6))), ("ab,cb->ca", ((2, 3), (4, 3))), ("ab,a->b", ((3, 4), (3,))),
                      ("abc,bc->ab", ((2, 3, 4), (3, 4))), ("bhwc,hkc->bhwk", ((2, 3, 4, 5), (3, 6, 5))))
    return "Einsum", [f32(*s) for s in shapes], {"equation": eq}, 1, {}


def elementwise():
    unary = ["Abs", "Neg", "Sign", "Ceil", "Floor", "Round", "Exp", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Tanh",
             "Asinh", "Erf", "Relu", "Sigmoid", "Softplus", "Softsign", "Mish", "HardSwish", "LeakyRelu", "Elu", "Selu",
             "Celu", "ThresholdedRelu", "HardSigmoid", "Gelu", "Shrink"]
    binary = ["Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "PRelu", "Less", "Greater", "Equal", "Mod"]
    op = pick(*unary, *binary)
    if op in unary:
        return op, [f32(3, 5) * 3], {}, 1, {}
    a, b = f32(3, 4) * 3, f32(*pick((3, 4), (4,), (3, 1), ())) * 3
    if op == "Pow":
        a = abs(a)
    return op, [a, b], {"fmod": 1} if op == "Mod" else {}, 1, {}


MAKERS = [conv, conv, conv_transpose, pool, pool, global_pool, matmul, gemm, reduce, softmax, arg, norm, norm, quantize,
          qlinear_conv, qlinear_matmul, matmul_integer, conv_integer, qlinear_binary, qlinear_unary, einsum, elementwise,
          elementwise]


def build(op, arrays, attrs, n_out, opts):
    n_const = opts.get("const", 0)
    names = [f"x{k}" for k in range(len(arrays))]
    outs = [f"y{k}" for k in range(n_out)]
    domain = "com.microsoft" if opts.get("ms") else ""
    node = helper.make_node(op, names, outs, domain=domain, **attrs)
    const_from = len(arrays) - 1 if op.startswith("Reduce") and len(arrays) > 1 else len(arrays)
    infos, inits = [], []
    for k, a in enumerate(arrays):
        a = np.asarray(a)
        if n_const and k >= const_from:
            inits.append(numpy_helper.from_array(a, names[k]))
        else:
            infos.append(helper.make_tensor_value_info(names[k], helper.np_dtype_to_tensor_dtype(a.dtype), a.shape))
    outputs = [onnx.ValueInfoProto(name=o) for o in outs]
    graph = helper.make_graph([node], "g", infos, outputs, inits)
    opsets = [helper.make_opsetid("", 21)] + ([helper.make_opsetid("com.microsoft", 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def main():
    global rng
    parser = argparse.ArgumentParser()
    parser.add_argument("tool")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--filter", default="")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    failed = passed = refused = 0
    with tempfile.TemporaryDirectory() as work:
        folders = []
        for i in range(args.count):
            op, arrays, attrs, n_out, opts = pick(*MAKERS)()
            if not re.search(args.filter, op):
                continue
            model = build(op, arrays, attrs, n_out, opts)
            try:
                session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
                feeds = {v.name: np.asarray(arrays[int(v.name[1:])]) for v in session.get_inputs()}
                results = session.run(None, feeds)
            except Exception as e:
                refused += 1
                continue
            folder = os.path.join(work, f"{i:05d}_{op}")
            os.makedirs(folder)
            onnx.save(model, os.path.join(folder, "model.onnx"))
            with open(os.path.join(folder, "attrs"), "w") as f:
                f.write(f"{attrs} {[np.asarray(a).shape for a in arrays]}")
            feed_names = [v.name for v in model.graph.input]
            for stem, values in (("in", [feeds[n] for n in feed_names]), ("out", results)):
                for k, a in enumerate(values):
                    with open(os.path.join(folder, f"{stem}_{k}.pb"), "wb") as f:
                        f.write(numpy_helper.from_array(np.asarray(a)).SerializeToString())
            with open(os.path.join(folder, "tol"), "w") as f:
                f.write(f"1e-4 1e-5 {opts.get('off', 0)}\n")
            folders.append(folder)
        for at in range(0, len(folders), 200):
            out = subprocess.run([args.tool, *folders[at:at + 200]], capture_output=True, text=True).stdout
            for line in out.splitlines():
                passed += line.startswith("PASS")
                if not line.startswith("PASS"):
                    failed += 1
                    name = line.split()[1]
                    print(line[:200], open(os.path.join(work, name, "attrs")).read())
    print(f"random ops: {passed} passed, {failed} failed, {refused} refused by ONNX Runtime")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
