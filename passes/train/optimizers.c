/* Updates of parameters, as nodes: formulas and their sources are in docs/training.md. What all
 * parameters share (rate, corrections of moments) is computed in f64 from the number of the step. */
#include <math.h>
#include <string.h>
#include "passes/train/step.h"

typedef struct Update {
  Train *x;
  Build *b;
  const Spec *s;
  DType t;       /* in which it is computed */
  Value *lr, *k; /* rate; number of this update, from 1 on: f64, rank 0 */
  Value *w, *g;  /* a parameter and its gradient */
  const char *name;
  double decay;
} Update;
typedef Value *(*UpdateFn)(Update *u);

typedef struct Row {
  const char *name;
  double lr;
  UpdateFn fn;
  const char *keys;
} Row;

static const char all_keys[] = "lr weight_decay clip warmup schedule steps every gamma min_lr";

/* ---- texts of maps ---- */
static const char *num(const Update *u, double v) { return build_number(u->b, u->t, v); }

static Value *map(const Update *u, DType t, const char *text, int n, Value *const *in) {
  return u->b->ok ? build_map(u->b, t, text, n, in) : in[0];
}

/* A number that all parameters share, by its text over the number of the step and the rate, in f64. */
static Value *shared(const Update *u, const char *text) {
  Value *v = map(u, DT_F64, text, 2, (Value *[]){u->k, u->lr});
  return build_cast(u->b, v, u->t);
}

static Value *rate(const Update *u) { return build_cast(u->b, u->lr, u->t); }

/* ---- state ---- */
/* What the optimizer keeps of this parameter. */
static Value *moment(const Update *u, const char *suffix) {
  const char *name = arena_printf(u->x->m->arena, "%s.%s", u->name, suffix);
  return train_slot(u->x, STATE_MOMENT, name, u->t, u->w)->in;
}

/* The new value of a tensor of the state, only in calls that update. */
static Value *put(const Update *u, Value *old, const char *text, int n, Value *const *in) {
  Value *all[8];
  for (int k = 0; k < n; k++) all[k] = in[k];
  if (u->x->apply) {
    int at = 0;
    while (at < n && all[at] != old) at++;
    all[n] = u->x->apply;
    if (at == n) all[n + 1] = old;
    text = arena_printf(u->x->m->arena, "select(%c, %s, %c)", 'a' + n, text,
                        at < n ? 'a' + at : 'a' + n + 1);
    n += 1 + (at == n);
  }
  Value *v = map(u, old->dtype, text, n, all);
  train_set(u->x, old, v);
  return v;
}

/* ---- the rows ---- */
static bool number(const Update *u, const char *key, double def, double lo, double hi, double *v) {
  return spec_number(u->s, key, def, lo, hi, v);
}

/* "b", or the gradient with the decay of a parameter, the letter w. */
static const char *decayed(const Update *u, char w) {
  return u->decay == 0 ? "b" : arena_printf(u->x->m->arena, "(b + %s * %c)", num(u, u->decay), w);
}

/* Sutskever et al., On the importance of initialization and momentum, 2013, as PyTorch has it. */
static Value *sgd(Update *u) {
  Arena *a = u->x->m->arena;
  static const char *const words[] = {"false", "true", NULL};
  double mu, damp;
  int nesterov;
  if (!number(u, "momentum", 0, 0, 1, &mu) || !number(u, "dampening", 0, 0, 1, &damp) ||
      !spec_choice(u->s, "nesterov", words, &nesterov))
    return NULL;
  if (nesterov && (mu == 0 || damp != 0))
    return spec_error(u->s, "nesterov needs a momentum and no dampening"), NULL;
  if (mu == 0)
    return put(u, u->w,
               u->decay == 0 ? PLAIN_UPDATE : arena_printf(a, "a - c * %s", decayed(u, 'a')), 3,
               (Value *[]){u->w, u->g, rate(u)});
  Value *m = moment(u, "m");
  const char *g = decayed(u, 'c');
  const char *text = arena_printf(a, "%s * a + %s", num(u, mu), g);
  if (damp != 0)
    text =
        arena_printf(a, "select(d == 1, %s, %s * a + %s * %s)", g, num(u, mu), num(u, 1 - damp), g);
  Value *v = put(u, m, text, damp == 0 ? 3 : 4, (Value *[]){m, u->g, u->w, u->k});
  if (!nesterov) return put(u, u->w, "a - c * b", 3, (Value *[]){u->w, v, rate(u)});
  text = arena_printf(a, "a - c * (%s + %s * d)", decayed(u, 'a'), num(u, mu));
  return put(u, u->w, text, 4, (Value *[]){u->w, u->g, rate(u), v});
}

