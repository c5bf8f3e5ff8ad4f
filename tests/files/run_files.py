#!/usr/bin/env python3
"""Part "files": what the compiler and compiled programs do to files. Outputs follow links, devices and FIFOs, replace no
input, come all or none; nothing is left behind by errors, full disks and signals; what cannot be read or printed is an error
with the documented status; graph text and external weights carry what they need."""
import json
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
BURIN = os.environ.get("BURIN", str(ROOT / "build/burin"))
counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(name, ok, detail=""):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print(f"FAILED {name}: {str(detail)[:400]}")
    return ok


def skip(name, why):
    counts["skipped"] += 1
    print(f"skipped {name}: {why}")


def run(*command, timeout=60, **kw):
    kw = {"capture_output": True, "text": True, "errors": "replace", **kw}
    return subprocess.run([str(c) for c in command], timeout=timeout, **kw)


def burin(*args, **kw):
    return run(BURIN, *args, **kw)


def make_model(path, nodes, inputs, outputs, weights=()):
    def infos(values):
        return [helper.make_tensor_value_info(n, t, s) for n, t, s in values]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), [numpy_helper.from_array(w, n) for n, w in weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def no_leftovers(name, folder):
    left = [f for f in os.listdir(folder) if f.startswith((".burin", "burin-")) or ".tmp" in f or f.endswith(".part")]
    return check(f"{name}: nothing is left", not left, left)


# ---- what is there, followed by the compiler (True) and by a compiled program (False) -----------------

class Writer:
    """Writes a file in one of the two ways."""

    def __init__(self, name, command, suffix):
        self.name, self.command, self.suffix = name, command, suffix

    def __call__(self, path, **kw):
        return run(*[c.replace("OUT", str(path)) for c in self.command], **kw)


def test_follow(w, d):
    out = d / f"plain{w.suffix}"
    r = w(out)
    check(f"{w.name}: writes", r.returncode == 0 and out.stat().st_size > 60, r.stderr)
    want = out.read_bytes()
    out.write_bytes(b"old")
    out.chmod(0o640)
    r = w(out)
    mode = stat.S_IMODE(out.stat().st_mode) & ~0o111
    check(f"{w.name}: keeps the mode", r.returncode == 0 and mode == 0o640 and out.read_bytes() == want, oct(mode))
    link, target = d / f"link{w.suffix}", d / f"target{w.suffix}"
    link.symlink_to(target.name)
    r = w(link)
    check(f"{w.name}: dangling link", r.returncode == 0 and link.is_symlink() and target.read_bytes() == want, r.stderr)
    target.write_bytes(b"old")
    r = w(link)
    check(f"{w.name}: link", r.returncode == 0 and link.is_symlink() and target.read_bytes() == want, r.stderr)
    loop = d / f"loop{w.suffix}"
    loop.symlink_to(loop.name)
    check(f"{w.name}: link to itself", w(loop).returncode == 4)
    for old, new in (("OUT.part", "x"), ("OUT.tmp", "y")):
        victim = d / "victim"
        victim.write_text("precious")
        Path(old.replace("OUT", str(out))).symlink_to(victim)
        w(out)
        check(f"{w.name}: no known temporary name ({new})", victim.read_text() == "precious")
        Path(old.replace("OUT", str(out))).unlink()
    return want


def test_streams(w, d, want):
    raw = want if w.name == "compiler" else want[-24:]  # no suffix: raw bytes
    r = run(*[c.replace("OUT", "-") for c in w.command], text=False, errors=None)
    check(f"{w.name}: -", r.returncode == 0 and len(r.stdout) == len(raw), r.stderr)
    with open(d / "stdout", "wb") as f:
        r = run(*[c.replace("OUT", "/dev/stdout") for c in w.command], capture_output=False, stdout=f)
    check(f"{w.name}: /dev/stdout in a file", r.returncode == 0 and (d / "stdout").stat().st_size == len(raw))
    fifo = d / "fifo"
    os.path.exists(fifo) or os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()), daemon=True)
    reader.start()
    r = w(fifo)
    reader.join(20)
    check(f"{w.name}: FIFO", r.returncode == 0 and got and len(got[0]) == len(raw) and stat.S_ISFIFO(fifo.stat().st_mode))
    r = w("/dev/full")
    check(f"{w.name}: /dev/full", r.returncode == 4 and "no space" in r.stderr and stat.S_ISCHR(os.stat("/dev/full").st_mode), r.stderr)
    node = d / "null"
    try:
        node.exists() or os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        return skip(f"{w.name}: device", "mknod is for root")
    r = w(node)
    return check(f"{w.name}: device", r.returncode == 0 and stat.S_ISCHR(node.stat().st_mode), r.stderr)


