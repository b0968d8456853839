"""Files from elsewhere: lists of what there is, downloads that are whole or absent, safe unpacking."""
