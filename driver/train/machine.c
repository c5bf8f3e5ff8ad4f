/* The programs of a training: the step, the model on the same state, the teacher. Each is made in a
 * session of its own; what outlives it is copied. */
#include <math.h>
#include <string.h>
#include "driver/train/trainer.h"

/* ---- what is known of the model before it becomes a step ---- */
/* Position of the output that the text of the loss names; 0 where it names none. */
static int output_of(const Trainer *t, const Graph *g) {
  const char *colon = t->spec.loss ? strchr(t->spec.loss, ':') : NULL, *comma = NULL;
  if (t->spec.loss) comma = strchr(t->spec.loss, ',');
  if (!colon || (comma && comma < colon)) return 0;
  const size_t n = comma ? (size_t)(comma - colon) - 1 : strlen(colon + 1);
  for (int k = 0; k < g->outputs.n; k++)
    if (strncmp(g->output_names.data[k], colon + 1, n) == 0 && !g->output_names.data[k][n])
      return k;
  return 0;
}

/* A model of a fixed batch takes that; more steps of it make up what --batch asks for. */
static bool take_batch(Trainer *t, const Value *out) {
  int64_t fixed;
  if (!out || out->rank < 1 || !expr_is_const(out->dims[0], &fixed) || fixed < 1) {
    if (t->n_train < t->batch) t->batch = t->n_train;
    return true;
  }
  if (t->o->batch && t->batch % fixed != 0)
    return usage_error("--batch=%lld: the model takes %lld samples at a time: give a multiple",
                       (long long)t->batch, (long long)fixed),
           false;
  const int64_t here = t->n_train < t->batch ? t->n_train : t->batch;
  if (here > fixed) t->spec.accumulate *= (int)(here / fixed);
  t->batch = fixed;
  t->fixed_batch = true;
  return true;
}

/* What a model of a fixed batch cannot take is left out. */
int64_t trainer_calls(const Trainer *t) {
  return (t->n_train + (t->fixed_batch ? 0 : t->batch - 1)) / t->batch;
}

const char *optimizer_ending(Arena *a, const char *text, int64_t steps) {
  const bool open = strstr(text, "schedule=cosine") && !strstr(text, ",steps=");
  return open ? arena_printf(a, "%s,steps=%lld", text, (long long)(steps > 1 ? steps : 1)) : text;
}

void trainer_take_schedule(Trainer *t) {
  const int64_t calls = trainer_calls(t) + t->unlabelled.samples / t->batch;
  t->spec.optimizer = optimizer_ending(t->s->arena, t->o->optimizer ? t->o->optimizer : "adam",
                                       t->epochs * calls / t->spec.accumulate);
}

static bool know_model(Trainer *t, const Model *m) {
  const Graph *g = m->main;
  t->n_inputs = g->inputs.n;
  t->output = output_of(t, g);
  Value *v = g->outputs.n ? g->outputs.data[t->output] : NULL;
  const TrainEnd end = v ? train_end(v) : (TrainEnd){.class_axis = -1};
  t->probabilities = end.sigmoid;
  if (end.class_axis >= 0) t->class_axis = end.class_axis;
  t->model_hash = m->hash ? arena_strdup(t->s->arena, m->hash) : "";
  if (!take_batch(t, v)) return false;
  trainer_take_schedule(t);
  return true;
}

/* ---- the state ---- */
static void copy_items(Trainer *t, const Model *m, Machine *out) {
  Arena *a = t->s->arena;
  out->n_items = m->state.n;
  out->items = ARENA_ARRAY(a, TrainItem, m->state.n + 1);
  out->in = ARENA_ARRAY(a, const void *, m->state.n + 1);
  for (int k = 0; k < m->state.n; k++) {
    const StateItem *i = &m->state.data[k];
    out->items[k] = (TrainItem){.name = arena_strdup(a, i->name),
                                .kind = i->kind,
                                .dtype = m->main->inputs.data[i->input]->dtype,
                                .input = i->input,
                                .output = i->output,
                                .offset = i->offset,
                                .bytes = i->bytes};
  }
}

