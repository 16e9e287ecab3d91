"""WireGuard: keys, devices, the difference between what is and what should be, wg-quick text."""