def test_bad_places(w, d):
    (d / "folder").mkdir(exist_ok=True)
    (d / "file").write_text("x")
    long = "n" * 300
    cases = [("folder", "directory"), ("none/x", "folder does not exist"), ("file/x", "not a directory"), (long, "too long")]
    for place, text in cases:
        r = w(d / f"{place}{w.suffix if place != 'folder' else ''}")
        check(f"{w.name}: {place[:20]}", r.returncode == 4 and text in r.stderr, f"{r.returncode} {r.stderr}")
    r = w(d / f"limited{w.suffix}", preexec_fn=lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_FSIZE, (16, 16)))
    check(f"{w.name}: full", r.returncode == 4 and not (d / f"limited{w.suffix}").exists(), f"{r.returncode} {r.stderr}")
    if os.geteuid() != 0:
        (d / "folder").chmod(0o555)
        check(f"{w.name}: read-only folder", w(d / f"folder/x{w.suffix}").returncode == 4)
    no_leftovers(w.name, d)


def test_foreign_link(writers, d):
    """In a folder that all may write to, only one's own links count, as for the kernel."""
    if os.geteuid() != 0:
        return skip("foreign link", "chown is for root")
    shared = d / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    victim = d / "not_ours"
    victim.write_text("precious")
    for w in writers:
        link = shared / f"link{w.suffix}"
        link.symlink_to(victim)
        os.lchown(link, 12345, 12345)
        r = w(link)
        check(f"{w.name}: foreign link", r.returncode == 4 and victim.read_text() == "precious", f"{r.returncode} {r.stderr}")


def test_named_temporaries(d, program):
    """Without /proc files without names cannot be published: random names, and signals wait."""
    root = d / "root"
    root.mkdir()
    (root / "program").write_bytes(program.read_bytes())
    (root / "program").chmod(0o755)
    (root / "x.npy").write_bytes((d / "x.npy").read_bytes())
    command = ["chroot", root, "/program", "--input", "x=@/x.npy", "--output", "y=@/y.npy"]
    if run("chroot", root, "/program", "--help").returncode:
        return skip("named temporary files", "chroot is for root")
    r = run(*command)
    check("named temporary files", r.returncode == 0 and np.load(root / "y.npy").max() == 3, r.stderr)
    (root / "y.npy").unlink()
    (root / "y.npy").symlink_to("z.npy")
    r = run(*command)
    check("named temporary files, link", r.returncode == 0 and np.load(root / "z.npy").max() == 3 and (root / "y.npy").is_symlink(), r.stderr)
    for sig in (signal.SIGTERM, signal.SIGINT) * 8:
        p = subprocess.Popen([str(c) for c in command], stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, 0.004))
        p.send_signal(sig)
        p.wait(20)
        check("named temporary files, signal", np.load(root / "z.npy").max() == 3)
        no_leftovers("named temporary files", root)


def test_small_disk(writers, d):
    disk = d / "disk"
    disk.mkdir()
    if run("mount", "-t", "tmpfs", "-o", "size=12k", "none", disk).returncode:
        return skip("small disk", "mount is not allowed")
    try:
        for w in writers:
            for old in (False, True):
                out = disk / f"y{w.suffix}"
                if old:
                    out.write_bytes(b"old")
                (disk / "filler").write_bytes(b"\0" * 8192)
                if w.name == "program":
                    (disk / "more").write_bytes(b"\0" * (0 if old else 4096))
                r = w(out)
                full = r.returncode == 4 and (out.read_bytes() == b"old" if old else not out.exists())
                check(f"{w.name}: full disk, old={old}", full or (w.name == "program" and r.returncode == 0), f"{r.returncode} {r.stderr}")
                no_leftovers(w.name, disk)
                for f in os.listdir(disk):
                    (disk / f).unlink()
    finally:
        run("umount", disk)


# ---- the compiler -----------------------------------------------------------------------------------

def test_inputs_kept(d, model, program):
    before = model.read_bytes()
    link, hard = d / "model_link.onnx", d / "hard.onnx"
    link.symlink_to(model.name)
    os.link(model, hard)
    for out in (model, link, hard):
        r = burin(model, "-q", "-o", out)
        check(f"compile over {out.name}", r.returncode == 4 and "input" in r.stderr and model.read_bytes() == before, r.stderr)
    r = burin(model, "--const", f"x=@{d}/x.npy", "-q", "-o", d / "x.npy")
    check("compile over a constant", r.returncode == 4 and np.load(d / "x.npy").shape == (2, 3), r.stderr)
    for name in ("x.npy", "x_link.npy"):
        if name != "x.npy":
            (d / name).symlink_to("x.npy")
        r = run(program, "--input", f"x=@{d}/x.npy", "--output", f"y=@{d}/{name}")
        check(f"run over {name}", r.returncode == 4 and np.load(d / "x.npy").min() == -2, r.stderr)
    r = burin("run", "--interpret", model, "--input", f"x=@{d}/x.npy", "--output", f"y=@{d}/x.npy")
    check("interpret over the input", r.returncode == 4 and np.load(d / "x.npy").min() == -2, r.stderr)
    r = run(program, "--input", f"x=@{d}/x.npy", "--output", f"y=@{program}")
    check("run over the program", r.returncode == 4)


