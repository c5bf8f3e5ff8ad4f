"""Decoders as exporters write them: RMSNorm, rotary embedding, grouped keys, SwiGLU, caches of keys and values.

Form "concat" is what Optimum's exporter makes of a Llama (opset 17: everything in plain operators, present = Concat(past, new));
"group" what onnxruntime-genai's builder makes (GroupQueryAttention and its kin of com.microsoft). Weights are seeded; products are
MatMulNBits of 4 bits in blocks of 32, or floats.
"""
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper, numpy_helper

MS = "com.microsoft"


@dataclass
class Config:
    layers: int = 12
    hidden: int = 768
    heads: int = 12
    kv_heads: int = 4
    head: int = 64
    inner: int = 2048
    vocab: int = 32000
    bits: int = 4  # 32: weights are floats
    level: int = 0  # accuracy_level of MatMulNBits
    longest: int = 1024
    seed: int = 1


SMALL = Config(layers=2, hidden=64, heads=4, kv_heads=2, head=16, inner=128, vocab=256, longest=64)


class _Maker:
    def __init__(self, config, form):
        self.c, self.form = config, form
        self.nodes, self.initializers, self.count = [], [], 0
        self.rng = np.random.default_rng(config.seed)

    def constant(self, array, name=None):
        name = name or f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def op(self, kind, *inputs, outputs=1, domain="", to=None, **attributes):
        names = to or [f"{kind}_{self.count}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"/{kind}_{self.count}", domain=domain, **attributes))
        self.count += 1
        return names[0] if len(names) == 1 else names

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def product(self, x, k, n, name):
        w = self.rng.standard_normal((n, k), np.float32) / np.sqrt(np.float32(k))
        if self.c.bits == 32:
            return self.op("MatMul", x, self.constant(w.T, name))
        blocks = w.reshape(n, k // 32, 32)
        scale = np.abs(blocks).max(axis=2) / np.float32(7)
        q = (np.clip(np.rint(blocks / scale[..., None]), -8, 7) + 8).astype(np.uint8)
        packed = q[..., 0::2] | q[..., 1::2] << 4
        return self.op("MatMulNBits", x, self.constant(packed, name + "_q"), self.constant(scale.reshape(-1), name + "_s"), domain=MS,
                       K=k, N=n, bits=4, block_size=32, accuracy_level=self.c.level)

    def gain(self):
        return self.constant((1 + 0.1 * self.rng.standard_normal(self.c.hidden)).astype(np.float32))


def _norm(m, x):
    square = m.op("ReduceMean", m.op("Pow", x, m.constant(np.float32(2))), axes=[-1])
    root = m.op("Sqrt", m.op("Add", square, m.constant(np.float32(1e-5))))
    return m.op("Mul", m.gain(), m.op("Mul", x, m.op("Div", m.constant(np.float32(1)), root)))


def _size(m, x, axis):
    return m.op("Gather", m.op("Shape", x), m.constant(np.int64(axis)), axis=0)


def _rotary(m, x, cos, sin):
    half = m.c.head // 2
    low = m.op("Slice", x, m.ints(0), m.ints(half), m.ints(3))
    high = m.op("Slice", x, m.ints(half), m.ints(1 << 62), m.ints(3))
    turned = m.op("Concat", m.op("Neg", high), low, axis=-1)
    return m.op("Add", m.op("Mul", x, cos), m.op("Mul", turned, sin))


def _split(m, x, heads):
    """[batch, length, heads * head] as [batch, heads, length, head]."""
    return m.op("Transpose", m.op("Reshape", x, m.ints(0, 0, heads, m.c.head)), perm=[0, 2, 1, 3])


def _repeat(m, x, times):
    if times == 1:
        return x
    batch, kv, length, head = (m.op("Unsqueeze", _size(m, x, i), m.ints(0)) for i in range(4))
    wide = m.op("Concat", batch, kv, m.ints(times), length, head, axis=0)
    x = m.op("Expand", m.op("Unsqueeze", x, m.ints(2)), wide)
    return m.op("Reshape", x, m.op("Concat", batch, m.op("Mul", kv, m.ints(times)), length, head, axis=0))


def _mask(m):
    """[batch, 1, length, total]: 0 where a key is seen, else the least float."""
    total, length = _size(m, "attention_mask", 1), _size(m, "input_ids", 1)
    one, zero = m.constant(np.int64(1)), m.constant(np.int64(0))
    rows = m.op("Range", m.op("Sub", total, length), total, one)
    late = m.op("Greater", m.op("Unsqueeze", m.op("Range", zero, total, one), m.ints(0)), m.op("Unsqueeze", rows, m.ints(1)))
    hidden = m.op("Equal", m.op("Unsqueeze", "attention_mask", m.ints(1, 2)), zero)
    least, none = m.constant(np.float32(np.finfo(np.float32).min)), m.constant(np.float32(0))
    return m.op("Where", m.op("Or", m.op("Unsqueeze", late, m.ints(0, 1)), hidden), least, none)


def _attention_concat(m, layer, q, k, v, shared):
    c = m.c
    cos, sin, mask = shared
    q, k, v = _split(m, q, c.heads), _split(m, k, c.kv_heads), _split(m, v, c.kv_heads)
    q, k = _rotary(m, q, cos, sin), _rotary(m, k, cos, sin)
    k = m.op("Concat", f"past_key_values.{layer}.key", k, axis=-2, to=[f"present.{layer}.key"])
    v = m.op("Concat", f"past_key_values.{layer}.value", v, axis=-2, to=[f"present.{layer}.value"])
    k, v = _repeat(m, k, c.heads // c.kv_heads), _repeat(m, v, c.heads // c.kv_heads)
    scores = m.op("Mul", m.op("MatMul", q, m.op("Transpose", k, perm=[0, 1, 3, 2])), m.constant(np.float32(c.head ** -0.5)))
    y = m.op("MatMul", m.op("Softmax", m.op("Add", scores, mask), axis=-1), v)
    return m.op("Reshape", m.op("Transpose", y, perm=[0, 2, 1, 3]), m.ints(0, 0, c.heads * c.head))


def _attention_group(m, layer, q, k, v, shared):
    c = m.c
    lens, total, cos, sin = shared
    past = [f"past_key_values.{layer}.{x}" for x in ("key", "value")]
    return m.op("GroupQueryAttention", q, k, v, *past, lens, total, cos, sin, domain=MS, num_heads=c.heads, kv_num_heads=c.kv_heads,
                do_rotary=1, scale=c.head ** -0.5, to=[f"attention_{layer}", f"present.{layer}.key", f"present.{layer}.value"])[0]


def _angles(c, positions):
    return np.outer(positions, 1 / 10000 ** (np.arange(0, c.head, 2) / c.head)).astype(np.float32)


def _shared_concat(m):
    rate = m.constant(_angles(m.c, [1]).reshape(1, 1, -1))
    at = _cast(m, m.op("Unsqueeze", "position_ids", m.ints(2)), TensorProto.FLOAT)
    angle = m.op("MatMul", at, rate)
    angle = m.op("Concat", angle, angle, axis=-1)
    return [*(m.op("Unsqueeze", m.op(f, angle), m.ints(1)) for f in ("Cos", "Sin")), _mask(m)]


def _cast(m, x, dtype):
    m.nodes.append(helper.make_node("Cast", [x], [f"cast_{m.count}"], name=f"/Cast_{m.count}", to=dtype))
    m.count += 1
    return m.nodes[-1].output[0]


def _shared_group(m):
    lens = _cast(m, m.op("Sub", m.op("ReduceSum", "attention_mask", m.ints(1), keepdims=1), m.constant(np.int64(1))), TensorProto.INT32)
    total = _cast(m, _size(m, "attention_mask", 1), TensorProto.INT32)
    angle = _angles(m.c, np.arange(m.c.longest))
    return [lens, total, m.constant(np.cos(angle)), m.constant(np.sin(angle))]


def _interface(m):
    c, kv = m.c, ("key", "value")
    tensor = helper.make_tensor_value_info
    inputs = [tensor("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
              tensor("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"])]
    if m.form == "concat":
        inputs.append(tensor("position_ids", TensorProto.INT64, ["batch_size", "sequence_length"]))
    outputs = [tensor("logits", TensorProto.FLOAT, ["batch_size", "sequence_length", c.vocab])]
    for i in range(c.layers):
        inputs += [tensor(f"past_key_values.{i}.{x}", TensorProto.FLOAT, ["batch_size", c.kv_heads, "past_sequence_length", c.head]) for x in kv]
        outputs += [tensor(f"present.{i}.{x}", TensorProto.FLOAT, ["batch_size", c.kv_heads, "total_sequence_length", c.head]) for x in kv]
    return inputs, outputs


def decoder(config=SMALL, form="concat"):
    c, m = config, _Maker(config, form)
    width, kv = c.heads * c.head, c.kv_heads * c.head
    shared = _shared_concat(m) if form == "concat" else _shared_group(m)
    attention = _attention_concat if form == "concat" else _attention_group
    table = m.rng.standard_normal((c.vocab, c.hidden), np.float32)
    x = m.op("Gather", m.constant(table, "embedding"), "input_ids")
    for i in range(c.layers):
        y = _norm(m, x)
        q, k, v = (m.product(y, c.hidden, n, f"{name}_{i}") for name, n in (("q", width), ("k", kv), ("v", kv)))
        y = m.product(attention(m, i, q, k, v, shared), width, c.hidden, f"o_{i}")
        x = m.op("Add", x, y)
        y = _norm(m, x)
        gate, up = (m.product(y, c.hidden, c.inner, f"{name}_{i}") for name in ("gate", "up"))
        y = m.op("Mul", m.op("Mul", gate, m.op("Sigmoid", gate)), up)
        x = m.op("Add", x, m.product(y, c.inner, c.hidden, f"down_{i}"))
    y = m.product(_norm(m, x), c.hidden, c.vocab, "head")
    m.nodes.append(helper.make_node("Identity", [y], ["logits"], name="/logits"))
    inputs, outputs = _interface(m)
    graph = helper.make_graph(m.nodes, f"decoder_{form}", inputs, outputs, m.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)], ir_version=9)
