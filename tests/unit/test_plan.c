/* Memory planner: packing of random blocks, plans of random programs (checked by plan_check and by
 * running them in the planned arena), symbolic sizes, and that the checker finds broken plans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "passes/memory/plan_written.h"

#include <cmocka.h>

bool pass_plan_memory(PassCtx *c);

static uint32_t seed = 12345;
static int rnd(int n) {
  seed ^= seed << 13;
  seed ^= seed >> 17;
  seed ^= seed << 5;
  return (int)(seed % (unsigned)n);
}

typedef struct World {
  Arena *a;
  Model *model;
  Module *m;
} World;

static World world(const char *text) {
  World w = {.a = arena_new(0, NULL, NULL)};
  w.model = model_new(w.a, diag_new(w.a));
  w.m = text ? module_parse(w.model, text, "test") : module_new(w.model);
  if (!w.m) diag_print(w.model->diag, stderr);
  assert_non_null(w.m);
  return w;
}

static bool plan(World *w) {
  PassCtx c = {.model = w->model, .module = w->m, .scratch = w->a};
  return pass_plan_memory(&c);
}

static int64_t constant(const Expr *e) {
  int64_t v = -1;
  assert_true(expr_is_const(e, &v));
  return v;
}

static void test_pack(void **state) {
  for (int round = 0; round < 60; round++) {
    Arena *a = arena_new(0, NULL, NULL);
    const int n = 1 + rnd(60);
    PackItem items[60];
    for (int i = 0; i < n; i++) {
      items[i] = (PackItem){.size = 64 * rnd(20), .start = rnd(40)};
      items[i].end = items[i].start + (rnd(5) ? rnd(4) : rnd(30));
    }
    const int64_t total = pack_items(a, items, n), lower = pack_lower_bound(a, items, n);
    assert_true(total >= lower && total <= lower + lower / 4 + 64 * 20);
    for (int i = 0; i < n; i++) {
      assert_true(items[i].offset >= 0 && items[i].offset + items[i].size <= total);
      for (int j = 0; j < i; j++) {
        const PackItem *x = &items[i], *y = &items[j];
        if (x->start > y->end || y->start > x->end || !x->size || !y->size) continue;
        assert_true(x->offset + x->size <= y->offset || y->offset + y->size <= x->offset);
      }
    }
    arena_free(a);
  }
}

/* ---- random programs: kernels that add two buffers into a third ---- */
typedef struct Gen {
  World *w;
  Kernel *add[2]; /* [1]: sizes with the symbol */
  const Expr *count[2];
  Vec(int) live; /* readable arena buffers of both sizes */
  Vec(Step *) steps;
} Gen;

static Kernel *add_kernel(World *w, const Expr *count) {
  ExprPool *p = w->model->pool;
  Kernel *k = kernel_new(w->m, "add", NULL);
  for (int i = 0; i < 3; i++)
    kernel_add_param(
        w->m, k,
        (Param){.dtype = DT_I32, .count = count, .access = i < 2 ? PA_READ : PA_WRITE, .align = 4});
  const Expr *i = ex_var(p, "i", count), *one = ex_int(p, DT_I32, 1);
  const Expr *v = ex_add(p,
                         ex_add(p, ex_load(p, DT_I32, 0, i, NULL),
                                ex_mul(p, ex_load(p, DT_I32, 1, i, NULL), ex_int(p, DT_I32, 3))),
                         one);
  k->body = stmt_for(w->a, FOR_SERIAL, i, stmt_store(w->a, 2, i, v));
  return k;
}

static Step *add_step(Gen *g, int size, int a, int b, int to) {
  Step *s = step_new(g->w->m, STEP_KERNEL, NULL);
  BufRef *args = ARENA_ARRAY(g->w->a, BufRef, 3);
  for (int i = 0; i < 3; i++) args[i] = (BufRef){i == 0 ? a : i == 1 ? b : to, NULL};
  s->call.kernel = g->add[size];
  s->call.args = args;
  s->call.n_args = 3;
  return s;
}

static int pick(Gen *g, int size) {
  for (int tries = 0; tries < 200; tries++) {
    const int back = rnd(6) ? 1 + rnd(4) : 1 + rnd(g->live.n); /* mostly recent ones */
    const int id = g->live.data[back <= g->live.n ? g->live.n - back : 0];
    if (g->w->m->buffers.data[id].count == g->count[size]) return id;
  }
  return size; /* inputs are b0 and b1 */
}

