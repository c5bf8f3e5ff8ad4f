/* Writes the session's graph as an ONNX file among its outputs. */
#include <string.h>
#include "driver/driver.h"
#include "frontend/export/export.h"

typedef struct OnnxFile {
  Session *s;
  OutFile *file;
} OnnxFile;

static bool write_bytes(void *user, const void *data, size_t bytes) {
  const OnnxFile *f = user;
  return outputs_write(f->s->outputs, f->file, data, bytes);
}

bool session_write_onnx(Session *s, const char *path) {
  OnnxFile model = {.s = s}, data = {.s = s};
  const char *beside = arena_printf(s->arena, "%s.data", path), *slash = strrchr(beside, '/');
  if (export_needs_data_file(s->model)) {
    if (strcmp(path, "-") == 0)
      return usage_error("the weights of this model need a file of their own: -o NAME"), false;
    if (!(data.file = outputs_add(s->outputs, beside, false))) return false;
  }
  if (!(model.file = outputs_add(s->outputs, path, false))) return false;
  const ExportOptions o = {.producer = "burin",
                           .version = BURIN_VERSION,
                           .model = {write_bytes, &model},
                           .data = {write_bytes, &data},
                           .location = slash ? slash + 1 : beside};
  return export_model(s->model, &o);
}
