/* See sample_blocks.h. Nodes are copied into the body one by one, as far as they are what they are
 * sample by sample (sample_proof.c); a copy that is not goes again, and what depends on it stays
 * outside. Then what the rest of the graph reads of the values inside, the border, becomes results of
 * the Loop, and the nodes inside leave the main graph. */
#include <string.h>

#include "passes/build/kernel.h"
#include "passes/form/sample_blocks.h"

/* ---- sizes ---- */
/* How many rows of a value one sample has; NULL: its first dimension does not count samples. */
static const Expr *rows_of(const SampleBlocks *b, const Value *v) {
  ExprPool *const p = b->m->pool;
  if (!v || v->kind != TY_TENSOR || v->rank < 1 || v->cdata) return NULL;
  const Expr *const rows = ex_floordiv(p, v->dims[0], b->samples);
  int64_t n;
  if (expr_is_const(rows, &n) && n < 1) return NULL;
  return ex_mul(p, rows, b->samples) == v->dims[0] ? rows : NULL;
}

/* The value's dimensions in a block. */
static const Expr *const *block_dims(const SampleBlocks *b, const Value *v) {
  const Expr **const dims = arena_dup(b->a, v->dims, sizeof *dims * (size_t)v->rank);
  dims[0] = ex_mul(b->m->pool, b->size, b->rows[v->id]);
  return dims;
}

static bool all_const(int rank, const Expr *const *dims, int64_t *out) {
  for (int d = 0; d < rank; d++)
    if (!expr_is_const(dims[d], &out[d])) return false;
  return true;
}

/* A shape, of which only the first size may be one that the run knows; NULL: it has others. */
static Value *shape_value(SampleBlocks *b, Build *body, const Value *v) {
  const Expr *const *const dims = block_dims(b, v);
  int64_t sizes[MAX_RANK], rows;
  if (all_const(v->rank, dims, sizes)) return build_i64s(body, v->rank, sizes);
  if (!all_const(v->rank - 1, dims + 1, sizes) || !expr_is_const(b->rows[v->id], &rows))
    return NULL;
  Value *const lead = build2(body, "Mul", b->count, build_i64s(body, 1, &rows));
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  Value *const parts[] = {lead, build_i64s(body, v->rank - 1, sizes)};
  return v->rank == 1 ? lead : build_op(body, "Concat", 2, parts, 1, &axis);
}

/* ---- the frame ---- */
static Value *scalar_input(Model *m, DType t, const Expr *known) {
  Value *const v = value_new(m, NULL);
  value_set_tensor(m, v, t, 0, NULL);
  v->contents = arena_dup(m->arena, &known, sizeof known);
  return v;
}

static const Expr *iteration(ExprPool *p, const Value *trips) {
  const Expr *const iter = ex_sym_fresh(p, "iter");
  Symbol *const s = expr_symbol(p, iter->id);
  s->runtime = true;
  s->lo = 0;
  s->bound = ex_sub(p, value_element(p, trips, 0), ex_i64(p, 1));
  return iter;
}

/* Blocks and samples in one: constants, or nodes behind all others, which graph_sort moves. */
static bool count_blocks(SampleBlocks *b, Build *main) {
  ExprPool *const p = b->m->pool;
  int64_t n;
  if (expr_is_const(b->samples, &n)) {
    const int64_t size = n < b->most ? n : b->most;
    b->size = ex_i64(p, size);
    b->count = build_i64s(main, 1, &size);
    b->trips = build_scalar(main, DT_I64, (double)((n + size - 1) / size));
    return main->ok;
  }
  const int64_t most = b->most, zero = 0;
  Value *const all = build_shape(main, b->input, 0, 1);
  b->count = build2(main, "Min", all, build_i64s(main, 1, &most));
  Value *const up = build2(main, "Add", all, build_scalar(main, DT_I64, (double)(most - 1)));
  Value *const blocks = build2(main, "Div", up, build_scalar(main, DT_I64, (double)most));
  b->trips = build2(main, "Squeeze", blocks, build_i64s(main, 1, &zero));
  if (!main->ok || !value_known(b->count) || !value_known(b->trips)) return false;
  b->size = value_element(p, b->count, 0);
  return true;
}

