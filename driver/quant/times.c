/* What each layer takes: the kernels of a compiled model name the nodes that they compute, and
 * quant_mark_layers numbers those of layers. */
#include <stdlib.h>
#include <string.h>
#include "driver/quant/quantizer.h"

typedef struct Named { /* layers of a kernel */
  int *layers;
  int n;
  int most; /* layers of the model */
} Named;

/* Those that it computes; `rounding`: whose operand it only brings into 8 bits. */
static void take_names(const char *nodes, bool rounding, Named *out) {
  const char *at = nodes;
  out->n = 0;
  while ((at = strstr(at, QUANT_LAYER_MARK)) != NULL) {
    char *end;
    const long k = strtol(at + strlen(QUANT_LAYER_MARK), &end, 10);
    const bool rounds = strncmp(end, "]:", 2) != 0; /* put in: no operator of the file */
    if (k >= 0 && k < out->most && rounds == rounding) out->layers[out->n++] = (int)k;
    at = end;
  }
}

/* Several layers of a kernel share its time as they do its multiply-adds. */
static void share(const Quantizer *z, const Named *names, double us, double *layers) {
  double all = 0;
  for (int i = 0; i < names->n; i++) all += z->plan->layers.data[names->layers[i]].macs;
  for (int i = 0; i < names->n; i++)
    layers[names->layers[i]] += us * z->plan->layers.data[names->layers[i]].macs / all;
}

bool quantizer_times(Quantizer *z, Runner *r, ModelTimes *out) {
  const BurinModel *m = r->lib.model;
  Arena *scratch = arena_child(z->s->arena);
  double *us = ARENA_ARRAY(scratch, double, m->n_kernels + 1);
  const bool ok = runner_profile(r, z->data.samples.data[0], z->data.n_inputs, us);
  *out = (ModelTimes){.layers = ARENA_ARRAY(z->s->arena, double, z->plan->layers.n + 1)};
  for (int k = 0; k < m->n_kernels && ok; k++) {
    const char *nodes = m->kernels[k].nodes ? m->kernels[k].nodes : "";
    Named names = {.layers = ARENA_ARRAY(scratch, int, strlen(nodes) + 1),
                   .most = z->plan->layers.n};
    out->all += us[k];
    take_names(nodes, false, &names);
    if (names.n == 0) take_names(nodes, true, &names);
    share(z, &names, us[k], out->layers);
  }
  arena_free(scratch);
  return ok;
}
