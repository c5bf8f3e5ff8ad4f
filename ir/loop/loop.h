/* Loop IR: kernels, which are trees of loops over buffers, and the program that calls them.
 *
 * A kernel has scalar semantics: every kind of loop means the same iterations in the same order, so
 * the interpreter takes them all alike. The kind only says how code is made:
 *
 *   kind      iterations
 *   --------  ----------------------------------------------------------------------------------
 *   serial    one after the other
 *   parallel  independent; split over threads. At most one, the kernel's only top statement
 *   unroll    copied out; the extent is constant
 *   vector    run in lanes. A load with stride 1 in the variable is a vector load, with stride 0 a
 *             splat, else a gather; tails are masked or scalar, by target. Never one in another;
 *             serial loops inside have the same bounds in all lanes
 *   matrix    two or three nested ones: an operation of matrix registers (matrix.h); one after
 *             the other where the target has none. In a grid five: a lane's part of a product of
 *             fragments (mma.h)
 *   block     independent; blocks of a GPU's grid (below)
 *   thread    independent of each other; threads of a block, which wait for each other at the end
 *
 * A local is, seen from a vector loop:
 *
 *   declared  index            is
 *   --------  ---------------  -----------------------------------------------------------------
 *   inside    any              one per lane
 *   outside   stride 1         a slice, one element per lane
 *   outside   same everywhere  a reduction over the lanes, changed by ACC alone
 *
 * Grids (grid.c). A kernel for a GPU is a nest of one to three block loops, its only top statement.
 * In the innermost is what one block does: thread loops, one behind the other, and what stands
 * around them. A nest of one to three thread loops is run by all threads of the block at once, and
 * its end is the barrier: what one nest wrote, the next one may read. The innermost loop counts x,
 * the one around it y, then z. So a tile goes through shared memory like this:
 *
 *   for by in 0..$n block { for bx in 0..$m block {
 *     local t0 : shared              one for the block, dead at the end of this iteration
 *     local t1 : regs                each thread has its own, and keeps it over barriers
 *     for tx in 0..256 thread { t1[0] = 0 }
 *     for k in 0..8 {                every thread goes through the same k: bounds may not differ
 *       for tx in 0..256 thread { t0[tx] = b0[(by*8 + k)*256 + tx] }          then all wait
 *       for tx in 0..256 thread { for j in 0..256 { t1[0] sum= t0[j] } }      then all wait
 *     }
 *     for tx in 0..256 thread { b1[(by*$m + bx)*256 + tx] = t1[0] }
 *   } }
 *
 *   in a block loop, around thread loops       in a thread loop
 *   -----------------------------------------  ---------------------------------------------------
 *   serial and unrolled loops, conditions      all other loops but parallel ones, conditions
 *   declarations of shared, regs, stack        declarations of regs, stack: gone with the iteration
 *   no stores, sets, accumulations             all of them
 *   values: no locals, and loads only from     any values
 *     buffers that the kernel does not write
 *
 * A shared local may be `late N`: what a nest wrote into it may be touched again in the Nth nest
 * behind that one, and later, but not before. So a GPU may copy into it while it goes on (cp.async).
 * Nothing else changes: copies have the values that they would have at once.
 *
 * Block loops begin at 0 and have extents over symbols. Thread loops begin at 0 and have constant
 * extents, the same ones in every nest, at most MAX_THREADS together: a part of the threads is a
 * condition inside. There is no scratch: what is not shared is a buffer.
 *
 * No two threads may meet in an element of a buffer or of shared memory between two barriers, one
 * of them writing; no two blocks in an element of a buffer, in the whole kernel. Equal values are
 * no excuse. So the order of blocks, and that of threads between barriers, does not matter. The
 * verifier refuses what is wrong for certain (loop_verify_grid.c), the interpreter what happens:
 * races, and reads of locals that nobody set; and it takes blocks and threads in any order
 * (ThreadOrder). CPUs run grids as plain loops (passes/loop/serialize_threads.c).
 *
 * The text of all this is in docs/ir.md; what must hold is checked by loop_verify*.c. */
#pragma once
#include "ir/graph/graph.h"
#include "ir/sizes/sizes.h"

typedef struct ExternRow ExternRow; /* ir/op/op.h */

