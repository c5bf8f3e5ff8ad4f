/* Attention as one kernel of a GPU: graphs with every kind of mask, size and type, once for each tile
 * that the device may have, are interpreted, in an order each, and compared with the same graphs at
 * -O0, which go element by element. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "passes/choose/choice.h"
#include "passes/gpu/attention_tiles.h"
#include "passes/pass.h"

#include <cmocka.h>

enum { MOST = 1 << 16, EVERY = 7, LARGE = 64, MOST_IO = 5, MOST_SYMS = 8 };

typedef enum Mask { NONE, PADDING, BIAS, WHERE, CAUSAL, MASKS } Mask;

typedef struct Case {
  const char *name, *type;
  int batch, heads, shared; /* heads of queries; so many have the same keys */
  int rows, keys, dk, dv;
  Mask mask;
  bool turned; /* heads behind lengths */
  bool made;   /* operands are results of products, which lie aligned */
  bool symbols;
  bool tf32;
  double tolerance;
  bool casts; /* operands of f32 are rounded to f16: these are multiplied */
} Case;

/* clang-format off */
static const Case cases[] = {
    {"plain", "f32", 1, 2, 1, 33, 70, 24, 40, NONE, 0, 0, 0, 0, 1e-4, 0},
    {"odd", "f32", 2, 1, 1, 17, 37, 21, 19, PADDING, 1, 0, 0, 0, 1e-4, 0},
    {"made", "f32", 1, 2, 1, 40, 72, 32, 32, BIAS, 0, 1, 0, 0, 1e-4, 0},
    {"causal", "f32", 1, 2, 2, 70, 70, 16, 16, CAUSAL, 0, 0, 0, 0, 1e-4, 0},
    {"where", "f32", 1, 2, 1, 20, 45, 16, 8, WHERE, 0, 0, 0, 0, 1e-4, 0},
    {"half", "f16", 1, 2, 1, 40, 70, 64, 64, PADDING, 1, 0, 0, 0, 1e-2, 0},
    {"half_made", "f16", 2, 2, 1, 33, 65, 80, 80, BIAS, 1, 1, 0, 0, 2e-2, 0},
    {"half_odd", "f16", 1, 1, 1, 18, 130, 21, 35, WHERE, 0, 0, 0, 0, 1e-2, 0},
    {"half_causal", "f16", 1, 4, 2, 75, 75, 32, 24, CAUSAL, 0, 0, 0, 0, 1e-2, 0},
    {"half_wide", "f16", 1, 1, 1, 20, 33, 128, 128, NONE, 0, 1, 0, 0, 2e-2, 0},
    {"bfloat", "bf16", 1, 2, 1, 35, 50, 48, 56, PADDING, 0, 0, 0, 0, 5e-2, 0},
    {"tf32", "f32", 1, 2, 1, 35, 70, 40, 72, BIAS, 0, 0, 0, 1, 5e-3, 0},
    {"tf32_causal", "f32", 1, 2, 1, 50, 50, 16, 64, CAUSAL, 0, 0, 0, 1, 5e-3, 0},
    {"symbols", "f32", 2, 2, 1, 23, 41, 16, 24, PADDING, 0, 0, 1, 0, 1e-4, 0},
    {"half_symbols", "f16", 2, 2, 1, 70, 83, 32, 32, BIAS, 1, 1, 1, 0, 1e-2, 0},
    {"casts", "f32", 1, 2, 1, 40, 70, 32, 32, PADDING, 1, 1, 0, 0, 1e-2, 1},
    {"one_key", "f16", 1, 2, 1, 16, 1, 16, 16, NONE, 0, 0, 1, 0, 1e-2, 0},
};
/* clang-format on */

static uint64_t next_random(uint64_t *s) {
  *s = *s * 6364136223846793005u + 1442695040888963407u;
  return *s >> 33;
}

/* ---- the graph ---- */

typedef struct Dims {
  const char *batch, *rows, *keys; /* numbers or symbols */
} Dims;

static Dims dims_of(Arena *a, const Case *c) {
  if (c->symbols) return (Dims){"$b", "$s", "$t"};
  return (Dims){arena_printf(a, "%d", c->batch), arena_printf(a, "%d", c->rows),
                arena_printf(a, "%d", c->keys)};
}

/* Operand `name` as [batch, heads, length, size]. */
static void operand(StrBuf *b, const Case *c, const char *name, int heads, const char *batch,
                    const char *length, int size) {
  uint64_t seed = 9;
  if (c->turned)
    sb_printf(b, " %%%s0 : %s[%s,%s,%d,%d] = input \"%s\"\n", name, c->type, batch, length, heads,
              size, name);
  else
    sb_printf(b, " %%%s0 : %s[%s,%d,%s,%d] = input \"%s\"\n", name, c->type, batch, heads, length,
              size, name);
  const char *last = "0";
  if (c->made) {
    sb_printf(b, " %%%sw : %s[%d,%d] = const [", name, c->type, size, size);
    for (int i = 0; i < size * size; i++)
      sb_printf(b, "%s%.4f", i ? "," : "", ((int)(next_random(&seed) % 9) - 4) / 32.0);
    sb_printf(b, "]\n %%%s1 = MatMul %%%s0, %%%sw\n", name, name, name);
    last = "1";
  }
  const char *const to = c->casts ? "2" : "";
  if (c->turned)
    sb_printf(b, " %%%s%s = Transpose %%%s%s {perm=[0,2,1,3]}\n", name, to, name, last);
  else
    sb_printf(b, " %%%s%s = Identity %%%s%s\n", name, to, name, last);
  if (c->casts)
    sb_printf(b, " %%%sh = Cast %%%s2 {to=10}\n %%%s = Cast %%%sh {to=1}\n", name, name, name,
              name);
}

