/* Graph IR: text round trips and bad texts, the verifier, building, order, users, inference rules,
 * symbolic contents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "ir/op/op.h"
#include "ir/op/ops.h"

typedef struct Fixture {
  Arena *arena;
  Diag *d;
} Fixture;

static int setup(void **state) {
  Arena *a = arena_new(0, NULL, NULL);
  Fixture *f = ARENA_NEW(a, Fixture);
  *f = (Fixture){a, diag_new(a)};
  *state = f;
  return 0;
}

static int teardown(void **state) {
  arena_free(((Fixture *)*state)->arena);
  return 0;
}

static const char *print(const Model *m) {
  StrBuf b = {.arena = m->arena};
  model_print(m, &b, true);
  return sb_str(&b);
}

static Model *parse(Fixture *f, const char *text) {
  Model *m = model_parse(f->arena, f->d, text, "test.ir");
  if (!m) diag_print(f->d, stderr);
  assert_non_null(m);
  return m;
}

static Value *out(const Model *m, int k) { return m->main->outputs.data[k]; }

static const char *shape(const Model *m, const Value *v) {
  StrBuf b = {.arena = m->arena};
  for (int d = 0; d < v->rank; d++)
    sb_printf(&b, "%s%s", d ? "," : "", expr_text(m->pool, v->dims[d]));
  return sb_str(&b);
}

/* ---- text ---- */

static const char everything[] =
    "model ir 8 opset 21\n"
    "symbol $n from 1\n"
    "symbol $k from 0 to $n*2 runtime\n"
    "assume equal $k, $n \"halves\" @\"why\"\n"
    "graph @\"odd name\" {\n"
    "  %1 : f32[2,2] = const #0 \"w \\\"1\\\"\" = [1.0,-0.0,1e-10,inf]\n"
    "  %2 : i64[3] = const #1 = [-9223372036854775808,0,9223372036854775807]\n"
    "  %3 : str[2] = const #2 = [\"a\\nb\",\"\\x01\"]\n"
    "  %4 : u8[9] = const #3\n"
    "  %5 : bool[] = const #4 = [1]\n"
    "  %0 : f32[$n,2] layout=[1,0] halo=[1:1,0:2] inline = input \"data\"\n"
    "  %6 : seq f32[*] = input\n"
    "  %8 : f32[$n,2] = Add %0, %0 @\"conv\"(7 \"Add\" \"some.domain\" 14 in \"then of 3\") "
    "@\"second\"\n"
    "  %9 : f32[$n,2], _, %10 : f32[$k] = If %5 {ints=[1,2], one=3, f=0.5, eps=1e-05f, "
    "fs=[1.0,2.5], s=\"x\", ss=[\"a\",\"b\"], e=floats[], "
    "t=#3, g=graph @then {\n"
    "    %7 : f32[$n,2] = input \"inner\"\n"
    "    %11 : f32[$n,2] = Relu %8\n"
    "    output %11\n"
    "  }} where $k = %2[1], $n = $k*2 key 4\n"
    "  output %9 \"result\"\n"
    "  output %1 \"w\"\n"
    "  output %3\n"
    "  output %4\n"
    "}\n"
    "data #3 : u8[9] = hex 000102030405060708ff\n";

static void test_round_trip(void **state) {
  Fixture *f = *state;
  char *text = arena_strdup(f->arena, everything);
  *strstr(text, "08ff") = 0; /* nine bytes */
  text = arena_printf(f->arena, "%s08\n", text);
  Model *m = parse(f, text);
  assert_string_equal(print(m), text);
  assert_string_equal(print(parse(f, print(m))), text);
  assert_int_equal(m->next_value, 12);
}

static void test_tolerated_text(void **state) {
  Fixture *f = *state;
  Model *m = parse(
      f, "// comment\ngraph @g { %x : f32[2] = input \"x\" // more\n %y = Relu %x output %y }");
  assert_string_equal(shape(m, out(m, 0)), "2");
  assert_int_equal(out(m, 0)->dtype, DT_F32);
  assert_true(model_verify(m, "parse"));
}

