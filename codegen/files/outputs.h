/* The files that a command writes: all of them, or none (runtime/core/outfile.h). Every writer of
 * the compiler adds its files here; one commit publishes them. */
#pragma once
#include <stdio.h>
#include "ir/base/diag.h"
#include "runtime/core/outfile.h"

typedef struct Outputs {
  Arena *arena;
  Diag *diag;
  Vec(OutFile *) files;
  Vec(FileId) inputs;
} Outputs;

Outputs *outputs_new(Arena *a, Diag *d);
/* A file that the command reads: no output may replace it. */
void outputs_protect(Outputs *o, const char *path);
/* A file at `path` ("-": the standard output) to be written with outputs_write, or through its
 * descriptor. NULL: it cannot be; reported. */
OutFile *outputs_add(Outputs *o, const char *path, bool executable);
/* Can each of them (NULL: none) be written? Nothing is. False: reported. */
bool outputs_try(Outputs *o, int n, const char *const *paths);
bool outputs_write(Outputs *o, OutFile *f, const void *data, size_t size);
bool outputs_error(Outputs *o, const OutFile *f, long error); /* reports; false */
bool outputs_commit(Outputs *o);                              /* afterwards it is empty */
void outputs_abort(Outputs *o);
/* A file without a name that children may open, on the disk of `beside` where that can be; -1:
 * errno says why. */
int scratch_open(const char *beside);
bool fd_write(int fd, const void *data, size_t size); /* false: errno */
FILE *fd_stream(int fd); /* onto a copy of it, for fprintf and fclose; NULL: errno */
