/* SequenceMap: unrolled where the lengths are known, else the Loop that it stands for. Inputs after the
 * first are sequences of the same length, or tensors. */
#include <string.h>

#include "frontend/scope/scope.h"

typedef Onnx__NodeProto NodeProto;
typedef Onnx__GraphProto GraphProto;
typedef Onnx__ValueInfoProto ValueInfoProto;

/* ---- of known length: the body once per item ---- */
static bool unroll(Import *im, Scope *s, const NodeProto *p, const Loc *loc, Value **in,
                   const GraphProto *body) {
  const Seq *first = sequence_of(im, in[0]);
  Value ***results = ARENA_ARRAY(im->scratch, Value **, p->n_output);
  for (size_t k = 0; k < p->n_output; k++) results[k] = ARENA_ARRAY(im->scratch, Value *, first->n);
  for (int i = 0; i < first->n; i++) {
    Value **items = ARENA_ARRAY(im->scratch, Value *, p->n_input),
          **out = ARENA_ARRAY(im->scratch, Value *, p->n_output);
    for (size_t k = 0; k < p->n_input; k++) {
      const Seq *q = sequence_of(im, in[k]);
      if (!in[k] || (q && q->n != first->n))
        return diag_error(im->d, loc, ERR_VALUE, "input %zu has another length", k);
      items[k] = q ? q->items[i] : in[k];
    }
    if (!import_inline(im, s, p, body, "body", loc, items, out)) return false;
    for (size_t k = 0; k < p->n_output; k++)
      if ((results[k][i] = out[k]) == &scope_absent)
        return diag_error(im->d, loc, ERR_UNDEFINED, "output %zu of body is empty", k);
  }
  for (size_t k = 0; k < p->n_output; k++)
    if (*p->output[k] &&
        !scope_define(im, s, p->output[k], sequence_new(im, first->n, results[k], DT_F32), loc))
      return false;
  return true;
}

/* ---- of a length that only the run knows: a Loop, as the file would have it ---- */
typedef struct MapLoop {
  Import *im;
  Scope *s;
  const NodeProto *p;
  const Loc *loc;
  const GraphProto *body;
  Vec(NodeProto *) nodes; /* of the Loop's body */
} MapLoop;

/* A name that the file has not, by its node's first result. */
static char *name_of(const MapLoop *m, const char *what, size_t k) {
  const char *own = "";
  for (size_t i = m->p->n_output; i-- > 0;)
    if (*m->p->output[i]) own = m->p->output[i];
  return arena_printf(m->im->scratch, "%s/SequenceMap/%s%zu", own, what, k);
}

static NodeProto *new_node(const MapLoop *m, const char *op, size_t n_in, char *const *in,
                           size_t n_out, char *const *out) {
  NodeProto *const n = ARENA_NEW(m->im->scratch, NodeProto);
  onnx__node_proto__init(n);
  n->name = m->p->name;
  n->op_type = (char *)(uintptr_t)op;
  n->n_input = n_in;
  n->input = arena_dup(m->im->scratch, in, sizeof *in * n_in);
  n->n_output = n_out;
  n->output = arena_dup(m->im->scratch, out, sizeof *out * n_out);
  return n;
}

static void add_node(MapLoop *m, const char *op, size_t n_in, char *const *in, char *out) {
  vec_push(m->im->scratch, &m->nodes, new_node(m, op, n_in, in, 1, &out));
}

static ValueInfoProto **value_infos(const MapLoop *m, size_t n, char *const *names) {
  ValueInfoProto **const all = ARENA_ARRAY(m->im->scratch, ValueInfoProto *, n);
  for (size_t k = 0; k < n; k++) {
    all[k] = ARENA_NEW(m->im->scratch, ValueInfoProto);
    onnx__value_info_proto__init(all[k]);
    all[k]->name = names[k];
  }
  return all;
}

/* Inputs under names of their own, since a body may call its own as the file calls them. */
static bool name_inputs(const MapLoop *m, Value **in) {
  Vec(Value *) lists = {0};
  for (size_t k = 0; k < m->p->n_input; k++) {
    if (!in[k]) return diag_error(m->im->d, m->loc, ERR_ARITY, "input %zu is missing", k);
    const bool list = sequence_of(m->im, in[k]) || list_kind(m->im, in[k]) != LIST_NONE;
    if (list && !(in[k] = list_sequence(m->im, m->s->graph, in[k], m->loc))) return false;
    if (list) vec_push(m->im->scratch, &lists, in[k]);
    if (!scope_define(m->im, m->s, name_of(m, "in", k), in[k], m->loc)) return false;
  }
  const Value *const trips = list_op(m->im, m->s->graph, "SequenceLength", lists.n, lists.data, 0,
                                     NULL, LIST_NONE, m->loc);
  return trips && scope_define(m->im, m->s, name_of(m, "trips", 0), trips, m->loc);
}

