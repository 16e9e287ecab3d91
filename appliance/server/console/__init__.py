"""Renders the pages that the service shows to people: templates and stylesheets are package data."""
