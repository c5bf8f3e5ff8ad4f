/* Vector loops as accesses of 4, 8 or 16 bytes: copies between memory and what a thread has, and stores
 * of values that are computed first, from what they read of memory likewise. Elements must follow each
 * other and begin where the access may: other loops are unrolled, element by element. */
#include "codegen/cuda/cuda.h"
#include "ir/expr/expr_query.h"

enum { WIDEST = 16 }; /* bytes of an access */

typedef struct Vector {
  CText *c;
  const Expr *var;
  int64_t n; /* elements */
} Vector;

/* One of the elements' places: the first one's index. */
typedef struct Place {
  bool param; /* else a local */
  int id;
  const Expr *first;
  DType type;
} Place;

/* Whether the elements follow each other, from a multiple of their number on. */
static bool follows(const Vector *v, const Expr *index, const Expr **first) {
  const Expr *coeff;
  return expr_affine(v->c->pool, index, v->var, &coeff, first) && expr_is_i64(coeff, 1) &&
         expr_is_multiple(v->c->pool, *first, v->n);
}

/* Parameters tell how they are aligned; locals are by 16 bytes. */
static bool place_of(const Vector *v, bool param, int id, const Expr *index, Place *out) {
  const Kernel *const k = v->c->kernel;
  *out = (Place){.param = param, .id = id};
  out->type = param ? k->params.data[id].dtype : k->locals.data[id].dtype;
  const int64_t bytes = v->n * dtype_bytes(out->type);
  if (param && k->params.data[id].align < bytes) return false;
  return (bytes == 4 || bytes == 8 || bytes == WIDEST) && follows(v, index, &out->first);
}

static bool uses_var(const Vector *v, const Expr *e) { return e && expr_uses_var(e, v->var->id); }

static const char *address(const Vector *v, const Place *p) {
  CText *const c = v->c;
  c_count(c, p->first);
  const char *const at = c_value(c, p->first);
  if (p->param) c->params[p->id] = true;
  return arena_printf(c->arena, "&%c%d[%s]", p->param ? 'b' : 't', p->id, at);
}

/* What is read is what is stored, bit by bit. */
static bool copies(const Vector *v, const Expr *value, const Place *to, Place *from) {
  if (value->op != EX_LOAD && value->op != EX_LOCAL) return false;
  const bool load = value->op == EX_LOAD;
  return place_of(v, load, value->id, value->a[0], from) && from->type == to->type &&
         !(load && uses_var(v, value->a[1]));
}

/* cp.async: 16 bytes from what the kernel never writes, into a late local. */
static bool is_late(const Vector *v, const Place *to, const Place *from, int bytes) {
  const Kernel *const k = v->c->kernel;
  return !to->param && k->locals.data[to->id].late && from->param && bytes == 16 &&
         !(k->params.data[from->id].access & PA_WRITE);
}

static void copy(const Vector *v, const Expr *value, const Place *to, const Place *from) {
  CText *const c = v->c;
  const int bytes = (int)v->n * dtype_bytes(to->type);
  const Expr *const guard = value->op == EX_LOAD ? value->a[1] : NULL;
  const char *const target = address(v, to), *const source = address(v, from);
  const char *const late = is_late(v, to, from, bytes) ? "_late" : "";
  if (!guard) {
    c_line(c, "burin_copy%d%s(%s, %s);", bytes, late, target, source);
    return;
  }
  c_count(c, guard);
  c_line(c, "burin_copy%d%s_if(%s, %s, %s);", bytes, late, target, source, c_value(c, guard));
}

/* ---- what values read ---- */
enum { MOST_READS = 24 };

/* Elements of memory that follow each other, which are brought into `w` before the loop. */
typedef struct Read {
  const Expr *e;
  Place from;
  int id; /* of the array */
} Read;

typedef struct Reads {
  const Vector *v;
  Read read[MOST_READS];
  int n;
} Reads;

/* Like place_of, of more elements than one access takes, too. */
static bool read_of(const Vector *v, const Expr *e, Place *out) {
  const Kernel *const k = v->c->kernel;
  const bool param = e->op == EX_LOAD;
  *out = (Place){.param = param, .id = e->id};
  out->type = param ? k->params.data[e->id].dtype : k->locals.data[e->id].dtype;
  const int64_t bytes = v->n * dtype_bytes(out->type);
  const int64_t one = bytes < WIDEST ? bytes : WIDEST;
  if (!param && k->locals.data[e->id].memory != MEM_SHARED) return false;
  if (param && (k->params.data[e->id].align < one || uses_var(v, e->a[1]))) return false;
  if (bytes % one || (one != 4 && one != 8 && one != WIDEST)) return false;
  return (DType)e->dtype == out->type && follows(v, e->a[0], &out->first);
}

