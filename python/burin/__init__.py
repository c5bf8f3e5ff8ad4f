"""burin: compile ONNX models to native code and run them with numpy.

    m = burin.compile("model.onnx")
    outputs = m.run({"x": array}, threads=2)

A thin layer over the command line (build/burin, or the BURIN environment variable) and the C ABI of
runtime/abi.h. Nothing is cached; the shared library of a model is unlinked as soon as it is loaded.
"""
import ctypes
import importlib.util
import os
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np

from . import _abi
from .caches import Caches
from .device import DeviceTensor, on_device
from .state import State

__all__ = ["compile", "Model", "Tensor", "Caches", "State", "CompileError", "RunError", "compiler", "backend"]
__version__ = "0.1"
# Tests set it: every run is done twice, the second time on memory full of ones.
_CHECK_MEMORY = os.environ.get("BURIN_CHECK_MEMORY", "") not in ("", "0")


class CompileError(Exception):
    """The compiler refused the model: its messages, and its exit status as .status."""

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status


class RunError(Exception):
    """A run failed; .status is one of runtime/abi.h. .node: name of the node whose check failed, or None; .values: the
    numbers that it compared."""

    def __init__(self, message, status, node=None, values=()):
        super().__init__(message)
        self.status, self.node, self.values = status, node, values


def compiler():
    """Path of the compiler: $BURIN, else build/burin of the source tree, else burin on the PATH."""
    tree = Path(__file__).resolve().parents[2] / "build" / "burin"
    return os.environ.get("BURIN") or (str(tree) if tree.exists() else "burin")


def _environment():
    """What the compiler is started with: it finds NVRTC where it is a package of this Python."""
    found = importlib.util.find_spec("nvidia")
    places = [lib for root in (found.submodule_search_locations or () if found else ())
              for lib in sorted(Path(root).glob("c*/lib/libnvrtc.so.1?"), reverse=True)]
    return {"BURIN_NVRTC": os.fspath(places[0]), **os.environ} if places else None


def compile(model, target="native", flags=()):
    """Compiles a path, the bytes of a model, or an onnx.ModelProto; returns a Model."""
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        if not isinstance(model, (str, os.PathLike)):
            data = model if isinstance(model, (bytes, bytearray)) else model.SerializeToString()
            model = os.path.join(folder, "model.onnx")
            Path(model).write_bytes(data)
        library = os.path.join(folder, "model.so")
        command = [compiler(), "compile", os.fspath(model), "-o", library, "--emit=shared",
                   f"--target={target}", f"--name={_abi.NAME}", *flags]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace",
                              env=_environment() if target.startswith("cuda:") else None)
        if done.returncode:
            raise CompileError(done.stderr.strip() or f"{command[0]}: status {done.returncode}", done.returncode)
        return Model(library)


class Tensor:
    """An input or output: name, dtype (numpy), shape (numbers, names of symbols, None where it is computed).
    optional: an input that may be left out; then it is default, which has the shape default_shape.
    list: None, or of a sequence or optional (kind, dtype of its tensors)."""

    def __init__(self, info, symbols, default_shape=None, list=None):
        self.default_shape, self.optional, self.list = default_shape, default_shape is not None, list
        self.name = info.name.decode()
        self.dtype = _abi.numpy_type(info.dtype)
        self.raw_dims = tuple(info.dims[i] for i in range(info.rank))
        self.shape = tuple(_dim(d, symbols) for d in self.raw_dims)
        self.text = info.shape_text.decode()

    def __repr__(self):
        return f"{self.name}: {self.text}" + (" (optional)" if self.optional else "")


def _dim(d, symbols):
    if d >= 0:
        return d
    return symbols[-1 - d] if -1 - d < len(symbols) else None


