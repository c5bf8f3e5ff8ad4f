#!/usr/bin/env python3
"""Part "inplace": outputs that are written over inputs (--in-place OUT=IN), against ONNX Runtime, step after step: training states with
many pairs, scatters, and graphs that read the input after (or while) the output is written, which must be copied; at -O3 and -O0, as C.
Then what is refused."""
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import numpy as np
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh, parser

import burin
from tests.support.part import check, finish

COPIED = "is copied into the memory"


def compiled(proto, pairs, flags, folder):
    """The model, and what the compiler said."""
    path = Path(folder) / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    over = [f"--in-place={o}={i}" for o, i in pairs]
    if "c" in flags:
        done = subprocess.run([burin.compiler(), "compile", path, "--emit=c,header", "-o", Path(folder) / "m", "--name=burin_model", *over], capture_output=True, text=True)
        library = Path(folder) / f"m{len(list(Path(folder).glob('*.so')))}.so"
        if done.returncode == 0:
            subprocess.run(["gcc", "-std=c99", "-O1", "-shared", "-fPIC", Path(folder) / "m.c", "-o", library], check=True)
    else:
        library = Path(folder) / f"m{len(list(Path(folder).glob('*.so')))}.so"
        done = subprocess.run([burin.compiler(), "compile", path, "--emit=shared", "-o", library, "--name=burin_model", *flags, *over], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return burin.Model(str(library)), done.stderr


def follow(name, proto, pairs, feeds, steps=3, copies=None, ways=([], ["-O0"], ["c"])):
    """Steps of the model, each on what the one before left; copies: how many outputs are computed elsewhere first (None: not asked)."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    for flags in ways:
        with tempfile.TemporaryDirectory() as folder:
            try:
                model, said = compiled(proto, pairs, flags, folder)
            except RuntimeError as e:
                check(f"{name} {flags}", False, e)
                continue
        if copies is not None and not flags:
            check(f"{name}: copies", said.count(COPIED) == copies, said)
        given, want = {k: v.copy() for k, v in feeds.items()}, {k: v.copy() for k, v in feeds.items()}
        for step in range(steps):
            got, right = model.run(given), session.run(None, want)
            same = all(g.shape == w.shape and np.allclose(g, w, rtol=1e-4, atol=1e-5, equal_nan=True) for g, w in zip(got, right))
            lies = all(got[names.index(o)] is given[i] for o, i in pairs)
            if not check(f"{name} {flags} step {step}", same and lies, f"lies there: {lies}"):
                break
            want.update({i: right[names.index(o)] for o, i in pairs})


def text(body):
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {body}')


# ---- training states ----
def adam(n, shapes):
    """n parameters with two moments each, all updated from gradients that are inputs."""
    nodes, inputs, outputs, pairs = [], [], [], []
    consts = {"b1": 0.9, "c1": 0.1, "b2": 0.99, "c2": 0.01, "lr": 0.05, "eps": 1e-6}

    def op(kind, *args):
        out = args[-1]
        nodes.append(h.make_node(kind, list(args[:-1]), [out]))
        return out

    for k in range(n):
        p, g, m, v = (f"{s}{k}" for s in "pgmv")
        m2 = op("Add", op("Mul", m, "b1", m + "a"), op("Mul", g, "c1", m + "b"), m + "_new")
        v2 = op("Add", op("Mul", v, "b2", v + "a"), op("Mul", op("Mul", g, g, v + "g"), "c2", v + "b"), v + "_new")
        step = op("Div", op("Mul", m2, "lr", p + "s"), op("Add", op("Sqrt", v2, v + "r"), "eps", v + "e"), p + "d")
        op("Sub", p, step, p + "_new")
        shape = shapes[k % len(shapes)]
        inputs += [h.make_tensor_value_info(s, T.FLOAT, shape) for s in (p, g, m, v)]
        outputs += [h.make_tensor_value_info(s + "_new", T.FLOAT, shape) for s in (p, m, v)]
        pairs += [(s + "_new", s) for s in (p, m, v)]
    graph = h.make_graph(nodes, "g", inputs, outputs, [nh.from_array(np.float32(c), k) for k, c in consts.items()])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=8), pairs


def training():
    rng = np.random.default_rng(1)
    for shapes in ([[7, 5], [16], [3, 4, 33]], [["n", 8]]):
        proto, pairs = adam(4, shapes)
        size = lambda i: [6 if d.dim_param else d.dim_value for d in i.type.tensor_type.shape.dim]
        feeds = {i.name: np.abs(rng.standard_normal(size(i))).astype(np.float32) for i in proto.graph.input}
        follow(f"adam {shapes}", proto, pairs, feeds)
    sgd = text("g (float[8,6] w, float[8,4] x, float[4,6] d) => (float[8,6] w2) { g = MatMul(x, d) lr = Constant<value_float=0.1>() s = Mul(g, lr) w2 = Sub(w, s) }")
    follow("sgd behind a product", sgd, [("w2", "w")], {k: rng.standard_normal(s).astype(np.float32) for k, s in (("w", (8, 6)), ("x", (8, 4)), ("d", (4, 6)))})
    plain = text("g (float[1000] w, float[1000] d) => (float[1000] w2) { lr = Constant<value_float=0.1>() s = Mul(d, lr) w2 = Sub(w, s) }")
    follow("sgd", plain, [("w2", "w")], {k: rng.standard_normal(1000).astype(np.float32) for k in "wd"}, copies=0)
    large = text("g (float[3000001] w, float[3000001] d) => (float[3000001] w2) { lr = Constant<value_float=0.1>() s = Mul(d, lr) w2 = Sub(w, s) }")
    follow("sgd of many, the last part shorter", large, [("w2", "w")], {k: rng.standard_normal(3000001).astype(np.float32) for k in "wd"}, copies=0)


# ---- scatters ----
def scatters():
    rng = np.random.default_rng(2)
    x, u = rng.standard_normal((9, 4)).astype(np.float32), rng.standard_normal((2, 4)).astype(np.float32)
    at = np.array([[3], [7]], np.int64)
    nd = "g (float[9,4] x, int64[2,1] at, float[2,4] u) => (float[9,4] y{more}) {{ {first} y = ScatterND(x, at, {u}) {last} }}"
    follow("ScatterND", text(nd.format(more="", first="", u="u", last="")), [("y", "x")], dict(x=x, at=at, u=u), copies=0)
    follow("ScatterND of what it reads", text(nd.format(more="", first="s = Gather(x, z) z = Constant<value_ints=[8, 3]>() v = Add(s, u)".replace(
        "s = Gather(x, z) z = Constant<value_ints=[8, 3]>()", "z = Constant<value_ints=[8, 3]>() s = Gather(x, z)"), u="v", last="")), [("y", "x")], dict(x=x, at=at, u=u))
    follow("ScatterND, read later", text(nd.format(more=", float[9,4] t", first="", u="u", last="t = Sub(y, x)")), [("y", "x")], dict(x=x, at=at, u=u))
    follow("ScatterND twice", text(nd.format(more="", first="v = Neg(u) m = ScatterND(x, at, v)", u="u", last="").replace("ScatterND(x, at, u)", "ScatterND(m, at, u)")),
           [("y", "x")], dict(x=x, at=at, u=u))
    el = text("g (float[9,4] x, int64[2,4] at, float[2,4] u) => (float[9,4] y) { y = ScatterElements<axis=0, reduction=\"add\">(x, at, u) }")
    follow("ScatterElements", el, [("y", "x")], dict(x=x, at=rng.integers(-9, 9, (2, 4)), u=u), copies=0)


    slots()


def slots():
    """TensorScatter (without ONNX Runtime): keys of a cache with room for 9, at positions that differ by batch, whose other elements stay."""
    rng = np.random.default_rng(4)
    cache, new = rng.standard_normal((2, 3, 9, 8)).astype(np.float32), rng.standard_normal((2, 3, 4, 8)).astype(np.float32)
    for mode, starts in (("linear", [5, 0]), ("linear", None), ("circular", [7, -2])):
        for axis, room in ((-2, 9), (3, 8)):
            given = (cache, new if axis == -2 else rng.standard_normal((2, 3, 9, 4)).astype(np.float32))
            shapes = [f"float[{','.join('n' if k == 0 else str(d) for k, d in enumerate(a.shape))}]" for a in given]
            at = [2, 4] if starts and axis == 3 and mode == "linear" else starts
            more = ", int64[n] at" if at else ""
            for update, copies in (("u", 0), ("Neg", 0), ("Sub", 0), ("read later", 1)):
                first = {"u": "", "Neg": "v = Neg(u)", "Sub": "r = ReduceSum(x) v = Sub(u, r)", "read later": ""}[update]
                later = update == "read later"
                graph = parser.parse_model(f'<ir_version: 11, opset_import: ["": 24]> g ({shapes[0]} x, {shapes[1]} u{more}) => ({shapes[0]} y{f", {shapes[0]} z" if later else ""}) '
                                           f'{{ {first} y = TensorScatter<mode="{mode}", axis={axis}>(x, {"v" if first else "u"}{", at" if at else ""}) {"z = Sub(y, x)" if later else ""} }}')
                moved = {"u": given[1], "Neg": -given[1], "Sub": given[1] - given[0].sum(dtype=np.float64).astype(np.float32)}.get(update, given[1])
                want = given[0].copy()
                for b in range(2):
                    where = (np.arange(4) + (at[b] if at else 0)) % room
                    want[b][(slice(None),) * (axis % 4 - 1) + (where,)] = moved[b]
                for flags in ([], ["-O0"], ["c"]):
                    with tempfile.TemporaryDirectory() as folder:
                        name = f"TensorScatter {mode} axis {axis} of {update} {flags}"
                        try:
                            model, said = compiled(graph, [("y", "x")], flags, folder)
                        except RuntimeError as e:
                            check(name, False, e)
                            continue
                        x = given[0].copy()
                        got = model.run(dict(x=x, u=given[1], **({"at": np.array(at, np.int64)} if at else {})))
                        moves = not later or np.allclose(got[1], want - given[0], rtol=1e-4, atol=1e-4)
                        check(name, got[0] is x and moves and np.allclose(x, want, rtol=1e-4, atol=1e-4), "other values")
                        check(f"{name}: copies", said.count(COPIED) == copies, said)
    few_stores()


def few_stores():
    """Nothing but the update is stored: no kernel that is called goes over the cache."""
    text = ('<ir_version: 11, opset_import: ["": 24]> g (float[2,3,4099,8] x, float[2,3,4,8] u, int64[2] at) => (float[2,3,4099,8] y) '
            '{ y = TensorScatter(x, u, at) }')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(parser.parse_model(text).SerializeToString())
        for more, least, most in (([], 2 * 3 * 4099 * 8, None), (["--in-place=y=x"], 2 * 3 * 4 * 8, 2 * 3 * 4 * 8)):
            loops = subprocess.run([burin.compiler(), "compile", path, "--emit=loop", *more], capture_output=True, text=True).stdout
            bodies = dict(re.findall(r"kernel (\w+)(.*?)\n  }", loops, re.S))
            turns = max((int(np.prod([int(e) for e in re.findall(r" in 0\.\.(\d+) ", bodies[k])])) for k in re.findall(r"call (\w+)", loops)), default=0)
            check(f"TensorScatter {more}: {turns} elements", least <= turns <= (most or turns), loops)


# ---- reads that come too late ----
def late_reads():
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((6, 6)).astype(np.float32), rng.standard_normal((6, 6)).astype(np.float32)
    one = dict(x=x)
    head = "g (float[6,6] x) => (float[6,6] y) "
    cases = {"transposed": "y = Transpose(x)", "product": "y = MatMul(x, x)", "softmax": "y = Softmax(x)", "sums": "a = Constant<value_int=1>() y = CumSum(x, a)",
             "reversed": "a = Constant<value_ints=[-1]>() s = Constant<value_ints=[5]>() e = Constant<value_ints=[-99]>() z = Constant<value_ints=[0]>() y = Slice(x, s, e, z, a)",
             "first row": "z = Constant<value_ints=[0]>() r = Gather(x, z) y = Sub(x, r)", "turned": "t = Transpose(x) y = Sub(x, t)",
             "the same": "y = Identity(x)", "norm": "n = ReduceL2<keepdims=1>(x) y = Div(x, n)", "constant": "z = Constant<value_float=0.0>() y = Mul(x, z)"}
    for name, body in cases.items():
        follow(name, text(head + "{ " + body + " }"), [("y", "x")], one)
    follow("elementwise", text(head + "{ t = Tanh(x) y = Add(t, x) }"), [("y", "x")], one, copies=0)
    two = text("g (float[6,6] x, float[6,6] w) => (float[6,6] a, float[6,6] b) { a = Identity(w) b = Identity(x) }")
    follow("exchanged", two, [("a", "x"), ("b", "w")], dict(x=x, w=w))
    ring = text("g (float[6,6] x, float[6,6] w) => (float[6,6] a, float[6,6] b) { a = Sub(x, w) b = Mul(x, w) }")
    follow("each reads both", ring, [("a", "x"), ("b", "w")], dict(x=x, w=w))
    follow("crossed", ring, [("a", "w"), ("b", "x")], dict(x=x, w=w))
    branch = text("g (float[6,6] x, bool c) => (float[6,6] y, float[6,6] z) { y = If(c) <then_branch = t () => (float[6,6] p) { p = Neg(x) }, "
                  "else_branch = e () => (float[6,6] q) { q = Transpose(x) }> z = Add(y, x) }")
    for c in (True, False):
        follow(f"If {c}", branch, [("y", "x")], dict(x=x, c=np.array(c)))
    loop = text("g (float[6,6] x) => (float[6,6] y, float s) { n = Constant<value_int=3>() c = Constant<value = bool {1}>() "
                "y = Loop(n, c, x) <body = b (int64 i, bool d, float[6,6] u) => (bool e, float[6,6] v) { e = Identity(d) t = Transpose(x) v = Sub(u, t) }> s = ReduceSum<keepdims=0>(x) }")
    follow("Loop", loop, [("y", "x")], one)


# ---- programs ----
def programs():
    """A program's input, from a file that stays as it is; runs again on the same memory."""
    rng = np.random.default_rng(4)
    w, d = rng.standard_normal((2, 6, 5)).astype(np.float32)
    proto = text("g (float[6,n] w, float[6,n] d) => (float[6,n] w2, float s) { w2 = Sub(w, d) s = ReduceSum<keepdims=0>(w2) }")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "m.onnx").write_bytes(proto.SerializeToString())
        np.save(path / "w.npy", w), np.save(path / "d.npy", d), np.save(path / "want.npy", w - d)
        given = ["--input", f"w=@{path}/w.npy", "--input", f"d=@{path}/d.npy", "--expect", f"w2=@{path}/want.npy"]
        for extra in ([], ["--check-memory"]):
            done = subprocess.run([burin.compiler(), "run", path / "m.onnx", "--in-place=w2=w", *given, *extra], capture_output=True, text=True)
            check(f"run {extra}", done.returncode == 0 and "w2: ok" in done.stdout, done.stdout + done.stderr)
        check("the file stays", np.array_equal(np.load(path / "w.npy"), w))
        done = subprocess.run([burin.compiler(), "bench", path / "m.onnx", "--in-place=w2=w", "--runs=5", "--profile", *given[:4]], capture_output=True, text=True)
        check("bench", done.returncode == 0 and "5 runs" in done.stdout, done.stdout + done.stderr)


