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
  BURIN_RT_PROGRAM = 1
};
const unsigned char *burin_runtime_object(Arch arch, int kind, size_t *size);
