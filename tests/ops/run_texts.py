#!/usr/bin/env python3
"""Part "texts": strings at run time. Operators on random strings against Python; floats to text and back for random bits;
regular expressions against Python's and in RE2's own syntax; what only moves strings; labels of ai.onnx.ml; If and Loop;
the program around a model, other architectures, C source, a heap that ends."""
import ctypes
import itertools
from decimal import Decimal
import random
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh

import burin
from support.part import check, finish, run, skip, burin as compiler
from support.targets import EMULATOR, missing

SEED = 7
ALPHABETS = ["ab", "ab ", "aAbBzZ", "äÄßñ ", "日本 é", "\t\n x,", "01.-e"]


def texts(rng, *shape, most=6):
    result = np.empty(shape, object)
    for i in np.ndindex(*shape):
        letters = rng.choice(ALPHABETS)
        result[i] = "".join(rng.choice(letters) for _ in range(rng.randrange(most + 1)))
    return result


def build(nodes, inputs, outputs, init=(), opset=21):
    info = [h.make_tensor_value_info(n, t, s) for n, t, s in inputs]
    out = [h.make_empty_tensor_value_info(n) for n in outputs]
    graph = h.make_graph(nodes, "g", info, out, [nh.from_array(np.asarray(a), n) for n, a in init])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset), h.make_opsetid("ai.onnx.ml", 4), h.make_opsetid("com.microsoft", 1)], ir_version=10)


def op(name, n_in, n_out=1, domain="", types=T.STRING, rank=1, **attrs):
    """A model of one node over inputs of unknown sizes."""
    ins, outs = [f"x{i}" for i in range(n_in)], [f"y{i}" for i in range(n_out)]
    node = h.make_node(name, ins, outs, domain=domain, **attrs)
    return build([node], [(n, types, [f"{n}_{d}" for d in range(rank)]) for n in ins], outs)


def same(got, want):
    return len(got) == len(want) and all(
        np.asarray(g).shape == np.asarray(w).shape and (np.asarray(g) == np.asarray(w)).all() for g, w in zip(got, want))


def compare(name, model, feeds, want, flags=()):
    try:
        m = model if isinstance(model, burin.Model) else burin.compile(model, flags=list(flags))
        got = m.run(feeds)
        check(name, same(got, want), f"{got}, not {want}")
    except (burin.CompileError, burin.RunError) as e:
        check(name, False, e)


# ---- operators ----------------------------------------------------------------------------------------------------
def test_concat(rng):
    m = burin.compile(build([h.make_node("StringConcat", ["x0", "x1"], ["y"])], [("x0", T.STRING, ["n", "m"]), ("x1", T.STRING, ["m"])], ["y"]))
    for shape in ((0, 3), (1, 1), (4, 7)):
        a, b = texts(rng, *shape), texts(rng, shape[1])
        compare(f"concat {shape}", m, {"x0": a, "x1": b}, [a + b])


def test_constant(rng):
    """Strings that are made of constants: by the run, whose heap they lie in."""
    a, b = texts(rng, 4), texts(rng, 4)
    model = build([h.make_node("StringConcat", ["a", "b"], ["y"])], [], ["y"], [("a", a), ("b", b)])
    for flags in ([], ["-O0"]):
        compare(f"concat of constants {flags}", model, {}, [a + b], flags)


def split_reference(x, delimiter, most):
    pieces = [s.split(delimiter, most) for s in x.ravel()]
    width = max((len(p) for p in pieces), default=0)
    y = np.array([p + [""] * (width - len(p)) for p in pieces], object).reshape(*x.shape, width)
    return [y, np.array([len(p) for p in pieces], np.int64).reshape(x.shape)]


def test_split(rng):
    for delimiter in (None, "a", ",", "aa", "日"):
        for most in (-1, 0, 1, 3):
            attrs = {} if delimiter is None else {"delimiter": delimiter}
            if most >= 0:
                attrs["maxsplit"] = most
            m = burin.compile(op("StringSplit", 1, 2, rank=2, **attrs))
            for shape in ((0, 2), (1, 1), (5, 3)):
                x = texts(rng, *shape, most=9)
                compare(f"split {delimiter!r} {most} {shape}", m, {"x0": x}, split_reference(x, delimiter, most))


