"""Small stacks: a run takes what the header says, programs and the compiler live on 16 KB."""
import numpy as np

from tests.files.fixture import conv_model
from tests.support.part import BURIN, burin, check, run


STACK = """
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "s.h"
static unsigned char arena[1 << 22] __attribute__((aligned(64)));
static char stack[1 << 18] __attribute__((aligned(4096)));
static int32_t run(void) {
  static float x[3 * 9 * 9], y[96 * 9 * 9];
  s_inputs in; s_outputs out;
  *(const float **)&in = x; *(float **)&out = y;
  return s_run(&in, &out, arena);
}
static void *nothing(void *p) { return p; }
static void *work(void *p) { *(int *)p = run(); return p; }
static long used(void *(*fn)(void *), int *status) {
  pthread_t t; pthread_attr_t a;
  memset(stack, 0x5a, sizeof stack);
  pthread_attr_init(&a);
  pthread_attr_setstack(&a, stack, sizeof stack);
  if (pthread_create(&t, &a, fn, status)) return -1;
  pthread_join(t, NULL);
  long n = 0;
  while (n < (long)sizeof stack && stack[n] == 0x5a) n++;
  return (long)sizeof stack - n;
}
int main(void) {
  int status = 0;
  run();
  const long without = used(nothing, &status), with = used(work, &status);
  printf("%d %ld %ld", status, with - without, (long)S_STACK_BYTES);
  return 0;
}
"""


def test_stacks(d, program):
    model = d / "stack.onnx"
    conv_model(model, 96)
    r = burin(model, "-q", "--emit=obj,header", "-o", d / "s")
    (d / "stack.c").write_text(STACK)
    built = run("clang-19", "-O1", d / "stack.c", d / "s.o", "-I", d, "-pthread", "-o", d / "stack")
    got = run(d / "stack").stdout.split() if built.returncode == 0 else [r.stderr, built.stderr, "0"]
    ok = built.returncode == 0 and got[0] == "0" and int(got[1]) <= int(got[2]) <= 16384
    check("a run takes no more of the stack than the header says", ok, got)
    r = run("sh", "-c", 'ulimit -s 16 && "$@"', "sh", program, "--input", f"x=@{d}/x.npy", "--output", f"y=@{d}/small.npy")
    check("program on a stack of 16 KB", r.returncode == 0 and np.load(d / "small.npy").max() == 3, r.stderr)
    for args in ([model, "--emit=loop"], ["inspect", model], ["run", "--interpret", model, "--input", "x=1x3x9x9xf32=1"]):
        # the environment lies on the stack, too, and the dynamic loader needs most of the rest
        r = run("env", "-i", "sh", "-c", 'ulimit -s 16 && "$@"', "sh", BURIN, *args)
        check(f"burin {args[0]} on a stack of 16 KB", r.returncode == 0, f"{r.returncode} {r.stderr}")
    r = run("env", "-i", "sh", "-c", 'ulimit -s 16 && "$@"', "sh", BURIN, model, "-q", "-o", d / "small")
    check("linking on a stack of 16 KB: works or says so", r.returncode == 0 or (r.returncode == 4 and "stack" in r.stderr), r.stderr)
