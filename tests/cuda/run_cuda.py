#!/usr/bin/env python3
"""Part "cuda": the device below models whose kernels run on a GPU, with hand-written models: on this CPU in its place, and by
CUDA's driver, for which a fake one stands in (fake/fake.h) that is strict, late, and fails when told to."""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import part
from part import ROOT, burin, check

RUNTIME = Path(os.environ.get("BURIN_BUILD", ROOT / "build")) / "runtime"
HERE = ROOT / "tests/cuda"
LIBRARY = RUNTIME / "burin_rt_x86_64.a"


def tool(*command):
    subprocess.run([str(c) for c in command], check=True)


def model(folder, name, *defines):
    o = folder / f"{name}.o"
    tool("clang-19", "--target=x86_64-linux-gnu", "-O1", "-ffreestanding", "-fPIC", "-fvisibility=hidden", "-I", ROOT, *defines,
         "-c", HERE / "hand_model.c", "-o", o)
    return o


def host_program(folder, name, *defines):
    """A static program whose kernels run on this CPU."""
    o = model(folder, name, "-DHOST_KERNELS", *defines)
    tool("ld.lld-19", "-static", "-e", "_start", "--gc-sections", o, RUNTIME / "burin_program_x86_64.o",
         RUNTIME / "burin_host_x86_64.a", LIBRARY, "-o", folder / name)
    return folder / name


def build(folder):
    host_program(folder, "host")
    tool("ld.lld-19", "-shared", folder / "host.o", RUNTIME / "burin_host_x86_64.a", LIBRARY, "-o", folder / "kernels.so")
    o = model(folder, "cuda")
    tool("ld.lld-19", "--dynamic-linker=/lib64/ld-linux-x86-64.so.2", "-e", "_start", "--gc-sections", "-z", "now", o,
         RUNTIME / "burin_program_x86_64.o", RUNTIME / "burin_cuda_x86_64.a", LIBRARY, RUNTIME / "burin_libc_x86_64.so",
         "-o", folder / "cuda")
    (folder / "driver").mkdir()
    flags = ["clang-19", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
             "-Wno-deprecated-non-prototype", "-I", ROOT]
    tool(*flags, "-fPIC", "-shared", "-fvisibility=hidden", *sorted((HERE / "fake").glob("*.c")), "-Wl,-soname,libcuda.so.1",
         "-o", folder / "driver/libcuda.so.1", "-ldl", "-lpthread")
    tool(*flags, "-fPIC", "-shared", ROOT / "tests/unit/cuda/fake_nvrtc.c", "-o", folder / "nvrtc.so")
    tool(*flags, HERE / "driver_test.c", o, RUNTIME / "burin_cuda_x86_64.a", LIBRARY, "-o", folder / "driver_test", "-ldl", "-lpthread")


def environment(folder, **settings):
    return {**os.environ, "LD_LIBRARY_PATH": str(folder / "driver"), "FAKE_CUDA_KERNELS": f"{folder}/kernels.so:m_gpu",
            **{f"FAKE_CUDA_{k}": str(v) for k, v in settings.items()}}


def case(folder, name, *args, **settings):
    r = part.run(folder / "driver_test", name, *args, env=environment(folder, **settings))
    check(f"{name} {args} {settings}", r.returncode == 0, f"{r.returncode} {r.stdout} {r.stderr}")


