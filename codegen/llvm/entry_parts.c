/* Long lists of steps are cut into functions: what LLVM does to a function grows faster than the
 * function. A part gets a frame of what the entry knows (arguments, symbols, scratch) and returns a
 * status. */
#include "codegen/llvm/entry.h"

enum { PART = 32 }; /* steps of a function, those inside of conditions and loops included */

/* Steps of s; from PART on there may be more. */
static int weight(const Step *s) {
  int n = 1;
  for (int k = 0; k < 2; k++)
    for (const Step *t = k ? step_otherwise(s) : step_body(s); t && n < PART; t = t->next)
      n += weight(t);
  return n;
}

/* The first step that does not belong to the part that begins with s. */
static const Step *part_end(const Step *s) {
  int n = weight(s);
  for (s = s->next; s && (n += weight(s)) <= PART;) s = s->next;
  return s;
}

/* ---- the frame ---- */
enum { FRAME = 8 };

static void frame_values(Entry *e, Val **slot) {
  slot[0] = &e->in;
  slot[1] = &e->out;
  slot[2] = &e->arena;
  slot[3] = &e->opts;
  slot[4] = &e->scratch;
  slot[5] = &e->bufs;
  slot[6] = &e->c->sym_array;
  slot[7] = &e->scratch_stride;
}

static Type frame_type(Emit *c) {
  Type t[FRAME];
  for (int i = 0; i < FRAME; i++) t[i] = i < 7 ? c->ptr : c->i64;
  return LLVMStructTypeInContext(c->ctx, t, FRAME, 0);
}

/* Stored once, before the steps: nothing in it changes while they run. */
static void make_frame(Entry *e) {
  Emit *const c = e->c;
  Val *slot[FRAME];
  frame_values(e, slot);
  e->frame = entry_alloca(c, frame_type(c), 1, 8);
  for (int i = 0; i < FRAME; i++)
    LLVMBuildStore(c->b, *slot[i], field(c, frame_type(c), e->frame, i));
}

/* ---- parts ---- */
static Val emit_part(Entry *outer, const Step *s, const Step *end) {
  Emit *const c = outer->c;
  Entry e = *outer;
  const Val fn = begin_function(c, arena_printf(c->arena, "%s_part%d", e.p->name, (*e.parts)++),
                                LLVMFunctionType(c->i32, (Type[]){c->ptr}, 1, 0), false);
  LLVMSetVisibility(fn, LLVMDefaultVisibility);
  LLVMSetLinkage(fn, LLVMInternalLinkage);
  fn_attr(c, fn, "noinline", 0);
  e.frame = LLVMGetParam(fn, 0);
  Val *slot[FRAME];
  frame_values(&e, slot);
  for (int i = 0; i < FRAME; i++)
    *slot[i] = load(c, i < 7 ? c->ptr : c->i64, field(c, frame_type(c), e.frame, i));
  emit_steps(&e, s, end);
  LLVMBuildRet(c->b, k_int(c, c->i32, BURIN_OK));
  outer->call = e.call;
  outer->assigned = e.assigned;
  return fn;
}

static void call_part(Entry *e, const Step *s, const Step *end) {
  Emit *const c = e->c;
  const Val own_fn = c->fn, syms = c->sym_array;
  const LLVMBasicBlockRef own_entry = c->entry, here = LLVMGetInsertBlock(c->b);
  const Val part = emit_part(e, s, end);
  c->fn = own_fn;
  c->entry = own_entry;
  c->sym_array = syms;
  LLVMPositionBuilderAtEnd(c->b, here);
  emit_forget(c);
  pass_on_failure(c, LLVMBuildCall2(c->b, LLVMGlobalGetValueType(part), part, &e->frame, 1, ""));
}

void emit_step_list(Entry *e, const Step *s) {
  if (!s || !part_end(s)) {
    emit_steps(e, s, NULL);
    return;
  }
  while (s && !e->c->error) {
    const Step *const end = part_end(s);
    call_part(e, s, end);
    s = end;
  }
}

void emit_program_steps(Entry *e, const Step *s) {
  int parts = 0, n = 0;
  for (const Step *t = s; t && n < PART; t = t->next) n += weight(t);
  e->parts = &parts;
  if (n >= PART) make_frame(e);
  emit_step_list(e, s);
}
