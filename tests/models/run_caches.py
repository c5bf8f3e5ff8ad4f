#!/usr/bin/env python3
"""Part "caches": decoders whose keys and values stay in place (--cache), step by step against ONNX Runtime.

Both forms that exporters write, one artifact for a prompt and for single tokens: in chunks of several lengths, of one and of two
sequences, padded, at -O3 and -O0, of a text, and as the C program of examples/generate. Memory behind what a run writes must stay as it was.
Then pasts that grow along other axes, and what is refused.
"""
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

import burin
from tests.support import decoder
from tests.support.part import BURIN, check, finish, run, skip

CONFIG, ROOM = decoder.SMALL, 48
CHUNKS = [[20, 1, 1, 1, 5, 1], [1, 1, 2, 30, 1], [48]]
MARK = np.float32(1234.5)


def session(model):
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Reference:
    """ONNX Runtime with caches that it copies."""

    def __init__(self, model, batch):
        self.session = session(model)
        self.names = [o.name for o in self.session.get_outputs()][1:]
        self.past = [np.zeros((batch, CONFIG.kv_heads, 0, CONFIG.head), np.float32) for _ in self.names]

    def run(self, feeds):
        past = {n.replace("present", "past_key_values"): p for n, p in zip(self.names, self.past)}
        logits, *self.past = self.session.run(None, {**feeds, **past})
        return [logits, *self.past]


def feeds_of(form, ids, mask):
    feeds = {"input_ids": ids, "attention_mask": mask}
    if form == "concat":
        feeds["position_ids"] = np.arange(mask.shape[1] - ids.shape[1], mask.shape[1])[None].repeat(len(ids), 0)
    return feeds


def generate(title, model, compiled, form, batch, chunks, padded=0):
    """Feeds random tokens in chunks; both must agree, and the caches be untouched behind what they hold."""
    rng = np.random.default_rng(len(chunks))
    reference, caches = Reference(model, batch), compiled.caches(batch_size=batch)
    for memory in caches.memory.values():
        memory[:] = MARK
    mask = np.ones((batch, 0), np.int64)
    for i, n in enumerate(chunks):
        mask = np.concatenate([mask, np.ones((batch, n), np.int64)], axis=1)
        if i == 0 and padded:
            mask[0, :padded] = 0
        feeds = feeds_of(form, rng.integers(0, CONFIG.vocab, (batch, n)), mask)
        got, want = compiled.run(feeds, caches=caches), reference.run(feeds)
        wrong = [k for k, (x, y) in enumerate(zip(got, want)) if x.shape != y.shape or not np.allclose(x, y, rtol=1e-3, atol=1e-4)]
        if not check(f"{title}: chunk {i}", not wrong, f"outputs {wrong}"):
            return
        behind = [m[:, :, caches.length:] for m in caches.memory.values()]
        check(f"{title}: memory behind chunk {i}", all((b == MARK).all() for b in behind))


def forms():
    for form in ("concat", "group"):
        model = decoder.decoder(CONFIG, form)
        for level in ("-O3", "-O0"):
            compiled = burin.compile(model, flags=[f"--cache={ROOM}", level])
            for chunks in CHUNKS:
                generate(f"{form} {level} {chunks}", model, compiled, form, 1, chunks)
            # ONNX Runtime's GroupQueryAttention takes several tokens of several sequences only at the start
            generate(f"{form} {level} two", model, compiled, form, 2, CHUNKS[0] if form == "concat" else [20, 1, 1, 1])
        if form == "concat":
            generate("concat padded", model, compiled, form, 2, CHUNKS[0], padded=3)
        texts(form, model)


def texts(form, model):
    """Graph and program say which caches are in place."""
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder)
        (path / "m.onnx").write_bytes(model.SerializeToString())
        for kind in ("graph", "loop"):
            done = run(BURIN, path / "m.onnx", f"--cache={ROOM}", f"--emit={kind}", "-o", path / f"m.{kind}")
            check(f"{form} as {kind}", done.returncode == 0, done.stderr)
            done = run(BURIN, path / f"m.{kind}", "--emit=shared", "--name=m", "-o", path / f"{kind}.so", "--quiet")
            check(f"{form} from a {kind}", done.returncode == 0, done.stderr)


def program():
    """examples/generate: the same tokens as ONNX Runtime, greedily."""
    if not shutil.which("cmake") or not shutil.which("ninja"):
        return skip("examples/generate", "no cmake and ninja")
    for form in ("concat", "group"):
        model = decoder.decoder(CONFIG, form)
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            path = Path(folder)
            (path / "m.onnx").write_bytes(model.SerializeToString())
            done = run("cmake", "-S", ROOT / "examples/generate", "-B", path / "b", "-G", "Ninja", f"-DBURIN={BURIN}", f"-DMODEL={path}/m.onnx",
                       f"-DCACHE={ROOM}")
            done = done if done.returncode else run("cmake", "--build", path / "b")
            if not check(f"{form}: build of examples/generate", done.returncode == 0, done.stdout + done.stderr):
                continue
            prompt = [3, 1, 4, 1, 5]
            done = run(path / "b/generate", 30, "--threads=2", *prompt)
            check(f"{form}: tokens of examples/generate", done.stdout.split() == greedy(model, form, prompt, 30), done.stdout + done.stderr)
            full = run(path / "b/generate", ROOM, *prompt)
            check(f"{form}: full caches", full.returncode == 1 and "caches are full" in full.stderr, full.stderr)
            again = [run(path / "b/generate", 20, "--top=8", "--seed=5", *prompt).stdout for _ in range(2)]
            check(f"{form}: a seed decides", again[0] == again[1] and len(again[0].split()) == 20, again)


