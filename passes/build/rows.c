/* Reductions by the threads of a block, for GPUs. Elements whose reductions are the same ones are a
 * row: those of a softmax, or a single one where all is reduced. For each reduction every thread
 * takes each so manieth term; partial results meet in shared memory, a few threads take some of
 * them each, then all threads take what these have. So the order is the same in every run. Then the
 * threads share the elements of the row. What they computed for one reduction and need again for
 * the next, or for the elements, they keep (row_keep.c); a longer row is read again from the cache.
 *
 * A block has several rows where these are short. Threads beside each other (x) are on one row, or,
 * where rows lie beside each other in memory, on as many rows. */
#include "passes/build/rows.h"

#include "ir/expr/expr_query.h"
#include "passes/build/nest.h"
#include "passes/build/row_chain.h"
#include "passes/build/row_keep.h"

enum { MAX_TOPS = 16, WARP = 32, BLOCK = 256, MOST = 1024 };
/* Elements that a thread keeps; bytes for them, as registers of threads of a block are 256 KB. */
enum { MOST_KEPT = 16, KEPT_BYTES = 192, KEPT_OF_BLOCK = 128 << 10 };
enum { SHORT_CHAIN = 1024 }; /* terms that one accumulator of f32 takes */

typedef struct Rows {
  ExprPool *p;
  const RowNest *s;
  const Expr *top[MAX_TOPS]; /* reductions that all of a row have in common, inner ones first */
  int n_tops;
  const Expr *row[MAX_RANK + 2], *in[MAX_RANK + 2]; /* variables of rows, and in them */
  int n_row, n_in;
  double rows, inner, terms; /* terms: of the longest reduction */
  /* ---- while a kernel is made ---- */
  KernelBuild *b;
  Arena *a;
  int64_t lanes, height; /* threads on a row, rows of a block */
  bool beside;           /* rows lie beside each other */
  const Expr *x, *y;     /* number of the thread on its row, of the row in the block */
  const Expr *inside;    /* the row exists; NULL: all do */
  const Expr *value, *store;
  StmtList block, now; /* what the block does; the nest of threads that is being written */
  bool keeps;
  RowKeep keep;
  const Expr *length; /* elements of a row, where threads keep theirs */
} Rows;

/* ---- what is reduced ---- */
static double guess(ExprPool *p, const Expr *var) {
  return expr_extent_guess(p, expr_var_extent(p, var->id));
}

/* r stands inside the body of `around` and depends on its variable. */
static bool depends_on(ExprPool *p, const Expr *r, const Expr *around) {
  return around->uid > r->uid && r->id != around->id && expr_uses_var(r, around->id) &&
         expr_contains(p, around, r);
}

static bool is_nested(ExprPool *p, const ExprList *all, const Expr *r) {
  for (int i = 0; i < all->n; i++)
    if (depends_on(p, r, all->data[i])) return true;
  return false;
}

/* Bounds that all threads know. */
static bool has_plain_bounds(ExprPool *p, const Expr *r) {
  const Expr *const lo = expr_var_lo(p, r->id);
  return !((expr_var_extent(p, r->id)->flags | (lo ? lo->flags : 0)) & ~EXF_SYM);
}

static bool find_tops(Rows *w) {
  ExprList all = {0};
  if (expr_has_scan(w->p, w->s->value)) return false;
  expr_reductions(w->p, w->s->value, &all);
  for (int i = 0; i < all.n; i++) {
    const Expr *const r = all.data[i];
    if (is_nested(w->p, &all, r)) continue;
    if (w->n_tops == MAX_TOPS || !has_plain_bounds(w->p, r)) return false;
    w->top[w->n_tops++] = r;
    const double n = row_chain_terms(w->p, r);
    if (n > w->terms) w->terms = n;
  }
  return w->n_tops > 0;
}

static bool describe(Rows *w, ExprPool *p, const RowNest *s) {
  *w = (Rows){.p = p, .s = s, .rows = 1, .inner = 1, .value = s->value, .store = s->store};
  if (!find_tops(w)) return false;
  for (int k = 0; k < s->n; k++) {
    bool used = false;
    for (int i = 0; i < w->n_tops; i++) used |= expr_uses_var(w->top[i], s->var[k]->id);
    if (used)
      w->row[w->n_row++] = s->var[k];
    else
      w->in[w->n_in++] = s->var[k];
    *(used ? &w->rows : &w->inner) *= guess(p, s->var[k]);
  }
  return true;
}

