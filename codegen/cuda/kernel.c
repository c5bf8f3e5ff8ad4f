/* A grid as a CUDA kernel. Block loops are blockIdx, a nest of thread loops is a phase, which every
 * thread goes through with its own threadIdx. Between two phases stands a barrier where one of them
 * reads or writes what another thread may have written or read in the other: shared memory, or a
 * buffer that the kernel writes. In kernels with late locals stands one between all phases, and before
 * it each thread waits for its copies but those of the last phases. */
#include <inttypes.h>
#include <string.h>

#include "codegen/analysis/kernel.h"
#include "codegen/cuda/cuda.h"

#define TEXT(...) arena_printf(c->arena, __VA_ARGS__)

/* What was read and written since the last barrier: parameters, then shared locals. */
typedef struct Touched {
  bool *read, *written;
} Touched;

typedef struct Grid {
  CText *c;
  const Kernel *k;
  int n;               /* of what may be touched */
  Touched pending;     /* since the last barrier */
  bool silent;         /* nothing is written: only what is pending at the end matters */
  bool barriers;       /* there is one */
  int late;            /* the least of late locals; 0: there is none */
  SharedPlace *shared; /* by local */
} Grid;

static const char axes[] = "xyz";
enum { WIDE = 16 }; /* bytes of the widest load of a thread */

/* ---- what a phase touches ---- */
static void clear(const Grid *g, Touched *t) {
  memset(t->read, 0, (size_t)g->n);
  memset(t->written, 0, (size_t)g->n);
}

static Touched touched_new(const Grid *g) {
  return (Touched){ARENA_ARRAY(g->c->arena, bool, g->n + 1),
                   ARENA_ARRAY(g->c->arena, bool, g->n + 1)};
}

static void touched_add(const Grid *g, Touched *to, const Touched *from) {
  for (int i = 0; i < g->n; i++) {
    to->read[i] |= from->read[i];
    to->written[i] |= from->written[i];
  }
}

typedef struct Looking {
  const Grid *g;
  Touched *t;
} Looking;

static bool is_shared(const Grid *g, int local) {
  return g->k->locals.data[local].memory == MEM_SHARED;
}

static bool note_read(void *user, const Expr *e) {
  const Looking *const l = user;
  const Grid *const g = l->g;
  if (e->op == EX_LOAD && g->k->params.data[e->id].access & PA_WRITE) l->t->read[e->id] = true;
  if (e->op == EX_LOCAL && is_shared(g, e->id)) l->t->read[g->k->params.n + e->id] = true;
  return false;
}

static void note_reads(void *user, const Expr *e) {
  if (e) expr_any(e, EXF_LOAD | EXF_LOCAL, note_read, user);
}

static bool note_statement(void *user, Stmt *s) {
  const Looking *const l = user;
  const Grid *const g = l->g;
  stmt_each_expr(s, note_reads, user);
  if (s->kind == ST_FOR) {
    note_reads(user, expr_var_lo(g->c->pool, s->loop.var->id));
    note_reads(user, expr_var_extent(g->c->pool, s->loop.var->id));
  }
  if (s->kind == ST_STORE) l->t->written[s->access.id] = true;
  const bool local = s->kind == ST_SET || s->kind == ST_ACC;
  if (local && is_shared(g, s->access.id)) {
    l->t->written[g->k->params.n + s->access.id] = true;
    if (s->kind == ST_ACC) l->t->read[g->k->params.n + s->access.id] = true;
  }
  return true;
}

static bool meets(const Grid *g, const Touched *a, const Touched *b) {
  for (int i = 0; i < g->n; i++)
    if ((a->written[i] && (b->read[i] || b->written[i])) || (a->read[i] && b->written[i]))
      return true;
  return false;
}

/* ---- phases ---- */
static int least_late(const Kernel *k) {
  int least = 0;
  for (int i = 0; i < k->locals.n; i++) {
    const int late = k->locals.data[i].late;
    if (late && (!least || late < least)) least = late;
  }
  return least;
}

/* Each phase is a group of copies, all but the last ones of which have arrived where one begins. */
static void begin_late(Grid *g) {
  clear(g, &g->pending);
  g->barriers = true;
  if (g->silent) return;
  c_line(g->c, "BURIN_LATE_WAIT(%d);", g->late - 1);
  c_line(g->c, "BURIN_BARRIER();");
}

