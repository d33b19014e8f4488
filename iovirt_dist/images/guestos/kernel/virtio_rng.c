/* Virtio entropy device (VIRTIO 1.2, section 5.4), read as /dev/hwrng. */
#include "abi.h"
#include "file.h"
#include "printk.h"
#include "process.h"
#include "usercopy.h"
#include "virtio.h"
#include "virtqueue.h"

enum { PIECES = 16 };

static struct virtio_device *device;
static struct virtqueue queue;
static struct virtqueue_rings rings;
static struct descriptor table[PIECES];
static bool locked; /* a request is in flight */

static bool set_up(void)
{
    if (!virtio_negotiate(device, 0))
        return false;
    if (!virtqueue_init(&queue, device, 0, &rings)) {
        virtio_give_up(device);
        return false;
    }
    virtio_start(device);
    return true;
}

void entropy_init(void)
{
    device = virtio_find(VIRTIO_ENTROPY);
    if (device != NULL && !set_up())
        device = NULL;
    if (device != NULL)
        printk("hwrng: virtio entropy device\n");
}

static int entropy_open(void)
{
    return device != NULL ? 0 : -ENXIO;
}

/* The whole request is for the device to write; how much it does is its choice (5.4.6). */
static int request(const struct segment *segments, uint32_t count, uint32_t wanted)
{
    uint32_t length;

    if (!virtqueue_add(&queue, segments, count, count, table, &queue))
        return -EIO;
    virtqueue_notify(&queue);
    while (virtqueue_take(&queue, &length) == NULL) {
        if (device->failed)
            return -EIO;
        wait_for(device);
    }
    return length > 0 && length <= wanted ? (int)length : -EIO;
}

static uint32_t pieces(void)
{
    return virtqueue_limit(&queue) < PIECES ? virtqueue_limit(&queue) : PIECES;
}

static int entropy_read(uint64_t *position, void *to, uint32_t length)
{
    struct segment segments[PIECES];
    uint32_t count;
    int result = -EIO;

    (void)position;
    while (locked)
        wait_for(&locked);
    locked = true;
    if (!device->failed || set_up()) {
        count = user_segments((uint32_t)to, &length, segments, pieces());
        result = request(segments, count, length);
    }
    locked = false;
    wake(&locked);
    return result;
}

const struct file_operations entropy_file = {
    .path = "/dev/hwrng",
    .open = entropy_open,
    .read = entropy_read,
};
