#!/usr/bin/env python3
"""Part "forks": If whose branches give different ranks. Random graphs of them (in branches, in bodies of Loop and Scan, in functions,
meeting each other), whose conditions are data or sizes, against ONNX Runtime: compiled, at -O0, interpreted, as C; what cannot have one
rank is refused with a sentence, and what would grow without bound, too."""
import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT)]

import numpy as np
from onnx import TensorProto as T, helper as h, numpy_helper as nh

import burin
from tests.support import run_time_sizes
from tests.support.part import check
from tests.support.run_time_sizes import scalar

WIDTH, OPSET = 3, 18
CONSTANTS = {"half": np.float32(0.5), "flat": np.array([-1], np.int64), "front": np.array([0], np.int64), "one": np.int64(1),
             "end": np.array([WIDTH], np.int64), "last": np.array([-1], np.int64), "twice": np.int64(2)}
FUNCTIONS = ("maybe_front", "maybe_drop")


def empty(name):
    return h.make_empty_tensor_value_info(name)


class Nodes:
    """Nodes over values whose shapes end in (n, 3) or (3): all broadcast to each other. A value is (name, ranks it may have)."""

    def __init__(self, rng, prefix, depth=0):
        self.rng, self.prefix, self.depth, self.nodes = rng, prefix, depth, []

    def add(self, op, inputs, **attributes):
        name = f"{self.prefix}v{len(self.nodes)}"
        self.nodes.append(h.make_node(op, inputs, [name], **attributes))
        return name

    def condition(self, have):
        value = self.rng.choice(have)[0]
        kind = self.rng.randint(0, 3)
        if kind == 0:
            return self.add("Equal", [self.add("Gather", [self.add("Shape", ["x"]), "one0"]), "one"])
        if kind == 1:
            return self.add("Greater", [self.add("Size", [value]), "few"])
        return self.add("Greater", [self.add("ReduceMax", [value], keepdims=0), self.rng.choice(["c0", "c1"])])

    # what keeps, adds or takes away an axis
    def keep(self, v):
        return self.add(self.rng.choice(["Tanh", "Neg", "Relu"]), [v[0]]), v[1]

    def front(self, v):
        return self.add("Unsqueeze", [v[0], "front"]), {r + 1 for r in v[1]}

    def drop(self, v):
        return (self.add("ReduceMax", [v[0], "front"], keepdims=0), {r - 1 for r in v[1]}) if min(v[1]) > 1 else self.keep(v)

    def change(self, v):
        return getattr(self, self.rng.choice(["keep", "front", "drop"] if max(v[1]) < 4 else ["keep", "drop"]))(v)

    def both(self, v, w):
        return self.add(self.rng.choice(["Add", "Mul", "Max"]), [v[0], w[0]]), {max(a, b) for a in v[1] for b in w[1]}

    def wide(self, v):
        return self.add("Slice", [self.add("Concat", [v[0], v[0]], axis=-1), "front", "end", "last"]), v[1]

    def call(self, v):
        which = self.rng.choice(FUNCTIONS)
        if max(v[1]) > 3 or min(v[1]) < 2:
            return self.keep(v)
        name = f"{self.prefix}v{len(self.nodes)}"
        self.nodes.append(h.make_node(which, [v[0], "c0"], [name, name + "_sum"], domain="local"))
        return name, v[1] | ({r + 1 for r in v[1]} if which == "maybe_front" else {r - 1 for r in v[1]})

    def choose(self, have):
        cond, sides = self.condition(have), []
        name = f"{self.prefix}v{len(self.nodes)}"
        for k in "te":
            inner = Nodes(self.rng, f"{name}{k}", self.depth + 1)
            out = inner.change(self.rng.choice(have))
            for _ in range(self.rng.randint(0, 1)):
                out = inner.step(have + [out])
            out = (inner.add("Identity", [out[0]]), out[1])
            sides.append((out, h.make_graph(inner.nodes, "branch", [], [empty(out[0])])))
        self.nodes.append(h.make_node("If", [cond], [name], then_branch=sides[0][1], else_branch=sides[1][1]))
        return name, sides[0][0][1] | sides[1][0][1]

    def total(self, v):
        """One rank again."""
        kind = self.rng.randint(0, 2)
        if kind == 0:
            return self.add("ReduceSum", [v[0]], keepdims=0), {0}
        if kind == 1:
            flat = self.add("Reshape", [v[0], "flat"])
            return self.add("ReduceMean", [flat], keepdims=0), {0}
        return self.add("Cast", [self.add("Size", [v[0]])], to=T.FLOAT), {0}

    def back(self, v, to):
        """As `to`, whatever rank v has."""
        return self.add("Add", [self.add("Mul", [to[0], "half"]), self.add("Tanh", [self.total(v)[0]])]), to[1]

    def body(self, have, scan):
        p = f"{self.prefix}v{len(self.nodes)}b"
        inner, state = Nodes(self.rng, p, self.depth + 1), (f"{p}s", {2})
        mine = [state] + ([(f"{p}r", {1})] if scan else [])
        for _ in range(self.rng.randint(1, 3)):
            mine.append(inner.step(mine + have[:1]))
        out = inner.back(mine[-1], state)[0]
        extra = inner.total(mine[-1])[0]
        return inner.nodes, p, [out, extra]

    def loop(self, have):
        start = self.rng.choice([v for v in have if v[1] == {2}])
        nodes, p, outs = self.body(have, False)
        name = f"{self.prefix}v{len(self.nodes)}"
        nodes.append(h.make_node("Identity", [f"{p}c"], [f"{p}go"]))
        g = h.make_graph(nodes, "body", [scalar(f"{p}i"), scalar(f"{p}c", T.BOOL), h.make_tensor_value_info(f"{p}s", T.FLOAT, None)],
                         [empty(f"{p}go")] + [empty(o) for o in outs])
        self.nodes.append(h.make_node("Loop", ["twice", "", start[0]], [name, name + "_sums"], body=g))
        return name, {2}

    def scan(self, have):
        start = self.rng.choice([v for v in have if v[1] == {2}])
        nodes, p, outs = self.body(have, True)
        name = f"{self.prefix}v{len(self.nodes)}"
        g = h.make_graph(nodes, "body", [h.make_tensor_value_info(f"{p}{k}", T.FLOAT, None) for k in "sr"],
                         [h.make_tensor_value_info(outs[0], T.FLOAT, [None, WIDTH]), scalar(outs[1], T.FLOAT)])
        self.nodes.append(h.make_node("Scan", [start[0], "x"], [name, name + "_sums"], body=g, num_scan_inputs=1))
        return name, {2}

    def step(self, have):
        kinds = ["keep", "change", "both", "both", "wide", "choose", "choose", "call"] + ["loop", "scan"] * (self.depth < 1)
        kind = self.rng.choice(kinds if self.depth < 2 else kinds[:5])
        v = self.rng.choice(have[-3:])
        if kind == "both":
            return self.both(v, self.rng.choice(have))
        return getattr(self, kind)(have if kind in ("choose", "loop", "scan") else v)


