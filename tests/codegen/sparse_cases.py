"""Products with weights of which many are zero: cases of run_sparse.py, as those of template_cases.py."""
import numpy as np

from tests.support.template_case import TRIALS, Case, epilogue
from tests.support.template_cases import conv

SIZES = [1, 4, 5, 16, 17, 33, 64, 100]
PATTERNS = ["random", "random", "nm", "blocks", "columns", "steps", "uneven", "none", "all"]


def keep(rng, k, n, pattern, share):
    """Which elements of a [k, n] matrix stay: so many of `random` ones; 2 of 4 along k; blocks of four columns; whole columns or steps
    of k are zero; one column has all; nothing is zero, or everything."""
    if pattern == "random":
        return rng.random((k, n)) < share
    if pattern == "nm":
        order = rng.random((-(-k // 4), 4, n)).argsort(1)
        return (order < 2).reshape(-1, n)[:k]
    if pattern == "blocks":
        return (rng.random((k, -(-n // 4))) < share).repeat(4, 1)[:, :n]
    if pattern == "columns":
        return (rng.random((k, n)) < share) & (rng.random(n) < 0.5)
    if pattern == "steps":
        return (rng.random((k, n)) < 2 * share) & (rng.random((k, 1)) < 0.5)
    if pattern == "uneven":
        return (rng.random((k, n)) < share / 4) | (np.arange(n) == n // 2)
    return np.full((k, n), pattern == "none")


def weights(rng, k, n, pattern, share):
    w = rng.standard_normal((k, n)) / np.sqrt(max(1, k * share))
    return np.where(keep(rng, k, n, pattern, share), w, -0.0 if rng.random() < 0.2 else 0.0)


def matrix_case(rng, tag, pattern=None, share=None):
    c = Case(rng, tag)
    pick = lambda items: items[int(rng.integers(len(items)))]
    pattern, share = pattern or pick(PATTERNS), pick([0.05, 0.1, 0.2, 0.3, 0.6]) if share is None else share
    k, n, m = pick(SIZES), pick([s for s in SIZES if s > 3]), pick(SIZES)
    ms = [m] * TRIALS if rng.random() < 0.5 else [m, pick(SIZES), 1]
    w = weights(rng, k, n, pattern, share)
    c.title = f"{ms}x{k}x{n} {pattern} {share}"
    if rng.random() < 0.5:
        lead = pick([(), (2,), (3, 2)])
        y = c.node("MatMul", [c.input([(*lead, m, k) for m in ms]), c.constant(w)], np.matmul)
        return c.finish(epilogue(c, y, [(*lead, m, n) for m in ms], len(lead) + 1))
    ta, tb, alpha, beta = int(rng.random() < 0.3), int(rng.random() < 0.5), pick([1.0, 0.5]), pick([1.0, 0.25, 0.0])
    inputs = [c.input([(k, m) if ta else (m, k) for m in ms]), c.constant(w.T if tb else w), c.weights(n)]
    y = c.node("Gemm", inputs, lambda a, b, d: alpha * ((a.T if ta else a) @ (b.T if tb else b)) + beta * d,
               transA=ta, transB=tb, alpha=alpha, beta=beta)
    return c.finish(epilogue(c, y, [(m, n) for m in ms], 1))


def conv_case(rng, tag, pattern=None, share=None):
    c = Case(rng, tag)
    pick = lambda items: items[int(rng.integers(len(items)))]
    pattern, share = pattern or pick(PATTERNS), pick([0.05, 0.1, 0.2, 0.3, 0.6]) if share is None else share
    dims, batch, c_in, c_out = pick([1, 2, 2, 2, 3]), pick([1, 1, 2]), pick([1, 3, 8, 17, 33]), pick([4, 5, 16, 33])
    kernel = [pick([1, 1, 3]) for _ in range(dims)] if rng.random() < 0.7 else [1] * dims
    stride, dilation = [pick([1, 1, 2]) for _ in range(dims)], [pick([1, 1, 2]) for _ in range(dims)]
    pads = [pick([0, 1]) if k > 1 else 0 for k in kernel * 2]
    least = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    sizes = [[low + int(rng.integers(0, 12 if dims < 3 else 4)) for low in least] for _ in range(TRIALS)]
    if rng.random() < 0.6:
        sizes = [sizes[0]] * TRIALS
    w = weights(rng, c_in * int(np.prod(kernel)), c_out, pattern, share).T.reshape(c_out, c_in, *kernel)
    c.title = f"Conv {batch}x{c_in}x{sizes} -> {c_out} k{kernel} s{stride} d{dilation} p{pads} {pattern} {share}"
    x = c.input([(batch, c_in, *s) for s in sizes])
    y = c.node("Conv", [x, c.constant(w), c.weights(c_out)], lambda a, b, d: conv(a, b, d, stride, dilation, pads),
               kernel_shape=kernel, strides=stride, dilations=dilation, pads=pads)
    out = [(batch, c_out, *((s + p + q - low) // t + 1 for s, p, q, low, t in zip(size, pads, pads[dims:], least, stride))) for size in sizes]
    return c.finish(epilogue(c, y, out, 1))


def case(rng, tag):
    return (matrix_case if rng.random() < 0.5 else conv_case)(rng, tag)
