#!/usr/bin/env bash
# Part "unit": every cmocka program of tests/unit, under ASan and UBSan.
build=${BURIN_DEBUG_BUILD:-build-debug}
passed=0 failed=0
for t in "$build"/unit/test_*; do
  [ -x "$t" ] && [[ $t != */test_passes ]] || continue # part "passes"
  out=$("$t" 2>&1)
  status=$?
  p=$(grep -oP '\[  PASSED  \] \K[0-9]+' <<<"$out" | tail -n 1)
  f=$(grep -oP '\[  FAILED  \] \K[0-9]+(?= test)' <<<"$out" | head -n 1)
  [ "$status" = 0 ] || [ "${f:-0}" != 0 ] || f=1 # crashed, or a sanitizer spoke
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
  [ "$status" = 0 ] || printf '%s: status %s\n%s\n' "$t" "$status" "$(tail -n 40 <<<"$out")"
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
