#!/usr/bin/env python3
"""Part "random": random graphs (random_graphs.py) compiled and compared with ONNX Runtime.

run_random.py [--seed S] [--count N] [--seconds T] [--save DIR] [--flags "-O0 ..."] [--no-reduce]: graphs of seeds S, S+1, …
A graph is compiled once and run with three sets of sizes, with 1 and 2 threads (the bits must agree). The bound of an
error is 3e-5 of the largest value plus a multiple of how far ONNX Runtime's own result moves when the inputs move by
3e-7. Level and target vary with the seed. A failing graph is reduced and, with --save, written as ONNX. Each runs
in a process of its own.
"""
import argparse
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper

import burin
from tests.support.random_graphs import SYMBOLS, TRIALS, Generator, Value, reads
from tests.support.targets import cpu_flags

SECONDS = 60
RTOL = 3e-5  # the reference sums in f32 too
COARSE = {"QuantizeLinear", "DynamicQuantizeLinear"}  # rounding: a last bit before it is a whole step behind it
ort.set_default_logger_severity(4)


class Graph:
    """nodes, initializers, inputs (Values) with their arrays of every trial, names of the outputs."""

    def __init__(self, nodes, initializers, inputs, feeds, outputs):
        self.nodes, self.initializers, self.inputs, self.feeds, self.outputs = nodes, initializers, inputs, feeds, outputs

    def model(self, outputs=None):
        names = {shape: name for name, shape in SYMBOLS}
        def dims(shape):
            return [d[0] if min(d) == max(d) else names.setdefault(d, f"d{len(names)}") for d in shape]
        used = {i for n in self.nodes for i in reads(n)}
        infos = [helper.make_tensor_value_info(v.name, helper.np_dtype_to_tensor_dtype(v.dtype), dims(v.shape))
                 for v in self.inputs if v.name in used or v.name in self.outputs]
        outs = [onnx.ValueInfoProto(name=o) if outputs else helper.make_tensor_value_info(o, T.FLOAT, None)
                for o in outputs or self.outputs]
        graph = helper.make_graph(self.nodes, "random", infos, outs, [i for i in self.initializers if i.name in used])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def feed(self, trial):
        used = {i for n in self.nodes for i in reads(n)} | set(self.outputs)
        return {k: v for k, v in self.feeds[trial].items() if k in used}


def random_graph(seed):
    g = Generator(seed)
    nodes, initializers, inputs, outputs = g.graph()
    feeds = [{v.name: g.rng.standard_normal([d[t] for d in v.shape]).astype(np.float32) for v in inputs} for t in range(TRIALS)]
    return Graph(nodes, initializers, inputs, feeds, [o.name for o in outputs])


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def moved(feed, seed):
    """The inputs, moved a little: what such noise does to a result no compiler can be blamed for."""
    rng = np.random.default_rng(seed)
    return {k: (v * (1 + 3e-7 * rng.standard_normal(v.shape))).astype(v.dtype) if v.dtype.kind == "f" else v
            for k, v in feed.items()}


def compare(graph, reference, model, trial):
    """A failure's text, or None."""
    feed = graph.feed(trial)
    want = reference.run(None, feed)
    coarse = any(n.op_type in COARSE or n.op_type == "Cast" and n.attribute[0].i == T.FLOAT16 for n in graph.nodes)
    rtol = 5e-3 if coarse else RTOL
    others = [reference.run(None, moved(feed, s)) for s in (1, 2, 3)]
    got = model.run(feed)
    twice = model.run(feed, threads=2)
    for k, (name, g, w, h) in enumerate(zip(graph.outputs, got, want, twice)):
        if g.shape != w.shape or g.dtype != w.dtype:
            return f"wrong shape {name} trial {trial}: {g.dtype}{list(g.shape)}, not {w.dtype}{list(w.shape)}"
        if g.tobytes() != h.tobytes():
            return f"threads differ: {name} trial {trial}"
        if not w.size or not np.isfinite(w).all():
            continue
        top = max(1e-2, float(np.abs(w).max()))
        spread = max(float(np.abs(o[k].astype(np.float64) - w).max()) for o in others)
        if spread > 1e-3 * top:
            continue  # nothing can be said
        error = float(np.abs(g.astype(np.float64) - w).max())
        if not error <= rtol * top + 10 * spread:
            return f"wrong value {name} trial {trial}: error {error / top:.2g} of the largest, {spread / top:.2g} moved"
    return None


def check_here(graph, target, flags):
    try:
        reference = session(graph.model())
    except Exception as e:
        return f"reference refuses: {str(e)[:200]}"
    try:
        model = burin.compile(graph.model(), target=target, flags=flags)
    except burin.CompileError as e:
        return f"compile {e.status}: {str(e)[:600]}"
    for trial in range(TRIALS):
        try:
            failure = compare(graph, reference, model, trial)
        except ort.capi.onnxruntime_pybind11_state.Fail as e:
            return f"reference refuses: {str(e)[:200]}"
        except (ort.capi.onnxruntime_pybind11_state.InvalidArgument, ort.capi.onnxruntime_pybind11_state.RuntimeException) as e:
            return f"reference refuses: {str(e)[:200]}"
        except burin.RunError as e:
            failure = f"run fails: {e} trial {trial}"
        if failure:
            return failure
    return "ok"


