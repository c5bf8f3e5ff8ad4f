#!/usr/bin/env python3
"""Part "images": ImageDecoder. Pictures of every kind that is decoded, in sizes around those of blocks, against Pillow, whose JPEG is
libjpeg-turbo: the same bytes. Damaged files end in an error or in pixels, never otherwise; programs of other architectures; bounds."""
import io
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

import burin
from support.part import check, finish, skip
from support.targets import EMULATOR, missing

SIZES = [(1, 1), (2, 3), (8, 8), (15, 17), (33, 20), (7, 65)]
ROOM = 70


def model(form="RGB", room=ROOM):
    node = h.make_node("ImageDecoder", ["x"], ["y"], pixel_format=form)
    graph = h.make_graph([node], "g", [h.make_tensor_value_info("x", T.UINT8, ["n"])], [h.make_tensor_value_info("y", T.UINT8, [room, room, None])])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=10)


def picture(rng, height, width, channels):
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(x / (3 + k) + y / (5 + 2 * k)) + rng.normal(0, 12, (height, width)) for k in range(channels)]
    return np.stack(waves, -1).clip(0, 255).astype(np.uint8)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return np.frombuffer(out.getvalue(), np.uint8)


def files(rng, height, width):
    """(name, bytes)"""
    from PIL import Image
    a = picture(rng, height, width, 4)
    color, grey = Image.fromarray(a[..., :3]), Image.fromarray(a[..., 0])
    for quality in (30, 100):
        for progressive in (False, True):
            for sampling in (0, 1, 2, "4:1:1"):
                more = {"restart_marker_blocks": 3} if sampling == 2 else {}
                yield f"JPEG {quality} {progressive} {sampling}", encoded(color, "JPEG", quality=quality, progressive=progressive, subsampling=sampling, **more)
            yield f"grey JPEG {quality} {progressive}", encoded(grey, "JPEG", quality=quality, progressive=progressive)
    for kind in ("PNG", "BMP", "PPM", "TIFF"):
        yield kind, encoded(color, kind)
        yield f"grey {kind}", encoded(grey, kind)
    yield "PNG with alpha", encoded(Image.fromarray(a), "PNG")
    yield "PNG of a palette", encoded(color.quantize(17), "PNG")
    yield "PNG of bits", encoded(grey.convert("1"), "PNG")


def expected(data, form):
    from PIL import Image
    image = Image.open(io.BytesIO(data.tobytes())).convert("L" if form == "Grayscale" else "RGB")
    a = np.array(image).reshape(image.height, image.width, -1)
    return a[:, :, ::-1] if form == "BGR" else a


def test_pictures(rng):
    seeds = []
    models = {form: burin.compile(model(form)) for form in ("RGB", "BGR", "Grayscale")}
    for size in SIZES:
        for name, data in files(rng, *size):
            seeds.append(data)
            for form, m in models.items():
                got, want = m.run({"x": data})[0], expected(data, form)
                check(f"{name} {size} {form}", np.array_equal(got, want), f"{got.shape}, not {want.shape}")
    return seeds


def stored(rng):
    """Files of the node tests, where there is no Pillow."""
    from onnx.backend.test.loader import load_model_tests
    return [np.asarray(nh.to_array(v) if isinstance(v, onnx.TensorProto) else v) for c in load_model_tests(kind="node") if "image_decoder" in c.name
            for v in c.data_sets[0][0]]


def test_damaged(rng, seeds):
    m = burin.compile(model())
    for k in range(1500):
        data = seeds[rng.integers(len(seeds))].copy()
        front = min(len(data), 700) if rng.random() < 0.7 else len(data)
        data[rng.integers(0, front, 3)] = rng.integers(0, 256, 3)
        data = data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.2 else data
        try:
            y = m.run({"x": data})[0]
            ok = y.ndim == 3 and y.shape[0] <= ROOM and y.shape[1] <= ROOM
        except burin.RunError as e:
            ok = "the picture is damaged" in str(e)
        if not ok:
            check(f"damaged {k}", False)
    check("damaged files", True)


def test_refused(rng, seeds):
    m = burin.compile(model(room=1))
    for name, data in (("larger than its bound", max(seeds, key=len)), ("of another format", np.frombuffer(b"RIFF\0\0\0\0WEBPVP8 ", np.uint8)), ("empty", np.zeros(0, np.uint8))):
        try:
            check(name, False, m.run({"x": data})[0].shape)
        except burin.RunError as e:
            check(name, "ImageDecoder" in str(e) and "the picture is" in str(e), e)
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder) / "m.onnx"
        onnx.save(model(), path)
        done = subprocess.run([burin.compiler(), path, "--emit=c", "-o", f"{folder}/m"], capture_output=True, text=True)
        check("C has no decoder", done.returncode == 5 and "ImageDecoder" in done.stderr, done.stderr)


def test_programs(seeds):
    here = burin.compile(model())
    for target in ("aarch64", "armv7"):
        if why := missing(target):
            skip(target, why)
            continue
        with tempfile.TemporaryDirectory(prefix="burin-") as folder:
            path = Path(folder) / "m.onnx"
            onnx.save(model(), path)
            subprocess.run([burin.compiler(), path, "-q", f"--target={target}", "-o", f"{folder}/m"], check=True)
            for k, data in enumerate(seeds[:20]):
                np.save(f"{folder}/x.npy", data)
                done = subprocess.run([*EMULATOR[target], f"{folder}/m", "--input", f"x=@{folder}/x.npy", "--output", f"y=@{folder}/y.npy"], capture_output=True, text=True)
                ok = done.returncode == 0 and np.array_equal(np.load(f"{folder}/y.npy"), here.run({"x": data})[0])
                check(f"{target} {k}", ok, done.stderr)


def main():
    rng = np.random.default_rng(11)
    try:
        import PIL  # noqa: F401
        seeds = test_pictures(rng)
    except ImportError:
        skip("pictures against Pillow", "it is not installed")
        seeds = [s for s in stored(rng) if bytes(s[:4]) not in (b"RIFF", b"\0\0\0\x0c")]
    test_damaged(rng, seeds)
    test_refused(rng, seeds)
    test_programs(seeds)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
