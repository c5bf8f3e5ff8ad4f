/* Symbols of an object that others link: all but the public functions become local, so that
 * nothing of the runtime that it carries (division on 32-bit ARM, memory functions) serves or
 * changes the host program, and several models lie side by side. Local symbols come first in an ELF
 * symbol table, so the table is put in order and the relocations follow. */
#include <elf.h>
#include <stddef.h>
#include <string.h>

#include "codegen/link/link.h"

/* Where things stand in the two classes. */
typedef struct Places {
  size_t shoff, shnum, header, offset, size, link, info, entry, symbol, bind, other, index, reloc;
} Places;
static const Places layouts[2] = {
    {offsetof(Elf32_Ehdr, e_shoff), offsetof(Elf32_Ehdr, e_shnum), sizeof(Elf32_Shdr),
     offsetof(Elf32_Shdr, sh_offset), offsetof(Elf32_Shdr, sh_size), offsetof(Elf32_Shdr, sh_link),
     offsetof(Elf32_Shdr, sh_info), offsetof(Elf32_Shdr, sh_entsize), sizeof(Elf32_Sym),
     offsetof(Elf32_Sym, st_info), offsetof(Elf32_Sym, st_other), offsetof(Elf32_Sym, st_shndx),
     offsetof(Elf32_Rel, r_info)},
    {offsetof(Elf64_Ehdr, e_shoff), offsetof(Elf64_Ehdr, e_shnum), sizeof(Elf64_Shdr),
     offsetof(Elf64_Shdr, sh_offset), offsetof(Elf64_Shdr, sh_size), offsetof(Elf64_Shdr, sh_link),
     offsetof(Elf64_Shdr, sh_info), offsetof(Elf64_Shdr, sh_entsize), sizeof(Elf64_Sym),
     offsetof(Elf64_Sym, st_info), offsetof(Elf64_Sym, st_other), offsetof(Elf64_Sym, st_shndx),
     offsetof(Elf64_Rel, r_info)},
};

typedef struct Object {
  char *p;
  const Places *at;
  bool wide; /* 64 bits */
  char *sections;
  uint64_t n_sections;
} Object;

static uint32_t word(const char *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return v;
}
static uint64_t address(const Object *o, const char *p) {
  uint64_t v;
  if (!o->wide) return word(p);
  memcpy(&v, p, sizeof v);
  return v;
}
static char *section(const Object *o, uint64_t k) { return o->sections + k * o->at->header; }
static uint32_t type_of(const char *s) { return word(s + offsetof(Elf32_Shdr, sh_type)); }
static char *data_of(const Object *o, const char *s) {
  return o->p + address(o, s + o->at->offset);
}
static uint64_t size_of(const Object *o, const char *s) { return address(o, s + o->at->size); }

static Object open_object(char *elf) {
  Object o = {.p = elf, .wide = elf[EI_CLASS] == ELFCLASS64};
  uint16_t n;
  o.at = &layouts[o.wide];
  o.sections = elf + address(&o, elf + o.at->shoff);
  memcpy(&n, elf + o.at->shnum, sizeof n);
  o.n_sections = n ? n : size_of(&o, o.sections); /* many: the number stands in section 0 */
  return o;
}

static bool is_public(const char *name, const char *const *exports) {
  for (; *exports; exports++)
    if (strcmp(name, *exports) == 0) return true;
  return false;
}

/* ---- the table ---- */
static bool stays_global(const Object *o, const char *symbol, const char *strings,
                         const char *const *exports) {
  uint16_t in;
  memcpy(&in, symbol + o->at->index, sizeof in);
  if (ELF64_ST_BIND((unsigned char)symbol[o->at->bind]) == STB_LOCAL) return false;
  return in == SHN_UNDEF || is_public(strings + word(symbol), exports);
}

/* Puts n entries into their new places. */
static void permute(Arena *a, char *data, size_t entry, const uint32_t *place, uint64_t n) {
  char *const old = ARENA_ARRAY(a, char, n *entry + 1);
  memcpy(old, data, n * entry);
  for (uint64_t i = 0; i < n; i++) memcpy(data + place[i] * entry, old + i * entry, entry);
}

/* Makes symbols local and orders the table; where each went. */
static uint32_t *order_symbols(const Object *o, char *table, const char *const *exports, Arena *a) {
  char *const symbols = data_of(o, table);
  const uint64_t n = size_of(o, table) / o->at->symbol;
  const char *const strings = data_of(o, section(o, word(table + o->at->link)));
  uint32_t *const place = ARENA_ARRAY(a, uint32_t, n + 1);
  uint32_t next = 0;
  for (int global = 0; global < 2; global++) {
    for (uint64_t i = 0; i < n; i++) {
      char *const s = symbols + i * o->at->symbol;
      if (stays_global(o, s, strings, exports) != (global == 1)) continue;
      place[i] = next++;
      if (global) continue;
      s[o->at->bind] = (char)ELF64_ST_INFO(STB_LOCAL, ELF64_ST_TYPE((unsigned char)s[o->at->bind]));
      s[o->at->other] = 0;
    }
    if (!global) memcpy(table + o->at->info, &next, sizeof next); /* the first that is not local */
  }
  permute(a, symbols, o->at->symbol, place, n);
  return place;
}

/* ---- what refers to it ---- */
static void move_relocations(const Object *o, const char *s, const uint32_t *place) {
  const uint64_t entry = address(o, s + o->at->entry), n = size_of(o, s) / entry;
  for (uint64_t i = 0; i < n; i++) {
    char *const r = data_of(o, s) + i * entry + o->at->reloc;
    if (o->wide) {
      const uint64_t v = address(o, r);
      const uint64_t moved = ELF64_R_INFO((uint64_t)place[ELF64_R_SYM(v)], ELF64_R_TYPE(v));
      memcpy(r, &moved, sizeof moved);
    } else {
      const uint32_t v = word(r);
      const uint32_t moved = ELF32_R_INFO(place[ELF32_R_SYM(v)], ELF32_R_TYPE(v));
      memcpy(r, &moved, sizeof moved);
    }
  }
}

static void follow(const Object *o, uint64_t table, const uint32_t *place, Arena *a) {
  enum { LLVM_ADDRSIG = 0x6fff4c03 };
  for (uint64_t k = 0; k < o->n_sections; k++) {
    char *const s = section(o, k);
    const uint32_t type = type_of(s);
    if (word(s + o->at->link) != table) continue;
    if (type == SHT_REL || type == SHT_RELA) move_relocations(o, s, place);
    if (type == SHT_SYMTAB_SHNDX) permute(a, data_of(o, s), 4, place, size_of(o, s) / 4);
    if (type == SHT_GROUP) memcpy(s + o->at->info, &place[word(s + o->at->info)], 4);
    if (type == LLVM_ADDRSIG) memset(s + o->at->size, 0, o->wide ? 8 : 4); /* a hint: none */
  }
}

void object_localise(char *elf, const char *const *exports, Arena *a) {
  const Object o = open_object(elf);
  for (uint64_t k = 0; k < o.n_sections; k++)
    if (type_of(section(&o, k)) == SHT_SYMTAB)
      follow(&o, k, order_symbols(&o, section(&o, k), exports, a), a);
}
