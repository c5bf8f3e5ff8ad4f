/* Frontend: the wire scan (slices of raw_data, ignored fields, limits), tensors of every storage,
 * names and symbols, opset upgrades. Models are written here byte by byte. */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "frontend/proto/strmap.h"
#include "ir/op/op.h"

#include <cmocka.h>

typedef struct Bytes {
  uint8_t data[8192];
  size_t n;
} Bytes;

static void put(Bytes *b, const void *p, size_t n) {
  assert_true(b->n + n <= sizeof b->data);
  memcpy(b->data + b->n, p, n);
  b->n += n;
}

static void put_varint(Bytes *b, uint64_t v) {
  for (; v >= 0x80; v >>= 7) put(b, &(uint8_t){(uint8_t)(v | 0x80)}, 1);
  put(b, &(uint8_t){(uint8_t)v}, 1);
}

static void put_int(Bytes *b, int field, int64_t v) {
  put_varint(b, (uint64_t)field << 3);
  put_varint(b, (uint64_t)v);
}

static void put_bytes(Bytes *b, int field, const void *p, size_t n) {
  put_varint(b, (uint64_t)field << 3 | 2);
  put_varint(b, n);
  put(b, p, n);
}

static void put_text(Bytes *b, int field, const char *s) { put_bytes(b, field, s, strlen(s)); }
static void put_sub(Bytes *b, int field, const Bytes *sub) {
  put_bytes(b, field, sub->data, sub->n);
}

/* ValueInfoProto of a float tensor; dims are numbers or names; NULL: no shape. */
static void put_value(Bytes *graph, int field, const char *name, int rank,
                      const char *const *dims) {
  Bytes v = {0}, type = {0}, tensor = {0}, shape = {0};
  for (int k = 0; k < rank; k++) {
    Bytes d = {0};
    if (*dims[k] >= '0' && *dims[k] <= '9')
      put_int(&d, 1, atoi(dims[k]));
    else
      put_text(&d, 2, dims[k]);
    put_sub(&shape, 1, &d);
  }
  put_int(&tensor, 1, 1);
  if (dims) put_sub(&tensor, 2, &shape);
  put_sub(&type, 1, &tensor);
  put_text(&v, 1, name);
  put_sub(&v, 2, &type);
  put_sub(graph, field, &v);
}

static void put_node(Bytes *graph, const char *op, const char *in0, const char *in1,
                     const char *out, const Bytes *attr) {
  Bytes n = {0};
  put_text(&n, 1, in0);
  if (in1) put_text(&n, 1, in1);
  put_text(&n, 2, out);
  put_text(&n, 4, op);
  if (attr) put_sub(&n, 5, attr);
  put_sub(graph, 1, &n);
}

static Bytes model_of(const Bytes *graph, int opset) {
  Bytes m = {0}, import = {0};
  put_int(&import, 2, opset);
  put_int(&m, 1, 8);
  put_sub(&m, 7, graph);
  put_sub(&m, 8, &import);
  return m;
}

typedef struct World {
  Arena *a;
  Diag *d;
} World;

static World world(void) {
  World w = {.a = arena_new(0, NULL, NULL)};
  w.d = diag_new(w.a);
  return w;
}

static Model *load(World *w, const Bytes *m) {
  Model *r = frontend_load_memory(w->a, w->d, m->data, m->n, "test", NULL);
  if (!r) diag_print(w->d, stderr);
  assert_non_null(r);
  assert_true(model_verify(r, "import"));
  return r;
}

/* ---- tests ---- */
static const char *const d23[] = {"2", "3"};

static Bytes add_weights(const Bytes *tensor) {
  Bytes g = {0};
  put_sub(&g, 5, tensor);
  put_value(&g, 11, "x", 2, d23);
  put_node(&g, "Add", "x", "w", "y", NULL);
  put_value(&g, 12, "y", 0, NULL);
  return model_of(&g, 17);
}

static Bytes tensor_head(int type, int n_dims, const int64_t *dims) {
  Bytes t = {0};
  for (int k = 0; k < n_dims; k++) put_int(&t, 1, dims[k]);
  put_int(&t, 2, type);
  put_text(&t, 8, "w");
  return t;
}

static void test_raw_data_is_a_slice(void **state) {
  (void)state;
  World w = world();
  const float v[6] = {1, 2, 3, 4, 5, 6};
  Bytes t = tensor_head(1, 2, (const int64_t[]){2, 3});
  put_bytes(&t, 9, v, sizeof v);
  const Bytes m = add_weights(&t);
  const Model *r = load(&w, &m);
  const ConstData *c = r->consts.data[0];
  assert_memory_equal(c->data, v, sizeof v);
  assert_true((const uint8_t *)c->data > m.data && (const uint8_t *)c->data < m.data + m.n);
  arena_free(w.a);
}

