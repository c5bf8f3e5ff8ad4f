"""Values of random_graphs.py: a dimension is a tuple of sizes, one for each of TRIALS runs."""
import numpy as np

TRIALS = 3
MAX_ELEMENTS = 20000
SYMBOLS = [("n", (7, 1, 4)), ("m", (5, 17, 1)), ("k", (2, 3, 19))]
SIZES = [1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 17, 24, 32, 33]


def dim(k):
    return (int(k),) * TRIALS


def fixed(d):
    return min(d) == max(d)


def sizes(shape, trial):
    return tuple(d[trial] for d in shape)


def count(shape):
    return max(int(np.prod(sizes(shape, t))) for t in range(TRIALS))


def reads(node):
    """Names a node reads, its branches and bodies included."""
    names = list(node.input)
    for a in node.attribute:
        if a.HasField("g"):
            made = {i.name for i in a.g.input} | {o for n in a.g.node for o in n.output}
            names += [r for n in a.g.node for r in reads(n) if r not in made]
    return names


class Value:
    def __init__(self, name, shape, dtype=np.float32):
        self.name, self.shape, self.dtype = name, tuple(shape), np.dtype(dtype)

    @property
    def rank(self):
        return len(self.shape)


class Skip(Exception):
    """The chosen operator does not fit the chosen values."""
