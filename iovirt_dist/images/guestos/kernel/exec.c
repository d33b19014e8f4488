/* execve: the programs lie in the kernel image as ELF files (System V ABI, i386 supplement; TIS
 * ELF 1.2, book I). They were built with the kernel, yet are checked: a build may go wrong. */
#include "exec.h"

#include "abi.h"
#include "gdt.h"
#include "memory.h"
#include "paging.h"
#include "process.h"
#include "programs.h"
#include "string.h"

enum {
    ELF_EXECUTABLE = 2,
    ELF_MACHINE_386 = 3,
    ELF_LOAD = 1,
    ELF_WRITABLE = 2,
    STACK_SIZE = 8 * PAGE_SIZE,
};

struct elf_header {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t version, entry, program_headers, section_headers, flags;
    uint16_t header_size, program_header_size, program_header_count;
};

struct elf_segment {
    uint32_t type, offset, address, physical, file_size, memory_size, flags, align;
};

int arguments_add(struct arguments *arguments, const char *text)
{
    uint32_t size = strlen(text) + 1;

    if (arguments->count == ARGUMENTS_MAXIMUM ||
        size > sizeof arguments->text - arguments->length)
        return -E2BIG;
    arguments->offsets[arguments->count++] = (uint16_t)arguments->length;
    memcpy(arguments->text + arguments->length, text, size);
    arguments->length += size;
    return 0;
}

/* Writes to an address space that is not active. False: not mapped there. */
static bool write_space(const uint32_t *space, uint32_t address, const void *from,
                        uint32_t length)
{
    const uint8_t *source = from;

    while (length > 0) {
        void *target = space_translate(space, address, false);
        uint32_t part = PAGE_SIZE - address % PAGE_SIZE;

        if (target == NULL)
            return false;
        if (part > length)
            part = length;
        memcpy(target, source, part);
        address += part;
        source += part;
        length -= part;
    }
    return true;
}

static const struct elf_header *check_header(const struct program *program)
{
    const struct elf_header *header = (const struct elf_header *)program->start;
    uint32_t size = (uint32_t)(program->end - program->start);

    if (size < sizeof *header || memcmp(header->ident, "\177ELF\1\1\1", 7) != 0)
        return NULL;
    if (header->type != ELF_EXECUTABLE || header->machine != ELF_MACHINE_386)
        return NULL;
    if (header->program_header_size != sizeof(struct elf_segment) ||
        header->program_headers > size ||
        header->program_header_count * sizeof(struct elf_segment) >
            size - header->program_headers)
        return NULL;
    return header;
}

static int load_segment(uint32_t *space, const struct program *program,
                        const struct elf_segment *segment)
{
    uint32_t size = (uint32_t)(program->end - program->start);

    if (segment->offset > size || segment->file_size > size - segment->offset ||
        segment->file_size > segment->memory_size ||
        segment->memory_size > USER_END - STACK_SIZE ||
        segment->address > USER_END - STACK_SIZE - segment->memory_size)
        return -ENOEXEC;
    if (!space_map(space, segment->address, segment->address + segment->memory_size,
                   segment->flags & ELF_WRITABLE))
        return -ENOMEM;
    write_space(space, segment->address, program->start + segment->offset, segment->file_size);
    return 0;
}

/* Loads all segments; the heap begins behind the last one. */
static int load(uint32_t *space, const struct program *program,
                const struct elf_header *header, uint32_t *heap_start)
{
    const struct elf_segment *segment =
        (const struct elf_segment *)(program->start + header->program_headers);

    *heap_start = USER_START;
    for (unsigned i = 0; i < header->program_header_count; i++, segment++) {
        int error;

        if (segment->type != ELF_LOAD || segment->memory_size == 0)
            continue;
        error = load_segment(space, program, segment);
        if (error != 0)
            return error;
        if (segment->address + segment->memory_size > *heap_start)
            *heap_start = page_up(segment->address + segment->memory_size);
    }
    return 0;
}

/* Lays out argc, argv, an empty environment and the strings as the i386 ABI says (figure 3-31),
 * without an auxiliary vector. Returns the stack pointer. */
static uint32_t push_arguments(const uint32_t *space, const struct arguments *arguments)
{
    uint32_t text = (USER_END - arguments->length) & ~3u;
    uint32_t words[ARGUMENTS_MAXIMUM + 4];
    uint32_t count = 0;
    uint32_t esp;

    words[count++] = arguments->count;
    for (uint32_t i = 0; i < arguments->count; i++)
        words[count++] = text + arguments->offsets[i];
    words[count++] = 0; /* end of argv */
    words[count++] = 0; /* end of envp */
    words[count++] = 0; /* AT_NULL */
    esp = (text - count * sizeof *words) & ~15u;
    write_space(space, text, arguments->text, arguments->length);
    write_space(space, esp, words, count * sizeof *words);
    return esp;
}

static void replace_program(uint32_t *space, const struct program *program, uint32_t heap_start)
{
    uint32_t *old = current->space;

    current->space = space;
    current->heap_start = current->heap_end = heap_start;
    copy_string(current->name, program->name, NAME_LENGTH);
    space_activate(space);
    if (old != NULL)
        space_destroy(old);
}

int exec(const char *name, const struct arguments *arguments)
{
    const struct program *program = program_find(name);
    const struct elf_header *header;
    uint32_t heap_start, *space;
    int error;

    if (program == NULL)
        return -ENOENT;
    header = check_header(program);
    if (header == NULL)
        return -ENOEXEC;
    space = space_create();
    if (space == NULL)
        return -ENOMEM;
    error = load(space, program, header, &heap_start);
    if (error == 0 && !space_map(space, USER_END - STACK_SIZE, USER_END, true))
        error = -ENOMEM;
    if (error != 0) {
        space_destroy(space);
        return error;
    }
    replace_program(space, program, heap_start);
    *user_frame() = (struct trap_frame){
        .ds = USER_DATA,
        .es = USER_DATA,
        .eip = header->entry,
        .cs = USER_CODE,
        .eflags = EFLAGS_ALWAYS_ONE | EFLAGS_IF,
        .user_esp = push_arguments(space, arguments),
        .user_ss = USER_DATA,
    };
    return 0;
}
