/* TensorProto and SparseTensorProto → ConstData. Large raw_data stays a slice of the mapped file;
 * typed fields are narrowed and sub-byte types unpacked to one byte per element, into the model's
 * arena. Nothing here trusts a length: sizes are multiplied with checks and compared with what the
 * file really holds. */
#include <stdlib.h>
#include <string.h>
#include "frontend/proto/wire.h"
#include "frontend/scope/import.h"

typedef Onnx__TensorProto Tensor;

static bool tensor_shape(Import *im, const int64_t *dims, size_t n, const Loc *loc,
                         int64_t *count) {
  if (n > MAX_RANK)
    return diag_error(im->d, loc, ERR_LIMIT, "tensor has %zu dimensions; the limit is %d", n,
                      MAX_RANK);
  *count = 1;
  bool zero = false;
  for (size_t k = 0; k < n; k++) {
    if (dims[k] < 0)
      return diag_error(im->d, loc, ERR_TENSOR_SHAPE, "dimension %zu is %lld", k,
                        (long long)dims[k]);
    if (dims[k] == 0) zero = true;
  }
  for (size_t k = 0; k < n && !zero; k++)
    if (!ck_mul(*count, dims[k], count) || *count > (int64_t)1 << MAX_DIM_BITS)
      return diag_error(im->d, loc, ERR_OVERFLOW, "number of elements overflows");
  if (zero) *count = 0;
  return true;
}

static bool size_error(Import *im, const Loc *loc, const char *field, int64_t has, int64_t needs,
                       const char *unit) {
  return diag_error(im->d, loc, ERR_TENSOR_SIZE, "%s has %lld %s, the shape needs %lld", field,
                    (long long)has, unit, (long long)needs);
}

static int64_t packed_bytes(DType t, int64_t count) {
  const int bits = dtype_rows[t].bits;
  return bits >= 8 ? count * (bits / 8) : (count + 8 / bits - 1) / (8 / bits);
}

/* Sub-byte elements lie in a byte from the low bits up; signed integers are extended. */
static void *unpack_bits(Arena *a, DType t, const uint8_t *raw, int64_t count) {
  const int bits = dtype_rows[t].bits, per = 8 / bits, mask = (1 << bits) - 1,
            sign = 1 << (bits - 1);
  const bool extend = dtype_rows[t].cls == DC_SINT;
  uint8_t *out = arena_alloc(a, (size_t)count);
  for (int64_t k = 0; k < count; k++) {
    const int v = raw[k / per] >> (k % per * bits) & mask;
    out[k] = (uint8_t)(extend ? (v ^ sign) - sign : v);
  }
  return out;
}

static const void *normal_bools(Arena *a, const uint8_t *raw, int64_t count) {
  int64_t k = 0;
  while (k < count && raw[k] <= 1) k++;
  if (k == count) return raw;
  uint8_t *out = arena_alloc(a, (size_t)count);
  for (k = 0; k < count; k++) out[k] = raw[k] != 0;
  return out;
}

/* `raw` holds exactly packed_bytes(t, count). `stays`: it may be referred to, else it is copied. */
static const void *from_raw(Import *im, DType t, const uint8_t *raw, int64_t count, bool stays) {
  if (dtype_rows[t].bits < 8) return unpack_bits(im->arena, t, raw, count);
  if (!stays) raw = arena_dup(im->arena, raw, (size_t)packed_bytes(t, count));
  return t == DT_BOOL ? normal_bools(im->arena, raw, count) : raw;
}

static bool raw_bytes(Import *im, const Tensor *t, const Loc *loc, const uint8_t **raw, int64_t *n,
                      bool *stays) {
  *stays = t->raw_data.len >= WIRE_SLICE;
  *raw = t->raw_data.data;
  *n = (int64_t)t->raw_data.len;
  if (!*stays) return true;
  uint64_t where[2];
  memcpy(where, t->raw_data.data, sizeof where);
  if (where[0] > im->file_size || where[1] > im->file_size - where[0])
    return diag_internal(im->d, loc, "slice outside the file");
  *raw = im->file + where[0];
  *n = (int64_t)where[1];
  return true;
}

/* ---- external data ---- */
static bool entry_number(Import *im, const Loc *loc, const char *key, const char *text,
                         int64_t *out) {
  char *end;
  const long long v = strtoll(text, &end, 10);
  if (*text < '0' || *text > '9' || *end || v < 0 || v == INT64_MAX)
    return diag_error(im->d, loc, ERR_EXTERNAL, "%s of external data is \"%s\", not a number", key,
                      text);
  *out = v;
  return true;
}