def test_all_or_none(d, model):
    stem = d / "pair"
    (d / "pair.h").mkdir()
    (d / "pair.o").write_text("old")
    r = burin(model, "-q", "--emit=obj,header", "-o", stem)
    check("obj and header: none", r.returncode == 4 and (d / "pair.o").read_text() == "old", r.stderr)
    (d / "pair.h").rmdir()
    r = burin(model, "-q", "--emit=obj,header", "-o", stem)
    check("obj and header: all", r.returncode == 0 and (d / "pair.h").is_file() and (d / "pair.o").stat().st_size > 100)
    r = burin(model, "-q", "--emit=obj,header", "-o", "-", cwd=d)
    check("two files in one stream", r.returncode == 2 and not (d / "-.o").exists(), r.stderr)
    no_leftovers("pair", d)


def test_reading(d, program):
    os.path.exists(d / "fifo") or os.mkfifo(d / "fifo")
    for bad in (d / "fifo", "/dev/zero", d, "/dev/null"):
        for args in ([bad, "-o", d / "never"], ["inspect", bad], ["run", bad], ["diff", bad, bad]):
            if args[0] == "diff" and os.path.isdir(bad):
                continue
            r = burin(*args, timeout=20)
            check(f"burin {args[0]} {bad}", r.returncode == 3 and not (d / "never").exists(), f"{r.returncode} {r.stderr}")
        r = run(program, "--input", f"x=@{bad}", timeout=20)
        check(f"program reads {bad}", r.returncode == 3, f"{r.returncode} {r.stderr}")
    r = burin("-", "-o", d / "never", stdin=subprocess.DEVNULL)
    check("burin -", r.returncode == 2 and "standard input" in r.stderr, r.stderr)


