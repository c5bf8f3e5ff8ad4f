/* If whose branches give different ranks or types, as ONNX allows. No value of the graph can be
 * that, so what depends on the If's results is imported at the end of both branches, node by node,
 * until nobody reads a result that differs; there the If ends, and what is still read leaves it.
 * Forks nest: a branch whose end differs inside, and an If among what is imported twice. A function
 * or branch that ends with an open fork hands it to what stands around it. */
#include <string.h>
#include "frontend/scope/scope.h"
#include "ir/op/ops.h"

typedef Onnx__NodeProto NodeProto;

enum { LEAVES = INT32_MAX - 1 }; /* the position behind all nodes */

struct Level {
  const NodeList *list;
  const int *order;
  int at;       /* position in order of the node that is being imported */
  StrMap last;  /* name → 1 + the last position that reads it; filled when a fork opens */
  bool counted; /* last is filled */
};

struct Fork {
  const Loc *loc; /* of the If */
  Value *cond;
  Scope *side[2];    /* what is imported in the branches */
  const Loc *bad[2]; /* first node that cannot be inferred there; or NULL */
  Names names;       /* that depend on the If */
  Names open;        /* those that differ and are still read */
  StrMap members;    /* name → itself, of all names */
  int origin;        /* position of the node that opened it */
  Vec(int) twice;    /* positions of nodes that were imported in both branches */
  const Fork *from;  /* that of a function or branch, which this one goes on with; or NULL */
};

/* ---- who reads a name, and when ---- */
static void count_reads(Import *im, Level *l) {
  if (l->counted) return;
  l->counted = true;
  for (int k = l->at; k < l->list->n; k++) {
    Names reads = {0};
    node_reads(im->scratch, l->list->nodes[l->order[k]], &reads);
    for (int i = 0; i < reads.n; i++)
      strmap_put(im->scratch, &l->last, reads.data[i], (void *)(intptr_t)(k + 1));
  }
  for (int k = 0; k < l->list->outs.n; k++)
    strmap_put(im->scratch, &l->last, l->list->outs.data[k], (void *)(intptr_t)(LEAVES + 1));
}

static int last_read(const Level *l, const char *name) {
  return (int)(intptr_t)strmap_get(&l->last, name) - 1;
}

static bool is_read(const Scope *s, const char *name) {
  return last_read(s->level, name) > s->level->at;
}

bool fork_has(const Scope *s, const char *name) {
  return s->fork && strmap_get(&s->fork->members, name);
}

static bool depends(Import *im, const Scope *s, const NodeProto *p) {
  Names reads = {0};
  if (!s->fork) return false;
  node_reads(im->scratch, p, &reads);
  for (int k = 0; k < reads.n; k++)
    if (fork_has(s, reads.data[k])) return true;
  return false;
}

/* ---- what a name is in each branch ---- */
/* Lists of different lengths that are known are shapes of different ranks, or will be. */
static bool same_length(const Value *v, const Value *w) {
  return v->rank != 1 || !value_known(v) || !value_known(w) || v->dims[0] == w->dims[0];
}

/* False: two of them have different ranks or types. NULL in *any: none is known. */
static bool agrees(const Scope *s, const char *name, const Value **any) {
  if (fork_has(s, name))
    return agrees(s->fork->side[0], name, any) && agrees(s->fork->side[1], name, any);
  const Value *v = scope_find(s, name);
  if (!v || v->kind != TY_TENSOR || v->rank < 0) return true;
  const Value *const other = *any;
  *any = v;
  return !other || (other->rank == v->rank && other->dtype == v->dtype && same_length(v, other));
}

static bool differs(const Scope *s, const char *name) {
  const Value *any = NULL;
  return !agrees(s, name, &any);
}

static void add_member(Import *im, Scope *s, const char *name) {
  Fork *const f = s->fork;
  if (!*name || strmap_get(&f->members, name)) return;
  strmap_put(im->scratch, &f->members, name, f);
  vec_push(im->scratch, &f->names, name);
  if (differs(s, name)) vec_push(im->scratch, &f->open, name);
}

/* ---- opening ---- */
static Scope *new_side(Import *im, Scope *s, Graph *g) {
  Scope *const side = ARENA_NEW(im->scratch, Scope);
  *side = (Scope){.parent = s,
                  .same = true,
                  .graph = g,
                  .opsets = s->opsets,
                  .args = s->args,
                  .path = s->path,
                  .level = s->level};
  return side;
}

