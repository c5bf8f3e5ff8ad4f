/* Where the shared locals of a grid lie. The statements of a block follow each other, so locals that are
 * used in different ones may lie in the same memory. */
#include "ir/loop/loop.h"

typedef struct LocalUses {
  SharedPlace *place;
  int statement;
} LocalUses;

static void use(const LocalUses *u, int local) {
  SharedPlace *const own = &u->place[local];
  if (own->first < 0) own->first = u->statement;
  own->last = u->statement;
}

static bool note_read(void *user, const Expr *e) {
  if (e->op == EX_LOCAL) use(user, e->id);
  return false;
}

static void note_reads(void *user, const Expr *e) {
  if (e) expr_any(e, EXF_LOCAL, note_read, user);
}

static bool note_statement(void *user, Stmt *s) {
  stmt_each_expr(s, note_reads, user);
  if (s->kind == ST_LOCAL || s->kind == ST_SET || s->kind == ST_ACC) use(user, s->access.id);
  return true;
}

static bool meet(int64_t a, int64_t a_end, int64_t b, int64_t b_end) {
  return a < b_end && b < a_end;
}

static bool lie_together(const SharedPlace *a, const SharedPlace *b) {
  return a->end && b->end && meet(a->at, a->end, b->at, b->end);
}

/* At the least place where nothing else is used at the time. */
static void lay(SharedPlace *place, int local, int64_t bytes) {
  SharedPlace *const own = &place[local];
  own->end = bytes;
  for (int i = 0; i < local; i++) {
    const SharedPlace *const other = &place[i];
    if (!meet(own->first, own->last + 1, other->first, other->last + 1) ||
        !lie_together(own, other))
      continue;
    own->at = other->end;
    own->end = own->at + bytes;
    i = -1; /* again */
  }
}

int64_t kernel_shared_places(Arena *a, const Kernel *k, SharedPlace **places) {
  enum { ALIGN = 128 };
  SharedPlace *const place = *places = ARENA_ARRAY(a, SharedPlace, k->locals.n + 1);
  const Stmt *nest[MAX_NEST];
  const int n = stmt_nest(k->body, nest);
  LocalUses u = {.place = place};
  int64_t all = 0;
  for (int i = 0; i < k->locals.n; i++) place[i].first = -1;
  for (const Stmt *s = nest[n - 1]->loop.body; s; s = s->next, u.statement++) {
    Stmt alone = *s;
    alone.next = NULL;
    stmt_each(&alone, note_statement, &u);
  }
  for (int i = 0; i < k->locals.n; i++) {
    const Local *const l = &k->locals.data[i];
    if (l->memory != MEM_SHARED || place[i].first < 0) continue;
    lay(place, i, (l->count * dtype_bytes(l->dtype) + ALIGN - 1) / ALIGN * ALIGN);
    if (place[i].end > all) all = place[i].end;
  }
  return all;
}

bool shared_is_renewed(const Kernel *k, const SharedPlace *place, int statement) {
  for (int i = 0; i < k->locals.n; i++)
    for (int j = 0; j < k->locals.n; j++)
      if (place[i].first == statement && place[j].last < statement &&
          lie_together(&place[i], &place[j]))
        return true;
  return false;
}
