#!/usr/bin/env python3
"""Part "precision": products of f32 behind Casts of f16 and bf16 compute what the Casts say and keep their weights in 16 bits, in
all forms of convolutions and products; what --precision makes of the repository's own networks gives the same in ONNX Runtime,
compiled, and at once; budgets hold, values beyond f16 are told or avoided."""
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]
import burin as burin_python  # noqa: E402
from tests.models import own_models  # noqa: E402
from tests.models.run_quantize import save_net, session, sqnr, write_samples  # noqa: E402
from tests.support.part import burin, check, finish  # noqa: E402

TYPES = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


# ---- Casts around products ----
def halves(net, dtype, *shape):
    """Weights in 16 bits behind a Cast."""
    name = f"h{len(net.weights)}"
    values = net.rng.normal(0, (2 / max(1, int(np.prod(shape[1:])))) ** 0.5, shape).astype(np.float32)
    net.weights.append(helper.make_tensor(name, dtype, shape, values.ravel()))
    return net.op("Cast", name, to=TensorProto.FLOAT)


def rounded(net, dtype, x):
    return net.op("Cast", net.op("Cast", x, to=dtype), to=TensorProto.FLOAT)


def moved(net, x, w):
    parts = [net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), net.op("Slice", x, net.ints(0, 0), net.ints(4, 4), net.ints(2, 3))]
    parts = [rounded(net, net.half, p) for p in parts]
    return net.op("Conv", rounded(net, net.half, net.op("Concat", *parts, axis=1)), w(40, 64, 1, 1))


def product_cases():
    """Name, shape of x, and what is computed of x by a function of the net, the value and weights of a shape."""
    def conv(cout, cin, k, **more):
        return lambda n, x, w: n.op("Conv", x, w(cout, cin // more.get("group", 1), *k), n.const(n.rng.normal(size=cout)), **more)

    yield "conv 1x1", (1, 32, 9, 9), conv(48, 32, (1, 1))
    yield "conv 3x3", (2, 32, 12, 12), conv(40, 32, (3, 3), pads=[1] * 4)
    yield "conv 3x3, few channels, stride", (1, 3, 17, 17), conv(40, 3, (3, 3), pads=[1] * 4, strides=[2, 2])
    yield "conv with odd groups", (1, 33, 8, 8), conv(66, 33, (3, 3), group=3)
    yield "depthwise", (1, 128, 7, 7), conv(128, 128, (3, 3), group=128, pads=[1] * 4)
    yield "conv 1-D", (1, 32, 40), conv(48, 32, (5,), dilations=[2])
    yield "conv 3-D", (1, 16, 5, 6, 7), conv(24, 16, (3, 3, 3), pads=[1] * 6)
    yield "transposed", (1, 32, 6, 6), lambda n, x, w: n.op("ConvTranspose", x, w(32, 24, 2, 2), strides=[2, 2])
    yield "matmul", (3, 20, 50), lambda n, x, w: n.op("Add", n.op("MatMul", x, w(50, 70)), n.const(n.rng.normal(size=70)))
    yield "matmul, one row", (1, 64), lambda n, x, w: n.op("MatMul", x, w(64, 100))
    yield "gemm", (9, 40), lambda n, x, w: n.op("Gemm", x, w(60, 40), n.const(n.rng.normal(size=60)), transB=1, alpha=0.5)
    yield "three products of one", (4, 48), lambda n, x, w: n.op("Concat", *[n.op("MatMul", x, w(48, 32)) for _ in range(3)], axis=1)
    yield "moved in between", (1, 32, 8, 8), moved


def check_products(folder):
    for kind, dtype in TYPES.items():
        for name, shape, build in product_cases():
            for both in (True, False):
                net = own_models.Net(5)
                net.half = dtype
                x = net.op("Relu", net.input("x", list(shape)))
                y = build(net, rounded(net, dtype, x) if both else x, lambda *s: halves(net, dtype, *s))
                net.output(net.op("Relu", y), "y")
                path = folder / "cast.onnx"
                save_net(net, path)
                what = f"{name} of {kind}{'' if both else ' weights'}"
                text = burin(path, "--emit=graph").stdout
                check(f"{what}: weights stay in 16 bits", "wide=1" in text and f"{kind}[" in text, text)
                feed = {"x": net.rng.normal(size=shape).astype(np.float32)}
                fast, plain = (burin_python.compile(str(path), flags=f).run(feed)[0] for f in ([], ["-O0"]))
                check(f"{what}: -O3 and -O0", sqnr([fast], [plain]) > 100, f"{sqnr([fast], [plain]):.1f} dB")
                theirs = session(path).run(None, feed)[0]
                check(f"{what}: ONNX Runtime", sqnr([fast], [theirs]) > 100, f"{sqnr([fast], [theirs]):.1f} dB")


def main():
    with tempfile.TemporaryDirectory(prefix="burin-") as name:
        folder = Path(name)
        check_products(folder)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
