/* The processes that NVRTC runs in. Each is a fork, which has the jobs in its memory: it is sent
 * positions of jobs and answers with what became of them. One that ends without an answer has
 * crashed in its job; another takes its place. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codegen/cuda/nvrtc.h"

enum { MOST_WORKERS = 64, ABSENT = -1 };
enum { COMPILATION = 6 }; /* NVRTC_ERROR_…; what is above it are failures of its own */

typedef struct Answer { /* image and log follow */
  int32_t status;
  uint64_t bytes, log_bytes;
} Answer;

typedef struct Worker {
  pid_t pid; /* 0: none */
  int fd;
  int job; /* that it works on; -1: none */
} Worker;

typedef struct Work {
  NvrtcJob *jobs;
  int n, next;
  const int *first; /* [n]: the first job that is equal */
  Worker workers[MOST_WORKERS];
  int n_workers;
  bool absent;
  Arena *a;
} Work;

/* ---- in the process ---- */
static bool write_all(int fd, const void *data, size_t n) {
  for (const char *p = data; n > 0;) {
    const ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
    if (k < 0 && errno != EINTR) return false;
    if (k > 0) p += k, n -= (size_t)k;
  }
  return true;
}

/* False: the other end is gone. */
static bool read_all(int fd, void *data, size_t n) {
  for (char *p = data; n > 0;) {
    const ssize_t k = read(fd, p, n);
    if (k == 0 || (k < 0 && errno != EINTR)) return false;
    if (k > 0) p += k, n -= (size_t)k;
  }
  return true;
}

static bool answer(int fd, const NvrtcReply *r) {
  const Answer a = {r->status, r->bytes, r->log ? r->log_bytes : 0};
  return write_all(fd, &a, sizeof a) && write_all(fd, r->image, a.bytes) &&
         write_all(fd, r->log, a.log_bytes);
}

