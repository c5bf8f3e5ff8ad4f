/* Parses the command line by the table options.def: `--opt=val` and `--opt val`, in any order with
 * the files. Unknown words are answered with the nearest known one. */
#include <stdlib.h>
#include <string.h>
#include "driver/driver.h"

typedef enum ArgKind { ARG_VALUE, ARG_LIST, ARG_FLAG } ArgKind;
typedef struct ArgRow {
  const char *name;
  ArgKind kind;
  size_t field;
  const char *value, *verbs, *help;
} ArgRow;
#define V(name, field, value, verbs, help) \
  {name, ARG_VALUE, offsetof(Options, field), value, verbs, help},
#define L(name, field, value, verbs, help) \
  {name, ARG_LIST, offsetof(Options, field), value, verbs, help},
#define F(name, field, verbs, help) {name, ARG_FLAG, offsetof(Options, field), NULL, verbs, help},
static const ArgRow rows[] = {
#include "driver/io/options.def"
};
#undef V
#undef L
#undef F
enum { N_ROWS = sizeof rows / sizeof *rows };
static const char *const verbs[] = {"compile",  "run",   "bench", "inspect", "diff",
                                    "quantize", "train", "prune", "help"};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

int usage_error(const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "burin: error: ");
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
  return EXIT_USAGE;
}

/* ---- nearest word ---- */
static int distance(const char *a, const char *b) {
  int row[64];
  const int n = (int)strlen(b);
  if (n >= 63 || strlen(a) >= 63) return 99;
  for (int j = 0; j <= n; j++) row[j] = j;
  for (int i = 1; a[i - 1]; i++) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= n; j++) {
      const int change = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      const int grow = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
      row[j] = change < grow ? change : grow;
    }
  }
  return row[n];
}

const char *closest(const char *word, const char *const *names, int n) {
  const char *best = NULL;
  int limit = (int)strlen(word) / 3 + 2;
  for (int k = 0; k < n; k++) {
    const int d = distance(word, names[k]);
    if (d < limit) {
      limit = d;
      best = names[k];
    }
  }
  return best;
}

static bool unknown_option(const char *arg, const char *name) {
  const char *names[N_ROWS];
  for (int k = 0; k < N_ROWS; k++) names[k] = rows[k].name;
  const char *near = closest(name, names, N_ROWS);
  if (near)
    usage_error("unknown option '%s'; did you mean '--%s'?", arg, near);
  else
    usage_error("unknown option '%s'; 'burin --help' lists them", arg);
  return false;
}

/* ---- options ---- */
static char verb_letter(const char *verb) { return strcmp(verb, "quantize") == 0 ? 'c' : verb[0]; }

static bool belongs(const ArgRow *r, const char *verb) {
  const char letter = verb_letter(verb);
  return strchr(r->verbs, letter) ||
         (letter == 'p' && strchr(r->verbs, 'c') && strchr(r->verbs, 'd'));
}

static bool set_option(Options *o, const ArgRow *r, const char *value) {
  char *const field = (char *)o + r->field;
  if (r->kind == ARG_FLAG) {
    *(bool *)field = true;
    return true;
  }
  if (r->kind == ARG_VALUE) {
    *(const char **)field = value;
    return true;
  }
  List *list = (List *)field;
  list->v[list->n++] = value;
  return true;
}

static bool long_option(Options *o, const char *arg, int argc, char **argv, int *k) {
  char name[64];
  const char *eq = strchr(arg, '=');
  const size_t n = eq ? (size_t)(eq - arg) - 2 : strlen(arg) - 2;
  snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : 63, arg + 2);
  const ArgRow *r = NULL;
  for (int i = 0; i < N_ROWS && !r; i++)
    if (strcmp(rows[i].name, name) == 0) r = &rows[i];
  if (!r) return unknown_option(arg, name);
  if (!belongs(r, o->verb))
    return usage_error("option '--%s' does not belong to 'burin %s'", r->name, o->verb), false;
  if (r->kind == ARG_FLAG && eq) return usage_error("option '--%s' takes no value", r->name), false;
  if (r->kind == ARG_FLAG || eq) return set_option(o, r, eq ? eq + 1 : NULL);
  if (*k + 1 >= argc)
    return usage_error("option '--%s' needs a value: --%s=%s", r->name, r->name, r->value), false;
  return set_option(o, r, argv[++*k]);
}

static bool short_option(Options *o, const char *arg, int argc, char **argv, int *k) {
  if (strcmp(arg, "-q") == 0) return o->quiet = true;
  if (strcmp(arg, "-h") == 0) return o->help = true;
  if (arg[1] == 'O' && arg[2] >= '0' && arg[2] <= '3' && !arg[3]) {
    o->opt = arg + 2;
    return true;
  }
  if (arg[1] == 'o' && !strchr("ctp", verb_letter(o->verb)))
    return usage_error("option '-o' does not belong to 'burin %s'", o->verb), false;
  if (arg[1] == 'o' && arg[2]) {
    o->output = arg + 2;
    return true;
  }
  if (strcmp(arg, "-o") != 0) return unknown_option(arg, arg + 1);
  if (*k + 1 >= argc) return usage_error("option '-o' needs a file name"), false;
  o->output = argv[++*k];
  return true;
}