static FileMap *external_file(Import *im, const Loc *loc, const char *location) {
  FileMap *f = strmap_get(&im->external, location);
  if (f) return f;
  if (!im->dir) {
    diag_error(im->d, loc, ERR_EXTERNAL, "a model read from memory cannot have external data");
    return NULL;
  }
  f = ARENA_NEW(im->scratch, FileMap);
  if (!file_map_beneath(im->d, loc, im->dir, location, f)) return NULL;
  strmap_put(im->scratch, &im->external, location, f);
  f->file.path = arena_printf(im->arena, "%s/%s", im->dir, location);
  vec_push(im->arena, &im->m->files, f->file);
  return f;
}

static bool external_bytes(Import *im, const Tensor *t, const Loc *loc, const uint8_t **raw,
                           int64_t *n) {
  const char *location = NULL;
  int64_t offset = 0, length = -1;
  for (size_t k = 0; k < t->n_external_data; k++) {
    const char *key = t->external_data[k]->key, *value = t->external_data[k]->value;
    if (!key || !value) continue;
    if (strcmp(key, "location") == 0) location = value;
    if (strcmp(key, "offset") == 0 && !entry_number(im, loc, key, value, &offset)) return false;
    if (strcmp(key, "length") == 0 && !entry_number(im, loc, key, value, &length)) return false;
  }
  if (!location) return diag_error(im->d, loc, ERR_EXTERNAL, "external data has no location");
  const FileMap *f = external_file(im, loc, location);
  if (!f) return false;
  const int64_t size = (int64_t)f->size;
  if (offset > size || (length >= 0 && length > size - offset))
    return diag_error(
        im->d, loc, ERR_EXTERNAL,
        "external data \"%s\" has %lld bytes; offset %lld and length %lld lie outside", location,
        (long long)size, (long long)offset, (long long)length);
  *raw = f->data ? f->data + offset : NULL;
  *n = length < 0 ? size - offset : length;
  return true;
}

/* ---- typed fields ---- */
typedef enum Field { F_FLOAT, F_INT32, F_INT64, F_DOUBLE, F_UINT64, F_STRING } Field;

static Field field_of(DType t) {
  switch (t) {
    case DT_F32:
    case DT_C64: return F_FLOAT;
    case DT_F64:
    case DT_C128: return F_DOUBLE;
    case DT_I64: return F_INT64;
    case DT_U32:
    case DT_U64: return F_UINT64;
    case DT_STR: return F_STRING;
    default: return F_INT32;
  }
}

static size_t field_count(const Tensor *t, Field f) {
  const size_t n[] = {t->n_float_data,  t->n_int32_data,  t->n_int64_data,
                      t->n_double_data, t->n_uint64_data, t->n_string_data};
  return n[f];
}

static const char *field_name(Field f) {
  static const char *const names[] = {"float_data",  "int32_data",  "int64_data",
                                      "double_data", "uint64_data", "string_data"};
  return names[f];
}

/* Low bytes of 32- or 64-bit words. */
static void *narrow(Arena *a, const void *words, size_t word, size_t bytes, size_t n) {
  uint8_t *out = arena_alloc(a, n * bytes);
  for (size_t k = 0; k < n; k++) memcpy(out + k * bytes, (const uint8_t *)words + k * word, bytes);
  return out;
}

static const void *import_strings(Import *im, const Tensor *t, const Loc *loc) {
  const char **out = ARENA_ARRAY(im->arena, const char *, t->n_string_data);
  for (size_t k = 0; k < t->n_string_data; k++) {
    const ProtobufCBinaryData *s = &t->string_data[k];
    if (s->len && memchr(s->data, 0, s->len)) {
      diag_error(im->d, loc, ERR_TENSOR_SIZE, "string %zu holds a NUL byte", k);
      return NULL;
    }
    out[k] = arena_strndup(im->arena, (const char *)s->data, s->len);
  }
  return out;
}

static const void *from_fields(Import *im, const Tensor *t, DType dt, int64_t count,
                               const Loc *loc) {
  const Field f = field_of(dt);
  const int64_t has = (int64_t)field_count(t, f);
  const bool packed = dtype_rows[dt].bits < 8;
  const int64_t needs = packed                             ? packed_bytes(dt, count)
                        : dtype_rows[dt].cls == DC_COMPLEX ? 2 * count
                                                           : count;
  if (has != needs) {
    size_error(im, loc, field_name(f), has, needs, "elements");
    return NULL;
  }
  const size_t n = (size_t)has;
  switch (f) {
    case F_FLOAT: return arena_dup(im->arena, t->float_data, n * 4);
    case F_DOUBLE: return arena_dup(im->arena, t->double_data, n * 8);
    case F_INT64: return arena_dup(im->arena, t->int64_data, n * 8);
    case F_UINT64: return narrow(im->arena, t->uint64_data, 8, (size_t)dtype_bytes(dt), n);
    case F_STRING: return import_strings(im, t, loc);
    default: break;
  }
  const uint8_t *low = narrow(packed ? im->scratch : im->arena, t->int32_data, 4,
                              packed ? 1 : (size_t)dtype_bytes(dt), n);
  if (packed) return unpack_bits(im->arena, dt, low, count);
  return dt == DT_BOOL ? normal_bools(im->arena, low, count) : low;
}

