/* --list-ops: the operator table as a table of Markdown, which docs/OPERATORS.md repeats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/codegen.h"
#include "driver/driver.h"
#include "frontend/frontend.h"
#include "ir/op/op.h"

typedef struct Entry {
  const char *domain, *name, *how, *gpu, *limit;
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

static int by_name(const void *a, const void *b) {
  const Entry *const x = a, *const y = b;
  const int d = strcmp(x->domain, y->domain);
  return d ? d : strcmp(x->name, y->name);
}

static void print_entry(Arena *a, const Entry *e) {
  const OpRow *const r = e->row;
  const bool called = r && r->body == OB_EXTERN;
  printf("| %s%s%s | ", e->domain, *e->domain ? "." : "", e->name);
  if (r) printf("%d", r->since);
  printf(" | %s | %s | %s | %s | %s | %s | %s |\n", e->how, r ? operator_types(a, r) : "as this",
         !called || r->ext->fn ? "yes" : "no", !called || codegen_c_has(r->ext) ? "yes" : "no",
         e->gpu, r ? gradient_of(r) : "as this", e->limit ? e->limit : "");
}

int list_operators(void) {
  Arena *const a = arena_new(0, NULL, NULL);
  Vec(Entry) all = {0};
  for (int i = 0; i < op_row_count; i++) {
    const OpRow *const r = &op_rows[i];
    if (strcmp(r->domain, "burin") == 0) continue; /* made by rewriting */
    vec_push(a, &all, ((Entry){r->domain, r->name, how_made(r), where_on_gpu(r), r->limit, r}));
  }
  const char *domain, *name, *limit;
  for (int i = 0; frontend_own_operator(i, &domain, &name, &limit); i++)
    vec_push(a, &all,
             ((Entry){domain, name, "what the importer makes of it", "as this", limit, NULL}));
  qsort(all.data, (size_t)all.n, sizeof *all.data, by_name);
  printf(
      "| operator | since | made of | types | interpreted | C source | on GPUs | gradient | limits "
      "|\n"
      "|---|---|---|---|---|---|---|---|---|\n");
  for (int i = 0; i < all.n; i++) print_entry(a, &all.data[i]);
  arena_free(a);
  return EXIT_OK;
}
