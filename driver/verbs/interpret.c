/* burin run --interpret: the loop IR in the interpreter. */
#include <stdlib.h>
#include <string.h>
#include "driver/driver.h"
#include "runtime/abi.h"

typedef struct Interp {
  Session *s;
  int64_t *syms;
  bool *known;
} Interp;

static Scalar sym_value(void *user, int id) {
  return (Scalar){.i = ((const Interp *)user)->syms[id]};
}

static int64_t eval_dim(Interp *in, const Expr *e) {
  EvalEnv env = {.user = in, .sym = sym_value};
  return expr_eval(in->s->model->pool, e, &env).i;
}

/* name=@file or name=literal → the text behind the '='; index of the value, -1: no such name. */
static int split_named(const char *arg, int n, const char *const *names, const char **rest) {
  for (int k = 0; k < n; k++) {
    const size_t len = strlen(names[k]);
    if (strncmp(arg, names[k], len) != 0 || arg[len] != '=') continue;
    *rest = arg + len + 1;
    return k;
  }
  return -1;
}

static bool read_named(Session *s, const char *text, Tensor *t) {
  return *text == '@' ? tensor_read(s, text + 1, t) : tensor_literal(s, text, t);
}

static bool bind_dims(Interp *in, const Value *v, const Tensor *t) {
  if (t->dtype != v->dtype)
    return usage_error("input %s is %s, the file has %s", v->name, dtype_text(v->dtype),
                       dtype_text(t->dtype)),
           false;
  if (t->rank != v->rank)
    return usage_error("input %s has %d dimensions, the file %d", v->name, v->rank, t->rank), false;
  for (int k = 0; k < v->rank; k++) {
    const Expr *e = v->dims[k];
    if (e->op == EX_SYM && !in->known[e->id]) {
      in->syms[e->id] = t->dims[k];
      in->known[e->id] = true;
    }
    if (eval_dim(in, e) == t->dims[k]) continue;
    return usage_error("dimension %d of input %s is %lld, should be %lld", k, v->name,
                       (long long)t->dims[k], (long long)eval_dim(in, e)),
           false;
  }
  return true;
}

/* Sizes that no given input says are those of the default. */
static void default_dims(Interp *in, const Value *v) {
  for (int k = 0; k < v->rank; k++) {
    const Expr *e = v->dims[k];
    if (e->op != EX_SYM || in->known[e->id]) continue;
    in->syms[e->id] = v->init->cdata->dims[k];
    in->known[e->id] = true;
  }
}

/* ---- sequences and optionals: NAME/0, NAME/1 …, NAME=[], NAME=none ---- */
typedef struct ListInput {
  BurinList list; /* what the model reads */
  Vec(BurinItem) items;
} ListInput;

/* NAME/ITEM=…: the item, and the text behind the '='. */
static bool split_item(const char *arg, const char *name, int64_t *item, const char **rest) {
  const size_t n = strlen(name);
  char *end;
  if (strncmp(arg, name, n) != 0 || arg[n] != '/' || arg[n + 1] < '0' || arg[n + 1] > '9')
    return false;
  *item = strtoll(arg + n + 1, &end, 10);
  *rest = end + 1;
  return *end == '=';
}

static bool put_item(Interp *in, ListInput *l, const char *text) {
  Tensor *const t = ARENA_ARRAY(in->s->arena, Tensor, 1);
  if (!read_named(in->s, text, t)) return false;
  if (t->dtype == DT_STR) return usage_error("--interpret takes tensors of numbers only"), false;
  const BurinItem item = {t->data, dtype_rows[t->dtype].onnx, t->rank, t->dims};
  vec_push(in->s->arena, &l->items, item);
  l->list = (BurinList){.count = l->items.n, .items = l->items.data};
  return true;
}

/* Whether arg is about the list; *ok false: reported. */
static bool take_item(Interp *in, const char *arg, const char *name, const ListType *type,
                      ListInput *l, bool *ok) {
  const char *rest;
  int64_t item;
  *ok = true;
  if (split_item(arg, name, &item, &rest)) {
    if (item != l->items.n)
      *ok = (usage_error("items of input %s are given out of order: %s", name, arg), false);
    else
      *ok = put_item(in, l, rest);
    return true;
  }
  if (split_named(arg, 1, &name, &rest) < 0) return false;
  const bool none = strcmp(rest, "none") == 0 && type->kind != LIST_SEQUENCE;
  if (none || (strcmp(rest, "[]") == 0 && type->kind != LIST_OPTIONAL))
    l->list = (BurinList){.count = none ? -1 : 0};
  else if (type->kind == LIST_SEQUENCE)
    *ok = (usage_error("input %s is a sequence: --input %s/0=@FILE", name, name), false);
  else
    *ok = put_item(in, l, rest);
  return true;
}