static void begin_state(Trainer *t, const Model *m, const Machine *of) {
  t->state_bytes = m->state_bytes;
  t->state = library_memory(t->s->arena, (uint64_t)m->state_bytes);
  memset(t->state, 0, (size_t)m->state_bytes);
  for (int k = 0; k < m->state.n; k++) {
    const StateItem *i = &m->state.data[k];
    const TrainItem *item = &of->items[k];
    if (i->initial) memcpy(t->state + i->offset, i->initial->data, (size_t)i->bytes);
    if (i->kind == STATE_PARAMETER) t->parameters += i->bytes / dtype_bytes(item->dtype);
  }
}

static const InitRow *row_named(const InitRows *rows, const char *name) {
  const InitRow *found = NULL;
  for (int k = 0; k < rows->n; k++)
    if (strcmp(rows->data[k].name, name) == 0 && (!found || !found->known)) found = &rows->data[k];
  return found;
}

static void begin_from_scratch(Trainer *t, const InitRows *rows) {
  for (int k = 0; k < t->step.n_items; k++) {
    const TrainItem *i = &t->step.items[k];
    const InitRow *row = row_named(rows, i->name);
    if (i->kind > STATE_STATISTIC) continue;
    if (row && row->known)
      initialise_fill(row, i->dtype, i->bytes / dtype_bytes(i->dtype), (uint64_t)t->seed,
                      t->state + i->offset);
    else
      fprintf(stderr,
              "burin: note: --from-scratch: %s keeps its value: nothing is known of who reads it\n",
              i->name);
  }
}

/* ---- compiling ---- */
typedef struct Making {
  Trainer *t;
  Machine *out;
  bool begins, from_scratch; /* its state is what the run begins with */
} Making;

static bool edit_step(Session *s, void *user) {
  const Making *k = user;
  InitRows rows = {0};
  if (k->from_scratch) initialise_find(s->model, &rows);
  if (!train_step(s->model, &k->t->spec)) return false;
  copy_items(k->t, s->model, k->out);
  if (!k->begins) return true;
  begin_state(k->t, s->model, k->out);
  if (k->from_scratch) begin_from_scratch(k->t, &rows);
  return true;
}

static bool edit_eval(Session *s, void *user) {
  const Making *k = user;
  if (!know_model(k->t, s->model) || !train_eval(s->model, &k->t->spec)) return false;
  copy_items(k->t, s->model, k->out);
  begin_state(k->t, s->model, k->out);
  return true;
}

bool machine_open(Trainer *t, const Library *lib, Machine *m) {
  const Loc loc = {.file = t->s->file, .node = -1};
  if (!runner_open(t->s, lib, t->threads, &m->run)) return false;
  m->n_given = lib->model->n_inputs - m->n_items;
  m->out = ARENA_ARRAY(t->s->arena, void *, lib->model->n_outputs + 1);
  m->run.given = m->out;
  for (int k = 0; k < m->n_items; k++)
    if (m->items[k].input != m->n_given + k)
      return diag_internal(t->s->diag, &loc, "the state's inputs are not the last ones");
  return true;
}

static bool make(const Making *how, const Options *o, GraphEdit edit, const char *what) {
  Trainer *t = how->t;
  Library lib;
  progress_show(t->s, what, 0, 0);
  t->status = library_compile_read(o, t->job->model, edit, (void *)(uintptr_t)how, &lib);
  return t->status == EXIT_OK && machine_open(t, &lib, how->out);
}

bool trainer_make_eval(Trainer *t) {
  const Making how = {.t = t, .out = &t->eval};
  return make(&how, &t->compiling, edit_eval, "compiling the model");
}

/* The sizes that the caller gives are those of the samples, and of the batch. */
static void fix_sizes(const Trainer *t, int64_t batch, Options *o) {
  const BurinModel *m = t->eval.run.lib.model;
  const List given = o->dims;
  o->dims =
      (List){ARENA_ARRAY(t->s->arena, const char *, given.n + m->n_caller_symbols + 1), given.n};
  for (int k = 0; k < given.n; k++) o->dims.v[k] = given.v[k];
  for (int k = 0; k < m->n_caller_symbols; k++)
    for (int i = 0; i < t->data.n; i++) {
      const TrainArray *a = &t->data.arrays[i];
      int d = 0;
      while (d < a->rank && m->inputs[i].dims[d] != -1 - k) d++;
      if (d == a->rank) continue;
      o->dims.v[o->dims.n++] = arena_printf(t->s->arena, "%s=%lld", m->symbols[k],
                                            (long long)(d == a->batch_axis ? batch : a->dims[d]));
      break;
    }
}

