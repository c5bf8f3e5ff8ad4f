"""burin train: learning, splits, checkpoints that go on to the bit, what ends a run, files it writes, the result in ONNX Runtime."""
import csv
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from moved_samples import draw, partners, random_at, sgd_step, shuffled, warped
from part import BURIN, ROOT, burin, check, finish, run, skip

WORK = Path(tempfile.mkdtemp(prefix="burin-train-"))
RNG = np.random.default_rng(7)


# ---- models and samples ----
def weights(name, *shape, scale=0.5):
    seed = zlib.crc32(name.encode())
    return numpy_helper.from_array((np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32), name)


def save(name, nodes, inputs, outputs, constants, opset=17):
    info = lambda v: helper.make_tensor_value_info(v[0], v[1], v[2])
    graph = helper.make_graph(nodes, name, [info(v) for v in inputs], [info(v) for v in outputs], constants)
    path = WORK / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def mlp(name="mlp", batch="N", last=None, features=4, classes=3, hidden=16):
    nodes = [helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
             helper.make_node("Relu", ["h"], ["r"], "relu"),
             helper.make_node("Gemm", ["r", "w2", "b2"], ["y" if not last else "logits"], "second", transB=1)]
    if last:
        nodes.append(helper.make_node(last, ["logits"], ["y"], "last"))
    constants = [weights("w1", hidden, features), weights("b1", hidden), weights("w2", classes, hidden), weights("b2", classes)]
    F = TensorProto.FLOAT
    return save(name, nodes, [("x", F, [batch, features])], [("y", F, [batch, classes])], constants)


def samples(n=300, name="data", **more):
    x = RNG.standard_normal((n, 4)).astype(np.float32)
    y = np.argmax(x[:, :3] * np.array([1, 2, 0.5], np.float32), 1).astype(np.int64)
    path = WORK / f"{name}.npz"
    np.savez(path, **{"x": x, "y": y, **more})
    return path


def train(*args, out="out.onnx", **kw):
    return burin("train", *args, "--labels=y", "--threads=1", "-o", WORK / out, **kw)


def parameters(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def same(a, b):
    x, y = parameters(a), parameters(b)
    return x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x)


def accuracy(path, data, scale=1.0):
    d = np.load(data)
    out = onnxruntime.InferenceSession(str(path)).run(None, {"x": d["x"].astype(np.float32) * scale})[0]
    return float((out.argmax(1) == d["y"]).mean()), out


def rows(path):
    with open(path) as f:
        return list(csv.DictReader(f))


# ---- learning, and what is written ----
def learns():
    model, data = mlp(), samples()
    r = train(model, f"--data={data}", "--epochs=12", "--optimizer=adam,lr=0.02", f"--log={WORK / 'log.csv'}",
              f"--curve={WORK / 'curve.png'}", f"--report={WORK / 'report.json'}")
    if not check("learns: runs", r.returncode == 0, r.stderr):
        return
    table, report = rows(WORK / "log.csv"), json.loads((WORK / "report.json").read_text())
    first, last = table[0], table[-1]
    check("learns: validation loss falls to half", float(last["validation_loss"]) < 0.5 * float(first["validation_loss"]), table)
    check("learns: a row for each epoch, and one before", [int(e["epoch"]) for e in table] == list(range(13)), table)
    check("learns: 270 samples and 30 to measure", (report["samples"], report["validation"]) == (270, 30), report)
    check("learns: parameters are counted", report["parameters"] == 16 * 4 + 16 + 3 * 16 + 3, report["parameters"])
    right, out = accuracy(WORK / "out.onnx", data)
    check("learns: most are right in ONNX Runtime", right > 0.9, right)
    np.savez(WORK / "x.npz", x=np.load(data)["x"])
    np.save(WORK / "x.npy", np.load(data)["x"])
    run(BURIN, "run", WORK / "out.onnx", "--input", f"x=@{WORK / 'x.npy'}", "--output", f"y=@{WORK / 'y.npy'}")
    check("learns: burin computes the same from it", np.allclose(np.load(WORK / "y.npy"), out, rtol=1e-4, atol=1e-5))
    measured = burin("train", WORK / "out.onnx", f"--data={data}", "--labels=y", "--epochs=0")
    check("learns: --epochs=0 measures as ONNX Runtime does", f"accuracy {100 * right:6.2f} %" in measured.stdout, measured.stdout)
    with Image.open(WORK / "curve.png") as picture:
        colours = {c for _, c in picture.convert("RGB").getcolors(1 << 20)}
        check("learns: the curve is a picture of 960 by 540", picture.format == "PNG" and picture.size == (960, 540), picture.size)
    check("learns: the curve has its colours", {(0x1f, 0x6f, 0xb4), (0xd9, 0x48, 0x0f), (0x2b, 0x8a, 0x3e)} <= colours)
    r = train(model, f"--data={data}", "--epochs=12", "--optimizer=adam,lr=0.02", out="again.onnx")
    check("learns: the same seed gives the same bits", same(WORK / "out.onnx", WORK / "again.onnx"), r.stderr)
    burin("train", model, f"--data={data}", "--labels=y", "--epochs=12", "--optimizer=adam,lr=0.02", "--threads=2", "-o", WORK / "two.onnx")
    check("learns: two threads give the same bits", same(WORK / "out.onnx", WORK / "two.onnx"))
    r = train(model, f"--data={data}", "--epochs=1", "--seed=5", out="seed.onnx")
    check("learns: another seed does not", not same(WORK / "again.onnx", WORK / "seed.onnx"), r.stderr)