static const char *text_of(Arena *a, const Case *c) {
  StrBuf b = {.arena = a};
  const Dims d = dims_of(a, c);
  const int kv = c->heads / c->shared;
  sb_printf(&b, "model ir 8 opset 23\n");
  if (c->symbols) sb_printf(&b, "symbol $b from 1\nsymbol $s from 1\nsymbol $t from 0\n");
  sb_printf(&b, "graph @main {\n");
  operand(&b, c, "q", c->heads, d.batch, d.rows, c->dk);
  operand(&b, c, "k", kv, d.batch, d.keys, c->dk);
  operand(&b, c, "v", kv, d.batch, d.keys, c->dv);
  if (c->mask == CAUSAL) {
    sb_printf(&b, " %%o = Attention %%q, %%k, %%v {is_causal=1, softcap=3.0}\n");
  } else {
    sb_printf(&b, " %%z : %s[] = const [0.25]\n %%kt = Transpose %%k {perm=[0,1,3,2]}\n", c->type);
    sb_printf(&b, " %%m0 = MatMul %%q, %%kt\n %%m1 = Mul %%m0, %%z\n");
    if (c->mask == NONE) sb_printf(&b, " %%x = Identity %%m1\n");
    if (c->mask == PADDING)
      sb_printf(&b, " %%m : %s[%s,1,1,%s] = input \"m\"\n %%x = Add %%m1, %%m\n", c->type, d.batch,
                d.keys);
    if (c->mask == BIAS)
      sb_printf(&b, " %%m : %s[%s,%s] = input \"m\"\n %%x = Add %%m1, %%m\n", c->type, d.rows,
                d.keys);
    if (c->mask == WHERE)
      sb_printf(&b,
                " %%m : bool[%s,%s] = input \"m\"\n %%low : %s[] = const [-inf]\n"
                " %%x = Where %%m, %%m1, %%low\n",
                d.rows, d.keys, c->type);
    sb_printf(&b, " %%p = Softmax %%x {axis=-1}\n");
    if (c->mask == WHERE)
      sb_printf(&b, " %%n = IsNaN %%p\n %%0 : %s[] = const [0.0]\n %%w = Where %%n, %%0, %%p\n",
                c->type);
    if (c->casts) sb_printf(&b, " %%ph = Cast %%p {to=10}\n %%w = Cast %%ph {to=1}\n");
    sb_printf(&b, " %%o = MatMul %%%s, %%v\n", c->mask == WHERE || c->casts ? "w" : "p");
  }
  if (c->casts) sb_printf(&b, " %%oh = Cast %%o {to=10}\n");
  sb_printf(&b, " %%t = Transpose %%%s {perm=[0,2,1,3]}\n", c->casts ? "oh" : "o");
  sb_printf(&b, " %%r = Tanh %%t\n output %%r \"r\"\n}\n");
  return sb_str(&b);
}

/* ---- running it ---- */

typedef struct Program {
  PassCtx c;
  Arena *a;
} Program;

static Program lowered(const Case *k, const char *target, int opt, const Tuning *t,
                       DecisionLog *log) {
  static const char *const disabled[] = {"serialize_threads"};
  Program p = {.a = arena_new(0, NULL, NULL)};
  Diag *const d = diag_new(p.a);
  p.c = (PassCtx){.target = target_find(target),
                  .opt_level = opt,
                  .max_threads = 1,
                  .tf32 = k->tf32,
                  .tuning = t,
                  .decisions = log};
  p.c.model = model_parse(p.a, d, text_of(p.a, k), k->name);
  const PassOptions o = {.disabled = disabled, .n_disabled = 1};
  if (!p.c.model || !passes_run(&p.c, &o)) {
    diag_print(d, stderr);
    fail_msg("%s on %s", k->name, target);
  }
  return p;
}

static const Step *attention_step(const Module *m) {
  for (const Step *s = m->steps; s; s = s->next)
    if (s->estimate.model && strcmp(s->estimate.model, "gpu_attention") == 0) return s;
  return NULL;
}

/* Of a mask of booleans some rows are empty. */
static void fill(const Case *k, int i, DType t, char *p) {
  uint64_t seed = (uint64_t)i + 3;
  for (int64_t n = 0; n < MOST / 4; n++, p += dtype_bytes(t)) {
    const int64_t v = (int64_t)(next_random(&seed) % 31) - 15;
    if (dtype_is_float(t))
      dtype_store_f(t, p, (double)v / 8);
    else
      dtype_store_i(t, p, n / k->keys % 5 != 2 && v > -8);
  }
}

