/* Tries what only system mode may do: each in a child, which the kernel should kill. */
#include "libc.h"
#include "window.h"

enum { ATA_STATUS = 0x1F7, ATA_WRITE_SECTORS = 0x30, VIRTIO_QUEUE_NOTIFY = 0x50 };

static uint8_t scratch[4];
static struct window window; /* of the first virtio device; size 0: there is none */

static void try_in(void)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "d"((uint16_t)ATA_STATUS));
}

/* A command that a disk could not overlook. */
static void try_out(void)
{
    __asm__ volatile("outb %0, %1"
                     :
                     : "a"((uint8_t)ATA_WRITE_SECTORS), "d"((uint16_t)ATA_STATUS));
}

static void try_rep_ins(void)
{
    void *target = scratch;
    uint32_t count = sizeof scratch;

    __asm__ volatile("rep insb"
                     : "+D"(target), "+c"(count)
                     : "d"((uint16_t)ATA_STATUS)
                     : "memory");
}

static void try_cli(void)
{
    __asm__ volatile("cli");
}

static void try_sti(void)
{
    __asm__ volatile("sti");
}

static void try_hlt(void)
{
    __asm__ volatile("hlt");
}

static void try_apic(void)
{
    *(volatile uint32_t *)0xFEE00000;
}

static void try_screen(void)
{
    *(volatile uint16_t *)0xB8000;
}

static void try_kernel(void)
{
    *(volatile uint32_t *)0x100000 = 0;
}

static void try_read_virtio(void)
{
    *(volatile uint32_t *)window.base;
}

static void try_notify_virtio(void)
{
    *(volatile uint32_t *)(window.base + VIRTIO_QUEUE_NOTIFY) = 0;
}

struct attempt {
    const char *name;
    void (*make)(void);
};

static const struct attempt attempts[] = {
    {"IN 0x1f7", try_in},
    {"OUT 0x1f7", try_out},
    {"REP INS 0x1f7", try_rep_ins},
    {"CLI", try_cli},
    {"STI", try_sti},
    {"HLT", try_hlt},
    {"read of device page 0xfee00000", try_apic},
    {"read of device page 0xb8000", try_screen},
    {"write to kernel memory 0x100000", try_kernel},
};

static const struct attempt virtio_attempts[] = {
    {"read of virtio device page", try_read_virtio},
    {"store to virtio notify register", try_notify_virtio},
};

/* True if the attempt ended its process by a signal. */
static bool is_refused(const struct attempt *attempt)
{
    uint32_t status;
    int child = fork();

    if (child == 0) {
        attempt->make();
        exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        print("poke: %s: could not be tried\n", attempt->name);
        return false;
    }
    if (was_signalled(status))
        print("poke: %s: refused (signal %u)\n", attempt->name, signal_of(status));
    else
        print("poke: %s: ALLOWED\n", attempt->name);
    return was_signalled(status);
}

static unsigned count_refused(const struct attempt *list, unsigned count)
{
    unsigned refused = 0;

    for (unsigned i = 0; i < count; i++)
        refused += is_refused(&list[i]);
    return refused;
}

int main(int count, char **arguments)
{
    const char *option = argument(arguments, WINDOW_OPTION);
    unsigned total = sizeof attempts / sizeof *attempts;
    unsigned refused = count_refused(attempts, total);

    (void)count;
    if (option != NULL && parse_window(option, &window)) {
        unsigned more = sizeof virtio_attempts / sizeof *virtio_attempts;
        refused += count_refused(virtio_attempts, more);
        total += more;
    }
    print("poke: %u of %u refused\n", refused, total);
    return refused == total ? 0 : 1;
}
