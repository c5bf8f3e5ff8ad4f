/* Names while a graph or function body is being imported; internal to frontend/. */
#pragma once
#include "frontend/scope/import.h"

enum { MAX_INLINE_DEPTH = 64 };

/* The call that a function body is inlined for: what ref_attr_name means. */
typedef struct CallArgs {
  const Onnx__NodeProto *call;
  const Onnx__FunctionProto *fn;
  const struct CallArgs *outer;
  int depth;
} CallArgs;

typedef Vec(const char *) Names;

/* Where values leave that a list of nodes makes. */
typedef enum LeaveTo { LEAVE_MODEL, LEAVE_BODY, LEAVE_BRANCH } LeaveTo;

typedef struct NodeList {
  Onnx__NodeProto *const *nodes;
  int n;
  Names outs; /* what leaves them */
  LeaveTo to; /* of a branch or function results may still have several ranks */
} NodeList;

typedef struct Fork Fork;   /* fork.c */
typedef struct Level Level; /* fork.c */

typedef struct Scope {
  const struct Scope *parent; /* graph around this one; a function body has none */
  bool same;     /* names of the parent are this graph's own: none may be defined again */
  StrMap values; /* name → Value, or &scope_absent */
  Graph *graph;
  const Opsets *opsets;
  const CallArgs *args; /* NULL outside functions */
  const char *path;     /* Loc.graph */
  Fork *fork;           /* NULL, or an If whose results have several ranks, and what reads them */
  Level *level;         /* the nodes that are being imported */
} Scope;
extern const Value scope_absent; /* an optional input that a call left out */

Value *scope_find(const Scope *s, const char *name); /* NULL: not defined */
/* false: defined twice */
bool scope_define(Import *im, Scope *s, const char *name, const Value *v, const Loc *loc);

/* One more node or constant (functions multiply them); false: too many, reported. */
bool count_node(Import *im, const Loc *loc);
Loc named_loc(const Import *im, const char *path, const char *name);

/* ---- pin.c ---- */
/* Infers n, a node of one of two versions; where sizes depend on inputs with defaults, those are
 * pinned. */
bool infer_pinned(Import *im, Node *n);

/* ---- order.c ---- */
/* Order in which the nodes can be imported: as they stand where that works. False: cycle,
 * reported. */
bool node_order(Import *im, const Scope *s, Onnx__NodeProto *const *nodes, int n, const Loc *loc,
                int *order);

/* Names that a node reads, in its regions, too. */
void node_reads(Arena *a, const Onnx__NodeProto *n, Names *out);

/* ---- fork.c: If whose branches give different ranks ---- */
bool fork_import(Import *im, Scope *s, const NodeList *list);
/* The branches of the If p, whose scopes are at[]: *opened where they give different ranks or types,
 * and what depends on them will be imported in both. False: error. */
bool fork_open(Import *im, Scope *s, const Onnx__NodeProto *p, Value *cond, const Loc *loc,
               Scope *const at[2], const Onnx__GraphProto *const g[2], bool *opened);
/* name of `to` becomes what from_name is in `from`, of an open fork, too. */
bool fork_bind(Import *im, Scope *to, const char *name, const Scope *from, const char *from_name,
               const Loc *loc);
bool fork_has(const Scope *s, const char *name); /* it has several ranks */

/* ---- import.c ---- */
const Loc *node_loc(Import *im, const Scope *s, const Onnx__NodeProto *p, int index, int64_t opset);
bool import_node(Import *im, Scope *s, const Onnx__NodeProto *p, int index);
bool import_op(Import *im, Scope *s, const Onnx__NodeProto *p, Value **in, Attr *attrs, int n_attrs,
               const Loc *loc);
bool import_initializers(Import *im, Scope *s, const Onnx__GraphProto *p);
/* All of a graph; of a branch without its outputs. */
bool import_graph(Import *im, Scope *s, const Onnx__GraphProto *p, LeaveTo to);
Scope region_scope(Import *im, const Scope *outer, const char *attr, int node); /* without graph */
bool import_leave(Import *im, Scope *s, const char *name, const Loc *loc); /* one more output */
NodeList import_list(Import *im, const Onnx__GraphProto *p, LeaveTo to);
bool import_outputs(Import *im, Scope *s, const Onnx__GraphProto *p);
/* The graph whose nodes stand in the file's main graph: what is wrong with them is said at once. */
static inline bool import_is_main(const Import *im, const Graph *g) {
  return !g->parent || g == im->version;
}

/* ---- branch.c ---- */
const Onnx__GraphProto *node_graph(const Onnx__NodeProto *p, const char *name); /* NULL: none */
/* The nodes of g as if they stood in outer: in[] are its inputs, out[] gets the first p->n_output
 * outputs. */
bool import_inline(Import *im, const Scope *outer, const Onnx__NodeProto *p,
                   const Onnx__GraphProto *g, const char *which, const Loc *loc, Value *const *in,
                   Value **out);
/* True when the If was dealt with; *ok: without error. */
bool branch_node(Import *im, Scope *s, const Onnx__NodeProto *p, int index, Value **in,
                 const Loc *loc, bool *ok);
/* An If of two graphs, whose outputs are known. */
bool import_if(Import *im, Scope *s, const Onnx__NodeProto *p, Value *cond, Attr attrs[2],
               const Loc *loc);