def losses():
    data = samples(200, "values", t=np.zeros((200, 3), np.float32))
    x = np.load(data)["x"]
    np.savez(WORK / "mse.npz", x=x, y=np.stack([x[:, 0], x[:, 1] - x[:, 2], x[:, 3]], 1))
    r = train(mlp(), f"--data={WORK / 'mse.npz'}", "--epochs=15", "--optimizer=adam,lr=0.02", f"--log={WORK / 'mse.csv'}")
    t = rows(WORK / "mse.csv") if r.returncode == 0 else []
    check("losses: labels of floats are a regression", t and float(t[-1]["validation_loss"]) < 0.3 * float(t[0]["validation_loss"]), r.stderr or t)
    check("losses: which has no accuracy", t and t[-1]["accuracy"] == "", t)
    np.savez(WORK / "bits.npz", x=x, y=(x[:, :3] > 0).astype(np.float32))
    for last in (None, "Sigmoid"):
        r = train(mlp(f"bits{last}", last=last), f"--data={WORK / 'bits.npz'}", "--train=sigmoid_cross_entropy", "--epochs=15",
                  "--optimizer=adam,lr=0.02", f"--log={WORK / 'bits.csv'}")
        t = rows(WORK / "bits.csv") if r.returncode == 0 else []
        check(f"losses: yes and no, last {last}", t and float(t[-1]["accuracy"]) > 0.85, r.stderr or t)
    r = train(mlp("soft", last="Softmax"), f"--data={samples()}", "--epochs=12", "--optimizer=adam,lr=0.02")
    check("losses: a final Softmax stays in the model", r.returncode == 0 and accuracy(WORK / "out.onnx", WORK / "data.npz")[0] > 0.9, r.stderr)


# ---- going on ----
def resumes():
    model, data = mlp(), samples()
    args = [model, f"--data={data}", "--optimizer=adamw,lr=0.01,warmup=5", "--accumulate=2"]
    whole = train(*args, "--epochs=6", out="whole.onnx")
    train(*args, "--epochs=3", f"--checkpoint={WORK / 'half.state'}", out="half.onnx")
    r = train(*args, "--epochs=6", f"--resume={WORK / 'half.state'}", f"--log={WORK / 'resumed.csv'}", out="resumed.onnx")
    check("resume: ends at the same bits", r.returncode == 0 and same(WORK / "whole.onnx", WORK / "resumed.onnx"), r.stderr + whole.stderr)
    check("resume: the log has all epochs", r.returncode == 0 and len(rows(WORK / "resumed.csv")) == 7)
    r = train(*args, "--epochs=6", "--seed=3", f"--resume={WORK / 'half.state'}")
    check("resume: other settings are refused", r.returncode == 1 and "other settings" in r.stderr and "seed=3" in r.stderr, r.stderr)
    r = train(mlp("wide", classes=4), f"--data={data}", f"--resume={WORK / 'half.state'}")
    check("resume: another model is refused", r.returncode == 1 and "another model" in r.stderr, r.stderr)
    burin(model, f"--state={WORK / 'half.state'}", "-o", WORK / "taken.onnx")
    check("--state: the best of a checkpoint becomes a model", same(WORK / "taken.onnx", WORK / "half.onnx"))


def halves():
    """Products in 16 bits: learns, goes on to the same bits with its loss scale, and the model has its type."""
    model, data = mlp(), samples()
    for precision in ("bf16", "f16,interval=7"):
        args = [model, f"--data={data}", "--optimizer=adamw,lr=0.01", f"--precision={precision}"]
        whole = train(*args, "--epochs=6", out="whole.onnx")
        check(f"{precision}: learns", whole.returncode == 0 and accuracy(WORK / "whole.onnx", data)[0] > 0.85 and not whole.stderr, whole.stderr)
        train(*args, "--epochs=3", f"--checkpoint={WORK / 'half.state'}", out="half.onnx")
        r = train(*args, "--epochs=6", f"--resume={WORK / 'half.state'}", out="resumed.onnx")
        check(f"{precision}: ends at the same bits", r.returncode == 0 and same(WORK / "whole.onnx", WORK / "resumed.onnx"), r.stderr)
    r = train(*args[:-1], "--epochs=6", f"--resume={WORK / 'half.state'}")
    check("f16: no run in f32 goes on from it", r.returncode == 1 and "or precision" in r.stderr, r.stderr)
    r = train(*args[:-1], "--precision=f8")
    check("f8 is no precision of a step", r.returncode == 1 and "'f8'" in r.stderr, r.stderr)


