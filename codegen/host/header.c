/* The C header of a compiled model: structs with typed, named fields, sizes, status codes, and the
 * structs of the descriptor, so that it needs nothing but <stdint.h>. Names from the model become C
 * identifiers here. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "codegen/host/header.h"
#include "runtime/abi.h"

/* Of the elements. */
static const char *c_type(DType t, bool output) {
  static const char *const ints[2][4] = {{"uint8_t ", "uint16_t ", "uint32_t ", "uint64_t "},
                                         {"int8_t ", "int16_t ", "int32_t ", "int64_t "}};
  if (t == DT_STR) return output ? "const char *" : "char *const ";
  if (t == DT_F32) return "float ";
  if (t == DT_F64) return "double ";
  if (t == DT_BOOL) return "uint8_t ";
  const int bytes = dtype_bytes(t), row = bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3;
  return ints[dtype_rows[t].cls == DC_SINT][row];
}

/* Field names must differ: a number is added where they would not. */
static const char *unique(Arena *a, const char *name, const char *const *taken, int n) {
  const char *s = name;
  for (int k = 2, i = 0; i < n; i++)
    if (strcmp(taken[i], s) == 0) {
      s = arena_printf(a, "%s_%d", name, k++);
      i = -1;
    }
  return s;
}

/* Comments must end where we say: no control characters, no comment ends. */
static void print_comment(StrBuf *b, const char *s) {
  for (char last = 0; *s; last = *s++)
    sb_putc(b, (unsigned char)*s < 32 || *s == 127 || (last == '*' && *s == '/') ||
                       (last == '/' && *s == '*')
                   ? ' '
                   : *s);
}

/* Where a field is half of a cache. */
static void print_in_place(const Program *p, StrBuf *b, int k, bool output) {
  const Model *const m = p->m->model;
  const InPlace *const x = output ? model_output_in_place(m, k) : model_input_in_place(m, k);
  if (!x) return;
  if (!output) {
    sb_printf(b, ", lies in the output ");
    print_comment(b, program_output_name(p, x->output));
    sb_printf(b, ": NULL or that pointer");
    return;
  }
  if (in_place_is_whole(x)) {
    sb_printf(b, ", written over the input ");
    print_comment(b, program_input_name(p, x->input));
    sb_printf(b, ", which lies there");
    return;
  }
  const Value *const v = m->main->outputs.data[k];
  const Expr **const dims = in_place_dims(p->arena, m->pool, x, v);
  sb_printf(b, ", in memory of ");
  print_comment(b,
                program_shape_text(p, &(Value){.dtype = v->dtype, .rank = v->rank, .dims = dims}));
  sb_printf(b, ", in which the input ");
  print_comment(b, program_input_name(p, x->input));
  sb_printf(b, " lies");
}

/* Of all inputs or outputs, with room for those of sizes behind them. */
static const char **field_names(const Program *p, bool outputs) {
  const Graph *const g = p->m->model->main;
  const int n = !g ? 0 : outputs ? g->outputs.n : g->inputs.n;
  const char **const taken = ARENA_ARRAY(p->arena, const char *, n + p->n_symbols + 1);
  for (int i = 0; i < n; i++) {
    const char *const onnx = outputs ? program_output_name(p, i) : program_input_name(p, i);
    taken[i] =
        unique(p->arena, program_c_name(p->arena, onnx, outputs ? "output" : "input", i), taken, i);
  }
  return taken;
}

