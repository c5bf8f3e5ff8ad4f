#!/usr/bin/env python3
"""Part "attributes": what the ONNX specification forbids a node to be, for every operator: each must end in an error that names
the node.

run_attributes.py [REGEX] [--list] [--every=K]: only cases whose names the regular expression finds, and of these every K-th; --list shows
each with what burin says.

A case is a node test of the onnx package with one thing changed (bad_nodes.py), so that all else is valid. A case that burin
compiles is a failure, unless ONNX Runtime runs it, too. Operators without a node test that burin compiles are skipped and counted."""
import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import onnx
import onnxruntime as ort

from tests.support import bad_nodes
from tools import operator_attributes
from tests.support import part
from tests.support.onnx_suites import NODE, cases

# Accepted beyond the specification: what is computed is clear.
WIDER = {
    r"^(Layer|Group)Normalization .*input [12] has another type": "scale and bias of another type, as ONNX Runtime has them in its first form",
    r"^(MelWeightMatrix|STFT) .*has another type": "numbers, each of its own type",
    r"^Reduce(Max|Min|LogSum|LogSumExp) .*input 0 is (bool|int64)": "other versions of the operator have the type",
    r"^(MaxPool|ArrayFeatureExtractor) .*input 0 is (int64|bool)": "elements are moved",
    r"^Bernoulli .*input 0 is": "only the size of the input of the other generators counts",
    r"^(Optional\w+|Upsample) .*too many inputs": "the rest is not read",
    r"^Range .*stash_type": "sums are exact",
}
CLEAN = {1, 5}  # an error in the model, unsupported
LEAST = 400


def compile_model(model, path):
    """burin's status and messages; its output is the graph behind the passes."""
    onnx.save(model, path)
    done = part.burin(path, "-q", "-O0", "--emit=graph", "-o", f"{path}.txt")
    left = os.path.exists(f"{path}.txt")
    if left:
        os.remove(f"{path}.txt")
    return done.returncode, done.stderr.strip(), left


def others_run(case):
    """Whether ONNX Runtime runs the model with the data of the test."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(case.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        session.run(None, {i.name: np.asarray(v) for i, v in zip(session.get_inputs(), case.feeds)})
    except Exception:  # of whatever kind: it refuses
        return False
    return True


def judge(case, status, text, left):
    """What is wrong with burin's answer, or None."""
    if status == 0:
        return None if any(re.search(p, case.name) for p in WIDER) or others_run(case) else "accepted"
    if status not in CLEAN:
        return f"status {status}: {text[-300:]}"
    if left:
        return "an output was left"
    if "error[E" not in text or not (case.place in text or "[E0202]" in text):  # no bound: the size of an output
        return f"no place: {text[:300]}"
    return None


def base_models(folder):
    """{operator: its node tests that burin compiles, at most bad_nodes.BASES}."""
    by_op = {}
    for c in cases([NODE]):
        nodes = c.model.graph.node
        if len(nodes) == 1 and not c.model.functions:
            by_op.setdefault((nodes[0].domain, nodes[0].op_type), []).append(c)

    def good(item):
        op, tests = item
        tests = sorted(tests, key=lambda c: -len(c.model.graph.node[0].attribute))[:6]
        compiled = (c for c in tests if compile_model(c.model, f"{folder}/{c.name}.onnx")[0] == 0)
        return op, list(itertools.islice(compiled, bad_nodes.BASES))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(pool.map(good, sorted(by_op.items())))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--every", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        found = base_models(folder)
        bad = [b for tests in found.values() for b in bad_nodes.make(tests) if re.search(args.pattern, b.name)][::args.every]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            answers = list(pool.map(lambda k: compile_model(bad[k].model, f"{folder}/{k}.onnx"), range(len(bad))))
        for case, answer in zip(bad, answers):
            wrong = judge(case, *answer)
            if args.list:
                print(case.name, *answer[:2])
            part.check(case.name, not wrong, wrong)
    for domain, op in (op for op, tests in found.items() if not tests):
        part.skip(f"{domain}.{op}", "burin compiles none of its node tests")
    if not args.pattern:
        part.check("number of cases", len(bad) >= LEAST, len(bad))
        part.check("attributes.def", operator_attributes.table(part.BURIN) == (part.ROOT / "frontend/import/attributes.def").read_text(),
                   "not what tools/operator_attributes.py writes")
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
