"""runtime/abi.h for ctypes: the structs, element types, and the thread pool that runs of several threads use."""
import collections
import ctypes
import os
import sys
import threading
import weakref
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path

import numpy as np

ABI_VERSION = 1
E_DIMS = 2
BACKWARD, SHUFFLED = 1, 2  # BurinOptions.gpu_order
NAME = "burin_model"  # --name of every compiled library

class BurinFailure(ctypes.Structure):
    _fields_ = [("status", c_int32), ("check", c_int32), ("values", c_int64 * 3)]


class BurinOptions(ctypes.Structure):
    _fields_ = [("size", c_uint32), ("threads", c_int32), ("parallel_for", c_void_p), ("user", c_void_p),
                ("kernel_ns", c_void_p), ("clock_ns", c_void_p), ("kernel_flops", c_void_p),
                ("parallel_ranges", c_void_p),
                ("arena_bytes", c_uint64), ("failure", POINTER(BurinFailure)),
                ("device", c_void_p), ("stream", c_void_p), ("gpu_order", c_int32),
                ("gpu_resident", c_int32), ("kernel_work", c_void_p),
                ("heap", c_void_p)]


class BurinHeap(ctypes.Structure):
    _fields_ = [("grow", c_void_p), ("user", c_void_p), ("blocks", c_void_p), ("current", c_void_p), ("used", c_uint64),
                ("strings", c_void_p)]


class BurinTensorInfo(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("dtype", c_int32), ("rank", c_int32), ("dims", POINTER(c_int64)),
                ("shape_text", c_char_p), ("scale", c_float), ("zero_point", c_int32)]


class BurinKernelInfo(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("nodes", c_char_p), ("flops", c_int64)]


class BurinCheckInfo(ctypes.Structure):
    _fields_ = [("text", c_char_p), ("node", c_char_p), ("status", c_int32)]


class BurinDefault(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("dims", POINTER(c_int64)), ("pinned_bytes", c_uint64)]


class BurinKeys(ctypes.Structure):
    _fields_ = [("count", c_int64), ("ints", POINTER(c_int64)), ("texts", POINTER(c_char_p))]


class BurinInPlace(ctypes.Structure):
    _fields_ = [("input", c_int32), ("output", c_int32), ("axis", c_int32), ("room", c_int64)]


class BurinItem(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("dtype", c_int32), ("rank", c_int32), ("dims", POINTER(c_int64))]


class BurinList(ctypes.Structure):
    _fields_ = [("count", c_int64), ("items", POINTER(BurinItem))]


class BurinListInfo(ctypes.Structure):
    _fields_ = [("kind", c_int32), ("dtype", c_int32), ("rank", c_int32), ("dims", POINTER(c_int64))]


class BurinStateInfo(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("kind", c_int32), ("input", c_int32), ("output", c_int32),
                ("offset", c_uint64), ("bytes", c_uint64), ("initial", c_void_p)]


STATE_KINDS = ("parameter", "statistic", "moment", "gradient", "counter", "scale")


class BurinModel(ctypes.Structure):
    _fields_ = [
        ("abi_version", c_uint32), ("size", c_uint32),
        ("name", c_char_p), ("producer", c_char_p), ("target", c_char_p), ("flags", c_char_p), ("model_hash", c_char_p),
        ("n_inputs", c_int32), ("n_outputs", c_int32), ("n_symbols", c_int32), ("n_caller_symbols", c_int32),
        ("inputs", POINTER(BurinTensorInfo)), ("outputs", POINTER(BurinTensorInfo)), ("symbols", POINTER(c_char_p)),
        ("arena_bytes", c_uint64), ("thread_bytes", c_uint64), ("arena_align", c_uint32), ("max_threads", c_int32),
        ("weight_bytes", c_uint64), ("arena_lower_bound", c_uint64),
        ("n_kernels", c_int32), ("kernels", POINTER(BurinKernelInfo)), ("cpu_features", c_uint64),
        ("invoke", c_void_p),
        ("arena_size", ctypes.CFUNCTYPE(c_uint64, POINTER(c_int64), c_int32)),
        ("output_dims", ctypes.CFUNCTYPE(None, c_int32, POINTER(c_int64), POINTER(c_int64), c_int32)),
        ("weights", c_void_p), ("weights_file", c_char_p), ("weights_hash", c_uint64), ("map_weights", c_void_p),
        ("n_checks", c_int32), ("checks", POINTER(BurinCheckInfo)),
        ("failure_text", ctypes.CFUNCTYPE(c_int32, POINTER(BurinFailure), c_char_p, c_int32)),
        ("defaults", POINTER(BurinDefault)), ("uses_heap", c_int32), ("output_keys", POINTER(BurinKeys)),
        ("in_place", POINTER(BurinInPlace)), ("n_in_place", c_int32),
        ("heap_outputs", POINTER(ctypes.c_uint8)),
        ("input_lists", POINTER(BurinListInfo)), ("output_lists", POINTER(BurinListInfo)),
        ("state", POINTER(BurinStateInfo)), ("n_state", c_int32), ("state_bytes", c_uint64),
    ]


