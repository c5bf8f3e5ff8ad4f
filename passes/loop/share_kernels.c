/* Many kernels that differ only in where they begin to read and write, or in constants, become one
 * with parameters: the start goes into the argument, constants into a small table of weights. What
 * LLVM needs for a kernel is a thousand times what a call costs; a few such kernels stay as they
 * are, since constants in the code are a little faster. Needs nothing; breaks nothing. */
#include <string.h>

#include "ir/expr/expr_query.h"
#include "passes/loop/kernel_digest.h"

enum { MANY = 8 }; /* kernels of one shape that are worth it */

typedef struct Member { /* a kernel, by position */
  KernelShape shape;
  int group, next; /* position of the first of its shape; the next one (0: none) */
  int n;           /* of a group: members that take part */
  bool apart;      /* does not take part */
  bool overlaps;   /* a call reads and writes one buffer */
  int64_t row;     /* of its constants in the table */
} Member;

typedef struct Shared { /* what a group becomes */
  int *which;           /* its open constants that differ */
  int n_which;
  int64_t *count; /* by parameter */
  int table;      /* buffer */
} Shared;

typedef struct Share {
  PassCtx *c;
  Module *m;
  Arena *a;
  ExprPool *p;
  KernelTable t;
  Member *of;
  Shared *shared; /* by position of a group */
} Share;

/* ---- calls ---- */

typedef void (*CallFn)(Share *s, Step *call, int kernel);

typedef struct EachCall {
  Share *s;
  CallFn f;
} EachCall;

static bool visit_call(void *user, Step *step) {
  const EachCall *const e = user;
  const int k = step->kind == STEP_KERNEL ? kernel_table_find(&e->s->t, step->call.kernel) : -1;
  if (k >= 0) e->f(e->s, step, k);
  return true;
}

static void each_call(Share *s, Step *steps, CallFn f) {
  step_each(steps, visit_call, &(EachCall){s, f});
}

/* What a call with overlapping arguments costs in speed, calls without shall not pay. */
static void note_overlap(Share *s, Step *call, int kernel) {
  bool writes = false;
  for (int i = 0; i < call->call.n_args; i++)
    for (int k = 0; k < i; k++)
      writes |= buffer_root(s->m, call->call.args[i].buffer) >= 0 &&
                buffer_root(s->m, call->call.args[i].buffer) ==
                    buffer_root(s->m, call->call.args[k].buffer);
  s->of[kernel].overlaps |= writes;
}

/* ---- groups ---- */

static int64_t count_of(const Param *q) {
  int64_t n = -1;
  return expr_is_const(q->count, &n) ? n : -1;
}

/* Elements of a parameter behind the start: no more than each member may touch. -1: of symbols,
 * and so the same for all. */
static void least_counts(Share *s, int group) {
  const Kernel *k = s->t.kernels[group];
  int64_t *least = s->shared[group].count = ARENA_ARRAY(s->a, int64_t, k->params.n + 1);
  for (int i = 0; i < k->params.n; i++) {
    least[i] = INT64_MAX;
    for (int m = group; m >= 0; m = s->of[m].next) {
      const int64_t n = count_of(&s->t.kernels[m]->params.data[i]), from = s->of[m].shape.from[i];
      if (n < 0 || n - from < least[i]) least[i] = n < 0 ? -1 : n - from;
    }
  }
}

/* A call that is known to write all of a buffer must still say so afterwards. */
static void keep_whole_writes(Share *s, Step *call, int kernel) {
  Member *me = &s->of[kernel];
  const Shared *to = &s->shared[me->group];
  if (!to->count) return;
  for (int i = 0, arg = 0; i < call->call.kernel->params.n; i++) {
    const Param *q = &call->call.kernel->params.data[i];
    if (q->scratch) continue;
    const BufRef *r = &call->call.args[arg++];
    if (!(q->access & PA_WRITE) || !write_is_whole(s->m, r, q->count)) continue;
    me->apart |= me->shape.from[i] != 0 || count_of(q) != to->count[i];
  }
}

static const Expr *open_const(const Share *s, int kernel, int i) {
  return s->t.digests[kernel].consts.data[i];
}

