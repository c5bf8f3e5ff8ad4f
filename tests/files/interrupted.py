"""Signals at random moments, two compilers at once, data that is cut while it is read."""
import os
import random
import signal
import subprocess
import time

import numpy as np
import onnx
from onnx import helper

from tests.files.fixture import make_model
from tests.support.part import BURIN, burin, check


def slow_model(path, n=40):
    """Kernels that differ: seconds of LLVM."""
    rng = np.random.default_rng(0)
    names = [f"w{i}" for i in range(n)]
    nodes = [helper.make_node("MatMul", [f"t{i}", names[i]], [f"t{i + 1}"]) for i in range(n)]
    sizes = [int(rng.integers(20, 90)) for _ in range(n + 1)]
    weights = [(names[i], rng.normal(size=(sizes[i], sizes[i + 1])).astype(np.float32)) for i in range(n)]
    make_model(path, nodes, [("t0", 1, [7, sizes[0]])], [(f"t{n}", 1, [7, sizes[n]])], weights)


def test_killed(d):
    """At random moments: nothing is left, and what was there is whole."""
    folder = d / "killed"
    folder.mkdir()
    model = d / "slow.onnx"
    slow_model(model)
    out = folder / "m"
    start = time.monotonic()
    r = burin(model, "-q", "-O1", "-o", out)
    took = time.monotonic() - start
    check("slow model", r.returncode == 0, r.stderr)
    good, rng = out.read_bytes(), random.Random(1)
    for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP) * 3:
        p = subprocess.Popen([BURIN, str(model), "-q", "-O1", "-o", str(out)], stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, 1.2 * took))
        p.send_signal(sig)
        p.wait(60)
        check(f"killed by {sig}: whole", out.read_bytes() == good and p.returncode in (0, -sig), p.returncode)
        check(f"killed by {sig}: alone", os.listdir(folder) == ["m"], os.listdir(folder))
    temp = d / "tmp"
    temp.mkdir()
    for sig in (signal.SIGTERM, signal.SIGKILL):
        p = subprocess.Popen([BURIN, "diff", str(model), "--input", "t0=1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env={**os.environ, "TMPDIR": str(temp)})
        time.sleep(rng.uniform(0.05, took))
        p.send_signal(sig)
        p.wait(60)
        check(f"diff, {sig}: nothing left", os.listdir(temp) == [], os.listdir(temp))
    check("no temporary folder is needed", burin(model, "-q", "-O0", "-o", out, env={**os.environ, "TMPDIR": "/none"}).returncode == 0)


def test_two_at_once(d, model):
    folder = d / "both"
    folder.mkdir()
    out = folder / "m"
    alone = []
    for level in ("-O0", "-O3"):
        burin(model, "-q", level, "-o", out)
        alone.append(out.read_bytes())
    for _ in range(4):
        both = [subprocess.Popen([BURIN, str(model), "-q", level, "-o", str(out)]) for level in ("-O0", "-O3")]
        status = [p.wait(60) for p in both]
        check("two at once", status == [0, 0] and out.read_bytes() in alone, status)
    check("two at once: nothing else", os.listdir(folder) == ["m"])


def test_shrinking(d):
    """External data cut while it is mapped: exit 3."""
    data = np.random.default_rng(2).normal(size=(1024, 1024)).astype(np.float32)
    model, external = d / "shrink.onnx", d / "shrink.bin"
    make_model(model, [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", 1, [1, 1024])], [("y", 1, [1, 1024])], [("w", data)])
    m = onnx.load(str(model))
    onnx.save(m, str(model), save_as_external_data=True, location=external.name, size_threshold=0)
    whole, seen = external.read_bytes(), set()
    for k in range(8):
        external.write_bytes(whole)
        p = subprocess.Popen([BURIN, str(model), "-q", "-o", str(d / "shrunk")], stderr=subprocess.PIPE, text=True)
        time.sleep(0.004 + 0.004 * k)
        os.truncate(external, 4096)
        err = p.communicate(timeout=60)[1]
        seen.add(p.returncode)
        check("shrinking data", p.returncode in (0, 1, 3), f"{p.returncode} {err}")  # 0: was done; 1: seen too late
        check("shrinking data: no output unless whole", p.returncode == 0 or not (d / "shrunk").exists())
        (d / "shrunk").unlink(missing_ok=True)
    return seen
