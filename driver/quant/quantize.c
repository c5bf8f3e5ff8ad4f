/* Post-training quantization of the session's model. The float model, then one that observes its
 * own tensors, then one that computes every layer in either form (passes/ptq/simulate.c) are
 * compiled for this machine and run on the samples; what is decided is inserted into the graph. */
#include "driver/quant/quantize.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "driver/quant/metric.h"
#include "driver/quant/pictures.h"
#include "driver/quant/quantizer.h"

/* ---- programs ---- */
/* Copies of a model that went the same way have the same ids. */
static bool same_graph(const Session *s, const Quantizer *z) {
  const Loc loc = {.file = s->file, .node = -1};
  return (s->model->next_value == z->plan->n_values && s->model->main->nodes.n == z->n_nodes) ||
         diag_internal(s->diag, &loc, "the model was read differently the second time");
}

static bool edit_graph(Session *s, void *user) {
  const Quantizer *z = user;
  return same_graph(s, z) && (!z->change || z->change(s->model, z->plan));
}

static bool open_program(Quantizer *z, GraphChange change, const char *what, Runner *out) {
  Library lib;
  z->change = change;
  progress_show(z->s, what, 0, 0);
  z->status = library_compile(&z->options, z->s->file, edit_graph, z, &lib);
  return z->status == EXIT_OK && runner_open(z->s, &lib, z->threads, out);
}

typedef bool (*SampleFn)(Quantizer *z, Runner *r, int k);

static bool run_samples(Quantizer *z, Runner *r, const char *what, SampleFn each) {
  for (int k = 0; k < z->data.samples.n; k++) {
    progress_show(z->s, what, k + 1, z->data.samples.n);
    if (!runner_run(r, z->data.samples.data[k], z->data.n_inputs, NULL, 0) || !each(z, r, k))
      return false;
  }
  return true;
}

/* each: NULL: no sample is run. times: of programs with numbered layers; NULL: they do not matter. */
static bool with_program(Quantizer *z, GraphChange change, const char *compiling,
                         const char *running, SampleFn each, ModelTimes *times) {
  Runner r;
  if (!open_program(z, change, compiling, &r)) return false;
  bool ok = !each || run_samples(z, &r, running, each);
  if (ok && times && z->timed) ok = quantizer_times(z, &r, times);
  runner_close(&r);
  return ok;
}

/* ---- the float model ---- */
static int64_t label_of(const Quantizer *z, int k) {
  return z->data.labels ? z->data.labels[k] : -1;
}

static bool take_reference(Quantizer *z, Runner *r, int k) {
  z->reference[k] = runner_copy_outputs(r, z->n_outputs);
  score_add(&z->base, z->reference[k], z->reference[k], z->n_outputs, label_of(z, k));
  return true;
}

static const float *const *observed(const Quantizer *z, const Runner *r, int n) {
  const float **out = ARENA_ARRAY(r->arena, const float *, n);
  for (int k = 0; k < n; k++) out[k] = r->outputs[z->n_outputs + k].data;
  return out;
}

static bool take_ranges(Quantizer *z, Runner *r, int k) {
  quant_take_ranges(z->plan, observed(z, r, 3 * z->plan->points.n));
  return true;
}

static bool take_histograms(Quantizer *z, Runner *r, int k) {
  quant_take_histograms(z->plan, observed(z, r, z->plan->points.n));
  return true;
}

/* One sample in four is kept to tell whether what the others say holds. */
static bool take_grams(Quantizer *z, Runner *r, int k) {
  quant_take_grams(z->plan, observed(z, r, z->n_grams), k % 4 == 3);
  return true;
}

static bool finite_ranges(const Quantizer *z) {
  const Loc loc = {.file = z->data.path, .node = -1};
  for (int k = 0; k < z->plan->groups.n; k++) {
    const QuantGroup *g = &z->plan->groups.data[k];
    if (!isfinite(g->seen_lo) || !isfinite(g->seen_hi))
      return diag_error(z->s->diag, &loc, ERR_DATA,
                        "on these samples the float model computes NaN or an infinity");
  }
  return true;
}

static bool observe_points(Quantizer *z) {
  const bool half = z->plan->form == QUANT_HALF;
  if (!quant_rounds_activations(z->plan) || (half && z->plan->half != DT_F16)) return true;
  if (!with_program(z, quant_observe_ranges, "compiling the observers", "ranges", take_ranges,
                    NULL))
    return false;
  quant_close_ranges(z->plan, z->data.samples.n);
  if (half) return quantizer_tell_overflow(z), true;
  z->stretched = quant_stretch(z->s->model, z->plan);
  return finite_ranges(z) && with_program(z, quant_observe_histograms, "compiling the histograms",
                                          "histograms", take_histograms, NULL);
}

/* Roundings that fit what the layers read. */
static bool adapt_weights(Quantizer *z) {
  enum { FEWEST = 4 };
  if (z->data.samples.n < FEWEST || (z->n_grams = quant_choose_grams(z->plan)) == 0) return true;
  if (!with_program(z, quant_observe_grams, "compiling the products", "products", take_grams, NULL))
    return false;
  for (int k = 0; k < z->plan->layers.n; k++) {
    progress_show(z->s, "rounding", k + 1, z->plan->layers.n);
    z->adapted += quant_adapt(z->s->model, z->plan, &z->plan->layers.data[k]);
  }
  return true;
}

