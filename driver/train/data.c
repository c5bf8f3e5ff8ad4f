/* Arrays of an .npz as samples of a training step. Whatever does not fit is said before the first
 * step, with the array and, where it is one of many, the sample. */
#include "driver/train/data.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>
#include "driver/train/random.h"

typedef struct DataFile {
  Session *s;
  const char *path;
  NamedTensors arrays;
  bool scaled, last; /* options are given */
  double scale, mean[MOST_CHANNELS], std[MOST_CHANNELS];
  int n_mean, n_std;
} DataFile;

static bool data_error(const DataFile *r, const char *array, const char *what) {
  return dataset_error(r->s, r->path, array, what);
}

/* ---- options ---- */
/* 0.5, 1/255 */
static bool parse_ratio(const char **s, double *v) {
  char *end;
  *v = strtod(*s, &end);
  if (end == *s) return false;
  if (*end == '/') {
    const char *below = end + 1;
    *v /= strtod(below, &end);
    if (end == below) return false;
  }
  *s = end;
  return isfinite(*v);
}

static bool parse_list(const char **s, double *v, int *n) {
  *n = 0;
  do
    if (*n == MOST_CHANNELS || !parse_ratio(s, &v[(*n)++])) return false;
  while (**s == ':' && ++*s);
  return true;
}

static const char *behind(const char *s, const char *key) {
  const size_t n = strlen(key);
  return strncmp(s, key, n) == 0 ? s + n : NULL;
}

static bool parse_option(DataFile *r, const char **s) {
  const char *v;
  bool ok = true;
  if ((v = behind(*s, "scale=")))
    ok = parse_ratio(&v, &r->scale), r->scaled = true;
  else if ((v = behind(*s, "mean=")))
    ok = parse_list(&v, r->mean, &r->n_mean), r->scaled = true;
  else if ((v = behind(*s, "std=")))
    ok = parse_list(&v, r->std, &r->n_std), r->scaled = true;
  else if ((v = behind(*s, "channels=last")))
    r->last = true;
  else
    return false;
  *s = v;
  return ok && (*v == 0 || *v == ',');
}

/* What stands behind FILE.npz, from its comma on; NULL: nothing. */
static const char *options_behind(const char *text) {
  const char *end = strstr(text, ".npz,");
  return end ? end + 4 : NULL;
}

const char *data_path(Arena *a, const char *text) {
  const char *end = options_behind(text);
  return end ? arena_strndup(a, text, (size_t)(end - text)) : text;
}

static bool parse_text(DataFile *r, const char *text) {
  const char *end = options_behind(text), *s = end ? end + 1 : "";
  r->path = data_path(r->s->arena, text);
  r->scale = r->std[0] = 1;
  r->n_mean = r->n_std = 1;
  for (; *s; s += *s == ',')
    if (!parse_option(r, &s))
      return usage_error("--data: '%s': options are scale=X, mean=X:…, std=X:…, channels=last",
                         text),
             false;
  for (int c = 0; c < r->n_std; c++)
    if (r->std[c] == 0) return usage_error("--data: a std of 0"), false;
  return ends_with(r->path, ".npz") ||
         (usage_error("--data: '%s' is no .npz file", r->path), false);
}

const char *data_like(Arena *a, const char *file, const char *data) {
  const char *options = options_behind(data);
  return options && !options_behind(file) ? arena_printf(a, "%s%s", file, options) : file;
}

/* ---- an array for an input ---- */
/* Sizes of a sample as the input has them: the array's, without its first, channels where they are
 * wanted. */
static int sample_dims(const Tensor *t, bool last, int64_t *dims) {
  const int rank = t->rank - 1;
  for (int d = 0; d < rank; d++) dims[d] = t->dims[d + 1];
  if (!last) return rank;
  const int64_t channels = dims[rank - 1];
  memmove(dims + 1, dims, sizeof *dims * (size_t)(rank - 1));
  dims[0] = channels;
  return rank;
}

