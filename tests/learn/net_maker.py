"""Makes small networks: nodes and random weights with the sizes of what they give."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Net:
    """Adds nodes; values are names, self.shape says their sizes (None: the batch)."""

    def __init__(self, rng, name):
        self.rng, self.name, self.opset = rng, name, 23
        self.nodes, self.constants, self.inputs, self.shape = [], [], [], {}

    def input(self, *shape):
        x = f"x{len(self.inputs)}"
        self.shape[x] = list(shape)
        self.inputs.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N" if d is None else d for d in shape]))
        return x

    def const(self, array, name=None):
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape, scale=None):
        fan = int(np.prod(shape[1:])) or 1
        return self.const((self.rng.standard_normal(shape) * (scale or 1.2 / np.sqrt(fan))).astype(np.float32))

    def vector(self, *shape):
        return self.const((1 + 0.3 * self.rng.standard_normal(shape)).astype(np.float32))

    def ints(self, *values):
        return self.const(np.array(values, np.int64))

    def op(self, kind, *inputs, shape=None, outputs=1, **attributes):
        out = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), out, name=f"n{len(self.nodes)}", **attributes))
        for o in out:
            self.shape[o] = list(shape if shape is not None else self.shape[inputs[0]])
        return out[0] if outputs == 1 else out

    # ---- layers ----
    def conv(self, x, out, kernel=3, stride=1, group=1, bias=True):
        n, c, *size = self.shape[x]
        pad = kernel // 2
        inputs = [x, self.weight(out, c // group, *[kernel] * len(size))] + ([self.vector(out)] if bias else [])
        size = [(s + 2 * pad - kernel) // stride + 1 for s in size]
        return self.op("Conv", *inputs, shape=[n, out, *size], group=group, pads=[pad] * 2 * len(size),
                       strides=[stride] * len(size), kernel_shape=[kernel] * len(size))

    def norm(self, x):
        c = self.shape[x][1]
        var = self.const(np.abs(self.rng.standard_normal(c)).astype(np.float32) + 0.5)
        return self.op("BatchNormalization", x, self.vector(c), self.vector(c), self.vector(c), var)

    def block(self, x, out, act="Relu", **how):
        return self.op(act, self.norm(self.conv(x, out, **how)))

    def dense(self, x, out, bias=True):
        *rest, c = self.shape[x]
        y = self.op("MatMul", x, self.weight(c, out, scale=1.2 / np.sqrt(c)), shape=[*rest, out])
        return self.op("Add", y, self.vector(out)) if bias else y

    def reshape(self, x, *target, shape):
        return self.op("Reshape", x, self.ints(*target), shape=shape)

    def transpose(self, x, *perm):
        return self.op("Transpose", x, perm=list(perm), shape=[self.shape[x][p] for p in perm])

    def pool(self, x):
        n, c, *size = self.shape[x]
        return self.op("GlobalAveragePool", x, shape=[n, c] + [1] * len(size))

    def classify(self, x, classes=5):
        n, c, *_ = self.shape[x]
        return self.gemm(self.op("Flatten", self.pool(x), shape=[n, c]), classes)

    def gemm(self, x, out):
        n, c = self.shape[x]
        return self.op("Gemm", x, self.weight(out, c), self.vector(out), transB=1, shape=[n, out])

    def model(self, *outputs):
        infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, infos, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)], ir_version=11)


def pick(rng, *choices):
    return choices[rng.integers(len(choices))]
