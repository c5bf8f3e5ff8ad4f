/* Inputs that lie in outputs, and what the state of a training step begins with. */
#include "program.h"

const BurinInPlace *in_place(const Program *p, int32_t k, bool output) {
  const BurinModel *m = p->model;
  if (m->size <= offsetof(BurinModel, n_in_place)) return NULL;
  for (int32_t i = 0; i < m->n_in_place; i++)
    if ((output ? m->in_place[i].output : m->in_place[i].input) == k) return &m->in_place[i];
  return NULL;
}

const BurinStateInfo *input_state(const Program *p, int32_t k) {
  const BurinModel *m = p->model;
  if (m->size <= offsetof(BurinModel, state_bytes)) return NULL;
  for (int32_t i = 0; i < m->n_state; i++)
    if (m->state[i].input == k) return &m->state[i];
  return NULL;
}

/* Rows along the axis: how many, and bytes of an element of it. */
static void rows(const Tensor *t, int axis, uint64_t *n, size_t *bytes) {
  *n = 1;
  *bytes = number_bytes(number_type(t->dtype));
  for (int i = 0; i < axis; i++) *n *= (uint64_t)t->dims[i];
  for (int i = axis + 1; i < t->rank; i++) *bytes *= (size_t)t->dims[i];
}

bool in_place_fill(Program *p) {
  for (int32_t k = 0; k < p->model->n_inputs; k++) {
    const BurinInPlace *x = in_place(p, k, false);
    const Tensor *from = &p->in[k];
    if (!x || !from->data) continue;
    char *to = p->result[x->output].data;
    uint64_t n = 1;
    size_t bytes = from->count * number_bytes(number_type(from->dtype)), step = bytes;
    if (x->axis >= 0) {
      rows(from, x->axis, &n, &step);
      bytes = step * (size_t)from->dims[x->axis];
      step *= (size_t)x->room;
      if (from->dims[x->axis] > x->room)
        return program_error(p, "input %s has %d elements along axis %d, and room for %d",
                             p->model->inputs[k].name, from->dims[x->axis], (int64_t)x->axis,
                             x->room);
    }
    for (uint64_t i = 0; i < n; i++) __builtin_memcpy(to + i * step, from->data + i * bytes, bytes);
  }
  return true;
}

void in_place_pack(const BurinInPlace *x, Tensor *t) {
  uint64_t n;
  size_t bytes;
  rows(t, x->axis, &n, &bytes);
  const size_t step = bytes * (size_t)x->room;
  bytes *= (size_t)t->dims[x->axis];
  for (uint64_t i = 1; i < n; i++)
    __builtin_memmove(t->data + i * bytes, t->data + i * step, bytes);
}
