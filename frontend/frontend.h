/* ONNX → graph IR. The file is hostile until proven otherwise: wire scan, budgeted decoding, then
 * import. */
#pragma once
#include "ir/graph/graph.h"

typedef struct FrontendConst { /* an input that becomes a constant */
  const char *name;
  DType dtype;
  int rank;
  const int64_t *dims;
  const void *data; /* lives as long as the model */
} FrontendConst;

typedef struct FrontendOptions {
  const char *external_dir; /* root for external data; NULL: the model's own directory */
  size_t max_memory;        /* budget of decoding, bytes; 0: 16× file + 256 MiB */
  /* Fixed symbols and shapes (--dim, --shape), applied to the graph's inputs. */
  const char *const *dim_names;
  const int64_t *dim_values;
  int n_dims;
  const SizeBound *bounds; /* --bound */
  int n_bounds;
  const char *const *shape_inputs;
  const int64_t *const *shape_dims;
  const int *shape_ranks;
  int n_shapes;
  const FrontendConst *consts;
  int n_consts;     /* --const */
  bool freeze;      /* --freeze-initializers: those that are inputs, too, become constants */
  FloatRules rules; /* of the target: constants are folded by them */
} FrontendOptions;

/* Reads, checks, upgrades to the newest opset, infers. NULL on error (all reported in d). The file
 * stays mapped for the life of `a` (constants point into it). */
Model *frontend_load(Arena *a, Diag *d, const char *path, const FrontendOptions *o);
/* The same from memory (fuzzers, Python); `data` must live as long as the model. */
Model *frontend_load_memory(Arena *a, Diag *d, const void *data, size_t size, const char *name,
                            const FrontendOptions *o);
/* One TensorProto (.pb file) as a constant; used for inputs of tests and `burin run`. */
ConstData *frontend_load_tensor(Model *m, const char *path);
/* Has none of the model's files been written to since it was read? Else reported. */
bool frontend_unchanged(const Model *m);
/* A whole regular file with a zero behind it; NULL: reported. */
const char *frontend_read_file(Arena *a, Diag *d, const char *path, size_t *size);
/* XXH3-128 in hex, as Model.hash. */
const char *frontend_hash(Arena *a, const void *data, size_t size);
/* The text of a graph or a program (then *program is set) with its weights, which lie in its own
 * folder; data may be missing (Model.missing). */
struct Module;
Model *frontend_load_text(Arena *a, Diag *d, const char *path, struct Module **program);
/* The operators that have no row of their own, since the importer makes others of them: the i-th,
 * and what of it is refused (or NULL); false: there are no more. */
bool frontend_own_operator(int i, const char **domain, const char **name, const char **limit);
/* Does the file look like one? */
bool frontend_is_text(const char *path);
