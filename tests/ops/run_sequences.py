#!/usr/bin/env python3
"""Part "sequences": sequences whose length only the run knows. Random programs that build, shorten and read them in Loops, Ifs and at
positions that are data, against ONNX Runtime: compiled (run several times with one heap), at -O0, interpreted, and as C. Sequences, optionals and
maps as inputs and outputs (list_borders.py)."""
import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT)]

import numpy as np
from onnx import TensorProto as T, helper as h, numpy_helper as nh

import burin
from tests.support import list_borders, run_time_sizes
from tests.support.part import check
from tests.support.run_time_sizes import scalar

WIDTH = 3


class Program:
    """Nodes over sequences (lists) and matrices; every sequence has at least one item."""

    def __init__(self, rng, prefix, number, depth=0):
        self.rng, self.prefix, self.number, self.depth, self.nodes = rng, prefix, number, depth, []

    def add(self, op, inputs, **attributes):
        self.nodes.append(h.make_node(op, inputs, [f"{self.prefix}v{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def position(self, s):
        """A position of s that is data, from either end."""
        at = self.add("Mod", [self.number, self.add("SequenceLength", [s])])
        return self.add("Sub", [at, self.add("SequenceLength", [s])]) if self.rng.random() < 0.3 else at

    def branches(self, s, then, otherwise, k):
        graphs = []
        for name, make in (("t", then), ("e", otherwise)):
            inner = Program(self.rng, f"{self.prefix}{len(self.nodes)}{name}", self.number, self.depth + 1)
            out = inner.add("Identity", [make(inner)])
            graphs.append(h.make_graph(inner.nodes, "branch", [], [h.make_tensor_sequence_value_info(out, T.FLOAT, [None, WIDTH])]))
        long = self.add("Less", [k, self.add("SequenceLength", [s])])
        return self.add("If", [long], then_branch=graphs[0], else_branch=graphs[1])

    def step(self, lists, matrices):
        s, x = self.rng.choice(lists), self.rng.choice(matrices)
        kind = self.rng.choice(["append", "append", "insert", "erase", "at", "at", "join"] + ["branch"] * (self.depth < 2))
        if kind == "append":
            lists.append(self.add("SequenceInsert", [s, x]))
        elif kind == "insert":
            lists.append(self.add("SequenceInsert", [s, x, self.position(s)]))
        elif kind == "erase":
            lists.append(self.branches(s, lambda p: p.add("SequenceErase", [s, p.position(s)]), lambda p: p.add("SequenceInsert", [s, x]), "one"))
        elif kind == "at":
            matrices.append(self.add("SequenceAt", [s, self.position(s)]))
        elif kind == "join":
            all = self.add("ConcatFromSequence", [s], axis=0)
            matrices.append(self.add("Slice", [all, "from", "to", "from"]))
        else:
            other = self.rng.choice(lists)
            lists.append(self.branches(s, lambda p: p.add("SequenceInsert", [s, x]), lambda p: other, "few"))


def loop(rng, outer, s, matrices, depth):
    """A Loop that carries a sequence and a matrix."""
    prefix = f"{outer.prefix}l{len(outer.nodes)}"
    body = Program(rng, prefix, f"{prefix}i", depth)
    lists, have = [f"{prefix}s"], matrices + [f"{prefix}x"]
    for _ in range(rng.randint(1, 4)):
        body.step(lists, have)
    if depth == 0 and rng.random() < 0.4:
        lists.append(loop(rng, body, rng.choice(lists), matrices, 1)[0])
    length = body.add("SequenceLength", [lists[-1]])
    out = [body.add("Identity", [f"{prefix}c"]), body.add("Identity", [lists[-1]]), body.add("Identity", [have[-1]]), length]
    sequence = lambda name: h.make_tensor_sequence_value_info(name, T.FLOAT, [None, WIDTH])
    matrix = lambda name: h.make_tensor_value_info(name, T.FLOAT, [None, WIDTH])
    graph = h.make_graph(body.nodes, "body", [scalar(f"{prefix}i"), scalar(f"{prefix}c", T.BOOL), sequence(f"{prefix}s"), matrix(f"{prefix}x")],
                         [scalar(out[0], T.BOOL), sequence(out[1]), matrix(out[2]), scalar(out[3])])
    results = [f"{prefix}{k}" for k in ("seq", "mat", "lengths")]
    outer.nodes.append(h.make_node("Loop", ["trips" if depth == 0 else "few", "", s, rng.choice(matrices)], results, body=graph))
    return results


def model(rng):
    p = Program(rng, "p", "place")
    s = p.add("SequenceConstruct", ["x", "r"]) if rng.random() < 0.7 else p.add("SplitToSequence", ["x", "sizes"], axis=0)
    lists, matrices = [s], ["x", "r"]
    for _ in range(rng.randint(0, 2)):
        p.step(lists, matrices)
    s, x, lengths = loop(rng, p, lists[-1], ["x", "r"], 0)
    lists, matrices = [s], ["x", x]
    for _ in range(rng.randint(0, 3)):
        p.step(lists, matrices)
    outputs = [p.add("ConcatFromSequence", [lists[-1]], axis=0), p.add("SequenceAt", [lists[-1], p.position(lists[-1])]), matrices[-1]]
    outputs = [p.add("Identity", [o]) for o in outputs]
    constants = {"from": np.array([0], np.int64), "to": np.array([7], np.int64), "one": np.int64(1), "few": np.int64(3)}
    graph = h.make_graph(p.nodes, "g", [scalar("trips"), scalar("place"), h.make_tensor_value_info("x", T.FLOAT, [4, WIDTH]),
                                        h.make_tensor_value_info("r", T.FLOAT, ["n", WIDTH]), h.make_tensor_value_info("sizes", T.INT64, ["k"])],
                         [h.make_tensor_value_info(o, T.FLOAT, [None, WIDTH]) for o in outputs] + [h.make_tensor_value_info(lengths, T.INT64, [None])],
                         [nh.from_array(np.array(v), k) for k, v in constants.items()])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def feeds(rng, values):
    return {"trips": np.array(rng.choice([0, 1, 2, 6]), np.int64), "place": np.array(rng.randrange(9), np.int64),
            "x": values.random((4, WIDTH), np.float32), "r": values.random((rng.choice([0, 1, 5]), WIDTH), np.float32),
            "sizes": np.array(rng.choice([[4], [1, 3], [2, 0, 2], [1, 1, 1, 1]]), np.int64)}


def branch(kind):
    """Nodes that give y: a sequence of the run, an optional, or a number as which either is stored."""
    lists = {"sequence": ("SequenceInsert", ["s", "x"]), "optional": ("Optional", ["x"])}
    if kind in lists:
        return [h.make_node(*lists[kind], ["y"])]
    return [h.make_node("Identity", ["k"], ["y"])]


def merges():
    """What leaves an If, or goes round a Loop, is a list in every place or in none: both are one i64."""
    scalar = lambda name, t=T.INT64: h.make_tensor_value_info(name, t, [])
    inputs = [list_borders.sequence("s"), h.make_tensor_value_info("x", T.FLOAT, [2, 3]), scalar("k"), scalar("c", T.BOOL)]
    empty = h.make_empty_tensor_value_info
    for yes, no in itertools.product(("sequence", "optional", "number"), repeat=2):
        graphs = {f"{name}_branch": h.make_graph(branch(kind), name, [], [empty("y")]) for name, kind in (("then", yes), ("else", no))}
        nodes = [h.make_node("If", ["c"], ["z"], **graphs), h.make_node("Identity" if yes == "number" else "SequenceLength", ["z"], ["n"])]
        if {yes, no} == {"optional"}:
            nodes[1] = h.make_node("OptionalHasElement", ["z"], ["n"])
        model = list_borders.build(nodes, inputs, [empty("n")])
        try:
            m = burin.compile(model)
            s, x = [np.ones((2, 3), np.float32)] * 3, np.zeros((2, 3), np.float32)
            want = {"sequence": 4, "optional": True, "number": 9}[yes]
            for c in (False, True):
                got = m.run({"s": s, "x": x, "k": np.int64(9), "c": np.array(c)})[0]
                check(f"{yes} and {no}: {c}", yes == no and got == want, got)
        except burin.CompileError as e:
            check(f"{yes} and {no}", yes != no and any(w in str(e) for w in ("a sequence or an optional in one place", "different ranks or types", "needs a sequence")), e)
    body = h.make_graph([h.make_node("Identity", ["go"], ["on"]), *branch("number")], "body", [scalar("i"), scalar("go", T.BOOL), list_borders.sequence("l")],
                        [scalar("on", T.BOOL), empty("y")])
    try:
        burin.compile(list_borders.build([h.make_node("Loop", ["k", "", "s"], ["z"], body=body), h.make_node("SequenceLength", ["z"], ["n"])], inputs, [empty("n")]))
        check("a Loop that ends with a number", False, "is compiled")
    except burin.CompileError as e:
        check("a Loop that ends with a number", "a sequence or an optional in one place" in str(e), e)


if __name__ == "__main__":
    list_borders.test_all()
    merges()
    sys.exit(run_time_sizes.run(model, feeds, [run_time_sizes.c_source]))
