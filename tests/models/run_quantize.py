#!/usr/bin/env python3
"""Part "quantize": ONNX files that burin writes mean what the originals do (--emit=onnx), and `burin quantize` on the
repository's own networks: the written QDQ model gives the same in ONNX Runtime and compiled, near the float model's; budgets hold;
samples that do not fit are refused with their place."""
import json
import re
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]
import burin as burin_python  # noqa: E402
from tests.models import own_models  # noqa: E402
from tests.support import error, targets  # noqa: E402
from tests.support.part import burin, check, finish, skip  # noqa: E402

ort.set_default_logger_severity(4)
SAMPLES = 16
LEAST_SQNR = 18  # dB, of random weights, whose layers add up their errors
FLOATS = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def session(path):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options)


def draw(inputs, rng):
    """A value for every input; sizes that are open are 2."""
    feed = {}
    for i in inputs:
        shape = [d if isinstance(d, int) and d > 0 else 2 for d in i.shape]
        t = FLOATS[i.type]
        feed[i.name] = rng.normal(size=shape).astype(t) if t == np.float32 else rng.integers(0, 2, shape).astype(t)
    return feed


def sqnr(got, wanted):
    return error.sqnr(got, wanted, exact=140)


# ---- --emit=onnx ----
def check_export(path, folder):
    out = folder / "export.onnx"
    done = burin(path, "--emit=onnx", "-o", out)
    if not check(f"{path.stem}: --emit=onnx", done.returncode == 0, done.stderr):
        return
    a, b = session(path), session(out)
    names = [[v.name for v in s.get_inputs() + s.get_outputs()] for s in (a, b)]
    check(f"{path.stem}: names of inputs and outputs stay", names[0] == names[1], names)
    feed = draw(a.get_inputs(), np.random.default_rng(1))
    wanted, got = a.run(None, feed), b.run(None, feed)
    check(f"{path.stem}: exported, it computes the same", sqnr(got, wanted) > 80, sqnr(got, wanted))


def check_forms(folder):
    """Types below 8 bits, strings, subgraphs, Split without sizes, outputs that are inputs or named twice."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[4, 6] x, bool c) => (float[4, 6] same, float[2, 6] low, float[4, 6] y, float[4, 6] again)
      <float s = {0.5}> {
      d = DequantizeLinear(q, s)
      same = Identity(x)
      low, high = Split<axis = 0, num_outputs = 2>(x)
      y = If (c) <then_branch = t () => (float[4, 6] a) { a = Mul(x, k) }, else_branch = e () => (float[4, 6] b) { b = Identity(x) }>
      again = Identity(y)
    }"""
    text = text.replace("d = DequantizeLinear(q, s)", "w = DequantizeLinear(q, s)\n      k = ReduceSum<keepdims = 0>(w)")
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.helper.make_tensor("q", onnx.TensorProto.INT4, [3], [-8, 7, 1]))
    path = folder / "forms.onnx"
    onnx.save(model, path)
    for passes in ("infer", "infer,dce,fold_constants,canonicalize,dce"):
        out = folder / "forms_out.onnx"
        done = burin(path, "--emit=onnx", f"--passes={passes}", "-o", out)
        if not check(f"forms by {passes}", done.returncode == 0, done.stderr):
            continue
        onnx.checker.check_model(str(out), full_check=True)
        for c in (True, False):
            feed = {"x": np.arange(24, dtype=np.float32).reshape(4, 6), "c": np.array(c)}
            a, b = session(path).run(None, feed), session(out).run(None, feed)
            check(f"forms by {passes}, condition {c}", all(np.array_equal(p, q) for p, q in zip(a, b)), b)


# ---- burin quantize ----
def write_samples(path, inputs, n, seed, **more):
    rng = np.random.default_rng(seed)
    feeds = [draw(inputs, rng) for _ in range(n)]
    np.savez(path, **{i.name: np.stack([f[i.name] for f in feeds]) for i in inputs}, **more)
    return feeds


