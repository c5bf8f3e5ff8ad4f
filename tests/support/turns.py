"""Parts that compile cases of one model each at -O3, by turns at -O0 and for other targets, some under qemu.

A case has model(), feeds {name: array} and a title.
"""
import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import burin
from tests.support import targets

TURNS = [("native", "-O3"), ("x86-64-v3", "-O3"), ("native", "-O0"), ("native", "-O3"), ("x86-64-v2", "-O3")]
EMULATED = ["aarch64", "armv7"]


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=40)
    p.add_argument("--target", help="only this one")
    p.add_argument("--verbose", action="store_true")
    return p.parse_args()


def run_program(case, target, flags=()):
    """Output y of a program under qemu."""
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder)
        (path / "m.onnx").write_bytes(case.model().SerializeToString())
        command = [burin.compiler(), "compile", path / "m.onnx", "-o", path / "m", f"--target={target}", *flags]
        subprocess.run(command, check=True, capture_output=True)
        command = [*targets.EMULATOR[target], path / "m", "--output", f"y=@{path}/y.npy"]
        for name, array in case.feeds.items():
            np.save(path / f"{name}.npy", array)
            command += ["--input", f"{name}=@{path}/{name}.npy"]
        subprocess.run(command, check=True, capture_output=True)
        return np.load(path / "y.npy")


def output(case, target, level):
    """The first output, and what went wrong, or None."""
    try:
        if target in EMULATED:
            return run_program(case, target), None
        return burin.compile(case.model(), target=target, flags=[level]).run(case.feeds)[0], None
    except (burin.CompileError, burin.RunError, subprocess.CalledProcessError) as e:
        return None, f"{e} {getattr(e, 'stderr', '')}"[:300]


def run_cases(cases, wrong, args, bad, runs):
    """wrong(case, target, level) for all cases; with `runs` checks made before, of which `bad` are what is wrong. The exit status."""
    emulated = [t for t in EMULATED if not targets.missing(t)]
    for what in bad:
        print(what)
    failed = len(bad)
    for i, c in enumerate(cases):
        turns = {("native", "-O3"), TURNS[i % len(TURNS)]} if not args.target else {(args.target, "-O0"), (args.target, "-O3")}
        if not args.target and emulated and i % 4 == 1:
            turns.add((emulated[i // 4 % len(emulated)], "-O3"))
        for target, level in sorted(turns):
            what = wrong(c, target, level)
            failed += what is not None
            runs += 1
            if what or args.verbose:
                print(f"{target} {level}, {c.title}: {what or 'ok'}", flush=True)
    print(f"{runs - failed} passed, {failed} failed, 0 skipped")
    return failed > 0
