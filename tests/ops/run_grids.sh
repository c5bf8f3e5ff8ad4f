#!/usr/bin/env bash
# Part "grids": the suites of the onnx package, and reductions of larger sizes, through all passes for a GPU; the loop IR is
# interpreted, with blocks and threads in three orders.
here=$(cd "$(dirname "$0")" && pwd)
build=${BURIN_BUILD:-$here/../../build}
cases=$build/grid_cases
"${PYTHON:-python3}" "$here/grid_cases.py" "$cases" 2>/dev/null || exit 1
"$build/tools/elem_tool" --grids "$cases"/* | grep -v ^PASS
[ "${PIPESTATUS[0]}" = 0 ] || exit 1
"${PYTHON:-python3}" "$here/node_tests.py" "$build/tools/elem_tool" --work "$build/onnx_suites" --grids "$@" || exit 1
