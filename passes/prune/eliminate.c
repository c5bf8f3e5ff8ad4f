/* What units matter by what cannot be made up for. Of a product with weights w and the sums H = X'X of what it
 * read, the least squared error without some features is w'[(H^-1)]^-1 w of these, and the others' weights
 * follow (Hassibi and Stork, Optimal Brain Surgeon, 1993; of whole channels Kurtic et al., ZipLM, 2023). Units
 * go one after the other, so that of two that are alike one comes to matter. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "passes/prune/prune.h"

typedef struct Reading { /* of a fit */
  const PruneFit *f;
  int64_t n;        /* features */
  int block;        /* features of a channel */
  double *inverse;  /* of H */
  double *products; /* of the weights of two features each, of all results */
  double *by;       /* [n][block]: what goes from a channel's weights to the others' */
  double *row;      /* [block][2 * block]: scratch */
  double power;     /* of all its results */
} Reading;
typedef Vec(Reading) Readings;

/* ---- of one product ---- */
/* Of each feature; of a channel, where results are not sums of it alone, all of it. */
static float *all_weights(const PruneRelation *r, const PruneFit *f, Arena *a, int64_t *each) {
  const PruneProduct *p = &r->products.data[f->product];
  const ConstData *w = r->slots.data[p->slot].value->cdata;
  *each = f->whole ? f->n_results : prune_fit_weights(f, w, p->dim);
  float *out = ARENA_ARRAY(a, float, f->n_features **each);
  int64_t *at = ARENA_ARRAY(a, int64_t, *each);
  for (int64_t j = 0; j < f->n_features; j++) {
    if (!f->whole) prune_fit_channel(f, w, p->dim, (int)j, at);
    for (int64_t t = 0; t < *each; t++)
      out[j * *each + t] =
          (float)(f->whole ? prune_fit_coefficient(r, f, j, t) : const_float(w, at[t]));
  }
  return out;
}

static void multiply_weights(const PruneRelation *r, Reading *x, Arena *a) {
  Arena *scratch = arena_child(a);
  int64_t each;
  const float *w = all_weights(r, x->f, scratch, &each);
  for (int64_t j = 0; j < x->n; j++)
    for (int64_t k = j; k < x->n; k++) {
      float sum = 0;
      for (int64_t t = 0; t < each; t++) sum += w[j * each + t] * w[k * each + t];
      x->products[j * x->n + k] = x->products[k * x->n + j] = sum;
    }
  arena_free(scratch);
}

/* What results are made of altogether, without a bias: errors are parts of it. */
static double power_of(const Reading *x) {
  const int64_t channels = (int64_t)x->f->n_stay * x->block;
  double sum = 0;
  for (int64_t j = 0; j < channels; j++)
    for (int64_t k = 0; k < channels; k++)
      sum += x->products[j * x->n + k] * x->f->sums[(j < k ? j : k) * x->n + (j < k ? k : j)];
  return sum;
}

static bool invert(Reading *x, Arena *a) {
  static const double part = 1e-4;
  Arena *scratch = arena_child(a);
  double *rows = ARENA_ARRAY(scratch, double, 2 * x->n * x->n);
  const double mean = prune_mean_square(x->f->sums, x->n, x->n);
  for (int64_t j = 0; j < x->n; j++) {
    memcpy(rows + j * 2 * x->n, x->f->sums + j * x->n, sizeof *rows * (size_t)x->n);
    rows[j * 2 * x->n + j] += part * mean;
    rows[j * 2 * x->n + x->n + j] = 1;
  }
  const bool ok = mean > 0 && isfinite(mean) && prune_solve(rows, x->n, 2 * x->n);
  for (int64_t j = 0; j < x->n && ok; j++)
    memcpy(x->inverse + j * x->n, rows + (j * 2 + 1) * x->n, sizeof *rows * (size_t)x->n);
  arena_free(scratch);
  return ok;
}

/* False: it says nothing. */
static bool open_reading(const PruneRelation *r, const PruneFit *f, Arena *a, Reading *x) {
  const int64_t n = f->n_features;
  if (f->added == 0) return false;
  *x = (Reading){.f = f, .n = n, .block = f->whole ? (int)f->each * f->window.taps : 1};
  x->inverse = ARENA_ARRAY(a, double, n *n);
  x->products = ARENA_ARRAY(a, double, n *n);
  x->by = ARENA_ARRAY(a, double, n * x->block);
  x->row = ARENA_ARRAY(a, double, 2 * x->block * x->block);
  multiply_weights(r, x, a);
  x->power = power_of(x);
  return x->power > 0 && isfinite(x->power) && invert(x, a);
}

