"""Sequences, optionals and maps as inputs and outputs of a model: from Python (on memory full of ones, too), as a C program with the header,
which also gives what the model must refuse, and as a program of its own."""
import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h

import burin
from tests.support.part import check

ML = "ai.onnx.ml"
ROUNDS = 12


def build(nodes, inputs, outputs, opset=18):
    graph = h.make_graph(nodes, "g", inputs, outputs)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset), h.make_opsetid(ML, 3)], ir_version=8)


def sequence(name, t=T.FLOAT, shape=(None, 3)):
    return h.make_tensor_sequence_value_info(name, t, shape)


def optional(name, of):
    return h.make_value_info(name, h.make_optional_type_proto(of))


def edited():
    """s with x at the end, without its first item, and doubled; its length; what stands at k."""
    body = h.make_graph([h.make_node("Add", ["a", "a"], ["b"])], "double", [h.make_tensor_value_info("a", T.FLOAT, None)],
                        [h.make_tensor_value_info("b", T.FLOAT, None)])
    nodes = [h.make_node("SequenceInsert", ["s", "x"], ["longer"]), h.make_node("SequenceErase", ["longer", "zero"], ["rest"]),
             h.make_node("SequenceMap", ["rest"], ["twice"], body=body), h.make_node("SequenceLength", ["s"], ["n"]),
             h.make_node("SequenceAt", ["longer", "k"], ["item"])]
    scalar = lambda name: h.make_tensor_value_info(name, T.INT64, [])
    return build(nodes, [sequence("s"), h.make_tensor_value_info("x", T.FLOAT, ["m", 3]), scalar("zero"), scalar("k")],
                 [sequence("rest"), sequence("twice"), scalar("n"), h.make_tensor_value_info("item", T.FLOAT, [None, 3])])


def same(got, want):
    if isinstance(want, list):
        return isinstance(got, list) and len(got) == len(want) and all(map(same, got, want))
    if want is None:
        return got is None
    return got is not None and np.asarray(got).dtype == np.asarray(want).dtype and np.array_equal(got, want)


def test_python(rng, values):
    model = edited()
    session, compiled = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]), burin.compile(model)
    matrix = lambda: values.random((rng.choice([0, 1, 4]), 3), np.float32)
    for i in range(ROUNDS):
        s = [matrix() for _ in range(rng.choice([0, 1, 2, 7, 30]))]
        feeds = {"s": s, "x": matrix(), "zero": np.int64(0), "k": np.int64(rng.randint(-len(s) - 1, len(s)))}
        if s:  # ONNX Runtime takes no empty list
            want = session.run(None, {k: np.asarray(v) if k != "s" else v for k, v in feeds.items()})
        else:
            want = [[], [2 * feeds["x"]][:0], np.int64(0), feeds["x"]]
        check(f"edited {i}", same(compiled.run(feeds), want), feeds)
    for name, bad in (("a tensor of another type", [np.zeros((2, 3), np.float64)]), ("of another rank", [np.zeros(3, np.float32)]),
                      ("of another size", [np.zeros((2, 4), np.float32)]), ("none", None), ("no list", np.zeros((2, 3), np.float32))):
        try:
            compiled.run({**feeds, "s": bad})
            check(name, False, "was taken")
        except (burin.RunError, TypeError) as e:
            check(name, "s" in str(e), e)


