/* Templates for GPUs: graphs are lowered for a GPU, their grids interpreted, in an order each, and the
 * results compared with those of the same graphs at -O0, which go element by element. */
#include "tests/unit/grids/gpu_fixture.h"

/* clang-format off */
static const Case cases[] = {
    {"ragged", "%r : f32[37,29] = MatMul %x, %y", "f32[37,29]", NULL, {"f32[37,21]", "f32[21,29]"}, 1e-4, false, 0, false},
    {"epilogue", "%m : f32[40,36] = MatMul %x, %w\n %s : f32[40,36] = Add %m, %y\n %r : f32[40,36] = Tanh %s", "f32[40,36]",
     "f32[50,36]", {"f32[40,50]", "f32[36]"}, 1e-4, false, 0, false},
    {"inlined", "%e : f32[33,21] = Exp %x\n %r : f32[33,20] = MatMul %e, %y", "f32[33,20]", NULL,
     {"f32[33,21]", "f32[21,20]"}, 1e-3, false, 0, false},
    {"gemm", "%r : f32[35,33] = Gemm %x, %w, %y {transB=1, alpha=0.5, beta=2.0}", "f32[35,33]", "f32[33,40]",
     {"f32[35,40]", "f32[33]"}, 1e-4, false, 0, false},
    {"transposed", "%r : f32[35,33] = Gemm %x, %y {transA=1}", "f32[35,33]", NULL, {"f32[20,35]", "f32[20,33]"}, 1e-4, false, 0, false},
    {"batches", "%r : f32[2,3,17,20] = MatMul %x, %y", "f32[2,3,17,20]", NULL, {"f32[2,3,17,24]", "f32[3,24,20]"}, 1e-4, false, 0, false},
    {"merged", "%r : f32[3,13,20] = MatMul %x, %w", "f32[3,13,20]", "f32[24,20]", {"f32[3,13,24]"}, 1e-4, false, 0, false},
    {"conv", "%c : f32[2,12,7,9] = Conv %x, %w {pads=[1,1,1,1], strides=[2,2]}\n %r : f32[2,12,7,9] = Relu %c",
     "f32[2,12,7,9]", "f32[12,8,3,3]", {"f32[2,8,14,17]"}, 1e-4, false, 0, false},
    {"channels", "%r : f32[1,16,5,7] = Conv %x, %w {pads=[2,2,2,2], dilations=[2,2]}", "f32[1,16,5,7]", "f32[16,32,3,3]",
     {"f32[1,32,5,7]"}, 1e-4, false, 0, false},
    {"grouped", "%r : f32[1,24,6,6] = Conv %x, %w {pads=[1,1,1,1], group=2}", "f32[1,24,6,6]", "f32[24,8,3,3]",
     {"f32[1,16,6,6]"}, 1e-4, false, 0, false},
    {"upwards", "%r : f32[1,12,8,10] = ConvTranspose %x, %w {pads=[1,1,1,1], strides=[2,2]}", "f32[1,12,8,10]",
     "f32[8,12,4,4]", {"f32[1,8,4,5]"}, 1e-4, false, 0, false},
    {"volume", "%r : f32[1,8,4,5,6] = Conv %x, %w {pads=[1,1,1,1,1,1]}", "f32[1,8,4,5,6]", "f32[8,4,3,3,3]",
     {"f32[1,4,4,5,6]"}, 1e-4, false, 0, false},
    {"halves", "%m : f16[37,30] = MatMul %x, %y\n %r : f16[37,30] = Relu %m", "f16[37,30]", NULL, {"f16[37,44]", "f16[44,30]"}, 1e-2, true, 0, false},
    {"half_weights", "%r : f16[35,33] = MatMul %x, %w", "f16[35,33]", "f16[72,33]", {"f16[35,72]"}, 1e-2, true, 0, false},
    {"half_conv", "%r : f16[1,24,6,7] = Conv %x, %w {pads=[1,1,1,1]}", "f16[1,24,6,7]", "f16[24,16,3,3]",
     {"f16[1,16,6,7]"}, 2e-2, true, 0, false},
    {"bfloat", "%r : bf16[33,40] = MatMul %x, %w", "bf16[33,40]", "bf16[40,40]", {"bf16[33,40]"}, 5e-2, true, 0, false},
    {"bytes", "%r : i32[33,40] = MatMulInteger %x, %w", "i32[33,40]", "i8[70,40]", {"u8[33,70]"}, 0, true, 0, false},
    {"signed", "%r : i32[33,40] = MatMulInteger %x, %y", "i32[33,40]", NULL, {"i8[33,70]", "i8[70,40]"}, 0, true, 0, false},
    {"parts", "%r : f32[9,40] = Gemm %x, %w, %y", "f32[9,40]", "f32[600,40]", {"f32[9,600]", "f32[40]"}, 1e-4, false, 2, false},
    {"half_parts", "%r : f16[9,40] = MatMul %x, %w", "f16[9,40]", "f16[1200,40]", {"f16[9,1200]"}, 1e-2, true, 2, false},
    {"row", "%r : f32[1,40] = MatMul %x, %w", "f32[1,40]", "f32[80,40]", {"f32[1,80]"}, 1e-4, false, 0, false},
    {"tf32", "%m : f32[37,29] = MatMul %x, %y\n %r : f32[37,29] = Neg %m", "f32[37,29]", NULL, {"f32[37,42]", "f32[42,29]"}, 1e-4, true, 0, true},
    {"tf32_conv", "%r : f32[1,24,6,7] = Conv %x, %w {pads=[1,1,1,1]}", "f32[1,24,6,7]", "f32[24,16,3,3]",
     {"f32[1,16,6,7]"}, 1e-4, true, 0, true},
    {"byte_conv", "%r : i32[1,24,6,7] = ConvInteger %x, %w {pads=[1,1,1,1]}", "i32[1,24,6,7]", "u8[24,16,3,3]",
     {"u8[1,16,6,7]"}, 0, true, 0, false},
};
/* Long sums, shared out to lanes. */
static const Case sums[] = {
    {"softmax", "%r : f32[5,300] = Softmax %x", "f32[5,300]", NULL, {"f32[5,300]"}, 1e-5, 0, 0, 0},
    {"norm", "%r : f32[11,70] = LayerNormalization %x, %y", "f32[11,70]", NULL, {"f32[11,70]", "f32[70]"}, 1e-4, 0, 0, 0},
    {"least", "%r : f32[] = ReduceMin %x {keepdims=0}", "f32[1]", NULL, {"f32[3,33]"}, 0, 0, 0, 0},
    {"whole", "%r : f32[] = ReduceSum %x {keepdims=0}", "f32[1]", NULL, {"f32[7,100]"}, 1e-4, 0, 0, 0},
    {"mean", "%m : f32[2,3,1,1] = GlobalAveragePool %x\n %r : f32[2,3,1,1] = Neg %m", "f32[2,3,1,1]", NULL, {"f32[2,3,17,40]"},
     1e-4, 0, 0, 0},
    {"bytes", "%r : i32[1,1] = ReduceMax %x", "i32[1,1]", NULL, {"i32[9,600]"}, 0, 0, 0, 0},
};
/* Rows whose elements stay in registers: x is read in one place. */
static const Case kept[] = {
    {"softmax", "%r : f32[9,300] = Softmax %x", "f32[9,300]", NULL, {"f32[9,300]"}, 1e-5, 0, 1, 0},
    {"log", "%r : f32[9,64] = LogSoftmax %x", "f32[9,64]", NULL, {"f32[9,64]"}, 1e-5, 0, 1, 0},
    {"short", "%r : f32[70,33] = Softmax %x", "f32[70,33]", NULL, {"f32[70,33]"}, 1e-5, 0, 1, 0},
    {"beside", "%r : f32[3,70,33] = Softmax %x {axis=1}", "f32[3,70,33]", NULL, {"f32[3,70,33]"}, 1e-5, 0, 1, 0},
    {"norm", "%h : f32[11,70] = Cast %x {to=1}\n %r : f32[11,70] = LayerNormalization %h, %y", "f32[11,70]", NULL,
     {"f16[11,70]", "f32[70]"}, 1e-4, 0, 1, 0},
    {"planes", "%r : f32[2,3,9,11] = InstanceNormalization %x, %y, %y", "f32[2,3,9,11]", NULL, {"f32[2,3,9,11]", "f32[3]"}, 1e-4, 0, 1, 0},
    {"length", "%s : f32[1,1] = ReduceL2 %x\n %r : f32[1,200] = Div %x, %s", "f32[1,200]", NULL, {"f32[1,200]"}, 1e-5, 0, 1, 0},
};
/* clang-format on */

