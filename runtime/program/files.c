/* Files of tensors: read whole, told apart by their first bytes. Holds the npy format; raw files
 * take type and shape from the model. */
#include "program.h"

bool tensor_alloc(Program *p, Tensor *t, const char *name) {
  const NumberType *type = number_type(t->dtype);
  if (!type)
    return program_error(p, "%s: type %d cannot be read or written here", name, (int64_t)t->dtype);
  uint64_t n = 1, bytes;
  bool bad = false;
  for (int i = 0; i < t->rank; i++)
    bad |= t->dims[i] < 0 || __builtin_mul_overflow(n, (uint64_t)t->dims[i], &n);
  bad |= __builtin_mul_overflow(n, (uint64_t)number_bytes(type), &bytes) || bytes > SIZE_MAX / 4;
  t->count = n;
  t->data = bad ? NULL : sys_alloc((size_t)bytes + 64);
  return t->data || program_error(p, "%s: not enough memory for its shape", name);
}

bool file_read(Program *p, const char *path, Bytes *out) {
  FileId id;
  const long kind = outfile_identify(path, &id); /* a FIFO would wait, a device never end */
  if (kind < 0) {
    const char *reason = kind == -SYS_ENOENT ? "no such file" : outfile_reason(kind);
    return program_error(p, "cannot open %s: %s", path, reason ? reason : "error");
  }
  const int fd = (int)sys_open(path, SYS_O_RDONLY | SYS_O_NONBLOCK, 0);
  if (fd < 0) return program_error(p, "cannot open %s", path);
  const long size = sys_size(fd);
  char *data = size >= 0 ? sys_alloc((size_t)size + 64) : NULL;
  long got = 0;
  for (long n = 1; data && got < size && n != 0;) {
    n = sys_read(fd, data + got, (size_t)(size - got));
    if (n > 0)
      got += n;
    else if (n != -SYS_EINTR)
      break;
  }
  sys_close(fd);
  if (!data || got != size) return program_error(p, "cannot read %s", path);
  *out = (Bytes){(const uint8_t *)data, (size_t)size};
  return true;
}

/* ---- npy ---- */

/* Value behind 'key': in the header's dictionary. */
static const char *npy_value(const char *header, const char *key) {
  const char *rest;
  for (; *header; header++)
    if (text_starts(header, key, &rest)) {
      while (*rest == ' ' || *rest == ':') rest++;
      return rest;
    }
  return "";
}

static bool npy_shape(const char *s, Tensor *t) {
  t->rank = 0;
  if (*s++ != '(') return false;
  for (;;) {
    while (*s == ' ' || *s == ',') s++;
    if (*s == ')') return true;
    if (t->rank == MAX_RANK || !text_int(&s, &t->dims[t->rank])) return false;
    t->rank++;
  }
}

/* Does the file's element type ("<f4") hold what the input wants? Types that numpy lacks are V1,
 * V2. */
static bool npy_type_fits(const char *descr, const NumberType *want) {
  if (*descr != '\'' || want->kind == NK_NONE) return false;
  for (int i = 1; i < 5; i++)
    if (!descr[i]) return false; /* the header ends here */
  const char order = descr[1], kind = descr[2], size = descr[3];
  const bool same = kind == want->npy[1] || (kind == 'V' && want->kind == NK_FLOAT);
  return order != '>' && same && size == want->npy[2] && descr[4] == '\'';
}

bool npy_parse(Program *p, const char *path, Bytes f, const BurinTensorInfo *info, Tensor *t) {
  enum { LIMIT = 4096 };
  char header[LIMIT + 1];
  const NumberType *type = number_type(info->dtype);
  const bool long_form = f.size > 12 && f.data[6] >= 2;
  const size_t start = long_form ? 12 : 10;
  if (f.size < 12 || !type) return program_error(p, "%s: damaged npy file", path);
  size_t n = f.data[8] | (size_t)f.data[9] << 8;
  if (long_form) n |= (size_t)f.data[10] << 16 | (size_t)f.data[11] << 24;
  if (n > LIMIT || n > f.size - start) return program_error(p, "%s: damaged npy file", path);
  for (size_t i = 0; i < n; i++) header[i] = (char)f.data[start + i];
  header[n] = 0;
  const char *rest;
  t->dtype = info->dtype;
  if (!text_starts(npy_value(header, "'fortran_order'"), "False", &rest))
    return program_error(p, "%s: Fortran order is not supported (numpy.ascontiguousarray)", path);
  if (!npy_type_fits(npy_value(header, "'descr'"), type))
    return program_error(p, "%s: its type is not that of %s, which is %s", path, info->name,
                         info->shape_text);
  if (!npy_shape(npy_value(header, "'shape'"), t))
    return program_error(p, "%s: damaged npy file", path);
  if (!tensor_alloc(p, t, path)) return false;
  if (f.size - start - n < t->count * number_bytes(type))
    return program_error(p, "%s: the file is too short", path);
  __builtin_memcpy(t->data, f.data + start + n, (size_t)t->count * number_bytes(type));
  return true;
}

