/* Products of fragments (ir/loop/mma.h) as ldmatrix and mma.sync: a warp loads the fragments of a
 * step of k from shared memory, of A once for all columns, of B for all rows, then multiplies each
 * with each. Which lane holds what: PTX ISA, "Matrix Fragments for mma". */
#include <inttypes.h>

#include "codegen/cuda/cuda.h"
#include "ir/loop/mma.h"

#define TEXT(...) arena_printf(c->arena, __VA_ARGS__)

static const char *kind_of(const MatrixMma *m) {
  const DType a = m->a.type, b = m->b.type;
  if (a == DT_F16 && b == DT_F16) return "f16";
  if (a == DT_BF16 && b == DT_BF16) return "bf16";
  if (a == DT_F32 && b == DT_F32) return "tf32";
  if (a == DT_U8) return b == DT_U8 ? "u8u8" : b == DT_I8 ? "u8i8" : NULL;
  if (a == DT_I8) return b == DT_U8 ? "i8u8" : b == DT_I8 ? "i8i8" : NULL;
  return NULL;
}

static const char *base_of(CText *c, const MmaOperand *o) {
  c_count(c, o->base);
  return c_value(c, o->base);
}

/* Fragments of rows, or columns, along which k runs. */
static void load_along_k(CText *c, const MmaOperand *o, const char *base, int id, bool columns,
                         int n) {
  const int chunk = MMA_BYTES / dtype_bytes(o->type) / 2;
  const char of = columns ? 'b' : 'a';
  const int whole = columns ? n / 2 : n;
  c_line(c, "#pragma unroll");
  c_line(c, "for (int n = 0; n < %d; n++)", whole);
  c_line(c,
         "  burin_ldmatrix(f%c[n], &t%d[%s + (16 * n + burin_%c_row) * %" PRId64
         " + k%d + burin_%c_chunk * %d]);",
         of, o->local, base, of, o->pitch, id, of, chunk);
  if (columns && n % 2)
    c_line(c,
           "burin_ldmatrix_half(fb[%d], &t%d[%s + (%d + burin_b_row %% 8) * %" PRId64
           " + k%d + burin_b_chunk * %d]);",
           n / 2, o->local, base, MMA_COLS * (n - 1), o->pitch, id, chunk);
}

/* Fragments of columns, lines of k: transposed while they are loaded, or, of four bytes, one by one. */
static void load_lines_of_k(CText *c, const MmaOperand *o, const char *base, int id, int n) {
  if (dtype_bytes(o->type) == 4) {
    c_line(c, "#pragma unroll");
    c_line(c, "for (int n = 0; n < %d; n++)", 2 * n);
    c_line(c,
           "  fb[n / 4][n %% 4] = burin_c_bits32(t%d[%s + (k%d + burin_lane %% 4 + 4 * (n %% 2)) * "
           "%" PRId64 " + 8 * (n / 2) + burin_lane / 4]);",
           o->local, base, id, o->pitch);
    return;
  }
  c_line(c, "#pragma unroll");
  c_line(c, "for (int n = 0; n < %d; n++)", n / 2);
  c_line(c,
         "  burin_ldmatrix_turned(fb[n], &t%d[%s + (k%d + burin_a_row) * %" PRId64
         " + 16 * n + 8 * burin_a_chunk]);",
         o->local, base, id, o->pitch);
  if (n % 2)
    c_line(c,
           "burin_ldmatrix_turned_half(fb[%d], &t%d[%s + (k%d + burin_a_row) * %" PRId64 " + %d]);",
           n / 2, o->local, base, id, o->pitch, MMA_COLS * (n - 1));
}

static void round_fragments(CText *c, const char *fragments, int registers) {
  c_line(c, "#pragma unroll");
  c_line(c, "for (int i = 0; i < %d; i++)", registers);
  c_line(c, "  %s[i / 4][i %% 4] = burin_tf32_round(%s[i / 4][i %% 4]);", fragments, fragments);
}

bool cuda_matrix(CText *c, const Stmt *s) {
  MatrixMma m;
  const char *const error = matrix_mma(c->pool, c->kernel, s, c->lane, &m);
  if (error) return c->error = error, false;
  const char *const kind = kind_of(&m);
  if (!kind) return c->error = "mma.sync of types that it does not take", false;
  const char *const a = base_of(c, &m.a), *const b = base_of(c, &m.b);
  const int id = c->temps++;
  c_line(c, "#pragma unroll");
  c_line(c, "for (int k%d = 0; k%d < %d; k%d += %d) { // %d x %d fragments of %s", id, id, m.k, id,
         MMA_BYTES / dtype_bytes(m.a.type), m.mi, m.nj, kind);
  c->indent++;
  c_line(c, "uint32_t fa[%d][4], fb[%d][4];", m.mi, (m.nj + 1) / 2);
  load_along_k(c, &m.a, a, id, false, m.mi);
  if (m.b.by_k)
    load_lines_of_k(c, &m.b, b, id, m.nj);
  else
    load_along_k(c, &m.b, b, id, true, m.nj);
  if (m.a.rounds) round_fragments(c, "fa", 4 * m.mi);
  if (m.b.rounds) round_fragments(c, "fb", 2 * m.nj);
  c_line(c, "#pragma unroll");
  c_line(c, "for (int m = 0; m < %d; m++)", m.mi);
  c_line(c, "#pragma unroll");
  c_line(c, "  for (int n = 0; n < %d; n++)", m.nj);
  c_line(c, "    burin_mma_%s(&t%d[(m * %d + n) * 4], fa[m], &fb[n / 2][n %% 2 * 2]);", kind, m.sum,
         m.nj);
  c->indent--;
  c_line(c, "}");
  return true;
}
