/* No cache: a read or write of a program becomes a request of the driver at once. Whole blocks go
 * straight from or to the program's memory if the driver takes segments; everything else goes
 * through one buffer of 256 sectors, parts of blocks being read, changed and written. */
#include "block.h"

#include "abi.h"
#include "file.h"
#include "printk.h"
#include "process.h"
#include "string.h"
#include "usercopy.h"

enum { SEGMENTS = 1025 }; /* 4 MiB, in whatever pages */

static const struct block_driver *const drivers[] = {&virtio_driver, &ata_driver};

static const struct block_driver *driver; /* NULL: no disk */
static uint32_t unit;                     /* bytes of its blocks, a power of two */

static uint8_t buffer[REQUEST_SECTORS * SECTOR_SIZE] __attribute__((aligned(4096)));
static struct segment segments[SEGMENTS];
static bool locked; /* the buffer, the segments and the driver are in use */
static bool dirty;  /* written to since the last flush */

/* One request: the blocks that hold bytes [offset, offset + length) of the first of them on. */
struct extent {
    uint64_t sector;
    uint32_t size; /* bytes */
    uint32_t offset, length;
};

/* What a program asks for. */
struct transfer {
    bool writing;
    uint64_t *position; /* moved on */
    uint32_t address, length; /* of the program's memory */
};

void block_init(const char *name)
{
    bool known = false;

    for (unsigned i = 0; i < sizeof drivers / sizeof *drivers && driver == NULL; i++) {
        if (name != NULL && strcmp(drivers[i]->name, name) != 0)
            continue;
        known = true;
        if (drivers[i]->probe())
            driver = drivers[i];
    }
    if (driver != NULL)
        unit = driver->block_size != NULL ? driver->block_size() : SECTOR_SIZE;
    if (!known)
        printk("vda: no driver is called '%s'\n", name);
    else if (driver == NULL)
        printk("vda: no disk\n");
}

static void lock(void)
{
    while (locked)
        wait_for(&locked);
    locked = true;
}

static void unlock(void)
{
    locked = false;
    wake(&locked);
}

/* Without a 64-bit division, which would need a library. */
static uint32_t within_unit(uint64_t bytes)
{
    return (uint32_t)bytes & (unit - 1);
}

static uint64_t size_bytes(void)
{
    uint64_t bytes = driver->capacity() * SECTOR_SIZE;

    return bytes - within_unit(bytes);
}

/* The first request of a transfer of `length` bytes at `position`, within the disk. */
static struct extent first_extent(uint64_t position, uint32_t length)
{
    struct extent extent = {.offset = within_unit(position)};
    uint64_t left = size_bytes() - position;

    extent.length = sizeof buffer - extent.offset;
    if (extent.length > length)
        extent.length = length;
    if (extent.length > left)
        extent.length = (uint32_t)left;
    extent.sector = (position - extent.offset) / SECTOR_SIZE;
    extent.size = (extent.offset + extent.length + unit - 1) & ~(unit - 1);
    return extent;
}

static struct segment whole_buffer(const struct extent *extent)
{
    return (struct segment){(uint32_t)buffer, extent->size};
}

static int read_extent(const struct extent *extent, void *to)
{
    struct segment all = whole_buffer(extent);
    int error = driver->read(extent->sector, &all, 1);

    if (error == 0)
        memcpy(to, buffer + extent->offset, extent->length);
    return error;
}

static int write_extent(const struct extent *extent, const void *from)
{
    struct segment all = whole_buffer(extent);
    bool whole = within_unit(extent->offset | extent->length) == 0;
    int error = whole ? 0 : driver->read(extent->sector, &all, 1);

    if (error != 0)
        return error;
    memcpy(buffer + extent->offset, from, extent->length);
    dirty = true;
    return driver->write(extent->sector, &all, 1);
}

/* True if there is a whole block to move at `position` to or from `address` without the buffer.
 * Pages are whole blocks, so an aligned start is enough. */
static bool is_direct(uint64_t position, uint32_t address, uint32_t length)
{
    return driver->gathers && within_unit(position | address) == 0 && length >= unit;
}

/* Moves whole blocks, and says in `length` how many bytes that is. */
static int move_directly(bool writing, uint64_t position, uint32_t address, uint32_t *length)
{
    uint64_t left = size_bytes() - position;
    uint32_t count;

    if (*length > left)
        *length = (uint32_t)left;
    *length -= within_unit(*length);
    count = user_segments(address, length, segments, SEGMENTS);
    if (!writing)
        return driver->read(position / SECTOR_SIZE, segments, count);
    dirty = true;
    return driver->write(position / SECTOR_SIZE, segments, count);
}

static int move_by_buffer(bool writing, uint64_t position, uint32_t address, uint32_t *length)
{
    struct extent extent = first_extent(position, *length);

    *length = extent.length;
    return writing ? write_extent(&extent, (const void *)address)
                   : read_extent(&extent, (void *)address);
}

/* Bytes moved, or the error if the first request failed. */
static int run(const struct transfer *transfer)
{
    uint32_t done = 0;
    int error = 0;

    lock();
    while (done < transfer->length && *transfer->position < size_bytes()) {
        uint64_t position = *transfer->position;
        uint32_t address = transfer->address + done;
        uint32_t length = transfer->length - done;

        error = is_direct(position, address, length)
                    ? move_directly(transfer->writing, position, address, &length)
                    : move_by_buffer(transfer->writing, position, address, &length);
        if (error != 0)
            break;
        done += length;
        *transfer->position += length;
    }
    unlock();
    return done > 0 ? (int)done : error;
}

static int block_open(void)
{
    return driver != NULL ? 0 : -ENXIO;
}

static int block_read(uint64_t *position, void *to, uint32_t length)
{
    return run(&(struct transfer){false, position, (uint32_t)to, length});
}

static int block_write(uint64_t *position, const void *from, uint32_t length)
{
    if (driver->read_only != NULL && driver->read_only())
        return -EPERM;
    if (*position >= size_bytes())
        return -ENOSPC;
    return run(&(struct transfer){true, position, (uint32_t)from, length});
}

static int block_seek(struct file *file, int64_t offset, uint32_t whence)
{
    int64_t base = whence == SEEK_CUR ? (int64_t)file->position
                   : whence == SEEK_END ? (int64_t)size_bytes()
                                        : 0;

    if (whence > SEEK_END || base + offset < 0 || base + offset > (int64_t)size_bytes())
        return -EINVAL;
    file->position = (uint64_t)(base + offset);
    return 0;
}

static int block_control(struct file *file, uint32_t request, uint32_t argument)
{
    uint64_t size = size_bytes();

    (void)file;
    if (request != BLKGETSIZE64)
        return -ENOTTY;
    return copy_to_user(argument, &size, sizeof size);
}

int block_sync(void)
{
    int error = 0;

    if (driver == NULL)
        return 0;
    lock();
    if (dirty)
        error = driver->flush();
    if (error == 0)
        dirty = false;
    unlock();
    return error;
}

const struct file_operations block_file = {
    .path = "/dev/vda",
    .open = block_open,
    .read = block_read,
    .write = block_write,
    .seek = block_seek,
    .control = block_control,
    .sync = block_sync,
};
