#!/usr/bin/env python3
"""Chains of operators whose sizes are symbolic or depend on data, compiled and compared with ONNX Runtime.

usage: chains.py [NAME...]      needs onnx and onnxruntime; the compiler as in python/burin ($BURIN or build/burin)
"""
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import parser

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
import burin

NP = np.random.RandomState(0)


def F(*shape):
    return NP.randn(*shape).astype(np.float32)


def numbers(count):
    return ",".join("%.3f" % v for v in NP.randn(count) * 0.5)


# name: (graph text, inputs)
C = {}
C["nonzero_gathernd"] = (
    "(float[N,4] x) => (float[K] y, float s) { nz=NonZero(x) t=Transpose(nz) y=GatherND(x,t) s=ReduceSum<keepdims=0>(y) }",
    lambda:{"x":(F(5,4)*(NP.rand(5,4)<.5)).astype(np.float32)})
C["nonzero_none"] = (
    "(float[N,4] x) => (float[K] y, int64[1] n) { nz=NonZero(x) t=Transpose(nz) y=GatherND(x,t) n=Shape<start=0,end=1>(y) }",
    lambda:{"x":np.zeros((5,4),np.float32)})
C["nonzero_mul"] = (
    "(float[N,4] x) => (float[K] y) <int64[1] m={-1}, float[1] two={2}> { nz=NonZero(x) t=Transpose(nz) g=GatherND(x,t) h=Mul(g,two) y=Add(h,g) }",
    lambda:{"x":F(5,4)})
C["nms_gather"] = (
    "(float[1,N,4] b, float[1,2,N] s) => (float[K,4] y, int64[K] c, float[K] sc) <int64 mx={5}, float iou={0.5}, float th={0.1}, int64[1] zero={0}, int64[1] one={1}, int64[1] two={2}, int64[1] three={3}, int64[1] ax={1}, int64[1] ax0={0}> { i=NonMaxSuppression(b,s,mx,iou,th) bi=Slice(i,two,three,ax) bs=Squeeze(bi,ax) b0=Squeeze(b,ax0) y=Gather(b0,bs) ci=Slice(i,one,two,ax) c=Squeeze(ci,ax) sc=GatherND(s,i) }",
    lambda:(lambda p:{"b":np.concatenate([p,p+NP.rand(1,9,2).astype(np.float32)],-1).astype(np.float32),"s":NP.rand(1,2,9).astype(np.float32)})(NP.rand(1,9,2)*2))
C["topk_min"] = (
    "(float[N] x) => (float[k] y, int64[k] i) <int64[1] hundred={4}> { n=Shape(x) k=Min(n,hundred) y,i=TopK(x,k) }",
    lambda:{"x":F(7)})
C["topk_min_small"] = (
    "(float[N] x) => (float[k] y, int64[k] i) <int64[1] hundred={4}> { n=Shape(x) k=Min(n,hundred) y,i=TopK(x,k) }",
    lambda:{"x":F(3)})
C["unique_counts"] = (
    "(int64[N] x) => (int64[K] y, float[K,2] z) <int64[1] two={2}, int64[2] sh={-1,1}> { y,a,b,c=Unique(x) n=Shape(y) s=Concat<axis=0>(n,two) cf=Cast<to=1>(c) cu=Reshape(cf,sh) z=Expand(cu,s) }",
    lambda:{"x":NP.randint(0,4,size=[9]).astype(np.int64)})
C["compress_scatter"] = (
    "(float[N,3] x, bool[N] m) => (float[K,3] y, float[N,3] z) <int64[1] ax={0}> { y=Compress<axis=0>(x,m) nz=NonZero(m) t=Transpose(nz) d=Neg(y) z=ScatterND(x,t,d) }",
    lambda:{"x":F(6,3),"m":NP.rand(6)<.5})
C["dynslice"] = (
    "(float[N,8] x, int64[1] a, int64[1] b) => (float[K,8] y, float[K,8] z) <int64[1] ax={0}> { y=Slice(x,a,b,ax) z=Relu(y) }",
    lambda:{"x":F(9,8),"a":np.array([2],np.int64),"b":np.array([7],np.int64)})
