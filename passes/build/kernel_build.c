/* Kernels under construction: parameters on demand, names from op names, locations of all nodes
 * that went in. */
#include <ctype.h>
#include <string.h>

#include "passes/build/kernel.h"
#include "passes/choose/choice.h"
#include "passes/cost/machine_model.h"

static const Place *place_param(void *user, const Value *v, int *id) {
  KernelBuild *b = user;
  const Place *pl = lower_place(b->l, v);
  if (!pl) return NULL;
  *id = kb_param(b, pl->buffer, pl->offset, PA_READ);
  return pl;
}

static bool same_text(const char *a, const char *b) {
  return a == b || (a && b && strcmp(a, b) == 0);
}

static bool known_loc(const Loc *list, const Loc *loc) {
  for (; list; list = list->also)
    if (list->node == loc->node && same_text(list->graph, loc->graph) &&
        same_text(list->op, loc->op))
      return true;
  return false;
}

/* The chain of locations of v and of everything inlined into it, v first. */
static void collect_locs(Arena *a, const Value *v, Loc **head, int *n, StrBuf *name,
                         ValueSet *seen) {
  const Node *node = v->def;
  if (!node || *n >= 24) return;
  for (int k = 0; k < node->n_in; k++)
    if (node->in[k] && node->in[k]->inlined && value_set_add(seen, node->in[k]))
      collect_locs(a, node->in[k], head, n, name, seen);
  if (*n >= 24 || known_loc(*head, node->loc)) return;
  for (const Loc *from = node->loc; from; from = from->also) {
    Loc *copy = arena_dup(a, from, sizeof *copy);
    copy->also = *head;
    *head = copy;
  }
  if (!value_is_view(v) && *n < 4) {
    sb_putc(name, '_');
    for (const char *s = node->op->name; *s; s++) sb_putc(name, (char)tolower((unsigned char)*s));
  }
  ++*n;
}

void kb_begin(KernelBuild *b, Lower *l, const Value *root, const char *suffix) {
  memset(b, 0, sizeof *b);
  b->l = l;
  StrBuf name = {.arena = l->a};
  Loc *locs = NULL;
  ValueSet seen = {.a = l->a};
  int n = 0;
  sb_putc(&name, 'k');
  collect_locs(l->m->arena, root, &locs, &n, &name, &seen);
  if (!n) sb_printf(&name, "_copy");
  if (suffix) sb_printf(&name, "_%s", suffix);
  b->loc = locs ? locs : root->def ? root->def->loc : NULL;
  b->k = kernel_new(l->mod, sb_str(&name), b->loc);
  kernel_expr_init(&b->x, l->m, place_param, b);
  b->x.memory = l->a;
}

/* Of tensors of the caller: a device's are copied where they are not aligned (runtime/cuda/gpu.h). */
static int border_align(const Target *t, DType type) {
  return target_has_grids(t) ? GPU_BORDER_ALIGN : dtype_bytes(type);
}

/* Bytes that a part of a buffer is aligned by: of GPUs, whose accesses of several elements ask. */
static int offset_align(const KernelBuild *b, const Expr *offset, int bytes) {
  int align = 64;
  if (!target_has_grids(b->l->c->target)) return bytes;
  while (align > bytes && !expr_is_multiple(b->l->p, offset, align / bytes)) align /= 2;
  return align;
}

int kb_param(KernelBuild *b, int buffer, const Expr *offset, ParamAccess access) {
  if (buffer < -1) return -2 - buffer;
  if (offset && expr_is_i64(offset, 0)) offset = NULL;
  for (int i = 0; i < b->refs.n; i++) {
    if (b->refs.data[i].buffer != buffer || b->refs.data[i].offset != offset) continue;
    b->k->params.data[i].access |= access;
    return i;
  }
  const Buffer *buf = &b->l->mod->buffers.data[buffer],
               *root = &b->l->mod->buffers.data[buffer_root(b->l->mod, buffer)];
  Param p = {
      .name = "b", .dtype = buf->dtype, .access = access, .constant = buf->kind == BUF_WEIGHT};
  p.count = offset ? ex_sub(b->l->p, buf->count, offset) : buf->count;
  p.align = offset ? offset_align(b, offset, dtype_bytes(buf->dtype)) : 64;
  const int given = border_align(b->l->c->target, buf->dtype);
  if ((root->kind == BUF_INPUT || root->kind == BUF_OUTPUT) && p.align > given) p.align = given;
  vec_push(b->l->m->arena, &b->refs, (BufRef){buffer, offset});
  return kernel_add_param(b->l->mod, b->k, p);
}

int kb_scratch(KernelBuild *b, DType t, const Expr *count, const char *name) {
  vec_push(b->l->m->arena, &b->refs, (BufRef){-1, NULL});
  return kernel_add_param(b->l->mod, b->k,
                          (Param){.name = name,
                                  .dtype = t,
                                  .count = count,
                                  .access = PA_READWRITE,
                                  .scratch = true,
                                  .align = 64});
}

DType kb_dtype(const KernelBuild *b, int param) { return b->k->params.data[param].dtype; }

void kb_move(KernelBuild *to, KernelBuild *from) {
  *to = *from;
  to->x.user = to;
}

void kb_drop(KernelBuild *b) {
  if (b->l->mod->kernels.data[b->l->mod->kernels.n - 1] == b->k) b->l->mod->kernels.n--;
}

