"""Random programs with sizes that only a run finds, against ONNX Runtime: compiled (run several times with one heap), at -O0,
interpreted, and as C or a static program."""
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto as T, helper as h

import burin
from tests.support.part import check, finish


def scalar(name, t=T.INT64):
    return h.make_tensor_value_info(name, t, [])


def same(got, want):
    return all(g.shape == w.shape and np.allclose(g, w, rtol=1e-4, atol=1e-5) for g, w in zip(got, want))


def _outputs(command, given, names, folder):
    """What a command gives that takes --input and --output; what it says where it fails."""
    command += [f"--input={k}=@{folder}/{k}.npy" for k in given] + [f"--output={n}=@{folder}/out{k}.npy" for k, n in enumerate(names)]
    done = subprocess.run(command, capture_output=True, text=True)
    return [np.load(folder / f"out{k}.npy") for k in range(len(names))] if done.returncode == 0 else done.stderr


def interpret(path, given, names, folder):
    """The loop IR's interpreter, which follows what each element was written by."""
    return _outputs([burin.compiler(), "run", path, "--interpret", "--quiet"], given, names, folder)


def static_program(path, given, names, folder):
    subprocess.run([burin.compiler(), "compile", path, "-o", folder / "program"], check=True, capture_output=True)
    return _outputs([folder / "program", "--quiet", "--check-memory"], given, names, folder)


def c_source(path, given, names, folder):
    subprocess.run([burin.compiler(), "compile", path, "--emit=c,header", "-o", folder / "model", "--name=burin_model"], check=True, capture_output=True)
    library = folder / f"model{len(list(folder.glob('*.so')))}.so"  # one of its own, or the loader takes the last one
    subprocess.run(["gcc", "-std=c99", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", folder / "model.c", "-o", library], check=True)
    return burin.Model(str(library)).run(given)


def _compiled(seed, proto, draw, answer):
    """Runs of the model at both levels; False: it does not compile."""
    for flags in ([], ["-O0"]):
        try:
            m = burin.compile(proto, flags=flags)
        except burin.CompileError as e:
            return check(f"{seed} {flags}", False, e)
        for k in range(4):
            given = draw()
            want = answer(given)
            if want is None:
                continue
            try:
                got = m.run(given)
            except burin.RunError as e:
                check(f"seed {seed}, {flags}, run {k}", False, e)
                continue
            check(f"seed {seed}, {flags}, run {k}", same(got, want), f"{[g.shape for g in got]}, not {[w.shape for w in want]}")
    return True


def _test(seed, folder, model, feeds, rare, refuses):
    rng, values = random.Random(seed), np.random.default_rng(seed)
    proto, options = model(rng), ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as e:
        check(f"{seed}: ONNX Runtime", False, e)
        return
    used = {i.name for i in session.get_inputs()}
    draw = lambda: feeds(rng, values)

    def answer(given, refuses=False):
        try:
            return session.run(None, {n: v for n, v in given.items() if n in used})
        except Exception:
            if not refuses:
                raise
            return None

    if not _compiled(seed, proto, draw, lambda given: answer(given, refuses)):
        return
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    names = [o.name for o in proto.graph.output]
    for way in [interpret] + rare * (seed % 8 == 0):
        given = draw()
        for k, v in given.items():
            np.save(folder / f"{k}.npy", v)
        got, want = way(path, given, names, folder), answer(given)
        check(f"seed {seed}, {way.__name__}", not isinstance(got, str) and same(got, want), got)


def run(model, feeds, rare, refuses=False):
    """A part: [--count N] [--seed S]. model(rng) gives a program, feeds(rng, values) its inputs; every eighth program is run in the
    `rare` ways, too. refuses: ONNX Runtime does not take all sizes of 0. The exit status."""
    count = int(sys.argv[sys.argv.index("--count") + 1]) if "--count" in sys.argv else 24
    first = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            _test(seed, Path(folder), model, feeds, rare, refuses)
    return finish()
