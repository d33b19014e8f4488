/* Two-level paging with 4 KiB pages (Intel SDM volume 3, section 4.3). A change of a mapping that
 * may be in the TLB is followed by a load of CR3, since INVLPG is no 80386 instruction. */
#include "paging.h"

#include "gdt.h"
#include "memory.h"
#include "printk.h"
#include "string.h"
#include "x86.h"

enum {
    PRESENT = 1,
    WRITABLE = 2,
    USER = 4,
    WRITE_THROUGH = 8, /* this and the next: for devices; no meaning on an 80386 */
    CACHE_DISABLED = 16,
    ENTRIES = 1024,
    KERNEL_TABLES = KERNEL_SPACE_END >> 22,
    DEVICE_TABLES = 768, /* and above: USER_END >> 22 */
    CR0_EMULATE_FPU = 0x4,
};
#define CR0_PAGING 0x80000000u

static uint32_t *kernel_space;
static const uint32_t *active_space;

static uint32_t *table_of(const uint32_t *space, uint32_t address)
{
    uint32_t entry = space[address >> 22];

    return entry & PRESENT ? (uint32_t *)page_down(entry) : NULL;
}

static uint32_t *entry_of(const uint32_t *space, uint32_t address)
{
    uint32_t *table = table_of(space, address);

    return table != NULL ? &table[(address >> 12) % ENTRIES] : NULL;
}

/* The page table entry for `address`, with its table made if need be. */
static uint32_t *make_entry(uint32_t *space, uint32_t address)
{
    if (table_of(space, address) == NULL) {
        uint32_t table = (uint32_t)page_alloc();
        if (table == 0)
            return NULL;
        space[address >> 22] = table | PRESENT | WRITABLE | USER;
    }
    return entry_of(space, address);
}

void paging_init(uint32_t end)
{
    kernel_space = page_alloc();
    for (uint32_t page = PAGE_SIZE; page < end; page += PAGE_SIZE) {
        uint32_t *entry = make_entry(kernel_space, page);
        if (entry == NULL)
            panic("no memory for the kernel's page tables");
        *entry = page | PRESENT | WRITABLE;
    }
    set_double_fault_directory((uint32_t)kernel_space);
    space_activate(NULL);
    /* No program's FPU state is saved, so its first FPU instruction shall fault (volume 3, 2.5). */
    write_cr0(read_cr0() | CR0_PAGING | CR0_EMULATE_FPU);
}

bool paging_map_device(uint32_t address, uint32_t length)
{
    uint32_t last = page_down(address + length - 1);

    if (address < USER_END || last < page_down(address))
        return false;
    for (uint32_t page = page_down(address);; page += PAGE_SIZE) {
        uint32_t *entry = make_entry(kernel_space, page);
        if (entry == NULL)
            return false;
        *entry = page | PRESENT | WRITABLE | WRITE_THROUGH | CACHE_DISABLED;
        if (page == last)
            break;
    }
    write_cr3((uint32_t)active_space);
    return true;
}

void paging_unmap_kernel_page(const void *address)
{
    *entry_of(kernel_space, (uint32_t)address) = 0;
    write_cr3((uint32_t)active_space);
}

void space_activate(const uint32_t *space)
{
    if (space == NULL)
        space = kernel_space;
    if (space == active_space)
        return;
    active_space = space;
    write_cr3((uint32_t)space);
}

uint32_t *space_create(void)
{
    uint32_t *space = page_alloc();

    if (space == NULL)
        return NULL;
    memcpy(space, kernel_space, KERNEL_TABLES * sizeof *space);
    memcpy(space + DEVICE_TABLES, kernel_space + DEVICE_TABLES,
           (ENTRIES - DEVICE_TABLES) * sizeof *space);
    return space;
}

uint32_t *space_copy(const uint32_t *from)
{
    uint32_t *space = space_create();

    if (space == NULL)
        return NULL;
    for (uint32_t i = KERNEL_TABLES; i < DEVICE_TABLES; i++) {
        const uint32_t *table = table_of(from, i << 22);
        for (uint32_t j = 0; table != NULL && j < ENTRIES; j++) {
            uint32_t address = (i << 22) | (j << 12);
            uint32_t *entry;
            void *page;

            if (!(table[j] & PRESENT))
                continue;
            entry = make_entry(space, address);
            page = page_alloc();
            if (entry == NULL || page == NULL) {
                if (page != NULL)
                    page_free(page);
                space_destroy(space);
                return NULL;
            }
            memcpy(page, (void *)page_down(table[j]), PAGE_SIZE);
            *entry = (uint32_t)page | (table[j] & (PRESENT | WRITABLE | USER));
        }
    }
    return space;
}

/* From the top down: pages freed last are allocated first, and a program's pages that lie one
 * behind the other in memory, too, make few segments. */
void space_destroy(uint32_t *space)
{
    for (uint32_t i = DEVICE_TABLES; i-- > KERNEL_TABLES;) {
        uint32_t *table = table_of(space, i << 22);
        if (table == NULL)
            continue;
        for (uint32_t j = ENTRIES; j-- > 0;)
            if (table[j] & PRESENT)
                page_free((void *)page_down(table[j]));
        page_free(table);
    }
    page_free(space);
}

bool space_map(uint32_t *space, uint32_t start, uint32_t end, bool writable)
{
    if (start < USER_START || end > USER_END || start > end)
        return false;
    for (uint32_t page = page_down(start); page < end; page += PAGE_SIZE) {
        uint32_t *entry = make_entry(space, page);
        if (entry == NULL)
            return false;
        if (!(*entry & PRESENT)) {
            void *fresh = page_alloc();
            if (fresh == NULL)
                return false;
            *entry = (uint32_t)fresh | PRESENT | USER;
        }
        if (writable)
            *entry |= WRITABLE;
    }
    return true;
}

/* From the top down, as in space_destroy. */
void space_unmap(uint32_t *space, uint32_t start, uint32_t end)
{
    for (uint32_t page = page_down(end - 1); page >= page_up(start); page -= PAGE_SIZE) {
        uint32_t *entry = entry_of(space, page);
        if (entry == NULL || !(*entry & PRESENT))
            continue;
        page_free((void *)page_down(*entry));
        *entry = 0;
    }
    if (space == active_space)
        write_cr3((uint32_t)space);
}

void *space_translate(const uint32_t *space, uint32_t address, bool writable)
{
    uint32_t needed = PRESENT | USER | (writable ? WRITABLE : 0);
    const uint32_t *entry;

    if (address < USER_START || address >= USER_END)
        return NULL;
    entry = entry_of(space, address);
    if (entry == NULL || (*entry & needed) != needed)
        return NULL;
    return (void *)(page_down(*entry) | (address % PAGE_SIZE));
}
