/* The program of a regular expression: words, made by ir/ops/text/regex.c and run by regex.c. Three
 * words an instruction, the first one is where it begins; then ranges of code points, two words
 * each.
 *
 *   instruction     operands        means
 *   REGEX_RANGES    first, count    one code point of these ranges, which rise; then the next instruction
 *   REGEX_SPLIT     a, b            go on at both
 *   REGEX_JUMP      a
 *   REGEX_ASSERT    what            go on with the next instruction where it holds
 *   REGEX_MATCH                     what was read matches */
#pragma once
#include "runtime/text/text.h"

enum { REGEX_INSTRUCTIONS, REGEX_N_RANGES, REGEX_HEADER };
enum { REGEX_RANGES, REGEX_SPLIT, REGEX_JUMP, REGEX_ASSERT, REGEX_MATCH };
enum {
  REGEX_TEXT_BEGIN,
  REGEX_TEXT_END,
  REGEX_LINE_BEGIN,
  REGEX_LINE_END,
  REGEX_WORD_EDGE,
  REGEX_NO_WORD_EDGE
};
#define REGEX_NOTHING 0xffffffffu /* in place of a code point: an end of the text */

typedef struct StateSet {
  uint32_t *members, *places; /* places[s] < count and members[places[s]] == s: s is in it */
  uint32_t count;
} StateSet;

typedef struct Regex {
  const uint32_t *program;
  StateSet now, next;
  uint32_t *stack; /* of states still to be entered */
} Regex;

#define REGEX_NO_MATCH UINT64_MAX
/* A program ready to run, with memory of h; false: none is left. */
TEXT_FN bool regex_open(Regex *m, BurinHeap *h, const uint32_t *program);
/* Where the longest match that begins at byte `from` of t ends, or REGEX_NO_MATCH. before: the code
 * point in front of it. */
TEXT_FN uint64_t regex_longest(Regex *m, TextView t, uint64_t from, uint32_t before);
