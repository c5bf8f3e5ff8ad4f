#!/usr/bin/env python3
"""The arrows between rooms (tests/includes/arrows.txt), checked twice: includes of the sources, and symbols of the objects
of a build. Also: the table has no circle, every source lies in a room of it, no folder of the sources, tests, tools
and Python has more than 22 of them, and no two parts of the tests have one name."""
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BURIN_BUILD", ROOT / "build"))
FOLDERS = ("ir", "targets", "frontend", "passes", "codegen", "runtime", "driver")
MOST_FILES = 22
# Data, not calls: the rows of the operator table are read where rows are dispatched.
DATA = {"op_rows", "op_row_count"}
# What generated code, runtime and hosts agree on; anyone may read it.
CONTRACTS = {"runtime/abi.h", "runtime/pool_core.h", "runtime/host_pool.h", "runtime/host_heap.h", "runtime/core/cpu.h", "runtime/core/rt.h"}
HELP = """What to do: a question that both rooms ask belongs into the lower of them, or into a new one below both; a lower
room that needs a service of a higher one is given a function (see PassCtx.run_passes). Only if the arrow is what
the design wants, and no circle comes of it, add it to tests/includes/arrows.txt."""


def read_table():
    table = {}
    for line in (ROOT / "tests/includes/arrows.txt").read_text().splitlines():
        line = line.split("#")[0]
        if line.strip():
            room, _, uses = line.partition(":")
            table[room.strip()] = uses.split()
    return table


def closure(table):
    """room → all that it may use; None: there is a circle, which is printed."""
    done, active = {}, []

    def visit(room):
        if room in active:
            print("tests/includes/arrows.txt: a circle:", " → ".join(active[active.index(room):] + [room]))
            raise SystemExit(1)
        if room not in done:
            active.append(room)
            done[room] = {room}.union(*(visit(r) for r in table.get(room, [])))
            active.pop()
        return done[room]

    for room in table:
        visit(room)
    return done


def sources():
    out = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *FOLDERS], cwd=ROOT,
                         capture_output=True, text=True, check=True).stdout.split()
    return [f for f in out if re.search(r"\.(c|h|def)$", f) and (ROOT / f).exists()]


def others():
    """Scripts and sources of tests, tools and the Python package; data (cases, goldens) may be as much as it is."""
    out = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "tests", "tools", "python"], cwd=ROOT,
                         capture_output=True, text=True, check=True).stdout.split()
    return [f for f in out if re.search(r"\.(c|h|py|sh)$", f) and (ROOT / f).exists()]


def room_of(path):
    return str(Path(path).parent)


def check_includes(files, may):
    for f in files:
        for number, line in enumerate((ROOT / f).read_text().splitlines(), 1):
            if line.startswith("#include <llvm-c/") and room_of(f) not in ("codegen/llvm", "codegen/entry"):
                yield f"{f}:{number}: only codegen/llvm and codegen/entry know LLVM"
            m = re.match(r'#include "([a-z_/0-9]+/[^"]+)"', line)
            if not m or m[1] in CONTRACTS or not m[1].startswith(FOLDERS):
                continue
            to, room = room_of(m[1]), room_of(f)
            shared = "/" not in to and m[1].endswith(".h") and room.split("/")[0] == to
            table = m[1].endswith(".def")
            if room in FOLDERS:  # a contract itself: of what it hands on
                continue
            if to not in may.get(room, ()) and not shared and not table and not contract(m[1]):
                yield f"{f}:{number}: {room} may not include {m[1]}"


def contract(header):
    """The public header of a folder, for the folders above it."""
    folder, _, rest = header.partition("/")
    return "/" not in rest and folder in ("passes", "codegen", "frontend", "targets")


def objects():
    for o in BUILD.glob("CMakeFiles/burin*.dir/**/*.o"):
        source = str(o).split(".dir/", 1)[1][:-2]
        if (ROOT / source).is_file() and source.startswith(FOLDERS):
            yield source, o


def check_symbols(may):
    defined, wanted = {}, defaultdict(set)
    of = {str(o): source for source, o in objects()}
    if not of:
        return
    for line in subprocess.run(["nm", "-A", *of], capture_output=True, text=True).stdout.splitlines():
        path, _, rest = line.rpartition(".o:")
        source, p = of[path + ".o"], rest.split()
        if len(p) == 2 and p[0] == "U":
            wanted[source].add(p[1])
        elif len(p) == 3 and p[1] in "TDBRVC":
            defined[p[2]] = source
    for source in sorted(wanted):
        for symbol in sorted(wanted[source] & defined.keys() - DATA):
            to, room = room_of(defined[symbol]), room_of(source)
            if to not in may.get(room, ()):
                yield f"{source}: {room} may not use {to} ({symbol} of {defined[symbol]})"


def check_rooms(files, table):
    for room in sorted({room_of(f) for f in files}):
        if room not in table and any(f.endswith(".c") and room_of(f) == room for f in files) and room != "runtime":
            yield f"{room}: no room of tests/includes/arrows.txt"


def check_sizes(files):
    count = defaultdict(int)
    for f in files:
        count[room_of(f)] += 1
    for room, n in sorted(count.items()):
        if n > MOST_FILES:
            yield f"{room}: {n} files; more than {MOST_FILES} are two rooms"


def check_parts(files):
    """./dev finds a part by its name."""
    found = defaultdict(list)
    for f in files:
        m = re.fullmatch(r"tests/\w+/run_(\w+)\.(py|sh)", f)
        if m:
            found[m[1]].append(f)
    for part, scripts in found.items():
        if len(scripts) > 1:
            yield f"{' and '.join(scripts)}: one part is one script"


def main():
    table = read_table()
    may = closure(table)
    files = sources()
    bad = [*check_includes(files, may), *check_symbols(may), *check_rooms(files, table), *check_sizes(files + others()), *check_parts(others())]
    for line in bad:
        print(line)
    if bad:
        print(HELP)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