def has_float_product(path):
    g = onnx.load(path).graph
    weights = {t.name for t in g.initializer if t.data_type == onnx.TensorProto.FLOAT}
    if any(n.op_type == "QuantizeLinear" for n in g.node):
        return False
    return any(n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in weights for n in g.node)


def check_quantize(path, folder):
    out, data = folder / "int8.onnx", folder / "samples.npz"
    a = session(path)
    feeds = write_samples(data, a.get_inputs(), SAMPLES, 1)
    done = burin("quantize", path, f"--calibrate={data}", "--max-drop=100", "-o", out, timeout=300)
    if not check(f"{path.stem}: burin quantize", done.returncode == 0, done.stderr):
        return
    model = onnx.load(out)
    kinds = [n.op_type for n in model.graph.node]
    check(f"{path.stem}: it has 8-bit weights",
          "QuantizeLinear" in kinds and any(t.data_type == onnx.TensorProto.INT8 for t in model.graph.initializer), kinds)
    b, compiled = session(out), burin_python.compile(str(out))
    wanted = [v for f in feeds for v in a.run(None, f)]
    theirs = [v for f in feeds for v in b.run(None, f)]
    ours = [v for f in feeds for v in compiled.run(f)]
    check(f"{path.stem}: near the float model", sqnr(ours, wanted) > LEAST_SQNR, f"{sqnr(ours, wanted):.1f} dB")
    check(f"{path.stem}: ONNX Runtime agrees", sqnr(ours, theirs) > sqnr(ours, wanted) + 3 or sqnr(ours, theirs) > 40,
          f"{sqnr(ours, theirs):.1f} dB between them, {sqnr(ours, wanted):.1f} dB to the float model")
    told = re.search(r"result +([-0-9.]+) dB", done.stderr)
    check(f"{path.stem}: the report tells the error that there is", told and abs(float(told[1]) - sqnr(ours, wanted)) < 1.5,
          f"{told and told[1]} told, {sqnr(ours, wanted):.2f} measured")


def has_matrix(path):
    g = onnx.load(path).graph
    weights = {t.name: t.dims for t in g.initializer if t.data_type == onnx.TensorProto.FLOAT}
    return any(n.op_type in ("Gemm", "MatMul") and len(weights.get(n.input[1], [])) == 2 for n in g.node)


def check_form(path, folder, form, least):
    """Forms that need no samples: with them weights are rounded to fit, and errors measured."""
    out, data = folder / f"{form}.onnx", folder / "samples.npz"
    a = session(path)
    feeds = write_samples(data, a.get_inputs(), 8, 6)
    nearest = folder / f"{form}_nearest.onnx"
    done = [burin("quantize", path, f"--quantize={form}", *flags, "-o", o, timeout=300)
            for o, flags in ((nearest, []), (out, [f"--calibrate={data}", "--max-drop=100"]))]
    if not check(f"{path.stem}, {form}: with and without samples", all(d.returncode == 0 for d in done), [d.stderr for d in done]):
        return
    n, b, compiled = session(nearest), session(out), burin_python.compile(str(out))
    wanted = [v for f in feeds for v in a.run(None, f)]
    plain, fitted = (sqnr([v for f in feeds for v in s.run(None, f)], wanted) for s in (n, b))
    check(f"{path.stem}, {form}: samples do no harm", fitted > plain - 0.5, f"{fitted:.1f} dB, without {plain:.1f} dB")
    wanted, theirs, ours = ([v for f in feeds for v in run(f)] for run in (lambda f: a.run(None, f), lambda f: b.run(None, f), compiled.run))
    check(f"{path.stem}, {form}: near the float model", sqnr(ours, wanted) > least, f"{sqnr(ours, wanted):.1f} dB")
    if targets.exact_bytes() or "int8" not in form:
        check(f"{path.stem}, {form}: ONNX Runtime agrees", sqnr(ours, theirs) > sqnr(ours, wanted) + 3, f"{sqnr(ours, theirs):.1f} dB")
    else:
        skip(f"{path.stem}, {form}: ONNX Runtime agrees", "its sums of bytes saturate on this CPU")


