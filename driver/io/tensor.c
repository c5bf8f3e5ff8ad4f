/* Tensors in files: .npy (version 1 and 2, little endian, C order), .pb (TensorProto) and text.
 * Used by the interpreter path of run and by diff; compiled programs read files by themselves. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "driver/driver.h"

static bool file_error(Session *s, const char *path, const char *what) {
  const Loc loc = {.file = path, .node = -1};
  return diag_error(s->diag, &loc, ERR_IO, "%s", what);
}

bool ends_with(const char *s, const char *end) {
  const size_t n = strlen(s), m = strlen(end);
  return n >= m && strcmp(s + n - m, end) == 0;
}

static bool set_count(Tensor *t) {
  t->count = 1;
  for (int k = 0; k < t->rank; k++)
    if (t->dims[k] < 0 || !ck_mul(t->count, t->dims[k], &t->count) || t->count > (int64_t)1 << 40)
      return false;
  return true;
}

/* ---- npy ---- */
static const struct {
  const char *descr;
  DType t;
} npy_types[] = {{"<f4", DT_F32}, {"<f8", DT_F64},  {"<f2", DT_F16}, {"|i1", DT_I8},
                 {"|u1", DT_U8},  {"<i2", DT_I16},  {"<u2", DT_U16}, {"<i4", DT_I32},
                 {"<u4", DT_U32}, {"<i8", DT_I64},  {"<u8", DT_U64}, {"|b1", DT_BOOL},
                 {"<c8", DT_C64}, {"<c16", DT_C128}};
enum { N_NPY = sizeof npy_types / sizeof *npy_types };

static const char *after(const char *text, const char *key) {
  const char *p = strstr(text, key);
  return p ? p + strlen(key) : NULL;
}

static bool npy_header(char *h, Tensor *t) {
  const char *descr = after(h, "'descr': '"), *order = after(h, "'fortran_order': "),
             *shape = after(h, "'shape': (");
  if (!descr || !order || !shape || strncmp(order, "False", 5) != 0) return false;
  t->dtype = DT_NONE;
  for (int k = 0; k < N_NPY; k++)
    if (strncmp(descr, npy_types[k].descr, strlen(npy_types[k].descr)) == 0)
      t->dtype = npy_types[k].t;
  for (t->rank = 0; *shape && *shape != ')';) {
    char *end;
    const long long v = strtoll(shape, &end, 10);
    if (end == shape || t->rank == MAX_RANK) return false;
    t->dims[t->rank++] = v;
    shape = end + strspn(end, ", ");
  }
  return t->dtype != DT_NONE && set_count(t);
}

bool npy_parse(Session *s, const char *path, const char *f, size_t size, Tensor *t) {
  const unsigned char *p = (const unsigned char *)f;
  if (size < 10 || memcmp(p, "\x93NUMPY", 6) != 0) return file_error(s, path, "no .npy file");
  size_t n = (size_t)p[8] | (size_t)p[9] << 8;
  const size_t start = p[6] > 1 ? 12 : 10;
  if (size < start) return file_error(s, path, "truncated .npy file");
  if (start == 12) n |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
  if (n > 1 << 16) return file_error(s, path, ".npy header is too long");
  if (n > size - start || !npy_header(arena_strndup(s->arena, f + start, n), t))
    return file_error(s, path, "unreadable .npy header (types of numpy in C order are read)");
  const size_t bytes = (size_t)t->count * (size_t)dtype_bytes(t->dtype);
  t->data = arena_alloc(s->arena, bytes);
  if (bytes > size - start - n) return file_error(s, path, "truncated .npy file");
  memcpy(t->data, f + start + n, bytes);
  return true;
}

static bool npy_read(Session *s, const char *path, Tensor *t) {
  size_t size;
  const char *f = frontend_read_file(s->arena, s->diag, path, &size);
  return f && npy_parse(s, path, f, size, t);
}

static const char *npy_descr(DType t) {
  for (int k = 0; k < N_NPY; k++)
    if (npy_types[k].t == t) return npy_types[k].descr;
  return dtype_bytes(t) == 2 ? "<u2" : "|u1"; /* types that numpy lacks: their bits */
}

bool npy_write(FILE *f, const Tensor *t) {
  char h[256];
  int n = snprintf(h, sizeof h, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                   npy_descr(t->dtype));
  for (int k = 0; k < t->rank; k++)
    n += snprintf(h + n, sizeof h - (size_t)n, "%lld,%s", (long long)t->dims[k],
                  k + 1 < t->rank ? " " : "");
  n += snprintf(h + n, sizeof h - (size_t)n, "), }");
  const int padded = (10 + n + 1 + 63) / 64 * 64 - 10;
  const unsigned char magic[10] = {0x93,
                                   'N',
                                   'U',
                                   'M',
                                   'P',
                                   'Y',
                                   1,
                                   0,
                                   (unsigned char)(padded & 255),
                                   (unsigned char)(padded >> 8)};
  fwrite(magic, 1, 10, f);
  fprintf(f, "%s%*s\n", h, padded - n - 1, "");
  const size_t bytes = (size_t)t->count * (size_t)dtype_bytes(t->dtype);
  return fwrite(t->data, 1, bytes, f) == bytes;
}

/* ---- pb ---- */
bool pb_read(Session *s, const char *path, Tensor *t) {
  if (!s->model) s->model = model_new(s->arena, s->diag);
  const ConstData *c = frontend_load_tensor(s->model, path);
  if (!c) return false;
  *t = (Tensor){.dtype = c->dtype, .rank = c->rank, .count = c->count};
  for (int k = 0; k < c->rank; k++) t->dims[k] = c->dims[k];
  t->data = c->count
                ? arena_dup(s->arena, c->data, (size_t)c->count * (size_t)dtype_bytes(c->dtype))
                : arena_alloc(s->arena, 1);
  return true;
}

