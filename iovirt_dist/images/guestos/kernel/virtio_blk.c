/* Virtio block device (VIRTIO 1.2, section 5.2). A transfer becomes as few requests as the device
 * allows, all in the ring before the device is notified once; an interrupt comes when all are
 * done. Nothing is copied: the segments go into the descriptors.
 *
 * There is no deadline unless the option timeout= gives one: a deadline would keep the timer
 * ticking, and the hypervisor of a device whose controller is lost fails its requests. */
#include "abi.h"
#include "block.h"
#include "cmdline.h"
#include "memory.h"
#include "printk.h"
#include "process.h"
#include "string.h"
#include "timer.h"
#include "virtio.h"
#include "virtqueue.h"

/* Section 5.2.3, Feature bits, and 5.2.4, Device configuration layout. */
#define BLK_F_SIZE_MAX (1ull << 1)
#define BLK_F_SEG_MAX (1ull << 2)
#define BLK_F_RO (1ull << 5)
#define BLK_F_BLK_SIZE (1ull << 6)
#define BLK_F_FLUSH (1ull << 9)

enum { CONFIG_CAPACITY = 0, CONFIG_SIZE_MAX = 8, CONFIG_SEG_MAX = 12, CONFIG_BLK_SIZE = 20 };

/* Section 5.2.6, Device Operation. */
enum request_type { TYPE_IN = 0, TYPE_OUT = 1, TYPE_FLUSH = 4 };
enum { STATUS_OK = 0, STATUS_NEVER_WRITTEN = 0xFF };

enum {
    REQUESTS = 16, /* in flight */
    REQUEST_BYTES = 1 << 20,
    ENDS = 2, /* header and status */
    PARTS = REQUEST_BYTES / PAGE_SIZE + ENDS, /* of a request: segments between the ends */
};

struct request {
    struct {
        uint32_t type;
        uint32_t reserved;
        uint64_t sector;
    } header;
    uint8_t status;
    bool in_flight;
    struct descriptor table[PARTS];
};

/* What is left of a transfer. */
struct cursor {
    uint64_t sector;
    const struct segment *segments;
    uint32_t count;
    uint32_t offset; /* into the first segment */
};

static struct virtio_device *device;
static struct virtqueue queue;
static struct virtqueue_rings rings;
static struct request requests[REQUESTS];
static struct segment parts[PARTS]; /* of the request that is being made */
static unsigned in_flight;
static int result; /* of the transfer: 0 or the first error */

static uint64_t sectors;
static uint32_t block_bytes;
static uint32_t segment_bytes;    /* the longest segment that the device takes */
static uint32_t segments_maximum; /* of a request */
static uint32_t timeout_seconds;  /* 0: none */

