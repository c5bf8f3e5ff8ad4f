/* Which element types an operator takes: its rule is asked. Inputs of a few shapes, with whatever
 * attributes an operator may need, are tried until some types of theirs pass; from there on the
 * type of one input at a time, with all that were like it, becomes each other one. Operators that need
 * more than that have examples (operator_examples.def). */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "driver/driver.h"
#include "ir/op/op.h"

enum { MOST_TRIED = 6, MAX_INPUTS = 20, SHAPES = 12, OTHERS = 5, SIZES = 2, FORMS = 6 };
typedef uint32_t TypeSet; /* bit t: DType t */

/* Ranks of the first input and of the others, and the size of every dim. */
static const int8_t ranks[SHAPES][2] = {{4, 4}, {2, 2}, {3, 3}, {1, 1}, {4, 1}, {3, 1},
                                        {2, 1}, {0, 0}, {4, 0}, {2, 0}, {1, 0}, {3, 4}};
static const int8_t sizes[SIZES] = {4, 2};
/* Attributes that operators want in different forms. */
static const struct {
  int64_t to;
  const char *direction;
} forms[FORMS] = {{1, "forward"}, {2, "LEFT"}, {5, ""}, {7, ""}, {22, ""}, {25, ""}};
/* What the inputs behind the first are where they are not like it. */
static const DType others[OTHERS] = {DT_NONE, DT_I64, DT_F32, DT_BOOL, DT_U8};

typedef struct Example {
  const char *domain, *name, *inputs, *attrs;
} Example;
static const Example examples[] = {
#define EXAMPLE(domain, name, inputs, attrs) {domain, name, inputs, attrs},
#include "driver/verbs/operator_examples.def"
};

typedef struct Probe {
  const OpRow *row;
  const Example *example; /* or NULL */
  int n_in, n_out, shape, size;
  DType type[MAX_INPUTS];    /* DT_NONE: left out */
  bool constant[MAX_INPUTS]; /* of an example, as rank and dims */
  int rank[MAX_INPUTS];
  int64_t dims[MAX_INPUTS][MAX_RANK];
  DType result; /* of an operator without inputs */
} Probe;

static void add_attrs(Node *n, int form) {
  static const struct {
    const char *name;
    int64_t v;
  } ints[] = {{"axis", 0},       {"hidden_size", 1}, {"num_heads", 1}, {"kv_num_heads", 1},
              {"blocksize", 2},  {"batch_axis", 0},  {"time_axis", 1}, {"size", 3},
              {"num_groups", 1}, {"K", 4},           {"N", 4},         {"bits", 4}};
  for (size_t k = 0; k < sizeof ints / sizeof *ints; k++) node_set_int(n, ints[k].name, ints[k].v);
  node_set_int(n, "to", forms[form].to);
  node_set_string(n, "direction", forms[form].direction);
  node_set_string(n, "equation", n->n_in == 1 ? "ab->ba" : "ab,bc->ac");
}

/* ---- examples ---- */
static int count_of(const char *s, char sep) {
  int n = 0;
  for (; *s; s++) n += *s == sep && s[1];
  return n + 1;
}

static Attr attr_of(Model *m, const char *name, const char *text) {
  Arena *const a = m->arena;
  static const int64_t one[] = {1};
  const bool number = isdigit((unsigned char)*text) || *text == '-', texts = strchr(text, '|');
  const bool fraction = number && strchr(text, '.');
  const int n = count_of(text, texts ? '|' : ':');
  int64_t *const ints = ARENA_ARRAY(a, int64_t, n);
  double *const floats = ARENA_ARRAY(a, double, n);
  const char **const strs = ARENA_ARRAY(a, const char *, n);
  if (*text == '@') {
    const DType t = dtype_from_text(text + 1);
    const ConstData *const c =
        const_new(m, NULL, t, 1, one, ARENA_ARRAY(a, uint8_t, dtype_bytes(t)));
    return (Attr){.name = name, .kind = AT_TENSOR, .n = 1, .tensor = c};
  }
  if (!number && !texts) return attr_string(a, name, text);
  const char *at = text;
  for (int k = 0; k < n; k++) {
    const size_t length = strcspn(at, texts ? "|" : ":");
    strs[k] = arena_strndup(a, at, length);
    ints[k] = strtoll(at, NULL, 10);
    floats[k] = strtod(at, NULL);
    at += length + (at[length] != 0);
  }
  const bool list = texts || strchr(text, ':');
  const AttrKind kind = texts      ? AT_STRINGS
                        : fraction ? (list ? AT_FLOATS : AT_FLOAT)
                                   : (list ? AT_INTS : AT_INT);
  return (Attr){.name = name, .kind = kind, .n = n, .ints = ints, .floats = floats, .strs = strs};
}

