/* TensorProto files: the fields that hold numbers. Every length is checked against what is left. */
#include "program.h"

typedef struct Reader {
  const uint8_t *at, *end;
  bool bad;
} Reader;

typedef struct Field {
  uint32_t number, wire;
  uint64_t value; /* varint, or the fixed bits */
  Reader body;    /* wire type 2 */
} Field;

static uint64_t varint(Reader *r) {
  uint64_t v = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (r->at == r->end) break;
    const uint8_t byte = *r->at++;
    v |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return v;
  }
  r->bad = true;
  return 0;
}

static uint64_t fixed(Reader *r, size_t n) {
  uint64_t v = 0;
  if ((size_t)(r->end - r->at) < n) return r->bad = true, 0;
  __builtin_memcpy(&v, r->at, n);
  r->at += n;
  return v;
}

static bool next_field(Reader *r, Field *f) {
  if (r->bad || r->at == r->end) return false;
  const uint64_t key = varint(r);
  *f = (Field){(uint32_t)(key >> 3), (uint32_t)key & 7, 0, {0}};
  if (f->wire == 0)
    f->value = varint(r);
  else if (f->wire == 1)
    f->value = fixed(r, 8);
  else if (f->wire == 5)
    f->value = fixed(r, 4);
  else if (f->wire == 2) {
    const uint64_t n = varint(r);
    if (n > (uint64_t)(r->end - r->at))
      r->bad = true;
    else
      f->body = (Reader){r->at, r->at + n, false}, r->at += n;
  } else
    r->bad = true;
  return !r->bad;
}

/* The elements of a repeated field, packed or single, one at a time: `wide` bytes fixed, or varints
 * (0). */
static bool next_value(Reader *r, const Field *f, size_t wide, uint64_t *v, bool *single) {
  if (f->wire != 2) {
    *v = f->value;
    return !*single && (*single = true);
  }
  if (r->bad || r->at == r->end) return false;
  *v = wide ? fixed(r, wide) : varint(r);
  return !r->bad;
}

/* Elements of fewer than 8 bits lie in a byte from the low bits up; signed ones are extended. */
static char unpack(const NumberType *type, uint8_t byte, uint64_t i) {
  const uint8_t v = (uint8_t)(byte >> (i * type->bits % 8) << (8 - type->bits));
  return type->kind == NK_SINT ? (char)((int8_t)v >> (8 - type->bits))
                               : (char)(v >> (8 - type->bits));
}

/* Appends the elements of a typed data field to t->data. */
static bool add_values(const Field *f, const NumberType *type, Tensor *t, uint64_t *done) {
  const size_t wide = f->number == 4 ? 4 : f->number == 10 ? 8 : 0, bytes = number_bytes(type);
  const uint64_t per = type->bits < 8 ? 8 / type->bits : 1;
  Reader r = f->body;
  uint64_t v;
  for (bool single = false; next_value(&r, f, wide, &v, &single);) {
    if (*done == t->count) return false;
    if (per == 1) __builtin_memcpy(t->data + *done * bytes, &v, bytes), ++*done;
    for (uint64_t i = 0; per > 1 && i < per && *done < t->count; i++)
      t->data[(*done)++] = unpack(type, (uint8_t)v, i);
  }
  return !r.bad;
}

static bool add_raw(const Reader *raw, const NumberType *type, Tensor *t) {
  const size_t size = (size_t)(raw->end - raw->at), bytes = number_bytes(type);
  const uint64_t need = type->bits < 8 ? (t->count * type->bits + 7) / 8 : t->count * bytes;
  if (size != need) return false;
  if (type->bits >= 8) {
    if (size) __builtin_memcpy(t->data, raw->at, size);
    return true;
  }
  for (uint64_t i = 0; i < t->count; i++) t->data[i] = unpack(type, raw->at[i * type->bits / 8], i);
  return true;
}

bool pb_parse(Program *p, const char *path, Bytes file, Tensor *t) {
  const Reader all = {file.data, file.data + file.size, false};
  Reader r = all;
  Field f;
  bool ok = true;
  t->rank = 0;
  while (ok && next_field(&r, &f)) {
    if (f.number == 2) t->dtype = (int32_t)f.value;
    if (f.number != 1) continue;
    Reader dims = f.body;
    uint64_t v;
    for (bool single = false; ok && next_value(&dims, &f, 0, &v, &single);) {
      ok = t->rank < MAX_RANK && (int64_t)v >= 0;
      if (ok) t->dims[t->rank++] = (int64_t)v;
    }
    ok = ok && !dims.bad;
  }
  const NumberType *type = number_type(t->dtype);
  if (!ok || r.bad || !type) return program_error(p, "%s: not a TensorProto", path);
  if (!tensor_alloc(p, t, path)) return false;
  uint64_t done = 0;
  for (r = all; ok && next_field(&r, &f);) {
    if (f.number == 9 && type->kind != NK_TEXT)
      ok = add_raw(&f.body, type, t), done = t->count;
    else if (f.number == 6 && type->kind == NK_TEXT)
      ok = text_add(t, done++, f.body.at, (size_t)(f.body.end - f.body.at));
    else if (f.number == 4 || f.number == 5 || f.number == 7 || f.number == 10 || f.number == 11)
      ok = add_values(&f, type, t, &done);
  }
  if (!ok || done != t->count)
    return program_error(p, "%s: the tensor's data do not fit its shape", path);
  return true;
}

static char *put_varint(char *out, uint64_t v) {
  for (; v >= 0x80; v >>= 7) *out++ = (char)(v | 0x80);
  *out++ = (char)v;
  return out;
}

char *pb_strings(const Tensor *t, uint64_t *bytes) {
  enum { KEY_AND_LENGTH = 11 };
  uint64_t most = 64;
  for (uint64_t i = 0; i < t->count; i++) most += text_length(texts_of(t)[i]) + KEY_AND_LENGTH;
  char *const out = sys_alloc((size_t)most), *s = out;
  for (uint64_t i = 0; out && i < t->count; i++) {
    const size_t n = text_length(texts_of(t)[i]);
    s = put_varint((*s = 0x32, s + 1), n);
    __builtin_memcpy(s, texts_of(t)[i], n);
    s += n;
  }
  *bytes = out ? (uint64_t)(s - out) : 0;
  return out;
}

size_t pb_header(const Tensor *t, const char *name, uint64_t data_bytes, char *out) {
  char *s = out;
  for (int i = 0; i < t->rank; i++) s = put_varint((*s = 0x08, s + 1), (uint64_t)t->dims[i]);
  s = put_varint((*s = 0x10, s + 1), (uint64_t)t->dtype);
  size_t n = text_length(name);
  if (n > 512) n = 512;
  s = put_varint((*s = 0x42, s + 1), n);
  for (size_t i = 0; i < n; i++) *s++ = name[i];
  if (!is_text(t)) s = put_varint((*s = 0x4a, s + 1), data_bytes);
  return (size_t)(s - out);
}