/* The handlers of the program that it is a copy of are not for it. */
static void reset_signals(void) {
  struct sigaction act;
  for (int s = 1; s < NSIG; s++)
    if (sigaction(s, NULL, &act) == 0 && act.sa_handler != SIG_IGN) signal(s, SIG_DFL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static _Noreturn void serve(const Work *w, int fd) {
  int32_t job;
  reset_signals();
  const Nvrtc *const v = nvrtc_load();
  while (read_all(fd, &job, sizeof job)) {
    NvrtcReply r = {.status = ABSENT};
    if (v) nvrtc_run(v, &w->jobs[job], &r);
    if (!answer(fd, &r)) break;
    free(r.image);
    free(r.log);
  }
  _exit(0);
}

/* ---- starting and ending them ---- */
static bool start_worker(Work *w, Worker *one) {
  int fds[2];
  *one = (Worker){.fd = -1, .job = -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return false;
  one->pid = fork();
  if (one->pid == 0) {
    close(fds[0]);
    for (int i = 0; i < w->n_workers; i++)
      if (w->workers[i].fd >= 0) close(w->workers[i].fd); /* whose end is the caller's alone */
    serve(w, fds[1]);
  }
  close(fds[1]);
  if (one->pid > 0) return one->fd = fds[0], true;
  close(fds[0]);
  one->pid = 0;
  return false;
}

/* Its status, as of waitpid. */
static int end_worker(Worker *one) {
  int status = 0;
  if (one->pid == 0) return 0;
  close(one->fd);
  while (waitpid(one->pid, &status, 0) < 0 && errno == EINTR) continue;
  *one = (Worker){.fd = -1, .job = -1};
  return status;
}

static const char *death(Arena *a, const NvrtcJob *j, int status) {
  if (WIFSIGNALED(status))
    return arena_printf(a, "NVRTC crashed (signal %d) on %s for sm_%d", WTERMSIG(status), j->name,
                        abs(j->sm));
  return arena_printf(a, "NVRTC ended the process (status %d) on %s for sm_%d", WEXITSTATUS(status),
                      j->name, abs(j->sm));
}

/* ---- handing out jobs ---- */
/* The next that no earlier one equals; -1: none. */
static int take_job(Work *w) {
  while (w->next < w->n && w->first[w->next] != w->next) w->next++;
  return w->next < w->n && !w->absent ? w->next++ : -1;
}

/* Gives it a job, if there is one. A process that ended before answers for it when it is read. */
static void give_job(Work *w, Worker *one) {
  const int32_t job = take_job(w);
  one->job = job;
  if (job >= 0) (void)write_all(one->fd, &job, sizeof job);
}

static const char *failure(Work *w, const NvrtcJob *j, int status, const char *log) {
  if (log && *log) return log;
  return arena_printf(w->a, "NVRTC reports error %d on %s for sm_%d", status, j->name, abs(j->sm));
}

/* What it says of its job. False: it has ended. */
static bool read_answer(Work *w, const Worker *one) {
  NvrtcJob *const j = &w->jobs[one->job];
  Answer r;
  if (!read_all(one->fd, &r, sizeof r)) return false;
  char *const image = arena_alloc(w->a, r.bytes + 1), *const log =
                                                          arena_alloc(w->a, r.log_bytes + 1);
  if (!read_all(one->fd, image, r.bytes) || !read_all(one->fd, log, r.log_bytes)) return false;
  if (r.status == ABSENT) w->absent = true;
  j->again = r.status >= COMPILATION;
  if (r.status) return j->error = failure(w, j, r.status, log), true;
  j->error = NULL;
  j->image = image;
  j->bytes = r.bytes + (j->sm < 0 && r.bytes > 0 && image[r.bytes - 1] != 0);
  j->kernels = j->sm < 0 ? NULL : nvrtc_figures(log, w->a, &j->n_kernels);
  return true;
}

static void hear(Work *w, Worker *one) {
  NvrtcJob *const j = &w->jobs[one->job];
  if (read_answer(w, one)) {
    give_job(w, one);
    return;
  }
  j->error = death(w->a, j, end_worker(one));
  j->again = true;
  if (w->next < w->n && start_worker(w, one)) give_job(w, one);
}

/* Until nobody works. */
static void wait_all(Work *w) {
  for (;;) {
    struct pollfd p[MOST_WORKERS];
    int who[MOST_WORKERS], n = 0;
    for (int i = 0; i < w->n_workers; i++) {
      if (w->workers[i].pid == 0 || w->workers[i].job < 0) continue;
      who[n] = i;
      p[n++] = (struct pollfd){.fd = w->workers[i].fd, .events = POLLIN};
    }
    if (n == 0) return;
    if (poll(p, (nfds_t)n, -1) < 0) continue; /* a signal */
    for (int i = 0; i < n; i++)
      if (p[i].revents) hear(w, &w->workers[who[i]]);
  }
}

/* ---- equal jobs ---- */
static bool job_equals(const NvrtcJob *a, const NvrtcJob *b) {
  return a->sm == b->sm && a->plain == b->plain &&
         (a->text == b->text || strcmp(a->text, b->text) == 0);
}

static const int *first_equals(const NvrtcJob *jobs, int n, Arena *a) {
  int *const first = ARENA_ARRAY(a, int, n);
  for (int i = 0; i < n; i++)
    for (first[i] = 0; !job_equals(&jobs[first[i]], &jobs[i]);) first[i]++;
  return first;
}

static void copy_results(const NvrtcJob *from, NvrtcJob *to) {
  to->error = from->error;
  to->again = from->again;
  to->image = from->image;
  to->bytes = from->bytes;
  to->kernels = from->kernels;
  to->n_kernels = from->n_kernels;
}

NvrtcStatus nvrtc_compile(NvrtcJob *jobs, int n, int processes, Arena *a) {
  Work w = {.jobs = jobs, .n = n, .first = first_equals(jobs, n, a), .a = a};
  const int most = processes < MOST_WORKERS ? processes : MOST_WORKERS;
  NvrtcStatus status = NVRTC_DONE;
  for (int i = 0; i < n; i++) jobs[i].error = "no process for NVRTC could be started";
  for (int i = 0; i < n && i < most; i++) {
    if (!start_worker(&w, &w.workers[i])) break;
    w.n_workers++;
    give_job(&w, &w.workers[i]);
  }
  wait_all(&w);
  for (int i = 0; i < w.n_workers; i++) end_worker(&w.workers[i]);
  for (int i = 0; i < n; i++) {
    copy_results(&jobs[w.first[i]], &jobs[i]);
    if (jobs[i].error) status = NVRTC_FAILED;
  }
  return w.absent ? NVRTC_ABSENT : status;
}
