"""Graphs of many nodes, and control flow in control flow, against numpy and ONNX Runtime.

    run_scale.py [--nodes N]      N: of the long chain (default 8,000; 100,000 take a minute and a gigabyte)"""
import argparse
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

import burin

I, F, B = T.INT64, T.FLOAT, T.BOOL


def info(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(graph, functions=(), domains=()):
    imports = [helper.make_opsetid("", 21)] + [helper.make_opsetid(d, 1) for d in domains]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def chain(n, rng):
    """n nodes in a row, some of which read the input and the weights again; and what they compute."""
    x = rng.standard_normal((4, 8)).astype(np.float32)
    w = (rng.standard_normal((8, 8)) * 0.3).astype(np.float32)
    c = np.full(8, 0.1, np.float32)
    nodes, last, value = [], "x", x
    for i in range(n):
        kind, name = i % 10, f"v{i}"
        if kind == 9:
            nodes.append(helper.make_node("MatMul", [last, "w"], [name]))
            value = value @ w
        elif kind == 4:
            nodes.append(helper.make_node("Tanh", [last], [name]))
            value = np.tanh(value)
        else:
            op, other = ("Add", "Mul", "Sub")[i % 3], "c" if i % 7 else "x"
            nodes.append(helper.make_node(op, [last, other], [name]))
            y = c if i % 7 else x
            value = value + y if op == "Add" else value * y if op == "Mul" else value - y
        last = name
    graph = helper.make_graph(nodes, "chain", [info("x", F, [4, 8])], [info(last, F, [4, 8])],
                              [numpy_helper.from_array(w, "w"), numpy_helper.from_array(c, "c")])
    return model(graph), {"x": x}, value


def nested():
    """A Scan in a Loop in a Scan; the innermost body reads values of every graph around it."""
    inner = helper.make_graph(
        [helper.make_node("Mul", ["e", "w"], ["ew"]), helper.make_node("Add", ["ew", "outer_state"], ["t"]),
         helper.make_node("Add", ["t", "step"], ["u"]), helper.make_node("Add", ["s", "u"], ["s2"]),
         helper.make_node("Tanh", ["s2"], ["o"])],
        "inner", [info("s", F, [3]), info("e", F, [3])], [info("s2", F, [3]), info("o", F, [3])])
    loop = helper.make_graph(
        [helper.make_node("Cast", ["i"], ["step"], to=F), helper.make_node("Scan", ["v", "row"], ["v2", "os"], body=inner,
                                                                        num_scan_inputs=1),
         helper.make_node("ReduceMean", ["os"], ["mean"], keepdims=0), helper.make_node("Identity", ["c"], ["go"])],
        "loop", [info("i", I, []), info("c", B, []), info("v", F, [3])],
        [info("go", B, []), info("v2", F, [3]), info("mean", F, [])])
    outer = helper.make_graph(
        [helper.make_node("Loop", ["trips", "", "outer_state"], ["state2", "means"], body=loop),
         helper.make_node("Mul", ["state2", "half"], ["next"])],
        "outer", [info("outer_state", F, [3]), info("row", F, ["n", 3])], [info("next", F, [3]), info("means", F, [4])])
    graph = helper.make_graph(
        [helper.make_node("Scan", ["start", "x"], ["end", "all"], body=outer, num_scan_inputs=1)], "g",
        [info("start", F, [3]), info("x", F, [5, 2, 3]), info("w", F, [3])], [info("end", F, [3]), info("all", F, None)],
        [numpy_helper.from_array(np.array(4), "trips"), numpy_helper.from_array(np.array(0.5, np.float32), "half")])
    return model(graph), {"start": (3,), "x": (5, 2, 3), "w": (3,)}


def functions():
    """Functions that call functions, one of them in the branch of an If that reads values around it."""
    def function(name, ins, outs, nodes):
        return helper.make_function("own", name, ins, outs, nodes, [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)])

    double = function("Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])])
    then = helper.make_graph([helper.make_node("Double", ["q"], ["r"], domain="own")], "t", [], [info("r", F, None)])
    other = helper.make_graph([helper.make_node("Neg", ["p"], ["r2"])], "e", [], [info("r2", F, None)])
    pick = function("Pick", ["p", "q"], ["y"],
                    [helper.make_node("ReduceSum", ["p"], ["sum"], keepdims=0), helper.make_node("Cast", ["sum"], ["yes"], to=B),
                     helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other)])
    twice = function("Twice", ["p", "q"], ["z"], [helper.make_node("Pick", ["p", "q"], ["m"], domain="own"),
                                                  helper.make_node("Pick", ["q", "m"], ["z"], domain="own")])
    graph = helper.make_graph([helper.make_node("Twice", ["a", "b"], ["y"], domain="own"),
                               helper.make_node("Double", ["y"], ["z"], domain="own")], "g",
                              [info("a", F, [3]), info("b", F, [3])], [info("z", F, None)])
    return model(graph, (double, pick, twice), ("own",)), {"a": (3,), "b": (3,)}


def against_onnxruntime(name, make, rng, report):
    m, shapes = make()
    session = onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
    for flags in ((), ("-O0",)):
        compiled = burin.compile(m, flags=flags)
        for _ in range(3):
            feeds = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
            wants, gots = session.run(None, feeds), compiled.run(feeds)
            worst = max(float(np.max(np.abs(g - w), initial=0)) for g, w in zip(gots, wants))
            same = [g.shape for g in gots] == [w.shape for w in wants]
            report(f"{name} {' '.join(flags)}", same and worst < 1e-5, f"differ by {worst:.3g}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("burin", nargs="?")
    parser.add_argument("--nodes", type=int, default=8000)
    args = parser.parse_args()
    counts = [0, 0]

    def report(name, ok, why):
        counts[not ok] += 1
        if not ok:
            print(f"FAILED {name}: {why}", flush=True)

    rng = np.random.default_rng(1)
    m, feeds, want = chain(args.nodes, rng)
    start = time.perf_counter()
    got = burin.compile(m).run(feeds)[0]
    print(f"{args.nodes} nodes: {time.perf_counter() - start:.1f} s")
    worst = float(np.max(np.abs(got - want)) / max(1e-6, float(np.max(np.abs(want)))))
    report(f"{args.nodes} nodes", worst < 1e-3, f"relative error {worst:.3g}")
    against_onnxruntime("Scan in Loop in Scan", nested, rng, report)
    against_onnxruntime("functions", functions, rng, report)
    print(f"{counts[0]} passed, {counts[1]} failed, 0 skipped")
    return counts[1] != 0


if __name__ == "__main__":
    sys.exit(main())
