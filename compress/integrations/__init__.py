"""Integrations: external programs that can use compressors."""