def test_stand_in(folder):
    x = np.random.default_rng(1).normal(size=160).astype(np.float32)
    t = np.maximum(2 * x.astype(np.float64) + 1, 0).astype(np.float32)
    y = t.reshape(-1, 32)[:, ::-1].reshape(-1)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    np.save(folder / "s.npy", np.array([(y > 0).sum()], np.int64))
    same = ["--input", f"x=@{folder}/x.npy", "--expect", f"y=@{folder}/y.npy", "--expect", f"s=@{folder}/s.npy"]
    for order in ("forward", "backward", "shuffled"):
        r = part.run(folder / "host", *same, "--gpu-order", order, "--check-memory", "--profile")
        check(f"stand-in {order}", r.returncode == 0, r.stdout + r.stderr)
    r = part.run(folder / "host", *same, "--gpu-order", "sideways")
    check("an order that is none", r.returncode == 2 and "forward, backward or shuffled" in r.stderr, r.stderr)
    r = part.run(folder / "cuda", *same, env=environment(folder))
    check("program on the driver", r.returncode == 0 and "0 of 160 elements differ" in r.stdout, r.stdout + r.stderr)
    r = part.run(folder / "cuda", *same, "--bench=3", "--profile", env=environment(folder))
    check("its profile", r.returncode == 0 and "reverse" in r.stdout, r.stdout + r.stderr)
    check("its times", r.stdout.count("bench: 3 runs") == 1 and r.stdout.count("bench, tensors on the GPU: 3 runs") == 1, r.stdout)
    r = part.run(folder / "host", *same, "--bench=1")
    check("no times without copies", r.returncode == 0 and "tensors on" not in r.stdout, r.stdout + r.stderr)
    r = part.run(folder / "cuda", *same, "--gpu-order", "forward", env=environment(folder))
    check("no order of a GPU's blocks", r.returncode == 2, r.stderr)


def test_barriers(folder):
    """Kernels that are wrong: what a barrier that is missing, or that not all come to, looks like."""
    np.save(folder / "x.npy", np.arange(64, dtype=np.float32))
    given = ["--input", f"x=@{folder}/x.npy", "--output", f"y=@{folder}/y.npy"]
    want = (2 * np.arange(64, dtype=np.float32) + 1).reshape(2, 32)[:, ::-1].reshape(-1)
    program, right = host_program(folder, "no_barrier", "-DNO_BARRIER"), []
    for order in ("forward", "backward", "shuffled"):
        r = part.run(program, *given, "--gpu-order", order)
        check(f"no barrier {order}", r.returncode == 0, r.stderr)
        right.append(np.array_equal(np.load(folder / "y.npy"), want))
    check("a barrier that is missing shows", not any(right), right)
    for define, text in (("ENDS_EARLY", "thread 7 has ended"), ("TWO_BARRIERS", "waits for its block at barrier 2")):
        r = part.run(host_program(folder, define.lower(), f"-D{define}"), *given)
        check(define, r.returncode < 0 and "waits forever" in r.stderr and text in r.stderr, f"{r.returncode} {r.stderr}")


def test_driver(folder):
    for name in ("values", "replayed", "profile", "thousand", "streams", "queued_sizes", "ended", "threads", "on_device", "resident"):
        case(folder, name)
    case(folder, "unreplayed", FAIL="capture")
    case(folder, "unreplayed", FAIL="instantiate")
    case(folder, "values", FAIL="pinned")
    case(folder, "values", SM=86)
    case(folder, "too_large", MEMORY=8192)


def test_failures(folder):
    unlike = {"VERSION": 11020}
    failures = [
        ({"DEVICES": 0}, "there is no GPU that CUDA can use", None),
        (unlike, "is for CUDA 11.2: this program needs one for 11.4 or newer", None),
        ({"FAIL": "init"}, "CUDA's driver cannot be used: unknown error", None),
        ({"SM": 75}, "no code for GPUs of compute capability 7.5", None),
        ({"FAIL": "load"}, "refuses the kernels (is it too old for them?): no kernel image", None),
        ({"MEMORY": 100}, "needs 1 MiB of the GPU's memory, where 0 MiB are free", None),
        ({"FAIL": "launch:reverse"}, "reverse: too many resources requested for launch", None),
        ({"FAIL": "lost:reverse"}, "a kernel of the model failed: an illegal memory access",
         "the GPU was lost in an earlier run: an illegal memory access"),
    ]
    np.save(folder / "x.npy", np.arange(64, dtype=np.float32))
    for settings, text, again in failures:
        case(folder, "fails", text, *([again] if again else []), **settings)
        r = part.run(folder / "cuda", "--input", f"x=@{folder}/x.npy", env=environment(folder, **settings))
        check(f"program {settings}", r.returncode == 3 and text in r.stderr, f"{r.returncode} {r.stderr}")
    bare = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    r = part.run("/sbin/ldconfig", "-p")
    if "libcuda.so.1" in r.stdout:
        return part.skip("no driver", "there is one")
    r = part.run(folder / "cuda", "--input", f"x=@{folder}/x.npy", env=bare)
    check("no driver", r.returncode == 3 and "there is no driver of CUDA (libcuda.so.1)" in r.stderr, f"{r.returncode} {r.stderr}")