static bool note_read(void *user, const Expr *e) {
  Reads *const r = user;
  if (r->n < MOST_READS && (e->op == EX_LOAD || e->op == EX_LOCAL)) r->read[r->n++].e = e;
  return false;
}

/* Those of the value's reads that can be brought. */
static void find_reads(const Expr *value, Reads *r) {
  Reads all = {.v = r->v};
  expr_any(value, EXF_LOAD | EXF_LOCAL, note_read, &all);
  for (int i = 0; i < all.n; i++) {
    Read one = all.read[i];
    if (read_of(r->v, one.e, &one.from)) r->read[r->n++] = one;
  }
}

/* Brings what is read into arrays of its own. */
static void bring(const Vector *v, Read *r) {
  CText *const c = v->c;
  const int size = dtype_bytes(r->from.type), bytes = (int)v->n * size;
  const int one = bytes < WIDEST ? bytes : WIDEST;
  const Expr *const guard = r->from.param ? r->e->a[1] : NULL;
  r->id = c->temps++;
  c_line(c, "BURIN_ALIGNED %s w%d[%d];", c_mem_type(r->from.type), r->id, (int)v->n);
  const char *const source = address(v, &r->from);
  if (guard) c_count(c, guard);
  const char *const there = guard ? c_value(c, guard) : "";
  for (int i = 0; i < bytes / one; i++)
    c_line(c, "burin_copy%d%s(&w%d[%d], %s + %d%s%s);", one, guard ? "_if" : "", r->id,
           i * one / size, source, i * one / size, guard ? ", " : "", there);
}

/* Values first, into registers. */
static void store(const Vector *v, const Expr *value, const Place *to) {
  CText *const c = v->c;
  const int id = c->temps++, var = v->var->id, n = (int)v->n;
  const char *const target = address(v, to);
  Reads reads = {.v = v};
  find_reads(value, &reads);
  for (int i = 0; i < reads.n; i++) bring(v, &reads.read[i]);
  c_line(c, "BURIN_ALIGNED %s v%d[%d];", c_mem_type(to->type), id, n);
  c_line(c, "#pragma unroll");
  c_line(c, "for (int i%d = 0; i%d < %d; i%d++) {", var, var, n, var);
  c->indent++;
  c_forget(c);
  c_count(c, value);
  for (int i = 0; i < reads.n; i++) {
    const Read *const r = &reads.read[i];
    c_known(c, r->e, c_loaded(c, r->from.type, arena_printf(c->arena, "w%d[i%d]", r->id, var)));
  }
  const char *const one = c_value(c, value);
  c_line(c, "v%d[i%d] = %s;", id, var, c_stored(c, to->type, one));
  c->indent--;
  c_line(c, "}");
  c_line(c, "burin_copy%d(%s, v%d);", n * dtype_bytes(to->type), target, id);
}

/* Of a thread's own array only copies are worth it: the others are registers anyway. */
static bool is_memory(const Vector *v, const Stmt *s) {
  return s->kind == ST_STORE || v->c->kernel->locals.data[s->access.id].memory == MEM_SHARED;
}

bool cuda_vector(CText *c, const Stmt *loop) {
  Vector v = {.c = c, .var = loop->loop.var};
  const Stmt *const s = loop->loop.body;
  const Expr *const lo = expr_var_lo(c->pool, v.var->id);
  Place to, from;
  if (!s || s->next || (s->kind != ST_STORE && s->kind != ST_SET) || (lo && !expr_is_i64(lo, 0)) ||
      !expr_is_const(expr_var_extent(c->pool, v.var->id), &v.n) || v.n < 2 ||
      !place_of(&v, s->kind == ST_STORE, s->access.id, s->access.index, &to))
    return false;
  const bool copied = copies(&v, s->access.value, &to, &from);
  if (!copied && !is_memory(&v, s)) return false;
  c_line(c, "{");
  c->indent++;
  c_forget(c);
  if (copied)
    copy(&v, s->access.value, &to, &from);
  else
    store(&v, s->access.value, &to);
  c->indent--;
  c_line(c, "}");
  return true;
}
