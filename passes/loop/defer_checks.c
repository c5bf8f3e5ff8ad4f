/* Checks of indices wait until the run ends, where kernels run on a device: to look at the worst
 * index where it is found, the host would have to wait for the device, and no graph of the launches
 * could be made. What is read is clamped anyway (passes/graph/check_indices.c); the check only makes
 * it be told. So worst indices are gathered in one buffer of notes, which the steps at the end of the
 * program read (the entry fetches all of it at once). In a loop or branch a note is the worst one so
 * far. What follows from sizes and counters alone the host works out itself. */
#include "passes/pass.h"

typedef struct Defer {
  PassCtx *c;
  Module *m;
  ExprPool *p;
  int *uses;     /* of buffers, by number */
  int notes;     /* buffer, or -1 */
  int n;         /* of notes */
  bool gathered; /* some note is a worst one so far */
  Step *tail, **end;
} Defer;

/* ---- what the host knows ---- */
static bool is_data(void *user, const Expr *e) {
  (void)user;
  return e->op == EX_LOAD || e->op == EX_LOCAL || e->op == EX_VAR;
}

/* Of a kernel that stores one element and reads nothing: that; or NULL. */
static const Expr *stored_value(const Defer *d, const Kernel *k) {
  const Stmt *s = k->body;
  while (s && s->kind == ST_FOR && !s->next &&
         expr_is_i64(expr_var_extent(d->p, s->loop.var->id), 1))
    s = s->loop.body;
  if (!s || s->next || s->kind != ST_STORE) return NULL;
  return expr_any(s->access.value, EXF_LOAD | EXF_LOCAL | EXF_VAR, is_data, NULL) ? NULL
                                                                                  : s->access.value;
}

static const Expr *constant_value(const Defer *d, const BufRef *r) {
  const Buffer *const b = &d->m->buffers.data[r->buffer];
  int64_t at = 0;
  if (b->kind != BUF_WEIGHT || (r->offset && !expr_is_const(r->offset, &at))) return NULL;
  return at >= 0 && at < b->data->count ? ex_i64(d->p, const_int(b->data, at)) : NULL;
}

/* ---- notes ---- */
static bool is_whole(const BufRef *r) { return !r->offset || expr_is_i64(r->offset, 0); }

static void count_use(void *user, const BufRef *r, int access) {
  Defer *const d = user;
  (void)access;
  for (int id = r->buffer; id >= 0; id = d->m->buffers.data[id].base) {
    d->uses[id]++;
    if (d->m->buffers.data[id].kind != BUF_VIEW) return;
  }
}

static BufRef new_note(Defer *d) {
  if (d->notes < 0)
    d->notes = module_add_buffer(d->m, BUF_ARENA, DT_I64, ex_i64(d->p, 1), "notes")->id;
  return (BufRef){d->notes, ex_i64(d->p, d->n++)};
}

static void check_at_end(Defer *d, const Step *s, BufRef note) {
  Step *const last = step_new(d->m, STEP_SYM, s->loc);
  last->sym = s->sym;
  last->sym.src = note;
  *d->end = last;
  d->end = &last->next;
}

/* The step writes s's source, and nobody else uses that: it writes the note instead. */
static bool redirect(Defer *d, Step *by, const Step *s, BufRef note) {
  if (!by || d->uses[s->sym.src.buffer] != 2 || !is_whole(&s->sym.src)) return false;
  BufRef *const args =
      arena_dup(d->m->model->arena, by->call.args, sizeof *args * (size_t)by->call.n_args);
  for (int i = 0; i < by->call.n_args; i++)
    if (args[i].buffer == s->sym.src.buffer) args[i] = note;
  by->call.args = args;
  return true;
}

static Step *copy_to_note(Defer *d, const Step *s, BufRef note) {
  Step *const copy = step_new(d->m, STEP_COPY, s->loc);
  copy->copy.src = s->sym.src;
  copy->copy.dst = note;
  copy->copy.count = ex_i64(d->p, 1);
  return copy;
}

static const Expr *element(const Defer *d, int param) {
  return ex_load(d->p, DT_I64, param, ex_i64(d->p, 0), NULL);
}

/* note = max(note, source) */
static Step *worst_so_far(Defer *d, const Step *s, BufRef note) {
  Kernel *const k = kernel_new(d->m, "worst", s->loc);
  Param p = {.name = "note",
             .dtype = DT_I64,
             .count = ex_i64(d->p, 1),
             .access = PA_READWRITE,
             .align = 8};
  kernel_add_param(d->m, k, p);
  p.name = "index";
  p.access = PA_READ;
  kernel_add_param(d->m, k, p);
  k->body = stmt_store(d->m->model->arena, 0, ex_i64(d->p, 0),
                       ex_max(d->p, element(d, 0), element(d, 1)));
  Step *const call = step_new(d->m, STEP_KERNEL, s->loc);
  const BufRef args[] = {note, s->sym.src};
  call->call.kernel = k;
  call->call.args = arena_dup(d->m->model->arena, args, sizeof args);
  call->call.n_args = 2;
  d->gathered = true;
  return call;
}

