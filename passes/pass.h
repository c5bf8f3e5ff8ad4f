/* Passes and their manager. A pass is one file with one public function; its row is in
 * passes.def. */
#pragma once
#include "ir/base/clock.h"
#include "ir/loop/loop.h"
#include "ir/op/op.h"
#include "targets/target.h"

/* kernels/strips.c */
typedef enum StripChoice { STRIPS_AUTO, STRIPS_NONE, STRIPS_ALL } StripChoice;
/* form/checkpoint.c: what is computed again instead of being kept, where gradients are. What costs
 * next to nothing; as much as one more forward part of a training step takes; nothing. */
typedef enum CheckpointChoice { CHECKPOINT_AUTO, CHECKPOINT_SQRT, CHECKPOINT_OFF } CheckpointChoice;
/* As many as memory and time tell, for training steps and below a limit of memory; none. */
enum { SAMPLE_BLOCKS_AUTO = 0, SAMPLE_BLOCKS_OFF = -1 };
typedef struct PassCtx {
  Model *model;   /* graph level */
  Module *module; /* loop level: set by `lower`; NULL before */
  const Target *target;
  int opt_level;
  Arena *scratch; /* dies after the pass */
  bool changed;   /* a pass sets it when it changed anything: dumps print "(unchanged)" otherwise */
  int max_threads;
  bool tf32;          /* products of f32 may be rounded to tf32, on GPUs */
  bool clamp_indices; /* indices outside of their axis are not told (check_indices.c) */
  int64_t cache_room; /* elements along its axis that a cache in place has room for; 0: none are */
  const char *const *in_place; /* OUTPUT=INPUT: the output takes the input's memory */
  int n_in_place;
  bool winograd;
  int winograd_size; /* of its tiles where it is faster: 2, 4 or 6; 0: 2 or 4, by cost */
  StripChoice strips;
  CheckpointChoice checkpoint;
  bool steady_sums;      /* Plan.steady of what is planned */
  int64_t sample_blocks; /* samples of a block (form/sample_blocks.c), or SAMPLE_BLOCKS_… */
  int64_t max_arena;             /* bytes that arena and scratch of one thread may take; 0: any */
  const struct Tuning *tuning;   /* choices to take instead of the model's (choice.h), or NULL */
  struct DecisionLog *decisions; /* where choices are noted, or NULL */
  /* Runs a program of constants, compiled for the target: data of inputs and outputs by position.
   * False, without an error: it cannot be run here. NULL: nobody can (the interpreter does). */
  bool (*run_constants)(void *user, const Module *m, const void *const *in, void *const *out);
  void *run_user;
  /* Runs a pipeline on another model (set by the manager, for passes that make programs of their
   * own). */
  bool (*run_passes)(struct PassCtx *c, const char *passes);
  bool sparse; /* constant weights that are zero may be left out */
} PassCtx;
typedef bool (*PassFn)(PassCtx *c); /* false: error reported */

typedef enum PassLevel { PL_GRAPH, PL_LOWER, PL_LOOP } PassLevel;
typedef struct PassRow {
  const char *name;
  PassLevel level;
  PassFn fn;
  unsigned needs; /* PF_*: what must hold before */
  unsigned keeps; /* what it does not destroy */
  unsigned gives; /* what holds afterwards because of it */
  int min_opt;    /* lowest -O level at which the default pipeline has it */
  const char *help;
} PassRow;
/* Properties of the IR, one bit each: PF_EXPANDED … (passes.def says what they mean). */
enum {
#define PROPERTY(id, name, holds, meaning) PF_BIT_##id,
#include "passes/manage/passes.def"
  PF_COUNT,
#define PROPERTY(id, name, holds, meaning) PF_##id = 1 << PF_BIT_##id,
#include "passes/manage/passes.def"
  PF_ALL = (1 << PF_COUNT) - 1,
  PF_CODE = PF_LOWERED | PF_BASIC | PF_NARROW | PF_SHAPED | PF_PLANNED /* what code is made of */
};
extern const PassRow pass_rows[];
extern const int pass_row_count;
const PassRow *pass_find(const char *name);

typedef struct PassOptions {
  const char *passes; /* comma list replacing the default pipeline, or NULL; "" runs nothing */
  const char *const *disabled;
  int n_disabled;
  const char *print_after; /* pass name, "all" or NULL */
  FILE *dump;              /* where print_after goes; NULL: stdout */
  const char *ir_dir;      /* numbered dumps, or NULL */
  bool ir_data;            /* with data of constants, so that each can be compiled */
  unsigned needs;          /* PF_* that must hold at the end, by what the result is for */
  bool time;               /* print a table to stderr */
  void (*progress)(void *user, const char *pass, int k, int n);
  void *progress_user;
} PassOptions;
/* Runs a pipeline: what passes need is checked before each, the IR verified after each; dumps,
 * times. Debug builds also round-trip the text, and hold passes to what they say they keep. */
bool passes_run(PassCtx *c, const PassOptions *o);
const char *const *passes_pipeline(void); /* names of the default pipeline, NULL-terminated */
/* Equal for kernels that do the same, names apart (merge_kernels.c). */
uint64_t kernel_digest(Arena *scratch, ExprPool *p, const Kernel *k);

/* ---- the passes, one per file ---- */
#define P(name, level, fn, needs, keeps, gives, min_opt, help) bool fn(PassCtx *c);
#include "passes/manage/passes.def"
