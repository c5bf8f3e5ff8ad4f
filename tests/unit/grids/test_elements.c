/* Elements on GPUs: random shapes, types and orders of what threads compute by patches and through
 * tiles, interpreted and compared with what -O0 gives, which goes element by element. */
#include "tests/unit/grids/gpu_fixture.h"

/* ---- random graphs ---- */
typedef struct Draw {
  uint64_t seed;
  Arena *a;
} Draw;

static int draw(Draw *d, int lo, int hi) {
  return lo + (int)(next_random(&d->seed) % (uint64_t)(hi - lo + 1));
}

static const char *shape_text(Draw *d, int rank, const int *dims) {
  StrBuf b = {.arena = d->a};
  for (int i = 0; i < rank; i++) sb_printf(&b, "%s%d", i ? "," : "", dims[i]);
  return sb_str(&b);
}

static const char *type_text(Draw *d, const char *type, int rank, const int *dims) {
  return arena_printf(d->a, "%s[%s]", type, shape_text(d, rank, dims));
}

typedef struct Window {
  int rank; /* of the image */
  int in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
} Window;

static Window draw_window(Draw *d, int rank, int most) {
  Window w = {.rank = rank};
  for (int i = 0; i < rank; i++) {
    w.kernel[i] = draw(d, i == rank - 1 ? 2 : 1, rank == 3 ? 3 : 5);
    w.stride[i] = draw(d, 1, 2);
    w.dilation[i] = draw(d, 1, 4) == 1 ? 2 : 1;
    const int reach = (w.kernel[i] - 1) * w.dilation[i];
    w.pad[i] = draw(d, 0, (w.kernel[i] - 1) / 2);
    w.in[i] = draw(d, reach + 1, reach + most);
    w.out[i] = (w.in[i] + 2 * w.pad[i] - reach - 1) / w.stride[i] + 1;
  }
  return w;
}

static const char *window_text(Draw *d, const Window *w) {
  int pads[6];
  for (int i = 0; i < w->rank; i++) pads[i] = pads[w->rank + i] = w->pad[i];
  return arena_printf(d->a, "kernel_shape=[%s], strides=[%s], dilations=[%s], pads=[%s]",
                      shape_text(d, w->rank, w->kernel), shape_text(d, w->rank, w->stride),
                      shape_text(d, w->rank, w->dilation), shape_text(d, 2 * w->rank, pads));
}

/* A convolution of one pixel, around which channels lie last. */
static const char *mix_text(Draw *d, const char *type, int rank, const int *dims, const char *from,
                            const char *to) {
  int shape[5] = {dims[1], dims[1], 1, 1, 1};
  const char *const weights = type_text(d, type, rank, shape);
  return arena_printf(d->a, "%%w%s : %s = const [%s]\n %s : %s = Conv %s, %%w%s\n", to + 1, weights,
                      numbers(d->a, weights), to, type_text(d, type, rank, dims), from, to + 1);
}

/* A depthwise convolution or a pooling, some between convolutions. */
static Case draw_windowed(Draw *d, int k) {
  static const char *const types[] = {"f32", "f16", "bf16"};
  static const char *const pools[] = {"MaxPool", "AveragePool"};
  const char *const type = types[draw(d, 0, 2)];
  const int rank = draw(d, 1, 3), multiplier = draw(d, 1, 4) == 1 ? 2 : 1;
  const bool conv = draw(d, 0, 2) > 0, mixed = draw(d, 0, 3) > 0;
  const int channels = draw(d, 1, 6) * draw(d, 1, 6), n = draw(d, 1, 2);
  const Window w = draw_window(d, rank, rank == 1 ? 60 : rank == 2 ? 14 : 6);
  int in[5] = {n, channels}, out[5] = {n, channels * (conv ? multiplier : 1)},
      weights[5] = {out[1], 1};
  for (int i = 0; i < rank; i++) {
    in[2 + i] = w.in[i];
    out[2 + i] = w.out[i];
    weights[2 + i] = w.kernel[i];
  }
  Case c = {.name = arena_printf(d->a, "windowed %d", k),
            .in = {type_text(d, type, rank + 2, in)},
            .out = type_text(d, type, rank + 2, out),
            .tolerance = strcmp(type, "f32") == 0   ? 1e-4
                         : strcmp(type, "f16") == 0 ? 2e-2
                                                    : 1e-1};
  if (conv) c.w = type_text(d, type, rank + 2, weights);
  const char *const from = mixed ? mix_text(d, type, rank + 2, in, "%x", "%a")
                                 : arena_printf(d->a, "%%a : %s = Relu %%x\n", c.in[0]);
  const char *const to = mixed ? mix_text(d, type, rank + 2, out, "%b", "%r")
                               : arena_printf(d->a, "%%r : %s = Neg %%b\n", c.out);
  const char *const op =
      conv ? arena_printf(d->a, "Conv %%a, %%w {group=%d, %s}", channels, window_text(d, &w))
           : arena_printf(d->a, "%s %%a {%s}", pools[draw(d, 0, 1)], window_text(d, &w));
  c.body = arena_printf(d->a, "%s %%b : %s = %s\n %s", from, c.out, op, to);
  return c;
}

