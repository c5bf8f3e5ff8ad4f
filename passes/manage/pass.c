/* The pass manager: order, requirements, verification after every pass, dumps, times. In debug
 * builds graph or program are also printed, parsed and printed again after every pass
 * (BURIN_DEBUG), so that no pass can make what the text cannot say. */
#include <string.h>
#include <time.h>
#include "passes/choose/choose.h"
#include "passes/form/form.h"
#include "passes/graph/rewrite.h"
#include "passes/manage/dump.h"
#include "passes/memory/plan.h"

/* ---- properties ---- */
static bool is_expanded(const PassCtx *c) {
  return c->model->main && graph_is_expanded(c->model->main);
}

static bool is_fused(const PassCtx *c) { return c->model->fused; }

static bool has_contractions(const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    if (n->op->flags & OF_CONTRACTION) return true;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && has_contractions(n->attrs[k].graph)) return true;
  }
  return false;
}

/* Without optimization no template is used; those of GPUs need no plan. */
static bool needs_no_plan(const PassCtx *c) {
  return c->opt_level == 0 || target_has_grids(c->target) || !c->model->main ||
         !has_contractions(c->model->main);
}

static bool is_chosen(const PassCtx *c) {
  return needs_no_plan(c) || (c->model->fused && plans_fit(c));
}

static bool is_tiled(const PassCtx *c) {
  return needs_no_plan(c) || (c->model->fused && tiles_are_chosen(c->model));
}

static bool is_laid_out(const PassCtx *c) { return c->model->laid_out; }

static bool is_lowered(const PassCtx *c) { return c->module != NULL; }

static bool runs_on_target(const PassCtx *c) {
  for (int i = 0; c->module && i < c->module->kernels.n; i++)
    if (kernel_is_grid(c->module->kernels.data[i]) != target_has_grids(c->target)) return false;
  return c->module != NULL;
}

static bool is_function(void *user, const Expr *e) {
  return e->op >= EX_exp && e->op <= EX_pow && dtype_is_float((DType)e->dtype);
}

static void see_function(void *user, const Expr *e) {
  *(bool *)user |= (e->flags & EXF_MATH) && expr_any(e, EXF_MATH, is_function, NULL);
}

static bool has_no_function(void *user, Stmt *s) {
  stmt_each_expr(s, see_function, user);
  return !*(bool *)user;
}

static bool is_basic(const PassCtx *c) {
  bool found = false;
  for (int i = 0; c->module && i < c->module->kernels.n && !found; i++)
    stmt_each(c->module->kernels.data[i]->body, has_no_function, &found);
  return c->module && !found;
}

static bool is_narrow(const PassCtx *c) {
  for (int i = 0; c->module && i < c->module->kernels.n; i++) {
    const Kernel *k = c->module->kernels.data[i];
    for (int q = 0; q < k->params.n; q++)
      if (dtype_bytes(k->params.data[q].dtype) > 8) return false;
    for (int q = 0; q < k->locals.n; q++)
      if (dtype_bytes(k->locals.data[q].dtype) > 8) return false;
  }
  return c->module != NULL;
}

static bool is_planned(const PassCtx *c) {
  const Module *m = c->module;
  if (!m || !m->arena_bytes || !m->scratch_bytes) return false;
  for (int i = 0; i < m->buffers.n; i++)
    if (m->buffers.data[i].kind == BUF_ARENA && !m->buffers.data[i].offset) return false;
  return true;
}

typedef struct Property {
  const char *name;
  bool (*holds)(const PassCtx *c); /* NULL: cannot be seen */
  const char *meaning;
} Property;
static const Property properties[] = {
#define PROPERTY(id, name, holds, meaning) {name, holds, meaning},
#include "passes/manage/passes.def"
};

/* What graph passes decide, and what is left by those that make nodes, or use buffers otherwise. */
enum {
  GRAPH = PF_EXPANDED | PF_FUSED | PF_CHOSEN | PF_LAYOUT | PF_TILED,
  PLANS = PF_FUSED | PF_CHOSEN,
  LOWERS = PF_EXPANDED | PF_TILED,
  REWRITES = PF_EXPANDED,
  REORDERS = PF_ALL & ~PF_PLANNED
};

#define P(nm, lvl, f, nd, kp, gv, opt, hlp) \
  {.name = #nm,                             \
   .level = lvl,                            \
   .fn = f,                                 \
   .needs = nd,                             \
   .keeps = kp,                             \
   .gives = gv,                             \
   .min_opt = opt,                          \
   .help = hlp},
const PassRow pass_rows[] = {
#include "passes/manage/passes.def"
};
const int pass_row_count = (int)(sizeof pass_rows / sizeof *pass_rows);