bool rows_repeat(ExprPool *p, const RowNest *s, const Expr *r) {
  Rows w;
  double repeats = 1;
  if (!describe(&w, p, s)) return false;
  for (int k = 0; k < w.n_row; k++)
    if (!expr_uses_var(r, w.row[k]->id)) repeats *= guess(p, w.row[k]);
  return repeats >= 2.5;
}

/* ---- which threads ---- */
typedef struct Units {
  ExprPool *p;
  const Expr *var;
  int n;
} Units;

static void count_unit(void *user, const Expr *load) {
  Units *const u = user;
  const Expr *c, *rest;
  u->n += expr_affine(u->p, load->a[0], u->var, &c, &rest) && expr_is_i64(c, 1);
}

/* Loads of the reductions that go from one element to the next along var; NULL: along what each of
 * them reduces. */
static int units(const Rows *w, const Expr *var) {
  int n = 0;
  for (int i = 0; i < w->n_tops; i++) {
    const RowChain c = row_chain_of(w->p, w->top[i]);
    Units u = {.p = w->p, .var = var ? var : c.var[c.n - 1]};
    expr_each_load(w->p, c.body, count_unit, &u);
    n += u.n;
  }
  return n;
}

static void choose_threads(Rows *w, const Target *t) {
  const double longest = w->terms > w->inner ? w->terms : w->inner;
  w->beside = w->n_row && units(w, w->row[w->n_row - 1]) > units(w, NULL);
  w->lanes = WARP;
  if (w->beside) {
    w->height = WARP;
    while (w->height > 1 && (double)w->height / 2 >= w->rows) w->height /= 2;
    w->lanes = BLOCK / w->height;
    return;
  }
  while (w->lanes < BLOCK && (double)w->lanes * 4 < longest) w->lanes *= 2;
  if (w->rows < t->gpu->sms && longest >= 8 * MOST) w->lanes = MOST;
  w->height = w->lanes < BLOCK ? BLOCK / w->lanes : 1;
  while (w->height > 1 && w->rows / (double)w->height < 2 * t->gpu->sms) w->height /= 2;
}

/* How often all multiprocessors have to be filled with so many threads. */
static double waves(const Target *t, double threads) {
  const double all = (double)t->gpu->sms * t->gpu->threads;
  return threads > all ? threads / all : 1;
}

/* Of single elements: terms one after the other, which threads beside each other may load apart,
 * against barriers. Of rows: where there are not enough, single elements are better, behind kernels
 * that reduce. */
bool rows_pay(const Target *t, ExprPool *p, const RowNest *s) {
  enum { BARRIERS = 40, FEW = 4, FEW_ALONE = 32, SMALL = 8192, APART = 4 };
  Rows w;
  if (!describe(&w, p, s) || w.terms < (w.inner > 1 ? FEW : FEW_ALONE)) return false;
  for (int i = 0; i < w.n_tops; i++)
    if (rows_repeat(p, s, w.top[i])) return false;
  choose_threads(&w, t);
  if (w.inner > 1) return 2 * w.rows >= t->gpu->sms || w.inner + w.terms <= SMALL;
  const double lanes = (double)w.lanes;
  const int along = w.n_row ? units(&w, w.row[w.n_row - 1]) : 0;
  const bool beside = along > 0 && along >= units(&w, NULL);
  const double alone = w.terms * waves(t, w.rows) * (beside ? 1 : APART);
  return (w.terms / lanes + BARRIERS) * waves(t, w.rows * lanes) < alone;
}

/* ---- statements ---- */
static const Expr *num(const Rows *w, int64_t i) { return ex_i64(w->p, i); }

static int add_local(Rows *w, const char *name, DType t, int64_t count, LocalMemory memory) {
  return kernel_add_local(w->b->l->mod, w->b->k,
                          (Local){.name = name, .dtype = t, .count = count, .memory = memory});
}

