#!/usr/bin/env bash
# Part "includes": one-way dependencies between folders.
if bash "$(dirname "$0")/check_includes.sh"; then
  echo "1 passed, 0 failed, 0 skipped"
else
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
fi
