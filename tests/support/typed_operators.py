"""Random nodes of every operator and element type that ONNX Runtime's CPU kernels have: Maker(rng).case(op, dtype) gives a Case.

A dimension of a shape may be 0, 1 or a prime; arrays stay where no kernel's result is undefined (no integer divided by 0, no
conversion out of range)."""
import re

import ml_dtypes
import numpy as np
import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as ort

OPSET = 21
SIZES = [0, 1, 1, 2, 3, 3, 4, 5, 7, 8, 13, 17, 31]
TYPES = {"float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "int8": np.int8,
         "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16, "int32": np.int32, "uint32": np.uint32, "int64": np.int64,
         "uint64": np.uint64, "bool": np.bool_}
UNARY = """Abs Neg Sign Ceil Floor Round Sqrt Reciprocal Exp Log Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh Erf Relu Sigmoid
Softplus Softsign Elu Selu Celu LeakyRelu ThresholdedRelu HardSigmoid HardSwish Mish Gelu Shrink IsNaN IsInf Not BitwiseNot Identity""".split()
BINARY = """Add Sub Mul Div Mod Pow Min Max And Or Xor BitwiseAnd BitwiseOr BitwiseXor BitShift Less LessOrEqual Greater GreaterOrEqual Equal
PRelu Sum Mean""".split()
REDUCE = [f"Reduce{k}" for k in "Sum Mean Max Min Prod L1 L2 SumSquare LogSum LogSumExp".split()]
SHAPED = """Transpose Reshape Flatten Squeeze Unsqueeze Expand Tile Concat Split Slice Pad Gather GatherElements GatherND ScatterElements
ScatterND Trilu TopK Compress ReverseSequence DepthToSpace SpaceToDepth Shape Size NonZero OneHot EyeLike Where Clip CumSum ArgMax ArgMin
Softmax LogSoftmax Hardmax Cast CastLike Range ConstantOfShape MatMul Gemm Unique Resize LayerNormalization InstanceNormalization
GroupNormalization BatchNormalization LpNormalization MeanVarianceNormalization LRN Conv ConvTranspose MaxPool AveragePool LpPool
GlobalAveragePool GlobalMaxPool Einsum QuantizeLinear DequantizeLinear MatMulInteger GridSample Det""".split()
OPERATORS = UNARY + BINARY + REDUCE + SHAPED


class Case:
    """op, attributes, inputs: arrays; constant: positions of inputs that are initializers; n_out."""

    def __init__(self, op, inputs, attrs=None, constant=(), n_out=1):
        self.op, self.inputs, self.attrs = op, [None if i is None else np.asarray(i) for i in inputs], attrs or {}
        self.constant, self.n_out = set(constant), n_out


def kernels():
    """{operator: element types of its first type variable} of ONNX Runtime's CPU kernels for OPSET."""
    found = {}
    for k in ort.get_all_opkernel_def():
        low, high = k.version_range
        if k.provider != "CPUExecutionProvider" or k.domain != "" or not low <= OPSET <= high or k.op_name not in OPERATORS:
            continue
        variables = {v for v, _ in k.type_constraints.items()}
        schema = onnx.defs.get_schema(k.op_name, OPSET)
        first = next((v for v in [i.type_str for i in schema.inputs] if v in variables), next(iter(sorted(variables)), None))
        types = k.type_constraints[first] if first else ["tensor(float)"]
        names = [re.sub(r"tensor\((\w+)\)", r"\1", t) for t in types]
        found.setdefault(k.op_name, set()).update(n for n in names if n in TYPES)
    return found


