/* What pruning did: a table on stderr, and text or JSON in the file of --report. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "driver/io/json.h"
#include "driver/prune/pruner.h"

/* ---- what is noted on the way ---- */
static bool in_group(const PruneRelation *r, int slot, int dim) {
  for (int k = 0; k < r->units.n; k++) {
    const PruneUnit *u = &r->units.data[k];
    for (int i = 0; u->group >= 0 && i < u->touches.n; i++)
      if (u->touches.data[i].slot == slot && u->touches.data[i].dim == dim) return true;
  }
  return false;
}

static bool is_summed(const PruneRelation *r, int slot, int dim) {
  for (int k = 0; k < r->products.n; k++)
    if (r->products.data[k].slot == slot && r->products.data[k].dim == dim) return true;
  return false;
}

/* Layers whose channels stay: of each product with constant weights the dimension that its results have. */
static void note_frozen(Pruner *z, const PruneRelation *r, int node) {
  const Node *n = r->m->main->nodes.data[node];
  for (int k = 0; k < n->n_in && k < 2; k++) {
    const int s = prune_slot(r, node, k);
    if (!n->in[k] || !n->in[k]->cdata || n->in[k]->rank < 2) continue;
    for (int d = 0; d < n->in[k]->rank; d++) {
      const bool conv = strstr(n->op->name, "Conv") != NULL,
                 cell = !(n->op->flags & OF_CONTRACTION),
                 spatial = n->in[k]->rank > 2 && ((conv && d >= 2) || (cell && d == 0));
      if (spatial || !prune_size(r, s, d) || is_summed(r, s, d) || in_group(r, s, d)) continue;
      vec_push(z->s->arena, &z->layers,
               (LayerCut){.name = node_title(z->s->arena, n), .reason = prune_why_frozen(r, s, d)});
      return;
    }
  }
}

void pruner_note_layers(Pruner *z, const PruneRelation *r) {
  for (int k = 0; k < r->groups.n; k++)
    vec_push(z->s->arena, &z->layers,
             (LayerCut){.name = r->groups.data[k].name,
                        .before = r->groups.data[k].units.n,
                        .after = r->groups.data[k].units.n});
  for (int i = 0; i < r->m->main->nodes.n; i++)
    if (prune_multiplies(r, r->nodes[i])) note_frozen(z, r, i);
}

static void note_constant(Pruner *z, const PruneRelation *r, const bool *gone, int slot, int dim,
                          Round *out) {
  const PruneSlot *s = &r->slots.data[slot];
  ConstantCut c = {.name = s->value->cdata->name, .dim = dim, .summed = is_summed(r, slot, dim)};
  const int64_t n = prune_size(r, slot, dim);
  if (!c.name) return;
  c.node = node_title(z->s->arena, s->node);
  c.name = arena_strdup(z->s->arena, c.name);
  c.indices = ARENA_ARRAY(z->s->arena, int64_t, n + 1);
  for (int64_t i = 0; i < n; i++)
    if (gone[prune_root(r, prune_atom(r, slot, dim, i))]) c.indices[c.n++] = i;
  if (c.n) vec_push(z->s->arena, &out->constants, c);
}

void pruner_note_cut(Pruner *z, PruneRelation *r, Round *out) {
  bool *gone = ARENA_ARRAY(r->a, bool, r->n_atoms + 1);
  for (int k = 0; k < r->units.n; k++)
    if (r->units.data[k].gone) gone[r->units.data[k].root] = true;
  for (int s = 0; s < r->slots.n; s++)
    for (int d = 0; r->slots.data[s].value->cdata && d < r->slots.data[s].value->rank; d++)
      if (prune_size(r, s, d)) note_constant(z, r, gone, s, d, out);
  out->left = ARENA_ARRAY(z->s->arena, int64_t, r->groups.n + 1);
  for (int k = 0; k < r->groups.n; k++)
    out->left[k] = r->groups.data[k].units.n - r->groups.data[k].gone;
  out->names = ARENA_ARRAY(z->s->arena, const char *, r->groups.n + 1);
  for (int k = 0; k < r->groups.n; k++)
    out->names[k] = arena_strdup(z->s->arena, r->groups.data[k].name);
  out->n_groups = r->groups.n;
}

/* ---- the table ---- */
static const char *score_text(const Pruner *z, const Figures *f) {
  Arena *a = z->s->arena;
  const double n = (double)(f->score.samples ? f->score.samples : 1);
  if (z->made_up) return "";
  if (z->labelled) return arena_printf(a, "%8.2f %%", 100 * (double)f->score.right / n);
  if (z->by_loss) return arena_printf(a, "%9.6g", f->loss);
  return arena_printf(a, "%7.1f dB", score_sqnr(&f->score));
}

static double share_of_zeros(const WeightZeros *l) {
  double zeros = 0, count = 0;
  for (int k = 0; k < l->n; k++) {
    zeros += (double)l->data[k].zeros;
    count += (double)l->data[k].count;
  }
  return zeros / fmax(count, 1);
}

