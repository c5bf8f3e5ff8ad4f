/* Interpreter of grids of blocks (loop.h). Blocks and threads run one after the other, in the order
 * that the caller wants, each thread up to the next barrier. For every element of a written buffer
 * and of shared memory it is known who touched it: two threads that meet between two barriers, or
 * two blocks at any time, one of them writing, are a race, whatever order hides it. Of every local
 * it is known whether it was set. */
#include <inttypes.h>
#include "ir/eval/interp.h"

/* Who touched an element. Epochs count barriers through the whole grid, from 1; 0: nobody has. The
 * thread -1 is what stands outside of thread loops: all of them. */
typedef struct Cell {
  uint32_t write_epoch, read_epoch;
  int32_t write_block, write_thread;
  int32_t read_block[2];  /* two different ones, if there were two */
  int32_t read_thread[2]; /* so in read_epoch */
} Cell;

/* Cells of a parameter; parameters that lie in the same memory share them. */
typedef struct Cells {
  uintptr_t base;     /* address of the parameter */
  uintptr_t from, to; /* of the memory */
  int64_t step;       /* bytes of a cell */
  Cell *cell;         /* NULL: nobody writes there */
} Cells;

struct GridState {
  Arena *arena;
  ThreadOrder order;
  uint32_t epoch;
  int64_t block, thread; /* that run */
  const NestLoop *nest;  /* of the threads */
  Cells *params;         /* by parameter */
  Cell *locals;          /* by place in local_data */
  bool *set;             /* likewise: is not undefined */
};

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

/* ---- memory of parameters ---- */
static bool overlap(const Cells *x, const Cells *y) { return x->from < y->to && y->from < x->to; }

static void join(Cells *x, Cells *y) {
  const uintptr_t from = x->from < y->from ? x->from : y->from, to = x->to > y->to ? x->to : y->to;
  const uintptr_t far = x->from > y->from ? x->from : y->from;
  x->from = y->from = from;
  x->to = y->to = to;
  x->step = y->step = gcd(gcd(x->step, y->step), (int64_t)(far - from));
}

static void join_all(Cells *c, int n) {
  for (bool changed = true; changed;) {
    changed = false;
    for (int i = 0; i < n; i++)
      for (int k = 0; k < i; k++) {
        if (!overlap(&c[i], &c[k])) continue;
        const Cells before[2] = {c[i], c[k]};
        join(&c[i], &c[k]);
        for (int z = 0; z < 2; z++) {
          const Cells *const now = &c[z ? k : i];
          changed |=
              now->from != before[z].from || now->to != before[z].to || now->step != before[z].step;
        }
      }
  }
}

static void place_cells(GridState *g, const KernelProgram *p, const InterpEnv *env) {
  const int n = p->k->params.n;
  Cells *const c = g->params = ARENA_ARRAY(g->arena, Cells, n + 1);
  for (int i = 0; i < n; i++) {
    const int bytes = dtype_bytes(p->k->params.data[i].dtype);
    const uintptr_t from = (uintptr_t)env->params[i];
    c[i] = (Cells){from, from, from + (uintptr_t)(p->counts[i] * bytes), bytes, NULL};
  }
  join_all(c, n);
  for (int i = 0; i < n; i++) {
    if (!(p->k->params.data[i].access & PA_WRITE) || c[i].cell || c[i].from >= c[i].to) continue;
    Cell *const cell = ARENA_ARRAY(g->arena, Cell, (int64_t)(c[i].to - c[i].from) / c[i].step + 1);
    for (int k = 0; k < n; k++)
      if (overlap(&c[i], &c[k])) c[k].cell = cell;
  }
}

GridState *grid_begin(const KernelProgram *p, const InterpEnv *env) {
  Arena *const a = arena_child(p->m->model->arena);
  GridState *const g = ARENA_NEW(a, GridState);
  *g = (GridState){.arena = a, .order = env->order, .epoch = 1, .thread = -1};
  g->locals = ARENA_ARRAY(a, Cell, p->local_total + 1);
  g->set = ARENA_ARRAY(a, bool, p->local_total + 1);
  place_cells(g, p, env);
  return g;
}

void grid_end(GridState *g) { arena_free(g->arena); }

