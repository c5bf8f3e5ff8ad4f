#!/usr/bin/env python3
"""Part "cudahost": the text of CUDA kernels, compiled by clang (target cuda:host), against reference outputs: ONNX node tests,
runtime functions against this CPU's, random graphs, the repository's own models and small trained ones, products by every tile.

run_cudahost.py [--every K] [--turn N] [--only REGEX] [--graphs N [--seed S]] [--list]: of the node tests, sorted by name, every K-th from
the N-th on, and more of each operator until one of its tests passes. Every model runs three times: blocks and threads forward, then backward
and shuffled on memory full of ones; the bits must agree. What the compiler refuses for this CPU, too, is skipped; --list shows it. --graphs:
only random graphs, N of them, from the seed on that is printed. --sanitize: kernels end the process at undefined behaviour (indices of
register arrays and alignment among it), which in a plain run those of a sample do."""
import argparse
import collections
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ["BURIN_CHECK_MEMORY"] = "1"  # read by burin: the second run
sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np  # noqa: E402

import burin  # noqa: E402
from tests.cuda import attention_models, calls, tiles  # noqa: E402
from tests.models import own_models, run_models, run_random  # noqa: E402
from tests.ops import modes, run_backend  # noqa: E402
from tests.support import onnx_suites  # noqa: E402

TARGET = "cuda:host"
MAX_KB = 300
ALSO = {"silero_vad_v5"}  # an If and an LSTM
SLOW = {"meshnet3d_gwm"}  # 20 s on one core
SEEDS = range(5001, 5017)
CHECKS = "bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero,unreachable,bool"  # those whose code clang still compiles in seconds


# ---- node tests ---------------------------------------------------------------------------------------

NO_HEAP = "cannot be bounded"  # a GPU has no memory that grows


def node_case(case):
    result, detail = run_backend.run_case(case, modes.MODES[TARGET])
    if result == "skipped" and detail.startswith("status 5") and NO_HEAP not in detail:
        try:
            burin.compile(case.model, flags=["-O0"])
        except burin.CompileError:
            return result, detail
        return "failed", f"compiled for this CPU, but {detail}"
    return result, detail


def operators(case):
    return {n.op_type for n in case.model.graph.node}


def run_nodes(cases, every, turn, folder):
    """(name, result, detail) of the chosen ones."""
    chosen, rest = cases[turn % every::every], [c for i, c in enumerate(cases) if i % every != turn % every]
    results, passed = [], set()
    while chosen:
        for case, result, detail in run_backend.run_all(chosen, folder, node_case):
            results.append((case.name, result, detail))
            passed |= operators(case) if result == "passed" else set()
        chosen, seen = [], set(passed)
        for case in rest:  # the next one of each operator that has not passed
            if operators(case) - seen:
                chosen.append(case)
                seen |= operators(case)
        rest = [c for c in rest if c not in chosen]
    print(f"node tests: {len(results)} of {len(cases)}; {len(passed)} of {len(set().union(*map(operators, cases)))} operators passed")
    return results


# ---- models and graphs --------------------------------------------------------------------------------

def model_case(path):
    name = run_models.model_name(path)
    spread = run_models.own_spread() if run_models.SHARED.exists() else {}
    tolerance = max(run_models.TOLERANCE, spread.get(name, 0), run_models.WIDER.get(name, (0,))[0])
    try:
        model = burin.compile(path, target=TARGET)
        for feeds, want in run_models.cases(path):
            want = run_models.reference(path, feeds) if want is None else want
            for tensor, got, w in zip(model.outputs, model.run(feeds), want):
                _, bad = run_models.compare(got, np.asarray(w), tolerance)
                if bad:
                    return "failed", f"{tensor.name}: {bad}"
    except Exception as e:
        return "failed", f"{type(e).__name__}: {str(e)[:300]}"
    return "passed", ""


def random_case(seed):
    result = run_random.check_here(run_random.random_graph(seed), TARGET, [])
    if result.startswith(("reference refuses", "compile 5")):
        return "skipped", result
    return ("passed", "") if result == "ok" else ("failed", result)


def attention_case(name):
    tolerance = attention_models.CASES[name][-1]
    try:
        feeds = attention_models.feeds(name)
        model = burin.compile(attention_models.model(name), target=TARGET, flags=attention_models.CASES[name][1])
        got, want = next(iter(model.run(feeds))), attention_models.wanted(name, feeds)
    except Exception as e:
        return "failed", f"{type(e).__name__}: {str(e)[:300]}"
    worst = np.abs(got - want).max()
    return ("passed", "") if worst <= tolerance else ("failed", f"off by {worst}")


