/* Inputs and outputs that are sequences or optionals: NAME/0, NAME/1 … are their tensors, NAME=none is
 * an optional that is empty, NAME=[] a sequence without items. */
#include "program.h"

const BurinListInfo *list_info(const Program *p, int32_t k, bool output) {
  const BurinModel *m = p->model;
  if (m->size <= offsetof(BurinModel, output_lists)) return NULL;
  const BurinListInfo *all = output ? m->output_lists : m->input_lists;
  return all && all[k].kind != BURIN_NO_LIST ? &all[k] : NULL;
}

/* ---- inputs ---- */
typedef struct Items { /* of a list, while its arguments are read */
  BurinTensorInfo info;
  int64_t dims[MAX_RANK];
  BurinItem *items;
  int64_t count;
} Items;

static void items_begin(const Program *p, int32_t k, const BurinListInfo *l, Items *out) {
  const BurinTensorInfo *own = &p->model->inputs[k];
  out->info = (BurinTensorInfo){.name = own->name,
                                .shape_text = own->shape_text,
                                .dtype = l->dtype,
                                .rank = l->rank < 0 || l->rank > MAX_RANK ? 1 : l->rank,
                                .dims = out->dims};
  for (int i = 0; i < out->info.rank; i++)
    out->dims[i] = l->rank < 0 || l->dims[i] < 0 ? INT64_MIN : l->dims[i];
}

/* Room for n more, and one for each argument. */
static bool items_grow(Program *p, Items *s, int64_t n) {
  const size_t room = (size_t)(s->count + n + p->n_inputs + 1);
  BurinItem *items = sys_alloc(room * sizeof *items);
  if (!items) return program_error(p, "not enough memory");
  for (int64_t i = 0; i < s->count; i++) items[i] = s->items[i];
  s->items = items;
  return true;
}

static void items_add(Items *s, const Tensor *t) {
  s->items[s->count++] = (BurinItem){t->data, t->dtype, t->rank, t->dims};
}

/* All arrays of an .npz. */
static bool list_archive(Program *p, const char *path, Items *s) {
  Bytes f;
  Npz z;
  if (!file_read(p, path, &f) || !npz_open(p, path, f, &z) || !items_grow(p, s, z.n)) return false;
  Tensor *t = sys_alloc(((size_t)z.n + 1) * sizeof *t);
  if (!t) return program_error(p, "not enough memory");
  for (int64_t i = 0; i < z.n; i++) {
    if (!npz_item(p, &z, i, &s->info, &t[i])) return false;
    items_add(s, &t[i]);
  }
  return true;
}

static bool list_file(Program *p, const BurinListInfo *l, const Argument *a, Items *s) {
  const char *name = s->info.name;
  if (a->value[0] != '@')
    return program_error(p, "input %s is %s: --input %s/0=@FILE", name, s->info.shape_text, name);
  if (l->kind != BURIN_OPTIONAL && text_ends(a->value, ".npz"))
    return list_archive(p, a->value + 1, s);
  Tensor *t = sys_alloc(sizeof *t);
  if (!t) return program_error(p, "not enough memory");
  if (!file_read_tensor(p, a->value + 1, &s->info, t)) return false;
  items_add(s, t);
  return true;
}

/* "none" and "[]" say how many there are. */
static bool list_empty(const BurinListInfo *l, const Argument *a) {
  return (text_equal(a->value, "none") && l->kind != BURIN_SEQUENCE) ||
         (text_equal(a->value, "[]") && l->kind != BURIN_OPTIONAL);
}

bool list_bind(Program *p, int32_t k) {
  const BurinListInfo *l = list_info(p, k, false);
  const char *name = p->model->inputs[k].name;
  BurinList *list = sys_alloc(sizeof *list);
  Items s = {.count = 0};
  if (!list) return program_error(p, "not enough memory");
  if (!items_grow(p, &s, 0)) return false;
  items_begin(p, k, l, &s);
  bool given = p->bench, none = l->kind != BURIN_SEQUENCE;
  for (int i = 0; i < p->n_inputs; i++) {
    const Argument *a = &p->inputs[i];
    if (a->index != k) continue;
    given = true;
    none = text_equal(a->value, "none");
    if (list_empty(l, a)) continue;
    if (a->item != s.count)
      return program_error(p, "items of input %s are given out of order: %s", name, a->text);
    if (!list_file(p, l, a, &s)) return false;
  }
  if (!given && l->kind == BURIN_SEQUENCE)
    return program_error(p, "input %s (%s) is missing: --input %s/0=@FILE, or %s=[]", name,
                         p->model->inputs[k].shape_text, name, name);
  *list = (BurinList){.count = none && !s.count ? -1 : s.count, .items = s.items};
  p->in[k] = (Tensor){.dtype = 7, .rank = 1, .dims = {2}, .count = 2, .data = (char *)list};
  return true;
}

/* ---- outputs ---- */
static const BurinList *list_of(const Tensor *t) {
  return (const BurinList *)(const void *)t->data;
}

static bool list_tensor(const BurinItem *i, Tensor *t) {
  *t = (Tensor){.dtype = i->dtype, .rank = i->rank, .count = 1, .data = (char *)(uintptr_t)i->data};
  for (int d = 0; d < i->rank && d < MAX_RANK; d++) t->count *= (uint64_t)(t->dims[d] = i->dims[d]);
  return i->rank <= MAX_RANK && number_type(t->dtype);
}

bool result_tensor(Program *p, const Argument *a, Tensor *t) {
  const BurinListInfo *l = list_info(p, a->index, true);
  const BurinList *list = list_of(&p->result[a->index]);
  *t = p->result[a->index];
  if (!l) return true;
  if (list->count > 1 && a->text[text_length(p->model->outputs[a->index].name)] != '/')
    return program_error(p, "output %s has %d tensors: name one, %s/0",
                         p->model->outputs[a->index].name, list->count,
                         p->model->outputs[a->index].name);
  if (a->item < 0 || a->item >= list->count)
    return program_error(p, "output %s has %d tensors: there is no %s",
                         p->model->outputs[a->index].name, list->count < 0 ? 0 : list->count,
                         a->text);
  return list_tensor(&list->items[a->item], t) ||
         program_error(p, "%s: cannot be written here", a->text);
}

void list_show(Program *p, int k) {
  const BurinList *list = list_of(&p->result[k]);
  const char *name = p->model->outputs[k].name;
  if (list->count <= 0) out_format(&p->out, "%s: %s\n", name, list->count < 0 ? "none" : "[]");
  for (int64_t i = 0; i < list->count; i++) {
    Tensor t;
    out_format(&p->out, "%s/%d", name, i);
    if (list_tensor(&list->items[i], &t)) show_tensor(p, &t);
  }
}

static uint64_t hash(uint64_t h, const void *data, uint64_t n) { /* FNV-1a */
  for (uint64_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)data)[i]) * 1099511628211u;
  return h;
}

uint64_t list_hash(const Tensor *result) {
  const BurinList *list = list_of(result);
  uint64_t h = hash(14695981039346656037u, &list->count, sizeof list->count);
  for (int64_t i = 0; i < list->count; i++) {
    Tensor t;
    if (!list_tensor(&list->items[i], &t)) continue;
    h = hash(h, t.dims, (uint64_t)t.rank * sizeof *t.dims);
    for (uint64_t j = 0; is_text(&t) && j < t.count; j++)
      h = hash(h, texts_of(&t)[j], text_length(texts_of(&t)[j]) + 1);
    if (!is_text(&t)) h = hash(h, t.data, t.count * number_bytes(number_type(t.dtype)));
  }
  return h;
}
