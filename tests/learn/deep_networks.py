"""Deep networks in training form, as ONNX with drawn weights: what is kept for their gradients is most of
their memory."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Net:
    """Adds nodes one behind the other."""

    def __init__(self, seed):
        self.rng, self.nodes, self.weights, self.n = np.random.default_rng(seed), [], {}, 0

    def weight(self, *shape, value=None):
        name = f"w{len(self.weights)}"
        drawn = self.rng.normal(0, 1 / np.sqrt(max(np.prod(shape[1:]), 1)), shape) if value is None else np.full(shape, value)
        self.weights[name] = drawn.astype(np.float32)
        return name

    def const(self, value, dtype):
        self.n += 1
        self.nodes.append(helper.make_node("Constant", [], [f"c{self.n}"], value=numpy_helper.from_array(np.asarray(value, dtype))))
        return f"c{self.n}"

    def add(self, op, *inputs, outputs=1, **attributes):
        self.n += 1
        names = [f"v{self.n}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0]

    def model(self, last, shape, loss=True):
        """Its output is the mean square of the last value, or that value."""
        if loss:
            self.nodes.append(helper.make_node("Mul", [last, last], ["square"]))
            self.nodes.append(helper.make_node("ReduceMean", ["square"], ["loss"], keepdims=0))
        output = helper.make_tensor_value_info("loss" if loss else last, TensorProto.FLOAT, [] if loss else None)
        graph = helper.make_graph(self.nodes, "deep", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [output],
                                  [numpy_helper.from_array(v, k) for k, v in self.weights.items()])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def norm(net, x, width):
    return net.add("BatchNormalization", x, net.weight(width, value=1), net.weight(width, value=0), net.weight(width, value=0),
                   net.weight(width, value=1), outputs=3, training_mode=1)


def residual(blocks=8, width=12, batch=4, size=16):
    net = Net(1)
    v = net.add("Conv", "x", net.weight(width, 3, 3, 3), pads=[1, 1, 1, 1])
    for _ in range(blocks):
        w = net.add("Relu", norm(net, net.add("Conv", v, net.weight(width, width, 3, 3), pads=[1, 1, 1, 1]), width))
        w = norm(net, net.add("Conv", w, net.weight(width, width, 3, 3), pads=[1, 1, 1, 1]), width)
        v = net.add("Relu", net.add("Add", v, w))
    return net.model(net.add("GlobalAveragePool", v), [batch, 3, size, size])


def classifier(batch=8, width=12):
    """Residual blocks with dropout in front of one product, their normalization in use."""
    net = Net(6)
    v = net.add("Conv", "x", net.weight(width, 3, 3, 3), pads=[1, 1, 1, 1])
    for k in range(2):
        w = net.add("Relu", norm(net, net.add("Conv", v, net.weight(width, width, 3, 3), pads=[1, 1, 1, 1]), width))
        w = net.add("Dropout", w, net.const(0.25, np.float32), net.const(True, bool), seed=k + 1)
        v = net.add("Relu", net.add("Add", v, norm(net, net.add("Conv", w, net.weight(width, width, 3, 3), pads=[1, 1, 1, 1]), width)))
    v = net.add("MatMul", net.add("Flatten", net.add("GlobalAveragePool", v)), net.weight(width, 10))
    return net.model(v, [batch, 3, 16, 16], loss=False)


def transformer(layers=5, width=32, batch=4, length=16, dropout=True, loss=True):
    net = Net(2)
    v = net.add("MatMul", "x", net.weight(width, width))
    for k in range(layers):
        n = net.add("LayerNormalization", v, net.weight(width, value=1), net.weight(width, value=0))
        q, key, u = (net.add("MatMul", n, net.weight(width, width)) for _ in range(3))
        scores = net.add("MatMul", q, net.add("Transpose", key, perm=[0, 2, 1]))
        a = net.add("MatMul", net.add("Softmax", net.add("Mul", scores, net.const(width**-0.5, np.float32))), u)
        v = net.add("Add", v, net.add("MatMul", a, net.weight(width, width)))
        n = net.add("LayerNormalization", v, net.weight(width, value=1), net.weight(width, value=0))
        up = net.add("MatMul", n, net.weight(width, 4 * width))
        gelu = net.add("Mul", up, net.add("Sigmoid", net.add("Mul", up, net.const(1.702, np.float32))))
        if dropout:
            gelu = net.add("Dropout", gelu, net.const(0.25, np.float32), net.const(True, bool), seed=k + 1)
        v = net.add("Add", v, net.add("MatMul", gelu, net.weight(4 * width, width)))
    return net.model(v, [batch, length, width], loss)
