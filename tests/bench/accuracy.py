#!/usr/bin/env python3
"""What lower precision costs: accuracy.py [--flags=…] [--tool] [NAME…], trained models of the shared folder on real data.

A part of the data is for calibration, the other for measuring. Each model is compiled as it is and with the flags (default
--quantize=int8 --calibrate=…); the second also as ONNX, which ONNX Runtime runs. --tool: beside it what ONNX Runtime's
quantizer makes with its defaults of the same samples. Needs numpy, onnx, onnxruntime; Pillow for ImageNet; --tool sympy. Asserts nothing.
"""
import argparse
import csv
import gzip
import os
import re
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import onnxruntime

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]
import burin  # noqa: E402
from tests.models.run_models import SHARED  # noqa: E402
from tests.support.error import sqnr  # noqa: E402

DATA = SHARED / "data"
RNG_SEED = 0


# ---- data: name -> (model's name, samples by input, labels or None, how many are for calibration, score) ----

def top1(outputs, truth, labels):
    """Percent of labels that are the largest output."""
    return 100 * float((flat(outputs).argmax(1) == labels).mean())


def dice(axis):
    """Mean Dice coefficient of the classes along `axis`, in percent, with what the float model says as truth."""
    def score(outputs, truth, labels):
        got, want = np.argmax(outputs, axis), np.argmax(truth, axis)
        classes = [c for c in range(truth.shape[axis]) if (want == c).any()]
        return 100 * float(np.mean([2 * ((got == c) & (want == c)).sum() / ((got == c).sum() + (want == c).sum()) for c in classes]))
    return score


def same_answer(outputs, truth, labels):
    """Percent of samples in which the largest output, or the only one's side of 0.5, is the float model's."""
    got, want = flat(outputs), flat(truth)
    same = (got > 0.5) == (want > 0.5) if got.shape[1] == 1 else got.argmax(1) == want.argmax(1)
    return 100 * float(same.mean())


def same_detections(outputs, truth, labels):
    """YOLOX: 2 |A and B| / (|A| + |B|) in percent, of the pairs of place and class with a score above 0.3."""
    got, want = [(o[..., 4:5] * o[..., 5:] > 0.3) for o in (outputs, truth)]
    return 200 * float((got & want).sum() / max(1, got.sum() + want.sum()))


def flat(array):
    return array.reshape(len(array), -1)


def mnist(shape, scale, smaller=False):
    data = np.load(DATA / "mnist.npz")
    x = data["images"].astype(np.float32) * scale
    if smaller:
        x = x.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    return {"x": x.reshape(-1, *shape)}, data["labels"], 500, top1


def cifar10():
    data = np.load(DATA / "cifar10.npz")
    return {"x": np.float32(1 / 255) * data["images"].transpose(0, 3, 1, 2)}, data["labels"], 200, top1


def cifar10_vit():
    data = np.load(DATA / "cifar10_vit_pgd_2_3_16.npz")
    return {"x": data["x"]}, data["y"], 30, top1


def imagenet():
    from PIL import Image
    x, labels = [], []
    for row in csv.DictReader(open(DATA / "imagenet/labels.csv")):
        pixels = np.asarray(Image.open(DATA / "imagenet" / row["file"]).convert("RGB"), np.float32)
        x.append((pixels[:, :, ::-1] - np.float32([104, 117, 123])).transpose(2, 0, 1))
        labels.append(int(row["class_index"]))
    order = np.random.default_rng(RNG_SEED).permutation(len(x))
    return {"x": np.stack(x)[order]}, np.array(labels)[order], 100, top1


