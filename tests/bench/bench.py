#!/usr/bin/env python3
"""Times of compiled models against ONNX Runtime and OpenVINO: bench.py [MODEL…] [options]

The skeletons of the shared models with seeded weights, or with --real the trained models with their own inputs; MODEL
is a name from either. Each model has a process of its own, in which the three take turns, one inference each, until
the time is over. Asserts nothing. docs/PERFORMANCE.md tells how to read the tables.
"""
import argparse
import collections
import ctypes
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]
from tests.models import run_models

LIBRARIES = {"burin": "burin", "ort": "ONNX Runtime", "ov": "OpenVINO"}
BF16 = {"burin": "burin bf16", "f32": "burin float32", "ov": "OpenVINO bf16"}  # --bf16
BF16_FLAG = "--precision=bf16"
SMALL_MS = 0.1  # below this a call from Python is a large part of what is measured


# ---- the three, each as a function that runs one inference ---------------------------------------------

def load_burin(path, feeds, args):
    import burin
    start = time.perf_counter()
    model = burin.compile(path, target=args.target, flags=args.flags.split())
    row = {"compile": time.perf_counter() - start, "arena": model.arena_bytes, "bound": model.arena_lower_bound}
    return model, row


def load_f32(path, feeds, args):
    import burin
    model = burin.compile(path, target=args.target, flags=args.flags.replace(BF16_FLAG, "").split())
    return lambda: model.run(feeds, threads=args.threads)


def load_ort(path, feeds, args):
    """The second function runs with inputs bound beforehand, for networks whose time is mostly the call."""
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")  # not while it is another's turn
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    return lambda: session.run(None, feeds), lambda: session.run_with_iobinding(binding)


