// SPDX-License-Identifier: GPL-3.0-or-later
// Preloaded into a daemon: malloc(), calloc() and realloc() fail when the test says so. tests/netns/shortage.py
//
// The test and the daemon share a page, the file that CLOUDVPN_SHORTAGE names.
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct page {
    _Atomic int64_t until;      // calls that still succeed, then `count` fail; counted down while armed
    _Atomic int64_t count;
    _Atomic int64_t armed;
    _Atomic int64_t failed;     // calls so far
    _Atomic int64_t seen;       // calls while armed
    _Atomic int64_t everywhere; // 0: only what our extension modules ask for, or others on their behalf
};

struct range {
    uintptr_t first, last;
};

enum { RANGES = 256, DEPTH = 64 };

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static struct page *page;
static pid_t main_thread;
static struct range ours[RANGES], deadly[RANGES];
static int our_count, deadly_count;

static void tell_crash(int number);

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("CLOUDVPN_SHORTAGE");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *found = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    main_thread = getpid();
    void *frame;
    backtrace(&frame, 1);       // loads what it needs
    page = found == MAP_FAILED ? NULL : found;
    if (page)
        signal(SIGSEGV, tell_crash);
}

// Where it crashed, on stderr: a crash is what the tests look for.
static void tell_crash(int number)
{
    void *frames[DEPTH];
    page->armed = 0;
    backtrace_symbols_fd(frames, backtrace(frames, DEPTH), 2);
    signal(number, SIG_DFL);
    raise(number);
}

// Where libraries lie, from /proc/self/maps, without asking for memory.
static void find_ranges(void)
{
    static char text[1 << 19];
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    for (ssize_t got; fd >= 0 && (got = read(fd, text + size, sizeof text - 1 - size)) > 0;)
        size += got;
    close(fd);
    text[size] = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        char *rest;
        struct range range = {strtoul(line, &rest, 16), 0};
        range.last = strtoul(rest + 1, NULL, 16);
        if (strstr(line, "cloudvpn/_fast/") && our_count < RANGES)
            ours[our_count++] = range;
        else if (strstr(line, "_rust.") && deadly_count < RANGES)
            deadly[deadly_count++] = range;
    }
}

static int is_in(const struct range *ranges, int count, void *address)
{
    for (int at = 0; at < count; at++)
        if ((uintptr_t)address >= ranges[at].first && (uintptr_t)address < ranges[at].last)
            return 1;
    return 0;
}

// Rust ends a process that has no memory: cryptography, which reads certificates, is spared.
static int is_wanted(void)
{
    void *frames[DEPTH];
    int is_ours = page->everywhere != 0;
    if (!our_count)
        find_ranges();
    for (int at = backtrace(frames, DEPTH) - 1; at >= 0; at--) {
        if (is_in(deadly, deadly_count, frames[at]))
            return 0;
        is_ours |= is_in(ours, our_count, frames[at]);
    }
    return is_ours;
}

// Only the thread of the event loop, which carries the frames, lacks memory.
static int fails(void)
{
    static int is_asking;       // backtrace() may take memory itself
    if (!page || !page->armed || syscall(SYS_gettid) != main_thread || is_asking)
        return 0;
    is_asking = 1;
    int wanted = is_wanted();
    is_asking = 0;
    if (!wanted)
        return 0;
    page->seen++;
    int64_t left = page->until--;
    if (left > 0)
        return 0;
    if (-left + 1 >= page->count)
        page->armed = 0;
    page->failed++;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return fails() ? NULL : __libc_realloc(old, size);
}
