/* Constants as TensorProto: raw data, packed where elements have less than 8 bits; large ones beside
 * the model where one message cannot hold all. */
#include <string.h>
#include "frontend/export/export_internal.h"

enum { BESIDE = 1024 }; /* least bytes of a constant in the data file */
static const int64_t MOST_INSIDE = (int64_t)2000 << 20; /* a message holds 2 GiB */

static int64_t packed_bytes(const ConstData *c) {
  const int bits = dtype_rows[c->dtype].bits;
  return bits < 8 ? (c->count * bits + 7) / 8 : c->count * dtype_bytes(c->dtype);
}

static void *pack_bits(Arena *a, const ConstData *c) {
  const int bits = dtype_rows[c->dtype].bits, per = 8 / bits;
  const uint8_t *in = c->data;
  uint8_t *out = arena_alloc(a, (size_t)packed_bytes(c) + 1);
  for (int64_t k = 0; k < c->count; k++)
    out[k / per] |= (uint8_t)((in[k] & ((1 << bits) - 1)) << (k % per * bits));
  return out;
}

bool export_needs_data_file(const Model *m) {
  int64_t sum = 0;
  for (int k = 0; k < m->consts.n; k++)
    if (m->consts.data[k]->dtype != DT_STR) sum += packed_bytes(m->consts.data[k]);
  return sum > MOST_INSIDE;
}

static void fill_strings(Export *x, const ConstData *c, Onnx__TensorProto *t) {
  const char *const *texts = c->data;
  t->n_string_data = (size_t)c->count;
  t->string_data = ARENA_ARRAY(x->arena, ProtobufCBinaryData, c->count);
  for (int64_t k = 0; k < c->count; k++)
    t->string_data[k] =
        (ProtobufCBinaryData){.len = strlen(texts[k]), .data = (uint8_t *)(uintptr_t)texts[k]};
}

static Onnx__StringStringEntryProto *entry(Export *x, const char *key, const char *value) {
  Onnx__StringStringEntryProto *e = ARENA_NEW(x->arena, Onnx__StringStringEntryProto);
  onnx__string_string_entry_proto__init(e);
  e->key = (char *)(uintptr_t)key;
  e->value = (char *)(uintptr_t)value;
  return e;
}

/* At a multiple of 64, as memory that is mapped likes it. */
static bool write_beside(Export *x, Onnx__TensorProto *t, const void *data, int64_t bytes) {
  static const char zeros[64];
  const int64_t gap = -x->offset & 63;
  const ExportSink *s = &x->o->data;
  if (!s->write(s->user, zeros, (size_t)gap) || !s->write(s->user, data, (size_t)bytes))
    return false;
  x->offset += gap;
  t->has_data_location = true;
  t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
  t->n_external_data = 3;
  t->external_data = ARENA_ARRAY(x->arena, Onnx__StringStringEntryProto *, 3);
  t->external_data[0] = entry(x, "location", x->o->location);
  t->external_data[1] = entry(x, "offset", arena_printf(x->arena, "%lld", (long long)x->offset));
  t->external_data[2] = entry(x, "length", arena_printf(x->arena, "%lld", (long long)bytes));
  x->offset += bytes;
  return true;
}

Onnx__TensorProto *export_tensor(Export *x, const ConstData *c, char *name) {
  static uint8_t nothing[1];
  Onnx__TensorProto *t = ARENA_NEW(x->arena, Onnx__TensorProto);
  onnx__tensor_proto__init(t);
  t->name = name;
  t->n_dims = (size_t)c->rank;
  t->dims = (int64_t *)(uintptr_t)c->dims;
  t->has_data_type = true;
  t->data_type = dtype_rows[c->dtype].onnx;
  if (c->dtype == DT_STR) return fill_strings(x, c, t), t;
  const int64_t bytes = packed_bytes(c);
  const void *data = dtype_rows[c->dtype].bits < 8 ? pack_bits(x->arena, c) : c->data;
  if (x->external && bytes >= BESIDE) return write_beside(x, t, data, bytes) ? t : NULL;
  t->has_raw_data = true;
  t->raw_data.len = (size_t)bytes;
  t->raw_data.data = bytes ? (uint8_t *)(uintptr_t)data : nothing;
  return t;
}