def load_ov(path, feeds, args):
    import openvino as ov
    core = ov.Core()
    config = {"INFERENCE_PRECISION_HINT": "bf16" if args.bf16 else "f32", "INFERENCE_NUM_THREADS": args.threads, "NUM_STREAMS": 1,
              "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    model = core.read_model(str(path))
    if any(p.get_partial_shape().is_dynamic for p in model.inputs):  # burin and ONNX Runtime adapt for nothing
        model.reshape({k: list(value.shape) for k, value in enumerate(feeds.values())})
    compiled = core.compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    values = dict(enumerate(feeds.values()))
    for k, value in values.items():
        request.set_input_tensor(k, ov.Tensor(value, shared_memory=value.flags.c_contiguous))
    kinds = [op.get_rt_info()["primitiveType"].value for op in compiled.get_runtime_model().get_ops()]
    isa = sorted({m for k in kinds for m in re.findall(r"avx512|avx2|sse4?", str(k))})
    return lambda: request.infer(values, share_inputs=True, share_outputs=True), request.infer, " ".join(isa)


# ---- one model (the child process) ------------------------------------------------------------------------

class Times:
    """Wall and processor time of one runner's calls, in ms."""

    def __init__(self, run):
        self.run, self.wall, self.cpu = run, [], []

    def once(self):
        cpu, wall = time.process_time(), time.perf_counter()
        self.run()
        self.wall.append((time.perf_counter() - wall) * 1e3)
        self.cpu.append((time.process_time() - cpu) * 1e3)

    def summary(self):
        return {"min": min(self.wall), "median": statistics.median(self.wall), "cpu": min(self.cpu), "runs": len(self.wall)}


def take_turns(times, args, seconds):
    """A B C A B C …; with several threads a pause lets the last one's workers fall asleep."""
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < (args.rounds or 5) or (not args.rounds and time.perf_counter() < end):
        rounds += 1
        for t in times.values():
            if args.threads > 1:
                time.sleep(0.001)
            t.once()


def program_command(folder, path, feeds, args):
    """A static program and its arguments: what measures small networks from C."""
    import burin
    import numpy as np
    program = f"{folder}/program"
    subprocess.run([burin.compiler(), "compile", path, "-o", program, f"--target={args.target}", "--quiet", *args.flags.split()],
                   check=True, capture_output=True)
    command = [program, "--threads", str(args.threads)]
    for k, value in enumerate(feeds.values()):
        np.save(f"{folder}/in_{k}.npy", value)
        command += ["--input", f"{k}=@{folder}/in_{k}.npy"]
    return command


def run_program(command, runs):
    done = subprocess.run([*command, f"--bench={runs}"], capture_output=True, text=True, check=True)
    found = re.search(r"min (\S+) ms, median (\S+) ms", done.stdout)
    return float(found[1]), float(found[2])


def measure_small(path, feeds, times, args, first_ms):
    """burin as a program from C, in slices between those of the others."""
    slices, least, medians = 5, math.inf, []
    others = {k: t for k, t in times.items() if k != "burin"}
    for t in others.values():
        t.once()
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        command = program_command(folder, path, feeds, args)
        runs = args.rounds or int(max(20, min(1e6, args.seconds / 3 / slices / (first_ms / 1e3))))
        for _ in range(slices):
            low, median = run_program(command, runs)
            least, medians = min(least, low), medians + [median]
            if others:
                take_turns(others, args, args.seconds * 2 / 3 / slices)
    return {"min": least, "median": statistics.median(medians), "cpu": None, "runs": slices * runs}


def brief(e):
    """What an exception says, without the places it came through."""
    lines = [s.strip() for s in str(e).splitlines() if s.strip() and not re.match(r"\s*(Exception from|Check 'false')", s)]
    return f"{type(e).__name__}: {lines[0][:150] if lines else ''}"


LEVELS = {"x86-64-v2": 2, "x86-64-v3": 3}  # targets to which the other libraries are held


def hide_isa(args):
    """From here on the libraries see a processor of the target's level (bench_isa.c); whether that was possible."""
    return bool(args.isa) and ctypes.CDLL(args.isa).bench_hide_isa(LEVELS[args.target]) == 0


def child(path, args):
    feeds = next(run_models.cases(path))[0]
    model, row = load_burin(path, feeds, args)
    row["name"] = run_models.model_name(path)
    row["held"] = hide_isa(args)
    times, bound = {"burin": Times(lambda: model.run(feeds, threads=args.threads))}, {}
    for name in args.others:
        try:
            if name == "f32":
                from tests.support.error import sqnr
                run = load_f32(path, feeds, args)
                row["error"] = sqnr(model.run(feeds, threads=args.threads), run())
            elif name == "ort":
                run, bound[name] = load_ort(path, feeds, args)
            else:
                run, bound[name], row["isa"] = load_ov(path, feeds, args)
            run()
            times[name] = Times(run)
        except Exception as e:  # it cannot run this model; burin is compared with the other one
            row[name + "_error"] = brief(e)
    for t in times.values():
        t.once()
        t.once()
    first = min(times["burin"].wall)
    for t in times.values():
        t.wall.clear(), t.cpu.clear()
    row["c"] = first < SMALL_MS
    if row["c"]:
        small = {k: Times(bound.get(k, t.run)) for k, t in times.items()}
        row["burin"] = measure_small(path, feeds, small, args, first)
        times = {k: t for k, t in small.items() if k != "burin"}
    else:
        take_turns(times, args, args.seconds)
    if args.limits and not args.bf16:
        limits = open_limits(args.limits)
        p = profile(model, feeds, limits, args, min(1, args.seconds / 5), peak_of(path, limits)[0])
        work = [(f, ns) for f, ns in zip(p.flops, p.least) if f]
        row["fma"] = sum(f for f, _ in work) / sum(ns for _, ns in work) / p.peak if work else None
    print(json.dumps({**row, **{k: t.summary() for k, t in times.items()}}))


# ---- the table (the parent) -----------------------------------------------------------------------------------

def ratio(row, key):
    """The better of the others over burin; None when neither ran, or the time was not measured."""
    others = [row[k][key] for k in ("ort", "ov") if k in row]
    return min(others) / max(row["burin"][key], 1e-9) if others and row["burin"][key] else None


def threads_text(args):
    return f"{args.threads} thread{'s' * (args.threads > 1)}"


def text_bytes(n):
    return f"{n / 1e6:.2f}M" if n >= 1e6 else f"{n / 1e3:.1f}K"


def show(row, args):
    cells = []
    for k in BF16 if args.bf16 else LIBRARIES:
        t = row.get(k)
        cells.append(f"{t['min']:9.4g} {t['median']:9.4g}" if t else f"{'-':>9} {'-':>9}")
    numbers = [ratio(row, "min"), ratio(row, "median"), ratio(row, "cpu") if args.threads == 1 else None]
    ratios = " ".join(f"{r:6.2f}" if r else f"{'-':>6}" for r in numbers)
    arena = f"{text_bytes(row['arena']):>8} {text_bytes(row['bound']):>8}" if row["arena"] else f"{'by size':>8} {'-':>8}"
    fma = f"{100 * row['fma']:4.0f}" if row.get("fma") else f"{'-':>4}"
    name = row["name"] + (" *" if row["c"] else "")
    print(f"{name:26} {' | '.join(cells)} | {ratios} | {fma} {row['compile']:6.2f} {arena}", flush=True)


def show_head(args, versions):
    print(f"{threads_text(args)}, target {args.target}, " + ", ".join(versions))
    print(f"{'ms':26} {' | '.join(f'{v:^19}' for v in (BF16 if args.bf16 else LIBRARIES).values())} |   best of others / burin")
    pair = f"{'min':>9} {'median':>9}"
    print(f"{'model':26} {pair} | {pair} | {pair} | {'min':>6} {'median':>6} {'CPU':>6} | "
          f"{'%FMA':>4} {'comp s':>6} {'arena':>8} {'bound':>8}")


def show_end(rows, args):
    done = [(ratio(r, "min"), r["name"]) for r in rows if ratio(r, "min")]
    if done:
        mean = math.exp(sum(math.log(r) for r, _ in done) / len(done))
        worst = min(done)
        print(f"geometric mean {mean:.2f}, worst {worst[0]:.2f} ({worst[1]}), {sum(r < 1 for r, _ in done)} of {len(done)} below 1")
    large = [ratio(r, "min") for r in rows if ratio(r, "min") and not r["c"]]
    if large and len(large) < len(done):
        print(f"without those marked *: geometric mean {math.exp(sum(map(math.log, large)) / len(large)):.2f}")
    cpu = [ratio(r, "cpu") for r in rows if args.threads == 1 and ratio(r, "cpu")]
    if cpu:
        print(f"by processor time, which other work on the machine disturbs less: geometric mean "
              f"{math.exp(sum(map(math.log, cpu)) / len(cpu)):.2f}, worst {min(cpu):.2f}")
    if any(r["c"] for r in rows):
        print(f"* under {SMALL_MS} ms: burin from C (--bench of a static program, in turns of {args.seconds / 15:.2g} s), the others from "
              "Python with bound inputs: a few µs of theirs are the call")
    if any(r.get("fma") for r in rows):
        print("%FMA: multiply-adds a second of the convolution and matrix kernels, of what the core's registers can do (of bytes in models that have such)")
    for r in rows:
        if "f32" in r:
            print(f"{r['name']}: {r['f32']['min'] / r['burin']['min']:.2f} times as fast as in float32, {r['error']:.1f} dB from its outputs")
        for k in ("f32", "ort", "ov"):
            if k + "_error" in r:
                print(f"{r['name']}: {(BF16 if args.bf16 else LIBRARIES)[k]} could not: {r[k + '_error']}")
    if args.target in LEVELS:
        isa = sorted({i for r in rows for i in r.get("isa", "").split()})
        print(f"{args.target}: the others were shown a processor without what is newer (OpenVINO's kernels say: {' '.join(isa) or '?'})"
              if rows and all(r["held"] for r in rows) else
              f"{args.target}: this machine cannot hide instruction sets (CPUID faulting), the others used all that the CPU has")


def available(args):
    """Which of the others are installed, and a line about each."""
    found, lines = [], []
    if args.bf16:
        found.append("f32")
    for key, module in [("ort", "onnxruntime"), ("ov", "openvino")][args.bf16:]:
        done = subprocess.run([sys.executable, "-c", f"import {module}; print({module}.__version__)"], capture_output=True, text=True)
        if done.returncode == 0:
            found.append(key)
            lines.append(f"{LIBRARIES[key]} {done.stdout.strip().split('-')[0]}")
        else:
            lines.append(f"{LIBRARIES[key]} not installed")
    return found, lines


def select(args):
    skeletons = [] if args.real and not args.models else run_models.materialize()
    real = [p / "model.onnx" for p in sorted((run_models.SHARED / "real").iterdir()) if (p / "model.onnx").exists()]
    if not args.models:
        return real if args.real else skeletons
    by_name = {run_models.model_name(p): p for p in skeletons + real}
    unknown = [m for m in args.models if m not in by_name and not Path(m).is_file()]
    if unknown:
        sys.exit(f"no such model: {', '.join(unknown)} (there are: {' '.join(by_name)})")
    return [by_name.get(m) or Path(m) for m in args.models]


def quantize(paths, python):
    """The QDQ models of float ones, made once each and kept among temporary files, where ONNX Runtime's quantizer makes one."""
    made = []
    for path in map(Path, paths):
        file = Path(tempfile.gettempdir()) / "burin-qdq" / f"{run_models.model_name(path)}_qdq.onnx"
        if not file.exists() or file.stat().st_mtime < path.stat().st_mtime:
            file.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="burin-") as folder:
                link = Path(folder) / f"{run_models.model_name(path)}.onnx"
                link.symlink_to(path.resolve())
                done = subprocess.run([python, Path(__file__).with_name("quantize.py"), file.parent, link], capture_output=True, text=True)
            if done.returncode:
                print(f"{run_models.model_name(path):26} not quantized: {done.stderr.strip().splitlines()[-1][:120]}", flush=True)
                continue
        made.append(file)
    return made


