/* Grids of blocks: what the verifier refuses, what the interpreter catches, and the texts of
 * tests/passes/serialize_threads, interpreted in three orders, compiled, and compared with sums
 * written here. */
#include "tests/unit/codegen_fixture.h"

/* ---- messages ---- */
static const char *errors(Fix *f) {
  char *s = NULL;
  size_t n = 0;
  FILE *out = open_memstream(&s, &n);
  diag_print(f->d, out);
  fclose(out);
  const char *const copy = arena_strndup(f->a, s, n);
  free(s);
  return copy;
}

/* A kernel of two inputs, one output of 64 elements each, and one of both. */
static const char *program(Fix *f, const char *locals, const char *body) {
  return arena_printf(
      f->a,
      "module { symbol $n 0 b0 : f32[64] = input 0 b1 : i32[64] = input 1 b2 : f32[64] = output 0\n"
      "b3 : f32[64] = arena inputs b0, b1 outputs b2\n"
      "kernel k { param b0 : f32[64] read \"x\" param b1 : i32[64] read param b2 : f32[64] write "
      "\"y\" param b3 : f32[64] readwrite \"z\" %s %s }\nsteps { call k(b0, b1, b2, b3) } }",
      locals, body);
}

static void says(Fix *f, const char *body, const char *want) {
  const char *const text = errors(f);
  if (!strstr(text, want)) fail_msg("%s\nsays: %sand not: %s", body, text, want);
}

typedef struct Case {
  const char *locals;
  const char *body;
  const char *error;
} Case;
#define SHARED "local t0 : f32[64] shared \"tile\"\n"
#define LATE "local t0 : f32[64] shared late 2 \"ring\"\n"
#define OWN "local t0 : f32[2] regs\n"
#define THREAD "for t in 0..64 thread"
#define BLOCK "for i in 0..2 block"