static void write_phase(Grid *g, const Stmt *s) {
  CText *const c = g->c;
  const Stmt *nest[MAX_NEST];
  const int n = stmt_nest(s, nest);
  c_line(c, "{");
  c->indent++;
  for (int i = 0; i < n; i++) /* the innermost loop counts x */
    c_line(c, "const int i%d = thread.%c;", nest[i]->loop.var->id, axes[n - 1 - i]);
  c->lane = nest[n - 1]->loop.var;
  c_statements(c, nest[n - 1]->loop.body);
  c->indent--;
  c_line(c, "}");
  if (g->late) c_line(c, "BURIN_LATE_END();");
}

static void phase(Grid *g, const Stmt *s) {
  Touched own = touched_new(g);
  Looking l = {g, &own};
  stmt_each(stmt_body(s), note_statement, &l);
  if (g->late) {
    begin_late(g);
  } else if (meets(g, &g->pending, &own)) {
    clear(g, &g->pending);
    if (!g->silent) c_line(g->c, "BURIN_BARRIER();");
    g->barriers = true;
  }
  touched_add(g, &g->pending, &own);
  if (!g->silent) write_phase(g, s);
}

/* ---- what stands around them ---- */
static void block_statements(Grid *g, const Stmt *s);

/* What is pending at the end of an iteration is so at the beginning of the next. */
static void find_carried(Grid *g, const Stmt *s) {
  const bool was = g->silent;
  Touched before = touched_new(g);
  touched_add(g, &before, &g->pending);
  g->silent = true;
  block_statements(g, s->loop.body);
  g->silent = was;
  touched_add(g, &g->pending, &before);
}

static void block_loop(Grid *g, const Stmt *s) {
  CText *const c = g->c;
  find_carried(g, s);
  if (g->silent) {
    block_statements(g, s->loop.body);
    return;
  }
  const int var = s->loop.var->id;
  const Expr *const first = expr_var_lo(c->pool, var), *const n = expr_var_extent(c->pool, var);
  const Expr *const lo = first ? first : ex_i64(c->pool, 0), *const end = ex_add(c->pool, lo, n);
  c_forget(c);
  c_count(c, lo);
  c_count(c, end);
  const char *const from = c_value(c, lo), *const to = c_value(c, end);
  const char *const type = c_is_narrow(c, s->loop.var) && c_is_narrow(c, end) ? "int" : "int64_t";
  if (s->loop.kind == FOR_UNROLL) c_line(c, "#pragma unroll");
  c_line(c, "for (%s i%d = %s; i%d < %s; i%d++) {", type, var, from, var, to, var);
  c->indent++;
  block_statements(g, s->loop.body);
  c->indent--;
  c_line(c, "}");
}

static void block_branch(Grid *g, const Stmt *s) {
  CText *const c = g->c;
  Touched before = touched_new(g), after = touched_new(g);
  touched_add(g, &before, &g->pending);
  c_forget(c);
  c_count(c, s->branch.cond);
  if (!g->silent) c_line(c, "if (%s) {", c_value(c, s->branch.cond));
  c->indent++;
  block_statements(g, s->branch.then);
  c->indent--;
  touched_add(g, &after, &g->pending);
  clear(g, &g->pending);
  touched_add(g, &g->pending, &before);
  if (!g->silent && s->branch.otherwise) c_line(c, "} else {");
  c->indent++;
  block_statements(g, s->branch.otherwise);
  c->indent--;
  if (!g->silent) c_line(c, "}");
  touched_add(g, &g->pending, &after);
}

static void block_statement(Grid *g, const Stmt *s) {
  if (s->kind == ST_FOR && s->loop.kind == FOR_THREAD)
    phase(g, s);
  else if (s->kind == ST_FOR)
    block_loop(g, s);
  else if (s->kind == ST_IF)
    block_branch(g, s);
}

static void block_statements(Grid *g, const Stmt *s) {
  for (; s && !g->c->error; s = s->next) block_statement(g, s);
}

