#!/usr/bin/env python3
"""Meaning of the operators against the suites of the onnx package (light excepted: whole networks).

usage: node_tests.py TOOL [--work DIR] [--grids] [--filter REGEX] [--verbose]

TOOL is the built tests/tools/elem_tool. Cases (model, inputs, expected outputs) are generated once from the onnx
package into DIR/VERSION. Exit status 1 when a case fails; cases of unsupported types or operators are counted as skipped.
"""
import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.support.onnx_suites import LIGHT, SUITES, cases, exception


LONG = {"test_operator_conv"}  # 10 s in the interpreter: only compiled


def tensors_of(values, graph_values):
    for value, info in zip(values, graph_values):
        if isinstance(value, onnx.TensorProto):
            yield value
        elif info.type.WhichOneof("value") == "tensor_type":
            yield numpy_helper.from_array(value, info.name)
        else:
            yield None


def write_case(case, folder):
    os.makedirs(folder, exist_ok=True)
    onnx.save(case.model, os.path.join(folder, "model.onnx"))
    inputs, outputs = case.data_sets[0]
    graph = case.model.graph
    for stem, values, infos in (("in", inputs, graph.input), ("out", outputs, graph.output)):
        for k, tensor in enumerate(tensors_of(values, infos)):
            if tensor is not None:
                with open(os.path.join(folder, f"{stem}_{k}.pb"), "wb") as f:
                    f.write(tensor.SerializeToString())
    with open(os.path.join(folder, "tol"), "w") as f:
        f.write(f"{case.rtol} {max(case.atol, 1e-6)}\n")  # f32 noise around 0


def generate(work):
    done = os.path.join(work, "done")
    if os.path.exists(done):
        return
    for case in cases(s for s in SUITES if s != LIGHT):
        if case.name in LONG:
            continue
        try:
            write_case(case, os.path.join(work, case.name))
        except Exception as e:  # types that numpy lacks
            print(f"not generated: {case.name}: {e}")
    open(done, "w").close()


def judge(verdict, name, why):
    """What the tool found, as an exception has it: it must fail, and by its values."""
    reason = exception(name)
    if not reason or verdict == "SKIP":
        return verdict, why
    if verdict == "PASS":
        return "FAIL", "passes, and stands in exceptions.txt"
    return ("SKIP", reason) if re.search(r"^output \d+: element|fail(s|ed) with status 6$", why) else (verdict, why)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tool")
    parser.add_argument("--work", default=os.path.join(tempfile.gettempdir(), "burin_node_tests"))
    parser.add_argument("--grids", action="store_true", help="as grids for a GPU, interpreted")
    parser.add_argument("--filter", default="")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    work = os.path.join(args.work, onnx.__version__)
    os.makedirs(work, exist_ok=True)
    generate(work)
    names = sorted(n for n in os.listdir(work) if re.search(args.filter, n) and n != "done")
    counts, reasons = collections.Counter(), collections.Counter()
    for at in range(0, len(names), 200):
        part = [os.path.join(work, n) for n in names[at:at + 200]]
        out = subprocess.run([args.tool, *["--grids"] * args.grids, *part], capture_output=True, text=True, errors="replace").stdout
        for line in out.splitlines():
            verdict, name, why = (line.split(" ", 2) + ["", ""])[:3]
            verdict, why = judge(verdict, name, why)
            counts[verdict] += 1
            if verdict == "FAIL" or (args.verbose and verdict == "SKIP"):
                print(verdict, name, why)
            if verdict == "SKIP":
                reasons[why.split(": ", 1)[-1]] += 1
    for reason, n in reasons.most_common():
        print(f"skipped {n}: {reason}")
    print(f"{'grids' if args.grids else 'ops'}: {counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
