/* What the attentions of com.microsoft share: sizes as values, and masks of keys. */
#pragma once
#include "ir/op/kit.h"

/* A mask of keys as com.microsoft has it and what else is added to the scores. */
typedef struct KeyMask {
  Value *mask;  /* see heads_need_mask; NULL: none */
  Value *added; /* broadcasts to the scores; NULL: none */
  Value *batch; /* dim 0 is the batch */
  Value *keys,
      *past; /* their dims `key_dim` and `past_dim` are the numbers of keys; past: or NULL */
  int key_dim, past_dim;
  double low; /* what keys that are not seen get */
} KeyMask;

/* x op y of two values that broadcast; x after an error. */
Value *heads_binary(Build *b, const char *op, Value *x, Value *y);
Value *heads_unsqueezed(Build *b, Value *v, int n, const int64_t *axes);
/* Dimension d of v as one number in a vector. */
Value *heads_size(Build *b, Value *v, int d);
/* i64 [n]: 0 … n - 1, where n is the sum of the vectors of one number `a` and `c` (or NULL). */
Value *heads_count(Build *b, Value *a, Value *c);
/* Input k is a mask for seen = {batch, rows, keys}: lengths [batch], ends and then starts
 * [2*batch], [batch, keys] or [batch, rows, keys] of what is above 0. Absent inputs pass. */
bool heads_need_mask(Model *m, const Node *n, int k, const Expr *const *seen);
/* Attributes num_heads and qkv_hidden_sizes: the columns of w that are queries, keys and values. */
bool heads_projected_sizes(Model *m, const Node *n, const Value *w, int64_t *heads, int64_t *sizes);
/* Of attention to a window and to some tokens: attributes num_heads and window; inputs `mask` and
 * `flags` say something of each token, as input 0 has them. */
bool heads_need_window(Model *m, const Node *n, const Expr *hidden, int mask, int flags);
/* What is added to scores of type t, [batch, heads or 1, rows or 1, keys]; NULL: nothing. */
Value *heads_mask(Build *b, const KeyMask *k, DType t);
/* [batch, len, heads*size] to [batch, heads, len, size] and back; dims 1 and 2 exchanged. */
Value *heads_split(Build *b, Value *v, int64_t heads, const Expr *head);
Value *heads_joined(Build *b, Value *v, const Expr *hidden);
Value *heads_transposed(Build *b, Value *v);
/* i64 [batch of `first`, len]: first[i] + j, where dim `len` of x is the length; where `batch` is
 * given, repeated for its dim 0 (`first` has one number then). */
Value *heads_positions(Build *b, Value *first, Value *batch, Value *x, int len);
