#!/usr/bin/env python3
"""QDQ models of float models by ONNX Runtime's quantizer: quantize.py OUTDIR MODEL.onnx…

Static, per channel, activations u8, weights i8, calibrated with seeded random inputs: writes OUTDIR/NAME_qdq.onnx. Needs
onnx, onnxruntime and sympy. For benchmarks: what the models compute makes no sense.
"""
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

SETS = 4


def inputs(path):
    model = onnx.load(path)
    held = {i.name for i in model.graph.initializer}
    for seed in range(SETS):
        rng = np.random.default_rng(seed)
        yield {i.name: rng.random([d.dim_value or 1 for d in i.type.tensor_type.shape.dim])
                          .astype(tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type))
               for i in model.graph.input if i.name not in held}


class Sets(CalibrationDataReader):
    """Inputs by name, one set after the other."""

    def __init__(self, sets):
        self.sets = iter(sets)

    def get_next(self):
        return next(self.sets, None)


def quantize(path, to):
    with tempfile.TemporaryDirectory(prefix="burin-") as folder:
        prepared, result = f"{folder}/prepared.onnx", f"{folder}/quantized.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, result, Sets(inputs(path)), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        to.write_bytes(Path(result).read_bytes())


if __name__ == "__main__":
    for name in sys.argv[2:]:
        quantize(name, Path(sys.argv[1]) / f"{Path(name).stem}_qdq.onnx")
