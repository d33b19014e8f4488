/* Virtio devices whose registers are memory (VIRTIO 1.2, section 4.2, version 2), told of on the
 * kernel command line. */
#ifndef KERNEL_VIRTIO_H
#define KERNEL_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

/* Device types (section 5). */
enum virtio_type { VIRTIO_BLOCK = 2, VIRTIO_ENTROPY = 4 };

/* Feature bits of every type (section 6). */
#define VIRTIO_F_RING_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_RING_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

struct virtio_device {
    enum virtio_type type;
    uint32_t base;       /* of the registers, which are mapped one to one */
    uint32_t irq;
    uint64_t features;   /* negotiated */
    bool running;        /* between virtio_start and virtio_stop */
    bool failed;         /* it needs a reset, or has broken the rules: nothing more will come */
    bool config_changed; /* for the driver to look at and clear */
};

/* Finds the devices. Before the first process has an address space. */
void virtio_init(void);

/* The first device of a type, NULL if there is none. */
struct virtio_device *virtio_find(enum virtio_type type);

/* Resets the device and negotiates: those of `wanted` that are offered, and VERSION_1 and the
 * features of rings in any case. False, with a message: it cannot be driven. Next come the queues
 * (virtqueue.h), then virtio_start. */
bool virtio_negotiate(struct virtio_device *device, uint64_t wanted);

/* From now on the device works, and its interrupts wake who waits for `device`. */
void virtio_start(struct virtio_device *device);

/* Resets the device: it touches no memory any more. */
void virtio_stop(struct virtio_device *device);

/* Gives the device up for good. */
void virtio_give_up(struct virtio_device *device);

/* Fields of the configuration space. */
uint32_t virtio_config32(const struct virtio_device *device, uint32_t offset);
uint64_t virtio_config64(const struct virtio_device *device, uint32_t offset);

/* Registers, for virtqueue.c. */
enum virtio_register {
    VIRTIO_QUEUE_SEL = 0x030,
    VIRTIO_QUEUE_NUM_MAX = 0x034,
    VIRTIO_QUEUE_NUM = 0x038,
    VIRTIO_QUEUE_READY = 0x044,
    VIRTIO_QUEUE_NOTIFY = 0x050,
    VIRTIO_QUEUE_DESC = 0x080, /* low word, then high word; so the next two */
    VIRTIO_QUEUE_DRIVER = 0x090,
    VIRTIO_QUEUE_DEVICE = 0x0A0,
};

static inline uint32_t virtio_get(const struct virtio_device *device, uint32_t offset)
{
    return *(volatile uint32_t *)(device->base + offset);
}

static inline void virtio_set(const struct virtio_device *device, uint32_t offset, uint32_t value)
{
    *(volatile uint32_t *)(device->base + offset) = value;
}

#endif
