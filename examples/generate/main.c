/* Generates tokens with a decoder that was compiled with --cache=N: its keys and values stay in the
 * memory of its outputs, to which each run appends. Prompt and answer are numbers of tokens.
 *
 *   cmake -S examples/generate -B build/generate -DMODEL=decoder.onnx && cmake --build build/generate
 *   build/generate/generate COUNT [--top=K] [--seed=N] [--threads=N] [--time] TOKEN… */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "decoder.h"
#include "host_pool.h"

typedef struct Options {
  int count, top, threads, time;
  uint64_t seed;
} Options;

typedef struct Generator {
  const BurinModel *m;
  const void **in;
  void **out;
  int64_t *dims;
  int64_t *ids, *mask, *positions;
  float *logits;
  int64_t room, vocab;
  void *arena;
  uint64_t arena_bytes;
  BurinOptions options;
} Generator;

static void fail(const char *text) {
  fprintf(stderr, "generate: %s\n", text);
  exit(1);
}

static void *memory(uint64_t bytes) {
  void *const p = aligned_alloc(64, (size_t)(bytes / 64 + 1) * 64);
  if (!p) fail("no memory");
  return memset(p, 0, (size_t)bytes);
}

static int symbol(const BurinModel *m, const char *name) {
  for (int i = 0; i < m->n_caller_symbols; i++)
    if (strcmp(m->symbols[i], name) == 0) return i;
  return -1;
}

/* Symbols are named by exporters: sets those that are there. */
static void set_size(Generator *g, const char *name, int64_t n) {
  const int at = symbol(g->m, name);
  if (at >= 0) g->dims[at] = n;
}

static void set_sizes(Generator *g, int64_t past, int64_t length) {
  set_size(g, "batch_size", 1);
  set_size(g, "sequence_length", length);
  set_size(g, "past_sequence_length", past);
  set_size(g, "total_sequence_length", past + length);
}

/* Elements of output k, for the longest that it can be. */
static uint64_t output_count(const Generator *g, int k) {
  int64_t dims[16];
  uint64_t n = 1;
  g->m->output_dims(k, g->dims, dims, 1);
  for (int d = 0; d < g->m->outputs[k].rank; d++) n *= (uint64_t)dims[d];
  return n;
}

static void allocate(Generator *g) {
  const BurinModel *m = g->m;
  g->in = memory(sizeof *g->in * (size_t)m->n_inputs);
  g->out = memory(sizeof *g->out * (size_t)m->n_outputs);
  g->dims = memory(sizeof *g->dims * (size_t)m->n_symbols);
  if (m->n_in_place == 0) fail("the model has no caches in place");
  g->room = m->in_place[0].room;
  set_sizes(g, 0, g->room);
  for (int k = 0; k < m->n_outputs; k++) g->out[k] = memory(4 * output_count(g, k));
  g->ids = memory(8 * (uint64_t)g->room);
  g->mask = memory(8 * (uint64_t)g->room);
  g->positions = memory(8 * (uint64_t)g->room);
  for (int k = 0; k < m->n_inputs; k++) {
    const char *const name = m->inputs[k].name;
    if (strcmp(name, "input_ids") == 0) g->in[k] = g->ids;
    if (strcmp(name, "attention_mask") == 0) g->in[k] = g->mask;
    if (strcmp(name, "position_ids") == 0) g->in[k] = g->positions;
  }
  int64_t dims[16];
  m->output_dims(0, g->dims, dims, 1);
  g->logits = g->out[0];
  g->vocab = dims[2];
}

