/* Samples for calibration and for measuring. */
#pragma once
#include "driver/driver.h"

typedef struct DataInput { /* what the model takes, as its header describes it */
  const char *name;
  DType dtype;
  int rank;
  const int64_t *dims; /* negative: any size */
} DataInput;

/* Of every input of g. NULL: reported, as what `who` does not take. */
DataInput *dataset_inputs(Session *s, const Graph *g, const char *who);

typedef struct Dataset {
  int n_inputs;
  Vec(Tensor *) samples; /* of n_inputs tensors each, as the model takes them */
  int64_t *labels;       /* by sample; NULL: none */
  const char *path;
} Dataset;

/* Reads `path`: an .npz with an array per input, samples along the first axis; or a folder of .npz,
 * .npy or .pb files, or of folders of these, each one sample; or a folder of images
 * (`DIR,mean=…,scale=…`: as behind the images of `burin run`). Arrays are found by the input's name,
 * or by position as in_0, input_0 …; integers become floats where the model wants these. labels:
 * name of the array of labels, or NULL. most: take so many samples, spread evenly (0: all). False:
 * reported. */
typedef struct
    DatasetPicture { /* makes a tensor of an image; options begin with a comma, or are "" */
  bool (*read)(void *user, const char *path, const char *options, Tensor *out);
  void *user;
} DatasetPicture;
bool dataset_read(Session *s, const char *path, const char *labels, int64_t most, int n_inputs,
                  const DataInput *inputs, const DatasetPicture *picture, Dataset *out);

/* ---- npz.c ---- */
typedef struct NamedTensor {
  const char *name;
  Tensor t;
} NamedTensor;
typedef Vec(NamedTensor) NamedTensors;
bool npz_read(Session *s, const char *path, NamedTensors *out);

/* ---- parts, for those who read arrays as a whole ---- */
/* The array of input k: by its name, by position, or the only one that is not `labels`. NULL: reported. */
const NamedTensor *dataset_array(Session *s, const char *path, const NamedTensors *arrays,
                                 const char *labels, int n_inputs, const DataInput *inputs, int k);
/* Whether the sizes without ones are those of `in` without ones; out: sizes as `in` has them. */
bool dataset_fit(const DataInput *in, int rank, const int64_t *dims, int64_t *out);
const char *dataset_shape(Arena *a, int rank, const int64_t *dims); /* [3,?,5] */
/* Reports what is wrong with an array (or the file: array NULL); false. */
bool dataset_error(Session *s, const char *path, const char *array, const char *what);
