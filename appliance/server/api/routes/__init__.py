"""Defines the routes of the API, one file per resource. `create_app` (server/api/app.py) lists them."""
