/* Sequences at run time (text.h): a number that is the address of a list in the heap. Lists do not
 * change; one that is made by adding an item at the end shares the slots of the one before, as long
 * as nobody else has added there, so that n items cost O(n). Items are copies. */
#include <string.h>
#include "runtime/ops/ops.h"
#include "runtime/text/text.h"

enum { ITEM_RANK = 16, SEQ_NUMBER = 7, SEQ_TEXT = 8 }; /* of TensorProto */

typedef struct SeqItem {
  const void *data;
  int32_t dtype, rank;
  int64_t dims[ITEM_RANK];
} SeqItem;

typedef struct SeqSlots {
  int64_t used, room;
  const SeqItem *at[];
} SeqSlots;

typedef struct SeqList {
  int64_t count;
  SeqSlots *slots;
} SeqList;

/* An optional that is empty is 0: a list without items. */
static const SeqList *seq_of(const RtTensor *t) {
  static SeqSlots no_slots;
  static const SeqList none = {0, &no_slots};
  const int64_t at = ((const int64_t *)t->data)[0];
  return at ? (const SeqList *)(uintptr_t)at : &none;
}

static void seq_give(RtTensor *out, const SeqList *l) {
  ((int64_t *)out->data)[0] = (int64_t)(uintptr_t)l;
}

static SeqList *seq_new(BurinHeap *h, int64_t room) {
  SeqList *const l = (SeqList *)heap_alloc(h, sizeof *l);
  if (!l || room > INT32_MAX) return NULL;
  l->count = 0;
  l->slots = (SeqSlots *)heap_alloc(h, sizeof *l->slots + (uint64_t)room * sizeof *l->slots->at);
  if (!l->slots) return NULL;
  *l->slots = (SeqSlots){.used = 0, .room = room};
  return l;
}

static bool seq_add(SeqList *l, const SeqItem *item) {
  if (!item) return false;
  l->slots->at[l->slots->used++] = item;
  l->count++;
  return true;
}

/* An item of these sizes, without elements yet. */
static SeqItem *seq_item_new(BurinHeap *h, int32_t dtype, int32_t rank, const int64_t *dims) {
  SeqItem *const i = rank <= ITEM_RANK ? (SeqItem *)heap_alloc(h, sizeof *i) : NULL;
  if (!i) return NULL;
  *i = (SeqItem){.dtype = dtype, .rank = rank};
  uint64_t bytes = (uint64_t)rt_elem_size(dtype);
  for (int32_t d = 0; d < rank; d++) bytes *= (uint64_t)(i->dims[d] = dims[d]);
  i->data = heap_tensor(h, bytes);
  return i->data ? i : NULL;
}

static SeqItem *seq_item_copy(BurinHeap *h, const RtTensor *t) {
  SeqItem *const i = seq_item_new(h, t->dtype, t->rank, t->dims);
  if (i)
    memcpy((void *)(uintptr_t)i->data, t->data, (uint64_t)(rt_count(t) * rt_elem_size(t->dtype)));
  return i;
}

int32_t rt_sequence_make(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                         const int64_t *w, void *scratch) {
  BurinHeap *const h = (BurinHeap *)scratch;
  SeqList *const l = seq_new(h, n_in + 4);
  if (!l) return BURIN_E_MEMORY;
  for (int32_t k = 0; k < n_in; k++)
    if (!seq_add(l, seq_item_copy(h, &in[k]))) return BURIN_E_MEMORY;
  seq_give(out, l);
  return BURIN_OK;
}

/* Position from a tensor in [0, most], negative ones from `count` on; absent: `most`. -1: none. */
static int64_t seq_position(const RtTensor *t, int64_t count, int64_t most) {
  if (!t || !t->data) return most;
  int64_t k = rt_count(t) ? rt_load_i(t, 0) : -1 - count;
  if (k < 0) k += count;
  return k > most || k < 0 ? -1 : k;
}

/* Of a list, without item `leave` (-1: with all) and with `item` (or NULL) at `at`. */
static SeqList *seq_copy(BurinHeap *h, const SeqList *from, int64_t leave, int64_t at,
                         const SeqItem *item) {
  SeqList *const l = seq_new(h, 2 * from->count + 4);
  for (int64_t k = 0; l && k <= from->count; k++) {
    if (item && k == at) seq_add(l, item);
    if (k < from->count && k != leave) seq_add(l, from->slots->at[k]);
  }
  return l;
}

