/* No cache: a read or write of a program becomes driver requests at once, of at most 256 sectors
 * each, through one buffer. Parts of sectors are read, changed and written. */
#include "block.h"

#include "abi.h"
#include "file.h"
#include "printk.h"
#include "process.h"
#include "string.h"
#include "usercopy.h"

static const struct block_driver *const drivers[] = {&ata_driver};

static const struct block_driver *driver; /* NULL: no disk */
static uint8_t buffer[REQUEST_SECTORS * SECTOR_SIZE] __attribute__((aligned(4096)));
static bool locked; /* the buffer and the driver are in use */
static bool dirty;  /* written to since the last flush */

/* One request: the sectors that hold bytes [offset, offset + length) of the first of them on. */
struct extent {
    uint64_t sector;
    uint32_t count;
    uint32_t offset, length;
};

void block_init(const char *name)
{
    for (unsigned i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        if (strcmp(drivers[i]->name, name) != 0)
            continue;
        if (drivers[i]->probe())
            driver = drivers[i];
        return;
    }
    printk("vda: no driver is called '%s'\n", name);
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

static uint64_t size_bytes(void)
{
    return driver->capacity() * SECTOR_SIZE;
}

/* The first request of a transfer of `length` bytes at `position`, within the disk. */
static struct extent first_extent(uint64_t position, uint32_t length)
{
    struct extent extent = {
        .sector = position / SECTOR_SIZE,
        .offset = (uint32_t)(position % SECTOR_SIZE),
    };
    uint64_t left = size_bytes() - position;

    extent.length = sizeof buffer - extent.offset;
    if (extent.length > length)
        extent.length = length;
    if (extent.length > left)
        extent.length = (uint32_t)left;
    extent.count = (extent.offset + extent.length + SECTOR_SIZE - 1) / SECTOR_SIZE;
    return extent;
}

static int read_extent(const struct extent *extent, void *to)
{
    int error = driver->read(extent->sector, extent->count, buffer);

    if (error == 0)
        memcpy(to, buffer + extent->offset, extent->length);
    return error;
}

static int write_extent(const struct extent *extent, const void *from)
{
    bool whole = (extent->offset | extent->length) % SECTOR_SIZE == 0;
    int error = whole ? 0 : driver->read(extent->sector, extent->count, buffer);

    if (error != 0)
        return error;
    memcpy(buffer + extent->offset, from, extent->length);
    dirty = true;
    return driver->write(extent->sector, extent->count, buffer);
}

/* Bytes moved, or the error if the first request failed. */
static int transfer(struct file *file, uint8_t *to, const uint8_t *from, uint32_t length)
{
    uint32_t done = 0;
    int error = 0;

    lock();
    while (done < length && file->position < size_bytes()) {
        struct extent extent = first_extent(file->position, length - done);
        error = to != NULL ? read_extent(&extent, to + done) : write_extent(&extent, from + done);
        if (error != 0)
            break;
        done += extent.length;
        file->position += extent.length;
    }
    unlock();
    return done > 0 ? (int)done : error;
}

static int block_open(void)
{
    return driver != NULL ? 0 : -ENXIO;
}

static int block_read(struct file *file, void *to, uint32_t length)
{
    return transfer(file, to, NULL, length);
}

static int block_write(struct file *file, const void *from, uint32_t length)
{
    if (file->position >= size_bytes())
        return -ENOSPC;
    return transfer(file, NULL, from, length);
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
