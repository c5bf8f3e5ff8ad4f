/* Verifier of memory plans, written without the planner's idea of lifetimes: it writes down the run
 * as a trace (every loop body twice, both branches of every If), cuts the life of each buffer into
 * stretches from a write to the last read of what was written, and checks the bytes of all
 * stretches that meet in time, for several values of the symbols. For the same values it proves
 * that what is read was written before (plan_written.c). */
#include <inttypes.h>
#include <stdlib.h>
#include "passes/memory/plan_written.h"

typedef struct Stretch {
  int buffer;
  int start, end; /* events */
  int64_t lo, hi; /* bytes, for the current symbol values */
} Stretch;

typedef struct Round { /* the current round of an open loop */
  int loop_start, start;
} Round;

typedef struct Check {
  const Module *m;
  Arena *a;
  Vec(Stretch) stretches;
  int *open;         /* by buffer: its current stretch, or -1 */
  bool *was_read;    /* by buffer: read since the stretch began */
  Vec(Round) rounds; /* of open loops */
  int now;
  int64_t *syms;
  WrittenProof *proof;
} Check;

static bool bad(const Check *c, int buffer, const char *fmt, int64_t a, int64_t b) {
  const char *name = c->m->buffers.data[buffer].name;
  const char *what = arena_printf(c->a, fmt, a, b);
  return diag_internal(c->m->model->diag, NULL, "memory plan: buffer b%d (%s) %s", buffer,
                       name ? name : "", what);
}

/* ---- trace ---- */
/* Was event `then` in an earlier round of a loop that is still running? */
static bool in_earlier_round(const Check *c, int then) {
  for (int i = 0; i < c->rounds.n; i++)
    if (then >= c->rounds.data[i].loop_start && then < c->rounds.data[i].start) return true;
  return false;
}

/* A write begins a new stretch when the old contents have been read or are of an earlier round;
 * else it may be one of several that fill the buffer. */
static bool begins(const Check *c, int id, bool read, bool write) {
  if (c->open[id] < 0) return true;
  const int last = c->stretches.data[c->open[id]].end;
  return write && !read && last < c->now && (c->was_read[id] || in_earlier_round(c, last));
}

static void note(Check *c, int buffer, bool read, bool write) {
  const int id = buffer_root(c->m, buffer);
  if (id < 0 || c->m->buffers.data[id].kind != BUF_ARENA) return;
  const int cur = c->open[id];
  if (begins(c, id, read, write)) {
    c->open[id] = c->stretches.n;
    c->was_read[id] = false;
    vec_push(c->a, &c->stretches, (Stretch){.buffer = id, .start = c->now, .end = c->now});
  } else {
    c->stretches.data[cur].end = c->now;
  }
  /* what is never read need not last, but each write of it must not hit anything else */
  if (write) vec_push(c->a, &c->stretches, (Stretch){.buffer = id, .start = c->now, .end = c->now});
  c->was_read[id] |= read;
}

static void note_write(Check *c, const BufRef *r, const Expr *count) {
  if (r->buffer >= 0) note(c, r->buffer, !write_is_whole(c->m, r, count), true);
}

/* Reads before writes: a step that does both keeps what was there. */
static void trace_kernel(Check *c, const Step *s) {
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0, arg = 0; i < s->call.kernel->params.n && arg < s->call.n_args; i++) {
      const Param *q = &s->call.kernel->params.data[i];
      if (q->scratch) continue;
      const BufRef *r = &s->call.args[arg++];
      if (pass == 0 && (q->access & PA_READ)) note(c, r->buffer, true, false);
      if (pass == 1 && (q->access & PA_WRITE)) note_write(c, r, q->count);
    }
}

static void trace_extern(Check *c, const Step *s) {
  for (int i = 0; i < s->ext.n_ins; i++) note(c, s->ext.ins[i].buf.buffer, true, false);
  for (int i = 0; i < s->ext.n_outs; i++) {
    const BufRef *r = &s->ext.outs[i].buf;
    if (r->buffer >= 0)
      note(c, r->buffer, r->offset || c->m->buffers.data[r->buffer].kind == BUF_VIEW, true);
  }
  note(c, s->ext.scratch, false, true);
}

static void trace(Check *c, const Step *s);

static void trace_loop(Check *c, const Step *s) {
  const int rounds = c->rounds.n < 6 ? 2 : 1;
  vec_push(c->a, &c->rounds, (Round){.loop_start = c->now + 1});
  for (int k = 0; k < rounds; k++) {
    c->rounds.data[c->rounds.n - 1].start = ++c->now;
    note(c, s->loop.cond.buffer, true, false);
    trace(c, s->loop.body);
  }
  c->now++;
  note(c, s->loop.cond.buffer, true, false);
  c->rounds.n--;
}

