/* From texts of kernels to what a program carries of them, or to files. */
#pragma once
#include "codegen/backend.h"
#include "codegen/cuda/nvrtc.h"

typedef struct CudaSource { /* of a unit of kernels */
  const char *text;
  Unit *unit;        /* NULL: of all units together */
  int number;        /* by which launches name it */
  int first, n;      /* position of its first kernel, kernels */
  const int *starts; /* [n]: where each begins in the text */
} CudaSource;

/* Machine code of all units for all GPUs of the target, and PTX for newer ones, as GpuImages
 * (runtime/cuda/gpu.h) by the name NAME_images; figures go to the program. As Backend.gather. */
const char *cuda_gather(const Program *p, const CudaSource *sources, int n, Gathered *out,
                        Unit **at);
/* A text of all kernels as a file: itself, or what NVRTC makes of it. As Backend.write. */
const char *cuda_write(const Program *p, const CudaSource *all, EmitKind kind, FILE *f);

/* ---- retry.c ---- */
/* A second try of a job that failed, `j` of the unit s, with a warning that names the kernel at
 * fault. False: the unit's `failed` names it. */
bool retry_plain(const Program *p, const CudaSource *s, NvrtcJob *j);
/* Of all that failed; `each` jobs belong to a source. False: one of them still has an error. */
bool retry_all(const Program *p, const CudaSource *sources, int each, NvrtcJob *jobs, int n);

/* The array of n jobs, job i being of the unit numbers[i]. */
const void *images_pack(const NvrtcJob *jobs, const int *numbers, int n, Arena *a, size_t *bytes);
