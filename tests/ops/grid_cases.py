#!/usr/bin/env python3
"""Reductions of sizes at which the threads of a block share them, as cases of tests/tools/elem_tool.

usage: grid_cases.py FOLDER: makes FOLDER/NAME/model.onnx, in_0.pb, out_K.pb (by ONNX Runtime), tol
"""
import os
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def f(*shape):
    return np.random.default_rng(sum(shape)).uniform(-2, 2, shape).astype(np.float32)


def node(op, n_in=1, **attrs):
    return helper.make_node(op, ["x", "a", "b"][:n_in], ["y"], **attrs)


def axes(*values):
    return np.array(values, np.int64)


CASES = {  # name: nodes, x, constants, dimensions of x that are symbols
    "softmax": ([node("Softmax", axis=-1)], f(6, 300), []),
    "softmax_long": ([node("Softmax", axis=-1)], f(2, 9000), []),
    "softmax_channels": ([node("Softmax", axis=1)], f(2, 40, 3, 50), []),
    "log_softmax": ([node("LogSoftmax", axis=-1)], f(70, 129), []),
    "softmax_symbolic": ([node("Softmax", axis=-1)], f(5, 77), [], (0, 1)),
    "layer_norm": ([node("LayerNormalization", 3, axis=-1)], f(9, 384), [f(384), f(384)]),
    "layer_norm_two": ([node("LayerNormalization", 3, axis=1)], f(4, 20, 33), [f(20, 33), f(20, 33)]),
    "instance_norm": ([node("InstanceNormalization", 3)], f(2, 5, 12, 13), [f(5), f(5)]),
    "group_norm": ([node("GroupNormalization", 3, num_groups=2)], f(2, 6, 9, 11), [f(6), f(6)]),
    "sum_rows": ([node("ReduceSum", 2)], f(40, 500), [axes(1)]),
    "sum_columns": ([node("ReduceSum", 2)], f(500, 40), [axes(0)]),
    "sum_columns_few": ([node("ReduceSum", 2)], f(700, 3), [axes(0)]),
    "sum_all": ([node("ReduceSum", 2)], f(40, 500), [axes(0, 1)]),
    "sum_middle": ([node("ReduceSum", 2)], f(3, 100, 7), [axes(1)]),
    "sum_around": ([node("ReduceSum", 2)], f(8, 5, 90), [axes(0, 2)]),
    "sum_huge": ([node("ReduceMean", 2)], f(300000), [axes(0)]),
    "sum_symbolic": ([node("ReduceSum", 2)], f(40, 500), [axes(1)], (0, 1)),
    "max_rows": ([node("ReduceMax", 2)], f(3, 1000), [axes(1)]),
    "l2_all": ([node("ReduceL2", 2)], f(30, 50), [axes(0, 1)]),
    "arg_max": ([node("ArgMax", axis=1)], f(7, 400), []),
    "average": ([node("GlobalAveragePool")], f(2, 70, 14, 14), []),
    "largest": ([node("GlobalMaxPool")], f(1, 40, 9, 9), []),
    "vector_matrix": ([node("MatMul", 2)], f(1, 800), [f(800, 90)]),
    "matrix_vector": ([node("MatMul", 2)], f(90, 800), [f(800)]),
    "centred": ([helper.make_node("ReduceMean", ["x", "a"], ["m"]), helper.make_node("Sub", ["x", "m"], ["c"]),
                 helper.make_node("Mul", ["c", "c"], ["s"]), helper.make_node("ReduceSum", ["s", "a"], ["y"])],
                f(20, 200), [axes(1)]),
    "whole_and_rows": ([helper.make_node("ReduceMax", ["x", "a"], ["m"]), helper.make_node("Sub", ["x", "m"], ["c"]),
                        helper.make_node("Softmax", ["c"], ["y"], axis=-1)], f(50, 200), [axes(0, 1)]),
}


def write(folder, nodes, x, constants, symbols=()):
    os.makedirs(folder, exist_ok=True)
    shape = [f"n{d}" if d in symbols else n for d, n in enumerate(x.shape)]
    kind = TensorProto.INT64 if nodes[-1].op_type == "ArgMax" else TensorProto.FLOAT
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("y", kind, None)],
                              [numpy_helper.from_array(c, n) for c, n in zip(constants, "ab")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, os.path.join(folder, "model.onnx"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    want = session.run(None, {"x": x})[0]
    for name, data in (("in_0.pb", x), ("out_0.pb", want)):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(numpy_helper.from_array(data).SerializeToString())
    with open(os.path.join(folder, "tol"), "w") as out:
        out.write("1e-4 1e-4\n")


if __name__ == "__main__":
    for name, case in CASES.items():
        write(os.path.join(sys.argv[1], name), *case)