/* ---- the function ---- */
static const char *parameters(CText *c, const KernelFacts *facts) {
  const Kernel *const k = c->kernel;
  StrBuf b = {.arena = c->arena};
  for (int i = 0; i < k->params.n; i++) {
    const Param *const p = &k->params.data[i];
    if (p->scratch) c->error = "scratch in a grid, which has none";
    sb_printf(&b, "%s%s%s *%s%c%d", i ? ", " : "", p->access & PA_WRITE ? "" : "const ",
              c_mem_type(p->dtype), facts->alias[i] ? "" : "__restrict__ ",
              facts->align[i] >= WIDE ? 'p' : 'b', i);
  }
  for (int i = 0, some = k->params.n; i < expr_symbol_count(c->pool); i++)
    if (c->syms[i]) sb_printf(&b, "%sint64_t n%d", some++ ? ", " : "", i);
  return sb_str(&b);
}

/* Loads of elements that follow each other become one where they are known to be aligned. */
static void aligned_pointers(CText *c, const KernelFacts *facts) {
  const Kernel *const k = c->kernel;
  for (int i = 0; i < k->params.n; i++) {
    const char *const type = TEXT("%s%s *", k->params.data[i].access & PA_WRITE ? "" : "const ",
                                  c_mem_type(k->params.data[i].dtype));
    if (facts->align[i] >= WIDE)
      c_line(c, "%sconst b%d = (%s)__builtin_assume_aligned(p%d, %d);", type, i, type, i, WIDE);
  }
}

static void symbols(CText *c) {
  for (int i = 0; i < expr_symbol_count(c->pool); i++) {
    if (!c->syms[i]) continue;
    const bool narrow = c_is_narrow(c, ex_sym(c->pool, expr_symbol(c->pool, i)->name));
    c_line(c, "const %s s%d = (%s)n%d;", narrow ? "int32_t" : "int64_t", i,
           narrow ? "int32_t" : "int64_t", i);
  }
}

/* Nobody uses what lay there, and no copy into it is under way. */
static void renew(Grid *g) {
  if (g->late) {
    c_line(g->c, "BURIN_LATE_WAIT(0);"); /* a barrier stands in front of every phase */
    return;
  }
  clear(g, &g->pending);
  g->barriers = true;
  c_line(g->c, "BURIN_BARRIER();");
}

static void block_body(Grid *g, const Stmt *s) {
  for (int n = 0; s && !g->c->error; s = s->next, n++) {
    if (shared_is_renewed(g->k, g->shared, n)) renew(g);
    block_statement(g, s);
  }
}

static void locals(const Grid *g, int64_t shared) {
  CText *const c = g->c;
  const Kernel *const k = c->kernel;
  if (shared) c_line(c, "BURIN_SHARED;");
  for (int i = 0; i < k->locals.n; i++) {
    const Local *const l = &k->locals.data[i];
    const char *const type = c_mem_type(l->dtype);
    if (l->memory != MEM_SHARED)
      c_line(c, "BURIN_ALIGNED %s t%d[%" PRId64 "];", c->stored[i] ? type : c_reg_type(l->dtype), i,
             l->count);
    else if (g->shared[i].end)
      c_line(c, "%s *const t%d = (%s *)(shared + %" PRId64 ");", type, i, type, g->shared[i].at);
  }
}

static void block_indices(CText *c) {
  const Stmt *nest[MAX_NEST];
  const int n = stmt_nest(c->kernel->body, nest);
  for (int i = 0; i < n; i++)
    c_line(c, "const int i%d = (int)blockIdx.%c;", nest[i]->loop.var->id, axes[n - 1 - i]);
}

static bool find_threads(void *user, Stmt *s) {
  Launch *const l = ((void **)user)[0];
  const ExprPool *const p = ((void **)user)[1];
  if (s->kind != ST_FOR || s->loop.kind != FOR_THREAD) return true;
  const Stmt *nest[MAX_NEST];
  const int n = stmt_nest(s, nest);
  for (int i = 0; i < n; i++) {
    int64_t extent = 1;
    expr_is_const(expr_var_extent(p, nest[i]->loop.var->id), &extent);
    l->threads[n - 1 - i] = (int)extent;
  }
  return false;
}

