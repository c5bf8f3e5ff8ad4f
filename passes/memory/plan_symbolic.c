/* Places for blocks whose sizes depend on symbols. The blocks are packed with the numbers that
 * typical values of the symbols give; only the order of that packing is kept: a block lies behind
 * every block that was below it and is alive at the same time. Such a plan is right for all values,
 * and as good as the packing for values like the typical ones. Offsets become sums and maxima of
 * sizes. */
#include <stdlib.h>
#include "passes/memory/plan.h"

enum { N_SAMPLES = 5, MIXED = N_SAMPLES };
/* Value of the first symbol (mostly the batch) and of all others, and how much the case counts. */
static const struct {
  int64_t first, others;
  double weight;
} samples[N_SAMPLES] = {{1, 160, 0.3}, {1, 640, 0.2}, {1, 24, 0.2}, {16, 48, 0.2}, {1, 1, 0.1}};

typedef struct Job {
  ExprPool *p;
  Arena *a;
  SymBlock *blocks;
  int n;
  int64_t *size[N_SAMPLES]; /* by block */
  int64_t lower[N_SAMPLES];
  PackItem *items; /* packing of the current sample */
  int *order;      /* blocks from the bottom up */
} Job;

static Scalar sym_value(void *user, int id) { return (Scalar){.i = ((const int64_t *)user)[id]}; }

static int64_t *sample_symbols(ExprPool *p, Arena *a, int sample) {
  const int n = expr_symbol_count(p);
  int64_t *v = ARENA_ARRAY(a, int64_t, n + 1);
  bool first = true;
  for (int i = 0; i < n; i++) {
    const Symbol *s = expr_symbol(p, i);
    v[i] = first && !s->runtime ? samples[sample].first : samples[sample].others;
    if (v[i] < s->lo) v[i] = s->lo;
    if (!s->runtime) first = false;
  }
  return v;
}

static int64_t value_at(ExprPool *p, const Expr *e, int64_t *syms) {
  EvalEnv env = {.user = syms, .sym = sym_value};
  return expr_eval(p, e, &env).i;
}

double plan_score(ExprPool *p, Arena *a, const Expr *bytes, const SymBlock *blocks, int n) {
  double score = 0;
  PackItem *items = ARENA_ARRAY(a, PackItem, n + 1);
  for (int k = 0; k < N_SAMPLES; k++) {
    int64_t *syms = sample_symbols(p, a, k);
    for (int i = 0; i < n; i++) {
      const int64_t v = value_at(p, blocks[i].bytes, syms);
      items[i] = (PackItem){.size = v > 0 ? v : 0, .start = blocks[i].start, .end = blocks[i].end};
    }
    const int64_t lower = pack_lower_bound(a, items, n);
    score +=
        samples[k].weight * (double)value_at(p, bytes, syms) / (double)(lower > 64 ? lower : 64);
  }
  return score;
}

/* ---- the order of one packing ---- */
typedef struct Height {
  int64_t offset;
  int i;
} Height;

static int by_height(const void *x, const void *y) {
  const Height *a = x, *b = y;
  return a->offset != b->offset ? (a->offset < b->offset ? -1 : 1) : a->i - b->i;
}

/* Size for packing; MIXED: the mean over all samples, relative to their lower bounds. An empty
 * block may be large for other values: it gets a place too. */
static int64_t packing_size(const Job *j, int sample, int block) {
  const int64_t most = INT64_C(1) << 42;
  double v = sample < MIXED ? (double)j->size[sample][block] : 0;
  for (int k = 0; sample == MIXED && k < N_SAMPLES; k++)
    v += samples[k].weight * 1e6 * (double)j->size[k][block] / (double)(j->lower[k] + 64);
  return v < 64 ? 64 : v < (double)most ? (int64_t)v : most;
}

static void pack_sample(Job *j, int sample) {
  Height *h = ARENA_ARRAY(j->a, Height, j->n + 1);
  for (int i = 0; i < j->n; i++)
    j->items[i] = (PackItem){
        .size = packing_size(j, sample, i), .start = j->blocks[i].start, .end = j->blocks[i].end};
  pack_items(j->a, j->items, j->n);
  for (int i = 0; i < j->n; i++) h[i] = (Height){j->items[i].offset, i};
  qsort(h, (size_t)j->n, sizeof *h, by_height);
  for (int i = 0; i < j->n; i++) j->order[i] = h[i].i;
}