/* Runs g->ids[0, length) behind `past` tokens; the scores of what comes next. */
static const float *run(Generator *g, int64_t past, int64_t length) {
  if (past + length > g->room) fail("the caches are full");
  for (int64_t i = 0; i < length; i++) g->positions[i] = past + i;
  for (int64_t i = past; i < past + length; i++) g->mask[i] = 1;
  set_sizes(g, past, length);
  const uint64_t bytes = g->m->arena_size(g->dims, g->options.threads);
  if (bytes > g->arena_bytes) {
    free(g->arena);
    g->arena = memory(bytes);
    g->arena_bytes = bytes;
  }
  BurinFailure failure = {0};
  g->options.arena_bytes = g->arena_bytes;
  g->options.failure = &failure;
  if (g->m->invoke(g->in, g->out, g->dims, g->arena, &g->options) != BURIN_OK) {
    char text[512];
    g->m->failure_text(&failure, text, sizeof text);
    fail(text);
  }
  return g->logits + (length - 1) * g->vocab;
}

/* ---- choosing a token ---- */
static double random_below_1(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

static double power_of_e(double x) { /* (1 + x/2^20)^(2^20): no libm; x <= 0 */
  double y = 1 + x / 1048576;
  for (int i = 0; i < 20; i++) y *= y;
  return x < -700 ? 0 : y;
}

/* One of the `top` tokens with the highest scores, as probable as a softmax over these says. */
static int64_t choose(const float *scores, int64_t vocab, int top, uint64_t *state) {
  enum { MOST = 256 };
  int64_t best[MOST];
  int n = 0;
  for (int64_t i = 0; i < vocab; i++) {
    if (n == top && !(scores[i] > scores[best[n - 1]])) continue;
    int at = n < top ? n++ : n - 1;
    for (; at > 0 && scores[i] > scores[best[at - 1]]; at--) best[at] = best[at - 1];
    best[at] = i;
  }
  double weight[MOST], sum = 0;
  for (int k = 0; k < n; k++)
    sum += weight[k] = power_of_e((double)scores[best[k]] - scores[best[0]]);
  double left = random_below_1(state) * sum;
  int k = 0;
  while (k < n - 1 && (left -= weight[k]) >= 0) k++;
  return best[k];
}

/* ---- the command line ---- */
static int take_option(Options *o, const char *arg) {
  if (strncmp(arg, "--top=", 6) == 0) return (o->top = atoi(arg + 6)) >= 1 && o->top <= 256;
  if (strncmp(arg, "--threads=", 10) == 0) return (o->threads = atoi(arg + 10)) >= 1;
  if (strncmp(arg, "--seed=", 7) == 0) return o->seed = strtoull(arg + 7, NULL, 10), 1;
  return strcmp(arg, "--time") == 0 && (o->time = 1);
}

static double seconds(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void generate(Generator *g, const Options *o, int64_t length) {
  uint64_t state = o->seed;
  int64_t past = 0;
  double start = seconds(), prompt = 0;
  for (int i = 0; i < o->count; i++) {
    const float *const scores = run(g, past, length);
    past += length;
    length = 1;
    g->ids[0] = choose(scores, g->vocab, o->top, &state);
    printf("%s%lld", i ? " " : "", (long long)g->ids[0]);
    fflush(stdout);
    if (i == 0) prompt = seconds() - start, start = seconds();
  }
  printf("\n");
  if (o->time && o->count > 1)
    fprintf(stderr, "prompt %.2f ms, then %.3f ms a token\n", prompt * 1e3,
            (seconds() - start) * 1e3 / (o->count - 1));
}

int main(int argc, char **argv) {
  Options o = {.count = argc > 1 ? atoi(argv[1]) : 0, .top = 1, .threads = 1};
  Generator g = {.m = decoder_info()};
  int64_t n = 0;
  if (o.count < 1) fail("generate COUNT [--top=K] [--seed=N] [--threads=N] [--time] TOKEN…");
  if (!decoder_cpu_ok()) fail("this CPU cannot run the model");
  allocate(&g);
  for (int i = 2; i < argc; i++) {
    if (argv[i][0] == '-') {
      if (!take_option(&o, argv[i])) fail("no such option");
    } else if (n < g.room) {
      g.ids[n++] = strtoll(argv[i], NULL, 10);
    }
  }
  if (n == 0) fail("a prompt of at least one token is needed");
  g.options = burin_pool_options(o.threads > 1 ? burin_pool_new(o.threads) : NULL);
  generate(&g, &o, n);
  return 0;
}
