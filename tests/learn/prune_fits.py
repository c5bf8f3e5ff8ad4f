"""burin prune: weights that are fitted to samples, and channels that others can stand for."""
import os

import numpy as np
import onnx
import prune_nets
from onnx import helper, numpy_helper
from prune_tools import difference, prune, run_reference

HIDDEN = 16
SIDE = (1, 7, 7, 4)  # so that all places are taken


def check_rebuilding(folder, burin, module):
    """What goes and can be told from what stays is made up for, given samples; without them it is not."""
    source = os.path.join(folder, "model.onnx")
    onnx.save(prune_nets.doubled(), source)
    x = np.random.default_rng(4).standard_normal((20, 3, 8, 8)).astype(np.float32)
    data = os.path.join(folder, "data.npz")
    np.savez(data, x0=x)
    want = run_reference(source, {"x0": x})
    plain = difference(run_reference(prune(burin, source, "--rounds=1", "--channels=0.5", "--importance=magnitude")[0], {"x0": x}), want)
    out, report = prune(burin, source, "--rounds=1", "--channels=0.5", "--importance=magnitude", f"--data={data}")
    own = difference(run_reference(out, {"x0": x}), want)
    assert report["rounds"][0]["channels"] == 8, report["rounds"][0]["channels"]
    assert own < 0.02 < 0.1 < plain, f"relative difference {own:.3g}, {plain:.3g} without samples"


def network(node, weights, rank):
    """x0, 16 channels of it behind a Relu, and a last product with them."""
    rng = np.random.default_rng(5)
    first = rng.standard_normal((HIDDEN, 3) if rank == 0 else (HIDDEN, 3, *[1] * rank)).astype(np.float32)
    constants = {"w": first.T.copy() if rank == 0 else first, **weights}
    nodes = [helper.make_node("MatMul" if rank == 0 else "Conv", ["x0", "w"], ["c"], "first"), helper.make_node("Relu", ["c"], ["r"], "relu"), node]
    info = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None if name == "y" else ["N", 3, *[SIDE[rank]] * rank]) for name in ("x0", "y")]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def patches(model, node, x):
    """What `node` multiplies its weights with, by place: rows of [channel][tap], and its results."""
    taps = int(np.prod(node["kernel"])) if node["op"] == "Conv" else 1
    if node["op"] != "Conv":
        read = helper.make_node("Identity", ["r"], ["p"])
        more = {}
    else:
        each = np.eye(HIDDEN * taps, dtype=np.float32).reshape(HIDDEN * taps, HIDDEN, *node["kernel"])
        read, more = helper.make_node("Conv", ["r", "each"], ["p"], **node["attrs"]), {"each": each}
    graph = helper.make_graph([*model.graph.node[:2], read, model.graph.node[2]], "g", model.graph.input,
                              [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("p", "y")],
                              [*model.graph.initializer, *(numpy_helper.from_array(v, k) for k, v in more.items())])
    p, y = run_reference(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), {"x0": x})
    rows = lambda v: np.moveaxis(v, 1, -1).reshape(-1, v.shape[1]).astype(np.float64)
    return rows(p).reshape(-1, HIDDEN, taps), rows(y)


def least_squares(x, y, prior, ridge):
    gram = x.T @ x
    pull = ridge * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + pull * np.eye(len(gram)), x.T @ y + pull * prior)