static Step *random_steps(Gen *g, int n, int depth) {
  Step *first = NULL, **end = &first;
  const int mark = g->live.n;
  for (int i = 0; i < n; i++) {
    if (depth < 3 && rnd(8) == 0) {
      Step *s = *end = step_new(g->w->m, STEP_LOOP, NULL);
      s->loop.trip = ex_i64(g->w->model->pool, 1 + rnd(3));
      s->loop.body = random_steps(g, 1 + rnd(5), depth + 1);
      end = &s->next;
      continue;
    }
    const int size = rnd(2), a = pick(g, size), b = pick(g, size);
    int to;
    if (depth && rnd(4) == 0 &&
        pick(g, size) > 3) { /* overwrite something old: carried around the loop */
      to = pick(g, size);
      if (to <= 3 || to == a || to == b) to = -1;
    } else {
      to = -1;
    }
    if (to < 0) {
      Buffer *nb = module_add_buffer(g->w->m, BUF_ARENA, DT_I32, g->count[size], "t");
      to = nb->id;
      if (rnd(2)) nb->inplace_of = a == b || rnd(2) ? a : b;
      if (nb->inplace_of == a && a == b) nb->inplace_of = a;
    }
    *end = add_step(g, size, a, b, to);
    end = &(*end)->next;
    vec_push(g->w->a, &g->live, to);
  }
  (void)mark;
  return first;
}

static void random_program(bool symbolic) {
  World w = world(NULL);
  Gen g = {.w = &w};
  ExprPool *p = w.model->pool;
  const Expr *n = ex_sym(p, "n");
  g.count[0] = ex_i64(p, 40);
  g.count[1] = symbolic ? ex_mul(p, n, ex_i64(p, 24)) : ex_i64(p, 100);
  const Expr *total = ex_add(p, g.count[0], g.count[1]);
  for (int i = 0; i < 2; i++)
    module_add_buffer(w.m, BUF_INPUT, DT_I32, g.count[i], "in")->index = i;
  for (int i = 0; i < 2; i++)
    module_add_buffer(w.m, BUF_OUTPUT, DT_I32, g.count[i], "out")->index = i;
  for (int i = 0; i < 2; i++) {
    g.add[i] = add_kernel(&w, g.count[i]);
    vec_push(w.a, &g.live, i);
  }
  (void)total;
  w.m->steps = random_steps(&g, 5 + rnd(60), 0);
  Step **end = &w.m->steps;
  while (*end) end = &(*end)->next;
  for (int i = 0; i < 2; i++) {
    *end = add_step(&g, i, pick(&g, i), pick(&g, i), 2 + i);
    end = &(*end)->next;
  }
  if (!module_verify(w.m, "random")) diag_print(w.model->diag, stderr);
  int32_t in[2][256], out[2][2][256];
  for (int i = 0; i < 512; i++) in[i / 256][i % 256] = rnd(1000);
  int64_t syms[2] = {5, 0};
  const void *ins[] = {in[0], in[1]};
  for (int k = 0; k < 2; k++) {
    memset(out[k], 0, sizeof out[k]);
    void *outs[] = {out[k][0], out[k][1]};
    if (k == 1 && !plan(&w)) {
      diag_print(w.model->diag, stderr);
      StrBuf b = {.arena = w.a};
      module_print(w.m, &b);
      puts(sb_str(&b)), fail();
    }
    assert_true(module_interpret(w.m, ins, outs, syms));
  }
  if (memcmp(out[0], out[1], sizeof out[0]) != 0) {
    StrBuf b = {.arena = w.a};
    module_print(w.m, &b);
    fail_msg("results differ in the planned arena\n%s", sb_str(&b));
  }
  arena_free(w.a);
}

static void test_random(void **state) {
  for (int i = 0; i < 300; i++) random_program(i % 2);
}

#define K2                                                                                        \
  "kernel k { param b0 : f32[16] read param b1 : f32[16] write for i in 0..16 { b1[i] = b0[i] } " \
  "}\n"