/* Kingma and Ba, Adam, 2015; moments are those of g, which is `gradient` over inputs old, g, w. */
static Value *adam_step(Update *u, const char *gradient, const char *shrunk) {
  Arena *a = u->x->m->arena;
  double b1, b2, eps;
  if (!number(u, "beta1", 0.9, 0, 1, &b1) || !number(u, "beta2", 0.999, 0, 1, &b2) ||
      !number(u, "eps", 1e-8, 0, 1, &eps))
    return NULL;
  const int n = strcmp(gradient, "b") == 0 ? 2 : 3;
  Value *m = moment(u, "m"), *v = moment(u, "v");
  const char *text = arena_printf(a, "%s * a + %s * %s", num(u, b1), num(u, 1 - b1), gradient);
  Value *mean = put(u, m, text, n, (Value *[]){m, u->g, u->w});
  text = arena_printf(a, "%s * a + %s * %s * %s", num(u, b2), num(u, 1 - b2), gradient, gradient);
  Value *square = put(u, v, text, n, (Value *[]){v, u->g, u->w});
  text = arena_printf(a, "b / (1 - pow(%s, a))", build_number(&u->x->b, DT_F64, b1));
  Value *step = shared(u, text);
  text = arena_printf(a, "sqrt(1 - pow(%s, a))", build_number(&u->x->b, DT_F64, b2));
  Value *root = shared(u, text);
  text = arena_printf(a, "%s - d * b / (sqrt(c) / e + %s)", shrunk, num(u, eps));
  return put(u, u->w, text, 6, (Value *[]){u->w, mean, square, step, root, rate(u)});
}

static Value *adam(Update *u) { return adam_step(u, decayed(u, 'c'), "a"); }

/* a (1 - lr * decay), where the rate is the letter lr. */
static const char *shrunk(const Update *u, char lr) {
  return u->decay == 0 ? "a"
                       : arena_printf(u->x->m->arena, "a * (1 - %c * %s)", lr, num(u, u->decay));
}

/* Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019. */
static Value *adamw(Update *u) { return adam_step(u, "b", shrunk(u, 'f')); }

/* Chen et al., Symbolic Discovery of Optimization Algorithms, 2023. */
static Value *lion(Update *u) {
  Arena *a = u->x->m->arena;
  double b1, b2;
  if (!number(u, "beta1", 0.9, 0, 1, &b1) || !number(u, "beta2", 0.99, 0, 1, &b2)) return NULL;
  Value *m = moment(u, "m");
  const char *c = arena_printf(a, "(%s * c + %s * b)", num(u, b1), num(u, 1 - b1));
  const char *text =
      arena_printf(a, "%s - d * select(0 < %s, 1, select(%s < 0, -1, 0))", shrunk(u, 'd'), c, c);
  Value *w = put(u, u->w, text, 4, (Value *[]){u->w, u->g, m, rate(u)});
  put(u, m, arena_printf(a, "%s * a + %s * b", num(u, b2), num(u, 1 - b2)), 2,
      (Value *[]){m, u->g});
  return w;
}

/* ---- the table ---- */
static const Row rows[] = {
#define OPTIMIZER(name, lr, fn, keys) {#name, lr, fn, keys},
#include "passes/train/optimizers.def"
#undef OPTIMIZER
};
static const Row *find_row(const Spec *s) {
  return spec_row(s, "optimizer", rows, sizeof rows / sizeof *rows, sizeof *rows);
}

bool train_check_optimizer(Train *x) {
  const Row *row = find_row(&x->optimizer);
  if (row && x->optimizer.output)
    return spec_error(&x->optimizer, "'%s' behind the name says nothing here", x->optimizer.output);
  return row && spec_allows(&x->optimizer, row->keys, all_keys);
}

