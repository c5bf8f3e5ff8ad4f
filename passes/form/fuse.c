/* Forms kernels: decides which values are never stored but computed where they are read
 * (Value.inlined).
 *
 * needs expanded ops; breaks nothing; ignores layouts.
 * Walks each graph backwards. A value is inlined when evaluating its readers with it, hoisting of
 * invariant parts included, costs no more than evaluating readers and value apart plus a trip
 * through memory. A contraction is inlined into one elementwise reader of its own shape: the reader
 * becomes its epilogue. */
#include "passes/build/kernel.h"

#include <string.h>

/* MAX_SIZE: code of a kernel's expressions (expr_cost_and_size). No model of a person's making
 * comes near it; without it a chain of n nodes is one expression, built n times over. */
enum { MAX_EXPRS = 6, MAX_LOADS = 24, MAX_SIZE = 1000, MAX_COMPUTED = 300 };

/* Store and reload of an element, in units of expr_total_cost. A GPU does some seventy operations
 * while it moves an element to memory and back; half of the trips end in its cache, and values
 * that are computed again are loaded again, too. */
static double memory_cost(const Target *t) { return target_has_grids(t) ? 16 : 2.5; }

typedef struct Root {
  const Value *v;
  const Value *anchor;
  const Expr *vars[MAX_RANK];
  const Expr *operand_vars[MAX_EXPRS][MAX_RANK];
  const Expr *exprs[MAX_EXPRS]; /* 0: the element; then operands of the anchor, or pieces */
  int n_exprs;
  double cost, size;
  int n_computed; /* values that are computed in the expressions */
} Root;

typedef struct Fuse {
  const PassCtx *c;
  Model *m;
  ExprPool *p;
  Arena *a;
  StandIns places;
  bool *forced; /* must lie in memory */
  Vec(Root *) * readers;
  const Uses *uses;
  int n_values;
  bool changed;
} Fuse;

static void make_vars(Fuse *f, const Value *v, const Expr **vars) {
  for (int d = 0; d < v->rank; d++)
    vars[d] = expr_is_i64(v->dims[d], 1) ? ex_i64(f->p, 0) : ex_var(f->p, "f", v->dims[d]);
}

static Root *root_new(Fuse *f, const Value *v) {
  Root *r = ARENA_NEW(f->a, Root);
  r->v = v;
  make_vars(f, v, r->vars);
  return r;
}

static const Expr **operand_vars(Fuse *f, Root *r, int slot, const Value *v) {
  if (!r->operand_vars[slot][0] && v->rank) make_vars(f, v, r->operand_vars[slot]);
  return r->operand_vars[slot];
}

/* One load whose index is affine in all variables of the operand: what a template can address. */
static bool addressable(Fuse *f, const Expr *e, const Expr *const *vars, int rank) {
  if (e->op == EX_CONST) return true;
  if (e->op != EX_LOAD || e->a[1]) return false;
  for (int d = 0; d < rank; d++) {
    const Expr *coeff, *rest;
    if (vars[d]->op == EX_VAR && !expr_affine(f->p, e->a[0], vars[d], &coeff, &rest)) return false;
  }
  return !(e->a[0]->flags & EXF_LOAD);
}

/* Attention copies queries and packs keys and values, each element once: any expression will do. */
static bool build_attention(Fuse *f, Root *r, KernelExpr *x, const Attention *a) {
  const Value *const operands[] = {a->q, a->k, a->v};
  const Expr *at[MAX_RANK];
  r->exprs[r->n_exprs++] = attention_score(x, a, operand_vars(f, r, 1, a->x), at);
  for (int k = 0; k < 3; k++)
    r->exprs[r->n_exprs++] =
        kernel_expr_read(x, operands[k], operand_vars(f, r, 2 + k, operands[k]));
  for (int k = 1; k < r->n_exprs; k++)
    if (r->exprs[k]->flags & EXF_REDUCE) return false;
  return true;
}