def damaged():
    model, data, path = mlp(), samples(), WORK / "good.state"
    train(model, f"--data={data}", "--epochs=1", f"--checkpoint={path}")
    good, wrong = path.read_bytes(), []
    for at in list(range(0, 64, 8)) + [80, 200, len(good) // 2, len(good) - 4]:
        bad = bytearray(good)
        bad[at] ^= 0x41
        wrong.append((f"byte {at}", bytes(bad)))
    wrong += [(f"{n} bytes", good[:n]) for n in (0, 7, 63, 64, len(good) // 3, len(good) - 1)] + [("longer", good + b"\0" * 8)]
    for what, text in wrong:
        (WORK / "bad.state").write_bytes(text)
        r = burin(model, f"--state={WORK / 'bad.state'}", "-o", WORK / "damaged.onnx")
        check(f"damaged state, {what}", r.returncode == 3 and "no usable state file" in r.stderr, f"{r.returncode} {r.stderr}")
    r = train(model, f"--data={data}", f"--resume={WORK / 'bad.state'}")
    check("damaged checkpoint: no run goes on from it", r.returncode == 3 and "no usable state file" in r.stderr, f"{r.returncode} {r.stderr}")


def start(*args):
    """Signals are as in a terminal: what runs in the background of a script ignores SIGINT, and so would burin."""
    return subprocess.Popen([BURIN, "train", *map(str, args), "--labels=y", "--threads=1", "-o", str(WORK / "killed.onnx")],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def wait_for(path, process, after=0.0):
    end = time.time() + 30
    while time.time() < end and process.poll() is None:
        if path.exists() and path.stat().st_mtime > after:
            return True
        time.sleep(0.002)
    return False


def interrupted():
    model, data, path = mlp(), samples(2000, "long"), WORK / "stop.state"
    args = [model, f"--data={data}", "--epochs=1000000", "--optimizer=sgd,lr=0.01,momentum=0.9"]
    p = start(*args, f"--checkpoint={path}")
    ok = wait_for(path, p)
    p.send_signal(signal.SIGINT)
    err = p.communicate(timeout=30)[1]
    check("SIGINT: stops behind a step, with a checkpoint", ok and p.returncode == 130 and "--resume=" in err, f"{p.returncode} {err}")
    check("SIGINT: no model is written", not (WORK / "killed.onnx").exists())
    stopped = int(err.split("epoch ")[1].split(",")[0])
    short = [*args[:2], f"--epochs={stopped + 1}", *args[3:]]
    r = train(*short, f"--resume={path}", out="stopped.onnx")
    w = train(*short, out="unstopped.onnx")
    check("SIGINT: goes on to the same bits", r.returncode == 0 and same(WORK / "stopped.onnx", WORK / "unstopped.onnx"), r.stderr + w.stderr)
    killed([mlp("heavy", hidden=30000), f"--data={samples(64, 'few')}", "--epochs=1000000"])


def killed(args):
    """Killed while checkpoints of some megabytes are written: each time one can be read, and nothing else is left."""
    folder = WORK / "kills"
    folder.mkdir()
    path, good = folder / "k.state", 0
    for k in range(6):
        p = start(*args, f"--checkpoint={path}", *([f"--resume={path}"] if path.exists() else []))
        wait_for(path, p, time.time())
        time.sleep(0.004 * k)
        p.kill()
        p.communicate()
        r = burin(args[0], f"--state={path}", "-o", WORK / "k.onnx")
        good += r.returncode == 0
    check("kill -9: the checkpoint is whole each time", good == 6, f"{good} of 6: {r.stderr}")
    others = [f for f in folder.iterdir() if f != path]  # between its link and the rename a file has a name for an instant
    check("kill -9: nothing else is left but whole files", len(others) < 3 and all(f.name.startswith(".burin-") and f.stat().st_size == path.stat().st_size for f in others), others)


def full_disk():
    model, data, path = mlp("large", hidden=30000), samples(), WORK / "full.state"
    args = [model, f"--data={data}", "--epochs=2"]
    train(*args, f"--checkpoint={path}")
    before = path.read_bytes()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))
    r = train(*args, f"--checkpoint={path}", preexec_fn=limit, out="small.onnx")
    check("full disk: said, and the run goes on to its end", r.returncode == 4 and "cannot be written" in r.stderr and "epoch  2" in r.stdout, f"{r.returncode} {r.stderr}")
    check("full disk: the checkpoint before it is as it was", path.read_bytes() == before)
    r = train(*args, f"--log={WORK / 'no' / 'folder.csv'}")
    check("a place that does not exist is said before the first step", r.returncode == 4 and "epoch" not in r.stdout, f"{r.returncode} {r.stderr}")
    r = run(BURIN, "train", *args, "--labels=y", "-o", "-", text=False, errors=None)
    check("a model on the standard output has it for itself", r.returncode == 0 and len(onnx.load_from_string(r.stdout).graph.node) == 3, r.stderr)
    r = train(*args, f"--checkpoint={data}")
    check("a checkpoint does not replace the samples", r.returncode == 4 and "is an input" in r.stderr, r.stderr)
    if os.path.exists("/dev/full"):
        r = burin("train", *args, "--labels=y", "--threads=1", f"--checkpoint={path}", "-o", "/dev/full")
        check("a model that cannot be written is in the checkpoint", r.returncode == 4 and f"--state={path}" in r.stderr, f"{r.returncode} {r.stderr}")
        r = train(*args, "--log=/dev/full")
        check("full device: status 4", r.returncode == 4 and "/dev/full" in r.stderr, f"{r.returncode} {r.stderr}")


# ---- faults ----
def faults():
    model, n = mlp(), 60
    x, y = RNG.standard_normal((n, 4)).astype(np.float32), RNG.integers(0, 3, n)
    nan, far = x.copy(), y.copy()
    nan[17, 2], far[31] = np.nan, 3
    cases = {
        "a label out of range": (dict(x=x, y=far), "sample 31 has label 3"),
        "a negative label": (dict(x=x, y=np.where(np.arange(n) == 4, -1, y)), "sample 4 has label -1"),
        "a label that is least of all": (dict(x=x, y=np.where(np.arange(n) == 4, -2**63, y)), "sample 4 has label -9223372036854775808"),
        "labels beyond i64": (dict(x=x, y=y.astype(np.uint64) + np.uint64(2**63)), "which i64 cannot"),
        "NaN among the samples": (dict(x=nan, y=y), "sample 17 holds NaN"),
        "samples of another shape": (dict(x=x[:, :3], y=y), "a sample has shape [3], and x takes [4]"),
        "labels of floats for classes": (dict(x=x, y=y.astype(np.float32)), "has type f32"),
        "labels as rows": (dict(x=x, y=np.eye(3, dtype=np.int64)[y]), "a sample has shape [3]"),
        "another number of labels": (dict(x=x, y=y[:-1]), "has 59 samples"),
        "no labels": (dict(x=x), "no array of labels"),
        "no array for an input": (dict(a=x, b=x, y=y), "no array for this input (there are: a, b, y)"),
        "no samples": (dict(x=x[:0], y=y[:0]), "holds no sample"),
        "text": (dict(x=np.array(["a"] * n), y=y), ""),
    }
    for what, (arrays, words) in cases.items():
        np.savez(WORK / "fault.npz", **arrays)
        r = train(model, f"--data={WORK / 'fault.npz'}", "--train=softmax_cross_entropy")
        check(f"fault: {what}", r.returncode in (1, 3) and words in r.stderr and "fault.npz" in r.stderr, f"{r.returncode} {r.stderr}")
    np.savez(WORK / "fault.npz", x=x, y=y)
    for option, words in (("--epochs=x", "--epochs"), ("--validation=2", "--validation"), ("--augment=turn", "--augment"), ("--batch=0", "--batch"),
                          ("--optimizer=adm", "adam"), ("--train=sofmax", "softmax"), ("--trainable=nothing", "nothing"), ("--metric=top9", "--metric"),
                          ("--data=fault.txt", ".npz"), (f"--data={WORK}/fault.npz,size=2", "scale=X"), ("--patience=0", "--patience"), (f"--teacher={model}", "distill"), ("--accumulate=1000", "no update")):
        r = train(model, f"--data={WORK / 'fault.npz'}", option)
        check(f"fault: {option[:30]}", r.returncode in (1, 2) and words in r.stderr, f"{r.returncode} {r.stderr}")


def limited():
    """--max-arena is of the step, for any batch; of a model that takes one sample at a time a few are one step."""
    data = samples(12)
    r = train(mlp(hidden=4000), f"--data={data}", "--epochs=1", "--max-arena=1")
    check("--max-arena: says what is needed", r.returncode == 6 and "the least that" in r.stderr, f"{r.returncode} {r.stderr}")
    r = train(mlp(hidden=4000), f"--data={data}", "--epochs=1", "--max-arena=64M")
    check("--max-arena: holds", r.returncode == 0, r.stderr)
    r = train(mlp("single", batch=1), f"--data={data}", "--epochs=1", "--validation=0", "--optimizer=sgd,lr=0.1")
    check("a fixed batch of 1: few samples are one step", r.returncode == 0 and not same(WORK / "single.onnx", WORK / "out.onnx"), r.stderr)


def not_a_number():
    model, path = mlp(), WORK / "nan.state"
    x = RNG.standard_normal((200, 4)).astype(np.float32)
    np.savez(WORK / "nan.npz", x=x, y=x[:, :3])
    r = train(model, f"--data={WORK / 'nan.npz'}", "--optimizer=sgd,lr=1e6", "--train=mse", "--epochs=50", f"--checkpoint={path}")
    check("NaN: a rate too high ends with the step", r.returncode == 1 and "in step " in r.stderr and "the loss is" in r.stderr, f"{r.returncode} {r.stderr}")
    check("NaN: the checkpoint is one that can be used", burin(model, f"--state={path}", "-o", WORK / "nan.onnx").returncode == 0 if path.exists() else True)
    np.savez(WORK / "last.npz", x=x[:32] * 1e18, y=x[:32, :3])
    r = train(model, f"--data={WORK / 'last.npz'}", "--optimizer=sgd,lr=1e6", "--train=mse", "--epochs=1", "--validation=0")
    check("NaN: a last step that spoils the state is no result", r.returncode == 1 and "step 1 (epoch 1) made numbers that are none" in r.stderr, f"{r.returncode} {r.stderr}")
    nodes = [helper.make_node("Mul", ["x", "w"], ["m"], "scale"), helper.make_node("Log", ["m"], ["l"], "logarithm"),
             helper.make_node("Gemm", ["l", "v"], ["y"], "head")]
    F = TensorProto.FLOAT
    bad = save("log", nodes, [("x", F, ["N", 4])], [("y", F, ["N", 3])],
               [numpy_helper.from_array(np.ones(4, np.float32), "w"), weights("v", 4, 3)])
    x = np.abs(x) + 1
    x[150, 1] = -1
    np.savez(WORK / "nan.npz", x=x, y=np.zeros(200, np.int64))
    r = train(bad, f"--data={WORK / 'nan.npz'}", "--validation=0", "--epochs=2")
    check("NaN: names the node it begins with", r.returncode == 1 and "Log logarithm" in r.stderr and "epoch 1" in r.stderr, f"{r.returncode} {r.stderr}")


# ---- what else there is ----
def early():
    x = RNG.standard_normal((80, 4)).astype(np.float32)
    np.savez(WORK / "noise.npz", x=x, y=RNG.integers(0, 3, 80))
    r = train(mlp(), f"--data={WORK / 'noise.npz'}", "--validation=0.4", "--epochs=500", "--patience=4", "--optimizer=adam,lr=0.05",
              f"--log={WORK / 'early.csv'}", f"--report={WORK / 'early.json'}")
    if not check("patience: runs", r.returncode == 0, r.stderr):
        return
    table, report = rows(WORK / "early.csv"), json.loads((WORK / "early.json").read_text())
    loss = [float(e["validation_loss"]) for e in table]
    check("patience: stops 4 epochs behind the best", len(table) < 400 and len(table) - 1 - int(np.argmin(loss)) == 4, len(table))
    check("patience: the best is kept", report["best_epoch"] == int(np.argmin(loss)) and abs(report["loss"] - min(loss)) < 1e-6, report["best_epoch"])


def parts():
    model, data = mlp(), samples()
    r = train(model, f"--data={data}", "--epochs=2", "--trainable=last1", "--validation=0")
    before, after = parameters(model), parameters(WORK / "out.onnx")
    changed = sorted(k for k in before if not np.array_equal(before[k], after[k]))
    check("--trainable=last1: only these change", changed == ["b2", "w2"], f"{changed} {r.stderr}")
    plain = [model, f"--data={data}", "--validation=0", "--epochs=2", "--optimizer=sgd,lr=0.1"]
    train(*plain, "--batch=30", out="large.onnx")
    train(*plain, "--batch=10", "--accumulate=3", out="parts.onnx")
    a, b = parameters(WORK / "large.onnx"), parameters(WORK / "parts.onnx")
    check("--accumulate=3 is a batch three times as large", all(np.allclose(a[k], b[k], rtol=1e-4, atol=1e-6) for k in a))
    fixed = mlp("fixed", batch=10)
    r = train(fixed, *plain[1:], "--batch=30", out="took.onnx")
    c = parameters(WORK / "took.onnx")
    check("a model of a fixed batch takes more steps", all(np.allclose(a[k], c[k], rtol=1e-4, atol=1e-6) for k in a), r.stderr)
    r = train(fixed, *plain[1:], "--batch=25")
    check("which must divide --batch", r.returncode == 2 and "multiple" in r.stderr, r.stderr)
    r = train(model, f"--data={data}", "--epochs=0", "--from-scratch", "--validation=0")
    r = train(model, f"--data={data}", "--epochs=12", "--from-scratch", "--optimizer=adam,lr=0.02", out="scratch.onnx")
    check("--from-scratch: learns", r.returncode == 0 and accuracy(WORK / "scratch.onnx", data)[0] > 0.85, r.stderr)


def teacher():
    model, data = mlp(), samples()
    train(model, f"--data={data}", "--epochs=12", "--optimizer=adam,lr=0.02", out="teacher.onnx")
    args = [f"--data={data}", "--epochs=8", "--from-scratch", "--optimizer=adam,lr=0.02", "--train=softmax_cross_entropy,distill=0.9,temperature=2"]
    r = train(model, *args)
    check("a teacher is asked for", r.returncode == 2 and "--teacher" in r.stderr, f"{r.returncode} {r.stderr}")
    r = train(model, *args, f"--teacher={WORK / 'teacher.onnx'}")
    check("a teacher's outputs are followed", r.returncode == 0 and accuracy(WORK / "out.onnx", data)[0] > 0.85, r.stderr)


# ---- mixed samples, and samples without labels ----
def linear(name, *shape):
    F = TensorProto.FLOAT
    n = int(np.prod(shape))
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1)]
    return save(name, nodes, [("x", F, ["N", *shape])], [("y", F, ["N", 3])], [weights("w", 3, n), weights("b", 3)])