def test_normalizer(rng):
    words = ["Tag", "tag", "ÄRA", "ära", "", "x", "Éß"]
    changes = {"NONE": lambda s: s, "LOWER": str.lower,
               "UPPER": lambda s: "".join(c.upper() if len(c.upper()) == 1 else c for c in s)}
    for action, change in changes.items():
        for sensitive in (0, 1):
            stop = ["tag", "ÄRA"]
            key = (lambda s: s) if sensitive else str.lower
            m = burin.compile(op("StringNormalizer", 1, case_change_action=action, is_case_sensitive=sensitive, stopwords=stop))
            for n in (0, 1, 9):
                x = np.array([rng.choice(words) for _ in range(n)], object)
                want = [change(s) for s in x if key(s) not in {key(t) for t in stop}] or [""]
                compare(f"normalizer {action} {sensitive} {n}", m, {"x0": x}, [np.array(want, object)])


def test_unique(rng):
    for is_sorted in (0, 1):
        m = burin.compile(op("Unique", 1, 4, sorted=is_sorted))
        for n in (1, 2, 30):
            x = texts(rng, n, most=2)
            y, index, inverse, counts = np.unique(x.astype(str), return_index=True, return_inverse=True, return_counts=True)
            if not is_sorted:
                order = np.argsort(index)
                y, index, counts = y[order], index[order], counts[order]
                inverse = np.argsort(order)[inverse]
            compare(f"unique {is_sorted} {n}", m, {"x0": x}, [y.astype(object), index, inverse.reshape(-1), counts])


# ---- numbers ------------------------------------------------------------------------------------------------------
def random_floats(rng, t, n):
    width, kind = {np.float32: (4, "I"), np.float64: (8, "Q"), np.float16: (2, "H")}[t]
    bits = [rng.getrandbits(8 * width) for _ in range(n)]
    simple = [0, 1, -1, 0.1, 1e16, 1e-4, 123456789, 5e-324, 3.4028235e38, 9.999999, 0.00001]
    with np.errstate(over="ignore"):
        values = np.concatenate([np.array([struct.unpack({4: "f", 8: "d", 2: "e"}[width], struct.pack(kind, b))[0] for b in bits], t),
                                 np.array(simple).astype(t)])
    least = 0 if t is np.float16 else np.finfo(t).tiny  # below it, numbers count as zero while a model runs
    return values[np.isfinite(values) & ((np.abs(values) >= least) | (values == 0))]


def test_numbers(rng):
    for t, onnx_type in ((np.float32, T.FLOAT), (np.float64, T.DOUBLE), (np.float16, T.FLOAT16)):
        x = random_floats(rng, t, 400)
        write = burin.compile(op("Cast", 1, types=onnx_type, to=T.STRING))
        read = burin.compile(op("Cast", 1, to=onnx_type))
        want = np.array([str(v) for v in x], object)
        written = write.run({"x0": x})[0]  # numpy's digits; when it writes an exponent depends on its version
        check(f"write {t.__name__}", [Decimal(s) for s in written] == [Decimal(s) for s in want] and "0.1" in written, written)
        got = read.run({"x0": want})[0]
        check(f"read {t.__name__}", got.tobytes() == x.tobytes(), "bits differ")
        long = np.array([f"{float(v):.40e}" for v in x] + ["1" * 400, "0." + "0" * 400 + "1", "2.5e+1", " 7 "], object)
        with np.errstate(over="ignore"):
            exact = np.array([t(s) if t is not np.float16 else np.float64(s) for s in long]).astype(t)
        check(f"read long {t.__name__}", read.run({"x0": long})[0].tobytes() == exact.tobytes(), "bits differ")
    for value in ("", "x", "1.2.3", "1e", "--1", "0x10"):
        try:
            burin.compile(op("Cast", 1, to=T.FLOAT)).run({"x0": np.array([value], object)})
            check(f"no number {value!r}", False, "was taken")
        except burin.RunError as e:
            check(f"no number {value!r}", e.status == 5, e)
    for t, onnx_type in ((np.int64, T.INT64), (np.uint8, T.UINT8), (np.int32, T.INT32), (np.uint64, T.UINT64)):
        info = np.iinfo(t)
        x = np.array([info.min, info.max, 0, 1, 17], t)
        s = np.array([str(v) for v in x], object)
        compare(f"write {t.__name__}", op("Cast", 1, types=onnx_type, to=T.STRING), {"x0": x}, [s])
        compare(f"read {t.__name__}", op("Cast", 1, to=onnx_type), {"x0": s}, [x])


