/* Pruning in rounds: each finds what matters least, removes it, holds the result against the original
 * with the same channels silenced, and measures. Between rounds a model is a file in memory. */
#include "driver/prune/prune.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "driver/prune/pruner.h"
#include "driver/session/work.h"
#include "frontend/export/export.h"
#include "ir/base/words.h"

/* ---- options ---- */
static bool read_real(const char *option, const char *text, double lo, double hi, double *out) {
  char *end;
  if (!text) return true;
  *out = strtod(text, &end);
  return (end != text && !*end && *out >= lo && *out <= hi) ||
         (usage_error("%s: '%s' is no number from %g to %g", option, text, lo, hi), false);
}

/* Without --epochs nothing is trained. */
static bool trains_nothing(const Options *o) {
  const struct {
    const char *name, *text;
  } options[] = {{"optimizer", o->optimizer},   {"trainable", o->trainable},
                 {"accumulate", o->accumulate}, {"batch", o->batch},
                 {"patience", o->patience},     {"augment", o->augment},
                 {"unlabelled", o->unlabelled}};
  for (size_t k = 0; k < sizeof options / sizeof *options; k++)
    if (options[k].text)
      return usage_error("--%s is of training: it needs --epochs=N", options[k].name), false;
  return true;
}

static bool read_options(Pruner *z) {
  static const char *const importances[] = {"gradient", "magnitude", "fisher", "reconstruction"},
                           *const objectives[] = {"latency", "macs", "params"},
                           *const scopes[] = {"model", "layer"};
  const Options *o = z->s->o;
  const bool channels = !o->sparsity && !o->nm;
  int importance = o->data && channels ? IMPORTANCE_RECONSTRUCTION
                   : o->labels         ? IMPORTANCE_GRADIENT
                                       : IMPORTANCE_MAGNITUDE,
      objective = o->sparsity ? OBJECTIVE_PARAMS : OBJECTIVE_MACS;
  int scope = -1;
  z->share = 0.5;
  z->max_drop = INFINITY;
  z->rounds = 5;
  if (!args_choice("--importance", o->importance, importances, 4, &importance) ||
      !args_choice("--objective", o->objective, objectives, 3, &objective) ||
      !args_choice("--scope", o->scope, scopes, 2, &scope) ||
      !read_real("--channels", o->channels, 0.01, 1, &z->share) ||
      !read_real("--max-drop", o->max_drop, 0, 1e9, &z->max_drop) ||
      (o->rounds && !args_number("--rounds", o->rounds, 1, 1000, &z->rounds)) ||
      (o->epochs && !args_number("--epochs", o->epochs, 0, 1000000, &z->epochs)) ||
      (o->repeat && !args_number("--repeat", o->repeat, 1, 1000000, &z->repeat)) ||
      !pruner_read_masks(z) || !metric_find(o->metric, o->labels != NULL, &z->metric))
    return false;
  z->importance = (Importance)importance;
  z->objective = (Objective)objective;
  if (scope < 0) scope = z->importance != IMPORTANCE_RECONSTRUCTION; /* it compares layers well */
  z->by_layer = scope == 1;
  if (o->labels && !o->data) return usage_error("--labels is an array of --data=DATA"), false;
  if (z->importance == IMPORTANCE_RECONSTRUCTION && (!o->data || !channels))
    return usage_error(
               "--importance=reconstruction is of channels, by samples: it needs "
               "--data=DATA.npz, and not --sparsity or --nm"),
           false;
  if ((z->importance == IMPORTANCE_GRADIENT || z->importance == IMPORTANCE_FISHER) && !o->labels)
    return usage_error("--importance=%s follows a loss: it needs --data=DATA.npz --labels=NAME",
                       importances[importance]),
           false;
  if (z->max_drop < INFINITY && !o->data)
    return usage_error("--max-drop needs samples: --data=DATA.npz"), false;
  if (z->epochs > 0 && !o->labels)
    return usage_error("--epochs trains: it needs --data=DATA.npz --labels=NAME"), false;
  return z->epochs > 0 || trains_nothing(z->asked);
}

