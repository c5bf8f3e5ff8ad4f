#!/usr/bin/env python3
"""Time of compiled models against ONNX Runtime, interleaved in one process: bench.py [--threads N] [--seconds S] [NAME…]

The skeletons by default, real models by name. Asserts nothing. ratio > 1: burin is faster."""
import argparse
import json
import math
import subprocess
import sys
import time

import run_models


def child(path, threads, seconds):
    import burin
    import onnxruntime as ort
    feeds = next(run_models.cases(path))[0]
    start = time.perf_counter()
    model = burin.compile(path)
    row = {"compile": time.perf_counter() - start, "arena": model.arena_bytes}
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    runs = {"ours": lambda: model.run(feeds, threads=threads), "theirs": lambda: session.run(None, feeds)}
    best = dict.fromkeys(runs, math.inf)
    for run in runs.values():
        run()
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 5 or time.perf_counter() < end:
        rounds += 1
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
    print(json.dumps({**row, **best}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--child")
    args = parser.parse_args()
    if args.child:
        return child(run_models.Path(args.child), args.threads, args.seconds)
    if not run_models.SHARED.exists():
        sys.exit("the shared models are not here")
    paths = run_models.materialize()
    if args.names:
        real = [p / "model.onnx" for p in sorted((run_models.SHARED / "real").iterdir())]
        paths = [p for p in paths + real if run_models.model_name(p) in args.names]
    print(f"{'model':24} {'compile s':>9} {'burin ms':>10} {'ORT ms':>10} {'ratio':>6}")
    ratios = []
    for path in paths:
        command = [sys.executable, __file__, "--child", str(path), "--threads", str(args.threads), "--seconds", str(args.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            print(f"{run_models.model_name(path):24} {done.stderr.strip().splitlines()[-1][:100] if done.stderr else done.returncode}")
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        ratios.append(row["theirs"] / row["ours"])
        print(f"{run_models.model_name(path):24} {row['compile']:9.2f} {row['ours']:10.3f} {row['theirs']:10.3f} {ratios[-1]:6.2f}", flush=True)
    if ratios:
        print(f"geometric mean {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}, least {min(ratios):.2f}, {len(ratios)} models")


if __name__ == "__main__":
    main()