def check_both_at_once(path, folder):
    """--quantize on the way to a program gives what the written model gives."""
    data, out = folder / "samples.npz", folder / "int8.onnx"
    feeds = write_samples(data, session(path).get_inputs(), 8, 2)
    burin("quantize", path, f"--calibrate={data}", "-o", out, timeout=300)
    flags = ["--quantize=int8", f"--calibrate={data}"]
    direct, written = burin_python.compile(str(path), flags=flags), burin_python.compile(str(out))
    same = all(np.array_equal(x, y) for f in feeds for x, y in zip(direct.run(f), written.run(f)))
    check(f"{path.stem}: a program made at once computes the same bits", same)


def check_budget(path, folder):
    data, out = folder / "samples.npz", folder / "int8.onnx"
    write_samples(data, session(path).get_inputs(), 8, 3)
    kept = []
    for most in ("0", "0.01", "100"):
        done = burin("quantize", path, f"--calibrate={data}", "--metric=sqnr", f"--max-drop={most}", "-o", out, timeout=300)
        lost = re.search(r"sqnr: ([-0-9.e+]+) lost", done.stderr)
        check(f"{path.stem}: a budget of {most} holds", lost and float(lost[1]) <= float(most) * 1.02 + 1e-9, done.stderr[-300:])
        kept.append(done.stderr.count("its error would break the budget"))
    check(f"{path.stem}: a tighter budget keeps more layers in float", kept[0] > kept[1] >= kept[2] == 0, kept)


def check_rounding(folder):
    """Inputs that hang together: their weights are rounded so that errors cancel, which new inputs of the kind profit from, too."""
    net, k = own_models.Net(13), 64
    net.output(net.op("MatMul", net.input("x", [32, k]), net.const(net.rng.normal(0, 0.1, (k, 48)))), "y")
    path, out, nearest, data = (folder / f"rounding{e}" for e in (".onnx", "_fitted.onnx", "_nearest.onnx", ".npz"))
    save_net(net, path)
    mix = net.rng.normal(size=(8, k))
    def more(n):
        return (net.rng.normal(size=(n, 32, 8)) @ mix + 0.05 * net.rng.normal(size=(n, 32, k))).astype(np.float32)
    np.savez(data, x=more(12))
    for form in ("int4-weights", "w8a16"):
        burin("quantize", path, f"--quantize={form}", "-o", nearest)
        done = burin("quantize", path, f"--quantize={form}", f"--calibrate={data}", "--max-drop=100", "-o", out)
        x = more(4)
        real, plain, fitted = ([session(p).run(None, {"x": v})[0] for v in x] for p in (path, nearest, out))
        check(f"{form}: rounding to fit", sqnr(fitted, real) > sqnr(plain, real) + 3 and "adapted to the samples in 1 of 1" in done.stderr,
              f"{sqnr(fitted, real):.1f} dB, nearest {sqnr(plain, real):.1f} dB: {done.stderr}")


def check_report(path, folder):
    """--report: the text that is printed, or the same as JSON."""
    data, text, packed = folder / "samples.npz", folder / "report.txt", folder / "report.json"
    write_samples(data, session(path).get_inputs(), 8, 3)
    done = [burin("quantize", path, f"--calibrate={data}", "--max-drop=0", f"--report={r}", "-o", folder / "int8.onnx") for r in (text, packed)]
    if not check(f"{path.stem}: reports are written", text.exists() and packed.exists(), done[0].stderr):
        return
    told = json.loads(packed.read_text())
    check(f"{path.stem}: the text is what is printed", text.read_text() == done[0].stderr[:len(text.read_text())], text.read_text())
    layers = told["layers"]
    check(f"{path.stem}: layers as JSON", layers and sum(not l["quantized"] for l in layers) == len(re.findall(r"dB +\d+ +float", done[1].stderr)) > 0, layers)
    check(f"{path.stem}: every layer takes time in either form, and has a reason",
          all(l["us_float"] > 0 and l["us_quantized"] > 0 and l["reason"] for l in layers), layers)
    done = burin("quantize", path, f"--calibrate={data}", "--report=/nowhere/r.txt", "-o", folder / "none.onnx")
    check("a report that cannot be written", done.returncode == 4 and not (folder / "none.onnx").exists(), done.stderr)


