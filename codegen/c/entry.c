/* NAME_invoke and the other functions of a file that are not kernels. Symbols lie in an array by
 * id, which kernels get, too. */
#include <inttypes.h>

#include "codegen/c/c.h"

#define TEXT(...) arena_printf(c->arena, __VA_ARGS__)

/* ---- sizes ---- */
const char *c_wide(CText *c, const Expr *e) {
  e = expr_lower_math(c->pool, e);
  c_forget(c);
  c_count(c, e);
  return c_value(c, e);
}

/* NAME_symbols(sym, dims): the caller's, and run-time ones at their upper bounds, so that every
 * size can be computed before they are known. */
static void symbols(CText *c) {
  const Program *const p = c->p;
  const int n = expr_symbol_count(c->pool);
  sb_printf(c->out, "\nstatic void %s_symbols(int64_t *sym, const int64_t *dims) {\n", p->name);
  c_line(c, "(void)sym, (void)dims;");
  for (int i = 0; i < n; i++) c_line(c, "sym[%d] = 0;", i);
  for (int i = 0; i < p->n_caller; i++) c_line(c, "sym[%d] = dims[%d];", p->symbols[i], i);
  for (int i = 0; i < n; i++) {
    const Symbol *const s = expr_symbol(c->pool, i);
    if (s->runtime && s->bound)
      c_line(c, "sym[%d] = %s;", i, c_wide(c, program_upper(p, s->bound)));
  }
  sb_printf(c->out, "}\n");
}

static int symbol_slots(const CText *c) { return expr_symbol_count(c->pool) + 1; }

static void arena_size(CText *c) {
  const Program *const p = c->p;
  sb_printf(c->out, "\nuint64_t %s_arena_size(const int64_t *dims, int32_t threads) {\n", p->name);
  c_line(c, "int64_t sym[%d];", symbol_slots(c));
  c_line(c, "%s_symbols(sym, dims);", p->name);
  const char *const arena = c_wide(c, program_arena_bytes(p)), *const thread = c_wide(
                                                                   c, program_thread_bytes(p));
  c_line(c, "if (!(%s)) return UINT64_MAX;", c_fits(c, program_arena_bytes(p)));
  c_line(c, "if (!(%s)) return UINT64_MAX;", c_fits(c, program_thread_bytes(p)));
  c_line(c, "return (uint64_t)%s + (uint64_t)%s * (uint64_t)(threads > 1 ? threads : 1);", arena,
         thread);
  sb_printf(c->out, "}\n");
}

/* A size of an output; where only bounds are known, what it is at most: n - k grows as k shrinks.
 */
static void output_dims(CText *c) {
  const Program *const p = c->p;
  const Graph *const g = p->m->model->main;
  sb_printf(
      c->out,
      "\nvoid %s_output_dims(int32_t k, const int64_t *dims, int64_t *out, int32_t bounds) {\n",
      p->name);
  c_line(c, "int64_t sym[%d];", symbol_slots(c));
  c_line(c, "(void)out, (void)bounds;");
  c_line(c, "%s_symbols(sym, dims);", p->name);
  for (int i = p->n_caller; i < p->n_symbols; i++)
    c_line(c, "if (!bounds) sym[%d] = dims[%d];", p->symbols[i], i);
  c_line(c, "switch (k) {");
  c->indent++;
  for (int i = 0; g && i < g->outputs.n; i++) {
    const Value *const v = g->outputs.data[i];
    c_line(c, "case %d: {", i);
    c->indent++;
    for (int d = 0; d < v->rank; d++) {
      const char *const exact = c_wide(c, v->dims[d]);
      if (expr_uses_runtime(c->pool, v->dims[d]))
        c_line(c, "out[%d] = bounds ? %s : %s;", d, c_wide(c, program_upper(p, v->dims[d])), exact);
      else
        c_line(c, "out[%d] = %s;", d, exact);
    }
    c_line(c, "break;");
    c->indent--;
    c_line(c, "}");
  }
  c_line(c, "default: break;");
  c->indent--;
  c_line(c, "}");
  sb_printf(c->out, "}\n");
}

/* ---- running ---- */
static int most_args(const Program *p) {
  int n = 1;
  for (int i = 0; i < p->calls.n; i++) {
    const Step *const s = p->calls.data[i];
    if (s->kind == STEP_KERNEL && s->call.n_args > n) n = s->call.n_args;
  }
  return n;
}