/* ---- statements ---- */
typedef enum StmtKind { ST_FOR, ST_STORE, ST_LOCAL, ST_SET, ST_ACC, ST_IF, ST_PREFETCH } StmtKind;
typedef enum ForKind {
  FOR_SERIAL,
  FOR_PARALLEL,
  FOR_UNROLL,
  FOR_VECTOR,
  FOR_MATRIX,
  FOR_BLOCK,
  FOR_THREAD
} ForKind;

/*   kind         member   means
 *   -----------  -------  ----------------------------------------------------------
 *   ST_FOR       loop     for var in lo..+extent { body }; lo and extent stand with the variable
 *   ST_IF        branch   if cond { then } else { otherwise }
 *   ST_LOCAL     access   the local `id` lives from here to the end of the block, undefined
 *   ST_STORE     access   buffer id[index] = value
 *   ST_SET       access   local id[index] = value
 *   ST_ACC       access   local id[index] = reduce(local id[index], value)
 *   ST_PREFETCH  access   buffer id[index] will be read soon */
typedef struct Stmt Stmt;
struct Stmt {
  StmtKind kind;
  Stmt *next; /* in the same block */
  union {
    struct {
      ForKind kind;
      const Expr *var;
      Stmt *body;
    } loop;
    struct {
      const Expr *cond;
      Stmt *then;
      Stmt *otherwise; /* or NULL */
    } branch;
    struct {
      int id;            /* buffer parameter or local */
      const Expr *index; /* NULL: LOCAL */
      const Expr *value; /* NULL: LOCAL, PREFETCH */
      ReduceKind reduce; /* ACC */
    } access;
  };
};

/* ---- kernels ---- */
/* Where a local lies. (What lies in global memory is a buffer.)
 *
 *   memory      holds it in              indices
 *   ----------  -----------------------  ------------------------------------------------------
 *   MEM_REGS    registers                constant after unrolling, a vector's variable apart
 *   MEM_STACK   an aligned array, one    any
 *               for each thread
 *   MEM_SHARED  memory of a block        any; all its threads see it
 *   MEM_MATRIX  a matrix register, with  those of matrix loops alone (matrix.h)
 *               rows one after another */
typedef enum LocalMemory { MEM_REGS, MEM_STACK, MEM_SHARED, MEM_MATRIX } LocalMemory;

/* A register tile or small scratch; it lives from its ST_LOCAL to the end of that block. */
typedef struct Local {
  const char *name;
  DType dtype;   /* a compute type, or a storage type outside of registers */
  int64_t count; /* elements */
  LocalMemory memory;
  int late; /* SHARED: nests of thread loops until what was written may be touched; 0: the next */
} Local;

typedef enum ParamAccess { PA_READ = 1, PA_WRITE = 2, PA_READWRITE = 3 } ParamAccess;

/* A buffer given to a kernel; its id is its position. */
typedef struct Param {
  const char *name;
  DType dtype;
  const Expr *count; /* elements, for checks of bounds */
  ParamAccess access;
  bool constant; /* weights: loads are invariant */
  bool scratch;  /* one per thread, in the arena; undefined at each parallel iteration */
  int align;     /* bytes, at least the element's; 64 for whole buffers */
} Param;

typedef struct Kernel {
  const char *name; /* k12_conv_relu: unique, from names of ops, never from the model */
  Vec(Param) params;
  Vec(Local) locals;
  Stmt *body;
  const Loc *loc;    /* of all graph nodes that went in, chained */
  const Expr *flops; /* multiply-adds ×2 of a call, over symbols; NULL: none. For profiles */
  double grain;      /* estimated cycles of one parallel iteration; 0: unknown */
} Kernel;

/* ---- buffers ---- */
/*   kind        is                                      index  data     offset    base
 *   ----------  --------------------------------------  -----  -------  --------  ----
 *   BUF_INPUT   given by the caller                     which  default
 *   BUF_OUTPUT  given by the caller                     which
 *   BUF_WEIGHT  constant, packed in the order of reads         yes
 *   BUF_ARENA   placed by the memory planner                            bytes
 *   BUF_VIEW    a part of another buffer                                elements  yes
 *   BUF_UNSET   one bool: no input that has a default is given
 *   BUF_HEAP    of a size without a bound: lies in    output
 *               the caller's heap where the last
 *               STEP_ROOM put it */
typedef enum BufferKind {
  BUF_INPUT,
  BUF_OUTPUT,
  BUF_WEIGHT,
  BUF_ARENA,
  BUF_VIEW,
  BUF_UNSET,
  BUF_HEAP
} BufferKind;

