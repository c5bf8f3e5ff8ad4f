/* The program of a regular expression: words, made by ir/ops/text/regex.c and run by regex.c. Three
 * words an instruction, the first one is where it begins; then ranges of code points, two words
 * each.
 *
 *   instruction     operands        means
 *   REGEX_RANGES    first, count    one code point of these ranges, which rise; then the next instruction
 *   REGEX_SPLIT     a, b            go on at both
 *   REGEX_JUMP      a
 *   REGEX_ASSERT    what            go on with the next instruction where it holds
 *   REGEX_MATCH                     all of the text was read: it matches */
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