def function(name):
    """A result that is larger or smaller by an axis where data say so, and one that is neither."""
    other = h.make_node("Unsqueeze", ["a", "f"], ["b"]) if name == "maybe_front" else h.make_node("ReduceMin", ["a", "f"], ["b"], keepdims=0)
    nodes = [h.make_node("Constant", [], ["f"], value=nh.from_array(np.array([0], np.int64))),
             h.make_node("ReduceMin", ["a"], ["least"], keepdims=0), h.make_node("Less", ["least", "limit"], ["cond"]),
             h.make_node("If", ["cond"], ["y"], then_branch=h.make_graph([other], "t", [], [empty("b")]),
                         else_branch=h.make_graph([h.make_node("Neg", ["a"], ["d"])], "e", [], [empty("d")])),
             h.make_node("ReduceSum", ["y"], ["sum"], keepdims=0)]
    return h.make_function("local", name, ["a", "limit"], ["y", "sum"], nodes, [h.make_opsetid("", OPSET)])


def model(rng):
    g = Nodes(rng, "m")
    rng.rows = rng.choice(["n", "n", 1, 2])
    have = [("x", {2}), g.keep(("x", {2}))]
    have.append(g.choose(have))
    for _ in range(rng.randint(2, 6)):
        have.append(g.step(have))
    outs = []
    for v in have[2:]:
        outs.append(g.back(v, ("x", {2}))[0] if len(v[1]) > 1 else v[0])
    constants = dict(CONSTANTS, one0=np.int64(0), few=np.int64(4), c0=np.float32(0.1), c1=np.float32(0.6))
    graph = h.make_graph(g.nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, [rng.rows, WIDTH])],
                         [h.make_tensor_value_info(o, T.FLOAT, None) for o in outs],
                         [nh.from_array(np.array(v), k) for k, v in constants.items()])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET), h.make_opsetid("local", 1)], ir_version=8,
                        functions=[function(f) for f in FUNCTIONS])