static bool is_matrix(void *user, Stmt *s) {
  if (s->kind == ST_FOR && s->loop.kind == FOR_MATRIX) *(bool *)user = true;
  return true;
}

/* The one kernel that multiplies is a grid whose tiles lie in shared memory. */
static void check_form(const Case *k, const Module *m) {
  bool shared = false, fragments = false;
  for (int i = 0; i < m->kernels.n; i++) {
    const Kernel *const x = m->kernels.data[i];
    for (int l = 0; l < x->locals.n; l++)
      shared = shared || (kernel_is_grid(x) && x->locals.data[l].memory == MEM_SHARED);
    stmt_each(x->body, is_matrix, &fragments);
  }
  if (!shared) fail_msg("%s: no template", k->name);
  if (k->kernels && m->kernels.n != k->kernels) fail_msg("%s: %d kernels", k->name, m->kernels.n);
  assert_int_equal(fragments, k->fragments);
}

static void check_cases(const Case *list, int n) {
  static char want[MOST], got[MOST];
  for (int i = 0; i < n; i++) {
    const Case *const k = &list[i];
    const Program plain = lowered(k, "x86-64-v3", 0), grid = lowered(k, "cuda:sm_80", 3);
    const DType t = plain.c.module->buffers.data[plain.c.module->outputs.data[0]].dtype;
    check_form(k, grid.c.module);
    run(k, &plain, ORDER_FORWARD, want);
    memset(got, 0x5a, sizeof got);
    run(k, &grid, (ThreadOrder)((i + 2) % 3), got);
    compare(k, t, got, want);
    arena_free(plain.a);
    arena_free(grid.a);
  }
}

