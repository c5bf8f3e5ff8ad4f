/* When each buffer of a program holds something that is still needed. Steps are numbered as they
 * stand; what goes around a loop (read before it is written, written only in part, written in one
 * branch only, used outside too) lives through the whole loop. */
#include "passes/memory/plan.h"

typedef struct Region { /* a loop or a branch of an If */
  int first, last;
} Region;

typedef struct Use {
  int first, last;
  bool used;
  bool reads_first, writes_first; /* at `first` */
  bool reads_last, writes_last;   /* at `last` */
  Region *branch;                 /* innermost branch around `first` */
} Use;

typedef struct Walk {
  const Module *m;
  Arena *a;
  Use *uses;
  int now;
  Region *branch;
  Vec(Region *) loops;
} Walk;

static void touch(Walk *w, int buffer, bool read, bool write) {
  const int id = buffer_root(w->m, buffer);
  if (id < 0) return;
  Use *u = &w->uses[id];
  if (!u->used) *u = (Use){.first = w->now, .last = w->now, .used = true, .branch = w->branch};
  if (u->last != w->now) {
    u->last = w->now;
    u->reads_last = u->writes_last = false;
  }
  u->reads_last |= read;
  u->writes_last |= write;
  if (u->first == w->now) {
    u->reads_first |= read;
    u->writes_first |= write;
  }
}

static void touch_write(Walk *w, const BufRef *r, const Expr *count) {
  if (r->buffer >= 0) touch(w, r->buffer, !write_is_whole(w->m, r, count), true);
}

static void touch_kernel(Walk *w, const Step *s) {
  for (int i = 0, arg = 0; i < s->call.kernel->params.n && arg < s->call.n_args; i++) {
    const Param *q = &s->call.kernel->params.data[i];
    if (q->scratch) continue;
    const BufRef *r = &s->call.args[arg++];
    if (r->buffer < 0) continue;
    if (q->access & PA_READ) touch(w, r->buffer, true, false);
    if (q->access & PA_WRITE) touch_write(w, r, q->count);
  }
}

static void touch_extern(Walk *w, const Step *s) {
  for (int i = 0; i < s->ext.n_ins; i++)
    if (s->ext.ins[i].buf.buffer >= 0) touch(w, s->ext.ins[i].buf.buffer, true, false);
  for (int i = 0; i < s->ext.n_outs; i++) {
    const BufRef *r = &s->ext.outs[i].buf;
    if (r->buffer >= 0)
      touch(w, r->buffer, r->offset || w->m->buffers.data[r->buffer].kind == BUF_VIEW, true);
  }
  if (s->ext.scratch >= 0) touch(w, s->ext.scratch, false, true);
}

static void walk(Walk *w, const Step *s);

static void walk_branch(Walk *w, const Step *s) {
  Region *outer = w->branch;
  w->branch = ARENA_NEW(w->a, Region);
  w->branch->first = w->now + 1;
  walk(w, s);
  w->branch->last = w->now;
  w->branch = outer;
}

static void walk_loop(Walk *w, const Step *s) {
  Region *loop = ARENA_NEW(w->a, Region);
  loop->first = w->now;
  vec_push(w->a, &w->loops, loop);
  if (s->loop.cond.buffer >= 0) touch(w, s->loop.cond.buffer, true, false);
  walk(w, s->loop.body);
  loop->last = ++w->now;
  if (s->loop.cond.buffer >= 0) touch(w, s->loop.cond.buffer, true, false);
}

static void walk(Walk *w, const Step *s) {
  for (; s; s = s->next) {
    w->now++;
    switch (s->kind) {
      case STEP_KERNEL: touch_kernel(w, s); break;
      case STEP_EXTERN: touch_extern(w, s); break;
      case STEP_COPY:
        touch(w, s->copy.src.buffer, true, false);
        touch_write(w, &s->copy.dst, s->copy.count);
        break;
      case STEP_IF:
        touch(w, s->branch.cond.buffer, true, false);
        walk_branch(w, s->branch.then);
        walk_branch(w, s->branch.otherwise);
        break;
      case STEP_LOOP: walk_loop(w, s); break;
      case STEP_SYM:
        if (s->sym.src.buffer >= 0) touch(w, s->sym.src.buffer, true, false);
        break;
      case STEP_CHECK:
      case STEP_ROOM: break;
    }
  }
}

/* Does something of the buffer survive from one round of the loop to the next, or come in or go
 * out? */
static bool carried(const Use *u, const Region *loop) {
  if (u->last < loop->first || u->first > loop->last) return false;
  if (u->first < loop->first || u->last > loop->last || u->reads_first) return true;
  const Region *b = u->branch;
  return b && b->first >= loop->first && b->last <= loop->last && u->last > b->last;
}

LiveTable plan_live(Arena *scratch, const Module *m) {
  Walk w = {.m = m, .a = scratch, .uses = ARENA_ARRAY(scratch, Use, m->buffers.n + 1), .now = -1};
  walk(&w, m->steps);
  LiveTable t = {ARENA_ARRAY(scratch, Live, m->buffers.n + 1), w.now + 1};
  for (int i = 0; i < m->buffers.n; i++) {
    const Use *u = &w.uses[i];
    Live *l = &t.of[i];
    *l = (Live){u->used,
                u->first,
                u->last,
                u->first,
                u->last,
                u->writes_first && !u->reads_first,
                u->reads_last && !u->writes_last};
    for (int k = 0; k < w.loops.n && u->used; k++) {
      if (!carried(u, w.loops.data[k])) continue;
      if (w.loops.data[k]->first < l->start) l->start = w.loops.data[k]->first;
      if (w.loops.data[k]->last > l->end) l->end = w.loops.data[k]->last;
    }
  }
  return t;
}