typedef struct Buffer {
  int id; /* its position */
  BufferKind kind;
  DType dtype;
  const Expr *count;     /* elements, over symbols */
  int index;             /* INPUT, OUTPUT, HEAP: which one; of HEAP -1: it is no output */
  const ConstData *data; /* WEIGHT: contents. INPUT: its default, or NULL */
  bool pinned;           /* INPUT: no other value than the default may be given */
  const Expr *offset;    /* ARENA: bytes from its start. VIEW: elements into base */
  int base;              /* VIEW: the buffer it lies in */
  int inplace_of;        /* ARENA: may take this one's place (its last reader writes it), or -1 */
  const char *name;      /* for dumps */
  const Value *value;    /* ARENA: of the graph, which lies in it; or NULL */
  int address, room;     /* HEAP: symbols that hold where it lies, and how many bytes it has */
} Buffer;

/* A place in a buffer. */
typedef struct BufRef {
  int buffer;         /* -1: none, where that is allowed */
  const Expr *offset; /* elements, over symbols (those of loops, too); NULL: 0 */
} BufRef;

/* A tensor given to a runtime function. */
typedef struct TensorRef {
  BufRef buf; /* buffer -1: an optional one that is absent */
  DType dtype;
  int rank;
  const Expr *const *dims;
} TensorRef;

/* ---- steps ---- */
/*   kind         member  means
 *   -----------  ------  -------------------------------------------------------------------
 *   STEP_KERNEL  call    kernel(args)
 *   STEP_EXTERN  ext     a runtime function; it assigns runtime symbols that are sizes of outs
 *   STEP_COPY    copy    count elements of src to dst
 *   STEP_IF      branch  if cond (one bool) { then } else { otherwise }
 *   STEP_LOOP    loop    while iter < trip and cond { body }; cond is read before each iteration
 *   STEP_SYM     sym     $id = element 0 of src, the run fails outside of lo..hi; or $id = value
 *   STEP_CHECK   check   the run fails where this does not hold
 *   STEP_ROOM    room    a buffer of kind HEAP gets room for count elements; the first `keep` of
 *                        what it holds stay */
typedef enum StepKind {
  STEP_KERNEL,
  STEP_EXTERN,
  STEP_COPY,
  STEP_IF,
  STEP_LOOP,
  STEP_SYM,
  STEP_CHECK,
  STEP_ROOM
} StepKind;

/* A question (passes/choose/choice.h) whose answer the time of a step measures. */
typedef struct StepKey {
  const char *key;
  const struct StepKey *next;
} StepKey;

/* What a step takes on one core, for sizes as they are guessed. */
typedef struct Estimate {
  const char *model; /* which cost model says so; NULL: none does */
  double cycles;
} Estimate;

typedef struct Step Step;
struct Step {
  StepKind kind;
  Step *next; /* in the same block */
  const Loc *loc;
  Estimate estimate;
  const StepKey *keys; /* only where tuning asks for them */
  union {
    struct {
      Kernel *kernel;
      const BufRef *args; /* one per parameter that is not scratch, in order */
      int n_args;
    } call;
    struct {
      const ExternRow *row;
      const TensorRef *ins;
      const TensorRef *outs;
      const int64_t *words; /* packed attributes */
      int n_ins;
      int n_outs;
      int n_words;
      int scratch; /* arena buffer, or -1 */
    } ext;
    struct {
      BufRef src;
      BufRef dst;
      const Expr *count;
    } copy;
    struct {
      BufRef cond;
      Step *then;
      Step *otherwise; /* or NULL */
    } branch;
    struct {
      BufRef cond;      /* buffer -1: always */
      const Expr *trip; /* NULL: no limit */
      int iter;         /* symbol that counts, or -1 */
      int trips;        /* symbol that gets the final count, or -1 */
      Step *body;
    } loop;
    struct {
      int id;
      BufRef src; /* buffer -1: value counts */
      const Expr *value;
      const Expr *lo;  /* or NULL */
      const Expr *hi;  /* or NULL */
      IndexRule index; /* it is the key of an index (SymDef) */
    } sym;
    DimAssume check;
    struct {
      int buffer;
      const Expr *count;
      const Expr *keep; /* or NULL: none */
    } room;
  };
};

