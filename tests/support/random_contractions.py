"""Contractions of random_graphs.py: convolutions, poolings, matrix products, attention."""
import numpy as np

from tests.support.random_values import SIZES, Skip, Value, dim, fixed


class Contractions:
    def image(self, low=2):
        """A value with batch, fixed channels and one or two spatial dimensions."""
        x = self.float_value(at_least=3, want=lambda v: v.rank <= 5 and fixed(v.shape[1])
                             and all(min(d) >= low for d in v.shape[2:]))
        return x, x.shape[1][0], x.rank - 2

    def window(self, x, rank, kernels, dilations=(1, 1, 2)):
        k, s, d, pads, out = [], [], [], ([], []), []
        for i in range(rank):
            low = min(x.shape[2 + i])
            k.append(self.pick([q for q in kernels if q <= low + 1] or [1]))
            s.append(self.pick([1, 1, 1, 2, 3]))
            d.append(self.pick(dilations) if k[i] > 1 else 1)
            half = k[i] // 2
            for p in pads:
                p.append(int(self.rng.integers(0, half + 1)) if self.chance(0.4) else half)
            reach = d[i] * (k[i] - 1) + 1
            if low + pads[0][i] + pads[1][i] < reach:
                raise Skip
            out.append(tuple((n + pads[0][i] + pads[1][i] - reach) // s[i] + 1 for n in x.shape[2 + i]))
        return k, s, d, pads, out

    def op_conv(self):
        x, c, rank = self.image(1)
        k, s, d, pads, out = self.window(x, rank, [1, 1, 2, 3, 3, 3, 5])
        group = self.pick([1, 1, 1, c] + [g for g in range(1, c + 1) if c % g == 0])
        m = group * self.pick([1, 1, 2, 3]) if group > 1 else self.pick(SIZES)
        w = self.weights(m, c // group, *k, scale=(c // group * np.prod(k)) ** -0.5)
        inputs = [x, w] + ([self.weights(m)] if self.chance(0.6) else [])
        y = self.emit("Conv", inputs, (x.shape[0], dim(m), *out), keep=False, kernel_shape=k, strides=s, dilations=d,
                      pads=pads[0] + pads[1], group=group)
        return self.keep(self.unary(self.pick(["Relu", "Sigmoid", "HardSwish"]), y) if self.chance(0.4) else y)

    def op_conv_transpose(self):
        x, c, rank = self.image(1)
        k = [self.pick([1, 2, 3, 4]) for _ in range(rank)]
        s = [self.pick([1, 2, 3]) for _ in range(rank)]
        extra = [int(self.rng.integers(0, v)) for v in s]
        lo, hi = ([int(self.rng.integers(0, v // 2 + 1)) for v in k] for _ in range(2))
        out = [tuple((n - 1) * s[i] + k[i] + extra[i] - lo[i] - hi[i] for n in x.shape[2 + i]) for i in range(rank)]
        group = self.pick([1, 1, c])
        m = self.pick([1, 2, 3, 5, 8])
        w = self.weights(c, m, *k, scale=(c // group * np.prod(k)) ** -0.5)
        return self.emit("ConvTranspose", [x, w], (x.shape[0], dim(m * group), *out), kernel_shape=k, strides=s,
                         output_padding=extra, pads=lo + hi, group=group)

    def op_pool(self):
        x, _, rank = self.image()
        if self.chance(0.2):
            return self.emit(self.pick(["GlobalAveragePool", "GlobalMaxPool"]), [x], x.shape[:2] + (dim(1),) * rank)
        op = self.pick(["MaxPool", "AveragePool"])
        k, s, d, pads, out = self.window(x, rank, [2, 2, 3], (1,))
        if any(p >= q for side in pads for p, q in zip(side, k)):
            raise Skip
        attrs = {"count_include_pad": int(self.chance(0.5))} if op == "AveragePool" else {}
        return self.emit(op, [x], (*x.shape[:2], *out), kernel_shape=k, strides=s, pads=pads[0] + pads[1], **attrs)

    def op_matmul(self):
        x = self.float_value(at_least=2, want=lambda v: fixed(v.shape[-1]))
        k = x.shape[-1][0]
        n = self.pick(SIZES)
        y = self.emit("MatMul", [x, self.weights(k, n, scale=k**-0.5)], x.shape[:-1] + (dim(n),), keep=False)
        if self.chance(0.5):
            y = self.binary("Add", y, self.weights(n))
        if self.chance(0.4):
            y = self.unary(self.pick(["Relu", "Gelu", "Tanh"]), y)
        return self.keep(y)

    def op_matmul_dynamic(self):
        x = self.float_value(at_least=2)
        ok = [v for v in self.values if v.dtype == np.float32 and v.rank >= 2 and v.shape[-2] == x.shape[-1]
              and self.fits_with(Value("", v.shape[:-2]), Value("", x.shape[:-2]))]
        if ok and self.chance(0.6):
            y = self.pick(ok)
        else:  # x times its own transpose
            perm = list(range(x.rank))
            perm[-2:] = perm[:-3:-1]
            y = self.emit("Transpose", [x], [x.shape[p] for p in perm], keep=False, perm=perm)
        shape = self.broadcast(x.shape[:-2], y.shape[:-2]) + (x.shape[-2], y.shape[-1])
        z = self.emit("MatMul", [self.unary("Tanh", x), y], shape, keep=False)
        if self.chance(0.5):
            z = self.emit("Softmax", [self.binary("Mul", z, self.scalar(0.3))], shape, keep=False, axis=-1)
        return self.keep(z)

    def op_attention(self):
        x = self.float_value(rank=3, want=lambda v: fixed(v.shape[2]) and v.shape[2][0] % 2 == 0)
        b, t, e = x.shape
        heads = 2
        def head():
            y = self.emit("MatMul", [x, self.weights(e[0], e[0], scale=e[0] ** -0.5)], x.shape, keep=False)
            y = self.emit("Reshape", [y, self.ints(0, 0, heads, e[0] // heads)], (b, t, dim(heads), dim(e[0] // heads)), keep=False)
            return self.emit("Transpose", [y], (b, dim(heads), t, dim(e[0] // heads)), keep=False, perm=[0, 2, 1, 3])
        q, k, v = head(), head(), head()
        kt = self.emit("Transpose", [k], (b, dim(heads), dim(e[0] // heads), t), keep=False, perm=[0, 1, 3, 2])
        s = self.emit("MatMul", [q, kt], (b, dim(heads), t, t), keep=False)
        p = self.emit("Softmax", [self.binary("Mul", s, self.scalar(0.5))], s.shape, keep=False, axis=-1)
        o = self.emit("MatMul", [p, v], q.shape, keep=False)
        o = self.emit("Transpose", [o], (b, t, dim(heads), dim(e[0] // heads)), keep=False, perm=[0, 2, 1, 3])
        return self.emit("Reshape", [o, self.ints(0, 0, -1)], x.shape)

    def op_gemm(self):
        x = self.float_value(rank=2)
        ta = self.chance(0.3)
        k, m = (x.shape[0], x.shape[1]) if ta else (x.shape[1], x.shape[0])
        if not fixed(k):
            raise Skip
        n, tb = self.pick(SIZES), self.chance(0.5)
        w = self.weights(*((n, k[0]) if tb else (k[0], n)), scale=k[0] ** -0.5)
        inputs = [x, w] + ([self.weights(*self.pick([(n,), (1, n), (1,), (1, 1)]))] if self.chance(0.6) else [])
        return self.emit("Gemm", inputs, (m, dim(n)), transA=int(ta), transB=int(tb), alpha=self.pick([1.0, 0.5]),
                         beta=self.pick([1.0, 2.0]))

    def op_einsum(self):
        x = self.float_value(rank=3, want=lambda v: fixed(v.shape[2]))
        b, t, e = x.shape
        text, shape, w = self.pick([
            ("bte,ef->btf", (b, t, dim(5)), (e[0], 5)), ("bte,fe->bft", (b, dim(4), t), (4, e[0])),
            ("bte,ehd->bhtd", (b, dim(2), t, dim(3)), (e[0], 2, 3)), ("bte,e->bt", (b, t), (e[0],))])
        return self.emit("Einsum", [x, self.weights(*w, scale=e[0] ** -0.5)], shape, equation=text)