def test_unranked():
    """Sequences of no declared rank: results that read them have the rank that the model declares, and runs with another one fail."""
    scalar = lambda name: h.make_tensor_value_info(name, T.INT64, [])
    at, items = h.make_node("SequenceAt", ["s", "k"], ["y"]), [np.full((2, 3), k, np.float32) for k in range(3)]
    cases = {"at": (at, 2, items[1]), "joined": (h.make_node("ConcatFromSequence", ["s"], ["y"], axis=1), 2, np.concatenate(items, 1)),
             "stacked": (h.make_node("ConcatFromSequence", ["s"], ["y"], axis=0, new_axis=1), 3, np.stack(items))}
    for name, (node, rank, want) in cases.items():
        result = h.make_tensor_value_info("y", T.FLOAT, [None] * rank)
        m = burin.compile(build([node], [h.make_tensor_sequence_value_info("s", T.FLOAT, None), scalar("k")], [result]))
        got = m.run({"s": items, "k": np.int64(1)})[0]
        check(f"no rank declared: {name}", same(got, want), got)
        for wrong in ([np.ones(3, np.float32)] * 3, [np.ones((1, 2, 3), np.float32)] * 3):
            try:
                check(f"no rank declared: {name} of another", False, m.run({"s": wrong, "k": np.int64(1)}))
            except burin.RunError:
                check(f"no rank declared: {name} of another", True)
    try:
        burin.compile(build([at], [h.make_tensor_sequence_value_info("s", T.FLOAT, None), scalar("k")], [h.make_tensor_value_info("y", T.FLOAT, None)]))
        check("no rank anywhere", False, "is compiled")
    except burin.CompileError as e:
        check("no rank anywhere", "declare theirs or that of the result" in str(e), e)
    texts = burin.compile(build([at], [h.make_tensor_sequence_value_info("s", T.STRING, None), scalar("k")], [h.make_tensor_value_info("y", T.STRING, [None])]))
    got = texts.run({"s": [np.array(["a"], object), np.array(["b", "\u00e4c"], object)], "k": np.int64(-1)})[0]
    check("no rank declared: strings", list(got) == ["b", "\u00e4c"], got)


def test_text_items():
    """Strings of a size that only a sequence tells: as outputs, and through functions of strings."""
    scalar = h.make_tensor_value_info("k", T.INT64, [])
    nodes = [h.make_node("SequenceAt", ["s", "k"], ["y"]), h.make_node("StringConcat", ["y", "y"], ["both"]),
             h.make_node("StringNormalizer", ["y"], ["upper"], case_change_action="UPPER", is_case_sensitive=1, stopwords=["b"]),
             h.make_node("StringSplit", ["both"], ["parts", "n"], delimiter="-"), h.make_node("RegexFullMatch", ["both"], ["match"], pattern="a.*")]
    texts, outputs = h.make_tensor_sequence_value_info("s", T.STRING, [None]), [h.make_tensor_value_info(n, T.STRING, [None]) for n in ("y", "both", "upper")]
    outputs += [h.make_tensor_value_info("parts", T.STRING, [None, None]), h.make_tensor_value_info("n", T.INT64, [None]), h.make_tensor_value_info("match", T.BOOL, [None])]
    m = burin.compile(build(nodes, [texts, scalar], outputs, opset=20))
    for k, item in enumerate((["a-", "b"], ["\u00e4c"], ["a"] * 300, [])):
        got = m.run({"s": [np.array(["x"], object)] * k + [np.array(item, object)], "k": np.int64(-1)})
        both = [t + t for t in item]
        split = [t.split("-") for t in both]
        upper = [t.upper() for t in item if t != "b"]
        ok = list(got[0]) == item and list(got[1]) == both and list(got[2]) == (upper or [""]) and list(got[5]) == [t.startswith("a") for t in both]
        ok = ok and list(got[4]) == list(map(len, split)) and [[p for p in row if p] for row in got[3]] == [[p for p in row if p] for row in split]
        check(f"strings of a sequence: {item[:3]}", ok, got)


def test_strings():
    model = build([h.make_node("SequenceInsert", ["s", "x"], ["y"])], [sequence("s", T.STRING, [None]), h.make_tensor_value_info("x", T.STRING, ["n"])],
                  [sequence("y", T.STRING, [None])])
    s = [np.array(["a", "", "zwölf"], object), np.array([], object)]
    only = build([h.make_node("Identity", ["s"], ["y"])], [sequence("s", T.STRING, [None])], [sequence("y", T.STRING, [None])])
    check("strings that nothing else reads", same(burin.compile(only).run({"s": s})[0], s))
    x = np.array(["new"], object)
    check("strings", same(burin.compile(model).run({"s": s, "x": x})[0], [*s, x]))


