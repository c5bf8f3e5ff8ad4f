/* What LLVM wants to be told of an architecture: one row each. Emission reads the row, and never
 * asks which architecture it is. */
#pragma once
#include "targets/target.h"

typedef struct ArchRow {
  const char *baseline_cpu; /* for code that must run on every CPU; NULL: the target's own */
  bool fence;               /* a fence keeps comparisons behind what LLVM would merge them with */
  bool rounds;              /* floor, ceil, trunc and roundeven are instructions, of vectors too */
  bool count_down; /* a loop that ends where its counter equals the end may count to zero */
  bool minmax_f64; /* so are minimum and maximum of f64 where zeros are ordered */
  /* Instructions that add pairs of 16-bit elements, unsigned and signed, into 32; or NULL. */
  const char *pair_sum[2];
  /* Of eight bytes each in 16 bits, or of four elements of 16 in 32; unsigned and signed; or NULL. */
  const char *long_product[2];
  const char *pair_add; /* sums of neighbours of two vectors; or NULL */
  /* Products of pairs of bf16: one instruction, whose name ends with the width; or of the upper and
   * of the lower elements. */
  const char *bf16_pairs;
  const char *bf16_upper;
  const char *bf16_lower;
  const char *bf16_round; /* f32 to the nearest bf16; the name ends with the width. NULL: none */
  bool narrows_pairs; /* an instruction takes every second byte of two vectors, in their order */
  bool byte_tables;   /* instructions tbl and tbx, which look bytes up in up to four registers */

  /* The floating-point mode: round to nearest, no traps, subnormal numbers count as zero. */
  const char *mode_get;
  const char *mode_set;
  bool mode_in_memory; /* the intrinsics take an address of 32 bits */
  int mode_bits;
  int64_t mode;
} ArchRow;

extern const ArchRow arch_rows[ARCH_COUNT]; /* by Arch */
static inline const ArchRow *arch_row(const Target *t) { return &arch_rows[t->arch]; }
