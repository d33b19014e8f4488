/* The measured job: reads kib= KiB of the disk in reads of bs= bytes, hashes them, then stores a
 * result block at result= KiB and checks that it can be read back. */
#include "format.h"
#include "libc.h"
#include "sha256.h"

enum { DEFAULT_KIB = 1024, DEFAULT_READ_BYTES = 65536, BLOCK_BYTES = 512 };

static const char disk[] = "/dev/vda";

static int failed(const char *what, int error)
{
    print("job: cannot %s %s: error %d\n", what, disk, -error);
    return 1;
}

/* Hashes `bytes` bytes. Returns the number of reads, or a negative error. */
static int hash_disk(int descriptor, uint64_t bytes, size_t read_bytes, struct sha256 *hash)
{
    void *buffer = allocate(read_bytes);
    int requests = 0;

    if (buffer == NULL)
        return -ENOMEM;
    while (bytes > 0) {
        size_t wanted = bytes < read_bytes ? (size_t)bytes : read_bytes;
        int length = read(descriptor, buffer, wanted);

        if (length <= 0)
            return length < 0 ? length : -ENXIO;
        sha256_update(hash, buffer, (size_t)length);
        bytes -= (size_t)length;
        requests++;
    }
    return requests;
}

static void format_block(char *block, const char *format, ...)
{
    va_list list;

    memset(block, 0, BLOCK_BYTES);
    va_start(list, format);
    format_text(block, BLOCK_BYTES, format, list);
    va_end(list);
}

/* 0, or a negative error. */
static int write_durably(int descriptor, uint64_t position, const void *block)
{
    int result = seek(descriptor, position);

    if (result < 0)
        return result;
    result = write(descriptor, block, BLOCK_BYTES);
    if (result != BLOCK_BYTES)
        return result < 0 ? result : -EIO;
    return fsync(descriptor);
}

static int read_back(int descriptor, uint64_t position, void *block)
{
    int result = seek(descriptor, position);

    if (result < 0)
        return result;
    result = read(descriptor, block, BLOCK_BYTES);
    return result < 0 ? result : result == BLOCK_BYTES ? 0 : -EIO;
}

static int store_result(int descriptor, uint64_t position, const char *digest, unsigned kib)
{
    char block[BLOCK_BYTES], copy[BLOCK_BYTES];
    bool same;
    int error;

    format_block(block, "iovirt-dist job result\nsha256 %s\nkib %u\n", digest, kib);
    error = write_durably(descriptor, position, block);
    if (error < 0)
        return failed("write", error);
    error = read_back(descriptor, position, copy);
    if (error < 0)
        return failed("read back", error);
    same = memcmp(block, copy, sizeof block) == 0;
    print("job: result block at sector %u written and read back, %s\n",
          (uint32_t)(position / BLOCK_BYTES), same ? "ok" : "differs");
    return same ? 0 : 1;
}

int main(int count, char **arguments)
{
    unsigned kib = parse_unsigned(argument(arguments, "kib"), DEFAULT_KIB);
    unsigned read_bytes = parse_unsigned(argument(arguments, "bs"), DEFAULT_READ_BYTES);
    unsigned result_kib = parse_unsigned(argument(arguments, "result"), kib);
    int descriptor = open(disk, O_RDWR);
    char digest[SHA256_HEX + 1];
    struct sha256 hash;
    int requests, status;

    (void)count;
    if (descriptor < 0)
        return failed("open", descriptor);
    if (read_bytes == 0)
        read_bytes = DEFAULT_READ_BYTES;
    sha256_init(&hash);
    requests = hash_disk(descriptor, (uint64_t)kib * 1024, read_bytes, &hash);
    if (requests < 0)
        return failed("read", requests);
    sha256_finish(&hash, digest);
    print("job: read %u KiB in %d requests, sha256 %s\n", kib, requests, digest);
    status = store_result(descriptor, (uint64_t)result_kib * 1024, digest, kib);
    close(descriptor);
    if (status == 0)
        print("job: done\n");
    return status;
}
