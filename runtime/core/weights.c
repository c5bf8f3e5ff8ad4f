/* Weights that lie in a file: maps it over their place and checks that it is the file that was
 * written with the code. Linked only into models that have one. */
#define XXH_INLINE_ALL
#define XXH_NO_STREAM
#include <xxhash.h>

#include "runtime/core/rt.h"
#include "runtime/core/sys.h"

int32_t burin_rt_map_weights(const BurinModel *m, const char *path) {
  const size_t bytes = (size_t)m->weight_bytes + BURIN_WEIGHTS_TAIL;
  if (!path) return BURIN_E_ARGUMENT;
  const int fd = (int)sys_open(path, SYS_O_RDONLY | SYS_O_NONBLOCK, 0);
  if (fd < 0) return BURIN_E_ARGUMENT;
  const bool fits = (uint64_t)sys_size(fd) == bytes;
  const bool mapped = fits && sys_map_over((void *)m->weights, bytes, fd);
  sys_close(fd);
  if (!mapped) return fits ? BURIN_E_ARGUMENT : BURIN_E_WEIGHTS;
  const uint64_t hash = XXH3_64bits(m->weights, (size_t)m->weight_bytes);
  uint64_t stored;
  __builtin_memcpy(&stored, (const char *)m->weights + m->weight_bytes, sizeof stored);
  if (hash == m->weights_hash && stored == m->weights_hash) return BURIN_OK;
  sys_unmap_over((void *)m->weights, bytes); /* no run may use them */
  return BURIN_E_WEIGHTS;
}