void kb_also(KernelBuild *b, const Value *root) {
  Arena *a = b->l->m->arena;
  StrBuf name = {.arena = b->l->a};
  Loc *locs = NULL, *end = (Loc *)b->loc;
  ValueSet seen = {.a = b->l->a};
  int n = 0;
  collect_locs(a, root, &locs, &n, &name, &seen);
  if (!locs || !end) return;
  while (end->also) end = (Loc *)end->also;
  end->also = locs;
}

const Expr *kb_epilogue(KernelBuild *b, const Value *root, const Value *anchor,
                        const Expr *const *idx, const Expr *sum) {
  ExprPool *p = b->l->p;
  b->x.anchor = anchor;
  b->x.anchor_idx = idx;
  const Expr *e = kernel_expr_of(&b->x, root, idx), *hole = ex_hole(p, anchor->dtype, 0);
  b->x.anchor = NULL;
  sum = ex_cast(p, anchor->dtype, sum);
  return expr_replace(p, e, 1, &hole, &sum);
}

const Expr *kb_conv_bias(KernelBuild *b, const Value *anchor, const Expr *const *idx,
                         const Expr *sum) {
  const Value *bias = node_in(anchor->def, 2);
  if (!bias) return sum;
  ExprPool *p = b->l->p;
  return ex_add(p, sum, ex_cast(p, DT_F32, kernel_expr_read(&b->x, bias, &idx[1])));
}

typedef struct Import {
  KernelBuild *to;
  const KernelBuild *from;
} Import;

static const Expr *import_load(void *user, const Expr *leaf) {
  Import *im = user;
  if (leaf->op != EX_LOAD) return NULL;
  const BufRef *r = &im->from->refs.data[leaf->id];
  const int id = kb_param(im->to, r->buffer, r->offset, PA_READ);
  return ex_load(im->to->l->p, leaf->dtype, id, leaf->a[0], leaf->a[1]);
}

const Expr *kb_import(KernelBuild *to, const KernelBuild *from, const Expr *e) {
  Import im = {to, from};
  return expr_rewrite(to->l->p, e, import_load, &im);
}

typedef struct Used {
  ExprPool *p;
  bool *read;
} Used;

static void mark_used(void *user, const Expr *load) { ((Used *)user)->read[load->id] = true; }

static void note(void *user, const Expr *e) {
  Used *const u = user;
  expr_each_load(u->p, e, mark_used, u);
}

static bool note_stmt(void *user, Stmt *s) {
  Used *const u = user;
  stmt_each_expr(s, note, u);
  if (s->kind == ST_STORE || s->kind == ST_PREFETCH) u->read[s->access.id] = true;
  return true;
}

typedef struct Renumber {
  ExprPool *p;
  const int *map;
} Renumber;

static const Expr *renumber_load(void *user, const Expr *leaf) {
  const Renumber *r = user;
  if (leaf->op != EX_LOAD) return NULL;
  return ex_load(r->p, leaf->dtype, r->map[leaf->id], leaf->a[0], leaf->a[1]);
}

static const Expr *renumbered(void *user, const Expr *e) {
  return expr_rewrite(((Renumber *)user)->p, e, renumber_load, user);
}

static bool renumber_stmt(void *user, Stmt *s) {
  const Renumber *const r = user;
  stmt_map_exprs(s, renumbered, user);
  if (s->kind == ST_STORE || s->kind == ST_PREFETCH) s->access.id = r->map[s->access.id];
  return true;
}

/* Expressions that were built and dropped leave parameters behind: drops those. */
static void drop_unused(KernelBuild *b, Stmt *body) {
  const int n = b->refs.n;
  Used u = {b->l->p, ARENA_ARRAY(b->l->a, bool, n + 1)};
  stmt_each(body, note_stmt, &u);
  int *map = ARENA_ARRAY(b->l->a, int, n + 1), kept = 0;
  for (int i = 0; i < n; i++) {
    if (!u.read[i]) continue;
    map[i] = kept;
    b->refs.data[kept] = b->refs.data[i];
    b->k->params.data[kept++] = b->k->params.data[i];
  }
  if (kept == n) return;
  b->refs.n = b->k->params.n = kept;
  Renumber r = {b->l->p, map};
  stmt_each(body, renumber_stmt, &r);
}

void kb_estimate(KernelBuild *b, const char *model, double cycles) {
  b->estimate = (Estimate){model, MODEL_CALL + cycles};
}

double kb_bytes(const KernelBuild *b, ParamAccess access) {
  double bytes = 0;
  for (int i = 0; i < b->k->params.n; i++) {
    const Param *const p = &b->k->params.data[i];
    if (!p->scratch && (p->access & access))
      bytes += dtype_bytes(p->dtype) * expr_extent_guess(b->l->p, p->count);
  }
  return bytes;
}

Step *kb_finish(KernelBuild *b, Stmt *body) {
  drop_unused(b, body);
  Kernel *k = b->k;
  k->body = body;
  Step *s = step_new(b->l->mod, STEP_KERNEL, b->loc);
  BufRef *args = ARENA_ARRAY(b->l->m->arena, BufRef, b->refs.n + 1);
  for (int i = 0; i < b->refs.n; i++) {
    k->params.data[i].name = arena_printf(b->l->m->arena, "b%d", i);
    if (b->refs.data[i].buffer >= 0) args[s->call.n_args++] = b->refs.data[i];
  }
  s->call.kernel = k;
  s->call.args = args;
  s->keys = b->keys;
  s->estimate = b->estimate;
  return s;
}

void step_append(Step **list, Step *s) {
  while (*list) list = &(*list)->next;
  *list = s;
}
