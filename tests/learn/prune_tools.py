"""What checks of burin prune share."""
import json
import os
import subprocess

import numpy as np
import onnxruntime


def prune(burin, source, *flags):
    """The pruned model, and the report."""
    folder = os.path.dirname(source)
    out, report = os.path.join(folder, "pruned.onnx"), os.path.join(folder, "report.json")
    done = subprocess.run([burin, "prune", source, "-o", out, f"--report={report}", "-q", *flags],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr.strip()
    with open(report) as f:
        return out, json.load(f)


def run_reference(model, feeds):
    data = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)


def difference(got, want):
    worst = 0.0
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape, f"shape {g.shape}, not {w.shape}"
        worst = max(worst, float(np.max(np.abs(g - w), initial=0) / max(float(np.max(np.abs(w), initial=0)), 1e-6)))
    return worst
