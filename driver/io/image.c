/* Pictures of `burin run`: JPEG inputs become PNG, which compiled programs read; outputs become PNG
 * files. Decoding and encoding are libjpeg-turbo's and libspng's. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
/* behind <stdio.h> */
#include <jpeglib.h>
#include <spng.h>
#include "driver/driver.h"

enum { MOST_PIXELS = 1 << 15 }; /* of a side, as in compiled programs */

typedef struct Picture {            /* 8 bits, rows without padding */
  uint32_t width, height, channels; /* 1 or 3 */
  uint8_t *pixels;
} Picture;

/* ---- PNG ---- */
/* The file's bytes, to be freed; NULL: why. */
static void *png_encode(const Picture *p, int level, size_t *size, const char **why) {
  spng_ctx *c = spng_ctx_new(SPNG_CTX_ENCODER);
  struct spng_ihdr head = {
      .width = p->width,
      .height = p->height,
      .bit_depth = 8,
      .color_type = p->channels == 3 ? SPNG_COLOR_TYPE_TRUECOLOR : SPNG_COLOR_TYPE_GRAYSCALE};
  void *data = NULL;
  int e = c ? spng_set_option(c, SPNG_ENCODE_TO_BUFFER, 1) : SPNG_EMEM;
  if (!e) e = spng_set_option(c, SPNG_IMG_COMPRESSION_LEVEL, level);
  if (!e) e = spng_set_ihdr(c, &head);
  if (!e)
    e = spng_encode_image(c, p->pixels, (size_t)p->width * p->height * p->channels, SPNG_FMT_PNG,
                          SPNG_ENCODE_FINALIZE);
  if (!e) data = spng_get_png_buffer(c, size, &e);
  *why = spng_strerror(e);
  spng_ctx_free(c);
  return data;
}

/* ---- JPEG ---- */
typedef struct Failure {
  struct jpeg_error_mgr base; /* first: libjpeg has a pointer to it */
  jmp_buf back;
  char text[JMSG_LENGTH_MAX];
} Failure;

static void jpeg_failed(j_common_ptr c) {
  Failure *f = (Failure *)c->err;
  f->base.format_message(c, f->text);
  longjmp(f->back, 1);
}
static void jpeg_silent(j_common_ptr c) { (void)c; }

static bool jpeg_decode(Arena *a, const void *data, size_t size, Picture *out, Failure *f) {
  struct jpeg_decompress_struct c;
  c.err = jpeg_std_error(&f->base);
  f->base.error_exit = jpeg_failed;
  f->base.output_message = jpeg_silent;
  if (setjmp(f->back)) return jpeg_destroy_decompress(&c), false;
  jpeg_create_decompress(&c);
  jpeg_mem_src(&c, data, size);
  jpeg_read_header(&c, TRUE);
  if (c.image_width > MOST_PIXELS || c.image_height > MOST_PIXELS) {
    snprintf(f->text, sizeof f->text, "it is larger than %d pixels", MOST_PIXELS);
    longjmp(f->back, 1);
  }
  if (c.jpeg_color_space != JCS_GRAYSCALE) c.out_color_space = JCS_RGB;
  jpeg_start_decompress(&c);
  *out = (Picture){c.output_width, c.output_height, (uint32_t)c.output_components, NULL};
  const size_t row = (size_t)out->width * out->channels;
  out->pixels = arena_alloc(a, row * out->height);
  while (c.output_scanline < c.output_height) {
    JSAMPROW at = out->pixels + row * c.output_scanline;
    jpeg_read_scanlines(&c, &at, 1);
  }
  const bool damaged = f->base.num_warnings > 0;
  jpeg_finish_decompress(&c);
  jpeg_destroy_decompress(&c);
  if (damaged) snprintf(f->text, sizeof f->text, "the data is damaged or cut short");
  return !damaged;
}

/* The picture as a PNG in memory; its descriptor's path, or NULL: reported. */
static const char *png_memory(Arena *a, const char *path, const Picture *p) {
  size_t size = 0;
  const char *why;
  void *png = png_encode(p, 1, &size, &why);
  const int fd = png ? memfd_create("picture", 0) : -1;
  const bool ok = fd >= 0 && fd_write(fd, png, size);
  free(png);
  if (ok) return arena_printf(a, "/proc/self/fd/%d", fd);
  return usage_error("%s: %s", path, png ? "no memory" : why), NULL;
}

