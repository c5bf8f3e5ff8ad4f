#!/usr/bin/env python3
"""Makes the bad models of cases/: python3 tests/errors/make_errors.py (needs onnx and numpy). Deterministic.

Each case is cases/NAME.onnx, beside NAME.err: the exit status on the first line, then the exact messages, which
`tests/errors/run_errors.sh --bless` writes. NAME.args holds more arguments. Other files are external data.
"""
import pathlib

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper as h, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "cases"
F = TensorProto.FLOAT
cases = {}


def case(name, model, args=None):
    assert name not in cases, name
    data = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
    cases[name] = (data, args)


def val(name, shape=(2, 3), t=F):
    return h.make_tensor_value_info(name, t, shape)


def model(nodes, inputs=None, outputs=None, init=(), opset=17, imports=None, functions=(), ir=8):
    g = h.make_graph(nodes, "g", inputs if inputs is not None else [val("x")],
                     outputs if outputs is not None else [val("y", None)], list(init))
    m = h.make_model(g, opset_imports=imports if imports is not None else [h.make_opsetid("", opset)],
                     functions=list(functions), ir_version=ir)
    m.producer_name = ""
    return m


def relu(x="x", y="y", **kw):
    return h.make_node("Relu", [x], [y], **kw)


GOOD = model([relu()])


def good(fn):
    """A copy of the good model after fn."""
    m = onnx.ModelProto()
    m.CopyFrom(GOOD)
    fn(m)
    return m


def op(kind, n_in=1, shapes=None, init=(), opset=17, outs=("y",), domain="", types=None, imports=None, **attrs):
    names = ["x", "b", "c", "d", "e"][:n_in]
    inits = {t.name for t in init}
    ins = [val(n, (shapes or {}).get(n, (2, 3)), (types or {}).get(n, F)) for n in names if n not in inits]
    node = h.make_node(kind, names, list(outs), domain=domain, **attrs)
    return model([node], ins, [val(o, None) for o in outs if o], init, opset, imports)


def raw(name, dims, dtype, data):
    t = TensorProto(name=name, data_type=dtype, raw_data=data)
    t.dims.extend(dims)
    return t


def f32(name, a):
    return numpy_helper.from_array(np.asarray(a, np.float32), name)


def i64(name, a):
    return numpy_helper.from_array(np.asarray(a, np.int64), name)


def with_init(t, kind="Add"):
    return model([h.make_node(kind, ["x", t.name], ["y"])], init=[t])