static void print_fields(const Program *p, StrBuf *b, bool outputs) {
  const Graph *const g = p->m->model->main;
  const int n = !g ? 0 : outputs ? g->outputs.n : g->inputs.n;
  const int from = outputs ? p->n_caller : 0, to = outputs ? p->n_symbols : p->n_caller;
  const char **const taken = field_names(p, outputs);
  int k = n;
  for (int i = 0; i < n; i++) {
    const Value *const v = outputs ? g->outputs.data[i] : g->inputs.data[i];
    const char *const onnx = outputs ? program_output_name(p, i) : program_input_name(p, i);
    const char *const name = taken[i];
    const bool heap = outputs && buffer_is_heap(p->m, p->m->outputs.data[i]);
    sb_printf(b, "  %s%s*%s%s; /* ", outputs ? "" : "const ",
              graph_list(g, i, outputs) ? "BurinList " : c_type(v->dtype, outputs), heap ? "*" : "",
              name);
    print_comment(b, program_io_text(p, i, outputs));
    if (heap) sb_printf(b, ", in the heap: address of a pointer that the run sets");
    if (!outputs && program_default(p, i)) sb_printf(b, ", NULL: the model's default");
    print_in_place(p, b, i, outputs);
    if (strcmp(onnx, name) != 0) {
      sb_printf(b, " \"");
      print_comment(b, onnx);
      sb_putc(b, '"');
    }
    sb_printf(b, " */\n");
  }
  for (int i = from; i < to; i++) {
    const char *const name = unique(
        p->arena,
        program_c_name(p->arena, expr_symbol(p->m->model->pool, p->symbols[i])->name, "dim", i),
        taken, k);
    taken[k++] = name;
    sb_printf(b, "  int64_t %s; /* size%s */\n", name, outputs ? ", written by the run" : "");
  }
  if (k == 0) sb_printf(b, "  void *unused;\n");
}