# ---- regular expressions ------------------------------------------------------------------------------------------
PATTERNS = ["", "a", "ab*", "(ab|a)(c|bcd)?", "[a-c]+", "[^ab]*", ".*", "a.c", "(?i)äb", "(a*)*b", "(a|b){2,4}", "a{0}b", r"\d+\.\d*",
            r"\w+@\w+\.[a-z]{2,3}", r"\s*x\s*", r"^ab$", r"a\b.*", r"(?s)a.b", r"(?m)a$\nb", "[]a]+", r"[\d\-x]+", "a|b||c", "日+本?",
            r"[[:alpha:]]+", r"\x41\x{e4}", "(?:ab)+", "(?P<n>a)b", r"\Qa.b\E+", "a+?b*?", r"[^\W\d]+"]


def test_regex(rng):
    samples = ["", "a", "b", "ab", "abb", "abc", "abcd", "aab", "ÄB", "äb", "aaab", "bb", "abab", "1.", "12.34", "me@x.org", " x ", "a\nb",
               "a b", "]a", "3-x", "日本", "Aä", "a.b", "a.bb", "foo", "x1"]
    samples += [str(s) for s in texts(rng, 60, most=5)]
    for pattern in PATTERNS:
        python = pattern.replace("[[:alpha:]]", "[A-Za-z]").replace(r"\x{e4}", "ä").replace(r"\Qa.b\E+", r"a\.b+")
        flags = re.ASCII if "(?i)" not in pattern else 0
        want = np.array([re.fullmatch(python, s, flags) is not None for s in samples])
        compare(f"regex {pattern}", op("RegexFullMatch", 1, pattern=pattern), {"x0": np.array(samples, object)}, [want])
    for pattern in ("(", ")", "[a", "a**", "*a", "a{2,1}", "a{5000}", "\\", "[b-a]", "(?x)a", r"\y", "(?P<a", "(a{1000}){1000}"):
        try:
            burin.compile(op("RegexFullMatch", 1, pattern=pattern))
            check(f"bad pattern {pattern}", False, "was taken")
        except burin.CompileError as e:
            check(f"bad pattern {pattern}", e.status in (1, 5) and "pattern, byte" in str(e), e)
    slow = np.array(["a" * 2000], object)  # what backtracking never ends with
    compare("regex of exponential search", op("RegexFullMatch", 1, pattern="(a*)*(a|aa)*c"), {"x0": slow}, [np.array([False])])


TOKENS = [dict(tokenexp=t) for t in ("[a-zA-Z0-9_]+", ".", "a|ab|b+", r"\b\w\w+\b", "x*", "a*?", "(?i)ä", "^a|b$")]
TOKENS += [dict(separators=[s]) for s in ("", " ", "[ ,]+", "a|ab", "é")]


def test_hash(rng):
    """Against ONNX Runtime: every length modulo 4, seeds, both signs."""
    x = texts(rng, 40, most=11)
    for seed, positive in itertools.product((0, 7, 2**31 + 5), (0, 1)):
        model = op("MurmurHash3", 1, domain="com.microsoft", seed=seed, positive=positive)
        want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x0": x})
        compare(f"hash with seed {seed}, positive {positive}", model, {"x0": x}, want)


