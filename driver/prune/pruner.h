/* State of one pruning; internal to driver/prune. */
#pragma once
#include "driver/prune/prune.h"
#include "driver/quant/metric.h"
#include "driver/quant/runner.h"
#include "driver/train/data.h"
#include "driver/train/train.h"
#include "passes/prune/prune.h"

typedef enum Importance {
  IMPORTANCE_GRADIENT,
  IMPORTANCE_MAGNITUDE,
  IMPORTANCE_FISHER,
  IMPORTANCE_RECONSTRUCTION
} Importance;
typedef enum Objective { OBJECTIVE_LATENCY, OBJECTIVE_MACS, OBJECTIVE_PARAMS } Objective;

/* The passes behind which channels are looked for: batch norms keep their statistics. */
#define PRUNE_PASSES "infer,dce,fold_constants,canonicalize,fold_constants,cse,dce"

typedef struct SparseKernel { /* one that leaves weights out which are zero */
  const char *name, *nodes;
  double us;
} SparseKernel;

typedef struct Figures { /* of a model */
  int64_t channels;      /* that can go */
  double parameters, macs;
  double us; /* kernels, one thread; NaN: not measured */
  Score score;
  double loss; /* mean over samples; NaN: not measured */
  Vec(SparseKernel) sparse;
} Figures;

typedef struct LayerCut { /* a group */
  const char *name;
  int64_t before, after; /* channels: of the original, and now */
  const char *reason;    /* before == 0: why it stays */
} LayerCut;

typedef struct ConstantCut { /* what went of a constant in this round, as one node reads it */
  const char *name, *node;
  int dim;
  bool summed; /* a product adds up along it */
  int64_t n, *indices;
} ConstantCut;

typedef struct WeightZero { /* of a weight of products */
  const char *name, *node;  /* initializer; the first that reads it */
  const char *whole;        /* why all of it stays, or NULL */
  int64_t count, zeros;
  bool *zero; /* by element */
} WeightZero;
typedef Vec(WeightZero) WeightZeros;

typedef struct Round {
  Figures figures; /* behind recovery */
  double cut_drop, drop;
  bool recovered, undone;
  int64_t steps;     /* of training */
  double difference; /* of the cut graph from the silenced original, relative; NaN: not checked */
  Vec(ConstantCut) constants;
  WeightZeros weights; /* of masks */
  int n_groups;        /* of the graph that was cut, with units that are left */
  const char **names;
  int64_t *left;
} Round;

typedef struct Samples {
  int n;
  Tensor **in;     /* by sample: inputs of the model, and labels behind them */
  int64_t *labels; /* a class each; NULL: none */
} Samples;

typedef struct Pruner {
  Session *s;
  const Options *asked;        /* what the user said, training included */
  Options options;             /* of programs that are compiled on the way */
  const char *original, *file; /* the model as it was given, and as it is now */
  Importance importance;
  Objective objective;
  bool by_layer;                 /* each layer keeps the same part */
  double share;                  /* of the channels that stay */
  double sparsity;               /* of the weights becomes 0; 0: not asked for */
  int64_t keep, of;              /* --nm; 0: not asked for */
  WeightZeros at_first, weights; /* of masks: of the original, and as they are now */
  double max_drop;
  int64_t rounds, epochs, repeat; /* repeat 0: as the samples say */
  const char *augment;            /* of recovery, where none is asked for; or NULL */
  double rate;                    /* the same of the optimizer; 0: not chosen yet */
  Options recovery;               /* as it was run */
  int lanes;                      /* floats of a vector */
  DataInput *inputs;
  int n_inputs, n_outputs;
  double held;            /* part of --data that is kept to measure */
  bool made_up, labelled; /* the samples are random; have a class each */
  const char *loss;       /* of --train; NULL: no labels */
  double temperature;     /* of recovery */
  int loss_output;        /* of which it is, by position */
  bool classes;           /* labels are numbers of classes */
  bool by_loss;           /* the loss is what is measured: labels are something else than a class */
  Samples tune, test; /* what importance is found with; what is measured. One sample each call */
  Tensor **reference; /* by sample of test: results of the original */
  MetricKind metric;
  Figures before;
  int64_t channels; /* that are left */
  Vec(LayerCut) layers;
  Vec(Round) done;
  int status;
} Pruner;

/* ---- prune.c ---- */
/* The relation of the session's model, behind PRUNE_PASSES. NULL: reported. */
PruneRelation *pruner_relate(Session *s);

