#!/usr/bin/env python3
"""Part "csource": files of --emit=c, compiled by gcc -std=c99 with all warnings as errors and by tcc, against ONNX Runtime
(random graphs, mnist), objects (trained models) and oracles in float64 (contractions). Some run under AddressSanitizer and
UndefinedBehaviorSanitizer; where nothing is summed the bits are those of an object.

run_csource.py [--graphs N] [--seed S] [--only TEXT] [--verbose]"""
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import numpy as np
import onnx
from onnx import helper, numpy_helper

import burin
from tests.codegen import run_templates
from tests.models import run_models, run_random
from tests.support import template_cases

WARN = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]  # operators share one signature
COMPILERS = {
    "gcc": ["gcc", "-std=c99", *WARN, "-O1", "-shared", "-fPIC"],
    "tcc": ["tcc", "-shared"],
    "sanitized": ["gcc", "-std=c99", *WARN, "-g", "-fno-sanitize-recover=all", "-fsanitize=address,undefined"],
}
object_of = burin.compile


def source(model, folder, flags=()):
    """model.c and model.h in folder."""
    path = Path(folder) / "in.onnx"
    if not isinstance(model, (str, os.PathLike)):
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        model = path
    done = subprocess.run([burin.compiler(), "compile", model, "--emit=c,header", "-o", Path(folder) / "model", "--name=burin_model", *flags],
                          capture_output=True, text=True)
    if done.returncode:
        raise burin.CompileError(done.stderr.strip(), done.returncode)
    return Path(folder) / "model.c"


def compiler(name):
    """A stand-in for burin.compile that goes through C."""
    def compile(model, target=None, flags=()):
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            text, library = source(model, folder, flags), Path(folder) / "model.so"
            done = subprocess.run([*COMPILERS[name], text, "-o", library], capture_output=True, text=True)
            if done.returncode or "warning" in done.stderr:  # gcc notes that a file is too large for columns
                raise burin.CompileError(f"{name}: {done.stderr[:1500]}", 1)
            return burin.Model(str(library))
    return compile


# ---- what is compiled: (title, check(compiler name) -> "ok" or a failure) ----
def of_graph(seed):
    def check(name):
        burin.compile = compiler(name)
        return run_random.check(run_random.random_graph(seed), "c", [])
    return f"random graph {seed}", check


def of_cases(title, cases, flags=()):
    def check(name):
        burin.compile = compiler(name)
        bad = run_templates.run(cases, "c", list(flags))
        return "; ".join(f"{k}: {v}" for k, v in bad.items()) or "ok"
    return title, check


def of_file(path):
    def check(name):
        model = compiler(name)(path)
        for feeds, want in run_models.cases(path):
            got = model.run(feeds, threads=2)
            for g, w in zip(got, run_models.reference(path, feeds) if want is None else want):
                bad = run_models.compare(g, np.asarray(w), run_models.TOLERANCE)[1]
                if bad:
                    return bad
        return "ok"
    return path.parent.name + "/" + path.name, check