def run_child(path, args, env):
    """The row of a model, or a line about why there is none. A library that crashes is left out the next time."""
    others, why = list(args.others), ""
    while True:
        env["BURIN_BENCH_ARGS"] = json.dumps({**vars(args), "others": others})
        done = subprocess.run([sys.executable, __file__, "--child", path], capture_output=True, text=True, errors="replace", env=env)
        if done.returncode == 0:
            row = json.loads(done.stdout.strip().splitlines()[-1])
            return {**row, **{k + "_error": why for k in args.others if k not in others}}
        if done.returncode > 0 or not others:
            return done.stderr.strip().splitlines()[-1][:150] if done.stderr.strip() else f"status {done.returncode}"
        why = f"the process ended with signal {-done.returncode} when it took part"
        others = others[:-1]


def compare_all(paths, args):
    args.others, versions = available(args)
    env, rows = {**os.environ}, []
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        args.limits = build_limits(folder, args.target)
        args.isa = build_library(folder, "bench_isa.c") if args.target in LEVELS else None
        show_head(args, versions)
        for path in paths:
            row = run_child(path, args, env)
            if isinstance(row, str):
                print(f"{run_models.model_name(path):26} {row}", flush=True)
                continue
            rows.append(row)
            show(row, args)
    show_end(rows, args)
    if args.json:
        meta = {"threads": args.threads, "target": args.target, "seconds": args.seconds, "rounds": args.rounds, "versions": versions}
        Path(args.json).write_text(json.dumps({**meta, "models": rows}, indent=1) + "\n")


