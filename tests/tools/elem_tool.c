/* Evaluates models by the meaning of their operators (graph_eval) and compares with expected
 * outputs. elem_tool DIR...     each DIR: model.onnx, in_K.pb, out_K.pb, optional tol ("rtol atol
 * [off]": integers may differ by off) One line a directory: PASS, FAIL or SKIP, its name, and the
 * reason. Each runs in a process of its own. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "frontend/frontend.h"
#include "ir/op/op.h"

static ConstData *load(Model *m, const char *dir, const char *stem, int k) {
  const char *path = arena_printf(m->arena, "%s/%s_%d.pb", dir, stem, k);
  return access(path, R_OK) == 0 ? frontend_load_tensor(m, path) : NULL;
}

/* Two roundings of the type: references that round after every step differ by as much. */
static double type_rtol(DType t) { return t == DT_BF16 ? 0x1p-6 : t == DT_F16 ? 0x1p-9 : 0; }

static bool close_to(double a, double b, double rtol, double atol) {
  if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
  if (a == b) return true;
  return fabs(a - b) <= atol + rtol * fabs(b);
}

/* NULL: equal; else what differs. */
static const char *differs(Arena *a, const ConstData *got, const ConstData *want, double rtol,
                           double atol, int64_t off) {
  if (got->dtype != want->dtype)
    return arena_printf(a, "type %s, expected %s", dtype_text(got->dtype), dtype_text(want->dtype));
  if (got->rank != want->rank)
    return arena_printf(a, "rank %d, expected %d", got->rank, want->rank);
  for (int d = 0; d < got->rank; d++)
    if (got->dims[d] != want->dims[d])
      return arena_printf(a, "dim %d is %lld, expected %lld", d, (long long)got->dims[d],
                          (long long)want->dims[d]);
  rtol = fmax(rtol, type_rtol(want->dtype));
  for (int64_t i = 0; i < got->count; i++) {
    if (got->dtype == DT_STR) {
      const char *x = ((const char *const *)got->data)[i],
                 *y = ((const char *const *)want->data)[i];
      if (strcmp(x, y) != 0)
        return arena_printf(a, "element %lld is \"%s\", expected \"%s\"", (long long)i, x, y);
    } else if (dtype_is_float(got->dtype)) {
      const double x = const_float(got, i), y = const_float(want, i);
      if (!close_to(x, y, rtol, atol))
        return arena_printf(a, "element %lld is %g, expected %g", (long long)i, x, y);
    } else {
      const int64_t x = const_int(got, i), y = const_int(want, i);
      if (x < y ? y - x > off : x - y > off)
        return arena_printf(a, "element %lld is %lld, expected %lld", (long long)i, (long long)x,
                            (long long)y);
    }
  }
  return NULL;
}

enum { PASS, FAIL, SKIP };

static int run_case(const char *dir) {
  Arena *a = arena_new((size_t)4 << 30, NULL, NULL);
  Diag *d = diag_new(a);
  double rtol = 1e-3, atol = 1e-7;
  int off = 0;
  FILE *tol = fopen(arena_printf(a, "%s/tol", dir), "r");
  if (tol) {
    if (fscanf(tol, "%lf %lf %d", &rtol, &atol, &off) < 2) rtol = 1e-3;
    fclose(tol);
  }
  const FrontendOptions options = {0};
  Model *m = frontend_load(a, d, arena_printf(a, "%s/model.onnx", dir), &options);
  if (!m) {
    diag_print(d, stdout);
    return diag_exit_status(d) == 5 ? SKIP : FAIL;
  }
  const int n_in = m->main->inputs.n, n_out = m->main->outputs.n;
  const ConstData **in = ARENA_ARRAY(a, const ConstData *, n_in + 1);
  ConstData **out = ARENA_ARRAY(a, ConstData *, n_out + 1);
  for (int k = 0; k < n_in; k++) {
    in[k] = load(m, dir, "in", k);
    if (!in[k]) {
      printf("input %d is not a tensor\n", k);
      return SKIP;
    }
  }
  if (!graph_eval(m, in, out)) {
    diag_print(d, stdout);
    return diag_exit_status(d) == 5 ? SKIP : FAIL;
  }
  for (int k = 0; k < n_out; k++) {
    const ConstData *want = load(m, dir, "out", k);
    const char *why = want ? differs(a, out[k], want, rtol, atol, off) : NULL;
    if (why) {
      printf("output %d: %s\n", k, why);
      return FAIL;
    }
  }
  return PASS;
}

int main(int argc, char **argv) {
  static const char *const names[] = {"PASS", "FAIL", "SKIP"};
  int failures = 0;
  for (int i = 1; i < argc; i++) {
    int fd[2];
    char why[4000] = "";
    if (pipe(fd)) return 70;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
      close(fd[0]);
      dup2(fd[1], 1);
      alarm(getenv("ELEM_TOOL_SECONDS") ? (unsigned)atoi(getenv("ELEM_TOOL_SECONDS")) : 60);
      const int rc = run_case(argv[i]);
      fflush(stdout);
      _exit(rc);
    }
    close(fd[1]);
    size_t n = 0;
    ssize_t got;
    while (n < sizeof why - 1 && (got = read(fd[0], why + n, sizeof why - 1 - n)) > 0)
      n += (size_t)got;
    close(fd[0]);
    why[n] = 0;
    why[strcspn(why, "\n")] = 0;
    int status;
    waitpid(pid, &status, 0);
    const int rc = WIFEXITED(status) && WEXITSTATUS(status) <= SKIP ? WEXITSTATUS(status) : FAIL;
    if (WIFSIGNALED(status)) snprintf(why, sizeof why, "killed by signal %d", WTERMSIG(status));
    printf("%s %s %s\n", names[rc], strrchr(argv[i], '/') ? strrchr(argv[i], '/') + 1 : argv[i],
           why);
    failures += rc == FAIL;
  }
  return failures ? 1 : 0;
}
