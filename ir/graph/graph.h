/* Graph IR: tensors and ONNX operators in their newest form. See docs/ir.md for the text form. */
#pragma once
#include "ir/base/diag.h"
#include "ir/expr/expr.h"
#include "ir/graph/plan.h"

typedef struct Graph Graph;
typedef struct Node Node;
typedef struct Value Value;
typedef struct Model Model;
typedef struct OpRow OpRow;

enum { MAX_RANK = 16 };

typedef enum TypeKind { TY_NONE, TY_TENSOR, TY_SEQUENCE, TY_OPTIONAL, TY_MAP } TypeKind;

/* Constant data: a slice of a mapped file or arena memory; elements in dtype_bytes() each, little
 * endian. */
typedef struct ConstData {
  int id;           /* #id in texts */
  const char *name; /* initializer name, or NULL */
  DType dtype;
  int rank;
  const int64_t *dims;
  int64_t count;    /* elements */
  bool initializer; /* of the file, so that it may be trained; texts do not say */
  /* May be unaligned for slices of a file: read with memcpy. STR: const char *const * */
  const void *data;
} ConstData;

/* How a materialised value lies in memory: dimension order, outermost first (NULL: row-major), and
 * a halo around it (elements per dimension, NULL: none) of zeros, or of `fill`, the zero point of an
 * 8-bit image, so that convolutions need no guards at borders. */
typedef struct Layout {
  const int8_t *perm;
  const int16_t *halo_lo, *halo_hi;
  /* Unused elements behind the innermost dimension: keeps rows off each other's cache sets */
  int16_t pad;
  int16_t fill; /* what the halo is made of */
} Layout;

/* Whether fuse stores a value: as it finds right, or as it did in the kernels whose bits are to stay
 * (form/checkpoint.c). */
typedef enum ValueForm { FORM_FREE, FORM_STORED, FORM_INLINED } ValueForm;

struct Value {
  int id;           /* %id in texts; unique in the model */
  const char *name; /* ONNX name, may be NULL */
  TypeKind kind;
  DType dtype;            /* of the tensor, or of the element tensor */
  int rank;               /* -1: unknown before inference */
  const Expr **dims;      /* rank of them; i64 expressions over symbols only */
  Node *def;              /* NULL: graph input, region input or constant */
  int def_index;          /* which output of def */
  const ConstData *cdata; /* constant value, else NULL */
  /* Known symbolic elements of a small integer/bool tensor (shape arithmetic), else NULL */
  const Expr *const *contents;
  Layout layout;
  bool inlined; /* never materialised: consumers call its elem (set by the fusion pass) */
  ValueForm form;
  Value *init; /* input of the main graph: the constant that it is where the caller gives none */
  bool pinned; /* and no other value may be given: sizes were computed from it */
};

/* Sequences and optionals of tensors; numbers of BurinListInfo.kind (runtime/abi.h). */
typedef enum ListKind {
  LIST_NONE,
  LIST_SEQUENCE,
  LIST_OPTIONAL,         /* of a tensor */
  LIST_OPTIONAL_SEQUENCE /* of a sequence */
} ListKind;
typedef struct ListType {
  ListKind kind;
  DType dtype;         /* of the tensors */
  int rank;            /* -1: any */
  const int64_t *dims; /* -1: any */
} ListType;

typedef enum AttrKind {
  AT_INT,
  AT_FLOAT,
  AT_STRING,
  AT_TENSOR,
  AT_GRAPH,
  AT_INTS,
  AT_FLOATS,
  AT_STRINGS
} AttrKind;
typedef struct Attr {
  const char *name;
  AttrKind kind;
  int n;                   /* element count of lists; 1 for scalars */
  const int64_t *ints;     /* INT, INTS */
  const double *floats;    /* FLOAT, FLOATS */
  const char *const *strs; /* STRING, STRINGS (NUL-terminated) */
  const ConstData *tensor;
  Graph *graph;
} Attr;

