"""Gradients of whole networks, for each of their parameters, against what PyTorch computed in double
(tests/learn/make_networks.py).

    run_networks.py [BURIN]"""
import glob
import os
import sys

import numpy as np
import onnx

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "support"), os.path.join(HERE, "..", "..", "python")]
import part  # noqa: E402

NEAR = 1e-7  # relative to the largest element; Resize has weights of f32


def check(path, burin):
    stored = np.load(path.replace(".onnx", ".npz"))
    model = onnx.load(path)
    initializers = {t.name for t in model.graph.initializer}
    names = [k[5:] for k in stored.files if k.startswith("grad/")]
    absent = [n for n in names if n not in initializers]
    assert not absent, f"no initializers {absent}"
    compiled = burin.compile(path, flags=[f"--gradient=loss:{','.join(names)}"])
    results = dict(zip([t.name for t in compiled.outputs], compiled.run({"x": stored["x"]})))
    worst, where = abs(float(results["loss"]) - float(stored["loss"])), "loss"
    for name in names:
        got, want = results[f"{name}_grad"], stored[f"grad/{name}"]
        assert got.shape == want.shape, f"{name}: {got.shape}, not {want.shape}"
        error = float(np.max(np.abs(got - want)) / max(float(np.max(np.abs(want))), 1e-3))
        if not error <= worst:
            worst, where = error, name
    assert worst <= NEAR, f"{where}: relative error {worst:.3g}"
    return worst, len(names)


def main():
    if len(sys.argv) > 1:
        os.environ["BURIN"] = sys.argv[1]
    import burin
    for path in sorted(glob.glob(os.path.join(HERE, "networks", "*.onnx"))):
        name = os.path.basename(path)[:-5]
        if result := part.attempt(name, check, path, burin):
            print("{}: {} parameters, worst relative error {:.2g}".format(name, result[1], result[0]))
    return part.finish()


if __name__ == "__main__":
    sys.exit(main())