/* ---- a model behind the passes ---- */
PruneRelation *pruner_relate(Session *s) {
  s->passes = PRUNE_PASSES;
  const bool ok = session_passes(s, 0);
  s->passes = NULL;
  if (!ok) return NULL;
  export_name_nodes(s->model); /* by names the next round finds layers again */
  PruneRelation *r = prune_relate(s->model, s->arena);
  prune_find_groups(r);
  if (s->o->only) prune_only(r, s->o->only);
  return r;
}

static void count_figures(const Pruner *z, const PruneRelation *r, Figures *f) {
  const double *work = pruner_macs(z, r);
  f->parameters = f->macs = 0;
  for (int i = 0; i < r->m->main->nodes.n; i++) f->macs += work[i];
  for (int s = 0; s < r->slots.n; s++) {
    const ConstData *w = r->slots.data[s].value->cdata;
    bool first = w != NULL;
    for (int k = 0; first && k < s; k++) first = r->slots.data[k].value->cdata != w;
    if (first && dtype_is_float(w->dtype)) f->parameters += (double)w->count;
  }
}

/* ---- a round ---- */
typedef struct Cutting {
  Pruner *z;
  const char *out;
  double share; /* of the original's channels that stay */
  Round *round;
  int64_t gone;
  Figures figures;
} Cutting;

/* The nth of a name. */
static LayerCut *layer_named(const Pruner *z, const char *name, int nth) {
  for (int k = 0; k < z->layers.n; k++)
    if (z->layers.data[k].before && strcmp(z->layers.data[k].name, name) == 0 && nth-- == 0)
      return &z->layers.data[k];
  return NULL;
}

static const LayerCut *layer_of(const Pruner *z, const PruneRelation *r, int group) {
  const char *name = r->groups.data[group].name;
  int nth = 0;
  for (int k = 0; k < group; k++) nth += strcmp(r->groups.data[k].name, name) == 0;
  return layer_named(z, name, nth);
}

/* What the round left of the original's groups. */
static void update_layers(Pruner *z, const Round *round) {
  for (int k = 0; k < round->n_groups; k++) {
    int nth = 0;
    for (int i = 0; i < k; i++) nth += strcmp(round->names[i], round->names[k]) == 0;
    LayerCut *l = layer_named(z, round->names[k], nth);
    if (l) l->after = round->left[k];
  }
}

/* Blocks of as many channels as a vector has, of fewer where that would be too coarse. */
static int64_t grain_of(const Pruner *z, const PruneGroup *g, int64_t all) {
  enum { FEWEST_BLOCKS = 4 };
  int64_t grain = 1;
  while (grain * 2 * g->width <= z->lanes && grain * 2 * FEWEST_BLOCKS <= all) grain *= 2;
  return grain;
}

/* In every group a part of what is wanted on the whole stays; or just what is wanted. A layer that begins
 * with another node than in the original keeps what it has. */
static PruneLimit limit_of(const Pruner *z, const PruneRelation *r, int group, double share) {
  static const double floor_part = 0.6;
  const PruneGroup *g = &r->groups.data[group];
  const LayerCut *l = layer_of(z, r, group);
  if (!l) {
    diag_warning(r->m->diag, &(Loc){.file = z->original, .node = -1},
                 "the channels of %s are no layer of the original, and stay", g->name);
    return (PruneLimit){.least = g->units.n, .grain = 1};
  }
  PruneLimit limit = {.grain = grain_of(z, g, l->before)};
  const double all = (double)l->before;
  limit.least = z->by_layer ? llround(share * all / (double)limit.grain) * limit.grain
                            : (int64_t)ceil(floor_part * z->share * all);
  if (limit.least < 1) limit.least = 1;
  return limit;
}

