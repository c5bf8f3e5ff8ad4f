/* Objects → files that a program is made of or that run. */
#pragma once
#include "codegen/analysis/program.h"
#include "codegen/files/outputs.h"

/* What the linker reads lies in scratch files, by the paths of their descriptors. */
typedef struct LinkJob {
  const Program *p;
  Outputs *outputs;
  const char *beside;   /* scratch files go on its disk */
  const char *objects;  /* an archive of all kernels */
  const char *weights;  /* an object, or NULL */
  const char *gathered; /* likewise */
  Vec(int) scratch;     /* descriptors to be closed */
} LinkJob;

/* One file of this kind (EMIT_EXE, _OBJ, _STATIC, _SHARED) into `out`; false: error reported. */
bool link_file(LinkJob *j, EmitKind kind, OutFile *out);
/* A scratch file and its path; NULL: error reported. */
const char *link_scratch(LinkJob *j, int *fd);
void link_close(LinkJob *j);
bool link_error(const LinkJob *j, ErrCode code, const char *what, const char *detail); /* false */

/* localise.c. Makes all symbols of a relocatable object local but these (and undefined ones). */
void object_localise(char *elf, const char *const *exports, Arena *a);

/* constant_object.c. An ELF object with the weights as NAME_weights (hidden, read-only, 64-aligned),
 * or only their address space. */
bool weights_write_object(const WeightLayout *w, const Target *t, const char *symbol,
                          bool reserve_only, FILE *f);
/* Likewise what a backend gathered. */
bool gathered_write_object(const Gathered *g, const Target *t, FILE *f);