def test_stdout(d, model, program):
    full = open("/dev/full", "w")
    commands = [[BURIN, "--help"], [BURIN, "--version"], [BURIN, "--list-passes"], [BURIN, "--list-targets"], [BURIN, "inspect", model],
                [BURIN, "inspect", "--json", model], [BURIN, model, "--emit=graph"], [BURIN, model, "--emit=loop"],
                [BURIN, model, "--print-ir-after=all", "-q", "-o", d / "out"], [BURIN, "diff", d / "x.npy", d / "x.npy"],
                [BURIN, "run", "--interpret", model, "--input", f"x=@{d}/x.npy"], [BURIN, "run", model, "--input", f"x=@{d}/x.npy"],
                [program, "--help"], [program, "--info"], [program, "--input", f"x=@{d}/x.npy"], [program, "--bench=2"]]
    for c in commands:
        r = run(*c, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        check(f"{' '.join(map(str, c[1:3]))} > /dev/full", r.returncode == 4 and "standard output" in r.stderr, f"{r.returncode} {r.stderr}")
        r = run("sh", "-c", '"$@" >&-', "sh", *c)
        check(f"{' '.join(map(str, c[1:3]))} >&-", r.returncode == 4, f"{r.returncode} {r.stderr}")


def slow_model(path, n=40):
    """Kernels that differ: seconds of LLVM."""
    rng = np.random.default_rng(0)
    names = [f"w{i}" for i in range(n)]
    nodes = [helper.make_node("MatMul", [f"t{i}", names[i]], [f"t{i + 1}"]) for i in range(n)]
    sizes = [int(rng.integers(20, 90)) for _ in range(n + 1)]
    weights = [(names[i], rng.normal(size=(sizes[i], sizes[i + 1])).astype(np.float32)) for i in range(n)]
    make_model(path, nodes, [("t0", 1, [7, sizes[0]])], [(f"t{n}", 1, [7, sizes[n]])], weights)


def test_killed(d):
    """At random moments: nothing is left, and what was there is whole."""
    folder = d / "killed"
    folder.mkdir()
    model = d / "slow.onnx"
    slow_model(model)
    out = folder / "m"
    start = time.monotonic()
    r = burin(model, "-q", "-O1", "-o", out)
    took = time.monotonic() - start
    check("slow model", r.returncode == 0, r.stderr)
    good, rng = out.read_bytes(), random.Random(1)
    for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP) * 3:
        p = subprocess.Popen([BURIN, str(model), "-q", "-O1", "-o", str(out)], stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, 1.2 * took))
        p.send_signal(sig)
        p.wait(60)
        check(f"killed by {sig}: whole", out.read_bytes() == good and p.returncode in (0, -sig), p.returncode)
        check(f"killed by {sig}: alone", os.listdir(folder) == ["m"], os.listdir(folder))
    temp = d / "tmp"
    temp.mkdir()
    for sig in (signal.SIGTERM, signal.SIGKILL):
        p = subprocess.Popen([BURIN, "diff", str(model), "--input", "t0=1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env={**os.environ, "TMPDIR": str(temp)})
        time.sleep(rng.uniform(0.05, took))
        p.send_signal(sig)
        p.wait(60)
        check(f"diff, {sig}: nothing left", os.listdir(temp) == [], os.listdir(temp))
    check("no temporary folder is needed", burin(model, "-q", "-O0", "-o", out, env={**os.environ, "TMPDIR": "/none"}).returncode == 0)


def test_two_at_once(d, model):
    folder = d / "both"
    folder.mkdir()
    out = folder / "m"
    alone = []
    for level in ("-O0", "-O3"):
        burin(model, "-q", level, "-o", out)
        alone.append(out.read_bytes())
    for _ in range(4):
        both = [subprocess.Popen([BURIN, str(model), "-q", level, "-o", str(out)]) for level in ("-O0", "-O3")]
        status = [p.wait(60) for p in both]
        check("two at once", status == [0, 0] and out.read_bytes() in alone, status)
    check("two at once: nothing else", os.listdir(folder) == ["m"])


def test_shrinking(d):
    """External data cut while it is mapped: exit 3."""
    data = np.random.default_rng(2).normal(size=(1024, 1024)).astype(np.float32)
    model, external = d / "shrink.onnx", d / "shrink.bin"
    make_model(model, [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", 1, [1, 1024])], [("y", 1, [1, 1024])], [("w", data)])
    m = onnx.load(str(model))
    onnx.save(m, str(model), save_as_external_data=True, location=external.name, size_threshold=0)
    whole, seen = external.read_bytes(), set()
    for k in range(8):
        external.write_bytes(whole)
        p = subprocess.Popen([BURIN, str(model), "-q", "-o", str(d / "shrunk")], stderr=subprocess.PIPE, text=True)
        time.sleep(0.004 + 0.004 * k)
        os.truncate(external, 4096)
        err = p.communicate(timeout=60)[1]
        seen.add(p.returncode)
        check("shrinking data", p.returncode in (0, 1, 3), f"{p.returncode} {err}")  # 0: was done; 1: seen too late
        check("shrinking data: no output unless whole", p.returncode == 0 or not (d / "shrunk").exists())
        (d / "shrunk").unlink(missing_ok=True)
    return seen


def test_many_tensors(d, n=300):
    model, program = d / "many.onnx", d / "many"
    nodes = [helper.make_node("Neg", [f"x{i}"], [f"y{i}"]) for i in range(n)]
    make_model(model, nodes, [(f"x{i}", 1, [2]) for i in range(n)], [(f"y{i}", 1, [2]) for i in range(n)])
    check("many tensors compile", burin(model, "-q", "-O1", "-o", program).returncode == 0)
    args = []
    (d / "y").mkdir()
    for i in range(n):
        args += ["--input", f"x{i}={i}", "--output", f"y{i}=@{d}/y/{i}.npy"]
    r = run(program, *args)
    ok = r.returncode == 0 and all((np.load(d / f"y/{i}.npy") == -i).all() for i in range(n))
    check("many tensors", ok, r.stderr)
    r = burin("run", "-O1", model, *args)
    check("many tensors: burin run", r.returncode == 0, r.stderr)
    import burin as package
    got = package.compile(model, flags=["-O1"]).run({f"x{i}": np.full(2, i, np.float32) for i in range(n)})
    check("many tensors: Python", all((got[i] == -i).all() for i in range(n)))


# ---- texts of graphs ----------------------------------------------------------------------------------

def conv_model(path, channels):
    rng = np.random.default_rng(5)
    w = rng.normal(size=(channels, 3, 3, 3)).astype(np.float32)
    b = rng.normal(size=channels).astype(np.float32)
    v = rng.normal(size=(channels, channels, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["t"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["t"], ["u"]),
             helper.make_node("Conv", ["u", "v"], ["y"])]
    make_model(path, nodes, [("x", 1, [1, 3, 9, 9])], [("y", 1, [1, channels, 9, 9])], [("w", w), ("b", b), ("v", v)])


def text_models(d):
    """Loops that count, indices that are data, an If whose branches need sizes, convolutions under an elementwise chain."""
    rng = np.random.default_rng(2)
    f32 = lambda *s: rng.normal(size=s).astype(np.float32)  # noqa: E731
    make_model(d / "lstm.onnx", [helper.make_node("Gather", ["table", "i"], ["e"]),
                                 helper.make_node("LSTM", ["e", "W", "R"], ["y"], hidden_size=8, direction="bidirectional")],
               [("i", 7, ["n", "b"])], [("y", 1, ["n", 2, "b", 8])], [("table", f32(20, 5)), ("W", f32(2, 32, 5)), ("R", f32(2, 32, 8))])
    branch = [helper.make_graph([helper.make_node("Reshape", ["x", f"to{k}"], [f"r{k}"])], f"b{k}", [],
                                [helper.make_tensor_value_info(f"r{k}", 1, None)]) for k in (3, 4)]
    make_model(d / "if.onnx", [helper.make_node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1])],
               [("x", 1, ["n"]), ("c", 9, [])], [("y", 1, None)], [("to3", np.array([-1, 3])), ("to4", np.array([-1, 4]))])
    make_model(d / "chain.onnx", [helper.make_node("Conv", ["x", "W"], ["a"], pads=[1, 1, 1, 1]), helper.make_node("Sigmoid", ["a"], ["b"]),
                                  helper.make_node("Mul", ["a", "b"], ["c"]), helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["e"]),
                                  helper.make_node("MaxPool", ["e"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
               [("x", 1, ["n", 3, 12, 12])], [("y", 1, ["n", 6, 6, 6])],
               [("W", f32(6, 3, 3, 3)), ("scale", f32(6)), ("bias", f32(6)), ("mean", f32(6)), ("var", f32(6) ** 2)])
    return [d / "lstm.onnx", d / "if.onnx", d / "chain.onnx"]


def test_text_is_model(d):
    """What is compiled from a text is what is compiled from its model, and its text is itself."""
    for model in text_models(d):
        text, again = d / f"{model.stem}.ir", d / "again.ir"
        a, b = burin(model, "-q", "--emit=graph", "-o", text), burin(text, "-q", "--emit=graph", "-o", again)
        check(f"text of {model.stem}: a fixed point", a.returncode == b.returncode == 0 and text.read_text() == again.read_text(), a.stderr + b.stderr)
        programs = []
        for source in (model, text):
            r = burin(source, "-q", "--emit=obj", "--name=m", "-o", d / "from.o")
            programs.append((r.returncode, (d / "from.o").read_bytes() if r.returncode == 0 else r.stderr))
        check(f"text of {model.stem}: the same code", programs[0] == programs[1] and programs[0][0] == 0, str(programs)[:200])


def test_graph_text(d):
    for channels, beside in ((6, False), (96, True)):  # weights in the text, and in a file beside it
        model, text = d / f"conv{channels}.onnx", d / f"conv{channels}.txt"
        conv_model(model, channels)
        r = burin(model, "-q", "--emit=graph", "-o", text)
        weights = Path(f"{text}.weights")
        check("text: written", r.returncode == 0 and weights.exists() == beside, r.stderr)
        a = burin(model, "-q", "--name=m", "-o", d / "from_model")
        b = burin(text, "-q", "--name=m", "-o", d / "from_text")
        same = (d / "from_model").read_bytes() == (d / "from_text").read_bytes()
        check("text: the same program", a.returncode == 0 and b.returncode == 0 and same, b.stderr)
        check("text: a fixed point", burin(text, "-q", "--emit=graph", "-o", d / "again.txt").returncode == 0 and
              (d / "again.txt").read_text().replace("again", f"conv{channels}") == text.read_text())
        r = burin(text, "--dim", "n=1", "-o", d / "never")
        check("text: --dim", r.returncode == 2 and "--dim" in r.stderr, r.stderr)
    data = weights.read_bytes()
    for damage, status, what in ((data[:-1], 1, "bytes"), (data[:-1] + bytes([data[-1] ^ 1]), 1, "hash"), (None, 3, "open")):
        weights.unlink()
        if damage is not None:
            weights.write_bytes(damage)
        for command in ([text, "-o", d / "never"], ["run", text], ["run", "--interpret", text, "--input", "x=1x3x9x9xf32=1"], ["inspect", text]):
            r = burin(*command)
            check(f"text: weights damaged ({what})", r.returncode == status and what in r.stderr and not (d / "never").exists(), f"{r.returncode} {r.stderr}")
    elsewhere = text.read_text().replace(f'weights "{weights.name}"', 'weights "../x"')
    (d / "elsewhere.ir").write_text(elsewhere)
    r = burin(d / "elsewhere.ir", "-o", d / "never")
    check("text: weights elsewhere", r.returncode == 3, f"{r.returncode} {r.stderr}")
    printed = burin(model, "--emit=graph", "-q").stdout
    check("text: printed without data says so", printed.endswith("data none\n"), printed[-60:])
    bare = "\n".join(line for line in printed.splitlines() if line != "data none")
    for name, content, word in (("none.ir", printed, "data none"), ("bare.ir", bare, "has no data")):
        (d / name).write_text(content)
        for command in ([d / name, "-o", d / "never"], ["run", d / name], ["run", "--interpret", d / name, "--input", "x=1x3x9x9xf32=1"], ["diff", d / name]):
            r = burin(*command)
            check(f"text: {name} is no program", r.returncode == 1 and word in r.stderr and not (d / "never").exists(), f"{r.returncode} {r.stderr}")
    r = burin(d / "none.ir", "--passes=cse", "--emit=graph")
    check("text: passes on a text without data", r.returncode == 0 and "data none" in r.stdout, r.stderr)
    for passes, missing in (("infer,expand", "lower"), ("lower", "expand_math"), ("lower,expand_math", "plan_memory"),
                            ("lower,expand_math,plan_memory,rotate_states", "plan_memory"), ("lower,plan_memory,expand_math", None)):
        r = burin(model, f"--passes={passes}", "-q", "-o", d / "by_hand")
        said = f"add {missing} before" in r.stderr if missing else True
        check(f"passes for code: {passes}", r.returncode == (2 if missing else 0) and said and (d / "by_hand").exists() == (not missing), f"{r.returncode} {r.stderr}")
    r = burin(d / "none.ir", "-q", "--emit=graph", "-o", d / "none_again.ir")
    check("text: and it stays without", r.returncode == 0 and "data none" in (d / "none_again.ir").read_text(), r.stderr)
    r = burin(model, "-q", "--ir-dir", d / "irs", "-o", d / "from_model")
    dumps = sorted((d / "irs").glob("*_input.txt")) + sorted((d / "irs").glob("*_fuse.txt"))
    for f in dumps:
        r = burin(f, "-o", d / "never")
        check(f"text: dump {f.name}", r.returncode == 1 and not (d / "never").exists(), f"{r.returncode} {r.stderr}")


# ---- weights in a file --------------------------------------------------------------------------------

def test_external_weights(d):
    import burin as package
    from burin import _abi
    model, program = d / "external.onnx", d / "external"
    conv_model(model, 96)
    x = np.random.default_rng(1).normal(size=(1, 3, 9, 9)).astype(np.float32)
    np.save(d / "x_conv.npy", x)
    want = package.compile(model).run({"x": x})[0]
    np.save(d / "want_conv.npy", want)
    r = burin(model, "-q", "--weights=external", "-o", program)
    weights = Path(f"{program}.weights")
    command = [program, "--input", f"x=@{d}/x_conv.npy", "--expect", f"y=@{d}/want_conv.npy", "--rtol", "0", "--atol", "0"]
    check("external weights: program", r.returncode == 0 and run(*command).returncode == 0, r.stderr)
    data = bytearray(weights.read_bytes())
    r = run(program, "--input", f"x=@{d}/x_conv.npy", "--output", f"y=@{weights}")
    check("external weights: not overwritten", r.returncode in (2, 4) and weights.read_bytes() == data, r.stderr)
    for name, change in (("changed", lambda b: b.__setitem__(100, b[100] ^ 1)), ("short", lambda b: b.pop()), ("long", lambda b: b.append(0))):
        bad = bytearray(data)
        change(bad)
        weights.write_bytes(bad)
        r = run(*command)
        check(f"external weights: {name}", r.returncode == 3 and "not the weights" in r.stderr, f"{r.returncode} {r.stderr}")
    weights.unlink()
    check("external weights: none", run(*command).returncode == 3)
    got = package.compile(model, flags=["--weights=external"]).run({"x": x})[0]
    check("external weights: Python", np.array_equal(got, want))
    library = d / "external.so"
    burin(model, "-q", "--weights=external", "--emit=shared", f"--name={_abi.NAME}", "-o", library)
    mapped = package.Model._map_weights
    try:
        package.Model._map_weights = lambda *a: None
        package.Model(str(library)).run({"x": x})
        check("external weights: a run without them", False)
    except package.RunError as e:
        check("external weights: a run without them", e.status == 16, e)
    finally:
        package.Model._map_weights = mapped


# ---- formats ----------------------------------------------------------------------------------------

JPEG = bytes.fromhex(  # 8x4, gray, all about 100
    "ffd8ffe000104a46494600010100000100010000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c"
    "0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffc0000b080004000801011100ffc4001400010000"
    "0000000000000000000000000007ffc40014100100000000000000000000000000000000ffda0008010100003f00347fffd9")


def test_formats(d, program):
    model, values = d / "pictures.onnx", d / "values.onnx"
    make_model(model, [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
               [("x", 1, [1, 3, "h", "w"])], [("y", 1, [1, 3, "h", "w"]), ("z", 1, [1, 3, "h", "w"])])
    picture, program2 = d / "gray.jpg", d / "pictures"
    picture.write_bytes(JPEG)
    (d / "gray.dat").write_bytes(JPEG)
    r = burin("run", model, "--input", f"x=@{d}/gray.dat,scale=1/255", "--output", f"y=@{d}/gray.npy")
    got = np.load(d / "gray.npy") if r.returncode == 0 else np.zeros(1)
    check("JPEG is read, whatever its name", got.shape == (1, 3, 4, 8) and abs(got * 255 - 100).max() < 3, r.stderr)
    r = burin("run", model, "--input", f"x=@{d}/gray.npy", "--output", f"y=@{d}/y.png", "--output", f"z=@{d}/z.json")
    again = burin("run", model, "--input", f"x=@{d}/y.png,scale=1/255", "--expect", f"y=@{d}/gray.npy", "--atol", "0.002")
    check("PNG is written", r.returncode == 0 and again.returncode == 0, r.stderr + again.stdout + again.stderr)
    z = json.loads((d / "z.json").read_text()) if r.returncode == 0 else {}
    check("JSON is written", z.get("shape") == [1, 3, 4, 8] and np.allclose(np.array(z["data"]), -got), z.get("shape"))
    burin(model, "-q", "-o", program2)
    for name in ("gray.jpg", "gray.dat"):
        r = run(program2, "--input", f"x=@{d}/{name}")
        check(f"program refuses {name}", r.returncode == 3 and "JPEG is not read here" in r.stderr, r.stderr)
    picture.write_bytes(JPEG[: len(JPEG) // 2])
    r = burin("run", model, "--input", f"x=@{picture}")
    check("damaged JPEG", r.returncode == 3 and "JPEG" in r.stderr, f"{r.returncode} {r.stderr}")
    x = np.array([[-2, -1.5, 0], [1 / 3, 1e9, 3]], np.float32)
    np.save(d / "some.npy", x)
    make_model(values, [helper.make_node("Neg", ["x"], ["y"])], [("x", 1, [2, 3])], [("y", 1, [2, 3])])
    for how in ([], ["--interpret"]):
        for ending in ("csv", "json", "npy", "raw"):
            out = d / f"some_out.{ending}"
            r = burin("run", *how, values, "--input", f"x=@{d}/some.npy", "--output", f"y=@{out}")
            read = {"csv": lambda f: np.loadtxt(f, delimiter=",", dtype=np.float32), "npy": np.load,
                    "json": lambda f: np.array(json.loads(f.read_text())["data"], np.float32),
                    "raw": lambda f: np.fromfile(f, np.float32).reshape(2, 3)}[ending]
            check(f"run {how} writes {ending}", r.returncode == 0 and np.array_equal(read(out), -x), r.stderr)
        for ending in ("jpg", "txt", "npz", "xlsx", "onnx"):
            out = d / f"refused.{ending}"
            r = burin("run", *how, values, "--input", f"x=@{d}/some.npy", "--output", f"y=@{out}")
            check(f"run {how} refuses {ending}", r.returncode == 2 and not out.exists(), f"{r.returncode} {r.stderr}")
    for ending in ("csv", "json", "png", "jpg", "txt", "npz"):
        out = d / f"refused.{ending}"
        r = run(program, "--input", f"x=@{d}/x.npy", "--output", f"y=@{out}")
        check(f"program refuses {ending}", r.returncode == 2 and "only" in r.stderr and not out.exists(), f"{r.returncode} {r.stderr}")
    np.save(d / "some.npy", np.array([[1, 2, np.nan], [1, 2, 3]], np.float32))
    for first, second in (("n.npy", "n.json"), ("n.raw", "n.png")):
        make_model(values, [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])], [("x", 1, [2, 3])],
                   [("y", 1, [2, 3]), ("z", 1, [2, 3])])
        r = burin("run", values, "--input", f"x=@{d}/some.npy", "--output", f"y=@{d}/{first}", "--output", f"z=@{d}/{second}")
        check(f"{second} of NaN: none is written", r.returncode == 5 and not (d / first).exists() and not (d / second).exists(), r.stderr)
    burin("run", "-q", values, "--input", f"x=@{d}/x.npy", "--output", f"y=@{d}/o.csv", env={**os.environ, "TMPDIR": str(d)})
    no_leftovers("formats", d)


# ---- small stacks -----------------------------------------------------------------------------------

STACK = """
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "s.h"
static unsigned char arena[1 << 22] __attribute__((aligned(64)));
static char stack[1 << 18] __attribute__((aligned(4096)));
static int32_t run(void) {
  static float x[3 * 9 * 9], y[96 * 9 * 9];
  s_inputs in; s_outputs out;
  *(const float **)&in = x; *(float **)&out = y;
  return s_run(&in, &out, arena);
}
static void *nothing(void *p) { return p; }
static void *work(void *p) { *(int *)p = run(); return p; }
static long used(void *(*fn)(void *), int *status) {
  pthread_t t; pthread_attr_t a;
  memset(stack, 0x5a, sizeof stack);
  pthread_attr_init(&a);
  pthread_attr_setstack(&a, stack, sizeof stack);
  if (pthread_create(&t, &a, fn, status)) return -1;
  pthread_join(t, NULL);
  long n = 0;
  while (n < (long)sizeof stack && stack[n] == 0x5a) n++;
  return (long)sizeof stack - n;
}
int main(void) {
  int status = 0;
  run();
  const long without = used(nothing, &status), with = used(work, &status);
  printf("%d %ld %ld", status, with - without, (long)S_STACK_BYTES);
  return 0;
}
"""


def test_stacks(d, program):
    model = d / "stack.onnx"
    conv_model(model, 96)
    r = burin(model, "-q", "--emit=obj,header", "-o", d / "s")
    (d / "stack.c").write_text(STACK)
    built = run("clang-19", "-O1", d / "stack.c", d / "s.o", "-I", d, "-pthread", "-o", d / "stack")
    got = run(d / "stack").stdout.split() if built.returncode == 0 else [r.stderr, built.stderr, "0"]
    ok = built.returncode == 0 and got[0] == "0" and int(got[1]) <= int(got[2]) <= 16384
    check("a run takes no more of the stack than the header says", ok, got)
    r = run("sh", "-c", 'ulimit -s 16 && "$@"', "sh", program, "--input", f"x=@{d}/x.npy", "--output", f"y=@{d}/small.npy")
    check("program on a stack of 16 KB", r.returncode == 0 and np.load(d / "small.npy").max() == 3, r.stderr)
    for args in ([model, "--emit=loop"], ["inspect", model], ["run", "--interpret", model, "--input", "x=1x3x9x9xf32=1"]):
        # the environment lies on the stack, too, and the dynamic loader needs most of the rest
        r = run("env", "-i", "sh", "-c", 'ulimit -s 16 && "$@"', "sh", BURIN, *args)
        check(f"burin {args[0]} on a stack of 16 KB", r.returncode == 0, f"{r.returncode} {r.stderr}")
    r = run("sh", "-c", 'ulimit -s 16 && "$@"', "sh", BURIN, model, "-q", "-o", d / "small")
    check("linking on a stack of 16 KB: works or says so", r.returncode == 0 or (r.returncode == 4 and "stack" in r.stderr), r.stderr)


def test_arguments(d, model, program):
    """Nothing that was asked for is left out in silence."""
    symbolic = d / "symbolic"
    make_model(d / "symbolic.onnx", [helper.make_node("Reshape", ["x", "to"], ["y"])], [("x", 1, ["n"])], [("y", 1, None)], [("to", np.array([-1, 3]))])
    burin(d / "symbolic.onnx", "-q", "-o", symbolic)
    cases = [([program, "--input", "x=1", "--labels", d / "none"], 3, "none"), ([program, "--input", "x=1", "--input", "0=2"], 2, "twice"),
             ([symbolic, "--dim", "n=0", "--input", "x=1"], 0, ""), ([symbolic, "--dim", "n=4", "--input", "x=1"], 1, "multiple of 3"),
             ([BURIN, model, "--tune-seconds=1", "-o", d / "never"], 2, "--tune"), ([BURIN, "run", model, "-o", d / "never"], 2, "-o")]
    for command, status, word in cases:
        r = run(*command)
        check(" ".join(map(str, command[1:])), r.returncode == status and word in r.stderr, f"{r.returncode} {r.stderr}")


def main():
    with tempfile.TemporaryDirectory(prefix="burin-files-") as folder:
        d = Path(folder)
        model, program = d / "model.onnx", d / "program"
        make_model(model, [helper.make_node("Relu", ["x"], ["y"])], [("x", 1, [2, 3])], [("y", 1, [2, 3])])
        np.save(d / "x.npy", np.array([[-2, -1, 0], [1, 2, 3]], np.float32))
        r = burin(model, "-q", "-o", program)
        check("compile", r.returncode == 0, r.stderr)
        writers = [Writer("compiler", [BURIN, str(model), "-q", "--name=m", "-o", "OUT"], ""),
                   Writer("program", [str(program), "--input", f"x=@{d}/x.npy", "--output", "y=@OUT"], ".npy")]
        for w in writers:
            place = d / f"by_{w.name}"
            place.mkdir()
            test_streams(w, place, test_follow(w, place))
            test_bad_places(w, place)
        test_foreign_link(writers, d)
        test_named_temporaries(d, program)
        test_small_disk(writers, d)
        test_inputs_kept(d, model, program)
        test_all_or_none(d, model)
        test_reading(d, program)
        test_stdout(d, model, program)
        test_arguments(d, model, program)
        test_killed(d)
        test_two_at_once(d, model)
        test_shrinking(d)
        test_many_tensors(d)
        test_graph_text(d)
        test_text_is_model(d)
        test_external_weights(d)
        test_formats(d, program)
        test_stacks(d, program)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] != 0


sys.exit(main())
