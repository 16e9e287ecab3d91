"""The HTTP API, version 1: routes a noun, authentication, schemas, and the one table from errors to statuses."""