static int64_t product(const int64_t *dims, int n) {
  int64_t p = 1;
  for (int d = 0; d < n; d++) p *= dims[d];
  return p;
}

static bool fit(const DataFile *r, const BurinTensorInfo *in, TrainArray *a) {
  DataInput want = {in->name, a->dtype, 0, NULL};
  int64_t dims[MAX_RANK], wanted[MAX_RANK], found[MAX_RANK];
  for (int d = 0; d < in->rank; d++)
    if (d != a->batch_axis) wanted[want.rank++] = in->dims[d] < 0 ? -1 : in->dims[d];
  want.dims = wanted;
  const bool whole = a->batch_axis < 0;
  if (!whole && a->from->rank == 0) return data_error(r, a->name, "has no axis of samples");
  a->last = r->last && !whole && a->from->rank > 3;
  const int rank = whole ? a->from->rank : sample_dims(a->from, a->last, dims);
  if (whole) memcpy(dims, a->from->dims, sizeof dims);
  if (!dataset_fit(&want, rank, dims, found))
    return data_error(
        r, a->name,
        arena_printf(r->s->arena, "%s has shape %s, and %s takes %s", whole ? "it" : "a sample",
                     dataset_shape(r->s->arena, rank, dims), in->name,
                     dataset_shape(r->s->arena, want.rank, wanted)));
  for (int d = 0, k = 0; d < in->rank; d++) a->dims[d] = d == a->batch_axis ? 1 : found[k++];
  a->outer = whole ? 1 : product(a->dims, a->batch_axis);
  a->inner = whole ? a->from->count : product(a->dims + a->batch_axis, in->rank - a->batch_axis);
  a->channels = want.rank > 1 ? found[0] : 1;
  a->plane = want.rank > 1 ? product(found + 1, want.rank - 1) : 1;
  return true;
}

static bool fit_type(const DataFile *r, const char *input, TrainArray *a) {
  const DType have = a->from->dtype;
  if (have == a->dtype) return true;
  if (dtype_is_float(a->dtype) && (dtype_is_int(have) || dtype_is_float(have) || have == DT_BOOL))
    return true;
  if (dtype_is_int(a->dtype) && (dtype_is_int(have) || have == DT_BOOL)) return true;
  return data_error(r, a->name,
                    arena_printf(r->s->arena, "has type %s, and %s takes %s", dtype_text(have),
                                 input, dtype_text(a->dtype)));
}

/* What scales images is for inputs of floats. */
static bool take_scale(const DataFile *r, bool is_labels, TrainArray *a) {
  const bool scaled = r->scaled && !is_labels && dtype_is_float(a->dtype);
  a->plain = a->from->dtype == a->dtype && !scaled && !a->last;
  a->scale = scaled ? r->scale : 1;
  const int64_t c = a->channels;
  const bool fits = (r->n_mean == 1 || r->n_mean == c) && (r->n_std == 1 || r->n_std == c);
  for (int k = 0; k < MOST_CHANNELS; k++) {
    a->mean[k] = scaled ? r->mean[r->n_mean == 1 ? 0 : k] : 0;
    a->std[k] = scaled ? r->std[r->n_std == 1 ? 0 : k] : 1;
  }
  if (r->n_mean == 1 && r->n_std == 1) a->channels = 1;
  if (a->last) a->channels = c;
  return !scaled || fits ||
         data_error(r, a->name,
                    arena_printf(r->s->arena, "has %lld channels, and mean or std another number",
                                 (long long)c));
}

/* Element k of a sample, in the input's order, as it is in the array. */
static int64_t place_in_array(const TrainArray *a, int64_t row, int64_t k) {
  const int64_t n = a->outer * a->inner;
  return row * n + (a->last ? k % a->plane * a->channels + k / a->plane : k);
}

static double scaled_element(const TrainArray *a, int64_t row, int64_t k) {
  const int64_t c = a->channels > 1 ? k / a->plane % a->channels : 0;
  const double v = tensor_element(a->from, place_in_array(a, row, k)) * a->scale;
  return c < MOST_CHANNELS ? (v - a->mean[c]) / a->std[c] : v;
}