# ---- compiled models --------------------------------------------------------------------------------

def save(path, nodes, outputs, rows="n"):
    """A model of x: f32[n,7]; outputs: (name, type, dims)."""
    values = [helper.make_tensor("w", TensorProto.FLOAT, [7], np.arange(7, dtype=np.float32) / 4),
              helper.make_tensor("one", TensorProto.INT64, [1], [1]), helper.make_tensor("two", TensorProto.INT64, [1], [2]),
              helper.make_tensor("nine", TensorProto.FLOAT, [9], np.arange(9, dtype=np.float32) / 8)]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 7])],
                              [helper.make_tensor_value_info(*o) for o in outputs], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


F, I = TensorProto.FLOAT, TensorProto.INT64
MODELS = {
    # every step is a launch
    "m": ([node("Mul", "x w", "a"), node("Exp", "a", "b"), node("Softmax", "b", "y")], [("y", F, ["n", 7])]),
    # a function on the host, and sizes that data give
    "host": ([node("TopK", "x two", "v i", axis=1), node("Relu", "x", "r"), node("NonZero", "r", "z"),
              node("ReduceSum", "x one", "s", keepdims=0)],
             [("v", F, ["n", 2]), ("i", I, ["n", 2]), ("z", I, [2, "k"]), ("s", F, ["n"])]),
    # a product by tiles for each of n
    "batches": ([node("Unsqueeze", "x two", "u"), node("Mul", "u nine", "a"), node("Concat", "a a", "p", axis=1),
                 node("Transpose", "p", "q", perm=[0, 2, 1]), node("MatMul", "p q", "y")], [("y", F, ["n", 14, 14])]),
}


def compiled(folder, name, outputs):
    """As this CPU's program and as one whose kernels run on this CPU in place of a GPU, in all orders."""
    path = folder / f"{name}.onnx"
    given = ["--input", f"x=@{folder}/c.npy"]
    files = [a for o in outputs for a in ("--output", f"{o[0]}=@{folder}/{name}_{o[0]}.npy")]
    want = [a for o in outputs for a in ("--expect", f"{o[0]}=@{folder}/{name}_{o[0]}.npy")]
    for target in ("native", "cuda:host"):
        r = burin(path, f"--target={target}", "--name=m", "-q", "-o", folder / f"{name}_{target}")
        check(f"{name} for {target}", r.returncode == 0, r.stderr)
    r = part.run(folder / f"{name}_native", *given, *files)
    check(f"{name} native", r.returncode == 0, r.stderr)
    for order in ("forward", "backward", "shuffled"):
        r = part.run(folder / f"{name}_cuda:host", *given, *want, "--gpu-order", order, "--check-memory")
        check(f"{name} {order}", r.returncode == 0, r.stdout + r.stderr)
    return [*given, *want]


