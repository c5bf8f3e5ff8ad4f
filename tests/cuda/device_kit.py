#!/usr/bin/env python3
"""Makes what tests/cuda/device.sh takes to a machine with a GPU, one file: programs, inputs, and results that they must have.

  device_kit.py KIT.tar.xz [--target=cuda:sm_90] [--skeletons] [--real N] [--times] [NAME=MODEL[,FLAG…] …]

--skeletons   the shared skeletons, against this CPU's results
--real N      the N smallest shared trained models, against their stored outputs
--times       f16 networks at batch 1 and 32 that device_torch.py times, too: the same programs are checked and timed
NAME=MODEL    another model, with random inputs, against this CPU's results; FLAG is the compiler's, or "time": to be timed

Weights of skeletons repeat after some thousand numbers, so that xz makes a few megabytes of all. BURIN names the compiler."""
import argparse
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
BURIN = os.path.abspath(os.environ.get("BURIN", ROOT / "build/burin"))
SHARED = Path(os.environ.get("BURIN_SHARED", ROOT.parent / "shared")) / "models"
TIMED = (("resnet50", 1), ("resnet50", 32), ("bert_base_128", 1), ("bert_base_128", 32), ("vit_b_16", 1), ("mobilenet_v2", 1))
PERIOD = 4099  # prime, so that no two rows of a matrix are the same
SANITIZED = 5


# ---- models -------------------------------------------------------------------------------------------

def fill_weights(model):
    """Gives seeded initializers data in the sizes that materialize.py gives them, repeating."""
    role = {name: (n.op_type, k) for n in reversed(model.graph.node) for k, name in enumerate(n.input)}
    for init in (i for i in model.graph.initializer if i.doc_string == "seeded"):
        rng, dims, (op, slot) = np.random.default_rng(zlib.crc32(init.name.encode())), tuple(init.dims), role.get(init.name, ("", 0))
        if op == "BatchNormalization" and slot in (1, 4) or op == "Mul" and len(dims) == 1 or op == "LayerNormalization" and slot == 1:
            block = rng.uniform(0.5, 1.5, PERIOD)
        elif len(dims) < 2:
            block = rng.normal(0, 0.1, PERIOD)
        else:
            fan_in = int(np.prod(dims[1:])) if op in ("Conv", "Gemm", "Gather", "LSTM") else int(np.prod(dims[:-1]))
            block = rng.normal(0, ((1 if op in ("Gather", "LSTM") else 2) / max(fan_in, 1)) ** 0.5, PERIOD)
        init.CopyFrom(numpy_helper.from_array(np.resize(block, dims).astype(np.float32), init.name))


def set_batch(model, batch):
    """Of a model whose inputs and Reshapes begin with 1."""
    graph = model.graph
    known = {i.name for i in graph.initializer}
    for v in (i for i in graph.input if i.name not in known):
        v.type.tensor_type.shape.dim[0].dim_value = batch
    shapes = {n.input[1] for n in graph.node if n.op_type == "Reshape"}
    for init in (i for i in graph.initializer if i.name in shapes):
        dims = numpy_helper.to_array(init).copy()
        if dims.size and dims[0] == 1:
            dims[0] = 0  # as the input has it
            init.CopyFrom(numpy_helper.from_array(dims, init.name))
    del graph.value_info[:]
    for o in graph.output:
        o.type.tensor_type.ClearField("shape")


def skeleton(name, batch, folder):
    model = onnx.load(SHARED / f"skeletons/{name}.onnx")
    fill_weights(model)
    if batch != 1:
        set_batch(model, batch)
    path = folder / f"{name}.{batch}.onnx"
    onnx.save(model, path)
    return path


# ---- inputs and outputs -------------------------------------------------------------------------------

def fill(shape, dtype, rng):
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def run(command, **kw):
    done = subprocess.run(command, capture_output=True, text=True, **kw)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr[-500:]}")


def inputs_of(graph):
    known = {i.name for i in graph.initializer}
    return [i for i in graph.input if i.name not in known]


