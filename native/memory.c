/* Says how the C library keeps freed memory. */
#include <malloc.h>

#include "appliance.h"

#define LARGE_BYTES (128 * 1024)	/* what glibc begins with */

int wga_return_freed_memory(void)
{
#ifdef __GLIBC__
	/* Otherwise it keeps more for itself each time a larger block is freed, up to 64 MiB (mallopt(3)). */
	return mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) && mallopt(M_TRIM_THRESHOLD, LARGE_BYTES);
#else
	return 0;
#endif
}

int wga_trim_memory(void)
{
#ifdef __GLIBC__
	return malloc_trim(0);
#else
	return 0;
#endif
}
