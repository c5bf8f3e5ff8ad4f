"""What a part of the tests needs: the compiler, commands, and a count of checks that passed, failed or were skipped."""
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BURIN = os.environ.get("BURIN", str(ROOT / "build/burin"))
counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(name, ok, detail=""):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print(f"FAILED {name}: {str(detail)[:400]}")
    return ok


def attempt(name, work, *args):
    """One check, which fails by whatever it raises; what it returns, or None."""
    try:
        result = work(*args)
    except Exception as e:
        counts["failed"] += 1
        print(f"FAILED {name}: {str(e).strip()[-600:]}", flush=True)
        return None
    counts["passed"] += 1
    return result


def skip(name, why):
    counts["skipped"] += 1
    print(f"skipped {name}: {why}")


def finish():
    """Prints the count that ./dev reads; the exit status of the part."""
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] != 0


def run(*command, timeout=60, **kw):
    kw = {"capture_output": True, "text": True, "errors": "replace", **kw}
    return subprocess.run([str(c) for c in command], timeout=timeout, **kw)


def burin(*args, **kw):
    return run(BURIN, *args, **kw)