/* A data-dependent size, assigned just before the node runs, in order. src set: symbol `sym`
 * becomes element `elem` of the integer tensor `src`. src NULL: it becomes `value` (an expression
 * of symbols assigned before), and the run fails when that is outside [Symbol.lo, Symbol.bound]. */
typedef enum IndexRule { /* see index_of_key */
                         IX_NONE,
                         IX_WRAPS,  /* in [-size, size) */
                         IX_FROM_0, /* in [0, size) */
                         IX_LENGTH /* in [0, size), and a number of elements: of at most size - 1 */
} IndexRule;
typedef struct SymDef {
  const Expr *sym;
  Value *src; /* or NULL */
  int64_t elem;
  const Expr *value; /* of src NULL */
  IndexRule index;   /* the symbol holds the key of the worst index that the node uses */
} SymDef;

struct Node {
  const OpRow *op;
  Value **in; /* an absent optional input is NULL */
  int n_in;
  Value **out; /* an absent optional output is NULL */
  int n_out;
  Attr *attrs;
  int n_attrs;
  /* Runtime symbols that this node's output dims use and that are read from data; see SymDef */
  SymDef *syms;
  int n_syms;
  const Loc *loc;
  Graph *graph;     /* the graph that holds it */
  int mark;         /* scratch of the running pass */
  const Plan *plan; /* of a contraction, once chosen; or NULL */
};

/* Nodes are in topological order. A region (body of If, Loop, Scan) may use values of its
 * ancestors. */
struct Graph {
  Model *model;
  Graph *parent; /* NULL: main */
  Node *owner;   /* node that owns the region */
  const char *name;
  Vec(Node *) nodes;
  Vec(Value *) inputs; /* constants are not inputs */
  Value *unset; /* of the main graph: one bool, no input that has an init is given; or NULL */
  Vec(Value *) outputs; /* a value may be listed more than once, and may be an input or constant */
  /* ONNX names of the outputs, same positions; set by the frontend for the main graph */
  Vec(const char *) output_names;
  /* Of the main graph, by position: what an input or output is that is a BurinList (i64[2]), else
   * NULL, as those that are missing at the end */
  Vec(const ListType *) input_lists, output_lists;
  /* Of the main graph, same positions: labels (i64 or str) of the last dimension of an output that
   * is a list of maps in ONNX (ZipMap), else NULL, as those that are missing at the end */
  Vec(const ConstData *) output_keys;
};

/* What must hold between two sizes when the model runs. Rules of ops write it with the helpers
 * require_… (ir/op/ops.h) and in no other way. What a region takes for granted need not hold at
 * entry, since the region may not run (assume_at_entry). */
typedef enum AssumeKind {
  ASSUME_EQUAL,     /* a == b */
  ASSUME_AT_MOST,   /* a <= b */
  ASSUME_AT_LEAST,  /* a >= b */
  ASSUME_BROADCAST, /* a == b or a == 1 */
  ASSUME_MULTIPLE   /* a is a multiple of b; of 0 only 0 is one */
} AssumeKind;
typedef struct DimAssume {
  AssumeKind kind;
  const Expr *a, *b;
  const char *what;   /* which sizes: "sizes of the pieces and of the axis"; NULL: not said */
  const Graph *graph; /* graph of the node that assumes it; NULL: main */
  const Loc *loc;
} DimAssume;

/* An input and an output of the main graph in one memory, that of the output: what a run appends
 * along `axis` is all that it writes (--cache). Strides are those of `room` elements along it, of
 * which the input has as many as its size says. axis -1: both have the same sizes, and a run may
 * write everything (--in-place). */
typedef struct InPlace {
  int input, output, axis;
  int64_t room;
} InPlace;

/* A tensor of the state of a training step, which the caller keeps in one buffer: an input of the
 * main graph and, where a run changes it, an output in its memory (passes/train). Numbers are those
 * of BurinStateInfo.kind (runtime/abi.h). */
