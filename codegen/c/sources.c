/* The texts that a file of C begins with, embedded in burin: scalar.h, run.h, and those sources of
 * the runtime that generated code calls. BURIN_SOURCES is the repository. */
#include <string.h>

#include "codegen/c/c.h"
#include "codegen/c/embed.h"
#include "codegen/codegen.h"
#include "ir/op/op.h"

EMBED(burin_c_scalar, "codegen/c/scalar.h");
EMBED(burin_c_run, "codegen/c/run.h");
EMBED(burin_c_parallel, "runtime/core/parallel.c");
EMBED(burin_c_failure, "runtime/core/failure.c");
EMBED(burin_c_default, "runtime/core/defaults.c");
EMBED(burin_c_fmod, "runtime/ops/ops_fmod.c");
EMBED(burin_c_ops, "runtime/ops/ops.h");
EMBED(burin_c_element, "runtime/ops/ops_element.c");
EMBED(burin_c_coupling, "runtime/ops/ops_coupling.c");
EMBED(burin_c_dft, "runtime/ops/ops_dft.c");
EMBED(burin_c_inverse, "runtime/ops/ops_inverse.c");
EMBED(burin_c_nms, "runtime/ops/ops_nms.c");
EMBED(burin_c_roi, "runtime/ops/ops_roi.c");
EMBED(burin_c_scatter, "runtime/ops/ops_scatter.c");
EMBED(burin_c_select, "runtime/ops/ops_select.c");
EMBED(burin_c_tfidf, "runtime/ops/ops_tfidf.c");
EMBED(burin_c_topk, "runtime/ops/ops_topk.c");
EMBED(burin_c_tree, "runtime/ops/ops_tree.c");
EMBED(burin_c_text, "runtime/text/text.h");
EMBED(burin_c_sequences, "runtime/text/sequences.c");
EMBED(burin_c_heap, "runtime/text/heap.c");
EMBED(burin_c_strings, "runtime/text/strings.c");
EMBED(burin_c_case_runs, "runtime/text/letter_runs.h");
EMBED(burin_c_case, "runtime/text/letter_case.c");
EMBED(burin_c_decimal, "runtime/text/decimal.c");
EMBED(burin_c_text_numbers, "runtime/text/text_numbers.c");
EMBED(burin_c_text_ops, "runtime/text/text_ops.c");
EMBED(burin_c_regex_program, "runtime/text/regex.h");
EMBED(burin_c_regex, "runtime/text/regex.c");
EMBED(burin_c_tokenize, "runtime/text/tokenize.c");
EMBED(burin_c_text_hash, "runtime/text/text_hash.c");

static const char *const operators[] = {
    burin_c_coupling_begin, burin_c_dft_begin,     burin_c_inverse_begin, burin_c_nms_begin,
    burin_c_roi_begin,      burin_c_scatter_begin, burin_c_select_begin,  burin_c_tfidf_begin,
    burin_c_topk_begin,     burin_c_tree_begin};
enum { N_OPERATORS = sizeof operators / sizeof *operators };

/* Without its includes of the repository's headers: all is one file. */
static void write_text(const char *s, FILE *f) {
  while (*s) {
    const size_t n = strcspn(s, "\n") + 1;
    const bool own = strncmp(s, "#include \"", 10) == 0 || strncmp(s, "#pragma once", 12) == 0;
    if (!own) fwrite(s, n, 1, f);
    s += n;
  }
}

static void write_section(const char *title, const char *s, FILE *f) {
  fprintf(f, "\n/* ==== %s ==== */\n", title);
  write_text(s, f);
}

const char *c_scalar_text(void) { return burin_c_scalar_begin; }

void c_write_scalar(FILE *f) { write_section("scalars", burin_c_scalar_begin, f); }

void c_write_runtime(FILE *f) {
  write_section("runtime", burin_c_run_begin, f);
  write_text(burin_c_parallel_begin, f);
  write_text(burin_c_failure_begin, f);
  write_text(burin_c_default_begin, f);
}