def greedy(model, form, prompt, count):
    reference, ids, total, tokens = Reference(model, 1), np.array([prompt]), 0, []
    for _ in range(count):
        total += ids.shape[1]
        logits = reference.run(feeds_of(form, ids, np.ones((1, total), np.int64)))[0]
        ids = logits[:, -1:].argmax(-1)
        tokens.append(str(ids[0, 0]))
    return tokens


def axes():
    """A running buffer along each axis, whose sum is an output, too."""
    for axis in range(3):
        shape = [2, 3, 5]
        past, total = ([("p" if d == axis else n) for d, n in enumerate(shape)], ["t" if d == axis else n for d, n in enumerate(shape)])
        nodes = [helper.make_node("Mul", ["x", "x"], ["new"]), helper.make_node("Concat", ["past", "new"], ["all"], axis=axis),
                 helper.make_node("ReduceSum", ["all"], ["sum"], keepdims=0)]
        tensor = lambda n, s: helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        graph = helper.make_graph(nodes, "g", [tensor("past", past), tensor("x", ["n" if d == axis else k for d, k in enumerate(shape)])],
                                  [tensor("all", total), tensor("sum", [])])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        compiled = burin.compile(model, flags=["--cache=9"])
        caches, held, rng = compiled.caches(), np.zeros([0 if d == axis else n for d, n in enumerate(shape)], np.float32), np.random.default_rng(axis)
        for n in (1, 4, 0, 2):
            x = rng.standard_normal([n if d == axis else k for d, k in enumerate(shape)], np.float32)
            held = np.concatenate([held, x * x], axis)
            got = compiled.run({"x": x}, caches=caches)
            check(f"axis {axis}, {n} more", np.array_equal(got[0], held) and np.allclose(got[1], held.sum()))
        refused(f"axis {axis}", compiled, caches, held, axis)
        as_program(f"axis {axis}", model, held, rng.standard_normal([2 if d == axis else k for d, k in enumerate(shape)], np.float32), axis)


def as_program(title, model, past, x, axis):
    """The past comes from a file and has no more room than any; what is written is what the run left."""
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder)
        (path / "m.onnx").write_bytes(model.SerializeToString())
        for name, v in (("past", past), ("x", x), ("all", np.concatenate([past, x * x], axis))):
            np.save(path / f"{name}.npy", v)
        given = ["--input", f"past=@{path}/past.npy", "--input", f"x=@{path}/x.npy"]
        done = run(BURIN, "run", path / "m.onnx", "--cache=9", *given, "--expect", f"all=@{path}/all.npy", "--output", f"all=@{path}/got.npy", "--rtol=0", "--atol=0", "--check-memory")
        check(f"{title}: run", done.returncode == 0 and np.array_equal(np.load(path / "got.npy"), np.load(path / "all.npy")), done.stdout + done.stderr)
        for flags in (given, []):
            done = run(BURIN, "bench", path / "m.onnx", "--cache=9", "--runs=3", "--profile", *flags)
            check(f"{title}: bench", done.returncode == 0 and "3 runs" in done.stdout, done.stdout + done.stderr)
        done = run(BURIN, "run", path / "m.onnx", "--cache=3", *given)
        check(f"{title}: more than there is room for", done.returncode == 1 and "must be at most 3" in done.stderr, done.stdout + done.stderr)


def refused(title, compiled, caches, held, axis):
    more = np.zeros([3 if d == axis else n for d, n in enumerate(held.shape)], np.float32)
    before = caches.view(0, 7).copy()
    try:
        compiled.run({"x": more}, caches=caches)
        check(f"{title}: beyond the room", False)
    except burin.RunError as e:
        check(f"{title}: beyond the room", "must be at most 9" in str(e) and e.values[:2] == (10, 9), e)
    check(f"{title}: a refused run leaves the cache", np.array_equal(before, caches.view(0, 7)) and caches.length == 7)
    caches.length = 2
    got = compiled.run({"x": more}, caches=caches)[0]
    want = np.concatenate([held.swapaxes(0, axis)[:2].swapaxes(0, axis), more * more], axis)
    check(f"{title}: cut and gone on", np.array_equal(got, want))


def usage():
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder) / "m.onnx"
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
        graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
        path.write_bytes(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
        for flags, text in ((["--emit=obj"], "there is no cache"), ([], "there is no cache"), (["--emit=graph", "--target=cuda:host"], "are for CPUs"),
                            (["--emit=obj", "--cache=0"], "--cache")):
            done = run(BURIN, path, "--cache=4", *flags, "-o", Path(folder) / "o")
            check(f"refused {flags}", done.returncode != 0 and text in done.stderr, done.stderr)


forms()
axes()
usage()
program()
sys.exit(finish())
