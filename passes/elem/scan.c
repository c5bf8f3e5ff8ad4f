/* Scans: a reduction over all that comes before an index (running sums and products) is a loop
 * along that index which carries the result so far. Where the innermost loop is another one, a
 * block of its elements scans side by side, with a result each (for GPUs that is a parallel loop,
 * too); the other loops are one parallel loop.
 *
 * On a GPU few long scans are shared out to the threads of a block: each adds up a piece, then goes
 * through it again behind the sum of all pieces before (Sengupta et al., Scan primitives for GPU
 * computing, 2007, have the pieces in a tree; two levels are enough for one block). */
#include "passes/build/nest.h"

enum { BLOCK = 512, STEP = 4 }; /* results carried side by side; cycles of taking an element in */

typedef struct Scan {
  KernelBuild *b;
  const ScanNest *s;
  ExprPool *p;
  Arena *a;
  int along, sign;   /* the loop that runs, and which way */
  const Expr *step;  /* counts its iterations */
  bool inclusive;    /* iteration k takes element k in before it stores */
  const Expr *lane;  /* number in the block; NULL: one result at a time */
  const Expr *value; /* with the running result in `acc` */
  const Expr *store, *body;
  int acc;
} Scan;

static const Expr *extent(const Scan *c, int k) { return expr_var_extent(c->p, c->s->var[k]->id); }

/* Every loop shows in the scan, and its index starts with no element or with one. */
static bool describe(Scan *c) {
  const ScanNest *s = c->s;
  const Expr *rest, *v = expr_scan_var(c->p, s->scan, &c->sign, &rest);
  int64_t first;
  c->along = -1;
  for (int k = 0; k < s->n; k++) {
    const Expr *lo = expr_var_lo(c->p, s->var[k]->id);
    if (s->var[k] == v) c->along = k;
    if (!expr_uses_var(s->scan, s->var[k]->id) || (lo && !expr_is_i64(lo, 0))) return false;
  }
  if (c->along < 0 || (s->scan->a[0]->flags & EXF_REDUCE)) return false;
  const Expr *last = ex_sub(c->p, extent(c, c->along), ex_i64(c->p, 1));
  if (c->sign < 0) rest = ex_sub(c->p, rest, last);
  if (!expr_is_const(rest, &first) || first < 0 || first > 1) return false;
  c->inclusive = first == 1;
  return true;
}

bool scan_fits(ExprPool *p, const ScanNest *s) {
  Scan c = {.s = s, .p = p};
  return describe(&c);
}

static void rebind(Scan *c, const Expr *from, const Expr *to) {
  c->value = expr_subst(c->p, c->value, from, to);
  c->store = expr_subst(c->p, c->store, from, to);
  c->body = expr_subst(c->p, c->body, from, to);
}

static const Expr *acc_index(const Scan *c) { return c->lane ? c->lane : ex_i64(c->p, 0); }

/* s for each of the block. */
static Stmt *lanes(const Scan *c, Stmt *s) {
  return c->lane ? stmt_for(c->a, FOR_VECTOR, c->lane, s) : s;
}

/* The running loop, behind the start of its results. */
static Stmt *running_loop(const Scan *c) {
  StmtList body = {0}, out = {0};
  const ReduceKind kind = (ReduceKind)c->s->scan->k.i;
  Stmt *const add = stmt_acc(c->a, c->acc, acc_index(c), kind, c->body);
  if (c->inclusive) stmt_add(&body, add);
  stmt_add(&body, stmt_store(c->a, c->s->target, c->store, c->value));
  if (!c->inclusive) stmt_add(&body, add);
  stmt_add(&out, stmt_local(c->a, c->acc));
  const Expr *start = reduce_identity(c->p, kind, (DType)c->s->scan->dtype);
  stmt_add(&out, lanes(c, stmt_set(c->a, c->acc, acc_index(c), start)));
  stmt_add(&out, stmt_for(c->a, FOR_SERIAL, c->step, lanes(c, body.first)));
  return out.first;
}

/* The loops but the running one and that of the lanes, and the blocks of the latter, as one
 * variable; NULL: there is none. */
static const Expr *flatten(Scan *c, const Expr *const *var, int n, const Expr **at) {
  const Expr *total = ex_i64(c->p, 1);
  for (int k = 0; k < n; k++) total = ex_mul(c->p, total, expr_var_extent(c->p, var[k]->id));
  if (!n) return NULL;
  const Expr *par = ex_var(c->p, "p", total), *rest = par;
  for (int k = n - 1; k >= 0; k--) {
    const Expr *size = expr_var_extent(c->p, var[k]->id);
    const Expr *part = k ? ex_floormod(c->p, rest, size) : rest;
    rebind(c, var[k], part);
    if (*at) *at = expr_subst(c->p, *at, var[k], part);
    rest = ex_floordiv(c->p, rest, size);
  }
  return par;
}

