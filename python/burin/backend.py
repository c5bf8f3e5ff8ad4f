"""The ONNX backend API: onnx.backend.test.BackendTest(burin.backend, __name__) runs the official suite."""
import onnx
from onnx import helper, shape_inference
from onnx.backend.base import Backend as BaseBackend
from onnx.backend.base import BackendRep, namedtupledict

from . import compile as burin_compile


def is_sequence(type_proto):
    """A sequence, or an optional one."""
    if type_proto.HasField("optional_type"):
        type_proto = type_proto.optional_type.elem_type
    return type_proto.HasField("sequence_type")


class Rep(BackendRep):
    def __init__(self, model, outputs):
        """outputs: the graph's, which tell what is a sequence: its elements are outputs NAME[0], NAME[1], …"""
        self.model = model
        self.names = [o.name for o in outputs]
        self.sequences = {o.name for o in outputs if is_sequence(o.type)}

    def collect(self, values):
        """{name of the graph's output: array, or list of arrays}, in graph order."""
        named, items = {}, {name: [] for name in self.sequences}
        for tensor, value in zip(self.model.outputs, values):
            sequence = tensor.name.rpartition("[")[0]
            if sequence in items:
                items[sequence].append(value)
            else:
                named[tensor.name] = value
        return {name: named[name] if name in named else items[name] for name in self.names}

    def run(self, inputs, threads=1, **kwargs):
        """inputs: a list in graph order, a single array, or {name: array}; returns a tuple of the outputs."""
        if not isinstance(inputs, dict):
            values = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            inputs = {t.name: v for t, v in zip(self.model.inputs, values)}
        named = self.collect(self.model.run(inputs, threads=threads))
        return namedtupledict("Outputs", list(named))(*named.values())


class Backend(BaseBackend):
    @classmethod
    def is_compatible(cls, model, device="CPU", **kwargs):
        return cls.supports_device(device)

    @classmethod
    def supports_device(cls, device):
        return device.split(":")[0] == "CPU"

    @classmethod
    def prepare(cls, model, device="CPU", target="native", flags=(), **kwargs):
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else model
        return Rep(burin_compile(model, target=target, flags=flags), proto.graph.output)

    @classmethod
    def run_model(cls, model, inputs, device="CPU", **kwargs):
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(cls, node, inputs, device="CPU", outputs_info=None, opset_version=None, **kwargs):
        names = [n for n in node.input if n]
        values = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                  for n, a in zip(names, inputs)]
        outputs = [helper.make_empty_tensor_value_info(n) for n in node.output if n]
        graph = helper.make_graph([node], "node", values, outputs)
        opset = opset_version or onnx.defs.onnx_opset_version()
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, opset)])
        model = shape_inference.infer_shapes(model, data_prop=True)
        return cls.run_model(model, list(inputs), device, **kwargs)


prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
is_compatible = Backend.is_compatible
