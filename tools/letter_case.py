#!/usr/bin/env python3
"""Writes runtime/text/letter_case.def: simple case mappings of Unicode as runs of code points.

    python3 tools/letter_case.py > runtime/text/letter_case.def
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
    print(f"/* Simple case mappings of Unicode {unicodedata.unidata_version}, made by tools/letter_case.py:")
    print(" * ROW(first, last, step, difference), in rising order. */")
    for name, change in (("LOWER", str.lower), ("UPPER", str.upper)):
        print(f"#ifdef CASE_{name}_ROWS")
        for row in runs(change):
            print("ROW(0x%x, 0x%x, %d, %d)" % row)
        print("#endif")


if __name__ == "__main__":
    main()
