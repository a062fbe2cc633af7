"""The record of one video: VideoMeta, its file and what is derived from it."""
