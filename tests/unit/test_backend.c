/* What becomes of failures behind the seam: backends that break a kernel on purpose. The message
 * names the kernel and its ONNX nodes, and no file is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include "codegen/cuda/cuda.h"

#include "codegen/llvm/emit.h"

enum { MANY = 70 }; /* kernels: more than are made into units of their own */

typedef struct Fix {
  Arena *a;
  Diag *d;
  Module *m;
  char path[64];
} Fix;

static int setup(void **state) {
  Fix *f = test_calloc(1, sizeof *f);
  snprintf(f->path, sizeof f->path, "/tmp/burin_backend_%d.o", (int)getpid());
  f->a = arena_new(0, NULL, NULL);
  f->d = diag_new(f->a);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  Fix *f = *state;
  assert_int_not_equal(access(f->path, F_OK), 0);
  arena_free(f->a);
  test_free(f);
  return 0;
}

static const Loc relu = {.node = 4, .node_name = "relu1", .op = "Relu"};
static const Loc conv = {.node = 3, .node_name = "conv1", .op = "Conv", .also = &relu};

/* n kernels in a row; the one at `named` was made of conv1 and relu1. */
static void make(Fix *f, int n, int named) {
  StrBuf b = {.arena = f->a};
  sb_printf(&b,
            "module {\n  b0 : f32[8] = input 0\n  b1 : f32[8] = output 0\n"
            "  inputs b0\n  outputs b1\n");
  for (int i = 0; i < n; i++)
    sb_printf(&b,
              "  kernel k%d {\n    param b0 : f32[8] read align 4\n"
              "    param b1 : f32[8] write align 4\n    for i in 0..8 {\n"
              "      b1[i] = b0[i] + %d.0\n    }\n  }\n",
              i, i);
  sb_printf(&b, "  steps {\n");
  for (int i = 0; i < n; i++) sb_printf(&b, "    call k%d(b0, b1)\n", i);
  sb_printf(&b, "  }\n}\n");
  Model *const model = model_new(f->a, f->d);
  *expr_pool_rules(model->pool) = target_float_rules(target_find("x86-64-v3"));
  f->m = module_parse(model, sb_str(&b), "test");
  if (!f->m) diag_print(f->d, stderr);
  assert_non_null(f->m);
  f->m->kernels.data[named]->loc = &conv;
}

static bool write_kind(Fix *f, EmitKind kind, const Backend *backend, int jobs,
                       const char *target) {
  const CodegenOptions o = {.emit = kind,
                            .output = f->path,
                            .name = "m",
                            .opt_level = 3,
                            .jobs = jobs,
                            .backend = backend};
  f->m->model->file = "net.onnx";
  return codegen_write(f->m, target_find(target), &o, NULL);
}

static bool write_with(Fix *f, const Backend *backend, int jobs) {
  return write_kind(f, EMIT_OBJ, backend, jobs, "x86-64-v3");
}

/* Everything that was said. */
static const char *said(Fix *f) {
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  diag_print(f->d, out);
  fclose(out);
  const char *const kept = arena_strdup(f->a, text);
  free(text);
  return kept;
}

static void expect(Fix *f, const char *part) {
  const char *const text = said(f);
  if (!strstr(text, part)) fail_msg("'%s' is not in:\n%s", part, text);
}

/* ---- the backends ---- */
static bool is_named(const Unit *u, int k) { return u->p->m->kernels.data[k]->loc != NULL; }

/* A function without an end: LLVM's verifier refuses it. */
static const char *break_body(void *state, Unit *u, int k, Arena *scratch) {
  const char *const error = backend_llvm.kernel(state, u, k, scratch);
  if (error || !is_named(u, k)) return error;
  const KernelIR *const ir = &((LLVMUnit *)u)->ir;
  const LLVMValueRef fn = LLVMGetNamedFunction(ir->mod, arena_printf(scratch, "m_k%d.body", k));
  assert_non_null(fn);
  LLVMAppendBasicBlockInContext(ir->ctx, fn, "open");
  return NULL;
}

static const char *refuse(void *state, Unit *u, int k, Arena *scratch) {
  const char *const error = backend_llvm.kernel(state, u, k, scratch);
  return error || !is_named(u, k) ? error : "refused on purpose";
}

static const char *refuse_entry(void *state, Unit *u) {
  const char *const error = backend_llvm.entry(state, u);
  return error ? error : "no entry on purpose";
}

