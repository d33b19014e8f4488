/* Checks before copies: pages are never taken away behind a process's back (it has one thread and
 * there is no swap), so a range that was good stays good for the whole system call. */
#include "usercopy.h"

#include "abi.h"
#include "memory.h"
#include "paging.h"
#include "process.h"
#include "string.h"

bool user_range_ok(uint32_t address, uint32_t length, bool writable)
{
    uint32_t page = page_down(address);

    if (length == 0)
        return true;
    if (length > USER_END || address > USER_END - length)
        return false;
    for (; page < address + length; page += PAGE_SIZE)
        if (space_translate(current->space, page, writable) == NULL)
            return false;
    return true;
}

int copy_from_user(void *to, uint32_t from, uint32_t length)
{
    if (!user_range_ok(from, length, false))
        return -EFAULT;
    memcpy(to, (const void *)from, length);
    return 0;
}

int copy_to_user(uint32_t to, const void *from, uint32_t length)
{
    if (!user_range_ok(to, length, true))
        return -EFAULT;
    memcpy((void *)to, from, length);
    return 0;
}

int copy_string_from_user(char *to, uint32_t from, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        const char *c = space_translate(current->space, from + i, false);
        if (c == NULL)
            return -EFAULT;
        to[i] = *c;
        if (*c == '\0')
            return (int)i;
    }
    return -E2BIG;
}

uint32_t user_segments(uint32_t address, uint32_t *length, struct segment *segments,
                       uint32_t maximum)
{
    uint32_t done = 0;
    uint32_t count = 0;

    while (done < *length) {
        uint32_t piece = PAGE_SIZE - (address + done) % PAGE_SIZE;
        uint32_t at = (uint32_t)space_translate(current->space, address + done, false);
        struct segment *last = &segments[count - 1];

        if (piece > *length - done)
            piece = *length - done;
        if (count > 0 && last->address + last->length == at) {
            last->length += piece;
        } else {
            if (count == maximum)
                break;
            segments[count++] = (struct segment){at, piece};
        }
        done += piece;
    }
    *length = done;
    return count;
}
