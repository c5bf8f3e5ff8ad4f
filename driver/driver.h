/* The command line: the only place that sees all the other folders, that prints, and that exits. */
#pragma once
#include <setjmp.h>
#include "codegen/codegen.h"
#include "frontend/frontend.h"
#include "ir/base/clock.h"
#include "passes/choose/choice.h"

#define BURIN_VERSION "0.1.0"

enum {
  EXIT_OK = 0,
  EXIT_MODEL = 1,
  EXIT_USAGE = 2,
  EXIT_IO = 3,
  EXIT_OUTPUT = 4,
  EXIT_UNSUPPORTED = 5,
  EXIT_LIMIT = 6,
  EXIT_MISMATCH = 7,
  EXIT_INTERNAL = 70
};

typedef struct List { /* values of an option that may be given more than once */
  const char **v;     /* room for the whole command line */
  int n;
} List;

/* What stood on the command line; strings point into argv. Filled from driver/io/options.def. */
typedef struct Options {
  const char *verb;
  List files;
  const char *output, *emit, *target, *opt, *passes, *print_after, *ir_dir, *name, *weights,
      *max_memory;
  const char *external_dir, *threads, *jobs, *quantize, *calibrate, *precision, *report, *runs,
      *rtol, *atol, *strips;
  const char *train, *optimizer, *trainable, *accumulate;
  const char *labels, *seed, *winograd, *indices, *cache, *tune, *tuning, *tune_seconds,
      *calibration, *metric, *max_drop, *max_arena, *recompute, *sample_blocks, *step_part;
  const char *data, *validation, *epochs, *batch, *patience, *resume, *checkpoint, *curve, *log,
      *augment, *teacher, *state, *unlabelled, *repeat;
  const char *channels, *rounds, *importance, *objective, *sparsity, *nm, *only, *scope;
  List in_place, dims, bounds, shapes, consts, disabled, inputs, outputs, expects, gradients;
  bool print_plan, time_passes, no_winograd, no_sparse, freeze, progress, quiet, help, version,
      list_targets, list_ops, list_passes, json, interpret, profile, check_memory, info, keep,
      from_scratch;
  const char *title; /* of the model in messages, where its file is one of ours; NULL: its path */
  int argc;
  char **argv;
} Options;

/* ---- args.c: false: message printed, exit 2 ---- */
bool args_parse(int argc, char **argv, Options *o);
/* Which of n names; without a text *out stays as it is. */
bool args_choice(const char *option, const char *text, const char *const *names, int n, int *out);
bool args_number(const char *option, const char *text, int64_t lo, int64_t hi, int64_t *out);
bool args_size(const char *option, const char *text, size_t *out); /* 4G, 512M, 100K, bytes */
int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* EXIT_USAGE */
int help_print(const char *verb);
const char *closest(const char *word, const char *const *names, int n); /* NULL: nothing is near */

/* ---- session.c: one compilation: arena, diagnostics, and the way out when memory ends ---- */
typedef struct Session {
  const Options *o;
  Arena *arena;
  Diag *diag;
  jmp_buf out_of_memory;
  size_t wanted, memory_limit;
  Model *model;
  Module *module;
  Target native;
  GpuTarget gpus;
  const Target *target;
  int opt_level;
  const Tuning *tuning;   /* choices to take; from --tuning unless it is set */
  DecisionLog *decisions; /* where choices are noted, or NULL */
  const char *file;       /* the model, once session_load has it */
  const char *pass;       /* the one that runs, or failed */
  const char *ir_dir;     /* overrides --ir-dir */
  const char *passes;     /* overrides --passes */
  Outputs *outputs;       /* the files of this command, published by session_commit */
  double load_seconds, pass_seconds;
  bool show_progress, progress_shown;
} Session;
/* Runs `body` in a fresh session; prints diagnostics; exit status. */
typedef int (*SessionFn)(Session *s, void *user);
int session_run(const Options *o, SessionFn body, void *user);
/* Exit status of a body that failed: of its errors; without any, `inner`, of a session inside it; EXIT_OK: a
 * usage error was printed. */
int session_status(const Session *s, int inner);
bool session_load(Session *s, const char *path); /* frontend with --dim, --shape … */
bool session_gradients(Session *s);              /* --gradient, of a loaded model */
bool session_train(Session *s);                  /* train.c: --train, likewise */
bool session_has_data(Session *s);               /* a graph text may lack it; reported */
/* constants.c: PassCtx.run_constants; user is the session */
bool constants_run(void *user, const Module *m, const void *const *in, void *const *out);
/* Graph passes, lowering, loop passes; `needs`: what must hold at the end (PF_*). */
bool session_passes(Session *s, unsigned needs);
bool session_commit(Session *s); /* its outputs, unless the model changed meanwhile */
bool session_target(Session *s); /* --target */
bool session_tuning(Session *s, const char *path, Tuning **out); /* reads a tuning file */
/* The passes that leave ONNX operators: constants folded, no-ops gone, batch norms in weights. */
#define ONNX_PASSES "infer,dce,fold_constants,canonicalize,fold_batch_norm,fold_constants,cse,dce"
/* The same in front of which floats of 16 bits became f32, where --precision is given. */
const char *session_onnx_passes(const Session *s);
bool session_write_onnx(Session *s, const char *path); /* onnx.c; "-": the standard output */
/* reproducer.c: leaves a folder with IR and command when the error is a bug of ours. */
void session_reproduce(Session *s);
void progress_show(Session *s, const char *what, int k, int n);
void progress_clear(Session *s);

