#!/usr/bin/env python3
"""Part "tuning": tuning files change the code, bad ones are errors, --tune measures and stores; and every candidate of every
choice gives right results: contractions of odd shapes (template_cases.py), each forced by a file of its own.

run_tuning.py [--seed S] [--target T] [--count N] [--verbose]. Nothing here asserts a time.
"""
import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np
from onnx import helper, numpy_helper

import burin
from tests.codegen import run_templates
from tests.support.template_cases import conv_case, conv_transpose_case, gemm_case, matmul_case

counts = {"passed": 0, "failed": 0}
QUIET = ["--quiet"]


def check(name, ok, detail=""):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print(f"FAILED {name}: {str(detail)[-600:]}", flush=True)


def burin_command(*args):
    return subprocess.run([burin.compiler(), *map(str, args)], capture_output=True, text=True, errors="replace")


# ---- files ----
def small_model(path, batch=1, shape=(13, 13)):
    """A 3×3 and a 1×1 convolution."""
    rng = np.random.default_rng(0)
    w = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32) / 10, n) for s, n in (((40, 24, 3, 3), "w0"), ((33, 40, 1, 1), "w1"))]
    nodes = [helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1] * 4), helper.make_node("Relu", ["a"], ["b"]),
             helper.make_node("Conv", ["b", "w1"], ["y"])]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, [batch, 24, *shape])],
                              [helper.make_tensor_value_info("y", 1, None)], w)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString())


def read_choices(text):
    """{key: (choice, names of all candidates)} of --emit=tuning."""
    found = {}
    for line in text.splitlines():
        m = re.fullmatch(r"(\S.*) -> (\S+)(?:  # cycles:(.*))?", line)
        if m:
            found[m[1]] = m[2], [c.split()[0] for c in (m[3] or "").split(",") if c]
    return found


def choices_of(model, *flags):
    done = burin_command(model, "--emit=tuning", *flags)
    return read_choices(done.stdout)


def write_choices(path, choices):
    path.write_text("burin tuning 1\n" + "".join(f"{k} -> {v}\n" for k, v in sorted(choices.items())))


def test_effect(folder):
    model, file = folder / "small.onnx", folder / "t.tuning"
    small_model(model)
    flags = ["--target=x86-64-v3", "--emit=loop"]
    plain = burin_command(model, *flags).stdout
    choices = choices_of(model, "--target=x86-64-v3")
    tiles = [k for k in choices if k.startswith("tile rows=13x13 cols=40 ") or k.startswith("tile rows=169 cols=33 ")
             or k.startswith("tile rows=13x13 cols=33 ")]
    check("there are choices", tiles and any(k.startswith("conv3x3 ") for k in choices), choices)
    write_choices(file, {k: v[0] for k, v in choices.items()})
    check("the model's own choices", burin_command(model, *flags, f"--tuning={file}").stdout == plain)
    write_choices(file, {tiles[-1]: "3x1"})
    tuned = burin_command(model, *flags, f"--tuning={file}").stdout
    check("another tile", "in 0..3 unroll" in tuned and tuned != plain and "in 0..3 unroll" not in plain.split("wino")[-1], tuned[:600])
    check("the same again", tuned == burin_command(model, *flags, f"--tuning={file}").stdout)
    for forced, wanted in (("direct", False), ("winograd2", True), ("winograd4", True)):
        write_choices(file, {k: forced for k in choices if k.startswith("conv3x3 ")})
        check(forced, ("_wino" in burin_command(model, *flags, f"--tuning={file}").stdout) == wanted)
        check(forced + " not allowed", "wino" not in burin_command(model, *flags, f"--tuning={file}", "--no-winograd").stdout)
    for name, other in (("unknown keys", {"tile rows=7 of=nothing": "3x1"}), ("no candidate", {k: "99x9" for k in choices}),
                        ("another target", {k: v[0] for k, v in choices_of(model, "--target=x86-64-v4").items()})):
        write_choices(file, other)
        check(name, burin_command(model, *flags, f"--tuning={file}").stdout == plain)