static Fork *new_fork(Import *im, Scope *s, Value *cond, const Loc *loc, Graph *const g[2]) {
  Fork *const f = ARENA_NEW(im->scratch, Fork);
  *f = (Fork){.loc = loc, .cond = cond, .origin = s->level->at};
  for (int j = 0; j < 2; j++) f->side[j] = new_side(im, s, g[j]);
  count_reads(im, s->level);
  return s->fork = f;
}

bool fork_bind(Import *im, Scope *to, const char *name, const Scope *from, const char *from_name,
               const Loc *loc) {
  if (!fork_has(from, from_name)) {
    const Value *v = scope_find(from, from_name);
    return v ? scope_define(im, to, name, v, loc)
             : diag_error(im->d, loc, ERR_UNDEFINED, "the output \"%s\" is not defined", from_name);
  }
  const Fork *const f = from->fork;
  if (!to->fork)
    new_fork(im, to, f->cond, f->loc, (Graph *[]){f->side[0]->graph, f->side[1]->graph})->from = f;
  for (int j = 0; j < 2; j++)
    if (!fork_bind(im, to->fork->side[j], name, f->side[j], from_name, loc)) return false;
  add_member(im, to, name);
  return true;
}

static bool results_differ(const NodeProto *p, Scope *const at[2],
                           const Onnx__GraphProto *const g[2]) {
  for (size_t k = 0; k < p->n_output; k++) {
    const Value *any = NULL;
    if (!agrees(at[0], g[0]->output[k]->name, &any) || !agrees(at[1], g[1]->output[k]->name, &any))
      return true;
  }
  return false;
}

bool fork_open(Import *im, Scope *s, const NodeProto *p, Value *cond, const Loc *loc,
               Scope *const at[2], const Onnx__GraphProto *const g[2], bool *opened) {
  *opened = results_differ(p, at, g);
  if (!*opened) return true;
  Fork *const f = new_fork(im, s, cond, loc, (Graph *[]){at[0]->graph, at[1]->graph});
  for (size_t k = 0; k < p->n_output; k++) {
    if (!*p->output[k]) continue;
    for (int j = 0; j < 2; j++)
      if (!fork_bind(im, f->side[j], p->output[k], at[j], g[j]->output[k]->name, loc)) return false;
    add_member(im, s, p->output[k]);
  }
  return true;
}

static bool stands_in(const Graph *g, const Graph *around) {
  while (g && g != around) g = g->parent;
  return g != NULL;
}

/* What inference assumed in branches that are no more is forgotten. */
static void drop_graph(Import *im, const Graph *g) {
  Model *const m = im->m;
  int kept = 0;
  for (int k = 0; k < m->assumes.n; k++) {
    const DimAssume a = m->assumes.data[k];
    if (!a.graph || !stands_in(a.graph, g)) m->assumes.data[kept++] = a;
  }
  m->assumes.n = kept;
}

static void drop_fork(Import *im, const Fork *f) {
  for (int j = 0; j < 2; j++) drop_graph(im, f->side[j]->graph);
}

/* ---- closing ---- */
/* A value of v's type, in a branch that fails when it runs. Sizes that are not known are 0. */
static Value *unreachable(Import *im, Scope *side, const Value *v, const Loc *loc) {
  enum { MOST = 1 << 20 };
  int64_t shape[MAX_RANK], count = 1;
  for (int d = 0; d < v->rank; d++) {
    if (!expr_is_const(v->dims[d], &shape[d]) || count * shape[d] > MOST) shape[d] = 0;
    count *= shape[d];
  }
  const Attr attrs[2] = {attr_int(im->arena, "to", dtype_rows[v->dtype].onnx),
                         attr_ints(im->arena, "shape", v->rank, shape)};
  return import_value(im, side->graph, op_find("burin", "Unreachable"), 0, NULL, 2, attrs, loc);
}

/* What is read of a branch in which something cannot be computed that the other one can, so that no
 * run gets through it. */
static bool replace_bad(Import *im, Scope *s, int j, const NodeProto *p) {
  Fork *const f = s->fork;
  Scope *const bad = new_side(im, s, graph_new(im->m, s->graph, f->side[j]->graph->name));
  for (size_t k = 0; k < p->n_output; k++) {
    const Value *const v = scope_find(f->side[!j], p->output[k]);
    if (!v || v->kind != TY_TENSOR || v->rank < 0) return true; /* inference says what is wrong */
    Value *const by = unreachable(im, bad, v, f->bad[j]);
    if (!by || !scope_define(im, bad, p->output[k], by, f->loc)) return false;
  }
  diag_warning(im->d, f->bad[j],
               "what the %s gives does not fit here; a run that takes that branch will fail",
               j ? "else_branch" : "then_branch");
  drop_graph(im, f->side[j]->graph);
  f->side[j] = bad;
  return true;
}