# Runtime functions, control flow, and types and operations that C has no word for: (title, inputs, outputs, nodes).
TEXTS = [
    ("topk", "float[3,7] x", "float[3,2] v, int64[3,2] i", "k = Constant<value_ints=[2]>() v, i = TopK(x, k)"),
    ("nonzero", "float[4,5] x", "int64[2,n] y", "z = Relu(x) y = NonZero(z)"),
    ("compress", "float[6,2] x", "float[n,2] y", "zero = Constant<value_float=0.0>() g = Greater(x, zero) "
     "c = ReduceMax<keepdims=0>(x, ax) ax = Constant<value_ints=[1]>() b = Greater(c, zero) y = Compress<axis=0>(x, b)"),
    ("unique", "int32[9] j", "int32[n] y, int64[n] a, int64[9] b, int64[n] c", "y, a, b, c = Unique(j)"),
    ("scatter", "float[3,4] x, int64[2,4] k", "float[3,4] y", "u = Constant<value_float=2.5>() s = Shape(k) e = Expand(u, s) "
     "y = ScatterElements<axis=0, reduction=\"add\">(x, k, e)"),
    ("nms", "float[1,6,4] x, float[1,1,6] s", "int64[n,3] y", "m = Constant<value_ints=[3]>() t = Constant<value_float=0.5>() "
     "y = NonMaxSuppression(x, s, m, t)"),
    ("dft", "float[1,12,1] x", "float[1,12,2] y", "ax = Constant<value_int=1>() y = DFT(x, , ax)"),
    ("roi", "float[1,2,6,6] x, float[2,4] r, int64[2] k", "float[2,2,2,2] y", "y = RoiAlign<output_height=2, output_width=2>(x, r, k)"),
    ("if", "float[4] x, bool b", "float[4] y", "y = If(b) <then_branch = a () => (float[4] p) { p = Exp(x) }, "
     "else_branch = c () => (float[4] q) { q = Neg(x) }>"),
    ("loop", "float[4] x, int64 m", "float[4] y", "t = Constant<value=bool {1}>() y = Loop(m, t, x) <body = a "
     "(int64 i, bool c, float[4] p) => (bool d, float[4] q) { d = Identity(c) h = Tanh(p) q = Add(h, x) }>"),
    ("indices", "float[5,3] x, int64[2,4] k", "float[2,4,3] y", "y = Gather(x, k)"),
    ("fmod", "float[33] x, float[33] s", "float[33] y", "y = Mod<fmod=1>(x, s)"),
    ("functions", "float[99] x", "float[99] a, float[99] b, float[99] c, float[99] d, float[99] e", "a = Exp(x) l = Abs(x) b = Log(l) "
     "c = Sin(x) r = Sqrt(l) q = Erf(r) d = Pow(q, x) g = Floor(d) h = Round(x) i = Ceil(x) j = Add(g, h) e = Add(i, j)"),
    ("doubles", "double[50] d", "double[50] a, double[50] b", "l = Abs(d) s = Sqrt(l) a = Exp(d) q = Round(a) b = Div(q, s)"),
]
for t in ("uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64"):
    TEXTS.append((f"integers {t}", f"{t}[64] i0, {t}[64] i1", f"{t}[64] a, {t}[64] b, {t}[64] c, {t}[64] d, bool[64] e, {t}[64] f",
                  "a = Mul(i0, i1) p = Sub(i0, i1) b = Div(a, i1) c = Mod(i0, i1) d = Max(p, i1) e = Less(p, i0) f = Add(a, c)"))
for t in ("float16", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "uint8", "int8", "int32", "uint64"):
    to = onnx.TensorProto.DataType.Value(t.upper())
    back = "float[200]" if t.startswith(("f", "b")) else "int32[200]"
    TEXTS.append((f"casts {t}", "float[200] w, double[200] u, int64[200] v", f"{back} a, {back} b, {back} c",
                  "".join(f"{o}1 = Cast<to={to}>({i}) {o} = Cast<to={1 if back[0] == 'f' else 6}>({o}1) " for o, i in ("aw", "bu", "cv"))))


