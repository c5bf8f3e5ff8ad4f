#!/usr/bin/env python3
"""Part "typed": random small graphs, one operator of one element type and up to two behind it, against ONNX Runtime.

run_typed.py [--seed S] [--count N] [--only REGEX] [--pairs]: N graphs from the seed on that is printed, another one in each run;
operators and types are those of ONNX Runtime's CPU kernels (typed_operators.py), taken in turn. BATCH graphs are one model for burin,
each with inputs of its own, half of them with symbols for sizes; what fails there is compiled alone, so that a failure names its
graph. --pairs lists operators and types that no graph covered."""
import argparse
import collections
import random
import re
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

import burin
from tests.ops import run_backend
from tests.support.typed_operators import OPSET, TYPES, Maker, kernels

BATCH = 15
# Relative to the largest value: sums and functions are rounded otherwise.
TOLERANCE = {"float64": 2e-6, "float32": 1e-4, "float16": 8e-3, "bfloat16": 6e-2}
STEP_APART = {"QuantizeLinear"}  # a last bit before rounding is a step behind it
OF_FLOATS = {"ReduceLogSum", "ReduceLogSumExp"}  # what they are of integers no version says, and the newest has none
ALSO = {"GroupNormalization": {"float"}, "HardSwish": {"float"}, "Mish": {"float"}, "CastLike": {"float"}}
ort.set_default_logger_severity(4)


class Graph:
    """A case with nodes behind it, as a model of its own or, with a prefix for all names, as a part of one."""

    def __init__(self, seed, op, dtype):
        rng = np.random.default_rng([seed, 7])
        self.seed, self.op, self.type = seed, op, dtype
        maker = Maker(rng)
        self.case = maker.case(op, TYPES[dtype])
        self.symbols = maker.chance(0.5)
        self.behind = [maker.pick("Transpose", "Reshape", "Concat", "Add", "Neg") for _ in range(maker.pick(0, 0, 1, 2))]
        self.prefix = f"g{seed}_"

    def title(self):
        sizes = [None if a is None else f"{a.dtype}{list(a.shape)}" for a in self.case.inputs]
        return f"seed {self.seed} {self.op} {self.type} {sizes} {self.case.attrs} then {self.behind}{' symbols' if self.symbols else ''}"

    def name(self, text):
        return self.prefix + text

    def nodes(self):
        names = ["" if a is None else self.name(f"x{k}") for k, a in enumerate(self.case.inputs)]
        outs = [self.name(f"y{k}") for k in range(self.case.n_out)]
        found = [helper.make_node(self.op, names, outs, name=self.name(self.op), **self.case.attrs)]
        for k, op in enumerate(self.behind):
            last, out = found[-1].output[0], self.name(f"z{k}")
            more = {"Reshape": [self.name("flat")], "Concat": [last], "Add": [last]}.get(op, [])
            found.append(helper.make_node(op, [last, *more], [out], name=out, **({"axis": 0} if op == "Concat" else {})))
        return found

    def outputs(self):
        return [self.nodes()[-1].output[0]] + [self.name(f"y{k}") for k in range(1, self.case.n_out)]

    def dims(self, a):
        return [self.name(f"s{d}") if self.symbols else d for d in a.shape]

    def parts(self):
        """(nodes, inputs, outputs, initializers, feeds)"""
        inputs, constants, feeds = [], [numpy_helper.from_array(np.array([-1], np.int64), self.name("flat"))], {}
        for k, a in enumerate(self.case.inputs):
            if a is None:
                continue
            if k in self.case.constant:
                constants.append(numpy_helper.from_array(a, self.name(f"x{k}")))
                continue
            inputs.append(helper.make_tensor_value_info(self.name(f"x{k}"), helper.np_dtype_to_tensor_dtype(a.dtype), self.dims(a)))
            feeds[self.name(f"x{k}")] = a
        constants = [c for c in constants if any(c.name in n.input for n in self.nodes())]
        return self.nodes(), inputs, [onnx.ValueInfoProto(name=o) for o in self.outputs()], constants, feeds


def model_of(graphs):
    nodes, inputs, outputs, constants, feeds = [], [], [], [], {}
    for g in graphs:
        n, i, o, c, f = g.parts()
        nodes, inputs, outputs, constants, feeds = nodes + n, inputs + i, outputs + o, constants + c, {**feeds, **f}
    graph = helper.make_graph(nodes, "typed", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10), feeds