/* The first word is a verb, or a model for `compile`. */
static int take_verb(int argc, char **argv, Options *o) {
  o->verb = "compile";
  for (int k = 0; argc > 1 && k < N_VERBS; k++)
    if (strcmp(argv[1], verbs[k]) == 0) {
      o->verb = verbs[k];
      return 2;
    }
  return 1;
}

/* Every list could hold the whole command line. */
static bool make_lists(int argc, Options *o) {
  bool ok = (o->files.v = calloc((size_t)argc + 1, sizeof *o->files.v)) != NULL;
  for (int k = 0; k < N_ROWS; k++) {
    List *list = (List *)((char *)o + rows[k].field);
    if (rows[k].kind == ARG_LIST)
      ok = (list->v = calloc((size_t)argc + 1, sizeof *list->v)) != NULL && ok;
  }
  return ok || (usage_error("out of memory"), false);
}

bool args_parse(int argc, char **argv, Options *o) {
  *o = (Options){.argc = argc, .argv = argv};
  if (!make_lists(argc, o)) return false;
  bool only_files = false;
  for (int k = take_verb(argc, argv, o); k < argc; k++) {
    const char *arg = argv[k];
    if (!only_files && strcmp(arg, "--") == 0)
      only_files = true;
    else if (!only_files && arg[0] == '-' && arg[1] == '-') {
      if (!long_option(o, arg, argc, argv, &k)) return false;
    } else if (!only_files && arg[0] == '-' && arg[1]) {
      if (!short_option(o, arg, argc, argv, &k)) return false;
    } else
      o->files.v[o->files.n++] = arg;
  }
  return true;
}

bool args_choice(const char *option, const char *text, const char *const *names, int n, int *out) {
  StrBuf all = {.arena = arena_new(0, NULL, NULL)};
  int k = 0;
  while (text && k < n && strcmp(text, names[k]) != 0) k++;
  if (k < n && text) *out = k;
  for (int i = 0; i < n; i++)
    sb_printf(&all, "%s%s", i == 0 ? "" : i < n - 1 ? ", " : " and ", names[i]);
  if (k == n) usage_error("%s: '%s' is none of %s", option, text, sb_str(&all));
  arena_free(all.arena);
  return k < n;
}

bool args_number(const char *option, const char *text, int64_t lo, int64_t hi, int64_t *out) {
  char *end;
  const long long v = strtoll(text, &end, 10);
  if (end == text || *end || v < lo || v > hi) {
    usage_error("%s: '%s' is no number from %lld to %lld", option, text, (long long)lo,
                (long long)hi);
    return false;
  }
  *out = v;
  return true;
}

bool args_size(const char *option, const char *text, size_t *out) {
  char *end;
  const double v = strtod(text, &end);
  const int shift = *end == 'K' || *end == 'k'   ? 10
                    : *end == 'M' || *end == 'm' ? 20
                    : *end == 'G' || *end == 'g' ? 30
                                                 : 0;
  if (shift) end++;
  if (*end == 'B' || *end == 'i')
    end = (char *)(strcmp(end, "B") == 0 || strcmp(end, "iB") == 0 ? "" : end);
  if (end == text || *end || !(v > 0) || v * (double)(1 << shift) > 9e18)
    return usage_error("%s: '%s' is no size, such as 4G", option, text), false;
  *out = (size_t)(v * (double)((int64_t)1 << shift));
  return true;
}

