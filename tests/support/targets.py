"""Where programs of a target run: on this machine, or under an emulator."""
import functools
import platform
import shutil
from pathlib import Path

EMULATOR = {"aarch64": ["qemu-aarch64"], "cortex-a72": ["qemu-aarch64", "-cpu", "cortex-a72"],
            "cortex-a76": ["qemu-aarch64", "-cpu", "cortex-a76"], "neoverse-n1": ["qemu-aarch64", "-cpu", "neoverse-n1"],
            "neoverse-n2": ["qemu-aarch64", "-cpu", "max"],
            "cortex-a53": ["qemu-aarch64", "-cpu", "cortex-a53"], "armv7": ["qemu-arm"],
            "x86-64-v2": [], "x86-64-v3": [], "x86-64-v4": [], "sapphirerapids": [], "native": []}
NEEDS = {"x86-64-v2": {"sse4_2"}, "x86-64-v3": {"avx2", "fma"},
         "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
         "sapphirerapids": {"avx512f", "avx512_vnni", "avx512vbmi", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"}}


@functools.cache
def cpu_flags():
    """Of the machine's first CPU, as Linux names them; empty where it is no x86."""
    if platform.machine() != "x86_64":
        return frozenset()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def exact_bytes():
    """Without VNNI, ONNX Runtime adds pairs of products u8 × s8 in 16 bits that saturate (vpmaddubsw): weights of 7 bits cannot."""
    return not cpu_flags() or any("vnni" in f for f in cpu_flags())


def missing(target):
    """Why programs of this target cannot run here, or None."""
    emulator = EMULATOR[target]
    if emulator:
        return None if shutil.which(emulator[0]) else f"no {emulator[0]}"
    lacking = NEEDS.get(target, set()) - cpu_flags()
    return f"the CPU lacks {', '.join(sorted(lacking))}" if lacking else None
