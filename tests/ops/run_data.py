#!/usr/bin/env python3
"""Part "data": inputs that are constants in most models, sizes, axes, counts, given as data. Every input of ai.onnx's operators that takes only
32- or 64-bit integers has a case here or says why not. Each case runs on several values: as an input, as an input whose length is not known,
and as a constant; all agree with ONNX Runtime, or with ONNX's reference where that has no such operator. Ranges of floats likewise."""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from onnx import numpy_helper as nh
from onnx.reference import ReferenceEvaluator

import burin
from support.part import check, finish, skip
from support.targets import EMULATOR, missing

onnxruntime.set_default_logger_severity(4)

# (operator, input): (inputs, outputs, node, values of the inputs that are data)
REDUCED = [dict(a=[0]), dict(a=[2]), dict(a=[-2])]
CASES = {
    ("AffineGrid", "size"): ("float[2,2,3] x, int64[4] d", "float[a,b,c,e] y", "AffineGrid(x, d)", [dict(d=[2, 1, 3, 4]), dict(d=[2, 3, 1, 2])]),
    ("BlackmanWindow", "size"): ("int64 d", "float[a] y", "BlackmanWindow(d)", [dict(d=7), dict(d=1), dict(d=0)]),
    ("HammingWindow", "size"): ("int32 d", "float[a] y", "HammingWindow<periodic=0>(d)", [dict(d=9), dict(d=2)]),
    ("HannWindow", "size"): ("int64 d", "float[a] y", "HannWindow(d)", [dict(d=8), dict(d=3)]),
    ("CenterCropPad", "shape"): ("float[4,6,3] x, int64[2] d", "float[a,b,c] y", "CenterCropPad<axes=[0,1]>(x, d)", [dict(d=[3, 8]), dict(d=[7, 1]), dict(d=[0, 6])]),
    ("Col2Im", "image_shape"): ("float[1,8,6] x, int64[2] d", "float[a,b,c,e] y",
                                "Col2Im(x, d, k)", [dict(d=[3, 4]), dict(d=[4, 3])], "k = Constant<value_ints=[2,2]>() "),
    ("Col2Im", "block_shape"): ("float[1,6,6] x, int64[2] d", "float[a,b,c,e] y",
                                "Col2Im(x, k, d)", [dict(d=[2, 3]), dict(d=[2, 3])], "k = Constant<value_ints=[3,5]>() "),
    ("ConstantOfShape", "input"): ("int64[2] d", "float[a,b] y", "ConstantOfShape(d)", [dict(d=[2, 3]), dict(d=[0, 5])]),
    ("CumProd", "axis"): ("float[3,4] x, int64 d", "float[a,b] y", "CumProd(x, d)", [dict(d=0), dict(d=1), dict(d=-2)]),
    ("CumSum", "axis"): ("float[3,4] x, int32 d", "float[a,b] y", "CumSum<reverse=1>(x, d)", [dict(d=0), dict(d=1), dict(d=-1)]),
    ("DFT", "dft_length"): ("float[2,6,1] x, int64 d", "float[a,b,2] y", "DFT(x, d, k)", [dict(d=6), dict(d=4), dict(d=9)], "k = Constant<value_int=1>() "),
    ("DFT", "axis"): ("float[2,6,5,1] x, int64 d", "float[a,b,c,2] y", "DFT(x, , d)", [dict(d=0), dict(d=1), dict(d=2), dict(d=-2), dict(d=-4)]),
    ("DFT", "axis, one side"): ("float[2,6,5,1] x, int64 d", "float[a,b,c,2] y", "DFT<onesided=1>(x, , d)", [dict(d=0), dict(d=1), dict(d=-2)]),
    ("DFT", "axis, both"): ("float[2,6,5,2] x, int64 d, int64 k", "float[a,b,c,2] y", "DFT<inverse=1>(x, k, d)", [dict(d=1, k=4), dict(d=-3, k=8), dict(d=2, k=5)]),
    ("Expand", "shape"): ("float[3,1] x, int64[3] d", "float[a,b,c] y", "Expand(x, d)", [dict(d=[2, 3, 4]), dict(d=[1, 1, 1]), dict(d=[5, 1, 2])]),
    ("MaxUnpool", "output_shape"): ("float[1,2,2,2] x, int64[1,2,2,2] i, int64[4] d", "float[1,2,a,b] y", "MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(x, i, d)",
                                    [dict(d=[1, 2, 5, 5], i=[[[[1, 7], [13, 18]], [[26, 35], [40, 49]]]]), dict(d=[1, 2, 6, 4], i=[[[[1, 7], [13, 18]], [[26, 35], [40, 47]]]])]),
    ("NonMaxSuppression", "max_output_boxes_per_class"): ("float[1,6,4] x, float[1,2,6] s, int64[1] d", "int64[a,3] y", "NonMaxSuppression(x, s, d)", [dict(d=[1]), dict(d=[3]), dict(d=[0])]),
    ("Pad", "pads"): ("float[3,4] x, int64[4] d", "float[a,b] y", "Pad(x, d)", [dict(d=[1, 0, 2, 3]), dict(d=[-1, 2, 0, -1]), dict(d=[0, 0, 0, 0])]),
    ("Pad", "axes"): ("float[3,4,5] x, int64[2] d, int64[1] a", "float[k,l,m] y", "Pad<mode=\"reflect\">(x, d, , a)", [dict(d=[1, 2], a=[0]), dict(d=[2, 0], a=[-1]), dict(d=[0, 1], a=[1])]),
    ("Reshape", "shape"): ("float[3,4] x, int64[3] d", "float[a,b,c] y", "Reshape(x, d)", [dict(d=[2, 3, 2]), dict(d=[0, -1, 1]), dict(d=[1, 1, 12])]),
    ("Resize", "sizes"): ("float[1,1,4,3] x, int64[4] d", "float[a,b,c,e] y", "Resize<mode=\"linear\">(x, , , d)", [dict(d=[1, 1, 8, 6]), dict(d=[1, 1, 3, 5]), dict(d=[1, 1, 4, 3])]),
    ("Resize", "scales"): ("float[1,1,4,3] x, float[4] d", "float[a,b,c,e] y", "Resize<mode=\"nearest\">(x, , d)", [dict(d=[1, 1, 2, 2]), dict(d=[1, 1, 0.75, 1.5])]),
    ("Resize", "scales of axes"): ("float[1,1,4,3] x, float[2] d", "float[a,b,c,e] y", "Resize<mode=\"linear\", axes=[3,2]>(x, , d)", [dict(d=[2, 1.5]), dict(d=[0.4, 1.2])]),
    ("Resize", "sizes, larger"): ("float[1,1,4,3] x, int64[2] d", "float[a,b,c,e] y", "Resize<mode=\"linear\", axes=[2,3], keep_aspect_ratio_policy=\"not_larger\">(x, , , d)",
                                  [dict(d=[8, 5]), dict(d=[3, 9])]),
    ("Resize", "sizes, smaller"): ("float[1,1,4,3] x, int64[2] d", "float[a,b,c,e] y", "Resize<mode=\"linear\", axes=[2,3], keep_aspect_ratio_policy=\"not_smaller\">(x, , , d)",
                                   [dict(d=[8, 5]), dict(d=[3, 9])]),
    ("Resize", "roi"): ("float[1,1,4,3] x, float[8] r, int64[4] d", "float[a,b,c,e] y", "Resize<mode=\"linear\", coordinate_transformation_mode=\"tf_crop_and_resize\">(x, r, , d)",
                        [dict(d=[1, 1, 3, 5], r=[0, 0, 0.1, 0.2, 1, 1, 0.9, 0.8]), dict(d=[1, 1, 2, 5], r=[0, 0, 0.4, 0.6, 1, 1, 1.2, 0.7])]),
    ("STFT", "frame_step"): ("float[1,12,1] x, float[4] w, int64 d", "float[a,b,c,2] y", "STFT(x, d, w)", [dict(d=2), dict(d=5)]),
    ("STFT", "frame_length"): ("float[1,12,1] x, int64 d", "float[a,b,c,2] y", "STFT(x, k, , d)", [dict(d=4), dict(d=7)], "k = Constant<value_int=3>() "),
    ("Slice", "starts"): ("float[5,6] x, int64[1] d", "float[a,b] y", "Slice(x, d, e)", [dict(d=[0]), dict(d=[3]), dict(d=[-2]), dict(d=[9])], "e = Constant<value_ints=[5]>() "),
    ("Slice", "ends"): ("float[5,6] x, int64[2] d", "float[a,b] y", "Slice(x, s, d)", [dict(d=[4, 3]), dict(d=[-1, 99]), dict(d=[0, 1])], "s = Constant<value_ints=[1,0]>() "),
    ("Slice", "axes"): ("float[5,6] x, int64[1] d", "float[a,b] y", "Slice(x, s, e, d)", [dict(d=[0]), dict(d=[-1])],
                        "s = Constant<value_ints=[1]>() e = Constant<value_ints=[4]>() "),
    ("Slice", "steps"): ("float[5,6] x, int64[1] s, int64[1] e, int64[1] d", "float[a,b] y", "Slice(x, s, e, k, d)",
                         [dict(s=[0], e=[6], d=[2]), dict(s=[5], e=[-9], d=[-1]), dict(s=[4], e=[1], d=[-2])], "k = Constant<value_ints=[1]>() "),
    ("Split", "split"): ("float[6,2] x, int64[3] d", "float[a,2] y, float[b,2] z, float[c,2] w", "Split(x, d)", [dict(d=[1, 2, 3]), dict(d=[4, 0, 2]), dict(d=[2, 2, 2])]),
    ("Squeeze", "axes"): ("float[1,3,1] x, int64[1] d", "float[a,b] y", "Squeeze(x, d)", [dict(d=[0]), dict(d=[2]), dict(d=[-1])]),
    ("Unsqueeze", "axes"): ("float[3,4] x, int64[1] d", "float[a,b,c] y", "Unsqueeze(x, d)", [dict(d=[0]), dict(d=[1]), dict(d=[-1])]),
    ("Tile", "repeats"): ("float[2,3] x, int64[2] d", "float[a,b] y", "Tile(x, d)", [dict(d=[1, 2]), dict(d=[3, 1]), dict(d=[0, 2])]),
    ("TopK", "K"): ("float[2,7] x, int64[1] d", "float[a,b] y, int64[c,e] z", "TopK(x, d)", [dict(d=[1]), dict(d=[5]), dict(d=[7])]),
    ("Trilu", "k"): ("float[4,5] x, int64 d", "float[a,b] y", "Trilu(x, d)", [dict(d=0), dict(d=-2), dict(d=3)]),
    ("OneHot", "depth"): ("int64[3] i, int64 d, float[2] v", "float[a,b] y", "OneHot(i, d, v)", [dict(d=4, i=[0, 3, 9]), dict(d=2, i=[1, -1, 0])]),
    ("OneHot", "depth in floats"): ("float[3] i, float d, float[2] v", "float[a,b] y", "OneHot<axis=0>(i, d, v)", [dict(d=4, i=[0, 3, 2]), dict(d=2, i=[1, 1, 0])]),
    ("Squeeze", "more axes"): ("float[1,3,1,2] x, int64[2] d", "float[a,b] y", "Squeeze(x, d)", [dict(d=[0, 2]), dict(d=[-2, 0])]),
    ("Unsqueeze", "more axes"): ("float[3,4] x, int64[2] d", "float[a,b,c,e] y", "Unsqueeze(x, d)", [dict(d=[0, 3]), dict(d=[2, 1]), dict(d=[-1, -3])]),
    ("Range", "integers"): ("int64 s, int64 l, int64 d", "int64[a] y", "Range(s, l, d)", [dict(s=0, l=5, d=1), dict(s=9, l=-2, d=-3), dict(s=3, l=1, d=1)]),
    ("Range", "floats"): ("float s, float l, float d", "float[a] y", "Range(s, l, d)",
                          [dict(s=0, l=5, d=1), dict(s=0.5, l=-2, d=-0.3), dict(s=0, l=1, d=0.1), dict(s=0, l=0.3, d=0.1), dict(s=3, l=1, d=1)]),
    ("Range", "doubles"): ("double s, double l, double d", "double[a] y", "Range(s, l, d)", [dict(s=0, l=1, d=0.1), dict(s=-1, l=-1.5, d=-0.125)]),
    ("MelWeightMatrix", "num_mel_bins"): ("int64 b, int64 d, int64 r, float l, float u", "float[a,c] y", "MelWeightMatrix(b, d, r, l, u)",
                                          [dict(b=8, d=16, r=8192, l=0, u=4096), dict(b=5, d=32, r=16000, l=20, u=7000)]),
}
for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
    CASES["Reduce" + op, "axes"] = ("float[2,3,4] x, int64[1] a", "float[k,l,m] y", f"Reduce{op}(x, a)", REDUCED)
