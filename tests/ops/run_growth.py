#!/usr/bin/env python3
"""Part "growth": tensors whose size has no bound lie in the heap. Random Loops whose states grow, shrink and change places, with
conditions and Loops inside, against ONNX Runtime: compiled (run several times with one heap), at -O0, interpreted, and as C."""
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

import numpy as np
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh

import burin
from support.part import check, finish

WIDTH = 3


def matrix(name):
    return h.make_tensor_value_info(name, T.FLOAT, [None, WIDTH])


def scalar(name, t=T.INT64):
    return h.make_tensor_value_info(name, t, [])


class Body:
    """Nodes that make new matrices of those there are."""

    def __init__(self, rng, depth, prefix):
        self.rng, self.depth, self.prefix, self.nodes = rng, depth, prefix, []

    def name(self):
        return f"{self.prefix}v{len(self.nodes)}"

    def add(self, op, inputs, **attributes):
        self.nodes.append(h.make_node(op, inputs, [self.name()], **attributes))
        return self.nodes[-1].output[0]

    def step(self, have):
        a, b = self.rng.choice(have), self.rng.choice(have)
        kinds = ["concat", "concat", "filter", "head", "scale", "repeat"] + ["if", "loop"] * (self.depth < 2)
        return getattr(self, self.rng.choice(kinds))(a, b)

    def concat(self, a, b):
        return self.add("Concat", [a, b], axis=0)

    def filter(self, a, b):
        least = self.add("ReduceMin", [a], axes=[1], keepdims=0)
        return self.add("Compress", [a, self.add("Less", [least, "half"])], axis=0)

    def head(self, a, b):
        return self.add("Slice", [a, "zero", "some", "zero"])

    def scale(self, a, b):
        return self.add("Mul", [self.add("Add", [a, "half_"]), "half_"])

    def repeat(self, a, b):
        return self.add("Tile", [self.head(a, b), "twice"])

    def branch(self, k, a, b):
        inner = Body(self.rng, self.depth + 1, f"{self.name()}{k}")
        out = inner.step([a, b])
        return h.make_graph(inner.nodes, "branch", [], [h.make_empty_tensor_value_info(out)])

    def loop(self, a, b):
        body = loop_body(self.rng, self.depth + 1, f"{self.name()}l", 1, [b])
        out = self.name()
        self.nodes.append(h.make_node("Loop", ["few", "", a], [out, out + "_sums"], body=body))
        return out


def if_step(self, a, b):
    rows = self.add("Size", [a])
    return self.add("If", [self.add("Less", [rows, "many"])], then_branch=self.branch("t", a, b), else_branch=self.branch("e", a, b))


setattr(Body, "if", if_step)


def loop_body(rng, depth, prefix, n_states, others):
    body = Body(rng, depth, prefix)
    states = [f"{prefix}s{k}" for k in range(n_states)]
    have = states + others
    for _ in range(rng.randint(1, 3)):
        have.append(body.step(have))
    results = [rng.choice([s for s in have if s not in others]) for _ in states]
    cut = [body.add("Slice", [r, "zero", "most", "zero"]) if rng.random() < 0.5 else r for r in results]
    total = body.add("ReduceSum", [cut[0]], keepdims=0)
    rows = body.add("Size", [cut[0]])
    go = body.add("Less", [rows, "plenty"])
    outputs = [go] + [body.add("Identity", [c]) for c in cut] + [total]
    return h.make_graph(body.nodes, "body", [scalar(f"{prefix}i"), scalar(f"{prefix}c", T.BOOL)] + [matrix(s) for s in states],
                        [h.make_empty_tensor_value_info(o) for o in outputs])


