/* The descriptor: BurinModel of runtime/abi.h as constant data, and NAME_info() that returns it. */
#include <string.h>

#include "codegen/entry/entry.h"

static Val const_global(Emit *c, Val init) {
  const Val g = LLVMAddGlobal(c->mod, LLVMTypeOf(init), "");
  LLVMSetInitializer(g, init);
  LLVMSetLinkage(g, LLVMPrivateLinkage);
  LLVMSetGlobalConstant(g, 1);
  return g;
}

Val const_text(Emit *c, const char *s) {
  if (!s) return LLVMConstNull(c->ptr);
  const Val g = const_global(c, LLVMConstStringInContext2(c->ctx, s, strlen(s), 0));
  LLVMSetUnnamedAddress(g, LLVMGlobalUnnamedAddr);
  return g;
}

Val const_array(Emit *c, Type t, Val *items, int n) {
  if (n == 0) return LLVMConstNull(c->ptr);
  return const_global(c, LLVMConstArray2(t, items, (uint64_t)n));
}

static Val dims_of(Emit *c, const Program *p, const Value *v) {
  Val *const k = ARENA_ARRAY(c->arena, Val, v->rank + 1);
  for (int i = 0; i < v->rank; i++) {
    int64_t n;
    const int sym = v->dims[i]->op == EX_SYM ? program_symbol(p, v->dims[i]->id) : -1;
    k[i] = ki64(c, expr_is_const(v->dims[i], &n) ? n : sym >= 0 ? -1 - (int64_t)sym : INT64_MIN);
  }
  return const_array(c, c->i64, k, v->rank > 0 ? v->rank : 0);
}

static Val tensor_infos(Emit *c, const Program *p, bool outputs) {
  const Graph *const g = p->m->model->main;
  const int n = !g ? 0 : outputs ? g->outputs.n : g->inputs.n;
  const Type t = LLVMStructTypeInContext(
      c->ctx, (Type[]){c->ptr, c->i32, c->i32, c->ptr, c->ptr, c->f32, c->i32}, 7, 0);
  Val *const items = ARENA_ARRAY(c->arena, Val, n + 1);
  for (int i = 0; i < n; i++) {
    const Value *const v = outputs ? g->outputs.data[i] : g->inputs.data[i];
    const char *const name = outputs ? program_output_name(p, i) : program_input_name(p, i);
    Val f[7] = {const_text(c, name),
                ki32(c, dtype_rows[v->dtype].onnx),
                ki32(c, v->rank > 0 ? v->rank : 0),
                dims_of(c, p, v),
                const_text(c, program_io_text(p, i, outputs)),
                LLVMConstReal(c->f32, 0),
                ki32(c, 0)};
    items[i] = LLVMConstStructInContext(c->ctx, f, 7, 0);
  }
  return const_array(c, t, items, n);
}

static Val keys_of(Emit *c, Type t, const ConstData *keys) {
  const Val null = LLVMConstNull(c->ptr);
  if (!keys) return LLVMConstNull(t);
  Val *const items = ARENA_ARRAY(c->arena, Val, keys->count + 1);
  const bool texts = keys->dtype == DT_STR;
  for (int64_t i = 0; i < keys->count; i++)
    items[i] =
        texts ? const_text(c, ((const char *const *)keys->data)[i]) : ki64(c, const_int(keys, i));
  const Val list = const_array(c, texts ? c->ptr : c->i64, items, (int)keys->count);
  Val f[3] = {ki64(c, keys->count), texts ? null : list, texts ? list : null};
  return LLVMConstStructInContext(c->ctx, f, 3, 0);
}

static Val output_keys(Emit *c, const Program *p) {
  const Graph *const g = p->m->model->main;
  const int n = g ? g->outputs.n : 0;
  const Type t = LLVMStructTypeInContext(c->ctx, (Type[]){c->i64, c->ptr, c->ptr}, 3, 0);
  Val *const items = ARENA_ARRAY(c->arena, Val, n + 1);
  bool any = false;
  for (int i = 0; i < n; i++) {
    const ConstData *const keys = graph_output_keys(g, i);
    items[i] = keys_of(c, t, keys);
    any |= keys != NULL;
  }
  return any ? const_array(c, t, items, n) : LLVMConstNull(c->ptr);
}

