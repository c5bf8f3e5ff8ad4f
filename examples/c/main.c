/* Reads drawings of digits (examples/digits/digits.txt) and says which they are, with a model
 * linked in as a library.
 *
 *   cmake -S examples/c -B build/example && cmake --build build/example
 *   build/example/digits examples/digits/digits.txt */
#include <stdalign.h>
#include <stdio.h>
#include <string.h>

#include "mnist.h"

enum { SIDE = 28 };

/* One drawing: 28 lines of 28 characters from black to white. */
static int read_digit(FILE *file, float *pixels) {
  static const char shades[] = " .:-=+*#%@";
  char line[64];
  for (int y = 0; y < SIDE; y++) {
    if (!fgets(line, sizeof line, file) || strlen(line) < SIDE) return 0;
    for (int x = 0; x < SIDE; x++) {
      const char *shade = strchr(shades, line[x]);
      pixels[y * SIDE + x] = shade ? (float)(shade - shades) * (255.0f / 9) : 0;
    }
  }
  return 1;
}

static int largest(const float *scores, int n) {
  int best = 0;
  for (int i = 1; i < n; i++)
    if (scores[i] > scores[best]) best = i;
  return best;
}

int main(int argc, char **argv) {
  static alignas(MNIST_ARENA_ALIGN) unsigned char arena[MNIST_ARENA_BYTES];
  float pixels[SIDE * SIDE], scores[10];
  const mnist_inputs in = {.Input3 = pixels};
  mnist_outputs out = {.Plus214_Output_0 = scores};

  FILE *file = fopen(argc > 1 ? argv[1] : "digits.txt", "r");
  if (!file || !mnist_cpu_ok()) {
    fprintf(stderr, file ? "this CPU cannot run the model\n" : "usage: digits digits.txt\n");
    return 1;
  }
  printf("read");
  while (read_digit(file, pixels)) {
    const int32_t status = mnist_run(&in, &out, arena);
    if (status != BURIN_OK) {
      fprintf(stderr, "%s\n", mnist_status_text(status));
      return 1;
    }
    printf(" %d", largest(scores, 10));
  }
  printf("\n");
  fclose(file);
  return 0;
}
