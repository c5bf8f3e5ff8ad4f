"""Random layers of 8-bit integers with the values that they must have, computed by numpy in exact integers.

A sum is taken modulo 2^32, as a signed number: acc (between DequantizeLinear and QuantizeLinear none leaves 32 bits). It is
requantized as y = saturate(rint(f32(acc) * m) + zero point of y) with m = f32(f32(sx * sw) / sy), where f32 rounds to float32
and rint to the nearest integer, ties to even. What follows a layer (clip, relu, add, concat) works on the integers; a clip to
[lo, hi] before a QuantizeLinear is one of y to the quantized bounds, which is the same since requantizing is monotonic.
"""
import itertools

import numpy as np
from onnx import TensorProto, helper, numpy_helper

LIMITS = {np.dtype("uint8"): (0, 255), np.dtype("int8"): (-128, 127)}
OPSET = 21


def pick(rng, *items):
    return items[int(rng.integers(len(items)))]


def wrap32(a):
    """The signed 32-bit integer that is congruent to a."""
    return (((a + 2**31) & (2**32 - 1)) - 2**31).astype(np.int32)


def saturate(v, t):
    return np.clip(v, *LIMITS[np.dtype(t)]).astype(t)


def conv_sums(x, w, strides, pads, dilations, group):
    """x (N, C, …) and w (M, C/group, …) without zero points, in int64."""
    n = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:n], pads[n:])])
    size = [(x.shape[2 + d] - (w.shape[2 + d] - 1) * dilations[d] - 1) // strides[d] + 1 for d in range(n)]
    y = np.zeros((x.shape[0], group, w.shape[0] // group, *size), np.int64)
    xg = x.reshape(x.shape[0], group, -1, *x.shape[2:])
    wg = w.reshape(group, w.shape[0] // group, *w.shape[1:])
    for tap in itertools.product(*map(range, w.shape[2:])):
        cut = tuple(slice(t * dilations[d], t * dilations[d] + (size[d] - 1) * strides[d] + 1, strides[d]) for d, t in enumerate(tap))
        seen = xg[(slice(None),) * 3 + cut].reshape(x.shape[0], group, xg.shape[2], -1)
        y += np.matmul(wg[(slice(None),) * 3 + tap], seen).reshape(y.shape)
    return y.reshape(x.shape[0], w.shape[0], *size)


def transposed_sums(x, w, stride, pads, extra):
    """x (N, C, H, W) and w (C, M, k, k) without zero points, in int64: the sums of a ConvTranspose; extra: output_padding."""
    (batch, _, rows, columns), (kh, kw) = x.shape, w.shape[2:]
    full = np.zeros((batch, w.shape[1], stride * (rows - 1) + kh + extra, stride * (columns - 1) + kw + extra), np.int64)
    for y, z in itertools.product(range(kh), range(kw)):
        seen = np.einsum("nihw,io->nohw", x, w[:, :, y, z])
        full[:, :, y : y + stride * (rows - 1) + 1 : stride, z : z + stride * (columns - 1) + 1 : stride] += seen
    return full[:, :, pads[0] : full.shape[2] - pads[2], pads[1] : full.shape[3] - pads[3]]


class Layer:
    """nodes, constants, inputs {name: array} and outputs {name: array}; all names begin with the tag."""

    def __init__(self, rng, tag):
        self.rng, self.tag = rng, tag
        self.nodes, self.constants, self.inputs, self.outputs = [], [], {}, {}

    def const(self, value):
        name = f"{self.tag}_c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def input(self, value):
        name = f"{self.tag}_x{len(self.inputs)}"
        self.inputs[name] = value
        return name

    def node(self, op, *inputs, **attributes):
        name = f"{self.tag}_v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def output(self, name, value):
        self.outputs[name] = value
        return self

    def title(self):
        shapes = [f"{a.dtype}{list(a.shape)}" for a in self.inputs.values()]
        return f"{' '.join(n.op_type for n in self.nodes)} of {', '.join(shapes)} {self.what}"


# ---- operands --------------------------------------------------------------------------------------------

def zero_point(rng, t, shape=()):
    """At an end, in the middle or anywhere."""
    lo, hi = LIMITS[np.dtype(t)]
    return np.array(pick(rng, lo, hi, (lo + hi + 1) // 2, int(rng.integers(lo, hi + 1))) if shape == () else
                    rng.integers(lo, hi, endpoint=True, size=shape), t)


def values(rng, t, shape):
    """Anything, or nothing but the ends."""
    lo, hi = LIMITS[np.dtype(t)]
    if rng.random() < 0.15:
        return rng.choice(np.array([lo, hi], t), shape)
    if rng.random() < 0.08:
        return np.full(shape, pick(rng, lo, hi), t)
    return rng.integers(lo, hi, endpoint=True, size=shape).astype(t)


def exact(rng):
    """A scale: sometimes a power of two, with which results lie half-way between integers."""
    return np.float32(2.0 ** rng.integers(-8, 0) if rng.random() < 0.3 else rng.uniform(0.003, 0.2))


def scales(rng, acc, axis, per_channel):
    """(sx, sw, sy) with which acc fills the range of the result, a part of it, or far more than it."""
    sx, sy = exact(rng), exact(rng)
    spread = max(1.0, float(np.sqrt(np.mean(acc.astype(np.float64) ** 2)))) if acc.size else 1.0
    wanted = pick(rng, 3, 40, 100, 600) / spread
    shape = (acc.shape[axis],) if per_channel else ()
    sw = wanted * float(sy) / float(sx) * rng.uniform(0.5, 1.5, shape)
    if rng.random() < 0.3:
        sw = 2.0 ** np.round(np.log2(sw))
    return sx, np.asarray(sw, np.float32), sy


def along(a, rank, axis):
    """A vector over `axis` of a value of that rank; a scalar as it is."""
    return a if a.ndim == 0 else a.reshape([-1 if d == axis % rank else 1 for d in range(rank)])


def requantize(acc, sx, sw, sy, zy, axis):
    m = (np.float32(sx) * sw).astype(np.float32) / np.float32(sy)
    r = np.rint(acc.astype(np.float32) * along(m.astype(np.float32), acc.ndim, axis)).astype(np.float64)
    return saturate(r + float(zy), zy.dtype)


# ---- shapes ----------------------------------------------------------------------------------------------

def channels(rng, most):
    """Often a multiple of eight, of which some instructions take all at once."""
    n = int(rng.integers(1, most))
    return -(-n // 8) * 8 if rng.random() < 0.4 else n


def conv_shape(rng):
    """(shape of x, shape of w, attributes)"""
    n = pick(rng, 1, 2, 2, 2, 3)
    most = {1: 61, 2: 17, 3: 8}[n]
    size = [int(rng.integers(1, most + 1)) for _ in range(n)]
    kind = pick(rng, "dense", "dense", "dense", "grouped", "depthwise", "depthwise", "long", "one")
    k = [1] * n if kind == "one" else [pick(rng, 1, 2, 3, 3, 5, 7) for _ in range(n)]
    dilations = [pick(rng, 1, 1, 1, 2, 3) for _ in range(n)]
    group, c_in, c_out = 1, channels(rng, 40), channels(rng, 40)
    if kind == "depthwise":
        group = c_in
        c_out = c_in * pick(rng, 1, 1, 1, 2)
    elif kind == "grouped":
        group = pick(rng, 2, 3, 5)
        c_in, c_out = group * int(rng.integers(1, 9)), group * int(rng.integers(1, 9))
    elif kind == "long":
        c_in, c_out, size = pick(rng, 130, 257, 600), pick(rng, 1, 3, 9), [min(s, 4) for s in size]
    elif kind == "one" and rng.random() < 0.3:
        c_in = 1
    reach = [(k[d] - 1) * dilations[d] for d in range(n)]
    pads = [int(rng.integers(0, r + 1)) for _ in range(2) for r in reach]
    for d in range(n):
        size[d] = max(size[d], reach[d] + 1 - pads[d] - pads[n + d], 1)
    x, w = (pick(rng, 1, 1, 2), c_in, *size), (c_out, c_in // group, *k)
    return x, w, dict(strides=[pick(rng, 1, 1, 2, 3) for _ in range(n)], pads=pads, dilations=dilations, group=group)


def product_shape(rng):
    """(shape of a, shape of b)"""
    m, n = int(rng.integers(1, 34)), int(rng.integers(1, 40))
    k = pick(rng, 1, 2, 3, channels(rng, 80), channels(rng, 700), 2049)
    if rng.random() < 0.04:
        m, k, n = pick(rng, 1, 3), 70001, pick(rng, 1, 2)
    batch = pick(rng, (), (), (3,), (2, 2))
    return (*batch, m, k), (*(batch if rng.random() < 0.3 else ()), k, n)


def bias_of(rng, n, acc, most=None):
    """None, of the size of the sums, or near the ends of int32; no sum can wrap where `most` says how large they get."""
    kind = pick(rng, "none", "small", "small", "ends")
    if kind == "none":
        return None
    reach = int(np.abs(acc).max(initial=1))
    if most is not None:
        top = max(0, 2**31 - 1 - most)
        b = bias_of(rng, n, acc)
        return b if b is None else np.clip(b, -top, top)
    far = 2**31 - 1 if kind == "ends" else min(2**24, 2 * reach + 1)
    b = rng.integers(-far, far, endpoint=True, size=n)
    if kind == "ends":
        near = rng.random(n) < 0.5
        b[near] = rng.choice([-(2**31), 2**31 - 1, 2**31 - 100], int(near.sum()))
    return b.astype(np.int32)


# ---- what follows ----------------------------------------------------------------------------------------

def follow_bytes(layer, name, y):
    """Sometimes a clip, relu, add or concat of 8-bit values."""
    rng = layer.rng
    lo, hi = LIMITS[y.dtype]
    kind = pick(rng, "", "", "", "clip", "relu", "add", "concat")
    if kind == "clip":
        a, b = np.sort(rng.integers(lo, hi, endpoint=True, size=2)).astype(y.dtype)
        return layer.output(layer.node("Clip", name, layer.const(a), layer.const(b)), np.clip(y, a, b))
    if kind == "relu" and y.dtype == np.int8:
        return layer.output(layer.node("Relu", name), np.maximum(y, np.int8(0)))
    if kind == "add":
        c = values(rng, y.dtype, y.shape[1:])
        return layer.output(layer.node("Add", name, layer.const(c)), y + c)
    if kind == "concat":
        axis = int(rng.integers(y.ndim))
        c = values(rng, y.dtype, y.shape)
        return layer.output(layer.node("Concat", layer.const(c), name, axis=axis), np.concatenate([c, y], axis))
    return layer.output(name, y)


def follow_sums(layer, name, acc, axis):
    """Sometimes a relu or add of integers, or the product with a scale that makes floats of them."""
    rng = layer.rng
    kind = pick(rng, "", "", "relu", "add", "scale")
    if kind == "relu":
        return layer.output(layer.node("Relu", name), np.maximum(acc, 0))
    if kind == "add":
        c = rng.integers(-(2**31), 2**31, size=acc.shape[axis]).astype(np.int32)
        wide = c if axis == -1 else along(c, acc.ndim, axis)[0]
        return layer.output(layer.node("Add", name, layer.const(wide)), wrap32(acc.astype(np.int64) + wide))
    if kind == "scale":
        s = np.float32(rng.uniform(1e-4, 1e-2))
        return layer.output(layer.node("Mul", layer.node("Cast", name, to=TensorProto.FLOAT), layer.const(s)),
                            acc.astype(np.float32) * s)
    return layer.output(name, acc)


# ---- layers ----------------------------------------------------------------------------------------------

class Operands:
    """Of a convolution or product: values, zero points, and sums in int64 without a bias."""

    def __init__(self, rng, conv, xt=None, wt=None, lane_zeros=True, symmetric=0.4):
        self.xt, self.wt = xt or pick(rng, "uint8", "int8"), wt or pick(rng, "uint8", "int8")
        self.conv, self.attributes = conv, {}
        if conv:
            x, w, self.attributes = conv_shape(rng)
        else:
            x, w = product_shape(rng)
        self.axis, self.n = (1, w[0]) if conv else (-1, w[-1])
        self.x, self.w = values(rng, self.xt, x), values(rng, self.wt, w)
        self.constant = len(w) < 3 or conv or rng.random() < 0.5
        self.xz = zero_point(rng, self.xt)
        lanes = lane_zeros and rng.random() < 0.25 and (conv or len(w) == 2)
        self.wz = zero_point(rng, self.wt, (self.n,) if lanes else ())
        if rng.random() < symmetric:
            self.wz = np.zeros_like(self.wz) if self.wt == "int8" else np.full_like(self.wz, 128)
        wx = self.x.astype(np.int64) - int(self.xz)
        wide = along(self.wz.astype(np.int64), len(w), 0 if conv else -1)
        ww = self.w.astype(np.int64) - wide
        taps = np.abs(ww).sum(axis=tuple(range(1, ww.ndim)) if conv else -2)
        self.most = int(taps.max(initial=0)) * max(int(self.xz) - LIMITS[self.x.dtype][0], LIMITS[self.x.dtype][1] - int(self.xz))
        self.sums = conv_sums(wx, ww, **self.attributes) if conv else np.matmul(wx, ww)

    def with_bias(self, bias):
        b = 0 if bias is None else along(bias.astype(np.int64), self.sums.ndim, self.axis)
        return wrap32(self.sums + b)

    def what(self):
        return f"{self.wt}{list(self.w.shape)} zero points {int(self.xz)}, {np.unique(self.wz)[:3]} {self.attributes}"


def sums_layer(rng, tag, conv):
    """ConvInteger or MatMulInteger."""
    o, layer = Operands(rng, conv), Layer(rng, tag)
    acc = wrap32(o.sums)
    w = layer.const(o.w) if o.constant else layer.input(o.w)
    name = layer.node("ConvInteger" if conv else "MatMulInteger", layer.input(o.x), w, layer.const(o.xz), layer.const(o.wz),
                      **o.attributes)
    layer.what = o.what()
    return follow_sums(layer, name, acc, o.axis)


def linear_layer(rng, tag, conv):
    """QLinearConv or QLinearMatMul."""
    o, layer = Operands(rng, conv), Layer(rng, tag)
    bias = bias_of(rng, o.n, o.sums) if conv else None
    acc = o.with_bias(bias)
    lanes = o.wz.ndim == 1 or (o.constant and len(o.w.shape) < (9 if conv else 3) and rng.random() < 0.5)
    sx, sw, sy = scales(rng, acc, o.axis, lanes)
    yz = zero_point(rng, o.xt)
    w = layer.const(o.w) if o.constant else layer.input(o.w)
    wz = np.broadcast_to(o.wz, sw.shape)
    names = [layer.input(o.x), layer.const(sx), layer.const(o.xz), w, layer.const(sw), layer.const(wz), layer.const(sy), layer.const(yz)]
    if bias is not None:
        names.append(layer.const(bias))
    name = layer.node("QLinearConv" if conv else "QLinearMatMul", *names, **o.attributes)
    layer.what = f"{o.what()} bias {bias is not None} scales {float(sx):g} {np.ravel(sw)[:2]} {float(sy):g} to {int(yz)}"
    return follow_bytes(layer, name, requantize(acc, sx, sw, sy, yz, o.axis))


def qdq_layer(rng, tag, conv):
    """Conv, MatMul or Gemm between DequantizeLinear and QuantizeLinear."""
    o, layer = Operands(rng, conv, lane_zeros=False), Layer(rng, tag)
    while o.most >= 2**31:  # a sum that might wrap is one of floats
        o = Operands(rng, conv, lane_zeros=False)
    gemm = not conv and o.x.ndim == 2 and o.w.ndim == 2 and rng.random() < 0.6
    bias = bias_of(rng, o.n, o.sums, o.most) if conv or gemm else None
    acc = o.with_bias(bias)
    sx, sw, sy = scales(rng, acc, o.axis, o.w.ndim == 2 or conv and rng.random() < 0.6)
    yz = zero_point(rng, o.xt)
    turned = gemm and rng.random() < 0.5
    w = np.ascontiguousarray(o.w.T) if turned else o.w
    axis = 0 if conv or turned else o.w.ndim - 1
    w = layer.const(w) if o.constant else layer.input(w)
    x = layer.node("DequantizeLinear", layer.input(o.x), layer.const(sx), layer.const(o.xz))
    w = layer.node("DequantizeLinear", w, layer.const(sw), layer.const(np.broadcast_to(o.wz, sw.shape)), **({"axis": axis} if sw.ndim else {}))
    names = [x, w]
    if bias is not None:
        sb = (np.float32(sx) * sw).astype(np.float32)
        names.append(layer.node("DequantizeLinear", layer.const(bias), layer.const(sb), **({"axis": 0} if sb.ndim else {})))
    name = layer.node("Conv" if conv else "Gemm" if gemm else "MatMul", *names, **o.attributes, **({"transB": 1} if turned else {}))
    y = requantize(acc, sx, sw, sy, yz, o.axis)
    quantized = lambda v: saturate(np.rint(np.float32(v) / sy) + np.float32(yz), yz.dtype)  # noqa: E731
    kind = pick(rng, "", "", "relu", "clip")
    if kind == "relu":
        name, y = layer.node("Relu", name), np.maximum(y, yz)
    elif kind == "clip":
        lo, hi = np.float32(0), np.float32(rng.uniform(5, 120) * sy)
        name, y = layer.node("Clip", name, layer.const(lo), layer.const(hi)), np.clip(y, quantized(lo), quantized(hi))
    name = layer.node("QuantizeLinear", name, layer.const(sy), layer.const(yz))
    layer.what = f"{o.what()} bias {bias is not None} scales {float(sx):g} {np.ravel(sw)[:2]} {float(sy):g} to {int(yz)}"
    return follow_bytes(layer, name, y)


def transposed_layer(rng, tag, _):
    """ConvTranspose between DequantizeLinear and QuantizeLinear."""
    layer, k, stride = Layer(rng, tag), [pick(rng, 1, 2, 2, 3, 4, 5) for _ in range(2)], pick(rng, 1, 2, 2, 3)
    c_in, c_out, size = int(rng.integers(1, 30)), int(rng.integers(1, 30)), [int(rng.integers(3, 12)) for _ in range(2)]
    pads, extra = [int(rng.integers(0, min(r, 3))) for _ in range(2) for r in k], int(rng.integers(0, stride))
    xt, wt = pick(rng, "uint8", "int8"), pick(rng, "uint8", "int8")
    x, w = values(rng, xt, (pick(rng, 1, 1, 2), c_in, *size)), values(rng, wt, (c_in, c_out, *k))
    xz, wz, yz = zero_point(rng, xt), zero_point(rng, wt), zero_point(rng, xt)
    acc = transposed_sums(x.astype(np.int64) - int(xz), w.astype(np.int64) - int(wz), stride, pads, extra)
    bias = bias_of(rng, c_out, acc, c_in * k[0] * k[1] * 255 * 255)
    acc = wrap32(acc + (0 if bias is None else along(bias.astype(np.int64), 4, 1)))
    sx, sw, sy = scales(rng, acc, 1, rng.random() < 0.6)
    real = [layer.node("DequantizeLinear", layer.input(x), layer.const(sx), layer.const(xz)),
            layer.node("DequantizeLinear", layer.const(w), layer.const(sw), layer.const(np.broadcast_to(wz, sw.shape)),
                       **({"axis": 1} if sw.ndim else {}))]
    if bias is not None:
        sb = (np.float32(sx) * sw).astype(np.float32)
        real.append(layer.node("DequantizeLinear", layer.const(bias), layer.const(sb), **({"axis": 0} if sb.ndim else {})))
    name = layer.node("ConvTranspose", *real, strides=[stride] * 2, pads=pads, output_padding=[extra] * 2)
    y = requantize(acc, sx, sw, sy, yz, 1)
    if rng.random() < 0.4:
        name, y = layer.node("Relu", name), np.maximum(y, yz)
    name = layer.node("QuantizeLinear", name, layer.const(sy), layer.const(yz))
    layer.what = f"{wt}{list(w.shape)} stride {stride} pads {pads} output_padding {extra} zero points {int(xz)}, {int(wz)}, {int(yz)}"
    return follow_bytes(layer, name, y)


def average_layer(rng, tag, _):
    """AveragePool between DequantizeLinear and QuantizeLinear; what is outside the image counts, or not."""
    layer, n = Layer(rng, tag), pick(rng, 1, 2, 2, 3)
    k, strides = [pick(rng, 1, 2, 3, 5) for _ in range(n)], [pick(rng, 1, 2, 3) for _ in range(n)]
    pads, outside = [int(rng.integers(0, r)) for _ in range(2) for r in k], pick(rng, 0, 0, 1)
    t = pick(rng, "uint8", "int8")
    x = values(rng, t, (pick(rng, 1, 2), int(rng.integers(1, 40)), *(int(rng.integers(5, 14)) for _ in range(n))))
    xz, yz, (sx, sy) = zero_point(rng, t), zero_point(rng, t), (exact(rng), exact(rng))
    ones = np.ones((x.shape[1], 1, *k), np.int64)
    window = lambda a: conv_sums(a, ones, strides, pads, [1] * n, x.shape[1])  # noqa: E731
    count = np.float32(np.prod(k)) if outside else window(np.ones(x.shape, np.int64)).astype(np.float32)
    mean = window(x.astype(np.int64) - int(xz)).astype(np.float32) * (np.float32(sx) / count)
    y = saturate(np.rint(mean / sy).astype(np.float64) + float(yz), t)
    real = layer.node("DequantizeLinear", layer.input(x), layer.const(sx), layer.const(xz))
    name = layer.node("AveragePool", real, kernel_shape=k, strides=strides, pads=pads, count_include_pad=outside)
    layer.what = f"{k} strides {strides} pads {pads} outside {outside} zero points {int(xz)}, {int(yz)}"
    return follow_bytes(layer, layer.node("QuantizeLinear", name, layer.const(sy), layer.const(yz)), y)


KINDS = {"sums": sums_layer, "linear": linear_layer, "qdq": qdq_layer, "transposed": transposed_layer, "average": average_layer}


def layers(rng, count, kinds=("sums", "linear", "qdq", "qdq", "transposed", "average")):
    """Convolutions are twice as many as products."""
    return [KINDS[kinds[i % len(kinds)]](rng, f"l{i}", rng.random() < 0.67) for i in range(count)]


def model(of):
    """One model of many layers."""
    value = lambda name, a: helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)  # noqa: E731
    inputs = [value(*item) for layer in of for item in layer.inputs.items()]
    outputs = [value(*item) for layer in of for item in layer.outputs.items()]
    graph = helper.make_graph([n for layer in of for n in layer.nodes], "layers", inputs, outputs,
                              [c for layer in of for c in layer.constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
