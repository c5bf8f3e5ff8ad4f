/* The losses of a run as a picture: axes with numbers, a line for the training and one for the
 * validation, the accuracy on an axis of its own. Drawn at twice the size, and averaged down. */
#include <math.h>
#include <string.h>
#include "driver/train/trainer.h"

enum { WIDTH = 960, HEIGHT = 540, FINE = 2, LEFT = 84, RIGHT = 84, TOP = 44, BOTTOM = 56 };
enum { GLYPH_W = 5, GLYPH_H = 7 };

typedef struct Canvas { /* FINE times as wide and high as the picture */
  uint8_t *pixels;
} Canvas;
typedef uint32_t Colour; /* 0xrrggbb */
static const Colour black = 0x222222, grey = 0xdddddd, blue = 0x1f6fb4, red = 0xd9480f,
                    green = 0x2b8a3e;

/* ---- letters: rows of five bits, the first column is the highest ---- */
static const struct {
  char c;
  uint8_t rows[GLYPH_H];
} glyphs[] = {
    {'0', {14, 17, 19, 21, 25, 17, 14}}, {'1', {4, 12, 4, 4, 4, 4, 14}},
    {'2', {14, 17, 1, 2, 4, 8, 31}},     {'3', {31, 2, 4, 2, 1, 17, 14}},
    {'4', {2, 6, 10, 18, 31, 2, 2}},     {'5', {31, 16, 30, 1, 1, 17, 14}},
    {'6', {6, 8, 16, 30, 17, 17, 14}},   {'7', {31, 1, 2, 4, 8, 8, 8}},
    {'8', {14, 17, 17, 14, 17, 17, 14}}, {'9', {14, 17, 17, 15, 1, 2, 12}},
    {'.', {0, 0, 0, 0, 0, 12, 12}},      {'-', {0, 0, 0, 31, 0, 0, 0}},
    {'+', {0, 4, 4, 31, 4, 4, 0}},       {'%', {24, 25, 2, 4, 8, 19, 3}},
    {',', {0, 0, 0, 0, 12, 4, 8}},       {'a', {0, 0, 14, 1, 15, 17, 15}},
    {'b', {16, 16, 22, 25, 17, 17, 30}}, {'c', {0, 0, 14, 16, 16, 17, 14}},
    {'d', {1, 1, 13, 19, 17, 17, 15}},   {'e', {0, 0, 14, 17, 31, 16, 14}},
    {'g', {0, 15, 17, 17, 15, 1, 14}},   {'h', {16, 16, 22, 25, 17, 17, 17}},
    {'i', {4, 0, 12, 4, 4, 4, 14}},      {'l', {12, 4, 4, 4, 4, 4, 14}},
    {'n', {0, 0, 22, 25, 17, 17, 17}},   {'o', {0, 0, 14, 17, 17, 17, 14}},
    {'p', {0, 0, 30, 17, 30, 16, 16}},   {'r', {0, 0, 22, 25, 16, 16, 16}},
    {'s', {0, 0, 14, 16, 14, 1, 30}},    {'t', {8, 8, 28, 8, 8, 9, 6}},
    {'u', {0, 0, 17, 17, 17, 19, 13}},   {'v', {0, 0, 17, 17, 17, 10, 4}},
    {'y', {0, 0, 17, 17, 15, 1, 14}},
};

static void put(Canvas *c, int64_t x, int64_t y, Colour k) {
  if (x < 0 || y < 0 || x >= WIDTH * FINE || y >= HEIGHT * FINE) return;
  uint8_t *p = c->pixels + (y * WIDTH * FINE + x) * 3;
  p[0] = (uint8_t)(k >> 16), p[1] = (uint8_t)(k >> 8), p[2] = (uint8_t)k;
}

/* In pixels of the picture. */
static void box(Canvas *c, double x, double y, double w, double h, Colour k) {
  const int64_t x0 = llround(x * FINE), y0 = llround(y * FINE), x1 = llround((x + w) * FINE),
                y1 = llround((y + h) * FINE);
  for (int64_t j = y0; j < y1; j++)
    for (int64_t i = x0; i < x1; i++) put(c, i, j, k);
}

static const uint8_t *glyph(char ch) {
  for (size_t k = 0; k < sizeof glyphs / sizeof *glyphs; k++)
    if (glyphs[k].c == ch) return glyphs[k].rows;
  return NULL;
}

