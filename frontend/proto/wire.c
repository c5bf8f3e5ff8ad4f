/* Iterative scan of the protobuf wire format, made before protobuf-c sees a byte: protobuf-c has no
 * depth limit, multiplies memory and copies every bytes field. The structure comes from
 * protobuf-c's descriptors. The scan runs twice: once to check and to measure, once to write the
 * compacted message. Lengths are patched in place with as many varint bytes as the original had, so
 * that nothing has to move. */
#include "frontend/proto/wire.h"
#include <string.h>

typedef struct Frame {
  const ProtobufCMessageDescriptor *desc;
  size_t end;                  /* input offset behind the message */
  size_t header, header_bytes; /* output offset and size of its length */
  bool keep;                   /* copied to the output */
  uint64_t seen;               /* single message fields that have occurred, by field number < 64 */
} Frame;

typedef struct Scan {
  Diag *diag;
  const Loc *loc;
  const uint8_t *data;
  size_t size, pos;
  uint8_t *out; /* NULL: measuring */
  size_t n_out;
  Frame frames[WIRE_MAX_DEPTH + 1];
  int depth;
  int64_t messages;
} Scan;

static bool scan_error(Scan *s, ErrCode code, size_t at, const char *what) {
  return diag_error(s->diag, s->loc, code, "%s at byte %zu of %zu", what, at, s->size);
}

static const char *short_name(const ProtobufCMessageDescriptor *d) { return d->short_name; }

static bool field_error(Scan *s, size_t at, const ProtobufCFieldDescriptor *f, const char *what) {
  return diag_error(s->diag, s->loc, ERR_WIRE, "%s.%s %s at byte %zu of %zu",
                    short_name(s->frames[s->depth].desc), f->name, what, at, s->size);
}

/* Reads a varint of at most `max` bytes below `end`. */
static bool read_varint(Scan *s, size_t end, int max, uint64_t *v) {
  uint64_t r = 0;
  for (int k = 0; k < max && s->pos < end; k++) {
    const uint8_t byte = s->data[s->pos++];
    if (k == 9 && byte > 1) return false;
    r |= (uint64_t)(byte & 0x7f) << (7 * k);
    if (byte < 0x80) {
      *v = r;
      return true;
    }
  }
  return false;
}

static void emit(Scan *s, const void *data, size_t n) {
  if (s->out && n) memcpy(s->out + s->n_out, data, n);
  s->n_out += n;
}

/* A varint in exactly n bytes. */
static void put_varint(uint8_t *p, uint64_t v, size_t n) {
  for (size_t k = 0; k < n; k++, v >>= 7) p[k] = (uint8_t)((v & 0x7f) | (k + 1 < n ? 0x80 : 0));
}

static bool utf8_ok(const uint8_t *p, size_t n) {
  for (size_t i = 0; i < n;) {
    const uint8_t c = p[i];
    if (c == 0) return false;
    const int more = c < 0x80                ? 0
                     : c >= 0xc2 && c < 0xe0 ? 1
                     : (c & 0xf0) == 0xe0    ? 2
                     : c >= 0xf0 && c < 0xf5 ? 3
                                             : -1;
    if (more < 0 || n - i <= (size_t)more) return false;
    for (int k = 1; k <= more; k++)
      if ((p[i + k] & 0xc0) != 0x80) return false;
    if (c == 0xe0 && p[i + 1] < 0xa0) return false;
    if (c == 0xed && p[i + 1] > 0x9f) return false;
    if (c == 0xf0 && p[i + 1] < 0x90) return false;
    if (c == 0xf4 && p[i + 1] > 0x8f) return false;
    i += 1 + (size_t)more;
  }
  return true;
}

static int wire_type_of(ProtobufCType t) {
  switch (t) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT: return 5;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE: return 1;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE: return 2;
    default: return 0;
  }
}

/* What the importer never reads is checked but not decoded. */
static bool is_ignored(const ProtobufCFieldDescriptor *f) {
  static const char *const names[] = {"metadata_props", "value_info",    "quantization_annotation",
                                      "training_info",  "configuration", "device_configurations",
                                      "denotation",     "model_version"};
  for (size_t k = 0; k < sizeof names / sizeof *names; k++)
    if (strcmp(f->name, names[k]) == 0) return true;
  return false;
}

