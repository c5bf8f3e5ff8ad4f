/* Texts such as "adamw,lr=0.001,weight_decay=0.01": a name and what is said of it. */
#pragma once
#include "ir/graph/graph.h"

typedef struct SpecPair {
  const char *key, *value;
} SpecPair;
typedef struct Spec {
  Model *m;
  const char *option; /* "--train", for messages */
  const char *text, *name;
  const char *output; /* what stands behind a colon, or NULL */
  Vec(SpecPair) pairs;
} Spec;

bool spec_parse(Model *m, const char *option, const char *text, Spec *out);
/* Is it among words with spaces between? */
bool spec_has_word(const char *words, const char *word);
/* All keys are among the words of `keys` or `more`. */
bool spec_allows(const Spec *s, const char *keys, const char *more);
/* The one of n rows, each of `size` bytes and beginning with its name (const char *), that the text
 * names; NULL: reported, with all that there are. what: "loss", for the message. */
const void *spec_row(const Spec *s, const char *what, const void *rows, int n, size_t size);
bool spec_error(const Spec *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *spec_text(const Spec *s, const char *key); /* NULL: not given */
/* def where the key is not given. False: no number in [lo, hi]; reported. */
bool spec_number(const Spec *s, const char *key, double def, double lo, double hi, double *out);
bool spec_int(const Spec *s, const char *key, int64_t def, int64_t lo, int64_t hi, int64_t *out);
/* a:b:c; *n is 0 where the key is not given. */
bool spec_numbers(const Spec *s, const char *key, int *n, double **out);
/* Which of the words (NULL-terminated); 0 where the key is not given. */
bool spec_choice(const Spec *s, const char *key, const char *const *words, int *out);
