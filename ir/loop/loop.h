/* Loop IR: kernels (trees of loops over buffers) and the program that calls them.
 *
 * A kernel has scalar semantics: every loop kind means the same iterations, so the interpreter
 * ignores kinds. Kinds only say how code is generated: serial    a counted loop parallel iterations
 * are independent; at most one, and it is then the kernel's only top statement; split statically
 * over threads unroll    constant extent, copied vector    iterations run in lanes. Inside: a load
 * whose index has stride 1 in the variable becomes a vector load, stride 0 a splat, else a gather;
 * tails are masked or scalar, by target. Locals: declared inside the loop → one per lane; declared
 * outside and indexed with stride 1 → a slice; declared outside, index uniform, changed only by ACC
 * → a reduction over lanes. Serial loops inside a vector loop have uniform bounds. */
#pragma once
#include "ir/graph/graph.h"
#include "ir/sizes/sizes.h"

typedef struct ExternRow ExternRow; /* ir/op/op.h */

typedef enum StmtKind { ST_FOR, ST_STORE, ST_LOCAL, ST_SET, ST_ACC, ST_IF, ST_PREFETCH } StmtKind;
typedef enum ForKind { FOR_SERIAL, FOR_PARALLEL, FOR_UNROLL, FOR_VECTOR } ForKind;

typedef struct Stmt Stmt;
struct Stmt {
  StmtKind kind;
  Stmt *next;          /* following sibling */
  /* FOR: for var in [lo, lo+extent) — range stands with the variable. body. */
  ForKind loop;
  const Expr *var;
  Stmt *body;          /* FOR; IF: then */
  Stmt *otherwise;     /* IF: else or NULL */
  const Expr *cond;    /* IF */
  /* STORE: buffer[index] = value.  PREFETCH: buffer[index].  SET: local[index] = value.
   * ACC: local[index] = combine(reduce, local[index], value).  LOCAL: declares `id` in the
   * enclosing block. */
  int id;              /* buffer parameter or local */
  const Expr *index, *value;
  ReduceKind reduce;
};

/* A register tile or small scratch of a kernel; lives from its ST_LOCAL to the end of that block. */
typedef struct Local {
  const char *name;
  DType dtype; /* a compute type, or a storage type for stack scratch */
  int64_t count; /* elements, constant */
  bool stack; /* false: registers — every index is constant after unrolling (plus a vector
                 variable); true: an aligned array on the stack or in thread scratch, any index */
} Local;

typedef enum ParamAccess { PA_READ = 1, PA_WRITE = 2, PA_READWRITE = 3 } ParamAccess;
typedef struct Param { /* buffer parameter of a kernel; id = position */
  const char *name;
  DType dtype;
  const Expr *count; /* elements, for bounds checks */
  ParamAccess access;
  bool constant; /* weights: invariant loads */
  bool scratch; /* one per thread, from the arena; contents undefined at entry of each parallel
                   iteration */
  int align; /* bytes, at least the element's; 64 for whole buffers */
} Param;

typedef struct Kernel {
  const char *name; /* k12_conv_relu: unique, from op names only, never from the model */
  Vec(Param) params;
  Vec(Local) locals;
  Stmt *body;
  const Loc *loc; /* chain of all graph nodes that went in */
  const Expr *flops; /* multiply-adds ×2 of a call, over symbols; NULL: none. For profiles */
  double grain; /* estimated cycles of one parallel iteration (0: unknown) */
} Kernel;

/* ---- program ---- */
typedef enum BufferKind {
  BUF_INPUT,
  BUF_OUTPUT,
  BUF_WEIGHT,
  BUF_ARENA,
  BUF_VIEW,
  BUF_UNSET /* one bool: no input that has a default is given */
} BufferKind;
typedef struct Buffer {
  int id;
  BufferKind kind;
  DType dtype;
  const Expr *count; /* elements (over symbols) */
  int index; /* INPUT, OUTPUT: which one */
  const ConstData *data; /* WEIGHT: contents in final (packed) order. INPUT: its default, or NULL */
  bool pinned; /* INPUT: no other value than the default may be given */
  const Expr *offset; /* ARENA: bytes from the arena's start, set by the memory planner. VIEW:
                         elements into base */
  int base; /* VIEW: the buffer it lies in */
  int inplace_of; /* ARENA: may take the place of this buffer (its last reader is the writer), or -1 */
  const char *name; /* for dumps */
} Buffer;

typedef struct BufRef {
  int buffer;
  const Expr *offset; /* elements, may use symbols (loop counters); NULL: 0 */
} BufRef;

typedef struct TensorRef { /* a tensor given to a runtime function */
  BufRef buf; /* buffer -1: absent optional */
  DType dtype;
  int rank;
  const Expr *const *dims;
} TensorRef;

