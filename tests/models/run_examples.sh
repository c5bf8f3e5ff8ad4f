#!/usr/bin/env bash
# Part "examples": the demo names its photo, in float and in 8 bits, CUDA kernels read a digit on this CPU, the C program and the Python script read their digits.
root=$(cd "$(dirname "$0")/../.." && pwd)
burin=${BURIN:-$root/build/burin}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0

# expect NAME TEXT COMMAND…: the command succeeds and prints the text
expect() {
  local name=$1 text=$2 log
  shift 2
  if log=$("$@" 2>&1) && grep -q -- "$text" <<<"$log"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s: no "%s" in\n%s\n' "$name" "$text" "$log"
  fi
}

expect photo "0\.98.*golden retriever" env BURIN="$burin" bash "$root/examples/photo/demo.sh" "$out"
expect "photo in 8 bits" "^dog.png  *0\.9.*golden retriever  *0\.9.*golden retriever$" env BURIN="$burin" bash "$root/examples/photo/int8.sh" "$out"
expect "CUDA kernels" "^  *7  *33[0-9][0-9]" env BURIN="$burin" bash "$root/examples/digits/cuda.sh" "$out"
expect "c: configure" "Build files" env CC="${CC:-clang-19}" cmake -S "$root/examples/c" -B "$out/c" -G Ninja -DBURIN="$burin"
expect "c: build" "Linking C executable digits" cmake --build "$out/c"
expect "c: run" "read 0 1 2 3 4 5 6 7 8 9" "$out/c/digits" "$root/examples/digits/digits.txt"
expect python "recognised: 9" env BURIN="$burin" PYTHONPATH="$root/python" "${PYTHON:-python3}" "$root/examples/python/digits.py"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