class Model:
    """A compiled model. Re-entrant: each Python thread has its own arena, all share the weights."""

    def __init__(self, library):
        self._library = ctypes.CDLL(library)
        info = getattr(self._library, _abi.NAME + "_info")
        info.restype = ctypes.POINTER(_abi.BurinModel)
        self._info = m = info().contents
        if m.abi_version != _abi.ABI_VERSION:
            raise RunError(f"the library has ABI version {m.abi_version}, not {_abi.ABI_VERSION}", 1)
        if m.weights_file:
            self._map_weights(Path(library).resolve().parent / os.fsdecode(m.weights_file))
        self.symbols = [m.symbols[i].decode() for i in range(m.n_symbols)]
        self.inputs = [Tensor(m.inputs[i], self.symbols, _abi.default_shape(m, i), _abi.list_kind(m, "input_lists", i))
                       for i in range(m.n_inputs)]
        self.outputs = [Tensor(m.outputs[i], self.symbols, None, _abi.list_kind(m, "output_lists", i)) for i in range(m.n_outputs)]
        self._lists = [(i, *t.list) for i, t in enumerate(self.outputs) if t.list]
        names = {t.name for t in self.inputs}
        self._structured = [t.name for t in self.inputs if t.list and t.list[0] != _abi.SEQUENCE] + [
            n[: -len(".keys")] for n in names if n.endswith(".keys") and n[: -len("keys")] + "values" in names]
        self.max_threads = m.max_threads
        keys = [(i, _abi.output_keys(m, i)) for i in range(m.n_outputs)]
        self._maps = [(i, k) for i, k in keys if k is not None]
        self.name, self.target = m.name.decode(), m.target.decode()
        self.on_gpu = self.target.startswith("cuda:") and self.target != "cuda:host"
        self.arena_bytes, self.arena_lower_bound = m.arena_bytes, m.arena_lower_bound
        self.weight_bytes, self.n_kernels = m.weight_bytes, m.n_kernels
        # strings and element types below a byte always take the way through _as_input
        wanted = [(i, t.name, None if _abi.is_sub_byte(t.dtype) or t.dtype == np.object_ or t.list else t.dtype) for i, t in enumerate(self.inputs)]
        self._wanted = [w for w in wanted if not self.inputs[w[0]].optional]
        self._optional = [w for w in wanted if self.inputs[w[0]].optional]
        placed = _abi.in_place(m)
        self.in_place = [x for x in placed if x[2] >= 0]
        self.over = {output: i for i, output, axis, _ in placed if axis < 0}  # outputs that are written over inputs
        placed = [x[0] for x in self.in_place]
        self._wanted = [w for w in self._wanted if w[0] not in placed]
        self._threads = threading.local()

    def _map_weights(self, path):
        status = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p)(self._info.map_weights)(os.fsencode(path))
        if status:
            text = _abi.failure_text(self._info, _abi.BurinFailure(status, -1))
            raise RunError(f"{path}: {text}", status)

    def caches(self, **sizes):
        """Memory for the inputs that lie in outputs (--cache), empty; sizes: symbols in their shapes, such as batch_size=1."""
        return Caches(self, sizes)

    def state(self):
        """The state of a training step (--train) as it begins: a mapping of arrays, which a run takes beside the data
        and changes: m.run({"x": x, "labels": y, **state})."""
        return State(self)

    def run(self, inputs, threads=1, outputs=None, caches=None):
        """inputs: {name: array}; optional ones may be missing. Returns the outputs as a list of arrays, in graph order; a list of dicts where
        ONNX has a ZipMap (one dict for each row). A sequence is a list of arrays; an optional may be None or missing; a map is a dict, or two
        arrays NAME.keys and NAME.values.

        outputs: {name: array} of results that are written there, where their sizes are known before the run; the list has
        these arrays. For a GPU both may be tensors in its memory (__cuda_array_interface__ or DLPack), used where they lie.

        An output that is written over an input (--in-place) is that input's array, which must be contiguous, of the model's type, and writable.

        caches: what caches() gave, for a model that was compiled with --cache: its inputs and outputs are there, and the run appends."""
        try:
            call = self._threads.call
        except AttributeError:
            call = self._threads.call = _Call(self)
        if self._structured:
            inputs = _plain(self, inputs)
        arrays, pointers = [], call.inputs
        for i, name, dtype in self._wanted:
            a = inputs[name] if name in inputs else _missing(self, inputs)
            if type(a) is not np.ndarray or a.dtype != dtype or not a.flags.c_contiguous:
                a = _as_input(self.inputs[i], a, self.on_gpu)
            arrays.append(a)
            pointers[i] = _address(a)
        if len(inputs) > len(arrays) or call.given:
            call.give(self._optional, inputs, arrays)
            if len(inputs) > len(arrays):
                _unknown(self, inputs)
        shapes = [a.shape for a in arrays] + call.given
        if self.in_place:
            shapes += caches.shapes() if caches else _missing(self, inputs)
        if shapes != call.shapes or threads != call.threads:
            call.prepare(shapes, threads)
        given = call.take(outputs) if outputs else {}
        taken = set(given)
        if self.over:
            given.update(_written_over(self, inputs, given))
            before = {k: a.copy() for k, a in given.items()} if _CHECK_MEMORY else None
        if self.in_place:
            given.update(caches.memory)
        made = [given[i] if i in given else np.empty(shape, dtype) for i, (shape, dtype) in enumerate(call.rooms)]
        for i, a in enumerate(made):
            call.outputs[i] = _address(a)
        status = call.invoke(*call.arguments)
        if status:
            raise call.error(status)
        results = made if call.fixed else call.trim(made)
        lists = [_abi.from_list(kind, dtype, made[i]) for i, kind, dtype in self._lists]
        if self.in_place:
            if _CHECK_MEMORY:
                caches.check_memory(call, made)
            return caches.grown(call, results)
        if _CHECK_MEMORY and self.over:
            call.check_over(made, before)
        if _CHECK_MEMORY and not given:
            for order in (_abi.BACKWARD, _abi.SHUFFLED) if self.target == "cuda:host" else (0,):
                call.check_memory(made, results, lists, order)
        for i in call.texts:
            results[i] = _abi.from_texts(results[i])
        for (i, _, _), value in zip(self._lists, lists):
            results[i] = value
        for i, keys in self._maps:
            if i not in taken:
                results[i] = _abi.Maps(keys, results[i])
        return [outputs[t.name] if i in taken else r for i, (t, r) in enumerate(zip(self.outputs, results))] if taken else results