def check_activation_products(folder):
    """Products of two activations are measured as layers are; a QDQ file that has them in 8 bits is computed with integers."""
    net, n, c, heads = own_models.Net(17), 48, 64, 4
    net.output(net.attention(net.input("x", [1, n, c]), n, c, heads), "y")
    path, out, data, told = (folder / f"attention{e}" for e in (".onnx", "_int8.onnx", ".npz", ".json"))
    save_net(net, path)
    a = session(path)
    feeds = write_samples(data, a.get_inputs(), 8, 18)
    done = burin("quantize", path, f"--calibrate={data}", "--max-drop=100", f"--report={told}", "-o", out)
    if not check("attention: burin quantize", done.returncode == 0, done.stderr):
        return
    layers = [l for l in json.loads(told.read_text())["layers"] if l["weights"] == 0]
    check("attention: its products are judged by error and time, each with a reason",
          len(layers) == 2 and all(l["sqnr_alone_db"] > LEAST_SQNR and l["us_quantized"] > 0 and l["reason"] for l in layers), layers)
    g = onnx.load(out).graph
    made = {o: n for n in g.node for o in n.output}
    in_bytes = [n for n in g.node if n.op_type == "MatMul" and all(i in made and made[i].op_type == "DequantizeLinear" for i in n.input)]
    constants = {t.name for t in g.initializer}
    computed = [n for n in in_bytes if made[n.input[1]].input[0] not in constants]
    check("attention: the file has those in 8 bits that the report says", len(computed) == sum(l["quantized"] for l in layers), computed)
    wanted, ours, theirs = ([v for f in feeds for v in run(f)] for run in
                            (lambda f: a.run(None, f), burin_python.compile(str(out)).run, lambda f: session(out).run(None, f)))
    check("attention: near the float model, and as ONNX Runtime has it", sqnr(ours, wanted) > LEAST_SQNR and sqnr(ours, theirs) > 40,
          f"{sqnr(ours, wanted):.1f} dB, {sqnr(ours, theirs):.1f} dB")


def check_bodies(folder):
    """Layers inside Loop and If stay float, each with a line that says so."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
    g (float[1, 8] x, int64 trips, bool c) => (float[1, 8] y, float[1, 4] z) {
      first = MatMul(x, w)
      y = Loop (trips, , first) <body = b (int64 i, bool go, float[1, 8] s) => (bool on, float[1, 8] t) {
        on = Identity(go)
        m = MatMul(s, w)
        t = Tanh(m)
      }>
      z = If (c) <then_branch = t () => (float[1, 4] p) { p = Gemm(y, v) }, else_branch = e () => (float[1, 4] q) { q = ConstantOfShape(s4) }>
    }""")
    rng = np.random.default_rng(19)
    model.graph.initializer.extend(numpy_helper.from_array(rng.normal(0, 0.3, s).astype(np.float32), n)
                                   for n, s in (("w", (8, 8)), ("v", (8, 4))))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 4]), "s4"))
    path, data, told = folder / "bodies.onnx", folder / "bodies.npz", folder / "bodies.json"
    onnx.save(model, path)
    np.savez(data, x=rng.normal(size=(4, 1, 8)).astype(np.float32), trips=np.full(4, 3), c=np.array([True, False] * 2))
    done = burin("quantize", path, f"--calibrate={data}", "--max-drop=100", f"--report={told}", "-o", folder / "bodies_int8.onnx")
    if not check("bodies: burin quantize", done.returncode == 0, done.stderr):
        return
    layers = json.loads(told.read_text())["layers"]
    reasons = sorted(l["reason"].split('"')[0] for l in layers if not l["quantized"])
    check("bodies: what stands inside is listed", len(layers) == 3 and reasons == ["inside If ", "inside Loop "] and
          all(f'{l["name"]}: {l["reason"]}' in done.stderr for l in layers if not l["quantized"]), (layers, done.stderr))


