/* Streams, events and graphs of the fake driver: operations in queues, done when somebody waits. */
#include <time.h>

#include "fake.h"

typedef enum Work { KERNEL, COPY, RECORD, WAIT, RUN_GRAPH } Work;
typedef struct Op {
  Work work;
  /* KERNEL */
  const GpuKernel *kernel;
  int64_t values[32]; /* of its parameters */
  RtCall call;        /* of a runtime function: the one that it has */
  int32_t grid[3];
  /* COPY */
  void *to;
  const void *from;
  size_t bytes;
  void *owned; /* a copy of ordinary memory, taken when it was queued */
  /* RECORD, WAIT: until this operation of the stream is done */
  CuEvent event;
  CuStream stream;
  uint64_t until;
  CuGraphExec graph;
  struct Op *next;
} Op;
struct CuStreamObject {
  Context *context;
  Op *first, *last;
  uint64_t queued, done;
  bool busy; /* its first operation is being done */
  CuGraph capture;
  pthread_t by; /* who captures */
  bool strict;  /* and may not wait for anything meanwhile */
  CuStream next;
};
struct CuEventObject {
  CuStream stream; /* NULL: never recorded */
  uint64_t at, ns; /* ns: 0 until it is done */
};
struct CuGraphObject {
  Op *ops;
};
struct CuGraphExecObject {
  Op *ops;
};
static CuStream streams;

bool fake_is_capturing(void) {
  for (CuStream s = streams; s; s = s->next)
    if (s->capture && s->strict && pthread_equal(s->by, pthread_self())) return true;
  return false;
}

static bool within(const void *p, CuAddress from, size_t bytes) {
  return (CuAddress)(uintptr_t)p - from < bytes;
}
static bool op_uses(const Op *o, CuAddress from, size_t bytes) {
  if (o->work == COPY) return within(o->to, from, bytes) || within(o->from, from, bytes);
  for (int i = 0; o->work == KERNEL && i < o->kernel->n_bufs; i++)
    if (within((void *)(uintptr_t)o->values[i], from, bytes)) return true;
  if (o->work == KERNEL && fake_takes_call(o->kernel) && within(o->call.result, from, bytes))
    return true;
  for (const Op *k = o->work == RUN_GRAPH ? o->graph->ops : NULL; k; k = k->next)
    if (op_uses(k, from, bytes)) return true;
  return false;
}
bool fake_is_used(CuAddress from, size_t bytes) {
  for (CuStream s = streams; s; s = s->next)
    for (const Op *o = s->first; o; o = o->next)
      if (op_uses(o, from, bytes)) return true;
  return false;
}

/* ---- doing ---- */
static CuResult run_until(CuStream s, uint64_t until);

static CuResult do_op(Context *c, Op *o) {
  void *args[32];
  switch (o->work) {
    case KERNEL:
      if (fake_fails("lost", o->kernel->name)) return c->lost = ILLEGAL_ADDRESS;
      for (int i = 0; i < 32; i++) args[i] = &o->values[i];
      if (fake_takes_call(o->kernel)) args[0] = &o->call;
      fake_open_memory(true);
      fake_run_kernel(o->kernel, args, o->grid);
      fake_open_memory(false);
      return 0;
    case COPY:
      fake_open_memory(true);
      memcpy(o->to, o->from, o->bytes);
      fake_open_memory(false);
      return 0;
    case RECORD: {
      struct timespec t;
      clock_gettime(CLOCK_MONOTONIC, &t);
      o->event->ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
      return 0;
    }
    case WAIT: return run_until(o->stream, o->until);
    default:
      for (Op *k = o->graph->ops; k; k = k->next) {
        const CuResult r = do_op(c, k);
        if (r) return r;
      }
      return 0;
  }
}

static CuResult run_first(CuStream s) {
  Op *const o = s->first;
  const CuResult r = s->context->lost ? s->context->lost : do_op(s->context, o);
  s->first = o->next;
  if (!s->first) s->last = NULL;
  s->done++;
  free(o->owned);
  free(o);
  return r;
}

/* Streams go on together: between two operations of one, each other does one, too. */
static void run_others(CuStream s) {
  for (CuStream other = streams; other; other = other->next)
    if (other != s && other->first && !other->busy) {
      other->busy = true;
      run_first(other);
      other->busy = false;
    }
}

static CuResult run_until(CuStream s, uint64_t until) {
  const bool outer = !s->busy;
  while (s->first && s->done < until) {
    s->busy = true;
    const CuResult r = run_first(s);
    s->busy = !outer;
    if (r) return r;
    run_others(s);
  }
  return s->context->lost;
}
CuResult fake_drain(CuStream s) { return run_until(s, s->queued); }

/* ---- queues ---- */
static CuStream new_stream(Context *c) {
  CuStream s = calloc(1, sizeof *s);
  s->context = c;
  s->next = streams;
  return streams = s;
}

