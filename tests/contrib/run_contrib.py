#!/usr/bin/env python3
"""Part "contrib": the operators of com.microsoft that ONNX Runtime's tools write, against ONNX Runtime.

run_contrib.py [--only REGEX]: each row is a node; those whose results are integers, or sums of integers times a scale, must agree to the
bit at -O3, at -O0 and on a target without dot products. Then models as quantize_dynamic and quantize_static write them, and an
encoder layer with the attention fused: their products must be of integers, their weights in 8 bits.
"""
import argparse
import logging
import math
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT)]

import numpy as np
from onnx import TensorProto as T, helper as h, numpy_helper as nh

import burin
from tests.contrib import models, namesake_cases, packed_cases
from tests.contrib.nodes import OPSETS, check, compare, counts, f32, i8, node, refused, rng, scale, session, u8


def products():
    for wt in (u8, i8):
        lanes = (scale(33), wt(33)) if wt is i8 else (scale(33), u8(33))
        node("MatMulIntegerToFloat", [u8(5, 40), wt(40, 33), scale(), scale(), u8(), wt(), None])
        node("MatMulIntegerToFloat", [u8(2, 5, 40), wt(40, 33), scale(1), lanes[0], u8(1), lanes[1], f32(33)], symbolic={(0, 1): "n"})
        node("MatMulIntegerToFloat", [u8(5, 40), wt(40, 33), scale(), scale()])
        node("DynamicQuantizeMatMul", [f32(5, 40), wt(40, 33), scale(), wt()])
        node("DynamicQuantizeMatMul", [f32(3, 5, 40), wt(40, 33), lanes[0], lanes[1], f32(33)], symbolic={(0, 0): "n"})
        for t in (0, 1):
            w = wt(33, 40) if t else wt(40, 33)
            c = rng.integers(-4000, 4000, (33,)).astype(np.int32)
            node("QGemm", [u8(7, 40), scale(), u8(), w, lanes[0], lanes[1], c, np.float32(1.7), u8()], transB=t)
            node("QGemm", [u8(7, 40), scale(), u8(), w, scale(), wt(), c.reshape(1, 33)], transB=t, alpha=0.5)
            node("QGemm", [u8(40, 7), scale(), u8(), w, scale(), wt(), None, np.float32(2), u8()], transA=1, transB=t)


