#!/usr/bin/env python3
"""Part "quantized": integer convolutions and products against an oracle in integers, bit for bit.

run_quantized.py [--seed S] [--count N] [--target T] [--verbose]: ConvInteger, QLinearConv, MatMulInteger and QLinearMatMul
of random and of chosen shapes, compiled at -O3 (as products of integers, or of floats where these are exact), by turns at
-O0 (the operator as it is defined) and for other targets, some under qemu: all must give the oracle's bits. Chosen cases have
weights so large, and contractions so long, that sums leave what floats, or 32 bits, hold. Then what lies between such
products, against the same model without passes (byte_cases), and bytes in rings between convolutions (chains).
"""
import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np
from onnx import helper, numpy_helper

import burin
from tests.support import turns
from tests.support.byte_cases import byte_cases
from tests.support.template_cases import conv

LIMITS = {np.dtype("uint8"): (0, 255), np.dtype("int8"): (-128, 127)}


class Case:
    """One node. spread: largest |weight - zero point|, about; zero: zero point of x or None for a random one."""

    def __init__(self, rng, op, x, w, xt="uint8", wt="int8", lanes=False, bias=None, spread=255, constant=True, const_zero=True,
                 full=False, symbolic=False, **attrs):
        self.op, self.attrs, self.w_shape = op, attrs, w
        self.feeds, self.constants = {}, {}
        self.symbolic = symbolic  # the first size of x
        self.is_conv, self.quantized = "Conv" in op, op.startswith("QLinear")
        xt, wt = np.dtype(xt), np.dtype(wt)
        draw = lambda t, shape=(): rng.integers(*LIMITS[t], endpoint=True, size=shape).astype(t)
        self.x = np.full(x, LIMITS[xt][1], xt) if full else draw(xt, x)
        n = w[0] if self.is_conv else w[-1]
        self.xz = np.array(LIMITS[xt][0], xt) if full else draw(xt)
        self.wz = np.array(LIMITS[wt][0], wt) if full else draw(wt, (n,) if lanes else ())
        wide = self.wz.reshape(-1, *[1] * (len(w) - 1)) if self.is_conv else self.wz
        near = wide.astype(np.int64) + (np.full(w, spread) if full else rng.integers(-spread, spread, endpoint=True, size=w))
        self.w = np.clip(near, *LIMITS[wt]).astype(wt)
        self.bias = None if bias is None else rng.integers(-bias, bias, endpoint=True, size=n).astype(np.int32)
        acc = self.sums()
        top = max(1.0, np.abs(acc.astype(np.float64)).max() if acc.size else 1)
        self.sx, self.sy = np.float32(rng.uniform(0.01, 0.1)), np.float32(rng.uniform(0.01, 0.1))
        self.sw = (rng.uniform(0.3, 1.5, (n,) if lanes else ()) * 100 / top * self.sy / self.sx).astype(np.float32)
        self.yz = draw(xt)
        if self.quantized:
            names = {"x": self.x, "sx": self.sx, "xz": self.xz, "w": self.w, "sw": self.sw, "wz": self.wz, "sy": self.sy, "yz": self.yz}
            if self.bias is not None:
                names["bias"] = self.bias
        else:
            names = {"x": self.x, "w": self.w, "xz": self.xz, "wz": self.wz}
        fed = {"x"} | (set() if constant else {"w"}) | (set() if const_zero else {"xz"})
        for name, a in names.items():
            (self.feeds if name in fed else self.constants)[name] = np.asarray(a)
        self.names = list(names)
        self.title = f"{op} {x} {w} {xt}*{wt} lanes{lanes:d} bias {bias} spread {spread} const {constant:d}{const_zero:d} {attrs}"

    def sums(self):
        x = self.x.astype(np.float64) - self.xz
        wide = self.wz.reshape(-1, *[1] * (len(self.w_shape) - 1)) if self.is_conv else self.wz
        w = self.w.astype(np.float64) - wide
        if not self.is_conv:
            return (x @ w).astype(np.int64)
        n, a = x.ndim - 2, self.attrs
        y = conv(x, w, None if self.bias is None else self.bias.astype(np.float64), a.get("strides", [1] * n),
                 a.get("dilations", [1] * n), a.get("pads", [0] * 2 * n), a.get("group", 1))
        return y.astype(np.int64)

    def oracle(self):
        acc = self.sums().astype(np.int32)
        if not self.quantized:
            return acc
        scale = self.sx * self.sw / self.sy
        if self.is_conv and scale.ndim:
            scale = scale.reshape(-1, *[1] * (acc.ndim - 2))
        y = np.rint(acc.astype(np.float32) * scale) + self.yz.astype(np.float32)
        return np.clip(y, *LIMITS[self.yz.dtype]).astype(self.yz.dtype)

    def model(self):
        node = helper.make_node(self.op, self.names, ["y"], **self.attrs)
        value = lambda name, t, shape: helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(t), shape)
        shape = lambda k, a: ("n", *a.shape[1:]) if self.symbolic and k == "x" else a.shape
        inputs = [value(k, a.dtype, shape(k, a)) for k, a in self.feeds.items()]
        out = self.yz.dtype if self.quantized else np.dtype("int32")
        graph = helper.make_graph([node], "g", inputs, [value("y", out, None)],
                                  [numpy_helper.from_array(a, k) for k, a in self.constants.items()])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


