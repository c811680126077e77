"""Text that stands for something which is not known here."""

from typing import Self


class Unknown(str):
    """Text that is not known, as it was written; ``why`` says what it hangs on."""

    __slots__ = ("may_be_many", "why")
    may_be_many: bool
    why: str

    def __new__(cls, text: str, why: str, *, may_be_many: bool = False) -> Self:
        """``may_be_many``: unquoted, so that it may stand for no word, or for several."""
        made = super().__new__(cls, text)
        made.why, made.may_be_many = why, may_be_many
        return made
