#!/usr/bin/env bash
# Part "grids": the official ONNX node tests through all passes for a GPU; the loop IR is interpreted, with blocks and threads
# in three orders.
here=$(cd "$(dirname "$0")" && pwd)
build=${BURIN_BUILD:-$here/../../build}
"${PYTHON:-python3}" "$here/node_tests.py" "$build/tools/elem_tool" --work "$build/node_tests" --grids "$@" || exit 1