static Val list_infos(Emit *c, const Program *p, bool outputs) {
  const Graph *const g = p->m->model->main;
  const int n = !g        ? 0
                : outputs ? g->output_lists.n
                          : g->input_lists.n,
            all = !g        ? 0
                  : outputs ? g->outputs.n
                            : g->inputs.n;
  const Type t = LLVMStructTypeInContext(c->ctx, (Type[]){c->i32, c->i32, c->i32, c->ptr}, 4, 0);
  Val *const items = ARENA_ARRAY(c->arena, Val, all + 1);
  for (int i = 0; i < all; i++) {
    const ListType *const l = graph_list(g, i, outputs);
    Val dims[MAX_RANK];
    items[i] = LLVMConstNull(t);
    if (!l) continue;
    for (int d = 0; d < l->rank; d++) dims[d] = ki64(c, l->dims[d]);
    Val f[4] = {ki32(c, l->kind), ki32(c, dtype_rows[l->dtype].onnx), ki32(c, l->rank),
                const_array(c, c->i64, dims, l->rank > 0 ? l->rank : 0)};
    items[i] = LLVMConstStructInContext(c->ctx, f, 4, 0);
  }
  return n ? const_array(c, t, items, all) : LLVMConstNull(c->ptr);
}

static Val in_place_infos(Emit *c, const Program *p) {
  const Model *const m = p->m->model;
  const Type t = LLVMStructTypeInContext(c->ctx, (Type[]){c->i32, c->i32, c->i32, c->i64}, 4, 0);
  Val *const items = ARENA_ARRAY(c->arena, Val, m->in_place.n + 1);
  for (int i = 0; i < m->in_place.n; i++) {
    const InPlace *const x = &m->in_place.data[i];
    Val f[4] = {ki32(c, x->input), ki32(c, x->output), ki32(c, x->axis), ki64(c, x->room)};
    items[i] = LLVMConstStructInContext(c->ctx, f, 4, 0);
  }
  return m->in_place.n ? const_array(c, t, items, m->in_place.n) : LLVMConstNull(c->ptr);
}

static Val initial_of(Emit *c, const Program *p, const StateItem *s) {
  const int64_t at = p->weights.offset[p->m->inputs.data[s->input]];
  return s->initial ? LLVMConstGEP2(c->i8, weights_pointer(c, p), (Val[]){ki64(c, at)}, 1)
                    : LLVMConstNull(c->ptr);
}

static Val state_infos(Emit *c, const Program *p) {
  const Model *const m = p->m->model;
  const Type t = LLVMStructTypeInContext(
      c->ctx, (Type[]){c->ptr, c->i32, c->i32, c->i32, c->i64, c->i64, c->ptr}, 7, 0);
  Val *const items = ARENA_ARRAY(c->arena, Val, m->state.n + 1);
  for (int i = 0; i < m->state.n; i++) {
    const StateItem *const s = &m->state.data[i];
    Val f[7] = {const_text(c, s->name), ki32(c, s->kind),  ki32(c, s->input),  ki32(c, s->output),
                ki64(c, s->offset),     ki64(c, s->bytes), initial_of(c, p, s)};
    items[i] = LLVMConstStructInContext(c->ctx, f, 7, 0);
  }
  return const_array(c, t, items, m->state.n);
}

static Val kernel_infos(Emit *c, const Program *p) {
  const Type t = LLVMStructTypeInContext(c->ctx, (Type[]){c->ptr, c->ptr, c->i64}, 3, 0);
  Val *const items = ARENA_ARRAY(c->arena, Val, p->calls.n + 1);
  for (int i = 0; i < p->calls.n; i++) {
    const Step *const s = p->calls.data[i];
    const bool kernel = s->kind == STEP_KERNEL;
    const Loc *const loc = s->loc ? s->loc : kernel ? s->call.kernel->loc : NULL;
    int64_t flops = 0;
    if (kernel && s->call.kernel->flops) (void)expr_is_const(s->call.kernel->flops, &flops);
    Val f[3] = {const_text(c, kernel ? s->call.kernel->name : s->ext.row->symbol),
                const_text(c, program_node_list(c->arena, loc)), ki64(c, flops)};
    items[i] = LLVMConstStructInContext(c->ctx, f, 3, 0);
  }
  return const_array(c, t, items, p->calls.n);
}