def default_shape(info, k):
    """The shape of what input k is when none is given; None: it must be given."""
    if info.size <= BurinModel.defaults.offset or not info.defaults or not info.defaults[k].data:
        return None
    return tuple(info.defaults[k].dims[i] for i in range(info.inputs[k].rank))


def in_place(info):
    """(input, output, axis, room) of each cache in place."""
    if info.size <= BurinModel.n_in_place.offset:
        return []
    return [(x.input, x.output, x.axis, x.room) for x in info.in_place[: info.n_in_place]]


def state(info):
    """The tensors of a training step's state (BurinStateInfo), and the bytes of all."""
    if info.size <= BurinModel.state_bytes.offset:
        return [], 0
    return info.state[: info.n_state], info.state_bytes


def failure_text(info, failure):
    """Why a run failed, in words."""
    size = info.failure_text(failure, None, 0) + 1
    text = ctypes.create_string_buffer(size)
    info.failure_text(failure, text, size)
    return text.value.decode(errors="replace")


def invoke_function(info):
    """The model's invoke, with plain addresses as arguments: the cheapest call that ctypes has."""
    return ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)(info.invoke)


_NUMPY = {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 8: np.object_,
          9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64, 14: np.complex64,
          15: np.complex128}
_ML_DTYPES = {16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz",
              21: "uint4", 22: "int4", 23: "float4_e2m1fn", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2"}


def numpy_type(onnx_type):
    """numpy's type for a TensorProto.DataType; ml_dtypes supplies those that numpy lacks."""
    if onnx_type in _NUMPY:
        return np.dtype(_NUMPY[onnx_type])
    import ml_dtypes
    return np.dtype(getattr(ml_dtypes, _ML_DTYPES[onnx_type]))


def onnx_type(dtype):
    """The TensorProto.DataType of a numpy type."""
    known = {np.dtype(t): k for k, t in _NUMPY.items()}
    return known[dtype] if dtype in known else next(k for k, name in _ML_DTYPES.items() if name == dtype.name)


def is_sub_byte(dtype):
    return dtype.name in ("int4", "uint4", "int2", "uint2")


def byte_type(dtype):
    return np.uint8 if dtype.name.startswith("u") else np.int8


def same_bits(a, b):
    """May an array of type a be taken as b? For files of types that numpy stores as raw bytes."""
    return a.kind == "V" and a.itemsize == b.itemsize and a.names is None


_pools = {}  # by number of threads: options of the pools there are
_pools_lock = threading.Lock()
_mine = threading.local()


def _host():
    """libburin_host, beside the compiler."""
    from . import compiler
    return ctypes.CDLL(str(Path(compiler()).resolve().parent / "libburin_host.so"))


def new_heap(owner):
    """A heap for the runs of one thread, which ends with its owner."""
    host = _host()
    heap = BurinHeap(grow=ctypes.cast(host.burin_heap_malloc, c_void_p))
    weakref.finalize(owner, host.burin_heap_free, ctypes.byref(heap))
    return heap


def fill_heap(heap):
    """All ones: what a run reads there, it wrote before."""
    at, header = heap.blocks, 2 * ctypes.sizeof(c_uint64)
    while at:
        following, size = (c_uint64 * 2).from_address(at)
        ctypes.memset(at + header, 0xFF, size - header)
        at = following


def output_keys(info, k):
    """Labels of what is a list of maps in ONNX, else None."""
    if info.size <= BurinModel.output_keys.offset or not info.output_keys or not info.output_keys[k].count:
        return None
    keys = info.output_keys[k]
    return [keys.ints[i] if keys.ints else keys.texts[i].decode(errors="replace") for i in range(keys.count)]


class Maps(list):
    """A list of dicts, as ONNX Runtime gives ZipMap's result; an array of it is the tensor of their values."""

    def __init__(self, keys, rows):
        super().__init__(dict(zip(keys, row)) for row in np.atleast_2d(rows).tolist())
        self.rows = rows

    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, dtype=dtype)


