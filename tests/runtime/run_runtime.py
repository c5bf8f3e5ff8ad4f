#!/usr/bin/env python3
"""Part "runtime": the freestanding runtime and the program around a model, with hand-written models in place of compiled
ones, on every architecture: file formats, damaged files, threads, missing CPU features, arithmetic of 32-bit ARM."""
import ctypes
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = Path(os.environ.get("BURIN_BUILD", ROOT / "build")) / "runtime"
ARCHS = {
    "x86_64": (["--target=x86_64-linux-gnu"], "elf_x86_64", []),
    "aarch64": (["--target=aarch64-linux-gnu"], "aarch64linux", ["qemu-aarch64"]),
    "arm": (["--target=armv7-linux-gnueabihf", "-march=armv7-a", "-mfpu=neon"], "armelf_linux_eabi", ["qemu-arm"]),
}
counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(name, ok, detail=""):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print(f"FAILED {name}: {detail}")


def build(folder, model, arch, *defines):
    flags, emulation, _ = ARCHS[arch]
    program = f"{folder}/{model}_{arch}{''.join(defines)}"
    subprocess.run(["clang-19", *flags, *defines, "-I", ROOT, "-O1", "-ffreestanding", "-fPIC", "-fvisibility=hidden",
                    "-c", ROOT / f"tests/runtime/{model}_model.c", "-o", program + ".o"], check=True)
    subprocess.run(["ld.lld-19", "-m", emulation, "-static", "-e", "_start", "--gc-sections", program + ".o",
                    RUNTIME / f"burin_program_{arch}.o", RUNTIME / f"burin_rt_{arch}.a", "-o", program], check=True)
    return [*ARCHS[arch][2], program]


def run(command, *args, timeout=60):
    return subprocess.run([*command, *map(str, args)], capture_output=True, text=True, errors="replace", timeout=timeout)


# ---- files ------------------------------------------------------------------------------------------

def png(pixels, depth=8, color=2, palette=None, filters=(0, 1, 2, 3, 4), level=9):
    """A PNG of rows of packed bytes, with the given filters in turn."""
    height, row = pixels.shape
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    step, width = max(1, samples * depth // 8), row * 8 // (samples * depth)
    raw = bytearray()
    for y in range(height):
        kind = filters[y % len(filters)]
        raw.append(kind)
        for x in range(row):
            a = int(pixels[y, x - step]) if x >= step else 0
            b = int(pixels[y - 1, x]) if y else 0
            c = int(pixels[y - 1, x - step]) if y and x >= step else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            raw.append((int(pixels[y, x]) - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed = zlib.compress(bytes(raw), level)
    middle = len(packed) // 2
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)) +
            (chunk(b"PLTE", palette) if palette else b"") + chunk(b"IDAT", packed[:middle]) +
            chunk(b"IDAT", packed[middle:]) + chunk(b"IEND", b""))


def varint(v):
    out = bytearray()
    while v > 127:
        out.append(v & 127 | 128)
        v >>= 7
    return bytes(out + bytes([v]))


def tensor_proto(a, form):
    """raw: raw_data; packed and single: float_data."""
    dims = b"".join(b"\x08" + varint(d) for d in a.shape) if form != "packed" else b"\x0a" + varint(
        len(b"".join(map(varint, a.shape)))) + b"".join(map(varint, a.shape))
    data = a.tobytes()
    body = {"raw": b"\x4a" + varint(len(data)) + data, "packed": b"\x22" + varint(len(data)) + data,
            "single": b"".join(b"\x25" + data[i:i + 4] for i in range(0, len(data), 4))}[form]
    return dims + b"\x10\x01" + body


# ---- tests ------------------------------------------------------------------------------------------

