/* Samples from files: arrays are found by name, cut along the first axis, and made what the model
 * takes. Whatever does not fit is an error with its file and array. */
#include "driver/io/dataset.h"
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct Reader {
  Session *s;
  const char *path;   /* of the file that is read, for messages */
  const char *labels; /* or NULL */
  int64_t most;
  int n_inputs;
  const DataInput *inputs;
  Dataset *out;
  Vec(int64_t) label_list;
  const DatasetPicture *picture;
  const char *options; /* of pictures */
} Reader;

bool dataset_error(Session *s, const char *path, const char *array, const char *what) {
  const Loc loc = {.file = path, .node = -1, .node_name = array};
  return diag_error(s->diag, &loc, ERR_DATA, "%s", what);
}

static bool data_error(const Reader *r, const char *array, const char *what) {
  return dataset_error(r->s, r->path, array, what);
}

const char *dataset_shape(Arena *a, int rank, const int64_t *dims) {
  StrBuf b = {.arena = a};
  sb_putc(&b, '[');
  for (int d = 0; d < rank; d++)
    if (dims[d] < 0)
      sb_printf(&b, "%s?", d ? "," : "");
    else
      sb_printf(&b, "%s%lld", d ? "," : "", (long long)dims[d]);
  sb_putc(&b, ']');
  return sb_str(&b);
}

/* ---- finding arrays ---- */
static bool named(const char *name, const char *stem, int k) {
  char text[40];
  snprintf(text, sizeof text, "%s%d", stem, k);
  return strcmp(name, text) == 0;
}

static const NamedTensor *find_array(const NamedTensors *t, const char *name) {
  for (int k = 0; k < t->n; k++)
    if (strcmp(t->data[k].name, name) == 0) return &t->data[k];
  return NULL;
}

/* By name, by position, or the only one that is no label. */
static const NamedTensor *input_array(const Reader *r, const NamedTensors *t, int k) {
  const NamedTensor *only = find_array(t, r->inputs[k].name);
  int others = 0;
  for (int i = 0; i < t->n && !only; i++)
    if (named(t->data[i].name, "in_", k) || named(t->data[i].name, "input_", k) ||
        named(t->data[i].name, "arr_", k))
      return &t->data[i];
  for (int i = 0; i < t->n && !only; i++)
    if (!r->labels || strcmp(t->data[i].name, r->labels) != 0) others++;
  for (int i = 0; i < t->n && !only && others == 1 && r->n_inputs == 1; i++)
    if (!r->labels || strcmp(t->data[i].name, r->labels) != 0) return &t->data[i];
  if (only) return only;
  StrBuf have = {.arena = r->s->arena};
  for (int i = 0; i < t->n; i++) sb_printf(&have, "%s%s", i ? ", " : "", t->data[i].name);
  data_error(r, r->inputs[k].name,
             arena_printf(r->s->arena, "no array for this input (there are: %s)",
                          t->n ? sb_str(&have) : "none"));
  return NULL;
}

const NamedTensor *dataset_array(Session *s, const char *path, const NamedTensors *arrays,
                                 const char *labels, int n_inputs, const DataInput *inputs, int k) {
  const Reader r = {.s = s, .path = path, .labels = labels, .n_inputs = n_inputs, .inputs = inputs};
  return input_array(&r, arrays, k);
}

/* ---- what the model takes ---- */
DataInput *dataset_inputs(Session *s, const Graph *g, const char *who) {
  DataInput *inputs = ARENA_ARRAY(s->arena, DataInput, g->inputs.n + 1);
  for (int k = 0; k < g->inputs.n; k++) {
    const Value *v = g->inputs.data[k];
    int64_t *dims = ARENA_ARRAY(s->arena, int64_t, v->rank > 0 ? v->rank : 1);
    if (graph_list(g, k, false) || v->dtype == DT_STR)
      return usage_error("%s: input %s is no tensor of numbers", who, v->name), NULL;
    for (int d = 0; d < v->rank; d++)
      if (!expr_is_const(v->dims[d], &dims[d])) dims[d] = -1;
    inputs[k] = (DataInput){v->name, v->dtype, v->rank, dims};
  }
  return inputs;
}

