/* Images become input tensors: (pixel * scale - mean) / std, NCHW or NHWC, bilinear resize to a
 * fixed input size. Options behind the file name:
 * scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw,color=bgr */
#include "runtime/image/image.h"
#include "program.h"

bool image_read(Program *p, const char *path, Bytes f, Image *out) {
  const ImageFile file = {f.data, f.size};
  ImageInfo info;
  if (!image_info(file, &info))
    return program_error(p, "%s: damaged or unsupported PNG (interlaced?)", path);
  const uint64_t scratch = image_scratch(f.size, info.width, info.height);
  const uint64_t bytes = (uint64_t)info.width * info.height * info.channels;
  uint8_t *memory = scratch + bytes < SIZE_MAX / 2 ? sys_alloc((size_t)(scratch + bytes)) : NULL;
  if (!memory) return program_error(p, "%s: not enough memory", path);
  if (!image_decode(file, &info, memory, memory + scratch))
    return program_error(p, "%s: damaged PNG", path);
  *out = (Image){info.width, info.height, info.channels, memory + scratch};
  return true;
}

static bool parse_list(const char **s, double *values) {
  int n = 0;
  do {
    if (n == 4 || !text_double(s, &values[n++])) return false;
  } while (**s == ':' && ++*s);
  for (; n < 4; n++) values[n] = values[n - 1];
  return true;
}

static bool parse_options(const char *s, ImageOptions *o) {
  *o = (ImageOptions){1, {0}, {1, 1, 1, 1}, 0, false, false};
  while (*s) {
    const char *v;
    bool ok = true;
    if (text_starts(s, "scale=", &v))
      ok = text_double(&v, &o->scale);
    else if (text_starts(s, "mean=", &v))
      ok = parse_list(&v, o->mean);
    else if (text_starts(s, "std=", &v))
      ok = parse_list(&v, o->std);
    else if (text_starts(s, "layout=nchw", &v))
      o->layout = 'c';
    else if (text_starts(s, "layout=nhwc", &v))
      o->layout = 'h';
    else if (text_starts(s, "color=bgr", &v))
      o->bgr = true;
    else if (!text_starts(s, "color=rgb", &v))
      return false;
    if (!ok || (*v && *v != ',')) return false;
    s = *v ? v + 1 : v;
  }
  for (int c = 0; c < 4; c++)
    if (o->std[c] == 0) return false;
  return true;
}

/* One pixel's channel among `wanted` ones: gray from colour is luma, colour from gray repeats. */
static double channel(const Image *m, uint32_t x, uint32_t y, int64_t c, int64_t wanted) {
  const uint8_t *px = m->pixels + ((size_t)y * m->width + x) * m->channels;
  if (m->channels < 3) return wanted == 4 && c == 3 ? 255 : px[0];
  if (wanted == 1) return 0.299 * px[0] + 0.587 * px[1] + 0.114 * px[2];
  return c < m->channels ? px[c] : 255;
}

static double resized(const Image *m, int64_t x, int64_t y, int64_t w, int64_t h, int64_t c,
                      int64_t wanted) {
  if (w == m->width && h == m->height) return channel(m, (uint32_t)x, (uint32_t)y, c, wanted);
  double fx = ((double)x + 0.5) * m->width / (double)w - 0.5,
         fy = ((double)y + 0.5) * m->height / (double)h - 0.5;
  if (fx < 0) fx = 0;
  if (fy < 0) fy = 0;
  const uint32_t x0 = (uint32_t)fx < m->width ? (uint32_t)fx : m->width - 1;
  const uint32_t y0 = (uint32_t)fy < m->height ? (uint32_t)fy : m->height - 1;
  const uint32_t x1 = x0 + 1 < m->width ? x0 + 1 : x0, y1 = y0 + 1 < m->height ? y0 + 1 : y0;
  const double ax = fx - x0, ay = fy - y0;
  return (channel(m, x0, y0, c, wanted) * (1 - ax) + channel(m, x1, y0, c, wanted) * ax) *
             (1 - ay) +
         (channel(m, x0, y1, c, wanted) * (1 - ax) + channel(m, x1, y1, c, wanted) * ax) * ay;
}

/* Positions of channel, height and width among the dimensions; -1: there is none. */
typedef struct Axes {
  int c, h, w;
} Axes;

static bool is_channels(int64_t d) { return d == 1 || d == 3 || d == 4; }

static bool find_axes(const BurinTensorInfo *info, int layout, Axes *a) {
  const int r = info->rank;
  if (r < 2 || r > 4) return false;
  *a = (Axes){-1, r - 2, r - 1};
  if (r == 2) return true;
  const bool last = layout == 'h' ||
                    (!layout && is_channels(info->dims[r - 1]) && !is_channels(info->dims[r - 3]));
  *a = last ? (Axes){r - 1, r - 3, r - 2} : (Axes){r - 3, r - 2, r - 1};
  return true;
}

bool image_to_tensor(Program *p, const char *path, const Image *m, const char *options,
                     const BurinTensorInfo *info, Tensor *t) {
  ImageOptions o;
  Axes a;
  if (!parse_options(options, &o))
    return program_error(
        p, "%s: image options are scale=, mean=, std=, layout=nchw|nhwc, color=rgb|bgr", path);
  const NumberType *type = number_type(info->dtype);
  if (!type || !find_axes(info, o.layout, &a))
    return program_error(p, "%s: input %s of type %s does not take an image", path, info->name,
                         info->shape_text);
  t->dtype = info->dtype;
  t->rank = info->rank;
  for (int i = 0; i < t->rank; i++) {
    const int64_t size = i == a.c   ? (m->channels < 3 ? 1 : 3)
                         : i == a.h ? m->height
                         : i == a.w ? m->width
                                    : 1;
    t->dims[i] = info->dims[i] >= 0 ? info->dims[i] : size;
  }
  const int64_t channels = a.c < 0 ? 1 : t->dims[a.c], h = t->dims[a.h], w = t->dims[a.w];
  if (channels < 1 || channels > 4 || (t->rank == 4 && t->dims[0] != 1))
    return program_error(p, "%s: input %s of type %s does not take an image", path, info->name,
                         info->shape_text);
  if (!tensor_alloc(p, t, info->name)) return false;
  const int64_t step_c = a.c < 0     ? 0
                         : a.c < a.h ? h * w
                                     : 1,
                step_w = a.c > a.h ? channels : 1, step_h = w * step_w;
  for (int64_t c = 0; c < channels; c++)
    for (int64_t y = 0; y < h; y++)
      for (int64_t x = 0; x < w; x++) {
        const double v =
            resized(m, x, y, w, h, o.bgr && channels >= 3 && c < 3 ? 2 - c : c, channels);
        const double n = (v * o.scale - o.mean[c]) / o.std[c];
        number_store(type, t->data, (uint64_t)(c * step_c + y * step_h + x * step_w), n);
      }
  return true;
}
