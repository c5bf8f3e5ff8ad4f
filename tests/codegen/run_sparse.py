#!/usr/bin/env python3
"""Part "sparse": products with weights of which many are zero (sparse_cases.py), by kernels that leave these out, by dense ones, and by
whichever the estimates choose, all against an oracle in float64; when such kernels are chosen; what NaN and infinite activations do.

run_sparse.py [--seed S] [--count N] [--target T] [--verbose].
"""
import argparse
import re
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np
import onnxruntime as ort
from onnx import helper, numpy_helper

import burin
from tests.codegen.run_tuning import burin_command, choices_of, write_choices
from tests.codegen import run_templates, sparse_cases

BATCH = 8
TURNS = [("native", []), ("x86-64-v2", []), ("x86-64-v3", ["-O1"])]
CROSS = ["aarch64", "armv7"]
counts = {"passed": 0, "failed": 0}


def check(name, ok, detail=""):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print(f"FAILED {name}: {str(detail)[-600:]}", flush=True)


def forced(model, folder, *flags):
    """The flag by which every product with enough zeros is sparse, and how many there are."""
    path, file = folder / "m.onnx", folder / "sparse.tuning"
    path.write_bytes(model.SerializeToString())
    choices = {k: "sparse" for k in choices_of(path, *flags) if k.startswith("zeros ")}
    write_choices(file, choices)
    return f"--tuning={file}", len(choices)


def test_cases(args, folder):
    rng = np.random.default_rng(args.seed)
    for i in range(args.count // BATCH):
        target, flags = TURNS[i % len(TURNS)]
        target = args.target or target
        cases = [sparse_cases.case(rng, f"t{i}_{k}") for k in range(BATCH)]
        model = run_templates.model_of(cases)
        tuning, n = forced(model, folder, f"--target={target}", *flags)
        check(f"case {i} has zeros", n > 0)
        for way in ([tuning], ["--no-sparse"], []):
            bad = run_templates.run(cases, target, [*flags, *way])
            for c in cases:
                check(f"{target} {flags} {way} {c.title}", c.tag not in bad, bad.get(c.tag))
                if args.verbose:
                    print(target, way, c.title)
    for target in CROSS:
        cases = [sparse_cases.case(rng, f"q{k}") for k in range(BATCH)]
        tuning, n = forced(run_templates.model_of(cases), folder, f"--target={target}")
        bad = run_templates.run(cases, target, [tuning])
        for c in cases:
            check(f"{target} {c.title}", c.tag not in bad, bad.get(c.tag))


# ---- which are chosen ----
def product(folder, m, k, n, zeros, pattern="random"):
    """A MatMul with so large a part of zeros. Path, input, weights."""
    rng = np.random.default_rng(7)
    w = sparse_cases.weights(rng, k, n, pattern, 1 - zeros).astype(np.float32)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [helper.make_tensor_value_info("x", 1, [m, k])],
                              [helper.make_tensor_value_info("y", 1, [m, n])], [numpy_helper.from_array(w, "w")])
    path = folder / "product.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString())
    return path, rng.standard_normal((m, k)).astype(np.float32), w


def loops(path, *flags):
    return burin_command(path, "--emit=loop", "--target=x86-64-v3", *flags).stdout


def test_choice(folder):
    """Many zeros: sparse; few: the same code as if nobody asked; the option says no; --print-plan tells both estimates; a plan in a text
    is obeyed, and refused where it cannot be."""
    path, x, w = product(folder, 256, 256, 256, 0.95)
    check("95 % zeros", "_sparse" in loops(path))
    check("--no-sparse", "_sparse" not in loops(path, "--no-sparse"))
    shown = burin_command(path, "--emit=obj", "-o", folder / "p.o", "--target=x86-64-v3", "--print-plan", "--quiet").stderr
    check("--print-plan", re.search(r"zeros MatMul rows=256 cols=256 k=256 share=95%", shown) and "sparse *" in shown, shown)
    want = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    got = burin.compile(path, target="native").run({"x": x})[0]
    check("ONNX Runtime", np.abs(got - want).max() < 1e-5 * np.abs(want).max(), np.abs(got - want).max())
    for zeros in (0.0, 0.2):
        path = product(folder, 256, 256, 256, zeros)[0]
        check(f"{zeros} zeros", loops(path) == loops(path, "--no-sparse"))
    path = product(folder, 1, 256, 256, 0.7)[0]
    check("one row", "_sparse" not in loops(path))
    text = folder / "plan.ir"
    burin_command(product(folder, 256, 256, 256, 0.95)[0], "--emit=graph", "--target=x86-64-v3", "-o", text)
    plan = re.search(r"\{plan=sparse vectors=\d width=1\}", text.read_text())
    check("the plan in the text", plan and "_sparse" in loops(text), text.read_text()[:1500])
    for wrong, why in (("vectors=99 width=1", "no such loops"), ("vectors=2", "names vectors and width"), ("vectors=2 width=3", "no such loops")):
        other = folder / "wrong.ir"
        other.write_text(text.read_text().replace(plan[0], "{plan=sparse " + wrong + "}"))
        done = burin_command(other, "--emit=loop", "--target=x86-64-v3")
        check(wrong, done.returncode and why in done.stderr, done.stderr)


# ---- what is not finite ----
def test_special(folder):
    """A row with what is not finite: all its results are NaN, also where a dense product would say infinity; others are what they were.
    Rows in whole blocks and in the rest, one block of k and several, and weights that are all zero."""
    for m, k, n, zeros in ((64, 128, 64, 0.9), (37, 3000, 24, 0.95), (40, 64, 8, 1.0)):
        path, x, w = product(folder, m, k, n, zeros)
        model = burin.compile(path, target="native", flags=[forced_file(path, folder)])
        clean = model.run({"x": x})[0]
        for (row, at), v in zip(((3, 5), (10, 7), (m - 1, k - 1)), (np.nan, np.inf, -np.inf)):
            x[row, at] = v
            clean[row] = np.nan
        got = model.run({"x": x})[0]
        check(f"not finite, {m}x{k}x{n}", np.array_equal(got, clean, equal_nan=True), np.argwhere(np.isnan(got) != np.isnan(clean))[:4])


def forced_file(path, folder):
    file = folder / "one.tuning"
    write_choices(file, {k: "sparse" for k in choices_of(path) if k.startswith("zeros ")})
    return f"--tuning={file}"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=48)
    p.add_argument("--target")
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        folder = Path(folder)
        test_cases(args, folder)
        test_choice(folder)
        test_special(folder)
    print(f"{counts['passed']} passed, {counts['failed']} failed, 0 skipped")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
