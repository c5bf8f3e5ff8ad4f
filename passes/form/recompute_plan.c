/* See recompute.h. Goes through the units in their order, with a memory of a given size. Where it is
 * full, the value gives way whose computing again costs least for its bytes and for the time until it
 * is read (Kirisame et al., Dynamic Tensor Rematerialization, 2021, with the next use known); what
 * was given away is computed again when it is read, and before it what that reads. */
#include "passes/form/recompute.h"

enum { MAX_DEPTH = 1000 };

typedef struct State {
  bool resident, computed, killed;
  bool keeps; /* something cheap counts on it */
  int locks;
  int next; /* of its uses */
} State;

typedef struct Walk {
  Units *u;
  State *of; /* by stored value */
  bool *
      never; /* by stored value: it does not give way, since its inputs will have been overwritten */
  double room, now_bytes;
  int now; /* unit */
  int *seen, stamp;
  int n_again, depth;
  int outer; /* value that a unit needed first */
  int stuck; /* a value that has to stay, or -1 */
  Schedule *s;
} Walk;

static int next_use(const Walk *p, int k) {
  const Stored *const v = &p->u->stored[k];
  return p->of[k].next < v->uses.n ? v->uses.data[p->of[k].next] : -1;
}

static bool may_go(const Walk *p, int k) {
  const Stored *const v = &p->u->stored[k];
  return p->of[k].resident && !p->of[k].locks && v->bytes > 0 && !v->pinned && v->unit >= 0;
}

static void drop(Walk *p, int k) {
  if (!p->of[k].resident) return;
  p->of[k].resident = false;
  p->now_bytes -= p->u->stored[k].bytes;
}

/* ---- what it costs that a value is not there ---- */
static double missing_above(Walk *p, int k, int depth) {
  const Stored *const v = &p->u->stored[k];
  if (v->unit < 0 || p->of[k].resident || p->seen[k] == p->stamp || depth > MAX_DEPTH) return 0;
  p->seen[k] = p->stamp;
  const Unit *const unit = &p->u->unit[v->unit];
  double sum = unit->cycles;
  for (int i = 0; i < unit->reads.n; i++) sum += missing_above(p, unit->reads.data[i], depth + 1);
  return sum;
}

/* What was given away and counts on k, directly or through others. */
static double missing_below(Walk *p, int k, int depth) {
  const Stored *const v = &p->u->stored[k];
  double sum = 0;
  for (int i = 0; i < v->uses.n && depth <= MAX_DEPTH; i++) {
    const Unit *const unit = &p->u->unit[v->uses.data[i]];
    for (int j = 0; j < unit->outs.n; j++) {
      const int o = unit->outs.data[j];
      if (!p->of[o].computed || p->of[o].resident || p->seen[o] == p->stamp) continue;
      p->seen[o] = p->stamp;
      if (next_use(p, o) >= 0) sum += unit->cycles;
      sum += missing_below(p, o, depth + 1);
    }
  }
  return sum;
}

static double loss(Walk *p, int k) {
  const Stored *const v = &p->u->stored[k];
  const Unit *const unit = &p->u->unit[v->unit];
  double sum = unit->cycles;
  p->stamp++;
  for (int i = 0; i < unit->reads.n; i++) sum += missing_above(p, unit->reads.data[i], 0);
  return sum + missing_below(p, k, 0);
}

static bool give_way(Walk *p) {
  int best = -1;
  double least = 0;
  for (int k = 0; k < p->u->n_stored; k++) {
    if (!may_go(p, k)) continue;
    const int next = next_use(p, k);
    if (p->never[k]) continue;
    if (next >= 0 && (!p->u->unit[p->u->stored[k].unit].copies || next == p->now)) continue;
    const double h =
        next < 0 ? 0 : (loss(p, k) + 1) / (p->u->stored[k].bytes * (next - p->now + 1));
    if (best >= 0 && h >= least) continue;
    best = k;
    least = h;
  }
  if (best < 0) return false;
  drop(p, best);
  return true;
}

static void take(Walk *p, int k) {
  State *const s = &p->of[k];
  const double bytes = p->u->stored[k].bytes;
  if (s->resident) return;
  while (bytes > 0 && p->now_bytes + bytes > p->room && give_way(p)) {
  }
  s->resident = s->computed = true;
  p->now_bytes += bytes;
  if (p->now_bytes > p->s->peak) p->s->peak = p->now_bytes;
}

/* k, for the sake of p->outer, is computed from what is gone. */
static bool fail(Walk *p, int k) {
  p->stuck = k >= 0 && !p->never[p->outer] ? p->outer : k;
  return false;
}

static bool need(Walk *p, int k);

static bool need_all(Walk *p, const Unit *unit, int asked) {
  for (int i = 0; i < unit->reads.n; i++) {
    const int r = unit->reads.data[i];
    if (asked >= 0 && p->of[r].killed) return fail(p, asked);
    if (!need(p, r)) return false;
    p->of[r].locks++;
  }
  return true;
}

