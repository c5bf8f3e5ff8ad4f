"""Random ONNX graphs for run_random.py: Generator(seed).graph() makes 10 to 25 nodes over float, integer and bool tensors.

A dimension is a tuple of sizes, one for each of TRIALS runs: (7, 1, 4) is a symbol or computed from one, (5, 5, 5) is
fixed. So the generator knows every shape of every run without shape inference. Values stay tame (no overflow, no
division by nearly zero) so that the result can be compared.
"""
import numpy as np
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from tests.support.random_contractions import Contractions
from tests.support.random_operators import MoreOperators
from tests.support.random_values import (MAX_ELEMENTS, SIZES, SYMBOLS, TRIALS, Skip, Value, count, dim, fixed, reads)

UNARY = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Erf", "Gelu", "HardSwish", "LeakyRelu", "Elu", "Softplus", "Softsign",
         "Selu", "Sin", "Cos", "Mish", "HardSigmoid", "Celu", "Atan", "Asinh", "Identity"]
REDUCE = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"]


class Generator(Contractions, MoreOperators):
    skip = Skip
    most = None  # nodes

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.values, self.nodes, self.initializers, self.inputs = [], [], [], []
        self.used = set()
        self.n_names = 0

    # ---- small help ----
    def pick(self, items):
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p):
        return self.rng.random() < p

    def name(self, stem):
        self.n_names += 1
        return f"{stem}{self.n_names}"

    def const(self, array):
        name = self.name("c")
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def ints(self, *values):
        return self.const(np.array(values, np.int64))

    def weights(self, *shape, scale=1.0):
        return self.const((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def fit(self, shape):
        if count(shape) > MAX_ELEMENTS or len(shape) > 6 or any(min(d) < 1 for d in shape):
            raise Skip
        return shape

    def emit(self, op, inputs, shape, dtype=np.float32, keep=True, **attrs):
        """Adds a node of one output and returns its value."""
        self.fit(shape)
        out = Value(self.name("v"), shape, dtype)
        names = [i.name if isinstance(i, Value) else i for i in inputs]
        self.used.update(names)
        self.nodes.append(helper.make_node(op, names, [out.name], name=out.name, **attrs))
        if keep:
            self.values.append(out)
        return out

    def unary(self, op, x, **attrs):
        return self.emit(op, [x], x.shape, x.dtype, keep=False, **attrs)

    def binary(self, op, x, y, **attrs):
        shape = self.broadcast(x.shape, y.shape) if isinstance(y, Value) else x.shape
        return self.emit(op, [x, y], shape, x.dtype, keep=False, **attrs)

    def keep(self, v):
        self.values.append(v)
        return v

    def float_value(self, rank=None, at_least=0, want=lambda v: True):
        ok = [v for v in self.values if v.dtype == np.float32 and v.rank >= at_least
              and (rank is None or v.rank == rank) and want(v)]
        if not ok:
            raise Skip
        return ok[-1 - min(len(ok) - 1, int(self.rng.exponential(2.5)))]  # late values more often: chains

    def broadcast(self, a, b):
        out = []
        for i in range(max(len(a), len(b))):
            x = a[len(a) - 1 - i] if i < len(a) else dim(1)
            y = b[len(b) - 1 - i] if i < len(b) else dim(1)
            if x != y and x != dim(1) and y != dim(1):
                raise Skip
            out.insert(0, y if x == dim(1) else x)
        return tuple(out)

    def mate(self, x):
        """Something that broadcasts with x: another value, or a constant."""
        if self.chance(0.6):
            ok = []
            for v in self.values:
                if v.dtype == x.dtype:
                    try:
                        self.fit(self.broadcast(x.shape, v.shape))
                        ok.append(v)
                    except Skip:
                        pass
            if ok:
                return self.pick(ok)
        shape = [d[0] if fixed(d) and self.chance(0.6) else 1 for d in x.shape]
        return self.weights(*shape[int(self.rng.integers(len(shape) + 1)):])

    def scalar(self, v):
        return self.const(np.float32(v))

    # ---- operators ----
    def op_unary(self):
        op, x = self.pick(UNARY), self.float_value()
        return self.keep(self.unary(op, self.unary("Softsign", x) if op in ("Sin", "Cos") else x))

    def op_unary_safe(self):
        x = self.float_value()
        kind = self.pick(["exp", "sqrt", "log", "recip", "pow", "clip", "square"])
        if kind == "exp":
            return self.keep(self.unary("Exp", self.unary("Tanh", x)))
        if kind == "clip":
            return self.keep(self.emit("Clip", [x, self.scalar(-1.5), self.scalar(1.25)], x.shape, keep=False))
        if kind == "square":
            return self.keep(self.binary("Pow", self.unary("Tanh", x), self.scalar(self.pick([2, 3]))))
        a = self.binary("Add", self.unary("Abs", x), self.scalar(0.5))
        if kind == "pow":
            return self.keep(self.binary("Pow", a, self.scalar(self.pick([0.5, -0.5, 1.7, -1]))))
        return self.keep(self.unary({"sqrt": "Sqrt", "log": "Log", "recip": "Reciprocal"}[kind], a))

    def op_binary(self):
        x = self.float_value()
        y = self.mate(x)
        op = self.pick(["Add", "Add", "Mul", "Sub", "Max", "Min", "Div"])
        if op == "Div":
            if not isinstance(y, Value):
                raise Skip
            y = self.binary("Add", self.unary("Abs", y), self.scalar(0.5))
        return self.keep(self.binary(op, x, y))

    def op_where(self):
        x = self.float_value()
        y = self.mate(x)
        c = self.float_value(want=lambda v: self.fits_with(v, x))
        shape = self.broadcast(x.shape, y.shape) if isinstance(y, Value) else x.shape
        shape = self.broadcast(shape, c.shape)
        b = self.emit(self.pick(["Greater", "LessOrEqual"]), [c, self.scalar(0.1)], c.shape, np.bool_, keep=False)
        if self.chance(0.3):
            b = self.unary("Not", b)
        return self.emit("Where", [b, x, y], shape)

    def fits_with(self, v, x):
        try:
            self.broadcast(v.shape, x.shape)
            return True
        except Skip:
            return False

    def op_prelu(self):
        x = self.float_value(at_least=2)
        return self.emit("PRelu", [x, self.weights(*[x.shape[-1][0] if fixed(x.shape[-1]) else 1])], x.shape)

    def op_reduce(self):
        x = self.float_value(at_least=1)
        axes = sorted(self.rng.choice(x.rank, int(self.rng.integers(1, x.rank + 1)), replace=False).tolist())
        keepdims = self.chance(0.6)
        shape = [dim(1) if i in axes else d for i, d in enumerate(x.shape) if keepdims or i not in axes]
        if self.chance(0.3):
            axes = [a - x.rank for a in axes]
        op = self.pick(REDUCE)
        if op == "ReduceSumSquare":
            x = self.unary("Tanh", x)
        return self.emit(op, [x, self.ints(*axes)], shape, keepdims=int(keepdims))

    def op_softmax(self):
        x = self.float_value(at_least=1)
        return self.emit(self.pick(["Softmax", "Softmax", "LogSoftmax"]), [x], x.shape,
                         axis=int(self.rng.integers(-x.rank, x.rank)))

    def op_layer_norm(self):
        x = self.float_value(at_least=2, want=lambda v: fixed(v.shape[-1]) and v.shape[-1][0] > 2)
        n = x.shape[-1][0]
        return self.emit("LayerNormalization", [x, self.weights(n), self.weights(n)][: self.pick([2, 3])], x.shape, axis=-1,
                         epsilon=1e-2)

    def op_layer_norm_parts(self):
        x = self.float_value(at_least=2, want=lambda v: min(v.shape[-1]) > 1)
        axis = self.ints(-1)
        row = x.shape[:-1] + (dim(1),)
        mean = self.emit("ReduceMean", [x, axis], row, keep=False)
        d = self.binary("Sub", x, mean)
        sq = self.binary("Pow", d, self.scalar(2)) if self.chance(0.5) else self.binary("Mul", d, d)
        var = self.emit("ReduceMean", [sq, axis], row, keep=False)
        std = self.unary("Sqrt", self.binary("Add", var, self.scalar(1e-2)))
        y = self.binary("Div", d, std)
        if fixed(x.shape[-1]):
            y = self.binary("Mul", y, self.weights(x.shape[-1][0]))
            y = self.binary("Add", y, self.weights(x.shape[-1][0]))
        return self.keep(y)

    def op_norm(self):
        x = self.float_value(at_least=3, want=lambda v: fixed(v.shape[1]) and min(np.prod(v.shape[2:], 0)) > 1)
        c = x.shape[1][0]
        kind = self.pick(["InstanceNormalization", "GroupNormalization", "BatchNormalization"])
        if kind == "InstanceNormalization":
            return self.emit(kind, [x, self.weights(c), self.weights(c)], x.shape, epsilon=1e-2)
        if kind == "GroupNormalization":
            groups = self.pick([g for g in range(1, c + 1) if c % g == 0])
            return self.emit(kind, [x, self.weights(c), self.weights(c)], x.shape, epsilon=1e-2, num_groups=groups)
        var = self.const((self.rng.random(c) + 0.5).astype(np.float32))
        return self.emit(kind, [x, self.weights(c), self.weights(c), self.weights(c), var], x.shape)

    def op_transpose(self):
        x = self.float_value(at_least=2)
        perm = self.rng.permutation(x.rank).tolist()
        return self.emit("Transpose", [x], [x.shape[p] for p in perm], perm=perm)

    def op_reshape(self):
        """Merges two neighbours or splits a fixed dimension."""
        x = self.float_value(at_least=1)
        i = int(self.rng.integers(x.rank))
        if self.chance(0.5) and i + 1 < x.rank:
            shape = x.shape[:i] + (tuple(a * b for a, b in zip(x.shape[i], x.shape[i + 1])),) + x.shape[i + 2:]
        else:
            if not fixed(x.shape[i]):
                raise Skip
            n = x.shape[i][0]
            f = self.pick([f for f in range(1, n + 1) if n % f == 0])
            shape = x.shape[:i] + (dim(f), dim(n // f)) + x.shape[i + 1:]
        return self.reshape(x, shape)

    def reshape(self, x, shape):
        self.fit(shape)
        want, unknown = [], False
        for i, d in enumerate(shape):
            if fixed(d):
                want.append(d[0])
            elif i < x.rank and x.shape[i] == d and self.chance(0.7):
                want.append(0)
            elif not unknown:
                want.append(-1)
                unknown = True
            else:
                raise Skip
        if not unknown and want and self.chance(0.3):
            want[int(self.rng.integers(len(want)))] = -1
        return self.emit("Reshape", [x, self.ints(*want)], shape)

    def op_shape_of(self):
        """A reshape to a shape computed from another value's."""
        x = self.float_value(at_least=2)
        s = self.emit("Shape", [x], (dim(x.rank),), np.int64, keep=False)
        head = self.emit("Gather", [s, self.ints(0)], (dim(1),), np.int64, keep=False, axis=0)
        target = self.emit("Concat", [head, self.ints(-1)], (dim(2),), np.int64, keep=False, axis=0)
        rest = tuple(int(np.prod([d[t] for d in x.shape[1:]])) for t in range(TRIALS))
        return self.emit("Reshape", [x, target], (x.shape[0], rest))

    def op_squeeze(self):
        x = self.float_value()
        ones = [i for i, d in enumerate(x.shape) if d == dim(1)]
        if ones and self.chance(0.5):
            a = self.pick(ones)
            return self.emit("Squeeze", [x, self.ints(a)], x.shape[:a] + x.shape[a + 1:])
        a = int(self.rng.integers(x.rank + 1))
        return self.emit("Unsqueeze", [x, self.ints(a)], x.shape[:a] + (dim(1),) + x.shape[a:])

    def op_slice(self):
        x = self.float_value(at_least=1)
        a = int(self.rng.integers(x.rank))
        d, low = x.shape[a], min(x.shape[a])
        start, stop, step = int(self.rng.integers(0, low)), int(self.rng.integers(-low, 3 * low + 1)), self.pick([1, 1, 1, 2, 3])
        if self.chance(0.25):
            index = [list(range(n))[:: -step] for n in d]
            start, stop, step = -1, -(2**31), -step
        else:
            index = [list(range(n))[start:stop:step] for n in d]
        out = tuple(len(i) for i in index)
        if fixed(out) and not fixed(d):
            raise Skip  # a 1 that only the run knows does not broadcast
        shape = x.shape[:a] + (out,) + x.shape[a + 1:]
        return self.emit("Slice", [x, self.ints(start), self.ints(stop), self.ints(a), self.ints(step)], shape)

    def op_concat(self):
        x = self.float_value(at_least=1)
        a = int(self.rng.integers(x.rank))
        same = [v for v in self.values if v.dtype == np.float32 and v.rank == x.rank
                and all(i == a or v.shape[i] == x.shape[i] for i in range(x.rank))]
        parts = [x] + [self.pick(same) for _ in range(int(self.rng.integers(1, 4)))]
        if self.chance(0.3) and all(fixed(d) for d in x.shape):
            shape = [d[0] for d in x.shape]
            shape[a] = int(self.rng.integers(1, 4))
            parts.append(Value(self.weights(*shape), [dim(s) for s in shape]))
        self.rng.shuffle(parts)
        total = tuple(sum(p.shape[a][t] for p in parts) for t in range(TRIALS))
        return self.emit("Concat", parts, x.shape[:a] + (total,) + x.shape[a + 1:], axis=a if self.chance(0.7) else a - x.rank)

    def op_split(self):
        x = self.float_value(at_least=1)
        ok = [i for i, d in enumerate(x.shape) if fixed(d) and d[0] > 1]
        if not ok:
            raise Skip
        a = self.pick(ok)
        n = x.shape[a][0]
        first = int(self.rng.integers(1, n))
        cut = [first, n - first]
        if cut[1] > 1 and self.chance(0.4):
            cut = [first, 1, cut[1] - 1]
        outs = [Value(self.name("v"), x.shape[:a] + (dim(c),) + x.shape[a + 1:]) for c in cut]
        self.used.add(x.name)
        self.nodes.append(helper.make_node("Split", [x.name, self.ints(*cut)], [o.name for o in outs], name=outs[0].name, axis=a))
        self.values.extend(outs)

    def op_gather(self):
        x = self.float_value(at_least=1)
        a = int(self.rng.integers(x.rank))
        low = min(x.shape[a])
        shape = self.pick([(), (1,), (3,), (7,), (2, 2)])
        index = self.rng.integers(-low, low, shape)
        return self.emit("Gather", [x, self.const(np.array(index, np.int64))],
                         x.shape[:a] + tuple(dim(s) for s in shape) + x.shape[a + 1:], axis=a)

    def op_gather_elements(self):
        x = self.float_value(at_least=1, want=lambda v: all(fixed(d) for d in v.shape))
        a = int(self.rng.integers(x.rank))
        shape = [d[0] for d in x.shape]
        n = shape[a]
        shape[a] = int(self.rng.integers(1, n + 2))
        return self.emit("GatherElements", [x, self.const(self.rng.integers(-n, n, shape))], [dim(s) for s in shape], axis=a)

    def op_pad(self):
        x = self.float_value(at_least=1)
        mode = self.pick(["constant", "constant", "edge", "reflect", "wrap"])
        most = 2 if mode in ("constant", "edge") else max(0, min(min(d) for d in x.shape) - 1)
        lo = [int(self.rng.integers(0, min(most, 2) + 1)) for _ in x.shape]
        hi = [int(self.rng.integers(0, min(most, 2) + 1)) for _ in x.shape]
        if mode == "constant" and self.chance(0.3):
            lo = [-1 if min(d) > 2 and self.chance(0.5) else v for d, v in zip(x.shape, lo)]
        shape = [tuple(s + a + b for s in d) for d, a, b in zip(x.shape, lo, hi)]
        inputs = [x, self.ints(*lo, *hi)]
        if mode == "constant" and self.chance(0.5):
            inputs.append(self.scalar(0.75))
        return self.emit("Pad", inputs, shape, mode=mode)

    def op_expand(self):
        x = self.float_value()
        shape = [dim(self.pick([2, 3, 5])) if d == dim(1) and self.chance(0.6) else d for d in x.shape]
        want = [d[0] if fixed(d) else 1 for d in shape]
        if self.chance(0.3):
            shape, want = [dim(2)] + shape, [2] + want
        return self.emit("Expand", [x, self.ints(*want)], shape)

    def op_tile(self):
        x = self.float_value(at_least=1)
        times = [self.pick([1, 1, 2, 3]) for _ in x.shape]
        return self.emit("Tile", [x, self.ints(*times)], [tuple(s * t for s in d) for d, t in zip(x.shape, times)])

    def op_resize(self):
        x = self.float_value(rank=4)
        scale = self.pick([(2, 2), (1, 3), (2, 1), (1.5, 0.5)])
        out = [tuple(int(np.floor(np.float32(n) * s)) for n in d) for d, s in zip(x.shape[2:], scale)]
        mode = self.pick(["nearest", "linear"])
        attrs = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"} if mode == "nearest" else {
            "coordinate_transformation_mode": self.pick(["half_pixel", "asymmetric", "pytorch_half_pixel"])}
        return self.emit("Resize", [x, "", self.const(np.array([1, 1, *scale], np.float32))], (*x.shape[:2], *out), mode=mode, **attrs)

    def op_depth_space(self):
        x = self.float_value(rank=4)
        n, c, h, w = x.shape
        if fixed(c) and c[0] % 4 == 0 and self.chance(0.5):
            double = lambda d: tuple(2 * s for s in d)
            return self.emit("DepthToSpace", [x], (n, dim(c[0] // 4), double(h), double(w)), blocksize=2, mode=self.pick(["DCR", "CRD"]))
        if any(s % 2 for s in h + w):
            raise Skip
        half = lambda d: tuple(s // 2 for s in d)
        return self.emit("SpaceToDepth", [x], (n, tuple(4 * s for s in c), half(h), half(w)), blocksize=2)

    def op_cumsum(self):
        x = self.float_value(at_least=1)
        return self.emit("CumSum", [x, self.const(np.int64(self.rng.integers(x.rank)))], x.shape, exclusive=int(self.chance(0.3)),
                         reverse=int(self.chance(0.3)))

    def op_trilu(self):
        x = self.float_value(at_least=2)
        return self.emit("Trilu", [x, self.const(np.int64(self.rng.integers(-2, 3)))], x.shape, upper=int(self.chance(0.5)))

    def op_integers(self):
        """A chain through integers: index arithmetic from ArgMax, back to float."""
        x = self.float_value(at_least=1)
        a = int(self.rng.integers(x.rank))
        shape = x.shape[:a] + x.shape[a + 1:]
        i = self.emit(self.pick(["ArgMax", "ArgMin"]), [x], shape, np.int64, keep=False, axis=a, keepdims=0)
        i = self.binary(self.pick(["Add", "Mul", "Sub"]), i, self.const(np.int64(self.pick([2, 3, -1]))))
        if self.chance(0.5):
            i = self.binary(self.pick(["Div", "Mod"]), i, self.const(np.int64(3)))
        return self.emit("Cast", [i], shape, to=T.FLOAT)

    def op_topk(self):
        x = self.float_value(at_least=1)
        a = int(self.rng.integers(x.rank))
        k = int(self.rng.integers(1, min(x.shape[a]) + 1))
        out = Value(self.name("v"), x.shape[:a] + (dim(k),) + x.shape[a + 1:])
        self.used.add(x.name)
        self.nodes.append(helper.make_node("TopK", [x.name, self.ints(k)], [out.name, self.name("i")], name=out.name, axis=a,
                                           largest=int(self.chance(0.7))))
        return self.keep(out)

    def op_quantize(self):
        x = self.float_value()
        scale, zero = self.const(np.float32(0.0625)), self.const(self.pick([np.uint8(120), np.int8(3)]))
        dtype = np.uint8 if self.initializers[-1].data_type == T.UINT8 else np.int8
        q = self.emit("QuantizeLinear", [x, scale, zero], x.shape, dtype, keep=False)
        return self.emit("DequantizeLinear", [q, scale, zero], x.shape)

    def op_half(self):
        x = self.unary("Tanh", self.float_value())
        h = self.emit("Cast", [x], x.shape, np.float16, keep=False, to=T.FLOAT16)
        return self.emit("Cast", [h], x.shape, to=T.FLOAT)

    def op_lrn(self):
        x = self.float_value(rank=4)
        return self.emit("LRN", [x], x.shape, size=self.pick([1, 3, 5]))

    # ---- graphs ----
    def add_input(self, n):
        symbols = self.pick([0, 0, 1, 2])
        rank = self.pick([1, 2, 2, 3, 3, 4, 4, 4, 5])
        shape = [dim(self.pick(SIZES)) for _ in range(rank)]
        for s in range(symbols):
            shape[int(self.rng.integers(rank))] = SYMBOLS[int(self.rng.integers(len(SYMBOLS)))][1]
        if count(shape) > MAX_ELEMENTS // 2:
            return
        v = Value(f"x{n}", shape)
        self.inputs.append(v)
        self.values.append(v)

    def graph(self):
        """(nodes, initializers, inputs, outputs): outputs are the leaves and sometimes a value within."""
        while len(self.inputs) < 1 + int(self.rng.integers(3)):
            self.add_input(len(self.inputs))
        ops = [getattr(self, n) for n in sorted(dir(self)) if n.startswith("op_")]
        weights = np.array([{"op_binary": 5, "op_unary": 4, "op_conv": 4, "op_matmul": 3, "op_reduce": 3, "op_concat": 2,
                             "op_transpose": 2, "op_slice": 2}.get(o.__name__, 1) for o in ops], float)
        size = self.most or int(self.rng.integers(10, 26))
        for _ in range(400):
            if len(self.nodes) >= size:
                break
            mark = len(self.nodes), len(self.initializers), len(self.values)
            try:
                ops[int(self.rng.choice(len(ops), p=weights / weights.sum()))]()
            except Skip:
                del self.nodes[mark[0]:], self.initializers[mark[1]:], self.values[mark[2]:]
        made = [v for v in self.values if v not in self.inputs]
        self.used = {i for n in self.nodes for i in reads(n)}
        outputs = [v for v in made if v.name not in self.used or self.chance(0.08)]
        return self.nodes, self.initializers, self.inputs, outputs
