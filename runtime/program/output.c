/* Outputs in files: npy, TensorProto or raw bytes, by the name's ending. All are opened before the
 * model runs, so that what cannot be written is said at once, and published together at the end. */
#include "program.h"
#include "runtime/core/outfile.h"

static bool file_error(Program *p, const char *path, long error) {
  const char *reason = outfile_reason(error);
  if (reason) return program_error(p, "cannot write %s: %s", path, reason);
  return program_error(p, "cannot write %s: system error %d", path, (int64_t)-error);
}

static const char *argument_path(const Argument *a) { return a->value + (a->value[0] == '@'); }

/* ---- formats ---- */
typedef enum Format { FORMAT_RAW, FORMAT_NPY, FORMAT_PB, FORMAT_OTHER } Format;

static Format format_of(const char *path) {
  static const char *const raw[] = {"raw", "bin", "dat", "out"};
  const char *end = NULL;
  for (const char *s = path; *s; s++) end = *s == '/' ? NULL : *s == '.' ? s + 1 : end;
  if (!end || text_starts(path, "/dev/", &path)) return FORMAT_RAW;
  if (text_equal(end, "npy")) return FORMAT_NPY;
  if (text_equal(end, "pb")) return FORMAT_PB;
  for (size_t i = 0; i < sizeof raw / sizeof *raw; i++)
    if (text_equal(end, raw[i])) return FORMAT_RAW;
  for (int32_t t = 0; t < 32; t++) /* .f32 and so on */
    if (number_type(t) && text_equal(end, number_type(t)->name)) return FORMAT_RAW;
  return FORMAT_OTHER;
}

/* A descriptor's path has no ending; the format may stand behind it: /proc/self/fd/9,pb. */
static Format descriptor_format(char *path) {
  const char *rest;
  if (!text_starts(path, "/proc/self/fd/", &rest)) return format_of(path);
  while (*rest >= '0' && *rest <= '9') rest++;
  char *const comma = path + (rest - path);
  if (*comma != ',') return FORMAT_RAW;
  *comma = 0;
  return text_equal(comma + 1, "npy")   ? FORMAT_NPY
         : text_equal(comma + 1, "pb")  ? FORMAT_PB
         : text_equal(comma + 1, "raw") ? FORMAT_RAW
                                        : FORMAT_OTHER;
}

bool output_formats_known(Program *p) {
  for (int i = 0; i < p->n_outputs; i++) {
    Argument *a = &p->outputs[i];
    a->format = descriptor_format((char *)argument_path(a));
    if (a->format == FORMAT_OTHER)
      return program_error(p, "%s: this program writes .npy, .pb and raw bytes (.raw, .bin) only",
                           argument_path(a));
  }
  return true;
}

/* ---- opening ---- */
/* Each output takes a descriptor, and systems begin with 1024. */
static void raise_file_limit(int files) {
  uint64_t limit[2]; /* struct rlimit64 */
  if (sys_call(NR_prlimit64, 0, 7, 0, (long)limit, 0, 0) < 0) return;
  if (limit[0] >= (uint64_t)files + 64 || limit[1] <= limit[0]) return;
  limit[0] = limit[1];
  sys_call(NR_prlimit64, 0, 7, (long)limit, 0, 0, 0);
}

/* Files that are read: no output may be one of them. */
static int input_files(Program *p, FileId *ids) {
  int n = 0;
  for (int i = 0; i < p->n_inputs; i++) {
    char path[OUTFILE_PATH];
    if (p->inputs[i].value[0] != '@') continue;
    file_name(p->inputs[i].value + 1, path, sizeof path);
    if (outfile_identify(path, &ids[n]) == 0) n++;
  }
  for (int i = 0; i < p->n_expected; i++)
    if (outfile_identify(argument_path(&p->expected[i]), &ids[n]) == 0) n++;
  if (p->labels && outfile_identify(p->labels, &ids[n]) == 0) n++;
  if (outfile_identify("/proc/self/exe", &ids[n]) == 0) n++;
  if (p->weights_path && outfile_identify(p->weights_path, &ids[n]) == 0) n++;
  return n;
}