# ---- kernels of one model --------------------------------------------------------------------------------------

def build_library(folder, source, *flags):
    """A C file of this folder as a shared library; None without a compiler."""
    compiler = next((c for c in ("clang-19", "clang") if shutil.which(c)), None)
    if not compiler:
        return None
    library = f"{folder}/{source}.so"
    subprocess.run([compiler, "-O3", *flags, "-shared", "-fPIC", "-w", "-o", library, Path(__file__).with_name(source)], check=True)
    return library


def build_limits(folder, target):
    """What the core can do with the instruction set of the target."""
    march = target if target.startswith("x86-64-v") else "native"
    return build_library(folder, "bench_limit.c", f"-march={march}", "-mprefer-vector-width=512", "-ffp-contract=fast")


def open_limits(library):
    limits = ctypes.CDLL(library)
    for name in ("bench_peak_gflops", "bench_peak_gops8", "bench_read_gbytes"):
        getattr(limits, name).restype = ctypes.c_double
        getattr(limits, name).argtypes = [ctypes.c_double]
    return limits


ELEMENT_BYTES = {"f64": 8, "i64": 8, "u64": 8, "f32": 4, "i32": 4, "u32": 4, "f16": 2, "bf16": 2, "i16": 2, "u16": 2}


def kernel_bytes(path, args):
    """For each call, in the order of a profile, at most how many bytes it touches: its buffers, each once. From
    --emit=loop; None where a size is not a number."""
    import burin
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        subprocess.run([burin.compiler(), "compile", path, "--emit=loop", "-o", f"{folder}/loop", f"--target={args.target}",
                        "--quiet", *args.flags.split()], check=True, capture_output=True)
        text = Path(f"{folder}/loop").read_text(errors="replace")
    size = {}
    for name, dtype, count in re.findall(r"^  (b\d+) : (\w+)\[([^\]]*)\] = ", text, re.M):
        size[name] = int(count) * ELEMENT_BYTES.get(dtype, 1) if count.isdigit() else None
    calls = []
    for line in re.findall(r"^ +(?:call|extern) \S+\((.*)", text, re.M):
        touched = [size.get(b) for b in set(re.findall(r"\bb\d+\b", line.split(" words ")[0]))]
        calls.append(None if None in touched else sum(touched))
    return calls


