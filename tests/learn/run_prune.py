"""burin prune: with the weights that read removed channels set to 0, the original computes what the pruned model does.
Both are run by ONNX Runtime, the pruned one by burin, too. Networks with random weights and sizes, in which channels are
tied in many ways (prune_nets.py), and shared models.

    run_prune.py [BURIN [NAME…]]"""
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "support"), os.path.join(HERE, "..", "..", "python")]
import part  # noqa: E402
import prune_fits  # noqa: E402
import prune_nets  # noqa: E402
from prune_tools import difference, prune, run_reference  # noqa: E402

onnxruntime.set_default_logger_severity(3)  # no warnings about weights that nobody reads
NEAR = 2e-4  # relative to the largest element


def silenced(model, rounds):
    """The original, where products read nothing of what was removed; each reader has weights of its own."""
    named = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
    nodes = {n.name: n for n in model.graph.node}
    assert len(rounds) == 1, "indices are those of the original in the first round only"
    for c in rounds[0]["constants"]:
        if not c["summed"]:
            continue
        own = f"{c['node']}/{c['initializer']}"
        w = named.setdefault(own, named[c["initializer"]].copy())
        w[tuple([slice(None)] * c["axis"] + [c["removed"]])] = 0
        node = nodes[c["node"]]
        for k, name in enumerate(node.input):
            if name == c["initializer"]:
                node.input[k] = own
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in named.items())
    return model


def check_net(make, seed, folder, burin, module):
    model, feeds = prune_nets.build(make, seed)
    source = os.path.join(folder, "model.onnx")
    onnx.save(model, source)
    out, report = prune(burin, source, "--rounds=1", "--channels=0.5")
    assert report["rounds"], "no channels were removed"
    left = report["rounds"][0]["channels"] / report["original"]["channels"]
    assert left <= 0.75, f"{left:.2f} of the channels are left"
    whole = [layer["name"] for layer in report["layers"] if not layer["channels"]]
    assert len(whole) <= prune_nets.WHOLE.get(make, len(whole)), f"nothing can go of {whole}"
    want = run_reference(silenced(model, report["rounds"]), feeds)
    got = run_reference(out, feeds)
    own = module.compile(out).run(feeds)
    for what, values in (("ONNX Runtime", got), ("burin", own)):
        worst = difference(values, want)
        assert worst <= NEAR, f"{what}: relative difference {worst:.3g}"


# ---- shared models ----
REAL = ("cifar10_cnn_winml", "mnist_cnn_cntk", "iris_mlp_winml", "micro_kws_fp32", "micro_kws_int8_qdq",
        "cifar10_vit_pgd_2_3_16", "oww_embedding", "espcn_superres_x3", "yunet_s_640", "tinyyolo_52_vnncomp")


def check_real(source, folder, burin, module):
    copy = os.path.join(folder, "model.onnx")
    shutil.copy(source, copy)
    out, report = prune(burin, copy, "--rounds=1", "--channels=0.5")
    last = report["rounds"][0]
    assert last["channels"] <= 0.75 * report["original"]["channels"], f"{last['channels']} channels are left"
    assert last["macs"] < 0.8 * report["original"]["macs"]
    rng = np.random.default_rng(3)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    feeds = {i.name: rng.random([d if isinstance(d, int) else 1 for d in i.shape], dtype=np.float32) for i in session.get_inputs()}
    worst = difference(module.compile(out).run(feeds), session.run(None, feeds))
    assert worst <= (0.05 if "int8" in source else 1e-3), f"relative difference {worst:.3g}"


# ---- data ----
def labelled(folder):
    """A network, and samples that it is always right about."""
    model, _ = prune_nets.build(prune_nets.flatten, 7)
    source = os.path.join(folder, "model.onnx")
    x = np.random.default_rng(8).standard_normal((600, 2, 6, 6)).astype(np.float32)
    bias = next(c for c in model.graph.initializer if c.name == model.graph.node[-1].input[2])
    middle = np.median(run_reference(model, {"x0": x})[0], axis=0)  # so that no class is rare
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) - middle, bias.name))
    onnx.save(model, source)
    y = np.argmax(run_reference(source, {"x0": x})[0], axis=1)
    data = os.path.join(folder, "data.npz")
    np.savez(data, x0=x, y=y)
    return source, x, y, data