CASES["ReduceSum", "axes, dropped"] = ("float[2,3,4] x, int64[2] a", "float[k] y", "ReduceSum<keepdims=0>(x, a)", [dict(a=[0, 2]), dict(a=[1, -1])])
# Data in every model, of which other parts have cases; and sequences.
ELSEWHERE = {("MelWeightMatrix", "dft_length"), ("MelWeightMatrix", "sample_rate"), ("Attention", "nonpad_kv_seqlen"), ("Loop", "M"), ("MaxUnpool", "I"),
             ("NegativeLogLikelihoodLoss", "target"), ("SoftmaxCrossEntropyLoss", "labels"), ("QLinearConv", "B"), ("ReverseSequence", "sequence_lens"),
             ("RoiAlign", "batch_indices"), ("RotaryEmbedding", "position_ids"), ("TensorScatter", "write_indices"), ("SplitToSequence", "split"),
             ("SequenceAt", "position"), ("SequenceErase", "position"), ("SequenceInsert", "position"), *((o, "sequence_lens") for o in ("GRU", "LSTM", "RNN")),
             *((o, "indices") for o in ("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"))}
NO_ORT = {"CumProd"}  # and what else it refuses
# Lists whose length cannot be told from anything else, so that it must be in the model.
LENGTHS = {"Pad", "Squeeze", "Unsqueeze", *(op for op, _ in CASES if op.startswith("Reduce"))}


