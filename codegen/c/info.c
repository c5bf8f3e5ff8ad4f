/* The descriptor (BurinModel of runtime/abi.h), defaults of inputs, and the weights as arrays. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "codegen/c/c.h"
#include "runtime/abi.h"

static const char *text(const Program *p, const char *s) { return c_string(p->arena, s); }

/* ---- weights ---- */
static int64_t data_bytes(const ConstData *d) { return d->count * dtype_bytes(d->dtype); }

static int slot_of(const Program *p, int64_t offset) {
  int lo = 0, hi = p->weights.slots.n - 1;
  while (lo < hi) {
    const int mid = (lo + hi + 1) / 2;
    if (p->weights.slots.data[mid].offset <= offset)
      lo = mid;
    else
      hi = mid - 1;
  }
  return lo;
}

static const char *weight(const Program *p, int buffer) {
  return arena_printf(p->arena, "%s_weights.w%d", p->name, slot_of(p, p->weights.offset[buffer]));
}
const char *c_weight(CText *c, int buffer) { return weight(c->p, buffer); }

/* Words of the elements' size: half the text of bytes, and no literal is rounded. */
static int word_bytes(const ConstData *d) {
  const int n = dtype_bytes(d->dtype);
  return n > 8 ? 8 : n;
}

static void write_words(const ConstData *d, FILE *f) {
  const int size = word_bytes(d);
  const int64_t n = data_bytes(d) / size;
  const unsigned char *at = (const unsigned char *)d->data;
  if (n == 0) fputs("0", f);
  for (int64_t i = 0; i < n; i++, at += size) {
    uint64_t word = 0;
    memcpy(&word, at, (size_t)size);
    if (word < 10)
      putc((int)('0' + word), f);
    else
      fprintf(f, "0x%" PRIx64, word);
    putc(i % 16 == 15 ? '\n' : ',', f);
    if (i % 16 == 15 && i + 1 < n) putc(',', f);
  }
}

/* One struct, so that the descriptor can name all bytes; places are multiples of 64. */
void c_write_weights(const Program *p, FILE *f) {
  const WeightLayout *const w = &p->weights;
  if (!w->bytes) return;
  fprintf(f, "\n/* ---- weights ---- */\nstatic const struct %s_weights {\n", p->name);
  for (int i = 0; i < w->slots.n; i++) {
    const ConstData *const d = w->slots.data[i].data;
    const int64_t bytes = data_bytes(d) > 0 ? data_bytes(d) : word_bytes(d);
    const int64_t next = i + 1 < w->slots.n ? w->slots.data[i + 1].offset : w->bytes;
    const int64_t gap = next - w->slots.data[i].offset - bytes;
    fprintf(f, "  uint%d_t w%d[%" PRId64 "];\n", 8 * word_bytes(d), i, bytes / word_bytes(d));
    if (gap) fprintf(f, "  uint8_t gap%d[%" PRId64 "];\n", i, gap);
  }
  fprintf(f, "} %s_weights = {\n", p->name);
  for (int i = 0; i < w->slots.n; i++) {
    const ConstData *const d = w->slots.data[i].data;
    const int64_t bytes = data_bytes(d) > 0 ? data_bytes(d) : word_bytes(d);
    const int64_t next = i + 1 < w->slots.n ? w->slots.data[i + 1].offset : w->bytes;
    fputs("{", f);
    write_words(d, f);
    fputs("},\n", f);
    if (next - w->slots.data[i].offset - bytes) fputs("{0},\n", f);
  }
  fputs("};\n", f);
}

/* ---- defaults ---- */
static void dims_array(const Program *p, StrBuf *out, const char *name, int k, const int64_t *dims,
                       int rank) {
  if (rank <= 0) return;
  sb_printf(out, "static const int64_t %s_%s%d[] = {", p->name, name, k);
  for (int i = 0; i < rank; i++) {
    if (dims[i] == INT64_MIN)
      sb_printf(out, "%sINT64_MIN", i ? ", " : "");
    else
      sb_printf(out, "%s%" PRId64, i ? ", " : "", dims[i]);
  }
  sb_printf(out, "};\n");
}

