#!/usr/bin/env bash
# Part "unit": every cmocka program of tests/unit, under ASan and UBSan, as many at a time as there are cores.
build=${BURIN_DEBUG_BUILD:-build-debug}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
ls -S "$build"/unit/ | grep '^test_' | grep -vx test_passes | # that is part "passes"
  while read -r test; do ls "$(dirname "$0")/$test.c" "$(dirname "$0")"/*/"$test.c" 2>/dev/null | grep -q . && echo "$test"; done | # others are left from before
  xargs -P "$(nproc)" -I{} sh -c '"$1/unit/$2" >"$3/$2" 2>&1; echo $? >"$3/$2.status"' sh "$build" {} "$logs"
passed=0 failed=0 skipped=0
for log in "$logs"/*.status; do
  test=$(basename "$log" .status) status=$(<"$log") out=$(<"$logs/$(basename "$log" .status)")
  p=$(grep -oP '\[  PASSED  \] \K[0-9]+' <<<"$out" | tail -n 1)
  f=$(grep -oP '\[  FAILED  \] \K[0-9]+(?= test)' <<<"$out" | head -n 1)
  [ "$status" = 0 ] || [ "${f:-0}" != 0 ] || f=1 # crashed, or a sanitizer spoke
  while read -r what; do
    skipped=$((skipped + 1))
    echo "skipped $test: $what needs what is not here"
  done < <(grep -oP '\[  SKIPPED \] \K[a-z]\w+' <<<"$out" | sort -u)
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
  [ "$status" = 0 ] || printf '%s: status %s\n%s\n' "$test" "$status" "$(tail -n 40 <<<"$out")"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
