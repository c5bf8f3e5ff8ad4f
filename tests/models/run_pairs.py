#!/usr/bin/env python3
"""Part "pairs": random graphs beside graphs that compute the same another way (equivalences.py), both compiled.

run_pairs.py [--seed S] [--count N] [--changes N]: N pairs from the seed on that is printed, another one in each run. Graphs are those
of part random, smaller; BATCH of them are one model, whose result is printed when it ends. Results may differ by what rounding does to
them: 3e-5 of the largest and a multiple of how far they move with the inputs. Operators that choose or round (ArgMax, TopK,
QuantizeLinear …) are left out: a last bit changes their result."""
import argparse
import collections
import random
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np
import onnx
from onnx import helper, numpy_helper

import burin
from tests.models.run_random import RTOL, moved
from tests.ops import run_backend
from tests.support import equivalences
from tests.support.random_graphs import SYMBOLS, TRIALS, Generator, reads

BATCH = 6
ABRUPT = {"ArgMax", "ArgMin", "TopK", "OneHot", "QuantizeLinear", "DynamicQuantizeLinear", "Cast", "Round", "Floor", "Ceil", "NonZero", "Unique",
          "NonMaxSuppression", "Less", "Greater", "LessOrEqual", "Where", "Hardmax", "Compress", "RoiAlign", "GridSample"}
NAMES = {shape: name for name, shape in SYMBOLS}


class Pair:
    """Two graphs with the same outputs: parts(changed) has (nodes, inputs, constants, feeds of each trial, functions)."""

    def __init__(self, seed, changes):
        self.seed, self.prefix = seed, f"p{seed}_"
        self.rng = np.random.default_rng([seed, 11])
        g = Generator(seed)
        g.most = 8
        nodes, initializers, self.inputs, outputs = g.graph()
        bad = {o for n in nodes if n.op_type in ABRUPT for o in n.output}
        for n in nodes:  # and all behind them
            bad |= set(n.output) if bad & set(reads(n)) else set()
        self.outputs = [o.name for o in outputs if o.name not in bad]
        self.nodes = [n for n in nodes if not bad & set(n.output)]
        self.outputs += [o for n in self.nodes for o in n.output if o and not any(o in reads(m) for m in self.nodes) and o not in self.outputs]
        self.initializers = {i.name: numpy_helper.to_array(i) for i in initializers}
        self.feeds = [{v.name: self.rng.standard_normal([d[t] for d in v.shape]).astype(np.float32) for v in self.inputs} for t in range(TRIALS)]
        self.net = equivalences.Net(self.nodes, initializers, g.values, self.rng, self.prefix)
        self.changes = equivalences.change(self.net, changes) if self.nodes else []

    def infos(self):
        return [helper.make_tensor_value_info(v.name, 1, [d[0] if min(d) == max(d) else NAMES.setdefault(d, f"d{len(NAMES)}") for d in v.shape])
                for v in self.inputs]

    def graph(self, changed):
        """(graph with names of its own, feeds of each trial, functions)"""
        net = self.net
        nodes, constants, more = (net.nodes, net.initializers, net.feeds) if changed else (self.nodes, self.initializers, {})
        used = {i for n in nodes for i in reads(n)}
        infos = [i for i in self.infos() if i.name in used]
        feeds = [{k: v for k, v in f.items() if k in used} | more for f in self.feeds]
        infos += [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for k, a in more.items()]
        graph = helper.make_graph(nodes, "pair", infos, [onnx.ValueInfoProto(name=o) for o in self.outputs],
                                  [numpy_helper.from_array(np.array(a, order="C"), k) for k, a in constants.items() if k in used])
        rename(graph, self.prefix)
        return graph, [{self.prefix + k: v for k, v in f.items()} for f in feeds], net.functions if changed else []


def rename(graph, prefix):
    """All names of values, those in branches and bodies, too."""
    for v in [*graph.input, *graph.output, *graph.initializer]:
        v.name = prefix + v.name
    for n in graph.node:
        for names in (n.input, n.output):
            names[:] = [prefix + x if x else x for x in names]
        for a in n.attribute:
            if a.HasField("g"):
                rename(a.g, prefix)