static void begin_body(SampleBlocks *b, Build *body) {
  Model *const m = b->m;
  b->body = graph_new(m, b->g, "samples");
  *body = (Build){.m = m, .g = b->body, .loc = b->g->nodes.data[0]->loc, .ok = true};
  Value *const iter = scalar_input(m, DT_I64, iteration(m->pool, b->trips));
  Value *const on = scalar_input(m, DT_BOOL, ex_bool(m->pool, true));
  vec_push(m->arena, &b->body->inputs, iter);
  vec_push(m->arena, &b->body->inputs, on);
  vec_push(m->arena, &b->body->outputs, value_const_scalar(m, DT_BOOL, 1));
  b->first = build2(body, "Mul", iter, build_scalar(body, DT_I64, (double)b->most));
}

/* Rows of a value from outside; NULL: it was never stored, and other kernels would read it. */
static Value *slice(SampleBlocks *b, Build *body, Value *v) {
  int64_t rows;
  if (b->to[v->id]) return b->to[v->id];
  if ((v->def && !b->was->stored[v->id]) || !expr_is_const(b->rows[v->id], &rows)) return NULL;
  Value *const times = build_i64s(body, 1, &rows);
  Value *const in[] = {v, build2(body, "Mul", b->first, build_scalar(body, DT_I64, (double)rows)),
                       build2(body, "Mul", b->count, times)};
  Node *const n = build_node(body, "Rows", "burin", 3, in, 1, 0, NULL);
  if (!body->ok) return NULL;
  n->out[0]->form = FORM_STORED;
  return b->to[v->id] = n->out[0];
}

/* ---- one node ---- */
typedef struct Copying {
  SampleBlocks *b;
  Build *body;
  Value *in[16];
  const Expr *rows[16]; /* by input */
} Copying;

static bool is_behind(void *user, Value *v) {
  const SampleBlocks *const b = user;
  return v->id < b->n_values && b->state[v->id] != SAMPLE_APART;
}

static bool may_move(const SampleBlocks *b, const Node *n) {
  if ((n->op->body != OB_EW && n->op->body != OB_ELEM) || n->n_syms || n->n_in > 14) return false;
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && b->state[n->in[k]->id] == SAMPLE_BEHIND) return false;
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && (!b->rows[n->out[k]->id] || b->trained[n->out[k]->id])) return false;
  return n->n_out > 0;
}

/* Input 1 is the shape of the result. */
static bool takes_shape(const Node *n) {
  return !*n->op->domain &&
         (strcmp(n->op->name, "Reshape") == 0 || strcmp(n->op->name, "Expand") == 0);
}

static bool find_inputs(Copying *c, const Node *n) {
  SampleBlocks *const b = c->b;
  bool any = false;
  for (int k = 0; k < n->n_in; k++) {
    Value *const v = n->in[k];
    c->in[k] = v;
    c->rows[k] = NULL;
    if (!v) continue;
    if (takes_shape(n) && k == 1) {
      if (!(c->in[k] = shape_value(b, c->body, n->out[0]))) return false;
    } else if (b->rows[v->id]) {
      c->in[k] = b->state[v->id] == SAMPLE_INSIDE ? b->to[v->id] : slice(b, c->body, v);
      c->rows[k] = b->rows[v->id];
      any = true;
      if (!c->in[k]) return false;
    }
  }
  return any || takes_shape(n);
}

/* What depends on the place in the tensor is told where the block begins. */
static bool add_place(Copying *c, const Node *n, int *n_in) {
  int64_t rest = 1, size;
  if (strcmp(n->op->name, "TrainingDropout") != 0) return true;
  const Value *const v = n->out[0];
  for (int d = 1; d <= v->rank; d++) {
    if (!expr_is_const(d < v->rank ? v->dims[d] : c->b->rows[v->id], &size)) return false;
    rest *= size;
  }
  while (*n_in < 4) c->in[(*n_in)++] = NULL;
  c->in[(*n_in)++] =
      build2(c->body, "Mul", c->b->first, build_scalar(c->body, DT_I64, (double)rest));
  return true;
}

