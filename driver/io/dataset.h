/* Samples for calibration and for measuring. */
#pragma once
#include "driver/driver.h"

typedef struct DataInput { /* what the model takes, as its header describes it */
  const char *name;
  DType dtype;
  int rank;
  const int64_t *dims; /* negative: any size */
} DataInput;

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