def feeds(rng, values):
    return {"x": values.standard_normal((rng.choice([1, 2, 5]) if rng.rows == "n" else rng.rows, WIDTH)).astype(np.float32)}


# ---- what is refused ----
def refused(name, nodes, outputs, words):
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, [2, WIDTH]), scalar("c", T.BOOL)],
                         [h.make_tensor_value_info(o, T.FLOAT, None) for o in outputs], [nh.from_array(CONSTANTS["front"], "front")])
    try:
        burin.compile(h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=8))
    except burin.CompileError as e:
        return check(name, all(w in str(e) for w in words), e)
    check(name, False, "is compiled")


def fork(source, out):
    return h.make_node("If", ["c"], [out], then_branch=h.make_graph([h.make_node("Unsqueeze", [source, "front"], [out + "t"])], "t", [], [empty(out + "t")]),
                       else_branch=h.make_graph([h.make_node("Neg", [source], [out + "e"])], "e", [], [empty(out + "e")]))


def branch_that_cannot_run():
    """No run gets through one branch: the other one is right, and the run that takes it fails."""
    nodes = [fork("x", "y"), h.make_node("Transpose", ["y"], ["w"], perm=[1, 0]), h.make_node("Add", ["w", "w"], ["z"])]
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, ["n", WIDTH]), scalar("c", T.BOOL)],
                         [h.make_tensor_value_info("z", T.FLOAT, [WIDTH, "n"])], [nh.from_array(CONSTANTS["front"], "front")])
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=8)
    x = np.arange(6, dtype=np.float32).reshape(2, WIDTH)
    for flags in ([], ["-O0"]):
        m = burin.compile(proto, flags=flags)
        check(f"the branch that can run {flags}", np.array_equal(m.run({"x": x, "c": np.array(False)})[0], -2 * x.T))
        try:
            m.run({"x": x, "c": np.array(True)})
            check(f"the branch that cannot run {flags}", False, "it did")
        except burin.RunError as e:
            check(f"the branch that cannot run {flags}", "a branch was taken" in str(e), e)


def branch(name, nodes, out):
    return h.make_graph(nodes, name, [], [empty(out)])


def if_node(cond, out, then_nodes, else_nodes):
    return h.make_node("If", [cond], [out], then_branch=branch("t", then_nodes, out + "t"), else_branch=branch("e", else_nodes, out + "e"))


def proto_of(nodes, z, ranked=True, constants=()):
    inputs = [h.make_tensor_value_info("x", T.FLOAT, ["n", WIDTH]), scalar("c", T.BOOL)]
    values = [nh.from_array(np.asarray(v, np.int64), k) for k, v in (("front", [0]), ("one", 1), *constants)]
    graph = h.make_graph(nodes, "g", inputs, [h.make_tensor_value_info("z", T.FLOAT, z) if ranked else empty("z")], values)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=8)


def attempt(label, m, x, c, want, message):
    """want: what the run gives; None: it fails with that message."""
    try:
        got = m.run({"x": x, "c": np.array(c)})[0]
        check(label, want is not None and got.shape == want.shape and np.array_equal(got, want), got)
    except burin.RunError as e:
        check(label, want is None and message in str(e), e)


