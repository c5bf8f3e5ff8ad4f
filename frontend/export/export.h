/* Graph IR → ONNX: what --emit=onnx and `burin quantize` write. */
#pragma once
#include "ir/graph/graph.h"

/* Where the bytes go, in order; false: they cannot be written (reported by whoever writes). */
typedef struct ExportSink {
  bool (*write)(void *user, const void *data, size_t bytes);
  void *user;
} ExportSink;

typedef struct ExportOptions {
  const char *producer; /* producer_version is `version` */
  const char *version;
  ExportSink model;
  /* Where data of large constants go when they do not fit into one protobuf message (2 GiB);
   * `location` is the name of that file as the model will refer to it. */
  ExportSink data;
  const char *location;
} ExportOptions;

/* Gives each node of the main graph a name of its own that it has in the file, too: node_title's. */
void export_name_nodes(Model *m);
/* Writes the main graph with its regions and constants, by the oldest opset that has all of its
 * operators in the form they have here, from 21 on. Operators of burin's own (domain `burin`) have
 * no place in such a file. False: reported. */
bool export_model(Model *m, const ExportOptions *o);
/* Do the constants need a file of their own? */
bool export_needs_data_file(const Model *m);
