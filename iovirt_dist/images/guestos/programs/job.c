/* The measured job: reads kib= KiB of the disk in blocks of bs= bytes and hashes them, each block by
 * one system call; of each 100 blocks write= are written back unchanged. Then it stores a result
 * block at result= KiB and checks that it can be read back (result=none: it does not). */
#include "format.h"
#include "libc.h"
#include "sha256.h"

enum {
    DEFAULT_KIB = 1024,
    DEFAULT_BLOCK_BYTES = 65536,
    BLOCK_BYTES_MINIMUM = 512,
    BLOCK_BYTES_MAXIMUM = 1 << 20,
    RESULT_BYTES = 512,
};

static const char disk[] = "/dev/vda";

struct job {
    unsigned kib;
    unsigned block_bytes;
    unsigned write_percent;
    bool stores_result;
    unsigned result_kib;
};

/* What was done, the result block apart. */
static struct {
    uint32_t reads, writes; /* calls */
    uint64_t bytes_read, bytes_written;
    uint32_t calls;         /* of any kind that had to do with the disk, the result block's, too */
} done;

static int failed(const char *what, int error)
{
    print("job: cannot %s %s: error %d\n", what, disk, -error);
    return 1;
}

static bool parse_options(char **arguments, struct job *job)
{
    const char *result = argument(arguments, "result");

    job->kib = parse_unsigned(argument(arguments, "kib"), DEFAULT_KIB);
    job->block_bytes = parse_unsigned(argument(arguments, "bs"), DEFAULT_BLOCK_BYTES);
    job->write_percent = parse_unsigned(argument(arguments, "write"), 0);
    job->stores_result = result == NULL || strcmp(result, "none") != 0;
    job->result_kib = parse_unsigned(result, job->kib);
    if (job->block_bytes < BLOCK_BYTES_MINIMUM || job->block_bytes > BLOCK_BYTES_MAXIMUM)
        print("job: bs=%u is out of range, %u to %u\n", job->block_bytes, BLOCK_BYTES_MINIMUM,
              BLOCK_BYTES_MAXIMUM);
    else if (job->write_percent > 100)
        print("job: write=%u is out of range, 0 to 100\n", job->write_percent);
    else
        return true;
    return false;
}

/* True for `percent` of each 100 blocks, evenly spread, the first one among them. */
static bool is_rewritten(uint32_t block, unsigned percent)
{
    block %= 100;
    return (block * percent + 99) / 100 != ((block + 1) * percent + 99) / 100;
}

static int rewrite(int descriptor, const void *block, int length, uint64_t position)
{
    int result = pwrite(descriptor, block, (size_t)length, position);

    done.calls++;
    if (result != length)
        return result < 0 ? result : -EIO;
    done.writes++;
    done.bytes_written += (uint32_t)length;
    return 0;
}

/* Reads a block, or what of it is left. Its length, or a negative error. */
static int read_block(int descriptor, void *block, size_t wanted)
{
    int length = read(descriptor, block, wanted);

    done.calls++;
    if (length <= 0)
        return length < 0 ? length : -ENXIO;
    done.reads++;
    done.bytes_read += (uint32_t)length;
    return length;
}

/* 0, or a negative error. */
static int hash_disk(int descriptor, const struct job *job, struct sha256 *hash)
{
    uint64_t bytes = (uint64_t)job->kib * 1024;
    void *block = allocate(job->block_bytes);

    if (block == NULL)
        return -ENOMEM;
    while (done.bytes_read < bytes) {
        uint64_t position = done.bytes_read;
        uint64_t left = bytes - position;
        bool again = is_rewritten(done.reads, job->write_percent);
        int length = read_block(descriptor, block,
                                left < job->block_bytes ? (size_t)left : job->block_bytes);
        int error = length > 0 && again ? rewrite(descriptor, block, length, position) : 0;

        if (length < 0 || error < 0)
            return length < 0 ? length : error;
        sha256_update(hash, block, (size_t)length);
    }
    if (done.writes == 0)
        return 0;
    done.calls++;
    return fsync(descriptor);
}

static void format_block(char *block, const char *format, ...)
{
    va_list list;

    memset(block, 0, RESULT_BYTES);
    va_start(list, format);
    format_text(block, RESULT_BYTES, format, list);
    va_end(list);
}

/* 0, or a negative error. */
static int write_durably(int descriptor, uint64_t position, const void *block)
{
    int result = seek(descriptor, position);

    done.calls += 3;
    if (result < 0)
        return result;
    result = write(descriptor, block, RESULT_BYTES);
    if (result != RESULT_BYTES)
        return result < 0 ? result : -EIO;
    return fsync(descriptor);
}

static int read_back(int descriptor, uint64_t position, void *block)
{
    int result = seek(descriptor, position);

    done.calls += 2;
    if (result < 0)
        return result;
    result = read(descriptor, block, RESULT_BYTES);
    return result < 0 ? result : result == RESULT_BYTES ? 0 : -EIO;
}

static int store_result(int descriptor, const struct job *job, const char *digest)
{
    uint64_t position = (uint64_t)job->result_kib * 1024;
    char block[RESULT_BYTES], copy[RESULT_BYTES];
    bool same;
    int error;

    format_block(block, "iovirt-dist job result\nsha256 %s\nkib %u\n", digest, job->kib);
    error = write_durably(descriptor, position, block);
    if (error < 0)
        return failed("write", error);
    error = read_back(descriptor, position, copy);
    if (error < 0)
        return failed("read back", error);
    same = memcmp(block, copy, sizeof block) == 0;
    print("job: result block at sector %u written and read back, %s\n",
          (uint32_t)(position / RESULT_BYTES), same ? "ok" : "differs");
    return same ? 0 : 1;
}

/* The open disk, hashed: 0 or an exit status. */
static int run(int descriptor, const struct job *job, char *digest)
{
    struct sha256 hash;
    int error;

    sha256_init(&hash);
    error = hash_disk(descriptor, job, &hash);
    if (error < 0)
        return failed(done.bytes_written > 0 ? "read or write" : "read", error);
    sha256_finish(&hash, digest);
    print("job: read %u KiB in %u requests, sha256 %s\n", job->kib, done.reads, digest);
    return job->stores_result ? store_result(descriptor, job, digest) : 0;
}

/* For programs to read: of all calls, and of the pass over the disk. Numbers have 32 bits. */
static void report(const char *digest)
{
    print("job: result sha256=%s bytes_read=%u bytes_written=%u reads=%u writes=%u calls=%u\n",
          digest, (uint32_t)done.bytes_read, (uint32_t)done.bytes_written, done.reads, done.writes,
          done.calls);
}

int main(int count, char **arguments)
{
    char digest[SHA256_HEX + 1];
    struct job job;
    int descriptor, status, error;

    (void)count;
    if (!parse_options(arguments, &job))
        return 1;
    descriptor = open(disk, job.stores_result || job.write_percent > 0 ? O_RDWR : O_RDONLY);
    done.calls++;
    if (descriptor < 0)
        return failed("open", descriptor);
    status = run(descriptor, &job, digest);
    error = close(descriptor);
    done.calls++;
    if (error < 0)
        return failed("close", error);
    if (status != 0)
        return status;
    report(digest);
    print("job: done\n");
    return 0;
}
