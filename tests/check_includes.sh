#!/usr/bin/env bash
# The arrows between folders: what the files of each may include. Prints every include that breaks a rule.
cd "$(dirname "$0")/.." || exit 2
declare -A allowed=(
  [ir]='ir|runtime/(abi|ops)\.h'
  [targets]='targets|ir|runtime/cpu\.h'
  [frontend]='frontend|ir'
  [passes]='passes|ir|targets|runtime/abi\.h'
  [codegen]='codegen|ir|targets|runtime'
  [runtime]='runtime|targets/target\.h'
  [driver]='driver|codegen|frontend|ir|passes|runtime|targets'
)
bad=0
for dir in "${!allowed[@]}"; do
  [ -d "$dir" ] || continue
  while IFS= read -r line; do
    echo "$line: $dir/ may include ${allowed[$dir]} only"
    bad=1
  done < <(grep -rnE --include='*.c' --include='*.h' --include='*.def' '^#include "[a-z]+/' "$dir" |
    grep -vE "#include \"(${allowed[$dir]})")
done
# Only embed.h, which is part of the compiler, knows targets; only the driver exits (an arena without an
# out-of-memory handler has nobody to tell).
grep -rn --include='*.[ch]' '"targets/' runtime | grep -v '^runtime/embed' && bad=1
grep -rnE --include='*.c' '\b(exit|abort|_exit)\(' ir passes codegen frontend targets | grep -v '^ir/base/arena.c' && bad=1
exit $bad
