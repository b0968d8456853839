"""From stacks to converted volumes and lists of them."""