/* Elements that the input's type cannot hold. */
static bool check_values(const DataFile *r, const TrainArray *a) {
  const int64_t rows = a->batch_axis < 0 ? 1 : a->from->dims[0], n = a->outer * a->inner;
  char *const text = arena_alloc(r->s->arena, 160);
  if (a->from->dtype == a->dtype && !dtype_is_float(a->dtype)) return true;
  for (int64_t row = 0; row < rows; row++)
    for (int64_t k = 0; k < n; k++) {
      uint64_t room[2];
      if (dtype_is_float(a->dtype)) {
        if (dtype_is_int(a->from->dtype) && dtype_bytes(a->from->dtype) == 1) return true;
        dtype_store_f(a->dtype, room, scaled_element(a, row, k));
        if (isfinite(dtype_load_f(a->dtype, room))) continue;
        snprintf(text, 160, "sample %lld holds NaN or an infinity, or becomes one in %s",
                 (long long)row, dtype_text(a->dtype));
        return data_error(r, a->name, text);
      }
      const char *at =
          (const char *)a->from->data + place_in_array(a, row, k) * dtype_bytes(a->from->dtype);
      const int64_t v = dtype_load_i(a->from->dtype, at);
      dtype_store_i(a->dtype, room, v);
      const bool of_other_sign = v < 0 && (a->from->dtype == DT_U64) != (a->dtype == DT_U64);
      if (dtype_load_i(a->dtype, room) == v && !of_other_sign) continue;
      snprintf(text, 160, "sample %lld holds %.17g, which %s cannot", (long long)row,
               dtype_load_f(a->from->dtype, at), dtype_text(a->dtype));
      return data_error(r, a->name, text);
    }
  return true;
}

/* ---- which axis is the batch's ---- */
/* That of the labels, wherever the input has it; else a first axis of any size. */
static int batch_axis(const BurinTensorInfo *in, const BurinTensorInfo *labels) {
  const int64_t batch = labels->rank > 0 ? labels->dims[0] : INT64_MIN;
  if (in->rank == 0) return -1;
  if (in->dims[0] == batch) return 0;
  for (int d = 0; d < in->rank && batch < 0; d++)
    if (in->dims[d] == batch) return d;
  return in->dims[0] < 0 ? 0 : -1;
}

static bool count_samples(const DataFile *r, const TrainArray *a, TrainData *out) {
  if (a->batch_axis < 0) return true;
  const int64_t n = a->from->dims[0];
  if (n == 0) return data_error(r, a->name, "holds no sample");
  if (out->samples && n != out->samples)
    return data_error(r, a->name,
                      arena_printf(r->s->arena, "has %lld samples, and the array before it %lld",
                                   (long long)n, (long long)out->samples));
  out->samples = n;
  return true;
}

static const Tensor *labels_array(const DataFile *r, const char *name) {
  for (int k = 0; k < r->arrays.n; k++)
    if (strcmp(r->arrays.data[k].name, name) == 0) return &r->arrays.data[k].t;
  StrBuf have = {.arena = r->s->arena};
  for (int k = 0; k < r->arrays.n; k++)
    sb_printf(&have, "%s%s", k ? ", " : "", r->arrays.data[k].name);
  data_error(r, name,
             arena_printf(r->s->arena, "no array of labels with this name (there are: %s)",
                          r->arrays.n ? sb_str(&have) : "none"));
  return NULL;
}

static bool take_array(const DataFile *r, const BurinTensorInfo *in, const BurinTensorInfo *labels,
                       TrainData *out) {
  TrainArray *a = &out->arrays[out->n++];
  a->dtype = dtype_from_onnx(in->dtype);
  a->rank = in->rank;
  a->batch_axis = batch_axis(in, labels);
  if (a->batch_axis >= 0 && in->dims[a->batch_axis] >= 0)
    out->fixed_batch = in->dims[a->batch_axis];
  return count_samples(r, a, out) && fit_type(r, in->name, a) && fit(r, in, a) &&
         take_scale(r, in == labels, a) && check_values(r, a);
}

