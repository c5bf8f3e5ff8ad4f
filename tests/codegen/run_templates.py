#!/usr/bin/env python3
"""Part "templates": contractions and their epilogues (template_cases.py) compiled and compared with an oracle in float64.

run_templates.py [--seed S] [--count N] [--target T] [--flags "..."] [--dtype float16] [--cross] [--verbose]: the error may
be 1e-5 of the largest value (more for 16-bit types, whose result is rounded). Several cases make one model; targets
and levels take turns; a case is run with three sets of sizes where they are symbolic, with 1 and 2 threads. A few
cases run on the other architectures, as programs under qemu.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np
from onnx import TensorProto, helper

import burin
from tests.support.targets import cpu_flags
from tests.support.template_cases import TRIALS, chain_case, fixed_cases, random_case

BATCH = 8
RTOL = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2,
        "int32": 0, "uint8": 0, "int8": 0}  # integers are exact
SECONDS = 120
QEMU = {"aarch64": "qemu-aarch64", "armv7": "qemu-arm"}
TURNS = [("native", []), ("x86-64-v2", []), ("x86-64-v3", []), ("native", ["-O0"]), ("x86-64-v4", ["--winograd=6"]),
         ("x86-64-v3", ["-O1"])]


def model_of(cases):
    inputs, outputs = [], []
    for c in cases:
        for name, shapes in c.inputs.items():
            names = {}
            dims = [d[0] if min(d) == max(d) else names.setdefault(d, f"{c.tag}s{'_'.join(map(str, d))}") for d in zip(*shapes)]
            t = helper.np_dtype_to_tensor_dtype(c.types.get(name, c.dtype))
            inputs.append(helper.make_tensor_value_info(name, t, dims))
        outputs.append(helper.make_tensor_value_info(c.output, helper.np_dtype_to_tensor_dtype(c.dtype), None))
    graph = helper.make_graph([n for c in cases for n in c.nodes], "cases", inputs, outputs, [k for c in cases for k in c.constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)


def values(rng, shape, dtype):
    if dtype.kind not in "iu":
        return rng.standard_normal(shape).astype(dtype)
    info = np.iinfo(np.int8 if dtype.itemsize > 1 else dtype)  # products and sums stay within 32 bits
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def feeds_of(cases, trial):
    rng = np.random.default_rng(trial)
    return {name: values(rng, shapes[trial], c.types.get(name, c.dtype)) for c in cases for name, shapes in c.inputs.items()}


def wrong(case, got, feeds):
    """How a result is wrong, or None."""
    want, top = case.oracle({k: v for k, v in feeds.items() if k in case.inputs})
    if got.shape != want.shape:
        return f"shape {got.shape}, not {want.shape}"
    if not want.size:
        return None
    if not np.array_equal(np.isnan(got.astype(np.float64)), np.isnan(want)):
        return "NaN in other places"
    error = float(np.nan_to_num(np.abs(got.astype(np.float64) - want)).max()) / max(top, 0.5)
    return None if error <= case.slack * RTOL[case.dtype.name] else f"error {error:.3g}"


def run_here(cases, target, flags):
    """{tag: what is wrong}."""
    try:
        model = burin.compile(model_of(cases), target=target, flags=flags)
    except burin.CompileError as e:
        return {c.tag: str(e)[:300] for c in cases}
    bad = {}
    for trial in range(TRIALS):
        feeds = feeds_of(cases, trial)
        one, two = model.run(feeds), model.run(feeds, threads=2)
        for c, g, h in zip(cases, one, two):
            error = wrong(c, g, feeds)
            if g.tobytes() != h.tobytes():
                error = "1 and 2 threads differ"
            if error:
                bad.setdefault(c.tag, f"sizes {trial}: {error}")
    return bad


def run_program(cases, target, flags):
    """The same through a program under qemu, with the first set of sizes."""
    bad = {}
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder)
        (path / "m.onnx").write_bytes(model_of(cases).SerializeToString())
        done = subprocess.run([burin.compiler(), "compile", path / "m.onnx", "-o", path / "m", f"--target={target}", *flags],
                              capture_output=True, text=True)
        if done.returncode:
            return {c.tag: done.stderr[:300] for c in cases}
        feeds = feeds_of(cases, 0)
        command = [QEMU[target], path / "m", "--threads", "2", "--check-memory"]
        for name, array in feeds.items():
            np.save(path / f"{name}.npy", array)
            command += ["--input", f"{name}=@{path / name}.npy"]
        for c in cases:
            command += ["--output", f"{c.output}=@{path / c.output}.npy"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return {c.tag: f"status {done.returncode}: {done.stderr[:300]}" for c in cases}
        for c in cases:
            error = wrong(c, np.load(path / f"{c.output}.npy"), feeds)
            if error:
                bad[c.tag] = error
    return bad


def run(cases, target, flags):
    """In a process of its own; after a crash every case alone."""
    r, w = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        try:
            bad = (run_program if target in QEMU else run_here)(cases, target, flags)
        except Exception as e:
            bad = {c.tag: f"{type(e).__name__}: {e}"[:300] for c in cases}
        os.write(w, json.dumps(bad).encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as pipe:
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    bad = json.loads(text) if text else {c.tag: f"crash: signal {status & 127}" for c in cases}
    if len(cases) > 1 and len(bad) == len(cases):
        bad = {k: v for c in cases for k, v in run([c], target, flags).items()}
    return bad


def batches(args):
    """(cases, target, flags), the same for the same seed."""
    rng = np.random.default_rng(args.seed)
    turns = [(args.target or t, args.flags.split() or f) for t, f in TURNS]
    fixed = list(fixed_cases(rng))
    for turn in turns[:1] if args.target else [turns[k] for k in (0, 1, 3)]:
        yield fixed, *turn
    dtypes = [args.dtype] if args.dtype else ["float32"] * 7 + ["float16"] + ["float32"] * 6 + ["float64", "bfloat16"]
    for i in range(args.count // BATCH):
        name = dtypes[i % len(dtypes)]
        import ml_dtypes
        dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
        yield [random_case(rng, f"t{i}_{k}", dtype) for k in range(BATCH)], *turns[i % len(turns)]
    for i in range(args.count // BATCH // 4):
        target, flags = turns[i % len(turns)]
        dtype = np.dtype("float16" if i % 3 == 2 else "float32")
        yield [chain_case(rng, f"s{i}_{k}", dtype) for k in range(BATCH)], target, [*flags, "--strips=all"]
    for target in QEMU:
        for i in range(args.cross):
            yield [random_case(rng, f"q{target}{i}_{k}") for k in range(BATCH)], target, []
        yield [chain_case(rng, f"s{target}_{k}") for k in range(BATCH)], target, ["--strips=all"]


def bf16_bits():
    """What is wrong, or None: sums of bf16 have the same bits as pairs (znver4, interpreted) and one by one, compiled; AMX has other ones."""
    import ml_dtypes
    dtype, rng = np.dtype(ml_dtypes.bfloat16), np.random.default_rng(3)
    t = helper.np_dtype_to_tensor_dtype(dtype)
    tensor = lambda name, shape: helper.make_tensor(name, t, shape, (rng.standard_normal(shape) / 3).astype(dtype).tobytes(), raw=True)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4), helper.make_node("Relu", ["c"], ["r"]),
             helper.make_node("Reshape", ["r", "s"], ["a"]), helper.make_node("Gemm", ["a", "v"], ["g"], transA=1, alpha=0.7),
             helper.make_node("MatMul", ["g", "a"], ["y"])]
    constants = [tensor("w", (9, 5, 3, 3)), tensor("v", (9, 9)), helper.make_tensor("s", 7, (2,), (9, 49))]
    graph = helper.make_graph(nodes, "bits", [helper.make_tensor_value_info("x", t, (1, 5, 7, 7))],
                              [helper.make_tensor_value_info("y", t, None)], constants)
    got = []
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder)
        (path / "m.onnx").write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10).SerializeToString())
        (path / "x.pb").write_bytes(tensor("x", (1, 5, 7, 7)).SerializeToString())
        for flags in (["--target=znver4", "--interpret"], ["--target=x86-64-v3", "--interpret"], ["--target=x86-64-v3"], ["--target=native", "--interpret"], ["--target=native"]):
            done = subprocess.run([burin.compiler(), "run", path / "m.onnx", f"--input=x=@{path}/x.pb", f"--output=y=@{path}/y.pb", *flags],
                                  capture_output=True, text=True)
            if done.returncode:
                return f"{flags}: {done.stderr[:300]}"
            got.append(TensorProto.FromString((path / "y.pb").read_bytes()).raw_data)
        loops = subprocess.run([burin.compiler(), path / "m.onnx", "--emit=loop", "--target=znver4", "-o", path / "m.ir"], capture_output=True)
        pairs = loops.returncode == 0 and (path / "m.ir").read_text().count("dot2_bf16")
    if not pairs:
        return "znver4 does not multiply pairs"
    common = got[:3] if "amx_bf16" in cpu_flags() else got
    return None if got[3] == got[4] and all(b == common[0] for b in common) else "other bits of bf16 on another target"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=600)
    p.add_argument("--target")
    p.add_argument("--flags", default="")
    p.add_argument("--dtype")
    p.add_argument("--cross", type=int, default=2, help="batches for each foreign architecture")
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    v4 = "avx512vl" in cpu_flags()
    passed = failed = skipped = 0
    for cases, target, flags in batches(args):
        if target == "x86-64-v4" and not v4:
            skipped += len(cases)
            print(f"skipped {len(cases)} cases of {target}: this CPU has no AVX-512")
            continue
        bad = run(cases, target, flags)
        for c in cases:
            if c.tag in bad or args.verbose:
                print(f"{c.tag} {target} {' '.join(flags)} {c.dtype.name}: {c.title}: {bad.get(c.tag, 'ok')}", flush=True)
        passed, failed = passed + len(cases) - len(bad), failed + len(bad)
    bad = bf16_bits()
    if bad:
        print(bad)
    passed, failed = passed + (not bad), failed + bool(bad)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