def test_optionals():
    tensor, many = h.make_tensor_type_proto(T.FLOAT, [None]), h.make_sequence_type_proto(h.make_tensor_type_proto(T.FLOAT, [None]))
    x = np.array([1, 2, 3], np.float32)
    for name, of, values in (("tensor", tensor, [None, x]), ("sequence", many, [None, [], [x, x[:1]]])):
        has = h.make_node("OptionalHasElement", ["o"], ["has"])
        taken = h.make_value_info("e", of)
        branch = lambda node: h.make_graph([node], "b", [], [h.make_value_info(node.output[0], of)])
        other = h.make_node("Identity", ["d"], ["e2"])
        choose = h.make_node("If", ["has"], ["e"], then_branch=branch(h.make_node("OptionalGetElement", ["o"], ["e1"])), else_branch=branch(other))
        model = burin.compile(build([has, choose, h.make_node("Identity", ["o"], ["same"])], [optional("o", of), h.make_value_info("d", of)],
                                    [h.make_tensor_value_info("has", T.BOOL, []), taken, optional("same", of)]))
        d = x * 2 if name == "tensor" else [x * 2]
        for v in values:
            got = model.run({"o": v, "d": d})
            check(f"optional {name} {v}", same(got, [np.bool_(v is not None), d if v is None else v, v]), got)
        check(f"optional {name} left out", model.run({"d": d})[2] is None)
        get = burin.compile(build([h.make_node("OptionalGetElement", ["o"], ["e"])], [optional("o", of)], [taken]))
        try:
            get.run({})
            check(f"element of no {name}", False, "was given")
        except burin.RunError as e:
            check(f"element of no {name}", e.status == 5, e)


def test_maps(rng):
    for kind, keys in ((T.STRING, ["a", "b", "ü"]), (T.INT64, [7, -1, 3])):
        x = h.make_value_info("x", h.make_map_type_proto(kind, h.make_tensor_type_proto(T.FLOAT, [])))
        names = {"string_vocabulary" if kind == T.STRING else "int64_vocabulary": keys}
        model = build([h.make_node("DictVectorizer", ["x"], ["y"], domain=ML, **names)], [x], [h.make_tensor_value_info("y", T.FLOAT, None)])
        session, compiled = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]), burin.compile(model)
        for n in range(5):
            given = {k: rng.random() for k in rng.sample([*keys, *(["z", "y"] if kind == T.STRING else [100, 200])], n)}
            check(f"DictVectorizer {given}", same(compiled.run({"x": given})[0], session.run(None, {"x": given})[0]) if given else
                  not compiled.run({"x": given})[0].any())
    x = h.make_value_info("x", h.make_map_type_proto(T.INT64, h.make_tensor_type_proto(T.FLOAT, [])))
    for attributes in ({}, {"cast_to": "TO_INT64"}, {"map_form": "SPARSE", "max_map": 4}):
        t = T.INT64 if "cast_to" in attributes else T.FLOAT
        model = build([h.make_node("CastMap", ["x"], ["y"], domain=ML, **attributes)], [x], [h.make_tensor_value_info("y", t, None)])
        given = {3: 2.75, 0: -1.5, 9: 4.0}
        want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": given})[0]
        check(f"CastMap {attributes}", same(burin.compile(model).run({"x": given})[0], want))


