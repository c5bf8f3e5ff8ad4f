/* What the parsers of loop IR share: kernels, buffers and modules (loop_parse.c), steps (step_parse.c). */
#pragma once
#include "ir/loop/loop.h"
#include "ir/text/frame.h"

enum { MAX_DEPTH = 100 };

typedef struct OpenLoop {
  const char *name;
  const Expr *var;
} OpenLoop;

typedef struct LoopParser {
  Module *m;
  Kernel *k; /* the kernel being parsed */
  Arena *a;
  ExprPool *p;
  TextParser *x;      /* text, cursor and tokens */
  Vec(OpenLoop) vars; /* of open loops */
  int depth;
  bool whole; /* the data of constants may stand behind the module */
} LoopParser;

/* ---- loop_parse.c; false: reported ---- */
bool loop_parse_int(LoopParser *t, int64_t *out);
bool loop_parse_name(LoopParser *t, const char **out);
bool loop_parse_loc(LoopParser *t, const Loc **out);
bool loop_parse_dtype(LoopParser *t, DType *out);
bool loop_parse_id(LoopParser *t, char kind, int n, int *out);
bool loop_parse_size(LoopParser *t, const Expr **out);
bool loop_parse_symbol(LoopParser *t, int *id);
bool loop_parse_ref(LoopParser *t, BufRef *r);

/* ---- step_parse.c ---- */
bool loop_parse_steps(LoopParser *t, Step **out);