def accuracy(model, x, y):
    return float(np.mean(np.argmax(run_reference(model, {"x0": x})[0], axis=1) == y))


def check_recovery(folder, burin, module):
    source, x, y, data = labelled(folder)
    out, report = prune(burin, source, f"--data={data}", "--labels=y", "--channels=0.6", "--rounds=2", "--epochs=20", "--repeat=1",
                        "--validation=0.25", "--importance=magnitude", "--optimizer=adamw,lr=0.01")
    first, last = report["original"], report["rounds"][-1]
    assert first["accuracy"] == 1.0, first["accuracy"]
    assert last["drop"] < last["drop_before_recovery"], f"{last['drop_before_recovery']} points lost, then {last['drop']}"
    right = accuracy(out, x, y)
    assert right > 0.6, f"accuracy {right}"
    worst = difference(module.compile(out).run({"x0": x[:8]}), run_reference(out, {"x0": x[:8]}))
    assert worst <= NEAR, f"relative difference {worst:.3g}"


def check_defaults(folder, burin, module):
    """What recovery does where nothing is said: images are mirrored only where the original is right about that, too."""
    source, data = (os.path.join(folder, f) for f in ("model.onnx", "data.npz"))
    for axis, mirrored in ((0, True), (1, False)):
        model, x, y = prune_nets.halves(axis)
        onnx.save(model, source)
        np.savez(data, x0=x, y=y)
        assert accuracy(source, x, y) == 1
        _, report = prune(burin, source, f"--data={data}", "--labels=y", "--channels=0.5", "--rounds=1", "--epochs=1", "--seed=3")
        told = report["recovery"]
        assert "shift:1" in told["augment"] and ("flip" in told["augment"]) == mirrored, f"{axis}: {told['augment']}"
        assert told["epochs"] == 1 and told["repeat"] == -(-6400 // 108), told
        assert any(f"lr={rate}," in told["optimizer"] for rate in (0.0001, 0.0003, 0.001, 0.003, 0.01)), told["optimizer"]
        assert [layer["left"] for layer in report["layers"] if layer["channels"]] == [4], report["layers"]
    optimizer = "sgd,lr=0.001,warmup=3,schedule=cosine"
    _, report = prune(burin, source, f"--data={data}", "--labels=y", "--rounds=1", "--epochs=2", "--repeat=3", "--augment=none", f"--optimizer={optimizer}")
    told = report["recovery"]
    assert (told["repeat"], told["augment"], told["optimizer"]) == (3, "none", optimizer), told
    assert report["rounds"][0]["steps"] == 2 * 3 * -(-98 // 32), report["rounds"][0]["steps"]


def far_statistics(path, x):
    """How far the running means and variances of a model's first norm are from those of what it normalizes."""
    model = onnx.load(path)
    norm = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
    named = initializers(model)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(norm.input[0], onnx.TensorProto.FLOAT, None))
    v = run_reference(model, {"x0": x})[0]
    axes = tuple(k for k in range(v.ndim) if k != 1)
    var = np.var(v, axis=axes)
    return float(np.mean(np.abs(named[norm.input[3]] - np.mean(v, axis=axes)) / np.sqrt(var)) + np.mean(np.abs(named[norm.input[4]] / var - 1)))


def check_statistics(folder, burin, module):
    """Recovery brings what batch norms remember to what the smaller model gives them."""
    source, x, y, data = labelled(folder)
    flags = (f"--data={data}", "--labels=y", "--channels=0.6", "--rounds=1", "--validation=0.25")
    stale = far_statistics(prune(burin, source, *flags)[0], x)
    own = far_statistics(prune(burin, source, *flags, "--epochs=20", "--repeat=1", "--optimizer=adamw,lr=0.01")[0], x)
    assert own < 0.2 < stale, f"{own} with recovery, {stale} without"


def check_sizes(folder, burin, module):
    """A symbol of two inputs has one size in a sample."""
    rng = np.random.default_rng(4)
    ops = [onnx.helper.make_node(*n) for n in (("MatMul", ["a", "w0"], ["u"]), ("MatMul", ["b", "w1"], ["v"]), ("Add", ["u", "v"], ["s"]),
                                              ("Relu", ["s"], ["r"]), ("MatMul", ["r", "w2"], ["y"]))]
    weights = [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), f"w{k}") for k, shape in enumerate(((4, 16), (4, 16), (16, 3)))]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["S", n]) for name, n in (("a", 4), ("b", 4), ("y", 3))]
    graph = onnx.helper.make_graph(ops, "g", info[:2], info[2:], weights)
    source, out, samples = (os.path.join(folder, name) for name in ("model.onnx", "out.onnx", "samples"))
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), source)
    os.mkdir(samples)
    for last in (7, 6):
        for k, (a, b) in enumerate(((5, 5), (6, last))):
            np.savez(os.path.join(samples, f"{k}.npz"), a=rng.random((a, 4), np.float32), b=rng.random((b, 4), np.float32))
        for verb, flag in (("prune", "--data"), ("quantize", "--calibrate")):
            done = subprocess.run([burin, verb, source, f"{flag}={samples}", "-o", out, "-q"], capture_output=True, text=True, timeout=60)
            if last == 6:
                assert done.returncode == 0, f"{verb}: {done.stderr[-300:]}"
                continue
            assert done.returncode == 1, f"{verb}: exit {done.returncode}: {done.stderr[-300:]}"
            assert "of input a is 6, not 7" in done.stderr, f"{verb}: {done.stderr[-300:]}"
            assert not os.path.exists(out), f"{verb}: a file was written"


