// Put before a program with LD_PRELOAD, this kills it at a chosen call that changes a file, or lets it see a full disk. scripts/kill-check builds it.
//
// Only files below the folder KILL_CHECK_FOLDER count. KILL_CHECK_KIND names the calls: rename (and links), remove, sync, write, create (files and folders),
// or space: all that need room on the disk. KILL_CHECK_NTH says which of these calls, from 1 on. KILL_CHECK_WHEN says what happens there: the process is
// killed "before" it, in the "half" of a write, or "after" it; "full": it and all later calls that need room fail with ENOSPC.
// Each counted call is a line in the file KILL_CHECK_LOG, if that is set: the kind, the file, and for a rename its name before, between tabs.
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
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { RENAME, REMOVE, SYNC, WRITE, CREATE, SPACE, KINDS };
static const char *const names[KINDS] = {"rename", "remove", "sync", "write", "create", "space"};
static long counts[KINDS];
static const char *folder, *kind_wanted, *when_wanted;
static long nth;
static int log_file = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    folder = getenv("KILL_CHECK_FOLDER");
    kind_wanted = getenv("KILL_CHECK_KIND");
    when_wanted = getenv("KILL_CHECK_WHEN");
    nth = getenv("KILL_CHECK_NTH") ? atol(getenv("KILL_CHECK_NTH")) : 0;
    if (getenv("KILL_CHECK_LOG")) log_file = REAL(open)(getenv("KILL_CHECK_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

static int below(const char *path) {
    size_t n = folder ? strlen(folder) : 0;
    return n && strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == 0);
}

// Whether `path`, as seen from the open folder `at`, lies below the folder.
static int counts_path(int at, const char *path) {
    char base[PATH_MAX], link[64], whole[2 * PATH_MAX];
    if (!folder || !path) return 0;
    if (path[0] == '/') return below(path);
    if (at == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0) return 0;
        base[n] = 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return below(whole);
}

// Whether `path` is to be made, and lies below the folder.
static int makes(int at, const char *path) {
    return counts_path(at, path) && faccessat(at, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
}

// The path of an open file.
static const char *name_of(int file) {
    static __thread char path[PATH_MAX];
    char link[64];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = before;
    path[n < 0 ? 0 : n] = 0;
    return path;
}

// Whether an open file lies below the folder.
static int counts_file(int file) {
    return folder && below(name_of(file));
}

static int is_plain_file(int file) {
    struct stat facts;
    return fstat(file, &facts) == 0 && S_ISREG(facts.st_mode);
}

enum what { PASS, HALF, AFTER, FULL };

static void stop(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static enum what meet(enum kind kind, const char *path, const char *from) {
    long n = __atomic_add_fetch(&counts[kind], 1, __ATOMIC_SEQ_CST);
    if (log_file >= 0) {
        char line[2 * PATH_MAX + 32];
        int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", names[kind], path, from);
        if (REAL(write)(log_file, line, length) < 0) abort();
    }
    if (!kind_wanted || !when_wanted || strcmp(kind_wanted, names[kind])) return PASS;
    if (!strcmp(when_wanted, "full")) return n >= nth ? FULL : PASS;
    if (n != nth) return PASS;
    if (!strcmp(when_wanted, "before")) stop();
    return strcmp(when_wanted, "half") ? AFTER : HALF;
}

// What happens at a call of this kind. `room`: it needs room on the disk.
static enum what at_call(enum kind kind, int room, const char *path, const char *from) {
    int before = errno;
    enum what what = meet(kind, path, from);
    if (room) {
        enum what other = meet(SPACE, path, from);
        if (what == PASS) what = other;
    }
    errno = before;
    return what;
}

#define AROUND(counted, kind, room, path, from, call)                              \
    do {                                                                           \
        enum what what = (counted) ? at_call(kind, room, path, from) : PASS;       \
        if (what == FULL) {                                                        \
            errno = ENOSPC;                                                        \
            return -1;                                                             \
        }                                                                          \
        __typeof__(call) result = (call);                                          \
        if (what == AFTER || what == HALF) stop();                                 \
        return result;                                                             \
    } while (0)

int rename(const char *a, const char *b) { AROUND(counts_path(AT_FDCWD, a), RENAME, 0, b, a, REAL(rename)(a, b)); }
int renameat(int x, const char *a, int y, const char *b) { AROUND(counts_path(x, a), RENAME, 0, b, a, REAL(renameat)(x, a, y, b)); }
int renameat2(int x, const char *a, int y, const char *b, unsigned f) { AROUND(counts_path(x, a), RENAME, 0, b, a, REAL(renameat2)(x, a, y, b, f)); }
int link(const char *a, const char *b) { AROUND(counts_path(AT_FDCWD, b), RENAME, 1, b, "", REAL(link)(a, b)); }
int linkat(int x, const char *a, int y, const char *b, int f) { AROUND(counts_path(y, b), RENAME, 1, b, "", REAL(linkat)(x, a, y, b, f)); }
int symlink(const char *a, const char *b) { AROUND(counts_path(AT_FDCWD, b), RENAME, 1, b, "", REAL(symlink)(a, b)); }
int symlinkat(const char *a, int y, const char *b) { AROUND(counts_path(y, b), RENAME, 1, b, "", REAL(symlinkat)(a, y, b)); }
int unlink(const char *a) { AROUND(counts_path(AT_FDCWD, a), REMOVE, 0, a, "", REAL(unlink)(a)); }
int unlinkat(int x, const char *a, int f) { AROUND(counts_path(x, a), REMOVE, 0, a, "", REAL(unlinkat)(x, a, f)); }
int rmdir(const char *a) { AROUND(counts_path(AT_FDCWD, a), REMOVE, 0, a, "", REAL(rmdir)(a)); }
int fsync(int f) { AROUND(counts_file(f), SYNC, is_plain_file(f), name_of(f), "", REAL(fsync)(f)); }
int fdatasync(int f) { AROUND(counts_file(f), SYNC, is_plain_file(f), name_of(f), "", REAL(fdatasync)(f)); }
int ftruncate(int f, off_t n) { AROUND(counts_file(f), WRITE, n > 0, name_of(f), "", REAL(ftruncate)(f, n)); }
int ftruncate64(int f, off_t n) { AROUND(counts_file(f), WRITE, n > 0, name_of(f), "", REAL(ftruncate64)(f, n)); }
int fallocate(int f, int m, off_t o, off_t n) { AROUND(counts_file(f), WRITE, 1, name_of(f), "", REAL(fallocate)(f, m, o, n)); }
int posix_fallocate(int f, off_t o, off_t n) {
    if (counts_file(f) && at_call(WRITE, 1, name_of(f), "") == FULL) return ENOSPC;
    return REAL(posix_fallocate)(f, o, n);
}
int mkdir(const char *a, mode_t m) { AROUND(makes(AT_FDCWD, a), CREATE, 1, a, "", REAL(mkdir)(a, m)); }
int mkdirat(int x, const char *a, mode_t m) { AROUND(makes(x, a), CREATE, 1, a, "", REAL(mkdirat)(x, a, m)); }

// A download arrives in parts of any size. So that the number of writes does not depend on it, a write counts if it is the first of its file, or crosses
// a multiple of 256 KiB.
static int counts_write(int f, size_t n) {
    if (!counts_file(f)) return 0;
    off_t at = lseek(f, 0, SEEK_CUR);
    return at <= 0 || at >> 18 != (at + (off_t)n) >> 18;
}

// A write that fails from now on, even one that is not counted, once the disk is full.
static int is_full(int f) {
    return when_wanted && !strcmp(when_wanted, "full") && __atomic_load_n(&counts[SPACE], __ATOMIC_SEQ_CST) >= nth && counts_file(f);
}

ssize_t write(int f, const void *p, size_t n) {
    enum what what = counts_write(f, n) ? at_call(WRITE, 1, name_of(f), "") : PASS;
    if (what == FULL && __atomic_load_n(&counts[SPACE], __ATOMIC_SEQ_CST) == nth && n > 1) return REAL(write)(f, p, n / 2); // The last room that is left.
    if (what == FULL || is_full(f)) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t result = REAL(write)(f, p, what == HALF ? n / 2 : n);
    if (what == AFTER || what == HALF) stop();
    return result;
}
ssize_t pwrite(int f, const void *p, size_t n, off_t o) { AROUND(counts_file(f), WRITE, 1, name_of(f), "", REAL(pwrite)(f, p, n, o)); }
ssize_t pwrite64(int f, const void *p, size_t n, off_t o) { AROUND(counts_file(f), WRITE, 1, name_of(f), "", REAL(pwrite64)(f, p, n, o)); }
ssize_t writev(int f, const struct iovec *p, int n) { AROUND(counts_file(f), WRITE, 1, name_of(f), "", REAL(writev)(f, p, n)); }
ssize_t copy_file_range(int a, off_t *x, int b, off_t *y, size_t n, unsigned f) { AROUND(counts_file(b), WRITE, 1, name_of(b), "", REAL(copy_file_range)(a, x, b, y, n, f)); }

// New files. A file that is only opened takes no room.
#define OPEN(name, parameters, at, path, call)                                     \
    int name parameters {                                                          \
        mode_t mode = 0;                                                           \
        if (flags & (O_CREAT | O_TMPFILE)) {                                       \
            va_list more;                                                          \
            va_start(more, flags);                                                 \
            mode = va_arg(more, mode_t);                                           \
            va_end(more);                                                          \
        }                                                                          \
        AROUND((flags & O_CREAT) && makes(at, path), CREATE, 1, path, "", call); \
    }
OPEN(open, (const char *a, int flags, ...), AT_FDCWD, a, REAL(open)(a, flags, mode))
OPEN(open64, (const char *a, int flags, ...), AT_FDCWD, a, REAL(open64)(a, flags, mode))
OPEN(openat, (int x, const char *a, int flags, ...), x, a, REAL(openat)(x, a, flags, mode))
OPEN(openat64, (int x, const char *a, int flags, ...), x, a, REAL(openat64)(x, a, flags, mode))

// The one call that programs make by its number.
long syscall(long number, ...) {
    long a[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(more, long);
    va_end(more);
    int counted = number == SYS_renameat2 && counts_path((int)a[0], (const char *)a[1]);
    AROUND(counted, RENAME, 0, (const char *)a[3], (const char *)a[1], REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}
