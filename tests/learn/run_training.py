"""Compiled training steps: losses, optimizers, normalization, tied and frozen parameters against what PyTorch computed
(training.npz, make_training.py); dropout, sizes, the C header, other backends, and what is refused.

    run_training.py [BURIN]"""
import itertools
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parents[1] / "python")]
if len(sys.argv) > 1:
    os.environ["BURIN"] = sys.argv[1]
import burin  # noqa: E402
import part  # noqa: E402
import training_cases as cases  # noqa: E402

STORED = np.load(HERE / "training.npz")
node = helper.make_node


def compiled(model, loss, *flags, optimizer=None):
    more = [f"--optimizer={optimizer}"] if optimizer else []
    return burin.compile(model, flags=[f"--train={loss}", *more, *flags])


def near(name, got, want, limit):
    want = np.asarray(want)
    error = float(np.max(np.abs(got - want)) / max(float(np.max(np.abs(want))), 1e-3))
    return part.check(name, error <= limit, f"relative error {error:.3g}, allowed {limit}")


def caught(name, work):
    """A compile error is one failed check, not the end."""
    try:
        work()
    except Exception as e:  # noqa: BLE001
        part.check(name, False, f"{type(e).__name__}: {str(e).strip()[-300:]}")


# ---- losses ----
def loss_case(name, model, spec, x, labels, teacher, w, group):
    m = compiled(model, spec, optimizer="sgd,lr=1")
    state = m.state()
    data = {"x": x, "labels": labels, **({"teacher": teacher} if "distill" in spec else {})}
    loss = m.run({**data, **state})[0]
    near(f"{group} {name}: loss", loss, STORED[f"{group}/{name}/loss"], 1e-9)
    near(f"{group} {name}: gradient", w - state["w"], STORED[f"{group}/{name}/w"], 1e-8)


