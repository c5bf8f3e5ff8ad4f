/* An input and an output in one memory (--in-place): what one step does to them. */
#pragma once
#include "ir/loop/loop.h"

typedef enum InPlaceKind {
  IN_PLACE_NO,    /* it may read what it, or another of its iterations, has written */
  IN_PLACE_FIRST, /* it reads everything before it writes */
  IN_PLACE_EACH, /* where it is the only writer: each element is read by the statement that writes it */
  IN_PLACE_SAME /* it stores what is there already */
} InPlaceKind;

/* s reads the input through the buffer `read`, and writes the output through `written`. */
InPlaceKind in_place_step(const Module *m, const Step *s, int read, int written);
/* in_place_once.c: the kernel stores no element of the parameter twice; of one with `count` elements,
 * a number that is known. */
bool in_place_stores_once(const Module *m, const Kernel *k, int param, const Expr *count);
/* s, or what is below it, names the buffer or a view of it. */
bool in_place_uses(const Module *m, const Step *s, int buffer);
bool in_place_writes(const Module *m, const Step *s, int buffer);
