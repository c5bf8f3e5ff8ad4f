"""Changes of a graph that leave its results as they are: change(rng, nodes, initializers, value, …) of CHANGES, for run_pairs.py.

Net(nodes, initializers, inputs, feeds, values): what a change rewrites. A detour goes between a value and one of its readers, a rewrite
takes a node's place."""
import numpy as np
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from tests.support.random_graphs import fixed, reads


class Unfit(Exception):
    """The change does not fit what was drawn."""


class Net:
    """nodes (in order), initializers {name: array}, feeds {name: array} of inputs that changes add, values {name: Value} of floats,
    functions that changes make."""

    def __init__(self, nodes, initializers, values, rng, prefix):
        self.nodes, self.rng, self.prefix = list(nodes), rng, prefix
        self.initializers = {i.name: numpy_helper.to_array(i) for i in initializers}
        self.values = {v.name: v for v in values if v.dtype == np.float32}
        self.feeds, self.functions, self.count = {}, [], 0

    def pick(self, items):
        items = list(items)
        if not items:
            raise Unfit
        return items[int(self.rng.integers(len(items)))]

    def name(self):
        self.count += 1
        return f"{self.prefix}e{self.count}"

    def const(self, array):
        name = self.name()
        self.initializers[name] = np.asarray(array)
        return name

    def ints(self, *values):
        return self.const(np.array(values, np.int64))

    def node(self, made, op, inputs, n_out=1, **attrs):
        """Adds a node to the list `made`; its output's name, or names."""
        outs = [self.name() for _ in range(n_out)]
        made.append(helper.make_node(op, inputs, outs, name=outs[0], **attrs))
        return outs[0] if n_out == 1 else outs


# ---- detours: nodes behind a value, whose last output is the value again ------------------------------------
def negated(net, made, v):
    return net.node(made, "Neg", [net.node(made, "Neg", [v.name])])


def transposed(net, made, v):
    perm = net.rng.permutation(v.rank).tolist()
    there = net.node(made, "Transpose", [v.name], perm=perm)
    return net.node(made, "Transpose", [there], perm=np.argsort(perm).tolist())


def flattened(net, made, v):
    shape = net.node(made, "Shape", [v.name])
    flat = net.node(made, "Reshape", [v.name, net.ints(-1)])
    return net.node(made, "Reshape", [flat, shape])


def unsqueezed(net, made, v):
    axis = net.ints(int(net.rng.integers(v.rank + 1)))
    return net.node(made, "Squeeze", [net.node(made, "Unsqueeze", [v.name, axis]), axis])


def split(net, made, v):
    axis = net.pick([a for a, d in enumerate(v.shape) if fixed(d) and d[0] > 1])
    first = int(net.rng.integers(1, v.shape[axis][0]))
    parts = net.node(made, "Split", [v.name, net.ints(first, v.shape[axis][0] - first)], 2, axis=axis)
    return net.node(made, "Concat", parts, axis=axis)


def sliced(net, made, v):
    axis = net.pick(range(v.rank))
    first = net.node(made, "Slice", [v.name, net.ints(0), net.ints(1), net.ints(axis)])
    rest = net.node(made, "Slice", [v.name, net.ints(1), net.ints(2**40), net.ints(axis)])
    return net.node(made, "Concat", [first, rest], axis=axis)


def padded(net, made, v):
    axis = net.pick(range(v.rank))
    pads = [0] * (2 * v.rank)
    pads[axis], pads[v.rank + axis] = 1, 2
    wide = net.node(made, "Pad", [v.name, net.ints(*pads)], mode=net.pick(["constant", "edge"]))
    return net.node(made, "Slice", [wide, net.ints(1), net.ints(-2), net.ints(axis)])


def reversed_twice(net, made, v):
    axis = net.pick(range(v.rank))
    for_one = [net.ints(-1), net.ints(-(2**40)), net.ints(axis), net.ints(-1)]
    return net.node(made, "Slice", [net.node(made, "Slice", [v.name, *for_one]), *for_one])


def widened(net, made, v):
    return net.node(made, "Cast", [net.node(made, "Cast", [v.name], to=T.DOUBLE)], to=T.FLOAT)