/* A size that several inputs share is one size. */
static bool same_sizes(const DataFile *r, const BurinModel *m, const TrainData *d) {
  for (int i = 0; i < d->n; i++)
    for (int k = 0; k < m->inputs[i].rank; k++)
      for (int j = 0; j < i; j++)
        for (int e = 0; e < m->inputs[j].rank; e++) {
          const TrainArray *a = &d->arrays[i], *b = &d->arrays[j];
          const int64_t symbol = m->inputs[i].dims[k];
          if (symbol >= 0 || symbol == INT64_MIN || m->inputs[j].dims[e] != symbol ||
              (k == a->batch_axis && e == b->batch_axis) || a->dims[k] == b->dims[e])
            continue;
          return data_error(
              r, a->name,
              arena_printf(
                  r->s->arena, "has size %lld where %s has %lld, and the model's %s is one size",
                  (long long)a->dims[k], b->name, (long long)b->dims[e], m->symbols[-1 - symbol]));
        }
  return true;
}

static uint64_t hash_arrays(const TrainData *d) {
  XXH3_state_t x;
  XXH3_64bits_reset(&x);
  for (int k = 0; k < d->n; k++) {
    const Tensor *t = d->arrays[k].from;
    XXH3_64bits_update(&x, t->dims, sizeof *t->dims * (size_t)t->rank);
    XXH3_64bits_update(&x, t->data, (size_t)t->count * (size_t)dtype_bytes(t->dtype));
  }
  return XXH3_64bits_digest(&x);
}

bool data_open(Session *s, const char *text, const char *labels, TrainData *out) {
  DataFile *r = ARENA_NEW(s->arena, DataFile);
  *r = (DataFile){.s = s};
  *out = (TrainData){.file = r};
  if (!parse_text(r, text)) return false;
  out->path = r->path;
  if (!npz_read(s, r->path, &r->arrays)) return false;
  if (!labels) return true;
  if (!(out->labels = labels_array(r, labels))) return false;
  if (out->labels->rank > 0 && out->labels->dims[0] > 0) return true;
  return data_error(r, labels, "holds no sample");
}

bool data_fit(Session *s, const char *labels, const BurinModel *step, int n_inputs, TrainData *d) {
  DataFile *r = d->file;
  DataInput *inputs = ARENA_ARRAY(s->arena, DataInput, n_inputs + 1);
  d->arrays = ARENA_ARRAY(s->arena, TrainArray, n_inputs + 1);
  d->n_inputs = n_inputs;
  for (int k = 0; k < n_inputs; k++)
    inputs[k] = (DataInput){step->inputs[k].name, dtype_from_onnx(step->inputs[k].dtype),
                            step->inputs[k].rank, step->inputs[k].dims};
  const BurinTensorInfo *const info = &step->inputs[n_inputs];
  for (int k = 0; k < n_inputs; k++) {
    const NamedTensor *t = dataset_array(s, r->path, &r->arrays, labels, n_inputs, inputs, k);
    if (!t) return false;
    d->arrays[k] = (TrainArray){.name = t->name, .from = &t->t};
    if (!take_array(r, &step->inputs[k], info, d)) return false;
  }
  d->arrays[n_inputs] = (TrainArray){.name = labels, .from = d->labels};
  if ((d->labels && !take_array(r, info, info, d)) || !same_sizes(r, step, d)) return false;
  d->hash = hash_arrays(d);
  return true;
}

