/* Internal to the evaluator of graphs: its state, and the parts that live in different files. */
#pragma once
#include "ir/op/op.h"
#include "runtime/abi.h"

/* A heap of strings in an arena. */
BurinHeap heap_in_arena(Arena *a);

typedef struct GraphEval {
  Model *m;
  Arena *arena;
  const ConstData **value; /* by value id; NULL: not computed */
  int n_value;
  int64_t *sym; /* by symbol id */
  bool *sym_known;
  int n_sym;
  int half;        /* of elements of 128 bits: which one is computed */
  BurinHeap *heap; /* of strings; NULL: none are made (folding) */
  bool quiet;      /* failures are not reported (folding) */
  bool failed;     /* an access outside a value, an unknown symbol */
} GraphEval;

bool eval_fail(GraphEval *ev, const Node *n, ErrCode code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
const ConstData *eval_value(GraphEval *ev, const Value *v); /* NULL: not computed */
/* Also gives symbols their values from its dims */
void eval_set(GraphEval *ev, const Value *v, const ConstData *c);
/* zeroed; NULL: size overflows */
ConstData *eval_tensor(GraphEval *ev, DType t, int rank, const int64_t *dims);
bool eval_node(GraphEval *ev, Node *n);
bool eval_nodes(GraphEval *ev, Graph *g);
bool eval_region(GraphEval *ev, Node *n); /* graph_eval_region.c */