/* ---- steps ---- */
/* The last kernel of the list in front of `end` that has the buffer as it is; NULL: none. */
static Step **last_user(Step **list, const Step *end, int buffer) {
  Step **found = NULL;
  for (Step **at = list; *at != end; at = &(*at)->next)
    for (int i = 0; (*at)->kind == STEP_KERNEL && i < (*at)->call.n_args; i++)
      if ((*at)->call.args[i].buffer == buffer && is_whole(&(*at)->call.args[i])) found = at;
  return found;
}

static bool calls_kernel(void *user, Step *s) {
  return s->kind != STEP_KERNEL || s->call.kernel != user; /* goes on */
}

static void drop_kernel(const Defer *d, Kernel *k) {
  int n = 0;
  if (!step_each(d->m->steps, calls_kernel, k)) return;
  for (int i = 0; i < d->m->kernels.n; i++)
    if (d->m->kernels.data[i] != k) d->m->kernels.data[n++] = d->m->kernels.data[i];
  d->m->kernels.n = n;
}

/* The value of the check s, in a list where the step *by, or none, writes its source; NULL: it is on
 * the device. The step goes. */
static const Expr *known_value(const Defer *d, Step **by, const Step *s) {
  if (!by || (*by)->call.n_args != 1 || d->uses[s->sym.src.buffer] != 2)
    return constant_value(d, &s->sym.src);
  Kernel *const k = (*by)->call.kernel;
  const Expr *const value = stored_value(d, k);
  if (!value) return NULL;
  *by = (*by)->next;
  drop_kernel(d, k);
  return value;
}

/* s, in the list at *at, is a check of an index; what takes its place, up to what comes next. */
static Step *defer_check(Defer *d, Step *by, Step *s, bool nested) {
  const BufRef note = new_note(d);
  check_at_end(d, s, note);
  if (!nested && redirect(d, by, s, note)) return s->next;
  Step *const instead = nested ? worst_so_far(d, s, note) : copy_to_note(d, s, note);
  instead->next = s->next;
  return instead;
}

/* A check of an index on the device: the step that the list goes on with. */
static Step **take_check(Defer *d, Step **list, Step **at, bool nested) {
  Step *const s = *at, **const by = last_user(list, s, s->sym.src.buffer);
  const Expr *const value = known_value(d, by, s);
  if (value) {
    s->sym.src = (BufRef){-1, NULL};
    s->sym.value = value;
  } else if (nested && expr_uses_runtime(d->p, s->sym.hi)) { /* the end does not know its bound */
    return &s->next;
  } else {
    *at = defer_check(d, by ? *by : NULL, s, nested);
  }
  d->c->changed = true;
  return *at == s->next ? at : &(*at)->next;
}

static void walk(Defer *d, Step **list, bool nested) {
  for (Step **at = list; *at;) {
    Step *const s = *at;
    if (s->kind == STEP_IF) {
      walk(d, &s->branch.then, true);
      walk(d, &s->branch.otherwise, true);
    }
    if (s->kind == STEP_LOOP) walk(d, &s->loop.body, true);
    const bool check = s->kind == STEP_SYM && s->sym.index && s->sym.src.buffer >= 0;
    at = check ? take_check(d, list, at, nested) : &s->next;
  }
}

/* Those of branches that are not taken, and of loops without rounds, say 0. */
static void clear_notes(Defer *d) {
  Buffer *const zeros = module_add_buffer(d->m, BUF_WEIGHT, DT_I64, ex_i64(d->p, d->n), NULL);
  const int from = zeros->id;
  const int64_t dims[] = {d->n};
  int64_t *const none = ARENA_ARRAY(d->m->model->arena, int64_t, d->n);
  zeros->data = const_new(d->m->model, NULL, DT_I64, 1, dims, none);
  Step *const s = step_new(d->m, STEP_COPY, NULL);
  s->copy.src = (BufRef){from, NULL};
  s->copy.dst = (BufRef){d->notes, NULL};
  s->copy.count = ex_i64(d->p, d->n);
  s->next = d->m->steps;
  d->m->steps = s;
}

bool pass_defer_checks(PassCtx *c) {
  Module *const m = c->module;
  Defer d = {.c = c, .m = m, .p = m->model->pool, .notes = -1};
  if (!target_has_grids(c->target)) return true;
  d.uses = ARENA_ARRAY(c->scratch, int, m->buffers.n + 1);
  d.end = &d.tail;
  for (const Step *s = m->steps; s; s = s->next) step_each_ref(s, count_use, &d);
  walk(&d, &m->steps, false);
  if (!d.n) return true;
  m->buffers.data[d.notes].count = ex_i64(d.p, d.n);
  if (d.gathered) clear_notes(&d);
  Step **end = &m->steps;
  while (*end) end = &(*end)->next;
  *end = d.tail;
  return true;
}