static void test_small_raw_data_is_copied(void **state) {
  (void)state;
  World w = world();
  const float v = 7;
  Bytes t = tensor_head(1, 0, NULL);
  put_bytes(&t, 9, &v, sizeof v);
  const Bytes m = add_weights(&t);
  const ConstData *c = load(&w, &m)->consts.data[0];
  assert_memory_equal(c->data, &v, sizeof v);
  arena_free(w.a);
}

static const ConstData *load_tensor(World *w, Bytes *t) {
  static Bytes m; /* constants point into it */
  Bytes g = {0}, out = {0};
  put_sub(&g, 5, t);
  put_text(&out, 1, "w");
  put_sub(&g, 12, &out);
  m = model_of(&g, 25);
  return load(w, &m)->consts.data[0];
}

static void test_int4(void **state) {
  (void)state;
  World w = world();
  Bytes t = tensor_head(22, 1, (const int64_t[]){3});
  put_bytes(&t, 9, "\xf1\x08", 2);
  const ConstData *c = load_tensor(&w, &t);
  assert_memory_equal(c->data, ((const int8_t[]){1, -1, -8}), 3);
  arena_free(w.a);
}

static void test_uint2_typed(void **state) {
  (void)state;
  World w = world();
  Bytes t = tensor_head(25, 1, (const int64_t[]){5}), packed = {0};
  put_varint(&packed, 0xe4); /* 0 1 2 3 */
  put_varint(&packed, 0x02);
  put_sub(&t, 5, &packed);
  const ConstData *c = load_tensor(&w, &t);
  assert_memory_equal(c->data, ((const uint8_t[]){0, 1, 2, 3, 2}), 5);
  arena_free(w.a);
}

static void test_bools_are_0_or_1(void **state) {
  (void)state;
  World w = world();
  Bytes t = tensor_head(9, 1, (const int64_t[]){4});
  put_bytes(&t, 9, "\x00\x01\x7f\xff", 4);
  assert_memory_equal(load_tensor(&w, &t)->data, "\x00\x01\x01\x01", 4);
  arena_free(w.a);
}

static void test_half_in_int32_data(void **state) {
  (void)state;
  World w = world();
  Bytes t = tensor_head(10, 1, (const int64_t[]){2});
  put_int(&t, 5, 0x3c00);
  put_int(&t, 5, 0xc000);
  const ConstData *c = load_tensor(&w, &t);
  assert_true(const_float(c, 0) == 1.0);
  assert_true(const_float(c, 1) == -2.0);
  arena_free(w.a);
}

static void test_symbols(void **state) {
  (void)state;
  World w = world();
  Bytes g = {0};
  put_value(&g, 11, "a", 2, (const char *const[]){"batch size", "?"});
  put_value(&g, 11, "b", 2, (const char *const[]){"batch size", "?"});
  put_value(&g, 11, "c", 2, (const char *const[]){"batch_size", "7"});
  put_node(&g, "Relu", "a", NULL, "y", NULL);
  put_value(&g, 12, "y", 0, NULL);
  const Bytes m = model_of(&g, 17);
  const Model *r = load(&w, &m);
  Value *const *in = r->main->inputs.data;
  assert_ptr_equal(in[0]->dims[0], in[1]->dims[0]);
  assert_ptr_not_equal(in[0]->dims[0], in[2]->dims[0]); /* another name, though it looks the same */
  assert_ptr_not_equal(in[0]->dims[1], in[1]->dims[1]); /* ? is nobody's name */
  assert_string_equal(expr_symbol(r->pool, in[0]->dims[0]->id)->name, "batch_size");
  arena_free(w.a);
}

static void test_dim_option(void **state) {
  (void)state;
  World w = world();
  Bytes g = {0};
  put_value(&g, 11, "a", 2, (const char *const[]){"n", "m"});
  put_node(&g, "Relu", "a", NULL, "y", NULL);
  put_value(&g, 12, "y", 0, NULL);
  const Bytes m = model_of(&g, 17);
  const char *names[] = {"n"};
  const int64_t values[] = {5};
  const FrontendOptions o = {.dim_names = names, .dim_values = values, .n_dims = 1};
  const Model *r = frontend_load_memory(w.a, w.d, m.data, m.n, "test", &o);
  assert_non_null(r);
  assert_true(expr_is_i64(r->main->outputs.data[0]->dims[0], 5));
  arena_free(w.a);
}

