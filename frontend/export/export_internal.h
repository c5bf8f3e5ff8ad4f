/* State of one export; internal to frontend/export. */
#pragma once
#include "frontend/export/export.h"
#include "frontend/proto/strmap.h"
#include "onnx.pb-c.h"

enum { EXPORT_OPSET = 21 }; /* the least that is written: what others read today */

typedef struct ExportOpset {
  const char *domain;
  int version;
} ExportOpset;

typedef struct Export {
  Model *m;
  const ExportOptions *o;
  Arena *arena; /* of the messages */
  char **names; /* by value id; NULL: has none yet */
  StrMap taken; /* names of values in use, in all graphs */
  StrMap node_names;
  const Value **constants; /* by value id: constants that somebody reads */
  Vec(ExportOpset) opsets; /* the first is ai.onnx */
  bool external;           /* large constants go into the data file, */
  int64_t offset;          /* which has so many bytes by now */
} Export;

/* ---- export.c ---- */
Onnx__GraphProto *export_graph(Export *x, const Graph *g); /* NULL: reported */

/* ---- export_tensor.c ---- */
/* Name NULL: none. NULL: the data file cannot be written. */
Onnx__TensorProto *export_tensor(Export *x, const ConstData *c, char *name);

/* ---- export_opset.c ---- */
/* The oldest version of its domain, from EXPORT_OPSET on, in which n means what it means here. */
int export_form_version(const Node *n);
