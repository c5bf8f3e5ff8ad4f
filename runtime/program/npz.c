/* .npz: a zip of .npy files, one for each item of a sequence (numpy.savez, numpy.savez_compressed).
 * Sizes are those of the directory at the end. */
#include "program.h"
#include "runtime/image/image.h"

enum { END = 22, ENTRY = 46, LOCAL = 30, MOST_COMMENT = 65535, MOST_DIGITS = 18 };

static uint32_t get(const uint8_t *at, int bytes) {
  uint32_t v = 0;
  while (bytes-- > 0) v = v << 8 | at[bytes];
  return v;
}

static bool damaged(Program *p, const char *path, const char *what) {
  return program_error(p, "cannot read the .npz file %s: %s", path, what);
}

/* ---- the directory ---- */
/* The record that ends the file, with a comment behind it; NULL: there is none. */
static const uint8_t *find_end(Bytes f) {
  for (size_t behind = 0; behind <= MOST_COMMENT && f.size >= END + behind; behind++) {
    const uint8_t *at = f.data + f.size - END - behind;
    if (get(at, 4) == 0x06054b50 && get(at + 20, 2) == behind) return at;
  }
  return NULL;
}

/* What begins at `from` and has `size` bytes; false: it is not all there. */
static bool part_of(Bytes f, uint64_t from, uint64_t size, Bytes *out) {
  if (from > f.size || size > f.size - from) return false;
  *out = (Bytes){f.data + from, (size_t)size};
  return true;
}

/* Moves *at behind the entry. NULL: it is one that can be read. */
static const char *read_entry(Bytes f, uint64_t *at, NpzEntry *e) {
  static const char cut[] = "it is damaged or cut short";
  Bytes head, local;
  if (!part_of(f, *at, ENTRY, &head) || get(head.data, 4) != 0x02014b50) return cut;
  const uint32_t method = get(head.data + 10, 2), packed = get(head.data + 20, 4),
                 name = get(head.data + 28, 2), start = get(head.data + 42, 4);
  e->crc = get(head.data + 16, 4);
  e->size = get(head.data + 24, 4);
  e->deflated = method == 8;
  if (!part_of(f, *at + ENTRY, name, &e->name)) return cut;
  *at += ENTRY + (uint64_t)name + get(head.data + 30, 2) + get(head.data + 32, 2);
  if (get(head.data + 8, 2) & 1) return "it is encrypted";
  if (method != 0 && method != 8) return "an array is compressed in a way that is not known here";
  if (packed == UINT32_MAX || e->size == UINT32_MAX || start == UINT32_MAX)
    return "an array is larger than 4 GiB";
  if (!part_of(f, start, LOCAL, &local) || get(local.data, 4) != 0x04034b50) return cut;
  const uint64_t data = (uint64_t)start + LOCAL + get(local.data + 26, 2) + get(local.data + 28, 2);
  return part_of(f, data, packed, &e->packed) && (e->deflated || packed == e->size) ? NULL : cut;
}

/* ---- the order of items ---- */
/* Cuts off .npy; false: some other file. */
static bool is_array(NpzEntry *e) {
  static const char ending[] = ".npy";
  const size_t n = sizeof ending - 1;
  if (e->name.size < n) return false;
  e->name.size -= n;
  for (size_t i = 0; i < n; i++)
    if (e->name.data[e->name.size + i] != ending[i]) return false;
  return true;
}

/* Where the number begins that the name ends with. */
static size_t number_at(Bytes name) {
  size_t n = name.size;
  while (n > 0 && name.data[n - 1] >= '0' && name.data[n - 1] <= '9') n--;
  return n;
}

/* arr_0, arr_1 … (numpy.savez): one beginning, and a number, which is their place. */
static bool are_numbered(const Npz *z) {
  for (int64_t k = 0; k < z->n; k++) {
    NpzEntry *const e = &z->entries[k];
    const size_t n = number_at(e->name), digits = e->name.size - n;
    if (!digits || digits > MOST_DIGITS || n != number_at(z->entries[0].name)) return false;
    for (size_t i = 0; i < n; i++)
      if (e->name.data[i] != z->entries[0].name.data[i]) return false;
    e->number = 0;
    for (size_t i = n; i < e->name.size; i++) e->number = e->number * 10 + e->name.data[i] - '0';
  }
  return true;
}

/* Mostly they are in order. */
static void sort(const Npz *z) {
  for (int64_t k = 1; k < z->n; k++) {
    const NpzEntry e = z->entries[k];
    int64_t i = k;
    for (; i > 0 && z->entries[i - 1].number > e.number; i--) z->entries[i] = z->entries[i - 1];
    z->entries[i] = e;
  }
}

bool npz_open(Program *p, const char *path, Bytes f, Npz *out) {
  const uint8_t *const end = find_end(f);
  if (!end) return damaged(p, path, "it is no zip archive");
  const uint32_t n = get(end + 10, 2);
  uint64_t at = get(end + 16, 4);
  if (n == UINT16_MAX || at == UINT32_MAX)
    return damaged(p, path, "it has more than 65,534 arrays or 4 GiB");
  *out = (Npz){path, sys_alloc((n + 1) * sizeof *out->entries), 0};
  if (!out->entries) return program_error(p, "not enough memory");
  for (uint32_t k = 0; k < n; k++) {
    NpzEntry *const e = &out->entries[out->n];
    const char *const why = read_entry(f, &at, e);
    if (why) return damaged(p, path, why);
    if (is_array(e)) out->n++;
  }
  if (are_numbered(out)) sort(out);
  return true;
}

/* ---- one array ---- */
static uint32_t crc32(Bytes b) {
  static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
                                     0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                     0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                     0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
  uint32_t c = UINT32_MAX;
  for (size_t i = 0; i < b.size; i++) {
    c ^= b.data[i];
    c = c >> 4 ^ table[c & 15];
    c = c >> 4 ^ table[c & 15];
  }
  return ~c;
}

/* PATH:NAME, cut off where it is long. */
static void item_name(const Npz *z, const NpzEntry *e, char *out, size_t size) {
  size_t n = 0;
  for (const char *s = z->path; *s && n < size - 1; s++) out[n++] = *s;
  if (n < size - 1) out[n++] = ':';
  for (size_t i = 0; i < e->name.size && n < size - 1; i++) out[n++] = (char)e->name.data[i];
  out[n] = 0;
}

bool npz_item(Program *p, const Npz *z, int64_t k, const BurinTensorInfo *info, Tensor *t) {
  const NpzEntry *const e = &z->entries[k];
  char name[512];
  Bytes b = e->packed;
  if (e->deflated) {
    uint8_t *const data = sys_alloc((size_t)e->size + 1);
    if (!data) return program_error(p, "not enough memory");
    b = (Bytes){data, inflate_bytes(b.data, b.size, data, e->size) ? e->size : 0};
  }
  if (b.size != e->size || crc32(b) != e->crc)
    return damaged(p, z->path, "an array is damaged or cut short");
  item_name(z, e, name, sizeof name);
  return npy_parse(p, name, b, info, t);
}
