#!/usr/bin/env python3
"""Part "cross": small real models for the other targets, as programs, under qemu where needed. run_cross.py --all: every
real model on every target (hours)."""
import sys

import run_models

SMALL = ("mnist_cnn_cntk,mnist_cnn14_atmega,cifar10_cnn_winml,micro_kws_fp32,micro_kws_int8_qdq,iris_mlp_winml,"
         "iris_lightgbm_tensor,xgboost_regressor_tree,gnn_gcn_karate,lowlight_sci_240x320,yunet_n_dynamic,oww_alexa,"
         "magika_v1,dtln_1,sentence_boundary_bilstm,ppocr_cls,squeezenet1.0_fp16")
TARGETS = ["x86-64-v2", "x86-64-v3", "aarch64", "cortex-a72", "armv7"]

if __name__ == "__main__":
    every = "--all" in sys.argv
    arguments = ["--skip-skeletons"] + [a for t in TARGETS for a in ("--target", t)]
    sys.exit(run_models.main(arguments + (["--timeout", "1800"] if every else ["--only", SMALL])))
