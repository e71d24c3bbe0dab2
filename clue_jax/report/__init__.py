"""Pages and figures from files on disk."""