# ---- masks ----
def initializers(model):
    model = onnx.load(model) if isinstance(model, str) else model
    return {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}


def summed_axes(model):
    """By initializer: what products add up along, of those whose sizes say it."""
    axes = {}
    for n in model.graph.node:
        for k, name in enumerate(n.input[:2]):
            turned = any(a.name == ("transA", "transB")[k] and a.i for a in n.attribute)
            if n.op_type == "Conv" and k == 1:
                axes[name] = 1
            elif n.op_type in ("MatMul", "Gemm"):
                axes[name] = -1 if (k == 0) != turned else -2
    return axes


def masked(model, out):
    """The original with the zeros of the result; names of what has new ones. Nothing else may differ."""
    zeros = initializers(out)
    names = []
    for c in model.graph.initializer:
        w, new = numpy_helper.to_array(c), zeros.get(c.name)
        if new is None:
            continue
        assert w.shape == new.shape and w.dtype == new.dtype, f"{c.name} is {new.shape} of {new.dtype}"
        own = np.where(new == 0, np.zeros_like(w), w)
        assert np.array_equal(own, new), f"{c.name}: what is not 0 has changed"
        if not np.array_equal(own, w):
            names.append(c.name)
            c.CopyFrom(numpy_helper.from_array(own, c.name))
    return model, names


