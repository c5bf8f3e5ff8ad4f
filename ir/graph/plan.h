/* How a contraction is computed: chosen once (passes/choose/choose.c), kept on its node, read by
 * layout and lowering. In texts: {plan=winograd4 block=7 halo=[1:3,1:3]}. */
#pragma once
#include "ir/base/arena.h"

typedef enum Algorithm {
  ALG_TILED,     /* register tiles of rows × columns */
  ALG_WINOGRAD,  /* F(m×m, 3×3) */
  ALG_THIN,      /* few output channels: lanes over pixels or input channels */
  ALG_DEPTHWISE, /* lanes over channels */
  ALG_ATTENTION, /* a softmax between two products, block by block */
  ALG_MAXPOOL,   /* no contraction, but part of a chain */
  ALG_SPARSE     /* weights that are zero are left out; lanes over rows */
} Algorithm;

enum { PLAN_SPATIAL = 3, LANES_PIXELS = 1, LANES_CHANNELS = 2 };

/* Tiles of one kernel, and what is done together so that data used again is still in the cache. */
typedef struct PlanLoops {
  int rows;      /* register tile (attention: of the scores); 0: not chosen yet, or there is none */
  int vectors;   /* of thin, lanes over pixels, and of sparse: without rows */
  int matrix;    /* rows of a matrix register: the tile is of whole ones; 0: there are none */
  bool lines;    /* a tile ends with its line; else rows follow each other in memory */
  int high;      /* lines of a tile */
  int64_t part;  /* lines, or rows, that are a block; 0: not chosen, or of no meaning */
  int64_t steps; /* the innermost loop of k is cut into pieces of as many; 0: it is not */
  int outside;   /* loops of k that stand outside the tiles */
  int64_t panels;  /* of B, done together over a block of A */
  bool gathered;   /* a block of A is copied to scratch in the order in which tiles read it */
  bool serial;     /* too little work for threads */
  int width;       /* pixels of a strip: depthwise, MaxPool, and thin with lanes over channels; of
                    * sparse: columns that share entries */
  int64_t queries; /* of a block of an attention, and keys */
  int64_t keys;
  int values_rows; /* register tile of its second product */
  int values_vectors;
  const char *key; /* the question of the tile that a tuning file may have answered, or NULL */
} PlanLoops;

typedef struct Plan {
  Algorithm algorithm;
  int winograd; /* m: 2, 4 or 6; else 0 */
  int block; /* of Winograd: rows of tiles that are a block; 0: all are one. Of images whose size the
                 * run knows: tiles */
  int planes; /* of three dimensions: in how many planes, too */
  /* Of thin: which lanes pay, LANES_*; the order in memory decides between both, or for tiles: then the
   * plan says tiled, and keeps them, since the input is laid out for them */
  int lanes;
  bool skips;  /* tiles leave taps out that see only the border, which is not in memory */
  bool steady; /* a tile of one row adds up as others do: sums do not depend on the number of rows */
  int spatial; /* dimensions of the halo: cells read around the input, over all taps */
  int64_t halo_lo[PLAN_SPATIAL];
  int64_t halo_hi[PLAN_SPATIAL];
  /* One for all kernels, or (a transposed convolution) for each phase of the stride; 0: not chosen */
  int n_loops;
  const PlanLoops *loops;
  /* Of the last of `chain` convolutions and MaxPools that one kernel computes over strips
   * (kernels/strips.c): `rows` of its rows at a time, an image in `parts` parallel parts. */
  int chain;
  int rows;
  int parts;
  bool chained;    /* its result stays inside the kernel of such a chain */
  const char *key; /* the question that a tuning file may have answered (choice.h), or NULL */
  const char *sparse_key; /* likewise: whether zeros are left out */
} Plan;

typedef struct AlgorithmName {
  const char *name;
  Algorithm algorithm;
  int winograd;
} AlgorithmName;
extern const AlgorithmName algorithm_names[]; /* the last has no name */
const char *plan_name(const Plan *p);
/* Of phase `phase`; all zero where none are chosen. */
PlanLoops plan_loops(const Plan *p, int64_t phase);
/* Whether its tiles go together in blocks: not inside a kernel that has other loops around them. */
bool plan_has_blocks(const Plan *p);
/* Whether a tile of it is made of matrix registers. */
bool plan_has_matrix(const Plan *p);
void plan_print(const Plan *p, StrBuf *b); /* {plan=… …} */
/* NULL, or what no node can be meant to have. */
const char *plan_malformed(const Plan *p);