def build(inputs, outputs, node, before="", unknown=False):
    if unknown:
        inputs = re.sub(r"\[\d+\] ([a-z])(,|$)", r"[n_\1] \1\2", inputs)
    names = ", ".join(re.findall(r"(\w+)(?:,|$)", re.sub(r"\[[^]]*\]", "", outputs)))
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 22]> g ({inputs}) => ({outputs}) {{ {before}{names} = {node} }}')


def feeds_of(model, values):
    rng = np.random.default_rng(5)
    feeds = {}
    for v in model.graph.input:
        t = v.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(t.elem_type)
        value = values[v.name] if v.name in values else rng.random([d.dim_value for d in t.shape.dim]) + 0.25
        feeds[v.name] = np.asarray(value).astype(dtype)
    return feeds


def reference(model, feeds):
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    except Exception:
        return ReferenceEvaluator(model).run(None, feeds)


def constant(model, data, feeds):
    """The model with those inputs as constants."""
    fixed = onnx.ModelProto.FromString(model.SerializeToString())
    for v in [i for i in fixed.graph.input if i.name in data]:
        fixed.graph.initializer.append(nh.from_array(feeds[v.name], v.name))
        fixed.graph.input.remove(v)
    return burin.compile(fixed).run({n: a for n, a in feeds.items() if n not in data})


