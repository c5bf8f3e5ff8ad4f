#!/usr/bin/env python3
"""Part "weights": products whose constant weights stay in 2, 4, 8 or 16 bits, against an oracle in float64.

run_weights.py [--seed S] [--count N] [--target T] [--verbose]: MatMul and Gemm of DequantizeLinear (of integers and of 8-bit floats) and
of Cast, and MatMulNBits, of random and of chosen shapes: sums with a rest, blocks that do not divide them, all forms of zero points,
few rows and many, symbolic ones; with accuracy_level 4, where rows are rounded to bytes, against the exact sums of what is rounded; of 16-bit floats products and convolutions that convert a block of a panel, or each element. Compiled at -O3, by turns at -O0 (the operator as it is defined) and for other targets, some under
qemu. Programs must be as small as the weights are, and MatMulNBits must give what ONNX Runtime gives.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import ml_dtypes
import numpy as np
from onnx import TensorProto as T, helper, numpy_helper

import burin
from tests.support import turns

INTS = {"u2": (T.UINT2, 0, 3), "i2": (T.INT2, -2, 1), "u4": (T.UINT4, 0, 15), "i4": (T.INT4, -8, 7), "u8": (T.UINT8, 0, 255), "i8": (T.INT8, -128, 127)} \
    if hasattr(T, "UINT2") else {"u4": (T.UINT4, 0, 15), "i4": (T.INT4, -8, 7), "u8": (T.UINT8, 0, 255), "i8": (T.INT8, -128, 127)}
FLOATS = {"f8e4m3fn": (T.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn), "f8e5m2": (T.FLOAT8E5M2, ml_dtypes.float8_e5m2),
          "f8e4m3fnuz": (T.FLOAT8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz), "f8e5m2fnuz": (T.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz)}


def tensor(name, kind, a):
    """A constant of one of the types above."""
    if kind in FLOATS:
        code, t = FLOATS[kind]
        return helper.make_tensor(name, code, a.shape, a.astype(t).tobytes(), raw=True)
    code = INTS[kind][0]
    bits = int(kind[1])
    if bits == 8:
        return helper.make_tensor(name, code, a.shape, a.astype(np.int8 if kind == "i8" else np.uint8).tobytes(), raw=True)
    return helper.make_tensor(name, code, a.shape, pack(a.reshape(1, -1), bits).tobytes(), raw=True)


def pack(rows, bits):
    """Rows of small integers as bytes, the first element in the lowest bits; each row begins with a byte."""
    per = 8 // bits
    rows = np.pad(rows, [(0, 0), (0, -rows.shape[-1] % per)]).astype(np.int64) & (1 << bits) - 1
    rows = rows.reshape(rows.shape[0], -1, per)
    return (rows << np.arange(per) * bits).sum(-1).astype(np.uint8)


class Case:
    """y = x @ w, w [K, N] = (q - zero) * scale; grain: "one", "column" or the size of blocks. form: which nodes say so. level: of accuracy."""

    def __init__(self, rng, kind, m, k, n, grain, form="MatMul", zeros="random", symbolic=False, batch=(), bias=False, level=0):
        self.kind, self.form, self.symbolic, self.grain, self.bias, self.level, self.groups = kind, form, symbolic, grain, None, level, None
        self.title = f"{form} {kind} {batch}{m}x{k}x{n} grain {grain} zeros {zeros} symbolic {symbolic:d} bias {bias:d} level {level}"
        self.x = rng.standard_normal((*batch, m, k)).astype(np.float32)
        self.feeds = {"x": self.x}
        shape = () if grain == "one" else (n,) if grain == "column" else (-(-k // grain), n)
        self.scale = rng.uniform(0.01, 0.1, shape).astype(np.float32)
        self.zero_kind = kind
        if kind in FLOATS:
            t = FLOATS[kind][1]
            codes = rng.integers(0, 256, (k, n)).astype(np.uint8).view(t)
            self.q = np.where(np.isfinite(codes.astype(np.float32)), codes.astype(np.float32), 1)
            self.q = np.where(rng.random((k, n)) < 0.1, self.q, self.q / 64).astype(t).astype(np.float32)  # subnormal ones, too
            self.zero = None
        else:
            low, high = INTS[kind][1:]
            self.q = rng.integers(low, high, (k, n), endpoint=True)
            self.zero = None if zeros is None else np.zeros(shape, int) if zeros == 0 else rng.integers(low, high, shape, endpoint=True)
            if form == "MatMulNBits" and zeros == "float":
                self.zero_kind, self.zero = "f32", rng.uniform(low, high, shape).astype(np.float32)
        if bias:
            self.bias = rng.standard_normal(n).astype(np.float32)

    def weights(self):
        spread = lambda a: np.repeat(a, self.grain, 0)[:self.q.shape[0]] if isinstance(self.grain, int) else a
        if self.groups is not None:
            spread = lambda a: a[self.groups]
        zero = self.zero
        if zero is None:
            zero = np.array(2 ** (int(self.kind[1]) - 1) if self.form == "MatMulNBits" else 0)
            return (self.q - zero).astype(np.float64) * spread(self.scale)
        return (self.q - spread(zero)).astype(np.float64) * spread(self.scale)

    def rows(self):
        """What is multiplied: x, or with accuracy_level 4 (and zero points that are integers) each block of it in 127 steps on either side of 0. Not that with g_idx."""
        if self.level != 4 or self.zero_kind == "f32" or self.groups is not None:
            return self.x.astype(np.float64)
        lead, k = self.x.shape[:-1], self.x.shape[-1]
        x = np.pad(self.x, [(0, 0)] * len(lead) + [(0, -k % self.grain)]).reshape(*lead, -1, self.grain)
        largest = np.abs(x).max(-1, keepdims=True)
        with np.errstate(all="ignore"):
            steps = np.where(largest > 2.0**-119, np.float32(127) / largest, np.float32(0))
            rounded = np.rint(x * steps).astype(np.float64) * (largest / np.float32(127)).astype(np.float64)
        return rounded.reshape(*lead, -1)[..., :k]

    def oracle(self):
        """The result, and what rounding errors are measured by."""
        w, x = self.weights(), self.rows()
        y, size = x @ w, np.abs(x) @ np.abs(w)
        return (y, size) if self.bias is None else (y + self.bias, size + np.abs(self.bias))

    def nbits(self):
        bits, (k, n) = int(self.kind[1]), self.q.shape
        blocks = -(-k // self.grain)
        q = np.pad(self.q, [(0, blocks * self.grain - k), (0, 0)]).T.reshape(n * blocks, self.grain)
        init = [numpy_helper.from_array(pack(q, bits).reshape(n, blocks, -1), "q"),
                numpy_helper.from_array(np.ascontiguousarray(self.scale.T).reshape(-1), "s")]
        names = ["x", "q", "s", "", "", ""]
        if self.zero is not None:
            z = self.zero.T
            z = np.ascontiguousarray(z).reshape(n, blocks) if self.zero_kind == "f32" else pack(z, bits).reshape(-1)
            init.append(numpy_helper.from_array(z, "z"))
            names[3] = "z"
        if self.groups is not None:
            init.append(numpy_helper.from_array(self.groups.astype(np.int32), "g"))
            names[4] = "g"
        if self.bias is not None:
            init.append(numpy_helper.from_array(self.bias, "b"))
            names[5] = "b"
        while not names[-1]:
            names.pop()
        return [helper.make_node("MatMulNBits", names, ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=self.grain,
                                 accuracy_level=self.level)], init

    def dequantized(self):
        turned = self.form in ("transB", "Transpose")
        turn = lambda a: np.ascontiguousarray(a.T) if turned and a.ndim == 2 else a
        init = [tensor("q", self.kind, turn(self.q))]
        names, attrs, nodes = ["q", "s"], {}, []
        if self.form == "Cast":
            nodes.append(helper.make_node("Cast", ["q"], ["w"], to=T.FLOAT))
            self.scale = np.float32(1)
        else:
            init.append(numpy_helper.from_array(turn(np.asarray(self.scale)), "s"))
            if self.zero is not None:
                init.append(tensor("z", self.kind, turn(np.asarray(self.zero))))
                names.append("z")
            if isinstance(self.grain, int):
                attrs = dict(axis=1 if turned else 0, block_size=self.grain)
            elif self.grain == "column":
                attrs = dict(axis=-2 if turned else 1)
            nodes.append(helper.make_node("DequantizeLinear", names, ["w"], **attrs))
        w = "w"
        if self.form == "Transpose":
            nodes.append(helper.make_node("Transpose", ["w"], ["t"]))
            w = "t"
        gemm = self.form == "transB"
        if gemm:
            inputs = ["x", w]
            if self.bias is not None:
                init.append(numpy_helper.from_array(self.bias, "b"))
                inputs.append("b")
            nodes.append(helper.make_node("Gemm", inputs, ["y"], transB=1))
        else:
            nodes.append(helper.make_node("MatMul", ["x", w], ["y" if self.bias is None else "p"]))
            if self.bias is not None:
                init.append(numpy_helper.from_array(self.bias, "b"))
                nodes.append(helper.make_node("Add", ["p", "b"], ["y"]))
        return nodes, init

    def model(self):
        nodes, init = self.nbits() if self.form == "MatMulNBits" else self.dequantized()
        shape = ["m" if self.symbolic and d == self.x.ndim - 2 else n for d, n in enumerate(self.x.shape)]
        value = lambda name, dims: helper.make_tensor_value_info(name, T.FLOAT, dims)
        graph = helper.make_graph(nodes, "g", [value("x", shape)], [value("y", None)], init)
        opsets = [helper.make_opsetid("", 25 if "2" in self.kind[1:2] else 23), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=11)


class Half:
    """y = x @ w, or a convolution, of 16-bit floats: products added up in f32 and rounded once."""

    def __init__(self, rng, dtype, m, k, n, symbolic=False, image=None, batch=()):
        self.symbolic, self.image, self.dtype, self.grain = symbolic, image, np.dtype(dtype), "one"
        self.title = f"{self.dtype} {batch}{m}x{k}x{n} image {image} symbolic {symbolic:d}"
        draw = lambda *shape: (rng.standard_normal(shape) * rng.choice([1, 1, 2.0**-9], shape)).astype(dtype)  # products of tiny ones, too
        self.x = draw(1, k, *image) if image else draw(*batch, m, k)
        self.w = draw(n, k, 3, 3) if image else draw(k, n)
        self.feeds = {"x": self.x}

    def oracle(self):
        from tests.support.template_cases import conv
        x, w = self.x.astype(np.float64), self.w.astype(np.float64)
        f = (lambda a, b: conv(a, b, None, (1, 1), (1, 1), (1, 1, 1, 1), 1)) if self.image else np.matmul
        return f(x, w), f(np.abs(x), np.abs(w))

    def model(self):
        code = helper.np_dtype_to_tensor_dtype(self.dtype)
        node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]) if self.image else helper.make_node("MatMul", ["x", "w"], ["y"])
        shape = ["m" if self.symbolic and d == self.x.ndim - 2 else n for d, n in enumerate(self.x.shape)]
        value = lambda name, dims: helper.make_tensor_value_info(name, code, dims)
        init = [helper.make_tensor("w", code, self.w.shape, self.w.tobytes(), raw=True)]
        graph = helper.make_graph([node], "g", [value("x", shape)], [value("y", None)], init)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def half_cases(rng):
    for m, k, n, symbolic, batch in ((1, 1030, 65, False, ()), (3, 513, 100, False, ()), (60, 1400, 200, False, ()), (130, 1024, 40, True, ()),
                                     (200, 2048, 96, False, ()), (2, 2048, 33, True, (3,))):
        yield Half(rng, np.float16, m, k, n, symbolic, batch=batch)
    yield Half(rng, np.float16, 0, 96, 50, image=(20, 30))
    yield Half(rng, np.float16, 0, 33, 17, image=(2, 3))
    yield Half(rng, ml_dtypes.bfloat16, 5, 700, 64)


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


def random_case(rng):
    m = pick(rng, [1, 1, 2, 3, 4, 5, 7, 16, 33, 100])
    k, n = pick(rng, [32, 65, 100, 128, 257, 384, 1031]), pick(rng, [16, 17, 33, 64, 100])
    if rng.random() < 0.4:
        zeros = pick(rng, [None, "random", "float"])
        return Case(rng, pick(rng, ["u4", "u4", "u8", *(["u2"] if "u2" in INTS else [])]), m, k, n, pick(rng, [16, 32, 64, 128, 256]), "MatMulNBits", zeros,
                    rng.random() < 0.4, pick(rng, [(), (2,)]), rng.random() < 0.3, pick(rng, [0, 4]))
    kind = pick(rng, [*INTS, *FLOATS])
    form = pick(rng, ["MatMul", "transB", "Transpose", *(["Cast"] if kind in FLOATS else [])])
    batch = () if form == "transB" else pick(rng, [(), (2,), (3, 2)])
    grain = "one" if form == "Cast" else pick(rng, ["one", "column", 8, 20, 32, 100, 128])
    return Case(rng, kind, m, k, n, grain, form, pick(rng, [None, 0, "random"]), rng.random() < 0.4, batch, rng.random() < 0.3)


def fixed_cases(rng):
    for kind in ("u4", "i4", "u8", "i8"):
        yield Case(rng, kind, 1, 513, 65, 32)
        yield Case(rng, kind, 130, 1024, 40, "column", symbolic=True)
        yield Case(rng, kind, 60, 700, 200, 100, zeros=0)  # blocks of a sum that scales do not follow
    yield Case(rng, "u4", 200, 2048, 96, 64, "MatMulNBits", None)
    yield Case(rng, "u4", 14, 2048, 96, 64, "MatMulNBits", symbolic=True)
    for kind in FLOATS:
        yield Case(rng, kind, 3, 64, 64, "one", "Cast")
    yield Case(rng, "u4", 1, 768, 256, 32, "MatMulNBits", None, symbolic=True, level=4)
    yield Case(rng, "u4", 70, 1031, 100, 128, "MatMulNBits", symbolic=True, level=4)  # blocks of several parts, the last one filled up
    yield Case(rng, "u8", 6, 100, 33, 16, "MatMulNBits", symbolic=True, batch=(2,), level=4)
    yield Case(rng, "u4", 3, 512, 65, 512, "MatMulNBits", "float", level=4)  # stays float
    case = Case(rng, "u4", 5, 128, 40, 32, "MatMulNBits", level=4)
    case.x[1], case.x[2, :32], case.x[3] = 0, 0, case.x[3] * 2.0**100  # and blocks that are too small for a factor, next to others
    case.x[4, 32:64] *= 2.0**-124
    yield case


def wrong(case, target, level):
    """What is wrong, or None."""
    got, bad = turns.output(case, target, level)
    if bad:
        return bad
    want, size = case.oracle()
    if got.shape != want.shape:
        return f"shape {got.shape}"
    terms, off = case.x.shape[-1], 0
    if isinstance(case, Half):
        terms, limits = case.w.size // want.shape[1 if case.image else -1], ml_dtypes.finfo(case.dtype)
        got = (got.view(case.dtype) if got.dtype.kind == "V" else got).astype(np.float64)
        off = float(limits.eps) / 2 * np.abs(want) + float(limits.smallest_subnormal)  # the one rounding at the end
    error = np.maximum(np.abs(got - want) - off, 0) / np.maximum(size, np.finfo(np.float64).tiny)
    limit = 2.0**-23 * (2 + terms**0.5)
    return None if error.max() <= limit else f"error {error.max():.2g}, allowed {limit:.2g}"


def sizes(rng):
    """What is wrong: how large the weights of programs are."""
    bad = []
    for kind, grain, most in (("u4", 32, 0.18), ("i8", "column", 0.27), ("f8e5m2", "one", 0.27), ("f16", "one", 0.52)):
        case = Half(rng, np.float16, 1, 1024, 512) if kind == "f16" else Case(rng, kind, 1, 1024, 512, grain, zeros=None)
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            path = Path(folder)
            (path / "m.onnx").write_bytes(case.model().SerializeToString())
            subprocess.run([burin.compiler(), "compile", path / "m.onnx", "-o", path / "m.o", "--emit=obj"], check=True, capture_output=True)
            share = (path / "m.o").stat().st_size / (1024 * 512 * 4)
            if share > most:
                bad.append(f"weights of {kind} take {share:.3f} of floats, at most {most} expected")
    return bad


def as_ort(rng, count):
    """What is wrong: MatMulNBits beside ONNX Runtime (which takes g_idx with 4 bits, and then reads whole zero points otherwise than without)."""
    import onnxruntime as ort
    bad = []
    for _ in range(count):
        case = Case(rng, pick(rng, ["u4", "u8"]), pick(rng, [1, 5, 40]), pick(rng, [64, 100, 256]), 48, pick(rng, [16, 32, 128]), "MatMulNBits",
                    pick(rng, [None, "random"]), level=pick(rng, [0, 4]))
        if case.kind == "u4" and case.zero is None and case.level == 0:
            case.groups = rng.permutation(np.arange(case.x.shape[-1]) // case.grain)
        want = ort.InferenceSession(case.model().SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": case.x})[0]
        got = burin.compile(case.model()).run({"x": case.x})[0]
        if not np.allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max()):
            bad.append(f"{case.title}: not as ONNX Runtime, off by {np.abs(got - want).max():.3g}")
    return bad


def no_numbers(rng):
    """What is wrong: with accuracy_level 4 an infinite or missing number makes NaN of its own row, and of no other."""
    case = Case(rng, "u4", 4, 96, 40, 32, "MatMulNBits", level=4)
    case.x[1, 40], case.x[2, 90] = np.inf, np.nan
    got, (want, _) = burin.compile(case.model()).run({"x": case.x})[0], case.oracle()
    good = np.isnan(got[1:3]).all() and np.allclose(got[[0, 3]], want[[0, 3]], rtol=1e-4, atol=1e-4)
    return [] if good else [f"{case.title}: rows with inf and NaN give {got[:, :4]}"]


def groups(rng):
    """What is wrong: g_idx, which says the block of each row: as it is without it, of blocks that are whole, of any, and out of range."""
    bad, k, grain = [], 90, 32
    blocks = np.arange(k) // grain
    for level, idx in ((0, blocks), (4, blocks), (0, rng.permutation(blocks)), (4, rng.permutation(blocks)), (0, rng.integers(0, 3, k)), (4, np.zeros(k, int))):
        case = Case(rng, "u4", 3, k, 40, grain, "MatMulNBits", symbolic=True, level=level)
        case.groups = idx
        got, want = burin.compile(case.model()).run({"x": case.x})[0], case.oracle()
        if np.abs(got - want[0]).max() > (0.01 if level else 1e-6) * want[1].max():
            bad.append(f"{case.title}: g_idx {idx[:5]}…: off by {np.abs(got - want[0]).max():.3g}")
    case.groups = blocks + 1
    try:
        burin.compile(case.model())
        bad.append("a g_idx out of range is accepted")
    except burin.CompileError as e:
        if "g_idx[64] is 3" not in str(e):
            bad.append(f"a g_idx out of range is refused so: {e}")
    return bad


def main():
    args = turns.arguments()
    rng = np.random.default_rng(args.seed)
    cases = [*fixed_cases(rng), *half_cases(np.random.default_rng(args.seed)), *(random_case(rng) for _ in range(args.count))]
    return turns.run_cases(cases, wrong, args, [*sizes(rng), *as_ort(rng, 10), *no_numbers(rng), *groups(rng)], 21)


if __name__ == "__main__":
    sys.exit(main())