static bool is_packable(const ProtobufCFieldDescriptor *f) {
  return f->label == PROTOBUF_C_LABEL_REPEATED && wire_type_of(f->type) != 2;
}

/* The elements of a packed field fill its length exactly. */
static bool check_packed(Scan *s, const ProtobufCFieldDescriptor *f, size_t at, size_t len) {
  const int wire = wire_type_of(f->type);
  if (wire == 5)
    return len % 4 == 0 || field_error(s, at, f, "has a length that is no multiple of 4");
  if (wire == 1)
    return len % 8 == 0 || field_error(s, at, f, "has a length that is no multiple of 8");
  const size_t end = s->pos + len, start = s->pos;
  uint64_t v;
  while (s->pos < end)
    if (!read_varint(s, end, 10, &v)) return field_error(s, at, f, "holds an invalid number");
  s->pos = start;
  return true;
}

static bool open_message(Scan *s, const ProtobufCFieldDescriptor *f, size_t tag_at, size_t len_at,
                         size_t len, bool keep) {
  Frame *top = &s->frames[s->depth];
  if (f->label != PROTOBUF_C_LABEL_REPEATED && f->id < 64) {
    if (top->seen >> f->id & 1) return field_error(s, tag_at, f, "is given twice");
    top->seen |= (uint64_t)1 << f->id;
  }
  if (s->depth == WIRE_MAX_DEPTH)
    return diag_error(s->diag, s->loc, ERR_LIMIT, "messages are nested deeper than %d at byte %zu",
                      WIRE_MAX_DEPTH, tag_at);
  if (++s->messages > WIRE_MAX_MESSAGES)
    return diag_error(s->diag, s->loc, ERR_LIMIT, "more than %d messages", WIRE_MAX_MESSAGES);
  if (keep) emit(s, s->data + tag_at, len_at - tag_at);
  Frame *child = &s->frames[++s->depth];
  *child = (Frame){.desc = f->descriptor,
                   .end = s->pos + len,
                   .header = s->n_out,
                   .header_bytes = s->pos - len_at,
                   .keep = keep};
  if (keep) emit(s, s->data + len_at, child->header_bytes);
  return true;
}

static void close_message(Scan *s) {
  const Frame *f = &s->frames[s->depth--];
  if (f->keep && s->out)
    put_varint(s->out + f->header, s->n_out - f->header - f->header_bytes, f->header_bytes);
}

static bool is_raw_data(const Scan *s, const ProtobufCFieldDescriptor *f) {
  return f->type == PROTOBUF_C_TYPE_BYTES && strcmp(f->name, "raw_data") == 0 &&
         strcmp(short_name(s->frames[s->depth].desc), "TensorProto") == 0;
}

/* A payload becomes (offset, length); its varint stays as long as it was. */
static void cut_payload(Scan *s, size_t tag_at, size_t len_at, size_t len) {
  uint8_t header[10], slice[WIRE_SLICE];
  const uint64_t where[2] = {s->pos, len};
  memcpy(slice, where, sizeof slice);
  put_varint(header, WIRE_SLICE, s->pos - len_at);
  emit(s, s->data + tag_at, len_at - tag_at);
  emit(s, header, s->pos - len_at);
  emit(s, slice, sizeof slice);
}

static bool scan_delimited(Scan *s, const ProtobufCFieldDescriptor *f, size_t tag_at) {
  const Frame *top = &s->frames[s->depth];
  const size_t len_at = s->pos;
  uint64_t len;
  if (!read_varint(s, top->end, 5, &len)) return scan_error(s, ERR_WIRE, len_at, "invalid length");
  if (len > top->end - s->pos) {
    if (f) return field_error(s, tag_at, f, "is longer than the message around it");
    return scan_error(s, ERR_WIRE, tag_at, "field is longer than the message around it");
  }
  if (f && wire_type_of(f->type) != 2 && !is_packable(f))
    return field_error(s, tag_at, f, "has the wrong wire type");
  const bool keep = top->keep && f && !is_ignored(f);
  if (f && f->type == PROTOBUF_C_TYPE_MESSAGE)
    return open_message(s, f, tag_at, len_at, (size_t)len, keep);
  if (f && wire_type_of(f->type) != 2 && !check_packed(s, f, tag_at, (size_t)len)) return false;
  if (keep && f->type == PROTOBUF_C_TYPE_STRING && strcmp(f->name, "doc_string") != 0 &&
      !utf8_ok(s->data + s->pos, (size_t)len))
    return field_error(s, tag_at, f, "is not UTF-8 text");
  if (keep && len >= WIRE_SLICE && is_raw_data(s, f))
    cut_payload(s, tag_at, len_at, (size_t)len);
  else if (keep)
    emit(s, s->data + tag_at, s->pos - tag_at + (size_t)len);
  s->pos += (size_t)len;
  return true;
}

