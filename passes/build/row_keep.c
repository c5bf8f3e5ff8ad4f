/* Values that the phases of a row have in common: x of a softmax is read for its maximum, and again
 * for the sum of exp(x - maximum), which the quotients need again. They stay in registers of the
 * thread that computed them. Only what takes a load or a math function is worth one.
 *
 * Equal expressions are the same pointer, so that the phases' parts compare by it, once all of them
 * are written for the same element. */
#include "passes/build/row_keep.h"

#include "ir/expr/expr_query.h"

enum { DEAR = EXF_LOAD | EXF_MATH };

typedef struct Search {
  const RowKeep *k;
  int phase; /* what is found stands in a later one */
  ExprList seen;
  Arena *a;
} Search;

static bool is_needed_later(const Search *s, const Expr *e) {
  for (int i = s->phase + 1; i < s->k->n; i++)
    if (s->k->expr[i] && expr_contains(s->k->p, s->k->expr[i], e)) return true;
  return false;
}

/* The first of the largest such parts of e. What is rarely needed is not computed in front. */
static const Expr *find(Search *s, const Expr *e) {
  if (!(e->flags & DEAR) || e->op == EX_REDUCE || !expr_uses_var(e, s->k->i->id)) return NULL;
  for (int i = 0; i < s->seen.n; i++)
    if (s->seen.data[i] == e) return NULL;
  vec_push(s->a, &s->seen, e);
  const bool fits = dtype_compute((DType)e->dtype) == e->dtype; /* a register's type */
  if (fits && !(e->flags & EXF_REDUCE) && is_needed_later(s, e)) return e;
  const bool guarded = e->op == EX_LOAD && e->a[1];
  const int n = guarded ? 0 : e->op == EX_rarely ? 1 : e->nargs;
  for (int i = 0; i < n; i++) {
    const Expr *const part = e->a[i] ? find(s, e->a[i]) : NULL;
    if (part) return part;
  }
  return NULL;
}

static const Expr *in_common(const RowKeep *k, int phase, const Expr *e) {
  Search s = {.k = k, .phase = phase, .a = arena_child(expr_pool_arena(k->p))};
  const Expr *const found = e ? find(&s, e) : NULL;
  arena_free(s.a);
  return found;
}

bool row_keep_worth(const RowKeep *k) {
  for (int i = 0; i < k->n; i++)
    if (in_common(k, i, k->expr[i])) return true;
  return false;
}

/* What is computed into a local. */
typedef struct Kept {
  int local;
  const Expr *value;
} Kept;

static int keep(RowKeep *k, KernelBuild *b, const Expr *e, StmtList *block) {
  const Local l = {.name = "row", .dtype = (DType)e->dtype, .count = k->count, .memory = MEM_REGS};
  const int id = kernel_add_local(b->l->mod, b->k, l);
  stmt_add(block, stmt_local(b->l->m->arena, id));
  k->bytes -= k->count * (dtype_bytes(l.dtype) < 4 ? 4 : dtype_bytes(l.dtype));
  return id;
}

/* Parts of what was kept may be needed on their own: they are kept, too, and computed first. */
void row_keep_phase(RowKeep *k, KernelBuild *b, int phase, StmtList *block, StmtList *body) {
  enum { MOST = 8 };
  Kept kept[MOST];
  int n = 0;
  while (n < MOST && k->bytes >= k->count * 8) {
    const Expr *e = in_common(k, phase, k->expr[phase]);
    for (int i = 0; i < n && !e; i++) e = in_common(k, phase, kept[i].value);
    if (!e) break;
    const int id = keep(k, b, e, block);
    const Expr *const held = ex_local(k->p, (DType)e->dtype, id, k->i);
    for (int i = phase; i < k->n; i++)
      if (k->expr[i]) k->expr[i] = expr_replace(k->p, k->expr[i], 1, &e, &held);
    for (int i = 0; i < n; i++) kept[i].value = expr_replace(k->p, kept[i].value, 1, &e, &held);
    kept[n++] = (Kept){id, e};
  }
  while (n-- > 0) stmt_add(body, stmt_set(b->l->m->arena, kept[n].local, k->i, kept[n].value));
}