/* What the results begin with. */
static bool name_states(const MapLoop *m) {
  for (size_t k = 0; k < m->p->n_output; k++) {
    const Onnx__TypeProto *const t = m->body->output[k]->type;
    DType dtype = t && t->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE
                      ? dtype_from_onnx(t->tensor_type->elem_type)
                      : DT_NONE;
    if (dtype == DT_NONE) dtype = DT_F32;
    if (!scope_define(m->im, m->s, name_of(m, "none", k), sequence_new(m->im, 0, NULL, dtype),
                      m->loc))
      return false;
  }
  return true;
}

static GraphProto *loop_body(MapLoop *m, Value *const *in) {
  const NodeProto *const p = m->p;
  const size_t n_in = 2 + p->n_output, n_out = 1 + p->n_output;
  char **const ins = ARENA_ARRAY(m->im->scratch, char *, n_in),
               **const outs = ARENA_ARRAY(m->im->scratch, char *, n_out);
  ins[0] = name_of(m, "i", 0);
  ins[1] = name_of(m, "more", 0);
  outs[0] = name_of(m, "more", 1);
  add_node(m, "Identity", 1, &ins[1], outs[0]);
  for (size_t k = 0; k < p->n_input; k++) {
    char *const from[] = {name_of(m, "in", k), ins[0]};
    const bool list = list_kind(m->im, in[k]) != LIST_NONE;
    add_node(m, list ? "SequenceAt" : "Identity", list ? 2 : 1, from, m->body->input[k]->name);
  }
  for (size_t k = 0; k < m->body->n_node; k++)
    vec_push(m->im->scratch, &m->nodes, m->body->node[k]);
  for (size_t k = 0; k < p->n_output; k++) {
    ins[2 + k] = name_of(m, "state", k);
    outs[1 + k] = name_of(m, "next", k);
    add_node(m, "SequenceInsert", 2, (char *const[]){ins[2 + k], m->body->output[k]->name},
             outs[1 + k]);
  }
  GraphProto *const g = ARENA_NEW(m->im->scratch, GraphProto);
  *g = *m->body;
  g->n_node = (size_t)m->nodes.n;
  g->node = m->nodes.data;
  g->n_input = n_in;
  g->input = value_infos(m, n_in, ins);
  g->n_output = n_out;
  g->output = value_infos(m, n_out, outs);
  return g;
}

static bool as_loop(MapLoop *m, Value **in) {
  const NodeProto *const p = m->p;
  if (!name_inputs(m, in) || !name_states(m)) return false;
  char **const ins = ARENA_ARRAY(m->im->scratch, char *, 2 + p->n_output);
  ins[0] = name_of(m, "trips", 0);
  ins[1] = (char *)(uintptr_t)"";
  for (size_t k = 0; k < p->n_output; k++) ins[2 + k] = name_of(m, "none", k);
  NodeProto *const loop = new_node(m, "Loop", 2 + p->n_output, ins, p->n_output, p->output);
  Onnx__AttributeProto *const body = ARENA_NEW(m->im->scratch, Onnx__AttributeProto);
  onnx__attribute_proto__init(body);
  body->name = (char *)(uintptr_t)"body";
  body->has_type = true;
  body->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH;
  body->g = loop_body(m, in);
  loop->n_attribute = 1;
  loop->attribute = arena_dup(m->im->scratch, &body, sizeof(Onnx__AttributeProto *));
  return import_node(m->im, m->s, loop, m->loc->node);
}

bool sequence_map(Import *im, Scope *s, const NodeProto *p, const Loc *loc, Value **in,
                  const GraphProto *body) {
  MapLoop m = {.im = im, .s = s, .p = p, .loc = loc, .body = body};
  bool any = false;
  if (!p->n_input || (!sequence_of(im, in[0]) && list_kind(im, in[0]) == LIST_NONE))
    return diag_error(im->d, loc, ERR_TYPE, "needs a sequence");
  if (body->n_input != p->n_input || body->n_output < p->n_output)
    return diag_error(im->d, loc, ERR_ARITY, "body has %zu inputs and %zu outputs", body->n_input,
                      body->n_output);
  for (size_t k = 0; k < p->n_input; k++) any |= list_kind(im, in[k]) != LIST_NONE;
  return any ? as_loop(&m, in) : unroll(im, s, p, loc, in, body);
}
