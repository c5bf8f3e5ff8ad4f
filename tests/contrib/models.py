"""Cases of part contrib: whole models, as ONNX Runtime's tools quantize them."""
import re
import subprocess

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

import burin
from tests.contrib.nodes import LARGEST, check, compare, f32, i8, session


def graph_text(model, folder):
    path, out = folder / "graph.onnx", folder / "graph.txt"
    path.write_bytes(model.SerializeToString())
    subprocess.run([burin.compiler(), "compile", path, "--emit=graph", "--target=x86-64-v4", "-o", out, "-q"], check=True)
    return out.read_text()


def float_weights(text, least):
    """Constants of floats with at least as many elements."""
    found = re.findall(r": f32\[([\d,]+)\] = const", text)
    return [s for s in found if np.prod([int(v) for v in s.split(",")]) >= least]


def whole(title, model, feeds, slack, products, least, folder):
    want = session(model).run(None, feeds)
    text = graph_text(model, folder)
    bad = compare(title, burin.compile(model).run(feeds), want, slack)
    check(not bad, bad)
    check(text.count("MatMulInteger ") + text.count("ConvInteger ") >= products, f"{title}: fewer than {products} products of integers")
    check(not float_weights(text, least), f"{title}: weights became floats: {float_weights(text, least)}")


def save(nodes, inputs, outputs, init, folder, opset=17):
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info(n, t, s) for n, t, s in inputs],
                         [h.make_tensor_value_info(o, T.FLOAT, s) for o, s in outputs], [nh.from_array(a, n) for n, a in init])
    path = folder / "float.onnx"
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=8), path)
    return path


def dynamic_models(folder):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    hidden, size = 32, 24
    nodes = [h.make_node("LSTM", ["x", "w", "r", "b"], ["y", "last"], hidden_size=hidden, direction="bidirectional"),
             h.make_node("Transpose", ["last"], ["t"], perm=[1, 0, 2]), h.make_node("Reshape", ["t", "shape"], ["flat"]),
             h.make_node("MatMul", ["flat", "m"], ["z"])]
    init = [("w", f32(2, 4 * hidden, size, scale=0.2)), ("r", f32(2, 4 * hidden, hidden, scale=0.2)), ("b", f32(2, 8 * hidden, scale=0.2)),
            ("shape", np.array([2, -1])), ("m", f32(2 * hidden, 40, scale=0.2))]
    path = save(nodes, [("x", T.FLOAT, [7, 2, size])], [("z", [2, 40])], init, folder)
    for kind in (QuantType.QInt8, QuantType.QUInt8):
        quantize_dynamic(path, folder / "q.onnx", weight_type=kind, reduce_range=LARGEST < 127)
        whole(f"quantize_dynamic of an LSTM {kind}", onnx.load(folder / "q.onnx"), {"x": f32(7, 2, size)}, 0.02, 5, 512, folder)