Profile = collections.namedtuple("Profile", "least flops whole rounds peak")  # of each kernel: ns, flops; ns of a run; GFLOP/s of all threads


def peak_of(path, limits):
    """What measures the core's limit for a model: products of bytes where it has such, else of float32; and its name."""
    import onnx
    kinds = {n.op_type for n in onnx.load(path, load_external_data=False).graph.node}
    eight = kinds & {"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
    if eight and limits.bench_peak_gops8(0.001) > 0:
        return limits.bench_peak_gops8, "8-bit"
    return limits.bench_peak_gflops, "float32"


def profile(model, feeds, limits, args, seconds, peak_now):
    """The least time of every kernel over all runs, and in turns with them what the core can do."""
    model.run(feeds, threads=args.threads)
    call, n = model._threads.call, model._info.n_kernels
    counts, flops = (ctypes.c_uint64 * max(1, n))(), (ctypes.c_uint64 * max(1, n))()
    call.options.kernel_ns, call.options.kernel_flops = ctypes.addressof(counts), ctypes.addressof(flops)
    call.options.clock_ns = ctypes.cast(limits.bench_clock_ns, ctypes.c_void_p)
    least, whole, peak = [math.inf] * n, math.inf, peak_now(0.1)
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < (args.rounds or 5) or (not args.rounds and time.perf_counter() < end):
        rounds += 1
        ctypes.memset(counts, 0, ctypes.sizeof(counts))
        ctypes.memset(flops, 0, ctypes.sizeof(flops))
        start = time.perf_counter_ns()
        model.run(feeds, threads=args.threads)
        whole = min(whole, time.perf_counter_ns() - start)
        least = [min(a, b) for a, b in zip(least, counts)]
        peak = max(peak, peak_now(0.0005))
    call.options.kernel_ns = call.options.kernel_flops = call.options.clock_ns = None
    return Profile(least, list(flops)[:n], whole, rounds, peak * args.threads)


def show_kernel(row, total, peak, wide):
    ns = max(row["ns"], 1)
    rate = f"{row['flops'] / ns:8.1f} {100 * row['flops'] / ns / peak:5.0f}" if row["flops"] else f"{'-':>8} {'-':>5}"
    memory = f"{row['bytes'] / ns:6.1f}" if row["bytes"] is not None else f"{'-':>6}"
    nodes = row["nodes"] if wide or len(row["nodes"]) <= 60 else row["nodes"][:57] + "..."
    print(f"{ns / 1e3:9.1f} {100 * ns / total:6.1f} {rate} {memory}  {row['kernel']:34} {nodes}")


def show_kernels(path, args):
    import burin
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        library = build_limits(folder, args.target)
        if not library:
            sys.exit("bench: --kernels needs clang-19 for its limits and its clock")
        limits = open_limits(library)
        try:
            model = burin.compile(path, target=args.target, flags=args.flags.split())
        except burin.CompileError as e:
            sys.exit(str(e))
        peak_now, kind = peak_of(path, limits)
        p = profile(model, next(run_models.cases(path))[0], limits, args, args.seconds, peak_now)
        read = limits.bench_read_gbytes(1)
    touched, kernels = kernel_bytes(path, args), model._info.kernels[: len(p.least)]
    if len(touched) != len(kernels):
        touched = [None] * len(kernels)
    rows = [{"kernel": k.name.decode(), "nodes": k.nodes.decode(), "ns": ns, "flops": f, "bytes": b}
            for k, ns, f, b in zip(kernels, p.least, p.flops, touched)]
    total = max(1, sum(p.least))
    print(f"{run_models.model_name(path)}, {threads_text(args)}, target {args.target}: whole run {p.whole / 1e6:.4g} ms, kernels "
          f"{total / 1e6:.4g} ms (the least of {p.rounds} runs each)")
    print(f"limits: {p.peak:.0f} GFLOP/s {kind} multiply-add, {read:.1f} GB/s from memory to one core")
    print(f"{'us':>9} {'%time':>6} {'GFLOP/s':>8} {'%FMA':>5} {'≤GB/s':>6}  {'kernel':34} nodes")
    for r in sorted(rows, key=lambda r: -r["ns"]) if args.sort else rows:
        show_kernel(r, total, p.peak, args.wide)
    flops, timed = sum(r["flops"] for r in rows), sum(r["ns"] for r in rows if r["flops"])
    if timed:
        print(f"kernels with multiply-adds: {100 * timed / total:.0f} % of the time, {flops / timed:.1f} GFLOP/s, "
              f"{100 * flops / timed / p.peak:.0f} % of the limit")
    if args.json:
        meta = {"model": run_models.model_name(path), "threads": args.threads, "target": args.target}
        numbers = {"whole_ns": p.whole, "peak_gflops": p.peak, "read_gbytes": read, "kernels": rows}
        Path(args.json).write_text(json.dumps({**meta, **numbers}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description="Compiled models against ONNX Runtime and OpenVINO, in turns.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names of shared models, or files (default: all skeletons)")
    parser.add_argument("--real", action="store_true", help="the trained models, with their inputs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target", default="native")
    parser.add_argument("--flags", default="", help="more flags of the compiler")
    parser.add_argument("--seconds", type=float, default=10, help="for each model (default 10)")
    parser.add_argument("--rounds", type=int, default=0, help="this many rounds for each model, whatever they take")
    parser.add_argument("--json", metavar="FILE", help="the numbers, for programs")
    parser.add_argument("--kernels", metavar="MODEL", help="times of one model's kernels, instead")
    parser.add_argument("--sort", action="store_true", help="--kernels: the slowest first")
    parser.add_argument("--wide", action="store_true", help="--kernels: node names in full")
    parser.add_argument("--qdq", action="store_true",
                        help="the models quantized to 8 bits (QDQ) by ONNX Runtime's quantizer (bench/quantize.py, which needs sympy)")
    parser.add_argument("--bf16", action="store_true", help="burin with --precision=bf16 beside its own float32 and OpenVINO's bf16")
    parser.add_argument("--quantizer", metavar="PYTHON", default=sys.executable,
                        help="--qdq: a Python with onnx, onnxruntime and sympy, where this one lacks the last")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if args.child:
        path = Path(args.child)
        return child(path, argparse.Namespace(**json.loads(os.environ["BURIN_BENCH_ARGS"])))
    if args.kernels:
        args.models = [args.kernels]
    args.flags = f"{args.flags} {BF16_FLAG}" if args.bf16 else args.flags
    if not run_models.SHARED.exists() and not (args.models and all(Path(m).is_file() for m in args.models)):
        print(f"bench: skipped, the shared models are not at {run_models.SHARED}; files of your own can be given")
        return
    paths = [Path(m) for m in args.models] if not run_models.SHARED.exists() else select(args)
    if args.qdq:
        paths = quantize(paths, args.quantizer)
    try:
        return show_kernels(paths[0], args) if args.kernels else compare_all(paths, args)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as e:
        sys.exit(f"bench: {brief(e)}")


if __name__ == "__main__":
    main()
