/* What stored_weights.c has for contract_*.c and matmul.c: right-hand sides in 2, 4 or 8 bits. */
#pragma once
#include "passes/kernels/contract.h"

enum { STORED_FEW = 4 }; /* rows that unpack weights for themselves */

typedef struct StoredPanel {
  const Expr *col; /* first column */
  int width;       /* lanes from one row of the panel to the next */
} StoredPanel;

/* Packs the constants of a DequantizeMatMul; sets c->stored. */
bool contract_pack_stored(Contract *c);
/* local[row][lane] += products of all steps of k with `rows` rows from (h, w) on. */
Stmt *stored_multiply(Contract *c, const StoredPanel *pn, int local, const Expr *h, const Expr *w,
                      int rows);
/* Unpacks what the inner loops of k read of the panel into c->unpacked. */
Stmt *stored_unpack(Contract *c, const StoredPanel *pn);
