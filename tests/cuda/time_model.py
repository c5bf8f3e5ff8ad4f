#!/usr/bin/env python3
"""What kernels of networks are estimated to take on a GPU, beside their limit (--print-plan), as a table in Markdown: a row for each
network, batch and precision. Nothing is run on a GPU, and nothing measured; published times are of other machines.

  time_model.py MODELS [--target=cuda:sm_90] [--keep=DIR] [--only=REGEX]

MODELS is a folder of NAME.onnx of batch 1. int8 is by `burin quantize` with made-up samples, which is enough for times. --keep: a folder
where models of other batches and precisions stay for the next run. BURIN names the compiler."""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

BURIN = os.environ.get("BURIN", "build/burin")
NETWORKS = ("resnet50", "bert_base_128", "vit_b_16", "yolov5n_640", "mobilenet_v2")
BATCHES = (1, 32)
PRECISIONS = ("f32", "tf32", "f16", "int8")
# ms, inputs on the device; no table of an H100 was found
PUBLISHED = {
    ("resnet50", "f16", 1): "0.58 AITemplate A100; 0.267 TensorRT L4", ("resnet50", "f16", 32): "2.40 AITemplate A100",
    ("resnet50", "int8", 1): "0.46 TensorRT A100; 0.218 TensorRT L4",
    ("mobilenet_v2", "int8", 1): "0.30 TensorRT A100",
    ("bert_base_128", "f16", 1): "0.67 TensorRT A100", ("bert_base_128", "f16", 32): "4.10 TensorRT A100",
    ("bert_base_128", "int8", 1): "0.58 TensorRT A100", ("bert_base_128", "int8", 32): "2.27 TensorRT A100",
    ("vit_b_16", "f16", 1): "1.02 AITemplate A100", ("vit_b_16", "f16", 32): "6.51 AITemplate A100",
    ("vit_b_16", "int8", 1): "1.52 FasterTransformer A100", ("vit_b_16", "int8", 32): "6.43 FasterTransformer A100",
    ("yolov5n_640", "f16", 1): "0.337 TensorRT B200",
}


# ---- batches ----

def with_batch(shape, batch):
    """Of a Reshape: the first size of 1 is the batch; else the shape is one of PyTorch's attention, (sequence, batch*heads, size) or
    (sequence*batch, size)."""
    at = shape.index(1) if 1 in shape else 1 if len(shape) == 3 else 0
    return [*shape[:at], shape[at] * batch, *shape[at + 1:]]


def rebatch(model, batch):
    """Sizes of inputs, and of Reshapes of what depends on them, for another batch; constants that are concatenated with it are repeated."""
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    graph = model.graph
    constant = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    constant |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    given = [i for i in graph.input if i.name not in constant]
    depends = {i.name for i in given}
    for i in given:
        i.type.tensor_type.shape.dim[0].dim_value = batch
    nodes = list(graph.node)
    for k, n in enumerate(nodes):
        if depends.isdisjoint(n.input) or n.op_type == "Shape":
            continue
        depends |= set(n.output)
        for i, name in enumerate(n.input if n.op_type == "Concat" else ()):
            if name not in depends:
                rank = constant[name].ndim if name in constant else ranks[name]
                graph.initializer.append(numpy_helper.from_array(np.array([batch] + [1] * (rank - 1), np.int64), f"{name}.repeat"))
                graph.node.insert(k, helper.make_node("Expand", [name, f"{name}.repeat"], [f"{name}.batch"]))
                n.input[i] = f"{name}.batch"
        if n.op_type == "Reshape" and n.input[0] in depends and len(constant.get(n.input[1], ())) > 1:
            shape = with_batch([int(d) for d in constant[n.input[1]]], batch)
            graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{n.output[0]}.batch"))
            n.input[1] = f"{n.output[0]}.batch"
    for o in graph.output:
        o.type.tensor_type.ClearField("shape")
    del graph.value_info[:]


# ---- models ----

def burin(*args):
    done = subprocess.run([BURIN, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, args))}: {done.stderr[-500:]}")
    return done.stderr


def quantized(path, folder):
    out = folder / f"{path.stem}_int8.onnx"
    if out.exists():
        return out
    model, rng = onnx.load(path), np.random.default_rng(0)
    known, samples = {i.name for i in model.graph.initializer}, {}
    for i in (x for x in model.graph.input if x.name not in known):
        t = i.type.tensor_type
        shape, dtype = [d.dim_value for d in t.shape.dim], helper.tensor_dtype_to_np_dtype(t.elem_type)
        samples[i.name] = rng.standard_normal(shape).astype(dtype) if dtype.kind == "f" else rng.integers(0, 2, shape).astype(dtype)
    np.savez(folder / f"{path.stem}.npz", **samples)
    burin("quantize", path, f"--calibrate={folder}/{path.stem}.npz", "--calibration=minmax", "--metric=cosine", "--max-drop=100", "-q", "-o", out)
    return out


def batched(path, folder, batch):
    out = folder / f"{path.stem}_b{batch}.onnx"
    if not out.exists():
        model = onnx.load(path)
        if batch > 1:
            rebatch(model, batch)
        onnx.save(model, out)
    return out


# ---- the table ----

def plan(path, target, flags, folder):
    """Launches: (us, limit us, name), and their sums."""
    text = burin(path, f"--target={target}", "--emit=loop", "--print-plan", "-q", "-o", folder / "plan.loop", *flags)
    lines = text[text.index("launch, each once"):].splitlines()[1:]
    rows = [(float(us), float(limit), re.sub(r"^k\d+_k_", "", name)) for us, limit, name in (line.split(None, 2) for line in lines)]
    return rows[:-1], rows[-1]


def row(name, batch, precision, path, target, folder):
    launches, (us, limit, _) = plan(path, target, [] if precision == "int8" else [f"--precision={precision}"], folder)
    worst = sorted(launches, key=lambda r: r[1] - r[0])[:3]
    return [name, batch, precision, f"{us / 1e3:.3f}", f"{limit / 1e3:.3f}", f"{100 * limit / us:.0f} %", len(launches),
            "; ".join(f"{n} {u:.0f}/{l:.0f}" for u, l, n in worst), PUBLISHED.get((name, precision, batch), "")]


def main():
    options = dict(a[2:].split("=", 1) for a in sys.argv[1:] if a.startswith("--"))
    models = Path(next(a for a in sys.argv[1:] if not a.startswith("--")))
    print("| network | batch | precision | estimated ms | limit ms | limit's share | launches | worst launches, us/limit | published ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="burin-time-") as scratch:
        folder = Path(options.get("keep", scratch))
        folder.mkdir(parents=True, exist_ok=True)
        for name in NETWORKS:
            for batch in BATCHES:
                for precision in PRECISIONS:
                    if not re.search(options.get("only", ""), f"{name} {batch} {precision}"):
                        continue
                    try:
                        path = models / f"{name}.onnx"
                        path = batched(quantized(path, folder) if precision == "int8" else path, folder, batch)
                        cells = row(name, batch, precision, path, options.get("target", "cuda:sm_90"), folder)
                    except RuntimeError as why:
                        cells = [name, batch, precision, str(why)[-300:].replace("\n", " ")]
                    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


main()
