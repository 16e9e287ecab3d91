#ifndef WGA_APPLIANCE_H
#define WGA_APPLIANCE_H

#include <stddef.h>
#include <stdint.h>

#include "appliance.cdef.h"

_Static_assert(sizeof(struct wga_peer) == 88, "Python unpacks it as =32sQQqII16sIHH");
_Static_assert(offsetof(struct wga_peer, rx_bytes) == 32, "no padding");
_Static_assert(sizeof(struct wga_allowed_ip) == 18, "Python unpacks it as =16sBB");
_Static_assert(sizeof(struct wga_key) == 32, "Python takes it apart");

#endif
