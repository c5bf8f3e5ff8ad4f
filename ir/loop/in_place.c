/* What one step does to an input and the output that lies in its memory: in_place.h. */
#include "ir/loop/in_place.h"

#include "ir/expr/expr_query.h"
#include "ir/graph/op_row.h"

/* ---- who names a buffer ---- */
typedef struct NameUses {
  const Module *m;
  int buffer, times, writes;
} NameUses;

static bool lies_in(const Module *m, int id, int buffer) {
  for (int depth = 0; id >= 0 && depth < 64; depth++) {
    if (id == buffer) return true;
    if (m->buffers.data[id].kind != BUF_VIEW) return false;
    id = m->buffers.data[id].base;
  }
  return false;
}

static void look(void *user, const BufRef *r, int access) {
  NameUses *const u = user;
  const bool here = lies_in(u->m, r->buffer, u->buffer);
  u->times += here;
  u->writes += here && (access & PA_WRITE);
}

static NameUses uses_of(const Module *m, const Step *s, int buffer) {
  NameUses u = {.m = m, .buffer = buffer};
  step_each_ref(s, look, &u);
  return u;
}

bool in_place_uses(const Module *m, const Step *s, int buffer) {
  return uses_of(m, s, buffer).times > 0;
}

bool in_place_writes(const Module *m, const Step *s, int buffer) {
  return uses_of(m, s, buffer).writes > 0;
}

/* ---- kernels ---- */
typedef struct Each {
  ExprPool *p;
  int read, written; /* parameters */
  const Expr *count; /* of elements */
  const Expr *here;  /* index at which the statement that is looked at stores; NULL: it does not */
  bool same;         /* so far all stores put back what is there */
  bool ok;
  bool counted; /* the one store runs as often as there are elements */
  int stores;
} Each;

static void each_load(void *user, const Expr *load) {
  Each *const e = user;
  if (load->id == e->written) e->ok = false;
  if (load->id == e->read && load->a[0] != e->here) e->ok = false;
}

static const Expr *each_expr(void *user, const Expr *x) {
  Each *const e = user;
  if (x->flags & EXF_LOAD) expr_each_load(e->p, x, each_load, e);
  return x;
}

static bool is_load_of(const Expr *v, int param, const Expr *index) {
  return v->op == EX_LOAD && v->id == param && v->a[0] == index && (v->nargs < 2 || !v->a[1]);
}

/* times: iterations of the loops around the list. */
static void each_list(Each *e, Stmt *s, const Expr *times) {
  for (; s && e->ok; s = s->next) {
    const bool store = s->kind == ST_STORE && s->access.id == e->written;
    e->here = store ? s->access.index : NULL;
    stmt_map_exprs(s, each_expr, e);
    if (store) {
      e->stores++;
      e->counted = times == e->count;
      e->same &= is_load_of(s->access.value, e->read, s->access.index);
    }
    const Expr *inner = times;
    if (s->kind == ST_FOR) inner = ex_mul(e->p, times, expr_var_extent(e->p, s->loop.var->id));
    if (s->kind == ST_IF) inner = ex_i64(e->p, -1); /* nobody knows how often */
    each_list(e, stmt_body(s), inner);
    each_list(e, stmt_otherwise(s), inner);
  }
}

/* Each element is stored once, by a statement that reads that one alone. One statement that stores as
 * often as there are elements does so, since all of them are written; tiles are looked at. */
static InPlaceKind kernel_kind(const Module *m, const Step *s, int read, int written) {
  const Kernel *const k = s->call.kernel;
  Each e = {.p = m->model->pool, .read = -1, .written = -1, .same = true, .ok = true};
  for (int i = 0, arg = 0; i < k->params.n && arg < s->call.n_args; i++) {
    if (k->params.data[i].scratch) continue;
    const BufRef *const r = &s->call.args[arg++];
    const bool whole = !r->offset || expr_is_i64(r->offset, 0);
    if (r->buffer == read && whole) e.read = i;
    if (r->buffer == written && whole) e.written = i;
  }
  if (e.read < 0 || e.written < 0) return IN_PLACE_NO;
  e.count = m->buffers.data[written].count;
  each_list(&e, k->body, ex_i64(e.p, 1));
  if (!e.ok || !e.stores) return IN_PLACE_NO;
  if ((e.stores > 1 || !e.counted) && !in_place_stores_once(m, k, e.written, e.count))
    return IN_PLACE_NO;
  return e.same && s->call.n_args == 2 ? IN_PLACE_SAME : IN_PLACE_EACH;
}

/* ---- runtime functions ---- */
static InPlaceKind extern_kind(const Step *s, int read, int written) {
  const bool over = s->ext.row->over_first && s->ext.n_ins && s->ext.n_outs &&
                    s->ext.ins[0].buf.buffer == read && s->ext.outs[0].buf.buffer == written;
  const Expr *const from = over ? s->ext.ins[0].buf.offset : NULL,
                    *const to = over ? s->ext.outs[0].buf.offset : NULL;
  const bool whole = (!from || expr_is_i64(from, 0)) && (!to || expr_is_i64(to, 0));
  return over && whole ? IN_PLACE_FIRST : IN_PLACE_NO;
}

InPlaceKind in_place_step(const Module *m, const Step *s, int read, int written) {
  if (uses_of(m, s, read).times != 1 || uses_of(m, s, written).times != 1) return IN_PLACE_NO;
  if (s->kind == STEP_KERNEL) return kernel_kind(m, s, read, written);
  if (s->kind == STEP_EXTERN) return extern_kind(s, read, written);
  return IN_PLACE_NO;
}