/* ---- counters ---- */
bool train_count(Train *x) {
  Build *b = &x->b;
  const int n = x->t->accumulate > 1 ? x->t->accumulate : 1;
  x->step = train_slot(x, STATE_COUNTER, "step", DT_I64, NULL)->in;
  x->calls = x->step;
  if (n > 1) {
    Arena *const a = x->m->arena;
    Value *const part = x->part = train_slot(x, STATE_COUNTER, "part", DT_I64, NULL)->in;
    x->calls =
        build_map(b, DT_I64, arena_printf(a, "a * %d + b", n), 2, (Value *[]){x->step, part});
    const char *next[] = {arena_printf(a, "select(a == %d, 0, a + 1)", n - 1), "a + 1", "0"};
    if (x->t->part == TRAIN_STEP)
      x->apply = build_map(b, DT_BOOL, arena_printf(a, "a == %d", n - 1), 1, &part);
    train_set(x, part, build_map(b, DT_I64, next[x->t->part], 1, (Value *[]){part}));
  }
  return b->ok;
}

static void count_step(Train *x) {
  Value *in[] = {x->step, x->apply};
  train_set(
      x, x->step,
      build_map(&x->b, DT_I64, x->apply ? "select(b, a + 1, a)" : "a + 1", x->apply ? 2 : 1, in));
}

/* ---- the rate ---- */
/* What the schedule makes of 1, as a text over the number a of updates that went before. */
static bool schedule_text(Train *x, double lr, const char **out) {
  static const char *const words[] = {"constant", "cosine", "step", NULL};
  const Spec *s = &x->optimizer;
  Arena *a = x->m->arena;
  enum { MOST = INT32_MAX };
  int64_t warmup, steps, every;
  double gamma, least;
  int kind;
  if (!spec_choice(s, "schedule", words, &kind) || !spec_int(s, "warmup", 0, 0, MOST, &warmup) ||
      !spec_int(s, "steps", 0, 1, MOST, &steps) || !spec_int(s, "every", 0, 1, MOST, &every) ||
      !spec_number(s, "gamma", 0.1, 0, 1e6, &gamma) || !spec_number(s, "min_lr", 0, 0, 1e6, &least))
    return false;
  if (kind == 1 && !steps) return spec_error(s, "schedule=cosine needs steps=TOTAL");
  if (kind == 2 && !every) return spec_error(s, "schedule=step needs every=STEPS");
  if (kind != 1 && (steps || spec_text(s, "min_lr")))
    return spec_error(s, "steps and min_lr are of schedule=cosine");
  if (kind != 2 && (every || spec_text(s, "gamma")))
    return spec_error(s, "every and gamma are of schedule=step");
  if (kind == 1 && warmup >= steps) return spec_error(s, "warmup is not below steps");
  const char *rest = "1";
  if (kind == 1)
    rest = arena_printf(a, "(%s + %s * (1 + cos(%s * min(1, max(0, (a - %lld) / %lld)))))",
                        build_number(&x->b, DT_F64, least / lr),
                        build_number(&x->b, DT_F64, (1 - least / lr) / 2),
                        build_number(&x->b, DT_F64, 3.141592653589793), (long long)warmup,
                        (long long)(steps - warmup));
  if (kind == 2)
    rest = arena_printf(a, "pow(%s, floor(max(0, a - %lld) / %lld))",
                        build_number(&x->b, DT_F64, gamma), (long long)warmup, (long long)every);
  *out = !warmup ? rest
                 : arena_printf(a, "select(a < %lld, (a + 1) / %lld, %s)", (long long)warmup,
                                (long long)warmup, rest);
  return true;
}

static bool set_rate(Train *x, Update *u, double def) {
  double lr;
  const char *text;
  if (!spec_number(&x->optimizer, "lr", def, 0, 1e6, &lr)) return false;
  if (lr == 0 && spec_text(&x->optimizer, "min_lr"))
    return spec_error(&x->optimizer, "min_lr needs a rate above it");
  if (!schedule_text(x, lr > 0 ? lr : 1, &text)) return false;
  Value *before = build_cast(&x->b, x->step, DT_F64);
  u->k = build_map(&x->b, DT_F64, "a + 1", 1, &before);
  u->lr =
      strcmp(text, "1") == 0
          ? build_scalar(&x->b, DT_F64, lr)
          : build_map(&x->b, DT_F64,
                      arena_printf(x->m->arena, "%s * %s", build_number(&x->b, DT_F64, lr), text),
                      1, &before);
  return x->b.ok;
}

/* ---- gradients on their way to the update ---- */
/* Gathered over the calls of one update; the sum is put where it was read last. Between the halves of a
 * step it is in the state in any case. */