/* Binds the running variable, and puts the result so far where the scan stood. */
static void begin(Scan *c, bool block) {
  const ScanNest *s = c->s;
  const DType t = (DType)s->scan->dtype;
  const Local local = {
      .name = "t", .dtype = t, .count = block ? BLOCK : 1, .memory = block ? MEM_STACK : MEM_REGS};
  c->acc = kernel_add_local(c->b->l->mod, c->b->k, local);
  c->store = s->store;
  const Expr *n = extent(c, c->along), *last = ex_sub(c->p, n, ex_i64(c->p, 1));
  c->step = ex_var(c->p, "i", n);
  c->body = expr_subst(c->p, s->scan->a[0], ex_var_of(c->p, s->scan->id), c->step);
  c->lane = block ? ex_var(c->p, "l", ex_i64(c->p, BLOCK)) : NULL;
  const Expr *acc = ex_local(c->p, t, c->acc, acc_index(c));
  c->value = expr_replace(c->p, s->value, 1, &s->scan, &acc);
  rebind(c, s->var[c->along], c->sign > 0 ? c->step : ex_sub(c->p, last, c->step));
}

/* The innermost loop in blocks: the variable that counts them, its last one cut off. */
static const Expr *blocks_of(Scan *c, const Expr *var, const Expr **at) {
  const Expr *blocks = ex_var(c->p, "b", ex_ceildiv(c->p, expr_var_extent(c->p, var->id), BLOCK));
  *at = ex_mul(c->p, blocks, ex_i64(c->p, BLOCK));
  rebind(c, var, ex_add(c->p, *at, c->lane));
  return blocks;
}

static void finish_lanes(Scan *c, const Expr *whole, const Expr *at) {
  int64_t n;
  const Expr *b = ex_i64(c->p, BLOCK), *old = c->lane;
  if (expr_is_const(whole, &n) && n % BLOCK == 0) return;
  c->lane = ex_var(c->p, "l", ex_min(c->p, b, ex_sub(c->p, whole, at)));
  rebind(c, old, c->lane);
}

/* ---- by the threads of a block ---- */
enum { THREADS = 256, GROUP = 16 };

/* A scan whose pieces are the threads'. */
typedef struct Pieces {
  Scan *c;
  const Expr *x, *i;        /* the thread, and the number of an element in its piece */
  int sums, groups;         /* of pieces, and of GROUP pieces each, in shared memory */
  const Expr *from, *first; /* the running variable, and where the piece begins */
} Pieces;

static const Expr *num(const Scan *c, int64_t n) { return ex_i64(c->p, n); }

/* Cycles of an element that a thread waits for, and of what threads wait for each other. */
static bool pieces_pay(const Scan *c, double rows) {
  enum { ELEMENT = 40, MEET = 1500 };
  const Gpu *const g = c->b->l->c->target->gpu;
  const double n = expr_extent_guess(c->p, extent(c, c->along)), all = (double)g->sms * g->threads;
  const double waves = rows * THREADS > all ? rows * THREADS / all : 1;
  const double alone = ELEMENT * n * (rows > all ? rows / all : 1);
  return (2 * ELEMENT * (n / THREADS + 1) + MEET) * waves < alone;
}

static int shared_sums(const Pieces *q, int64_t n) {
  const Local l = {
      .name = "part", .dtype = (DType)q->c->s->scan->dtype, .count = n, .memory = MEM_SHARED};
  return kernel_add_local(q->c->b->l->mod, q->c->b->k, l);
}

static const Expr *sum_of(const Pieces *q, int local, const Expr *at) {
  return ex_local(q->c->p, (DType)q->c->s->scan->dtype, local, at);
}

static Stmt *acc(const Pieces *q, const Expr *e) {
  return stmt_acc(q->c->a, q->c->acc, num(q->c, 0), (ReduceKind)q->c->s->scan->k.i, e);
}

static Stmt *start(const Pieces *q) {
  const Expr *const none =
      reduce_identity(q->c->p, (ReduceKind)q->c->s->scan->k.i, (DType)q->c->s->scan->dtype);
  return stmt_set(q->c->a, q->c->acc, num(q->c, 0), none);
}

static const Expr *in_piece(const Pieces *q, const Expr *e) {
  return expr_subst(q->c->p, e, q->from, ex_add(q->c->p, q->first, q->i));
}

static Stmt *phase(const Pieces *q, const StmtList *l) {
  return stmt_for(q->c->a, FOR_THREAD, q->x, l->first);
}