/* ---- samples.c ---- */
/* Those that the options name; random ones where they name none. False: reported, or z->status says. */
bool pruner_read_samples(Pruner *z, Model *m);
/* Random samples of other sizes, until m runs on them; at last those that were tried first. */
bool pruner_fit_random(Pruner *z, Model *m, Runner *r);

/* ---- augment.c ---- */
/* Chooses z->augment. False: reported, or z->status says. */
bool pruner_choose_augment(Pruner *z, Runner *original, const TrainData *d, const int64_t *rows,
                           int64_t n);

/* ---- recover.c ---- */
/* That the options of --epochs make a training step of the original is known before the first round. False:
 * reported, and z->status says. */
bool pruner_check_recovery(Pruner *z);
/* *path is what training made of it. Without --epochs nothing. False: reported, or z->status says. */
bool pruner_recover(Pruner *z, Round *round, const char **path);

/* ---- sizes.c ---- */
/* Sizes of random samples of m; false: there are no further attempts. */
bool pruner_try_sizes(Pruner *z, Model *m, int attempt);

/* ---- loss.c ---- */
void pruner_choose_loss(Pruner *z, DType labels);
const char *pruner_recovery_loss(const Pruner *z);
/* That of the recovery, where none is given: what brings the original's scores to a usual spread. */
bool pruner_find_temperature(Pruner *z, Runner *original);
/* An edit of a model, whose labels become its last input. NULL: reported */
Value *pruner_add_loss(Pruner *z, Session *s);
/* NaN where it is not what is measured. False: reported, or z->status says. */
bool pruner_measure_loss(Pruner *z, const char *file, double *out);
/* What is lost against the original, in the unit of --metric; of losses: percent. */
double pruner_drop(const Pruner *z, const Figures *f);

/* ---- programs ---- */
bool pruner_open(Pruner *z, const char *file, const char *what, GraphEdit edit, void *user,
                 Runner *out);

/* ---- measure.c: false: reported, or z->status says ---- */
/* Accuracy, or what is lost against the original, and times. */
bool pruner_measure(Pruner *z, const char *file, Figures *out);
bool pruner_take_reference(Pruner *z);
double *pruner_macs(const Pruner *z, const PruneRelation *r); /* by node: multiply-adds */
double *pruner_times(Pruner *z, const PruneRelation *r); /* by node, measured. NULL: as above */
/* Importance of r's units, of the model z->file. */
bool pruner_score(Pruner *z, PruneRelation *r);
/* Of single weights. */
bool pruner_score_weights(Pruner *z, PruneRelation *r, PruneWeights *l);
/* How far the results of `file` are from those of z->file, rebuilt, without the units that are gone. */
bool pruner_check(Pruner *z, const PruneRelation *r, const PruneFits *fits, const char *file,
                  double *difference);

/* Of s, z->file read again: done's units are silent, behind what fits say. NULL: reported. */
PruneRelation *pruner_silenced(Session *s, const PruneRelation *done, const PruneFits *fits);

/* ---- rebuild.c ---- */
/* Weights that stay make up for the units of r that are gone, as the samples say; fits: what was done.
 * Nothing where there are no samples. False: reported, or z->status says. */
bool pruner_rebuild(Pruner *z, PruneRelation *r, PruneFits *fits);
/* Importance by what others cannot make up for. False: as above. */
bool pruner_score_reconstruction(Pruner *z, PruneRelation *r);

/* ---- mask.c: weights that become 0. False: reported, or z->status says ---- */
bool pruner_masks(const Pruner *z);                               /* they are what is asked for */
bool pruner_read_masks(Pruner *z);                                /* options */
bool pruner_zeros(Pruner *z, const char *file, WeightZeros *out); /* what a file has */
bool pruner_warn_of_masks(Pruner *z); /* false: there is nothing to do */
/* Writes the model with as many zeros. */
bool pruner_mask(Pruner *z, double share, const char *out, Round *round);
/* TrainJob.stepped, of a Round. */
void pruner_hold_zeros(void *user, const BurinModel *step, void *state);
bool pruner_check_zeros(Pruner *z, const char *file, Round *round);

/* ---- report.c ---- */
void pruner_note_layers(Pruner *z, const PruneRelation *r);    /* of the original */
void pruner_note_cut(Pruner *z, PruneRelation *r, Round *out); /* what the next cut takes */
bool pruner_report(const Pruner *z);