def test_tokenizer(rng):
    """Against ONNX Runtime: vectors and tables, with marks and without, short tokens left out."""
    ort.set_default_logger_severity(4)
    for pattern in TOKENS:
        for rank, mark, least in ((1, 0, 1), (2, 1, 1), (1, 1, 2)):
            if least > 1 and (pattern == {"tokenexp": "."} or pattern == {"separators": [""]}):
                continue
            model = op("Tokenizer", 1, domain="com.microsoft", rank=rank, pad_value="#", mark=mark, mincharnum=least, **pattern)
            x = texts(rng, *(3, 2)[:rank], most=12)
            want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x0": x})
            compare(f"tokens {pattern} mark {mark}, at least {least}", model, {"x0": x}, want)
    model = op("Tokenizer", 1, domain="com.microsoft", pad_value="", mark=0, mincharnum=1, tokenexp="a")
    try:
        burin.compile(model).run({"x0": np.array(["a" * 300], object)})
        check("more tokens than the bound", False, "were taken")
    except burin.RunError as e:
        check("more tokens than the bound", True, e)
    for bad in ({}, {"tokenexp": "("}, {"tokenexp": ""}, {"tokenexp": "a", "separators": ["a"]}, {"separators": ["a", "b"]}, {"separators": [""], "mincharnum": 2},
                {"tokenexp": "a", "mincharnum": 0}, {"tokenexp": "a", "mark": 2}, {"tokenexp": "a", "pad_value": 3}):
        try:
            burin.compile(op("Tokenizer", 1, domain="com.microsoft", **{"pad_value": "", "mark": 0, "mincharnum": 1, **bad}))
            check(f"bad tokenizer {bad}", False, "was taken")
        except burin.CompileError as e:
            check(f"bad tokenizer {bad}", e.status in (1, 5) and "Tokenizer" in str(e), e)


def test_found_sizes(rng):
    """Readers of what has a size that a run finds: their own sizes are the same."""
    x = np.array(["a b", "b", "", "a c a"], object)
    pieces = np.array([["a", "b", ""], ["b", "", ""], ["", "", ""], ["a", "c", "a"]], object)
    for name, first, domain, want in (("StringSplit", {}, "", pieces), ("Tokenizer", dict(tokenexp="[a-z]", pad_value="", mark=0, mincharnum=1), "com.microsoft", pieces),
                                      ("StringNormalizer", dict(stopwords=["b"]), "", np.array(["a b", "", "a c a"], object))):
        nodes = [h.make_node(name, ["x"], ["p", "n"][: 2 if name == "StringSplit" else 1], domain=domain, **first), h.make_node("Equal", ["p", "a"], ["e"]),
                 h.make_node("Cast", ["e"], ["f"], to=T.FLOAT), h.make_node("ReduceL2", ["f"], ["r"]), h.make_node("Add", ["f", "r"], ["y"])]
        equal = (want == "a").astype(np.float32)
        compare(f"behind {name}", build(nodes, [("x", T.STRING, ["rows"])], ["y"], [("a", np.array("a", object))]), {"x": x}, [equal + np.sqrt(np.sum(equal * equal))])


# ---- what moves strings, and labels -------------------------------------------------------------------------------
def test_moves(rng):
    x, y = texts(rng, 4, 3), texts(rng, 4, 3)
    pick = np.array([[1, 0, 2]], np.int64)
    nodes = [h.make_node("Concat", ["x", "y"], ["c"], axis=1), h.make_node("Gather", ["c", "pick"], ["g"], axis=1),
             h.make_node("Transpose", ["g"], ["t"]), h.make_node("Equal", ["x", "y"], ["e"]),
             h.make_node("Where", ["e", "x", "k"], ["w"]), h.make_node("Pad", ["x", "pads"], ["p"]),
             h.make_node("Compress", ["x", "rows"], ["z"], axis=0)]
    init = [("pick", pick[0]), ("k", np.array(["K"], object)), ("pads", np.array([0, 1, 1, 0], np.int64)),
            ("rows", np.array([True, False, True, True]))]
    m = build(nodes, [("x", T.STRING, ["n", 3]), ("y", T.STRING, ["n", 3])], ["c", "t", "e", "w", "p", "z"], init)
    y[1] = x[1]
    c = np.concatenate([x, y], 1)
    pad = np.full((5, 4), "", object)
    pad[:4, 1:] = x
    want = [c, c[:, pick[0]].T, x == y, np.where(x == y, x, "K"), pad, x[[0, 2, 3]]]
    for flags in ((), ("-O0",)):
        compare(f"moves {flags}", m, {"x": x, "y": y}, want, flags)


