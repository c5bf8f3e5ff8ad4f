"""Models of n nodes of one shape, for run_scaling.py: what the compiler's time and memory grow with.

Each function in MODELS takes n and gives a ModelProto of about n nodes. `python tests/scaling_models.py NAME N FILE` writes one.
"""
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

F, I64 = TensorProto.FLOAT, TensorProto.INT64


def info(name, dims=(16,), dtype=F):
    return helper.make_tensor_value_info(name, dtype, dims)


def const(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def model(nodes, inputs, outputs, inits=(), functions=(), extra=()):
    graph = helper.make_graph(nodes, "scaling", inputs, outputs, list(inits))
    opsets = [helper.make_opsetid("", 21)] + [helper.make_opsetid(d, 1) for d in extra]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def chain(n, make, dims=(16,), inits=(), out=None):
    nodes = [make(k, f"v{k}", f"v{k + 1}") for k in range(n)]
    return model(nodes, [info("v0", dims)], [info(f"v{n}", out or dims)], inits)


def unary(op, dims=(16,), **attrs):
    return lambda n: chain(n, lambda k, a, b: helper.make_node(op, [a], [b], **attrs), dims)


def add_chain(n):
    return chain(n, lambda k, a, b: helper.make_node("Add", [a, f"c{k}"], [b]),
                 inits=[const(f"c{k}", np.full(16, k % 7 - 3.5)) for k in range(n)])


def add_scalar_chain(n):
    return chain(n, lambda k, a, b: helper.make_node("Mul" if k % 2 else "Add", [a, f"c{k}"], [b]),
                 inits=[const(f"c{k}", 1 + (k % 7) / 64) for k in range(n)])


def add_self_chain(n):
    return chain(n, lambda k, a, b: helper.make_node("Add", [a, a if k % 2 else "v0"], [b]))


def matmul_chain(n):
    rng = np.random.default_rng(1)
    return chain(n, lambda k, a, b: helper.make_node("MatMul", [a, f"w{k}"], [b]), (4, 8),
                 [const(f"w{k}", rng.normal(size=(8, 8)) / 3) for k in range(n)])


def conv_chain(n):
    rng = np.random.default_rng(1)
    return chain(n, lambda k, a, b: helper.make_node("Conv", [a, f"w{k}"], [b], pads=[1] * 4), (1, 4, 6, 6),
                 [const(f"w{k}", rng.normal(size=(4, 4, 3, 3)) / 6) for k in range(n)])


def conv_relu_residual(n):
    rng, n = np.random.default_rng(1), max(n // 3, 1)
    nodes = []
    for k in range(n):
        nodes += [helper.make_node("Conv", [f"v{k}", f"w{k}"], [f"c{k}"], pads=[1] * 4),
                  helper.make_node("Relu", [f"c{k}"], [f"r{k}"]),
                  helper.make_node("Add", [f"r{k}", f"v{k}"], [f"v{k + 1}"])]
    return model(nodes, [info("v0", (1, 4, 6, 6))], [info(f"v{n}", (1, 4, 6, 6))],
                 [const(f"w{k}", rng.normal(size=(4, 4, 3, 3)) / 6) for k in range(n)])


def concat_chain(n):
    nodes = [helper.make_node("Concat", [f"v{k}", "x"], [f"v{k + 1}"], axis=0) for k in range(n)]
    return model([helper.make_node("Relu", ["x"], ["v0"])] + nodes, [info("x", (2,))], [info(f"v{n}", (2 * n + 2,))])


def dense_net(n):
    """Concat of all before, a small product of it: what DenseNet does."""
    n, rng = max(n // 3, 1), np.random.default_rng(1)
    nodes, inits = [], []
    for k in range(n):
        inits.append(const(f"w{k}", rng.normal(size=(4 * (k + 1), 4)) / (k + 1)))
        nodes += [helper.make_node("MatMul", [f"v{k}", f"w{k}"], [f"p{k}"]),
                  helper.make_node("Tanh", [f"p{k}"], [f"t{k}"]),
                  helper.make_node("Concat", [f"v{k}", f"t{k}"], [f"v{k + 1}"], axis=1)]
    return model(nodes, [info("v0", (2, 4))], [info(f"v{n}", (2, 4 * (n + 1)))], inits)


def concat_wide(n):
    nodes = [helper.make_node("Sin", [f"x{k % 8}"], [f"s{k}"]) if k % 2 else
             helper.make_node("Mul", [f"x{k % 8}", "half"], [f"s{k}"]) for k in range(n)]
    nodes.append(helper.make_node("Concat", [f"s{k}" for k in range(n)], ["y"], axis=0))
    return model(nodes, [info(f"x{k}", (5,)) for k in range(8)], [info("y", (5 * n,))], [const("half", 0.5)])


def concat_copies(n):
    return model([helper.make_node("Concat", [f"x{k % 8}" for k in range(n)], ["y"], axis=1)],
                 [info(f"x{k}", (3, 5)) for k in range(8)], [info("y", (3, 5 * n))])


def split_wide(n):
    nodes = [helper.make_node("Split", ["x"], [f"s{k}" for k in range(n)], axis=0, num_outputs=n)]
    nodes += [helper.make_node("Exp", [f"s{k}"], [f"e{k}"]) for k in range(n)]
    nodes.append(helper.make_node("Concat", [f"e{k}" for k in range(n)], ["y"], axis=0))
    return model(nodes, [info("x", (4 * n,))], [info("y", (4 * n,))])


def variadic(op):
    def make(n):
        nodes = [helper.make_node("Slice", ["x", f"b{k}", f"b{k + 1}"], [f"s{k}"]) for k in range(n)]
        nodes.append(helper.make_node(op, [f"s{k}" for k in range(n)], ["y"]))
        return model(nodes, [info("x", (4 * n,))], [info("y", (4,))],
                     [const(f"b{k}", [4 * k], np.int64) for k in range(n + 1)])
    return make


def sum_inputs(n):
    return model([helper.make_node("Sum", [f"x{k % 8}" for k in range(n)], ["y"])], [info(f"x{k}") for k in range(8)], [info("y")])


def gather_chain(n):
    order = [const(f"i{k}", np.roll(np.arange(16), k), np.int64) for k in range(16)]
    return chain(n, lambda k, a, b: helper.make_node("Gather", [a, f"i{k % 16}"], [b], axis=0), inits=order)


def slice_chain(n):
    nodes = [helper.make_node("Slice", [f"v{k}", "one", "end"], [f"v{k + 1}"]) for k in range(n)]
    return model(nodes, [info("v0", (n + 8,))], [info(f"v{n}", (8,))], [const("one", [1], np.int64), const("end", [2**40], np.int64)])


def transpose_chain(n):
    return unary("Transpose", (6, 6, 6), perm=[1, 2, 0])(n)


def reshape_chain(n):
    nodes = [helper.make_node("Reshape", [f"v{k}", "s0" if k % 2 else "s1"], [f"v{k + 1}"]) for k in range(n)]
    return model(nodes, [info("v0", (4, 6))], [info(f"v{n}", (4, 6) if n % 2 == 0 else (3, 8))],
                 [const("s0", [4, 6], np.int64), const("s1", [3, 8], np.int64)])


def reshape_transpose(n):
    """Views that cannot be one: each Transpose moves what the Reshape split."""
    nodes = [helper.make_node("Transpose", [f"v{k}"], [f"v{k + 1}"]) if k % 2 else
             helper.make_node("Reshape", [f"v{k}", "s"], [f"v{k + 1}"]) for k in range(n)]
    return model(nodes, [info("v0", (6, 4))], [info(f"v{n}", (4, 6) if n % 2 else (6, 4))], [const("s", [4, 6], np.int64)])


def diamonds(n):
    """Each value is read twice: as a tree, the expression doubles at each step."""
    nodes, n = [], max(n // 3, 1)
    for k in range(n):
        nodes += [helper.make_node("Sigmoid", [f"v{k}"], [f"a{k}"]),
                  helper.make_node("Neg", [f"v{k}"], [f"b{k}"]),
                  helper.make_node("Add", [f"a{k}", f"b{k}"], [f"v{k + 1}"])]
    return model(nodes, [info("v0")], [info(f"v{n}")])


def residual(n):
    nodes, n = [], max(n // 2, 1)
    for k in range(n):
        nodes += [helper.make_node("Tanh", [f"v{k}"], [f"a{k}"]), helper.make_node("Add", [f"a{k}", f"v{k}"], [f"v{k + 1}"])]
    return model(nodes, [info("v0", (3, 40))], [info(f"v{n}", (3, 40))])


def softmax_chain(n):
    return unary("Softmax", (3, 8), axis=-1)(n)


def layer_norm_chain(n):
    return chain(n, lambda k, a, b: helper.make_node("LayerNormalization", [a, "g", "b"], [b], axis=-1), (3, 8),
                 [const("g", np.linspace(0.5, 2, 8)), const("b", np.linspace(-1, 1, 8))])


def reduce_chain(n):
    nodes, n = [], max(n // 2, 1)
    for k in range(n):
        nodes += [helper.make_node("ReduceMean", [f"v{k}", "axis"], [f"m{k}"]), helper.make_node("Sub", [f"v{k}", f"m{k}"], [f"v{k + 1}"])]
    return model(nodes, [info("v0", (3, 8))], [info(f"v{n}", (3, 8))], [const("axis", [1], np.int64)])


def shape_arithmetic(n):
    """Sizes computed from sizes, with symbols."""
    nodes = [helper.make_node("Shape", ["x"], ["s0"])]
    inits = [const("one", [1], np.int64), const("two", [2], np.int64)]
    n = max(n - 4, 1)
    for k in range(n):
        op, other = [("Add", "one"), ("Mul", "two"), ("Sub", "s0"), ("Div", "two")][k % 4]
        nodes.append(helper.make_node(op, [f"s{k}", other], [f"s{k + 1}"]))
    nodes += [helper.make_node("Max", [f"s{n}", "one"], ["m"]), helper.make_node("Min", ["m", "two"], ["d"]),
              helper.make_node("Expand", ["x", "d"], ["y"])]
    return model(nodes, [info("x", ("n",))], [info("y", ("m",))], inits)


def size_sum(n):
    """A size that is a sum of n products of symbols."""
    symbols = [f"n{k}" for k in range(24)]
    nodes = [helper.make_node("Shape", ["x"], ["sx"])]
    inits = []
    for k in range(24):
        inits.append(const(f"i{k}", [k % 4], np.int64))
    for k in range(6):
        nodes.append(helper.make_node("Shape", [f"x{k}"], [f"t{k}"]))
    nodes.append(helper.make_node("Concat", [f"t{k}" for k in range(6)], ["all"], axis=0))
    for k in range(24):
        inits.append(const(f"j{k}", [k], np.int64))
        nodes.append(helper.make_node("Gather", ["all", f"j{k}"], [f"d{k}"]))
    last = "sx"
    for k in range(n):
        a, b, c = k % 24, k // 24 % 24, k // 576 % 24
        nodes += [helper.make_node("Mul", [f"d{a}", f"d{b}"], [f"p{k}"]), helper.make_node("Mul", [f"p{k}", f"d{c}"], [f"q{k}"]),
                  helper.make_node("Add", [last, f"q{k}"], [f"u{k}"])]
        last = f"u{k}"
    nodes.append(helper.make_node("Cast", [last], ["y"], to=F))
    xs = [info(f"x{k}", tuple(symbols[4 * k:4 * k + 4])) for k in range(6)]
    return model(nodes, [info("x", ("n",))] + xs, [info("y", (1,))], inits)


def branch(depth, name):
    """If within If, both sides computing."""
    def graph(d, side):
        out = f"o{d}{side}{name}"
        if d == 0:
            nodes = [helper.make_node("Relu" if side == "t" else "Neg", ["x"], [out])]
        else:
            nodes = [helper.make_node("If", ["c"], [f"i{d}{side}"], then_branch=graph(d - 1, "t"), else_branch=graph(0, "e")),
                     helper.make_node("Add", [f"i{d}{side}", "x"], [out])]
        return helper.make_graph(nodes, out, [], [info(out)])
    return graph(depth, "t")


def nested_if(n):
    """Depth n (at most 30: protobuf reads no deeper), one side deep."""
    n = min(n, 30)
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch(n, ""), else_branch=branch(0, "z"))]
    return model(nodes, [info("x"), info("c", (), TensorProto.BOOL)], [info("y")])


def nested_if_tree(n):
    """A full tree of If: n regions."""
    def graph(d, name):
        if d == 0:
            return helper.make_graph([helper.make_node("Relu", ["x"], [f"o{name}"])], name, [], [info(f"o{name}")])
        nodes = [helper.make_node("If", [f"c{d % 4}"], [f"i{name}"], then_branch=graph(d - 1, name + "t"), else_branch=graph(d - 1, name + "e")),
                 helper.make_node("Add", [f"i{name}", "x"], [f"o{name}"])]
        return helper.make_graph(nodes, name, [], [info(f"o{name}")])
    depth = max(int(np.log2(max(n, 2))) - 1, 1)
    g = graph(depth, "g")
    return model(list(g.node), [info("x")] + [info(f"c{k}", (), TensorProto.BOOL) for k in range(4)], list(g.output))


def many_ifs(n):
    nodes = []
    for k in range(n):
        t = helper.make_graph([helper.make_node("Relu", [f"v{k}"], [f"t{k}"])], "t", [], [info(f"t{k}")])
        e = helper.make_graph([helper.make_node("Neg", [f"v{k}"], [f"e{k}"])], "e", [], [info(f"e{k}")])
        nodes.append(helper.make_node("If", [f"c{k % 4}"], [f"v{k + 1}"], then_branch=t, else_branch=e))
    return model(nodes, [info("v0")] + [info(f"c{k}", (), TensorProto.BOOL) for k in range(4)], [info(f"v{n}")])


def many_loops(n):
    nodes = []
    for k in range(n):
        body = helper.make_graph([helper.make_node("Sin", [f"a{k}"], [f"b{k}"]), helper.make_node("Identity", [f"ci{k}"], [f"co{k}"])], "body",
                                 [info(f"i{k}", (), I64), info(f"ci{k}", (), TensorProto.BOOL), info(f"a{k}")],
                                 [info(f"co{k}", (), TensorProto.BOOL), info(f"b{k}")])
        nodes.append(helper.make_node("Loop", ["trips", ""], [f"v{k + 1}"] if False else [f"v{k + 1}"], body=body))
        nodes[-1].input.append(f"v{k}")
    return model(nodes, [info("v0")], [info(f"v{n}")], [const("trips", 3, np.int64)])


def nested_loop(n):
    """Depth n (at most 30)."""
    n = min(n, 30)

    def body(d):
        name = f"_{d}"
        ins = [info(f"i{name}", (), I64), info(f"ci{name}", (), TensorProto.BOOL), info(f"a{name}")]
        outs = [info(f"co{name}", (), TensorProto.BOOL), info(f"b{name}")]
        nodes = [helper.make_node("Identity", [f"ci{name}"], [f"co{name}"])]
        if d == 0:
            nodes.append(helper.make_node("Sin", [f"a{name}"], [f"b{name}"]))
        else:
            nodes += [helper.make_node("Loop", ["trips", "", f"a{name}"], [f"l{name}"], body=body(d - 1)),
                      helper.make_node("Tanh", [f"l{name}"], [f"b{name}"])]
        return helper.make_graph(nodes, "body" + name, ins, outs)
    return model([helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body(n - 1))], [info("x")], [info("y")], [const("trips", 1, np.int64)])


def wide_fan(n):
    """One value, read by n nodes, all of them outputs of one Concat."""
    nodes = [helper.make_node("Tanh", ["x"], ["t"])]
    nodes += [helper.make_node("Mul", ["t", f"c{k}"], [f"m{k}"]) for k in range(n)]
    nodes += [helper.make_node("ReduceSum", [f"m{k}", "axis"], [f"r{k}"]) for k in range(n)]
    nodes.append(helper.make_node("Concat", [f"r{k}" for k in range(n)], ["y"], axis=0))
    return model(nodes, [info("x")], [info("y", (n,))], [const("axis", [0], np.int64)] + [const(f"c{k}", k / 8) for k in range(n)])


def fan_matmul(n):
    rng = np.random.default_rng(1)
    nodes = [helper.make_node("MatMul", ["x", f"w{k}"], [f"m{k}"]) for k in range(n)]
    nodes += [helper.make_node("Relu", [f"m{k}"], [f"r{k}"]) for k in range(n)]
    nodes.append(helper.make_node("Concat", [f"r{k}" for k in range(n)], ["y"], axis=0))
    return model(nodes, [info("x", (2, 8))], [info("y", (2 * n, 8))], [const(f"w{k}", rng.normal(size=(8, 8))) for k in range(n)])


def lstm_chain(n):
    rng, h = np.random.default_rng(1), 4
    nodes, inits = [], []
    for k in range(n):
        inits += [const(f"w{k}", rng.normal(size=(1, 4 * h, h))), const(f"r{k}", rng.normal(size=(1, 4 * h, h)))]
        nodes += [helper.make_node("LSTM", [f"v{k}", f"w{k}", f"r{k}"], [f"y{k}"], hidden_size=h),
                  helper.make_node("Squeeze", [f"y{k}", "axis"], [f"v{k + 1}"])]
    return model(nodes, [info("v0", (3, 1, h))], [info(f"v{n}", (3, 1, h))], inits + [const("axis", [1], np.int64)])


def collide(n):
    """Names that collide in FNV-1a (64 bits) modulo a power of two, if it is not seeded."""
    names, want, k = [], None, 0
    bits = 12
    while len(names) < n:
        h, text = 0xCBF29CE484222325, f"n{k:x}"
        for c in text.encode():
            h = ((h ^ c) * 0x100000001B3) & (2**64 - 1)
        if h & ((1 << bits) - 1) == 0:
            names.append(text)
        k += 1
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in zip(["x"] + names[:-1], names)]
    return model(nodes, [info("x")], [info(names[-1])])


def functions(n):
    """Functions that call functions, with Constants inside: 2^depth of them when inlined."""
    depth = max(int(np.log2(max(n, 2))), 1)
    made = [helper.make_function("own", "f0", ["x"], ["y"], [helper.make_node("Constant", [], ["c"], value_float=1.5),
                                                          helper.make_node("Add", ["x", "c"], ["y"])], [helper.make_opsetid("", 21)])]
    for d in range(1, depth):
        nodes = [helper.make_node("Constant", [], ["c"], value_float=0.5 + d),
                 helper.make_node(f"f{d - 1}", ["x"], ["a"], domain="own"), helper.make_node(f"f{d - 1}", ["a"], ["b"], domain="own"),
                 helper.make_node("Mul", ["b", "c"], ["y"])]
        made.append(helper.make_function("own", f"f{d}", ["x"], ["y"], nodes, [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]))
    return model([helper.make_node(f"f{depth - 1}", ["x"], ["y"], domain="own")], [info("x")], [info("y")], functions=made, extra=["own"])


def dropout_chain(n):
    return chain(n, lambda k, a, b: helper.make_node("Dropout", [a], [b, f"mask{k}"]))


def qdq_chain(n):
    nodes, n = [], max(n // 3, 1)
    for k in range(n):
        nodes += [helper.make_node("QuantizeLinear", [f"v{k}", "s", "z"], [f"q{k}"]),
                  helper.make_node("DequantizeLinear", [f"q{k}", "s", "z"], [f"d{k}"]),
                  helper.make_node("Sin", [f"d{k}"], [f"v{k + 1}"])]
    return model(nodes, [info("v0")], [info(f"v{n}")], [const("s", 0.02), const("z", 128, np.uint8)])


def n_constants(n):
    nodes = [helper.make_node("Constant", [], [f"c{k}"], value=const(f"t{k}", np.full(16, k / 64))) for k in range(n)]
    nodes.append(helper.make_node("Sum", ["x"] + [f"c{k}" for k in range(n)], ["y"]))
    return model(nodes, [info("x")], [info("y")])


def n_initializers(n):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    return model(nodes, [info("x")], [info("y")], [const(f"c{k}", [k]) for k in range(n)])


def n_outputs(n):
    nodes = [helper.make_node("Sin" if k % 2 else "Cos", ["x" if k < 2 else f"y{k - 2}"], [f"y{k}"]) for k in range(n)]
    return model(nodes, [info("x")], [info(f"y{k}") for k in range(n)])


def n_inputs(n):
    nodes = [helper.make_node("Add", ["x0" if k == 1 else f"v{k - 1}", f"x{k}"], [f"v{k}"]) for k in range(1, n)]
    return model(nodes, [info(f"x{k}") for k in range(n)], [info(f"v{n - 1}")])


def maxpool_chain(n):
    return unary("MaxPool", (1, 3, 8, 8), kernel_shape=[3, 3], pads=[1] * 4)(n)


def pad_slice_chain(n):
    nodes, n = [], max(n // 2, 1)
    for k in range(n):
        nodes += [helper.make_node("Pad", [f"v{k}", "pads"], [f"p{k}"]), helper.make_node("Slice", [f"p{k}", "from", "to"], [f"v{k + 1}"])]
    return model(nodes, [info("v0")], [info(f"v{n}")], [const("pads", [1, 1], np.int64), const("from", [2], np.int64), const("to", [18], np.int64)])


def where_chain(n):
    nodes, n = [], max(n // 2, 1)
    for k in range(n):
        nodes += [helper.make_node("Less", [f"v{k}", f"c{k}"], [f"b{k}"]), helper.make_node("Where", [f"b{k}", f"v{k}", "x"], [f"v{k + 1}"])]
    return model(nodes, [info("v0"), info("x")], [info(f"v{n}")], [const(f"c{k}", k / 8) for k in range(n)])


def nonzero_chain(n):
    nodes, n = [], max(n // 4, 1)
    for k in range(n):
        nodes += [helper.make_node("NonZero", [f"v{k}"], [f"i{k}"]), helper.make_node("Squeeze", [f"i{k}", "zero"], [f"j{k}"]),
                  helper.make_node("Cast", [f"j{k}"], [f"f{k}"], to=F), helper.make_node("Sub", [f"f{k}", "one"], [f"v{k + 1}"])]
    return model(nodes, [info("v0")], [info(f"v{n}", ("k",))], [const("zero", [0], np.int64), const("one", 1)])


def cumsum_chain(n):
    return chain(n, lambda k, a, b: helper.make_node("CumSum", [a, "axis"], [b]), inits=[const("axis", 0, np.int64)])


def topk_chain(n):
    return chain(n, lambda k, a, b: helper.make_node("TopK", [a, "k"], [b, f"i{k}"]), inits=[const("k", [16], np.int64)])


def sizes_of_concat(n):
    """The size of a Concat of n inputs: a sum of n terms of 50 symbols; its Shape is used again."""
    nodes = [helper.make_node("Concat", [f"x{k % 50}" for k in range(n)], ["all"], axis=0), helper.make_node("Shape", ["all"], ["s"]),
             helper.make_node("Cast", ["s"], ["y"], to=F)]
    return model(nodes, [info(f"x{k}", (f"n{k}",)) for k in range(50)], [info("y", (1,))])


def symbols(n):
    """n inputs, each of a size of its own."""
    nodes = [helper.make_node("Concat", [f"x{k}" for k in range(n)], ["y"], axis=0)]
    return model(nodes, [info(f"x{k}", (f"n{k}",)) for k in range(n)], [info("y", ("m",))])


def long_names(n):
    """Names of 1,000 letters that differ at the end."""
    nodes = [helper.make_node("Relu", ["v" * 1000 + str(k)], ["v" * 1000 + str(k + 1)], name="r" * 1000 + str(k)) for k in range(n)]
    return model(nodes, [info("v" * 1000 + "0")], [info("v" * 1000 + str(n))])


def wide_use(n):
    """One value with n users that are added up."""
    nodes = [helper.make_node("Sin", ["x"], ["s"])]
    nodes += [helper.make_node("Add" if k % 2 else "Mul", [f"v{k}", "s"], [f"v{k + 1}"]) for k in range(n)]
    return model(nodes, [info("x"), info("v0")], [info(f"v{n}")])


def views_chain(n):
    """Reshape, Transpose and Slice in turns."""
    nodes, n = [], max(n // 3, 1)
    for k in range(n):
        nodes += [helper.make_node("Reshape", [f"v{k}", "s"], [f"a{k}"]), helper.make_node("Transpose", [f"a{k}"], [f"b{k}"]),
                  helper.make_node("Slice", [f"b{k}", "zero", "end", "one"], [f"v{k + 1}"])]
    return model(nodes, [info("v0", (6, 4))], [info(f"v{n}", (4, 6))],
                 [const("s", [6, 4], np.int64), const("zero", [0], np.int64), const("end", [99], np.int64), const("one", [1], np.int64)])


def trees(n):
    """A forest with n nodes."""
    depth, per = 6, 2**7 - 1
    count = max(n // per, 1)
    a = {k: [] for k in ("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes", "nodes_truenodeids",
                         "nodes_falsenodeids", "target_treeids", "target_nodeids", "target_ids", "target_weights")}
    rng = np.random.default_rng(1)
    for t in range(count):
        for k in range(per):
            leaf = k >= 2**depth - 1
            for name, value in (("treeids", t), ("nodeids", k), ("featureids", int(rng.integers(8))), ("values", float(rng.normal())),
                                ("modes", "LEAF" if leaf else "BRANCH_LEQ"), ("truenodeids", 0 if leaf else 2 * k + 1),
                                ("falsenodeids", 0 if leaf else 2 * k + 2)):
                a["nodes_" + name].append(value)
            if leaf:
                for name, value in (("treeids", t), ("nodeids", k), ("ids", 0), ("weights", float(rng.normal()))):
                    a["target_" + name].append(value)
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, **a)
    m = model([node], [info("x", (4, 8))], [info("y", (4, 1))])
    m.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return m


MODELS = {
    "add_chain": add_chain, "add_scalar_chain": add_scalar_chain, "add_self_chain": add_self_chain, "tanh_chain": unary("Tanh"),
    "relu_chain": unary("Relu"), "sin_chain": unary("Sin"), "erf_chain": unary("Erf"), "identity_chain": unary("Identity"),
    "matmul_chain": matmul_chain, "conv_chain": conv_chain, "conv_relu_residual": conv_relu_residual, "concat_chain": concat_chain,
    "dense_net": dense_net, "concat_wide": concat_wide, "concat_copies": concat_copies, "split_wide": split_wide, "sum_wide": variadic("Sum"),
    "max_wide": variadic("Max"), "sum_inputs": sum_inputs, "gather_chain": gather_chain, "slice_chain": slice_chain,
    "transpose_chain": transpose_chain, "reshape_chain": reshape_chain, "reshape_transpose": reshape_transpose, "diamonds": diamonds,
    "residual": residual, "softmax_chain": softmax_chain, "layer_norm_chain": layer_norm_chain, "reduce_chain": reduce_chain,
    "shape_arithmetic": shape_arithmetic, "size_sum": size_sum, "nested_if": nested_if, "nested_if_tree": nested_if_tree, "many_ifs": many_ifs,
    "many_loops": many_loops, "nested_loop": nested_loop, "wide_fan": wide_fan, "fan_matmul": fan_matmul, "lstm_chain": lstm_chain,
    "collide": collide, "functions": functions, "dropout_chain": dropout_chain, "qdq_chain": qdq_chain, "n_constants": n_constants,
    "n_initializers": n_initializers, "n_outputs": n_outputs, "n_inputs": n_inputs, "maxpool_chain": maxpool_chain,
    "pad_slice_chain": pad_slice_chain, "where_chain": where_chain, "nonzero_chain": nonzero_chain, "cumsum_chain": cumsum_chain, "topk_chain": topk_chain,
    "sizes_of_concat": sizes_of_concat, "symbols": symbols, "long_names": long_names, "wide_use": wide_use, "views_chain": views_chain,
    "trees": trees,
}

if __name__ == "__main__":
    with open(sys.argv[3], "wb") as f:
        f.write(MODELS[sys.argv[1]](int(sys.argv[2])).SerializeToString())
