#!/usr/bin/env python3
"""Part "cross": models for the other targets, as programs, under qemu where needed: the repository's own
(models/own_models.py), and small real ones. run_cross.py --own: only those; --all: every real model on every target (hours)."""
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]
from tests.models import own_models, run_models  # noqa: E402
from tests.support import targets  # noqa: E402

SMALL = ("mnist_cnn_cntk,mnist_cnn14_atmega,cifar10_cnn_winml,micro_kws_fp32,micro_kws_int8_qdq,iris_mlp_winml,"
         "iris_lightgbm_tensor,xgboost_regressor_tree,gnn_gcn_karate,lowlight_sci_240x320,yunet_n_dynamic,oww_alexa,"
         "magika_v1,dtln_1,sentence_boundary_bilstm,ppocr_cls,squeezenet1.0_fp16")
TARGETS = ["x86-64-v2", "x86-64-v3", "aarch64", "cortex-a72", "cortex-a76", "armv7"]
OWN_TARGETS = [*TARGETS, "x86-64-v4", "cortex-a53", "neoverse-n1", "neoverse-n2"]


def run_own():
    """(passed, failed, skipped)"""
    counts = [0, 0, 0]
    print(f"{'model':28} {'target':10} {'compile s':>7} {'run ms':>8} {'error':>9} {'arena':>6}")
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        models = own_models.write_all(folder)
        for target in OWN_TARGETS:
            if why := targets.missing(target):
                print(f"skipped {len(models)} models for {target}: {why}")
                counts[2] += len(models)
                continue
            for path in models:
                row = run_models.run_one(path, target, [], run_models.TOLERANCE, 300)
                run_models.show(path.stem, target, row)
                counts["bad" in row] += 1
    return counts


def main():
    every = "--all" in sys.argv
    own = [0, 0, 0] if every else run_own()
    if "--own" in sys.argv:
        print("{} passed, {} failed, {} skipped".format(*own))
        return own[1] > 0
    arguments = ["--skip-skeletons"] + [a for t in TARGETS for a in ("--target", t)]
    return run_models.main(arguments + (["--timeout", "1800"] if every else ["--only", SMALL]), own)


if __name__ == "__main__":
    sys.exit(main())