HOST = r"""
#include <stdio.h>
#include <string.h>
#include "m.h"
static void *little(void *user, uint64_t bytes) { return --*(int *)user < 0 ? NULL : burin_heap_malloc(user, bytes); }
static int run(const BurinList *s, BurinList *rest, BurinHeap *heap) {
  static _Alignas(64) char arena[1 << 16];
  static float x[6] = {7, 8, 9, 10, 11, 12}, item[64];
  float *at = item;
  BurinList twice;
  int64_t n, zero = 0, k = 0;
  m_inputs in = {.s = s, .x = x, .zero = &zero, .k = &k, .m = 2};
  m_outputs out = {.rest = rest, .twice = &twice, .n = &n, .item = &at};
  BurinOptions o = {.size = sizeof o, .heap = heap, .arena_bytes = sizeof arena};
  return m_run_opts(&in, &out, arena, &o);
}
int main(void) {
  BurinHeap heap = {.grow = burin_heap_malloc};
  float data[6] = {1, 2, 3, 4, 5, 6};
  int64_t dims[] = {2, 3, 1}, wrong[] = {2, 4}, negative[] = {-1, 3}, huge[] = {INT64_MAX / 2, 3};
  const BurinItem good[] = {{data, 1, 2, dims}, {data, 1, 2, dims}};
  BurinList rest;
  printf("%d", run(&(BurinList){2, good}, &rest, &heap));
  for (int64_t i = 0; i < rest.count; i++)
    printf(" %d:%d:%g", (int)rest.items[i].dims[0], rest.items[i].rank, ((const float *)rest.items[i].data)[5]);
  const BurinItem bad[] = {{data, 7, 2, dims}, {data, 1, 1, dims}, {data, 1, 3, dims}, {data, 1, 2, wrong}, {data, 1, 2, negative},
                           {data, 1, 2, huge}, {NULL, 1, 2, dims}, {data, 1, 2, NULL}, {data, 1, -1, dims}, {data, 1, 99, dims}, {data, 0, 2, dims}};
  printf(" bad");
  for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) printf(" %d", run(&(BurinList){1, &bad[i]}, &rest, &heap));
  printf(" lists %d %d %d %d", run(&(BurinList){-1, good}, &rest, &heap), run(&(BurinList){-7, good}, &rest, &heap),
         run(&(BurinList){INT64_MAX, good}, &rest, &heap), run(&(BurinList){1, NULL}, &rest, &heap));
  int blocks = 0, last = 0;
  for (int most = 0; most < 3; most++) {
    BurinHeap small = {.grow = little, .user = &blocks};
    blocks = most;
    last = run(&(BurinList){2, good}, &rest, &small);
    if (most == 0) printf(" small %d", last);
    burin_heap_free(&small);
  }
  printf(" enough %d kind %d\n", last, m_info()->input_lists[0].kind);
  burin_heap_free(&heap);
  return 0;
}
"""
SAID = "0 2:2:6 2:2:12 bad" + 11 * " 5" + " lists 5 5 5 5 small 8 enough 0 kind 1\n"


