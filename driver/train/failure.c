/* A loss that is NaN or infinite ends a run. The state in front of that step is found again, by going
 * through the steps since the last good one; then a program that also gives what each node computes
 * tells the first whose result is no number. */
#include <math.h>
#include <string.h>
#include "driver/train/trainer.h"

static int64_t count_of(const TrainItem *i) { return i->bytes / dtype_bytes(i->dtype); }

/* The first parameter or statistic that holds something else than numbers; NULL: none. */
static const TrainItem *broken_item(const Trainer *t) {
  for (int k = 0; k < t->step.n_items; k++) {
    const TrainItem *i = &t->step.items[k];
    for (int64_t e = 0; i->kind <= STATE_STATISTIC && e < count_of(i); e++)
      if (!isfinite(dtype_load_f(i->dtype, t->state + i->offset + e * dtype_bytes(i->dtype))))
        return i;
  }
  return NULL;
}

bool trainer_check_state(Trainer *t) {
  const Loc loc = {.file = t->s->file, .node = -1};
  const TrainItem *item = broken_item(t);
  if (!item) return true;
  diag_error(t->s->diag, &loc, ERR_DATA, "step %lld (epoch %lld) made numbers that are none of %s",
             (long long)t->at.step, (long long)t->at.epoch + 1, item->name);
  return diag_hint(t->s->diag, "a smaller lr, warmup= or clip= in --optimizer may help"), false;
}

/* ---- what the nodes compute ---- */
typedef struct Probe {
  Trainer *t;
  Machine machine;
  int first; /* output of the first node */
  Vec(const char *) nodes;
} Probe;

static bool edit_probe(Session *s, void *user) {
  Probe *p = user;
  Graph *g = s->model->main;
  Arena *a = p->t->s->arena;
  if (!train_eval(s->model, &p->t->spec)) return false;
  p->first = g->outputs.n;
  for (int i = 0; i < g->nodes.n; i++)
    for (int k = 0; k < g->nodes.data[i]->n_out; k++) {
      const Node *n = g->nodes.data[i];
      Value *v = n->out[k];
      if (!v || v->kind != TY_TENSOR || !dtype_is_float(v->dtype) || v->rank < 0) continue;
      vec_push(s->model->arena, &g->outputs, v);
      vec_push(s->model->arena, &g->output_names,
               arena_printf(s->model->arena, "probe %d", p->nodes.n));
      const char *name = n->loc && n->loc->node_name ? n->loc->node_name : "";
      vec_push(a, &p->nodes, arena_printf(a, "%s%s%s", n->op->name, *name ? " " : "", name));
    }
  p->machine.n_items = s->model->state.n;
  return true;
}

static bool is_finite(const Tensor *t) {
  for (int64_t k = 0; k < t->count; k++)
    if (!isfinite(tensor_element(t, k))) return false;
  return true;
}

/* The node's operator and name; NULL: none was found, or the program could not be made. */
static const char *broken_node(Trainer *t) {
  Probe p = {.t = t};
  Library lib;
  const char *found = NULL;
  if (library_compile_read(&t->compiling, t->job->model, edit_probe, &p, &lib) != EXIT_OK)
    return NULL;
  p.machine.items = t->eval.items;
  p.machine.in = t->eval.in;
  if (machine_open(t, &lib, &p.machine) && machine_run(&p.machine, t->state, t->rows_batch))
    for (int k = 0; k < p.nodes.n && !found; k++)
      if (!is_finite(&p.machine.run.outputs[p.first + k])) found = p.nodes.data[k];
  if (p.machine.run.lib.model) runner_close(&p.machine.run);
  return found;
}

/* The state is that in front of the step `failed`, its batch is t->rows_batch. */
static bool go_back(Trainer *t, int64_t failed) {
  double loss;
  memcpy(t->state, t->good, (size_t)t->state_bytes);
  t->at = t->good_at;
  while (t->at.step < failed - 1) {
    progress_show(t->s, "looking for where it comes from", (int)(t->at.step - t->good_at.step),
                  (int)(failed - t->good_at.step));
    if (!trainer_call(t, &loss)) return false;
  }
  int64_t n;
  return trainer_step_batch(t, &n);
}

bool trainer_report_failure(Trainer *t, double loss) {
  const Loc loc = {.file = t->s->file, .node = -1};
  const int64_t step = t->at.step, batch = t->at.batch;
  const char *what = isnan(loss) ? "NaN" : "infinite", *why = "", *name = "";
  if (!go_back(t, step)) return false;
  const TrainItem *item = broken_item(t);
  if (item) {
    why = ": the step before made numbers that are none of ";
    name = item->name;
  } else if ((name = broken_node(t))) {
    why = ": the first result that is no number is that of ";
  } else {
    name = "";
  }
  progress_clear(t->s);
  diag_error(t->s->diag, &loc, ERR_DATA, "the loss is %s in step %lld (epoch %lld, batch %lld)%s%s",
             what, (long long)step, (long long)t->at.epoch + 1, (long long)batch, why, name);
  if (item) diag_hint(t->s->diag, "a smaller lr, warmup= or clip= in --optimizer may help");
  if (t->o->checkpoint && t->good_at.history.n)
    diag_note(t->s->diag, "%s is as it was before: the last good state", t->o->checkpoint);
  return false;
}
