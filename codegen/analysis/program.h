/* Inside codegen: the program as a whole. What is worked out once (symbols, weights, calls, what
 * the calls of a kernel have in common) and used by every backend, the header and the link. */
#pragma once
#include "codegen/analysis/weights.h"
#include "codegen/codegen.h"
#include "ir/op/op.h"

/* ---- checks.c ---- */
typedef struct Check { /* a row of BurinModel.checks */
  const char *text, *node;
  int status;
} Check;
typedef Vec(Check) CheckList;

typedef Vec(KernelFigures) FigureList;

/* ---- program.c ---- */
/* What all calls of a kernel have in common. */
typedef struct KernelFacts {
  bool *alias;   /* [n_params]: this parameter may overlap another one in some call */
  int *align;    /* [n_params]: bytes that the pointer is a multiple of in every call */
  bool *negates; /* [n_params]: constants, no byte of which is -128 (0x80) in any call */
} KernelFacts;

/* How the entry launches a kernel that a device runs; the backend fills it in with the kernel. */
typedef struct Launch {
  int unit;
  int threads[3];  /* of a block: x, y, z */
  int64_t shared;  /* bytes of a block */
  const int *syms; /* symbols that are parameters behind the buffers, in ascending order */
  int n_syms;
  const char *host; /* function that runs a block on this CPU; NULL: there is none */
} Launch;

/* What all units of a program make together: a constant of its own object. */
typedef struct Gathered {
  const char *symbol; /* NULL: nothing */
  const void *data;
  size_t bytes;
} Gathered;

typedef struct Program {
  const Module *m;
  const Target *t;
  const CodegenOptions *o;
  const char *name; /* C identifier */
  Arena *arena;
  int *symbols; /* ids of public symbols: the caller's, then run-time ones of output sizes */
  int n_symbols, n_caller;
  Vec(const Step *) calls; /* kernel and extern steps, in textual order: profile entries */
  KernelFacts *facts;      /* by position in m->kernels */
  WeightLayout weights;
  /* By position in m->kernels, then in device_calls; NULL: this CPU runs all */
  Launch *launches;
  Vec(const ExternRow *) device_calls; /* runtime functions that the device runs, too */
  bool has_images;                     /* their machine code is NAME_images (runtime/cuda/gpu.h) */
  bool defaults;                       /* some input has one */
  bool uses_heap;    /* a runtime function makes strings, or a buffer lies there */
  bool heap_outputs; /* some result does */
  int64_t arena_align;
  CheckList *checks;   /* grows while the entry is emitted */
  FigureList *figures; /* grows when machine code of GPUs is made; in the model's arena */
} Program;
/* What input k is where the caller gives none, or NULL. Of one in the memory of an output it is
 * what that begins with, which the caller puts there. */
const ConstData *program_default(const Program *p, int k);
void program_init(Program *p, const Module *m, const Target *t, const CodegenOptions *o,
                  Arena *arena);
int program_kernel_position(const Program *p, const Kernel *k); /* in m->kernels */
int program_symbol(const Program *p, int id); /* position among the public ones, or -1 */
/* A C identifier */
const char *program_c_name(Arena *a, const char *name, const char *fallback, int k);
const char *program_input_name(const Program *p, int k); /* ONNX name */
const char *program_output_name(const Program *p, int k);
const char *program_shape_text(const Program *p, const Value *v);
/* The same of input or output k, which may be a list: "seq(f32[?,3])" */
const char *program_io_text(const Program *p, int k, bool output);
/* "conv1:Conv, relu1:Relu"; empty when nothing is known. */
const char *program_node_list(Arena *a, const Loc *loc);
/* The nodes that the k-th kernel of the module was made of; NULL: it does not say. */
const Loc *program_kernel_loc(const Program *p, int k);
bool is_parallel(const Kernel *k);
bool kernel_has_matrix(const Kernel *k);         /* matrix loops */
bool program_uses_matrices(const Program *p);    /* those of a CPU's registers */
uint64_t program_cpu_features(const Program *p); /* that its code needs */
/* The iterations of its parallel loop that are worth a thread's start, over symbols. */
const Expr *kernel_min_chunk(const Module *m, const Kernel *k);
/* ---- limit.c: of kernels on a GPU, over symbols ---- */
const Expr *kernel_bytes(const Module *m, const Kernel *k); /* of all buffers of a call */
/* Picoseconds that a call takes at least. */
const Expr *kernel_limit_ps(const Module *m, const Kernel *k, const Gpu *g);

/* Bytes of a parameter, rounded up to 64. */
const Expr *param_bytes64(const Module *m, const Param *p);
/* Bytes of all scratch parameters, which lie in a thread's scratch in order, each 64-aligned. NULL:
 * no scratch. */
const Expr *kernel_scratch_bytes(const Module *m, const Kernel *k);
/* Bytes of the arena for one thread, and more for each further one; false: they depend on symbols.
 * The one number that header, description and summary say. */
bool program_fixed_arena(const Module *m, int64_t *one_thread, int64_t *further);
/* The same, of what callers must have; 0 where a device has it. */
bool program_caller_arena(const Program *p, int64_t *one_thread, int64_t *further);

/* ---- sizes.c: bytes, as expressions ---- */
/* A size with run-time symbols at their bounds; 0 where one has none. */
const Expr *program_upper(const Program *p, const Expr *e);
/* What a symbol with a bound may be: fixed, or of what is known when it is assigned. */
const Expr *program_most(const Program *p, const Symbol *s);
const Expr *program_arena_bytes(const Program *p); /* without threads' scratch; 64-aligned */
const Expr *program_thread_bytes(const Program *p);
/* At most; k counts inputs, then outputs. */
const Expr *program_io_bytes(const Program *p, int k);
const char *program_io_name(const Program *p, int k); /* "input x" */
/* Decided before the first step: the caller's symbols are enough. */
bool program_checked_at_entry(const Program *p, const DimAssume *a);

/* ---- calls.c: runtime functions on a device ---- */
/* The device runs this step's function: by many threads, or by one where there are few elements. */
bool program_call_on_device(const Program *p, const Step *s);
int program_call_position(const Program *p, const ExternRow *row); /* in device_calls; -1: none */
/* What it finds comes to the host at once: sizes, or a status where it may stand again. Else its
 * status is looked at when all is done. */
bool program_call_waits(const Program *p, const Step *s);
/* Where its status, and sizes behind it, lie: number of the first word. */
int program_call_result(const Program *p, const Step *s);
/* Words of all results; those that are looked at when all is done come first. */
int program_result_words(const Program *p, bool late);

/* ---- replay.c: of programs whose kernels a device runs ---- */
/* The steps at the end that read notes of one buffer and check indices: the first of them, or
 * NULL. They stand behind the last launch, also of a graph. */
const Step *program_late_checks(const Program *p);
bool program_is_late(const Program *p, const Step *s);
enum { REPLAY_BYTES = 256 };
/* Inputs whose bytes decide what is launched, by position; behind the last one comes the flag of
 * BUF_UNSET. */
typedef struct Replay {
  int *controls;
  int n;
} Replay;
/* The host calls no function, and what it reads comes from at most REPLAY_BYTES of inputs. */
bool program_replay(const Program *p, Replay *out);

/* Names that the header declares, for version scripts and archive indexes; NULL-terminated. */
const char *const *program_exports(const Program *p);