static CuStream stream_of(Context *c, CuStream s) {
  if (!s || s == CU_STREAM_LEGACY) return c->legacy ? c->legacy : (c->legacy = new_stream(c));
  if (fake_check(STREAM, s) != c) fake_die("a stream of another context");
  return s;
}

/* Takes the operation over. */
static void queue(CuStream s, Op o) {
  Op *const p = malloc(sizeof *p);
  *p = o;
  p->next = NULL;
  if (s->capture) {
    Op **at = &s->capture->ops;
    while (*at) at = &(*at)->next;
    *at = p;
    fake_counts[COUNT_CAPTURED]++;
    return;
  }
  if (s->last)
    s->last->next = p;
  else
    s->first = p;
  s->last = p;
  s->queued++;
}

API cuStreamCreate(CuStream *s, uint32_t flags) {
  ENTER(c);
  *s = new_stream(c);
  fake_add(STREAM, *s, c);
  LEAVE(0);
}

API cuStreamDestroy_v2(CuStream s) {
  ENTER(c);
  fake_remove(STREAM, s);
  fake_drain(s);
  for (CuStream *at = &streams; *at; at = &(*at)->next)
    if (*at == s) {
      *at = s->next;
      break;
    }
  LEAVE(0); /* and it stays: events, and what waits for them, may name it */
}

API cuStreamSynchronize(CuStream s) {
  ENTER(c);
  s = stream_of(c, s);
  if (s->capture || fake_is_capturing()) LEAVE(CAPTURE_FORBIDS);
  LEAVE(fake_drain(s));
}

/* ---- events ---- */
API cuEventCreate(CuEvent *e, uint32_t flags) {
  ENTER(c);
  *e = calloc(1, sizeof **e);
  fake_add(EVENT, *e, c);
  LEAVE(0);
}

API cuEventDestroy_v2(CuEvent e) {
  ENTER(c);
  fake_remove(EVENT, e);
  if (e->stream) run_until(e->stream, e->at);
  free(e);
  LEAVE(0);
}

API cuEventRecord(CuEvent e, CuStream s) {
  ENTER(c);
  fake_check(EVENT, e);
  s = stream_of(c, s);
  *e = (struct CuEventObject){s, s->queued + 1, 0};
  queue(s, (Op){.work = RECORD, .event = e});
  LEAVE(0);
}

API cuStreamWaitEvent(CuStream s, CuEvent e, uint32_t flags) {
  ENTER(c);
  fake_check(EVENT, e);
  s = stream_of(c, s);
  if (e->stream && e->stream != s)
    queue(s, (Op){.work = WAIT, .stream = e->stream, .until = e->at});
  LEAVE(0);
}

API cuEventSynchronize(CuEvent e) {
  ENTER(c);
  fake_check(EVENT, e);
  LEAVE(e->stream ? run_until(e->stream, e->at) : 0);
}

API cuEventElapsedTime(float *ms, CuEvent from, CuEvent to) {
  ENTER(c);
  fake_check(EVENT, from);
  fake_check(EVENT, to);
  if (!from->ns || !to->ns) fake_die("the time of an event that has not happened");
  *ms = (float)(to->ns - from->ns) / 1e6f;
  LEAVE(0);
}

/* ---- kernels and copies ---- */
static void check_call(const RtCall *c) {
  static const char none[] = "a function gets what is no address of the device";
  for (int i = 0; i < c->n_in + c->n_out; i++) {
    const void *const p = i < c->n_in ? c->in[i].data : c->out[i - c->n_in].data;
    if (p) fake_check_memory((CuAddress)(uintptr_t)p, 0, none);
  }
  fake_check_memory((CuAddress)(uintptr_t)c->result, 8, none);
}

API cuLaunchKernel(CuFunction f, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by,
                   uint32_t bz, uint32_t shared, CuStream s, void **args, void **extra) {
  ENTER(c);
  const GpuKernel *const k = f->kernel;
  Op o = {.work = KERNEL, .kernel = k, .grid = {(int32_t)gx, (int32_t)gy, (int32_t)gz}};
  s = stream_of(c, s);
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || bx * by * bz > 1024) LEAVE(INVALID_VALUE);
  if (shared > (48 << 10) && shared > f->most_shared) LEAVE(INVALID_VALUE);
  if (k->n_bufs + k->n_syms > 32) fake_die("more parameters than this driver knows");
  if (k->threads[0] && ((int32_t)bx != k->threads[0] || shared != k->shared))
    fake_die("another block than compiled");
  if (fake_fails("launch", k->name)) LEAVE(NO_RESOURCES);
  for (int i = 0; i < k->n_bufs + k->n_syms; i++) o.values[i] = *(int64_t *)args[i];
  if (fake_takes_call(k)) check_call(memcpy(&o.call, args[0], sizeof o.call));
  for (int i = 0; i < k->n_bufs; i++)
    fake_check_memory((CuAddress)o.values[i], 0, "a kernel gets what is no address of the device");
  if (!s->capture) fake_counts[COUNT_LAUNCHES]++;
  queue(s, o);
  LEAVE(0);
}

