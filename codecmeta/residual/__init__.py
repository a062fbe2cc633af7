"""Residuals of pictures: one interface, and the sources that implement it."""
