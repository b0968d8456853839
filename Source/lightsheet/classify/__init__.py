"""States of nuclei over time: crops of each at three time points, and which state it is in."""