static const char abi_text[] =
    "#ifndef BURIN_ABI_VERSION\n"
    "#define BURIN_ABI_VERSION 1\n"
    "enum {\n"
    "  BURIN_OK = 0,\n"
    "  BURIN_E_ARGUMENT = 1,    /* null pointer, impossible option */\n"
    "  BURIN_E_DIMS = 2,        /* sizes outside what was compiled */\n"
    "  BURIN_E_ARENA = 3,       /* arena missing, misaligned or too small */\n"
    "  BURIN_E_CPU = 4,         /* the CPU lacks a feature that the code needs */\n"
    "  BURIN_E_DATA = 5,        /* data-dependent failure (index, size) */\n"
    "  BURIN_E_UNSUPPORTED = 6,\n"
    "  BURIN_E_DEVICE = 7,      /* no GPU that can run it, or it failed: failure_text says why */\n"
    "  BURIN_E_MEMORY = 8,      /* options->heap is missing, or gave no more memory */\n"
    "  BURIN_E_WEIGHTS = 16     /* the file of weights is not mapped, or not this model's */\n"
    "};\n"
    "typedef void (*BurinTask)(void *arg, int32_t i);\n"
    "/* Iterations [begin, end) of a loop. No two calls with the same slot go on at the same time. "
    "*/\n"
    "typedef void (*BurinRange)(void *arg, int64_t begin, int64_t end, int32_t slot);\n"
    "typedef struct BurinFailure {\n"
    "  int32_t status;          /* what the run returned */\n"
    "  int32_t check;           /* position in info->checks, or -1 */\n"
    "  int64_t values[3];       /* the sizes or numbers that the check compared; for failure_text "
    "*/\n"
    "} BurinFailure;\n"
    "typedef struct BurinWork { /* of the calls of a kernel on a GPU */\n"
    "  uint64_t bytes;          /* of all its buffers, each counted once */\n"
    "  uint64_t limit_ps;       /* picoseconds that the target's GPU takes at least */\n"
    "} BurinWork;\n"
    "typedef struct BurinHeapBlock { /* what a heap's grow gave */\n"
    "  struct BurinHeapBlock *next;\n"
    "  uint64_t bytes;\n"
    "} BurinHeapBlock;\n"
    "/* Memory that grows, for models with strings: set grow, user and zeros. One run at a time "
    "uses "
    "it; what results\n"
    "   point to lives until the next run with it. Then free its blocks. */\n"
    "typedef struct BurinHeap {\n"
    "  void *(*grow)(void *user, uint64_t bytes); /* 16-aligned; NULL: no more */\n"
    "  void *user;\n"
    "  BurinHeapBlock *blocks;  /* all of them */\n"
    "  BurinHeapBlock *current; /* from here on: the run's own */\n"
    "  uint64_t used;\n"
    "  void *strings;\n"
    "} BurinHeap;\n"
    "typedef struct BurinOptions { /* fields beyond `size` count as 0 */\n"
    "  uint32_t size;           /* sizeof(BurinOptions) */\n"
    "  int32_t threads;         /* 0 or 1: only the calling thread */\n"
    "  /* Lends threads: calls task(arg, i) for i in [0, n), possibly at the same time; returns "
    "when all are done. */\n"
    "  void (*parallel_for)(void *user, int32_t n, BurinTask task, void *arg);\n"
    "  void *user;\n"
    "  uint64_t *kernel_ns;     /* info->n_kernels times, added to; NULL: no profile */\n"
    "  uint64_t (*clock_ns)(void); /* needed with kernel_ns */\n"
    "  uint64_t *kernel_flops;  /* likewise, multiply-adds x2; NULL: not wanted */\n"
    "  /* Like parallel_for, but decides who does how much, while it goes on: covers [0, n) with "
    "ranges of at least\n"
    "     `grain` iterations where n is no less; slots are 0 to slots - 1. NULL: parallel_for gets "
    "one part for each thread. */\n"
    "  void (*parallel_ranges)(void *user, int64_t n, int64_t grain, int32_t slots, BurinRange "
    "range, void *arg);\n"
    "  uint64_t arena_bytes;    /* size of the arena: too small for `threads` is BURIN_E_ARENA. 0: "
    "taken to hold what one\n"
    "                              thread needs; no more threads run than it holds */\n"
    "  BurinFailure *failure;   /* filled by the run; NULL: not wanted */\n"
    "  void *device;            /* GPU: what cuda_create made; NULL: one of the model's own */\n"
    "  void *stream;            /* GPU: a CUstream to queue the work on, without waiting; NULL: "
    "the "
    "run waits */\n"
    "  int32_t gpu_order;       /* cuda:host: blocks and threads 0 forward, 1 backward, 2 shuffled "
    "*/\n"
    "  int32_t gpu_resident;    /* GPU, to measure: not 0: inputs are there since the run before, "
    "outputs stay there */\n"
    "  BurinWork *kernel_work;  /* GPU: as kernel_flops */\n"
    "  BurinHeap *heap;         /* needed where info->uses_heap */\n"
    "} BurinOptions;\n"
    "typedef struct BurinTensorInfo {\n"
    "  const char *name;        /* ONNX name, UTF-8 */\n"
    "  int32_t dtype;           /* TensorProto.DataType */\n"
    "  int32_t rank;\n"
    "  const int64_t *dims;     /* not negative: fixed. -1-k: symbol k. INT64_MIN: computed, ask "
    "output_dims */\n"
    "  const char *shape_text;\n"
    "  float scale;             /* quantization, 0: none */\n"
    "  int32_t zero_point;\n"
    "} BurinTensorInfo;\n"
    "typedef struct BurinKernelInfo {\n"
    "  const char *name, *nodes; /* nodes: what it computes, as name:operator */\n"
    "  int64_t flops;           /* multiply-adds x2; 0: none, or depends on sizes */\n"
    "} BurinKernelInfo;\n"
    "typedef struct BurinCheckInfo {\n"
    "  const char *text;        /* what is wrong; {0}, {1}, {2} stand for BurinFailure.values */\n"
    "  const char *node;        /* ONNX name of the node that needs it; NULL: none */\n"
    "  int32_t status;\n"
    "} BurinCheckInfo;\n"
    "typedef struct BurinDefault {\n"
    "  const void *data;        /* what a NULL pointer for the input stands for; NULL: it must be "
    "given */\n"
    "  const int64_t *dims;     /* of data */\n"
    "  uint64_t pinned_bytes;   /* not 0: sizes were computed from data, only its bytes may be "
    "given */\n"
    "} BurinDefault;\n"
    "typedef struct BurinKeys { /* labels of the last dimension of a ZipMap's output */\n"
    "  int64_t count;           /* 0: it is no such output */\n"
    "  const int64_t *ints;     /* or */\n"
    "  const char *const *texts;\n"
    "} BurinKeys;\n"
    "typedef struct BurinInPlace { /* an input that lies in an output (axis -1: which is written "
    "over "
    "it), whose strides are those of "
    "`room` elements along `axis` */\n"
    "  int32_t input, output, axis;\n"
    "  int64_t room;\n"
    "} BurinInPlace;\n"
    "/* A tensor; elements below a byte take one, strings are const char *. */\n"
    "typedef struct BurinItem {\n"
    "  const void *data;\n"
    "  int32_t dtype;           /* TensorProto.DataType: 1 f32, 7 i64, 8 strings ... */\n"
    "  int32_t rank;\n"
    "  const int64_t *dims;\n"
    "} BurinItem;\n"
    "/* A sequence; or an optional, which has a count of -1 where it is empty, else its tensor as "
    "one item, or its\n"
    "   sequence. An input's is the caller's, and read during the run; an output's is filled by "
    "the "
    "run, and its items\n"
    "   live until the next run with the same heap. */\n"
    "typedef struct BurinList {\n"
    "  int64_t count;\n"
    "  const BurinItem *items;\n"
    "#if UINTPTR_MAX < UINT64_MAX\n"
    "  uint32_t unused;         /* 16 bytes everywhere */\n"
    "#endif\n"
    "} BurinList;\n"
    "enum { BURIN_NO_LIST, BURIN_SEQUENCE, BURIN_OPTIONAL, BURIN_OPTIONAL_SEQUENCE };\n"
    "typedef struct BurinListInfo {\n"
    "  int32_t kind;            /* BURIN_NO_LIST: the input or output is a tensor */\n"
    "  int32_t dtype, rank;     /* of the items; rank -1: any. Others are BURIN_E_DATA */\n"
    "  const int64_t *dims;     /* -1: any */\n"
    "} BurinListInfo;\n"
    "enum { BURIN_STATE_PARAMETER, BURIN_STATE_STATISTIC, BURIN_STATE_MOMENT, "
    "BURIN_STATE_GRADIENT, BURIN_STATE_COUNTER, BURIN_STATE_SCALE };\n"
    "typedef struct BurinStateInfo { /* a tensor of a training step's state */\n"
    "  const char *name;        /* of a parameter or statistic: its initializer's */\n"
    "  int32_t kind;\n"
    "  int32_t input, output;   /* positions; output -1: runs only read it */\n"
    "  uint64_t offset, bytes;\n"
    "  const void *initial;     /* NULL: zeros */\n"
    "} BurinStateInfo;\n"
    "typedef struct BurinModel {\n"
    "  uint32_t abi_version, size; /* of this struct; later versions only add fields at its end "
    "*/\n"
    "  const char *name, *producer, *target, *flags, *model_hash;\n"
    "  int32_t n_inputs, n_outputs, n_symbols, n_caller_symbols; /* the caller's symbols come "
    "first */\n"
    "  const BurinTensorInfo *inputs, *outputs;\n"
    "  const char *const *symbols;\n"
    "  uint64_t arena_bytes;    /* for one thread; 0 when it depends on symbols */\n"
    "  uint64_t thread_bytes;   /* more per further thread */\n"
    "  uint32_t arena_align;\n"
    "  int32_t max_threads;\n"
    "  uint64_t weight_bytes, arena_lower_bound;\n"
    "  int32_t n_kernels;\n"
    "  const BurinKernelInfo *kernels;\n"
    "  uint64_t cpu_features;\n"
    "  int32_t (*invoke)(const void *const *in, void *const *out, int64_t *dims, void *arena, "
    "const BurinOptions *opts);\n"
    "  uint64_t (*arena_size)(const int64_t *dims, int32_t threads);\n"
    "  void (*output_dims)(int32_t k, const int64_t *dims, int64_t *out, int32_t bounds);\n"
    "  const void *weights;\n"
    "  const char *weights_file; /* not NULL: map_weights must be called before the first run */\n"
    "  uint64_t weights_hash;\n"
    "  int32_t (*map_weights)(const char *path); /* maps and checks the file; a status */\n"
    "  int32_t n_checks;\n"
    "  const BurinCheckInfo *checks;\n"
    "  int32_t (*failure_text)(const BurinFailure *failure, char *text, int32_t size);\n"
    "  const BurinDefault *defaults; /* by input; NULL: all must be given */\n"
    "  int32_t uses_heap;       /* not 0: runs need options->heap */\n"
    "  const BurinKeys *output_keys; /* by output; NULL: none has any */\n"
    "  const BurinInPlace *in_place; /* n_in_place of them */\n"
    "  int32_t n_in_place;\n"
    "  /* By output, not 0: it has no largest size, and its pointer is the address of a pointer, "
    "which a run sets.\n"
    "   * NULL: none */\n"
    "  const uint8_t *heap_outputs;\n"
    "  const BurinListInfo *input_lists, *output_lists; /* by position; NULL: none is a list */\n"
    "  /* Inputs and outputs at the positions of these n_state tensors are pointers into one "
    "buffer "
    "of state_bytes,\n"
    "     aligned to 64. */\n"
    "  const BurinStateInfo *state;\n"
    "  int32_t n_state;\n"
    "  uint64_t state_bytes;\n"
    "} BurinModel;\n"
    "#endif\n";

