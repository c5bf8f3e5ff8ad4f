#!/usr/bin/env python3
"""Part "layers": random layers of 8-bit integers give the same bits on every target and in the interpreter: those of numpy.

run_layers.py [--seed S] [--count N] [--together N] [--kind K]... [--target T]... [--verbose]. Many layers are one model, so that
a target is one program that runs once (under an emulator where the machine needs it). A model with a wrong layer is
compiled again layer by layer, to name it. --count 500 takes some minutes. And a row by equal columns of floats gives equal sums.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np
import onnx
from onnx import helper as h, numpy_helper

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


COLUMNS = [(k, n) for k in (256, 260) for n in (1032, 1500, 2056)]  # many panels of columns, and a narrower one at the end


def unequal_columns(target):
    """What is wrong with products of one row by columns that are all the same one."""
    rng, nodes, weights = np.random.default_rng(5), [], []
    names = [f"{k}x{n}" for k, n in COLUMNS]
    rows = {name: rng.random((1, k), np.float32) for name, (k, _) in zip(names, COLUMNS)}
    for name, (k, n) in zip(names, COLUMNS):
        weights.append(numpy_helper.from_array(np.repeat(rng.random((k, 1), np.float32), n, 1), f"w{name}"))
        nodes.append(h.make_node("MatMul", [f"x{name}", f"w{name}"], [f"y{name}"]))
    value = lambda name, shape: h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    graph = h.make_graph(nodes, "g", [value(f"x{m}", r.shape) for m, r in rows.items()], [value(f"y{m}", [1, n]) for m, (_, n) in zip(names, COLUMNS)], weights)
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        folder = Path(folder)
        onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
        line, bad = command(target, folder)
        if bad:
            return bad
        for name in names:
            np.save(folder / f"x{name}.npy", rows[name])
            line += ["--input", f"x{name}=@{folder}/x{name}.npy", "--output", f"y{name}=@{folder}/y{name}.npy"]
        r = part.run(*line, timeout=600)
        if r.returncode:
            return f"status {r.returncode}: {r.stderr.strip()[-300:]}"
        sums = {name: np.load(folder / f"y{name}.npy") for name in names}
    return ", ".join(f"{name}: {np.unique(y)}" for name, y in sums.items() if np.unique(y).size != 1)


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
        unequal = unequal_columns(target)
        part.check(f"{target}: sums of equal columns", not unequal, unequal)
        if args.verbose:
            print(f"{target}: {len(layers) - len(names)} of {len(layers)} right", flush=True)
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