bool data_check_classes(Session *s, const TrainData *d, int64_t classes, int64_t ignored) {
  const TrainArray *a = &d->arrays[d->n - 1];
  const int64_t each = a->outer * a->inner, bytes = dtype_bytes(a->from->dtype);
  if (!dtype_is_int(a->dtype)) return true;
  for (int64_t k = 0; k < a->from->count; k++) {
    const int64_t y = dtype_load_i(a->from->dtype, (const char *)a->from->data + k * bytes);
    if ((y >= 0 && y < classes) || (y == ignored && ignored != INT64_MIN)) continue;
    return dataset_error(s, d->path, a->name,
                         arena_printf(s->arena,
                                      "sample %lld has label %lld, and the model tells %lld "
                                      "classes apart: 0 to %lld",
                                      (long long)(k / each), (long long)y, (long long)classes,
                                      (long long)classes - 1));
  }
  return true;
}

bool data_validation(const char *text, double def, double *part, const char **file) {
  char *end;
  *file = text && strstr(text, ".npz") ? text : NULL;
  *part = text ? 0 : def;
  if (!text || *file) return true;
  *part = strtod(text, &end);
  if (end != text && !*end && *part >= 0 && *part < 1) return true;
  return usage_error(
             "--validation: '%s' is neither a part of the samples from 0 to 1 nor a .npz file",
             text),
         false;
}

int64_t data_split(int64_t seed, double part, int64_t n, int64_t *rows) {
  for (int64_t k = 0; k < n; k++) rows[k] = k;
  random_shuffle((uint64_t)seed, 0, rows, n);
  return (int64_t)floor(part * (double)n);
}

/* ---- batches ---- */
static int64_t elements(const TrainArray *a, int64_t n) {
  return a->outer * a->inner * (a->batch_axis < 0 ? 1 : n);
}

Tensor *data_batch_new(Arena *arena, const TrainData *a, const TrainData *b, int64_t n) {
  Tensor *t = ARENA_ARRAY(arena, Tensor, a->n + MORE_INPUTS);
  for (int k = 0; k < a->n; k++) {
    const TrainArray *from = &a->arrays[k];
    int64_t count = elements(from, n);
    if (b && elements(&b->arrays[k], n) > count) count = elements(&b->arrays[k], n);
    t[k] = (Tensor){.dtype = from->dtype, .rank = from->rank};
    t[k].data = arena_alloc(arena, (size_t)(count * dtype_bytes(from->dtype)) + 1);
  }
  return t;
}

static void convert(const TrainArray *a, int64_t row, int64_t first, int64_t n, char *to) {
  const int bytes = dtype_bytes(a->dtype);
  if (a->plain) {
    memcpy(to, (const char *)a->from->data + (row * a->outer * a->inner + first) * bytes,
           (size_t)(n * bytes));
  } else if (a->dtype == DT_F32) {
    for (int64_t k = 0; k < n; k++) ((float *)to)[k] = (float)scaled_element(a, row, first + k);
  } else if (dtype_is_float(a->dtype)) {
    for (int64_t k = 0; k < n; k++)
      dtype_store_f(a->dtype, to + k * bytes, scaled_element(a, row, first + k));
  } else {
    const int wide = dtype_bytes(a->from->dtype);
    for (int64_t k = 0; k < n; k++)
      dtype_store_i(a->dtype, to + k * bytes,
                    dtype_load_i(a->from->dtype, (const char *)a->from->data +
                                                     place_in_array(a, row, first + k) * wide));
  }
}

void data_array(const TrainArray *a, const int64_t *rows, int64_t n, Tensor *to) {
  const int64_t in_batch = a->batch_axis < 0 ? 1 : n, bytes = dtype_bytes(a->dtype);
  memcpy(to->dims, a->dims, sizeof a->dims);
  if (a->batch_axis >= 0) to->dims[a->batch_axis] = n;
  to->count = a->outer * a->inner * in_batch;
  for (int64_t k = 0; k < in_batch; k++)
    for (int64_t o = 0; o < a->outer; o++)
      convert(a, a->batch_axis < 0 ? 0 : rows[k], o * a->inner, a->inner,
              (char *)to->data + (o * in_batch + k) * a->inner * bytes);
}

void data_batch(const TrainData *d, const int64_t *rows, int64_t n, Tensor *batch) {
  for (int i = 0; i < d->n; i++) data_array(&d->arrays[i], rows, n, &batch[i]);
}
