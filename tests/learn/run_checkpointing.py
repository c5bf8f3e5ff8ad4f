"""Values that gradients read are computed again instead of being kept: the same bits, in less memory.

    run_checkpointing.py [BURIN]"""
import glob
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "support"), os.path.join(HERE, "..", "..", "python")]
import part  # noqa: E402
from learn import deep_networks  # noqa: E402


def gradient_of(model, names=None):
    return f"--gradient=loss:{','.join(names or [t.name for t in model.graph.initializer if t.data_type == 1 and t.dims])}"


def feed(model, rng):
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": rng.normal(0, 1, dims).astype(np.float32)}


def compiled(burin, model, *flags):
    return burin.compile(model, flags=[f for f in flags if f])


def must_equal(want, got, what):
    for k, (a, b) in enumerate(zip(want, got, strict=True)):
        assert a.tobytes() == b.tobytes(), f"{what}: output {k} differs"


def stored_network(burin, path):
    stored = np.load(path.replace(".onnx", ".npz"))
    flag = gradient_of(None, [k[5:] for k in stored.files if k.startswith("grad/")])
    forms = [compiled(burin, path, flag, f"--recompute={c}") for c in ("off", "auto", "sqrt")]
    results = [m.run({"x": stored["x"]}) for m in forms]
    must_equal(results[0], results[1], "auto")
    must_equal(results[0], results[2], "sqrt")
    sizes = [m.arena_bytes for m in forms]
    assert sizes[0] >= sizes[1] >= sizes[2], f"arenas {sizes}"


def deep_network(burin, model):
    """Much less for --recompute=sqrt; what --max-arena asks for; an error that says the least."""
    flag, x = gradient_of(model), feed(model, np.random.default_rng(3))
    off, sqrt = (compiled(burin, model, flag, f"--recompute={c}") for c in ("off", "sqrt"))
    want = off.run(x)
    must_equal(want, sqrt.run(x), "sqrt")
    assert sqrt.arena_bytes < 0.6 * off.arena_bytes, f"arenas {off.arena_bytes}, {sqrt.arena_bytes}"
    for share in (0.8, 0.6):
        most = int(share * off.arena_bytes)
        fits = compiled(burin, model, flag, f"--max-arena={most}")
        assert fits.arena_bytes <= most, f"arena {fits.arena_bytes}, not {most}"
        must_equal(want, fits.run(x), f"--max-arena={most}")
    must_fail(burin, model, flag, "--max-arena=1K", says="the least that computing again reaches is")


def must_fail(burin, model, *flags, says):
    try:
        compiled(burin, model, *flags)
    except burin.CompileError as e:
        assert says in str(e), str(e)
        return
    raise AssertionError("no error")


def updates(burin):
    """Steps that write over their weights, which must not be read again behind that."""
    model = deep_networks.transformer(layers=4, dropout=False)
    graph = model.graph
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    names = list(weights)
    graph.node.append(helper.make_node("Gradient", ["x", *names], ["g/x", *(f"g/{n}" for n in names)],
                                       domain="ai.onnx.preview.training", xs=["x", *names], y="loss"))
    graph.node.append(helper.make_node("Constant", [], ["rate"], value_float=0.1))
    del graph.initializer[:]
    for n in names:
        graph.input.append(helper.make_tensor_value_info(n, TensorProto.FLOAT, weights[n].shape))
        graph.output.append(helper.make_tensor_value_info(f"{n}/new", TensorProto.FLOAT, weights[n].shape))
        graph.node.append(helper.make_node("Mul", [f"g/{n}", "rate"], [f"step/{n}"]))
        graph.node.append(helper.make_node("Sub", [n, f"step/{n}"], [f"{n}/new"]))
    model.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    values = dict(weights, **feed(model, np.random.default_rng(4)))
    flags = [f"--in-place={n}/new={n}" for n in names]
    off, sqrt = (compiled(burin, model, *flags, f"--recompute={c}") for c in ("off", "sqrt"))
    assert sqrt.arena_bytes < off.arena_bytes, f"arenas {off.arena_bytes}, {sqrt.arena_bytes}"
    must_equal(off.run({k: v.copy() for k, v in values.items()}), sqrt.run({k: v.copy() for k, v in values.items()}), "steps in place")


def training(burin):
    """Whole steps, whose state is written over: random masks come again, too."""
    model = deep_networks.transformer(layers=4, loss=False)
    rng = np.random.default_rng(7)
    x = feed(model, rng)["x"]
    data = {"x": x, "labels": rng.normal(0, 1, x.shape).astype(np.float32)}
    flags = ["--train=mse", "--optimizer=adamw,clip=1"]
    steps = [compiled(burin, model, *flags, f"--recompute={c}") for c in ("off", "auto", "sqrt")]
    assert steps[2].arena_bytes < 0.6 * steps[0].arena_bytes, f"arenas {[m.arena_bytes for m in steps]}"
    states = [m.state() for m in steps]
    for _ in range(3):
        losses = [m.run({**data, **s})[0].tobytes() for m, s in zip(steps, states)]
        assert losses[0] == losses[1] == losses[2], "losses differ"
    for s in states[1:]:
        assert s.bytes.tobytes() == states[0].bytes.tobytes(), "states differ"


def steps_of(model, x, labels):
    state = model.state()
    losses = [model.run({"x": x, "labels": labels, **state})[0].tobytes() for _ in range(2)]
    return losses, state.bytes.tobytes()