/* ---- tensor.c: tensors in files: .npy, .pb; text: name=@file, name=2x3xf32=1,2,… ---- */
typedef struct Tensor {
  DType dtype;
  int rank;
  int64_t dims[MAX_RANK];
  int64_t count;
  void *data; /* STR: const char ** */
} Tensor;
bool ends_with(const char *s, const char *end); /* of a file's name */
bool tensor_read(Session *s, const char *path, Tensor *t);
bool pb_read(Session *s, const char *path, Tensor *t); /* whatever its name */
/* name=@file or name=literal; *name is what stands before the first "=@" or "=". */
bool tensor_named(Session *s, const char *option, const char *text, const char **name, Tensor *t);
bool tensor_literal(Session *s, const char *text, Tensor *t);
double tensor_element(const Tensor *t, int64_t k);
/* The bytes of a .npy file; path is for messages. */
bool npy_parse(Session *s, const char *path, const char *data, size_t size, Tensor *t);
bool npy_write(FILE *f, const Tensor *t);
bool pb_write(FILE *f, const Tensor *t);

/* ---- format.c: tensors written to files, by the name's ending ---- */
typedef enum TensorFormat {
  FORMAT_RAW,
  FORMAT_NPY,
  FORMAT_PB,
  FORMAT_CSV,
  FORMAT_JSON,
  FORMAT_PNG, /* ",scale=X" may stand behind the name */
  FORMAT_OTHER
} TensorFormat;
TensorFormat format_of(const char *path);
bool format_check(const char *path); /* false: it is not written; usage error printed */
/* Among the session's outputs; NULL: reported */
OutFile *tensor_open(Session *s, const char *path);
bool tensor_write_to(Session *s, const char *path, OutFile *out, const Tensor *t);
bool tensor_write(Session *s, const char *path, const Tensor *t); /* both */

/* ---- image.c ---- */
bool is_jpeg(const char *path); /* by its first bytes */
/* NAME=@FILE; a JPEG becomes a PNG in memory. NULL: reported. */
const char *image_argument(Session *s, const char *arg);
/* inputs.c: all of --input, as a program reads them: an .npz as the items of a sequence (in the order
 * of their numbers, else of the file) in memory; where `pictures`, JPEGs as PNGs. False: reported. */
bool input_arguments(Session *s, bool pictures, List *out);
bool png_write(Session *s, const char *path, OutFile *out, const Tensor *t, double scale);
typedef struct Difference {
  int64_t wrong, first; /* elements outside the tolerance; the first of them */
  double max_abs, max_rel;
  double got, wanted; /* at first */
} Difference;
Difference tensor_compare(const Tensor *got, const Tensor *wanted, double rtol, double atol);

/* ---- child.c: programs we made ---- */
/* Exit status, 128+signal, -1: cannot start. name: what the program is told it is called, or
 * NULL. */
int child_run(const char *const *argv, const char *name, const char *stdout_path);
/* A file in memory: its descriptor's path, which outputs follow and children read, write and run.
 */
bool program_memory(Arena *a, int *fd, const char **path);

/* ---- memory.c: --max-memory while code is made ---- */
/* Between the two, running out of memory ends burin with exit 6. */
void memory_begin(Session *s);
void memory_end(void);
void memory_leave(void);   /* ends burin when between the two */
void memory_crashed(void); /* the same, when memory was what the crash came from; signal-safe */
void memory_text(char *out, size_t size, size_t limit); /* the message */

/* ---- signals.c: what is left when burin ends early ---- */
void signals_init(void);
void signals_stack(void); /* for handlers, on the thread that does the work */
/* Removes temporary files and exits; signal-safe. */
void signals_leave(const char *text, int status);
void signals_watch(Outputs *o); /* its temporary files are removed on signals; nests */
void signals_unwatch(void);
void signals_watch_child(int pid); /* it gets the signal too; 0: none */
/* The first SIGINT, SIGTERM or SIGHUP is noted in *to and does not end burin; NULL: as before. */
void signals_defer(volatile int *to);

/* ---- one file per verb: exit status ---- */
int list_operators(void); /* --list-ops */
/* Element types that the operator takes, as a text. */
const char *operator_types(Arena *a, const struct OpRow *r);
int verb_compile(const Options *o);
int verb_run(const Options *o);
int interpret_body(Session *s, void *user); /* interpret.c: run --interpret; a SessionFn */
int verb_bench(const Options *o);
int verb_inspect(const Options *o);
int verb_diff(const Options *o);
int verb_quantize(const Options *o); /* compile.c: --quantize=int8 --emit=onnx */
/* Compiles `model` to the program `out`, quietly. Exit status. */
int compile_program(const Options *o, const char *model, const char *opt_level, const char *out);
/* The same with choices, which are noted too, and a look at the result before it is forgotten. */
typedef struct Watch {
  const Tuning *tuning;
  DecisionLog *decisions;
  int (*done)(void *user, const Session *s); /* exit status */
  void *user;
} Watch;
int compile_watched(const Options *o, const char *model, const char *out, const Watch *w);
/* Adds a file to the session's outputs (NULL or "-": stdout). */
bool write_text(Session *s, const char *path, StrBuf *text);
int tune(const Options *o); /* tune.c: --tune */
/* plan.c: the choices as a table on stderr; bench --profile --print-plan. */
void decisions_print(const DecisionLog *log);
/* What each launch is estimated to take, beside its limit. */
void launches_print(const Module *m, const Target *t);
int bench_estimates(const Options *o);
/* The command of a compiled program under the target's emulator if it needs one, in argv from n on;
 * new n. */
int program_command(const Options *o, const char *program, const char **argv, int n);
/* Room in argv for all that `o` hands on to a program. */
int program_arguments(const Options *o);
bool is_program(const char *path);
bool is_regular(const char *path);