static void unlock(Walk *p, const Unit *unit) {
  for (int i = 0; i < unit->reads.n; i++) p->of[unit->reads.data[i]].locks--;
}

static void note(Walk *p, int unit, bool again) {
  vec_push(p->u->a, &p->s->order, ((Execution){unit, again}));
}

static bool need(Walk *p, int k) {
  const Stored *const v = &p->u->stored[k];
  if (p->of[k].resident || v->unit < 0) return true;
  const Unit *const unit = &p->u->unit[v->unit];
  if (!unit->copies || p->depth > MAX_DEPTH || p->n_again++ > 2 * p->u->n + 64) return fail(p, -1);
  if (p->depth++ == 0) p->outer = k;
  if (!need_all(p, unit, k)) return false;
  p->depth--;
  take(p, k);
  unlock(p, unit);
  note(p, v->unit, true);
  p->s->again += unit->cycles;
  return true;
}

/* ---- what costs next to nothing ---- */
/* No product, and not much more than the value's trip through memory. */
static bool is_cheap(const Walk *p, int k) {
  static const double most = 1.5; /* cycles a byte */
  const Stored *const v = &p->u->stored[k];
  return !p->u->unit[v->unit].product && p->u->unit[v->unit].cycles <= most * v->bytes;
}

static int last_use(const Walk *p, int k) {
  const Stored *const v = &p->u->stored[k];
  return v->uses.n ? v->uses.data[v->uses.n - 1] : -1;
}

/* What it is computed from is there as long in any case. */
static bool is_free(const Walk *p, int k) {
  const Unit *const unit = &p->u->unit[p->u->stored[k].unit];
  for (int i = 0; i < unit->reads.n; i++) {
    const int r = unit->reads.data[i];
    if (p->u->stored[r].unit < 0) continue;
    if (!p->of[r].resident || last_use(p, r) < last_use(p, k)) return false;
  }
  return true;
}

static void give_cheap(Walk *p, int k, int peak) {
  const int next = next_use(p, k);
  if (!may_go(p, k) || p->never[k] || p->of[k].keeps || next <= peak || p->now >= peak) return;
  const Unit *const unit = &p->u->unit[p->u->stored[k].unit];
  if (!unit->copies || !is_cheap(p, k) || !is_free(p, k)) return;
  for (int i = 0; i < unit->reads.n; i++) p->of[unit->reads.data[i]].keeps = true;
  drop(p, k);
}

/* ---- the walk ---- */
static void pass_use(Walk *p, int k) {
  while (p->of[k].next < p->u->stored[k].uses.n &&
         p->u->stored[k].uses.data[p->of[k].next] <= p->now)
    p->of[k].next++;
}

static bool one_unit(Walk *p, int peak) {
  const Unit *const unit = &p->u->unit[p->now];
  if (!need_all(p, unit, -1)) return false;
  for (int i = 0; i < unit->outs.n; i++) take(p, unit->outs.data[i]);
  unlock(p, unit);
  note(p, p->now, false);
  if (unit->kills >= 0) p->of[unit->kills].killed = true;
  for (int i = 0; i < unit->reads.n; i++) {
    const int r = unit->reads.data[i];
    pass_use(p, r);
    if (next_use(p, r) < 0 && !p->u->stored[r].pinned && !p->never[r]) drop(p, r);
    if (peak >= 0) give_cheap(p, r, peak);
  }
  for (int i = 0; i < unit->outs.n; i++)
    if (next_use(p, unit->outs.data[i]) < 0 && !p->u->stored[unit->outs.data[i]].pinned)
      drop(p, unit->outs.data[i]);
  return true;
}

static bool walk(Walk *p, int peak, int *peak_at) {
  Units *const u = p->u;
  double most = 0;
  p->of = ARENA_ARRAY(u->a, State, u->n_stored + 1);
  p->seen = ARENA_ARRAY(u->a, int, u->n_stored + 1);
  p->stamp = p->n_again = p->depth = 0;
  p->now_bytes = 0;
  p->stuck = -1;
  *p->s = (Schedule){0};
  for (p->now = 0; p->now < u->n; p->now++) {
    if (!one_unit(p, peak)) return false;
    if (p->s->peak <= most) continue;
    most = p->s->peak;
    if (peak_at) *peak_at = p->now;
  }
  return true;
}

bool schedule_make(Units *u, double bytes, bool eager, Schedule *s) {
  enum { MOST_TRIES = 64 };
  Walk p = {.u = u, .room = bytes, .s = s, .never = ARENA_ARRAY(u->a, bool, u->n_stored + 1)};
  int peak = -1;
  if (eager) {
    p.room = 1e300;
    if (!walk(&p, -1, &peak)) return false;
    p.room = bytes;
  }
  for (int i = 0; i < MOST_TRIES; i++) {
    if (walk(&p, peak, NULL)) return s->peak <= bytes;
    if (p.stuck < 0) return false;
    p.never[p.stuck] = true;
  }
  return false;
}