def heap_outputs(info):
    """Positions of the outputs without a largest size."""
    if info.size <= BurinModel.heap_outputs.offset or not info.heap_outputs:
        return []
    return [i for i in range(info.n_outputs) if info.heap_outputs[i]]


def copied(address, shape, dtype):
    """An array of its own of what lies at an address."""
    result = np.empty(shape, dtype)
    if result.nbytes:
        ctypes.memmove(result.ctypes.data, int(address), result.nbytes)
    return result


NO_LIST, SEQUENCE, OPTIONAL, OPTIONAL_SEQUENCE = range(4)  # BurinListInfo.kind


def list_kind(info, field, k):
    """(kind, numpy type of the items) of input_lists or output_lists; None: it is a tensor."""
    if info.size <= BurinModel.output_lists.offset or not getattr(info, field):
        return None
    of = getattr(info, field)[k]
    return None if of.kind == NO_LIST else (of.kind, numpy_type(of.dtype))


class List(np.ndarray):
    """A BurinList (two numbers), with what it points to."""

    held = None


def to_list(kind, arrays):
    """Arrays of one type, as the C ABI has it, or None, as a BurinList."""
    result = np.array([-1, 0], np.int64).view(List)
    if arrays is None:
        return result
    items = (BurinItem * max(1, len(arrays)))()
    for item, (a, onnx_type) in zip(items, arrays):
        item.data, item.dtype, item.rank = a.ctypes.data, onnx_type, a.ndim
        item.dims = (c_int64 * max(1, a.ndim))(*a.shape)
    result[:] = len(arrays), ctypes.addressof(items)
    result.held = items, arrays
    return result


def from_list(kind, dtype, pair):
    """What a run left in a BurinList: a list of arrays, an array, or None."""
    count, address = pair.tolist()
    if count < 0:
        return None
    items = (BurinItem * count).from_address(address) if count else ()
    arrays = []
    for item in items:
        shape = tuple(item.dims[d] for d in range(item.rank))
        a = copied(item.data, shape, np.uintp if dtype == np.object_ else dtype)
        arrays.append(from_texts(a) if dtype == np.object_ else a)
    return arrays[0] if kind == OPTIONAL else arrays


def same_list(a, b):
    """Do two results of from_list have the same bits?"""
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same_list, a, b))
    if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape:
        return a is b
    return a.tolist() == b.tolist() if a.dtype == np.object_ else a.tobytes() == b.tobytes()


def uses_heap(info):
    return info.size > BurinModel.uses_heap.offset and info.uses_heap != 0


class Texts(np.ndarray):
    """Addresses of strings, which `text` holds."""

    text = None


def to_texts(value):
    """An array of str as the C ABI takes it: addresses of UTF-8 that ends with a 0."""
    items = [v if isinstance(v, bytes) else str(v).encode() for v in value.ravel()]
    if any(b"\0" in v for v in items):
        raise ValueError("a string holds a NUL character")
    ends = np.cumsum([0] + [len(v) + 1 for v in items])[:-1]
    text = np.frombuffer(b"\0".join(items) + b"\0", np.uint8)
    texts = (ends.astype(np.uintp) + np.uintp(text.ctypes.data)).reshape(value.shape).view(Texts)
    texts.text = text
    return texts


def from_texts(addresses):
    """An array of str from addresses."""
    result = np.empty(addresses.shape, np.object_)
    flat = result.reshape(-1)
    for i, address in enumerate(addresses.reshape(-1).tolist()):
        flat[i] = sys.intern(ctypes.string_at(address).decode(errors="replace"))
    return result


def _new_pool(threads):
    """Options of a new pool, which lives as long as the process."""
    host = _host()
    host.burin_pool_new.restype = c_void_p
    host.burin_pool_options.restype = BurinOptions
    host.burin_pool_options.argtypes = [c_void_p]
    return host.burin_pool_options(host.burin_pool_new(threads))


def pool_options(threads):
    """Options for runs on so many threads (fewer where the system refuses them) by this thread of Python, which keeps its
    pool. There are as many pools as the machine has cores for; when they are shared, nobody waits for a turn."""
    if threads <= 1:
        return BurinOptions(size=ctypes.sizeof(BurinOptions), threads=1)
    mine = _mine.__dict__.setdefault("pools", {})
    if threads not in mine:
        with _pools_lock:
            pools = _pools.setdefault(threads, collections.deque())
            if len(pools) < max(1, len(os.sched_getaffinity(0)) // threads):
                pools.append(_new_pool(threads))
            pools.rotate(1)
            mine[threads] = pools[0]
    return BurinOptions.from_buffer_copy(mine[threads])