def pictures():
    """Photographs of faces, animals and streets, and their mirror images, as YOLOX takes them: 0 to 255, blue first."""
    from PIL import Image
    x = []
    for path in sorted((DATA / "images").iterdir()):
        if path.suffix in (".jpg", ".jpeg", ".png"):
            picture = Image.open(path).convert("RGB")
            for crop in range(2):  # all of it, and its middle
                w, h = picture.size
                part = picture.crop((w // 5, h // 5, w - w // 5, h - h // 5)) if crop else picture
                pixels = np.asarray(part.resize((416, 416), Image.BILINEAR), np.float32)[:, :, ::-1].transpose(2, 0, 1)
                x += [pixels, pixels[:, :, ::-1]]
    order = np.random.default_rng(RNG_SEED).permutation(len(x))
    return {"x": np.ascontiguousarray(np.stack(x)[order])}, None, len(x) // 2, same_detections


def brain():
    """The T1 volume of the data folder, 0 to 1; 352 bytes of NIfTI header."""
    volume = np.frombuffer(gzip.open(DATA / "mri/t1_crop.nii.gz").read()[352:], np.uint8).reshape((256,) * 3, order="F")
    return np.clip(volume / np.quantile(volume, 0.98), 0, 1).astype(np.float32)


def brain_slices():
    volume = brain()
    at = np.random.default_rng(RNG_SEED).permutation(np.arange(60, 200, 7))
    line = np.arange(256, dtype=np.float32) / 255
    places = [np.stack(np.broadcast_arrays(np.float32(k / 256), line[:, None], line), -1) for k in at]
    return {"image": np.stack([volume[k][..., None] for k in at]), "place": np.stack(places)}, None, 8, dice(-1)


def brain_crops():
    volume, rng = brain(), np.random.default_rng(RNG_SEED)
    corners = rng.integers(50, 150, (24, 3))
    return {"x": np.stack([volume[a:a + 48, b:b + 48, c:c + 48][None] for a, b, c in corners])}, None, 8, dice(1)


def speech():
    """Samples at 16 kHz of all recordings, as float32 numbers of 16 bits."""
    for path in sorted((DATA / "audio").glob("*.wav")):
        with wave.open(str(path)) as f:
            if f.getframerate() == 16000 and f.getsampwidth() == 2:
                yield np.frombuffer(f.readframes(f.getnframes()), "<i2").reshape(-1, f.getnchannels())[:, 0].astype(np.float32)


def run_onnx(path, samples):
    """First outputs, sample by sample."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options)
    names = [i.name for i in session.get_inputs()]
    count = len(next(iter(samples.values())))
    return np.concatenate([session.run(None, {n: x[k:k + 1] for n, x in zip(names, samples.values())})[0] for k in range(count)])


def embeddings():
    """Windows of 76 frames of mel spectrograms, every 8 frames, of each recording (openWakeWord's front end)."""
    for audio in speech():
        mel = run_onnx(real("oww_melspectrogram"), {"x": audio[None]})[0, 0] / 10 + 2
        if len(mel) > 76:
            yield np.stack([mel[k:k + 76, :, None] for k in range(0, len(mel) - 76, 8)])


def embedding_windows():
    x = np.concatenate(list(embeddings()))
    return {"x": x[np.random.default_rng(RNG_SEED).permutation(len(x))[:400]]}, None, 100, same_answer


def wake_word():
    x = []
    for windows in embeddings():
        e = run_onnx(real("oww_embedding"), {"x": windows}).reshape(-1, 96)
        x += [e[k:k + 16] for k in range(0, len(e) - 16)]
    return {"x": np.stack(x)[np.random.default_rng(RNG_SEED).permutation(len(x))]}, None, len(x) // 4, same_answer


def keyword():
    """Mel spectrograms of the recordings, 49 frames of 40 bands made of the 32 that the wake word's front end has, in the range of
    this model's features: no labelled words are at hand, so what counts is the float model's answer."""
    x = []
    for audio in speech():
        mel = run_onnx(real("oww_melspectrogram"), {"x": audio[None]})[0, 0]
        bands = np.stack([np.interp(np.linspace(0, 31, 40), np.arange(32), frame) for frame in mel]).astype(np.float32)
        bands = (bands - bands.min()) / (bands.max() - bands.min()) * np.float32(4.9)
        x += [bands[k:k + 49].reshape(-1) for k in range(0, len(bands) - 49, 10)]
    return {"x": np.stack(x)[np.random.default_rng(RNG_SEED).permutation(len(x))]}, None, len(x) // 4, same_answer


CASES = {
    "mnist_cnn_cntk": lambda: mnist((1, 28, 28), np.float32(1)),
    "mnist_cnn14_atmega": lambda: mnist((1, 14, 14), np.float32(1 / 255), smaller=True),
    "mnist_bn_dense_onnx2c": lambda: mnist((784,), np.float32(1 / 255)),
    "cifar10_cnn_winml": cifar10,
    "cifar10_vit_pgd_2_3_16": cifar10_vit,
    "squeezenet1.0_fp32": imagenet,
    "yolox_nano": pictures,
    "brain_unet_axial": brain_slices,
    "meshnet3d_gwm": brain_crops,
    "oww_embedding": embedding_windows,
    "oww_alexa": wake_word,
    "oww_hey_mycroft": wake_word,
    "micro_kws_fp32": keyword,
}


def real(name):
    return SHARED / "real" / name / "model.onnx"


# ---- measuring -----------------------------------------------------------------------------------------

def run_burin(path, samples, flags=()):
    model = burin.compile(path, flags=["--freeze-initializers", *flags])
    names, count = [i.name for i in model.inputs], len(next(iter(samples.values())))
    return np.concatenate([model.run({n: x[k:k + 1] for n, x in zip(names, samples.values())})[0] for k in range(count)])


def program(path, to, flags=()):
    subprocess.run([burin.compiler(), str(path), "-o", to, "-q", "--freeze-initializers", *flags], check=True)
    return os.path.getsize(to)


def times(programs, samples, folder, rounds=5):
    """The least time of each with the first sample, in turns."""
    inputs = []
    for k, x in enumerate(samples.values()):
        np.save(f"{folder}/in_{k}.npy", np.ascontiguousarray(x[:1]))
        inputs += ["--input", f"{k}=@{folder}/in_{k}.npy"]
    least = [np.inf] * len(programs)
    for _ in range(rounds):
        for k, p in enumerate(programs):
            runs = 20 if least[k] > 5 else 200
            out = subprocess.run([p, f"--bench={runs}", "--threads", "1", *inputs], capture_output=True, text=True, check=True).stdout
            least[k] = min(least[k], float(re.search(r"min ([0-9.]+)", out)[1]))
    return least


def by_tool(path, samples, to):
    """The file that ONNX Runtime's quantizer makes, or what it said."""
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from tests.bench.quantize import Sets
    names = [i.name for i in onnxruntime.InferenceSession(str(path)).get_inputs()]
    sets = ({n: x[k:k + 1] for n, x in zip(names, samples.values())} for k in range(len(next(iter(samples.values())))))
    try:
        quant_pre_process(str(path), to + ".prepared", skip_symbolic_shape=True)
        prepared = to + ".prepared"
    except Exception:
        prepared = str(path)
    quantize_static(prepared, to, Sets(sets))


def one(name, args, folder):
    samples, labels, calibration, score = CASES[name]()
    path, made = real(name), f"{folder}/{name}.onnx"
    names = [i.name for i in onnxruntime.InferenceSession(str(path)).get_inputs()]
    # The model's own names, without what a file name in an .npz can't hold.
    arrays = {n if "/" not in n else str(k): x[:calibration] for k, (n, x) in enumerate(zip(names, samples.values()))}
    if labels is not None:
        arrays["y"] = labels[:calibration].astype(np.int64)
    np.savez(f"{folder}/{name}.npz", **arrays)
    test = {n: x[calibration:] for n, x in samples.items()}
    truth_labels = None if labels is None else labels[calibration:]
    flags = args.flags.split() + [f"--calibrate={folder}/{name}.npz"] + (["--labels=y"] if labels is not None and not args.no_labels else [])
    flags += args.more.split()
    start = time.perf_counter()
    done = subprocess.run([burin.compiler(), str(path), "-o", made, "--emit=onnx", "--freeze-initializers", *flags], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        print(f"{name}: {done.stderr.strip()}", flush=True)
        return
    if args.report:
        print(done.stderr)
    truth = run_onnx(path, test)
    low, theirs = run_burin(made, test), run_onnx(made, test)
    sizes = [program(path, f"{folder}/float"), program(made, f"{folder}/low")]
    least = times([f"{folder}/float", f"{folder}/low"], test, folder)
    tool = "-"
    if args.tool:
        try:
            by_tool(path, {n: x[:calibration] for n, x in samples.items()}, f"{folder}/tool.onnx")
            outputs = run_onnx(f"{folder}/tool.onnx", test)
            tool = f"{score(outputs, truth, truth_labels):.2f} ({sqnr([outputs], [truth]):.1f} dB)"
        except Exception as e:
            tool = f"fails: {str(e).splitlines()[0][:60]}"
    layers = re.search(r"layers\s+(\d+ of \d+)", done.stderr)
    print(f"{name:23} {score(truth, truth, truth_labels):7.2f} {score(low, truth, truth_labels):7.2f} {score(theirs, truth, truth_labels):7.2f} "
          f"{sqnr([low], [truth]):6.1f} {layers[1] if layers else '-':>10} {os.path.getsize(made) / os.path.getsize(path):6.3f} {sizes[1] / sizes[0]:6.3f} "
          f"{least[0]:9.4f} {least[1]:9.4f} {least[0] / least[1]:6.2f} {seconds:6.1f}  {tool}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--flags", default="--quantize=int8", help="how precision is lowered (default --quantize=int8)")
    parser.add_argument("--more", default="", help="more flags of the compiler")
    parser.add_argument("--no-labels", action="store_true", help="the compiler gets samples only")
    parser.add_argument("--tool", action="store_true", help="ONNX Runtime's quantizer, too")
    parser.add_argument("--report", action="store_true", help="what the compiler reports, too")
    args = parser.parse_args()
    if not SHARED.exists():
        sys.exit("accuracy.py: the shared models are not here")
    print(f"{'model':23} {'float':>7} {'burin':>7} {'in ORT':>7} {'dB':>6} {'layers':>10} {'file':>6} {'prog':>6} {'float ms':>9} {'ms':>9} {'faster':>6} {'s':>6}  tool")
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        for name in args.names or CASES:
            one(name, args, folder)


if __name__ == "__main__":
    main()
