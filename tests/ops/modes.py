"""Other ways to the answers of a node test than compiling it for this machine as it is: MODES has a function for each, that takes a case
and gives its outputs, a list for each data set. run_backend.py --mode=NAME runs the tests so."""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import burin  # noqa: E402
from burin.backend import Rep  # noqa: E402
from tests.support import targets  # noqa: E402

GCC = ["gcc", "-std=c99", "-O1", "-shared", "-fPIC"]


class Skip(Exception):
    """Why a test cannot be run in a mode."""


def array(value):
    """A tensor of a case as numpy: the loader gives arrays, lists or protos."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def named(case, values):
    graph, constants = case.model.graph, set()
    if len(values) < len(graph.input):  # those with an initializer have their value
        constants = {i.name for i in graph.initializer}
    return {i.name: array(v) for i, v in zip((i for i in graph.input if i.name not in constants), values)}


def compiled(target="native", flags=()):
    def answers(case):
        rep = burin.backend.prepare(case.model, target=target, flags=flags)
        return [list(rep.run(named(case, inputs))) for inputs, _ in case.data_sets]
    return answers


def is_tensor(info):
    return info.type.WhichOneof("value") == "tensor_type"


# ---- inputs as constants, sizes as symbols ------------------------------------------------------------

def constants(case):
    """Every input an initializer: what folding makes of it."""
    results = []
    for inputs, _ in case.data_sets:
        model = onnx.ModelProto.FromString(case.model.SerializeToString())
        feeds, graph = named(case, inputs), model.graph
        for info in [i for i in graph.input if is_tensor(i)]:
            graph.input.remove(info)
            if info.name not in feeds:  # it is one already
                continue
            value = feeds.pop(info.name)
            if not np.asarray(value).size and np.asarray(value).dtype == object:
                value = np.zeros(np.shape(value), object)
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), info.name))
        results.append(list(burin.backend.prepare(model).run(feeds)))
    return results


def tensor_types(graph):
    return [v.type.tensor_type for v in graph.input if is_tensor(v)]


def with_symbols(case):
    """The model with sizes of inputs as symbols, equal ones where sizes are equal; sizes 0 and 1 stay, since they broadcast. Those of outputs
    stay, too: where they are data, the model has no other bound."""
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    for tensor in tensor_types(model.graph):
        for dim in tensor.shape.dim:
            if dim.dim_value > 1:
                dim.dim_param = f"s{dim.dim_value}"
    return model


def symbols(case):
    rep = burin.backend.prepare(with_symbols(case))
    return [list(rep.run(named(case, inputs))) for inputs, _ in case.data_sets]


# ---- C, and programs of other targets -----------------------------------------------------------------

def run_compiler(model, folder, *args):
    path = Path(folder) / "in.onnx"
    path.write_bytes(model.SerializeToString())
    done = subprocess.run([burin.compiler(), "compile", path, *args], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise burin.CompileError(done.stderr.strip(), done.returncode)


def c_source(case):
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        stem = Path(folder) / "model"
        run_compiler(case.model, folder, "--emit=c,header", "-o", stem, "--name=burin_model")
        done = subprocess.run([*GCC, f"{stem}.c", "-o", f"{stem}.so"], capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, f"gcc: {done.stderr[:400]}"
        rep = Rep(burin.Model(f"{stem}.so"), case.model.graph.output)
    return [list(rep.run(named(case, inputs))) for inputs, _ in case.data_sets]


def run_program(program, target, case, inputs, folder):
    graph, command = case.model.graph, [*targets.EMULATOR[target], program, "--check-memory", "--quiet"]
    for k, (name, value) in enumerate(named(case, inputs).items()):
        path = Path(folder) / f"in_{k}.pb"
        path.write_bytes(numpy_helper.from_array(np.asarray(value), name).SerializeToString())
        command += ["--input", f"{name}=@{path}"]
    outputs = [Path(folder) / f"out_{k}.pb" for k in range(len(graph.output))]
    for info, path in zip(graph.output, outputs):
        command += ["--output", f"{info.name}=@{path}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise burin.RunError(done.stderr.strip()[-200:], done.returncode)
    return [numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in outputs]


def program(target):
    def answers(case):
        graph = case.model.graph
        if not all(is_tensor(v) for v in [*graph.input, *graph.output]):
            raise Skip("programs take and give tensors")
        if why := targets.missing(target):
            raise Skip(why)
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            path = Path(folder) / "program"
            run_compiler(case.model, folder, "-o", path, f"--target={target}")
            return [run_program(path, target, case, inputs, folder) for inputs, _ in case.data_sets]
    return answers


MODES = {"native": compiled(), "O0": compiled(flags=["-O0"]), "constants": constants, "symbols": symbols, "c": c_source,
         "cuda:host": compiled(target="cuda:host"), **{f"program:{t}": program(t) for t in targets.EMULATOR}}
