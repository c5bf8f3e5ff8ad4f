/* RoiAlign: bilinear samples on a grid inside each bin of each region, averaged or their maximum.
 */
#include "runtime/ops.h"

typedef struct Plane {
  const RtTensor *x;
  int64_t base, h, w;
} Plane;

typedef struct Roi {
  double y, x, bin_h, bin_w; /* start and bin size */
  int64_t grid_h, grid_w;    /* samples in a bin */
} Roi;

enum { MAX_GRID = 4096 }; /* hostile regions must not run for hours */

static int64_t grid_size(int64_t ratio, double bin) {
  if (ratio > 0) return ratio;
  if (!(bin > 0)) return 0;
  if (bin > MAX_GRID) return MAX_GRID;
  const int64_t n = (int64_t)bin;
  return (double)n < bin ? n + 1 : n;
}

/* Four weighted corners; false: outside. */
static bool corners(const Plane *p, double y, double x, double *v) {
  if (!(y >= -1 && y <= (double)p->h && x >= -1 && x <= (double)p->w)) return false;
  y = y > 0 ? y : 0;
  x = x > 0 ? x : 0;
  int64_t y0 = (int64_t)y, x0 = (int64_t)x, y1 = y0 + 1, x1 = x0 + 1;
  if (y0 >= p->h - 1) y = (double)(y0 = y1 = p->h - 1);
  if (x0 >= p->w - 1) x = (double)(x0 = x1 = p->w - 1);
  const double ly = y - (double)y0, lx = x - (double)x0, hy = 1 - ly, hx = 1 - lx;
  v[0] = hy * hx * rt_load_f(p->x, p->base + y0 * p->w + x0);
  v[1] = hy * lx * rt_load_f(p->x, p->base + y0 * p->w + x1);
  v[2] = ly * hx * rt_load_f(p->x, p->base + y1 * p->w + x0);
  v[3] = ly * lx * rt_load_f(p->x, p->base + y1 * p->w + x1);
  return true;
}

static double pool(const Plane *p, const Roi *r, int64_t ph, int64_t pw, bool max) {
  double sum = 0, top = 0;
  bool any = false;
  for (int64_t iy = 0; iy < r->grid_h; iy++)
    for (int64_t ix = 0; ix < r->grid_w; ix++) {
      const double y =
          r->y + (double)ph * r->bin_h + ((double)iy + 0.5) * r->bin_h / (double)r->grid_h;
      const double x =
          r->x + (double)pw * r->bin_w + ((double)ix + 0.5) * r->bin_w / (double)r->grid_w;
      double v[4] = {0, 0, 0, 0};
      corners(p, y, x, v);
      for (int k = 0; k < 4; k++) {
        sum += v[k];
        if (!any || v[k] > top) top = v[k];
        any = true;
      }
    }
  const int64_t count = r->grid_h * r->grid_w;
  return max ? top : sum / (double)(count > 1 ? count : 1);
}

/* in: X, rois, batch_indices. words: half_pixel, mode (0 avg, 1 max), sampling_ratio, spatial_scale
 * (double). */
int32_t rt_roi_align(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                     const int64_t *w, void *scratch) {
  const RtTensor *x = &in[0], *rois = &in[1];
  const int64_t channels = x->dims[1], ph = out[0].dims[2], pw = out[0].dims[3],
                cols = rois->dims[1];
  const double scale = rt_word_f(w[3]), shift = w[0] ? 0.5 : 0;
  if (cols < 4 || x->dims[2] < 1 || x->dims[3] < 1)
    return rt_count(&out[0]) ? BURIN_E_DATA : BURIN_OK;
  for (int64_t n = 0; n < out[0].dims[0]; n++) {
    const int64_t batch = rt_load_i(&in[2], n);
    if (batch < 0 || batch >= x->dims[0]) return BURIN_E_DATA;
    double v[4];
    for (int k = 0; k < 4; k++) v[k] = rt_load_f(rois, n * cols + k) * scale - shift;
    double width = v[2] - v[0], height = v[3] - v[1];
    if (!w[0]) { /* malformed regions count as 1x1 */
      width = width > 1 ? width : 1;
      height = height > 1 ? height : 1;
    }
    Roi r = {v[1], v[0], height / (double)ph, width / (double)pw, 0, 0};
    r.grid_h = grid_size(w[2], r.bin_h);
    r.grid_w = grid_size(w[2], r.bin_w);
    for (int64_t c = 0; c < channels; c++) {
      const Plane p = {x, (batch * channels + c) * x->dims[2] * x->dims[3], x->dims[2], x->dims[3]};
      for (int64_t i = 0; i < ph; i++)
        for (int64_t j = 0; j < pw; j++)
          rt_store_f(&out[0], ((n * channels + c) * ph + i) * pw + j,
                     pool(&p, &r, i, j, w[1] == 1));
    }
  }
  return BURIN_OK;
}