static bool build_exprs(Fuse *f, Root *r, Arena *memory) {
  KernelExpr x;
  kernel_expr_init(&x, f->m, stand_in, &f->places);
  x.memory = memory;
  const Node *n = r->v->def;
  r->anchor = kernel_anchor(r->v);
  r->n_exprs = 0;
  if (n->op->flags & (OF_PIECES | OF_SCATTER)) {
    for (int k = 0; k < n->n_in && k < MAX_EXPRS; k++)
      r->exprs[r->n_exprs++] = kernel_expr_read(&x, n->in[k], operand_vars(f, r, k, n->in[k]));
  } else {
    x.anchor = r->anchor;
    x.anchor_idx = r->vars;
    r->exprs[r->n_exprs++] = kernel_expr_of(&x, r->v, r->vars);
    x.anchor = NULL;
    Attention at;
    const bool attention = r->anchor && attention_of(r->anchor->def, &at);
    if (attention && !build_attention(f, r, &x, &at)) return false;
    const int n_in = r->anchor && !attention ? r->anchor->def->n_in : 0;
    for (int k = 0; k < n_in && k < MAX_EXPRS - 1; k++) {
      const Value *v = r->anchor->def->in[k];
      if (!v) continue;
      const Expr **vars = operand_vars(f, r, k + 1, v);
      const Expr *e = kernel_expr_read(&x, v, vars);
      if (!addressable(f, e, vars, v->rank)) return false;
      r->exprs[r->n_exprs++] = e;
    }
  }
  r->n_computed = x.n_computed;
  return !x.bad && !expr_scan_reduces(f->p, r->exprs[0]);
}

/* Builds the expressions of r with the current choices; false when they are not acceptable. */
static bool root_build(Fuse *f, Root *r) {
  Arena *memory = arena_child(f->a);
  const bool ok = build_exprs(f, r, memory);
  arena_free(memory);
  r->cost = expr_cost_and_size(f->p, r->n_exprs, r->exprs, &r->size);
  return ok;
}

typedef struct ReadNote {
  Fuse *f;
  Root *r;
  int count;
} ReadNote;

static void note_reader(void *user, const Expr *load) {
  ReadNote *n = user;
  for (int i = 0; i < n->f->readers[load->id].n; i++)
    if (n->f->readers[load->id].data[i] == n->r) return;
  vec_push(n->f->a, &n->f->readers[load->id], n->r);
}

static void count_load(void *user, const Expr *load) { ((ReadNote *)user)->count++; }

static void register_reads(Fuse *f, Root *r) {
  ReadNote n = {f, r, 0};
  for (int i = 0; i < r->n_exprs; i++) expr_each_load(f->p, r->exprs[i], note_reader, &n);
}

static bool reads(Fuse *f, const Root *r, const Value *v);
static void match_load(void *user, const Expr *load) {
  ReadNote *n = user;
  if (load->id == n->count) n->r = NULL;
}
/* The list of readers may be stale: an inlining may have dropped the load. */
static bool reads(Fuse *f, const Root *r, const Value *v) {
  ReadNote n = {f, (Root *)r, v->id};
  for (int i = 0; i < r->n_exprs; i++) expr_each_load(f->p, r->exprs[i], match_load, &n);
  return n.r == NULL;
}

static bool has_reduce(const Root *r) { return (r->exprs[0]->flags & EXF_REDUCE) != 0; }

static bool fits(Fuse *f, const Root *r) {
  ReadNote n = {f, NULL, 0};
  for (int i = 0; i < r->n_exprs; i++) expr_each_load(f->p, r->exprs[i], count_load, &n);
  if (r->v->def->op->flags & OF_SCATTER) /* its indices and updates are read element by element */
    for (int i = 1; i < r->n_exprs; i++)
      if (r->exprs[i]->flags & EXF_REDUCE) return false;
  return n.count <= MAX_LOADS && r->size <= MAX_SIZE && r->n_computed <= MAX_COMPUTED &&
         !(r->anchor && has_reduce(r));
}

static bool can_be_epilogue(const Root *r, const Value *v) {
  return !r->anchor && !has_reduce(r) && !(r->v->def->op->flags & (OF_PIECES | OF_SCATTER)) &&
         value_same_shape(r->v, v);
}

/* Every use of u ends, through elementwise nodes, in v. */
static bool leads_to(const Fuse *f, const Value *u, const Value *v, int depth) {
  if (u == v) return true;
  if (depth > 6 || f->uses->outputs[u->id] || !f->uses->of[u->id].n) return false;
  for (int i = 0; i < f->uses->of[u->id].n; i++) {
    const Node *n = f->uses->of[u->id].data[i];
    if (n->op->body != OB_EW && n->op->body != OB_ELEM) return false;
    if (n->n_out != 1 || !value_same_shape(n->out[0], v) || !leads_to(f, n->out[0], v, depth + 1))
      return false;
  }
  return true;
}

/* A contraction of v's shape whose only way out is v, through elementwise nodes: v can be its
 * epilogue. */
