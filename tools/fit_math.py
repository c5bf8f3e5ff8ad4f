#!/usr/bin/env python3
"""Derives the polynomials of ir/expr/math*.c: minimax fits by Remez exchange, with coefficients rounded one
after the other and the rest fitted again. Needs mpmath.   python3 tools/fit_math.py | clang-format > ir/expr/math_tables.h"""
import struct
from mpmath import mp, mpf, matrix, lu_solve, exp, expm1, log, log1p, sin, cos, atan, asin, erf, erfc, sqrt, pi, cos as mcos

mp.dps = 45


def to_float(x):
    return mpf(struct.unpack("f", struct.pack("f", float(x)))[0])


def to_double(x):
    return mpf(float(x))


def remez(f, lo, hi, powers, weight):
    """Coefficients c of sum c[k]*t**powers[k] that make max |weight(t) * (sum - f(t))| least."""
    n = len(powers)
    grid = [(lo + hi) / 2 - (hi - lo) / 2 * mcos(pi * k / (40 * n)) for k in range(40 * n + 1)]
    fw = [(f(t), weight(t)) for t in grid]
    ok = [k for k in range(len(grid)) if fw[k][1] != 0]
    idx = [ok[round(k * (len(ok) - 1) / n)] for k in range(n + 1)]
    best = None
    for _ in range(30):
        a, b = matrix(n + 1, n + 1), matrix(n + 1, 1)
        for r, k in enumerate(idx):
            for c, p in enumerate(powers):
                a[r, c] = grid[k] ** p
            a[r, n] = (-1) ** r / fw[k][1]
            b[r] = fw[k][0]
        x = lu_solve(a, b)
        err = [fw[k][1] * (sum(x[c] * grid[k] ** p for c, p in enumerate(powers)) - fw[k][0]) for k in ok]
        worst = max(abs(e) for e in err)
        if best is None or worst < best[0]:
            best = (worst, [x[c] for c in range(n)])
        runs = []
        for j, e in enumerate(err):
            if runs and (e > 0) == (err[runs[-1]] > 0):
                if abs(e) > abs(err[runs[-1]]):
                    runs[-1] = j
            else:
                runs.append(j)
        while len(runs) > n + 1:
            runs.pop(0 if abs(err[runs[0]]) < abs(err[runs[-1]]) else -1)
        if len(runs) < n + 1:
            break
        new = [ok[j] for j in runs]
        if new == idx:
            break
        idx = new
    return best[1], best[0]


