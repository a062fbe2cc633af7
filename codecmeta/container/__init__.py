"""Container files: packets, time stamps, boxes and completeness, without decoding."""
