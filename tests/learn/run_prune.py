"""burin prune: with the weights that read removed channels set to 0, the original computes what the pruned model does.
Both are run by ONNX Runtime, the pruned one by burin, too. Networks with random weights and sizes, in which channels are
tied in many ways (prune_nets.py), and shared models.

    run_prune.py [BURIN [NAME…]]"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "..", "python"))
import prune_nets  # noqa: E402

onnxruntime.set_default_logger_severity(3)  # no warnings about weights that nobody reads
NEAR = 2e-4  # relative to the largest element
SEEDS = (1, 2, 3)


def prune(burin, source, *flags):
    """The pruned model, and the report."""
    folder = os.path.dirname(source)
    out, report = os.path.join(folder, "pruned.onnx"), os.path.join(folder, "report.json")
    done = subprocess.run([burin, "prune", source, "-o", out, f"--report={report}", "-q", *flags],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr.strip()
    with open(report) as f:
        return out, json.load(f)


def silenced(model, rounds):
    """The original, where products read nothing of what was removed; each reader has weights of its own."""
    named = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
    nodes = {n.name: n for n in model.graph.node}
    assert len(rounds) == 1, "indices are those of the original in the first round only"
    for c in rounds[0]["constants"]:
        if not c["summed"]:
            continue
        own = f"{c['node']}/{c['initializer']}"
        w = named.setdefault(own, named[c["initializer"]].copy())
        w[tuple([slice(None)] * c["axis"] + [c["removed"]])] = 0
        node = nodes[c["node"]]
        for k, name in enumerate(node.input):
            if name == c["initializer"]:
                node.input[k] = own
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in named.items())
    return model


def run_reference(model, feeds):
    data = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)


def difference(got, want):
    worst = 0.0
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape, f"shape {g.shape}, not {w.shape}"
        worst = max(worst, float(np.max(np.abs(g - w), initial=0) / max(float(np.max(np.abs(w), initial=0)), 1e-6)))
    return worst


def check_net(make, seed, folder, burin, module):
    model, feeds = prune_nets.build(make, seed)
    source = os.path.join(folder, "model.onnx")
    onnx.save(model, source)
    out, report = prune(burin, source, "--rounds=1", "--channels=0.5")
    assert report["rounds"], "no channels were removed"
    left = report["rounds"][0]["channels"] / report["original"]["channels"]
    assert left <= 0.75, f"{left:.2f} of the channels are left"
    want = run_reference(silenced(model, report["rounds"]), feeds)
    got = run_reference(out, feeds)
    own = module.compile(out).run(feeds)
    for what, values in (("ONNX Runtime", got), ("burin", own)):
        worst = difference(values, want)
        assert worst <= NEAR, f"{what}: relative difference {worst:.3g}"
    return left, report


def main():
    if len(sys.argv) > 1:
        os.environ["BURIN"] = sys.argv[1]
    burin = os.environ.get("BURIN", os.path.join(HERE, "..", "..", "build", "burin"))
    import burin as module
    passed = failed = skipped = 0
    for make in prune_nets.NETS:
        if len(sys.argv) > 2 and make.__name__ not in sys.argv[2:]:
            continue
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    left, report = check_net(make, seed, folder, burin, module)
                    passed += 1
                    if "-v" in sys.argv:
                        print(make.__name__, seed, f"{left:.2f}", [(l["name"], l["channels"], l["left"], l["reason"]) for l in report["layers"]])
                except Exception as e:  # noqa: BLE001
                    failed += 1
                    print(f"FAILED {make.__name__} {seed}: {str(e).strip()[-500:]}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