def test_compiled(folder):
    x = np.random.default_rng(2).normal(size=(300, 7)).astype(np.float32)
    np.save(folder / "c.npy", x)
    (folder / "c.raw").write_bytes(x.tobytes())
    nvrtc = os.environ.get("BURIN_REAL_NVRTC", "")
    if not nvrtc:
        part.skip("compiled for a GPU", "no NVRTC")
    for name, (nodes, outputs) in MODELS.items():
        save(folder / f"{name}.onnx", nodes, outputs)
        same = compiled(folder, name, outputs)
        if not nvrtc:
            continue
        r = burin(folder / f"{name}.onnx", "--target=cuda:host", "--name=m", "-q", "--emit=shared", "-o", folder / f"{name}_kernels.so")
        for kind in ("exe", "obj,header"):
            r = burin(folder / f"{name}.onnx", "--target=cuda:sm_90", "--name=m", "-q", f"--emit={kind}", "-o", folder / name,
                      env={**os.environ, "BURIN_NVRTC": nvrtc})
            check(f"{name} for a GPU as {kind}", r.returncode == 0, r.stderr)
        there = {**environment(folder, SM=90), "FAKE_CUDA_KERNELS": f"{folder}/{name}_kernels.so:m_gpu"}
        for options in ([], ["--bench=5"], ["--profile"]):
            r = part.run(folder / name, *same, *options, env=there)
            check(f"{name} on the driver {options}", r.returncode == 0, r.stdout + r.stderr)
        if name == "batches":
            for options in (["--profile"], ["--bench=3", "--profile"]):
                test_work(part.run(folder / name, *same, *options, env=there).stdout)
        if name == "m":
            test_header(folder, there)
            test_python(folder)