def one_step(name, *shape):
    """A linear model, twelve images of this shape, and how to make one step of plain SGD on all of them: first weights, and their order."""
    n, seed, x = 12, 5, RNG.standard_normal((12, *shape)).astype(np.float32)
    y = RNG.integers(0, 3, n)
    np.savez(WORK / f"{name}.npz", x=x, y=y)
    model = linear(name, *shape)
    order = shuffled(seed, 1, shuffled(seed, 0, range(n)))
    args = [model, f"--data={WORK / f'{name}.npz'}", "--validation=0", f"--batch={n}", f"--seed={seed}", "--epochs=1", "--optimizer=sgd,lr=1"]
    return n, seed, x, y, parameters(model), order, args


def mixes():
    """One step on mixed samples is what the formula says; then that mixing goes on where it stopped."""
    n, seed, x, y, first, order, args = one_step("mix", 2, 6, 5)
    other = partners(seed, n, order)
    share = next(draw(seed, 0))
    want = sgd_step(share * x[order] + (1 - share) * x[other], first["w"], first["b"], y[order], y[other], share)
    r = train(*args, "--augment=mixup")
    got = parameters(WORK / "out.onnx") if r.returncode == 0 else first
    check("mixup: a step is that of the mean, against both labels", np.allclose(got["w"], want[0], atol=1e-4) and np.allclose(got["b"], want[1], atol=1e-4), r.stderr)
    draws = draw(seed, 0)
    share, down, right = next(draws), next(draws), next(draws)
    side = np.sqrt(1 - share) / 2
    top, bottom, left, end = (int(np.floor(np.clip(v, 0, 1) * k)) for v, k in ((down - side, 6), (down + side, 6), (right - side, 5), (right + side, 5)))
    pasted = x[order].copy()
    pasted[:, :, top:bottom, left:end] = x[other][:, :, top:bottom, left:end]
    want = sgd_step(pasted, first["w"], first["b"], y[order], y[other], 1 - (bottom - top) * (end - left) / 30)
    r = train(*args, "--augment=cutmix")
    got = parameters(WORK / "out.onnx") if r.returncode == 0 else first
    check("cutmix: labels weigh what is seen of them", np.allclose(got["w"], want[0], atol=1e-4) and np.allclose(got["b"], want[1], atol=1e-4), r.stderr)
    r = train(*args[:2], "--epochs=2", "--augment=mixup:0.3")
    check("mixup:ALPHA", r.returncode == 0, r.stderr)
    for text in ("mixup:0", "mixup:x", "cutmix:-1", "mixup:101"):
        r = train(*args, f"--augment={text}")
        check(f"--augment={text} is refused", r.returncode == 2 and "cutmix" in r.stderr, r.stderr)
    r = train(mlp(), f"--data={samples()}", "--epochs=1", "--augment=cutmix")
    check("cutmix: of what is no image an error", r.returncode == 1 and "no image" in r.stderr, r.stderr)