/* ---- help ---- */
static const struct {
  const char *verb, *line, *text;
} helps[] = {
    {"compile", "burin [compile] MODEL.onnx [-o OUT] [options]",
     "Compiles an ONNX model to native code that needs no framework where it runs.\n\n"
     "  burin model.onnx -o model                     a standalone program; try ./model --help\n"
     "  burin model.onnx --emit=obj,header -o model   model.o and model.h to link into C or C++\n"
     "  burin model.onnx --emit=c,header -o model     model.c, C99 for any compiler, and model.h\n"
     "  burin model.onnx --emit=shared -o libm.so     a shared library\n"
     "  burin model.onnx --target=aarch64 -o model    cross-compiles; no other toolchain is "
     "needed\n"
     "  burin model.onnx --dim batch=1 -o model       fixes a symbolic size\n"
     "  burin model.onnx --tune=FILE                  measures choices here, for --tuning=FILE\n"
     "  burin model.onnx --emit=graph                 prints the optimized graph\n"
     "  burin model.onnx --emit=loop --target=x86-64-v3   prints the loop nests\n"},
    {"run", "burin run MODEL.onnx|PROGRAM [options]",
     "Compiles a model and runs it once, or runs a compiled program.\n\n"
     "  burin run model.onnx --input x=@x.npy --output y=@y.npy\n"
     "  burin run model.onnx --input x=1x3xf32=1,2,3\n"
     "  burin run model.onnx --input x=@x.pb --expect y=@y.pb --rtol 1e-4\n"
     "  burin run --interpret model.onnx --input x=@x.npy      without generating code\n"},
    {"bench", "burin bench MODEL.onnx|PROGRAM [options]",
     "Compiles a model and measures it.\n\n"
     "  burin bench model.onnx --dim batch=1 --threads 4\n"
     "  burin bench model.onnx --profile                       time per kernel\n"
     "  burin bench model.onnx --profile --print-plan          beside what cost models expect\n"},
    {"inspect", "burin inspect MODEL.onnx [options]",
     "Prints inputs, outputs, operators, weights and work of a model.\n\n"
     "  burin inspect model.onnx\n"
     "  burin inspect model.onnx --dim batch=1 --json\n"},
    {"quantize", "burin quantize MODEL.onnx --calibrate=DATA -o OUT.onnx [options]",
     "Quantizes a model to 8 bits, as it behaves on samples, and writes it as ONNX with "
     "QuantizeLinear "
     "and DequantizeLinear.\n\n"
     "  burin quantize model.onnx --calibrate=samples.npz -o int8.onnx\n"
     "  burin quantize model.onnx --calibrate=samples.npz --labels=y --max-drop=0.5 -o int8.onnx\n"
     "  burin model.onnx --quantize=int8 --calibrate=samples.npz -o program    both at once\n"
     "  burin quantize model.onnx --precision=bf16 -o bf16.onnx                floats of 16 "
     "bits\n"},
    {"train", "burin train MODEL.onnx --data=DATA.npz --labels=NAME -o OUT.onnx [options]",
     "Trains a model on samples and writes it as ONNX.\n\n"
     "  burin train model.onnx --data=samples.npz --labels=y --epochs=20 -o trained.onnx\n"
     "  burin train model.onnx --data=samples.npz --labels=y --trainable=last2 -o tuned.onnx\n"
     "  burin train model.onnx --data=images.npz,scale=1/255 --labels=y --from-scratch "
     "--optimizer=adamw,lr=0.002,schedule=cosine --validation=others.npz --patience=5 "
     "--checkpoint=run.state --curve=run.png --log=run.csv -o trained.onnx\n"
     "  burin train … --resume=run.state                       goes on where it was stopped\n"
     "  burin model.onnx --state=run.state -o best.onnx        the best so far\n"
     "  burin train model.onnx --data=samples.npz --labels=y --epochs=0     only measures\n"},
    {"prune", "burin prune MODEL.onnx -o OUT.onnx [options]",
     "Removes the channels of a model that matter least, and all that belongs to them, and writes "
     "it as "
     "ONNX; or sets single weights to 0.\n\n"
     "  burin prune model.onnx --data=samples.npz --labels=y --channels=0.5 -o small.onnx\n"
     "  burin prune model.onnx --data=samples.npz --labels=y --max-drop=1 --report=report.json -o "
     "small.onnx\n"
     "  burin prune model.onnx --channels=0.8 -o small.onnx        by magnitude, without data\n"
     "  burin prune model.onnx --data=samples.npz --labels=y --sparsity=0.8 --epochs=5 -o "
     "sparse.onnx\n"
     "  burin prune model.onnx --nm=2:4 -o sparse.onnx             weights become 0, sizes stay\n"},
    {"diff", "burin diff A.npy B.npy | burin diff MODEL.onnx [options]",
     "Compares two tensors, or what a model gives without and with optimization. Exit 7 where they "
     "differ.\n\n"
     "  burin diff got.npy wanted.npy --rtol 1e-4\n"
     "  burin diff model.onnx --input x=@x.npy                 -O0 against -O3\n"},
};

/* In columns of characters, not of bytes. */
static void print_option(const char *left, const char *help) {
  int hidden = 0; /* bytes behind the first of a character */
  for (const char *c = left; *c; c++) hidden += (*c & 0xc0) == 0x80;
  printf("  %-*s %s\n", 32 + hidden, left, help);
}

int help_print(const char *verb) {
  if (strcmp(verb, "help") == 0) verb = "compile";
  for (size_t k = 0; k < sizeof helps / sizeof *helps; k++) {
    if (strcmp(helps[k].verb, verb) != 0) continue;
    printf("usage: %s\n\n%s\n", helps[k].line, helps[k].text);
  }
  if (strcmp(verb, "compile") == 0)
    printf(
        "Other verbs: burin run, bench, inspect, diff, quantize, train, prune; each has its "
        "--help.\n\n");
  printf("Options:\n");
  if (strchr("crbdtp", verb_letter(verb)))
    print_option("-O0 … -O3", "how much to optimize (default -O3)");
  if (strchr("ctp", verb_letter(verb))) print_option("-o OUT", "output file");
  for (int k = 0; k < N_ROWS; k++) {
    char left[80];
    if (!belongs(&rows[k], verb)) continue;
    snprintf(left, sizeof left, "--%s%s%s", rows[k].name, rows[k].value ? "=" : "",
             rows[k].value ? rows[k].value : "");
    print_option(left, rows[k].help);
  }
  printf(
      "\nExit status: 0 ok, 1 error in the model, 2 usage, 3 file access, 4 output or link, 5 "
      "unsupported,\n"
      "6 limit reached, 7 mismatch, 70 internal error.\n");
  return EXIT_OK;
}
