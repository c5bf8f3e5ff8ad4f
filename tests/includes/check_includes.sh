#!/usr/bin/env bash
# What arrows between rooms (check_arrows.py) do not say: only embed.h, which is part of the compiler, knows
# targets; only the driver exits (an arena without an out-of-memory handler has nobody to tell; a forked process ends itself); what is asked of a
# target is in its row, in a table by Arch, or its name's lookup: nobody compares architectures or names of targets.
cd "$(dirname "$0")/../.." || exit 2
bad=0
grep -rn --include='*.[ch]' '"targets/' runtime | grep -v '^runtime/embed' && bad=1
grep -rnE --include='*.c' '\b(exit|abort|_exit)\(' ir passes codegen frontend targets | grep -v -e '^ir/base/arena.c' -e '^codegen/cuda/workers.c:.*_exit(0)' && bad=1
compiler=$(find ir passes codegen frontend driver -name '*.[ch]')
grep -nE '(arch|backend) *[!=]= |[!=]= *(ARCH|BACKEND)_|case (ARCH|BACKEND)_' $compiler && bad=1
grep -nE '(ARCH_(X86_64|AARCH64|ARM)|BACKEND_(LLVM|C))\b' $compiler | grep -vE '\[(ARCH|BACKEND)_[A-Z0-9_]+\] *=|target_of\(' && bad=1
grep -nE 'str(n|case)?cmp\([^;]*(target|\bt)(->|\.)(name|triple|cpu)\b' $compiler && bad=1
exit $bad
