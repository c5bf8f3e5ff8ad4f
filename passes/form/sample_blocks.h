/* A part of the graph that runs over blocks of samples, one block after the other. Internal to
 * passes/form. */
#pragma once
#include "passes/pass.h"

/* What a trial of the graph as it was decided. */
typedef struct Decided {
  const bool *stored;      /* by value id */
  const Plan *const *plan; /* by position of the node in the main graph; NULL: none */
  double bytes, cycles;
} Decided;

typedef struct SampleBlocks {
  PassCtx *c;
  Model *m;
  Graph *g;
  Arena *a; /* dies with the pass */
  const Decided *was;
  Value *input;        /* of the model: its first dimension counts the samples */
  const Expr *samples; /* that dimension */
  int64_t most;        /* samples of a block */
  const bool *trained; /* by value id: it depends on what a step changes */
  const Expr *size;    /* the same, or less where there are fewer */

  /* Of the values that were there, by id: */
  int n_values;
  const Expr **rows; /* of one sample; NULL: the first dimension does not go with samples */
  uint8_t *state;    /* SampleState */
  Value **to;        /* what stands for it inside */

  Graph *body;
  Value *first;        /* sample of the block, in the body */
  Value *count;        /* of samples in a block: i64[1], outside */
  Value *trips;        /* blocks */
  Vec(Node *) inside;  /* nodes of the main graph that the body has copies of */
  Vec(Node *) before;  /* the nodes of the main graph, as they were */
  Vec(Value *) border; /* of these values the rest reads the whole */
  Vec(Value *) whole;  /* what it reads instead */
  int n_assumes;
} SampleBlocks;

typedef enum SampleState {
  SAMPLE_APART,  /* does not depend on what is inside */
  SAMPLE_INSIDE, /* computed block by block */
  SAMPLE_BEHIND  /* depends on values inside */
} SampleState;

/* Moves what can be computed sample by sample, and depends on nothing that the model trains, into a
 * Loop. False: there is no such part with a product in it, and the graph is as it was. */
bool sample_blocks_make(SampleBlocks *b);
void sample_blocks_undo(SampleBlocks *b);

/* ---- the proof (sample_proof.c) ---- */
/* `copy` gives, of the samples from `first` on, what `n` gives: each element of its results is the
 * same expression of the same elements, where inputs with rows[k] hold these samples and the others
 * are the same. */
bool samples_agree(SampleBlocks *b, const Node *n, const Node *copy, const Expr *const *rows);