static const Case refused[] = {
    /* ---- what may stand where ---- */
    {"", "for i in 0..2 block { } b2[0] = 0", "block loop i is not the only top statement"},
    {"", "for k in 0..2 { for i in 0..2 block { } }", "block loop i is not the only top statement"},
    {"", "for t in 0..2 thread { }", "thread loop t is in no block loop"},
    {"", BLOCK " { for k in 0..2 { for h in 0..2 block { } } }", "block loop h is not alone"},
    {"", BLOCK " { for a in 0..2 block { for b in 0..2 block { for c in 0..2 block { } } } }",
     "block loop c is not alone in the one around it, or a fourth"},
    {"", BLOCK " { for k in 0..2 parallel { } }", "a parallel loop that is not"},
    {"", BLOCK " { for k in 0..2 vector { } }", "vector loop k is in no thread loop"},
    {"", BLOCK " { " THREAD " { for u in 0..2 thread { } b2[t] = 0 } }",
     "thread loop u is not alone"},
    {"", BLOCK " { b2[i] = 0 }", "b2 is accessed outside of thread loops"},
    {OWN, BLOCK " { local t0\n t0[0] = 0 }", "t0 is accessed outside of thread loops"},
    {SHARED, "local t0\n b2[0] = 0", "shared local t0 is declared outside of block loops"},
    {SHARED, BLOCK " { " THREAD " { local t0 } }", "shared local t0 is declared in a thread loop"},
    {SHARED, BLOCK " { for k in 0..2 { local t0 } " THREAD " { t0[t] = 0 } }",
     "local t0 is used outside of its block"},
    {"local t0 : f32[2] regs late 1\n", BLOCK " { local t0\n " THREAD " { t0[0] = 0 } }",
     "local t0 cannot be late by 1"},
    {"local t0 : f32[64] shared local t1 : f64[29100] shared",
     BLOCK " { local t0 if i < 1 { local t1 " THREAD " { t0[t] = 0 } } }",
     "233088 bytes of shared memory"},
    /* ---- extents ---- */
    {"", "for i in 1..+2 block { }", "block loop i does not begin at 0"},
    {"", "for i in 0..65536 block { for h in 0..65536 block { } }",
     "block loop i is not the innermost, and has more than 65535 blocks"},
    {"", "for i in 0..cast<i64>(b1[0]) block { }", "the extent of block loop i uses more than"},
    {"", BLOCK " { for h in 0..i block { } }", "the extent of block loop h uses more than"},
    {"", BLOCK " { for t in 0..$n thread { } }", "thread loop t has the extent $n"},
    {"", BLOCK " { for t in 2..+3 thread { } }", "thread loop t does not begin at 0"},
    {"", BLOCK " { for t in 0..8 thread { } for u in 0..9 thread { } }", "other extents"},
    {"", BLOCK " { for t in 0..8 thread { } for t in 0..4 thread { for u in 0..2 thread { } } }",
     "other extents"},
    {"", BLOCK " { for t in 0..64 thread { for u in 0..17 thread { } } }",
     "more than 1024 threads"},
    /* ---- what all threads must see alike ---- */
    {SHARED, BLOCK " { local t0\n if t0[0] < 1 { " THREAD " { b2[t] = 0 } } }",
     "outside of thread loops reads a local"},
    {OWN, BLOCK " { local t0\n for k in 0..cast<i64>(t0[0]) { " THREAD " { b2[t] = 0 } } }",
     "outside of thread loops reads a local"},
    {"", BLOCK " { if b3[0] < 1 { " THREAD " { b3[i*32 + t] = 0 } } }", "that is not read-only"},
    {OWN, BLOCK " { local t0\n " THREAD " { t0[floordiv(t, 32)] = 0 } }",
     "register local t0 has the index floordiv(t, 32)"},
    /* ---- races that are certain ---- */
    {"", BLOCK " { " THREAD " { b2[i] = 0 } }",
     "race: b2[i] of thread t=0 is the element that thread t=1 writes before the next barrier"},
    {SHARED, BLOCK " { local t0\n " THREAD " { t0[cast<i64>(2)] = b0[t] } }", "race: t0[2]"},
    {"", BLOCK " { " THREAD " { if b1[i] < 3 { b2[t] = 0 } else { if i < 1 { b3[3] = 1 } } } }",
     "race: b3[3]"},
    {SHARED, BLOCK " { local t0\n " THREAD " { t0[t] = 1 \n b3[i*64 + t] = t0[63 - t] } }",
     "race: t0[t] of thread t=0 is the element that thread t=63 reads before the next barrier"},
    {SHARED,
     BLOCK
     " { local t0\n for t in 0..8 thread { for u in 0..8 thread { for k in 0..2 { t0[t*8 + u] "
     "= 1 } b3[i*64 + t*8 + u] = t0[u*8 + t] } } }",
     "thread t=0 u=1 is the element that thread t=1 u=0 reads"},
    {SHARED,
     BLOCK " { local t0\n " THREAD " { t0[t] = 0\n if b0[t] < 1 { } else { } t0[t + 1] = 0 } }",
     "race: t0[t] of thread t=1 is the element that thread t=0 writes"},
    {"", BLOCK " { " THREAD " { b2[t] = 0 } }",
     "race: b2[t] of block i=0 is the element that block"},
    {"", "for i in 0..$n block { " THREAD " { if t < 3 { b2[t] = 0 } } }",
     "race: b2[t] of block i=0"},
    {"", "for i in 0..2 block { for h in 0..2 block { " THREAD " { b2[(i + h)*64 + t] = 0 } } }",
     "of block i=0 h=1 is the element that block i=1 h=0 writes"},
};

static void test_refused(void **state) {
  Fix *f = *state;
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    const Case *const c = &refused[i];
    f->d = diag_new(f->a);
    f->m = model_new(f->a, f->d);
    Module *const m = module_parse(f->m, program(f, c->locals, c->body), "test");
    must(f, m != NULL, c->body);
    if (module_verify(m, "test")) fail_msg("accepted: %s", c->body);
    says(f, c->body, c->error);
  }
}