/* align: what part of the text lies left of x. */
static void text(Canvas *c, double x, double y, double align, Colour k, const char *s) {
  enum { SIZE = 2, STEP = (GLYPH_W + 1) * SIZE };
  x -= align * (double)(strlen(s) * STEP);
  for (; *s; s++, x += STEP) {
    const uint8_t *rows = glyph(*s);
    for (int j = 0; rows && j < GLYPH_H; j++)
      for (int i = 0; i < GLYPH_W; i++)
        if (rows[j] >> (GLYPH_W - 1 - i) & 1) box(c, x + i * SIZE, y + j * SIZE, SIZE, SIZE, k);
  }
}

static void dot(Canvas *c, double x, double y, double radius, Colour k) {
  const double r = radius * FINE, cx = x * FINE, cy = y * FINE;
  for (int64_t j = (int64_t)(cy - r); j <= (int64_t)(cy + r); j++)
    for (int64_t i = (int64_t)(cx - r); i <= (int64_t)(cx + r); i++)
      if (hypot((double)i - cx, (double)j - cy) <= r) put(c, i, j, k);
}

static void line(Canvas *c, double x0, double y0, double x1, double y1, Colour k) {
  const double n = ceil(hypot(x1 - x0, y1 - y0) * FINE) + 1;
  for (double i = 0; i <= n; i++) dot(c, x0 + (x1 - x0) * i / n, y0 + (y1 - y0) * i / n, 1.1, k);
}

/* ---- axes ---- */
typedef struct Axis {
  double lo, hi;
  bool log; /* lo and hi are logarithms */
} Axis;

