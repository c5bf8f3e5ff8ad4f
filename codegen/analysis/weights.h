/* Where each weight lies: one section, equal contents once. */
#pragma once
#include <stdio.h>

#include "ir/loop/loop.h"

typedef struct WeightSlot {
  const ConstData *data;
  int64_t offset;
} WeightSlot;
typedef struct WeightLayout {
  int64_t *offset;       /* by buffer id; -1: neither a weight nor an input with a default */
  Vec(WeightSlot) slots; /* distinct contents, ascending offsets */
  int64_t bytes;
  bool external; /* they lie in a file of this name, with this hash */
  const char *file;
  uint64_t hash;
} WeightLayout;

WeightLayout weights_layout(const Module *m, Arena *scratch);
void weights_in_file(WeightLayout *w, const char *file); /* computes the hash */
bool weights_write_raw(const WeightLayout *w, FILE *f);