/* Before a Loop or Scan is imported: true where its body has an If, and gets inputs of the ranks that
 * they will have. */
bool body_enter(Import *im, const Onnx__NodeProto *p, const Loc *loc, Value *const *in);
/* Behind it: the owner infers the body with the sizes that there are. */
void body_leave(Import *im, const Attr *attrs, int n_attrs, int assumed);
void body_input(Import *im, const Carried *c, int k, Value *v);

/* ---- defaults.c: initializers that are inputs, too ---- */
/* Finds them, before anything is imported. */
void defaults_find(Import *im);
/* True when initializer c is one, and is kept for defaults_input; *ok: without error. */
bool defaults_take(Import *im, const Onnx__GraphProto *g, ConstData *c, const Loc *loc, bool *ok);
/* The input p, if it is one: *out is it, or a constant when it cannot be given. False: error. */
bool defaults_input(Import *im, const Onnx__ValueInfoProto *p, const Loc *loc, Value **out);
/* Nodes and outputs of the main graph, once with the defaults as constants, which is fast, and once
 * with the inputs. */
bool defaults_import(Import *im, Scope *s, const Onnx__GraphProto *p);

/* ---- lists.c: sequences and optionals that only the run knows, inputs and outputs ---- */
Seq *sequence_of(const Import *im, const Value *v); /* NULL: none, or of unknown length */
/* What a value of the run is; LIST_NONE: a tensor, or a sequence of known length. */
ListKind list_kind(const Import *im, const Value *v);
void list_note(Import *im, const Value *v, ListKind kind);
Value *sequence_new(Import *im, int n, Value *const *items, DType t);
/* A node of a list; `kind`: what its result is. NULL: reported. */
Value *list_op(Import *im, Graph *g, const char *op, int n_in, Value *const *in, int n_attrs,
               const Attr *attrs, ListKind kind, const Loc *loc);
/* A sequence as a list, made where its length is known, and taken out of an optional. */
Value *list_sequence(Import *im, Graph *g, Value *v, const Loc *loc);
/* The element of an optional of the run. */
Value *list_element(Import *im, Graph *g, Value *v, const Loc *loc);
/* v, a tensor, sequence, optional or NULL (none), as an optional of this kind. */
Value *list_optional(Import *im, Graph *g, Value *v, ListKind kind, const Loc *loc);
/* What a type means for a value of the run; LIST_NONE also where it is left out. */
ListKind list_declared(const Onnx__TypeProto *t);
/* Before If or Loop is imported: sequences that a Loop is given become lists, which its body knows. */
bool list_enter(Import *im, Graph *g, Value **in, const Onnx__NodeProto *p,
                const Onnx__GraphProto *body, const Loc *loc);
/* Behind an If or Loop: results that are lists. */
bool list_leave(Import *im, const Scope *s, const Onnx__NodeProto *p, Value *const *in,
                const Attr *attrs, int n_attrs, const Loc *loc);
/* An input of the main graph that is no tensor: added to g, and what the graph computes with. */
Value *list_input(Import *im, Graph *g, const Onnx__ValueInfoProto *p, const Loc *loc);
/* v as the output of the model that is declared so; *type is set where it is a list. */
Value *list_output(Import *im, Graph *g, Value *v, const Onnx__ValueInfoProto *p,
                   const ListType **type, const Loc *loc);
const Seq *map_of(const Import *im, const Value *v); /* keys and values of a map, or NULL */
/* ---- sequence.c ---- */
/* flex_attention.c */
bool flex_attention_known(const char *domain, const char *op);
bool flex_attention_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc,
                         Value *const *in);
/* gradient.c */
bool gradient_known(const char *domain, const char *op);
bool gradient_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc, Value *const *in,
                   const Attr *attrs, int n_attrs);
/* maps.c */
const char *map_operator(int i, const char **limit); /* of ai.onnx.ml; NULL: there are no more */
bool map_known(const char *domain, const char *op);
bool map_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc, Value *const *in,
              const Attr *attrs, int n_attrs);
int sequence_operators(void);
const char *sequence_operator(int i); /* NULL: there are no more */
bool sequence_known(const char *domain, const char *op);
/* True when the node is about sequences or optionals and was dealt with; *ok: without error. */
bool sequence_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc, Value **in,
                   const Attr *attrs, int n_attrs, bool *ok);
bool sequence_map(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc, Value **in,
                  const Onnx__GraphProto *body);

/* ---- check.c ---- */
bool opsets_read(Import *im, Onnx__OperatorSetIdProto *const *p, size_t n, const Loc *loc,
                 Opsets *out);
int64_t opsets_find(const Opsets *o, const char *domain); /* 0: not imported */
Function *function_find(const Import *im, const Onnx__NodeProto *n);
bool functions_read(Import *im, const Onnx__ModelProto *p);
/* Reports every operator of the model that is not supported, with counts and places. */
bool check_supported(Import *im, const Onnx__GraphProto *g, const Opsets *o);
const char *domain_normal(const char *d); /* "" for ai.onnx */

/* ---- import.c ---- */
/* The shape that the model declares for a value of the main graph, or NULL. */
const Onnx__TypeProto__Tensor *import_declared(const Import *im, const Scope *s, const char *name);
