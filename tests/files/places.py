"""Outputs at places that are there already, written by the compiler and by a compiled program: they follow links, devices and
FIFOs, refuse what cannot be written, and leave nothing where disks are full."""
import os
import random
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

from tests.files.fixture import no_leftovers
from tests.support.part import check, run, skip


class Writer:
    """Writes a file in one of the two ways."""

    def __init__(self, name, command, suffix):
        self.name, self.command, self.suffix = name, command, suffix

    def __call__(self, path, **kw):
        return run(*[c.replace("OUT", str(path)) for c in self.command], **kw)


def test_follow(w, d):
    out = d / f"plain{w.suffix}"
    r = w(out)
    check(f"{w.name}: writes", r.returncode == 0 and out.stat().st_size > 60, r.stderr)
    want = out.read_bytes()
    out.write_bytes(b"old")
    out.chmod(0o640)
    r = w(out)
    mode = stat.S_IMODE(out.stat().st_mode) & ~0o111
    check(f"{w.name}: keeps the mode", r.returncode == 0 and mode == 0o640 and out.read_bytes() == want, oct(mode))
    link, target = d / f"link{w.suffix}", d / f"target{w.suffix}"
    link.symlink_to(target.name)
    r = w(link)
    check(f"{w.name}: dangling link", r.returncode == 0 and link.is_symlink() and target.read_bytes() == want, r.stderr)
    target.write_bytes(b"old")
    r = w(link)
    check(f"{w.name}: link", r.returncode == 0 and link.is_symlink() and target.read_bytes() == want, r.stderr)
    loop = d / f"loop{w.suffix}"
    loop.symlink_to(loop.name)
    check(f"{w.name}: link to itself", w(loop).returncode == 4)
    for old, new in (("OUT.part", "x"), ("OUT.tmp", "y")):
        victim = d / "victim"
        victim.write_text("precious")
        Path(old.replace("OUT", str(out))).symlink_to(victim)
        w(out)
        check(f"{w.name}: no known temporary name ({new})", victim.read_text() == "precious")
        Path(old.replace("OUT", str(out))).unlink()
    return want


def test_streams(w, d, want):
    raw = want if w.name == "compiler" else want[-24:]  # no suffix: raw bytes
    r = run(*[c.replace("OUT", "-") for c in w.command], text=False, errors=None)
    check(f"{w.name}: -", r.returncode == 0 and len(r.stdout) == len(raw), r.stderr)
    with open(d / "stdout", "wb") as f:
        r = run(*[c.replace("OUT", "/dev/stdout") for c in w.command], capture_output=False, stdout=f)
    check(f"{w.name}: /dev/stdout in a file", r.returncode == 0 and (d / "stdout").stat().st_size == len(raw))
    fifo = d / "fifo"
    os.path.exists(fifo) or os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()), daemon=True)
    reader.start()
    r = w(fifo)
    reader.join(20)
    check(f"{w.name}: FIFO", r.returncode == 0 and got and len(got[0]) == len(raw) and stat.S_ISFIFO(fifo.stat().st_mode))
    r = w("/dev/full")
    check(f"{w.name}: /dev/full", r.returncode == 4 and "no space" in r.stderr and stat.S_ISCHR(os.stat("/dev/full").st_mode), r.stderr)
    node = d / "null"
    try:
        node.exists() or os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        return skip(f"{w.name}: device", "mknod is for root")
    r = w(node)
    return check(f"{w.name}: device", r.returncode == 0 and stat.S_ISCHR(node.stat().st_mode), r.stderr)


def test_bad_places(w, d):
    (d / "folder").mkdir(exist_ok=True)
    (d / "file").write_text("x")
    long = "n" * 300
    cases = [("folder", "directory"), ("none/x", "folder does not exist"), ("file/x", "not a directory"), (long, "too long")]
    for place, text in cases:
        r = w(d / f"{place}{w.suffix if place != 'folder' else ''}")
        check(f"{w.name}: {place[:20]}", r.returncode == 4 and text in r.stderr, f"{r.returncode} {r.stderr}")
    r = w(d / f"limited{w.suffix}", preexec_fn=lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_FSIZE, (16, 16)))
    check(f"{w.name}: full", r.returncode == 4 and not (d / f"limited{w.suffix}").exists(), f"{r.returncode} {r.stderr}")
    if os.geteuid() != 0:
        (d / "folder").chmod(0o555)
        check(f"{w.name}: read-only folder", w(d / f"folder/x{w.suffix}").returncode == 4)
    no_leftovers(w.name, d)


def test_foreign_link(writers, d):
    """In a folder that all may write to, only one's own links count, as for the kernel."""
    if os.geteuid() != 0:
        return skip("foreign link", "chown is for root")
    shared = d / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    victim = d / "not_ours"
    victim.write_text("precious")
    for w in writers:
        link = shared / f"link{w.suffix}"
        link.symlink_to(victim)
        os.lchown(link, 12345, 12345)
        r = w(link)
        check(f"{w.name}: foreign link", r.returncode == 4 and victim.read_text() == "precious", f"{r.returncode} {r.stderr}")


def test_named_temporaries(d, program):
    """Without /proc files without names cannot be published: random names, and signals wait."""
    root = d / "root"
    root.mkdir()
    (root / "program").write_bytes(program.read_bytes())
    (root / "program").chmod(0o755)
    (root / "x.npy").write_bytes((d / "x.npy").read_bytes())
    command = ["chroot", root, "/program", "--input", "x=@/x.npy", "--output", "y=@/y.npy"]
    if run("chroot", root, "/program", "--help").returncode:
        return skip("named temporary files", "chroot is for root")
    r = run(*command)
    check("named temporary files", r.returncode == 0 and np.load(root / "y.npy").max() == 3, r.stderr)
    (root / "y.npy").unlink()
    (root / "y.npy").symlink_to("z.npy")
    r = run(*command)
    check("named temporary files, link", r.returncode == 0 and np.load(root / "z.npy").max() == 3 and (root / "y.npy").is_symlink(), r.stderr)
    for sig in (signal.SIGTERM, signal.SIGINT) * 8:
        p = subprocess.Popen([str(c) for c in command], stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, 0.004))
        p.send_signal(sig)
        p.wait(20)
        check("named temporary files, signal", np.load(root / "z.npy").max() == 3)
        no_leftovers("named temporary files", root)


def test_small_disk(writers, d):
    disk = d / "disk"
    disk.mkdir()
    if run("mount", "-t", "tmpfs", "-o", "size=12k", "none", disk).returncode:
        return skip("small disk", "mount is not allowed")
    try:
        for w in writers:
            for old in (False, True):
                out = disk / f"y{w.suffix}"
                if old:
                    out.write_bytes(b"old")
                (disk / "filler").write_bytes(b"\0" * 8192)
                if w.name == "program":
                    (disk / "more").write_bytes(b"\0" * (0 if old else 4096))
                r = w(out)
                full = r.returncode == 4 and (out.read_bytes() == b"old" if old else not out.exists())
                check(f"{w.name}: full disk, old={old}", full or (w.name == "program" and r.returncode == 0), f"{r.returncode} {r.stderr}")
                no_leftovers(w.name, disk)
                for f in os.listdir(disk):
                    (disk / f).unlink()
    finally:
        run("umount", disk)