int32_t rt_sequence_insert(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                           const int64_t *w, void *scratch) {
  BurinHeap *const h = (BurinHeap *)scratch;
  const SeqList *const l = seq_of(in);
  const int64_t at = seq_position(n_in > 2 ? &in[2] : NULL, l->count, l->count);
  if (at < 0) return BURIN_E_DATA;
  const SeqItem *const item = seq_item_copy(h, &in[1]);
  if (!item) return BURIN_E_MEMORY;
  SeqList *made;
  if (at == l->count && l->slots->used == l->count && l->count < l->slots->room) {
    made = (SeqList *)heap_alloc(h, sizeof *made);
    if (!made) return BURIN_E_MEMORY;
    *made = *l;
    seq_add(made, item);
  } else if (!(made = seq_copy(h, l, -1, at, item))) {
    return BURIN_E_MEMORY;
  }
  seq_give(out, made);
  return BURIN_OK;
}

int32_t rt_sequence_erase(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                          const int64_t *w, void *scratch) {
  const SeqList *const l = seq_of(in);
  const int64_t at = seq_position(n_in > 1 ? &in[1] : NULL, l->count, l->count - 1);
  if (at < 0) return BURIN_E_DATA;
  const SeqList *const made = seq_copy((BurinHeap *)scratch, l, at, -1, NULL);
  if (!made) return BURIN_E_MEMORY;
  seq_give(out, made);
  return BURIN_OK;
}

int32_t rt_sequence_length(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                           const int64_t *w, void *scratch) {
  const int64_t count = seq_of(in)->count;
  for (int32_t k = 1; k < n_in; k++)
    if (seq_of(&in[k])->count != count) return BURIN_E_DATA;
  ((int64_t *)out->data)[0] = count;
  return BURIN_OK;
}

/* A result that is this item: where it lies (w[0]), or a copy, of at most the sizes that `out` has
 * room for. */
static int32_t seq_give_item(const SeqItem *i, RtTensor *out, bool makes) {
  if (i->dtype != out->dtype || i->rank != out->rank) return BURIN_E_DATA;
  int64_t bytes = rt_elem_size(i->dtype);
  for (int32_t d = 0; d < i->rank; d++) {
    if (!makes && i->dims[d] > out->dims[d]) return BURIN_E_DATA;
    bytes *= out->dims[d] = i->dims[d];
  }
  if (makes)
    out->data = (void *)(uintptr_t)i->data;
  else
    memcpy(out->data, i->data, (uint64_t)bytes);
  return BURIN_OK;
}

int32_t rt_sequence_at(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                       const int64_t *w, void *scratch) {
  const SeqList *const l = seq_of(in);
  const int64_t at = seq_position(&in[1], l->count, l->count - 1);
  if (at < 0) return BURIN_E_DATA;
  const SeqItem *const item = l->slots->at[at];
  for (int32_t d = 0; d < item->rank && d < out->rank; d++)
    if (w[1 + d] >= 0 && w[1 + d] != item->dims[d]) return BURIN_E_DATA;
  return seq_give_item(item, out, w[0] != 0);
}

/* ---- joining ---- */
/* The sizes of all items side by side along `axis`; `fresh`: an axis of its own. False: they do not
 * fit together. */
static bool seq_joined_dims(const SeqList *l, int32_t axis, bool fresh, SeqItem *all) {
  const SeqItem *const first = l->slots->at[0];
  int64_t sum = 0;
  for (int64_t k = 0; k < l->count; k++) {
    const SeqItem *const i = l->slots->at[k];
    if (i->rank != first->rank || i->dtype != first->dtype) return false;
    for (int32_t d = 0; d < i->rank; d++)
      if ((fresh || d != axis) && i->dims[d] != first->dims[d]) return false;
    sum += fresh ? 1 : i->dims[axis];
  }
  all->dtype = first->dtype;
  all->rank = first->rank + fresh;
  for (int32_t d = 0, k = 0; d < all->rank; d++) {
    if (d == axis) all->dims[d] = sum;
    if (d != axis || !fresh) {
      if (d != axis) all->dims[d] = first->dims[k];
      k++;
    }
  }
  return true;
}