static bool observe(Quantizer *z) {
  if (!with_program(z, quant_mark_layers, "compiling the float model", "running the float model",
                    take_reference, &z->real))
    return false;
  return observe_points(z) && adapt_weights(z);
}

/* ---- options ---- */
static bool read_numbers(Quantizer *z) {
  const Options *o = z->s->o;
  int64_t threads = sysconf(_SC_NPROCESSORS_ONLN);
  static const double points = 0.5,
                      power = 0.3; /* defaults: of top-1; percent of the outputs' power */
  if (o->threads && !args_number("--threads", o->threads, 1, 1024, &threads)) return false;
  z->threads = threads < 1 ? 1 : (int)threads;
  if (!metric_find(o->metric, o->labels != NULL, &z->metric)) return false;
  const bool top = z->metric == METRIC_TOP1 || z->metric == METRIC_TOP5;
  z->max_drop = top ? points : z->metric == METRIC_MSE ? INFINITY : power;
  if (z->plain) z->max_drop = INFINITY; /* it was asked for, whatever it costs */
  if (!o->max_drop) return true;
  char *end;
  z->max_drop = strtod(o->max_drop, &end);
  return (end != o->max_drop && !*end && z->max_drop >= 0) ||
         (usage_error("--max-drop: '%s' is no number of points, such as 0.5", o->max_drop), false);
}

static bool find_method(Quantizer *z) {
  const char *name = z->s->o->calibration ? z->s->o->calibration : "auto";
  z->method = -1;
  if (strcmp(name, "auto") == 0) return true;
  for (int k = 0; k < QUANT_METHODS; k++)
    if (strcmp(name, quant_method_names[k]) == 0) z->method = k;
  return z->method >= 0 ||
         (usage_error(
              "--calibration: '%s' is none of auto, minmax, average, percentile, entropy, mse",
              name),
          false);
}

static bool read_data(Quantizer *z) {
  enum { MOST_SAMPLES = 1000 };
  const Graph *g = z->s->model->main;
  const DataInput *inputs = dataset_inputs(z->s, g, "--calibrate");
  if (!inputs) return false;
  Pictures pictures = {.s = z->s, .input = inputs, .compile = z->compile, .fd = -1};
  const DatasetPicture picture = {picture_read, &pictures};
  const bool ok = dataset_read(z->s, z->s->o->calibrate, z->s->o->labels, MOST_SAMPLES, g->inputs.n,
                               inputs, &picture, &z->data);
  if (pictures.fd >= 0) close(pictures.fd);
  return ok;
}

/* ---- the whole ---- */
static bool take_score(Quantizer *z, Runner *r, int k) {
  score_add(&z->result, r->outputs, z->reference[k], z->n_outputs, label_of(z, k));
  return true;
}

static bool insert_marked(Model *m, const QuantPlan *q) {
  return quant_mark_layers(m, q) && quant_insert(m, q);
}

/* The plan as it stands, compiled and run as it will be. */
static bool measure_result(Quantizer *z, ModelTimes *times) {
  z->result = (Score){0};
  return with_program(z, insert_marked, "compiling the quantized model", "measuring", take_score,
                      times);
}

static bool all_on(const QuantPlan *q) {
  for (int k = 0; k < q->layers.n; k++)
    if (!q->layers.data[k].on) return false;
  return true;
}

/* Values that go from layers in float to layers in few bits and back cost time, too. */
static void tell_slower(const Quantizer *z) {
  static const double clear = 1.1, shortest = 100; /* us */
  const Loc loc = {.file = z->s->file, .node = -1};
  if (z->final.layers && z->real.layers && z->final.all > shortest &&
      z->final.all > clear * z->real.all)
    diag_warning(z->s->diag, &loc,
                 "%s takes %.2f times as long as in float: too few layers change for what stands "
                 "between them (a larger --max-drop lets more of them)",
                 z->form_name, z->final.all / z->real.all);
}

/* Layers that 8 bits damage are in bf16 where that is faster than float and the budget holds. */
static bool take_half(Quantizer *z) {
  const Score before = z->result;
  ModelTimes times = {0};
  int slow, left = quantizer_try_half(z);
  if (left == 0) return true;
  if (!measure_result(z, &times)) return false;
  left = quantizer_keep_half(z, &times, &slow);
  if (left && slow && !measure_result(z, &times)) return false;
  if (left && score_drop(&z->result, &z->base, z->metric) <= z->max_drop) {
    z->final = times;
    return true;
  }
  quantizer_keep_half(z, NULL, &slow);
  z->result = before;
  return true;
}

/* The shorter time of each layer, and of all, in a second run of the same program. */
static bool time_again(Quantizer *z, GraphChange change, ModelTimes *t) {
  ModelTimes second = {0};
  if (!with_program(z, change, "compiling for times once more", NULL, NULL, &second)) return false;
  t->all = fmin(t->all, second.all);
  for (int k = 0; k < z->plan->layers.n; k++) t->layers[k] = fmin(t->layers[k], second.layers[k]);
  return true;
}