# ---- random graphs ----
def random_graph(seed):
    rng = random.Random(seed)
    shape = rng.choice([[5, 5], [3, 3], [8, 8], ["n", "n"]])
    states, others = [f"s{k}" for k in range(rng.randint(1, 4))], ["g0", "g1"]
    nodes, have = [], states + others
    for k in range(rng.randint(2, 9)):
        kind, a, b = rng.choice(["Add", "Sub", "Mul", "Tanh", "Neg", "Relu", "Transpose", "MatMul", "Softmax", "Max"]), rng.choice(have), rng.choice(have)
        nodes.append(h.make_node(kind, [a, b] if kind in ("Add", "Sub", "Mul", "MatMul", "Max") else [a], [f"t{k}"]))
        have.append(f"t{k}")
    results = [rng.choice(have) for _ in states]
    outs = [f"{s}_new" for s in states]
    nodes += [h.make_node(rng.choice(["Identity", "Tanh"]), [r], [o]) for r, o in zip(results, outs)]
    nodes.append(h.make_node("ReduceSum", [have[-1]], ["sum"], keepdims=0))
    info = lambda n: h.make_tensor_value_info(n, T.FLOAT, shape)
    graph = h.make_graph(nodes, "g", [info(s) for s in states + others], [info(o) for o in outs] + [h.make_tensor_value_info("sum", T.FLOAT, [])])
    order = states[:]
    rng.shuffle(order)
    values, n = np.random.default_rng(seed), 4 if shape[0] == "n" else shape[0]
    feeds = {s: values.uniform(-1, 1, (n, n)).astype(np.float32) for s in states + others}
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=8), list(zip(outs, order)), feeds


