/* NonMaxSuppression: per class the boxes by decreasing score, without those that overlap one that
 * was taken before. Corners are worked out once per batch; those of the boxes taken lie side by
 * side, so that a box is compared with several at once. Computed in f32, like the boxes. */
#include "runtime/ops/ops.h"

enum { AT_ONCE = 8 };

typedef struct Boxes { /* corners and areas */
  float *x0, *y0, *x1, *y1, *area;
} Boxes;

typedef struct Entry {
  double score;
  int64_t box;
} Entry;

static float least(float a, float b) { return a < b ? a : b; }
static float most(float a, float b) { return a > b ? a : b; }

static Boxes boxes_at(float *mem, int64_t n) {
  return (Boxes){mem, mem + n, mem + 2 * n, mem + 3 * n, mem + 4 * n};
}

static void read_box(const RtTensor *boxes, int64_t row, bool centred, const Boxes *to, int64_t i) {
  float v[4];
  for (int k = 0; k < 4; k++) v[k] = (float)rt_load_f(boxes, row * 4 + k);
  if (centred) {
    const float w = v[2] / 2, h = v[3] / 2;
    to->x0[i] = v[0] - w, to->x1[i] = v[0] + w;
    to->y0[i] = v[1] - h, to->y1[i] = v[1] + h;
  } else {
    to->x0[i] = least(v[1], v[3]), to->x1[i] = most(v[1], v[3]);
    to->y0[i] = least(v[0], v[2]), to->y1[i] = most(v[0], v[2]);
  }
  to->area[i] = (to->x1[i] - to->x0[i]) * (to->y1[i] - to->y0[i]);
}

static void copy_box(const Boxes *to, int64_t i, const Boxes *from, int64_t k) {
  to->x0[i] = from->x0[k];
  to->y0[i] = from->y0[k];
  to->x1[i] = from->x1[k];
  to->y1[i] = from->y1[k];
  to->area[i] = from->area[k];
}

/* Box k of b overlaps one of the boxes [from, to) of t by more than the threshold. */
static bool overlaps(const Boxes *b, int64_t k, const Boxes *t, int64_t from, int64_t to,
                     float threshold) {
  const float x0 = b->x0[k], y0 = b->y0[k], x1 = b->x1[k], y1 = b->y1[k], area = b->area[k];
  int32_t hit = 0;
  for (int64_t i = from; i < to; i++) {
    const float w = least(x1, t->x1[i]) - most(x0, t->x0[i]),
                h = least(y1, t->y1[i]) - most(y0, t->y0[i]), common = w * h,
                all = area + t->area[i] - common;
    hit |= (w > 0) & (h > 0) & (all > 0) & (common / all > threshold);
  }
  return hit != 0;
}

static bool overlaps_any(const Boxes *b, int64_t k, const Boxes *taken, int64_t n,
                         float threshold) {
  int64_t i = 0;
  for (; i + AT_ONCE <= n; i += AT_ONCE)
    if (overlaps(b, k, taken, i, i + AT_ONCE, threshold)) return true;
  return overlaps(b, k, taken, i, n, threshold);
}

/* a comes after b: lower score, or the same and a later box. NaN is above everything. */
static bool worse(const Entry *a, const Entry *b) {
  if (a->score < b->score) return true;
  if (a->score > b->score) return false;
  const bool na = a->score != a->score, nb = b->score != b->score;
  return na != nb ? nb : a->box > b->box;
}

static void sift(Entry *heap, int64_t i, int64_t n) {
  const Entry moved = heap[i];
  for (int64_t c = 2 * i + 1; c < n; c = 2 * i + 1) {
    if (c + 1 < n && worse(&heap[c], &heap[c + 1])) c++;
    if (!worse(&moved, &heap[c])) break;
    heap[i] = heap[c];
    i = c;
  }
  heap[i] = moved;
}

typedef struct Nms {
  const RtTensor *scores;
  Boxes boxes, taken;
  Entry *heap;
  int64_t n, limit, room, have; /* have: rows written */
  int64_t *rows;
  float iou;
  bool floor;
  double least_score;
} Nms;

/* The boxes of one class, best first. False: no room. */
static bool suppress(Nms *s, int64_t batch, int64_t cls, int64_t base) {
  int64_t n = 0, taken = 0;
  for (int64_t i = 0; i < s->n; i++) {
    const double v = rt_load_f(s->scores, base + i);
    if (!s->floor || v > s->least_score) s->heap[n++] = (Entry){v, i};
  }
  for (int64_t i = n / 2 - 1; i >= 0; i--) sift(s->heap, i, n);
  while (n > 0 && taken < s->limit) {
    const int64_t pick = s->heap[0].box;
    s->heap[0] = s->heap[--n];
    sift(s->heap, 0, n);
    if (overlaps_any(&s->boxes, pick, &s->taken, taken, s->iou)) continue;
    if (s->have >= s->room) return false;
    copy_box(&s->taken, taken++, &s->boxes, pick);
    int64_t *const row = s->rows + 3 * s->have++;
    row[0] = batch;
    row[1] = cls;
    row[2] = pick;
  }
  return true;
}

/* in: boxes, scores, max_output_boxes_per_class, iou_threshold, score_threshold (the last three may
 * be absent). words: center_point_box. scratch: 56 bytes per box. */
int32_t rt_nms(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
               void *scratch) {
  const RtTensor *boxes = &in[0], *scores = &in[1];
  const int64_t batches = scores->dims[0], classes = scores->dims[1], n = scores->dims[2];
  if (boxes->dims[0] != batches || boxes->dims[1] != n || boxes->dims[2] != 4) return BURIN_E_DATA;
  Nms s = {0};
  s.scores = scores;
  s.n = n;
  s.room = out->dims[0];
  s.rows = (int64_t *)out->data;
  s.heap = (Entry *)scratch;
  float *const floats = (float *)(void *)(s.heap + n);
  s.boxes = boxes_at(floats, n);
  s.taken = boxes_at(floats + 5 * n, n);
  s.limit = n_in > 2 && in[2].data ? rt_load_i(&in[2], 0) : 0;
  s.iou = n_in > 3 && in[3].data ? (float)rt_load_f(&in[3], 0) : 0;
  s.floor = n_in > 4 && in[4].data;
  s.least_score = s.floor ? rt_load_f(&in[4], 0) : 0;
  for (int64_t b = 0; b < batches; b++) {
    for (int64_t i = 0; i < n && s.limit > 0; i++)
      read_box(boxes, b * n + i, w[0] != 0, &s.boxes, i);
    for (int64_t c = 0; c < classes && s.limit > 0; c++)
      if (!suppress(&s, b, c, (b * classes + c) * n)) return BURIN_E_DATA;
  }
  out->dims[0] = s.have;
  return BURIN_OK;
}