static bool read_list(Interp *in, int k, const List *args, const void **data, bool *used) {
  const Graph *const g = in->s->model->main;
  const ListType *const type = graph_list(g, k, false);
  const char *const name = g->inputs.data[k]->name;
  ListInput *const l = ARENA_ARRAY(in->s->arena, ListInput, 1);
  bool given = false, ok = true;
  l->list.count = type->kind == LIST_SEQUENCE ? 0 : -1;
  for (int i = 0; i < args->n && ok; i++)
    if (take_item(in, args->v[i], name, type, l, &ok)) given = used[i] = true;
  if (ok && !given && type->kind == LIST_SEQUENCE)
    return usage_error("input %s is missing: --input %s/0=@FILE, or %s=[]", name, name, name),
           false;
  data[k] = &l->list;
  return ok;
}

static bool read_tensor(Interp *in, const char *arg, const char *const *names, const void **data) {
  const Graph *const g = in->s->model->main;
  const char *rest;
  Tensor t;
  const int at = split_named(arg, g->inputs.n, names, &rest);
  if (at < 0) return usage_error("--input %s: the model has no such input", arg), false;
  if (!read_named(in->s, rest, &t) || !bind_dims(in, g->inputs.data[at], &t)) return false;
  data[at] = t.data;
  return true;
}

static bool read_inputs(Interp *in, const void **data) {
  Session *s = in->s;
  const Graph *g = s->model->main;
  List args;
  if (!input_arguments(s, false, &args)) return false;
  const char **names = ARENA_ARRAY(s->arena, const char *, g->inputs.n);
  bool *const used = ARENA_ARRAY(s->arena, bool, args.n + 1);
  for (int k = 0; k < g->inputs.n; k++) names[k] = g->inputs.data[k]->name;
  for (int k = 0; k < g->inputs.n; k++)
    if (graph_list(g, k, false) && !read_list(in, k, &args, data, used)) return false;
  for (int k = 0; k < args.n; k++)
    if (!used[k] && !read_tensor(in, args.v[k], names, data)) return false;
  for (int k = 0; k < g->inputs.n; k++)
    if (!data[k] && !g->inputs.data[k]->init)
      return usage_error("input %s is missing: --input %s=@file.npy", names[k], names[k]), false;
  for (int k = 0; k < g->inputs.n; k++)
    if (!data[k]) default_dims(in, g->inputs.data[k]);
  return true;
}

/* Upper bounds: runtime symbols count as their bound. */
static void bound_symbols(Interp *in) {
  ExprPool *p = in->s->model->pool;
  for (int k = 0; k < expr_symbol_count(p); k++) {
    const Symbol *sym = expr_symbol(p, k);
    if (!in->known[k] && sym->bound)
      in->syms[k] = eval_dim(in, sym->bound);
    else if (!in->known[k])
      in->syms[k] = sym->lo > 1 ? sym->lo : 1;
  }
}

static void output_shape(Interp *in, const Value *v, Tensor *t) {
  *t = (Tensor){.dtype = v->dtype, .rank = v->rank, .count = 1};
  for (int k = 0; k < v->rank; k++) t->count *= t->dims[k] = eval_dim(in, v->dims[k]);
}

static void print_tensor(const char *name, const Tensor *t) {
  printf("%s: %s[", name, dtype_text(t->dtype));
  for (int k = 0; k < t->rank; k++) printf("%s%lld", k ? "," : "", (long long)t->dims[k]);
  printf("] ");
  for (int64_t k = 0; k < t->count && k < 16; k++) {
    const char *p = (const char *)t->data + k * dtype_bytes(t->dtype);
    if (dtype_is_float(t->dtype))
      printf(" %.7g", dtype_load_f(t->dtype, p));
    else
      printf(" %lld", (long long)dtype_load_i(t->dtype, p));
  }
  printf("%s\n", t->count > 16 ? " …" : "");
}

static int check_expected(Session *s, const char *name, const char *text, const Tensor *got) {
  Tensor wanted;
  if (!read_named(s, text, &wanted)) return session_status(s, EXIT_OK);
  if (wanted.dtype != got->dtype || wanted.rank != got->rank ||
      memcmp(wanted.dims, got->dims, sizeof *got->dims * (size_t)got->rank) != 0) {
    printf("%s: type or shape differs from what is expected\n", name);
    return EXIT_MISMATCH;
  }
  const Difference d = tensor_compare(got, &wanted, s->o->rtol ? atof(s->o->rtol) : 1e-3,
                                      s->o->atol ? atof(s->o->atol) : 1e-5);
  if (!s->o->quiet || d.wrong)
    printf("%s: %s, largest difference %.3g absolute, %.3g relative\n", name,
           d.wrong ? "MISMATCH" : "as expected", d.max_abs, d.max_rel);
  if (d.wrong)
    printf("%s: %lld of %lld elements differ; element %lld is %.9g, expected %.9g\n", name,
           (long long)d.wrong, (long long)got->count, (long long)d.first, d.got, d.wanted);
  return d.wrong ? EXIT_MISMATCH : EXIT_OK;
}