def test_formats(echo, arch, folder):
    x = np.arange(3 * 4 * 5, dtype=np.float32).reshape(1, 3, 4, 5) / 4
    np.save(f"{folder}/x.npy", x)
    np.save(f"{folder}/want.npy", 2 * x)
    Path(f"{folder}/x.raw").write_bytes(x.tobytes())
    for form in ("raw", "packed", "single"):
        Path(f"{folder}/x_{form}.pb").write_bytes(tensor_proto(x, form))
    for source in ("x.npy", "x_raw.pb", "x_packed.pb", "x_single.pb", "x.raw"):
        sizes = ["--dim", "h=4", "--dim=w=5"] if source.endswith("raw") else []
        r = run(echo, *sizes, "--input", f"x=@{folder}/{source}", "--expect", f"y=@{folder}/want.npy", "--threads", 3)
        check(f"{arch} {source}", r.returncode == 0, r.stdout + r.stderr)
    for target in ("y.npy", "y.pb", "y.raw"):
        r = run(echo, "--input", f"x=@{folder}/x.npy", "--output", f"y=@{folder}/{target}")
        sizes = ["--dim", "h=4", "--dim", "w=5"]
        again = run(echo, *sizes, "--input", f"x=@{folder}/x.npy", "--expect", f"y=@{folder}/{target}")
        check(f"{arch} write {target}", r.returncode == 0 and again.returncode == 0, r.stderr + again.stderr + again.stdout)
    check(f"{arch} numpy reads it", np.array_equal(np.load(f"{folder}/y.npy"), 2 * x))
    np.save(f"{folder}/other.npy", 2 * x + 1)
    r = run(echo, "--input", f"x=@{folder}/x.npy", "--expect", f"y=@{folder}/other.npy")
    check(f"{arch} mismatch", r.returncode == 7 and "60 of 60 elements differ" in r.stdout, r.stdout)


def test_memory(echo, arch, folder):
    """--check-memory runs twice, on zeros and on ones."""
    np.save(f"{folder}/m.npy", np.ones((1, 3, 4, 5), np.float32))
    r = run(echo, "--input", f"x=@{folder}/m.npy", "--check-memory")
    check(f"{arch} same bits", r.returncode == 0 and "60" in r.stdout, r.stdout + r.stderr)
    reads = build(folder, "echo", arch, "-DREADS_ARENA")
    r = run(reads, "--input", f"x=@{folder}/m.npy", "--check-memory")
    check(f"{arch} other bits", r.returncode == 7 and "output s depends on what memory held" in r.stderr, f"{r.returncode} {r.stderr}")
    check(f"{arch} without the check", run(reads, "--input", f"x=@{folder}/m.npy").returncode == 0)


def test_usage(echo, arch, folder):
    cases = [([], 3, "input x (f32[1,3,h,w]) is missing"), (["--frob"], 2, "unknown"), (["--input", "z=@q"], 2, "no such tensor"),
             (["--input", f"x=@{folder}/none.npy"], 3, "cannot open"), (["--threads", "0"], 2, "not a positive number"),
             (["--input", f"x=@{folder}/x.raw"], 3, "no shape"), (["x.npy"], 2, "--input NAME=@FILE")]
    for args, status, text in cases:
        r = run(echo, *args)
        check(f"{arch} usage {args}", r.returncode == status and text in r.stderr, f"{r.returncode} {r.stderr}")
    np.save(f"{folder}/bad.npy", np.zeros((1, 2, 4, 5), np.float32))
    r = run(echo, "--input", f"x=@{folder}/bad.npy")
    check(f"{arch} shape", r.returncode == 3 and "wants f32[1,3,h,w], the file has f32[1,2,4,5]" in r.stderr, r.stderr)
    r = run(echo, "--input", f"x=@{folder}/x.npy", "--output", "y=@/nowhere/y.npy")
    check(f"{arch} output", r.returncode == 4, r.stderr)
    for args in (["--help"], ["--info"], ["--bench=20", "--threads", "2", "--profile"]):
        r = run(echo, *args)
        check(f"{arch} {args}", r.returncode == 0 and len(r.stdout) > 60, r.stderr)
    r = run(echo, "--input", "x=0.5", "--dim", "h=1", "--dim", "w=1")
    check(f"{arch} listed", r.returncode == 0 and "1 1 1" in r.stdout, r.stdout + r.stderr)