static bool alive_together(const Job *j, int x, int y) {
  return j->blocks[x].start <= j->blocks[y].end && j->blocks[y].start <= j->blocks[x].end;
}

/* Size of the arena that the order gives at a sample, relative to the lower bound there. */
static double order_ratio(Job *j, int sample, int64_t *end) {
  int64_t total = 0;
  for (int k = 0; k < j->n; k++) {
    const int b = j->order[k];
    int64_t offset = 0;
    for (int m = 0; m < k; m++)
      if (end[j->order[m]] > offset && alive_together(j, b, j->order[m])) offset = end[j->order[m]];
    end[b] = offset + j->size[sample][b];
    if (end[b] > total) total = end[b];
  }
  return (double)total / (double)(j->lower[sample] > 64 ? j->lower[sample] : 64);
}

static double order_score(Job *j) {
  int64_t *end = ARENA_ARRAY(j->a, int64_t, j->n + 1);
  double score = 0;
  for (int k = 0; k < N_SAMPLES; k++) score += samples[k].weight * order_ratio(j, k, end);
  return score;
}

/* ---- formulas ---- */
/* Of the blocks in `below`, those that no other of them lies on. Returns their number. */
static int topmost(const Job *j, int *below, int n) {
  int kept = 0;
  for (int x = 0; x < n; x++) { /* bottom up: whatever covers x stands behind it */
    bool covered = false;
    for (int y = x + 1; y < n && !covered; y++) covered = alive_together(j, below[x], below[y]);
    if (!covered) below[kept++] = below[x];
  }
  return kept;
}

static const Expr *max_of_ends(const Job *j, const Expr *const *end, const int *which, int n) {
  const Expr *e = ex_i64(j->p, 0);
  for (int i = 0; i < n; i++) e = i ? ex_max(j->p, e, end[which[i]]) : end[which[i]];
  return e;
}

static const Expr *write_formulas(Job *j) {
  const Expr **end = ARENA_ARRAY(j->a, const Expr *, j->n + 1);
  int *below = ARENA_ARRAY(j->a, int, j->n + 1);
  for (int k = 0; k < j->n; k++) {
    const int b = j->order[k];
    int n = 0;
    for (int m = 0; m < k; m++)
      if (alive_together(j, b, j->order[m])) below[n++] = j->order[m];
    j->blocks[b].offset = max_of_ends(j, end, below, topmost(j, below, n));
    end[b] = ex_add(j->p, j->blocks[b].offset, j->blocks[b].bytes);
  }
  for (int k = 0; k < j->n; k++) below[k] = j->order[k];
  return max_of_ends(j, end, below, topmost(j, below, j->n));
}

const Expr *pack_symbolic(ExprPool *p, Arena *scratch, SymBlock *blocks, int n) {
  Job j = {.p = p, .a = scratch, .blocks = blocks, .n = n};
  j.items = ARENA_ARRAY(scratch, PackItem, n + 1);
  j.order = ARENA_ARRAY(scratch, int, n + 1);
  for (int k = 0; k < N_SAMPLES; k++) {
    int64_t *syms = sample_symbols(p, scratch, k);
    j.size[k] = ARENA_ARRAY(scratch, int64_t, n + 1);
    for (int i = 0; i < n; i++) {
      const int64_t v = value_at(p, blocks[i].bytes, syms);
      j.size[k][i] = v > 0 ? v : 0;
      j.items[i] = (PackItem){.size = j.size[k][i], .start = blocks[i].start, .end = blocks[i].end};
    }
    j.lower[k] = pack_lower_bound(scratch, j.items, n);
  }
  int best = 0;
  double best_score = 0;
  for (int k = 0; k <= MIXED; k++) {
    pack_sample(&j, k);
    const double score = order_score(&j);
    if (k == 0 || score < best_score) {
      best = k;
      best_score = score;
    }
  }
  pack_sample(&j, best);
  return write_formulas(&j);
}
