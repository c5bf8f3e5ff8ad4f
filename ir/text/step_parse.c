/* Parses the steps of a program: calls of kernels and runtime functions, copies, If, Loop, symbols. */
#include <string.h>
#include "ir/text/loop_parse.h"

static bool parse_step_block(LoopParser *t, Step **out) {
  if (!tok_expect(t->x, "{")) return false;
  if (++t->depth > MAX_DEPTH) return tok_fail(t->x, "blocks are nested too deep");
  const bool ok = loop_parse_steps(t, out);
  t->depth--;
  return ok;
}

static bool parse_call(LoopParser *t, Step **out) {
  const char *name = NULL;
  if (!tok_word(t->x, &name) || !tok_expect(t->x, "(")) return false;
  Step *s = *out = step_new(t->m, STEP_KERNEL, NULL);
  for (int i = 0; i < t->m->kernels.n; i++)
    if (strcmp(t->m->kernels.data[i]->name, name) == 0) s->call.kernel = t->m->kernels.data[i];
  if (!s->call.kernel) return tok_fail(t->x, "there is no kernel %s", name);
  Vec(BufRef) args = {0};
  while (!tok_eat(t->x, ")")) {
    BufRef r = {0};
    if ((args.n && !tok_expect(t->x, ",")) || !loop_parse_ref(t, &r)) return false;
    vec_push(t->a, &args, r);
  }
  s->call.args = args.data;
  s->call.n_args = args.n;
  return true;
}

static bool parse_tensor(LoopParser *t, TensorRef *r) {
  *r = (TensorRef){.buf = {.buffer = -1}};
  if (tok_eat(t->x, "-")) return true;
  Vec(const Expr *) dims = {0};
  if (!loop_parse_dtype(t, &r->dtype) || !tok_expect(t->x, "[")) return false;
  while (!tok_eat(t->x, "]")) {
    const Expr *e = NULL;
    if ((dims.n && !tok_expect(t->x, ",")) || !loop_parse_size(t, &e)) return false;
    vec_push(t->a, &dims, e);
  }
  if (dims.n > MAX_RANK) return tok_fail(t->x, "too many dimensions");
  r->rank = dims.n;
  r->dims = dims.data;
  return loop_parse_ref(t, &r->buf);
}

static bool parse_tensors(LoopParser *t, const TensorRef **out, int *n) {
  Vec(TensorRef) v = {0};
  if (!tok_expect(t->x, "(")) return false;
  while (!tok_eat(t->x, ")")) {
    TensorRef r = {0};
    if ((v.n && !tok_expect(t->x, ";")) || !parse_tensor(t, &r)) return false;
    vec_push(t->a, &v, r);
  }
  *out = v.data;
  *n = v.n;
  return true;
}

static bool parse_words(LoopParser *t, Step *s) {
  Vec(int64_t) v = {0};
  if (!tok_expect(t->x, "words") || !tok_expect(t->x, "{")) return false;
  while (!tok_eat(t->x, "}")) {
    int64_t w = 0;
    if ((v.n && !tok_expect(t->x, ",")) || !loop_parse_int(t, &w)) return false;
    vec_push(t->a, &v, w);
  }
  s->ext.words = v.data;
  s->ext.n_words = v.n;
  return true;
}

static const ExternRow *find_extern(const char *symbol) {
  for (int i = 0; i < op_row_count; i++)
    if (op_rows[i].ext && strcmp(op_rows[i].ext->symbol, symbol) == 0) return op_rows[i].ext;
  return NULL;
}

static bool parse_extern(LoopParser *t, Step **out) {
  const char *name = NULL;
  Step *s = *out = step_new(t->m, STEP_EXTERN, NULL);
  if (!tok_word(t->x, &name)) return false;
  s->ext.row = find_extern(name);
  if (!s->ext.row) return tok_fail(t->x, "there is no runtime function %s", name);
  if (!parse_tensors(t, &s->ext.ins, &s->ext.n_ins) || !tok_expect(t->x, "->") ||
      !parse_tensors(t, &s->ext.outs, &s->ext.n_outs))
    return false;
  return parse_words(t, s) &&
         (!tok_eat(t->x, "scratch") || loop_parse_id(t, 'b', t->m->buffers.n, &s->ext.scratch));
}

