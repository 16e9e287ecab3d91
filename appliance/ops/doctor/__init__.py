"""Diagnoses an exit: reads facts of the host, the state and the running server, and checks them (pure)."""