C["dynreshape"] = (
    "(float[N,8] x, int64[2] s) => (float[A,B] y, float[B,A] z) { y=Reshape(x,s) z=Transpose(y) }",
    lambda:{"x":F(3,8),"s":np.array([-1,6],np.int64)})
C["ifshape"] = (
    "(float[N] x, bool c) => (float[K] y) { z=If(c)<then_branch=g1()=>(float[M] a){ a=Concat<axis=0>(x,x) }, else_branch=g2()=>(float[M2] b){ b=Neg(x) }> y=Add(z,z) }",
    lambda:{"x":F(4),"c":np.array(True)})
C["ifshape2"] = (
    C["ifshape"][0],
    lambda:{"x":F(4),"c":np.array(False)})
C["posenc"] = (
    "(int64[B,S] ids) => (float[B,S,4] y) <float[6,4] tab={1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24}, int64[1] zero={0}, int64[1] one={1}, int64[1] ax={0}, int64 z={0}, int64 o={1}> { s=Shape(ids) n=Gather<axis=0>(s,one) p=Slice(tab,zero,n,ax) e=Gather(tab,ids) y=Add(e,p) }",
    lambda:{"ids":NP.randint(0,6,size=[2,4]).astype(np.int64)})
C["mask"] = (
    "(int64[B,S] ids) => (float[B,1,S,S] y) <int64 z={0}, int64 o={1}, int64[1] one={1}, float[1] ninf={-1000.}, int64[2] u={1,2}> { s=Shape(ids) n=Gather<axis=0>(s,o) r=Range(z,n,o) n1=Gather<axis=0>(s,one) b1=Shape<start=0,end=1>(ids) col=Unsqueeze(r,one) g=Less(col,r) gf=Cast<to=1>(g) m=Mul(gf,ninf) sh=Concat<axis=0>(b1,one,n1,n1) y=Expand(m,sh) }",
    lambda:{"ids":NP.randint(0,6,size=[2,5]).astype(np.int64)})
C["resize_dyn"] = (
    "(float[1,2,H,W] x) => (float[1,2,A,B] y) <float[4] sc={1,1,2,2}> { y=Resize<mode=\"linear\">(x,,sc) }",
    lambda:{"x":F(1,2,3,5)})
C["resize_like"] = (
    "(float[1,2,H,W] x, float[1,3,P,Q] r) => (float[1,2,A,B] y) <int64[1] z={0}> { s=Shape<start=2>(r) c=Shape<start=0,end=2>(x) t=Concat<axis=0>(c,s) y=Resize<mode=\"nearest\",coordinate_transformation_mode=\"asymmetric\",nearest_mode=\"floor\">(x,,,t) }",
    lambda:{"x":F(1,2,3,5),"r":F(1,3,7,8)})
C["scan"] = (
    "(float[N,3] x, float[3] h) => (float[3] hn, float[N,3] ys) { hn,ys=Scan<num_scan_inputs=1,body=g(float[3] a, float[3] b)=>(float[3] c,float[3] d){ c=Add(a,b) d=Relu(c) }>(h,x) }",
    lambda:{"x":F(5,3),"h":F(3)})
C["scan_rev"] = (
    "(float[3,N] x, float[3] h) => (float[3] hn, float[3,N] ys) { hn,ys=Scan<num_scan_inputs=1,scan_input_axes=[1],scan_input_directions=[1],scan_output_axes=[1],scan_output_directions=[1],body=g(float[3] a, float[3] b)=>(float[3] c,float[3] d){ c=Add(a,b) d=Relu(c) }>(h,x) }",
    lambda:{"x":F(3,5),"h":F(3)})
C["loop_dyn"] = (
    "(int64 n, float[2] x) => (float[2] y) <bool t={1}> { y=Loop(n,t)<body=g(int64 i,bool c,float[2] a)=>(bool co,float[2] b){ co=Identity(c) f=Cast<to=1>(i) b=Add(a,f) }>(x) }".replace("Loop(n,t)<","Loop<").replace(">(x) }",">(n,t,x) }"),
    lambda:{"n":np.array(4,np.int64),"x":F(2)})