/* Nothing is measured where nothing can go. */
static bool choose(Pruner *z, PruneRelation *r, Cutting *p) {
  double *cost = ARENA_ARRAY(r->a, double, r->groups.n + 1);
  PruneLimit *limits = ARENA_ARRAY(r->a, PruneLimit, r->groups.n + 1);
  const int64_t stay = z->by_layer ? 0 : llround(p->share * (double)z->before.channels),
                wanted = z->channels - stay;
  for (int k = 0; k < r->groups.n; k++) limits[k] = limit_of(z, r, k, p->share);
  if (!prune_any_goes(r, limits, wanted)) return true;
  if (!pruner_score(z, r)) return false;
  const double *work = z->objective == OBJECTIVE_LATENCY ? pruner_times(z, r) : pruner_macs(z, r);
  if (!work) return false;
  if (z->objective == OBJECTIVE_PARAMS)
    prune_cost_weights(r, cost);
  else
    prune_costs(r, work, cost);
  p->gone = prune_choose(r, cost, limits, wanted);
  return true;
}

static int cut_body(Session *s, void *user) {
  Cutting *p = user;
  Pruner *z = p->z;
  PruneRelation *r;
  PruneFits fits = {0};
  if (!session_target(s) || !session_load(s, z->file) || !(r = pruner_relate(s)))
    return session_status(s, EXIT_OK);
  if (!choose(z, r, p)) return session_status(s, z->status);
  if (p->gone == 0) return EXIT_OK;
  pruner_note_cut(z, r, p->round);
  if (!pruner_rebuild(z, r, &fits)) return session_status(s, z->status);
  if (!prune_cut(r)) return session_status(s, EXIT_OK);
  PruneRelation *after = pruner_relate(s);
  if (!after) return session_status(s, EXIT_OK);
  count_figures(z, after, &p->figures);
  if (!session_write_onnx(s, p->out) || !session_commit(s)) return session_status(s, EXIT_OK);
  return pruner_check(z, r, &fits, p->out, &p->round->difference) ? EXIT_OK
                                                                  : session_status(s, z->status);
}

/* A smaller model at `path`. False: reported. *gone: channels that are not in it. */
static bool cut(Pruner *z, int k, const char *path, Round *round, int64_t *gone) {
  Options quiet = z->options;
  const double part = (double)(k + 1) / (double)z->rounds;
  Cutting p = {.z = z, .out = path, .round = round, .share = 1 - (1 - z->share) * part};
  z->status = session_run(&quiet, cut_body, &p);
  round->figures = p.figures;
  round->figures.channels = z->channels - p.gone;
  *gone = p.gone;
  return z->status == EXIT_OK;
}

static bool mask(Pruner *z, int k, const char *path, Round *round) {
  round->figures = z->before;
  return pruner_mask(z, z->sparsity * (double)(k + 1) / (double)z->rounds, path, round);
}

/* False: reported. *more: the next round may be. */
static bool one_round(Pruner *z, int k, bool *more) {
  const char *path;
  int fd;
  int64_t gone = 0;
  const bool masks = pruner_masks(z);
  if (!program_memory(z->s->arena, &fd, &path)) return false;
  vec_push(z->s->arena, &z->done, (Round){.difference = NAN});
  Round *round = &z->done.data[z->done.n - 1];
  if (masks ? !mask(z, k, path, round) : !cut(z, k, path, round, &gone)) return false;
  *more = true;
  if (!masks && gone == 0)
    return z->done.n--, true; /* whole blocks go: a later round may have one */
  if (!pruner_measure(z, path, &round->figures)) return false;
  round->cut_drop = round->drop = pruner_drop(z, &round->figures);
  if (!pruner_recover(z, round, &path)) return false;
  round->undone = round->drop > z->max_drop;
  *more = !round->undone;
  if (round->undone) return true;
  z->file = path;
  z->channels -= gone;
  update_layers(z, round);
  if (masks) z->weights = round->weights;
  return true;
}

