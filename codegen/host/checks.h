/* The table of checks (checks.c): a row for each place where a run can fail, with the text that the
 * values go into. */
#pragma once
#include "codegen/analysis/program.h"
#include "runtime/abi.h"

/* A new row; {0} to {2} in the text stand for values of the run. Returns its position. */
int check_add(const Program *p, int status, const Loc *loc, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The row of what inference took for granted, and what the values are (NULL: not needed). */
int check_assume(const Program *p, const DimAssume *a, const Expr *values[3]);
const char *check_symbol_text(const Program *p, int id);
const char *check_node_text(const Program *p, const Loc *loc);
int check_call(const Program *p, const Step *s); /* of a runtime function that fails */