def refused():
    proto = text("g (float[2,3] x, float[3] u) => (float[2,3] y, float[2,3] z) { y = Add(x, u) z = Neg(y) }")
    for pairs, words in (([("y", "u")], "different types"), ([("q", "x")], "no such output"), ([("y", "x"), ("z", "x")], "in place already")):
        with tempfile.TemporaryDirectory() as folder:
            try:
                compiled(proto, pairs, [], folder)
                check(f"{pairs} is refused", False, "it is compiled")
            except RuntimeError as e:
                check(f"{pairs} is refused", words in str(e), e)
    with tempfile.TemporaryDirectory() as folder:
        model, _ = compiled(proto, [("y", "x")], [], folder)
    x, u = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    for name, bad in (("a view that is not contiguous", np.ones((3, 2), np.float32).T), ("another type", np.ones((2, 3)))):
        try:
            model.run({"x": bad, "u": u})
            check(name, False, "it ran")
        except TypeError as e:
            check(name, "written over" in str(e) or "f32" in str(e), e)
    check("an output given elsewhere", np.array_equal(model.run({"x": x, "u": u})[0], x), "y is not x")


if __name__ == "__main__":
    count = int(sys.argv[sys.argv.index("--count") + 1]) if "--count" in sys.argv else 24
    first = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 0
    training()
    scatters()
    late_reads()
    programs()
    refused()
    for seed in range(first, first + count):
        proto, pairs, feeds = random_graph(seed)
        follow(f"seed {seed}", proto, pairs, feeds, ways=([], ["-O0"]) + ((["c"],) if seed % 8 == 0 else ()))
    sys.exit(finish())
