#!/usr/bin/env python3
"""Part "sizes": compiled models between guard pages with random symbolic sizes and random data (tests/memory/sizes.c).

run_sizes.py [--runs N] [--graphs N] [--seed S] [--target T] [--only PART]: N runs of each model; models are those below
(each operator whose safety hangs on sizes or data) and random graphs. A long run is a fuzzer: --runs 30000 --graphs 100.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import onnx
import onnx.parser

import burin

HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'

# name: inputs => outputs; body. Sizes are symbols, indices and limits are data.
MODELS = {
    "gather": "(float[n,m] x, int64[k] i) => (float[a,b] y) { y = Gather<axis=0>(x, i) }",
    "gather1": "(float[n,m] x, int64[k,l] i) => (float[a,b,c] y) { y = Gather<axis=1>(x, i) }",
    "gather_elements": "(float[n,m] x, int64[k,l] i) => (float[a,b] y) { y = GatherElements<axis=1>(x, i) }",
    "gather_nd": "(float[n,m,p] x, int64[k,2] i) => (float[a,b] y) { y = GatherND(x, i) }",
    "gather_nd_batch": "(float[n,m,p] x, int64[k,1] i) => (float[a,b] y) { y = GatherND<batch_dims=1>(x, i) }",
    "scatter": "(float[n,m] x, int64[k,l] i, float[p,q] u) => (float[a,b] y) { y = ScatterElements<axis=0>(x, i, u) }",
    "scatter_add": "(float[n,m] x, int64[k,l] i, float[p,q] u) => (float[a,b] y) { y = ScatterElements<axis=1, reduction=\"add\">(x, i, u) }",
    "scatter_nd": "(float[n,m] x, int64[k,1] i, float[p,q] u) => (float[a,b] y) { y = ScatterND(x, i, u) }",
    "scatter_nd2": "(float[n,m] x, int64[k,2] i, float[p] u) => (float[a,b] y) { y = ScatterND<reduction=\"max\">(x, i, u) }",
    "slice_data": "(float[n,m] x, int64[2] s, int64[2] e, int64[2] t) => (float[a,b] y) { ax = Constant<value_ints=[0,1]>() y = Slice(x, s, e, ax, t) }",
    "slice_back": "(float[n,m] x) => (float[a,b] y) { s = Constant<value_ints=[-1]>() e = Constant<value_ints=[-2147483648]>() ax = Constant<value_ints=[0]>() t = Constant<value_ints=[-2]>() y = Slice(x, s, e, ax, t) }",
    "slice_negative": "(float[n] x) => (float[a] y) { s = Constant<value_ints=[-7]>() e = Constant<value_ints=[-2]>() ax = Constant<value_ints=[0]>() y = Slice(x, s, e, ax) }",
    "split_fixed": "(float[n,m] x) => (float[a,b] y, float[c,d] z) { s = Constant<value_ints=[2,3]>() y, z = Split<axis=0>(x, s) }",
    "split_even": "(float[n,m] x) => (float[a,b] y, float[c,d] z) { y, z = Split<axis=1, num_outputs=2>(x) }",
    "split_nonzero": "(float[n] x) => (int64[1,a] y, int64[1,b] z) { i = NonZero(x) s = Constant<value_ints=[1,2]>() y, z = Split<axis=1>(i, s) }",
    "concat": "(float[n,m] x, float[k,l] z) => (float[a,b] y) { y = Concat<axis=1>(x, z) }",
    "concat_conv": "(float[1,4,h,w] x, float[1,4,k,l] z, float[8,8,3,3] f) => (float[1,8,a,b] y) { r = Relu(x) s = Sigmoid(z) c = Concat<axis=1>(r, s) y = Conv<pads=[1,1,1,1]>(c, f) }",
    "expand": "(float[n,1] x, float[k,m] z) => (float[a,b] y) { s = Shape(z) y = Expand(x, s) }",
    "add": "(float[n,m] x, float[k,m] z) => (float[a,b] y) { y = Add(x, z) }",
    "add_first": "(float[n,m] x) => (float[a,b] y) { s = Constant<value_ints=[0]>() e = Constant<value_ints=[1]>() f = Slice(x, s, e, s) g = Concat<axis=0>(x, x) y = Add(f, g) }",
    "where": "(bool[n] c, float[m] x, float[k] z) => (float[a] y) { y = Where(c, x, z) }",
    "matmul": "(float[b,n,k] x, float[c,l,m] z) => (float[p,q,r] y) { y = MatMul(x, z) }",
    "matmul_relu": "(float[n,16] x, float[16,m] z, float[l] w) => (float[q,r] y) { p = MatMul(x, z) s = Add(p, w) y = Relu(s) }",
    "gemm": "(float[n,k] x, float[l,m] z, float[p,q] c) => (float[a,b] y) { y = Gemm<transA=1>(x, z, c) }",
    "conv": "(float[n,3,h,w] x, float[8,3,3,3] f) => (float[a,8,b,c] y) { y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, f) }",
    "conv_valid": "(float[n,4,h,w] x, float[16,4,5,3] f, float[16] z) => (float[a,16,b,c] y) { t = Conv(x, f, z) y = Relu(t) }",
    "conv_channels": "(float[n,c,h,w] x, float[m,k,3,3] f) => (float[p,q,r,s] y) { y = Conv<pads=[1,1,1,1]>(x, f) }",
    "conv_dilated": "(float[1,8,h,w] x, float[8,8,3,3] f) => (float[1,8,b,c] y) { y = Conv<dilations=[12,12], pads=[12,12,12,12]>(x, f) }",
    "conv_depthwise": "(float[n,16,h,w] x, float[16,1,3,3] f) => (float[a,16,b,c] y) { y = Conv<group=16, pads=[1,1,1,1]>(x, f) }",
    "conv_thin": "(float[1,16,1,w] x, float[1,16,1,7] f) => (float[1,1,1,b] y) { y = Conv<pads=[0,3,0,3]>(x, f) }",
    "conv_1d": "(float[n,8,w] x, float[24,8,3] f) => (float[a,24,b] y) { y = Conv<pads=[1,1]>(x, f) }",
    "conv_3d": "(float[1,4,d,h,w] x, float[8,4,3,3,3] f) => (float[1,8,a,b,c] y) { y = Conv<pads=[1,1,1,1,1,1]>(x, f) }",
    "conv_transpose": "(float[1,4,h,w] x, float[4,8,4,4] f) => (float[1,8,b,c] y) { y = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, f) }",
    "vocoder": "(float[1,8,w] x, float[8,4,32] f, float[1,4,7] g) => (float[1,1,b] y) { t = ConvTranspose<strides=[16], pads=[8,8]>(x, f) u = LeakyRelu(t) y = Conv<pads=[3,3]>(u, g) }",
    "max_pool": "(float[n,3,h,w] x) => (float[a,3,b,c] y) { y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x) }",
    "pool_valid": "(float[n,3,h,w] x) => (float[a,3,b,c] y) { y = AveragePool<kernel_shape=[4,5], ceil_mode=1, strides=[2,3]>(x) }",
    "pad_reflect": "(float[n,m] x) => (float[a,b] y) { p = Constant<value_ints=[2,0,3,1]>() y = Pad<mode=\"reflect\">(x, p) }",
    "pad_negative": "(float[n,m] x) => (float[a,b] y) { p = Constant<value_ints=[-2,1,-3,0]>() y = Pad(x, p) }",
    "pad_edge": "(float[n,m] x) => (float[a,b] y) { p = Constant<value_ints=[2,1,3,0]>() y = Pad<mode=\"edge\">(x, p) }",
    "reshape": "(float[n,m] x) => (float[a,b] y) { s = Constant<value_ints=[-1,6]>() y = Reshape(x, s) }",
    "reshape_shape": "(float[n,m] x, float[k,l] z) => (float[a,b] y) { s = Shape(z) y = Reshape(x, s) }",
    "squeeze": "(float[n,m] x) => (float[a] y) { s = Constant<value_ints=[1]>() y = Squeeze(x, s) }",
    "depth_to_space": "(float[n,c,h,w] x) => (float[a,b,d,e] y) { y = DepthToSpace<blocksize=2>(x) }",
    "space_to_depth": "(float[n,c,h,w] x) => (float[a,b,d,e] y) { y = SpaceToDepth<blocksize=2>(x) }",
    "reverse_sequence": "(float[t,n,k] x, int64[m] l) => (float[a,b,c] y) { y = ReverseSequence<time_axis=0, batch_axis=1>(x, l) }",
    "one_hot": "(int64[n,m] i, float[k] v) => (float[a,b,5] y) { d = Constant<value_int=5>() y = OneHot(i, d, v) }",
    "topk": "(float[n,m] x) => (float[a,b] y, int64[c,d] z) { k = Constant<value_ints=[4]>() y, z = TopK(x, k) }",
    "compress": "(float[n,m] x, bool[k] c) => (float[a,b] y) { y = Compress<axis=0>(x, c) }",
    "compress_norm": "(float[n,6,m] x, bool[k] c, float[3] s, float[3] o) => (float[a,b,d] y) { z = Compress<axis=1>(x, c) y = InstanceNormalization(z, s, o) }",
    "nonzero_gather": "(float[n,m] x, float[k] z) => (float[2,a] y) { i = NonZero(x) y = Gather(z, i) }",
    "unique": "(float[n] x) => (float[a] y, int64[b] i, int64[c] j, int64[d] k) { y, i, j, k = Unique<sorted=0>(x) }",
    "group_norm": "(float[n,c,h] x, float[k] s, float[l] z) => (float[a,b,d] y) { y = GroupNormalization<num_groups=2>(x, s, z) }",
    "layer_norm": "(float[n,m] x, float[k] s, float[l] z) => (float[a,b] y) { y = LayerNormalization(x, s, z) }",
    "batch_norm": "(float[n,c,h] x, float[k] s, float[l] z, float[o] e, float[p] v) => (float[a,b,d] y) { y = BatchNormalization(x, s, z, e, v) }",
    "softmax": "(float[n,m] x) => (float[a,b] y) { y = Softmax<axis=0>(x) }",
    "reduce": "(float[n,m] x) => (float[a] y, float[b] z) { ax = Constant<value_ints=[0]>() y = ReduceMean<keepdims=0>(x, ax) z = ReduceMax<keepdims=0>(x, ax) }",
    "argmax": "(float[n,m] x) => (int64[a] y) { y = ArgMax<axis=0, keepdims=0>(x) }",
    "cumsum": "(float[n,m] x, int64 i) => (float[a,b] y) { y = CumSum(x, i) }",
    "cumsum_1": "(float[n,m] x) => (float[a,b] y) { i = Constant<value_int=1>() y = CumSum<reverse=1, exclusive=1>(x, i) }",
    "trilu": "(float[n,m] x, int64 k) => (float[a,b] y) { y = Trilu<upper=1>(x, k) }",
    "einsum": "(float[n,k] x, float[l,m] z) => (float[a,b] y) { y = Einsum<equation=\"ik,kj->ij\">(x, z) }",
    "attention_parts": "(float[1,2,s,8] q, float[1,2,t,8] k, float[1,2,u,8] v) => (float[1,2,a,8] y) { kt = Transpose<perm=[0,1,3,2]>(k) p = MatMul(q, kt) z = Softmax(p) y = MatMul(z, v) }",
    "attention_mask": "(float[n,2,s,8] q, float[n,2,t,8] k, float[n,2,t,8] v, float[o,p,l,m] z) => (float[a,b,c,d] y) { y = com.microsoft.Unknown(q, k, v, z) }",
    "group_query": "(float[n,s,128] x, float[n,2,p,16] k, float[n,2,p,16] v, int32[n] e, float[n,t] z, float[r,8] c, float[r,8] d) => (float[a,b,64] y, float[f,2,g,16] kn, float[h,2,i,16] vn) { ts = Shape<start=1, end=2>(z) tt = Cast<to=6>(ts) y, kn, vn = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2, do_rotary=1>(x, , , k, v, e, tt, c, d) }",
    "multi_head": "(float[n,s,32] q, float[n,2,t,16] k, float[n,2,t,16] v, int32[n] e, float[w,2,s,t] z) => (float[a,b,32] y) { y = com.microsoft.MultiHeadAttention<num_heads=2, unidirectional=1>(q, k, v, , e, z) }",
    "gather_blocks": "(float[n,16] x, int64[k] i, float[n,2] s) => (float[a,32] y) { u = Cast<to=2>(x) y = com.microsoft.GatherBlockQuantized<block_size=16>(u, i, s) }",
    "remove_padding": "(float[n,s,h] x, int32[n] c) => (float[a,b] y, int32[p,q] o, int32[e] z, int32[1] l) { y, o, z, l = com.microsoft.RemovePadding(x, c) }",
    "restore_padding": "(float[t,h] x, int32[n,s] o) => (float[a,b,c] y) { y = com.microsoft.RestorePadding(x, o) }",
    "packed_heads": "(float[t,32] x, int32[2,s] o, int32[3] z) => (float[a,b] y) { y = com.microsoft.PackedMultiHeadAttention<num_heads=2>(x, x, x, , o, z) }",
    "rotary": "(float[n,s,32] x, int64[n,s] i, float[r,8] c, float[r,8] d) => (float[a,b,32] y) { y = com.microsoft.RotaryEmbedding<num_heads=2>(x, i, c, d) }",
    "inverse": "(float[n,m,k] x) => (float[a,b,c] y) { y = com.microsoft.Inverse(x) }",
    "lstm": "(float[t,n,4] x, float[1,32,4] w, float[1,32,8] r, float[1,64] z, int32[m] l) => (float[a,1,b,8] y) { y = LSTM<hidden_size=8>(x, w, r, z, l) }",
    "gru": "(float[t,n,4] x, float[1,24,4] w, float[1,24,8] r) => (float[a,1,b,8] y) { y = GRU<hidden_size=8>(x, w, r) }",
    "grid_sample": "(float[n,c,h,w] x, float[m,k,l,2] g) => (float[a,b,d,e] y) { y = GridSample(x, g) }",
    "resize_sizes": "(float[1,2,h,w] x, float[k,l] z) => (float[1,2,a,b] y) { s = Shape(z) o = Constant<value_ints=[1,2]>() t = Concat<axis=0>(o, s) y = Resize<mode=\"cubic\">(x, , , t) }",
    "grid_border": "(float[n,c,h,w] x, float[m,k,l,2] g) => (float[a,b,d,e] y) { y = GridSample<padding_mode=\"border\">(x, g) }",
    "grid_reflect": "(float[n,c,h,w] x, float[m,k,l,2] g) => (float[a,b,d,e] y) { y = GridSample<padding_mode=\"reflection\", mode=\"nearest\">(x, g) }",
    "split_equal": "(float[n,m] x) => (float[a,b] y, float[c,d] z) { y, z = Split<axis=1>(x) }",
    "expand_rows": "(float[n,3] x, bool[k] c, float[k] w) => (float[a,b] y) { z = Compress<axis=0>(w, c) s = Shape(z) y = Expand(x, s) }",
    "roi_align": "(float[n,c,h,w] x, float[r,4] z, int64[s] i) => (float[a,b,3,3] y) { y = RoiAlign<output_height=3, output_width=3>(x, z, i) }",
    "nms": "(float[b,n,4] x, float[c,k,m] s) => (int64[a,3] y) { l = Constant<value_ints=[3]>() y = NonMaxSuppression(x, s, l) }",
    "resize": "(float[1,2,h,w] x) => (float[1,2,a,b] y) { s = Constant<value_floats=[1.0,1.0,2.0,0.6]>() y = Resize<mode=\"linear\">(x, , s) }",
    "loop": "(float[n] x, int64 t, bool c) => (float[n] y, float[k,n] z) { y, z = Loop<body = body (int64 i, bool p, float[n] s) => (bool p1, float[n] s1, float[n] o) { p1 = Identity(p) s1 = Add(s, x) o = Relu(s1) }>(t, c, x) }",
    "if": "(float[n,m] x, float[k,l] z, bool c) => (float[a,b] y) { y = If<then_branch = a () => (float[p,q] u) { u = MatMul(x, z) }, else_branch = b () => (float[r,s] v) { t = Add(x, x) v = MatMul(t, z) }>(c) }",
    "max_unpool": "(float[1,1,h,w] x, int64[1,1,k,l] i) => (float[1,1,a,b] y) { y = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(x, i) }",
    "col2im": "(float[1,k,l] x) => (float[1,a,6,7] y) { s = Constant<value_ints=[6,7]>() b = Constant<value_ints=[2,3]>() y = Col2Im(x, s, b) }",
    "quantize": "(float[n,m] x, float[k] s, uint8[l] z) => (uint8[a,b] y) { y = QuantizeLinear<axis=1>(x, s, z) }",
    "dft": "(float[n,m,1] x) => (float[a,b,2] y) { y = DFT(x) }",
    "shape_division": "(float[n] x, float[m] z) => (int64[1] y) { s = Shape(x) t = Shape(z) y = Div(s, t) }",
    "reshape_division": "(float[n,12] x, float[m] z) => (float[a,b] y) { s = Shape<start=0, end=1>(x) t = Shape(z) d = Div(s, t) e = Constant<value_ints=[-1]>() c = Concat<axis=0>(d, e) y = Reshape(x, c) }",
    "tile": "(float[n,m] x) => (float[a,b] y) { r = Constant<value_ints=[2,3]>() y = Tile(x, r) }",
    "transpose": "(float[n,m,k] x) => (float[a,b,c] y) { y = Transpose<perm=[2,0,1]>(x) }",
    "scatter_softmax": "(float[n,4] x, int64[m] e, float[k,4] w) => (float[a,4] y) { g = Gather(x, e) h = Mul(g, w) s = Softmax(h) ax = Constant<value_ints=[1]>() i = Unsqueeze(e, ax) z = ConstantOfShape<value = float[1] {0}>(sh) sh2 = Shape(h) ix = Expand(i, sh2) y = ScatterElements<axis=0, reduction=\"add\">(x, ix, s) }",
    "sequence_mean": "(float[n,t,8] x, float[m,s] k) => (float[a,8] y) { ax = Constant<value_ints=[2]>() u = Unsqueeze(k, ax) v = Mul(x, u) b = Constant<value_ints=[1]>() y = ReduceSum<keepdims=0>(v, b) }",
}
MODELS["attention_mask"] = MODELS["attention_mask"].replace("com.microsoft.Unknown", "Attention")
MODELS["scatter_softmax"] = MODELS["scatter_softmax"].replace("z = ConstantOfShape<value = float[1] {0}>(sh) ", "")


def parse(name):
    inputs, body = MODELS[name].split("{", 1)
    opset = HEADER.replace(": 21", ": 23") if "= Attention(" in body else HEADER
    return onnx.parser.parse_model(f"{opset}{name} {inputs}{{{body}")


def build(folder, name, model, args):
    source, library = folder / f"{name}.onnx", folder / f"{name}.so"
    onnx.save(model, source)
    done = subprocess.run([burin.compiler(), str(source), "-o", str(library), "--emit=shared", "--name=fuzzed", f"--target={args.target}", "-q",
                           *args.flags.split()], capture_output=True, text=True)
    if done.returncode in (0, 5):
        return library if not done.returncode else None
    print(f"{name}: status {done.returncode}: {done.stderr.strip()[:300]}", flush=True)
    return None if done.returncode == 1 and "internal" not in done.stderr else name


def jobs(args):
    from tests.models.run_random import random_graph
    for name in MODELS:
        if args.only in name:
            yield name, lambda name=name: parse(name)
    if not args.only:
        for seed in range(args.seed, args.seed + args.graphs):
            yield f"graph{seed}", lambda seed=seed: random_graph(seed).model()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--runs", type=int, default=250)
    p.add_argument("--graphs", type=int, default=8)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--target", default="native")
    p.add_argument("--flags", default="")
    p.add_argument("--only", default="")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--keep", help="folder that keeps the models")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary)
        folder.mkdir(exist_ok=True)
        harness = folder / "sizes"
        subprocess.run(["clang-19", "-O2", f"-I{ROOT}", str(ROOT / "tests/memory/sizes.c"), "-o", str(harness), "-ldl"], check=True)

        def one(job):
            name, make = job
            library = build(folder, name, make(), args)
            if not isinstance(library, Path):
                return 0, library is not None
            done = subprocess.run([str(harness), str(args.seed), str(args.runs), str(library)], capture_output=True, text=True)
            found = re.search(r"(\d+) ran, (\d+) refused, (\d+) too large", done.stdout)
            if done.returncode or args.only:
                print(f"{name}: {done.stdout.strip()[-600:]} {done.stderr.strip()[-300:]}".replace(str(folder) + "/", ""), flush=True)
            if not args.keep:
                library.unlink()
            return sum(map(int, found.groups())) if found else 0, done.returncode != 0
        with ThreadPoolExecutor(args.jobs) as pool:
            results = list(pool.map(one, jobs(args)))
    failed = sum(r[1] for r in results)
    print(f"{sum(r[0] for r in results)} runs")
    print(f"{len(results) - failed} passed, {failed} failed, 0 skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
