"""The fleet's accounts, tokens and prices, and their replica on each exit."""