static const char *dims_name(const Program *p, const char *name, int k, int rank) {
  return rank <= 0 ? "NULL" : arena_printf(p->arena, "%s_%s%d", p->name, name, k);
}

void c_defaults(CState *s, StrBuf *out) {
  const Program *const p = s->p;
  const Module *const m = p->m;
  if (!p->defaults) return;
  for (int i = 0; i < m->inputs.n; i++) {
    const Buffer *const b = &m->buffers.data[m->inputs.data[i]];
    if (program_default(p, i)) dims_array(p, out, "default_dims", i, b->data->dims, b->data->rank);
  }
  sb_printf(out, "static const BurinDefault %s_defaults[] = {\n", p->name);
  for (int i = 0; i < m->inputs.n; i++) {
    const Buffer *const b = &m->buffers.data[m->inputs.data[i]];
    if (!program_default(p, i))
      sb_printf(out, "  {NULL, NULL, 0},\n");
    else
      sb_printf(out, "  {%s, %s, %" PRId64 "},\n", weight(p, b->id),
                dims_name(p, "default_dims", i, b->data->rank),
                b->pinned ? b->data->count * dtype_bytes(b->dtype) : 0);
  }
  sb_printf(out, "};\n");
}

/* ---- tables ---- */
static void tensor_table(const Program *p, StrBuf *out, bool outputs) {
  const Graph *const g = p->m->model->main;
  const int n = !g ? 0 : outputs ? g->outputs.n : g->inputs.n;
  const char *const what = outputs ? "output" : "input", *const dims = arena_printf(
                                                             p->arena, "%s_dims_", what);
  if (!n) return;
  for (int i = 0; i < n; i++) {
    const Value *const v = outputs ? g->outputs.data[i] : g->inputs.data[i];
    int64_t *const d = ARENA_ARRAY(p->arena, int64_t, v->rank + 1);
    for (int k = 0; k < v->rank; k++) {
      int64_t size;
      const int sym = v->dims[k]->op == EX_SYM ? program_symbol(p, v->dims[k]->id) : -1;
      d[k] = expr_is_const(v->dims[k], &size) ? size : sym >= 0 ? -1 - (int64_t)sym : INT64_MIN;
    }
    dims_array(p, out, dims, i, d, v->rank);
  }
  sb_printf(out, "static const BurinTensorInfo %s_%s_infos[] = {\n", p->name, what);
  for (int i = 0; i < n; i++) {
    const Value *const v = outputs ? g->outputs.data[i] : g->inputs.data[i];
    const char *const name = outputs ? program_output_name(p, i) : program_input_name(p, i);
    sb_printf(out, "  {%s, %d, %d, %s, %s, 0, 0},\n", text(p, name), dtype_rows[v->dtype].onnx,
              v->rank > 0 ? v->rank : 0, dims_name(p, dims, i, v->rank),
              text(p, program_io_text(p, i, outputs)));
  }
  sb_printf(out, "};\n");
}

/* NAME_keys: BurinKeys of each output. False: none has any. */
static bool key_table(const Program *p, StrBuf *out) {
  const Graph *const g = p->m->model->main;
  bool any = false;
  for (int i = 0; g && i < g->outputs.n; i++) {
    const ConstData *const k = graph_output_keys(g, i);
    if (!k) continue;
    const bool texts = k->dtype == DT_STR;
    any = true;
    sb_printf(out, "static const %s%s_keys_%d[] = {", texts ? "char *const " : "int64_t ", p->name,
              i);
    for (int64_t j = 0; j < k->count; j++)
      if (texts)
        sb_printf(out, "%s, ", text(p, ((const char *const *)k->data)[j]));
      else
        sb_printf(out, "%" PRId64 ", ", const_int(k, j));
    sb_printf(out, "};\n");
  }
  if (!any) return false;
  sb_printf(out, "static const BurinKeys %s_keys[] = {\n", p->name);
  for (int i = 0; i < g->outputs.n; i++) {
    const ConstData *const k = graph_output_keys(g, i);
    if (!k)
      sb_printf(out, "  {0, NULL, NULL},\n");
    else if (k->dtype == DT_STR)
      sb_printf(out, "  {%" PRId64 ", NULL, %s_keys_%d},\n", k->count, p->name, i);
    else
      sb_printf(out, "  {%" PRId64 ", %s_keys_%d, NULL},\n", k->count, p->name, i);
  }
  sb_printf(out, "};\n");
  return true;
}

