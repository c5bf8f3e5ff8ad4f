/* Evaluates models by the meaning of their operators (graph_eval) and compares with expected
 * outputs. elem_tool [--grids] DIR...     each DIR: model.onnx, in_K.pb, out_K.pb, optional tol ("rtol
 * atol [off]": integers may differ by off). One line a directory: PASS, FAIL or SKIP, its name, and the
 * reason. Each runs in a process of its own.
 *
 * --grids: runs all passes for a GPU and interprets the grids that they make, with blocks and threads
 * forwards, backwards and shuffled. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "frontend/frontend.h"
#include "ir/op/op.h"
#include "passes/pass.h"
#include "runtime/abi.h"

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

/* ---- grids ---- */
typedef struct Grids {
  Arena *a;
  const Module *m;
  int64_t *syms;
  bool *known;
} Grids;

static Scalar sym_value(void *user, int id) { return (Scalar){.i = ((Grids *)user)->syms[id]}; }

static int64_t dim_value(Grids *g, const Expr *e) {
  return expr_eval(g->m->model->pool, e, &(EvalEnv){.user = g, .sym = sym_value}).i;
}

/* Sizes that inputs have, and bounds of those that data give. */
static void bind_symbols(Grids *g, const ConstData *const *in) {
  const Graph *const main = g->m->model->main;
  ExprPool *const p = g->m->model->pool;
  const int n = expr_symbol_count(p);
  g->syms = ARENA_ARRAY(g->a, int64_t, n + 1);
  g->known = ARENA_ARRAY(g->a, bool, n + 1);
  for (int k = 0; k < main->inputs.n; k++)
    for (int d = 0; d < main->inputs.data[k]->rank; d++) {
      const Expr *const e = main->inputs.data[k]->dims[d];
      if (e->op != EX_SYM || g->known[e->id]) continue;
      g->syms[e->id] = in[k]->dims[d];
      g->known[e->id] = true;
    }
  for (int k = 0; k < n; k++) {
    const Symbol *const s = expr_symbol(p, k);
    if (!g->known[k]) g->syms[k] = s->bound ? dim_value(g, s->bound) : s->lo > 1 ? s->lo : 1;
  }
}

static ConstData *new_output(Grids *g, const Value *v) {
  ConstData *const out = ARENA_NEW(g->a, ConstData);
  *out = (ConstData){.dtype = v->dtype, .rank = v->rank, .count = 1};
  int64_t *const dims = ARENA_ARRAY(g->a, int64_t, v->rank + 1);
  for (int d = 0; d < v->rank; d++) out->count *= dims[d] = dim_value(g, v->dims[d]);
  out->dims = dims;
  out->data =
      arena_alloc(g->a, (size_t)(out->count > 0 ? out->count : 0) * (size_t)dtype_bytes(v->dtype) +
                            sizeof(void *));
  return out;
}

static bool interpret_in(Grids *g, ThreadOrder order, const ConstData *const *in, ConstData **out) {
  const Graph *const main = g->m->model->main;
  const void **ins = ARENA_ARRAY(g->a, const void *, main->inputs.n + 1);
  void **outs = ARENA_ARRAY(g->a, void *, main->outputs.n + 1);
  bind_symbols(g, in);
  for (int k = 0; k < main->inputs.n; k++) ins[k] = in[k]->data;
  for (int k = 0; k < main->outputs.n; k++) {
    out[k] = new_output(g, main->outputs.data[k]);
    outs[k] = (void *)out[k]->data;
  }
  if (!module_interpret_in(g->m, order, ins, outs, g->syms)) return false;
  for (int k = 0; k < main->outputs.n; k++) {
    if (buffer_is_heap(g->m, g->m->outputs.data[k])) out[k]->data = *(void **)outs[k];
    out[k]->count = 1;
    for (int d = 0; d < out[k]->rank; d++)
      out[k]->count *= ((int64_t *)out[k]->dims)[d] = dim_value(g, main->outputs.data[k]->dims[d]);
  }
  return true;
}

static bool all_are_numbers(const Model *m) {
  const Graph *const g = m->main;
  for (int k = 0; k < g->inputs.n + g->outputs.n; k++) {
    const Value *const v = k < g->inputs.n ? g->inputs.data[k] : g->outputs.data[k - g->inputs.n];
    if (v->kind != TY_TENSOR || v->dtype == DT_STR) return false;
  }
  return true;
}

/* Gradients and strings are evaluated as what passes make of them. */
static bool prepare(Model *m) {
  PassCtx c = {.model = m, .target = target_find("x86-64-v3"), .opt_level = 0, .max_threads = 1};
  return passes_run(&c,
                    &(PassOptions){.passes = all_are_numbers(m) ? "differentiate"
                                                                : "differentiate,expand,strings"});
}