/* ---- whole tensors ---- */
static const void *tensor_data(Import *im, const Tensor *t, DType dt, int64_t count,
                               const Loc *loc) {
  const bool external =
      t->has_data_location && t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
  if (!external && !t->has_raw_data) return from_fields(im, t, dt, count, loc);
  if (dt == DT_STR) {
    diag_error(im->d, loc, ERR_TENSOR_TYPE, "strings cannot be raw or external data");
    return NULL;
  }
  const uint8_t *raw;
  int64_t n;
  bool stays = true;
  if (external ? !external_bytes(im, t, loc, &raw, &n) : !raw_bytes(im, t, loc, &raw, &n, &stays))
    return NULL;
  const int64_t needs = packed_bytes(dt, count);
  if (n != needs) {
    size_error(im, loc, external ? "external data" : "raw_data", n, needs, "bytes");
    return NULL;
  }
  static const char nothing[1];
  return count ? from_raw(im, dt, raw, count, stays) : nothing;
}

ConstData *import_tensor(Import *im, const Tensor *t, const char *name, const Loc *loc) {
  const int number = t->has_data_type ? t->data_type : 0;
  const DType dt = dtype_from_onnx(number);
  int64_t count;
  if (dt == DT_NONE) {
    const bool later = number > 26 && number <= ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT6E3M2;
    diag_error(im->d, loc, later ? ERR_UNSUPPORTED : ERR_TENSOR_TYPE,
               "tensor has element type %d, which is %s", number,
               later ? "not supported" : "no ONNX type");
    return NULL;
  }
  if (t->segment) {
    diag_error(im->d, loc, ERR_UNSUPPORTED, "tensor is a segment of a larger one");
    return NULL;
  }
  if (!tensor_shape(im, t->dims, t->n_dims, loc, &count)) return NULL;
  const void *data = tensor_data(im, t, dt, count, loc);
  if (!data) return NULL;
  return const_new(im->m, name, dt, (int)t->n_dims, t->dims, data);
}

/* ---- sparse ---- */
/* Position of the k-th value: its linear index, or one coordinate per dimension. */
static bool sparse_position(const ConstData *indices, int rank, const int64_t *dims, int64_t count,
                            int64_t k, int64_t *at) {
  if (indices->rank == 1)
    *at = const_int(indices, k);
  else {
    *at = 0;
    for (int d = 0; d < rank; d++) {
      const int64_t i = const_int(indices, k * rank + d);
      if (i < 0 || i >= dims[d]) return false;
      *at = *at * dims[d] + i;
    }
  }
  return *at >= 0 && *at < count;
}

static bool sparse_parts_ok(const ConstData *v, const ConstData *i, size_t rank) {
  if (v->rank != 1 || i->dtype != DT_I64 || v->dtype == DT_STR) return false;
  if (i->rank == 1) return i->dims[0] == v->count;
  return i->rank == 2 && i->dims[0] == v->count && i->dims[1] == (int64_t)rank;
}

ConstData *import_sparse_tensor(Import *im, const Onnx__SparseTensorProto *t, const char *name,
                                const Loc *loc) {
  int64_t count;
  if (!t->values || !t->indices) {
    diag_error(im->d, loc, ERR_TENSOR_SHAPE, "sparse tensor lacks values or indices");
    return NULL;
  }
  const ConstData *v = import_tensor(im, t->values, NULL, loc),
                  *i = v ? import_tensor(im, t->indices, NULL, loc) : NULL;
  if (!i || !tensor_shape(im, t->dims, t->n_dims, loc, &count)) return NULL;
  if (!sparse_parts_ok(v, i, t->n_dims)) {
    diag_error(im->d, loc, ERR_TENSOR_SHAPE, "values and indices of the sparse tensor do not fit");
    return NULL;
  }
  const size_t bytes = (size_t)dtype_bytes(v->dtype);
  if ((size_t)count > im->budget / bytes) {
    diag_error(im->d, loc, ERR_LIMIT,
               "sparse tensor has %lld elements, more than the memory budget", (long long)count);
    return NULL;
  }
  im->budget -= (size_t)count * bytes;
  uint8_t *dense = arena_alloc(im->arena, (size_t)count * bytes);
  for (int64_t k = 0; k < v->count; k++) {
    int64_t at;
    if (!sparse_position(i, (int)t->n_dims, t->dims, count, k, &at)) {
      diag_error(im->d, loc, ERR_TENSOR_SHAPE,
                 "index %lld of the sparse tensor lies outside its shape", (long long)k);
      return NULL;
    }
    memcpy(dense + (size_t)at * bytes, (const uint8_t *)v->data + (size_t)k * bytes, bytes);
  }
  return const_new(im->m, name, v->dtype, (int)t->n_dims, t->dims, dense);
}