def test_c(folder):
    onnx.save(edited(), folder / "m.onnx")
    (folder / "host.c").write_text(HOST)
    for flags, part in ((["--emit=static,header"], "m.a"), (["--target=c", "--emit=c,header"], "m.c")):
        commands = [[burin.compiler(), "compile", "m.onnx", *flags, "--name=m", "-o", "m"],
                    ["gcc", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-g", "host.c", part, "-o", "host"], ["./host"]]
        for command in commands:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                break
        check(f"C with {part}", done.stdout == SAID, done.stdout + done.stderr)


def test_program(folder):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for name, v in (("a", x), ("b", x[:1] + 9), ("x", x * 3)):
        np.save(folder / f"{name}.npy", v)
    subprocess.run([burin.compiler(), "compile", "m.onnx", "-o", "program"], cwd=folder, check=True, capture_output=True)
    base = ["./program", "--check-memory", "--input", "x=@x.npy", "--input", "zero=0", "--input", "k=1"]
    run = lambda *args: subprocess.run([*base, *args], cwd=folder, capture_output=True, text=True)
    lists = ["--input", "s/0=@a.npy", "--input", "s/1=@b.npy"]
    done = run(*lists, "--output", "twice/1=@out.npy", "--expect", "rest/0=@b.npy")
    check("program", done.returncode == 0 and np.array_equal(np.load(folder / "out.npy"), 6 * x), done.stderr)
    check("program's result", "rest/1: f32[2,3]" in run(*lists).stdout)
    check("program without items", "rest: []" in subprocess.run([*base[:-1], "k=0", "--input", "s=[]"], cwd=folder, capture_output=True, text=True).stdout)
    for name, args, text in (("missing", [], "s/0=@FILE"), ("out of order", ["--input", "s/1=@a.npy"], "out of order"), ("none", ["--input", "s=none"], "s/0=@FILE"),
                             ("a number", ["--input", "s=3"], "s/0=@FILE"), ("no such item", [*lists, "--output", "rest/7=@out.npy"], "rest/7")):
        done = run(*args)
        check(f"program: {name}", done.returncode not in (0, 1 - 2, -11) and text in done.stderr, (done.returncode, done.stderr))


def test_archives(folder):
    """An .npz is a whole sequence, in the order of its numbers or of the file; of burin run, of the interpreter, which takes single items, too,
    and of a program."""
    values = np.random.default_rng(4)
    x = values.random((2, 3), np.float32)
    np.save(folder / "x.npy", x)
    numbered, named = [values.random((k % 4, 3), np.float32) for k in range(12)], [values.random((k, 3), np.float32) for k in (2, 0, 1)]
    np.savez(folder / "numbered.npz", **{f"arr_{k}": numbered[k] for k in (10, 3, *range(3), 11, *range(4, 10))})
    np.savez_compressed(folder / "named.npz", **dict(zip("cab", named)))
    np.savez(folder / "none.npz")
    np.savez(folder / "wide.npz", np.zeros((2, 4), np.float32))
    np.save(folder / "one.npy", named[0])
    for way, number in ((("run", "m.onnx"), ""), (("run", "--interpret", "m.onnx"), "i64="), (("./program", "--check-memory"), "")):
        def run(*args, k=0):
            base = [*([burin.compiler()] if way[0] == "run" else []), *way, *([] if any(a.startswith("x=") for a in args) else ["--input", "x=@x.npy"]), "--input", f"zero={number}0", "--input", f"k={number}{k}"]
            return subprocess.run([*base, *args], cwd=folder, capture_output=True, text=True)
        for name, items, args in (("numbered", numbered, ["s=@numbered.npz"]), ("named", named, ["s=@named.npz"]), ("none", [], ["s=@none.npz"]),
                                  ("empty", [], ["s=[]"]), ("single", named[:1] * 2, ["s/0=@one.npy", "s/1=@one.npy"])):
            want = [*items, x][1:]
            outs = [a for k in range(len(want)) for a in ("--output", f"twice/{k}=@t{k}.npy", "--output", f"rest/{k}=@r{k}.npy")]
            done = run(*(a for i in args for a in ("--input", i)), *outs, "--output", "n=@n.npy", k=len(items))
            right = done.returncode == 0 and int(np.load(folder / "n.npy")) == len(items)
            right = right and all(np.array_equal(np.load(folder / f"t{k}.npy"), 2 * v) and np.array_equal(np.load(folder / f"r{k}.npy"), v) for k, v in enumerate(want))
            check(f"run {way} of {name}", right, done.stderr)
        done = run("--input", "s=@named.npz", "--expect", "rest/0=@r0.npy", "--expect", "rest/1=@x.npy")
        check(f"run {way}: expected", done.returncode == 7, (done.returncode, done.stdout, done.stderr))
        for name, args, said in (("wide", ["s=@wide.npz"], "rt_sequence_in" if "--interpret" in way else "the list is none"), ("a tensor", ["s=[]", "x=@named.npz"], "x/0" if way[0] == "run" else "npz"),
                                 ("not there", ["s=@never.npz"], "never.npz"), ("no archive", ["s=@m.npz"], "cannot read the .npz"), ("order", ["s/1=@x.npy"], "out of order"),
                                 ("missing", [], "s/0=@FILE"), ("a number", [f"s={number}3"], "s/0=@FILE")):
            (folder / "m.npz").write_bytes(b"no archive")
            done = run(*(a for i in args for a in ("--input", i)))
            check(f"run {way}: {name}", done.returncode not in (0, -11) and said in done.stderr, (done.returncode, done.stderr))
    done = subprocess.run([burin.compiler(), "run", "m.onnx", "--input", "s=@named.npz", "--input", "x=@x.npy", "--input", "zero=0", "--input", "k=1",
                           "--output", "twice=@t.npy"], cwd=folder, capture_output=True, text=True)
    check("a list needs an item's number", done.returncode and "twice/0" in done.stderr, done.stderr)


def test_all():
    rng, values = random.Random(3), np.random.default_rng(3)
    before, burin._CHECK_MEMORY = burin._CHECK_MEMORY, True
    test_python(rng, values)
    test_unranked()
    test_text_items()
    test_strings()
    test_optionals()
    test_maps(rng)
    burin._CHECK_MEMORY = before
    with tempfile.TemporaryDirectory(prefix="burin-") as name:
        test_c(Path(name))
        test_program(Path(name))
        test_archives(Path(name))
