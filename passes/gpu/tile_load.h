/* Elements on their way into a tile in shared memory: what all templates ask of them. */
#pragma once
#include "ir/loop/loop.h"

enum { TF32_HALF = 0x1000 }; /* of the last bit that tf32 keeps */

/* What a load with a guard gives as 0 stays 0. */
bool tile_keeps_zero(const Expr *e);
/* An element as it is stored in shared memory. */
const Expr *tile_stored(ExprPool *p, DType type, const Expr *e);
/* first + i < extent; where that means the same for all of `width` i's, asked of the first one. */
const Expr *tile_below(ExprPool *p, const Expr *first, const Expr *i, int width,
                       const Expr *extent);
/* Whether e, for all v of 16 bytes, is a copy of 16 aligned bytes that the kernel does not write. */
bool tile_copies(const Kernel *k, ExprPool *p, const Expr *e, const Expr *v, DType type);
