#!/usr/bin/env bash
# Part "passes": tests/passes/PASS/*.ir beside their golden outputs (--bless writes them), under ASan and UBSan.
build=${BURIN_DEBUG_BUILD:-build-debug}
out=$("$build/unit/test_passes" "$@" 2>&1)
status=$?
cut -c1-400 <<<"$out" # data lines of a golden are long
if [[ $(tail -n 1 <<<"$out") =~ ([0-9]+)\ pass\ tests,\ ([0-9]+)\ failed ]]; then
  run=${BASH_REMATCH[1]} failed=${BASH_REMATCH[2]}
else
  run=1 failed=1
fi
[ "$status" = 0 ] || [ "$failed" != 0 ] || failed=1 # a sanitizer spoke
echo "$((run - failed)) passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
