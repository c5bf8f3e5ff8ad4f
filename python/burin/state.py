"""The state of a training step: parameters, running statistics and moments in one buffer."""
import ctypes
from collections.abc import Mapping

import numpy as np

from . import _abi


class State(Mapping):
    """By name of the model's input, an array of the buffer. kinds: what each is (parameter, statistic, moment, gradient,
    counter, scale); bytes: the whole, aligned to 64, in the layout of the C header."""

    def __init__(self, model):
        items, size = _abi.state(model._info)
        if not items:
            raise ValueError("the model is no training step: compile it with --train")
        room = np.zeros(size + 64, np.uint8)
        skip = -room.ctypes.data % 64
        self.bytes = room[skip : skip + size]
        self.kinds, self._arrays = {}, {}
        for x in items:
            tensor = model.inputs[x.input]
            place = self.bytes[x.offset : x.offset + x.bytes]
            if x.initial:
                place[:] = np.ctypeslib.as_array(ctypes.cast(x.initial, ctypes.POINTER(ctypes.c_uint8)), (x.bytes,))
            self._arrays[tensor.name] = place.view(tensor.dtype).reshape(tensor.shape)
            self.kinds[tensor.name] = _abi.STATE_KINDS[x.kind]

    def __getitem__(self, name):
        return self._arrays[name]

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self):
        return len(self._arrays)