static void test_bad_texts(void **state) {
  static const char *const texts[] = {
      "",
      "graph",
      "graph @g {",
      "graph @g { output %1 }",
      "graph @g { %1 : f99[] = input }",
      "graph @g { %1 : f32[2 = input }",
      "graph @g { %1 : f32[i0] = input }",
      "graph @g { %1 : f32[] = Nope }",
      "graph @g { %1 : f32[2] = const #0 = [1.0] }",
      "graph @g { %1 : f32[$n] = const #0 }",
      "graph @g { %1 : f32[9999999999,9999999999] = const #0 }",
      "graph @g { %99999999999 : f32[] = input }",
      "graph @g { %1 : f32[] = input %1 : f32[] = input }",
      "graph @g { %1 : f32[] = const #99999999 }",
      "graph @g { } graph @h { }",
      "graph @g { } data #0 : f32[2] = hex 00",
      "symbol 3\ngraph @g { }",
      "graph @g { %1 : f32[1] = Relu {a=} }",
      "graph @g { %1 : f32[1] = Relu {a=\"x} }",
      "graph @g { _ = input }",
      "graph @g { %1 : f32[1] layout=[1] = input }",
      "graph @g { %1 : f32[1,1] layout=[0] = input }",
      "garbage",
      "graph @g { %1 : f32[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1] = input }",
      "graph @g { %1 : f32[] = Relu %1 where 3 = 4 }",
      "graph @g { } data #7 : f32[100000000] = hex 00",
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    Fixture *f = *state;
    Diag *d = diag_new(f->arena);
    if (model_parse(f->arena, d, texts[i], "bad.ir")) fail_msg("parsed: %s", texts[i]);
    assert_int_equal(diag_errors(d), 1);
  }
}

/* Every prefix of a good text, and every text with one byte changed, ends in a model or an error.
 */
static void test_damaged_texts(void **state) {
  Fixture *f = *state;
  const size_t n = strlen(everything);
  uint32_t seed = 1;
  for (size_t i = 0; i < 2 * n; i++) {
    Arena *a = arena_new(64 << 20, NULL, NULL);
    char *text = arena_strdup(a, everything);
    seed = seed * 1664525u + 1013904223u;
    if (i < n)
      text[i] = 0;
    else
      text[i - n] = (char)(seed >> 24 ? seed >> 24 : 1);
    Model *m = model_parse(a, diag_new(a), text, "damaged.ir");
    if (m) print(m);
    arena_free(a);
  }
  (void)f;
}

/* ---- verifier ---- */

static Model *three_nodes(Fixture *f) {
  return parse(
      f,
      "graph @g { %0 : f32[2,3] = input \"x\" %1 : f32[2,3] = Relu %0 %2 : f32[2,3] = Exp %1 "
      "%3 : f32[2,3] = Add %2, %1 output %3 \"y\" }");
}

static void expect_invalid(Fixture *f, Model *m, const char *what) {
  const int before = diag_errors(f->d);
  assert_false(model_verify(m, "test"));
  assert_true(diag_errors(f->d) > before);
  char *s = NULL;
  size_t n = 0;
  FILE *file = open_memstream(&s, &n);
  diag_print(f->d, file);
  fclose(file);
  if (!strstr(s, what)) fail_msg("no '%s' in %s", what, s);
  free(s);
}

