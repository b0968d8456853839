"""One settings dataclass and one ``main()`` for each command."""
