#!/usr/bin/env python3
"""Part "models": real trained models and skeletons, compiled, run, compared with the stored reference outputs.

run_models.py [--target T]... [--only NAME,...] [--skip-skeletons] [--keep-going] [--flags "..."] [--max-kb N]

For native the model is run in Python with 1 and 2 threads; their bits must agree. Every other target is compiled to a
program that reads and writes npy files, under qemu where the machine needs it. Each model runs in a process of
its own. Prints a table and, last, the count. Without the shared models everything is skipped.
"""
import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]
from tests.support import targets  # noqa: E402
SHARED = Path(os.environ.get("BURIN_SHARED", ROOT.parent / "shared")) / "models"
BUILD = Path(os.environ.get("BURIN_BUILD", ROOT / "build"))
TOLERANCE = 1e-4
# Models whose reference is itself further off than that, as a run of the same model in float64 shows:
# {name: (tolerance, why)}
WIDER = {
    "style_candy": (1.5e-3, "ONNX Runtime is 9e-4 from float64, burin 3e-4"),
    "style_candy_std": (1.5e-3, "ONNX Runtime is 9e-4 from float64, burin 3e-4"),
    "squeezenet1.0_fp16": (1e-2, "burin rounds every stored tensor to f16 as ONNX says, ONNX Runtime computes on in f32"),
    "squeezenet1.0_int8_qdq": (2.5e-2, "a value of conv1, -107.499999, is -107 in exact sums, -108 in ONNX Runtime's floats; it spreads"),
}


def own_spread():
    """How far ONNX Runtime moves between its own runs, from the table of the shared models."""
    rows = re.findall(r"^\| (\S+) \|.*\| (\S+) \|$", (SHARED / "README.md").read_text(), re.M)
    return {name: float(v) for name, v in rows if re.fullmatch(r"[\d.e+-]+", v)}


def materialize():
    """Skeletons with their seeded weights, once, in the build folder."""
    out = BUILD / "models"
    sources = sorted((SHARED / "skeletons").glob("*.onnx"))
    if not all((out / s.name).exists() for s in sources):
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, SHARED / "materialize.py", out, *sources], check=True, stdout=subprocess.DEVNULL)
    return [out / s.name for s in sources]


# ---- one model (in a process of its own) ------------------------------------------------------------------

def graph_inputs(path):
    import onnx
    graph = onnx.load(path, load_external_data=False).graph
    weights = {w.name for w in graph.initializer}
    return [i for i in graph.input if i.name not in weights], [o.name for o in graph.output]


def random_feeds(inputs):
    """Seeded inputs; integers are small so that they are valid indices, unknown sizes 1."""
    import numpy as np
    import onnx
    rng = np.random.default_rng(7)
    feeds = {}
    for i in inputs:
        t = i.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else 1 for d in t.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(t.elem_type)
        small = np.dtype(dtype).kind in "iub"
        feeds[i.name] = (rng.integers(0, 2, shape) if small else rng.random(shape)).astype(dtype)
    return feeds


def reference(path, feeds):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def cases(path):
    """(feeds, expected or None) of a model."""
    import numpy as np
    inputs, _ = graph_inputs(path)
    files = sorted(path.parent.glob("io_*.npz")) if path.name == "model.onnx" else []
    for f in files:
        data = np.load(f, allow_pickle=False)
        outs = [data[k] for k in sorted((k for k in data if k.startswith("out_")), key=lambda k: int(k[4:]))]
        yield {i.name: data[f"in_{k}"] for k, i in enumerate(inputs)}, outs or None
    if not files:
        yield random_feeds(inputs), None


def compare(got, want, tolerance):
    """(largest error relative to the largest expected value, complaint or '')."""
    import numpy as np
    if tuple(got.shape) != tuple(want.shape):
        return float("inf"), f"shape {got.shape}, expected {want.shape}"
    if got.dtype != want.dtype:
        return float("inf"), f"type {got.dtype}, expected {want.dtype}"
    if got.size == 0:
        return 0.0, ""
    if want.dtype.kind not in "fV":
        wrong = int((got != want).sum())
        return float(wrong > 0), f"{wrong} of {got.size} integers differ" if wrong else ""
    g, w = got.astype(np.float64), want.astype(np.float64)
    same = (g == w) | (np.isnan(g) & np.isnan(w))
    finite = np.abs(w[np.isfinite(w)])
    scale = finite.max() if finite.size and finite.max() > 0 else 1.0
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(g - w) / scale)
    worst = float(np.nan_to_num(error, nan=np.inf).max())
    return worst, "" if worst <= tolerance else f"error {worst:.2g}, allowed {tolerance:.0e}"