def encoder(folder):
    """A layer as onnxruntime.transformers fuses it, quantized: QAttention, MatMuls, SkipLayerNormalization, BiasGelu."""
    from onnxruntime.quantization import quantize_dynamic

    size, heads, seq = 32, 4, 8
    ms = dict(domain="com.microsoft")
    nodes = [h.make_node("Attention", ["x", "qkv", "qkvb", "mask"], ["a"], num_heads=heads, **ms), h.make_node("MatMul", ["a", "o"], ["ao"]),
             h.make_node("SkipLayerNormalization", ["ao", "x", "g", "b", "ob"], ["n"], epsilon=1e-6, **ms),
             h.make_node("MatMul", ["n", "f"], ["nf"]), h.make_node("BiasGelu", ["nf", "fb"], ["act"], **ms),
             h.make_node("MatMul", ["act", "p"], ["ap"]), h.make_node("SkipLayerNormalization", ["ap", "n", "g", "b", "ob"], ["y"], epsilon=1e-6, **ms)]
    init = [("qkv", f32(size, 3 * size, scale=0.2)), ("qkvb", f32(3 * size)), ("o", f32(size, size, scale=0.2)), ("g", f32(size)),
            ("b", f32(size)), ("ob", f32(size)), ("f", f32(size, 4 * size, scale=0.2)), ("fb", f32(4 * size)), ("p", f32(4 * size, size, scale=0.2))]
    path = save(nodes, [("x", T.FLOAT, [2, seq, size]), ("mask", T.INT32, [2, seq])], [("y", [2, seq, size])], init, folder)
    model = onnx.load(path)
    model.opset_import.append(h.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    quantize_dynamic(path, folder / "q.onnx", extra_options={"DefaultTensorType": T.FLOAT}, reduce_range=LARGEST < 127)
    model = onnx.load(folder / "q.onnx")
    check(any(n.op_type == "QAttention" for n in model.graph.node), "quantize_dynamic made no QAttention")
    mask = np.ones((2, seq), np.int32)
    mask[1, 5:] = 0
    whole("quantize_dynamic of an encoder", model, {"x": f32(2, seq, size), "mask": mask}, 0.05, 4, 512, folder)


def stored_cells(folder):
    """Weights of LSTM and GRU behind DequantizeLinear stay in 8 bits, in front of the loop and inside it."""
    hidden, size = 48, 40
    for op, gates, more in (("LSTM", 4, {}), ("GRU", 3, {}), ("GRU", 3, {"linear_before_reset": 1}), ("RNN", 1, {})):
        for direction, dirs in (("forward", 1), ("bidirectional", 2)):
            init = [("wq", i8(dirs, gates * hidden, size)), ("rq", i8(dirs, gates * hidden, hidden)), ("ws", np.float32(0.002)),
                    ("rs", np.float32(0.002)), ("rz", np.int8(5)), ("b", f32(dirs, 2 * gates * hidden))]
            nodes = [h.make_node("DequantizeLinear", ["wq", "ws"], ["w"]), h.make_node("DequantizeLinear", ["rq", "rs", "rz"], ["r"]),
                     h.make_node(op, ["x", "w", "r", "b"], ["y"], hidden_size=hidden, direction=direction, **more)]
            path = save(nodes, [("x", T.FLOAT, [5, 2, size])], [("y", [5, dirs, 2, hidden])], init, folder)
            whole(f"{op} {direction} {more} of stored weights", onnx.load(path), {"x": f32(5, 2, size)}, 1e-4, 0, 1024, folder)


class Reader:
    """What quantize_static calibrates with."""

    def __init__(self, name, *shape):
        self.data = iter([{name: f32(*shape)} for _ in range(3)])

    def get_next(self):
        return next(self.data, None)


def static_model(folder):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    CalibrationDataReader.register(Reader)
    nodes = [h.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1] * 4), h.make_node("LeakyRelu", ["c0"], ["a0"], alpha=0.1),
             h.make_node("MaxPool", ["a0"], ["p0"], kernel_shape=[2, 2], strides=[2, 2]),
             h.make_node("Conv", ["p0", "w1", "b1"], ["c1"], pads=[1] * 4), h.make_node("Sigmoid", ["c1"], ["s1"]),
             h.make_node("Mul", ["c1", "s1"], ["m1"]), h.make_node("Add", ["m1", "p0"], ["r1"]), h.make_node("Concat", ["r1", "p0"], ["k"], axis=1),
             h.make_node("AveragePool", ["k"], ["v"], kernel_shape=[2, 2], strides=[2, 2]), h.make_node("GlobalAveragePool", ["v"], ["g"]),
             h.make_node("Flatten", ["g"], ["f"]), h.make_node("Gemm", ["f", "w2", "b2"], ["l"], transB=1), h.make_node("Softmax", ["l"], ["y"])]
    init = [("w0", f32(16, 3, 3, 3, scale=0.3)), ("b0", f32(16)), ("w1", f32(16, 16, 3, 3, scale=0.1)), ("b1", f32(16)),
            ("w2", f32(20, 32, scale=0.3)), ("b2", f32(20))]
    path = save(nodes, [("x", T.FLOAT, [1, 3, 16, 16])], [("y", [1, 20])], init, folder, opset=13)
    for lanes in (False, True):
        quantize_static(path, folder / "q.onnx", Reader("x", 1, 3, 16, 16), quant_format=QuantFormat.QOperator, per_channel=lanes)
        model = onnx.load(folder / "q.onnx")
        names = {n.op_type for n in model.graph.node}
        check({"QLinearConv", "QGemm", "QLinearAdd", "QLinearConcat"} <= names, f"quantize_static wrote {sorted(names)}")
        whole(f"quantize_static, per channel {lanes}", model, {"x": f32(1, 3, 16, 16)}, 1 / 128, 3, 256, folder)


def stored_floats(text):
    """Values of floats that are stored, the graph's input and output apart."""
    lines = [s for s in text.splitlines() if re.match(r"  %\d+ : f32\[", s) and not re.search(r" inline = | = const | = input ", s)]
    outputs = set(re.findall(r"^  output (%\d+)", text, re.M))
    return [s.strip()[:90] for s in lines if s.split()[0] not in outputs]


def u_net(folder):
    """Down and up again in QDQ form: transposed convolutions are of integers, and nothing between the ends is stored as floats."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    CalibrationDataReader.register(Reader)
    nodes = [h.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1] * 4), h.make_node("Relu", ["c0"], ["r0"]),
             h.make_node("MaxPool", ["r0"], ["p0"], kernel_shape=[2, 2], strides=[2, 2]),
             h.make_node("Conv", ["p0", "w1", "b1"], ["c1"], pads=[1] * 4), h.make_node("Relu", ["c1"], ["r1"]),
             h.make_node("AveragePool", ["r1"], ["v1"], kernel_shape=[3, 3], pads=[1] * 4),
             h.make_node("ConvTranspose", ["v1", "w2", "b2"], ["t2"], strides=[2, 2], pads=[1] * 4), h.make_node("Relu", ["t2"], ["r2"]),
             h.make_node("Concat", ["r0", "r2"], ["k"], axis=1), h.make_node("Conv", ["k", "w3", "b3"], ["y"], pads=[1] * 4)]
    init = [("w0", f32(16, 3, 3, 3, scale=0.3)), ("b0", f32(16)), ("w1", f32(24, 16, 3, 3, scale=0.1)), ("b1", f32(24)),
            ("w2", f32(24, 16, 4, 4, scale=0.1)), ("b2", f32(16)), ("w3", f32(8, 32, 3, 3, scale=0.1)), ("b3", f32(8))]
    path = save(nodes, [("x", T.FLOAT, [1, 3, 16, 16])], [("y", [1, 8, 16, 16])], init, folder)
    for lanes in (False, True):
        quantize_static(path, folder / "q.onnx", Reader("x", 1, 3, 16, 16), quant_format=QuantFormat.QDQ, per_channel=lanes)
        model = onnx.load(folder / "q.onnx")
        step = max(float(nh.to_array(i)) for i in model.graph.initializer if i.name == "y_scale")
        whole(f"U-Net, per channel {lanes}", model, {"x": f32(1, 3, 16, 16)}, 3.01 * step, 4, 256, folder)
        floats = stored_floats(graph_text(model, folder))
        check(not floats, f"U-Net, per channel {lanes}: stored as floats: {floats}")
