/* Inside runtime/cuda: one device as a model uses it. Everything of a run is kept here, too: runs on
 * one device follow each other, held apart by its lock. */
#pragma once
#include <stdbool.h>

#include "runtime/core/rt.h"
#include "runtime/core/sys.h"
#include "runtime/cuda/driver_api.h"
#include "runtime/cuda/gpu.h"

enum { GRAPHS = 8, MOST_RECORDED = 1 << 14, TIMERS = 128, DEVICE_ALIGN = 256, HOST_ALIGN = 64 };

/* Why something failed: a text and what stands in it for %s and %u. All texts are constants, of
 * this program or of the driver: they outlive the device. */
typedef struct Fault {
  const char *text; /* NULL: nothing failed */
  int64_t a, b;
} Fault;

/* A tensor that crosses the border, in the run that goes on. */
typedef struct Border {
  const void *host; /* NULL: it is on the device already */
  CuAddress device; /* where kernels find it; 0: it is absent */
  CuAddress given;  /* on the device, where that is not aligned; else 0 */
  uint64_t bytes;
  bool staged; /* through pinned memory, at: */
  uint64_t at;
} Border;

/* The launches of a run with these sizes, addresses and controls. */
typedef struct Graph {
  int64_t *key;    /* of Device.key_words words */
  int64_t *syms;   /* behind its steps */
  bool used;       /* a run had this key */
  bool refused;    /* the driver could not make a graph of it */
  CuGraphExec run; /* NULL: not made yet */
} Graph;

typedef struct Timer {
  CuEvent begin, end;
  int32_t step;
} Timer;

typedef struct Device {
  size_t bytes; /* of this block */
  Driver cu;
  const GpuModel *model;
  uint32_t lock;
  Fault fault;      /* of the call that goes on */
  const char *lost; /* what ended its context: it can't be used any more */
  CuContext context;
  CuDevice number;
  int32_t capability; /* × 10 */
  bool retained;      /* a primary context, which is to be released */

  /* ---- code ---- */
  CuModule *modules;
  CuFunction *functions; /* by kernel */
  void **args;           /* of the kernel with most parameters */

  /* ---- streams ---- */
  CuStream stream;
  CuStream recorder; /* on which launches are captured */
  CuEvent done;      /* of the last run that nobody waited for */
  bool queued;       /* there is such a run */
  Timer timers[TIMERS];
  int n_timers, timers_made;

  /* ---- memory ---- */
  CuAddress weights;
  bool uploaded;
  CuAddress memory; /* arena, then the tensors that come from the host or go there */
  uint64_t memory_bytes;
  bool sent; /* inputs were copied into this block */
  char *pinned; /* NULL: the driver has none, and copies go without */
  uint64_t pinned_bytes;
  char *host; /* of runtime functions */
  uint64_t host_bytes;

  /* ---- the run ---- */
  char *tables; /* what the following point into */
  size_t tables_bytes;
  int32_t n_in, n_out, key_words, n_syms, control_words;
  Border *border; /* inputs, then outputs */
  void **addresses;
  int64_t *key;
  int64_t *controls;   /* control_words: bytes of inputs that decide what is launched */
  bool controls_known; /* the host had them */
  int64_t *syms;       /* of the entry */
  Graph graphs[GRAPHS];
  int next_graph;
  const BurinOptions *options;
  CuStream on; /* where its work is queued */
  bool waits;
  Graph *recording; /* what `recorder` captures; NULL: nothing */
  int n_recorded;

  struct Device *next; /* of those that models have of their own */
} Device;

/* ---- driver_open.c ---- */
bool driver_open(Device *d);
/* Notes why; false. What was noted first stays. */
bool device_fault(Device *d, const char *text, int64_t a, int64_t b);
#define TEXT_VALUE(text) ((int64_t)(uintptr_t)(text))
/* Of a call of the driver: notes `what: why` when it failed, and that the device is lost where
 * nothing on it can work any more. */
bool device_check(Device *d, CuResult r, const char *what);
const char *device_error_text(const Device *d, CuResult r);
void device_report(const Device *d, BurinFailure *failure);

/* ---- device.c ---- */
/* A locked device for a run, its context current; NULL: *failure says why. */
Device *device_take(const GpuModel *m, const BurinOptions *o, int32_t *status);
void device_give(Device *d);

/* ---- memory.c ---- */
/* Weights, arena and room for n tensors of the border, at which their addresses then point. */
bool device_make_room(Device *d, uint64_t arena_bytes, int n);
/* Of d->host. */
bool device_host_room(Device *d, uint64_t bytes);
void device_free_memory(Device *d);
static inline uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

/* ---- graph.c ---- */
/* Looks for the run's key; launches its graph (true), or begins to record one where that pays. */
bool graph_replay(Device *d, const int64_t *dims, int32_t n_dims);
/* The next launch is to be recorded, too. */
bool graph_records(Device *d);
/* Of what was recorded; whole: every step was gone through. */
void graph_finish(Device *d, bool whole);
void graph_drop_all(Device *d);
