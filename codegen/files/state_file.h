/* A file with the state of a training: what a caller's buffer holds, described well enough to be
 * checked before any of it is used, and room for what a loop wants to remember. Little endian:
 *
 *   0  "BURINST1"        32  XXH3-64 of the table of tensors
 *   8  bytes in front of the state's (a multiple of 64)
 *  16  tensors           40  bytes of the loop's section
 *  24  bytes of the state    48  zeros, up to 64: the table
 *
 * A tensor of the table: kind and type (32 bits each), offset, bytes, length of its name, the name with
 * zeros up to 8. Behind the table zeros, the state, the loop's section, XXH3-64 of all before. */
#pragma once
#include "codegen/files/outputs.h"

typedef struct StateEntry { /* a tensor of the state */
  const char *name;
  int32_t kind;  /* StateKind */
  int32_t dtype; /* TensorProto.DataType */
  uint64_t offset, bytes;
} StateEntry;

typedef struct StateFile {
  int n;
  const StateEntry *entries;
  uint64_t state_bytes;
  const void *state;
  uint64_t more_bytes; /* the loop's section */
  const void *more;
} StateFile;

uint64_t state_file_layout(Arena *a, const StateFile *f); /* the hash of the table */
/* Replaces the file at `path` as a whole: what is there stays until the new one is on the disk. o has
 * no other files. */
bool state_file_write(Outputs *o, const char *path, const StateFile *f);
/* Every field is checked; pointers lead into the arena. False: reported. */
bool state_file_read(Arena *a, Diag *d, const char *path, StateFile *out);
