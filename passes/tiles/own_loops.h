/* The loops of algorithms besides register tiles, as their plans have them: strips of pixels of a
 * depthwise convolution or MaxPool, lines and vectors of one with few output channels, blocks of
 * queries and keys of an attention. The kernels of passes/kernels make loops of the answers. Each
 * *_problem says why a kernel cannot have loops that a text names; NULL: it can. */
#pragma once
#include "passes/choose/contraction.h"
#include "passes/choose/conv_axes.h"
#include "passes/pass.h"

/* ---- depthwise, and MaxPool described as such (strips.c) ---- */
PlanLoops strip_choose_loops(const PassCtx *c, const Node *n, const ConvInfo *conv,
                             const Axis *axes, bool max);
const char *strip_loops_problem(const PassCtx *c, const PlanLoops *l);

/* ---- few output channels (thin.c); by_channel: lanes over input channels, not over pixels ---- */
PlanLoops thin_choose_loops(const PassCtx *c, const ConvInfo *conv, const Axis *axes,
                            bool by_channel);
const char *thin_loops_problem(const PassCtx *c, const ConvInfo *conv, const Axis *axes,
                               const PlanLoops *l);

/* ---- attention (attention.c) ---- */
/* Least size of a block of queries and keys that is worth being asked whether masks hide it. */
enum { ATTENTION_ROWS = 56, ATTENTION_SKIP = 128 };
/* hides: there are masks that may hide all of such a block. */
PlanLoops attention_choose_loops(const PassCtx *c, const Attention *a, bool hides);
const char *attention_loops_problem(const PassCtx *c, const Attention *a, const PlanLoops *l);
/* Whether its rows see the keys in more than one block. */
bool attention_is_online(const Attention *a, const PlanLoops *l);
const Expr *attention_heads(ExprPool *p, const Attention *a);
/* Multiply-adds of both products. */
double attention_work(ExprPool *p, const Attention *a);
