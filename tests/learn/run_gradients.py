"""Gradients against central differences in double, for every operator that has one.

    run_gradients.py [BURIN] [--only TEXT] [--twice] [--seed N]"""
import argparse
import os
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "python"))
from learn import gradient_cases  # noqa: E402


def weighted(case, rng, burin):
    """The case's model with the output z = sum of y times constant weights; and what gives z in another way."""
    plain = burin.compile(case.model())
    y = plain.run({k: v for k, v in case.draw(rng).items() if k in case.inputs})[0]
    model = case.model()
    w = rng.uniform(0.5, 1.5, np.shape(y))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(w, np.float64), "weights_of_y"))
    model.graph.node.append(helper.make_node("Mul", ["y", "weights_of_y"], ["weighted"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["weighted"], ["z"], keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("z", gradient_cases.F, []))
    return model, lambda values: np.sum(plain.run(values)[0] * w)


def differences(run, values, names, step):
    """dz/dx by (z(x + h) - z(x - h)) / 2h."""
    result = {}
    for name in names:
        d = np.zeros_like(values[name])
        for k in np.ndindex(d.shape):
            z = []
            for sign in (1, -1):
                moved = dict(values, **{name: values[name].copy()})
                moved[name][k] += sign * step
                z.append(float(run(moved)))
            d[k] = (z[0] - z[1]) / (2 * step)
        result[name] = d
    return result


def check(case, rng, burin):
    """Behind a gradient operators may stand in simpler ones, which must give the same."""
    model, plain = weighted(case, rng, burin)
    names = list(case.inputs)
    compiled = burin.compile(model, flags=[f"--gradient=z:{','.join(names)}"])
    values = {k: v for k, v in case.draw(rng).items() if k in case.inputs}
    results, alone = compiled.run(values), plain(values)
    assert abs(results[0] - alone) <= 2e-6 * (1 + abs(alone)), f"{results[0]} with a gradient, {alone} without"
    wanted = differences(lambda v: compiled.run(v)[0], values, names, case.near)
    worst = 0.0
    for name, got in zip(names, results[1:]):
        want = wanted[name]
        assert got.shape == want.shape, f"{name}: {got.shape}, not {want.shape}"
        worst = max(worst, float(np.max(np.abs(got - want) / (1 + np.abs(want)), initial=0)))
    return worst


def check_twice(case, rng, burin):
    """Sums of first derivatives times weights, differentiated again, against differences of these."""
    model, _ = weighted(case, rng, burin)
    names = list(case.inputs)
    first = f"--gradient=z:{','.join(names)}"
    compiled = burin.compile(model, flags=[first, *(f"--gradient={n}_grad:{','.join(names)}" for n in names)])
    values = {k: v for k, v in case.draw(rng).items() if k in case.inputs}
    results = compiled.run(values)
    worst = 0.0
    for i, of in enumerate(names):
        wanted = differences(lambda v: np.sum(compiled.run(v)[1 + i]), values, names, case.near)
        for j, name in enumerate(names):
            got, want = results[1 + len(names) * (1 + i) + j], wanted[name]
            worst = max(worst, float(np.max(np.abs(got - want) / (1 + np.abs(want)), initial=0)))
    return worst


def check_open(case, sizes, rng, burin):
    """Of sizes that only a run knows: what fixed ones give. sizes: input -> positions of these."""
    model, _ = weighted(case, rng, burin)
    flags = [f"--gradient=z:{','.join(case.inputs)}"]
    values = {k: v for k, v in case.draw(rng).items() if k in case.inputs}
    wanted = burin.compile(model, flags=flags).run(values)
    for info in model.graph.input:
        for d in sizes.get(info.name, ()):
            info.type.tensor_type.shape.dim[d].dim_param = f"{info.name}{d}"
    got = burin.compile(model, flags=flags).run(values)
    assert [g.shape for g in got] == [w.shape for w in wanted], f"shapes {[g.shape for g in got]}"
    return max(float(np.max(np.abs(g - w) / (1 + np.abs(w)), initial=0)) for g, w in zip(got, wanted))


TRAINING = "ai.onnx.preview.training"


def gradient_operator(burin):
    """Operator Gradient: of the values it names, of others in their place, of another one's result."""
    node, info, f = helper.make_node, helper.make_tensor_value_info, gradient_cases.F
    nodes = [node("Add", ["a", "b"], ["c"]), node("Mul", ["c", "a"], ["d"]),
             node("Gradient", ["a", "b"], ["da", "db"], domain=TRAINING, xs=["a", "b"], y="d"),
             node("Gradient", ["h", "b"], ["at_h"], domain=TRAINING, xs=["a"], zs=["b"], y="d"),
             node("Gradient", ["h", "b"], ["twice"], domain=TRAINING, xs=["h"], zs=["b"], y="at_h")]
    graph = helper.make_graph(nodes, "g", [info(n, f, []) for n in "abh"],
                              [info(n, f, None) for n in ("da", "db", "at_h", "twice")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(TRAINING, 1)])
    got = [float(v) for v in burin.compile(model).run({"a": np.array(2.0), "b": np.array(3.0), "h": np.array(5.0)})]
    return got == [7, 2, 13, 2], f"{got}"  # 2a + b, a, 2h + b, 2


def gradient_of_others(burin):
    """Operator Gradient at other values: through a branch that captures them, and thirty diamonds."""
    node, info, f = helper.make_node, helper.make_tensor_value_info, gradient_cases.F
    branches = [helper.make_graph([node(op, ["a", "b"], [op])], op, [], [info(op, f, [])]) for op in ("Mul", "Add")]
    nodes = [node("Less", ["zero", "b"], ["c"]), node("If", ["c"], ["p0"], then_branch=branches[0], else_branch=branches[1])]
    nodes += [node("Add", [f"p{k}", f"p{k}"], [f"p{k + 1}"]) for k in range(30)]
    nodes += [node("Gradient", ["h", "b"], ["dh"], domain=TRAINING, xs=["a"], zs=["b"], y="p30"),
              node("Gradient", ["h", "q"], ["dq"], domain=TRAINING, xs=["a", "b"], y="p30")]
    nodes[-1].output[:] = ["", "dq"]
    graph = helper.make_graph(nodes, "g", [info(n, f, []) for n in "abhq"], [info(n, f, None) for n in ("dh", "dq")],
                              [numpy_helper.from_array(np.array(0.0), "zero")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(TRAINING, 1)])
    run = burin.compile(model).run
    got = [[float(v) / 2 ** 30 for v in run({"a": np.array(2.0), "b": np.array(b), "h": np.array(5.0), "q": np.array(q)})]
           for b, q in ((3.0, 7.0), (-3.0, 7.0), (3.0, -7.0))]
    return got == [[3, 5], [1, 5], [3, 1]], f"{got}"  # b and h where the branch multiplies, else 1


def refusals(burin):
    """(what, flags, a piece of the message) for a graph of two lists, which have no gradient yet."""
    node, info, f = helper.make_node, helper.make_tensor_value_info, gradient_cases.F
    nodes = [node("SplitToSequence", ["x", "one"], ["a"]), node("SequenceAt", ["a", "i"], ["b"]), node("Neg", ["x"], ["n"]),
             node("SplitToSequence", ["n", "one"], ["c"]), node("SequenceAt", ["c", "i"], ["d"]), node("Add", ["b", "d"], ["y"]), node("Floor", ["x"], ["z"])]
    graph = helper.make_graph(nodes, "g", [info("x", f, ["n"]), info("i", TensorProto.INT64, [])], [info("y", f, None), info("z", f, None)],
                              [numpy_helper.from_array(np.array(1), "one")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])
    for what, flag, words in (("names every node", "y:x", ["node 0", "node 3", "SequenceSplit has no gradient yet"]),
                              ("unknown value", "y:w", ["no value 'w'"]), ("no colon", "y", ["give Y:X"]),
                              ("unknown result", "q:x", ["no value 'q'"])):
        try:
            burin.compile(model, flags=[f"--gradient={flag}"])
            yield what, False, "accepted"
        except burin.CompileError as e:
            yield what, all(w in str(e) for w in words), str(e)
    body = helper.make_graph([node("SequenceInsert", ["s", "x"], ["t"]), node("Identity", ["go"], ["on"])], "body",
                             [info("k", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), helper.make_tensor_sequence_value_info("s", f, ["n"])],
                             [info("on", TensorProto.BOOL, []), helper.make_tensor_sequence_value_info("t", f, ["n"])])
    gathered = [node("SequenceEmpty", [], ["none"], dtype=f), node("Loop", ["i", "", "none"], ["all"], body=body), node("ConcatFromSequence", ["all"], ["y"], axis=0)]
    graph = helper.make_graph(gathered, "g", [info("x", f, ["n"]), info("i", TensorProto.INT64, [])], [info("y", f, None)])
    try:
        burin.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)]), flags=["--gradient=y:x"])
        yield "a list out of a Loop", False, "accepted"
    except burin.CompileError as e:
        yield "a list out of a Loop", "SequenceJoin has no gradient yet" in str(e), str(e)
    zeros = burin.compile(model, flags=["--gradient=z:x"]).run({"x": np.ones(3), "i": np.array(0)})[-1]
    yield "cut: zeros", np.array_equal(zeros, np.zeros(3)), str(zeros)


