#!/usr/bin/env python3
"""Latencies beside busy processes: bench_busy.py MODEL.onnx… [options]

For 0, 1 and 2 busy processes per core and 1 and 2 threads: median and mean in ms of the static program, of a C program with host_pool.c,
of Python, and of ONNX Runtime and OpenVINO where they are installed; then the mean of several threads over that of one. They take turns in
short slices, each a process of its own; the figures are medians over the slices, ratios are of neighbours in time. --beside: in one process, in turns with the other two, whose
threads spin. --callers: what two callers at once get done, against one. Asserts nothing. "tiny" is a model of some 50 us.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BURIN = os.environ.get("BURIN", str(ROOT / "build" / "burin"))
sys.path.insert(0, str(ROOT / "python"))


def tiny(path):
    """Convolutions as for handwritten digits."""
    import onnx
    from onnx import helper, numpy_helper, parser
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
        tiny (float[1,1,28,28] x) => (float[1,10] y) {
            a = Conv <pads = [2,2,2,2]> (x, w1) b = Relu(a) c = MaxPool <kernel_shape = [2,2], strides = [2,2]> (b)
            d = Conv <pads = [2,2,2,2]> (c, w2) e = Relu(d) f = MaxPool <kernel_shape = [3,3], strides = [3,3]> (e)
            g = Flatten(f) y = MatMul(g, w3) }""")
    rng = np.random.default_rng(1)
    for name, shape in (("w1", (16, 1, 5, 5)), ("w2", (32, 16, 5, 5)), ("w3", (512, 10))):
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(0, 0.1, shape).astype(np.float32), name))
    onnx.save(model, path)


# ---- one slice: latencies in ms -------------------------------------------------------------------------

def feeds_of(path):
    import onnx
    graph = onnx.load(path, load_external_data=False).graph
    known, rng, feeds = {i.name for i in graph.initializer}, np.random.default_rng(0), {}
    for i in graph.input:
        if i.name not in known:
            shape = [d.dim_value or 1 for d in i.type.tensor_type.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
            feeds[i.name] = rng.random(shape).astype(dtype)
    return feeds


def load(way, folder, path, threads):
    feeds = dict(np.load(f"{folder}/feeds.npz"))
    if way == "python":
        import burin
        model = burin.Model(f"{folder}/model.so")
        return lambda: model.run(feeds, threads=threads)
    if way == "ort":
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, feeds)
    import openvino as ov
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(path, "CPU", config).create_infer_request()
    return lambda: request.infer(feeds)


def clock(runs, seconds):
    """Runs the functions in turns; their latencies."""
    times = [[] for _ in runs]
    for run in runs:
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for run, list_ in zip(runs, times):
            start = time.perf_counter()
            run()
            list_.append((time.perf_counter() - start) * 1e3)
    return times


def child(args):
    """python, ort, ov; or several with '+': in turns, the figures are the first one's; or python*N: N threads of Python."""
    way, count = (args.child.split("*") + ["1"])[:2]
    runs = [load(w, args.folder, args.models[0], t) for w, t in zip(way.split("+"), args.threads)]
    done = []
    callers = [threading.Thread(target=lambda: done.append(clock(runs, args.seconds)[0])) for _ in range(int(count))]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    print(json.dumps([statistics.median(done[0]), sum(1e3 / statistics.mean(d) for d in done)]))


def slice_of(way, folder, path, threads, seconds, once_ms, callers=1):
    """(median in ms, runs per second)"""
    if way == "program":
        runs = max(5, int(seconds * 1e3 / once_ms))
        out = subprocess.run([f"{folder}/model", f"--bench={runs}", "--threads", str(threads)], capture_output=True, text=True, check=True).stdout
        found = re.search(r"median (\S+) ms, p90 \S+ ms, mean (\S+) ms", out)
        return float(found[1]), 1e3 / float(found[2])
    if way == "host":
        command = [f"{folder}/host", str(threads), str(seconds * 1e3), str(callers)]
        return tuple(map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()))
    others = [str(threads)] * (1 + way.count("+"))
    command = [sys.executable, __file__, path, "--child", f"{way}*{callers}", "--folder", folder, "--threads", *others, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-1000:])
    return tuple(json.loads(done.stdout.splitlines()[-1]))


# ---- tables ---------------------------------------------------------------------------------------------