/* --expect and --output of output k; *shown: it need not be printed. */
static int finish_output(Session *s, const char *name, const Tensor *t, bool *shown) {
  int status = EXIT_OK;
  const char *rest;
  for (int i = 0; i < s->o->expects.n; i++) {
    if (split_named(s->o->expects.v[i], 1, &name, &rest) != 0) continue;
    const int st = check_expected(s, name, rest, t);
    if (status == EXIT_OK) status = st;
    *shown = true;
  }
  for (int i = 0; i < s->o->outputs.n; i++)
    if (split_named(s->o->outputs.v[i], 1, &name, &rest) == 0 && *rest == '@') {
      if (!tensor_write(s, rest + 1, t)) return diag_exit_status(s->diag);
      *shown = true;
    }
  return status;
}

static int finish_tensor(Session *s, const char *name, const Tensor *t) {
  bool shown = s->o->quiet;
  const int status = finish_output(s, name, t, &shown);
  if (!shown && (status == EXIT_OK || status == EXIT_MISMATCH)) print_tensor(name, t);
  return status;
}

static int finish_list(Session *s, const char *name, const BurinList *l) {
  int status = EXIT_OK;
  if (l->count <= 0 && !s->o->quiet) printf("%s: %s\n", name, l->count < 0 ? "none" : "[]");
  for (int64_t i = 0; i < l->count; i++) {
    const BurinItem *const item = &l->items[i];
    Tensor t = {.dtype = dtype_from_onnx(item->dtype), .rank = item->rank, .count = 1};
    for (int d = 0; d < t.rank; d++) t.count *= t.dims[d] = item->dims[d];
    t.data = (void *)(uintptr_t)item->data;
    const int st = finish_tensor(s, arena_printf(s->arena, "%s/%lld", name, (long long)i), &t);
    if (st != EXIT_OK && st != EXIT_MISMATCH) return st;
    if (st) status = st;
  }
  return status;
}

static int finish_outputs(Interp *in, void **outs) {
  Session *s = in->s;
  const Graph *g = s->model->main;
  int status = EXIT_OK;
  for (int k = 0; k < g->outputs.n; k++) {
    Tensor t;
    const char *const name = g->output_names.data[k];
    output_shape(in, g->outputs.data[k], &t);
    t.data = buffer_is_heap(s->module, s->module->outputs.data[k]) ? *(void **)outs[k] : outs[k];
    const int st =
        graph_list(g, k, true) ? finish_list(s, name, t.data) : finish_tensor(s, name, &t);
    if (st != EXIT_OK && st != EXIT_MISMATCH) return st;
    if (st) status = st;
  }
  return session_commit(s) ? status : diag_exit_status(s->diag);
}

/* Room for all that output k may be; of one in the heap, for its address. */
static void *output_room(Interp *in, int k) {
  const Module *const m = in->s->module;
  const Buffer *const b = &m->buffers.data[m->outputs.data[k]];
  const Expr *const most =
      buffer_is_heap(m, b->id) ? NULL : expr_upper(in->s->model->pool, b->count, NULL);
  const int64_t count = most ? eval_dim(in, most) : 0;
  return arena_alloc(in->s->arena, (size_t)(count > 0 ? count : 0) * (size_t)dtype_bytes(b->dtype) +
                                       sizeof(void *));
}

static bool has_strings(const Graph *g) {
  for (int k = 0; k < g->inputs.n; k++) {
    const ListType *const l = graph_list(g, k, false);
    if (l ? l->dtype == DT_STR : g->inputs.data[k]->dtype == DT_STR) return true;
  }
  for (int k = 0; k < g->outputs.n; k++) {
    const ListType *const l = graph_list(g, k, true);
    if (l ? l->dtype == DT_STR : g->outputs.data[k]->dtype == DT_STR) return true;
  }
  return false;
}

int interpret_body(Session *s, void *user) {
  (void)user;
  if (!session_target(s)) return EXIT_USAGE;
  if (!session_load(s, s->o->files.v[0]) || !session_has_data(s) || !session_passes(s, PF_CODE))
    return session_status(s, EXIT_OK);
  const Graph *g = s->model->main;
  const int n = expr_symbol_count(s->model->pool);
  Interp in = {
      .s = s, .syms = ARENA_ARRAY(s->arena, int64_t, n), .known = ARENA_ARRAY(s->arena, bool, n)};
  const void **ins = ARENA_ARRAY(s->arena, const void *, g->inputs.n);
  void **outs = ARENA_ARRAY(s->arena, void *, g->outputs.n);
  if (has_strings(g)) return usage_error("--interpret takes and gives numbers only");
  if (!read_inputs(&in, ins)) return session_status(s, EXIT_OK);
  bound_symbols(&in);
  for (int k = 0; k < g->outputs.n; k++) outs[k] = output_room(&in, k);
  progress_show(s, "interpreting", 0, 0);
  if (!module_interpret(s->module, ins, outs, in.syms)) return diag_exit_status(s->diag);
  progress_clear(s);
  return finish_outputs(&in, outs);
}