/* ---- what only a run shows; it shows in every order ---- */
static const Case caught[] = {
    {SHARED, BLOCK " { local t0\n " THREAD " { t0[cast<i64>(b1[t])] = 1 } }",
     "race at local 0 (tile), index 5: thread t="},
    {SHARED,
     BLOCK " { local t0\n " THREAD " { t0[t] = 1 } " THREAD
           " { t0[t] = 2\n b3[i*32 + floordiv(t, 2)] = t0[floordiv(t, 2)] } }",
     "race at "},
    {SHARED,
     BLOCK " { local t0\n " THREAD " { t0[t] = 1 } " THREAD
           " { t0[t] = t0[floormod(t + 1, 64)] } }",
     "race at local 0 (tile)"},
    {"", BLOCK " { " THREAD " { if t < 32 { b3[i*16 + t] = 1 } } }",
     "race at parameter 3 (z), index 16: block i="},
    {"",
     BLOCK " { " THREAD " { if t < 32 { b3[i*32 + t] = 1 } } " THREAD
           " { b2[i*32 + floordiv(t, 2)] = 1 } }",
     "race at parameter 2 (y), index "},
    {SHARED,
     BLOCK " { local t0\n " THREAD " { if t < 63 { t0[t] = 1 } } " THREAD
           " { if t < 32 { b2[i*32 + t] = t0[t + 32] } } }",
     "read of what nobody set: local 0 (tile) at index 63 of 64"},
    {SHARED,
     BLOCK " { for k in 0..2 { local t0\n " THREAD " { if k < 1 { t0[t] = 1 } } " THREAD
           " { if t < 32 { b2[i*32 + t] = t0[t] } } } }",
     "read of what nobody set: local 0 (tile)"},
    {OWN,
     BLOCK " { local t0\n " THREAD " { if t < 1 { t0[0] = 1 } } " THREAD
           " { if t < 32 { b2[i*32 + t] = t0[0] } } }",
     "read of what nobody set: local 0 ()"},
    {SHARED,
     BLOCK " { local t0\n " THREAD " { t0[t] = 1 } " THREAD
           " { t0[t + cast<i64>(b1[0])] sum= 1 } }",
     "read of local 0 (tile) at index 64 of 64"},
    {LATE,
     BLOCK " { local t0\n " THREAD " { t0[t] = 1 } " THREAD
           " { if t < 32 { b2[i*32 + t] = t0[t] } } }",
     "is touched 1 barriers after it was written, and late by 2"},
    {LATE, BLOCK " { local t0\n " THREAD " { t0[t] = 1 } " THREAD " { t0[t] = 2 } }",
     "local 0 (ring), index "},
    {LATE,
     BLOCK " { local t0\n " THREAD " { t0[t] = b0[t]\n if t < 32 { b2[i*32 + t] = t0[t] } } }",
     "is touched 0 barriers after"},
};

static void test_caught(void **state) {
  Fix *f = *state;
  float x[64] = {0}, y[64];
  int32_t five[64];
  for (int i = 0; i < 64; i++) five[i] = 5;
  for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
    for (int order = ORDER_FORWARD; order <= ORDER_SHUFFLED; order++) {
      const Case *const c = &caught[i];
      f->d = diag_new(f->a);
      f->m = model_new(f->a, f->d);
      Module *const m = module_parse(f->m, program(f, c->locals, c->body), "test");
      must(f, m && module_verify(m, "test"), c->body);
      int64_t syms[4] = {0};
      if (module_interpret_in(m, (ThreadOrder)order, (const void *const[]){x, five},
                              (void *const[]){y}, syms))
        fail_msg("nothing was caught, order %d: %s", order, c->body);
      if (order == ORDER_FORWARD || !strstr(c->error, "index")) says(f, c->body, c->error);
    }
}

/* Parameters that lie in each other: the kernel reads in one what it writes in the other. */
static void test_overlap(void **state) {
  Fix *f = *state;
  Module *const m = module_parse(
      f->m,
      "module { b0 : f32[64] = input 0 b1 : f32[64] = output 0 b2 : f32[64] = arena\n"
      "b3 : f32[32] = view b2 at (8) inputs b0 outputs b1\n"
      "kernel fill { param b0 : f32[64] write for i in 0..64 { b0[i] = 1 } }\n"
      "kernel k { param b0 : f32[64] read \"from\" param b1 : f32[32] write \"to\"\n"
      "for i in 0..2 block { for t in 0..16 thread { b1[i*16 + t] = b0[i*16 + t + 9] } } }\n"
      "steps { call fill(b2) call k(b2, b3) call fill(b1) } }",
      "test");
  must(f, m && module_verify(m, "test"), "overlap");
  const float x[64] = {0};
  float y[64];
  assert_false(module_interpret(m, (const void *const[]){x}, (void *const[]){y}, NULL));
  says(f, "overlap", "race at parameter 1 (to), index 1: thread t=1 writes what thread t=0 read");
}