/* ---- order ---- */
/* The next of the iterations. Shuffled: in steps that their number has no factor in common with,
 * and which the epoch chooses that the nest began in. */
static int64_t in_order(const GridState *g, NestLoop *nest) {
  const int64_t k = nest->begun++, n = nest->size;
  if (k == 0) nest->seed = (g->epoch + 1) * 2654435769u;
  if (g->order == ORDER_FORWARD || n < 2) return k;
  if (g->order == ORDER_BACKWARD) return n - 1 - k;
  int64_t step = (nest->seed >> 8) % n;
  while (gcd(n, step) != 1) step = step % n + 1;
  return (k * step + (nest->seed >> 3) % n) % n;
}

static bool place_vars(const KernelProgram *p, NestLoop *nest) {
  GridState *const g = p->grid;
  if (nest->begun >= nest->size) return false;
  const int64_t id = in_order(g, nest);
  int64_t rest = id;
  for (int i = nest->n - 1; i >= 0; i--) {
    const int64_t extent = p->regs[nest->extent[i]].i;
    p->regs[nest->reg[i]].i = rest % extent;
    rest /= extent;
  }
  if (nest->threads)
    g->thread = id;
  else
    g->block = id;
  return true;
}

bool grid_next(const KernelProgram *p, NestLoop *nest) {
  if (place_vars(p, nest)) return true;
  p->grid->epoch++; /* the barrier */
  p->grid->thread = -1;
  return false;
}

bool grid_first(const KernelProgram *p, NestLoop *nest, bool *ok) {
  nest->begun = 0;
  nest->size = 1;
  for (int i = 0; i < nest->n; i++) {
    const int64_t extent = p->regs[nest->extent[i]].i;
    if (extent <= 0) nest->size = 0;
    if (extent > INT32_MAX || nest->size * extent > INT32_MAX)
      return *ok = diag_internal(p->m->model->diag, p->k->loc,
                                 "kernel %s: a grid of too many blocks", p->k->name);
    nest->size *= extent > 0 ? extent : 0;
  }
  if (nest->threads) p->grid->nest = nest;
  if (nest->threads && nest->size != p->threads)
    return *ok = diag_internal(p->m->model->diag, p->k->loc,
                               "kernel %s: %" PRId64 " threads in a block of %" PRId64, p->k->name,
                               nest->size, p->threads);
  return place_vars(p, nest);
}

/* ---- races ---- */
static const char *who_text(const KernelProgram *p, const NestLoop *nest, int64_t id) {
  StrBuf b = {.arena = p->grid->arena};
  if (id < 0) return "all threads";
  sb_printf(&b, nest->threads ? "thread" : "block");
  for (int i = 0; i < nest->n; i++) {
    int64_t at = id;
    for (int k = nest->n - 1; k > i; k--) at /= p->regs[nest->extent[k]].i;
    sb_printf(&b, " %s=%" PRId64, expr_var_name(p->m->model->pool, nest->var[i]->id),
              at % p->regs[nest->extent[i]].i);
  }
  return sb_str(&b);
}

typedef struct Touch {
  const char *what; /* "parameter" or "local" */
  const char *name;
  int id;
  int64_t at;
  bool write, shared;
} Touch;

static bool race(const KernelProgram *p, const Touch *t, const NestLoop *nest, int64_t me,
                 int64_t other, bool other_writes) {
  return diag_internal(p->m->model->diag, p->k->loc,
                       "kernel %s: race at %s %d (%s), index %" PRId64 ": %s %s what %s %s%s",
                       p->k->name, t->what, t->id, t->name ? t->name : "", t->at,
                       who_text(p, nest, me), t->write ? "writes" : "reads",
                       who_text(p, nest, other), other_writes ? "wrote" : "read",
                       nest->threads ? ", with no barrier between" : "");
}

static bool threads_race(const KernelProgram *p, const Cell *c, const Touch *t) {
  const GridState *const g = p->grid;
  const NestLoop *const nest = g->nest;
  if (c->write_epoch == g->epoch && c->write_thread != g->thread)
    return race(p, t, nest, g->thread, c->write_thread, true);
  for (int k = 0; t->write && c->read_epoch == g->epoch && k < 2; k++)
    if (c->read_thread[k] != g->thread)
      return race(p, t, nest, g->thread, c->read_thread[k], false);
  return true;
}