static CuResult upload(CuStream s, CuAddress to, const void *from, size_t bytes) {
  Op o = {.work = COPY, .to = (void *)(uintptr_t)to, .from = from, .bytes = bytes};
  fake_check_memory(to, bytes, "a copy to what is no memory of the device");
  if (fake_is_memory((CuAddress)(uintptr_t)from)) fake_die("a copy from the host that is none");
  if (!fake_is_pinned(from)) o.from = o.owned = memcpy(malloc(bytes), from, bytes);
  fake_counts[COUNT_UPLOADED] += (long)bytes;
  queue(s, o);
  return 0;
}

API cuMemcpyHtoD_v2(CuAddress to, const void *from, size_t bytes) {
  ENTER(c);
  CuStream s = stream_of(c, NULL);
  if (fake_is_capturing()) LEAVE(CAPTURE_FORBIDS);
  upload(s, to, from, bytes);
  LEAVE(fake_drain(s));
}

API cuMemcpyHtoDAsync_v2(CuAddress to, const void *from, size_t bytes, CuStream s) {
  ENTER(c);
  LEAVE(upload(stream_of(c, s), to, from, bytes));
}

API cuMemcpyDtoHAsync_v2(void *to, CuAddress from, size_t bytes, CuStream s) {
  ENTER(c);
  s = stream_of(c, s);
  fake_check_memory(from, bytes, "a copy from what is no memory of the device");
  if (fake_is_memory((CuAddress)(uintptr_t)to)) fake_die("a copy to the host that is none");
  queue(s, (Op){.work = COPY, .to = to, .from = (void *)(uintptr_t)from, .bytes = bytes});
  LEAVE(0);
}

API cuMemcpyDtoDAsync_v2(CuAddress to, CuAddress from, size_t bytes, CuStream s) {
  ENTER(c);
  s = stream_of(c, s);
  fake_check_memory(from, bytes, "a copy from what is no memory of the device");
  fake_check_memory(to, bytes, "a copy to what is no memory of the device");
  queue(s, (Op){.work = COPY,
                .to = (void *)(uintptr_t)to,
                .from = (void *)(uintptr_t)from,
                .bytes = bytes});
  LEAVE(0);
}

/* ---- graphs ---- */
API cuStreamBeginCapture_v2(CuStream s, int32_t mode) {
  ENTER(c);
  s = stream_of(c, s);
  if (s == c->legacy || s->capture ||
      (mode != CU_CAPTURE_THREAD_LOCAL && mode != CU_CAPTURE_RELAXED))
    LEAVE(INVALID_VALUE);
  if (fake_fails("capture", NULL)) LEAVE(CAPTURE_FORBIDS);
  s->capture = calloc(1, sizeof *s->capture);
  s->by = pthread_self();
  s->strict = mode != CU_CAPTURE_RELAXED;
  LEAVE(0);
}

API cuStreamEndCapture(CuStream s, CuGraph *graph) {
  ENTER(c);
  s = stream_of(c, s);
  if (!s->capture) LEAVE(INVALID_VALUE);
  fake_add(GRAPH, s->capture, c);
  *graph = s->capture;
  s->capture = NULL;
  LEAVE(0);
}

API cuGraphInstantiateWithFlags(CuGraphExec *exec, CuGraph graph, uint64_t flags) {
  ENTER(c);
  fake_check(GRAPH, graph);
  if (fake_fails("instantiate", NULL)) LEAVE(CU_OUT_OF_MEMORY);
  *exec = calloc(1, sizeof **exec);
  Op **at = &(*exec)->ops;
  for (const Op *o = graph->ops; o; o = o->next, at = &(*at)->next) {
    *at = malloc(sizeof **at);
    **at = *o;
    (*at)->next = NULL;
  }
  fake_add(GRAPH_EXEC, *exec, c);
  LEAVE(0);
}

static void free_ops(Op *o) {
  while (o) {
    Op *const next = o->next;
    free(o);
    o = next;
  }
}

API cuGraphDestroy(CuGraph graph) {
  ENTER(c);
  fake_remove(GRAPH, graph);
  free_ops(graph->ops);
  free(graph);
  LEAVE(0);
}

API cuGraphLaunch(CuGraphExec exec, CuStream s) {
  ENTER(c);
  fake_check(GRAPH_EXEC, exec);
  s = stream_of(c, s);
  fake_counts[COUNT_GRAPH_LAUNCHES]++;
  if (getenv("FAKE_CUDA_REPORT")) fprintf(stderr, "a graph is launched\n");
  queue(s, (Op){.work = RUN_GRAPH, .graph = exec});
  LEAVE(0);
}

API cuGraphExecDestroy(CuGraphExec exec) {
  ENTER(c);
  fake_remove(GRAPH_EXEC, exec);
  for (CuStream s = streams; s; s = s->next)
    for (const Op *o = s->first; o; o = o->next)
      if (o->work == RUN_GRAPH && o->graph == exec) fake_die("a graph ends before it has run");
  free_ops(exec->ops);
  free(exec);
  LEAVE(0);
}
