"""Texts of programs (loop IR): compiled, interpreted and run; each file of --ir-dir is a text from which the compiler goes on."""
from pathlib import Path

import numpy as np

from tests.files.texts import text_models
from tests.support.part import burin, check

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "ir.md"


def example():
    """The program that docs/ir.md shows as one written by hand."""
    return next(block for block in GUIDE.read_text().split("```") if "kernel add" in block).strip() + "\n"


def test_loop_text(d):
    """What a text of a program says is compiled, interpreted and run; what is wrong is said with its place."""
    text, source = d / "add.loop", example()
    text.write_text(source)
    np.save(d / "x_add.npy", np.array([[1, 2], [3, 4]], np.float32))
    np.save(d / "y_add.npy", np.array([[2, 3], [4, 5]], np.float32))
    x, want = f"x=@{d}/x_add.npy", f"y=@{d}/y_add.npy"
    for command in (["run", text], ["run", "--interpret", text]):
        r = burin(*command, "--input", x, "--expect", want, "--rtol=0", "--atol=0")
        check(f"loop text: {command[1]}", r.returncode == 0, r.stderr)
    for kind in ("asm", "llvm", "obj", "header", "c", "shared", "loop", "exe"):
        r = burin(text, "-q", f"--emit={kind}", "-o", d / f"from_add.{kind}")
        check(f"loop text: {kind}", r.returncode == 0 and (d / f"from_add.{kind}").stat().st_size > 0, r.stderr)
    r = burin(d / "from_add.loop", "-q", "--emit=obj", "--name=m", "-o", d / "add1.o")
    (d / "unnamed").write_text((d / "from_add.loop").read_text())  # known by its first word
    r2 = burin(d / "unnamed", "-q", "--emit=obj", "--name=m", "-o", d / "add2.o")
    check("loop text: by content", r.returncode == r2.returncode == 0 and (d / "add1.o").read_bytes() == (d / "add2.o").read_bytes(), r2.stderr)
    r = burin(text, "-q", "--passes=simplify_loops,expand_math", "--emit=loop")
    check("loop text: named passes", r.returncode == 0 and "exp(" not in r.stdout and " at (" not in r.stdout, r.stderr)
    faults = (("f32[$n*2] = output 0", "f32[$n*2] = output", 1, "line 6, column 3: expected an integer"),
              ("f32[$n*2] = output 0", "f32[$n*2] = output 99999999999999999999", 1, "an integer"),
              ("b2[i*2 + j] =", "b7[i*2 + j] =", 1, "line 14, column"),
              ("weight {10, 20}", "weight {10}", 1, "type or size"), ('inputs b0 : f32[$n,2] "x"', "inputs b0", 1, "have types"),
              ("weight {10, 20}", "weight #3", 1, "constant #3 has no data"), ("outputs b2", "outputs b0", 1, "is not output 0"),
              ("b0[i*2 + j] +", "b0[k] +", 1, "unknown name 'k'"), ("call add(b0, b1, b2)", "call add(b0, b1)", 1, "lacks arguments"),
              ("call add(b0, b1, b2)", "call add(b0, b1, b1)", 1, "which is constant"), ("module {", "todo fuse\nmodule {", 2, "works on graphs"),
              ("steps {", "steps {\n    call none()", 1, "there is no kernel none"))
    for old, new, status, what in faults:
        assert old in source, old
        (d / "bad.loop").write_text(source.replace(old, new, 1))
        r = burin(d / "bad.loop", "-o", d / "never")
        check(f"loop text: {what}", r.returncode == status and what in r.stderr and not (d / "never").exists(), f"{r.returncode} {r.stderr}")
    for command in (["inspect", text], [text, "--emit=graph"], [text, "--tune", d / "t"], [text, "--dim", "n=1"]):
        r = burin(*command)
        check(f"loop text: {command}", r.returncode == 2 and "text" in r.stderr, f"{r.returncode} {r.stderr}")


def test_ir_dir(d):
    """Each file of --ir-dir is a text from which the compiler goes on to the same code."""
    for model in text_models(d):
        folder = d / f"{model.stem}_irs"
        r = burin(model, "-q", "--emit=obj", "--name=m", "--ir-dir", folder, "-o", d / "direct.o")
        files = sorted(folder.glob("*.ir")) + sorted(folder.glob("*.loop"))
        check(f"ir-dir of {model.stem}", r.returncode == 0 and len(files) > 30, r.stderr)
        for f in files:
            r = burin(f, "-q", "--emit=obj", "--name=m", "-o", d / "again.o")
            ordered = model.stem != "lstm" or f.suffix == ".ir"  # a new pool orders the terms of sums by age in the text
            same = r.returncode == 0 and (not ordered or (d / "again.o").read_bytes() == (d / "direct.o").read_bytes())
            check(f"ir-dir: {model.stem} from {f.name}", same, r.stderr or "another object")
