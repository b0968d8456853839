"""Objects in an image: a network tells inside, edge and seeds, from which instances grow."""
