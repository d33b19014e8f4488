/* The driver's side of a split virtqueue (VIRTIO 1.2, section 2.7). */
#ifndef KERNEL_VIRTQUEUE_H
#define KERNEL_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "segment.h"
#include "virtio.h"

enum { QUEUE_MAXIMUM = 256 }; /* entries; a power of two */

/* Sections 2.7.5, 2.7.6 and 2.7.8. The last element of either ring is room for the event index,
 * which follows the element that is the last one of a queue of full size. */
struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
} __attribute__((aligned(16)));

union used_element {
    struct {
        uint32_t id;
        uint32_t length;
    };
    uint16_t event;
};

struct virtqueue_rings {
    struct descriptor descriptors[QUEUE_MAXIMUM];
    struct {
        uint16_t flags;
        uint16_t index;
        uint16_t ring[QUEUE_MAXIMUM + 1];
    } available;
    struct {
        uint16_t flags;
        uint16_t index;
        union used_element ring[QUEUE_MAXIMUM + 1];
    } used __attribute__((aligned(4)));
} __attribute__((aligned(4096)));

struct virtqueue {
    struct virtio_device *device;
    uint16_t number;
    uint16_t size;           /* entries */
    uint16_t first_free;     /* of a list through `next` */
    uint16_t free_count;
    uint16_t next_available; /* counts what was added; the device sees it at virtqueue_notify */
    uint16_t next_used;      /* counts what was taken back */
    void *tokens[QUEUE_MAXIMUM]; /* of requests in flight, by first descriptor; else NULL */
    volatile struct virtqueue_rings *rings;
};

/* Sets queue `number` up in `rings`, whatever they held before, between virtio_negotiate and
 * virtio_start. False: the device has no such queue. */
bool virtqueue_init(struct virtqueue *queue, struct virtio_device *device, uint16_t number,
                    struct virtqueue_rings *rings);

/* Adds a request of `count` segments, which the device reads but for the last `writable` ones.
 * `table` is memory for as many descriptors that stays the device's until the request is back,
 * for indirect descriptors; NULL: none. `token` (not NULL) comes back from virtqueue_take.
 * False: there is no room until some request is back. */
bool virtqueue_add(struct virtqueue *queue, const struct segment *segments, uint32_t count,
                   uint32_t writable, struct descriptor *table, void *token);

/* The longest request that fits into the empty queue, in segments (2.7.5.3.1, 2.7.4.2). */
static inline uint32_t virtqueue_limit(const struct virtqueue *queue)
{
    return queue->size;
}

/* Shows the device what was added. It shall interrupt when all is done. */
void virtqueue_notify(struct virtqueue *queue);

/* Takes back a request that is done: its token, and in `length` how many bytes the device wrote.
 * NULL: there is none; a device that returned what it did not have is marked as failed. */
void *virtqueue_take(struct virtqueue *queue, uint32_t *length);

#endif
