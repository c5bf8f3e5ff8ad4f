/* Runs a model of this process on samples. */
#pragma once
#include "driver/io/dataset.h"
#include "driver/session/library.h"
#include "runtime/host_heap.h"
#include "runtime/host_pool.h"

typedef struct Runner {
  Session *s;
  Library lib;
  BurinPool *pool;
  Arena *arena;  /* of memory and outputs, made anew when sizes change */
  int64_t *dims; /* values of the symbols */
  void *memory;
  uint64_t memory_bytes;
  BurinHeap heap; /* of models that use one */
  const void **in;
  void **out;
  void **found;       /* by output: where one that has no largest size lies */
  void *const *given; /* by output: memory of the caller's, or NULL; NULL: none has any */
  Tensor *outputs;    /* of the last run */
} Runner;

/* Takes over lib. */
bool runner_open(Session *s, const Library *lib, int threads, Runner *out);
void runner_close(Runner *r);
/* in: data of the inputs of the sample, then of `extra` further inputs. False: reported. */
bool runner_run(Runner *r, const Tensor *sample, int n, const void *const *extra, int n_extra);
/* The first n outputs of the last run, in the session's arena. */
Tensor *runner_copy_outputs(const Runner *r, int n);
/* The least time of each kernel in some runs of the sample on one thread; us: microseconds, by
 * kernel of the model. False: reported. */
bool runner_profile(Runner *r, const Tensor *sample, int n, double *us);
