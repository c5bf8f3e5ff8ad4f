#!/usr/bin/env bash
# What arrows between rooms (check_arrows.py) do not say: only embed.h, which is part of the compiler, knows
# targets; only the driver exits (an arena without an out-of-memory handler has nobody to tell).
cd "$(dirname "$0")/../.." || exit 2
bad=0
grep -rn --include='*.[ch]' '"targets/' runtime | grep -v '^runtime/embed' && bad=1
grep -rnE --include='*.c' '\b(exit|abort|_exit)\(' ir passes codegen frontend targets | grep -v '^ir/base/arena.c' && bad=1
exit $bad
