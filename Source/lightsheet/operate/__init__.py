"""What runs around the package: the challenge's container and the doctor that tries an image first."""
