/* Attributes. An attribute that ONNX defines with one type everywhere must have that type: the
 * rules of the operators then read attributes without looking at kinds. */
#include <stdio.h>
#include <string.h>
#include "frontend/scope/import.h"

typedef Onnx__AttributeProto AttrProto;

/* ---- kinds ---- */
enum {
  P_FLOAT = 1,
  P_INT,
  P_STRING,
  P_TENSOR,
  P_GRAPH,
  P_FLOATS,
  P_INTS,
  P_STRINGS,
  P_TENSORS,
  P_GRAPHS,
  P_SPARSE,
  P_SPARSES,
  P_TYPE,
  P_TYPES
};

static const char *kind_name(int k) {
  static const char *const names[] = {"UNDEFINED",      "FLOAT",      "INT",        "STRING",
                                      "TENSOR",         "GRAPH",      "FLOATS",     "INTS",
                                      "STRINGS",        "TENSORS",    "GRAPHS",     "SPARSE_TENSOR",
                                      "SPARSE_TENSORS", "TYPE_PROTO", "TYPE_PROTOS"};
  return k >= 0 && k < (int)(sizeof names / sizeof *names) ? names[k] : "unknown";
}

/* Names that have the same type in every operator of ai.onnx and ai.onnx.ml that knows them. */
static const struct {
  int kind;
  const char *names;
} attr_kinds[] = {
    {P_STRING,
     " activation approximate auto_pad case_change_action cast_to coordinate_transformation_mode "
     "default_string delimiter"
     " direction equation keep_aspect_ratio_policy kernel_type locale map_form mode nearest_mode "
     "norm padding_mode pattern"
     " pixel_format reduction round_mode update_rule value_string "},
    {P_FLOATS,
     " activation_alpha activation_beta base_values class_weights coefficients "
     "imputed_value_floats intercepts"
     " kernel_params keys_floats nodes_values offset prob_a prob_b rho scales support_vectors "
     "target_weights value_floats"
     " values_floats weights "},
    {P_STRINGS,
     " activations cats_strings classes_strings classlabels_strings keys_strings pool_strings "
     "stopwords"
     " string_vocabulary value_strings values_strings "},
    {P_INT,
     " align_corners allowzero antialias axis batch_axis batch_dims block_size blocksize broadcast "
     "ceil_mode"
     " center_point_box chunk_size count_include_pad default_int64 detect_negative detect_positive "
     "dtype end"
     " exclude_outside exclusive fmod group hidden_size ignore_index input_forget interleaved "
     "inverse is_case_sensitive"
     " is_causal is_test k keepdims kv_num_heads largest layout left_window_size "
     "linear_before_reset max_gram_length"
     " max_map max_skip_count maxsplit min_gram_length multi_class n_supports n_targets new_axis "
     "noop_with_empty_axes"
     " num_groups num_heads num_outputs num_scan_inputs offset_group one_class onesided "
     "output_datatype output_dtype"
     " output_height output_sequence output_width periodic precision q_num_heads "
     "qk_matmul_output_mode"
     " replaced_value_int64 reverse right_window_size rotary_embedding_dim sample_size "
     "sampling_ratio saturate"
     " select_last_index softmax_precision sorted spatial start stash_type storage_order targets "
     "time_axis"
     " training_mode transA transB upper value_int zeros "},
    {P_FLOAT,
     " alpha beta cubic_coeff_a default_float epsilon extrapolation_value gamma height_scale high "
     "lambd low max mean min"
     " momentum ratio replaced_value_float softcap spatial_scale threshold value_float "
     "width_scale "},
    {P_INTS,
     " axes cats_int64s class_ids class_nodeids class_treeids classlabels_int64s classlabels_ints "
     "dilations"
     " directions ends imputed_value_int64s inputdimensions int64_vocabulary kernel_shape "
     "keys_int64s leaf_targetids"
     " ngram_counts ngram_indexes nodes_falseleafs nodes_falsenodeids nodes_featureids "
     "nodes_missing_value_tracks_true"
     " nodes_nodeids nodes_treeids nodes_trueleafs nodes_truenodeids output_padding output_shape "
     "paddings pads perm"
     " pool_int64s pooled_shape scan_input_axes scan_input_directions scan_output_axes "
     "scan_output_directions split"
     " starts strides target_ids target_nodeids target_treeids tree_roots value_ints values_int64s "
     "vectors_per_class "},
    {P_TENSOR,
     " base_values_as_tensor class_weights_as_tensor default_tensor keys_tensor leaf_weights "
     "membership_values"
     " nodes_hitrates_as_tensor nodes_splits nodes_values_as_tensor target_weights_as_tensor "
     "values_tensor "},
    {P_GRAPH, " body else_branch then_branch "},
    {P_SPARSE, " sparse_value "},
    {P_TYPE, " type "},
};

static int kind_wanted(const char *domain, const char *name) {
  char key[64];
  if (domain && *domain && strcmp(domain, "ai.onnx") != 0 && strcmp(domain, "ai.onnx.ml") != 0 &&
      strncmp(domain, "ai.onnx.preview", 15) != 0)
    return 0;
  if (strchr(name, ' ') || (size_t)snprintf(key, sizeof key, " %s ", name) >= sizeof key) return 0;
  for (size_t k = 0; k < sizeof attr_kinds / sizeof *attr_kinds; k++)
    if (strstr(attr_kinds[k].names, key)) return attr_kinds[k].kind;
  return 0;
}