def doubled(net, made, v):
    axis = net.pick(range(v.rank))
    both = net.node(made, "Unsqueeze", [v.name, net.ints(axis)])
    both = net.node(made, "Concat", [both, both], axis=axis)
    if net.rng.random() < 0.5:
        return net.node(made, "Gather", [both, net.const(np.int64(1))], axis=axis)
    return net.node(made, "ReduceMax", [both, net.ints(axis)], keepdims=0)


def gathered(net, made, v):
    axis = net.pick(range(v.rank))
    shape = net.node(made, "Shape", [v.name], start=axis, end=axis + 1)
    size = net.node(made, "Squeeze", [shape])
    index = net.node(made, "Range", [net.const(np.int64(0)), size, net.const(np.int64(1))])
    return net.node(made, "Gather", [v.name, index], axis=axis)


def chosen(net, made, v):
    return net.node(made, "Where", [net.const(np.array(True)), v.name, net.node(made, "Neg", [v.name])])


def body_of(net, op, read, inputs=(), before=()):
    out = net.name()
    node = helper.make_node(op, [read], [out])
    return helper.make_graph([*before, node], net.name(), list(inputs), [helper.make_tensor_value_info(o, t, None) for o, t in
                                                                         [*((n.output[0], T.BOOL) for n in before), (out, T.FLOAT)]])


def branched(net, made, v):
    """An If whose condition only the run knows."""
    cond = net.name()
    net.feeds[cond] = np.array(True)
    return net.node(made, "If", [cond], then_branch=body_of(net, "Identity", v.name), else_branch=body_of(net, "Neg", v.name))


def looped(net, made, v):
    """Two iterations that negate."""
    trip, going, carried, cond = (net.name() for _ in range(4))
    inputs = [helper.make_tensor_value_info(trip, T.INT64, []), helper.make_tensor_value_info(going, T.BOOL, []),
              helper.make_tensor_value_info(carried, T.FLOAT, [None] * v.rank)]
    body = body_of(net, "Neg", carried, inputs, [helper.make_node("Identity", [going], [cond])])
    trips = net.const(np.int64(2))
    if net.rng.random() < 0.5:
        net.feeds[trips] = net.initializers.pop(trips)
    return net.node(made, "Loop", [trips, "", v.name], body=body)


DETOURS = [negated, transposed, flattened, unsqueezed, split, sliced, padded, reversed_twice, widened, doubled, gathered, chosen, branched, looped]


def detour(net):
    at = net.pick(range(len(net.nodes)))
    reader = net.nodes[at]
    v = net.values[net.pick(i for i in reader.input if i in net.values and net.values[i].rank)]
    made = []
    again = net.pick(DETOURS)(net, made, v)
    net.values[again] = type(v)(again, v.shape, v.dtype)
    new = type(reader)()
    new.CopyFrom(reader)
    for k, name in enumerate(new.input):
        if name == v.name:
            new.input[k] = again
            break
    net.nodes[at:at + 1] = [*made, new]