def check_small_file(path, folder):
    """Constants that are equal are one, and what the quantizer adds has short names."""
    data, out = folder / "samples.npz", folder / "int8.onnx"
    write_samples(data, session(path).get_inputs(), 8, 2)
    burin("quantize", path, f"--calibrate={data}", "--max-drop=100", "-o", out)
    old, new = onnx.load(path).graph, onnx.load(out).graph
    known = {t.name for t in old.initializer} | {name for n in old.node for name in [*n.input, *n.output]}
    added = [t for t in new.initializer if t.name not in known]
    numbers = [(t.data_type, t.raw_data) for t in added if not t.dims]
    check(f"{path.stem}: scales and zero points that are equal are one constant", len(numbers) == len(set(numbers)), numbers)
    check(f"{path.stem}: short names", all(len(t.name) < 8 for t in added), [t.name for t in added])


def check_damaged_layer(folder):
    """A layer that 8 bits destroy, its channels being thousands of times apart and read by others: bf16 where that is fast, else float."""
    net, k = own_models.Net(23), 256
    def weights():
        return net.rng.normal(0, 0.05, (k, k))
    size = np.ones(k)
    size[::64] = 3000
    x = net.op("Relu", net.op("MatMul", net.input("x", [64, k]), net.const(weights())))
    x = net.op("Mul", net.op("MatMul", x, net.const(weights())), net.const(size))
    x = net.op("Add", net.op("MatMul", x, net.const(weights() / size[:, None])), net.op("Mul", x, net.const(1 / size)))
    net.output(net.op("MatMul", x, net.const(weights())), "y")
    path, out, data, told = (folder / f"damaged{e}" for e in (".onnx", "_int8.onnx", ".npz", ".json"))
    save_net(net, path)
    a = session(path)
    feeds = write_samples(data, a.get_inputs(), 8, 24)
    done = burin("quantize", path, f"--calibrate={data}", f"--report={told}", "-o", out)
    if not check("damaged layer: burin quantize", done.returncode == 0, done.stderr):
        return
    report = json.loads(told.read_text())
    forms, types = [l["form"] for l in report["layers"]], [t.data_type for t in onnx.load(out).graph.initializer]
    check("damaged layer: it alone stays out of 8 bits", [f == "int8" for f in forms] == [True, True, False, True], forms)
    check("damaged layer: the file has the form that the report tells", types.count(onnx.TensorProto.BFLOAT16) == forms.count("bf16"), forms)
    wanted, ours, theirs = ([v for f in feeds for v in run(f)] for run in
                            (lambda f: a.run(None, f), burin_python.compile(str(out)).run, lambda f: session(out).run(None, f)))
    check("damaged layer: the budget holds", report["lost"] <= report["budget"] and sqnr(ours, wanted) > 25, f"{sqnr(ours, wanted):.1f} dB")
    check("damaged layer: ONNX Runtime agrees", sqnr(ours, theirs) > 40, f"{sqnr(ours, theirs):.1f} dB")


def check_entropy(folder):
    """Behind a Relu most elements may be zero, which any scale holds exactly: they must not decide about it."""
    net = own_models.Net(11)
    y = net.op("Relu", net.op("Conv", net.input("x", [1, 3, 16, 16]), net.const(net.rng.normal(0, 0.4, (8, 3, 3, 3))),
                              net.const(np.full(8, -2.0)), pads=[1] * 4))
    net.output(net.conv(y, 8, 8, k=3), "y")
    path, data = folder / "zeros.onnx", folder / "samples.npz"
    save_net(net, path)
    write_samples(data, session(path).get_inputs(), SAMPLES, 12)
    done = burin("quantize", path, f"--calibrate={data}", "--max-drop=100", "-o", folder / "zeros_int8.onnx")
    told = {k: float(v) for k, v in re.findall(r"(\w+) ([-0-9.]+) dB", done.stderr)}
    check("least divergence in spite of zeros", told.get("entropy", -99) > told.get("minmax", 99) - 3, done.stderr)