def test_labels(rng):
    x = np.array(["cat", "dog", "bird", "", "cat"], object)
    ml = "ai.onnx.ml"
    compare("labels to numbers", op("LabelEncoder", 1, domain=ml, keys_strings=["dog", "cat", ""], values_floats=[1.5, 2.5, 3.5], default_float=-1.0),
            {"x0": x}, [np.array([2.5, 1.5, -1, 3.5, 2.5], np.float32)])
    compare("numbers to labels", op("LabelEncoder", 1, domain=ml, types=T.INT64, keys_int64s=[3, 1], values_strings=["z", "a"], default_string="?"),
            {"x0": np.array([1, 3, 7], np.int64)}, [np.array(["a", "z", "?"], object)])
    compare("labels to labels", op("LabelEncoder", 1, domain=ml, keys_strings=["dog", "cat"], values_strings=["Hund", "Katze"]),
            {"x0": x}, [np.array(["Katze", "Hund", "_Unused", "_Unused", "Katze"], object)])
    cats = ["dog", "cat"]
    compare("one-hot", op("OneHotEncoder", 1, domain=ml, cats_strings=cats), {"x0": x},
            [np.array([[float(s == c) for c in cats] for s in x], np.float32)])
    tfidf = op("TfIdfVectorizer", 1, mode="TF", min_gram_length=1, max_gram_length=2, max_skip_count=0, ngram_counts=[0, 2],
               ngram_indexes=[0, 1, 2], pool_strings=["cat", "dog", "cat", "dog"])
    compare("n-grams", tfidf, {"x0": x}, [np.array([2, 1, 1], np.float32)])


def test_control(rng):
    text = lambda name, *shape: h.make_tensor_value_info(name, T.STRING, list(shape))
    then = h.make_graph([h.make_node("StringConcat", ["x", "k"], ["a"])], "t", [], [text("a", "n")])
    other = h.make_graph([h.make_node("Identity", ["x"], ["b"])], "e", [], [text("b", "n")])
    body = h.make_graph([h.make_node("StringConcat", ["s", "x"], ["s2"]), h.make_node("Identity", ["go"], ["go2"])], "b",
                        [h.make_tensor_value_info("i", T.INT64, []), h.make_tensor_value_info("go", T.BOOL, []), text("s", "n")],
                        [h.make_tensor_value_info("go2", T.BOOL, []), text("s2", "n")])
    nodes = [h.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other), h.make_node("Loop", ["three", "", "x"], ["z"], body=body)]
    m = burin.compile(build(nodes, [("x", T.STRING, ["n"]), ("c", T.BOOL, [])], ["y", "z"], [("k", np.array(["!"], object)), ("three", np.array(3, np.int64))]))
    for n in (0, 3):
        x = texts(rng, n)
        for c in (True, False):
            compare(f"If and Loop {n} {c}", m, {"x": x, "c": np.array(c)}, [x + "!" if c else x, x + x + x + x])


# ---- around a model -----------------------------------------------------------------------------------------------
def test_heap():
    """A heap that ends is a status, as is none."""
    m = burin.compile(op("StringConcat", 2))
    x = np.array(["a" * 1000 + str(i) for i in range(3000)], object)
    m.run({"x0": x[:1], "x1": x[:1]})
    call = m._threads.call
    grow = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64)(lambda user, n: None)
    kept, call.heap.grow = call.heap.grow, ctypes.cast(grow, ctypes.c_void_p)
    for what in ("ends", "is missing"):
        try:
            m.run({"x0": x, "x1": x})
            check(f"heap {what}", False, "the run succeeded")
        except burin.RunError as e:
            check(f"heap {what}", e.status == 8, e)
        call.heap, call.shapes = None, None
    m._threads.call.heap = burin._abi.new_heap(call)
    call.shapes = None
    compare("heap again", m, {"x0": x, "x1": x}, [x + x])


