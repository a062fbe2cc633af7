"""Residuals of pictures: one interface, and the sources behind it."""