static bool scan_scalar(Scan *s, const ProtobufCFieldDescriptor *f, size_t tag_at, int wire) {
  const Frame *top = &s->frames[s->depth];
  uint64_t v;
  const size_t bytes = wire == 1 ? 8 : 4;
  if (wire == 0 ? !read_varint(s, top->end, 10, &v) : top->end - s->pos < bytes)
    return scan_error(s, ERR_WIRE, tag_at, wire == 0 ? "invalid number" : "truncated number");
  if (wire != 0) s->pos += bytes;
  if (f && wire_type_of(f->type) != wire)
    return field_error(s, tag_at, f, "has the wrong wire type");
  if (f && top->keep && !is_ignored(f)) emit(s, s->data + tag_at, s->pos - tag_at);
  return true;
}

static bool scan_field(Scan *s) {
  const Frame *top = &s->frames[s->depth];
  const size_t tag_at = s->pos;
  uint64_t tag;
  if (!read_varint(s, top->end, 5, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
    return scan_error(s, ERR_WIRE, tag_at, "invalid field tag");
  const int wire = (int)(tag & 7);
  const ProtobufCFieldDescriptor *f =
      protobuf_c_message_descriptor_get_field(top->desc, (unsigned)(tag >> 3));
  if (wire == 2) return scan_delimited(s, f, tag_at);
  if (wire == 0 || wire == 1 || wire == 5) return scan_scalar(s, f, tag_at, wire);
  return scan_error(s, ERR_WIRE, tag_at,
                    wire < 5 ? "group, which ONNX never uses," : "invalid wire type");
}

static bool scan(Scan *s, const ProtobufCMessageDescriptor *desc) {
  s->frames[0] = (Frame){.desc = desc, .end = s->size, .keep = true};
  for (;;) {
    while (s->depth > 0 && s->pos == s->frames[s->depth].end) close_message(s);
    if (s->depth == 0 && s->pos == s->size) return true;
    if (!scan_field(s)) return false;
  }
}

bool wire_compact(Arena *a, Diag *d, const Loc *loc, const uint8_t *data, size_t size,
                  const ProtobufCMessageDescriptor *desc, uint8_t **out, size_t *out_size) {
  Scan s = {.diag = d, .loc = loc, .data = data, .size = size};
  if (!scan(&s, desc)) return false;
  *out_size = s.n_out;
  *out = arena_alloc(a, s.n_out + 1);
  Scan w = {.diag = d, .loc = loc, .data = data, .size = size, .out = *out};
  return scan(&w, desc);
}

/* ---- counted allocator ---- */
typedef struct Budget {
  Arena *arena;
  size_t left;
  bool exceeded;
} Budget;

static void *budget_alloc(void *user, size_t n) {
  Budget *b = user;
  if (n > b->left || n > SIZE_MAX / 2) {
    b->exceeded = true;
    return NULL;
  }
  b->left -= n;
  return arena_alloc(b->arena, n ? n : 1);
}

static void budget_free(void *user, void *p) {
  (void)user; /* the arena dies as a whole */
  (void)p;
}

ProtobufCMessage *wire_decode(Arena *a, Diag *d, const Loc *loc, const uint8_t *data, size_t size,
                              const ProtobufCMessageDescriptor *desc, size_t budget) {
  uint8_t *compact;
  size_t n;
  if (!wire_compact(a, d, loc, data, size, desc, &compact, &n)) return NULL;
  Budget b = {.arena = a, .left = budget};
  ProtobufCAllocator alloc = {.alloc = budget_alloc, .free = budget_free, .allocator_data = &b};
  ProtobufCMessage *m = protobuf_c_message_unpack(desc, &alloc, n, compact);
  if (m) return m;
  if (b.exceeded)
    diag_error(d, loc, ERR_LIMIT, "decoding needs more than the budget of %zu MiB (--max-memory)",
               budget >> 20);
  else
    diag_error(d, loc, ERR_WIRE, "not a well-formed %s message", desc->short_name);
  return NULL;
}