def warps():
    """One step on images that are cut out and coloured is what the formulas say; what is measured is not moved."""
    _, seed, x, y, first, order, args = one_step("warp", 2, 9, 7)
    for crop, color in ((0.3, 0), (0, 0.5), (0.6, 0.2), (1, 0), (0, 0)):
        text = ",".join([f"crop:{crop}"] * bool(crop) + [f"color:{color}"] * bool(color)) or "none"
        moved = np.stack([warped(x[k].astype(np.float64), random_at(seed, 0xA5, k), crop, color) for k in order])
        w, b = sgd_step(moved, first["w"], first["b"], y[order], y[order], 1)
        r = train(*args, f"--augment={text}")
        got = parameters(WORK / "out.onnx") if r.returncode == 0 else first
        check(f"--augment={text}: a step is that of the moved images", np.allclose(got["w"], w, atol=1e-4) and np.allclose(got["b"], b, atol=1e-4), r.stderr)
    assert not np.allclose(warped(x[0].astype(np.float64), 1, 0.3, 0), x[0], atol=0.1)
    for text in ("crop", "crop:0", "crop:1.1", "color:-1", "color:x", "crop:0.5,none"):
        r = train(*args, f"--augment={text}")
        check(f"--augment={text} is refused", r.returncode == 2 and "crop:PART" in r.stderr, r.stderr)