static void seq_join_into(const SeqList *l, int32_t axis, bool fresh, const SeqItem *all) {
  int64_t outer = 1, inner = rt_elem_size(all->dtype), at = 0;
  for (int32_t d = 0; d < axis; d++) outer *= all->dims[d];
  for (int32_t d = axis + 1; d < all->rank; d++) inner *= all->dims[d];
  const int64_t row = all->dims[axis] * inner;
  for (int64_t k = 0; k < l->count; k++) {
    const SeqItem *const i = l->slots->at[k];
    const int64_t part = (fresh ? 1 : i->dims[axis]) * inner;
    for (int64_t o = 0; part && o < outer; o++)
      memcpy((char *)(uintptr_t)all->data + o * row + at, (const char *)i->data + o * part,
             (uint64_t)part);
    at += part;
  }
}

int32_t rt_sequence_join(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                         const int64_t *w, void *scratch) {
  const SeqList *const l = seq_of(in);
  const int32_t axis = (int32_t)w[1];
  const bool fresh = w[2] != 0;
  SeqItem all;
  if (l->count == 0 || l->slots->at[0]->rank + fresh != out->rank || axis >= out->rank ||
      !seq_joined_dims(l, axis, fresh, &all) || all.dtype != out->dtype)
    return BURIN_E_DATA;
  const SeqItem *made = &all;
  all.data = out->data;
  for (int32_t d = 0; d < all.rank; d++) {
    if (!w[0] && all.dims[d] > out->dims[d]) return BURIN_E_DATA;
    out->dims[d] = all.dims[d];
  }
  if (w[0] && !(made = seq_item_new((BurinHeap *)scratch, all.dtype, all.rank, all.dims)))
    return BURIN_E_MEMORY;
  out->data = (void *)(uintptr_t)made->data;
  seq_join_into(l, axis, fresh, made);
  return BURIN_OK;
}

/* ---- splitting ---- */
/* Elements [from, from + size) of x along the axis; `drop`: without it. */
static SeqItem *seq_piece(BurinHeap *h, const RtTensor *x, int32_t axis, int64_t from, int64_t size,
                          bool drop) {
  int64_t dims[ITEM_RANK], outer = 1, inner = rt_elem_size(x->dtype);
  int32_t rank = 0;
  for (int32_t d = 0; d < x->rank; d++) {
    if (d < axis) outer *= x->dims[d];
    if (d > axis) inner *= x->dims[d];
    if (d != axis || !drop) dims[rank++] = d == axis ? size : x->dims[d];
  }
  SeqItem *const i = seq_item_new(h, x->dtype, rank, dims);
  for (int64_t o = 0; i && o < outer; o++)
    memcpy((char *)(uintptr_t)i->data + o * size * inner,
           (const char *)x->data + (o * x->dims[axis] + from) * inner, (uint64_t)(size * inner));
  return i;
}

int32_t rt_sequence_split(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                          const int64_t *w, void *scratch) {
  BurinHeap *const h = (BurinHeap *)scratch;
  const RtTensor *const x = in, *const split = n_in > 1 && in[1].data ? &in[1] : NULL;
  const int32_t axis = (int32_t)w[0];
  const int64_t dim = x->dims[axis];
  const bool listed = split && split->rank == 1, drop = !split && !w[1];
  const int64_t each = split && !listed ? rt_load_i(split, 0) : 1;
  if (each < 1 || x->rank > ITEM_RANK) return BURIN_E_DATA;
  const int64_t n = listed ? rt_count(split) : dim / each + (dim % each != 0);
  SeqList *const l = seq_new(h, n + 4);
  if (!l) return BURIN_E_MEMORY;
  int64_t from = 0;
  for (int64_t k = 0; k < n; k++) {
    const int64_t left = dim - from, size = listed        ? rt_load_i(split, k)
                                            : left < each ? left
                                                          : each;
    if (size < 0 || size > left) return BURIN_E_DATA;
    if (!seq_add(l, seq_piece(h, x, axis, from, size, drop))) return BURIN_E_MEMORY;
    from += size;
  }
  if (from != dim) return BURIN_E_DATA;
  seq_give(out, l);
  return BURIN_OK;
}

/* ---- inputs and outputs of a model ---- */
/* Number of elements of an item that somebody gave; -1: that cannot be. */
static int64_t seq_given_count(const BurinItem *from, const int64_t *w) {
  int64_t count = 1, least = 1;
  for (int32_t d = 0; d < from->rank; d++) {
    const int64_t n = from->dims[d];
    if (n < 0 || (n && least > INT64_MAX / 64 / n)) return -1;
    if (w[2] >= 0 && w[3 + d] >= 0 && w[3 + d] != n) return -1;
    if (n) least *= n;
    count *= n;
  }
  return count;
}

