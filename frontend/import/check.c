/* What can be said before anything is built: opset imports, model-local functions, and every
 * operator of the model that is not supported, all at once, with counts and places. */
#include <string.h>
#include "frontend/scope/scope.h"

const char *domain_normal(const char *d) { return !d || strcmp(d, "ai.onnx") == 0 ? "" : d; }

static const char *domain_shown(const char *d) { return *d ? d : "ai.onnx"; }

/* ---- opsets ---- */
bool opsets_read(Import *im, Onnx__OperatorSetIdProto *const *p, size_t n, const Loc *loc,
                 Opsets *out) {
  *out = (Opsets){0};
  if (n > 1000) return diag_error(im->d, loc, ERR_LIMIT, "%zu opset imports", n);
  out->domains = ARENA_ARRAY(im->scratch, const char *, n);
  out->versions = ARENA_ARRAY(im->scratch, int64_t, n);
  for (size_t k = 0; k < n; k++) {
    const char *domain = domain_normal(p[k]->domain);
    const int64_t v = p[k]->has_version ? p[k]->version : 0;
    if (v < 1)
      return diag_error(im->d, loc, ERR_OPSET, "opset %lld of %s is no version", (long long)v,
                        domain_shown(domain));
    const int64_t before = opsets_find(out, domain);
    if (before == v) continue; /* skl2onnx writes it twice */
    if (before)
      return diag_error(im->d, loc, ERR_OPSET, "opset of %s is imported twice: %lld and %lld",
                        domain_shown(domain), (long long)before, (long long)v);
    if (!*domain && v > NEWEST_OPSET) {
      diag_error(im->d, loc, ERR_OPSET, "opset %lld is newer than %d, the newest known one",
                 (long long)v, NEWEST_OPSET);
      return false;
    }
    if (!*domain && v < OLDEST_OPSET) {
      diag_error(im->d, loc, ERR_OPSET, "opset %lld is older than %d, the oldest that is read",
                 (long long)v, OLDEST_OPSET);
      diag_hint(im->d, "onnx.version_converter.convert_version(model, 13) makes a newer model");
      return false;
    }
    if (v > INT32_MAX)
      return diag_error(im->d, loc, ERR_OPSET, "opset %lld of %s is no version", (long long)v,
                        domain_shown(domain));
    out->domains[out->n] = domain;
    out->versions[out->n++] = v;
  }
  return true;
}

int64_t opsets_find(const Opsets *o, const char *domain) {
  for (int k = 0; k < o->n; k++)
    if (strcmp(o->domains[k], domain) == 0) return o->versions[k];
  return 0;
}

/* ---- functions ---- */
static const char *function_key(Arena *a, const char *domain, const char *name,
                                const char *overload) {
  return arena_printf(a, "%s\x1f%s\x1f%s", domain_normal(domain), name ? name : "",
                      overload ? overload : "");
}

Function *function_find(const Import *im, const Onnx__NodeProto *n) {
  if (im->functions.n == 0 || !n->op_type) return NULL;
  return strmap_get(&im->functions, function_key(im->scratch, n->domain, n->op_type, n->overload));
}

bool functions_read(Import *im, const Onnx__ModelProto *p) {
  for (size_t k = 0; k < p->n_functions; k++) {
    const Onnx__FunctionProto *f = p->functions[k];
    const Loc loc = {.file = im->path, .node = -1, .op = f->name, .domain = f->domain};
    const char *key = function_key(im->scratch, f->domain, f->name, f->overload);
    if (!f->name || !*f->name)
      return diag_error(im->d, &loc, ERR_UNDEFINED, "a function has no name");
    if (strmap_get(&im->functions, key))
      return diag_error(im->d, &loc, ERR_DUP_NAME, "function is defined twice");
    Function *fn = ARENA_NEW(im->scratch, Function);
    fn->proto = f;
    if (!opsets_read(im, f->opset_import, f->n_opset_import, &loc, &fn->opsets)) return false;
    strmap_put(im->scratch, &im->functions, key, fn);
  }
  return true;
}

/* ---- unsupported operators ---- */
enum { PLACES = 5, MAX_KINDS = 200 };
typedef struct Missing {
  Loc loc; /* of the first */
  bool no_opset;
  int count;
  const char *places[PLACES];
} Missing;

typedef struct Check {
  Import *im;
  StrMap kinds; /* "domain.op" → Missing */
  Vec(Missing *) list;
  int depth;
  bool ok;
} Check;

bool frontend_own_operator(int i, const char **domain, const char **name, const char **limit) {
  static const char *const own[][2] = {{"", "Constant"},
                                       {"", "SequenceMap"},
                                       {"ai.onnx.preview", "FlexAttention"},
                                       {"ai.onnx.preview.training", "Gradient"}};
  enum { N = sizeof own / sizeof *own };
  *limit = NULL;
  if (i < N) return *domain = own[i][0], *name = own[i][1], true;
  *domain = "ai.onnx.ml";
  if ((*name = map_operator(i -= N, limit))) return true;
  for (int k = 0; map_operator(k, limit); k++) i--;
  *limit = NULL;
  *domain = "";
  if ((*name = sequence_operator(i))) return true;
  return upgrade_gone(i - sequence_operators(), domain, name);
}

static bool is_supported(const char *domain, const char *op) {
  return (!*domain && strcmp(op, "Constant") == 0) || op_find(domain, op) ||
         upgrade_known(domain, op) || sequence_known(domain, op) || map_known(domain, op) ||
         flex_attention_known(domain, op) || gradient_known(domain, op);
}