/* Every thread adds its piece up, then the first ones a group of pieces each. */
static void add_pieces(const Pieces *q, StmtList *out) {
  const Scan *const c = q->c;
  const Expr *const j = ex_var(c->p, "j", num(c, GROUP)), *const self =
                                                              sum_of(q, c->acc, num(c, 0));
  StmtList own = {0}, group = {0};
  stmt_add(&own, start(q));
  stmt_add(&own, stmt_for(c->a, FOR_SERIAL, q->i, acc(q, in_piece(q, c->body))));
  stmt_add(&own, stmt_set(c->a, q->sums, q->x, self));
  stmt_add(out, phase(q, &own));
  const Expr *const at = ex_add(c->p, ex_mul(c->p, q->x, num(c, GROUP)), j);
  stmt_add(&group, start(q));
  stmt_add(&group, stmt_for(c->a, FOR_SERIAL, j, acc(q, sum_of(q, q->sums, at))));
  stmt_add(&group, stmt_set(c->a, q->groups, q->x, self));
  group.first = stmt_if(c->a, ex_lt(c->p, q->x, num(c, THREADS / GROUP)), group.first, NULL);
  stmt_add(out, phase(q, &group));
}

/* Behind the sum of what comes before, each goes through its piece. */
static void store_pieces(const Pieces *q, StmtList *out) {
  const Scan *const c = q->c;
  const Expr *const size = num(c, GROUP), *const group = ex_floordiv(c->p, q->x, size);
  const Expr *const g = ex_var(c->p, "g", group);
  const Expr *const j = ex_var(c->p, "j", ex_floormod(c->p, q->x, size));
  const Expr *const at = ex_add(c->p, ex_mul(c->p, group, size), j);
  StmtList l = {0}, body = {0};
  stmt_add(&l, start(q));
  stmt_add(&l, stmt_for(c->a, FOR_SERIAL, g, acc(q, sum_of(q, q->groups, g))));
  stmt_add(&l, stmt_for(c->a, FOR_SERIAL, j, acc(q, sum_of(q, q->sums, at))));
  Stmt *const add = acc(q, in_piece(q, c->body));
  if (c->inclusive) stmt_add(&body, add);
  stmt_add(&body, stmt_store(c->a, c->s->target, in_piece(q, c->store), in_piece(q, c->value)));
  if (!c->inclusive) stmt_add(&body, add);
  stmt_add(&l, stmt_for(c->a, FOR_SERIAL, q->i, body.first));
  stmt_add(out, phase(q, &l));
}

/* A block for each value of `row`; NULL: there is one. (Variables are made from the outside inwards, and
 * indices of them behind: terms stand in the order of their making, and are read back so.) */
static Stmt *in_pieces(Scan *c, const Expr *row) {
  const Expr *const n = extent(c, c->along), *const most = ex_ceildiv(c->p, n, THREADS);
  const Expr *const block = ex_var(c->p, "b", row ? expr_var_extent(c->p, row->id) : num(c, 1));
  Pieces q = {.c = c, .x = ex_var(c->p, "x", num(c, THREADS)), .from = c->step};
  q.first = ex_mul(c->p, q.x, most);
  const Expr *const left = ex_max(c->p, num(c, 0), ex_sub(c->p, n, q.first));
  q.i = ex_var(c->p, "i", ex_min(c->p, most, left));
  if (row) rebind(c, row, block);
  q.sums = shared_sums(&q, THREADS);
  q.groups = shared_sums(&q, THREADS / GROUP);
  StmtList body = {0};
  stmt_add(&body, stmt_local(c->a, q.sums));
  stmt_add(&body, stmt_local(c->a, q.groups));
  stmt_add(&body, stmt_local(c->a, c->acc));
  add_pieces(&q, &body);
  store_pieces(&q, &body);
  return stmt_for(c->a, FOR_BLOCK, block, body.first);
}

Step *lower_scan(KernelBuild *b, const ScanNest *s) {
  Scan c = {.b = b, .s = s, .p = b->l->p, .a = b->l->m->arena};
  if (!describe(&c)) return NULL;
  const bool block = c.along != s->n - 1 && !target_has_grids(b->l->c->target);
  const Expr *var[MAX_RANK + 2], *at = NULL;
  double all = 1;
  int n = 0;
  begin(&c, block);
  for (int k = 0; k < s->n; k++) {
    all *= expr_extent_guess(c.p, extent(&c, k));
    if (k != c.along && !(block && k == s->n - 1)) var[n++] = s->var[k];
  }
  if (block) var[n++] = blocks_of(&c, s->var[s->n - 1], &at);
  const Expr *outer = flatten(&c, var, n, &at);
  if (block) finish_lanes(&c, extent(&c, s->n - 1), at);
  if (target_has_grids(b->l->c->target) &&
      pieces_pay(&c, all / expr_extent_guess(c.p, extent(&c, c.along)))) {
    kb_estimate(b, "scan", STEP * all);
    return kb_finish(b, in_pieces(&c, outer));
  }
  Stmt *body = running_loop(&c);
  const double cycles = STEP * all / (block ? target_lanes(b->l->c->target, 32) : 1);
  kb_estimate(b, "scan", cycles);
  if (outer) body = nest_parallel(b, outer, body, cycles);
  return kb_finish(b, body);
}