def bytes_moved():
    node("QLinearWhere", [rng.random((3, 4)) < 0.5, u8(3, 4), scale(), u8(), u8(4), scale(), u8(), scale(), u8()], feed=(0, 1, 4))
    node("QLinearWhere", [rng.random((3, 1)) < 0.5, i8(4), scale(), i8(), i8(3, 4), scale(), i8(), scale(), i8()], feed=(0, 1, 4))
    for t in (u8, i8):
        node("NhwcMaxPool", [t(2, 9, 11, 5)], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
        node("NhwcMaxPool", [t(1, 12, 12, 16)], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    node("QLinearAveragePool", [u8(1, 9, 8, 5), scale(), u8(), scale(), u8()], kernel_shape=[3, 3], pads=[1, 1, 1, 1], channels_last=1, slack=1)
    node("QLinearGlobalAveragePool", [u8(1, 9, 8, 5), scale(), u8(), scale(), u8()], channels_last=1, slack=1)
    conv = [u8(1, 9, 8, 5), scale(), u8(), i8(7, 5, 3, 3), scale(7), np.zeros(7, np.int8), np.float32(1.5), u8(),
            rng.integers(-999, 999, 7).astype(np.int32)]
    node("QLinearConv", conv, channels_last=1, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    x, w, b, z = f32(1, 4, 8, 8), f32(6, 4, 3, 3, scale=0.2), f32(6), f32(1, 6, 8, 8)
    window = dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], slack=2e-5)
    node("FusedConv", [x, w, b], activation="Relu", **window)
    node("FusedConv", [x, w, b], activation="LeakyRelu", activation_params=[0.2], **window)
    node("FusedConv", [x, w, b], activation="Clip", activation_params=[-0.3, 0.7], **window)
    node("FusedConv", [x, w, b, z], activation="Relu", feed=(0, 3), **window)
    node("FusedConv", [x, w], activation="HardSigmoid", activation_params=[0.2, 0.5], **window)


def embeddings():
    ids, segments = rng.integers(0, 30, (2, 7)).astype(np.int32), rng.integers(0, 2, (2, 7)).astype(np.int32)
    mask = (rng.random((2, 7)) < 0.7).astype(np.int32)
    word, place, kind, gamma, beta = f32(30, 16), f32(12, 16), f32(2, 16), f32(16), f32(16)
    size = {(k, d): "bs"[d] for k in (0, 1, 7) for d in range(2)}
    node("EmbedLayerNormalization", [ids, segments, word, place, kind, gamma, beta, mask], feed=(0, 1, 7), outputs=2, slack=1e-5, symbolic=size)
    node("EmbedLayerNormalization", [ids, None, word, place, None, gamma, beta], outputs=2, slack=1e-5, epsilon=1e-5)
    own = rng.integers(0, 12, (2, 7)).astype(np.int32)
    node("EmbedLayerNormalization", [ids, None, word, place, None, gamma, beta, None, own], feed=(0, 8), outputs=3, slack=1e-5)
    tables = [u8(30, 16), u8(12, 16), u8(2, 16), u8(16), u8(16)]
    more = [*(scale() for _ in tables), *(u8() for _ in tables)]
    node("QEmbedLayerNormalization", [ids, segments, *tables, mask, *more], feed=(0, 1, 7), outputs=2, slack=1e-4, symbolic=size)


def attentions():
    n, b, s, size, past = 4, 2, 9, 32, 3
    x, w, bias = f32(b, s, size), f32(size, 3 * size, scale=0.2), f32(3 * size)
    masks = {"length": np.array([s, 5], np.int32), "ends and starts": np.array([s, 7, 0, 2], np.int32),
             "keys": (rng.random((b, s)) < 0.7).astype(np.int32), "rows": (rng.random((b, s, s)) < 0.7).astype(np.int32)}
    masks["keys"][:, 0] = masks["rows"][:, :, 0] = 1
    node("Attention", [x, w, bias], num_heads=n, slack=1e-4, symbolic={(0, 0): "b", (0, 1): "s"})
    for mask in masks.values():
        node("Attention", [x, w, bias, mask], feed=(0, 3), num_heads=n, slack=1e-4)
    node("Attention", [x, w, bias], num_heads=n, slack=1e-4, unidirectional=1, scale=0.3)
    node("Attention", [x, f32(size, 2 * size + 8, scale=0.2), f32(2 * size + 8)], num_heads=n, slack=1e-4, qkv_hidden_sizes=[size, size, 8])
    old, added = f32(2, b, n, past, size // n), f32(1, n, s, s + past)
    node("Attention", [x, w, bias, None, old], feed=(0, 4), outputs=2, num_heads=n, slack=1e-4, unidirectional=1)
    node("Attention", [x, w, bias, None, None, added[..., :s]], feed=(0, 5), num_heads=n, slack=1e-4)
    seen = (rng.random((b, s + past)) < 0.7).astype(np.int32)
    for t in (u8, i8):
        common = [u8(b, s, size), t(size, 3 * size), bias, scale(), np.float32(0.002)]
        zero = [u8(), t()]
        node("QAttention", [*common, None, *zero], num_heads=n, slack=1e-4)
        node("QAttention", [*common[:4], scale(3 * size) / 10, masks["keys"], u8(), t(3 * size)], feed=(0, 5), num_heads=n, slack=1e-4)
        node("QAttention", [*common, seen, *zero, old], feed=(0, 5, 8), outputs=2, num_heads=n, slack=1e-4, unidirectional=1)


def head_attentions():
    """MultiHeadAttention: every form of the operands, of the mask and of the past."""
    n, b, s, l, past, head = 4, 2, 7, 5, 3, 8
    size, narrow = n * head, n * 6
    q, k, v = f32(b, s, size), f32(b, l, size), f32(b, l, narrow)
    long = f32(b, s, size), f32(b, s, size), f32(b, s, size)
    bias, bias3 = f32(2 * size + narrow), f32(3 * size)
    run = lambda ins, feed, **more: node("MultiHeadAttention", ins, feed=feed, num_heads=n, slack=1e-4, **more)
    names = {(0, 0): "b", (0, 1): "s", (1, 0): "b", (1, 1): "l", (2, 0): "b", (2, 1): "l"}
    run([q, k, v], (0, 1, 2), symbolic=names)
    run([q, k, v, bias], (0, 1, 2), symbolic=names)
    run([q, k, v, bias], (0, 1, 2), scale=0.3, unidirectional=1)
    qkv, both = f32(b, s, n, 3, head), f32(b, l, n, 2, head)
    apart = lambda a: [np.ascontiguousarray(a[:, :, :, k]).reshape(*a.shape[:2], size) for k in range(a.shape[3])]
    run([qkv], (0,), symbolic={(0, 0): "b", (0, 1): "s"}, alike=apart(qkv))
    run([qkv, None, None, bias3], (0,), unidirectional=1, alike=[*apart(qkv), bias3])
    run([q, both], (0, 1), symbolic={(0, 1): "s", (1, 1): "l"}, alike=[q, *apart(both)])
    run([q, f32(b, n, l, head), f32(b, n, l, head)], (0, 1, 2), symbolic={(1, 2): "l", (2, 2): "l"})
    run([q, f32(b, n, l, head), f32(b, n, l, head), bias3], (0, 1, 2))
    keys = (rng.random((b, l)) < 0.7).astype(np.int32)
    rows = (rng.random((b, s, l)) < 0.7).astype(np.int32)
    keys[:, 0] = rows[..., 0] = 1
    for mask in (np.array([l, 3], np.int32), keys, rows):
        run([q, k, v, bias, mask], (0, 1, 2, 4))
        run([q, k, v, None, mask], (0, 1, 2, 4), mask_filter_value=-3.0)
    for shape in ((b, n, s, l), (1, n, s, l), (b, 1, s, l), (1, 1, s, l)):
        run([q, k, v, None, None, f32(*shape)], (0, 1, 2, 5))
    run([q, k, v, bias, keys, f32(1, n, s, l)], (0, 1, 2, 4, 5), symbolic={**names, (4, 0): "b", (4, 1): "l", (5, 2): "s", (5, 3): "l"})
    old = f32(b, n, past, head), f32(b, n, past, head)
    cache = {**{(i, 1): "s" for i in range(3)}, (6, 2): "p", (7, 2): "p"}
    run([*long, None, None, None], (0, 1, 2), outputs=3)
    run([*long, None, None, None, *old], (0, 1, 2, 6, 7), outputs=3, symbolic=cache)
    run([*long, bias3, None, f32(b, n, s, s + past), *old], (0, 1, 2, 5, 6, 7), outputs=3, unidirectional=1)
    seen = (rng.random((b, s + past)) < 0.7).astype(np.int32)
    run([*long, None, seen, None, *old], (0, 1, 2, 4, 6, 7), outputs=3)
    refused("MultiHeadAttention", [q], "the key is missing", num_heads=n)
    refused("MultiHeadAttention", [qkv, k, v], "a packed query has the key and the value in it", num_heads=n)
    refused("MultiHeadAttention", [*long, None, None, None, old[0]], "must come together", num_heads=n)
    refused("MultiHeadAttention", [*long, None, None, None, *old, np.array([3], np.int32)], "past_sequence_length", num_heads=n)


def rotations():
    b, s, n, head, room = 2, 5, 3, 8, 12
    x, deep = f32(b, s, n * head), f32(b, n, s, head)
    own = rng.integers(0, room, (b, s))
    for interleaved in (0, 1):
        run = lambda ins, **more: node("RotaryEmbedding", ins, feed=(0, 1), slack=1e-5, interleaved=interleaved, **more)
        full = [f32(room, head // 2), f32(room, head // 2)]
        part = [f32(room, head // 4), f32(room, head // 4)]
        run([x, np.array([4]), *full])
        run([x, np.array([4]), *full], symbolic={(0, 0): "b", (0, 1): "s"})
        run([x, own, *full], symbolic={(0, 0): "b", (0, 1): "s", (1, 0): "b", (1, 1): "s"})
        run([x, own, *full], num_heads=n)
        run([deep, own, *full])
        run([deep, np.array([2]), *full], symbolic={(0, 0): "b", (0, 2): "s"})
        run([x, own, *part], num_heads=n, rotary_embedding_dim=head // 2)


def cached_attentions():
    """GroupQueryAttention: the first step and later ones, with caches that are full or have room."""
    n, kv, head, room = 4, 2, 16, 24
    tables = f32(32, head // 2), f32(32, head // 2)

    def run(s, lens, past, *, packed=False, rotary=False, added=None, symbolic={}, positions=None, **attrs):
        """lens: keys in all, of each batch; past: room of the caches or None."""
        total, b = int(max(lens)), len(lens)
        qkv = [f32(b, s, (n + 2 * kv) * head), None, None] if packed else [f32(b, s, n * head), f32(b, s, kv * head), f32(b, s, kv * head)]
        old = [None, None] if past is None else [f32(b, kv, past, head), f32(b, kv, past, head)]
        ins = [*qkv, *old, np.array(lens, np.int32) - 1, np.array(total, np.int32), *(tables if rotary else (None, None)), positions, added]
        while ins[-1] is None:
            ins.pop()
        feed = [k for k in (0, 1, 2, 3, 4, 5, 9, 10) if k < len(ins) and ins[k] is not None]
        node("GroupQueryAttention", ins, feed=feed, outputs=3, slack=1e-4, num_heads=n, kv_num_heads=kv, do_rotary=int(rotary),
             symbolic=symbolic, **attrs)

    names = {**{(k, 0): "b" for k in range(6)}, **{(k, 2): "p" for k in (3, 4)}}
    for packed in (False, True):
        run(6, [6, 6], None, packed=packed)
        run(6, [6, 6], room, packed=packed, rotary=True, symbolic=names)
        run(1, [9, 9], 8, packed=packed, rotary=True)
        run(1, [9, 4], room, packed=packed, rotary=True, symbolic=names)
        run(3, [9], room, packed=packed, rotary=True)
    run(1, [9, 9], 8, softcap=5.0)
    run(1, [9, 9], 8, scale=0.5)
    run(6, [6, 6], None, local_window_size=3, rotary=True)
    run(1, [9, 9], room, local_window_size=4)
    run(3, [9], room, local_window_size=2, softcap=3.0)
    run(3, [9], room, rotary=True, rotary_interleaved=1)
    run(3, [9], room, rotary=True, positions=rng.integers(0, 30, (1, 3)))
    run(6, [6, 6], None, added=f32(2, n, 6, 6))
    run(1, [9, 9], room, added=f32(1, 1, 1, 9), softcap=5.0)
    one = [f32(1, 1, n * head), f32(1, 1, kv * head), f32(1, 1, kv * head)]
    rest = [None, None, np.array([0], np.int32), np.array(1, np.int32)]
    given = dict(num_heads=n, kv_num_heads=kv)
    refused("GroupQueryAttention", [*one, *rest], "known from data only", feed=(0, 1, 2, 5, 6), **given)
    refused("GroupQueryAttention", [*one, *rest], "smooth_softmax", feed=(0, 1, 2, 5), smooth_softmax=1, **given)
    refused("GroupQueryAttention", [*one, *rest, *[None] * 4, f32(n)], "head_sink", feed=(0, 1, 2, 5), **given)
    decoder_step(n, kv, head, tables)


def decoder_step(n, kv, head, tables):
    """Lengths from the mask of the tokens, as exporters write them: every size is a symbol."""
    ms = dict(domain="com.microsoft")
    nodes = [h.make_node("ReduceSum", ["mask", "one"], ["sum"], keepdims=0), h.make_node("Sub", ["sum", "one"], ["less"]),
             h.make_node("Cast", ["less"], ["lens"], to=T.INT32), h.make_node("Shape", ["mask"], ["shape"]),
             h.make_node("Gather", ["shape", "second"], ["all"]), h.make_node("Cast", ["all"], ["total"], to=T.INT32),
             h.make_node("GroupQueryAttention", ["x", "", "", "k", "v", "lens", "total", "cos", "sin"], ["y", "nk", "nv"], num_heads=n,
                         kv_num_heads=kv, do_rotary=1, **ms)]
    init = [("one", np.array([1])), ("second", np.array(1)), ("cos", tables[0]), ("sin", tables[1])]
    info = lambda name, kind, *shape: h.make_tensor_value_info(name, kind, shape)
    cache, grown = ("b", kv, "p", head), ("b", kv, "g", head)
    graph = h.make_graph(nodes, "g", [info("x", T.FLOAT, "b", "s", (n + 2 * kv) * head), info("mask", T.INT64, "b", "t"),
                                      info("k", T.FLOAT, *cache), info("v", T.FLOAT, *cache)],
                         [info("y", T.FLOAT, "b", "s", n * head), info("nk", T.FLOAT, *grown), info("nv", T.FLOAT, *grown)],
                         [nh.from_array(a, name) for name, a in init])
    model = h.make_model(graph, opset_imports=OPSETS, ir_version=10)
    compiled, reference = burin.compile(model), session(model)
    padded = np.ones((2, 6), np.int64)  # a first step of 6 and 4 tokens: what comes out behind a batch's tokens is nobody's
    padded[1, 4:] = 0
    feeds = {"x": f32(2, 6, (n + 2 * kv) * head), "mask": padded, "k": f32(2, kv, 9, head), "v": f32(2, kv, 9, head)}
    results = [f(feeds) for f in (compiled.run, lambda v: reference.run(None, v))]
    for r in results:
        r[0] = r[0] * padded[..., None].astype(np.float32)
    bad = compare("padded first step", *results, 1e-4)
    check(not bad, bad)
    for b, s, t, p in ((2, 5, 5, 0), (2, 1, 6, 5), (1, 3, 9, 6), (3, 1, 7, 16)):
        feeds = {"x": f32(b, s, (n + 2 * kv) * head), "mask": np.ones((b, t), np.int64), "k": f32(b, kv, p, head), "v": f32(b, kv, p, head)}
        try:
            bad = compare(f"decoder step {b, s, t, p}", compiled.run(feeds), reference.run(None, feeds), 1e-4)
        except Exception as e:
            bad = f"decoder step {b, s, t, p}: {e}"
        check(not bad, bad)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def gelu(v):
    return 0.5 * v * (1 + np.vectorize(math.erf)(v / np.sqrt(2))).astype(v.dtype)


def group_norm(x, gamma, beta, groups, silu, epsilon=1e-5):
    """x: [batch, …, channels]."""
    v = x.astype(np.float64).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    v = (v - v.mean((1, 3), keepdims=True)) / np.sqrt(v.var((1, 3), keepdims=True) + epsilon)
    y = v.reshape(x.shape) * gamma + beta
    return (y * sigmoid(y) if silu else y).astype(x.dtype)


def conv(x, w, **attrs):
    """ONNX Runtime's Conv, channels first."""
    names = ["x", "w"]
    graph = h.make_graph([h.make_node("Conv", names, ["y"], **attrs)], "g",
                         [h.make_tensor_value_info(n, T.FLOAT, a.shape) for n, a in zip(names, (x, w), strict=True)],
                         [h.make_empty_tensor_value_info("y")])
    return session(h.make_model(graph, opset_imports=OPSETS, ir_version=10)).run(None, {"x": x, "w": w})[0]


def diffusion():
    """Operators without a kernel for the CPU in ONNX Runtime: their definitions in numpy, convolutions from its Conv."""
    x, bias, skip = f32(2, 9, 16), f32(16), f32(2, 9, 16)
    names = {(k, d): "bs"[d] for k in (0, 2) for d in range(2)}
    node("BiasAdd", [x, bias, skip], feed=(0, 2), slack=1e-6, symbolic=names, want=[x + bias + skip])
    both = x + bias
    node("BiasSplitGelu", [x, bias], slack=1e-5, symbolic={(0, 1): "s"}, want=[both[..., :8] * gelu(both[..., 8:])])
    v, w = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6), f32(16)
    node("SimplifiedLayerNormalization", [x, w], slack=1e-5, axis=-1, epsilon=1e-6, symbolic={(0, 1): "s"}, want=[v * w])
    image, gamma, beta = f32(2, 5, 6, 16), f32(16), f32(16)
    size = {(0, 0): "b", (0, 1): "h", (0, 2): "w"}
    for silu in (0, 1):
        want = group_norm(image, gamma, beta, 4, silu)
        first = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
        node("GroupNorm", [image, gamma, beta], slack=2e-5, groups=4, activation=silu, symbolic=size, want=[want])
        node("GroupNorm", [first, gamma, beta], slack=2e-5, groups=4, activation=silu, channels_last=0, want=[want.transpose(0, 3, 1, 2)])
        for added in (f32(2, 16), f32(2, 1, 1, 16), f32(2, 5, 6, 16)):
            total = image + (added.reshape(2, 1, 1, 16) if added.ndim == 2 else added)
            node("SkipGroupNorm", [image, gamma, beta, added], feed=(0, 3), outputs=2, slack=2e-5, groups=8, activation=silu,
                 want=[group_norm(total, gamma, beta, 8, silu), total])
            node("SkipGroupNorm", [image, gamma, beta, added, bias], feed=(0, 3), outputs=2, slack=2e-5, groups=8, activation=silu,
                 want=[group_norm(total + bias, gamma, beta, 8, silu), total + bias])
    half = image.astype(np.float16)
    node("GroupNorm", [half, gamma, beta], slack=5e-3, groups=4, activation=1, want=[group_norm(half, gamma, beta, 4, 1)])
    weight, after = f32(6, 16, 3, 3, scale=0.2), f32(6)
    window = dict(pads=[1, 1, 0, 1], strides=[2, 1])
    y = conv(np.ascontiguousarray(image.transpose(0, 3, 1, 2)), weight, **window).transpose(0, 2, 3, 1)
    z = f32(*y.shape)
    node("NhwcConv", [image, weight.transpose(0, 2, 3, 1), after], slack=2e-5, symbolic=size, want=[y + after], **window)
    node("NhwcFusedConv", [image, weight, after, z], feed=(0, 3), slack=2e-5, activation="Relu", want=[np.maximum(y + after + z, 0)], **window)
    node("NhwcFusedConv", [image, weight], slack=2e-5, activation="LeakyRelu", activation_params=[0.1], want=[np.where(y > 0, y, 0.1 * y)], **window)
    refused("NhwcConv", [image, weight, after], "channels", **window)
    refused("GroupNorm", [image, gamma, beta], "groups", groups=5, activation=0)
    refused("SkipGroupNorm", [image, gamma, beta, image], "channels first", feed=(0, 3), groups=4, activation=0, channels_last=0)


def quantized_means():
    for make in (u8, i8):
        x, z, low, high = make(3, 7, 5), make(), *((0, 255) if make is u8 else (-128, 127))
        a, b, to = scale(), scale(), make()
        for axes, keep in (([1], 1), ([0, 2], 0), ([-1], 0)):
            at = tuple(axes)
            real = ((x.astype(np.float32) - np.float32(z)) * a).mean(at, keepdims=bool(keep), dtype=np.float32)
            want = np.clip(np.rint(real / b) + np.float32(to), low, high).astype(x.dtype)
            node("QLinearReduceMean", [x, a, z, b, to], slack=1, axes=axes, keepdims=keep, want=[want])


def namesakes():
    namesake_cases.namesakes(node, refused)


def gathered_blocks():
    packed_cases.gathered_blocks(node, refused)


def padding():
    packed_cases.padding(node, refused)


def packed_attentions():
    packed_cases.attentions(node, refused)


def ordered_matrices():
    for cases in (packed_cases.ordered_bytes, packed_cases.ordered_products, packed_cases.ordered_attention):
        cases(node, refused)


def windowed_attentions():
    packed_cases.windows(node, refused)


def cells():
    """Rounding of the state may take the other neighbour after a step: a tolerance of a unit of it."""
    seq, batch, size, hidden = 6, 2, 20, 16
    for direction, dirs in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        for t in (u8, i8):
            lanes = (dirs, 4 * hidden) if t is i8 else (dirs,)
            zero = lambda: np.zeros(lanes, np.int8) if t is i8 else t(*lanes)
            ins = [f32(seq, batch, size), t(dirs, size, 4 * hidden), t(dirs, hidden, 4 * hidden), f32(dirs, 8 * hidden, scale=0.3), None,
                   f32(dirs, batch, hidden, scale=0.3), f32(dirs, batch, hidden, scale=0.3), None, scale(*lanes) / 20, zero(),
                   scale(*lanes) / 20, zero()]
            node("DynamicQuantizeLSTM", ins, feed=(0, 5, 6), outputs=3, slack=0.02, hidden_size=hidden, direction=direction)
    ins[4] = np.array([seq, 3], np.int32)
    node("DynamicQuantizeLSTM", ins, feed=(0, 4, 5, 6), outputs=3, slack=0.02, hidden_size=hidden, direction=direction)


PARTS = [products, bytes_moved, embeddings, attentions, head_attentions, rotations, cached_attentions, diffusion, quantized_means, namesakes, gathered_blocks, padding, packed_attentions, ordered_matrices, windowed_attentions, cells, models.dynamic_models, models.stored_cells, models.encoder, models.static_model, models.u_net]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    for part in PARTS:
        if not re.search(args.only, part.__name__):
            continue
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            part(Path(folder)) if part.__code__.co_argcount else part()
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