def shaped():
    """Accuracy of probabilities and classes that end in another shape is that of the network without it."""
    F, told = TensorProto.FLOAT, {}
    x = RNG.standard_normal((60, 4)).astype(np.float32)
    for loss, end, labels in (("softmax_cross_entropy", "Softmax", RNG.integers(0, 3, 60)), ("sigmoid_cross_entropy", "Sigmoid", RNG.integers(0, 2, (60, 3)).astype(np.float32))):
        for at in (None, 1, 2):
            nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node(end, ["h"], ["p" if at else "y"])]
            nodes += [helper.make_node("Unsqueeze", ["p", "axes"], ["y"])] if at else []
            shape = ["N", 3] if at is None else ["N", 1, 3] if at == 1 else ["N", 3, 1]
            own = [weights("w", 4, 3)] + ([numpy_helper.from_array(np.array([at]), "axes")] if at else [])
            model = save("shaped", nodes, [("x", F, ["N", 4])], [("y", F, shape)], own)
            y = labels if at is None or (end == "Softmax" and labels.ndim > 1) else np.expand_dims(labels, 1 if end == "Softmax" else at)
            np.savez(WORK / "shaped.npz", x=x, y=y)
            r = train(model, f"--data={WORK / 'shaped.npz'}", f"--train={loss}", "--epochs=0")
            told.setdefault(end, []).append(r.stdout + r.stderr)
        check(f"{end} in another shape: the same loss and accuracy", "accuracy" in told[end][0] and len(set(told[end])) == 1, told[end])


def others_as_data():
    """Files beside --data are read as it is, unless they say how."""
    x, y = RNG.integers(0, 256, (40, 4)).astype(np.uint8), RNG.integers(0, 3, 40)
    np.savez(WORK / "bytes.npz", x=x, y=y)
    np.savez(WORK / "floats.npz", x=((x - 100.0) / 50).astype(np.float32), y=y)
    told = []
    for data, other in (("bytes.npz,mean=100,std=50", "bytes.npz"), ("bytes.npz,mean=100,std=50", "floats.npz,scale=1"), ("floats.npz", "floats.npz")):
        r = train(mlp(), f"--data={WORK / data}", f"--validation={WORK / other}", "--epochs=0")
        told.append(r.stdout)
    check("--validation is read as --data is", told[0] and told[0] == told[1] == told[2], told)