/* NAME=VALUE, between blanks. */
static void example_attrs(Model *m, Node *n, const char *text) {
  while (*text) {
    const size_t name = strcspn(text, "="), value = strcspn(text, " ");
    node_set_attr(n, attr_of(m, arena_strndup(m->arena, text, name),
                             arena_strndup(m->arena, text + name + 1, value - name - 1)));
    text += value;
    while (*text == ' ') text++;
  }
}

/* Reads the inputs; gives the one that is asked for. */
static int example_begin(Arena *a, Probe *q, const Example *e) {
  int asked = 0;
  *q = (Probe){.row = q->row, .example = e};
  for (const char *s = e->inputs; *s; q->n_in++) {
    const int k = q->n_in;
    if (*s == '>') {
      q->n_out = atoi(s + 1);
      break;
    }
    if (*s == '*') asked = k, s++;
    if (*s == '#') q->constant[k] = true, s++;
    const size_t type = strcspn(s, "[ ");
    if (*s != '-') q->type[k] = dtype_from_text(arena_strndup(a, s, type));
    s += type;
    if (*s == '[')
      for (s++; *s != ']'; s += *s == ',') q->dims[k][q->rank[k]++] = strtoll(s, (char **)&s, 10);
    s += strcspn(s, " ");
    while (*s == ' ') s++;
  }
  return asked;
}

static Value *const_ones(Model *m, DType t, int rank, const int64_t *dims) {
  int64_t n = 1;
  for (int d = 0; d < rank; d++) n *= dims[d];
  uint8_t *const data = ARENA_ARRAY(m->arena, uint8_t, n *dtype_bytes(t));
  for (int64_t i = 0; i < n; i++) data[i * dtype_bytes(t)] = 1;
  return value_const(m, const_new(m, NULL, t, rank, dims, data));
}

static void add_inputs(const Probe *q, Model *m, Value **in) {
  const Expr *dims[MAX_RANK];
  for (int k = 0; k < q->n_in; k++) {
    const int rank = q->example ? q->rank[k] : ranks[q->shape][k > 0];
    in[k] = q->type[k] == DT_NONE ? NULL : value_new(m, NULL);
    for (int d = 0; d < rank; d++)
      dims[d] = ex_i64(m->pool, q->example ? q->dims[k][d] : sizes[q->size]);
    if (q->constant[k])
      in[k] = const_ones(m, q->type[k], rank, q->dims[k]);
    else if (in[k])
      value_set_tensor(m, in[k], q->type[k], rank, dims);
  }
}

static bool passes_so(const Probe *q, int form) {
  Arena *const a = arena_new(0, NULL, NULL);
  Model *const m = model_new(a, diag_new(a));
  Graph *const g = m->main = graph_new(m, NULL, "g");
  Value *in[MAX_INPUTS];
  add_inputs(q, m, in);
  Node *const n = graph_add_node(g, NULL, q->row, q->n_in, in, &(Loc){.node = -1});
  for (int k = 0; k < q->row->min_out || k < q->n_out || k < 1; k++) node_add_output(n, NULL);
  const int64_t window[2] = {sizes[q->size], sizes[q->size]};
  if (q->example) {
    example_attrs(m, n, q->example->attrs);
    if (!q->n_in) node_set_int(n, "dtype", dtype_rows[q->result].onnx);
  } else {
    node_set_ints(n, "kernel_shape", 2, window);
    add_attrs(n, form);
  }
  const bool ok = op_infer(m, n);
  arena_free(a);
  return ok;
}

static bool passes(const Probe *q, int n_forms) {
  for (int form = 0; form < n_forms; form++)
    if (passes_so(q, form)) return true;
  return false;
}