static bool ends_epilogue(const Fuse *f, const Value *from, const Value *v, int depth) {
  const Node *n = from->def;
  if (!n || from->cdata || depth > 6) return false;
  if (node_is_contraction(n)) return depth > 0 && leads_to(f, from, v, 0);
  if (n->op->body != OB_EW && n->op->body != OB_ELEM) return false;
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && value_same_shape(n->in[k], v) && ends_epilogue(f, n->in[k], v, depth + 1))
      return true;
  return false;
}

/* On the way from v to a contraction, whose epilogue v can be, lies a value of fewer bytes: that one
 * is to be stored. */
static bool ends_narrower(const Fuse *f, const Value *from, const Value *v, int depth) {
  const Node *n = from->def;
  if (!n || from->cdata || depth > 6) return false;
  if (dtype_bytes(from->dtype) < dtype_bytes(v->dtype)) return ends_epilogue(f, from, from, 0);
  if (n->op->body != OB_EW && n->op->body != OB_ELEM) return false;
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && value_same_shape(n->in[k], v) && ends_narrower(f, n->in[k], v, depth + 1))
      return true;
  return false;
}

/* A sum of bytes that a product's epilogue takes off, once a row or column: it would keep the
 * epilogue from its product. */
static bool hinders_epilogue(const Fuse *f, const Value *v) {
  const Vec(Root *) *rs = (const void *)&f->readers[v->id];
  if (v->dtype != DT_I32) return false;
  for (int i = 0; i < rs->n; i++) {
    const Value *root = rs->data[i]->v;
    if (!rs->data[i]->anchor && root->def->n_in && ends_epilogue(f, root, root, 0)) return true;
  }
  return false;
}

/* The real numbers of bytes: a load of a quarter of the size, and three operations. */
static bool is_dequantized_bytes(const Value *v) {
  return strcmp(v->def->op->name, "DequantizeLinear") == 0 && value_is_byte(v->def->in[0]) &&
         v->dtype == DT_F32;
}

/* Whether v is read where the inlined tree of `from` is computed; true where that is too deep to tell. */
static bool tree_reads(const Value *from, const Value *v, int depth) {
  enum { DEEP = 8 };
  if (from == v || depth > DEEP) return true;
  for (int k = 0; from->inlined && from->def && k < from->def->n_in; k++)
    if (from->def->in[k] && tree_reads(from->def->in[k], v, depth + 1)) return true;
  return false;
}

/* v is, or is in, an operand of the root's contraction: its sum would run in another order. */
static bool feeds_sum(const Root *r, const Value *v) {
  const Node *n = r->anchor ? r->anchor->def : NULL;
  for (int k = 0; n && k < n->n_in; k++)
    if (n->in[k] && tree_reads(n->in[k], v, 0)) return true;
  return false;
}

/* Where v is stored or not, the bits are the same: no sum moves into another loop. */
static bool same_bits_inlined(const Fuse *f, const Root *alone) {
  const Vec(Root *) *rs = (const void *)&f->readers[alone->v->id];
  if (alone->anchor || has_reduce(alone)) return false;
  for (int i = 0; i < rs->n; i++)
    if (has_reduce(rs->data[i]) || feeds_sum(rs->data[i], alone->v)) return false;
  return true;
}