def least_squares(f, lo, hi, powers, weight):
    """Weighted least squares at Chebyshev nodes: nearly minimax, and indifferent to zeros of the weight."""
    n = 6 * len(powers) + 20
    t = [(lo + hi) / 2 - (hi - lo) / 2 * mcos(pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    a, b = matrix(n, len(powers)), matrix(n, 1)
    for r in range(n):
        w = weight(t[r])
        b[r] = w * f(t[r])
        for c, p in enumerate(powers):
            a[r, c] = w * t[r] ** p
    return list(lu_solve(a, b))


def fit(name, f, lo, hi, degree, weight, single):
    lo, hi = mpf(lo), mpf(hi)
    c, _ = remez(f, lo, hi, list(range(degree + 1)), weight)
    if single:  # round the lowest, fit the others again
        for k in range(degree + 1):
            c[k] = to_float(c[k])
            if k < degree:
                rest = lambda t: f(t) - sum(c[i] * t ** i for i in range(k + 1))
                c[k + 1 :] = least_squares(rest, lo, hi, list(range(k + 1, degree + 1)), weight)
    c = [to_float(x) if single else to_double(x) for x in c]
    ts = [lo + (hi - lo) * k / 500 for k in range(501)]
    error = max(abs(weight(t) * (sum(x * t ** i for i, x in enumerate(c)) - f(t))) for t in ts)
    text = ", ".join(("%.9g" if single else "%.17g") % float(x) for x in c)
    print(f"/* weighted error 2^{float(log(error) / log(2)):.1f} */")
    print(f"static const double {name}[] = {{{text}}};", flush=True)


def series(f, t, small, terms):
    """f(t), or its series near 0 where f cancels."""
    return f(t) if abs(t) > small else sum(c * t ** k for k, c in enumerate(terms))


def main():
    ln2, r2 = log(mpf(2)), sqrt(mpf(2))
    fact = mp.factorial
    tiny = mpf(10) ** -9
    g = lambda r: series(lambda t: (expm1(t) - t) / t ** 2, r, tiny, [1 / fact(k + 2) for k in range(4)])
    q = lambda f: series(lambda t: (log1p(t) - t) / t ** 2, f, tiny, [mpf(-1) ** (k + 1) / (k + 2) for k in range(4)])
    print("/* Polynomials of math*.c, lowest power first. Made by tools/fit_math.py. */\n#pragma once\n")
    h = ln2 / 2 * mpf("1.002")
    fit("exp_f32", g, -h, h, 4, lambda r: r * r / exp(r), True)
    fit("expm1_f32", g, -h, h, 4, lambda r: abs(r), True)
    e2 = lambda r: series(lambda t: expm1(t * ln2) / t, r, tiny, [ln2, ln2**2 / 2, ln2**3 / 6])
    fit("exp2_f32", e2, -mpf("0.501"), mpf("0.501"), 4, lambda r: abs(r), True)
    fit("log_f32", q, 1 / r2 - 1, r2 - 1, 8, lambda f: abs(f), True)
    sinc = lambda z: series(lambda t: (sin(sqrt(t)) - sqrt(t)) / sqrt(t) ** 3, z, tiny, [-1 / fact(3), 1 / fact(5)])
    cosc = lambda z: series(lambda t: (cos(sqrt(t)) - 1 + t / 2) / t ** 2, z, tiny, [1 / fact(4), -1 / fact(6)])
    quarter = (pi / 4) ** 2 * mpf("1.001")
    fit("sin_f32", sinc, 0, quarter, 2, lambda z: z, True)
    fit("cos_f32", cosc, 0, quarter, 2, lambda z: z * z / cos(sqrt(z)), True)
    erfc0 = lambda z: series(lambda t: erf(sqrt(t)) / sqrt(t) - 1, z, tiny, [2 / sqrt(pi) - 1, -2 / sqrt(pi) / 3])
    fit("erf_f32", erfc0, 0, 1, 6, lambda z: sqrt(z) / erf(sqrt(z)) if z else sqrt(pi) / 2, True)
    fit("erfc_log2_f32", lambda a: -log(erfc(a)) / ln2, "0.999", "4.01", 7, lambda a: erfc(a), True)

    fit("exp_f64", g, -h, h, 10, lambda r: r * r / exp(r), False)
    at = lambda s: (log((1 + s) / (1 - s)) - 2 * s) / s ** 3
    smax = (r2 - 1) / (r2 + 1)
    fit("log_f64", lambda z: series(lambda t: at(sqrt(t)), z, tiny, [mpf(2) / 3, mpf(2) / 5]), 0, smax ** 2, 7, lambda z: z, False)
    fit("sin_f64", sinc, 0, quarter, 6, lambda z: z, False)
    fit("cos_f64", cosc, 0, quarter, 6, lambda z: z * z, False)
    atanc = lambda z: series(lambda t: (atan(sqrt(t)) - sqrt(t)) / sqrt(t) ** 3, z, tiny, [-mpf(1) / 3, mpf(1) / 5])
    fit("atan_f64", atanc, 0, (r2 - 1) ** 2 * mpf("1.0001"), 11, lambda z: z, False)
    asinc = lambda z: series(lambda t: (asin(sqrt(t)) - sqrt(t)) / sqrt(t) ** 3, z, tiny, [mpf(1) / 6, mpf(3) / 40])
    fit("asin_f64", asinc, 0, mpf("0.25"), 11, lambda z: z, False)
    fit("erf_f64", erfc0, 0, 1, 12, lambda z: 1, False)
    # erfcx(x) for x in [1, 6.2] as a polynomial of t = (x - 2.5) / (x + 2.5)
    back = lambda t: mpf("2.5") * (1 + t) / (1 - t)
    w = lambda x: (x - mpf("2.5")) / (x + mpf("2.5"))
    fit("erfcx_f64", lambda t: erfc(back(t)) * exp(back(t) ** 2), w(mpf(1)), w(mpf("6.2")), 17, lambda t: 1, False)


main()
