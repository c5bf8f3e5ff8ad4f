/* Inside codegen: emission of one kernel (or of the entry) into an LLVM module of its own. An
 * expression is emitted either as a scalar or, inside a vector loop, as a vector of c->vl lanes;
 * which of the two a value is shows in its LLVM type, and uniform parts stay scalar until something
 * needs them in lanes. */
#pragma once
#include <llvm-c/Core.h>

#include "codegen/analysis/kernel.h"
#include "codegen/backend.h"
#include "codegen/llvm/arch.h"

typedef LLVMValueRef Val;
typedef LLVMTypeRef Type;

/* ---- locals ---- */
typedef enum LocalKind {
  LK_NONE,
  LK_SCALARS,   /* registers: one scalar per element */
  LK_CHUNKS,    /* registers: vectors of elements, sliced by a vector variable */
  LK_ACROSS,    /* registers: a vector per element, which is the sum of its lanes */
  LK_LANES,     /* registers declared in a vector loop: one vector per element */
  LK_STACK,     /* memory */
  LK_LANE_STACK /* memory declared in a vector loop: element i of lane l at i*vl + l */
} LocalKind;

enum { MAX_SETS = 4 }; /* accumulator sets of an unrolled reduction loop */
enum { MAX_COPIED = 4 };

typedef struct LocalState {
  LocalKind kind;
  Val *slots; /* allocas of the register kinds */
  int n_slots;
  Val mem;
  Val *hidden; /* [MAX_SETS * count] lane accumulators of the running vector loop, made on demand */
  ReduceKind *hidden_kind; /* [count] */
} LocalState;

/* ---- state of one emission ---- */
typedef struct CacheSlot {
  uint32_t epoch, key; /* uid * 8 + mode */
  Val value;
} CacheSlot;

typedef struct VarState {
  Val value;     /* scalar, index type: of lane 0 for a vector variable */
  bool is_const; /* then k is its value */
  int64_t k;
  int depth;        /* loop nesting, 0: constant or outside all loops */
  int64_t multiple; /* value is a multiple of this */
} VarState;

/* By variable id. One for all kernels of a program, cleared behind each: ids go on from kernel to
 * kernel, and a table for each would make the work quadratic. */
typedef struct EmitVars {
  Arena *arena;
  VarState *state;
  int64_t *values; /* the constants among them, for expr_eval */
  int n;
  Vec(int) used;
} EmitVars;

typedef struct Emit {
  const Module *m;
  const Kernel *kernel; /* NULL while the entry is emitted */
  const Target *t;
  const ArchRow *arch;
  ExprPool *pool;
  Arena *arena;      /* scratch */
  const char *name;  /* prefix of symbols */
  const char *error; /* first failure */
  const Step *step;  /* of the entry: the one being emitted */
  LLVMContextRef ctx;
  LLVMModuleRef mod;
  LLVMBuilderRef b;
  Val fn;
  LLVMBasicBlockRef entry; /* allocas go before its terminator */
  Type i1, i8, i16, i32, i64, f32, f64, ptr, idx;

  int vl;       /* lanes of vector loops */
  int idx_bits; /* 64, or 32 on 32-bit targets */
  EmitVars *v;
  Val *syms; /* value of each symbol as i64, or NULL */
  int n_syms;
  /* or, in the entry, where symbols lie: i64 by symbol id; they may change between statements */
  Val sym_array;
  const Val *params; /* pointers of the kernel's parameters */
  LocalState *locals;
  const LocalUse *use; /* of each local */
  const int *align;    /* of each parameter's pointer, bytes */
  const bool *negates; /* of each parameter: KernelFacts */
  CacheSlot *cache;    /* values of the current statement; open addressing */
  uint32_t cache_size, cache_used, epoch;

  int rare;                /* depth of blocks that not all code passes (EX_rarely) */
  Vec(uint32_t) rare_keys; /* what the cache got in them */

  int depth;             /* loops around the cursor */
  const Expr *vvar;      /* variable of the running vector loop, or NULL */
  int64_t vvar_multiple; /* its value in lane 0 is a multiple of this */
  bool lane0;            /* emit for lane 0 only, as scalars */
  bool unchecked;        /* ranges of symbols need not hold yet: the entry, which checks them */
  bool force_narrow;     /* i64 in 32 bits, known to fit or not (indexes of 32-bit targets) */
  Val mask;              /* active lanes, NULL: all */
  int active;            /* in the tail of a copied-out loop: they are the first ones */
  bool under_if;         /* mask comes (also) from a condition: register locals must be blended */
  int set, sets;         /* accumulator set of the chunk being emitted */
  /* Loops being copied out, whose copies all pass here */
  const Expr *copied[MAX_COPIED];
  int n_copied;
  /* Block before the vector loop, for initial values of hidden accumulators */
  LLVMBasicBlockRef pre;
  int64_t zeros;             /* bytes of the shared block of zeros that are needed */
  struct MatrixRegs *matrix; /* of the kernel, or NULL: its matrix loops are plain ones */
} Emit;

