/* Verifier of run-time symbols: on every path through the steps, a symbol is assigned before it is
 * read. Until then it stands at its bound, so that nothing else would show the fault: a wrong size
 * is still a size. Counts of parameters and buffers are bounds, not reads. */
#include <stdlib.h>
#include <string.h>
#include "ir/graph/op_row.h"
#include "ir/loop/loop.h"

typedef struct SymList {
  const Kernel *k;
  Vec(int) ids; /* runtime symbols that the kernel reads */
} SymList;

typedef struct Check {
  const Module *m;
  Arena *a;
  ExprPool *p;
  const char *pass;
  int n_syms;
  SymList *kernels; /* sorted by address, for the search alone */
  SymList *collect; /* the list that is being filled */
  bool *known;      /* by symbol id: assigned on the way to the current step */
  const char *what; /* that is being checked */
  const Loc *loc;
  bool ok;
} Check;

/* ---- what is read ---- */
static bool collect_part(void *user, const Expr *e);

static void collect(void *user, const Expr *e) {
  if (e) expr_any(e, EXF_SYM | EXF_REDUCE, collect_part, user);
}

static bool collect_part(void *user, const Expr *e) {
  Check *c = user;
  if (e->op == EX_REDUCE) collect(c, expr_var_extent(c->p, e->id));
  if (e->op != EX_SYM || !expr_symbol(c->p, e->id)->runtime) return false;
  for (int i = 0; i < c->collect->ids.n; i++)
    if (c->collect->ids.data[i] == e->id) return false;
  vec_push(c->a, &c->collect->ids, e->id);
  return false;
}

static bool collect_stmt(void *user, Stmt *s) {
  Check *c = user;
  if (s->kind == ST_FOR) {
    collect(c, expr_var_lo(c->p, s->loop.var->id));
    collect(c, expr_var_extent(c->p, s->loop.var->id));
  }
  stmt_each_expr(s, collect, c);
  return true;
}

static int by_address(const void *x, const void *y) {
  const Kernel *a = ((const SymList *)x)->k, *b = ((const SymList *)y)->k;
  return a < b ? -1 : a > b;
}

static void collect_kernels(Check *c) {
  const int n = c->m->kernels.n;
  c->kernels = ARENA_ARRAY(c->a, SymList, n + 1);
  for (int i = 0; i < n; i++) {
    c->collect = &c->kernels[i];
    c->kernels[i].k = c->m->kernels.data[i];
    stmt_each(c->kernels[i].k->body, collect_stmt, c);
  }
  qsort(c->kernels, (size_t)n, sizeof *c->kernels, by_address);
}

/* ---- reads ---- */
static void need(Check *c, int id) {
  if (!c->ok || c->known[id]) return;
  c->ok = diag_internal(c->m->model->diag, c->loc, "%s%s%s%s reads $%s before it is assigned",
                        c->pass ? "after " : "", c->pass ? c->pass : "", c->pass ? ": " : "",
                        c->what, expr_symbol(c->p, id)->name);
}

static bool need_sym(void *user, const Expr *e) {
  if (e->op == EX_SYM) need(user, e->id);
  return false;
}

static void reads(Check *c, const Expr *e, const char *what) {
  c->what = what;
  if (e) expr_any(e, EXF_SYM, need_sym, c);
}

static void reads_ref(void *user, const BufRef *r, int access) {
  Check *c = user;
  (void)access;
  reads(c, r->offset, "the offset of an argument");
  for (int id = r->buffer; id >= 0 && c->m->buffers.data[id].kind == BUF_VIEW;
       id = c->m->buffers.data[id].base)
    reads(c, c->m->buffers.data[id].offset, "the offset of a view");
}

static void check_kernel(Check *c, const Step *s) {
  const SymList *k = bsearch(&(SymList){.k = s->call.kernel}, c->kernels, (size_t)c->m->kernels.n,
                             sizeof *k, by_address);
  c->what = s->call.kernel->name;
  for (int i = 0; k && i < k->ids.n; i++) need(c, k->ids.data[i]);
}

static void set(Check *c, int id) {
  if (id >= 0 && id < c->n_syms) c->known[id] = true;
}

