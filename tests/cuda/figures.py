"""The golden table of registers and shared memory, tests/cuda/figures.txt: of figure_cases.py's kernels for three GPUs, as the
pinned NVRTC compiles them. Another NVRTC is only asked for spills."""
import ctypes
import difflib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import figure_cases
from part import burin, check

SMS = (80, 90, 100)
GOLDEN = Path(__file__).resolve().parent / "figures.txt"
HEAD = """# Registers of a thread and bytes of shared memory of a block, for sm_80, sm_90 and sm_100, by NVRTC {}.
# The most of the kernels that one node has; "./dev test nvrtc --bless" writes this file.
"""


def nvrtc_version(path):
    major, minor = ctypes.c_int(), ctypes.c_int()
    ctypes.CDLL(path).nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def tiles_of(path, sm, flags):
    """{key: candidates} of the products."""
    text = burin(path, f"--target=cuda:sm_{sm}", "--emit=tuning", "-q", "-o", "-", *flags).stdout
    found = re.findall(r"^(gpu_gemm .*) -> \S+  # cycles: (.*)$", text, re.M)
    return {key: [c.split()[0] for c in candidates.split(", ")] for key, candidates in found}


def force_tiles(folder, name, dtype, sm, flags):
    """A model with a product for each tile, and one whose k is taken in parts; the tuning file that says so; {node: tile}."""
    stem = f"{name.replace(' ', '_')}_{sm}"
    path, file = folder / f"{stem}.onnx", folder / f"{stem}.tuning"
    figure_cases.products(dtype, 1).save(path)
    candidates = next(iter(tiles_of(path, sm, flags).values()))
    tiles = [c.removesuffix("/1") for c in candidates if c.endswith("/1")]
    if dtype == figure_cases.BF16:  # as f16, but for the instruction
        tiles = tiles[:3]
    tiles.append(tiles[-1] + "/2")
    figure_cases.products(dtype, len(tiles)).save(path)
    keys = sorted(tiles_of(path, sm, flags), key=lambda key: int(re.search(r" k(\d+) ", key)[1]))
    file.write_text("burin tuning 1\n" + "".join(f"{k} -> {t if '/' in t else t + '/1'}\n" for k, t in sorted(zip(keys, tiles))))
    return path, [*flags, f"--tuning={file}"], {f"product {512 + 128 * i}": f"{name} {t}" for i, t in enumerate(tiles)}


def rows_of(path, sm, flags, names, env):
    """{row: (registers, shared, spills)}."""
    text = burin(path, f"--target=cuda:sm_{sm}", "--emit=cuda", "-q", "-o", "-", *flags).stdout
    node = {kernel: first for first, kernel in re.findall(r'^// ([^:\n]*):.*\nextern "C" .*\) \w*?_(k\d+_\w+)\(', text, re.M)}
    r = burin(path, f"--target=cuda:sm_{sm}", "--emit=cubin", "--print-plan", "-o", path.with_suffix(f".{sm}.cubin"), *flags, env=env, timeout=300)
    rows = {}
    for registers, shared, spills, kernel in re.findall(r"^ +(\d+) +(\d+) +(\d+)  (k\d+_\w+), sm_\d+$", r.stderr, re.M):
        if kernel not in node or kernel.endswith("_copy"):
            continue
        last = re.search(r"_(sum|reduce|max)$", kernel)
        row = names.get(node[kernel], node[kernel]) + (f" ({last[1]})" if last else "")
        mine = int(registers), int(shared), int(spills)
        rows[row] = tuple(map(max, mine, rows.get(row, mine)))
    check(f"figures of {path.stem} for sm_{sm}", r.returncode == 0 and rows, r.stderr)
    return rows


def all_rows(folder, sm, env):
    rows = {}
    for name, dtype, flags in figure_cases.TYPES:
        path, flags, names = force_tiles(folder, name, dtype, sm, flags)
        rows |= rows_of(path, sm, flags, names, env)
    for name, model in figure_cases.OTHERS:
        path = folder / f"{name}_{sm}.onnx"
        model().save(path)
        rows |= rows_of(path, sm, [], {}, env)
    return rows


def test_figures(folder, library, bless):
    version = nvrtc_version(library)
    with ThreadPoolExecutor(2) as pool:
        of = list(pool.map(lambda sm: all_rows(folder, sm, {**os.environ, "BURIN_NVRTC": library}), SMS))
    names = list(dict.fromkeys(name for rows in of for name in sorted(rows)))
    spilled = [f"{name}: {rows[name][2]} bytes for sm_{sm}" for sm, rows in zip(SMS, of) for name in rows if rows[name][2]]
    check(f"no kernel of {len(names)} rows spills", names and not spilled, spilled)
    columns = [["%3d %6d" % rows[name][:2] if name in rows else "  -      -" for rows in of] for name in names]
    text = HEAD.format(version) + "".join(f"{'   '.join(c)}  {name}\n" for name, c in zip(names, columns))
    if bless:
        GOLDEN.write_text(text)
        return
    golden = GOLDEN.read_text()
    if not golden.startswith(HEAD.format(version)):
        print(f"figures: {GOLDEN.name} is of another NVRTC than {version}; only spills were looked at")
        return
    diff = list(difflib.unified_diff(golden.splitlines(), text.splitlines(), "figures.txt", "now", lineterm="", n=0))
    check("registers and shared memory as in figures.txt", not diff)
    print("".join(f"{line}\n" for line in diff), end="")