static void run_steps(CEntry *e) {
  c_line(e->c, "char *const scratch = arena ? (char *)arena + arena_bytes : NULL;");
  c_line(e->c, "(void)bufs, (void)scratch, (void)in, (void)out;");
  c_steps(e, e->p->m->steps);
}

static void tell_sizes(CEntry *e) {
  for (int i = e->p->n_caller; i < e->p->n_symbols; i++)
    c_line(e->c, "dims[%d] = sym[%d];", i, e->p->symbols[i]);
  for (int i = 0; i < e->p->m->outputs.n; i++) {
    const Buffer *const b = &e->p->m->buffers.data[e->p->m->outputs.data[i]];
    if (b->kind == BUF_HEAP)
      c_line(e->c, "*(void **)out[%d] = (void *)(uintptr_t)sym[%d];", i, b->address);
  }
}

static void invoke(CText *c) {
  const Program *const p = c->p;
  CEntry e = {.c = c, .p = p, .assigned = ARENA_ARRAY(c->arena, bool, symbol_slots(c))};
  sb_printf(c->out,
            "\nstatic int32_t %s_invoke(const void *const *in, void *const *out, int64_t *dims, "
            "void *arena, const "
            "BurinOptions *given) {\n",
            p->name);
  c_line(c, "BurinOptions own;");
  c_line(c, "int64_t sym[%d];", symbol_slots(c));
  c_line(c, "void *bufs[%d];", most_args(p));
  const EntryList list = entry_list(p);
  for (int i = 0; i < list.n; i++) {
    if (list.data[i].kind == EN_STEPS)
      run_steps(&e);
    else if (list.data[i].kind == EN_RESULTS)
      tell_sizes(&e);
    else
      c_check(&e, &list.data[i]);
  }
  c_line(c, "return BURIN_OK;");
  sb_printf(c->out, "}\n");
}

static const char *sizes_at(CText *c, int pointers) {
  if (!pointers) return "0";
  return TEXT("offsetof(struct { void *data[%d]; int64_t size; }, size)", pointers);
}

/* The structs of NAME_run are the pointers, then the symbols. */
static void run(CText *c, bool with_options) {
  const Program *const p = c->p;
  const char *const n = p->name;
  sb_printf(c->out, "\nint32_t %s_run%s(const %s_inputs *in, %s_outputs *out, void *arena%s) {\n",
            n, with_options ? "_opts" : "", n, n,
            with_options ? ", const BurinOptions *options" : "");
  if (!with_options) {
    c_line(c, "return %s_run_opts(in, out, arena, NULL);", n);
    sb_printf(c->out, "}\n");
    return;
  }
  c_line(c, "int64_t dims[%d];", p->n_symbols + 1);
  c_line(c, "if (!in || !out) return BURIN_E_ARGUMENT;");
  if (p->n_caller)
    c_line(c, "memcpy(dims, (const char *)in + %s, %d * sizeof *dims);",
           sizes_at(c, p->m->inputs.n), p->n_caller);
  c_line(c,
         "const int32_t status = %s_invoke((const void *const *)(const void *)in, (void *const "
         "*)(void *)out, dims, arena, options);",
         n);
  if (p->n_symbols > p->n_caller)
    c_line(c, "if (status == BURIN_OK) memcpy((char *)out + %s, dims + %d, %d * sizeof *dims);",
           sizes_at(c, p->m->outputs.n), p->n_caller, p->n_symbols - p->n_caller);
  c_line(c, "return status;");
  sb_printf(c->out, "}\n");
}

const char *c_entry(CState *s, Unit *u) {
  const Program *const p = s->p;
  CText text = {.s = s,
                .p = p,
                .pool = p->m->model->pool,
                .arena = p->arena,
                .out = &s->entry,
                .indent = 1},
        *const c = &text;
  c_defaults(s, &s->entry);
  symbols(c);
  arena_size(c);
  output_dims(c);
  invoke(c);
  sb_printf(c->out,
            "\nint32_t %s_run_opts(const %s_inputs *in, %s_outputs *out, void *arena, const "
            "BurinOptions *options);\n",
            p->name, p->name, p->name);
  run(c, false);
  run(c, true);
  sb_printf(c->out, "\nint32_t %s_cpu_ok(void) { return 1; }\n", p->name);
  c_info(s, &s->entry);
  u->step = c->step;
  u->stack = 8 * (int64_t)(2 * symbol_slots(c) + most_args(p) + p->m->inputs.n + c->temps +
                           4 * c->loops + p->n_symbols) +
             512;
  return c->error;
}
