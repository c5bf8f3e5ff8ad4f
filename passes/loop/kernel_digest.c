/* What a kernel does, as a list of numbers in which expressions and variables are numbered as they
 * come: equal lists, equal kernels. Or its shape: the same with the first element that it touches
 * of each parameter and its floating-point constants left open. */
#include "passes/loop/kernel_digest.h"

#include <math.h>
#include <string.h>

/* ---- what a shape leaves open ---- */

static bool is_literal(const Expr *e) {
  return e->op == EX_CONST && dtype_is_float((DType)e->dtype) && isfinite(e->k.f) && e->k.f != 0 &&
         fabs(e->k.f) != 1;
}

/* Operations that are compiled the same way for a constant and for a loaded value. */
static bool takes_any(const Expr *e, int arg) {
  switch (e->op) {
    case EX_add:
    case EX_sub:
    case EX_mul:
    case EX_min:
    case EX_max:
    case EX_lt:
    case EX_le: return true;
    case EX_select: return arg > 0;
    default: return false;
  }
}

static bool contains(const ExprList *l, const Expr *e) {
  for (int i = 0; i < l->n; i++)
    if (l->data[i] == e) return true;
  return false;
}

static bool const_is_open(const KernelShape *s, const Expr *e) {
  return is_literal(e) && !contains(&s->fixed, e);
}

static void fix_const(KernelShape *s, const Expr *e) {
  if (e && is_literal(e) && !contains(&s->fixed, e)) vec_push(s->a, &s->fixed, e);
}

/* The constant term of an index in canonical form. */
static int64_t first_element(const Expr *index) {
  int64_t k = 0;
  if (index->op == EX_add)
    expr_is_const(index->a[1], &k);
  else
    expr_is_const(index, &k);
  return k;
}

static void note_index(KernelShape *s, int param, const Expr *index) {
  const int64_t k = first_element(index);
  if (k < s->from[param]) s->from[param] = k;
}

static bool look_at(void *user, const Expr *e) {
  KernelShape *s = user;
  if (e->op == EX_LOAD) note_index(s, e->id, e->a[0]);
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i] && !takes_any(e, i)) fix_const(s, e->a[i]);
  return false;
}

static void look_at_expr(void *user, const Expr *e) {
  KernelShape *s = user;
  fix_const(s, e);
  expr_any(e, ~0u, look_at, s);
}

static bool look_at_stmt(void *user, Stmt *s) {
  if (s->kind == ST_STORE || s->kind == ST_PREFETCH)
    note_index(user, s->access.id, s->access.index);
  stmt_each_expr(s, look_at_expr, user);
  return true;
}

/* Starts of parameters in whole cache lines, so that a pointer is aligned as it was before. */
KernelShape kernel_shape(Arena *a, const Kernel *k) {
  KernelShape s = {.a = a, .from = ARENA_ARRAY(a, int64_t, k->params.n + 1)};
  for (int i = 0; i < k->params.n; i++) s.from[i] = INT64_MAX;
  stmt_each(k->body, look_at_stmt, &s);
  for (int i = 0; i < k->params.n; i++) {
    const int bytes = dtype_bytes(k->params.data[i].dtype);
    const bool open = !k->params.data[i].scratch && s.from[i] > 0 && s.from[i] < INT64_MAX;
    s.from[i] = open && bytes <= 64 ? s.from[i] / (64 / bytes) * (64 / bytes) : 0;
  }
  return s;
}

/* ---- writing ---- */

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
  Vec(int) vars;            /* ids in order of first mention */
  const KernelShape *shape; /* NULL: all is written as it stands */
  ExprList consts;          /* that the shape leaves open, in order of first mention */
} Writer;

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

static const Expr *index_in(const Writer *w, int param, const Expr *index) {
  if (!w->shape || !w->shape->from[param]) return index;
  return ex_sub(w->p, index, ex_i64(w->p, w->shape->from[param]));
}

static int expr_number(Writer *w, const Expr *e) {
  const Seen *s = find(w, e);
  if (s->e) return s->number;
  const bool binds = e->op == EX_VAR || e->op == EX_REDUCE;
  const int64_t id = binds ? var_number(w, e->id) : e->id;
  const bool open = w->shape && const_is_open(w->shape, e);
  int args[3] = {-1, -1, -1};
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i])
      args[i] = expr_number(w, i == 0 && e->op == EX_LOAD ? index_in(w, e->id, e->a[0]) : e->a[i]);
  if (open) vec_push(w->a, &w->consts, e);
  put(w, e->op | e->dtype << 8 | e->nargs << 16 | open << 24);
  put(w, id);
  put(w, open ? 0 : e->k.i);
  for (int i = 0; i < e->nargs; i++) put(w, args[i]);
  Seen *mine = find(w, e);
  *mine = (Seen){e, w->n};
  return w->n++;
}

