/* ATA disk, device 0 of the primary channel, by PIO with interrupts (ATA/ATAPI-6, T13/1410D:
 * registers in clause 7, commands in clause 8, protocols in clause 9).
 *
 * A request runs in its process up to the first data; then the interrupt handler moves a sector
 * at each interrupt and wakes the process at the end. Port accesses are kept few, since under
 * interception each of them is a message. Only device 0 is ever selected, so the 400 ns wait
 * after a change of devices (9.6) is never due. */
#include "abi.h"
#include "block.h"
#include "cmdline.h"
#include "printk.h"
#include "process.h"
#include "string.h"
#include "timer.h"
#include "trap.h"
#include "x86.h"

enum {
    ATA_DATA = 0x1F0,
    ATA_ERROR = 0x1F1,
    ATA_COUNT = 0x1F2,
    ATA_LBA_LOW = 0x1F3,
    ATA_LBA_MIDDLE = 0x1F4,
    ATA_LBA_HIGH = 0x1F5,
    ATA_DEVICE = 0x1F6,
    ATA_STATUS = 0x1F7, /* reading it clears the interrupt */
    ATA_COMMAND = 0x1F7,
    ATA_ALTERNATE_STATUS = 0x3F6, /* reading it does not */
    ATA_CONTROL = 0x3F6,
    ATA_IRQ = 14,
};

enum { DEVICE_0_LBA = 0xE0, CONTROL_INTERRUPTS = 0x00, CONTROL_RESET = 0x04 };
enum { BSY = 0x80, DF = 0x20, DRQ = 0x08, ERR = 0x01, NO_DEVICE = 0xFF };

enum command {
    READ_SECTORS = 0x20,
    WRITE_SECTORS = 0x30,
    FLUSH_CACHE = 0xE7,
    IDENTIFY_DEVICE = 0xEC,
};

/* What the next interrupt means. */
enum phase { IDLE, DATA_IN, DATA_OUT, NO_DATA };

enum { SECTOR_WORDS = SECTOR_SIZE / 2, QUICK_POLLS = 4, TIMEOUT_SECONDS = 30 };
enum { RESET_MICROSECONDS = 2000, LBA28_SECTORS = 1 << 28 };

static struct {
    enum phase phase;
    enum command command;
    uint32_t sector;    /* of the next data */
    uint32_t left;      /* sectors yet to move */
    uint8_t *data;
    int result;
    uint32_t deadline;  /* moved on at each interrupt */
} request;

static uint64_t sectors;
static uint32_t timeout_seconds;
static bool single_words; /* option insn=single: a port access a word */

static void move_in(uint16_t *data)
{
    if (!single_words)
        rep_insw(ATA_DATA, data, SECTOR_WORDS);
    else
        for (unsigned i = 0; i < SECTOR_WORDS; i++)
            data[i] = inw(ATA_DATA);
}

static void move_out(const uint16_t *data)
{
    if (!single_words)
        rep_outsw(ATA_DATA, data, SECTOR_WORDS);
    else
        for (unsigned i = 0; i < SECTOR_WORDS; i++)
            outw(ATA_DATA, data[i]);
}

static const char *command_name(void)
{
    switch (request.command) {
    case READ_SECTORS:
        return "read";
    case WRITE_SECTORS:
        return "write";
    case FLUSH_CACHE:
        return "flush";
    case IDENTIFY_DEVICE:
        return "identify";
    }
    return "command";
}

static void finish(int result)
{
    request.phase = IDLE;
    request.result = result;
    wake(&request);
}

static void fail(uint8_t status)
{
    printk("ata: %s of sector %u failed: status %02x error %02x\n", command_name(),
           request.sector, status, inb(ATA_ERROR));
    finish(-EIO);
}

static void extend_deadline(void)
{
    request.deadline = timer_deadline(timeout_seconds, 0);
}

/* Moves one sector. The device is ready for it. */
static void move_sector(void)
{
    if (request.phase == DATA_IN)
        move_in((uint16_t *)request.data);
    else
        move_out((const uint16_t *)request.data);
    request.data += SECTOR_SIZE;
    request.sector++;
    request.left--;
}

/* INTRQ: a sector to fetch, a sector stored, or the end of a command without data (9.5 and 9.6,
 * the states HPIOI0, HPIOO2 and HND0). */
static void ata_interrupt(unsigned irq)
{
    uint8_t status = inb(ATA_STATUS);

    (void)irq;
    if (request.phase == IDLE || (status & BSY))
        return;
    extend_deadline();
    if (status & (ERR | DF)) {
        fail(status);
        return;
    }
    if (request.phase == NO_DATA || (request.phase == DATA_OUT && request.left == 0)) {
        finish(0);
        return;
    }
    if (!(status & DRQ)) {
        fail(status);
        return;
    }
    move_sector();
    if (request.phase == DATA_IN && request.left == 0)
        finish(0);
}

/* Software reset (9.2): the way out for a device that has not answered. */
static void reset(void)
{
    uint32_t never;

    request.phase = IDLE;
    outb(ATA_CONTROL, CONTROL_INTERRUPTS | CONTROL_RESET);
    wait_until(&never, timer_deadline(0, RESET_MICROSECONDS));
    outb(ATA_CONTROL, CONTROL_INTERRUPTS);
    wait_until(&never, timer_deadline(0, RESET_MICROSECONDS));
}

