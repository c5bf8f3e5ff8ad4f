/* RoiAlign: bilinear samples on a grid inside each bin of each region, averaged or their maximum.
 * The samples of a region are the same in all channels: their rows and columns are worked out once.
 * An average is separable: the rows of a bin are summed up first, then the columns. */
#include "runtime/ops/ops.h"

enum { MAX_GRID = 4096 };  /* hostile regions must not run for hours */
enum { MAX_TABLE = 1024 }; /* samples along an axis whose places are kept */

typedef struct Sample { /* along one axis; lo -1: outside */
  int64_t lo, hi;
  float w_lo, w_hi;
} Sample;

typedef struct Axis {
  double start, bin;  /* of the region */
  int64_t bins, grid; /* grid: samples in a bin */
  int64_t size;       /* of the map */
  Sample *table;      /* NULL: too many */
} Axis;

typedef struct Roi {
  const RtTensor *x;
  Axis y, x_axis;
  int64_t left, right; /* columns that are read; right < left: none */
  float *line;
  bool max;
} Roi;

static int64_t grid_size(int64_t ratio, double bin) {
  if (ratio > 0) return ratio;
  if (!(bin > 0)) return 0;
  if (bin > MAX_GRID) return MAX_GRID;
  const int64_t n = (int64_t)bin;
  return (double)n < bin ? n + 1 : n;
}

static Sample sample_at(const Axis *a, int64_t bin, int64_t i) {
  double v = a->start + (double)bin * a->bin + ((double)i + 0.5) * a->bin / (double)a->grid;
  if (!(v >= -1 && v <= (double)a->size)) return (Sample){-1, -1, 0, 0};
  v = v > 0 ? v : 0;
  int64_t lo = (int64_t)v, hi = lo + 1;
  if (lo >= a->size - 1) v = (double)(lo = hi = a->size - 1);
  const double w = v - (double)lo;
  return (Sample){lo, hi, (float)(1 - w), (float)w};
}

static Sample sample_of(const Axis *a, int64_t bin, int64_t i) {
  return a->table ? a->table[bin * a->grid + i] : sample_at(a, bin, i);
}

static void fill_table(Axis *a, Sample *table) {
  a->table = NULL;
  if (a->grid > MAX_TABLE || a->bins > MAX_TABLE || a->bins * a->grid > MAX_TABLE) return;
  for (int64_t b = 0; b < a->bins; b++)
    for (int64_t i = 0; i < a->grid; i++) table[b * a->grid + i] = sample_at(a, b, i);
  a->table = table;
}

/* ---- one bin, sample by sample ---- */

static double load(const RtTensor *t, int64_t i) {
  return t->dtype == RT_F32 ? (double)((const float *)t->data)[i] : rt_load_f(t, i);
}

static double pool(const Roi *r, int64_t base, int64_t i, int64_t j) {
  const int64_t width = r->x_axis.size, count = r->y.grid * r->x_axis.grid;
  double sum = 0, top = 0;
  bool any = false;
  for (int64_t iy = 0; iy < r->y.grid; iy++) {
    const Sample y = sample_of(&r->y, i, iy);
    for (int64_t ix = 0; ix < r->x_axis.grid; ix++) {
      const Sample x = sample_of(&r->x_axis, j, ix);
      double v[4] = {0, 0, 0, 0};
      if (y.lo >= 0 && x.lo >= 0) {
        const int64_t a = base + y.lo * width, b = base + y.hi * width;
        v[0] = (double)y.w_lo * (double)x.w_lo * load(r->x, a + x.lo);
        v[1] = (double)y.w_lo * (double)x.w_hi * load(r->x, a + x.hi);
        v[2] = (double)y.w_hi * (double)x.w_lo * load(r->x, b + x.lo);
        v[3] = (double)y.w_hi * (double)x.w_hi * load(r->x, b + x.hi);
      }
      for (int k = 0; k < 4; k++) {
        sum += v[k];
        if (!any || v[k] > top) top = v[k];
        any = true;
      }
    }
  }
  return r->max ? top : sum / (double)(count > 1 ? count : 1);
}

/* ---- rows, then columns: f32 averages ---- */

static void columns_range(Roi *r) {
  r->left = r->x_axis.size;
  r->right = -1;
  for (int64_t k = 0; k < r->x_axis.bins * r->x_axis.grid; k++) {
    const Sample s = r->x_axis.table[k];
    if (s.lo < 0) continue;
    if (s.lo < r->left) r->left = s.lo;
    if (s.hi > r->right) r->right = s.hi;
  }
}

/* Whether summing whole rows is less work than the samples. */
static bool is_separable(Roi *r) {
  if (r->max || r->x->dtype != RT_F32 || !r->y.table || !r->x_axis.table) return false;
  columns_range(r);
  const int64_t samples = r->x_axis.bins * r->x_axis.grid, width = r->right - r->left + 1;
  return r->y.grid * width / 2 + samples * 2 <= r->y.grid * samples * 4;
}

