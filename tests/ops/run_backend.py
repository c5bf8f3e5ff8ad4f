#!/usr/bin/env python3
"""Part "backend": the suites of the onnx package, compiled for this machine and run from Python through the backend class.

run_backend.py [REGEX] [--list] [--suite=NAME] [--mode=NAME] [--official=K]: only the tests that match; --list shows every test that did
not pass; --mode: by another way (modes.py). A case that the compiler refuses as unsupported (status 5) is skipped and its reason counted.
Each runs in a process of its own. Every K-th test runs as onnx.backend.test.BackendTest has it, too, with ONNX's own comparison."""
import argparse
import collections
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

import numpy as np

import burin
from tests.ops import modes
from tests.support.onnx_suites import SUITES, cases, exception

SECONDS = 60  # of a case; who makes one of many sets another
# Two units in the last place of the 16-bit types: references round after every step, kernels once at the end.
STEP = {"bfloat16": 2**-6, "float16": 2**-9}


def same(got, want, rtol, atol):
    """Raises where they differ; the comparison of ONNX's own runner."""
    if isinstance(want, (list, tuple)):
        assert len(got) == len(want), f"{len(got)} elements, not {len(want)}"
        return [same(g, w, rtol, atol) for g, w in zip(got, want)]
    if want is None:
        assert got is None
        return None
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype, f"type {got.dtype}, not {want.dtype}"
    assert got.shape == want.shape, f"shape {got.shape}, not {want.shape}"
    try:
        return same_values(got, want, rtol, atol)
    except AssertionError as e:
        raise WrongValue(str(e)) from None


def same_values(got, want, rtol, atol):
    if want.dtype.kind == "O":
        return np.testing.assert_array_equal(got, want)
    if want.dtype == np.float32 and want.size and np.isfinite(want).all():  # a 0 that is a sum of large numbers is noise
        atol = max(atol, min(1e-6, 2**-23 * float(np.abs(want).max())))
    rtol = max(rtol, STEP.get(want.dtype.name, 0))
    if want.dtype.kind == "V" or want.dtype.name in ("bfloat16", "int4", "uint4", "int2", "uint2"):
        got, want = got.astype(np.float32), want.astype(np.float32)
    return np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


class WrongValue(AssertionError):
    """Values differ, of the right type and shape."""


def run_case(case, answers=modes.MODES["native"]):
    """(result, detail): passed, failed or skipped; answers: a function of modes.py."""
    reason = exception(case.name)
    try:
        for got, (_, outputs) in zip(answers(case), case.data_sets):
            same(got, [modes.array(v) for v in outputs], case.rtol, case.atol)
    except modes.Skip as e:
        return "skipped", str(e)
    except burin.CompileError as e:
        message = str(e).splitlines()[0] if str(e) else ""
        return ("skipped" if e.status == 5 else "failed"), f"status {e.status}: {message[-200:]}"
    except (WrongValue, burin.RunError) as e:
        return ("skipped", reason) if reason else ("failed", f"{' '.join(str(e).split())[:200]}")
    except Exception as e:
        return "failed", f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    return ("failed", "passes, and stands in exceptions.txt") if reason else ("passed", "")