static void test_verifier(void **state) {
  Fixture *f = *state;
  Model *m = three_nodes(f);
  assert_true(model_verify(m, "parse"));
  Node **n = m->main->nodes.data, *t = n[0];
  n[0] = n[1], n[1] = t;
  expect_invalid(f, m, "before it is defined");
  graph_sort(m->main);
  assert_true(model_verify(m, "sort"));
  m->main->nodes.data[0]->n_in = 0;
  expect_invalid(f, m, "0 inputs");
  m = three_nodes(f);
  m->main->nodes.data[1]->out[0]->rank = -1;
  expect_invalid(f, m, "no element type or rank");
  m = three_nodes(f);
  m->main->nodes.data[1]->out[0]->layout.perm = (const int8_t[]){1, 1};
  expect_invalid(f, m, "no permutation");
  m = three_nodes(f);
  m->main->nodes.data[1]->out[0] = m->main->nodes.data[0]->out[0];
  expect_invalid(f, m, "defined twice");
  m = three_nodes(f);
  m->main->outputs.data[0]->dims[0] = ex_var(m->pool, "i", ex_i64(m->pool, 4));
  expect_invalid(f, m, "more than symbols");
}

/* ---- building ---- */

static void test_building(void **state) {
  Fixture *f = *state;
  Model *m = three_nodes(f);
  Graph *g = m->main;
  Node *last = g->nodes.data[2];
  Node *n = graph_add_node(g, last, op_find("ai.onnx", "Neg"), 1, &last->in[0], last->loc);
  node_add_output(n, "negated");
  assert_true(op_infer(m, n));
  assert_ptr_equal(g->nodes.data[2], n);
  last->in[0] = n->out[0];
  assert_true(model_verify(m, "add"));
  graph_replace_value(g, n->out[0], n->in[0]);
  graph_remove_node(g, n);
  assert_int_equal(g->nodes.n, 3);
  assert_true(model_verify(m, "remove"));
  const Uses *u = graph_uses(g, f->arena);
  assert_int_equal(u->of[1].n, 2);
  assert_int_equal(u->of[3].n, 0);
  assert_int_equal(u->outputs[3], 1);
}

static void test_uses_in_regions(void **state) {
  Fixture *f = *state;
  Model *m = parse(f,
                   "graph @g { %0 : bool[] = input %1 : f32[2] = input %2 : f32[2] = Relu %1 %3 : "
                   "f32[2] = If %0 "
                   "{then_branch=graph @t { %4 : f32[2] = Exp %2 %6 : f32[2] = Neg %4 output %6 }, "
                   "else_branch=graph @e { "
                   "%5 : f32[2] = Neg %1 output %5 }} output %3 }");
  const Uses *u = graph_uses(m->main, f->arena);
  assert_int_equal(u->of[2].n, 2); /* the Exp, and the If around it */
  assert_int_equal(u->of[4].n, 1);
  assert_int_equal(u->outputs[6], 1);
}

static void test_attributes(void **state) {
  Fixture *f = *state;
  Node *n = three_nodes(f)->main->nodes.data[0];
  node_set_int(n, "i", 7);
  node_set_int(n, "i", 8);
  node_set_float(n, "x", 0.25);
  node_set_string(n, "s", "text");
  node_set_ints(n, "l", 3, (const int64_t[]){1, 2, 3});
  const int64_t *l;
  assert_int_equal(n->n_attrs, 4);
  assert_int_equal(node_int(n, "i", 0), 8);
  assert_true(node_float(n, "x", 0) == 0.25);
  assert_string_equal(node_string(n, "s", ""), "text");
  assert_int_equal(node_ints(n, "l", &l), 3);
  assert_int_equal(node_int(n, "s", 5), 5);
}

/* ---- inference ---- */

static void test_broadcast(void **state) {
  Fixture *f = *state;
  Model *m =
      parse(f,
            "graph @g { %a : f32[$n,1,4] = input %b : f32[3,1] = input %c : f32[$m,1,1] = input "
            "%x = Add %a, %b %y = Sub %x, %c output %y output %x }");
  assert_string_equal(shape(m, out(m, 1)), "$n,3,4");
  assert_string_equal(shape(m, out(m, 0)), "select($n == 1, $m, $n),3,4");
  assert_int_equal(m->assumes.n, 2); /* each is the common size, or 1 */
}

