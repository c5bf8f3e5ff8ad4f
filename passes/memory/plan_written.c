/* Proof that every byte that a step reads was written before it, by a step of the run: follows the
 * steps in order, with what each buffer holds so far as a set of elements (plan_cover.c), and what
 * each access touches as boxes (plan_footprint.c). Independent of lifetimes and of places.
 *
 * Exact for the given sizes. Not decided, and counted: what hangs on data, and what is left when
 * the budget is spent. Inside one kernel the order is followed for elements that a statement both
 * loads and stores, else all stores count as before all loads; the interpreter follows each. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ir/graph/op_row.h"
#include "passes/memory/plan_written.h"

typedef struct KernelInfo {
  const Kernel *k;
  Sites sites;
  bool known;
} KernelInfo;

typedef struct State { /* of a buffer */
  Cover cover;
  bool vague; /* something unknown was written, too */
  int epoch;  /* branch in which the state before was put aside */
} State;

typedef struct Undo {
  int buffer;
  State before;
} Undo;

typedef struct Prove {
  const Module *m;
  ExprPool *p;
  Arena *a;
  WrittenProof *proof;
  EvalEnv env;
  int64_t *syms;
  State *state;        /* by buffer; views count for what they lie in */
  KernelInfo *kernels; /* sorted by address, for the search alone */
  Vec(Undo) undo;
  int *slot; /* by buffer: position + 1 among changes of the first branch */
  int epoch, last_epoch;
  bool first_way; /* loops that a condition ends run a few times; branches: the second */
  bool found;     /* a size of the run is not known from those of the caller */
  bool over;      /* a check fails for these sizes: the run ends here */
  const Step *step;
  const char *who;
} Prove;

static Scalar sym_value(void *user, int id) {
  return (Scalar){.i = ((const Prove *)user)->syms[id]};
}

static int64_t value_of(Prove *c, const Expr *e) {
  int64_t k;
  if (!e) return 0;
  return expr_is_const(e, &k) ? k : expr_eval(c->p, e, &c->env).i;
}

/* Sizes that no run finds prove nothing, and which those are, nobody knows: then it is a warning.
 */
static bool bad(Prove *c, int buffer, const char *what, int64_t element) {
  const Buffer *b = &c->m->buffers.data[buffer];
  const Loc *loc = c->step ? c->step->loc : NULL;
  const char *text = arena_printf(
      c->a, "memory plan: %s %s element %" PRId64 " of b%d (%s, %" PRId64 " elements)", c->who,
      what, element, buffer, b->name ? b->name : "", c->state[buffer].cover.count);
  if (c->proof->sure || !c->found) return diag_internal(c->m->model->diag, loc, "%s", text);
  diag_warning(c->m->model->diag, loc, "%s, should data give such sizes", text);
  c->proof->undecided++;
  return c->over = true;
}

/* ---- buffers ---- */
/* The buffer that is followed, and where in it; -1: inputs and weights are there from the start. */
static int resolve(Prove *c, const BufRef *r, int64_t *offset) {
  int id = r->buffer;
  *offset = value_of(c, r->offset);
  for (int hops = 0; c->m->buffers.data[id].kind == BUF_VIEW && hops <= c->m->buffers.n; hops++) {
    *offset += value_of(c, c->m->buffers.data[id].offset);
    id = c->m->buffers.data[id].base;
  }
  const BufferKind kind = c->m->buffers.data[id].kind;
  return kind == BUF_ARENA || kind == BUF_OUTPUT ? id : -1;
}

/* The state of a buffer that is about to change. */
static State *touch(Prove *c, int buffer) {
  State *s = &c->state[buffer];
  if (c->epoch && s->epoch != c->epoch) {
    vec_push(c->a, &c->undo, (Undo){buffer, *s});
    s->epoch = c->epoch;
    s->cover.shared = true;
  }
  return s;
}

static bool inside(const Cover *c, const Box *b) {
  int64_t last = b->base;
  for (int d = 0; d < b->n; d++)
    if (!ck_mul(b->stride[d], b->extent[d] - 1, &(int64_t){0}) ||
        !ck_add(last, b->stride[d] * (b->extent[d] - 1), &last))
      return false;
  return b->base >= 0 && last < c->count;
}