size_t npy_header(const Tensor *t, char *out) {
  Out text = {.fd = -1};
  out_format(&text, "{'descr': '%s', 'fortran_order': False, 'shape': (",
             number_type(t->dtype)->npy);
  for (int i = 0; i < t->rank; i++)
    out_format(&text, t->rank == 1 ? "%d," : i ? ", %d" : "%d", t->dims[i]);
  out_format(&text, "), }");
  const size_t n = (10 + text.used + 1 + 63) / 64 * 64;
  static const uint8_t magic[8] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
  for (size_t i = 0; i < n; i++) out[i] = ' ';
  __builtin_memcpy(out, magic, 8);
  out[8] = (char)((n - 10) & 255);
  out[9] = (char)((n - 10) >> 8);
  __builtin_memcpy(out + 10, text.buffer, text.used);
  out[n - 1] = '\n';
  return n;
}

/* ---- any format ---- */

static bool raw_parse(Program *p, const char *path, Bytes f, const BurinTensorInfo *info,
                      Tensor *t) {
  t->dtype = info->dtype;
  t->rank = info->rank;
  for (int i = 0; i < t->rank; i++) {
    const int64_t d = info->dims[i];
    t->dims[i] = d < 0 && d >= -p->model->n_symbols ? p->dims[-1 - d] : d;
    if (t->dims[i] < 0)
      return program_error(p, "%s: a raw file has no shape; fix the sizes of %s with --dim", path,
                           info->shape_text);
  }
  if (!tensor_alloc(p, t, path)) return false;
  const uint64_t bytes = t->count * number_bytes(number_type(t->dtype));
  if (f.size != bytes)
    return program_error(p, "%s has %u bytes, input %s needs %u", path, (uint64_t)f.size,
                         info->name, bytes);
  __builtin_memcpy(t->data, f.data, f.size);
  return true;
}

/* Formats that others read, by their first bytes or their name's ending; NULL: perhaps raw bytes.
 */
static const char *foreign_format(const char *path, Bytes f) {
  static const struct {
    const char *name, *magic, *ending;
  } rows[] = {{"JPEG", "\xff\xd8\xff", ".jpg"},
              {"JPEG", "\xff\xd8\xff", ".jpeg"},
              {"GIF", "GIF8", ".gif"},
              {"WebP", "RIFF", ".webp"},
              {"BMP", "BM", ".bmp"},
              {"TIFF", "II*", ".tif"},
              {"TIFF", "MM", ".tiff"},
              {"npz or zip", "PK\3\4", ".npz"},
              {"HDF5", "\x89HDF", ".h5"},
              {"PDF", "%PDF", ".pdf"},
              {"CSV", NULL, ".csv"},
              {"JSON", NULL, ".json"},
              {"text", NULL, ".txt"},
              {"ONNX", NULL, ".onnx"}};
  const bool raw = text_ends(path, ".raw") || text_ends(path, ".bin");
  for (size_t i = 0; !raw && i < sizeof rows / sizeof *rows; i++) {
    const char *m = rows[i].magic;
    size_t n = 0;
    while (m && m[n] && n < f.size && (char)f.data[n] == m[n]) n++;
    if (text_ends(path, rows[i].ending) || (m && n > 2 && !m[n])) return rows[i].name;
  }
  return NULL;
}

void file_name(const char *arg, char *out, size_t size) {
  size_t n = 0;
  for (; arg[n] && arg[n] != ',' && n < size - 1; n++) out[n] = arg[n];
  out[n] = 0;
}

bool file_read_tensor(Program *p, const char *arg, const BurinTensorInfo *info, Tensor *t) {
  char path[4096];
  file_name(arg, path, sizeof path);
  const size_t n = text_length(path);
  Bytes f;
  if (!file_read(p, path, &f)) return false;
  const bool npy = f.size > 6 && f.data[0] == 0x93 && f.data[1] == 'N',
             png = f.size > 8 && f.data[0] == 0x89 && f.data[1] == 'P';
  if (npy) return npy_parse(p, path, f, info, t);
  if (png) {
    Image image;
    return image_read(p, path, f, &image) &&
           image_to_tensor(p, path, &image, arg[n] ? arg + n + 1 : "", info, t);
  }
  if (text_ends(path, ".pb")) return pb_parse(p, path, f, t);
  const char *foreign = foreign_format(path, f);
  if (foreign)
    return program_error(p, "%s: %s is not read here: .npy, .pb, PNG and raw bytes (.raw) are",
                         path, foreign);
  return raw_parse(p, path, f, info, t);
}