#define RUN(name) #name,
static const char *const pipeline[] = {
#include "passes/manage/passes.def"
    NULL};

const char *const *passes_pipeline(void) { return pipeline; }

const PassRow *pass_find(const char *name) {
  for (int i = 0; i < pass_row_count; i++)
    if (strcmp(pass_rows[i].name, name) == 0) return &pass_rows[i];
  return NULL;
}

typedef Vec(const PassRow *) PassList;

typedef struct Run {
  PassCtx *c;
  const PassOptions *o;
  Arena *arena;
  unsigned state; /* PF_* */
  bool program;   /* it begins with one: the graph is gone */
  double *seconds;
  Dump dump;
} Run;

/* ---- what to run ---- */

static bool usage(Run *r, const char *what, const char *name) {
  const Loc none = {.node = -1};
  return diag_error(r->c->model->diag, &none, ERR_USAGE, "%s '%s'", what, name);
}

static bool is_disabled(const PassOptions *o, const char *name) {
  for (int i = 0; i < o->n_disabled; i++)
    if (strcmp(o->disabled[i], name) == 0) return true;
  return false;
}

static bool plan_list(Run *r, const char *list, PassList *plan) {
  for (const char *s = list; *s;) {
    const size_t n = strcspn(s, ",");
    const char *name = arena_strndup(r->arena, s, n);
    const PassRow *row = pass_find(name);
    if (!row) return usage(r, "unknown pass", name);
    if (!is_disabled(r->o, name)) vec_push(r->arena, plan, row);
    s += n + (s[n] == ',');
  }
  return true;
}

/* All of the default pipeline, or its loop passes. */
static void plan_default(Run *r, bool loop_only, PassList *plan) {
  for (int i = 0; pipeline[i]; i++) {
    const PassRow *row = pass_find(pipeline[i]);
    if (row && row->min_opt <= r->c->opt_level && !is_disabled(r->o, row->name) &&
        (!loop_only || row->level == PL_LOOP))
      vec_push(r->arena, plan, row);
  }
}

/* What the text says; what is known of contents does not stand in the text of a graph. */
static bool plan_todo(Run *r, PassList *plan) {
  const char *todo = r->c->model->todo;
  if (!r->program) vec_push(r->arena, plan, pass_find("infer"));
  if (!r->program && strncmp(todo, "infer,", 6) == 0) todo += 6;
  return plan_list(r, todo, plan);
}

static bool fits_program(Run *r, const PassList *plan) {
  const Loc loc = {.file = r->c->model->file, .node = -1};
  for (int i = 0; r->program && i < plan->n; i++)
    if (plan->data[i]->level != PL_LOOP)
      return diag_error(r->c->model->diag, &loc, ERR_USAGE,
                        "pass '%s' works on graphs, and this is the text of a program",
                        plan->data[i]->name);
  return true;
}

/* A program to which nothing is left to do is taken as it is. */
static bool make_plan(Run *r, PassList *plan) {
  for (int i = 0; i < r->o->n_disabled; i++)
    if (!pass_find(r->o->disabled[i])) return usage(r, "unknown pass", r->o->disabled[i]);
  if (r->o->print_after && strcmp(r->o->print_after, "all") != 0 && !pass_find(r->o->print_after))
    return usage(r, "unknown pass", r->o->print_after);
  bool ok = true;
  if (r->o->passes)
    ok = plan_list(r, r->o->passes, plan);
  else if (r->c->model->todo)
    ok = plan_todo(r, plan);
  else if (!r->program || (PF_CODE & ~r->state))
    plan_default(r, r->program, plan);
  r->c->model->todo = NULL;
  return ok && fits_program(r, plan);
}

/* ---- state ---- */
/* What can be seen to hold of what the pipeline begins with. */
static unsigned seen(const PassCtx *c) {
  unsigned state = 0;
  for (int k = 0; k < PF_COUNT; k++)
    if (properties[k].holds && properties[k].holds(c)) state |= 1U << k;
  return state;
}

static const char *giver(int property) {
  for (int i = 0; i < pass_row_count; i++)
    if (pass_rows[i].gives >> property & 1) return pass_rows[i].name;
  return "?";
}

/* `who` is "pass layout" or "the code". A property that was lost can hold all the same. */
static bool needs_hold(Run *r, const char *who, unsigned needs) {
  const Loc none = {.node = -1};
  for (int k = 0; k < PF_COUNT; k++) {
    if (!(needs & ~r->state & 1U << k)) continue;
    const Property *p = &properties[k];
    if (p->holds && p->holds(r->c)) continue;
    return diag_error(r->c->model->diag, &none, ERR_USAGE, "%s needs '%s' (%s): add %s before it",
                      who, p->name, p->meaning, giver(k));
  }
  return true;
}