/* The nest of threads ends, with a barrier. */
static void barrier(Rows *w) {
  Stmt *s = w->now.first;
  if (w->height > 1 && w->beside) s = stmt_for(w->a, FOR_THREAD, w->y, s);
  s = stmt_for(w->a, FOR_THREAD, w->x, s);
  if (w->height > 1 && !w->beside) s = stmt_for(w->a, FOR_THREAD, w->y, s);
  stmt_add(&w->block, s);
  w->now = (StmtList){0};
}

static Stmt *if_inside(const Rows *w, Stmt *s) {
  return w->inside ? stmt_if(w->a, w->inside, s, NULL) : s;
}

/* Element i of what each row has n of, in shared memory. */
static const Expr *of_row(const Rows *w, const Expr *i, int64_t n) {
  if (w->beside) return ex_add(w->p, ex_mul(w->p, i, num(w, w->height)), w->y);
  return ex_add(w->p, ex_mul(w->p, w->y, num(w, n)), i);
}

static int begin_sum(Rows *w, StmtList *out, DType t, ReduceKind kind) {
  const int id = add_local(w, "t", t, 1, MEM_REGS);
  stmt_add(out, stmt_local(w->a, id));
  stmt_add(out, stmt_set(w->a, id, num(w, 0), reduce_identity(w->p, kind, t)));
  return id;
}

/* ---- terms ---- */
/* e without reductions, which are computed in front, one term after the other. */
static const Expr *without_reductions(Rows *w, StmtList *out, const Expr *e) {
  for (;;) {
    ExprList all = {0};
    expr_reductions(w->p, e, &all);
    if (!all.n) return e;
    int i = 0;
    while (is_nested(w->p, &all, all.data[i])) i++;
    const Expr *const r = all.data[i];
    const ReduceKind kind = (ReduceKind)r->k.i;
    const int sum = begin_sum(w, out, (DType)r->dtype, kind);
    StmtList body = {0};
    const Expr *const term = without_reductions(w, &body, r->a[0]);
    stmt_add(&body, stmt_acc(w->a, sum, num(w, 0), kind, term));
    stmt_add(out, stmt_for(w->a, FOR_SERIAL, ex_var_of(w->p, r->id), body.first));
    const Expr *const done = ex_local(w->p, (DType)r->dtype, sum, num(w, 0));
    e = expr_replace(w->p, e, 1, &r, &done);
  }
}

/* How many of n things a thread takes, and the number of the i-th. */
static const Expr *share(const Rows *w, const Expr *n) {
  const Expr *const left = ex_sub(w->p, ex_add(w->p, n, num(w, w->lanes - 1)), w->x);
  return ex_floordiv(w->p, left, num(w, w->lanes));
}

static const Expr *taken(const Rows *w, const Expr *i) {
  return ex_add(w->p, ex_mul(w->p, i, num(w, w->lanes)), w->x);
}

/* Term number `flat` of the chain. */
static const Expr *term_at(const Rows *w, const RowChain *c, const Expr *flat) {
  const Expr *extent[ROW_MAX_CHAIN], *index[ROW_MAX_CHAIN], *e = c->body;
  for (int i = 0; i < c->n; i++) extent[i] = expr_var_extent(w->p, c->var[i]->id);
  nest_indices(w->p, flat, c->n, extent, index);
  for (int i = 0; i < c->n; i++) {
    const Expr *const lo = expr_var_lo(w->p, c->var[i]->id);
    e = expr_subst(w->p, e, c->var[i], lo ? ex_add(w->p, lo, index[i]) : index[i]);
  }
  return e;
}

static Stmt *add_terms(Rows *w, const RowChain *c, const Expr *var, const Expr *at, int sum,
                       ReduceKind kind) {
  StmtList body = {0};
  const Expr *const term = without_reductions(w, &body, term_at(w, c, taken(w, at)));
  stmt_add(&body, stmt_acc(w->a, sum, num(w, 0), kind, term));
  return stmt_for(w->a, FOR_SERIAL, var, body.first);
}

static bool is_long(const Rows *w, const Expr *r, const Expr *mine) {
  int64_t lo, hi;
  if (r->k.i != RED_SUM || r->dtype != DT_F32) return false;
  return !expr_range(w->p, mine, &lo, &hi) || hi > SHORT_CHAIN;
}

