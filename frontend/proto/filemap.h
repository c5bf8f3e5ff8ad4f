/* Files: mapping, and opening external data without leaving its directory; internal to frontend/.
 */
#pragma once
#include "ir/graph/graph.h"

typedef struct FileMap {
  const uint8_t *data; /* NULL when empty */
  size_t size;
  ModelFile file; /* without its path */
} FileMap;

/* Maps a regular file read-only; it stays mapped for the life of the process. */
bool file_map(Diag *d, const Loc *loc, const char *path, FileMap *out);
/* Maps `location`, a relative path, below directory `root`: no "..", no symbolic link anywhere, a
 * regular file with one name. */
bool file_map_beneath(Diag *d, const Loc *loc, const char *root, const char *location,
                      FileMap *out);
