"""What a table, a template or an option about them cannot do, in words for the person who asked."""


class TableError(Exception):
    """`message` says what is wrong; `hint`, where there is one, says what to do."""

    def __init__(self, message: str, hint: str | None = None, *, code: str = "bad_table") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
