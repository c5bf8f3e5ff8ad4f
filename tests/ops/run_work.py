#!/usr/bin/env python3
"""Part "work": that nothing is done more often than it has to be, and right all the same.

Constants of any cost are computed by the compiler, with the bits that the program would give; running sums, Fourier
transforms, suppression and pooling of regions, groups of channels against numpy and ONNX Runtime in all their modes; the multiply-adds
that `burin inspect` counts against formulas. No times.
"""
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper, numpy_helper

import burin

ort.set_default_logger_severity(4)
rng = np.random.default_rng(8)
results = {"passed": 0, "failed": 0}


def check(ok, title, detail=""):
    results["passed" if ok else "failed"] += 1
    if not ok:
        print("FAILED", title, detail)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def node(op, inputs, **attrs):
    outputs = attrs.pop("outputs", ["y"])
    return helper.make_node(op, inputs, outputs, **attrs)


def model(nodes, inputs, constants=None, opset=20, output=T.FLOAT):
    """inputs: {name: (type, dims)}; the output is y."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(k, t, d) for k, (t, d) in inputs.items()],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 9
    return made


def reference(m, feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def command(m, *words):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m.onnx")
        onnx.save(m, path)
        done = subprocess.run([burin.compiler(), words[0], path, *words[1:]], capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else f"status {done.returncode}: {done.stderr}"


# ---- constants of any cost ----------------------------------------------------------------------
def standardized(channels, fan):
    w, one, zero = normal(1, channels, fan), np.ones(channels, np.float32), np.zeros(channels, np.float32)
    nodes = [node("BatchNormalization", ["w", "one", "zero", "zero", "one"], outputs=["n", "", ""], training_mode=1, epsilon=1e-6),
             node("Reshape", ["n", "shape"], outputs=["k"]), node("MatMul", ["x", "k"])]
    return model(nodes, {"x": (T.FLOAT, [1, channels])}, dict(w=w, one=one, zero=zero, shape=np.array([channels, fan])))


def low_rank(n, r):
    nodes = [node("MatMul", ["a", "b"], outputs=["ab"]), node("Mul", ["ab", "s"], outputs=["abs"]),
             node("Add", ["w", "abs"], outputs=["k"]), node("MatMul", ["x", "k"])]
    return model(nodes, {"x": (T.FLOAT, [1, n])}, dict(a=normal(n, r), b=normal(r, n), w=normal(n, n), s=np.float32(0.5)))


def test_constants():
    whole = ("--disable-pass=compute_constants", "--disable-pass=fold_constants")
    for title, m, n, left in (("standardized, interpreted", standardized(64, 300), 64, "batchnorm"),
                              ("standardized, compiled", standardized(512, 4608), 512, "batchnorm"),
                              ("low rank", low_rank(700, 16), 700, "add")):
        x = {"x": normal(1, n)}
        folded, run = burin.compile(m), burin.compile(m, flags=whole)
        a, b = np.array(folded.run(x)[0]), np.array(run.run(x)[0])
        check(a.tobytes() == b.tobytes(), f"{title}: bits", np.abs(a - b).max())
        check(left not in command(m, "compile", "-q", "--emit=loop", "-o", "-"), f"{title}: something is left to run time")
    # what would add to the weights is not folded
    m = model([node("Expand", ["c", "s"], outputs=["e"]), node("Tanh", ["e"], outputs=["t"]), node("Add", ["x", "t"])],
              {"x": (T.FLOAT, [1, 500])}, dict(c=normal(1, 500), s=np.array([2000, 500])))
    x = {"x": normal(1, 500)}
    made = burin.compile(m)
    check(made.weight_bytes < 100000, "size of constants", made.weight_bytes)
    check(np.allclose(made.run(x)[0], reference(m, x), atol=1e-6), "value of what stays")


# ---- running sums -------------------------------------------------------------------------------
def running(x, axis, exclusive, reverse, op):
    a = np.flip(x, axis) if reverse else x
    a = op.accumulate(a.astype(np.float64) if x.dtype.kind == "f" else a, axis)
    if exclusive and x.shape[axis]:
        one = np.full_like(np.take(a, [0], axis), op.identity)
        a = np.concatenate([one, np.delete(a, -1, axis)], axis)
    return np.flip(a, axis) if reverse else a


def test_scans():
    kinds = {np.float32: T.FLOAT, np.float16: T.FLOAT16, np.float64: T.DOUBLE, np.int32: T.INT32, np.int64: T.INT64}
    shapes = [(7,), (3, 5, 4), (2, 1, 700), (3, 600, 2), (4, 3, 513), (0, 3), (3, 0, 2)]
    cases = [(s, a, e, r, np.float32) for s in shapes for a in range(-1, len(s) - 1) for e in (0, 1) for r in (0, 1)]
    cases += [((3, 40, 5), a, e, r, t) for a in (1, 2) for e, r in ((0, 0), (1, 1)) for t in kinds]
    for shape, axis, exclusive, reverse, t in cases:
        x = normal(*shape).astype(t) if np.dtype(t).kind == "f" else rng.integers(-9, 9, shape).astype(t)
        want = running(x, axis, exclusive, reverse, np.add)
        symbolic = [f"d{i}" for i in range(len(shape))]
        for dims, flags in ((list(shape), ()), (symbolic, ()), (list(shape), ("-O0",))):
            m = model([node("CumSum", ["x", "axis"], exclusive=exclusive, reverse=reverse)], {"x": (kinds[t], dims)},
                      dict(axis=np.int64(axis)), output=kinds[t])
            if 0 in shape and dims is symbolic:
                continue
            got = burin.compile(m, flags=flags).run({"x": x})[0]
            near = np.allclose(got, want, rtol=2e-3 if t == np.float16 else 1e-6, atol=1e-2 if t == np.float16 else 1e-6)
            check(got.dtype == t and got.shape == want.shape and near, f"CumSum {shape} {axis} {exclusive}{reverse} {t} {flags}")
    x = np.full(3000000, 0.1, np.float32)
    m = model([node("CumSum", ["x", "axis"])], {"x": (T.FLOAT, [x.size])}, dict(axis=np.int64(0)))
    error = np.abs(burin.compile(m).run({"x": x})[0] - np.cumsum(x.astype(np.float64)))
    check(error[-1] < 0.02, "long running sum", error[-1])
    check(inspect(m)["multiply_adds"] == x.size, "work of a long running sum", inspect(m))
    # what is fused around it, and an axis that is data
    x = normal(4, 50, 6)
    chains = {
        "softmax": [node("Softmax", ["x"], outputs=["s"], axis=1), node("CumSum", ["s", "one"], outputs=["c"]), node("Mul", ["c", "c"])],
        "sums": [node("ReduceSum", ["x", "last"], outputs=["s"], keepdims=0), node("CumSum", ["s", "one"], outputs=["c"], reverse=1),
                 node("Gather", ["c", "i"], outputs=["g"], axis=1), node("Sigmoid", ["g"])],
        "twice": [node("CumSum", ["x", "one"], outputs=["c"]), node("CumSum", ["c", "two"], outputs=["d"], exclusive=1),
                  node("Transpose", ["d"], outputs=["t"], perm=[2, 0, 1]), node("CumSum", ["t", "one"], outputs=["e"]),
                  node("Concat", ["e", "t"], axis=0)],
        "of a constant": [node("CumSum", ["k", "one"], outputs=["c"]), node("Add", ["c", "x"])],
    }
    constants = dict(one=np.int64(1), two=np.int64(2), last=np.array([2]), i=np.array([[3, 4], [49, 0]]), k=normal(4, 50, 6))
    for title, nodes in chains.items():
        m = model(nodes, {"x": (T.FLOAT, [4, "n", 6])}, constants)
        check(np.allclose(burin.compile(m).run({"x": x})[0], reference(m, {"x": x}), rtol=1e-5, atol=1e-5), f"CumSum: {title}")
    m = model([node("CumSum", ["x", "axis"])], {"x": (T.FLOAT, [4, 50, 6]), "axis": (T.INT64, [])})
    for axis in range(-3, 3):
        feeds = {"x": x, "axis": np.int64(axis)}
        check(np.allclose(burin.compile(m).run(feeds)[0], np.cumsum(x, axis), rtol=1e-5, atol=1e-5), f"CumSum: axis {axis} is data")


# ---- Fourier transforms -------------------------------------------------------------------------
def fourier(x, n, axis, inverse, onesided):
    c = x[..., 0] + 1j * (x[..., 1] if x.shape[-1] == 2 else 0)
    if inverse and onesided:
        return np.fft.irfft(c, n, axis)[..., None]
    y = (np.fft.ifft if inverse else np.fft.fft)(c, n, axis)
    if onesided:
        y = np.take(y, range(n // 2 + 1), axis)
    return np.stack([y.real, y.imag], -1)


def test_transforms():
    lengths = (1, 2, 3, 7, 11, 13, 64, 600, 1000, 1021, 1024, 2310, 8191 // 4, 17 * 64)
    cases = [((1, n, p), 1, None, i, o) for n in lengths for p, i, o in ((1, 0, 0), (2, 0, 0), (2, 1, 0), (1, 0, 1))]
    cases += [((1, n, 2), 1, m, 1, 1) for n, m in ((513, None), (513, 1025), (2, None), (300, 1024), (600, 64))]
    cases += [((2, 700, 3, 1), 1, None, 0, 1), ((2, 3, 700, 2), 2, 1024, 0, 0), ((9, 40, 1), 1, 64, 0, 1), ((2, 900, 2), 1, 512, 1, 0)]
    for (shape, axis, n, inverse, onesided), symbolic in itertools.product(cases, (False, True)):
        x = normal(*shape)
        points = n or (2 * (shape[axis] - 1) if inverse and onesided else shape[axis])
        dims = [f"d{i}" for i in range(len(shape) - 1)] + [shape[-1]] if symbolic else list(shape)
        m = model([node("DFT", ["x", "n" if n else "", "axis"], inverse=inverse, onesided=onesided)], {"x": (T.FLOAT, dims)},
                  dict(axis=np.int64(axis), **({"n": np.int64(n)} if n else {})))
        got, want = burin.compile(m).run({"x": x})[0], fourier(x.astype(np.float64), points, axis, inverse, onesided)
        error = np.abs(got - want).max() / np.abs(want).max() if got.shape == want.shape else np.inf
        check(error < 5e-7, f"DFT {shape} {axis} {n} inverse {inverse} onesided {onesided} symbolic {symbolic}", error)
    for n in (2048, 1021):
        x = rng.standard_normal((1, n, 2))
        got = burin.compile(model([node("DFT", ["x"])], {"x": (T.DOUBLE, [1, n, 2])}, output=T.DOUBLE)).run({"x": x})[0]
        want = fourier(x, n, 1, 0, 0)
        check(np.abs(got - want).max() < 2e-15 * np.abs(want).max(), f"DFT of {n} doubles")
    for length in (400, 1024):
        x, window = normal(1, 3000), np.hanning(length).astype(np.float32)
        m = model([node("STFT", ["x", "step", "window"], onesided=1)], {"x": (T.FLOAT, [1, 3000])}, dict(step=np.int64(160), window=window))
        frames = np.stack([x[0, i : i + length] * window for i in range(0, 3000 - length + 1, 160)])
        want = fourier(frames[None, ..., None].astype(np.float64), length, 2, 0, 1)
        check(np.allclose(burin.compile(m).run({"x": x})[0], want, atol=1e-4), f"STFT {length}")


# ---- detection ----------------------------------------------------------------------------------
def test_detection():
    for ratio, mode, coords, scale, size in itertools.product((0, 2), ("avg", "max"), ("half_pixel", "output_half_pixel"), (1.0, 0.25), (0.3, 1.5)):
        h, w, n = 19, 37, 20
        corner, extent = rng.uniform(-0.1, 1, (n, 2)) * [w, h], rng.uniform(0, size, (n, 2)) * [w, h]
        feeds = {"x": normal(2, 3, h, w), "r": (np.concatenate([corner, corner + extent], 1) / scale).astype(np.float32), "b": rng.integers(0, 2, n)}
        m = model([node("RoiAlign", ["x", "r", "b"], output_height=5, output_width=4, sampling_ratio=ratio, mode=mode,
                        coordinate_transformation_mode=coords, spatial_scale=scale)],
                  {"x": (T.FLOAT, [2, 3, h, w]), "r": (T.FLOAT, [n, 4]), "b": (T.INT64, [n])}, opset=16)
        error = np.abs(burin.compile(m).run(feeds)[0] - reference(m, feeds)).max()
        check(error < 2e-5, f"RoiAlign {ratio} {mode} {coords} {scale} {size}", error)
    m = lambda centred: model([node("NonMaxSuppression", ["b", "s", "limit", "iou", "score"], center_point_box=centred)],
                              {"b": (T.FLOAT, [2, 200, 4]), "s": (T.FLOAT, [2, 3, 200]), "limit": (T.INT64, [1]), "iou": (T.FLOAT, [1]), "score": (T.FLOAT, [1])},
                              opset=11, output=T.INT64)
    for centred in (0, 1):
        made, one = m(centred), burin.compile(m(centred))
        for iou, score, limit in itertools.product((0.0, 0.3, 0.7), (0.0, 0.5), (0, 5, 200)):
            a, b = rng.uniform(0, 1, (2, 200, 2)), rng.uniform(0.01, 0.2, (2, 200, 2))
            boxes = np.concatenate([a, b if centred else a + b], -1).astype(np.float32)
            if not centred:
                boxes[:, ::5] = boxes[:, ::5][..., [2, 1, 0, 3]]
            scores = rng.random((2, 3, 200)).astype(np.float32)
            scores[..., ::7] = np.round(scores[..., ::7], 1)
            feeds = {"b": boxes, "s": scores, "limit": np.array([limit]), "iou": np.float32([iou]), "score": np.float32([score])}
            check(np.array_equal(one.run(feeds)[0], reference(made, feeds)), f"NonMaxSuppression {centred} {iou} {score} {limit}")


# ---- group normalization as exporters write it ---------------------------------------------------
def test_groups():
    for channels, groups, h, w in ((32, 4, 20, 13), (6, 3, 7, 5), (5, 1, 9, 9), (40, 40, 8, 3)):
        constants = dict(w0=normal(channels, channels, 3, 3) * 0.1, s=np.array([0, groups, -1]), g=normal(groups), b=normal(groups),
                         ga=normal(channels, 1, 1), be=normal(channels, 1, 1), c=normal(channels), d=normal(channels))
        seen = [node("Conv", ["x", "w0"], outputs=["q"], pads=[1] * 4), node("Shape", ["q"], outputs=["sh"]),
                node("Reshape", ["q", "s"], outputs=["r"]), node("InstanceNormalization", ["r", "g", "b"], outputs=["i"], epsilon=1e-3),
                node("Reshape", ["i", "sh"], outputs=["t"]), node("Mul", ["t", "ga"], outputs=["u"]), node("Add", ["u", "be"], outputs=["a"]),
                node("Conv", ["a", "w0"], pads=[1] * 4)]
        whole = [seen[0], node("GroupNormalization", ["q", "c", "d"], outputs=["a"], num_groups=groups), seen[-1]]
        for nodes, dims in itertools.product((seen, whole), ([2, channels, h, w], ["n", channels, "h", "w"])):
            m, x = model(nodes, {"x": (T.FLOAT, dims)}, constants, opset=21), normal(2, channels, h, w)
            got, want = burin.compile(m).run({"x": x})[0], reference(m, {"x": x})
            check(np.abs(got - want).max() < 2e-5 * np.abs(want).max(), f"groups {channels} {groups} {dims} {len(nodes)}", np.abs(got - want).max())
        check("instancenorm" not in command(m := model(seen, {"x": (T.FLOAT, dims)}, constants, opset=21), "compile", "-q", "--emit=loop", "-o", "-"),
              f"groups {channels} {groups}: sums along rows that are none")


# ---- operators that have a faster form -------------------------------------------------------------
def test_forms():
    for equation, shapes in (("bij,bjk,bkl,bl->bi", [(2, 30, 20), (2, 20, 25), (2, 25, 9), (2, 9)]), ("ai,bi,ci->abc", [(6, 7), (8, 7), (9, 7)]),
                             ("i,j,k->kji", [(6,), (8,), (9,)]), ("...i,ij,jk->...k", [(2, 3, 6), (6, 8), (8, 9)]), ("ii,ij,j->", [(6, 6), (6, 8), (8,)])):
        feeds = {f"x{i}": normal(*s) for i, s in enumerate(shapes)}
        m = model([node("Einsum", list(feeds), equation=equation)], {k: (T.FLOAT, list(v.shape)) for k, v in feeds.items()})
        want = np.einsum(equation, *[v.astype(np.float64) for v in feeds.values()])
        check(np.allclose(burin.compile(m).run(feeds)[0], want, rtol=1e-4, atol=1e-4), f"Einsum {equation}")
    m = model([node("Einsum", ["x", "a", "b"], equation="ij,jk,kl->il")], {"x": (T.FLOAT, [90, 80])}, dict(a=normal(80, 70), b=normal(70, 60)))
    check(inspect(m)["multiply_adds"] == 90 * 80 * 70 + 90 * 70 * 60, "work of a chain", inspect(m)["multiply_adds"])
    for kernel, stride, pads, ceil in (([5, 5], [1, 1], [2, 2, 2, 2], 0), ([13, 3], [1, 2], [6, 1, 6, 1], 0), ([7, 9], [2, 3], [3, 4, 2, 1], 1)):
        m, x = model([node("MaxPool", ["x"], kernel_shape=kernel, strides=stride, pads=pads, ceil_mode=ceil)], {"x": (T.FLOAT, [1, 3, 31, 26])}), normal(1, 3, 31, 26)
        check(np.array_equal(burin.compile(m).run({"x": x})[0], reference(m, {"x": x})), f"MaxPool {kernel} {stride} {pads} {ceil}")
    for x in (np.tile(np.float32([3, -0.0, 0.0, 1, 3, -np.inf, np.inf, -5]), 50), rng.integers(-9, 9, 700), rng.integers(0, 2, 90) > 0,
              np.array([2**63 + 1, 5, 2**63], np.uint64), np.zeros(0, np.float32)):
        kind = {"f": T.FLOAT, "i": T.INT64, "b": T.BOOL, "u": T.UINT64}[x.dtype.kind]
        for place, want in enumerate(np.unique(x, True, True, True)):
            outputs = ["y" if k == place else f"o{k}" for k in range(4)]
            m = model([node("Unique", ["x"], outputs=outputs)], {"x": (kind, [x.size])}, output=T.INT64 if place else kind)
            got = burin.compile(m).run({"x": x})[0]
            check(np.array_equal(got, want), f"Unique {x.dtype} output {place}")


# ---- what inspect counts ------------------------------------------------------------------------
def inspect(m):
    return json.loads(command(m, "inspect", "--json"))


def lstm(seq, batch, inputs, hidden):
    return model([node("LSTM", ["x", "w", "r"], hidden_size=hidden)], {"x": (T.FLOAT, [seq, batch, inputs])},
                 dict(w=normal(1, 4 * hidden, inputs), r=normal(1, 4 * hidden, hidden)))


def formulas():
    """Title, model of sizes, sizes, multiply-adds of them."""
    one = lambda op, dims, constants=None, **attrs: lambda **s: model(
        [node(op, ["x", *(constants or {})], **attrs)], {"x": (T.FLOAT, [s.get(d, d) for d in dims])}, constants)
    w4, vec = normal(8, 6, 3, 5), lambda n: normal(n)
    yield "Conv", one("Conv", ["n", 6, "h", 20], {"w": w4}, pads=[1, 2, 1, 2]), dict(n=2, h=17), lambda n, h: n * 8 * h * 20 * 6 * 3 * 5
    yield "Conv, groups", one("Conv", ["n", 12, 9, 9], {"w": normal(8, 6, 3, 3)}, group=2), dict(n=3), lambda n: n * 8 * 49 * 6 * 9
    yield "MatMul", one("MatMul", ["b", "m", 30], {"w": normal(30, 7)}), dict(b=2, m=5), lambda b, m: b * m * 30 * 7
    yield "Gemm", one("Gemm", ["m", 30], {"w": normal(30, 7), "c": vec(7)}), dict(m=5), lambda m: m * 30 * 7
    yield "AveragePool", one("AveragePool", ["n", 4, 10, 12], kernel_shape=[3, 2]), dict(n=3), lambda n: n * 4 * 8 * 11 * 6
    yield "MaxPool", one("MaxPool", ["n", 4, 10, 12], kernel_shape=[3, 2]), dict(n=3), lambda n: 0 * n
    yield "GlobalAveragePool", one("GlobalAveragePool", ["n", 4, "h", 12]), dict(n=3, h=5), lambda n, h: n * 4 * h * 12
    yield "LayerNormalization", one("LayerNormalization", ["n", 9, 32], {"s": vec(32), "b": vec(32)}), dict(n=4), lambda n: 2 * n * 9 * 32
    yield "InstanceNormalization", one("InstanceNormalization", ["n", 8, "h", 5], {"s": vec(8), "b": vec(8)}), dict(n=4, h=6), lambda n, h: 2 * n * 8 * h * 5
    yield "Softmax", one("Softmax", ["n", 9, 32]), dict(n=4), lambda n: n * 9 * 32
    yield "LogSoftmax", one("LogSoftmax", ["n", "k"], axis=1), dict(n=4, k=11), lambda n, k: n * k
    yield "ReduceMean", one("ReduceMean", ["n", 9, "k"], {"a": np.array([1, 2])}), dict(n=4, k=11), lambda n, k: n * 9 * k
    yield "ReduceMax", one("ReduceMax", ["n", 9], {"a": np.array([1])}), dict(n=4), lambda n: 0 * n
    yield "CumSum", one("CumSum", ["n", "k"], {"a": np.int64(1)}), dict(n=4, k=300), lambda n, k: n * k
    yield "Add", one("Add", ["n", 9], {"c": vec(9)}), dict(n=4), lambda n: 0 * n
    yield "Resize", one("Resize", ["n", 2, 8, 8], {"r": vec(0), "s": np.float32([1, 1, 2, 2])}, mode="linear"), dict(n=2), lambda n: 0 * n
    yield "Einsum", lambda **s: model([node("Einsum", ["x", "w"], equation="bij,jk->bik")], {"x": (T.FLOAT, [s.get("b", "b"), 5, 6])}, dict(w=normal(6, 7))), \
        dict(b=3), lambda b: b * 5 * 6 * 7
    yield "LSTM", lambda **s: lstm(s.get("t", "t"), s.get("b", "b"), 5, 6), dict(t=7, b=2), lambda t, b: t * b * 24 * (5 + 6)
    att = lambda **s: model([node("MatMul", ["x", "kt"], outputs=["s"]), node("Softmax", ["s"], outputs=["p"]), node("MatMul", ["p", "v"])],
                            {"x": (T.FLOAT, [s.get("n", "n"), 16])}, dict(kt=normal(16, 40), v=normal(40, 16)))
    yield "attention by hand", att, dict(n=9), lambda n: n * 40 * 16 * 2 + n * 40


def test_counts():
    for title, make, sizes, formula in formulas():
        got = inspect(make(**sizes))["multiply_adds"]
        check(got == formula(**sizes), f"count of {title}", f"{got}, not {formula(**sizes)}")
        text = inspect(make())["multiply_adds"]
        try:
            value = eval(str(text), {"__builtins__": {}, "max": max, "min": min, "floordiv": lambda a, b: a // b}, dict(sizes))
        except Exception as e:
            value = repr(e)
        check(value == formula(**sizes), f"count of {title}, symbolic", f"{text} is {value}, not {formula(**sizes)}")


def main():
    for test in (test_constants, test_scans, test_transforms, test_detection, test_groups, test_forms, test_counts):
        try:
            test()
        except Exception as e:  # one broken test must not hide the others
            check(False, test.__name__, repr(e)[-600:])
    print(f"{results['passed']} passed, {results['failed']} failed, 0 skipped")
    return results["failed"] == 0


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
