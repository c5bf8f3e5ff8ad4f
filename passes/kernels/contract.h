/* Tiled contractions: C[row, n] = Σ_k A[row, k] · B[k, n] over register tiles of rows × vectors.
 * What Conv, ConvTranspose, MatMul and Gemm have in common; kernels/conv.c and kernels/matmul.c
 * describe nodes so, contract_emit.c builds the loops, contract_multiply.c the products in them,
 * contract_block.c the blocks, pack.c orders weights. Internal to passes/. */
#pragma once
#include "passes/build/kernel.h"
#include "passes/choose/conv_plan.h"
#include "passes/tiles/contract_loops.h"

enum { CACHE_LINE = 64 };

typedef struct Contract Contract;
typedef struct Stored Stored;
struct Contract {
  Lower *l;
  ExprPool *p;
  KernelBuild b;
  const Value *root, *anchor;
  const Place *to;
  const ContractTypes *types;
  int lanes; /* sums in a vector */
  /* index space */
  int n_outer; /* batch, group, depth: one tile never spans two of them */
  const Expr *outer_extent[MAX_RANK], *outer[MAX_RANK];
  bool flat;                   /* rows are one dimension, in order of memory */
  const Expr *rows_h, *rows_w; /* extents; flat: rows_h is 1 */
  const Expr *n;               /* columns */
  int n_k;                     /* contracted dimensions, outermost first */
  /* The last one in steps of types->k_step elements; the others are steps themselves */
  const Expr *k[MAX_K], *k_extent[MAX_K];
  const Expr *k_elements; /* of the last one */
  int n_loops,
      hoisted; /* loops over k, and how many of them stand outside the tiles (contract_emit.c) */
  const Expr *loop[MAX_K + 1], *loop_extent[MAX_K + 1];
  int sums; /* scratch parameter of partial sums when loops are hoisted */
  /* where the block of A from row `gathered_from` on is in the order of tiles: a scratch parameter
   * (gather_to, once there is one); -1: it is read in place */
  int gathered, gather_to;
  const Expr *gathered_from;
  int64_t group; /* panels done together over a block of A */
  /* logical index of the anchor's output at (outer, h, w, column) */
  void (*out_index)(const Contract *c, const Expr *h, const Expr *w, const Expr *col,
                    const Expr **idx);
  /* A at (outer, h, w, k) as contract_operand_a has it; k counts elements here, and what fills up the
   * last group is there and zero */
  const Expr *(*a)(Contract *c, const Expr *h, const Expr *w);
  /* of scaled types: element `block` of row w of x, which has the rows of A */
  const Expr *(*a_block)(Contract *c, const Value *x, const Expr *w, const Expr *block);
  /* what to add to the accumulator for output idx, or NULL */
  const Expr *(*add)(Contract *c, const Expr *const *idx);
  /* whether step k[i] of the rows (h, w) … (h, w+rows-1) multiplies anything but zeros of a border;
   * NULL (the function, or what it returns): always, or not worth asking. h NULL: several lines. */
  const Expr *(*live)(const Contract *c, int i, const Expr *h, const Expr *w, int rows);
  double live_share; /* of the steps of k, over all tiles */
  bool skips;   /* `live` is always asked, of one line: the rest of the border is not in memory */
  double scale; /* factor of the sum (Gemm's alpha) when B is not packed at compile time */
  const void *info; /* of the callbacks */
  /* B: packed panels [outer_b][panel][k…][vectors*lanes], or direct rows */
  DType panel;  /* elements of the panels */
  int b_buffer; /* module buffer of packed panels; -1: direct */
  /* Element offset of the panels of the current outer index; NULL: 0 */
  const Expr *(*b_offset)(const Contract *c);
  const Expr *b_outer; /* its value */
  bool b_whole_panels; /* the last panel is as wide as the others (packed at run time) */
  const Expr *(*b_direct)(Contract *c, const Expr *col);
  /* B in a few bits (stored_weights.c), or NULL; the scratch parameter where a block of it, or of
   * small floats, is unpacked, -1: none yet; whether tiles unpack it themselves */
  const Stored *stored;
  int unpacked;
  bool direct;
  int64_t phase; /* of a transposed convolution */
  Tile tile;
  PlanLoops plan;
  /* Groups of panels lie in eights, for matrix registers of two rows and two columns */
  bool squares;
  /* Matrix registers of sums: locals that all tiles of the kernel use in turn; 0: none yet, else id + 1 */
  int matrix_sum[4];
  int matrix_pair[2]; /* the same: sums of one product of bf16, of the even and the odd elements */
  bool heavy;         /* the epilogue is too long to be unrolled */
  bool prefetch;      /* panels come from beyond the second-level cache */
  int plain_rank; /* > 0: the sum itself is stored, at an index of this rank, without epilogue */
};

/* Weights as panels [group][panel][k0][k1]…[lane] of elements `type`; element (g, k…, col) is
 * data[base + g*gs + Σ k*ks + col*cs], times `scale`. k_step > 1: the last k is cut into groups of
 * as many, which follow the lane: …[k/k_step][lane][k_step]; what is beyond its end is zero. */
typedef struct PackShape {
  DType type;
  int k_step; /* 0: 1 */
  int64_t groups, group_stride, cols, col_stride, base;
  int n_k;
  int64_t k[MAX_K], k_stride[MAX_K];
  int64_t width; /* lanes of a full panel */
  int64_t lanes; /* the last panel is cut to a multiple of this */
  double scale;
} PackShape;

/* All but c->b */
void contract_init(Contract *c, Lower *l, const Value *root, const Value *anchor, const Place *to,
                   const ContractTypes *types);
void contract_begin(Contract *c, Lower *l, const Value *root, const Value *anchor, const Place *to,
                    const ContractTypes *types, const char *suffix);
