/* The transport: registers (VIRTIO 1.2, section 4.2.2), initialisation (3.1.1), interrupts (4.2.3.4).
 * A register access of a distributed machine is a message, so none is made twice. */
#include "virtio.h"

#include "cmdline.h"
#include "paging.h"
#include "pic.h"
#include "printk.h"
#include "process.h"
#include "trap.h"
#include "window.h"

enum {
    MAGIC_VALUE = 0x000,
    VERSION = 0x004,
    DEVICE_ID = 0x008,
    DEVICE_FEATURES = 0x010,
    DEVICE_FEATURES_SEL = 0x014,
    DRIVER_FEATURES = 0x020,
    DRIVER_FEATURES_SEL = 0x024,
    INTERRUPT_STATUS = 0x060,
    INTERRUPT_ACK = 0x064,
    STATUS = 0x070,
    CONFIG_GENERATION = 0x0FC,
    CONFIG = 0x100,
    MAGIC = 0x74726976, /* "virt" */
    MMIO_VERSION = 2,
};

/* Section 2.1, Device Status Field. */
enum {
    STATUS_ACKNOWLEDGE = 0x01,
    STATUS_DRIVER = 0x02,
    STATUS_DRIVER_OK = 0x04,
    STATUS_FEATURES_OK = 0x08,
    STATUS_NEEDS_RESET = 0x40,
    STATUS_FAILED = 0x80,
};

enum { INTERRUPT_CONFIG = 2 };
enum { WINDOW_SIZE = 0x200 }; /* registers, and configurations as far as they are read here */
enum { WINDOWS_MAXIMUM = 8, RESET_POLLS = 1000, GENERATION_POLLS = 100 };

static const uint64_t ring_features =
    VIRTIO_F_RING_INDIRECT_DESC | VIRTIO_F_RING_EVENT_IDX | VIRTIO_F_VERSION_1;

static struct virtio_device devices[WINDOWS_MAXIMUM];
static unsigned devices_count;

/* ISA inputs that a device may drive: not the timer's, the keyboard's, the cascade's and so on. */
static bool irq_ok(uint32_t irq)
{
    const uint32_t refused = 1u << 0 | 1u << 1 | 1u << 2 | 1u << 4 | 1u << 8 | 1u << 13 | 1u << 14;

    return irq < 16 && !(refused >> irq & 1);
}

/* A window without a device in it (device ID 0) is ignored (4.2.2.2). */
static void add_device(const char *text)
{
    struct window window;
    struct virtio_device device;

    if (!parse_window(text, &window) || window.size < WINDOW_SIZE || window.base % 4 != 0 ||
        !irq_ok(window.irq) || !paging_map_device(window.base, WINDOW_SIZE)) {
        printk("virtio: cannot use " WINDOW_OPTION "=%s\n", text);
        return;
    }
    device = (struct virtio_device){.base = window.base, .irq = window.irq};
    if (virtio_get(&device, MAGIC_VALUE) != MAGIC ||
        virtio_get(&device, VERSION) != MMIO_VERSION) {
        printk("virtio: no version %u device at 0x%08x\n", MMIO_VERSION, window.base);
        return;
    }
    device.type = virtio_get(&device, DEVICE_ID);
    if (device.type != 0)
        devices[devices_count++] = device;
}

void virtio_init(void)
{
    const char *text;

    for (unsigned i = 0; (text = option_at(WINDOW_OPTION, i)) != NULL; i++)
        if (devices_count < WINDOWS_MAXIMUM)
            add_device(text);
}

struct virtio_device *virtio_find(enum virtio_type type)
{
    for (unsigned i = 0; i < devices_count; i++)
        if (devices[i].type == type)
            return &devices[i];
    return NULL;
}

static void interrupt_of(struct virtio_device *device)
{
    uint32_t causes = virtio_get(device, INTERRUPT_STATUS);

    if (causes == 0)
        return;
    virtio_set(device, INTERRUPT_ACK, causes);
    if (causes & INTERRUPT_CONFIG) {
        device->config_changed = true;
        if (virtio_get(device, STATUS) & STATUS_NEEDS_RESET)
            device->failed = true;
    }
    wake(device);
}

static void virtio_interrupt(unsigned irq)
{
    for (unsigned i = 0; i < devices_count; i++)
        if (devices[i].running && devices[i].irq == irq)
            interrupt_of(&devices[i]);
}

/* A driver writes 0 and waits until it reads 0 (2.4.2, 4.2.2.1). */
static bool reset(struct virtio_device *device)
{
    virtio_set(device, STATUS, 0);
    for (unsigned i = 0; i < RESET_POLLS; i++)
        if (virtio_get(device, STATUS) == 0)
            return true;
    return false;
}

static uint64_t offered_features(const struct virtio_device *device)
{
    uint32_t low, high;

    virtio_set(device, DEVICE_FEATURES_SEL, 0);
    low = virtio_get(device, DEVICE_FEATURES);
    virtio_set(device, DEVICE_FEATURES_SEL, 1);
    high = virtio_get(device, DEVICE_FEATURES);
    return (uint64_t)high << 32 | low;
}

static void accept_features(const struct virtio_device *device)
{
    virtio_set(device, DRIVER_FEATURES_SEL, 0);
    virtio_set(device, DRIVER_FEATURES, (uint32_t)device->features);
    virtio_set(device, DRIVER_FEATURES_SEL, 1);
    virtio_set(device, DRIVER_FEATURES, (uint32_t)(device->features >> 32));
}

bool virtio_negotiate(struct virtio_device *device, uint64_t wanted)
{
    uint32_t status = STATUS_ACKNOWLEDGE;

    device->failed = device->config_changed = false;
    if (!reset(device)) {
        printk("virtio: device at 0x%08x cannot be reset\n", device->base);
        return false;
    }
    virtio_set(device, STATUS, status);
    virtio_set(device, STATUS, status |= STATUS_DRIVER);
    device->features = offered_features(device) & (wanted | ring_features);
    if (device->features & VIRTIO_F_VERSION_1) {
        accept_features(device);
        virtio_set(device, STATUS, status |= STATUS_FEATURES_OK);
        if (virtio_get(device, STATUS) & STATUS_FEATURES_OK)
            return true;
    }
    printk("virtio: no agreement with the device at 0x%08x on its features\n", device->base);
    virtio_give_up(device);
    return false;
}

void virtio_start(struct virtio_device *device)
{
    const uint32_t status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;

    if (!device->running) {
        device->running = true;
        pic_sense_level(device->irq);
        irq_install(device->irq, virtio_interrupt);
    }
    virtio_set(device, STATUS, status | STATUS_DRIVER_OK);
}

void virtio_stop(struct virtio_device *device)
{
    reset(device);
}

void virtio_give_up(struct virtio_device *device)
{
    device->failed = true;
    virtio_set(device, STATUS, STATUS_FAILED);
}

uint32_t virtio_config32(const struct virtio_device *device, uint32_t offset)
{
    return virtio_get(device, CONFIG + offset);
}

/* Two accesses belong together if the generation is the same before and after (2.5.1, 4.2.2.2). */
uint64_t virtio_config64(const struct virtio_device *device, uint32_t offset)
{
    uint32_t generation = virtio_get(device, CONFIG_GENERATION);
    uint64_t value = 0;

    for (unsigned i = 0; i < GENERATION_POLLS; i++) {
        uint32_t before = generation;

        value = virtio_get(device, CONFIG + offset);
        value |= (uint64_t)virtio_get(device, CONFIG + offset + 4) << 32;
        generation = virtio_get(device, CONFIG_GENERATION);
        if (generation == before)
            break;
    }
    return value;
}