/* Transpositions inside a chain: of two inputs, in orders of their own. */
static Case draw_transposed(Draw *d, int k) {
  static const char *const types[] = {"f32", "f16", "u8", "i64"};
  const char *const type = types[draw(d, 0, 3)];
  const int rank = draw(d, 2, 4);
  int out[4], in[2][4], perm[2][4];
  for (int i = 0, large = 0; i < rank; i++) {
    const bool is_large = large < 2 && draw(d, 0, 2) > 0;
    out[i] = is_large ? draw(d, 0, 1) ? 8 * draw(d, 1, 10) : draw(d, 8, 80) : draw(d, 1, 4);
    large += is_large;
  }
  for (int m = 0; m < 2; m++) {
    for (int i = 0; i < rank; i++) perm[m][i] = i;
    for (int i = rank - 1; i > 0; i--) {
      const int j = draw(d, 0, i), swap = perm[m][i];
      perm[m][i] = perm[m][j];
      perm[m][j] = swap;
    }
    for (int i = 0; i < rank; i++) in[m][perm[m][i]] = out[i];
  }
  const char *const t = type_text(d, type, rank, out);
  Case c = {.name = arena_printf(d->a, "transposed %d", k),
            .in = {type_text(d, type, rank, in[0]), type_text(d, type, rank, in[1])},
            .out = t,
            .tolerance = type[0] == 'f' ? 1e-3 : 0};
  c.body = arena_printf(d->a,
                        "%%a : %s = Transpose %%x {perm=[%s]}\n %%b : %s = Transpose %%y "
                        "{perm=[%s]}\n %%r : %s = Sub %%a, %%b",
                        t, shape_text(d, rank, perm[0]), t, shape_text(d, rank, perm[1]), t);
  return c;
}

/* A running sum along some axis, either way, with or without its own element. */
static Case draw_scan(Draw *d, int k) {
  static const char *const types[] = {"f32", "i32"};
  const char *const type = types[draw(d, 0, 1)];
  const int axis = draw(d, 0, 2);
  int dims[3] = {draw(d, 1, 6), draw(d, 1, 6), draw(d, 1, 6)};
  dims[axis] = draw(d, 100, 1200);
  const char *const t = type_text(d, type, 3, dims);
  Case c = {.name = arena_printf(d->a, "scan %d", k), .in = {t}, .out = t};
  c.tolerance = type[0] == 'f' ? 1e-3 : 0;
  c.body = arena_printf(d->a,
                        "%%ax : i64[] = const [%d]\n %%s : %s = CumSum %%x, %%ax {exclusive=%d, "
                        "reverse=%d}\n %%r : %s = Neg %%s",
                        axis, t, draw(d, 0, 1), draw(d, 0, 1), t);
  return c;
}

/* ---- what they are made of ---- */
typedef struct Form {
  ExprPool *p;
  int loops[FOR_THREAD + 1];
  int64_t widest;  /* elements that a vector loop stores */
  int64_t longest; /* unrolled loop */
  bool shared;     /* memory of a block */
} Form;

static bool note_form(void *user, Stmt *s) {
  Form *const f = user;
  int64_t n = 0;
  if (s->kind != ST_FOR) return true;
  f->loops[s->loop.kind]++;
  expr_is_const(expr_var_extent(f->p, s->loop.var->id), &n);
  if (s->loop.kind == FOR_VECTOR && s->loop.body->kind == ST_STORE && n > f->widest) f->widest = n;
  if (s->loop.kind == FOR_UNROLL && n > f->longest) f->longest = n;
  return true;
}

static Form form_of(const Program *p) {
  const Module *const m = p->c.module;
  Form f = {.p = p->c.model->pool};
  for (int i = 0; i < m->kernels.n; i++) {
    const Kernel *const k = m->kernels.data[i];
    stmt_each(k->body, note_form, &f);
    for (int l = 0; l < k->locals.n; l++) f.shared |= k->locals.data[l].memory == MEM_SHARED;
  }
  return f;
}

/* ---- comparing ---- */
/* Of a GPU with two multiprocessors, which is soon busy. */
static bool check_case(const Case *k, ThreadOrder order) {
  static char want[MOST], got[MOST];
  Target small = *target_find("cuda:sm_80");
  Gpu gpu = *small.gpu;
  gpu.sms = 2;
  small.gpu = &gpu;
  const Program plain = lowered(k, "x86-64-v3", 0), grid = lowered_for(k, &small, 3);
  const DType t = plain.c.module->buffers.data[plain.c.module->outputs.data[0]].dtype;
  run(k, &plain, ORDER_FORWARD, want);
  memset(got, 0x5a, sizeof got);
  run(k, &grid, order, got);
  compare(k, t, got, want);
  const bool taken = form_of(&grid).longest > 1 || form_of(&grid).widest > 1;
  arena_free(plain.a);
  arena_free(grid.a);
  return taken;
}

