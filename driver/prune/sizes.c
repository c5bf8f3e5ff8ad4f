/* Sizes of random samples: such that what the model assumes of its sizes holds. */
#include "driver/prune/pruner.h"
#include "driver/session/work.h"
#include "ir/expr/expr_query.h"

typedef struct Choice { /* of the size of a symbol, and of those that must be equal to it */
  int symbol, at;       /* at: the candidate that is tried */
  int64_t wanted;       /* the first one */
} Choice;
typedef struct Sizes {
  Model *m;
  int64_t *of;  /* by symbol */
  int *same;    /* by symbol: one that it must be equal to, at last itself */
  bool regions; /* what branches and bodies assume holds, too, though they may not run */
  Vec(Choice) choices;
} Sizes;

static const int64_t candidates[] = {2, 1, 8, 16, 32, 64, 128, 224, 512, 1024, 4096, 16384};
enum { N_CANDIDATES = 1 + sizeof candidates / sizeof *candidates };

static bool counts(const Sizes *s, const DimAssume *a) {
  return s->regions || assume_at_entry(s->m, a);
}

static int root_of(const Sizes *s, int symbol) {
  while (s->same[symbol] != symbol) symbol = s->same[symbol];
  return symbol;
}

static void find_equal(Sizes *s, int n) {
  for (int k = 0; k < n; k++) s->same[k] = k;
  for (int i = 0; i < s->m->assumes.n; i++) {
    const DimAssume *a = &s->m->assumes.data[i];
    if (a->kind == ASSUME_EQUAL && a->a->op == EX_SYM && a->b->op == EX_SYM && counts(s, a) &&
        root_of(s, a->a->id) != root_of(s, a->b->id))
      s->same[root_of(s, a->a->id)] = root_of(s, a->b->id);
  }
}

static void add_choice(Sizes *s, int symbol, int64_t wanted) {
  for (int k = 0; k < s->choices.n; k++)
    if (s->choices.data[k].symbol == symbol) return;
  vec_push(s->m->arena, &s->choices, (Choice){symbol, 0, wanted});
}

static Scalar size_of(void *user, int id) {
  const Sizes *s = user;
  return (Scalar){.i = s->of[root_of(s, id)]};
}

static bool is_open(void *user, const Expr *e) {
  return e->op == EX_SYM && expr_symbol(user, e->id)->runtime;
}

static bool all_hold(Sizes *s) {
  ExprPool *p = s->m->pool;
  EvalEnv env = {.sym = size_of, .user = s};
  for (int k = 0; k < s->choices.n; k++) {
    const Choice *c = &s->choices.data[k];
    s->of[c->symbol] = c->at ? candidates[c->at - 1] : c->wanted;
  }
  for (int i = 0; i < s->m->assumes.n; i++) {
    const DimAssume *a = &s->m->assumes.data[i];
    const Expr *e = counts(s, a) ? assume_condition(p, a) : NULL;
    if (e && e->flags == EXF_SYM && !expr_any(e, EXF_SYM, is_open, p) && !expr_eval(p, e, &env).i)
      return false;
  }
  return true;
}

/* The next combination: the last choice changes first. */
static bool next(Sizes *s) {
  for (int k = s->choices.n - 1; k >= 0; k--) {
    if (++s->choices.data[k].at < N_CANDIDATES) return true;
    s->choices.data[k].at = 0;
  }
  return false;
}

static bool find_sizes(Sizes *s) {
  enum { MOST = 20000 };
  bool found = all_hold(s);
  for (int k = 0; k < MOST && !found && next(s); k++) found = all_hold(s);
  return found;
}

/* What a size is first tried with: those of batches, and all others; where these fit nowhere, drawn ones:
 * a mask may have to be as long as two other sizes together, which only data tell. */
typedef struct Wanted {
  int64_t batch, other; /* other 0: drawn */
} Wanted;
static const Wanted wanted[] = {{2, 224}, {2, 32},   {2, 512}, {1, 224},   {1, 32},
                                {1, 512}, {1, 4096}, {2, 8},   {1, 16384}, {1, 1}};