static void print_sizes(const Program *p, StrBuf *b, const char *upper) {
  int64_t arena, scratch;
  const bool fixed = program_caller_arena(p, &arena, &scratch);
  sb_printf(b, "#define %s_ARENA_ALIGN %" PRId64 "\n", upper, p->arena_align);
  if (fixed) {
    sb_printf(b, "#define %s_ARENA_BYTES %" PRId64 " /* for one thread */\n", upper, arena);
    sb_printf(b, "#define %s_THREAD_BYTES %" PRId64 " /* more for each further thread */\n", upper,
              scratch);
    sb_printf(
        b,
        "#define %s_ARENA_BYTES_FOR(threads) (%s_ARENA_BYTES + ((threads) > 1 ? (threads)-1 : "
        "0) * (uint64_t)%s_THREAD_BYTES)\n",
        upper, upper, upper);
  } else {
    sb_printf(b, "/* The arena's size depends on the sizes of the inputs: ask %s_arena_size. */\n",
              p->name);
  }
}

static void print_symbols(const Program *p, StrBuf *b, const char *upper) {
  if (!p->n_symbols) return;
  sb_printf(b, "/* Positions in `dims`. */\nenum {");
  for (int i = 0; i < p->n_symbols; i++)
    sb_printf(
        b, "%s %s_DIM_%s = %d", i ? "," : "", upper,
        program_c_name(p->arena, expr_symbol(p->m->model->pool, p->symbols[i])->name, "dim", i), i);
  sb_printf(b, ", %s_N_DIMS = %d };\n", upper, p->n_symbols);
}