def declared_ranks():
    """An output whose rank depends on a branch has the one that the model declares; other runs fail."""
    size = [h.make_node("Shape", ["x"], ["s"]), h.make_node("Gather", ["s", "front"], ["n0"]), h.make_node("Equal", ["n0", "one"], ["same"])]
    drop = [h.make_node("Squeeze", ["x", "front"], ["yt"])]
    keep = [h.make_node("Neg", ["x"], ["ye"])]
    two, one = np.arange(2 * WIDTH, dtype=np.float32).reshape(2, WIDTH), np.ones((1, WIDTH), np.float32)
    for flags in ([], ["-O0"]):
        m = burin.compile(proto_of([*size, if_node("same", "y", drop, keep), h.make_node("Add", ["y", "y"], ["z"])], ["n", WIDTH]), flags=flags)
        attempt(f"a size chooses the declared rank {flags}", m, two, True, -2 * two, "")
        attempt(f"a size chooses another rank {flags}", m, one, True, None, "the model needs at least 2")
        m = burin.compile(proto_of([*size, if_node("same", "y", drop, keep), h.make_node("Add", ["y", "y"], ["z"])], [WIDTH]), flags=flags)
        attempt(f"the declared rank is the smaller one {flags}", m, one, True, 2 * one[0], "")
        m = burin.compile(proto_of([fork("x", "y"), h.make_node("Add", ["y", "y"], ["z"])], [1, "n", WIDTH]), flags=flags)
        attempt(f"data choose the declared rank {flags}", m, two, True, 2 * two[None], "")
        attempt(f"data choose another rank {flags}", m, two, False, None, "a branch was taken")


def lists_of_sizes():
    """Shapes that differ in length, or in their elements, chosen by data or by sizes."""
    size = [h.make_node("Shape", ["x"], ["s"]), h.make_node("Gather", ["s", "front"], ["n0"]), h.make_node("Equal", ["n0", "one"], ["same"])]
    lists = {"flat1": [-1], "flat2": [WIDTH, -1], "wide": [1, -1], "high": [-1, 1]}
    same = lambda k: [h.make_node("Identity", [k], ["ye"])]
    x = {n: np.arange(n * WIDTH, dtype=np.float32).reshape(n, WIDTH) for n in (1, 2, 4)}
    for cond in ("c", "same"):
        longer = [if_node(cond, "y", [h.make_node("Identity", ["flat1"], ["yt"])], same("flat2")), h.make_node("Reshape", ["x", "y"], ["r"]),
                  h.make_node("ReduceSum", ["r"], ["z"], keepdims=0)]
        equal = [if_node(cond, "y", [h.make_node("Identity", ["wide"], ["yt"])], same("high")), h.make_node("Reshape", ["x", "y"], ["r"]),
                 h.make_node("ReduceSum", ["r", "front"], ["z"], keepdims=0)]
        m = burin.compile(proto_of([*size, *longer], [], constants=lists.items()))
        for n, c in itertools.product(x, (False, True)):
            attempt(f"lists of two lengths, by {cond}: {n}, {c}", m, x[n], c, np.float32(x[n].sum()), "")
        m = burin.compile(proto_of([*size, *equal], ["k"], constants=lists.items()))
        for n, c in itertools.product(x, (False, True)):
            wide = c if cond == "c" else n == 1
            attempt(f"lists of one length, by {cond}: {n}, {c}", m, x[n], c, x[n].reshape([1, -1] if wide else [-1, 1]).sum(0), "")


def refusals():
    refused("an output of two ranks", [fork("x", "y"), h.make_node("Neg", ["y"], ["z"])], ["z"], ['"z"', "different ranks", "output of the model"])
    chain = [fork("x", "y0")] + [fork("y0", f"y{k}") for k in range(1, 18)]
    sums = [h.make_node("Max", [f"y{k}" for k in range(18)], ["m"]), h.make_node("ReduceSum", ["m"], ["z"], keepdims=0)]
    refused("copies without end", chain + sums, ["z"], ["different ranks", "copies of nodes"])


if __name__ == "__main__":
    refusals()
    branch_that_cannot_run()
    declared_ranks()
    lists_of_sizes()
    sys.exit(run_time_sizes.run(model, feeds, [run_time_sizes.interpret, run_time_sizes.c_source]))
