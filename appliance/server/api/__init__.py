"""Serves the HTTP API, version 1: routes, authentication, schemas, and the mapping of errors to statuses."""