def softmax(v):
    e = np.exp(v - v.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def shaped_case(name, axis):
    """Classes that end along another axis, behind operators that give another shape alone, are the same loss."""
    spec, end = next((s, e) for n, s, _, e in cases.softmax_losses() if n == name)
    x, w, labels, _, teacher = cases.loss_data(name, end)
    model = cases.loss_model(name, end)
    g = model.graph
    g.node[-1].output[0] = "p"
    g.initializer.append(numpy_helper.from_array(np.array([1] if axis == 2 else [2, 3]), "axes"))
    g.node.append(node("Unsqueeze", ["p", "axes"], ["y"]))
    of = lambda v: v[:, None] if axis == 2 else v[:, :, None, None]
    told = of(softmax(teacher) if end == "Softmax" else teacher)
    full = f"softmax_cross_entropy,axis={axis}" + ("," + spec if spec else "")
    m = compiled(model, full, optimizer="sgd,lr=1")
    state = m.state()
    data = {"x": x, "labels": labels.reshape(told[:, :, 0].shape if axis == 2 else (-1, 1, 1)), **({"teacher": told} if "distill" in spec else {})}
    loss = m.run({**data, **state})[0]
    near(f"softmax {name}, classes along {axis} of {told.ndim}: loss", loss, STORED[f"softmax/{name}/loss"], 1e-9)
    near(f"softmax {name}, classes along {axis} of {told.ndim}: gradient", w - state["w"], STORED[f"softmax/{name}/w"], 1e-8)


def shaped_values(name, kind, spec):
    """A Sigmoid in front of what only gives another shape."""
    x, w, _, labels, _ = cases.loss_data(name, "Sigmoid")
    model = cases.loss_model(name, "Sigmoid")
    model.graph.node[-1].output[0] = "p"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    model.graph.node.append(node("Unsqueeze", ["p", "axes"], ["y"]))
    m = compiled(model, kind + ("," + spec if spec else ""), optimizer="sgd,lr=1")
    state = m.state()
    loss = m.run({"x": x, "labels": labels[:, None], **state})[0]
    near(f"value {name}, in another shape: loss", loss, STORED[f"value/{name}/loss"], 1e-9)
    near(f"value {name}, in another shape: gradient", w - state["w"], STORED[f"value/{name}/w"], 1e-8)


def losses():
    for name, spec, _, end in cases.softmax_losses():
        x, w, labels, _, teacher = cases.loss_data(name, end)
        told = softmax(teacher) if end == "Softmax" else teacher
        full = "softmax_cross_entropy" + ("," + spec if spec else "")
        caught(name, lambda: loss_case(name, cases.loss_model(name, end), full, x, labels, told, w, "softmax"))
    for name in ("end", "distill_end", "logs"):
        caught(name, lambda: shaped_case(name, 1))
        caught(name, lambda: shaped_case(name, 2))
    caught("bce_end", lambda: shaped_values("bce_end", "sigmoid_cross_entropy", ""))
    caught("dice_end", lambda: shaped_values("dice_end", "dice", "smooth=1"))
    for name, kind, spec, end in cases.value_losses():
        x, w, _, labels, teacher = cases.loss_data(name, end)
        if kind == "kl":
            labels = labels / labels.sum(1, keepdims=True)
        full = kind + ("," + spec if spec else "")
        caught(name, lambda: loss_case(name, cases.loss_model(name, end), full, x, labels, teacher, w, "value"))


# ---- optimizers ----
def steps(m, xs, labels):
    state = m.state()
    return state, [m.run({"x": x, "labels": y, **state})[0] for x, y in zip(xs, labels)]


def optimizer_case(name, dtype, *flags):
    w, xs, labels = cases.mlp_data()
    gather = [f"--accumulate={cases.GATHER}"] if name == "gather" else []
    m = compiled(cases.mlp_model(dtype), "softmax_cross_entropy", *gather, *flags, optimizer=cases.OPTIMIZERS[name])
    state, found = steps(m, xs.astype(dtype), labels)
    limit = 2e-6 if dtype is np.float32 else 1e-9
    if name == "lion" and dtype is np.float32:
        limit = 1e-5
    key = f"optimizer/{name}/{dtype.__name__}"
    near(f"{key}{' '.join(flags)}: losses", np.array(found), STORED[f"{key}/loss"], limit)
    for k in w:
        near(f"{key}{' '.join(flags)}: {k}", state[k], STORED[f"{key}/{k}"], limit)
    count = cases.STEPS // (cases.GATHER if gather else 1)
    part.check(f"{key}: steps", state["step"] == count and state.kinds["step"] == "counter", state["step"])


def optimizers():
    for name in cases.OPTIMIZERS:
        for dtype in (np.float32, np.float64):
            caught(name, lambda: optimizer_case(name, dtype))
    for name in ("momentum", "adamw_decay", "gather"):
        caught(f"{name} -O0", lambda: optimizer_case(name, np.float32, "-O0"))


# ---- halves of a step ----
def halves_case(name, model, xs, labels, *flags):
    """Gradients, then update, on one state: what the whole step gives, to the bit."""
    whole, gradients, update = (compiled(model, "softmax_cross_entropy", *flags, *more)
                                for more in ([], ["--step-part=gradients"], ["--step-part=update"]))
    want, state = whole.state(), gradients.state()
    part.check(f"halves {name}: one state", [(k, v.shape) for k, v in state.items()] == [(k, v.shape) for k, v in update.state().items()])
    calls = next((int(f.split("=")[1]) for f in flags if f.startswith("--accumulate")), 1)
    losses = []
    for i, (x, y) in enumerate(zip(xs, labels)):
        losses.append([m.run({"x": x, "labels": y, **s})[0].tobytes() for m, s in ((whole, want), (gradients, state))])
        if (i + 1) % calls == 0:
            update.run(dict(state))
    part.check(f"halves {name}: losses", all(a == b for a, b in losses))
    other = [k for k in want if want[k].tobytes() != state[k].tobytes()]
    part.check(f"halves {name}: state", not other, other)


def two_machines(x, labels):
    """Each takes half of a batch; averaged gradients, and every machine's update: the step of the whole batch."""
    model = cases.mlp_model(np.float64)
    whole, gradients, update = (compiled(model, "softmax_cross_entropy", *more, optimizer="adam,lr=0.02")
                                for more in ([], ["--step-part=gradients"], ["--step-part=update"]))
    want, machines = whole.state(), [gradients.state(), gradients.state()]
    for _ in range(3):
        whole.run({"x": x, "labels": labels, **want})
        for m, at in zip(machines, (slice(0, 2), slice(2, 4))):
            gradients.run({"x": x[at], "labels": labels[at], **m})
        for k in [k for k in want if want.kinds[k] == "parameter"]:
            mean = (machines[0][f"{k}.gradient"] + machines[1][f"{k}.gradient"]) / 2
            for m in machines:
                m[f"{k}.gradient"][...] = mean
        for m in machines:
            update.run(dict(m))
    part.check("two machines agree", machines[0].bytes.tobytes() == machines[1].bytes.tobytes())
    for k in want:
        near(f"two machines: {k}", machines[0][k], want[k], 1e-12)


def halves():
    _, xs, labels = cases.mlp_data()
    model, x32 = cases.mlp_model(np.float32), xs.astype(np.float32)
    for flags in (["--optimizer=sgd,lr=0.1"], ["--optimizer=adamw,lr=0.01,clip=0.5"], ["--optimizer=lion", "--accumulate=2"],
                  ["--optimizer=sgd,momentum=0.9", "--precision=f16"]):
        caught(f"halves {flags}", lambda: halves_case(" ".join(flags), model, x32, labels, *flags))
    _, xn, ln = cases.net_data()
    caught("halves net", lambda: halves_case("net", cases.net_model(), xn, ln, "--optimizer=adam"))
    caught("two machines", lambda: two_machines(xs[0][:4], labels[0][:4]))


# ---- networks ----
def in_training_form(m):
    """As files that were exported in it have the normalization."""
    norm = next(n for n in m.graph.node if n.op_type == "BatchNormalization")
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    norm.output.extend(["mean_out", "var_out"])
    return m


def nets():
    for (name, trainable), form in itertools.product(cases.NETS.items(), ("", "training form")):
        def work():
            w, xs, labels = cases.net_data()
            flags = [f"--trainable={trainable}"] if trainable else []
            model = in_training_form(cases.net_model()) if form else cases.net_model()
            m = compiled(model, "softmax_cross_entropy", *flags, optimizer=cases.NET_OPTIMIZER)
            state, found = steps(m, xs, labels)
            near(f"net {name} {form}: losses", np.array(found), STORED[f"net/{name}/loss"], 1e-8)
            kinds = {"parameter": [], "statistic": []}
            for k, kind in state.kinds.items():
                kinds.get(kind, []).append(k)
            want = sorted(k[len(f"net/{name}/"):] for k in STORED.files if k.startswith(f"net/{name}/") and not k.endswith("loss"))
            part.check(f"net {name}: what is there", sorted(kinds["parameter"] + kinds["statistic"]) == want, kinds)
            for k in want:
                # ONNX counts n elements for the variance, PyTorch n - 1: they start equal and differ by that factor
                n = 4 * 6 * 5
                stored = STORED[f"net/{name}/{k}"]
                if k == "var":
                    left = 0.9 ** cases.STEPS
                    stored = left + (stored - left) * (n - 1) / n
                near(f"net {name} {form}: {k}", state[k], stored, 1e-8)
        caught(f"{name} {form}", work)


# ---- dropout ----
def dropout_model(opset):
    ratio = numpy_helper.from_array(np.array(0.25, np.float32), "ratio")
    drop = node("Dropout", ["x"], ["d"], ratio=0.25) if opset < 12 else node("Dropout", ["x", "ratio"], ["d"])
    m = cases.model([drop, node("Mul", ["d", "w"], ["y"])], {"x": ("N", 1000)}, "y", {"w": np.ones(1000)}, np.float32, opset)
    if opset >= 12:
        m.graph.initializer.append(ratio)
    return m


def dropped(m, count):
    """Which elements were dropped in each of some calls: the gradient of their weights is 0."""
    state, x, found = m.state(), np.ones((1, 1000), np.float32), []
    for _ in range(count):
        before = state["w"].copy()
        m.run({"x": x, "labels": np.zeros((1, 1000), np.float32), **state})
        found.append(before == state["w"])
    return found


def dropout():
    for opset in (9, 17):
        m = compiled(dropout_model(opset), "mse,reduction=sum", optimizer="sgd,lr=1e-4")
        a, b = dropped(m, 4), dropped(m, 4)
        part.check(f"dropout {opset}: a run repeats it", all(np.array_equal(p, q) for p, q in zip(a, b)))
        part.check(f"dropout {opset}: calls differ", all(np.mean(a[0] == p) < 0.8 for p in a[1:]))
        part.check(f"dropout {opset}: a quarter", all(0.2 < p.mean() < 0.3 for p in a), [p.mean() for p in a])
        other = dropped(compiled(dropout_model(opset), "mse,reduction=sum", "--seed=7", optimizer="sgd,lr=1e-4"), 1)
        part.check(f"dropout {opset}: seeds differ", np.mean(other[0] == a[0]) < 0.8)
    m = compiled(dropout_model(17), "mse,reduction=sum", "--accumulate=3", optimizer="sgd,lr=1e-4")
    state, seen = m.state(), []
    for _ in range(2):
        m.run({"x": np.ones((1, 1000), np.float32), "labels": np.zeros((1, 1000), np.float32), **state})
        seen.append(state["w.gradient"] == 0)
    part.check("dropout: differs while gradients are gathered", 0.3 < np.mean(seen[1]) / np.mean(seen[0]) ** 2 < 3 and
               not np.array_equal(*seen), [s.mean() for s in seen])


# ---- learning: the loss falls ----
def body_model(kind, dtype=np.float64, width=2000):
    """y: what Dropout(w) adds up to in four iterations of a Loop or Scan; of If, once."""
    info, f, i64, boolean = helper.make_tensor_value_info, cases.TYPES[dtype], onnx.TensorProto.INT64, onnx.TensorProto.BOOL
    drop = [node("Mul", ["w", "x"], ["v"]), node("Dropout", ["v", "half"], ["d"])]
    then = helper.make_graph(drop, "then", [], [info("d", f, None)])
    other = helper.make_graph([node("Identity", ["w"], ["e"])], "else", [], [info("e", f, None)])
    branch = node("If", ["always"], ["d"], then_branch=then, else_branch=other)
    inner = [branch] if kind == "If in Loop" else drop
    ends = {"Loop": [node("Add", ["s", "d"], ["t"])], "Scan": [node("Mul", ["d", "row"], ["r"]), node("Add", ["s", "r"], ["t"])]}
    ends["If in Loop"] = ends["Loop"]
    if kind == "If":
        nodes = [branch, node("Identity", ["d"], ["y"])]
    elif kind == "Scan":
        body = helper.make_graph([*inner, *ends[kind]], "body", [info("s", f, [width]), info("row", f, [width])], [info("t", f, [width])])
        nodes = [node("Scan", ["zeros", "rows"], ["y"], body=body, num_scan_inputs=1)]
    else:
        body = helper.make_graph([*inner, *ends[kind], node("Identity", ["go"], ["on"])], "body",
                                 [info("k", i64, []), info("go", boolean, []), info("s", f, [width])], [info("on", boolean, []), info("t", f, [width])])
        nodes = [node("Loop", ["four", "", "zeros"], ["y"], body=body)]
    constants = {"w": np.ones(width, dtype), "half": np.array(0.5, np.float32), "four": np.array(4), "zeros": np.zeros(width, dtype), "rows": np.ones((4, width), dtype)}
    graph = helper.make_graph([node("Greater", ["x", "none"], ["always"]), *nodes], "g", [info("x", f, [])], [info("y", f, [width])],
                              [numpy_helper.from_array(v, k) for k, v in {**constants, "none": np.array(0, dtype)}.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def bodies():
    """Dropout in bodies: the same mask forward and backward, one of its own for each iteration and call."""
    for kind, most in (("If", 1), ("Loop", 4), ("Scan", 4), ("If in Loop", 4)):
        m = compiled(body_model(kind), "mse,reduction=sum", "--trainable=w", optimizer="sgd,lr=1")
        state, seen = m.state(), []
        for _ in range(2):
            state["w"][:] = 1
            loss = m.run({"x": np.array(1.0), "labels": np.zeros(2000), **state})[0]
            kept = np.sqrt((1 - np.array(state["w"])) / 8)  # y is 2 for each time that it was kept, its gradient 8 times their square
            seen.append(np.round(kept))
            part.check(f"dropout in {kind}: one mask forward and backward", np.allclose(kept, seen[-1]) and np.isclose(loss, np.sum(4 * seen[-1] ** 2)), loss)
            part.check(f"dropout in {kind}: half of them, iterations apart", seen[-1].max() == most and abs(seen[-1].mean() - most / 2) < 0.1 * most and
                       abs(seen[-1].var() - most / 4) < 0.05 * most, f"{seen[-1].mean()} {seen[-1].var()}")
        part.check(f"dropout in {kind}: calls apart", 0.3 < np.mean(seen[0] != seen[1]))
    norm = helper.make_graph([node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], name="norm")], "then", [],
                             [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)])
    same = helper.make_graph([node("Identity", ["x"], ["z"])], "else", [], [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)])
    model = cases.model([node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Greater", ["sum", "none"], ["c"]), node("If", ["c"], ["out"], then_branch=norm, else_branch=same)],
                        {"x": (8, 3)}, "out", {**{k: np.ones(3) for k in "sbmv"}, "none": np.array(0.0)}, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m.onnx")
        onnx.save(model, path)
        done = part.burin(path, "--emit=static", "-o", os.path.join(folder, "o"), "--train=mse")
        part.check("norm in If: said", done.returncode == 0 and '"norm"' in done.stderr and "running statistics do not move" in done.stderr, done.stderr)


def learns(name, model, spec, data, optimizer, most, count=30, flags=()):
    def work():
        m = compiled(model, spec, *flags, optimizer=optimizer)
        state = m.state()
        found = [float(m.run({**data, **state})[0]) for _ in range(count)]
        part.check(f"{name} learns", found[-1] < most * found[0], found)
    caught(name, work)


def from_stored(name):
    """A network of tests/learn/networks in its form for use, without its loss."""
    m = onnx.load(str(HERE / "networks" / f"{name}.onnx"))
    while m.graph.node[-1].op_type != "Gemm":
        del m.graph.node[-1]
    for n in m.graph.node:
        if n.op_type == "BatchNormalization":
            del n.output[1:]
            for a in n.attribute:
                if a.name == "training_mode":
                    a.i = 0
    rank = 2
    m.graph.output[0].CopyFrom(helper.make_tensor_value_info(m.graph.node[-1].output[0], onnx.TensorProto.DOUBLE, [None] * rank))
    return m, np.load(HERE / "networks" / f"{name}.npz")["x"]


def networks():
    for name in ("mlp", "cnn", "resnet", "mobilenet", "encoder", "vit", "lstm"):
        m, x = from_stored(name)
        labels = np.arange(len(x)) % 5
        learns(name, m, "softmax_cross_entropy", {"x": x, "labels": labels}, "adamw,lr=0.02,clip=5", 0.7)


# ---- sizes, header, backends ----
USER = r"""
#include <stdio.h>
#include <stdlib.h>
#include "step.h"
int main(void) {
  static _Alignas(64) unsigned char state[STEP_STATE_BYTES], copy[STEP_STATE_BYTES];
  step_inputs in = {0};
  step_outputs out = {0};
  float x[30], loss, first = 0;
  int64_t y[5], dims[STEP_N_DIMS] = {5};
  for (int i = 0; i < 30; i++) x[i] = (float)(i * 7 % 11) / 11;
  for (int i = 0; i < 5; i++) y[i] = i % 4;
  in.x = x, in.labels = y, in.N = 5, out.loss = &loss;
  step_state_init(state);
  step_state_bind(&in, &out, state);
  void *arena = aligned_alloc(STEP_ARENA_ALIGN, (step_arena_size(dims, 1) + 63) / 64 * 64);
  for (int i = 0; i < 20; i++) {
    if (i == 10)
      for (size_t k = 0; k < sizeof state; k++) copy[k] = state[k];
    const int32_t status = step_run(&in, &out, arena);
    if (status) return printf("%s\n", step_status_text(status)), 1;
    if (i == 0) first = loss;
  }
  const float last = loss;
  step_state_bind(&in, &out, copy);
  for (int i = 10; i < 20; i++) step_run(&in, &out, arena);
  printf("%d %d %.9g %.9g %lld\n", loss == last, last < 0.9f * first, first, last, (long long)*(int64_t *)out.step_next);
  return 0;
}
"""


def c_program(folder, name, emit, *flags):
    folder = Path(folder) / name
    folder.mkdir()
    onnx.save(cases.mlp_model(np.float32), folder / "m.onnx")
    (folder / "user.c").write_text(USER)
    done = part.burin("m.onnx", "--train=softmax_cross_entropy", "--optimizer=adam,lr=0.02", f"--emit={emit},header", "-o", "step",
                      "--name=step", "-q", *flags, cwd=folder)
    if not part.check(f"{name}: compiles", done.returncode == 0, done.stderr):
        return None
    made = "step.a" if emit == "static" else "step.c"
    done = part.run("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "user.c", made, "-o", "user", cwd=folder)
    if not part.check(f"{name}: a C program", done.returncode == 0, done.stderr):
        return None
    done = part.run(folder / "user")
    part.check(f"{name}: goes on from a copy, learns, counts", done.stdout[:4] == "1 1 " and done.stdout.endswith(" 20\n"), done.stdout + done.stderr)
    return done.stdout


def programs():
    with tempfile.TemporaryDirectory() as folder:
        first = c_program(folder, "native", "static")
        second = c_program(folder, "source", "c", "--target=c")
        if first and second:
            a, b = (np.array([float(v) for v in t.split()[2:4]]) for t in (first, second))
            near("C source: losses", b, a, 1e-5)
        text = part.burin("native/m.onnx", "--train=softmax_cross_entropy", "--optimizer=adam,lr=0.02", "--emit=loop", "-o", "t.loop",
                          "-q", cwd=folder)
        part.check("a text keeps the state", text.returncode == 0, text.stderr)
        for kind in ("t.loop",):
            done = part.burin(kind, "--emit=header", "-o", "t.h", "--name=step", "-q", cwd=folder)
            same = done.returncode == 0 and [line for line in (Path(folder) / "t.h").read_text().splitlines() if "STACK" not in line] == [
                line for line in (Path(folder) / "native" / "step.h").read_text().splitlines() if "STACK" not in line]
            part.check("a text keeps the state: header", same, done.stderr)


def as_program():
    """One step of a program begins with the model's state; bench trains on what is random."""
    model, (_, xs, labels, *_) = cases.mlp_model(np.float32), cases.mlp_data()
    m = compiled(model, "softmax_cross_entropy", optimizer="adam,lr=0.02")
    state, x, y = m.state(), np.asarray(xs[0], np.float32), labels[0]
    loss = m.run({"x": x, "labels": y, **state})[0]
    flags = ["m.onnx", "--train=softmax_cross_entropy", "--optimizer=adam,lr=0.02"]
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, os.path.join(folder, "m.onnx"))
        for name, v in (("x", x), ("labels", y), ("loss", loss), ("w1", state["w1"]), ("moment", state["w1.m"])):
            np.save(os.path.join(folder, name), v)
        done = part.burin("run", *flags, "--input", "x=@x.npy", "--input", "labels=@labels.npy", "--expect", "loss=@loss.npy", "--expect", "w1_next=@w1.npy",
                          "--expect", "w1.m_next=@moment.npy", "--rtol=1e-6", "--check-memory", cwd=folder)
        part.check("a program's step", done.returncode == 0 and done.stdout.count(": ok") == 3, done.stdout + done.stderr)
        done = part.burin("bench", *flags, "--runs=4", "--profile", cwd=folder)
        part.check("bench of a step", done.returncode == 0 and "4 runs" in done.stdout and "(gradient)" in done.stdout, done.stdout + done.stderr)
        done = part.burin(*flags, "-o", "step", "-q", cwd=folder)
        done = done if done.returncode else part.run("./step", "--bench=4", "--check-memory", cwd=folder)
        part.check("a program's bench", done.returncode == 0, done.stdout + done.stderr)


def sizes():
    m = compiled(cases.mlp_model(np.float32), "softmax_cross_entropy", optimizer="sgd,lr=0.1")
    w, *_ = cases.mlp_data()
    r = np.random.default_rng(3)
    for n in (1, 2, 17, 64):
        x, y, state = r.standard_normal((n, 6)).astype(np.float32), r.integers(0, 4, n), m.state()
        m.run({"x": x, "labels": y, **state})
        h = np.tanh(x @ w["w1"] + w["b1"])
        p = softmax(h @ w["w2"] + w["b2"])
        p[np.arange(n), y] -= 1
        near(f"batch of {n}", state["w2"], w["w2"] - 0.1 * h.T @ p / n, 1e-5)


# ---- what is refused ----
def tables():
    """A table that is looked up twice: only these rows change, and there is no memory as large as it; where a moment needs
    the whole gradient, parameter and moment are still updated where they lie."""
    rows, width, lr = 30000, 96, 0.25
    rng = np.random.default_rng(17)
    table, w = rng.standard_normal((rows, width)), rng.standard_normal((width, 3))
    i, j, y = rng.integers(0, rows, 5), rng.integers(-rows, rows, (5, 2)), rng.standard_normal((5, 3))
    i[1] = i[0]
    j[2] = i[0] - rows, i[3]
    nodes = [node("Gather", ["t", "i"], ["a"]), node("Gather", ["t", "j"], ["b"]), node("ReduceSum", ["b", "one"], ["c"], keepdims=0),
             node("Add", ["a", "c"], ["d"]), node("MatMul", ["d", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("i", onnx.TensorProto.INT64, ["n"]),
                                           helper.make_tensor_value_info("j", onnx.TensorProto.INT64, ["n", 2])],
                              [helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, ["n", 3])],
                              [numpy_helper.from_array(v, k) for k, v in (("t", table), ("w", w), ("one", np.array([1])))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    d = 2 * ((table[i] + table[j].sum(1)) @ w - y) / y.size @ w.T
    gradient = np.zeros_like(table)
    np.add.at(gradient, i, d)
    np.add.at(gradient, j[:, 0], d)
    np.add.at(gradient, j[:, 1], d)
    for optimizer, small in ((f"sgd,lr={lr}", True), (f"sgd,lr={lr},momentum=0.5", False)):
        m = compiled(model, "mse", "--dim=n=5", optimizer=optimizer)
        state = m.state()
        m.run({"i": i, "j": j, "labels": y, **state})
        near(f"table, {optimizer}", np.array(state["t"]) - table, -lr * gradient, 1e-9)
        part.check(f"table, {optimizer}: other rows are the same", np.array_equal(np.delete(state["t"], np.r_[i, j.ravel()], 0), np.delete(table, np.r_[i, j.ravel()], 0)))
        if small:
            part.check(f"table, {optimizer}: memory", m.arena_bytes < 1 << 20, m.arena_bytes)
        with tempfile.TemporaryDirectory() as folder:
            path, out = os.path.join(folder, "m.onnx"), os.path.join(folder, "m.ir")
            onnx.save(model, path)
            part.burin(path, "--emit=loop", "-o", out, "--train=mse", f"--optimizer={optimizer}", "--dim=n=5")
            text = Path(out).read_text()
            part.check(f"table, {optimizer}: not copied", "rt_scatter_nd" in text and f"count {table.size}" not in text, "a copy")


def refusals():
    bad = {
        "softmax": "there is no loss", "softmax_cross_entropy:z": "no output 'z'", "softmax_cross_entropy,smooth=1": "has no 'smooth'",
        "softmax_cross_entropy,label_smoothing=2": "no number from 0 to 1", "softmax_cross_entropy,weights=1:2": "2 weights for 4 classes",
        "softmax_cross_entropy,axis=5": "axis=5", "softmax_cross_entropy,weights=1:x:2:3": "no list of numbers",
        "mse,reduction=none": "none of mean sum", "mse,": "not key=value", ":y": "a name is missing", "mse,temperature=2": "temperature is of distill",
        "mse,reduction=sum,reduction=sum": "given twice",
    }
    optimizer = {
        "adagrad": "there is no optimizer", "sgd,beta1=0.9": "has no 'beta1'", "sgd,lr=-1": "no number from 0", "sgd,lr=x": "no number",
        "sgd,nesterov=true": "needs a momentum", "sgd,schedule=cosine": "needs steps=TOTAL", "sgd,schedule=step": "needs every=STEPS",
        "sgd,gamma=0.5": "are of schedule=step", "sgd,steps=5": "are of schedule=cosine", "adam,warmup=1.5": "no integer",
        "sgd,schedule=cosine,steps=5,warmup=5": "warmup is not below steps", "sgd,lr=nan": "no number",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m.onnx")
        onnx.save(cases.mlp_model(np.float32), path)
        def refused(name, words, *flags, model=path):
            done = part.burin(model, "--emit=static", "-o", os.path.join(folder, "o"), *flags)
            part.check(f"refused: {name}", done.returncode not in (0, 70, -11) and words in done.stderr, f"{done.returncode} {done.stderr}")
        for spec, words in bad.items():
            refused(spec, words, f"--train={spec}")
        for spec, words in optimizer.items():
            refused(spec, words, "--train=mse", f"--optimizer={spec}")
        refused("trainable", "neither lastN nor a parameter", "--train=mse", "--trainable=nobody")
        refused("nothing left", "takes all parameters out", "--train=mse", "--trainable=-*")
        refused("no --train", "need --train", "--optimizer=sgd")
        refused("accumulate", "--accumulate", "--train=mse", "--accumulate=0")
        refused("with gradient", "give one of them", "--train=mse", "--gradient=y:x")
        none = os.path.join(folder, "none.onnx")
        onnx.save(cases.model([node("Relu", ["x"], ["y"])], {"x": ("N", 4)}, "y", {}, np.float32), none)
        refused("no initializers", "no initializers", "--train=mse", model=none)
        cut = os.path.join(folder, "cut.onnx")
        onnx.save(cases.model([node("Mul", ["x", "w"], ["h"]), node("Floor", ["h"], ["y"])], {"x": ("N", 4)}, "y", {"w": np.ones(4)}, np.float32), cut)
        refused("no gradient passes", "depends on no initializer", "--train=mse", model=cut)
        two = os.path.join(folder, "two.onnx")
        onnx.save(cases.model([node("Mul", ["x", "w"], ["y"]), node("Neg", ["y"], ["z"])], {"x": ("N", 4)}, "y z", {"w": np.ones(4)}, np.float32), two)
        refused("two outputs", "say mse:OUTPUT", "--train=mse", model=two)
    m = compiled(cases.mlp_model(np.float32), "softmax_cross_entropy,ignore_index=-7")
    state, x = m.state(), np.zeros((2, 6), np.float32)
    for label in (4, -1, 2**40):
        before = state["w2"].copy()
        try:
            m.run({"x": x, "labels": np.array([0, label]), **state})
            part.check(f"label {label}", False, "the run went on")
        except burin.RunError as e:
            part.check(f"label {label}", e.node == "loss" and str(label) in str(e), e)
        part.check(f"label {label}: nothing was changed", np.array_equal(before, state["w2"]))
    part.check("an ignored label", np.isfinite(m.run({"x": x, "labels": np.array([0, -7]), **state})[0]))


def main():
    for work in (losses, optimizers, halves, nets, dropout, bodies, networks, programs, as_program, sizes, tables, refusals):
        caught(work.__name__, work)
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
