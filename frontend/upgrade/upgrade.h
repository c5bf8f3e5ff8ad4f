/* Helpers of the upgrade rows; internal to frontend/. */
#pragma once
#include "frontend/scope/import.h"

typedef bool (*UpgradeFn)(Import *im, OldNode *o);
/* Applies to nodes of `op` below opset `below` (exclusive). Rows are tried in order; one may rename
 * the node, so that later rows see the new name. `gone`: the operator does not exist any more. */
typedef struct UpgradeRow {
  const char *domain, *op;
  int below;
  bool gone;
  UpgradeFn fn;
} UpgradeRow;
/* These end with a row without op. */
enum { ALWAYS = 1 << 20 };                      /* UpgradeRow.below: opset of no model */
extern const UpgradeRow upgrade_experimental[]; /* upgrade_winml.c */
extern const UpgradeRow upgrade_contrib[];      /* upgrade_contrib.c */
extern const UpgradeRow upgrade_nn[];           /* upgrade_nn.c */

const Attr *old_attr(const OldNode *o, const char *name);
void old_drop(OldNode *o, const char *name);
void old_set(Import *im, OldNode *o, Attr a);
bool old_need(Import *im, const OldNode *o, const char *attr); /* false: its absence is reported */
int64_t old_int(const OldNode *o, const char *name, int64_t def);
double old_float(const OldNode *o, const char *name, double def);
void old_input(Import *im, OldNode *o, int k, Value *v); /* sets input k, growing the list */
Value *old_in(const OldNode *o, int k);
int old_rank(const OldNode *o, int k);           /* of input k; -1: not known yet */
bool old_done(Import *im, OldNode *o, Value *v); /* v is output 0; false when v is NULL */
Value *old_scalar_like(Import *im, OldNode *o, Value *like, double v);
/* A node of the newest form; NULL: error reported. */
Value *old_emit(Import *im, OldNode *o, const char *op, int n_in, Value *const *in, int n_attrs,
                const Attr *attrs);
/* NULL where v is: an earlier one failed. */
Value *old_cast(Import *im, OldNode *o, Value *v, DType to);
Value *old_emit2(Import *im, OldNode *o, const char *op, Value *a, Value *b);
