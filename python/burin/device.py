"""Tensors in a GPU's memory that belong to others: by __cuda_array_interface__ or by DLPack (its C structs, dlpack.h)."""
import ctypes

import numpy as np

from . import _abi

_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13
_LEGACY_STREAM = 1  # both protocols' name of the default stream, which runs are ordered behind
_CODES = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


class DeviceTensor:
    """Where a tensor lies on a GPU. owner keeps it alive."""

    def __init__(self, address, shape, dtype, owner, readonly=False):
        self.address, self.shape, self.dtype, self.owner, self.readonly = address, tuple(shape), dtype, owner, readonly


class _Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def on_device(value):
    """The DeviceTensor of a value that lies on a GPU, or None."""
    if type(value) is np.ndarray:
        return None
    if (interface := getattr(value, "__cuda_array_interface__", None)) is not None:
        return _by_interface(interface, value)
    ask = getattr(value, "__dlpack_device__", None)
    if ask is None or int(ask()[0]) not in (_CUDA, _CUDA_MANAGED):
        return None
    return _by_dlpack(value.__dlpack__(stream=_LEGACY_STREAM))


def _check_order(shape, strides):
    """Strides in elements: only a tensor in C order can be passed as it is."""
    step = 1
    for size, stride in reversed(list(zip(shape, strides))):
        if size != 1 and stride != step and 0 not in shape:
            raise ValueError("a tensor on a GPU must be contiguous, in C order")
        step *= size


def _by_interface(interface, owner):
    shape, dtype = interface["shape"], np.dtype(interface["typestr"])
    if interface.get("mask") is not None:
        raise TypeError("a tensor on a GPU with a mask cannot be passed")
    if interface.get("strides") is not None:
        _check_order(shape, [s / dtype.itemsize for s in interface["strides"]])
    address, readonly = interface["data"]
    return DeviceTensor(address or None, shape, dtype, owner, readonly)


def _by_dlpack(capsule):
    """The capsule stays as it is: when it goes, its deleter frees what it holds."""
    t = _Tensor.from_address(_capsule_pointer(capsule, b"dltensor"))
    if t.lanes != 1 or t.code not in _CODES:
        raise TypeError(f"a tensor on a GPU of DLPack's type {t.code}, {t.bits} bits, {t.lanes} lanes cannot be passed")
    shape = t.shape[:t.ndim]
    if t.strides:
        _check_order(shape, t.strides[:t.ndim])
    name = {"bfloat": "bfloat16", "bool": "bool"}.get(_CODES[t.code], f"{_CODES[t.code]}{t.bits}")
    dtype = _abi.numpy_type(16) if name == "bfloat16" else np.dtype(name)
    return DeviceTensor((t.data or 0) + t.byte_offset or None, shape, dtype, capsule)
