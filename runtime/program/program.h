/* The program around a compiled model: shared declarations. Freestanding, no globals: the state is
 * `Program`. Memory is mapped before the first run and given back by the end of the process. */
#pragma once
#include <stdarg.h>
#include <stdbool.h>

#include "runtime/abi.h"
#include "runtime/core/outfile.h"
#include "runtime/core/sys.h"

enum { MAX_RANK = 16 };
enum {
  EXIT_MODEL = 1,
  EXIT_USAGE = 2,
  EXIT_FILE = 3,
  EXIT_DEVICE = 3, /* likewise nothing that the model can help */
  EXIT_OUTPUT = 4,
  EXIT_MISMATCH = 7
};

/* ---- text.c ---- */
typedef struct Out {
  int fd;
  long error; /* of the first write that failed */
  uint32_t used;
  char buffer[2048];
} Out;
/* Conversions: %s, %d (int64_t), %u (uint64_t), %g (double, 6 digits), %%; with '-' and a width. */
void out_format(Out *o, const char *format, ...);
void out_format_list(Out *o, const char *format, va_list args);
void out_text(Out *o, const char *s, size_t n);
void out_flush(Out *o);
size_t text_length(const char *s);
bool text_equal(const char *a, const char *b);
bool text_starts(const char *s, const char *prefix, const char **rest);
bool text_ends(const char *s, const char *suffix);
/* At *s; on success *s stands behind the number. Doubles may be fractions: 1/255. */
bool text_int(const char **s, int64_t *value);
bool text_double(const char **s, double *value);

/* ---- numbers.c ---- */
typedef enum NumberKind {
  NK_NONE,
  NK_TEXT,
  NK_UINT,
  NK_SINT,
  NK_BOOL,
  NK_FLOAT,
  NK_IEEE
} NumberKind;
typedef struct NumberType { /* one row per element type; sub-byte types take one byte in memory */
  const char *name, *npy;
  uint8_t kind, bits, exponent, mantissa; /* NK_FLOAT: of the small float */
  int8_t bias;                            /* NK_FLOAT */
} NumberType;
const NumberType *number_type(int32_t dtype); /* TensorProto.DataType; NULL: not a number */
size_t number_bytes(const NumberType *t);
double number_load(const NumberType *t, const void *data, uint64_t i);
void number_store(const NumberType *t, void *data, uint64_t i, double value);
/* A number of a list, moving *s behind it; integers exactly. False: it is none, or not of the type. */
bool number_parse(const NumberType *t, void *data, uint64_t i, const char **s);

/* ---- tensors and files ---- */
typedef struct Tensor {
  int32_t dtype, rank;
  int64_t dims[MAX_RANK];
  uint64_t count; /* elements */
  char *data;
} Tensor;

typedef struct Bytes {
  const uint8_t *data;
  size_t size;
} Bytes;

typedef struct ImageOptions {
  double scale, mean[4], std[4];
  int layout; /* 0: from the input's shape, 'c': NCHW, 'h': NHWC */
  bool bgr, resize;
} ImageOptions;

typedef struct Image { /* 8 bits, rows without padding */
  uint32_t width, height, channels;
  const uint8_t *pixels;
} Image;

typedef struct Argument {   /* NAME=VALUE of --input, --output, --expect */
  const char *text, *value; /* value: behind '=', with its '@' */
  int32_t index;            /* of the tensor named */
  int64_t item;             /* NAME/ITEM of a list; else 0 */
  int format;               /* of an output: output.c */
} Argument;

typedef struct Program {
  const BurinModel *model;
  const char *self;
  Out out, err;
  /* options */
  Argument *inputs, *outputs, *expected;
  int n_inputs, n_outputs, n_expected;
  bool info, help, bench, profile, quiet, check_memory;
  int64_t bench_runs, threads, seed;
  int32_t gpu_order;
  double rtol, atol;
  const char *labels; /* the file, and what is in it */
  Bytes label_text;
  /* run */
  Tensor *in, *result;
  const void **in_data; /* of invoke */
  void **out_data;
  OutFile *files;           /* of outputs */
  uint64_t signals;         /* those that were held back before the outputs were opened */
  const char *weights_path; /* of the file that was mapped, or NULL */
  int64_t *dims;            /* values of the symbols; -1: not known yet */
  void *arena;
  BurinOptions options;
  BurinHeap heap;
  BurinFailure failure;
} Program;

