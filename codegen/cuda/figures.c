/* Figures of kernels, from what ptxas writes into NVRTC's log with -v:
 *   ptxas info    : Compiling entry function 'add_kernel' for 'sm_80'
 *   ptxas info    : Function properties for add_kernel
 *   ptxas         .     8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
 *   ptxas info    : Used 12 registers, used 1 barriers, 256 bytes smem, 376 bytes cmem[0] */
#include <stdlib.h>
#include <string.h>

#include "codegen/cuda/nvrtc.h"

/* The number in front of `what` in a line; 0: it does not say. */
static int number_before(const char *line, const char *what) {
  const char *at = strstr(line, what);
  if (!at) return 0;
  while (at > line && at[-1] >= '0' && at[-1] <= '9') at--;
  return atoi(at);
}

static void read_line(const char *line, NvrtcKernel *k) {
  if (strstr(line, " bytes stack frame")) {
    k->stack = number_before(line, " bytes stack frame");
    k->spills =
        number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
  } else if (strstr(line, ": Used ")) {
    k->registers = number_before(line, " registers");
    k->shared = number_before(line, " bytes smem");
  }
}

const NvrtcKernel *nvrtc_figures(const char *log, Arena *a, int *n) {
  static const char begins[] = "Compiling entry function '";
  Vec(NvrtcKernel) list = {0};
  while (*log) {
    const size_t length = strcspn(log, "\n");
    const char *const line = arena_strndup(a, log, length), *const at = strstr(line, begins);
    if (at) {
      const char *const name = at + strlen(begins);
      const NvrtcKernel k = {.name = arena_strndup(a, name, strcspn(name, "'"))};
      vec_push(a, &list, k);
    } else if (list.n > 0) {
      read_line(line, &list.data[list.n - 1]);
    }
    log += length + (log[length] == '\n');
  }
  *n = list.n;
  return list.data;
}
