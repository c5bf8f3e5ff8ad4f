/* Less memory by order (--sample-blocks, --max-arena): what is computed sample by sample and has nothing
 * to do with what is trained, such as the layers in front of the last ones, runs over blocks of samples,
 * and only what is read behind it is kept for all of them. How many samples a block has is found by
 * trials (trial.h). Nodes keep the kernels that they have without blocks, so that results are the same
 * to the bit. Right before checkpoint, which computes again where that was not enough. */
#include "passes/form/sample_blocks.h"

#include "ir/expr/expr_query.h"
#include "passes/build/kernel.h"
#include "passes/form/trial.h"

enum { LARGEST = 16 }; /* samples of a block that is chosen */

/* ---- what a trial decided ---- */
typedef struct Asked {
  PassCtx *c;
  Decided d;
} Asked;

static double steps_cycles(ExprPool *p, const Step *s) {
  double sum = 0;
  for (; s; s = s->next) {
    sum += s->estimate.cycles;
    if (s->kind == STEP_LOOP)
      sum +=
          (s->loop.trip ? expr_extent_guess(p, s->loop.trip) : 1) * steps_cycles(p, s->loop.body);
  }
  return sum;
}

static void measure(const Module *m, Decided *d) {
  d->bytes = module_bytes(m);
  d->cycles = steps_cycles(m->model->pool, m->steps);
}

static void note_decided(void *user, const Module *m) {
  Asked *const a = user;
  const Graph *const g = a->c->model->main;
  bool *const stored = ARENA_ARRAY(a->c->scratch, bool, a->c->model->next_value + 1);
  const Plan **const plan = ARENA_ARRAY(a->c->scratch, const Plan *, g->nodes.n + 1);
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *const n = g->nodes.data[i];
    plan[i] = n->plan;
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k]) stored[n->out[k]->id] = !n->out[k]->inlined;
  }
  a->d.stored = stored;
  a->d.plan = plan;
  measure(m, &a->d);
}

/* ---- whether there is anything to do ---- */
static bool is_trained(void *user, Value *v) {
  const bool *const trained = user;
  return trained[v->id];
}

/* By value id: it depends on what a step changes. */
static bool *find_trained(PassCtx *c) {
  const Model *const m = c->model;
  const Graph *const g = m->main;
  bool *const trained = ARENA_ARRAY(c->scratch, bool, m->next_value + 1);
  for (int k = 0; k < m->state.n; k++)
    if (m->state.data[k].kind != STATE_COUNTER && m->state.data[k].input >= 0)
      trained[g->inputs.data[m->state.data[k].input]->id] = true;
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *const n = g->nodes.data[i];
    const bool any = node_any_read(n, is_trained, trained);
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k]) trained[n->out[k]->id] = any;
  }
  return trained;
}

static bool has_frozen_product(const Graph *g, const bool *trained) {
  for (int i = 0; i < g->nodes.n; i++)
    if (node_is_contraction(g->nodes.data[i]) && !trained[g->nodes.data[i]->out[0]->id])
      return true;
  return false;
}

static bool is_state(const Model *m, int input) {
  for (int k = 0; k < m->state.n; k++)
    if (m->state.data[k].input == input) return true;
  return false;
}

/* The input whose first dimension counts samples: the first one of more than one. NULL: there is none. */
static Value *sample_input(const Model *m) {
  int64_t n;
  for (int k = 0; k < m->main->inputs.n; k++) {
    Value *const v = m->main->inputs.data[k];
    if (is_state(m, k) || v->kind != TY_TENSOR || v->rank < 1) continue;
    if (!expr_is_const(v->dims[0], &n) || n > 1) return v;
  }
  return NULL;
}

static bool is_wanted(const PassCtx *c) {
  if (target_has_grids(c->target)) return false;
  return c->sample_blocks > 0 || c->max_arena > 0 || c->model->state.n > 0;
}

/* ---- how many samples ---- */
typedef struct Choice {
  PassCtx *c;
  Decided was;
  Value *input;
  const bool *trained;
  ValueForm *form; /* by value id, as they were */
} Choice;