def check_fitted_weights(folder, burin, module):
    """The last product's weights are what least squares gives; of few samples channels' factors are."""
    rng = np.random.default_rng(6)
    source, data, held = (os.path.join(folder, name) for name in ("model.onnx", "data.npz", "held.npz"))
    convs = [(1, {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}, True), (2, {"kernel_shape": [3, 2], "dilations": [2, 1], "pads": [1, 0, 0, 1]}, False),
             (2, {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 1]}, True), (3, {"kernel_shape": [2, 1, 3], "pads": [0, 0, 1, 1, 0, 1]}, True)]
    cases = [{"op": "Conv", "rank": rank, "attrs": attrs, "kernel": attrs["kernel_shape"], "bias": bias} for rank, attrs, bias in convs]
    cases += [{"op": "MatMul", "rank": 0, "attrs": {}, "bias": False}, {"op": "Gemm", "rank": 0, "attrs": {"transB": 1}, "bias": True},
              {"op": "Gemm", "rank": 0, "attrs": {}, "bias": True}, {"op": "Gemm", "rank": 0, "attrs": {"beta": 0.5}, "bias": True, "plain": False}]
    for case in cases:
        turned = case["op"] == "Conv" or case["attrs"].get("transB")
        shape = (5, HIDDEN, *case.get("kernel", ())) if turned else (HIDDEN, 5)
        weights = {"v": rng.standard_normal(shape).astype(np.float32), **({"b": rng.standard_normal(5).astype(np.float32)} if case["bias"] else {})}
        node = helper.make_node(case["op"], ["r", *weights], ["y"], "last", **case["attrs"])
        model = network(node, weights, case["rank"])
        onnx.save(model, source)
        for n in (240,) if case["rank"] else (240, 25):
            x = rng.standard_normal((n, 3, *[SIDE[case["rank"]]] * case["rank"])).astype(np.float32)
            np.savez(data, x0=x)
            np.savez(held, x0=x[:3])
            out, report = prune(burin, source, f"--data={data}", f"--validation={held}", "--rounds=1", "--channels=0.5")
            rows, y = patches(model, case, x)
            gone = next(c["removed"] for c in report["rounds"][0]["constants"] if c["initializer"] == "v")
            stay = [k for k in range(HIDDEN) if k not in gone]
            assert len(stay) == HIDDEN // 2, gone
            v = weights["v"] if turned else weights["v"].T
            v = v.reshape(5, HIDDEN, -1)
            features = rows[:, stay].reshape(len(rows), -1)
            whole = case.get("plain", True) and len(rows) >= 4 * (features.shape[1] + case["bias"])
            if whole:
                prior = v[:, stay].reshape(5, -1)
                if case["bias"]:
                    features, prior = np.c_[features, np.ones(len(rows))], np.c_[prior, weights["b"]]
                want = least_squares(features, y, prior.T, 1e-4).T
            else:
                order = stay + gone
                factors = least_squares(rows[:, stay, 0], rows[:, order, 0], np.eye(HIDDEN)[: HIDDEN // 2], 1e-3)
                want = np.einsum("jk,okt->ojt", factors, v[:, order]).reshape(5, -1)
            named = {c.name: numpy_helper.to_array(c) for c in onnx.load(out).graph.initializer}
            got = (named["v"] if turned else named["v"].T).reshape(5, -1)
            if case["bias"]:
                got = np.c_[got, named["b"]] if whole else got
            far = float(np.max(np.abs(got - want)) / np.max(np.abs(want)))
            assert far < 2e-3, f"{case}, {n} samples: relative difference {far:.3g}"


def check_stand_ins(folder, burin, module):
    """Of channels that are alike in pairs, one of each pair goes, whichever are larger; without labels."""
    rng = np.random.default_rng(8)
    model = prune_nets.doubled()
    w = next(c for c in model.graph.initializer if c.name == "w")
    values = numpy_helper.to_array(w).copy() * np.repeat(np.linspace(0.2, 3, 8), 2).reshape(-1, 1, 1, 1).astype(np.float32)
    w.CopyFrom(numpy_helper.from_array(values, "w"))
    source, data = os.path.join(folder, "model.onnx"), os.path.join(folder, "data.npz")
    onnx.save(model, source)
    x = rng.standard_normal((40, 3, 8, 8)).astype(np.float32)
    np.savez(data, x0=x)
    want = run_reference(source, {"x0": x})
    away = {}
    for importance in ("reconstruction", "magnitude"):
        out, report = prune(burin, source, "--rounds=1", "--channels=0.5", f"--data={data}", f"--importance={importance}")
        gone = next(c["removed"] for c in report["rounds"][0]["constants"] if c["initializer"] == "w")
        away[importance] = difference(run_reference(out, {"x0": x}), want)
        if importance == "reconstruction":
            assert sorted(k // 2 for k in gone) == list(range(8)), gone
    assert away["reconstruction"] < 0.02 < 0.05 < away["magnitude"], away


def many_samples(folder, feeds, n):
    """A folder of random samples of these shapes, and what they are."""
    rng = np.random.default_rng(9)
    samples = [{name: rng.standard_normal(v.shape).astype(np.float32) for name, v in feeds.items()} for _ in range(n)]
    os.mkdir(folder)
    for k, sample in enumerate(samples):
        np.savez(os.path.join(folder, f"{k}.npz"), **sample)
    return samples


def power(values):
    return float(sum((v.astype(np.float64) ** 2).sum() for v in values))


def check_samples(folder, burin, module):
    """Samples make what is left do more of what the original does; reading all of it stays within its arrays."""
    checked = os.environ.get("BURIN_DEBUG", burin)  # with sanitizers
    for make in (prune_nets.concat, prune_nets.grouped_query, prune_nets.einsum, prune_nets.transposed, prune_nets.recurrent):
        model, feeds = prune_nets.build(make, 0)
        source, data = os.path.join(folder, f"{make.__name__}.onnx"), os.path.join(folder, make.__name__)
        onnx.save(model, source)
        samples = many_samples(data, feeds, 24)
        want = [run_reference(source, s) for s in samples]
        away = []
        for program, flags in ((checked, (f"--data={data}",)), (burin, ())):
            out, _ = prune(program, source, "--rounds=1", "--channels=0.6", *flags)
            got = [run_reference(out, s) for s in samples]
            away.append(sum(power([g - w for g, w in zip(a, b)]) for a, b in zip(got, want)) / sum(power(b) for b in want))
        assert away[0] < 0.7 * away[1], f"{make.__name__}: {away}"


CHECKS = [check_rebuilding, check_fitted_weights, check_stand_ins, check_samples]
