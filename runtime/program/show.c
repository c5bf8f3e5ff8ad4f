/* What the program prints for people: help, the model's description, results, the profile. */
#include "program.h"

void show_help(Program *p) {
  out_format(
      &p->out,
      "usage: %s --input NAME=@FILE … [options]\n\n"
      "Runs the compiled model \"%s\".\n\n"
      "  --input NAME=@FILE   .npy, .pb (TensorProto), .png, else raw bytes; NAME=1,2,3 "
      "gives values\n"
      "                       "
      "@photo.png,scale=1/255,mean=A:B:C,std=A:B:C,layout=nchw|nhwc,color=rgb|bgr:\n"
      "                       (pixel*scale-mean)/std, resized to the input's size where "
      "that is fixed\n"
      "                       a sequence: NAME/0=@FILE, NAME/1=@FILE …, NAME=@ITEMS.npz or "
      "NAME=[]; an empty optional: NAME=none\n"
      "  --output NAME=@FILE  .npy, .pb or raw bytes (.raw, .bin, -); without it a summary is "
      "printed\n"
      "  --expect NAME=@FILE  compare with a file: |got-want| <= atol + rtol*|want|; status "
      "7 on mismatch\n"
      "  --rtol R, --atol A   tolerances (1e-3, 1e-5)\n"
      "  --labels FILE        a line per class: names the largest values of the output\n"
      "  --dim NAME=N         size of a symbolic dimension (else taken from the inputs)\n"
      "  --threads N          threads, up to %d\n"
      "  --bench[=N]          time N runs; missing inputs are random (--seed S)\n"
      "  --profile            time per kernel, with the model's node names\n"
      "  --check-memory       run again on memory full of ones: the results must be the same "
      "bits\n"
      "  --info               inputs, outputs, sizes\n"
      "  --quiet              print no results\n",
      p->self, p->model->name, (int64_t)p->model->max_threads);
  const char *rest;
  if (text_starts(p->model->target, "cuda:sm_", &rest))
    out_format(&p->out,
               "--bench also times runs whose tensors stay on the GPU (without a profile)\n");
  if (text_equal(p->model->target, "cuda:host"))
    out_format(&p->out,
               "  --gpu-order ORDER    of blocks and threads: forward, backward or shuffled\n");
}

static void show_tensors(Program *p, const char *title, const BurinTensorInfo *infos, int32_t n) {
  const bool inputs = infos == p->model->inputs;
  out_format(&p->out, "%s\n", title);
  for (int32_t i = 0; i < n; i++) {
    out_format(&p->out, "  %-28s %s", infos[i].name, infos[i].shape_text);
    if (infos[i].scale != 0)
      out_format(&p->out, "  scale %g, zero point %d", (double)infos[i].scale,
                 (int64_t)infos[i].zero_point);
    if (inputs && input_default(p, i))
      out_format(&p->out, p->model->defaults[i].pinned_bytes
                              ? "  has a default, and takes no other value"
                              : "  has a default");
    out_format(&p->out, "\n");
  }
}

void show_info(Program *p) {
  const BurinModel *m = p->model;
  out_format(&p->out, "model    %s (%s)\ntarget   %s\nflags    %s\nmodel id %s\n", m->name,
             m->producer, m->target, m->flags, m->model_hash);
  show_tensors(p, "inputs", m->inputs, m->n_inputs);
  show_tensors(p, "outputs", m->outputs, m->n_outputs);
  if (m->n_caller_symbols) {
    out_format(&p->out, "symbols ");
    for (int32_t i = 0; i < m->n_caller_symbols; i++) out_format(&p->out, " %s", m->symbols[i]);
    out_format(&p->out, "\n");
  }
  out_format(&p->out, "weights  %u bytes\n", m->weight_bytes);
  if (m->arena_bytes || !m->n_symbols)
    out_format(&p->out,
               "arena    %u bytes for one thread (lower bound %u), %u for each further thread\n",
               m->arena_bytes, m->arena_lower_bound, m->thread_bytes);
  else
    out_format(&p->out, "arena    depends on the symbols\n");
  out_format(&p->out, "kernels  %d, up to %d threads\n", (int64_t)m->n_kernels,
             (int64_t)m->max_threads);
}

/* Line k of the labels file, cut at its end; "" when there is none. */
static const char *label(Bytes labels, int64_t k, char *line, size_t size) {
  size_t at = 0, n = 0;
  for (; k > 0 && at < labels.size; at++) k -= labels.data[at] == '\n';
  for (; at < labels.size && labels.data[at] != '\n' && n + 1 < size; at++)
    line[n++] = (char)labels.data[at];
  line[n] = 0;
  return line;
}

