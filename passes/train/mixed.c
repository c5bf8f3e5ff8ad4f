/* Products in floats of 16 bits (--precision=f16|bf16 of a step): their operands and results are rounded,
 * and so are the gradients that pass them; parameters, sums, losses and updates stay as they are
 * (Micikevicius et al., Mixed Precision Training, 2018). Of f16 the loss is scaled by a power of two, so
 * that small gradients are not lost; a call whose gradients are not finite changes the scale alone. */
#include <math.h>
#include <string.h>
#include "passes/train/step.h"

/* ---- what the text says ---- */
static bool is_power_of_two(double v) {
  int e;
  return frexp(v, &e) == 0.5;
}

static bool read_scaling(const Spec *s, LossScaling *c) {
  if (!spec_number(s, "scale", 65536, 1, 16777216, &c->scale) ||
      !spec_number(s, "growth", 2, 1, 65536, &c->growth) ||
      !spec_number(s, "backoff", 0.5, 1.0 / 65536, 1, &c->backoff) ||
      !spec_number(s, "max", 16777216, 1, 16777216, &c->most) ||
      !spec_int(s, "interval", 2000, 1, INT32_MAX, &c->interval))
    return false;
  return (is_power_of_two(c->scale) && is_power_of_two(c->growth) && is_power_of_two(c->backoff) &&
          is_power_of_two(c->most)) ||
         spec_error(s, "scale, growth, backoff and max are powers of two: others would round");
}

bool train_read_precision(Train *x) {
  Spec *s = &x->precision;
  x->half = DT_NONE;
  if (!x->t->precision) return true;
  if (!spec_parse(x->m, "--precision", x->t->precision, s)) return false;
  const bool f16 = strcmp(s->name, "f16") == 0;
  if (s->output) return spec_error(s, "'%s' behind the name says nothing here", s->output);
  if (strcmp(s->name, "f32") == 0) return spec_allows(s, "", "");
  if (!f16 && strcmp(s->name, "bf16") != 0)
    return spec_error(s, "a step is computed in f32, f16 or bf16, not in '%s'", s->name);
  x->half = f16 ? DT_F16 : DT_BF16;
  return spec_allows(s, f16 ? "scale growth backoff interval max" : "", "") &&
         (!f16 || read_scaling(s, &x->scaling));
}

/* ---- products ---- */
static bool is_product(const Node *n) {
  static const char *const names[] = {"Conv", "ConvTranspose", "MatMul", "Gemm"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(n->op->name, names[i]) == 0 && !*n->op->domain) return n->out[0]->dtype == DT_F32;
  return false;
}

/* Node n of the graph, which is at `at`. */
static bool halve_product(Train *x, Node *n, int at) {
  Graph *const g = x->g;
  Build b = {.m = x->m, .g = g, .before = n, .loc = n->loc, .ok = true};
  Value *const out = n->out[0];
  Node *const next = at + 1 < g->nodes.n ? g->nodes.data[at + 1] : NULL;
  for (int k = 0; k < 2; k++) n->in[k] = build_rounded(&b, n->in[k], x->half);
  b.before = next;
  Value *const low = build_cast(&b, out, x->half), *const wide = build_cast(&b, low, DT_F32);
  if (!b.ok) return false;
  graph_replace_value(g, out, wide);
  low->def->in[0] = out;
  return true;
}

/* Before the loss is differentiated: Casts round gradients on their way back, too. */
bool train_halve(Train *x) {
  Graph *const g = x->g;
  bool any = false;
  for (int i = 0; x->half != DT_NONE && i < g->nodes.n; i++) {
    const int n = g->nodes.n;
    if (!is_product(g->nodes.data[i])) continue;
    if (!halve_product(x, g->nodes.data[i], i)) return false;
    i += g->nodes.n - n;
    any = true;
  }
  return any || x->half == DT_NONE ||
         spec_error(&x->precision, "the model has no product of f32 that could be computed so");
}

