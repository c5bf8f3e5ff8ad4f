#!/usr/bin/env python3
"""Part "growth": tensors whose size has no bound lie in the heap. Random Loops whose states grow, shrink and change places, with
conditions and Loops inside, against ONNX Runtime: compiled (run several times with one heap), at -O0, interpreted, and as C."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT)]

import numpy as np
from onnx import TensorProto as T, helper as h, numpy_helper as nh

from tests.support import run_time_sizes
from tests.support.run_time_sizes import scalar

WIDTH = 3


def matrix(name):
    return h.make_tensor_value_info(name, T.FLOAT, [None, WIDTH])


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


if __name__ == "__main__":
    sys.exit(run_time_sizes.run(model, feeds, [run_time_sizes.static_program, run_time_sizes.c_source], refuses=True))