/* ---- one sample ---- */
/* The sizes of an array without ones are those of the input without ones. */
bool dataset_fit(const DataInput *in, int rank, const int64_t *dims, int64_t *out) {
  int d = 0;
  if (rank == in->rank) { /* as it is */
    bool same = true;
    for (int i = 0; i < rank; i++) same &= in->dims[i] < 0 || in->dims[i] == dims[i];
    if (same) memcpy(out, dims, sizeof *dims * (size_t)rank);
    if (same) return true;
  }
  for (int i = 0; i < in->rank; i++) {
    while (d < rank && dims[d] == 1 && in->dims[i] != 1) d++;
    const bool fits = d < rank && (in->dims[i] < 0 || in->dims[i] == dims[d]);
    if (!fits && in->dims[i] != 1) return false;
    out[i] = fits ? dims[d++] : 1;
  }
  while (d < rank && dims[d] == 1) d++;
  return d == rank;
}

static bool is_finite(const Tensor *t) {
  for (int64_t k = 0; dtype_is_float(t->dtype) && k < t->count; k++)
    if (!isfinite(tensor_element(t, k))) return false;
  return true;
}

/* Elements [first, first + count) of t as the input's type. */
static bool convert(const Reader *r, const NamedTensor *from, int64_t first, const DataInput *in,
                    Tensor *to) {
  const Tensor *t = &from->t;
  const int bytes = dtype_bytes(in->dtype);
  const char *at = (const char *)t->data + first * dtype_bytes(t->dtype);
  if (t->dtype == in->dtype) {
    to->data = (void *)(uintptr_t)at;
  } else if (dtype_is_float(in->dtype) && (dtype_is_int(t->dtype) || dtype_is_float(t->dtype))) {
    to->data = arena_alloc(r->s->arena, (size_t)(to->count * bytes) + 1);
    for (int64_t k = 0; k < to->count; k++)
      dtype_store_f(in->dtype, (char *)to->data + k * bytes, tensor_element(t, first + k));
  } else if (dtype_is_int(in->dtype) && dtype_is_int(t->dtype)) {
    to->data = arena_alloc(r->s->arena, (size_t)(to->count * bytes) + 1);
    for (int64_t k = 0; k < to->count; k++) {
      char *const e = (char *)to->data + k * bytes;
      const int64_t v = dtype_load_i(t->dtype, at + k * dtype_bytes(t->dtype));
      dtype_store_i(in->dtype, e, v);
      if (dtype_load_i(in->dtype, e) != v)
        return data_error(r, from->name,
                          arena_printf(r->s->arena, "holds %lld, which the input's %s cannot",
                                       (long long)v, dtype_text(in->dtype)));
    }
  } else {
    return data_error(r, from->name,
                      arena_printf(r->s->arena, "has type %s, and the input %s takes %s",
                                   dtype_text(t->dtype), in->name, dtype_text(in->dtype)));
  }
  return is_finite(to) || data_error(r, from->name, "holds NaN or an infinity");
}

/* Sample k of `samples` in the array; -1: the whole of it is one. */
static bool take(const Reader *r, const NamedTensor *from, int64_t k, int64_t samples,
                 const DataInput *in, Tensor *to) {
  const Tensor *t = &from->t;
  int64_t dims[MAX_RANK];
  memcpy(dims, t->dims, sizeof dims);
  if (k >= 0) dims[0] = t->dims[0] / samples;
  *to = (Tensor){
      .dtype = in->dtype, .rank = in->rank, .count = k < 0 ? t->count : t->count / samples};
  if (!dataset_fit(in, t->rank, dims, to->dims))
    return data_error(
        r, from->name,
        arena_printf(r->s->arena, "%s has shape %s, and the input %s takes %s",
                     k < 0 ? "it" : "a sample", dataset_shape(r->s->arena, t->rank, dims), in->name,
                     dataset_shape(r->s->arena, in->rank, in->dims)));
  return convert(r, from, k < 0 ? 0 : k * to->count, in, to);
}

static bool add_sample(Reader *r, const NamedTensor *const *arrays, int64_t k, int64_t samples) {
  Tensor *t = ARENA_ARRAY(r->s->arena, Tensor, r->n_inputs);
  for (int i = 0; i < r->n_inputs; i++)
    if (!take(r, arrays[i], k, samples, &r->inputs[i], &t[i])) return false;
  vec_push(r->s->arena, &r->out->samples, t);
  return true;
}

