#!/usr/bin/env python3
"""Part "codegen": the files that burin writes. Every kind of output of small models for every target: they link into C and
C++ programs (two models in one), give the same results, hold no writable data, no executable stack, no text relocations
and no other exports than the header's, and are the same bytes again with other numbers of compile threads. Inner loops do
not spill. Nothing is left behind on failure."""
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

ROOT = Path(__file__).resolve().parents[2]
BURIN = Path(os.environ.get("BURIN_BUILD", ROOT / "build")) / "burin"
MNIST = ROOT / "examples/digits/mnist.onnx"
TARGETS = ["x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64", "cortex-a72", "armv7"]
EXPORTS = {"run", "run_opts", "info", "arena_size", "output_dims", "cpu_ok", "failure_text"}
counts = {"passed": 0, "failed": 0}

MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "a.h"
#include "b.h"
static unsigned char arena[1 << 22] __attribute__((aligned(64)));
int main(void) {
  static float x[28 * 28], y[2][10];
  for (int i = 0; i < 28 * 28; i++) x[i] = (float)(i % 29) / 29;
  a_inputs ai; b_inputs bi; a_outputs ao; b_outputs bo;
  *(const float **)&ai = x; *(const float **)&bi = x;
  *(float **)&ao = y[0]; *(float **)&bo = y[1];
  if (a_run(&ai, &ao, arena) != BURIN_OK || b_run(&bi, &bo, arena) != BURIN_OK) return 1;
  if (!a_cpu_ok() || a_info()->abi_version != BURIN_ABI_VERSION || a_info()->size < sizeof(BurinModel)) return 2;
  if (a_run(&ai, &ao, arena + 1) != BURIN_E_ARENA || a_run(NULL, &ao, arena) != BURIN_E_ARGUMENT) return 3;
  if (a_arena_size(NULL, 1) > A_ARENA_BYTES || a_status_text(BURIN_E_ARENA)[0] == 0) return 4;
  BurinFailure why;
  BurinOptions o = {.size = sizeof o, .threads = 1, .arena_bytes = A_ARENA_BYTES - 1, .failure = &why};
  if (a_run_opts(&ai, &ao, arena, &o) != BURIN_E_ARENA || why.status != BURIN_E_ARENA) return 6;
  char text[200];
  if (a_failure_text(&why, text, sizeof text) < 10 || why.values[1] != A_ARENA_BYTES_FOR(1)) return 7;
  o.arena_bytes = A_ARENA_BYTES_FOR(1);
  if (a_run_opts(&ai, &ao, arena, &o) != BURIN_OK) return 8;
  for (int k = 0; k < 10; k++) if (y[0][k] != y[1][k]) return 5;
  memset(arena, 0xFF, sizeof arena); /* what it held before does not matter */
  memset(y[1], 0xFF, sizeof y[1]);
  if (b_run(&bi, &bo, arena) != BURIN_OK || memcmp(y[0], y[1], sizeof y[0]) != 0) return 6;
  for (int k = 0; k < 10; k++) printf("%.5g ", y[0][k]);
  return 0;
}
"""


# y = relu(x*w + b): w and b are initializers and inputs
DEFAULTS = """<ir_version: 8, opset_import: ["" : 17]>
de (float[n,4] x, float[4,2] w, float[2] b) => (float[n,2] y) { p = MatMul(x, w) q = Add(p, b) y = Relu(q) }"""
DEFAULTS_MAIN = """
#include <stdio.h>
#include "d.h"
int main(void) {
  static _Alignas(64) unsigned char arena[1 << 16];
  const float x[4] = {1, 2, 3, 4}, w[8] = {2, 0, 0, 2, 0, 0, 0, 0}, b[2] = {-1, 1};
  const d_inputs in[4] = {{.x = x, .n = 1}, {.x = x, .w = w, .n = 1}, {.x = x, .b = b, .n = 1}, {.x = x, .w = w, .b = b, .n = 1}};
  const BurinModel *m = d_info();
  if (m->map_weights && m->map_weights("d.weights") != BURIN_OK) return 6;
  if (!m->defaults || m->defaults[0].data || !m->defaults[1].data || m->defaults[1].dims[0] != 4) return 2;
  if (((const float *)m->defaults[2].data)[1] != 20) return 3;
  for (int k = 0; k < 4; k++) {
    float y[2];
    if (d_run(&in[k], &(d_outputs){.y = y}, arena) != BURIN_OK) return 4;
    printf("%g %g ", y[0], y[1]);
  }
  return d_run(&(d_inputs){.w = w, .n = 1}, &(d_outputs){.y = (float[2]){0}}, arena) == BURIN_E_ARGUMENT ? 0 : 5;
}
"""

# 20 inputs, of which x3 may have no elements, and 18 outputs: pointers are checked in loops around it.
POINTERS = "<ir_version: 8, opset_import: [\"\" : 17]> p (%s) => (%s) { %s }" % (
    ", ".join("float[n] x3" if k == 3 else f"float[4] x{k}" for k in range(20)), ", ".join(f"float[4] y{k}" for k in range(18)),
    " ".join(f"y{k} = {'Add' if k != 3 else 'Mul'}(x{k if k != 3 else 2}, x19)" for k in range(18)))
POINTERS_MAIN = """
#include <stdio.h>
#include "p.h"
static float memory[4];
int main(void) {
  static _Alignas(64) unsigned char arena[1 << 16];
  p_inputs in = {.n = 4};
  p_outputs out;
  void **const x = (void **)&in, **const y = (void **)&out;
  BurinFailure why;
  const BurinOptions o = {.size = sizeof o, .threads = 1, .failure = &why};
  for (int k = 0; k < 20; k++) x[k] = memory;
  for (int k = 0; k < 18; k++) y[k] = memory;
  if (p_run_opts(&in, &out, arena, &o) != BURIN_OK) return 1;
  for (int k = 0; k < 38; k++) {
    void **const p = k < 20 ? &x[k] : &y[k - 20];
    char text[200];
    *p = NULL;
    if (p_run_opts(&in, &out, arena, &o) != BURIN_E_ARGUMENT) return 2;
    p_failure_text(&why, text, sizeof text);
    puts(text);
    *p = memory;
  }
  in.n = 0;
  x[3] = NULL;
  return p_run_opts(&in, &out, arena, &o) == BURIN_OK ? 0 : 3;
}
"""


def check(name, ok, detail=""):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print(f"FAILED {name}: {detail}")
    return ok


def run(*command, **kw):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace", timeout=300, **kw)


def compile_model(out, *flags):
    r = run(BURIN, MNIST, "-o", out, "--quiet", *flags)
    return check(f"burin {' '.join(map(str, flags))}", r.returncode == 0, r.stderr)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- what stands in the files ---------------------------------------------------------------------------

def check_shared(path, name):
    sections = run("llvm-readelf-19", "-SW", path).stdout
    writable = [line for line in sections.splitlines() if re.search(r"\s(\.data|\.bss|\.tdata|\.tbss)\s", line)]
    check(f"{name}: no writable data", not writable, writable)
    program = run("llvm-readelf-19", "-lW", path).stdout
    stack = next((line for line in program.splitlines() if "GNU_STACK" in line), "")
    check(f"{name}: no executable stack", stack and "E" not in stack.split()[-2], stack)
    check(f"{name}: relocations are read-only", "GNU_RELRO" in program)
    dynamic = run("llvm-readelf-19", "-dW", path).stdout
    check(f"{name}: no text relocations", "TEXTREL" not in dynamic)
    check(f"{name}: bound at start", "NOW" in dynamic)
    check(f"{name}: needs no library", "NEEDED" not in dynamic)
    symbols = run("llvm-nm-19", "-D", "--defined-only", path).stdout.split()[2::3]
    check(f"{name}: exports", {s.removeprefix("m_") for s in symbols} == EXPORTS, symbols)
    undefined = run("llvm-nm-19", "-D", "--undefined-only", path).stdout
    check(f"{name}: nothing undefined", not undefined.strip(), undefined)


def check_target(folder, target):
    if not compile_model(folder / "m", f"--target={target}", "--emit=exe,obj,static,shared,header,asm,llvm", "--name=m"):
        return
    for suffix in ("", ".o", ".a", ".so", ".h", ".s", ".ll"):
        check(f"{target}: m{suffix}", (folder / f"m{suffix}").stat().st_size > 100)
    check_shared(folder / "m.so", target)
    for file in ("m.o", "m.a"):
        symbols = run("llvm-nm-19", "--defined-only", "--extern-only", folder / file).stdout.split()[(file == "m.a")::][2::3]
        check(f"{target}: {file} gives others its functions only", {s.removeprefix("m_") for s in symbols} == EXPORTS, symbols)
    undefined = run("llvm-nm-19", "--undefined-only", folder / "m.o").stdout
    check(f"{target}: object is complete", not undefined.strip(), undefined)
    spills = run(sys.executable, ROOT / "tests/codegen/spills.py", folder / "m.s")
    check_texts(folder, target)
    check(f"{target}: no spills", spills.returncode == 0, spills.stdout)


# ---- texts -------------------------------------------------------------------------------------------------

def functions(path):
    """Names of the functions that an object holds, local ones too."""
    lines = run("llvm-nm-19", "--defined-only", path).stdout.splitlines()
    return {line.split()[2] for line in lines if line.split()[1] in "tT"}


def check_texts(folder, target):
    """Assembler and opt read what --emit=asm and --emit=llvm write; assembled, it is all functions of the object, and with
    LLVM IR translated by LLVM's own llc, too."""
    triple = "x86_64-linux-gnu" if target.startswith("x86") else "armv7-linux-gnueabihf" if target == "armv7" else "aarch64-linux-gnu"
    r = run("clang-19", f"--target={triple}", "-c", folder / "m.s", "-o", folder / "asm.o")
    if not check(f"{target}: the assembler reads m.s", r.returncode == 0, r.stderr[:2000]):
        return
    r = run("llvm-as-19", folder / "m.ll", "-o", folder / "m.bc")
    check(f"{target}: llvm-as reads m.ll", r.returncode == 0, r.stderr[:2000])
    r = run("opt-19", "-passes=verify", folder / "m.ll", "-o", "/dev/null")
    check(f"{target}: opt reads m.ll", r.returncode == 0, r.stderr[:2000])
    r = run("llc-19", "-filetype=obj", "-relocation-model=pic", folder / "m.bc", "-o", folder / "llc.o")
    check(f"{target}: llc translates m.ll", r.returncode == 0, r.stderr[:2000])
    kernels = {s for s in functions(folder / "m.o") if s.endswith(".body")}
    for file in ("asm.o", "llc.o"):
        have = functions(folder / file)
        check(f"{target}: {file} has the kernels", len(kernels) > 3 and kernels <= have, kernels - have)
        check(f"{target}: {file} has the entry", {f"m_{s}" for s in EXPORTS} <= have, have)