/* weights: of masks, else NULL. */
static void print_figures(const Pruner *z, const char *what, const Figures *f,
                          const WeightZeros *weights, StrBuf *b) {
  const Figures *o = &z->before;
  const char *first = weights ? arena_printf(b->arena, "%.1f %%", 100 * share_of_zeros(weights))
                              : arena_printf(b->arena, "%lld", (long long)f->channels);
  sb_printf(b, "  %-10s %8s  %10.0f (%3.0f %%)  %12.0f (%3.0f %%)  %9.3f ms (%.2fx) %s", what,
            first, f->parameters, 100 * f->parameters / fmax(o->parameters, 1), f->macs,
            100 * f->macs / fmax(o->macs, 1), f->us / 1e3, o->us / fmax(f->us, 1e-9),
            score_text(z, f));
}

static void print_rounds(const Pruner *z, StrBuf *b) {
  sb_printf(b, "  %-10s %8s  %10s %7s  %12s %7s  %9s %10s %s\n", "round",
            pruner_masks(z) ? "zeros" : "channels", "parameters", "", "MACs", "", "time", "",
            z->made_up    ? ""
            : z->labelled ? "accuracy"
            : z->by_loss  ? "loss"
                          : "results");
  print_figures(z, "original", &z->before, pruner_masks(z) ? &z->at_first : NULL, b);
  sb_putc(b, '\n');
  for (int k = 0; k < z->done.n; k++) {
    const Round *r = &z->done.data[k];
    print_figures(z, arena_printf(b->arena, "%d", k + 1), &r->figures,
                  pruner_masks(z) ? &r->weights : NULL, b);
    if (r->recovered) sb_printf(b, ", %.3g lost before training", r->cut_drop);
    sb_printf(b, "%s\n", r->undone ? ", undone: more is lost than --max-drop allows" : "");
  }
}

/* How it recovered; of what was not said, too. */
static void print_recovery(const Pruner *z, StrBuf *b) {
  const Options *o = &z->recovery;
  if (!o->epochs) return;
  sb_printf(b, "  recovery: %lld epochs a round", (long long)z->epochs);
  if (z->repeat > 1) sb_printf(b, ", each %lld times the samples", (long long)z->repeat);
  sb_printf(b, "; --train=%s --optimizer=%s --augment=%s\n", o->train, o->optimizer,
            o->augment ? o->augment : "none");
}

static void print_layers(const Pruner *z, StrBuf *b) {
  for (int k = 0; k < z->layers.n; k++) {
    const LayerCut *l = &z->layers.data[k];
    if (l->before)
      sb_printf(b, "  %5lld of %5lld  %s\n", (long long)l->after, (long long)l->before, l->name);
    else
      sb_printf(b, "  %14s  %s: %s\n", "all", l->name, l->reason);
  }
}

/* Of the model as it is written. */
static const Figures *last_figures(const Pruner *z) {
  const Figures *f = &z->before;
  for (int k = 0; k < z->done.n; k++)
    if (!z->done.data[k].undone) f = &z->done.data[k].figures;
  return f;
}

static void print_sparse(const Pruner *z, StrBuf *b) {
  const Figures *f = last_figures(z);
  double us = 0;
  for (int k = 0; k < f->sparse.n; k++) us += f->sparse.data[k].us;
  if (!f->sparse.n)
    sb_printf(
        b,
        "  no kernel leaves zeros out: it would not be faster (--print-plan says by how much)\n");
  else
    sb_printf(b, "  %d kernels leave zeros out: %.3f of %.3f ms\n", f->sparse.n, us / 1e3,
              f->us / 1e3);
  for (int k = 0; k < f->sparse.n; k++)
    sb_printf(b, "  %11.3f ms  %s\n", f->sparse.data[k].us / 1e3, f->sparse.data[k].nodes);
}

static void print_weights(const Pruner *z, StrBuf *b) {
  for (int k = 0; k < z->weights.n; k++) {
    const WeightZero *w = &z->weights.data[k];
    sb_printf(b, "  %5.1f %% of %9lld  %s", 100 * (double)w->zeros / (double)w->count,
              (long long)w->count, w->node);
    sb_printf(b, "%s%s\n", w->whole ? ": " : "", w->whole ? w->whole : "");
  }
  print_sparse(z, b);
  sb_printf(b, "  the file has its zeros: it is smaller once it is compressed\n");
}

/* ---- JSON ---- */
static json_t *figures_json(const Pruner *z, const Figures *f) {
  const double n = (double)(f->score.samples ? f->score.samples : 1);
  return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "channels", (json_int_t)f->channels,
                   "parameters", json_finite(f->parameters), "macs", json_finite(f->macs), "us",
                   json_finite(f->us), "accuracy",
                   z->labelled ? json_finite((double)f->score.right / n) : json_null(), "loss",
                   z->by_loss ? json_finite(f->loss) : json_null(), "sqnr_db",
                   z->made_up ? json_null() : json_finite(score_sqnr(&f->score)));
}

