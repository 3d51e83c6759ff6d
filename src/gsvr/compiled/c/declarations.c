/* Which declarations the library was compiled with; `setup.py` works the number out. */
#include "kernels.h"

KERNEL checksum_of_declarations(void) { return GSVR_DECLARATIONS; }
