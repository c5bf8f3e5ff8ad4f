"""Weights in a file of their own: those of the program, whole, or an error."""
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import burin as package
from burin import _abi
from tests.files.fixture import conv_model
from tests.support.part import burin, check, run


def test_external_weights(d):
    model, program = d / "external.onnx", d / "external"
    conv_model(model, 96)
    x = np.random.default_rng(1).normal(size=(1, 3, 9, 9)).astype(np.float32)
    np.save(d / "x_conv.npy", x)
    want = package.compile(model).run({"x": x})[0]
    np.save(d / "want_conv.npy", want)
    r = burin(model, "-q", "--weights=external", "-o", program)
    weights = Path(f"{program}.weights")
    command = [program, "--input", f"x=@{d}/x_conv.npy", "--expect", f"y=@{d}/want_conv.npy", "--rtol", "0", "--atol", "0"]
    check("external weights: program", r.returncode == 0 and run(*command).returncode == 0, r.stderr)
    data = bytearray(weights.read_bytes())
    r = run(program, "--input", f"x=@{d}/x_conv.npy", "--output", f"y=@{weights}")
    check("external weights: not overwritten", r.returncode in (2, 4) and weights.read_bytes() == data, r.stderr)
    for name, change in (("changed", lambda b: b.__setitem__(100, b[100] ^ 1)), ("short", lambda b: b.pop()), ("long", lambda b: b.append(0))):
        bad = bytearray(data)
        change(bad)
        weights.write_bytes(bad)
        r = run(*command)
        check(f"external weights: {name}", r.returncode == 3 and "not the weights" in r.stderr, f"{r.returncode} {r.stderr}")
    weights.unlink()
    check("external weights: none", run(*command).returncode == 3)
    got = package.compile(model, flags=["--weights=external"]).run({"x": x})[0]
    check("external weights: Python", np.array_equal(got, want))
    library = d / "external.so"
    burin(model, "-q", "--weights=external", "--emit=shared", f"--name={_abi.NAME}", "-o", library)
    mapped = package.Model._map_weights
    try:
        package.Model._map_weights = lambda *a: None
        package.Model(str(library)).run({"x": x})
        check("external weights: a run without them", False)
    except package.RunError as e:
        check("external weights: a run without them", e.status == 16, e)
    finally:
        package.Model._map_weights = mapped


def external(name, shape, offset):
    """A tensor of floats in the file far.bin."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "far.bin"), ("offset", offset), ("length", 4 * int(np.prod(shape)))):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_far_weights(d):
    """A tensor of more than 2 GB, and one behind 4 GB, in a file that is sparse on disk."""
    rows, columns, far = 600_000, 1000, 5 * 10**9
    with open(d / "far.bin", "wb") as f:
        f.truncate(far + 4 * columns)
        for at, values in ((4 * columns * (rows - 1), np.arange(columns)), (far, np.full(columns, 2))):
            f.seek(at)
            f.write(values.astype(np.float32).tobytes())
    nodes = [helper.make_node("Slice", ["w", "s", "e"], ["last"]), helper.make_node("Mul", ["x", "last"], ["t"]), helper.make_node("Add", ["t", "far"], ["y"])]
    weights = [external("w", [rows, columns], 0), external("far", [columns], far)]
    weights += [numpy_helper.from_array(np.array([k]), n) for n, k in (("s", rows - 1), ("e", rows))]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, columns]) for n in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:], weights), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (d / "far.onnx").write_bytes(model.SerializeToString())
    y = package.compile(d / "far.onnx").run({"x": np.ones((1, columns), np.float32)})[0]
    check("weights beyond 4 GB", np.array_equal(y[0], np.arange(columns) + 2), y)
    (d / "far.bin").unlink()
