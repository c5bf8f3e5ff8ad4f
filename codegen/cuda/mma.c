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

bool cuda_matrix(CText *c, const Stmt *s) {
  MatrixMma m;
  const char *const error = matrix_mma(c->pool, c->kernel, s, c->lane, &m);
  if (error) return c->error = error, false;
  const char *const kind = kind_of(&m);
  if (!kind) return c->error = "mma.sync of types that it does not take", false;
  const int elements = MMA_BYTES / dtype_bytes(m.a.type), chunk = elements / 2;
  const char *const a = base_of(c, &m.a), *const b = base_of(c, &m.b);
  const int id = c->temps++;
  c_line(c, "#pragma unroll");
  c_line(c, "for (int k%d = 0; k%d < %d; k%d += %d) { // %d x %d fragments of %s", id, id, m.k, id,
         elements, m.mi, m.nj, kind);
  c->indent++;
  c_line(c, "uint32_t fa[%d][4], fb[%d][4];", m.mi, (m.nj + 1) / 2);
  c_line(c, "#pragma unroll");
  c_line(c, "for (int m = 0; m < %d; m++)", m.mi);
  c_line(c,
         "  burin_ldmatrix(fa[m], &t%d[%s + (16 * m + burin_a_row) * %" PRId64
         " + k%d + burin_a_chunk * %d]);",
         m.a.local, a, m.a.pitch, id, chunk);
  c_line(c, "#pragma unroll");
  c_line(c, "for (int n = 0; n < %d; n++)", m.nj / 2);
  c_line(c,
         "  burin_ldmatrix(fb[n], &t%d[%s + (16 * n + burin_b_row) * %" PRId64
         " + k%d + burin_b_chunk * %d]);",
         m.b.local, b, m.b.pitch, id, chunk);
  if (m.nj % 2)
    c_line(c,
           "burin_ldmatrix_half(fb[%d], &t%d[%s + (%d + burin_b_row %% 8) * %" PRId64
           " + k%d + burin_b_chunk * %d]);",
           m.nj / 2, m.b.local, b, 8 * (m.nj - 1), m.b.pitch, id, chunk);
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