static void test_inplace(void **state) {
  World w = world(
      "module { b0 : f32[16] = input 0\n b1 : f32[16] = arena\n b2 : f32[16] = arena inplace b1\n"
      "b3 : f32[16] = arena inplace b2\n b4 : f32[16] = output 0\n" K2
      "steps { call k(b0, b1) call k(b1, b2) call k(b2, b3) call k(b3, b4) } }");
  assert_true(plan(&w));
  assert_int_equal(constant(w.m->arena_bytes), 64);
  assert_int_equal(w.m->arena_lower_bound, 64);
  arena_free(w.a);
  /* b1 is read later: the hint must be refused */
  w = world(
      "module { b0 : f32[16] = input 0\n b1 : f32[16] = arena\n b2 : f32[16] = arena inplace b1\n"
      "b3 : f32[16] = output 0\n" K2
      "steps { call k(b0, b1) call k(b1, b2) call k(b1, b3) call k(b2, b3) } }");
  assert_true(plan(&w));
  assert_int_equal(constant(w.m->arena_bytes), 128);
  arena_free(w.a);
}

static void test_views(void **state) {
  /* a view keeps its base alive; pieces written into views */
  World w = world(
      "module { b0 : f32[16] = input 0\n b1 : f32[32] = arena\n b2 : f32[16] = view b1 at (16)\n"
      "b3 : f32[16] = view b1\n b4 : f32[16] = arena\n b5 : f32[16] = output 0\n" K2
      "steps { call k(b0, b3) call k(b0, b2) call k(b3, b4) call k(b2, b5) call k(b4, b5) } }");
  assert_true(module_verify(w.m, "test") && plan(&w));
  assert_int_equal(constant(w.m->arena_bytes), 128 + 64);
  assert_int_equal(w.m->arena_lower_bound, 128 + 64);
  arena_free(w.a);
}

static void test_symbolic(void **state) {
  World w = world(
      "module { symbol $n 1\n symbol $k 0 runtime bound $n*2\n b0 : f32[16] = input 0\n"
      "b1 : f32[$n*16] = arena\n b2 : f32[$n*16] = arena\n b3 : f32[$n*32] = arena\n b4 : f32[7] = "
      "arena\n"
      "b5 : u8[3*$k] = arena\n"
      "kernel k { param b0 : f32[1] read param b1 : f32[1] write param b2 : f32[10] readwrite "
      "scratch b1[0] = b0[0] }\n"
      "kernel z { param b0 : u8[1] write b0[0] = 1 }\n"
      "steps { call k(b0, b1) call k(b1, b2) call k(b2, b3) call k(b3, b4) call k(b4, b1) call "
      "z(b5) } }");
  const bool ok = plan(&w);
  if (!ok) diag_print(w.model->diag, stderr);
  assert_true(ok);
  const Expr *bytes = expr_subst(w.model->pool, w.m->arena_bytes, ex_sym(w.model->pool, "n"),
                                 ex_i64(w.model->pool, 100));
  assert_int_equal(constant(bytes), 25600); /* the u8 buffer comes when the others are dead */
  assert_int_equal(constant(w.m->scratch_bytes), 64);
  assert_int_equal(w.m->arena_lower_bound, -1);
  arena_free(w.a);
  w = world(
      "module { symbol $k 0 runtime\n b0 : f32[$k] = arena\n kernel k { param b0 : f32[1] write "
      "b0[0] = 1.0 }\n"
      "steps { call k(b0) } }");
  assert_false(plan(&w));
  assert_int_equal(diag_exit_status(w.model->diag), 5);
  arena_free(w.a);
}

/* Damaged plans must be found. */
static void test_check(void **state) {
  const char *text =
      "module { b0 : f32[16] = input 0\n b1 : f32[16] = arena\n b2 : f32[16] = arena\n b3 : "
      "f32[16] = arena\n"
      "b4 : f32[16] = output 0\n" K2
      "steps { call k(b0, b1) call k(b0, b2) call k(b1, b3) call k(b2, b4) call k(b3, b4) } }";
  for (int k = 0; k < 5; k++) {
    World w = world(text);
    assert_true(plan(&w) && plan_check(w.m));
    ExprPool *p = w.model->pool;
    Buffer *b = w.m->buffers.data;
    if (k == 0) b[2].offset = b[1].offset;
    if (k == 1) b[1].offset = ex_i64(p, -64);
    if (k == 2) b[3].offset = w.m->arena_bytes;
    if (k == 3) b[3].offset = ex_add(p, b[2].offset, ex_i64(p, 4));
    if (k == 4) b[1].offset = NULL;
    assert_false(plan_check(w.m));
    assert_int_equal(diag_exit_status(w.model->diag), 70);
    arena_free(w.a);
  }
}