/* The graph remembers its own, in its text, too; kernels of a graph that changed are gone, as is a
 * plan of memory that does not fit any more. */
static void state_after(Run *r, const PassRow *row) {
  r->state = (r->state & row->keeps) | row->gives;
  r->c->model->fused = (r->state & PF_FUSED) != 0;
  r->c->model->laid_out = (r->state & PF_LAYOUT) != 0;
  if (!(r->state & PF_LOWERED)) r->c->module = NULL;
  if (r->c->module && !(r->state & PF_PLANNED)) r->c->module->arena_bytes = NULL;
}

#ifdef BURIN_DEBUG
static bool state_holds(Run *r, const PassRow *row) {
  for (int k = 0; k < PF_COUNT; k++)
    if ((r->state >> k & 1) && properties[k].holds && !properties[k].holds(r->c))
      return diag_internal(r->c->model->diag, NULL, "pass %s %s '%s', which does not hold after it",
                           row->name, row->gives >> k & 1 ? "gives" : "keeps", properties[k].name);
  return true;
}
#else
static bool state_holds(Run *r, const PassRow *row) { return true; }
#endif

/* ---- text ---- */

static const char *ir_text(Run *r, Arena *a, bool with_consts) {
  StrBuf b = {.arena = a};
  if (r->c->module)
    module_print(r->c->module, &b);
  else
    model_print(r->c->model, &b, with_consts);
  return sb_str(&b);
}

#ifdef BURIN_DEBUG
enum { ROUND_TRIP_BYTES = 4 << 20 };

static int64_t const_bytes(const Model *m) {
  int64_t sum = 0;
  for (int i = 0; i < m->consts.n; i++)
    sum += m->consts.data[i]->count * dtype_bytes(m->consts.data[i]->dtype);
  return sum;
}

/* Equal up to the order of bytes, since a fresh pool may order the terms of a sum and the operands
 * of an addition differently. In programs parentheses move with that, and what an expression shares
 * with itself: lines with shared parts are read back, but not compared. */
static bool same_line(bool graph, const char *a, size_t na, const char *b, size_t nb) {
  long sum[256] = {0};
  if (!graph && memchr(a, '%', na) && memchr(b, '%', nb)) return true;
  for (size_t i = 0; i < na; i++) sum[(unsigned char)a[i]]++;
  for (size_t i = 0; i < nb; i++) sum[(unsigned char)b[i]]--;
  for (int i = 0; i < 256; i++)
    if (sum[i] && (graph || (i != '(' && i != ')'))) return false;
  return true;
}

static bool same_text(bool graph, const char *a, const char *b, int *line) {
  for (*line = 1; *a && *b; ++*line) {
    const size_t na = strcspn(a, "\n"), nb = strcspn(b, "\n");
    if (!same_line(graph, a, na, b, nb)) return false;
    a += na + (a[na] != 0);
    b += nb + (b[nb] != 0);
  }
  return *a == *b;
}

static const char *line_of(Arena *a, const char *text, int line) {
  while (line > 1 && *text)
    if (*text++ == '\n') line--;
  return arena_strndup(a, text, strcspn(text, "\n"));
}

/* The text of what `text` says; a module's constants are lent to it. NULL: reported. */
static const char *printed_again(Run *r, Arena *a, const char *text, const char *file) {
  const Model *m = r->c->model;
  StrBuf b = {.arena = a};
  if (r->c->module) {
    Model fresh = {.arena = a, .pool = expr_pool_new(a), .diag = m->diag};
    for (int i = 0; i < r->c->module->buffers.n; i++) {
      ConstData *const data = (ConstData *)r->c->module->buffers.data[i].data;
      if (data) vec_push(a, &fresh.consts, data);
    }
    *expr_pool_rules(fresh.pool) = *expr_pool_rules(m->pool);
    const Module *again = module_parse(&fresh, text, file);
    if (!again) return NULL;
    module_print(again, &b);
  } else {
    const Model *again = model_parse(a, m->diag, text, file);
    if (!again) return NULL;
    model_print(again, &b, true);
  }
  return sb_str(&b);
}

static bool round_trip(Run *r, const PassRow *row) {
  if (!r->c->module && const_bytes(r->c->model) > ROUND_TRIP_BYTES) return true;
  Arena *a = arena_child(r->arena);
  int line = 0;
  const char *first = ir_text(r, a, true);
  if (strlen(first) > ROUND_TRIP_BYTES) return arena_free(a), true;
  const char *second = printed_again(r, a, first, row->name);
  const bool ok = second && same_text(!r->c->module, first, second, &line);
  if (!ok)
    diag_internal(r->c->model->diag, NULL,
                  "after pass %s: the text does not round-trip, line %d: %s | %s", row->name, line,
                  line_of(r->arena, first, line), line_of(r->arena, second ? second : "", line));
  arena_free(a);
  return ok;
}
#else
static bool round_trip(Run *r, const PassRow *row) { return true; }
#endif