static void test_flat_index(void **state) {
  Fixture *f = *state;
  Model *m = three_nodes(f);
  ExprPool *p = m->pool;
  const Expr *dims[3] = {ex_i64(p, 2), ex_i64(p, 3), ex_i64(p, 5)}, *idx[3], *back[3];
  for (int d = 0; d < 3; d++) idx[d] = ex_var(p, "i", dims[d]);
  index_unflatten(p, 3, dims, index_flatten(p, 3, dims, idx), back);
  for (int d = 0; d < 3; d++) assert_ptr_equal(back[d], idx[d]);
}

/* Shape arithmetic becomes contents, and through Reshape and ReduceProd sizes. */
static void test_contents(void **state) {
  Fixture *f = *state;
  Model *m =
      parse(f,
            "graph @g { %x : f32[$n,3,4] = input %s = Shape %x %p = ReduceProd %s {keepdims=1} "
            "%y = Reshape %x, %p %h : i64[] = const [2] %q = Div %p, %h output %y output %q }");
  assert_string_equal(shape(m, out(m, 0)), "$n*12");
  const Expr *e = value_element(m->pool, out(m, 1), 0);
  assert_non_null(e);
  assert_null(value_element(m->pool, out(m, 1), 1));
  assert_null(value_element(m->pool, out(m, 0), 0));
}

static void test_infer_errors(void **state) {
  static const char *const bodies[] = {
      "%y = Sqrt %i output %y",
      "%y = Add %x, %i output %y",
      "%y = Add %x, %b output %y",
      "%y = And %x, %x output %y",
      "%y = Add %x output %y",
      "%y = Relu _ output %y",
      "%y, %z = Relu %x output %y",
      "%y = Transpose %x {perm=[0,0]} output %y",
      "%y = Softmax %x {axis=7} output %y",
      "%y = Softmax %x {axis=\"a\"} output %y",
  };
  Fixture *f = *state;
  for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
    Diag *d = diag_new(f->arena);
    const char *text = arena_printf(
        f->arena,
        "graph @g { %%x : f32[2,3] = input %%i : i64[2,3] = input %%b : f32[4] = input %s }",
        bodies[i]);
    if (model_parse(f->arena, d, text, "bad.ir")) fail_msg("accepted: %s", bodies[i]);
    assert_int_equal(diag_errors(d), 1);
  }
}

static void test_table(void **state) {
  assert_ptr_equal(op_find("", "Add"), op_find("ai.onnx", "Add"));
  assert_null(op_find("nowhere", "Add"));
  for (int i = 0; i < op_row_count; i++) {
    assert_ptr_equal(op_find(op_rows[i].domain, op_rows[i].name), &op_rows[i]); /* no row twice */
    assert_non_null(op_rows[i].infer);
    assert_int_not_equal(op_rows[i].body, OB_NONE);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
      cmocka_unit_test_setup_teardown(test_tolerated_text, setup, teardown),
      cmocka_unit_test_setup_teardown(test_bad_texts, setup, teardown),
      cmocka_unit_test_setup_teardown(test_damaged_texts, setup, teardown),
      cmocka_unit_test_setup_teardown(test_verifier, setup, teardown),
      cmocka_unit_test_setup_teardown(test_building, setup, teardown),
      cmocka_unit_test_setup_teardown(test_uses_in_regions, setup, teardown),
      cmocka_unit_test_setup_teardown(test_attributes, setup, teardown),
      cmocka_unit_test_setup_teardown(test_broadcast, setup, teardown),
      cmocka_unit_test_setup_teardown(test_flat_index, setup, teardown),
      cmocka_unit_test_setup_teardown(test_contents, setup, teardown),
      cmocka_unit_test_setup_teardown(test_infer_errors, setup, teardown),
      cmocka_unit_test_setup_teardown(test_table, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
