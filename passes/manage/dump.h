/* Numbered files with the IR after every pass (--ir-dir). Each is a text that can be given to burin,
 * which then goes on from there. */
#pragma once
#include "passes/pass.h"

typedef struct Dump {
  const char *dir;
  bool with_data;
  TextStore store; /* data of constants, which the files share */
} Dump;

/* Writes the IR after `row` (NULL: before the first pass) as number k. False: reported. */
bool dump_write(Dump *d, const PassCtx *c, int k, const PassRow *row);