def refuse(name, model, folder, arrays, code, words, *flags):
    data = folder / "bad.npz"
    np.savez(data, **arrays)
    out = folder / "bad.onnx"
    done = burin("quantize", model, f"--calibrate={data}", "-o", out, *flags)
    check(f"refused: {name}", done.returncode == code and words in done.stderr and not out.exists(),
          f"exit {done.returncode}: {done.stderr}")


def check_data(path, folder):
    """Samples that do not fit."""
    i = session(path).get_inputs()[0]
    shape = [d if isinstance(d, int) else 2 for d in i.shape]
    good = np.random.default_rng(4).normal(size=[4, *shape]).astype(np.float32)
    bad = good.copy()
    bad.flat[5] = np.nan
    refuse("NaN", path, folder, {i.name: bad}, 1, "NaN")
    refuse("wrong shape", path, folder, {i.name: good[..., :-1]}, 1, "shape")
    refuse("no sample", path, folder, {i.name: good[:0]}, 1, "no sample")
    refuse("another name", path, folder, {"a": good, "b": good}, 1, "no array for this input")
    refuse("text", path, folder, {i.name: np.array(["a", "b"])}, 3, f"bad.npz:{i.name}")
    refuse("labels missing", path, folder, {i.name: good}, 1, "labels", "--labels=y")
    refuse("too few labels", path, folder, {i.name: good, "y": np.arange(3)}, 1, "3 labels for 4 samples", "--labels=y")
    refuse("labels of floats", path, folder, {i.name: good, "y": np.zeros(4)}, 1, "integers", "--labels=y")
    refuse("budget", path, folder, {i.name: good}, 2, "--max-drop", "--max-drop=much")
    refuse("method", path, folder, {i.name: good}, 2, "--calibration", "--calibration=best")
    broken, out = folder / "broken.npz", folder / "bad.onnx"
    np.savez(broken, **{i.name: good})
    broken.write_bytes(broken.read_bytes()[:-40])
    done = burin("quantize", path, f"--calibrate={broken}", "-o", out)
    check("refused: a file cut short", done.returncode == 3 and not out.exists(), done.stderr)
    done = burin("quantize", path, f"--calibrate={folder / 'none.npz'}", "-o", out)
    check("refused: no file", done.returncode == 3, done.stderr)
    (folder / "pictures").mkdir()
    (folder / "pictures/a.png").write_bytes(b"no picture")
    done = burin("quantize", path, f"--calibrate={folder / 'pictures'}", "-o", out)
    check("refused: no picture", done.returncode == 1 and "a.png" in done.stderr, done.stderr)
    np.savez(folder / "constant.npz", **{i.name: np.zeros_like(good[:1])})
    done = burin("quantize", path, f"--calibrate={folder / 'constant.npz'}", "-o", out)
    check("one sample of zeros is taken", done.returncode == 0, done.stderr)


def check_folders(path, folder):
    """A folder of .npy files, of .npz files and of folders of .pb files gives what one .npz does. For another
    machine, so that no time that is measured here decides."""
    i = session(path).get_inputs()[0]
    feeds = write_samples(folder / "all.npz", [i], 4, 5)
    results = []
    for kind in ("npz", "npy", "one", "pb"):
        data = folder / kind
        data.mkdir()
        for k, f in enumerate(feeds):
            if kind == "npy":
                np.save(data / f"{k}.npy", f[i.name])
            elif kind == "one":
                np.savez(data / f"{k}.npz", in_0=f[i.name])
            elif kind == "pb":
                (data / f"set_{k}").mkdir()
                (data / f"set_{k}/input_0.pb").write_bytes(numpy_helper.from_array(f[i.name]).SerializeToString())
        out = folder / f"{kind}.onnx"
        done = burin("quantize", path, f"--calibrate={folder / 'all.npz' if kind == 'npz' else data}", "--target=aarch64", "-o", out)
        results.append(out.read_bytes() if done.returncode == 0 else done.stderr)
    check(f"{path.stem}: folders of samples", all(r == results[0] and isinstance(r, bytes) for r in results),
          [r if isinstance(r, str) else len(r) for r in results])


