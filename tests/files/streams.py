"""Inputs are kept, files come all or none, what cannot be read or printed is an error, and no argument is left out in silence."""
import os
import subprocess

import numpy as np
from onnx import helper

import burin as package
from tests.files.fixture import make_model, no_leftovers
from tests.support.part import BURIN, burin, check, run


def test_inputs_kept(d, model, program):
    before = model.read_bytes()
    link, hard = d / "model_link.onnx", d / "hard.onnx"
    link.symlink_to(model.name)
    os.link(model, hard)
    for out in (model, link, hard):
        r = burin(model, "-q", "-o", out)
        check(f"compile over {out.name}", r.returncode == 4 and "input" in r.stderr and model.read_bytes() == before, r.stderr)
    r = burin(model, "--const", f"x=@{d}/x.npy", "-q", "-o", d / "x.npy")
    check("compile over a constant", r.returncode == 4 and np.load(d / "x.npy").shape == (2, 3), r.stderr)
    for name in ("x.npy", "x_link.npy"):
        if name != "x.npy":
            (d / name).symlink_to("x.npy")
        r = run(program, "--input", f"x=@{d}/x.npy", "--output", f"y=@{d}/{name}")
        check(f"run over {name}", r.returncode == 4 and np.load(d / "x.npy").min() == -2, r.stderr)
    r = burin("run", "--interpret", model, "--input", f"x=@{d}/x.npy", "--output", f"y=@{d}/x.npy")
    check("interpret over the input", r.returncode == 4 and np.load(d / "x.npy").min() == -2, r.stderr)
    r = run(program, "--input", f"x=@{d}/x.npy", "--output", f"y=@{program}")
    check("run over the program", r.returncode == 4)


def test_all_or_none(d, model):
    stem = d / "pair"
    (d / "pair.h").mkdir()
    (d / "pair.o").write_text("old")
    r = burin(model, "-q", "--emit=obj,header", "-o", stem)
    check("obj and header: none", r.returncode == 4 and (d / "pair.o").read_text() == "old", r.stderr)
    (d / "pair.h").rmdir()
    r = burin(model, "-q", "--emit=obj,header", "-o", stem)
    check("obj and header: all", r.returncode == 0 and (d / "pair.h").is_file() and (d / "pair.o").stat().st_size > 100)
    r = burin(model, "-q", "--emit=obj,header", "-o", "-", cwd=d)
    check("two files in one stream", r.returncode == 2 and not (d / "-.o").exists(), r.stderr)
    no_leftovers("pair", d)


def test_reading(d, program):
    os.path.exists(d / "fifo") or os.mkfifo(d / "fifo")
    for bad in (d / "fifo", "/dev/zero", d, "/dev/null"):
        for args in ([bad, "-o", d / "never"], ["inspect", bad], ["run", bad], ["diff", bad, bad]):
            if args[0] == "diff" and os.path.isdir(bad):
                continue
            r = burin(*args, timeout=20)
            check(f"burin {args[0]} {bad}", r.returncode == 3 and not (d / "never").exists(), f"{r.returncode} {r.stderr}")
        r = run(program, "--input", f"x=@{bad}", timeout=20)
        check(f"program reads {bad}", r.returncode == 3, f"{r.returncode} {r.stderr}")
    r = burin("-", "-o", d / "never", stdin=subprocess.DEVNULL)
    check("burin -", r.returncode == 2 and "standard input" in r.stderr, r.stderr)


def test_stdout(d, model, program):
    full = open("/dev/full", "w")
    commands = [[BURIN, "--help"], [BURIN, "--version"], [BURIN, "--list-passes"], [BURIN, "--list-targets"], [BURIN, "inspect", model],
                [BURIN, "inspect", "--json", model], [BURIN, model, "--emit=graph"], [BURIN, model, "--emit=loop"],
                [BURIN, model, "--print-ir-after=all", "-q", "-o", d / "out"], [BURIN, "diff", d / "x.npy", d / "x.npy"],
                [BURIN, "run", "--interpret", model, "--input", f"x=@{d}/x.npy"], [BURIN, "run", model, "--input", f"x=@{d}/x.npy"],
                [program, "--help"], [program, "--info"], [program, "--input", f"x=@{d}/x.npy"], [program, "--bench=2"]]
    for c in commands:
        r = run(*c, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        check(f"{' '.join(map(str, c[1:3]))} > /dev/full", r.returncode == 4 and "standard output" in r.stderr, f"{r.returncode} {r.stderr}")
        r = run("sh", "-c", '"$@" >&-', "sh", *c)
        check(f"{' '.join(map(str, c[1:3]))} >&-", r.returncode == 4, f"{r.returncode} {r.stderr}")


def test_many_tensors(d, n=300):
    model, program = d / "many.onnx", d / "many"
    nodes = [helper.make_node("Neg", [f"x{i}"], [f"y{i}"]) for i in range(n)]
    make_model(model, nodes, [(f"x{i}", 1, [2]) for i in range(n)], [(f"y{i}", 1, [2]) for i in range(n)])
    check("many tensors compile", burin(model, "-q", "-O1", "-o", program).returncode == 0)
    args = []
    (d / "y").mkdir()
    for i in range(n):
        args += ["--input", f"x{i}={i}", "--output", f"y{i}=@{d}/y/{i}.npy"]
    r = run(program, *args)
    ok = r.returncode == 0 and all((np.load(d / f"y/{i}.npy") == -i).all() for i in range(n))
    check("many tensors", ok, r.stderr)
    r = burin("run", "-O1", model, *args)
    check("many tensors: burin run", r.returncode == 0, r.stderr)
    got = package.compile(model, flags=["-O1"]).run({f"x{i}": np.full(2, i, np.float32) for i in range(n)})
    check("many tensors: Python", all((got[i] == -i).all() for i in range(n)))


def test_arguments(d, model, program):
    """Nothing that was asked for is left out in silence."""
    symbolic = d / "symbolic"
    make_model(d / "symbolic.onnx", [helper.make_node("Reshape", ["x", "to"], ["y"])], [("x", 1, ["n"])], [("y", 1, None)], [("to", np.array([-1, 3]))])
    burin(d / "symbolic.onnx", "-q", "-o", symbolic)
    cases = [([program, "--input", "x=1", "--labels", d / "none"], 3, "none"), ([program, "--input", "x=1", "--input", "0=2"], 2, "twice"),
             ([symbolic, "--dim", "n=0", "--input", "x=1"], 0, ""), ([symbolic, "--dim", "n=4", "--input", "x=1"], 1, "multiple of 3"),
             ([BURIN, model, "--tune-seconds=1", "-o", d / "never"], 2, "--tune"), ([BURIN, "run", model, "-o", d / "never"], 2, "-o")]
    for command, status, word in cases:
        r = run(*command)
        check(" ".join(map(str, command[1:])), r.returncode == status and word in r.stderr, f"{r.returncode} {r.stderr}")
