/* What the files of rules share; internal to passes/prune. */
#pragma once
#include "passes/prune/prune.h"

/* ---- rules.c ---- */
int64_t rule_dim(const Value *v, int d); /* a known size; else -1 */
int rule_axis(const Node *n, const char *name, int64_t def, int rank);
/* Constant integers of an input; false: absent, or only known when the model runs. */
bool rule_ints(const Node *n, int k, const int64_t **v, int *count);
/* Small constants in front of it: starts, sizes, pads. What they say is adjusted as a whole. */
void rule_set_ints(Node *n, int k, int count, const int64_t *v);

/* ---- channels.c: groups of convolutions and norms ---- */
void relate_conv(PruneRelation *r, int node);
void relate_deformed(PruneRelation *r, int node);
void relate_roi(PruneRelation *r, int node);
void relate_group_norm(PruneRelation *r, int node);
bool cut_group(const PruneCut *c, Node *n, int node);
bool cut_norm_groups(const PruneCut *c, Node *n, int node);
/* Whether whole groups go, or as many channels of each: once all else is known. */
void prune_resolve_groups(PruneRelation *r);

/* ---- views.c: other dimensions for the same elements ---- */
void relate_view(PruneRelation *r, int node);
bool cut_reshape(const PruneCut *c, Node *n, int node);
void relate_shape(PruneRelation *r, int node);
void relate_expand(PruneRelation *r, int node);
bool cut_expand(const PruneCut *c, Node *n, int node);
void relate_filled(PruneRelation *r, int node);
bool cut_filled(const PruneCut *c, Node *n, int node);
bool cut_resize(const PruneCut *c, Node *n, int node);
/* Which of several dimensions a merged one follows. */
void prune_resolve_merges(PruneRelation *r);

/* ---- recurrent.c ---- */
void relate_cell(PruneRelation *r, int node);
bool cut_cell(const PruneCut *c, Node *n, int node);

/* ---- composite.c: operators that are written as others, and count heads ---- */
void relate_composite(PruneRelation *r, int node);
bool cut_heads(const PruneCut *c, Node *n, int node);
void relate_rotary(PruneRelation *r, int node);