def _plain(model, inputs):
    """With None for optionals that are missing, and maps as their keys and values."""
    plain = dict(inputs)
    names = {t.name for t in model.inputs}
    for name in model._structured:
        value = plain.get(name)
        if name in names:
            plain.setdefault(name, None)
        elif isinstance(value, dict):
            del plain[name]
            plain[f"{name}.keys"], plain[f"{name}.values"] = list(value), list(value.values())
    return plain


def _as_list(tensor, value):
    """A list of arrays, an array or None, as a BurinList."""
    kind, dtype = tensor.list
    if value is None:
        if kind == _abi.SEQUENCE:
            raise TypeError(f"input {tensor.name} is a sequence, and cannot be None")
        return _abi.to_list(kind, None)
    if kind != _abi.OPTIONAL and not isinstance(value, (list, tuple)):
        raise TypeError(f"input {tensor.name} wants {tensor.text}: a list of arrays")
    item = _Item(tensor.name, tensor.text, dtype)
    arrays = [_as_input(item, v, False) for v in (value if kind != _abi.OPTIONAL else [value])]
    return _abi.to_list(kind, [(a, _abi.onnx_type(dtype)) for a in arrays])


class _Item:
    """A tensor of a list, for _as_input."""

    list = None

    def __init__(self, name, text, dtype):
        self.name, self.text, self.dtype = name, text, dtype


