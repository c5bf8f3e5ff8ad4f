/* Normal equations of least squares, over features and targets that samples give, and their solution. */
#include <math.h>
#include <string.h>
#include "passes/prune/prune.h"

/* ---- what is fitted ---- */
static int64_t features_of(const PruneFit *f, bool whole) {
  return whole ? (int64_t)f->n_stay * f->each * f->window.taps + (f->bias >= 0) : f->n_stay;
}

static int target_dim(const PruneFit *f) { return f->whole ? f->result_dim : f->dim; }

/* A place is all of a tensor at one index but for its channels. */
static int64_t places_of(const ConstData *t, int dim, int64_t each) {
  return t && t->rank > dim && t->dims[dim] > 0 ? t->count / t->dims[dim] * each : 0;
}

/* Weights need more places than there are of them to each result. */
static bool takes_whole(const PruneFit *f, const ConstData *results, int64_t samples) {
  enum { EACH = 4 };
  return f->can_be_whole &&
         places_of(results, f->result_dim, 1) * samples >= EACH * features_of(f, true);
}

/* Places of one picture are alike, so that it takes many more of them than features. */
static int64_t wanted_places(const PruneFit *f) {
  enum { FEWEST = 16384, EACH = 16, LEAST = 4, MOST_TARGETS = 1 << 22 /* floats of a fit */ };
  const int64_t good = f->n_features > FEWEST / EACH ? EACH * (int64_t)f->n_features : FEWEST,
                least = LEAST * (int64_t)f->n_features,
                most = f->n_targets ? MOST_TARGETS / f->n_targets : good;
  return good < most ? good : most > least ? most : least;
}

void prune_fit_begin(PruneFit *f, const ConstData *read, const ConstData *results,
                     int64_t samples) {
  f->whole = takes_whole(f, results, samples);
  f->n_features = (int)features_of(f, f->whole);
  f->n_targets = f->units ? 0 : f->whole ? f->n_results : f->n_stay + f->n_gone;
  f->per_sample = wanted_places(f) / samples + 1;
}

void prune_fit_open(PruneFit *f, Arena *a) {
  f->sums = ARENA_ARRAY(a, double, (int64_t)f->n_features *(f->n_features + f->n_targets));
}

/* ---- samples ---- */
typedef struct Place {
  int64_t outer, inner, e; /* dimensions around that of the channels; index of a channel */
} Place;

static int64_t inner_of(const int64_t *dims, int rank, int dim) {
  int64_t n = 1;
  for (int d = dim + 1; d < rank; d++) n *= dims[d];
  return n;
}

/* Place i of a sample. Where not all are taken: multiples of the golden ratio are spread
 * evenly, in no step that rows have. */
static Place place_at(const PruneFit *f, const PruneSampled *s, int64_t i) {
  static const double golden = 0.61803398874989485;
  const double turns = (double)(s->first + i) * golden;
  const int64_t at = s->n == s->all ? i : (int64_t)((turns - floor(turns)) * (double)s->all),
                each = f->whole ? 1 : f->each, inner = inner_of(s->dims, s->rank, target_dim(f));
  return (Place){.outer = at / inner / each, .inner = at % inner, .e = at / inner % each};
}

static double channel_at(const ConstData *t, int dim, Place p, int64_t index) {
  return const_float(t,
                     (p.outer * t->dims[dim] + index) * inner_of(t->dims, t->rank, dim) + p.inner);
}

void prune_fit_sample(PruneFit *f, Arena *a, const ConstData *read, const ConstData *results,
                      PruneSampled *out) {
  const ConstData *target = f->whole ? results : read;
  *out = (PruneSampled){.rank = target->rank, .first = f->sampled};
  out->all = places_of(target, target_dim(f), f->whole ? 1 : f->each);
  out->n = out->all < f->per_sample ? out->all : f->per_sample;
  out->dims = arena_dup(a, target->dims, sizeof *target->dims * (size_t)target->rank);
  out->targets = ARENA_ARRAY(a, float, out->n * f->n_targets + 1);
  f->sampled += out->n;
  for (int64_t i = 0; i < out->n; i++) {
    const Place p = place_at(f, out, i);
    for (int64_t t = 0; t < f->n_targets; t++)
      out->targets[i * f->n_targets + t] = (float)channel_at(
          target, target_dim(f), p, f->whole ? f->result_at[t] : f->data_at[t * f->each + p.e]);
  }
}

