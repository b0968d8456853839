"""Commands about running it all: downloads, the page, the container, records of what was done."""
