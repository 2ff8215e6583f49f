"""What the person at the terminal has to know; nothing else ends a run."""

EXIT_FAILED = 1
EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
EXIT_INTERRUPTED = 130


class Problem(Exception):
    def __init__(self, text, exit_code=EXIT_FAILED):
        super().__init__(text)
        self.exit_code = exit_code