/* Files of the first IR versions have no type field. */
int attr_proto_type(const AttrProto *p) {
  if (p->has_type && p->type != 0) return (int)p->type;
  if (p->has_f) return P_FLOAT;
  if (p->has_i) return P_INT;
  if (p->has_s) return P_STRING;
  if (p->t) return P_TENSOR;
  if (p->g) return P_GRAPH;
  if (p->n_floats) return P_FLOATS;
  if (p->n_ints) return P_INTS;
  if (p->n_strings) return P_STRINGS;
  return 0;
}

/* ---- values ---- */
static bool copy_string(Import *im, const ProtobufCBinaryData *s, const char *name, const Loc *loc,
                        const char **out) {
  if (s->len && memchr(s->data, 0, s->len))
    return diag_error(im->d, loc, ERR_ATTR_VALUE, "attribute \"%s\" holds a NUL byte", name);
  *out = arena_strndup(im->arena, (const char *)s->data, s->len);
  return true;
}

static bool take_strings(Import *im, const ProtobufCBinaryData *s, size_t n, const Loc *loc,
                         Attr *out) {
  const char **strs = ARENA_ARRAY(im->arena, const char *, n);
  for (size_t k = 0; k < n; k++)
    if (!copy_string(im, &s[k], out->name, loc, &strs[k])) return false;
  out->strs = strs;
  out->n = (int)n;
  return true;
}

static void take_floats(Import *im, const float *v, size_t n, Attr *out) {
  double *f = ARENA_ARRAY(im->arena, double, n);
  for (size_t k = 0; k < n; k++) f[k] = (double)v[k];
  out->floats = f;
  out->n = (int)n;
}

static void take_ints(Import *im, const int64_t *v, size_t n, Attr *out) {
  out->ints = arena_dup(im->arena, v, n * sizeof *v);
  out->n = (int)n;
}

static bool take_type(Import *im, const Onnx__TypeProto *t, const Loc *loc, Attr *out) {
  const char *text = t ? type_text(im->arena, t) : NULL;
  if (!text)
    return diag_error(im->d, loc, ERR_ATTR_VALUE, "attribute \"%s\" holds no type", out->name);
  const char **strs = ARENA_NEW(im->arena, const char *);
  *strs = text;
  out->kind = AT_STRING;
  out->strs = strs;
  return true;
}

static bool take_value(Import *im, const AttrProto *p, int type, const Loc *loc, Attr *out) {
  out->n = 1;
  switch (type) {
    case P_FLOAT: out->kind = AT_FLOAT; return take_floats(im, &p->f, 1, out), true;
    case P_INT: out->kind = AT_INT; return take_ints(im, &p->i, 1, out), true;
    case P_STRING: out->kind = AT_STRING; return take_strings(im, &p->s, 1, loc, out);
    case P_FLOATS: out->kind = AT_FLOATS; return take_floats(im, p->floats, p->n_floats, out), true;
    case P_INTS: out->kind = AT_INTS; return take_ints(im, p->ints, p->n_ints, out), true;
    case P_STRINGS:
      out->kind = AT_STRINGS;
      return take_strings(im, p->strings, p->n_strings, loc, out);
    case P_GRAPH: out->kind = AT_GRAPH; break;
    case P_TYPE: return take_type(im, p->tp, loc, out);
    case P_TENSOR:
      out->kind = AT_TENSOR;
      if (p->t) return (out->tensor = import_tensor(im, p->t, NULL, loc)) != NULL;
      break;
    case P_SPARSE:
      out->kind = AT_TENSOR;
      if (p->sparse_tensor)
        return (out->tensor = import_sparse_tensor(im, p->sparse_tensor, NULL, loc)) != NULL;
      break;
    default:
      return diag_error(im->d, loc,
                        type >= P_TENSORS && type <= P_TYPES ? ERR_UNSUPPORTED : ERR_ATTR_TYPE,
                        "attribute \"%s\" has type %s", out->name, kind_name(type));
  }
  if (type == P_GRAPH && p->g) return true;
  return diag_error(im->d, loc, ERR_ATTR_VALUE, "attribute \"%s\" of type %s has no value",
                    out->name, kind_name(type));
}

bool import_attr(Import *im, const AttrProto *p, const Loc *loc, Attr *out) {
  if (!p->name || !*p->name)
    return diag_error(im->d, loc, ERR_ATTR_VALUE, "an attribute has no name");
  const int type = attr_proto_type(p), wanted = kind_wanted(loc->domain, p->name);
  if (wanted && type != wanted && !(type == 0 && wanted >= P_FLOATS && wanted <= P_STRINGS))
    return diag_error(im->d, loc, ERR_ATTR_TYPE, "attribute \"%s\" has type %s, should be %s",
                      p->name, kind_name(type), kind_name(wanted));
  *out = (Attr){.name = arena_strdup(im->arena, p->name)};
  return take_value(im, p, type ? type : wanted, loc, out);
}
