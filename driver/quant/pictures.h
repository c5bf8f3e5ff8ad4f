/* Images as samples, made tensors of by the same code as in compiled programs. */
#pragma once
#include "driver/io/dataset.h"

/* A DatasetPicture: `user` is a Pictures. */
typedef struct Pictures {
  Session *s;
  const DataInput *input;
  const char *program; /* that hands its input on, once one was needed */
  int fd;
} Pictures;
bool picture_read(void *user, const char *path, const char *options, Tensor *out);