def _missing(model, inputs):
    names = [t.name for t in model.inputs]
    missing = [t.name for t in model.inputs if t.name not in inputs and not t.optional]
    raise ValueError(f"inputs missing: {missing}; the model takes {names}")


def _written_over(model, inputs, given):
    """The arrays of inputs that outputs are written over, by position of the output."""
    over = {}
    for output, i in model.over.items():
        tensor, a = model.inputs[i], inputs[model.inputs[i].name]
        if type(a) is not np.ndarray or a.dtype != tensor.dtype or not (a.flags.c_contiguous and a.flags.writeable):
            raise TypeError(f"input {tensor.name}, which is written over, needs an array of {tensor.text} that is contiguous and can be written")
        if output in given and _address(given[output]) != _address(a):
            raise ValueError(f"output {model.outputs[output].name} is written over input {tensor.name}, and cannot be elsewhere")
        over[output] = a
    return over


def _unknown(model, inputs):
    """What nobody reads must not be given in the belief that it counts."""
    names = [t.name for t in model.inputs]
    raise ValueError(f"no such inputs: {[n for n in inputs if n not in names]}; the model takes {names}")


def _address(a):
    return a.address if type(a) is DeviceTensor else a.ctypes.data


def _as_device_tensor(tensor, value, on_gpu):
    """value as a DeviceTensor that can stand for the tensor, or None where it is no tensor on a GPU."""
    a = on_device(value)
    if a is None:
        return None
    if not on_gpu:
        raise TypeError(f"{tensor.name} is in a GPU's memory, and the model is not for a GPU")
    want = _abi.byte_type(tensor.dtype) if _abi.is_sub_byte(tensor.dtype) else tensor.dtype
    if a.dtype != want:
        raise TypeError(f"{tensor.name} is {tensor.text}, not {a.dtype}")
    return a


def _as_input(tensor, value, on_gpu):
    if (there := _as_device_tensor(tensor, value, on_gpu)) is not None:
        return there
    if tensor.list:
        return _as_list(tensor, value)
    if tensor.dtype == np.object_:
        return _abi.to_texts(np.asarray(value, np.object_))
    a = np.asarray(value)
    if _abi.is_sub_byte(tensor.dtype):  # the C ABI has them sign-extended, one in a byte
        return np.require(a.astype(_abi.byte_type(tensor.dtype)), requirements="C")
    if a.dtype != tensor.dtype:
        if isinstance(value, np.ndarray) and not _abi.same_bits(a.dtype, tensor.dtype):
            raise TypeError(f"input {tensor.name} wants {tensor.text}, not {a.dtype}")
        a = a.view(tensor.dtype) if _abi.same_bits(a.dtype, tensor.dtype) else a.astype(tensor.dtype)
    return np.require(a, requirements="C")


