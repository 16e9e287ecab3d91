"""Defines the routes of the API, one file per resource."""
