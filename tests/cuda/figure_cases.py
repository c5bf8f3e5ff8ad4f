"""Models whose kernels stand in tests/cuda/figures.txt: every tile of matrix products in every type, and what other templates make.
A node's name is the name of its row."""
import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

F32, F16, BF16, U8, I8, I32, I64 = (getattr(TensorProto, t) for t in ("FLOAT", "FLOAT16", "BFLOAT16", "UINT8", "INT8", "INT32", "INT64"))
NUMPY = {F32: np.float32, F16: np.float16, BF16: ml_dtypes.bfloat16, U8: np.uint8, I8: np.int8, I64: np.int64}


class Model:
    def __init__(self):
        self.nodes, self.inputs, self.outputs, self.weights = [], [], [], []

    def input(self, dims, dtype=F32):
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, dtype, dims))
        return name

    def weight(self, dims, dtype=F32):
        name = f"w{len(self.weights)}"
        values = np.random.default_rng(len(self.weights)).integers(0, 9, dims)
        self.weights.append(numpy_helper.from_array(values.astype(NUMPY[dtype]), name))
        return name

    def constant(self, values, dtype=I64):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, NUMPY[dtype]), name))
        return name

    def add(self, name, op, *inputs, output=None, **attributes):
        """The node's result is an output of the model, of this type, or (None) what another node reads."""
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_y"], name=name, **attributes))
        if output:
            self.outputs.append(helper.make_tensor_value_info(f"{name}_y", output, None))
        return f"{name}_y"

    def save(self, path):
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.weights)
        path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10).SerializeToString())


def products(dtype, n, rows=512, columns=512, k_of=lambda i: 512 + 128 * i):
    """n products, each with another k, so that each is a question of its own."""
    m = Model()
    for k in map(k_of, range(n)):
        if dtype == U8:
            m.add(f"product {k}", "MatMulInteger", m.input([rows, k], U8), m.weight([k, columns], I8), output=I32)
        else:
            m.add(f"product {k}", "MatMul", m.input([rows, k], dtype), m.weight([k, columns], dtype), output=dtype)
    return m


def convolutions():
    m = Model()
    for name, dtype in (("f32", F32), ("f16", F16)):
        x = m.input([4, 64, 56, 56], dtype)
        y = m.add(f"conv 3x3 {name}", "Conv", x, m.weight([128, 64, 3, 3], dtype), pads=[1] * 4, strides=[2, 2])
        m.add(f"relu of conv {name}", "Relu", y, output=dtype)
        m.add(f"conv 1x1 {name}", "Conv", m.input([4, 256, 28, 28], dtype), m.weight([64, 256, 1, 1], dtype), output=dtype)
        m.add(f"transposed conv {name}", "ConvTranspose", m.input([2, 64, 28, 28], dtype), m.weight([64, 32, 2, 2], dtype), strides=[2, 2],
              output=dtype)
        m.add(f"depthwise 3x3 {name}", "Conv", m.input([4, 96, 28, 28], dtype), m.weight([96, 1, 3, 3], dtype), pads=[1] * 4, group=96,
              output=dtype)
        m.add(f"grouped conv {name}", "Conv", m.input([4, 64, 28, 28], dtype), m.weight([64, 16, 3, 3], dtype), pads=[1] * 4, group=4,
              output=dtype)
    m.add("conv 3x3x3", "Conv", m.input([1, 16, 16, 16, 16]), m.weight([16, 16, 3, 3, 3]), pads=[1] * 6, output=F32)
    return m


def attention(m, name, dtype, queries, keys):
    q, k, v = m.input([8, queries, 64], dtype), m.input([8, keys, 64], dtype), m.input([8, keys, 64], dtype)
    scores = m.add(f"{name} scores", "MatMul", q, m.add(f"{name} keys", "Transpose", k, perm=[0, 2, 1]))
    scaled = m.add(f"{name} scale", "Mul", scores, m.constant(0.125, dtype))
    m.add(f"{name} values", "MatMul", m.add(f"{name} softmax", "Softmax", scaled), v, output=dtype)


def others():
    m = Model()
    for name, dtype in (("f32", F32), ("f16", F16)):
        x = m.input([64, 1000], dtype)
        m.add(f"softmax 1000 {name}", "Softmax", x, output=dtype)
        m.add(f"layer norm 768 {name}", "LayerNormalization", m.input([256, 768], dtype), m.weight([768], dtype), m.weight([768], dtype),
              output=dtype)
        m.add(f"elementwise {name}", "Erf", m.add(f"sum {name}", "Add", m.input([256, 768], dtype), m.weight([768], dtype)), output=dtype)
        m.add(f"transposition {name}", "Transpose", m.input([12, 128, 64], dtype), perm=[2, 0, 1], output=dtype)
        attention(m, f"attention {name}", dtype, 128, 128)
    m.add("softmax 20000", "Softmax", m.input([4, 20000]), output=F32)
    m.add("mean of columns", "ReduceMean", m.input([2048, 64]), m.constant([0]), output=F32)
    m.add("mean of all", "ReduceMean", m.input([100000]), output=F32)
    m.add("max pool", "MaxPool", m.input([4, 64, 56, 56]), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, output=F32)
    m.add("average of images", "GlobalAveragePool", m.input([4, 512, 7, 7]), output=F32)
    m.add("resize", "Resize", m.input([1, 16, 20, 20]), "", m.constant([1, 1, 2, 2], F32), mode="linear", output=F32)
    m.add("gather", "Gather", m.weight([1000, 256]), m.input([128], I64), output=F32)
    m.add("running sum", "CumSum", m.input([64, 500]), m.constant(1), output=F32)
    m.add("concat", "Concat", m.input([8, 30]), m.input([8, 50]), axis=1, output=F32)
    return m


TYPES = (("f32", F32, []), ("tf32", F32, ["--precision=tf32"]), ("f16", F16, []), ("bf16", BF16, []), ("8 bits", U8, []))
OTHERS = (("convolutions", convolutions), ("others", others))
