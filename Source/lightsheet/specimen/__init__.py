"""What one look tells of a specimen, before any network."""
