/* Diagnostics. A user error cannot be reported without its location, and the function that reports
 * it returns false, so that `return diag_error(...)` is the whole error path. No code outside
 * driver/ exits. */
#pragma once
#include <stdio.h>
#include "ir/base/arena.h"

/* Where something came from. A fused node keeps a chain through `also`. All strings may be NULL. */
typedef struct Loc {
  const char *file;      /* model file as the user named it */
  const char *graph;     /* region path below the main graph, e.g. "then_branch of if_3" */
  int node;              /* index in the graph; -1: not a node */
  const char *node_name; /* node name, or the name of the thing (initializer, input) */
  const char *op, *domain;
  int opset;
  const struct Loc *also; /* next origin of a fused node */
} Loc;

/* Error codes: stable numbers, each with the exit status it leads to (diag.def). */
typedef enum ErrCode {
#define E(id, number, exit, text) ERR_##id = number,
#include "ir/base/diag.def"
#undef E
} ErrCode;

typedef struct Diag Diag;
Diag *diag_new(Arena *a);
/* All return false. A message is `LOC: error[E0132]: text`; names are escaped (control bytes as
 * \xNN). */
bool diag_error(Diag *d, const Loc *loc, ErrCode code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
bool diag_verror(Diag *d, const Loc *loc, ErrCode code, const char *fmt, va_list ap);
/* Belongs to the last error */
void diag_note(Diag *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag_hint(Diag *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag_warning(Diag *d, const Loc *loc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* A bug of ours: names the pass; the driver writes a reproducer. */
bool diag_internal(Diag *d, const Loc *loc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* While `text` is not NULL, faults of the IR are those of this text, which a user gave: diag_internal
 * reports an error of it. */
void diag_blame(Diag *d, const char *text);
int diag_errors(const Diag *d);          /* number of errors so far */
int diag_exit_status(const Diag *d);     /* of the first error; 0 when none */
void diag_print(const Diag *d, FILE *f); /* everything, in order; at most 20 errors, then a count */
const char *loc_text(Arena *a, const Loc *loc);
/* The chain of `first` with that of `then` behind it; either may be NULL. Lives in a. */
const Loc *loc_joined(Arena *a, const Loc *first, const Loc *then);
bool loc_same(const Loc *a, const Loc *b); /* the same nodes; NULL is none */
