/* Trials: the program that the passes behind would make of the graph as it is. Internal to passes/form. */
#pragma once
#include "passes/pass.h"

/* NULL: there is none, which the pipeline will say. `ask` (or NULL) is called before what the passes
 * decided is forgotten: which values are stored, how they lie, how contractions are computed. */
typedef void (*TrialAsk)(void *user, const Module *m);
const Module *trial_run(PassCtx *c, TrialAsk ask, void *user);
/* Arena and scratch for one thread, sizes of symbols guessed. */
double module_bytes(const Module *m);
bool module_has_symbols(const Module *m); /* these bytes depend on sizes of the caller */