bool is_jpeg(const char *path) {
  unsigned char magic[3] = {0};
  FILE *f = is_regular(path) ? fopen(path, "rb") : NULL;
  if (!f) return false;
  const bool yes = fread(magic, 1, 3, f) == 3 && memcmp(magic, "\xff\xd8\xff", 3) == 0;
  fclose(f);
  return yes;
}

const char *image_argument(Session *s, const char *arg) {
  const char *at = strstr(arg, "=@");
  Failure failure = {.text = ""};
  Picture picture;
  size_t size;
  if (!at) return arg;
  const char *options = strchr(at, ',');
  const size_t n = options ? (size_t)(options - at) - 2 : strlen(at + 2);
  const char *path = arena_strndup(s->arena, at + 2, n);
  if (!is_jpeg(path)) return arg;
  const char *data = frontend_read_file(s->arena, s->diag, path, &size);
  const Loc loc = {.file = path, .node = -1};
  if (!data) return NULL;
  if (!jpeg_decode(s->arena, data, size, &picture, &failure))
    return diag_error(s->diag, &loc, ERR_IO, "cannot read the JPEG: %s", failure.text), NULL;
  const char *memory = png_memory(s->arena, path, &picture);
  return memory ? arena_printf(s->arena, "%.*s=@%s%s", (int)(at - arg), arg, memory,
                               options ? options : "")
                : NULL;
}

/* ---- tensors as pictures ---- */
typedef struct Axes { /* strides in elements */
  int64_t h, w, c, step_h, step_w, step_c;
} Axes;

/* HxW, HxWxC or CxHxW with one or three channels, behind ones. */
static bool find_axes(const Tensor *t, Axes *a) {
  int first = 0;
  while (t->rank - first > 3 && t->dims[first] == 1) first++;
  const int64_t *d = t->dims + first;
  const int rank = t->rank - first;
  if (rank == 2)
    *a = (Axes){d[0], d[1], 1, d[1], 1, 0};
  else if (rank != 3)
    return false;
  else if (d[0] == 1 || d[0] == 3)
    *a = (Axes){d[1], d[2], d[0], d[2], 1, d[1] * d[2]};
  else if (d[2] == 1 || d[2] == 3)
    *a = (Axes){d[0], d[1], d[2], d[1] * d[2], d[2], 1};
  else
    return false;
  return a->h > 0 && a->w > 0 && a->h <= MOST_PIXELS && a->w <= MOST_PIXELS;
}

static bool fill_picture(const Tensor *t, const Axes *a, double scale, Picture *p) {
  for (int64_t y = 0, at = 0; y < a->h; y++)
    for (int64_t x = 0; x < a->w; x++)
      for (int64_t c = 0; c < a->c; c++) {
        const double v = tensor_element(t, y * a->step_h + x * a->step_w + c * a->step_c) * scale;
        if (isnan(v)) return false;
        p->pixels[at++] = (uint8_t)(v <= 0 ? 0 : v >= 255 ? 255 : nearbyint(v));
      }
  return true;
}

bool png_write(Session *s, const char *path, OutFile *out, const Tensor *t, double scale) {
  Axes a;
  const Loc loc = {.file = path, .node = -1};
  const bool number = dtype_is_float(t->dtype) || t->dtype == DT_U8 || t->dtype == DT_BOOL;
  if (!number || !find_axes(t, &a))
    return diag_error(s->diag, &loc, ERR_UNSUPPORTED,
                      "a PNG takes floats or u8 of shape HxW, HxWx3 or 3xHxW, behind ones");
  Picture p = {(uint32_t)a.w, (uint32_t)a.h, (uint32_t)a.c,
               arena_alloc(s->arena, (size_t)(a.w * a.h * a.c))};
  if (!fill_picture(t, &a,
                    scale > 0                                         ? scale
                    : dtype_is_float(t->dtype) || t->dtype == DT_BOOL ? 255
                                                                      : 1,
                    &p))
    return diag_error(s->diag, &loc, ERR_UNSUPPORTED, "a PNG cannot hold NaN");
  size_t size = 0;
  const char *why;
  void *png = png_encode(&p, 6, &size, &why);
  if (!png) return diag_error(s->diag, &loc, ERR_OUTPUT, "cannot make the PNG: %s", why);
  const bool ok = outputs_write(s->outputs, out, png, size);
  free(png);
  return ok;
}
