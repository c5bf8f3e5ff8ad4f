/* The command line of a compiled program. */
#include "program.h"

static bool usage(Program *p, const char *text, const char *what) {
  program_error(p, "%s: %s (--help lists the options)", what, text);
  return false;
}

/* NAME/ITEM=… of a list. */
static bool find_item(const Program *p, Argument *a, const BurinTensorInfo *infos, int32_t n) {
  const char *rest;
  for (int32_t i = 0; i < n; i++) {
    if (!list_info(p, i, infos == p->model->outputs) ||
        !text_starts(a->text, infos[i].name, &rest) || *rest++ != '/')
      continue;
    if (text_int(&rest, &a->item) && *rest == '=' && a->item >= 0)
      return a->index = i, a->value = rest + 1, true;
  }
  return false;
}

/* The tensor that "NAME=…" means: by name (which may hold '='), or by position. */
static bool find_tensor(const Program *p, Argument *a, const BurinTensorInfo *infos, int32_t n) {
  const char *rest;
  a->item = 0;
  for (int32_t i = 0; i < n; i++)
    if (text_starts(a->text, infos[i].name, &rest) && *rest == '=')
      return a->index = i, a->value = rest + 1, true;
  if (find_item(p, a, infos, n)) return true;
  int64_t k;
  rest = a->text;
  if (!text_int(&rest, &k) || *rest != '=' || k < 0 || k >= n) return false;
  a->index = (int32_t)k;
  a->value = rest + 1;
  return true;
}

static bool add_tensor(Program *p, const char *text, const BurinTensorInfo *infos, int32_t n,
                       Argument *list, int *count) {
  Argument a = {.text = text};
  if (!find_tensor(p, &a, infos, n)) {
    usage(p, "no such tensor, or no '='", text);
    out_format(&p->err, "note: there are:");
    for (int32_t i = 0; i < n; i++) out_format(&p->err, " %s", infos[i].name);
    out_format(&p->err, "\n");
    return false;
  }
  for (int i = 0; list == p->inputs && i < *count; i++)
    if (list[i].index == a.index && list[i].item == a.item)
      return usage(p, "this input is given twice", text);
  list[(*count)++] = a;
  return true;
}

static bool add_dim(Program *p, const char *text) {
  for (int32_t i = 0; i < p->model->n_caller_symbols; i++) {
    const char *rest;
    if (text_starts(text, p->model->symbols[i], &rest) && *rest++ == '=') {
      if (!text_int(&rest, &p->dims[i]) || *rest || p->dims[i] < 0) break;
      return true;
    }
  }
  return usage(p, "no such dimension, or not a size", text);
}

static bool number_option(Program *p, const char *option, const char *value, double *out) {
  const char *v = value;
  return (text_double(&v, out) && !*v) || usage(p, "not a number", option);
}

static bool count_option(Program *p, const char *option, const char *value, int64_t *out) {
  const char *v = value;
  return (text_int(&v, out) && !*v && *out > 0) || usage(p, "not a positive number", option);
}

static bool order_option(Program *p, const char *value) {
  static const char orders[][12] = {"forward", "backward", "shuffled"};
  for (int32_t i = 0; i < 3; i++)
    if (text_equal(value, orders[i])) return p->gpu_order = i, true;
  return usage(p, "forward, backward or shuffled", value);
}

/* Options with a value, given as "--x V" or "--x=V". */
static bool valued_option(Program *p, const char *name, const char *value) {
  const BurinModel *m = p->model;
  if (text_equal(name, "--input"))
    return add_tensor(p, value, m->inputs, m->n_inputs, p->inputs, &p->n_inputs);
  if (text_equal(name, "--output"))
    return add_tensor(p, value, m->outputs, m->n_outputs, p->outputs, &p->n_outputs);
  if (text_equal(name, "--expect"))
    return add_tensor(p, value, m->outputs, m->n_outputs, p->expected, &p->n_expected);
  if (text_equal(name, "--dim")) return add_dim(p, value);
  if (text_equal(name, "--threads")) return count_option(p, name, value, &p->threads);
  if (text_equal(name, "--seed")) return count_option(p, name, value, &p->seed);
  if (text_equal(name, "--rtol")) return number_option(p, name, value, &p->rtol);
  if (text_equal(name, "--atol")) return number_option(p, name, value, &p->atol);
  if (text_equal(name, "--gpu-order") && text_equal(p->model->target, "cuda:host"))
    return order_option(p, value);
  if (text_equal(name, "--labels")) return p->labels = value, true;
  return usage(p, "unknown option", name);
}

static bool one_option(Program *p, int argc, char **argv, int *i) {
  const char *arg = argv[*i], *value;
  if (text_equal(arg, "--help") || text_equal(arg, "-h")) return p->help = true;
  if (text_equal(arg, "--info")) return p->info = true;
  if (text_equal(arg, "--profile")) return p->profile = true;
  if (text_equal(arg, "--quiet")) return p->quiet = true;
  if (text_equal(arg, "--check-memory")) return p->check_memory = true;
  if (text_equal(arg, "--bench")) return p->bench = true;
  if (text_starts(arg, "--bench=", &value))
    return p->bench = true, count_option(p, "--bench", value, &p->bench_runs);
  char name[32] = {0};
  size_t n = 0;
  for (; arg[n] && arg[n] != '=' && n < sizeof name - 1; n++) name[n] = arg[n];
  if (arg[n] == '=') return valued_option(p, name, arg + n + 1);
  if (arg[0] != '-' || *i + 1 >= argc)
    return usage(p,
                 arg[0] == '-' ? "unknown, or its value is missing"
                               : "what is it? inputs are --input NAME=@FILE",
                 arg);
  return valued_option(p, arg, argv[++*i]);
}

/* Room for every option that could come, and for the tensors. */
static bool make_tables(Program *p, int argc) {
  const size_t in = (size_t)p->model->n_inputs + 1, out = (size_t)p->model->n_outputs + 1,
               options = (size_t)argc + 1;
  p->dims = sys_alloc(((size_t)p->model->n_symbols + 1) * sizeof *p->dims);
  p->inputs = sys_alloc(options * sizeof *p->inputs);
  p->outputs = sys_alloc(options * sizeof *p->outputs);
  p->expected = sys_alloc(options * sizeof *p->expected);
  p->in = sys_alloc(in * sizeof *p->in);
  p->in_data = sys_alloc(in * sizeof *p->in_data);
  p->result = sys_alloc(out * sizeof *p->result);
  p->out_data = sys_alloc(out * sizeof *p->out_data);
  return p->dims && p->inputs && p->outputs && p->expected && p->in && p->in_data && p->result &&
         p->out_data;
}

bool options_parse(Program *p, int argc, char **argv) {
  const size_t n = (size_t)p->model->n_symbols;
  if (!make_tables(p, argc)) return usage(p, "not enough memory", p->model->name);
  for (size_t i = 0; i < n; i++) p->dims[i] = -1;
  p->threads = 1;
  p->seed = 1;
  p->rtol = 1e-3;
  p->atol = 1e-5;
  for (int i = 1; i < argc; i++)
    if (!one_option(p, argc, argv, &i)) return false;
  return output_formats_known(p);
}