def unlabelled():
    """Labels that are all wrong, with one part in ten thousand of the loss: what is learned is the teacher's."""
    model, data = mlp(), samples()
    train(model, f"--data={data}", "--epochs=12", "--optimizer=adam,lr=0.02", out="teacher.onnx")
    x, y = (np.load(data)[k] for k in "xy")
    np.savez(WORK / "wrong.npz", x=x[:64], y=(y[:64] + 1) % 3)
    np.savez(WORK / "more.npz", x=RNG.standard_normal((1000, 4)).astype(np.float32))
    np.savez(WORK / "wide.npz", x=np.zeros((100, 5), np.float32))
    args = [model, f"--data={WORK / 'wrong.npz'}", "--from-scratch", "--optimizer=adam,lr=0.01,schedule=cosine", "--validation=0"]
    loss, teacher = "--train=softmax_cross_entropy,distill=0.5,temperature=2", f"--teacher={WORK / 'teacher.onnx'}"
    r = train(*args, loss, teacher, "--epochs=20")
    alone = accuracy(WORK / "out.onnx", data)[0]
    more = [*args, loss, teacher, f"--unlabelled={WORK / 'more.npz'}", "--augment=mixup"]
    r = train(*more, "--epochs=20", out="more.onnx")
    right = accuracy(WORK / "more.onnx", data)[0] if r.returncode == 0 else 0
    check("--unlabelled: the teacher's outputs are followed where there are no labels", right > max(alone + 0.05, 0.85), f"{alone} {right} {r.stderr}")
    more[2:4] = ["--optimizer=adam,lr=0.01"]
    train(*more, "--epochs=3", out="whole.onnx")
    train(*more, "--epochs=1", f"--checkpoint={WORK / 'more.state'}", out="part.onnx")
    r = train(*more, "--epochs=3", f"--resume={WORK / 'more.state'}", out="on.onnx")
    check("--unlabelled: a run goes on to the same bits", r.returncode == 0 and same(WORK / "whole.onnx", WORK / "on.onnx"), r.stderr)
    r = train(*args, f"--unlabelled={WORK / 'more.npz'}", "--epochs=1")
    check("--unlabelled: needs a teacher", r.returncode == 2 and "distill" in r.stderr, r.stderr)
    r = train(*args, loss, teacher, f"--unlabelled={WORK / 'wide.npz'}", "--epochs=1")
    check("--unlabelled: of another size", r.returncode == 1 and "wide.npz" in r.stderr, r.stderr)


# ---- images ----
def convolutions():
    """A small net with batch norms on pictures of bars, as bytes with the channels last."""
    F, n = TensorProto.FLOAT, 240
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1] * 4),
             helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], "norm"),
             helper.make_node("Relu", ["n"], ["r"], "relu"),
             helper.make_node("GlobalAveragePool", ["r"], ["g"], "pool"),
             helper.make_node("Flatten", ["g"], ["f"], "flat"),
             helper.make_node("Dropout", ["f", "ratio"], ["d"], "drop"),
             helper.make_node("Gemm", ["d", "h"], ["y"], "head")]
    ones = [numpy_helper.from_array(np.full(8, v, np.float32), k) for k, v in zip("sbmv", (1, 0, 0, 1))]
    model = save("bars", nodes, [("x", F, ["N", 2, 9, 9])], [("y", F, ["N", 2])], [weights("w", 8, 2, 3, 3, scale=0.3), weights("h", 8, 2),
                  numpy_helper.from_array(np.float32(0.1), "ratio"), *ones])
    y = RNG.integers(0, 2, n)
    x = RNG.integers(0, 60, (n, 9, 9, 2)).astype(np.uint8)
    for k in range(n):
        at = RNG.integers(1, 8)
        if y[k]:
            x[k, at] += 150
        else:
            x[k, :, at] += 150
    np.savez(WORK / "bars.npz", x=x, y=y.astype(np.uint8))
    r = train(model, f"--data={WORK / 'bars.npz'},scale=1/255,mean=0.3:0.2,std=0.2,channels=last", "--epochs=8", "--batch=16",
              "--optimizer=adam,lr=0.02", "--augment=shift:1,flip", f"--log={WORK / 'bars.csv'}", out="bars_out.onnx")
    if not check("images: runs", r.returncode == 0, r.stderr):
        return
    t = rows(WORK / "bars.csv")
    check("images: learns", max(float(e["accuracy"]) for e in t) > 0.9, t)
    v = ((x.astype(np.float64) * (1 / 255) - [0.3, 0.2]) / 0.2).astype(np.float32).transpose(0, 3, 1, 2)
    out = onnxruntime.InferenceSession(str(WORK / "bars_out.onnx")).run(None, {"x": np.ascontiguousarray(v)})[0]
    r = burin("train", WORK / "bars_out.onnx", f"--data={WORK / 'bars.npz'},scale=1/255,mean=0.3:0.2,std=0.2,channels=last", "--labels=y", "--epochs=0")
    check("images: ONNX Runtime agrees on scaled bytes", f"accuracy {100 * float((out.argmax(1) == y).mean()):6.2f} %" in r.stdout, r.stdout)
    args = [model, f"--data={WORK / 'bars.npz'},scale=1/255,channels=last", "--batch=16", "--augment=shift:1,flip"]
    train(*args, "--epochs=3", out="bars_whole.onnx")
    train(*args, "--epochs=1", f"--checkpoint={WORK / 'bars.state'}", out="bars_part.onnx")
    r = train(*args, "--epochs=3", f"--resume={WORK / 'bars.state'}", out="bars_on.onnx")
    check("images: with dropout and moved images, too, a run goes on to the same bits", r.returncode == 0 and same(WORK / "bars_whole.onnx", WORK / "bars_on.onnx"), r.stderr)
    before, after = parameters(model), parameters(WORK / "bars_out.onnx")
    check("images: statistics are written back", not np.array_equal(before["m"], after["m"]) and "BatchNormalization" in [k.op_type for k in onnx.load(WORK / "bars_out.onnx").graph.node])