/* Read before written in a loop: lives around it. */
static void test_carried(void **state) {
  World w = world(
      "module { b0 : f32[16] = input 0\n b1 : f32[16] = arena\n b2 : f32[16] = arena\n b3 : "
      "f32[16] = arena\n"
      "b4 : f32[16] = output 0\n" K2
      "steps { call k(b0, b1) loop cond - limit 3 { call k(b1, b2) call k(b2, b3) call k(b3, b1) } "
      "call k(b1, b4) } }");
  assert_true(plan(&w));
  assert_int_equal(constant(w.m->arena_bytes), 128 + 64);
  w.m->buffers.data[3].offset = w.m->buffers.data[1].offset;
  assert_false(plan_check(w.m));
  arena_free(w.a);
}

/* ---- reads follow writes ---- */
typedef struct WrittenCase {
  const char *name;
  bool ok;
  int undecided;
  const char
      *kernel; /* body of "f", over b0: f32[16] (b1 of the program) and b1: i64[16] (input 2) */
  const char *steps;
} WrittenCase;

static const WrittenCase written_cases[] = {
    {"all", true, 0, "for i in 0..16 { b0[i] = 1.0 }", "call f(b1, b4) call k(b1, b2)"},
    {"nothing", false, 0, "", "call k(b1, b2)"},
    {"later", false, 0, "for i in 0..16 { b0[i] = 1.0 }", "call k(b1, b2) call f(b1, b4)"},
    {"all but one", false, 0, "for i in 0..15 { b0[i] = 1.0 }", "call f(b1, b4) call k(b1, b2)"},
    {"two halves", true, 0, "for i in 0..8 { b0[2*i] = 1.0 b0[2*i + 1] = 2.0 }",
     "call f(b1, b4) call k(b1, b2)"},
    {"one of two halves", false, 0, "for i in 0..8 { b0[2*i] = 1.0 }",
     "call f(b1, b4) call k(b1, b2)"},
    {"backwards", true, 0, "for i in 0..16 { b0[15 - i] = 1.0 }", "call f(b1, b4) call k(b1, b2)"},
    {"rows and columns", true, 0, "for i in 0..4 { for j in 0..4 { b0[i + 4*j] = 1.0 } }",
     "call f(b1, b4) call k(b1, b2)"},
    {"flattened", true, 0, "for i in 0..16 { b0[floormod(i, 4)*4 + floordiv(i, 4)] = 1.0 }",
     "call f(b1, b4) call k(b1, b2)"},
    {"a triangle", false, 0, "for i in 0..4 { for j in 0..i + 1 { b0[4*i + j] = 1.0 } }",
     "call f(b1, b4) call k(b1, b2)"},
    {"two triangles", true, 0,
     "for i in 0..4 { for j in 0..i + 1 { b0[4*i + j] = 1.0 } for j2 in 0..3 - i { b0[4*i + i + 1 "
     "+ "
     "j2] = 1.0 } }",
     "call f(b1, b4) call k(b1, b2)"},
    {"under a condition", false, 0, "for i in 0..16 { if i < 12 { b0[i] = 1.0 } else { } }",
     "call f(b1, b4) call k(b1, b2)"},
    {"in both branches", true, 0,
     "for i in 0..16 { if i < 12 { b0[i] = 1.0 } else { b0[i] = 2.0 } }",
     "call f(b1, b4) call k(b1, b2)"},
    {"at the border", true, 0, "for i in 0..4 { b0[4*i] = 0.0 b0[4*i + 3] = 0.0 }",
     "call f(b1, b4) call inner(b1) call k(b1, b2)"},
    {"border behind its reader", false, 0, "for i in 0..4 { b0[4*i] = 0.0 b0[4*i + 3] = 0.0 }",
     "call inner(b1) call k(b1, b2) call f(b1, b4)"},
    {"guarded load", true, 0, "for i in 0..8 { b0[4 + i] = b0[i + 8 if i >= 8] }",
     "call f(b1, b4) copy b1 at (4) -> b2 count 8 copy b0 -> b2 at (8) count 8"},
    {"unguarded load", false, 0, "for i in 0..8 { b0[i] = b0[i + 8] }",
     "call f(b1, b4) call k(b0, b2)"},
    {"sum into nothing", false, 0, "for i in 0..16 { b0[i] = b0[i] + 1.0 }",
     "call f(b1, b4) call k(b1, b2)"},
    {"sum", true, 0, "for i in 0..16 { b0[i] = b0[i] + 1.0 }",
     "copy b0 -> b1 count 16 call f(b1, b4) call k(b1, b2)"},
    {"running sum", true, 0, "b0[0] = 1.0 for i in 0..15 { b0[i + 1] = b0[i] + 1.0 }",
     "call f(b1, b4) call k(b1, b2)"},
    {"part of a copy", false, 0, "", "copy b0 -> b1 count 15 call k(b1, b2)"},
    {"two copies", true, 0, "",
     "copy b0 -> b1 at (1) count 15 copy b0 -> b1 count 1 call k(b1, b2)"},
    {"through a view", true, 0, "", "copy b0 -> b5 count 8 copy b0 -> b1 count 8 call k(b1, b2)"},
    {"beside a view", false, 0, "", "copy b0 -> b5 count 8 copy b0 -> b1 count 7 call k(b1, b2)"},
    {"one branch", false, 0, "", "if b3 { copy b0 -> b1 count 16 } else { } call k(b1, b2)"},
    {"both branches", true, 0, "",
     "if b3 { copy b0 -> b1 count 16 } else { copy b0 -> b1 at (8) count 8 copy b0 -> b1 count 8 } "
     "call k(b1, b2)"},
    {"rest of a branch", true, 0, "",
     "copy b0 -> b1 count 8 if b3 { copy b0 -> b1 at (8) count 8 } else { if b3 { copy b0 -> b1 at "
     "(4) "
     "count 12 } else { call k(b0, b1) } } call k(b1, b2)"},
    {"inner branch", false, 0, "",
     "copy b0 -> b1 count 8 if b3 { copy b0 -> b1 at (8) count 8 } else { if b3 { } else { call "
     "k(b0, "
     "b1) } } call k(b1, b2)"},
    {"sizes of branches", true, 0, "",
     "if b3 { sym $m = 0 } else { sym $m = 16 copy b0 -> b1 count 16 } copy b1 -> b6 count $m copy "
     "b0 "
     "-> b2 count 16"},
    {"a size of the wrong branch", false, 0, "",
     "if b3 { sym $m = 1 } else { sym $m = 16 copy b0 -> b1 count 16 } copy b1 -> b6 count $m copy "
     "b0 "
     "-> b2 count 16"},
    {"rounds", true, 0, "",
     "loop cond - iter $i limit 4 { copy b0 -> b1 at (4*$i) count 4 } call k(b1, b2)"},
    {"rounds that do not reach", false, 0, "",
     "loop cond - iter $i limit 3 { copy b0 -> b1 at (4*$i) count 4 } call k(b1, b2)"},
    {"carried", true, 0, "",
     "copy b0 -> b1 count 16 loop cond - iter $i limit 3 { call k(b1, b6) call k(b6, b1) } call "
     "k(b1, "
     "b2)"},
    {"carried from nowhere", false, 0, "",
     "loop cond - iter $i limit 3 { call k(b1, b6) call k(b6, b1) } call k(b6, b2)"},
    {"a loop that may not run", false, 0, "",
     "loop cond b3 limit 3 { call k(b0, b1) } call k(b1, b2)"},
    {"found size", true, 0, "",
     "sym $m from b4 min 0 max 16 copy b0 -> b1 count $m copy b0 -> b1 at ($m) count 16 - $m call "
     "k(b1, b2)"},
    {"less than the found size", false, 0, "",
     "sym $m from b4 min 0 max 16 copy b0 -> b1 count $m call k(b1, b2)"},
    {"where data says", true, 0, "for i in 0..16 { b0[b1[i]] = 1.0 }",
     "call k(b0, b1) call f(b1, b4) call k(b1, b2)"},
    {"only where data says", true, 1, "for i in 0..16 { b0[b1[i]] = 1.0 }",
     "call f(b1, b4) call k(b1, b2)"},
    {"output in part", false, 0, "", "copy b0 -> b2 count 15"},
    {"outside", false, 0, "for i in 0..17 { b0[i] = 1.0 }", "call f(b1, b4) call k(b1, b2)"},
};