/* Code is made of loops alone. */
static void test_no_code(void **state) {
  Fix *f = *state;
  const char *const text =
      program(f, "", BLOCK " { " THREAD " { if t < 32 { b2[i*32 + t] = 0 } } }");
  Module *const m = module_parse(f->m, text, "test");
  must(f, m && module_verify(m, "test"), text);
  const CodegenOptions o = {
      .emit = EMIT_OBJ, .output = "/dev/null", .name = "m", .opt_level = 3, .jobs = 1};
  CodegenStats stats;
  assert_false(codegen_write(m, target_find("x86-64-v3"), &o, &stats));
  says(f, text, "kernel k: a grid of blocks, which this target does not have");
}

/* ---- whole kernels ---- */
static const char *read_text(Fix *f, const char *name) {
  FILE *const in = fopen(
      arena_printf(f->a, BURIN_SOURCE_DIR "/tests/passes/serialize_threads/%s.ir", name), "r");
  assert_non_null(in);
  char *const s = arena_alloc(f->a, 8192);
  s[fread(s, 1, 8191, in)] = 0;
  fclose(in);
  return s;
}

static void transpose(const float *const *in, float *out) {
  for (int i = 0; i < 40; i++)
    for (int k = 0; k < 24; k++) out[k * 40 + i] = in[0][i * 24 + k];
}

static void reduce(const float *const *in, float *out) {
  for (int row = 0; row < 5; row++) {
    double sum = 0;
    for (int i = 0; i < 200; i++) sum += sqrt(fabs(in[0][row * 200 + i]));
    out[row] = (float)sum;
  }
}

static void matmul(const float *const *in, float *out) {
  for (int i = 0; i < 40; i++)
    for (int j = 0; j < 24; j++) {
      double sum = 0;
      for (int k = 0; k < 36; k++) sum += in[0][i * 36 + k] * in[1][k * 24 + j];
      out[i * 24 + j] = (float)fmax(sum, 0);
    }
}

typedef struct Whole {
  const char *name;
  int in[2];
  int out;
  void (*reference)(const float *const *in, float *out);
} Whole;
static const Whole wholes[] = {{"transpose", {960, 0}, 960, transpose},
                               {"reduce", {1000, 0}, 5, reduce},
                               {"matmul", {1440, 864}, 960, matmul}};

static const char *text_of(Fix *f, const Module *m) {
  StrBuf b = {.arena = f->a};
  module_print(m, &b);
  return sb_str(&b);
}

/* From this pool and from a new one. */
static void check_text(Fix *f, const char *text) {
  Module *const m = module_parse(f->m, text, "test");
  must(f, m && module_verify(m, "test"), text);
  const char *const once = text_of(f, m);
  Module *const again = module_parse(model_new(f->a, f->d), once, "again");
  must(f, again != NULL, once);
  assert_string_equal(text_of(f, again), once);
}

/* Against the sums above; check_on compares code with this. */
static void check_values(Fix *f, const char *text, const Whole *w) {
  float *const in[2] = {ARENA_ARRAY(f->a, float, w->in[0] + 1),
                        ARENA_ARRAY(f->a, float, w->in[1] + 1)};
  float *const want = ARENA_ARRAY(f->a, float, w->out), *const got =
                                                            ARENA_ARRAY(f->a, float, w->out);
  uint64_t seed = 3;
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < w->in[k]; i++) in[k][i] = (float)(next_random(&seed) % 2001) / 1000 - 1;
  w->reference((const float *const *)in, want);
  for (int order = ORDER_FORWARD; order <= ORDER_SHUFFLED; order++) {
    int64_t syms[4] = {5};
    Module *const m = module_parse(f->m, text, "test");
    must(f,
         module_interpret_in(m, (ThreadOrder)order, (const void *const *)in, (void *const[]){got},
                             syms),
         text);
    for (int i = 0; i < w->out; i++)
      if (fabs(got[i] - want[i]) > 1e-4) fail_msg("%s: [%d] %g %g", w->name, i, got[i], want[i]);
  }
}

