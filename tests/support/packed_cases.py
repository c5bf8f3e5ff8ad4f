"""Cases of part contrib: rows gathered from blocks of few bits.

check: `node` of tests/ops/run_contrib.py; refused: the same.
"""
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
