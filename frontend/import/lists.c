/* Sequences and optionals that only the run knows (ir/ops/text/sequence.c): which values are some, how
 * they enter and leave Loops and branches, and how inputs and outputs of the model become some. An
 * optional tensor is a list of one item, an optional sequence that sequence; one that is empty is 0. */
#include <string.h>

#include "frontend/scope/scope.h"

/* ---- the side table ---- */
static Seq *entry(const Import *im, const Value *v) {
  return v && v->id < im->seqs.n ? im->seqs.data[v->id] : NULL;
}

Seq *sequence_of(const Import *im, const Value *v) {
  return v && v->kind == TY_SEQUENCE ? entry(im, v) : NULL;
}

const Seq *map_of(const Import *im, const Value *v) {
  return v && v->kind == TY_MAP ? entry(im, v) : NULL;
}

ListKind list_kind(const Import *im, const Value *v) {
  const Seq *q = entry(im, v);
  return q && q->n < 0 ? q->kind : LIST_NONE;
}

static void note(Import *im, const Value *v, Seq seq) {
  while (im->seqs.n <= v->id) vec_push(im->scratch, &im->seqs, NULL);
  im->seqs.data[v->id] = arena_dup(im->scratch, &seq, sizeof seq);
}

void list_note(Import *im, const Value *v, ListKind kind) {
  if (kind != LIST_NONE) note(im, v, (Seq){.n = -1, .kind = kind});
}

static Value *new_group(Import *im, TypeKind kind, int n, Value *const *items, DType t) {
  Value *v = value_new(im->m, NULL);
  v->kind = kind;
  v->dtype = n ? items[0]->dtype : t;
  note(im, v, (Seq){.items = arena_dup(im->scratch, items, sizeof *items * (size_t)n), .n = n});
  return v;
}

Value *sequence_new(Import *im, int n, Value *const *items, DType t) {
  return new_group(im, TY_SEQUENCE, n, items, t);
}

/* ---- from one form to another ---- */
Value *list_op(Import *im, Graph *g, const char *op, int n_in, Value *const *in, int n_attrs,
               const Attr *attrs, ListKind kind, const Loc *loc) {
  const OpRow *row = op_find("burin", op);
  Value *v = row ? import_value(im, g, row, n_in, in, n_attrs, attrs, loc) : NULL;
  if (v) list_note(im, v, kind);
  return v;
}

Value *list_sequence(Import *im, Graph *g, Value *v, const Loc *loc) {
  const Seq *q = sequence_of(im, v);
  if (q) return list_op(im, g, "SequenceMake", q->n, q->items, 0, NULL, LIST_SEQUENCE, loc);
  if (list_kind(im, v) == LIST_SEQUENCE) return v;
  if (list_kind(im, v) == LIST_OPTIONAL_SEQUENCE)
    return list_op(im, g, "SequenceGet", 1, &v, 0, NULL, LIST_SEQUENCE, loc);
  diag_error(im->d, loc, ERR_TYPE, "needs a sequence");
  return NULL;
}

Value *list_element(Import *im, Graph *g, Value *v, const Loc *loc) {
  if (list_kind(im, v) == LIST_OPTIONAL_SEQUENCE) return list_sequence(im, g, v, loc);
  if (list_kind(im, v) != LIST_OPTIONAL) return v;
  Value *const in[] = {v, value_const_scalar(im->m, DT_I64, 0)};
  return list_op(im, g, "SequenceAt", 2, in, 0, NULL, LIST_NONE, loc);
}

/* The same value, known as another kind. */
static Value *renamed(Import *im, Graph *g, Value *v, ListKind kind, const Loc *loc) {
  const OpRow *row = op_find("", "Identity");
  Value *const same = row ? import_value(im, g, row, 1, &v, 0, NULL, loc) : NULL;
  if (same) list_note(im, same, kind);
  return same;
}

Value *list_optional(Import *im, Graph *g, Value *v, ListKind kind, const Loc *loc) {
  if (!v) {
    v = value_const_scalar(im->m, DT_I64, 0);
    list_note(im, v, kind);
  }
  if (list_kind(im, v) == kind) return v;
  if (kind == LIST_OPTIONAL_SEQUENCE)
    return (v = list_sequence(im, g, v, loc)) ? renamed(im, g, v, kind, loc) : NULL;
  if (list_kind(im, v) == LIST_NONE && !sequence_of(im, v))
    return list_op(im, g, "SequenceMake", 1, &v, 0, NULL, kind, loc);
  diag_error(im->d, loc, ERR_TYPE, "a sequence for an optional tensor");
  return NULL;
}

