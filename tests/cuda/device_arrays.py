"""Inputs and outputs in a GPU's memory from Python, on the fake driver: device_arrays.py MODEL X.npy Y.npy CHAIN."""
import ctypes
import os
import sys

import numpy as np

import burin

UPLOADED = 3  # of fake.h: bytes that came from the host
cuda = ctypes.CDLL("libcuda.so.1")


def must(result):
    assert result == 0, f"the driver says {result}"


class Block:
    """n bytes on the GPU."""

    def __init__(self, n):
        self.address = ctypes.c_uint64()
        must(cuda.cuMemAlloc_v2(ctypes.byref(self.address), ctypes.c_size_t(n)))

    def write(self, a):
        must(cuda.cuMemcpyHtoD_v2(self.address, ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(a.nbytes)))

    def read(self, like):
        a, stream = np.empty_like(like), ctypes.c_void_p(1)
        must(cuda.cuMemcpyDtoHAsync_v2(ctypes.c_void_p(a.ctypes.data), self.address, ctypes.c_size_t(a.nbytes), stream))
        must(cuda.cuStreamSynchronize(stream))
        return a


class Interface:
    def __init__(self, block, shape, typestr="<f4", strides=None, readonly=False):
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (block.address.value, readonly),
                                         "version": 3, "strides": strides}


class Dlpack:
    """What exports a DLManagedTensor: the capsule's name is what says that nobody has taken it."""

    class Managed(ctypes.Structure):
        _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                    ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                    ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
                    ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]

    def __init__(self, block, shape, offset=0, strides=None):
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.strides = strides and (ctypes.c_int64 * len(shape))(*strides)
        self.tensor = self.Managed(block.address.value, 2, 0, len(shape), 2, 32, 1, ctypes.addressof(self.shape),
                                   ctypes.addressof(self.strides) if strides else None, offset)

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream=None):
        assert stream == 1, "the default stream is the one that runs follow"
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


def refused(error, text, call):
    try:
        call()
    except error as e:
        assert text in str(e), str(e)
        return
    raise AssertionError(f"nobody said {text}")


def context():
    device, c = ctypes.c_int32(), ctypes.c_void_p()
    must(cuda.cuInit(0))
    must(cuda.cuDeviceGet(ctypes.byref(device), 0))
    must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(c), device))
    must(cuda.cuCtxPushCurrent_v2(c))


def main(path, x, y, chain):
    x, y = np.load(x), np.load(y)
    context()
    os.environ.pop("LD_LIBRARY_PATH")  # NVRTC asks the driver things that the fake one does not know
    m = burin.compile(path, target="cuda:sm_86")
    np.testing.assert_allclose(m.run({"x": x})[0], y, rtol=1e-5)
    source, result = Block(x.nbytes + 256), Block(y.nbytes)
    source.write(x)
    np.testing.assert_allclose(m.run({"x": Interface(source, x.shape)})[0], y, rtol=1e-5)
    for given in (Interface(source, x.shape, strides=(28, 4)), Dlpack(source, x.shape), Dlpack(source, x.shape, strides=(7, 1))):
        result.write(np.zeros_like(y))
        sent = cuda.fake_cuda_count(UPLOADED)
        for target in (Interface(result, y.shape), Dlpack(result, y.shape)):
            assert m.run({"x": given}, outputs={"y": target})[0] is target
        np.testing.assert_allclose(result.read(y), y, rtol=1e-5)
        assert cuda.fake_cuda_count(UPLOADED) == sent, "an input was copied"
    here = np.zeros_like(y)
    assert m.run({"x": Dlpack(source, (299, 7), offset=28)}, outputs={"y": here[1:]})[0].base is here
    np.testing.assert_allclose(here[1:], y[1:], rtol=1e-5)
    # not aligned as kernels have it: copied there, and back
    odd = Block(y.nbytes + 4)
    m.run({"x": Dlpack(source, (299, 7), offset=28)}, outputs={"y": Dlpack(odd, (299, 7), offset=4)})
    np.testing.assert_allclose(odd.read(np.zeros(y.size + 1, np.float32))[1:-7].reshape(299, 7), y[1:], rtol=1e-5)
    refused(TypeError, "not float64", lambda: m.run({"x": Interface(source, x.shape, "<f8")}))
    refused(ValueError, "contiguous", lambda: m.run({"x": Dlpack(source, x.shape, strides=(1, 300))}))
    refused(ValueError, "not the shape", lambda: m.run({"x": Interface(source, (300, 8))}))
    refused(ValueError, "has the shape", lambda: m.run({"x": x}, outputs={"y": Interface(result, (1, 7))}))
    refused(TypeError, "cannot be written", lambda: m.run({"x": x}, outputs={"y": Interface(result, y.shape, readonly=True)}))
    refused(ValueError, "no such output", lambda: m.run({"x": x}, outputs={"z": here}))
    host = burin.compile(path, target="cuda:host")
    refused(TypeError, "not for a GPU", lambda: host.run({"x": Interface(source, x.shape)}))
    flat = burin.compile(chain, target="cuda:host")  # by 16 bytes
    for offset in range(4):
        a, b = np.random.default_rng(offset).normal(size=40008).astype(np.float32), np.zeros(40008, np.float32)
        a, b = a[offset:offset + 40005].reshape(-1, 7), b[3 - offset:40008 - offset].reshape(-1, 7)
        assert flat.run({"x": a}, outputs={"y": b})[0] is b
        np.testing.assert_allclose(b, np.exp(a), rtol=1e-5)


main(*sys.argv[1:])