/* The terms of this thread; those of a long sum in pieces, which an accumulator of f64 takes. */
static int add_share(Rows *w, const Expr *r) {
  const RowChain c = row_chain_of(w->p, r);
  const ReduceKind kind = (ReduceKind)r->k.i;
  const DType type = (DType)r->dtype;
  const Expr *n = num(w, 1);
  for (int i = 0; i < c.n; i++) n = ex_mul(w->p, n, expr_var_extent(w->p, c.var[i]->id));
  const Expr *const mine = share(w, n);
  if (!is_long(w, r, mine)) {
    const int sum = begin_sum(w, &w->now, type, kind);
    const Expr *const i = ex_var(w->p, "i", mine);
    stmt_add(&w->now, if_inside(w, add_terms(w, &c, i, i, sum, kind)));
    return sum;
  }
  const int all = begin_sum(w, &w->now, DT_F64, kind);
  const Expr *const piece = ex_var(w->p, "j", ex_ceildiv(w->p, mine, SHORT_CHAIN));
  const Expr *const first = ex_mul(w->p, piece, num(w, SHORT_CHAIN));
  const Expr *const i =
      ex_var(w->p, "i", ex_min(w->p, num(w, SHORT_CHAIN), ex_sub(w->p, mine, first)));
  StmtList body = {0};
  const int sum = begin_sum(w, &body, type, kind);
  stmt_add(&body, add_terms(w, &c, i, ex_add(w->p, first, i), sum, kind));
  const Expr *const part = ex_cast(w->p, DT_F64, ex_local(w->p, type, sum, num(w, 0)));
  stmt_add(&body, stmt_acc(w->a, all, num(w, 0), kind, part));
  stmt_add(&w->now, if_inside(w, stmt_for(w->a, FOR_SERIAL, piece, body.first)));
  return all;
}

/* Does s for each of its elements that the thread keeps. */
static Stmt *each_kept(Rows *w, Stmt *s) {
  int64_t n;
  const bool even = expr_is_const(w->length, &n) && n % w->lanes == 0;
  const Expr *const exists = ex_lt(w->p, taken(w, w->keep.i), w->length);
  if (!even) s = stmt_if(w->a, exists, s, NULL);
  return stmt_for(w->a, FOR_UNROLL, w->keep.i, s);
}

/* The terms of this thread, from what it has of its elements. */
static int add_kept(Rows *w, int k) {
  const Expr *const r = w->top[k];
  const ReduceKind kind = (ReduceKind)r->k.i;
  const int sum = begin_sum(w, &w->now, (DType)r->dtype, kind);
  StmtList body = {0};
  row_keep_phase(&w->keep, w->b, k, &w->block, &body);
  const Expr *const term = without_reductions(w, &body, w->keep.expr[k]);
  stmt_add(&body, stmt_acc(w->a, sum, num(w, 0), kind, term));
  stmt_add(&w->now, if_inside(w, each_kept(w, body.first)));
  return sum;
}

/* ---- meeting ---- */
/* sum takes n elements of the row from shared memory, behind the first one: 16 bytes at once, where
 * they follow each other. */
static Stmt *gather(Rows *w, int sum, ReduceKind kind, int shared, const Expr *first, int64_t n,
                    int64_t of) {
  const DType type = w->b->k->locals.data[shared].dtype;
  int64_t width = w->beside || dtype_bytes(type) < 4 ? 1 : 16 / dtype_bytes(type);
  while (n % width) width /= 2;
  const Expr *const i = ex_var(w->p, "i", num(w, n / width));
  const Expr *const v = ex_var(w->p, "v", num(w, width));
  const Expr *const at = ex_add(w->p, ex_mul(w->p, i, num(w, width)), v);
  const Expr *const e = ex_local(w->p, type, shared, of_row(w, ex_add(w->p, first, at), of));
  const int some = add_local(w, "some", type, width, MEM_REGS);
  Stmt *const acc = stmt_acc(w->a, sum, num(w, 0), kind, ex_local(w->p, type, some, v));
  StmtList body = {0};
  stmt_add(&body, stmt_local(w->a, some));
  stmt_add(&body, stmt_for(w->a, FOR_VECTOR, v, stmt_set(w->a, some, v, e)));
  stmt_add(&body, stmt_for(w->a, FOR_UNROLL, v, acc));
  return stmt_for(w->a, FOR_SERIAL, i, body.first);
}

