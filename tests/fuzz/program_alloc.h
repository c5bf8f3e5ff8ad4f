/* Put in front of the program's sources when they are fuzzed: memory with red zones, freed after
 * each input. */
#pragma once
#include "runtime/core/sys.h"
void *fuzz_alloc(size_t bytes);
#define sys_alloc fuzz_alloc
