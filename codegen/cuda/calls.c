/* Runtime functions that a device runs: their own sources (runtime/ops), and what one of many threads
 * does of them (runtime/ops/parts), behind the head of any kernels, in one unit. Each source is a
 * namespace, since names of its own may stand in another one, too. */
#include <ctype.h>
#include <string.h>

#include "codegen/c/embed.h"
#include "codegen/cuda/cuda.h"
#include "runtime/cuda/gpu.h"

EMBED(burin_call_abi, "runtime/cuda/call.h");
EMBED(burin_call_ops, "runtime/ops/ops.h");
EMBED(burin_call_element, "runtime/ops/ops_element.c");

#define WITH_PARTS(X) X(topk) X(nms) X(roi) X(tree) X(select) X(scatter) X(tfidf)
#define WHOLE(X) X(dft) X(coupling) X(inverse)
#define X(id) EMBED(burin_call_##id, "runtime/ops/ops_" #id ".c");
WITH_PARTS(X) WHOLE(X)
#undef X
#define X(id) EMBED(burin_part_##id, "runtime/ops/parts/" #id ".c");
WITH_PARTS(X)
#undef X

typedef struct Source {
  const char *name, *text, *parts; /* parts NULL: none */
} Source;

static const Source sources[] = {
#define X(id) {#id, burin_call_##id##_begin, burin_part_##id##_begin},
    WITH_PARTS(X)
#undef X
#define X(id) {#id, burin_call_##id##_begin, NULL},
        WHOLE(X)
#undef X
};
enum { N_SOURCES = sizeof sources / sizeof *sources };

/* ---- C as C++ ---- */
/* Behind `(Name){`, with which a compound literal begins; NULL: s is none. */
static const char *literal_type(const char *s) {
  if (*s != '(' || s[1] < 'A' || s[1] > 'Z') return NULL;
  const char *end = s + 1;
  while (isalnum((unsigned char)*end)) end++;
  return end[0] == ')' && end[1] == '{' ? end : NULL;
}

/* Without includes: all is one text. */
static void add_text(StrBuf *b, const char *s) {
  for (bool begins = true; *s; begins = *s++ == '\n') {
    const char *type;
    if (begins && (strncmp(s, "#include", 8) == 0 || strncmp(s, "#pragma once", 12) == 0))
      s += strcspn(s, "\n");
    else if ((type = literal_type(s)))
      sb_printf(b, "%.*s", (int)(type - s - 1), s + 1), s = type;
    else
      sb_printf(b, "%c", *s);
    if (!*s) return;
  }
}

/* The source that defines a function; NULL: none does. */
static const Source *source_of(const char *symbol, Arena *a) {
  const char *const head = arena_printf(a, "\nint32_t %s(", symbol);
  for (int i = 0; i < N_SOURCES; i++)
    if (strstr(sources[i].text, head)) return &sources[i];
  return NULL;
}

bool cuda_has(const ExternRow *row) {
  Arena *const a = arena_new(0, NULL, NULL);
  const bool has = source_of(row->symbol, a);
  arena_free(a);
  return has;
}

/* ---- kernels ---- */
static const char kernel_text[] =
    "extern \"C\" __global__ void __launch_bounds__(%d) %s(const RtCall call) {\n"
    "  BURIN_THREAD(%d, 1);\n"
    "  RtCall c = call;\n"
    "  int64_t *dims = c.dims;\n"
    "  for (int i = 0; i < c.n_in; dims += c.in[i++].rank) c.in[i].dims = dims;\n"
    "  for (int i = 0; i < c.n_out; dims += c.out[i++].rank) c.out[i].dims = dims;\n"
    "  const RtTeam t = {(int64_t)blockIdx.x * %d + thread.x, c.members, (int32_t)thread.x, "
    "c.phase};\n"
    "  const int32_t status = n_%s::%s(c.in, c.n_in, c.out, c.n_out, c.words, c.scratch%s);\n"
    "  if (c.phase == 0 ? t.at == 0 : status != 0) c.result[0] = status;\n"
    "  int64_t *to = c.result + 1;\n"
    "  for (int i = 0; c.last && t.at == 0 && i < c.n_out; i++)\n"
    "    for (int d = 0; d < c.out[i].rank; d++) *to++ = c.out[i].dims[d];\n"
    "}\n";

static const char host_text[] =
    "#ifdef BURIN_STAND_IN\n"
    "static void %s_thread(void *arg) { %s(*(const RtCall *)((void *const *)arg)[0]); }\n"
    "extern \"C\" void %s_block(void *const *args, const int32_t block[3], const int32_t grid[3]) "
    "{\n"
    "  (void)grid;\n"
    "  blockIdx = (BurinIndex){block[0], block[1], block[2]};\n"
    "  burin_gpu_block_run(%s_thread, (void *)args, %d, 0, %d);\n"
    "}\n#endif\n";

static void add_kernel(StrBuf *b, const Program *p, const ExternRow *row, const Source *s) {
  const char *const name = arena_printf(p->arena, "%s_%s", p->name, row->symbol);
  const int threads = row->phases ? RT_BLOCK : 1;
  sb_printf(b, kernel_text, threads, name, threads, threads, s->name,
            row->phases ? arena_printf(p->arena, "%s_part", row->symbol) : row->symbol,
            row->phases ? ", &t" : "");
  sb_printf(b, host_text, name, name, name, name, threads, row->phases > 1);
}

const char *cuda_calls(const Program *p, int unit, StrBuf *b) {
  bool used[N_SOURCES] = {false};
  sb_printf(b,
            "typedef struct RtTensor {\n  void *data;\n  int32_t dtype, rank;\n  int64_t *dims;\n} "
            "RtTensor;\nenum { BURIN_OK = %d, BURIN_E_DATA = %d };\n#define RT_PARTS\n"
            "#define RT_BARRIER() BURIN_BARRIER()\n#if BURIN_PTX\n"
            "#define __builtin_memcpy memcpy\n#endif\n",
            BURIN_OK, BURIN_E_DATA);
  add_text(b, burin_call_abi_begin);
  add_text(b, burin_call_ops_begin);
  add_text(b, burin_call_element_begin);
  for (int i = 0; i < p->device_calls.n; i++) {
    const ExternRow *const row = p->device_calls.data[i];
    const Source *const s = source_of(row->symbol, p->arena);
    if (!s) return "a runtime function that no source defines";
    if (!used[s - sources]) {
      sb_printf(b, "namespace n_%s {\n", s->name);
      add_text(b, s->text);
      if (s->parts) add_text(b, s->parts);
      sb_printf(b, "}\n");
    }
    used[s - sources] = true;
    add_kernel(b, p, row, s);
    Launch *const l = &p->launches[p->m->kernels.n + i];
    *l = (Launch){.unit = unit, .threads = {row->phases ? RT_BLOCK : 1, 1, 1}};
    if (p->t->gpu->sm == 0) l->host = arena_printf(p->arena, "%s_%s_block", p->name, row->symbol);
  }
  return NULL;
}
