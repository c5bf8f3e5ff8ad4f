/* The list of entry.h. Rows of checks are added in its order; those of steps come behind. */
#include "codegen/host/entry.h"

typedef struct Making {
  const Program *p;
  EntryList list;
} Making;

static void add(Making *m, EntryItem item) { vec_push(m->p->arena, &m->list, item); }

/* ---- options and arguments ---- */
static void add_options(Making *m) {
  const Program *const p = m->p;
  const int most = p->m->max_threads > 1 ? p->m->max_threads : 1;
  const int bad = check_add(p, BURIN_E_ARGUMENT, NULL, "options: their size is not set");
  check_add(p, BURIN_E_ARGUMENT, NULL, "{0} threads: the model was compiled for at most %d", most);
  add(m, (EntryItem){.kind = EN_OPTIONS, .check = bad, .n = most});
}

static void add_arguments(Making *m) {
  static const char *const names[] = {"inputs", "outputs", "sizes"};
  const Program *const p = m->p;
  const int n[] = {p->m->inputs.n, p->m->outputs.n, p->n_symbols};
  for (int i = 0; i < 3; i++) {
    const int check = check_add(p, BURIN_E_ARGUMENT, NULL, "the array of %s is NULL", names[i]);
    if (n[i]) add(m, (EntryItem){.kind = EN_ARGUMENT, .check = check, .k = i});
  }
}

static void add_weights(Making *m) {
  const WeightLayout *const w = &m->p->weights;
  if (!w->external) return;
  const int check =
      check_add(m->p, BURIN_E_WEIGHTS, NULL, "%s is not mapped, or not this model's", w->file);
  add(m, (EntryItem){.kind = EN_WEIGHTS, .check = check, .n = (int64_t)w->hash});
}

/* ---- sizes ---- */
static void add_symbol(Making *m, int id) {
  ExprPool *const pool = m->p->m->model->pool;
  const Symbol *const s = expr_symbol(pool, id);
  const char *const name = check_symbol_text(m->p, id);
  const int low =
      check_add(m->p, BURIN_E_DIMS, NULL, "%s is {0}, the model needs at least {1}", name);
  check_add(m->p, BURIN_E_DIMS, NULL, "%s is {0}, the model takes at most {1}", name);
  add(m, (EntryItem){.kind = EN_SYMBOL,
                     .check = low,
                     .k = id,
                     .n = s->lo > 0 ? s->lo : 0,
                     .e = s->bound && !expr_uses_runtime(pool, s->bound) ? s->bound : NULL});
}

static void add_fits(Making *m, const Expr *bytes, const char *what) {
  int64_t k;
  if (expr_is_const(bytes, &k)) return;
  const int check =
      check_add(m->p, BURIN_E_DIMS, NULL, "%s is larger than this target can address", what);
  add(m, (EntryItem){.kind = EN_FITS, .check = check, .e = bytes});
}

static void add_dims(Making *m) {
  const Program *const p = m->p;
  const Model *const model = p->m->model;
  for (int i = 0; i < p->n_caller; i++) add_symbol(m, p->symbols[i]);
  const int n_io = p->m->inputs.n + p->m->outputs.n;
  for (int i = 0; i < n_io; i++) add_fits(m, program_io_bytes(p, i), program_io_name(p, i));
  add_fits(m, program_arena_bytes(p), "the arena");
  add_fits(m, program_thread_bytes(p), "the arena of a thread");
  for (int i = 0; i < model->assumes.n; i++) {
    const DimAssume *const d = &model->assumes.data[i];
    if (!program_checked_at_entry(p, d)) continue;
    EntryItem item = {.kind = EN_ASSUME, .assume = d};
    item.check = check_assume(p, d, item.values);
    add(m, item);
  }
}

