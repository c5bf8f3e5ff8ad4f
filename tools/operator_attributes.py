#!/usr/bin/env python3
"""Writes frontend/import/attributes.def: which attributes an operator has, of which types, by the version from which on that holds.
The facts are those of the onnx package's schemas, for com.microsoft (and operators that ONNX has dropped) of ONNX Runtime's.

operator_attributes.py BURIN > frontend/import/attributes.def: BURIN says which operators of ONNX Runtime are known."""
import re
import subprocess
import sys

import onnx.defs
import onnxruntime.capi.onnxruntime_pybind11_state as ort

HEAD = """/* Made by tools/operator_attributes.py (part attributes compares): from version `since` on an operator has these attributes and no
 * others. NAME:T, T one of f i s t g (float, int, string, tensor, graph), F I S T G (lists), z sparse tensor, y type; ! required.
 * ATTRS(domain, operator, since, attributes); ordered by domain, operator and version. */"""
LETTERS = dict(FLOAT="f", INT="i", STRING="s", TENSOR="t", GRAPH="g", FLOATS="F", INTS="I", STRINGS="S", TENSORS="T", GRAPHS="G",
               SPARSE_TENSOR="z", SPARSE_TENSORS="Z", TYPE_PROTO="y", TYPE_PROTOS="Y")


def text(schema):
    attributes = sorted(schema.attributes.items())
    return " ".join(f"{n}:{LETTERS[a.type.name.split('.')[-1]]}{'!' * a.required}" for n, a in attributes)


def known(burin):
    table = subprocess.run([burin, "--list-ops"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^\| (?:[\w.]+\.)?(\w+) \|", table, re.M))


def rows(burin):
    """[(domain, operator, since, attributes)], one where they change."""
    schemas = {(s.domain, s.name, s.since_version): s for s in onnx.defs.get_all_schemas_with_history()}
    of_onnx = {key[:2] for key in schemas}
    names = known(burin)
    for s in ort.get_all_operator_schema():
        if s.domain in ("com.microsoft", "") and (s.domain, s.name) not in of_onnx and s.name in names:
            schemas[s.domain, s.name, s.since_version] = s
    found = []
    for (domain, op, since), s in sorted(schemas.items()):
        row = domain, op, since, text(s)
        if not found or found[-1][:2] != row[:2] or found[-1][3] != row[3]:
            found.append(row)
    return found


def table(burin):
    return "\n".join([HEAD, *(f'ATTRS("{d}", "{op}", {since}, "{attrs}")' for d, op, since, attrs in rows(burin))]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(sys.argv[1]))