C["loop_break"] = (
    "(float[2] x) => (float[2] y, float[K,2] ys) <bool t={1}, int64 n={10}, float lim={3}> { y,ys=Loop<body=g(int64 i,bool c,float[2] a)=>(bool co,float[2] b,float[2] s){ f=Cast<to=1>(i) b=Add(a,f) s=Neg(b) co=Less(f,lim) }>(n,t,x) }",
    lambda:{"x":F(2)})
C["lstm_dyn"] = (
    "(float[S,B,3] x) => (float[S,1,B,2] y, float[1,B,2] h, float[1,B,2] c) <float[1,8,3] W={%s}, float[1,8,2] R={%s}> { y,h,c=LSTM<hidden_size=2>(x,W,R) }"%(numbers(24),numbers(16)),
    lambda:{"x":F(5,2,3)})
C["bilstm_dyn_len"] = (
    "(float[S,B,3] x, int32[B] l) => (float[S,2,B,2] y, float[2,B,2] h, float[2,B,2] c) <float[2,8,3] W={%s}, float[2,8,2] R={%s}> { y,h,c=LSTM<hidden_size=2,direction=\"bidirectional\">(x,W,R,,l) }"%(numbers(48),numbers(32)),
    lambda:{"x":F(5,3,3),"l":np.array([2,5,3],np.int32)})
C["tile_split"] = (
    "(float[N,6] x) => (float[N,12] y, float[N,3] a, float[N,3] b) <int64[2] r={1,2}> { y=Tile(x,r) a,b=Split<axis=1,num_outputs=2>(x) }",
    lambda:{"x":F(3,6)})
C["split_dyn"] = (
    "(float[N,6] x) => (float[A,6] a, float[B,6] b) { a,b=Split<axis=0,num_outputs=2>(x) }",
    lambda:{"x":F(5,6)})
C["pad_dyn"] = (
    "(float[N,4] x) => (float[M,4] y) <int64[1] z={0}, int64[1] eight={8}> { n=Shape<end=1>(x) d=Sub(eight,n) p=Concat<axis=0>(z,z,d,z) y=Pad(x,p) }",
    lambda:{"x":F(5,4)})
C["gru_seq1"] = (
    "(float[1,B,3] x, float[1,B,2] h0) => (float[1,1,B,2] y, float[1,B,2] h) <float[1,6,3] W={%s}, float[1,6,2] R={%s}> { y,h=GRU<hidden_size=2>(x,W,R,,,h0) }"%(numbers(18),numbers(12)),
    lambda:{"x":F(1,2,3),"h0":F(1,2,2)})
C["dft"] = (
    "(float[B,16,1] x) => (float[B,K,2] y) <int64 ax={1}> { y=DFT<onesided=1>(x,,ax) }",
    lambda:{"x":F(2,16,1)})
C["stft"] = (
    "(float[B,L,1] x) => (float[B,T,K,2] y) <int64 st={4}, float[8] w={1,2,3,4,4,3,2,1}> { y=STFT(x,st,w) }",
    lambda:{"x":F(2,30,1)})

def run(name, text, make):
    """Empty, or what is wrong."""
    model = parser.parse_model('<ir_version: 9, opset_import: ["" : 20]> chain ' + text)
    feeds = make()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    want = session.run(None, feeds)
    try:
        got = burin.compile(model).run(feeds)
        for a, b in zip(got, want):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-3, atol=1e-4, strict=True)
    except (burin.CompileError, burin.RunError, AssertionError) as e:
        return str(e)
    return ""


def main():
    ort.set_default_logger_severity(4)
    failed = 0
    for name, (text, make) in C.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        wrong = run(name, text, make)
        if wrong:
            failed += 1
            print(f"FAIL {name}: {wrong}")
    print(f"chains: {len(C) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
