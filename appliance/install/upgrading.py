"""`wg-appliance upgrade`: to this version, or back to the one that ran."""
