/* Checkpoints: the state now and of the best epoch, where the run is, and the settings that must be the
 * same for it to go on to the same end (codegen/files/state_file.h). */
#include <math.h>
#include <string.h>
#include "codegen/files/state_file.h"
#include "driver/train/trainer.h"

/* ---- the loop's section: words of 64 bits, then texts and states ---- */
static const char loop_magic[8] = {'B', 'U', 'R', 'N', 'L', 'O', 'O', 'P'};
enum { WORDS = 14, ROW = 6 }; /* of the section, and of a row of the history */

static uint64_t bits(double v) {
  uint64_t u;
  memcpy(&u, &v, sizeof u);
  return u;
}
static double number(uint64_t u) {
  double v;
  memcpy(&v, &u, sizeof v);
  return v;
}

static size_t padded(size_t n) { return (n + 7) / 8 * 8; }

static uint64_t section_bytes(const Trainer *t) {
  return 8 * (WORDS + (uint64_t)t->at.history.n * ROW) + padded(strlen(t->settings)) +
         (uint64_t)t->state_bytes;
}

static void *section(const Trainer *t, Arena *a) {
  const Position *p = &t->at;
  uint64_t *w = arena_alloc(a, section_bytes(t)), *at = w + WORDS;
  memcpy(w, loop_magic, sizeof loop_magic);
  w[1] = (uint64_t)p->history.n, w[2] = strlen(t->settings), w[3] = (uint64_t)p->epoch;
  w[4] = (uint64_t)p->batch, w[5] = (uint64_t)p->step, w[6] = (uint64_t)p->seen;
  w[7] = bits(p->loss_sum), w[8] = bits(p->best), w[9] = (uint64_t)p->best_epoch;
  w[10] = (uint64_t)p->stale, w[11] = bits(p->first_loss), w[12] = bits(p->first_metric);
  w[13] = bits(p->seconds);
  for (int k = 0; k < p->history.n; k++, at += ROW) {
    const Epoch *e = &p->history.data[k];
    at[0] = (uint64_t)e->epoch, at[1] = (uint64_t)e->step, at[2] = bits(e->train_loss);
    at[3] = bits(e->loss), at[4] = bits(e->metric), at[5] = bits(e->seconds);
  }
  memcpy(at, t->settings, strlen(t->settings));
  memcpy((char *)at + padded(strlen(t->settings)), t->best, (size_t)t->state_bytes);
  return w;
}

/* Does the section have the sizes that it says? */
static bool is_section(const uint64_t *w, uint64_t bytes, uint64_t state_bytes) {
  const uint64_t most = bytes / 8;
  if (most < WORDS || memcmp(w, loop_magic, sizeof loop_magic) != 0) return false;
  if (w[1] > most / ROW || w[2] > bytes) return false;
  return 8 * (WORDS + w[1] * ROW) + padded(w[2]) + state_bytes == bytes;
}

static const char *section_settings(const uint64_t *w) {
  return (const char *)(w + WORDS + w[1] * ROW);
}
static const char *section_best(const uint64_t *w) { return section_settings(w) + padded(w[2]); }

/* The section of a file that was read, aligned; NULL: there is none, or it is no section. */
static const uint64_t *find_section(Arena *a, const StateFile *f) {
  const uint64_t *w = arena_dup(a, f->more, f->more_bytes + 1);
  return is_section(w, f->more_bytes, f->state_bytes) ? w : NULL;
}

static void take_position(Trainer *t, const uint64_t *w) {
  const uint64_t *at = w + WORDS;
  Position *p = &t->at;
  p->epoch = (int64_t)w[3], p->batch = (int64_t)w[4], p->step = (int64_t)w[5];
  p->seen = (int64_t)w[6], p->loss_sum = number(w[7]), p->best = number(w[8]);
  p->best_epoch = (int64_t)w[9], p->stale = (int64_t)w[10], p->first_loss = number(w[11]);
  p->first_metric = number(w[12]), p->seconds = number(w[13]);
  for (uint64_t k = 0; k < w[1]; k++, at += ROW)
    vec_push(t->s->arena, &p->history,
             (Epoch){.epoch = (int64_t)at[0],
                     .step = (int64_t)at[1],
                     .train_loss = number(at[2]),
                     .loss = number(at[3]),
                     .metric = number(at[4]),
                     .seconds = number(at[5])});
}