# ---- rewrites of a node ---------------------------------------------------------------------------------------
def attrs_of(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def conv_with_pad(net, node, made):
    attrs = attrs_of(node)
    pads = attrs.pop("pads", None)
    if not pads or attrs.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise Unfit
    n = len(pads) // 2
    wide = net.node(made, "Pad", [node.input[0], net.ints(0, 0, *pads[:n], 0, 0, *pads[n:])])
    return "Conv", [wide, *node.input[1:]], attrs


def matmul_as_einsum(net, node, made):
    return "Einsum", list(node.input), {"equation": "...ij,...jk->...ik"}


def gemm_as_matmul(net, node, made):
    attrs = attrs_of(node)
    a, b = node.input[:2]
    if attrs.get("transA"):
        a = net.node(made, "Transpose", [a], perm=[1, 0])
    if attrs.get("transB"):
        b = net.node(made, "Transpose", [b], perm=[1, 0])
    product = net.node(made, "Mul", [net.node(made, "MatMul", [a, b]), net.const(np.float32(attrs.get("alpha", 1)))])
    more = net.node(made, "Mul", [node.input[2], net.const(np.float32(attrs.get("beta", 1)))]) if len(node.input) > 2 else net.const(np.float32(0))
    return "Add", [product, more], {}


def sub_as_add(net, node, made):
    return "Add", [node.input[0], net.node(made, "Neg", [node.input[1]])], {}


def relu_as_max(net, node, made):
    return "Max", [net.const(np.float32(0)), node.input[0]], {}


def sigmoid_as_quotient(net, node, made):
    e = net.node(made, "Exp", [net.node(made, "Neg", [node.input[0]])])
    return "Reciprocal", [net.node(made, "Add", [e, net.const(np.float32(1))])], {}


def swapped(net, node, made):
    return node.op_type, list(node.input)[::-1], {}


def softmax_as_parts(net, node, made):
    axis = net.ints(attrs_of(node).get("axis", -1))
    top = net.node(made, "ReduceMax", [node.input[0], axis])
    e = net.node(made, "Exp", [net.node(made, "Sub", [node.input[0], top])])
    return "Div", [e, net.node(made, "ReduceSum", [e, axis])], {}


def mean_as_sum(net, node, made):
    """By the number of elements, which is the quotient of the sums of ones."""
    ones = net.node(made, "Add", [net.node(made, "Mul", [node.input[0], net.const(np.float32(0))]), net.const(np.float32(1))])
    attrs = attrs_of(node)
    total = net.node(made, "ReduceSum", list(node.input), **attrs)
    return "Div", [total, net.node(made, "ReduceSum", [ones, *node.input[1:]], **attrs)], {}


REWRITES = {"Conv": [conv_with_pad], "MatMul": [matmul_as_einsum], "Gemm": [gemm_as_matmul], "Sub": [sub_as_add], "Relu": [relu_as_max],
            "Sigmoid": [sigmoid_as_quotient], "Add": [swapped], "Mul": [swapped], "Max": [swapped], "Softmax": [softmax_as_parts],
            "ReduceMean": [mean_as_sum]}


def rewrite(net):
    at = net.pick(k for k, n in enumerate(net.nodes) if n.op_type in REWRITES)
    node, made = net.nodes[at], []
    op, inputs, attrs = net.pick(REWRITES[node.op_type])(net, node, made)
    net.nodes[at:at + 1] = [*made, helper.make_node(op, inputs, list(node.output), name=node.output[0], **attrs)]


def wrap(net):
    """A node becomes a call of a function."""
    at = net.pick(k for k, n in enumerate(net.nodes) if not any(a.HasField("g") for a in n.attribute) and n.domain == "" and all(n.output))
    node, name = net.nodes[at], net.name()
    given = [i for i in dict.fromkeys(node.input) if i]
    net.functions.append(helper.make_function("test", name, given, list(node.output), [node], [helper.make_opsetid("", 21)]))
    net.nodes[at] = helper.make_node(name, given, list(node.output), domain="test", name=node.output[0])


def constant_as_input(net):
    name = net.pick(k for k, a in net.initializers.items() if a.dtype == np.float32 and any(k in n.input for n in net.nodes)
                    and not any(k in n.input for n in net.nodes if n.op_type in ("Resize", "Upsample")))  # sizes
    net.feeds[name] = net.initializers.pop(name)


def constant_as_node(net):
    name = net.pick(k for k in net.initializers if any(k in n.input for n in net.nodes))
    value = numpy_helper.from_array(net.initializers.pop(name))
    net.nodes.insert(0, helper.make_node("Constant", [], [name], name=name, value=value))


CHANGES = [detour, detour, detour, rewrite, rewrite, wrap, constant_as_input, constant_as_node]


def change(net, n):
    """Makes n changes; their names."""
    done = []
    for _ in range(20 * n):
        if len(done) == n:
            break
        before = list(net.nodes), dict(net.initializers), dict(net.feeds), list(net.functions)
        one = net.pick(CHANGES)
        try:
            one(net)
            done.append(one.__name__)
        except Unfit:
            net.nodes, net.initializers, net.feeds, net.functions = before
    return done