typedef enum StepKind {
  STEP_KERNEL,
  STEP_EXTERN,
  STEP_COPY,
  STEP_IF,
  STEP_LOOP,
  STEP_SYM,
  STEP_CHECK
} StepKind;
/* A question (passes/choose/choice.h) whose answer the time of a step measures. */
typedef struct StepKey {
  const char *key;
  const struct StepKey *next;
} StepKey;
typedef struct Step Step;
struct Step {
  StepKind kind;
  Step *next;
  const Loc *loc;
  const StepKey *keys; /* only where tuning asks for them */
  /* KERNEL */
  Kernel *kernel;
  const BufRef *args; /* one per non-scratch parameter, in order */
  int n_args;
  /* EXTERN: outputs whose dims hold runtime symbols get them assigned from what the function
   * reports */
  const ExternRow *ext;
  const TensorRef *ins, *outs;
  int n_ins, n_outs;
  const int64_t *words; /* packed attributes */
  int n_words;
  int scratch; /* arena buffer, or -1 */
  /* COPY: count elements of src to dst */
  BufRef src, dst;
  const Expr *count;
  /* IF: cond is one bool. LOOP: runs while iter < trip (NULL: no limit) and *cond (buffer -1:
   * always); cond is read before each iteration. iter_sym counts; trips_sym (or -1) gets the final
   * count. */
  BufRef cond;
  const Expr *trip;
  int iter_sym, trips_sym;
  Step *body, *otherwise;
  /* SYM: symbol = integer element 0 of src, checked against [lo, hi]; outside is a run-time error.
   * Or, when src.buffer is -1, symbol = value. */
  int sym;
  IndexRule index; /* SYM: it is the key of an index (SymDef) */
  const Expr *value;
  const Expr *lo, *hi;
  DimAssume check; /* CHECK: where it does not hold the run fails */
};

typedef struct Module {
  Model *model; /* graph inputs and outputs, symbols, pool, diag, arena */
  Vec(Buffer) buffers; /* id = position */
  Vec(Kernel *) kernels; /* distinct ones, in order of first use */
  Step *steps;
  const Expr *arena_bytes; /* set by the memory planner; closed formula of the symbols */
  const Expr *
      scratch_bytes; /* per thread, behind the arena: total = arena_bytes + threads*scratch_bytes */
  int64_t arena_lower_bound; /* largest sum of live bytes; -1 when symbolic */
  /* where inputs and outputs of the model live: buffer ids by position; an output may equal an
   * input or weight only through a COPY step */
  Vec(int) inputs, outputs;
  int max_threads;
} Module;

/* ---- building (loop.c) ---- */
Module *module_new(Model *m);
Buffer *module_add_buffer(Module *m, BufferKind kind, DType t, const Expr *count, const char *name);
Kernel *kernel_new(Module *m, const char *stem, const Loc *loc);
int kernel_add_param(Module *m, Kernel *k, Param p); /* id */
int kernel_add_local(Module *m, Kernel *k, Local l); /* id; still needs its stmt_local */
/* Statement lists are built at a cursor: StmtList l = {0}; stmt_add(&l, stmt_store(...)); k->body =
 * l.first */
typedef struct StmtList {
  Stmt *first, *last;
} StmtList;
void stmt_add(StmtList *l, Stmt *s); /* s may be a list; NULL is ignored */
Stmt *stmt_for(Arena *a, ForKind kind, const Expr *var, Stmt *body);
Stmt *stmt_store(Arena *a, int buffer, const Expr *index, const Expr *value);
Stmt *stmt_local(Arena *a, int local);
Stmt *stmt_set(Arena *a, int local, const Expr *index, const Expr *value);
Stmt *stmt_acc(Arena *a, int local, const Expr *index, ReduceKind kind, const Expr *value);
Stmt *stmt_if(Arena *a, const Expr *cond, Stmt *then, Stmt *otherwise);
Stmt *stmt_prefetch(Arena *a, int buffer, const Expr *index);
Step *step_new(Module *m, StepKind kind, const Loc *loc);
/* Calls f with every buffer that s (alone, not those behind it) names, those of its body too;
 * access: PA_*. */
void step_each_ref(const Step *s, void (*f)(void *user, const BufRef *r, int access), void *user);
/* A copy with expressions and statements rewritten (substitution of variables when unrolling,
 * splitting). */
Stmt *stmt_rewrite(Arena *a, ExprPool *p, const Stmt *s, ExprRewrite leaf, void *user);

/* ---- text, checking, running ---- */
void module_print(const Module *m, StrBuf *b);
void kernel_print(const Module *m, const Kernel *k, StrBuf *b);
Kernel *kernel_parse(Module *m, const char **text, const char *file); /* NULL on error (diag) */
Module *module_parse(Model *model, const char *text,
                     const char *file); /* model gives pool, arena, diag; NULL on error */
bool module_verify(const Module *m, const char *after_pass);
/* Its part for runtime symbols (loop_verify_symbols.c). */
bool module_verify_symbols(const Module *m, const char *after_pass);
bool kernel_verify(const Module *m, const Kernel *k, const char *after_pass);
bool kernel_has_reduce(
    const Kernel *k); /* holds an EX_REDUCE: fine for the interpreter, not for code generation */
/* Interpreter. Tensors as in runtime/abi.h. Every access is bounds-checked; an error goes to diag. */
struct RtTensor;
typedef struct InterpEnv {
  void *const *params; /* data of each parameter (scratch too) */
  const int64_t *syms; /* by symbol id */
} InterpEnv;
bool kernel_interpret(const Module *m, const Kernel *k, const InterpEnv *env);
/* Runs the whole program: ins/outs by position (an input may be NULL when it has a default); outs'
 * data must hold the (upper bound) size; dims
 * of outs are set. syms: values of all caller symbols by id; runtime symbols are filled in. */
bool module_interpret(const Module *m, const void *const *ins, void *const *outs, int64_t *syms);

/* ---- questions about buffers ---- */
/* The buffer that `id` lies in, through views; -1 when id is no buffer or views form a ring. */
int buffer_root(const Module *m, int id);
/* The write covers the whole buffer. */
bool write_is_whole(const Module *m, const BufRef *r, const Expr *count);