HOST = r"""
#include "m.h"
#include <stdio.h>
int main(void) {
  const char *x0[] = {"a b", "", "\xc3\xa4 \xc3\xa4 z"}, *y0[3 * 4];
  int64_t y1[3];
  static _Alignas(64) char arena[1 << 16];
  m_inputs in = {.x0 = x0, .x0_0 = 3};
  m_outputs out = {.y0 = y0, .y1 = y1};
  BurinHeap heap = {.grow = burin_heap_malloc};
  BurinOptions options = {.size = sizeof options, .heap = &heap};
  if (m_run(&in, &out, arena) != BURIN_E_MEMORY) return 1;
  for (int k = 0; k < 3; k++)
    if (m_run_opts(&in, &out, arena, &options)) return 2;
  for (int i = 0; i < 3; i++) printf("%s|%s|%s %d\n", y0[3 * i], y0[3 * i + 1], y0[3 * i + 2], (int)y1[i]);
  burin_heap_free(&heap);
  return 0;
}
"""


def test_hosts(folder):
    model = op("StringSplit", 1, 2, maxsplit=3)
    onnx.save(model, folder / "m.onnx")
    (folder / "host.c").write_text(HOST)
    want = "a|b| 2\n|| 0\nä|ä|z 3\n"
    for name, flags, source in (("library", ["--emit=static,header"], "m.a"), ("C source", ["--target=c", "--emit=c,header"], "m.c")):
        done = compiler("m.onnx", *flags, "--name=m", "-o", "m", cwd=folder)
        sanitize = ["-fsanitize=address,undefined"] if source == "m.c" else []
        done = done.returncode and done or run("gcc", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", *sanitize, "host.c", source, "-o", "host", cwd=folder)
        done = done.returncode and done or run("./host", cwd=folder)
        check(name, done.stdout == want, done.stdout + done.stderr)


def test_device(rng):
    """Where kernels run elsewhere, strings stay on the host."""
    m = burin.compile(op("StringConcat", 2), target="cuda:host")
    x = texts(rng, 5)
    compare("cuda:host", m, {"x0": x, "x1": x}, [x + x])


def test_programs(folder):
    pair = [("x0", T.STRING, ["n"]), ("x1", T.STRING, ["n"])]
    onnx.save(build([h.make_node("StringConcat", ["x0", "x1"], ["y0"])], pair, ["y0"]), folder / "c.onnx")
    onnx.save_tensor(nh.from_array(np.array(["é", "b"], object)), folder / "in.pb")
    for target in ("native", "x86-64-v2", "aarch64", "armv7"):
        if missing(target):
            skip(target, missing(target))
            continue
        done = compiler("c.onnx", f"--target={target}", "-o", f"p_{target}", cwd=folder)
        if not check(f"{target}: compiles", done.returncode == 0, done.stderr):
            continue
        program = [*EMULATOR[target], f"./p_{target}"]
        done = run(*program, "--input", "x0=@in.pb", "--input", "x1=,x", "--output", "y0=@out.pb", "--check-memory", cwd=folder)
        ok = done.returncode == 0 and list(nh.to_array(onnx.load_tensor(folder / "out.pb"))) == ["é", "bx"]
        check(f"{target}: writes", ok, done.stderr)
        done = run(*program, "--input", "x0=@in.pb", "--input", "x1=,x", "--expect", "y0=@out.pb", cwd=folder)
        check(f"{target}: compares", done.returncode == 0, done.stdout + done.stderr)
        done = run(*program, "--input", "x0=@in.pb", "--input", "x1=q,x", "--expect", "y0=@out.pb", cwd=folder)
        check(f"{target}: tells apart", done.returncode == 7 and '"éq"' in done.stdout, done.stdout + done.stderr)


def main():
    rng = random.Random(SEED)
    for test in (test_concat, test_constant, test_split, test_normalizer, test_unique, test_numbers, test_regex, test_hash, test_tokenizer, test_found_sizes, test_moves, test_labels, test_control, test_device):
        test(rng)
    test_heap()
    with tempfile.TemporaryDirectory(prefix="burin-") as name:
        test_hosts(Path(name))
        test_programs(Path(name))
    return finish()


if __name__ == "__main__":
    sys.exit(main())
