/* What a training step changes: float initializers of at least one dimension on which the loss
 * depends differentiably, and the running statistics of normalizations beside them. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "ir/base/words.h"
#include "passes/train/step.h"

/* ---- which there are ---- */
typedef struct Finding {
  Train *x;
  const bool *leads;
  bool *fixed, *seen; /* by value id */
  const Node *node;
  int at;
} Finding;

/* Inputs that say how a node computes, such as scales of quantization, stay as they are: a bit each. */
static uint32_t fixed_inputs(const Node *n) {
  static const struct {
    const char *op;
    uint32_t inputs;
  } rows[] = {{"Resize", ~1u},
              {"QuantizeLinear", ~1u},
              {"DequantizeLinear", ~1u},
              {"BatchNormalization", ~7u},
              {"MatMulNBits", 1u << 2},
              {"MatMulIntegerToFloat", 3u << 2},
              {"DynamicQuantizeMatMul", 1u << 2},
              {"QGemm", 1u << 1 | 1u << 4 | 1u << 7},
              {"QAttention", 3u << 3},
              {"GatherBlockQuantized", 1u << 2},
              {"QEmbedLayerNormalization", 31u << 8},
              {"DynamicQuantizeLSTM", 1u << 8 | 1u << 10}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (strcmp(n->op->name, rows[i].op) == 0) return rows[i].inputs;
  return 0;
}

static void find_fixed(Finding *f, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    const uint32_t fixed = fixed_inputs(n);
    for (int k = 0; fixed && k < n->n_in && k < 32; k++)
      if (n->in[k] && fixed >> k & 1) f->fixed[n->in[k]->id] = true;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) find_fixed(f, n->attrs[k].graph);
  }
}

static bool note_read(void *user, Value *v) {
  Finding *f = user;
  Train *x = f->x;
  if (!v->cdata || !v->cdata->initializer || f->seen[v->id] || f->fixed[v->id] ||
      !f->leads[v->id] || v->rank < 1)
    return false;
  f->seen[v->id] = true;
  vec_push(x->m->arena, &x->params, (Param){.v = v, .first = f->at, .by = f->node, .chosen = true});
  return false;
}

/* ---- --trainable ---- */
static const char *param_name(const Param *p) { return p->v->cdata->name; }

static bool fits(const Param *p, const char *word) {
  return word_fits(word, param_name(p)) ||
         word_fits(word, p->by->loc ? p->by->loc->node_name : NULL);
}

/* The position from which on the last n nodes with a parameter of two or more dimensions stand. */
static int last_layers(const Train *x, int n) {
  int at = INT32_MAX;
  for (; n > 0; n--) {
    int before = -1;
    for (int i = 0; i < x->params.n; i++) {
      const Param *p = &x->params.data[i];
      if (p->v->rank >= 2 && p->first < at && p->first > before) before = p->first;
    }
    if (before < 0) return 0;
    at = before;
  }
  return at;
}

static bool choose_word(Train *x, const char *word) {
  char *end = NULL;
  const bool last = strncmp(word, "last", 4) == 0 && isdigit((unsigned char)word[4]);
  const long layers = last ? strtol(word + 4, &end, 10) : 0;
  const int from = last && !*end && layers > 0 && layers < 10000 ? last_layers(x, (int)layers) : -1;
  bool any = false;
  for (int i = 0; i < x->params.n; i++) {
    Param *p = &x->params.data[i];
    if (from >= 0 ? p->first < from : !fits(p, word)) continue;
    p->chosen = word_takes(word);
    any = true;
  }
  if (any) return true;
  const Loc loc = {.file = x->m->file, .node = -1};
  diag_error(x->m->diag, &loc, ERR_VALUE,
             "--trainable: '%s' is neither lastN nor a parameter, nor a node that reads one", word);
  StrBuf b = {.arena = x->m->arena};
  for (int i = 0; i < x->params.n && i < 8; i++)
    sb_printf(&b, "%s%s", i ? ", " : "", param_name(&x->params.data[i]));
  diag_hint(x->m->diag, "%d parameters: %s%s", x->params.n, sb_str(&b),
            x->params.n > 8 ? " …" : "");
  return false;
}

static bool choose(Train *x) {
  if (!x->t->trainable) return true;
  const Words l = words_split(x->m->arena, x->t->trainable);
  for (int i = 0; i < x->params.n; i++) x->params.data[i].chosen = words_choose_rest(&l);
  for (int k = 0; k < l.n; k++)
    if (!choose_word(x, l.word[k])) return false;
  return true;
}

static bool nothing(const Train *x) {
  const Loc loc = {.file = x->m->file, .node = -1};
  bool initializers = false;
  for (int i = 0; i < x->m->consts.n; i++) initializers |= x->m->consts.data[i]->initializer;
  diag_error(x->m->diag, &loc, ERR_VALUE, "--train: nothing can be trained: %s",
             x->params.n ? "--trainable takes all parameters out"
             : initializers
                 ? "the loss depends on no initializer of floats with a dimension by a way "
                   "that has gradients"
                 : "the model has no initializers (texts of graphs do not tell which "
                   "constants are)");
  return false;
}

bool train_find_params(Train *x) {
  Arena *a = x->m->arena;
  Finding f = {.x = x};
  f.leads = gradient_sources(x->m, x->g, x->value);
  f.fixed = ARENA_ARRAY(a, bool, x->m->next_value);
  f.seen = ARENA_ARRAY(a, bool, x->m->next_value);
  find_fixed(&f, x->g);
  for (f.at = 0; f.at < x->g->nodes.n; f.at++) {
    f.node = x->g->nodes.data[f.at];
    node_any_read(f.node, note_read, &f);
  }
  if (x->params.n && !choose(x)) return false;
  for (int i = 0; i < x->params.n; i++)
    if (x->params.data[i].chosen) return true;
  return nothing(x);
}

/* ---- they become inputs ---- */
static void take(Train *x, Value *v, StateKind kind) {
  const ConstData *c = v->cdata;
  v->init = value_const(x->m, (ConstData *)(uintptr_t)c);
  v->cdata = NULL;
  v->name = c->name;
  vec_push(x->m->arena, &x->g->inputs, v);
  vec_push(
      x->m->arena, &x->slots,
      (Slot){.item = {.name = c->name, .kind = kind, .input = x->g->inputs.n - 1, .initial = c},
             .in = v});
}

static bool is_param(const Train *x, const Value *v) {
  for (int i = 0; i < x->params.n; i++)
    if (x->params.data[i].v == v) return x->params.data[i].chosen;
  return false;
}

/* Of a normalization with a parameter: its mean and variance, unless another has them already. */
static void take_statistics(Train *x, const Node *n) {
  if (strcmp(n->op->name, "BatchNormalization") != 0 || n->n_in < 5) return;
  if (!is_param(x, n->in[1]) && !is_param(x, n->in[2])) return;
  for (int k = 3; k < 5; k++)
    if (n->in[k]->cdata && n->in[k]->cdata->initializer) take(x, n->in[k], STATE_STATISTIC);
}

bool train_take_params(Train *x) {
  for (int i = 0; i < x->params.n; i++)
    if (x->params.data[i].chosen) take(x, x->params.data[i].v, STATE_PARAMETER);
  for (int i = 0; i < x->g->nodes.n; i++) take_statistics(x, x->g->nodes.data[i]);
  graph_forget_contents(x->g); /* elements of small ones may have been taken as known */
  return graph_infer(x->g);
}