def write_inputs(folder, graph, feeds):
    """Arguments that give every input; without feeds random ones, sizes that are open being 1."""
    rng, given = np.random.default_rng(0), []
    for k, i in enumerate(inputs_of(graph)):
        t = i.type.tensor_type
        shape = [d.dim_value if d.dim_value > 0 else 1 for d in t.shape.dim]
        np.save(folder / f"in{k}.npy", feeds[k] if feeds else fill(shape, helper.tensor_dtype_to_np_dtype(t.elem_type), rng))
        given.append(f"--input={i.name}=@in{k}.npy")
    return given


def write_outputs(folder, graph, path, flags, given, stored):
    """What must come out: what is stored, or this CPU's results."""
    files = [(o.name, f"out{k}.npy") for k, o in enumerate(graph.output)]
    if stored:
        for (_, file), a in zip(files, stored):
            np.save(folder / file, a)
    else:
        run([BURIN, path, "-q", "-o", folder / "cpu", *[f for f in flags if f != "--precision=tf32"]])
        run(["./cpu", *given, *[f"--output={n}=@{f}" for n, f in files]], cwd=folder)
        (folder / "cpu").unlink()
    return files


def tolerance(folder, files, flags):
    """Of the largest value of an output, the smallest of them."""
    largest = [float(np.abs(np.nan_to_num(np.load(folder / f).astype(np.float64), posinf=0, neginf=0)).max(initial=0)) for _, f in files]
    return (2e-2 if flags else 2e-3) * min((v for v in largest if v > 0), default=1)


def add(kit, name, path, flags, target, timed=False, io=None):
    folder = kit / name
    folder.mkdir(parents=True)
    graph = onnx.load(path, load_external_data=False).graph
    run([BURIN, path, f"--target={target}", "-q", "-o", folder / "program", *flags])
    given = write_inputs(folder, graph, io and [io[f"in_{k}"] for k in range(len(inputs_of(graph)))])
    stored = io and [io[f"out_{k}"] for k in range(len(graph.output)) if f"out_{k}" in io]
    files = write_outputs(folder, graph, path, flags, given, stored)
    words = [*given, *[f"--expect={n}=@{f}" for n, f in files], "--rtol", "0", "--atol", f"{tolerance(folder, files, flags):.3g}"]
    (folder / "arguments").write_text("\n".join(words) + "\n")
    (folder / "inputs").write_text("".join(f"{w}\n" for w in given))
    if timed:
        (folder / "timed").touch()


# ---- the kit ------------------------------------------------------------------------------------------

def members(args, folder):
    """(name, path, flags, timed, stored inputs and outputs)."""
    for word in args.models:
        name, rest = word.split("=", 1)
        path, *flags = rest.split(",")
        yield name, lambda path=path: path, [f for f in flags if f != "time"], "time" in flags, None
    if args.skeletons:
        for p in sorted((SHARED / "skeletons").glob("*.onnx")):
            yield p.stem, lambda p=p: skeleton(p.stem, 1, folder), [], False, None
    for name, batch in TIMED if args.times else ():
        yield f"{name}.{batch}", lambda name=name, batch=batch: skeleton(name, batch, folder), ["--precision=f16"], True, None
    real = sorted((SHARED / "real").glob("*/io_0.npz"), key=lambda p: (p.parent / "model.onnx").stat().st_size)
    for p in real[:args.real]:
        yield p.parent.name, lambda p=p: p.parent / "model.onnx", [], False, np.load(p)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("kit", type=Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--target", default="cuda:sm_90")
    parser.add_argument("--skeletons", action="store_true")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--real", type=int, default=0)
    args = parser.parse_intermixed_args()
    made = []
    with tempfile.TemporaryDirectory(prefix="burin-kit-") as name:
        kit, models = Path(name) / "kit", Path(name) / "models"
        models.mkdir()
        kit.mkdir()
        for label, path, flags, timed, io in members(args, models):
            try:
                add(kit, label, path(), flags, args.target, timed, io)
                made.append(label)
                print(label, flush=True)
            except (RuntimeError, KeyError) as why:  # random inputs are not for every model
                run(["rm", "-rf", kit / label])
                print(f"left out {label}: {why}", flush=True)
        for label in sorted(made, key=lambda m: (kit / m / "program").stat().st_size)[:SANITIZED]:
            (kit / label / "sanitized").touch()
        run(["bash", "-c", f"tar -C '{kit}' -cf - . | xz -T0 -3 >'{args.kit.resolve()}'"])
    print(f"{len(made)} programs, {args.kit.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
