#!/usr/bin/env python3
"""Prints the largest files, functions and parameter lists of the C sources. Figures to look at, not limits."""
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A definition as clang-format writes it: at the margin, its parameters up to `) {`, its end a `}` at the margin.
HEAD = re.compile(r"^(?!typedef|enum|struct|union|#|/|else|return)[A-Za-z_][\w \t*]*?\b(\w+)\(([^;{}]*)\) \{", re.M)
SHOWN = 8


def parameters(text):
    """Commas outside of parentheses, which pointers to functions have."""
    depth, count = 0, 0 if text.strip() in ("", "void") else 1
    for c in text:
        depth += (c == "(") - (c == ")")
        count += c == "," and depth == 0
    return count


def functions(text):
    """(name, lines, parameters) of each definition."""
    for m in HEAD.finditer(text):
        line_end = text.find("\n", m.end())
        one_line = text[m.end():line_end].rstrip().endswith("}")
        end = line_end if one_line else text.find("\n}", m.end())
        if end >= 0:
            yield m.group(1), text.count("\n", m.start(), end) + (1 if one_line else 2), parameters(m.group(2))


def table(title, rows):
    print(f"{title}:")
    for size, what in sorted(rows, key=lambda r: (-r[0], r[1]))[:SHOWN]:
        print(f"  {size:6}  {what}")


def main():
    names = subprocess.run(["git", "ls-files", "--", "*.c", "*.h"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files, lines, counts, sizes = [], [], [], []
    for name in names:
        text = (ROOT / name).read_text()
        files.append((text.count("\n"), name))
        for function, size, count in functions(text):
            lines.append((size, f"{function} ({name})"))
            counts.append((count, f"{function} ({name})"))
            sizes.append(size)
    table("lines of files", files)
    table("lines of functions", lines)
    table("parameters", counts)
    sizes.sort()
    print(f"{len(files)} files, {sum(n for n, _ in files)} lines; {len(sizes)} functions, median {sizes[len(sizes) // 2]} lines, "
          f"{sum(s <= 15 for s in sizes) * 100 // len(sizes)} % up to 15 lines, {sum(c > 6 for c, _ in counts)} with more than 6 parameters")


if __name__ == "__main__":
    main()
