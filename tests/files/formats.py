"""Formats of tensors: pictures, csv, json, npy and raw are read and written, others refused."""
import json
import os

import numpy as np
from onnx import helper

from tests.files.fixture import make_model, no_leftovers
from tests.support.part import burin, check, run


JPEG = bytes.fromhex(  # 8x4, gray, all about 100
    "ffd8ffe000104a46494600010100000100010000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c"
    "0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffc0000b080004000801011100ffc4001400010000"
    "0000000000000000000000000007ffc40014100100000000000000000000000000000000ffda0008010100003f00347fffd9")


# (element type, numbers of --input, what they are; None: refused)
NUMBERS = [(np.int64, "9223372036854775807,-9223372036854775808", [2**63 - 1, -2**63]), (np.int64, "9223372036854775808", None),
           (np.uint64, "18446744073709551615", [2**64 - 1] * 2), (np.uint64, "-1", None), (np.uint8, "255,0", [255, 0]), (np.uint8, "255,256", None),
           (np.int8, "-128,127", [-128, 127]), (np.int8, "-129,0", None), (np.int32, "1e3,-2147483648", [1000, -2**31]), (np.int32, "1e10", None),
           (np.int32, "99999999999999999999999", None), (np.float32, "1e10,1/4", [1e10, 0.25]), (np.int64, "1,2,3", None), (np.int64, "1;2", None)]


def test_numbers(d):
    """Numbers of the command line are exact, and of the input's type."""
    for dtype, text, want in NUMBERS:
        name = np.dtype(dtype).name
        model, program, out = d / f"{name}.onnx", d / f"{name}_numbers", d / "numbers.npy"
        if not program.exists():
            info = [("x", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [2])]
            make_model(model, [helper.make_node("Identity", ["x"], ["y"])], info, [("y", *info[0][1:])])
            burin(model, "-q", "-o", program)
        out.unlink(missing_ok=True)
        r = run(program, "--input", f"x={text}", "--output", f"y=@{out}")
        ok = np.array_equal(np.load(out), np.array(want, dtype)) if out.exists() and want else r.returncode != 0 and "2 values of type" in r.stderr
        check(f"{name} {text}", ok and (want is None) != out.exists(), r.stderr)


def test_formats(d, program):
    model, values = d / "pictures.onnx", d / "values.onnx"
    make_model(model, [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
               [("x", 1, [1, 3, "h", "w"])], [("y", 1, [1, 3, "h", "w"]), ("z", 1, [1, 3, "h", "w"])])
    picture, program2 = d / "gray.jpg", d / "pictures"
    picture.write_bytes(JPEG)
    (d / "gray.dat").write_bytes(JPEG)
    r = burin("run", model, "--input", f"x=@{d}/gray.dat,scale=1/255", "--output", f"y=@{d}/gray.npy")
    got = np.load(d / "gray.npy") if r.returncode == 0 else np.zeros(1)
    check("JPEG is read, whatever its name", got.shape == (1, 3, 4, 8) and abs(got * 255 - 100).max() < 3, r.stderr)
    r = burin("run", model, "--input", f"x=@{d}/gray.npy", "--output", f"y=@{d}/y.png", "--output", f"z=@{d}/z.json")
    again = burin("run", model, "--input", f"x=@{d}/y.png,scale=1/255", "--expect", f"y=@{d}/gray.npy", "--atol", "0.002")
    check("PNG is written", r.returncode == 0 and again.returncode == 0, r.stderr + again.stdout + again.stderr)
    z = json.loads((d / "z.json").read_text()) if r.returncode == 0 else {}
    check("JSON is written", z.get("shape") == [1, 3, 4, 8] and np.allclose(np.array(z["data"]), -got), z.get("shape"))
    burin(model, "-q", "-o", program2)
    for name in ("gray.jpg", "gray.dat"):
        r = run(program2, "--input", f"x=@{d}/{name}")
        check(f"program refuses {name}", r.returncode == 3 and "JPEG is not read here" in r.stderr, r.stderr)
    picture.write_bytes(JPEG[: len(JPEG) // 2])
    r = burin("run", model, "--input", f"x=@{picture}")
    check("damaged JPEG", r.returncode == 3 and "JPEG" in r.stderr, f"{r.returncode} {r.stderr}")
    x = np.array([[-2, -1.5, 0], [1 / 3, 1e9, 3]], np.float32)
    np.save(d / "some.npy", x)
    make_model(values, [helper.make_node("Neg", ["x"], ["y"])], [("x", 1, [2, 3])], [("y", 1, [2, 3])])
    for how in ([], ["--interpret"]):
        for ending in ("csv", "json", "npy", "raw"):
            out = d / f"some_out.{ending}"
            r = burin("run", *how, values, "--input", f"x=@{d}/some.npy", "--output", f"y=@{out}")
            read = {"csv": lambda f: np.loadtxt(f, delimiter=",", dtype=np.float32), "npy": np.load,
                    "json": lambda f: np.array(json.loads(f.read_text())["data"], np.float32),
                    "raw": lambda f: np.fromfile(f, np.float32).reshape(2, 3)}[ending]
            check(f"run {how} writes {ending}", r.returncode == 0 and np.array_equal(read(out), -x), r.stderr)
        for ending in ("jpg", "txt", "npz", "xlsx", "onnx"):
            out = d / f"refused.{ending}"
            r = burin("run", *how, values, "--input", f"x=@{d}/some.npy", "--output", f"y=@{out}")
            check(f"run {how} refuses {ending}", r.returncode == 2 and not out.exists(), f"{r.returncode} {r.stderr}")
    for ending in ("csv", "json", "png", "jpg", "txt", "npz"):
        out = d / f"refused.{ending}"
        r = run(program, "--input", f"x=@{d}/x.npy", "--output", f"y=@{out}")
        check(f"program refuses {ending}", r.returncode == 2 and "only" in r.stderr and not out.exists(), f"{r.returncode} {r.stderr}")
    np.save(d / "some.npy", np.array([[1, 2, np.nan], [1, 2, 3]], np.float32))
    for first, second in (("n.npy", "n.json"), ("n.raw", "n.png")):
        make_model(values, [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])], [("x", 1, [2, 3])],
                   [("y", 1, [2, 3]), ("z", 1, [2, 3])])
        r = burin("run", values, "--input", f"x=@{d}/some.npy", "--output", f"y=@{d}/{first}", "--output", f"z=@{d}/{second}")
        check(f"{second} of NaN: none is written", r.returncode == 5 and not (d / first).exists() and not (d / second).exists(), r.stderr)
    burin("run", "-q", values, "--input", f"x=@{d}/x.npy", "--output", f"y=@{d}/o.csv", env={**os.environ, "TMPDIR": str(d)})
    no_leftovers("formats", d)