static bool parse_copy(LoopParser *t, Step **out) {
  Step *s = *out = step_new(t->m, STEP_COPY, NULL);
  return loop_parse_ref(t, &s->copy.src) && tok_expect(t->x, "->") &&
         loop_parse_ref(t, &s->copy.dst) && tok_expect(t->x, "count") &&
         loop_parse_size(t, &s->copy.count);
}

static bool parse_if_step(LoopParser *t, Step **out) {
  Step *s = *out = step_new(t->m, STEP_IF, NULL);
  return loop_parse_ref(t, &s->branch.cond) && loop_parse_loc(t, &s->loc) &&
         parse_step_block(t, &s->branch.then) &&
         (!tok_eat(t->x, "else") || parse_step_block(t, &s->branch.otherwise));
}

static bool parse_loop_step(LoopParser *t, Step **out) {
  Step *s = *out = step_new(t->m, STEP_LOOP, NULL);
  if (!tok_expect(t->x, "cond") || !loop_parse_ref(t, &s->loop.cond)) return false;
  if (tok_eat(t->x, "iter") && !loop_parse_symbol(t, &s->loop.iter)) return false;
  if (tok_eat(t->x, "trips") && !loop_parse_symbol(t, &s->loop.trips)) return false;
  if (tok_eat(t->x, "limit") && !loop_parse_size(t, &s->loop.trip)) return false;
  return loop_parse_loc(t, &s->loc) && parse_step_block(t, &s->loop.body);
}

static bool parse_sym_step(LoopParser *t, Step **out) {
  Step *s = *out = step_new(t->m, STEP_SYM, NULL);
  if (!loop_parse_symbol(t, &s->sym.id)) return false;
  if (tok_eat(t->x, "from") ? !loop_parse_ref(t, &s->sym.src)
                            : !tok_expect(t->x, "=") || !loop_parse_size(t, &s->sym.value))
    return false;
  if (tok_eat(t->x, "length"))
    s->sym.index = IX_LENGTH;
  else if (tok_eat(t->x, "index"))
    s->sym.index = tok_eat(t->x, "positive") ? IX_FROM_0 : IX_WRAPS;
  return (!tok_eat(t->x, "min") || loop_parse_size(t, &s->sym.lo)) &&
         (!tok_eat(t->x, "max") || loop_parse_size(t, &s->sym.hi));
}

static bool parse_check_step(LoopParser *t, Step **out) {
  DimAssume *x = &(*out = step_new(t->m, STEP_CHECK, NULL))->check;
  for (x->kind = ASSUME_EQUAL; x->kind <= ASSUME_MULTIPLE; x->kind++)
    if (tok_eat(t->x, assume_name(x->kind)))
      return loop_parse_size(t, &x->a) && tok_expect(t->x, ",") && loop_parse_size(t, &x->b) &&
             loop_parse_name(t, &x->what);
  return tok_fail(t->x, "expected the kind of a check");
}

static bool parse_room_step(LoopParser *t, Step **out) {
  Step *s = *out = step_new(t->m, STEP_ROOM, NULL);
  return loop_parse_id(t, 'b', t->m->buffers.n, &s->room.buffer) && tok_expect(t->x, "count") &&
         loop_parse_size(t, &s->room.count) &&
         (!tok_eat(t->x, "keep") || loop_parse_size(t, &s->room.keep));
}

static bool parse_step(LoopParser *t, Step **out) {
  if (tok_eat(t->x, "call")) return parse_call(t, out);
  if (tok_eat(t->x, "extern")) return parse_extern(t, out);
  if (tok_eat(t->x, "copy")) return parse_copy(t, out);
  if (tok_eat(t->x, "if")) return parse_if_step(t, out);
  if (tok_eat(t->x, "loop")) return parse_loop_step(t, out);
  if (tok_eat(t->x, "sym")) return parse_sym_step(t, out);
  if (tok_eat(t->x, "check")) return parse_check_step(t, out);
  if (tok_eat(t->x, "room")) return parse_room_step(t, out);
  return tok_fail(t->x, "expected a step");
}

bool loop_parse_steps(LoopParser *t, Step **out) {
  while (!tok_eat(t->x, "}")) {
    if (!parse_step(t, out) || !loop_parse_loc(t, &(*out)->loc)) return false;
    if ((*out)->kind == STEP_KERNEL && !(*out)->loc) (*out)->loc = (*out)->call.kernel->loc;
    out = &(*out)->next;
  }
  return true;
}
