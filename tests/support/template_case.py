"""One case of run_templates.py, and the epilogues that it may have.

A case has inputs ({name: shapes, one for each of TRIALS runs}), nodes, constants, and oracle(feeds).
"""
import numpy as np
from onnx import helper, numpy_helper

TRIALS = 3


class Case:
    def __init__(self, rng, tag, dtype=np.float32):
        self.rng, self.tag, self.dtype = rng, tag, np.dtype(dtype)
        self.nodes, self.constants, self.inputs = [], [], {}
        self.types = {}  # of inputs that are not of dtype
        self.title = ""
        self.slack = 1.0  # 2 for Winograd: its transformations cost a bit
        self.steps = []  # functions on {name: array of float64}
        self.n = 0

    def name(self, stem):
        self.n += 1
        return f"{self.tag}_{stem}{self.n}"

    def input(self, shapes):
        """shapes: one shape, or one for every trial."""
        name = self.name("x")
        self.inputs[name] = shapes if isinstance(shapes, list) else [tuple(shapes)] * TRIALS
        return name

    def constant(self, array):
        name = self.name("c")
        array = np.asarray(array)
        stored = array.astype(self.dtype) if array.dtype.kind == "f" else array
        self.constants.append(numpy_helper.from_array(np.array(stored, order="C"), name))
        self.steps.append(lambda v: v.__setitem__(name, stored.astype(np.float64)))
        return name

    def weights(self, *shape, scale=1.0, computed=False):
        """Constant, or an input of the model: packed at run time."""
        return self.input(shape) if computed else self.constant(self.rng.standard_normal(shape) * scale)

    def node(self, op, inputs, function, **attrs):
        out = self.name("v")
        self.nodes.append(helper.make_node(op, inputs, [out], name=out, **attrs))
        self.steps.append(lambda v: v.__setitem__(out, function(*[v[i] for i in inputs if i])))
        return out

    def finish(self, out):
        self.output = out
        return self

    def oracle(self, feeds):
        """The result, and the largest value on the way to it: what a clipped result owes its error to."""
        v = {k: a.astype(np.float64) for k, a in feeds.items()}
        for s in self.steps:
            s(v)
        made = [v[n.output[0]] for n in self.nodes]
        return v[self.output], max(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in made)


# ---- epilogues ----
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def epilogue(c, y, shapes, channel):
    """Zero to three elementwise nodes behind y. channel: axis that per-channel factors follow."""
    for _ in range(int(c.rng.choice([0, 1, 1, 2, 3]))):
        kind = c.rng.choice(["relu", "clip", "silu", "residual", "scale", "tanh", "scalar"])
        c.title += " " + kind
        if kind == "relu":
            y = c.node("Relu", [y], lambda a: np.maximum(a, 0))
        elif kind == "clip":
            y = c.node("Clip", [y, c.constant(np.float32(-0.5)), c.constant(np.float32(1.5))], lambda a, lo, hi: np.clip(a, lo, hi))
        elif kind == "silu":
            y = c.node("Mul", [y, c.node("Sigmoid", [y], sigmoid)], np.multiply)
        elif kind == "residual":
            y = c.node("Add", [y, c.input(shapes)], np.add)
        elif kind == "tanh":
            y = c.node("Tanh", [y], np.tanh)
        elif kind == "scalar":
            y = c.node("Add", [y, c.constant(np.float32(0.25))], np.add)
        else:
            size = shapes[0][channel]
            if any(s[channel] != size for s in shapes):
                continue
            y = c.node("Mul", [y, c.weights(size, *[1] * (len(shapes[0]) - 1 - channel))], np.multiply)
    return y