/* ---- the whole ---- */
static bool copy_result(Pruner *z) {
  size_t n;
  const char *bytes = frontend_read_file(z->s->arena, z->s->diag, z->file, &n);
  OutFile *f = bytes ? outputs_add(z->s->outputs, z->s->o->output, false) : NULL;
  return f && outputs_write(z->s->outputs, f, bytes, n);
}

/* Each word of --only is of some layer. */
static bool check_only(const Pruner *z, PruneRelation *r) {
  const char *only = z->s->o->only;
  if (!only) return true;
  if (words_split(r->a, only).n == 0)
    return usage_error("--only: '%s' names no layer", only), false;
  PruneRelation *all = prune_relate(r->m, r->a);
  prune_find_groups(all);
  const char *none = prune_only(all, only);
  if (none) usage_error("--only: '%s' is no layer that channels can be removed of", none);
  return !none;
}

static void protect(const Pruner *z, const char *text) {
  outputs_protect(z->s->outputs, text ? data_path(z->s->arena, text) : NULL);
}

/* That nothing is in the way of what is written at the end is known before the first round. */
static bool check_outputs(const Pruner *z) {
  const Options *o = z->s->o;
  const char *const paths[] = {o->output, o->report};
  outputs_protect(z->s->outputs, z->original);
  protect(z, o->data);
  protect(z, o->validation);
  protect(z, o->unlabelled);
  return outputs_try(z->s->outputs, 2, paths);
}

static bool prepare(Pruner *z) {
  Session *s = z->s;
  if (!session_target(s) || !session_load(s, z->original) || !session_has_data(s)) return false;
  if (!check_outputs(z)) return false;
  if (s->module)
    return usage_error("pruning needs a graph, and %s is the text of a program", z->original),
           false;
  PruneRelation *r = pruner_relate(s);
  if (!r || !check_only(z, r)) return false;
  z->lanes = s->target->vector_bits / 32;
  if (!pruner_masks(z)) pruner_note_layers(z, r);
  for (int k = 0; k < r->groups.n; k++) z->channels += r->groups.data[k].units.n;
  if (!pruner_read_samples(z, s->model) || !pruner_take_reference(z) || !pruner_check_recovery(z))
    return false;
  count_figures(z, r, &z->before);
  z->before.channels = z->channels;
  return pruner_measure(z, z->file, &z->before);
}

static bool anything_to_do(Pruner *z) {
  const Loc loc = {.file = z->original, .node = -1};
  if (pruner_masks(z)) return pruner_warn_of_masks(z);
  if (z->before.channels == 0)
    diag_warning(z->s->diag, &loc, "no channels can be removed; the report says why");
  return z->before.channels > 0;
}

static bool prune(Pruner *z) {
  if (!read_options(z) || !prepare(z)) return false;
  if (pruner_masks(z) && !pruner_zeros(z, z->original, &z->at_first)) return false;
  z->weights = z->at_first;
  bool more = anything_to_do(z);
  for (int k = 0; k < z->rounds && more; k++)
    if (!one_round(z, k, &more)) return false;
  progress_clear(z->s);
  return pruner_report(z) && copy_result(z) && session_commit(z->s);
}

static int prune_body(Session *s, void *user) {
  const char *file = s->o->files.v[0];
  Pruner z = {.s = s, .asked = user, .options = *s->o, .original = file, .file = file};
  z.options.quiet = true;
  z.options.freeze = true;
  z.options.title = file;
  return prune(&z) ? EXIT_OK : session_status(s, z.status);
}

int verb_prune(const Options *o) {
  Options own = *o;
  if (o->files.n != 1)
    return usage_error(o->files.n ? "more than one model is given"
                                  : "no model is given; try 'burin prune --help'");
  if (!o->output) return usage_error("an ONNX file needs a name: -o OUT.onnx");
  own.freeze = true; /* weights that callers may replace cannot be cut */
  own.train = own.optimizer = own.trainable = own.accumulate = NULL; /* of recovery alone */
  return session_run(&own, prune_body, (void *)(uintptr_t)o);
}
