"""Cases of part contrib: operators of ai.onnx under another name, or with something behind them.

node and refused: those of tests/contrib/nodes.py.
"""
import numpy as np
from onnx import helper as h

rng = np.random.default_rng(2)


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def namesakes(node, refused):
    a, b, c = f32(5, 12), f32(12, 9), f32(9)
    for name, more in (("Relu", {}), ("LeakyRelu", dict(activation_alpha=0.2)), ("Tanh", {}), ("Sigmoid", {}), ("Elu", dict(activation_alpha=0.7)),
                       ("HardSigmoid", dict(activation_alpha=0.3, activation_beta=0.4)), ("Softplus", {}), ("Softsign", {})):
        node("FusedGemm", [a, b, c], slack=1e-5, activation=name, symbolic={(0, 0): "n"}, **more)
    node("FusedGemm", [f32(12, 5), f32(9, 12), f32(5, 1)], slack=1e-5, activation="Relu", transA=1, transB=1, alpha=0.5, beta=2.0)
    refused("FusedGemm", [a, b, c], "activation", activation="Swish")
    x, w = f32(1, 3, 6, 7), f32(3, 4, 3, 3)
    for pads in ([0, 0, 0, 0], [1, 0, 1, 2]):
        node("ConvTransposeWithDynamicPads", [x, w, np.array(pads), f32(4)], slack=1e-5, strides=[2, 2], kernel_shape=[3, 3])
    node("ConvTransposeWithDynamicPads", [x, w, np.array([1, 1, 1, 1])], slack=1e-5)
    refused("ConvTransposeWithDynamicPads", [x, w, np.array([1, 1, 1, 1])], "known from data only", feed=(0, 2))
    for mode in ("constant", "edge", "reflect"):
        node("Pad", [x, np.array([0, 0, 1, 2, 0, 0, 0, 1])], mode=mode)
    node("Pad", [x, np.array([[0, 1, -1, 2, 0, 0, 0, 1]]), np.float32(1.5)], symbolic={(0, 2): "h"})
    node("Range", [np.array(2), np.array(9)], feed=())
    node("Range", [np.array([2.5], np.float32), np.array([9], np.float32), np.array([0.5], np.float32)], feed=())
    for upper in (0, 1):
        node("Trilu", [f32(2, 4, 5)], upper=upper, symbolic={(0, 1): "n"})
        node("Trilu", [f32(2, 4, 5), np.array(-1)], upper=upper)
    node("GatherND", [f32(4, 5, 6), np.array([[0, 1], [3, 4], [2, 0]])], feed=(0, 1), symbolic={(1, 0): "n"})
    grid = rng.uniform(-1.1, 1.1, (1, 5, 4, 2)).astype(np.float32)
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            node("GridSample", [x, grid], feed=(0, 1), slack=2e-5, mode=mode, padding_mode=padding)
    for trans in ({}, dict(transA=1), dict(transB=1, alpha=0.3)):
        node("TransposeMatMul", [f32(2, 9, 9), f32(9, 9)], slack=1e-5, symbolic={(0, 0): "n"}, **trans)
    for axis in (0, 2, -1):
        node("ExpandDims", [f32(3, 4), np.array(axis, np.int32)], symbolic={(0, 0): "n"})
    for metric in ("euclidean", "sqeuclidean"):
        node("CDist", [f32(5, 7), f32(6, 7)], slack=2e-5, feed=(0, 1), metric=metric, symbolic={(0, 0): "n", (1, 0): "m", (0, 1): "k", (1, 1): "k"})
        node("CDist", [rng.standard_normal((5, 7)), rng.standard_normal((6, 7))], slack=1e-10, metric=metric)
    node("CDist", [f32(5, 7), f32(6, 7)], slack=2e-5)
    refused("CDist", [f32(5, 7), f32(6, 7)], "metric", metric="cosine")
    for side in (1, 3, 7, 20):
        near = f32(2, side, side) + 3 * np.eye(side, dtype=np.float32)[::-1]
        node("Inverse", [near], slack=2e-4 * np.abs(np.linalg.inv(near)).max(), symbolic={(0, 0): "b", (0, 1): "n", (0, 2): "n"})
    node("Inverse", [rng.standard_normal((4, 4))], slack=1e-9)
    node("Inverse", [np.array([[0, 2], [4, 0]], np.float16)])
    refused("Inverse", [f32(2, 3)], "sides of the matrix")
    body = h.make_graph([], "decoder", [], [])
    numbers = [np.array([[1, 2]], np.int32), np.array([5], np.int32), np.array([1], np.int32), np.array([2], np.int32), np.array([1], np.int32)]
    for name in ("BeamSearch", "GreedySearch"):
        refused(name, numbers[: 5 if name == "BeamSearch" else 3], "the search over tokens is the caller's", decoder=body, eos_token_id=1, pad_token_id=0)