/* Tries to inline v into all its readers; on success they hold the new expressions. */
static bool try_inline(Fuse *f, Value *v) {
  const bool contraction = node_is_contraction(v->def);
  Vec(Root *) *rs = (void *)&f->readers[v->id];
  double before = 0, after = 0;
  bool blocked = false; /* a reader cannot take the contraction that v may come with */
  int live = 0;
  for (int i = 0; i < rs->n; i++) {
    if (!reads(f, rs->data[i], v)) continue;
    if (contraction && !can_be_epilogue(rs->data[i], v)) return false;
    blocked = blocked || !can_be_epilogue(rs->data[i], v);
    rs->data[live++] = rs->data[i];
    before += rs->data[i]->cost;
  }
  rs->n = live;
  if (!live || (contraction && live > 1)) return false;
  const bool fixed = v->form == FORM_INLINED;
  Root *alone = root_new(f, v);
  if (contraction && v->form == FORM_STORED) return false;
  if (!contraction && !root_build(f, alone)) return false;
  if (v->form == FORM_STORED && !same_bits_inlined(f, alone)) return false;
  /* a running sum is one only where its index runs */
  if (!contraction && expr_has_scan(f->p, alone->exprs[0])) return false;
  if (!contraction && has_reduce(alone) && hinders_epilogue(f, v)) return false;
  const bool bytes = is_dequantized_bytes(v),
             narrower = !contraction && (bytes || ends_narrower(f, v, v, 0));
  if (!contraction && blocked && !has_reduce(alone) && ends_epilogue(f, v, v, 0) && !narrower &&
      !fixed)
    return false;
  Root *trial = ARENA_ARRAY(f->a, Root, live);
  v->inlined = true;
  bool ok = true;
  for (int i = 0; i < live && ok; i++) {
    trial[i] = *rs->data[i];
    ok = root_build(f, &trial[i]) && fits(f, &trial[i]);
    /* sums of long sums save nothing by being one kernel, and leave one loop for lanes and
     * threads */
    if (ok && has_reduce(&trial[i]) && expr_sums_sums(f->p, trial[i].exprs[0]))
      ok = expr_sums_sums(f->p, rs->data[i]->exprs[0]);
    after += trial[i].cost;
  }
  double stay = before + alone->cost;
  /* the narrower value is stored in any case, and read for less */
  const double trip = memory_cost(f->c->target) * (bytes ? 4 : narrower ? 2 : 1);
  for (int i = 0; i < live; i++)
    stay += trip * expr_extent_guess(f->p, value_count(f->p, v)) /
            (narrower || (v->def->op->flags & OF_INDEX_ONLY) ? 1 : live);
  if (!contraction && !value_is_view(v)) ok = ok && (fixed || after <= stay);
  if (!ok) {
    v->inlined = false;
    return false;
  }
  for (int i = 0; i < live; i++) {
    *rs->data[i] = trial[i];
    register_reads(f, rs->data[i]);
  }
  return true;
}

static void force(Fuse *f, const Value *v) {
  if (!v) return;
  f->forced[v->id] = true;
  const Value *src = view_source(v);
  f->forced[src->id] = true;
}

static void fuse_graph(Fuse *f, Graph *g);

static void force_region(Fuse *f, Graph *g) {
  for (int i = 0; i < g->outputs.n; i++) force(f, g->outputs.data[i]);
  fuse_graph(f, g);
}

static void materialise(Fuse *f, Value *v) {
  Root *r = root_new(f, v);
  v->inlined = false;
  root_build(f, r);
  register_reads(f, r);
}

/* Of a product, or what its epilogue makes of it, that is to be stored: a value of fewer bytes that all
 * readers make of it first, elementwise and never stored; NULL: there is none. */
static Value *narrower_of(const Fuse *f, const Value *v) {
  enum { FAR = 6 };
  const Value *at = v;
  for (int i = 0; i < FAR && f->uses->of[at->id].n == 1 && !f->uses->outputs[at->id]; i++) {
    const Node *const n = f->uses->of[at->id].data[0];
    const bool simple = (n->op->body == OB_EW || n->op->body == OB_ELEM) && n->n_out == 1 &&
                        n->out[0]->inlined && value_same_shape(n->out[0], v);
    if (!simple) return NULL;
    if (dtype_bytes(n->out[0]->dtype) < dtype_bytes(v->dtype)) return n->out[0];
    at = n->out[0];
  }
  return NULL;
}

/* Stores it in place of v, which becomes its root's; false: nothing has changed. */
static bool store_narrower(Fuse *f, Value *v) {
  Value *const narrow = narrower_of(f, v);
  if (!narrow) return false;
  Vec(Root *) *const rs = (void *)&f->readers[v->id];
  Root *const own = root_new(f, narrow), *const trial = ARENA_ARRAY(f->a, Root, rs->n + 1);
  narrow->inlined = false;
  v->inlined = true;
  bool ok = root_build(f, own) && fits(f, own);
  ok = ok && own->anchor == (node_is_contraction(v->def) ? v : NULL);
  for (int i = 0; i < rs->n; i++) {
    trial[i] = *rs->data[i];
    ok = ok && root_build(f, &trial[i]);
  }
  if (!ok) {
    narrow->inlined = true;
    v->inlined = false;
    return false;
  }
  register_reads(f, own);
  for (int i = 0; i < rs->n; i++) {
    *rs->data[i] = trial[i];
    register_reads(f, rs->data[i]);
  }
  return f->changed = true;
}

