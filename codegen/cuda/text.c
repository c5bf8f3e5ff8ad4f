/* The head of CUDA text: types, scalar rows, what a GPU has instructions for. */
#include <string.h>

#include "codegen/c/embed.h"
#include "codegen/cuda/cuda.h"

EMBED(burin_cuda_stand_in, "runtime/cuda/stand_in.h");
EMBED(burin_cuda_device, "codegen/cuda/device.h");
EMBED(burin_cuda_ops, "codegen/cuda/device_ops.h");

/* Without includes: NVRTC has no headers, and device.h says what is needed. */
static void add_lines(StrBuf *b, const char *s, bool includes) {
  while (*s) {
    const size_t n = strcspn(s, "\n") + 1;
    if (includes || strncmp(s, "#include", 8) != 0) sb_printf(b, "%.*s", (int)n, s);
    s += n;
  }
}

void cuda_write_head(StrBuf *b) {
  sb_printf(b, "#ifdef BURIN_STAND_IN\n");
  add_lines(b, burin_cuda_stand_in_begin, true);
  sb_printf(b, "#endif\n");
  add_lines(b, burin_cuda_device_begin, true);
  add_lines(b, c_scalar_text(), false);
  add_lines(b, burin_cuda_ops_begin, false);
}