/* Constants that differ must be of one type, to stand in one table. */
static bool find_differing(Share *s, int group) {
  Shared *to = &s->shared[group];
  const int n = s->t.digests[group].consts.n;
  to->which = ARENA_ARRAY(s->a, int, n + 1);
  for (int i = 0; i < n; i++) {
    bool differs = false;
    for (int m = group; m >= 0; m = s->of[m].next)
      differs |= !s->of[m].apart && open_const(s, m, i) != open_const(s, group, i);
    if (differs) to->which[to->n_which++] = i;
  }
  for (int i = 1; i < to->n_which; i++)
    if (open_const(s, group, to->which[i])->dtype != open_const(s, group, to->which[0])->dtype)
      return false;
  return true;
}

/* ---- constants ---- */

static void make_table(Share *s, int group) {
  Shared *to = &s->shared[group];
  Model *model = s->m->model;
  const DType t = (DType)open_const(s, group, to->which[0])->dtype;
  const int64_t n = (int64_t)s->of[group].n * to->n_which;
  const size_t size = (size_t)dtype_bytes(t);
  char *data = arena_alloc(model->arena, (size_t)n * size);
  int64_t at = 0;
  for (int m = group; m >= 0; m = s->of[m].next) {
    if (s->of[m].apart) continue;
    s->of[m].row = at;
    for (int i = 0; i < to->n_which; i++)
      dtype_store_f(t, data + (size_t)at++ * size, open_const(s, m, to->which[i])->k.f);
  }
  Buffer *b = module_add_buffer(s->m, BUF_WEIGHT, t, ex_i64(s->p, n), NULL);
  b->data = const_new(model, NULL, t, 1, &n, data);
  to->table = b->id;
}

/* ---- the kernel ---- */

typedef struct Rewrite {
  ExprPool *p;
  const int64_t *from;
  int n;
  const Expr **consts, **loads;
} Rewrite;

static const Expr *move_load(void *user, const Expr *leaf) {
  const Rewrite *r = user;
  if (leaf->op != EX_LOAD || !r->from[leaf->id]) return NULL;
  const Expr *index = ex_sub(r->p, leaf->a[0], ex_i64(r->p, r->from[leaf->id]));
  return ex_load(r->p, (DType)leaf->dtype, leaf->id, index, leaf->a[1]);
}

static const Expr *with_loads(void *user, const Expr *e) {
  const Rewrite *r = user;
  return expr_replace(r->p, e, r->n, r->consts, r->loads);
}

static bool move_stmt(void *user, Stmt *s) {
  const Rewrite *r = user;
  if ((s->kind == ST_STORE || s->kind == ST_PREFETCH) && r->from[s->access.id])
    s->access.index = ex_sub(r->p, s->access.index, ex_i64(r->p, r->from[s->access.id]));
  stmt_map_exprs(s, with_loads, user);
  return true;
}

static void add_table_param(Share *s, int group, Rewrite *r) {
  const Shared *to = &s->shared[group];
  Kernel *k = s->t.kernels[group];
  const DType t = (DType)open_const(s, group, to->which[0])->dtype;
  const Param q = {.name = "c",
                   .dtype = t,
                   .count = ex_i64(s->p, to->n_which),
                   .access = PA_READ,
                   .constant = true,
                   .align = dtype_bytes(t)};
  const int id = kernel_add_param(s->m, k, q);
  r->n = to->n_which;
  r->consts = ARENA_ARRAY(s->a, const Expr *, r->n);
  r->loads = ARENA_ARRAY(s->a, const Expr *, r->n);
  for (int i = 0; i < r->n; i++) {
    r->consts[i] = open_const(s, group, to->which[i]);
    r->loads[i] = ex_load(s->p, t, id, ex_i64(s->p, i), NULL);
  }
}

/* The first member becomes the kernel of all. */
static void rewrite_kernel(Share *s, int group) {
  const Shared *to = &s->shared[group];
  Kernel *k = s->t.kernels[group];
  Rewrite r = {.p = s->p, .from = s->of[group].shape.from};
  for (int i = 0; i < k->params.n; i++)
    if (!k->params.data[i].scratch && to->count[i] >= 0)
      k->params.data[i].count = ex_i64(s->p, to->count[i]);
  if (to->n_which) add_table_param(s, group, &r);
  k->body = stmt_rewrite(s->m->model->arena, s->p, k->body, move_load, &r);
  stmt_each(k->body, move_stmt, &r);
}

