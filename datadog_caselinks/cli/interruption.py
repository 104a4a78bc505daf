"""The error for a run that a signal ended, with its exit status."""


class RunInterruptedError(Exception):
    """A signal ended the run."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """The exit status that shells report for a program ended by this signal."""
        return 128 + self.signal_number
