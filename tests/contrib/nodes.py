"""What part contrib compares with: nodes of com.microsoft as ONNX Runtime computes them."""
import numpy as np
import onnxruntime as ort
from onnx import helper as h, numpy_helper as nh

import burin
from tests.support import targets

rng = np.random.default_rng(0)
OPSETS = [h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)]
LARGEST = 127 if targets.exact_bytes() else 63  # of weights
LEVELS = [("native", []), ("native", ["-O0"]), ("x86-64-v2", [])]
counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(ok, what):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print(what)


def f32(*shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def u8(*shape):
    return rng.integers(0, 256, shape).astype(np.uint8)


def i8(*shape):
    return rng.integers(-LARGEST - 1, LARGEST + 1, shape).astype(np.int8)


def scale(*shape):
    return rng.uniform(0.005, 0.03, shape).astype(np.float32)


def session(model):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def node_model(op, inputs, constant, outputs, attrs, symbolic):
    """inputs: arrays or None; the first `len - constant` are fed. symbolic: {(input, dim): name}."""
    names = [f"x{k}" if a is not None else "" for k, a in enumerate(inputs)]
    out = [f"y{k}" for k in range(outputs)]
    node = h.make_node(op, names, out, domain="com.microsoft", **attrs)
    infos, init = [], []
    for k, a in enumerate(inputs):
        if a is None:
            continue
        if constant(k):
            init.append(nh.from_array(np.asarray(a), names[k]))
        else:
            shape = [symbolic.get((k, d), s) for d, s in enumerate(np.shape(a))]
            infos.append(h.make_tensor_value_info(names[k], h.np_dtype_to_tensor_dtype(np.asarray(a).dtype), shape))
    graph = h.make_graph([node], "g", infos, [h.make_empty_tensor_value_info(o) for o in out], init)
    return h.make_model(graph, opset_imports=OPSETS, ir_version=10)


def compare(title, got, want, slack):
    """slack: 0 for bits; for floats a tolerance, for bytes the units that differ."""
    for k, (g, w) in enumerate(zip(got, want, strict=True)):
        if g.dtype != w.dtype or g.shape != w.shape:
            return f"{title}: output {k} is {g.dtype}{g.shape}, must be {w.dtype}{w.shape}"
        worst = np.abs(g.astype(np.float64) - w.astype(np.float64)).max(initial=0)
        if not worst <= slack:
            return f"{title}: output {k} differs by {worst}"
    return None


def node(op, inputs, *, feed=(0,), outputs=1, slack=0, symbolic={}, alike=None, want=None, see=lambda y: y, **attrs):
    """alike: inputs that ONNX Runtime gets in place of these; want: the results, where it has no kernel for the CPU; see: what of each
    result is compared."""
    model = node_model(op, inputs, lambda k: k not in feed, outputs, attrs, symbolic)
    feeds = {f"x{k}": np.asarray(inputs[k]) for k in feed}
    try:
        if want is None:
            want = session(node_model(op, alike, lambda k: True, outputs, attrs, {}) if alike else model).run(None, {} if alike else feeds)
    except Exception as e:
        check(False, f"{op} {attrs}: ONNX Runtime refuses the test: {str(e)[:200]}")
        return
    for target, flags in LEVELS:
        title = f"{op} {[np.shape(a) for a in inputs if a is not None]} {attrs} {target} {flags}"
        try:
            got = burin.compile(model, target=target, flags=flags).run(feeds)
            bad = compare(title, [see(y) for y in got], [see(y) for y in want], slack)
        except Exception as e:
            bad = f"{title}: {e}"
        check(not bad, bad)


def refused(op, inputs, text, *, feed=(0,), **attrs):
    try:
        burin.compile(node_model(op, inputs, lambda k: k not in feed, 1, attrs, {}))
        check(False, f"{op} {attrs}: compiles, must be refused: {text}")
    except Exception as e:
        check(text in str(e), f"{op} {attrs}: is refused with {e}, must say: {text}")