/* ---- the parts of the file ---- */
static void print_head(const Program *p, StrBuf *b, const char *upper) {
  sb_printf(b, "/* %s: a compiled model (target %s). Made by burin. C11 and C++.\n", p->name,
            p->t->name);
  sb_printf(b, p->t->gpu
                   ? " * A GPU runs it: see below for the devices that runs may be given. They may "
                     "go on at the same time. */\n"
                   : " * Runs allocate nothing, keep no state and may go on at the same time, "
                     "each with its own arena. */\n");
  sb_printf(b,
            "#ifndef %s_H\n#define %s_H\n#include <stdint.h>\n#ifdef __cplusplus\nextern \"C\" "
            "{\n#endif\n\n",
            upper, upper);
  sb_printf(b, "%s\n", abi_text);
}

static void print_constants(const Program *p, int64_t stack, StrBuf *b, const char *upper) {
  print_sizes(p, b, upper);
  sb_printf(b,
            "#define %s_STACK_BYTES %" PRId64
            " /* of the calling thread, and of threads that are lent */\n",
            upper, stack);
  print_symbols(p, b, upper);
}

static void print_structs(const Program *p, StrBuf *b) {
  sb_printf(b, "\ntypedef struct %s_inputs {\n", p->name);
  print_fields(p, b, false);
  sb_printf(b, "} %s_inputs;\n\ntypedef struct %s_outputs {\n", p->name, p->name);
  print_fields(p, b, true);
  sb_printf(b, "} %s_outputs;\n\n", p->name);
}

static void print_runs(const Program *p, StrBuf *b, const char *upper) {
  int64_t arena, scratch;
  const char *const n = p->name;
  sb_printf(b,
            "/* Status: BURIN_OK or BURIN_E_…. arena: %s_ARENA_ALIGN-aligned; %s bytes (one "
            "thread). */\n",
            upper,
            program_caller_arena(p, &arena, &scratch)
                ? arena_printf(p->arena, "%s_ARENA_BYTES", upper)
                : arena_printf(p->arena, "%s_arena_size(sizes, 1)", n));
  sb_printf(b, "int32_t %s_run(const %s_inputs *in, %s_outputs *out, void *arena);\n", n, n, n);
  sb_printf(b,
            "/* With threads, a profile, the reason of a failure: for more than one thread say "
            "options->arena_bytes. */\n");
  sb_printf(b,
            "int32_t %s_run_opts(const %s_inputs *in, %s_outputs *out, void *arena, const "
            "BurinOptions *options);\n",
            n, n, n);
}