/* One program for a whole batch, and one for what is left at the end of an epoch. */
bool trainer_make_step(Trainer *t, bool from_scratch) {
  const int64_t left = t->fixed_batch ? 0 : t->n_train % t->batch;
  const Making how = {.t = t, .out = &t->step, .begins = true, .from_scratch = from_scratch},
               last = {.t = t, .out = &t->rest};
  Options whole = t->compiling, rest = t->compiling;
  t->parameters = 0;
  whole.max_arena = rest.max_arena = t->o->max_arena;
  fix_sizes(t, t->batch, &whole);
  fix_sizes(t, left, &rest);
  return make(&how, &whole, edit_step, "compiling the training step") &&
         (!left || make(&last, &rest, edit_step, "compiling the step of the last samples"));
}

bool trainer_make_teacher(Trainer *t) {
  Library lib;
  progress_show(t->s, "compiling the teacher", 0, 0);
  t->status = library_compile(&t->compiling, t->job->teacher, NULL, NULL, &lib);
  return t->status == EXIT_OK && runner_open(t->s, &lib, t->threads, &t->teacher);
}

/* ---- running ---- */
bool machine_run(Machine *m, char *state, const Tensor *batch) {
  for (int k = 0; k < m->n_items; k++) {
    const TrainItem *i = &m->items[k];
    m->in[k] = state + i->offset;
    if (i->output >= 0) m->out[i->output] = state + i->offset;
  }
  return runner_run(&m->run, batch, m->n_given, m->in, m->n_items);
}

/* ---- measuring ---- */
/* Of the element at `at` of the output, whose axis of classes has `step` elements between two. */
static int64_t largest(const Tensor *t, int64_t at, int64_t classes, int64_t step) {
  int64_t best = 0;
  for (int64_t c = 1; c < classes; c++)
    if (tensor_element(t, at + c * step) > tensor_element(t, at + best * step)) best = c;
  return best;
}

typedef struct Right { /* of how many */
  int64_t right, all;
} Right;

static void count_classes(const Trainer *t, const Tensor *out, const Tensor *labels, Right *r) {
  const int axis = t->class_axis < 0 ? t->class_axis + out->rank : t->class_axis;
  const int64_t ignored = loss_ignored(t->spec.loss);
  int64_t step = 1;
  if (axis < 0 || axis >= out->rank) return;
  for (int d = axis + 1; d < out->rank; d++) step *= out->dims[d];
  const int64_t classes = out->dims[axis];
  for (int64_t k = 0; k < labels->count; k++) {
    const int64_t y = (int64_t)tensor_element(labels, k);
    if (y == ignored) continue;
    r->right += largest(out, k / step * step * classes + k % step, classes, step) == y;
    r->all++;
  }
}

static void count_bits(const Trainer *t, const Tensor *out, const Tensor *labels, Right *r) {
  const double middle = t->probabilities ? 0.5 : 0;
  for (int64_t k = 0; k < labels->count && k < out->count; k++, r->all++)
    r->right += (tensor_element(out, k) > middle) == (tensor_element(labels, k) > 0.5);
}

bool trainer_measure(Trainer *t, char *state, const TrainData *d, const int64_t *rows, int64_t n,
                     Measured *out) {
  const Tensor *outputs = t->eval.run.outputs, *labels = &t->rows_batch[t->n_inputs];
  Right r = {0};
  double sum = 0;
  int64_t done = 0;
  for (int64_t k = 0; k < n; k += t->batch) {
    const int64_t here = n - k < t->batch ? n - k : t->batch;
    if (here < t->batch && d->fixed_batch) break; /* told when the run begins */
    progress_show(t->s, "measuring", (int)(k / t->batch) + 1, (int)((n + t->batch - 1) / t->batch));
    if (!trainer_batch(t, d, rows + k, here) || !machine_run(&t->eval, state, t->rows_batch))
      return false;
    sum += tensor_element(&outputs[0], 0) * (double)here;
    done += here;
    if (t->metric == METRIC_CLASS) count_classes(t, &outputs[1 + t->output], labels, &r);
    if (t->metric == METRIC_BITS) count_bits(t, &outputs[1 + t->output], labels, &r);
  }
  *out = (Measured){done ? sum / (double)done : NAN, r.all ? (double)r.right / (double)r.all : NAN};
  return true;
}