# ---- raw wire bytes --------------------------------------------------------------------------------------
def varint(v):
    out = b""
    while v >= 0x80:
        out += bytes([v & 0x7F | 0x80])
        v >>= 7
    return out + bytes([v])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def wire_cases():
    data = GOOD.SerializeToString(deterministic=True)
    case("wire_empty", b"")
    case("wire_text", b"This is a text file, not a model.\n")
    case("wire_json", b'{"graph": []}\n')
    case("wire_zeros", bytes(64))
    case("wire_ones", b"\xff" * 64)
    case("wire_png", b"\x89PNG\r\n\x1a\n" + bytes(32))
    case("wire_elf", b"\x7fELF\x02\x01\x01" + bytes(57))
    case("wire_truncated", data[: len(data) // 2])
    case("wire_one_byte", data[:1])
    case("wire_length_beyond_file", b"\x08\x08" + varint(7 << 3 | 2) + varint(1 << 30) + b"abc")
    case("wire_length_five_bytes", b"\x08\x08" + varint(7 << 3 | 2) + b"\xff\xff\xff\xff\x7f")
    case("wire_length_endless", b"\x08\x08" + varint(7 << 3 | 2) + b"\xff" * 10)
    case("wire_varint_too_long", b"\x08" + b"\xff" * 11)
    case("wire_varint_truncated", b"\x08\xff")
    case("wire_field_zero", b"\x00\x01")
    case("wire_group", b"\x08\x08\x0b\x0c")
    case("wire_type_7", b"\x08\x08\x0f")
    case("wire_wrong_type", b"\x0a\x01\x08")
    case("wire_child_longer_than_parent", b"\x08\x08" + field(7, varint(1 << 3 | 2) + varint(50) + b"ab"))
    case("wire_graph_twice", data + field(7, b""))
    case("wire_fixed32_truncated", b"\x08\x08" + field(7, field(5, b"\x25\x00\x00")))
    case("wire_packed_floats", b"\x08\x08" + field(7, field(5, field(4, b"\x00\x00\x00"))))
    case("wire_packed_ints", b"\x08\x08" + field(7, field(5, field(1, b"\xff"))))
    case("wire_bad_utf8", b"\x08\x08" + field(7, field(2, b"\xff\xfe")))
    case("wire_overlong_utf8", b"\x08\x08" + field(7, field(2, b"\xc0\x80")))
    case("wire_nul_in_name", good(lambda m: setattr(m.graph.node[0], "name", "a\0b")))
    deep = b""
    for _ in range(60):
        deep = field(1, field(5, field(6, deep)))  # graph → node → attribute → graph
    case("wire_deep_graphs", b"\x08\x08" + field(7, deep))
    types = b""
    for _ in range(150):
        types = field(4, field(1, types))
    case("wire_deep_types", b"\x08\x08" + field(7, field(11, field(1, b"x") + field(2, types))))


# ---- the model message -----------------------------------------------------------------------------------
def model_cases():
    case("model_no_graph", good(lambda m: m.ClearField("graph")))
    case("model_only_producer", b"\x12\x03abc")
    case("model_no_ir_version", good(lambda m: m.ClearField("ir_version")))
    case("model_ir_version_0", good(lambda m: setattr(m, "ir_version", 0)))
    case("model_ir_version_99", good(lambda m: setattr(m, "ir_version", 99)))
    case("model_no_outputs", good(lambda m: m.graph.ClearField("output")))
    case("opset_none", model([relu()], imports=[]))
    case("opset_0", good(lambda m: setattr(m.opset_import[0], "version", 0)))
    case("opset_negative", good(lambda m: setattr(m.opset_import[0], "version", -3)))
    case("opset_future", good(lambda m: setattr(m.opset_import[0], "version", 1000)))
    case("opset_twice", model([relu()], imports=[h.make_opsetid("", 17), h.make_opsetid("ai.onnx", 13)]))
    case("opset_domain_missing", model([h.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml")]))
    case("op_unknown", model([h.make_node("Frobnicate", ["x"], ["y"], name="f1")]))
    many = [h.make_node("Frobnicate", ["x"], [f"t{k}"], name=f"f{k}") for k in range(8)]
    many += [h.make_node("Blur", ["x"], ["b"], domain="my.ops"), relu("t7")]
    case("op_unknown_many", model(many, imports=[h.make_opsetid("", 17), h.make_opsetid("my.ops", 2)]))
    case("op_unknown_domain", model([h.make_node("Relu", ["x"], ["y"], domain="my.ops")],
                                    imports=[h.make_opsetid("my.ops", 1)]))
    case("op_empty_name", good(lambda m: m.graph.node[0].ClearField("op_type")))
    inner = h.make_graph([h.make_node("Frobnicate", ["x"], ["z"], name="deep")], "then", [], [val("z", None)])
    other = h.make_graph([relu("x", "z")], "else", [], [val("z", None)])
    case("op_unknown_in_branch", model(
        [h.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)],
        [val("x"), val("c", (), TensorProto.BOOL)]))


# ---- names and order -------------------------------------------------------------------------------------
def name_cases():
    case("name_undefined_input", model([h.make_node("Add", ["x", "nowhere"], ["y"], name="add")]))
    case("name_undefined_output", model([relu()], outputs=[val("z", None)]))
    case("name_twice", model([relu("x", "t"), h.make_node("Neg", ["x"], ["t"]), relu("t")]))
    case("name_input_twice", model([relu()], [val("x"), val("x")]))
    case("name_output_twice", model([relu()], outputs=[val("y", None), val("y", None)]))
    case("name_node_hides_input", model([relu("x", "x")], outputs=[val("x", None)]))
    case("name_initializer_twice", model([relu()], init=[f32("w", [1]), f32("w", [2])]))
    inputs = [val("x"), val("w", (2, 3))]
    add = h.make_node("Add", ["x", "w"], ["y"])
    case("default_twice", model([add], inputs, init=[f32("w", [1]), f32("w", [2])]))
    case("default_type", model([add], inputs, init=[i64("w", [[1, 2, 3], [4, 5, 6]])]))
    case("default_shape", model([add], [val("x"), val("w", ("n", 3))], init=[f32("w", np.zeros((2, 3)))]), "--shape w=5x3")
    case("default_shadowed", model([add, h.make_node("Neg", ["x"], ["w"])], inputs, init=[f32("w", np.zeros((2, 3)))]))
    case("name_initializer_empty", model([relu()], init=[f32("", [1])]))
    case("name_input_empty", model([relu()], [val("x"), val("")]))
    case("name_cycle", model([h.make_node("Add", ["x", "b"], ["a"], name="first"),
                              h.make_node("Neg", ["a"], ["b"], name="second"), relu("b")]))
    case("name_cycle_self", model([h.make_node("Add", ["x", "y"], ["y"], name="loop")]))
    case("name_control_characters", model([h.make_node("Add", ["x", "\x1b[31mred\n"], ["y"], name="esc\x1b]0;title\x07")]))
    case("name_format_string", model([h.make_node("Add", ["x", "%s%n%999d"], ["y"], name="%n%n")]))
    case("name_branch_undefined", model(
        [h.make_node("If", ["c"], ["y"], name="choice",
                     then_branch=h.make_graph([relu("ghost", "z")], "t", [], [val("z", None)]),
                     else_branch=h.make_graph([relu("x", "z")], "e", [], [val("z", None)]))],
        [val("x"), val("c", (), TensorProto.BOOL)]))


# ---- functions -------------------------------------------------------------------------------------------
def function(name, nodes, ins=("a",), outs=("r",), attrs=()):
    return h.make_function("my.ops", name, list(ins), list(outs), nodes,
                           [h.make_opsetid("", 17), h.make_opsetid("my.ops", 1)], list(attrs))


def function_cases():
    imports = [h.make_opsetid("", 17), h.make_opsetid("my.ops", 1)]
    call = [h.make_node("F", ["x"], ["y"], domain="my.ops", name="call")]
    case("function_calls_itself", model(call, imports=imports, functions=[
        function("F", [h.make_node("F", ["a"], ["r"], domain="my.ops")])]))
    case("function_cycle_of_two", model(call, imports=imports, functions=[
        function("F", [h.make_node("G", ["a"], ["r"], domain="my.ops")]),
        function("G", [h.make_node("F", ["a"], ["r"], domain="my.ops")])]))
    case("function_twice", model(call, imports=imports, functions=[
        function("F", [relu("a", "r")]), function("F", [relu("a", "r")])]))
    case("function_too_many_inputs", model(
        [h.make_node("F", ["x", "x"], ["y"], domain="my.ops")], imports=imports, functions=[function("F", [relu("a", "r")])]))
    case("function_output_undefined", model(call, imports=imports, functions=[function("F", [relu("a", "q")])]))
    case("function_body_error", model(call, imports=imports, functions=[
        function("F", [h.make_node("Concat", ["a", "a"], ["r"], axis=7, name="inner")])]))
    doubling = [function(f"F{k}", [h.make_node(f"F{k + 1}", ["a"], ["t"], domain="my.ops"),
                                   h.make_node(f"F{k + 1}", ["t"], ["r"], domain="my.ops")]) for k in range(40)]
    doubling.append(function("F40", [h.make_node("Identity", ["a"], ["r"])]))
    case("function_bomb", model([h.make_node("F20", ["x"], ["y"], domain="my.ops")], imports=imports, functions=doubling))
    chain = [function(f"F{k}", [h.make_node(f"F{k + 1}", ["a"], ["r"], domain="my.ops")]) for k in range(100)]
    case("function_chain_too_deep", model([h.make_node("F0", ["x"], ["y"], domain="my.ops")], imports=imports, functions=chain))
    outside = model([h.make_node("LeakyRelu", ["x"], ["y"])])
    outside.graph.node[0].attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="beta"))
    case("function_ref_attr_outside", outside)


# ---- tensors -----------------------------------------------------------------------------------------------
def tensor_cases():
    case("tensor_raw_too_short", with_init(raw("w", [2, 3], F, bytes(20))))
    case("tensor_raw_too_long", with_init(raw("w", [2, 3], F, bytes(28))))
    case("tensor_raw_empty", with_init(raw("w", [2, 3], F, b"")))
    case("tensor_no_data", with_init(TensorProto(name="w", data_type=F, dims=[2, 3])))
    case("tensor_float_data_short", with_init(TensorProto(name="w", data_type=F, dims=[2, 3], float_data=[1, 2])))
    case("tensor_wrong_field", with_init(TensorProto(name="w", data_type=F, dims=[2], int64_data=[1, 2])))
    case("tensor_int4_short", with_init(TensorProto(name="w", data_type=TensorProto.INT4, dims=[5], raw_data=b"\0\0")))
    case("tensor_type_0", with_init(raw("w", [1], 0, bytes(4))))
    case("tensor_type_999", with_init(raw("w", [1], 999, bytes(4))))
    case("tensor_type_float6", with_init(raw("w", [4], 27, bytes(3))))
    case("tensor_negative_dim", with_init(raw("w", [-1, 3], F, bytes(12))))
    case("tensor_huge_dims", with_init(raw("w", [1 << 40, 1 << 40], F, bytes(4))))
    case("tensor_overflow_to_zero", with_init(raw("w", [1 << 32, 1 << 32], F, b"")))
    case("tensor_rank_17", with_init(raw("w", [1] * 17, F, bytes(4))))
    case("tensor_string_raw", with_init(raw("w", [1], TensorProto.STRING, b"abc")))
    case("tensor_segment", with_init(TensorProto(name="w", data_type=F, dims=[1], raw_data=bytes(4),
                                                 segment=TensorProto.Segment(begin=0, end=1))))
    sparse = onnx.SparseTensorProto(values=f32("w", [1.0, 2.0]), indices=i64("", [0, 99]), dims=[2, 3])
    m = model([h.make_node("Add", ["x", "w"], ["y"])])
    m.graph.sparse_initializer.append(sparse)
    case("sparse_index_outside", m)
    m = onnx.ModelProto.FromString(m.SerializeToString())
    m.graph.sparse_initializer[0].indices.CopyFrom(i64("", [0, 1, 2]))
    case("sparse_indices_too_many", m)
    m = onnx.ModelProto.FromString(m.SerializeToString())
    m.graph.sparse_initializer[0].CopyFrom(onnx.SparseTensorProto(values=f32("w", [1.0]), indices=i64("", [5]), dims=[1 << 20, 1 << 20]))
    case("sparse_bomb", m)
    m = onnx.ModelProto.FromString(m.SerializeToString())
    m.graph.sparse_initializer[0].ClearField("indices")
    case("sparse_no_indices", m)


def external(name, location, **more):
    t = TensorProto(name="w", data_type=F, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for k, v in dict(location=location, **more).items():
        if v is not None:
            t.external_data.add(key=k, value=str(v))
    case("external_" + name, with_init(t))


def external_cases():
    (OUT / "weights.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    external("parent", "../make_errors.py")
    external("parent_hidden", "sub/../../run.sh")
    external("absolute", "/etc/passwd")
    external("empty", "")
    external("symlink", "link.bin")
    external("symlink_folder", "linkdir/weights.bin")
    external("hard_link", "hard.bin")
    external("missing", "no-such-file.bin")
    external("folder", ".")
    external("no_location", None)
    external("too_short", "weights.bin", offset=8)
    external("offset_beyond", "weights.bin", offset=1 << 40)
    external("offset_negative", "weights.bin", offset=-4)
    external("offset_overflow", "weights.bin", offset=(1 << 63) - 8, length=24)
    external("length_wrong", "weights.bin", length=20)
    external("length_text", "weights.bin", length="many")
    external("nul", "weights.bin\0.png")


# ---- types and shapes of inputs and outputs ----------------------------------------------------------------
def type_cases():
    m = good(lambda m: m.graph.input[0].ClearField("type"))
    case("input_no_type", m)
    case("input_no_shape", model([relu()], [val("x", None)]))
    case("input_type_0", good(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 0)))
    case("input_type_777", good(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 777)))
    case("input_rank_17", model([relu()], [val("x", [1] * 17)]))
    case("input_huge", model([relu()], [val("x", [1 << 31, 1 << 31])]))
    case("output_type_lies", model([relu()], outputs=[val("y", (2, 3), TensorProto.INT64)]))
    case("output_sequence_lies", model([relu()], outputs=[
        h.make_tensor_sequence_value_info("y", F, None)]))
    case("option_dim_unknown", model([relu()], [val("x", ["n", 3])]), "--dim nn=2")
    case("option_shape_unknown", model([relu()], [val("x", ["n", 3])]), "--shape z=2x3")
    case("option_shape_rank", model([relu()], [val("x", ["n", 3])]), "--shape x=2x3x4")
    case("option_shape_fixed", model([relu()], [val("x", ["n", 3])]), "--shape x=2x4")
    case("option_memory", model([h.make_node("Relu", ["x"], ["y"])]), "--max-memory=1K")


# ---- operators: arity, attributes, types, shapes -------------------------------------------------------------
def op_cases():
    bad = h.make_attribute("axis", 1.5)
    m = op("Concat", 2, axis=0)
    m.graph.node[0].attribute[0].CopyFrom(bad)
    case("attr_wrong_type", m)
    m = op("Concat", 2, axis=0)
    m.graph.node[0].attribute.append(h.make_attribute("axis", 1))
    case("attr_twice", m)
    case("attr_missing", op("Concat", 2))
    m = op("Concat", 2, axis=0)
    m.graph.node[0].attribute[0].ClearField("name")
    case("attr_no_name", m)
    case("attr_unknown", op("Relu", alpha=0.5))
    case("attr_of_older_opset", op("ReduceSum", axes=[1]))
    m = op("LeakyRelu")
    m.graph.node[0].attribute.append(AttributeProto(name="alpha", type=AttributeProto.GRAPHS))
    case("attr_graphs", m)
    m = op("ConstantOfShape", init=[h.make_tensor("x", TensorProto.INT64, [1], [2])])
    m.graph.node[0].attribute.append(AttributeProto(name="value", type=AttributeProto.TENSOR))
    case("attr_tensor_without_value", m)
    case("concat_axis", op("Concat", 2, axis=5))
    case("concat_shapes", op("Concat", 2, {"b": (4, 5)}, axis=0))
    case("concat_types", op("Concat", 2, types={"b": TensorProto.INT32}, axis=0))
    case("arity_relu_0", model([h.make_node("Relu", [], ["y"])]))
    case("arity_relu_2", op("Relu", 2))
    case("arity_relu_absent", model([h.make_node("Relu", [""], ["y"])]))
    case("arity_relu_outputs", op("Relu", 1, outs=("y", "z")))
    case("arity_no_outputs", model([h.make_node("Relu", ["x"], []), relu()]))
    case("add_shapes", op("Add", 2, {"b": (4,)}))
    case("add_types", op("Add", 2, types={"b": TensorProto.DOUBLE}))
    case("add_bool", op("Add", 2, types={"x": TensorProto.BOOL, "b": TensorProto.BOOL}))
    case("relu_string", op("Relu", 1, types={"x": TensorProto.STRING}))
    case("cast_no_to", op("Cast"))
    case("cast_to_nothing", op("Cast", to=77))
    case("cast_to_2_pow_32", op("Cast", to=2**32 + 1))
    case("eye_like_2_pow_32", op("EyeLike", 1, {"x": (3, 3)}, dtype=2**32 + 1))
    case("bernoulli_2_pow_32", op("Bernoulli", dtype=2**32 + 1))
    case("matmul_shapes", op("MatMul", 2, {"b": (4, 2)}))
    case("matmul_scalar", op("MatMul", 2, {"b": ()}))
    case("gemm_rank", op("Gemm", 2, {"x": (2, 3, 4)}))
    image = {"x": (1, 3, 8, 8), "b": (4, 3, 3, 3)}
    case("conv_channels", op("Conv", 2, {"x": (1, 5, 8, 8), "b": (4, 3, 3, 3)}))
    case("conv_group_0", op("Conv", 2, image, group=0))
    case("conv_group_2", op("Conv", 2, image, group=2))
    case("conv_stride_0", op("Conv", 2, image, strides=[0, 1]))
    case("conv_stride_negative", op("Conv", 2, image, strides=[-1, 1]))
    case("conv_dilation_0", op("Conv", 2, image, dilations=[0, 0]))
    case("conv_pads_count", op("Conv", 2, image, pads=[1, 1]))
    case("conv_pads_huge", op("Conv", 2, image, pads=[1 << 62, 0, 1 << 62, 0]))
    case("conv_kernel_shape", op("Conv", 2, image, kernel_shape=[5, 5]))
    case("conv_bias", op("Conv", 3, {**image, "c": (63,)}))
    case("conv_rank", op("Conv", 2, {"x": (8,), "b": (4,)}))
    case("conv_kernel_too_big", op("Conv", 2, {"x": (1, 3, 2, 2), "b": (4, 3, 3, 3)}))
    case("pool_no_kernel", op("MaxPool", 1, image))
    case("pool_kernel_0", op("MaxPool", 1, image, kernel_shape=[0, 0]))
    case("pool_auto_pad", op("MaxPool", 1, image, kernel_shape=[2, 2], auto_pad="SOMETIMES"))
    case("reshape_size", op("Reshape", 2, init=[i64("b", [4, 4])]))
    case("reshape_two_minus_1", op("Reshape", 2, init=[i64("b", [-1, -1])]))
    case("reshape_minus_2", op("Reshape", 2, init=[i64("b", [-2, 3])]))
    case("reshape_float", op("Reshape", 2, init=[f32("b", [2, 3])]))
    case("reshape_huge", op("Reshape", 2, init=[i64("b", [1 << 40, 1 << 40])]))
    case("transpose_perm", op("Transpose", perm=[0, 0]))
    case("transpose_perm_range", op("Transpose", perm=[0, 7]))
    case("squeeze_axis", op("Squeeze", 2, init=[i64("b", [9])]))
    case("squeeze_not_1", op("Squeeze", 2, init=[i64("b", [0])]))
    case("unsqueeze_twice", op("Unsqueeze", 2, init=[i64("b", [0, 0])]))
    case("gather_index_type", op("Gather", 2))
    case("split_sum", op("Split", 2, init=[i64("b", [1, 5])], outs=("y", "z"), axis=1))
    case("slice_step_0", op("Slice", 5, init=[i64("b", [0]), i64("c", [2]), i64("d", [0]), i64("e", [0])]))
    case("slice_axis", op("Slice", 4, init=[i64("b", [0]), i64("c", [2]), i64("d", [8])]))
    case("pad_count", op("Pad", 2, init=[i64("b", [1, 1])]))
    case("pad_mode", op("Pad", 2, init=[i64("b", [0, 0, 0, 0])], mode="mirror"))
    case("expand_shape", op("Expand", 2, init=[i64("b", [5, 7])]))
    longer = [h.make_node("Concat", ["s", "b"], ["l"], axis=0), h.make_node("Expand", ["x", "l"], ["z"]), relu("z")]
    case("expand_length", model(longer, [val("x"), val("s", ("n",), TensorProto.INT64)], init=[i64("b", [2, 3])]))
    case("tile_negative", op("Tile", 2, init=[i64("b", [-1, 1])]))
    case("softmax_axis", op("Softmax", axis=4))
    case("softmax_old_axis", op("Softmax", opset=11, axis=4))
    case("flatten_axis", op("Flatten", axis=-9))
    case("batchnorm_channels", op("BatchNormalization", 5, {"x": (1, 3, 4), "b": (2,), "c": (2,), "d": (2,), "e": (2,)}))
    case("topk_axis", op("TopK", 2, init=[i64("b", [1])], outs=("y", "z"), axis=3))
    case("topk_negative", op("TopK", 2, init=[i64("b", [-1])], outs=("y", "z")))
    case("einsum_syntax", op("Einsum", 2, equation="ij,->->"))
    case("einsum_dims", op("Einsum", 2, {"b": (4, 4)}, equation="ij,jk->ik"))
    case("depth_to_space", op("DepthToSpace", 1, {"x": (1, 3, 2, 2)}, blocksize=2))
    case("depth_to_space_0", op("DepthToSpace", 1, {"x": (1, 4, 2, 2)}, blocksize=0))
    case("if_condition_type", model(
        [h.make_node("If", ["x"], ["y"], then_branch=h.make_graph([relu("x", "z")], "t", [], [val("z", None)]),
                     else_branch=h.make_graph([relu("x", "z")], "e", [], [val("z", None)]))]))
    case("if_no_branch", model([h.make_node("If", ["c"], ["y"])], [val("x"), val("c", (), TensorProto.BOOL)]))
    case("constant_empty", model([h.make_node("Constant", [], ["w"]), h.make_node("Add", ["x", "w"], ["y"])]))
    case("constant_two_values", model([h.make_node("Constant", [], ["w"], value_float=1.0, value_int=1),
                                       h.make_node("Add", ["x", "w"], ["y"])]))
    case("constant_with_input", model([h.make_node("Constant", ["x"], ["w"], value_float=1.0),
                                       h.make_node("Add", ["x", "w"], ["y"])]))
    case("upsample_old_no_scales", op("Upsample", opset=7, shapes=image))
    case("slice_old_no_starts", op("Slice", opset=9, ends=[1]))


def sequence_cases():
    def seq(*nodes, init=()):
        return model([h.make_node("SequenceConstruct", ["x", "x"], ["q"]), *nodes], init=init)

    case("sequence_position", seq(h.make_node("SequenceAt", ["q", "p"], ["y"]), init=[i64("p", 2)]))
    case("sequence_of_tensor", model([h.make_node("SequenceLength", ["x"], ["y"])]))
    case("sequence_to_relu", seq(relu("q")))
    case("sequence_empty_concat", model([h.make_node("SequenceEmpty", [], ["q"]),
                                         h.make_node("ConcatFromSequence", ["q"], ["y"], axis=0)]))
    case("sequence_mixed_types", model([h.make_node("SequenceConstruct", ["x", "w"], ["q"]),
                                        h.make_node("SequenceAt", ["q", "p"], ["y"])], init=[i64("w", [1]), i64("p", 0)]))
    case("sequence_input", model([h.make_node("SequenceLength", ["x"], ["y"])],
                                 [h.make_tensor_sequence_value_info("x", F, None)]))
    case("sequence_split_sum", model([h.make_node("SplitToSequence", ["x", "s"], ["q"]),
                                      h.make_node("SequenceLength", ["q"], ["y"])], init=[i64("s", [1, 5])]))
    case("optional_empty", model([h.make_node("OptionalGetElement", [""], ["y"])]))


def truncation_models():
    """Small good models for the truncation test."""
    folder = HERE / "truncate"
    folder.mkdir(exist_ok=True)
    w = f32("w", [[1, 2], [3, 4], [5, 6]])
    (folder / "relu.onnx").write_bytes(GOOD.SerializeToString(deterministic=True))
    (folder / "matmul.onnx").write_bytes(model([h.make_node("MatMul", ["x", "w"], ["y"])], init=[w]).SerializeToString(deterministic=True))
    branch = model([h.make_node("If", ["c"], ["y"],
                                then_branch=h.make_graph([relu("x", "z")], "t", [], [val("z", None)]),
                                else_branch=h.make_graph([h.make_node("Neg", ["x"], ["z"])], "e", [], [val("z", None)]))],
                   [val("x"), val("c", (), TensorProto.BOOL)])
    (folder / "if.onnx").write_bytes(branch.SerializeToString(deterministic=True))


def main():
    OUT.mkdir(exist_ok=True)
    for f in OUT.glob("*.onnx"):
        f.unlink()
    for fn in (wire_cases, model_cases, name_cases, function_cases, tensor_cases, external_cases, type_cases, op_cases,
               sequence_cases):
        fn()
    for name, (data, args) in cases.items():
        (OUT / f"{name}.onnx").write_bytes(data)
        if args:
            (OUT / f"{name}.args").write_text(args + "\n")
    truncation_models()
    print(f"{len(cases)} cases, {sum(len(d) for d, _ in cases.values())} bytes")


main()