static json_t *constant_json(const ConstantCut *c) {
  json_t *list = json_array();
  for (int64_t i = 0; i < c->n; i++) json_array_append_new(list, json_integer(c->indices[i]));
  return json_pack("{s:s, s:s, s:i, s:b, s:o}", "initializer", c->name, "node", c->node, "axis",
                   c->dim, "summed", c->summed, "removed", list);
}

static json_t *round_json(const Pruner *z, const Round *r) {
  json_t *o = figures_json(z, &r->figures), *constants = json_array();
  for (int k = 0; k < r->constants.n; k++)
    json_array_append_new(constants, constant_json(&r->constants.data[k]));
  json_object_set_new(o, "drop_before_recovery", json_finite(r->cut_drop));
  json_object_set_new(o, "drop", json_finite(r->drop));
  json_object_set_new(o, "undone", json_boolean(r->undone));
  json_object_set_new(o, "steps", json_integer(r->steps));
  json_object_set_new(o, "difference", json_finite(r->difference));
  json_object_set_new(o, "constants", constants);
  json_object_set_new(o, "zeros",
                      pruner_masks(z) ? json_finite(share_of_zeros(&r->weights)) : json_null());
  return o;
}

static json_t *layer_json(const LayerCut *l) {
  return json_pack("{s:s, s:I, s:I, s:o}", "name", l->name, "channels", (json_int_t)l->before,
                   "left", (json_int_t)l->after, "reason",
                   l->reason ? json_string(l->reason) : json_null());
}

static json_t *weights_json(const WeightZeros *l) {
  json_t *list = json_array();
  for (int k = 0; k < l->n; k++) {
    const WeightZero *w = &l->data[k];
    json_array_append_new(
        list, json_pack("{s:s, s:s, s:I, s:I, s:o}", "initializer", w->name, "node", w->node,
                        "elements", (json_int_t)w->count, "zeros", (json_int_t)w->zeros, "reason",
                        w->whole ? json_string(w->whole) : json_null()));
  }
  return list;
}

static json_t *sparse_json(const Pruner *z) {
  const Figures *f = last_figures(z);
  json_t *list = json_array();
  for (int k = 0; k < f->sparse.n; k++)
    json_array_append_new(
        list, json_pack("{s:s, s:s, s:o}", "kernel", f->sparse.data[k].name, "nodes",
                        f->sparse.data[k].nodes, "us", json_finite(f->sparse.data[k].us)));
  return list;
}

static json_t *recovery_json(const Pruner *z) {
  const Options *o = &z->recovery;
  if (!o->epochs) return json_null();
  return json_pack("{s:I, s:I, s:s, s:s, s:s}", "epochs", (json_int_t)z->epochs, "repeat",
                   (json_int_t)z->repeat, "train", o->train, "optimizer", o->optimizer, "augment",
                   o->augment ? o->augment : "none");
}

static const char *report_json(const Pruner *z) {
  json_t *rounds = json_array(), *layers = json_array();
  for (int k = 0; k < z->done.n; k++)
    json_array_append_new(rounds, round_json(z, &z->done.data[k]));
  for (int k = 0; k < z->layers.n; k++)
    json_array_append_new(layers, layer_json(&z->layers.data[k]));
  json_t *root = json_pack("{s:s, s:o, s:o, s:o}", "model", z->original, "original",
                           figures_json(z, &z->before), "rounds", rounds, "layers", layers);
  json_object_set_new(root, "recovery", recovery_json(z));
  json_object_set_new(root, "weights", weights_json(&z->weights));
  json_object_set_new(root, "sparse_kernels", sparse_json(z));
  char *text = json_dumps(root, JSON_INDENT(1));
  const char *own = text ? arena_printf(z->s->arena, "%s\n", text) : NULL;
  free(text);
  json_decref(root);
  return own;
}

/* ---- both ---- */
bool pruner_report(const Pruner *z) {
  StrBuf b = {.arena = z->s->arena};
  const char *path = z->s->o->report;
  sb_printf(&b, "%s pruned\n", z->original);
  print_rounds(z, &b);
  print_recovery(z, &b);
  if (pruner_masks(z))
    print_weights(z, &b);
  else
    print_layers(z, &b);
  if (!z->s->o->quiet) fputs(sb_str(&b), stderr);
  if (!path) return true;
  const char *text = ends_with(path, ".json") ? report_json(z) : sb_str(&b);
  const Loc loc = {.file = path, .node = -1};
  if (!text)
    return diag_error(z->s->diag, &loc, ERR_OUTPUT,
                      "the report cannot be JSON: is a name not UTF-8?");
  OutFile *f = outputs_add(z->s->outputs, path, false);
  return f && outputs_write(z->s->outputs, f, text, strlen(text));
}