class Maker:
    def __init__(self, rng):
        self.rng = rng

    # ---- small help ----
    def pick(self, *items):
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p):
        return self.rng.random() < p

    def shape(self, low=0, high=4, least=0):
        rank = int(self.rng.integers(low, high + 1))
        while True:
            dims = [max(least, self.pick(*SIZES)) for _ in range(rank)]
            if np.prod(dims, dtype=np.int64) <= 3000:
                return dims

    def data(self, shape, dtype, positive=False, small=None):
        kind = np.dtype(dtype).kind
        if kind == "b":
            return self.rng.random(shape) < 0.5
        if kind in "iu":
            most = small or self.pick(3, 9, min(100, np.iinfo(dtype).max))
            lowest = 0 if kind == "u" else -most
            return self.rng.integers(1 if positive else lowest, most + 1, shape).astype(dtype)
        x = self.rng.standard_normal(shape) * self.pick(0.5, 1, 3)
        return (abs(x) + 0.3 if positive else x).astype(dtype)

    def mate(self, shape):
        """A shape that broadcasts with it."""
        part = shape[int(self.rng.integers(len(shape) + 1)):]
        return [1 if self.chance(0.3) else d for d in part]

    def axis(self, rank):
        return int(self.rng.integers(-rank, rank))

    # ---- operators ----
    def case(self, op, dtype):
        if op in UNARY:
            return self.unary(op, dtype)
        if op in BINARY:
            return self.binary(op, dtype)
        if op in REDUCE:
            return self.reduce(op, dtype)
        return getattr(self, f"make_{op.lower()}")(dtype)

    def unary(self, op, dtype):
        x = self.data(self.shape(), dtype)
        if op in ("Asin", "Acos", "Atanh"):
            x = np.tanh(x).astype(dtype)
        if op in ("Sqrt", "Log", "Acosh", "Reciprocal"):
            x = (abs(x) + dtype(1.25)).astype(dtype)
        return Case(op, [x])

    def binary(self, op, dtype):
        shape = self.shape()
        other = self.mate(shape)
        a, b = self.data(shape, dtype), self.data(other, dtype)
        if self.chance(0.3) and op not in ("PRelu", "Pow", "BitShift"):
            a, b = b, a
        if op in ("Div", "Mod"):
            b = self.data(b.shape, dtype, positive=True)
        if op == "Pow":
            a, b = self.data(shape, dtype, positive=True, small=4), self.data(other, dtype, positive=True, small=3)
        if op == "BitShift":
            return Case(op, [a, self.data(other, dtype, small=7)], {"direction": self.pick("LEFT", "RIGHT")})
        if op == "Mod":
            return Case(op, [a, b], {"fmod": 1 if np.dtype(dtype).kind not in "iu" else self.pick(0, 1)})
        if op in ("Sum", "Mean", "Min", "Max") and self.chance(0.3):
            return Case(op, [a, b, self.data(self.mate(shape), dtype)])
        return Case(op, [a, b])

    def reduce(self, op, dtype):
        least = 1 if op in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceLogSum", "ReduceLogSumExp") else 0
        x = self.data(self.shape(1, least=least), dtype, positive=op == "ReduceLogSum", small=3)
        if op == "ReduceProd":  # products stay in range
            x = np.where(self.rng.random(x.shape) < 0.02, 2, 1).astype(dtype)
        axes = self.rng.choice(x.ndim, int(self.rng.integers(0, x.ndim + 1)), replace=False)
        attrs = {"keepdims": self.pick(0, 1), "noop_with_empty_axes": self.pick(0, 0, 1)}
        return Case(op, [x, np.array(axes, np.int64)], attrs, [1])

    def make_transpose(self, t):
        x = self.data(self.shape(), t)
        return Case("Transpose", [x], {"perm": self.rng.permutation(x.ndim).tolist()} if x.ndim else {})

    def make_reshape(self, t):
        x = self.data(self.shape(1, least=1), t)
        return Case("Reshape", [x, np.array(self.pick([-1], [1, -1], list(x.shape[::-1]), [0, -1]), np.int64)], {}, [1])

    def make_flatten(self, t):
        x = self.data(self.shape(1), t)
        return Case("Flatten", [x], {"axis": self.axis(x.ndim)})

    def make_squeeze(self, t):
        return Case("Squeeze", [self.data([*self.shape(0, 2), 1, 3], t), np.array([-2], np.int64)], {}, [1])

    def make_unsqueeze(self, t):
        x = self.data(self.shape(), t)
        return Case("Unsqueeze", [x, np.array([self.axis(x.ndim + 1)], np.int64)], {}, [1])

    def make_expand(self, t):
        shape = self.shape()
        return Case("Expand", [self.data(self.mate(shape), t), np.array(shape, np.int64)], {}, [1])

    def make_tile(self, t):
        x = self.data(self.shape(1, 3), t)
        return Case("Tile", [x, self.rng.integers(0 if self.chance(0.1) else 1, 4, x.ndim)], {}, [1])

    def make_concat(self, t):
        shape = self.shape(1)
        axis = self.axis(len(shape))
        def part():
            s = list(shape)
            s[axis] = self.pick(0, 1, 2, 5)
            return self.data(s, t)
        return Case("Concat", [self.data(shape, t), *(part() for _ in range(self.pick(0, 1, 2)))], {"axis": axis})

    def make_split(self, t):
        shape = self.shape(1)
        axis = self.axis(len(shape))
        first = int(self.rng.integers(0, shape[axis] + 1))
        return Case("Split", [self.data(shape, t), np.array([first, shape[axis] - first], np.int64)], {"axis": axis}, [1], 2)

    def make_slice(self, t):
        x = self.data(self.shape(1), t)
        n = self.pick(*range(1, x.ndim + 1))
        axes = self.rng.choice(x.ndim, n, replace=False)
        lists = [self.rng.integers(-6, 7, n), self.rng.integers(-9, 20, n), axes, np.array([self.pick(1, 1, 2, -1, -3) for _ in range(n)])]
        return Case("Slice", [x, *(np.array(v, np.int64) for v in lists)], {}, [1, 2, 3, 4] if self.chance(0.7) else [3])

    def make_pad(self, t):
        x = self.data(self.shape(1, least=3), t)
        mode = self.pick("constant", "constant", "edge", "reflect", "wrap")
        pads = self.rng.integers(-1 if mode == "constant" else 0, 3, 2 * x.ndim)
        more = [self.data((), t)] if mode == "constant" and self.chance(0.6) else []
        return Case("Pad", [x, np.array(pads, np.int64), *more], {"mode": mode}, [1])

    def make_gather(self, t):
        x = self.data(self.shape(1, least=1), t)
        axis = self.axis(x.ndim)
        index = self.rng.integers(-x.shape[axis], x.shape[axis], self.shape(0, 2))
        return Case("Gather", [x, index.astype(self.pick(np.int64, np.int32))], {"axis": axis})

    def make_gatherelements(self, t):
        x = self.data(self.shape(1, least=1), t)
        axis, shape = self.axis(x.ndim), list(x.shape)
        shape[axis] = self.pick(0, 1, 2, 5)
        return Case("GatherElements", [x, self.rng.integers(-x.shape[axis], x.shape[axis], shape)], {"axis": axis})

    def make_gathernd(self, t):
        x = self.data(self.shape(2, least=1), t)
        n = self.pick(*range(1, x.ndim + 1))
        index = np.stack([self.rng.integers(-d, d, (3, 2)) for d in x.shape[:n]], -1)
        return Case("GatherND", [x, index])

    def make_scatterelements(self, t):
        x = self.data(self.shape(1, least=1), t)
        axis, shape = self.axis(x.ndim), list(x.shape)
        index = np.argsort(self.rng.random(shape), axis)
        reduction = self.pick("none", "add", "mul", "min", "max") if np.dtype(t).kind != "b" else "none"
        return Case("ScatterElements", [x, index.astype(np.int64), self.data(shape, t)], {"axis": axis, "reduction": reduction})

    def make_scatternd(self, t):
        x = self.data(self.shape(1, 3, least=1), t)
        k = self.pick(*range(x.shape[0])) + 1
        index = self.rng.permutation(x.shape[0])[:k].reshape(k, 1)
        reduction = self.pick("none", "add", "mul", "min", "max") if np.dtype(t).kind != "b" else "none"
        return Case("ScatterND", [x, index, self.data([k, *x.shape[1:]], t)], {"reduction": reduction})

    def make_trilu(self, t):
        return Case("Trilu", [self.data(self.shape(2), t), np.int64(self.rng.integers(-4, 5))], {"upper": self.pick(0, 1)})

    def make_topk(self, t):
        shape = self.shape(1, 3)
        axis = self.axis(len(shape))
        k = int(self.rng.integers(0, shape[axis] + 1))
        x = self.data(shape, t)
        if np.dtype(t).kind == "f":
            x = (self.rng.permutation(x.size).reshape(shape) / 8).astype(t)
        return Case("TopK", [x, np.array([k], np.int64)], {"axis": axis, "largest": self.pick(0, 1)}, [1], 2)

    def make_compress(self, t):
        x = self.data(self.shape(1), t)
        axis = self.axis(x.ndim)
        return Case("Compress", [x, self.rng.random(x.shape[axis]) < 0.5], {"axis": axis})

    def make_reversesequence(self, t):
        x = self.data(self.shape(2, 3, least=1), t)
        return Case("ReverseSequence", [x, self.rng.integers(1, x.shape[1] + 1, x.shape[0])], {"batch_axis": 0, "time_axis": 1})

    def make_depthtospace(self, t):
        return Case("DepthToSpace", [self.data([self.pick(0, 1, 2), 8, 3, self.pick(1, 5)], t)], {"blocksize": 2, "mode": self.pick("DCR", "CRD")})

    def make_spacetodepth(self, t):
        return Case("SpaceToDepth", [self.data([self.pick(1, 2), 3, 4, self.pick(2, 6)], t)], {"blocksize": 2})

    def make_shape(self, t):
        x = self.data(self.shape(), t)
        return Case("Shape", [x], {"start": self.pick(0, 1, -1), "end": self.pick(1, 2, 9)})

    def make_size(self, t):
        return Case("Size", [self.data(self.shape(), t)])

    def make_nonzero(self, t):
        return Case("NonZero", [self.data(self.shape(1, 3), t, small=1)])

    def make_onehot(self, t):
        index = self.data(self.shape(0, 2), np.int64, small=5)
        return Case("OneHot", [index, np.int64(6), self.data([2], np.float32)], {"axis": self.pick(-1, 0)}, [1])

    def make_eyelike(self, t):
        return Case("EyeLike", [self.data([self.pick(0, 1, 5), self.pick(1, 4)], t)], {"k": self.pick(-1, 0, 2)})

    def make_where(self, t):
        shape = self.shape()
        return Case("Where", [self.data(self.mate(shape), np.bool_), self.data(shape, t), self.data(self.mate(shape), t)])

    def make_clip(self, t):
        lo, hi = sorted([self.data((), t), self.data((), t)])
        more = self.pick([lo, hi], [lo], [None, hi])
        return Case("Clip", [self.data(self.shape(), t), *more], {}, [1, 2] if self.chance(0.5) else [])

    def make_cumsum(self, t):
        x = self.data(self.shape(1), t, small=3)
        return Case("CumSum", [x, np.int64(self.axis(x.ndim))], {"exclusive": self.pick(0, 1), "reverse": self.pick(0, 1)}, [1])

    def make_argmax(self, t, op="ArgMax"):
        x = self.data(self.shape(1, least=1), t, small=3)
        return Case(op, [x], {"axis": self.axis(x.ndim), "keepdims": self.pick(0, 1), "select_last_index": self.pick(0, 1)})

    def make_argmin(self, t):
        return self.make_argmax(t, "ArgMin")

    def make_softmax(self, t, op="Softmax"):
        x = self.data(self.shape(1), t)
        return Case(op, [x], {"axis": self.axis(x.ndim)})

    def make_logsoftmax(self, t):
        return self.make_softmax(t, "LogSoftmax")

    def make_hardmax(self, t):
        return self.make_softmax(t, "Hardmax")

    def target(self, x):
        """A type that holds the elements of x, and x without what that type has no place for."""
        name = self.pick(*TYPES)
        if np.dtype(TYPES[name]).kind == "u":
            x = abs(x) if x.dtype.kind != "b" else x
        return name, x

    def make_cast(self, t):
        name, x = self.target(self.data(self.shape(), t, small=9))
        return Case("Cast", [x], {"to": int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(TYPES[name])))})

    def make_castlike(self, t):
        name, x = self.target(self.data(self.shape(), t, small=9))
        return Case("CastLike", [x, np.zeros(1, TYPES[name])])

    def make_range(self, t):
        return Case("Range", [t(self.pick(0, 1, 3)), t(self.pick(0, 5, 12)), t(self.pick(1, 2, 3))], {}, [0, 1, 2])

    def make_constantofshape(self, t):
        value = onnx.numpy_helper.from_array(self.data([1], t))
        return Case("ConstantOfShape", [np.array(self.shape(), np.int64)], {"value": value}, [0])

    def make_matmul(self, t, op="MatMul"):
        m, k, n = (self.pick(0, 1, 2, 5, 7, 16, 31) for _ in range(3))
        a, b = self.pick(((m, k), (k, n)), ((3, m, k), (k, n)), ((2, 1, m, k), (3, k, n)), ((k,), (k, n)), ((m, k), (k,)))
        if k == 0:  # ONNX Runtime has the shape of A where nothing is added up
            a, b = (m, k), (k, n)
        return Case(op, [self.data(a, t), self.data(b, t)], {}, [1] if self.chance(0.4) else [])

    def make_matmulinteger(self, t):
        c = self.make_matmul(t, "MatMulInteger")
        while not c.inputs[0].size:  # ONNX Runtime has the shape of A where nothing is added up
            c = self.make_matmul(t, "MatMulInteger")
        other = self.pick(np.uint8, np.int8)
        return Case("MatMulInteger", [c.inputs[0], self.data(c.inputs[1].shape, other), self.data((), t), self.data((), other)], {}, c.constant)

    def make_gemm(self, t):
        m, k, n = (self.pick(1, 2, 5, 7, 16, 31) for _ in range(3))
        ta, tb = self.pick(0, 1), self.pick(0, 1)
        ins = [self.data((k, m) if ta else (m, k), t), self.data((n, k) if tb else (k, n), t)]
        ins += [self.data(self.pick((m, n), (n,), (1, n), (m, 1), ()), t)] if self.chance(0.7) else []
        whole = np.dtype(t).kind in "iu"
        return Case("Gemm", ins, {"transA": ta, "transB": tb, "alpha": 1.0 if whole else self.pick(1.0, 0.5), "beta": 1.0}, [1] if self.chance(0.4) else [])

    def make_unique(self, t):
        return Case("Unique", [self.data(self.shape(1, 1, least=1), t, small=4)], {"sorted": 1}, (), 4)

    def make_resize(self, t):
        x = self.data([1, 2, self.pick(1, 3, 5), self.pick(2, 7)], t)
        attrs = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        if np.dtype(t).kind == "f" and self.chance(0.6):
            attrs = {"mode": "linear", "coordinate_transformation_mode": self.pick("half_pixel", "align_corners", "pytorch_half_pixel")}
        return Case("Resize", [x, None, None, np.array([1, 2, self.pick(2, 6), self.pick(3, 9)], np.int64)], attrs, [3])

    def channels(self, t, op, more, attrs, least=1):
        x = self.data([self.pick(1, 2), 4, *self.shape(1, 2, least=max(least, 1))], t)
        return Case(op, [x, *(self.data([4], t, positive=p) for p in more)], attrs, range(1, 1 + len(more)))

    def make_layernormalization(self, t):
        x = self.data(self.shape(2, 3, least=2), t)
        return Case("LayerNormalization", [x, self.data(x.shape[-1:], t), self.data(x.shape[-1:], t)], {"epsilon": 0.125}, [1, 2])

    def make_instancenormalization(self, t):
        return self.channels(t, "InstanceNormalization", (0, 0), {"epsilon": 0.125}, 2)

    def make_groupnormalization(self, t):
        return self.channels(t, "GroupNormalization", (0, 0), {"epsilon": 0.125, "num_groups": self.pick(1, 2, 4)}, 2)

    def make_batchnormalization(self, t):
        return self.channels(t, "BatchNormalization", (0, 0, 0, 1), {"epsilon": 0.125})

    def make_lpnormalization(self, t):
        x = self.data(self.shape(1, 3, least=1), t, positive=True)
        return Case("LpNormalization", [x], {"axis": self.axis(x.ndim), "p": self.pick(1, 2)})

    def make_meanvariancenormalization(self, t):
        return Case("MeanVarianceNormalization", [self.data([2, 3, *self.shape(2, 2, least=2)], t)])

    def make_lrn(self, t):
        return Case("LRN", [self.data([1, 5, 3, self.pick(1, 4)], t)], {"size": self.pick(1, 3, 5), "alpha": 0.1, "bias": 2.0})

    def window(self, n):
        kernel = [self.pick(1, 2, 3) for _ in range(n)]
        pads = [int(self.rng.integers(0, (k + 1) // 2)) for k in kernel + kernel]
        return kernel, {"kernel_shape": kernel, "strides": [self.pick(1, 1, 2, 3) for _ in kernel], "pads": pads}

    def make_conv(self, t):
        n, g = self.pick(1, 2, 2, 3), self.pick(1, 1, 2)
        kernel, attrs = self.window(n)
        c = self.pick(1, 3)
        x = self.data([self.pick(0, 1, 2), c * g, *(self.pick(3, 5, 8) for _ in range(n))], t)
        w = self.data([g * self.pick(1, 2, 5), c, *kernel], t)
        return Case("Conv", [x, w, self.data([w.shape[0]], t)], {**attrs, "group": g}, [1, 2] if self.chance(0.7) else [])

    def make_convtranspose(self, t):
        kernel, attrs = self.window(2)
        return Case("ConvTranspose", [self.data([self.pick(1, 2), 3, 4, 5], t), self.data([3, 2, *kernel], t)], attrs, [1])

    def pool(self, t, op, attrs=()):
        n = self.pick(1, 2, 3)
        return Case(op, [self.data([self.pick(1, 2), 3, *(self.pick(3, 5, 8) for _ in range(n))], t)], {**self.window(n)[1], **dict(attrs)})

    def make_maxpool(self, t):
        return self.pool(t, "MaxPool", {"ceil_mode": self.pick(0, 0, 1)})

    def make_averagepool(self, t):
        return self.pool(t, "AveragePool", {"count_include_pad": self.pick(0, 1)})

    def make_lppool(self, t):
        return self.pool(t, "LpPool", {"p": self.pick(1, 2)})

    def make_globalaveragepool(self, t):
        return Case("GlobalAveragePool", [self.data([2, 3, *self.shape(1, 3, least=1)], t)])

    def make_globalmaxpool(self, t):
        return Case("GlobalMaxPool", [self.data([2, 3, *self.shape(1, 3, least=1)], t)])

    def make_einsum(self, t):
        text, shapes = self.pick(("ij,jk->ik", ((3, 4), (4, 5))), ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))), ("ii->i", ((4, 4),)),
                                 ("abc->cb", ((2, 3, 4),)), ("i,j->ij", ((3,), (4,))), ("ij,ij->", ((3, 4), (3, 4))))
        return Case("Einsum", [self.data(s, t) for s in shapes], {"equation": text})

    def make_quantizelinear(self, t):
        zero = self.data((), self.pick(np.uint8, np.int8, np.uint16, np.int16))
        return Case("QuantizeLinear", [self.data(self.shape(), t), np.asarray(0.125).astype(t if t != np.int32 else np.float32), zero], {}, [1, 2])

    def make_dequantizelinear(self, t):
        zero = np.zeros((), t) if t == np.int32 else self.data((), t)
        return Case("DequantizeLinear", [self.data(self.shape(), t), np.float32(0.125), zero], {}, [1, 2])

    def make_gridsample(self, t):
        grid = (self.rng.random((2, 3, 4, 2)) * 2.4 - 1.2).astype(np.float32)
        return Case("GridSample", [self.data([2, 3, 5, 4], t), grid.astype(t if np.dtype(t).kind == "f" else np.float32)],
                    {"mode": self.pick("linear", "nearest"), "padding_mode": self.pick("zeros", "border", "reflection"), "align_corners": self.pick(0, 1)})

    def make_det(self, t):
        return Case("Det", [self.data([*self.shape(0, 1), 3, 3], t)])
