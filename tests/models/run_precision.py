#!/usr/bin/env python3
"""Part "precision": products of f32 behind Casts of f16 and bf16 compute what the Casts say and keep their weights in 16 bits, in
all forms of convolutions and products; what --precision makes of the repository's own networks gives the same in ONNX Runtime,
compiled, and at once; budgets hold, values beyond f16 are told or avoided."""
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]
import burin as burin_python  # noqa: E402
from tests.models import own_models  # noqa: E402
from tests.models.run_quantize import has_float_product, save_net, session, sqnr, write_samples  # noqa: E402
from tests.support.part import burin, check, finish  # noqa: E402

TYPES = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


FEW_PAIRS = ("conv 3x3, few channels, stride", "depthwise")  # computed in f32


# ---- Casts around products ----
def halves(net, dtype, *shape):
    """Weights in 16 bits behind a Cast."""
    name = f"h{len(net.weights)}"
    values = net.rng.normal(0, (2 / max(1, int(np.prod(shape[1:])))) ** 0.5, shape).astype(np.float32)
    net.weights.append(helper.make_tensor(name, dtype, shape, values.ravel()))
    return net.op("Cast", name, to=TensorProto.FLOAT)


def rounded(net, dtype, x):
    return net.op("Cast", net.op("Cast", x, to=dtype), to=TensorProto.FLOAT)


def moved(net, x, w):
    parts = [net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), net.op("Slice", x, net.ints(0, 0), net.ints(4, 4), net.ints(2, 3))]
    parts = [rounded(net, net.half, p) for p in parts]
    return net.op("Conv", rounded(net, net.half, net.op("Concat", *parts, axis=1)), w(40, 64, 1, 1))


