/* Inputs whose memory an output takes (--in-place): nobody reads them behind the step that begins to
 * write over them, nor that step itself, unless each element is read where it is written. */
#include "ir/loop/in_place.h"
#include "passes/memory/plan.h"

typedef struct Order {
  const Module *m;
  int memory, read; /* the output, and a view of it through which the input is read */
} Order;

static bool late(const Order *o, const Step *s) {
  const char *const name = o->m->buffers.data[o->read].name;
  return diag_internal(o->m->model->diag, s->loc,
                       "memory plan: input %s is read behind a write over it", name ? name : "");
}

/* Whoever writes into the memory by another name than the input's. */
static int written_by(const Order *o, const Step *s) {
  for (int id = 0; id < o->m->buffers.n; id++)
    if (id != o->read && o->m->buffers.data[id].kind == BUF_VIEW &&
        o->m->buffers.data[id].base == o->memory && in_place_writes(o->m, s, id))
      return id;
  return in_place_writes(o->m, s, o->memory) ? o->memory : -1;
}

static bool in_order(const Order *o, const Step *s) {
  bool written = false;
  for (; s; s = s->next) {
    const bool reads = in_place_uses(o->m, s, o->read);
    const int by = written_by(o, s);
    if (reads && written) return late(o, s);
    if (reads && by >= 0 && in_place_step(o->m, s, o->read, by) == IN_PLACE_NO) return late(o, s);
    written |= by >= 0;
  }
  return true;
}

static bool is_input(const Module *m, int memory, int id) {
  if (m->buffers.data[id].kind != BUF_VIEW || m->buffers.data[id].base != memory) return false;
  for (const Step *s = m->steps; s; s = s->next)
    if (in_place_writes(m, s, id)) return false;
  return true;
}

bool plan_in_place(const Module *m) {
  for (int i = 0; i < m->model->in_place.n; i++) {
    const InPlace *const x = &m->model->in_place.data[i];
    if (!in_place_is_whole(x)) continue;
    Order o = {.m = m, .memory = m->outputs.data[x->output]};
    for (o.read = 0; o.read < m->buffers.n; o.read++)
      if (is_input(m, o.memory, o.read) && !in_order(&o, m->steps)) return false;
  }
  return true;
}
