/* The C header of a compiled model. */
#pragma once
#include "codegen/analysis/program.h"

/* stack: bytes of it that a run takes */
void header_print(const Program *p, int64_t stack, StrBuf *b);