def save_control(path):
    """Rows of x at i, t times halved and raised, then Relu or Neg as c says."""
    def graph(name, nodes, inputs, outputs):
        return helper.make_graph(nodes, name, inputs, outputs)

    def info(name, kind=F, dims=("k", 7)):
        return helper.make_tensor_value_info(name, kind, list(dims))

    body = graph("body", [node("Mul", "v half", "h"), node("Add", "h x0", "v2"), node("Identity", "go", "go2")],
                 [info("step", I, []), info("go", TensorProto.BOOL, []), info("v")], [info("go2", TensorProto.BOOL, []), info("v2")])
    nodes = [node("Gather", "x i", "a"), node("Gather", "x zero", "x0"), helper.make_node("Loop", ["t", "", "a"], ["b"], body=body),
             helper.make_node("If", ["c"], ["y"], then_branch=graph("then", [node("Relu", "b", "r")], [], [info("r")]),
                              else_branch=graph("else", [node("Neg", "b", "g")], [], [info("g")]))]
    values = [helper.make_tensor("half", F, [], [0.5]), helper.make_tensor("zero", I, [1], [0])]
    inputs = [info("x", F, ["n", 7]), info("i", I, ["k"]), info("t", I, []), info("c", TensorProto.BOOL, [])]
    whole = helper.make_graph(nodes, "g", inputs, [info("y")], values)
    onnx.save(helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def test_control(folder):
    """Trip counts and conditions that are inputs, and indices: what is launched is kept as a graph, for each of their values."""
    save_control(folder / "control.onnx")
    np.save(folder / "i.npy", np.array([5, -1, 0, 7], np.int64))
    np.save(folder / "far.npy", np.array([5, -1, 300, 7], np.int64))
    nvrtc = os.environ.get("BURIN_REAL_NVRTC", "")
    for target, name, options in (("native", "native", ()), ("cuda:host", "here", ()), ("cuda:host", "kernels.so", ("--emit=shared",)),
                                  *([("cuda:sm_80", "there", ())] if nvrtc else [])):
        r = burin(folder / "control.onnx", f"--target={target}", "--name=m", "-q", *options, "-o", folder / f"control_{name}",
                  env={**os.environ, "BURIN_NVRTC": nvrtc})
        check(f"control for {target}", r.returncode == 0, r.stderr)
    there = {**environment(folder, SM=86), "FAKE_CUDA_KERNELS": f"{folder}/control_kernels.so:m_gpu", "FAKE_CUDA_REPORT": "1"}

    def run(name, indices, steps, flag, *options, env=None):
        for key, v in (("t", np.int64(steps)), ("c", np.bool_(flag))):
            np.save(folder / f"control_{key}.npy", v)
        files = [a for key in ("c", "t") for a in ("--input", f"{key}=@{folder}/control_{key}.npy")]
        return part.run(folder / f"control_{name}", "--input", f"x=@{folder}/c.npy", "--input", f"i=@{folder}/{indices}.npy", *files,
                        *options, env=env)

    for steps, flag in ((3, True), (5, False), (0, True)):
        r = run("native", "i", steps, flag, "--output", f"y=@{folder}/control_y.npy")
        check(f"control native {steps} {flag}", r.returncode == 0, r.stderr)
        expect = ["--expect", f"y=@{folder}/control_y.npy"]
        for order in ("forward", "shuffled"):
            r = run("here", "i", steps, flag, *expect, "--gpu-order", order, "--check-memory")
            check(f"control {steps} {flag} {order}", r.returncode == 0, r.stdout + r.stderr)
        if not nvrtc:
            continue
        r = run("there", "i", steps, flag, *expect, "--bench=5", env=there)
        check(f"control on the driver {steps} {flag}", r.returncode == 0, r.stdout + r.stderr)
        check(f"graphs of {steps} steps", r.stderr.count("a graph is launched") > 2, r.stderr)
    for name, env in (("here", None), ("there", there))[: 2 if nvrtc else 1]:
        for options in ([], ["--bench=5"]):
            r = run(name, "far", 2, True, *options, env=env)
            check(f"index outside, {name} {options}", r.returncode != 0 and "index 300 is outside of [-300, 300)" in r.stderr, r.stderr)


def test_work(text):
    """What a profile says of 300 products of [14,9] and itself transposed: bytes, multiply-adds (as far as GFLOP/s show them),
    and what memory at 3350 GB/s takes."""
    rows = [line.split() for line in text.splitlines() if "MatMul" in line]
    check("a profile of the product", len(rows) == 1, text)
    us, _, rate, megabytes = (float(v.rstrip("%")) for v in rows[0][:4])
    flops, megabyte = 300 * 2 * 14 * 14 * 9 / 1e3, 300 * 4 * (14 * 9 + 14 * 14) / 1e6
    check("its bytes", 0 <= megabyte - megabytes < 2e-3, rows)
    check("its multiply-adds", flops - 0.101 * us <= rate * us <= 1.01 * flops, rows)
    limit = [float(line.split()[-2]) for line in text.splitlines() if line.startswith("limit: ")]
    check("the limit of all", len(limit) == 1 and megabyte / 3.35e-3 <= 1000 * limit[0] + 10 <= 1e4, limit)


def test_launches(folder):
    """What launches are estimated to take: never less than their limit, and the sum is that of the lines."""
    r = burin(folder / "batches.onnx", "--target=cuda:sm_80", "--print-plan", "--emit=loop", "-q", "-o", folder / "batches.loop")
    lines = r.stderr[r.stderr.find("launch, each once"):].splitlines()[1:]
    rows = [[float(v) for v in line.split()[:2]] for line in lines]
    check("estimates of launches", r.returncode == 0 and len(rows) > 1 and f" {len(rows) - 1} launches" in lines[-1], r.stderr)
    check("limits of launches", all(us > limit for us, limit in rows), rows)
    check("their sum", abs(sum(us for us, _ in rows[:-1]) - rows[-1][0]) < 0.01 * len(rows), rows)


def test_many_blocks(folder):
    """More products than a grid has in z."""
    x = np.random.default_rng(3).normal(size=(65540, 7)).astype(np.float32)
    np.save(folder / "many.npy", x)
    r = part.run(folder / "batches_cuda:host", "--input", f"x=@{folder}/many.npy", "--output", f"y=@{folder}/y.raw")
    check("65540 products", r.returncode == 0, r.stderr)
    last = np.tile(x[-1:].T * (np.arange(9, dtype=np.float32) / 8), (2, 1))
    check("the last one", np.allclose(np.fromfile(folder / "y.raw", np.float32)[-196:].reshape(14, 14), last @ last.T, 1e-4))
    (folder / "y.raw").unlink()


def test_tune(folder):
    """--tune measures what a GPU's program says, and writes which GPU; kernels of this driver do nothing. And estimates beside times."""
    path, file = folder / "tune.onnx", folder / "t.tuning"
    rng = np.random.default_rng(4)
    w = [onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for s, n in (((64, 64, 3, 3), "w"), ((1600, 96), "v"))]
    graph = helper.make_graph([node("Conv", "x w", "a", pads=[1] * 4), node("Flatten", "a", "b"), node("MatMul", "b v", "c"),
                               node("Softmax", "c", "y")], "g", [helper.make_tensor_value_info("x", F, [8, 64, 5, 5])],
                              [helper.make_tensor_value_info("y", F, [8, 96])], w)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    there = {**environment(folder, SM=86), "FAKE_CUDA_KERNELS": "nothing", "BURIN_NVRTC": str(folder / "nvrtc.so")}
    for target, env, on in (("cuda:sm_80", there, " on Fake GPU 0"), ("cuda:host", os.environ, "")):
        for again in ("new", "added to"):
            r = burin(path, f"--target={target}", f"--tune={file}", "--tune-seconds=1", env=env, timeout=300)
            check(f"{target}: {again}", r.returncode == 0 and " choices measured" in r.stdout, r.stdout + r.stderr)
        text = file.read_text()
        found = re.findall(r"^gpu_gemm f32 1\*\d+x\d+ k\d+ sm=\d+ sms=\d+ -> \S+  # us(.*?): \S+ [\d.]+ \(model\), \S+ [\d.]+", text, re.M)
        check(f"{target}: what was measured, and on which GPU", found.count(on) == 2, text)
    check("the GPU in the first line", "target cuda:host (x86-64-v3)" in text, text)
    r = burin(path, "--target=cuda:sm_80", f"--tuning={file}", "--emit=tuning", env=there)
    taken = dict(re.findall(r"^(gpu_gemm .* sm=80 sms=108) -> (\S+)", r.stdout, re.M))
    stored = dict(re.findall(r"^(gpu_gemm .* sm=80 sms=108) -> (\S+)", text, re.M))
    check("what is stored is taken", len(taken) == 2 and taken == stored, f"{r.stdout} {text}")
    r = burin("bench", path, "--target=cuda:sm_80", "--profile", "--print-plan", env=there)
    check("estimates beside times", r.returncode == 0 and "cycles of one multiprocessor at 1.41 GHz" in r.stdout, r.stdout + r.stderr)
    for settings, target, words in (({"SM": 75}, "cuda:sm_80", "this machine's GPU is another"), ({"DEVICES": 0}, "cuda:sm_80", "no GPU"),
                                    ({"SM": 90}, "cuda:sm_100", "GPU is another")):
        r = burin(path, f"--target={target}", f"--tune={folder}/none", env={**there, **environment(folder, **settings)})
        check(f"--tune {settings}", r.returncode == 2 and words in r.stderr and not (folder / "none").exists(), f"{r.returncode} {r.stderr}")


def test_retry(folder):
    """An NVRTC that crashes on one kernel: named, and compiled in a plainer way; which the real one takes, too."""
    path, out = folder / "tune.onnx", folder / "retry.o"
    kernels = re.findall(r"\) (\w+)\(", burin(path, "--target=cuda:sm_80", "--name=m", "-q", "--emit=cuda", "-o", "-").stdout.split("__launch_bounds__", 1)[1])
    softmax, product = (next(k for k in kernels if k.startswith("m_k") and k.endswith(w)) for w in ("softmax", "matmul"))
    there = {**os.environ, "BURIN_NVRTC": str(folder / "nvrtc.so")}
    reals = [""] + ([os.environ["BURIN_REAL_NVRTC"]] if os.environ.get("BURIN_REAL_NVRTC") else [])
    for real in reals:
        for flags in (["--emit=obj"], ["--emit=cubin"], ["--emit=obj", "--precision=tf32"]):
            env = {**there, "FAKE_NVRTC_FRAGILE": product, **({"FAKE_NVRTC_REAL": real} if real else {})}
            r = burin(path, "--target=cuda:sm_80", "--name=m", *flags, "-o", out, env=env)
            check(f"a second try {flags} {real}", r.returncode == 0 and "warning" in r.stderr and f"NVRTC fails on kernel {product[2:]} for sm_80" in r.stderr
                  and softmax[2:] not in r.stderr.partition("registers")[0] and out.exists(), f"{r.returncode} {r.stderr}")
            out.unlink(missing_ok=True)
    for flags in (["--emit=obj"], ["--emit=cubin"]):
        r = burin(path, "--target=cuda:sm_80", "--name=m", *flags, "-o", out, env={**there, "FAKE_NVRTC_FAILS": softmax})
        check(f"a kernel that NVRTC does not survive {flags}", r.returncode == 70 and softmax[2:] in r.stderr and "crashed (signal 11)" in r.stderr
              and product[2:] not in r.stderr and not out.exists(), f"{r.returncode} {r.stderr}")


def test_header(folder, there):
    tool("clang-19", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-non-prototype", "-I", folder, HERE / "host_program.c",
         folder / "m.o", "-ldl", "-o", folder / "host_program")
    r = part.run(folder / "host_program", folder / "c.raw", 300, folder / "five.raw", env=there)
    check("devices by the header", r.returncode == 0, f"{r.returncode} {r.stderr}")
    got, want = np.fromfile(folder / "five.raw", np.float32), np.load(folder / "m_y.npy").reshape(-1)
    check("values of queued runs", got.size == 5 * want.size and np.allclose(got, np.tile(want, 5), 1e-5), got[:8])
    bare = {k: v for k, v in there.items() if k != "FAKE_CUDA_KERNELS"}
    r = part.run(folder / "host_program", folder / "c.raw", 300, folder / "none.raw", env=bare)
    check("why a device can't be made", r.returncode == 7 and "named symbol not found" in r.stderr, f"{r.returncode} {r.stderr}")
    for mode in ("streams", "thousand"):
        r = part.run(folder / "host_program", folder / "c.raw", 300, folder / "more.raw", mode, env=there)
        check(f"{mode}: a compiled model", r.returncode == 0, f"{r.returncode} {r.stderr}")
        got = np.fromfile(folder / "more.raw", np.float32)
        check(f"{mode}: its values", got.size == 5 * want.size and np.allclose(got, np.tile(want, 5), 1e-5), got[:8])
    test_hostile(folder, there)
    test_kit(folder, there)


def test_kit(folder, there):
    """What is taken to a machine with a GPU, tried on the driver that stands in for one: checks, sanitizer, times."""
    kit, tools = folder / "kit.tar.xz", folder / "tools"
    tools.mkdir()
    (tools / "compute-sanitizer").write_text('#!/bin/sh\nshift 4\n"$@" && echo "ERROR SUMMARY: 0 errors"\n')
    (tools / "compute-sanitizer").chmod(0o755)
    r = burin(folder / "m.onnx", "--target=cuda:host", "--name=program", "-q", "--emit=shared", "-o", folder / "program_kernels.so")
    check("kernels of a kit", r.returncode == 0, r.stderr)
    env = {**there, "FAKE_CUDA_KERNELS": f"{folder}/program_kernels.so:program_gpu", "PATH": f"{tools}:{os.environ['PATH']}",
           "BURIN": part.BURIN, "BURIN_NVRTC": os.environ["BURIN_REAL_NVRTC"]}
    for how, expect, wanted in (("right", 0, "checks: 1 passed, 0 failed"), ("wrong", 1, "checks: 0 passed, 1 failed")):
        r = part.run(sys.executable, HERE / "device_kit.py", kit, "--target=cuda:sm_90", f"first={folder}/m.onnx,time",
                     env={k: v for k, v in env.items() if k != "LD_LIBRARY_PATH"})
        check("a kit", r.returncode == 0 and "1 programs" in r.stdout and kit.stat().st_size < 1 << 20, r.stdout + r.stderr)
        if how == "wrong":  # another result
            tool("bash", "-c", f"cd {tools} && xz -dc {kit} | tar xf - && cp first/in0.npy first/out0.npy && tar cf - first | xz >{kit}")
        r = part.run("bash", HERE / "device.sh", kit, "--no-torch", env=env)
        check(f"a kit that is {how}", r.returncode == expect and wanted in r.stdout and "racecheck first: ERROR SUMMARY: 0 errors" in r.stdout
              and re.search(r"^first +[\d.]+ +[\d.]+ +- +- +-$", r.stdout, re.M), r.stdout + r.stderr)


def test_hostile(folder, there):
    """A compiled model that the device has no room for, whose kernel fails, or that loses the GPU: a program says so and ends with 3, a
    host goes on, and is told at every run."""
    text = burin(folder / "m.onnx", "--target=cuda:sm_80", "--name=m", "-q", "--emit=cuda", "-o", "-").stdout
    kernel = re.findall(r"__global__ void __launch_bounds__\(\d+\) (\w+)\(", text)[-1]
    for settings, first, second in (
            ({"MEMORY": 4096}, "of the GPU's memory, where 0 MiB are free", None),
            ({"DEVICES": 0}, "there is no GPU that CUDA can use", None),
            ({"SM": 75}, "no code for GPUs of compute capability 7.5", None),
            ({"FAIL": "load"}, "refuses the kernels", None),
            ({"FAIL": f"launch:{kernel}"}, f"{kernel.removeprefix('m_')}: too many resources requested for launch", None),
            ({"FAIL": f"lost:{kernel}"}, "a kernel of the model failed: an illegal memory access", "the GPU was lost in an earlier run")):
        env = {**there, **{f"FAKE_CUDA_{k}": str(v) for k, v in settings.items()}}
        r = part.run(folder / "m", "--input", f"x=@{folder}/c.npy", env=env)
        check(f"program {settings}", r.returncode == 3 and first in r.stderr, f"{r.returncode} {r.stderr}")
        r = part.run(folder / "host_program", folder / "c.raw", 300, folder / "none.raw", "again", env=env)
        said = r.stderr.splitlines()
        check(f"host {settings}", r.returncode == 7 and len(said) >= 2 and first in said[0] and (second or first) in said[1],
              f"{r.returncode} {r.stderr}")


def test_python(folder):
    """Tensors in the GPU's memory, from Python."""
    kernels = folder / "python_kernels.so"
    r = burin(folder / "m.onnx", "--target=cuda:host", "--name=burin_model", "-q", "--emit=shared", "-o", kernels)
    check("kernels for Python", r.returncode == 0, r.stderr)
    there = {**environment(folder, SM=86), "FAKE_CUDA_KERNELS": f"{kernels}:burin_model_gpu", "BURIN": part.BURIN,
             "BURIN_NVRTC": os.environ["BURIN_REAL_NVRTC"], "BURIN_CHECK_MEMORY": "0", "PYTHONPATH": str(ROOT / "python")}
    save(folder / "chain.onnx", [node("Exp", "x", "y")], [("y", F, ["n", 7])])
    r = part.run(sys.executable, HERE / "device_arrays.py", folder / "m.onnx", folder / "c.npy", folder / "m_y.npy", folder / "chain.onnx",
                 env=there)
    print(r.stdout, end="")
    check("tensors on a GPU from Python", r.returncode == 0, f"{r.returncode} {r.stdout} {r.stderr[-600:]}")


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        for test in (test_stand_in, test_barriers, test_driver, test_failures, test_compiled, test_control,
                     test_many_blocks, test_launches, test_tune, test_retry):
            test(folder)
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
