/* Inside a JPEG file; internal to runtime/image. */
#pragma once
#include "runtime/image/image.h"

typedef struct JpegCode { /* canonical Huffman code */
  uint8_t count[17], symbol[256];
  bool set;
} JpegCode;

typedef struct JpegComponent {
  uint32_t id, h, v, quant, dc, ac; /* factors of sampling; numbers of tables */
  uint32_t width, height;           /* samples that the picture has */
  uint32_t blocks_x, blocks_y;      /* whole units of all components */
  int32_t before;                   /* the DC value in front */
  int16_t *coef;                    /* 64 of each block, rows of blocks */
  uint8_t *samples;                 /* 8 blocks_x in a row */
} JpegComponent;

typedef struct Jpeg {
  ImageFile f;
  size_t at;
  uint32_t width, height, n, h_most, v_most, restart;
  bool progressive, rgb, frame;
  JpegComponent c[3];
  uint16_t quant[4][64]; /* in zigzag order */
  JpegCode dc[4], ac[4];
} Jpeg;

extern const uint8_t jpeg_zigzag[64];
/* The entropy-coded data of one scan, whose header is at f.at. */
bool jpeg_scan(Jpeg *j);
/* 64 coefficients and their steps → samples, as libjpeg's exact integer transform has them. */
void jpeg_inverse(const int16_t *coef, const uint16_t *quant, uint8_t *out, size_t stride);
