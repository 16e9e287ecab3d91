"""The property of a test under which pytest keeps what the test shows."""

FIGURES = "figures"
