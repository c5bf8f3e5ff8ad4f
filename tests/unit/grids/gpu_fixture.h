/* Graphs as texts, lowered for a target, interpreted in an order, and compared. */
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "ir/expr/expr_query.h"
#include "ir/loop/mma.h"
#include "passes/gpu/tiles.h"
#include "passes/pass.h"

#include <cmocka.h>

enum { MOST = 1 << 20, MOST_IO = 2 };

typedef struct Case {
  const char *name;
  const char *body; /* of a graph whose result is %r; %w is a constant */
  const char *out;  /* its type */
  const char *w;    /* type of %w, or NULL */
  const char *in[MOST_IO];
  double tolerance;
  bool fragments; /* is multiplied by tensor cores */
  int kernels;    /* 0: any number */
  bool tf32;
} Case;

static uint64_t next_random(uint64_t *s) {
  *s = *s * 6364136223846793005u + 1442695040888963407u;
  return *s >> 33;
}

static int64_t count_of(const char *type) {
  int64_t n = 1;
  for (const char *s = strchr(type, '[') + 1; *s && *s != ']';
       s += strcspn(s, ",]") + (s[strcspn(s, ",]")] == ','))
    n *= atoll(s);
  return n;
}

/* A list of numbers that are exact in all types but bytes, where they are whole. */
static const char *numbers(Arena *a, const char *type) {
  StrBuf b = {.arena = a};
  uint64_t seed = 9;
  const bool whole = type[0] == 'u' || type[0] == 'i';
  for (int64_t i = 0, n = count_of(type); i < n; i++) {
    const int v = (int)(next_random(&seed) % 17) - (type[0] == 'u' ? 0 : 8);
    if (whole)
      sb_printf(&b, "%s%d", i ? "," : "", v);
    else
      sb_printf(&b, "%s%.4f", i ? "," : "", v / 16.0);
  }
  return sb_str(&b);
}

static const char *text_of(Arena *a, const Case *c) {
  StrBuf b = {.arena = a};
  sb_printf(&b, "model ir 8 opset 21\ngraph @main {\n");
  if (c->w) sb_printf(&b, " %%w : %s = const [%s]\n", c->w, numbers(a, c->w));
  for (int i = 0; i < MOST_IO && c->in[i]; i++)
    sb_printf(&b, " %%%c : %s = input \"%c\"\n", "xy"[i], c -> in[i], "xy"[i]);
  sb_printf(&b, " %s\n output %%r \"r\"\n}\n", c->body);
  return sb_str(&b);
}

/* Lowered for a target. */
typedef struct Program {
  PassCtx c;
  Arena *a;
} Program;

static Program lowered_for(const Case *k, const Target *t, int opt) {
  static const char *const disabled[] = {"serialize_threads"};
  Program p = {.a = arena_new(0, NULL, NULL)};
  Diag *const d = diag_new(p.a);
  p.c = (PassCtx){.target = t, .opt_level = opt, .max_threads = 1, .tf32 = k->tf32};
  p.c.model = model_parse(p.a, d, text_of(p.a, k), k->name);
  const PassOptions o = {.disabled = disabled, .n_disabled = 1};
  if (!p.c.model || !passes_run(&p.c, &o)) {
    diag_print(d, stderr);
    fail_msg("%s on %s", k->name, t->name);
  }
  return p;
}

static Program lowered(const Case *k, const char *target, int opt) {
  return lowered_for(k, target_find(target), opt);
}

static void fill(const Case *k, int i, DType t, void *p) {
  uint64_t seed = (uint64_t)i + 3;
  for (int64_t n = 0; n < count_of(k->in[i]); n++) {
    const int64_t v = (int64_t)(next_random(&seed) % 31) - (t == DT_U8 ? 0 : 15);
    char *const at = (char *)p + n * dtype_bytes(t);
    if (dtype_is_float(t))
      dtype_store_f(t, at, (double)v / 8);
    else
      dtype_store_i(t, at, v);
  }
}

static void run(const Case *k, const Program *p, ThreadOrder order, void *out) {
  static char in[MOST_IO][MOST];
  const void *ins[MOST_IO] = {in[0], in[1]};
  const Module *const m = p->c.module;
  int64_t syms[8] = {0};
  for (int i = 0; i < m->inputs.n; i++) fill(k, i, m->buffers.data[m->inputs.data[i]].dtype, in[i]);
  if (module_interpret_in(m, order, ins, (void *const[]){out}, syms)) return;
  diag_print(p->c.model->diag, stderr);
  fail_msg("%s: order %d", k->name, order);
}

static double value(DType t, const char *p, int64_t i) {
  p += i * dtype_bytes(t);
  return dtype_is_float(t) ? dtype_load_f(t, p) : (double)dtype_load_i(t, p);
}

static void compare(const Case *k, DType t, const char *got, const char *want) {
  for (int64_t i = 0; i < count_of(k->out); i++) {
    const double x = value(t, got, i), y = value(t, want, i);
    if (!(fabs(x - y) <= k->tolerance * (1 + fabs(y))))
      fail_msg("%s: element %d is %g, not %g", k->name, (int)i, x, y);
  }
}