/* ---- programs ---- */
typedef struct Module Module;
struct Module {
  Model *model;          /* graph inputs and outputs, symbols, pool, diag, arena */
  Vec(Buffer) buffers;   /* id = position */
  Vec(Kernel *) kernels; /* distinct ones, in the order of first use */
  Step *steps;
  const Expr *arena_bytes;   /* set by the memory planner: a closed formula of the symbols */
  const Expr *scratch_bytes; /* per thread, behind the arena: arena + threads*scratch in all */
  int64_t arena_lower_bound; /* largest sum of bytes that live at one time; -1 when symbolic */
  Vec(int) inputs;           /* buffers by position in the model */
  Vec(int) outputs;          /* one equals an input or weight only through a COPY step */
  int max_threads;
};

/* ---- building (loop.c) ---- */
Module *module_new(Model *m);
Buffer *module_add_buffer(Module *m, BufferKind kind, DType t, const Expr *count, const char *name);
Kernel *kernel_new(Module *m, const char *stem, const Loc *loc);
int kernel_add_param(Module *m, Kernel *k, Param p); /* id */
int kernel_add_local(Module *m, Kernel *k, Local l); /* id; still needs its stmt_local */
/* One of kind HEAP where `count` has no upper bound, of kind ARENA else. */
Buffer *module_add_memory(Module *m, DType t, const Expr *count, const char *name);
bool buffer_is_heap(const Module *m, int id); /* or a view of one */
/* Of a function that uses the heap and finds a size without a bound of result k: it sets RtTensor.data,
 * to memory that nobody writes afterwards. */
bool extern_makes(const Module *m, const Step *s, int k);
Step *step_new(Module *m, StepKind kind, const Loc *loc);

/* Blocks are built at a cursor: StmtList l = {0}; stmt_add(&l, stmt_set(…)); k->body = l.first */
typedef struct StmtList {
  Stmt *first;
  Stmt *last;
} StmtList;
void stmt_add(StmtList *l, Stmt *s); /* s may be a list; NULL is ignored */
Stmt *stmt_for(Arena *a, ForKind kind, const Expr *var, Stmt *body);
Stmt *stmt_store(Arena *a, int buffer, const Expr *index, const Expr *value);
Stmt *stmt_local(Arena *a, int local);
Stmt *stmt_set(Arena *a, int local, const Expr *index, const Expr *value);
Stmt *stmt_acc(Arena *a, int local, const Expr *index, ReduceKind kind, const Expr *value);
Stmt *stmt_if(Arena *a, const Expr *cond, Stmt *then, Stmt *otherwise);
Stmt *stmt_prefetch(Arena *a, int buffer, const Expr *index);

/* ---- walking (walk.c) ---- */
/* The block below a statement or step (of a loop, or where a condition holds), and that where it
 * does not hold. NULL where there is none. */
Stmt *stmt_body(const Stmt *s);
Stmt *stmt_otherwise(const Stmt *s);
Step *step_body(const Step *s);
Step *step_otherwise(const Step *s);

/* Calls f for each statement (step) of a list and of all blocks below it, outer ones first. The
 * walk ends, and is false, as soon as f is. */
typedef bool (*StmtVisit)(void *user, Stmt *s);
typedef bool (*StepVisit)(void *user, Step *s);
bool stmt_each(Stmt *s, StmtVisit f, void *user);
bool step_each(Step *s, StepVisit f, void *user);

/* Calls f with every expression of s alone (not of blocks below it), and puts what it returns in
 * its place. A loop's variable is none of them, and its range is not visited. */
typedef const Expr *(*ExprMap)(void *user, const Expr *e);
void stmt_map_exprs(Stmt *s, ExprMap f, void *user);
/* As that, for a step: offsets, sizes of tensors, counts. Arrays are copied to a first. */
void step_map_exprs(Arena *a, Step *s, ExprMap f, void *user);
typedef void (*ExprVisit)(void *user, const Expr *e);
void stmt_each_expr(const Stmt *s, ExprVisit f, void *user);

/* Calls f with every place in a buffer that s and the blocks below it name; access: PA_*. */
typedef void (*RefVisit)(void *user, const BufRef *r, int access);
void step_each_ref(const Step *s, RefVisit f, void *user);
/* What f makes of each statement of a list, which it gets alone: nothing (NULL), one or a list, one
 * behind the other. Blocks below are f's affair. */
typedef Stmt *(*StmtMap)(void *user, Stmt *s);
Stmt *stmt_map_list(Stmt *s, StmtMap f, void *user);
/* A copy of a list with what is below it, expressions rewritten (variables substituted when
 * unrolling or splitting). A loop keeps its variable unless `leaf` gives another one for it. */
