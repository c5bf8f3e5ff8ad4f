/* Questions about grids of blocks, which the verifier, the interpreter and serialize_threads ask.
 * What grids are: loop.h. */
#include "ir/loop/loop.h"

int stmt_nest(const Stmt *s, const Stmt *nest[MAX_NEST]) {
  int n = 0;
  for (const Stmt *at = s; at && n < MAX_NEST; at = at->loop.body) {
    const bool alone = at == s || !at->next;
    if (at->kind != ST_FOR || at->loop.kind != s->loop.kind || !alone) break;
    nest[n++] = at;
  }
  return n;
}

static bool is_loop(const Stmt *s, ForKind kind) {
  return s && s->kind == ST_FOR && s->loop.kind == kind;
}

bool kernel_is_grid(const Kernel *k) { return is_loop(k->body, FOR_BLOCK) && !k->body->next; }

/* ---- threads of a block ---- */
typedef struct FindThreads {
  const ExprPool *p;
  int64_t n;
} FindThreads;

static bool is_no_thread_loop(void *user, Stmt *s) {
  FindThreads *const f = user;
  if (!is_loop(s, FOR_THREAD)) return true;
  const Stmt *nest[MAX_NEST];
  f->n = 1;
  for (int i = stmt_nest(s, nest) - 1; i >= 0; i--) {
    int64_t extent = 0;
    expr_is_const(expr_var_extent(f->p, nest[i]->loop.var->id), &extent);
    f->n = extent < 1 || extent > MAX_THREADS ? 0 : f->n * extent;
  }
  return false;
}

int64_t kernel_threads(const ExprPool *p, const Kernel *k) {
  FindThreads f = {.p = p};
  stmt_each(k->body, is_no_thread_loop, &f);
  return f.n;
}

/* ---- locals of threads ---- */
static void mark_private(const Kernel *k, const Stmt *s, bool *private) {
  for (; s; s = s->next) {
    if (is_loop(s, FOR_THREAD)) continue;
    if (s->kind == ST_LOCAL && k->locals.data[s->access.id].memory != MEM_SHARED)
    private[s->access.id] = true;
    mark_private(k, stmt_body(s), private);
    mark_private(k, stmt_otherwise(s), private);
  }
}

bool *kernel_private_locals(Arena *a, const Kernel *k) {
  bool *const private = ARENA_ARRAY(a, bool, k->locals.n + 1);
  if (kernel_is_grid(k)) mark_private(k, k->body, private);
  return private;
}