static bool write_box(Prove *c, int buffer, const Box *b) {
  State *s = touch(c, buffer);
  if (!inside(&s->cover, b)) return bad(c, buffer, "writes outside, from", b->base);
  cover_add(c->a, &s->cover, b, &c->proof->budget);
  return true;
}

static bool read_box(Prove *c, int buffer, const Box *b) {
  const State *s = &c->state[buffer];
  if (!inside(&s->cover, b)) return bad(c, buffer, "reads outside, from", b->base);
  const int64_t missing = cover_missing(&s->cover, b, &c->proof->budget);
  if (missing < 0) return true;
  if (!s->vague) return bad(c, buffer, "reads what nothing wrote before:", missing);
  c->proof->undecided++;
  return true;
}

static bool range(Prove *c, const BufRef *r, int64_t count, bool write, const char *who) {
  if (r->buffer < 0 || count <= 0) return true;
  Box b = {.n = count > 1, .stride = {1}, .extent = {count}};
  const int id = resolve(c, r, &b.base);
  c->who = who;
  c->proof->reads += !write;
  return id < 0 || (write ? write_box(c, id, &b) : read_box(c, id, &b));
}

/* ---- kernels ---- */
static int by_address(const void *x, const void *y) {
  const Kernel *a = ((const KernelInfo *)x)->k, *b = ((const KernelInfo *)y)->k;
  return a < b ? -1 : a > b;
}

static const Sites *sites_of(Prove *c, const Kernel *k) {
  KernelInfo *i = bsearch(&(KernelInfo){.k = k}, c->kernels, (size_t)c->m->kernels.n,
                          sizeof *c->kernels, by_address);
  if (!i) return NULL;
  if (!i->known) kernel_sites(c->a, c->p, k, &i->sites);
  i->known = true;
  return &i->sites;
}

typedef struct Arg { /* an argument */
  int buffer;        /* -1: not followed */
  int64_t offset;
  bool stored;
} Arg;

typedef struct Apply {
  Prove *c;
  const Arg *t;
  bool store, failed;
} Apply;

static bool apply_box(void *user, const Box *box) {
  Apply *p = user;
  Box b = *box;
  b.base += p->t->offset;
  p->failed = !(p->store ? write_box(p->c, p->t->buffer, &b) : read_box(p->c, p->t->buffer, &b));
  return !p->failed && p->c->proof->budget >= 0;
}

static bool apply(Prove *c, const Site *s, const Arg *t) {
  State *state = &c->state[t->buffer];
  c->proof->reads += !s->store;
  if (cover_full(&state->cover)) return true; /* bounds are another matter */
  Apply p = {c, t, s->store, false};
  if (!s->on_data && site_boxes(c->p, s, &c->env, &c->proof->budget, apply_box, &p)) return true;
  if (p.failed) return false;
  if (s->store)
    touch(c, t->buffer)->vague = true;
  else
    c->proof->undecided++;
  return true;
}

/* Loads that are proved before the stores of their kernel: of an element that its own statement
 * replaces, and of what the kernel does not store to. */
static bool apply_all(Prove *c, const Sites *sites, const Arg *t, bool store, bool first) {
  for (int i = 0; i < sites->n; i++) {
    const Site *s = &sites->data[i];
    if (t[s->param].buffer < 0 || s->store != store) continue;
    if (!store && first != (s->in_place || !t[s->param].stored)) continue;
    if (!apply(c, s, &t[s->param])) return false;
  }
  return true;
}

static bool prove_kernel(Prove *c, const Step *s) {
  const Kernel *k = s->call.kernel;
  const Sites *sites = sites_of(c, k);
  Arg *t = ARENA_ARRAY(c->a, Arg, k->params.n + 1);
  for (int i = 0, arg = 0; i < k->params.n; i++) {
    t[i].buffer = -1;
    if (!k->params.data[i].scratch && arg < s->call.n_args)
      t[i].buffer = resolve(c, &s->call.args[arg++], &t[i].offset);
  }
  for (int i = 0; i < k->params.n; i++)
    for (int j = 0; j < k->params.n; j++)
      if (t[j].buffer == t[i].buffer && (k->params.data[j].access & PA_WRITE)) t[i].stored = true;
  c->who = k->name;
  return !sites || (apply_all(c, sites, t, false, true) && apply_all(c, sites, t, true, false) &&
                    apply_all(c, sites, t, false, false));
}

