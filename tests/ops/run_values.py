#!/usr/bin/env python3
"""Part "values": answers that must not depend on how they come about. Elementwise operators on special values, folded
and run; integer powers; nearest Resize by sizes; sine of huge numbers; long sums; means of large windows;
TopK; averages of quantized windows; every type through what only moves elements."""
import itertools
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

import burin

counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(ok, what):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print(what)


def model(nodes, inputs, outputs, init=(), opset=22, extra=()):
    info = [h.make_tensor_value_info(n, t, s) for n, t, s in inputs]
    out = [h.make_empty_tensor_value_info(n) for n in outputs]
    graph = h.make_graph(nodes, "g", info, out, [nh.from_array(a, n) for n, a in init])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset), *extra], ir_version=10)


def same(x, y):
    """Bits, but that all NaNs are one and a subnormal is the zero of its sign."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if x.dtype.kind != "f":
        return np.array_equal(x, y)
    least = {2: 0, 4: np.finfo(np.float32).tiny, 8: np.finfo(np.float64).tiny}[x.dtype.itemsize]
    x, y = (np.where(np.abs(a) < least, np.copysign(0, a).astype(a.dtype), a) for a in (x, y))
    return bool((((x == y) & (np.signbit(x) == np.signbit(y))) | (np.isnan(x) & np.isnan(y))).all())


# ---- elementwise: folded and run ----------------------------------------------------------------------------------
def elementwise_rows():
    """(operator, arity) of the tables' formulas, and of operators written as functions that are elementwise, too."""
    more = {"Sign": 1, "IsInf": 1, "Pow": 2, "Mod": 2, "BitShift": 2, "Min": 2, "Max": 2, "Sum": 2, "Mean": 2, "Clip": 1,
            "LeakyRelu": 1, "Elu": 1, "Selu": 1, "Celu": 1, "ThresholdedRelu": 1, "HardSigmoid": 1, "Gelu": 1, "Shrink": 1,
            "PRelu": 2}
    rows = []
    for f in sorted((ROOT / "ir/ops").rglob("*.def")):
        for name, least, body in re.findall(r'^OP\("", "(\w+)",\s*\d+,\s*(\d+),.*?, (EW|ELEM)\(', f.read_text(), re.M):
            if body == "EW" or name in more:
                rows.append((name, more.get(name, int(least))))
    assert len(rows) > 30, "the tables of operators are elsewhere"
    return rows


FLOATS = [0.0, -0.0, 1, -1, 0.5, 1.5, -2.5, 3, -7, 1 / 3, 0.99999994, 1e-3, 65504, 65520, 1e9, -2.2e9, 1e20, -3e38, 1e-38,
          1e-41, 88.7, -104, np.inf, -np.inf, np.nan]
INTS = [0, 1, -1, 2, 3, -7, 7, 8, 31, 32, 33, 63, 64, 100, 127, -128, 255, 32767, 65536, 2**31 - 1, -2**31, 2**63 - 1, -2**63]


def specials(dtype):
    with np.errstate(all="ignore"):
        if np.dtype(dtype).kind == "f":
            return np.array(FLOATS).astype(dtype)
        return np.array(INTS, np.int64).astype(dtype)


def elementwise(dtype):
    tensor = f"tensor({h.tensor_dtype_to_string(h.np_dtype_to_tensor_dtype(np.dtype(dtype))).split('.')[-1].lower()})"
    v = specials(dtype)
    a, b = (np.array(list(itertools.product(v, v)) + [(v[1], v[3])], dtype).T.copy())
    nodes, names = [], []
    for op, arity in elementwise_rows():
        try:
            s = onnx.defs.get_schema(op, 22)
        except onnx.defs.SchemaError:
            continue
        allowed = next((c.allowed_type_strs for c in s.type_constraints if c.type_param_str == s.inputs[0].type_str), [])
        if tensor not in allowed or (op == "Mod" and np.dtype(dtype).kind == "f"):
            continue
        attrs = {"BitShift": {"direction": "LEFT"}}.get(op, {})
        nodes.append(h.make_node(op, ["a", "b"][:arity], [f"y{len(names)}"], **attrs))
        names.append(op)
    outs = [f"y{k}" for k in range(len(names))]
    t = h.np_dtype_to_tensor_dtype(np.dtype(dtype))
    run = burin.compile(model(nodes, [("a", t, a.shape), ("b", t, b.shape)], outs)).run({"a": a, "b": b})
    fold = burin.compile(model(nodes, [], outs, [("a", a), ("b", b)])).run({})
    for name, x, y in zip(names, run, fold):
        ok = same(x, y)
        check(ok, f"{name} of {np.dtype(dtype)}: folded and run differ")
        if not ok:
            for k in range(a.size):
                if not same(x[k:k + 1], y[k:k + 1]):
                    print(f"   ({a[k]!r}, {b[k]!r}): run {x[k]!r}, folded {y[k]!r}")
                    break


