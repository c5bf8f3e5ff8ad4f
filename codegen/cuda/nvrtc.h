/* CUDA C++ → machine code: NVRTC, which is opened when it is needed, in processes of its own.
 * Options and result codes: NVRTC's documentation, of CUDA 12 and 13. */
#pragma once
#include "ir/base/arena.h"

typedef struct NvrtcKernel { /* what ptxas says of a kernel */
  const char *name;
  int registers; /* of a thread */
  int shared;    /* static shared memory of a block, bytes */
  int stack;     /* of a thread, bytes: arrays that are no registers, and spills */
  int spills;    /* bytes stored and loaded because registers did not suffice */
} NvrtcKernel;

/* A text for one architecture. */
typedef struct NvrtcJob {
  const char *text;
  const char *name; /* of the text, for messages of the compiler */
  int sm;           /* cubin for this compute capability × 10; negative: PTX for -sm and newer */
  bool plain;       /* without ldmatrix, and with ptxas at -O1: what NVRTC crashes on may pass so */

  /* Results, in the arena. */
  const char *error; /* NULL: done */
  bool again;        /* the error may be one of its own: another try is worth it */
  const char *image; /* cubin, or PTX with the zero behind it */
  size_t bytes;
  const NvrtcKernel *kernels; /* of cubins */
  int n_kernels;
} NvrtcJob;

typedef enum NvrtcStatus {
  NVRTC_DONE,
  NVRTC_FAILED, /* some job has an error */
  NVRTC_ABSENT  /* there is no NVRTC */
} NvrtcStatus;

/* Several at a time, in as many processes; equal ones once. NVRTC may crash: then the job has an
 * error. Processes are forked: no other thread of the caller may hold a lock meanwhile. */
NvrtcStatus nvrtc_compile(NvrtcJob *jobs, int n, int processes, Arena *a);
extern const char nvrtc_advice[]; /* what to do where there is none */

/* ---- nvrtc.c: inside a process ---- */
typedef struct Nvrtc Nvrtc;
typedef struct NvrtcReply {
  int status;        /* 0: done, else a result of NVRTC */
  char *image, *log; /* to be freed */
  size_t bytes, log_bytes;
} NvrtcReply;
const Nvrtc *nvrtc_load(void); /* NULL: there is none */
void nvrtc_run(const Nvrtc *v, const NvrtcJob *job, NvrtcReply *out);

/* ---- figures.c ---- */
/* What ptxas wrote with -v. */
const NvrtcKernel *nvrtc_figures(const char *log, Arena *a, int *n);