def run_native(path, flags, tolerance):
    import burin
    import numpy as np
    start = time.perf_counter()
    model = burin.compile(path, flags=flags)
    row = {"compile": time.perf_counter() - start, "error": 0.0, "arena": model.arena_bytes,
           "bound": model.arena_lower_bound, "runs": 0}
    for feeds, want in cases(path):
        start = time.perf_counter()
        one = model.run(feeds, threads=1)
        row["ms"] = (time.perf_counter() - start) * 1e3
        two = model.run(feeds, threads=2)
        for tensor, a, b in zip(model.outputs, one, two):
            if a.tobytes() != b.tobytes():
                return {**row, "bad": f"{tensor.name}: 1 and 2 threads give different bits"}
        for tensor, a, w in zip(model.outputs, one, reference(path, feeds) if want is None else want):
            error, bad = compare(a, np.asarray(w), tolerance)
            row["error"] = max(row["error"], error)
            if bad:
                return {**row, "bad": f"{tensor.name}: {bad}"}
        row["runs"] += 1
    return row


def run_program(path, target, flags, tolerance):
    import burin
    import numpy as np
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        program = os.path.join(folder, "program")
        start = time.perf_counter()
        done = subprocess.run([burin.compiler(), "compile", path, "-o", program, f"--target={target}", *flags],
                              capture_output=True, text=True, errors="replace")
        row = {"compile": time.perf_counter() - start, "error": 0.0, "runs": 0}
        if done.returncode:
            return {**row, "bad": done.stderr.strip()[-300:]}
        outputs = graph_inputs(path)[1]
        for feeds, want in cases(path):
            command = [*targets.EMULATOR[target], program, "--check-memory"]
            for k, value in enumerate(feeds.values()):
                np.save(f"{folder}/in_{k}.npy", value)
                command += ["--input", f"{k}=@{folder}/in_{k}.npy"]
            for k in range(len(outputs)):
                command += ["--output", f"{k}=@{folder}/out_{k}.npy"]
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            row["ms"] = (time.perf_counter() - start) * 1e3
            if done.returncode:
                return {**row, "bad": f"status {done.returncode}: {done.stderr.strip()[-300:]}"}
            for k, w in enumerate(reference(path, feeds) if want is None else want):
                error, bad = compare(np.load(f"{folder}/out_{k}.npy"), np.asarray(w), tolerance)
                row["error"] = max(row["error"], error)
                if bad:
                    return {**row, "bad": f"{outputs[k]}: {bad}"}
            row["runs"] += 1
    return row


def row_of(path, target, flags, tolerance):
    try:
        native = target == "native"
        return run_native(path, flags, tolerance) if native else run_program(path, target, flags, tolerance)
    except Exception as e:  # the parent shows it
        return {"bad": f"{type(e).__name__}: {e}"}


# ---- all models (the parent) --------------------------------------------------------------------------

def run_one(path, target, flags, tolerance, timeout):
    """row_of() in a process of its own, where a model may crash; forked, so that packages are imported once."""
    import burin  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: sender.send(row_of(path, target, flags, tolerance)))
    process.start()
    sender.close()
    try:
        if receiver.poll(timeout):
            return receiver.recv()
        process.kill()
        return {"bad": f"not ready after {timeout} s"}
    except EOFError:
        process.join()
        return {"bad": f"the process ended with status {process.exitcode}"}
    finally:
        process.join()
        receiver.close()


def show(name, target, row):
    ratio = f"{row['arena'] / row['bound']:.2f}" if row.get("arena") and row.get("bound") else "-"
    text = f"{row.get('compile', 0):7.2f} {row.get('ms', 0):9.2f} {row.get('error', 0):9.1e} {ratio:>6}"
    note = f" ({WIDER[name][1]})" if name in WIDER else ""
    print(f"{name:28} {target:10} {text}  {row.get('bad') or 'ok'}{note}", flush=True)


def select(args):
    chosen = [p / "model.onnx" for p in sorted((SHARED / "real").iterdir())]
    chosen += [] if args.skip_skeletons else materialize()
    if args.only:
        names = args.only.split(",")
        chosen = [p for p in chosen if model_name(p) in names]
    return [p for p in chosen if p.stat().st_size <= args.max_kb * 1024]


def model_name(path):
    return path.parent.name if path.name == "model.onnx" else path.stem


def main(argv=None, before=(0, 0, 0)):
    """`before`: what was counted already."""
    passed, failed, skipped = before
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", action="append")
    parser.add_argument("--only")
    parser.add_argument("--skip-skeletons", action="store_true")
    parser.add_argument("--flags", default="")
    parser.add_argument("--max-kb", type=int, default=10**9)
    parser.add_argument("--timeout", type=int, default=300)
    args = parser.parse_args(argv)
    if not SHARED.exists():
        print(f"skipped the shared models: they are not here\n{passed} passed, {failed} failed, {skipped + 1} skipped")
        return failed > 0
    spread = own_spread()
    print(f"{'model':28} {'target':10} {'compile s':>7} {'run ms':>8} {'error':>9} {'arena':>6}")
    for target in args.target or ["native"]:
        for path in select(args):
            name = model_name(path)
            tolerance = max(TOLERANCE, spread.get(name, 0), WIDER.get(name, (0,))[0])
            row = run_one(path, target, args.flags.split(), tolerance, args.timeout)
            show(name, target, row)
            passed, failed = passed + ("bad" not in row), failed + ("bad" in row)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
