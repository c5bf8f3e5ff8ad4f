#!/usr/bin/env bash
# Part "includes": one-way dependencies between folders; conditions on sizes hold for all sizes.
failed=0
for check in includes conditions; do
  bash "$(dirname "$0")/check_$check.sh" || failed=$((failed + 1))
done
echo "$((2 - failed)) passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
