"""Small models in double, one or a few for each operator that has a gradient: name, graph, inputs to
differentiate, and where points may lie."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper

F = TensorProto.DOUBLE


class Case:
    """make: nodes from inputs (name -> shape) to y. low, high: of random elements; fixed: arrays by name
    that are inputs, too, but not differentiated (integers, conditions). near: the step of differences, which are right
    up to a relative tolerance: in double 3e-6, which is what is left where curves bend."""

    def __init__(self, name, nodes, inputs, low=-2.0, high=2.0, fixed=None, opset=23, domains=(), near=1e-5, tolerance=3e-6):
        self.name, self.nodes, self.inputs = name, nodes, inputs
        self.low, self.high, self.fixed = low, high, fixed or {}
        self.opset, self.domains, self.near, self.tolerance = opset, domains, near, tolerance

    def draw(self, rng):
        values = {k: rng.uniform(self.low, self.high, shape) for k, shape in self.inputs.items()}
        return {**values, **self.fixed}

    def model(self):
        """y's elements times weights of their own, so that no error of one hides behind another's."""
        infos = [helper.make_tensor_value_info(k, F, shape) for k, shape in self.inputs.items()]
        constants = [numpy_helper.from_array(v, k) for k, v in self.fixed.items()]
        graph = helper.make_graph(self.nodes, "case", infos, [helper.make_tensor_value_info("y", F, None)], constants)
        imports = [helper.make_opsetid("", self.opset)] + [helper.make_opsetid(d, 1) for d in self.domains]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


def node(op, ins, outs=("y",), **attrs):
    return helper.make_node(op, list(ins), list(outs), **attrs)


def one(name, op, inputs, fixed=None, low=-2.0, high=2.0, opset=23, domain="", outs=("y",), order=None, near=1e-5,
        **attrs):
    ins = order or [*inputs, *(fixed or {})]
    n = helper.make_node(op, ins, list(outs), domain=domain, **attrs)
    return Case(name, [n], inputs, low, high, fixed, opset, (domain,) if domain else (), near)


def i64(*v):
    return np.array(v, np.int64)


def elementwise():
    smooth = {"Exp": (-2, 2), "Log": (0.2, 3), "Sqrt": (0.2, 3), "Sin": (-3, 3), "Cos": (-3, 3), "Tan": (-1.2, 1.2),
              "Asin": (-0.9, 0.9), "Acos": (-0.9, 0.9), "Atan": (-3, 3), "Sinh": (-2, 2), "Cosh": (-2, 2),
              "Tanh": (-2, 2), "Asinh": (-3, 3), "Acosh": (1.2, 3), "Atanh": (-0.8, 0.8), "Erf": (-2, 2),
              "Sigmoid": (-4, 4), "Softplus": (-4, 4), "Softsign": (-3, 3), "Mish": (-4, 4), "HardSwish": (-4, 4),
              "Relu": (-2, 2), "Elu": (-2, 2), "Selu": (-2, 2), "Celu": (-2, 2), "LeakyRelu": (-2, 2), "Abs": (-2, 2),
              "Neg": (-2, 2), "Reciprocal": (0.3, 2), "HardSigmoid": (-4, 4), "ThresholdedRelu": (-2, 2),
              "Gelu": (-3, 3), "Shrink": (-2, 2), "Identity": (-2, 2)}
    for op, (low, high) in smooth.items():
        opset = 12 if op == "Celu" else 23
        if op == "Celu":  # of floats only
            continue
        yield one(op, op, {"x": (3, 5)}, low=low, high=high, opset=opset)
    yield one("Gelu tanh", "Gelu", {"x": (3, 5)}, approximate="tanh")
    yield one("Elu alpha", "Elu", {"x": (7,)}, alpha=0.3)
    yield one("Swish", "Swish", {"x": (3, 5)}, opset=24, alpha=1.3)
    for op in ("Add", "Sub", "Mul"):
        for a, b in (((3, 5), (3, 5)), ((2, 3, 5), (3, 1)), ((1, 5), (3, 1)), ((), (2, 3)), ((4,), (3, 1, 4))):
            yield one(f"{op} {a} {b}", op, {"x": a, "w": b})
    yield one("Mul with itself", "Mul", {"x": (3, 5)}, order=["x", "x"])
    yield one("Div", "Div", {"x": (3, 5), "w": (5,)}, low=0.5)
    yield one("Pow", "Pow", {"x": (3, 5), "w": (5,)}, low=0.3)
    yield one("Pow by 3", "Pow", {"x": (3, 5)}, {"e": np.array(3.0)})
    yield one("Pow by 0.5", "Pow", {"x": (3, 5)}, {"e": np.array(0.5)}, low=0.3)
    yield one("Mod", "Mod", {"x": (3, 5)}, {"m": np.array([0.7, 1.1, 1.3, 0.9, 2.1])}, fmod=1)
    for op in ("Min", "Max", "Sum", "Mean"):
        yield one(op, op, {"x": (3, 5), "w": (5,), "v": (3, 1)}, opset=13)
    yield one("Where", "Where", {"x": (3, 5), "w": (5,)}, {"c": np.array([[True], [False], [True]])},
              order=["c", "x", "w"])
    yield one("Clip", "Clip", {"x": (4, 5)}, {"lo": np.array(-0.7), "hi": np.array(1.1)})
    yield one("PRelu", "PRelu", {"x": (2, 3, 4), "w": (3, 1)})
    yield one("Cast", "Cast", {"x": (3, 5)}, to=F)


def reductions():
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
               "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"):
        low = 0.2 if op == "ReduceLogSum" else -2
        for axes, keep in (((1,), 1), ((0, -1), 0), ((), 1)):
            fixed = {"axes": i64(*axes)} if axes else None
            yield one(f"{op} {axes} keep {keep}", op, {"x": (3, 4, 5)}, fixed, low=low, keepdims=keep)
    for exclusive in (0, 1):
        for reverse in (0, 1):
            yield one(f"CumSum {exclusive}{reverse}", "CumSum", {"x": (3, 5)}, {"axis": i64(1).reshape(())},
                      exclusive=exclusive, reverse=reverse)
    for axis in (-1, 1):
        yield one(f"Softmax {axis}", "Softmax", {"x": (2, 5, 3)}, axis=axis)
        yield one(f"LogSoftmax {axis}", "LogSoftmax", {"x": (2, 5, 3)}, axis=axis)


def products():
    for a, b in (((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)),
                 ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3))):
        yield one(f"MatMul {a} {b}", "MatMul", {"x": a, "w": b})
    for ta in (0, 1):
        for tb in (0, 1):
            for c in ((5,), (3, 1), (1, 5), ()):
                yield one(f"Gemm {ta}{tb} {c}", "Gemm", {"x": (4, 3) if ta else (3, 4), "w": (5, 4) if tb else (4, 5),
                                                         "c": c}, transA=ta, transB=tb, alpha=0.7, beta=1.3)
    for eq, shapes in (("ij,jk->ik", [(3, 4), (4, 5)]), ("bij,bkj->bik", [(2, 3, 4), (2, 5, 4)]), ("ij->i", [(3, 4)]),
                       ("ii->i", [(4, 4)]), ("ij,i->j", [(3, 4), (3,)]), ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
                       ("i,j,k->kij", [(2,), (3,), (4,)]), ("ij,kl->i", [(2, 3), (4, 5)]), ("iij->j", [(3, 3, 2)])):
        names = "xwv"[:len(shapes)]
        yield one(f"Einsum {eq}", "Einsum", dict(zip(names, shapes)), equation=eq)
    yield one("Det", "Det", {"x": (2, 3, 3)})


def convolutions():
    grid = [dict(), dict(pads=[1, 1, 1, 1]), dict(strides=[2, 2], pads=[1, 0, 0, 1]), dict(dilations=[2, 1]),
            dict(strides=[2, 3], dilations=[1, 2], pads=[2, 1, 1, 2]), dict(auto_pad="SAME_UPPER", strides=[2, 2])]
    for k, attrs in enumerate(grid):
        for group in (1, 2, 4):
            yield one(f"Conv {k} group {group}", "Conv", {"x": (2, 4, 7, 8), "w": (4, 4 // group, 3, 2), "c": (4,)},
                      group=group, **attrs)
    yield one("Conv 1-D", "Conv", {"x": (2, 3, 9), "w": (5, 3, 3)}, strides=[2])
    yield one("Conv 3-D", "Conv", {"x": (1, 2, 4, 5, 4), "w": (3, 2, 2, 3, 2)}, pads=[1, 0, 0, 0, 1, 1])
    for k, attrs in enumerate(grid[:5]):
        for group in (1, 2):
            yield one(f"ConvTranspose {k} group {group}", "ConvTranspose",
                      {"x": (2, 4, 4, 5), "w": (4, 3, 3, 2), "c": (3 * group,)}, group=group, **attrs)
    yield one("ConvTranspose padded", "ConvTranspose", {"x": (1, 2, 4, 3), "w": (2, 3, 3, 3)}, strides=[2, 2],
              pads=[1, 1, 1, 1], output_padding=[1, 0])


def poolings():
    grid = [dict(kernel_shape=[2, 2], strides=[2, 2]), dict(kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
            dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1), dict(kernel_shape=[2, 3])]
    for k, attrs in enumerate(grid):
        yield one(f"MaxPool {k}", "MaxPool", {"x": (2, 3, 7, 8)}, **attrs)
        for include in (0, 1):
            yield one(f"AveragePool {k} {include}", "AveragePool", {"x": (2, 3, 7, 8)}, count_include_pad=include,
                      **attrs)
        yield one(f"LpPool {k}", "LpPool", {"x": (2, 3, 7, 8)}, low=0.3, p=3, **attrs)
    yield one("MaxPool dilated", "MaxPool", {"x": (1, 2, 7, 8)}, kernel_shape=[2, 3], dilations=[2, 1])
    for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        yield one(op, op, {"x": (2, 3, 4, 5)}, low=0.2)


def norms():
    channels = {"x": (4, 3, 2, 5), "s": (3,), "b": (3,)}
    yield one("BatchNormalization", "BatchNormalization", {**channels, "m": (3,), "v": (3,)}, low=0.3, opset=15)
    yield Case("BatchNormalization training",
               [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y", "rm", "rv"], training_mode=1)], channels,
               fixed={"m": np.zeros(3), "v": np.ones(3)}, opset=15)
    yield one("InstanceNormalization", "InstanceNormalization", channels)
    yield one("GroupNormalization", "GroupNormalization", {"x": (2, 6, 5), "s": (6,), "b": (6,)}, num_groups=3)
    for axis in (-1, 1):
        shape = (3, 4, 5)
        yield one(f"LayerNormalization {axis}", "LayerNormalization",
                  {"x": shape, "s": shape[axis:], "b": shape[axis:]}, axis=axis, stash_type=F)
        yield one(f"RMSNormalization {axis}", "RMSNormalization", {"x": shape, "s": shape[axis:]}, axis=axis,
                  stash_type=F)
    for p in (1, 2):
        yield one(f"LpNormalization {p}", "LpNormalization", {"x": (3, 4)}, p=p, axis=1)
    yield one("MeanVarianceNormalization", "MeanVarianceNormalization", {"x": (2, 3, 4, 2)})
    yield one("LRN", "LRN", {"x": (2, 5, 2, 3)}, size=3, alpha=0.3, beta=0.75, bias=1.5)


def moves():
    yield one("Reshape", "Reshape", {"x": (3, 4)}, {"s": i64(2, 6)})
    yield one("Flatten", "Flatten", {"x": (2, 3, 4)})
    yield one("Squeeze", "Squeeze", {"x": (2, 1, 4)}, {"a": i64(1)})
    yield one("Unsqueeze", "Unsqueeze", {"x": (2, 4)}, {"a": i64(1, 3)})
    yield one("Expand", "Expand", {"x": (3, 1)}, {"s": i64(2, 3, 4)})
    yield one("Tile", "Tile", {"x": (2, 3)}, {"r": i64(2, 2)})
    yield one("Transpose", "Transpose", {"x": (2, 3, 4)}, perm=[2, 0, 1])
    yield one("Concat", "Concat", {"x": (2, 3), "w": (2, 1), "v": (2, 4)}, axis=1)
    yield Case("Split", [node("Split", ["x"], ["p", "q"], num_outputs=2, axis=1), node("Mul", ["p", "q"])],
               {"x": (3, 4)})
    for steps, starts, ends in ((None, (1, 0), (3, 4)), ((2, 1), (0, 1), (9, -1)), ((-1, -2), (-1, -1), (-9, -9))):
        fixed = {"s": i64(*starts), "e": i64(*ends), "a": i64(0, 1)}
        if steps:
            fixed["st"] = i64(*steps)
        yield one(f"Slice {steps}", "Slice", {"x": (3, 5)}, fixed)
    for mode in ("constant", "reflect", "edge", "wrap"):
        yield one(f"Pad {mode}", "Pad", {"x": (3, 4)}, {"p": i64(1, 2, 0, 1)}, mode=mode)
    yield one("Pad negative", "Pad", {"x": (3, 4)}, {"p": i64(-1, 2, 0, -1)})
    yield one("DepthToSpace", "DepthToSpace", {"x": (1, 8, 2, 3)}, blocksize=2, mode="CRD")
    yield one("SpaceToDepth", "SpaceToDepth", {"x": (1, 2, 4, 6)}, blocksize=2)
    yield one("Trilu", "Trilu", {"x": (4, 5)}, {"k": i64(1).reshape(())}, upper=1)
    yield one("Gather", "Gather", {"x": (5, 3)}, {"i": i64(0, -1, 2, 2).reshape(2, 2)})
    yield one("Gather axis 1", "Gather", {"x": (3, 5)}, {"i": i64(0, 4, 4)}, axis=1)
    yield one("GatherElements", "GatherElements", {"x": (3, 4)}, {"i": i64(0, 1, 1, 2).reshape(1, 4)}, axis=0)
    yield one("GatherND", "GatherND", {"x": (3, 4, 2)}, {"i": i64(0, 1, 2, 3, 0, 1).reshape(3, 2)})
    yield one("GatherND batch", "GatherND", {"x": (2, 3, 2)}, {"i": i64(0, 2).reshape(2, 1)}, batch_dims=1)
    yield one("ReverseSequence", "ReverseSequence", {"x": (4, 3)}, {"l": i64(2, 4, 1)})
    yield one("Compress", "Compress", {"x": (4, 3)}, {"c": np.array([True, False, True, True])}, axis=0)
    yield one("ScatterElements", "ScatterElements", {"x": (3, 4), "u": (1, 4)}, {"i": i64(0, 1, 1, 2).reshape(1, 4)},
              order=["x", "i", "u"])
    yield one("ScatterElements twice", "ScatterElements", {"x": (5,), "u": (4,)}, {"i": i64(1, 3, 1, 0)},
              order=["x", "i", "u"])
    yield one("ScatterElements add", "ScatterElements", {"x": (5,), "u": (4,)}, {"i": i64(1, 3, 1, 0)},
              order=["x", "i", "u"], reduction="add")
    yield one("ScatterND", "ScatterND", {"x": (4, 3), "u": (2, 3)}, {"i": i64(2, 0).reshape(2, 1)},
              order=["x", "i", "u"])
    yield Case("TopK", [node("TopK", ["x", "k"], ["y", "at"], axis=1)], {"x": (3, 5)}, fixed={"k": i64(3)})
    for mode, coordinate in (("nearest", "asymmetric"), ("linear", "half_pixel"), ("linear", "align_corners"),
                             ("cubic", "half_pixel"), ("linear", "pytorch_half_pixel")):
        yield one(f"Resize {mode} {coordinate}", "Resize", {"x": (1, 2, 3, 4)},
                  {"sc": np.array([1, 1, 2, 1.5], np.float32)}, mode=mode,
                  coordinate_transformation_mode=coordinate, order=["x", "", "sc"], near=0.5)  # linear, in f32
    for sizes in ((1, 2, 5, 9), (1, 2, 3, 6), (1, 2, 3, 9)):
        for antialias in (0, 1):
            yield one(f"Resize {sizes} {antialias}", "Resize", {"x": (1, 2, 5, 6)}, {"s": i64(*sizes)}, order=["x", "", "", "s"],
                      mode="linear", antialias=antialias, near=0.5)


def rare():
    yield one("TensorScatter", "TensorScatter", {"x": (2, 5, 3), "u": (2, 2, 3)}, {"i": i64(1, 3)}, opset=24)
    yield one("TensorScatter circular", "TensorScatter", {"x": (2, 5, 3), "u": (2, 2, 3)}, {"i": i64(4, 3)}, opset=24,
              mode="circular")
    yield one("CenterCropPad", "CenterCropPad", {"x": (4, 3)}, {"s": i64(2, 6)})
    yield Case("Pad value", [node("Pad", ["x", "p", "v"])], {"x": (3, 4), "v": ()}, fixed={"p": i64(1, 0, 0, 2)})
    yield one("ScatterND twice", "ScatterND", {"x": (4, 3), "u": (3, 3)}, {"i": i64(2, 0, 2).reshape(3, 1)},
              order=["x", "i", "u"])
    yield one("MaxUnpool", "MaxUnpool", {"x": (1, 1, 2, 2)}, {"i": i64(0, 3, 9, 14).reshape(1, 1, 2, 2)},
              kernel_shape=[2, 2], strides=[2, 2])
    yield one("Col2Im", "Col2Im", {"x": (1, 8, 6)}, {"image": i64(3, 4), "block": i64(2, 2)})
    yield one("Col2Im padded", "Col2Im", {"x": (2, 6, 12)}, {"image": i64(4, 5), "block": i64(2, 3)}, strides=[2, 1],
              pads=[1, 0, 1, 1], order=["x", "image", "block"])
    yield one("OneHot", "OneHot", {"v": (2,)}, {"i": i64(0, 2, -1), "d": i64(4)}, order=["i", "d", "v"])
    for inverse in (0, 1):
        yield one(f"DFT complex {inverse}", "DFT", {"x": (2, 5, 2)}, {"n": i64(5).reshape(()), "a": i64(1).reshape(())},
                  inverse=inverse)
    yield one("DFT real onesided", "DFT", {"x": (2, 6, 1)}, {"n": i64(6).reshape(()), "a": i64(1).reshape(())}, onesided=1)
    for length in (4, 9):
        yield one(f"DFT of {length}", "DFT", {"x": (2, 6, 1)},
                  {"n": i64(length).reshape(()), "a": i64(1).reshape(())})
    yield one("STFT", "STFT", {"x": (1, 12, 1), "w": (4,)}, {"step": i64(2).reshape(()), "len": i64(4).reshape(())},
              order=["x", "step", "w", "len"])
    for past in ({}, {"p": (2, 3, 2)}):
        for activation in ("none", "silu"):
            yield Case(f"CausalConvWithState {bool(past)} {activation}",
                       [node("CausalConvWithState", ["x", "w", "b", *past], ["y", "s"], activation=activation)],
                       {"x": (2, 3, 5), "w": (3, 1, 3), "b": (3,), **past}, opset=27)
    yield Case("LinearAttention", [node("LinearAttention", ["q", "k", "v"], ["y", "s"], q_num_heads=2, kv_num_heads=2,
                                        update_rule="linear")],
               {"q": (1, 3, 4), "k": (1, 3, 4), "v": (1, 3, 4)}, opset=27, near=0.5)  # linear in each, in f32


def losses():
    target = i64(1, 0, 4)
    for reduction in ("mean", "sum", "none"):
        yield one(f"SoftmaxCrossEntropyLoss {reduction}", "SoftmaxCrossEntropyLoss", {"x": (3, 5)}, {"t": target},
                  reduction=reduction)
    yield one("SoftmaxCrossEntropyLoss weights", "SoftmaxCrossEntropyLoss", {"x": (3, 5)},
              {"t": target, "w": np.array([1, 2, 0.5, 1, 3.0])}, ignore_index=0)
    yield one("NegativeLogLikelihoodLoss", "NegativeLogLikelihoodLoss", {"x": (2, 5, 3)},
              {"t": i64(1, 0, 4, 2, 2, 3).reshape(2, 3)})


def attentions():
    yield one("Attention", "Attention", {"q": (1, 2, 3, 4), "k": (1, 2, 5, 4), "v": (1, 2, 5, 4)})
    yield one("Attention causal", "Attention", {"q": (1, 2, 4, 4), "k": (1, 1, 4, 4), "v": (1, 1, 4, 4)}, is_causal=1)
    yield one("Attention mask", "Attention", {"q": (1, 2, 3, 4), "k": (1, 2, 5, 4), "v": (1, 2, 5, 4), "m": (3, 5)})
    yield one("PackedMultiHeadAttention", "PackedMultiHeadAttention", {"q": (4, 4), "k": (4, 4), "v": (4, 6)},
              {"o": np.array([[0, 3, 4], [5, 1, 2]], np.int32), "e": np.array([0, 1, 4], np.int32)},
              domain="com.microsoft", order=["q", "k", "v", "", "o", "e"], num_heads=2)
    yield one("LongformerAttention", "LongformerAttention", {"x": (1, 5, 4), "w": (4, 12), "b": (12,), "gw": (4, 12), "gb": (12,)},
              {"m": np.array([[0, 0, 0, 0, -10000.0]]), "f": np.array([[1, 0, 0, 0, 0]], np.int32)},
              domain="com.microsoft", order=["x", "w", "b", "m", "gw", "gb", "f"], num_heads=2, window=1)
    yield one("RotaryEmbedding", "RotaryEmbedding", {"x": (1, 2, 3, 4)},
              {"c": np.cos(np.arange(6.0)).reshape(1, 3, 2), "s": np.sin(np.arange(6.0)).reshape(1, 3, 2)})


def cells():
    """Recurrent cells: every gate, direction and option."""
    t, n, i, h = 4, 2, 3, 2
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        for direction, dirs in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            inputs = {"x": (t, n, i), "w": (dirs, gates * h, i), "r": (dirs, gates * h, h), "b": (dirs, 2 * gates * h)}
            yield Case(f"{op} {direction}", [node(op, inputs, ["y"], hidden_size=h, direction=direction)], inputs,
                       low=-1, high=1)
        state = {**inputs, "h0": (dirs, n, h)}
        names = ["x", "w", "r", "b", "lens", "h0"]
        if op == "LSTM":
            state, names = {**state, "c0": (dirs, n, h), "p": (dirs, 3 * h)}, [*names, "c0", "p"]
        yield Case(f"{op} states, lengths", [node(op, names, ["", "y"], hidden_size=h, direction="bidirectional")], state,
                   low=-1, high=1, fixed={"lens": np.array([4, 2], np.int32)})
    yield Case("GRU late reset", [node("GRU", ["x", "w", "r", "b"], ["y"], hidden_size=2, linear_before_reset=1)],
               {"x": (4, 2, 3), "w": (1, 6, 3), "r": (1, 6, 2), "b": (1, 12)}, low=-1, high=1)


def control():
    def graph(name, nodes, ins, outs):
        return helper.make_graph(nodes, name, [helper.make_tensor_value_info(k, t, s) for k, t, s in ins],
                                 [helper.make_tensor_value_info(k, t, s) for k, t, s in outs])

    then = graph("t", [node("Mul", ["x", "w"], ["ty"])], [], [("ty", F, (3,))])
    other = graph("e", [node("Exp", ["x"], ["ey"])], [], [("ey", F, (3,))])
    for sign, low, high in (("positive", 0.1, 1), ("negative", -1, -0.1)):
        yield Case(f"If {sign}", [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["c"]),
                                  node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
                   {"x": (3,), "w": (3,)}, low=low, high=high, fixed={"zero": np.array(0.0)})
    body = graph("b", [node("Mul", ["v", "w"], ["vw"]), node("Sin", ["vw"], ["next"]), node("Identity", ["c"], ["go"]),
                       node("Mul", ["vw", "x"], ["scan"])],
                 [("i", TensorProto.INT64, ()), ("c", TensorProto.BOOL, ()), ("v", F, (3,))],
                 [("go", TensorProto.BOOL, ()), ("next", F, (3,)), ("scan", F, (3,))])
    for trips in (0, 1, 5):
        yield Case(f"Loop {trips}", [node("Loop", ["n", "", "x"], ["last", "all"], body=body),
                                     node("ReduceSum", ["all", "axis"], ["sum"], keepdims=0), node("Add", ["last", "sum"])],
                   {"x": (3,), "w": (3,)}, fixed={"n": i64(trips).reshape(()), "axis": i64(0)})
    step = graph("s", [node("Mul", ["h", "e"], ["he"]), node("Add", ["he", "w"], ["h2"]), node("Tanh", ["h2"], ["o"])],
                 [("h", F, (3,)), ("e", F, (3,))], [("h2", F, (3,)), ("o", F, (3,))])
    for axis, direction in ((0, 0), (1, 1)):
        yield Case(f"Scan {axis} {direction}",
                   [node("Scan", ["h0", "x"], ["hn", "o"], body=step, num_scan_inputs=1, scan_input_axes=[axis],
                         scan_input_directions=[direction]), node("Mul", ["o", "hn"])],
                   {"h0": (3,), "x": (4, 3) if axis == 0 else (3, 4), "w": (3,)}, low=-1, high=1)


def sampling():
    """Positions stay away from those where a function has a kink: elements of linear, halves of nearest interpolation."""
    grid = {"x": (2, 2, 4, 5), "grid": (2, 3, 2, 2)}
    for mode, padding, corners in (("linear", "zeros", 0), ("linear", "border", 1), ("linear", "reflection", 0), ("linear", "reflection", 1),
                                   ("cubic", "zeros", 0), ("cubic", "border", 1), ("cubic", "reflection", 0), ("nearest", "zeros", 1)):
        yield one(f"GridSample {mode} {padding} {corners}", "GridSample", grid, low=-1.3, high=1.3, opset=22, mode=mode, padding_mode=padding,
                  align_corners=corners, near=1e-6)
    yield one("GridSample 3 axes", "GridSample", {"x": (1, 2, 3, 2, 4), "grid": (1, 2, 2, 1, 3)}, low=-0.9, high=0.9, opset=22, near=1e-6)
    yield one("GridSample one axis", "GridSample", {"x": (2, 1, 6), "grid": (2, 4, 1)}, low=-0.9, high=0.9, opset=22, near=1e-6)
    for corners, size in ((0, (2, 3, 4, 5)), (1, (2, 1, 3, 2)), (1, (1, 2, 2, 3, 2))):
        axes = len(size) - 2
        yield one(f"AffineGrid {size}", "AffineGrid", {"theta": (size[0], axes, axes + 1)}, {"size": i64(*size)}, opset=20, align_corners=corners)
    yield Case("GridSample of an AffineGrid", [node("AffineGrid", ["theta", "size"], ["grid"], align_corners=1), node("GridSample", ["x", "grid"], align_corners=1)],
               {"x": (1, 1, 4, 4), "theta": (1, 2, 3)}, low=-0.4, high=0.4, fixed={"size": i64(1, 1, 3, 3)}, near=1e-6)
    for groups, mask, strides in ((1, False, 1), (2, True, 2)):
        k = 3 if strides == 1 else 2
        out = (5 - (k - 1) - 1) // strides + 1 if strides == 2 else 5 - k + 3
        inputs = {"x": (1, 2, 5, 5), "w": (2, 2, k, k), "off": (1, groups * 2 * k * k, out, out), "b": (2,)}
        if mask:
            inputs["m"] = (1, groups * k * k, out, out)
        yield one(f"DeformConv {groups} {mask}", "DeformConv", inputs, low=-0.9, high=0.9, opset=22, offset_group=groups, strides=[strides] * 2,
                  pads=[1, 1, 1, 1] if strides == 1 else [0] * 4, order=["x", "w", "off", "b", *(["m"] if mask else [])], near=1e-6)
    rois = {"r": np.array([[0.3, 0.2, 3.1, 2.9], [-2.6, 0.1, 6.4, 9.3], [1, 1, 1.2, 1.3]])}
    for transformation in ("half_pixel", "output_half_pixel"):
        add = node("Add", ["r", "shift"], ["rois"])
        yield Case(f"RoiAlign {transformation}", [add, node("RoiAlign", ["x", "rois", "i"], output_height=2, output_width=3, sampling_ratio=2,
                                                            spatial_scale=0.7, coordinate_transformation_mode=transformation)],
                   {"x": (2, 2, 4, 5), "shift": (3, 4)}, low=-0.1, high=0.1, opset=22, fixed={**rois, "i": i64(1, 0, 1)}, near=1e-6)


def cumulated():
    for axis, exclusive, reverse in ((1, 0, 0), (0, 1, 0), (-1, 0, 1), (0, 1, 1)):
        yield one(f"CumProd {axis} {exclusive} {reverse}", "CumProd", {"x": (3, 4)}, {"a": i64(axis).reshape(())}, opset=26, exclusive=exclusive,
                  reverse=reverse)
    yield Case("CumProd with zeros", [node("Mul", ["x", "mask"], ["v"]), node("CumProd", ["v", "a"])], {"x": (2, 5)}, opset=26,
               fixed={"mask": np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 0.0]]), "a": i64(1).reshape(())})
    yield Case("Range", [node("Range", ["start", "limit", "delta"], ["r"]), node("Mul", ["r", "r"])], {"start": (), "delta": ()}, low=0.3, high=0.31,
               fixed={"limit": np.array(2.2)})


def scattered():
    scatter = {"x": (5,), "u": (6,)}
    for reduction in ("mul", "min", "max"):
        yield one(f"ScatterElements {reduction}", "ScatterElements", scatter, {"i": i64(1, 3, 1, 0, 1, -1)}, order=["x", "i", "u"], reduction=reduction)
        yield one(f"ScatterElements {reduction} axis", "ScatterElements", {"x": (3, 4), "u": (3, 3)}, {"i": i64(0, 2, 2, 1, 1, 1, 3, 0, 3).reshape(3, 3)},
                  order=["x", "i", "u"], reduction=reduction, axis=1)
        yield one(f"ScatterND {reduction}", "ScatterND", {"x": (4, 2), "u": (3, 2)}, {"i": i64(2, 0, 2).reshape(3, 1)}, order=["x", "i", "u"],
                  reduction=reduction)
    yield Case("ScatterElements mul with zeros", [node("Mul", ["u", "mask"], ["v"]), node("ScatterElements", ["x", "i", "v"], reduction="mul")],
               scatter, fixed={"i": i64(1, 3, 1, 0, 1, 3), "mask": np.array([0, 1, 1, 0, 1, 0.0])})


def angles():
    for interleaved, dim, rank in ((0, 0, 4), (1, 0, 4), (0, 4, 4), (1, 2, 3)):
        half = (dim or 6) // 2
        x = (2, 3, 4, 6) if rank == 4 else (2, 4, 18)
        more = dict(interleaved=interleaved, rotary_embedding_dim=dim, num_heads=3)
        yield one(f"RotaryEmbedding of angles {interleaved} {dim} {rank}", "RotaryEmbedding", {"x": x, "c": (2, 4, half), "s": (2, 4, half)}, **more)
        yield one(f"RotaryEmbedding by position {interleaved} {dim} {rank}", "RotaryEmbedding", {"x": x, "c": (5, half), "s": (5, half)},
                  {"i": i64(0, 1, 1, 4, 3, 2, 1, 0).reshape(2, 4)}, **more)


def class_weights():
    for reduction, shape in (("none", (3, 4)), ("sum", (2, 4, 3)), ("mean", (3, 4)), ("mean", (2, 4, 2, 2))):
        targets = np.arange(np.prod([shape[0], *shape[2:]])).reshape([shape[0], *shape[2:]]).astype(np.int64) % 4
        for op, ignore in (("NegativeLogLikelihoodLoss", {}), ("NegativeLogLikelihoodLoss", {"ignore_index": 1}), ("SoftmaxCrossEntropyLoss", {})):
            yield one(f"{op} weights {reduction} {shape} {ignore}", op, {"x": shape, "w": (4,)}, {"t": targets}, low=0.2, high=1.5,
                      order=["x", "t", "w"], reduction=reduction, opset=22, **ignore)


def scales():
    """Of QDQ weights: in f32, whose products with integers are exact enough for long steps."""
    cast = lambda a, b, t: node("Cast", [a], [b], to=t)
    values = np.arange(-3, 21, dtype=np.int8).reshape(2, 3, 4)  # of mostly one sign: where large ones cancel, f32 is all that is left
    for name, scale, zero, attrs in (("tensor", (), None, {}), ("tensor, zero", (), np.int8(3), {}), ("axis", (3,), None, {"axis": 1}),
                                     ("last axis, zeros", (4,), np.arange(4, dtype=np.int8), {"axis": -1}),
                                     ("blocks", (2, 3, 2), None, {"axis": 2, "block_size": 2}),
                                     ("short block", (2, 3, 2), np.ones((2, 3, 2), np.int8), {"axis": 2, "block_size": 3})):
        fixed = {"q": values, **({} if zero is None else {"zero": np.asarray(zero)})}
        yield Case(f"DequantizeLinear {name}", [cast("s", "s32", TensorProto.FLOAT), node("DequantizeLinear", ["q", "s32", *(["zero"] if zero is not None else [])], ["d"], **attrs),
                                                cast("d", "y", F)], {"s": scale}, low=0.5, high=1.5, fixed=fixed, opset=21, near=4.0)


def quantized():
    """Of scales and of floats beside products of integers; long steps, as above."""
    cast, ms, f32 = lambda a, b: node("Cast", [a], [b], to=TensorProto.FLOAT), "com.microsoft", TensorProto.FLOAT
    data, at = (np.arange(5 * 20).reshape(5, 20) * 37 % 251).astype(np.uint8), i64(0, -1, 3, 3, 7).reshape(5, 1)  # 7 is outside
    for name, x, scale, attrs in (("packed", data, (5, 3), {"bits": 4}), ("bytes", data // 3 + 140, (5, 2), {"bits": 8}),
                                  ("along the axis", data[:, :5].copy(), (1, 5), {"bits": 8, "quantize_axis": 0})):
        yield Case(f"GatherBlockQuantized {name}", [cast("s", "s32"), node("GatherBlockQuantized", ["q", "i", "s32"], ["g"], domain=ms, block_size=16, **attrs),
                                                    node("Cast", ["g"], ["y"], to=F)], {"s": scale}, low=0.5, high=1.5, fixed={"q": x, "i": at}, domains=[ms], near=4.0)
    a, w = data[:2, :5], data[:, :4] // 2
    product = {"a": a, "w": w}
    yield Case("MatMulIntegerToFloat", [*(cast(v, v + "32") for v in "stb"), node("MatMulIntegerToFloat", ["a", "w", "s32", "t32", "", "", "b32"], ["p"], domain=ms),
                                        node("Cast", ["p"], ["y"], to=F)], {"s": (), "t": (4,), "b": (4,)}, low=0.5, high=1.5, fixed=product, domains=[ms], near=0.25)
    yield Case("QGemm", [*(cast(v, v + "32") for v in "st"), node("QGemm", ["a", "s32", "zero", "w", "t32", "zero"], ["p"], domain=ms, alpha=0.5), node("Cast", ["p"], ["y"], to=F)],
               {"s": (), "t": ()}, low=0.5, high=1.5, fixed={**product, "zero": np.array(2, np.uint8)}, domains=[ms], near=0.25)
    yield Case("DynamicQuantizeMatMul", [*(cast(v, v + "32") for v in "tb"), node("DynamicQuantizeMatMul", ["x", "w", "t32", "", "b32"], ["p"], domain=ms),
                                         node("Cast", ["p"], ["y"], to=F)], {"t": (4,), "b": (4,)}, low=0.5, high=1.5, fixed={"x": a.astype(np.float32) / 99, "w": w},
               domains=[ms], near=0.25)
    coarse = dict(low=0.5, high=1.5, domains=[ms], near=0.002, tolerance=1e-2)
    tables = {"word": data[:5, :4].copy(), "place": data[:3, 4:8].copy(), "gamma": data[3, :4].copy(), "beta": data[4, :4].copy()}
    order = ["i", "", "word", "place", "", "gamma", "beta", "", "s32", "t32", "", "u32", "v32", *["zero"] * 2, "", *["zero"] * 2]
    yield Case("QEmbedLayerNormalization", [*(cast(v, v + "32") for v in "stuv"), node("QEmbedLayerNormalization", order, ["p", "m"], domain=ms, epsilon=1e-5),
                                            node("Cast", ["p"], ["y"], to=F)], {"s": (), "t": (), "u": (), "v": ()},
               fixed={**tables, "i": np.array([[0, 3, 3], [4, 2, 0]], np.int32), "zero": np.array(9, np.uint8)}, **coarse)
    signed = (data.astype(np.int16) - 128).astype(np.int8)
    order = ["x", "w", "b32", "t32", "s32"]
    yield Case("QAttention", [*(cast(v, v + "32") for v in "stb"), node("QAttention", order, ["p"], domain=ms, num_heads=2), node("Cast", ["p"], ["q"], to=F),
                              node("Mul", ["q", "q"])], {"s": (), "t": (), "b": (12,)},
               fixed={"x": data[:3, :4].reshape(1, 3, 4).copy(), "w": (signed[1:, :12] // 16).copy()}, **{**coarse, "low": 0.02, "high": 0.03})
    order = ["x", "w", "r", "b32", "", "h", "c32", "", "s32", "wz", "t32", "wz"]
    yield Case("DynamicQuantizeLSTM", [*(cast(v, v + "32") for v in "bcst"), node("DynamicQuantizeLSTM", order, ["", "p", "o"], domain=ms, hidden_size=2),
                                       node("Concat", ["p", "o"], ["q"], axis=0), node("Cast", ["q"], ["y"], to=F)],
               {"b": (1, 16), "c": (1, 3, 2), "s": (1,), "t": (1, 8)},  # one step: what the next one quantizes has no differences
               fixed={"x": signed[:3, :5].reshape(1, 3, 5).astype(np.float32) / 50, "h": signed[:3, 5:7].reshape(1, 3, 2).astype(np.float32) / 99,
                      "w": (signed[:, :8] // 8).reshape(1, 5, 8).copy(), "r": (signed[:2, 8:16] // 8).reshape(1, 2, 8).copy(), "wz": np.zeros(1, np.int8)},
               **{**coarse, "low": 0.02, "high": 0.08})


def uniques():
    twice = node("Concat", ["x", "x"], ["xx"], axis=1)
    yield one("Unique", "Unique", {"x": (2, 4)})
    yield one("Unique as they come", "Unique", {"x": (7,)}, sorted=0, outs=("y", "", "", "c"))
    yield one("Unique rows", "Unique", {"x": (4, 3)}, axis=0, outs=("y", "i"))
    yield Case("Unique of equal ones", [twice, node("Unique", ["xx"], sorted=0)], {"x": (2, 3)})
    yield Case("Unique of equal columns", [twice, node("Unique", ["xx"], axis=-1)], {"x": (2, 3)})


def chains():
    yield Case("x twice", [node("Exp", ["x"], ["a"]), node("Mul", ["a", "x"], ["b"]), node("Add", ["b", "a"])],
               {"x": (3, 4)}, low=-1, high=1)
    yield Case("cut by Floor", [node("Floor", ["x"], ["a"]), node("Mul", ["a", "x"])], {"x": (3, 4)})


def all_cases():
    for family in (elementwise, reductions, products, convolutions, poolings, norms, moves, rare, losses, attentions, cells, control,
                   sampling, cumulated, scattered, angles, class_weights, scales, quantized, uniques, chains):
        for case in family():
            yield family.__name__, case


def open_cases():
    """Cases, and positions of sizes by input that only a run knows."""
    named = {case.name: case for _, case in all_cases()}
    image = {"x": (0, 2, 3)}
    for name in ("Conv 1 group 1", "Conv 2 group 2", "Conv 3 group 4", "ConvTranspose 1 group 1", "ConvTranspose 3 group 2", "DeformConv 2 True"):
        yield named[name], image
    yield named["Conv 1-D"], {"x": (2,)}
    yield named["Det"], {"x": (0, 2)}
    for name in named:
        if name.startswith("Resize"):
            yield named[name], image
    for a, w in (((3, 5), (3, 5)), ((3, 5), (1, 5)), ((3, 1), (1, 5)), ((2, 1, 5), (3, 1))):  # a size of 1 is broadcast, if it is one
        yield one(f"Mul {a} {w} of open sizes", "Mul", {"x": a, "w": w}), {"x": range(len(a)), "w": range(len(w))}
    yield named["Where"], {"x": (0, 1)}
    yield named["MatMul (3, 4) (4, 5)"], {"x": (0, 1)}
    yield named["MatMul (4,) (4,)"], {"x": (0,)}
    yield named["MatMul (2, 3, 4) (4, 5)"], {"x": (0, 1, 2)}
