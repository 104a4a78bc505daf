"""That a signal ended the run, and the exit status that tells of it."""


class RunInterruptedError(Exception):
    """The signal with the number ``by`` ended the run."""

    def __init__(self, by: int) -> None:
        super().__init__(by)
        self.by = by

    @property
    def exit_status(self) -> int:
        """As shells report a program that a signal ended."""
        return 128 + self.by