def wanted(graph):
    """ONNX Runtime's results, or None where it refuses."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model, feeds = model_of([graph])
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)
    except Exception:  # whatever it is that it does not do
        return None


def differs(graph, got, want):
    """What is wrong, or None."""
    for g, w in zip(got, want):
        if g.shape != w.shape or g.dtype != w.dtype:
            return f"{g.dtype}{list(g.shape)}, not {w.dtype}{list(w.shape)}"
        if g.dtype.kind in "iub":
            off = 1 if graph.op in STEP_APART else 0
            if (abs(g.astype(np.int64) - w.astype(np.int64)) > off).any() if off else not np.array_equal(g, w):
                return f"{g.ravel()[:8]}, not {w.ravel()[:8]}"
            continue
        g, w = g.astype(np.float64), w.astype(np.float64)
        finite = np.isfinite(w)
        top = max(1e-2, abs(w[finite]).max(initial=0))
        near = abs(g[finite] - w[finite]) <= TOLERANCE[got[0].dtype.name if got[0].dtype.name in TOLERANCE else "float32"] * top
        if not near.all() or not np.array_equal(g[~finite], w[~finite], equal_nan=True):
            return f"{g[finite][~near][:6]}, not {w[finite][~near][:6]}"
    return None


def run_together(graphs):
    """{seed: outputs}; raises what burin raises."""
    model, feeds = model_of(graphs)
    compiled = burin.compile(model, flags=["-O3"] if graphs[0].seed % 3 else ["-O1"])
    named = dict(zip([t.name for t in compiled.outputs], compiled.run({k: v for k, v in feeds.items()})))
    return {g.seed: [named[o] for o in g.outputs()] for g in graphs}


def run_alone(graph):
    """(outputs, None) or (None, why), once with symbols and, where these are refused, without."""
    while True:
        try:
            return run_together([graph])[graph.seed], None
        except burin.CompileError as e:
            if e.status != 5 or not graph.symbols:
                return None, ("refused " if e.status == 5 else f"status {e.status} ") + str(e)[-200:]
        except burin.RunError as e:
            if not graph.symbols or not re.search("must be equal|, the model needs", str(e)):  # a symbol that is 1 broadcasts in few operators
                return None, f"run fails: {e}"
        graph.symbols = False


def run_batch(graphs):
    """("passed", [(seed, op, type, result)])."""
    known = {g.seed: w for g in graphs if (w := wanted(g)) is not None}
    graphs, results = [g for g in graphs if g.seed in known], [(g.seed, g.op, g.type, "reference") for g in graphs if g.seed not in known]
    try:
        got = run_together(graphs) if graphs else {}
    except (burin.CompileError, burin.RunError):
        got = {}
    for g in graphs:
        outputs, why = (got[g.seed], None) if g.seed in got else run_alone(g)
        why = why or differs(g, outputs, known[g.seed])
        results.append((g.seed, g.op, g.type, "ok" if not why else why if why.startswith("refused") else f"{why}: {g.title()}"))
    return "passed", results


def pairs(only):
    found = {**kernels(), **ALSO}
    every = [(op, t) for op, types in sorted(found.items()) for t in sorted(types) if re.search(only, f"{op} {t}")]
    return [(op, t) for op, t in every if not (op in OF_FLOATS and "int" in t)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=random.randrange(10**8))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--only", default="")
    parser.add_argument("--pairs", action="store_true")
    args = parser.parse_args()
    print(f"seeds {args.seed} to {args.seed + args.count - 1}", flush=True)
    every = pairs(args.only)
    order = np.random.default_rng(args.seed).permutation(len(every))
    graphs = [Graph(args.seed + k, *every[order[k % len(every)]]) for k in range(args.count)]
    batches = [graphs[k:k + BATCH] for k in range(0, len(graphs), BATCH)]
    counts, covered, reasons = collections.Counter(), set(), collections.Counter()
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        for batch, result, detail in run_backend.as_they_end(batches, folder, run_batch):
            if result != "passed":  # the process ended
                counts["failed"] += 1
                print(f"FAILED seeds {batch[0].seed} to {batch[-1].seed}: {detail}")
                continue
            for seed, op, dtype, why in detail:
                kind = "passed" if why == "ok" else "skipped" if why == "reference" or why.startswith("refused") else "failed"
                counts[kind] += 1
                covered |= {(op, dtype)} if kind == "passed" else set()
                if kind == "failed":
                    print(f"FAILED {why[:500]}", flush=True)
                if kind == "skipped":
                    reasons["ONNX Runtime refuses" if why == "reference" else re.sub(r"^.*error", "error", why)[:160]] += 1
    for reason, n in reasons.most_common(12):
        print(f"skipped {n}: {reason}")
    print(f"{len(covered)} of {len(every)} pairs of operator and type")
    if args.pairs:
        print("not covered:", sorted(set(every) - covered))
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
