"""Cases of part contrib: rows gathered from blocks of few bits, sequences without padding, matrices in an order.

check and refused: `node` and `refused` of tests/contrib/nodes.py. Operators that ONNX Runtime has on GPUs only: by their definition, in numpy.
"""
import math

import ml_dtypes
import numpy as np

rng = np.random.default_rng(1)


def f32(*shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def whole(low, high, shape, kind):
    return rng.integers(low, high, shape).astype(kind)


# ---- GatherBlockQuantized -------------------------------------------------------------------------------------------
def gathered_blocks(check, refused):
    run = lambda data, at, scales, zeros=None, **more: check("GatherBlockQuantized", [data, at, scales, *([] if zeros is None else [zeros])],
                                                             **{"feed": (1,), "block_size": 16, **more})
    at, outside = np.array([[1, -2], [4, 0]]), np.array([5, -6, 2, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
    some = {(0, 0): "n"}
    for bits in (2, 4, 8):
        data, blocks = whole(0, 256, (5, 80 * bits // 8), np.uint8), whole(0, 256, (5, -(-5 * bits // 8)), np.uint8)
        scales = f32(5, 5)
        run(data, at, scales, bits=bits, quantize_axis=-1)
        run(data, at.astype(np.int32), scales, blocks, bits=bits, symbolic={(1, 0): "a", (1, 1): "b"})
        run(data, outside, scales, blocks, bits=bits)
        run(data, np.array(3), scales.astype(np.float16), blocks, bits=bits, feed=(0, 1, 2, 3))
        run(data, outside, scales, blocks, bits=bits, feed=())
        deep = whole(0, 256, (3, 4, 40 * bits // 8), np.uint8)
        run(deep, at, f32(3, 4, 3), bits=bits, quantize_axis=2, feed=(0, 1), symbolic=some)
    for kind, low, high in ((ml_dtypes.int4, -8, 8), (ml_dtypes.uint4, 0, 16)):
        for shape, gather, quantize in (((5, 40), 0, 1), ((20, 6), 0, 0), ((5, 33), 1, 1), ((5, 33), 1, 0), ((3, 5, 17), 1, 2), ((4, 37, 3), 2, 1)):
            blocked = tuple(-(-s // 16) if d == quantize else s for d, s in enumerate(shape))
            axes = dict(gather_axis=gather, quantize_axis=quantize - len(shape))
            data, index = whole(low, high, shape, kind), rng.integers(-shape[gather] - 1, shape[gather] + 1, (2, 3))
            run(data, index, f32(*blocked), **axes)
            run(data, index, f32(*blocked), whole(low, high, blocked, kind), **axes)
    for kind in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float4_e2m1fn):
        data = f32(5, 40).astype(kind)
        run(data, at, f32(5, 3))
        run(data, outside, f32(1, 3))
        run(data, at, f32(5, 1), block_size=0)
        run(data, at, f32(1, 40), quantize_axis=0, gather_axis=1, block_size=0)
    data, scales = whole(0, 256, (5, 40), np.uint8), f32(5, 5)
    refused("GatherBlockQuantized", [data, at, scales], "a power of two from 16 on", feed=(1,), block_size=24)
    refused("GatherBlockQuantized", [data, at, scales], "a power of two from 16 on", feed=(1,), block_size=0)
    refused("GatherBlockQuantized", [data, at, scales], "3 bits", feed=(1,), block_size=16, bits=3)
    refused("GatherBlockQuantized", [data, at, f32(5, 4)], "blocks and scales", feed=(1,), block_size=16)
    refused("GatherBlockQuantized", [data, at, scales, data], "blocks and zero points", feed=(1,), block_size=16)
    refused("GatherBlockQuantized", [data, at, f32(1, 40)], "on the last axis", feed=(1,), block_size=16, quantize_axis=0)
    refused("GatherBlockQuantized", [f32(5, 40).astype(ml_dtypes.float8_e5m2), at, f32(5, 3), f32(5, 3).astype(ml_dtypes.float8_e5m2)],
            "no zero points", feed=(1,), block_size=16)


# ---- sequences without padding --------------------------------------------------------------------------------------
def places(lens, length):
    """token_offset and cumulative_sequence_length."""
    seen = np.arange(length) < np.array(lens)[:, None]
    at = np.arange(seen.size)
    order = np.concatenate([at[seen.ravel()], at[~seen.ravel()]]).astype(np.int32).reshape(seen.shape)
    return order, np.concatenate([[0], np.cumsum(lens)]).astype(np.int32)


def padding(check, refused):
    size, hidden = 6, 5
    for lens in ([3, 6, 1, 0], [6, 6], [2], [0, 0, 4]):
        batch, counts = len(lens), np.array(lens, np.int32)
        order, ends = places(lens, size)
        x = f32(batch, size, hidden)
        tokens = x.reshape(-1, hidden)[order.ravel()[: ends[-1]]]
        results = [tokens, order, ends, counts.max(keepdims=True)]
        names = {(0, 0): "b", (0, 1): "s", (1, 0): "b"}
        for symbolic in ({}, names, {**names, (0, 2): "h"})[: 3 if batch == 4 else 1]:
            check("RemovePadding", [x, counts], feed=(0, 1), outputs=4, symbolic=symbolic, want=results)
        half = x.astype(np.float16)
        check("RemovePadding", [half, counts], outputs=4, want=[half.reshape(-1, hidden)[order.ravel()[: ends[-1]]], *results[1:]])
        if not len(tokens):
            continue
        whole = np.zeros_like(x).reshape(-1, hidden)
        whole[order.ravel()[: ends[-1]]] = tokens
        names = {(0, 0): "t", (1, 0): "b", (1, 1): "s"}
        for symbolic in ({}, names, {**names, (0, 1): "h"})[: 3 if batch == 4 else 1]:
            check("RestorePadding", [tokens, order], feed=(0, 1), symbolic=symbolic, want=[whole.reshape(x.shape)])
        check("RestorePadding", [tokens.astype(np.float16), order], want=[whole.reshape(x.shape).astype(np.float16)])
    check("RemovePadding", [x, np.array([-3, 9, 4], np.int32)], feed=(0, 1), outputs=4,
          want=[x.reshape(-1, hidden)[6:16], places([0, 6, 4], size)[0], np.array([0, 0, 6, 10], np.int32), np.array([6], np.int32)])
    refused("RemovePadding", [x, counts[:1]], "token counts")
    refused("RestorePadding", [f32(19, 3), order], "tokens and places")


def attended(qkv, lens, heads, scale=None, added=None):
    """Attention within each sequence: tokens of queries, keys and values, [tokens, hidden]."""
    out, first = [], 0
    for b, count in enumerate(lens):
        q, k, v = (x[first : first + count].astype(np.float64).reshape(count, heads, -1).transpose(1, 0, 2) for x in qkv)
        scores = q @ k.transpose(0, 2, 1) * (scale or 1 / np.sqrt(q.shape[-1]))
        if added is not None:
            scores += added[b % len(added), :, :count, :count]
        e = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
        out.append(((e / e.sum(-1, keepdims=True)) @ v).transpose(1, 0, 2).reshape(count, -1))
        first += count
    return np.concatenate(out).astype(qkv[0].dtype)


def attentions(check, refused):
    heads, size, narrow, length, lens = 4, 32, 24, 7, [3, 7, 1, 5]
    order, ends = places(lens, length)
    tokens, batch = int(ends[-1]), len(lens)
    q, k, v = f32(tokens, size), f32(tokens, size), f32(tokens, narrow)
    bias, bias3 = f32(2 * size + narrow), f32(3 * size)
    shifted = [q + bias[:size], k + bias[size : 2 * size], v + bias[2 * size :]]
    run = lambda ins, feed, want, **more: check("PackedMultiHeadAttention", ins, feed=feed, num_heads=heads, slack=1e-4, want=[want], **more)
    names = {**{(i, 0): "t" for i in range(3)}, (4, 0): "b", (4, 1): "s", (5, 0): "e"}
    for symbolic in ({}, names):
        run([q, k, v, None, order, ends], (0, 1, 2, 4, 5), attended([q, k, v], lens, heads), symbolic=symbolic)
    run([q, k, v, bias, order, ends], (0, 1, 2, 4, 5), attended(shifted, lens, heads), symbolic=names)
    run([q, k, v, bias, order, ends], (0, 1, 2), attended(shifted, lens, heads, 0.3), scale=0.3)
    for shape in ((batch, heads), (1, heads), (batch, 1), (1, 1)):
        added = f32(*shape, length, length)
        run([q, k, v, None, order, ends, added], (0, 1, 2, 4, 5, 6), attended([q, k, v], lens, heads, added=added))
    qkv = f32(tokens, heads, 3, size // heads)
    apart = [np.ascontiguousarray(qkv[:, :, i]).reshape(tokens, size) for i in range(3)]
    run([qkv, None, None, None, order, ends], (0, 4, 5), attended(apart, lens, heads), symbolic={(0, 0): "t", (4, 0): "b", (4, 1): "s", (5, 0): "e"})
    run([qkv, None, None, bias3, order, ends], (0, 4, 5), attended([a + c for a, c in zip(apart, np.split(bias3, 3), strict=True)], lens, heads))
    alone = [a.copy() for a in (q, k, v)]  # what is no number stays in its sequence
    alone[1][:3], alone[2][:3] = np.inf, np.nan
    want = attended([q, k, v], lens, heads)
    check("PackedMultiHeadAttention", [*alone, None, order, ends], feed=(0, 1, 2, 4, 5), num_heads=heads, slack=1e-4, want=[want], see=lambda y: y[3:])
    given = dict(num_heads=heads)
    refused("PackedMultiHeadAttention", [q, k, v, None, None, ends], "token_offset is missing", **given)
    refused("PackedMultiHeadAttention", [q, k, v, None, order], "cumulative_sequence_length is missing", **given)
    refused("PackedMultiHeadAttention", [q, None, None, None, order, ends], "the key or the value is missing", **given)
    refused("PackedMultiHeadAttention", [q, k, v, None, order, ends[:-1]], "sequences", **given)
    refused("PackedMultiHeadAttention", [qkv, k, v, None, order, ends], "has the key and the value in it", **given)
    x, w, bias = f32(tokens, 20), f32(20, 3 * size, scale=0.2), f32(3 * size)
    sizes = {(0, 0): "t", (3, 0): "b", (3, 1): "s", (4, 0): "e"}
    run = lambda ins, feed, want, **more: check("PackedAttention", ins, feed=feed, num_heads=heads, slack=1e-4, want=[want], **more)
    for symbolic in ({}, sizes):
        run([x, w, bias, order, ends], (0, 3, 4), attended(np.split(x @ w + bias, 3, 1), lens, heads), symbolic=symbolic)
    added = f32(1, heads, length, length)
    run([x, w, bias, order, ends, added], (0, 3, 4, 5), attended(np.split(x @ w + bias, 3, 1), lens, heads, 0.3, added), scale=0.3)
    w, bias = f32(20, 2 * size + 8, scale=0.2), f32(2 * size + 8)
    parts = np.split(x @ w + bias, [size, 2 * size], 1)
    run([x, w, bias, order, ends], (0, 3, 4), attended(parts, lens, heads), qkv_hidden_sizes=[size, size, 8])
    refused("PackedAttention", [x, w, bias[1:], order, ends], "bias", qkv_hidden_sizes=[size, size, 8], **given)
    refused("PackedAttention", [x, w, bias, order.T, ends], "sequences", qkv_hidden_sizes=[size, size, 8], **given)


# ---- matrices in an order -------------------------------------------------------------------------------------------
COL, ROW = 0, 1


def by_columns(a):
    """The elements of a matrix, or of each of a batch, column by column, in the matrix's shape."""
    return np.ascontiguousarray(np.swapaxes(a, -1, -2)).reshape(a.shape)


def rounded(real):
    return np.clip(np.rint(real), -128, 127).astype(np.int8)


def ordered_bytes(check, refused):
    scale, to = np.float32(0.037), np.float32(0.021)
    names = {(0, 0): "b", (0, 1): "n", (0, 2): "m"}
    for shape in ((2, 5, 8), (5, 8), (7,)):
        x = f32(*shape, scale=2.0)
        y = rounded(x / scale)
        turned = by_columns if len(shape) > 1 else lambda a: a
        given = names if len(shape) == 3 else {}
        run = lambda ins, want, **more: check("QuantizeWithOrder", ins, symbolic=given, want=[want], **more)
        run([x, scale], y, order_input=ROW, order_output=ROW)
        run([x, scale], turned(y), order_input=ROW, order_output=COL)
        run([turned(x), scale.reshape(1)], y, order_input=COL, order_output=ROW)
        run([x.astype(np.float16), scale], rounded(x.astype(np.float16).astype(np.float32) / scale), order_input=ROW, order_output=ROW)
        back = y.astype(np.float32) * scale
        run = lambda ins, want, **more: check("DequantizeWithOrder", ins, symbolic=given, want=[want], **more)
        run([y, scale], back, to=1, order_input=ROW, order_output=ROW)
        run([turned(y), scale], back, to=1, order_input=COL, order_output=ROW)
        run([y, scale], turned(back).astype(np.float16), to=10, order_input=ROW, order_output=COL)
    refused("QuantizeWithOrder", [x, scale], "COL32 of order_output", order_input=ROW, order_output=2)
    refused("QuantizeWithOrder", [x, scale], "COL32_2R_4R4 of order_output", order_input=ROW, order_output=4)
    refused("QuantizeWithOrder", [x, scale], "order_output", order_input=ROW)
    refused("DequantizeWithOrder", [y, scale], "COL4_4R2_8C of order_input", order_input=3, order_output=ROW, to=1)
    refused("DequantizeWithOrder", [y, scale], "cannot dequantize to f64", order_input=ROW, order_output=ROW, to=11)
    every = np.arange(-128, 128).astype(np.int8).reshape(2, 8, 16)
    real = every.astype(np.float64) * scale
    gelu = real * 0.5 * (1 + np.vectorize(math.erf)(real / np.sqrt(2)))
    for order in ({}, dict(order_X=ROW, order_Y=ROW), dict(order_X=COL, order_Y=COL)):
        check("QOrderedGelu", [every, scale, to], slack=1, symbolic=names, want=[rounded(gelu / to)], **order)
    refused("QOrderedGelu", [every, scale, to], "must be the same", order_X=COL, order_Y=ROW)
    gamma, beta = f32(16), f32(16)
    normal = (real - real.mean(-1, keepdims=True)) / np.sqrt(real.var(-1, keepdims=True) + 1e-3)
    for kind in (np.float32, np.float16):
        g, b = gamma.astype(kind), beta.astype(kind)
        run = lambda x, b, want, **more: check("QOrderedLayerNormalization", [x, scale, g, b, to], slack=1, epsilon=1e-3, want=[want], **more)
        run(every, b, rounded((normal * g + b) / to), symbolic=names)
        run(every, None, rounded(normal * g / to), axis=2)
        run(by_columns(every), b, by_columns(rounded((normal * g + b) / to)), order_X=COL, order_Y=COL, symbolic=names)
    refused("QOrderedLayerNormalization", [every, scale, gamma, beta], "scale of the result is missing")
    refused("QOrderedLayerNormalization", [every, scale, gamma, beta, to], "more than the last axis", axis=1)


def ordered_products(check, refused):
    a_scale, b_scale, y_scale, c_scale = (np.float32(v) for v in (0.03, 0.02, 0.21, 0.05))
    order = dict(order_A=ROW, order_B=COL, order_Y=ROW)
    for a_shape, b_shape in (((16, 32), (32, 24)), ((3, 7, 40), (40, 33)), ((3, 7, 40), (1, 40, 33)), ((3, 7, 40), (3, 40, 33))):
        a, b = whole(-64, 64, a_shape, np.int8), whole(-64, 64, b_shape, np.int8)
        total = a.astype(np.int64) @ b.astype(np.int64)
        lanes, bias = rng.uniform(0.01, 0.03, b_shape[-1]).astype(np.float32), f32(b_shape[-1], scale=3.0)
        names = {(0, d): "bmk"[-len(a_shape) + d] for d in range(len(a_shape) - 1)}
        exact = lambda scales: [rounded(total.astype(np.float32) * (a_scale * scales / y_scale))]
        check("QOrderedMatMul", [a, a_scale, by_columns(b), b_scale, y_scale], symbolic=names, want=exact(b_scale), **order)
        check("QOrderedMatMul", [a, a_scale, by_columns(b), lanes, y_scale], feed=(0, 2), want=exact(lanes), **order)
        run = lambda ins, real, **more: check("QOrderedMatMul", ins, slack=1, want=[rounded(real / y_scale)], **{**order, **more})
        run([a, a_scale, by_columns(b), lanes, y_scale, bias], total * (a_scale * lanes) + bias, symbolic=names)
        for shape in {total.shape, total.shape[-2:], (*(1,) * (total.ndim - 2), *total.shape[-2:])}:
            c = whole(-128, 128, shape, np.int8)
            run([a, a_scale, by_columns(b), lanes, y_scale, bias, c, c_scale], total * (a_scale * lanes) + bias + c * c_scale, feed=(0, 6))
            run([a, a_scale, by_columns(b), b_scale, y_scale, None, c, c_scale], total * (a_scale * b_scale) + c * c_scale, feed=(0, 6))
    ins = [a, a_scale, b, b_scale, y_scale]
    refused("QOrderedMatMul", ins, "COL32 of order_A", order_A=2, order_B=3, order_Y=2)
    refused("QOrderedMatMul", ins, "B in order COL", order_A=ROW, order_B=ROW, order_Y=ROW)
    refused("QOrderedMatMul", [*ins, None, c], "scale of C", **order)
    refused("QOrderedMatMul", [*ins, None, c[..., :-1], c_scale], "dims of C and Y", **order)


def ordered_attention(check, refused):
    """Queries, keys and values, scores, softmax and result are bytes, each rounded with its scale."""
    single = np.float32
    order = dict(order_input=ROW, order_weight=COL, order_output=ROW)
    for batch, length, width, hidden, heads in ((2, 16, 24, 32, 2), (1, 5, 8, 12, 3)):
        x, w = whole(-90, 90, (batch, length, width), np.int8), [whole(-90, 90, (width, hidden), np.int8) for _ in range(3)]
        of_x, gemm, of_scores, of_softmax, of_y = single(0.02), [single(v) for v in (0.031, 0.027, 0.022)], single(0.043), single(0.0079), single(0.011)
        bias = [f32(hidden, scale=0.3) for _ in range(3)]
        mask = np.ones((batch, length), np.int32)
        mask[-1, length // 2 + 1:] = 0
        names = {(0, 0): "b", (0, 1): "n"}
        for of_w in ([single(0.004), single(0.005), single(0.006)], [rng.uniform(0.003, 0.006, hidden).astype(np.float32) for _ in range(3)]):
            real = lambda k: (x.astype(np.int64) @ w[k].astype(np.int64)) * (of_x * of_w[k]).astype(np.float64) + bias[k]
            split = lambda v: v.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3).astype(np.float64)
            q, k, v = (split(rounded(real(i) / gemm[i])) for i in range(3))
            scores = rounded(q @ k.swapaxes(2, 3) * (float(gemm[0]) * gemm[1] / of_scores)).astype(np.float64)
            for seen in (mask, None):
                power = np.exp((scores - scores.max(-1, keepdims=True)) * of_scores / math.sqrt(hidden // heads)) * (1 if seen is None else seen[:, None, None])
                weights = rounded(power / power.sum(-1, keepdims=True) / of_softmax).astype(np.float64)
                want = rounded(weights @ v * (float(of_softmax) * gemm[2] / of_y)).transpose(0, 2, 1, 3).reshape(batch, length, hidden)
                ins = [x, of_x, *gemm, *map(by_columns, w), *of_w, *bias, of_scores, of_softmax, of_y, *([] if seen is None else [seen])]
                dims = {**names, (17, 0): "b", (17, 1): "n"} if seen is not None else names
                more = dict(num_heads=heads, qkv_hidden_sizes=[hidden] * 3, **order)
                check("QOrderedAttention", ins, slack=2, feed=(0,) if seen is None else (0, 17), symbolic=dims, want=[want], **more)
    refused("QOrderedAttention", ins, "unidirectional", **{**more, "unidirectional": 1})
    refused("QOrderedAttention", ins, "COL32 of order_input", **{**more, "order_input": 2})
    refused("QOrderedAttention", ins, "weights in order COL", **{**more, "order_weight": ROW})
    refused("QOrderedAttention", ins, "not those of the weights", **{**more, "qkv_hidden_sizes": [hidden, hidden, 8]})
    refused("QOrderedAttention", ins, "do not divide", **{**more, "num_heads": 5})
    refused("QOrderedAttention", [*ins[:14], None, *ins[15:]], "input 14 of QOrderedAttention", **more)
    refused("QOrderedAttention", [*ins[:12], bias[1][1:], *ins[13:]], "bias", **more)


# ---- a window of tokens, and some that see all ----------------------------------------------------------------------
def seen_through(local, whole, mask, flags, heads, window):
    """Longformer attention, from projections [batch, length, 3 * hidden]: each token sees its window and the flagged tokens, those see all."""
    batch, length, width = local.shape
    at = np.arange(length)
    near = np.abs(at[:, None] - at) <= window
    out = np.zeros((batch, heads, length, width // 3 // heads))
    for packed, rows, keys in ((local, flags == 0, near | (flags != 0)[:, None, :]), (whole, flags != 0, np.ones((batch, length, length), bool))):
        q, k, v = packed.astype(np.float64).reshape(batch, length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]) + mask.astype(np.float64)[:, None, None]
        power = np.exp(scores - scores.max(-1, keepdims=True)) * keys[:, None]
        with np.errstate(invalid="ignore"):  # rows of masked tokens
            y = power / power.sum(-1, keepdims=True) @ v
        out = np.where((rows & (mask >= 0))[:, None, :, None], y, out)
    return out.transpose(0, 2, 1, 3).reshape(batch, length, width // 3)


def windows(check, refused):
    order = dict(order_input=ROW, order_weight=COL, order_global_weight=COL, order_output=ROW)
    single = np.float32
    for batch, length, hidden, heads, window in ((2, 12, 12, 3, 2), (1, 7, 8, 2, 1)):
        mask, flags = np.zeros((batch, length), np.float32), np.zeros((batch, length), np.int32)
        mask[-1, length - 3:] = -10000
        flags[:, 0], flags[-1, length // 2] = 1, 1
        named = lambda m, g: {(0, 0): "b", (0, 1): "n", (m, 0): "b", (m, 1): "n", (g, 0): "b", (g, 1): "n"}
        more = dict(num_heads=heads, window=window)
        x, w, gw = f32(batch, length, hidden), f32(hidden, 3 * hidden), f32(hidden, 3 * hidden)
        bias, global_bias = f32(3 * hidden), f32(3 * hidden)
        want = seen_through(x @ w + bias, x @ gw + global_bias, mask, flags, heads, window)
        run = lambda ins, want, **also: check("LongformerAttention", ins, feed=(0, 3, 6), want=[want], **{**more, **also})
        ins = [x, w, bias, mask, gw, global_bias, flags]
        run(ins, want.astype(np.float32), slack=1e-4)
        run(ins, want.astype(np.float32), slack=1e-4, symbolic=named(3, 6))
        apart = lambda v: np.ascontiguousarray(v.reshape(hidden, 3, hidden).transpose(1, 0, 2))
        run([x, apart(w), np.concatenate([bias, global_bias[hidden:]]), mask, apart(gw), global_bias[:hidden], flags], want.astype(np.float32), slack=1e-4)
        none = np.zeros_like(flags)
        run([*ins[:6], none], seen_through(x @ w + bias, x @ gw, mask, none, heads, window).astype(np.float32), slack=1e-4)
        half = [v.astype(np.float16) if v.dtype == np.float32 else v for v in ins]
        run(half, want.astype(np.float16), slack=0.1)
        x, w, gw = whole(-90, 90, x.shape, np.int8), whole(-90, 90, w.shape, np.int8), whole(-90, 90, gw.shape, np.int8)
        of_x, of_w, of_gw, of_qkv, of_global, of_y = (single(v) for v in (0.02, 0.004, 0.005, 0.03, 0.035, 0.02))
        bias, global_bias = f32(3 * hidden, scale=9), f32(3 * hidden, scale=9)
        real = lambda w, scale, bias, to: rounded((x.astype(np.int64) @ w.astype(np.int64)).astype(np.float32) * (of_x * scale / to) + bias) * to
        parts = real(w, of_w, bias, of_qkv), real(gw, of_gw, global_bias, of_global)
        want = rounded(seen_through(*parts, mask, flags, heads, window) / of_y)
        ins = [x, of_x, by_columns(w), of_w, bias, single(1), of_qkv, mask.astype(np.float16), by_columns(gw), of_gw, global_bias, of_global, flags, of_y]
        for names in ({}, named(7, 12)):
            check("QOrderedLongformerAttention", ins, slack=2, feed=(0, 7, 12), symbolic=names, want=[want], **more, **order)
    refused("QOrderedLongformerAttention", ins, "COL32 of order_input", **more, **{**order, "order_input": 2})
    refused("QOrderedLongformerAttention", ins, "in order COL", **more, **{**order, "order_global_weight": ROW})
    refused("QOrderedLongformerAttention", ins, "hidden size and heads", **{**more, "num_heads": 3}, **order)
    refused("QOrderedLongformerAttention", [*ins[:7], ins[7][:, 1:], *ins[8:]], "dimension of the mask", **more, **order)
    refused("QOrderedLongformerAttention", [*ins[:2], ins[2][:, 1:], *ins[3:]], "dimension of the weights", **more, **order)
    refused("LongformerAttention", [half[0].astype(np.float32), *half[1:]], "input 1 of", **more)