static int shared_of_row(Rows *w, DType type, int64_t n) {
  const int id = add_local(w, "part", type, n * w->height, MEM_SHARED);
  stmt_add(&w->block, stmt_local(w->a, id));
  return id;
}

/* The partial results in `shared` become those of fewer threads. */
static int meet(Rows *w, ReduceKind kind, int shared, int64_t each) {
  const DType type = w->b->k->locals.data[shared].dtype;
  const int64_t groups = w->lanes / each;
  const int fewer = shared_of_row(w, type, groups);
  StmtList body = {0};
  const int sum = begin_sum(w, &body, type, kind);
  const Expr *const first = ex_mul(w->p, w->x, num(w, each));
  stmt_add(&body, gather(w, sum, kind, shared, first, each, w->lanes));
  const Expr *const part = ex_local(w->p, type, sum, num(w, 0));
  stmt_add(&body, stmt_set(w->a, fewer, of_row(w, w->x, groups), part));
  stmt_add(&w->now, stmt_if(w->a, ex_lt(w->p, w->x, num(w, groups)), body.first, NULL));
  barrier(w);
  return fewer;
}

/* Reduction number k, which every thread has afterwards. */
static const Expr *reduce_together(Rows *w, int k) {
  const Expr *const r = w->top[k];
  const ReduceKind kind = (ReduceKind)r->k.i;
  const int mine = w->keeps && w->keep.expr[k] ? add_kept(w, k) : add_share(w, r);
  const DType type = w->b->k->locals.data[mine].dtype;
  int64_t n = w->lanes;
  int shared = shared_of_row(w, type, n);
  const Expr *const part = ex_local(w->p, type, mine, num(w, 0));
  stmt_add(&w->now, stmt_set(w->a, shared, of_row(w, w->x, n), part));
  barrier(w);
  if (n > WARP) {
    const int64_t each = n > BLOCK ? 32 : 16;
    shared = meet(w, kind, shared, each);
    n /= each;
  }
  const int all = add_local(w, "t", type, 1, MEM_REGS); /* each thread keeps it */
  stmt_add(&w->block, stmt_local(w->a, all));
  stmt_add(&w->now, stmt_set(w->a, all, num(w, 0), reduce_identity(w->p, kind, type)));
  stmt_add(&w->now, gather(w, all, kind, shared, num(w, 0), n, n));
  return ex_cast(w->p, (DType)r->dtype, ex_local(w->p, type, all, num(w, 0)));
}

/* ---- the kernel ---- */
static void rebind(Rows *w, const Expr *from, const Expr *to) {
  w->value = expr_subst(w->p, w->value, from, to);
  w->store = expr_subst(w->p, w->store, from, to);
  for (int i = 0; i < w->n_tops; i++) w->top[i] = expr_subst(w->p, w->top[i], from, to);
}

static const Expr *product(const Rows *w, const Expr *const *var, int n, const Expr **extent) {
  const Expr *all = num(w, 1);
  for (int k = 0; k < n; k++)
    all = ex_mul(w->p, all, extent[k] = expr_var_extent(w->p, var[k]->id));
  return all;
}

static void rebind_all(Rows *w, const Expr *const *var, int n, const Expr *const *extent,
                       const Expr *flat) {
  const Expr *index[MAX_RANK + 2];
  nest_indices(w->p, flat, n, extent, index);
  for (int k = 0; k < n; k++) rebind(w, var[k], index[k]);
}

/* The term of r for an element of the row; NULL: it goes over something else. */
static const Expr *term_of_element(const Rows *w, const Expr *r, const Expr *length,
                                   const Expr *at) {
  const RowChain c = row_chain_of(w->p, r);
  const Expr *n = num(w, 1);
  for (int i = 0; i < c.n; i++) n = ex_mul(w->p, n, expr_var_extent(w->p, c.var[i]->id));
  return n == length ? term_at(w, &c, at) : NULL;
}