/* Fails for a unit as a whole: nobody knows which kernel it was. */
static const char *fail_unit(Unit *u) {
  const char *const error = backend_llvm.finish(u);
  for (int k = u->first; !error && k < u->first + u->n; k++)
    if (is_named(u, k)) return "failed on purpose";
  return error;
}

/* ---- tests ---- */
static void test_verifier(void **state) {
  Fix *f = *state;
  Backend b = backend_llvm;
  b.kernel = break_body;
  make(f, 3, 1);
  assert_false(write_with(f, &b, 1));
  assert_int_equal(diag_errors(f->d), 1);
  expect(f, "node 3 \"conv1\" ai.onnx.Conv: internal error[E0901]: code of kernel k1: ");
  expect(f, "does not have terminator! label %open\n");
  expect(f, "note: the kernel computes conv1:Conv, relu1:Relu");
}

/* Of many kernels in one unit, the verifier's failure is laid at the right one's door. */
static void test_verifier_in_batch(void **state) {
  Fix *f = *state;
  Backend b = backend_llvm;
  b.kernel = break_body;
  make(f, MANY, 66);
  assert_false(write_with(f, &b, 2));
  assert_int_equal(diag_errors(f->d), 1);
  expect(f, "code of kernel k66: ");
  expect(f, "conv1:Conv, relu1:Relu");
}

static void test_refused(void **state) {
  Fix *f = *state;
  Backend b = backend_llvm;
  b.kernel = refuse;
  make(f, MANY, 40);
  assert_false(write_with(f, &b, 2));
  assert_int_equal(diag_errors(f->d), 1);
  expect(f,
         "node 3 \"conv1\" ai.onnx.Conv: internal error[E0901]: code generation of kernel k40: "
         "refused on purpose");
}

static void test_entry_refused(void **state) {
  Fix *f = *state;
  Backend b = backend_llvm;
  b.entry = refuse_entry;
  make(f, 2, 0);
  assert_false(write_with(f, &b, 2));
  expect(f, "net.onnx: internal error[E0901]: code generation of the entry: no entry on purpose");
}

/* A step that no code can be made of: its nodes are named, not those of the steps around it. */
static void test_entry_step(void **state) {
  Fix *f = *state;
  make(f, 2, 0);
  Step *const s = step_new(f->m, STEP_COPY, &conv);
  s->copy.src.buffer = f->m->inputs.data[0];
  s->copy.dst.buffer = f->m->outputs.data[0];
  s->copy.count = ex_var(f->m->model->pool, "unbound", ex_i64(f->m->model->pool, 8));
  s->next = f->m->steps->next;
  f->m->steps->next = s;
  assert_false(write_with(f, NULL, 1));
  assert_int_equal(diag_errors(f->d), 1);
  expect(f,
         "node 3 \"conv1\" ai.onnx.Conv: internal error[E0901]: code generation of the entry: "
         "variable unbound1 is not bound");
  expect(f, "note: the step computes conv1:Conv, relu1:Relu");
}

/* The call of a kernel without nodes of its own: the kernel is named. */
static void test_entry_call(void **state) {
  Fix *f = *state;
  make(f, 2, 1);
  BufRef *const args = arena_dup(f->a, f->m->steps->next->call.args, 2 * sizeof(BufRef));
  args[0].offset = ex_var(f->m->model->pool, "unbound", ex_i64(f->m->model->pool, 8));
  f->m->steps->next->call.args = args;
  assert_false(write_with(f, NULL, 1));
  expect(f,
         "ai.onnx.Conv: internal error[E0901]: code generation of the entry, at the call of "
         "kernel k1: variable unbound1 is not bound");
  expect(f, "note: the step computes conv1:Conv, relu1:Relu");
}

/* Texts are written of all units together. */
static const char *fail_text(void *state, Unit *const *units, int n, EmitKind kind, FILE *file,
                             Unit **at) {
  *at = units[1];
  return "no text on purpose";
}

static void test_text(void **state) {
  Fix *f = *state;
  Backend b = backend_llvm;
  b.write = fail_text;
  make(f, 3, 1);
  assert_false(write_kind(f, EMIT_ASM, &b, 1, "x86-64-v3"));
  expect(f,
         "node 3 \"conv1\" ai.onnx.Conv: internal error[E0901]: code as text of kernel k1: no "
         "text on purpose");
  expect(f, "note: the kernel computes conv1:Conv, relu1:Relu");
}

