/* Checks the kernel from a program's side: results of system calls, refused pointers, signals of
 * exceptions, files, memory, many processes at once. Prints what is not as expected, and a count. */
#include "libc.h"
#include "sha256.h"

enum { READERS = 4, READS = 8, READ_BYTES = 30000, FORKS = 200, HEAP_BYTES = 200000 };
enum { PAGE_BYTES = 4096, LARGE_BYTES = 1536 * 1024 }; /* more than any driver's request */

#define KERNEL_MEMORY ((void *)0x100000)
#define LAST_BYTES ((void *)0xFFFFFFF0)

static unsigned checks, failures;
static char scratch[4];

static void expect(const char *what, int got, int wanted)
{
    checks++;
    if (got == wanted)
        return;
    failures++;
    print("check: %s: %d, expected %d\n", what, got, wanted);
}

static void check_pointers(void)
{
    expect("read into the kernel", read(0, KERNEL_MEMORY, 10), -EFAULT);
    expect("read into code", read(0, (void *)main, 10), -EFAULT);
    expect("write round the end", write(1, LAST_BYTES, 32), -EFAULT);
    expect("write of everything", write(1, scratch, 0x7FFFFFFF), -EINVAL);
    expect("open by a wild pointer", open((const char *)4, O_RDWR), -EFAULT);
    expect("execve by a wild pointer", execve("idle", (char *const *)4, NULL), -EFAULT);
}

static void check_refusals(void)
{
    expect("no such call", system_call(9999), -ENOSYS);
    expect("no such call", system_call(-1), -ENOSYS);
    expect("close of nothing", close(7), -EBADF);
    expect("open of no device", open("/etc/passwd", O_RDONLY), -ENOENT);
    expect("execve of no program", execve("nothing", (char *const[]){NULL}, NULL), -ENOENT);
    expect("waitpid without a child", waitpid(-1, NULL, 0), -ECHILD);
    expect("seek on the console", seek(1, 0), -ESPIPE);
    expect("reboot without magic", system_call(SYS_REBOOT, 1, 2, 3), -EINVAL);
}

static void undefined_instruction(void)
{
    __asm__ volatile("ud2");
}

static void divide_by_zero(void)
{
    __asm__ volatile("div %0" : : "r"(0), "a"(1), "d"(0));
}

static void breakpoint(void)
{
    __asm__ volatile("int3");
}

static void single_step(void)
{
    __asm__ volatile("pushf\n\torl $0x100, (%esp)\n\tpopf\n\tnop\n\tnop");
}

static void stack_overflow(void)
{
    __asm__ volatile("1:\tpush %eax\n\tjmp 1b");
}

static void write_to_code(void)
{
    *(volatile char *)main = 0;
}

static void kernel_segment(void)
{
    __asm__ volatile("mov %0, %%ds" : : "r"(0x10));
}

/* The direction flag and null segments must not reach the kernel's own code. */
static void odd_state(void)
{
    __asm__ volatile("std\n\tmov %0, %%ds\n\tmov %0, %%es\n\tint $0x80"
                     :
                     : "r"(0), "a"(SYS_EXIT), "b"(0));
}

static void expect_signal(const char *what, void (*action)(void), unsigned signal)
{
    uint32_t status = 0;
    int child = fork();

    if (child == 0) {
        action();
        exit(1);
    }
    waitpid(child, &status, 0);
    expect(what, (int)status, (int)signal);
}

static void check_exceptions(void)
{
    expect_signal("undefined instruction", undefined_instruction, SIGILL);
    expect_signal("division by zero", divide_by_zero, SIGFPE);
    expect_signal("breakpoint", breakpoint, SIGTRAP);
    expect_signal("single step", single_step, SIGTRAP);
    expect_signal("stack overflow", stack_overflow, SIGSEGV);
    expect_signal("write to code", write_to_code, SIGSEGV);
    expect_signal("kernel segment", kernel_segment, SIGSEGV);
    expect_signal("odd processor state", odd_state, 0);
}

static void check_memory(void)
{
    char *heap = allocate(HEAP_BYTES);

    memset(heap, 1, HEAP_BYTES);
    system_call(SYS_BRK, heap + 1);
    expect("freed heap", write(1, heap + HEAP_BYTES / 2, 1), -EFAULT);
    allocate(HEAP_BYTES);
    expect("fresh heap", heap[HEAP_BYTES / 2], 0);
    expect("heap beyond all memory", allocate(0x3FFFFFFF) != NULL, false);
}

static void check_forks(void)
{
    for (int i = 0; i < FORKS; i++) {
        uint32_t status;
        int child = fork();

        if (child == 0)
            exit(i & 0xFF);
        if (waitpid(child, &status, 0) != child || exit_status_of(status) != (i & 0xFFu)) {
            expect("fork and wait", i, FORKS);
            return;
        }
    }
    checks++;
}

