/* Chains of convolutions that one kernel computes over strips of rows (kernels/strips.c): which there
 * are, what they save, and how a plan says it. */
#pragma once
#include "ir/ops/nn/contraction.h"
#include "passes/pass.h"

enum { MAX_STAGES = 6, MAX_STRIP_ROWS = 4, MAX_STRIP_PARTS = 16 };

/* One convolution with its epilogue, or a MaxPool, described as a depthwise convolution. Rows [m*y
 * + lo, m*y + hi) of it are needed for row y of the last stage, as far as they exist. */
typedef struct StripStage {
  const Value *root, *anchor;
  ConvInfo conv;
  bool max; /* MaxPool */
  int64_t m, lo, hi;
  int step;       /* elements of k that it multiplies at once: 4 of bytes */
  double work;    /* cycles of the whole */
  double weights; /* bytes */
} StripStage;

typedef struct StripChain {
  const PassCtx *c;
  StripStage stage[MAX_STAGES]; /* in order of execution */
  int n;
  int rows;      /* of the last stage at a time */
  int64_t parts; /* parallel parts of an image */
} StripChain;

/* ---- chains (strips.c) ---- */
/* The node whose plan says whether a chain ends in root: its contraction, or a MaxPool; or NULL. */
const Node *strip_node(const Value *root);
/* The chain that ends in root by the plan of strip_node(root). false: it has none. */
bool strip_chain(const PassCtx *c, const Value *root, StripChain *chain);
/* Elements of the ring of stage s. */
DType strip_ring_type(const StripStage *s);
/* Rows of stage s that are alive while `rows` rows of the last one are made; elements from one of its
 * pixels to the next. */
int64_t strip_ring_rows(const StripStage *s, int64_t rows);
int64_t strip_pixel_stride(const StripStage *s);
/* Sets which rows stages [from, to] must have for a row of stage `to`. */
void strip_set_rows(StripChain *chain, int from, int to);
/* Node.mark: its plan was there before; a chain has it. */
enum { STRIP_GIVEN = 1, STRIP_COVERED = 2 };
/* Plans chains of convolutions, which have plans, where these are not given; takes the chains of given
 * plans, or refuses what the graph does not have. false: reported. */
bool choose_strips(PassCtx *c);

/* ---- cycles (strip_cost.c) ---- */
double strip_work(const PassCtx *c, const StripStage *s);
/* Cuts the chain where that saves most and keeps what its last stage is part of, with rows and parts.
 * false: the last stage stays alone. */
bool strip_cut(StripChain *chain);
/* For --print-plan: what the chain takes apart and as one kernel. `rows`: of its plan; 0: it is none. */
void strip_tell(StripChain *chain, int rows);
