/* Inside the CUDA backend: kernels as text of CUDA C++, which NVRTC or, for target cuda:host, clang
 * compiles; the entry through LLVM. */
#pragma once
#include "codegen/backend.h"
#include "codegen/c/c.h"

/* ---- kernel.c ---- */
/* Appends the kernel, a grid, to `out`, behind it the function that runs a block on this CPU; fills
 * in how it is launched (l->unit apart). NULL, or the reason of failure. */
const char *cuda_kernel(CState *s, int position, Arena *scratch, StrBuf *out, Launch *l);

/* ---- mma.c ---- */
bool cuda_matrix(CText *c, const Stmt *s);

/* ---- vector.c ---- */
bool cuda_vector(CText *c, const Stmt *loop);

/* ---- text.c ---- */
/* What stands in front of kernels. */
void cuda_write_head(StrBuf *b);

/* ---- calls.c ---- */
/* Whether there is a source for devices of the runtime function. */
bool cuda_has(const ExternRow *row);
/* Appends the runtime functions of p->device_calls, and fills in how they are launched. NULL, or the
 * reason of failure. */
const char *cuda_calls(const Program *p, int unit, StrBuf *b);

/* ---- clang.c ---- */
/* Compiles a unit's text for this CPU, with scratch files on the disk of `beside`. NULL, or the
 * reason of failure; the object is malloc'ed. */
const char *clang_compile(const char *text, size_t bytes, const char *beside, char **object,
                          size_t *object_bytes);
