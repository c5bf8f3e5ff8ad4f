/* Inside the C backend: text of one file of C99 for a whole program. Kernels are static functions
 * with the runtime's calling convention (runtime/core/rt.h), loops of every kind are plain loops.
 * An expression becomes one C expression; what is used twice in a statement, or would make the line
 * long, gets a name first. */
#pragma once
#include "codegen/backend.h"
#include "codegen/host/entry.h"

typedef struct CMemo { /* of an expression, by uid, in the current statement */
  uint32_t epoch;
  int uses;
  const char *text; /* NULL: not named */
} CMemo;

/* For the units of one program. */
typedef struct CState {
  Program *p;
  CMemo *memo;
  int n_memo;
  uint32_t epoch;
  bool fmod; /* some kernel needs it */
  StrBuf kernels;
  StrBuf entry;
} CState;

/* A function being written. */
typedef struct CText CText;
struct CText {
  CState *s;
  const Program *p;
  ExprPool *pool;
  Arena *arena; /* scratch */
  StrBuf *out;
  int indent;
  const Kernel *kernel; /* NULL: the entry, where symbols are unchecked and lie in sym[] */
  bool device;          /* CUDA: a GPU has more instructions, and is slow with 64 bits */
  bool *stored;         /* by local: it lies in memory in its stored form; NULL: none does */
  bool *params, *syms;  /* used ones */
  int temps;            /* names given */
  int loops;            /* likewise, to the ends of loops */
  Vec(uint32_t) named;  /* uids that have a name, in order */
  const char *error;    /* first failure */
  const Step *step;     /* of the entry: the one being written */
  /* Writes a nest of matrix loops; NULL: they are loops. lane: innermost variable of the threads */
  bool (*matrix)(CText *c, const Stmt *s);
  /* Writes a vector loop as wider accesses; false: nothing was written. NULL: they are loops. */
  bool (*vector)(CText *c, const Stmt *s);
  const Expr *lane;
};

/* ---- expr.c ---- */
const char *c_mem_type(DType t);
const char *c_reg_type(DType t);
/* A statement begins: nothing is known of loads and locals. */
void c_forget(CText *c);
/* Writes the names that e needs, and returns it as an operand. Several expressions of a statement
 * are announced first, by c_count. */
const char *c_value(CText *c, const Expr *e);
void c_count(CText *c, const Expr *e);
/* In the current statement e is what `text` says: an operand, which needs no name. */
void c_known(CText *c, const Expr *e, const char *text);
const char *c_stored(CText *c, DType t, const char *value); /* register form to stored form */
/* An element of memory or of a stored local of type t, as it lies there; NULL: e is none. */
const char *c_moved(CText *c, DType t, const Expr *e);
const char *c_loaded(CText *c, DType t, const char *stored);
const char *c_cast(CText *c, DType to, DType from, const char *value, bool saturate);
const char *c_op(CText *c, const Expr *e, ExprOp op, DType t, const char *const v[3]);
const char *c_i64(CText *c, int64_t v);
void c_line(CText *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* As a string literal; NULL is NULL. */
const char *c_string(Arena *a, const char *s);

/* CUDA: an index that fits 32 bits, as all that it is made of is computed. */
bool c_is_narrow(const CText *c, const Expr *e);
/* The element of a local, as it is read. */
const char *c_local(CText *c, int local, const char *index);

/* ---- kernel.c ---- */
/* Statements that are no blocks and threads of a grid. */
void c_statements(CText *c, const Stmt *s);
const char *c_kernel(CState *s, const Kernel *k, Arena *scratch, int64_t *stack);

/* ---- entry.c, checks.c, steps.c ---- */
const char *c_entry(CState *s, Unit *u); /* sets u->stack, and u->step on failure */
typedef struct CEntry {
  CText *c;
  const Program *p;
  bool *assigned; /* run-time symbols that have their value, in textual order */
  int call;       /* profile position */
} CEntry;
const char *c_wide(CText *c, const Expr *e); /* i64, of symbols */
const char *c_fits(CText *c, const Expr *bytes);
/* Goes on when `ok`; else the run fails with this check and up to three values. */
void c_require(CEntry *e, const char *ok, int check, const char *a, const char *b, const char *d);
void c_require_assume(CEntry *e, const DimAssume *a);
void c_check(CEntry *e, const EntryItem *item); /* what stands before the steps */
void c_steps(CEntry *e, const Step *s);

/* ---- info.c ---- */
void c_info(CState *s, StrBuf *out);
void c_defaults(CState *s, StrBuf *out);
void c_write_weights(const Program *p, FILE *f);
const char *c_weight(CText *c, int buffer); /* address of a constant */

/* ---- sources.c: texts that files of C begin with ---- */
void c_write_scalar(FILE *f);
const char *c_scalar_text(void);
void c_write_runtime(FILE *f);
void c_write_fmod(FILE *f);
/* The runtime functions that the program calls. NULL, or a step whose function is not known. */
const Step *c_write_operators(const Program *p, FILE *f);
const Step *c_lacks(const Program *p); /* the same, before anything is made; NULL: none */
