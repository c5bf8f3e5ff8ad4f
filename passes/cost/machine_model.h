/* The machine as choices see it: what work costs, in cycles of one core. Cost models count work
 * (multiply-adds, loads, bytes by where they lie, loops started); what that costs is here and in
 * machine_model.c alone, made of the target's row and of constants that were measured. */
#pragma once
#include "ir/base/dtype.h"
#include "targets/target.h"

typedef struct MachineModel {
  double lanes;      /* of 32 bits in a vector */
  double fmas;       /* vector multiply-adds a cycle; a vector of 64-bit sums is two registers */
  double loads;      /* vector loads a cycle */
  double latency;    /* of a multiply-add: cycles until its sum can be added to */
  int registers;     /* for such vectors */
  int a_steps;       /* steps of k that a vector of A serves: a multiply-add takes its lanes */
  bool in_order;     /* what is loaded late is waited for */
  double l1, l2, l3; /* bytes of a core's caches */
  int threads;       /* that share the work, at most */
} MachineModel;

/* For multiply-adds with sums of type `sums`. */
MachineModel machine_model(const Target *t, DType sums, int threads);

/* ---- arithmetic ---- */
/* Cycles of n vector multiply-adds, of n vector loads, of n multiply-adds in full lanes. */
double model_fmas(const MachineModel *m, double n);
double model_loads(const MachineModel *m, double n);
double model_macs(const MachineModel *m, double n);
/* Cycles of n vector multiply-adds, `chain` of which wait for each other. */
double model_chains(const MachineModel *m, double n, double chain);

/* ---- threads ---- */
/* Whether a loop of so many cycles is made parallel: two threads must have what a thread is woken for.
 * How many share it is decided when it runs, by the grain. */
static inline bool model_parallel(double cycles) { return cycles > 2 * THREAD_CYCLES; }

/* ---- memory ---- */
/* Where data of `size` bytes are found when they are used again. */
typedef enum CacheLevel { CACHE_L1, CACHE_L2, CACHE_L3, CACHE_BEYOND } CacheLevel;
CacheLevel model_level(const MachineModel *m, double size);
/* Cycles of storing a byte and reading it back from there. */
double model_trip(CacheLevel level);
/* Half of a trip: cycles of reading or writing `bytes`, all that a kernel touches. */
double model_touch(const MachineModel *m, double bytes);
/* Cycles of reading `bytes` one after the other: a packed panel, from the second level; anything
 * there; from beyond. Weights that share the second level with values. */
double model_read_panel(double bytes);
double model_read_near(double bytes);
double model_read_far(double bytes);
double model_read_weights(const MachineModel *m, double bytes);
/* The same for weights that a few rows use, over and over: what the arithmetic does not hide. */
double model_weights_again(const MachineModel *m, double bytes);
/* Cycles of storing the rows of a register tile: what it stores is all of its rows, or a piece of
 * each. */
double model_store_tile(const MachineModel *m, int rows, int vectors, bool pieces);

/* ---- loops: cycles of starting one ---- */
enum {
  MODEL_CALL = 100,           /* a kernel */
  MODEL_TILE = 12,            /* the sums of a register tile */
  MODEL_PIXELS = 8,           /* a strip of pixels of a depthwise convolution */
  MODEL_STAGE = 100,          /* one stage of a chain of convolutions, for a few rows */
  MODEL_WINOGRAD_BLOCK = 2000 /* a block of tiles, with what is lost at its edges */
};
