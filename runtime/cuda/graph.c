/* Graphs of launches. A model whose steps depend on sizes and addresses alone launches the same
 * kernels again and again: in the second run with the same ones, launches are recorded beside being
 * made; from the third on, one call makes them all. */
#include "runtime/cuda/device.h"

static void fill_key(Device *d, const int64_t *dims, int32_t n_dims) {
  const int32_t n = d->n_in + d->n_out;
  for (int32_t i = 0; i < n_dims; i++) d->key[i] = dims[i];
  for (int32_t i = 0; i < n; i++) d->key[n_dims + i] = (int64_t)d->border[i].device;
  for (int32_t i = 0; i < d->control_words; i++) d->key[n_dims + n + i] = d->controls[i];
}

static bool same_key(const Device *d, const Graph *g) {
  for (int32_t i = 0; i < d->key_words; i++)
    if (g->key[i] != d->key[i]) return false;
  return true;
}

static Graph *find_graph(Device *d) {
  for (int i = 0; i < GRAPHS; i++)
    if (d->graphs[i].used && same_key(d, &d->graphs[i])) return &d->graphs[i];
  return NULL;
}

static void drop_graph(Device *d, Graph *g) {
  if (g->run && d->queued) d->cu.event_wait(d->done); /* it may be what still runs */
  if (g->run) d->cu.graph_exec_destroy(g->run);
  *g = (Graph){.key = g->key, .syms = g->syms};
}

static void note_key(Device *d) { /* in place of the oldest */
  Graph *const g = &d->graphs[d->next_graph];
  d->next_graph = (d->next_graph + 1) % GRAPHS;
  drop_graph(d, g);
  g->used = true;
  for (int32_t i = 0; i < d->key_words; i++) g->key[i] = d->key[i];
}

bool graph_replay(Device *d, const int64_t *dims, int32_t n_dims) {
  if (!d->model->replayable || !d->controls_known || d->options->kernel_ns) return false;
  fill_key(d, dims, n_dims);
  Graph *const g = find_graph(d);
  if (!g) return note_key(d), false;
  if (g->run) {
    for (int32_t i = 0; i < d->n_syms; i++) d->syms[i] = g->syms[i];
    return device_check(d, d->cu.graph_launch(g->run, d->on), "launching a graph");
  }
  /* where the host reads it waits, on another stream than the one that is captured */
  const int32_t mode = d->model->n_controls ? CU_CAPTURE_RELAXED : CU_CAPTURE_THREAD_LOCAL;
  if (!g->refused && d->cu.capture_begin(d->recorder, mode) == 0) d->recording = g;
  d->n_recorded = 0;
  return false;
}

bool graph_records(Device *d) {
  if (!d->recording || d->recording->refused) return false;
  if (++d->n_recorded > MOST_RECORDED) d->recording->refused = true;
  return !d->recording->refused;
}

void graph_finish(Device *d, bool whole) {
  CuGraph graph = NULL;
  Graph *const g = d->recording;
  if (!g) return;
  d->recording = NULL;
  const bool recorded = d->cu.capture_end(d->recorder, &graph) == 0 && graph;
  const bool usable = recorded && whole && !g->refused;
  const bool made = usable && d->cu.graph_instantiate(&g->run, graph, 0) == 0;
  if (!made) {
    g->run = NULL;
    g->refused = true;
  }
  for (int32_t i = 0; made && i < d->n_syms; i++) g->syms[i] = d->syms[i];
  if (graph) d->cu.graph_destroy(graph);
}

void graph_drop_all(Device *d) {
  for (int i = 0; i < GRAPHS; i++) drop_graph(d, &d->graphs[i]);
}