/* line = the weighted rows of bin i. */
static void sum_rows(const Roi *r, const float *plane, int64_t i) {
  const int64_t n = r->right - r->left + 1;
  float *const line = r->line;
  for (int64_t k = 0; k < n; k++) line[k] = 0;
  for (int64_t iy = 0; iy < r->y.grid; iy++) {
    const Sample s = r->y.table[i * r->y.grid + iy];
    if (s.lo < 0) continue;
    const float *const a = plane + s.lo * r->x_axis.size + r->left, *const b =
                                                                        plane +
                                                                        s.hi * r->x_axis.size +
                                                                        r->left;
    for (int64_t k = 0; k < n; k++) line[k] += s.w_lo * a[k] + s.w_hi * b[k];
  }
}

static void pool_plane(const Roi *r, const float *plane, float *out) {
  const int64_t grid = r->x_axis.grid, count = r->y.grid * grid;
  const float scale = (float)(1.0 / (double)(count > 1 ? count : 1));
  for (int64_t i = 0; i < r->y.bins; i++) {
    sum_rows(r, plane, i);
    const float *const line = r->line - r->left;
    for (int64_t j = 0; j < r->x_axis.bins; j++) {
      float sum = 0;
      for (int64_t k = j * grid; k < (j + 1) * grid; k++) {
        const Sample s = r->x_axis.table[k];
        if (s.lo >= 0) sum += s.w_lo * line[s.lo] + s.w_hi * line[s.hi];
      }
      *out++ = sum * scale;
    }
  }
}

/* ---- the operator ---- */

static void region(Roi *r, const RtTensor *rois, int64_t n, const int64_t *w) {
  const double scale = rt_word_f(w[3]), shift = w[0] ? 0.5 : 0;
  double v[4];
  for (int k = 0; k < 4; k++) v[k] = rt_load_f(rois, n * rois->dims[1] + k) * scale - shift;
  double width = v[2] - v[0], height = v[3] - v[1];
  if (!w[0]) { /* malformed regions count as 1x1 */
    width = width > 1 ? width : 1;
    height = height > 1 ? height : 1;
  }
  r->y.start = v[1];
  r->y.bin = height / (double)r->y.bins;
  r->x_axis.start = v[0];
  r->x_axis.bin = width / (double)r->x_axis.bins;
  r->y.grid = grid_size(w[2], r->y.bin);
  r->x_axis.grid = grid_size(w[2], r->x_axis.bin);
}

static void fill_tables(Roi *r, void *scratch) {
  Sample *const tables = (Sample *)scratch;
  fill_table(&r->y, tables);
  fill_table(&r->x_axis, tables + MAX_TABLE);
}

/* The region's maps and bins; no tables. */
static Roi roi_of(const RtTensor *x, const RtTensor *out, const int64_t *w) {
  Roi r = {0};
  r.x = x;
  r.max = w[1] == 1;
  r.y.bins = out->dims[2];
  r.y.size = x->dims[2];
  r.x_axis.bins = out->dims[3];
  r.x_axis.size = x->dims[3];
  return r;
}

/* in: X, rois, batch_indices. words: half_pixel, mode (0 avg, 1 max), sampling_ratio, spatial_scale
 * (double). scratch: 48 KiB and a row of X as f32. */
int32_t rt_roi_align(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                     const int64_t *w, void *scratch) {
  const RtTensor *x = &in[0], *rois = &in[1];
  const int64_t channels = x->dims[1], ph = out[0].dims[2], pw = out[0].dims[3];
  const int64_t plane = x->dims[2] * x->dims[3];
  if (rois->dims[1] < 4 || x->dims[2] < 1 || x->dims[3] < 1)
    return rt_count(&out[0]) ? BURIN_E_DATA : BURIN_OK;
  Roi r = roi_of(x, &out[0], w);
  r.line = (float *)(void *)((Sample *)scratch + 2 * MAX_TABLE);
  for (int64_t n = 0; n < out[0].dims[0]; n++) {
    const int64_t batch = rt_load_i(&in[2], n);
    if (batch < 0 || batch >= x->dims[0]) return BURIN_E_DATA;
    region(&r, rois, n, w);
    fill_tables(&r, scratch);
    const bool separable = is_separable(&r);
    for (int64_t c = 0; c < channels; c++) {
      const int64_t base = (batch * channels + c) * plane, to = (n * channels + c) * ph * pw;
      if (separable) {
        pool_plane(&r, (const float *)x->data + base, (float *)out[0].data + to);
        continue;
      }
      for (int64_t k = 0; k < ph * pw; k++)
        rt_store_f(&out[0], to + k, pool(&r, base, k / pw, k % pw));
    }
  }
  return BURIN_OK;
}
