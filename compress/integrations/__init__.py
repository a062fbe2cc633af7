"""Other people's programs that can use compressors."""