/* ---- features ---- */
/* What tap `tap` of a window reads of a channel for the result at a place; 0 outside. */
static double tap_at(const PruneFit *f, const ConstData *read, const PruneSampled *s, Place p,
                     int64_t index, int64_t tap) {
  const PruneWindow *w = &f->window;
  if (w->spatial == 0) return channel_at(read, f->dim, p, index);
  int64_t at = 0, step = 1, inner = p.inner;
  for (int d = w->spatial - 1; d >= 0; d--) {
    const int64_t out = inner % s->dims[d + 2],
                  in = out * w->stride[d] + tap % w->kernel[d] * w->dilation[d] - w->pad[d];
    if (in < 0 || in >= read->dims[d + 2]) return 0;
    at += in * step;
    step *= read->dims[d + 2];
    inner /= s->dims[d + 2], tap /= w->kernel[d];
  }
  return const_float(read, (p.outer * read->dims[1] + index) * step + at);
}

static void take_features(const PruneFit *f, const ConstData *read, const PruneSampled *s, Place p,
                          float *row) {
  if (!f->whole) {
    for (int k = 0; k < f->n_stay; k++)
      row[k] = (float)channel_at(read, f->dim, p, f->data_at[k * f->each + p.e]);
    return;
  }
  for (int64_t k = 0; k < (int64_t)f->n_stay * f->each; k++)
    for (int tap = 0; tap < f->window.taps; tap++)
      *row++ = (float)tap_at(f, read, s, p, f->data_at[k], tap);
  if (f->bias >= 0) *row = 1;
}

/* ---- equations ---- */
enum { BLOCK = 16 };

/* Products of rows with themselves; of so many rows in floats before the sums in doubles are touched. */
static void add_rows(PruneFit *f, const float *rows) {
  const int64_t stride = f->n_features + f->n_targets;
  for (int64_t j = 0; j < f->n_features; j++) {
    double *sum = f->sums + j * stride;
    float by[BLOCK];
    for (int b = 0; b < BLOCK; b++) by[b] = rows[b * stride + j];
    for (int64_t k = j; k < stride; k++) {
      float s = 0;
      for (int b = 0; b < BLOCK; b++) s += by[b] * rows[b * stride + k];
      sum[k] += s;
    }
  }
}

static bool same_dims(const PruneFit *f, const ConstData *read, const PruneSampled *s) {
  if (read->rank != s->rank || s->n == 0) return false;
  for (int d = 0; d < s->rank; d++)
    if (d != target_dim(f) && !(f->whole && f->window.spatial && d > 1) &&
        read->dims[d] != s->dims[d])
      return false;
  return true;
}

void prune_fit_add(PruneFit *f, Arena *scratch, const ConstData *read, const PruneSampled *s) {
  if (!same_dims(f, read, s)) return;
  const int64_t stride = f->n_features + f->n_targets;
  float *rows = ARENA_ARRAY(scratch, float, BLOCK *stride);
  for (int64_t i = 0; i < s->n; i += BLOCK) {
    const int n = s->n - i < BLOCK ? (int)(s->n - i) : BLOCK;
    if (n < BLOCK) memset(rows, 0, sizeof *rows * (size_t)(BLOCK * stride));
    for (int b = 0; b < n; b++) {
      float *row = rows + b * stride;
      take_features(f, read, s, place_at(f, s, i + b), row);
      memcpy(row + f->n_features, s->targets + (i + b) * f->n_targets,
             sizeof *row * (size_t)f->n_targets);
    }
    add_rows(f, rows);
  }
  f->added += s->n;
}

/* ---- solution ---- */
double prune_fit_coefficient(const PruneRelation *r, const PruneFit *f, int64_t feature,
                             int64_t t) {
  const PruneProduct *p = &r->products.data[f->product];
  if (!f->whole) return feature == t;
  if (f->bias >= 0 && feature == f->n_features - 1)
    return const_float(r->nodes[p->node]->in[f->bias]->cdata, f->result_at[t]);
  const ConstData *w = r->slots.data[p->slot].value->cdata;
  return const_float(w, prune_fit_weight(f, w, p->dim, feature, f->result_at[t]));
}

double prune_mean_square(const double *sums, int64_t n, int64_t stride) {
  double trace = 0;
  for (int64_t j = 0; j < n; j++) trace += sums[j * stride + j];
  return trace / (double)n;
}