static const char heap_text[] =
    "#ifndef BURIN_HEAP_MALLOC\n"
    "#define BURIN_HEAP_MALLOC\n"
    "#include <stdlib.h>\n"
    "static inline void *burin_heap_malloc(void *user, uint64_t bytes) {\n"
    "  (void)user;\n"
    "  return bytes <= SIZE_MAX ? malloc((size_t)bytes) : NULL;\n"
    "}\n"
    "static inline void burin_heap_free(BurinHeap *heap) {\n"
    "  for (BurinHeapBlock *b = heap->blocks, *next; b; b = next) {\n"
    "    next = b->next;\n"
    "    free(b);\n"
    "  }\n"
    "  heap->blocks = NULL;\n"
    "}\n"
    "#endif\n\n";

static void print_heap(const Program *p, StrBuf *b) {
  if (!p->uses_heap) return;
  sb_printf(
      b,
      "/* This model makes strings, or tensors without a largest size: runs need options->heap "
      "(%s_run alone is\n * BURIN_E_MEMORY). With malloc:\n"
      " *   BurinHeap heap = {.grow = burin_heap_malloc};   …   burin_heap_free(&heap); */\n%s",
      p->name, heap_text);
}

/* ---- the state of a training step ---- */
static const char *state_type(const Program *p, const StateItem *s) {
  const char *const t = c_type(p->m->model->main->inputs.data[s->input]->dtype, true);
  return arena_strndup(p->arena, t, strlen(t) - (t[strlen(t) - 1] == ' '));
}

static void print_layout(const Program *p, StrBuf *b) {
  const Model *const m = p->m->model;
  sb_printf(b,
            "/* The state: a buffer of the caller's, aligned to 64. Runs read and write it; "
            "copied, it is a "
            "snapshot.\n *   offset       bytes\n");
  for (int i = 0; i < m->state.n; i++) {
    const StateItem *const s = &m->state.data[i];
    sb_printf(b, " *   %-12" PRId64 " %-12" PRId64 " %s ", s->offset, s->bytes,
              state_kind_names[s->kind]);
    print_comment(b, program_io_text(p, s->input, false));
    sb_printf(b, " \"");
    print_comment(b, s->name);
    sb_printf(b, "\"\n");
  }
  sb_printf(b, " */\n");
}

static void print_bind(const Program *p, StrBuf *b) {
  const Model *const m = p->m->model;
  const char **const in = field_names(p, false), **const out = field_names(p, true);
  bool written = false;
  sb_printf(b,
            "/* Lets the fields of the state point into it. */\n"
            "static inline void %s_state_bind(%s_inputs *in, %s_outputs *out, void *state) {\n"
            "  char *const at = (char *)state;\n",
            p->name, p->name, p->name);
  for (int i = 0; i < m->state.n; i++) {
    const StateItem *const s = &m->state.data[i];
    sb_printf(b, "  in->%s = (const %s *)(at + %" PRId64 ");\n", in[s->input], state_type(p, s),
              s->offset);
    if (s->output < 0) continue;
    sb_printf(b, "  out->%s = (%s *)(at + %" PRId64 ");\n", out[s->output], state_type(p, s),
              s->offset);
    written = true;
  }
  sb_printf(b, "%s}\n\n", written ? "" : "  (void)out;\n");
}

static void print_state(const Program *p, StrBuf *b, const char *upper) {
  const Model *const m = p->m->model;
  const char *const n = p->name;
  if (!m->state.n) return;
  print_layout(p, b);
  sb_printf(
      b,
      "#define %s_STATE_BYTES %" PRId64
      "\n/* As it is before the first run. */\n"
      "static inline void %s_state_init(void *state) {\n"
      "  const BurinModel *const m = %s_info();\n"
      "  char *const to = (char *)state;\n"
      "  for (uint64_t k = 0; k < m->state_bytes; k++) to[k] = 0;\n"
      "  for (int32_t i = 0; i < m->n_state; i++) {\n"
      "    const char *const from = (const char *)m->state[i].initial;\n"
      "    for (uint64_t k = 0; from && k < m->state[i].bytes; k++) to[m->state[i].offset + k] = "
      "from[k];\n"
      "  }\n"
      "}\n",
      upper, m->state_bytes, n, n);
  print_bind(p, b);
}

