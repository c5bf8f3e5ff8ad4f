/* Choices between ways to make a kernel (algorithm, tile, strip), and the tuning file that
 * overrides them. Whoever chooses names the question (its key: template, shape, the target's
 * numbers) and the candidates with the model's estimates, and takes the answer: the model's own,
 * or the one that measurements stored (driver/verbs/tune.c makes them). Keys and files are text
 * for people. */
#pragma once
#include "passes/pass.h"

/* In the order in which they are tuned: an earlier choice decides which later ones come up. */
typedef enum ChoiceStage { CHOICE_ALGORITHM, CHOICE_TILE, CHOICE_STAGES } ChoiceStage;

typedef struct Candidate {
  const char *name; /* one word: "winograd4", "13x2" */
  double cost;      /* the model's estimate in cycles */
  int family;    /* candidates of one family are alike: measurements try the best of each first */
  double weight; /* times are multiplied by it when compared: what it costs besides time; 0: 1 */
} Candidate;

typedef struct Decision {
  const char *key;
  ChoiceStage stage;
  const Candidate *candidates;
  int n, model, taken; /* positions: what the model takes, what was taken */
  bool told; /* for people only: rules decide it, or several questions together; nobody tunes it */
} Decision;

typedef struct DecisionLog { /* what was asked, in order, each key once */
  Arena *arena;
  Vec(Decision) list;
} DecisionLog;

typedef struct TuningEntry {
  const char *key, *choice, *note; /* note: NULL, or what stands behind the choice for people */
} TuningEntry;
typedef struct Tuning { /* sorted by key */
  Arena *arena;
  Vec(TuningEntry) entries;
} Tuning;

/* ---- choosing (choice.c) ---- */
/* Whether keys are of use at all: nothing is stored or logged otherwise. */
static inline bool choice_matters(const PassCtx *c) { return c->tuning || c->decisions; }
/* `time` (or cost) as it counts against that of other candidates. */
static inline double choice_weighted(const Candidate *c, double time) {
  return c->weight > 0 ? c->weight * time : time;
}
/* A key: the formatted text and the target's numbers. */
const char *choice_key(const PassCtx *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Position of the candidate to take; `model` is what the model takes. */
int choice_take(const PassCtx *c, ChoiceStage stage, const char *key, const Candidate *candidates,
                int n, int model);
/* Puts into the log what was taken without asking. */
void choice_tell(const PassCtx *c, const char *key, const Candidate *candidates, int n, int taken);
/* Notes in a kernel, or in the steps that their time answers the question `key` (NULL: none). */
void choice_note(Arena *a, const StepKey **keys, const char *key);
void choice_mark(Arena *a, Step *steps, const char *key);
/* Up to `most` candidates that are worth a measurement: the model's first, then the best of other
 * families, then others, none estimated more than `slack` times as slow as the model's. Returns how
 * many positions it wrote to out. */
int choice_promising(const Decision *d, double slack, int most, int *out);

/* ---- tuning files (tuning.c) ---- */
/* NULL: error reported, with the line. */
Tuning *tuning_parse(Arena *a, Diag *d, const char *text, size_t size, const char *file);
/* `about` goes into the second line; NULL: none. */
void tuning_print(const Tuning *t, const char *about, StrBuf *b);
const char *tuning_find(const Tuning *t, const char *key); /* NULL: not stored */
void tuning_set(Tuning *t, const char *key, const char *choice, const char *note); /* copies */