def model(rng):
    n = rng.randint(1, 3)
    body = loop_body(rng, 0, "b", n, ["r"])
    outer = Body(rng, 1, "o")
    nodes = [h.make_node("Loop", ["trips", "", *(["x", "r", "x"][:n])], [f"y{k}" for k in range(n)] + ["sums"], body=body)]
    last = outer.step(["y0"])
    constants = {"half": np.float32(0.5), "half_": np.float32(0.5), "zero": np.array([0], np.int64), "some": np.array([4], np.int64),
                 "most": np.array([30], np.int64), "twice": np.array([2, 1], np.int64), "many": np.int64(12), "few": np.int64(2),
                 "plenty": np.int64(600)}
    graph = h.make_graph(nodes + outer.nodes, "g", [scalar("trips"), h.make_tensor_value_info("x", T.FLOAT, ["n", WIDTH]),
                                                    h.make_tensor_value_info("r", T.FLOAT, [2, WIDTH])],
                         [matrix(f"y{k}") for k in range(n)] + [h.make_tensor_value_info("sums", T.FLOAT, [None]), matrix(last)],
                         [nh.from_array(np.array(v), k) for k, v in constants.items()])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 12)], ir_version=8)


def feeds(rng, values):
    rows = lambda n: values.random((n, WIDTH), np.float32)
    return {"trips": np.array(rng.choice([0, 1, 2, 5]), np.int64), "x": rows(rng.choice([0, 1, 2, 5])), "r": rows(2)}


def same(got, want):
    return all(g.shape == w.shape and np.allclose(g, w, rtol=1e-4, atol=1e-5) for g, w in zip(got, want))


def interpret(path, given, names, folder):
    """The loop IR's interpreter, which follows what each element was written by."""
    command = [burin.compiler(), "run", path, "--interpret", "--quiet"] + [f"--input={k}=@{folder}/{k}.npy" for k in given]
    command += [f"--output={n}=@{folder}/out{k}.npy" for k, n in enumerate(names)]
    done = subprocess.run(command, capture_output=True, text=True)
    return [np.load(folder / f"out{k}.npy") for k in range(len(names))] if done.returncode == 0 else done.stderr


def static_program(path, given, names, folder):
    subprocess.run([burin.compiler(), "compile", path, "-o", folder / "program"], check=True, capture_output=True)
    command = [folder / "program", "--quiet", "--check-memory"] + [f"--input={k}=@{folder}/{k}.npy" for k in given]
    command += [f"--output={n}=@{folder}/out{k}.npy" for k, n in enumerate(names)]
    done = subprocess.run(command, capture_output=True, text=True)
    return [np.load(folder / f"out{k}.npy") for k in range(len(names))] if done.returncode == 0 else done.stderr


def c_source(path, given, names, folder):
    subprocess.run([burin.compiler(), "compile", path, "--emit=c,header", "-o", folder / "model", "--name=burin_model"], check=True, capture_output=True)
    library = folder / f"model{len(list(folder.glob('*.so')))}.so"  # one of its own, or the loader takes the last one
    subprocess.run(["gcc", "-std=c99", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", folder / "model.c", "-o", library], check=True)
    return burin.Model(str(library)).run(given)


def test(seed, folder):
    rng, values = random.Random(seed), np.random.default_rng(seed)
    proto = model(rng)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as e:
        check(f"{seed}: ONNX Runtime", False, e)
        return
    for flags in ([], ["-O0"]):
        try:
            m = burin.compile(proto, flags=flags)
        except burin.CompileError as e:
            check(f"{seed} {flags}", False, e)
            return
        for k in range(4):
            given = feeds(rng, values)
            try:
                want = session.run(None, given)
            except Exception:  # what it refuses for a size of 0
                continue
            try:
                got = m.run(given)
            except burin.RunError as e:
                check(f"seed {seed}, {flags}, run {k}", False, e)
                continue
            check(f"seed {seed}, {flags}, run {k}", same(got, want), f"{[g.shape for g in got]}, not {[w.shape for w in want]}")
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    names = [o.name for o in proto.graph.output]
    for way in [interpret] + [static_program, c_source] * (seed % 8 == 0):
        given = feeds(rng, values)
        for k, v in given.items():
            np.save(folder / f"{k}.npy", v)
        got, want = way(path, given, names, folder), session.run(None, given)
        check(f"seed {seed}, {way.__name__}", not isinstance(got, str) and same(got, want), got)


def main():
    count = int(sys.argv[sys.argv.index("--count") + 1]) if "--count" in sys.argv else 24
    first = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            test(seed, Path(folder))
    return finish()


if __name__ == "__main__":
    sys.exit(main())