/* Prints "PROGRAM: error: …" and returns false. */
void program_report(Program *p, const char *format, ...);
#define program_error(...) (program_report(__VA_ARGS__), false)
/* Allocates data for t->dims; false (reported) when it is too large. */
bool tensor_alloc(Program *p, Tensor *t, const char *name);
/* ---- texts.c: tensors of strings ---- */
bool is_text(const Tensor *t);
const char **texts_of(const Tensor *t);      /* its elements */
void texts_clear(Tensor *t);                 /* all "" */
bool texts_listed(Tensor *t, const char *s); /* from "a,b,c"; false: another number of them */
/* Element i from n bytes, copied. False: there is no such element, or a 0 among the bytes. */
bool text_add(Tensor *t, uint64_t i, const void *bytes, size_t n);
void texts_show(Program *p, const Tensor *t);
bool texts_compare(Program *p, const char *name, const Tensor *got, const Tensor *want);
/* ---- lists.c: sequences and optionals ---- */
const BurinListInfo *list_info(const Program *p, int32_t k, bool output); /* NULL: a tensor */
bool list_bind(Program *p, int32_t k); /* input k, from all its arguments */
/* What --output or --expect is about; false: there is no such item, reported. */
bool result_tensor(Program *p, const Argument *a, Tensor *t);
void list_show(Program *p, int k);
uint64_t list_hash(const Tensor *result);    /* of all that the list holds */
void *heap_grow(void *user, uint64_t bytes); /* BurinHeap.grow */
/* ---- inplace.c: inputs in the memory of outputs, the state of a training step ---- */
const BurinInPlace *in_place(const Program *p, int32_t k,
                             bool output);                      /* NULL: in its own memory */
const BurinStateInfo *input_state(const Program *p, int32_t k); /* NULL: it is none */
bool in_place_fill(Program *p);                       /* puts all such inputs where they lie */
void in_place_pack(const BurinInPlace *x, Tensor *t); /* a result, from strides of its room */

/* Whole file. */
bool file_read(Program *p, const char *path, Bytes *out);
bool file_read_tensor(Program *p, const char *path, const BurinTensorInfo *info, Tensor *out);
void file_name(const char *arg, char *out, size_t size); /* what stands before a ',' */
/* ---- output.c ---- */
bool output_formats_known(Program *p); /* else reported */
bool outputs_open(Program *p);  /* before the run; nothing is seen of them until they are written */
bool outputs_write(Program *p); /* all or none */
void outputs_abort(Program *p);
/* npy.c, pb.c: shape and data of a file's contents; data may lie in the file. */
bool npy_parse(Program *p, const char *path, Bytes file, const BurinTensorInfo *info, Tensor *out);
size_t npy_header(const Tensor *t, char *out); /* ≤ 1024 bytes */
bool pb_parse(Program *p, const char *path, Bytes file, Tensor *out);
/* ---- npz.c: arrays in one file, in the order of their numbers, else of the file ---- */
typedef struct NpzEntry {
  Bytes name, packed; /* name: without .npy */
  int64_t number;     /* that the name ends with */
  uint32_t size, crc; /* of the .npy file */
  bool deflated;
} NpzEntry;
typedef struct Npz {
  const char *path;
  NpzEntry *entries;
  int64_t n;
} Npz;
bool npz_open(Program *p, const char *path, Bytes file, Npz *out);
bool npz_item(Program *p, const Npz *z, int64_t k, const BurinTensorInfo *info, Tensor *out);
/* ≤ 1024 bytes */
size_t pb_header(const Tensor *t, const char *name, uint64_t data_bytes, char *out);
/* Strings as the fields behind the header; NULL: no memory. */
char *pb_strings(const Tensor *t, uint64_t *bytes);
/* image.c; image_read: a picture that runtime/image decodes, or the error that it does not */
bool image_read(Program *p, const char *path, Bytes file, Image *out);
bool image_to_tensor(Program *p, const char *path, const Image *image, const char *options,
                     const BurinTensorInfo *info, Tensor *out);

/* ---- pool.c ---- */
typedef struct Pool Pool;
Pool *pool_start(int threads);          /* NULL: no memory */
int32_t pool_threads(const Pool *pool); /* how many could be started, the caller's included */
void pool_parallel_ranges(void *pool, int64_t n, int64_t grain, int32_t slots, BurinRange range,
                          void *arg);

/* ---- options.c, show.c, run.c ---- */
bool options_parse(Program *p, int argc, char **argv);
void show_help(Program *p);
void show_info(Program *p);
void show_result(Program *p, int k);
void show_tensor(Program *p, const Tensor *t); /* from the ':' on */
void show_profile(Program *p, int64_t runs);
const BurinDefault *input_default(const Program *p, int32_t k); /* NULL: it must be given */
int run_model(Program *p); /* runs, benchmarks, compares, writes: the exit status */
