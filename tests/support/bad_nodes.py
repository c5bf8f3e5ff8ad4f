"""Nodes with one thing that the ONNX specification forbids, made of valid node tests: make(tests) for the tests of an operator.

What is forbidden follows from the schema (types and names of attributes and inputs, numbers of inputs and outputs) and, for
values, from the tables below: what the specification says of an attribute of that name wherever it occurs."""
import numpy as np
import onnx
from onnx import AttributeProto as A
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from onnx.defs import OpSchema

BASES = 2
REQUIRED, VARIADIC = OpSchema.FormalParameterOption.Single, OpSchema.FormalParameterOption.Variadic
KINDS = {A.FLOAT: 1.5, A.INT: 1, A.STRING: "text", A.FLOATS: [1.5, 2.5], A.INTS: [1, 2], A.STRINGS: ["a", "b"],
         A.TENSOR: numpy_helper.from_array(np.zeros(2, np.float32))}
FAR = 2**31
# {attribute: values that no operator allows}; strings that name one of a few ways
NUMBERS = {
    "axis": [99, -99], "group": [0, -1], "blocksize": [0, -1], "num_outputs": [0, -1], "k_dims": [], "num_groups": [0, -3],
    "size": [0, -1], "to": [0, 99, -1], "dtype": [99, -1], "output_dtype": [99, -1], "output_datatype": [99, -1], "batch_dims": [-9, 9],
    "num_heads": [-1], "kv_num_heads": [-1], "q_num_heads": [-1], "hidden_size": [0, -1], "stash_type": [99], "start": [], "p": [-1],
    "select_last_index": [], "sampling_ratio": [-1], "output_height": [-1], "output_width": [-1], "spatial_scale": [],
    "block_size": [-1], "interleaved": [], "rotary_embedding_dim": [-2], "max_gram_length": [0], "min_gram_length": [-1],
    "keepdims": [], "qk_matmul_output_mode": [9], "softmax_precision": [99], "storage_order": [], "n_targets": [],
}
STRINGS = {"auto_pad", "mode", "direction", "reduction", "coordinate_transformation_mode", "nearest_mode", "padding_mode", "approximate",
           "keep_aspect_ratio_policy", "case_change_action", "pixel_format", "post_transform", "kernel_type", "aggregate_function",
           "norm", "cast_to", "map_form", "equation", "pattern", "activation"}
NEGATIVE = {"kernel_shape", "strides", "dilations", "block_shape"}  # not even 0
PER_AXIS = {"kernel_shape", "strides", "dilations", "pads", "output_padding", "output_shape", "perm"}


class Bad:
    """name, model, feeds (of the valid test), place: what an error must name."""

    def __init__(self, test, what):
        self.model = onnx.ModelProto()
        self.model.CopyFrom(test.model)
        for output in self.model.graph.output:  # what is declared is not what is tested
            output.CopyFrom(onnx.ValueInfoProto(name=output.name))
        self.node = self.model.graph.node[0]
        self.node.name = self.place = "the_node"
        self.name = f"{self.node.op_type} {test.name.removeprefix('test_')}: {what}"
        self.feeds = [numpy_helper.to_array(v) if isinstance(v, T) else v for v in test.data_sets[0][0]]

    def set(self, name, value, kind=None):
        self.remove(name)
        self.node.attribute.append(helper.make_attribute(name, value, attr_type=kind))
        return self

    def remove(self, name):
        keep = [a for a in self.node.attribute if a.name != name]
        del self.node.attribute[:]
        self.node.attribute.extend(keep)
        return self


def schema_of(test):
    model = test.model
    node = model.graph.node[0]
    version = next(o.version for o in model.opset_import if o.domain == node.domain)
    return node, onnx.defs.get_schema(node.op_type, version, node.domain)


def attributes(test, node, schema):
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    yield Bad(test, "an attribute that no operator has").set("no_such_attribute", 1)
    for name, formal in sorted(schema.attributes.items()):
        other = A.STRING if formal.type in (A.INT, A.FLOAT, A.INTS, A.FLOATS, A.TENSOR, A.GRAPH) else A.INT
        if formal.type != A.TENSOR or name in given:
            yield Bad(test, f"{name} of another type").set(name, KINDS[other])
        if formal.type in (A.INT, A.INTS):
            yield Bad(test, f"{name} is a float").set(name, 1.5)
        if formal.required:
            yield Bad(test, f"{name} is missing").remove(name)
        for value in NUMBERS.get(name, []) if formal.type == A.INT else []:
            yield Bad(test, f"{name} = {value}").set(name, value)
        if formal.type == A.STRING and name in STRINGS:
            yield Bad(test, f"{name} = no_such_thing").set(name, "no_such_thing")
            yield Bad(test, f"{name} is empty").set(name, "")
        if formal.type == A.INTS and name in given and given[name]:
            yield from lists(test, name, list(given[name]))