/* ---- dumps ---- */

static void print_after(Run *r, const PassRow *row) {
  const char *want = r->o->print_after;
  if (!want || (strcmp(want, "all") != 0 && strcmp(want, row->name) != 0)) return;
  Arena *a = arena_child(r->arena);
  FILE *f = r->o->dump ? r->o->dump : stdout;
  fprintf(f, "// after %s%s\n", row->name, r->c->changed ? "" : " (unchanged)");
  if (r->c->changed || strcmp(want, "all") != 0) fputs(ir_text(r, a, false), f);
  arena_free(a);
}

static void print_times(const Run *r, const PassList *plan) {
  double sum = 0;
  for (int i = 0; i < plan->n; i++) sum += r->seconds[i];
  fprintf(stderr, "%10s  %5s  pass\n", "seconds", "%");
  for (int i = 0; i < plan->n; i++)
    fprintf(stderr, "%10.4f  %5.1f  %s\n", r->seconds[i], sum > 0 ? 100 * r->seconds[i] / sum : 0,
            plan->data[i]->name);
  fprintf(stderr, "%10.4f         total\n", sum);
}

/* ---- running ---- */

static bool verify(Run *r, const PassRow *row) {
  return r->c->module ? module_verify(r->c->module, row->name)
                      : model_verify(r->c->model, row->name);
}

static bool run_one(Run *r, const PassRow *row) {
  if (!needs_hold(r, arena_printf(r->arena, "pass %s", row->name), row->needs)) return false;
  const int errors = diag_errors(r->c->model->diag);
  r->c->scratch = arena_child(r->arena);
  r->c->changed = false;
  if (r->program && row->gives & PF_PLANNED) diag_blame(r->c->model->diag, r->c->model->file);
  const bool ok = row->fn(r->c);
  diag_blame(r->c->model->diag, NULL);
  arena_free(r->c->scratch);
  r->c->scratch = NULL;
  if (!ok && diag_errors(r->c->model->diag) == errors)
    return diag_internal(r->c->model->diag, NULL, "pass %s failed without saying why", row->name);
  state_after(r, row);
  return ok && state_holds(r, row) && verify(r, row) && round_trip(r, row);
}

/* The state before pass k of the plan, and what remains from there. */
static bool write_dump(Run *r, const PassList *plan, int k) {
  if (!r->o->ir_dir) return true;
  StrBuf todo = {.arena = r->arena};
  for (int i = k; i < plan->n; i++) sb_printf(&todo, "%s%s", i > k ? "," : "", plan->data[i]->name);
  r->c->model->todo = sb_str(&todo);
  const bool ok = dump_write(&r->dump, r->c, k, k ? plan->data[k - 1] : NULL);
  r->c->model->todo = NULL;
  return ok;
}

/* A plan that came with the text. */
static bool check_given_plan(Run *r) {
  if (!r->program || !(r->state & PF_PLANNED)) return true;
  diag_blame(r->c->model->diag, r->c->model->file);
  const bool ok = plan_check(r->c->module);
  diag_blame(r->c->model->diag, NULL);
  return ok;
}

static bool run_list(PassCtx *c, const char *passes) {
  return passes_run(c, &(PassOptions){.passes = passes});
}

bool passes_run(PassCtx *c, const PassOptions *o) {
  c->run_passes = run_list;
  Run r = {.c = c, .o = o, .arena = c->model->arena, .program = c->module != NULL};
  PassList plan = {0};
  r.state = seen(c);
  r.dump = (Dump){.dir = o->ir_dir, .with_data = o->ir_data, .store = {.arena = r.arena}};
  if (c->target) *expr_pool_rules(c->model->pool) = target_float_rules(c->target);
  if (!make_plan(&r, &plan) || !check_given_plan(&r) || !write_dump(&r, &plan, 0)) return false;
  r.seconds = ARENA_ARRAY(r.arena, double, plan.n);
  for (int i = 0; i < plan.n; i++) {
    if (o->progress) o->progress(o->progress_user, plan.data[i]->name, i, plan.n);
    const double start = clock_seconds();
    if (!run_one(&r, plan.data[i])) return false;
    r.seconds[i] = clock_seconds() - start;
    print_after(&r, plan.data[i]);
    if (!write_dump(&r, &plan, i + 1)) return false;
  }
  if (o->time) print_times(&r, &plan);
  return needs_hold(&r, "the code", o->needs);
}