/* The five largest values along the last dimension of a vector-like result. */
static void show_top(Program *p, const NumberType *type, const Tensor *t, Bytes labels) {
  int64_t top[5], n = 0;
  for (int64_t i = 0; i < (int64_t)t->count; i++) {
    const double v = number_load(type, t->data, (uint64_t)i);
    int64_t at = n < 5 ? n++ : 5;
    for (; at > 0 && v > number_load(type, t->data, (uint64_t)top[at - 1]); at--)
      if (at < 5) top[at] = top[at - 1];
    if (at < 5) top[at] = i;
  }
  for (int64_t k = 0; k < n; k++) {
    char line[128];
    out_format(&p->out, "  %6d  %12g  %s\n", top[k], number_load(type, t->data, (uint64_t)top[k]),
               label(labels, top[k], line, sizeof line));
  }
}

static void show_values(Program *p, const NumberType *type, const Tensor *t) {
  const uint64_t n = t->count < 8 ? t->count : 8;
  double low = __builtin_inf(), high = -low, sum = 0;
  out_format(&p->out, " ");
  for (uint64_t i = 0; i < n; i++) out_format(&p->out, " %g", number_load(type, t->data, i));
  out_format(&p->out, n < t->count ? " …\n" : "\n");
  if (t->count <= n) return;
  for (uint64_t i = 0; i < t->count; i++) {
    const double v = number_load(type, t->data, i);
    low = v < low ? v : low;
    high = v > high ? v : high;
    sum += v;
  }
  out_format(&p->out, "  min %g, max %g, mean %g\n", low, high, sum / (double)t->count);
}

void show_result(Program *p, int k) {
  if (list_info(p, k, true)) return list_show(p, k);
  out_format(&p->out, "%s", p->model->outputs[k].name);
  show_tensor(p, &p->result[k]);
}

void show_tensor(Program *p, const Tensor *t) {
  const NumberType *type = number_type(t->dtype);
  out_format(&p->out, ": %s[", type->name);
  for (int i = 0; i < t->rank; i++) out_format(&p->out, i ? ",%d" : "%d", t->dims[i]);
  out_format(&p->out, "]\n");
  int64_t longest = 0;
  for (int i = 0; i < t->rank; i++) longest = t->dims[i] > longest ? t->dims[i] : longest;
  if (is_text(t)) return texts_show(p, t);
  const bool scores = (uint64_t)longest == t->count && t->count > 4 && type->kind >= NK_FLOAT;
  if (scores)
    show_top(p, type, t, p->label_text);
  else if (t->count)
    show_values(p, type, t);
}

/* The first three nodes of a list "a, b, c", and how many more there are. */
static void show_nodes(Program *p, const char *nodes) {
  enum { SHOWN = 3 };
  int64_t more = 0, shown = 0;
  size_t n = 0;
  for (size_t i = 0; nodes[i]; i++) {
    if (nodes[i] != ',' || nodes[i + 1] != ' ') continue;
    if (++shown == SHOWN) n = i;
    more += shown >= SHOWN;
  }
  if (!more) {
    out_format(&p->out, "%s\n", nodes);
    return;
  }
  out_text(&p->out, nodes, n);
  out_format(&p->out, " and %d more\n", more);
}

static double cut(double v, double parts) { return (double)(int64_t)(v * parts) / parts; }

/* kernel_ns holds the least time of each kernel in `runs` runs. */
void show_profile(Program *p, int64_t runs) {
  const BurinModel *m = p->model;
  const BurinOptions *o = &p->options;
  const char *rest;
  const bool gpu = text_starts(m->target, "cuda:sm_", &rest);
  uint64_t total = 0, limit = 0;
  for (int32_t i = 0; i < m->n_kernels; i++) {
    total += o->kernel_ns[i];
    limit += o->kernel_work[i].limit_ps;
  }
  out_format(&p->out, "profile: %d runs, the least time of each kernel, together %g us\n", runs,
             (double)total / 1e3);
  if (gpu)
    out_format(&p->out, "limit: arithmetic, or memory, of the GPU compiled for takes %g us\n",
               cut((double)limit / 1e6, 100));
  out_format(&p->out, "%8s %6s %8s  %s%-32s %s\n", "us", "share", "GFLOP/s",
             gpu ? "      MB   limit  " : "", "kernel", "nodes");
  for (int32_t i = 0; i < m->n_kernels; i++) {
    const BurinWork *const w = &o->kernel_work[i];
    const double ns = (double)o->kernel_ns[i];
    const double share = ns * 100 / (double)(total ? total : 1);
    const double rate = ns > 0 ? (double)o->kernel_flops[i] / ns : 0;
    out_format(&p->out, "%8g %5g%% %8g  ", cut(ns / 1e3, 100), cut(share, 10), cut(rate, 10));
    if (gpu)
      out_format(&p->out, "%8g %6g%%  ", cut((double)w->bytes / 1e6, 1000),
                 cut(ns > 0 ? (double)w->limit_ps / ns / 10 : 0, 10));
    out_format(&p->out, "%-32s ", m->kernels[i].name);
    show_nodes(p, m->kernels[i].nodes);
  }
}
