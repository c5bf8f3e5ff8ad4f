/* --list-ops: the operator table as a table of Markdown, which docs/OPERATORS.md repeats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/codegen.h"
#include "driver/driver.h"
#include "frontend/frontend.h"
#include "ir/op/op.h"

typedef struct Entry {
  const char *domain, *name, *how, *gpu;
  const OpRow *row; /* NULL: the importer's own */
} Entry;

static const char *how_made(const OpRow *r) {
  switch (r->body) {
    case OB_EW: return "formula of an element";
    case OB_ELEM: return r->flags & OF_CONTRACTION ? "element; templates" : "element";
    case OB_EXPAND: return "other operators";
    case OB_EXTERN: return "runtime function";
    case OB_REGION: return "control flow";
    case OB_NONE: break;
  }
  return "";
}

static const char *where_on_gpu(const OpRow *r) {
  if (r->body == OB_EXPAND) return "as these";
  if (r->body == OB_REGION) return "graph, or host";
  if (r->body != OB_EXTERN) return "kernels";
  if (!codegen_c_has(r->ext)) return "host"; /* nor has a device its source */
  return r->ext->heap ? "host" : r->ext->phases ? "many threads" : "one thread";
}

static const char *gradient_of(const OpRow *r) {
  switch (r->gradient_kind) {
    case GK_CUT: return "";
    case GK_MISSING: return "not yet";
    case GK_PARTS:
    case GK_EXPANDED: return "of its parts";
    case GK_DERIVED:
    case GK_TEXT: return "derived";
    case GK_RULE: return "rule";
  }
  return "";
}

/* What of an operator is refused, by name, though ONNX has it. */
static const char *limit_of(const char *domain, const char *name) {
  static const struct {
    const char *domain, *name, *text;
  } rows[] = {
      {"", "Conv", "constant sizes of kernels"},
      {"", "ConvTranspose", "constant sizes of kernels"},
      {"", "CausalConvWithState", "constant sizes of kernels"},
      {"", "DeformConv", "two spatial axes"},
      {"", "Det", "constant sides, up to 8"},
      {"", "If", "a result of two ranks must not leave the model, nor a Loop or Scan"},
      {"", "Loop", "states keep their rank"},
      {"", "Scan", "states keep their rank"},
      {"", "ImageDecoder", "no WebP, no JPEG 2000"},
      {"", "LSTM", "constant hidden size"},
      {"", "GRU", "constant hidden size"},
      {"", "RNN", "constant hidden size"},
      {"ai.onnx.ml", "CastMap", "no numbers to strings"},
      {"com.microsoft", "Attention", "no past_sequence_length"},
      {"com.microsoft", "MultiHeadAttention", "no past_sequence_length, no cache_indirection"},
      {"com.microsoft", "GroupQueryAttention", "causal; caches are not quantized"},
      {"com.microsoft", "FusedMatMul", "no transBatchA, no transBatchB"},
      {"com.microsoft", "Tokenizer", "one separator"},
      {"com.microsoft", "MurmurHash3", "strings"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (strcmp(rows[i].domain, domain) == 0 && strcmp(rows[i].name, name) == 0) return rows[i].text;
  return "";
}

static int by_name(const void *a, const void *b) {
  const Entry *const x = a, *const y = b;
  const int d = strcmp(x->domain, y->domain);
  return d ? d : strcmp(x->name, y->name);
}

static void print_entry(const Entry *e) {
  const OpRow *const r = e->row;
  const bool called = r && r->body == OB_EXTERN;
  printf("| %s%s%s | ", e->domain, *e->domain ? "." : "", e->name);
  if (r) printf("%d", r->since);
  printf(" | %s | %s | %s | %s | %s | %s |\n", e->how, !called || r->ext->fn ? "yes" : "no",
         !called || codegen_c_has(r->ext) ? "yes" : "no", e->gpu, r ? gradient_of(r) : "as this",
         limit_of(e->domain, e->name));
}

int list_operators(void) {
  Arena *const a = arena_new(0, NULL, NULL);
  Vec(Entry) all = {0};
  for (int i = 0; i < op_row_count; i++) {
    const OpRow *const r = &op_rows[i];
    if (strcmp(r->domain, "burin") == 0) continue; /* made by rewriting */
    vec_push(a, &all, ((Entry){r->domain, r->name, how_made(r), where_on_gpu(r), r}));
  }
  const char *domain, *name;
  for (int i = 0; frontend_own_operator(i, &domain, &name); i++)
    vec_push(a, &all, ((Entry){domain, name, "what the importer makes of it", "as this", NULL}));
  qsort(all.data, (size_t)all.n, sizeof *all.data, by_name);
  printf(
      "| operator | since | made of | interpreted | C source | on GPUs | gradient | limits |\n"
      "|---|---|---|---|---|---|---|---|\n");
  for (int i = 0; i < all.n; i++) print_entry(&all.data[i]);
  arena_free(a);
  return EXIT_OK;
}
