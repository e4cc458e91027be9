"""Single calls at the price of a batch: nothing yet."""

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    pass