# ---- programs ------------------------------------------------------------------------------------------------

def check_programs(folder):
    """Two models in one program, as archives, as objects, from C and C++."""
    (folder / "main.c").write_text(MAIN)
    for name in "ab":
        if not compile_model(folder / name, "--emit=obj,static,shared,header", f"--name={name}"):
            return
    texts = set()
    for label, compiler, language, files in [
            ("archives", "clang-19", "-std=c11", ["a.a", "b.a"]), ("objects", "clang-19", "-std=c11", ["a.o", "b.o"]),
            ("mixed", "clang-19", "-std=c11", ["a.o", "b.a"]), ("shared", "clang-19", "-std=c11", ["a.so", "b.so"]),
            ("static", "clang-19", "-std=c11", ["a.a", "b.a", "-static"])]:
        out = folder / f"host_{label}"
        r = run(compiler, language, "-Wall", "-Wextra", "-Werror", "-O1", "-pthread", "main.c", *files, "-o", out, "-Wl,-rpath,.", cwd=folder)
        if label == "static" and "cannot find -lc" in r.stderr:
            continue
        if check(f"link {label}", r.returncode == 0, r.stderr):
            r = run(out, cwd=folder)
            check(f"run {label}", r.returncode == 0, r.returncode)
            texts.add(r.stdout)
    check("the same results", len(texts) == 1, texts)
    (folder / "include.c").write_text('#include "a.h"\n')
    r = run("clang-19", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-x", "c++", "-fsyntax-only", folder / "include.c")
    check("header in C++", r.returncode == 0, r.stderr)
    r = run("clang-19", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", folder / "include.c")
    check("header in C11", r.returncode == 0, r.stderr)


def check_same_bytes(folder):
    once, again = folder / "d1", folder / "d2"
    for f in (once, again):
        f.mkdir()
        compile_model(f / "m", "--emit=exe,obj,static,shared,header", "--name=m", "--target=x86-64-v3")
    for f in sorted(once.iterdir()):
        check(f"same bytes: {f.name}", digest(f) == digest(again / f.name))


def check_external_weights(folder):
    if not compile_model(folder / "ext", "--weights=external"):
        return
    check("weights file", (folder / "ext.weights").stat().st_size > 1000)
    run(BURIN, MNIST, "-o", folder / "int", "--quiet")
    zeros = folder / "zeros.raw"
    zeros.write_bytes(bytes(4 * 28 * 28))
    a, b = (run(folder / m, "--input", f"Input3=@{zeros}") for m in ("ext", "int"))
    check("external weights run", a.returncode == 0 and len(a.stdout) > 20 and a.stdout == b.stdout, a.stderr + a.stdout)
    (folder / "ext.weights").unlink()
    check("missing weights are an error", run(folder / "ext").returncode not in (0, 139))


def check_defaults(folder):
    """NULL for an input that has a default is the default: in C, in programs, in the interpreter."""
    m = parser.parse_model(DEFAULTS)
    m.graph.initializer.append(numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2) / 8, "w"))
    m.graph.initializer.append(numpy_helper.from_array(np.float32([10, 20]), "b"))
    onnx.save(m, str(folder / "d.onnx"))
    (folder / "d.c").write_text(DEFAULTS_MAIN)
    want = ["15", "26.25", "12", "24", "4", "7.25", "1", "5"]
    for flags in (["--emit=static,header"], ["--emit=static,header", "-O0"], ["--emit=static,header", "--weights=external"]):
        if not check("compile defaults", run(BURIN, folder / "d.onnx", "-o", folder / "d", *flags).returncode == 0):
            return
        r = run("clang-19", "-std=c11", "-Wall", "-Wextra", "-Werror", "d.c", "d.a", "-o", "d.out", cwd=folder)
        check("link defaults", r.returncode == 0, r.stderr)
        r = run("./d.out", cwd=folder)
        check(f"defaults from C {flags}", r.returncode == 0 and r.stdout.split() == want, f"{r.returncode} {r.stdout}")
    np.save(folder / "x.npy", np.float32([[1, 2, 3, 4]]))
    np.save(folder / "w.npy", np.float32([[2, 0], [0, 2], [0, 0], [0, 0]]))
    np.save(folder / "b.npy", np.float32([-1, 1]))
    run(BURIN, folder / "d.onnx", "-o", folder / "dp")
    info = run(folder / "dp", "--info").stdout
    check("the program tells of defaults", info.count("has a default") == 2, info)
    for command in ([folder / "dp"], [BURIN, "run", folder / "d.onnx"], [BURIN, "run", "--interpret", folder / "d.onnx"]):
        for k, given in enumerate(("x", "xw", "xb", "xwb")):
            r = run(*command, *[f"--input={n}=@{folder / n}.npy" for n in given])
            check(f"defaults {command} {given}", r.stdout.split()[-2:] == want[2 * k : 2 * k + 2], r.stdout + r.stderr)
        r = run(*command, f"--input=w=@{folder / 'w.npy'}")
        check(f"defaults {command}: x is missing", r.returncode and "input x" in r.stderr, r.stdout + r.stderr)