/* A runtime function whose source the file of C cannot have. */
static void test_no_source(void **state) {
  Fix *f = *state;
  static const ExternRow row = {.symbol = "rt_nothing"};
  make(f, 1, 0);
  *expr_pool_rules(f->m->model->pool) = target_float_rules(target_find("c"));
  Step *const s = step_new(f->m, STEP_EXTERN, &conv);
  s->ext.row = &row;
  s->ext.scratch = -1;
  s->next = f->m->steps;
  f->m->steps = s;
  assert_false(write_kind(f, EMIT_C, NULL, 1, "c"));
  expect(f, "ai.onnx.Conv: error[E0201]: backend c has no code of its runtime function");
}

/* No node is at fault: the model's file is named, and the target. */
static void test_rules(void **state) {
  Fix *f = *state;
  make(f, 1, 0);
  assert_false(write_kind(f, EMIT_OBJ, NULL, 1, "armv7"));
  expect(f,
         "net.onnx: internal error[E0901]: constants were folded by the rules of another target "
         "than armv7");
}

/* The target's row names its backend; the kinds of files must be among those that it makes. */
static void test_choice(void **state) {
  assert_ptr_equal(backend_for(target_find("aarch64"), EMIT_OBJ | EMIT_ASM), &backend_llvm);
  assert_ptr_equal(backend_for(target_find("c"), EMIT_C | EMIT_HEADER), &backend_c);
  assert_null(backend_for(target_find("c"), EMIT_OBJ));
  assert_null(backend_for(target_find("x86-64-v3"), EMIT_C));
  const Target host = target_host_code(target_find("c"));
  assert_ptr_equal(backend_for(&host, EMIT_SHARED), &backend_llvm);
  Fix *f = *state;
  make(f, 1, 0);
  *expr_pool_rules(f->m->model->pool) = target_float_rules(target_find("c"));
  assert_false(write_kind(f, EMIT_OBJ, NULL, 1, "c"));
  expect(f, "no backend makes all these kinds of files for target c");
}

/* Where the kernel is not known, all of the unit are named. */
static void test_unit(void **state) {
  Fix *f = *state;
  Backend b = backend_llvm;
  b.finish = fail_unit;
  make(f, MANY, 66);
  assert_false(write_with(f, &b, 1));
  assert_int_equal(diag_errors(f->d), MANY - 64);
  expect(f, "kernel k66: failed on purpose");
  expect(f, "conv1:Conv, relu1:Relu");
}

/* The wrappers break what they are told to, and nothing else. */
static void test_whole(void **state) {
  Fix *f = *state;
  Backend b = backend_llvm;
  b.kernel = break_body;
  make(f, 3, 1);
  f->m->kernels.data[1]->loc = NULL;
  assert_true(write_with(f, &b, 1));
  assert_int_equal(diag_errors(f->d), 0);
  assert_int_equal(unlink(f->path), 0);
}

/* A device can be given every runtime function that is neither of strings nor said to be the host's. */
static void test_device_sources(void **state) {
  (void)state;
  int given = 0;
  for (int i = 0; i < op_row_count; i++) {
    const ExternRow *const row = op_rows[i].ext;
    if (!row || row->heap || row->host_only) continue;
    if (!cuda_has(row)) fail_msg("%s has no source for devices", row->symbol);
    given++;
  }
  assert_in_range(given, 10, 1000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_device_sources),
      cmocka_unit_test_setup_teardown(test_verifier, setup, teardown),
      cmocka_unit_test_setup_teardown(test_verifier_in_batch, setup, teardown),
      cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
      cmocka_unit_test_setup_teardown(test_entry_refused, setup, teardown),
      cmocka_unit_test_setup_teardown(test_entry_step, setup, teardown),
      cmocka_unit_test_setup_teardown(test_entry_call, setup, teardown),
      cmocka_unit_test_setup_teardown(test_text, setup, teardown),
      cmocka_unit_test_setup_teardown(test_no_source, setup, teardown),
      cmocka_unit_test_setup_teardown(test_rules, setup, teardown),
      cmocka_unit_test_setup_teardown(test_choice, setup, teardown),
      cmocka_unit_test_setup_teardown(test_unit, setup, teardown),
      cmocka_unit_test_setup_teardown(test_whole, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
