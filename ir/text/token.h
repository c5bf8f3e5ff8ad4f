/* Parsing the texts of graphs and programs: the state that both share, and tokens (token.c).
 * Internal to ir/text/. */
#pragma once
#include "ir/op/op.h"

typedef struct Named {
  const char *name;
  Value *v;
} Named;

typedef struct TextParser {
  Arena *a;
  Model *m;
  const char *text, *s; /* whole text, cursor */
  const char *file;
  Value **by_id; /* of %123 */
  int n_ids;
  Vec(Named) named;             /* of %x */
  Vec(ConstData *) unread;      /* constants whose data has not been seen */
  Vec(const Expr *) iterations; /* symbols that number them */
  bool infer;                   /* a node had no types */
  TextDataFn data;              /* finds the file beside the text, or NULL */
  void *user;
  const char *weights; /* that file */
  int64_t weights_bytes;
  int depth;
} TextParser;

/* At the beginning of a text that becomes part of m. */
TextParser text_parser(Model *m, const char *text, const char *file);
/* Reports `what` with the line and column of `at`; false. */
bool text_fail(Arena *a, Diag *d, const char *file, const char *text, const char *at,
               const char *what);

/* All return false after reporting an error, but for the questions tok_at, tok_eat and
 * tok_at_string. */
bool tok_fail(TextParser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tok_skip(TextParser *p);                 /* spaces and comments */
bool tok_is_word(char c);                     /* letters, digits, _ */
bool tok_at(TextParser *p, const char *tok);  /* is tok next? */
bool tok_eat(TextParser *p, const char *tok); /* takes tok when it is next */
bool tok_expect(TextParser *p, const char *tok);
bool tok_at_string(TextParser *p);
bool tok_string(TextParser *p, const char **out);
bool tok_word(TextParser *p, const char **out);
bool tok_ident(TextParser *p, const char **out); /* a word or a string */
bool tok_int(TextParser *p, int64_t *v);         /* of 64 bits, signed or not */
bool tok_small(TextParser *p, int64_t lo, int64_t hi, int *v);
bool tok_number(TextParser *p, bool *is_float, int64_t *i,
                double *f); /* float when written as one */
size_t tok_ident_len(const char *s);
int tok_hex_digit(int c); /* -1: none */