/* ---- other steps ---- */
/* Elements of its buffer, which may hold halves of those of the tensor (split_complex). */
static int64_t elements(Prove *c, const TensorRef *t) {
  if (t->buf.buffer < 0) return 0;
  const int bytes = dtype_bytes(c->m->buffers.data[t->buf.buffer].dtype);
  int64_t n = dtype_bytes(t->dtype) / bytes;
  for (int d = 0; d < t->rank; d++) n *= value_of(c, t->dims[d]);
  return n;
}

static bool finds_size(Prove *c, const TensorRef *t) {
  for (int d = 0; d < t->rank; d++)
    if (expr_uses_runtime(c->p, t->dims[d])) return true;
  return false;
}

static bool prove_extern(Prove *c, const Step *s) {
  for (int i = 0; i < s->ext.n_ins; i++)
    if (!range(c, &s->ext.ins[i].buf, elements(c, &s->ext.ins[i]), false, s->ext.row->symbol))
      return false;
  for (int i = 0; i < s->ext.n_outs; i++) {
    c->found |= s->ext.outs[i].buf.buffer >= 0 && finds_size(c, &s->ext.outs[i]);
    if (!range(c, &s->ext.outs[i].buf, elements(c, &s->ext.outs[i]), true, s->ext.row->symbol))
      return false;
  }
  return true;
}

static bool prove_sym(Prove *c, const Step *s) {
  c->found |= s->sym.src.buffer >= 0;
  if (s->sym.src.buffer >= 0 && !range(c, &s->sym.src, 1, false, "a size")) return false;
  if (s->sym.src.buffer < 0) c->syms[s->sym.id] = value_of(c, s->sym.value);
  const int64_t v = c->syms[s->sym.id];
  c->over |= (s->sym.lo && v < value_of(c, s->sym.lo)) || (s->sym.hi && v > value_of(c, s->sym.hi));
  return true;
}

static bool prove_check(Prove *c, const Step *s) {
  c->over |= !value_of(c, assume_condition(c->m->model->pool, &s->check));
  return true;
}

static bool prove_steps(Prove *c, const Step *s);

/* Runs a branch and takes its changes back: they are returned. */
static bool prove_branch(Prove *c, const Step *s, Undo **changes, int *n) {
  const int start = c->undo.n, outer = c->epoch;
  c->epoch = ++c->last_epoch;
  const bool ok = prove_steps(c, s);
  c->epoch = outer;
  *n = c->undo.n - start;
  *changes = ARENA_ARRAY(c->a, Undo, *n + 1);
  for (int i = *n - 1; i >= 0; i--) {
    const Undo *u = &c->undo.data[start + i];
    (*changes)[i] = (Undo){u->buffer, c->state[u->buffer]};
    c->state[u->buffer] = u->before;
    c->state[u->buffer].cover.shared = true;
  }
  c->undo.n = start;
  return ok;
}

static void merge(Prove *c, int buffer, const State *x, const State *y) {
  State *s = touch(c, buffer);
  s->cover = cover_both(c->a, &x->cover, &y->cover);
  s->cover.shared = true;
  s->vague = x->vague || y->vague;
}

/* Goes on behind one branch. */
static bool take(Prove *c, const Undo *changes, int n) {
  for (int i = 0; i < n; i++) merge(c, changes[i].buffer, &changes[i].before, &changes[i].before);
  return true;
}

