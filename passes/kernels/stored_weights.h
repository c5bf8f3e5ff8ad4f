/* What stored_weights.c has for contract_*.c and matmul.c: right-hand sides in 2, 4 or 8 bits, and
 * blocks of those in 16. */
#pragma once
#include "passes/kernels/contract.h"

/* Rows that unpack weights for themselves; tiles that convert small floats for themselves. */
enum { STORED_FEW = 4, CONVERT_TILES = 2 };

struct Stored {
  DType type;
  int bits;
  int per;               /* elements in a word; of bytes: how many steps of k are copied out */
  int64_t block, blocks; /* rows that share a scale; how many such blocks */
  int64_t words;         /* of a block; bytes: not used */
  int64_t rows;          /* of words, or of bytes, in a panel */
  int data, scales;      /* buffers */
  int zeros;             /* the same; -1: all are `zero` */
  double zero;
  bool whole_zeros; /* zero points are integers */
};

typedef struct StoredPanel {
  const Expr *col;  /* first column */
  int width;        /* lanes from one row of the panel to the next */
  const Expr *base; /* its offset; of small floats */
} StoredPanel;

/* Whether elements of packed panels are converted before they are multiplied. */
bool contract_converts(const Contract *c);
/* Whether what tiles read of B was unpacked before them. */
bool contract_reads_unpacked(const Contract *c);
/* Packs the constants of a DequantizeMatMul; sets c->stored. */
bool contract_pack_stored(Contract *c);
/* local[row][lane] += products of all steps of k with `rows` rows from (h, w) on. */
Stmt *stored_multiply(Contract *c, const StoredPanel *pn, int local, const Expr *h, const Expr *w,
                      int rows);
/* The same of scaled types (stored_bytes.c). */
Stmt *stored_multiply_bytes(Contract *c, const StoredPanel *pn, int local, const Expr *h,
                            const Expr *w, int rows);
/* Lane `lane` of a row of a packed buffer that has `rows` of them in a panel. */
const Expr *stored_row(Contract *c, int buffer, int64_t rows, const StoredPanel *pn,
                       const Expr *row, const Expr *lane);
/* Unpacks what the inner loops of k read of the panel into c->unpacked. */
Stmt *stored_unpack(Contract *c, const StoredPanel *pn);