def check_pointers(folder):
    """The failure names the pointer that is NULL, also where many are checked in a loop."""
    onnx.save(parser.parse_model(POINTERS), str(folder / "p.onnx"))
    (folder / "p.c").write_text(POINTERS_MAIN)
    want = [f"input x{k} is NULL" for k in range(20)] + [f"output y{k} is NULL" for k in range(18)]
    for flags in ([], ["-O0"]):
        r = run(BURIN, folder / "p.onnx", "-o", folder / "p", "--emit=static,header", *flags)
        if not check("compile many pointers", r.returncode == 0, r.stderr):
            return
        r = run("clang-19", "-std=c11", "-Wall", "-Wextra", "-Werror", "p.c", "p.a", "-o", "p.out", cwd=folder)
        check("link many pointers", r.returncode == 0, r.stderr)
        r = run("./p.out", cwd=folder)
        got = r.stdout.splitlines()
        check(f"NULL pointers are named {flags}", r.returncode == 0 and len(got) == 38 and all(w in g for w, g in zip(want, got)),
              f"{r.returncode} {r.stdout}")


def check_failure(folder):
    sub = folder / "closed"
    sub.mkdir()
    r = run(BURIN, MNIST, "-o", sub / "no/such/m")
    check("missing folder", r.returncode == 4, (r.returncode, r.stderr))
    check("nothing left", not list(sub.iterdir()))


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for target in TARGETS:
            check_target(folder, target)
        check_programs(folder)
        check_same_bytes(folder)
        check_external_weights(folder)
        check_defaults(folder)
        check_pointers(folder)
        check_failure(folder)
        left = [p.name for p in folder.iterdir() if ".tmp" in p.name]
        check("no temporary files", not left, left)
    print(f"{counts['passed']} passed, {counts['failed']} failed, 0 skipped")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
