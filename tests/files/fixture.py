"""Models of the part, and what no run may leave behind."""
import os

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.support.part import check


def make_model(path, nodes, inputs, outputs, weights=()):
    def infos(values):
        return [helper.make_tensor_value_info(n, t, s) for n, t, s in values]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), [numpy_helper.from_array(w, n) for n, w in weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def conv_model(path, channels):
    rng = np.random.default_rng(5)
    w = rng.normal(size=(channels, 3, 3, 3)).astype(np.float32)
    b = rng.normal(size=channels).astype(np.float32)
    v = rng.normal(size=(channels, channels, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["t"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["t"], ["u"]),
             helper.make_node("Conv", ["u", "v"], ["y"])]
    make_model(path, nodes, [("x", 1, [1, 3, 9, 9])], [("y", 1, [1, channels, 9, 9])], [("w", w), ("b", b), ("v", v)])


def no_leftovers(name, folder):
    left = [f for f in os.listdir(folder) if f.startswith((".burin", "burin-")) or ".tmp" in f or f.endswith(".part")]
    return check(f"{name}: nothing is left", not left, left)
