#!/usr/bin/env python3
"""Part "layers": random layers of 8-bit integers give the same bits on every target and in the interpreter: those of numpy.

run_layers.py [--seed S] [--count N] [--together N] [--kind K]... [--target T]... [--verbose]. Many layers are one model, so that
a target is one program that runs once (under an emulator where the machine needs it). A model with a wrong layer is
compiled again layer by layer, to name it. --count 500 takes some minutes.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np

from tests.support import integer_layers, part, targets

TARGETS = ["native", "x86-64-v2", "x86-64-v3", "x86-64-v4", "sapphirerapids", "aarch64", "cortex-a72", "cortex-a76", "neoverse-n2", "armv7",
           "interpreter"]


def command(target, folder):
    """What runs the model in the folder; None and why not where it does not compile."""
    if target == "interpreter":
        return [part.BURIN, "run", "--interpret", "-q", folder / "m.onnx"], ""
    r = part.burin(folder / "m.onnx", "-q", "-o", folder / "m", f"--target={target}", timeout=600)
    return (None, f"not compiled: {r.stderr.strip()[-300:]}") if r.returncode else ([*targets.EMULATOR[target], folder / "m"], "")


def run_layers(layers, target):
    """{name: array} of the outputs, and what went wrong."""
    with tempfile.TemporaryDirectory(prefix="burin-") as name:
        folder = Path(name)
        (folder / "m.onnx").write_bytes(integer_layers.model(layers).SerializeToString())
        line, bad = command(target, folder)
        if bad:
            return {}, bad
        for layer in layers:
            for key, value in layer.inputs.items():
                np.save(folder / f"{key}.npy", value)
                line += ["--input", f"{key}=@{folder}/{key}.npy"]
            for key in layer.outputs:
                line += ["--output", f"{key}=@{folder}/{key}.npy"]
        try:
            r = part.run(*line, timeout=600)
        except subprocess.TimeoutExpired:
            return {}, "not ready after 600 s"
        if r.returncode:
            return {}, f"status {r.returncode}: {r.stderr.strip()[-300:]}"
        return {key: np.load(folder / f"{key}.npy") for layer in layers for key in layer.outputs}, ""


def difference(got, want):
    if got is None or got.dtype != want.dtype or got.shape != want.shape:
        return f"expected {want.dtype}{want.shape}, got {None if got is None else (got.dtype, got.shape)}"
    if got.tobytes() == want.tobytes():
        return ""
    at = np.argwhere(got != want)
    first = tuple(at[0]) if len(at) else ()
    return f"{len(at)} of {want.size} differ, first at {first}: {got[first]}, expected {want[first]}"


def wrong(layers, target):
    """[(layer, what is wrong)]"""
    got, bad = run_layers(layers, target)
    if bad and len(layers) > 1:
        return [w for layer in layers for w in wrong([layer], target)] or [(layers[0], f"only together: {bad}")]
    if bad:
        return [(layers[0], bad)]
    found = [(layer, difference(got.get(key), want)) for layer in layers for key, want in layer.outputs.items()]
    return [(layer, what) for layer, what in found if what]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=32)
    p.add_argument("--together", type=int, default=32, help="layers in one model")
    p.add_argument("--kind", action="append", choices=list(integer_layers.KINDS), help="only these")
    p.add_argument("--target", action="append", help="only these")
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    kinds = {"kinds": args.kind} if args.kind else {}
    layers = integer_layers.layers(np.random.default_rng(args.seed), args.count, **kinds)
    groups = [layers[i:i + args.together] for i in range(0, len(layers), args.together)]
    for target in args.target or TARGETS:
        why = None if target == "interpreter" else targets.missing(target)
        if why:
            part.skip(f"{len(layers)} layers for {target}", why)
            continue
        bad = [w for group in groups for w in wrong(group, target)]
        names = {layer.tag for layer, _ in bad}
        part.counts["passed"] += len(layers) - len(names)
        part.counts["failed"] += len(names)
        for layer, what in bad:
            print(f"FAILED {target}, {layer.tag}: {what}; {layer.title()}", flush=True)
        if args.verbose:
            print(f"{target}: {len(layers) - len(names)} of {len(layers)} right", flush=True)
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