static void check_disk(int descriptor)
{
    uint64_t size = 0;

    expect("size of the disk", block_size(descriptor, &size), 0);
    expect("seek to the end", seek(descriptor, size), 0);
    expect("read at the end", read(descriptor, scratch, 4), 0);
    expect("seek before the end", seek(descriptor, size - 2), 0);
    expect("read over the end", read(descriptor, scratch, 4), 2);
    expect("pread over the end", pread(descriptor, scratch, 4, size - 3), 3);
    expect("pread leaves the position", read(descriptor, scratch, 4), 0);
    expect("pread before the start", pread(descriptor, scratch, 4, (uint64_t)-4), -EINVAL);
    expect("pread of the console", pread(1, scratch, 4, 0), -ESPIPE);
}

static bool same_hash(struct sha256 *a, struct sha256 *b)
{
    char digests[2][SHA256_HEX + 1];

    sha256_finish(a, digests[0]);
    sha256_finish(b, digests[1]);
    return memcmp(digests[0], digests[1], SHA256_HEX) == 0;
}

/* One read of much to whole pages, and the same in pieces to where no sector can be read to
 * directly. */
static void check_sizes(int descriptor)
{
    char *memory = allocate(LARGE_BYTES + PAGE_BYTES);
    char *buffer = memory + (PAGE_BYTES - (uint32_t)memory % PAGE_BYTES);
    struct sha256 large, pieces;
    int length;

    sha256_init(&large);
    sha256_init(&pieces);
    length = pread(descriptor, buffer, LARGE_BYTES, 0);
    expect("large read", length > 0, true);
    sha256_update(&large, buffer, (size_t)length);
    for (int done = 0, piece; done < length; done += piece) {
        size_t wanted = length - done < READ_BYTES ? (size_t)(length - done) : READ_BYTES;
        piece = pread(descriptor, buffer + 1, wanted, (uint64_t)done);
        if (piece <= 0)
            break;
        sha256_update(&pieces, buffer + 1, (size_t)piece);
    }
    expect("same data in pieces", same_hash(&large, &pieces), true);
}

/* Bytes in the middle of two sectors, which are put back. */
static void check_writes(int descriptor)
{
    char before[1000], after[1000];

    expect("pread", pread(descriptor, before, sizeof before, 1300), sizeof before);
    for (unsigned i = 0; i < sizeof before; i++)
        after[i] = (char)~before[i];
    if (pwrite(descriptor, after, sizeof after, 1300) == -EPERM)
        return; /* a read-only disk */
    expect("fsync", fsync(descriptor), 0);
    memset(after, 0, sizeof after);
    expect("pread of the new", pread(descriptor, after, sizeof after, 1300), sizeof after);
    for (unsigned i = 0; i < sizeof before; i++)
        after[i] = (char)~after[i];
    expect("what was written", memcmp(before, after, sizeof after), 0);
    expect("pwrite", pwrite(descriptor, before, sizeof before, 1300), sizeof before);
    expect("pwrite at the end", pwrite(descriptor, before, 1, 1ull << 50), -ENOSPC);
}

static void check_random(void)
{
    int descriptor = open("/dev/hwrng", O_RDONLY);
    char first[16], second[16];

    if (descriptor < 0)
        return;
    expect("random bytes", read(descriptor, first, sizeof first), sizeof first);
    expect("random bytes", read(descriptor, second, sizeof second), sizeof second);
    expect("random bytes differ", memcmp(first, second, sizeof first) != 0, true);
    close(descriptor);
}

/* Exit status: the low byte of a hash, so that readers that got different data differ. */
static _Noreturn void read_and_exit(void)
{
    int descriptor = open("/dev/vda", O_RDONLY);
    char *buffer = allocate(READ_BYTES);
    char digest[SHA256_HEX + 1];
    struct sha256 hash;

    sha256_init(&hash);
    for (int i = 0; i < READS; i++)
        sha256_update(&hash, buffer, (size_t)read(descriptor, buffer, READ_BYTES) % 65536);
    sha256_finish(&hash, digest);
    exit(digest[0] ^ digest[1] << 1);
}

static void check_readers(void)
{
    uint32_t first = 0, status = 0;

    for (int i = 0; i < READERS; i++)
        if (fork() == 0)
            read_and_exit();
    for (int i = 0; i < READERS; i++) {
        waitpid(-1, &status, 0);
        if (i == 0)
            first = status;
        expect("concurrent reader", (int)status, (int)first);
    }
}

int main(int count, char **arguments)
{
    int descriptor;

    (void)count, (void)arguments;
    check_pointers();
    check_refusals();
    check_exceptions();
    check_memory();
    check_forks();
    descriptor = open("/dev/vda", O_RDWR);
    if (descriptor >= 0) {
        check_disk(descriptor);
        check_sizes(descriptor);
        check_writes(descriptor);
        check_readers();
    }
    check_random();
    print("check: %u of %u as expected\n", checks - failures, checks);
    return failures == 0 ? 0 : 1;
}
