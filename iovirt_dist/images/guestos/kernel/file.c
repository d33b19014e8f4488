#include "file.h"

#include "abi.h"
#include "string.h"

enum { OPEN_FILES = 64 };

static const struct file_operations *const devices[] = {
    &block_file,
    &console_file,
    &entropy_file,
    &null_file,
    &zero_file,
};

static struct file open_files[OPEN_FILES];

static const struct file_operations *find_device(const char *path)
{
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
        if (strcmp(devices[i]->path, path) == 0)
            return devices[i];
    return NULL;
}

static struct file *allocate(void)
{
    for (unsigned i = 0; i < OPEN_FILES; i++)
        if (open_files[i].users == 0)
            return &open_files[i];
    return NULL;
}

int file_open(const char *path, uint32_t flags)
{
    const struct file_operations *device = find_device(path);
    struct file *file = allocate();
    int descriptor = 0;
    int error;

    if (device == NULL)
        return -ENOENT;
    if ((flags & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    while (descriptor < FILES_PER_PROCESS && current->files[descriptor] != NULL)
        descriptor++;
    if (descriptor == FILES_PER_PROCESS || file == NULL)
        return -EMFILE;
    error = device->open != NULL ? device->open() : 0;
    if (error != 0)
        return error;
    *file = (struct file){.operations = device, .users = 1, .access = flags & O_ACCMODE};
    current->files[descriptor] = file;
    return descriptor;
}

/* The last close of a device that was written to makes its data safe. */
static int release(struct file *file)
{
    int result = 0;

    if (file->users == 1 && file->access != O_RDONLY && file->operations->sync != NULL)
        result = file->operations->sync();
    file->users--;
    return result;
}

int file_close(uint32_t descriptor)
{
    struct file *file = file_get(descriptor);

    if (file == NULL)
        return -EBADF;
    current->files[descriptor] = NULL;
    return release(file);
}

struct file *file_get(uint32_t descriptor)
{
    return descriptor < FILES_PER_PROCESS ? current->files[descriptor] : NULL;
}

void files_share(struct file **to, struct file *const *from)
{
    for (unsigned i = 0; i < FILES_PER_PROCESS; i++) {
        to[i] = from[i];
        if (to[i] != NULL)
            to[i]->users++;
    }
}

void files_close(struct file **files)
{
    for (unsigned i = 0; i < FILES_PER_PROCESS; i++) {
        if (files[i] != NULL)
            release(files[i]);
        files[i] = NULL;
    }
}

static int read_nothing(uint64_t *position, void *buffer, uint32_t length)
{
    (void)position, (void)buffer, (void)length;
    return 0;
}

static int read_zeros(uint64_t *position, void *buffer, uint32_t length)
{
    (void)position;
    memset(buffer, 0, length);
    return (int)length;
}

static int write_nowhere(uint64_t *position, const void *buffer, uint32_t length)
{
    (void)position, (void)buffer;
    return (int)length;
}

const struct file_operations null_file = {
    .path = "/dev/null",
    .read = read_nothing,
    .write = write_nowhere,
};

const struct file_operations zero_file = {
    .path = "/dev/zero",
    .read = read_zeros,
    .write = write_nowhere,
};
