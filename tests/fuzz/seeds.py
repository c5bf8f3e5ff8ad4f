#!/usr/bin/env python3
"""Writes small models as seeds of fuzz_passes and fuzz_onnx: seeds.py FOLDER [MOST_BYTES].

The models of run_sizes.py and the node tests of the onnx package that are short enough.
"""
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

from tests.memory import run_sizes


def main():
    folder, most = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    folder.mkdir(parents=True, exist_ok=True)
    models = {name: run_sizes.parse(name).SerializeToString() for name in run_sizes.MODELS}
    from onnx.backend.test.loader import load_model_tests
    for case in load_model_tests(kind="node"):
        data = case.model.SerializeToString() if case.model else (Path(case.model_dir) / "model.onnx").read_bytes()
        if len(data) <= most:
            models[case.name] = data
    for name, data in models.items():
        (folder / name).write_bytes(data)
    print(f"{len(models)} seeds")


if __name__ == "__main__":
    main()
