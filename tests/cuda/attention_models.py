"""Attention with every type that a GPU multiplies: models, flags, inputs, and what numpy says of them. Their operands are results
of products, which lie as copies into shared memory want them, or inputs, which do not."""
import numpy as np
from onnx import TensorProto, helper as h, numpy_helper

TYPES = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
# name: type, flags, heads, rows, keys, size of a key, of a value, mask, whether operands are results of products, tolerance
CASES = {
    "f32_64": ("f32", (), 4, 80, 150, 64, 64, "bias", True, 1e-4),
    "f32_128": ("f32", (), 8, 200, 200, 128, 128, "none", True, 1e-4),
    "f32_odd": ("f32", (), 4, 67, 81, 21, 35, "padding", False, 1e-4),
    "f16_64": ("f16", (), 6, 200, 200, 64, 64, "causal", True, 1e-2),
    "f16_128": ("f16", (), 4, 130, 200, 128, 128, "padding", True, 1e-2),
    "f16_80": ("f16", (), 4, 130, 77, 80, 80, "none", False, 1e-2),
    "bf16_96": ("bf16", (), 4, 100, 150, 96, 96, "bias", True, 8e-2),
    "tf32_64": ("f32", ("--precision=tf32",), 4, 200, 130, 64, 64, "padding", True, 5e-3),
    "tf32_128": ("f32", ("--precision=tf32",), 2, 100, 150, 128, 128, "none", False, 5e-3),
}


def weights(name, size):
    rng = np.random.default_rng(size + ord(name))
    return np.linalg.qr(rng.normal(size=(size, size)))[0].astype(np.float32)


def mask_of(kind, rows, keys):
    """What is added to scores, or None; of causal order the first rows see the first keys."""
    if kind == "causal":
        return np.where(np.tril(np.ones((rows, keys), bool)), 0, -np.inf).astype(np.float32)
    rng = np.random.default_rng(rows + keys)
    if kind == "padding":
        return np.where(np.arange(keys) < keys * 3 // 4, 0, -1e4).astype(np.float32).reshape(1, 1, 1, keys)
    return rng.normal(size=(rows, keys)).astype(np.float32) if kind == "bias" else None


def model(name):
    kind, _, heads, rows, keys, dk, dv, mask, made, _ = CASES[name]
    nodes, consts, t = [], [], TYPES[kind]

    def op(kind, *ins, **attributes):
        nodes.append(h.make_node(kind, list(ins), [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    def const(value):
        consts.append(numpy_helper.from_array(np.asarray(value, np.float32), f"c{len(consts)}"))
        return op("Cast", f"c{len(consts) - 1}", to=t)

    def operand(name, size):
        x = op("Cast", name, to=t)
        return op("MatMul", x, const(weights(name, size))) if made else x

    q, k, v = operand("q", dk), operand("k", dk), operand("v", dv)
    x = op("Mul", op("MatMul", q, op("Transpose", k, perm=[0, 1, 3, 2])), const(dk ** -0.5))
    added = mask_of(mask, rows, keys)
    if added is not None:
        x = op("Add", x, const(added))
    y = op("Transpose", op("MatMul", op("Softmax", x, axis=-1), v), perm=[0, 2, 1, 3])
    nodes.append(h.make_node("Cast", [y], ["y"], to=TensorProto.FLOAT))
    inputs = [h.make_tensor_value_info(n, TensorProto.FLOAT, [1, heads, length, size])
              for n, length, size in (("q", rows, dk), ("k", keys, dk), ("v", keys, dv))]
    output = h.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return h.make_model(h.make_graph(nodes, name, inputs, [output], consts), opset_imports=[h.make_opsetid("", 20)], ir_version=9)


def feeds(name):
    _, _, heads, rows, keys, dk, dv, *_ = CASES[name]
    rng = np.random.default_rng(len(name))
    return {n: rng.normal(size=(1, heads, length, size)).astype(np.float32)
            for n, length, size in (("q", rows, dk), ("k", keys, dk), ("v", keys, dv))}


def wanted(name, given):
    _, _, _, rows, keys, dk, _, mask, made, _ = CASES[name]
    q, k, v = (given[n].astype(np.float64) @ (weights(n, given[n].shape[-1]) if made else np.eye(given[n].shape[-1])) for n in "qkv")
    x = q @ k.swapaxes(2, 3) * dk ** -0.5
    added = mask_of(mask, rows, keys)
    x = x if added is None else x + added
    p = np.exp(x - x.max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)
