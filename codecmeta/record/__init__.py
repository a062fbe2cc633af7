"""Record of one video: VideoMeta, its file format and derived quantities."""
