#include "virtqueue.h"

#include <stddef.h>

#include "printk.h"
#include "x86.h"

/* Sections 2.7.5, 2.7.6 and 2.7.8. */
enum { DESCRIPTOR_NEXT = 1, DESCRIPTOR_WRITE = 2, DESCRIPTOR_INDIRECT = 4 };
enum { USED_NO_NOTIFY = 1 };

static bool has_feature(const struct virtqueue *queue, uint64_t feature)
{
    return (queue->device->features & feature) != 0;
}

static void set_address(const struct virtqueue *queue, uint32_t offset, volatile void *address)
{
    virtio_set(queue->device, offset, (uint32_t)address);
    virtio_set(queue->device, offset + 4, 0);
}

/* Empties the rings and links all descriptors into the free list. */
static void clear(struct virtqueue *queue)
{
    volatile struct virtqueue_rings *rings = queue->rings;

    for (uint16_t i = 0; i < queue->size; i++) {
        rings->descriptors[i].next = (uint16_t)(i + 1);
        queue->tokens[i] = NULL;
    }
    queue->first_free = queue->next_available = queue->next_used = 0;
    queue->free_count = queue->size;
    rings->available.flags = rings->available.index = rings->available.ring[queue->size] = 0;
    rings->used.flags = rings->used.index = 0;
    rings->used.ring[queue->size].event = 0;
}

/* Section 4.2.3.2. */
bool virtqueue_init(struct virtqueue *queue, struct virtio_device *device, uint16_t number,
                    struct virtqueue_rings *rings)
{
    uint32_t maximum;

    virtio_set(device, VIRTIO_QUEUE_SEL, number);
    if (virtio_get(device, VIRTIO_QUEUE_READY) != 0)
        return false;
    maximum = virtio_get(device, VIRTIO_QUEUE_NUM_MAX);
    if (maximum == 0)
        return false;
    *queue = (struct virtqueue){.device = device, .number = number, .rings = rings};
    for (queue->size = QUEUE_MAXIMUM; queue->size > maximum;)
        queue->size /= 2;
    clear(queue);
    virtio_set(device, VIRTIO_QUEUE_NUM, queue->size);
    set_address(queue, VIRTIO_QUEUE_DESC, rings->descriptors);
    set_address(queue, VIRTIO_QUEUE_DRIVER, &rings->available);
    set_address(queue, VIRTIO_QUEUE_DEVICE, &rings->used);
    virtio_set(device, VIRTIO_QUEUE_READY, 1);
    return true;
}

static uint16_t take_free(struct virtqueue *queue)
{
    uint16_t taken = queue->first_free;

    queue->first_free = queue->rings->descriptors[taken].next;
    queue->free_count--;
    return taken;
}

/* Fills the descriptors of an indirect table, which lie in order. */
static void fill_table(struct descriptor *table, const struct segment *segments, uint32_t count,
                       uint32_t writable)
{
    for (uint32_t i = 0; i < count; i++) {
        bool last = i + 1 == count;

        table[i] = (struct descriptor){
            .address = segments[i].address,
            .length = segments[i].length,
            .flags = (uint16_t)((i >= count - writable ? DESCRIPTOR_WRITE : 0) |
                                (last ? 0 : DESCRIPTOR_NEXT)),
            .next = (uint16_t)(last ? 0 : i + 1),
        };
    }
}

static uint16_t add_table(struct virtqueue *queue, const struct descriptor *table, uint32_t count)
{
    uint16_t head = take_free(queue);
    volatile struct descriptor *descriptor = &queue->rings->descriptors[head];

    descriptor->address = (uint32_t)table;
    descriptor->length = count * sizeof *table;
    descriptor->flags = DESCRIPTOR_INDIRECT;
    return head;
}

/* A chain of descriptors of the ring. The free list links them already. */
static uint16_t add_chain(struct virtqueue *queue, const struct segment *segments, uint32_t count,
                          uint32_t writable)
{
    uint16_t head = queue->first_free;

    for (uint32_t i = 0; i < count; i++) {
        volatile struct descriptor *descriptor = &queue->rings->descriptors[take_free(queue)];

        descriptor->address = segments[i].address;
        descriptor->length = segments[i].length;
        descriptor->flags = (uint16_t)((i >= count - writable ? DESCRIPTOR_WRITE : 0) |
                                       (i + 1 == count ? 0 : DESCRIPTOR_NEXT));
    }
    return head;
}

bool virtqueue_add(struct virtqueue *queue, const struct segment *segments, uint32_t count,
                   uint32_t writable, struct descriptor *table, void *token)
{
    bool indirect = table != NULL && count > 1 && has_feature(queue, VIRTIO_F_RING_INDIRECT_DESC);
    uint16_t head;

    if (queue->free_count < (indirect ? 1 : count))
        return false;
    if (indirect) {
        fill_table(table, segments, count, writable);
        head = add_table(queue, table, count);
    } else {
        head = add_chain(queue, segments, count, writable);
    }
    queue->tokens[head] = token;
    queue->rings->available.ring[queue->next_available++ % queue->size] = head;
    return true;
}

/* Section 2.7.10: the device asked to be told of entry `event`, and it is among the new ones. */
static bool is_between(uint16_t event, uint16_t old, uint16_t new)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

/* The event index is set first: once the device sees the request it may be done with it. */
void virtqueue_notify(struct virtqueue *queue)
{
    volatile struct virtqueue_rings *rings = queue->rings;
    uint16_t old = rings->available.index;
    bool wanted;

    if (old == queue->next_available)
        return;
    rings->available.ring[queue->size] = (uint16_t)(queue->next_available - 1);
    memory_barrier();
    rings->available.index = queue->next_available;
    memory_barrier();
    if (has_feature(queue, VIRTIO_F_RING_EVENT_IDX))
        wanted = is_between(rings->used.ring[queue->size].event, old, queue->next_available);
    else
        wanted = !(rings->used.flags & USED_NO_NOTIFY);
    if (wanted)
        virtio_set(queue->device, VIRTIO_QUEUE_NOTIFY, queue->number);
}

static void free_chain(struct virtqueue *queue, uint16_t head)
{
    uint16_t last = head;

    queue->free_count++;
    while (queue->rings->descriptors[last].flags & DESCRIPTOR_NEXT) {
        last = queue->rings->descriptors[last].next;
        queue->free_count++;
    }
    queue->rings->descriptors[last].next = queue->first_free;
    queue->first_free = head;
}

void *virtqueue_take(struct virtqueue *queue, uint32_t *length)
{
    volatile union used_element *element;
    uint32_t head;
    void *token;

    if (queue->device->failed || queue->next_used == queue->rings->used.index)
        return NULL;
    memory_barrier();
    element = &queue->rings->used.ring[queue->next_used % queue->size];
    head = element->id;
    *length = element->length;
    token = head < queue->size ? queue->tokens[head] : NULL;
    if (token == NULL) {
        printk("virtio: device at 0x%08x returned request %u, which it does not have\n",
               queue->device->base, head);
        queue->device->failed = true;
        return NULL;
    }
    queue->tokens[head] = NULL;
    queue->next_used++;
    free_chain(queue, (uint16_t)head);
    return token;
}