static void kernel_table(const Program *p, StrBuf *out) {
  if (!p->calls.n) return;
  sb_printf(out, "static const BurinKernelInfo %s_kernels[] = {\n", p->name);
  for (int i = 0; i < p->calls.n; i++) {
    const Step *const s = p->calls.data[i];
    const bool kernel = s->kind == STEP_KERNEL;
    const Loc *const loc = s->loc ? s->loc : kernel ? s->call.kernel->loc : NULL;
    int64_t flops = 0;
    if (kernel && s->call.kernel->flops) (void)expr_is_const(s->call.kernel->flops, &flops);
    sb_printf(out, "  {%s, %s, %" PRId64 "},\n",
              text(p, kernel ? s->call.kernel->name : s->ext.row->symbol),
              text(p, program_node_list(p->arena, loc)), flops);
  }
  sb_printf(out, "};\n");
}

static void check_table(const Program *p, StrBuf *out) {
  sb_printf(out, "static const BurinCheckInfo %s_checks[] = {\n", p->name);
  for (int i = 0; i < p->checks->n; i++) {
    const Check *const row = &p->checks->data[i];
    sb_printf(out, "  {%s, %s, %d},\n", text(p, row->text), text(p, row->node), row->status);
  }
  sb_printf(out, "};\n");
}

static void symbol_table(const Program *p, StrBuf *out) {
  if (!p->n_symbols) return;
  sb_printf(out, "static const char *const %s_symbol_names[] = {", p->name);
  for (int i = 0; i < p->n_symbols; i++)
    sb_printf(out, "%s%s", i ? ", " : "",
              text(p, expr_symbol(p->m->model->pool, p->symbols[i])->name));
  sb_printf(out, "};\n");
}

static void in_place_table(const Program *p, StrBuf *out) {
  const Model *const m = p->m->model;
  if (!m->in_place.n) return;
  sb_printf(out, "static const BurinInPlace %s_in_place[] = {", p->name);
  for (int i = 0; i < m->in_place.n; i++) {
    const InPlace *const x = &m->in_place.data[i];
    sb_printf(out, "{%d, %d, %d, %" PRId64 "}, ", x->input, x->output, x->axis, x->room);
  }
  sb_printf(out, "};\n");
}

static void heap_table(const Program *p, StrBuf *out) {
  if (!p->heap_outputs) return;
  sb_printf(out, "static const uint8_t %s_heap_outputs[] = {", p->name);
  for (int i = 0; i < p->m->outputs.n; i++)
    sb_printf(out, "%s%d", i ? ", " : "",
              p->m->buffers.data[p->m->outputs.data[i]].kind == BUF_HEAP);
  sb_printf(out, "};\n");
}

/* False: no input, or output, is a list. */
static bool list_table(const Program *p, StrBuf *out, bool outputs) {
  const Graph *const g = p->m->model->main;
  const int n = !g ? 0 : outputs ? g->outputs.n : g->inputs.n;
  const char *const what = outputs ? "output" : "input";
  const char *const dims = arena_printf(p->arena, "%s_list_dims", what);
  if (!g || !(outputs ? g->output_lists.n : g->input_lists.n)) return false;
  for (int i = 0; i < n; i++) {
    const ListType *const l = graph_list(g, i, outputs);
    if (l) dims_array(p, out, dims, i, l->dims, l->rank);
  }
  sb_printf(out, "static const BurinListInfo %s_%s_lists[] = {", p->name, what);
  for (int i = 0; i < n; i++) {
    const ListType *const l = graph_list(g, i, outputs);
    if (l)
      sb_printf(out, "{%d, %d, %d, %s}, ", l->kind, dtype_rows[l->dtype].onnx, l->rank,
                dims_name(p, dims, i, l->rank));
    else
      sb_printf(out, "{0, 0, 0, NULL}, ");
  }
  sb_printf(out, "};\n");
  return true;
}

