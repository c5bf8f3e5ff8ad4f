"""Training steps in floats of 16 bits: where plain f16 stands still a scaled loss trains; a call with an overflow changes
the scale alone.

    run_mixed.py [BURIN]"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "support"), os.path.join(HERE, "..", "..", "python")]
import part  # noqa: E402
from learn.deep_networks import Net, norm  # noqa: E402


def network(scale=1.0):
    """Small outputs have gradients below what f16 has."""
    net = Net(8)
    v = "x"
    for rows, columns in ((16, 64), (64, 64)):
        v = net.add("Tanh", net.add("Add", net.add("MatMul", v, net.weight(rows, columns)), net.weight(columns, value=0)))
    v = net.add("Mul", net.add("MatMul", v, net.weight(64, 4)), net.const(scale, np.float32))
    return net.model(v, [64, 16], loss=False)


def data(scale=1.0):
    x = np.random.default_rng(9).normal(0, 1, (64, 16)).astype(np.float32)
    return {"x": x, "labels": (np.sin(2 * x[:, :4]) * scale).astype(np.float32)}


def step(burin, model, precision, *flags, optimizer="adam,lr=0.003,eps=1e-30"):
    return burin.compile(model, flags=["--train=mse", f"--optimizer={optimizer}", f"--precision={precision}", *flags])


def losses(m, values, state, calls):
    return [float(m.run({**values, **state})[0]) for _ in range(calls)]


def curves(burin):
    """Loss after 150 steps over the first, by precision."""
    scale = 3e-4
    model, values, rest = network(scale), data(scale), {}
    for p in ("f32", "bf16", "f16", "f16,scale=1,growth=1"):
        m = step(burin, model, p)
        curve = losses(m, values, m.state(), 150)
        rest[p] = curve[-1] / curve[0]
    assert rest["f32"] < 0.01 and rest["bf16"] < 0.01 and rest["f16"] < 0.01, rest
    assert rest["f16,scale=1,growth=1"] > 0.9, f"plain f16 trains here, too: {rest}"


def updates(burin, model, values, target, folder):
    """Text of a step in bf16, its loss, and by how much it changes each matrix, interpreted."""
    text, flags = folder / f"{target}.ir", ["--train=mse", "--optimizer=sgd,lr=1", "--precision=bf16"]
    state = burin.compile(model, flags=flags).state()
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    subprocess.run([burin.compiler(), folder / "m.onnx", *flags, f"--target={target}", "--emit=loop", "-o", text], check=True, capture_output=True)
    command = [burin.compiler(), "run", text, "--interpret", f"--target={target}", f"--output=loss=@{folder}/loss.npy"]
    for i, (name, array) in enumerate({**values, **state}.items()):
        np.save(folder / f"in{i}.npy", array)
        command.append(f"--input={name}=@{folder}/in{i}.npy")
    matrices = [name for name, array in state.items() if np.ndim(array) == 2]
    command += [f"--output={name}_next=@{folder}/out{i}.npy" for i, name in enumerate(matrices)]
    subprocess.run(command, check=True, capture_output=True)
    change = {name: np.load(folder / f"out{i}.npy") - state[name] for i, name in enumerate(matrices)}
    return text.read_text(), float(np.load(folder / "loss.npy")), change


def pairs(burin):
    """Weights that are parameters are multiplied in pairs of bf16, and by AMX: sums differ in their order only, by which what is
    rounded to bf16 behind them may become its neighbour."""
    model, values = network(), data()
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        text, loss, want = updates(burin, model, values, "x86-64-v3", Path(folder))
        assert "dot2_bf16" not in text and len(want) == 3, "pairs without an instruction for them"
        for target, word in (("znver4", "dot2_bf16"), ("sapphirerapids", "matrix")):
            text, other, got = updates(burin, model, values, target, Path(folder))
            assert text.count(word) >= 5, f"{target} does not multiply in bf16"
            assert abs(other - loss) < 1e-3 * abs(loss), f"{target}: loss {other}, not {loss}"
            for name, array in want.items():
                error, most = np.abs(got[name] - array).max(), np.abs(array).max()
                assert most > 1e-3 and error < 0.01 * most, f"{target}: {name} differs by {error}, of {most}"


def overflow(burin):
    net = Net(10)
    v = norm(net, net.add("Conv", "x", net.weight(8, 3, 3, 3)), 8)
    model = net.model(net.add("Flatten", net.add("Relu", v)), [2, 3, 6, 6], loss=False)
    x = np.random.default_rng(11).normal(0, 1, (2, 3, 6, 6)).astype(np.float32)
    values = {"x": x, "labels": np.full((2, 128), 1e6, np.float32)}
    m = step(burin, model, "f16,scale=65536", optimizer="adamw,clip=1")
    state = m.state()
    before = {k: v.copy() for k, v in state.items()}
    losses(m, values, state, 1)
    for name, was in before.items():
        if state.kinds[name] != "scale":
            assert was.tobytes() == state[name].tobytes(), f"{name} changed in a call that overflowed"
    assert float(state["loss_scale"]) == 32768, state["loss_scale"]
    losses(m, {**values, "labels": np.zeros((2, 128), np.float32)}, state, 20)
    assert int(state["step"]) > 0, "no step was taken behind the overflow"
    assert any(before[k].tobytes() != v.tobytes() for k, v in state.items() if state.kinds[k] == "statistic")


def growth(burin):
    m = step(burin, network(), "f16,scale=4,interval=3,max=16")
    state, scales = m.state(), []
    for _ in range(10):
        losses(m, data(), state, 1)
        scales.append(float(state["loss_scale"]))
    assert scales == [4, 4, 8, 8, 8, 16, 16, 16, 16, 16], scales


def gathered(burin):
    """An overflow in one of the calls of a step leaves nothing behind for the next step."""
    m = step(burin, network(), "f16", "--accumulate=2")
    state, values = m.state(), data()
    wild = {**values, "labels": np.full((64, 4), 1e6, np.float32)}
    losses(m, wild, state, 1)
    losses(m, values, state, 1)
    assert int(state["step"]) == 0 and float(state["loss_scale"]) == 32768, (state["step"], state["loss_scale"])
    losses(m, values, state, 2)
    assert int(state["step"]) == 1, state["step"]
    assert all(np.isfinite(v).all() for v in state.values()), "not finite"


def errors(burin):
    for precision, says in (("f8", "not in 'f8'"), ("f16,scale=3", "powers of two"), ("bf16,scale=2", "scale"), ("f16,interval=0", "interval")):
        try:
            step(burin, network(), precision)
        except burin.CompileError as e:
            assert says in str(e), str(e)
        else:
            raise AssertionError(f"{precision}: no error")


def main():
    if len(sys.argv) > 1:
        os.environ["BURIN"] = sys.argv[1]
    import burin
    for f in (curves, pairs, overflow, growth, gathered, errors):
        part.attempt(f.__name__, f, burin)
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