static Value *gather(Train *x, Param *p, Value **sum) {
  const DType t = dtype_compute(p->v->dtype);
  const bool update = x->t->part == TRAIN_UPDATE, several = x->t->accumulate > 1;
  Value *g = NULL;
  *sum = NULL;
  if (!update) g = p->gradient = train_unscale(x, build_cast(&x->b, p->gradient, t));
  if ((!several && x->t->part == TRAIN_STEP) || !x->b.ok) return g;
  const char *name = arena_printf(x->m->arena, "%s.gradient", p->v->name);
  *sum = train_slot(x, STATE_GRADIENT, name, t, p->v)->in;
  if (!several) return update ? *sum : g;
  const char *text = arena_printf(x->m->arena, "%s * %s", update ? "a" : "(a + b)",
                                  build_number(&x->b, t, 1.0 / x->t->accumulate));
  return build_map(&x->b, t, text, update ? 1 : 2, (Value *[]){*sum, g});
}

static void put_sum(Train *x, const Param *p, Value *sum) {
  const DType t = sum->dtype;
  const bool several = x->t->accumulate > 1;
  if (x->t->part == TRAIN_UPDATE) {
    if (several) train_set(x, sum, build_map(&x->b, t, "0", 1, &sum));
    return;
  }
  Value *g = build_cast(&x->b, p->gradient, t), *in[] = {sum, g, x->ends};
  if (!x->b.ok) return;
  if (x->t->part == TRAIN_GRADIENTS)
    train_set(x, sum, several ? build_map(&x->b, t, "a + b", 2, in) : g);
  else
    train_set(x, sum, build_map(&x->b, t, "select(c, 0, a + b)", 3, in));
}

/* min(1, clip / (norm of all + 1e-6)), as PyTorch's clip_grad_norm_. */
static Value *clip_factor(Train *x, double clip, Value *const *g) {
  Build *b = &x->b;
  Value *all = NULL;
  for (int i = 0; i < x->params.n; i++) {
    if (!g[i] || !b->ok) continue;
    Value *squares = build_map(b, g[i]->dtype, "a * a", 1, &g[i]);
    Value *sum = b->ok ? build_cast(b, build_sum_all(b, squares), DT_F64) : NULL;
    all = all && sum && b->ok ? build2(b, "Add", all, sum) : sum;
  }
  const char *text =
      arena_printf(x->m->arena, "min(1, %s / (sqrt(a) + %s))", build_number(&x->b, DT_F64, clip),
                   build_number(&x->b, DT_F64, 1e-6));
  return b->ok ? build_map(b, DT_F64, text, 1, &all) : NULL;
}

static bool clip_all(Train *x, Value **g) {
  double clip;
  if (!spec_number(&x->optimizer, "clip", 0, 0, 1e30, &clip)) return false;
  if (clip == 0) return true;
  Value *factor = clip_factor(x, clip, g);
  for (int i = 0; i < x->params.n && x->b.ok; i++) {
    if (!g[i]) continue;
    Value *f = build_cast(&x->b, factor, g[i]->dtype);
    g[i] = x->b.ok ? build_map(&x->b, g[i]->dtype, "a * b", 2, (Value *[]){g[i], f}) : NULL;
  }
  return x->b.ok;
}

bool train_updates(Train *x, Value *const *gradients) {
  const Row *row = find_row(&x->optimizer);
  Value **g = ARENA_ARRAY(x->m->arena, Value *, x->params.n),
        **sums = ARENA_ARRAY(x->m->arena, Value *, x->params.n);
  Update u = {.x = x, .b = &x->b, .s = &x->optimizer};
  if (!set_rate(x, &u, row->lr) || !spec_number(u.s, "weight_decay", 0, 0, 1e6, &u.decay))
    return false;
  if (!spec_text(u.s, "weight_decay") && strcmp(row->name, "adamw") == 0) u.decay = 0.01;
  for (int i = 0, k = 0; i < x->params.n && x->b.ok; i++) {
    Param *p = &x->params.data[i];
    if (!p->chosen) continue;
    if (gradients) p->gradient = gradients[k++];
    g[i] = gather(x, p, &sums[i]);
  }
  if (!x->b.ok || !train_guard(x, g) || !clip_all(x, g)) return false;
  for (int i = 0; i < x->params.n && x->b.ok; i++) {
    if (!g[i]) continue;
    u.w = x->params.data[i].v;
    u.g = g[i];
    u.t = g[i]->dtype;
    u.name = u.w->name;
    if (!row->fn(&u)) return false;
  }
  for (int i = 0; i < x->params.n && x->b.ok; i++)
    if (sums[i]) put_sum(x, &x->params.data[i], sums[i]);
  if (x->b.ok) count_step(x);
  return x->b.ok;
}
