/* Files of tensors: read whole, told apart by their first bytes, written to a temporary name that
 * is renamed. Holds the npy format; raw files take type and shape from the model. */
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
  const int fd = (int)sys_open(path, SYS_O_RDONLY, 0);
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

bool file_read_tensor(Program *p, const char *arg, const BurinTensorInfo *info, Tensor *t) {
  char path[4096];
  size_t n = 0;
  for (; arg[n] && arg[n] != ',' && n < sizeof path - 1; n++) path[n] = arg[n];
  path[n] = 0;
  Bytes f;
  if (!file_read(p, path, &f)) return false;
  const bool npy = f.size > 6 && f.data[0] == 0x93 && f.data[1] == 'N',
             png = f.size > 8 && f.data[0] == 0x89 && f.data[1] == 'P';
  if (npy) return npy_parse(p, path, f, info, t);
  if (png) {
    Image image;
    return png_decode(p, path, f, &image) &&
           image_to_tensor(p, path, &image, arg[n] ? arg + n + 1 : "", info, t);
  }
  if (text_ends(path, ".pb")) return pb_parse(p, path, f, t);
  return raw_parse(p, path, f, info, t);
}

static bool write_all(int fd, const char *data, size_t size) {
  while (size) {
    const long n = sys_write(fd, data, size);
    if (n == -SYS_EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= (size_t)n;
  }
  return true;
}

/* Sub-byte elements lie packed in TensorProto files; done in place, elements first to last. */
static uint64_t pack_bits(const NumberType *type, Tensor *t, char *out) {
  const uint64_t bytes = (t->count * type->bits + 7) / 8;
  for (uint64_t i = 0; i < bytes; i++) out[i] = 0;
  for (uint64_t i = 0; i < t->count; i++)
    out[i * type->bits / 8] |=
        (char)((t->data[i] & ((1 << type->bits) - 1)) << (i * type->bits % 8));
  return bytes;
}

bool file_write_tensor(Program *p, const char *path, const Tensor *t, const char *name) {
  char temporary[4096], header[2048];
  const NumberType *type = number_type(t->dtype);
  const char *data = t->data;
  size_t length = text_length(path), head = 0;
  if (length > sizeof temporary - 8) return program_error(p, "%s: the name is too long", path);
  __builtin_memcpy(temporary, path, length);
  __builtin_memcpy(temporary + length, ".part", 6);
  uint64_t bytes = t->count * number_bytes(type);
  if (text_ends(path, ".npy")) {
    head = npy_header(t, header);
  } else if (text_ends(path, ".pb")) {
    if (type->bits < 8) {
      char *packed = sys_alloc((size_t)t->count + 64);
      if (!packed) return program_error(p, "%s: not enough memory", path);
      Tensor copy = *t;
      bytes = pack_bits(type, &copy, packed);
      data = packed;
    }
    head = pb_header(t, name, bytes, header);
  }
  const int fd = (int)sys_open(temporary, SYS_O_WRONLY | SYS_O_CREAT | SYS_O_TRUNC, 0644);
  bool ok = fd >= 0 && write_all(fd, header, head) && write_all(fd, data, (size_t)bytes);
  if (fd >= 0) ok = sys_close(fd) == 0 && ok;
  ok = ok && sys_rename(temporary, path) == 0;
  if (!ok && fd >= 0) sys_unlink(temporary);
  return ok || program_error(p, "cannot write %s", path);
}