static void set_forms(const Choice *x, bool as_decided) {
  const Graph *const g = x->c->model->main;
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *const n = g->nodes.data[i];
    for (int k = 0; k < n->n_out; k++) {
      Value *const v = n->out[k];
      if (!v) continue;
      if (as_decided) x->form[v->id] = v->form;
      v->form = !as_decided ? x->form[v->id] : x->was.stored[v->id] ? FORM_STORED : FORM_INLINED;
    }
  }
}

static bool make(const Choice *x, int64_t most, SampleBlocks *b) {
  Model *const m = x->c->model;
  *b = (SampleBlocks){.c = x->c, .m = m, .g = m->main, .a = x->c->scratch, .was = &x->was};
  b->input = x->input;
  b->samples = x->input->dims[0];
  b->most = most;
  b->trained = x->trained;
  set_forms(x, true);
  if (sample_blocks_make(b)) return true;
  set_forms(x, false);
  return false;
}

/* The program with blocks of so many samples; bytes negative: there is none. */
static Decided try_blocks(const Choice *x, int64_t most) {
  SampleBlocks b;
  Decided d = {.bytes = -1};
  if (!make(x, most, &b)) return d;
  const Module *const m = trial_run(x->c, NULL, NULL);
  if (m) measure(m, &d);
  sample_blocks_undo(&b);
  set_forms(x, false);
  return d;
}

/* The most samples that keep the limit, or those that need the least; 0: blocks save nothing. */
static int64_t within(const Choice *x, int64_t first, double limit) {
  int64_t best = 0;
  double least = x->was.bytes;
  for (int64_t most = first; most >= 1; most /= 2) {
    const double got = try_blocks(x, most).bytes;
    if (got < 0 || got >= least) continue;
    best = most;
    least = got;
    if (got <= limit) break;
  }
  return best;
}

/* As long as half the samples need clearly less, for about the same work. */
static int64_t worth(const Choice *x, int64_t first) {
  int64_t best = 0;
  double least = x->was.bytes;
  for (int64_t most = first; most >= 1; most /= 2) {
    const Decided got = try_blocks(x, most);
    if (got.bytes < 0 || got.bytes > 0.85 * least || got.cycles > 1.1 * x->was.cycles) break;
    best = most;
    least = got.bytes;
  }
  return best;
}

static int64_t largest_block(const Choice *x) {
  int64_t n, most = LARGEST;
  if (!expr_is_const(x->input->dims[0], &n)) return most;
  while (most > 1 && 2 * most > n) most /= 2;
  return most;
}

static int64_t choose(const Choice *x) {
  const PassCtx *const c = x->c;
  const double limit = (double)c->max_arena;
  if (c->sample_blocks > 0) return try_blocks(x, c->sample_blocks).bytes < 0 ? 0 : c->sample_blocks;
  if (!c->max_arena) return worth(x, largest_block(x));
  return x->was.bytes <= limit ? 0 : within(x, largest_block(x), limit);
}

/* Who asks for blocks is told where there are none. */
static bool no_blocks(PassCtx *c) {
  const Loc loc = {.file = c->model->file, .node = -1};
  if (c->sample_blocks > 0)
    diag_warning(
        c->model->diag, &loc,
        "--sample-blocks=%lld: no product that is not trained is computed sample by sample "
        "along the first dimension of an input",
        (long long)c->sample_blocks);
  return true;
}

bool pass_sample_blocks(PassCtx *c) {
  Choice x = {.c = c, .input = sample_input(c->model)};
  Asked asked = {.c = c};
  if (!is_wanted(c)) return true;
  x.trained = find_trained(c);
  if (!x.input || !has_frozen_product(c->model->main, x.trained)) return no_blocks(c);
  c->steady_sums = true; /* blocks or not: the number of rows shall not matter */
  if (c->sample_blocks == SAMPLE_BLOCKS_OFF) return true;
  const Module *const m = trial_run(c, note_decided, &asked);
  if (!m || (c->max_arena && module_has_symbols(m))) return true;
  x.was = asked.d;
  x.form = ARENA_ARRAY(c->scratch, ValueForm, c->model->next_value + 1);
  SampleBlocks b;
  const int64_t most = choose(&x);
  c->changed = most > 0 && make(&x, most, &b);
  return c->changed || no_blocks(c);
}