def agree(got, want):
    return all(g.shape == np.shape(w) and np.allclose(g, w, rtol=1e-4, atol=1e-5) for g, w in zip(got, want))


def run_case(name, inputs, outputs, node, values, before=""):
    model = build(inputs, outputs, node, before)
    ways = {"as data": burin.compile(model)}
    if re.search(r"\[\d+\] [a-z](,|$)", inputs):
        try:
            ways["length unknown"] = burin.compile(build(inputs, outputs, node, before, True))
        except burin.CompileError as e:
            check(f"{name}: length unknown", e.status == 5 and name[0] in LENGTHS and "not known" in str(e), e)
    for data in values:
        feeds = feeds_of(model, data)
        want = reference(model, feeds)
        for way, m in ways.items():
            got = m.run(feeds)
            check(f"{name}: {way} {data}", agree(got, want), f"{got}, not {want}")
        got = constant(model, data, feeds)
        check(f"{name}: constant {data}", agree(got, want), f"{got}, not {want}")


REFUSED = [  # what no run can do: (case, values)
    (("DFT", "axis"), dict(d=3)), (("DFT", "axis"), dict(d=-1)), (("DFT", "axis"), dict(d=-5)), (("TopK", "K"), dict(d=[8])),
    (("Split", "split"), dict(d=[1, 2, 2])), (("Reshape", "shape"), dict(d=[5, 2, 1])), (("ConstantOfShape", "input"), dict(d=[-1, 2])),
    (("Range", "integers"), dict(s=0, l=1, d=0)), (("Tile", "repeats"), dict(d=[-1, 2])),
    (("MaxUnpool", "output_shape"), dict(d=[1, 2, 2, 2], i=[[[[1, 7], [13, 18]], [[26, 35], [40, 49]]]])), (("Slice", "axes"), dict(d=[2])),
    (("Unsqueeze", "axes"), dict(d=[3])), (("Squeeze", "axes"), dict(d=[1])), (("ReduceMax", "axes"), dict(a=[3])), (("CumSum", "axis"), dict(d=2)),
    (("Pad", "axes"), dict(d=[1, 1], a=[3])), (("ReduceSum", "axes, dropped"), dict(a=[1, -2])), (("Squeeze", "more axes"), dict(d=[0, -4])),
]


