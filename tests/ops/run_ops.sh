#!/usr/bin/env bash
# Part "ops": the suites of the onnx package, interpreted (the meaning of every operator), under ASan and UBSan.
here=$(cd "$(dirname "$0")" && pwd)
"${PYTHON:-python3}" "$here/node_tests.py" "${BURIN_DEBUG_BUILD:-$here/../../build-debug}/tools/elem_tool" \
  --work "${BURIN_BUILD:-$here/../../build}/onnx_suites" "$@" || exit 1
