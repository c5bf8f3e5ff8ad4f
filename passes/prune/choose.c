/* Which units go: those whose loss costs least for what they save, in blocks that vectors are filled
 * with. */
#include <math.h>
#include <stdlib.h>
#include "passes/prune/prune.h"

/* ---- what a unit saves ---- */
static double part_of(const PruneRelation *r, const PruneTouch *t) {
  return (double)t->count / (double)prune_size(r, t->slot, t->dim);
}

/* Node that computes the value of each slot; -1: none. */
static int *makers(const PruneRelation *r) {
  int *maker = ARENA_ARRAY(r->a, int, r->slots.n + 1);
  for (int s = 0; s < r->slots.n; s++) maker[s] = -1;
  for (int i = 0; i < r->m->main->nodes.n; i++)
    for (int k = 0; k < r->m->main->nodes.data[i]->n_out; k++)
      if (prune_result_slot(r, i, k) >= 0) maker[prune_result_slot(r, i, k)] = i;
  return maker;
}

static const PruneUnit *first_unit(const PruneRelation *r, const PruneGroup *g) {
  return &r->units.data[g->units.data[0]];
}

/* Parts of results that are not computed, and of sums that are not added up. */
void prune_costs(const PruneRelation *r, const double *work, double *by_group) {
  const int *maker = makers(r), n = r->m->main->nodes.n;
  double *results = ARENA_ARRAY(r->a, double, n + 1), *sums = ARENA_ARRAY(r->a, double, n + 1);
  for (int k = 0; k < r->groups.n; k++) {
    const PruneUnit *u = first_unit(r, &r->groups.data[k]);
    by_group[k] = 0;
    for (int i = 0; i < n; i++) results[i] = sums[i] = 0;
    for (int i = 0; i < u->touches.n; i++) {
      const PruneTouch *t = &u->touches.data[i];
      if (maker[t->slot] >= 0)
        results[maker[t->slot]] = fmax(results[maker[t->slot]], part_of(r, t));
      for (int q = 0; q < r->products.n; q++) {
        const PruneProduct *p = &r->products.data[q];
        if (p->slot == t->slot && p->dim == t->dim) sums[p->node] = part_of(r, t);
      }
    }
    for (int i = 0; i < n; i++) by_group[k] += work[i] * (results[i] + sums[i]);
  }
}

void prune_cost_weights(const PruneRelation *r, double *by_group) {
  for (int k = 0; k < r->groups.n; k++) {
    const PruneUnit *u = first_unit(r, &r->groups.data[k]);
    by_group[k] = 0;
    for (int i = 0; i < u->touches.n; i++) {
      const ConstData *w = r->slots.data[u->touches.data[i].slot].value->cdata;
      if (w) by_group[k] += (double)w->count * part_of(r, &u->touches.data[i]);
    }
  }
}

/* ---- which go ---- */
typedef struct Ranked {
  double score;
  int unit;
} Ranked;

typedef struct Queue { /* units of a group, the least first */
  Ranked *list;
  int64_t n, next;
  double mean; /* of the finite scores; where they are comparable, of all that are */
} Queue;

static int compare_ranked(const void *a, const void *b) {
  const Ranked *x = a, *y = b;
  return x->score < y->score ? -1 : x->score > y->score ? 1 : x->unit - y->unit;
}

static Queue queue_of(const PruneRelation *r, const PruneGroup *g) {
  Queue q = {.list = ARENA_ARRAY(r->a, Ranked, g->units.n + 1), .n = g->units.n};
  double sum = 0;
  int64_t finite = 0;
  for (int64_t k = 0; k < q.n; k++) {
    const int u = g->units.data[k];
    q.list[k] = (Ranked){r->units.data[u].score, u};
    if (isfinite(q.list[k].score)) sum += q.list[k].score, finite++;
  }
  qsort(q.list, (size_t)q.n, sizeof *q.list, compare_ranked);
  q.mean = finite ? sum / (double)finite : 0;
  return q;
}

static void share_means(const PruneRelation *r, Queue *queues) {
  double sum = 0, n = 0;
  for (int k = 0; k < r->groups.n; k++)
    if (r->groups.data[k].comparable)
      sum += queues[k].mean * (double)queues[k].n, n += (double)queues[k].n;
  for (int k = 0; k < r->groups.n; k++)
    if (r->groups.data[k].comparable) queues[k].mean = sum / n;
}

/* How many go next, so that what stays is a multiple of `grain`; 0: none can. */
static int64_t next_block(const Queue *q, const PruneLimit *l) {
  const int64_t left = q->n - q->next, odd = left % l->grain, n = odd ? odd : l->grain;
  return left - n >= l->least && left - n > 0 ? n : 0;
}

bool prune_any_goes(const PruneRelation *r, const PruneLimit *limits, int64_t wanted) {
  for (int k = 0; k < r->groups.n; k++) {
    const Queue q = {.n = r->groups.data[k].units.n};
    const int64_t n = next_block(&q, &limits[k]);
    if (n && n <= 2 * wanted) return true;
  }
  return false;
}

/* What the block loses, in parts of the mean, for the cost that it saves. */
static double price(const Queue *q, int64_t n, double cost) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += q->list[q->next + k].score;
  return cost > 0 ? sum / (double)n / (q->mean > 0 ? q->mean : 1) / sqrt(cost) : INFINITY;
}

int64_t prune_choose(PruneRelation *r, const double *cost, const PruneLimit *limits,
                     int64_t wanted) {
  Queue *queues = ARENA_ARRAY(r->a, Queue, r->groups.n + 1);
  int64_t gone = 0;
  for (int k = 0; k < r->groups.n; k++) queues[k] = queue_of(r, &r->groups.data[k]);
  share_means(r, queues);
  for (;;) {
    int best = -1;
    double least = INFINITY;
    for (int k = 0; k < r->groups.n; k++) {
      const int64_t n = next_block(&queues[k], &limits[k]);
      const double p = n ? price(&queues[k], n, cost[k]) : INFINITY;
      if (p < least) best = k, least = p;
    }
    const int64_t n = best < 0 ? 0 : next_block(&queues[best], &limits[best]);
    if (n == 0 || 2 * (wanted - gone) < n) return gone;
    for (int64_t k = 0; k < n; k++)
      r->units.data[queues[best].list[queues[best].next++].unit].gone = true;
    r->groups.data[best].gone += (int)n;
    gone += n;
  }
}
