/* An expression made ready to be evaluated many times: every node remembers its value until a
 * variable it depends on changes, so that what does not use the inner loop's variable is computed
 * once per outer step. Internal to ir/ (graph_eval.c). */
#pragma once
#include "ir/expr/expr.h"

typedef struct Tape Tape;
typedef struct TapeEnv {
  void *user;
  Scalar (*sym)(void *user, int id);
  Scalar (*load)(void *user, DType t, int buffer, int64_t index);
} TapeEnv;
Tape *tape_new(Arena *a, ExprPool *p, const Expr *root);
/* A variable that the root does not use is ignored */
void tape_set(Tape *t, const Expr *var, int64_t value);
Scalar tape_run(Tape *t, const TapeEnv *env);
