/* NonMaxSuppression by many threads. Phase 0: a box's place is the number of those of its class that
 * come before it. Phase 1: a block for each class goes through its boxes, best first; where one is
 * taken, all threads mark what it overlaps. Phase 2: the classes' boxes, one class behind the other.
 * scratch: for each class of each batch i64[n] boxes in order, then i64[n] those taken; behind all of
 * them a byte for each box, then, 8-aligned, how many were taken. */

typedef struct Room {
  int64_t *order, *taken, *count;
  char *dead;
} Room;

static Room room_of(void *scratch, int64_t classes, int64_t n) {
  const int64_t all = classes * n;
  Room r;
  r.order = (int64_t *)scratch;
  r.taken = r.order + all;
  r.dead = (char *)(r.taken + all);
  r.count = (int64_t *)(r.dead + (all + 7) / 8 * 8);
  return r;
}

static bool counts(const RtTensor *scores, int64_t i, const RtTensor *least) {
  return !least->data || rt_load_f(scores, i) > rt_load_f(least, 0);
}

/* Box i of the class that begins at `base`: its place, or what is behind all: -1. */
static void place_box(const RtTensor *scores, int64_t base, int64_t i, int64_t n,
                      const RtTensor *least, int64_t *order) {
  const Entry own = {rt_load_f(scores, base + i), i};
  int64_t before = 0, all = 0;
  for (int64_t j = 0; j < n; j++) {
    const Entry e = {rt_load_f(scores, base + j), j};
    const bool in = counts(scores, base + j, least);
    all += in;
    before += in && j != i && worse(&own, &e);
  }
  if (counts(scores, base + i, least)) order[before] = i;
  if (i >= all) order[i] = -1;
}

static bool overlap(const RtTensor *boxes, int64_t a, int64_t b, bool centred, float iou) {
  float mem[10];
  const Boxes two = boxes_at(mem, 2);
  read_box(boxes, a, centred, &two, 0);
  read_box(boxes, b, centred, &two, 1);
  return overlaps(&two, 1, &two, 0, 1, iou);
}

static int64_t take_boxes(const RtTensor *boxes, int64_t first, int64_t n, const int64_t *order,
                          int64_t *taken, char *dead, int64_t limit, bool centred, float iou,
                          int32_t lane) {
  int64_t have = 0;
  for (int64_t i = lane; i < n; i += RT_BLOCK) dead[i] = 0;
  RT_BARRIER();
  for (int64_t p = 0; p < n && order[p] >= 0 && have < limit; p++) {
    const bool gone = dead[p] != 0;
    if (gone) continue;
    if (lane == 0) taken[have] = order[p];
    have++;
    for (int64_t q = p + 1 + lane; q < n && order[q] >= 0; q += RT_BLOCK)
      if (!dead[q] && overlap(boxes, first + order[p], first + order[q], centred, iou)) dead[q] = 1;
    RT_BARRIER();
  }
  return have;
}

static void write_rows(const Room *r, int64_t classes, int64_t k, int64_t n, int64_t per_batch,
                       int64_t *to, int32_t lane) {
  int64_t before = 0;
  for (int64_t j = 0; j < k; j++) before += r->count[j];
  for (int64_t i = lane; i < r->count[k]; i += RT_BLOCK) {
    int64_t *const row = to + 3 * (before + i);
    row[0] = k / per_batch;
    row[1] = k % per_batch;
    row[2] = r->taken[k * n + i];
  }
}

int32_t rt_nms_part(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                    const int64_t *w, void *scratch, const RtTeam *t) {
  const RtTensor *boxes = &in[0], *scores = &in[1];
  const int64_t batches = scores->dims[0], per_batch = scores->dims[1], n = scores->dims[2];
  const int64_t classes = batches * per_batch, block = t->at / RT_BLOCK, blocks = t->n / RT_BLOCK;
  if (boxes->dims[0] != batches || boxes->dims[1] != n || boxes->dims[2] != 4) return BURIN_E_DATA;
  const Room r = room_of(scratch, classes, n);
  const int64_t limit = in[2].data ? rt_load_i(&in[2], 0) : 0;
  const float iou = in[3].data ? (float)rt_load_f(&in[3], 0) : 0;
  if (t->phase == 0)
    for (int64_t u = t->at; u < classes * n && limit > 0; u += t->n)
      place_box(scores, u / n * n, u % n, n, &in[4], r.order + u / n * n);
  if (t->phase == 1)
    for (int64_t k = block; k < classes; k += blocks) {
      const int64_t have =
          limit > 0 ? take_boxes(boxes, k / per_batch * n, n, r.order + k * n, r.taken + k * n,
                                 r.dead + k * n, limit, w[0] != 0, iou, t->lane)
                    : 0;
      if (t->lane == 0) r.count[k] = have;
    }
  if (t->phase < 2) return BURIN_OK;
  int64_t all = 0;
  for (int64_t k = 0; k < classes; k++) all += r.count[k];
  if (all > out->dims[0]) return BURIN_E_DATA;
  for (int64_t k = block; k < classes; k += blocks)
    write_rows(&r, classes, k, n, per_batch, (int64_t *)out->data, t->lane);
  out->dims[0] = all;
  return BURIN_OK;
}
