/* Pruning: which channels of a graph can only go together, which of them matter least, and a graph
 * without them.
 *
 * Every index along every dimension of fixed size is an *atom*. What a node means ties atoms of its inputs
 * to atoms of its results; atoms that are tied form a *unit*, which is removed as a whole. An atom that
 * cannot go (it is seen by the caller, or a sum needs all of them) freezes its unit. Units that go through
 * the same dimensions form a *group*: the channels of a layer and of all that shares them.
 *
 * A unit ends where a product with constant weights adds up over it: with these weights set to 0 the
 * original computes what the graph without the unit does. */
#pragma once
#include "ir/op/op.h"

typedef struct PruneSlot { /* a tensor; of a constant: what one node reads of it */
  Value *value;
  Node *node;     /* of a constant: its reader; else NULL */
  int32_t *first; /* by dimension: the atom of index 0; -1: not followed */
  int32_t *
      factor; /* by dimension of open size, as batch * 4: how many atoms stand for index mod 4; else 0 */
  int32_t *seen_by; /* by dimension: 1 + position of the last node that ties it; internal */
} PruneSlot;

typedef struct PruneTouch { /* what a unit has of one dimension */
  int slot, dim;
  int64_t count; /* atoms */
} PruneTouch;

typedef struct PruneUnit {
  int32_t root; /* the atom that stands for it */
  int group;
  double score; /* how much it matters */
  bool gone;
  Vec(PruneTouch) touches; /* ascending */
} PruneUnit;

typedef struct PruneGroup {
  const char *name; /* of the node whose results are its channels */
  Vec(int) units;
  int64_t width;   /* channels that a unit is of that node */
  bool comparable; /* scores are in the unit of other such groups' */
  int gone;
} PruneGroup;

/* A sum of products with constant weights over a dimension of theirs. */
typedef struct PruneProduct {
  int node; /* position in the main graph */
  int slot, dim;
  bool recurrent; /* what it reads is computed inside of the node */
} PruneProduct;

/* A dimension that is one of several in another tensor: [12, 64] and [768]. */
typedef struct PruneMerge {
  int node, one_slot, one_dim, many_slot, from, to; /* dimensions [from, to) */
  bool done;
} PruneMerge;

typedef struct PruneRelation {
  Model *m;
  Arena *a;
  bool inside;  /* of an operator's expansion: weights may be computed from constants */
  Node **nodes; /* of the graph, as they were */
  int n_nodes;
  Vec(PruneSlot) slots;
  int *base;    /* by position of a node: its first place */
  int *places;  /* slots of its inputs, then of its outputs; -1: none */
  int *slot_of; /* by id of a value that is no constant; -1: none */
  int32_t n_atoms;
  int32_t *parent;     /* of atoms; a root is its own */
  const char **frozen; /* by root: why it cannot go, or NULL */
  Vec(PruneProduct) products;
  Vec(PruneMerge) merges;
  Vec(int) grouped; /* convolutions with groups, by position */
  Vec(PruneUnit) units;
  Vec(PruneGroup) groups;
} PruneRelation;

/* ---- relation.c ---- */
/* Of the main graph, whose types are inferred. Lives in a. */
PruneRelation *prune_relate(Model *m, Arena *a);
/* Of what an operator is written as, whose inputs and results may go as far as its nodes say. */
PruneRelation *prune_relate_inside(Model *m, Graph *g, Arena *a);
/* Are these weights of a product, which can be 0? */
bool prune_weighs(const PruneRelation *r, const Value *v);
int prune_slot(const PruneRelation *r, int node, int input);         /* -1: none */
int prune_result_slot(const PruneRelation *r, int node, int output); /* -1: none */
/* Atoms of a dimension; 0 where it is not followed. */
int64_t prune_size(const PruneRelation *r, int slot, int dim);
/* The same, and of open sizes those that stand for the index modulo a known factor. */
int64_t prune_parts(const PruneRelation *r, int slot, int dim);
int32_t prune_part(const PruneRelation *r, int slot, int dim, int64_t index);
int32_t prune_root(const PruneRelation *r, int32_t atom);
int32_t prune_atom(const PruneRelation *r, int slot, int dim, int64_t index); /* -1: not followed */
void prune_tie(PruneRelation *r, int32_t x, int32_t y); /* -1 of one freezes the other */
void prune_freeze_atom(PruneRelation *r, int32_t atom, const char *why);
void prune_freeze(PruneRelation *r, int slot, int dim, const char *why);
/* For rules: all of one dimension with those of another, from an index each on; notes that the node at
 * `node` ties them. */
void prune_tie_dims(PruneRelation *r, int node, int x, int x_dim, int y, int y_dim);
void prune_tie_range(PruneRelation *r, int node, int x, int x_dim, int64_t x_from, int y, int y_dim,
                     int64_t y_from, int64_t count);