Stmt *stmt_rewrite(Arena *a, ExprPool *p, const Stmt *s, ExprRewrite leaf, void *user);

/* ---- grids of blocks (grid.c) ---- */
enum {
  MAX_NEST = 3,
  MAX_THREADS = 1024,
  MAX_LATE = 7,
  MAX_SHARED = 227 << 10 /* bytes of a block; the most that any GPU has */
};
/* s and the loops of its kind that are alone in each other. Returns how many, at most MAX_NEST. */
int stmt_nest(const Stmt *s, const Stmt *nest[MAX_NEST]);
bool kernel_is_grid(const Kernel *k); /* its body is a nest of block loops */
/* Threads of a block; 0: there is no thread loop, or none of constant extents. */
int64_t kernel_threads(const ExprPool *p, const Kernel *k);
/* By local: each thread has its own, which lives over barriers. */
bool *kernel_private_locals(Arena *a, const Kernel *k);

/* ---- where shared locals lie (shared.c) ---- */
typedef struct SharedPlace {
  int first, last; /* statements of the block, from 0 on, that use the local */
  int64_t at, end; /* bytes; end 0: it is none of these, or nobody uses it */
} SharedPlace;
/* Of the grid k, by local: locals that are never used at one time may lie in the same memory, each at a
 * multiple of 128. Returns the bytes that a block needs. */
int64_t kernel_shared_places(Arena *a, const Kernel *k, SharedPlace **places);
/* Whether memory that another local has had is used again from that statement on: there no thread may
 * still be in what stands before it. */
bool shared_is_renewed(const Kernel *k, const SharedPlace *place, int statement);

/* ---- questions about buffers (loop.c) ---- */
/* The buffer that `id` lies in, through views; -1 when id is no buffer or views form a ring. */
int buffer_root(const Module *m, int id);
/* The write covers the whole buffer. */
bool write_is_whole(const Module *m, const BufRef *r, const Expr *count);

/* ---- text (ir/text/loop_*.c) ---- */
/* A whole text, as of graphs (graph.h): the model's line, assumptions, module, data of constants. */
void program_print(const Module *m, StrBuf *b, bool with_consts);
void program_print_beside(const Module *m, StrBuf *b, TextStore *store, const char *name);
int64_t program_text_bytes(const Module *m); /* of constants: they do not stand in the module */
/* Parses and verifies; the module's model gets an interface (Model.main without nodes), too. */
Module *program_parse(Arena *a, Diag *d, const char *text, const char *file, TextDataFn data,
                      void *user);
void module_print(const Module *m, StrBuf *b); /* the module alone */
void kernel_print(const Module *m, const Kernel *k, StrBuf *b);
/* NULL on error, which goes to diag. The model gives pool, arena and diag. */
Kernel *kernel_parse(Module *m, const char **text, const char *file);
Module *module_parse(Model *model, const char *text, const char *file);

/* ---- checking (loop_verify.c) ---- */
bool module_verify(const Module *m, const char *after_pass);
bool kernel_verify(const Module *m, const Kernel *k, const char *after_pass);
/* The parts of these for runtime symbols (loop_verify_symbols.c) and grids (loop_verify_grid.c). */
bool module_verify_symbols(const Module *m, const char *after_pass);
bool kernel_verify_grid(const Module *m, const Kernel *k, const char *after_pass);
/* Holds an EX_REDUCE: it can be interpreted, but no code is made of it. */
bool kernel_has_reduce(const Kernel *k);

/* ---- running (ir/eval/interp.c) ---- */
/* In which order blocks of a grid run, and threads between barriers. Results are the same. */
typedef enum ThreadOrder { ORDER_FORWARD, ORDER_BACKWARD, ORDER_SHUFFLED } ThreadOrder;

/* Every access is checked against its bounds; an error goes to diag. */
typedef struct InterpEnv {
  void *const *params; /* data of each parameter, scratch too */
  const int64_t *syms; /* by id of the symbol */
  ThreadOrder order;
} InterpEnv;
bool kernel_interpret(const Module *m, const Kernel *k, const InterpEnv *env);
/* Runs the whole program. ins, outs: data by position; an input may be NULL when it has a default,
 * an output has room for the upper bound of its size. syms: values by id; the caller's symbols are
 * given, runtime symbols are filled in. */
bool module_interpret(const Module *m, const void *const *ins, void *const *outs, int64_t *syms);
bool module_interpret_in(const Module *m, ThreadOrder order, const void *const *ins,
                         void *const *outs, int64_t *syms);