static void put_expr(Writer *w, const Expr *e) {
  const int number = e ? expr_number(w, e) : -1;
  put(w, number);
}

static void put_stmts(Writer *w, const Stmt *s);

static void put_access(Writer *w, const Stmt *s) {
  const bool moves = s->kind == ST_STORE || s->kind == ST_PREFETCH;
  const Expr *const index = s->access.index;
  put(w, s->kind == ST_ACC ? (int64_t)s->access.reduce : 0);
  put(w, s->access.id);
  put_expr(w, moves ? index_in(w, s->access.id, index) : index);
  put_expr(w, s->access.value);
}

static void put_stmts(Writer *w, const Stmt *s) {
  for (; s; s = s->next) {
    put(w, s->kind);
    switch (s->kind) {
      case ST_FOR:
        put(w, s->loop.kind);
        put_expr(w, s->loop.var);
        break;
      case ST_IF: put_expr(w, s->branch.cond); break;
      default: put_access(w, s); break;
    }
    put_stmts(w, stmt_body(s));
    put_stmts(w, stmt_otherwise(s));
  }
  put(w, -2);
}

static void put_signature(Writer *w, const Kernel *k) {
  for (int i = 0; i < k->params.n; i++) {
    const Param *q = &k->params.data[i];
    put(w, q->dtype);
    if (!w->shape || q->scratch || q->count->op != EX_CONST) put_expr(w, q->count);
    put(w, q->access | q->constant << 4 | q->scratch << 5 | q->align << 8);
  }
  put(w, -3);
  for (int i = 0; i < k->locals.n; i++) {
    put(w, k->locals.data[i].dtype | (int)k->locals.data[i].memory << 8);
    put(w, k->locals.data[i].count);
  }
}

static KernelDigest digest_of(Writer *w, const Kernel *k) {
  put_signature(w, k);
  put_stmts(w, k->body);
  uint64_t hash = 14695981039346656037u;
  for (int i = 0; i < w->out.n; i++) hash = (hash ^ (uint64_t)w->out.data[i]) * 1099511628211u;
  return (KernelDigest){
      .words = w->out.data, .n = w->out.n, .hash = hash ^ hash >> 29, .consts = w->consts};
}

KernelDigest kernel_digest_full(Arena *scratch, ExprPool *p, const Kernel *k) {
  Writer w = {.a = scratch, .p = p};
  return digest_of(&w, k);
}

KernelDigest kernel_digest_shape(Arena *scratch, ExprPool *p, const Kernel *k,
                                 const KernelShape *shape) {
  Writer w = {.a = scratch, .p = p, .shape = shape};
  if (k->flops) put_expr(&w, k->flops);
  return digest_of(&w, k);
}

uint64_t kernel_digest(Arena *scratch, ExprPool *p, const Kernel *k) {
  return kernel_digest_full(scratch, p, k).hash;
}

bool kernel_digest_same(const KernelDigest *x, const KernelDigest *y) {
  return x->hash == y->hash && x->n == y->n &&
         memcmp(x->words, y->words, (size_t)x->n * sizeof *x->words) == 0;
}

/* ---- tables ---- */

KernelTable kernel_table_new(Arena *a, Kernel *const *kernels, KernelDigest *digests, int n) {
  unsigned cap = 16;
  while (cap < 2u * (unsigned)n) cap *= 2;
  KernelTable t = {.digests = digests, .mask = cap - 1};
  t.kernels = arena_dup(a, kernels, (size_t)n * sizeof *kernels);
  t.by_digest = ARENA_ARRAY(a, int, cap);
  t.by_kernel = ARENA_ARRAY(a, int, cap);
  for (int i = 0; i < n; i++) {
    unsigned h = (unsigned)(((uintptr_t)kernels[i] >> 4) * 2654435769u) & t.mask;
    while (t.by_kernel[h]) h = (h + 1) & t.mask;
    t.by_kernel[h] = i + 1;
  }
  return t;
}

int kernel_table_find(const KernelTable *t, const Kernel *k) {
  unsigned i = (unsigned)(((uintptr_t)k >> 4) * 2654435769u) & t->mask;
  while (t->by_kernel[i] && t->kernels[t->by_kernel[i] - 1] != k) i = (i + 1) & t->mask;
  return t->by_kernel[i] - 1;
}

int kernel_table_equal(KernelTable *t, int k) {
  const KernelDigest *d = &t->digests[k];
  unsigned i = (unsigned)d->hash & t->mask;
  while (t->by_digest[i] && !kernel_digest_same(&t->digests[t->by_digest[i] - 1], d))
    i = (i + 1) & t->mask;
  if (!t->by_digest[i]) t->by_digest[i] = k + 1;
  return t->by_digest[i] - 1;
}