static void abort_all(Program *p) {
  for (int i = 0; i < p->n_outputs; i++) outfile_abort(&p->files[i]);
}

bool outputs_open(Program *p) {
  if (!p->n_outputs) return true;
  FileId *ids = sys_alloc((size_t)(p->n_inputs + p->n_expected + 3) * sizeof *ids);
  p->files = sys_alloc((size_t)p->n_outputs * sizeof *p->files);
  if (!ids || !p->files) return program_error(p, "not enough memory");
  raise_file_limit(p->n_outputs);
  const int n = input_files(p, ids);
  p->signals = outfile_hold_signals();
  bool named = false;
  for (int i = 0; i < p->n_outputs; i++) {
    const char *path = argument_path(&p->outputs[i]);
    const long e = outfile_open(&p->files[i], path, false, ids, n);
    if (e < 0) return abort_all(p), file_error(p, path, e);
    for (int k = 0; k < i; k++)
      if (outfile_same(&p->files[k], &p->files[i]))
        return abort_all(p), program_error(p, "%s: two outputs go there", path);
    named |= p->files[i].named;
  }
  if (!named) outfile_restore_signals(p->signals); /* nothing to be removed */
  return true;
}

void outputs_abort(Program *p) {
  if (p->files) abort_all(p);
}

/* ---- writing ---- */
/* Sub-byte elements lie packed in TensorProto files. */
static uint64_t pack_bits(const NumberType *type, const Tensor *t, char *out) {
  const uint64_t bytes = (t->count * type->bits + 7) / 8;
  for (uint64_t i = 0; i < t->count; i++)
    out[i * type->bits / 8] |=
        (char)((t->data[i] & ((1 << type->bits) - 1)) << (i * type->bits % 8));
  return bytes;
}

static bool write_tensor(Program *p, int i) {
  char header[2048];
  const Argument *a = &p->outputs[i];
  Tensor result;
  if (!result_tensor(p, a, &result)) return false;
  const Tensor *t = &result;
  const NumberType *type = number_type(t->dtype);
  const Format format = (Format)a->format;
  uint64_t bytes = t->count * number_bytes(type);
  const char *data = t->data;
  size_t head = 0;
  if (format == FORMAT_NPY) head = npy_header(t, header);
  if (is_text(t)) {
    if (format != FORMAT_PB)
      return program_error(p, "%s: strings are written to .pb files only", argument_path(a));
    data = pb_strings(t, &bytes);
    if (!data) return program_error(p, "%s: not enough memory", argument_path(a));
  } else if (format == FORMAT_PB && type->bits < 8) {
    char *packed = sys_alloc((size_t)t->count + 64);
    if (!packed) return program_error(p, "%s: not enough memory", argument_path(a));
    bytes = pack_bits(type, t, packed);
    data = packed;
  }
  if (format == FORMAT_PB) head = pb_header(t, p->model->outputs[a->index].name, bytes, header);
  long e = outfile_write(&p->files[i], header, head);
  if (e == 0) e = outfile_write(&p->files[i], data, (size_t)bytes);
  return e == 0 || file_error(p, argument_path(a), e);
}

bool outputs_write(Program *p) {
  if (!p->n_outputs) return true;
  OutFile **files = sys_alloc((size_t)p->n_outputs * sizeof *files);
  if (!files) return program_error(p, "not enough memory");
  int failed;
  for (int i = 0; i < p->n_outputs; i++) {
    files[i] = &p->files[i];
    if (!write_tensor(p, i)) return false;
  }
  out_flush(&p->out); /* before what goes to the standard output too */
  const long e = outfile_commit(files, p->n_outputs, &failed);
  return e == 0 || file_error(p, argument_path(&p->outputs[failed]), e);
}