def run_program(name, inputs, outputs, node, values, before=""):
    """The same where a register has 32 bits: data and its bounds do not fit."""
    model = build(inputs, outputs, node, before)
    feeds = feeds_of(model, values[-1])
    want = burin.compile(model).run(feeds)
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(model.SerializeToString())
        bounds = [f"--bound=size_{k}=50" for k in range(1, 13)]
        done = subprocess.run([burin.compiler(), path, "-q", "--target=armv7", "-o", f"{folder}/m", *bounds], capture_output=True, text=True)
        command = [*EMULATOR["armv7"], f"{folder}/m"]
        for k, a in enumerate(feeds.values()):
            np.save(f"{folder}/{k}.npy", a)
            command += ["--input", f"{k}=@{folder}/{k}.npy"]
        for k in range(len(want)):
            command += ["--output", f"{k}=@{folder}/y{k}.npy"]
        done = done if done.returncode else subprocess.run(command, capture_output=True, text=True)
        ok = done.returncode == 0 and agree([np.load(f"{folder}/y{k}.npy") for k in range(len(want))], want)
        check(f"{name}: armv7", ok, done.stderr)


# Lists of as many elements as a run gives; None: no run can.
OF_LENGTHS = {
    "Slice": ("float[5,6,3] x, int64[n] s, int64[n] e", "Slice(x, s, e)",
              [dict(s=[1], e=[3]), dict(s=[1, -4], e=[9, 5]), dict(s=[0, 2, 1], e=[5, 4, 2]), dict(s=[], e=[]), None, dict(s=[0] * 4, e=[1] * 4)]),
    "Slice, axes and steps": ("float[5,6,3] x, int32[n] s, int32[n] e, int32[n] a, int32[n] k", "Slice(x, s, e, a, k)",
                              [dict(s=[4], e=[-9], a=[1], k=[-2]), dict(s=[0, 1], e=[2, 9], a=[-1, 0], k=[1, 3]), dict(s=[], e=[], a=[], k=[]),
                               None, dict(s=[0], e=[1], a=[3], k=[1]), dict(s=[0, 1], e=[2, 9], a=[1], k=[1])]),
    "Expand": ("float[3,1,2] x, int64[n] d", "Expand(x, d)", [dict(d=[2]), dict(d=[4, 1]), dict(d=[3, 2, 2]), dict(d=[]), dict(d=[0, 1]), None, dict(d=[2, 3, 1, 2]), dict(d=[3])]),
    "Tile": ("float[3,2] x, int64[n] d", "Tile(x, d)", [dict(d=[2, 3]), dict(d=[0, 1]), None, dict(d=[2]), dict(d=[1, 1, 2])]),
}


def run_lengths(name, inputs, node, values):
    output = f"float[{', '.join('abcd'[:inputs.split(' ')[0].count(',') + 1])}] y"
    model = build(inputs, output, node)
    m = burin.compile(model)
    for k, data in enumerate(v for v in values if v):
        feeds = feeds_of(model, data)
        if k < values.index(None):
            fixed = build(re.sub(r"\[n\] (\w)", lambda i: f"[{feeds[i[1]].size}] {i[1]}", inputs), output, node)
            want, got = reference(fixed, feeds), m.run(feeds)
            check(f"{name} of a length: {data}", agree(got, want), f"{got}, not {want}")
            continue
        try:
            check(f"{name} of a length: {data}", False, m.run(feeds))
        except (burin.RunError, ValueError):
            check(f"{name} of a length: {data}", True)


def run_refused():
    for name, data in REFUSED:
        model = build(*CASES[name][:3], *CASES[name][4:])
        m = burin.compile(model)
        try:
            check(f"{name}: {data}", False, m.run(feeds_of(model, data)))
        except burin.RunError as e:
            check(f"{name}: {data}", True)


def inputs_of_onnx():
    """(operator, input) of every input of ai.onnx's newest operators that takes nothing but such integers."""
    newest = {}
    for s in onnx.defs.get_all_schemas_with_history():
        if s.domain == "" and not s.deprecated and s.since_version > getattr(newest.get(s.name), "since_version", 0):
            newest[s.name] = s
    return {(s.name, i.name) for s in newest.values() for i in s.inputs if set(i.types) <= {"tensor(int32)", "tensor(int64)"}}


def main():
    for lacking in sorted(inputs_of_onnx() - set(CASES) - ELSEWHERE - {("Scatter", "indices")}):
        check(f"{lacking} has a case", False)
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, case in CASES.items():
        if re.search(only, " ".join(name)):
            try:
                run_case(name, *case)
            except Exception as e:
                check(name, False, f"{type(e).__name__}: {e}")
    for name, case in OF_LENGTHS.items():
        if re.search(only, name):
            run_lengths(name, *case)
    if not only:
        run_refused()
    if why := missing("armv7"):
        skip("programs of armv7", why)
    for name, case in CASES.items():
        if not why and re.search(only, " ".join(name)):
            run_program(name, *case)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