class _Call:
    """What one Python thread needs to call a model, kept between calls."""

    def __init__(self, model):
        info = model._info
        self.model = model
        self.inputs = (ctypes.c_void_p * max(1, info.n_inputs))()
        self.outputs = (ctypes.c_void_p * max(1, info.n_outputs))()
        self.dims = (ctypes.c_int64 * max(1, info.n_symbols))()
        self.failure = _abi.BurinFailure()
        self.invoke = _abi.invoke_function(info)
        self.given = []  # positions of the optional inputs that are given
        self.texts = [i for i, t in enumerate(model.outputs) if t.dtype == np.object_]
        self.heap = _abi.new_heap(self) if _abi.uses_heap(info) else None
        self.in_heap = set(_abi.heap_outputs(info))  # a run says where they lie
        self.fixed = info.n_symbols == info.n_caller_symbols
        self.shapes = self.threads = self.arena = self.results = self.arguments = self.options = None
        self.arena_bytes = -1

    def give(self, optional, inputs, arrays):
        """Takes the optional inputs that are there; the others are NULL."""
        self.given = []
        for i, name, dtype in optional:
            self.inputs[i] = None
            if name not in inputs:
                continue
            a = inputs[name]
            if type(a) is not np.ndarray or a.dtype != dtype or not a.flags.c_contiguous:
                a = _as_input(self.model.inputs[i], a, self.model.on_gpu)
            arrays.append(a)
            self.inputs[i] = _address(a)
            self.given.append(i)

    def take(self, outputs):
        """{position: array or DeviceTensor} of the caller's outputs."""
        taken, positions = {}, {t.name: i for i, t in enumerate(self.model.outputs)}
        for name, value in outputs.items():
            if name not in positions:
                raise ValueError(f"no such output: {name}; the model has {list(positions)}")
            i = positions[name]
            tensor, (shape, dtype) = self.model.outputs[i], self.results[i]
            if not self.fixed and any(-1 - d >= self.model._info.n_caller_symbols for d in tensor.raw_dims):
                raise ValueError(f"output {name} has sizes that only the run gives: {tensor.text}")
            a = _as_device_tensor(tensor, value, self.model.on_gpu)
            if a is None:
                a = value
                if type(a) is not np.ndarray or a.dtype != dtype or not (a.flags.c_contiguous and a.flags.writeable):
                    raise TypeError(f"output {name} needs an array of {tensor.text} that is contiguous and can be written")
            elif a.readonly:
                raise TypeError(f"output {name} cannot be written")
            if a.shape != shape:
                raise ValueError(f"output {name} has the shape {shape}, not {a.shape}")
            taken[i] = a
        return taken

    def prepare(self, shapes, threads):
        self.shapes = None  # stays so when this fails
        self._bind(shapes)
        self._use_threads(threads)
        self._check_sizes()
        self._reserve(self.model._info.arena_size(self.dims, self.options.threads))
        outputs = self.model.outputs
        self.results = [(self._output_shape(k, True), np.uintp if t.dtype == np.object_ else t.dtype)
                        for k, t in enumerate(outputs)]
        self.rooms = [((), np.uintp) if k in self.in_heap else r for k, r in enumerate(self.results)]
        self.arguments = (ctypes.addressof(self.inputs), ctypes.addressof(self.outputs),
                          ctypes.addressof(self.dims), self.arena, ctypes.addressof(self.options))
        self.shapes, self.threads = shapes, threads

    def check_over(self, made, before):
        """Runs again with what inputs held that were written over, on memory full of ones: every byte must be as it was."""
        first = [a.copy() for a in made]
        ctypes.memset(self.arena, 0xFF, self.arena_bytes)
        for k, a in enumerate(made):
            if k in before:
                a[...] = before[k]
            else:
                ctypes.memset(a.ctypes.data, 0xFF, a.nbytes)
        status = self.invoke(*self.arguments)
        if status or any(a.tobytes() != b.tobytes() for a, b in zip(made, first)):
            raise RuntimeError(f"a run in place depends on what memory held before it (a bug of burin; status {status})")

    def _check_sizes(self):
        """Asks the model before anything is allocated for sizes that it refuses: a call without results."""
        ctypes.memset(self.outputs, 0, ctypes.sizeof(self.outputs))
        status = self.invoke(ctypes.addressof(self.inputs), ctypes.addressof(self.outputs), ctypes.addressof(self.dims),
                             None, ctypes.addressof(self.options))
        if status == _abi.E_DIMS:
            raise self.error(status)

    def error(self, status):
        info, failure = self.model._info, self.failure
        node = info.checks[failure.check].node if 0 <= failure.check < info.n_checks else None
        return RunError(f"the run failed: {_abi.failure_text(info, failure)}", status, node and node.decode(errors="replace"),
                        tuple(failure.values))

    def _bind(self, shapes):
        known, inputs = {}, self.model.inputs
        given = [inputs[w[0]] for w in self.model._wanted] + [inputs[i] for i in self.given] + [inputs[x[0]] for x in self.model.in_place]
        for tensor, shape in zip(given, shapes):
            if len(shape) != len(tensor.raw_dims):
                raise ValueError(f"input {tensor.name} wants {tensor.text}, not the shape {shape}")
            for want, size in zip(tensor.raw_dims, shape):
                k = -1 - want
                if want >= 0 and want != size or 0 <= k < len(self.model.symbols) and known.setdefault(k, size) != size:
                    raise ValueError(f"input {tensor.name} wants {tensor.text}, not the shape {shape}")
        for tensor in inputs:  # what no given input says is as the default has it
            if tensor.optional and tensor not in given:
                for want, size in zip(tensor.raw_dims, tensor.default_shape):
                    known.setdefault(-1 - want, size)
        for k in range(len(self.dims)):
            self.dims[k] = known.get(k, 0)

    def _use_threads(self, threads):
        self.options = _abi.pool_options(min(threads, self.model.max_threads))
        self.options.failure = ctypes.pointer(self.failure)
        if self.heap is not None:
            self.options.heap = ctypes.addressof(self.heap)

    def _reserve(self, size):
        if size > self.arena_bytes:
            align = max(64, self.model._info.arena_align)
            self.arena_block = np.empty(size + align, np.uint8)
            self.arena = -(-self.arena_block.ctypes.data // align) * align
            self.arena_bytes = size
        self.options.arena_bytes = self.arena_bytes

    def check_memory(self, outputs, results, lists, order):
        """Runs again on memory full of ones, cuda:host with its blocks in another order: the results must have the same bits."""
        ctypes.memset(self.arena, 0xFF, self.arena_bytes)
        if self.heap is not None:
            _abi.fill_heap(self.heap)
        self.options.gpu_order = order
        again = [np.full(a.nbytes, 0xFF, np.uint8).view(a.dtype).reshape(a.shape) for a in outputs]
        for i, a in enumerate(again):
            self.outputs[i] = a.ctypes.data
        status = self.invoke(*self.arguments)
        self.options.gpu_order = 0
        again = again if self.fixed else self.trim(again)
        for (i, kind, dtype), first in zip(self.model._lists, lists):
            if status or not _abi.same_list(first, _abi.from_list(kind, dtype, again[i])):
                raise RunError(f"{self.model.outputs[i].name} depends on what memory held before the run (a bug of burin)", status)
        for tensor, a, b in zip(self.model.outputs, results, again):
            if tensor.list and not status:
                continue
            if status or a.shape != b.shape or a.tobytes() != b.tobytes():
                raise RunError(f"{tensor.name} depends on what memory held before the run, or on the order of blocks (a bug of burin)", status)

    def _output_shape(self, k, bounds):
        rank = len(self.model.outputs[k].raw_dims)
        out = (ctypes.c_int64 * max(1, rank))()
        self.model._info.output_dims(k, self.dims, out, int(bounds))
        return tuple(max(0, d) for d in out[:rank])  # the model itself refuses sizes below 0

    def trim(self, outputs):
        """Outputs whose sizes the data decided: they lie at the front of their buffers, or in the heap."""
        shapes = [self._output_shape(k, False) for k in range(len(outputs))]
        if self.in_heap:
            outputs = [_abi.copied(a, s, self.results[k][1]) if k in self.in_heap else a
                       for k, (a, s) in enumerate(zip(outputs, shapes))]
        return [a.reshape(-1)[: int(np.prod(s))].reshape(s) if a.shape != s else a for a, s in zip(outputs, shapes)]


def __getattr__(name):  # burin.backend needs onnx, the rest does not
    if name != "backend":
        raise AttributeError(f"module 'burin' has no attribute {name!r}")
    from importlib import import_module
    globals()["backend"] = import_module("burin.backend").Backend
    return globals()["backend"]
