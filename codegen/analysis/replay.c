/* What the launches of a program depend on, where a device runs its kernels. Addresses and the
 * caller's sizes always count. The host also looks at data: conditions, trip counts, sizes that a
 * step finds. Where all of these come from a few bytes of inputs (a flag, a number of steps, a
 * shape), runs with the same bytes make the same launches, and a graph of them can be kept. */
#include "codegen/analysis/program.h"

typedef struct Sources {
  const Program *p;
  int n;          /* inputs, and behind them the flag of BUF_UNSET */
  bool **of;      /* by buffer: inputs that its elements come from */
  bool *controls; /* those that the host looks at */
  const Step *late;
  bool changed, impossible;
} Sources;

static int input_of(const Sources *s, int buffer) {
  const Buffer *const b = &s->p->m->buffers.data[buffer];
  return b->kind == BUF_INPUT ? b->index : b->kind == BUF_UNSET ? s->n - 1 : -1;
}

static void add(Sources *s, bool *to, const bool *from) {
  for (int i = 0; i < s->n; i++) {
    s->changed |= from[i] && !to[i];
    to[i] |= from[i];
  }
}

static const bool *of_ref(const Sources *s, const BufRef *r) {
  return s->of[buffer_root(s->p->m, r->buffer)];
}

/* ---- steps ---- */
typedef struct Gather {
  Sources *s;
  bool *all;
} Gather;

static void take_reads(void *user, const BufRef *r, int access) {
  const Gather *const g = user;
  if (access & PA_READ) add(g->s, g->all, of_ref(g->s, r));
}

static void give_writes(void *user, const BufRef *r, int access) {
  const Gather *const g = user;
  if (access & PA_WRITE) add(g->s, g->s->of[buffer_root(g->s->p->m, r->buffer)], g->all);
}

static bool finds_size(const Sources *s, const Step *x) {
  for (int i = 0; i < x->ext.n_outs; i++)
    for (int d = 0; d < x->ext.outs[i].rank; d++)
      if (expr_uses_runtime(s->p->m->model->pool, x->ext.outs[i].dims[d])) return true;
  return false;
}

/* What it reads goes into all that it writes. */
static void move(Sources *s, const Step *x) {
  Gather g = {s, ARENA_ARRAY(s->p->arena, bool, s->n + 1)};
  const bool changed = s->changed;
  step_each_ref(x, take_reads, &g);
  s->changed = changed;
  step_each_ref(x, give_writes, &g);
  if (x->kind == STEP_EXTERN && finds_size(s, x)) add(s, s->controls, g.all);
  s->impossible |= x->kind == STEP_EXTERN && !program_call_on_device(s->p, x);
}

static void walk(Sources *s, const Step *x) {
  for (; x && x != s->late; x = x->next) {
    if (x->kind == STEP_KERNEL || x->kind == STEP_COPY || x->kind == STEP_EXTERN) move(s, x);
    walk(s, step_body(x));
    walk(s, step_otherwise(x));
    const BufRef *const seen = x->kind == STEP_IF     ? &x->branch.cond
                               : x->kind == STEP_LOOP ? &x->loop.cond
                               : x->kind == STEP_SYM  ? &x->sym.src
                                                      : NULL;
    if (seen && seen->buffer >= 0) add(s, s->controls, of_ref(s, seen));
  }
}

/* ---- checks behind the last launch ---- */
const Step *program_late_checks(const Program *p) {
  const Step *late = NULL;
  for (const Step *s = p->m->steps; s; s = s->next) {
    const bool index = s->kind == STEP_SYM && s->sym.index && s->sym.src.buffer >= 0;
    if (!index || (late && s->sym.src.buffer != late->sym.src.buffer)) late = NULL;
    if (index && !late) late = s;
  }
  return p->launches ? late : NULL;
}

bool program_is_late(const Program *p, const Step *s) {
  const Step *late = s->kind == STEP_SYM && s->sym.index ? program_late_checks(p) : NULL;
  while (late && late != s) late = late->next;
  return late != NULL;
}

/* ---- the answer ---- */
static int64_t input_bytes(const Program *p, int input) {
  int64_t n;
  if (input == p->m->inputs.n) return 1;
  const Buffer *const b = &p->m->buffers.data[p->m->inputs.data[input]];
  return expr_is_const(b->count, &n) ? n * dtype_bytes(b->dtype) : REPLAY_BYTES + 1;
}

bool program_replay(const Program *p, Replay *out) {
  Sources s = {.p = p, .n = p->m->inputs.n + 1, .late = program_late_checks(p)};
  const int n = p->m->buffers.n;
  s.of = ARENA_ARRAY(p->arena, bool *, n + 1);
  s.controls = ARENA_ARRAY(p->arena, bool, s.n + 1);
  for (int i = 0; i < n; i++) {
    s.of[i] = ARENA_ARRAY(p->arena, bool, s.n + 1);
    if (input_of(&s, i) >= 0) s.of[i][input_of(&s, i)] = true;
  }
  do {
    s.changed = false;
    walk(&s, p->m->steps);
  } while (s.changed);
  *out = (Replay){.controls = ARENA_ARRAY(p->arena, int, s.n + 1)};
  int64_t bytes = 0;
  for (int i = 0; i < s.n; i++) {
    if (!s.controls[i]) continue;
    out->controls[out->n++] = i;
    bytes += (input_bytes(p, i) + 7) / 8 * 8;
  }
  return !s.impossible && bytes <= REPLAY_BYTES;
}

/* ---- in words ---- */
/* As far as these questions go. */
static Program seen_program(const Module *m, const Target *t) {
  Launch *const none = ARENA_NEW(m->model->arena, Launch); /* a device runs kernels */
  return (Program){.m = m, .t = t, .arena = m->model->arena, .launches = none};
}

static const char *host_work(const Program *p, const Step *s) {
  switch (s->kind) {
    case STEP_EXTERN:
      if (!program_call_on_device(p, s)) return "runs on the host, with copies of its tensors";
      return program_call_waits(p, s) ? "the host waits for the sizes that it finds" : NULL;
    case STEP_IF: return "the host waits for its condition";
    case STEP_LOOP:
      return s->loop.cond.buffer < 0 ? NULL : "the host waits for its condition, in each round";
    case STEP_SYM:
      return s->sym.src.buffer < 0 || program_is_late(p, s) ? NULL : "the host waits for a size";
    default: return NULL;
  }
}

const char *codegen_host_work(const Module *m, const Target *t, const Step *s) {
  const Program p = seen_program(m, t);
  const char *const work = host_work(&p, s);
  const char *const nodes = program_node_list(p.arena, s->loc);
  return work ? arena_printf(p.arena, "%s: %s", *nodes ? nodes : "defaults of inputs", work) : NULL;
}

const char *codegen_graph_note(const Module *m, const Target *t) {
  const Program p = seen_program(m, t);
  Replay r;
  if (!program_replay(&p, &r))
    return "launches are no graph: the host takes part, or what it waits for comes from large inputs";
  if (!r.n) return "launches are kept as a graph, for each size";
  StrBuf b = {.arena = p.arena};
  sb_printf(&b, "launches are kept as a graph, for each size and value of");
  for (int i = 0; i < r.n; i++)
    sb_printf(&b, "%s %s", i ? "," : "",
              r.controls[i] < m->inputs.n ? m->buffers.data[m->inputs.data[r.controls[i]]].name
                                          : "whether inputs with a default are given");
  sb_printf(&b, ": the host waits in the first two runs only");
  return sb_str(&b);
}