static int64_t wanted_size(const Wanted *w, uint64_t *drawn) {
  static const int64_t sizes[] = {1, 2, 4, 8, 16, 24, 32, 64};
  if (w->other) return w->other;
  *drawn = *drawn * 0x5851f42d4c957f2d + 0x14057b7ef767814f; /* Knuth, MMIX */
  return sizes[*drawn >> 61];
}

static void add_choices(Pruner *z, Sizes *s, const Wanted *w, uint64_t drawn) {
  for (int vectors = 0; vectors < 2; vectors++) /* these last: their size is of something else */
    for (int i = 0; i < z->n_inputs; i++) {
      const Value *v = s->m->main->inputs.data[i];
      for (int d = 0; d < v->rank && (v->rank == 1) == vectors; d++)
        if (v->dims[d]->op == EX_SYM)
          add_choice(s, root_of(s, v->dims[d]->id),
                     d == 0 && v->rank > 1 ? w->batch : wanted_size(w, &drawn));
    }
}

static void take_sizes(Pruner *z, const Sizes *s, const Wanted *w) {
  EvalEnv env = {.sym = size_of, .user = (void *)(uintptr_t)s};
  for (int i = 0; i < z->n_inputs; i++) {
    const Value *v = s->m->main->inputs.data[i];
    int64_t *dims = ARENA_ARRAY(z->s->arena, int64_t, v->rank + 1);
    for (int d = 0; d < v->rank; d++)
      dims[d] = v->dims[d]->flags & ~EXF_SYM ? 1 : expr_eval(s->m->pool, v->dims[d], &env).i;
    z->inputs[i].dims = dims;
  }
}

/* Multiply-adds of a run, as far as sizes tell. */
static double work_of(const Sizes *s) {
  const Graph *g = s->m->main;
  EvalEnv env = {.sym = size_of, .user = (void *)(uintptr_t)s};
  double sum = 0;
  for (int i = 0; i < g->nodes.n; i++) sum += node_work_at(s->m, g->nodes.data[i], &env);
  return sum;
}

typedef struct Fit {
  bool holds; /* what the model assumes */
  double work;
} Fit;

static Fit fit_sizes(Pruner *z, Model *m, const Wanted *w, int attempt, bool regions) {
  const int n = expr_symbol_count(m->pool);
  Sizes s = {.m = m,
             .of = ARENA_ARRAY(z->s->arena, int64_t, n + 1),
             .same = ARENA_ARRAY(z->s->arena, int, n + 1),
             .regions = regions};
  for (int k = 0; k < n; k++) s.of[k] = w->other ? w->other : 1;
  find_equal(&s, n);
  add_choices(z, &s, w, (uint64_t)attempt);
  const bool found = find_sizes(&s);
  if (!found) all_hold(&s); /* the run will say what is wrong */
  take_sizes(z, &s, w);
  return (Fit){found, work_of(&s)};
}

static Fit fit_either(Pruner *z, Model *m, const Wanted *w, int attempt) {
  const Fit f = fit_sizes(z, m, w, attempt, true);
  return f.holds ? f : fit_sizes(z, m, w, attempt, false);
}

bool pruner_try_sizes(Pruner *z, Model *m, int attempt) {
  enum { TABLE = sizeof wanted / sizeof *wanted, MOST = TABLE + 40 };
  static const Wanted drawn = {2, 0};
  static const double most = 2e10; /* multiply-adds; attention over all pixels needs more at once */
  const Wanted *w = attempt < TABLE ? &wanted[attempt] : &drawn;
  if (attempt >= MOST) return false;
  if (fit_either(z, m, w, attempt).work <= most) return true;
  for (Wanted few = *w; (few.other /= 4) >= 8;) {
    const Fit f = fit_either(z, m, &few, attempt);
    if (f.holds && f.work <= most) return true;
  }
  return fit_either(z, m, w, attempt), true;
}
