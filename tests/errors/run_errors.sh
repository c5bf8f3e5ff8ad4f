#!/usr/bin/env bash
# Bad models: tests/errors/cases/NAME.onnx must give exactly NAME.err (exit status, then messages), and no output
# file. Then every prefix of the models in tests/errors/truncate must end with a documented error. --bless writes
# the .err files; NAMES select cases.
set -u
cd "$(dirname "$0")"
BURIN=${BURIN_DEBUG:-}
[ -x "$BURIN" ] || BURIN=${BURIN:-}
for b in ../../build-debug/burin ../../build/burin; do
  [ -x "$BURIN" ] || BURIN=$PWD/$b
done
[ -x "$BURIN" ] || { echo "no burin at $BURIN"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
export ASAN_OPTIONS=detect_leaks=1:exitcode=99:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:exitcode=99
bless=0
[ "${1:-}" = --bless ] && bless=1 && shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R cases "$work/cases"
cd "$work/cases"
# What git does not keep: links.
ln -s weights.bin link.bin
ln -s . linkdir
cp weights.bin outside.bin && ln outside.bin hard.bin
passed=0 failed=0

fail() {
  failed=$((failed + 1))
  echo "FAILED $*"
}

one_case() {
  local name=$1 args=() status
  [ -f "$name.args" ] && read -ra args <"$name.args"
  timeout 60 "$BURIN" "$name.onnx" -q -O0 -o "$work/out" "${args[@]}" >"$work/stdout" 2>"$work/stderr"
  status=$?
  { echo "exit $status" && cat "$work/stderr"; } >"$work/got"
  if [ $bless = 1 ]; then cp "$work/got" "$OLDPWD/cases/$name.err"; fi
  if [ -n "$(find "$work" -maxdepth 1 -name 'out*')" ]; then
    rm -rf "$work"/out*
    fail "$name: an output file was left"
  elif ! cmp -s "$work/got" "$name.err" && [ $bless = 0 ]; then
    fail "$name"
    diff "$name.err" "$work/got" | head -n 10
  elif [ $status -eq 0 ] || [ $status -ge 70 ]; then
    fail "$name: exit status $status"
    head -n 5 "$work/got"
  else
    passed=$((passed + 1))
  fi
}

# 1 model, 3 file, 5 unsupported, 6 limit are the ways in which half a model may fail.
truncated() {
  local file=$1 size n status bad=0
  size=$(stat -c %s "$file")
  for ((n = 0; n < size; n++)); do
    head -c "$n" "$file" >"$work/t.onnx"
    timeout 60 "$BURIN" "$work/t.onnx" -q -O0 -o "$work/out" >/dev/null 2>"$work/stderr"
    status=$?
    case $status in 1 | 3 | 5 | 6) ;; *)
      # A prefix that ends between fields can be a whole model.
      if [ $status = 0 ]; then rm -rf "$work"/out*; else bad=1 && echo "$file cut at $n: exit $status" && head -n 3 "$work/stderr"; fi ;;
    esac
    if [ -n "$(find "$work" -maxdepth 1 -name 'out*')" ]; then bad=1 && rm -rf "$work"/out* && echo "$file cut at $n: output left"; fi
  done
  if [ $bad = 0 ]; then passed=$((passed + 1)); else fail "truncation of $(basename "$file")"; fi
}

if [ $# -gt 0 ]; then
  for name in "$@"; do one_case "$name"; done
else
  for f in *.onnx; do one_case "${f%.onnx}"; done
  if [ $bless = 0 ]; then
    for f in "$OLDPWD"/truncate/*.onnx; do truncated "$f"; done
  fi
fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