def check_mask(make, folder, burin, module):
    """Single weights: exactly as many zeros as the report says, and the function of the original with them."""
    model, feeds = prune_nets.build(make, 1)
    source = os.path.join(folder, "model.onnx")
    onnx.save(model, source)
    for flags in (("--sparsity=0.6", "--rounds=2"), ("--nm=2:4",)):
        out, report = prune(burin, source, *flags)
        copy, names = masked(onnx.load(source), out)
        weights, found = initializers(out), report["weights"]
        assert names, f"{flags}: no weight has become 0"
        assert set(names) <= {w["initializer"] for w in found}, f"{flags}: {names} have zeros that the report does not know"
        for w in found:
            zeros = int(np.sum(weights[w["initializer"]] == 0))
            assert zeros == w["zeros"], f"{flags}: {w} has {zeros}"
        elements = sum(w["elements"] for w in found)
        share = sum(w["zeros"] for w in found) / elements
        assert abs(share - report["rounds"][-1]["zeros"]) < 1e-9
        if flags[0] != "--nm=2:4":
            assert abs(share - 0.6) * elements <= 0.501, f"{share} are 0"
        want = run_reference(copy, feeds)
        for what, values in (("ONNX Runtime", run_reference(out, feeds)), ("burin", module.compile(out).run(feeds))):
            worst = difference(values, want)
            assert worst <= NEAR, f"{flags}, {what}: relative difference {worst:.3g}"


def kept_in_groups(w, axis, n, m):
    """Which elements are the n largest of each m along axis."""
    groups = np.moveaxis(np.abs(w), axis, -1)
    groups = groups.reshape(*groups.shape[:-1], -1, m)
    rank = np.argsort(np.argsort(-groups, axis=-1, kind="stable"), axis=-1)
    return np.moveaxis((rank < n).reshape(*groups.shape[:-2], -1), -1, axis)


def check_masks(folder, burin, module):
    """Which weights stay: those that numpy chooses."""
    source, x, y, data = labelled(folder)
    before = initializers(source)
    axes = {name: axis for name, axis in summed_axes(onnx.load(source)).items() if name in before}
    for n, m in ((2, 4), (1, 2), (1, 3)):
        out, report = prune(burin, source, f"--nm={n}:{m}")
        after, fitting = initializers(out), 0
        for name, axis in axes.items():
            if before[name].shape[axis] % m == 0:
                fitting += 1
                assert np.array_equal(after[name] != 0, kept_in_groups(before[name], axis, n, m)), f"{n}:{m} of {name}"
            else:
                assert np.array_equal(after[name], before[name]), f"{n}:{m} of {name}, which does not fit"
                assert "no multiple" in next(w["reason"] for w in report["weights"] if w["initializer"] == name)
        assert fitting, f"{n}:{m} fits no weight"
    out, report = prune(burin, source, "--sparsity=0.5", "--rounds=1")
    after = initializers(out)
    scores = {name: np.abs(before[name]) / np.mean(np.abs(before[name]), dtype=np.float64) for name in axes}
    edge = np.median(np.concatenate([s.ravel() for s in scores.values()]))
    for name, score in scores.items():
        wrong = int(np.sum((after[name] != 0) != (score > edge)))
        assert wrong <= 1, f"{name}: {wrong} elements are not as numpy chooses"


def check_sparse_report(folder, burin, module):
    """The report names the kernels that leave zeros out, where there are enough."""
    rng = np.random.default_rng(2)
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in (("w0", (256, 256)), ("w1", (256, 4)))]
    nodes = [onnx.helper.make_node("MatMul", ["x", "w0"], ["a"], name="wide"), onnx.helper.make_node("MatMul", ["a", "w1"], ["y"], name="narrow")]
    info = lambda name, shape: onnx.helper.make_tensor_value_info(name, 1, shape)
    graph = onnx.helper.make_graph(nodes, "g", [info("x", [256, 256])], [info("y", [256, 4])], weights)
    source = os.path.join(folder, "wide.onnx")
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), source)
    for flags, sparse in (("--sparsity=0.9", True), ("--sparsity=0.1", False)):
        out, report = prune(burin, source, flags, "--rounds=1")
        found = {k["nodes"].split(":")[0]: k["us"] for k in report["sparse_kernels"]}
        assert ("wide" in found) == sparse and all(us > 0 for us in found.values()), f"{flags}: {report['sparse_kernels']}"
        feeds = {"x": rng.standard_normal((256, 256)).astype(np.float32)}
        worst = difference(module.compile(out).run(feeds), run_reference(out, feeds))
        assert worst <= NEAR, f"{flags}: relative difference {worst:.3g}"


