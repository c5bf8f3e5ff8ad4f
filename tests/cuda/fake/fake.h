/* A stand-in for libcuda.so.1, for tests on machines without a GPU: the calls of
 * runtime/cuda/driver_api.h. It is strict (a call that CUDA leaves undefined ends the process with a
 * message) and late: what is queued on a stream is done when somebody waits for it. Its "device
 * memory" can't be touched by the host. Kernels are those of a library for cuda:host.
 *
 *   FAKE_CUDA_KERNELS   LIBRARY:SYMBOL of a GpuModel whose kernels have host functions, or
 *                       nothing: every name is a kernel's, and it does nothing
 *   FAKE_CUDA_VERSION   12040      FAKE_CUDA_DEVICES  1
 *   FAKE_CUDA_MEMORY    bytes of each GPU, 1 GiB      FAKE_CUDA_SM  90
 *   FAKE_CUDA_REPORT    not empty: a line for every graph that is launched
 *   FAKE_CUDA_FAIL      init | pinned | capture | instantiate | launch:KERNEL | lost:KERNEL | load */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/driver_api.h"
#include "runtime/cuda/gpu.h"

#define API __attribute__((visibility("default"))) CuResult
enum { INVALID_VALUE = 1, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, NO_RESOURCES = 701 };
enum { CAPTURE_FORBIDS = 900, NO_IMAGE = 209, UNKNOWN = 999 };

typedef enum Kind { MODULE, FUNCTION, STREAM, EVENT, GRAPH, GRAPH_EXEC, MEMORY, PINNED } Kind;
typedef struct CuContextObject {
  int device, retained;
  CuResult lost; /* every call fails with it */
  CuStream legacy;
  size_t used; /* bytes of memory */
} Context;

/* ---- objects.c: what exists, contexts, devices ---- */
extern pthread_mutex_t fake_lock; /* recursive: around every call */
extern long fake_counts[8];
enum { COUNT_LIVE, COUNT_LAUNCHES, COUNT_GRAPH_LAUNCHES, COUNT_UPLOADED, COUNT_CAPTURED };
_Noreturn void fake_die(const char *what);
void fake_add(Kind kind, void *p, Context *c);
void fake_remove(Kind kind, void *p);          /* dies where there is no such object */
Context *fake_check(Kind kind, const void *p); /* likewise; its context */
Context *fake_current(void);                   /* dies where there is none */
bool fake_fails(const char *what, const char *name);
long fake_number(const char *variable, long standard);
#define ENTER_ANY pthread_mutex_lock(&fake_lock)
#define LEAVE(r)                      \
  do {                                \
    const CuResult r_ = (r);          \
    pthread_mutex_unlock(&fake_lock); \
    return r_;                        \
  } while (0)
/* Calls in a context. */
#define ENTER(c)                     \
  ENTER_ANY;                         \
  Context *const c = fake_current(); \
  if (c->lost) LEAVE(c->lost)

/* ---- memory.c ---- */
/* Bytes at p of one block on the device; dies where they are not. */
void fake_check_memory(CuAddress p, size_t bytes, const char *what);
bool fake_is_memory(CuAddress p);
bool fake_is_pinned(const void *p);
void fake_open_memory(bool open); /* all of it, for a kernel or a copy */

/* ---- work.c ---- */
bool fake_is_capturing(void);                    /* on the calling thread */
bool fake_is_used(CuAddress from, size_t bytes); /* by work that is queued */
CuResult fake_drain(CuStream s);                 /* does what is queued */

/* ---- code.c ---- */
struct CuFunctionObject {
  const GpuKernel *kernel;
  uint32_t most_shared;
};
/* Its parameter is one RtCall. */
static inline bool fake_takes_call(const GpuKernel *k) { return !k->n_bufs && k->unit >= 0; }
void fake_run_kernel(const GpuKernel *k, void *const *args, const int32_t grid[3]);