def test_images(echo, arch, folder):
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    gray = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    palette = rng.integers(0, 256, (4, 3), dtype=np.uint8)
    index = rng.integers(0, 4, (8, 8), dtype=np.uint8)
    packed = (index[:, 0::4] << 6 | index[:, 1::4] << 4 | index[:, 2::4] << 2 | index[:, 3::4]).astype(np.uint8)
    wide = np.stack([rgb, rng.integers(0, 256, rgb.shape, dtype=np.uint8)], -1).reshape(9, -1)
    rgba = np.concatenate([rgb, gray[..., None]], -1).reshape(9, -1)
    flat = rgb.reshape(9, -1)
    images = [("rgb", png(flat), rgb), ("fixed", png(flat, level=0), rgb), ("gray", png(gray, color=0), np.repeat(gray[..., None], 3, -1)),
              ("rgba", png(rgba, color=6), rgb), ("wide", png(wide, depth=16), rgb),
              ("palette", png(packed, 2, 3, palette.tobytes()), palette[index]),
              ("plain", png(np.full((64, 90), 7, np.uint8)), np.full((64, 30, 3), 7, np.uint8))]
    for name, data, pixels in images:
        Path(f"{folder}/{name}.png").write_bytes(data)
        want = 2 * ((pixels.astype(np.float64) / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None].astype(np.float32)
        np.save(f"{folder}/image.npy", want)
        r = run(echo, "--input", f"x=@{folder}/{name}.png,scale=1/255,mean=0.5,std=0.25:0.25:0.25", "--expect", f"y=@{folder}/image.npy")
        check(f"{arch} png {name}", r.returncode == 0, r.stdout + r.stderr)
    r = run(echo, "--input", f"x=@{folder}/rgb.png,scale=zero")
    check(f"{arch} image options", r.returncode == 3 and "image options are" in r.stderr, r.stderr)


def test_damage(echo, arch, folder, rounds):
    """Files cut short and files with wrong bytes: an answer or an error, never a signal."""
    rng = random.Random(5)
    for name in ("rgb.png", "palette.png", "x.npy", "x_packed.pb"):
        data = Path(f"{folder}/{name}").read_bytes()
        bad = Path(f"{folder}/damaged.{name.split('.')[1]}")
        worst = 0
        variants = [data[:n] for n in range(0, len(data), max(1, len(data) // rounds))]
        for _ in range(rounds):
            b = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                b[rng.randrange(len(b))] = rng.randrange(256)
            variants.append(bytes(b))
        for variant in variants:
            bad.write_bytes(variant)
            status = run(echo, "--quiet", "--input", f"x=@{bad}").returncode
            worst = status if status not in (0, 3) else worst
        check(f"{arch} damaged {name}", worst == 0, f"status {worst}")


def test_threads(echo, arch, folder):
    np.save(f"{folder}/big.npy", np.random.default_rng(1).random((1, 3, 64, 67), dtype=np.float32))
    results = set()
    for threads in (1, 2, 3, 7, 16):
        r = run(echo, "--input", f"x=@{folder}/big.npy", "--output", f"y=@{folder}/o.npy", "--threads", threads)
        results.add((r.returncode, Path(f"{folder}/o.npy").read_bytes()))
    check(f"{arch} threads", len(results) == 1 and next(iter(results))[0] == 0, f"{len(results)} different results")
    storm = subprocess.Popen([*echo, "--bench=3000", "--threads", "4"], stdout=subprocess.DEVNULL)
    while storm.poll() is None:
        storm.send_signal(signal.SIGWINCH)
        time.sleep(0.0005)
    check(f"{arch} signals", storm.returncode == 0, storm.returncode)


def test_cpu(folder):
    avx512 = build(folder, "echo", "x86_64", "-DNEEDS_CPU=0x8000")
    r = run(["qemu-x86_64", "-cpu", "Nehalem", *avx512], "--bench=1")
    check("cpu lacks", r.returncode == 1 and "this CPU lacks avx512f, needed by this program" in r.stderr, r.stderr)
    sse42 = build(folder, "echo", "x86_64", "-DNEEDS_CPU=0x7f")
    check("cpu has", run(["qemu-x86_64", "-cpu", "Nehalem", *sse42], "--bench=1").returncode == 0)
    fp16 = build(folder, "echo", "aarch64", "-DNEEDS_CPU=4")
    r = run(["qemu-aarch64", "-cpu", "cortex-a72", fp16[-1]], "--bench=1")
    check("arm64 lacks", r.returncode == 1 and "lacks fullfp16" in r.stderr, r.stderr)
    check("arm64 has", run(["qemu-aarch64", "-cpu", "max", fp16[-1]], "--bench=1").returncode == 0)
    neon = build(folder, "echo", "arm", "-DNEEDS_CPU=1")
    check("arm has", run(["qemu-arm", "-cpu", "cortex-a15", neon[-1]], "--bench=1").returncode == 0)


def arithmetic_inputs():
    edges = [0, 1, 2, 3, 7, 10, 1 << 23, (1 << 24) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) + 1,
             (1 << 62) + 12345, (1 << 63) - 1]
    edges += [-e for e in edges]
    rng = random.Random(9)
    pairs = [(a, b) for a in edges for b in edges if b]
    pairs += [(rng.randrange(-1 << 63, 1 << 63) >> rng.randrange(63), rng.randrange(1, 1 << 63) >> rng.randrange(62) or 1) for _ in range(4000)]
    return np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)


def test_arithmetic(folder):
    a, b = arithmetic_inputs()
    np.save(f"{folder}/a.npy", a)
    np.save(f"{folder}/b.npy", b)
    results = {}
    for arch in ("x86_64", "arm", "aarch64"):
        program = build(folder, "arith", arch)
        files = [f for k in range(16) for f in ("--output", f"{k}=@{folder}/{arch}_{k}.npy")]
        r = run(program, "--input", f"a=@{folder}/a.npy", "--input", f"b=@{folder}/b.npy", *files)
        check(f"{arch} arithmetic runs", r.returncode == 0, r.stderr)
        results[arch] = [np.load(f"{folder}/{arch}_{k}.npy") for k in range(16)]
    for arch in ("arm", "aarch64"):
        for k, (got, want) in enumerate(zip(results[arch], results["x86_64"])):
            wrong = np.flatnonzero(got != want)
            detail = f"{a[wrong[0]]}, {b[wrong[0]]}: {got[wrong[0]]}, not {want[wrong[0]]}" if wrong.size else ""
            check(f"{arch} arithmetic {k}", not wrong.size, detail)
    exact = [int(x) // int(y) if (x < 0) == (y < 0) else -(abs(int(x)) // abs(int(y))) for x, y in zip(a, b)]
    check("quotients", [int(v) for v in results["x86_64"][0]] == exact)


def test_pools(folder):
    """The pools with delays at every step: the hosts' under ThreadSanitizer and AddressSanitizer, the program's as it is."""
    program = f"{folder}/pool_test"
    for name, source, flags in (("signals", "host_pool_test.c", ["-fsanitize=thread", ROOT / "runtime/host_pool.c"]),
                                ("thread", "pool_test.c", ["-fsanitize=thread"]),
                                ("address", "pool_test.c", ["-fsanitize=address,undefined"]),
                                ("program", "pool_test.c", ["-DPROGRAM_POOL"])):
        subprocess.run(["clang-19", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-I", ROOT, "-I", ROOT / "runtime", *flags,
                        ROOT / f"tests/runtime/{source}", "-o", program, "-pthread"], check=True)
        r = run([program], timeout=300)
        if "FATAL: ThreadSanitizer: unexpected memory mapping" in r.stderr:
            r = run(["setarch", "-R", program], timeout=300)
        check(f"pool {name}", r.returncode == 0, r.stderr[-2000:])


def filter_calls(rows):
    """A seccomp filter of BPF rows for this process; it ends with status 99 where the system takes none."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *r) for r in rows))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rows), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(filters)), 0, 0):
        os._exit(99)


def refuse_tiles():
    """From now on arch_prctl(ARCH_REQ_XCOMP_PERM) fails with EPERM: no AMX."""
    filter_calls([(0x20, 0, 0, 0), (0x15, 0, 3, 158), (0x20, 0, 0, 16), (0x15, 0, 1, 0x1023), (0x06, 0, 0, 0x50000 | 1),
                  (0x06, 0, 0, 0x7fff0000)])


def test_refused_tiles(folder):
    """A program for matrix registers that the system does not allow says so and does not run."""
    if "amx_tile" not in Path("/proc/cpuinfo").read_text():
        counts["skipped"] += 1
        print("skipped refused tiles: the CPU has none")
        return
    tiles = build(folder, "echo", "x86_64", "-DNEEDS_CPU=(1u<<26)")
    r = run([*tiles, "--bench=1"])
    check("tiles", r.returncode == 0, r.stderr)
    r = subprocess.run([*tiles, "--bench=1"], capture_output=True, text=True, timeout=120, preexec_fn=refuse_tiles)
    if r.returncode == 99:
        counts["skipped"] += 1
        print("skipped refused tiles: the system takes no seccomp filter")
        return
    check("refused tiles", r.returncode == 1 and "the system does not allow amx-tile, needed by this program" in r.stderr, (r.returncode, r.stderr))


def refuse_threads():
    """From now on this process gets no thread: clone fails with EAGAIN, clone3 does not exist (glibc then uses clone)."""
    filter_calls([(0x20, 0, 0, 0), (0x15, 0, 1, 435), (0x06, 0, 0, 0x50000 | 38),  # the call's number; clone3: ENOSYS
                  (0x15, 0, 3, 56), (0x20, 0, 0, 16), (0x45, 0, 1, 0x10000), (0x06, 0, 0, 0x50000 | 11),  # clone(CLONE_THREAD)
                  (0x06, 0, 0, 0x7fff0000)])


def test_refused_threads(folder):
    """Fewer threads than asked for, not an error: the program and Python."""
    echo = build(folder, "echo", "x86_64")
    script = """import sys, numpy as np, burin
from tests.runtime import run_runtime
from onnx import parser
m = burin.compile(parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> g (float[999,999] x) => (float[999,999] y) { y = Exp(x) }'))
run_runtime.refuse_threads()
sys.exit(not np.allclose(m.run({"x": np.ones((999, 999), np.float32)}, threads=4)[0], np.e))"""
    path = os.pathsep.join([str(ROOT), str(ROOT / "python")])
    for name, command, before, text in (("program", [*echo, "--bench=3", "--threads", "4"], refuse_threads, "3 runs, 1 threads"),
                                        ("python", [sys.executable, "-c", script], None, "")):
        r = subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=before,
                           env={**os.environ, "PYTHONPATH": path})
        if r.returncode == 99:
            counts["skipped"] += 1
            print(f"skipped refused threads {name}: the system takes no seccomp filter")
        else:
            check(f"refused threads {name}", r.returncode == 0 and text in r.stdout, r.stdout + r.stderr)


def test_symbols():
    """What the library part leaves undefined or shows to the outside."""
    for arch in ARCHS:
        listing = run(["llvm-nm-19", "--format=posix", RUNTIME / f"burin_rt_{arch}.a"]).stdout
        rows = [line.split() for line in listing.splitlines() if len(line.split()) >= 2]
        defined = {r[0] for r in rows if r[1] not in "Uw"}
        undefined = {r[0] for r in rows if r[1] == "U"} - defined
        check(f"{arch} no outside symbol", not undefined, undefined)
        private = run(["llvm-readelf-19", "-s", RUNTIME / f"burin_rt_{arch}.a"]).stdout
        shown = [line for line in private.splitlines() if " GLOBAL DEFAULT " in line and " UND " not in line]
        check(f"{arch} hidden", not shown, shown[:3])


def main():
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        for arch in ARCHS:
            echo = build(folder, "echo", arch)
            test_formats(echo, arch, folder)
            test_usage(echo, arch, folder)
            test_memory(echo, arch, folder)
            test_images(echo, arch, folder)
            test_damage(echo, arch, folder, 150 if arch == "x86_64" else 15)
            test_threads(echo, arch, folder)
        test_cpu(folder)
        test_arithmetic(folder)
        test_pools(folder)
        if os.uname().machine == "x86_64":
            test_refused_threads(folder)
            test_refused_tiles(folder)
        test_symbols()
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
