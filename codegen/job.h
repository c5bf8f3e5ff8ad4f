/* A compilation under way: units that threads finish (units.c), files that are written of them
 * (write.c). */
#pragma once
#include <pthread.h>

#include "codegen/backend.h"
#include "codegen/link/link.h"

typedef struct Task {
  Unit *unit;
  const char *error; /* why it could not be finished */
} Task;

/* Shared with the workers; on the heap, because an allocation failure leaves the calling thread's
 * frames. */
typedef struct Pool {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  Task *tasks;
  int n, next, finished; /* tasks handed out; tasks done */
  int made;              /* tasks that are ready to be finished */
  int batch;             /* kernels of a task; the last task is the entry */
  bool closed;
  const Backend *backend;
} Pool;

enum { N_OUTPUTS = 11 }; /* kinds of files */

typedef struct Job {
  Program *p;
  Pool *pool;
  void *state; /* the backend's */
  pthread_t *threads;
  int n_threads;
  Outputs *outputs;
  OutFile *out[N_OUTPUTS], *weights; /* those that are wanted */
} Job;

/* ---- units.c ---- */
Pool *pool_new(const Program *p, const Backend *backend); /* NULL: out of memory */
void pool_free(Pool *p);
/* Makes all units and has them finished; false: reported. */
bool job_compile(Job *j);
/* An internal failure of a unit, or of the whole where `at` is NULL: names kernels and nodes. False.
 */
bool job_report(const Job *j, const Unit *at, const char *stage, const char *error);

/* ---- write.c ---- */
/* The files of a command, opened before the work: what cannot be written is said at once. */
bool job_open_files(Job *j);
bool job_write_files(Job *j, LinkJob *l, CodegenStats *stats);