def test_print_plan(folder):
    """--print-plan: for each choice, what --emit=tuning says was taken is marked, and no candidate shown is cheaper."""
    model = folder / "plan.onnx"
    small_model(model)
    done = burin_command(model, "--target=x86-64-v3", "--emit=obj", "-o", folder / "plan.o", "--print-plan", "--quiet")
    shown, key = {}, None
    for line in done.stderr.splitlines()[1:]:
        m = re.fullmatch(r"\s*(\d+)\s+([\d.]+)\s+(\S+)( \*)?", line)
        if m and key:
            shown[key].append((float(m[1]), m[3], bool(m[4])))
        elif not m:
            key = line
            shown[key] = []
    choices = choices_of(model, "--target=x86-64-v3")
    told = {k: rows for k, rows in shown.items() if k.startswith("algorithm ")}
    check("plan: all choices", shown.keys() - told.keys() == choices.keys(), f"{shown} {choices}")
    for k, rows in told.items():
        check(f"plan: {k}", sum(r[2] for r in rows) == 1, rows)
    conv = [rows for k, rows in told.items() if k.startswith("algorithm conv kernel=3x3 stride=1 in=24 out=40 size=13x13")]
    check("plan: algorithms", len(conv) == 1 and {r[1] for r in conv[0]} == {"tiled", "winograd2", "winograd4", "winograd6"}, told)
    for k in choices:
        rows = shown[k]
        taken = [r for r in rows if r[2]]
        check(f"plan: {k}", len(taken) == 1 and taken[0][1] == choices[k][0] and taken[0][0] <= min(r[0] for r in rows), rows)
    with_table, without = folder / "plan.o", folder / "without" / "plan.o"
    without.parent.mkdir()
    burin_command(model, "--target=x86-64-v3", "--emit=obj", "-o", without)
    check("plan: same code", with_table.read_bytes() == without.read_bytes())


def test_estimates(folder):
    """bench --profile --print-plan: a line for each kernel that a cost model knows, and for each cost model; their sums agree."""
    model = folder / "estimates.onnx"
    small_model(model)
    done = burin_command("bench", model, "--profile", "--print-plan")
    row = re.compile(r"\s*(\d+)\s+(\d+)\s+([\d.]+)\s+(\w+)\s+(.+)")
    lines = done.stdout.splitlines()
    check("estimates: runs", done.returncode == 0 and "together" in lines, done.stdout + done.stderr)
    at = lines.index("together")
    kernels = [m for m in map(row.fullmatch, lines[:at]) if m]
    models = {m[4]: m for m in map(row.fullmatch, lines[at + 1:]) if m}
    check("estimates: nodes", any("wino" in m[5] and "Conv" in m[5] for m in kernels), lines)
    check("estimates: models", {"tiled", "winograd"} <= models.keys() == {m[4] for m in kernels}, lines)
    for name, total in models.items():
        for column in (1, 2):
            parts = [int(m[column]) for m in kernels if m[4] == name]
            check(f"estimates: {name}", all(parts) and abs(sum(parts) - int(total[column])) <= len(parts), lines)
    small_model(folder / "symbolic.onnx", batch="n")
    burin_command(model, "-o", folder / "estimates")
    for args, text in (((model, "--target=aarch64"), "does not run on this machine"), ((folder / "symbolic.onnx",), "fix it with --dim"),
                       ((folder / "estimates",), "finished program")):
        done = burin_command("bench", "--profile", "--print-plan", *args)
        check(f"estimates: {text}", done.returncode == 2 and text in done.stderr, done.stderr)


def test_bad_files(folder):
    model, file, out = folder / "small.onnx", folder / "bad.tuning", folder / "out"
    cases = [(b"", "line 1"), (b"burin tuning 1\nnonsense\n", "bad.tuning: error[E0301]: line 2"), (b"burin tuning 9\n", "version"),
             (b"\x7fELF" + bytes(50), "line 1"), (b"burin tuning 1\na -> b\na -> c\n", "line 3")]
    for data, text in cases:
        file.write_bytes(data)
        for option in ("--tuning", "--tune"):
            done = burin_command(model, f"{option}={file}", "-o", out)
            check(f"{option} {data[:20]}", done.returncode == 2 and text in done.stderr and not out.exists(), done.stderr)
            check("left alone", file.read_bytes() == data)
    done = burin_command(model, f"--tuning={folder}/none", "-o", out)
    check("no file", done.returncode == 3 and "cannot open" in done.stderr, done.stderr)