static void test_unsorted_nodes(void **state) {
  (void)state;
  World w = world();
  Bytes g = {0};
  put_value(&g, 11, "x", 2, d23);
  put_node(&g, "Neg", "t", NULL, "y", NULL);
  put_node(&g, "Relu", "x", NULL, "t", NULL);
  put_value(&g, 12, "y", 0, NULL);
  const Bytes m = model_of(&g, 17);
  const Model *r = load(&w, &m);
  assert_string_equal(r->main->nodes.data[0]->op->name, "Relu");
  assert_int_equal(r->main->nodes.data[0]->loc->node, 1); /* its place in the file */
  arena_free(w.a);
}

/* Softmax-11 with axis 1 of a rank 3 input works on a matrix. */
static void test_old_softmax(void **state) {
  (void)state;
  World w = world();
  Bytes g = {0};
  put_value(&g, 11, "x", 3, (const char *const[]){"2", "3", "4"});
  put_node(&g, "Softmax", "x", NULL, "y", NULL);
  put_value(&g, 12, "y", 0, NULL);
  const Bytes m = model_of(&g, 11);
  const Graph *r = load(&w, &m)->main;
  assert_string_equal(r->nodes.data[0]->op->name, "Flatten");
  assert_string_equal(r->outputs.data[0]->def->op->name, "Reshape");
  assert_int_equal(r->outputs.data[0]->rank, 3);
  arena_free(w.a);
}

static void test_old_clip(void **state) {
  (void)state;
  World w = world();
  Bytes g = {0}, attr = {0};
  const float six = 6;
  put_text(&attr, 1, "max");
  put_varint(&attr, 2 << 3 | 5);
  put(&attr, &six, 4);
  put_int(&attr, 20, 1);
  put_value(&g, 11, "x", 2, d23);
  put_node(&g, "Clip", "x", NULL, "y", &attr);
  put_value(&g, 12, "y", 0, NULL);
  const Bytes m = model_of(&g, 10);
  const Node *n = load(&w, &m)->main->nodes.data[0];
  assert_int_equal(n->n_in, 3);
  assert_true(const_float(n->in[1]->cdata, 0) == -FLT_MAX); /* the schema's default */
  assert_true(const_float(n->in[2]->cdata, 0) == 6);
  assert_int_equal(n->n_attrs, 0);
  arena_free(w.a);
}

/* The same opset in two entries is one import; two versions are none. */
static void test_opset_twice(void **state) {
  (void)state;
  for (int second = 16; second <= 17; second++) {
    World w = world();
    Bytes g = {0}, import = {0};
    put_value(&g, 11, "x", 2, d23);
    put_node(&g, "Relu", "x", NULL, "y", NULL);
    put_value(&g, 12, "y", 0, NULL);
    Bytes m = model_of(&g, 17);
    put_int(&import, 2, second);
    put_sub(&m, 8, &import);
    if (second == 17)
      load(&w, &m);
    else
      assert_null(frontend_load_memory(w.a, w.d, m.data, m.n, "test", NULL));
    arena_free(w.a);
  }
}

static void test_strmap(void **state) {
  (void)state;
  Arena *a = arena_new(0, NULL, NULL);
  StrMap m = {0};
  assert_null(strmap_get(&m, "x"));
  for (intptr_t k = 1; k <= 1000; k++)
    strmap_put(a, &m, arena_printf(a, "key%d", (int)k), (void *)k);
  strmap_put(a, &m, "key7", (void *)70);
  assert_int_equal(m.n, 1000);
  assert_ptr_equal(strmap_get(&m, "key7"), (void *)70);
  assert_ptr_equal(strmap_get(&m, "key1000"), (void *)1000);
  assert_null(strmap_get(&m, "key1001"));
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_raw_data_is_a_slice),
                                     cmocka_unit_test(test_small_raw_data_is_copied),
                                     cmocka_unit_test(test_int4),
                                     cmocka_unit_test(test_uint2_typed),
                                     cmocka_unit_test(test_bools_are_0_or_1),
                                     cmocka_unit_test(test_half_in_int32_data),
                                     cmocka_unit_test(test_symbols),
                                     cmocka_unit_test(test_dim_option),
                                     cmocka_unit_test(test_unsorted_nodes),
                                     cmocka_unit_test(test_old_softmax),
                                     cmocka_unit_test(test_old_clip),
                                     cmocka_unit_test(test_opset_twice),
                                     cmocka_unit_test(test_strmap)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
