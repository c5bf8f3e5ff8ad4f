#!/usr/bin/env bash
# Part "includes": one-way arrows between rooms; conditions on sizes hold for all sizes; nothing is tracked that a tool left behind.
here=$(dirname "$0")
failed=0
python3 "$here/check_arrows.py" || failed=1
for check in includes conditions tracked; do
  bash "$here/check_$check.sh" || failed=$((failed + 1))
done
echo "$((4 - failed)) passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
