"""The suites of the onnx package, with models and data in memory, and the exceptions from them (tests/ops/exceptions.txt)."""
import fnmatch
import functools
import re
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

NODE, LIGHT = "node", "light"
SUITES = (NODE, "pytorch-converted", "pytorch-operator", "simple", LIGHT)
MOST_EXCEPTIONS = 10
LIGHT_FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
PROTOS = {"sequence_type": (onnx.SequenceProto, numpy_helper.to_list), "optional_type": (onnx.OptionalProto, numpy_helper.to_optional)}


class Case:
    """name, suite, tolerances, model, data_sets (pairs of lists: inputs, outputs wanted); read when asked for where they are
    files: always, but for the node tests of newer packages."""

    def __init__(self, suite, name, test=None, path=None):
        self.suite, self.name, self.test, self.path = suite, name, test, path
        self.rtol, self.atol = (test.rtol, test.atol) if test else (1e-3, 1e-7)

    @functools.cached_property
    def model(self):
        return onnx.load(self.path) if self.path else self.test.model

    @functools.cached_property
    def data_sets(self):
        if not self.path:
            return self.test.data_sets
        if self.suite == LIGHT:
            return [self._light_data()]
        graph = self.model.graph
        return [(_values(f, "input", graph.input), _values(f, "output", graph.output))
                for f in sorted(self.path.parent.glob("test_data_set*"))]

    def _light_data(self):
        """As ONNX's own runner: inputs count up from 0 to 1."""
        from onnx.backend.test.runner import Runner

        graph = self.model.graph
        constants = {i.name for i in graph.initializer}
        inputs = [Runner.generate_dummy_data(i) for i in graph.input if i.name not in constants]
        files = (self.path.with_name(f"{self.path.stem}_output_{k}.pb") for k in range(len(graph.output)))
        return inputs, [numpy_helper.to_array(onnx.load_tensor(f)) for f in files]


def _values(folder, stem, infos):
    paths = [folder / f"{stem}_{k}.pb" for k in range(len(list(folder.glob(f"{stem}_*.pb"))))]
    return [_value(p.read_bytes(), info.type.WhichOneof("value")) for p, info in zip(paths, infos)]


def _value(data, kind):
    proto, convert = PROTOS.get(kind, (onnx.TensorProto, numpy_helper.to_array))
    return convert(proto.FromString(data))


def cases(suites=SUITES, pattern=""):
    """The cases of some suites whose names the regular expression finds."""
    found = []
    for suite in suites:
        if suite == LIGHT:
            found += [Case(suite, f"test_{p.stem}", path=p) for p in sorted(LIGHT_FOLDER.glob("*.onnx"))]
            continue
        found += [Case(suite, t.name, t, t.model_dir and Path(t.model_dir) / "model.onnx")
                  for t in sorted(load_model_tests(kind=suite), key=lambda t: t.name)]
    return [c for c in found if re.search(pattern, c.name)]


@functools.cache
def exceptions():
    """{name or pattern: reason}: tests whose wanted values cannot be had. They must run, and fail by values only."""
    lines = (Path(__file__).resolve().parents[1] / "ops/exceptions.txt").read_text().splitlines()
    found = [line.split(": ", 1) for line in lines if line and not line.startswith("#")]
    found = [(names.split(), reason) for names, reason in found]
    found = [(names, reason) for names, reason in found if names[0].startswith("test_") or onnx.__version__.startswith(f"{names.pop(0)}.")]
    assert len(found) <= MOST_EXCEPTIONS, f"{len(found)} exceptions, {MOST_EXCEPTIONS} at most"
    return {name: reason for names, reason in found for name in names}


def exception(name):
    """The reason why this test is one, or None."""
    return next((reason for pattern, reason in exceptions().items() if fnmatch.fnmatchcase(name, pattern)), None)