static void test_wholes(void **state) {
  static const char *const targets[] = {NULL, "x86-64-v2", "c"};
  Fix *f = *state;
  for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
    const char *const text = read_text(f, wholes[i].name);
    const int64_t n = 5;
    check_text(f, text);
    check_values(f, text, &wholes[i]);
    for (int t = 0; t < 3; t++) check_on(f, targets[t], text, wholes[i].reference == reduce, &n, 0);
  }
}

/* Each of their barriers is needed, and its absence is seen. */
static void test_missing(void **state) {
  Fix *f = *state;
  static float in[2000], out[1000];
  int n = 0;
  for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++)
    for (int barrier = 0;; barrier++, n++) {
      const char *const text = read_text(f, wholes[i].name);
      f->d = diag_new(f->a);
      f->m = model_new(f->a, f->d);
      Module *const m = module_parse(f->m, text, "test");
      if (!drop_barrier(f, m, barrier)) break;
      int64_t syms[4] = {5};
      if (module_verify(m, "test") &&
          module_interpret(m, (const void *const[]){in, in}, (void *const[]){out}, syms))
        fail_msg("%s: barrier %d is not missed", wholes[i].name, barrier);
      says(f, wholes[i].name, "read of what nobody set: local 0");
    }
  assert_int_equal(n, 2);
}

/* Functions are put in by the pass that all share; a bound that a thread reads from its own local;
 * a grid of no blocks, and one that begins with a condition. */
static void test_parts(void **state) {
  Fix *f = *state;
  const char *const text =
      "module { symbol $n 0 b0 : f32[$n*32] = input 0 b1 : f32[$n*32] = output 0\n"
      "b2 : i32[1] = input 1 inputs b0, b2 outputs b1\n"
      "kernel k { param b0 : f32[$n*32] read param b1 : f32[$n*32] write param b2 : i32[1] read\n"
      "local t0 : i64[1] stack local t1 : f32[1] regs local t2 : f32[32] shared\n"
      "for i in 0..$n block { local t0\n if b2[0] < 0 { local t1\n local t2\n\n"
      "for t in 0..32 thread { t0[0] = floormod(t*7, 5)\n t2[t] = tanh(b0[i*32 + t]) }\n"
      "for t in 0..32 thread { t1[0] = exp(t2[31 - t])\n"
      "for k in 0..t0[0] { t1[0] prod= 0.5 + t2[floormod(t + k, 32)] } }\n"
      "for t in 0..32 thread { b1[i*32 + t] = t1[0] } }\n"
      "else { for t in 0..32 thread { for v in 0..1 vector { b1[i*32 + t + v] = 3 } } } } }\n"
      "steps { call k(b0, b1, b2) } }";
  for (int64_t n = 0; n < 4; n++) {
    check_on(f, NULL, text, 1, &n, 1e-5);
    check_on(f, "c", text, 1, &n, 1e-5);
  }
}

/* Locals of statements that follow each other lie in one place, those of one statement do not. */
static void test_shared_places(void **state) {
  Fix *f = *state;
  const char *const body = BLOCK " { local t0\n local t1\n " THREAD
                                 " { t0[t] = 0\n t1[t] = 1 }\n"
                                 "local t2\n if i < 1 { " THREAD
                                 " { t2[t] = t1[t] } }\n"
                                 "local t3\n " THREAD " { t3[t] = t2[t] } }";
  const char *const text = program(f,
                                   "local t0 : f32[64] shared local t1 : f32[64] shared local t2 : "
                                   "f32[64] shared local t3 : f32[64] shared",
                                   body);
  Module *const m = module_parse(f->m, text, "test");
  must(f, m && module_verify(m, "test"), body);
  SharedPlace *place;
  assert_int_equal(kernel_shared_places(f->a, m->kernels.data[0], &place), 2 * 256);
  assert_int_equal(place[0].at, 0);
  assert_int_equal(place[1].at, 256);
  assert_int_equal(place[2].at, 0); /* t0 is not used any more, t1 is */
  assert_int_equal(place[3].at, 256);
  for (int n = 0; n < 8; n++)
    assert_int_equal(shared_is_renewed(m->kernels.data[0], place, n), n == 3 || n == 5);
}

int main(int argc, char **argv) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {T(test_refused), T(test_caught),       T(test_overlap),
                                     T(test_no_code), T(test_wholes),       T(test_missing),
                                     T(test_parts),   T(test_shared_places)};
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