/* The square of a channel with itself, into half of x->row. */
static void take_block(const Reading *x, const double *m, int64_t at, double *to) {
  for (int64_t i = 0; i < x->block; i++)
    memcpy(to + i * 2 * x->block, m + (at + i) * x->n + at, sizeof *to * (size_t)x->block);
}

/* The part of the results' power that is lost without a channel: the trace of (H^-1)_cc^-1 (ww')_cc. */
static double loss_without(Reading *x, int channel) {
  const int64_t b = x->block, at = channel * b;
  double sum = 0;
  take_block(x, x->inverse, at, x->row);
  take_block(x, x->products, at, x->row + b);
  if (!prune_solve(x->row, b, 2 * b)) return 0;
  for (int64_t i = 0; i < b; i++) sum += x->row[i * 2 * b + b + i];
  return fmax(sum, 0) / x->power;
}

/* by = columns of H^-1 of the channel times (H^-1)_cc^-1. */
static bool find_factors(Reading *x, int channel) {
  const int64_t n = x->n, b = x->block, at = channel * b;
  double *small = x->row;
  take_block(x, x->inverse, at, small);
  for (int64_t i = 0; i < b; i++) {
    memset(small + i * 2 * b + b, 0, sizeof *small * (size_t)b);
    small[i * 2 * b + b + i] = 1;
  }
  if (!prune_solve(small, b, 2 * b)) return false;
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = 0; i < b; i++) {
      x->by[j * b + i] = 0;
      for (int64_t k = 0; k < b; k++)
        x->by[j * b + i] += x->inverse[j * n + at + k] * small[k * 2 * b + b + i];
    }
  return true;
}

/* Rows of all others -= by * rows of the channel; then the same of columns. */
static void subtract_rows(double *m, const Reading *x, int64_t at) {
  const int64_t n = x->n, b = x->block;
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = 0; i < b && (j < at || j >= at + b); i++) {
      const double by = x->by[j * b + i];
      const double *from = m + (at + i) * n;
      for (int64_t k = 0; k < n && by != 0; k++) m[j * n + k] -= by * from[k];
    }
}

static void subtract_columns(double *m, const Reading *x, int64_t at) {
  const int64_t n = x->n, b = x->block;
  for (int64_t j = 0; j < n; j++)
    for (int64_t k = 0; k < n; k++) {
      if (k >= at && k < at + b) continue;
      for (int64_t i = 0; i < b; i++) m[j * n + k] -= m[j * n + at + i] * x->by[k * b + i];
    }
}

static void clear(double *m, const Reading *x, int64_t at) {
  const int64_t n = x->n, b = x->block;
  for (int64_t i = at; i < at + b; i++) memset(m + i * n, 0, sizeof *m * (size_t)n);
  for (int64_t j = 0; j < n; j++) memset(m + j * n + at, 0, sizeof *m * (size_t)b);
}

/* Weights of the others make up for the channel. */
static void eliminate(Reading *x, int channel) {
  const int64_t at = (int64_t)channel * x->block;
  if (find_factors(x, channel)) {
    subtract_rows(x->inverse, x, at);
    subtract_rows(x->products, x, at);
    subtract_columns(x->products, x, at);
  }
  clear(x->inverse, x, at);
  clear(x->products, x, at);
}

/* ---- of all products that read the same ---- */
typedef struct Read { /* of a unit */
  int reading, channel;
} Read;
typedef Vec(Read) Reads;

typedef struct Elimination {
  PruneRelation *r;
  Arena *a;
  Readings readings;
  Reads *by_unit;
  int *left;     /* by group: units that are not eliminated */
  double *worst; /* by group: the largest score so far */
} Elimination;

typedef struct Candidate {
  double loss;
  int unit;
} Candidate;
typedef Vec(Candidate) Candidates;

static int compare_candidates(const void *a, const void *b) {
  const Candidate *x = a, *y = b;
  return x->loss < y->loss ? -1 : x->loss > y->loss ? 1 : x->unit - y->unit;
}

