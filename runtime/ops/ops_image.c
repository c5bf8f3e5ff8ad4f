/* ImageDecoder: the pixels of a picture in a file's bytes (runtime/image). */
#include "runtime/image/image.h"
#include "runtime/ops/ops.h"

enum { FORM_RGB, FORM_BGR, FORM_GREY };

/* Pixel `from` of so many channels in another form; without transparency. */
static void convert(const uint8_t *from, uint32_t channels, int64_t form, uint8_t *to) {
  const uint32_t r = from[0], g = channels > 2 ? from[1] : r, b = channels > 2 ? from[2] : r;
  if (form == FORM_GREY) {
    to[0] = (uint8_t)(channels > 2 ? (19595 * r + 38470 * g + 7471 * b + 32768) >> 16 : r);
    return;
  }
  to[0] = (uint8_t)(form == FORM_BGR ? b : r);
  to[1] = (uint8_t)g;
  to[2] = (uint8_t)(form == FORM_BGR ? r : b);
}

/* in: the file's bytes. words: form. scratch: image_scratch for the sizes of the result, and 4 bytes
 * of each pixel. */
int32_t rt_image_decoder(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                         const int64_t *w, void *scratch) {
  RtTensor *y = &out[0];
  const ImageFile f = {in[0].data, (size_t)in[0].dims[0]};
  ImageInfo info;
  if (!image_info(f, &info)) return BURIN_E_DATA;
  if (info.format == IMAGE_OTHER) return BURIN_E_UNSUPPORTED;
  if (info.height > y->dims[0] || info.width > y->dims[1]) return BURIN_E_DIMS;
  uint8_t *pixels = (uint8_t *)scratch + image_scratch(f.size, info.width, info.height);
  if (!image_decode(f, &info, scratch, pixels)) return BURIN_E_DATA;
  y->dims[0] = info.height;
  y->dims[1] = info.width;
  const int64_t n = (int64_t)info.width * info.height, channels = y->dims[2];
  for (int64_t i = 0; i < n; i++)
    convert(pixels + i * info.channels, info.channels, w[0], (uint8_t *)y->data + i * channels);
  return BURIN_OK;
}