static void state_table(const Program *p, StrBuf *out) {
  const Model *const m = p->m->model;
  if (!m->state.n) return;
  sb_printf(out, "static const BurinStateInfo %s_state[] = {\n", p->name);
  for (int i = 0; i < m->state.n; i++) {
    const StateItem *const s = &m->state.data[i];
    sb_printf(out, "  {%s, %d, %d, %d, %" PRId64 ", %" PRId64 ", %s},\n", text(p, s->name), s->kind,
              s->input, s->output, s->offset, s->bytes,
              s->initial ? weight(p, p->m->inputs.data[s->input]) : "NULL");
  }
  sb_printf(out, "};\n");
}

static const char *table(const Program *p, int n, const char *name) {
  return n ? arena_printf(p->arena, "%s_%s", p->name, name) : "NULL";
}

void c_info(CState *s, StrBuf *out) {
  const Program *const p = s->p;
  const Module *const m = p->m;
  const Graph *const g = m->model->main;
  const char *const n = p->name;
  int64_t arena, further;
  const bool fixed = program_fixed_arena(m, &arena, &further);
  sb_printf(out, "\n/* ---- description ---- */\n");
  tensor_table(p, out, false);
  tensor_table(p, out, true);
  kernel_table(p, out);
  check_table(p, out);
  symbol_table(p, out);
  in_place_table(p, out);
  const bool keys = key_table(p, out);
  heap_table(p, out);
  state_table(p, out);
  const bool in_lists = list_table(p, out, false), out_lists = list_table(p, out, true);
  sb_printf(out, "static const BurinModel %s_model = {\n  BURIN_ABI_VERSION, sizeof(BurinModel),\n",
            n);
  sb_printf(out, "  %s, \"burin\", %s, %s, %s,\n", text(p, n), text(p, p->t->name),
            text(p, p->o->flags ? p->o->flags : ""),
            text(p, p->o->model_hash ? p->o->model_hash : ""));
  sb_printf(out, "  %d, %d, %d, %d, %s, %s, %s,\n", m->inputs.n, m->outputs.n, p->n_symbols,
            p->n_caller, table(p, g ? g->inputs.n : 0, "input_infos"),
            table(p, g ? g->outputs.n : 0, "output_infos"), table(p, p->n_symbols, "symbol_names"));
  sb_printf(out, "  %" PRId64 ", %" PRId64 ", %" PRId64 ", %d, %" PRId64 ", %" PRId64 ",\n",
            fixed ? arena : 0, fixed ? further : 0, p->arena_align,
            m->max_threads > 1 ? m->max_threads : 1, p->weights.bytes,
            m->arena_lower_bound > 0 ? m->arena_lower_bound : 0);
  sb_printf(out, "  %d, %s, 0, %s_invoke, %s_arena_size, %s_output_dims,\n", p->calls.n,
            table(p, p->calls.n, "kernels"), n, n, n);
  sb_printf(out,
            "  %s%s, NULL, 0, NULL, %d, %s_checks, %s_failure_text, %s, %d, %s, %s, %d, %s, %s, "
            "%s, %s, %d, "
            "%" PRId64 "};\n",
            p->weights.bytes ? "&" : "", table(p, p->weights.bytes > 0, "weights"), p->checks->n, n,
            n, p->defaults ? table(p, 1, "defaults") : "NULL", p->uses_heap,
            keys ? arena_printf(p->arena, "%s_keys", n) : "NULL",
            table(p, m->model->in_place.n, "in_place"), m->model->in_place.n,
            table(p, p->heap_outputs, "heap_outputs"), table(p, in_lists, "input_lists"),
            table(p, out_lists, "output_lists"), table(p, m->model->state.n, "state"),
            m->model->state.n, m->model->state_bytes);
  sb_printf(out, "\nconst BurinModel *%s_info(void) { return &%s_model; }\n", n, n);
  sb_printf(out,
            "\nint32_t %s_failure_text(const BurinFailure *failure, char *text, int32_t size) {\n"
            "  return burin_rt_failure_text(&%s_model, failure, text, size);\n}\n",
            n, n);
}
