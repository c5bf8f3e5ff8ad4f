#!/usr/bin/env python3
"""Part "guard": compiled models read and write nothing outside their buffers.

run_guard.py [--only NAME,...] [--target T]... [--all] [--random N]: inputs, outputs and arena are exactly as long as the
ABI says and lie so that they end, and in a second run begin, at an inaccessible page. The arena is filled with NaNs
first, with zeros in the second run: results must have the bits of an ordinary run. Models: the bundled ones, some of
the shared real ones (--all: every one), random graphs and contractions. Each in a process of its own.
"""
import argparse
import ctypes
import json
import mmap
import os
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np

import burin
from tests.codegen import run_templates
from tests.models import run_models, run_random
from tests.support.targets import cpu_flags
from tests.support.template_cases import random_case

SOME = ("mnist_cnn14_atmega,cifar10_cnn_winml,micro_kws_fp32,micro_kws_int8_qdq,iris_xgboost_tensor,gnn_gcn_karate,yunet_n_dynamic,"
        "oww_alexa,magika_v1,dtln_1,silero_vad_v5,brain_consensus_conv3d,pensieve_small,mp_face_detection_short")
TARGETS = ["x86-64-v3", "x86-64-v2", "x86-64-v4"]
PAGE = mmap.PAGESIZE
SECONDS = 300

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Guarded:
    """size bytes between two inaccessible pages, at the end of the room or at its start."""

    def __init__(self, size, at_end, align, fill):
        room = -(-max(size, 1) // PAGE) * PAGE + PAGE
        self.whole = room + 2 * PAGE
        self.base = libc.mmap(None, self.whole, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        libc.mprotect(self.base, PAGE, 0)
        libc.mprotect(self.base + PAGE + room, PAGE, 0)
        end = self.base + PAGE + room
        self.address = (end - size) // align * align if at_end else self.base + PAGE
        ctypes.memset(self.base + PAGE, fill, room)
        self.size = size

    def put(self, array):
        ctypes.memmove(self.address, array.ctypes.data, array.nbytes)

    def bytes(self, count):
        return ctypes.string_at(self.address, count)

    def free(self):
        libc.munmap(self.base, self.whole)


def guarded_run(model, feeds, threads, at_end):
    """Bytes of the outputs."""
    call = burin._Call(model)
    arrays = [burin._as_input(t, feeds[t.name], model.on_gpu) for t in model.inputs]
    call.prepare([a.shape for a in arrays], threads)
    fill = 0xFF if at_end else 0
    inputs = [Guarded(a.nbytes, at_end, a.itemsize, fill) for a in arrays]
    sizes = [int(np.prod(shape)) * dtype.itemsize for shape, dtype in call.results]
    outputs = [Guarded(n, at_end, dtype.itemsize, fill) for n, (_, dtype) in zip(sizes, call.results)]
    size = model._info.arena_size(call.dims, call.options.threads)
    arena = Guarded(size, at_end, max(1, model._info.arena_align), fill)
    for i, (a, g) in enumerate(zip(arrays, inputs)):
        g.put(a)
        call.inputs[i] = g.address
    for i, g in enumerate(outputs):
        call.outputs[i] = g.address
    arguments = list(call.arguments)
    arguments[3] = arena.address
    status = call.invoke(*arguments)
    counts = [int(np.prod(call._output_shape(k, False))) * dtype.itemsize for k, (_, dtype) in enumerate(call.results)]
    result = [g.bytes(n) for g, n in zip(outputs, counts)]
    changed = [t.name for t, a, g in zip(model.inputs, arrays, inputs) if g.bytes(a.nbytes) != a.tobytes()]
    for g in [*inputs, *outputs, arena]:
        g.free()
    if status:
        raise burin.RunError(f"status {status}", status)
    if changed:
        raise burin.RunError(f"inputs were written to: {changed}", 0)
    return result


def check_here(source, feeds_list, target):
    model = burin.compile(source, target=target)
    for feeds in feeds_list:
        want = [a.tobytes() for a in model.run(feeds)]
        for at_end in (True, False):
            for threads in (1, 2):
                got = guarded_run(model, feeds, threads, at_end)
                for t, g, w in zip(model.outputs, got, want):
                    if g != w:
                        return f"{t.name} depends on what the arena held (at_end {at_end}, {threads} threads)"
    return "ok"


def check(make, target):
    r, w = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        try:
            result = check_here(*make(), target)
        except Exception as e:
            result = f"{type(e).__name__}: {e}"[:500]
        os.write(w, json.dumps(result).encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as pipe:
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    return json.loads(text) if text else f"signal {signal.Signals(status & 127).name}: outside its buffers, or a crash"


# ---- what is run ----
def model_file(path):
    def make():
        feeds = [f for f, _ in run_models.cases(path)][:1]
        return path, feeds
    return make


def random_model(seed):
    def make():
        graph = run_random.random_graph(seed)
        return graph.model(), [graph.feed(t) for t in range(run_random.TRIALS)]
    return make


def contraction(seed):
    def make():
        rng = np.random.default_rng(seed)
        cases = [random_case(rng, f"g{k}") for k in range(4)]
        return run_templates.model_of(cases), [run_templates.feeds_of(cases, t) for t in range(run_templates.TRIALS)]
    return make


def jobs(args):
    """(title, function that makes model and feeds, target)."""
    targets = args.target or TARGETS
    bundled = sorted((run_models.ROOT / "examples").glob("*/*.onnx"))
    real = sorted((run_models.SHARED / "real").glob("*/model.onnx"))
    only = args.only.split(",") if args.only else None if args.all else SOME.split(",")
    files = [p for p in bundled if not args.only or p.stem in only] + [p for p in real if only is None or p.parent.name in only]
    for i, path in enumerate(files):
        for target in targets if args.all or args.only or args.target else targets[:1] + [targets[1 + i % 2]]:
            yield f"{path.parent.name}/{path.stem}", model_file(path), target
    if not args.only:
        for i in range(args.random):
            yield f"random {i + 500000}", random_model(i + 500000), targets[i % len(targets)]
            yield f"contractions {i}", contraction(i), targets[i % len(targets)]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--only")
    p.add_argument("--target", action="append")
    p.add_argument("--all", action="store_true")
    p.add_argument("--random", type=int, default=40)
    args = p.parse_args()
    v4 = "avx512vl" in cpu_flags()
    passed = failed = skipped = 0
    for title, make, target in jobs(args):
        if target == "x86-64-v4" and not v4:
            skipped += 1
            print(f"skipped {title} {target}: this CPU has no AVX-512")
            continue
        result = check(make, target)
        if result == "ok":
            passed += 1
        else:
            failed += 1
            print(f"{title} {target}: {result}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