/* Where samples say little, coefficients stay what they are. */
static bool add_ridge(const PruneRelation *r, PruneFit *f) {
  const int64_t stride = f->n_features + f->n_targets;
  const double mean = prune_mean_square(f->sums, f->n_features, stride),
               ridge = (f->whole ? 1e-4 : 1e-3) * mean;
  for (int64_t j = 0; j < f->n_features; j++) {
    f->sums[j * stride + j] += ridge;
    for (int64_t t = 0; t < f->n_targets; t++)
      f->sums[j * stride + f->n_features + t] += ridge * prune_fit_coefficient(r, f, j, t);
  }
  return mean > 0 && isfinite(mean);
}

/* row[from..to) -= by * other */
static void subtract(double *row, const double *other, double by, int64_t from, int64_t to) {
  for (int64_t k = from; k < to && by != 0; k++) row[k] -= by * other[k];
}

bool prune_solve(double *rows, int64_t n, int64_t stride) {
  for (int64_t j = 0; j < n; j++) {
    double *row = rows + j * stride;
    const double pivot = sqrt(row[j]);
    if (!(pivot > 0)) return false;
    for (int64_t k = j; k < stride; k++) row[k] /= pivot;
    for (int64_t i = j + 1; i < n; i++) subtract(rows + i * stride, row, row[i], i, stride);
  }
  for (int64_t j = n - 1; j >= 0; j--) {
    double *row = rows + j * stride;
    for (int64_t k = j + 1; k < n; k++) subtract(row, rows + k * stride, row[k], n, stride);
    for (int64_t k = n; k < stride; k++)
      if (!isfinite(row[k] /= row[j])) return false;
  }
  return true;
}

/* Coefficients of a feature. */
static const double *solution_of(const PruneFit *f, int64_t feature) {
  return f->sums + feature * (f->n_features + f->n_targets) + f->n_features;
}

/* The fitted weights themselves; of results that go they stay what they were. */
static void take_weights(const PruneFit *f, const ConstData *w, int dim, int64_t n, int64_t *at) {
  const int64_t block = f->each * f->window.taps;
  for (int c = 0; c < f->n_stay; c++) {
    double *to = f->weights + c * n;
    prune_fit_channel(f, w, dim, c, at);
    for (int64_t i = 0; i < n; i++) to[i] = const_float(w, at[i]);
    for (int64_t k = 0; k < block; k++)
      for (int64_t t = 0; t < f->n_targets; t++) {
        const int64_t results = n / block;
        to[dim == 0 ? k * results + f->result_at[t] : f->result_at[t] * block + k] =
            solution_of(f, c * block + k)[t];
      }
  }
}

/* Sums of all channels' weights, by the factors. */
static void give_over(const PruneFit *f, const ConstData *w, int dim, int64_t n, int64_t *at,
                      double *old) {
  for (int k = 0; k < f->n_targets; k++) {
    prune_fit_channel(f, w, dim, k, at);
    for (int64_t i = 0; i < n; i++) old[i] = const_float(w, at[i]);
    for (int c = 0; c < f->n_stay; c++) {
      const double by = solution_of(f, c)[k];
      for (int64_t i = 0; i < n && by != 0; i++) f->weights[c * n + i] += by * old[i];
    }
  }
}

bool prune_fit_solve(const PruneRelation *r, PruneFit *f) {
  const PruneProduct *p = &r->products.data[f->product];
  const ConstData *w = r->slots.data[p->slot].value->cdata;
  if (f->added == 0 || !add_ridge(r, f) ||
      !prune_solve(f->sums, f->n_features, f->n_features + f->n_targets))
    return false;
  const int64_t n = prune_fit_weights(f, w, p->dim);
  int64_t *at = ARENA_ARRAY(r->a, int64_t, n);
  f->weights = ARENA_ARRAY(r->a, double, f->n_stay *n);
  if (f->whole)
    take_weights(f, w, p->dim, n, at);
  else
    give_over(f, w, p->dim, n, at, ARENA_ARRAY(r->a, double, n));
  if (f->whole && f->bias >= 0)
    f->biases = arena_dup(r->a, solution_of(f, f->n_features - 1),
                          sizeof *f->biases * (size_t)f->n_targets);
  return true;
}
