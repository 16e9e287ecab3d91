"""Runs the service: builds its parts, starts them and watches over them."""