def model_of(pairs, changed):
    graphs, functions, feeds = [], [], [{} for _ in range(TRIALS)]
    for p in pairs:
        g, f, fs = p.graph(changed)
        graphs.append(g)
        functions += fs
        for mine, its in zip(feeds, f):
            mine.update(its)
    def all_of(part):
        return [x for g in graphs for x in getattr(g, part)]
    whole = helper.make_graph(all_of("node"), "pairs", all_of("input"), all_of("output"), all_of("initializer"))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("test", 1)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=10, functions=functions), feeds


def compiled(pairs, changed):
    model, feeds = model_of(pairs, changed)
    return burin.compile(model, flags=["-O1"] if pairs[0].seed % 7 == 0 else []), feeds


def results(model, feed):
    return dict(zip([t.name for t in model.outputs], model.run({t.name: feed[t.name] for t in model.inputs})))


def compare(pair, trial, want, got, others):
    for o in (pair.prefix + o for o in pair.outputs):
        w, g = want[o], got[o]
        if w.shape != g.shape or w.dtype != g.dtype:
            return f"{o} trial {trial}: {g.dtype}{list(g.shape)}, not {w.dtype}{list(w.shape)}"
        if w.dtype.kind != "f" or not w.size or not np.isfinite(w).all():
            continue
        top = max(1e-1, float(np.abs(w).max()))
        spread = max(float(np.abs(m[o].astype(np.float64) - w).max()) for m in others)
        error = float(np.abs(g.astype(np.float64) - w).max())
        if spread < 1e-3 * top and not error <= RTOL * top + 10 * spread:
            return f"{o} trial {trial}: error {error / top:.2g} of the largest, {spread / top:.2g} moved"
    return None


def check(pairs):
    """{seed: what differs, or None}; raises what burin raises."""
    (one, feeds), (two, more) = compiled(pairs, False), compiled(pairs, True)
    found = {p.seed: None for p in pairs}
    for trial in range(TRIALS):
        want, got = results(one, feeds[trial]), results(two, more[trial])
        others = [results(one, moved(feeds[trial], s)) for s in (1, 2)]
        for p in pairs:
            found[p.seed] = found[p.seed] or compare(p, trial, want, got, others)
    return found


def alone(pair):
    try:
        return check([pair])[pair.seed]
    except (burin.CompileError, burin.RunError) as e:
        refused = getattr(e, "status", 0) == 5 and isinstance(e, burin.CompileError)
        return ("refused: " if refused else f"fails: ") + str(e)[-300:]


def run_batch(seeds):
    pairs = [Pair(seed, seeds.changes) for seed in seeds]
    pairs = [p for p in pairs if p.changes and p.outputs]
    try:
        found = check(pairs) if pairs else {}
    except (burin.CompileError, burin.RunError):
        found = {p.seed: alone(p) for p in pairs}
    return "passed", [(p.seed, p.changes, found[p.seed]) for p in pairs]


class Seeds(list):
    changes = 4


def kind(why):
    return "passed" if not why else "skipped" if why.startswith("refused") else "failed"


def show(batch, result, detail):
    """Prints what became of a batch; its counts and, with their number, reasons to skip."""
    counts, reasons = collections.Counter(), collections.Counter()
    if result != "passed":
        counts["failed"] = 1
        print(f"FAILED seeds {batch[0]} to {batch[-1]}: {detail}", flush=True)
        return counts, reasons
    if left_out := len(batch) - len(detail):
        counts["skipped"] = reasons["no graph to change"] = left_out
    for seed, changes, why in detail:
        counts[kind(why)] += 1
        if kind(why) == "failed":
            print(f"FAILED seed {seed} {changes}: {why}")
        if kind(why) == "skipped":
            reasons[why[-150:]] += 1
    print(f"seeds {batch[0]} to {batch[-1]}: {dict(counts)}", flush=True)
    return counts, reasons


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=random.randrange(10**8))
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--changes", type=int, default=Seeds.changes)
    args = parser.parse_args()
    Seeds.changes, run_backend.SECONDS = args.changes, BATCH * run_backend.SECONDS
    print(f"seeds {args.seed} to {args.seed + args.count - 1}", flush=True)
    batches = [Seeds(range(s, min(s + BATCH, args.seed + args.count))) for s in range(args.seed, args.seed + args.count, BATCH)]
    counts, reasons = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        for batch, result, detail in run_backend.as_they_end(batches, folder, run_batch):
            c, r = show(batch, result, detail)
            counts, reasons = counts + c, reasons + r
    for reason, n in reasons.items():
        print(f"skipped {n}: {reason}")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