void prune_see(PruneRelation *r, int node, int slot, int dim); /* tied, or free, on purpose */
/* Weights of the product at `node` are added up along a dimension of theirs. */
void prune_add_product(PruneRelation *r, int node, int slot, int dim);
/* Why something stays: `what` the node does. */
const char *prune_because(const PruneRelation *r, int node, const char *what);

/* ---- derive.c ---- */
/* From the scalar expression of an element. False: there is none. */
bool prune_derive(PruneRelation *r, int node);

/* ---- rules.c ---- */
/* Operators that no scalar expression tells of, and those of which something must be adjusted. */
typedef struct PruneCut PruneCut;
typedef struct PruneRule {
  const char *domain, *op;
  void (*relate)(PruneRelation *r, int node);        /* NULL: prune_derive */
  bool (*cut)(const PruneCut *c, Node *n, int node); /* NULL: nothing to adjust; false: reported */
} PruneRule;
const PruneRule *prune_rule(const Node *n); /* NULL: none */

/* ---- groups.c ---- */
void prune_find_groups(PruneRelation *r);
/* The node multiplies with weights. */
bool prune_multiplies(const PruneRelation *r, const Node *n);
/* Groups that a list says nothing of stay: names, patterns (enc*) and -NAME, of which the last that fits
 * decides. NULL, or the first word that no group fits. */
const char *prune_only(PruneRelation *r, const char *list);
/* Why a dimension cannot be cut, of one that no group has. */
const char *prune_why_frozen(const PruneRelation *r, int slot, int dim);

/* ---- score.c ---- */
typedef enum PruneNorm { PRUNE_L1, PRUNE_L2 } PruneNorm;
void prune_score_magnitude(PruneRelation *r, PruneNorm norm);
/* Adds outputs to the main graph, a vector per product: what its weights with each index of the dimension
 * would change of the loss (an output of the graph), to first order; `each`: magnitudes of single weights
 * are added up. A product of dimension -1 has one for each weight. False: reported. */
bool prune_observe(PruneRelation *r, Value *loss, bool each);
/* by product, elements by index: what was observed */
void prune_score_observed(PruneRelation *r, const double *const *by_product);

/* ---- mask.c ---- */
typedef struct PruneWeight { /* a constant matrix or filter of contractions */
  const ConstData *w;
  int node, slot, dim;    /* the first that reads it; what is added up along, -1: not known */
  double work;            /* of all that read it */
  const double *observed; /* importance by element; NULL: its magnitude */
  bool *gone;             /* by element */
} PruneWeight;
typedef Vec(PruneWeight) PruneWeights;
/* work: of the nodes, by position. */
void prune_find_weights(const PruneRelation *r, const double *work, PruneWeights *out);
/* What prune_observe adds is then of each element, a tensor per weight: the relation has no other use. */
void prune_observe_elements(PruneRelation *r, const PruneWeights *l);
/* The least important `share` of all; by_work: for the work that each takes part in. */
void prune_mark_lowest(Arena *a, PruneWeights *l, double share, bool by_work);
/* All but the `keep` most important of each `of` along the dimension that is added up. */
void prune_mark_pattern(PruneWeights *l, int64_t keep, int64_t of);
bool prune_takes_pattern(const PruneWeight *p, int64_t of);
/* Sets what is gone to 0, for all readers. False: reported. */
bool prune_mask(PruneRelation *r, const PruneWeights *l);

/* ---- choose.c ---- */
/* What is saved with a unit of each group: of the nodes' work, by position; of the elements of constants.
 */
void prune_costs(const PruneRelation *r, const double *work, double *by_group);
void prune_cost_weights(const PruneRelation *r, double *by_group);
typedef struct PruneLimit {
  int64_t least; /* units that stay */
  int64_t grain; /* of which what stays is a multiple */
} PruneLimit;
/* Is there a block that would go if about `wanted` units are to, whatever the scores? */
bool prune_any_goes(const PruneRelation *r, const PruneLimit *limits, int64_t wanted);
/* Marks about `wanted` units as gone, the least score (of its group's mean, where groups are not comparable)
 * for its cost first; how many. */
int64_t prune_choose(PruneRelation *r, const double *cost, const PruneLimit *limits,
                     int64_t wanted);

/* ---- fit.c: least squares over what products read of samples ---- */
typedef struct PruneWindow { /* which elements of what it reads a result is a sum of */
  int spatial, taps;         /* of a product of matrices 0 and 1 */
  int64_t kernel[MAX_RANK], stride[MAX_RANK], dilation[MAX_RANK], pad[MAX_RANK];
} PruneWindow;

/* Of a product that adds up over channels that go. Features, in the rows below, are what it reads of those
 * that stay, each by tap, and 1 for a bias; targets the results that stay (`whole`), of as few places the
 * channels themselves. */