static Node *add_copy(Copying *c, const Node *n, int n_in) {
  Node *const copy = graph_add_node(c->b->body, NULL, n->op, n_in, c->in, n->loc);
  for (int k = 0; k < n->n_attrs; k++) node_set_attr(copy, n->attrs[k]);
  for (int k = 0; k < n->n_out; k++) {
    const Value *const was = n->out[k];
    Value *const v = node_add_output(copy, was ? was->name : NULL);
    if (was) {
      v->inlined = was->inlined; /* scores of an attention */
      v->form = c->b->was->stored[was->id] ? FORM_STORED : FORM_INLINED;
    } else {
      copy->out[k] = NULL;
    }
  }
  return copy;
}

static bool has_block_dims(const SampleBlocks *b, const Value *v, const Value *copy) {
  if (copy->kind != TY_TENSOR || copy->dtype != v->dtype || copy->rank != v->rank) return false;
  const Expr *const *const dims = block_dims(b, v);
  for (int d = 0; d < v->rank; d++)
    if (copy->dims[d] != dims[d]) return false;
  return true;
}

static bool infer_copy(const Copying *c, const Node *n, Node *copy) {
  if (!op_infer(c->b->m, copy)) return false;
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && !has_block_dims(c->b, n->out[k], copy->out[k])) return false;
  return true;
}

/* The same way as in the trial, so that no sum has another order; loops are chosen for the block. */
static const Plan *block_plan(const SampleBlocks *b, const Node *n) {
  const Plan *const was = b->was->plan[n->mark];
  if (!was) return NULL;
  Plan p = *was;
  p.n_loops = 0;
  p.loops = NULL;
  p.key = p.sparse_key = NULL;
  return arena_dup(b->m->arena, &p, sizeof p);
}

static bool move_node(Copying *c, Node *n) {
  SampleBlocks *const b = c->b;
  int n_in = n->n_in;
  if (!may_move(b, n) || !find_inputs(c, n) || !add_place(c, n, &n_in)) return false;
  for (int k = n->n_in; k < n_in; k++) c->rows[k] = NULL;
  Node *const copy = add_copy(c, n, n_in);
  if (!infer_copy(c, n, copy) || !samples_agree(b, n, copy, c->rows)) {
    graph_remove_node(b->body, copy);
    return false;
  }
  copy->plan = block_plan(b, n);
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k]) continue;
    b->state[n->out[k]->id] = SAMPLE_INSIDE;
    b->to[n->out[k]->id] = copy->out[k];
  }
  return true;
}

static void move_nodes(SampleBlocks *b, Build *body) {
  Copying c = {.b = b, .body = body};
  for (int i = 0; i < b->before.n; i++) {
    Node *const n = b->before.data[i];
    if (move_node(&c, n)) continue;
    body->ok = true;
    if (!node_any_read(n, is_behind, b)) continue;
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k]) b->state[n->out[k]->id] = SAMPLE_BEHIND;
  }
}

/* ---- only what products belong to ---- */
static bool is_inside(const SampleBlocks *b, const Value *v) {
  return v && v->id < b->n_values && b->state[v->id] == SAMPLE_INSIDE;
}

static bool node_inside(const SampleBlocks *b, const Node *n) {
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k]) return is_inside(b, n->out[k]);
  return false;
}

static void spread(const SampleBlocks *b, bool *near, const Node *n, bool forward) {
  bool any = node_is_contraction(n) || near[n->mark];
  if (forward)
    for (int k = 0; k < n->n_in; k++)
      any = any || (is_inside(b, n->in[k]) && near[n->in[k]->def->mark]);
  near[n->mark] = any;
  if (forward || !any) return;
  for (int k = 0; k < n->n_in; k++)
    if (is_inside(b, n->in[k])) near[n->in[k]->def->mark] = true;
}

