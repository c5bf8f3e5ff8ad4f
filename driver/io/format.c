/* Formats of tensors in files, by the name's ending; and the texts among them, CSV and JSON. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "driver/driver.h"

static const struct {
  const char *ending;
  TensorFormat format;
} endings[] = {{"npy", FORMAT_NPY}, {"pb", FORMAT_PB},     {"raw", FORMAT_RAW},
               {"bin", FORMAT_RAW}, {"dat", FORMAT_RAW},   {"out", FORMAT_RAW},
               {"csv", FORMAT_CSV}, {"json", FORMAT_JSON}, {"png", FORMAT_PNG}};

/* Without options behind a ','. */
TensorFormat format_of(const char *path) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  const size_t n = strcspn(name, ",");
  const char *dot = NULL;
  for (size_t i = 0; i < n; i++)
    if (name[i] == '.') dot = name + i + 1;
  if (!dot || strncmp(path, "/dev/", 5) == 0) return FORMAT_RAW;
  const size_t m = (size_t)(name + n - dot);
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
    if (strlen(endings[i].ending) == m && strncmp(endings[i].ending, dot, m) == 0)
      return endings[i].format;
  for (int t = 1; t < DT_COUNT; t++) /* .f32 and so on */
    if (strlen(dtype_text((DType)t)) == m && strncmp(dtype_text((DType)t), dot, m) == 0)
      return FORMAT_RAW;
  return FORMAT_OTHER;
}

/* ---- text ---- */
static void put_element(FILE *f, const Tensor *t, int64_t k, bool words) {
  const char *p = (const char *)t->data + k * dtype_bytes(t->dtype);
  if (dtype_is_float(t->dtype))
    fprintf(f, "%.*g", t->dtype == DT_F64 ? 17 : 9, dtype_load_f(t->dtype, p));
  else if (t->dtype == DT_BOOL && words)
    fputs(dtype_load_i(t->dtype, p) ? "true" : "false", f);
  else if (t->dtype == DT_U64)
    fprintf(f, "%llu", (unsigned long long)dtype_load_i(t->dtype, p));
  else
    fprintf(f, "%lld", (long long)dtype_load_i(t->dtype, p));
}

/* A row a line; a vector is a column. */
static void csv_write(FILE *f, const Tensor *t) {
  const int64_t row = t->rank == 2 ? t->dims[1] : 1;
  for (int64_t k = 0; k < t->count; k++) {
    put_element(f, t, k, false);
    fputc((k + 1) % row ? ',' : '\n', f);
  }
}

static void json_data(FILE *f, const Tensor *t, int d, int64_t *k) {
  if (d == t->rank) {
    put_element(f, t, (*k)++, true);
    return;
  }
  fputc('[', f);
  for (int64_t i = 0; i < t->dims[d]; i++) {
    if (i) fputs(d + 1 < t->rank ? ",\n" : ",", f);
    json_data(f, t, d + 1, k);
  }
  fputc(']', f);
}

static void json_write(FILE *f, const Tensor *t) {
  int64_t k = 0;
  fprintf(f, "{\"type\":\"%s\",\"shape\":[", dtype_text(t->dtype));
  for (int d = 0; d < t->rank; d++) fprintf(f, "%s%lld", d ? "," : "", (long long)t->dims[d]);
  fputs("],\"data\":", f);
  json_data(f, t, 0, &k);
  fputs("}\n", f);
}

static bool all_finite(const Tensor *t) {
  for (int64_t k = 0; dtype_is_float(t->dtype) && k < t->count; k++)
    if (!isfinite(tensor_element(t, k))) return false;
  return true;
}

static bool text_fits(Session *s, const char *path, TensorFormat format, const Tensor *t) {
  const Loc loc = {.file = path, .node = -1};
  const char *why = NULL;
  if (dtype_rows[t->dtype].cls == DC_COMPLEX) why = "complex numbers are not written as text";
  if (format == FORMAT_CSV && t->rank > 2) why = "CSV takes tensors of at most two dimensions";
  if (format == FORMAT_JSON && !all_finite(t)) why = "JSON has no numbers for infinity and NaN";
  return !why || diag_error(s->diag, &loc, ERR_UNSUPPORTED, "%s", why);
}

/* ---- all ---- */
static bool write_stream(TensorFormat format, FILE *f, const Tensor *t) {
  const size_t bytes = (size_t)t->count * (size_t)dtype_bytes(t->dtype);
  switch (format) {
    case FORMAT_NPY: return npy_write(f, t);
    case FORMAT_PB: return pb_write(f, t);
    case FORMAT_CSV: return csv_write(f, t), true;
    case FORMAT_JSON: return json_write(f, t), true;
    default: return fwrite(t->data, 1, bytes, f) == bytes;
  }
}

/* ",scale=X" behind the name of a PNG; 0: not given, negative: something else is there. */
static double png_scale(const char *path) {
  const char *options = strchr(path, ',');
  char *end;
  if (!options) return 0;
  if (strncmp(options, ",scale=", 7) != 0) return -1;
  const double v = strtod(options + 7, &end);
  return *end || !(v > 0) ? -1 : v;
}

bool tensor_write_to(Session *s, const char *path, OutFile *out, const Tensor *t) {
  const Loc loc = {.file = path, .node = -1};
  const TensorFormat format = format_of(path);
  if (t->dtype == DT_STR)
    return diag_error(s->diag, &loc, ERR_UNSUPPORTED, "strings are not written");
  if (format == FORMAT_PNG) return png_write(s, path, out, t, png_scale(path));
  if ((format == FORMAT_CSV || format == FORMAT_JSON) && !text_fits(s, path, format, t))
    return false;
  FILE *f = fd_stream(out->fd);
  bool ok = f && write_stream(format, f, t);
  if (f && ferror(f)) ok = false;
  if (f && fclose(f) != 0) ok = false;
  return ok || outputs_error(s->outputs, out, -errno);
}

OutFile *tensor_open(Session *s, const char *path) {
  const bool options = format_of(path) == FORMAT_PNG;
  return outputs_add(s->outputs, options ? arena_strndup(s->arena, path, strcspn(path, ",")) : path,
                     false);
}

bool tensor_write(Session *s, const char *path, const Tensor *t) {
  OutFile *out = tensor_open(s, path);
  return out && tensor_write_to(s, path, out, t);
}

bool format_check(const char *path) {
  const TensorFormat f = format_of(path);
  if (f == FORMAT_OTHER)
    return usage_error("%s: outputs are .npy, .pb, .csv, .json, .png or raw bytes (.raw, .bin)",
                       path),
           false;
  if (f == FORMAT_PNG && png_scale(path) < 0)
    return usage_error("%s: the option of a PNG is scale=FACTOR", path), false;
  return true;
}