/* ---- defaults ---- */
/* Where another input is given, a default must have the sizes of this run. */
static void add_default_sizes(Making *m, int k) {
  const Program *const p = m->p;
  const Graph *const g = p->m->model->main;
  const ConstData *const d = program_default(p, k);
  for (int i = 0; g && i < d->rank; i++) {
    const Expr *const dim = g->inputs.data[k]->dims[i];
    if (expr_is_i64(dim, d->dims[i])) continue;
    const int check = check_add(p, BURIN_E_DIMS, NULL,
                                "input %s is not given, and its default has size {1} where {0} is "
                                "needed",
                                program_input_name(p, k));
    add(m, (EntryItem){.kind = EN_DEFAULT_SIZE, .check = check, .k = k, .e = dim, .n = d->dims[i]});
  }
}

static void add_defaults(Making *m) {
  const Program *const p = m->p;
  if (!p->defaults) return;
  add(m, (EntryItem){.kind = EN_DEFAULTS});
  for (int k = 0; k < p->m->inputs.n; k++) {
    const Buffer *const b = &p->m->buffers.data[p->m->inputs.data[k]];
    if (!program_default(p, k)) continue;
    const int check =
        b->pinned ? check_add(p, BURIN_E_UNSUPPORTED, NULL,
                              "input %s: sizes were computed from its default when the model was "
                              "compiled, so that no other value can be given",
                              program_input_name(p, k))
                  : -1;
    add(m, (EntryItem){.kind = EN_DEFAULT, .check = check, .k = k});
    add_default_sizes(m, k);
  }
  add(m, (EntryItem){.kind = EN_DEFAULTS_DONE});
}

/* ---- pointers and the arena ---- */
static void add_pointers(Making *m) {
  const Program *const p = m->p;
  const int n = p->m->inputs.n + p->m->outputs.n;
  for (int k = 0; k < n; k++) {
    const Expr *bytes = program_io_bytes(p, k);
    int64_t lo, hi;
    if (k < p->m->inputs.n && model_input_in_place(p->m->model, k))
      bytes = ex_i64(p->m->model->pool, 0); /* it lies in an output */
    const bool some = expr_range(p->m->model->pool, bytes, &lo, &hi) && lo > 0;
    const int check = check_add(p, BURIN_E_ARGUMENT, NULL, "%s is NULL", program_io_name(p, k));
    add(m, (EntryItem){.kind = EN_POINTER, .check = check, .k = k, .e = bytes, .some = some});
  }
}

/* What lies in an output is given as that one. */
static void add_in_place(Making *m) {
  const Program *const p = m->p;
  const Model *const model = p->m->model;
  for (int i = 0; i < model->in_place.n; i++) {
    const InPlace *const x = &model->in_place.data[i];
    const int check = check_add(p, BURIN_E_ARGUMENT, NULL,
                                "input %s lies in the memory of output %s: its pointer must be "
                                "NULL or the same",
                                program_input_name(p, x->input), program_output_name(p, x->output));
    add(m, (EntryItem){.kind = EN_SAME, .check = check, .k = x->input, .n = x->output});
  }
}

static void add_arena(Making *m) {
  const Program *const p = m->p;
  const int null = check_add(p, BURIN_E_ARENA, NULL, "the arena is NULL, {0} bytes are needed");
  check_add(p, BURIN_E_ARENA, NULL, "the arena is not aligned to 64 bytes");
  check_add(p, BURIN_E_ARENA, NULL, "the arena has {0} bytes, {1} are needed for threads: {2}");
  add(m, (EntryItem){.kind = EN_ARENA, .check = null});
}

static void add_heap(Making *m) {
  if (!m->p->uses_heap) return;
  const int check = check_add(m->p, BURIN_E_MEMORY, NULL, "the model needs a heap in its options");
  add(m, (EntryItem){.kind = EN_HEAP, .check = check});
}

EntryList entry_list(const Program *p) {
  Making m = {.p = p};
  add_options(&m);
  add_arguments(&m);
  add_weights(&m);
  add(&m, (EntryItem){.kind = EN_SYMBOLS});
  add_dims(&m);
  add_defaults(&m);
  add_pointers(&m);
  add_in_place(&m);
  add_arena(&m);
  add_heap(&m);
  add(&m, (EntryItem){.kind = EN_STEPS});
  add(&m, (EntryItem){.kind = EN_RESULTS});
  return m.list;
}
