/* Parses the plans of contractions in the text of a graph: {plan=winograd4 block=7 …}. */
#include "ir/text/frame.h"

enum { MAX_LIST = 1 << 24 };

static bool parse_plan_halo(TextParser *p, Plan *plan) {
  if (!tok_expect(p, "[")) return false;
  do {
    const int s = plan->spatial++;
    if (s >= PLAN_SPATIAL) return tok_fail(p, "halo of too many dimensions");
    if (!tok_int(p, &plan->halo_lo[s]) || !tok_expect(p, ":") || !tok_int(p, &plan->halo_hi[s]))
      return false;
  } while (tok_eat(p, ","));
  return tok_expect(p, "]");
}

static bool parse_lanes(TextParser *p, Plan *plan) {
  if (tok_eat(p, "pixels"))
    plan->lanes = LANES_PIXELS;
  else if (tok_eat(p, "channels"))
    plan->lanes = LANES_CHANNELS;
  else if (tok_expect(p, "any"))
    plan->lanes = LANES_PIXELS | LANES_CHANNELS;
  return plan->lanes != 0;
}

/* 14x2 */
static bool parse_tile(TextParser *p, int *rows, int *vectors) {
  if (!tok_expect(p, "=") || !tok_small(p, 1, MAX_LIST, rows)) return false;
  if (*p->s != 'x') return tok_fail(p, "expected rows x vectors");
  p->s++;
  return tok_small(p, 1, MAX_LIST, vectors);
}

static bool parse_count(TextParser *p, int *n) {
  return tok_expect(p, "=") && tok_small(p, 1, MAX_LIST, n);
}

static bool parse_size(TextParser *p, int64_t *n) {
  if (!tok_expect(p, "=") || !tok_int(p, n)) return false;
  return *n > 0 || tok_fail(p, "expected a number above 0");
}

/* What they begin with. */
static bool at_loops(TextParser *p, PlanLoops *l, bool *ok) {
  *l = (PlanLoops){.high = 1, .panels = 1};
  if (tok_eat(p, "tile"))
    *ok = parse_tile(p, &l->rows, &l->vectors);
  else if (tok_eat(p, "width"))
    *ok = parse_count(p, &l->width);
  else if (tok_eat(p, "vectors"))
    *ok = parse_count(p, &l->vectors);
  else
    return false;
  return true;
}

static bool parse_loops(TextParser *p, PlanLoops *l) {
  for (bool ok = true;;) {
    if (tok_eat(p, "lines"))
      l->lines = true;
    else if (tok_eat(p, "serial"))
      l->serial = true;
    else if (tok_eat(p, "gathered"))
      l->gathered = true;
    else if (tok_eat(p, "matrix"))
      ok = parse_count(p, &l->matrix);
    else if (tok_eat(p, "width"))
      ok = parse_count(p, &l->width);
    else if (tok_eat(p, "high"))
      ok = parse_count(p, &l->high);
    else if (tok_eat(p, "part"))
      ok = parse_size(p, &l->part);
    else if (tok_eat(p, "steps"))
      ok = parse_size(p, &l->steps);
    else if (tok_eat(p, "outside"))
      ok = parse_count(p, &l->outside);
    else if (tok_eat(p, "panels"))
      ok = parse_size(p, &l->panels);
    else if (tok_eat(p, "values"))
      ok = parse_tile(p, &l->values_rows, &l->values_vectors);
    else if (tok_eat(p, "queries"))
      ok = parse_size(p, &l->queries);
    else if (tok_eat(p, "keys"))
      ok = parse_size(p, &l->keys);
    else
      return true;
    if (!ok) return false;
  }
}

/* The first was begun. Of each phase, if there are several: separated by `;`. */
static bool parse_all_loops(TextParser *p, Plan *plan, const PlanLoops *first) {
  enum { MOST = 64 };
  PlanLoops *loops = ARENA_ARRAY(p->a, PlanLoops, MOST);
  bool ok = true;
  plan->loops = loops;
  loops[0] = *first;
  do {
    if (plan->n_loops == MOST) return tok_fail(p, "tiles of too many phases");
    if (plan->n_loops && !at_loops(p, &loops[plan->n_loops], &ok)) return tok_expect(p, "tile");
    if (!ok || !parse_loops(p, &loops[plan->n_loops++])) return false;
  } while (tok_eat(p, ";"));
  return true;
}

static bool parse_plan_field(TextParser *p, Plan *plan) {
  PlanLoops first;
  bool ok = true;
  if (tok_eat(p, "skips")) return plan->skips = true;
  if (tok_eat(p, "steady")) return plan->steady = true;
  if (tok_eat(p, "chained")) return plan->chained = true;
  if (tok_eat(p, "block")) return parse_count(p, &plan->block);
  if (tok_eat(p, "planes")) return parse_count(p, &plan->planes);
  if (tok_eat(p, "chain")) return parse_count(p, &plan->chain);
  if (tok_eat(p, "rows")) return parse_count(p, &plan->rows);
  if (tok_eat(p, "parts")) return parse_count(p, &plan->parts);
  if (tok_eat(p, "lanes")) return tok_expect(p, "=") && parse_lanes(p, plan);
  if (tok_eat(p, "halo") && !plan->spatial) return tok_expect(p, "=") && parse_plan_halo(p, plan);
  if (!plan->n_loops && at_loops(p, &first, &ok)) return ok && parse_all_loops(p, plan, &first);
  return tok_fail(
      p,
      "expected a field of a plan: lanes, block, planes, skips, steady, chain, rows, parts, chained, "
      "halo, tile, width, vectors");
}

/* The name of an algorithm behind `{plan=`; else nothing is taken: attributes may have any name. */
static bool at_plan(TextParser *p, Plan *plan) {
  const char *const from = p->s;
  if (tok_eat(p, "{") && tok_eat(p, "plan") && tok_eat(p, "="))
    for (const AlgorithmName *a = algorithm_names; a->name; a++)
      if (tok_eat(p, a->name)) {
        *plan = (Plan){.algorithm = a->algorithm, .winograd = a->winograd};
        return true;
      }
  p->s = from;
  return false;
}

bool plan_parse(TextParser *p, Node *n) {
  Plan plan;
  if (n->plan || !at_plan(p, &plan)) return true;
  while (!tok_eat(p, "}"))
    if (!parse_plan_field(p, &plan)) return false;
  const char *wrong = plan_malformed(&plan);
  if (wrong) return tok_fail(p, "%s", wrong);
  n->plan = arena_dup(p->a, &plan, sizeof plan);
  return true;
}