static void trace(Check *c, const Step *s) {
  for (; s; s = s->next) {
    c->now++;
    switch (s->kind) {
      case STEP_KERNEL: trace_kernel(c, s); break;
      case STEP_EXTERN: trace_extern(c, s); break;
      case STEP_COPY:
        note(c, s->copy.src.buffer, true, false);
        note_write(c, &s->copy.dst, s->copy.count);
        break;
      case STEP_IF:
        note(c, s->branch.cond.buffer, true, false);
        trace(c, s->branch.then);
        trace(c, s->branch.otherwise);
        break;
      case STEP_LOOP: trace_loop(c, s); break;
      case STEP_SYM: note(c, s->sym.src.buffer, true, false); break;
      case STEP_CHECK:
      case STEP_ROOM: break;
    }
  }
}

/* ---- symbol values ---- */
static Scalar sym_value(void *user, int id) { return (Scalar){.i = ((const int64_t *)user)[id]}; }

static int64_t value_of(const Check *c, const Expr *e) {
  EvalEnv env = {.user = c->syms, .sym = sym_value};
  return expr_eval(c->m->model->pool, e, &env).i;
}

static uint64_t next_random(uint64_t *s) {
  *s ^= *s << 13;
  *s ^= *s >> 7;
  return *s ^= *s << 17;
}

/* What the program checks at entry (sizes that are not negative, dims that agree) holds for these
 * values; strict: what it checks in branches, too. */
static bool admissible(const Check *c, bool strict) {
  const Model *m = c->m->model;
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume *d = &m->assumes.data[i];
    const bool now = strict ? !expr_uses_runtime(m->pool, d->a) && !expr_uses_runtime(m->pool, d->b)
                            : assume_at_entry(m, d);
    if (now && !value_of(c, assume_condition(m->pool, d))) return false;
  }
  return true;
}

/* Sizes that the program refuses, and that the arithmetic of this check could not hold. */
static bool too_large(const Check *c) {
  const int64_t most = INT64_C(1) << 46, arena = value_of(c, c->m->arena_bytes);
  if (arena < 0 || arena > most) return true;
  for (int i = 0; i < c->m->buffers.n; i++)
    if (value_of(c, c->m->buffers.data[i].count) > most) return true;
  return false;
}

typedef struct Draw {
  int64_t reach; /* how far above their lower bounds symbols may be */
  int64_t grain; /* the caller's are multiples of it */
  bool most;     /* all at their reach, as far as that is 128 */
  bool alike;    /* the caller's are equal */
} Draw;

static int64_t draw(const Draw *d, int64_t lo, int64_t room, int64_t grain, uint64_t *seed) {
  if (room <= 0) return lo;
  if (d->most) return lo + (room < 128 ? room : 128);
  const int64_t v = (lo + (int64_t)(next_random(seed) % ((uint64_t)room + 1))) / grain * grain;
  return v < lo ? v + grain : v;
}

static void draw_symbols(const Check *c, const Draw *d, uint64_t *seed) {
  ExprPool *p = c->m->model->pool;
  const int n = expr_symbol_count(p);
  int64_t first = -1;
  for (int pass = 0; pass < 2; pass++) /* the caller's first: bounds of runtime symbols use them */
    for (int i = 0; i < n; i++) {
      const Symbol *s = expr_symbol(p, i);
      if (s->runtime != (pass == 1)) continue;
      const Expr *u = s->bound ? expr_upper(p, s->bound, NULL) : NULL;
      const int64_t lo = s->lo < -4 ? -4 : s->lo; /* of data: anything */
      int64_t room = d->reach;
      if (u && !ck_sub(value_of(c, u), lo, &room)) room = 0;
      c->syms[i] = draw(d, lo, room, s->runtime ? 1 : d->grain, seed);
      if (s->runtime || !d->alike) continue;
      if (first >= s->lo) c->syms[i] = first;
      first = c->syms[i];
    }
}

/* Larger and larger sizes until the program would accept them, multiples of powers of two and equal
 * ones among them; false when none was found. */
static bool choose_symbols(const Check *c, int64_t reach, bool most, uint64_t *seed) {
  enum { TRIES = 48 };
  for (int strict = 1; strict >= 0; strict--)
    for (int k = 0; k < TRIES; k++) {
      const int64_t more = reach + (reach + 4) * k / 4;
      const Draw d = {more, 1ll << (k % 8), most && k < 2, k % 16 >= 8};
      draw_symbols(c, &d, seed);
      if (admissible(c, strict) && !too_large(c)) return true;
    }
  return false;
}

/* ---- bytes ---- */
static int by_start(const void *x, const void *y) {
  const Stretch *a = x, *b = y;
  return a->start != b->start ? a->start - b->start : a->buffer - b->buffer;
}

static bool in_place(const Check *c, const Stretch *from, const Stretch *to) {
  const int source = c->m->buffers.data[to->buffer].inplace_of;
  return source >= 0 && buffer_root(c->m, source) == from->buffer && from->end == to->start &&
         from->lo == to->lo && from->start < to->start;
}