static void test_written(void **state) {
  for (size_t i = 0; i < sizeof written_cases / sizeof *written_cases; i++) {
    const WrittenCase *t = &written_cases[i];
    Arena *a = arena_new(0, NULL, NULL);
    World w = world(arena_printf(
        a,
        "module { symbol $i 0 runtime bound 16 symbol $m 0 runtime bound 16 b0 : f32[16] = input "
        "0\n"
        "b1 : f32[16] = arena\n b2 : f32[16] = output 0\n b3 : bool[1] = input 1\n b4 : i64[16] = "
        "input 2\n b5 : f32[8] = view b1 at (8)\n b6 : f32[16] = arena\n inputs b0, b3, b4 outputs "
        "b2\n" K2
        "kernel inner { param b0 : f32[16] write for i in 0..4 { for j in 0..2 { b0[4*i + j + 1] = "
        "1.0 "
        "} } } kernel f { param b0 : f32[16] readwrite param b1 : i64[16] read %s } steps { %s } }",
        t->kernel, t->steps));
    const bool planned = plan(&w);
    if (planned != t->ok) {
      diag_print(w.model->diag, stderr);
      fail_msg("%s: %s", t->ok ? "refused" : "accepted", t->name);
    }
    WrittenProof proof = {0};
    if (planned) {
      assert_true(plan_prove(w.m, &proof));
      if ((proof.undecided > 0) != t->undecided) fail_msg("%s: decided?", t->name);
    } else {
      assert_int_equal(diag_exit_status(w.model->diag), 70);
    }
    arena_free(w.a);
    arena_free(a);
  }
}

