/* Makes kernels that differ only in names, variables and locations one kernel. Each kernel is
 * written as a list of numbers in which expressions and variables are numbered as they come; equal
 * lists, equal kernels. Keeps the order of first use. Needs nothing; breaks nothing. */
#include <string.h>
#include "passes/plan.h"

typedef struct Seen {
  const Expr *e;
  int number;
} Seen;

typedef struct Writer {
  Arena *a;
  ExprPool *p;
  Vec(int64_t) out;
  Seen *map;
  int cap, n;
  Vec(int) vars; /* ids in order of first mention */
} Writer;

typedef struct Digest {
  const int64_t *words;
  int n;
  uint64_t hash;
  Kernel *same; /* what it becomes */
} Digest;

static void put(Writer *w, int64_t v) { vec_push(w->a, &w->out, v); }

static Seen *find(Writer *w, const Expr *e) {
  if (2 * w->n >= w->cap) {
    const int cap = w->cap ? 2 * w->cap : 256;
    Seen *old = w->map;
    const int n = w->cap;
    w->map = ARENA_ARRAY(w->a, Seen, cap);
    w->cap = cap;
    for (int i = 0; i < n; i++)
      if (old[i].e) *find(w, old[i].e) = old[i];
  }
  int i = (int)((e->uid * 2654435769u) & (unsigned)(w->cap - 1));
  while (w->map[i].e && w->map[i].e != e) i = (i + 1) & (w->cap - 1);
  return &w->map[i];
}

static int expr_number(Writer *w, const Expr *e);

/* The range of a variable is written when it is first met. */
static int var_number(Writer *w, int id) {
  for (int i = w->vars.n - 1; i >= 0; i--)
    if (w->vars.data[i] == id) return i;
  const Expr *lo = expr_var_lo(w->p, id);
  const int from = lo ? expr_number(w, lo) : -1, extent = expr_number(w, expr_var_extent(w->p, id));
  put(w, from);
  put(w, extent);
  vec_push(w->a, &w->vars, id);
  return w->vars.n - 1;
}

static int expr_number(Writer *w, const Expr *e) {
  const Seen *s = find(w, e);
  if (s->e) return s->number;
  const bool binds = e->op == EX_VAR || e->op == EX_REDUCE;
  const int64_t id = binds ? var_number(w, e->id) : e->id;
  int args[3] = {-1, -1, -1};
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) args[i] = expr_number(w, e->a[i]);
  put(w, e->op | e->dtype << 8 | e->nargs << 16);
  put(w, id);
  put(w, e->k.i);
  for (int i = 0; i < e->nargs; i++) put(w, args[i]);
  Seen *mine = find(w, e);
  *mine = (Seen){e, w->n};
  return w->n++;
}

static void put_expr(Writer *w, const Expr *e) {
  const int number = e ? expr_number(w, e) : -1;
  put(w, number);
}

static void put_stmts(Writer *w, const Stmt *s) {
  for (; s; s = s->next) {
    put(w, s->kind);
    put(w, s->kind == ST_FOR ? s->loop : s->kind == ST_ACC ? (int64_t)s->reduce : 0);
    put(w, s->id);
    put_expr(w, s->var);
    put_expr(w, s->cond);
    put_expr(w, s->index);
    put_expr(w, s->value);
    put_stmts(w, s->body);
    put_stmts(w, s->otherwise);
  }
  put(w, -2);
}

static void put_signature(Writer *w, const Kernel *k) {
  for (int i = 0; i < k->params.n; i++) {
    const Param *q = &k->params.data[i];
    put(w, q->dtype);
    put_expr(w, q->count);
    put(w, q->access | q->constant << 4 | q->scratch << 5 | q->align << 8);
  }
  put(w, -3);
  for (int i = 0; i < k->locals.n; i++) {
    put(w, k->locals.data[i].dtype | k->locals.data[i].stack << 8);
    put(w, k->locals.data[i].count);
  }
}

static Digest digest_of(Arena *scratch, ExprPool *p, const Kernel *k) {
  Writer w = {.a = scratch, .p = p};
  put_signature(&w, k);
  put_stmts(&w, k->body);
  uint64_t hash = 14695981039346656037u;
  for (int i = 0; i < w.out.n; i++) hash = (hash ^ (uint64_t)w.out.data[i]) * 1099511628211u;
  return (Digest){w.out.data, w.out.n, hash ^ hash >> 29, NULL};
}

uint64_t kernel_digest(Arena *scratch, ExprPool *p, const Kernel *k) {
  return digest_of(scratch, p, k).hash;
}

static bool same(const Digest *x, const Digest *y) {
  return x->hash == y->hash && x->n == y->n &&
         memcmp(x->words, y->words, (size_t)x->n * sizeof *x->words) == 0;
}

/* Open-addressing table of positions + 1; only looked up, never walked. */
typedef struct Table {
  int *slot;
  unsigned mask;
} Table;

static Table table_new(Arena *a, int n) {
  unsigned cap = 16;
  while (cap < 2u * (unsigned)n) cap *= 2;
  return (Table){ARENA_ARRAY(a, int, cap), cap - 1};
}

typedef struct Merge {
  const Digest *digests; /* by old position */
  Kernel **old;
  Table by_digest, by_kernel;
} Merge;

static int *digest_slot(const Merge *g, const Digest *d) {
  unsigned i = (unsigned)d->hash & g->by_digest.mask;
  while (g->by_digest.slot[i] && !same(&g->digests[g->by_digest.slot[i] - 1], d))
    i = (i + 1) & g->by_digest.mask;
  return &g->by_digest.slot[i];
}

static int *kernel_slot(const Merge *g, const Kernel *k) {
  unsigned i = (unsigned)(((uintptr_t)k >> 4) * 2654435769u) & g->by_kernel.mask;
  while (g->by_kernel.slot[i] && g->old[g->by_kernel.slot[i] - 1] != k)
    i = (i + 1) & g->by_kernel.mask;
  return &g->by_kernel.slot[i];
}

static void redirect(const Merge *g, Step *s) {
  for (; s; s = s->next) {
    const int at = s->kind == STEP_KERNEL ? *kernel_slot(g, s->kernel) : 0;
    if (at) s->kernel = g->digests[at - 1].same;
    redirect(g, s->body);
    redirect(g, s->otherwise);
  }
}

bool pass_merge_kernels(PassCtx *c) {
  Module *m = c->module;
  const int n = m->kernels.n;
  if (n == 0) return true;
  Digest *d = ARENA_ARRAY(c->scratch, Digest, n);
  Merge g = {
      .digests = d, .by_digest = table_new(c->scratch, n), .by_kernel = table_new(c->scratch, n)};
  g.old = arena_dup(c->scratch, m->kernels.data, (size_t)n * sizeof *g.old);
  m->kernels.n = 0;
  for (int i = 0; i < n; i++) {
    d[i] = digest_of(c->scratch, c->model->pool, g.old[i]);
    int *slot = digest_slot(&g, &d[i]);
    if (!*slot) {
      *slot = i + 1;
      m->kernels.data[m->kernels.n++] = g.old[i];
    }
    d[i].same = g.old[*slot - 1];
    *kernel_slot(&g, g.old[i]) = i + 1;
  }
  if (m->kernels.n == n) return true;
  c->changed = true;
  redirect(&g, m->steps);
  return true;
}