def in_process(run, case, slot):
    """Starts run(case) in a child; its result goes to a file."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(SECONDS)
    try:  # whatever it raises, the child ends here: the folder is its parent's
        result = run(case)
    except BaseException as e:
        result = "failed", f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    Path(slot).write_text(json.dumps(result))
    os._exit(0)


def collect(status, slot):
    try:
        if os.WIFEXITED(status):
            return json.loads(Path(slot).read_text())
    except (OSError, ValueError):
        pass
    return ["failed", f"the process ended with signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no result"]


def as_they_end(cases, folder, run=run_case):
    """(case, result, detail) of each when it ends; as many run at a time as there are CPUs for this process."""
    waiting, running = collections.deque(enumerate(cases)), {}
    while waiting or running:
        if waiting and len(running) < len(os.sched_getaffinity(0)):
            k, case = waiting.popleft()
            slot = f"{folder}/{k}"
            running[in_process(run, case, slot)] = (case, slot)
            continue
        pid, status = os.wait()
        case, slot = running.pop(pid)
        yield (case, *collect(status, slot))


def run_all(cases, folder, run=run_case):
    """The same in the order of the cases."""
    found = {id(case): (case, result, detail) for case, result, detail in as_they_end(cases, folder, run)}
    return [found[id(case)] for case in cases]


class Official:
    """A test function of onnx.backend.test.BackendTest; suite and name as of a Case."""

    suite = "BackendTest"

    def __init__(self, case, name):
        self.case, self.method, self.name = case, name, name.removesuffix("_cpu")


def official_tests(pattern, every):
    """Every K-th test for the CPU of BackendTest; those for devices that the backend does not support it skips itself."""
    from onnx.backend.test import BackendTest

    found = [Official(c, n) for c in BackendTest(burin.backend, __name__).test_cases.values() for n in dir(c) if n.endswith("_cpu")]
    return [t for t in found if re.search(pattern, t.name)][::every]


def run_official(test):
    result = unittest.TestResult()
    test.case(test.method).run(result)
    text = " ".join(t for _, t in result.errors + result.failures)
    ended = " ".join(text.split())[-200:]
    reason = exception(test.name)
    if reason:
        return ("skipped", reason) if "Mismatched elements" in text or "RunError" in text else ("failed", ended or "passes, and stands in exceptions.txt")
    if "error[E02" in text:  # unsupported
        return "skipped", " ".join(text[text.index("error[E02"):].split("\n")[:1])
    return ("failed", ended) if text else ("skipped", "by itself") if result.skipped else ("passed", "")


def documented():
    """docs/OPERATORS.md ends with the table that burin prints, in which every operator takes some types."""
    printed = subprocess.run([burin.compiler(), "--list-ops"], capture_output=True, text=True).stdout
    return printed.count("\n") > 200 and "| – |" not in printed and (Path(__file__).resolve().parents[2] / "docs/OPERATORS.md").read_text().endswith("\n" + printed)


def main():
    global SECONDS
    parser = argparse.ArgumentParser()
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--suite", choices=SUITES)
    parser.add_argument("--mode", default="native", choices=modes.MODES)
    parser.add_argument("--official", type=int, default=12, metavar="K")
    args = parser.parse_args()
    burin.backend  # loaded before the forks
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        chosen = cases([args.suite] if args.suite else SUITES, args.pattern)
        if args.mode == "c" or ":" in args.mode:  # gcc reads all weights; qemu, and a CPU as a GPU, take their time
            SECONDS *= 10
        results = run_all(chosen, folder, lambda case: run_case(case, modes.MODES[args.mode]))
        if args.official and args.mode == "native" and not args.suite:
            os.environ["ONNX_HOME"] = folder  # where light has its data written
            results += run_all(official_tests(args.pattern, args.official), folder, run_official)
    counts = collections.Counter(r for _, r, _ in results)
    reasons = collections.Counter(re.sub(r"^.*?error", "error", d) for _, r, d in results if r == "skipped")
    for case, result, detail in results:
        if result == "failed" or (args.list and result == "skipped"):
            print(f"{result} {case.name}: {detail}")
    for suite in (*SUITES, Official.suite):
        of_suite = collections.Counter(r for case, r, _ in results if case.suite == suite)
        print(f"{suite}: {of_suite['passed']} passed, {of_suite['failed']} failed, {of_suite['skipped']} skipped")
    if not args.pattern and not documented():
        counts["failed"] += 1
        print("failed docs/OPERATORS.md: not what burin --list-ops prints, or an operator without types (operator_examples.def)")
    for reason, n in reasons.most_common():
        print(f"skipped {n}: {reason}")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