static bool has_feature(uint64_t feature)
{
    return (device->features & feature) != 0;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* A device that gives no limit to the number of segments is limited by its queue alone. */
static bool read_limits(void)
{
    block_bytes = SECTOR_SIZE;
    if (has_feature(BLK_F_BLK_SIZE))
        block_bytes = virtio_config32(device, CONFIG_BLK_SIZE);
    if (block_bytes < SECTOR_SIZE || block_bytes > PAGE_SIZE || (block_bytes & (block_bytes - 1)))
        return false;
    segment_bytes = REQUEST_BYTES;
    if (has_feature(BLK_F_SIZE_MAX))
        segment_bytes = smaller(segment_bytes, virtio_config32(device, CONFIG_SIZE_MAX));
    segment_bytes -= segment_bytes % block_bytes;
    segments_maximum = PARTS - ENDS;
    if (has_feature(BLK_F_SEG_MAX))
        segments_maximum = smaller(segments_maximum, virtio_config32(device, CONFIG_SEG_MAX));
    if (virtqueue_limit(&queue) <= ENDS)
        return false;
    segments_maximum = smaller(segments_maximum, virtqueue_limit(&queue) - ENDS);
    return segment_bytes > 0 && segments_maximum > 0;
}

/* From reset to DRIVER_OK (5.2.5). */
static bool set_up(void)
{
    const uint64_t wanted =
        BLK_F_SIZE_MAX | BLK_F_SEG_MAX | BLK_F_RO | BLK_F_BLK_SIZE | BLK_F_FLUSH;

    memset(requests, 0, sizeof requests);
    in_flight = 0;
    if (!virtio_negotiate(device, wanted))
        return false;
    if (!virtqueue_init(&queue, device, 0, &rings) || !read_limits()) {
        printk("virtio: disk at 0x%08x cannot be used\n", device->base);
        virtio_give_up(device);
        return false;
    }
    sectors = virtio_config64(device, CONFIG_CAPACITY);
    virtio_start(device);
    return true;
}

static bool blk_probe(void)
{
    device = virtio_find(VIRTIO_BLOCK);
    timeout_seconds = parse_unsigned(option("timeout"), 0);
    if (device == NULL || !set_up())
        return false;
    printk("vda: virtio disk, %u sectors", (uint32_t)sectors);
    if (block_bytes != SECTOR_SIZE)
        printk(", blocks of %u bytes", block_bytes);
    printk("%s\n", has_feature(BLK_F_RO) ? ", read-only" : "");
    return true;
}

/* Disks may change their size. */
static uint64_t blk_capacity(void)
{
    if (device->config_changed && !device->failed) {
        device->config_changed = false;
        sectors = virtio_config64(device, CONFIG_CAPACITY);
    }
    return sectors;
}

static uint32_t blk_block_size(void)
{
    return block_bytes;
}

static bool blk_read_only(void)
{
    return has_feature(BLK_F_RO);
}

static struct request *free_request(void)
{
    for (unsigned i = 0; i < REQUESTS; i++)
        if (!requests[i].in_flight)
            return &requests[i];
    return NULL;
}

/* Puts the segments of the next request behind its header; returns the number of parts so far and
 * moves the cursor. Without segments (a flush) that is the header alone. */
static uint32_t next_parts(struct cursor *cursor)
{
    uint32_t left = REQUEST_BYTES;
    uint32_t count = 1;

    while (cursor->count > 0 && left > 0 && count <= segments_maximum) {
        const struct segment *segment = cursor->segments;
        uint32_t length = smaller(segment->length - cursor->offset, smaller(segment_bytes, left));

        parts[count].address = segment->address + cursor->offset;
        parts[count++].length = length;
        left -= length;
        cursor->offset += length;
        cursor->sector += length / SECTOR_SIZE;
        if (cursor->offset == segment->length) {
            cursor->segments++;
            cursor->count--;
            cursor->offset = 0;
        }
    }
    return count;
}

/* Makes and adds one request. False: it must wait, and nothing has changed. */
static bool submit(enum request_type type, struct cursor *cursor)
{
    struct request *request = free_request();
    struct cursor rest = *cursor;
    uint32_t count;

    if (request == NULL)
        return false;
    request->header.type = type;
    request->header.sector = type == TYPE_FLUSH ? 0 : cursor->sector;
    request->status = STATUS_NEVER_WRITTEN;
    count = next_parts(&rest);
    parts[0] = (struct segment){(uint32_t)&request->header, sizeof request->header};
    parts[count++] = (struct segment){(uint32_t)&request->status, sizeof request->status};
    if (!virtqueue_add(&queue, parts, count, type == TYPE_IN ? count - 1 : 1, request->table,
                       request))
        return false;
    request->in_flight = true;
    in_flight++;
    *cursor = rest;
    return true;
}

static const char *type_name(uint32_t type)
{
    return type == TYPE_IN ? "read" : type == TYPE_OUT ? "write" : "flush";
}

static void complete(struct request *request)
{
    uint8_t status = *(volatile uint8_t *)&request->status;

    request->in_flight = false;
    in_flight--;
    if (status == STATUS_OK)
        return;
    printk("vda: %s of sector %u failed: status %u\n", type_name(request->header.type),
           (uint32_t)request->header.sector, status);
    result = -EIO;
}

/* False: the time is up. */
static bool sleep(void)
{
    if (timeout_seconds > 0)
        return wait_until(device, timer_deadline(timeout_seconds, 0));
    wait_for(device);
    return true;
}

/* The way out for a device that does not go on. Its reset takes the memory of all requests back. */
static void recover(const char *why)
{
    printk("vda: disk %s; reset\n", why);
    result = -EIO;
    in_flight = 0;
    virtio_stop(device);
    device->failed = !set_up();
}

static void wait_for_all(void)
{
    struct request *request;
    uint32_t length;

    while (in_flight > 0) {
        while ((request = virtqueue_take(&queue, &length)) != NULL)
            complete(request);
        if (in_flight == 0)
            return;
        if (device->failed)
            recover("needs a reset");
        else if (!sleep() && !device->failed)
            recover("timed out");
    }
}

static int run(enum request_type type, struct cursor *cursor)
{
    bool again;

    result = 0;
    if (device->failed)
        recover("needs a reset");
    if (device->failed)
        return -EIO;
    result = 0;
    do {
        while ((again = submit(type, cursor)) && cursor->count > 0)
            ;
        virtqueue_notify(&queue);
        wait_for_all();
    } while (result == 0 && cursor->count > 0);
    return result;
}

static int blk_read(uint64_t sector, const struct segment *segments, uint32_t count)
{
    return run(TYPE_IN, &(struct cursor){.sector = sector, .segments = segments, .count = count});
}

static int blk_write(uint64_t sector, const struct segment *segments, uint32_t count)
{
    return run(TYPE_OUT, &(struct cursor){.sector = sector, .segments = segments, .count = count});
}

/* Without FLUSH what is written is durable when it is done (5.2.6.2). */
static int blk_flush(void)
{
    return has_feature(BLK_F_FLUSH) ? run(TYPE_FLUSH, &(struct cursor){0}) : 0;
}

const struct block_driver virtio_driver = {
    .name = "virtio",
    .gathers = true,
    .probe = blk_probe,
    .capacity = blk_capacity,
    .block_size = blk_block_size,
    .read_only = blk_read_only,
    .read = blk_read,
    .write = blk_write,
    .flush = blk_flush,
};