def sequences():
    """Numbers of words in i32 files, batch and length in any order, a second input, one that is the same for all samples."""
    F, I, n, t = TensorProto.FLOAT, TensorProto.INT64, 200, 6
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"], "embed"),
             helper.make_node("Transpose", ["side"], ["turned"], "turn", perm=[1, 0, 2]),
             helper.make_node("Add", ["e", "turned"], ["sum"], "join"),
             helper.make_node("Mul", ["sum", "gain"], ["scaled"], "gain"),
             helper.make_node("MatMul", ["scaled", "head"], ["logits"], "head"),
             helper.make_node("Softmax", ["logits"], ["y"], "last", axis=-1)]
    model = save("words", nodes, [("ids", I, ["N", "T"]), ("side", F, ["T", "N", 8]), ("gain", F, [8])], [("y", F, ["N", "T", 5])],
                 [weights("table", 11, 8), weights("head", 8, 5)])
    ids = RNG.integers(0, 11, (n, t)).astype(np.int32)
    side = RNG.standard_normal((n, t, 8)).astype(np.float32) * 0.1
    gain = np.linspace(0.5, 1.5, 8).astype(np.float32)
    np.savez(WORK / "words.npz", ids=ids, side=side, gain=gain, y=(ids * 7 % 5).astype(np.int16))
    r = train(model, f"--data={WORK / 'words.npz'}", "--epochs=15", "--batch=16", "--optimizer=adam,lr=0.05", "--validation=0.25", f"--report={WORK / 'words.json'}", out="words_out.onnx")
    if not check("sequences: runs", r.returncode == 0, r.stderr):
        return
    check("sequences: learns", json.loads((WORK / "words.json").read_text())["accuracy"] > 0.95, r.stdout)
    feed = {"ids": ids.astype(np.int64), "side": np.ascontiguousarray(side.transpose(1, 0, 2)), "gain": gain}
    out = onnxruntime.InferenceSession(str(WORK / "words_out.onnx")).run(None, feed)[0]
    r = burin("train", WORK / "words_out.onnx", f"--data={WORK / 'words.npz'}", "--labels=y", "--epochs=0")
    check("sequences: ONNX Runtime agrees", f"accuracy {100 * float((out.argmax(2) == ids * 7 % 5).mean()):6.2f} %" in r.stdout, r.stdout)
    np.savez(WORK / "far.npz", ids=ids, side=side[:, :5], gain=gain, y=ids % 5)
    r = train(model, f"--data={WORK / 'far.npz'}")
    check("sequences: a size that inputs share", r.returncode == 1 and "side" in r.stderr and "has size 5 where ids has 6" in r.stderr, f"{r.returncode} {r.stderr}")
    np.savez(WORK / "far.npz", ids=np.where(ids == 3, 2 ** 40, ids.astype(np.int64)), side=side, gain=gain, y=ids % 5)
    r = train(model, f"--data={WORK / 'far.npz'}")
    check("sequences: a number of no word is said with the node", r.returncode == 1 and "embed" in r.stderr, f"{r.returncode} {r.stderr}")


def digits():
    path = Path(os.environ.get("BURIN_SHARED", ROOT / "../shared")) / "models/data/mnist.npz"
    if not path.exists():
        return skip("digits", "no shared models")
    d = np.load(path)
    np.savez(WORK / "digits.npz", x=d["images"][:600], y=d["labels"][:600])
    r = burin("train", ROOT / "examples/digits/mnist.onnx", f"--data={WORK / 'digits.npz'}", "--labels=y", "--epochs=1", "--batch=20",
              "--from-scratch", "--optimizer=adam,lr=0.0003", f"--log={WORK / 'digits.csv'}", "-o", WORK / "digits.onnx", timeout=120)
    t = rows(WORK / "digits.csv") if r.returncode == 0 else []
    check("digits: a trained model of others learns anew", t and float(t[-1]["validation_loss"]) < float(t[0]["validation_loss"]), r.stderr or t)


for test in (learns, losses, resumes, halves, damaged, interrupted, full_disk, faults, limited, not_a_number, early, parts, teacher, mixes, warps, shaped, others_as_data, unlabelled, convolutions, sequences, digits):
    if len(sys.argv) < 2 or test.__name__ in sys.argv[1:]:
        test()
run("rm", "-rf", WORK)
sys.exit(finish())
