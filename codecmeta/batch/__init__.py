"""Many videos: isolated workers, resume and what runs the jobs."""