void c_write_fmod(FILE *f) {
  fputs(
      "\nstatic inline double burin_rt_fmod(double a, double b);\n"
      "static inline float burin_rt_fmodf(float a, float b);\n",
      f);
  write_text(burin_c_fmod_begin, f);
}

/* The text that defines a function; -1: none does. */
static int operator_of(const char *symbol, Arena *a) {
  const char *const head = arena_printf(a, "\nint32_t %s(", symbol);
  for (int i = 0; i < N_OPERATORS; i++)
    if (strstr(operators[i], head)) return i;
  return -1;
}

static void declare_operators(const bool *used, FILE *f) {
  static const char *const shared[] = {
      "float rt_f16_to_f32(uint16_t h)",
      "uint16_t rt_f32_to_f16(float f)",
      "uint16_t rt_f32_to_bf16(float f)",
      "double rt_load_f(const RtTensor *t, int64_t i)",
      "int64_t rt_load_i(const RtTensor *t, int64_t i)",
      "void rt_store_f(RtTensor *t, int64_t i, double v)",
      "void rt_store_i(RtTensor *t, int64_t i, int64_t v)",
      "int32_t rt_compare(const RtTensor *a, int64_t i, const RtTensor *b, int64_t j)"};
  for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
    fprintf(f, "static inline %s;\n", shared[i]);
  for (int k = 0; k < N_OPERATORS; k++) {
    if (!used[k]) continue;
    const char *s = operators[k];
    while ((s = strstr(s, "\nint32_t rt_"))) {
      const size_t n = strcspn(s, "{");
      fprintf(f, "static inline %.*s;\n", (int)n - 1, s + 1);
      s += n;
    }
  }
}

/* Static names that several sources have get a number. */
static void write_renamed(int k, FILE *f) {
  static const char *const names[] = {"load", "put", "sift"};
  enum { N = sizeof names / sizeof *names };
  fputs("\n", f);
  for (int i = 0; i < N; i++) fprintf(f, "#define %s %s_%d\n", names[i], names[i], k);
  write_text(operators[k], f);
  for (int i = 0; i < N; i++) fprintf(f, "#undef %s\n", names[i]);
}

/* All functions of strings and of the heap: they need each other. */
static void write_texts(FILE *f) {
  static const char *const parts[] = {
      burin_c_heap_begin,     burin_c_strings_begin,       burin_c_case_runs_begin,
      burin_c_case_begin,     burin_c_decimal_begin,       burin_c_text_numbers_begin,
      burin_c_text_ops_begin, burin_c_regex_program_begin, burin_c_regex_begin,
      burin_c_tokenize_begin, burin_c_text_hash_begin,
      burin_c_sequences_begin};
  fputs("\n#define TEXT_FN static inline\n", f);
  write_section("strings", burin_c_text_begin, f);
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) write_text(parts[i], f);
}

bool codegen_c_has(const ExternRow *row) {
  Arena *const a = arena_new(0, NULL, NULL);
  const bool has = row->heap || operator_of(row->symbol, a) >= 0;
  arena_free(a);
  return has;
}

const Step *c_lacks(const Program *p) {
  for (int i = 0; i < p->calls.n; i++) {
    const Step *const s = p->calls.data[i];
    if (s->kind == STEP_EXTERN && !codegen_c_has(s->ext.row)) return s;
  }
  return NULL;
}

const Step *c_write_operators(const Program *p, FILE *f) {
  bool used[N_OPERATORS] = {false}, any = p->uses_heap;
  for (int i = 0; i < p->calls.n; i++) {
    const Step *const s = p->calls.data[i];
    if (s->kind != STEP_EXTERN) continue;
    if (s->ext.row->heap) continue;
    const int k = operator_of(s->ext.row->symbol, p->arena);
    if (k < 0) return s;
    any = used[k] = true;
  }
  if (!any) return NULL;
  /* static, because one file of C may stand beside another model's */
  declare_operators(used, f);
  write_section("operators", burin_c_ops_begin, f);
  write_text(burin_c_element_begin, f);
  for (int k = 0; k < N_OPERATORS; k++) {
    if (!used[k]) continue;
    write_renamed(k, f);
  }
  if (p->uses_heap) write_texts(f);
  return NULL;
}
