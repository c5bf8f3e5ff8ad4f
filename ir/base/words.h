/* Lists that choose among names: a,enc*,-b: names and patterns, and behind '-' what is not chosen. */
#pragma once
#include <stdbool.h>
#include "ir/base/arena.h"

typedef struct Words {
  int n;
  const char *const *word;
} Words;

/* At commas; empty ones are none. */
Words words_split(Arena *a, const char *list);
/* Without '-' in front? */
bool word_takes(const char *word);
/* name: may be NULL. */
bool word_fits(const char *word, const char *name);
/* What no word fits: where the first takes something away, the rest is chosen. */
bool words_choose_rest(const Words *l);