/* Types that an input may have, on its own or with all, or all but the first, that are like it. */
static TypeSet types_of(const Probe *q, int input) {
  TypeSet set = 0;
  for (int t = 1; t < DT_COUNT; t++) {
    Probe one = *q, all = *q, rest;
    one.type[input] = (DType)t;
    for (int k = 0; k < q->n_in; k++)
      if (q->type[k] == q->type[input]) all.type[k] = (DType)t;
    rest = all;
    rest.type[0] = q->type[0];
    if (passes(&one, FORMS) || passes(&all, FORMS) || (input && passes(&rest, FORMS)))
      set |= (TypeSet)1 << t;
  }
  return set;
}

static int width(TypeSet s) {
  int n = 0;
  for (int t = 1; t < DT_COUNT; t++)
    if (s >> t & 1) n += dtype_is_float((DType)t) ? DT_COUNT : 1;
  return n;
}

/* The types of that input which takes most, and floats rather than integers. */
static TypeSet widest(const Probe *q) {
  TypeSet best = 0;
  for (int k = 0; k < q->n_in; k++) {
    const TypeSet s = types_of(q, k);
    if (width(s) > width(best)) best = s;
  }
  return best;
}

/* Some types of the inputs that pass; false: none is found. */
static bool first_types(Probe *q) {
  static const DType firsts[] = {DT_F32, DT_I64, DT_BOOL, DT_U8, DT_STR};
  for (size_t f = 0; f < sizeof firsts / sizeof *firsts; f++)
    for (int x = 0; x < OTHERS; x++)
      for (int y = 0; y < OTHERS; y++) {
        q->type[0] = firsts[f];
        for (int k = 1; k < q->n_in; k++) {
          const DType t = others[k == 1 ? x : y];
          q->type[k] = t == DT_NONE ? firsts[f] : t;
        }
        if (passes(q, 2)) return true;
        if (q->n_in <= 2) break;
      }
  return false;
}

/* ---- as text ---- */
static const char *class_text(Arena *a, TypeSet set, DClass cls, const char *name) {
  TypeSet all = 0;
  for (int t = 1; t < DT_COUNT; t++)
    if (dtype_rows[t].cls == cls) all |= (TypeSet)1 << t;
  if ((set & all) == 0) return "";
  if ((set & all) == all) return arena_printf(a, " %s", name);
  StrBuf b = {.arena = a};
  for (int t = 1; t < DT_COUNT; t++)
    if ((set & all) >> t & 1) sb_printf(&b, " %s", dtype_rows[t].text);
  return sb_str(&b);
}

/* Of all examples of the operator. */
static TypeSet example_types(Arena *a, const OpRow *r) {
  TypeSet set = 0;
  Probe q = {.row = r};
  for (size_t k = 0; k < sizeof examples / sizeof *examples; k++) {
    if (strcmp(examples[k].domain, r->domain) != 0 || strcmp(examples[k].name, r->name) != 0)
      continue;
    const int asked = example_begin(a, &q, &examples[k]);
    if (q.n_in && passes(&q, 1)) set |= types_of(&q, asked);
    for (int t = 1; t < DT_COUNT && !q.n_in; t++) {
      q.result = (DType)t;
      if (passes(&q, 1)) set |= (TypeSet)1 << t;
    }
  }
  return set;
}

const char *operator_types(Arena *a, const OpRow *r) {
  static const struct {
    DClass cls;
    const char *name;
  } classes[] = {{DC_BOOL, "bool"}, {DC_UINT, "u*"},    {DC_SINT, "i*"},
                 {DC_FLOAT, "f*"},  {DC_COMPLEX, "c*"}, {DC_STRING, "str"}};
  Probe q = {.row = r};
  TypeSet set = 0;
  if (r->body == OB_REGION || (r->flags & OF_ANYKIND)) return "all";
  set = example_types(a, r);
  for (q.n_in = r->min_in; !set && q.n_in <= MOST_TRIED && q.n_in <= r->min_in + 1; q.n_in++)
    for (int k = 0; !set && q.n_in > 0 && k < SHAPES * SIZES; k++) {
      q.shape = k % SHAPES;
      q.size = k / SHAPES;
      if (first_types(&q)) set = widest(&q);
    }
  StrBuf b = {.arena = a};
  for (size_t k = 0; k < sizeof classes / sizeof *classes; k++)
    sb_printf(&b, "%s", class_text(a, set, classes[k].cls, classes[k].name));
  return *sb_str(&b) ? sb_str(&b) + 1 : "–";
}
