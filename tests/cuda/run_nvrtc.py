#!/usr/bin/env python3
"""Part "nvrtc": kernels of models become machine code of three GPUs, in NVRTC: what the program carries, what the summary says of
registers and spills (of many in a golden table: figures.py), the texts, and what is said where there is no NVRTC. BURIN_REAL_NVRTC
names the library; none: skipped. --bless writes the golden table."""
import os
import re
import struct
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "support"), str(HERE.parent / "models")]
import figures
import numpy as np
import attention_models
import calls
import own_models
import part
from onnx import TensorProto, helper, numpy_helper
from part import ROOT, burin, check, skip

SMS = (80, 90, 100)
TARGET = "--target=cuda:" + ",".join(f"sm_{sm}" for sm in SMS)
MODELS = ("vit", "lstm", "quantized_cnn")
TRAINED = ("mnist_cnn_cntk",)
LIBRARY = os.environ.get("BURIN_REAL_NVRTC", "")
WITH = {**os.environ, "BURIN_NVRTC": LIBRARY}


def images(data):
    """Of an object: [(unit, sm, bytes)], and the number of units. runtime/cuda/gpu.h says the layout."""
    at = next(m.start() for m in re.finditer(b"burnimg1", data) if 0 < struct.unpack_from("<i", data, m.start() + 8)[0] < 1000)  # not code
    n, units = struct.unpack_from("<ii", data, at + 8)
    rows = [struct.unpack_from("<iiQQ", data, at + 16 + 24 * k) for k in range(n)]
    return [(unit, sm, data[at + offset:at + offset + size]) for unit, sm, offset, size in rows], units


def is_image(sm, data):
    """A cubin says its SM in bits 8 to 15 of the ELF header's flags; PTX is text that ends with a zero."""
    if sm < 0:
        return b".target sm_%d" % -sm in data and data[-1] == 0 and data.count(0) == 1
    return data[:4] == b"\x7fELF" and data[18] == 190 and data[49] == sm


def test_model(folder, name, path, *flags):
    obj = folder / f"{name}.o"
    r = burin(path, TARGET, *flags, "--emit=obj", "-o", obj, env=WITH, timeout=120)
    if not check(f"{name} compiles", r.returncode == 0, r.stderr):
        return
    rows, units = images(obj.read_bytes())
    want = {(u, sm) for u in range(units) for sm in (*SMS, -SMS[-1])}
    check(f"{name}: an image of each unit for each GPU", units > 0 and len(rows) == len(want) and {(u, sm) for u, sm, _ in rows} == want,
          [(u, sm) for u, sm, _ in rows])
    check(f"{name}: what it is for", all(is_image(sm, data) for _, sm, data in rows), [(sm, data[:64]) for _, sm, data in rows])
    check(f"{name}: no kernel spills", " 0 spill\n" in r.stderr, r.stderr)
    check(f"{name}: figures", re.search(r"^ +[1-9]\d* +\d+ +0  k\w+, sm_(80|90|100)$", r.stderr, re.M), r.stderr)


def test_calls(folder):
    """Runtime functions as device text: every one that has parts, as far as models have them."""
    for name in ("TopK of rows", "NonMaxSuppression", "RoiAlign avg", "trees", "NonZero", "Compress", "ScatterND 1 add"):
        path, obj = folder / "call.onnx", folder / "call.o"
        path.write_bytes(calls.CASES[name][0][0].SerializeToString())
        r = burin(path, "--target=cuda:sm_80,sm_90", "--emit=obj", "-o", obj, env=WITH, timeout=120)
        check(f"{name} for GPUs", r.returncode == 0 and "on the host" not in r.stderr and len(images(obj.read_bytes())[0]) >= 3, r.stderr)


def test_attention(folder):
    """Sizes of heads as they are common: one kernel, without spills."""
    for name, (_, flags, *_) in attention_models.CASES.items():
        if not name.endswith(("_64", "_128")):
            continue
        path = folder / f"{name}.onnx"
        path.write_bytes(attention_models.model(name).SerializeToString())
        test_model(folder, name, path, *flags)
        r = burin(path, TARGET, *flags, "--emit=loop", "-q", "-o", folder / "m.loop")
        text = (folder / "m.loop").read_text() if r.returncode == 0 else r.stderr
        check(f"{name}: one kernel of its own", "_attention" in text and "_softmax" not in text.replace("_softmaxmatmul", ""), text[:400])