def check(graph, target, flags):
    """The same in a process of its own: a crash is a result too."""
    r, w = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        try:
            result = check_here(graph, target, flags)
        except BaseException as e:  # pylint: disable=broad-except
            result = f"test fails: {type(e).__name__}: {e}"
        os.write(w, json.dumps(result).encode()[:4000])
        os._exit(0)
    os.close(w)
    text = b""
    while part := os.read(r, 65536):
        text += part
    os.close(r)
    status = os.waitpid(child, 0)[1]
    return json.loads(text) if text else f"crash: signal {status & 127}"


def kind(result):
    text = re.sub(r"%?\b[vxct]\d+\b|'[^']*'|\"[^\"]*\"|/tmp\S+", "", result)
    error = re.search(r"error ([\d.e+-]+)", result)
    if text.startswith("wrong value") and error:
        return "wrong by much" if float(error[1]) > 1e-3 else "wrong by little"
    return text[:11] if not text.startswith("compile") else re.sub(r"\d+", "0", text)[:70]


# ---- reduction ----
def intermediates(graph):
    """Arrays of every value for every trial."""
    names = [o for n in graph.nodes for o in n.output if o]
    s = session(graph.model(outputs=names))
    runs = [dict(zip(names, s.run(None, graph.feed(t)))) for t in range(TRIALS)]
    return [{**graph.feeds[t], **runs[t]} for t in range(TRIALS)]


def cut(graph, nodes, outputs, arrays):
    """The graph with only these nodes; what they read and nobody makes becomes an input."""
    made = {o for n in nodes for o in n.output}
    constants = {i.name for i in graph.initializers}
    need = list(dict.fromkeys(i for n in nodes for i in reads(n) if i and i not in made and i not in constants))
    inputs = [Value(i, list(zip(*[a[i].shape for a in arrays])), arrays[0][i].dtype) for i in need]
    feeds = [{i: a[i] for i in need} for a in arrays]
    return Graph(nodes, graph.initializers, inputs, feeds, outputs)


def live(nodes, outputs):
    need, keep = set(outputs), []
    for n in reversed(nodes):
        if need & set(n.output):
            keep.insert(0, n)
            need |= set(reads(n))
    return keep


def reduce(graph, target, flags, result):
    """Greedy: fewer outputs, then fewer nodes, as long as the failure is of the same kind."""
    want, arrays = kind(result), intermediates(graph)
    def still(g):
        return bool(g.nodes) and bool(g.outputs) and kind(check(g, target, flags)) == want
    def try_outputs(g, outs):
        return cut(g, live(g.nodes, outs), outs, arrays)
    changed = True
    while changed:
        changed = False
        for o in list(graph.outputs):
            smaller = try_outputs(graph, [q for q in graph.outputs if q != o])
            if still(smaller):
                graph, changed = smaller, True
        for n in list(graph.nodes):
            nodes = [q for q in graph.nodes if q is not n]
            outs = [o for o in graph.outputs if o not in n.output]
            heads = [i for i in reads(n) if any(i in q.output for q in nodes) and arrays[0][i].dtype == np.float32]
            for outputs in (outs, outs + heads):
                smaller = cut(graph, live(nodes, outputs), list(dict.fromkeys(outputs)), arrays)
                if len(smaller.nodes) < len(graph.nodes) and still(smaller):
                    graph, changed = smaller, True
                    break
    return graph


def text(graph):
    return onnx.printer.to_text(graph.model())


def setting(seed, flags):
    rng = np.random.default_rng(seed + 10**6)
    targets = ["native", "native", "x86-64-v2", "x86-64-v3"] + (["x86-64-v4"] if "avx512vl" in cpu_flags() else [])
    target = targets[rng.integers(len(targets))]
    return target, flags if flags else ["-O0"] if rng.random() < 0.1 else ["-O1"] if rng.random() < 0.05 else []


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=160)
    p.add_argument("--seconds", type=float, default=400)
    p.add_argument("--save")
    p.add_argument("--flags", default="")
    p.add_argument("--target")
    p.add_argument("--no-reduce", action="store_true")
    args = p.parse_args()
    passed = failed = skipped = 0
    start = time.time()
    for seed in range(args.seed, args.seed + args.count):
        if time.time() - start > args.seconds:
            break
        graph = random_graph(seed)
        target, flags = setting(seed, args.flags.split())
        target = args.target or target
        result = check(graph, target, flags)
        if result == "ok":
            passed += 1
            continue
        if result.startswith("reference refuses") or result.startswith("compile 5"):
            skipped += 1
            print(f"skipped seed {seed}: {result}", flush=True)
            continue
        failed += 1
        print(f"seed {seed} {target} {' '.join(flags)}: {result}", flush=True)
        if args.no_reduce:
            continue
        graph = reduce(graph, target, flags, result)
        print(f"seed {seed}: reduced: {check(graph, target, flags)}\n{text(graph)[:4000]}", flush=True)
        if args.save:
            Path(args.save).mkdir(parents=True, exist_ok=True)
            onnx.save(graph.model(), f"{args.save}/seed{seed}.onnx")
            np.savez(f"{args.save}/seed{seed}.npz", **{f"{t}/{k}": v for t in range(TRIALS) for k, v in graph.feed(t).items()})
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
