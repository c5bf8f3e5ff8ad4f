/* Which format a file has, by its first bytes. */
#include "runtime/image/image.h"

enum { MAX_SIDE = 1 << 15 };

typedef struct Signature {
  uint8_t size, bytes[8];
  ImageFormat format;
} Signature;

static const Signature signatures[] = {
    {8, {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, IMAGE_PNG},
    {3, {0xff, 0xd8, 0xff}, IMAGE_JPEG},
    {2, {'B', 'M'}, IMAGE_BMP},
    {2, {'P', '5'}, IMAGE_PNM},
    {2, {'P', '6'}, IMAGE_PNM},
    {4, {'I', 'I', 42, 0}, IMAGE_TIFF},
    {4, {'M', 'M', 0, 42}, IMAGE_TIFF},
};

static ImageFormat format_of(ImageFile f) {
  for (size_t k = 0; k < sizeof signatures / sizeof *signatures; k++) {
    const Signature *s = &signatures[k];
    size_t same = 0;
    while (same < s->size && same < f.size && f.data[same] == s->bytes[same]) same++;
    if (same == s->size) return s->format;
  }
  return IMAGE_OTHER;
}

bool image_info(ImageFile f, ImageInfo *info) {
  static bool (*const readers[])(ImageFile, ImageInfo *) = {png_info, jpeg_info, bmp_info, pnm_info,
                                                            tiff_info};
  *info = (ImageInfo){.format = format_of(f)};
  if (info->format == IMAGE_OTHER) return true;
  return readers[info->format](f, info) && info->width && info->height && info->width <= MAX_SIDE &&
         info->height <= MAX_SIDE;
}

bool image_decode(ImageFile f, const ImageInfo *info, uint8_t *scratch, uint8_t *pixels) {
  switch (info->format) {
    case IMAGE_PNG: return png_decode(f, info, scratch, pixels);
    case IMAGE_JPEG: return jpeg_decode(f, info, scratch, pixels);
    case IMAGE_BMP: return bmp_decode(f, info, pixels);
    case IMAGE_PNM: return pnm_decode(f, info, pixels);
    case IMAGE_TIFF: return tiff_decode(f, info, pixels);
    default: return false;
  }
}
