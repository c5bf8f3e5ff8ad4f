#!/usr/bin/env python3
"""Looks for spilled registers in the inner loops of compiled models: spills.py FILE.s... For every innermost loop with at
least eight multiply-adds it counts accesses to the stack; more than `LIMIT` in one is a fault. Prints the worst."""
import re
import sys

LIMIT = 2
LABEL = re.compile(r"^\.?(L[\w$.]+):")
BACK = re.compile(r"\s(?:j\w+|b\.?\w*|cbnz|cbz|tbnz|tbz)\s+(?:\w+, )?(?:#\d+, )?\.?(L[\w$.]+)$")
FMA = re.compile(r"\s(?:vfn?m(?:add|sub)\w*|vpdpbusd|fmla|fmls|vmla\.f32|vmla|mulps|vmul\.f32)\s")
STACK = re.compile(r"\(%rsp|\[sp[,\]]|\[r7, #-|\[r11, #-|\[x29, #-")
KERNEL = re.compile(r"^(\w+)\.body:")


def loops(lines):
    """(kernel, instructions) of each innermost loop."""
    kernel, start = "?", {}
    for i, line in enumerate(lines):
        if m := KERNEL.match(line):
            kernel, start = m[1], {}
        if m := LABEL.match(line):
            start[m[1]] = i
        if (m := BACK.search(line)) and m[1] in start:
            body = lines[start[m[1]] + 1:i + 1]
            if not any(LABEL.match(b) for b in body):
                yield kernel, body


def main():
    bad = seen = 0
    for path in sys.argv[1:]:
        lines = [line.split("#")[0].split("//")[0].split("@")[0].rstrip() for line in open(path, errors="replace")]
        for kernel, body in loops(lines):
            fmas, stack = sum(bool(FMA.search(b)) for b in body), sum(bool(STACK.search(b)) for b in body)
            if fmas < 8:
                continue
            seen += 1
            if stack > LIMIT:
                bad += 1
                print(f"{path}: {kernel}: {stack} stack accesses beside {fmas} multiply-adds in an inner loop")
    print(f"{seen - bad} passed, {bad} failed, 0 skipped")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
