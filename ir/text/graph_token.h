/* The parser of the graph IR's text: its state, and its tokens (graph_token.c). Internal to
 * graph_parse.c. */
#pragma once
#include "ir/op/op.h"

typedef struct Named {
  const char *name;
  Value *v;
} Named;

typedef struct Parser {
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
} Parser;

/* All return false after reporting an error, but for the questions tok_eat and tok_at_string. */
bool tok_fail(Parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tok_skip(Parser *p);                 /* spaces and comments */
bool tok_eat(Parser *p, const char *tok); /* takes tok when it is next */
bool tok_expect(Parser *p, const char *tok);
bool tok_at_string(Parser *p);
bool tok_string(Parser *p, const char **out);
bool tok_ident(Parser *p, const char **out); /* a word or a string */
bool tok_int(Parser *p, int64_t *v);
bool tok_small(Parser *p, int64_t lo, int64_t hi, int *v);
bool tok_number(Parser *p, bool *is_float, int64_t *i, double *f); /* float when written as one */
size_t tok_ident_len(const char *s);
int tok_hex_digit(int c); /* -1: none */