/* A function may find the sizes of its results: those are assigned by it. */
static void check_extern(Check *c, const Step *s) {
  for (int i = 0; i < s->ext.n_ins; i++)
    for (int d = 0; d < s->ext.ins[i].rank && s->ext.ins[i].buf.buffer >= 0; d++)
      reads(c, s->ext.ins[i].dims[d], s->ext.row->symbol);
  for (int i = 0; i < s->ext.n_outs; i++)
    for (int d = 0; d < s->ext.outs[i].rank && s->ext.outs[i].buf.buffer >= 0; d++)
      if (s->ext.outs[i].dims[d]->op == EX_SYM) set(c, s->ext.outs[i].dims[d]->id);
  for (int i = 0; i < s->ext.n_outs; i++)
    for (int d = 0; d < s->ext.outs[i].rank && s->ext.outs[i].buf.buffer >= 0; d++)
      reads(c, s->ext.outs[i].dims[d], s->ext.row->symbol);
}

/* ---- steps ---- */
static void check_steps(Check *c, const Step *s);

/* What is known behind a list of steps that starts with what is known now. */
static bool *known_after(Check *c, const Step *s, int also) {
  bool *const before = c->known;
  c->known = arena_dup(c->a, before, sizeof *before * (size_t)(c->n_syms + 1));
  set(c, also);
  check_steps(c, s);
  bool *const after = c->known;
  c->known = before;
  return after;
}

static void check_if(Check *c, const Step *s) {
  const bool *const yes = known_after(c, s->branch.then, -1), *const no = known_after(
                                                                  c, s->branch.otherwise, -1);
  for (int i = 0; i < c->n_syms; i++) c->known[i] |= yes[i] && no[i];
}

/* The body may not run at all: what it assigns is not known behind it. */
static void check_loop(Check *c, const Step *s) {
  reads(c, s->loop.trip, "a trip count");
  known_after(c, s->loop.body, s->loop.iter);
  set(c, s->loop.trips);
}

static void check_step(Check *c, const Step *s) {
  c->loc = s->loc;
  if (s->kind == STEP_IF)
    reads_ref(c, &s->branch.cond, PA_READ);
  else if (s->kind == STEP_LOOP)
    reads_ref(c, &s->loop.cond, PA_READ);
  else
    step_each_ref(s, reads_ref, c);
  switch (s->kind) {
    case STEP_KERNEL: check_kernel(c, s); break;
    case STEP_EXTERN: check_extern(c, s); break;
    case STEP_COPY: reads(c, s->copy.count, "a copy"); break;
    case STEP_IF: check_if(c, s); break;
    case STEP_LOOP: check_loop(c, s); break;
    case STEP_SYM:
      if (s->sym.src.buffer < 0) reads(c, s->sym.value, "a size");
      reads(c, s->sym.lo, "the bound of a size");
      reads(c, s->sym.hi, "the bound of a size");
      set(c, s->sym.id);
      break;
    case STEP_CHECK:
      reads(c, s->check.a, "a check");
      reads(c, s->check.b, "a check");
      break;
    case STEP_ROOM:
      reads(c, s->room.count, "the size of a buffer");
      reads(c, s->room.keep, "the size of a buffer");
      break;
  }
}

static void check_steps(Check *c, const Step *s) {
  for (; s && c->ok; s = s->next) check_step(c, s);
}

/* Who runs the program asks for the sizes of its results. */
static void check_outputs(Check *c) {
  c->loc = NULL;
  for (int i = 0; i < c->m->outputs.n; i++)
    reads(c, c->m->buffers.data[c->m->outputs.data[i]].count, "an output");
  const Graph *const g = c->m->model->main;
  for (int i = 0; g && i < g->outputs.n; i++)
    for (int d = 0; d < g->outputs.data[i]->rank; d++)
      reads(c, g->outputs.data[i]->dims[d], "an output");
}

bool module_verify_symbols(const Module *m, const char *after_pass) {
  Check c = {.m = m, .p = m->model->pool, .pass = after_pass, .ok = true};
  c.n_syms = expr_symbol_count(c.p);
  int runtime = 0;
  for (int i = 0; i < c.n_syms; i++) runtime += expr_symbol(c.p, i)->runtime;
  if (!runtime) return true;
  c.a = arena_child(m->model->arena);
  c.known = ARENA_ARRAY(c.a, bool, c.n_syms + 1);
  for (int i = 0; i < c.n_syms; i++) c.known[i] = !expr_symbol(c.p, i)->runtime;
  collect_kernels(&c);
  check_steps(&c, m->steps);
  if (c.ok) check_outputs(&c);
  arena_free(c.a);
  return c.ok;
}