static Val check_infos(Emit *c, const Program *p) {
  const Type t = LLVMStructTypeInContext(c->ctx, (Type[]){c->ptr, c->ptr, c->i32}, 3, 0);
  Val *const items = ARENA_ARRAY(c->arena, Val, p->checks->n + 1);
  for (int i = 0; i < p->checks->n; i++) {
    const Check *const row = &p->checks->data[i];
    Val f[3] = {const_text(c, row->text), const_text(c, row->node), ki32(c, row->status)};
    items[i] = LLVMConstStructInContext(c->ctx, f, 3, 0);
  }
  return const_array(c, t, items, p->checks->n);
}

static Val symbol_names(Emit *c, const Program *p) {
  Val *const items = ARENA_ARRAY(c->arena, Val, p->n_symbols + 1);
  for (int i = 0; i < p->n_symbols; i++)
    items[i] = const_text(c, expr_symbol(c->pool, p->symbols[i])->name);
  return const_array(c, c->ptr, items, p->n_symbols);
}

Val weights_pointer(Emit *c, const Program *p) {
  if (!p->weights.bytes) return LLVMConstNull(c->ptr);
  return hidden_bytes(c, arena_printf(c->arena, "%s_weights", p->name));
}

/* NAME_defaults: BurinDefault of each input. */
void emit_defaults(Emit *c, const Program *p) {
  const int n = p->m->inputs.n;
  const Type t = LLVMStructTypeInContext(c->ctx, (Type[]){c->ptr, c->ptr, c->i64}, 3, 0);
  Val *const items = ARENA_ARRAY(c->arena, Val, n + 1);
  for (int i = 0; p->defaults && i < n; i++) {
    const Buffer *const b = &p->m->buffers.data[p->m->inputs.data[i]];
    items[i] = LLVMConstNull(t);
    if (!program_default(p, i)) continue;
    Val *const k = ARENA_ARRAY(c->arena, Val, b->data->rank + 1);
    for (int d = 0; d < b->data->rank; d++) k[d] = ki64(c, b->data->dims[d]);
    Val f[3] = {
        LLVMConstGEP2(c->i8, weights_pointer(c, p), (Val[]){ki64(c, p->weights.offset[b->id])}, 1),
        const_array(c, c->i64, k, b->data->rank),
        ki64(c, b->pinned ? b->data->count * dtype_bytes(b->dtype) : 0)};
    items[i] = LLVMConstStructInContext(c->ctx, f, 3, 0);
  }
  if (!p->defaults) return;
  const Val init = LLVMConstArray2(t, items, (uint64_t)n);
  const Val g =
      LLVMAddGlobal(c->mod, LLVMTypeOf(init), arena_printf(c->arena, "%s_defaults", p->name));
  LLVMSetInitializer(g, init);
  LLVMSetGlobalConstant(g, 1);
  LLVMSetVisibility(g, LLVMHiddenVisibility);
}

/* NAME_map_weights(path): not exported, in the descriptor. */
static Val map_weights(Emit *c, const Program *p, Val info) {
  if (!p->weights.external) return LLVMConstNull(c->ptr);
  const Val fn = LLVMAddFunction(c->mod, arena_printf(c->arena, "%s_map_weights", p->name),
                                 LLVMFunctionType(c->i32, &c->ptr, 1, 0));
  fn_attr(c, fn, "nounwind", 0);
  LLVMSetVisibility(fn, LLVMHiddenVisibility);
  LLVMPositionBuilderAtEnd(c->b, LLVMAppendBasicBlockInContext(c->ctx, fn, "entry"));
  Type type;
  const Val callee = declare(c, "burin_rt_map_weights", c->i32, 2, (Type[]){c->ptr, c->ptr}, &type);
  const Val model = LLVMBuildCall2(c->b, LLVMGlobalGetValueType(info), info, NULL, 0, "");
  LLVMBuildRet(c->b,
               LLVMBuildCall2(c->b, type, callee, (Val[]){model, LLVMGetParam(fn, 0)}, 2, ""));
  return fn;
}

/* sizeof(BurinModel) on the target, by its fields: 'p' pointer, '4', '8'. */
static int64_t size_on(const Target *t, const char *fields) {
  const int pointer = t->pointer_bits / 8;
  int64_t at = 0;
  for (; *fields; fields++) {
    const int64_t n = *fields == 'p' ? pointer : *fields - '0';
    at = (at + n - 1) / n * n + n;
  }
  return (at + 7) / 8 * 8;
}