/* Another process can have taken the processor while one of the two programs was timed: that 8 bits are
 * slower must be seen twice, in either. */
static bool confirm_slower(Quantizer *z) {
  return !quantizer_any_slower(z) ||
         (time_again(z, quant_mark_layers, &z->real) && time_again(z, insert_marked, &z->eight));
}

/* Decides, and measures what was decided: with all layers on that is measured before, since what
 * each takes in 8 bits is part of the decision. */
static bool decide(Quantizer *z) {
  if (!quantizer_choose(z) || !measure_result(z, &z->eight) || !confirm_slower(z) ||
      !quantizer_decide(z))
    return false;
  z->final = z->eight;
  if (!all_on(z->plan) && (!measure_result(z, &z->final) || !take_half(z))) return false;
  tell_slower(z);
  return true;
}

static bool prepare(Quantizer *z, QuantForm form) {
  Session *s = z->s;
  s->passes = session_onnx_passes(s);
  const bool ok = session_passes(s, 0);
  s->passes = NULL;
  if (!ok) return false;
  z->plan = quant_plan(s->model, s->arena, form, quantizer_half_attention(z) ? s->target : NULL);
  z->layers = ARENA_ARRAY(s->arena, LayerReport, z->plan->layers.n + 1);
  for (int k = 0; k < z->plan->layers.n; k++) z->layers[k].alone = NAN;
  quantizer_list_inside(z);
  if (form == QUANT_HALF) quantizer_half(z);
  z->n_nodes = s->model->main->nodes.n;
  z->n_outputs = s->model->main->outputs.n;
  return true;
}

static const char *const form_names[QUANT_FORMS] = {[QUANT_INT8] = "int8",
                                                    [QUANT_DYNAMIC] = "int8-dynamic",
                                                    [QUANT_INT4] = "int4-weights",
                                                    [QUANT_W8] = "w8a16"};

static bool find_form(Quantizer *z, QuantForm *form) {
  const Options *o = z->s->o;
  if (!o->quantize) return *form = QUANT_HALF, quantizer_find_precision(z);
  for (int k = 0; k < QUANT_FORMS; k++)
    if (strcmp(o->quantize, form_names[k]) == 0) {
      *form = (QuantForm)k;
      return o->calibrate || k != QUANT_INT8 ||
             (usage_error("--quantize=int8 needs samples: --calibrate=DATA.npz (or a folder)"),
              false);
    }
  usage_error("--quantize: '%s' is none of int8, int8-dynamic, int4-weights, w8a16", o->quantize);
  return false;
}

/* Measured with candidates, and with what was decided. */
static bool measure(Quantizer *z) {
  if (!read_data(z)) return false;
  z->reference = ARENA_ARRAY(z->s->arena, Tensor *, z->data.samples.n);
  if (!observe(z) || !open_program(z, quant_simulate, "compiling the simulation", &z->simulation))
    return false;
  const bool ok = decide(z);
  runner_close(&z->simulation);
  return ok;
}

/* On stderr, and in the file of --report. */
static bool report(Quantizer *z) {
  const char *path = z->s->o->report;
  StrBuf text = {.arena = z->s->arena}, json = {.arena = z->s->arena};
  quantizer_report(z, &text);
  if (!z->s->o->quiet) fputs(sb_str(&text), stderr);
  if (!path) return true;
  const bool is_json = ends_with(path, ".json");
  if (is_json && !quantizer_report_json(z, &json)) return false;
  StrBuf *written = is_json ? &json : &text;
  OutFile *f = outputs_add(z->s->outputs, path, false);
  return f && outputs_write(z->s->outputs, f, sb_str(written), (size_t)written->n);
}

static bool quantize(Quantizer *z) {
  const Loc loc = {.file = z->s->file, .node = -1};
  QuantForm form;
  if (!find_form(z, &form) || !read_numbers(z) || !find_method(z) || !prepare(z, form))
    return false;
  if (form != QUANT_HALF) z->form_name = form_names[form];
  if (z->plan->layers.n == 0) {
    diag_warning(z->s->diag, &loc,
                 form == QUANT_HALF
                     ? "nothing to store in 16 bits: no product of floats has constant weights"
                 : form == QUANT_INT8
                     ? "nothing to quantize: no product of floats has constant weights"
                     : "nothing to quantize: no product of matrices of floats has "
                       "constant weights");
    return !z->s->o->report || report(z);
  }
  if (z->s->o->calibrate && !measure(z)) return false;
  progress_clear(z->s);
  return report(z) && quant_insert(z->s->model, z->plan);
}

int quantize_graph(Session *s, CompileFn compile) {
  Quantizer z = {.s = s, .compile = compile, .options = *s->o};
  z.options.emit = "exe";
  z.options.quantize = NULL;
  z.timed = !s->o->target || target_runs_here(s->target);
  if (!z.timed) z.options.target = NULL; /* this machine computes, whatever the result is for */
  z.options.tuning = NULL;
  return quantize(&z) ? EXIT_OK : session_status(s, z.status);
}
