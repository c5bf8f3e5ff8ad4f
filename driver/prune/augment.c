/* In which ways images may be moved while a model recovers: those that leave the original right. Digits,
 * say, are not to be mirrored. */
#include "driver/prune/pruner.h"

typedef struct Trial {
  Pruner *z;
  Runner *original;
  const TrainData *data;
  const int64_t *rows; /* that are looked at */
  int n;
  Tensor *batch; /* room for one sample */
} Trial;

/* Of how many samples, moved as the text says, the original knows the class. False: reported. */
static bool count_right(const Trial *t, const char *text, int *right) {
  Pruner *z = t->z;
  Augment g;
  *right = 0;
  if (!augment_parse(text, &g) || !augment_fits(z->s, &g, t->data)) return false;
  for (int k = 0; k < t->n; k++) {
    data_batch(t->data, &t->rows[k], 1, t->batch);
    augment_batch(&g, t->data, t->batch, &t->rows[k], 0, 0);
    if (!runner_run(t->original, t->batch, z->n_inputs + 1, NULL, 0)) return false;
    *right += metric_largest(&t->original->outputs[z->loss_output]) ==
              (int64_t)tensor_element(&t->batch[z->n_inputs], 0);
  }
  return true;
}

/* The lesser side of the images; 0: there are none. */
static int64_t image_side(const TrainData *d) {
  for (int k = 0; k < d->n_inputs; k++) {
    const TrainArray *a = &d->arrays[k];
    if (data_is_image(a)) return a->dims[2] < a->dims[3] ? a->dims[2] : a->dims[3];
  }
  return 0;
}

bool pruner_choose_augment(Pruner *z, Runner *original, const TrainData *d, const int64_t *rows,
                           int64_t n) {
  enum { MOST = 256, SMALLEST = 16, PART = 14 }; /* a shift by 2 of 28 pixels */
  static const double kept = 0.9;                /* of what it is right about */
  const int64_t side = image_side(d);
  Arena *a = z->s->arena;
  if (!z->labelled || z->epochs == 0 || z->asked->augment || side < SMALLEST || n == 0) return true;
  const char *const kinds[] = {arena_printf(a, "shift:%lld", (long long)(side / PART)), "flip",
                               "crop:0.5", "color:0.4"};
  const Trial t = {z, original, d, rows, n < MOST ? (int)n : MOST, data_batch_new(a, d, NULL, 1)};
  int plain, right;
  if (!count_right(&t, NULL, &plain)) return false;
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    if (!count_right(&t, kinds[k], &right)) return false;
    if (right < kept * plain) continue;
    z->augment = z->augment ? arena_printf(a, "%s,%s", z->augment, kinds[k]) : kinds[k];
  }
  return true;
}
