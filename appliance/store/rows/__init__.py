"""Keeps many records of one form as rows of bytes, with their indices and orders in C."""