def of_text(title, inputs, outputs, nodes):
    from onnx import parser
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => ({outputs}) {{ {nodes} }}')
    rng = np.random.default_rng(3)
    special = np.array([0.0, -0.0, 1e-40, -1e-40, 1e-38, 1.5, 2.5, -0.5, np.inf, -np.inf, np.nan, 3e38, 448, 464, 65504, 65520, 6e-8, 1e-7])

    def feed(v):
        t = v.type.tensor_type
        shape, dtype = [d.dim_value for d in t.shape.dim], onnx.helper.tensor_dtype_to_np_dtype(t.elem_type)
        if dtype.kind == "b":
            return np.array(1, bool)
        if v.name == "k":
            return rng.integers(0, 2 if title == "scatter" else 1, shape)
        if v.name == "m":
            return np.array(3)
        if dtype.kind in "iu":
            low, high = (0, 4) if v.name == "j" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            data = rng.integers(low, high, shape, dtype=dtype, endpoint=True)
            if v.name == "i1":
                data[:8] = [0, 1, 2, 3, high, low, 5, 7]
            return data
        data = rng.standard_normal(shape) * (3 if v.name in "xds" else 1000.0 ** rng.uniform(-3, 3, shape))
        if v.name in "wu" or title in ("functions", "fmod"):
            data.flat[:len(special)] = special
        return data.astype(dtype)

    feeds = {v.name: feed(v) for v in model.graph.input}

    def check(name):
        got, want = compiler(name)(model).run(feeds), object_of(model, target="x86-64-v2").run(feeds)
        for k, (g, w) in enumerate(zip(got, want)):
            nans = g.dtype.kind == "f" and g.shape == w.shape and np.array_equal(np.isnan(g), np.isnan(w))
            if nans:  # which NaN is not said
                g, w = np.where(np.isnan(g), 0, g), np.where(np.isnan(w), 0, w)
            if g.shape != w.shape or g.tobytes() != w.tobytes():
                at = np.flatnonzero(g.ravel() != w.ravel())[:4] if g.shape == w.shape else []
                return f"output {k} differs from the object's at {at}: {g.ravel()[at]}, not {w.ravel()[at]}"
        return "ok"
    return title, check


def of_real(path):
    """A trained model against the object of the same target level, which part models holds against its references."""
    def check(name):
        model, peer = compiler(name)(path), object_of(path, target="x86-64-v2")
        for feeds, _ in list(run_models.cases(path))[:1]:
            for got, want in zip(model.run(feeds), peer.run(feeds)):
                bad = run_models.compare(got, want, 1e-5)[1]
                if bad:
                    return bad
        return "ok"
    return path.parent.name, check


# Small files whose code by tcc, which keeps nothing in registers, runs for most of a minute.
SLOW = {"meshnet3d_gwm", "espcn_superres_x3", "yunet_s_640"}


def real_models():
    """The smallest trained models; [] without ../shared."""
    files = [f for f in (run_models.SHARED / "real").glob("*/model.onnx") if f.parent.name not in SLOW]
    return sorted(files, key=lambda f: f.stat().st_size)[:20]


def jobs(args):
    rng = np.random.default_rng(args.seed)
    for text in TEXTS:
        yield of_text(*text)
    yield of_cases("fixed contractions", list(template_cases.fixed_cases(rng))[:8])
    yield of_cases("random contractions", [template_cases.random_case(rng, f"r{i}") for i in range(4)])
    yield of_cases("chains in strips", [template_cases.chain_case(rng, f"s{i}") for i in range(2)], ["--strips=all"])
    yield of_cases("half floats", [template_cases.random_case(rng, f"h{i}", np.dtype(np.float16)) for i in range(2)])
    for seed in range(args.seed, args.seed + args.graphs):
        yield of_graph(seed)
    yield of_file(ROOT / "examples/digits/mnist.onnx")
    for path in real_models():
        yield of_real(path)


def compile_sanitized(title, model, feeds):
    """A program of its own: sanitizers must be there from the start."""
    main = '#include "model.c"\n#include <stdio.h>\n#include <stdlib.h>\nint main(void) {\n'
    main += "  const void *in[%d];\n  void *out[%d];\n  int64_t dims[32] = {0}, shape[16];\n" % (len(model.inputs) + 1, len(model.outputs) + 1)
    for k, t in enumerate(model.inputs):
        data = np.ascontiguousarray(feeds[t.name]).tobytes()
        main += f"  static const uint64_t i{k}[] = {{{','.join(map(hex, np.frombuffer(data + bytes(-len(data) % 8 + 8), np.uint64)))}}};\n"
        main += f"  in[{k}] = i{k};\n"
        for d, s in zip(feeds[t.name].shape, t.shape):
            if s in model.symbols:
                main += f"  dims[{model.symbols.index(s)}] = {d};\n"
    for k in range(len(model.outputs)):
        main += f"  {{ int64_t n = 16; burin_model_output_dims({k}, dims, shape, 1); for (int d = 0; d < burin_model_model.outputs[{k}].rank; d++) n *= shape[d]; out[{k}] = malloc((size_t)n); }}\n"
    main += "  char *const block = malloc((size_t)burin_model_arena_size(dims, 1) + 64), *const arena = block + (64 - (uintptr_t)block % 64) % 64;\n"
    main += "  const int status = burin_model_invoke(in, out, dims, arena, NULL);\n  free(block);\n"
    main += "".join(f"  free(out[{k}]);\n" for k in range(len(model.outputs))) + "  return status;\n}\n"
    return main


