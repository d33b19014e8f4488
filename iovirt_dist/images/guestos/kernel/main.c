/* Start-up. */
#include "abi.h"
#include "block.h"
#include "cmdline.h"
#include "exec.h"
#include "file.h"
#include "gdt.h"
#include "memory.h"
#include "paging.h"
#include "pic.h"
#include "printk.h"
#include "process.h"
#include "string.h"
#include "timer.h"
#include "trap.h"
#include "uart.h"
#include "virtio.h"

enum { DEFAULT_HZ = 20, DEFAULT_MEMORY_KIB = 4096 };

/* Multiboot 0.6.96, section 3.3: the fields used here. */
enum { MULTIBOOT_HAS_MEMORY = 1, MULTIBOOT_HAS_CMDLINE = 4 };
#define MULTIBOOT_LOADER_MAGIC 0x2BADB002u

struct multiboot_info {
    uint32_t flags;
    uint32_t lower_kib, upper_kib;
    uint32_t boot_device;
    uint32_t cmdline;
};

/* For tests of what watches over the machine: no program can do these things to it. */
static void panic_on_request(const char *how)
{
    const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) no_idt = {0, 0};

    if (strcmp(how, "") == 0)
        return;
    printk("kernel: panic=%s\n", how);
    uart_drain();
    if (strcmp(how, "triple") == 0)
        __asm__ volatile("lidt %0\n\tint3" : : "m"(no_idt));
    if (strcmp(how, "spin") == 0)
        __asm__ volatile("cli\n1:\tjmp 1b");
    if (strcmp(how, "fault") == 0)
        __asm__ volatile("ud2");
    if (strcmp(how, "stack") == 0)
        __asm__ volatile("1:\tpush %eax\n\tjmp 1b");
    panic("as asked for");
}

/* Process 1, still in the kernel: what needs to block is initialised here. */
static void init_thread(void)
{
    struct arguments arguments = {0};
    int error;

    virtio_init();
    block_init(option("disk"));
    entropy_init();
    panic_on_request(option_or("panic", ""));
    for (int i = 0; i < 3; i++)
        file_open(console_file.path, O_RDWR);
    arguments_add(&arguments, "init");
    options_add(&arguments);
    error = exec("init", &arguments);
    if (error != 0)
        panic("cannot run init: error %d", -error);
    return_to_user(user_frame());
}

static uint32_t memory_end(const struct multiboot_info *info)
{
    uint32_t kib = info->flags & MULTIBOOT_HAS_MEMORY ? info->upper_kib : DEFAULT_MEMORY_KIB;
    uint32_t maximum = (KERNEL_SPACE_END >> 10) - 1024;

    return ((kib < maximum ? kib : maximum) + 1024) << 10;
}

/* From boot.S, with the loader's EAX and EBX. */
void kernel_main(uint32_t magic, const struct multiboot_info *info);

void kernel_main(uint32_t magic, const struct multiboot_info *info)
{
    bool multiboot = magic == MULTIBOOT_LOADER_MAGIC;
    uint32_t end = multiboot ? memory_end(info) : 0;

    if (multiboot && (info->flags & MULTIBOOT_HAS_CMDLINE))
        cmdline_init((const char *)info->cmdline);
    gdt_init();
    idt_init();
    pic_init();
    uart_init();
    if (!multiboot)
        panic("not started by a multiboot loader");
    memory_init(end);
    paging_init(end);
    process_init();
    printk("guestos: %u KiB memory\n", end >> 10);
    timer_init(parse_unsigned(option("hz"), DEFAULT_HZ));
    process_start_init(init_thread);
    idle();
}