def save_net(net, path):
    graph = onnx.helper.make_graph(net.nodes, "g", net.inputs, net.outputs, net.weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", own_models.OPSET)], ir_version=9), path)


def check_channels(folder):
    """Channels whose ranges are a hundred times apart, in front of a depthwise convolution that makes them even again."""
    net, c = own_models.Net(9), 16
    x, sizes = net.input("x", [1, 3, 16, 16]), np.logspace(-2, 0, c).reshape(c, 1, 1, 1)
    first, second = net.rng.normal(0, 0.4, (c, 3, 3, 3)) * sizes, net.rng.normal(0, 0.4, (c, 1, 3, 3)) / sizes
    y = net.op("Relu", net.op("Conv", x, net.const(first), pads=[1] * 4))
    y = net.op("Relu", net.op("Conv", y, net.const(second), pads=[1] * 4, group=c))
    net.output(net.conv(y, c, 8, k=1), "y")
    path, out, data = folder / "channels.onnx", folder / "channels_int8.onnx", folder / "samples.npz"
    save_net(net, path)
    a = session(path)
    feeds = write_samples(data, a.get_inputs(), SAMPLES, 10)
    done = burin("quantize", path, f"--calibrate={data}", "--max-drop=100", "-o", out)
    check("uneven channels are told", "evened out in 1 of" in done.stderr, done.stderr)
    compiled, b = burin_python.compile(str(out)), session(out)
    wanted, ours, theirs = ([v for f in feeds for v in run(f)] for run in (lambda f: a.run(None, f), compiled.run, lambda f: b.run(None, f)))
    check("uneven channels keep their bits", sqnr(ours, wanted) > 30, f"{sqnr(ours, wanted):.1f} dB")
    check("uneven channels in ONNX Runtime", sqnr(ours, theirs) > 40, f"{sqnr(ours, theirs):.1f} dB")


def check_pictures(folder):
    """A folder of images gives what their tensors do."""
    net = own_models.Net(7)
    x = net.input("x", [1, 3, 16, 16])
    net.output(net.op("Relu", net.conv(x, 3, 8)), "y")
    path, pictures = folder / "net.onnx", folder / "images"
    save_net(net, path)
    pictures.mkdir()
    shades = np.random.default_rng(8).integers(0, 256, [3, 3, 16, 16])
    for k, rgb in enumerate(shades):
        (pictures / f"{k}.png").write_bytes(png(rgb.transpose(1, 2, 0).astype(np.uint8)))
    np.savez(folder / "shades.npz", x=((shades - 100) / 50).astype(np.float32))
    outs = [folder / "a.onnx", folder / "b.onnx"]
    errors = [burin("quantize", path, f"--calibrate={data}", "-o", out).stderr
              for data, out in ((f"{pictures},mean=100,std=50", outs[0]), (folder / "shades.npz", outs[1]))]
    check("images are read as burin run reads them", all(o.exists() for o in outs) and outs[0].read_bytes() == outs[1].read_bytes(), errors)


def png(pixels):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    h, w, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def main():
    with tempfile.TemporaryDirectory(prefix="burin-") as name:
        folder = Path(name)
        check_forms(folder)
        models = own_models.write_all(folder)
        for path in models:
            check_export(path, folder)
        products = [p for p in models if has_float_product(p)]
        for path in products:
            check_quantize(path, folder)
        matrices = sorted((p for p in products if has_matrix(p)), key=lambda p: p.stat().st_size)
        for path in matrices[-3:]:
            for form, least in (("int8-dynamic", LEAST_SQNR), ("int4-weights", 6), ("w8a16", LEAST_SQNR)):
                check_form(path, folder, form, least)
        small = min(products, key=lambda p: p.stat().st_size)
        check_both_at_once(small, folder)
        check_budget(small, folder)
        check_report(small, folder)
        check_small_file(small, folder)
        check_activation_products(folder)
        check_bodies(folder)
        check_damaged_layer(folder)
        check_entropy(folder)
        check_rounding(folder)
        check_data(small, folder)
        check_folders(small, folder)
        check_pictures(folder)
        check_channels(folder)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
