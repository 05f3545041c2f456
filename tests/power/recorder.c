// Records what a process does to the files in one folder. It is preloaded (LD_PRELOAD) under the broker.
//
// RECORDER_ROOT names a folder. The recorder watches it and everything in its subfolder `data`. RECORDER_LOG names the file to
// which each call is appended once the kernel has done it. A lock spans the call and its record, so the records are in the
// order of the calls. A call that succeeds has its record in the log before the caller goes on.
//
// A record is a head, a first text (a path below the root, or the data written), and a second text (the new path).

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPENED = 1, CREATED, WRITTEN, TRUNCATED, SYNCED, FOLDER_SYNCED, RENAMED, UNLINKED, FOLDER_MADE };

struct head {
    uint64_t kind, inode, offset, first, second;
};

#define MOST_FILES 4096
struct open_file {
    uint64_t inode; // 0: not watched
    char *folder;   // its path, if it is a folder
};

static struct open_file files[MOST_FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static int log_file = -1;

static void die(const char *what) {
    dprintf(2, "recorder: %s: %s\n", what, strerror(errno));
    abort();
}

__attribute__((constructor)) static void start(void) {
    root = getenv("RECORDER_ROOT");
    const char *path = getenv("RECORDER_LOG");
    if (!root || !path)
        return;
    int low = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    // A service manager's sockets take the first numbers.
    log_file = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, MOST_FILES / 8);
    if (log_file < 0)
        die(path);
    syscall(SYS_close, low);
}

static void record(enum kind kind, uint64_t inode, uint64_t offset, const void *first, size_t length, const char *second) {
    struct head head = {kind, inode, offset, length, second ? strlen(second) : 0};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)first, length}, {(void *)second, head.second}};
    if (syscall(SYS_writev, log_file, parts, 3) != (long)(sizeof head + length + head.second))
        die("cannot write the log");
}

// The path below the root, or NULL if it is not watched. `-shm` is memory that all connections share, not a file to keep.
static const char *watched(const char *path) {
    if (log_file < 0 || !path)
        return NULL;
    size_t length = strlen(root), all = strlen(path);
    if (strncmp(path, root, length) || (all >= 4 && !strcmp(path + all - 4, "-shm")))
        return NULL;
    const char *rest = path + length;
    if (!*rest)
        return rest;
    int is_below = !strncmp(rest, "/data", 5) && (!rest[5] || rest[5] == '/');
    return is_below ? rest + 1 : NULL;
}

static struct open_file *file(int fd) {
    return fd >= 0 && fd < MOST_FILES && files[fd].inode ? &files[fd] : NULL;
}

static int do_open(int at, const char *path, int flags, mode_t mode) {
    const char *name = watched(path);
    if (!name)
        return syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before, now;
    int existed = lstat(path, &before) == 0;
    int fd = syscall(SYS_openat, at, path, flags, mode), error = errno;
    if (fd >= 0) {
        if (fd >= MOST_FILES || fstat(fd, &now))
            die(path);
        files[fd].inode = now.st_ino;
        free(files[fd].folder);
        files[fd].folder = S_ISDIR(now.st_mode) ? strdup(name) : NULL;
        if (!files[fd].folder) {
            record(existed ? OPENED : CREATED, now.st_ino, 0, name, strlen(name), NULL);
            if (existed && (flags & O_TRUNC))
                record(TRUNCATED, now.st_ino, 0, NULL, 0, NULL);
        }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags)                                                                                                            \
    mode_t mode = 0;                                                                                                           \
    if (flags & O_CREAT) {                                                                                                     \
        va_list list;                                                                                                          \
        va_start(list, flags);                                                                                                 \
        mode = va_arg(list, mode_t);                                                                                           \
        va_end(list);                                                                                                          \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return do_open(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags)
    return do_open(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    return do_open(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    return do_open(at, path, flags, mode);
}
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    if (!file(fd))
        return syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    files[fd].inode = 0;
    int result = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    if (!file(fd))
        return syscall(SYS_pwrite64, fd, bytes, length, at);
    pthread_mutex_lock(&lock);
    ssize_t written = syscall(SYS_pwrite64, fd, bytes, length, at);
    int error = errno;
    if (written > 0)
        record(WRITTEN, files[fd].inode, at, bytes, written, NULL);
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }

ssize_t write(int fd, const void *bytes, size_t length) {
    if (file(fd))
        die("a write without an offset is not recorded");
    return syscall(SYS_write, fd, bytes, length);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (file(fd))
        die("a write of several parts is not recorded");
    return syscall(SYS_writev, fd, parts, count);
}

int ftruncate64(int fd, off64_t length) {
    if (!file(fd))
        return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length), error = errno;
    if (result == 0)
        record(TRUNCATED, files[fd].inode, length, NULL, 0, NULL);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int do_sync(long call, int fd) {
    struct open_file *synced = file(fd);
    if (!synced)
        return syscall(call, fd);
    pthread_mutex_lock(&lock);
    int result = syscall(call, fd), error = errno;
    if (result == 0 && synced->folder)
        record(FOLDER_SYNCED, synced->inode, 0, synced->folder, strlen(synced->folder), NULL);
    else if (result == 0)
        record(SYNCED, synced->inode, 0, NULL, 0, NULL);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int fsync(int fd) { return do_sync(SYS_fsync, fd); }
int fdatasync(int fd) { return do_sync(SYS_fdatasync, fd); }

int rename(const char *from, const char *to) {
    const char *old = watched(from), *new = watched(to);
    if (!old && !new)
        return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (!old || !new)
        die("a file crosses the border of the folder");
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), error = errno;
    if (result == 0)
        record(RENAMED, 0, 0, old, strlen(old), new);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int unlink(const char *path) {
    const char *name = watched(path);
    if (!name)
        return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0), error = errno;
    if (result == 0)
        record(UNLINKED, 0, 0, name, strlen(name), NULL);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int mkdir(const char *path, mode_t mode) {
    const char *name = watched(path);
    if (!name)
        return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_mkdirat, AT_FDCWD, path, mode), error = errno;
    if (result == 0)
        record(FOLDER_MADE, 0, 0, name, strlen(name), NULL);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
