/* Lists that choose among names. */
#include "ir/base/words.h"
#include <fnmatch.h>
#include <string.h>

Words words_split(Arena *a, const char *list) {
  Words l = {0};
  const char **word = ARENA_ARRAY(a, const char *, strlen(list) + 1);
  for (char *at = arena_strdup(a, list), *end; at; at = end) {
    if ((end = strchr(at, ',')) != NULL) *end++ = 0;
    if (*at) word[l.n++] = at;
  }
  l.word = word;
  return l;
}

bool word_takes(const char *word) { return *word != '-'; }

bool word_fits(const char *word, const char *name) {
  return name && fnmatch(word + !word_takes(word), name, 0) == 0;
}

bool words_choose_rest(const Words *l) { return l->n > 0 && !word_takes(l->word[0]); }