/* Of the stand-in: a block, thread by thread. */
static void host_function(CText *c, const char *name, const Launch *l, bool barriers, StrBuf *out) {
  const Kernel *const k = c->kernel;
  StrBuf args = {.arena = c->arena};
  int n = 0;
  for (int i = 0; i < k->params.n; i++)
    sb_printf(&args, "%s*(%s%s *const *)args[%d]", n ? ", " : "",
              k->params.data[i].access & PA_WRITE ? "" : "const ",
              c_mem_type(k->params.data[i].dtype), n),
        n++;
  for (int i = 0; i < l->n_syms; i++)
    sb_printf(&args, "%s*(const int64_t *)args[%d]", n ? ", " : "", n), n++;
  sb_printf(out,
            "#ifdef BURIN_STAND_IN\n"
            "static void %s_thread(void *arg) {\n"
            "  void *const *const args = (void *const *)arg;\n  (void)args;\n  %s(%s);\n}\n"
            "extern \"C\" void %s_block(void *const *args, const int32_t block[3], const int32_t "
            "grid[3]) {\n"
            "  (void)grid;\n  blockIdx = (BurinIndex){block[0], block[1], block[2]};\n"
            "  burin_gpu_block_run(%s_thread, (void *)args, %d, %" PRId64 ", %d);\n}\n#endif\n",
            name, name, sb_str(&args), name, name, l->threads[0] * l->threads[1] * l->threads[2],
            l->shared, barriers);
}

static void thread_index(CText *c, const Launch *l) {
  c_line(c, "BURIN_THREAD(%d, %d);", l->threads[0], l->threads[1]);
}

/* The nodes, without what ends or goes on with a line. */
static const char *comment(CText *c, const Loc *loc) {
  const char *const nodes = program_node_list(c->arena, loc);
  char *const text = arena_strdup(c->arena, *nodes ? nodes : c->kernel->name);
  for (char *s = text; *s; s++)
    if ((unsigned char)*s < ' ' || *s == '\\') *s = '_';
  return text;
}

const char *cuda_kernel(CState *s, int position, Arena *scratch, StrBuf *out, Launch *l) {
  const Program *const p = s->p;
  const Kernel *const k = p->m->kernels.data[position];
  StrBuf body = {.arena = scratch}, head = {.arena = scratch};
  CText text = {.s = s,
                .p = p,
                .pool = p->m->model->pool,
                .arena = scratch,
                .out = &body,
                .indent = 1,
                .kernel = k,
                .device = true,
                .matrix = cuda_matrix,
                .vector = cuda_vector},
        *const c = &text;
  const int n_syms = expr_symbol_count(c->pool);
  c->params = ARENA_ARRAY(scratch, bool, k->params.n + 1);
  c->syms = ARENA_ARRAY(scratch, bool, n_syms + 1);
  c->stored = ARENA_ARRAY(scratch, bool, k->locals.n + 1);
  for (int i = 0; i < k->locals.n; i++) c->stored[i] = k->locals.data[i].memory != MEM_REGS;
  *l = (Launch){.threads = {1, 1, 1}};
  stmt_each(k->body, find_threads, (void *[]){l, c->pool});
  Grid g = {.c = c, .k = k, .n = k->params.n + k->locals.n, .late = least_late(k)};
  g.barriers = kernel_has_matrix(k); /* of warps */
  g.pending = touched_new(&g);
  const Stmt *nest[MAX_NEST];
  const int n = stmt_nest(k->body, nest);
  l->shared = kernel_shared_places(scratch, k, &g.shared);
  block_body(&g, nest[n - 1]->loop.body);
  c->out = &head;
  aligned_pointers(c, &p->facts[position]);
  symbols(c);
  block_indices(c);
  thread_index(c, l);
  if (g.late) c_line(c, "BURIN_LATE;");
  locals(&g, l->shared);
  int *const syms = ARENA_ARRAY(p->arena, int, n_syms + 1);
  for (int i = 0; i < n_syms; i++)
    if (c->syms[i]) syms[l->n_syms++] = i;
  l->syms = syms;
  const char *const name = arena_printf(scratch, "%s_%s", p->name, k->name);
  sb_printf(out, "\n// %s\n", comment(c, program_kernel_loc(p, position)));
  sb_printf(out, "extern \"C\" __global__ void __launch_bounds__(%d) %s(%s) {\n%s%s}\n",
            l->threads[0] * l->threads[1] * l->threads[2], name, parameters(c, &p->facts[position]),
            sb_str(&head), sb_str(&body));
  host_function(c, name, l, g.barriers, out);
  return c->error;
}
