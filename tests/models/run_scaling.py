#!/usr/bin/env python3
"""Compile time and memory grow with the number of nodes: the part `scaling`.

Measures no time: four times the nodes may take six times the memory, and no more kernels where the nodes are of one
kind; a minute of CPU time ends what is not nearly linear. And --max-memory: with any limit a compilation ends with 0,
or with 6 and without a file.

  run_scaling.py              the test
  run_scaling.py --table 1000 4000 10000 [NAME…]   CPU seconds and peak MB of the release build
"""
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]
from onnx import helper  # noqa: E402
from tests.models.scaling_models import MODELS, info, model  # noqa: E402

BURIN, SMALL, LARGE = os.environ.get("BURIN", "build/burin"), 200, 800
MEMORY_GROWTH = 6  # of what is beyond an empty compilation; linear is 4
KERNELS = {  # more nodes of the same kind are no more kernels
    "concat_copies": 8, "concat_wide": 40, "split_wide": 40, "wide_fan": 16, "fan_matmul": 24, "matmul_chain": 8, "conv_chain": 12,
    "tanh_chain": 40, "add_chain": 60, "many_ifs": 8, "slice_chain": 12, "softmax_chain": 8, "n_outputs": 8, "sum_wide": 12, "many_loops": 12,
    "lstm_chain": 8,
}
CHECKED = ["add_chain", "add_self_chain", "tanh_chain", "sin_chain", "erf_chain", "matmul_chain", "conv_chain", "concat_chain",
           "concat_copies", "concat_wide", "split_wide", "sum_inputs", "gather_chain", "slice_chain", "transpose_chain",
           "reshape_transpose", "diamonds", "residual", "softmax_chain", "layer_norm_chain", "shape_arithmetic", "nested_if", "many_ifs",
           "nested_loop", "wide_fan", "fan_matmul", "collide", "functions", "qdq_chain", "n_initializers", "n_outputs", "n_inputs",
           "where_chain", "lstm_chain", "sum_wide", "n_constants", "many_loops", "wide_use", "views_chain", "long_names", "trees"]
passed = failed = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAILED:", what, flush=True)


def write(folder, name, n):
    path = os.path.join(folder, f"{name}_{n}.onnx")
    with open(path, "wb") as f:
        f.write(MODELS[name](n).SerializeToString())
    return path


def burin(*args, seconds=60):
    """Exit status (negative: signal), CPU seconds, peak MB, stdout."""
    def limits():
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with tempfile.TemporaryFile() as out:
        p = subprocess.Popen([BURIN, *args], stdout=out, stderr=subprocess.DEVNULL, preexec_fn=limits)
        _, status, use = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return p.returncode, use.ru_utime + use.ru_stime, use.ru_maxrss / 1024, out.read().decode(errors="replace")


def growth(folder):
    base = burin(write(folder, "relu_chain", 1), "-o", os.path.join(folder, "out"))[2]
    for name in CHECKED:
        n = 100 if name == "lstm_chain" else SMALL
        peak = []
        for k in (n, 4 * n):
            path = write(folder, name, k)
            status, _, mb, _ = burin(path, "-o", os.path.join(folder, "out"))
            peak.append(max(mb - base, 16))
            check(status == 0, f"{name} of {k} nodes: exit {status} (CPU time is limited to a minute)")
            if k == n or name not in KERNELS:
                continue
            text = burin(path, "--emit=loop", "-o", "-")[3]
            kernels = text.count("\n  kernel ")
            check(0 < kernels <= KERNELS[name], f"{name} of {k} nodes: {kernels} kernels, at most {KERNELS[name]} were expected")
        check(peak[1] <= MEMORY_GROWTH * peak[0], f"{name}: {peak[0]:.0f} MB for {n} nodes, {peak[1]:.0f} MB for {4 * n}")


def limits(folder):
    """Growing limits: first each fails cleanly, at last one suffices."""
    path, out = write(folder, "layer_norm_chain", 60), os.path.join(folder, "limited")
    done = 0
    for mb in (1, 4, 8, 12, 14, 16, 18, 20, 24, 28, 32, 48, 400):
        status = burin(path, "-o", out, f"--max-memory={mb}M", "--jobs=1")[0]
        there = [f for f in os.listdir(folder) if f.startswith("limited")]
        check(status in (0, 6) and bool(there) == (status == 0), f"--max-memory={mb}M: exit {status}, files {there}")
        done += status == 0
        for f in there:
            os.unlink(os.path.join(folder, f))
    check(0 < done < 13, f"--max-memory: {done} of 13 limits sufficed")


def node_limit(folder):
    """Constants that functions multiply count as nodes: here they alone are more than a million."""
    constants = [helper.make_node("Constant", [], [f"c{k}"], value_float=1.5) for k in range(1100)]
    own = helper.make_function("own", "f", ["x"], ["y"], [*constants, helper.make_node("Add", ["x", "c0"], ["y"])],
                               [helper.make_opsetid("", 21)])
    calls = [helper.make_node("f", [f"v{k}"], [f"v{k + 1}"], domain="own") for k in range(1000)]
    path = os.path.join(folder, "constants.onnx")
    with open(path, "wb") as f:
        f.write(model(calls, [info("v0")], [info("v1000")], functions=[own], extra=["own"]).SerializeToString())
    status = burin(path, "-o", os.path.join(folder, "limited"))[0]
    check(status == 6 and not os.path.exists(os.path.join(folder, "limited")), f"1,100,000 Constants in functions: exit {status}")


def table(sizes, names):
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'':20s}", *[f"{n:>16d}" for n in sizes])
        for name in names or MODELS:
            row = []
            for n in sizes:
                status, seconds, mb, _ = burin(write(folder, name, n), "-o", os.path.join(folder, "out"))
                row.append(f"{seconds:.2f} s {mb:5.0f} MB" + (f" ({status})" if status else ""))
            print(f"{name:20s}", *[f"{x:>16s}" for x in row], flush=True)


if len(sys.argv) > 1 and sys.argv[1] == "--table":
    table([int(a) for a in sys.argv[2:] if a.isdigit()], [a for a in sys.argv[2:] if not a.isdigit()])
    sys.exit()
with tempfile.TemporaryDirectory() as tmp:
    growth(tmp)
    limits(tmp)
    node_limit(tmp)
print(f"{passed} passed, {failed} failed, 0 skipped")
