/* Compiles regular expressions in the syntax of RE2, as RegexFullMatch (ONNX 20) takes them. */
#pragma once
#include "ir/base/arena.h"

/* Words of the program that runtime/text/regex.c runs, in a; *count of them. NULL: *why says what
 * is wrong with the pattern, *at where (bytes), *unsupported whether RE2 has it and we don't. */
uint32_t *regex_compile(Arena *a, const char *pattern, int64_t *count, const char **why, int *at,
                        bool *unsupported);
