/* Images as samples, made tensors of by the same code as in compiled programs. */
#pragma once
#include "driver/io/dataset.h"

/* Compiles the file to the program `out` at an -O level (NULL: the options'); exit status. */
typedef int (*CompileFn)(const Options *o, const char *file, const char *level, const char *out);
/* A DatasetPicture: `user` is a Pictures. */
typedef struct Pictures {
  Session *s;
  const DataInput *input;
  CompileFn compile;
  const char *program; /* that hands its input on, once one was needed */
  int fd;
} Pictures;
bool picture_read(void *user, const char *path, const char *options, Tensor *out);