static void add_missing(Check *c, const Loc *loc, bool no_opset) {
  Arena *a = c->im->scratch;
  const char *key = no_opset ? arena_printf(a, "%s", loc->domain)
                             : arena_printf(a, "%s\x1f%s", loc->domain, loc->op);
  Missing *m = strmap_get(&c->kinds, key);
  if (!m) {
    if (c->list.n == MAX_KINDS) return;
    m = ARENA_NEW(a, Missing);
    m->loc = *loc;
    m->no_opset = no_opset;
    strmap_put(a, &c->kinds, key, m);
    vec_push(a, &c->list, m);
  }
  if (m->count < PLACES) {
    StrBuf b = {.arena = a};
    if (loc->graph) sb_printf(&b, "%s: ", loc->graph);
    sb_printf(&b, "node %d", loc->node);
    if (loc->node_name && *loc->node_name) sb_printf(&b, " \"%s\"", loc->node_name);
    m->places[m->count] = sb_str(&b);
  }
  m->count++;
}

static bool check_nodes(Check *c, Onnx__NodeProto *const *nodes, size_t n, const Opsets *o,
                        const char *path);

static bool check_function(Check *c, Function *f, const Loc *loc) {
  if (f->state == 2) return true;
  if (f->state == 1) return diag_error(c->im->d, loc, ERR_CYCLE, "function calls itself");
  if (c->depth >= MAX_INLINE_DEPTH)
    return diag_error(c->im->d, loc, ERR_LIMIT, "functions call each other deeper than %d",
                      MAX_INLINE_DEPTH);
  f->state = 1;
  c->depth++;
  const char *path = arena_printf(c->im->scratch, "function %s", f->proto->name);
  const bool ok = check_nodes(c, f->proto->node, f->proto->n_node, &f->opsets, path);
  c->depth--;
  f->state = 2;
  return ok;
}

static bool check_node(Check *c, const Onnx__NodeProto *n, int index, const Opsets *o,
                       const char *path) {
  Loc loc = {.file = c->im->path,
             .graph = path,
             .node = index,
             .node_name = n->name,
             .op = n->op_type,
             .domain = domain_normal(n->domain)};
  if (!n->op_type || !*n->op_type)
    return diag_error(c->im->d, &loc, ERR_UNSUPPORTED_OP, "node has no operator");
  Function *f = function_find(c->im, n);
  if (f) return check_function(c, f, &loc);
  loc.opset = (int)opsets_find(o, loc.domain);
  if (loc.opset == 0)
    add_missing(c, &loc, true);
  else if (!is_supported(loc.domain, n->op_type))
    add_missing(c, &loc, false);
  for (size_t k = 0; k < n->n_attribute; k++) {
    const Onnx__GraphProto *g = n->attribute[k]->g;
    if (!g) continue;
    const char *below = arena_printf(c->im->scratch, "%.40s of node %d%s%s",
                                     n->attribute[k]->name ? n->attribute[k]->name : "graph", index,
                                     path ? " in " : "", path ? path : "");
    if (!check_nodes(c, g->node, g->n_node, o, below)) return false;
  }
  return true;
}

static bool check_nodes(Check *c, Onnx__NodeProto *const *nodes, size_t n, const Opsets *o,
                        const char *path) {
  if (n > MAX_NODES) {
    const Loc loc = {.file = c->im->path, .graph = path, .node = -1};
    return diag_error(c->im->d, &loc, ERR_LIMIT, "%zu nodes; the limit is %d", n, MAX_NODES);
  }
  for (size_t k = 0; k < n; k++)
    if (!check_node(c, nodes[k], (int)k, o, path)) return false;
  return true;
}

/* Operators that are left out for a reason; NULL: merely not there. */
static const char *why_not(const Loc *loc) {
  static const char *const searches[] = {"BeamSearch", "GreedySearch", "Sampling",
                                         "WhisperBeamSearch", NULL};
  if (strcmp(loc->domain, "com.microsoft") != 0) return NULL;
  for (int k = 0; searches[k]; k++)
    if (strcmp(searches[k], loc->op) == 0)
      return "the search over tokens is the caller's: compile the decoder that is in the attribute "
             "\"decoder\" as a model of its own, and call it once for each token";
  return NULL;
}

static void report(Check *c, const Missing *m) {
  Diag *d = c->im->d;
  if (m->no_opset)
    diag_error(d, &m->loc, ERR_OPSET, "the model imports no opset of domain %s",
               domain_shown(m->loc.domain));
  else
    diag_error(d, &m->loc, ERR_UNSUPPORTED_OP, "operator is not supported (%d node%s)", m->count,
               m->count == 1 ? "" : "s");
  if (!m->no_opset && why_not(&m->loc)) diag_note(d, "%s", why_not(&m->loc));
  for (int k = 1; k < m->count && k < PLACES; k++) diag_note(d, "also %s", m->places[k]);
  if (m->count > PLACES) diag_note(d, "and %d more", m->count - PLACES);
}

bool check_supported(Import *im, const Onnx__GraphProto *g, const Opsets *o) {
  Check c = {.im = im};
  if (!check_nodes(&c, g->node, g->n_node, o, NULL)) return false;
  for (int k = 0; k < c.list.n; k++) report(&c, c.list.data[k]);
  return c.list.n == 0;
}