/* At least `least` of them have loops that are copied out, or tiles. */
static void check_random(Case (*drawn)(Draw *, int), int n, int least, uint64_t seed) {
  int taken = 0;
  for (int i = 0; i < n; i++) {
    Draw d = {.seed = seed + (uint64_t)i * 977, .a = arena_new(0, NULL, NULL)};
    const Case c = drawn(&d, i);
    taken += check_case(&c, (ThreadOrder)(i % 3));
    arena_free(d.a);
  }
  if (taken < least) fail_msg("%d of %d", taken, n);
}

static void test_windowed(void **state) {
  (void)state;
  check_random(draw_windowed, 40, 20, 11);
}

static void test_transposed(void **state) {
  (void)state;
  check_random(draw_transposed, 60, 15, 5);
}

static void test_scans(void **state) {
  (void)state;
  check_random(draw_scan, 30, 0, 3);
}

/* Threads store 16 bytes at once, several pixels share what they read of a window, and what lies
 * across goes through shared memory. */
static void test_patches(void **state) {
  (void)state;
  /* clang-format off */
  static const struct {
    Case c;
    int64_t widest, longest;
    bool shared;
  } list[] = {
      {{.name = "depthwise", .in = {"f32[4,64,64,64]"}, .w = "f32[64,1,3,3]", .out = "f32[4,64,64,64]",
        .body = "%a : f32[4,64,64,64] = Relu %x\n %b : f32[4,64,64,64] = Conv %a, %w {group=64, pads=[1,1,1,1]}\n"
                " %r : f32[4,64,64,64] = Relu %b"}, 4, 10, true},
      {{.name = "halves", .in = {"f16[8,64,64,64]"}, .w = "f16[64,1,3,3]", .out = "f16[8,64,32,32]",
        .body = "%a : f16[8,64,64,64] = Relu %x\n %b : f16[8,64,32,32] = Conv %a, %w {group=64, strides=[2,2], pads=[1,1,1,1]}\n"
                " %r : f16[8,64,32,32] = Relu %b"}, 8, 8, true},
      {{.name = "chain", .in = {"f32[1000,1000]", "f32[1000]"}, .out = "f32[1000,1000]",
        .body = "%a : f32[1000,1000] = Add %x, %y\n %r : f32[1000,1000] = Tanh %a"}, 4, 0, false},
      {{.name = "ragged", .in = {"f16[1001,1003]"}, .out = "f16[1001,1003]", .body = "%r : f16[1001,1003] = Tanh %x"}, 8, 0, false},
      {{.name = "transposed", .in = {"f16[512,768]", "f16[768,512]"}, .out = "f16[768,512]",
        .body = "%a : f16[768,512] = Transpose %x {perm=[1,0]}\n %r : f16[768,512] = Sub %a, %y"}, 2, 0, true},
      {{.name = "planes", .in = {"u8[2,64,80,80]"}, .out = "u8[2,80,80,64]",
        .body = "%r : u8[2,80,80,64] = Transpose %x {perm=[0,2,3,1]}"}, 4, 0, true},
      {{.name = "scan", .in = {"f32[4,5000]"}, .out = "f32[4,5000]",
        .body = "%a : i64[] = const [1]\n %r : f32[4,5000] = CumSum %x, %a"}, 0, 0, true},
      {{.name = "scans", .in = {"f32[20000,50]"}, .out = "f32[20000,50]",
        .body = "%a : i64[] = const [1]\n %r : f32[20000,50] = CumSum %x, %a"}, 0, 0, false},
      /* so few lines that a block reads whole sectors of each anyway */
      {{.name = "colours", .in = {"f32[4,3,300,300]"}, .out = "f32[4,300,300,3]",
        .body = "%r : f32[4,300,300,3] = Transpose %x {perm=[0,2,3,1]}"}, 0, 0, false},
  };
  /* clang-format on */
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    const Program p = lowered(&list[i].c, "cuda:sm_90", 3);
    const Form f = form_of(&p);
    if (f.widest < list[i].widest || f.longest < list[i].longest || f.shared != list[i].shared)
      fail_msg("%s: %d elements at once, loops of %d, shared %d", list[i].c.name, (int)f.widest,
               (int)f.longest, f.shared);
    arena_free(p.a);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_windowed),
                                     cmocka_unit_test(test_transposed),
                                     cmocka_unit_test(test_scans), cmocka_unit_test(test_patches)};
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