/* ---- the scale ---- */
static Value *scale_slot(Train *x, const char *name, DType t, double first) {
  Slot *const s = train_slot(x, STATE_SCALE, name, t, NULL);
  void *const data = arena_alloc(x->m->arena, 8);
  memset(data, 0, 8);
  if (t == DT_F32) memcpy(data, &(float){(float)first}, sizeof(float));
  ConstData *const first_data = const_new(x->m, name, t, 0, NULL, data);
  s->item.initial = first_data;
  s->in->init = value_const(x->m, first_data);
  return s->in;
}

bool train_scale_loss(Train *x) {
  Build *const b = &x->b;
  x->scaled = x->value;
  if (x->half != DT_F16) return true;
  x->scale = scale_slot(x, "loss_scale", DT_F32, x->scaling.scale);
  x->clean = scale_slot(x, "clean_steps", DT_I64, 0);
  Value *const scale = build_cast(b, x->scale, x->value->dtype);
  x->scaled = build2(b, "Mul", x->value, scale);
  return b->ok;
}

/* A gradient without the scale, exactly: in f32. */
Value *train_unscale(Train *x, Value *g) {
  if (!x->scale || !x->b.ok) return g;
  Value *in[] = {g, build_cast(&x->b, x->scale, g->dtype)};
  return build_map(&x->b, g->dtype, "a / b", 2, in);
}

/* How many elements of all gradients are not finite. */
static Value *count_wrong(Train *x, Value *const *g) {
  Build *const b = &x->b;
  Value *all = NULL;
  for (int i = 0; i < x->params.n && b->ok; i++) {
    if (!g[i]) continue;
    const char *const text = arena_printf(x->m->arena, "select(abs(a) <= %s, 0, 1)",
                                          build_number(b, DT_F32, 3.4028234663852886e38));
    Value *const g32 = build_cast(b, g[i], DT_F32);
    Value *const wrong = b->ok ? build_map(b, DT_F32, text, 1, &g32) : NULL;
    Value *const sum = b->ok ? build_sum_all(b, wrong) : NULL;
    all = all && b->ok ? build2(b, "Add", all, sum) : sum;
  }
  return all;
}

/* The value, in calls that end a step. */
static const char *where_ends(const Train *x, const char *text, char old) {
  return x->ends ? arena_printf(x->m->arena, "select(d, %s, %c)", text, old) : text;
}

static void next_scale(Train *x, Value *ok) {
  const LossScaling *const c = &x->scaling;
  Arena *const a = x->m->arena;
  Build *const b = &x->b;
  Value *in[] = {x->scale, x->clean, ok, x->ends};
  const int n = x->ends ? 4 : 3;
  const char *text = arena_printf(
      a, "select(c, select(b + 1 < %lld, a, min(a * %s, %s)), max(a * %s, %s))",
      (long long)c->interval, build_number(b, DT_F32, c->growth), build_number(b, DT_F32, c->most),
      build_number(b, DT_F32, c->backoff), build_number(b, DT_F32, 1));
  Value *const scale = build_map(b, DT_F32, where_ends(x, text, 'a'), n, in);
  text = arena_printf(a, "select(c & (b + 1 < %lld), b + 1, 0)", (long long)c->interval);
  Value *const clean = b->ok ? build_map(b, DT_I64, where_ends(x, text, 'b'), n, in) : NULL;
  train_set(x, x->scale, scale);
  train_set(x, x->clean, clean);
}

static void keep_statistics(Train *x, Value *ok) {
  for (int i = 0; i < x->slots.n && x->b.ok; i++) {
    Slot *const s = &x->slots.data[i];
    if (s->item.kind != STATE_STATISTIC || !s->out) continue;
    Value *in[] = {s->in, s->out, ok};
    s->out = build_map(&x->b, s->out->dtype, "select(c, b, a)", 3, in);
  }
}

/* Updates only where all gradients are finite; the scale follows. */
bool train_guard(Train *x, Value *const *g) {
  Build *const b = &x->b;
  x->ends = x->apply;
  if (!x->scale) return true;
  Value *const wrong = count_wrong(x, g);
  Value *const ok = b->ok ? build_map(b, DT_BOOL, "a == 0", 1, &wrong) : NULL;
  if (!b->ok) return false;
  next_scale(x, ok);
  keep_statistics(x, ok);
  x->apply = x->apply && b->ok ? build2(b, "And", x->apply, ok) : ok;
  return b->ok;
}