static bool blocks_race(const KernelProgram *p, const Cell *c, const Touch *t) {
  const GridState *const g = p->grid;
  const NestLoop *const nest = &p->nests.data[0];
  if (c->write_epoch && c->write_block != g->block)
    return race(p, t, nest, g->block, c->write_block, true);
  for (int k = 0; t->write && c->read_epoch && k < 2; k++)
    if (c->read_block[k] != g->block) return race(p, t, nest, g->block, c->read_block[k], false);
  return true;
}

/* What is written into a late local may not have arrived yet. */
static bool has_arrived(const KernelProgram *p, const Cell *c, const Touch *t) {
  const int late = t->shared ? p->k->locals.data[t->id].late : 0;
  if (!late || !c->write_epoch || p->grid->epoch - c->write_epoch >= (uint32_t)late) return true;
  return diag_internal(p->m->model->diag, p->k->loc,
                       "kernel %s: local %d (%s), index %" PRId64
                       " is touched %u barriers after it "
                       "was written, and late by %d",
                       p->k->name, t->id, t->name ? t->name : "", t->at,
                       p->grid->epoch - c->write_epoch, late);
}

static bool touch(const KernelProgram *p, Cell *c, const Touch *t) {
  const GridState *const g = p->grid;
  if (!has_arrived(p, c, t)) return false;
  if ((!t->shared && !blocks_race(p, c, t)) || !threads_race(p, c, t)) return false;
  const int32_t block = (int32_t)g->block, thread = (int32_t)g->thread;
  if (t->write) {
    c->write_epoch = g->epoch;
    c->write_block = block;
    c->write_thread = thread;
    return true;
  }
  if (!c->read_epoch) c->read_block[0] = c->read_block[1] = block;
  if (c->read_block[0] != block) c->read_block[1] = block;
  if (c->read_epoch != g->epoch) c->read_thread[0] = c->read_thread[1] = thread;
  if (c->read_thread[0] != thread) c->read_thread[1] = thread;
  c->read_epoch = g->epoch;
  return true;
}

bool grid_touch_param(const KernelProgram *p, int param, int64_t at, bool write) {
  const Param *const q = &p->k->params.data[param];
  const Cells *const c = &p->grid->params[param];
  if (!c->cell) return true;
  const Touch t = {"parameter", q->name, param, at, write, false};
  const int64_t bytes = dtype_bytes(q->dtype),
                from = ((int64_t)(c->base - c->from) + at * bytes) / c->step;
  for (int64_t i = 0; i < bytes / c->step; i++)
    if (!touch(p, &c->cell[from + i], &t)) return false;
  return true;
}

/* ---- locals ---- */
int64_t grid_place(const KernelProgram *p, int local, int64_t at) {
  const LocalSlot *const s = &p->locals[local];
  return s->base + s->stride * p->grid->thread + at;
}

bool grid_touch_local(const KernelProgram *p, int local, int64_t at, bool write) {
  GridState *const g = p->grid;
  const LocalSlot *const s = &p->locals[local];
  const char *const name = p->k->locals.data[local].name;
  if (g->thread < 0)
    return interp_access_error(p, "outside of thread loops, access to local", name, local, at,
                               s->count);
  const int64_t place = grid_place(p, local, at);
  if (s->shared && !touch(p, &g->locals[place], &(Touch){"local", name, local, at, write, true}))
    return false;
  if (write) g->set[place] = true;
  return g->set[place] ||
         interp_access_error(p, "read of what nobody set: local", name, local, at, s->count);
}

/* In a thread loop, of what lives over barriers: this thread's. */
void grid_declare(const KernelProgram *p, int local, Scalar poison) {
  GridState *const g = p->grid;
  const LocalSlot *const s = &p->locals[local];
  const bool one = g->thread >= 0 && s->stride;
  const int64_t from = one ? grid_place(p, local, 0) : s->base, n = one ? s->count : s->total;
  for (int64_t i = from; i < from + n; i++) {
    p->local_data[i] = poison;
    g->set[i] = false;
    g->locals[i] = (Cell){0};
  }
}