/* What neither leads to a product inside nor comes from one (masks of labels) stays outside. */
static void keep_products(SampleBlocks *b) {
  const int n = b->before.n;
  bool *const back = ARENA_ARRAY(b->a, bool, n + 1), *const forth = ARENA_ARRAY(b->a, bool, n + 1);
  for (int i = 0; i < n; i++)
    if (node_inside(b, b->before.data[i])) spread(b, forth, b->before.data[i], true);
  for (int i = n - 1; i >= 0; i--)
    if (node_inside(b, b->before.data[i])) spread(b, back, b->before.data[i], false);
  for (int i = 0; i < n; i++) {
    Node *const node = b->before.data[i];
    const bool inside = node_inside(b, node), keep = back[i] || forth[i];
    if (inside && keep) vec_push(b->a, &b->inside, node);
    for (int k = 0; inside && !keep && k < node->n_out; k++)
      if (node->out[k]) b->state[node->out[k]->id] = SAMPLE_APART;
  }
}

/* ---- the border ---- */
typedef struct Border {
  SampleBlocks *b;
  bool *seen;    /* by value id */
  bool *outside; /* by position: the node stays in the main graph, too */
} Border;

/* Stored values are results of the loop; others are computed where they are read, as before. */
static bool find_border(void *user, Value *v) {
  Border *const f = user;
  SampleBlocks *const b = f->b;
  if (!is_inside(b, v) || f->seen[v->id]) return false;
  f->seen[v->id] = true;
  if (b->was->stored[v->id]) {
    vec_push(b->a, &b->border, v);
    return false;
  }
  f->outside[v->def->mark] = true;
  return node_any_read(v->def, find_border, f);
}

static void find_borders(SampleBlocks *b, bool *outside) {
  Border f = {b, ARENA_ARRAY(b->a, bool, b->n_values), outside};
  for (int i = 0; i < b->before.n; i++) {
    const Node *const n = b->before.data[i];
    for (int k = 0; k < n->n_syms; k++)
      if (n->syms[k].src && !node_inside(b, n)) find_border(&f, n->syms[k].src);
    if (!node_inside(b, n)) node_any_read(n, find_border, &f);
  }
  for (int k = 0; k < b->g->outputs.n; k++) find_border(&f, b->g->outputs.data[k]);
}

/* ---- the loop ---- */
/* Copies that nothing of the border needs. */
static void drop_unused(SampleBlocks *b) {
  Graph *const g = b->body;
  bool *const used = ARENA_ARRAY(b->a, bool, b->m->next_value + 1);
  for (int k = 0; k < g->outputs.n; k++) used[g->outputs.data[k]->id] = true;
  int kept = g->nodes.n;
  for (int i = g->nodes.n - 1; i >= 0; i--) {
    Node *const n = g->nodes.data[i];
    bool any = false;
    for (int k = 0; k < n->n_out; k++) any = any || (n->out[k] && used[n->out[k]->id]);
    if (!any) continue;
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k]) used[n->in[k]->id] = true;
    g->nodes.data[--kept] = n;
  }
  memmove(g->nodes.data, g->nodes.data + kept, sizeof(Node *) * (size_t)(g->nodes.n - kept));
  g->nodes.n -= kept;
}

/* The blocks of a value one behind the other, and no more rows than there are. */
static Value *join(SampleBlocks *b, Build *main, Value *stacked, const Value *v) {
  const int rank = stacked->rank - 1;
  int64_t sizes[MAX_RANK];
  for (int d = 1; d < rank; d++)
    if (!expr_is_const(stacked->dims[d + 1], &sizes[d])) return NULL;
  sizes[0] = -1;
  Value *const all = build_reshape(main, stacked, rank, sizes);
  if (!main->ok || all->dims[0] == v->dims[0]) return all;
  int64_t rows;
  if (!expr_is_const(b->rows[v->id], &rows)) return NULL;
  Value *const total =
      build2(main, "Mul", build_shape(main, b->input, 0, 1), build_i64s(main, 1, &rows));
  Value *const in[] = {all, build_scalar(main, DT_I64, 0), total};
  Value *const joined = build_node(main, "Rows", "burin", 3, in, 1, 0, NULL)->out[0];
  joined->form = FORM_STORED;
  return joined;
}

