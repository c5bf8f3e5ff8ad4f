/* Attributes. Operators have the ones that attributes.def lists for their version, of these types,
 * and no others: the rules of the operators then read attributes without looking at kinds. */
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

/* ---- what operators have ---- */
typedef struct AttrRow {
  const char *domain, *op;
  int since;
  const char *attrs;
} AttrRow;

static const AttrRow attr_rows[] = {
#define ATTRS(domain, op, since, attrs) {domain, op, since, attrs},
#include "frontend/import/attributes.def"
#undef ATTRS
};
enum { N_ATTR_ROWS = sizeof attr_rows / sizeof *attr_rows };
static const char kind_letters[] = "fistgFISTGzZyY"; /* as P_FLOAT … */

static int row_order(const AttrRow *r, const Loc *loc) {
  int c = strcmp(r->domain, loc->domain);
  if (c == 0) c = strcmp(r->op, loc->op);
  return c ? c : (r->since > loc->opset) - (r->since < loc->opset);
}

/* Attributes of the node's operator in its version; NULL: not known, nothing is said. */
static const char *attrs_of(const Loc *loc) {
  int lo = 0, hi = N_ATTR_ROWS; /* rows before lo are not behind the node, those from hi on are */
  while (lo < hi) {
    const int mid = (lo + hi) / 2;
    if (row_order(&attr_rows[mid], loc) <= 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  const AttrRow *const r = &attr_rows[lo - 1];
  return lo && strcmp(r->domain, loc->domain) == 0 && strcmp(r->op, loc->op) == 0 ? r->attrs : NULL;
}

/* The letter behind a name in such a text; NULL: it is not there. */
static const char *attr_letter(const char *attrs, const char *name) {
  const size_t n = strlen(name);
  for (const char *at = attrs; *at; at += strcspn(at, " "), at += *at == ' ')
    if (strncmp(at, name, n) == 0 && at[n] == ':') return at + n + 1;
  return NULL;
}

/* "a:i b:F!" as "a, b" */
static const char *attr_names(Arena *a, const char *attrs) {
  StrBuf b = {.arena = a};
  for (const char *at = attrs; *at; at += strcspn(at, " "), at += *at == ' ')
    sb_printf(&b, "%s%.*s", at == attrs ? "" : ", ", (int)strcspn(at, ":"), at);
  return sb_str(&b);
}

/* The type that the attribute must have; 0: anything; -1 after an error. */
static int kind_wanted(Import *im, const char *name, const Loc *loc) {
  const char *const attrs = attrs_of(loc);
  if (!attrs || strncmp(name, "__", 2) == 0) return 0; /* ONNX leaves these to everyone */
  const char *const letter = attr_letter(attrs, name);
  if (letter) return (int)(strchr(kind_letters, *letter) - kind_letters) + 1;
  diag_error(im->d, loc, ERR_ATTR_VALUE, "the operator has no attribute \"%s\"%s%s", name,
             *attrs ? "; it has " : "", attr_names(im->scratch, attrs));
  return -1;
}

static bool attr_check(Import *im, const AttrProto *p, int type, const Loc *loc, int *wanted) {
  if (!p->name || !*p->name)
    return diag_error(im->d, loc, ERR_ATTR_VALUE, "an attribute has no name");
  *wanted = kind_wanted(im, p->name, loc);
  if (*wanted > 0 && type != *wanted && !(type == 0 && *wanted >= P_FLOATS && *wanted <= P_STRINGS))
    return diag_error(im->d, loc, ERR_ATTR_TYPE, "attribute \"%s\" has type %s, should be %s",
                      p->name, kind_name(type), kind_name(*wanted));
  return *wanted >= 0;
}

static bool is_given(const Onnx__NodeProto *p, const char *name, size_t n) {
  for (size_t k = 0; k < p->n_attribute; k++) {
    const char *const given = p->attribute[k]->name;
    if (given && strncmp(given, name, n) == 0 && !given[n]) return true;
  }
  return false;
}

bool attrs_check(Import *im, const Onnx__NodeProto *p, const Loc *loc) {
  const char *const attrs = attrs_of(loc);
  int wanted;
  for (size_t k = 0; k < p->n_attribute; k++) {
    const AttrProto *const a = p->attribute[k];
    const bool refers =
        a->ref_attr_name && *a->ref_attr_name; /* its value is checked when it is found */
    if (!refers && !attr_check(im, a, attr_proto_type(a), loc, &wanted)) return false;
    if (refers && a->name && kind_wanted(im, a->name, loc) < 0) return false;
  }
  for (const char *at = attrs ? attrs : ""; *at; at += strcspn(at, " "), at += *at == ' ') {
    const size_t n = strcspn(at, ":");
    if (at[n + 2] == '!' && !is_given(p, at, n))
      return diag_error(im->d, loc, ERR_ATTR_MISSING, "attribute \"%.*s\" is missing", (int)n, at);
  }
  return true;
}

/* ---- import ---- */
bool import_attr(Import *im, const AttrProto *p, const Loc *loc, Attr *out) {
  const int type = attr_proto_type(p);
  int wanted;
  if (!attr_check(im, p, type, loc, &wanted)) return false;
  *out = (Attr){.name = arena_strdup(im->arena, p->name)};
  return take_value(im, p, type ? type : wanted, loc, out);
}
