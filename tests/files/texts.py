"""Texts of graphs are the model: a fixed point, the same code, the weights in the text or beside it."""
from pathlib import Path

import numpy as np
from onnx import helper

from tests.files.fixture import conv_model, make_model
from tests.support.part import burin, check


def text_models(d):
    """Loops that count, indices that are data, an If whose branches need sizes, convolutions under an elementwise chain."""
    rng = np.random.default_rng(2)
    f32 = lambda *s: rng.normal(size=s).astype(np.float32)  # noqa: E731
    make_model(d / "lstm.onnx", [helper.make_node("Gather", ["table", "i"], ["e"]),
                                 helper.make_node("LSTM", ["e", "W", "R"], ["y"], hidden_size=8, direction="bidirectional")],
               [("i", 7, ["n", "b"])], [("y", 1, ["n", 2, "b", 8])], [("table", f32(20, 5)), ("W", f32(2, 32, 5)), ("R", f32(2, 32, 8))])
    branch = [helper.make_graph([helper.make_node("Reshape", ["x", f"to{k}"], [f"r{k}"])], f"b{k}", [],
                                [helper.make_tensor_value_info(f"r{k}", 1, None)]) for k in (3, 4)]
    make_model(d / "if.onnx", [helper.make_node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1])],
               [("x", 1, ["n"]), ("c", 9, [])], [("y", 1, None)], [("to3", np.array([-1, 3])), ("to4", np.array([-1, 4]))])
    make_model(d / "chain.onnx", [helper.make_node("Conv", ["x", "W"], ["a"], pads=[1, 1, 1, 1]), helper.make_node("Sigmoid", ["a"], ["b"]),
                                  helper.make_node("Mul", ["a", "b"], ["c"]), helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["e"]),
                                  helper.make_node("MaxPool", ["e"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
               [("x", 1, ["n", 3, 12, 12])], [("y", 1, ["n", 6, 6, 6])],
               [("W", f32(6, 3, 3, 3)), ("scale", f32(6)), ("bias", f32(6)), ("mean", f32(6)), ("var", f32(6) ** 2)])
    return [d / "lstm.onnx", d / "if.onnx", d / "chain.onnx"]


def test_text_is_model(d):
    """What is compiled from a text is what is compiled from its model, and its text is itself."""
    for model in text_models(d):
        text, again = d / f"{model.stem}.ir", d / "again.ir"
        a, b = burin(model, "-q", "--emit=graph", "-o", text), burin(text, "-q", "--emit=graph", "-o", again)
        check(f"text of {model.stem}: a fixed point", a.returncode == b.returncode == 0 and text.read_text() == again.read_text(), a.stderr + b.stderr)
        programs = []
        for source in (model, text):
            r = burin(source, "-q", "--emit=obj", "--name=m", "-o", d / "from.o")
            programs.append((r.returncode, (d / "from.o").read_bytes() if r.returncode == 0 else r.stderr))
        check(f"text of {model.stem}: the same code", programs[0] == programs[1] and programs[0][0] == 0, str(programs)[:200])


def test_graph_text(d):
    for channels, beside in ((6, False), (96, True)):  # weights in the text, and in a file beside it
        model, text = d / f"conv{channels}.onnx", d / f"conv{channels}.txt"
        conv_model(model, channels)
        r = burin(model, "-q", "--emit=graph", "-o", text)
        weights = Path(f"{text}.weights")
        check("text: written", r.returncode == 0 and weights.exists() == beside, r.stderr)
        a = burin(model, "-q", "--name=m", "-o", d / "from_model")
        b = burin(text, "-q", "--name=m", "-o", d / "from_text")
        same = (d / "from_model").read_bytes() == (d / "from_text").read_bytes()
        check("text: the same program", a.returncode == 0 and b.returncode == 0 and same, b.stderr)
        check("text: a fixed point", burin(text, "-q", "--emit=graph", "-o", d / "again.txt").returncode == 0 and
              (d / "again.txt").read_text().replace("again", f"conv{channels}") == text.read_text())
        r = burin(text, "--dim", "n=1", "-o", d / "never")
        check("text: --dim", r.returncode == 2 and "--dim" in r.stderr, r.stderr)
    data = weights.read_bytes()
    for damage, status, what in ((data[:-1], 1, "bytes"), (data[:-1] + bytes([data[-1] ^ 1]), 1, "hash"), (None, 3, "open")):
        weights.unlink()
        if damage is not None:
            weights.write_bytes(damage)
        for command in ([text, "-o", d / "never"], ["run", text], ["run", "--interpret", text, "--input", "x=1x3x9x9xf32=1"], ["inspect", text]):
            r = burin(*command)
            check(f"text: weights damaged ({what})", r.returncode == status and what in r.stderr and not (d / "never").exists(), f"{r.returncode} {r.stderr}")
    elsewhere = text.read_text().replace(f'weights "{weights.name}"', 'weights "../x"')
    (d / "elsewhere.ir").write_text(elsewhere)
    r = burin(d / "elsewhere.ir", "-o", d / "never")
    check("text: weights elsewhere", r.returncode == 3, f"{r.returncode} {r.stderr}")
    printed = burin(model, "--emit=graph", "-q").stdout
    check("text: printed without data says so", printed.endswith("data none\n"), printed[-60:])
    bare = "\n".join(line for line in printed.splitlines() if line != "data none")
    for name, content, word in (("none.ir", printed, "data none"), ("bare.ir", bare, "has no data")):
        (d / name).write_text(content)
        for command in ([d / name, "-o", d / "never"], ["run", d / name], ["run", "--interpret", d / name, "--input", "x=1x3x9x9xf32=1"], ["diff", d / name]):
            r = burin(*command)
            check(f"text: {name} is no program", r.returncode == 1 and word in r.stderr and not (d / "never").exists(), f"{r.returncode} {r.stderr}")
    (d / "big.ir").write_text('graph @main {\n  %0 : f32[4] = input "x"\n  %1 = Flatten %0 {axis=99999999999999999999}\n  output %1 "y"\n}\n')
    r = burin(d / "big.ir", "--emit=graph")
    check("text: an integer beyond 64 bits", r.returncode == 1 and "line 3, column" in r.stderr and "expected an integer" in r.stderr, r.stderr)
    r = burin(d / "none.ir", "--passes=cse", "--emit=graph")
    check("text: passes on a text without data", r.returncode == 0 and "data none" in r.stdout, r.stderr)
    plan = "fuse,choose,choose_tiles"
    for passes, missing in (("infer,expand", "lower"), ("lower,expand_math", "choose_tiles"), (f"{plan},lower,expand_math", "plan_memory"),
                            (f"{plan},lower,expand_math,plan_memory,rotate_states", "plan_memory"), (f"{plan},lower,plan_memory,expand_math", None)):
        r = burin(model, f"--passes={passes}", "-q", "-o", d / "by_hand")
        said = f"add {missing} before" in r.stderr if missing else True
        check(f"passes for code: {passes}", r.returncode == (2 if missing else 0) and said and (d / "by_hand").exists() == (not missing), f"{r.returncode} {r.stderr}")
    r = burin(d / "none.ir", "-q", "--emit=graph", "-o", d / "none_again.ir")
    check("text: and it stays without", r.returncode == 0 and "data none" in (d / "none_again.ir").read_text(), r.stderr)