static void both(Prove *c, const Undo *yes, int n_yes, const Undo *no, int n_no) {
  for (int i = 0; i < n_yes; i++) c->slot[yes[i].buffer] = i + 1;
  for (int i = 0; i < n_no; i++) {
    const int at = c->slot[no[i].buffer];
    c->slot[no[i].buffer] = 0;
    const State before = c->state[no[i].buffer];
    merge(c, no[i].buffer, &no[i].before, at ? &yes[at - 1].before : &before);
  }
  for (int i = 0; i < n_yes; i++) {
    if (!c->slot[yes[i].buffer]) continue; /* merged above */
    c->slot[yes[i].buffer] = 0;
    const State before = c->state[yes[i].buffer];
    merge(c, yes[i].buffer, &yes[i].before, &before);
  }
}

/* What both branches wrote is there behind them. Where they find sizes of their own, one of them is
 * followed: the other in another run. */
static bool prove_if(Prove *c, const Step *s) {
  Undo *yes, *no;
  int n_yes, n_no;
  const size_t bytes = sizeof *c->syms * (size_t)(expr_symbol_count(c->p) + 1);
  const int64_t *before = arena_dup(c->a, c->syms, bytes);
  if (!range(c, &s->branch.cond, 1, false, "a condition")) return false;
  if (!prove_branch(c, s->branch.then, &yes, &n_yes)) return false;
  const bool yes_ends = c->over;
  const int64_t *found = arena_dup(c->a, c->syms, bytes);
  memcpy(c->syms, before, bytes);
  c->over = false;
  if (!prove_branch(c, s->branch.otherwise, &no, &n_no)) return false;
  const bool no_ends = c->over, same = memcmp(found, c->syms, bytes) == 0;
  c->over = yes_ends && no_ends;
  if (same && !yes_ends && !no_ends) {
    both(c, yes, n_yes, no, n_no);
    return true;
  }
  const bool follow = !yes_ends && (no_ends || !c->first_way);
  if (follow) memcpy(c->syms, found, bytes);
  return follow ? take(c, yes, n_yes) : take(c, no, n_no);
}

/* Rounds of a loop that are followed; what the others would have written is not known. */
static int64_t rounds_of(Prove *c, const Step *s, int64_t *trip) {
  enum { MOST = 256, FEW = 3 };
  *trip = s->loop.trip ? value_of(c, s->loop.trip) : FEW;
  if (s->loop.cond.buffer >= 0) *trip = c->first_way && *trip > 0 ? (*trip < FEW ? *trip : FEW) : 0;
  return *trip < MOST ? *trip : MOST;
}

static void vague_ref(void *user, const BufRef *r, int access) {
  Prove *c = user;
  int64_t offset;
  const int id = access & PA_WRITE ? resolve(c, r, &offset) : -1;
  if (id >= 0) touch(c, id)->vague = true;
}

static bool prove_loop(Prove *c, const Step *s) {
  int64_t trip;
  const int64_t rounds = rounds_of(c, s, &trip);
  if (s->loop.cond.buffer >= 0 && !range(c, &s->loop.cond, 1, false, "a condition")) return false;
  for (int64_t i = 0; i < rounds && !c->over && c->proof->budget >= 0; i++) {
    if (s->loop.iter >= 0) c->syms[s->loop.iter] = i;
    if (!prove_steps(c, s->loop.body)) return false;
    if (s->loop.cond.buffer >= 0 && !range(c, &s->loop.cond, 1, false, "a condition")) return false;
  }
  if (s->loop.trips >= 0) c->syms[s->loop.trips] = trip;
  c->found |= s->loop.trips >= 0 && s->loop.cond.buffer >= 0;
  if (rounds < trip) step_each_ref(s, vague_ref, c);
  return true;
}

static bool prove_step(Prove *c, const Step *s) {
  c->step = s;
  switch (s->kind) {
    case STEP_KERNEL: return prove_kernel(c, s);
    case STEP_EXTERN: return prove_extern(c, s);
    case STEP_COPY: {
      const int64_t n = value_of(c, s->copy.count);
      return range(c, &s->copy.src, n, false, "a copy") &&
             range(c, &s->copy.dst, n, true, "a copy");
    }
    case STEP_IF: return prove_if(c, s);
    case STEP_LOOP: return prove_loop(c, s);
    case STEP_SYM: return prove_sym(c, s);
    case STEP_CHECK: return prove_check(c, s);
    case STEP_ROOM: return true;
  }
  return true;
}

