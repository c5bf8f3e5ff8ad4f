#!/usr/bin/env python3
"""Writes runtime/text/letter_runs.h: simple case mappings of Unicode as runs of code points.

    python3 tools/letter_case.py > runtime/text/letter_runs.h
"""
import unicodedata


def runs(change):
    """(first, last, step, difference) of all code points that one other stands for."""
    pairs = [(c, ord(change(chr(c))) - c) for c in range(0x110000)
             if not 0xD800 <= c < 0xE000 and len(change(chr(c))) == 1 and change(chr(c)) != chr(c)]
    result, i = [], 0
    while i < len(pairs):
        def end(step):
            j = i
            while j + 1 < len(pairs) and pairs[j + 1] == (pairs[j][0] + step, pairs[i][1]):
                j += 1
            return j
        step = max((1, 2), key=end)
        j = end(step)
        result.append((pairs[i][0], pairs[j][0], step, pairs[i][1]))
        i = j + 1
    return result


def main():
    print(f"/* Simple case mappings of Unicode {unicodedata.unidata_version}, made by tools/letter_case.py: code points of one")
    print(" * distance to their mapping, in rising order. */")
    print("#pragma once\n#include <stdint.h>\n")
    print("typedef struct CaseRun {\n  uint32_t first, last;\n  int32_t step, difference;\n} CaseRun;")
    for name, change in (("lower", str.lower), ("upper", str.upper)):
        print(f"\nstatic const CaseRun {name}_runs[] = {{")
        for row in runs(change):
            print("    {0x%x, 0x%x, %d, %d}," % row)
        print("};")


if __name__ == "__main__":
    main()