/* Sizes with symbols: right for all that are tried, wrong where one element is left out. */
static void test_written_sizes(void **state) {
  for (int less = 0; less < 2; less++) {
    Arena *a = arena_new(0, NULL, NULL);
    World w = world(arena_printf(
        a,
        "module { symbol $h 1 symbol $w 1 b0 : f32[$h*$w] = input 0\n b1 : f32[($h + 2)*($w + 2)] "
        "= "
        "arena\n b2 : f32[$h*$w] = output 0\n inputs b0 outputs b2\n"
        "kernel halo { param b0 : f32[($h + 2)*($w + 2)] write for j in 0..$w + 2 { b0[j] = 0.0 "
        "b0[($h + 1)*($w + 2) + j] = 0.0 } for i in 0..$h - %d { b0[(i + 1)*($w + 2)] = 0.0 b0[(i "
        "+ "
        "1)*($w + 2) + $w + 1] = 0.0 } }"
        "kernel inner { param b0 : f32[$h*$w] read param b1 : f32[($h + 2)*($w + 2)] write for p "
        "in "
        "0..$h*$w { b1[(floordiv(p, $w) + 1)*($w + 2) + floormod(p, $w) + 1] = b0[p] } }"
        "kernel conv { param b0 : f32[($h + 2)*($w + 2)] read param b1 : f32[$h*$w] write for i in "
        "0..$h { for j in 0..$w { for k in 0..3 { for l in 0..3 { b1[i*$w + j] = b0[(i + k)*($w + "
        "2) "
        "+ j + l] } } } } } steps { call halo(b1) call inner(b0, b1) call conv(b1, b2) } }",
        less));
    const bool ok = plan(&w);
    if (ok != !less) diag_print(w.model->diag, stderr);
    assert_int_equal(ok, !less);
    arena_free(w.a);
    arena_free(a);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pack),          cmocka_unit_test(test_random),
      cmocka_unit_test(test_inplace),       cmocka_unit_test(test_views),
      cmocka_unit_test(test_symbolic),      cmocka_unit_test(test_check),
      cmocka_unit_test(test_carried),       cmocka_unit_test(test_written),
      cmocka_unit_test(test_written_sizes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