class Count:
    def __init__(self):
        self.passed = self.failed = 0

    def add(self, name, ok, why):
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        if not ok:
            print(f"FAILED {name}: {why.strip()[-400:]}", flush=True)


def run_case(case, how, rng, burin, count):
    try:
        worst = how(case, rng, burin)
        count.add(f"{how.__name__} {case.name}", worst < case.tolerance, f"relative error {worst:.2g}")
        return worst
    except Exception as e:  # noqa: BLE001
        count.add(f"{how.__name__} {case.name}", False, str(e))
        return 0.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("burin", nargs="?")
    parser.add_argument("--only", default="", help="cases whose family and name have this text")
    parser.add_argument("--twice", action="store_true", help="second derivatives of all of them, not of a sixth")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    args = parser.parse_args()
    if args.burin:
        os.environ["BURIN"] = args.burin
    import burin
    count, worst = Count(), 0.0
    print(f"seed {args.seed}")
    for number, (family, case) in enumerate(gradient_cases.all_cases()):
        if args.only not in f"{family} {case.name}":
            continue
        rng = np.random.default_rng([args.seed, number])
        worst = max(worst, run_case(case, check, rng, burin, count))
        if args.twice or (args.seed + number) % 6 == 0:
            worst = max(worst, run_case(case, check_twice, rng, burin, count))
    for number, (case, sizes) in enumerate(gradient_cases.open_cases()):
        if args.only in f"open {case.name}":
            def open_sizes(case, rng, burin, sizes=sizes):
                return check_open(case, sizes, rng, burin)
            worst = max(worst, run_case(case, open_sizes, np.random.default_rng([args.seed, number]), burin, count))
    if not args.only:
        count.add("operator Gradient", *gradient_operator(burin))
        count.add("operator Gradient, other values", *gradient_of_others(burin))
        for what, ok, why in refusals(burin):
            count.add(f"refusal: {what}", ok, why)
    print(f"worst relative error {worst:.2g}")
    print(f"{count.passed} passed, {count.failed} failed, 0 skipped")
    return count.failed != 0


if __name__ == "__main__":
    sys.exit(main())
