/* State of one import; internal to frontend/. tensor.c decodes tensors, attr.c attributes and
 * types, import.c graphs, functions and nodes, upgrade*.c old forms of operators. */
#pragma once
#include "frontend/frontend.h"
#include "frontend/proto/filemap.h"
#include "frontend/proto/strmap.h"
#include "ir/op/op.h"
#include "onnx.pb-c.h"

enum {
  MAX_NODES = 1000000,
  MAX_CALLS = 100000,
  MAX_FORKED = 20000, /* nodes imported in both branches of an If */
  MAX_ATTRS = 1000,   /* of one node */
  NEWEST_OPSET = 28,
  ONNX_IR_NEWEST = 14,
  OLDEST_OPSET = 1,
  MAX_DIM_BITS = 48
};

typedef struct Opsets { /* versions of the domains that a model or function imports */
  int n;
  const char **domains; /* "" is ai.onnx */
  int64_t *versions;
} Opsets;

typedef struct Function {
  const Onnx__FunctionProto *proto;
  Opsets opsets;
  int state;   /* of the search for unsupported operators: 0 not seen, 1 in progress, 2 done */
  bool active; /* being inlined */
} Function;

typedef struct Seq { /* a sequence, an optional of the run, or a map (keys and values) */
  Value **items;
  int n;         /* -1: only the run knows; the value is a list (ir/ops/text/sequence.c) */
  ListKind kind; /* of such a list; an optional that is empty is 0 */
} Seq;

typedef struct Carried { /* what the inputs of the body about to be imported begin with */
  Value *const *in;
  int n, scanned; /* of n; the last `scanned` lose an axis */
  bool counts;    /* a Loop's: the first two are its number and its condition */
} Carried;

typedef struct Import {
  Arena *arena;   /* the model's */
  Arena *scratch; /* holds the decoded messages; dies with the import */
  Model *m;
  Diag *d;
  const FrontendOptions *o;
  const uint8_t *file; /* the whole model file: slices point into it */
  size_t file_size;
  const char *path;
  const char *dir;     /* root of external data */
  size_t budget;       /* bytes that densified sparse tensors may take together */
  StrMap external;     /* location → FileMap */
  StrMap functions;    /* "domain\x1fname\x1foverload" → Function */
  StrMap declared;     /* name of a main graph value → its ValueInfoProto */
  StrMap dims;         /* dim_param → Expr */
  StrMap symbol_names; /* sanitised names in use */
  bool *dim_used, *shape_used,
      *const_used;       /* which --dim, --shape and --const options met something */
  StrMap keys;           /* output of a ZipMap → ConstData of its labels */
  Vec(Seq *) seqs;       /* by value id; NULL: no sequence */
  const ListKind *lists; /* what inputs of the body about to be imported are; or NULL */
  Carried carried;
  const Onnx__GraphProto *main; /* of the file */
  Graph *version;  /* of the main graph, while one of two is imported (defaults.c); else NULL */
  bool given;      /* of the two, the one that reads the inputs */
  StrMap defaults; /* input of the main graph → Default, where an initializer has its name */
  int calls;       /* of functions, inlined so far */
  int forked;      /* nodes imported in both branches of an If */
  int plain;       /* above 0: branches must have one rank */
  bool failed;     /* inference, in a branch that a fork made longer */
  int nodes;       /* made so far */
} Import;

/* ---- tensor.c ---- */
/* NULL on error. `loc` names the tensor. */
ConstData *import_tensor(Import *im, const Onnx__TensorProto *t, const char *name, const Loc *loc);
ConstData *import_sparse_tensor(Import *im, const Onnx__SparseTensorProto *t, const char *name,
                                const Loc *loc);

/* ---- attr.c ---- */
/* Whether the node has attributes that its operator's version has, of their types, and all that
 * must be given. */
bool attrs_check(Import *im, const Onnx__NodeProto *p, const Loc *loc);
/* False on error. Graph attributes are left to the importer (kind AT_GRAPH, graph NULL). */
bool import_attr(Import *im, const Onnx__AttributeProto *p, const Loc *loc, Attr *out);
/* type, or what the filled field says; 0: none */
int attr_proto_type(const Onnx__AttributeProto *p);

/* ---- types.c ---- */
/* Sets kind, dtype, and where known rank and dims of v. */
bool import_type(Import *im, Value *v, const Onnx__TypeProto *t, const Loc *loc);
/* "f32", "seq(f32)"; NULL when malformed */
const char *type_text(Arena *a, const Onnx__TypeProto *t);
/* For all inputs before the first import_main_input */
bool import_bind_shape(Import *im, const Onnx__ValueInfoProto *p, const Loc *loc);
const Expr *import_dim_symbol(Import *im, const char *name); /* a new one, or what --dim gives it */
bool import_shape_given(const Import *im, const char *name); /* by --shape */
/* NULL on error; p->name is set */
Value *import_main_input(Import *im, const Onnx__ValueInfoProto *p, const Loc *loc);

/* ---- upgrade.c ---- */
/* A node as the file gives it, on its way to the newest form. */
typedef struct OldNode {
  const char *op, *domain;
  int64_t opset;
  Value **in;
  int n_in;
  Attr *attrs;
  int n_attrs;
  int n_out;
  const bool *out_used; /* which outputs have names */
  int declared;         /* rank that the model declares for output 0; -1: none */
  const Loc *loc;
  Graph *graph;
  Value **result; /* set by an upgrade that made other nodes: values of the n_out outputs */
} OldNode;
bool upgrade_gone(int i, const char **domain, const char **op); /* the i-th that has no row */
bool upgrade_known(const char *domain, const char *op);         /* some row is about it */
bool upgrade_node(Import *im, OldNode *n);                      /* false: error reported */

/* ---- import.c ---- */
/* NULL: too many nodes */
Node *import_emit(Import *im, Graph *g, const OpRow *row, int n_in, Value *const *in,
                  const Loc *loc);
/* Infers where all inputs are known; inside regions errors wait for the owner */
bool import_infer(Import *im, Node *n);
/* A node with one output, inferred; NULL: reported. */
Value *import_value(Import *im, Graph *g, const OpRow *row, int n_in, Value *const *in, int n_attrs,
                    const Attr *attrs, const Loc *loc);
bool import_model(Import *im, const Onnx__ModelProto *p);
