/* Images that are moved, mirrored, cut out and coloured, each in a way that its seed, epoch and row say. What
 * comes in at a border repeats it. */
#include <stdlib.h>
#include <string.h>
#include "driver/train/data.h"
#include "driver/train/random.h"

/* NAME:X, or NAME, which is X = def (0: there is none); where X ends, s where it does not fit. */
static const char *read_word(const char *s, const char *name, double def, double most, double *x) {
  const size_t n = strlen(name);
  char *end = (char *)(uintptr_t)s + n;
  if (strncmp(s, name, n) != 0) return s;
  *x = *end == ':' ? strtod(end + 1, &end) : def;
  return *x > 0 && *x <= most ? end : s;
}

bool augment_parse(const char *text, Augment *out) {
  enum { MOST_ALPHA = 100 };
  *out = (Augment){0};
  const struct {
    const char *name;
    double def, most, *x;
  } words[] = {{"mixup", 1, MOST_ALPHA, &out->mixup},
               {"cutmix", 1, MOST_ALPHA, &out->cutmix},
               {"crop", 0, 1, &out->crop},
               {"color", 0, 1, &out->color}};
  if (text && strcmp(text, "none") == 0) return true;
  for (const char *s = text; s && *s;) {
    const char *end = s;
    char *behind = (char *)(uintptr_t)s;
    for (size_t k = 0; end == s && k < sizeof words / sizeof *words; k++)
      end = read_word(s, words[k].name, words[k].def, words[k].most, words[k].x);
    if (strncmp(s, "shift:", 6) == 0)
      out->shift = strtol(s + 6, &behind, 10), end = behind;
    else if (strncmp(s, "flip", 4) == 0)
      out->flip = true, end = s + 4;
    if (end == s || (*end && *end != ',') || out->shift < 0 || out->shift > 1 << 12)
      return usage_error(
                 "--augment: '%s' is none of shift:N, flip, crop:PART, color:PART, "
                 "mixup:ALPHA, cutmix:ALPHA and none",
                 text),
             false;
    s = *end ? end + 1 : end;
  }
  return true;
}

bool augment_fits(Session *s, Augment *g, const TrainData *d) {
  const TrainArray *labels = &d->arrays[d->n_inputs];
  bool any = false;
  if (!mix_fits(s, g, d)) return false;
  if (!augment_moves(g)) return true;
  for (int k = 0; k < d->n_inputs; k++) {
    const TrainArray *a = &d->arrays[k];
    if (!data_is_image(a)) continue;
    const size_t bytes = (size_t)(a->inner * dtype_bytes(a->dtype));
    if (bytes > g->bytes) g->bytes = bytes;
    if ((size_t)a->inner > g->count) g->count = (size_t)a->inner;
    any = true;
  }
  g->image = arena_alloc(s->arena, g->bytes + 1);
  g->pixels = ARENA_ARRAY(s->arena, float, 2 * g->count + 1);
  if (!any) return dataset_error(s, d->path, NULL, "--augment: no input is an image [N,C,H,W]");
  return labels->outer * labels->inner == 1 ||
         dataset_error(s, d->path, labels->name,
                       "--augment: labels that belong to places would have to move with the image");
}

static int64_t inside(int64_t v, int64_t n) { return v < 0 ? 0 : v >= n ? n - 1 : v; }

/* An image of `planes` planes, moved from `old`. */
static void move(const int64_t *dims, int64_t dy, int64_t dx, bool mirrored, int bytes,
                 const char *old, char *to) {
  const int64_t planes = dims[1], h = dims[2], w = dims[3];
  for (int64_t p = 0; p < planes; p++)
    for (int64_t y = 0; y < h; y++) {
      const char *line = old + (p * h + inside(y + dy, h)) * w * bytes;
      for (int64_t x = 0; x < w; x++, to += bytes) {
        const int64_t from = inside(x + dx, w);
        memcpy(to, line + (mirrored ? w - 1 - from : from) * bytes, (size_t)bytes);
      }
    }
}

static void to_floats(DType t, const char *from, int64_t n, float *to) {
  if (t == DT_F32)
    memcpy(to, from, (size_t)n * sizeof *to);
  else
    for (int64_t k = 0; k < n; k++) to[k] = (float)dtype_load_f(t, from + k * dtype_bytes(t));
}

static void from_floats(DType t, const float *from, int64_t n, char *to) {
  if (t == DT_F32)
    memcpy(to, from, (size_t)n * sizeof *from);
  else
    for (int64_t k = 0; k < n; k++) dtype_store_f(t, to + k * dtype_bytes(t), from[k]);
}

/* What is another part of the image, or of other colours, as 32-bit floats. */
static void warp(const Augment *g, const int64_t *chw, DType t, char *image, uint64_t draw) {
  const int64_t n = chw[0] * chw[1] * chw[2];
  float *now = g->pixels, *next = g->pixels + g->count;
  to_floats(t, image, n, now);
  if (g->crop > 0) {
    warp_crop(chw, g->crop, now, next, draw);
    now = next;
  }
  if (g->color > 0) warp_color(chw, g->color, now, draw);
  from_floats(t, now, n, image);
}

void augment_batch(const Augment *g, const TrainData *d, Tensor *batch, const int64_t *rows,
                   uint64_t seed, uint64_t epoch) {
  const uint64_t range = (uint64_t)(2 * g->shift + 1);
  if (!augment_moves(g)) return;
  for (int i = 0; i < d->n_inputs; i++) {
    if (!data_is_image(&d->arrays[i])) continue;
    const int bytes = dtype_bytes(batch[i].dtype);
    const size_t each = (size_t)(d->arrays[i].inner * bytes);
    for (int64_t k = 0; k < batch[i].dims[0]; k++) {
      char *image = (char *)batch[i].data + (size_t)k * each;
      const uint64_t row = (uint64_t)rows[k], at = epoch << 32 ^ 0xa5, r = random_at(seed, at, row);
      memcpy(g->image, image, each);
      move(batch[i].dims, (int64_t)random_below(r << 20, range) - g->shift,
           (int64_t)random_below(r << 40, range) - g->shift, g->flip && r >> 63, bytes, g->image,
           image);
      if (g->crop > 0 || g->color > 0) warp(g, batch[i].dims + 1, batch[i].dtype, image, r);
    }
  }
}
