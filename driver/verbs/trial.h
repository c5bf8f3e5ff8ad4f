/* A trial: a model compiled with certain choices, run as a child, and the least time of each of its
 * kernels. What --tune (tune.c) measures with; trial.c. */
#pragma once
#include "driver/driver.h"

typedef struct TrialCall { /* a kernel or runtime function, in the order of the profile */
  int n_keys;
  const char **keys; /* the choices that its time answers */
  uint64_t digest;   /* of its kernel */
  Estimate estimate;
  const char *what; /* kernel and nodes, as the profile names them; NULL: not measured */
} TrialCall;

typedef struct Trial {
  const Tuning *choices;
  const char *program; /* in memory: fd */
  int fd;
  DecisionLog log;
  int n_calls;
  TrialCall *calls;
  double *us; /* least time of each call; 0: not measured */
  double ms;  /* least time of a whole run, with profiling or without, whichever ran */
} Trial;

/* Compiles; everything lives in s's arena. Exit status. */
int trial_compile(Session *s, Trial *t, const Tuning *choices);
/* Runs the trials in turns, `rounds` of them and then until `seconds` are over; with profile the
 * times of calls. Exit status. */
typedef struct Measure {
  bool profile;
  int rounds;
  double seconds;
  const char *threads; /* NULL: as many as there are */
  void (*progress)(void *user, int round, double seconds);
  void *user;
} Measure;
int trials_measure(Session *s, Trial *trials, int n, const Measure *m);
/* Time of all calls that answer key; negative: there are none. */
double trial_time(const Trial *t, const char *key);
uint64_t trial_digest(const Trial *t, const char *key); /* of their kernels together */