def sanitized(args):
    for seed in range(args.seed, args.seed + 3):
        graph = run_random.random_graph(seed)
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            try:
                source(graph.model(), folder)
                model, feeds = object_of(graph.model(), target="x86-64-v2"), graph.feed(0)
                (Path(folder) / "main.c").write_text(compile_sanitized("", model, feeds))
                done = subprocess.run([*COMPILERS["sanitized"], "main.c", "-o", "main"], capture_output=True, text=True, cwd=folder)
                if not done.returncode:
                    done = subprocess.run(["./main"], capture_output=True, text=True, cwd=folder)
                result = f"status {done.returncode}: {done.stderr[-1500:]}" if done.returncode else "ok"
            except burin.CompileError as e:
                result = str(e)[:300]
            yield f"random graph {seed}", result


def refusals():
    """(title, "ok" or a failure): what --emit=c cannot do is said, with the status, and leaves no file."""
    small = of_weights(4)
    for title, model, flags, status, words in (
            ("another target", small, ["--emit=c", "--target=x86-64-v3"], 2, "leave --target out"),
            ("its target, other files", small, ["--emit=obj", "--target=c"], 2, "target c makes only --emit=header,c"),
            ("weights in a file", small, ["--emit=c", "--weights=external"], 2, "files of C hold their weights"),
            ("one weight too many", of_weights(2**24 + 1), ["--emit=c"], 6, "backend c holds at most 67.1 MB")):
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            path = Path(folder) / "in.onnx"
            path.write_bytes(model.SerializeToString())
            done = subprocess.run([burin.compiler(), "compile", path, "-q", "-o", Path(folder) / "out", *flags], capture_output=True, text=True)
            left = [f.name for f in Path(folder).iterdir() if f != path]
            right = done.returncode == status and words in done.stderr and not left
            yield f"refused: {title}", "ok" if right else f"status {done.returncode}, {left}, {done.stderr[:300]}"


def of_weights(n):
    """y = x + n float32 constants."""
    w = numpy_helper.from_array(np.arange(n, dtype=np.float32), "w")
    value = lambda name, size: helper.make_tensor_value_info(name, 1, [size])  # noqa: E731
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [value("x", 1)], [value("y", n)], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--graphs", type=int, default=4)
    p.add_argument("--only", default="")
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    counts = {"passed": 0, "failed": 0, "skipped": 0}

    def note(title, result):
        key = "passed" if result == "ok" else "skipped" if result.startswith(("reference refuses", "skipped")) else "failed"
        counts[key] += 1
        if args.verbose or key == "failed":
            print(f"{title}: {result}", flush=True)

    for title, check in jobs(args):
        if args.only not in title:
            continue
        for name in ("gcc", "tcc"):
            try:
                note(f"{title}, {name}", check(name))
            except (burin.CompileError, burin.RunError) as e:
                note(f"{title}, {name}", str(e)[:1500])
    for title, result in refusals():
        if args.only in title:
            note(title, result)
    if not real_models():
        print("skipped 20 trained models: ../shared is absent")
        counts["skipped"] += 20
    if not args.only or args.only == "sanitized":
        for title, result in sanitized(args):
            note(f"{title}, sanitized", result)
    print(", ".join(f"{n} {k}" for k, n in counts.items()))
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