/* Pieces computed by a kernel of their own are stored straight into the whole. */
static void force_pieces(Fuse *f, const Node *n) {
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    if (k >= MAX_EXPRS || (v->def && !(v->def->op->flags & (OF_INDEX_ONLY | OF_VIEW)))) force(f, v);
  }
}

static void fuse_output(Fuse *f, Value *v) {
  const Node *n = v->def;
  /* a use whose expression drops the load (x mod 1) may still be lowered with it */
  const bool wanted = f->forced[v->id] || f->readers[v->id].n || f->uses->of[v->id].n;
  if (!wanted || v->kind != TY_TENSOR) return;
  if (v->inlined && !value_is_view(v)) return; /* scores of an attention */
  if (value_is_view(v)) {
    v->inlined = true;
    if (f->forced[v->id]) force(f, v);
    if (!try_inline(f, v)) v->inlined = true;
    if (f->forced[v->id]) materialise(f, v), v->inlined = true;
    f->changed = true;
    return;
  }
  if (n->op->flags & OF_PIECES) force_pieces(f, n);
  if (!f->forced[v->id] && !(n->op->flags & (OF_PIECES | OF_SCATTER)) && try_inline(f, v)) {
    f->changed = true;
    return;
  }
  const bool product = node_is_contraction(n) || ends_epilogue(f, v, v, 0);
  if (!f->forced[v->id] && target_has_grids(f->c->target) && product && store_narrower(f, v))
    return;
  materialise(f, v);
}

static void fuse_node(Fuse *f, Node *n) {
  for (int i = 0; i < n->n_syms; i++) force(f, n->syms[i].src);
  if ((n->op->body == OB_EXTERN && !node_is_scatter(n)) || n->op->body == OB_REGION) {
    for (int k = 0; k < n->n_in; k++) force(f, n->in[k]);
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) force_region(f, n->attrs[k].graph);
    return;
  }
  for (int k = n->n_out - 1; k >= 0; k--)
    if (n->out[k] && !n->out[k]->cdata) fuse_output(f, n->out[k]);
}

static void fuse_graph(Fuse *f, Graph *g) {
  for (int i = g->nodes.n - 1; i >= 0; i--) fuse_node(f, g->nodes.data[i]);
}

static void force_captured(Fuse *f, Graph *g, bool inside) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; inside && k < n->n_in; k++)
      if (n->in[k] && n->in[k]->def && n->in[k]->def->graph != g) force(f, n->in[k]);
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) force_captured(f, n->attrs[k].graph, true);
  }
  for (int i = 0; inside && i < g->outputs.n; i++)
    if (g->outputs.data[i]->def && g->outputs.data[i]->def->graph != g)
      force(f, g->outputs.data[i]);
}

static void unmark_graph(Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *const n = g->nodes.data[i];
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k]) n->out[k]->inlined = false;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) unmark_graph(n->attrs[k].graph);
  }
}

typedef struct Kept {
  Value *v;
  const Value *scores;
} Kept;
typedef Vec(Kept) KeptVec;

static void find_kept(Fuse *f, Graph *g, KeptVec *kept) {
  Attention a;
  for (int i = 0; i < g->nodes.n; i++) {
    Node *const n = g->nodes.data[i];
    if (attention_of(n, &a)) vec_push(f->a, kept, (Kept){n->in[0], kernel_anchor(n->in[0])});
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) find_kept(f, n->attrs[k].graph, kept);
  }
}

/* What an earlier run decided (a text has been through all passes) counts for nothing; what the
 * pass attention marked stays. */
static void forget(Fuse *f) {
  KeptVec kept = {0};
  find_kept(f, f->m->main, &kept);
  unmark_graph(f->m->main);
  for (int i = 0; i < kept.n; i++) attention_mark(kept.data[i].v, kept.data[i].scores);
}

bool pass_fuse(PassCtx *c) {
  Model *m = c->model;
  Fuse f = {.c = c, .m = m, .p = m->pool, .a = c->scratch, .n_values = m->next_value};
  stand_ins_init(&f.places, m, f.a);
  f.forced = ARENA_ARRAY(f.a, bool, f.n_values + 1);
  f.readers = arena_alloc_array(f.a, (size_t)f.n_values + 1, sizeof *f.readers);
  f.uses = graph_uses(m->main, f.a);
  forget(&f);
  force_captured(&f, m->main, false);
  for (int i = 0; i < m->main->outputs.n; i++) force(&f, m->main->outputs.data[i]);
  fuse_graph(&f, m->main);
  c->changed = f.changed;
  return true;
}