def kind(rng):
    return dict(xt=pick(rng, ["uint8", "int8"]), wt=pick(rng, ["uint8", "int8"]), lanes=rng.random() < 0.5,
                spread=pick(rng, [3, 40, 255]), const_zero=rng.random() < 0.8)


def conv_case(rng):
    n = pick(rng, [1, 2, 2, 2, 3])
    k = [pick(rng, [1, 2, 3, 3, 5]) for _ in range(n)]
    group, c_in, c_out = 1, pick(rng, [1, 3, 8, 17, 32]), pick(rng, [1, 4, 8, 17, 33])
    shape = rng.random()
    if shape < 0.2:
        group = c_in = c_out = pick(rng, [2, 8, 17, 33])
    elif shape < 0.4:
        group = pick(rng, [2, 3])
        c_in, c_out = group * pick(rng, [1, 4, 5, 8]), group * pick(rng, [1, 4, 9])
    q = pick(rng, ["QLinearConv", "QLinearConv", "ConvInteger"])
    bias = pick(rng, [None, 1000, 2**30]) if q == "QLinearConv" else None
    size = [int(rng.integers(5, {1: 40, 2: 16, 3: 8}[n])) for _ in range(n)]
    return Case(rng, q, (pick(rng, [1, 2]), c_in, *size), (c_out, c_in // group, *k), bias=bias, group=group,
                pads=[int(rng.integers(0, r)) for _ in range(2) for r in k], strides=[pick(rng, [1, 1, 2])] * n,
                dilations=[pick(rng, [1, 1, 2]) if s > 8 else 1 for s in size], symbolic=rng.random() < 0.3, **kind(rng))


def matmul_case(rng):
    q = pick(rng, ["QLinearMatMul", "MatMulInteger"])
    m, k, n = (pick(rng, [1, 2, 7, 16, 33, 100]) for _ in range(3))
    batch = pick(rng, [(), (), (2,), (3, 2)])
    const = rng.random() < 0.7
    more = kind(rng)
    if not const:
        more["lanes"] = False
    over = batch if rng.random() < 0.4 else ()
    return Case(rng, q, (*batch, m, k), (*over, k, n), constant=const, symbolic=not over and rng.random() < 0.3, **more)


def grouped_cases(rng):
    """Depthwise, and groups of few channels: operand types, borders of a zero point at either end, kernels, strides, dilations."""
    for i, (xt, wt) in enumerate(itertools.product(["uint8", "int8"], repeat=2)):
        deep = dict(xt=xt, wt=wt, spread=120, group=19)
        yield Case(rng, "ConvInteger", (2, 19, 11, 15), (19, 1, 3, 3), pads=[1, 2, 1, 0], strides=[1 + i % 2] * 2, **deep)
        yield Case(rng, "QLinearConv", (1, 19, 40), (19, 1, 5), pads=[4, 3], dilations=[2], lanes=True, bias=1000, **deep)
        yield Case(rng, "ConvInteger", (1, 19, 5, 6, 7), (19, 1, 2, 3, 3), pads=[1] * 6, symbolic=i == 1, **deep)
        yield Case(rng, "ConvInteger", (1, 18, 9, 9), (36, 1, 3, 3), xt, wt, pads=[1] * 4, group=18, spread=120)  # a multiplier
        for c_in, c_out, group in ((32, 32, 8), (15, 20, 5), (9, 6, 3), (14, 28, 2)):
            yield Case(rng, pick(rng, ["ConvInteger", "QLinearConv"]), (1, c_in, 8, 9), (c_out, c_in // group, 3, 3), xt, wt, group=group,
                       pads=[0, 1, 2, 1], spread=120, const_zero=i != 2)
        full = dict(xt=xt, wt=wt, full=True, pads=[1] * 4, group=16)  # every product as large as it can be
        yield Case(rng, "ConvInteger", (1, 16, 9, 9), (16, 1, 3, 3), **full)
        yield Case(rng, "ConvInteger", (1, 16, 30, 30), (16, 1, 17, 17), **full)


def fixed_cases(rng):
    yield Case(rng, "QLinearConv", (1, 64, 16, 16), (64, 64, 3, 3), spread=20, lanes=True, bias=5000, pads=[1] * 4)  # no Winograd
    yield Case(rng, "QLinearConv", (1, 512, 6, 6), (16, 512, 3, 3), bias=5000, pads=[1] * 4)  # in parts
    yield Case(rng, "ConvInteger", (1, 600, 3, 3), (5, 600, 3, 3), full=True)
    yield Case(rng, "QLinearConv", (1, 8, 30, 30), (8, 1, 17, 17), full=True, wt="uint8", group=8)  # too much, and no parts
    yield Case(rng, "QLinearConv", (1, 8, 9, 9), (8, 1, 3, 3), group=8, bias=2**24, pads=[1] * 4, lanes=True)  # bias too large
    yield Case(rng, "MatMulInteger", (3, 258), (258, 5), full=True, wt="uint8")  # the last that are exact
    yield Case(rng, "MatMulInteger", (3, 259), (259, 5), full=True, wt="uint8")  # the first that are not
    yield Case(rng, "MatMulInteger", (3, 259), (259, 5), full=True, wt="uint8", constant=False)
    yield Case(rng, "QLinearMatMul", (2, 5, 3000), (3000, 17), lanes=True)
    yield Case(rng, "MatMulInteger", (2, 9000), (9000, 3), full=True)  # more parts than are made
    yield Case(rng, "QLinearMatMul", (4, 33, 64), (4, 64, 33), constant=False)
    for xt, wt in itertools.product(["uint8", "int8"], repeat=2):  # sums beyond 32 bits wrap; groups of k and columns with a rest
        yield Case(rng, "MatMulInteger", (3, 40001), (40001, 2), xt, wt, full=True, constant=xt == wt)
        yield Case(rng, "MatMulInteger", (13, 1), (1, 3), xt, wt, constant=xt != wt)
        yield Case(rng, "ConvInteger", (2, 12, 9, 9), (9, 4, 3, 3), xt, wt, spread=100, group=3, pads=[1, 2, 0, 1])
        yield Case(rng, "ConvInteger", (1, 7, 9, 9), (40, 7, 3, 3), xt, wt, spread=100, symbolic=True, const_zero=False, pads=[1] * 4)
    yield from grouped_cases(rng)
    yield Case(rng, "QLinearMatMul", (64,), (64, 33))
    yield Case(rng, "QLinearMatMul", (5, 64), (64,))


def wrong(case, target, level):
    """What is wrong, or None."""
    want = case.oracle()
    got, bad = turns.output(case, target, level)
    if bad:
        return bad
    if got.dtype != want.dtype or got.shape != want.shape or not np.array_equal(got, want):
        return f"{got.dtype}{got.shape}, {int(np.sum(got != want)) if got.shape == want.shape else '?'} of {want.size} differ"
    return None


def instructions():
    """What is wrong: the products of a MatMulInteger are sums of pairs in one instruction, and never ones that saturate."""
    case, bad = Case(np.random.default_rng(0), "MatMulInteger", (32, 64), (64, 64), lanes=True, spread=90), []
    expected = {"x86-64-v2": "pmaddwd", "x86-64-v3": "vpmaddwd", "x86-64-v4": "vpmaddwd"}
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder)
        (path / "m.onnx").write_bytes(case.model().SerializeToString())
        for target, name in expected.items():
            command = [burin.compiler(), "compile", path / "m.onnx", "-o", path / "m.s", "--emit=asm", f"--target={target}"]
            subprocess.run(command, check=True, capture_output=True)
            text = (path / "m.s").read_text()
            if (name and not re.search(rf"\s{name}\s", text)) or "maddubs" in text:
                bad.append(f"{target}: no {name} in the code, or one that saturates")
    return bad


def short_rows():
    """What is wrong with rows of few channels and the taps of a line, which targets without dot products multiply, and how many runs."""
    rng, bad, runs = np.random.default_rng(0), [], 0
    emulated = [t for t in turns.EMULATED if not turns.targets.missing(t)]
    cases = [Case(rng, "ConvInteger", (1, 3, 23, 19), (20, 3, 7, 7), wt="uint8", pads=[3] * 4, strides=[2, 2]),
             Case(rng, "QLinearConv", (2, 5, 13, 12), (17, 5, 2, 3), "int8", pads=[1, 0, 1, 1], lanes=True, bias=1000),
             Case(rng, "ConvInteger", (1, 7, 9, 40), (20, 7, 3, 5), full=True, symbolic=True, dilations=[2, 1]),
             Case(rng, "ConvInteger", (1, 3, 6, 7, 9), (8, 3, 3, 2, 5), const_zero=False, pads=[1] * 6)]
    for k, case in enumerate(cases):
        for target in emulated[k % 2:] if k < 2 else emulated[:1]:
            bad += [] if np.array_equal(turns.run_program(case, target), case.oracle()) else [f"{target}, rows of taps: {case.title} differs"]
            runs += 1
    return bad, runs


def winograd_case(rng, xt, c_in, c_out, size, pads, zero, xs, ws, wt="int8"):
    """ConvInteger; x and weights random, of the values xs and ws, or a given array."""
    case = Case(rng, "ConvInteger", (1 + c_in % 3 // 2, c_in, *size), (c_out, c_in, *[1] * (len(size) - 2), 3, 3), xt, wt, pads=pads)
    values = lambda v, a: a if v is None else v.astype(a.dtype) if isinstance(v, np.ndarray) else rng.choice(v, a.shape).astype(a.dtype)
    case.x, case.w, case.xz, case.wz = values(xs, case.x), values(ws, case.w), np.array(zero, xt), np.array(0, wt)
    case.feeds["x"] = case.x
    case.constants.update(w=case.w, xz=case.xz, wz=case.wz)
    return case


def winograd_cases(rng):
    """A case, a Winograd form, and whether its bounds allow that form: others are computed without."""
    total = lambda up: np.resize(np.r_[np.full(up % 1044, up // 1044 + 1), np.full(1044 - up % 1044, up // 1044)], (9, 116, 3, 3))
    ends = {"uint8": (0, 255), "int8": (-128, 127)}
    for m in (2, 4):
        for xt, (lo, hi) in ends.items():  # sizes that tiles do not divide, borders of zero points at both ends
            yield winograd_case(rng, xt, 64, 20, (13, 18), [1] * 4, hi, None, None), m, True
            yield winograd_case(rng, xt, 10, 33, (9, 8), [2, 0, 1, 1], lo, (lo, hi), (-128, 127)), m, True
    yield winograd_case(rng, "uint8", 116, 9, (8, 9), [0] * 4, 0, (255,), total(131586)), 4, True  # sums up to 2^25 - 2
    yield winograd_case(rng, "uint8", 116, 9, (8, 9), [0] * 4, 0, (255,), total(131587)), 4, False
    yield winograd_case(rng, "uint8", 116, 9, (8, 9), [0] * 4, 0, (255,), total(131587)), 2, True
    yield winograd_case(rng, "int8", 116, 9, (8, 9), [1] * 4, 0, (-128,), -total(132587)), 4, True
    yield winograd_case(rng, "uint8", 12, 9, (12, 12), [1] * 4, 7, None, (0, 227), "uint8"), 4, True  # 16 bits hold 144 * 227
    yield winograd_case(rng, "uint8", 12, 9, (12, 12), [1] * 4, 7, None, (0, 228), "uint8"), 4, False
    yield winograd_case(rng, "uint8", 11, 16, (12, 12), [1] * 4, 7, None, None), 4, False  # channels are multiplied in pairs


def winograd(turn):
    """What is wrong with Winograd forms of integers, and how many runs there were; all of them for the targets of a turn."""
    bad, runs = [], 0
    emulated = [t for t in turns.EMULATED if not turns.targets.missing(t)]
    for k, (case, m, fits) in enumerate(winograd_cases(np.random.default_rng(0))):
        flags = [f"--winograd={m}", "--target=x86-64-v3"]
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            (Path(folder) / "m.onnx").write_bytes(case.model().SerializeToString())
            command = [burin.compiler(), "compile", Path(folder) / "m.onnx", "-o", "-", "--emit=graph", *flags]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        bad += [] if (f"plan=winograd{m}" in text) == fits else [f"winograd{m} {'is not' if fits else 'is'} the plan of {case.title}"]
        for target in [turn] if turn else ["x86-64-v3", ["x86-64-v2", "native", *emulated][k % (2 + len(emulated))]]:
            got = (turns.run_program(case, target, flags[:1]) if target in turns.EMULATED else
                   burin.compile(case.model(), target=target, flags=flags[:1]).run(case.feeds)[0])
            bad += [] if np.array_equal(got, case.oracle()) else [f"{target}, winograd{m}: {case.title} differs"]
            runs += 2
    return bad, runs


def between_products(targets):
    """What is wrong with operators between DequantizeLinear and QuantizeLinear (byte_cases), and how many runs there were."""
    bad, runs = [], 0
    for title, model, feeds, want in byte_cases(np.random.default_rng(0)):
        want = burin.compile(model, flags=["-O0"]).run(feeds) if want is None else want
        for target in targets:
            got = burin.compile(model, target=target).run(feeds)
            same = [a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b) for a, b in zip(got, want, strict=True)]
            bad += [] if all(same) else [f"{target}, {title}: results {[k for k, ok in enumerate(same) if not ok]} differ"]
            runs += 1
    return bad, runs


def chain_model(rng):
    """Pointwise and depthwise QLinearConv in turns, and a 3x3: what lies between them may stay in rings."""
    init, nodes = [], []
    def constant(a):
        init.append(numpy_helper.from_array(np.asarray(a), f"c{len(init)}"))
        return init[-1].name
    channels, zero, name = int(pick(rng, [3, 8, 12, 13])), int(rng.integers(256)), "x"
    shape = (int(rng.integers(1, 3)), channels, *map(int, rng.integers(5, 30, 2)))
    for i in range(int(rng.integers(2, 6))):
        deep = i % 2
        k, out, after = 3 if deep else int(pick(rng, [1, 1, 3])), channels if deep else int(pick(rng, [8, 16, 20, 33])), int(rng.integers(256))
        w = rng.integers(-127, 128, (out, 1 if deep else channels, k, k)).astype(np.int8)
        step = np.float32(73 * 60 * np.sqrt(w[0].size) / 64)  # of y, as x and w have 1
        one = constant(np.float32(1))
        ins = [name, one, constant(np.uint8(zero)), constant(w), one, constant(np.int8(0)), constant(step), constant(np.uint8(after))]
        attrs = {"pads": [k // 2] * 4, "group": channels if deep else 1, "strides": [int(pick(rng, [1, 1, 2])) if k > 1 else 1] * 2}
        nodes.append(helper.make_node("QLinearConv", [*ins, constant(rng.integers(-5000, 5000, out).astype(np.int32))], [f"v{i}"], **attrs))
        name, zero, channels = f"v{i}", after, out
    graph = helper.make_graph(nodes, "chain", [helper.make_tensor_value_info("x", 2, shape)], [helper.make_tensor_value_info(name, 2, None)], init)
    x = rng.integers(256, size=shape).astype(np.uint8)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), {"x": x}


def chains(targets, count=6):
    """What is wrong with bytes between the convolutions of a strip (against the operators as they are defined), and how many runs there were."""
    rng, bad, runs, planned = np.random.default_rng(0), [], 0, 0
    for k in range(count):
        model, feeds = chain_model(rng)
        want = burin.compile(model, flags=["-O0"]).run(feeds)[0]
        for target in targets:
            got = burin.compile(model, target=target, flags=["--strips=all"]).run(feeds)[0]
            bad += [] if np.array_equal(got, want) else [f"{target}, chain {k}: {int(np.sum(got != want))} of {want.size} differ"]
            runs += 1
        bad += [] if len(np.unique(want)) > 20 else [f"chain {k}: a result of few values shows nothing"]
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            path = Path(folder, "m.onnx")
            path.write_bytes(model.SerializeToString())
            command = [burin.compiler(), "compile", path, "-o", "-", "--emit=graph", "--strips=all"]
            planned += "chain=" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return bad + ([] if planned > count // 2 else [f"{planned} of {count} chains are strips"]), runs


def main():
    args = turns.arguments()
    rng = np.random.default_rng(args.seed)
    cases = [*fixed_cases(rng), *(pick(rng, [conv_case, conv_case, matmul_case])(rng) for _ in range(args.count))]
    targets = [args.target] if args.target else ["native", "x86-64-v2"]
    (bad, runs), (more, strips) = between_products(targets), chains([*targets[:1], *([] if args.target else ["x86-64-v3"])])
    (forms, transformed), (rows, short) = winograd(args.target), ([], 0) if args.target else short_rows()
    return turns.run_cases(cases, wrong, args, [*bad, *more, *forms, *rows, *instructions()], runs + strips + transformed + short + 3)


if __name__ == "__main__":
    sys.exit(main())