# ---- integer powers -------------------------------------------------------------------------------------------------
def power(x, y, bits, signed):
    x, y = int(x), int(y)
    r = pow(x, y, 1 << bits) if y >= 0 else 1 if x == 1 else (-1 if y % 2 else 1) if x == -1 else 0
    return r - (1 << bits) if signed and r >= 1 << (bits - 1) else r


def powers():
    types = [np.int32, np.int64, np.uint8, np.uint32, np.uint64]
    nodes, inputs, feeds, want = [], [], {}, []
    for i, (tx, ty) in enumerate(itertools.product(types, [np.int32, np.int64, np.uint64])):
        x, y = np.array(list(itertools.product(specials(tx), specials(ty))), object).T
        x, y = x.astype(tx), y.astype(ty)
        bits, signed = np.dtype(tx).itemsize * 8, np.dtype(tx).kind == "i"
        want.append(np.array([power(p, q, bits, signed) for p, q in zip(x, y)], object).astype(tx))
        feeds[f"x{i}"], feeds[f"e{i}"] = x, y
        inputs += [(n, h.np_dtype_to_tensor_dtype(feeds[n].dtype), x.shape) for n in (f"x{i}", f"e{i}")]
        nodes.append(h.make_node("Pow", [f"x{i}", f"e{i}"], [f"y{i}"]))
    outs = [f"y{i}" for i in range(len(want))]
    run = burin.compile(model(nodes, inputs, outs)).run(feeds)
    fold = burin.compile(model(nodes, [], outs, list(feeds.items()))).run({})
    for i, (w, r, f) in enumerate(zip(want, run, fold)):
        what = f"Pow of {w.dtype} and {feeds[f'e{i}'].dtype}"
        check(np.array_equal(r, w), f"{what}: run")
        check(np.array_equal(f, w), f"{what}: folded")


# ---- nearest Resize by sizes ------------------------------------------------------------------------------------------
COORDS = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
NEARS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