/* Waits until the device is not busy and (status & mask) is not 0, or, with mask 0, until DRQ is
 * clear too. Most devices need one look; one that needs more is looked at once a tick. */
static int poll_status(uint8_t mask, uint8_t *status)
{
    uint32_t give_up = timer_deadline(timeout_seconds, 0);

    for (unsigned polls = 0; !timer_passed(give_up); polls++) {
        *status = inb(ATA_ALTERNATE_STATUS);
        if (!(*status & BSY) && (mask == 0 ? !(*status & DRQ) : *status & mask))
            return 0;
        if (polls >= QUICK_POLLS)
            wait_until(&give_up, timer_deadline(0, 0));
    }
    printk("ata: %s of sector %u timed out: status %02x\n", command_name(), request.sector,
           *status);
    reset();
    return -EIO;
}

static int wait_for_result(void)
{
    while (request.phase != IDLE) {
        uint32_t deadline = request.deadline;
        if (wait_until(&request, deadline) || request.deadline != deadline)
            continue;
        printk("ata: %s of sector %u timed out\n", command_name(), request.sector);
        reset();
        return -EIO;
    }
    return request.result;
}

static void write_registers(uint32_t sector, uint32_t count)
{
    outb(ATA_DEVICE, (uint8_t)(DEVICE_0_LBA | (sector >> 24)));
    outb(ATA_COUNT, (uint8_t)count); /* 256 is written as 0 */
    outb(ATA_LBA_LOW, (uint8_t)sector);
    outb(ATA_LBA_MIDDLE, (uint8_t)(sector >> 8));
    outb(ATA_LBA_HIGH, (uint8_t)(sector >> 16));
}

/* The first sector of a write follows the command without an interrupt (9.6, HPIOO0). */
static int write_first_sector(void)
{
    uint8_t status;
    int error = poll_status(DRQ | ERR | DF, &status);

    if (error != 0)
        return error;
    if (status & (ERR | DF)) {
        fail(inb(ATA_STATUS));
        return -EIO;
    }
    request.phase = DATA_OUT;
    move_sector();
    return 0;
}

static int run(enum command command, uint64_t sector, uint32_t count, void *data)
{
    uint8_t status;
    int error;

    request.command = command;
    request.sector = (uint32_t)sector;
    request.left = count;
    request.data = data;
    error = poll_status(0, &status);
    if (error != 0)
        return error;
    if (command == READ_SECTORS || command == WRITE_SECTORS)
        write_registers((uint32_t)sector, count);
    else
        outb(ATA_DEVICE, DEVICE_0_LBA);
    extend_deadline();
    if (command == READ_SECTORS || command == IDENTIFY_DEVICE)
        request.phase = DATA_IN;
    else if (command == FLUSH_CACHE)
        request.phase = NO_DATA;
    outb(ATA_COMMAND, (uint8_t)command);
    if (command == WRITE_SECTORS && (error = write_first_sector()) != 0)
        return error;
    return wait_for_result();
}

/* Words 27 to 46 of the IDENTIFY data: the model, first character of each word in its high byte,
 * padded with blanks (8.15.16). */
static void copy_model(char *model, const uint16_t *identity)
{
    unsigned length = 40;

    for (unsigned i = 0; i < length; i++) {
        uint16_t word = identity[27 + i / 2];
        model[i] = (char)(i % 2 ? word : word >> 8);
    }
    while (length > 0 && model[length - 1] == ' ')
        length--;
    model[length] = '\0';
}

static bool ata_probe(void)
{
    uint16_t identity[SECTOR_WORDS];
    char model[41];
    uint8_t status;

    timeout_seconds = parse_unsigned(option("timeout"), TIMEOUT_SECONDS);
    single_words = strcmp(option_or("insn", "rep"), "single") == 0;
    outb(ATA_DEVICE, DEVICE_0_LBA);
    status = inb(ATA_STATUS);
    if (status == 0 || status == NO_DEVICE)
        return false;
    outb(ATA_CONTROL, CONTROL_INTERRUPTS);
    irq_install(ATA_IRQ, ata_interrupt);
    if (run(IDENTIFY_DEVICE, 0, 1, identity) != 0)
        return false;
    /* Words 60 and 61: sectors that LBA28 commands reach (8.15.29). */
    sectors = identity[60] | (uint32_t)identity[61] << 16;
    copy_model(model, identity);
    printk("vda: ATA disk, model %s, %u sectors\n", model, (uint32_t)sectors);
    return sectors != 0 && sectors <= LBA28_SECTORS;
}

static uint64_t ata_capacity(void)
{
    return sectors;
}

static int ata_read(uint64_t sector, const struct segment *segments, uint32_t count)
{
    (void)count;
    return run(READ_SECTORS, sector, segments->length / SECTOR_SIZE, (void *)segments->address);
}

static int ata_write(uint64_t sector, const struct segment *segments, uint32_t count)
{
    (void)count;
    return run(WRITE_SECTORS, sector, segments->length / SECTOR_SIZE, (void *)segments->address);
}

static int ata_flush(void)
{
    return run(FLUSH_CACHE, 0, 0, NULL);
}

const struct block_driver ata_driver = {
    .name = "ata",
    .probe = ata_probe,
    .capacity = ata_capacity,
    .read = ata_read,
    .write = ata_write,
    .flush = ata_flush,
};
