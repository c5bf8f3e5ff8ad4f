/* Figures of the epochs: lines on the standard output, --log, --curve. The files are written again
 * behind each epoch, so that they can be looked at while a run goes on. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "driver/train/trainer.h"

static void put_number(FILE *f, const char *name, double v) {
  if (!isnan(v)) fprintf(f, "  %s %.4f", name, v);
}

void history_print(const Trainer *t, const Epoch *e) {
  printf("epoch %*lld", t->epochs > 99 ? 3 : 2, (long long)e->epoch);
  put_number(stdout, "loss", e->train_loss);
  put_number(stdout, "validation loss", e->loss);
  if (!isnan(e->metric)) printf("  accuracy %6.2f %%", 100 * e->metric);
  printf("  %.1f s%s\n", e->seconds, t->at.best_epoch == e->epoch ? "  best" : "");
  fflush(stdout);
}

static void put_cell(StrBuf *b, double v) {
  if (isnan(v))
    sb_putc(b, ',');
  else
    sb_printf(b, ",%.9g", v);
}

static void table(const Trainer *t, StrBuf *b) {
  sb_printf(b, "epoch,step,loss,validation_loss,accuracy,seconds\n");
  for (int k = 0; k < t->at.history.n; k++) {
    const Epoch *e = &t->at.history.data[k];
    sb_printf(b, "%lld,%lld", (long long)e->epoch, (long long)e->step);
    put_cell(b, e->train_loss);
    put_cell(b, e->loss);
    put_cell(b, e->metric);
    sb_printf(b, ",%.3f\n", e->seconds);
  }
}

/* A stream gets it once, at the end. */
static bool is_due(const char *path, bool last) {
  struct stat st;
  if (!path || last) return path != NULL;
  return strcmp(path, "-") != 0 && (stat(path, &st) != 0 || S_ISREG(st.st_mode));
}

static bool write_table(Trainer *t, Session *s) {
  StrBuf b = {.arena = s->arena};
  table(t, &b);
  OutFile *f = outputs_add(s->outputs, t->o->log, false);
  return f && outputs_write(s->outputs, f, sb_str(&b), (size_t)b.n);
}

static bool write_curve(Trainer *t, Session *s) {
  Tensor picture;
  curve_draw(t, s->arena, &picture);
  OutFile *f = outputs_add(s->outputs, t->o->curve, false);
  return f && png_write(s, t->o->curve, f, &picture, 1);
}

/* In a session that ends with it: what these files take is not kept, and their faults are not those of
 * the run. */
bool history_write(Trainer *t, bool last) {
  Session s = *t->s;
  s.arena = arena_child(t->s->arena);
  s.diag = diag_new(s.arena);
  s.outputs = outputs_new(s.arena, s.diag);
  signals_watch(s.outputs);
  bool ok = (!is_due(t->o->log, last) || write_table(t, &s)) &&
            (!is_due(t->o->curve, last) || write_curve(t, &s)) && outputs_commit(s.outputs);
  if (!ok && last) diag_print(s.diag, stderr);
  outputs_abort(s.outputs);
  signals_unwatch();
  arena_free(s.arena);
  return ok;
}