static bool prove_steps(Prove *c, const Step *s) {
  for (; s && !c->over && c->proof->budget >= 0; s = s->next)
    if (!prove_step(c, s)) return false;
  return true;
}

/* The elements of x that v has. */
static Box cache_box(Prove *c, const InPlace *x, const Value *v) {
  const Expr **dims = in_place_dims(c->a, c->p, x, v);
  Box b = {0};
  int64_t stride = 1;
  for (int d = v->rank - 1; d >= 0; d--) {
    const int64_t n = value_of(c, v->dims[d]);
    if (n != 1) {
      b.stride[b.n] = stride;
      b.extent[b.n++] = n;
    }
    stride *= value_of(c, dims[d]);
  }
  return b;
}

static bool box_is_empty(const Box *b) {
  for (int d = 0; d < b->n; d++)
    if (b->extent[d] <= 0) return true;
  return false;
}

/* Caches hold what the caller left there. */
static void begin_caches(Prove *c) {
  const Model *m = c->m->model;
  for (int i = 0; i < m->in_place.n; i++) {
    const InPlace *x = &m->in_place.data[i];
    const Box b = cache_box(c, x, m->main->inputs.data[x->input]);
    State *s = &c->state[c->m->outputs.data[x->output]];
    if (!box_is_empty(&b) && inside(&s->cover, &b))
      cover_add(c->a, &s->cover, &b, &c->proof->budget);
  }
}

static bool prove_cache(Prove *c, const InPlace *x) {
  const Box b = cache_box(c, x, c->m->model->main->outputs.data[x->output]);
  c->who = "the caller";
  c->proof->reads++;
  return box_is_empty(&b) || read_box(c, c->m->outputs.data[x->output], &b);
}

static bool prove_outputs(Prove *c) {
  c->step = NULL;
  for (int i = 0; i < c->m->outputs.n; i++) {
    const int id = c->m->outputs.data[i];
    const int64_t n = value_of(c, c->m->buffers.data[id].count);
    const InPlace *const cache = model_output_in_place(c->m->model, i);
    if (cache && !prove_cache(c, cache)) return false;
    if (!cache && !range(c, &(BufRef){id, NULL}, n, false, "the caller")) return false;
  }
  return true;
}

static void begin(Prove *c, const int64_t *syms) {
  const int n = c->m->buffers.n, n_syms = expr_symbol_count(c->p);
  c->syms = arena_dup(c->a, syms, sizeof *syms * (size_t)(n_syms + 1));
  c->env = (EvalEnv){.user = c, .sym = sym_value};
  c->env.vars = ARENA_ARRAY(c->a, int64_t, expr_var_count(c->p) + 1);
  c->slot = ARENA_ARRAY(c->a, int, n + 1);
  c->state = ARENA_ARRAY(c->a, State, n + 1);
  for (int i = 0; i < n; i++) {
    const Expr *most = expr_upper(c->p, c->m->buffers.data[i].count, NULL);
    const int64_t count = most ? value_of(c, most) : 0;
    c->state[i].cover.count = count > 0 ? count : 0;
  }
  c->kernels = ARENA_ARRAY(c->a, KernelInfo, c->m->kernels.n + 1);
  for (int i = 0; i < c->m->kernels.n; i++) c->kernels[i].k = c->m->kernels.data[i];
  qsort(c->kernels, (size_t)c->m->kernels.n, sizeof *c->kernels, by_address);
}

bool plan_written(const Module *m, const int64_t *syms, bool first_way, WrittenProof *proof) {
  Prove c = {.m = m, .p = m->model->pool, .proof = proof, .first_way = first_way};
  c.a = arena_child(m->model->arena);
  begin(&c, syms);
  begin_caches(&c);
  bool ok = prove_steps(&c, m->steps);
  if (ok && !c.over && proof->budget >= 0) ok = prove_outputs(&c);
  proof->undecided += proof->budget < 0;
  arena_free(c.a);
  return ok;
}
