#!/usr/bin/env python3
"""Compiles a model and runs it from Python: recognises the ten digits of ../digits/digits.txt.

    PYTHONPATH=python .venv/bin/python examples/python/digits.py
"""
import time
from pathlib import Path

import numpy as np

import burin

DIGITS = Path(__file__).resolve().parent.parent / "digits"


def load_digits():
    rows = [line[:28] for line in (DIGITS / "digits.txt").read_text().splitlines()]
    gray = np.array([[" .:-=+*#%@".index(c) for c in row] for row in rows], np.float32) * (255 / 9)
    return gray.reshape(10, 1, 1, 28, 28), [rows[i:i + 28] for i in range(0, 280, 28)]


def main():
    model = burin.compile(DIGITS / "mnist.onnx")
    print(f"inputs {model.inputs}, outputs {model.outputs}, arena {model.arena_bytes} bytes")
    images, drawings = load_digits()
    for image, drawing in zip(images, drawings):
        scores = model.run({"Input3": image})[0]
        if scores.argmax() == 6:
            print("\n".join(line for line in drawing if line.strip()))
        print("recognised:", scores.argmax())
    start = time.perf_counter()
    for _ in range(1000):
        model.run({"Input3": images[0]})
    print(f"{(time.perf_counter() - start) * 1e3:.1f} us a call")


if __name__ == "__main__":
    main()