def test_texts(folder, path):
    made = {}
    for kind, target in (("cuda", "cuda:host"), ("cuda", "cuda:sm_80"), ("ptx", "cuda:sm_80,sm_90"), ("cubin", "cuda:sm_90")):
        out = folder / f"text.{kind}"
        r = burin(path, f"--target={target}", f"--emit={kind}", "-q", "-o", out, env=WITH)
        check(f"--emit={kind} of {target}", r.returncode == 0, r.stderr)
        made[kind] = out.read_bytes() if out.exists() else b""
    kernels = set(re.findall(rb"__global__ void __launch_bounds__\([\d, ]+\) (\w+)\(", made["cuda"]))
    check("kernels in the text", kernels, made["cuda"][-400:])
    check("the same in PTX", set(re.findall(rb"\.entry (\w+)\(", made["ptx"])) == kernels and b".target sm_90" in made["ptx"])
    check("a cubin", is_image(90, made["cubin"]) and all(k in made["cubin"] for k in kernels))


def residual_block():
    """Two products, a sum of theirs, and a third behind it, in f16: what is between them is the program's own."""
    rng = np.random.default_rng(1)
    weights = [numpy_helper.from_array(rng.standard_normal((64, 64, 1, 1)).astype(np.float16), f"w{i}") for i in range(3)]
    nodes = [helper.make_node("Conv", ["x", "w0"], ["a"]), helper.make_node("Conv", ["a", "w1"], ["b"]), helper.make_node("Add", ["a", "b"], ["s"]),
             helper.make_node("Relu", ["s"], ["r"]), helper.make_node("Conv", ["r", "w2"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, [2, 64, 16, 16]) for n in "xy"]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights), opset_imports=[helper.make_opsetid("", 17)])


def test_wide(folder):
    """Fragments become rows of 16 bytes, through shared memory that the operands' tiles no longer need."""
    (folder / "block.onnx").write_bytes(residual_block().SerializeToString())
    r = burin(folder / "block.onnx", "--target=cuda:sm_90", "--emit=cuda", "-q", "-o", folder / "block.cu")
    if not check("the block's text", r.returncode == 0, r.stderr):
        return
    kernels = [k for k in (folder / "block.cu").read_text().split("\n// ") if "_relu(" in k and "burin_mma_f16(" in k]
    check("a product with sum and Relu", len(kernels) == 1, len(kernels))
    for k in kernels:
        to = re.search(r"[,(]uint16_t \*\w*? ?[bp](\d+)|, uint16_t \*__restrict__ [bp](\d+)", k)
        n = to and (to.group(1) or to.group(2))
        check("its stores are of 16 bytes", re.search(rf"burin_copy16\(&b{n}\[", k) and not re.search(rf"^ *b{n}\[.*\] = |burin_copy[48]\(&b{n}\[", k, re.M), k)
        check("so is what it adds", re.search(r"burin_copy16\(&w\d+\[0\], &b\d+\[", k), k)
        lie = re.findall(r"t(\d+) = \(\w+ \*\)\(shared \+ (\d+)\)", k)
        check("sums lie where a tile lay", [at for _, at in lie].count("0") == 2, lie)


def test_errors(folder, path):
    absent = {**os.environ, "BURIN_NVRTC": str(folder / "nothing.so")}
    for args, env, status, words in (
            (["--target=cuda:sm_80"], absent, 4, "needs NVRTC"),
            (["--target=cuda:sm_80", "--emit=ptx"], absent, 4, "needs NVRTC"),
            ([TARGET, "--emit=cubin"], WITH, 2, "names 3"),
            (["--target=cuda:host", "--emit=ptx"], WITH, 2, "is no GPU"),
            (["--target=cuda:sm_80,sm_99"], WITH, 2, "unknown GPU"),
            (["--emit=ptx"], WITH, 2, "is of a GPU")):
        r = burin(path, *args, "-o", folder / "none", env=env)
        check(f"{args}", r.returncode == status and words in r.stderr, f"{r.returncode} {r.stderr}")
    check("nothing was left behind", not (folder / "none").exists() and not (folder / "none.reproducer").exists())
    r = burin(path, "--target=cuda:sm_80", "--emit=cuda", "-o", folder / "m.cu", env=absent)
    check("the text needs no NVRTC", r.returncode == 0, r.stderr)


def main():
    shared = Path(os.environ.get("BURIN_SHARED", ROOT / "../shared")) / "models/real"
    with tempfile.TemporaryDirectory(prefix="burin-nvrtc-") as name:
        folder = Path(name)
        paths = {m: folder / f"{m}.onnx" for m in MODELS}
        for m, path in paths.items():
            path.write_bytes(own_models.MODELS[m]().SerializeToString())
        for m in TRAINED:
            paths[m] = shared / m / "model.onnx"
        test_wide(folder)
        if not LIBRARY:
            for m in paths:
                skip(m, "no NVRTC")
            return part.finish()
        for m, path in paths.items():
            if path.exists():
                test_model(folder, m, path)
            else:
                skip(m, f"{path} is not here")
        test_attention(folder)
        test_calls(folder)
        test_texts(folder, paths["lstm"])
        test_errors(folder, paths["lstm"])
        figures.test_figures(folder, LIBRARY, "--bless" in sys.argv)
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
