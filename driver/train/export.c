/* Parameters and statistics back into the model that they came from, and that as an ONNX file. */
#include <string.h>
#include "driver/train/trainer.h"

/* The item's elements as the model has them. */
static const void *elements(Session *s, const TrainItem *i, const char *state, const ConstData *c) {
  const char *from = state + i->offset;
  const int bytes = dtype_bytes(c->dtype), wide = dtype_bytes(i->dtype);
  char *to = arena_alloc(s->model->arena, (size_t)(c->count * bytes) + 1);
  if (i->dtype == c->dtype) return memcpy(to, from, (size_t)(c->count * bytes));
  for (int64_t k = 0; k < c->count; k++)
    dtype_store_f(c->dtype, to + k * bytes, dtype_load_f(i->dtype, from + k * wide));
  return to;
}

static bool put_item(Session *s, const TrainItem *i, const char *state) {
  const Loc loc = {.file = s->file, .node = -1, .node_name = i->name};
  int found = 0;
  if (!dtype_is_float(i->dtype))
    return diag_error(s->diag, &loc, ERR_DATA, "is of %s in the state, which no parameter is",
                      dtype_text(i->dtype));
  for (int k = 0; k < s->model->consts.n; k++) {
    ConstData *c = s->model->consts.data[k];
    if (!c->name || strcmp(c->name, i->name) != 0 || !dtype_is_float(c->dtype)) continue;
    if (c->count * dtype_bytes(i->dtype) != i->bytes)
      return diag_error(s->diag, &loc, ERR_DATA, "has %lld elements here, and %lld in the state",
                        (long long)c->count, (long long)(i->bytes / dtype_bytes(i->dtype)));
    c->data = elements(s, i, state, c);
    found++;
  }
  return found || diag_error(s->diag, &loc, ERR_DATA, "the model has no such initializer");
}

bool state_into_model(Session *s, const StateView *v) {
  for (int k = 0; k < v->n; k++)
    if (v->items[k].kind <= STATE_STATISTIC && !put_item(s, &v->items[k], v->state)) return false;
  return true;
}

Options train_plain(const Options *o) {
  Options own = *o;
  own.train = own.optimizer = own.trainable = own.accumulate = own.labels = own.report = NULL;
  own.precision = own.max_arena = NULL; /* of steps alone */
  return own;
}

typedef struct Export {
  const char *model, *out;
  const StateView *v;
} Export;

static int export_body(Session *s, void *user) {
  const Export *e = user;
  if (!session_target(s) || !session_load(s, e->model) || !session_has_data(s))
    return session_status(s, EXIT_OK);
  s->passes = "infer";
  return state_into_model(s, e->v) && session_passes(s, 0) && session_write_onnx(s, e->out) &&
                 session_commit(s)
             ? EXIT_OK
             : session_status(s, EXIT_OK);
}

int train_export(const Options *o, const char *model, const StateView *v, const char *out) {
  Options own = train_plain(o);
  Export e = {model, out, v};
  own.quiet = own.freeze = true;
  return session_run(&own, export_body, &e);
}
