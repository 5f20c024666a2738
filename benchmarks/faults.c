/* Stops, fails or signals a process at its k-th operation on files below a folder. Loaded by LD_PRELOAD; see faults.py.

   An operation is a call that changes what is on the disk or makes it last: open for writing, write, rename, link, unlink, mkdir,
   rmdir, truncate, fsync. Reading is none. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, KILL = 1, FULL = 2, FAIL = 3, INTERRUPT = 4, TERMINATE = 5 };

static char watched[PATH_MAX];
static size_t watched_length;
static int mode = COUNT;
static long at = -1;
static long done = 0;
static int failing = 0;
static unsigned char is_watched[65536];

void faults_arm(const char *folder, int new_mode, long k) {
    strncpy(watched, folder, PATH_MAX - 1);
    watched_length = strlen(watched);
    mode = new_mode;
    at = k;
    done = 0;
    failing = 0;
}

long faults_done(void) { return done; }

static int below(int folder, const char *path) {
    char whole[2 * PATH_MAX];
    if (watched_length == 0 || path == NULL) return 0;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else if (folder == AT_FDCWD) {
        char here[PATH_MAX];
        if (getcwd(here, sizeof here) == NULL) return 0;
        snprintf(whole, sizeof whole, "%s/%s", here, path);
    } else {
        char link[64], here[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = readlink(link, here, sizeof here - 1);
        if (n < 0) return 0;
        here[n] = 0;
        snprintf(whole, sizeof whole, "%s/%s", here, path);
    }
    return strncmp(whole, watched, watched_length) == 0;
}

/* Whether this operation must fail; `grows` when it needs room on the disk. */
static int fails(int grows) {
    if (mode == FULL && failing && grows) { errno = ENOSPC; return 1; }
    if (done++ != at) return 0;
    if (mode == KILL) kill(getpid(), SIGKILL);
    if (mode == INTERRUPT) kill(getpid(), SIGINT);
    if (mode == TERMINATE) kill(getpid(), SIGTERM);
    if (mode == FULL) {
        failing = 1;
        if (grows) { errno = ENOSPC; return 1; }
    }
    if (mode == FAIL) { errno = EIO; return 1; }
    return 0;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT); }

static int opened(int handle, int ours) {
    if (handle >= 0 && handle < 65536) is_watched[handle] = (unsigned char)ours;
    return handle;
}

#define OPEN(name, before, folder, pass) \
    int name(before const char *path, int flags, ...) { \
        REAL(name); \
        mode_t permissions = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; va_start(rest, flags); permissions = va_arg(rest, mode_t); va_end(rest); \
        } \
        int ours = writes(flags) && below(folder, path); \
        if (ours && fails(1)) return -1; \
        return opened(real(pass path, flags, permissions), ours); \
    }
#define NOTHING
#define COMMA_FOLDER int folder,
#define PASS_FOLDER folder,
OPEN(open, NOTHING, AT_FDCWD, NOTHING)
OPEN(open64, NOTHING, AT_FDCWD, NOTHING)
OPEN(openat, COMMA_FOLDER, folder, PASS_FOLDER)
OPEN(openat64, COMMA_FOLDER, folder, PASS_FOLDER)

FILE *fopen(const char *path, const char *kind) {
    REAL(fopen);
    int ours = strpbrk(kind, "wa+") != NULL && below(AT_FDCWD, path);
    if (ours && fails(1)) return NULL;
    FILE *file = real(path, kind);
    if (file) opened(fileno(file), ours);
    return file;
}
FILE *fopen64(const char *path, const char *kind) { return fopen(path, kind); }

static int ours(int handle) { return handle >= 0 && handle < 65536 && is_watched[handle]; }

int close(int handle) {
    REAL(close);
    if (handle >= 0 && handle < 65536) is_watched[handle] = 0;
    return real(handle);
}
ssize_t write(int handle, const void *bytes, size_t n) {
    REAL(write);
    if (ours(handle) && fails(1)) return -1;
    return real(handle, bytes, n);
}
ssize_t pwrite64(int handle, const void *bytes, size_t n, off64_t place) {
    REAL(pwrite64);
    if (ours(handle) && fails(1)) return -1;
    return real(handle, bytes, n, place);
}
ssize_t pwrite(int handle, const void *bytes, size_t n, off_t place) {
    REAL(pwrite);
    if (ours(handle) && fails(1)) return -1;
    return real(handle, bytes, n, place);
}
ssize_t writev(int handle, const struct iovec *parts, int n) {
    REAL(writev);
    if (ours(handle) && fails(1)) return -1;
    return real(handle, parts, n);
}
int fsync(int handle) {
    REAL(fsync);
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n > 0) {
        path[n] = 0;
        if (below(AT_FDCWD, path) && fails(1)) return -1;
    }
    return real(handle);
}
int ftruncate64(int handle, off64_t n) {
    REAL(ftruncate64);
    if (ours(handle) && fails(1)) return -1;
    return real(handle, n);
}
int ftruncate(int handle, off_t n) {
    REAL(ftruncate);
    if (ours(handle) && fails(1)) return -1;
    return real(handle, n);
}

#define ONE(name, declared, passed, folder, path, grows) \
    int name declared { \
        REAL(name); \
        if (below(folder, path) && fails(grows)) return -1; \
        return real passed; \
    }
ONE(mkdir, (const char *path, mode_t m), (path, m), AT_FDCWD, path, 1)
ONE(mkdirat, (int f, const char *path, mode_t m), (f, path, m), f, path, 1)
ONE(rmdir, (const char *path), (path), AT_FDCWD, path, 0)
ONE(unlink, (const char *path), (path), AT_FDCWD, path, 0)
ONE(unlinkat, (int f, const char *path, int m), (f, path, m), f, path, 0)
ONE(rename, (const char *a, const char *b), (a, b), AT_FDCWD, b, 0)
ONE(renameat, (int f, const char *a, int g, const char *b), (f, a, g, b), g, b, 0)
ONE(renameat2, (int f, const char *a, int g, const char *b, unsigned m), (f, a, g, b, m), g, b, 0)
ONE(link, (const char *a, const char *b), (a, b), AT_FDCWD, b, 1)
ONE(symlink, (const char *a, const char *b), (a, b), AT_FDCWD, b, 1)
