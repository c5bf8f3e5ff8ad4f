/* Fuzzes the readers of a compiled program: npy, npz, TensorProto, PNG (inflate, image conversion with
 * any options), deflate streams alone, numbers in text. The first byte chooses. */
#include <stdlib.h>

#include "runtime/image/image.h"
#include "runtime/program/program.h"
#include "tests/fuzz/program_alloc.h"

enum { MOST = 64, LIMIT = 1 << 26 };
static void *blocks[MOST];
static int n_blocks;

void *fuzz_alloc(size_t bytes) {
  if (n_blocks == MOST || bytes > LIMIT) return NULL;
  return blocks[n_blocks++] = calloc(1, bytes);
}

static void read_numbers(const char *text) {
  char shown[64];
  Out out = {.fd = -1};
  double d;
  int64_t i;
  for (const char *s = text; *s; s++) {
    const char *at = s;
    if (text_double(&at, &d)) out_format(&out, "%g %12g", d, -d);
    at = s;
    if (text_int(&at, &i)) out_format(&out, "%d %-9d", i, i);
  }
  file_name(text, shown, sizeof shown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const int64_t dims[] = {1, -1, -2, -3};
  const BurinTensorInfo infos[] = {{"x", 1, 4, dims, "f32[1,c,h,w]", 0, 0},
                                   {"y", 10, 3, dims, "f16[1,c,h]", 0, 0},
                                   {"z", 22, 2, dims, "i4[1,c]", 0, 0}};
  if (size < 2) return 0;
  Program *p = calloc(1, sizeof *p);
  p->self = "fuzz";
  p->out.fd = p->err.fd = -1;
  const BurinTensorInfo *info = &infos[data[1] % 3];
  uint8_t *copy = fuzz_alloc(size - 2 + 64); /* as file_read gives it */
  __builtin_memcpy(copy, data + 2, size - 2);
  const Bytes file = {copy, size - 2};
  Tensor t = {0};
  Image image;
  Npz z;
  const int kind = data[0] % 7;
  if (kind == 0)
    npy_parse(p, "f", file, info, &t);
  else if (kind == 1)
    pb_parse(p, "f", file, &t);
  else if (kind == 2)
    inflate_bytes(file.data, file.size, fuzz_alloc(4096), 4096);
  else if (kind == 3)
    read_numbers((const char *)copy); /* zeros stand behind the file */
  else if (kind == 6 && npz_open(p, "f", file, &z)) {
    for (int64_t k = 0; k < z.n && k < MOST / 4; k++) npz_item(p, &z, k, info, &t);
  } else if (kind == 4) {
    static const uint8_t pixels[2 * 2 * 3] = {1, 2, 3};
    const Image small = {2, 2, 3, pixels};
    image_to_tensor(p, "f", &small, (const char *)copy, info, &t);
  } else if (kind == 5 && image_read(p, "f", file, &image))
    image_to_tensor(p, "f", &image, "mean=1:2:3", info, &t);
  while (n_blocks > 0) free(blocks[--n_blocks]);
  free(p);
  return 0;
}
