/* Pictures: what a file says about itself, and its pixels. Nothing is allocated; damaged files end in
 * false, whatever they hold. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum ImageFormat {
  IMAGE_PNG,
  IMAGE_JPEG,
  IMAGE_BMP,
  IMAGE_PNM,
  IMAGE_TIFF,
  IMAGE_OTHER
} ImageFormat;

typedef struct ImageInfo {
  ImageFormat format;
  uint32_t width, height; /* up to 32768 */
  uint32_t channels;      /* grey; grey, alpha; red, green, blue; and alpha */
} ImageInfo;

typedef struct ImageFile {
  const uint8_t *data;
  size_t size;
} ImageFile;

/* False: no picture, or one that cannot be decoded. IMAGE_OTHER: a format that is not known here. */
bool image_info(ImageFile f, ImageInfo *info);
/* Bytes of scratch for any picture of a file of `size` bytes with at most that many pixels; from
 * formulas too (ext_image_decoder), so it is this sum: */
enum { IMAGE_EDGE = 32, IMAGE_PIXEL = 16 };
static inline uint64_t image_scratch(uint64_t size, uint64_t width, uint64_t height) {
  return size + (width + IMAGE_EDGE) * (height + IMAGE_EDGE) * IMAGE_PIXEL;
}
/* Channels of a pixel side by side. */
bool image_decode(ImageFile f, const ImageInfo *info, uint8_t *scratch, uint8_t *pixels);

/* ---- one format each ---- */
bool png_info(ImageFile f, ImageInfo *info);
bool png_decode(ImageFile f, const ImageInfo *info, uint8_t *scratch, uint8_t *pixels);
bool jpeg_info(ImageFile f, ImageInfo *info);
bool jpeg_decode(ImageFile f, const ImageInfo *info, uint8_t *scratch, uint8_t *pixels);
bool bmp_info(ImageFile f, ImageInfo *info);
bool bmp_decode(ImageFile f, const ImageInfo *info, uint8_t *pixels);
bool pnm_info(ImageFile f, ImageInfo *info);
bool pnm_decode(ImageFile f, const ImageInfo *info, uint8_t *pixels);
bool tiff_info(ImageFile f, ImageInfo *info);
bool tiff_decode(ImageFile f, const ImageInfo *info, uint8_t *pixels);
/* Exactly `size` bytes of a deflate stream; false when it is damaged or of another size. */
bool inflate_bytes(const uint8_t *in, size_t in_size, uint8_t *out, size_t size);
