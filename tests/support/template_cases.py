"""Cases for run_templates.py: one contraction each (Conv, ConvTranspose, MatMul, Gemm, attention) with an epilogue, and its oracle in
float64, written from the ONNX definition and not from the compiler.
"""
import itertools

import numpy as np

from tests.support.attention_cases import attention, attention_case, ordered_attention, ordered_case
from tests.support.template_case import TRIALS, Case, epilogue


# ---- oracles ----
def conv(x, w, bias=None, stride=(), dilation=(), pads=(), group=1):
    n = w.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(pads[i], pads[n + i]) for i in range(n)])
    out = [(x.shape[2 + i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in range(n)]
    cig, cog = w.shape[1], w.shape[0] // group
    y = np.zeros((x.shape[0], w.shape[0], *out))
    for tap in itertools.product(*[range(k) for k in w.shape[2:]]):
        part = x[(slice(None), slice(None), *[slice(t * d, t * d + s * (o - 1) + 1, s)
                                              for t, d, s, o in zip(tap, dilation, stride, out)])]
        for g in range(group):
            y[:, g * cog:(g + 1) * cog] += np.einsum("nc...,oc->no...", part[:, g * cig:(g + 1) * cig],
                                                     w[(slice(g * cog, (g + 1) * cog), slice(None), *tap)])
    return y if bias is None else y + bias.reshape(-1, *[1] * n)


def max_pool(x, k, stride, pads):
    x = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.max(axis=(4, 5))


def conv_transpose(x, w, bias=None, stride=(), dilation=(), pads=(), group=1, extra=()):
    n = w.ndim - 2
    full = [(x.shape[2 + i] - 1) * stride[i] + dilation[i] * (w.shape[2 + i] - 1) + 1 + extra[i] for i in range(n)]
    cig, cog = w.shape[0] // group, w.shape[1]
    y = np.zeros((x.shape[0], cog * group, *full))
    for tap in itertools.product(*[range(k) for k in w.shape[2:]]):
        at = (slice(None), slice(None), *[slice(t * d, t * d + s * (o - 1) + 1, s)
                                          for t, d, s, o in zip(tap, dilation, stride, x.shape[2:])])
        for g in range(group):
            y[at][:, g * cog:(g + 1) * cog] += np.einsum("nc...,co->no...", x[:, g * cig:(g + 1) * cig],
                                                         w[(slice(g * cig, (g + 1) * cig), slice(None), *tap)])
    y = y[(slice(None), slice(None), *[slice(pads[i], full[i] - pads[n + i]) for i in range(n)])]
    return y if bias is None else y + bias.reshape(-1, *[1] * n)


# ---- makers ----
CHANNELS = [1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 64]


def fan(*sizes):
    return max(1.0, float(np.prod(sizes))) ** -0.5


def small_enough(c_in, c_out, sizes, taps):
    return c_in * c_out * np.prod(sizes) * taps < 3e7


def conv_case(rng, tag, dtype=np.float32, winograd=False):
    c = Case(rng, tag, dtype)
    pick = lambda items: items[int(rng.integers(len(items)))]
    c.slack = 2.0 if winograd else 1.0
    while True:
        n = pick([2, 2, 3]) if winograd else pick([1, 2, 2, 2, 3])
        batch = pick([1, 1, 1, 2, 3])
        k = [pick([1, 2, 3, 3])] * (n - 2) + [3, 3] if winograd else [pick([1, 2, 3, 3, 5, 7]) for _ in range(n)]
        if not winograd and n > 1 and rng.random() < 0.6:
            k = [k[0]] * n
        stride = [1] * n if winograd else [pick([1, 1, 1, 2, 3])] * n
        dilation = [1] * n if winograd else [pick([1, 1, 1, 2, 3])] * n
        same = rng.random() < 0.6
        pads = [q * (r - 1) // 2 if same else int(rng.integers(0, r + 1)) for _ in range(2) for q, r in zip(dilation, k)]
        kind = pick(["plain", "plain", "plain", "group", "depthwise", "multiplier"]) if not winograd else "plain"
        many = [16, 17, 31, 32, 33, 64] if winograd else CHANNELS
        c_in, c_out, group = pick(many), pick(many), 1
        if kind == "group":
            group = pick([2, 3, 4])
            c_in, c_out = group * pick([1, 2, 5, 8]), group * pick([1, 3, 8, 17])
        elif kind != "plain":
            group, c_out = c_in, c_in * (1 if kind == "depthwise" else 2)
        symbolic = rng.random() < 0.25
        largest = {1: 60, 2: 29, 3: 9}[n]
        trials = [[int(rng.integers(2, largest)) for _ in range(n)] for _ in range(TRIALS)]
        if not symbolic:
            trials = [trials[0]] * TRIALS
        reach = [d * (q - 1) + 1 for d, q in zip(dilation, k)]
        fits = all(t[i] + pads[i] + pads[n + i] >= reach[i] for t in trials for i in range(n))
        if fits and all(small_enough(c_in // group, c_out, t, np.prod(k)) for t in trials):
            break
    c.title = f"Conv {batch}x{c_in}x{trials if symbolic else trials[0]} -> {c_out} k{k} s{stride} d{dilation} p{pads} g{group}"
    x = c.input([(batch, c_in, *t) for t in trials])
    computed = not winograd and rng.random() < 0.25
    inputs = [x, c.weights(c_out, c_in // group, *k, scale=fan(c_in // group, *k), computed=computed)]
    c.title += " computed weights" * computed
    if rng.random() < 0.6:
        inputs.append(c.weights(c_out))
    y = c.node("Conv", inputs, lambda *a: conv(*a, stride=stride, dilation=dilation, pads=pads, group=group), kernel_shape=k,
               strides=stride, dilations=dilation, pads=pads, group=group)
    shapes = [(batch, c_out, *[(t[i] + pads[i] + pads[n + i] - reach[i]) // stride[i] + 1 for i in range(n)]) for t in trials]
    return c.finish(epilogue(c, y, shapes, 1))


def conv_transpose_case(rng, tag, dtype=np.float32):
    c = Case(rng, tag, dtype)
    pick = lambda items: items[int(rng.integers(len(items)))]
    while True:
        n = pick([1, 2, 2, 3])
        k = [pick([1, 2, 3, 4, 5]) for _ in range(n)]
        stride = [pick([1, 2, 3, 4]) for _ in range(n)]
        dilation = [pick([1, 1, 1, 2])] * n
        extra = [int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation)]
        pads = [int(rng.integers(0, q)) for _ in range(2) for q in k]
        group = pick([1, 1, 1, 2, 3])
        c_in, cog = group * pick([1, 2, 5, 8, 16, 17]), pick([1, 2, 3, 8, 13, 33])
        largest = {1: 30, 2: 13, 3: 6}[n]
        trials = [[int(rng.integers(1, largest)) for _ in range(n)] for _ in range(TRIALS)]
        if rng.random() < 0.75:
            trials = [trials[0]] * TRIALS
        outs = [[(t[i] - 1) * stride[i] + dilation[i] * (k[i] - 1) + 1 + extra[i] - pads[i] - pads[n + i] for i in range(n)]
                for t in trials]
        if all(o > 0 for s in outs for o in s) and all(small_enough(c_in, cog, o, np.prod(k)) for o in outs):
            break
    c.title = f"ConvTranspose 1x{c_in}x{trials} -> {cog * group} k{k} s{stride} d{dilation} p{pads} e{extra} g{group}"
    computed = rng.random() < 0.25
    inputs = [c.input([(2, c_in, *t) for t in trials]), c.weights(c_in, cog, *k, scale=fan(c_in // group, *k), computed=computed)]
    c.title += " computed weights" * computed
    if rng.random() < 0.6:
        inputs.append(c.weights(cog * group))
    y = c.node("ConvTranspose", inputs, lambda *a: conv_transpose(*a, stride=stride, dilation=dilation, pads=pads, group=group, extra=extra),
               kernel_shape=k, strides=stride, dilations=dilation, pads=pads, group=group, output_padding=extra)
    return c.finish(epilogue(c, y, [(2, cog * group, *o) for o in outs], 1))


SIZES = [1, 2, 7, 16, 17, 33, 100, 197]


def matmul_case(rng, tag, dtype=np.float32):
    c = Case(rng, tag, dtype)
    pick = lambda items: items[int(rng.integers(len(items)))]
    m, k, n = (pick(SIZES) for _ in range(3))
    trials = [m] * TRIALS
    if rng.random() < 0.3:
        trials = [m, pick(SIZES), pick([1, 3, 40])]
    dynamic = rng.random() < 0.4
    heads = [pick([1, 2, 3, 5]) for _ in range(int(pick([0, 0, 1, 2, 3])))]
    a_batch = [h if rng.random() < 0.8 else 1 for h in heads]
    b_batch = [h if rng.random() < 0.6 else 1 for h in heads][int(rng.integers(0, len(heads) + 1)):]
    ta, tb = rng.random() < 0.3, rng.random() < 0.3
    vec = "" if ta or tb or heads else pick(["", "", "", "a", "b"])
    def operand(batch, shapes, trans, constant):
        shapes = [(*batch, *(s[::-1] if trans else s)) for s in shapes]
        x = c.weights(*shapes[0], scale=fan(k)) if constant else c.input(shapes)
        if not trans:
            return x
        perm = [*range(len(batch)), len(batch) + 1, len(batch)]
        return c.node("Transpose", [x], lambda v: v.transpose(perm), perm=perm)
    a = operand(a_batch, [(k,) if vec == "a" else (t, k) for t in trials], ta, False)
    b = operand(b_batch, [(k,) if vec == "b" else (k, n)] * TRIALS, tb, not dynamic)
    y = c.node("MatMul", [a, b], np.matmul)
    lead = np.broadcast_shapes(a_batch, b_batch)
    shapes = [(*lead, *(() if vec == "a" else (t,)), *(() if vec == "b" else (n,))) for t in trials]
    c.title = f"MatMul {a_batch}x{trials}x{k} * {b_batch}x{n} {'dynamic' if dynamic else 'constant'} ta{ta:d} tb{tb:d} {vec}"
    if not vec and rng.random() < 0.5:
        y = c.node("Add", [y, c.weights(n)], np.add)
    return c.finish(epilogue(c, y, shapes, len(shapes[0]) - 1))


def gemm_case(rng, tag, dtype=np.float32):
    c = Case(rng, tag, dtype)
    pick = lambda items: items[int(rng.integers(len(items)))]
    m, k, n = (pick(SIZES) for _ in range(3))
    trials = [m] * TRIALS if rng.random() < 0.7 else [m, pick(SIZES), 1]
    ta, tb = int(rng.random() < 0.4), int(rng.random() < 0.5)
    alpha, beta = pick([1.0, 1.0, 0.5]), pick([1.0, 1.0, 0.25, 0.0])
    a = c.input([(k, t) if ta else (t, k) for t in trials])
    shape = (n, k) if tb else (k, n)
    inputs = [a, c.weights(*shape, scale=fan(k)) if rng.random() < 0.6 else c.input(shape)]
    if rng.random() < 0.7:
        inputs.append(c.weights(*pick([(n,), (1, n), (1,), (1, 1)])))
    c.title = f"Gemm {trials}x{k}x{n} ta{ta} tb{tb} alpha {alpha} beta {beta}"
    def gemm(p, q, r=None):
        y = alpha * ((p.T if ta else p) @ (q.T if tb else q))
        return y if r is None else y + beta * r
    y = c.node("Gemm", inputs, gemm, transA=ta, transB=tb, alpha=alpha, beta=beta)
    return c.finish(epilogue(c, y, [(t, n) for t in trials], 1))


def chain_case(rng, tag, dtype=np.float32):
    """Two to five convolutions and poolings behind each other, mostly depthwise and pointwise in turns: strips of rows (--strips=all)."""
    c = Case(rng, tag, dtype)
    pick = lambda items: items[int(rng.integers(len(items)))]
    symbolic, batch, channels = rng.random() < 0.3, pick([1, 1, 2]), pick([2, 3, 3, 8, 13, 16, 24])
    sizes = [[int(rng.integers(1, 40)), int(rng.integers(1, 40))] for _ in range(TRIALS)]
    if not symbolic:
        sizes = [sizes[0]] * TRIALS
    y = c.input([(batch, channels, *s) for s in sizes])
    c.title = f"chain {batch}x{channels}x{sizes if symbolic else sizes[0]}"
    deep = rng.random() < 0.5
    for _ in range(int(rng.integers(2, 6))):
        k = pick([2, 3, 3, 5]) if deep else pick([1, 1, 1, 3])
        stride, dilation = (pick([1, 1, 2, 3]), pick([1, 1, 1, 2])) if k > 1 else (1, 1)
        reach = dilation * (k - 1) + 1
        pads = [reach // 2] * 4 if rng.random() < 0.7 else [int(rng.integers(0, reach)) for _ in range(4)]
        out = [[(s[i] + pads[i] + pads[2 + i] - reach) // stride + 1 for i in range(2)] for s in sizes]
        if any(s[i] + pads[i] + pads[2 + i] < reach for s in sizes for i in range(2)):
            continue
        if k > 1 and dilation == 1 and rng.random() < 0.2 and max(pads) < k:
            y = c.node("MaxPool", [y], lambda a, at=(k, stride, pads): max_pool(a, *at), kernel_shape=[k, k], strides=[stride] * 2, pads=pads)
            c.title += f" pool k{k} s{stride} p{pads}"
            sizes = out
            continue
        wide = channels if deep else pick([8, 16, 17, 24, 33])
        group = channels if deep else 1
        args = [y, c.weights(wide, channels // group, k, k, scale=fan(channels // group, k, k))]
        if rng.random() < 0.5:
            args.append(c.weights(wide))
        y = c.node("Conv", args, lambda *a, at=(stride, dilation, pads, group): conv(
            *a, stride=[at[0]] * 2, dilation=[at[1]] * 2, pads=at[2], group=at[3]), kernel_shape=[k, k], strides=[stride] * 2,
            dilations=[dilation] * 2, pads=pads, group=group)
        c.title += f" -> {wide} k{k} s{stride} d{dilation} p{pads} g{group}"
        sizes, channels, deep = out, wide, not deep
        y = epilogue(c, y, [(batch, channels, *s) for s in sizes], 1)
    return c.finish(y)


def random_case(rng, tag, dtype=np.float32):
    makers = [conv_case, conv_case, conv_case, conv_transpose_case, matmul_case, matmul_case, gemm_case, attention_case, attention_case, ordered_case, None]
    maker = makers[int(rng.integers(len(makers)))]
    return maker(rng, tag, dtype) if maker else conv_case(rng, tag, dtype, winograd=True)


# ---- cases that were wrong once, or that no random case reaches ----
def fixed_transpose(rng, tag, shape, c_out, k, stride):
    c = Case(rng, tag)
    n = len(shape) - 2
    c.title = f"ConvTranspose {shape} k{k} s{stride}"
    y = c.node("ConvTranspose", [c.input(shape), c.weights(shape[1], c_out, *k)],
               lambda x, w: conv_transpose(x, w, stride=stride, dilation=[1] * n, pads=[0] * 2 * n, extra=[0] * n), kernel_shape=k,
               strides=stride)
    return c.finish(y)


def conv_transpose_symbolic(rng, tag):
    c = Case(rng, tag)
    c.title = "ConvTranspose of symbolic length, k5 d2 e1"
    y = c.node("ConvTranspose", [c.input([(2, 16, t) for t in (19, 20, 27)]), c.weights(16, 3, 5)],
               lambda x, w: conv_transpose(x, w, stride=[1], dilation=[2], pads=[0, 1], extra=[1]), kernel_shape=[5], dilations=[2],
               pads=[0, 1], output_padding=[1])
    return c.finish(y)


def thin_symbolic(rng, tag, c_in, c_out, sizes, k=3, dilation=1):
    """Few output channels (kernels/thin.c) and lines whose length is known at run time only."""
    c = Case(rng, tag)
    n = len(sizes[0])
    pads = [dilation * (k - 1) // 2] * 2 * n
    c.title = f"thin Conv {c_in}x{sizes} -> {c_out} k{k} d{dilation}"
    x = c.input([(2, c_in, *s) for s in sizes])
    y = x
    for _ in range(2 if c_in == c_out else 1):
        y = c.node("Conv", [y, c.weights(c_out, c_in, *[k] * n, scale=fan(c_in, *[k] * n)), c.weights(c_out)],
                   lambda *a: conv(*a, stride=[1] * n, dilation=[dilation] * n, pads=pads), kernel_shape=[k] * n,
                   dilations=[dilation] * n, pads=pads)
        y = c.node("Relu", [y], lambda a: np.maximum(a, 0))
    return c.finish(c.node("Add", [y, c.input([(2, c_out, *s) for s in sizes])], np.add))


def winograd_blocks(rng, tag, sizes, c_in=32, c_out=33):
    """More tiles than a cache holds: several blocks, the last of which overlaps its neighbour."""
    c = Case(rng, tag)
    c.slack = 2.0
    c.title = f"Winograd in blocks {sizes}"
    y = c.node("Conv", [c.input([(n, c_in, h, w) for n, h, w in sizes]), c.weights(c_out, c_in, 3, 3, scale=fan(c_in, 3, 3)), c.weights(c_out)],
               lambda *a: conv(*a, stride=[1, 1], dilation=[1, 1], pads=[1, 0, 0, 1]), kernel_shape=[3, 3], pads=[1, 0, 0, 1])
    return c.finish(c.node("Add", [y, c.input([(n, c_out, h - 1, w - 1) for n, h, w in sizes])], np.add))


def one_conv(rng, tag, shape):
    c = Case(rng, tag)
    c.title = f"Conv of {shape}"
    y = c.node("Conv", [c.input(shape), c.weights(4, 3, 3, 3)],
               lambda x, w: conv(x, w, stride=[1, 1], dilation=[1, 1], pads=[1] * 4), kernel_shape=[3, 3], pads=[1] * 4)
    return c.finish(y)


def plain_conv(rng, tag, shapes, c_out, kernel, computed=False, dtype=np.float32, **window):
    """A convolution that the random ones are too small for: many groups, taps far beyond the border, a large output."""
    n = len(kernel)
    how = {"stride": [1] * n, "dilation": [1] * n, "pads": [0] * 2 * n, "group": 1, **window}
    c = Case(rng, tag, dtype)
    c.title = f"Conv of {shapes[0]} to {c_out} channels, kernel {kernel}, {window}"
    weights = c.weights(c_out, shapes[0][1] // how["group"], *kernel, computed=computed)
    return c.finish(c.node("Conv", [c.input(shapes), weights], lambda x, w: conv(x, w, **how), kernel_shape=kernel,
                           strides=how["stride"], dilations=how["dilation"], pads=how["pads"], group=how["group"]))


def computed_depthwise(rng, tag, shapes):
    """Pointwise, depthwise, pointwise, whose weights are inputs, the middle ones times another."""
    c = Case(rng, tag)
    c.title = f"pointwise, depthwise and pointwise convolution of {shapes[0]}, computed weights"
    y = c.input(shapes)
    for c_in, c_out, k, group in [(5, 24, 1, 1), (24, 24, 3, 24), (24, 17, 1, 1)]:
        w = c.weights(c_out, c_in // group, k, k, computed=True)
        if group > 1:
            w = c.node("Mul", [w, c.weights(c_out, 1, 1, 1, computed=True)], np.multiply)
        y = c.node("Conv", [y, w], lambda a, b, at=(k, group): conv(a, b, stride=[1, 1], dilation=[1, 1], pads=[at[0] // 2] * 4, group=at[1]),
                   kernel_shape=[k, k], pads=[k // 2] * 4, group=group)
    return c.finish(y)


def one_transpose(rng, tag, shapes, perm):
    c = Case(rng, tag)
    c.title = f"Transpose of {shapes[0]} by {perm}"
    return c.finish(c.node("Transpose", [c.input(shapes)], lambda x: np.transpose(x, perm), perm=perm))


def one_matmul(rng, tag, a, b, constant):
    c = Case(rng, tag)
    c.title = f"MatMul {a} {b}"
    return c.finish(c.node("MatMul", [c.input(a), c.weights(*b[0]) if constant else c.input(b)], np.matmul))


def columns_product(rng, tag, m, k, n, dtype=np.float32, batch=0):
    """Sums of columns of A, as gradients of weights are: blocks of it are copied to scratch (kernels/contract_gather.c)."""
    c = Case(rng, tag, dtype)
    c.title = f"columns of A: {batch} {m}x{k}x{n}"
    a, b = c.input((*[batch] * (batch > 0), k, m)), c.input((*[batch] * (batch > 0), k, n))
    if not batch:
        y = c.node("Gemm", [a, b], lambda p, q: p.T @ q, transA=1)
    else:
        turned = c.node("Transpose", [a], lambda p: p.transpose(0, 2, 1), perm=[0, 2, 1])
        y = c.node("MatMul", [turned, b], np.matmul)
    return c.finish(epilogue(c, y, [(*[batch] * (batch > 0), m, n)] * TRIALS, 1 + (batch > 0)))


def integer_matmul(rng, tag, a, b, types, constant):
    """types: of both operands, i32, or 8-bit ones (MatMulInteger without zero points, too long for exact floats)."""
    c = Case(rng, tag, np.int32)
    c.title = f"{types[0]} x {types[1]} product of {a} and {b}"
    operands = [c.input(a)]
    if constant:
        info = np.iinfo(np.int8 if types[1] == "int32" else types[1])
        operands.append(c.constant(rng.integers(info.min, info.max, b[0], endpoint=True).astype(types[1])))
    else:
        operands.append(c.input(b))
    c.types = {name: np.dtype(t) for name, t in zip(operands, types) if name in c.inputs}
    return c.finish(c.node("MatMul" if types[0] == "int32" else "MatMulInteger", operands, np.matmul))


def fixed_cases(rng):
    yield integer_matmul(rng, "j0", [(33, 70)] * TRIALS, [(70, 45)] * TRIALS, ["int32", "int32"], False)
    yield integer_matmul(rng, "j1", [(2, 7, 40), (2, 1, 40), (1, 30, 40)], [(40, 64)] * TRIALS, ["int32", "int32"], True)
    for i, types in enumerate(itertools.product(["uint8", "int8"], repeat=2)):
        yield integer_matmul(rng, f"k{i}", [(19, 300), (3, 4), (5, 1)], [(300, 37), (4, 37), (1, 37)], types, False)
        yield integer_matmul(rng, f"l{i}", [(21, 5000), (1, 5000), (8, 5000)], [(5000, 50)] * TRIALS, types, True)
    yield plain_conv(rng, "jf", [(2, 24, 9, 11), (1, 24, 3, 3), (1, 24, 20, 1)], 37, [3, 3], pads=[1] * 4, dtype=np.float64)
    yield plain_conv(rng, "jg", [(1, 24, 9, 7)] * TRIALS, 24, [3, 3], group=6, pads=[1] * 4, dtype=np.float64)
    yield plain_conv(rng, "jh", [(1, 24, 9, 7)] * TRIALS, 24, [3, 3], True, group=24, pads=[1] * 4, dtype=np.float64)
    yield plain_conv(rng, "ji", [(1, 800, 9, 31)] * TRIALS, 70, [3, 3], True, pads=[1] * 4, dtype=np.float64)
    yield attention(rng, "jj", np.dtype(np.float64), [2, 2], [33] * 3, [40] * 3, 16, 16, ["scale"], "middle")
    yield attention(rng, "jk", np.dtype(np.float64), [1, 3], [8] * 3, [8] * 3, 20, 20, ["none"])  # a row of NaN stays alone
    yield attention(rng, "jl", np.dtype(np.float64), [1, 3], [8] * 3, [8] * 3, 20, 20, ["infinite"])
    yield fixed_transpose(rng, "f0", (1, 1, 1), 5, [1], [2])  # a stride beyond the output: phases without rows
    yield fixed_transpose(rng, "f1", (2, 2, 1, 3), 8, [1, 2], [3, 2])
    yield fixed_transpose(rng, "f2", (1, 3, 4, 4), 8, [2, 2], [3, 3])  # phases without taps
    yield conv_transpose_symbolic(rng, "fa")  # dilation and output_padding beyond the taps
    yield one_conv(rng, "f3", [(5, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8)])
    yield one_conv(rng, "f4", (0, 3, 8, 8))
    for i, (c_in, c_out) in enumerate([(5, 5), (1, 3), (3, 1), (10, 8), (2, 2), (1, 10)]):
        yield thin_symbolic(rng, f"g{i}", c_in, c_out, [(3, 48), (2, 15), (5, 131)])
        yield thin_symbolic(rng, f"h{i}", c_in, c_out, [(1,), (64,), (7,)], k=1 + 2 * (i % 3))
    yield thin_symbolic(rng, "i0", 5, 5, [(3, 2, 17), (2, 4, 33), (1, 2, 9)], dilation=2)
    yield thin_symbolic(rng, "i1", 2, 3, [(3, 1, 17), (2, 4, 1), (1, 2, 9)])
    yield thin_symbolic(rng, "i2", 33, 2, [(3, 9), (2, 8), (5, 31)])  # lanes over channels
    yield thin_symbolic(rng, "i3", 64, 1, [(5, 8), (5, 8), (5, 8)])
    yield thin_symbolic(rng, "i4", 67, 6, [(3, 9), (2, 1), (5, 31)])
    yield thin_symbolic(rng, "i5", 300, 11, [(7, 13), (7, 13), (7, 13)])
    yield winograd_blocks(rng, "w0", [(1, 78, 99)] * TRIALS)
    yield winograd_blocks(rng, "w1", [(2, 70, 83), (1, 70, 83), (3, 70, 83)], 24, 16)
    yield winograd_blocks(rng, "w2", [(1, 78, 99), (3, 3, 5), (2, 70, 83)])  # blocks of tiles: an image of any size
    yield winograd_blocks(rng, "w3", [(2, 40, 21), (2, 2, 21), (2, 9, 21)], 24, 16)
    yield one_matmul(rng, "f5", [(197, 5), (3, 5), (1, 5)], [(5, 7)] * TRIALS, True)
    yield one_matmul(rng, "far", [(257, 70)] * TRIALS, [(70, 264)] * TRIALS, False)  # its rows are packed
    for i, (m, k, n) in enumerate([(64, 128, 48), (65, 130, 49), (70, 768, 200), (131, 512, 100), (257, 300, 90), (300, 192, 64)]):
        yield columns_product(rng, f"ca{i}", m, k, n, np.dtype(np.float64 if i == 2 else np.float32))
    yield columns_product(rng, "cb0", 80, 128, 64, batch=3)
    yield columns_product(rng, "cb1", 195, 200, 70, batch=2)
    yield one_matmul(rng, "f6", [(3, 300), (3, 4), (3, 1)], [(300, 7), (4, 7), (1, 7)], False)
    yield one_matmul(rng, "f7", [(2, 4, 5)] * TRIALS, [(5, 1), (5, 2), (5, 65)], False)
    yield one_matmul(rng, "f8", [(0, 5)] * TRIALS, [(5, 7)] * TRIALS, True)
    yield one_matmul(rng, "f9", [(3, 0)] * TRIALS, [(0, 7)] * TRIALS, False)
    # sums long enough to be cut into blocks of k, with groups of panels over a block of rows
    yield one_matmul(rng, "fb", [(61, 1536)] * TRIALS, [(1536, 83)] * TRIALS, True)
    yield one_matmul(rng, "fc", [(150, 3072)] * TRIALS, [(3072, 230)] * TRIALS, True)
    yield one_matmul(rng, "fd", [(2, 70, 2048)] * TRIALS, [(2048, 161)] * TRIALS, True)
    yield one_matmul(rng, "fe", [(131, 1600), (7, 1600), (1, 1600)], [(1600, 97)] * TRIALS, True)
    yield one_matmul(rng, "ff", [(90, 2048)] * TRIALS, [(2048, 100)] * TRIALS, False)
    # groups of fewer channels than a vector has lanes
    yield plain_conv(rng, "fg", [(2, 24, 9, 7)] * TRIALS, 24, [3, 3], group=6, pads=[1] * 4)
    yield plain_conv(rng, "fh", [(1, 30, 8, 5)] * TRIALS, 60, [3, 1], group=10, stride=[2, 1])
    yield plain_conv(rng, "fi", [(1, 14, 20)] * TRIALS, 35, [3], group=7, dilation=[2])
    # tiles that see only the border
    yield plain_conv(rng, "fj", [(1, 20, 19, 17)] * TRIALS, 24, [3, 3], dilation=[6, 6], pads=[6] * 4)
    yield plain_conv(rng, "fk", [(1, 17, 13, 40)] * TRIALS, 16, [3, 3], dilation=[12, 18], pads=[12, 18, 12, 18])
    yield plain_conv(rng, "fl", [(1, 16, 2, 5, 5)] * TRIALS, 20, [3, 3, 3], pads=[1] * 6)
    yield plain_conv(rng, "fm", [(1, 300, 5, 4)] * TRIALS, 33, [3, 3], pads=[2] * 4)
    # borders too wide to be stored: fixed and symbolic sizes, strides, groups, uneven pads, sums in blocks
    yield plain_conv(rng, "fq", [(1, 32, 4, 4), (2, 32, 33, 29), (1, 32, 1, 70)], 40, [3, 3], dilation=[12, 12], pads=[12] * 4)
    yield plain_conv(rng, "fr", [(1, 48, 30, 17)] * TRIALS, 80, [3, 5], dilation=[9, 6], stride=[2, 3], pads=[9, 13, 8, 11], group=2)
    yield plain_conv(rng, "fs", [(1, 16, 3, 9, 20), (2, 16, 12, 5, 3), (1, 16, 1, 1, 1)], 17, [3, 3, 3], dilation=[6, 6, 6], pads=[6] * 6)
    yield plain_conv(rng, "ft", [(1, 800, 9, 31), (1, 800, 20, 3), (1, 800, 2, 2)], 70, [3, 3], dilation=[7, 18], pads=[7, 18] * 2)
    yield plain_conv(rng, "fu", [(1, 20, 40, 6)] * TRIALS, 20, [3, 1], dilation=[24, 1], pads=[24, 0] * 2)
    yield plain_conv(rng, "fv", [(1, 20, 6, 40), (1, 20, 6, 14), (1, 20, 6, 1)], 20, [1, 3], dilation=[1, 24], pads=[0, 24] * 2)
    yield plain_conv(rng, "fw", [(2, 24, 15, 13)] * TRIALS, 24, [13, 13], pads=[6] * 4)
    # weights that are inputs: taps, groups, wide borders, sums in blocks, and a depthwise one between two others
    yield plain_conv(rng, "fA", [(2, 24, 9, 11), (1, 24, 3, 3), (1, 24, 20, 1)], 37, [3, 3], True, pads=[1] * 4)
    yield plain_conv(rng, "fB", [(1, 12, 11, 10)] * TRIALS, 54, [3, 2], True, group=3, stride=[2, 1])
    yield plain_conv(rng, "fC", [(1, 20, 19, 17)] * TRIALS, 24, [3, 3], True, dilation=[12, 12], pads=[12] * 4)
    yield plain_conv(rng, "fD", [(1, 800, 6, 7)] * TRIALS, 40, [1, 1], True)
    yield plain_conv(rng, "fE", [(1, 6, 5, 6, 7)] * TRIALS, 18, [3, 1, 2], True, pads=[1, 0, 1] * 2)
    yield computed_depthwise(rng, "fF", [(2, 5, 13, 9), (1, 5, 4, 30), (1, 5, 2, 2)])
    # large transpositions, through tiles
    yield plain_conv(rng, "fn", [(1, 8, 37, 29)] * TRIALS, 40, [1, 1])
    yield one_transpose(rng, "fo", [(301, 77), (64, 100), (1, 5)], [1, 0])
    yield one_transpose(rng, "fp", [(3, 47, 5, 130)] * TRIALS, [0, 3, 2, 1])
    # attention: one block of keys and several; sizes that the run decides; rows masked at first, or wholly; values that are not finite
    plain = np.dtype(np.float32)
    yield attention(rng, "gb", plain, [2, 3], [33] * 3, [40] * 3, 16, 16, ["scale", "bias"], "middle", turned=True)
    yield attention(rng, "gc", plain, [2], [61] * 3, [1100] * 3, 20, 24, ["late", "scale"])
    yield attention(rng, "gd", plain, [1, 2], [9] * 3, [600] * 3, 64, 64, ["few"], "middle")
    yield attention(rng, "ge", plain, [3], [50] * 3, [530] * 3, 8, 8, ["infinite"])
    yield attention(rng, "gf", plain, [3], [50] * 3, [530] * 3, 8, 8, ["nan"], ending="nan")
    yield attention(rng, "gg", plain, [2, 2], [1, 200, 57], [1, 700, 513], 16, 32, ["few", "cap"], "middle", turned=True, wide=True)
    yield attention(rng, "gh", plain, [2, 2], [20] * 3, [0] * 3, 16, 16, [])
    yield attention(rng, "gl", plain, [2, 2], [0] * 3, [20] * 3, 16, 16, [])
    yield attention(rng, "gi", plain, [2, 2], [70] * 3, [90] * 3, 32, 48, ["none", "causal"], ending="nan", turned=True)
    yield attention(rng, "gj", plain, [2, 2], [77] * 3, [77] * 3, 32, 32, ["causal", "cap"], "middle", ending="views", turned=True)
    yield ordered_attention(rng, "gm", plain, (4, 4), [400] * 3, [400] * 3, 16, 16, 1, -1)
    yield ordered_attention(rng, "gn", plain, (6, 2), [301] * 3, [301] * 3, 16, 16, 1, 130, 2.0)  # blocks of queries across two heads
    yield ordered_attention(rng, "go", plain, (4, 2), [7, 301, 140], [7, 301, 140], 16, 16, 1, -1)
    yield ordered_attention(rng, "gp", plain, (1, 1), [300] * 3, [150] * 3, 16, 16, 0, 20)  # the last queries see nothing
    yield ordered_attention(rng, "gq", plain, (2, 2), [197] * 3, [16] * 3, 8, 8, 0, 0)  # the same with one block
    yield attention(rng, "gk", plain, [2, 1], [64] * 3, [1024] * 3, 16, 16, ["causal", "bias"], "ready")