static int64_t size_of(const Case *k) { return (int64_t)k->batch * k->heads * k->rows * k->dv; }

static void run(const Case *k, const Program *p, ThreadOrder order, void *out) {
  static char in[MOST_IO][MOST];
  const void *const ins[MOST_IO] = {in[0], in[1], in[2], in[3], in[4]};
  const Module *const m = p->c.module;
  int64_t syms[MOST_SYMS] = {k->batch, k->rows, k->keys};
  for (int i = 0; i < m->inputs.n; i++) fill(k, i, m->buffers.data[m->inputs.data[i]].dtype, in[i]);
  if (module_interpret_in(m, order, ins, (void *const[]){out}, syms)) return;
  diag_print(p->c.model->diag, stderr);
  fail_msg("%s: order %d", k->name, order);
}

static void compare(const Case *k, const char *how, DType t, const char *got, const char *want) {
  for (int64_t i = 0; i < size_of(k); i++) {
    const double x = dtype_load_f(t, got + i * dtype_bytes(t)),
                 y = dtype_load_f(t, want + i * dtype_bytes(t));
    if (!(fabs(x - y) <= k->tolerance * (1 + fabs(y))))
      fail_msg("%s as %s: element %d is %g, not %g", k->name, how, (int)i, x, y);
  }
}

static const Decision *decision_of(const Case *k, const DecisionLog *log) {
  for (int i = 0; i < log->list.n; i++)
    if (strncmp(log->list.data[i].key, "gpu_attention", strlen("gpu_attention")) == 0)
      return &log->list.data[i];
  fail_msg("%s: was not asked", k->name);
  return NULL;
}

static void check(const Case *k, const char *want, const Decision *d, int taken, int order) {
  static char got[MOST];
  Arena *const a = arena_new(0, NULL, NULL);
  Tuning t = {.arena = a};
  tuning_set(&t, d->key, d->candidates[taken].name, NULL);
  const Program p = lowered(k, "cuda:sm_80", 3, &t, NULL);
  const Module *const m = p.c.module;
  assert_int_equal(attention_step(m) != NULL, taken > 0);
  memset(got, 0x5a, sizeof got);
  run(k, &p, (ThreadOrder)(order % 3), got);
  compare(k, d->candidates[taken].name, m->buffers.data[m->outputs.data[0]].dtype, got, want);
  arena_free(p.a);
  arena_free(a);
}

/* Tiles in turn, and the products apart. */
static void test_values(void **state) {
  static char want[MOST];
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const Case *const k = &cases[i];
    assert_true(size_of(k) * 4 <= MOST);
    Arena *const a = arena_new(0, NULL, NULL);
    DecisionLog log = {.arena = a};
    const Program plain = lowered(k, "x86-64-v3", 0, NULL, NULL);
    arena_free(lowered(k, "cuda:sm_80", 3, NULL, &log).a);
    run(k, &plain, ORDER_FORWARD, want);
    const Decision *const d = decision_of(k, &log);
    assert_true(d->n > 4);
    for (int taken = (int)i % EVERY; taken < d->n; taken += EVERY)
      if (d->candidates[taken].family <= LARGE || i % EVERY == 0)
        check(k, want, d, taken, (int)i + taken);
    arena_free(plain.a);
    arena_free(a);
  }
}

/* ---- the model ---- */

static double best(const Gpu *g, const GpuAttention *a, AttentionTile *tile) {
  AttentionTile t[MOST_ATTENTION_TILES];
  double least = INFINITY;
  const int n = gpu_attention_tiles(g, a, t);
  for (int i = 0; i < n; i++) {
    const double cycles = gpu_attention_cycles(g, a, &t[i]);
    assert_true(cycles > 0 && isfinite(cycles));
    if (cycles < least) *tile = t[i];
    least = fmin(least, cycles);
  }
  return least;
}

/* Long ones are never apart; more heads or rows never take less; a head too large for registers is
 * none. */
static void test_model(void **state) {
  static const char *const targets[] = {"cuda:sm_80", "cuda:sm_86", "cuda:sm_90", "cuda:sm_100"};
  (void)state;
  for (size_t t = 0; t < sizeof targets / sizeof *targets; t++)
    for (int kind = 0; kind < TILE_BYTES; kind++) {
      const Gpu *const g = target_find(targets[t])->gpu;
      GpuAttention a = {(TileKind)kind, 12, 4096, 4096, 64, 64};
      AttentionTile large, small, none[MOST_ATTENTION_TILES];
      const double cycles = best(g, &a, &large);
      assert_true(cycles < gpu_attention_apart(g, &a));
      assert_true(large.warps * large.fragments >= 2);
      a.rows = a.keys = 64;
      a.heads = 2;
      assert_true(best(g, &a, &small) < cycles);
      assert_true(small.warps * small.fragments < large.warps * large.fragments);
      a.dk = a.dv = 1024;
      assert_int_equal(gpu_attention_tiles(g, &a, none), 0);
    }
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_model)};
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