def check_mask_recovery(folder, burin, module):
    """Zeros stay zeros while the rest is trained, and gradients choose better than magnitudes."""
    source, x, y, data = labelled(folder)
    before = initializers(source)
    right = {}
    for importance in ("gradient", "magnitude"):
        out, report = prune(burin, source, f"--data={data}", "--labels=y", "--sparsity=0.5", "--rounds=1", f"--importance={importance}")
        right[importance] = report["rounds"][0]["accuracy"]
        assert abs(accuracy(out, x, y) - right[importance]) <= 0.005
    assert right["gradient"] > right["magnitude"], right
    for flags in (("--sparsity=0.7", "--rounds=2", "--max-drop=100"), ("--nm=2:4",)):
        out, report = prune(burin, source, f"--data={data}", "--labels=y", "--epochs=10", "--repeat=1", "--validation=0.25",
                            "--optimizer=adamw,lr=0.01", *flags)
        last, after = report["rounds"][-1], initializers(out)
        assert last["drop"] < last["drop_before_recovery"], f"{flags}: {last['drop_before_recovery']} points lost, then {last['drop']}"
        for w in report["weights"]:
            own = after[w["initializer"]]
            assert int(np.sum(own == 0)) == w["zeros"], f"{flags}: {w}"
            assert w["reason"] or w["zeros"] >= 0.4 * w["elements"], f"{flags}: {w}"
            kept = own != 0
            assert not np.array_equal(own[kept], before[w["initializer"]][kept]), f"{flags}: {w} was not trained"
        if flags[0].startswith("--sparsity"):
            assert abs(last["zeros"] - 0.7) < 0.001, last["zeros"]


def check_choices(folder, burin, module):
    """What goes depends on how it is chosen; accuracy is what ONNX Runtime finds."""
    source, x, y, data = labelled(folder)
    removed = {}
    for choice in ("importance=gradient", "importance=fisher", "importance=magnitude", "objective=params", "objective=latency"):
        out, report = prune(burin, source, f"--data={data}", "--labels=y", "--rounds=1", f"--{choice}")
        removed[choice] = str(report["rounds"][0]["constants"])
        found, own = accuracy(out, x, y), report["rounds"][0]["accuracy"]
        assert abs(found - own) <= 0.005, f"{choice}: accuracy {own}, not {found}"
    assert len({removed[f"importance={k}"] for k in ("gradient", "fisher", "magnitude")}) > 1, "all choices are the same"


def check_budget(folder, burin, module):
    source, x, y, data = labelled(folder)
    out, report = prune(burin, source, f"--data={data}", "--labels=y", "--rounds=2", "--channels=0.3", "--max-drop=0")
    assert report["rounds"][-1]["undone"], "nothing was undone"
    assert accuracy(out, x, y) == 1.0, "more is lost than --max-drop allows"


def deafened(model, deaf, *kinds):
    """The second product of a model reads nothing of some channels; the name of its weights."""
    products = [n for n in model.graph.node if n.op_type in kinds]
    w = next(c for c in model.graph.initializer if c.name == products[1].input[1])
    values = numpy_helper.to_array(w).copy()
    values[:, deaf] = 0
    w.CopyFrom(numpy_helper.from_array(values, w.name))
    return w.name


def check_useless(folder, burin, module):
    """Hidden units that nobody hears go first."""
    source, x, y, data = labelled(folder)
    model = onnx.load(source)
    deaf = [1, 4, 6, 11, 17]
    name = deafened(model, deaf, "Gemm")
    onnx.save(model, source)
    for importance in ("gradient", "fisher"):
        _, report = prune(burin, source, f"--data={data}", "--labels=y", "--rounds=1", f"--importance={importance}", "--objective=params")
        gone = next(c["removed"] for c in report["rounds"][0]["constants"] if c["initializer"] == name and c["axis"] == 1)
        assert set(deaf) <= set(gone), f"{importance}: {gone}, and not all of {deaf}"