def blocks(burin, model, shape, batches, ways, symbolic=False):
    """The layers in front of the last one, block by block: the same steps to the bit, rests and dropout included."""
    if symbolic:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    flags = ["--train=mse", "--optimizer=sgd,lr=0.1", "--trainable=last1"]
    forms = {k: compiled(burin, model, *flags, f"--sample-blocks={k}") for k in ("off", *ways)}
    rest = next(i.shape for i in forms["off"].inputs if i.name == "labels")[1:]
    for batch in batches:
        rng = np.random.default_rng(batch)
        x, labels = (rng.normal(0, 1, (batch, *s)).astype(np.float32) for s in (shape, rest))
        want = steps_of(forms["off"], x, labels)
        for k in ways:
            assert steps_of(forms[k], x, labels) == want, f"batch {batch}, blocks of {k}: other bits"
    if not symbolic:
        assert forms[ways[0]].arena_bytes < 0.3 * forms["off"].arena_bytes, {k: m.arena_bytes for k, m in forms.items()}


def blocks_inference(burin):
    """The limit of memory alone may ask for blocks; who asks for them where there are none is told."""
    model = deep_networks.transformer(layers=2, batch=16, loss=False)
    x, free = feed(model, np.random.default_rng(8)), compiled(burin, model, "--max-arena=1G")
    fits = compiled(burin, model, f"--max-arena={free.arena_bytes // 3}")
    assert fits.arena_bytes <= free.arena_bytes // 3, (free.arena_bytes, fits.arena_bytes)
    must_equal(free.run(x), fits.run(x), "blocks below a limit")
    must_fail(burin, model, "--sample-blocks=x", says="--sample-blocks")


def blocks_across(burin):
    """What goes across samples stays whole, and all behind it."""
    net = deep_networks.Net(9)
    v = net.add("Relu", net.add("MatMul", "x", net.weight(24, 256)))
    v = net.add("Sub", v, net.add("ReduceMean", v, axes=[0]))
    v = net.add("MatMul", net.add("Relu", net.add("MatMul", v, net.weight(256, 24))), net.weight(24, 8))
    forms = [compiled(burin, net.model(v, [32, 24], loss=False), f"--sample-blocks={k}", "--train=mse", "--trainable=last1") for k in ("off", "4")]
    rng = np.random.default_rng(10)
    x, labels = (rng.normal(0, 1, (32, n)).astype(np.float32) for n in (24, 8))
    assert steps_of(forms[0], x, labels) == steps_of(forms[1], x, labels)


def symbolic(burin):
    model = deep_networks.transformer(layers=3)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    flag = gradient_of(model)
    must_fail(burin, model, flag, "--max-arena=1M", says="--max-arena needs fixed sizes")
    off, sqrt = (compiled(burin, model, flag, f"--recompute={c}") for c in ("off", "sqrt"))
    for batch in (1, 3):
        x = {"x": np.random.default_rng(batch).normal(0, 1, (batch, 16, 32)).astype(np.float32)}
        must_equal(off.run(x), sqrt.run(x), f"batch {batch}")


def inference(burin):
    """A model without gradients may have to fit, too: skips over a long way are computed again."""
    net = deep_networks.Net(5)
    first = v = net.add("Exp", "x")
    for rows, columns in ((64, 256), (256, 256), (256, 64)):
        v = net.add("MatMul", v, net.weight(rows, columns))
    model = net.model(net.add("Add", first, v), [64, 64])
    x = feed(model, np.random.default_rng(6))
    free = compiled(burin, model)
    fits = compiled(burin, model, f"--max-arena={free.arena_bytes - 64}")
    assert fits.arena_bytes < free.arena_bytes
    must_equal(free.run(x), fits.run(x), "without gradients")


def wrong_options(burin):
    model = deep_networks.transformer(layers=1)
    must_fail(burin, model, "--recompute=some", says="is none of auto, sqrt and off")
    must_fail(burin, model, "--recompute=sqrt", "--max-arena=1M", says="leave --recompute out")
    must_fail(burin, model, "--max-arena=x", says="is no size")


def cases(burin):
    for path in sorted(glob.glob(os.path.join(HERE, "networks", "*.onnx"))):
        yield os.path.basename(path)[:-5], lambda path=path: stored_network(burin, path)
    yield "residual", lambda: deep_network(burin, deep_networks.residual())
    yield "transformer", lambda: deep_network(burin, deep_networks.transformer())
    image, tokens = (3, 16, 16), (16, 32)
    yield "blocks", lambda: blocks(burin, deep_networks.classifier(), image, [8], ["auto", "1", "3"])
    yield "blocks, symbolic", lambda: blocks(burin, deep_networks.classifier(), image, [1, 3, 7, 20], ["auto", "3"], symbolic=True)
    yield "blocks, transformer", lambda: blocks(burin, deep_networks.transformer(layers=2, loss=False), tokens, [1, 4, 9], ["3"], symbolic=True)
    for f in (blocks_inference, blocks_across, updates, training, symbolic, inference, wrong_options):
        yield f.__name__, lambda f=f: f(burin)


def main():
    if len(sys.argv) > 1:
        os.environ["BURIN"] = sys.argv[1]
    os.environ.setdefault("BURIN_CHECK_MEMORY", "1")
    import burin
    for name, run in cases(burin):
        part.attempt(name, run)
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