/* ---- a file of samples ---- */
/* Rows of the first axis that make one sample: the input's first size where it is fixed. */
static int64_t rows_per_sample(const DataInput *in, const Tensor *t) {
  const bool batch = t->rank == in->rank && in->rank > 0 && in->dims[0] > 1;
  return batch && t->dims[0] % in->dims[0] == 0 ? in->dims[0] : 1;
}

static bool read_labels(Reader *r, const NamedTensors *t, int64_t samples, Tensor *out) {
  const NamedTensor *y = find_array(t, r->labels);
  if (!y) return data_error(r, r->labels, "no array of labels with this name");
  if (!dtype_is_int(y->t.dtype)) return data_error(r, r->labels, "labels are integers");
  if (y->t.count != samples)
    return data_error(r, r->labels,
                      arena_printf(r->s->arena, "%lld labels for %lld samples",
                                   (long long)y->t.count, (long long)samples));
  *out = y->t;
  return true;
}

/* Takes `most` of n samples, spread evenly. */
static bool is_taken(int64_t k, int64_t n, int64_t most) {
  return most <= 0 || n <= most || k * most / n != (k + 1) * most / n;
}

static bool read_arrays(Reader *r, const NamedTensors *t) {
  const NamedTensor **arrays = ARENA_ARRAY(r->s->arena, const NamedTensor *, r->n_inputs);
  int64_t samples = -1;
  Tensor labels = {0};
  for (int i = 0; i < r->n_inputs; i++) {
    if (!(arrays[i] = input_array(r, t, i))) return false;
    if (arrays[i]->t.rank == 0) return data_error(r, arrays[i]->name, "has no axis of samples");
    const int64_t n = arrays[i]->t.dims[0] / rows_per_sample(&r->inputs[i], &arrays[i]->t);
    if (samples >= 0 && n != samples)
      return data_error(r, arrays[i]->name,
                        arena_printf(r->s->arena, "has %lld samples, and the array before it %lld",
                                     (long long)n, (long long)samples));
    samples = n;
  }
  if (samples == 0) return data_error(r, arrays[0]->name, "holds no sample");
  if (r->labels && !read_labels(r, t, samples, &labels)) return false;
  for (int64_t k = 0; k < samples; k++) {
    if (!is_taken(k, samples, r->most)) continue;
    if (!add_sample(r, arrays, k, samples)) return false;
    if (r->labels)
      vec_push(
          r->s->arena, &r->label_list,
          dtype_load_i(labels.dtype, (const char *)labels.data + k * dtype_bytes(labels.dtype)));
  }
  return true;
}