def check_losses(folder, burin, module):
    """Importance by each loss; labels are numbers, or a class for each pixel. What is measured is the loss."""
    rng = np.random.default_rng(5)
    source, data = os.path.join(folder, "model.onnx"), os.path.join(folder, "data.npz")
    x = rng.standard_normal((60, 2, 6, 6)).astype(np.float32)
    deaf = [0, 3, 5, 9]
    for loss in ("mse", "l1", "huber,delta=0.5", "sigmoid_cross_entropy", "kl", "dice", None, "softmax_cross_entropy,ignore_index=9"):
        pixels = loss and loss.startswith("softmax")
        t = prune_nets.Net(np.random.default_rng(6), "net")
        y = t.op("Relu", t.conv(t.input(None, 2, 6, 6), 12))
        out = t.conv(y, 3) if pixels else t.gemm(t.op("Flatten", y, shape=[None, 432]), 4)
        model = t.model(out)
        if pixels:
            name = deafened(model, deaf, "Conv")
            labels = np.where(rng.random((60, 6, 6)) < 0.2, 9, rng.integers(0, 3, (60, 6, 6)))
        else:
            name = deafened(model, [36 * k + i for k in deaf for i in range(36)], "Conv", "Gemm")
            labels = rng.random((60, 4)).astype(np.float32)
        onnx.save(model, source)
        np.savez(data, x0=x, y=labels)
        flags = [f"--data={data}", "--labels=y", "--rounds=1", "--validation=0"] + ([f"--train={loss}"] if loss else [])
        out, report = prune(burin, source, *flags)
        gone = {c["initializer"]: c["removed"] for c in report["rounds"][0]["constants"]}
        gone = sorted({k // (1 if pixels else 36) for k in gone[name]})
        assert set(deaf) <= set(gone), f"{loss}: {gone}, and not all of {deaf}"
        if loss in ("mse", None):
            for path, figures in ((source, report["original"]), (out, report["rounds"][0])):
                want = float(np.mean((run_reference(path, {"x0": x})[0] - labels) ** 2))
                assert abs(figures["loss"] - want) < 1e-4 * want, f"loss {figures['loss']}, not {want}"
    out, report = prune(burin, source, *flags, "--epochs=4", "--repeat=1", "--validation=0.2")
    last = report["rounds"][0]
    assert last["drop"] < last["drop_before_recovery"], last


def check_layers(folder, burin, module):
    """Each layer keeps its part; layers that are not chosen stay, and what is left is of those that are."""
    source = os.path.join(folder, "model.onnx")
    onnx.save(prune_nets.build(prune_nets.chain, 3)[0], source)

    def left(*flags):
        _, report = prune(burin, source, "--rounds=1", "--channels=0.5", *flags)
        return {layer["name"]: layer["left"] / layer["channels"] for layer in report["layers"] if layer["channels"]}, report

    parts, _ = left("--scope=layer")
    assert len(parts) == 3 and set(parts.values()) == {0.5}, parts
    first = next(iter(parts))
    own, report = left(f"--only={first}")
    assert own == {first: 0.5}, own
    assert sum("--only" in (layer["reason"] or "") for layer in report["layers"]) == 2, report["layers"]
    others, _ = left(f"--only=-{first}", "--scope=layer")
    assert others == {name: 0.5 for name in parts if name != first}, others


def check_names(folder, burin, module):
    """Every round finds the layers again, whether nodes have names, all the same one, or none."""
    source = os.path.join(folder, "model.onnx")
    left = []
    for name in (None, "", "same"):
        model, _ = prune_nets.build(prune_nets.residual, 1)
        for node in model.graph.node:
            node.name = node.name if name is None else name
        onnx.save(model, source)
        _, report = prune(burin, source, "--channels=0.5", "--rounds=3")
        left.append([layer["left"] for layer in report["layers"] if layer["channels"]])
        assert len(report["rounds"]) == 3, f"{name}: {len(report['rounds'])} rounds"
    assert left[0] == left[1] == left[2], left


def check_unsteady(folder, burin, module):
    """A network whose results move far with the last bits of its sums: what their order changes is no fault of the cut."""
    t = prune_nets.Net(np.random.default_rng(5), "unsteady")
    x = t.conv(t.op("Relu", t.conv(t.input(1, 3, 8, 8), 32)), 16)
    x = t.op("Sin", t.op("Mul", x, t.const(np.full(1, 1e5, np.float32))))
    source = os.path.join(folder, "model.onnx")
    onnx.save(t.model(t.classify(x)), source)
    _, report = prune(burin, source, "--rounds=1", "--channels=0.5")
    assert report["rounds"][0]["difference"] > 1e-3, report["rounds"][0]["difference"]


def check_heap(folder, burin, module):
    """Sizes without a bound lie in a heap: rows that a Loop collects until data say otherwise."""
    t = prune_nets.Net(np.random.default_rng(6), "collected")
    x = t.op("Relu", t.dense(t.input(4, 6), 16))
    count = t.op("Cast", t.op("ReduceSum", t.op("Cast", t.op("Greater", "x0", t.const(np.zeros(1, np.float32))), to=1),
                              keepdims=0, shape=[]), to=7, shape=[])
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Cast", ["k"], ["f"], to=1)], "body",
        [helper.make_tensor_value_info("k", 7, []), helper.make_tensor_value_info("going", 9, [])],
        [helper.make_tensor_value_info("goes", 9, []), helper.make_tensor_value_info("f", 1, [])])
    rows = t.op("Loop", count, t.const(np.array(True)), body=body, shape=[None])
    y = t.op("Add", t.dense(x, 3), t.op("ReduceSum", rows, keepdims=0, shape=[]))
    source = os.path.join(folder, "model.onnx")
    onnx.save(t.model(y), source)
    out, report = prune(burin, source, "--rounds=1", "--channels=0.5")
    assert report["rounds"][0]["channels"] == 8, report["rounds"]
    feeds = {"x0": np.random.default_rng(7).standard_normal((4, 6)).astype(np.float32)}
    worst = difference(module.compile(out).run(feeds), run_reference(out, feeds))
    assert worst <= NEAR, f"relative difference {worst:.3g}"


def check_refusals(folder, burin, module):
    source, x, y, data = labelled(folder)
    bad = os.path.join(folder, "bad.npz")
    np.savez(bad, x0=x, y=np.where(np.arange(len(y)) == 17, 5, y))
    least = os.path.join(folder, "least.npz")
    np.savez(least, x0=x, y=np.where(np.arange(len(y)) == 17, -2**63, y))
    huge = os.path.join(folder, "huge.npz")
    np.savez(huge, x0=x, y=y.astype(np.uint64) + np.uint64(2**63))
    out = os.path.join(folder, "out.onnx")
    for flags, status, words in (((f"--data={bad}", "--labels=y"), 1, "sample 17 has label 5"),
                                 ((f"--data={least}", "--labels=y"), 1, "sample 17 has label -9223372036854775808"),
                                 ((f"--data={huge}", "--labels=y"), 1, "which i64 cannot"),
                                 ((f"--data={data}", f"--validation={data}", "--labels=y", "--report=/nowhere/r.json"), 4, "its folder does not exist"),
                                 ((f"--data={data}", "--labels=y", "--report=" + data), 4, "an input of this command"),
                                 ((f"--data={data}", "--labels=y", "--optimizer=adamw"), 2, "--epochs=N"), (("--batch=4",), 2, "--epochs=N"),
                                 ((f"--data={data}", "--labels=y", "--rounds=1", "--epochs=1", "--optimizer=sgd,lr=-1"), 1, f"{source}: error"),
                                 ((f"--data={data}", "--labels=y", "--epochs=1", "--optimizer=sgd,rate=1"), 1, f"{source}: error"),
                                 ((f"--data={data}", "--labels=y", "--epochs=1", "--trainable=nothing*"), 1, f"{source}: error"),
                                 (("--only=,",), 2, "names no layer"),
                                 ((f"--data={data}", "--labels=z"), 1, "no array of labels"),
                                 *(((f"--data={data}", "--labels=y", f"--validation={part}"), 2, "neither a part") for part in ("-1", "2", "abc")),
                                 (("--importance=gradient",), 2, "--labels"), (("--epochs=3",), 2, "--labels"),
                                 (("--max-drop=1",), 2, "--data"), (("--channels=0",), 2, "0.01 to 1"),
                                 (("--channels=half",), 2, "0.01 to 1"), (("--objective=size",), 2, "latency, macs and params"),
                                 (("--rounds=0",), 2, "--rounds"), (("--importance=reconstruction",), 2, "needs --data"), (("--importance=taylor",), 2, "gradient"), (("--only=nothing*",), 2, "'nothing*' is no layer"), (("--scope=all",), 2, "model and layer"), (("--sparsity=1",), 2, "0.99"), (("--sparsity=0",), 2, "0.99"),
                                 (("--sparsity=nan",), 2, "0.99"), (("--sparsity=80%",), 2, "0.99"), (("--nm=4:4",), 2, "1 <= N < M"),
                                 (("--nm=2",), 2, "1 <= N < M"), (("--nm=0:4",), 2, "1 <= N < M"), (("--nm=2:4:8",), 2, "1 <= N < M"),
                                 (("--nm=2:4", "--rounds=3"), 2, "--rounds"), (("--nm=2:4", "--sparsity=0.5"), 2, "one of them"),
                                 (("--channels=0.5", "--sparsity=0.5"), 2, "one of them"),
                                 (("--sparsity=0.5", "--objective=latency"), 2, "no time")):
        done = subprocess.run([burin, "prune", source, "-o", out, *flags], capture_output=True, text=True, timeout=60)
        assert done.returncode == status, f"{flags}: exit {done.returncode}: {done.stderr[-300:]}"
        assert words in done.stderr, f"{flags}: {done.stderr[-300:]}"
        assert not os.path.exists(out), f"{flags}: a file was written"


CHECKS = [check_recovery, check_defaults, *prune_fits.CHECKS, check_choices, check_budget, check_useless, check_losses, check_layers, check_names, check_unsteady, check_heap, check_refusals, check_statistics, check_sizes, check_masks, check_sparse_report, check_mask_recovery]
MASKED = (prune_nets.chain, prune_nets.grouped, prune_nets.flatten, prune_nets.channels_last, prune_nets.attention,
          prune_nets.transposed, prune_nets.shared_weights, prune_nets.einsum)


def jobs():
    """Name and function of each check."""
    shared = os.path.join(os.environ.get("BURIN_SHARED", os.path.join(HERE, "..", "..", "..", "shared")), "models", "real")
    for make in prune_nets.NETS:
        for seed in prune_nets.seeds(make):
            yield f"{make.__name__} {seed}", lambda *a, make=make, seed=seed: check_net(make, seed, *a)
    for make in MASKED:
        yield f"mask_{make.__name__}", lambda *a, make=make: check_mask(make, *a)
    for check in CHECKS:
        yield check.__name__[6:], check
    for name in REAL:
        path = os.path.join(shared, name, "model.onnx")
        yield name, (lambda *a, path=path: check_real(path, *a)) if os.path.exists(path) else None


def main():
    if len(sys.argv) > 1:
        os.environ["BURIN"] = sys.argv[1]
    burin, chosen = os.environ.get("BURIN", os.path.join(HERE, "..", "..", "build", "burin")), sys.argv[2:]
    import burin as module
    for name, check in jobs():
        if chosen and name.split()[0] not in chosen:
            continue
        if check is None:
            part.skip(name, "no shared models")
            continue
        with tempfile.TemporaryDirectory() as folder:
            part.attempt(name, check, folder, burin, module)
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