static void print_devices(const Program *p, StrBuf *b) {
  const char *const n = p->name;
  if (!p->t->gpu) return;
  sb_printf(
      b,
      "\n/* Tensors may be in the memory of the host or of the GPU. A run uses the device of its "
      "options, else one that the\n"
      " * model makes for itself when it first runs. A device keeps the weights and memory on "
      "the GPU; runs on one follow each other,\n"
      " * runs on several go on at the same time. The run's arena may be NULL. */\n"
      "typedef struct %s_cuda %s_cuda;\n",
      n, n);
  sb_printf(b,
            "/* context: a CUcontext; NULL: the primary one of the GPU that is current, or of the "
            "first. Status; why goes to\n"
            " * `failure`, which may be NULL. */\n"
            "int32_t %s_cuda_create(void *context, %s_cuda **device, BurinFailure *failure);\n",
            n, n);
  sb_printf(
      b,
      "/* Queues a run on a CUstream (NULL: the default one) and does not wait: outputs are there "
      "when the stream is done, and\n"
      " * inputs of pinned memory are read until then. */\n"
      "int32_t %s_cuda_run_async(%s_cuda *device, const %s_inputs *in, %s_outputs *out, void "
      "*stream);\n",
      n, n, n, n);
  sb_printf(b,
            "/* Waits for its runs. */\n"
            "void %s_cuda_destroy(%s_cuda *device);\n\n",
            n, n);
}

static void print_questions(const Program *p, StrBuf *b) {
  const char *const n = p->name;
  sb_printf(b,
            "/* Bytes of arena for these sizes; UINT64_MAX: too large. dims may be NULL when all "
            "sizes are fixed. */\n");
  sb_printf(b, "uint64_t %s_arena_size(const int64_t *dims, int32_t threads);\n", n);
  sb_printf(b, "/* Sizes of output k; bounds 1: the largest they can be, before a run. */\n");
  sb_printf(
      b, "void %s_output_dims(int32_t k, const int64_t *dims, int64_t *out, int32_t bounds);\n", n);
  if (p->weights.external)
    sb_printf(
        b,
        "/* %s_info()->map_weights(\"…/%s\") must come before the first run: it maps and checks "
        "the weights. */\n",
        n, p->weights.file);
  sb_printf(b, "const BurinModel *%s_info(void);\n", n);
  sb_printf(
      b, "int32_t %s_cpu_ok(void); /* 1: this CPU can run the code. Runs do not check. */\n\n", n);
}

static const char status_text[] =
    "  static const char *const texts[] = {\"ok\", \"impossible argument\",\n"
    "      \"these sizes do not fit the compiled model\", \"arena missing, misaligned or "
    "too small\",\n"
    "      \"this CPU lacks a feature that the code needs\", \"the data give an impossible "
    "index or size\",\n"
    "      \"unsupported\", \"the device failed\", \"no heap, or it gave no more memory\"};\n"
    "  if (status == BURIN_E_WEIGHTS) return \"the file of weights is not mapped, or not this "
    "model's\";\n"
    "  return status >= 0 && status < 9 ? texts[status] : \"unknown status\";\n}\n";

static void print_failures(const Program *p, StrBuf *b) {
  sb_printf(
      b,
      "/* A failure in words, always terminated (as \"input x: height is 321, the model needs a "
      "multiple of 32\");\n"
      " * returns the length of all. */\n"
      "int32_t %s_failure_text(const BurinFailure *failure, char *text, int32_t size);\n",
      p->name);
  sb_printf(b, "static inline const char *%s_status_text(int32_t status) {\n%s", p->name,
            status_text);
}

void header_print(const Program *p, int64_t stack, StrBuf *b) {
  char *const upper = arena_strdup(p->arena, p->name);
  for (char *c = upper; *c; c++) *c = (char)toupper((unsigned char)*c);
  print_head(p, b, upper);
  print_constants(p, stack, b, upper);
  print_structs(p, b);
  print_runs(p, b, upper);
  print_heap(p, b);
  print_devices(p, b);
  print_questions(p, b);
  print_state(p, b, upper);
  print_failures(p, b);
  sb_printf(b, "\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
}