static void rewrite_call(Share *s, Step *call, int kernel) {
  const Member *me = &s->of[kernel];
  const Shared *to = &s->shared[me->group];
  if (me->apart || !to->count) return;
  BufRef *args = ARENA_ARRAY(s->m->model->arena, BufRef, call->call.n_args + 1);
  memcpy(args, call->call.args, sizeof *args * (size_t)call->call.n_args);
  const Kernel *own = s->t.kernels[kernel];
  for (int i = 0, arg = 0; arg < call->call.n_args; i++) {
    if (own->params.data[i].scratch) continue;
    BufRef *r = &args[arg++];
    const Expr *from = ex_i64(s->p, me->shape.from[i]);
    if (me->shape.from[i]) r->offset = r->offset ? ex_add(s->p, r->offset, from) : from;
  }
  if (to->n_which) args[call->call.n_args++] = (BufRef){to->table, ex_i64(s->p, me->row)};
  call->call.args = args;
  call->call.kernel = s->t.kernels[me->group];
}

/* ---- the pass ---- */

static void find_groups(Share *s, int n) {
  for (int i = n - 1; i >= 0; i--) s->of[i].next = -1;
  int *last = ARENA_ARRAY(s->a, int, n);
  for (int i = 0; i < n; i++) {
    Kernel *k = s->t.kernels[i];
    s->of[i].shape = kernel_shape(s->a, k);
    s->t.digests[i] = kernel_digest_shape(s->a, s->p, k, &s->of[i].shape);
    s->t.digests[i].hash += s->of[i].overlaps;
    const int g = s->of[i].group = kernel_table_equal(&s->t, i);
    if (g != i) s->of[last[g]].next = i;
    last[g] = i;
    s->of[g].n++;
  }
}

/* The first member that takes part stands for the group. */
static int choose_lead(Share *s, int group) {
  int lead = group;
  while (lead >= 0 && s->of[lead].apart) lead = s->of[lead].next;
  if (lead < 0 || lead == group) return lead;
  s->shared[lead] = s->shared[group];
  s->shared[group].count = NULL;
  for (int m = lead; m >= 0; m = s->of[m].next) s->of[m].group = lead;
  return lead;
}

static void drop_apart(Share *s, int n) {
  for (int i = 0; i < n; i++) {
    if (!s->shared[i].count || s->of[i].group != i || s->of[i].n == 0) continue;
    const int lead = choose_lead(s, i);
    if (lead < 0) {
      s->shared[i].count = NULL;
      continue;
    }
    int live = 0;
    for (int m = lead; m >= 0; m = s->of[m].next) live += !s->of[m].apart;
    s->of[i].n = 0;
    s->of[lead].n = live;
    if (live < MANY || !find_differing(s, lead)) s->shared[lead].count = NULL;
  }
}

bool pass_share_kernels(PassCtx *c) {
  Module *m = c->module;
  const int n = m->kernels.n;
  if (n < MANY) return true;
  Share s = {.c = c, .m = m, .a = c->scratch, .p = c->model->pool};
  s.of = ARENA_ARRAY(s.a, Member, n);
  s.shared = ARENA_ARRAY(s.a, Shared, n);
  s.t = kernel_table_new(s.a, m->kernels.data, ARENA_ARRAY(s.a, KernelDigest, n), n);
  each_call(&s, m->steps, note_overlap);
  find_groups(&s, n);
  for (int g = 0; g < n; g++)
    if (s.of[g].group == g && s.of[g].n >= MANY) least_counts(&s, g);
  each_call(&s, m->steps, keep_whole_writes);
  drop_apart(&s, n);
  for (int g = 0; g < n; g++)
    if (s.shared[g].count && s.shared[g].n_which) make_table(&s, g);
  each_call(&s, m->steps, rewrite_call);
  m->kernels.n = 0;
  for (int i = 0; i < n; i++) {
    const bool gone = s.of[i].group != i && s.shared[s.of[i].group].count && !s.of[i].apart;
    if (s.shared[i].count) rewrite_kernel(&s, i);
    if (!gone) m->kernels.data[m->kernels.n++] = s.t.kernels[i];
    c->changed |= gone;
  }
  return true;
}