def prepare(folder, path):
    np.savez(f"{folder}/feeds.npz", **feeds_of(path))
    base = [BURIN, "compile", path, "--quiet"]
    subprocess.run([*base, "-o", f"{folder}/model"], check=True)
    subprocess.run([*base, "--emit=shared", "--name=burin_model", "-o", f"{folder}/model.so"], check=True)
    subprocess.run([*base, "--emit=obj", "--name=burin_model", "-o", f"{folder}/model.o"], check=True)
    subprocess.run(["clang-19", "-O2", "-I", ROOT, "-I", ROOT / "runtime", ROOT / "tests/runtime/bench_pool.c",
                    ROOT / "runtime/host_pool.c", f"{folder}/model.o", "-o", f"{folder}/host", "-pthread"], check=True)


class Busy:
    """Processes that do nothing but run."""

    def __init__(self, count):
        self.processes = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]

    def __enter__(self):
        time.sleep(0.2)

    def __exit__(self, *_):
        for p in self.processes:
            p.kill()
            p.wait()


def installed():
    from importlib.util import find_spec
    return [way for way, module in (("ort", "onnxruntime"), ("ov", "openvino")) if find_spec(module)]


def measure(cases, args, folder, path):
    """{case: [(median, rate) of each slice]}; the cases take turns. A case is (way, threads, callers)."""
    once = slice_of("host", folder, path, 1, 0.1, 1)[0]
    rows = {c: [] for c in cases}
    for _ in range(args.slices):
        for way, threads, callers in cases:
            rows[way, threads, callers].append(slice_of(way, folder, path, threads, args.seconds, once, callers))
    return rows


def cell(rows, ways, threads):
    """Of one way of running: median (mean) for each number of threads, and how means compare with those of the first."""
    text = []
    for t in threads:
        slices = rows[ways, t, 1]
        text.append(f"{statistics.median(s[0] for s in slices):.3g} ({statistics.median(1e3 / s[1] for s in slices):.3g})")
    ratios = [statistics.geometric_mean(a[1] / b[1] for a, b in zip(rows[ways, threads[0], 1], rows[ways, t, 1])) for t in threads[1:]]
    return " | ".join(text) + "".join(f" = {r:.2f}" for r in ratios)


def show_busy(args, folder, path):
    ways = args.ways or ["program", "host", "python", *installed()]
    print(f"{Path(path).stem}: ms, median (mean) = ratio of means; threads: " + ", ".join(map(str, args.threads)))
    for busy in args.busy:
        with Busy(int(busy * len(os.sched_getaffinity(0)))):
            got = measure([(w, t, 1) for w in ways for t in args.threads], args, folder, path)
        print(f"  {busy:g} busy a core: " + "   ".join(f"{w} {cell(got, w, args.threads)}" for w in ways), flush=True)


def show_beside(args, folder, path):
    ways = ["python", *("python+" + w for w in installed())]
    got = measure([(w, t, 1) for w in ways for t in args.threads], args, folder, path)
    for w in ways:
        print(f"{Path(path).stem} {w:12}: {cell(got, w, args.threads)}", flush=True)


def show_callers(args, folder, path):
    cases = [(w, t, c) for w in ("host", "python") for t in args.threads for c in (1, 2)]
    got = measure(cases, args, folder, path)
    for w in ("host", "python"):
        for t in args.threads:
            one, two = (statistics.median(s[1] for s in got[w, t, c]) for c in (1, 2))
            print(f"{Path(path).stem} {w}, {t} threads: one caller {one:.1f} runs/s, two {two:.1f}: {two / one:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--busy", type=float, nargs="+", default=[0, 1, 2], help="busy processes per core")
    parser.add_argument("--seconds", type=float, default=0.4, help="of a slice")
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=("program", "host", "python", "ort", "ov"), help="of program host python ort ov; all that there are")
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--callers", action="store_true")
    parser.add_argument("--keep", help="a folder for what is compiled; taken from there if it is there already")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    show = show_beside if args.beside else show_callers if args.callers else show_busy
    with tempfile.TemporaryDirectory(prefix="burin-") as temporary:
        for path in args.models:
            folder = f"{args.keep or temporary}/{Path(path).stem}"
            os.makedirs(folder, exist_ok=True)
            if path == "tiny":
                path = f"{folder}/tiny.onnx"
                tiny(path)
            if not os.path.exists(f"{folder}/host"):
                prepare(folder, path)
            show(args, folder, path)


if __name__ == "__main__":
    sys.exit(main())
