/* Whole texts of programs: the model's line, assumptions, the module (loop_text.c, loop_parse.c), and
 * the data of its constants. What is read is checked for all that codegen relies on. */
#include "ir/loop/loop.h"
#include "ir/text/frame.h"

/* ---- printing ---- */
/* Data of buffers, by number. */
static ConstList constants(const Module *m, Arena *scratch) {
  int n = 0;
  ConstList l = {0};
  for (int i = 0; i < m->buffers.n; i++) {
    const ConstData *c = m->buffers.data[i].data;
    if (c && c->id >= n) n = c->id + 1;
  }
  const ConstData **of = ARENA_ARRAY(scratch, const ConstData *, n + 1);
  for (int i = 0; i < m->buffers.n; i++)
    if (m->buffers.data[i].data) of[m->buffers.data[i].data->id] = m->buffers.data[i].data;
  for (int i = 0; i < n; i++)
    if (of[i]) vec_push(scratch, &l, of[i]);
  return l;
}

/* What regions assume, their steps check. */
static void print_program(const Module *m, StrBuf *b) {
  const Model *model = m->model;
  frame_head(model, b);
  for (int i = 0; i < model->assumes.n; i++)
    if (assume_at_entry(model, &model->assumes.data[i]))
      frame_assume(model, &model->assumes.data[i], b);
  frame_in_place(model, b);
  module_print(m, b);
}

void program_print(const Module *m, StrBuf *b, bool with_consts) {
  Arena *scratch = arena_child(m->model->arena);
  const ConstList l = constants(m, scratch);
  print_program(m, b);
  frame_data(m->model, &l, with_consts, b);
  arena_free(scratch);
}

void program_print_beside(const Module *m, StrBuf *b, TextStore *store, const char *name) {
  Arena *scratch = arena_child(m->model->arena);
  const ConstList l = constants(m, scratch);
  print_program(m, b);
  frame_data_beside(m->model, &l, store, name, b);
  arena_free(scratch);
}

int64_t program_text_bytes(const Module *m) {
  Arena *scratch = arena_child(m->model->arena);
  const ConstList l = constants(m, scratch);
  const int64_t bytes = frame_data_bytes(&l);
  arena_free(scratch);
  return bytes;
}

/* ---- parsing ---- */
/* The type of a constant whose data are nowhere is that of its buffer. */
static bool type_constant(TextParser *x, const Buffer *b) {
  Value v = {.kind = TY_TENSOR, .dtype = b->dtype, .rank = 1, .dims = (const Expr *[]){b->count}};
  return !b->data || b->data->dtype != DT_NONE ||
         frame_const_type(x, x->m->consts.data[b->data->id], &v);
}

/* A value of the interface and its buffer: of one type, and as many elements. */
static bool fits(const Module *m, const Buffer *b, const Value *v) {
  return b->dtype == v->dtype && value_count(m->model->pool, v) == b->count;
}

static bool default_fits(const Buffer *b, const Value *v) {
  if (!b->data) return true;
  if (b->data->dtype != v->dtype || b->data->rank != v->rank) return false;
  for (int d = 0; d < v->rank; d++)
    if (v->dims[d]->op == EX_CONST && !expr_is_i64(v->dims[d], b->data->dims[d])) return false;
  return true;
}

static const Value *room_of(Model *m, const InPlace *cache, const Value *v) {
  Value *room = ARENA_NEW(m->arena, Value);
  *room = (Value){.dtype = v->dtype, .rank = v->rank};
  room->dims = in_place_dims(m->arena, m->pool, cache, v);
  return room;
}

static bool check_interface(TextParser *x, Module *m, bool outputs) {
  const Graph *g = x->m->main;
  const int n = outputs ? m->outputs.n : m->inputs.n;
  if ((outputs ? g->outputs.n : g->inputs.n) != n)
    return tok_fail(x, "inputs and outputs of a program have types: `b0 : f32[2] \"x\"`");
  for (int i = 0; i < x->m->in_place.n; i++)
    if (x->m->in_place.data[i].input >= m->inputs.n ||
        x->m->in_place.data[i].output >= m->outputs.n)
      return tok_fail(x, "in_place names an input or output that is not there");
  for (int i = 0; i < n; i++) {
    const int id = outputs ? m->outputs.data[i] : m->inputs.data[i];
    const Buffer *b = &m->buffers.data[id];
    Value *v = outputs ? g->outputs.data[i] : g->inputs.data[i];
    const bool kind = outputs ? b->kind == BUF_OUTPUT || b->kind == BUF_HEAP : b->kind == BUF_INPUT;
    if (!kind || b->index != i)
      return tok_fail(x, "b%d is not %s %d", id, outputs ? "output" : "input", i);
    const InPlace *const cache = outputs ? model_output_in_place(x->m, i) : NULL;
    if (!fits(m, b, cache ? room_of(x->m, cache, v) : v) || !default_fits(b, v))
      return tok_fail(x, "type or size of b%d differ from those in the interface", id);
    if (!b->data) continue;
    v->init = value_const(x->m, x->m->consts.data[b->data->id]);
    v->pinned = b->pinned;
  }
  return true;
}

/* Every input and output has its place in the interface, and weights have the size of their data. */
static bool check_buffers(TextParser *x, const Module *m) {
  int ends = 0;
  for (int i = 0; i < m->buffers.n; i++) {
    const Buffer *b = &m->buffers.data[i];
    ends += b->kind == BUF_INPUT || b->kind == BUF_OUTPUT || (b->kind == BUF_HEAP && b->index >= 0);
    if (b->kind != BUF_WEIGHT || !b->data) continue;
    if (b->data->dtype != b->dtype || !expr_is_i64(b->count, b->data->count))
      return tok_fail(x, "b%d and its data #%d differ in type or size", i, b->data->id);
  }
  return ends == m->inputs.n + m->outputs.n ||
         tok_fail(x, "inputs or outputs are missing in the interface");
}

static bool finish_program(TextParser *x, Module *m) {
  Model *const model = x->m;
  if (!model->main) model->main = graph_new(model, NULL, "main");
  for (int i = 0; i < m->buffers.n; i++)
    if (!type_constant(x, &m->buffers.data[i])) return false;
  if (!frame_fill_unread(x) || !check_buffers(x, m) || !check_interface(x, m, false) ||
      !check_interface(x, m, true))
    return false;
  model_find_state(model);
  if (model_bad_state(model))
    return tok_fail(x, "a tensor of the state does not fit the interface");
  diag_blame(model->diag, x->file);
  const bool ok = module_verify(m, NULL);
  diag_blame(model->diag, NULL);
  return ok;
}

static bool parse_program(TextParser *p, Module **m) {
  for (tok_skip(p); *p->s; tok_skip(p)) {
    const char *const at = p->s;
    bool ok;
    if (!frame_parse_part(p, &ok))
      ok = !tok_eat(p, "module")
               ? tok_fail(p,
                          "expected model, todo, assume, in_place, state, module, weights or data")
           : *m ? tok_fail(p, "a second module")
                : (p->s = at, (*m = module_parse_at(p)) != NULL);
    if (!ok) return false;
  }
  return *m ? finish_program(p, *m) : tok_fail(p, "no module");
}

Module *program_parse(Arena *a, Diag *d, const char *text, const char *file, TextDataFn data,
                      void *user) {
  TextParser p = text_parser(model_new(a, d), text, file);
  p.data = data;
  p.user = user;
  Module *m = NULL;
  p.m->file = file;
  return frame_number_symbols(&p) && parse_program(&p, &m) ? m : NULL;
}
