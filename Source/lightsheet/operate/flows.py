"""What the flows share: commands as steps, which fail a step by their exit code."""

from collections.abc import Callable, Sequence


def run(main: Callable[[list[str]], int], *words: object, allowed: Sequence[int] = (0,)) -> None:
    """Run a command in this process.

    Raises
    ------
    RuntimeError
        When it ends with another exit code than allowed; its own message is on the screen.
    """
    code = main([str(word) for word in words])
    if code not in allowed:
        name = main.__module__.rpartition(".")[2]
        raise RuntimeError(f"{name} ended with exit code {code} (its message is above)")