def call_case(name):
    try:
        return calls.check(burin, TARGET, name)
    except Exception as e:
        return "failed", f"{type(e).__name__}: {str(e)[:300]}"


def small_models():
    real = sorted((run_models.SHARED / "real").glob("*/model.onnx"))
    return [p for p in real if p.parent.name not in SLOW and (p.stat().st_size <= MAX_KB * 1024 or p.parent.name in ALSO)]


# ---- undefined behaviour ------------------------------------------------------------------------------

def sanitize(folder):
    """From now on burin finds a clang that checks what it compiles; a file has a line for each time."""
    tools = Path(folder) / "tools"
    tools.mkdir()
    real = shutil.which("clang-19") or shutil.which("clang")
    for name in ("clang-19", "clang"):
        (tools / name).write_text(f'#!/bin/sh\necho >>"{tools}/calls"\nexec "{real}" -fsanitize={CHECKS} -fsanitize-trap={CHECKS} "$@"\n')
        (tools / name).chmod(0o755)
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    return tools / "calls"


def run_sanitized(folder, models, nodes):
    calls = sanitize(folder)
    results = [(p.stem, *r) for p, *r in run_backend.run_all(models, folder, model_case)]
    results += [(f"seed {s}", *r) for s, *r in run_backend.run_all(list(SEEDS)[:4], folder, random_case)]
    results += [(c.name, *r) for c, *r in run_backend.run_all(nodes, folder, node_case)]
    compiled = len(calls.read_text().splitlines()) if calls.exists() else 0
    return [*results, ("clang that checks", "passed" if compiled >= len(models) else "failed", f"{compiled} calls")]


def only_graphs(n, seed):
    print(f"random graphs {seed} to {seed + n - 1}")
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        results = run_backend.run_all(list(range(seed, seed + n)), folder, random_case)
    for graph, result, detail in results:
        if result == "failed":
            print(f"failed seed {graph}: {detail}")
    counts = collections.Counter(result for _, result, _ in results)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] > 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=40)
    parser.add_argument("--turn", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--graphs", type=int)
    parser.add_argument("--seed", type=int, default=time.time_ns() // 10**6 % 10**9)
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    burin.backend  # loaded before the forks
    if args.sanitize:
        tools = tempfile.TemporaryDirectory(prefix="burin-")
        sanitize(tools.name)
    if args.graphs:
        return only_graphs(args.graphs, args.seed)
    nodes = onnx_suites.cases([onnx_suites.NODE], args.only)
    counts = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        groups = {"node tests": run_nodes(nodes, args.every, args.turn, folder) if nodes else []}
        if not args.only:
            models = own_models.write_all(Path(folder) / "own")
            names = [*calls.CASES, *calls.REFUSED]
            groups["runtime functions"] = [(n, *r) for n, *r in run_backend.run_all(names, folder, call_case)]
            groups["random graphs"] = [(f"seed {s}", *r) for s, *r in run_backend.run_all(list(SEEDS), folder, random_case)]
            groups["attention"] = [(n, *r) for n, *r in run_backend.run_all(list(attention_models.CASES), folder, attention_case)]
            groups["own models"] = [(p.stem, *r) for p, *r in run_backend.run_all(models, folder, model_case)]
            groups["trained models"] = [(p.parent.name, *r) for p, *r in run_backend.run_all(small_models(), folder, model_case)]
            found = run_backend.run_all(tiles.all_cases(), folder, lambda c: tiles.case(c, folder))
            groups["tiles of products"] = [(f"{kind[0]} from {turn}", *r) for (kind, turn), *r in found]
            if not args.sanitize:
                groups["sanitized"] = run_sanitized(folder, models[::2], nodes[::4 * args.every])
    for group, results in groups.items():
        mine = collections.Counter(result for _, result, _ in results)
        print(f"{group}: {mine['passed']} passed, {mine['failed']} failed, {mine['skipped']} skipped")
        counts += mine
        for name, result, detail in results:
            if result == "failed" or (args.list and result == "skipped"):
                print(f"{result} {name}: {detail}")
        reasons = collections.Counter(re.sub(r"^.*?error", "error", d) for _, r, d in results if r == "skipped")
        for reason, n in reasons.most_common():
            print(f"skipped {n}: {reason}")
    if not run_models.SHARED.exists():
        counts["skipped"] += 1
        print("skipped the shared models: they are not here")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
