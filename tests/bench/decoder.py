#!/usr/bin/env python3
"""Tokens per second of a decoder beside ONNX Runtime: decoder.py [--form concat|group] [--level 0|4] [--threads 1] [--tokens 128] [--prompt 64]

A Llama of 100 million parameters with random weights of 4 bits (tests/support/decoder.py). burin keeps its caches in place; ONNX Runtime is
bound to its outputs, GroupQueryAttention to buffers that past and present share. Both generate greedily, by turns, token by token, from what
burin chose, so that all logits can be compared. Level: accuracy_level of MatMulNBits (4: both round activations
to 8 bits, by blocks). The fastest and the median step of each are told, and the median of the ratios of steps next to each other.
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[2] / "python")]

import numpy as np
import onnxruntime as ort

import burin
from tests.support import decoder


class Ort:
    def __init__(self, path, config, form, threads, room):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.shared, self.binding = form == "group", self.session.io_binding()
        self.names = [f"{i}.{x}" for i in range(config.layers) for x in ("key", "value")]
        shape = (1, config.kv_heads, room if self.shared else 0, config.head)
        self.caches = {n: ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for n in self.names}

    def run(self, feeds):
        b = self.binding
        b.clear_binding_inputs()
        b.clear_binding_outputs()
        for name, array in feeds.items():
            b.bind_cpu_input(name, array)
        b.bind_output("logits")
        for n in self.names:
            b.bind_ortvalue_input(f"past_key_values.{n}", self.caches[n])
            if self.shared:
                b.bind_ortvalue_output(f"present.{n}", self.caches[n])
            else:
                b.bind_output(f"present.{n}")
        self.session.run_with_iobinding(b)
        logits, *present = b.get_outputs()
        if not self.shared:
            self.caches = dict(zip(self.names, present))
        return logits.numpy()


def timed(f, *args, **kw):
    start = time.perf_counter()
    result = f(*args, **kw)
    return result, time.perf_counter() - start


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--form", default="concat", choices=["concat", "group"])
    for name, value in (("level", 0), ("threads", 1), ("tokens", 128), ("prompt", 64)):
        p.add_argument(f"--{name}", type=int, default=value)
    o = p.parse_args()
    config, room = decoder.Config(level=o.level), o.prompt + o.tokens
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        path = Path(folder) / "decoder.onnx"
        path.write_bytes(decoder.decoder(config, o.form).SerializeToString())
        model = burin.compile(path, flags=[f"--cache={room}", f"--threads={o.threads}"])
        other = Ort(path, config, o.form, o.threads, room)
    caches, ids, total = model.caches(batch_size=1), np.random.default_rng(0).integers(0, config.vocab, (1, o.prompt)), 0
    times, worst, same = [], 0.0, 0
    for _ in range(o.tokens):
        total += ids.shape[1]
        feeds = {"input_ids": ids, "attention_mask": np.ones((1, total), np.int64)}
        if o.form == "concat":
            feeds["position_ids"] = np.arange(total - ids.shape[1], total)[None]
        (mine, *_), t = timed(model.run, feeds, threads=o.threads, caches=caches)
        theirs, u = timed(other.run, feeds)
        times.append((t, u))
        worst = max(worst, float(np.abs(mine - theirs).max() / np.abs(theirs).max()))
        same += int(mine[0, -1].argmax() == theirs[0, -1].argmax())
        ids = mine[:, -1:].argmax(-1)
    steps = np.array(times[1:]) * 1e3
    print(f"{o.form}, level {o.level}, {o.threads} threads: prompt of {o.prompt}: burin {times[0][0] * 1e3:.0f} ms, ONNX Runtime {times[0][1] * 1e3:.0f} ms")
    for name, t in zip(("burin", "ONNX Runtime"), steps.T):
        print(f"  {name:13} median {np.median(t):6.2f} ms, fastest {t.min():6.2f} ms a token; {1e3 / np.median(t):6.1f} tokens/s")
    print(f"  ratio {np.median(steps[:, 1] / steps[:, 0]):.2f}; same tokens {same} of {o.tokens}; logits differ by at most {worst:.1e} of the largest")


main()