/* A module under construction. */
typedef struct KernelIR {
  LLVMContextRef ctx;
  LLVMModuleRef mod;
  int64_t zeros; /* bytes of NAME_zeros that it reads */
} KernelIR;

/* ---- emit_types.c ---- */
/* Goes on in the module `into` when it has one, else makes it. */
void emit_init(Emit *c, const Program *p, const char *module_name, const KernelIR *into,
               Arena *scratch);
Type mem_type(const Emit *c, DType t); /* as stored */
Type reg_type(const Emit *c, DType t); /* as computed with: small floats are f32, bool is i1 */
Type vec_type(Type t, int n);
bool is_vec(Val v);
Val splat(Emit *c, Val v, int n);
Val as_lanes(Emit *c, Val v); /* splats a scalar to vl lanes */
/* n lanes by number, those of b behind those of a (NULL: there is no b); below 0: undefined. */
Val shuffle_lanes(Emit *c, Val a, Val b, const int *lanes, int n);
Val lanes_from(Emit *c, Val v, int from, int n); /* [from, from + n); undefined behind its end */
Val join_lanes(Emit *c, Val a, Val b);           /* those of b behind those of a, of as many */
void same_lanes(Emit *c, Val *a, Val *b);        /* both scalar or both vectors */
Type like(Type t, Val v);                        /* t, as vector when v is one */
Val k_int(Emit *c, Type t, int64_t v);           /* constants; t may be a vector type */
Val k_real(Emit *c, Type t, double v);
Val iota(Emit *c, Type elem);
/* Data of another object, on a cache line; found or added */
Val hidden_bytes(Emit *c, const char *name);
Val intrinsic(Emit *c, const char *name, int n_types, Type const *types, int n_args,
              Val const *args);
Val entry_alloca(Emit *c, Type t, int64_t count, unsigned align);
LLVMBasicBlockRef new_block(Emit *c, const char *name);
bool ends(const Emit *c); /* current block has a terminator */
void fn_attr(Emit *c, Val fn, const char *name, uint64_t value);
void fn_attr_str(Emit *c, Val fn, const char *name, const char *value);
void param_attr(Emit *c, Val fn, unsigned param, const char *name, uint64_t value);
void fn_target_attrs(Emit *c, Val fn);
bool fma_native(const Emit *c, Val v);
Val fp_mode_enter(Emit *c);
void fp_mode_leave(Emit *c, Val old);

/* ---- emit_cast.c ---- */
Val from_mem(Emit *c, DType t, Val v); /* stored form → register form */
Val to_mem(Emit *c, DType t, Val v);
Val round_to(Emit *c, DType t,
             Val v); /* result of arithmetic in the register type → a value of t */
Val emit_cast(Emit *c, DType to, DType from, Val v, bool saturate);
/* What f, an f32, is in f16 where it is one and the target computes in f16, else NULL; and back. */
Val emit_f16(Emit *c, Val f);
Val emit_from_f16(Emit *c, Val half);
bool emit_is_bf16(const Expr *e);          /* whether e, an f32, is a bf16 whatever its parts are */
Val round_mode(Emit *c, ExprOp op, Val v); /* floor, ceil, trunc, rint */

