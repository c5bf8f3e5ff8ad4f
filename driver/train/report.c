/* --report: the figures of a run, as text or JSON. */
#include <math.h>
#include <stdlib.h>
#include "driver/io/json.h"
#include "driver/train/trainer.h"

static json_t *epochs_json(const Trainer *t) {
  json_t *all = json_array();
  for (int k = 0; k < t->at.history.n; k++) {
    const Epoch *e = &t->at.history.data[k];
    json_array_append_new(
        all,
        json_pack("{s:I, s:I, s:o, s:o, s:o, s:f}", "epoch", (json_int_t)e->epoch, "step",
                  (json_int_t)e->step, "loss", json_finite(e->train_loss), "validation_loss",
                  json_finite(e->loss), "accuracy", json_finite(e->metric), "seconds", e->seconds));
  }
  return all;
}

static char *as_json(const Trainer *t, const TrainResult *r) {
  json_t *root = json_pack(
      "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:f, s:o}", "model",
      t->job->model, "settings", t->settings, "samples", (json_int_t)r->samples, "validation",
      (json_int_t)r->validation, "parameters", (json_int_t)r->parameters, "state_bytes",
      (json_int_t)r->state_bytes, "arena_bytes", (json_int_t)r->arena_bytes, "steps",
      (json_int_t)r->steps, "epochs", (json_int_t)r->epochs, "best_epoch",
      (json_int_t)r->best_epoch, "loss", json_finite(r->loss), "accuracy", json_finite(r->metric),
      "first_loss", json_finite(r->first_loss), "first_accuracy", json_finite(r->first_metric),
      "seconds", r->seconds, "history", epochs_json(t));
  char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(root);
  return text;
}

static void as_text(const Trainer *t, const TrainResult *r, StrBuf *b) {
  sb_printf(b, "%s\n%s\n", t->job->model, t->settings);
  sb_printf(b, "samples     %lld, and %lld to measure\n", (long long)r->samples,
            (long long)r->validation);
  sb_printf(b, "parameters  %lld, state %.1f MB, arena of a step %.1f MB\n",
            (long long)r->parameters, (double)r->state_bytes / 1e6, (double)r->arena_bytes / 1e6);
  sb_printf(b, "best        epoch %lld of %lld, loss %.6g (before: %.6g)\n",
            (long long)r->best_epoch, (long long)r->epochs, r->loss, r->first_loss);
  if (isfinite(r->metric))
    sb_printf(b, "accuracy    %.2f %% (before: %.2f %%)\n", 100 * r->metric, 100 * r->first_metric);
  sb_printf(b, "time        %.1f s, %lld steps\n", r->seconds, (long long)r->steps);
}

bool report_write(Trainer *t, const TrainResult *r) {
  const char *path = t->o->report;
  const Loc loc = {.file = path, .node = -1};
  StrBuf b = {.arena = t->s->arena};
  if (!path) return true;
  if (ends_with(path, ".json")) {
    char *text = as_json(t, r);
    if (!text)
      return diag_error(t->s->diag, &loc, ERR_OUTPUT,
                        "the report cannot be JSON: is a name not UTF-8?");
    sb_printf(&b, "%s\n", text);
    free(text);
  } else {
    as_text(t, r, &b);
  }
  OutFile *f = outputs_add(t->s->outputs, path, false);
  return f && outputs_write(t->s->outputs, f, sb_str(&b), (size_t)b.n);
}
