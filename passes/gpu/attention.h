/* Attention as one grid: what its operands (attention_operand.c), its products
 * (attention_multiply.c) and its nests (attention.c) share. Internal to passes/gpu. */
#pragma once
#include "passes/gpu/attention_tiles.h"
#include "passes/gpu/gpu.h"
#include "passes/kernels/attention_kernel.h"

/* A tile of queries, keys or values in shared memory: lines of `padded` elements. */
typedef struct AttentionOperand {
  const Value *v;
  bool trans;              /* lines are its last dimension */
  bool values;             /* lines are its last but one, as keys of a second product */
  const Expr *const *from; /* index of the head, of a value of rank `rank` */
  int rank;
  const Expr *lines; /* of the head */
  int extent;        /* lines of a tile */
  int64_t size;      /* elements of a line that are there */
  int64_t padded;    /* with zeros */
  int64_t pitch;     /* from line to line */
  int width;         /* elements that a thread reads together; along: of one line */
  int reads;         /* so many times one behind the other, and that in groups */
  int groups;
  bool along;
  bool direct; /* 16 bytes go to shared memory as they are, late */
  int stages;
  int shared; /* locals; held: what waits in registers to be stored, or -1 */
  int held;
} AttentionOperand;

typedef struct GpuAttn {
  Attn c; /* what templates of CPUs have, too: the node, the head, the kernel */
  TileKind kind;
  AttentionTile tile;
  DType type;        /* in shared memory */
  int rows;          /* of a block */
  int across;        /* lanes that share a row */
  const Expr *first; /* row of the block */
  AttentionOperand q, k, v;
  int weights;          /* shared: exponentials, as the second product reads them */
  int parts;            /* shared: what each lane knows of its rows */
  int scores, out;      /* registers */
  int max, sum, factor; /* registers: of each of the thread's rows */
} GpuAttn;

/* A nest of thread loops: warps, and the lanes of each. */
typedef struct AttentionThreads {
  const Expr *warp;
  const Expr *lane;
} AttentionThreads;

enum { ATTENTION_LANES = 32, ATTENTION_ROWS_OWN = 16 };

/* ---- attention_choose.c ---- */
/* How operands are multiplied; false: there is no template for such types. */
bool gpu_attention_kind(const PassCtx *c, const Attention *a, TileKind *kind);
/* Sets kind, type and tile, and the kernel's estimate; false: no tile fits. */
bool gpu_attention_choose(GpuAttn *g);

/* ---- attention_operand.c ---- */
/* How the operand is read, and its locals. `late`: nests behind which direct copies are there. */
void attention_operand(GpuAttn *g, AttentionOperand *o, const char *name, int late);
/* Reads the tile that begins with line `tile` into `stage`: one group that is not direct waits in registers until
 * it is put there; several go there at once. */
Stmt *attention_bring(GpuAttn *g, const AttentionOperand *o, const AttentionThreads *t,
                      const Expr *tile, const Expr *stage);
Stmt *attention_put(GpuAttn *g, const AttentionOperand *o, const AttentionThreads *t,
                    const Expr *stage);
/* Of shared memory. */
const Expr *attention_element(const GpuAttn *g, const AttentionOperand *o, const Expr *stage,
                              const Expr *line, const Expr *element);

/* ---- attention_multiply.c ---- */
/* What a thread has of its warp's rows × columns: numbers (m, n, i, v), of which v follow each
 * other. */
typedef struct AttentionCell {
  const Expr *m, *n, *i, *v; /* loops */
  const Expr *own;           /* number of the row among the thread's */
  const Expr *row;           /* of the block */
  const Expr *start;         /* column for v = 0 */
  const Expr *at;            /* element of the registers */
} AttentionCell;
/* columns: of the whole warp; result: of the second product, else of the first. */
AttentionCell attention_cell(const GpuAttn *g, const AttentionThreads *t, int64_t columns,
                             bool result);
/* Elements that follow each other. */
int attention_width(const GpuAttn *g, bool result);
int64_t attention_own(const GpuAttn *g, int64_t columns); /* elements of a thread */
int attention_own_rows(const GpuAttn *g);
/* scores = q · kᵀ of a stage; out += weights · values. */
Stmt *attention_scores(GpuAttn *g, const AttentionThreads *t, const Expr *stage);
Stmt *attention_values(GpuAttn *g, const AttentionThreads *t, const Expr *stage);
