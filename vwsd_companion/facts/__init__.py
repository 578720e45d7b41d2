"""What notebooks leave on disk, read and written in one place."""
