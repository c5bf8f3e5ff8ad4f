/* Reading the protobuf wire format safely; internal to frontend/. */
#pragma once
#include <protobuf-c/protobuf-c.h>
#include "ir/base/diag.h"

enum { WIRE_MAX_DEPTH = 100, WIRE_MAX_MESSAGES = 20000000 };

/* In the compacted message a raw_data payload of at least WIRE_SLICE bytes is replaced by one of
 * exactly WIRE_SLICE bytes that holds offset and length of the original (two little endian u64). */
enum { WIRE_SLICE = 16 };

/* Scans `data` as a message of type `desc` without recursion: depth, lengths, field types, UTF-8,
 * no groups, no field of single occurrence given twice. Then makes a copy in `a` from which unknown
 * fields, fields that the importer never reads and large raw_data are cut out. False: reported at
 * `loc`. */
bool wire_compact(Arena *a, Diag *d, const Loc *loc, const uint8_t *data, size_t size,
                  const ProtobufCMessageDescriptor *desc, uint8_t **out, size_t *out_size);

/* Compacts and decodes with every allocation taken from `a` and counted against `budget` bytes.
 * NULL: reported at `loc`. The result lives as long as `a`; it is never freed by itself. */
ProtobufCMessage *wire_decode(Arena *a, Diag *d, const Loc *loc, const uint8_t *data, size_t size,
                              const ProtobufCMessageDescriptor *desc, size_t budget);
