"""Cases of what lies between the products of a quantized model: DequantizeLinear, an operator or a chain of them, QuantizeLinear.

Inputs hold all 256 values, zero points stand at both ends and in the middle, scales make results saturate. The oracle of a
case is the graph as it is defined, compiled without passes; averages, whose factor is rounded once, have one in numpy.
"""
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.support.integer_layers import transposed_sums

SHAPE = (1, 4, 8, 8)
ENDS = [("uint8", 0), ("uint8", 255), ("uint8", 131), ("int8", -128), ("int8", 127), ("int8", 3)]


class Graph:
    """Nodes of one model. Its input is x; q and dq put in scales and zero points."""

    def __init__(self, dtype, zero, scale):
        self.dtype, self.zero, self.scale = np.dtype(dtype), zero, np.float32(scale)
        self.nodes, self.constants, self.inputs = [], [], {"x": (self.dtype, SHAPE)}
        self.average = None  # ([axes or window], its oracle): see averages

    def constant(self, a):
        self.constants.append(numpy_helper.from_array(np.asarray(a), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def op(self, name, *inputs, outputs=1, **attrs):
        out = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(name, list(inputs), out, **attrs))
        return out[0] if outputs == 1 else out

    def steps(self, scale, zero):
        return self.constant(np.float32(scale)), self.constant(np.array(zero, self.dtype))

    def dq(self, v, scale=None, zero=None):
        return self.op("DequantizeLinear", v, *self.steps(self.scale if scale is None else scale, self.zero if zero is None else zero))

    def q(self, v, scale=None, zero=None):
        return self.op("QuantizeLinear", v, *self.steps(self.scale if scale is None else scale, self.zero if zero is None else zero))

    def model(self, outputs):
        out = [helper.make_empty_tensor_value_info(v) for v in outputs]
        inputs = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(t), s) for k, (t, s) in self.inputs.items()]
        graph = helper.make_graph(self.nodes, "g", inputs, out, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def ints(*v):
    return np.array(v, np.int64)


def movers(g, x):
    """Results of what moves elements; where the type is the same, 8 bits must come out of 8 bits."""
    yield "reshape", g.op("Reshape", x, g.constant(ints(4, -1)))
    yield "transpose", g.op("Transpose", x, perm=[0, 2, 3, 1])
    yield "slice", g.op("Slice", x, g.constant(ints(1, 1)), g.constant(ints(7, 8)), g.constant(ints(2, 3)), g.constant(ints(2, 1)))
    yield "split", g.op("Split", x, g.constant(ints(1, 3)), outputs=2, axis=1)[1]
    yield "gather", g.op("Gather", x, g.constant(ints(5, 0, -1)), axis=2)
    yield "tile", g.op("Tile", x, g.constant(ints(2, 1, 1, 2)))
    yield "concat", g.op("Concat", x, x, axis=1)
    yield "pad", g.op("Pad", x, g.constant(ints(0, 1, 0, 2, 0, 0, 1, 0)))
    yield "pad with what no byte is", g.op("Pad", x, g.constant(ints(0, 0, 1, 2, 0, 0, 1, 0)), g.constant(np.float32(0.001)))
    yield "pad reflect", g.op("Pad", x, g.constant(ints(0, 0, 1, 2, 0, 0, 1, 0)), mode="reflect")
    yield "resize", g.op("Resize", x, "", g.constant(np.array([1, 1, 2, 1.5], np.float32)), mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric")
    yield "resize linear", g.op("Resize", x, "", g.constant(np.array([1, 1, 2, 1.5], np.float32)), mode="linear")
    yield "depth", g.op("DepthToSpace", x, blocksize=2)
    yield "max pool", g.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    yield "max pool ceil", g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    yield "max pool dilated", g.op("MaxPool", x, kernel_shape=[2, 2], dilations=[5, 5], pads=[4, 4, 4, 4])
    yield "relu", g.op("Relu", x)


def functions(g, x):
    """Results of elementwise functions of x alone."""
    scalar = lambda v: g.constant(np.float32(v))
    yield "same", x
    yield "sigmoid", g.op("Sigmoid", x)
    yield "hard sigmoid", g.op("HardSigmoid", x, alpha=1 / 6)
    yield "silu", g.op("Mul", x, g.op("Sigmoid", x))
    yield "hard swish", g.op("Mul", x, g.op("HardSigmoid", x, alpha=1 / 6))
    yield "gelu", g.op("Mul", g.op("Mul", x, scalar(0.5)), g.op("Add", g.op("Erf", g.op("Div", x, scalar(2**0.5))), scalar(1)))
    yield "tanh", g.op("Tanh", x)
    yield "leaky", g.op("LeakyRelu", x, alpha=0.1)
    yield "clip", g.op("Clip", x, scalar(-1), scalar(2.5))
    yield "neg", g.op("Neg", x)
    yield "twice quantized", g.op("Mul", x, g.dq(g.q(g.op("Sigmoid", x), 1 / 256, g.zero)))
    yield "per channel", g.op("Mul", x, g.constant(np.array([1, -1, 0.5, 2], np.float32).reshape(4, 1, 1)))
    yield "softmax", g.op("Softmax", x)
    yield "two values", g.op("Relu", g.op("Add", x, g.op("Transpose", x, perm=[0, 1, 3, 2])))


def several(g, x):
    """Concatenations of different scales, and QuantizeLinear behind what moves elements."""
    other = g.dq(g.q(g.op("Sigmoid", x), 0.004), 0.004)
    yield "scales of concat", g.op("Concat", x, other, g.dq("x", 0.3, 5), axis=1)
    yield "reals of concat", g.op("Concat", x, g.op("Transpose", g.op("Exp", x), perm=[0, 1, 3, 2]), axis=2)
    yield "quantize moves up", g.op("Reshape", g.op("Transpose", g.op("Softmax", x, axis=1), perm=[0, 2, 3, 1]), g.constant(ints(8, -1)))
    shared = g.op("Concat", x, g.op("Neg", x), axis=1)
    yield "concat read twice", g.op("Add", shared, g.dq(g.q(shared)))


def averages(g, x):
    """Means, and what to call in numpy with real bytes less zero point: (array) -> (sums, count)."""
    windows = np.lib.stride_tricks.sliding_window_view
    yield "global", g.op("GlobalAveragePool", x), lambda a: (a.sum((2, 3), keepdims=True), 64)
    yield "mean", g.op("ReduceMean", x, g.constant(ints(1, -1)), keepdims=0), lambda a: (a.sum((1, 3)), 32)
    yield "pool", g.op("AveragePool", x, kernel_shape=[3, 2], strides=[2, 1]), lambda a: (
        windows(a, (3, 2), (2, 3))[:, :, ::2].sum((4, 5)), 6)
    yield "pool with its pads", g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), lambda a: (
        windows(np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3)).sum((4, 5)), 9)
    around = lambda a: windows(np.pad(a, ((0, 0), (0, 0), (2, 0), (1, 1))), (3, 3), (2, 3))[:, :, ::2].sum((4, 5))
    yield "pool without its pads", g.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 1], pads=[2, 1, 0, 1]), lambda a: (
        around(a), around(np.ones_like(a)))


