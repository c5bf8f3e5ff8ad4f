#!/usr/bin/env python3
"""Part "conditions": what an operator asks of sizes holds whether they are constants, symbols or found at run time.

run_conditions.py [--only PART] [--jobs N]: each model runs on shapes that fit and on shapes that do not, three times:
with the sizes as constants, as symbols, and behind Compress, which finds them at run time. All three have one outcome,
refused or the same values, and it is ONNX Runtime's: what that refuses is refused. Indices and lengths likewise, as
constants and as inputs (INDICES).
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime

onnxruntime.set_default_logger_severity(4)
TYPES = {"float": np.float32, "int64": np.int64, "int32": np.int32, "bool": np.bool_}


def ints(name, *v):
    return f"{name} = Constant<value_ints={list(v)}>() "


# name: (inputs, outputs, body, shapes of the inputs per case). Integer data is 0, bools are true.
MODELS = {
    "split": ("float[n,m] x", "float[a,b] y, float[c,d] z", ints("s", 2, 3) + "y, z = Split<axis=0>(x, s)", ["5,2", "4,2", "6,2"]),
    "split_even": ("float[n] x", "float[a] y, float[b] z, float[c] w", "y, z, w = Split<axis=0, num_outputs=3>(x)", ["6", "7", "3"]),
    "split_13": ("float[n] x", "float[a] y, float[b] z, float[c] w", "y, z, w = Split<axis=0>(x)", ["6", "7", "4"]),
    "depth_to_space": ("float[n,c,h,w] x", "float[a,b,d,e] y", "y = DepthToSpace<blocksize=2>(x)", ["1,8,2,3", "1,6,2,3", "2,4,1,1"]),
    "space_to_depth": ("float[n,c,h,w] x", "float[a,b,d,e] y", "y = SpaceToDepth<blocksize=2>(x)", ["1,2,4,6", "1,2,3,4", "1,2,4,5"]),
    "reverse_sequence": ("float[t,n] x, int64[m] l", "float[a,b] y", "y = ReverseSequence<time_axis=0, batch_axis=1>(x, l)", ["3,2 2", "3,2 3", "1,2 2"]),
    "one_hot": ("int64[n] i, float[k] v", "float[a,4] y", "d = Constant<value_int=4>() y = OneHot(i, d, v)", ["3 2", "3 1", "3 3"]),
    "scatter": ("float[n,m] x, int64[k,l] i, float[p,q] u", "float[a,b] y", "y = ScatterElements<axis=0>(x, i, u)",
                ["3,4 2,4 2,4", "3,4 2,5 2,5", "3,4 2,3 2,4", "3,4 4,2 4,2"]),
    "scatter_nd": ("float[n,m] x, int64[k,1] i, float[p,q] u", "float[a,b] y", "y = ScatterND(x, i, u)", ["3,4 2,1 2,4", "3,4 2,1 3,4", "3,4 2,1 2,5"]),
    "gather_elements": ("float[n,m] x, int64[k,l] i", "float[a,b] y", "y = GatherElements<axis=1>(x, i)", ["3,4 3,5", "3,4 2,6", "3,4 4,2"]),
    "gather_nd": ("float[n,m] x, int64[k,1] i", "float[a] y", "y = GatherND<batch_dims=1>(x, i)", ["3,4 3,1", "3,4 2,1"]),
    "topk": ("float[n,m] x", "float[a,b] y, int64[c,d] z", ints("k", 4) + "y, z = TopK(x, k)", ["2,4", "2,7", "2,3"]),
    "expand": ("float[n,m] x, float[k,l] z", "float[a,b] y", "s = Shape(z) y = Expand(x, s)", ["3,4 3,4", "3,1 3,4", "3,4 3,1", "3,4 2,4"]),
    "expand_const": ("float[n] x", "float[a] y", ints("s", 4) + "y = Expand(x, s)", ["4", "1", "3"]),
    "expand_rows": ("float[n,3] x, float[k] z", "float[a,b] y", "s = Shape(z) y = Expand(x, s)", ["2,3 3", "2,3 1", "2,3 2"]),
    "tile": ("float[n] x", "float[a] y", ints("r", 3) + "y = Tile(x, r)", ["4", "1"]),
    "concat": ("float[n,m] x, float[k,l] z", "float[a,b] y", "y = Concat<axis=1>(x, z)", ["2,3 2,4", "2,3 3,3"]),
    "reshape": ("float[n,m] x", "float[a,b] y", ints("s", -1, 6) + "y = Reshape(x, s)", ["4,3", "4,4", "1,6"]),
    "reshape_fixed": ("float[n] x", "float[a,b] y", ints("s", 2, 3) + "y = Reshape(x, s)", ["6", "7", "5"]),
    "squeeze": ("float[n,m] x", "float[a] y", ints("s", 1) + "y = Squeeze(x, s)", ["4,1", "4,2"]),
    "pad_reflect": ("float[n] x", "float[a] y", ints("p", 3, 2) + "y = Pad<mode=\"reflect\">(x, p)", ["5", "4", "3", "2"]),
    "pad_reflect_crop": ("float[n] x", "float[a] y", ints("p", -2, 3) + "y = Pad<mode=\"reflect\">(x, p)", ["6", "5", "3"]),
    "pad_edge_crop": ("float[n] x", "float[a] y", ints("p", 2, -3) + "y = Pad<mode=\"edge\">(x, p)", ["4", "3"]),
    "resize_sizes": ("float[1,1,n] x", "float[1,1,a] y", ints("s", 1, 1, 4) + "y = Resize(x, , , s)", ["1,1,2", "1,1,0"]),
    "pad_negative": ("float[n] x", "float[a] y", ints("p", -2, -1) + "y = Pad(x, p)", ["5", "3", "2"]),
    "slice_back": ("float[n] x", "float[a] y", ints("s", -1) + ints("e", -9223372036854775807) + ints("x0", 0) + ints("t", -2) + "y = Slice(x, s, e, x0, t)", ["5", "1"]),
    "slice_far": ("float[n] x", "float[a] y", ints("s", 1) + ints("e", 100) + ints("x0", 0) + ints("t", 9223372036854775807) + "y = Slice(x, s, e, x0, t)", ["5", "1"]),
    "matmul": ("float[n,k] x, float[l,m] z", "float[a,b] y", "y = MatMul(x, z)", ["2,3 3,4", "2,3 4,4"]),
    "gemm": ("float[n,k] x, float[l,m] z, float[p] c", "float[a,b] y", "y = Gemm(x, z, c)", ["2,3 3,4 4", "2,3 4,4 4", "2,3 3,4 3"]),
    "add": ("float[n] x, float[m] z", "float[a] y", "y = Add(x, z)", ["3 3", "3 4"]),
    "conv_channels": ("float[n,c,h] x, float[4,3,3] f", "float[a,b,d] y", "y = Conv(x, f)", ["1,3,5 4,3,3", "1,4,5 4,3,3", "1,3,2 4,3,3"]),
    "max_pool": ("float[n,c,h] x", "float[a,b,d] y", "y = MaxPool<kernel_shape=[4]>(x)", ["1,2,6", "1,2,4", "1,2,2"]),
    "batch_norm": ("float[n,c] x, float[k] s, float[l] z, float[o] e, float[p] v", "float[a,b] y", "y = BatchNormalization(x, s, z, e, v)",
                   ["2,3 3 3 3 3", "2,3 2 3 3 3", "2,3 3 3 4 3"]),
    "instance_norm": ("float[n,c,h] x, float[k] s, float[l] z", "float[a,b,d] y", "y = InstanceNormalization(x, s, z)", ["2,3,4 3 3", "2,3,4 2 3"]),
    "group_norm": ("float[n,c,h] x, float[k] s, float[l] z", "float[a,b,d] y", "y = GroupNormalization<num_groups=2>(x, s, z)",
                   ["1,4,3 4 4", "1,3,3 3 3", "1,4,3 2 4"]),
    "layer_norm": ("float[n,m] x, float[k] s", "float[a,b] y", "y = LayerNormalization(x, s)", ["2,3 3", "2,3 4"]),
    "argmax": ("float[n,m] x", "int64[a] y", "y = ArgMax<axis=1, keepdims=0>(x)", ["2,3"]),
    "einsum": ("float[n,k] x, float[l,m] z", "float[a,b] y", "y = Einsum<equation=\"ik,kj->ij\">(x, z)", ["2,3 3,4", "2,3 4,4"]),
    "grid_sample": ("float[n,c,h,w] x, float[m,k,l,p] g", "float[a,b,d,e] y", "y = GridSample(x, g)", ["1,2,3,3 1,2,2,2", "1,2,3,3 2,2,2,2", "1,2,3,3 1,2,2,3"]),
    "einsum_diagonal": ("float[n,m] x", "float[a] y", "y = Einsum<equation=\"ii->i\">(x)", ["3,3", "1,3", "3,1", "3,4"]),
    "affine_grid": ("float[n,k,l] t", "float[a,b,d,e] y", ints("s", 2, 1, 3, 4) + "y = AffineGrid(t, s)", ["2,2,3", "1,2,3", "2,3,4"]),
    "nms": ("float[b,n,p] x, float[c,k,m] s", "int64[a,3] y", ints("l", 3) + "y = NonMaxSuppression(x, s, l)", ["1,3,4 1,2,3", "1,3,5 1,2,3", "1,3,4 1,2,4", "1,3,4 2,2,3"]),
    "rotary": ("float[b,h,s,8] x, float[c,t,4] p, float[d,u,4] q", "float[a,e,f,g] y", "y = RotaryEmbedding(x, p, q)", ["1,2,3,8 1,3,4 1,3,4", "1,2,3,8 1,2,4 1,2,4"]),
    "inverse": ("float[n,m] x", "float[a,b] y", "y = com.microsoft.Inverse(x)", ["3,3", "3,4"]),
    "multi_head": ("float[n,s,8] q, float[m,t,8] k, float[l,u,8] v", "float[a,b,c] y", "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v)",
                   ["2,3,8 2,4,8 2,4,8", "2,3,8 1,4,8 1,4,8", "2,3,8 2,4,8 2,5,8"]),
    "multi_head_mask": ("float[n,s,8] q, float[n,t,8] k, int32[m,l] e", "float[a,b,c] y",
                        "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, k, , e)", ["2,3,8 2,4,8 2,4", "2,3,8 2,4,8 2,3", "2,3,8 2,4,8 1,4"]),
    "ms_rotary": ("float[n,s,8] x, int64[m,t] i, float[r,4] c, float[u,4] d", "float[a,b,e] y", "y = com.microsoft.RotaryEmbedding(x, i, c, d)",
                  ["2,3,8 2,3 5,4 5,4", "2,3,8 1,3 5,4 5,4", "2,3,8 2,2 5,4 5,4", "2,3,8 2,3 5,4 4,4"]),
    "attention": ("float[n,2,s,8] q, float[n2,2,t,8] k, float[n3,2,t2,8] v, float[o,p,l,m] z", "float[a,b,c,d] y", "y = Attention(q, k, v, z)",
                  ["2,2,3,8 2,2,4,8 2,2,4,8 1,1,3,4", "2,2,3,8 2,2,4,8 2,2,4,8 2,2,3,4", "1,2,3,8 1,2,4,8 1,2,4,8 1,1,2,4", "2,2,3,8 1,2,4,8 2,2,4,8 1,1,3,4",
                   "2,2,3,8 2,2,4,8 2,2,5,8 1,1,3,4"]),
    "lstm": ("float[t,n,c] x, float[1,8,d] w, float[1,8,2] r, float[1,m] b", "float[a,1,e,2] y", "y = LSTM<hidden_size=2>(x, w, r, b)",
             ["3,1,4 1,8,4 1,8,2 1,16", "3,1,4 1,8,5 1,8,2 1,16", "3,1,4 1,8,4 1,8,2 1,8"]),
}

# name: (inputs, outputs, body, the input that holds indices, its shape, its values per case).
RNN = "float[3,2,4] x, float[{d},{g},4] w, float[{d},{g},2] r"
LENGTHS = ["3,1", "0,3", "4,1", "-1,2"]
INDICES = {
    "lstm_lengths": (RNN.format(d=2, g=8), "float[3,2,2,2] y", "y = LSTM<hidden_size=2, direction=\"bidirectional\">(x, w, r, , l)", "int32[2] l", LENGTHS),
    "gru_lengths": (RNN.format(d=1, g=6), "float[3,1,2,2] y", "y = GRU<hidden_size=2>(x, w, r, , l)", "int32[2] l", LENGTHS),
    "rnn_lengths": (RNN.format(d=1, g=2), "float[1,2,2] h", "y, h = RNN<hidden_size=2, direction=\"reverse\">(x, w, r, , l)", "int32[2] l", LENGTHS),
    "reverse_lengths": ("float[3,2] x", "float[3,2] y", "y = ReverseSequence(x, l)", "int64[2] l", ["3,1", "4,1", "-1,2"]),
    "gather_nd": ("float[3,2] x", "float[2] y", "y = GatherND(x, i)", "int64[2,2] i", ["-3,-2,2,1", "3,0,0,0", "0,0,0,2", "-4,0,0,0"]),
    "scatter": ("float[3,2] x, float[1,2] u", "float[3,2] y", "y = ScatterElements(x, i, u)", "int64[1,2] i", ["-3,2", "3,0", "0,-4"]),
    "scatter_nd": ("float[3,2] x, float[2,2] u", "float[3,2] y", "y = ScatterND(x, i, u)", "int64[2,1] i", ["-3,2", "3,0", "0,-4"]),
    "max_unpool": ("float[1,1,2] x", "float[1,1,4] y", "y = MaxUnpool<kernel_shape=[2], strides=[2]>(x, i)", "int64[1,1,2] i", ["3,0", "-1,2", "4,0"]),
    "trilu_upper": ("float[3,4] x", "float[3,4] y", "y = Trilu(x, k)", "int64 k", ["-2", "9223372036854775807", "-9223372036854775808"]),
    "trilu_lower": ("float[3,4] x", "float[3,4] y", "y = Trilu<upper=0>(x, k)", "int64 k", ["1", "9223372036854775807", "-9223372036854775808"]),
}


def dims_of(text):
    return re.findall(r"(\w+)\[([^\]]*)\] (\w+)", text)


def model_text(name, shapes, form):
    """The model with sizes as constants, symbols, or found at run time (extra inputs: a mask per axis that may vary)."""
    inputs, outputs, body, _ = MODELS[name]
    parts, front = [], ""
    for (kind, dims, x), shape in zip(dims_of(inputs), shapes):
        names = dims.split(",")
        if form == "constant":
            parts.append(f"{kind}[{','.join(map(str, shape))}] {x}")
        elif form == "symbol":
            parts.append(f"{kind}[{dims}] {x}")
        else:
            free = [d for d, s in enumerate(names) if not s.isdigit()]
            parts.append(f"{kind}[{','.join(str(shape[d] + (d in free)) for d in range(len(shape)))}] {x}_0" if free else
                         f"{kind}[{','.join(map(str, shape))}] {x}")
            for at, d in enumerate(free):
                to = x if at == len(free) - 1 else f"{x}_{at + 1}"
                parts.append(f"bool[{shape[d] + 1}] {x}_mask{d}")
                front += f"{to} = Compress<axis={d}>({x}_{at}, {x}_mask{d}) "
    opset = 23 if name in ("attention", "rotary") else 13 if name.endswith("_13") else 21
    text = ", ".join(parts)
    return f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n{name} ({text}) => ({outputs}) {{ {front}{body} }}'


def data(name, shapes):
    rng = np.random.default_rng(5)
    feeds = {}
    for (kind, dims, x), shape in zip(dims_of(MODELS[name][0]), shapes):
        t = TYPES[kind]
        feeds[x] = rng.standard_normal(shape).astype(t) if t == np.float32 else np.full(shape, t == np.bool_, t)
    if name == "reverse_sequence":
        feeds["l"][:] = 2
    if name == "batch_norm":
        feeds["v"] = np.abs(feeds["v"])
    return feeds


def runtime_feeds(name, shapes, feeds):
    out = {}
    for (kind, dims, x), shape in zip(dims_of(MODELS[name][0]), shapes):
        free = [d for d, s in enumerate(dims.split(",")) if not s.isdigit()]
        out[f"{x}_0" if free else x] = np.pad(feeds[x], [(0, d in free) for d in range(len(shape))], mode="edge" if feeds[x].size else "constant")
        for d in free:
            out[f"{x}_mask{d}"] = np.array([True] * shape[d] + [False])
    return out


def run(folder, text, feeds):
    model = onnx.parser.parse_model(text)
    path = folder / "model.onnx"
    onnx.save(model, path)
    args = []
    for k, v in feeds.items():
        np.save(folder / f"{k}.npy", v)
        args += ["--input", f"{k}=@{folder}/{k}.npy"]
    for o in model.graph.output:
        args += ["--output", f"{o.name}=@{folder}/out_{o.name}.npy"]
    done = subprocess.run([os.environ["BURIN"], "run", "-O1", "--threads", "1", path, *args], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return "values", [np.load(folder / f"out_{o.name}.npy") for o in model.graph.output]
    if done.returncode == 1:
        return "refused", done.stderr.strip()
    return ("unsupported" if done.returncode == 5 else "failed"), f"exit {done.returncode}: {done.stderr.strip()}"


def check_indices(name, case):
    """Faults of indices as a constant and as an input."""
    inputs, outputs, body, indices, _ = INDICES[name]
    kind, shape, x = re.match(r"(\w+)(?:\[(.*)\])? (\w+)", indices).groups()
    values = np.array([int(v) for v in case.split(",")], TYPES[kind]).reshape([int(d) for d in shape.split(",")] if shape else [])
    rng = np.random.default_rng(6)
    feeds = {y: rng.standard_normal([int(d) for d in dims.split(",")]).astype(np.float32) for _, dims, y in dims_of(inputs)}
    head = f'<ir_version: 10, opset_import: ["" : 21]>\n{name} '
    constant = f"{head}({inputs}) => ({outputs}) {{ {x} = Constant<value={kind}{f'[{shape}]' if shape else ''} {{{case}}}>() {body} }}"
    forms = {"constant": (constant, feeds), "input": (f"{head}({inputs}, {indices}) => ({outputs}) {{ {body} }}", {**feeds, x: values})}
    want, expected = reference(*forms["input"])
    faults = []
    for form, (text, feeds) in forms.items():
        with tempfile.TemporaryDirectory() as folder:
            have, got = run(Path(folder), text, feeds)
        if have != want or have == "values" and not same(got, expected):
            faults.append(f"{name} {case} as {form}: {have}, ONNX Runtime: {want}; {got}, {expected}")
    return faults, 0


def reference(text, feeds):
    try:
        return "values", onnxruntime.InferenceSession(onnx.parser.parse_model(text).SerializeToString()).run(None, feeds)
    except Exception as e:
        return "refused", str(e)


def same(a, b):
    return len(a) == len(b) and all(x.shape == y.shape and np.allclose(x, y, rtol=1e-3, atol=1e-4, equal_nan=True) for x, y in zip(a, b))


def check(name, case):
    """Faults of one case, and how many forms could not be compiled."""
    shapes = [tuple(map(int, s.split(","))) for s in case.split()]
    feeds = data(name, shapes)
    want, values = reference(model_text(name, shapes, "constant"), feeds)
    faults, left_out = [], 0
    for form in ("constant", "symbol", "run-time"):
        with tempfile.TemporaryDirectory() as folder:
            have, got = run(Path(folder), model_text(name, shapes, form), runtime_feeds(name, shapes, feeds) if form == "run-time" else feeds)
        if have == "unsupported":
            left_out += 1
            print(f"skipped {name} {case}: {form} sizes are not supported")
        elif have != want:
            faults.append(f"{name} {case}: {form} sizes: {have}, ONNX Runtime: {want}; {got if have != 'values' else values}")
        elif have == "values" and not same(got, values):
            faults.append(f"{name} {case}: {form} sizes: other values")
    return faults, left_out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    cases = [(n, c) for n, m in MODELS.items() if args.only in n for c in m[3]]
    indices = [(n, c) for n, m in INDICES.items() if args.only in n for c in m[4]]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda c: check(*c), cases)) + list(pool.map(lambda c: check_indices(*c), indices))
    failed = skipped = 0
    for faults, left_out in results:
        skipped += left_out
        failed += bool(faults)
        for f in faults:
            print("FAILED", f[:400])
    print(f"{len(results) - failed} passed, {failed} failed, {skipped} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