def product_cases():
    """Name, shape of x, and what is computed of x by a function of the net, the value and weights of a shape."""
    def conv(cout, cin, k, **more):
        return lambda n, x, w: n.op("Conv", x, w(cout, cin // more.get("group", 1), *k), n.const(n.rng.normal(size=cout)), **more)

    yield "conv 1x1", (1, 32, 9, 9), conv(48, 32, (1, 1))
    yield "conv 3x3", (2, 32, 12, 12), conv(40, 32, (3, 3), pads=[1] * 4)
    yield "conv 3x3, few channels, stride", (1, 3, 17, 17), conv(40, 3, (3, 3), pads=[1] * 4, strides=[2, 2])
    yield "conv with odd groups", (1, 33, 8, 8), conv(66, 33, (3, 3), group=3)
    yield "depthwise", (1, 128, 7, 7), conv(128, 128, (3, 3), group=128, pads=[1] * 4)
    yield "conv 1-D", (1, 32, 40), conv(48, 32, (5,), dilations=[2])
    yield "conv 3-D", (1, 16, 5, 6, 7), conv(24, 16, (3, 3, 3), pads=[1] * 6)
    yield "transposed", (1, 32, 6, 6), lambda n, x, w: n.op("ConvTranspose", x, w(32, 24, 2, 2), strides=[2, 2])
    yield "matmul", (3, 20, 50), lambda n, x, w: n.op("Add", n.op("MatMul", x, w(50, 70)), n.const(n.rng.normal(size=70)))
    yield "matmul, one row", (1, 64), lambda n, x, w: n.op("MatMul", x, w(64, 100))
    yield "gemm", (9, 40), lambda n, x, w: n.op("Gemm", x, w(60, 40), n.const(n.rng.normal(size=60)), transB=1, alpha=0.5)
    yield "three products of one", (4, 48), lambda n, x, w: n.op("Concat", *[n.op("MatMul", x, w(48, 32)) for _ in range(3)], axis=1)
    yield "moved in between", (1, 32, 8, 8), moved


def check_products(folder):
    for kind, dtype in TYPES.items():
        for name, shape, build in product_cases():
            for both in (True, False):
                net = own_models.Net(5)
                net.half = dtype
                x = net.op("Relu", net.input("x", list(shape)))
                y = build(net, rounded(net, dtype, x) if both else x, lambda *s: halves(net, dtype, *s))
                net.output(net.op("Relu", y), "y")
                path = folder / "cast.onnx"
                save_net(net, path)
                what = f"{name} of {kind}{'' if both else ' weights'}"
                text = burin(path, "--emit=graph").stdout
                few = both and kind == "bf16" and name in FEW_PAIRS
                check(f"{what}: weights stay in 16 bits", ("wide=1" in text and f"{kind}[" in text) != few, text)
                feed = {"x": net.rng.normal(size=shape).astype(np.float32)}
                fast, plain = (burin_python.compile(str(path), flags=f).run(feed)[0] for f in ([], ["-O0"]))
                check(f"{what}: -O3 and -O0", sqnr([fast], [plain]) > 100, f"{sqnr([fast], [plain]):.1f} dB")
                theirs = session(path).run(None, feed)[0]
                check(f"{what}: ONNX Runtime", sqnr([fast], [theirs]) > 100, f"{sqnr([fast], [theirs]):.1f} dB")


def check_plans(folder):
    """Matrix registers read a value where it lies, with the border that another reader needs, and not a copy: plans know."""
    for size, cout in ((55, 64), (13, 192)):
        net = own_models.Net(8)
        bf16 = TYPES["bf16"]
        w = lambda *s: halves(net, bf16, *s)  # noqa: E731
        x = rounded(net, bf16, net.op("Relu", net.op("Conv", rounded(net, bf16, net.input("x", [1, 64, size, size])), w(16, 64, 1, 1))))
        one, three = net.op("Conv", x, w(cout, 16, 1, 1)), net.op("Conv", x, w(cout, 16, 3, 3), pads=[1] * 4)
        net.output(net.op("Relu", net.op("Concat", one, three, axis=1)), "y")
        save_net(net, folder / "plans.onnx")
        done = burin(folder / "plans.onnx", "--target=sapphirerapids", "--emit=obj", "-o", folder / "plans.o")
        check(f"plans of {size}x{size} hold", done.returncode == 0 and "warning" not in done.stderr, done.stderr)


# ---- --precision ----
def floats_of(path):
    """Bytes of constants by type."""
    sizes = {}
    for t in onnx.load(path).graph.initializer:
        sizes[t.data_type] = sizes.get(t.data_type, 0) + int(np.prod(t.dims)) * (2 if t.data_type in TYPES.values() else 4)
    return sizes


def check_own(path, folder, kind, least):
    """Written, loaded by ONNX Runtime, compiled from the file and at once."""
    out = folder / "lower.onnx"
    done = burin(path, f"--precision={kind}", "--emit=onnx", "-o", out)
    if not check(f"{path.stem} in {kind}", done.returncode == 0, done.stderr):
        return
    sizes, before = floats_of(out), floats_of(path)
    half = sum(sizes.get(t, 0) for t in TYPES.values())
    if kind != "mixed":
        products = path.stem != "lstm"  # whose own weights stay
        check(f"{path.stem} in {kind}: weights have half the size", half > 0.25 * products * before[TensorProto.FLOAT], (sizes, before))
    a, b = session(path), session(out)
    check(f"{path.stem} in {kind}: inputs and outputs keep their types",
          [(v.name, v.type) for v in a.get_inputs() + a.get_outputs()] == [(v.name, v.type) for v in b.get_inputs() + b.get_outputs()])
    feeds = write_samples(folder / "s.npz", a.get_inputs(), 2, 3)
    from_file, at_once = burin_python.compile(str(out)), burin_python.compile(str(path), flags=[f"--precision={kind}"])
    wanted, ours, theirs, direct = ([v for f in feeds for v in run(f)]
                                    for run in (lambda f: a.run(None, f), from_file.run, lambda f: b.run(None, f), at_once.run))
    check(f"{path.stem} in {kind}: the file and at once", all(np.array_equal(p, q) for p, q in zip(ours, direct)))
    check(f"{path.stem} in {kind}: near the float model", sqnr(ours, wanted) > least, f"{sqnr(ours, wanted):.1f} dB")
    check(f"{path.stem} in {kind}: ONNX Runtime", sqnr(ours, theirs) > least, f"{sqnr(ours, theirs):.1f} dB")


# ---- range, budget ----
def check_attention(folder):
    """Both products of an attention take bf16 with AMX where pairs of keys are groups (48 tokens, not 58), else neither."""
    for tokens, amx in ((48, True), (58, False)):
        net, c = own_models.Net(31), 64
        net.output(net.attention(net.input("x", [2, tokens, c]), tokens, c, 2), "y")
        path, out = folder / "attention.onnx", folder / "attention_bf16.onnx"
        save_net(net, path)
        text = burin(path, "--precision=bf16", "--target=sapphirerapids", "--print-ir-after=attention", "-o", folder / "a.o", "--emit=obj").stdout
        done = burin(path, "--precision=bf16", "-o", out, "--emit=onnx", "--target=sapphirerapids")
        if not check(f"attention of {tokens} in bf16", done.returncode == 0 and text, done.stderr):
            continue
        check(f"attention of {tokens}: its products", len(re.findall(r"f32\[2,2,\d+,\d+\] = MatMul.*wide=1", text)) == (2 if amx else 0) and ("SoftmaxMatMul" in text) != amx, text[-400:])
        a, b = session(path), session(out)
        feed = {"x": np.random.default_rng(5).normal(size=(2, tokens, c)).astype(np.float32)}
        wanted, theirs = a.run(None, feed), b.run(None, feed)
        for target in ("native", "x86-64-v3"):
            ours = burin_python.compile(str(out), flags=[f"--target={target}"]).run(feed)
            check(f"attention of {tokens} on {target}: near float", sqnr(ours, wanted) > 35, f"{sqnr(ours, wanted):.1f} dB")
            check(f"attention of {tokens} on {target}: ONNX Runtime", sqnr(ours, theirs) > 40, f"{sqnr(ours, theirs):.1f} dB")


def wide_net(path, weight=1.0):
    """A value of some 1e6 between two layers, and weights that may not fit f16."""
    net = own_models.Net(3)
    x = net.op("Relu", net.op("MatMul", net.input("x", [1, 64]), net.const(net.rng.normal(0, 3e5, (64, 64)) * weight)))
    x = net.op("Relu", net.op("MatMul", x, net.const(net.rng.normal(0, 1e-6, (64, 64)) / weight)))
    net.output(net.op("MatMul", x, net.const(net.rng.normal(0, 0.1, (64, 32)))), "y")
    save_net(net, path)
    return session(path)


def check_range(folder):
    path, data, out = folder / "wide.onnx", folder / "samples.npz", folder / "out.onnx"
    a = wide_net(path, 0.05)  # weights within f16, sums of 64 products beyond
    feeds = write_samples(data, a.get_inputs(), 8, 2)
    done = burin("quantize", path, "--precision=f16", f"--calibrate={data}", "-o", out)
    check("values beyond f16 are told", done.returncode == 0 and "becomes infinite" in done.stderr and "NaN or infinite" in done.stderr, done.stderr)
    done = burin("quantize", path, "--precision=mixed", f"--calibrate={data}", "-o", out)
    check("mixed: no warning", done.returncode == 0 and "infinite" not in done.stderr, done.stderr)
    b, compiled = session(out), burin_python.compile(str(out))
    wanted, ours, theirs = ([v for f in feeds for v in run(f)] for run in (lambda f: a.run(None, f), compiled.run, lambda f: b.run(None, f)))
    check("mixed avoids values beyond f16", sqnr(ours, wanted) > 25 and sqnr(theirs, wanted) > 25, (sqnr(ours, wanted), sqnr(theirs, wanted)))
    wide_net(path)
    done = burin(path, "--precision=f16", "--emit=onnx", "-o", out)
    check("weights beyond f16 stay float, with the reason", "its weights reach" in done.stderr and "2 of 3 in f16" in done.stderr, done.stderr)
    got = session(out).run(None, feeds[0])[0]
    check("and are finite", done.returncode == 0 and np.isfinite(numpy_weights(out)).all(), got)


def numpy_weights(path):
    return np.concatenate([onnx.numpy_helper.to_array(t).astype(np.float32).ravel() for t in onnx.load(path).graph.initializer if t.data_type in (1, 10)])


def check_budget(path, folder):
    a, data = session(path), folder / "samples.npz"
    write_samples(data, a.get_inputs(), 8, 4)
    lost = []
    for most in ("1e-9", "0.01", "50"):
        done = burin("quantize", path, "--precision=bf16", f"--calibrate={data}", f"--max-drop={most}", "-o", folder / "b.onnx", timeout=200)
        words = done.stderr.split("  layers       ")[1].split() if done.returncode == 0 else []
        if check(f"budget {most}", done.returncode == 0 and len(words) > 2, done.stderr):
            lost.append((int(words[0]), int(words[2])))
    check("a larger budget leaves more layers in bf16", lost and lost[0][0] == 0 and lost[-1][0] == lost[-1][1] and lost == sorted(lost), lost)


# ---- models of 16 bits ----
def half_model(path, dtype, folder):
    """The network with all floats of 16 bits, inputs and outputs, too, and a table."""
    net = own_models.Net(8)
    table = helper.make_tensor("table", dtype, [50, 32], net.rng.normal(size=50 * 32).astype(np.float32))
    w = helper.make_tensor("w", dtype, [32, 48], (net.rng.normal(size=32 * 48) / 6).astype(np.float32))
    b = helper.make_tensor("b", dtype, [48], net.rng.normal(size=48).astype(np.float32))
    net.weights += [table, w, b]
    ids = net.input("ids", [1, 7], TensorProto.INT64)
    x = net.input("x", [1, 7, 32], dtype)
    rows = net.op("Add", net.op("Gather", "table", ids), x)
    y = net.op("Add", net.op("MatMul", rows, "w"), "b")
    c = net.input("c", [], TensorProto.BOOL)
    body = [helper.make_graph([helper.make_node(kind, [y], [f"{kind}_out"])], kind, [], [helper.make_tensor_value_info(f"{kind}_out", dtype, None)])
            for kind in ("Relu", "Neg")]
    y = net.op("If", c, then_branch=body[0], else_branch=body[1])
    y = net.op("Softmax", net.op("Cast", net.op("Cast", y, to=TensorProto.FLOAT), to=dtype), axis=-1)
    net.output(y, "y", dtype)
    save_net(net, path)


def check_half_models(folder):
    path, out = folder / "half.onnx", folder / "f32.onnx"
    half_model(path, TensorProto.FLOAT16, folder)
    done = burin(path, "--precision=f32", "--emit=onnx", "-o", out)
    if not check("a model of f16 in f32", done.returncode == 0, done.stderr):
        return
    a, b = session(path), session(out)
    check("it keeps the types of its inputs and outputs", [v.type for v in a.get_inputs() + a.get_outputs()] == [v.type for v in b.get_inputs() + b.get_outputs()])
    rng = np.random.default_rng(1)
    loaded = onnx.load(out)
    kinds = {n.output[0]: helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT) for n in loaded.graph.node if n.op_type in ("MatMul", "Softmax")}
    check("it computes in f32", kinds and not any(n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT16 and n.output[0] != loaded.graph.output[0].name for n in loaded.graph.node), [n.op_type for n in loaded.graph.node])
    for flags in ([], ["-O0"]):
        compiled = burin_python.compile(str(path), flags=["--precision=f32", *flags])
        for c in (True, False):
            feed = {"ids": rng.integers(0, 50, (1, 7)), "x": rng.normal(size=(1, 7, 32)).astype(np.float16), "c": np.array(c)}
            got, wanted, rounded_ = compiled.run(feed)[0], b.run(None, feed)[0], a.run(None, feed)[0]
            check(f"f16 in f32 {flags} {c}: ONNX Runtime on the file", sqnr([got], [wanted]) > 65, sqnr([got], [wanted]))
            check(f"f16 in f32 {flags} {c}: near the f16 model", sqnr([got], [rounded_]) > 40, sqnr([got], [rounded_]))
    text = burin(path, "--precision=f32", "--emit=graph").stdout
    check("weights and table stay in f16", "f16[50,32] = const" in text and "f16[32,48] = const" in text, text)
    own = min(own_models.write_all(folder), key=lambda p: p.stat().st_size)
    plain, same = (burin(own, *flags, "--emit=loop").stdout for flags in ([], ["--precision=f32"]))
    check("--precision=f32 changes nothing of a model of f32", plain and plain == same)


# ---- what does not go together ----
def check_errors(path, folder):
    out = folder / "x.onnx"
    for flags, words in ((["--precision=f17"], "none of f32, f16, bf16, mixed"),
                         (["--precision=mixed", "--quantize=int8-dynamic"], "give one of them"),
                         (["--precision=bf16", "--calibration=mse"], "--calibration is of --quantize"),
                         (["--max-drop=1"], "need --quantize=FORM or --precision=TYPE"),
                         (["--precision=mixed", f"--calibrate={folder / 'nowhere.npz'}"], "nowhere.npz")):
        done = burin(path, *flags, "--emit=onnx", "-o", out)
        check(f"{flags[-1]}: refused", done.returncode in (2, 3) and words in done.stderr, (done.returncode, done.stderr))


def main():
    with tempfile.TemporaryDirectory(prefix="burin-") as name:
        folder = Path(name)
        check_products(folder)
        check_plans(folder)
        models = [p for p in own_models.write_all(folder) if has_float_product(p)]
        models.sort(key=lambda p: p.stat().st_size)
        for k, path in enumerate(models):
            kind, least = (("f16", 40), ("bf16", 22), ("mixed", 22))[k % 3]
            check_own(path, folder, kind, least)
        check_attention(folder)
        check_range(folder)
        check_budget(models[0], folder)
        check_half_models(folder)
        check_errors(models[0], folder)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