static void put_varint(FILE *f, uint64_t v) {
  for (; v >= 0x80; v >>= 7) fputc((int)(v & 0x7f) | 0x80, f);
  fputc((int)v, f);
}

bool pb_write(FILE *f, const Tensor *t) {
  const int bits = dtype_rows[t->dtype].bits, per = bits < 8 ? 8 / bits : 1;
  const size_t bytes = bits < 8 ? (size_t)((t->count + per - 1) / per)
                                : (size_t)t->count * (size_t)dtype_bytes(t->dtype);
  for (int k = 0; k < t->rank; k++) put_varint(f, 1 << 3), put_varint(f, (uint64_t)t->dims[k]);
  put_varint(f, 2 << 3), put_varint(f, (uint64_t)dtype_rows[t->dtype].onnx);
  put_varint(f, 9 << 3 | 2), put_varint(f, bytes);
  if (bits >= 8) return fwrite(t->data, 1, bytes, f) == bytes;
  for (size_t k = 0; k < bytes; k++) {
    int byte = 0;
    for (int i = 0; i < per && (int64_t)k * per + i < t->count; i++)
      byte |= (((const uint8_t *)t->data)[(int64_t)k * per + i] & ((1 << bits) - 1)) << (i * bits);
    fputc(byte, f);
  }
  return true;
}

/* ---- files ---- */
static bool is_npy(const char *path) { /* by its name, or its first bytes: files in memory */
  char magic[6] = "";
  FILE *const f = ends_with(path, ".npy") || !is_regular(path) ? NULL : fopen(path, "rb");
  if (!f) return ends_with(path, ".npy");
  const bool yes = fread(magic, 1, 6, f) == 6 && memcmp(magic, "\x93NUMPY", 6) == 0;
  fclose(f);
  return yes;
}

bool tensor_read(Session *s, const char *path, Tensor *t) {
  *t = (Tensor){0};
  outputs_protect(s->outputs, path);
  if (ends_with(path, ".pb")) return pb_read(s, path, t);
  if (is_jpeg(path))
    return file_error(s, path, "a JPEG is not read here; without --interpret burin run does");
  if (!is_npy(path)) return file_error(s, path, "tensors are read from .npy and .pb files");
  return npy_read(s, path, t);
}

/* 2x3xf32=1,2,3,4,5,6; one number fills all. */
bool tensor_literal(Session *s, const char *text, Tensor *t) {
  const char *eq = strchr(text, '='), *p = text;
  *t = (Tensor){0};
  while (eq && *p >= '0' && *p <= '9' && t->rank < MAX_RANK) {
    char *end;
    t->dims[t->rank++] = strtoll(p, &end, 10);
    p = *end == 'x' ? end + 1 : end;
  }
  t->dtype = eq ? dtype_from_text(arena_strndup(s->arena, p, (size_t)(eq - p))) : DT_NONE;
  if (t->dtype == DT_NONE || t->dtype == DT_STR || dtype_rows[t->dtype].cls == DC_COMPLEX ||
      !set_count(t))
    return usage_error("'%s' is no tensor, such as 2x3xf32=1,2,3,4,5,6", text), false;
  t->data = arena_alloc(s->arena, (size_t)t->count * (size_t)dtype_bytes(t->dtype));
  const bool fill = !strchr(eq + 1, ',');
  p = eq + 1;
  for (int64_t k = 0; k < t->count; k++) {
    char *end, *const at = (char *)t->data + k * dtype_bytes(t->dtype);
    if (dtype_is_float(t->dtype))
      dtype_store_f(t->dtype, at, strtod(p, &end));
    else if (t->dtype == DT_U64)
      dtype_store_i(t->dtype, at, (int64_t)strtoull(p, &end, 0));
    else
      dtype_store_i(t->dtype, at, strtoll(p, &end, 0));
    if (end == p)
      return usage_error("'%s' has %lld numbers, needs %lld", text, (long long)k,
                         (long long)t->count),
             false;
    if (!fill) p = *end == ',' ? end + 1 : end;
  }
  return true;
}

bool tensor_named(Session *s, const char *option, const char *text, const char **name, Tensor *t) {
  const char *at = strstr(text, "=@"), *eq = at ? at : strchr(text, '=');
  if (!eq || eq == text) return usage_error("%s: '%s' is not NAME=@FILE", option, text), false;
  *name = arena_strndup(s->arena, text, (size_t)(eq - text));
  return eq[1] == '@' ? tensor_read(s, eq + 2, t) : tensor_literal(s, eq + 1, t);
}

/* ---- comparing ---- */
double tensor_element(const Tensor *t, int64_t k) {
  const char *p = (const char *)t->data + k * dtype_bytes(t->dtype);
  return dtype_is_float(t->dtype) ? dtype_load_f(t->dtype, p) : (double)dtype_load_i(t->dtype, p);
}

/* As numpy.allclose: |got - wanted| <= atol + rtol*|wanted|; NaN equals NaN. */
Difference tensor_compare(const Tensor *got, const Tensor *wanted, double rtol, double atol) {
  Difference d = {.first = -1};
  for (int64_t k = 0; k < wanted->count; k++) {
    const double g = tensor_element(got, k), w = tensor_element(wanted, k), err = fabs(g - w);
    if (g == w || (isnan(g) && isnan(w))) continue;
    if (err > d.max_abs || isnan(err)) d.max_abs = err;
    if (w != 0 && err / fabs(w) > d.max_rel) d.max_rel = err / fabs(w);
    if (err <= atol + rtol * fabs(w)) continue;
    if (d.wrong++ == 0) d.first = k, d.got = g, d.wanted = w;
  }
  return d;
}

bool is_regular(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}
