/* Loaded before the system's library, makes every sync of a file take SLOW_DISK_MS longer.
 * All programs of the benchmark are slowed down alike. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>

static void delay(void)
{
    const char *text = getenv("SLOW_DISK_MS");
    long ms = text ? atol(text) : 0;
    struct timespec left = { ms / 1000, ms % 1000 * 1000000 };
    while (nanosleep(&left, &left) != 0)
        ;
}

#define SLOW(name, arguments, passed)                                                  \
    int name arguments                                                                 \
    {                                                                                  \
        int (*real) arguments = (int(*) arguments)dlsym(RTLD_NEXT, #name);             \
        delay();                                                                       \
        return real passed;                                                            \
    }

SLOW(fsync, (int fd), (fd))
SLOW(fdatasync, (int fd), (fd))
SLOW(syncfs, (int fd), (fd))
SLOW(sync_file_range, (int fd, off64_t at, off64_t count, unsigned flags), (fd, at, count, flags))