# ---- --tune ----
def test_tune(folder):
    model, file, out = folder / "small.onnx", folder / "new.tuning", folder / "program"
    file.write_text("burin tuning 1\nzebra -> striped  # by hand\n")
    done = burin_command(model, f"--tune={file}", "--tune-seconds=1", "-o", out, "--jobs=2")
    text = file.read_text()
    check("tune", done.returncode == 0 and "choices measured" in done.stdout, done.stderr + done.stdout)
    check("kept", "zebra -> striped  # by hand\n" in text and text.startswith("burin tuning 1\n# burin "), text)
    measured = set(re.findall(r"^(?:conv3x3|tile) .* -> \S+  # us: .*\(model\)", text, re.M))
    check("measured", len(measured) >= 2 and [*text.splitlines()[2:]] == sorted(text.splitlines()[2:]), text)
    x = np.random.default_rng(1).standard_normal((1, 24, 13, 13)).astype(np.float32)
    want = burin.compile(model, flags=["--no-winograd"]).run({"x": x})[0]
    got = burin.compile(model, flags=[f"--tuning={file}"]).run({"x": x})[0]
    check("right", np.abs(got - want).max() < 1e-4 * np.abs(want).max())
    info = subprocess.run([out, "--info"], capture_output=True, text=True).stdout
    check("the program too", "--tuning" in info, info)
    before = file.read_text()
    small_model(folder / "symbolic.onnx", batch="n")
    for name, args, status, words in (
            ("symbolic", [folder / "symbolic.onnx"], 2, "--dim"), ("foreign", [model, "--target=aarch64"], 2, "does not run"),
            ("both", [model, f"--tuning={file}"], 2, "--tuning"), ("no model", [folder / "none.onnx"], 3, "none.onnx")):
        done = burin_command(*args, f"--tune={file}")
        check(name, done.returncode == status and words in done.stderr and file.read_text() == before, done.stderr)
    done = burin_command(folder / "symbolic.onnx", f"--tune={file}", "--tune-seconds=1", "--dim", "n=2")
    check("fixed by --dim", done.returncode == 0 and len(file.read_text()) > len(before), done.stderr)
    done = burin_command(model, f"--tune={folder}/nowhere/t", "--tune-seconds=1")
    check("cannot write", done.returncode == 4, done.stderr)


# ---- every candidate ----
def odd_cases(seed, count):
    rng = np.random.default_rng(seed)
    makers = [lambda r, t: conv_case(r, t, winograd=True), conv_case, conv_case, matmul_case, gemm_case, conv_transpose_case]
    return [makers[k % len(makers)](rng, f"c{k}") for k in range(count)]


def test_candidates(folder, seed, target, count, verbose):
    """Run i takes candidate i of every choice, the last one where there are fewer."""
    cases = odd_cases(seed, count)
    model, file = folder / "cases.onnx", folder / "cases.tuning"
    model.write_bytes(run_templates.model_of(cases).SerializeToString())
    choices = choices_of(model, f"--target={target}")
    kinds = {re.sub(r"^conv\dx3x3", "conv3x3", k.split()[0]) for k in choices}  # of three dimensions, too
    check(f"{target} kinds of choices", kinds == {"conv3x3", "tile", "strip"}, kinds)
    for i in range(max((len(v[1]) for v in choices.values()), default=0)):
        names = {k: v[1][i] for k, v in choices.items() if i < len(v[1])}
        done = choices
        for _ in range(2):  # the second time with choices that only come up because of the first
            write_choices(file, names)
            done = choices_of(model, f"--target={target}", f"--tuning={file}")
            names |= {k: v[1][i % len(v[1])] for k, v in done.items() if k not in names}
        write_choices(file, names)
        taken = {k: v[0] for k, v in choices_of(model, f"--target={target}", f"--tuning={file}").items()}
        check(f"{target} candidate {i} is taken", all(taken[k] == names[k] for k in taken if k in names), f"{taken} {names}")
        bad = run_templates.run(cases, target, [f"--tuning={file}"])
        for c in cases:
            check(f"{target} candidate {i} {c.tag} {c.title}", c.tag not in bad, f"{bad.get(c.tag)} with {names}")
        if verbose:
            print(f"{target} candidate {i}: {len(names)} choices, {len(bad)} bad", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=2)
    p.add_argument("--target")
    p.add_argument("--count", type=int, default=12, help="cases in a model")
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="burin-") as name:
        folder = Path(name)
        test_effect(folder)
        test_print_plan(folder)
        test_estimates(folder)
        test_bad_files(folder)
        test_tune(folder)
        for target in [args.target] if args.target else ["native", "x86-64-v3"]:
            test_candidates(folder, args.seed, target, args.count, args.verbose)
    print(f"{counts['passed']} passed, {counts['failed']} failed, 0 skipped")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