def nearest(n, m, co, near):
    i = np.arange(m, dtype=object)
    if co == "align_corners":
        num, den = i * (n - 1) * 2, max(m - 1, 1) * 2
    elif co == "asymmetric":
        num, den = i * n * 2, m * 2
    else:
        num, den = (2 * i + 1) * n - m, 2 * m
    num = num + {"round_prefer_floor": -den // 2, "round_prefer_ceil": den // 2}.get(near, 0)
    up = near in ("ceil", "round_prefer_floor")
    at = np.clip(-(-num // den) if up else num // den, 0, n - 1).astype(np.int64)
    return np.zeros_like(at) if m == 1 and co in ("align_corners", "pytorch_half_pixel") else at


def resizes():
    nodes, outs, ways = [h.make_node("Shape", ["s"], ["size"])], [], list(itertools.product(COORDS, NEARS))
    for k, (co, near) in enumerate(ways):
        nodes.append(h.make_node("Resize", ["x", "", "", "size"], [f"y{k}"], mode="nearest",
                                 coordinate_transformation_mode=co, nearest_mode=near))
        outs.append(f"y{k}")
    m = burin.compile(model(nodes, [("x", T.FLOAT, ["n"]), ("s", T.FLOAT, ["m"])], outs))
    wrong = {}
    for n, size in itertools.product(range(1, 71), range(1, 71)):
        x = np.arange(n, dtype=np.float32)
        for way, y in zip(ways, m.run({"x": x, "s": np.zeros(size, np.float32)})):
            if not np.array_equal(y, nearest(n, size, *way)):
                wrong.setdefault(way, (n, size))
    for way in ways:
        check(way not in wrong, f"Resize {way}: of {wrong.get(way)}")
    nodes, init, want = [], [], []
    for k, (n, size) in enumerate([(26, 64), (3, 7), (64, 26), (49, 70), (1, 5), (70, 1), (33, 31), (10, 60)]):
        init += [(f"x{k}", np.arange(n, dtype=np.float32)), (f"s{k}", np.array([size], np.int64))]
        for way in ways:
            nodes.append(h.make_node("Resize", [f"x{k}", "", "", f"s{k}"], [f"y{len(want)}"], mode="nearest",
                                     coordinate_transformation_mode=way[0], nearest_mode=way[1]))
            want.append(((n, size), way, nearest(n, size, *way)))
    inputs = [(n, T.FLOAT, a.shape) for n, a in init if n[0] == "x"]
    outs = [f"y{k}" for k in range(len(want))]
    run = burin.compile(model(nodes, inputs, outs, [p for p in init if p[0][0] == "s"])).run(
        {n: a for n, a in init if n[0] == "x"})
    for (sizes, way, w), y in zip(want, run):
        check(np.array_equal(w, y), f"Resize {way} of {sizes}, constant sizes")


# ---- sizes of Resize by scales ------------------------------------------------------------------------------------------
def scaled_sizes():
    """floor(size * scale) in f32: a scale that somebody computed as new size / old size gives the new size."""
    pairs = [(n, m) for n in range(1, 41) for m in range(1, 41)]
    for start in range(0, len(pairs), 400):
        part = pairs[start:start + 400]
        init = [(f"s{k}", np.array([np.float32(m) / np.float32(n)], np.float32)) for k, (n, m) in enumerate(part)]
        nodes = [h.make_node("Resize", [f"x{n}", "", f"s{k}"], [f"y{k}"], mode="nearest") for k, (n, m) in enumerate(part)]
        outs, feeds = [f"y{k}" for k in range(len(part))], {f"x{n}": np.zeros(n, np.float32) for n, _ in part}
        for dims, what in ((lambda n: [n], "constant"), (lambda n: [f"n{n}"], "symbolic")):
            run = burin.compile(model(nodes, [(x, T.FLOAT, dims(a.size)) for x, a in feeds.items()], outs, init), flags=["-O0"]).run(feeds)
            wrong = [(n, m, y.size) for (n, m), y in zip(part, run) if y.size != int(np.floor(np.float32(n) * (np.float32(m) / np.float32(n))))]
            check(not wrong, f"Resize by scales, {what}: {wrong[:4]}")


# ---- sine of huge numbers ------------------------------------------------------------------------------------------------
def huge():
    rng = np.random.default_rng(4)
    for dtype, top in ((np.float32, 127), (np.float64, 1020)):
        x = (rng.standard_normal(4001) * 2.0 ** rng.integers(0, top, 4001)).astype(dtype)
        x = np.concatenate([x, dtype(np.pi / 2) * np.arange(1, 2000, 7, dtype=dtype)])
        ops = ["Sin", "Cos", "Tan"]
        nodes = [h.make_node(op, ["x"], [f"y{k}"]) for k, op in enumerate(ops)]
        t = h.np_dtype_to_tensor_dtype(np.dtype(dtype))
        got = burin.compile(model(nodes, [("x", t, x.shape)], ["y0", "y1", "y2"])).run({"x": x})
        for op, fn, y in zip(ops, (np.sin, np.cos, np.tan), got):
            w = fn(x.astype(np.float64))
            err = np.abs(y.astype(np.float64) - w) / np.spacing(np.abs(w).astype(dtype)).astype(np.float64)
            check(err.max() <= 3, f"{op} of {np.dtype(dtype)}: {err.max()} ulp at {x[err.argmax()]!r}")


# ---- long sums ---------------------------------------------------------------------------------------------------------
REDUCE = {"ReduceSum": np.sum, "ReduceMean": np.mean, "ReduceL1": lambda a, **k: np.abs(a).sum(**k),
          "ReduceL2": lambda a, **k: np.sqrt((a * a).sum(**k)), "ReduceSumSquare": lambda a, **k: (a * a).sum(**k),
          "ReduceLogSum": lambda a, **k: np.log(a.sum(**k)),
          "ReduceLogSumExp": lambda a, **k: np.log(np.exp(a).sum(**k))}


def sums():
    shapes = [((2_000_000,), (0,)), ((2, 1_000_000), (1,)), ((1_000_000, 3), (0,)), ((1_000_000, 2), (0, 1)),
              ((1500, 1300), (0, 1)), ((30, 40_000, 2), (1,)), ((40_000, 5, 6), (0, 2))]
    for symbolic in (False, True):
        for shape, axes in shapes:
            x = np.full(shape, 0.1, np.float32)
            nodes = [h.make_node(op, ["x", "axes"], [f"y{k}"], keepdims=0) for k, op in enumerate(REDUCE)]
            dims = [f"d{k}" for k in range(len(shape))] if symbolic else shape
            m = burin.compile(model(nodes, [("x", T.FLOAT, dims)], [f"y{k}" for k in range(len(REDUCE))],
                                    [("axes", np.array(axes, np.int64))]))
            for (op, fn), y in zip(REDUCE.items(), m.run({"x": x})):
                w = fn(x.astype(np.float64), axis=axes)
                err = np.max(np.abs(y - w) / np.abs(w))
                check(err < 6e-6, f"{op} of {shape} over {axes}{' symbolic' if symbolic else ''}: off by {err:.2g}")
    nodes = [h.make_node("GlobalAveragePool", ["x"], ["a"]), h.make_node("InstanceNormalization", ["x", "s", "b"], ["n"]),
             h.make_node("Softmax", ["l"], ["p"]), h.make_node("MatMul", ["l", "w"], ["q"]),
             h.make_node("LayerNormalization", ["l", "g"], ["z"])]
    n = 1_000_000
    x = np.full((1, 2, 1000, 1000), 0.1, np.float32)
    x[0, 0] += np.arange(1000, dtype=np.float32) / 1000
    l, g, w = np.full((1, n), 0.1, np.float32), np.ones(n, np.float32), np.full((n, 1), 0.3, np.float32)
    l[0, ::2] = 0.3
    m = burin.compile(model(nodes, [("x", T.FLOAT, x.shape), ("l", T.FLOAT, l.shape), ("w", T.FLOAT, w.shape), ("g", T.FLOAT, g.shape)],
                            ["a", "n", "p", "q", "z"],
                            [("s", np.ones(2, np.float32)), ("b", np.zeros(2, np.float32))]))
    got = m.run({"x": x, "l": l, "w": w, "g": g})
    d, e = x.astype(np.float64), l.astype(np.float64)
    mean, var = d.mean((2, 3), keepdims=True), d.var((2, 3), keepdims=True)
    ln = (e - e.mean()) / np.sqrt(e.var() + 1e-5)
    want = [mean, (d - mean) / np.sqrt(var + 1e-5), np.exp(e) / np.exp(e).sum(), e @ w.astype(np.float64), ln]
    for name, y, v in zip(("GlobalAveragePool", "InstanceNormalization", "Softmax", "MatMul", "LayerNormalization"), got, want):
        err = np.max(np.abs(y - v)) / np.max(np.abs(v))
        check(err < 1e-5, f"{name} over a million: off by {err:.2g}")


# ---- means of large windows: one dimension after the other ----------------------------------------------------------------
def windows():
    rng = np.random.default_rng(5)
    shapes = [(22, 26), (17, 22), (15, 25), (30, 9)]
    wide = [([9, 11], [1, 1], [1, 1], [4, 5, 4, 5]), ([10, 5], [1, 3], [2, 1], [7, 4, 9, 0]), ([7, 13], [2, 2], [1, 1], [5, 11, 3, 9]),
            ([9, 8], [2, 1], [1, 1], [0, 7, 8, 2])]
    for ((kh, kw), (sh, sw), (dh, dw), pads), (h_, w_), include, ceil in zip(wide * 2, shapes * 2, [0, 1, 1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0, 1, 0]):
        node = h.make_node("AveragePool", ["x"], ["y"], kernel_shape=[kh, kw], strides=[sh, sw], dilations=[dh, dw], pads=pads,
                           count_include_pad=include, ceil_mode=ceil)
        x = rng.standard_normal((1, 3, h_, w_)).astype(np.float32)
        got = burin.compile(model([node], [("x", T.FLOAT, [1, 3, "h", w_])], ["y"])).run({"x": x})[0]
        top, left, bottom, right = pads
        border = (kh * dh + sh, kw * dw + sw)  # beyond the padding, where only ceil_mode reaches
        around = [(0, 0), (0, 0), (top, bottom + border[0]), (left, right + border[1])]
        sums, ones = np.pad(x.astype(np.float64), around), np.pad(np.ones((1, 1, h_, w_)), around)
        if include:
            ones[:] = 0
            ones[:, :, :top + h_ + bottom, :left + w_ + right] = 1
        mean = lambda i, j: [a[:, :, i * sh:i * sh + kh * dh:dh, j * sw:j * sw + kw * dw:dw].sum((2, 3)) for a in (sums, ones)]
        want = np.stack([np.stack([np.divide(*mean(i, j)) for j in range(got.shape[3])], -1) for i in range(got.shape[2])], -2)
        err = np.max(np.abs(got - want)) / np.max(np.abs(want))
        check(err < 2e-6, f"AveragePool {kh}x{kw} strides {sh} {sw} dilations {dh} {dw} {pads} include {include} ceil {ceil}: off by {err:.2g}")


# ---- the first k: ties, NaN, both zeros, blocks and heaps -----------------------------------------------------------------
def first_k():
    rng = np.random.default_rng(6)
    for dtype, shape in itertools.product((np.float32, np.float16, np.float64, np.int32, np.uint8, np.int64), ((2, 150), (70, 3))):
        x = (rng.standard_normal(shape) * 20).astype(np.int8).astype(dtype)
        if x.dtype.kind == "f":
            x.reshape(-1)[::11], x.reshape(-1)[::7], x.reshape(-1)[3::13] = np.nan, -0.0, -np.inf
        cases = [(axis, k, largest) for axis in (0, 1) for k in (1, shape[axis] // 2, shape[axis]) for largest in (0, 1)]
        nodes = [h.make_node("TopK", ["x", f"k{k}"], [f"v{c}", f"i{c}"], axis=axis, largest=largest)
                 for c, (axis, k, largest) in enumerate(cases)]
        outputs = [name for n in nodes for name in n.output]
        m = model(nodes, [("x", h.np_dtype_to_tensor_dtype(x.dtype), shape)], outputs,
                  [(f"k{k}", np.array([k])) for k in {k for _, k, _ in cases}])
        got = burin.compile(m).run({"x": x})
        for (axis, k, largest), v, i in zip(cases, got[::2], got[1::2]):
            rank = np.where(x != x, np.inf, x.astype(np.float64)) * (-1 if largest else 1) + 0.0
            want = np.argsort(rank, axis, kind="stable").take(range(k), axis)
            ok = np.array_equal(i, want) and same(np.asarray(v), np.take_along_axis(x, want, axis))
            check(ok, f"TopK of {x.dtype} {shape} axis {axis} k {k} largest {largest}")


# ---- quantized windows ---------------------------------------------------------------------------------------------------
def quantized():
    import onnxruntime as ort

    rng = np.random.default_rng(2)
    x = rng.integers(0, 255, (1, 2, 5, 6)).astype(np.uint8)
    ms = h.make_opsetid("com.microsoft", 1)
    init = [("xs", np.float32(0.1)), ("xz", np.uint8(120)), ("ys", np.float32(0.15)), ("yz", np.uint8(100))]
    for pads, ceil, include, strides in itertools.product(([0] * 4, [1] * 4, [0, 1, 1, 0]), (0, 1), (0, 1), ([1, 1], [2, 2], [2, 3])):
        node = h.make_node("QLinearAveragePool", ["x", "xs", "xz", "ys", "yz"], ["y"], domain="com.microsoft",
                           kernel_shape=[3, 3], pads=pads, ceil_mode=ceil, count_include_pad=include, strides=strides)
        m = model([node], [("x", T.UINT8, x.shape)], ["y"], init, 17, [ms])
        so = ort.SessionOptions()
        so.log_severity_level = 4
        want = ort.InferenceSession(m.SerializeToString(), so).run(None, {"x": x})[0]
        got = burin.compile(m).run({"x": x})[0]
        check(np.array_equal(want, got), f"QLinearAveragePool {pads} ceil {ceil} include {include} {strides}")


# ---- what only moves elements --------------------------------------------------------------------------------------------
MOVES = [  # operator, further inputs, attributes; the first input is x
    ("Identity", [], {}), ("Transpose", [], {"perm": [1, 0, 2]}), ("Concat", ["x"], {"axis": 1}),
    ("Slice", [np.array([2, 0]), np.array([0, 3]), np.array([2, 0]), np.array([-1, 2])], {}),
    ("Gather", [np.array([[2, 0], [1, -1]])], {"axis": 0}), ("GatherND", [np.array([[0, 1], [2, 2]])], {}),
    ("GatherElements", [np.arange(24).reshape(2, 3, 4) * 5 % 3], {"axis": 0}), ("Reshape", [np.array([-1, 4])], {}),
    ("ReverseSequence", [np.array([2, 3, 1])], {}), ("Tile", [np.array([1, 2, 1])], {}),
    ("Expand", [np.array([2, 3, 3, 4])], {}), ("Pad", [np.array([0, 1, 2, 1, 0, 0])], {}),
    ("Pad", [np.array([1, 0, 1, 0, 2, 1])], {"mode": "reflect"}), ("Unsqueeze", [np.array([0, 2])], {}),
    ("Where", ["condition", "x", "flipped"], {}), ("Compress", [np.array([True, False, True])], {"axis": 0}),
    ("ScatterND", [np.array([[1, 2]]), "row"], {}), ("ScatterElements", [np.array([[[2, 1, 0, 1]]]), "cell"], {"axis": 1}),
    ("SpaceToDepth", ["image"], {"blocksize": 2}), ("CenterCropPad", [np.array([4, 2])], {"axes": [0, 2]})]


def moves(t):
    """Positions tell which element of x goes where; 0 is none."""
    dtype = h.tensor_dtype_to_np_dtype(t)
    shape = (3, 3, 4)
    at = np.arange(1, 37).reshape(shape)
    rng = np.random.default_rng(t)
    x = (rng.integers(-100, 100, shape) + 1j * rng.integers(1, 9, shape) if np.dtype(dtype).kind == "c"
         else rng.integers(0, 8 if t in (T.INT4, T.UINT4) else 100, shape)).astype(dtype)
    derived = [h.make_node("Transpose", ["x"], ["flipped0"], perm=[1, 0, 2]), h.make_node("Identity", ["flipped0"], ["flipped"]),
               h.make_node("Slice", ["x", "s0", "s1", "s0"], ["row0"]), h.make_node("Squeeze", ["row0", "s2"], ["row1"]),
               h.make_node("Slice", ["row1", "s0", "s1", "s0"], ["row"]), h.make_node("Slice", ["x", "s4", "s5", "s4"], ["cell"]),
               h.make_node("Reshape", ["x", "s3"], ["image"])]
    init = [("s0", np.array([0])), ("s1", np.array([1])), ("s2", np.array([0])), ("s3", np.array([1, 3, 6, 2])),
            ("s4", np.array([0, 1])), ("s5", np.array([1, 2])), ("condition", np.array([[True], [False], [True]]))]
    nodes, names = list(derived), []
    for k, (op, more, attrs) in enumerate(MOVES):
        ins = [] if op in ("Where", "SpaceToDepth") else ["x"]
        for j, a in enumerate(more):
            if not isinstance(a, str):
                init.append((f"c{k}_{j}", a))
                a = f"c{k}_{j}"
            ins.append(a)
        names.append(f"y{k}_{op}")
        nodes.append(h.make_node(op, ins, names[-1:], **attrs))
    from onnx.reference import ReferenceEvaluator
    where = ReferenceEvaluator(model(nodes, [("x", T.INT64, shape)], names, init)).run(None, {"x": at})
    flat = np.concatenate([np.zeros(1, dtype), x.ravel()])
    run = burin.compile(model(nodes, [("x", t, shape)], names, init)).run({"x": x})
    sizes = burin.compile(model(nodes, [("x", t, ["a", "b", 4])], names, init)).run({"x": x})
    folded = burin.compile(model(nodes, [], names, [*init, ("x", x)])).run({})
    for name, w, *got in zip(names, where, run, sizes, folded):
        for how, g in zip(("run", "with sizes as symbols", "folded"), got):
            check(g.dtype == dtype and g.shape == w.shape and g.tobytes() == flat[w].tobytes(),
                  f"{name} of {np.dtype(dtype)}, {how}")


# ---- pieces of one element -------------------------------------------------------------------------------------------
def pieces():
    """x[i : i + 1] broadcasts, though nothing bounds i: a Loop ends by its condition."""
    one, n = nh.from_array(np.array([1]), "one"), nh.from_array(np.array(4), "n")
    body = h.make_graph(
        [h.make_node("Reshape", ["i", "minus"], ["s"]), h.make_node("Add", ["s", "one"], ["e"]),
         h.make_node("Slice", ["x", "s", "e"], ["piece"]), h.make_node("Div", ["row", "piece"], ["y"]),
         h.make_node("Add", ["i", "step"], ["next"]), h.make_node("Less", ["next", "n"], ["more"])],
        "body", [h.make_tensor_value_info("k", T.INT64, []), h.make_tensor_value_info("c", T.BOOL, []),
                 h.make_tensor_value_info("i", T.INT64, [])],
        [h.make_tensor_value_info("more", T.BOOL, []), h.make_tensor_value_info("next", T.INT64, []),
         h.make_tensor_value_info("y", T.FLOAT, [7])],
        [one, n, nh.from_array(np.array([-1]), "minus"), nh.from_array(np.array(1), "step")])
    m = model([h.make_node("Loop", ["", "go", "zero"], ["last", "ys"], body=body)], [("x", T.FLOAT, [5]), ("row", T.FLOAT, [7])],
              ["ys"], [("go", np.array(True)), ("zero", np.array(0))])
    x, row = np.arange(1, 6, dtype=np.float32), np.arange(7, dtype=np.float32)
    check(np.allclose(burin.compile(m).run({"x": x, "row": row})[0], row / x[:4, None]), "a slice of one element at a place from a Loop")


def grown(t):
    """A state of a Loop that nothing bounds lies in the heap, at any width of its elements."""
    matrix = lambda name, rows: h.make_tensor_value_info(name, t, [rows, 3])
    body = h.make_graph(
        [h.make_node("Concat", ["s", "row"], ["o"], axis=0), h.make_node("Identity", ["c"], ["go"])], "body",
        [h.make_tensor_value_info("i", T.INT64, []), h.make_tensor_value_info("c", T.BOOL, []), matrix("s", None)],
        [h.make_tensor_value_info("go", T.BOOL, []), matrix("o", None)])
    m = burin.compile(model([h.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
                            [("n", T.INT64, []), ("x", t, ["rows", 3]), ("row", t, [2, 3])], ["y"]))
    dtype = h.tensor_dtype_to_np_dtype(t)
    x, row = (np.arange(k, k + 3 * rows).reshape(rows, 3).astype(dtype) for k, rows in ((1, 4), (20, 2)))
    for n in (0, 1, 3, 60):
        got = m.run({"n": np.int64(n), "x": x, "row": row})[0]
        check(np.array_equal(got, np.concatenate([x] + [row] * n)), f"{np.dtype(dtype)} grows {n} times")


MOVED = [T.FLOAT, T.UINT8, T.INT16, T.INT32, T.INT64, T.BOOL, T.FLOAT16, T.DOUBLE, T.COMPLEX64, T.COMPLEX128, T.BFLOAT16,
         T.FLOAT8E4M3FN, T.FLOAT8E5M2FNUZ, T.INT4, T.UINT4, T.FLOAT4E2M1]


# ---- the first row of a table, which broadcasts ------------------------------------------------------------------
def first_rows():
    """A size of 0 or 1 against one that is an expression: torch's max_pool2d with indices is written so."""
    nodes = [h.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2], strides=[2]), h.make_node("Slice", ["x", "zero", "one", "axis"], ["f"]),
             h.make_node("Greater", ["p", "zerof"], ["c"]), h.make_node("Sub", ["p", "f"], ["y"]), h.make_node("Where", ["c", "f", "p"], ["z"])]
    init = [("zero", np.array([0])), ("one", np.array([1])), ("axis", np.array([2])), ("zerof", np.float32([0]))]
    run = burin.compile(model(nodes, [("x", T.FLOAT, ["b", "c", "n"])], ["y", "z"], init)).run
    for n in (2, 3, 9, 40):
        x = np.random.default_rng(n).standard_normal((2, 3, n)).astype(np.float32)
        p, f = x[..., : n // 2 * 2].reshape(2, 3, -1, 2).max(-1), x[..., :1]
        y, z = run({"x": x})
        check(np.array_equal(y, p - f) and np.array_equal(z, np.where(p > 0, f, p)), f"first of {n}")


def main():
    only = sys.argv[1:]
    for part in (powers, resizes, scaled_sizes, huge, sums, windows, first_k, quantized, pieces, first_rows):
        if not only or part.__name__ in only:
            part()
    for t in MOVED:
        if not only or "moves" in only:
            moves(t)
    for t in (T.UINT8, T.FLOAT16, T.FLOAT, T.DOUBLE, T.COMPLEX64, T.COMPLEX128):
        if not only or "grown" in only:
            grown(t)
    for dtype in (np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8, np.uint64):
        if not only or "elementwise" in only:
            elementwise(dtype)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
