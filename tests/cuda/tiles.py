"""Every tile of matrix products in every type, and parts of k, on this CPU in place of a GPU: products of small integers, whose sums are
exact, so that all bits must be right. Rows, columns and k fill no tile."""
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent))
import burin
import figure_cases

ROWS, COLUMNS, PRODUCTS, PER_MODEL = 133, 71, 14, 7
TYPES = figure_cases.TYPES


def k_of(i):
    """Long enough for parts; every other one so that rows begin at 16 bytes."""
    return 320 + 32 * i + (i % 2) * 3


def forced(keys, turn):
    """{key: tile}: all tiles, every third product in as many parts as it may have."""
    chosen = {}
    for i, (key, candidates) in enumerate(keys.items()):
        tiles = list(dict.fromkeys(c.split("/")[0] for c in candidates))
        tile = tiles[(turn + i) % len(tiles)]
        parts = [c for c in candidates if c.startswith(f"{tile}/")]
        chosen[key] = parts[-1] if i % 3 == 2 else parts[0]
    return chosen


def choices(path, flags):
    return subprocess.run([burin.compiler(), path, "--target=cuda:host", "--emit=tuning", "-q", "-o", "-", *flags], capture_output=True, text=True).stdout


def case(type_and_turn, folder):
    (name, dtype, flags), turn = type_and_turn
    path, file = Path(folder) / f"{name}{turn}.onnx", Path(folder) / f"{name}{turn}.tuning"
    model = figure_cases.products(dtype, PER_MODEL, ROWS, COLUMNS, lambda i: k_of(turn + i))
    model.save(path)
    text = choices(path, flags)
    keys = {key: [c.split()[0] for c in candidates.split(", ")] for key, candidates in re.findall(r"^(gpu_gemm .*) -> \S+  # cycles: (.*)$", text, re.M)}
    tiles = forced(keys, turn)
    file.write_text("burin tuning 1\n" + "".join(f"{k} -> {t}\n" for k, t in sorted(tiles.items())))
    flags = [*flags, f"--tuning={file}"]
    taken = choices(path, flags)
    if len(tiles) != PER_MODEL or not all(f"{k} -> {t} " in taken for k, t in tiles.items()):
        return "failed", f"{tiles} are not what is taken: {taken[:300]}"
    compiled = burin.compile(path, target="cuda:host", flags=flags)
    rng, kind = np.random.default_rng(turn), figure_cases.NUMPY[dtype]
    feeds = {i.name: rng.integers(0 if kind == np.uint8 else -4, 5, [d.dim_value for d in i.type.tensor_type.shape.dim]).astype(kind)
             for i in model.inputs}
    weights = {w.name: numpy_helper.to_array(w).astype(np.float64) for w in model.weights}
    for node, got in zip(model.nodes, compiled.run(feeds)):
        want = (feeds[node.input[0]].astype(np.float64) @ weights[node.input[1]]).astype(got.dtype)
        if got.tobytes() != want.tobytes():
            return "failed", f"{node.name}: {int((got != want).sum())} of {want.size} are wrong; {tiles}"
    return "passed", ""


def all_cases():
    return [(kind, turn) for kind in TYPES for turn in range(0, PRODUCTS, PER_MODEL)]
