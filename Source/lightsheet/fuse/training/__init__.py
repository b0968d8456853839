"""Training of networks that fuse: pairs, what is learnt from them, and the card of what came out."""
