#!/usr/bin/env python3
"""Makes the folder that tests/cuda/device.sh takes to a machine with a GPU: programs for it, inputs, and results of the same
models on this CPU. Nothing else is needed there.

  device_kit.py OUT [--target=cuda:sm_90] [--time] NAME=MODEL[,FLAG…] …

A model with --time before it is also timed (random inputs are enough). BURIN names the compiler."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

BURIN = os.environ.get("BURIN", "build/burin")


def fill(shape, dtype, rng):
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def inputs_of(model, folder, rng):
    """Arguments that give every input; sizes that are open are 1."""
    known = {i.name for i in model.graph.initializer}
    args = []
    for k, i in enumerate(x for x in model.graph.input if x.name not in known):
        t = i.type.tensor_type
        shape = [d.dim_value if d.dim_value > 0 else 1 for d in t.shape.dim]
        np.save(folder / f"in{k}.npy", fill(shape, helper.tensor_dtype_to_np_dtype(t.elem_type), rng))
        args.append((i.name, f"in{k}.npy"))
    return args


def run(command, **kw):
    done = subprocess.run(command, capture_output=True, text=True, **kw)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr[-500:]}")


def add(out, name, path, flags, target, timed):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.load(path, load_external_data=False)
    run([BURIN, path, f"--target={target}", "-q", "-o", folder / "program", *flags])
    lines = [f"timed={int(timed)}"]
    if not timed:
        run([BURIN, path, "-q", "-o", folder / "cpu", *[f for f in flags if f != "--precision=tf32"]])
        args = inputs_of(model, folder, np.random.default_rng(0))
        given = [f"--input={n}=@{f}" for n, f in args]
        outs = [(o.name, f"out{k}.npy") for k, o in enumerate(model.graph.output)]
        run(["./cpu", *given, *[f"--output={n}=@{f}" for n, f in outs]], cwd=folder)
        (folder / "cpu").unlink()
        lines += given + [f"--expect={n}=@{f}" for n, f in outs]
    (folder / "arguments").write_text("\n".join(lines) + "\n")


def main():
    out, target, timed = Path(sys.argv[1]), "cuda:sm_90", False
    for word in sys.argv[2:]:
        if word == "--time":
            timed = True
        elif word.startswith("--target="):
            target = word.split("=", 1)[1]
        else:
            name, rest = word.split("=", 1)
            path, *flags = rest.split(",")
            try:
                add(out, name, path, flags, target, timed)
                print(name, flush=True)
            except RuntimeError as why:  # random inputs are not for every model
                shutil.rmtree(out / name)
                print(f"left out {name}: {why}", flush=True)


main()