/* ---- types ---- */
static const Onnx__TypeProto *inside(const Onnx__TypeProto *t, bool *optional, bool *sequence) {
  *optional = t && t->value_case == ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE;
  if (*optional) t = t->optional_type->elem_type;
  *sequence = t && t->value_case == ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE;
  return *sequence ? t->sequence_type->elem_type : t;
}

ListKind list_declared(const Onnx__TypeProto *t) {
  bool optional, sequence;
  (void)inside(t, &optional, &sequence);
  return optional   ? sequence ? LIST_OPTIONAL_SEQUENCE : LIST_OPTIONAL
         : sequence ? LIST_SEQUENCE
                    : LIST_NONE;
}

/* A type of the file; NULL: it is no list of tensors. */
static ListType *list_type(Import *im, const Onnx__TypeProto *t) {
  bool optional, sequence;
  const Onnx__TypeProto *const of = inside(t, &optional, &sequence);
  const ListKind kind = list_declared(t);
  if (kind == LIST_NONE || !of || of->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
    return NULL;
  const Onnx__TensorShapeProto *const s = of->tensor_type->shape;
  const DType dtype = dtype_from_onnx(of->tensor_type->elem_type);
  if (dtype == DT_NONE || (s && s->n_dim > MAX_RANK)) return NULL;
  int64_t *const dims = ARENA_ARRAY(im->arena, int64_t, MAX_RANK);
  for (size_t k = 0; s && k < s->n_dim; k++) {
    const Onnx__TensorShapeProto__Dimension *const d = s->dim[k];
    const bool fixed = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
                       d->dim_value > 0 && !(d->dim_value >> MAX_DIM_BITS);
    dims[k] = fixed ? d->dim_value : -1;
  }
  ListType *const l = ARENA_NEW(im->arena, ListType);
  *l = (ListType){kind, dtype, s ? (int)s->n_dim : -1, dims};
  return l;
}

/* ---- Loops and branches ---- */
bool list_enter(Import *im, Graph *g, Value **in, const Onnx__NodeProto *p,
                const Onnx__GraphProto *body, const Loc *loc) {
  const int n = (int)p->n_input;
  ListKind *kinds = ARENA_ARRAY(im->scratch, ListKind, n + 1);
  for (int k = 0; k < n; k++) {
    const bool state = body && k >= 2 && (size_t)k < body->n_input && *p->input[k];
    const ListKind want = state ? list_declared(body->input[k]->type) : LIST_NONE;
    if (want == LIST_OPTIONAL || want == LIST_OPTIONAL_SEQUENCE)
      in[k] = list_optional(im, g, in[k], want, loc);
    else if (!sequence_of(im, in[k]))
      ;
    else
      in[k] = list_sequence(im, g, in[k], loc);
    if (!in[k] && diag_errors(im->d)) return false;
    kinds[k] = list_kind(im, in[k]);
    if (kinds[k] != LIST_NONE && !state)
      return diag_error(im->d, loc, ERR_TYPE, "input %d is a sequence or an optional", k);
  }
  im->lists = body ? kinds : NULL; /* branches have no inputs */
  return true;
}

static bool merge(ListKind *kind, ListKind other) {
  const int both = 1 << *kind | 1 << other;
  if (both == (1 << LIST_SEQUENCE | 1 << LIST_OPTIONAL_SEQUENCE))
    *kind = LIST_OPTIONAL_SEQUENCE;
  else if (*kind != other)
    return false;
  return true;
}

/* What output k is in all that it may come from. False: it is not always the same. */
static bool result_kind(const Import *im, const Onnx__NodeProto *p, Value *const *in, int k,
                        const Attr *attrs, int n_attrs, ListKind *kind) {
  bool any = false;
  for (int i = 0; i < n_attrs; i++) {
    const Graph *const g = attrs[i].kind == AT_GRAPH ? attrs[i].graph : NULL;
    const bool body = g && g->inputs.n;
    if (!g || k + body >= g->outputs.n) continue;
    const ListKind here = list_kind(im, g->outputs.data[k + body]);
    if (!any) *kind = here;
    any = true;
    if (!merge(kind, here)) return false;
    const bool state = (size_t)k + 2 < p->n_input;
    if (body && !merge(kind, state ? list_kind(im, in[k + 2]) : LIST_NONE)) return false;
  }
  return true;
}

bool list_leave(Import *im, const Scope *s, const Onnx__NodeProto *p, Value *const *in,
                const Attr *attrs, int n_attrs, const Loc *loc) {
  for (int k = 0; k < (int)p->n_output; k++) {
    ListKind kind = LIST_NONE;
    if (!result_kind(im, p, in, k, attrs, n_attrs, &kind))
      return diag_error(im->d, loc, ERR_TYPE,
                        "output %d is a sequence or an optional in one place, and something else "
                        "in another",
                        k);
    if (*p->output[k]) list_note(im, scope_find(s, p->output[k]), kind);
  }
  return true;
}

/* ---- inputs and outputs of the model ---- */
static Value *border(Import *im, Graph *g, const char *op, Value *v, const ListType *l,
                     const Loc *loc) {
  const Attr attrs[] = {attr_int(im->arena, "kind", l->kind),
                        attr_int(im->arena, "elem", dtype_rows[l->dtype].onnx),
                        attr_int(im->arena, "rank", l->rank),
                        attr_ints(im->arena, "dims", l->rank > 0 ? l->rank : 0, l->dims)};
  const bool in = strcmp(op, "SequenceIn") == 0;
  return list_op(im, g, op, 1, &v, 4, attrs, in ? l->kind : LIST_NONE, loc);
}

static Value *add_input(Import *im, Graph *g, const char *name, DType t, const Expr *size) {
  Value *const v = value_new(im->m, name);
  value_set_tensor(im->m, v, t, 1, &size);
  vec_push(im->arena, &g->inputs, v);
  return v;
}

/* A map: its keys and its values, of one size. */
static Value *map_input(Import *im, Graph *g, const Onnx__ValueInfoProto *p, const Loc *loc) {
  const Onnx__TypeProto__Map *const map = p->type->map_type;
  const Onnx__TypeProto *const of = map->value_type;
  const DType key = dtype_from_onnx(map->key_type);
  const DType value = of && of->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE
                          ? dtype_from_onnx(of->tensor_type->elem_type)
                          : DT_NONE;
  if ((key != DT_I64 && key != DT_STR) || value == DT_NONE) {
    diag_error(im->d, loc, ERR_UNSUPPORTED,
               "a map of the model is one from strings or 64-bit integers to single values");
    return NULL;
  }
  const Expr *const size = import_dim_symbol(im, arena_printf(im->scratch, "%s_size", p->name));
  Value *const items[] = {
      add_input(im, g, arena_printf(im->arena, "%s.keys", p->name), key, size),
      add_input(im, g, arena_printf(im->arena, "%s.values", p->name), value, size)};
  return new_group(im, TY_MAP, 2, items, value);
}

Value *list_input(Import *im, Graph *g, const Onnx__ValueInfoProto *p, const Loc *loc) {
  if (p->type->value_case == ONNX__TYPE_PROTO__VALUE_MAP_TYPE) return map_input(im, g, p, loc);
  const ListType *const l = list_type(im, p->type);
  if (!l) {
    diag_error(im->d, loc, ERR_UNSUPPORTED,
               "the input is neither a tensor, nor a sequence or optional of tensors, nor a map");
    return NULL;
  }
  Loc *const named = arena_dup(im->arena, loc, sizeof *loc);
  Value *const v =
      add_input(im, g, arena_strdup(im->arena, p->name), DT_I64, ex_i64(im->m->pool, 2));
  named->node_name = v->name;
  named->op = "input";
  graph_set_list(g, g->inputs.n - 1, false, l);
  return border(im, g, "SequenceIn", v, l, named);
}

Value *list_output(Import *im, Graph *g, Value *v, const Onnx__ValueInfoProto *p,
                   const ListType **type, const Loc *loc) {
  ListType *const l = list_type(im, p->type);
  const Seq *const known = sequence_of(im, v);
  *type = NULL;
  if (!v && l && l->kind != LIST_SEQUENCE) v = list_optional(im, g, NULL, l->kind, loc);
  if (v && known && known->n == 0) v = list_sequence(im, g, v, loc);
  if (v && list_kind(im, v) == LIST_NONE) return v;
  if (v && !l && list_kind(im, v) == LIST_OPTIONAL) return list_element(im, g, v, loc);
  if (v && l && l->kind == LIST_SEQUENCE) v = list_sequence(im, g, v, loc);
  if (!v || !l || (l->kind == LIST_OPTIONAL) != (list_kind(im, v) == LIST_OPTIONAL)) {
    diag_error(im->d, loc, v ? ERR_DECLARED : ERR_UNDEFINED,
               v ? "the output is a sequence or an optional, and declared as something else"
                 : "the output is not defined");
    return NULL;
  }
  l->kind = list_kind(im, v);
  l->rank = -1; /* what a file declares for outputs is often wrong; each item says its own */
  Loc *const named = arena_dup(im->arena, loc, sizeof *loc);
  named->op = "output";
  *type = l;
  return border(im, g, "SequenceOut", v, l, named);
}
