/* Look-ups in a table of 256 bytes with vectors of bytes: permutations of the table's registers. On
 * x86 vpermi2b takes 128 bytes of it at a time (AVX-512 VBMI), pshufb 16; on ARM tbl and tbx take
 * 64. Other targets, and vectors that are too short for it, read byte by byte. */
#include "codegen/llvm/emit.h"

enum { ROW = 16, ROWS = 16 };

typedef struct Table {
  Val base;
  unsigned align;
} Table;

static int width_of(Val v) { return (int)LLVMGetVectorSize(LLVMTypeOf(v)); }

static Val piece(Emit *c, const Table *t, int at, int bytes) {
  const Val k = k_int(c, c->idx, at);
  const Val p = LLVMBuildGEP2(c->b, c->i8, t->base, (Val *)&k, 1, "");
  const Val v = LLVMBuildLoad2(c->b, vec_type(c->i8, bytes), p, "");
  LLVMSetAlignment(v, t->align < (unsigned)bytes ? t->align : (unsigned)bytes);
  return v;
}

/* Where bit `bit` of each byte is set: it is moved to the sign. */
static Val has_bit(Emit *c, Val index, int bit) {
  const int n = width_of(index);
  if (bit < 7) { /* shifted in pairs: what comes over from a neighbour stays below the sign */
    const Val pairs = LLVMBuildBitCast(c->b, index, vec_type(c->i16, n / 2), "");
    const Val moved = LLVMBuildShl(c->b, pairs, k_int(c, LLVMTypeOf(pairs), 7 - bit), "");
    index = LLVMBuildBitCast(c->b, moved, vec_type(c->i8, n), "");
  }
  return LLVMBuildICmp(c->b, LLVMIntSLT, index, LLVMConstNull(LLVMTypeOf(index)), "");
}

/* ---- x86 ---- */
/* 64 indices; two permutations of 128 bytes each. */
static Val permuted(Emit *c, const Table *t, Val index) {
  Val half[2];
  for (int k = 0; k < 2; k++)
    half[k] = intrinsic(c, "llvm.x86.avx512.vpermi2var.qi.512", 0, NULL, 3,
                        (Val[]){piece(c, t, 128 * k, 64), index, piece(c, t, 128 * k + 64, 64)});
  return LLVMBuildSelect(c->b, has_bit(c, index, 7), half[1], half[0], "");
}

/* The row for all groups of 16 lanes. */
static Val row_in_lanes(Emit *c, const Table *t, int row, int n) {
  int lanes[128];
  for (int i = 0; i < n; i++) lanes[i] = i % ROW;
  return shuffle_lanes(c, piece(c, t, ROW * row, ROW), NULL, lanes, n);
}

/* 16 or 32 indices: each row by the lower four bits, chosen by one upper bit after the other. */
static Val shuffled(Emit *c, const Table *t, Val index) {
  const int n = width_of(index);
  const char *const name = n == 16 ? "llvm.x86.ssse3.pshuf.b.128" : "llvm.x86.avx2.pshuf.b";
  const Val low = LLVMBuildAnd(c->b, index, k_int(c, LLVMTypeOf(index), ROW - 1), "");
  Val row[ROWS];
  for (int k = 0; k < ROWS; k++)
    row[k] = intrinsic(c, name, 0, NULL, 2, (Val[]){row_in_lanes(c, t, k, n), low});
  for (int bit = 4, left = ROWS / 2; left; bit++, left /= 2) {
    const Val set = has_bit(c, index, bit);
    for (int k = 0; k < left; k++)
      row[k] = LLVMBuildSelect(c->b, set, row[2 * k + 1], row[2 * k], "");
  }
  return row[0];
}

/* ---- ARM ---- */
/* 16 indices; an index beyond the 64 bytes of a step gives 0, or keeps what is there. */
static Val looked_up(Emit *c, const Table *t, Val index) {
  enum { STEP = 64 };
  const Type type = LLVMTypeOf(index);
  Val found = NULL;
  for (int at = 0; at < 256; at += STEP) {
    Val args[6];
    int n = 0;
    if (found) args[n++] = found;
    for (int k = 0; k < 4; k++) args[n++] = piece(c, t, at + ROW * k, ROW);
    args[n++] = at ? LLVMBuildSub(c->b, index, k_int(c, type, at), "") : index;
    found = intrinsic(c, found ? "llvm.aarch64.neon.tbx4" : "llvm.aarch64.neon.tbl4", 1,
                      (Type[]){type}, n, args);
  }
  return found;
}

/* ---- which ---- */
typedef Val (*Lookup)(Emit *c, const Table *t, Val index);

/* How many lanes go into one look-up. */
static Lookup lookup_of(const Emit *c, int lanes, int *width) {
  *width = 64;
  if (target_has(c->t, FEATURE_VBMI)) return permuted;
  *width = 16;
  if (lanes >= 16 && c->arch->byte_tables) return looked_up;
  if (lanes >= 32 && target_has(c->t, FEATURE_AVX2)) *width = 32;
  return lanes >= 16 && target_has(c->t, FEATURE_PAIRS) ? shuffled : NULL;
}

Val emit_byte_table(Emit *c, Val table, unsigned align, Val index) {
  const Table t = {table, align};
  const int lanes = width_of(index);
  int width;
  const Lookup lookup = lookup_of(c, lanes, &width);
  if (!lookup || (lanes & (lanes - 1))) return NULL;
  if (lanes <= width) return lanes_from(c, lookup(c, &t, lanes_from(c, index, 0, width)), 0, lanes);
  const Val low = emit_byte_table(c, table, align, lanes_from(c, index, 0, lanes / 2));
  const Val high = emit_byte_table(c, table, align, lanes_from(c, index, lanes / 2, lanes / 2));
  return join_lanes(c, low, high);
}
