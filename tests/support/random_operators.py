"""More operators of random_graphs.py: integers and computed indices, scatters, recurrent cells, branches, loops, sizes computed
at run time from other values' sizes."""
import numpy as np
from onnx import TensorProto as T
from onnx import helper


class MoreOperators:
    def op_gather_computed(self):
        """Rows chosen by an ArgMax."""
        x = self.float_value(at_least=2)
        a = int(self.rng.integers(x.rank))
        i = self.emit("ArgMax", [x], x.shape[:a] + x.shape[a + 1:], np.int64, keep=False, axis=a, keepdims=0)
        y = self.float_value(at_least=1)
        b = int(self.rng.integers(y.rank))
        i = self.binary("Mod", i, self.const(np.int64(min(y.shape[b]))))
        if self.chance(0.3):
            i = self.binary("Sub", i, self.const(np.int64(min(y.shape[b]))))  # negative: from the end
        return self.emit("Gather", [y, i], y.shape[:b] + i.shape + y.shape[b + 1:], axis=b)

    def op_integer_arithmetic(self):
        x = self.unary("Softsign", self.float_value())
        dtype, code = [(np.int32, T.INT32), (np.int64, T.INT64), (np.int8, T.INT8), (np.uint8, T.UINT8)][int(self.rng.integers(4))]
        y = self.binary("Add", self.binary("Mul", x, self.scalar(40)), self.scalar(0.37))  # a noisy 0 is no whole number
        if dtype == np.uint8:
            y = self.unary("Abs", y)
        i = self.emit("Cast", [self.unary("Floor", y)], x.shape, dtype, keep=False, to=code)
        for _ in range(int(self.rng.integers(1, 4))):
            op = self.pick(["Add", "Mul", "Sub", "Max", "Div", "Mod", "And"])
            k = self.const(np.array(self.pick([1, 2, 3, 7]), dtype))
            if op == "And":
                i = self.binary("BitwiseAnd", i, k)
            elif op in ("Max",) and dtype in (np.int8, np.uint8) or op == "Sub" and dtype == np.uint8:
                continue
            else:
                i = self.binary(op, i, k)
        return self.emit("Cast", [i], x.shape, to=T.FLOAT)

    def op_logic(self):
        x = self.float_value()
        a = self.emit("Less", [x, self.scalar(0.3)], x.shape, np.bool_, keep=False)
        b = self.emit("GreaterOrEqual", [x, self.scalar(-0.4)], x.shape, np.bool_, keep=False)
        c = self.emit(self.pick(["And", "Or", "Xor"]), [a, b], x.shape, np.bool_, keep=False)
        return self.emit("Cast", [c], x.shape, to=T.FLOAT)

    def op_scatter(self):
        x = self.float_value(at_least=1, want=lambda v: all(min(d) == max(d) for d in v.shape))
        a = int(self.rng.integers(x.rank))
        shape = [d[0] for d in x.shape]
        n = shape[a]
        shape[a] = int(self.rng.integers(1, n + 1))
        order = np.argsort(self.rng.random([d[0] for d in x.shape]), axis=a)  # distinct along the axis
        index = np.take(order, np.arange(shape[a]), axis=a)
        update = self.weights(*shape)
        return self.emit("ScatterElements", [x, self.const(index.astype(np.int64)), update], x.shape, axis=a,
                         **({"reduction": self.pick(["add", "max", "mul"])} if self.chance(0.5) else {}))

    def op_scatter_nd(self):
        x = self.float_value(at_least=2, want=lambda v: all(min(d) == max(d) for d in v.shape))
        n = x.shape[0][0]
        rows = self.rng.permutation(n)[: int(self.rng.integers(1, n + 1))]
        return self.emit("ScatterND", [x, self.const(rows.reshape(-1, 1).astype(np.int64)),
                                       self.weights(len(rows), *[d[0] for d in x.shape[1:]])], x.shape)

    def op_one_hot(self):
        x = self.float_value(at_least=2)
        a = int(self.rng.integers(x.rank))
        i = self.emit("ArgMin", [x], x.shape[:a] + x.shape[a + 1:], np.int64, keep=False, axis=a, keepdims=0)
        depth = self.pick([3, 5, 9])
        return self.emit("OneHot", [i, self.const(np.int64(depth)), self.const(np.float32([-0.5, 2]))],
                         i.shape + ((depth,) * 3,), axis=-1)

    def op_recurrent(self):
        x = self.float_value(rank=3, want=lambda v: min(v.shape[2]) == max(v.shape[2]))
        kind, gates = self.pick([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
        direction = self.pick(["forward", "reverse", "bidirectional"])
        d, h, e = 2 if direction == "bidirectional" else 1, self.pick([1, 3, 8, 17]), x.shape[2][0]
        inputs = [x, self.weights(d, gates * h, e, scale=e**-0.5), self.weights(d, gates * h, h, scale=h**-0.5)]
        if self.chance(0.5):
            inputs.append(self.weights(d, 2 * gates * h))
        attrs = {"linear_before_reset": int(self.chance(0.5))} if kind == "GRU" else {}
        return self.emit(kind, inputs, (x.shape[0], (d,) * 3, x.shape[1], (h,) * 3), hidden_size=h, direction=direction, **attrs)

    def condition(self, x):
        s = self.emit("ReduceSum", [x], (), keep=False, keepdims=0)
        return self.emit("Greater", [s, self.scalar(0.123)], (), np.bool_, keep=False)

    def body(self, nodes, inputs, outputs, initializers=()):
        return helper.make_graph(nodes, self.name("g"), inputs, outputs, list(initializers))

    def op_if(self):
        x = self.float_value(at_least=1)
        y = self.mate(x)
        shape = self.broadcast(x.shape, y.shape) if hasattr(y, "shape") else x.shape
        if shape != x.shape:
            raise self.skip
        branches = []
        for ops in (["Add", "Tanh"], ["Mul", "Relu"]):
            mid, out = self.name("b"), self.name("b")
            names = [x.name, y if isinstance(y, str) else y.name]
            nodes = [helper.make_node(ops[0], names, [mid]), helper.make_node(ops[1], [mid], [out])]
            branches.append(self.body(nodes, [], [helper.make_tensor_value_info(out, T.FLOAT, None)]))
        inputs = [self.condition(x)]
        return self.emit("If", inputs, shape, then_branch=branches[0], else_branch=branches[1])

    def op_loop(self):
        """A state that goes through a few steps of y = tanh(y * 0.7 + x), and the sums of every step."""
        x = self.float_value(at_least=1)
        steps = int(self.rng.integers(1, 5))
        i, c, y, t, u, v, s, k = (self.name("b") for _ in range(8))
        info = lambda n, code=T.FLOAT, shape=None: helper.make_tensor_value_info(n, code, shape)
        nodes = [helper.make_node("Mul", [y, self.scalar(0.7)], [t]), helper.make_node("Add", [t, x.name], [u]),
                 helper.make_node("Tanh", [u], [v]), helper.make_node("ReduceSum", [v], [s], keepdims=0),
                 helper.make_node("Identity", [c], [k])]
        graph = self.body(nodes, [info(i, T.INT64, []), info(c, T.BOOL, []), info(y)], [info(k, T.BOOL, []), info(v), info(s)])
        out = self.emit("Loop", [self.const(np.int64(steps)), "", x], x.shape, body=graph)
        scan = self.name("v")
        self.nodes[-1].output.append(scan)
        self.values.append(type(x)(scan, ((steps,) * 3,)))
        return out

    def op_expand_like(self):
        """A constant expanded to the shape of another value, computed at run time."""
        x = self.float_value(at_least=1)
        s = self.emit("Shape", [x], ((x.rank,) * 3,), np.int64, keep=False)
        return self.emit("Expand", [self.weights(1), s], x.shape)

    def op_slice_like(self):
        """The first half of a dimension, its end computed from the shape."""
        x = self.float_value(at_least=1, want=lambda v: min(v.shape[0]) > 1)
        s = self.emit("Shape", [x], ((1,) * 3,), np.int64, keep=False, start=0, end=1)
        half = self.binary("Div", s, self.ints(2))
        out = tuple(n // 2 for n in x.shape[0])
        if min(out) == max(out) and min(x.shape[0]) != max(x.shape[0]):
            raise self.skip
        return self.emit("Slice", [x, self.ints(0), half, self.ints(0)], (out,) + x.shape[1:])

    def op_range(self):
        x = self.float_value(at_least=1)
        s = self.emit("Shape", [x], ((1,) * 3,), np.int64, keep=False, start=x.rank - 1, end=x.rank)
        n = self.emit("Squeeze", [s], (), np.int64, keep=False)
        r = self.emit("Range", [self.const(np.int64(0)), n, self.const(np.int64(1))], (x.shape[-1],), np.int64, keep=False)
        f = self.emit("Cast", [r], (x.shape[-1],), keep=False, to=T.FLOAT)
        return self.keep(self.binary("Add", x, self.binary("Mul", f, self.scalar(0.1))))

    def op_resize_cubic(self):
        x = self.float_value(rank=4, want=lambda v: all(min(d) > 2 for d in v.shape[2:]))
        out = [tuple(int(np.floor(n * s)) for n in d) for d, s in zip(x.shape[2:], (2, 1.5))]
        return self.emit("Resize", [x, "", self.const(np.array([1, 1, 2, 1.5], np.float32))], (*x.shape[:2], *out), mode="cubic",
                         coordinate_transformation_mode=self.pick(["half_pixel", "asymmetric"]))
