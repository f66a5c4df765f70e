"""The one error users see: what was wrong, what was got, what was expected, what to do.

Every refusal of input (an option, a file, a combination that cannot run) is an :class:`InputError`.
The command line prints its single message and exits with status 2; Python callers catch it.
"""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used, said in one message.

    Parameters
    ----------
    what : what is wrong, naming the option, file or field.
    got : the offending value, as the user wrote it (optional).
    expected : what would have been accepted (optional).
    remedy : what to do about it (optional).

    >>> print(InputError("seq_len does not divide", got=4096, expected="a multiple of 6", remedy="use 4092"))
    seq_len does not divide: got 4096, expected a multiple of 6; use 4092
    """

    def __init__(
        self, what: str, *, got: object = None, expected: str | None = None, remedy: str | None = None
    ) -> None:
        self.what, self.got, self.expected, self.remedy = what, got, expected, remedy
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The message in one line."""
        details = []
        if self.got is not None:
            details.append(f"got {self.got}")
        if self.expected is not None:
            details.append(f"expected {self.expected}")
        text = self.what + (": " + ", ".join(details) if details else "")
        return text + (f"; {self.remedy}" if self.remedy else "")