static bool place_stretches(Check *c) {
  const int64_t arena = value_of(c, c->m->arena_bytes);
  for (int i = 0; i < c->stretches.n; i++) {
    Stretch *s = &c->stretches.data[i];
    const Buffer *b = &c->m->buffers.data[s->buffer];
    if (!b->offset) return bad(c, b->id, "has no place", 0, 0);
    const int64_t count = value_of(c, b->count);
    s->lo = value_of(c, b->offset);
    s->hi = s->lo + (count > 0 ? count : 0) * dtype_bytes(b->dtype);
    if (s->lo < 0 || s->hi > arena)
      return bad(c, b->id, "ends at %" PRId64 " of %" PRId64 " bytes", s->hi, arena);
    if (s->lo % 64) return bad(c, b->id, "at %" PRId64 " is not aligned", s->lo, 0);
  }
  return true;
}

/* Goes forward in time with the list of stretches that are alive. */
static bool check_overlaps(Check *c) {
  int *alive = ARENA_ARRAY(c->a, int, c->stretches.n + 1), n = 0;
  for (int i = 0; i < c->stretches.n; i++) {
    const Stretch *s = &c->stretches.data[i];
    int kept = 0;
    for (int k = 0; k < n; k++) {
      const Stretch *o = &c->stretches.data[alive[k]];
      if (o->end < s->start) continue;
      alive[kept++] = alive[k];
      if (o->buffer == s->buffer || o->hi <= s->lo || s->hi <= o->lo || in_place(c, o, s)) continue;
      return bad(c, s->buffer, "overlaps b%" PRId64 " at %" PRId64 " bytes", o->buffer,
                 s->lo > o->lo ? s->lo : o->lo);
    }
    n = kept;
    alive[n++] = i;
  }
  return true;
}

/* Evaluations and words of bits for the proof that reads follow writes; `debug`: sizes found at run
 * time are taken to be what their bounds allow. */
#ifdef BURIN_DEBUG
enum { WORK = 40000000 };
static const bool debug = true;
#else
enum { WORK = 2000000 };
static const bool debug = false;
#endif

/* Loops that a condition ends may also not run at all, branches may find sizes of their own. */
static bool has_ways(const Step *s, bool in_branch) {
  for (; s; s = s->next)
    if ((s->kind == STEP_LOOP && s->loop.cond.buffer >= 0) || (in_branch && s->kind == STEP_SYM) ||
        has_ways(step_body(s), in_branch || s->kind == STEP_IF) ||
        has_ways(step_otherwise(s), true))
      return true;
  return false;
}

/* Small sizes and somewhat larger ones: borders, and whole blocks behind them. */
static bool check_written(Check *c, int trials, uint64_t *seed) {
  const int runs = has_ways(c->m->steps, false) ? 2 : 1;
  c->proof->sure = debug;
  for (int k = 0; k < trials; k++) {
    if (!choose_symbols(c, k == 0 ? 4 : 40, false, seed)) continue;
    for (int run = 0; run < runs; run++) {
      c->proof->budget = WORK / (trials * runs);
      if (!plan_written(c->m, c->syms, run == 0, c->proof)) return false;
    }
  }
  return true;
}

static bool check_values(Check *c) {
  ExprPool *p = c->m->model->pool;
  uint64_t seed = 88172645463325252u;
  const int n_syms = expr_symbol_count(p);
  c->syms = ARENA_ARRAY(c->a, int64_t, n_syms + 1);
  int64_t fixed = 0;
  const int trials = n_syms && !expr_is_const(c->m->arena_bytes, &fixed) ? 5 : 1;
  for (int k = 0; k < trials; k++) {
    if (!choose_symbols(c, k == 0 ? 1 : 300, k == 1, &seed)) continue;
    if (!place_stretches(c) || !check_overlaps(c)) return false;
  }
  return check_written(c, trials > 1 ? 2 : 1, &seed);
}

bool plan_check(const Module *m) {
  WrittenProof proof = {0};
  return plan_prove(m, &proof);
}

bool plan_prove(const Module *m, WrittenProof *proof) {
  Arena *a = arena_child(m->model->arena);
  Check c = {.m = m, .a = a, .proof = proof};
  c.open = ARENA_ARRAY(a, int, m->buffers.n + 1);
  c.was_read = ARENA_ARRAY(a, bool, m->buffers.n + 1);
  for (int i = 0; i < m->buffers.n; i++) c.open[i] = -1;
  trace(&c, m->steps);
  for (int i = 0; i < m->buffers.n; i++)
    if (c.open[i] >= 0 && !c.was_read[i])
      c.stretches.data[c.open[i]].end = c.stretches.data[c.open[i]].start;
  if (c.stretches.n)
    qsort(c.stretches.data, (size_t)c.stretches.n, sizeof *c.stretches.data, by_start);
  const bool ok = m->arena_bytes ? plan_in_place(m) && check_values(&c)
                                 : diag_internal(m->model->diag, NULL, "memory plan: missing");
  arena_free(a);
  return ok;
}
