"""Batches of videos: isolated workers, resuming, and engines that run the jobs."""