def quantize(real, scale, zero, dtype):
    ends = np.iinfo(dtype)
    return np.clip(np.rint(real / np.float32(scale)) + np.float32(zero), ends.min, ends.max).astype(dtype)


def mean_of(x, zero, scale, oracle):
    sums, count = oracle(x.astype(np.int64) - zero)
    return sums.astype(np.float32) * (np.float32(scale) / np.float32(count))


def transposed_cases(rng):
    """ConvTranspose of bytes: as large as the stride, larger, smaller; cropped and not; weights of one scale and of one per channel."""
    for at, (k, stride, pads, extra) in enumerate([(2, 2, [0] * 4, 0), (4, 2, [1] * 4, 0), (3, 2, [1] * 4, 1), (1, 2, [0] * 4, 1), (3, 1, [1, 0, 2, 1], 0),
                                                   (5, 3, [2, 0, 1, 2], 2)]):
        for dtype, zero in ENDS[at % 2 :: 2]:
            dtype = np.dtype(dtype)
            g, ends = Graph(dtype, zero, rng.uniform(0.02, 0.1)), np.iinfo(dtype)
            x = rng.integers(ends.min, ends.max, SHAPE, endpoint=True).astype(dtype)
            w, lanes = rng.integers(-127, 127, (4, 5, k, k), endpoint=True).astype(np.int8), at % 3 != 1
            ws = rng.uniform(0.001, 0.003, 5 if lanes else ()).astype(np.float32)
            bias = rng.integers(-3000, 3000, 5).astype(np.int32)
            real = g.op("DequantizeLinear", g.constant(w), g.constant(ws), **({"axis": 1} if lanes else {}))
            more = g.op("DequantizeLinear", g.constant(bias), g.constant(g.scale * ws), **({"axis": 0} if lanes else {}))
            y = g.op("ConvTranspose", g.dq("x"), real, more, strides=[stride] * 2, pads=pads, output_padding=[extra] * 2)
            relu = at % 2 == 1
            acc = transposed_sums(x.astype(np.int64) - zero, w.astype(np.int64), stride, pads, extra)[0] + bias[:, None, None]
            factor = (g.scale * ws / np.float32(0.09)).reshape(-1, 1, 1)
            want = np.clip(np.rint(acc.astype(np.float32) * factor) + np.float32(zero), ends.min, ends.max).astype(dtype)
            want = np.maximum(want, dtype.type(zero)) if relu else want
            model = g.model([g.q(g.op("Relu", y) if relu else y, 0.09)])
            yield f"ConvTranspose {k}x{k} stride {stride} pads {pads} of {dtype}, zero point {zero}", model, {"x": x}, [want[None]]


def byte_cases(rng):
    """(title, model, feeds, results by numpy or None: those of the model without passes). One model a zero point: an output a case."""
    for at, (dtype, zero) in enumerate(ENDS):
        scale, coarse = np.float32(rng.uniform(0.02, 0.1)), ENDS[(at + 2) % len(ENDS)][1]
        dtype = np.dtype(dtype)
        low = np.iinfo(dtype).min
        x = rng.permutation(256).reshape(SHAPE).astype(np.int64) + low
        feeds = {"x": x.astype(dtype)}
        far = int(np.clip(coarse, low, low + 255))
        for make in (movers, functions, several):
            g, outputs, real = Graph(dtype, zero, scale), [], None
            real = g.dq("x")
            for title, v in make(g, real):
                outputs += [g.q(v), g.q(v, 0.013, far), g.q(v, 0.7, zero)]
            yield f"{make.__name__} of {dtype}, zero point {zero}", g.model(outputs), feeds, None
        g, outputs, want = Graph(dtype, zero, scale), [], []
        real = g.dq("x")
        for title, v, oracle in averages(g, real):
            outputs += [g.q(v), g.q(v, 0.013, far)]
            mean = mean_of(x, zero, scale, oracle)
            want += [quantize(mean, scale, zero, dtype), quantize(mean, 0.013, far, dtype)]
        yield f"averages of {dtype}, zero point {zero}", g.model(outputs), feeds, want
    yield from transposed_cases(rng)