/* ---- files ---- */
static void entries_of(const Trainer *t, Arena *a, StateFile *f) {
  StateEntry *e = ARENA_ARRAY(a, StateEntry, t->step.n_items + 1);
  for (int k = 0; k < t->step.n_items; k++) {
    const TrainItem *i = &t->step.items[k];
    e[k] = (StateEntry){.name = i->name,
                        .kind = (int32_t)i->kind,
                        .dtype = dtype_rows[i->dtype].onnx,
                        .offset = (uint64_t)i->offset,
                        .bytes = (uint64_t)i->bytes};
  }
  f->n = t->step.n_items;
  f->entries = e;
  f->state_bytes = (uint64_t)t->state_bytes;
  f->state = t->state;
}

bool checkpoint_write(Trainer *t) {
  Arena *a = arena_child(t->s->arena);
  Diag *d = diag_new(a);
  Outputs *o = outputs_new(a, d);
  StateFile f = {0};
  entries_of(t, a, &f);
  f.more_bytes = section_bytes(t);
  f.more = section(t, a);
  signals_watch(o);
  const bool ok = state_file_write(o, t->o->checkpoint, &f);
  signals_unwatch();
  if (!ok) {
    progress_clear(t->s);
    diag_print(d, stderr);
    fprintf(stderr, "burin: note: the checkpoint before it is as it was; training goes on\n");
  }
  t->checkpoint_failed = !ok;
  arena_free(a);
  return ok;
}

static bool same_layout(const Trainer *t, Arena *a, const StateFile *read) {
  StateFile own = {0};
  entries_of(t, a, &own);
  return own.state_bytes == read->state_bytes &&
         state_file_layout(a, &own) == state_file_layout(a, read);
}

bool checkpoint_resume(Trainer *t, const char *path) {
  Arena *a = t->s->arena;
  StateFile f;
  if (!state_file_read(a, t->s->diag, path, &f)) return false;
  const uint64_t *w = find_section(a, &f);
  if (!w)
    return dataset_error(
        t->s, path, NULL,
        "holds a state, but not where a run stood: --state=FILE takes it into a model");
  if (!same_layout(t, a, &f))
    return dataset_error(
        t->s, path, NULL,
        "is of another model, or of other parameters, another optimizer or precision");
  const char *settings = arena_strndup(a, section_settings(w), w[2]);
  if (strcmp(settings, t->settings) != 0) {
    dataset_error(t->s, path, NULL, "is of a run with other settings");
    diag_note(t->s->diag, "it has: %s", settings);
    diag_note(t->s->diag, "now:    %s", t->settings);
    return false;
  }
  take_position(t, w);
  if (t->at.batch > t->calls || t->at.epoch < 0 || t->at.batch < 0)
    return dataset_error(t->s, path, NULL, "stands beyond the end of an epoch");
  memcpy(t->state, f.state, (size_t)t->state_bytes);
  memcpy(t->best, section_best(w), (size_t)t->state_bytes);
  return true;
}

/* ---- --state ---- */
bool train_load_state(Session *s, const char *path) {
  StateFile f;
  if (!state_file_read(s->arena, s->diag, path, &f)) return false;
  const uint64_t *w = f.more_bytes ? find_section(s->arena, &f) : NULL;
  const Loc loc = {.file = path, .node = -1};
  TrainItem *items = ARENA_ARRAY(s->arena, TrainItem, f.n + 1);
  for (int k = 0; k < f.n; k++) {
    const StateEntry *e = &f.entries[k];
    items[k] = (TrainItem){.name = e->name,
                           .kind = (StateKind)e->kind,
                           .dtype = dtype_from_onnx(e->dtype),
                           .offset = (int64_t)e->offset,
                           .bytes = (int64_t)e->bytes};
    if (items[k].dtype == DT_NONE)
      return diag_error(s->diag, &loc, ERR_IO, "no usable state file: %s has no type", e->name);
  }
  outputs_protect(s->outputs, path);
  const StateView v = {f.n, items, w ? section_best(w) : f.state};
  return state_into_model(s, &v);
}
