#!/usr/bin/env python3
"""Part "files": what the compiler and compiled programs do to files. Outputs follow links, devices and FIFOs, replace no
input, come all or none; nothing is left behind by errors, full disks and signals; what cannot be read or printed is an error
with the documented status; graph text and external weights carry what they need."""
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import helper

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "python")]

from tests.files import formats, interrupted, places, programs, stacks, streams, texts, weights
from tests.files.fixture import make_model
from tests.support.part import BURIN, burin, check, finish


def main():
    with tempfile.TemporaryDirectory(prefix="burin-files-") as folder:
        d = Path(folder)
        model, program = d / "model.onnx", d / "program"
        make_model(model, [helper.make_node("Relu", ["x"], ["y"])], [("x", 1, [2, 3])], [("y", 1, [2, 3])])
        np.save(d / "x.npy", np.array([[-2, -1, 0], [1, 2, 3]], np.float32))
        r = burin(model, "-q", "-o", program)
        check("compile", r.returncode == 0, r.stderr)
        writers = [places.Writer("compiler", [BURIN, str(model), "-q", "--name=m", "-o", "OUT"], ""),
                   places.Writer("program", [str(program), "--input", f"x=@{d}/x.npy", "--output", "y=@OUT"], ".npy")]
        for w in writers:
            place = d / f"by_{w.name}"
            place.mkdir()
            places.test_streams(w, place, places.test_follow(w, place))
            places.test_bad_places(w, place)
        places.test_foreign_link(writers, d)
        places.test_named_temporaries(d, program)
        places.test_small_disk(writers, d)
        streams.test_inputs_kept(d, model, program)
        streams.test_all_or_none(d, model)
        streams.test_reading(d, program)
        streams.test_stdout(d, model, program)
        streams.test_arguments(d, model, program)
        interrupted.test_killed(d)
        interrupted.test_two_at_once(d, model)
        interrupted.test_shrinking(d)
        streams.test_many_tensors(d)
        texts.test_graph_text(d)
        texts.test_text_is_model(d)
        programs.test_loop_text(d)
        programs.test_ir_dir(d)
        weights.test_external_weights(d)
        weights.test_far_weights(d)
        formats.test_formats(d, program)
        formats.test_numbers(d)
        stacks.test_stacks(d, program)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
