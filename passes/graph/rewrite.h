/* Replacing values while walking a graph: instead of searching all users at every replacement, a
 * pass records `old → new` and applies the map to each node as it comes to it (nodes are in
 * topological order). Internal to passes/. */
#pragma once
#include "passes/pass.h"

typedef struct Forward {
  PassCtx *c;
  Value **to; /* by value id; NULL: itself */
  int n;
  void *user; /* of the pass */
} Forward;
Forward forward_new(PassCtx *c);
Value *forward_get(const Forward *f, Value *v); /* NULL for NULL */
/* All later uses of `old` become `by`. Types must agree: reported as an internal error otherwise.
 */
bool forward_set(Forward *f, const Node *n, Value *old, Value *by);
void forward_node(Forward *f, Node *n);     /* inputs, symbol sources; not its regions */
void forward_outputs(Forward *f, Graph *g); /* outputs of g */
/* Runs `one` on every node of g and its regions, inputs already replaced, in order. `one` may
 * append nodes (graph_add_node with before = NULL puts them in front of n); *keep false drops n.
 * Regions are walked before their owner. */
typedef bool (*WalkFn)(Forward *f, Node *n, bool *keep);
bool forward_walk(Forward *f, Graph *g, WalkFn one);

/* Puts what `expand` builds in the place of n (*keep becomes false). False: reported. */
bool expand_node(Forward *f, Node *n, ExpandFn expand, bool *keep);

/* The branch of an If that never runs, when its condition is known; else NULL. Such a branch may be
 * of any type: it is not inferred, and walks leave it alone but for replaced values. */
const Graph *untaken_branch(const Node *n);
bool graph_is_expanded(const Graph *g); /* no composite operator is left (expand.c) */
/* The constant in input k of n, or NULL. */
const ConstData *const_input(const Node *n, int k);
bool node_is_append(const Node *n);                   /* burin.AppendCache with a past */
bool node_is(const Node *n, const char *name);        /* default domain */
const Node *def_is(const Value *v, const char *name); /* v's node when it is that op */
Value *half_of(const Value *v); /* of 16 bits, whose Cast to f32 v is; or NULL */
bool value_same_type(const Value *a, const Value *b); /* kind, dtype, shape */
/* All elements of a float or int constant equal `v`. */
bool const_all(const ConstData *c, double v);
/* By symbol id: appears in the sizes or known contents of something that is used (dce.c). */
const bool *live_symbols(PassCtx *c);
/* n is a runtime function or region that assigns one of those symbols as a size of its results. */
bool node_finds_size(const Node *n, const bool *live);