/* The If ends here: what is still read leaves it. */
static bool close_fork(Import *im, Scope *s) {
  Fork *const f = s->fork;
  NodeProto p = ONNX__NODE_PROTO__INIT;
  Attr attrs[2] = {{.name = "then_branch", .kind = AT_GRAPH, .n = 1},
                   {.name = "else_branch", .kind = AT_GRAPH, .n = 1}};
  p.output = ARENA_ARRAY(im->scratch, char *, f->names.n + 1);
  for (int k = 0; k < f->names.n; k++)
    if (is_read(s, f->names.data[k])) p.output[p.n_output++] = (char *)f->names.data[k];
  for (int j = 0; j < 2; j++)
    if (f->side[j]->fork && !close_fork(im, f->side[j])) return false;
  for (int j = 0; j < 2; j++)
    if (f->bad[j] && !f->bad[!j] && !replace_bad(im, s, j, &p)) return false;
  for (int j = 0; j < 2; j++) {
    for (size_t k = 0; k < p.n_output; k++)
      if (!import_leave(im, f->side[j], p.output[k], f->loc)) return false;
    attrs[j].graph = f->side[j]->graph;
  }
  s->fork = NULL;
  return !p.n_output || import_if(im, s, &p, f->cond, attrs, f->loc);
}

/* ---- giving up ---- */
static bool import_position(Import *im, Scope *s, int k);

/* The sizes that are compared are taken to differ. */
static bool take_other(Import *im, const Scope *s, const Fork *f) {
  const Node at = {.graph = s->graph, .loc = f->loc};
  const Expr *const cond = f->cond->contents[0], **truth = ARENA_ARRAY(im->arena, const Expr *, 1);
  truth[0] = ex_bool(im->m->pool, false);
  f->cond->contents = truth;
  return require_nonzero(im->m, &at, ex_sub(im->m->pool, cond->a[0], cond->a[1]),
                         "difference of sizes that a branch is chosen by");
}

/* Without a fork: where sizes choose the branch, they are taken to choose that side, which is
 * checked at entry. Of the first one inference says so itself. */
static bool start_again(Import *im, Scope *s, int side) {
  const Fork *const f = s->fork;
  Level *const l = s->level;
  const int at = l->at;
  Scope *const trial = new_side(im, s, s->graph);
  const NodeProto *const p = l->list->nodes[l->order[f->origin]];
  drop_fork(im, f);
  s->fork = NULL;
  if (side == 1 && !take_other(im, s, f)) return false;
  im->plain++;
  const bool ok = import_node(im, trial, p, l->order[f->origin]);
  im->plain--;
  if (!ok) return false;
  for (size_t k = 0; k < p->n_output; k++)
    if (*p->output[k] && !strmap_get(&s->values, p->output[k]) &&
        !scope_define(im, s, p->output[k], scope_find(trial, p->output[k]), f->loc))
      return false;
  for (int k = 0; k < f->twice.n; k++) {
    l->at = f->twice.data[k];
    if (!import_position(im, s, l->at)) return false;
  }
  l->at = at;
  return true;
}

/* A model's outputs, and those of a Loop's body, have one rank. */
static const char *leaving(const Scope *s) {
  const Fork *const f = s->fork;
  for (int k = 0; s->level->list->to != LEAVE_BRANCH && k < f->open.n; k++)
    if (last_read(s->level, f->open.data[k]) == LEAVES) return f->open.data[k];
  return NULL;
}

static int declared_rank(const Import *im, const Scope *s, const char *name) {
  const Onnx__TypeProto__Tensor *const t =
      s->level->list->to == LEAVE_MODEL ? import_declared(im, s, name) : NULL;
  return t ? (int)t->shape->n_dim : -1;
}

/* The only side that can be computed, or in which the output `name` (or NULL) of the model has the
 * rank that the model declares; -1: neither or both. */
static int fitting_side(Import *im, const Scope *s, const char *name) {
  const Fork *const f = s->fork;
  bool fits[2];
  if (!f->bad[0] != !f->bad[1]) return f->bad[0] ? 1 : 0;
  const int rank = name ? declared_rank(im, s, name) : -1;
  for (int j = 0; j < 2; j++) {
    const Value *v = NULL;
    fits[j] = rank >= 0 && agrees(f->side[j], name, &v) && v && v->rank == rank;
  }
  return fits[0] == fits[1] ? -1 : fits[1];
}