typedef enum StateKind {
  STATE_PARAMETER,
  STATE_STATISTIC, /* running mean or variance */
  STATE_MOMENT,    /* of the optimizer */
  STATE_GRADIENT,  /* gathered over several calls */
  STATE_COUNTER,
  STATE_SCALE /* of the loss */
} StateKind;
extern const char *const state_kind_names[]; /* by StateKind: "parameter" … */
typedef struct StateItem {
  const char *name; /* parameter, statistic: the initializer's; moment: "NAME.m" … */
  StateKind kind;
  int input, output;        /* positions; output -1: the run only reads it */
  const ConstData *initial; /* of the input's init; NULL: zeros */
  int64_t offset, bytes;    /* in the buffer; offsets are multiples of 64 */
} StateItem;

/* A file that the model was read from, as it was then. */
typedef struct ModelFile {
  const char *path;
  uint64_t device, inode;
  int64_t size, changed_ns;
} ModelFile;

/* The most that a size which only data give may be, as the user says (--bound). */
typedef struct SizeBound {
  const char *name; /* of the symbol */
  int64_t most;
  bool used;
} SizeBound;

struct Model {
  Arena *arena;
  ExprPool *pool;
  Diag *diag;
  const char *file;
  int ir_version, opset; /* as the file said; the IR itself is always the newest opset */
  const char *producer, *doc;
  Graph *main;
  Vec(ConstData *) consts;
  int next_value;
  /* What inference took for granted; the compiled model checks it at entry */
  Vec(DimAssume) assumes;
  Vec(SizeBound) bounds;
  Vec(InPlace) in_place;
  Vec(StateItem) state; /* ascending offsets */
  int64_t state_bytes;
  Vec(Value *) frozen;  /* initializers that are inputs, too, and were made constants on request */
  Vec(ModelFile) files; /* the model's and those of external data; they stay mapped */
  const char *hash;     /* XXH3-128 of the model's file in hex; NULL: it came from memory */
  /* Of a text (model_parse): a constant whose data is not in it though the text does not say so, or
   * NULL; and whether it says so (`data none`). They are zeros: no code may be made of them. */
  const ConstData *missing;
  bool zeros;
  const char *todo;         /* passes that remain of its pipeline, "a,b"; NULL: nobody knows */
  bool scheduled;           /* its order is such that little memory is needed */
  bool differentiated;      /* it has gradients: much is read again late */
  bool fused;               /* it is decided which values are stored, */
  bool laid_out;            /* and how they lie in memory (`holds fused laid_out`) */
  const Graph *read_region; /* graph of what it says regions assume, until inference finds theirs */
};

/* ---- building ---- */
Model *model_new(Arena *a, Diag *d);
Graph *graph_new(Model *m, Graph *parent, const char *name);
Value *value_new(Model *m, const char *name);
/* Dims copied */
void value_set_tensor(Model *m, Value *v, DType t, int rank, const Expr *const *dims);
/* Data not copied */
ConstData *const_new(Model *m, const char *name, DType t, int rank, const int64_t *dims,
                     const void *data);
Value *value_const(Model *m, ConstData *c);                           /* a value that holds it */
Value *value_const_i64s(Model *m, int rank, int n, const int64_t *v); /* rank 0 or 1 */
Value *value_const_scalar(Model *m, DType t, double v);               /* rank 0 */
/* Appends before `before` (NULL: at the end). Ins copied. Outputs are made by node_add_output. */
Node *graph_add_node(Graph *g, Node *before, const OpRow *op, int n_in, Value *const *in,
                     const Loc *loc);
Value *node_add_output(Node *n, const char *name); /* kind NONE until inferred */
void node_set_attr(Node *n, Attr a);               /* replaces one of the same name */
void node_set_int(Node *n, const char *name, int64_t v);
void node_set_ints(Node *n, const char *name, int count, const int64_t *v);
void node_set_float(Node *n, const char *name, double v);
void node_set_string(Node *n, const char *name, const char *v);
void graph_remove_node(Graph *g, Node *n); /* its outputs must be unused */
/* All uses in g, its regions and outputs */
void graph_replace_value(Graph *g, Value *old, Value *by);
const char *list_text(Arena *a, const ListType *l); /* "seq(f32[?,3])" */
/* Input or output k, of the main graph, is a list (i64[2]). */
void graph_set_list(Graph *g, int k, bool output, const ListType *l);
void graph_sort(Graph *g); /* restores topological order (stable) */