/* Threads keep their elements where these are few, a number that is known, and serve twice. */
static void plan_keep(Rows *w) {
  const Expr *extent[MAX_RANK + 2], *index[MAX_RANK + 2], *value = w->value, *store = w->store;
  const Expr *const length = product(w, w->in, w->n_in, extent);
  const int64_t left = KEPT_OF_BLOCK / (w->lanes * w->height);
  int64_t n;
  if (!expr_is_const(length, &n) || n > MOST_KEPT * w->lanes || n <= 1) return;
  const int64_t count = (n + w->lanes - 1) / w->lanes;
  w->keep = (RowKeep){.p = w->p,
                      .i = ex_var(w->p, "i", num(w, count)),
                      .count = count,
                      .n = w->n_tops + 1,
                      .bytes = left < KEPT_BYTES ? left : KEPT_BYTES};
  const Expr *const at = taken(w, w->keep.i);
  for (int k = 0; k < w->n_tops; k++) w->keep.expr[k] = term_of_element(w, w->top[k], length, at);
  nest_indices(w->p, at, w->n_in, extent, index);
  for (int k = 0; k < w->n_in; k++) {
    value = expr_subst(w->p, value, w->in[k], index[k]);
    store = expr_subst(w->p, store, w->in[k], index[k]);
  }
  w->keep.expr[w->n_tops] = value;
  w->length = length;
  w->keeps = row_keep_worth(&w->keep);
  if (w->keeps) w->store = store;
}

/* Reduction number k has its result. */
static void replace_top(Rows *w, int k, const Expr *done) {
  const Expr *const r = w->top[k];
  w->value = expr_replace(w->p, w->value, 1, &r, &done);
  for (int i = k + 1; i < w->n_tops; i++) w->top[i] = expr_replace(w->p, w->top[i], 1, &r, &done);
  for (int i = k + 1; w->keeps && i < w->keep.n; i++)
    if (w->keep.expr[i]) w->keep.expr[i] = expr_replace(w->p, w->keep.expr[i], 1, &r, &done);
}

static void store_row(Rows *w) {
  const Expr *extent[MAX_RANK + 2];
  const Expr *const n = product(w, w->in, w->n_in, extent);
  if (w->keeps) {
    Stmt *const s = stmt_store(w->a, w->s->target, w->store, w->keep.expr[w->n_tops]);
    stmt_add(&w->now, if_inside(w, each_kept(w, s)));
  } else if (w->n_in) {
    const Expr *const i = ex_var(w->p, "i", share(w, n));
    rebind_all(w, w->in, w->n_in, extent, taken(w, i));
    Stmt *const s = stmt_store(w->a, w->s->target, w->store, w->value);
    stmt_add(&w->now, if_inside(w, stmt_for(w->a, FOR_SERIAL, i, s)));
  } else {
    Stmt *const s = stmt_store(w->a, w->s->target, w->store, w->value);
    stmt_add(&w->now, if_inside(w, stmt_if(w->a, ex_eq(w->p, w->x, num(w, 0)), s, NULL)));
  }
  barrier(w);
}

Stmt *rows_body(KernelBuild *b, const RowNest *s) {
  Rows w;
  if (!describe(&w, b->l->p, s)) return NULL;
  w.b = b;
  w.a = b->l->m->arena;
  choose_threads(&w, b->l->c->target);
  const Expr *extent[MAX_RANK + 2];
  const Expr *const rows = product(&w, w.row, w.n_row, extent);
  const Expr *const at = ex_var(w.p, "b", ex_ceildiv(w.p, rows, w.height));
  int64_t whole;
  w.x = ex_var(w.p, "x", num(&w, w.lanes));
  w.y = w.height > 1 ? ex_var(w.p, "y", num(&w, w.height)) : num(&w, 0);
  const Expr *const row = ex_add(w.p, ex_mul(w.p, at, num(&w, w.height)), w.y);
  if (w.height > 1 && !(expr_is_const(rows, &whole) && whole % w.height == 0))
    w.inside = ex_lt(w.p, row, rows);
  rebind_all(&w, w.row, w.n_row, extent, row);
  plan_keep(&w);
  for (int k = 0; k < w.n_tops; k++) replace_top(&w, k, reduce_together(&w, k));
  store_row(&w);
  return stmt_for(w.a, FOR_BLOCK, at, w.block.first);
}