/* Packs B, of elements of this type, at compile time. */
DType contract_packed_type(const Contract *c);
bool contract_pack_const(Contract *c, const ConstData *w, const PackShape *s);
/* Takes the tile, the blocks from the plan; the index space must be set. */
void contract_tile(Contract *c);
void contract_plan_blocks(Contract *c);
ContractShape contract_shape(const Contract *c);             /* what is set of the index space */
void contract_outer(Contract *c, const Expr *extent);        /* adds an outer dimension */
int contract_weights(Lower *l, const ConstData *packed);     /* buffer */
const Expr *contract_cast(const Contract *c, const Expr *e); /* to the type of the sums */
/* An element of A or B as a multiply-add takes it: in the type of the sums; in groups, its bits (or
 * a whole group) in an i32. contract_group puts these together. */
const Expr *contract_operand_a(const Contract *c, const Expr *e);
const Expr *contract_operand_b(const Contract *c, const Expr *e);
/* Adds the last contracted dimension, of `count` elements. */
void contract_last_k(Contract *c, const char *stem, const Expr *count);
/* Element i of the current step of the last k. */
const Expr *contract_element(const Contract *c, const Expr *i);
/* An i32 that holds n elements of `type`, each given in an i32, the first one in the low bits. */
const Expr *group_elements(ExprPool *p, DType type, int n, const Expr *const *element);
/* What a multiply-add takes of a step's elements, which are of `type`. */
const Expr *contract_group(const Contract *c, DType type, const Expr *const *element);
/* A copy of x, made by *steps, of another type and layout: with the halo that this has. */
const Place *contract_copy(Lower *l, const Value *x, DType type, const Layout *layout,
                           Step **steps);
Step *contract_emit(Contract *c);
/* The element of the root at idx[] whose sum is `sum`: scaled, added to, with the epilogue. */
const Expr *contract_finish(Contract *c, const Expr *sum, const Expr *const *idx);
const Expr *contract_flops(const Contract *c);
/* ---- for templates that read both operands element by element (passes/gpu) ---- */
/* Like `types`, but k goes by elements. */
const ContractTypes *contract_by_element(Lower *l, const ContractTypes *types);
/* Describe a product without tile and panels: flat rows, of all images or, where B has none, batches;
 * c->b_direct is B at c->outer and c->k, which the template sets. */
void matmul_describe(Contract *c, Lower *l, const Value *root, const Value *anchor, const Place *to,
                     const MatMulInfo *product);
/* The border of the input is a guard; false: the phase has no rows. Channels are the last k. */
bool conv_describe_rows(Contract *c, Lower *l, const Value *root, const Value *anchor,
                        const Place *to, const ConvInfo *conv, int64_t phase);
/* Lines [first, first + count) of rows_h, all columns, serial: a part of a larger kernel. The outer
 * indices are set; not flat. */
Stmt *contract_lines(Contract *c, const Expr *first, const Expr *count);
/* All of it, serial, for constant flat rows: a part of a larger kernel. */
Stmt *contract_inner(Contract *c);
Step *lower_conv(Lower *l, const Value *root, const Value *anchor, const Place *to,
                 const ConvInfo *conv);
/* Output lines [first, first + count) of one image of a plain convolution over two dimensions:
 * parts of the kernel *b (kernels/strips.c). x_place as for the whole; `to` may be a ring. */
typedef struct Lines {
  const Expr *batch, *first, *count;
} Lines;
Stmt *lower_conv_lines(KernelBuild *b, const Value *root, const Value *anchor, const Place *to,
                       const ConvInfo *conv, const Place *x_place, const Lines *lines);
/* The anchor may be a MaxPool, described by conv as a depthwise convolution. */
Stmt *lower_depthwise_lines(KernelBuild *b, const Value *root, const Value *anchor, const Place *to,
                            const ConvInfo *conv, const Place *x_place, const Lines *lines);
/* A chain of convolutions and MaxPools that ends in root, over strips of rows; NULL without error
 * when it does not pay. */
Step *lower_strips(Lower *l, const Value *root, const Place *to);
/* Few output channels; NULL without error when it does not fit. x_place: the input with its halo. */
Step *lower_thin(Lower *l, const Value *root, const Value *anchor, const Place *to,
                 const ConvInfo *conv, const Place *x_place);
Step *lower_matmul(Lower *l, const Value *root, const Value *anchor, const Place *to,
                   const MatMulInfo *product);
ConstData *pack_panels(Model *m, const ConstData *w, const PackShape *s);
/* B computed at run time: the kernel that packs it, to run before the contraction. outer_of_b:
 * which outer dimensions B has; b: its element at c->outer, c->k and column col, as
 * contract_operand_b has it. c's tile is chosen; sets c->b_buffer. */
Step *contract_pack_computed(Contract *c, const bool *outer_of_b,
                             const Expr *(*b)(Contract *c, const Expr *col));
/* A place from which all taps of a convolution can be read: its input's own, or a padded copy that
 * *steps make. NULL: the input is inlined and needs no halo. */
const Place *conv_input(Lower *l, const Node *n, const ConvInfo *conv, Step **steps);
/* The same, an inlined input being stored by *steps: never NULL. */
const Place *conv_input_stored(Lower *l, const Node *n, const ConvInfo *conv, Step **steps);
Step *lower_winograd(Lower *l, const Value *root, const Value *anchor, const Place *to,
                     const ConvInfo *conv);
/* Constant weights with zeros (sparse.c). */
Step *lower_sparse(Lower *l, const Value *root, const Value *anchor, const Place *to);
Step *lower_attention(Lower *l, const Value *root, const Value *anchor, const Place *to,
                      const Attention *a);