static void test_products(void **state) {
  (void)state;
  check_cases(cases, sizeof cases / sizeof *cases);
}

static void test_sums(void **state) {
  (void)state;
  check_cases(sums, sizeof sums / sizeof *sums);
}

typedef struct Reads {
  ExprPool *p;
  int n;
} Reads;

static void count_read(void *user, const Expr *load) { ((Reads *)user)->n += load->id == 0; }

static void count_reads(void *user, const Expr *e) {
  expr_each_load(((Reads *)user)->p, e, count_read, user);
}

static bool visit_reads(void *user, Stmt *s) {
  stmt_each_expr(s, count_reads, user);
  return true;
}

/* The first parameter is read in one place. */
static void test_kept(void **state) {
  (void)state;
  check_cases(kept, sizeof kept / sizeof *kept);
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    const Program p = lowered(&kept[i], "cuda:sm_90", 3);
    Reads r = {.p = p.c.model->pool};
    stmt_each(p.c.module->kernels.data[0]->body, visit_reads, &r);
    if (r.n != 1) fail_msg("%s: x is read in %d places", kept[i].name, r.n);
    arena_free(p.a);
  }
}

/* ---- tiles ---- */

static void check_tile(const Gpu *g, const GpuProduct *p, const GpuTile *t) {
  const int warps = gpu_tile_warps(p->kind, t), own = t->rows_own * t->columns_own;
  const int stages = gpu_tile_stages(g, p, t);
  assert_true(stages >= 2 && stages <= 4);
  assert_true(gpu_tile_shared(p->kind, t) / 2 * stages <= g->block_bytes);
  assert_true(warps >= 1 && warps * 32 <= MAX_THREADS);
  assert_int_equal(warps * own * (p->kind == TILE_F32 ? 32 : 1), t->rows * t->columns);
  assert_true(gpu_tile_cycles(g, p, t) > 0 && isfinite(gpu_tile_cycles(g, p, t)));
  assert_true(t->splits == 1 || (p->splits && t->splits * t->k <= p->k));
}

/* Whatever the size: tiles that the device can hold, of whole warps. */
static void test_tiles(void **state) {
  static const char *const targets[] = {"cuda:sm_80", "cuda:sm_86", "cuda:sm_90", "cuda:sm_100"};
  (void)state;
  for (size_t t = 0; t < sizeof targets / sizeof *targets; t++)
    for (int kind = 0; kind < TILE_KINDS; kind++)
      for (int size = 16; size <= 16384; size *= 4) {
        const Gpu *const g = target_find(targets[t])->gpu;
        const GpuProduct p = {(TileKind)kind, 1, size, size, size, t % 2 == 0, false};
        GpuTile tile[MOST_CHOICES];
        const int n = gpu_tiles(g, &p, tile);
        assert_true(n >= 4);
        for (int i = 0; i < n; i++) check_tile(g, &p, &tile[i]);
      }
}

static GpuTile best(const Gpu *g, const GpuProduct *p) {
  GpuTile tile[MOST_CHOICES];
  int at = 0;
  for (int i = gpu_tiles(g, p, tile) - 1; i > 0; i--)
    if (gpu_tile_all_cycles(g, p, &tile[i]) < gpu_tile_all_cycles(g, p, &tile[at])) at = i;
  return tile[at];
}

/* Large products take large tiles; small ones make more blocks. */
static void test_tile_sizes(void **state) {
  const Gpu *const g = target_find("cuda:sm_80")->gpu;
  (void)state;
  for (int kind = 0; kind < TILE_KINDS; kind++) {
    const GpuProduct large = {(TileKind)kind, 1, 8192, 8192, 4096, true, false},
                     small = {(TileKind)kind, 1, 196, 256, 1024, false, false},
                     few = {(TileKind)kind, 1, 49, 512, 4608, true, false};
    const GpuTile l = best(g, &large), s = best(g, &small), f = best(g, &few);
    assert_true(l.rows * l.columns >= 128 * 64 && l.splits == 1);
    assert_true(s.rows * s.columns <= 64 * 64);
    assert_true(f.splits > 1);
    assert_true(gpu_tile_cycles(g, &large, &l) > gpu_tile_cycles(g, &small, &s));
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_products), cmocka_unit_test(test_sums),
                                     cmocka_unit_test(test_kept), cmocka_unit_test(test_tiles),
                                     cmocka_unit_test(test_tile_sizes)};
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
