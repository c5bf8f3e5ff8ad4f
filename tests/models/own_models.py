"""Models of the repository's own, with the shapes of trained ones and seeded weights, small enough for an emulator:
MODELS maps names to functions that give a ModelProto. `python tests/models/own_models.py FOLDER` writes all."""
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper as h, numpy_helper

OPSET = 20
MODELS = {}


class Net:
    """A graph under construction: each method adds nodes and gives the name of the result."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights, self.inputs, self.outputs = [], [], [], []

    def input(self, name, shape, dtype=TensorProto.FLOAT):
        self.inputs.append(h.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value, name, dtype=TensorProto.FLOAT):
        self.nodes.append(h.make_node("Identity", [value], [name]))
        self.outputs.append(h.make_tensor_value_info(name, dtype, None))

    def const(self, value, dtype=np.float32):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape, fan=None):
        """Scaled so that activations keep their size from layer to layer."""
        fan = fan or int(np.prod(shape[1:])) or 1
        return self.const(self.rng.normal(0, (2 / fan) ** 0.5, shape))

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(h.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def ints(self, *values):
        return self.const(values, np.int64)

    def conv(self, x, cin, cout, k=3, stride=1, group=1, dilation=1, bias=True, dims=2, pad=None):
        pad = dilation * (k // 2) if pad is None else pad
        pads = pad if isinstance(pad, list) else [pad] * 2 * dims
        w = self.weight(cout, cin // group, *[k] * dims)
        b = [self.const(self.rng.normal(0, 0.1, cout))] if bias else []
        return self.op("Conv", x, w, *b, kernel_shape=[k] * dims, strides=[stride] * dims, pads=pads, group=group,
                       dilations=[dilation] * dims)

    def norm(self, x, c):
        f = [self.const(self.rng.uniform(0.5, 1.5, c)), self.const(self.rng.normal(0, 0.1, c)),
             self.const(self.rng.normal(0, 0.1, c)), self.const(self.rng.uniform(0.5, 1.5, c))]
        return self.op("BatchNormalization", x, *f)

    def dense(self, x, n_in, n_out):
        return self.op("Add", self.op("MatMul", x, self.weight(n_in, n_out, fan=n_in)), self.const(self.rng.normal(0, 0.1, n_out)))

    def layer_norm(self, x, c):
        return self.op("LayerNormalization", x, self.const(self.rng.uniform(0.5, 1.5, c)), self.const(self.rng.normal(0, 0.1, c)), axis=-1)

    def silu(self, x):
        return self.op("Mul", x, self.op("Sigmoid", x))

    def head(self, x, c, classes):
        return self.op("Gemm", self.op("Flatten", self.op("GlobalAveragePool", x)), self.weight(classes, c), transB=1)

    def attention(self, x, n, c, heads):
        q, k, v = (self.op("Transpose", self.op("Reshape", self.dense(x, c, c), self.ints(0, n, heads, c // heads)), perm=[0, 2, 1, 3])
                   for _ in range(3))
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.op("Div", scores, self.const((c // heads) ** 0.5))
        mixed = self.op("Transpose", self.op("MatMul", self.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        return self.dense(self.op("Reshape", mixed, self.ints(0, n, c)), c, c)

    def transformer(self, x, n, c, heads):
        x = self.op("Add", x, self.attention(self.layer_norm(x, c), n, c, heads))
        return self.op("Add", x, self.dense(self.op("Gelu", self.dense(self.layer_norm(x, c), c, 4 * c)), 4 * c, c))

    def model(self, name):
        g = h.make_graph(self.nodes, name, self.inputs, self.outputs, self.weights)
        return h.make_model(g, opset_imports=[h.make_opsetid("", OPSET)], ir_version=9)


def model(fn):
    def make():
        net = Net(zlib.crc32(fn.__name__.encode()))
        fn(net)
        return net.model(fn.__name__)
    MODELS[fn.__name__] = make
    return make


# ---- images -------------------------------------------------------------------------------------------

@model
def resnet(n):
    x = n.op("MaxPool", n.op("Relu", n.norm(n.conv(n.input("x", ["batch", 3, 64, 64]), 3, 32, 7, 2), 32)),
             kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    c = 32
    for width, stride in ((32, 1), (64, 2), (128, 2)):
        y = n.op("Relu", n.norm(n.conv(x, c, width, 3, stride, bias=False), width))
        y = n.norm(n.conv(y, width, width, bias=False), width)
        skip = x if stride == 1 else n.norm(n.conv(x, c, width, 1, stride, pad=0, bias=False), width)
        x, c = n.op("Relu", n.op("Add", y, skip)), width
    n.output(n.head(x, c, 100), "classes")


@model
def mobilenet(n):
    x, c = n.op("HardSwish", n.norm(n.conv(n.input("x", [1, 3, 64, 64]), 3, 16, 3, 2), 16)), 16
    for wide, out, k, stride in ((64, 24, 3, 2), (72, 24, 5, 1), (96, 40, 5, 2)):
        y = n.op("HardSwish", n.norm(n.conv(x, c, wide, 1, bias=False), wide))
        y = n.op("HardSwish", n.norm(n.conv(y, wide, wide, k, stride, group=wide, bias=False), wide))
        s = n.op("Relu", n.conv(n.op("GlobalAveragePool", y), wide, wide // 4, 1))
        y = n.op("Mul", y, n.op("HardSigmoid", n.conv(s, wide // 4, wide, 1), alpha=1 / 6, beta=0.5))
        y = n.norm(n.conv(y, wide, out, 1, bias=False), out)
        x, c = (n.op("Add", x, y) if stride == 1 and c == out else y), out
    n.output(n.head(x, c, 50), "classes")


@model
def unet(n):
    x, c, skips = n.input("x", ["batch", 1, 48, 40]), 1, []
    for width in (16, 32, 64):
        x, c = n.op("Relu", n.conv(n.op("Relu", n.conv(x, c, width)), width, width)), width
        skips.append((x, c))
        if width < 64:
            x = n.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    for skip, width in skips[-2::-1]:
        up = n.op("ConvTranspose", x, n.weight(c, width, 2, 2, fan=c), kernel_shape=[2, 2], strides=[2, 2])
        x, c = n.op("Relu", n.conv(n.op("Concat", skip, up, axis=1), 2 * width, width)), width
    n.output(n.op("Sigmoid", n.conv(x, c, 1, 1)), "mask")


@model
def yolo(n):
    x = n.silu(n.conv(n.input("images", [1, 3, 96, 96]), 3, 16, 6, 2, pad=2))
    small = n.silu(n.conv(n.silu(n.conv(x, 16, 32, 3, 2)), 32, 64, 3, 2))
    a = n.silu(n.conv(small, 64, 32, 1))
    pools = [a]
    for _ in range(3):
        pools.append(n.op("MaxPool", pools[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2]))
    deep = n.silu(n.conv(n.silu(n.conv(n.op("Concat", *pools, axis=1), 128, 64, 1)), 64, 64, 3, 2))
    up = n.op("Resize", deep, "", n.const([1, 1, 2, 2]), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    rows = []
    for f, c, cells, stride in ((n.op("Concat", up, small, axis=1), 128, 144, 8), (deep, 64, 36, 16)):
        p = n.op("Sigmoid", n.op("Transpose", n.op("Reshape", n.conv(f, c, 3 * 9, 1), n.ints(1, 3, 9, cells)), perm=[0, 1, 3, 2]))
        xy, wh, rest = n.op("Split", p, n.ints(2, 2, 5), outputs=3, axis=3)
        grid = n.const(np.stack(np.meshgrid(*[np.arange(int(cells ** 0.5))] * 2), -1).reshape(1, 1, cells, 2))
        xy = n.op("Mul", n.op("Add", n.op("Mul", xy, n.const(2.0)), grid), n.const(float(stride)))
        wh = n.op("Mul", n.op("Pow", n.op("Mul", wh, n.const(2.0)), n.const(2.0)), n.const(n.rng.uniform(8, 64, (1, 3, 1, 2))))
        rows.append(n.op("Reshape", n.op("Concat", xy, wh, rest, axis=3), n.ints(1, -1, 9)))
    n.output(n.op("Concat", *rows, axis=1), "boxes")


@model
def vit(n):
    c, tokens = 96, 65
    x = n.op("Transpose", n.op("Reshape", n.conv(n.input("x", [1, 3, 64, 64]), 3, c, 8, 8, pad=0), n.ints(1, c, 64)), perm=[0, 2, 1])
    x = n.op("Add", n.op("Concat", n.weight(1, 1, c), x, axis=1), n.const(n.rng.normal(0, 0.1, (1, tokens, c))))
    for _ in range(2):
        x = n.transformer(x, tokens, c, 4)
    n.output(n.dense(n.op("Gather", n.layer_norm(x, c), n.const(0, np.int64), axis=1), c, 40), "classes")


@model
def autoencoder(n):
    x = n.input("x", ["batch", 3, 32, 32])
    for a, b in ((3, 24), (24, 48)):
        x = n.op("InstanceNormalization", n.conv(x, a, b, 3, 2), n.const(np.ones(b)), n.const(np.zeros(b)))
        x = n.op("LeakyRelu", x, alpha=0.2)
    for a, b in ((48, 24), (24, 3)):
        x = n.op("ConvTranspose", x, n.weight(a, b, 4, 4, fan=4 * a), kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
        x = n.op("PRelu", x, n.const(n.rng.uniform(0, 0.5, (b, 1, 1)))) if b > 3 else n.op("Tanh", x)
    n.output(x, "picture")


@model
def conv3d(n):
    x = n.input("scan", [1, 1, 12, 20, 20])
    x = n.op("Relu", n.norm(n.conv(x, 1, 8, dims=3), 8))
    x = n.op("MaxPool", x, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    x = n.op("Elu", n.conv(x, 8, 16, dims=3))
    n.output(n.op("Softmax", n.op("Resize", n.conv(x, 16, 3, 1, dims=3), "", n.const([1, 1, 2, 2, 2]), mode="linear"), axis=1), "labels")


@model
def quantized_cnn(n):
    """Weights and activations in 8 bits, written with QuantizeLinear and DequantizeLinear."""
    def fake(x, scale, zero=128):
        s, z = n.const(scale), n.const(zero, np.uint8)
        return n.op("DequantizeLinear", n.op("QuantizeLinear", x, s, z), s, z)
    x, c = fake(n.input("x", [1, 3, 32, 32]), 1 / 128), 3
    for width in (16, 32):
        q = n.const(n.rng.integers(-127, 128, (width, c, 3, 3)), np.int8)
        scale, zeros = n.const(n.rng.uniform(0.002, 0.004, width)), n.const(np.zeros(width), np.int8)
        w = n.op("DequantizeLinear", q, scale, zeros, axis=0)
        x, c = fake(n.op("Relu", n.op("Conv", x, w, pads=[1, 1, 1, 1], strides=[2, 2])), 1 / 32, 0), width
    n.output(n.head(x, c, 10), "classes")


# ---- sequences and graphs -----------------------------------------------------------------------------

@model
def bert(n):
    c, tokens = 128, 32
    ids, mask = n.input("ids", ["batch", tokens], TensorProto.INT64), n.input("mask", ["batch", tokens], TensorProto.INT64)
    x = n.op("Add", n.op("Gather", n.const(n.rng.normal(0, 1, (500, c))), ids), n.const(n.rng.normal(0, 0.1, (tokens, c))))
    for _ in range(2):
        x = n.transformer(n.layer_norm(x, c), tokens, c, 4)
    m = n.op("Unsqueeze", n.op("Cast", mask, to=TensorProto.FLOAT), n.ints(-1))
    total = n.op("ReduceSum", n.op("Mul", x, m), n.ints(1), keepdims=0)
    count = n.op("Clip", n.op("ReduceSum", m, n.ints(1), keepdims=0), n.const(1.0))
    n.output(n.op("Tanh", n.dense(n.op("Div", total, count), c, c)), "sentence")


@model
def gpt(n):
    c, tokens = 96, 24
    x = n.op("Gather", n.const(n.rng.normal(0, 1, (300, c))), n.input("ids", [1, tokens], TensorProto.INT64))
    mask = n.const(np.triu(np.full((tokens, tokens), -1e4), 1))
    for _ in range(2):
        y = n.op("Div", x, n.op("Sqrt", n.op("Add", n.op("ReduceMean", n.op("Mul", x, x), n.ints(-1)), n.const(1e-5))))
        q, k, v = (n.op("Transpose", n.op("Reshape", n.dense(y, c, c), n.ints(0, tokens, 4, 24)), perm=[0, 2, 1, 3]) for _ in range(3))
        s = n.op("Mul", n.op("MatMul", q, n.op("Transpose", k, perm=[0, 1, 3, 2])), n.const(24 ** -0.5))
        s = n.op("MatMul", n.op("Softmax", n.op("Add", s, mask), axis=-1), v)
        x = n.op("Add", x, n.dense(n.op("Reshape", n.op("Transpose", s, perm=[0, 2, 1, 3]), n.ints(0, tokens, c)), c, c))
        x = n.op("Add", x, n.dense(n.op("Mul", n.silu(n.dense(y, c, 2 * c)), n.dense(y, c, 2 * c)), 2 * c, c))
    logits = n.dense(x, c, 300)
    n.output(logits, "logits")
    n.output(n.op("TopK", n.op("Softmax", logits, axis=-1), n.ints(5), outputs=2, axis=-1)[0], "likely")


@model
def lstm(n):
    size, features = 48, 20
    x = n.op("Transpose", n.input("x", ["batch", "time", features]), perm=[1, 0, 2])
    for width in (features, 2 * size):
        y, *_ = n.op("LSTM", x, n.weight(2, 4 * size, width, fan=width), n.weight(2, 4 * size, size, fan=2 * size),
                     n.const(n.rng.normal(0, 0.1, (2, 8 * size))), outputs=3, hidden_size=size, direction="bidirectional")
        x = n.op("Reshape", n.op("Transpose", y, perm=[0, 2, 1, 3]), n.ints(0, 0, -1))
    n.output(n.op("LogSoftmax", n.dense(x, 2 * size, 12), axis=-1), "tags")


@model
def gru(n):
    size, features = 64, 40
    _, last = n.op("GRU", n.input("x", [25, 1, features]), n.weight(1, 3 * size, features, fan=features), n.weight(1, 3 * size, size, fan=2 * size),
                   n.const(n.rng.normal(0, 0.1, (1, 6 * size))), outputs=2, hidden_size=size, linear_before_reset=1)
    n.output(n.op("Sigmoid", n.dense(n.op("Squeeze", last, n.ints(0)), size, 3)), "wake")


@model
def tcn(n):
    x, c = n.input("x", [1, 12, 160]), 12
    for dilation in (1, 2, 4, 8):
        y = n.op("Relu", n.conv(x, c, 32, 3, dilation=dilation, dims=1, pad=[2 * dilation, 0]))
        y = n.conv(y, 32, 32, 3, dilation=dilation, dims=1, pad=[2 * dilation, 0])
        x, c = n.op("Relu", n.op("Add", y, x if c == 32 else n.conv(x, c, 32, 1, dims=1))), 32
    n.output(n.op("Slice", n.conv(x, c, 4, 1, dims=1), n.ints(-1), n.ints(1000), n.ints(2)), "next")


@model
def gnn(n):
    """Two layers that gather along edges and add up at their ends, then a mean over the nodes."""
    nodes, edges = 40, 150
    x = n.input("x", [nodes, 16])
    source, end = n.const(n.rng.integers(0, nodes, edges), np.int64), n.rng.integers(0, nodes, edges)
    index = n.const(np.repeat(end[:, None], 32, 1), np.int64)
    count = n.const(np.maximum(np.bincount(end, minlength=nodes), 1)[:, None])
    for width in (16, 32):
        own, sent = n.dense(x, width, 32), n.op("Gather", n.dense(x, width, 32), source)
        total = n.op("ScatterElements", n.const(np.zeros((nodes, 32))), index, sent, axis=0, reduction="add")
        x = n.op("Relu", n.op("Add", own, n.op("Div", total, count)))
    n.output(n.dense(n.op("ReduceMean", x, n.ints(0), keepdims=0), 32, 2), "property")


def write_all(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        onnx.save(make(), folder / f"{name}.onnx")
    return [folder / f"{name}.onnx" for name in MODELS]


if __name__ == "__main__":
    write_all(sys.argv[1])
