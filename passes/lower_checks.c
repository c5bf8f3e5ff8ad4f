/* What inference took for granted about sizes that are only known while the program runs, or only
 * where a region runs, becomes check steps: each stands directly behind the step that assigns the
 * last symbol it needs, and so before everything that relies on it. What holds for the sizes of the
 * inputs alone is checked at entry (codegen). */
#include "passes/lower.h"

#include <string.h>

typedef struct Checks {
  Lower *l;
  int n_syms, n_assumes;
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
} KnownSyms;

static bool is_unknown(void *user, const Expr *e) {
  const KnownSyms *k = user;
  return e->op == EX_SYM && !(e->id < k->n && k->sym[e->id]);
}

static bool all_known(const Checks *c, const Known *k, const Expr *e) {
  KnownSyms syms = {k->sym, c->n_syms};
  return !expr_any(e, EXF_SYM, is_unknown, &syms);
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
    if (k->done[i] || !applies(c, a, g) || !all_known(c, k, a->a) || !all_known(c, k, a->b))
      continue;
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

static void set_outputs(const Checks *c, Known *k, const Step *s) {
  for (int i = 0; i < s->n_outs; i++)
    for (int d = 0; d < s->outs[i].rank; d++)
      if (s->outs[i].dims[d]->op == EX_SYM && s->outs[i].dims[d]->id < c->n_syms)
        k->sym[s->outs[i].dims[d]->id] = true;
}

static void walk(const Checks *c, Step **list, const Graph *g, Known *k);

/* What both branches assign is known behind them. */
static void walk_if(const Checks *c, Step *s, const RegionSteps *r, Known *k) {
  Known yes = copy_known(c, k), no = copy_known(c, k);
  walk(c, &s->body, r->g[0], &yes);
  walk(c, &s->otherwise, r->g[1], &no);
  for (int i = 0; i < c->n_syms; i++) k->sym[i] |= yes.sym[i] && no.sym[i];
}

static void walk_loop(const Checks *c, Step *s, const RegionSteps *r, Known *k) {
  Known in = copy_known(c, k);
  if (s->iter_sym >= 0) in.sym[s->iter_sym] = true;
  walk(c, &s->body, r->g[0], &in);
  if (s->trips_sym >= 0) k->sym[s->trips_sym] = true;
}

static const RegionSteps *region_of(const Checks *c, const Step *s) {
  for (int i = 0; i < c->l->regions.n; i++)
    if (c->l->regions.data[i].step == s) return &c->l->regions.data[i];
  static const RegionSteps none;
  return &none;
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
    switch (s->kind) {
      case STEP_EXTERN: set_outputs(c, k, s); break;
      case STEP_SYM: k->sym[s->sym] = true; break;
      case STEP_IF: walk_if(c, s, region_of(c, s), k); break;
      case STEP_LOOP: walk_loop(c, s, region_of(c, s), k); break;
      default: break;
    }
    at = &s->next;
    fresh = due(c, k, g);
  }
}

void lower_checks(Lower *l, Step **steps) {
  Checks c = {.l = l, .n_syms = expr_symbol_count(l->p), .n_assumes = l->m->assumes.n};
  Known k = {ARENA_ARRAY(l->a, bool, c.n_syms + 1), ARENA_ARRAY(l->a, bool, c.n_assumes + 1)};
  for (int i = 0; i < c.n_syms; i++) k.sym[i] = !expr_symbol(l->p, i)->runtime;
  if (c.n_assumes) walk(&c, steps, l->m->main, &k);
}