static bool add_loop(SampleBlocks *b, Build *main) {
  Model *const m = b->m;
  for (int k = 0; k < b->border.n; k++)
    vec_push(m->arena, &b->body->outputs, b->to[b->border.data[k]->id]);
  drop_unused(b);
  const Attr body = {.name = "body", .kind = AT_GRAPH, .n = 1, .graph = b->body};
  Value *const in[] = {b->trips, NULL};
  Node *const loop = graph_add_node(b->g, NULL, op_find("", "Loop"), 2, in, main->loc);
  node_set_attr(loop, body);
  b->body->owner = loop;
  for (int k = 0; k < b->border.n; k++) node_add_output(loop, b->border.data[k]->name);
  if (!op_infer(m, loop)) return false;
  for (int k = 0; k < b->border.n; k++) {
    Value *const v = join(b, main, loop->out[k], b->border.data[k]);
    if (!v || !main->ok || !value_same_shape(v, b->border.data[k])) return false;
    vec_push(b->a, &b->whole, v);
  }
  return true;
}

/* The main graph without what is inside now; new nodes stand at its end. */
static void drop_inside(SampleBlocks *b, const bool *outside) {
  Graph *const g = b->g;
  const int n = g->nodes.n, n_before = b->before.n;
  Node **const nodes = ARENA_ARRAY(b->m->arena, Node *, n + 1);
  int kept = 0;
  for (int i = 0; i < n; i++) {
    Node *const node = g->nodes.data[i];
    if (i >= n_before || outside[i] || !node_inside(b, node)) nodes[kept++] = node;
  }
  g->nodes.data = nodes;
  g->nodes.n = kept;
  g->nodes.cap = n + 1;
}

static bool move_all(SampleBlocks *b) {
  Build main = {.m = b->m, .g = b->g, .loc = b->g->nodes.data[0]->loc, .ok = true}, body;
  if (!count_blocks(b, &main)) return false;
  begin_body(b, &body);
  move_nodes(b, &body);
  keep_products(b);
  bool *const outside = ARENA_ARRAY(b->a, bool, b->before.n + 1);
  find_borders(b, outside);
  if (!b->inside.n || !b->border.n || !add_loop(b, &main)) return false;
  drop_inside(b, outside);
  for (int k = 0; k < b->border.n; k++)
    graph_replace_value(b->g, b->border.data[k], b->whole.data[k]);
  graph_sort(b->g);
  return true;
}

static void note_before(SampleBlocks *b) {
  b->n_values = b->m->next_value;
  b->n_assumes = b->m->assumes.n;
  b->rows = ARENA_ARRAY(b->a, const Expr *, b->n_values);
  b->state = ARENA_ARRAY(b->a, uint8_t, b->n_values);
  b->to = ARENA_ARRAY(b->a, Value *, b->n_values);
  for (int k = 0; k < b->g->inputs.n; k++)
    b->rows[b->g->inputs.data[k]->id] = rows_of(b, b->g->inputs.data[k]);
  for (int i = 0; i < b->g->nodes.n; i++) {
    Node *const n = b->g->nodes.data[i];
    vec_push(b->a, &b->before, n);
    n->mark = i;
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k]) b->rows[n->out[k]->id] = rows_of(b, n->out[k]);
  }
}

bool sample_blocks_make(SampleBlocks *b) {
  Diag *const diag = b->m->diag;
  note_before(b);
  b->m->diag = diag_new(b->a); /* a copy that does not fit says so */
  const bool ok = move_all(b);
  b->m->diag = diag;
  if (!ok) sample_blocks_undo(b);
  return ok;
}

void sample_blocks_undo(SampleBlocks *b) {
  for (int k = 0; k < b->whole.n; k++)
    graph_replace_value(b->g, b->whole.data[k], b->border.data[k]);
  b->g->nodes.n = 0;
  for (int i = 0; i < b->before.n; i++) vec_push(b->m->arena, &b->g->nodes, b->before.data[i]);
  b->m->assumes.n = b->n_assumes;
}