/* ---- emit_dot.c ---- */
/* Rows dot…; all scalars, or all lanes. two_fit: no element of b is -128. */
Val emit_dot(Emit *c, ExprOp op, Val a, Val b, Val sum, bool two_fit);

/* Of the operands of e, an fma, which are a and b: by an instruction for four products of 16 bits, or
 * NULL. */
Val emit_long_product(Emit *c, const Expr *e, Val a, Val b);
/* Whether a local of LocalUse.across is LK_ACROSS; the loop that adds products of bytes up in one, as
 * far as that is what s is; elements [k, k + vl) of such a local, which has a vector of each. */
bool across_fits(const Emit *c);
bool emit_across(Emit *c, const Stmt *s);
Val across_slice(Emit *c, const LocalState *s, int64_t k);

/* ---- emit_op.c ---- */
/* t: operand type; e for ranges or NULL */
Val emit_op(Emit *c, const Expr *e, ExprOp op, DType t, Val a, Val b, Val x);
Val emit_combine(Emit *c, ReduceKind kind, DType t, Val a, Val b);
Val emit_horizontal(Emit *c, ReduceKind kind, DType t, Val v); /* fixed tree over the lanes */
Val emit_pick(Emit *c, Val cond, Val a, Val b);                /* by lane, where cond is a vector */

/* ---- emit_expr.c ---- */
Val emit_expr(Emit *c, const Expr *e);  /* vector or scalar */
Val emit_index(Emit *c, const Expr *e); /* i64 expression of lane 0 in the index type; a scalar */
/* Of all lanes, in i32 where that holds it; may be a scalar */
Val emit_index_lanes(Emit *c, const Expr *e);
Val emit_cond(Emit *c, const Expr *e); /* a guard or condition, scalar or vector of i1 */
Val emit_wide(Emit *c, const Expr *e); /* scalar i64, also on 32-bit targets */
/* Marks e in the current statement; true when it was already */
bool emit_seen(Emit *c, const Expr *e);
Val emit_identity(Emit *c, ReduceKind kind, DType t);
/* Starts the body of fn: a block for allocas before the one that code goes into. */
void emit_begin(Emit *c, Val fn);
void emit_forget(Emit *c);                           /* drops cached values */
bool emit_const(Emit *c, const Expr *e, int64_t *v); /* constant under the bound variables */
/* With variables that are bound to constants replaced, and simplified: conditions often become
 * known. */
const Expr *emit_specialise(Emit *c, const Expr *e);
int expr_depth(const Emit *c, const Expr *e);

/* ---- emit_memory.c ---- */
/* A buffer, or an array on the stack (emit_local.c). */
typedef struct Mem {
  Val base;
  DType dtype;
  int align;      /* of base, bytes */
  bool invariant; /* never written while the kernel runs */
  int64_t count;  /* elements that are known to be there */
} Mem;
Val mem_load(Emit *c, const Mem *m, const Expr *index, const Expr *guard); /* guard may be NULL */
void mem_store(Emit *c, const Mem *m, const Expr *index, Val value);
/* A t of what `at`, a vector of pointers, points to, 0 in lanes that are off; and the converse. */
Val emit_masked_gather(Emit *c, Type t, Val at, unsigned align, Val mask);
void emit_masked_scatter(Emit *c, Val value, Val at, unsigned align, Val mask);
Val mem_address(Emit *c, const Mem *m, const Expr *index, const Expr *guard, int64_t access);
bool lane_uniform(const Emit *c, const Expr *e); /* the same in all lanes */
Val emit_load(Emit *c, const Expr *e);
/* n neighbours, from lane 0's element on, of a load without guard, as they are stored */
Val emit_load_row(Emit *c, const Expr *load, int n);
/* An i32 made of four bytes of memory, where the target multiplies such groups: a lane of a vector that
 * copies of a loop share, or four vectors byte by byte. NULL: not here. */
