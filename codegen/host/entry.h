/* What an entry does, in order: what it refuses, how it takes defaults, then the steps. Every
 * backend walks this list, so that all refuse the same, with the same rows of the checks. */
#pragma once
#include "codegen/host/checks.h"

/*   kind              what the code does                                   reads
 *   ----------------  ---------------------------------------------------  -----------------------
 *   EN_OPTIONS        completes the options (check); refuses more threads  check+1, n: most threads
 *   EN_ARGUMENT       refuses a NULL array: inputs, outputs, sizes         k: 0, 1, 2
 *   EN_WEIGHTS        refuses weights that are not mapped                  n: their hash
 *   EN_SYMBOLS        gives symbols the caller's values, or their bounds
 *   EN_SYMBOL         refuses values below n, or (check+1) above e         k: id; e NULL: INT32_MAX
 *   EN_FITS           refuses e bytes that cannot be addressed             e
 *   EN_ASSUME         refuses sizes for which `assume` is false            assume, values
 *   EN_DEFAULTS       puts defaults in place of NULL pointers
 *   EN_DEFAULT        refuses another value than a pinned default          k: input; check < 0: any
 *   EN_DEFAULT_SIZE   refuses a default whose size n is not e              k: input, e, n
 *   EN_DEFAULTS_DONE  from here on, inputs are those with defaults
 *   EN_POINTER        refuses NULL, unless it has no bytes (e)             k: of all, e, some
 *   EN_SAME           refuses an input that is not NULL and not an output  k: input, n: output
 *   EN_ARENA          decides threads; refuses NULL, (check+1) an odd
 *                     address, (check+2) too few bytes
 *   EN_HEAP           refuses no heap; forgets what lies in it
 *   EN_STEPS          runs the steps of the program
 *   EN_RESULTS        tells the caller the run-time symbols */
typedef enum EntryKind {
  EN_OPTIONS,
  EN_ARGUMENT,
  EN_WEIGHTS,
  EN_SYMBOLS,
  EN_SYMBOL,
  EN_FITS,
  EN_ASSUME,
  EN_DEFAULTS,
  EN_DEFAULT,
  EN_DEFAULT_SIZE,
  EN_DEFAULTS_DONE,
  EN_POINTER,
  EN_SAME,
  EN_ARENA,
  EN_HEAP,
  EN_STEPS,
  EN_RESULTS
} EntryKind;

typedef struct EntryItem {
  EntryKind kind;
  int check; /* row of its (first) check */
  int k;
  const Expr *e;
  int64_t n;
  bool some; /* POINTER: it always has bytes */
  const DimAssume *assume;
  const Expr *values[3]; /* ASSUME: of the check; NULL: not needed */
} EntryItem;
typedef Vec(EntryItem) EntryList;

EntryList entry_list(const Program *p);
