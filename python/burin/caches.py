"""Memory of caches in place: inputs of a model that lie in outputs, with room to grow (--cache)."""
import ctypes

import numpy as np


class Caches:
    """length: how many elements they hold along the axis that grows (tokens of a decoder); it may be set to a smaller one, as to begin
    again with 0. One run at a time may use them."""

    def __init__(self, model, sizes):
        self.model, self.memory, self._axes, self._lengths = model, {}, {}, {}
        if not model.in_place:
            raise ValueError("the model has no caches in place; compile it with --cache=N")
        for k, output, axis, room in model.in_place:
            tensor = model.inputs[k]
            dims = [room if d == axis else _size(tensor, d, sizes) for d in range(len(tensor.shape))]
            self.memory[output] = np.zeros(dims, tensor.dtype)
            self._axes[output], self._lengths[output] = axis, 0

    @property
    def length(self):
        return max(self._lengths.values())

    @length.setter
    def length(self, length):
        if not 0 <= length <= min(self._lengths.values()):
            raise ValueError(f"caches that hold {self.length} cannot be cut to {length}")
        self._lengths = dict.fromkeys(self._lengths, length)

    def shapes(self):
        """Of the inputs that lie in them."""
        return [tuple(self._lengths[j] if d == axis else n for d, n in enumerate(self.memory[j].shape)) for _, j, axis, _ in self.model.in_place]

    def view(self, output, length):
        """The first elements of an output's memory."""
        return self.memory[output].swapaxes(0, self._axes[output])[:length].swapaxes(0, self._axes[output])

    def check_memory(self, call, made):
        """Runs again on memory full of ones, what the run appended too: every byte must be as it was."""
        first = [a.copy() for a in made]
        ctypes.memset(call.arena, 0xFF, call.arena_bytes)
        for k, a in enumerate(made):
            if k not in self.memory:
                ctypes.memset(a.ctypes.data, 0xFF, a.nbytes)
                continue
            axis, length = self._axes[k], call._output_shape(k, False)[self._axes[k]]
            new = a.swapaxes(0, axis)[self._lengths[k]:length]
            new[...] = np.nan if new.dtype.kind == "f" else -1 if new.dtype.kind == "i" else 1
        status = call.invoke(*call.arguments)
        if status or any(a.tobytes() != b.tobytes() for a, b in zip(made, first)):
            raise RuntimeError(f"a run with caches depends on what memory held before it (a bug of burin; status {status})")

    def grown(self, call, results):
        """After a run: takes the new lengths. The run's results, those of caches as views of them."""
        for j, axis in self._axes.items():
            self._lengths[j] = call._output_shape(j, False)[axis]
        return [self.view(j, self._lengths[j]) if j in self.memory else r for j, r in enumerate(results)]


def _size(tensor, d, sizes):
    size = tensor.shape[d]
    if isinstance(size, int):
        return size
    if size not in sizes:
        raise ValueError(f"{tensor.name} is {tensor.text}: caches() needs {size}=…")
    return sizes[size]
