#!/usr/bin/env python3
"""Part "bounds": sizes that only data give. Loops that would go on where their scan outputs have no more room fail, and say so,
whether the room is what the model declares or what --bound gives; within it they give what Python gives."""
import itertools
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT)]

import numpy as np
import onnxruntime
from onnx import TensorProto as T, helper as h, numpy_helper as nh

import burin
from tests.support import run_time_sizes
from tests.support.part import check, finish

ROOM = 3


def loop(declared, by_data, limited):
    """A Loop that counts up; by_data: its condition is an input's matter; limited: it has a trip count."""
    scalar = lambda name, t=T.INT64: h.make_tensor_value_info(name, t, [])
    condition = h.make_node("Less", ["i", "last"], ["go_on"]) if by_data else h.make_node("Identity", ["go"], ["go_on"])
    body = h.make_graph([condition, h.make_node("Add", ["s", "one"], ["t"]), h.make_node("Identity", ["t"], ["o"])], "b",
                        [scalar("i"), scalar("go", T.BOOL), h.make_tensor_value_info("s", T.FLOAT, [1])],
                        [scalar("go_on", T.BOOL), h.make_tensor_value_info("t", T.FLOAT, [1]), h.make_tensor_value_info("o", T.FLOAT, [1])])
    inputs = [h.make_tensor_value_info("x", T.FLOAT, [1])] + [scalar("trips")] * limited + [scalar("last")] * by_data
    graph = h.make_graph([h.make_node("Loop", ["trips" if limited else "", "", "x"], ["y", "z"], body=body)], "g", inputs,
                         [h.make_tensor_value_info("y", T.FLOAT, [1]), h.make_tensor_value_info("z", T.FLOAT, [ROOM if declared else "n", 1])],
                         [nh.from_array(np.array([1], np.float32), "one")])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)


def iterations(trips, last):
    """How often the loop runs."""
    n = 0
    while (trips is None or n < trips) and (n == 0 or last is None or n - 1 < last):
        n += 1
    return n


def run(m, name, trips, last):
    feeds = {"x": np.zeros(1, np.float32)}
    feeds |= {"trips": np.array(trips, np.int64)} if trips is not None else {}
    feeds |= {"last": np.array(last, np.int64)} if last is not None else {}
    want = iterations(trips, last)
    try:
        y, z = m.run(feeds)
        ok = want <= ROOM and y[0] == want and np.array_equal(z.ravel(), np.arange(1, want + 1))
        check(name, ok, f"{y}, {z.ravel()} after {want} iterations")
    except burin.RunError as e:
        check(name, want > ROOM and e.status in (2, 5) and "Loop" in str(e) and f"at most {ROOM}" in str(e), f"{want} iterations: {e}")


def test_loops():
    for declared, by_data, limited in itertools.product((True, False), (False, True), (False, True)):
        if not by_data and not limited:
            continue  # it never ends
        flags = [] if declared else [f"--bound=trips_1={ROOM}"]
        for more in ([], ["-O0"]):
            m = burin.compile(loop(declared, by_data, limited), flags=flags + more)
            for trips, last in itertools.product((0, 1, 2, 3, 4, 9) if limited else (None,), (-1, 0, 1, 2, 3, 9) if by_data else (None,)):
                run(m, f"declared {declared}, {more}: trips {trips}, last {last}", trips, last)


def test_messages():
    m = burin.compile(loop(False, True, True))  # without a bound it has all the room there is
    for trips, last in ((0, 5), (7, 9), (9, 7), (3000, 3000)):
        y, z = m.run({"x": np.zeros(1, np.float32), "trips": np.array(trips, np.int64), "last": np.array(last, np.int64)})
        n = iterations(trips, last)
        check(f"no bound: trips {trips}, last {last}", y[0] == n and np.array_equal(z, np.arange(1, n + 1)[:, None]), z.shape)
    for flag in ("--bound=trips_1", "--bound=trips_1=x", "--bound==3", "--bound=trips_1=-1"):
        try:
            burin.compile(loop(False, True, True), flags=[flag])
            check(flag, False, "compiles")
        except burin.CompileError as e:
            check(flag, e.status == 2, e)


def test_pieces():
    """StringSplit without a limit has room for 256 pieces, or as many as --bound says."""
    node = h.make_node("StringSplit", ["x"], ["y", "n"])
    graph = h.make_graph([node], "g", [h.make_tensor_value_info("x", T.STRING, [1])], [h.make_empty_tensor_value_info(o) for o in ("y", "n")])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)
    for flags, most in (([], 256), (["--bound=pieces_0=2"], 2)):
        m = burin.compile(model, flags=flags)
        for n in (0, 1, most, most + 1):
            try:
                y, count = m.run({"x": np.array([" ".join("a" * n)], object)})
                check(f"{n} pieces of {most}", n <= most and count[0] == n and y.shape == (1, n), y)
            except burin.RunError as e:
                check(f"{n} pieces of {most}", n > most and e.status == 5, e)


def long_sizes(steps):
    """Each size is half of what a formula with divisions makes of the one before: written out, formulas grow by a factor in every step."""
    nodes, x = [], "x"
    for k in range(steps):
        nodes += [h.make_node("Shape", [x], [f"s{k}"]), h.make_node("Mul", [f"s{k}", f"s{k}"], [f"q{k}"]), h.make_node("Add", [f"q{k}", "seven"], [f"a{k}"]),
                  h.make_node("Div", [f"a{k}", f"s{k}"], [f"e{k}"]), h.make_node("Mod", [f"e{k}", "three"], [f"b{k}"]),
                  h.make_node("Slice", [x, f"b{k}", f"e{k}"], [f"x{k}"]), h.make_node("Concat", [f"x{k}", "tail"], [f"y{k}"], axis=0)]
        x = f"y{k}"
    values = [nh.from_array(np.array([v], np.int64), n) for n, v in (("seven", 7), ("three", 3))] + [nh.from_array(np.array([1, 2], np.float32), "tail")]
    graph = h.make_graph([*nodes, h.make_node("Neg", [x], ["z"])], "g", [h.make_tensor_value_info("x", T.FLOAT, ["n"])],
                         [h.make_tensor_value_info("z", T.FLOAT, ["m"])], values)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)


def test_long_sizes():
    """A formula of more than 4,000 parts becomes a symbol that the run computes, and whose bound is the formula: no heap. In C, formulas
    share their parts."""
    for steps in (2, 8, 20):
        model = long_sizes(steps)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for flags in ([], ["-O0"]):
            m = burin.compile(model, flags=flags)
            check(f"{steps} sizes: no heap", not burin._abi.uses_heap(m._info))
            for n in (1, 2, 3, 5, 64, 1001):
                x = np.arange(n, dtype=np.float32)
                want, got = session.run(None, {"x": x})[0], m.run({"x": x})[0]
                check(f"{steps} sizes, {flags}: {n}", np.array_equal(got, want), f"{got.shape}, not {want.shape}")
        with tempfile.TemporaryDirectory() as folder:
            path, given = Path(folder) / "m.onnx", {"x": np.arange(64, dtype=np.float32)}
            path.write_bytes(model.SerializeToString())
            got = run_time_sizes.c_source(path, given, ["z"], Path(folder))
            size = (Path(folder) / "model.c").stat().st_size
            check(f"{steps} sizes in C", np.array_equal(got[0], session.run(None, given)[0]) and size < 60000 + 20000 * steps, size)


def main():
    test_long_sizes()
    test_loops()
    test_messages()
    test_pieces()
    return finish()


if __name__ == "__main__":
    sys.exit(main())