/* NAME_failure_text(failure, text, size): the runtime's, for this model. */
static void failure_text_body(Emit *c, Val fn, Val model) {
  Type type;
  const Val write = declare(c, "burin_rt_failure_text", c->i32, 4,
                            (Type[]){c->ptr, c->ptr, c->ptr, c->i32}, &type);
  Val args[4] = {model, LLVMGetParam(fn, 0), LLVMGetParam(fn, 1), LLVMGetParam(fn, 2)};
  LLVMBuildRet(c->b, LLVMBuildCall2(c->b, type, write, args, 4, ""));
}

static Val heap_outputs(Emit *c, const Program *p) {
  Val *const k = ARENA_ARRAY(c->arena, Val, p->m->outputs.n + 1);
  for (int i = 0; i < p->m->outputs.n; i++)
    k[i] = k_int(c, c->i8, p->m->buffers.data[p->m->outputs.data[i]].kind == BUF_HEAP);
  return const_array(c, c->i8, k, p->heap_outputs ? p->m->outputs.n : 0);
}

void emit_info(Emit *c, const Program *p, const EntryFns *fns) {
  const Module *const m = p->m;
  int64_t arena, further;
  const bool fixed = program_caller_arena(p, &arena, &further);
  const int n_in = m->inputs.n, n_out = m->outputs.n;
  const Val fn = LLVMAddFunction(c->mod, arena_printf(c->arena, "%s_info", p->name),
                                 LLVMFunctionType(c->ptr, NULL, 0, 0));
  fn_attr(c, fn, "nounwind", 0);
  const Val failure_text =
      begin_function(c, arena_printf(c->arena, "%s_failure_text", p->name),
                     LLVMFunctionType(c->i32, (Type[]){c->ptr, c->ptr, c->i32}, 3, 0), true);
  const LLVMBasicBlockRef failure_start = LLVMGetInsertBlock(c->b);
  Val f[] = {ki32(c, BURIN_ABI_VERSION),
             ki32(c, size_on(p->t, "44ppppp4444ppp8844884p8ppppp8p4ppp4pp4pppp48")),
             const_text(c, p->name),
             const_text(c, "burin"),
             const_text(c, p->t->name),
             const_text(c, p->o->flags ? p->o->flags : ""),
             const_text(c, p->o->model_hash ? p->o->model_hash : ""),
             ki32(c, n_in),
             ki32(c, n_out),
             ki32(c, p->n_symbols),
             ki32(c, p->n_caller),
             tensor_infos(c, p, false),
             tensor_infos(c, p, true),
             symbol_names(c, p),
             ki64(c, fixed ? arena : 0),
             ki64(c, fixed ? further : 0),
             ki32(c, p->arena_align),
             ki32(c, m->max_threads > 1 ? m->max_threads : 1),
             ki64(c, p->weights.bytes),
             ki64(c, m->arena_lower_bound > 0 ? m->arena_lower_bound : 0),
             ki32(c, p->calls.n),
             kernel_infos(c, p),
             ki64(c, (int64_t)program_cpu_features(p)),
             fns->invoke,
             fns->arena_size,
             fns->output_dims,
             weights_pointer(c, p),
             const_text(c, p->weights.file),
             ki64(c, (int64_t)p->weights.hash),
             map_weights(c, p, fn),
             ki32(c, p->checks->n),
             check_infos(c, p),
             failure_text,
             p->defaults ? hidden_bytes(c, arena_printf(c->arena, "%s_defaults", p->name))
                         : LLVMConstNull(c->ptr),
             ki32(c, p->uses_heap),
             output_keys(c, p),
             in_place_infos(c, p),
             ki32(c, m->model->in_place.n),
             heap_outputs(c, p),
             list_infos(c, p, false),
             list_infos(c, p, true),
             state_infos(c, p),
             ki32(c, m->model->state.n),
             ki64(c, m->model->state_bytes)};
  const Val init = LLVMConstStructInContext(c->ctx, f, sizeof f / sizeof *f, 0);
  const Val g =
      LLVMAddGlobal(c->mod, LLVMTypeOf(init), arena_printf(c->arena, "%s_model", p->name));
  LLVMSetInitializer(g, init);
  LLVMSetGlobalConstant(g, 1);
  LLVMSetVisibility(g, LLVMHiddenVisibility);
  LLVMPositionBuilderAtEnd(c->b, failure_start);
  failure_text_body(c, failure_text, g);
  LLVMPositionBuilderAtEnd(c->b, LLVMAppendBasicBlockInContext(c->ctx, fn, "entry"));
  LLVMBuildRet(c->b, g);
}