static double place(const Axis *a, double v) {
  return ((a->log ? log10(v) : v) - a->lo) / (a->hi - a->lo);
}
static double at_x(const Axis *a, double v) { return LEFT + place(a, v) * (WIDTH - LEFT - RIGHT); }
static double at_y(const Axis *a, double v) {
  return HEIGHT - BOTTOM - place(a, v) * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2 or 5 times a power of ten, so that about `most` lie in the range. */
static double tick_step(double range, double most) {
  const double raw = range / most, power = pow(10, floor(log10(raw))), m = raw / power;
  return power * (m <= 1 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10);
}

static void mark_y(Canvas *c, const Axis *a, double v, bool left, Colour k) {
  char s[32];
  const double y = at_y(a, v);
  snprintf(s, sizeof s, "%g", fabs(v) < 1e-12 ? 0 : v);
  if (left) box(c, LEFT, y, WIDTH - LEFT - RIGHT, 1, grey);
  text(c, left ? LEFT - 8 : WIDTH - RIGHT + 8, y - 7, left ? 1 : 0, k, s);
}

static void marks_y(Canvas *c, const Axis *a, bool left, Colour k) {
  static const double nice[] = {1, 2, 5};
  if (!a->log) {
    const double step = tick_step(a->hi - a->lo, 6);
    for (double v = ceil(a->lo / step - 1e-9) * step; v <= a->hi + step * 1e-9; v += step)
      mark_y(c, a, v, left, k);
    return;
  }
  const bool dense = a->hi - a->lo < 3;
  for (double p = floor(a->lo); p <= a->hi; p++)
    for (int i = 0; i < (dense ? 3 : 1); i++) {
      const double v = nice[i] * pow(10, p);
      if (log10(v) >= a->lo - 1e-9 && log10(v) <= a->hi + 1e-9) mark_y(c, a, v, left, k);
    }
}

static void marks_x(Canvas *c, const Axis *a) {
  char s[32];
  const double step = fmax(1, tick_step(a->hi - a->lo, 10));
  for (double v = 0; v <= a->hi + 1e-9; v += step) {
    snprintf(s, sizeof s, "%g", v);
    box(c, at_x(a, v), HEIGHT - BOTTOM, 1, 5, black);
    text(c, at_x(a, v), HEIGHT - BOTTOM + 10, 0.5, black, s);
  }
  text(c, WIDTH / 2.0, HEIGHT - 22, 0.5, black, "epoch");
}

static void frame(Canvas *c) {
  box(c, LEFT, TOP, 1, HEIGHT - TOP - BOTTOM, black);
  box(c, WIDTH - RIGHT, TOP, 1, HEIGHT - TOP - BOTTOM, black);
  box(c, LEFT, HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT + 1, 1, black);
}

/* ---- curves ---- */
typedef double (*Figure)(const Epoch *e);
static double train_loss(const Epoch *e) { return e->train_loss; }
static double validation_loss(const Epoch *e) { return e->loss; }
static double accuracy(const Epoch *e) { return 100 * e->metric; }

static void curve(Canvas *c, const Trainer *t, const Axis *x, const Axis *y, Figure of, Colour k) {
  double x0 = NAN, y0 = NAN;
  for (int i = 0; i < t->at.history.n; i++) {
    const Epoch *e = &t->at.history.data[i];
    if (!isfinite(of(e))) continue;
    const double x1 = at_x(x, (double)e->epoch), y1 = at_y(y, of(e));
    if (!isnan(x0)) line(c, x0, y0, x1, y1, k);
    if (t->at.history.n < 80) dot(c, x1, y1, 3, k);
    x0 = x1, y0 = y1;
  }
}

/* Widened to all that `of` gives; false: nothing. */
static bool range(const Trainer *t, Figure of, double *lo, double *hi) {
  bool any = false;
  for (int i = 0; i < t->at.history.n; i++) {
    const double v = of(&t->at.history.data[i]);
    if (!isfinite(v)) continue;
    *lo = fmin(*lo, v);
    *hi = fmax(*hi, v);
    any = true;
  }
  return any;
}

/* Losses that differ by more than a factor are easier to tell apart by their logarithms. */
static Axis loss_axis(double lo, double hi) {
  static const double wide = 8;
  if (lo > 0 && hi / lo > wide) {
    const double a = log10(lo), b = log10(hi), more = 0.04 * (b - a);
    return (Axis){a - more, b + more, true};
  }
  const double more = hi > lo ? 0.06 * (hi - lo) : fmax(fabs(hi), 1) * 0.1;
  return (Axis){lo >= 0 && lo - more < 0 ? 0 : lo - more, hi + more, false};
}

static void legend(Canvas *c, double x, Colour k, const char *name) {
  box(c, x, 20, 24, 3, k);
  text(c, x + 30, 15, 0, k, name);
}

static void draw(Canvas *c, const Trainer *t) {
  double lo = INFINITY, hi = -INFINITY, low = INFINITY, high = -INFINITY;
  const Axis x = {0, fmax(1, (double)t->at.epoch), false};
  frame(c);
  marks_x(c, &x);
  const bool train = range(t, train_loss, &lo, &hi), loss = range(t, validation_loss, &lo, &hi);
  if (train || loss) {
    const Axis y = loss_axis(lo, hi);
    marks_y(c, &y, true, black);
    curve(c, t, &x, &y, train_loss, blue);
    curve(c, t, &x, &y, validation_loss, red);
    if (train) legend(c, LEFT, blue, "training loss");
    if (loss) legend(c, LEFT + 240, red, "validation loss");
  }
  if (range(t, accuracy, &low, &high)) {
    const double more = high > low ? 0.06 * (high - low) : 1;
    const Axis y = {fmax(0, low - more), fmin(100, high + more), false};
    marks_y(c, &y, false, green);
    curve(c, t, &x, &y, accuracy, green);
    legend(c, LEFT + 500, green, "accuracy, %");
  }
}

/* Each pixel of the picture is the mean of FINE × FINE. */
static void average(const Canvas *c, uint8_t *out) {
  for (int y = 0; y < HEIGHT; y++)
    for (int x = 0; x < WIDTH; x++)
      for (int k = 0; k < 3; k++) {
        int sum = FINE * FINE / 2;
        for (int j = 0; j < FINE * FINE; j++)
          sum += c->pixels[((y * FINE + j / FINE) * WIDTH * FINE + x * FINE + j % FINE) * 3 + k];
        *out++ = (uint8_t)(sum / (FINE * FINE));
      }
}

void curve_draw(const Trainer *t, Arena *a, Tensor *picture) {
  const size_t bytes = (size_t)WIDTH * HEIGHT * 3;
  Canvas c = {arena_alloc(a, bytes * FINE * FINE)};
  memset(c.pixels, 255, bytes * FINE * FINE);
  draw(&c, t);
  *picture = (Tensor){.dtype = DT_U8,
                      .rank = 3,
                      .dims = {HEIGHT, WIDTH, 3},
                      .count = (int64_t)bytes,
                      .data = arena_alloc(a, bytes)};
  average(&c, picture->data);
}
