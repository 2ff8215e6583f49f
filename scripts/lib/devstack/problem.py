"""What went wrong, in words for the person at the terminal, with an exit code."""

EXIT_FAILED = 1
EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69  # a tool or a registry that we need is not there


class Problem(Exception):
    def __init__(self, message, exit_code=EXIT_FAILED):
        super().__init__(message)
        self.exit_code = exit_code