/* ---- folders ---- */
static int by_name(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

typedef Vec(const char *) Names;

static bool list_folder(const Reader *r, const char *dir, Names *out) {
  DIR *d = opendir(dir);
  if (!d) return data_error(r, NULL, "cannot read the folder");
  for (const struct dirent *e; (e = readdir(d));)
    if (e->d_name[0] != '.')
      vec_push(r->s->arena, out, arena_printf(r->s->arena, "%s/%s", dir, e->d_name));
  closedir(d);
  if (out->n) qsort(out->data, (size_t)out->n, sizeof *out->data, by_name);
  return true;
}

static bool is_folder(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static const char *stem_of(Arena *a, const char *path) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path,
             *dot = strrchr(name, '.');
  return dot ? arena_strndup(a, name, (size_t)(dot - name)) : name;
}

/* Files of one sample: each an array named by its file. */
static bool read_set(Reader *r, const Names *files) {
  NamedTensors t = {0};
  const NamedTensor **arrays = ARENA_ARRAY(r->s->arena, const NamedTensor *, r->n_inputs);
  for (int k = 0; k < files->n; k++) {
    NamedTensor one = {.name = stem_of(r->s->arena, files->data[k])};
    if (strncmp(one.name, "output", 6) == 0 || strncmp(one.name, "out_", 4) == 0) continue;
    if (!tensor_read(r->s, files->data[k], &one.t)) return false;
    vec_push(r->s->arena, &t, one);
  }
  for (int i = 0; i < r->n_inputs; i++)
    if (!(arrays[i] = input_array(r, &t, i))) return false;
  return add_sample(r, arrays, -1, 1);
}

/* One .npz is one sample, whose arrays have the model's own shapes; or many, along the first axis. */
static bool read_npz(Reader *r, const char *path, bool whole) {
  NamedTensors t = {0};
  r->path = path;
  if (!npz_read(r->s, path, &t)) return false;
  if (!whole) return read_arrays(r, &t);
  const NamedTensor **arrays = ARENA_ARRAY(r->s->arena, const NamedTensor *, r->n_inputs);
  for (int i = 0; i < r->n_inputs; i++)
    if (!(arrays[i] = input_array(r, &t, i))) return false;
  int64_t dims[MAX_RANK];
  bool one = true;
  for (int i = 0; i < r->n_inputs; i++)
    one &= dataset_fit(&r->inputs[i], arrays[i]->t.rank, arrays[i]->t.dims, dims);
  return one && !r->labels ? add_sample(r, arrays, -1, 1) : read_arrays(r, &t);
}

static bool is_tensor_file(const char *path) {
  return ends_with(path, ".npy") || ends_with(path, ".pb");
}

static bool is_picture(const char *path) {
  static const char *const ends[] = {".png", ".PNG", ".jpg", ".JPG", ".jpeg", ".JPEG", NULL};
  for (int k = 0; ends[k]; k++)
    if (ends_with(path, ends[k])) return true;
  return false;
}

static bool read_picture(Reader *r, const char *path) {
  NamedTensor t = {.name = path};
  const NamedTensor *const one = &t;
  r->path = path;
  if (r->n_inputs != 1) return data_error(r, NULL, "images are samples of models with one input");
  if (!r->picture->read(r->picture->user, path, r->options, &t.t)) return false;
  return add_sample(r, &one, -1, 1);
}

static bool read_folder(Reader *r, const char *dir) {
  Names all = {0}, tensors = {0};
  if (!list_folder(r, dir, &all)) return false;
  for (int k = 0; k < all.n; k++) {
    const char *path = all.data[k];
    if (is_folder(path)) {
      Names files = {0};
      r->path = path;
      if (!list_folder(r, path, &files) || !read_set(r, &files)) return false;
    } else if (ends_with(path, ".npz")) {
      if (!read_npz(r, path, true)) return false;
    } else if (is_picture(path)) {
      if (r->most <= 0 || r->out->samples.n < r->most)
        if (!read_picture(r, path)) return false;
    } else if (is_tensor_file(path)) {
      vec_push(r->s->arena, &tensors, path);
    }
  }
  r->path = dir;
  if (tensors.n && r->n_inputs > 1) return read_set(r, &tensors);
  for (int k = 0; k < tensors.n; k++) { /* each a sample of the only input */
    const Names one = {.data = &tensors.data[k], .n = 1};
    r->path = tensors.data[k];
    if (!read_set(r, &one)) return false;
  }
  return true;
}

/* ---- the data ---- */
static bool finish(Reader *r, const char *path) {
  Dataset *d = r->out;
  r->path = path;
  if (d->samples.n == 0)
    return data_error(r, NULL, "no samples: an .npz, or a folder of .npz, .npy, .pb or images");
  if (r->labels && r->label_list.n != d->samples.n)
    return data_error(r, r->labels, "labels are read from an .npz with all samples");
  d->labels = r->labels ? r->label_list.data : NULL;
  return true;
}

/* `DIR,mean=…`: what stands behind the comma belongs to images. */
static const char *split_options(Session *s, const char *path, const char **options) {
  const char *comma = is_folder(path) ? NULL : strchr(path, ',');
  *options = comma ? comma : "";
  return comma ? arena_strndup(s->arena, path, (size_t)(comma - path)) : path;
}

bool dataset_read(Session *s, const char *data, const char *labels, int64_t most, int n_inputs,
                  const DataInput *inputs, const DatasetPicture *picture, Dataset *out) {
  const char *options, *path = split_options(s, data, &options);
  *out = (Dataset){.n_inputs = n_inputs, .path = path};
  Reader r = {.s = s,
              .path = path,
              .labels = labels,
              .most = most,
              .n_inputs = n_inputs,
              .inputs = inputs,
              .out = out,
              .picture = picture,
              .options = options};
  bool ok;
  if (is_folder(path))
    ok = read_folder(&r, path);
  else if (ends_with(path, ".npz"))
    ok = read_npz(&r, path, false);
  else
    ok = data_error(&r, NULL, "data are an .npz file or a folder");
  return ok && finish(&r, path);
}
