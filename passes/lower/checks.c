/* What inference took for granted about sizes that are only known while the program runs, or only
 * where a region runs, becomes check steps: each stands directly behind the step that assigns the
 * last symbol it needs, and so before everything that relies on it. What holds for the sizes of the
 * inputs alone is checked at entry (codegen). */
#include "passes/lower/lower.h"

#include <string.h>

typedef struct Checks {
  Lower *l;
  int n_syms, n_assumes;
  int *waits_for; /* by assumption: a symbol in it that was unknown when last looked at, or -1 */
} Checks;

/* What is assigned, and which assumptions were checked, on the way to a step. */
typedef struct Known {
  bool *sym, *done;
} Known;

static Known copy_known(const Checks *c, const Known *k) {
  const Known r = {ARENA_ARRAY(c->l->a, bool, c->n_syms + 1),
                   ARENA_ARRAY(c->l->a, bool, c->n_assumes + 1)};
  memcpy(r.sym, k->sym, (size_t)c->n_syms);
  memcpy(r.done, k->done, (size_t)c->n_assumes);
  return r;
}

typedef struct KnownSyms {
  const bool *sym;
  int n;
  int missing;
} KnownSyms;

static bool is_unknown(void *user, const Expr *e) {
  KnownSyms *k = user;
  if (e->op != EX_SYM || (e->id < k->n && k->sym[e->id])) return false;
  k->missing = e->id;
  return true;
}

static bool all_known(const Checks *c, const Known *k, int i) {
  const DimAssume *a = &c->l->m->assumes.data[i];
  KnownSyms syms = {k->sym, c->n_syms, -1};
  const int id = c->waits_for[i];
  if (id >= 0 && !(id < c->n_syms && k->sym[id])) return false;
  if (!expr_any(a->a, EXF_SYM, is_unknown, &syms)) expr_any(a->b, EXF_SYM, is_unknown, &syms);
  c->waits_for[i] = syms.missing;
  return syms.missing < 0;
}

/* The same was found necessary at another node, too. */
static bool done_before(const Checks *c, const Known *k, int i) {
  const DimAssume *a = c->l->m->assumes.data;
  for (int j = 0; j < i; j++)
    if (k->done[j] && a[j].kind == a[i].kind && a[j].a == a[i].a && a[j].b == a[i].b) return true;
  return false;
}

/* Does it apply in region g: made there, or in main of symbols that only get known here? */
static bool applies(const Checks *c, const DimAssume *a, const Graph *g) {
  if (a->graph && a->graph != c->l->m->main) return a->graph == g;
  return expr_uses_runtime(c->l->p, a->a) || expr_uses_runtime(c->l->p, a->b);
}

static Step *due(const Checks *c, Known *k, const Graph *g) {
  const Model *m = c->l->m;
  Step *list = NULL;
  for (int i = 0; i < c->n_assumes; i++) {
    const DimAssume *a = &m->assumes.data[i];
    if (k->done[i] || !all_known(c, k, i) || !applies(c, a, g)) continue;
    const bool again = done_before(c, k, i);
    k->done[i] = true;
    if (again) continue;
    Step *s = step_new(c->l->mod, STEP_CHECK, a->loc);
    s->check = *a;
    s->check.graph = NULL;
    step_append(&list, s);
  }
  return list;
}

/* True: it was not known before. */
static bool learn(const Checks *c, Known *k, int id) {
  if (id < 0 || id >= c->n_syms || k->sym[id]) return false;
  return k->sym[id] = true;
}

static bool set_outputs(const Checks *c, Known *k, const Step *s) {
  bool more = false;
  for (int i = 0; i < s->ext.n_outs; i++)
    for (int d = 0; d < s->ext.outs[i].rank; d++)
      if (s->ext.outs[i].dims[d]->op == EX_SYM) more |= learn(c, k, s->ext.outs[i].dims[d]->id);
  return more;
}

static void walk(const Checks *c, Step **list, const Graph *g, Known *k);

/* What both branches assign is known behind them. */
static bool walk_if(const Checks *c, Step *s, const RegionSteps *r, Known *k) {
  Known yes = copy_known(c, k), no = copy_known(c, k);
  walk(c, &s->branch.then, r->g[0], &yes);
  walk(c, &s->branch.otherwise, r->g[1], &no);
  bool more = false;
  for (int i = 0; i < c->n_syms; i++)
    if (yes.sym[i] && no.sym[i]) more |= learn(c, k, i);
  return more;
}

static bool walk_loop(const Checks *c, Step *s, const RegionSteps *r, Known *k) {
  Known in = copy_known(c, k);
  if (s->loop.iter >= 0) in.sym[s->loop.iter] = true;
  walk(c, &s->loop.body, r->g[0], &in);
  return learn(c, k, s->loop.trips);
}

static const RegionSteps *region_of(const Checks *c, const Step *s) {
  for (int i = 0; i < c->l->regions.n; i++)
    if (c->l->regions.data[i].step == s) return &c->l->regions.data[i];
  static const RegionSteps none;
  return &none;
}

/* True: a symbol is known behind s that was not before it. */
static bool walk_step(const Checks *c, Step *s, Known *k) {
  switch (s->kind) {
    case STEP_EXTERN: return set_outputs(c, k, s);
    case STEP_SYM: return learn(c, k, s->sym.id);
    case STEP_IF: return walk_if(c, s, region_of(c, s), k);
    case STEP_LOOP: return walk_loop(c, s, region_of(c, s), k);
    default: return false;
  }
}

static void walk(const Checks *c, Step **list, const Graph *g, Known *k) {
  Step **at = list, *fresh = due(c, k, g);
  for (;;) {
    while (fresh) {
      Step *rest = fresh->next;
      fresh->next = *at;
      *at = fresh;
      at = &fresh->next;
      fresh = rest;
    }
    Step *s = *at;
    if (!s) return;
    at = &s->next;
    if (walk_step(c, s, k)) fresh = due(c, k, g);
  }
}

void lower_checks(Lower *l, Step **steps) {
  Checks c = {.l = l, .n_syms = expr_symbol_count(l->p), .n_assumes = l->m->assumes.n};
  c.waits_for = ARENA_ARRAY(l->a, int, c.n_assumes + 1);
  for (int i = 0; i < c.n_assumes; i++) c.waits_for[i] = -1;
  Known k = {ARENA_ARRAY(l->a, bool, c.n_syms + 1), ARENA_ARRAY(l->a, bool, c.n_assumes + 1)};
  for (int i = 0; i < c.n_syms; i++) k.sym[i] = !expr_symbol(l->p, i)->runtime;
  if (c.n_assumes) walk(&c, steps, l->m->main, &k);
}