static bool leaves(Import *im, const Scope *s, const char *name) {
  Loc *const l = ARENA_NEW(im->scratch, Loc);
  *l = *s->fork->loc;
  return diag_error(im->d, l, ERR_DYNAMIC,
                    "the branches give different ranks or types, on which \"%s\", an output of the "
                    "%s, depends; it must have one rank",
                    name, s->level->list->to == LEAVE_MODEL ? "model" : "body around it");
}

/* Behind each node: ends the fork where nothing that differs is read any more. */
static bool settle(Import *im, Scope *s) {
  Fork *const f = s->fork;
  if (!f) return true;
  int kept = 0;
  for (int k = 0; k < f->open.n; k++)
    if (is_read(s, f->open.data[k])) f->open.data[kept++] = f->open.data[k];
  f->open.n = kept;
  if (!kept) return close_fork(im, s);
  const char *const name = leaving(s);
  if (!name && !im->failed) return true;
  const int side = fitting_side(im, s, name);
  if (value_compares_sizes(f->cond)) {
    im->failed = false;
    return start_again(im, s, side);
  }
  if (!name) return true;
  if (side < 0) return leaves(im, s, name);
  f->bad[!side] = f->loc; /* no run gets an output of another rank than the model declares */
  return close_fork(im, s);
}

/* ---- importing ---- */
static bool is_unknown(const Scope *s, const char *name) {
  const Value *const v = scope_find(s, name);
  return v && v != &scope_absent && v->kind == TY_NONE;
}

/* All that it reads is known, but not what it makes. */
static bool inference_failed(Import *im, const Scope *s, const NodeProto *p) {
  Names reads = {0};
  bool failed = false;
  node_reads(im->scratch, p, &reads);
  for (size_t k = 0; k < p->n_output; k++)
    failed |= *p->output[k] && !fork_has(s, p->output[k]) && is_unknown(s, p->output[k]);
  for (int k = 0; k < reads.n; k++) failed &= !is_unknown(s, reads.data[k]);
  return failed;
}

static bool import_twice(Import *im, Scope *s, int k) {
  const Level *const l = s->level;
  const NodeProto *const p = l->list->nodes[l->order[k]];
  if (++im->forked > MAX_FORKED)
    return diag_error(im->d, s->fork->loc, ERR_LIMIT,
                      "the branches give different ranks, and what depends on such Ifs would be "
                      "compiled in more than %d further copies of nodes",
                      MAX_FORKED);
  bool failed = false;
  vec_push(im->scratch, &s->fork->twice, k);
  for (int j = 0; j < 2; j++) {
    Scope *const side = s->fork->side[j];
    im->failed = false;
    if (!import_position(im, side, k)) return false;
    const bool bad = inference_failed(im, side, p);
    failed |= im->failed || bad;
    if (bad && !s->fork->bad[j])
      s->fork->bad[j] =
          node_loc(im, side, p, l->order[k], opsets_find(s->opsets, domain_normal(p->domain)));
  }
  im->failed = failed;
  for (size_t i = 0; i < p->n_output; i++) add_member(im, s, p->output[i]);
  return settle(im, s);
}

/* While a fork is open, a node that opens another one goes into its branches, too. */
static bool import_beside(Import *im, Scope *s, int k) {
  const int index = s->level->order[k];
  const NodeProto *const p = s->level->list->nodes[index];
  Scope *const trial = new_side(im, s, s->graph);
  if (!import_node(im, trial, p, index)) return false;
  if (trial->fork) {
    drop_fork(im, trial->fork);
    return import_twice(im, s, k);
  }
  for (size_t i = 0; i < p->n_output; i++) {
    const Value *const v = *p->output[i] ? scope_find(trial, p->output[i]) : NULL;
    if (v && !scope_define(im, s, p->output[i], v, s->fork->loc)) return false;
  }
  return true;
}

static bool import_position(Import *im, Scope *s, int k) {
  const int index = s->level->order[k];
  const NodeProto *const p = s->level->list->nodes[index];
  if (depends(im, s, p)) return import_twice(im, s, k);
  if (s->fork) return import_beside(im, s, k) && settle(im, s);
  return import_node(im, s, p, index) && settle(im, s);
}

bool fork_import(Import *im, Scope *s, const NodeList *list) {
  const Loc loc = named_loc(im, s->path, NULL);
  int *order = ARENA_ARRAY(im->scratch, int, list->n);
  Level *const l = s->level = ARENA_NEW(im->scratch, Level);
  *l = (Level){.list = list, .order = order};
  if (!node_order(im, s, list->nodes, list->n, &loc, order)) return false;
  for (l->at = 0; l->at < list->n; l->at++) {
    if (!import_position(im, s, l->at)) return false;
    im->failed = false;
  }
  return true;
}
