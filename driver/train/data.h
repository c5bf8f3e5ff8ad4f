/* Samples of training: arrays of an .npz, from which batches are put together. */
#pragma once
#include "driver/io/dataset.h"
#include "runtime/abi.h"

enum { MOST_CHANNELS = 64 }; /* with a mean of their own */

typedef struct TrainArray { /* what an input of the step gets */
  const char *name;         /* of the array */
  const Tensor *from; /* samples along its first axis; batch_axis -1: the same for every batch */
  DType dtype;
  int rank, batch_axis;
  int64_t dims[MAX_RANK];  /* of a batch, but for its own size */
  int64_t outer, inner;    /* a sample is outer × inner elements; a batch outer × batch × inner */
  bool last;               /* the array has its channels last, the input first */
  bool plain;              /* elements are copied as they are */
  int64_t channels, plane; /* element k of a sample is of channel k / plane % channels */
  double scale, mean[MOST_CHANNELS], std[MOST_CHANNELS];
} TrainArray;

typedef struct TrainData {
  const char *path;
  struct DataFile *file;
  const Tensor *labels; /* the array, as it is; NULL: there are none */
  int n, n_inputs;      /* arrays: inputs, and labels behind them */
  TrainArray *arrays;
  int64_t samples, fixed_batch; /* fixed_batch 0: any */
  uint64_t hash;                /* of all arrays */
} TrainData;

enum { MORE_INPUTS = 4 }; /* of a step: teacher, other labels, and two shares */

/* Reads FILE.npz[,scale=…,mean=…,std=…,channels=last], in which there must be an array `labels` (NULL:
 * none is read). False: reported. */
bool data_open(Session *s, const char *text, const char *labels, TrainData *out);
/* The file of such a text. */
const char *data_path(Arena *a, const char *text);
/* FILE.npz with the options of `data`, where it has none of its own. */
const char *data_like(Arena *a, const char *file, const char *data);
/* Arrays for the first n_inputs inputs of the step and for the labels, the one behind them. An array
 * named `labels` is no input. False: reported. */
bool data_fit(Session *s, const char *labels, const BurinModel *step, int n_inputs, TrainData *d);
/* Labels that are class numbers must be in [0, classes), or be `ignored`. False: reported, with the row. */
bool data_check_classes(Session *s, const TrainData *d, int64_t classes, int64_t ignored);
/* --validation: the part that is kept (def where nothing is said), or a file of others, for which it is
 * 0. False: usage error printed. */
bool data_validation(const char *text, double def, double *part, const char **file);
/* Puts numbers 0 to n - 1 into rows, those that are kept to measure first; how many of these there are, as
 * the seed draws them. */
int64_t data_split(int64_t seed, double part, int64_t n, int64_t *rows);
/* Memory for batches of up to n samples of either (b may be NULL): a tensor for each array, and room for
 * MORE_INPUTS others. */
Tensor *data_batch_new(Arena *arena, const TrainData *a, const TrainData *b, int64_t n);
/* Fills it with these samples: all arrays, or one. */
void data_batch(const TrainData *d, const int64_t *rows, int64_t n, Tensor *batch);
void data_array(const TrainArray *a, const int64_t *rows, int64_t n, Tensor *to);

/* --augment=shift:N,flip,crop:PART,color:PART,mixup:ALPHA,cutmix:ALPHA */
typedef struct Augment {
  int64_t shift;
  bool flip;
  double crop, color;   /* least area; most change; 0: not asked for */
  double mixup, cutmix; /* of Beta(alpha, alpha); 0: not asked for */
  char *image;          /* room for one, */
  float *pixels;        /* and for two */
  size_t bytes, count;
} Augment;
bool augment_parse(const char *text, Augment *out); /* NULL: nothing. False: usage error printed */
/* Reported where there are no images, inputs that cannot be mixed, or labels that would have to move with
 * them. */
bool augment_fits(Session *s, Augment *g, const TrainData *d);
/* rows: of the samples in the batch, which, with seed and epoch, say how each is moved. */
void augment_batch(const Augment *g, const TrainData *d, Tensor *batch, const int64_t *rows,
                   uint64_t seed, uint64_t epoch);
static inline bool augment_moves(const Augment *g) {
  return g->shift || g->flip || g->crop > 0 || g->color > 0;
}
static inline bool augment_mixes(const Augment *g) { return g->mixup > 0 || g->cutmix > 0; }
/* ---- warp.c: one image [C, H, W], as the draw says ---- */
/* A part of it, of at least `least` of its area, as large as the whole; in another place. */
void warp_crop(const int64_t *chw, double least, const float *from, float *to, uint64_t draw);
/* Other contrast, brightness and saturation, by up to the part `most`. */
void warp_color(const int64_t *chw, double most, float *image, uint64_t draw);
/* ---- mix.c: [N, C, H, W] of floats, the batch in front ---- */
bool data_is_image(const TrainArray *a);
bool mix_fits(Session *s, const Augment *g, const TrainData *d);
/* Mixes samples of another batch of the same size into this one, as seed, epoch and the call say; which
 * share of each is still its own. */
double mix_batch(const Augment *g, const TrainData *d, Tensor *batch, const Tensor *other,
                 uint64_t seed, uint64_t epoch, uint64_t call);