static int32_t seq_item_in(const RtTensor *table, const BurinItem *from, const int64_t *w,
                           BurinHeap *h, SeqItem **item) {
  const bool text = w[1] == SEQ_TEXT;
  if (from->dtype != w[1] || from->rank < 0 || from->rank > ITEM_RANK ||
      (w[2] >= 0 && from->rank != w[2]) || (from->rank && !from->dims))
    return BURIN_E_DATA;
  const int64_t count = seq_given_count(from, w);
  if (count < 0 || (count && !from->data)) return BURIN_E_DATA;
  SeqItem *const i = *item =
      seq_item_new(h, text ? SEQ_NUMBER : from->dtype, from->rank, from->dims);
  if (!i) return BURIN_E_MEMORY;
  if (count && !text)
    memcpy((void *)(uintptr_t)i->data, from->data, (uint64_t)(count * rt_elem_size(i->dtype)));
  if (!text) return BURIN_OK;
  const RtTensor in[2] = {{(void *)(uintptr_t)from->data, SEQ_TEXT, 1, (int64_t *)&count}, *table};
  RtTensor out = {(void *)(uintptr_t)i->data, SEQ_NUMBER, 1, (int64_t *)&count};
  return rt_strings_in(in, 2, &out, 1, NULL, h);
}

int32_t rt_sequence_in(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                       const int64_t *w, void *scratch) {
  BurinHeap *const h = (BurinHeap *)scratch;
  const BurinList *const given = (const BurinList *)in->data;
  seq_give(out, NULL);
  if (w[1] == SEQ_TEXT && n_in < 2) return BURIN_E_DATA; /* no table */
  if (given->count == -1 && w[0] != BURIN_SEQUENCE) return BURIN_OK;
  if (given->count < 0 || given->count >= INT32_MAX || (given->count && !given->items) ||
      (w[0] == BURIN_OPTIONAL && given->count != 1))
    return BURIN_E_DATA;
  SeqList *const l = seq_new(h, given->count + 4);
  if (!l) return BURIN_E_MEMORY;
  for (int64_t k = 0; k < given->count; k++) {
    SeqItem *item;
    const int32_t status = seq_item_in(&in[n_in - 1], &given->items[k], w, h, &item);
    if (status) return status;
    seq_add(l, item);
  }
  seq_give(out, l);
  return BURIN_OK;
}

/* The strings of an item of numbers. */
static const void *seq_texts(const SeqItem *i, const RtTensor *table, BurinHeap *h) {
  const int64_t count = rt_product(i->dims, 0, i->rank);
  void *const texts = heap_alloc(h, (uint64_t)count * sizeof(char *));
  const RtTensor in[2] = {{(void *)(uintptr_t)i->data, SEQ_NUMBER, 1, (int64_t *)&count}, *table};
  RtTensor out = {texts, SEQ_TEXT, 1, (int64_t *)&count};
  if (texts) rt_strings_out(in, 2, &out, 1, NULL, h);
  return texts;
}

int32_t rt_sequence_out(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                        const int64_t *w, void *scratch) {
  BurinHeap *const h = (BurinHeap *)scratch;
  const SeqList *const l = seq_of(in);
  BurinList *const to = (BurinList *)out->data;
  const bool text = w[1] == SEQ_TEXT;
  *to = (BurinList){.count = -1};
  if (text && n_in < 2) return BURIN_E_DATA; /* no table */
  if (!((const int64_t *)in->data)[0]) return w[0] == BURIN_SEQUENCE ? BURIN_E_DATA : BURIN_OK;
  BurinItem *const items = (BurinItem *)heap_alloc(h, (uint64_t)l->count * sizeof *items + 1);
  if (!items) return BURIN_E_MEMORY;
  for (int64_t k = 0; k < l->count; k++) {
    const SeqItem *const i = l->slots->at[k];
    if (i->dtype != (text ? SEQ_NUMBER : w[1])) return BURIN_E_DATA;
    items[k] = (BurinItem){i->data, (int32_t)w[1], i->rank, i->dims};
    if (text && !(items[k].data = seq_texts(i, &in[n_in - 1], h))) return BURIN_E_MEMORY;
  }
  *to = (BurinList){.count = l->count, .items = items};
  return BURIN_OK;
}

int32_t rt_sequence_get(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                        const int64_t *w, void *scratch) {
  const int64_t at = ((const int64_t *)in->data)[0];
  ((int64_t *)out->data)[0] = at;
  return at ? BURIN_OK : BURIN_E_DATA;
}