/* What an earlier inference, with other types, found of the elements of its nodes' results, of its
 * regions', too. */
void graph_forget_contents(Graph *g);
/* Is f true for a value that n, or g, reads? Regions included; their own values are asked about, too. */
bool node_any_read(const Node *n, bool (*f)(void *user, Value *v), void *user);
bool graph_any_read(const Graph *g, bool (*f)(void *user, Value *v), void *user);

/* A copy of nodes: values that stand for others, by the id of these. */
typedef struct GraphCopy {
  Value **to; /* NULL: itself, as what lies outside */
  int n;
} GraphCopy;
GraphCopy graph_copy_new(Model *m); /* stands for values that are there now */
Value *graph_copy_of(const GraphCopy *c, Value *v);
/* Adds copies of from's nodes, regions included, to the end of `to`; inputs of `from` must have
 * been given what stands for them. Results have no types before `made` infers them, node by node.
 * False: it returned false. */
Node *graph_copy_node(GraphCopy *c, Graph *to, const Node *n);
bool graph_copy_nodes(GraphCopy *c, Graph *to, const Graph *from, bool (*made)(void *user, Node *n),
                      void *user);

/* The bound that the user gives a symbol; NULL: none. */
const Expr *model_bound(Model *m, const Expr *sym);

/* ---- questions ---- */
/* What each tensor of the state begins with, and where the state ends, as inputs say (Value.init). */
void model_find_state(Model *m);
/* One that is no input of its size, or lies over the one before; NULL: there is none. */
const StateItem *model_bad_state(const Model *m);
/* Of which input k is the first half, or output k the second; NULL: of none. */
const InPlace *model_input_in_place(const Model *m, int k);
const InPlace *model_output_in_place(const Model *m, int k);
static inline bool in_place_is_whole(const InPlace *i) { return i && i->axis < 0; }
/* The dimensions of v's memory, which has the room of i along its axis. */
const Expr **in_place_dims(Arena *a, ExprPool *p, const InPlace *i, const Value *v);
/* As it is told to the user: its name, that of its result, or of its operator. */
const char *node_title(Arena *a, const Node *n);
const Attr *node_attr(const Node *n, const char *name); /* NULL when absent */
int64_t node_int(const Node *n, const char *name, int64_t def);
double node_float(const Node *n, const char *name, double def);
const char *node_string(const Node *n, const char *name, const char *def);
int node_ints(const Node *n, const char *name, const int64_t **v); /* count; 0 when absent */
/* Entry k of a list; def where it has none. */
int64_t node_ints_at(const Node *n, const char *name, int k, int64_t def);
Graph *node_region(const Node *n, const char *name);
static inline const ConstData *graph_output_keys(const Graph *g, int k) {
  return k < g->output_keys.n ? g->output_keys.data[k] : NULL;
}
static inline const ListType *graph_list(const Graph *g, int k, bool output) {
  if (output) return k < g->output_lists.n ? g->output_lists.data[k] : NULL;
  return k < g->input_lists.n ? g->input_lists.data[k] : NULL;
}
static inline Value *node_in(const Node *n, int k) { return k < n->n_in ? n->in[k] : NULL; }
static inline Value *node_out(const Node *n, int k) { return k < n->n_out ? n->out[k] : NULL; }
/* NULL, or what is wrong with a shape: coefficients that make it too large for any sizes of the
 * inputs, or an expression that is too long. Everything computed from shapes that passed, bytes and
 * offsets too, stays within 64 bits at compile time. */