Val emit_group(Emit *c, const Expr *e);
bool group_has_lanes(const Emit *c, const Expr *e,
                     const Expr *var); /* neighbours of lanes of var */
void emit_store(Emit *c, int buffer, const Expr *index, Val value);
void emit_prefetch(Emit *c, int buffer, const Expr *index);
bool masks_cheap(const Emit *c, DType t);
Mem emit_param_mem(const Emit *c, int id);
/* ---- emit_matrix.c ---- */
/* Where the kernel's body begins and ends. */
void matrix_begin(Emit *c);
void matrix_end(Emit *c);
/* A declaration takes a register where the local is one; a block's end gives back what it took. */
void matrix_declare(Emit *c, const Stmt *s);
int matrix_taken(const Emit *c);
void matrix_release(Emit *c, int taken);
/* Matrix loops, from s to the last one that follows it, which is returned. */
const Stmt *emit_matrix(Emit *c, const Stmt *s);
/* A product of two rows and two columns, as far as that is what s is and an instruction does it. */
bool emit_square(Emit *c, const Stmt *s);
/* ---- emit_table.c ---- */
/* table[index], all 256 bytes of which may be read, for a vector of u8; NULL where that is no faster
 * than one by one. */
Val emit_byte_table(Emit *c, Val table, unsigned align, Val index);
/* ---- emit_local.c ---- */
Val emit_local(Emit *c, const Expr *e);
void emit_local_set(Emit *c, int local, const Expr *index, Val value);
void emit_local_acc(Emit *c, int local, const Expr *index, ReduceKind kind, const Expr *value);
void local_declare(Emit *c, int local);
Mem emit_stack_mem(const Emit *c, int local);
void locals_finish_lanes(Emit *c); /* ends the reductions over lanes of a vector loop */

/* ---- emit_loop.c ---- */
void emit_stmts(Emit *c, const Stmt *s);
void emit_serial(Emit *c, const Stmt *s, Val begin,
                 Val end); /* iterations [begin, end); NULL: all */
/* for (iv = begin; iv < end; iv += step) body(user, iv); at least one iteration when `sure`. */
void emit_counted(Emit *c, Val begin, Val end, int64_t step, bool sure,
                  void (*body)(Emit *c, void *user, Val iv), void *user);
void vars_clear(EmitVars *v);
void bind_const(Emit *c, const Expr *var, int64_t v);
void bind_value(Emit *c, const Expr *var, Val v, int depth);
/* ---- emit_vector.c ---- */
void emit_vector(Emit *c, const Stmt *s);

/* ---- emit_kernel.c ---- */
/* Not thread-safe: it makes expressions in the module's pool. NULL, or the reason of failure (in
 * scratch). `out` is empty, or the module that the kernel is added to. */
const char *emit_kernel(const Program *p, int position, EmitVars *vars, Arena *scratch,
                        KernelIR *out);

/* ---- codegen/entry/entry.c ---- */
/* The module with NAME_invoke and everything else that is not a kernel; `zeros`: bytes of
 * NAME_zeros. NULL or the reason of failure, and the step that it is about. */
const char *emit_program(const Program *p, int64_t zeros, KernelIR *out, const Step **at);

/* ---- codegen/entry/backend.c ---- */
typedef struct LLVMUnit {
  Unit unit;
  KernelIR ir;
  LLVMMemoryBufferRef object;
  LLVMMemoryBufferRef bitcode; /* optimised, where a text is wanted */
  char *error;
} LLVMUnit;

/* ---- machine.c ---- */
void machine_init(void); /* LLVM's targets; before any thread */
/* Verifies, optimises and emits into the unit. Thread-safe on its own unit; false: u->error. */
bool machine_emit(LLVMUnit *u);
/* All units in one module, as assembly or LLVM IR. NULL, or the reason of failure, and the unit that
 * it is about. */
const char *machine_write(const Program *p, Unit *const *units, int n, EmitKind kind, FILE *f,
                          Unit **at);