def lists(test, name, value):
    if name in PER_AXIS:
        yield Bad(test, f"{name} is longer").set(name, value + [1])
        yield Bad(test, f"{name} is shorter").set(name, value[:-1], A.INTS)
    if name in NEGATIVE:
        yield Bad(test, f"{name} has a 0").set(name, [0] + value[1:])
        yield Bad(test, f"{name} is negative").set(name, [-1] + value[1:])
        yield Bad(test, f"{name} is far too large").set(name, [2**62] + value[1:])
    if name == "perm" and len(value) > 1:
        yield Bad(test, "perm has one twice").set(name, value[:1] * 2 + value[2:])
        yield Bad(test, "perm out of range").set(name, [len(value)] + value[1:])
        yield Bad(test, "perm is negative").set(name, [-1] + value[1:])
    if name == "axes":
        yield Bad(test, "axes out of range").set(name, [99] + value[1:])
        yield Bad(test, "axes has one twice").set(name, [value[0]] * 2)


def arity(test, node, schema):
    total = len(node.input)
    need = sum(p.option == REQUIRED for p in schema.inputs)
    if need:
        bad = Bad(test, "no inputs")
        del bad.node.input[:]
        yield bad
        if need > 1:
            bad = Bad(test, "the last required input is missing")
            del bad.node.input[need - 1:]
            yield bad
    for k in range(min(need, total)):
        bad = Bad(test, f"input {k} is left out")
        bad.node.input[k] = ""
        yield bad
    if not any(p.option == VARIADIC for p in schema.inputs) and total:
        bad = Bad(test, "too many inputs")
        bad.node.input.extend([node.input[0]] * (schema.max_input + 1 - total))
        yield bad
    if not any(p.option == VARIADIC for p in schema.outputs):
        bad = Bad(test, "too many outputs")
        bad.node.output.extend(f"more_{i}" for i in range(schema.max_output + 1 - len(node.output)))
        yield bad


def allowed(schema, formal):
    for c in schema.type_constraints:
        if c.type_param_str == formal.type_str:
            return set(c.allowed_type_strs)
    return {formal.type_str}


def formal_input(schema, k):
    return schema.inputs[min(k, len(schema.inputs) - 1)]


def types(test, node, schema):
    """An input of a type that the schema forbids, and two of the same type variable that differ."""
    infos = {i.name: k for k, i in enumerate(test.model.graph.input)}
    seen = {}
    for k, name in enumerate(node.input):
        if name not in infos:
            continue
        formal, position = formal_input(schema, k), infos[name]
        current = test.model.graph.input[position].type
        if not current.HasField("tensor_type"):
            continue
        legal = allowed(schema, formal)
        for text, code in (("string", T.STRING), ("bool", T.BOOL), ("float", T.FLOAT), ("int64", T.INT64)):
            if f"tensor({text})" not in legal:
                yield typed(test, position, code, f"input {k} is {text}")
        first = seen.setdefault(formal.type_str, k)
        if first != k and not (formal.option == VARIADIC and not formal.is_homogeneous):
            other = next((c for t, c in (("double", T.DOUBLE), ("int32", T.INT32), ("uint8", T.UINT8), ("float", T.FLOAT))
                          if f"tensor({t})" in legal and c != current.tensor_type.elem_type), None)
            if other and node.input[first] != name:
                yield typed(test, position, other, f"input {k} has another type than input {first}")


def typed(test, position, code, what):
    bad = Bad(test, what)
    bad.model.graph.input[position].type.tensor_type.elem_type = code
    bad.feeds[position] = np.zeros(np.shape(bad.feeds[position]), helper.tensor_dtype_to_np_dtype(code))
    return bad


def make(tests):
    """Every bad node of the tests of one operator; of the second test only what the first has not."""
    names = set()
    for test in tests:
        node, schema = schema_of(test)
        for source in (attributes, arity, types):
            for bad in source(test, node, schema):
                what = bad.name.split(": ", 1)[1]
                if what not in names:
                    names.add(what)
                    yield bad
