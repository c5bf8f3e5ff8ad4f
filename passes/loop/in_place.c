/* Outputs that take the memory of inputs (--in-place). Lowering reads such an input through one view
 * of the memory and writes the output through another. Where every read of the input comes before
 * the first write, or is of the very element that its own statement writes, that is all; copies of
 * the input into itself go. Else the output is computed elsewhere and copied at the end, which is
 * said. Needs the order of steps as it will be; the check of the plan looks again. */
#include "ir/loop/in_place.h"

#include "passes/pass.h"

typedef struct Pair {
  PassCtx *c;
  Module *m;
  int memory, read, written; /* the output's buffer, and its two views */
} Pair;

/* ---- copies of the input into itself ---- */
static bool copies_itself(const Pair *p, const Step *s) {
  if (s->kind == STEP_COPY)
    return s->copy.src.buffer == p->read && s->copy.dst.buffer == p->written &&
           (!s->copy.src.offset || expr_is_i64(s->copy.src.offset, 0)) &&
           (!s->copy.dst.offset || expr_is_i64(s->copy.dst.offset, 0));
  return in_place_step(p->m, s, p->read, p->written) == IN_PLACE_SAME;
}

/* Those that stand before everything else that writes. */
static void drop_copies(const Pair *p) {
  for (Step **at = &p->m->steps; *at;) {
    if (copies_itself(p, *at))
      *at = (*at)->next;
    else if (in_place_writes(p->m, *at, p->written))
      return;
    else
      at = &(*at)->next;
  }
}

/* ---- the decision ---- */
static int writers(const Pair *p, const Step *s) {
  int n = 0;
  for (; s; s = s->next) n += in_place_writes(p->m, s, p->written);
  return n;
}

/* The step whose reads of the input would come too late; NULL: none. */
static const Step *too_late(const Pair *p) {
  bool written = false;
  for (const Step *s = p->m->steps; s; s = s->next) {
    const bool reads = in_place_uses(p->m, s, p->read);
    if (written && reads) return s;
    if (written || !in_place_writes(p->m, s, p->written) || copies_itself(p, s)) continue;
    written = true;
    const InPlaceKind kind = reads ? in_place_step(p->m, s, p->read, p->written) : IN_PLACE_FIRST;
    if (kind == IN_PLACE_NO || (kind == IN_PLACE_EACH && writers(p, s) > 1)) return s;
  }
  return NULL;
}

/* Nobody asked for it by name: it is part of a training step. */
static bool is_state(const Model *m, const InPlace *x) {
  for (int k = 0; k < m->state.n; k++)
    if (m->state.data[k].input == x->input) return true;
  return false;
}

/* Computes the output elsewhere. */
static void copy_at_end(const Pair *p, const InPlace *x, const Loc *loc) {
  Buffer *const b = &p->m->buffers.data[p->written];
  b->kind = BUF_ARENA;
  b->base = -1;
  b->offset = NULL;
  Step *const s = step_new(p->m, STEP_COPY, loc), **at = &p->m->steps;
  s->copy.src = (BufRef){p->written, NULL};
  s->copy.dst = (BufRef){p->memory, NULL};
  s->copy.count = b->count;
  while (*at) at = &(*at)->next;
  *at = s;
  if (is_state(p->c->model, x)) return;
  diag_warning(p->c->model->diag, loc,
               "--in-place: output %s is copied into the memory of input %s at the end of a run, "
               "since that is still read here",
               b->name ? b->name : "", p->m->buffers.data[p->read].name);
}

bool pass_in_place(PassCtx *c) {
  Module *const m = c->module;
  for (int i = 0; i < c->model->in_place.n; i++) {
    const InPlace *const x = &c->model->in_place.data[i];
    if (!in_place_is_whole(x)) continue;
    const int memory = m->outputs.data[x->output];
    const Pair p = {.c = c, .m = m, .memory = memory, .read = memory + 1, .written = memory + 2};
    const Step *const late = too_late(&p);
    c->changed = true;
    if (late)
      copy_at_end(&p, x, late->loc);
    else
      drop_copies(&p);
  }
  return true;
}
