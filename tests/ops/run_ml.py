#!/usr/bin/env python3
"""Part "ml": support vector machines of every kernel, with votes and coupled probabilities, on random coefficients against
ONNX Runtime; bad attributes; labels of ZipMap in Python, C and texts of the IR."""
import itertools
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h

import burin
from support.part import check, finish, run, burin as compiler

ort.set_default_logger_severity(4)
ML = "ai.onnx.ml"
ROWS, FEATURES = 7, 5


def build(nodes, outputs, features=FEATURES):
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, ["n", features])],
                         [h.make_empty_tensor_value_info(o) if isinstance(o, str) else o for o in outputs])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21), h.make_opsetid(ML, 1)], ir_version=10)


def values(rng, *shape):
    return [float(v) for v in rng.standard_normal(shape).astype(np.float32).ravel()]


def classifier(rng, kernel, classes, proba, labels, post, linear=False):
    """Attributes of an SVMClassifier."""
    per_class = [] if linear else [int(v) for v in rng.integers(1, 4, classes)]
    supports, pairs = sum(per_class), classes * (classes - 1) // 2
    attrs = {"kernel_type": kernel, "kernel_params": [0.3, 0.5, 2.0], "post_transform": post,
             "coefficients": values(rng, classes * FEATURES if linear else (classes - 1) * supports)}
    attrs["rho"] = values(rng, 1 if linear else pairs)
    if not linear:
        attrs |= {"vectors_per_class": per_class, "support_vectors": values(rng, supports * FEATURES)}
    if proba:
        attrs |= {"prob_a": [-abs(v) for v in values(rng, pairs)], "prob_b": values(rng, pairs)}
    attrs["classlabels_strings" if labels else "classlabels_ints"] = labels or list(range(3, 3 + classes))
    return attrs


def compare(name, model, x, tolerance=2e-5):
    want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    got = burin.compile(model).run({"x": x})
    ok = len(got) == len(want)
    for g, w in zip(got, want):
        close = (g == w).all() if w.dtype.kind != "f" else np.allclose(g, w, tolerance, tolerance)
        ok = ok and g.shape == w.shape and bool(close)
    check(name, ok, f"{got}, not {want}")


def test_classifiers(rng):
    x = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    for kernel, classes, proba in itertools.product(("LINEAR", "POLY", "RBF", "SIGMOID"), (2, 3, 5), (False, True)):
        for post in ("NONE", "LOGISTIC", "SOFTMAX") if kernel == "RBF" else ("NONE",):
            if post == "SOFTMAX" and classes == 2 and not proba:
                continue  # ONNX Runtime gives 1 - s and s, the reference implementation softmax of -s and s
            labels = [f"c{i}" for i in range(classes)] if kernel == "POLY" else None
            attrs = classifier(rng, kernel, classes, proba, labels, post)
            node = h.make_node("SVMClassifier", ["x"], ["label", "scores"], domain=ML, **attrs)
            compare(f"{kernel} {classes} classes, probabilities {proba}, {post}", build([node], ["label", "scores"]), x)
    for classes in (3, 4):  # of two, ONNX Runtime takes the second one whenever a score is positive
        node = h.make_node("SVMClassifier", ["x"], ["label", "scores"], domain=ML, **classifier(rng, "LINEAR", classes, False, None, "NONE", linear=True))
        compare(f"without vectors, {classes} classes", build([node], ["label", "scores"]), x)


def test_regressors(rng):
    x = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    for kernel, supports, one_class in itertools.product(("LINEAR", "POLY", "RBF", "SIGMOID"), (0, 1, 6), (0, 1)):
        attrs = {"kernel_type": kernel, "kernel_params": [0.3, 0.5, 3.0], "n_supports": supports, "one_class": one_class,
                 "coefficients": values(rng, supports or FEATURES), "rho": values(rng, 1)}
        if supports:
            attrs["support_vectors"] = values(rng, supports * FEATURES)
        compare(f"regressor {kernel} {supports} {one_class}", build([h.make_node("SVMRegressor", ["x"], ["y"], domain=ML, **attrs)], ["y"]), x)


def test_bad(rng):
    good = classifier(rng, "RBF", 3, True, None, "NONE")
    changes = {"rho": [1.0], "coefficients": good["coefficients"][:-1], "support_vectors": good["support_vectors"][:-1],
               "vectors_per_class": [1, 2], "kernel_type": "CUBIC", "kernel_params": [1.0], "prob_b": [0.5], "post_transform": "ROOT"}
    for name, value in changes.items():
        node = h.make_node("SVMClassifier", ["x"], ["label", "scores"], domain=ML, **{**good, name: value})
        try:
            burin.compile(build([node], ["label", "scores"]))
            check(f"bad {name}", False, "was taken")
        except burin.CompileError as e:
            check(f"bad {name}", e.status in (1, 5) and "SVMClassifier" in str(e), e)


HOST = r"""
#include "m.h"
#include <stdio.h>
int main(void) {
  const BurinKeys *k = m_info()->output_keys;
  for (int i = 0; i < m_info()->n_outputs; i++)
    for (int j = 0; j < k[i].count; j++)
      if (k[i].texts) printf("%s ", k[i].texts[j]); else printf("%d ", (int)k[i].ints[j]);
  return 0;
}
"""


def zipped(**keys):
    kind = T.STRING if "classlabels_strings" in keys else T.INT64
    result = h.make_value_info("z", h.make_sequence_type_proto(h.make_map_type_proto(kind, h.make_tensor_type_proto(T.FLOAT, []))))
    return build([h.make_node("Relu", ["x"], ["r"]), h.make_node("ZipMap", ["r"], ["z"], domain=ML, **keys)], ["r", result], 3)


def test_zipmap(folder):
    x = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
    for name, keys, text in (("integers", {"classlabels_int64s": [7, -1, 9]}, "7 -1 9 "), ("strings", {"classlabels_strings": ["a", "é\"", "c"]}, "a é\" c ")):
        model = zipped(**keys)
        want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
        got = burin.compile(model).run({"x": x})
        check(f"ZipMap of {name}", got[1] == want[1] and (got[0] == want[0]).all(), got)
        onnx.save(model, folder / "m.onnx")
        (folder / "host.c").write_text(HOST)
        compiler("m.onnx", "--emit=loop", "-o", "m.loop", cwd=folder)
        for source, flags, part in (("m.onnx", ["--emit=static,header"], "m.a"), ("m.onnx", ["--target=c", "--emit=c,header"], "m.c"),
                                    ("m.loop", ["--emit=static,header"], "m.a")):
            done = compiler(source, *flags, "--name=m", "-o", "m", cwd=folder)
            done = done.returncode and done or run("gcc", "host.c", part, "-o", "host", cwd=folder)
            done = done.returncode and done or run("./host", cwd=folder)
            check(f"{name} in {part} of {source}", done.stdout == text, done.stdout + done.stderr)
    for bad in ({}, {"classlabels_int64s": [1, 2]}, {"classlabels_int64s": [1, 2, 3], "classlabels_strings": ["a", "b", "c"]}):
        try:
            burin.compile(zipped(**bad))
            check(f"ZipMap with {bad}", False, "was taken")
        except burin.CompileError as e:
            check(f"ZipMap with {bad}", e.status == 1 and "ZipMap" in str(e), e)


def main():
    rng = np.random.default_rng(5)
    test_classifiers(rng)
    test_regressors(rng)
    test_bad(rng)
    with tempfile.TemporaryDirectory(prefix="burin-") as name:
        test_zipmap(Path(name))
    return finish()


if __name__ == "__main__":
    sys.exit(main())
