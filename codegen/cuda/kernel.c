/* A grid as a CUDA kernel. Block loops are blockIdx, a nest of thread loops is a phase, which every
 * thread goes through with its own threadIdx. Between two phases stands what barriers.c says. In kernels
 * with late locals each phase is a group of copies; in front of a barrier of the block each thread waits
 * for its own but those of the last phases. */
#include <inttypes.h>
#include <string.h>

#include "codegen/analysis/kernel.h"
#include "codegen/cuda/barriers.h"
#include "codegen/cuda/cuda.h"

#define TEXT(...) arena_printf(c->arena, __VA_ARGS__)

typedef struct Grid {
  CText *c;
  const Kernel *k;
  Barriers between;
  bool silent;         /* nothing is written: only what is pending at the end matters */
  bool barriers;       /* there is one */
  SharedPlace *shared; /* by local */
} Grid;

static const char axes[] = "xyz";
enum { WIDE = 16 }; /* bytes of the widest load of a thread */

/* ---- phases ---- */
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
  if (g->between.late) c_line(c, "BURIN_LATE_END();");
}

static void phase(Grid *g, const Stmt *s) {
  CText *const c = g->c;
  const Barrier barrier = barriers_phase(&g->between, s);
  if (g->silent) return;
  if (barrier) g->barriers = true;
  if (barrier == BARRIER_BLOCK && g->between.late)
    c_line(c, "BURIN_LATE_WAIT(%d);", g->between.late - 1);
  if (barrier) c_line(c, barrier == BARRIER_BLOCK ? "BURIN_BARRIER();" : "BURIN_WARP_BARRIER();");
  write_phase(g, s);
}

/* ---- what stands around them ---- */
static void block_statements(Grid *g, const Stmt *s);

/* What is pending at the end of an iteration is so at the beginning of the next. */
static void find_carried(Grid *g, const Stmt *s) {
  const bool was = g->silent;
  g->silent = true;
  for (bool more = true; more;) {
    const Touched before = barriers_pending(&g->between);
    block_statements(g, s->loop.body);
    barriers_add(&g->between, &before);
    more = !barriers_is(&g->between, &before);
  }
  g->silent = was;
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
  const Touched before = barriers_pending(&g->between);
  c_forget(c);
  c_count(c, s->branch.cond);
  if (!g->silent) c_line(c, "if (%s) {", c_value(c, s->branch.cond));
  c->indent++;
  block_statements(g, s->branch.then);
  c->indent--;
  const Touched after = barriers_pending(&g->between);
  barriers_set(&g->between, &before);
  if (!g->silent && s->branch.otherwise) c_line(c, "} else {");
  c->indent++;
  block_statements(g, s->branch.otherwise);
  c->indent--;
  if (!g->silent) c_line(c, "}");
  barriers_add(&g->between, &after);
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
  barriers_clear(&g->between);
  g->barriers = true;
  if (g->between.late) c_line(g->c, "BURIN_LATE_WAIT(0);");
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

/* Bounds of the launch. NVRTC spares registers for blocks that an SM might hold; where shared memory
 * leaves room for so few that a thread may have all registers, they say so. */
static const char *launch_bounds(CText *c, const Launch *l) {
  enum { OF_BLOCK = 1024, MOST_REGISTERS = 255 };
  const Gpu *const g = c->p->t->gpu;
  const int threads = l->threads[0] * l->threads[1] * l->threads[2];
  const int64_t blocks = g->shared_bytes / (l->shared + OF_BLOCK);
  if (blocks < 1 || blocks * threads * MOST_REGISTERS > g->registers) return TEXT("%d", threads);
  return TEXT("%d, %d", threads, (int)blocks);
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
  Grid g = {.c = c, .k = k, .between = barriers_new(scratch, c->pool, k)};
  g.barriers = kernel_has_matrix(k); /* of warps */
  const Stmt *nest[MAX_NEST];
  const int n = stmt_nest(k->body, nest);
  l->shared = kernel_shared_places(scratch, k, &g.shared);
  block_body(&g, nest[n - 1]->loop.body);
  c->out = &head;
  aligned_pointers(c, &p->facts[position]);
  symbols(c);
  block_indices(c);
  thread_index(c, l);
  if (g.between.late) c_line(c, "BURIN_LATE;");
  locals(&g, l->shared);
  int *const syms = ARENA_ARRAY(p->arena, int, n_syms + 1);
  for (int i = 0; i < n_syms; i++)
    if (c->syms[i]) syms[l->n_syms++] = i;
  l->syms = syms;
  const char *const name = arena_printf(scratch, "%s_%s", p->name, k->name);
  sb_printf(out, "\n// %s\n", comment(c, program_kernel_loc(p, position)));
  sb_printf(out, "extern \"C\" __global__ void __launch_bounds__(%s) %s(%s) {\n%s%s}\n",
            launch_bounds(c, l), name, parameters(c, &p->facts[position]), sb_str(&head),
            sb_str(&body));
  host_function(c, name, l, g.barriers, out);
  return c->error;
}
