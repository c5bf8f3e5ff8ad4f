#!/usr/bin/env python3
"""Part "arena": small models whose results hang on what lies in memory between the kernels, and when.

run_arena.py [--only REGEX] [--flags "..."] [--random N] [--seed S] [--verbose]: pieces of Concats that convolutions read before the whole is there,
sizes that are found while the model runs and used in shapes alone, sums inside of scatters, lines whose length is a
multiple of a symbol, dilations wider than the image. Each is compiled, run with several sizes (twice: $BURIN_CHECK_MEMORY),
compared with ONNX Runtime, and run in the interpreter, which follows who wrote each byte. Then random ones
(random_arena.py): a long run is a fuzzer. Last, models on threads that are delayed at random: the same bits as on one.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]
os.environ["BURIN_CHECK_MEMORY"] = "1"

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort

import burin
from tests.memory.random_arena import conv_net, found_net

LEVELS = [("native", []), ("native", ["-O0"]), ("x86-64-v3", ["-O2", "--strips=all", "--winograd=off"])]


class Net:
    """A graph in the text form of ONNX, with its sizes and inputs."""

    def __init__(self, name, **sizes):
        self.name, self.sizes = name, sizes  # {symbol: values, one for each run}
        self.inputs, self.lines, self.outputs, self.weights, self.n = [], [], [], [], 0
        self.slack, self.rng = 1e-4, np.random.default_rng(len(name))
        self.heavy = False  # not worth a run without optimization

    def input(self, shape, kind="float"):
        self.inputs.append((f"x{len(self.inputs)}", kind, shape.split(",")))
        return self.inputs[-1][0]

    def weight(self, *shape, values=None):
        name = f"w{len(self.weights)}"
        w = self.rng.standard_normal(shape) / max(1, np.prod(shape[1:])) ** 0.5 if values is None else np.asarray(values)
        self.weights.append(onnx.numpy_helper.from_array(w.astype(np.float32 if values is None else w.dtype), name))
        return name

    def ints(self, *values):
        return self.weight(values=np.array(values, np.int64))

    def op(self, call, n_out=1):
        outs = [f"v{self.n + k}" for k in range(n_out)]
        self.n += n_out
        self.lines.append(f"{', '.join(outs)} = {call}")
        return outs[0] if n_out == 1 else outs

    def conv(self, x, c_in, c_out, k=3, rank=2, dilation=1, stride=1, group=1, pad=None, act="Relu"):
        pad = dilation * (k - 1) // 2 if pad is None else pad
        w = self.weight(c_out, c_in // group, *[k] * rank)
        attrs = f"pads={[pad] * 2 * rank}, dilations={[dilation] * rank}, strides={[stride] * rank}, group={group}"
        y = self.op(f"Conv<{attrs}>({x}, {w})")
        return self.op(f"{act}({y})") if act else y

    def output(self, name, kind="float"):
        self.outputs.append((name, kind))
        return self

    def model(self):
        ins = ", ".join(f"{k}[{','.join(d)}] {n}" if d != [""] else f"{k} {n}" for n, k, d in self.inputs)
        outs = ", ".join(f"{k} {n}" for n, k in self.outputs)
        text = '<ir_version: 10, opset_import: ["" : 21]>\ng (%s) => (%s) { %s }' % (ins, outs, " ".join(self.lines))
        m = onnx.parser.parse_model(text)
        for o in m.graph.output:
            o.type.tensor_type.ClearField("shape")
        m.graph.initializer.extend(self.weights)
        return m

    def feeds(self, run):
        rng = np.random.default_rng(run + 1)
        out = {}
        for name, kind, dims in self.inputs:
            shape = [self.sizes[d][run] if d in self.sizes else int(d) for d in dims if d]
            if kind == "bool":
                out[name] = np.asarray(rng.random(shape) < [0.4, 1.1, -1][run % 3])
            elif kind == "int64":
                out[name] = rng.integers(0, 3, shape)
            else:
                out[name] = (rng.standard_normal(shape) * (rng.random(shape) < 0.7)).astype(np.float32)
        return out


# ---- pieces of Concats --------------------------------------------------------------------------

def unet(name, depth, channels, **sizes):
    n = Net(name, **sizes)
    x, skips, c = n.input("1,3,h,w" if sizes else "1,3,32,32"), [], 3
    for d in range(depth):
        x = n.conv(n.conv(x, c, channels << d), channels << d, channels << d)
        skips.append(x)
        x, c = n.op(f"MaxPool<kernel_shape=[2,2], strides=[2,2]>({x})"), channels << d
    x = n.conv(x, c, 2 * c)
    for d in reversed(range(depth)):
        c = channels << d
        up = n.op(f"ConvTranspose<strides=[2,2]>({x}, {n.weight(2 * c, c, 2, 2)})")
        x = n.conv(n.conv(n.op(f"Concat<axis=1>({skips[d]}, {up})"), 2 * c, c), c, c)
    return n.output(n.conv(x, channels, 2, k=1, act=None))


def ghost(name, body=None, **sizes):
    """A convolution, a cheap one of its result, both joined: the second reads the first in its slice."""
    n = Net(name, **sizes)
    x = n.input("1,8,h,w" if sizes else "1,8,12,12")
    for _ in range(3):
        a = n.conv(x, 8 if x == "x0" else 32, 16, k=1)
        b = n.conv(a, 16, 16, group=16)
        x = n.op(f"Concat<axis=1>({a}, {b})")
    return n.output(n.conv(x, 32, 8))


def dense(name, nested):
    """Each layer reads all before it; nested: Concats of Concats."""
    n = Net(name)
    x = n.input("1,16,10,14")
    whole, parts, c = n.conv(x, 16, 16), [], 16
    parts.append(whole)
    for _ in range(4):
        y = n.conv(whole, c, 8)
        parts.append(y)
        whole = n.op(f"Concat<axis=1>({whole}, {y})" if nested else f"Concat<axis=1>({', '.join(parts)})")
        c += 8
    return n.output(n.conv(whole, c, 4))


def along(name, axis, rank=2):
    n = Net(name)
    x = n.input("1,8," + ("9,11" if rank == 2 else "23"))
    a = n.conv(x, 8, 8, rank=rank)
    b = n.conv(a, 8, 8, rank=rank)
    return n.output(n.conv(n.op(f"Concat<axis={axis}>({a}, {b}, {a})"), 24 if axis == 1 else 8, 8, k=5, rank=rank))


def viewed(name):
    n = Net(name)
    x = n.input("1,16,8,8")
    a = n.conv(x, 16, 16)
    flat = n.op(f"Reshape({a}, {n.ints(1, 16, 64)})")
    t = n.op(f"Softmax<axis=1>({flat})")
    back = n.op(f"Reshape({t}, {n.ints(1, 16, 8, 8)})")
    b = n.conv(a, 16, 16)
    return n.output(n.conv(n.op(f"Concat<axis=1>({a}, {back}, {b})"), 48, 8))


def inside(name, kind):
    """The same in the body of an If or Loop."""
    n = Net(name)
    x = n.input("1,8,10,10")
    w = [n.weight(8, 8, 3, 3), n.weight(8, 8, 3, 3), n.weight(8, 16, 3, 3)]
    conv = "Conv<pads=[1,1,1,1]>"
    body = (f"a = {conv}(%s, {w[0]}) r = Relu(a) b = {conv}(r, {w[1]}) s = Relu(b) c = Concat<axis=1>(r, s) "
            f"d = {conv}(c, {w[2]}) e = Tanh(d)")
    if kind == "if":
        c = n.input("", "bool")
        n.op(f"If({c}) <then_branch = t () => (float e) {{ {body % x} }}, else_branch = f () => (float g) {{ g = Neg({x}) }}>")
    else:
        trips = n.ints(3)
        loop = f"(int64 i, bool k, float[1,8,10,10] z) => (bool l, float e) {{ l = Identity(k) {body % 'z'} }}"
        n.op(f'Loop({trips}, , {x}) <body = b {loop}>')
    return n.output("v0")


# ---- sizes that are found while the model runs ----------------------------------------------------

def found(name, lines, out, kind="float", inputs=("float x[n]",), n=(7, 5, 3)):
    net = Net(name, n=n, m=(4, 1, 6))
    for i in inputs:
        kind_in, _, dims = re.match(r"(\w+) (\w+)\[(.*)\]", i).groups()
        net.input(dims, kind_in)
    net.lines = list(lines)
    return net.output(out, kind)


def found_nets():
    one = "one = Constant<value_ints=[1]>()"
    zero = "zero = Constant<value_int=0>()"
    yield found("shape_of_nonzero", ["i = NonZero(x0)", "y = Shape(i)"], "y", "int64")
    yield found("count_of_compress", ["c = Compress(x1, x0)", "s = Size(c)", "f = Cast<to=1>(s)", "y = Div(x1, f)"], "y",
                inputs=("bool x[n]", "float x[n]"), n=(7, 5, 3))
    yield found("shape_of_unique", ["u = Unique(x0)", "y = Shape(u)"], "y", "int64", inputs=("int64 x[n]",))
    yield found("masked_mean", ["i = NonZero(x0)", zero, "g = Gather<axis=0>(x1, i)", "t = ReduceSum<keepdims=0>(g)", "s = Shape(i)", one,
                                "k = Gather(s, one)", "f = Cast<to=1>(k)", "y = Div(t, f)"], "y", inputs=("bool x[n]", "float x[n]"))
    yield found("expand_to_found", ["i = NonZero(x0)", "s = Shape(i)", "z = Constant<value_float=2.0>()", "e = Expand(z, s)", "y = Add(e, e)"], "y")
    yield found("tile_found", [one, "i = NonZero(x0)", "s = Shape(i)", "k = Gather(s, one)", "y = Tile(x1, k)"], "y",
                inputs=("float x[n]", "float x[m]"))
    yield found("range_found", ["c = Compress(x1, x0)", "s = Size(c)", zero, "d = Constant<value_int=1>()", "y = Range(zero, s, d)"], "y", "int64",
                inputs=("bool x[n]", "float x[n]"))
    yield found("loop_count", ["t = Constant<value = bool {1}>()", zero, "i = NonZero(x0)", "s = Size(i)",
                               "a = Loop(s, t, zero) <body = b (int64 k, bool c, int64 z) => (bool d, int64 e) { d = Identity(c) e = Add(z, k) }>"],
                "a", "int64")
    yield found("scan_count", ["i = NonZero(x0)", "s = Size(i)",
                               "t = Constant<value = bool {1}>()", "a = Loop(s, t) <body = b (int64 k, bool c) => (bool d, int64 e) { d = Identity(c) e = Mul(k, k) }>", "y = Shape(a)"],
                "y", "int64")
    yield found("if_count", ["i = NonZero(x0)", "s = Shape(i)", "c = ReduceMax<keepdims=0>(x0)", zero, "f = Cast<to=1>(zero)", "b = Greater(c, f)",
                             "y = If(b) <then_branch = t () => (int64 p) { p = Neg(s) }, else_branch = e () => (int64 q) { q = Identity(s) }>"],
                "y", "int64")
    # a piece that is computed before the size of the piece in front of it is known
    yield found("late_offset", ["r = Tanh(x1)", "i = NonZero(x0)", "f = Cast<to=1>(i)", "l = Flatten<axis=2>(f)", "t = Transpose(l)",
                                "s = Constant<value_ints=[-1]>()", "u = Reshape(t, s)", "y = Concat<axis=0>(u, r)"], "y",
                inputs=("float x[n]", "float x[m]"))
    yield found("late_stride", ["r = Tanh(x1)", "i = NonZero(x0)", "f = Cast<to=1>(i)", "e = Exp(f)", "g = Concat<axis=0>(e, e)", "y = Concat<axis=1>(r, g)"], "y",
                inputs=("float x[n]", "float x[2,m]"))
    yield found("late_rest", ["i = NonZero(x0)", "s = Size(i)", "z = Size(x0)", "d = Sub(z, s)", one, "k = Reshape(s, one)", "l = Reshape(d, one)",
                              "p = Concat<axis=0>(k, l)", "a, b = Split<axis=0>(x0, p)", "y = Neg(b)"], "y")


# ---- sums inside of scatters -----------------------------------------------------------------------

def scatters():
    for reduction in ("none", "add", "max"):
        n = Net(f"scatter_{reduction}", n=(5, 1, 8))
        x, z = n.input("n,6"), n.input("9,6")
        norm = n.op(f"ReduceL2<keepdims=1>({x}, {n.ints(1)})")
        some = n.op(f"Max({norm}, {n.weight(values=np.float32([0.1]))})")
        u = n.op(f"Div({x}, {some})")
        if reduction == "none":  # indices that differ: the columns
            i = n.op(f"Expand({n.weight(values=np.int64([[3, 1, 5, 0, 2, 4]]))}, {n.op(f'Shape({x})')})")
            rows = n.op(f"Pad({u}, {n.ints(0, 0, 1, 0)})")
            more = n.op(f"Pad({i}, {n.ints(0, 0, 0, 0)})")
            n.output(n.op(f"ScatterElements<axis=1>({rows}, {more}, {u})"))
        else:
            i = n.input("n,6", "int64")
            n.output(n.op(f'ScatterElements<axis=0, reduction="{reduction}">({z}, {i}, {u})'))
            n.output(n.op(f'ScatterElements<axis=0, reduction="{reduction}">({z}, {i}, {n.op(f"Softmax<axis=1>({u})")})'))
        yield n
    n = Net("scatter_index_of_sum")
    x, z = n.input("4,6", "int64"), n.input("9,6")
    total = n.op(f"ReduceSum<keepdims=1>({x}, {n.ints(0)})")
    mean = n.op(f"ReduceMean<keepdims=1>({z}, {n.ints(0)})")
    yield n.output(n.op(f"ScatterElements<axis=0>({z}, {n.op(f'Mod({total}, {n.ints(9)})')}, {mean})"))
    n = Net("scatter_nd_of_sum", n=(5, 1, 8))
    x, z = n.input("n,6"), n.input("9,6")
    total = n.op(f"ReduceSum<keepdims=1>({x}, {n.ints(0)})")
    rows = n.op(f"Expand({total}, {n.ints(3, 6)})")
    yield n.output(n.op(f"ScatterND({z}, {n.weight(values=np.int64([[2], [0], [7]]))}, {rows})"))


# ---- lines of k*t pixels ------------------------------------------------------------------------------

def multiples(k):
    n = Net(f"multiple_{k}", t=(1, 2, 5))
    n.heavy = k not in (3, 16)
    x = n.input("1,16,t")
    wide = n.op(f"Tile({x}, {n.ints(1, 1, k)})")
    up = n.op(f"ConvTranspose<strides=[{k}], pads=[0,0]>({x}, {n.weight(16, 8, k)})")
    square = n.op(f"Reshape({wide}, {n.ints(1, 16, k, -1)})")
    rows = n.op(f"Reshape({wide}, {n.ints(-1, 16)})")
    for y in (n.conv(up, 8, 1, k=7, rank=1), n.conv(up, 8, 2, k=5, rank=1), n.conv(wide, 16, 1, k=7, rank=1, act="Tanh"), n.conv(wide, 16, 24, rank=1),
              n.conv(wide, 16, 16, rank=1, group=16), n.conv(square, 16, 16), n.conv(square, 16, 16, group=16), n.conv(square, 16, 3, k=5),
              n.conv(square, 16, 16, stride=2), n.op(f"MatMul({rows}, {n.weight(16, 24)})"), n.op(f"MatMul({n.op(f'Transpose({rows})')}, {rows})"),
              n.op(f"Softmax<axis=0>({rows})"), n.op(f"Transpose<perm=[0,2,1]>({wide})"),
              n.op(f"MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>({wide})"), n.op(f"CumSum({wide}, {n.weight(values=np.int64(2))})"),
              n.op(f"ReduceMean<keepdims=0>({wide}, {n.ints(2)})")):
        n.output(y)
    return n


# ---- dilations ------------------------------------------------------------------------------------------

def aspp(name, size, rates, c=16, rank=2, group=1, stride=1, pad=None, k=3):
    n = Net(name)
    n.heavy = True  # the taps are left out by a pass
    x = n.conv(n.input(f"1,{c}," + ",".join([str(size)] * rank)), c, c, k=1, rank=rank)
    for r in rates:
        n.output(n.conv(x, c, c, k=k, rank=rank, dilation=r, stride=stride, group=group, pad=pad))
    return n


def nets():
    yield unet("unet", 2, 8)
    yield unet("unet_sizes", 2, 8, h=(16, 4, 28), w=(8, 4, 20))
    yield unet("unet_deep", 3, 4)
    yield ghost("ghost")
    yield ghost("ghost_sizes", h=(5, 1, 9), w=(7, 2, 6))
    yield dense("dense", False)
    yield dense("dense_nested", True)
    for axis in (1, 2, 3):
        yield along(f"along_{axis}", axis)
    yield along("along_line", 2, rank=1)
    yield viewed("viewed")
    yield inside("in_if", "if")
    yield inside("in_loop", "loop")
    yield from found_nets()
    yield from scatters()
    for k in (2, 3, 4, 8, 16, 32, 48, 64):
        yield multiples(k)
    yield aspp("aspp_small", 4, (1, 2, 3, 4, 12, 36))
    yield aspp("aspp", 17, (6, 12, 18))
    yield aspp("aspp_deep", 9, (2, 12), group=16)
    yield aspp("aspp_groups", 7, (3, 9), group=4)
    yield aspp("aspp_line", 21, (5, 20, 40), rank=1)
    yield aspp("aspp_space", 5, (2, 7), c=8, rank=3)
    yield aspp("aspp_stride", 13, (4, 9), stride=2)
    yield aspp("aspp_wide_pad", 6, (3,), pad=11)
    yield aspp("aspp_five", 8, (3, 8), k=5)


# ---- delayed threads ------------------------------------------------------------------------------------

def images():
    n = Net("images")
    x = n.conv(n.input("1,8,72,72"), 8, 32)
    a = n.conv(n.conv(x, 32, 32, group=32), 32, 64, k=1)
    b = n.conv(x, 32, 64)
    x = n.op(f"MaxPool<kernel_shape=[2,2], strides=[2,2]>({n.op(f'Concat<axis=1>({a}, {b})')})")
    up = n.op(f"ConvTranspose<strides=[2,2]>({n.conv(x, 128, 64)}, {n.weight(64, 32, 2, 2)})")
    return n.output(n.conv(up, 32, 8, k=5)).output(n.op(f"GlobalAveragePool({x})"))


def tokens():
    n = Net("tokens")
    x = n.input("2,96,128")
    for _ in range(2):
        y = n.op(f"LayerNormalization({x}, {n.weight(128)}, {n.weight(128)})")
        q, k, v = (n.op(f"MatMul({y}, {n.weight(128, 128)})") for _ in range(3))
        p = n.op(f"Softmax({n.op(f'MatMul({q}, ' + n.op(f'Transpose<perm=[0,2,1]>({k})') + ')')})")
        x = n.op(f"Add({x}, {n.op(f'MatMul({p}, {v})')})")
        y = n.op(f"Gelu({n.op(f'MatMul({x}, {n.weight(128, 512)})')})")
        x = n.op(f"Add({x}, {n.op(f'MatMul({y}, {n.weight(512, 128)})')})")
    best, _ = n.op(f"TopK({x}, {n.ints(20)})", 2)
    return n.output(n.op(f"CumSum({x}, {n.ints(1)})")).output(n.op(f"ReduceMean({best}, {n.ints(1)})"))


def delayed(net, define, rounds):
    """None, or what differed when net ran with a pool whose threads are delayed (tests/runtime/delayed_model.c)."""
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        onnx.save(net.model(), f"{folder}/m.onnx")
        subprocess.run([burin.compiler(), "compile", f"{folder}/m.onnx", "-q", "--emit=obj", "--name=burin_model", "-o", f"{folder}/m.o"], check=True)
        subprocess.run(["clang-19", "-O1", "-Wall", "-Wextra", "-Werror", "-I", ROOT, "-I", ROOT / "runtime", *define,
                        ROOT / "tests/runtime/delayed_model.c", f"{folder}/m.o", "-o", f"{folder}/m", "-pthread"], check=True)
        done = subprocess.run([f"{folder}/m", str(rounds)], capture_output=True, text=True, timeout=300)
        return None if done.returncode == 0 else f"exit {done.returncode} {done.stderr.strip()}"


# ---- running --------------------------------------------------------------------------------------------

def differs(got, want, slack):
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{got.shape}, not {want.dtype}{want.shape}"
    if want.dtype.kind != "f":
        return None if np.array_equal(got, want) else "integers differ"
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    got, want = np.where(same, 0, got), np.where(same, 0, want)
    finite = np.abs(want[np.isfinite(want)]).max(initial=1e-3)
    error = np.abs(got - want).max(initial=0) / finite
    return None if error <= slack else f"error {error:.3g}"


def interpret(path, feeds, folder, flags):
    command = [burin.compiler(), "run", str(path), "--interpret", "-q", *flags]
    for k, (name, a) in enumerate(feeds.items()):
        np.save(f"{folder}/in_{k}.npy", a)
        command += ["--input", f"{name}=@{folder}/in_{k}.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip()[-300:] if done.returncode else None


def check(net, target, flags, runs):
    model = net.model()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    reference = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    compiled = burin.compile(model, target=target, flags=flags)
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder) / "m.onnx"
        onnx.save(model, path)
        for run in range(runs):
            feeds = net.feeds(run)
            want = reference.run(None, feeds)
            for k, (g, w) in enumerate(zip(compiled.run(feeds, threads=1 + run % 2), want)):
                bad = differs(g, np.asarray(w), net.slack)
                if bad:
                    return f"run {run}, output {k}: {bad}"
        return interpret(path, net.feeds(0), folder, [f"--target={target}", *flags])


def attempt(job):
    net, target, flags = job
    try:
        bad = check(net, target, flags, 3)
    except Exception as e:
        bad = f"{type(e).__name__}: {str(e)[-300:]}"
    return net.name, [target, *flags], bad


def attempt_delayed(job):
    net, define = job
    try:
        bad = delayed(net, define, 40)
    except Exception as e:
        bad = f"{type(e).__name__}: {str(e)[-300:]}"
    return net.name, ["delayed", *define], bad


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--only", default="")
    p.add_argument("--flags")
    p.add_argument("--random", type=int, default=12, help="graphs of each kind")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    levels = LEVELS if args.flags is None else [("native", args.flags.split())]
    jobs = [(n, *level) for n in nets() for level in levels if level[1] != ["-O0"] or not n.heavy]
    for k in range(args.random):
        jobs += [(make(Net, args.seed + k), *levels[k % len(levels)]) for make in (conv_net, found_net)]
    jobs = [j for j in jobs if re.search(args.only, j[0].name)]
    delays = [(n, define) for n in (images(), tokens()) for define in ([], ["-DPROGRAM_POOL"]) if re.search(args.only, n.name)]
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        for name, flags, bad in chain(pool.map(attempt, jobs), pool.map(attempt_delayed, delays)):
            failed += bad is not None
            if bad or args.verbose:
                print(f"{name} {' '.join(flags)}: {bad or 'ok'}", flush=True)
    print(f"{len(jobs) + len(delays) - failed} passed, {failed} failed, 0 skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
