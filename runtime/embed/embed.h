/* The runtime as burin carries it, compiled for each architecture (cmake/runtime.cmake). */
#pragma once
#include <stddef.h>

#include "targets/target.h"

enum {
  /* An archive (ar): everything that generated code may call (runtime/core/rt.h,
   * runtime/ops/ops.h, and what compilers expect: memcpy, memset, memmove, memcmp; on ARM the
   * __aeabi_ functions). All symbols are hidden, those with libc's names also weak. Pass it
   * behind the model's object: only the needed members are taken. */
  BURIN_RT_LIBRARY = 0,
  /* A relocatable object: _start and the program around a model. It needs the library part and one
   * symbol, `const BurinModel burin_program_model`. */
  BURIN_RT_PROGRAM = 1,
  /* Archives for x86-64: the device of models whose kernels run on a GPU, by CUDA's driver, or on
   * the CPU in its place (runtime/cuda/gpu.h). They need the library part. */
  BURIN_RT_CUDA = 2,
  BURIN_RT_STAND_IN = 3,
  /* A shared library, to be linked against in place of the host's libc.so.6, of which BURIN_RT_CUDA
   * needs dlopen and dlsym. */
  BURIN_RT_LIBC = 4,
  BURIN_RT_PARTS
};
const unsigned char *burin_runtime_object(Arch arch, int kind, size_t *size);