typedef struct PruneFit {
  int product;
  int slot, dim;                /* what it reads, and the dimension that is added up */
  int n_stay, n_gone;           /* channels of it, in this order below */
  int64_t each;                 /* indices of a channel */
  int64_t *data_at, *weight_at; /* [channel][each] */
  int *units;                   /* of prune_find_readings, by channel; -1: it is none */
  bool can_be_whole;            /* then: */
  PruneWindow window;
  int result, result_dim; /* slot and channels of the node's result */
  int n_results, bias;    /* that stay; the input that is added to them, -1: none */
  int64_t *result_at;     /* their indices */
  bool whole;             /* decided by the first sample, as what follows */
  int n_features, n_targets;
  int64_t per_sample;     /* places */
  int64_t sampled, added; /* places of all samples so far */
  double *sums;           /* [n_features][n_features + n_targets]: the upper half of the products */
  double *weights; /* [n_stay][prune_fit_weights]: what was fitted, as prune_fit_channel says */
  double *biases;  /* [n_targets]; NULL: none */
} PruneFit;
typedef Vec(PruneFit) PruneFits;

typedef struct PruneSampled { /* targets of a sample */
  int rank;
  int64_t *dims;  /* of the tensor they are of */
  int64_t first;  /* number of its first place, of all samples */
  int64_t n, all; /* places: that were taken, and that it has */
  float *targets; /* [n][n_targets] */
} PruneSampled;

/* What the uncut model has there: one of `samples` samples like this. results NULL: the node has none that
 * are fitted. */
void prune_fit_begin(PruneFit *f, const ConstData *read, const ConstData *results, int64_t samples);
void prune_fit_sample(PruneFit *f, Arena *a, const ConstData *read, const ConstData *results,
                      PruneSampled *out);
void prune_fit_open(PruneFit *f, Arena *a); /* sums */
/* What the product reads in the cut model, of the same sample; nothing of other sizes. */
void prune_fit_add(PruneFit *f, Arena *scratch, const ConstData *read, const PruneSampled *s);
/* What a feature is multiplied by for a target in r. */
double prune_fit_coefficient(const PruneRelation *r, const PruneFit *f, int64_t feature, int64_t t);
/* Towards what r's weights and bias are; sums are of no use behind it. False: there is nothing to go by. */
bool prune_fit_solve(const PruneRelation *r, PruneFit *f);
double prune_mean_square(const double *sums, int64_t n, int64_t stride); /* of features */
/* Of a symmetric positive matrix, n rows whose upper half is given, and right sides behind it, which become
 * the solution: Cholesky, by rows. False: no number. */
bool prune_solve(double *rows, int64_t n, int64_t stride);

/* ---- rebuild.c: before units that are `gone` are cut, weights that stay make up for them ---- */
void prune_find_fits(PruneRelation *r, PruneFits *out); /* in the order of their nodes */
/* What products read of all that could go, for prune_score_reconstruction. */
void prune_find_readings(PruneRelation *r, PruneFits *out);
/* Which of them can be done at once: reads[k] is whether what fit k reads comes of fit `from` or a later one. */
void prune_fit_reaches(const PruneRelation *r, const PruneFits *fits, int from, bool *reads);
/* Element of w, the weights, by which a feature is multiplied for the result at an index. */
int64_t prune_fit_weight(const PruneFit *f, const ConstData *w, int dim, int64_t feature,
                         int64_t result);
int64_t prune_fit_weights(const PruneFit *f, const ConstData *w, int dim); /* of a channel */
/* Where in w they are. */
void prune_fit_channel(const PruneFit *f, const ConstData *w, int dim, int channel, int64_t *at);
/* Of r, or of the relation of the same model read again. */
void prune_rebuild(PruneRelation *r, const PruneFits *fits);

/* ---- eliminate.c ---- */
/* By what products lose without them though the others make up for it, of the sums of prune_find_readings.
 * Of one group after the other, all that a product reads together with the first of them. Units that none of
 * the products reads keep the score that they have. */
void prune_score_reconstruction(PruneRelation *r, const PruneFits *readings, int group);

/* ---- cut.c ---- */
struct PruneCut {
  PruneRelation *r;
  const bool *gone; /* by atom that is a root */
};
bool prune_stays(const PruneCut *c, int slot, int dim, int64_t index);
int64_t prune_count(const PruneCut *c, int slot, int dim, int64_t from, int64_t to); /* that stay */
bool prune_changes(const PruneCut *c, int slot, int dim);
/* Removes the units that are `gone` and infers the graph anew; the relation is of no use afterwards. */
bool prune_cut(PruneRelation *r);
/* Instead sets what products multiply with them to 0: the same results, in the graph's own sizes. */
void prune_silence(PruneRelation *r);