static void find_losses(Elimination *e, Candidates *list) {
  for (int k = 0; k < list->n; k++) {
    Candidate *c = &list->data[k];
    c->loss = 0;
    for (int i = 0; i < e->by_unit[c->unit].n; i++) {
      const Read *at = &e->by_unit[c->unit].data[i];
      c->loss += loss_without(&e->readings.data[at->reading], at->channel);
    }
  }
  qsort(list->data, (size_t)list->n, sizeof *list->data, compare_candidates);
}

static void take_out(Elimination *e, const Candidate *c) {
  PruneUnit *u = &e->r->units.data[c->unit];
  double *worst = &e->worst[u->group];
  *worst = fmax(*worst, c->loss);
  u->score = *worst;
  e->r->groups.data[u->group].comparable = true;
  e->left[u->group]--;
  for (int i = 0; i < e->by_unit[c->unit].n; i++) {
    const Read *at = &e->by_unit[c->unit].data[i];
    eliminate(&e->readings.data[at->reading], at->channel);
  }
}

/* A few at a time, but the last of each group. Scores rise as they go. */
static void eliminate_all(Elimination *e, Candidates *list) {
  enum { PARTS = 24 };
  while (list->n > 0) {
    const int most = list->n / PARTS + 1;
    int out = 0, stay = 0;
    find_losses(e, list);
    for (int k = 0; k < list->n; k++) {
      const Candidate c = list->data[k];
      if (out < most && e->left[e->r->units.data[c.unit].group] > 1)
        take_out(e, &c), out++;
      else
        list->data[stay++] = c;
    }
    list->n = stay;
    if (out == 0) break;
  }
  for (int k = 0; k < list->n; k++) take_out(e, &list->data[k]);
}

/* ---- groups that products read together ---- */
static int find_set(int *set, int k) {
  while (set[k] != k) k = set[k] = set[set[k]];
  return k;
}

static int *join_groups(const PruneRelation *r, const PruneFits *fits) {
  int *set = ARENA_ARRAY(r->a, int, r->groups.n + 1);
  for (int k = 0; k < r->groups.n; k++) set[k] = k;
  for (int k = 0; k < fits->n; k++) {
    int first = -1;
    for (int c = 0; c < fits->data[k].n_stay; c++) {
      const int u = fits->data[k].units[c];
      if (u < 0) continue;
      const int g = find_set(set, r->units.data[u].group);
      if (first < 0) first = g;
      set[g] = first = find_set(set, first);
    }
  }
  return set;
}

static void add_readings(Elimination *e, const PruneFit *f) {
  Reading x;
  if (!open_reading(e->r, f, e->a, &x)) return;
  vec_push(e->a, &e->readings, x);
  for (int c = 0; c < f->n_stay; c++)
    if (f->units[c] >= 0) vec_push(e->a, &e->by_unit[f->units[c]], (Read){e->readings.n - 1, c});
}

static bool of_set(const PruneRelation *r, const PruneFit *f, int *set, int wanted) {
  for (int c = 0; c < f->n_stay; c++)
    if (f->units[c] >= 0) return find_set(set, r->units.data[f->units[c]].group) == wanted;
  return false;
}

static void score_set(PruneRelation *r, const PruneFits *fits, int *set, int wanted) {
  Elimination e = {.r = r, .a = arena_child(r->a)};
  Candidates list = {0};
  e.by_unit = ARENA_ARRAY(e.a, Reads, r->units.n + 1);
  e.left = ARENA_ARRAY(e.a, int, r->groups.n + 1);
  e.worst = ARENA_ARRAY(e.a, double, r->groups.n + 1);
  for (int k = 0; k < fits->n; k++)
    if (of_set(r, &fits->data[k], set, wanted)) add_readings(&e, &fits->data[k]);
  for (int k = 0; k < r->units.n; k++) {
    if (e.by_unit[k].n == 0) continue;
    vec_push(e.a, &list, (Candidate){.unit = k});
    e.left[r->units.data[k].group]++;
  }
  eliminate_all(&e, &list);
  arena_free(e.a);
}

void prune_score_reconstruction(PruneRelation *r, const PruneFits *readings, int group) {
  int *set = join_groups(r, readings);
  if (find_set(set, group) == group) score_set(r, readings, set, group);
}
