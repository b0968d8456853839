"""Networks: tensor in, tensor out, no file access."""
