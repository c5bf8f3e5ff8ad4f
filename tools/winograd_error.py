"""Rounding errors of 3x3 convolutions, with and without Winograd, against float64 (the table in docs/PERFORMANCE.md).

    PYTHONPATH=python python tools/winograd_error.py      needs numpy and onnx; the compiler as for the package
"""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import burin


def conv64(x, w):
    """Reference in double precision, pads of one."""
    n, c, h, wd = x.shape
    p = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = np.stack([p[:, :, i:i + h, j:j + wd] for i in range(3) for j in range(3)], axis=2)
    return np.einsum("nckhw,ock->nohw", taps, w.astype(np.float64).reshape(len(w), c, 9))


def model(c, o, size, w):
    g = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)], "g",
                          [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, c, size, size])],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, o, size, size])],
                          [numpy_helper.from_array(w, "w")])
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    rng = np.random.default_rng(1)
    print(f"{'channels':>9} {'size':>5} {'direct':>10} {'default':>10} {'F(2x2)':>10} {'F(4x4)':>10} {'F(6x6)':>10}   largest error / largest output")
    for c, size in ((16, 112), (64, 56), (128, 28), (256, 14), (512, 14), (512, 7)):
        x = rng.normal(size=(1, c, size, size)).astype(np.float32)
        w = (rng.normal(size=(c, c, 3, 3)) / np.sqrt(9 * c)).astype(np.float32)
        want = conv64(x, w)
        errors = []
        for flags in (["--winograd=off"], [], ["--winograd=2"], ["--winograd=4"], ["--winograd=6"]):
            got = burin.compile(model(c, c, size, w), flags=flags).run({"x": x})[0]
            errors.append(np.abs(got - want).max() / np.abs(want).max())
        print(f"{c:9} {size:5} " + " ".join(f"{e:10.1e}" for e in errors))


if __name__ == "__main__":
    main()
