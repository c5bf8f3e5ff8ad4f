#!/usr/bin/env bash
# Rules of ops write conditions on sizes with the helpers require_… (ir/op/require.c), which also hold for sizes that
# are known only when the model runs. Prints every error about a size that is reported only where the size is constant.
cd "$(dirname "$0")/../.." || exit 2
awk '
  FNR == 1 { seen = 0 }
  /expr_is_const\(|expr_is_i64\(|value_is_static\(/ && !/!(expr_is_const|value_is_static)\(/ { seen = FNR; text = $0 }
  /^}/ || (/;$/ && !/op_error/ && !/^ *expr_is_const\(.*;$/ && !/^ *return/) { seen = 0 }
  /op_error\(/ && /ERR_(SHAPE|VALUE|ATTR_VALUE)/ && seen && FNR - seen <= 3 {
    printf "%s:%d: a condition on sizes that holds for constants only: write require_…\n", FILENAME, seen
    bad = 1
  }
  END { exit bad }' $(find ir/op ir/ops -name '*.c' ! -name require.c)