const char *dims_problem(Model *m, int rank, const Expr *const *dims);
bool value_is_static(const Value *v, int64_t *dims /* may be NULL */); /* all dims constant */
bool value_same_shape(const Value *a, const Value *b);
bool value_one_element(const Value *v);               /* whatever its rank */
bool value_is_byte(const Value *v);                   /* a tensor of u8 or i8 */
const Expr *value_count(ExprPool *p, const Value *v); /* number of elements */
/* Element of a constant, or of a value with known contents, as an expression of v's dtype; NULL:
 * unknown. */
const Expr *value_element(ExprPool *p, const Value *v, int64_t flat);
/* Of the key of passes/graph/check_indices.c: 2i + 1 for i >= 0, else -2i (beyond 2^62 where
 * negative ones do not count from the end). */
int64_t index_of_key(int64_t key);
bool value_known(const Value *v); /* constant or with contents: value_element answers */
/* A condition that compares two sizes of the caller. */
bool value_compares_sizes(const Value *v);
/* Recorded once, and not at all when it is sure to hold; graph NULL: main. */
void model_assume(Model *m, DimAssume a);
/* What a assumes as a bool expression: the one meaning that folding, checks and tests share. */
const Expr *assume_condition(ExprPool *p, const DimAssume *a);
/* Words for texts and messages: "equal", and "must be equal to". */
const char *assume_name(AssumeKind kind);
const char *assume_verb(AssumeKind kind);
void assume_print(const ExprPool *p, const DimAssume *a, StrBuf *b); /* `equal a, b "what"` */
static inline bool assume_at_entry(const Model *m, const DimAssume *a) {
  return !a->graph || a->graph == m->main;
}
int64_t const_int(const ConstData *c, int64_t i);
double const_float(const ConstData *c, int64_t i);
/* Users of each value: rebuilt on demand, indexed by value id. */
typedef Vec(Node *) NodeVec;
typedef struct Uses {
  /* of[v->id]; a node appears once per use; uses inside regions count for the region's owner
   * chain */
  NodeVec *of;
  int *outputs; /* how often v is a graph output (of any graph) */
  int n;
} Uses;
Uses *graph_uses(Graph *main, Arena *scratch);

/* ---- text and checking (graph_text.c, graph_verify.c) ---- */
/* with_consts: data of constants too, so that the text is complete; else it says `data none`. */
void model_print(const Model *m, StrBuf *b, bool with_consts);
/* Where the data of a constant lie in a file beside the text, zeros between them. */
typedef struct TextPlace {
  int file; /* in TextStore.files */
  const void *data;
  int64_t offset;
  int64_t bytes;
} TextPlace;
typedef struct TextFile {
  const char *name; /* in the text's folder */
  const char *hash;
  Vec(TextPlace) parts; /* ascending */
  int64_t bytes;
} TextFile;
/* Files with the data of constants that several texts of one folder share. */
typedef struct TextStore {
  Arena *arena;
  Vec(TextFile) files;
  Vec(TextPlace) places; /* by id of the constant */
} TextStore;
/* The whole text. Where constants are large, those that the store lacks are added to it as one more
 * file, `name`, which the caller writes. */
void model_print_beside(const Model *m, StrBuf *b, TextStore *store, const char *name);
/* Bytes of constants too large to stand where they are defined */
int64_t model_text_bytes(const Model *m);
/* The file beside a text; NULL: reported. It lives as long as the model. */
typedef const void *(*TextDataFn)(void *user, const char *name, int64_t *bytes);
Model *model_parse(Arena *a, Diag *d, const char *text, const char *file); /* NULL on error */
Model *model_parse_with(Arena *a, Diag *d, const char *text, const char *file, TextDataFn data,
                        void *user);
bool model_verify(const Model *m, const char *after_pass); /* reports through diag_internal */

/* ---- attributes, copied into the arena ---- */
Attr attr_int(Arena *a, const char *name, int64_t v);
Attr attr_ints(Arena *a, const char *name, int n, const int64_t *v);
Attr attr_float(Arena *a, const char *name, double v);
Attr attr_string(Arena *a, const char *name, const char *v);