static ConstData item_data(const BurinItem *i) {
  ConstData c = {.dtype = dtype_from_onnx(i->dtype), .rank = i->rank, .dims = i->dims, .count = 1};
  for (int d = 0; d < i->rank; d++) c.count *= i->dims[d];
  c.data = i->data;
  return c;
}

/* A sequence or optional lies elsewhere each time: its items are compared. */
static const char *list_differs(Arena *a, const BurinList *got, const BurinList *want) {
  if (got->count != want->count)
    return arena_printf(a, "%lld items, expected %lld", (long long)got->count,
                        (long long)want->count);
  for (int64_t k = 0; k < got->count; k++) {
    const ConstData x = item_data(&got->items[k]), y = item_data(&want->items[k]);
    const char *const why = differs(a, &x, &y, 0, 0, 0);
    if (why) return arena_printf(a, "item %lld: %s", (long long)k, why);
  }
  return NULL;
}

/* What the grids of m compute, whatever the order. */
static bool run_grids(Model *m, const ConstData *const *in, ConstData **out) {
  PassCtx c = {.model = m, .target = target_find("cuda:host"), .opt_level = 3, .max_threads = 1};
  const int n = m->main->outputs.n;
  Arena *const a = m->arena;
  if (!passes_run(&c, &(PassOptions){.needs = PF_CODE})) return false;
  Grids g = {.a = a, .m = c.module};
  if (!interpret_in(&g, ORDER_FORWARD, in, out)) return false;
  for (int order = ORDER_BACKWARD; order <= ORDER_SHUFFLED; order++) {
    ConstData **const again = ARENA_ARRAY(a, ConstData *, n + 1);
    if (!interpret_in(&g, (ThreadOrder)order, in, again)) return false;
    for (int k = 0; k < n; k++) {
      const char *const why = graph_list(m->main, k, true)
                                  ? list_differs(a, again[k]->data, out[k]->data)
                                  : differs(a, again[k], out[k], 0, 0, 0);
      if (!why) continue;
      printf("output %d depends on the order of threads: %s\n", k, why);
      return false;
    }
  }
  return true;
}

/* ---- cases ---- */
static void read_tolerance(Arena *a, const char *dir, double *rtol, double *atol, int *off) {
  FILE *tol = fopen(arena_printf(a, "%s/tol", dir), "r");
  if (!tol) return;
  if (fscanf(tol, "%lf %lf %d", rtol, atol, off) < 2) *rtol = 1e-3;
  fclose(tol);
}

static int compare_all(Model *m, const char *dir, ConstData *const *out) {
  double rtol = 1e-3, atol = 1e-7;
  int off = 0;
  read_tolerance(m->arena, dir, &rtol, &atol, &off);
  for (int k = 0; k < m->main->outputs.n; k++) {
    const ConstData *want = load(m, dir, "out", k);
    const char *why = want ? differs(m->arena, out[k], want, rtol, atol, off) : NULL;
    if (why) {
      printf("output %d: %s\n", k, why);
      return FAIL;
    }
  }
  return PASS;
}

static int failed(const Diag *d) {
  diag_print(d, stdout);
  return diag_exit_status(d) == 5 ? SKIP : FAIL;
}

static int run_case(const char *dir, bool grids) {
  Arena *a = arena_new((size_t)4 << 30, NULL, NULL);
  Diag *d = diag_new(a);
  const FrontendOptions options = {0};
  Model *m = frontend_load(a, d, arena_printf(a, "%s/model.onnx", dir), &options);
  if (!m) return failed(d);
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
  if (grids && !all_are_numbers(m)) {
    printf("not a tensor of numbers\n");
    return SKIP;
  }
  if (grids ? !run_grids(m, in, out) : !prepare(m) || !graph_eval(m, in, out))
    return diag_errors(d) ? failed(d) : FAIL;
  return compare_all(m, dir, out);
}

int main(int argc, char **argv) {
  static const char *const names[] = {"PASS", "FAIL", "SKIP"};
  int failures = 0;
  const bool grids = argc > 1 && strcmp(argv[1], "--grids") == 0;
  for (int i = 1 + grids; i < argc; i++) {
    int fd[2];
    char why[4000] = "";
    if (pipe(fd)) return 70;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
      close(fd[0]);
      dup2(fd[1], 1);
      alarm(getenv("ELEM_TOOL_SECONDS") ? (unsigned)atoi(getenv("ELEM_TOOL_SECONDS")) : 60);
      const int rc = run_case(argv[i], grids);
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
